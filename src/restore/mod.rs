//! Restoring: from a repository into a sink. Every message is verified against its digest before it is delivered under its name.

mod detour;
mod fetch;
mod frames;
mod plan;
mod rebuild;

pub(crate) use detour::Finds;
pub(crate) use fetch::{Fetched, Fetcher};
pub(crate) use plan::{Planned, Planner, Scope};
pub(crate) use rebuild::{Progress, Rebuilding};

use crate::budget::{Permit, Waiting};
use crate::error::{Error, ErrorKind, Result};
use crate::ledger::{describe, shown};
use crate::message::{Envelope, Folder, FolderPath, Identity, MailboxName};
use crate::repository::{Journal, JournalName, LostCommit, Repository, told_names};
use crate::resources::Resources;
use crate::runtime::{self, Executor};
use crate::sink::{MailboxSink, Note, Sink};
use crate::source::Kind;
use crate::store::{Cost, Usage};
use bytes::Bytes;
use futures::future::BoxFuture;
use futures::{FutureExt, StreamExt, stream};
use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// How many mailboxes are restored at once, and at most from a store that is far away: what is known of each takes memory.
const MAILBOXES_AT_ONCE: (usize, usize) = (4, 32);
/// From such a store one mailbox at once for so many octets of the budget.
const MAILBOX_SHARE: u64 = 32 << 20;
/// How many journals are asked at once whose they are, if the store is far away.
const NAMES_AT_ONCE: usize = 32;
/// How many windows of a mailbox are under way beside those that workers have, if the store is far away and memory permits.
const WINDOWS_AHEAD: usize = 8;
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
    fetcher: Fetcher,
    /// How many of its windows wait for memory.
    waiting: AtomicUsize,
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
    /// Octets read from packs, and from commits for their messages.
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
    /// What was asked of the store meanwhile, by all who share its [governor](crate::store::Governor); nothing if it has none.
    pub requests: Usage,
    /// What that costs by the governor's price list.
    pub cost: Option<Cost>,
}

/// A message, or a mailbox, that could not be restored.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
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
    /// How many messages it stands for: 1, also of a whole mailbox; more where a commit cannot be read that had more.
    pub messages: u64,
    /// Whether stored octets are damaged (or else the sink refused).
    pub is_damage: bool,
}

impl Restore {
    pub(crate) fn new(repository: Repository, resources: Resources, sink: Arc<dyn Sink>) -> Self {
        let fetcher = Fetcher::new(repository.clone());
        let waiting = AtomicUsize::new(0);
        Self { repository, resources, sink, mailboxes: None, at: None, scope: Scope::Living, fetcher, waiting }
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

    /// Restores what could be read of the messages in quarantine, and nothing else. None of them is the message that it was: a name that a
    /// sink gives them is its owner's to keep apart from the names of good mail.
    #[must_use]
    pub fn only_quarantined(mut self) -> Self {
        self.scope = Scope::Quarantined;
        self
    }

    /// Messages that are gone, too: for checking.
    pub(crate) fn everything(mut self) -> Self {
        self.scope = Scope::All;
        self
    }

    /// Where blobs are that no moves tell of, for as long as this restore goes on.
    pub(crate) fn keep(&self, finds: Finds) {
        self.fetcher.keep(finds);
    }

    /// Restores. What is damaged fails by itself and is named; all else is restored, also of a mailbox whose journal is damaged. What is forgotten and
    /// swept while it runs may be gone when it comes to it: then it is among the failures, and a new restore does without it.
    ///
    /// # Cancel safety
    /// Dropping the future ends it; no message is left half delivered under its name.
    ///
    /// # Errors
    /// [`NotFound`](ErrorKind::NotFound) for a mailbox that is not in the repository; what the store reports of listings. Damaged messages are in the report.
    pub fn finish(self) -> BoxFuture<'static, Result<RestoreReport>> {
        self.restore().boxed()
    }

