//! Restoring: from a repository into a sink. Every message is verified against its digest before it is delivered under its name.

mod fetch;
mod plan;
mod rebuild;

pub(crate) use fetch::{Fetched, Fetcher};
pub(crate) use plan::{Planned, Planner, Scope};
pub(crate) use rebuild::{Progress, Rebuilding};

use crate::error::{Error, ErrorKind, Result};
use crate::ledger::describe;
use crate::message::{Envelope, Folder, FolderPath, Identity, MailboxName};
use crate::repository::{Journal, JournalName, Repository};
use crate::resources::Resources;
use crate::runtime;
use crate::sink::{MailboxSink, Note, Sink};
use crate::source::Kind;
use bytes::Bytes;
use futures::{StreamExt, stream};
use std::collections::HashSet;
use std::sync::Arc;

/// How many mailboxes are restored at once.
const MAILBOXES_AT_ONCE: usize = 4;
/// The most notes, and the most damages, that a report names; beyond it counts.
const NAMED_MAX: usize = 10_000;

/// A restore to be: which mailboxes, as of when. Nothing happens until [`finish`](Self::finish).
#[derive(Debug)]
pub struct Restore {
    repository: Repository,
    resources: Resources,
    sink: Arc<dyn Sink>,
    mailboxes: Option<Vec<MailboxName>>,
    at: Option<u64>,
    scope: Scope,
}

/// What a restore did.
#[derive(Clone, Debug, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct RestoreReport {
    /// The version of this report's shape.
    pub schema: u32,
    /// Mailboxes restored.
    pub mailboxes: u64,
    /// Messages delivered, each verified.
    pub restored: u64,
    /// Octets of these messages.
    pub bytes: u64,
    /// Octets read from packs.
    pub bytes_read: u64,
    /// Messages in quarantine: not delivered.
    pub quarantined: u64,
    /// Messages that could not be rebuilt, or not be delivered.
    pub failed: u64,
    /// What failed, up to 10,000 entries.
    pub failures: Vec<Failure>,
    /// How many things the sink had to rename.
    pub renamed: u64,
    /// How many things the sink could not hold.
    pub unholdable: u64,
    /// How many messages the sink had to transform.
    pub transformed: u64,
    /// What the sink had to change or leave out, up to 10,000 entries, as text.
    pub notes: Vec<String>,
}

/// A message, or a mailbox, that could not be restored.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct Failure {
    /// The mailbox, for people.
    pub mailbox: String,
    /// The folder, for people.
    pub folder: String,
    /// What names the message in its folder, for people; empty if the failure is of the whole mailbox.
    pub message: String,
    /// What is wrong.
    pub reason: String,
    /// Whether stored octets are damaged (or else the sink refused).
    pub is_damage: bool,
}

impl Restore {
    pub(crate) fn new(repository: Repository, resources: Resources, sink: Arc<dyn Sink>) -> Self {
        Self { repository, resources, sink, mailboxes: None, at: None, scope: Scope::Living }
    }

    /// Restores these mailboxes only.
    #[must_use]
    pub fn mailboxes(mut self, names: impl IntoIterator<Item = MailboxName>) -> Self {
        self.mailboxes = Some(names.into_iter().collect());
        self
    }

    /// Restores the state as of this time (nanoseconds since 1970): as the last commit not after it left each mailbox.
    #[must_use]
    pub fn at(mut self, nanoseconds: u64) -> Self {
        self.at = Some(nanoseconds);
        self
    }

    /// Messages that are gone, too: for checking.
    pub(crate) fn everything(mut self) -> Self {
        self.scope = Scope::All;
        self
    }

    /// Restores.
    ///
    /// # Cancel safety
    /// Dropping the future ends it; no message is left half delivered under its name.
    ///
    /// # Errors
    /// [`NotFound`](ErrorKind::NotFound) for a mailbox that is not in the repository; what the store reports of listings. Damaged messages are in the report.
    pub async fn finish(self) -> Result<RestoreReport> {
        let mut report = RestoreReport { schema: 1, ..RestoreReport::default() };
        let names = self.names(&mut report).await?;
        let restores = stream::iter(names).map(|name| self.mailbox(name));
        let mut restores = restores.buffer_unordered(MAILBOXES_AT_ONCE);
        while let Some(part) = restores.next().await {
            report.add(part);
        }
        report.failures.sort_by(|a, b| (&a.mailbox, &a.folder, &a.message).cmp(&(&b.mailbox, &b.folder, &b.message)));
        report.notes.sort_unstable();
        Ok(report)
    }

