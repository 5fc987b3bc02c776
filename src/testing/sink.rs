//! A sink that remembers what was delivered to it.

use crate::error::{Error, Result};
use crate::message::{Envelope, Folder, MailboxName};
use crate::sink::{Delivery, MailboxSink, Note, Sink};
use crate::source::Kind;
use std::collections::{BTreeMap, HashSet};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// A sink that remembers what was delivered to it, and holds its callers to the contract of [`MailboxSink`]: a message for a folder that
/// was not announced, a second message at once for a folder of an ordered sink, a delivery after the end are errors of kind
/// [`Invalid`](crate::ErrorKind::Invalid).
///
/// Clones share one memory.
#[derive(Clone)]
pub struct Memory {
    kind: Kind,
    is_ordered: bool,
    fault: Arc<Fault>,
    mailboxes: Arc<Mutex<BTreeMap<MailboxName, Mailbox>>>,
}

type Fault = dyn Fn(&MailboxName, &Envelope, Step) -> Option<Error> + Send + Sync;

/// Where a delivery can be made to fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Step {
    /// When it begins.
    Begin,
    /// When octets are written.
    Write,
    /// When it is committed.
    Commit,
}

/// What a mailbox was given.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Mailbox {
    /// The folders, in the order of their announcement, each with the kind of source that it came from.
    pub folders: Vec<(Folder, Kind)>,
    /// The messages committed, in the order of their commits.
    pub messages: Vec<Delivered>,
    /// How many deliveries were dropped without a commit.
    pub dropped: u64,
    /// Whether the mailbox was finished.
    pub is_finished: bool,
    /// The folders, by raw octets, to which something is being delivered.
    busy: HashSet<Vec<u8>>,
}

/// A message that was committed.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Delivered {
    /// Everything known of it besides its octets.
    pub envelope: Envelope,
    /// The kind of source that it came from.
    pub origin: Kind,
    /// Its place in its folder's order.
    pub position: u64,
    /// The length that was promised, in octets.
    pub length: u64,
    /// Its octets.
    pub octets: Vec<u8>,
}

impl Memory {
    /// An empty sink that says it is of this kind and takes messages in any order.
    #[must_use]
    pub fn new(kind: Kind) -> Self {
        Self { kind, is_ordered: false, fault: Arc::new(|_, _, _| None), mailboxes: Arc::default() }
    }

    /// The same sink, which takes the messages of a folder in order and one at a time.
    #[must_use]
    pub fn ordered(mut self) -> Self {
        self.is_ordered = true;
        self
    }

    /// The same sink, whose deliveries fail where `fault` gives an error.
    #[must_use]
    pub fn failing(
        mut self,
        fault: impl Fn(&MailboxName, &Envelope, Step) -> Option<Error> + Send + Sync + 'static,
    ) -> Self {
        self.fault = Arc::new(fault);
        self
    }

    /// What was delivered so far, by mailbox.
    #[must_use]
    pub fn mailboxes(&self) -> BTreeMap<MailboxName, Mailbox> {
        self.lock().clone()
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<MailboxName, Mailbox>> {
        self.mailboxes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn with<T>(&self, name: &MailboxName, act: impl FnOnce(&mut Mailbox) -> T) -> T {
        act(self.lock().entry(name.clone()).or_default())
    }

    fn check(&self, name: &MailboxName, envelope: &Envelope, step: Step) -> Result<()> {
        (self.fault)(name, envelope, step).map_or(Ok(()), Err)
    }
}

impl fmt::Debug for Memory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Memory").field("kind", &self.kind).field("is_ordered", &self.is_ordered).finish_non_exhaustive()
    }
}

impl Sink for Memory {
    fn kind(&self) -> Kind {
        self.kind.clone()
    }

    fn is_ordered(&self) -> bool {
        self.is_ordered
    }

    fn mailbox(&self, name: &MailboxName, _notes: &mut Vec<Note>) -> Result<Box<dyn MailboxSink>> {
        self.with(name, |mailbox| mailbox.is_finished = false);
        Ok(Box::new(Recording { sink: self.clone(), name: name.clone() }))
    }
}

struct Recording {
    sink: Memory,
    name: MailboxName,
}

impl MailboxSink for Recording {
    fn folder(&self, folder: &Folder, origin: &Kind, _notes: &mut Vec<Note>) -> Result<()> {
        self.sink.with(&self.name, |mailbox| {
            open(mailbox)?;
            mailbox.folders.push((folder.clone(), origin.clone()));
            Ok(())
        })
    }

