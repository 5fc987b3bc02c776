//! Comparing a source with a repository: what an owner signs. The source is enumerated and read anew, and nothing that a transfer recorded is trusted.

use crate::digest::{Digest, Domain};
use crate::error::{Error, Result};
use crate::ledger::{Incomplete, describe};
use crate::message::{Envelope, Identity, MailboxName};
use crate::repository::{Journal, MessageRow, Repository};
use crate::resources::Resources;
use crate::runtime;
use crate::source::{
    Batch, Body, Entry, Finished, KnowNothing, MailboxIter, MailboxSource, Message, Source, Unreadable,
};
use bytes::Bytes;
use futures::{StreamExt, stream};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// The most differences that a report names; beyond it counts.
const NAMED_MAX: usize = 10_000;
/// What a batch of messages may weigh, in octets.
const BATCH: u64 = 4 << 20;
/// Octets read at a time.
const CHUNK: usize = 256 << 10;

/// A comparison to be. Nothing happens until [`finish`](Self::finish).
#[derive(Debug)]
pub struct Compare {
    repository: Repository,
    resources: Resources,
    source: Arc<dyn Source>,
}

/// What a comparison found.
#[derive(Clone, Debug, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct CompareReport {
    /// The version of this report's shape.
    pub schema: u32,
    /// Mailboxes in the source.
    pub mailboxes: u64,
    /// Messages in the source.
    pub messages: u64,
    /// Octets of these messages.
    pub bytes: u64,
    /// Messages that are the same in both: octets, folder, name, flags, dates.
    pub same: u64,
    /// Messages of the source that the repository does not have.
    pub missing: u64,
    /// Messages of the repository that the source does not have.
    pub extra: u64,
    /// Messages of the same name, or at the same place, with other octets.
    pub different: u64,
    /// Messages of the same octets with other flags, keywords or dates.
    pub changed: u64,
    /// Messages of the same octets under another name or in another folder.
    pub moved: u64,
    /// Folders that only one of both has.
    pub folders: u64,
    /// Messages of the source that could not be read.
    pub unreadable: u64,
    /// The differences, up to 10,000 entries, sorted.
    pub differences: Vec<Difference>,
    /// What could not be enumerated.
    pub incomplete: Vec<Incomplete>,
}

/// A difference between source and repository.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct Difference {
    /// The mailbox, for people.
    pub mailbox: String,
    /// The folder, for people.
    pub folder: String,
    /// What names the message in its folder, for people; empty for a folder.
    pub message: String,
    /// What the difference is.
    pub what: String,
}

/// The messages of one side of a mailbox, by folder and name.
#[derive(Debug, Default)]
struct Side {
    folders: BTreeSet<Bytes>,
    messages: BTreeMap<(Bytes, Bytes), Vec<Seen>>,
}

/// A message of one side.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Seen {
    digest: Digest,
    /// Of what is not octets: flags, keywords, dates, container octets.
    envelope: Digest,
}

impl Compare {
    pub(crate) fn new(repository: Repository, resources: Resources, source: Arc<dyn Source>) -> Self {
        Self { repository, resources, source }
    }

    /// Compares the source with the latest state in the repository.
    ///
    /// Memory grows with the number of messages of the largest mailbox: about 200 octets each.
    ///
    /// # Cancel safety
    /// Nothing is written.
    ///
    /// # Errors
    /// If the source cannot be enumerated at all; what the store reports; damage of a journal.
    pub async fn finish(self) -> Result<CompareReport> {
        let mut report = CompareReport { schema: 1, ..CompareReport::default() };
        let mut rest: BTreeSet<MailboxName> = self.repository.mailboxes().await?.into_iter().collect();
        let mut mailboxes: Option<MailboxIter> = None;
        loop {
            let source = Arc::clone(&self.source);
            let next = runtime::run(&**self.resources.executor(), move || {
                let mut mailboxes = mailboxes.map_or_else(|| source.mailboxes(), Ok)?;
                let next = mailboxes.next();
                Ok::<_, Error>((mailboxes, next))
            });
            let (listing, next) = next.await??;
            mailboxes = Some(listing);
            match next {
                None => break,
                Some(Err(error)) => report.incomplete.push(Incomplete::new("a mailbox".to_owned(), &error)),
                Some(Ok(mailbox)) => {
                    rest.remove(mailbox.name());
                    self.mailbox(mailbox, &mut report).await?;
                }
            }
        }
        for name in rest {
            let theirs = self.stored(&name).await?;
            report.compare(&name, Side::default(), theirs);
        }
        report.differences.sort_unstable();
        Ok(report)
    }