    /// The mailboxes to restore. A journal that does not tell whose it is fails by itself; the others are restored.
    async fn names(&self, report: &mut RestoreReport) -> Result<Vec<MailboxName>> {
        if let Some(wanted) = &self.mailboxes {
            let journals = self.repository.journals().await?;
            for name in wanted {
                if journals.binary_search(&JournalName::new(&self.repository, name)).is_err() {
                    return Err(Error::new(ErrorKind::NotFound, format!("there is no mailbox '{name}'")));
                }
            }
            return Ok(wanted.clone());
        }
        let mut names = Vec::new();
        for journal in self.repository.journals().await? {
            match journal.mailbox(&self.repository).await {
                Ok(name) => names.push(name),
                Err(error) => report.fail(&MailboxName::new(journal.commit(0)), None, &error),
            }
        }
        names.sort_unstable();
        Ok(names)
    }

    /// Restores one mailbox; what goes wrong with it is in its report.
    async fn mailbox(&self, name: MailboxName) -> RestoreReport {
        let mut report = RestoreReport { mailboxes: 1, ..RestoreReport::default() };
        if let Err(error) = self.try_mailbox(&name, &mut report).await {
            report.fail(&name, None, &error);
        }
        report
    }

    async fn try_mailbox(&self, name: &MailboxName, report: &mut RestoreReport) -> Result<()> {
        let journal = Journal::load(&self.repository, name, self.at).await?;
        if journal.commits.is_empty() {
            report.mailboxes = 0;
            return Ok(());
        }
        let sink = self.open(&journal, report).await?;
        let kinds: Arc<Vec<Kind>> = Arc::new(journal.sources.iter().map(|source| source.kind.clone()).collect());
        let octets = self.window_octets();
        let is_ordered = self.sink.is_ordered();
        let announced: HashSet<Bytes> = journal.folders.keys().cloned().collect();
        let planner = Planner::new(self.repository.clone(), journal, is_ordered, octets, self.scope).await?;
        let fetcher = Fetcher::new(self.repository.clone());
        let windows = stream::unfold(Some((planner, announced)), |state| async {
            let (mut planner, mut announced) = state?;
            match planner.window().await {
                Ok(window) if window.is_empty() => None,
                Ok(window) => {
                    let notes = self.announce(&window, &mut announced, &sink, &kinds).await;
                    Some((notes.map(|notes| (window, notes)), Some((planner, announced))))
                }
                Err(error) => Some((Err(error), None)),
            }
        });
        let at_once = if is_ordered { 1 } else { self.resources.executor().parallelism() + 1 };
        let deliveries = windows.map(|window| {
            let (sink, kinds, fetcher) = (Arc::clone(&sink), Arc::clone(&kinds), fetcher.clone());
            async move {
                let (window, notes) = window?;
                let mut report = self.window(name, window, sink, kinds, fetcher).await;
                report.note(notes);
                Ok(report)
            }
        });
        {
            let mut deliveries = std::pin::pin!(deliveries.buffer_unordered(at_once));
            while let Some(part) = deliveries.next().await {
                match part {
                    Ok(part) => report.add(part),
                    Err(error) => report.fail(name, None, &error),
                }
            }
        }
        let sink = Arc::clone(&sink);
        runtime::run(&**self.resources.executor(), move || sink.finish()).await?
    }

    /// Octets of messages in one window; with pieces sealed, opened and encoded again it takes four times as much memory.
    fn window_octets(&self) -> u64 {
        (self.resources.budget().octets() / 32).clamp(1 << 20, 8 << 20)
    }

