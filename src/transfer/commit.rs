//! Putting a commit at the end of its journal, whoever else is writing there.

use super::lane::LaneContext;
use super::registration::{Registration, Writer};
use super::trust;
use crate::digest::Digest;
use crate::error::{Error, ErrorKind, Result};
use crate::message::{Evidence, Folder, MailboxName};
use crate::pack::PackId;
use crate::repository::{
    Checkpoint, Contest, Draft, FolderRecord, Journal, JournalName, Others, Place, Repository, Token, encode_commit,
};
use crate::resources::Resources;
use crate::runtime;
use crate::source::{Kind, SourceId};
use bytes::Bytes;
use std::sync::Arc;

/// The end of a journal, where the next commit goes.
#[derive(Clone, Debug)]
pub(super) struct Tail {
    pub(super) name: JournalName,
    pub(super) mailbox: MailboxName,
    sequence: u64,
    previous: Option<Digest>,
    time: u64,
    next_ordinal: u64,
    checkpoint: Option<u64>,
    /// The latest forgetting checkpoint.
    forgotten: Option<u64>,
    /// The latest fence's epoch.
    fenced: u64,
    /// The latest sweep that was known of when the journal was read.
    read_in: u64,
    /// The writer that was found not to be fenced since the end was read: no fence of a sweep that fences it is in front of that end.
    unfenced: Option<Token>,
    /// The state is too much for a checkpoint.
    is_uncarriable: bool,
    /// What others have committed since the journal was first read, once another writer was seen.
    others: Option<Others>,
}

/// What became of a commit.
#[derive(Debug)]
pub(super) struct Committed {
    pub(super) tail: Tail,
    /// The commit's length in octets; 0 if another writer had committed all of it.
    pub(super) length: u64,
    /// Messages that another writer had committed meanwhile.
    pub(super) covered: u64,
    /// Nothing was committed, because what the commit was to point at is gone or damaged (swept, perhaps), or because what another writer had committed
    /// of it was forgotten meanwhile. These are the folders that it named.
    pub(super) dropped: Option<Vec<FolderRecord>>,
}

impl Tail {
    /// The end of a journal that was read when `epoch` was the latest sweep known of.
    pub(super) fn of(journal: &Journal, epoch: u64) -> Self {
        let head = journal.head();
        Self {
            name: journal.name,
            mailbox: journal.mailbox.clone(),
            sequence: head.map_or(0, |head| head.sequence + 1),
            previous: head.map(|head| head.digest),
            time: head.map_or(0, |head| head.time),
            next_ordinal: journal.next_ordinal,
            checkpoint: journal.checkpoint,
            forgotten: journal.forgotten,
            fenced: journal.epoch,
            read_in: epoch,
            unfenced: None,
            is_uncarriable: false,
            others: None,
        }
    }

    /// The last commit's sequence and digest.
    pub(super) fn head(&self) -> Option<(u64, Digest)> {
        Some((self.sequence.checked_sub(1)?, self.previous?))
    }

    /// Whether the last commit that is known is still there, or is forgotten.
    fn is_in(&self, journal: &Journal) -> bool {
        let Some((at, digest)) = self.head() else { return true };
        match journal.commits.iter().find(|commit| commit.sequence == at) {
            Some(commit) => commit.digest == digest,
            None => journal.forgotten.is_some_and(|forgotten| at < forgotten),
        }
    }

    /// What others have committed by now; `None` if the end is where it was.
    async fn others_in(&self, repository: &Repository, journal: &Journal) -> Result<Option<Others>> {
        if journal.head().map(|head| head.digest) == self.previous {
            return Ok(None);
        }
        if !self.is_in(journal) {
            let lost = "a commit that was there is overwritten: conditional writes do not hold in this store";
            return Err(Error::damaged(lost));
        }
        // What they had committed may be forgotten.
        let is_same = journal.forgotten == self.forgotten;
        let mut others = self.others.clone().filter(|_| is_same).unwrap_or_default();
        others.add(repository, journal, self.next_ordinal, !is_same).await?;
        Ok(Some(others))
    }

