//! Looking into a repository: the messages of a mailbox, one message, one part of a message, without restoring anything.

use crate::digest::Digest;
use crate::error::{Error, ErrorKind, Result};
use crate::ledger::{Incomplete, Ledger};
use crate::message::{Flags, Folder, FolderPath, Identity, InternalDate, MailboxName};
use crate::pack::Location;
use crate::recipe::{Part, Recipe, Section};
use crate::repository::{
    Approval, Ended, Journal, Mailboxes, MessageRow, RUN_OCTETS_MAX, RUNS, Repository, RunId, RunRecord,
};
use crate::resources::Resources;
use crate::restore::{Fetcher, Planned, Planner, Progress, Rebuilding};
use crate::runtime;
use crate::sink::{Delivery, Note};
use crate::source::Reason;
use bytes::Bytes;
use futures::stream::BoxStream;
use futures::{StreamExt, TryStreamExt, stream};
use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};

/// Octets of pieces that are fetched at once.
const AT_ONCE: u64 = 8 << 20;

/// A message as its mailbox's journal has it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct MessageInfo {
    /// Its number in the mailbox, never given to another.
    pub ordinal: u64,
    /// The sequence of the commit that stored it. With mailbox and ordinal this says where it is, for good: [`read_stored`](crate::Engine::read_stored).
    pub sequence: u64,
    /// The raw octets of its folder.
    pub folder: Bytes,
    /// What names it in its folder.
    pub identity: Identity,
    /// Its flags.
    pub flags: Flags,
    /// When it arrived.
    pub internal_date: Option<InternalDate>,
    /// How many octets it has.
    pub length: u64,
    /// The digest of its octets, keyed with the repository's domain.
    pub digest: Digest,
    /// Why it is in quarantine, if it is: then length and digest are of what could be read.
    pub quarantine: Option<Reason>,
}

/// What a mailbox holds.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct MailboxListing {
    /// Its folders, sorted by raw name.
    pub folders: Vec<Folder>,
    /// Its living messages, in order of their ordinals.
    pub messages: Vec<MessageInfo>,
}

/// What a repository holds and takes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct Statistics {
    /// The version of this report's shape.
    pub schema: u32,
    /// Mailboxes, with those whose journals do not read.
    pub mailboxes: u64,
    /// Living messages.
    pub messages: u64,
    /// Octets of these messages.
    pub message_bytes: u64,
    /// Living messages in quarantine.
    pub quarantined: u64,
    /// Commits.
    pub commits: u64,
    /// Octets of commits.
    pub commit_bytes: u64,
    /// Packs.
    pub packs: u64,
    /// Octets of packs.
    pub pack_bytes: u64,
    /// Index segments and run records, key slots and config.
    pub other_objects: u64,
    /// Octets of these.
    pub other_bytes: u64,
    /// Runs that recorded their end.
    pub runs: u64,
    /// Mailboxes whose journals do not read: what they hold is not counted.
    pub incomplete: Vec<Incomplete>,
}

/// A run that recorded its end.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Run {
    /// Its name.
    pub id: RunId,
    /// When it began: nanoseconds since 1970.
    pub started: u64,
    /// When it recorded its end: nanoseconds since 1970.
    pub ended: u64,
    /// Its account.
    pub ledger: Ledger,
    /// What somebody said of it who looked at it.
    pub approval: Option<Approval>,
}

/// Lists a mailbox, as of `at` (nanoseconds since 1970) or now.
pub(crate) async fn list(repository: &Repository, mailbox: &MailboxName, at: Option<u64>) -> Result<MailboxListing> {
    let journal = load(repository, mailbox, at).await?;
    let records = journal.folders.iter().map(|(raw, record)| (raw.clone(), record.folder.clone()));
    let mut folders: BTreeMap<_, _> = records.collect();
    let mut messages = Vec::new();
    journal
        .living(repository, |row| {
            // No source has named the folder of a message that was appended.
            let raw = row.envelope.folder.clone();
            folders.entry(raw).or_insert_with_key(|raw| Folder::new(FolderPath::of_raw(raw.clone())));
            messages.push(info(&journal, row)?);
            Ok(())
        })
        .await?;
    Ok(MailboxListing { folders: folders.into_values().collect(), messages })
}

