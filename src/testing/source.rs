//! A source that fails as told.

use crate::error::{Error, ErrorKind, Result};
use crate::message::{Flags, Identity, MailboxName};
use crate::source::{
    Batch, Body, Entry, Exclusion, Finished, Kind, Known, MailboxIter, MailboxSource, Memory, Message, OpenBody,
    ReadBody, Reason, Source, SourceId, Unreadable,
};
use bytes::Bytes;
use std::collections::VecDeque;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Mail in memory with a script of what goes wrong with it. Clones share the script; it is looked at when mailboxes are listed.
///
/// ```
/// use mailrail::message::{Identity, MailboxName};
/// use mailrail::source::{Memory, SourceId};
/// use mailrail::testing::source::{Fault, Scripted};
///
/// let memory = Memory::new(SourceId::new([1; 16]));
/// memory.put(&MailboxName::new("alice"), "INBOX", "1", "Subject: one\r\n\r\n");
/// let source = Scripted::new(memory);
/// source.message(&MailboxName::new("alice"), "INBOX", Identity::Named("1".into()), Fault::ReadFailed { at: 5 });
/// ```
#[derive(Clone, Debug)]
pub struct Scripted {
    memory: Memory,
    script: Arc<Mutex<Script>>,
}

/// What goes wrong with one message.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Fault {
    /// An I/O error (EIO) behind this many octets: [`Reason::ReadFailed`].
    ReadFailed {
        /// In octets.
        at: u64,
    },
    /// Access refused (EACCES) behind this many octets: [`Reason::Denied`]. With 0 it is not even opened.
    Denied {
        /// In octets.
        at: u64,
    },
    /// No longer there when it is opened: [`Reason::Vanished`].
    Vanished,
    /// Found to have changed when it has been read: [`Reason::Changed`].
    Changed,
    /// Ends behind this many octets instead of at its length: [`Reason::Short`].
    Short {
        /// In octets.
        at: u64,
    },
    /// No failure: renamed meanwhile, as a Maildir file is when its flags change.
    Moved {
        /// The new flags.
        flags: Flags,
        /// The new place.
        place: Bytes,
    },
}

#[derive(Debug, Default)]
struct Script {
    listing: Option<ErrorKind>,
    mailboxes: Vec<(MailboxName, ErrorKind)>,
    /// After how many entries the enumeration of a mailbox ends in an error.
    enumerations: Vec<(MailboxName, usize)>,
    /// Entries that come in front of a mailbox's own.
    extra: Vec<(MailboxName, Extra)>,
    messages: Vec<(MailboxName, Target, Fault)>,
}

#[derive(Clone, Debug)]
enum Extra {
    Failed(Bytes, ErrorKind),
    Excluded(Bytes, Exclusion),
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Target {
    folder: Bytes,
    identity: Identity,
}

impl Scripted {
    /// This mail; nothing goes wrong yet.
    #[must_use]
    pub fn new(memory: Memory) -> Self {
        Self { memory, script: Arc::default() }
    }

    /// The mail.
    #[must_use]
    pub fn memory(&self) -> &Memory {
        &self.memory
    }

    /// Lets the list of mailboxes fail.
    pub fn listing(&self, error: ErrorKind) {
        self.script().listing = Some(error);
    }

    /// Lets this mailbox be an error in the list of mailboxes.
    pub fn mailbox(&self, mailbox: &MailboxName, error: ErrorKind) {
        self.script().mailboxes.push((mailbox.clone(), error));
    }

    /// Lets the enumeration of this mailbox end in an error after so many entries.
    pub fn enumeration(&self, mailbox: &MailboxName, after_entries: usize) {
        self.script().enumerations.push((mailbox.clone(), after_entries));
    }

    /// Lets something in this mailbox, of this name, fail to be looked at ([`Entry::Failed`]).
    pub fn entry(&self, mailbox: &MailboxName, name: impl Into<Bytes>, error: ErrorKind) {
        self.script().extra.push((mailbox.clone(), Extra::Failed(name.into(), error)));
    }

    /// Puts something into this mailbox that is no message ([`Entry::Excluded`]).
    pub fn excluded(&self, mailbox: &MailboxName, name: impl Into<Bytes>, reason: Exclusion) {
        self.script().extra.push((mailbox.clone(), Extra::Excluded(name.into(), reason)));
    }

    /// Lets this go wrong with the messages of this identity.
    pub fn message(&self, mailbox: &MailboxName, folder: impl Into<Bytes>, identity: Identity, fault: Fault) {
        let target = Target { folder: folder.into(), identity };
        self.script().messages.push((mailbox.clone(), target, fault));
    }

    /// Forgets the script: from now on nothing goes wrong.
    pub fn heal(&self) {
        *self.script() = Script::default();
    }

