//! An mbox file as something to read at any place, and the evidence that shows what happened to it since.

use super::super::file::{Stat, changed, check_length, failed, retried, unreadable};
use super::super::{Finished, OpenBody, ReadBody, Reason, Unreadable};
use super::boundary::Seen;
use super::{LineEnding, Variant};
use crate::error::{Error, ErrorKind, Result};
use crate::message::Evidence;
use crate::wire::Decoder;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// How much of a file's end shows that it only grew, in octets.
pub(super) const TAIL: u64 = 64 << 10;

/// Something to be read at any place. The seam at which tests let reading fail.
pub(super) trait Positioned: Send + Sync {
    /// Reads at `offset`; 0 is the end.
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize>;
    fn stat(&self) -> io::Result<Stat>;
}

impl Positioned for File {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        FileExt::read_at(self, buffer, offset)
    }

    fn stat(&self) -> io::Result<Stat> {
        Ok(Stat::of(&self.metadata()?))
    }
}

/// Fills `buffer` from `offset` on, as far as the file goes. Gives how much came, with the error that ended it.
pub(super) fn read_full(file: &dyn Positioned, buffer: &mut [u8], offset: u64) -> (usize, Option<io::Error>) {
    let mut filled = 0;
    while let Some(rest) = buffer.get_mut(filled..).filter(|rest| !rest.is_empty()) {
        match retried(|| file.read_at(rest, offset + filled as u64)) {
            Ok(0) => break,
            Ok(read) => filled += read,
            Err(error) => return (filled, Some(error)),
        }
    }
    (filled, None)
}

/// The digest of the last [`TAIL`] octets before `end`; an error if they cannot all be read.
pub(super) fn tail_digest(file: &dyn Positioned, end: u64) -> io::Result<[u8; 32]> {
    let start = end.saturating_sub(TAIL);
    let mut buffer = vec![0; usize::try_from(end - start).unwrap_or(0)];
    match read_full(file, &mut buffer, start) {
        (_, Some(error)) => Err(error),
        (read, None) if read < buffer.len() => Err(io::ErrorKind::UnexpectedEof.into()),
        (_, None) => Ok(*blake3::hash(&buffer).as_bytes()),
    }
}

/// What is known of an mbox file that was read to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Container {
    pub(super) stat: Stat,
    /// Whether it may have changed once more without its times showing it.
    pub(super) is_racy: bool,
    /// Whether the last message ended with a blank line, so that what comes behind it is a new one.
    pub(super) is_terminated: bool,
    /// The variant that the caller declared, by which the file was split.
    pub(super) declared: Option<Variant>,
    pub(super) line_ending: LineEnding,
    pub(super) seen: Seen,
    /// The digest of the last [`TAIL`] octets as they were read.
    pub(super) tail: [u8; 32],
}

/// The first octet of the evidence, so that later versions can know theirs.
const VERSION: u8 = 1;

impl Container {
    pub(super) fn evidence(&self) -> Evidence {
        let mut octets = Vec::with_capacity(96);
        octets.push(VERSION);
        octets.push(u8::from(self.is_racy) | u8::from(self.is_terminated) << 1);
        octets.push(self.seen.bits());
        octets.push(variant_number(self.declared));
        octets.push(match self.line_ending {
            LineEnding::Lf => 0,
            LineEnding::CrLf => 1,
            LineEnding::Cr => 2,
        });
        octets.extend_from_slice(&self.tail);
        self.stat.encode(&mut octets);
        Evidence(octets.into())
    }

