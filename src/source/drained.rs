//! For tests: a source, read to its end.

use super::{Batch, Body, Entry, Finished, Known, KnownContainer, Message, OpenBody, Source, Unreadable};
use crate::digest::{Digest, Domain, Hasher};
use crate::message::{Envelope, Evidence, Folder};
use std::collections::{BTreeMap, VecDeque};

/// A mailbox's name and its entries, in order.
pub(super) type Drained = Vec<(String, Vec<Entry>)>;

/// All entries of all mailboxes, with nothing known.
pub(super) fn drain(source: &dyn Source) -> Drained {
    drain_knowing(source, &mut Remembered::default())
}

pub(super) fn drain_knowing(source: &dyn Source, known: &mut dyn Known) -> Drained {
    let mailboxes = source.mailboxes().unwrap().map(|mailbox| {
        let mut mailbox = mailbox.unwrap();
        let mut entries = Vec::new();
        loop {
            let mut batch = Batch::new(1 << 20);
            let more = mailbox.fill(known, &mut batch).unwrap();
            entries.extend(batch.into_entries());
            if !more {
                return (mailbox.name().to_string(), entries);
            }
        }
    });
    mailboxes.collect()
}

/// One line for each entry, to compare with.
pub(super) fn lines(entries: &[Entry]) -> Vec<String> {
    let text = |octets: &[u8]| String::from_utf8_lossy(octets).into_owned();
    let line = |entry: &Entry| match entry {
        Entry::Folder(folder) => format!("folder {}", text(&folder.path.raw)),
        Entry::Message(message) => {
            let name = match &message.envelope.identity {
                crate::message::Identity::Named(name) => text(name),
                crate::message::Identity::Content => "-".to_owned(),
            };
            format!("message {}|{name}", text(&message.envelope.folder))
        }
        Entry::Unchanged { folder, messages } => format!("unchanged {} {messages}", text(folder)),
        Entry::Matched { folder } => format!("matched {}", text(folder)),
        Entry::Excluded { name, reason } => format!("excluded {} {reason:?}", text(name)),
        Entry::Failed { name, error } => format!("failed {} {:?}", text(name), error.kind()),
    };
    entries.iter().map(line).collect()
}

pub(super) fn folders(entries: &[Entry]) -> Vec<&Folder> {
    entries.iter().filter_map(|entry| if let Entry::Folder(folder) = entry { Some(folder) } else { None }).collect()
}

pub(super) fn messages(entries: Vec<Entry>) -> Vec<Message> {
    entries
        .into_iter()
        .filter_map(|entry| if let Entry::Message(message) = entry { Some(message) } else { None })
        .collect()
}

/// Reads a body to its end.
pub(super) fn read(body: Body) -> Result<(Vec<u8>, Finished), Unreadable> {
    match body {
        Body::Octets(octets) => Ok((octets.to_vec(), Finished::AsEnumerated)),
        Body::Open { open, .. } => read_opened(open),
    }
}

fn read_opened(open: Box<dyn OpenBody>) -> Result<(Vec<u8>, Finished), Unreadable> {
    let mut body = open.open()?;
    let mut octets = Vec::new();
    let mut buffer = vec![0; 10_000];
    loop {
        match body.read(&mut buffer)? {
            0 => {
                let finished = body.finish(octets.len() as u64)?;
                return Ok((octets, finished));
            }
            read => octets.extend_from_slice(&buffer[..read]),
        }
    }
}

/// What an earlier run left, as the engine would know it: containers, and the digests of their messages in order.
#[derive(Debug, Default)]
pub(super) struct Remembered {
    pub(super) containers: BTreeMap<Vec<u8>, KnownContainer>,
    pub(super) messages: BTreeMap<Vec<u8>, VecDeque<Told>>,
}

/// What is before a message, what is behind it, and its digest.
type Told = (Vec<u8>, Vec<u8>, Digest);

const DOMAIN: Domain = Domain::new([7; 32]);

impl Remembered {
    /// Remembers everything in `entries`.
    pub(super) fn of(entries: Vec<Entry>) -> Self {
        let mut remembered = Self::default();
        let mut evidence: BTreeMap<Vec<u8>, Evidence> = BTreeMap::new();
        for entry in entries {
            match entry {
                Entry::Folder(folder) => {
                    evidence.insert(folder.path.raw.to_vec(), folder.evidence);
                }
                Entry::Message(Message { envelope, body }) => {
                    let digest = DOMAIN.digest(&read(body).unwrap().0);
                    let messages = remembered.messages.entry(envelope.folder.to_vec()).or_default();
                    messages.push_back((envelope.before.to_vec(), envelope.after.to_vec(), digest));
                }
                _ => {}
            }
        }
        for (folder, evidence) in evidence {
            let messages = remembered.messages.get(&folder).map_or(0, VecDeque::len) as u64;
            remembered.containers.insert(folder, KnownContainer::new(evidence, messages));
        }
        remembered
    }
}

impl Known for Remembered {
    fn container(&self, folder: &[u8]) -> Option<KnownContainer> {
        self.containers.get(folder).filter(|container| !container.evidence.is_none()).cloned()
    }

    fn hasher(&self) -> Hasher {
        DOMAIN.hasher()
    }

    fn matches(&mut self, envelope: &Envelope, digest: &Digest) -> bool {
        let Some(messages) = self.messages.get_mut(&envelope.folder[..]) else { return false };
        let wanted =
            |(before, after, known): &Told| *before == envelope.before && *after == envelope.after && known == digest;
        let Some(at) = messages.iter().position(wanted) else { return false };
        messages.drain(..=at);
        true
    }
}