    async fn restore(self) -> Result<RestoreReport> {
        let mut report = RestoreReport { schema: 1, ..RestoreReport::default() };
        let asked_before = self.repository.usage();
        self.fetcher.keep_frames(self.resources.budget(), self.frames_octets());
        let names = self.names(&mut report).await?;
        let restores = stream::iter(names).map(|name| self.mailbox(name));
        let mut restores = restores.buffer_unordered(self.mailboxes_at_once());
        while let Some(part) = restores.next().await {
            report.add(part);
        }
        report.failures.sort_unstable();
        report.notes.sort_unstable();
        report.requests = self.repository.usage().since(&asked_before);
        report.cost = self.repository.cost(&report.requests);
        Ok(report)
    }

    /// The mailboxes to restore. A journal that does not tell whose it is fails by itself; the others are restored.
    async fn names(&self, report: &mut RestoreReport) -> Result<Vec<MailboxName>> {
        if let Some(wanted) = &self.mailboxes {
            let journals = self.repository.journals().await?;
            for name in wanted {
                let journal = JournalName::new(&self.repository, name);
                if journals.binary_search(&journal).is_err() || self.is_forgotten(journal).await {
                    return Err(Error::new(ErrorKind::NotFound, format!("there is no mailbox '{name}'")));
                }
            }
            return Ok(wanted.clone());
        }
        let (mut names, mut failed) = (Vec::new(), Vec::new());
        let journals = self.repository.journals().await?.into_iter();
        let owners = journals.map(|journal| async move { (journal, journal.mailbox_if_any(&self.repository).await) });
        let mut owners = stream::iter(owners).buffered(if self.is_far() { NAMES_AT_ONCE } else { 1 });
        while let Some((journal, owner)) = owners.next().await {
            match owner {
                // Who asks for an older time is told that it is forgotten.
                Ok((_, true)) if self.at.is_none() => {}
                Ok((name, _)) => names.push(name),
                Err(error) => failed.push((journal, error)),
            }
        }
        let unnamed = failed.iter().map(|(journal, _)| *journal).collect();
        // It is for people alone, so what goes wrong with it is passed over.
        let mut told = told_names(&self.repository, unnamed).await.unwrap_or_default();
        for (journal, error) in failed {
            let name = told.remove(&journal).unwrap_or_else(|| MailboxName::new(journal.commit(0)));
            report.fail(&name, None, &error);
        }
        names.sort_unstable();
        Ok(names)
    }