fn info(journal: &Journal, row: MessageRow) -> Result<MessageInfo> {
    let MessageRow { ordinal, envelope, digest, length, quarantine, .. } = row;
    let commit =
        journal.commit_of(ordinal).ok_or_else(|| Error::damaged("no commit stored a message that is there"))?;
    Ok(MessageInfo {
        ordinal,
        sequence: commit.sequence,
        folder: envelope.folder,
        identity: envelope.identity,
        flags: envelope.flags,
        internal_date: envelope.internal_date,
        length,
        digest,
        quarantine,
    })
}

async fn load(repository: &Repository, mailbox: &MailboxName, at: Option<u64>) -> Result<Journal> {
    let journal = Journal::load(repository, mailbox, at).await?;
    if journal.commits.is_empty() || journal.is_void {
        return Err(Error::new(ErrorKind::NotFound, format!("there is no mailbox '{mailbox}'")));
    }
    Ok(journal)
}

/// One message's octets. The last item is an error if they are not the ones that were stored.
pub(crate) async fn read(
    repository: Repository,
    resources: Resources,
    mailbox: &MailboxName,
    ordinal: u64,
) -> Result<BoxStream<'static, Result<Bytes>>> {
    let journal = load(&repository, mailbox, None).await?;
    let planned = Planner::one(&repository, &journal, ordinal).await?;
    rebuilt(repository, resources, planned)
}

/// One message's octets as the commit of this sequence stored it. The last item is an error if they are not the ones that were stored.
pub(crate) async fn read_stored(
    repository: Repository,
    resources: Resources,
    mailbox: &MailboxName,
    sequence: u64,
    ordinal: u64,
) -> Result<BoxStream<'static, Result<Bytes>>> {
    let planned = Planner::one_stored(&repository, mailbox, sequence, ordinal).await?;
    rebuilt(repository, resources, planned)
}

/// The octets of a message, as they come.
fn rebuilt(
    repository: Repository,
    resources: Resources,
    planned: Planned,
) -> Result<BoxStream<'static, Result<Bytes>>> {
    let taken = Taken::default();
    let delivery = taken.clone();
    let rebuilding = Rebuilding::begin(planned, repository.domain(), |_| Ok(Box::new(delivery)))?;
    let state = Reading { fetcher: Fetcher::for_one(repository), resources, rebuilding: Some(rebuilding), taken };
    Ok(stream::unfold(state, |mut state| async { state.next().await.map(|item| (item, state)) }).boxed())
}

/// A message being read.
struct Reading {
    fetcher: Fetcher,
    resources: Resources,
    /// `None` when it is read to its end, or failed.
    rebuilding: Option<Rebuilding>,
    taken: Taken,
}

impl Reading {
    async fn next(&mut self) -> Option<Result<Bytes>> {
        loop {
            if let Some(octets) = self.taken.pop() {
                return Some(Ok(octets));
            }
            let mut rebuilding = self.rebuilding.take()?;
            let pieces = rebuilding.next_pieces(AT_ONCE);
            let count = pieces.len();
            let fetched = self.fetcher.fetch(pieces).await;
            let advanced = runtime::run(&**self.resources.executor(), move || {
                let progress = rebuilding.advance(&fetched, count, &mut Vec::new());
                (rebuilding, progress)
            });
            match advanced.await {
                Ok((rebuilding, Ok(Progress::NeedsMore))) => self.rebuilding = Some(rebuilding),
                Ok((mut rebuilding, Err(error))) if rebuilding.is_stuck() => {
                    // A piece that does not read may be elsewhere, too.
                    match rebuilding.take_stuck() {
                        Some((at, place)) if self.fetcher.is_elsewhere(at, place).await => {
                            self.rebuilding = Some(rebuilding);
                        }
                        _ => return Some(Err(error)),
                    }
                }
                Ok((_, Ok(Progress::Done))) => {}
                Ok((_, Err(error))) | Err(error) => return Some(Err(error)),
            }
        }
    }
}