    async fn open(&self, journal: &Journal, report: &mut RestoreReport) -> Result<Arc<dyn MailboxSink>> {
        let (sink, name) = (Arc::clone(&self.sink), journal.mailbox.clone());
        let folders: Vec<_> = journal
            .folders
            .values()
            .map(|record| {
                let source = journal.sources.get(record.source as usize);
                let kind = source.map_or_else(|| Kind::Other("unknown".into()), |source| source.kind.clone());
                (record.folder.clone(), kind)
            })
            .collect();
        let (sink, notes) = runtime::run(&**self.resources.executor(), move || {
            let mut notes = Vec::new();
            let sink = sink.mailbox(&name, &mut notes)?;
            for (folder, kind) in &folders {
                sink.folder(folder, kind, &mut notes)?;
            }
            Ok::<_, Error>((sink, notes))
        })
        .await??;
        report.note(notes);
        Ok(Arc::from(sink))
    }

    /// Announces the folders of messages whose folder is in no record: those of appended messages, and of messages whose folder another
    /// source no longer has.
    async fn announce(
        &self,
        window: &[Planned],
        announced: &mut HashSet<Bytes>,
        sink: &Arc<dyn MailboxSink>,
        kinds: &[Kind],
    ) -> Result<Vec<Note>> {
        let mut folders = Vec::new();
        for Planned { row, .. } in window.iter().filter(|planned| planned.row.quarantine.is_none()) {
            if announced.insert(row.envelope.folder.clone()) {
                let kind = kinds.get(row.source as usize).cloned();
                let kind = kind.unwrap_or_else(|| Kind::Other("unknown".into()));
                folders.push((Folder::new(FolderPath::of_raw(row.envelope.folder.clone())), kind));
            }
        }
        if folders.is_empty() {
            return Ok(Vec::new());
        }
        let sink = Arc::clone(sink);
        runtime::run(&**self.resources.executor(), move || {
            let mut notes = Vec::new();
            folders.iter().try_for_each(|(folder, kind)| sink.folder(folder, kind, &mut notes))?;
            Ok(notes)
        })
        .await?
    }

    /// Fetches, rebuilds and delivers the messages of one window.
    async fn window(
        &self,
        name: &MailboxName,
        window: Vec<Planned>,
        sink: Arc<dyn MailboxSink>,
        kinds: Arc<Vec<Kind>>,
        fetcher: Fetcher,
    ) -> RestoreReport {
        let octets = self.window_octets();
        let _permit = self.resources.budget().acquire(octets.max(crate::pack::PIECE_DEFAULT) * 4).await;
        let mut report = RestoreReport::default();
        let (mut long, mut short) = (Vec::new(), Vec::new());
        for planned in window {
            let content: u64 = planned.pieces.iter().map(|at| u64::from(at.content)).sum();
            if planned.row.quarantine.is_some() {
                report.quarantined += 1;
            } else if content > octets {
                long.push(planned);
            } else {
                short.push(planned);
            }
        }
        let work = Delivering { name: name.clone(), domain: self.repository.domain().clone(), sink, kinds };
        let work = Arc::new(work);
        let executor = &**self.resources.executor();
        let fetched = fetcher.fetch(short.iter().flat_map(|planned| planned.pieces.iter().copied())).await;
        report.bytes_read += fetched.octets;
        let job = Arc::clone(&work);
        match runtime::run(executor, move || job.deliver_all(short, &fetched)).await {
            Ok(part) => report.add(part),
            Err(error) => report.fail(name, None, &error),
        }
        for planned in long {
            let row = (planned.row.envelope.clone(), planned.row.length);
            if let Err(error) = self.deliver_long(&work, planned, &fetcher, octets, &mut report).await {
                report.fail(name, Some(&row.0), &error);
            } else {
                report.restored += 1;
                report.bytes += row.1;
            }
        }
        report
    }

    /// A message too long for one window: a few pieces at a time.
    async fn deliver_long(
        &self,
        work: &Arc<Delivering>,
        planned: Planned,
        fetcher: &Fetcher,
        octets: u64,
        report: &mut RestoreReport,
    ) -> Result<()> {
        let executor = &**self.resources.executor();
        let job = Arc::clone(work);
        let (mut rebuilding, notes) = runtime::run(executor, move || {
            let mut notes = Vec::new();
            let rebuilding = job.begin(planned, &mut notes);
            rebuilding.map(|rebuilding| (rebuilding, notes))
        })
        .await??;
        report.note(notes);
        loop {
            let pieces = rebuilding.next_pieces(octets);
            let count = pieces.len();
            let fetched = fetcher.fetch(pieces).await;
            report.bytes_read += fetched.octets;
            let (back, progress, notes) = runtime::run(executor, move || {
                let mut notes = Vec::new();
                let progress = rebuilding.advance(&fetched, count, &mut notes);
                (rebuilding, progress, notes)
            })
            .await?;
            rebuilding = back;
            report.note(notes);
            if progress? == Progress::Done {
                return Ok(());
            }
        }
    }
}

