//! What is wrong with the structure of a message.

/// How often each thing is wrong with a message's structure. None of it loses an octet; it may only hide a part inside of literal octets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Defects {
    /// Parts and enclosed messages whose header block has no blank line at its end (RFC 5322 2.1).
    pub header_unended: u32,
    /// Header blocks longer than the limit: the rest of the part is one leaf.
    pub header_overlong: u32,
    /// Header blocks with more than one Content-Type or Content-Transfer-Encoding: the last one counts.
    pub field_repeated: u32,
    /// Values of these two fields longer than the limit: the rest was not read.
    pub field_overlong: u32,
    /// Transfer encodings that nobody knows (RFC 2045 6.3): taken as octets as they are.
    pub encoding_unknown: u32,
    /// Multiparts without a boundary, or with one that cannot be or is longer than the limit: taken for a leaf.
    pub boundary_missing: u32,
    /// Multiparts without any delimiter line: their body is literal.
    pub boundary_unused: u32,
    /// Multiparts without a close delimiter (RFC 2046 5.1.1): an outer delimiter, or the end of the message, has ended them.
    pub close_missing: u32,
    /// Close delimiters with text right behind them.
    pub close_garbage: u32,
    /// Multiparts and messages nested deeper than the limit: taken for a leaf.
    pub depth_exceeded: u32,
    /// Whether the message has more parts than the limit, as 0 or 1: the rest of it is one leaf.
    pub parts_exceeded: u32,
}

impl Defects {
    /// How many there are of all kinds.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.classes().map(|(_, count)| u64::from(count)).into_iter().sum()
    }

    /// Whether nothing is wrong.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Each class by its name with its count, always in the same order.
    #[must_use]
    pub fn classes(&self) -> [(&'static str, u32); 11] {
        let Self {
            header_unended,
            header_overlong,
            field_repeated,
            field_overlong,
            encoding_unknown,
            boundary_missing,
            boundary_unused,
            close_missing,
            close_garbage,
            depth_exceeded,
            parts_exceeded,
        } = *self;
        [
            ("header_unended", header_unended),
            ("header_overlong", header_overlong),
            ("field_repeated", field_repeated),
            ("field_overlong", field_overlong),
            ("encoding_unknown", encoding_unknown),
            ("boundary_missing", boundary_missing),
            ("boundary_unused", boundary_unused),
            ("close_missing", close_missing),
            ("close_garbage", close_garbage),
            ("depth_exceeded", depth_exceeded),
            ("parts_exceeded", parts_exceeded),
        ]
    }
}

/// Adds one to a count that says at its end only that it is large.
pub(super) fn count(defect: &mut u32) {
    *defect = defect.saturating_add(1);
}