    /// Reads what [`evidence`](Self::evidence) wrote; an error if it is anything else.
    pub(super) fn of(evidence: &Evidence) -> Result<Self> {
        let mut decoder = Decoder::new(&evidence.0);
        let unknown = || Error::invalid("evidence of another kind of source");
        let [version, flags, seen, declared, ending] = decoder.array()?;
        if version != VERSION {
            return Err(unknown());
        }
        let tail = decoder.array()?;
        let stat = Stat::decode(&mut decoder)?;
        Ok(Self {
            stat,
            is_racy: flags & 1 != 0,
            is_terminated: flags & 2 != 0,
            declared: [
                None,
                Some(Variant::Mboxo),
                Some(Variant::Mboxrd),
                Some(Variant::Mboxcl),
                Some(Variant::Mboxcl2),
            ]
            .get(usize::from(declared))
            .copied()
            .ok_or_else(unknown)?,
            line_ending: [LineEnding::Lf, LineEnding::CrLf, LineEnding::Cr]
                .get(usize::from(ending))
                .copied()
                .ok_or_else(unknown)?,
            seen: Seen::from_bits(seen),
            tail,
        })
    }

    /// Whether the file of this state now is as it was.
    pub(super) fn is_unchanged(&self, now: &Stat, declared: Option<Variant>) -> bool {
        !self.is_racy && self.stat == *now && self.declared == declared
    }

    /// Whether the file of this state now is as it was, with more behind it. Reads the end of the old part.
    pub(super) fn only_grew(&self, file: &dyn Positioned, now: &Stat, declared: Option<Variant>) -> bool {
        let is_longer = (now.device, now.inode) == (self.stat.device, self.stat.inode) && now.size > self.stat.size;
        // An empty file has no end to compare, and nothing to save.
        let is_continued = self.stat.size > 0 && self.is_terminated && self.declared == declared;
        is_longer && is_continued && tail_digest(file, self.stat.size).is_ok_and(|tail| tail == self.tail)
    }
}

fn variant_number(variant: Option<Variant>) -> u8 {
    match variant {
        None => 0,
        Some(Variant::Mboxo) => 1,
        Some(Variant::Mboxrd) => 2,
        Some(Variant::Mboxcl) => 3,
        Some(Variant::Mboxcl2) => 4,
    }
}

/// A message in an mbox file that is too long to be handed out with its entry.
pub(super) struct RangeBody {
    pub(super) file: Arc<dyn Positioned>,
    pub(super) path: PathBuf,
    /// The file's state when it was enumerated.
    pub(super) stat: Stat,
    pub(super) start: u64,
    pub(super) length: u64,
    /// Set if the file could not be read any further behind this, so that the message's length is not known: why.
    pub(super) cut: Option<Reason>,
}

impl OpenBody for RangeBody {
    fn open(self: Box<Self>) -> Result<Box<dyn ReadBody>, Unreadable> {
        let left = self.length;
        Ok(Box::new(ReadRange { body: *self, left }))
    }
}

struct ReadRange {
    body: RangeBody,
    left: u64,
}

impl ReadBody for ReadRange {
    fn read(&mut self, buffer: &mut [u8]) -> Result<usize, Unreadable> {
        let body = &self.body;
        let wanted = buffer.len().min(usize::try_from(self.left).unwrap_or(usize::MAX));
        if let (0, Some(reason)) = (wanted, body.cut) {
            return Err(cut(&body.path, reason));
        }
        let Some(buffer) = buffer.get_mut(..wanted) else { return Ok(0) };
        let offset = body.start + (body.length - self.left);
        let read = retried(|| body.file.read_at(buffer, offset))
            .map_err(|source| unreadable("reading", &body.path, source))?;
        self.left -= read as u64;
        Ok(read)
    }

    fn finish(&mut self, length: u64) -> Result<Finished, Unreadable> {
        let body = &self.body;
        check_length(length, body.length, &body.path)?;
        let now = body.file.stat().map_err(|source| unreadable("looking at", &body.path, source))?;
        if now != body.stat {
            return Err(changed(&body.path));
        }
        Ok(Finished::AsEnumerated)
    }
}

fn cut(path: &Path, reason: Reason) -> Unreadable {
    let message = format!("'{}' could not be read to the end of this message", path.display());
    Unreadable { reason, error: Error::new(ErrorKind::Unavailable, message) }
}

/// The system's error about an mbox file.
pub(super) fn not_read(path: &Path, source: io::Error) -> Error {
    failed("reading", path, source)
}