    /// Whether there is nothing in a mailbox, and nothing that should be missed: who asks for an older time is told that it is forgotten.
    async fn is_forgotten(&self, journal: JournalName) -> bool {
        self.at.is_none() && matches!(journal.living_mailbox(&self.repository).await, Ok(None))
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
        let journal = self.journal(name, report).await?;
        if journal.commits.is_empty() || journal.is_void {
            report.mailboxes = 0;
            return Ok(());
        }
        let sink = self.open(&journal, report).await?;
        let kinds: Arc<Vec<Kind>> = Arc::new(journal.sources.iter().map(|source| source.kind.clone()).collect());
        let octets = self.window_octets();
        let is_ordered = self.sink.is_ordered();
        let announced = journal.folders.keys().cloned().collect();
        // Whoever waits for memory needs it more.
        let memory = is_ordered.then(|| self.resources.budget().try_acquire(octets)).flatten();
        let planner = Planner::new(self.repository.clone(), journal, is_ordered, octets, self.scope, memory).await?;
        let state = Windows { planner, announced, sink: Arc::clone(&sink), kinds: Arc::clone(&kinds) };
        let executor = Arc::clone(self.resources.executor());
        let windows = stream::unfold(Some(state), move |state| Windows::next(state, Arc::clone(&executor)));
        let ahead = if self.is_far() { WINDOWS_AHEAD } else { 1 };
        let at_once = if is_ordered { 1 } else { self.resources.executor().parallelism() + ahead };
        let deliveries = windows.map(|window| {
            let (sink, kinds) = (Arc::clone(&sink), Arc::clone(&kinds));
            async move {
                let (window, lost, notes, octets) = window?;
                let mut report = self.window(name, window, sink, kinds).await;
                report.bytes_read += octets;
                lost.iter().for_each(|lost| report.fail_commit(name, lost));
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

    /// Whether what is asked of the store takes so long that much must be asked at once.
    fn is_far(&self) -> bool {
        self.repository.governor().is_some()
    }

    fn mailboxes_at_once(&self) -> usize {
        let (least, most) = MAILBOXES_AT_ONCE;
        let share = usize::try_from(self.resources.budget().octets() / MAILBOX_SHARE).unwrap_or(most);
        if self.is_far() { share.clamp(least, most) } else { least }
    }

    /// Octets of messages in one window; with pieces sealed, opened and encoded again it takes four times as much memory.
    fn window_octets(&self) -> u64 {
        (self.resources.budget().octets() / 32).clamp(1 << 20, 8 << 20)
    }

    /// The octets of the budget that a window takes.
    fn window_memory(&self) -> u64 {
        self.window_octets().max(crate::pack::PIECE_DEFAULT) * 4
    }

    /// Octets of the budget for frames that may be wanted again: a quarter, but so much is left that two windows can be under way, if two can at all.
    fn frames_octets(&self) -> u64 {
        let (available, window) = (self.resources.available(), self.window_memory());
        let windows = (available / window).clamp(1, 2);
        (available / 4).min(available.saturating_sub(windows * window))
    }

    /// Memory for a window. Whoever else waits for memory comes before the frames that are kept, and needs not wait for the end of the restore.
    async fn memory(&self) -> Permit {
        let budget = self.resources.budget();
        self.yield_memory();
        let waiting = Waiting::begin(&self.waiting);
        let permit = budget.acquire(self.window_memory()).await;
        drop(waiting);
        self.yield_memory();
        permit
    }

    fn yield_memory(&self) {
        if self.resources.budget().waiting() > self.waiting.load(Ordering::Relaxed) {
            self.fetcher.give_back_frames();
        }
    }

    /// The mailbox's journal; if it is damaged, what can be read of it.
    async fn journal(&self, name: &MailboxName, report: &mut RestoreReport) -> Result<Journal> {
        let loaded = match self.scope {
            // Which messages are forgotten, only this tells.
            Scope::All => Journal::load_all(&self.repository, name, self.at).await,
            Scope::Living | Scope::Quarantined => Journal::load(&self.repository, name, self.at).await,
        };
        match loaded {
            Err(error) if error.kind() == ErrorKind::Damaged => {
                let (journal, lost) = Journal::salvage(&self.repository, name, self.at).await?;
                if journal.commits.is_empty() {
                    return Err(error);
                }
                if lost.is_empty() {
                    // All commits read, but they are not each other's.
                    report.fail(name, None, &error);
                }
                lost.iter().for_each(|lost| report.fail_commit(name, lost));
                Ok(journal)
            }
            loaded => loaded,
        }
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

    /// Fetches, rebuilds and delivers the messages of one window.
    async fn window(
        &self,
        name: &MailboxName,
        window: Vec<Planned>,
        sink: Arc<dyn MailboxSink>,
        kinds: Arc<Vec<Kind>>,
    ) -> RestoreReport {
        let octets = self.window_octets();
        let _permit = self.memory().await;
        let mut report = RestoreReport::default();
        let (mut long, mut short) = (Vec::new(), Vec::new());
        for planned in window {
            let content: u64 = planned.pieces.iter().map(|at| u64::from(at.content)).sum();
            if planned.row.quarantine.is_some() && self.scope != Scope::Quarantined {
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
        let fetched = self.fetcher.fetch(short.iter().flat_map(|planned| planned.pieces.iter().copied())).await;
        report.bytes_read += fetched.octets;
        let job = Arc::clone(&work);
        match runtime::run(executor, move || job.deliver_all(short, &fetched)).await {
            Ok((part, stuck)) => {
                report.add(part);
                for (rebuilding, error) in stuck {
                    self.deliver_on(name, rebuilding, Some(error), octets, &mut report).await;
                }
            }
            Err(error) => report.fail(name, None, &error),
        }
        for planned in long {
            let (job, envelope) = (Arc::clone(&work), planned.row.envelope.clone());
            let begun = runtime::run(executor, move || {
                let mut notes = Vec::new();
                let rebuilding = job.begin(planned, &mut notes);
                rebuilding.map(|rebuilding| (rebuilding, notes))
            });
            match begun.await.and_then(|begun| begun) {
                Ok((rebuilding, notes)) => {
                    report.note(notes);
                    self.deliver_on(name, rebuilding, None, octets, &mut report).await;
                }
                Err(error) => report.fail(name, Some(&envelope), &error),
            }
        }
        report
    }

    /// Delivers a message a few pieces at a time: because it is too long for one window, or because a piece did not read.
    async fn deliver_on(
        &self,
        name: &MailboxName,
        rebuilding: Rebuilding,
        error: Option<Error>,
        octets: u64,
        report: &mut RestoreReport,
    ) {
        let (envelope, length) = (rebuilding.row.envelope.clone(), rebuilding.row.length);
        match self.try_deliver_on(rebuilding, error, octets, report).await {
            Ok(()) => {
                report.restored += 1;
                report.bytes += length;
            }
            Err(error) => report.fail(name, Some(&envelope), &error),
        }
    }

    async fn try_deliver_on(
        &self,
        mut rebuilding: Rebuilding,
        mut failed: Option<Error>,
        octets: u64,
        report: &mut RestoreReport,
    ) -> Result<()> {
        loop {
            if let Some(error) = failed.take() {
                // A piece that does not read may be elsewhere, too.
                match rebuilding.take_stuck() {
                    Some((at, place)) if self.fetcher.is_elsewhere(at, place).await => {}
                    _ => return Err(error),
                }
            }
            let pieces = rebuilding.next_pieces(octets);
            let count = pieces.len();
            let fetched = self.fetcher.fetch(pieces).await;
            report.bytes_read += fetched.octets;
            let (back, progress, notes) = runtime::run(&**self.resources.executor(), move || {
                let mut notes = Vec::new();
                let progress = rebuilding.advance(&fetched, count, &mut notes);
                (rebuilding, progress, notes)
            })
            .await?;
            rebuilding = back;
            report.note(notes);
            match progress {
                Ok(Progress::Done) => return Ok(()),
                Ok(Progress::NeedsMore) if count == 0 => {
                    return Err(Error::damaged("a recipe needs more pieces than it has"));
                }
                Ok(Progress::NeedsMore) => {}
                Err(error) => failed = Some(error),
            }
        }
    }
}

/// The windows of one mailbox, as they are planned.
struct Windows {
    planner: Planner,
    /// The folders, by raw octets, that the sink has been told of.
    announced: HashSet<Bytes>,
    sink: Arc<dyn MailboxSink>,
    kinds: Arc<Vec<Kind>>,
}

/// Messages to deliver together, commits that were found lost on the way to them, what the sink noted of their folders, and octets read of commits for them.
type Window = (Vec<Planned>, Vec<LostCommit>, Vec<Note>, u64);

impl Windows {
    /// The next window, whose folders the sink has been told of; and what comes behind it.
    async fn next(state: Option<Self>, executor: Arc<dyn Executor>) -> Option<(Result<Window>, Option<Self>)> {
        let mut state = state?;
        let window = match state.planner.window().await {
            Ok(window) => window,
            Err(error) => return Some((Err(error), None)),
        };
        let (lost, octets) = (state.planner.take_lost(), state.planner.take_octets());
        if window.is_empty() && lost.is_empty() {
            return None;
        }
        let folders = unannounced(&window, &mut state.announced, &state.kinds);
        let sink = Arc::clone(&state.sink);
        let announced = runtime::run(&*executor, move || {
            let mut notes = Vec::new();
            folders.iter().try_for_each(|(folder, kind)| sink.folder(folder, kind, &mut notes))?;
            Ok::<_, Error>(notes)
        });
        let notes = announced.await.and_then(|notes| notes);
        Some((notes.map(|notes| (window, lost, notes, octets)), Some(state)))
    }
}

/// The folders of messages whose folder is in no record: those of appended messages, and of messages whose folder another source no longer has.
fn unannounced(window: &[Planned], announced: &mut HashSet<Bytes>, kinds: &[Kind]) -> Vec<(Folder, Kind)> {
    let mut folders = Vec::new();
    for Planned { row, .. } in window.iter().filter(|planned| planned.row.quarantine.is_none()) {
        if announced.insert(row.envelope.folder.clone()) {
            let kind = kinds.get(row.source as usize).cloned();
            let kind = kind.unwrap_or_else(|| Kind::Other("unknown".into()));
            folders.push((Folder::new(FolderPath::of_raw(row.envelope.folder.clone())), kind));
        }
    }
    folders
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

    /// Delivers all that it can, and gives those messages that are stuck at a piece, with the reason.
    fn deliver_all(&self, window: Vec<Planned>, fetched: &Fetched) -> (RestoreReport, Vec<(Rebuilding, Error)>) {
        let (mut report, mut stuck) = (RestoreReport::default(), Vec::new());
        for planned in window {
            let mut notes = Vec::new();
            let (envelope, length, count) = (planned.row.envelope.clone(), planned.row.length, planned.pieces.len());
            let begun = self.begin(planned, &mut notes);
            let advanced = begun.map(|mut rebuilding| (rebuilding.advance(fetched, count, &mut notes), rebuilding));
            match advanced {
                Ok((Ok(Progress::Done), _)) => {
                    report.restored += 1;
                    report.bytes += length;
                }
                Ok((Ok(Progress::NeedsMore), _)) => {
                    let error = Error::damaged("a recipe needs more pieces than it has");
                    report.fail(&self.name, Some(&envelope), &error);
                }
                Ok((Err(error), rebuilding)) if rebuilding.is_stuck() => stuck.push((rebuilding, error)),
                Ok((Err(error), _)) | Err(error) => report.fail(&self.name, Some(&envelope), &error),
            }
            report.note(notes);
        }
        (report, stuck)
    }
}

impl Failure {
    /// What went wrong with a message, or with a whole mailbox.
    pub(crate) fn of(mailbox: &MailboxName, message: Option<&Envelope>, error: &Error) -> Self {
        let text = |octets: &[u8]| shown(String::from_utf8_lossy(octets).into_owned());
        Self {
            mailbox: shown(mailbox.to_string()),
            folder: message.map_or_else(String::new, |envelope| text(&envelope.folder)),
            message: message.map_or_else(String::new, |envelope| match &envelope.identity {
                Identity::Named(name) => text(name),
                Identity::Content => text(&envelope.before),
            }),
            reason: shown(describe(error)),
            messages: 1,
            is_damage: error.kind() == ErrorKind::Damaged,
        }
    }

    /// What became of a commit that cannot be read: its messages have no names any more, only ordinals.
    pub(crate) fn of_commit(mailbox: &MailboxName, lost: &LostCommit) -> Self {
        let mut failure = Self::of(mailbox, None, &lost.error);
        failure.messages = lost.messages().max(1);
        failure.message = match lost.messages() {
            0 => format!("commit {}", lost.sequence),
            _ => format!("messages {} to {}", lost.ordinals.start, lost.ordinals.end - 1),
        };
        failure
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

    fn fail_commit(&mut self, mailbox: &MailboxName, lost: &LostCommit) {
        let failure = Failure::of_commit(mailbox, lost);
        self.failed += failure.messages;
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
            append(&mut self.notes, vec![shown(text)]);
        }
    }
}

fn append<T>(to: &mut Vec<T>, from: Vec<T>) {
    let room = NAMED_MAX.saturating_sub(to.len());
    to.extend(from.into_iter().take(room));
}