    fn script(&self) -> MutexGuard<'_, Script> {
        self.script.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Source for Scripted {
    fn id(&self) -> SourceId {
        self.memory.id()
    }

    fn kind(&self) -> Kind {
        self.memory.kind()
    }

    fn mailboxes(&self) -> Result<MailboxIter> {
        if let Some(kind) = self.script().listing {
            return Err(scripted(kind));
        }
        let source = self.clone();
        Ok(Box::new(self.memory.mailboxes()?.map(move |mailbox| source.wrap(mailbox?))))
    }
}

impl Scripted {
    fn wrap(&self, inner: Box<dyn MailboxSource>) -> Result<Box<dyn MailboxSource>> {
        let script = self.script();
        let name = inner.name();
        if let Some((_, kind)) = script.mailboxes.iter().find(|(mailbox, _)| mailbox == name) {
            return Err(scripted(*kind));
        }
        let extra =
            script.extra.iter().filter(|(mailbox, _)| mailbox == name).map(|(_, extra)| extra.clone()).collect();
        let left = script.enumerations.iter().find(|(mailbox, _)| mailbox == name).map(|(_, after)| *after);
        let faults = script.messages.iter().filter(|(mailbox, ..)| mailbox == name);
        let faults = faults.map(|(_, target, fault)| (target.clone(), fault.clone())).collect();
        Ok(Box::new(ScriptedMailbox { inner, extra, left, faults }))
    }
}

fn scripted(kind: ErrorKind) -> Error {
    Error::new(kind, "as the script says")
}

struct ScriptedMailbox {
    inner: Box<dyn MailboxSource>,
    extra: VecDeque<Extra>,
    left: Option<usize>,
    faults: Vec<(Target, Fault)>,
}

impl ScriptedMailbox {
    fn next(&mut self, known: &mut dyn Known) -> Result<Option<Entry>> {
        match &mut self.left {
            Some(0) => return Err(scripted(ErrorKind::Unavailable)),
            Some(left) => *left -= 1,
            None => {}
        }
        match self.extra.pop_front() {
            Some(Extra::Failed(name, kind)) => return Ok(Some(Entry::Failed { name, error: scripted(kind) })),
            Some(Extra::Excluded(name, reason)) => return Ok(Some(Entry::Excluded { name, reason })),
            None => {}
        }
        // A batch that one entry fills.
        let mut batch = Batch::new(1);
        self.inner.fill(known, &mut batch)?;
        Ok(batch.into_entries().pop().map(|entry| self.with_fault(entry)))
    }

    fn with_fault(&self, entry: Entry) -> Entry {
        let Entry::Message(Message { envelope, body }) = entry else { return entry };
        let is_meant = |target: &Target| target.folder == envelope.folder && target.identity == envelope.identity;
        let fault = self.faults.iter().find(|(target, _)| is_meant(target)).map(|(_, fault)| fault.clone());
        let body = match fault {
            None => body,
            Some(fault) => {
                let length = match &body {
                    Body::Octets(octets) => octets.len() as u64,
                    Body::Open { length, .. } => *length,
                };
                Body::Open { length, open: Box::new(FaultyBody { body, fault }) }
            }
        };
        Entry::Message(Message { envelope, body })
    }
}

impl MailboxSource for ScriptedMailbox {
    fn name(&self) -> &MailboxName {
        self.inner.name()
    }

    fn fill(&mut self, known: &mut dyn Known, batch: &mut Batch) -> Result<bool> {
        while !batch.is_full() {
            match self.next(known)? {
                Some(entry) => batch.push(entry),
                None => return Ok(false),
            }
        }
        Ok(true)
    }
}

struct FaultyBody {
    body: Body,
    fault: Fault,
}

impl OpenBody for FaultyBody {
    fn open(self: Box<Self>) -> Result<Box<dyn ReadBody>, Unreadable> {
        match self.fault {
            Fault::Vanished => return Err(unreadable(Reason::Vanished, io::ErrorKind::NotFound)),
            Fault::Denied { at: 0 } => return Err(unreadable(Reason::Denied, io::ErrorKind::PermissionDenied)),
            _ => {}
        }
        let body = match self.body {
            Body::Octets(octets) => Inner::Octets(octets),
            Body::Open { open, .. } => Inner::Opened(open.open()?),
        };
        Ok(Box::new(FaultyRead { body, fault: self.fault, read: 0 }))
    }
}

struct FaultyRead {
    body: Inner,
    fault: Fault,
    read: u64,
}

enum Inner {
    Octets(Bytes),
    Opened(Box<dyn ReadBody>),
}

impl ReadBody for FaultyRead {
    fn read(&mut self, buffer: &mut [u8]) -> Result<usize, Unreadable> {
        let end = match self.fault {
            Fault::ReadFailed { at } | Fault::Denied { at } | Fault::Short { at } => at,
            _ => u64::MAX,
        };
        let wanted = buffer.len().min(usize::try_from(end.saturating_sub(self.read)).unwrap_or(usize::MAX));
        let buffer = buffer.get_mut(..wanted).unwrap_or_default();
        if buffer.is_empty() {
            return match self.fault {
                Fault::ReadFailed { .. } => Err(unreadable(Reason::ReadFailed, io::ErrorKind::Other)),
                Fault::Denied { .. } => Err(unreadable(Reason::Denied, io::ErrorKind::PermissionDenied)),
                _ => Ok(0),
            };
        }
        let length = match &mut self.body {
            Inner::Opened(body) => body.read(buffer)?,
            Inner::Octets(octets) => {
                let taken = octets.split_to(buffer.len().min(octets.len()));
                buffer.iter_mut().zip(&taken).for_each(|(to, from)| *to = *from);
                taken.len()
            }
        };
        self.read += length as u64;
        Ok(length)
    }