    async fn mailbox(&self, mailbox: Box<dyn MailboxSource>, report: &mut CompareReport) -> Result<()> {
        let name = mailbox.name().clone();
        let theirs = self.stored(&name).await?;
        report.mailboxes += 1;
        let mut mine = Side::default();
        let executor = &**self.resources.executor();
        let batches = stream::unfold(Some(mailbox), |mailbox: Option<Box<dyn MailboxSource>>| async move {
            let mut mailbox = mailbox?;
            let permit = self.resources.budget().acquire(BATCH).await;
            let domain = self.repository.domain().clone();
            let filled = runtime::run(executor, move || {
                let mut batch = Batch::new(BATCH as usize);
                let more = mailbox.fill(&mut KnowNothing::new(domain), &mut batch);
                (mailbox, batch, more)
            });
            match filled.await {
                Ok((mailbox, batch, Ok(more))) => Some((Ok((batch, permit, None)), more.then_some(mailbox))),
                // What was found until then is compared all the same.
                Ok((_, batch, Err(error))) => Some((Ok((batch, permit, Some(error))), None)),
                Err(error) => Some((Err(error), None)),
            }
        });
        let name = &name;
        let reads = batches.map(|batch| async move {
            let (batch, permit, failed) = batch?;
            let domain = self.repository.domain().clone();
            let mut read = runtime::run(executor, move || read_batch(batch, &domain)).await?;
            drop(permit);
            read.failed.extend(failed.map(|error| Incomplete::new(name.to_string(), &error)));
            Ok::<_, Error>(read)
        });
        let mut reads = std::pin::pin!(reads.buffered(self.resources.executor().parallelism() + 1));
        while let Some(read) = reads.next().await {
            match read {
                Ok(read) => report.take(name, read, &mut mine),
                Err(error) => report.incomplete.push(Incomplete::new(name.to_string(), &error)),
            }
        }
        report.compare(name, mine, theirs);
        Ok(())
    }

    /// The repository's side of a mailbox.
    async fn stored(&self, name: &MailboxName) -> Result<Side> {
        let journal = Journal::load(&self.repository, name, None).await?;
        let mut side = Side { folders: journal.folders.keys().cloned().collect(), ..Side::default() };
        let mut content: Vec<(Bytes, u64, Seen)> = Vec::new();
        let domain = self.repository.domain();
        journal
            .living(&self.repository, |row| {
                let MessageRow { envelope, digest, position, quarantine: None, .. } = row else { return Ok(()) };
                let seen = Seen { digest, envelope: envelope_digest(domain, &envelope) };
                match envelope.identity {
                    Identity::Named(message) => side.add(envelope.folder, message, seen),
                    Identity::Content => content.push((envelope.folder, position, seen)),
                }
                Ok(())
            })
            .await?;
        // Messages without names are compared by their places in the folder's order.
        content.sort_by(|a, b| (&a.0, a.1).cmp(&(&b.0, b.1)));
        content.into_iter().for_each(|(folder, _, seen)| side.add_next(folder, seen));
        Ok(side)
    }
}

/// What was read of a batch.
#[derive(Default)]
struct Readings {
    folders: Vec<Bytes>,
    messages: Vec<(Envelope, u64, Seen)>,
    unreadable: Vec<(Envelope, String)>,
    failed: Vec<Incomplete>,
}

fn read_batch(batch: Batch, domain: &Domain) -> Readings {
    let mut readings = Readings::default();
    let mut buffer = Vec::new();
    for entry in batch.into_entries() {
        match entry {
            Entry::Folder(folder) => readings.folders.push(folder.path.raw),
            Entry::Message(Message { mut envelope, body }) => match read(body, &mut envelope, domain, &mut buffer) {
                Ok((length, digest)) => {
                    let seen = Seen { digest, envelope: envelope_digest(domain, &envelope) };
                    readings.messages.push((envelope, length, seen));
                }
                Err(reason) => readings.unreadable.push((envelope, reason)),
            },
            Entry::Failed { name, error } => {
                readings.failed.push(Incomplete::new(String::from_utf8_lossy(&name).into_owned(), &error));
            }
            Entry::Excluded { .. } | Entry::Unchanged { .. } | Entry::Matched { .. } => {}
        }
    }
    readings
}

