//! Putting a commit at the end of its journal, whoever else is writing there.

use crate::digest::Digest;
use crate::error::{Error, ErrorKind, Result, Retry};
use crate::message::MailboxName;
use crate::pack::Packer;
use crate::repository::{Checkpoint, CommitRef, Draft, Journal, JournalName, Others, Place, Repository, encode_commit};
use crate::runtime::{self, Executor};
use crate::store::{Created, Payload};
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
}

impl Tail {
    pub(super) fn of(journal: &Journal) -> Self {
        let head = journal.head();
        Self {
            name: journal.name,
            mailbox: journal.mailbox.clone(),
            sequence: head.map_or(0, |head| head.sequence + 1),
            previous: head.map(|head| head.digest),
            time: head.map_or(0, |head| head.time),
            next_ordinal: journal.next_ordinal,
            checkpoint: journal.checkpoint,
            is_uncarriable: false,
            others: None,
        }
    }

    /// The last commit's sequence and digest.
    pub(super) fn head(&self) -> Option<(u64, Digest)> {
        Some((self.sequence.checked_sub(1)?, self.previous?))
    }

    fn place(&self, repository: &Repository) -> Place {
        Place {
            mailbox: self.mailbox.clone(),
            sequence: self.sequence,
            previous: self.previous,
            writer: repository.writer(),
            time: repository.now().max(self.time + 1),
            first_ordinal: self.next_ordinal,
            checkpoint: self.checkpoint,
        }
    }

    /// Whether the next commit should carry the whole state: when many commits must be read to know it.
    fn is_long(&self) -> bool {
        self.sequence - self.checkpoint.map_or(0, |checkpoint| checkpoint + 1) >= Checkpoint::COMMITS_MIN
    }
}

/// Commits `draft`. Everything that it points at must be durable.
///
/// # Cancel safety
/// Dropping the future leaves the commit absent or whole.
pub(super) async fn commit(
    repository: Repository,
    executor: Arc<dyn Executor>,
    mut tail: Tail,
    mut draft: Draft,
    level: i32,
) -> Result<Committed> {
    let mut covered = 0;
    loop {
        if let Some(others) = &tail.others {
            covered += draft.yield_to(repository.domain(), others)?;
        }
        if draft.is_empty() {
            // Messages were read again and are what they were, or another writer has committed them all.
            return Ok(Committed { tail, length: 0, covered });
        }
        let mut changes = None;
        if tail.is_long() && !tail.is_uncarriable {
            let journal = Journal::load(&repository, &tail.mailbox, None).await?;
            if journal.head().map(|head| head.digest) == tail.previous {
                match Checkpoint::of(&journal, &repository).await? {
                    Some(checkpoint) => changes = Some(checkpoint.carry(&mut draft)?),
                    None => tail.is_uncarriable = true,
                }
            }
        }
        let place = tail.place(&repository);
        let key = tail.name.commit(tail.sequence);
        let salt = repository.salt()?;
        let (secrets, name, at) = (repository.secrets().clone(), key.clone(), place.clone());
        let (encoded, given_back) = runtime::run(&*executor, move || {
            let encoded = Packer::new(level)
                .and_then(|mut packer| encode_commit(&draft, &at, &name, &secrets, salt, &mut packer));
            (encoded, draft)
        })
        .await?;
        (draft, tail.time) = (given_back, place.time);
        let encoded = encoded?;
        let octets = Bytes::from(encoded.octets);
        if put(&repository, &key, &octets).await? {
            let rows = u64::from(draft.messages.rows());
            let is_checkpoint = !draft.commits.is_empty();
            let length = octets.len() as u64;
            tail.checkpoint = if is_checkpoint { Some(tail.sequence) } else { tail.checkpoint };
            (tail.sequence, tail.previous, tail.next_ordinal) =
                (tail.sequence + 1, Some(encoded.digest), tail.next_ordinal + rows);
            return Ok(Committed { tail, length, covered });
        }
        changes.into_iter().for_each(|changes| draft.carry_no_more(changes));
        if cfg!(planted = "loser_recreates") {
            tail.sequence += 1;
            continue;
        }
        let journal = Journal::load(&repository, &tail.mailbox, None).await?;
        let before = tail.head();
        let is_kept =
            |(at, digest)| journal.commits.get(at as usize).is_some_and(|commit: &CommitRef| commit.digest == digest);
        if !before.is_none_or(is_kept) {
            let lost = "a commit that was there is overwritten: conditional writes do not hold in this store";
            return Err(Error::damaged(lost));
        }
        let mut others = tail.others.take().unwrap_or_default();
        others.add(&repository, &journal, tail.next_ordinal).await?;
        tail = Tail { others: Some(others), ..Tail::of(&journal) };
    }
}

/// Creates the object, and is not content with an answer that may be lost: true if it is ours, false if another writer's is there.
async fn put(repository: &Repository, key: &str, octets: &Bytes) -> Result<bool> {
    let store = repository.store();
    match store.create(key, Payload::from(octets.clone())).await {
        Ok(Created::New) => Ok(true),
        #[cfg(planted = "no_read_back")]
        Ok(Created::Exists) => Ok(false),
        // It may be ours, from a try whose answer was lost; salt and writer make our octets unlike any other's.
        #[cfg(not(planted = "no_read_back"))]
        Ok(Created::Exists) => Ok(store.read(key, None).await? == *octets),
        Err(error) if error.retry() == Retry::Never => Err(error),
        Err(error) => {
            let unknown = "whether a commit was written is unknown; the next run will see";
            Err(Error::new(ErrorKind::Unavailable, unknown).because(error))
        }
    }
}