    fn finish(&mut self, length: u64) -> Result<Finished, Unreadable> {
        match &self.fault {
            Fault::Changed => Err(unreadable(Reason::Changed, io::ErrorKind::Other)),
            Fault::Short { .. } => Err(unreadable(Reason::Short, io::ErrorKind::UnexpectedEof)),
            Fault::Moved { flags, place } => Ok(Finished::Moved { flags: flags.clone(), place: place.clone() }),
            _ => match &mut self.body {
                Inner::Octets(_) => Ok(Finished::AsEnumerated),
                Inner::Opened(body) => body.finish(length),
            },
        }
    }
}

fn unreadable(reason: Reason, kind: io::ErrorKind) -> Unreadable {
    Unreadable { reason, error: Error::io("reading as the script says", kind.into()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::digest::Domain;
    use crate::message::SystemFlags;
    use crate::source::KnowNothing;

    fn alice() -> MailboxName {
        MailboxName::new("alice")
    }

    fn source(octets: &[u8]) -> Scripted {
        let memory = Memory::new(SourceId::new([1; 16]));
        memory.put(&alice(), "INBOX", "1", octets.to_vec());
        Scripted::new(memory)
    }

    fn entries(source: &Scripted) -> Result<Vec<Entry>> {
        let mut mailbox = source.mailboxes()?.next().unwrap()?;
        let mut batch = Batch::new(1 << 30);
        mailbox.fill(&mut KnowNothing::new(Domain::new([0; 32])), &mut batch)?;
        Ok(batch.into_entries())
    }

    /// What could be read of the only message, and how it ended.
    fn read(source: &Scripted) -> (Vec<u8>, Result<Finished, Unreadable>) {
        let Some(Entry::Message(message)) = entries(source).unwrap().pop() else { panic!("no message") };
        let mut octets = Vec::new();
        let open = match message.body {
            Body::Octets(octets) => return (octets.to_vec(), Ok(Finished::AsEnumerated)),
            Body::Open { open, .. } => open,
        };
        let mut body = match open.open() {
            Ok(body) => body,
            Err(error) => return (octets, Err(error)),
        };
        let mut buffer = [0; 3];
        loop {
            match body.read(&mut buffer) {
                Ok(0) => {
                    let finished = body.finish(octets.len() as u64);
                    return (octets, finished);
                }
                Ok(length) => octets.extend_from_slice(&buffer[..length]),
                Err(error) => return (octets, Err(error)),
            }
        }
    }

    #[test]
    fn every_reason_can_be_made_to_happen() {
        let long = vec![b'x'; 2 << 20];
        for octets in [&b"0123456789"[..], &long] {
            for (fault, readable, reason) in [
                (Fault::ReadFailed { at: 4 }, 4, Reason::ReadFailed),
                (Fault::Denied { at: 0 }, 0, Reason::Denied),
                (Fault::Denied { at: 4 }, 4, Reason::Denied),
                (Fault::Vanished, 0, Reason::Vanished),
                (Fault::Changed, octets.len(), Reason::Changed),
                (Fault::Short { at: 9 }, 9, Reason::Short),
            ] {
                let source = source(octets);
                source.message(&alice(), "INBOX", Identity::Named("1".into()), fault.clone());
                let (read, finished) = read(&source);
                assert_eq!(read, octets[..readable], "{fault:?}");
                assert_eq!(finished.unwrap_err().reason, reason, "{fault:?}");
            }
        }
    }

    #[test]
    fn a_message_can_be_renamed_meanwhile() {
        let source = source(b"x");
        let fault = Fault::Moved { flags: SystemFlags::SEEN.into(), place: "cur:2,S".into() };
        source.message(&alice(), "INBOX", Identity::Named("1".into()), fault);
        let (octets, finished) = read(&source);
        assert_eq!(octets, b"x");
        assert!(matches!(finished, Ok(Finished::Moved { .. })));
    }

    #[test]
    fn mailboxes_and_their_enumeration_can_fail_and_heal() {
        let source = source(b"x");
        source.entry(&alice(), "locked", ErrorKind::Denied);
        source.excluded(&alice(), "index", Exclusion::Foreign);
        let kinds = entries(&source).unwrap();
        assert!(matches!(
            kinds[..],
            [Entry::Failed { .. }, Entry::Excluded { .. }, Entry::Folder(_), Entry::Message(_)]
        ));
        source.enumeration(&alice(), 3);
        assert_eq!(entries(&source).unwrap_err().kind(), ErrorKind::Unavailable);
        source.mailbox(&alice(), ErrorKind::Denied);
        assert_eq!(entries(&source).unwrap_err().kind(), ErrorKind::Denied);
        source.listing(ErrorKind::NotFound);
        assert_eq!(entries(&source).unwrap_err().kind(), ErrorKind::NotFound);
        source.heal();
        assert_eq!(entries(&source).unwrap().len(), 2);
    }
}