    fn deliver(
        &self,
        envelope: &Envelope,
        origin: &Kind,
        position: u64,
        length: u64,
        _notes: &mut Vec<Note>,
    ) -> Result<Box<dyn Delivery>> {
        self.sink.check(&self.name, envelope, Step::Begin)?;
        self.sink.with(&self.name, |mailbox| {
            open(mailbox)?;
            if !mailbox.folders.iter().any(|(folder, _)| folder.path.raw == envelope.folder) {
                return Err(Error::invalid("a message for a folder that was not announced"));
            }
            if self.sink.is_ordered && !mailbox.busy.insert(envelope.folder.to_vec()) {
                return Err(Error::invalid("two messages at once for a folder that takes one after the other"));
            }
            Ok(())
        })?;
        let message =
            Delivered { envelope: envelope.clone(), origin: origin.clone(), position, length, octets: Vec::new() };
        Ok(Box::new(Recorded { sink: self.sink.clone(), name: self.name.clone(), message: Some(message) }))
    }

    fn finish(&self) -> Result<()> {
        self.sink.with(&self.name, |mailbox| {
            open(mailbox)?;
            mailbox.is_finished = true;
            Ok(())
        })
    }
}

fn open(mailbox: &Mailbox) -> Result<()> {
    if mailbox.is_finished { Err(Error::invalid("the mailbox is finished already")) } else { Ok(()) }
}

struct Recorded {
    sink: Memory,
    name: MailboxName,
    message: Option<Delivered>,
}

impl Delivery for Recorded {
    fn write(&mut self, octets: &[u8]) -> Result<()> {
        let Some(message) = &mut self.message else { return Ok(()) };
        self.sink.check(&self.name, &message.envelope, Step::Write)?;
        message.octets.extend_from_slice(octets);
        Ok(())
    }

    fn commit(mut self: Box<Self>, _notes: &mut Vec<Note>) -> Result<()> {
        if let Some(message) = &self.message {
            self.sink.check(&self.name, &message.envelope, Step::Commit)?;
        }
        if let Some(message) = self.message.take() {
            self.sink.with(&self.name, |mailbox| {
                mailbox.busy.remove(&message.envelope.folder[..]);
                mailbox.messages.push(message);
            });
        }
        Ok(())
    }
}

impl Drop for Recorded {
    fn drop(&mut self) {
        if let Some(message) = self.message.take() {
            self.sink.with(&self.name, |mailbox| {
                mailbox.busy.remove(&message.envelope.folder[..]);
                mailbox.dropped += 1;
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::ErrorKind;
    use crate::message::{FolderPath, Identity};

    fn deliver(mailbox: &dyn MailboxSink) -> Result<Box<dyn Delivery>> {
        mailbox.deliver(&Envelope::new("", Identity::Content), &Kind::Mbox, 4, 2, &mut Vec::new())
    }

    #[test]
    fn what_was_committed_is_remembered_and_what_was_dropped_counted() {
        let sink = Memory::new(Kind::Eml);
        let mailbox = sink.mailbox(&MailboxName::new("a"), &mut Vec::new()).unwrap();
        assert_eq!(deliver(&*mailbox).err().unwrap().kind(), ErrorKind::Invalid);
        mailbox.folder(&Folder::new(FolderPath::default()), &Kind::Mbox, &mut Vec::new()).unwrap();
        drop(deliver(&*mailbox).unwrap());
        let mut delivery = deliver(&*mailbox).unwrap();
        delivery.write(b"ab").unwrap();
        delivery.commit(&mut Vec::new()).unwrap();
        mailbox.finish().unwrap();
        assert!(mailbox.finish().is_err());
        let seen = sink.mailboxes().remove(&MailboxName::new("a")).unwrap();
        assert_eq!((seen.messages.len(), seen.dropped, seen.is_finished), (1, 1, true));
        assert_eq!((&seen.messages[0].octets[..], seen.messages[0].position), (&b"ab"[..], 4));
    }

    #[test]
    fn an_ordered_sink_takes_one_message_at_a_time_in_a_folder() {
        let sink = Memory::new(Kind::Mbox).ordered();
        let mailbox = sink.mailbox(&MailboxName::new("a"), &mut Vec::new()).unwrap();
        mailbox.folder(&Folder::new(FolderPath::default()), &Kind::Mbox, &mut Vec::new()).unwrap();
        let first = deliver(&*mailbox).unwrap();
        assert!(deliver(&*mailbox).is_err());
        drop(first);
        assert!(deliver(&*mailbox).is_ok());
    }

    #[test]
    fn faults_come_where_they_are_wanted() {
        let sink = Memory::new(Kind::Eml)
            .failing(|_, _, step| (step == Step::Commit).then(|| Error::new(ErrorKind::Full, "full")));
        let mailbox = sink.mailbox(&MailboxName::new("a"), &mut Vec::new()).unwrap();
        mailbox.folder(&Folder::new(FolderPath::default()), &Kind::Mbox, &mut Vec::new()).unwrap();
        let error = deliver(&*mailbox).unwrap().commit(&mut Vec::new()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Full);
        assert_eq!(sink.mailboxes()[&MailboxName::new("a")].dropped, 1);
    }
}