/// A delivery that keeps octets until they are asked for.
#[derive(Clone, Debug, Default)]
struct Taken(Arc<Mutex<VecDeque<Bytes>>>);

impl Taken {
    fn pop(&self) -> Option<Bytes> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).pop_front()
    }
}

impl Delivery for Taken {
    fn write(&mut self, octets: &[u8]) -> Result<()> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push_back(Bytes::copy_from_slice(octets));
        Ok(())
    }

    fn commit(self: Box<Self>, _: &mut Vec<Note>) -> Result<()> {
        Ok(())
    }
}

/// The parts of a message, told from its recipe alone.
pub(crate) async fn parts(repository: &Repository, mailbox: &MailboxName, ordinal: u64) -> Result<Vec<Part>> {
    let journal = load(repository, mailbox, None).await?;
    let Planned { recipe, .. } = Planner::one(repository, &journal, ordinal).await?;
    Ok(Recipe::decode_shared(recipe?)?.parts())
}

/// One part's octets, as [`Part::body`] says: decoded where the base64 was exact. Reads the part's own pieces only.
pub(crate) async fn read_part(
    repository: Repository,
    resources: Resources,
    mailbox: &MailboxName,
    ordinal: u64,
    part: usize,
) -> Result<BoxStream<'static, Result<Bytes>>> {
    let journal = load(&repository, mailbox, None).await?;
    let Planned { recipe, pieces, .. } = Planner::one(&repository, &journal, ordinal).await?;
    let recipe = Recipe::decode_shared(recipe?)?;
    let part = recipe.parts().into_iter().nth(part);
    let part = part.ok_or_else(|| Error::new(ErrorKind::NotFound, "the message has no such part"))?;
    let mut items: Vec<Item> = Vec::new();
    for section in &part.body {
        match section {
            Section::Literal(place) | Section::InlineBase64(place) => {
                let octets = recipe.literals().get(place.clone());
                let octets = octets.ok_or_else(|| Error::damaged("a part lies outside of its recipe"))?;
                items.push(Item::Octets(Bytes::copy_from_slice(octets)));
            }
            Section::Verbatim { first_piece, content } | Section::Base64 { first_piece, content } => {
                let end = first_piece + content.pieces();
                let places = pieces.get(*first_piece as usize..end as usize);
                let places = places.ok_or_else(|| Error::damaged("a part names a piece that is not there"))?;
                items.extend(places.iter().map(|at| Item::Piece(*at)));
            }
        }
    }
    let fetcher = Fetcher::for_one(repository);
    let items = stream::iter(items).then(move |item| {
        let (fetcher, resources) = (fetcher.clone(), resources.clone());
        async move {
            match item {
                Item::Octets(octets) => Ok(octets),
                Item::Piece(at) => fetcher.blob(at, &**resources.executor()).await.map(Bytes::from),
            }
        }
    });
    Ok(items.boxed())
}

enum Item {
    Octets(Bytes),
    Piece(Location),
}

/// Approves a run that needs it.
pub(crate) async fn approve(repository: &Repository, run: RunId, why: &str) -> Result<Approval> {
    let key = run.key();
    let octets = repository.read_small(&key, RUN_OCTETS_MAX).await.map_err(|error| match error.kind() {
        ErrorKind::NotFound => Error::new(ErrorKind::NotFound, format!("there is no run {run}")),
        _ => error,
    })?;
    let RunRecord::Ended(record) = RunRecord::open(repository, &key, &octets)? else {
        return Err(Error::invalid(format!("run {run} did not record its end")));
    };
    let grade = record.ledger.grade();
    if !grade.needs_approval() {
        return Err(Error::invalid(format!("run {run} is {grade}: there is nothing to approve")));
    }
    Approval::write(repository, run, why).await
}

