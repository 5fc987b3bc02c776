//! Comparing a source with a repository: what an owner signs. The source is enumerated and read anew, and nothing that a transfer recorded is trusted.

mod reading;
mod table;

use crate::digest::Domain;
use crate::error::{Error, ErrorKind, Result};
use crate::ledger::Incomplete;
use crate::message::{Identity, MailboxName};
use crate::repository::{Journal, Mailboxes, MessageRow, Repository};
use crate::resources::Resources;
use crate::runtime::{self, Executor};
use crate::source::{Batch, KnowNothing, MailboxIter, MailboxSource, Source};
use bytes::Bytes;
use futures::future::BoxFuture;
use futures::stream::BoxStream;
use futures::{FutureExt, StreamExt, stream};
use reading::{Place, Reading, Readings, Seen, read_batch};
use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use table::{Entry, Name, Table, Unfound, Verdict};

/// The most differences that a report names; beyond it counts.
const NAMED_MAX: usize = 10_000;
/// What a batch of messages may weigh, in octets.
const BATCH: u64 = 4 << 20;

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

impl Compare {
    pub(crate) fn new(repository: Repository, resources: Resources, source: Arc<dyn Source>) -> Self {
        Self { repository, resources, source }
    }

    /// Compares the source with the latest state in the repository.
    ///
    /// Memory, from the budget: 41 octets for each message that the repository has of the mailbox being compared, 56 for each that is not found at its place.
    /// A mailbox whose messages do not fit is named in the report as not compared, with the budget that it needs. Octets are compared by the first 128
    /// bits of their keyed digests.
    ///
    /// # Cancel safety
    /// Nothing is written.
    ///
    /// # Errors
    /// If the source cannot be enumerated at all; what the store reports.
    pub fn finish(self) -> BoxFuture<'static, Result<CompareReport>> {
        self.compare().boxed()
    }

    async fn compare(self) -> Result<CompareReport> {
        let mut report = CompareReport { schema: 1, ..CompareReport::default() };
        let Mailboxes { names, mut unreadable } = self.repository.find_mailboxes().await?;
        let mut rest: BTreeSet<MailboxName> = names.into_iter().collect();
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
                    let name = mailbox.name().clone();
                    rest.remove(&name);
                    unreadable.retain(|journal| !journal.is_of(&self.repository, &name));
                    self.mailbox(&name, Some(mailbox), &mut report).await?;
                }
            }
        }
        for name in rest {
            self.mailbox(&name, None, &mut report).await?;
        }
        let unreadable = unreadable.iter().map(|journal| Incomplete::new(journal.name().to_string(), &journal.error));
        report.incomplete.extend(unreadable);
        report.differences.sort_unstable();
        Ok(report)
    }

    /// Compares one mailbox. What is wrong with it alone is in the report.
    async fn mailbox(
        &self,
        name: &MailboxName,
        mailbox: Option<Box<dyn MailboxSource>>,
        report: &mut CompareReport,
    ) -> Result<()> {
        report.mailboxes += u64::from(mailbox.is_some());
        match self.compared(name, mailbox, report).await {
            Err(error) if matches!(error.kind(), ErrorKind::Damaged | ErrorKind::Unsupported | ErrorKind::Limit) => {
                report.incomplete.push(Incomplete::new(name.to_string(), &error));
                Ok(())
            }
            compared => compared,
        }
    }

    async fn compared(
        &self,
        name: &MailboxName,
        mailbox: Option<Box<dyn MailboxSource>>,
        report: &mut CompareReport,
    ) -> Result<()> {
        let journal = Journal::load(&self.repository, name, None).await?;
        if mailbox.is_none() && journal.sources.iter().all(|source| source.id != self.source.id()) {
            // It is another source's, and no business of this one.
            return Ok(());
        }
        let messages: u64 = journal.commits.iter().map(|commit| u64::from(commit.rows)).sum();
        let at_once = self.batches_at_once();
        let octets = Table::octets(messages) + BATCH * at_once as u64;
        let budget = self.resources.budget();
        if octets > self.resources.available() {
            let needed =
                format!("a mailbox of {messages} messages needs a budget of {} octets and more", octets / 15 * 16);
            return Err(Error::new(ErrorKind::Limit, needed));
        }
        let _permit = budget.acquire(octets).await;
        let mut side = Side {
            table: self.stored(&journal, messages).await?,
            unfound: Unfound::new(budget.clone(), NAMED_MAX.saturating_sub(report.differences.len())),
            folders: BTreeSet::new(),
            next: HashMap::new(),
        };
        if let Some(mailbox) = mailbox {
            self.read(name, mailbox, at_once, &mut side, report).await?;
        }
        let Side { mut table, unfound, folders, .. } = side;
        report.folders(name, &folders, &journal);
        table.resolve(unfound, |verdict, message, count| report.tell(name, verdict, message, count));
        report.extra += table.left();
        self.name_the_rest(name, &journal, &table, report).await
    }

    fn batches_at_once(&self) -> usize {
        let room = usize::try_from(self.resources.available() / 4 / BATCH).unwrap_or(usize::MAX);
        (self.resources.executor().parallelism() + 1).min(room).max(1)
    }

    /// Reads the source's side of a mailbox, and looks for each message in the table.
    async fn read(
        &self,
        name: &MailboxName,
        mailbox: Box<dyn MailboxSource>,
        at_once: usize,
        side: &mut Side,
        report: &mut CompareReport,
    ) -> Result<()> {
        let (executor, domain) = (&**self.resources.executor(), self.repository.domain());
        let reads = batches(mailbox, executor, domain).map(|batch| async move {
            let ((batch, failure), domain) = (batch?, domain.clone());
            let mut read = runtime::run(executor, move || read_batch(batch, &domain)).await?;
            read.failed.extend(failure.map(|error| Incomplete::new(name.to_string(), &error)));
            Ok::<_, Error>(read)
        });
        let mut reads = std::pin::pin!(reads.buffered(at_once));
        while let Some(read) = reads.next().await {
            match read {
                Ok(read) => report.take(name, read, side),
                Err(error) => report.incomplete.push(Incomplete::new(name.to_string(), &error)),
            }
        }
        Ok(())
    }

    /// The repository's side of a mailbox. What is in quarantine is not the message, so it counts as not stored.
    async fn stored(&self, journal: &Journal, messages: u64) -> Result<Table> {
        let mut table = Table::with_capacity(messages);
        let domain = self.repository.domain();
        journal
            .living(&self.repository, |row| {
                if row.quarantine.is_none() {
                    table.add(place(domain, &row), Seen::of(domain, &row.digest, &row.envelope));
                }
                Ok(())
            })
            .await?;
        table.settle();
        Ok(table)
    }

    /// Names what is only in the repository, as far as the report has room: reads the journal once more.
    async fn name_the_rest(
        &self,
        name: &MailboxName,
        journal: &Journal,
        table: &Table,
        report: &mut CompareReport,
    ) -> Result<()> {
        if table.left() == 0 || report.differences.len() >= NAMED_MAX {
            return Ok(());
        }
        let domain = self.repository.domain();
        journal
            .living(&self.repository, |row| {
                let entry = Entry { place: place(domain, &row), seen: Seen::of(domain, &row.digest, &row.envelope) };
                // Which of a folder's messages without names are left is known by their octets alone, for their numbers are not their positions.
                let is_left = entry.place.unnamed_in().is_none() && table.is_left(&entry);
                if row.quarantine.is_none() && is_left {
                    let message = names(&row.envelope.folder, message_name(&row.envelope.identity));
                    report.differ(name, Some(&message), "only in the repository");
                }
                Ok(())
            })
            .await?;
        for (folder, count) in table.left_without_names() {
            let folder = journal.folders.keys().find(|raw| Place::folder(domain, raw) == folder);
            let message = names(folder.map_or(&[], |raw| raw), &[]);
            (0..count).for_each(|_| report.differ(name, Some(&message), "only in the repository"));
        }
        Ok(())
    }
}