    fn place(&self, repository: &Repository, writer: Token) -> Place {
        Place {
            mailbox: self.mailbox.clone(),
            sequence: self.sequence,
            previous: self.previous,
            writer,
            time: repository.now().max(self.time + 1),
            first_ordinal: self.next_ordinal,
            checkpoint: self.checkpoint,
            forgotten: self.forgotten,
            epoch: self.fenced,
            is_void: false,
        }
    }

    /// Whether the next commit should carry the whole state: when many commits must be read to know it.
    fn is_long(&self) -> bool {
        self.sequence - self.checkpoint.map_or(0, |checkpoint| checkpoint + 1) >= Checkpoint::COMMITS_MIN
    }
}

/// Where commits go.
#[derive(Clone, Debug)]
pub(super) struct Target {
    pub(super) repository: Repository,
    pub(super) resources: Resources,
    pub(super) context: Arc<LaneContext>,
    pub(super) registration: Arc<Registration>,
    /// The folders of the mailbox that its source has, should they be forgotten meanwhile.
    pub(super) folders: Vec<Folder>,
    pub(super) source: (SourceId, Kind),
    pub(super) level: i32,
}

/// Commits `draft`. Everything that it points at must be durable.
///
/// # Cancel safety
/// Dropping the future leaves the commit absent or whole.
pub(super) async fn commit(target: Target, mut tail: Tail, mut draft: Draft) -> Result<Committed> {
    let Target { repository, registration, .. } = &target;
    let (mut covered, mut contest) = (0, Contest::default());
    let mut forgotten = tail.forgotten;
    loop {
        if covered > 0 && tail.forgotten != forgotten {
            // What was left to others' commits may be forgotten with these, and is in no draft any more.
            return Ok(Committed { tail, length: 0, covered, dropped: Some(draft.folders) });
        }
        forgotten = tail.forgotten;
        if let Some(others) = &tail.others {
            covered += draft.yield_to(repository.domain(), others)?;
        }
        if draft.is_empty() {
            // Messages were read again and are what they were, or another writer has committed them all.
            return Ok(Committed { tail, length: 0, covered, dropped: None });
        }
        let writer = registration.ready(Some(&tail.mailbox), &target.context.dedup).await?;
        if tail.read_in < writer.epoch {
            // A sweep may have deleted the commit behind the end that is known here, and so freed its place.
            tail = target.read_again(tail, &mut draft).await?;
            continue;
        }
        if tail.fenced > writer.registered {
            registration.is_fenced(&writer.token).await?;
            if registration.ready(Some(&tail.mailbox), &target.context.dedup).await?.registered < tail.fenced {
                return Err(Error::damaged("a journal is fenced by a sweep that has no mark"));
            }
            continue;
        }
        if tail.fenced > 0 && tail.unfenced != Some(writer.token) {
            // A sweep that the writer knew of when it registered, because that was open, may have fenced it all the same.
            if registration.is_fenced(&writer.token).await? {
                continue;
            }
            tail.unfenced = Some(writer.token);
        }
        let is_lost = |pack: &PackId| !registration.may_point_at(pack, writer.epoch);
        if draft.blobs.packs().keys().any(is_lost) && !cfg!(planted = "stale_hit_after_sweep") {
            return Ok(Committed { tail, length: 0, covered, dropped: Some(draft.folders) });
        }
        if !trust::see_packs(repository, target.resources.index(), &draft).await? {
            return Ok(Committed { tail, length: 0, covered, dropped: Some(draft.folders) });
        }
        let mut changes = None;
        if tail.is_long() && !tail.is_uncarriable {
            let journal = Journal::load(repository, &tail.mailbox, None).await?;
            if journal.head().map(|head| head.digest) == tail.previous {
                match Checkpoint::of(&journal, repository).await {
                    Ok(Some(checkpoint)) => changes = Some(checkpoint.carry(&mut draft)?),
                    Ok(None) => tail.is_uncarriable = true,
                    // It was forgotten and swept meanwhile: this commit will not be the next.
                    Err(error) if error.kind() == ErrorKind::NotFound => {}
                    Err(error) => return Err(error),
                }
            }
        }
        let place = tail.place(repository, writer.token);
        let (given_back, encoded) = target.encode(draft, &place, tail.name.commit(tail.sequence)).await?;
        draft = given_back;
        let (octets, digest) = match (encoded, changes.take()) {
            (Err(error), Some(carried)) if error.kind() == ErrorKind::Limit => {
                // The state is more than a commit can carry; its own changes need not be.
                draft.carry_no_more(carried);
                tail.is_uncarriable = true;
                continue;
            }
            (encoded, kept) => {
                changes = kept;
                encoded?
            }
        };
        tail.time = place.time;
        if target.put(&tail, &octets, digest, writer).await? {
            let rows = u64::from(draft.messages.rows());
            let is_checkpoint = !draft.commits.is_empty();
            let length = octets.len() as u64;
            tail.checkpoint = if is_checkpoint { Some(tail.sequence) } else { tail.checkpoint };
            (tail.sequence, tail.previous, tail.next_ordinal) =
                (tail.sequence + 1, Some(digest), tail.next_ordinal + rows);
            return Ok(Committed { tail, length, covered, dropped: None });
        }
        changes.into_iter().for_each(|changes| draft.carry_no_more(changes));
        if cfg!(planted = "loser_recreates") {
            tail.sequence += 1;
            continue;
        }
        contest.lose(tail.sequence)?;
        tail = target.read_again(tail, &mut draft).await?;
    }
}