/// The living messages of a mailbox that are in quarantine.
pub(crate) async fn quarantined(repository: &Repository, mailbox: &MailboxName) -> Result<Vec<MessageInfo>> {
    let journal = load(repository, mailbox, None).await?;
    let mut messages = Vec::new();
    let keep = |row: MessageRow| {
        if row.quarantine.is_some() {
            messages.push(info(&journal, row)?);
        }
        Ok(())
    };
    journal.living(repository, keep).await?;
    Ok(messages)
}

/// Counts what the repository holds.
pub(crate) async fn statistics(repository: &Repository) -> Result<Statistics> {
    let mut statistics = Statistics { schema: 1, ..Statistics::default() };
    let mut listing = repository.store().list("");
    while let Some(object) = listing.try_next().await? {
        let (objects, octets) = match object.key.split('/').next() {
            Some("packs") => (&mut statistics.packs, &mut statistics.pack_bytes),
            Some("mailboxes") => (&mut statistics.commits, &mut statistics.commit_bytes),
            _ => (&mut statistics.other_objects, &mut statistics.other_bytes),
        };
        *objects += 1;
        *octets += object.length;
    }
    let Mailboxes { names, unreadable } = repository.find_mailboxes().await?;
    statistics.mailboxes = names.len() as u64 + unreadable.len() as u64;
    let unreadable = unreadable.iter().map(|journal| Incomplete::new(journal.name().to_string(), &journal.error));
    statistics.incomplete.extend(unreadable);
    for mailbox in names {
        match held(repository, &mailbox).await {
            Ok(Held { messages, octets, quarantined }) => {
                statistics.messages += messages;
                statistics.message_bytes += octets;
                statistics.quarantined += quarantined;
            }
            // It was forgotten since it was listed.
            Err(error) if error.kind() == ErrorKind::NotFound => statistics.mailboxes -= 1,
            Err(error) => statistics.incomplete.push(Incomplete::new(mailbox.to_string(), &error)),
        }
    }
    statistics.runs = runs(repository).await?.len() as u64;
    Ok(statistics)
}

/// What a mailbox holds.
#[derive(Default)]
struct Held {
    messages: u64,
    octets: u64,
    quarantined: u64,
}

async fn held(repository: &Repository, mailbox: &MailboxName) -> Result<Held> {
    let mut held = Held::default();
    let count = |row: MessageRow| {
        match row.quarantine {
            Some(_) => held.quarantined += 1,
            None => {
                held.messages += 1;
                held.octets += row.length;
            }
        }
        Ok(())
    };
    load(repository, mailbox, None).await?.living(repository, count).await?;
    Ok(held)
}

/// The runs that recorded their end, oldest first.
pub(crate) async fn runs(repository: &Repository) -> Result<Vec<Run>> {
    let mut runs = Vec::new();
    let mut listing = repository.store().list(RUNS);
    while let Some(object) = listing.try_next().await? {
        let octets = match repository.read_small(&object.key, RUN_OCTETS_MAX).await {
            Ok(octets) => octets,
            // A sweep deleted it since it was listed.
            Err(error) if error.kind() == ErrorKind::NotFound => continue,
            Err(error) => return Err(error),
        };
        let RunRecord::Ended(record) = RunRecord::open(repository, &object.key, &octets)? else { continue };
        if let Some(id) = RunId::of_key(&object.key) {
            let Ended { started, written, ledger, .. } = *record;
            let approval = match ledger.grade().needs_approval() {
                true => match Approval::read(repository, id).await {
                    // A check tells of it.
                    Err(error) if error.kind() == ErrorKind::Damaged => None,
                    approval => approval?,
                },
                false => None,
            };
            runs.push(Run { id, started, ended: written, ledger, approval });
        }
    }
    runs.sort_by_key(|run| run.started);
    Ok(runs)
}
