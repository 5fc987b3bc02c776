//! Mail that is in memory: for tests, and for embedders that have it there.

use super::{
    Batch, Body, Entry, Finished, Kind, Known, MailboxIter, MailboxSource, Message, OpenBody, ReadBody, Source,
    SourceId, Unreadable,
};
use crate::error::Result;
use crate::message::{Envelope, Evidence, Folder, FolderPath, Identity, MailboxName};
use bytes::Bytes;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

/// Mail that is in memory. Clones are the same mail; what is added or removed shows when the mailboxes are listed next.
#[derive(Clone, Debug)]
pub struct Memory {
    id: SourceId,
    kind: Kind,
    mailboxes: Arc<Mutex<BTreeMap<MailboxName, Contents>>>,
}

/// Folders and messages in the order in which they came.
#[derive(Clone, Debug, Default)]
struct Contents {
    folders: Vec<Folder>,
    messages: Vec<(Envelope, Bytes)>,
}

impl Memory {
    /// No mail yet, of the kind `Other("memory")`.
    #[must_use]
    pub fn new(id: SourceId) -> Self {
        Self { id, kind: Kind::Other("memory".to_owned()), mailboxes: Arc::default() }
    }

    /// The same mail as if it came from a source of this kind.
    #[must_use]
    pub fn with_kind(mut self, kind: Kind) -> Self {
        self.kind = kind;
        self
    }

    /// Adds a mailbox, if it is not there.
    pub fn mailbox(&self, mailbox: &MailboxName) {
        self.change(mailbox, |_| ());
    }

    /// Adds a folder, or puts it in the place of the one of the same raw octets.
    pub fn folder(&self, mailbox: &MailboxName, folder: Folder) {
        self.change(mailbox, |contents| {
            match contents.folders.iter_mut().find(|known| known.path.raw == folder.path.raw) {
                Some(known) => *known = folder,
                None => contents.folders.push(folder),
            }
        });
    }

    /// Adds a message behind the others of its mailbox. Its folder comes into being with it.
    pub fn message(&self, mailbox: &MailboxName, envelope: Envelope, octets: impl Into<Bytes>) {
        let octets = octets.into();
        self.change(mailbox, |contents| {
            if !contents.folders.iter().any(|folder| folder.path.raw == envelope.folder) {
                contents.folders.push(Folder::new(FolderPath::of_raw(envelope.folder.clone())));
            }
            contents.messages.push((envelope, octets));
        });
    }

    /// Adds a message under a name, with evidence by which it counts as unchanged while its octets are. In the place of the one
    /// of the same folder and name, if there is one.
    pub fn put(
        &self,
        mailbox: &MailboxName,
        folder: impl Into<Bytes>,
        name: impl Into<Bytes>,
        octets: impl Into<Bytes>,
    ) {
        let octets = octets.into();
        let mut envelope = Envelope::new(folder, Identity::Named(name.into()));
        envelope.evidence = Evidence(Bytes::copy_from_slice(blake3::hash(&octets).as_bytes()));
        self.remove(mailbox, &envelope.folder, &envelope.identity);
        self.message(mailbox, envelope, octets);
    }

    /// Takes the messages of this identity out of a folder, and says whether there were any.
    pub fn remove(&self, mailbox: &MailboxName, folder: &[u8], identity: &Identity) -> bool {
        self.change(mailbox, |contents| {
            let before = contents.messages.len();
            contents.messages.retain(|(envelope, _)| envelope.folder != folder || envelope.identity != *identity);
            contents.messages.len() < before
        })
    }

    fn change<T>(&self, mailbox: &MailboxName, change: impl FnOnce(&mut Contents) -> T) -> T {
        let mut mailboxes = self.mailboxes.lock().unwrap_or_else(PoisonError::into_inner);
        change(mailboxes.entry(mailbox.clone()).or_default())
    }
}

impl Source for Memory {
    fn id(&self) -> SourceId {
        self.id
    }

    fn kind(&self) -> Kind {
        self.kind.clone()
    }

