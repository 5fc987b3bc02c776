//! One message on its way into an mbox file.

use super::file::{Appender, Tail};
use super::from_line::from_line;
use super::{Idle, MboxFolder};
use crate::error::{Error, ErrorKind, Result};
use crate::message::{Envelope, Flags};
use crate::sink::files::{message_label, unholdable};
use crate::sink::from_lines::FromLines;
use crate::sink::{Delivery, Note};
use bytes::Bytes;
use std::sync::{Arc, PoisonError};

pub(super) struct MboxDelivery {
    folder: Arc<MboxFolder>,
    idle: Arc<Idle>,
    /// The file while the delivery lasts.
    file: Option<Appender>,
    /// Where the file ended before this message.
    begin: u64,
    tail: Tail,
    after: Bytes,
    /// For a message that came from elsewhere: it is quoted and ends a line.
    quoting: Option<(FromLines, Vec<u8>)>,
    /// The message, for people.
    label: String,
    /// Whether the folder is free for the next one.
    is_done: bool,
}

impl MboxDelivery {
    /// Begins behind the last message of the folder; `is_exact` if this one came from an mbox.
    pub(super) fn begin(
        folder: Arc<MboxFolder>,
        idle: Arc<Idle>,
        envelope: &Envelope,
        is_exact: bool,
        notes: &mut Vec<Note>,
    ) -> Result<Self> {
        let (begin, tail) = claim(&folder)?;
        let after = if is_exact { envelope.after.clone() } else { Bytes::from_static(folder.line_ending) };
        let newline = folder.line_ending.last().copied().unwrap_or(b'\n');
        let quoting = (!is_exact).then(|| (FromLines::quoting(newline), Vec::new()));
        let label = message_label(&folder.label, envelope);
        // From here on the folder is released when the delivery is dropped.
        let mut delivery = Self { folder, idle, file: None, begin, tail, after, quoting, label, is_done: false };
        let file = match delivery.idle.take(&delivery.folder.raw) {
            Some(file) => file,
            None => Appender::open(&delivery.folder.path, delivery.folder.existing, begin)?,
        };
        delivery.file.insert(file).seek(&delivery.folder.path, begin)?;
        if is_exact {
            delivery.lead_exactly(&envelope.before, notes)?;
        } else {
            delivery.lead_anew(envelope, notes)?;
        }
        Ok(delivery)
    }

    /// The octets that were in front of the message. If the message before it is not the one that was (it may be gone, or have come from
    /// elsewhere) and does not end its line, the From_ line would be lost in it.
    fn lead_exactly(&mut self, before: &[u8], notes: &mut Vec<Note>) -> Result<()> {
        if before.starts_with(b"From ") && !self.tail.may_be_at_line_start() {
            notes.push(Note::Transformed { how: "line ending put before the From_ line", of: self.label.clone() });
            self.push(self.folder.line_ending)?;
        }
        self.push(before)
    }

    fn lead_anew(&mut self, envelope: &Envelope, notes: &mut Vec<Note>) -> Result<()> {
        let ending = self.folder.line_ending;
        if !self.tail.is_at_line_start(self.folder.line_ending) {
            self.push(ending)?;
        }
        if !self.tail.is_behind_blank_line(self.folder.line_ending) {
            self.push(ending)?;
        }
        if envelope.flags != Flags::default() {
            notes.push(unholdable("flags", &self.label));
        }
        let line = self.made_from_line(envelope, notes);
        self.push(line.as_bytes())?;
        self.push(ending)
    }

    fn made_from_line(&self, envelope: &Envelope, notes: &mut Vec<Note>) -> String {
        let folder = &self.folder;
        let seconds = envelope.internal_date.map(|date| date.seconds);
        if seconds.is_none() && folder.absence.is_first() {
            notes.push(unholdable("absence of an internal date", &folder.label));
        }
        if envelope.internal_date.is_some_and(|date| date.zone_minutes.is_some()) && folder.zone.is_first() {
            notes.push(unholdable("time zone of internal dates", &folder.label));
        }
        from_line(seconds.unwrap_or(0)).unwrap_or_else(|| {
            notes.push(unholdable("internal date", &self.label));
            from_line(0).unwrap_or_default()
        })
    }

    fn push(&mut self, octets: &[u8]) -> Result<()> {
        let file = self.file.as_mut().ok_or_else(|| Error::internal("an mbox file is written to after its end"))?;
        self.tail.push(octets);
        file.push(&self.folder.path, octets)
    }

    /// Ends the message's last line and says what was changed.
    fn end_anew(&mut self, notes: &mut Vec<Note>) -> Result<()> {
        let Some((mut lines, mut rest)) = self.quoting.take() else { return Ok(()) };
        rest.clear();
        lines.finish(&mut rest);
        self.push(&rest)?;
        if !self.tail.is_at_line_start(self.folder.line_ending) {
            self.push(self.folder.line_ending)?;
            notes.push(Note::Transformed { how: "final line ending added", of: self.label.clone() });
        }
        if lines.changed() > 0 {
            notes.push(Note::Transformed { how: "mboxrd quoting", of: self.label.clone() });
        }
        Ok(())
    }

    /// Gives the folder free; `end` is where it ends now.
    fn release(&mut self, end: Option<u64>, is_broken: bool) {
        if let Some(file) = self.file.take().filter(|_| !is_broken) {
            self.idle.give(self.folder.raw.clone(), file);
        }
        let mut state = self.folder.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.is_busy = false;
        self.is_done = true;
        state.is_broken |= is_broken;
        if let Some(end) = end {
            state.end = end;
            state.tail = std::mem::take(&mut self.tail);
        }
    }
}

impl Delivery for MboxDelivery {
    fn write(&mut self, octets: &[u8]) -> Result<()> {
        let Some((mut lines, mut buffer)) = self.quoting.take() else { return self.push(octets) };
        buffer.clear();
        lines.push(octets, &mut buffer);
        let done = self.push(&buffer);
        self.quoting = Some((lines, buffer));
        done
    }

    fn commit(mut self: Box<Self>, notes: &mut Vec<Note>) -> Result<()> {
        self.end_anew(notes)?;
        let after = std::mem::take(&mut self.after);
        self.push(&after)?;
        let file = self.file.as_mut().ok_or_else(|| Error::internal("an mbox file is written to after its end"))?;
        let end = file.flush(&self.folder.path)?;
        self.release(Some(end), false);
        Ok(())
    }
}

impl Drop for MboxDelivery {
    fn drop(&mut self) {
        if self.is_done {
            return;
        }
        let cut = self.file.as_mut().map(|file| file.cut(&self.folder.path, self.begin));
        self.release(None, matches!(cut, Some(Err(_))));
    }
}

/// Takes the folder for one delivery; gives where its file ends, and how.
fn claim(folder: &MboxFolder) -> Result<(u64, Tail)> {
    let mut state = folder.state.lock().unwrap_or_else(PoisonError::into_inner);
    if state.is_broken {
        return Err(Error::new(ErrorKind::Unavailable, format!("'{}' ends inside a message", folder.path.display())));
    }
    if state.is_busy {
        return Err(Error::invalid(format!(
            "two messages at once for '{}', which takes one after the other",
            folder.label
        )));
    }
    state.is_busy = true;
    Ok((state.end, state.tail.clone()))
}