/// What is known of a mailbox while its source is read.
struct Side {
    table: Table,
    unfound: Unfound,
    folders: BTreeSet<Bytes>,
    /// The next number in each folder without names.
    next: HashMap<u64, u64>,
}

/// What a mailbox of a source has, batch by batch; with the last one, why it ended early.
fn batches<'a>(
    mailbox: Box<dyn MailboxSource>,
    executor: &'a dyn Executor,
    domain: &'a Domain,
) -> BoxStream<'a, Result<(Batch, Option<Error>)>> {
    let batches = stream::unfold(Some(mailbox), move |mailbox| async move {
        let mut mailbox = mailbox?;
        let known = domain.clone();
        let filled = runtime::run(executor, move || {
            let mut batch = Batch::new(BATCH as usize);
            let more = mailbox.fill(&mut KnowNothing::new(known), &mut batch);
            (mailbox, batch, more)
        });
        Some(match filled.await {
            Ok((mailbox, batch, Ok(more))) => (Ok((batch, None)), more.then_some(mailbox)),
            // What it told before it failed is compared.
            Ok((_, batch, Err(error))) => (Ok((batch, Some(error))), None),
            Err(error) => (Err(error), None),
        })
    });
    batches.boxed()
}

/// Where a stored message is. One without a name has its position in place of its number.
fn place(domain: &Domain, row: &MessageRow) -> Place {
    match &row.envelope.identity {
        Identity::Named(name) => Place::named(domain, &row.envelope.folder, name),
        Identity::Content => Place::unnamed(Place::folder(domain, &row.envelope.folder), row.position),
    }
}