    fn mailboxes(&self) -> Result<MailboxIter> {
        let mailboxes = self.mailboxes.lock().unwrap_or_else(PoisonError::into_inner).clone();
        Ok(Box::new(mailboxes.into_iter().map(|(name, contents)| {
            let entries = contents.folders.into_iter().map(Entry::Folder);
            let messages = contents.messages.into_iter().map(|(envelope, octets)| message(envelope, octets));
            let entries = Box::new(entries.chain(messages));
            Ok(Box::new(Contained { name, entries }) as Box<dyn MailboxSource>)
        })))
    }
}

fn message(envelope: Envelope, octets: Bytes) -> Entry {
    const INLINE_MAX: usize = 1 << 20;
    let body = if octets.len() <= INLINE_MAX {
        Body::Octets(octets)
    } else {
        Body::Open { length: octets.len() as u64, open: Box::new(MemoryBody(octets)) }
    };
    Entry::Message(Message { envelope, body })
}

struct Contained {
    name: MailboxName,
    entries: Box<dyn Iterator<Item = Entry> + Send>,
}

impl MailboxSource for Contained {
    fn name(&self) -> &MailboxName {
        &self.name
    }

    fn fill(&mut self, _known: &mut dyn Known, batch: &mut Batch) -> Result<bool> {
        while !batch.is_full() {
            match self.entries.next() {
                Some(entry) => batch.push(entry),
                None => return Ok(false),
            }
        }
        Ok(true)
    }
}

/// A body that is in memory.
#[derive(Debug)]
struct MemoryBody(Bytes);

impl OpenBody for MemoryBody {
    fn open(self: Box<Self>) -> Result<Box<dyn ReadBody>, Unreadable> {
        Ok(self)
    }
}

impl ReadBody for MemoryBody {
    fn read(&mut self, buffer: &mut [u8]) -> Result<usize, Unreadable> {
        let taken = self.0.split_to(buffer.len().min(self.0.len()));
        if let Some(buffer) = buffer.get_mut(..taken.len()) {
            buffer.copy_from_slice(&taken);
        }
        Ok(taken.len())
    }

    fn finish(&mut self, _length: u64) -> Result<Finished, Unreadable> {
        Ok(Finished::AsEnumerated)
    }
}

#[cfg(test)]
mod tests {
    use super::super::drained::{drain, lines, messages, read};
    use super::*;

    fn mailbox() -> MailboxName {
        MailboxName::new("a")
    }

    #[test]
    fn what_is_put_in_comes_out_in_order() {
        let memory = Memory::new(SourceId::new([1; 16]));
        memory.put(&mailbox(), "INBOX", "1", "one");
        memory.put(&mailbox(), "INBOX", "2", "two");
        memory.put(&mailbox(), "INBOX", "1", "one again");
        memory.folder(&mailbox(), Folder::new(FolderPath::of_raw("empty".into())));
        memory.mailbox(&MailboxName::new("b"));
        let mut drained = drain(&memory);
        assert_eq!(drained.len(), 2);
        assert!(drained[1].1.is_empty());
        let entries = drained.remove(0).1;
        assert_eq!(lines(&entries), ["folder INBOX", "folder empty", "message INBOX|2", "message INBOX|1"]);
        let octets: Vec<_> = messages(entries).into_iter().map(|message| read(message.body).unwrap().0).collect();
        assert_eq!(octets, [&b"two"[..], b"one again"]);
        assert!(memory.remove(&mailbox(), b"INBOX", &Identity::Named("2".into())));
        assert!(!memory.remove(&mailbox(), b"INBOX", &Identity::Named("2".into())));
    }

    #[test]
    fn a_long_message_is_opened_and_evidence_follows_the_octets() {
        let memory = Memory::new(SourceId::new([1; 16])).with_kind(Kind::Eml);
        let long = vec![b'x'; (1 << 20) + 1];
        memory.put(&mailbox(), "", "1", long.clone());
        memory.put(&mailbox(), "", "2", "y");
        let mut found = messages(drain(&memory).remove(0).1);
        assert_ne!(found[0].envelope.evidence, found[1].envelope.evidence);
        let long_one = found.remove(0);
        assert!(matches!(long_one.body, Body::Open { length, .. } if length == long.len() as u64));
        assert_eq!(read(long_one.body).unwrap().0, long);
    }
}