impl Target {
    /// Encodes and seals a draft for its place, on a worker.
    async fn encode(&self, draft: Draft, place: &Place, key: String) -> Result<(Draft, Result<(Bytes, Digest)>)> {
        let (secrets, place, level) = (self.repository.secrets().clone(), place.clone(), self.level);
        let context = Arc::clone(&self.context);
        let salt = self.repository.salt()?;
        let (encoded, draft) = runtime::run(&**self.resources.executor(), move || {
            let encoded =
                context.packers.with(level, |packer| encode_commit(&draft, &place, &key, &secrets, salt, packer));
            (encoded, draft)
        })
        .await?;
        Ok((draft, encoded.map(|encoded| (encoded.octets.into(), encoded.digest))))
    }

    /// Creates the commit; false if another's is in its place.
    async fn put(&self, tail: &Tail, octets: &Bytes, digest: Digest, writer: Writer) -> Result<bool> {
        if !self.repository.create(&tail.name.commit(tail.sequence), octets).await? {
            return Ok(false);
        }
        if !self.registration.is_fenced(&writer.token).await? {
            return Ok(true);
        }
        // The sweep may have freed this place by deleting what others had put there: the journal tells whether the commit is in it.
        let journal = Journal::load(&self.repository, &tail.mailbox, None).await?;
        Ok(journal.commits.iter().any(|commit| commit.digest == digest))
    }

    /// Names the folders anew that a forgotten mailbox has no more.
    fn name_folders(&self, journal: &Journal, draft: &mut Draft) {
        for folder in &self.folders {
            let is_named = draft.folders.iter().any(|record| record.folder.path.raw == folder.path.raw);
            if !is_named && !journal.folders.contains_key(&folder.path.raw) {
                let source = draft.source(self.source.0, &self.source.1);
                let folder = Folder { evidence: Evidence::NONE, ..folder.clone() };
                draft.folders.push(FolderRecord { folder, source, gone: false });
            }
        }
    }

    /// The end of the journal as it is now, with what others have committed behind the one that was known.
    async fn read_again(&self, mut tail: Tail, draft: &mut Draft) -> Result<Tail> {
        let epoch = self.registration.epoch();
        let before = &tail;
        let read = Journal::patiently(&self.repository, tail.name, || async move {
            let journal = Journal::load(&self.repository, &before.mailbox, None).await?;
            let others = before.others_in(&self.repository, &journal).await?;
            Ok((journal, others))
        });
        let (journal, others) = read.await?;
        let Some(others) = others else {
            tail.read_in = epoch;
            return Ok(tail);
        };
        if journal.forgotten != tail.forgotten {
            self.name_folders(&journal, draft);
        }
        Ok(Tail { others: Some(others), ..Tail::of(&journal, epoch) })
    }
}