fn read(body: Body, envelope: &mut Envelope, domain: &Domain, buffer: &mut Vec<u8>) -> Result<(u64, Digest), String> {
    let why = |unreadable: Unreadable| describe(&unreadable.error);
    let open = match body {
        Body::Octets(octets) => return Ok((octets.len() as u64, domain.digest(&octets))),
        Body::Open { open, .. } => open,
    };
    let mut reader = open.open().map_err(why)?;
    let mut hasher = domain.hasher();
    let mut length = 0;
    buffer.resize(CHUNK, 0);
    loop {
        let read = reader.read(buffer).map_err(why)?;
        if read == 0 {
            break;
        }
        hasher.update(buffer.get(..read).unwrap_or_default());
        length += read as u64;
    }
    if let Finished::Moved { flags, place } = reader.finish(length).map_err(why)? {
        (envelope.flags, envelope.place) = (flags, place);
    }
    Ok((length, hasher.finish()))
}

/// A digest of what can differ while the octets are the same.
fn envelope_digest(domain: &Domain, envelope: &Envelope) -> Digest {
    let mut hasher = domain.hasher();
    let mut put = |octets: &[u8]| {
        hasher.update(&(octets.len() as u64).to_le_bytes());
        hasher.update(octets);
    };
    put(&[envelope.flags.system.bits()]);
    put(&envelope.place);
    put(&envelope.before);
    put(&envelope.after);
    put(format!("{:?}", envelope.internal_date).as_bytes());
    envelope.flags.keywords().iter().for_each(|keyword| put(keyword.as_bytes()));
    hasher.finish()
}

impl Side {
    fn add(&mut self, folder: Bytes, message: Bytes, seen: Seen) {
        self.messages.entry((folder, message)).or_default().push(seen);
    }

    /// Adds a message without a name as the next one of its folder.
    fn add_next(&mut self, folder: Bytes, seen: Seen) {
        self.messages.entry((folder, Bytes::new())).or_default().push(seen);
    }
}

impl CompareReport {
    /// Whether source and repository are the same.
    #[must_use]
    pub fn is_same(&self) -> bool {
        self.differences.is_empty() && self.unreadable == 0 && self.incomplete.is_empty()
    }

    fn take(&mut self, mailbox: &MailboxName, readings: Readings, side: &mut Side) {
        side.folders.extend(readings.folders);
        for (envelope, length, seen) in readings.messages {
            self.messages += 1;
            self.bytes += length;
            match envelope.identity {
                Identity::Named(message) => side.add(envelope.folder, message, seen),
                Identity::Content => side.add_next(envelope.folder, seen),
            }
        }
        for (envelope, reason) in readings.unreadable {
            self.messages += 1;
            self.unreadable += 1;
            let name = match &envelope.identity {
                Identity::Named(name) => name.clone(),
                Identity::Content => Bytes::new(),
            };
            self.differ(mailbox, &envelope.folder, &name, format!("unreadable in the source: {reason}"));
        }
        self.incomplete.extend(readings.failed);
    }

    fn compare(&mut self, mailbox: &MailboxName, mine: Side, mut theirs: Side) {
        for folder in mine.folders.symmetric_difference(&theirs.folders) {
            self.folders += 1;
            let what = if mine.folders.contains(folder) {
                "folder only in the source"
            } else {
                "folder only in the repository"
            };
            self.differ(mailbox, folder, b"", what.to_owned());
        }
        let mut missing: BTreeMap<Digest, Vec<(Bytes, Bytes)>> = BTreeMap::new();
        let mut extra: Vec<((Bytes, Bytes), Digest)> = Vec::new();
        for (key, mine) in mine.messages {
            let theirs = theirs.messages.remove(&key).unwrap_or_default();
            let (mine, theirs) =
                if key.1.is_empty() { self.align(mine, theirs) } else { self.pair(mailbox, &key, mine, theirs) };
            mine.into_iter().for_each(|seen| missing.entry(seen.digest).or_default().push(key.clone()));
            extra.extend(theirs.into_iter().map(|seen| (key.clone(), seen.digest)));
        }
        for (key, seen) in theirs.messages {
            extra.extend(seen.into_iter().map(|seen| (key.clone(), seen.digest)));
        }
        for ((folder, message), digest) in extra {
            if missing.get_mut(&digest).and_then(Vec::pop).is_some() {
                self.moved += 1;
                self.differ(mailbox, &folder, &message, "under another name or place in the source".to_owned());
            } else {
                self.extra += 1;
                self.differ(mailbox, &folder, &message, "only in the repository".to_owned());
            }
        }
        for (folder, message) in missing.into_values().flatten() {
            self.missing += 1;
            self.differ(mailbox, &folder, &message, "only in the source".to_owned());
        }
    }