/// Delivers messages of one mailbox, on workers.
struct Delivering {
    name: MailboxName,
    domain: crate::digest::Domain,
    sink: Arc<dyn MailboxSink>,
    kinds: Arc<Vec<Kind>>,
}

impl Delivering {
    fn begin(&self, planned: Planned, notes: &mut Vec<Note>) -> Result<Rebuilding> {
        let unknown = Kind::Other("unknown".into());
        let kind = self.kinds.get(planned.row.source as usize).unwrap_or(&unknown);
        Rebuilding::begin(planned, &self.domain, |row| {
            self.sink.deliver(&row.envelope, kind, row.position, row.length, notes)
        })
    }

    fn deliver_all(&self, window: Vec<Planned>, fetched: &Fetched) -> RestoreReport {
        let mut report = RestoreReport::default();
        for planned in window {
            let mut notes = Vec::new();
            let (envelope, length, count) = (planned.row.envelope.clone(), planned.row.length, planned.pieces.len());
            let delivered = self
                .begin(planned, &mut notes)
                .and_then(|mut rebuilding| rebuilding.advance(fetched, count, &mut notes));
            match delivered {
                Ok(Progress::Done) => {
                    report.restored += 1;
                    report.bytes += length;
                }
                Ok(Progress::NeedsMore) => {
                    let error = Error::damaged("a recipe needs more pieces than it has");
                    report.fail(&self.name, Some(&envelope), &error);
                }
                Err(error) => report.fail(&self.name, Some(&envelope), &error),
            }
            report.note(notes);
        }
        report
    }
}

impl Failure {
    /// What went wrong with a message, or with a whole mailbox.
    pub(crate) fn of(mailbox: &MailboxName, message: Option<&Envelope>, error: &Error) -> Self {
        let text = |octets: &[u8]| String::from_utf8_lossy(octets).into_owned();
        Self {
            mailbox: mailbox.to_string(),
            folder: message.map_or_else(String::new, |envelope| text(&envelope.folder)),
            message: message.map_or_else(String::new, |envelope| match &envelope.identity {
                Identity::Named(name) => text(name),
                Identity::Content => text(&envelope.before),
            }),
            reason: describe(error),
            is_damage: error.kind() == ErrorKind::Damaged,
        }
    }
}

impl RestoreReport {
    /// Whether everything was restored as it was.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.failed == 0 && self.quarantined == 0 && self.renamed == 0 && self.unholdable == 0 && self.transformed == 0
    }

    fn add(&mut self, other: Self) {
        self.mailboxes += other.mailboxes;
        self.restored += other.restored;
        self.bytes += other.bytes;
        self.bytes_read += other.bytes_read;
        self.quarantined += other.quarantined;
        self.failed += other.failed;
        self.renamed += other.renamed;
        self.unholdable += other.unholdable;
        self.transformed += other.transformed;
        append(&mut self.failures, other.failures);
        append(&mut self.notes, other.notes);
    }

    fn fail(&mut self, mailbox: &MailboxName, message: Option<&Envelope>, error: &Error) {
        self.failed += 1;
        let failure = Failure::of(mailbox, message, error);
        append(&mut self.failures, vec![failure]);
    }

    fn note(&mut self, notes: Vec<Note>) {
        for note in notes {
            let text = match note {
                Note::Renamed { from, to } => {
                    self.renamed += 1;
                    format!("renamed: {from} -> {to}")
                }
                Note::Unholdable { what, of } => {
                    self.unholdable += 1;
                    format!("left out: {what} of {of}")
                }
                Note::Transformed { how, of } => {
                    self.transformed += 1;
                    format!("changed: {how} of {of}")
                }
            };
            append(&mut self.notes, vec![text]);
        }
    }
}

fn append<T>(to: &mut Vec<T>, from: Vec<T>) {
    let room = NAMED_MAX.saturating_sub(to.len());
    to.extend(from.into_iter().take(room));
}