fn message_name(identity: &Identity) -> &[u8] {
    match identity {
        Identity::Named(name) => name,
        Identity::Content => &[],
    }
}

fn names(folder: &[u8], message: &[u8]) -> Name {
    let text = |octets: &[u8]| String::from_utf8_lossy(octets).into_owned();
    (text(folder), text(message))
}

impl CompareReport {
    /// Whether source and repository are the same.
    #[must_use]
    pub fn is_same(&self) -> bool {
        let Self { missing, extra, different, changed, moved, folders, unreadable, incomplete, .. } = self;
        missing + extra + different + changed + moved + folders + unreadable == 0 && incomplete.is_empty()
    }

    fn take(&mut self, mailbox: &MailboxName, readings: Readings, side: &mut Side) {
        side.folders.extend(readings.folders);
        for Reading { folder, name, place, seen } in readings.messages {
            self.messages += 1;
            let place = place.unwrap_or_else(|folder| {
                let next = side.next.entry(folder).or_default();
                *next += 1;
                Place::unnamed(folder, *next - 1)
            });
            match seen {
                Ok((length, seen)) => {
                    self.bytes += length;
                    let entry = Entry { place, seen };
                    if side.table.find(&entry) {
                        self.same += 1;
                    } else {
                        side.unfound.keep(entry, || names(&folder, &name));
                    }
                }
                Err(reason) => {
                    self.unreadable += 1;
                    self.differ(mailbox, Some(&names(&folder, &name)), &format!("unreadable in the source: {reason}"));
                }
            }
        }
        self.incomplete.extend(readings.failed);
    }

    fn folders(&mut self, mailbox: &MailboxName, mine: &BTreeSet<Bytes>, journal: &Journal) {
        let theirs: BTreeSet<Bytes> = journal.folders.keys().cloned().collect();
        for folder in mine.symmetric_difference(&theirs) {
            self.folders += 1;
            let is_mine = mine.contains(folder);
            let what = if is_mine { "folder only in the source" } else { "folder only in the repository" };
            self.differ(mailbox, Some(&names(folder, &[])), what);
        }
    }

    /// Takes in what became of messages of the source that were not found at their places.
    fn tell(&mut self, mailbox: &MailboxName, verdict: Verdict, message: Option<&Name>, count: u64) {
        let (counter, what) = match verdict {
            Verdict::Same => {
                self.same += count;
                return;
            }
            Verdict::Changed => (&mut self.changed, "other flags, keywords or dates"),
            Verdict::Different => (&mut self.different, "other octets"),
            Verdict::Moved => (&mut self.moved, "under another name or place in the repository"),
            Verdict::Missing => (&mut self.missing, "only in the source"),
        };
        *counter += count;
        self.differ(mailbox, message, what);
    }

    fn differ(&mut self, mailbox: &MailboxName, message: Option<&Name>, what: &str) {
        if let Some((folder, message)) = message.filter(|_| self.differences.len() < NAMED_MAX) {
            let (mailbox, folder, message) = (mailbox.to_string(), folder.clone(), message.clone());
            self.differences.push(Difference { mailbox, folder, message, what: what.to_owned() });
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
