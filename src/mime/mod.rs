//! MIME structure (RFC 2045, 2046): a streaming framer that partitions a message's octets, and exact base64.
//!
//! Sans-IO and clock-free: octets in, events out. Reading mail cannot fail: what is not understood is literal octets and a counted defect.

pub mod base64;
mod boundary;
mod defects;
mod framer;
mod headers;
mod limits;
mod media;

pub use defects::Defects;
pub use framer::Framer;
pub use limits::Limits;

/// What the framer says about the next octets of a message. Literal and body slices, put together in order, are the message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Event<'a> {
    /// Octets that are in no leaf part's body: headers, delimiters, preamble, epilogue.
    Literal(&'a [u8]),
    /// A leaf part's body begins (RFC 2045 2.4); there is one open body at most.
    Begin(Leaf),
    /// Octets of the open body. The line break in front of the delimiter that ends it is not among them (RFC 2046 5.1.1).
    Body(&'a [u8]),
    /// The open body ends.
    End,
}

/// What is known of a leaf part before its body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Leaf {
    /// Its declared transfer encoding.
    pub encoding: TransferEncoding,
    /// How many multiparts and enclosed messages it is inside of.
    pub depth: u32,
}

/// The transfer encoding that a part declares (RFC 2045 6).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum TransferEncoding {
    /// `7bit`, `8bit`, `binary`, nothing, or something unknown: octets as they are.
    Identity,
    /// `quoted-printable` (RFC 2045 6.7).
    QuotedPrintable,
    /// `base64` (RFC 2045 6.8).
    Base64,
}