    /// Pairs messages of one name; gives what is left of both sides.
    fn pair(
        &mut self,
        mailbox: &MailboxName,
        key: &(Bytes, Bytes),
        mine: Vec<Seen>,
        mut theirs: Vec<Seen>,
    ) -> (Vec<Seen>, Vec<Seen>) {
        let mut left = Vec::new();
        for seen in mine {
            let exact = theirs.iter().position(|other| *other == seen);
            let found = exact.or_else(|| theirs.iter().position(|other| other.digest == seen.digest));
            match (exact, found) {
                (Some(at), _) => {
                    theirs.swap_remove(at);
                    self.same += 1;
                }
                (None, Some(at)) => {
                    theirs.swap_remove(at);
                    self.changed += 1;
                    self.differ(mailbox, &key.0, &key.1, "other flags, keywords or dates".to_owned());
                }
                (None, None) if !theirs.is_empty() => {
                    theirs.pop();
                    self.different += 1;
                    self.differ(mailbox, &key.0, &key.1, "other octets".to_owned());
                }
                (None, None) => left.push(seen),
            }
        }
        (left, theirs)
    }

    /// Pairs the messages of a folder without names, in order; gives what is left of both sides.
    fn align(&mut self, mine: Vec<Seen>, theirs: Vec<Seen>) -> (Vec<Seen>, Vec<Seen>) {
        let front = mine.iter().zip(&theirs).take_while(|(a, b)| a == b).count();
        let back = mine[front..].iter().rev().zip(theirs[front..].iter().rev()).take_while(|(a, b)| a == b).count();
        self.same += (front + back) as u64;
        let middle = |side: Vec<Seen>| {
            let end = side.len() - back;
            side.into_iter().take(end).skip(front).collect::<Vec<_>>()
        };
        (middle(mine), middle(theirs))
    }

    fn differ(&mut self, mailbox: &MailboxName, folder: &[u8], message: &[u8], what: String) {
        if self.differences.len() < NAMED_MAX {
            let text = |octets: &[u8]| String::from_utf8_lossy(octets).into_owned();
            let (folder, message) = (text(folder), text(message));
            self.differences.push(Difference { mailbox: mailbox.to_string(), folder, message, what });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::{Memory, SourceId};
    use crate::store::MemoryStore;
    use crate::testing::source::Scripted;
    use crate::{Engine, Protection, Resources};
    use futures::executor::block_on;

    #[test]
    fn what_a_source_told_before_its_enumeration_failed_is_compared() {
        let mailbox = MailboxName::new("anna");
        let memory = Memory::new(SourceId::new([1; 16]));
        for number in 0..3 {
            memory.put(&mailbox, "INBOX", number.to_string(), format!("Subject: {number}\r\n\r\n"));
        }
        let report = block_on(async {
            let store = Arc::new(MemoryStore::new());
            let repository = Repository::open_or_create(store, Protection::None).await?;
            let engine = Engine::builder(repository).resources(Resources::inline(64 << 20)?).build()?;
            engine.transfer(memory.clone()).finish().await?;
            let source = Scripted::new(memory);
            // The folder comes first, then its messages.
            source.enumeration(&mailbox, 3);
            engine.compare(source).finish().await
        });
        let report = report.unwrap();
        assert_eq!((report.messages, report.same, report.extra, report.incomplete.len()), (2, 2, 1, 1));
        assert!(!report.is_same());
    }
}
