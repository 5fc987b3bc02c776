//! How the kinds of sources are told in the format.

use crate::error::{Error, Result};
use crate::source::Kind;
use crate::wire::{Decoder, Encode};

const MAILDIR: u8 = 1;
const MBOX: u8 = 2;
const EML: u8 = 3;
const OTHER: u8 = 255;

pub(super) fn encode(kind: &Kind, out: &mut Vec<u8>) {
    match kind {
        Kind::Maildir => out.push(MAILDIR),
        Kind::Mbox => out.push(MBOX),
        Kind::Eml => out.push(EML),
        Kind::Other(name) => {
            out.push(OTHER);
            out.octets(name.as_bytes());
        }
    }
}

pub(super) fn decode(decoder: &mut Decoder<'_>) -> Result<Kind> {
    match decoder.byte()? {
        MAILDIR => Ok(Kind::Maildir),
        MBOX => Ok(Kind::Mbox),
        EML => Ok(Kind::Eml),
        OTHER => decoder.text().map(|name| Kind::Other(name.to_owned())),
        _ => Err(Error::damaged("a source is of an unknown kind")),
    }
}
