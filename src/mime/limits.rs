//! What a message may ask of the framer.

/// How far a message's structure is followed. What goes beyond is not refused: it is octets of one leaf, or literal, and a counted defect.
///
/// Together they bound the framer's memory: about `depth_max * boundary_bytes_max + 2 * field_bytes_max` octets at most, a few
/// hundred for ordinary mail, whatever a message's size.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Limits {
    /// How many multiparts and enclosed messages a part may be inside of; a multipart or message that is deeper is a leaf. Default: 64.
    pub depth_max: u32,
    /// How many delimiters may begin a part in one message; what follows them is one leaf. Default: 10,000.
    pub parts_max: u32,
    /// How many octets a header block may have; what follows them is a leaf's body. Default: 1 MiB.
    pub header_bytes_max: usize,
    /// How many octets of a Content-Type or Content-Transfer-Encoding are read; the rest of the value is not looked at. Default: 4 KiB.
    pub field_bytes_max: usize,
    /// How many octets a boundary may have (RFC 2046 5.1.1 allows 70); a multipart with a longer one is a leaf. Default: 998, a line's
    /// length (RFC 5322 2.1.1).
    pub boundary_bytes_max: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            depth_max: 64,
            parts_max: 10_000,
            header_bytes_max: 1024 * 1024,
            field_bytes_max: 4 * 1024,
            boundary_bytes_max: 998,
        }
    }
}
