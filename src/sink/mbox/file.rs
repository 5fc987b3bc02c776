//! One mbox file being filled: compared with what is there, then appended to, and cut back when a message is given up.

use crate::error::{Error, ErrorKind, Result};
use crate::sink::system::{self, doing};
use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::Path;

const BUFFER_OCTETS_MAX: usize = 64 << 10;

/// An open mbox file. Octets before `existing` were there before this run: they are compared and never written.
#[derive(Debug)]
pub(super) struct Appender {
    file: File,
    /// Where the next octets go, those in the buffer not counted.
    position: u64,
    existing: u64,
    buffer: Vec<u8>,
}

impl Appender {
    /// Opens the file for what comes behind its first `end` octets.
    pub(super) fn open(path: &Path, existing: u64, end: u64) -> Result<Self> {
        if !system::look(path)?.is_some_and(|found| found.is_file()) {
            return Err(system::in_the_way(path, "is no longer the file that was created"));
        }
        let file = system::private_file().read(true).open(path).map_err(|error| doing("opening", path, error))?;
        let mut appender = Self { file, position: u64::MAX, existing, buffer: Vec::new() };
        appender.seek(path, end)?;
        Ok(appender)
    }

    pub(super) fn seek(&mut self, path: &Path, end: u64) -> Result<()> {
        if self.position != end {
            self.file.seek(SeekFrom::Start(end)).map_err(|error| doing("seeking in", path, error))?;
            self.position = end;
        }
        Ok(())
    }

    pub(super) fn push(&mut self, path: &Path, octets: &[u8]) -> Result<()> {
        if self.buffer.len() + octets.len() > BUFFER_OCTETS_MAX {
            self.flush(path)?;
        }
        if octets.len() >= BUFFER_OCTETS_MAX {
            return self.put(path, octets);
        }
        self.buffer.extend_from_slice(octets);
        Ok(())
    }

    /// Hands everything to the operating system; gives where the file ends now.
    pub(super) fn flush(&mut self, path: &Path) -> Result<u64> {
        let buffer = std::mem::take(&mut self.buffer);
        let done = self.put(path, &buffer);
        self.buffer = buffer;
        self.buffer.clear();
        done.map(|()| self.position)
    }

    fn put(&mut self, path: &Path, octets: &[u8]) -> Result<()> {
        let there = usize::try_from(self.existing.saturating_sub(self.position)).unwrap_or(usize::MAX);
        let (compared, written) = octets.split_at(there.min(octets.len()));
        // Where the cursor is after an error is anybody's guess.
        let position = std::mem::replace(&mut self.position, u64::MAX);
        if !compared.is_empty() {
            let mut found = vec![0; compared.len()];
            self.file.read_exact(&mut found).map_err(|error| doing("comparing with", path, error))?;
            if found != compared {
                let message =
                    format!("'{}' is there already and holds other mail; it was left as it is", path.display());
                return Err(Error::new(ErrorKind::Exists, message));
            }
        }
        self.file.write_all(written).map_err(|error| doing("writing", path, error))?;
        self.position = position.saturating_add(octets.len() as u64);
        Ok(())
    }

    /// Takes away what came behind the first `begin` octets in this run.
    pub(super) fn cut(&mut self, path: &Path, begin: u64) -> Result<()> {
        self.buffer.clear();
        let end = begin.max(self.existing);
        let failed = |error| doing("truncating", path, error);
        if self.file.metadata().map_err(failed)?.len() > end {
            self.file.set_len(end).map_err(failed)?;
        }
        self.seek(path, begin)
    }
}

/// The last octets of a file: enough to see whether it ends with a blank line.
#[derive(Clone, Debug, Default)]
pub(super) struct Tail(Vec<u8>);

impl Tail {
    const OCTETS: usize = 4;

    pub(super) fn push(&mut self, octets: &[u8]) {
        let last = octets.get(octets.len().saturating_sub(Self::OCTETS)..).unwrap_or_default();
        self.0.extend_from_slice(last);
        let surplus = self.0.len().saturating_sub(Self::OCTETS);
        self.0.drain(..surplus);
    }

    /// Whether what comes next begins a line, where lines end so.
    pub(super) fn is_at_line_start(&self, ending: &[u8]) -> bool {
        // LF and CR LF are both taken for the end of a line where one of them is.
        self.0.is_empty() || self.0.last() == ending.last()
    }

    /// Whether what comes next begins a line by any kind of line ending.
    pub(super) fn may_be_at_line_start(&self) -> bool {
        matches!(self.0.last(), None | Some(b'\n' | b'\r'))
    }

    /// Whether what comes next is behind a blank line, or first in the file.
    pub(super) fn is_behind_blank_line(&self, ending: &[u8]) -> bool {
        let Some((last, before)) = self.0.split_last() else { return true };
        let before = if *last == b'\n' { before.strip_suffix(b"\r").unwrap_or(before) } else { before };
        Some(last) == ending.last() && before.last().is_none_or(|octet| octet == last)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tail_knows_line_starts_and_blank_lines_in_both_endings() {
        for (octets, line_start, blank) in [
            (&b""[..], true, true),
            (b"a", false, false),
            (b"a\n", true, false),
            (b"aaaaaa\n\n", true, true),
            (b"a\r\n\r\n", true, true),
            (b"a\r\n", true, false),
            (b"\n", true, true),
            (b"a\n\r\n", true, true),
            (b"a\r\r\n", true, false),
        ] {
            for chunk in [1, 100] {
                let mut tail = Tail::default();
                octets.chunks(chunk).for_each(|octets| tail.push(octets));
                assert_eq!(
                    (tail.is_at_line_start(b"\n"), tail.is_behind_blank_line(b"\r\n")),
                    (line_start, blank),
                    "{octets:?}"
                );
            }
        }
    }

    #[test]
    fn in_a_file_of_carriage_returns_these_alone_end_lines() {
        let mut tail = Tail::default();
        tail.push(b"a\r");
        assert!(tail.is_at_line_start(b"\r") && tail.may_be_at_line_start());
        assert!(!tail.is_at_line_start(b"\n") && !tail.is_behind_blank_line(b"\r"));
        tail.push(b"\r");
        assert!(tail.is_behind_blank_line(b"\r") && !tail.is_behind_blank_line(b"\n"));
    }
}
