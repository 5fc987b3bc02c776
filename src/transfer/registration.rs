//! A transfer as a writer: it says where it may commit before it does, and learns when a sweep has fenced it.
//!
//! docs/decisions/0003-trust.md, "Forgetting and sweeping", has the protocol and why it is safe.

use super::dedup::Dedup;
use crate::error::{Error, Result};
use crate::index::Index;
use crate::lock::{Acquisitions, Guard, Lock};
use crate::message::MailboxName;
use crate::pack::PackId;
use crate::repository::{
    Active, Ended, Mark, Repository, RunId, RunRecord, Token, bad_packs, create_run_record, latest_sweep, read_mark,
    read_run_record, rows_inside, run_key, segment_id, segments,
};
use crate::resources::Resources;
use crate::runtime::{self, Executor};
use futures::TryStreamExt;
use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::Arc;
use tokio::sync::{Mutex, MutexGuard};

/// A transfer's registration. Shared by its tasks.
#[derive(Debug)]
pub(super) struct Registration {
    repository: Repository,
    index: Arc<Index>,
    executor: Arc<dyn Executor>,
    started: u64,
    /// The turn to write the next record: they are written one after the other. Nobody waits for it whose mailbox the last one names.
    turn: Mutex<()>,
    /// What is known without waiting for the store.
    face: Lock<Face>,
    acquisitions: Acquisitions,
}

#[derive(Debug, Default)]
struct Face {
    token: Option<Token>,
    /// The number of the token's next record. 0: not registered.
    next: u64,
    /// What sweeps there are was learned of since the token's first record was written. Who could not learn it may commit nothing.
    has_looked: bool,
    /// Where the last record says that this writer may commit; while the next is being written, where both do.
    declared: BTreeSet<MailboxName>,
    /// The latest sweep that this writer knows of.
    epoch: u64,
    /// The latest sweep that it knew of when it registered. Who looked again since, because it slept, may have been fenced by a sweep that it knows of.
    registered: u64,
    /// Tokens that it had before, and the sweeps that fenced them.
    fenced: Vec<(Token, u64)>,
    /// Where it may want to commit.
    wanted: BTreeSet<MailboxName>,
    /// Lengths of the records written that are not accounted for yet.
    written: Vec<u64>,
}

/// What a commit is made with.
#[derive(Clone, Copy, Debug)]
pub(super) struct Writer {
    pub(super) token: Token,
    /// The latest sweep that the writer knows of.
    pub(super) epoch: u64,
    /// The latest sweep that it knew of when it registered: a fence of a later one is meant for it.
    pub(super) registered: u64,
}

impl Registration {
    pub(super) fn new(repository: Repository, resources: &Resources) -> Self {
        let started = repository.now();
        let (index, executor) = (Arc::clone(resources.index()), Arc::clone(resources.executor()));
        let acquisitions = index.acquisitions().clone();
        let face = Lock::new(Face::default(), &acquisitions);
        Self { repository, index, executor, started, turn: Mutex::default(), face, acquisitions }
    }

    /// Draws a token, looks at the sweeps there were, and fills the index but for packs that are marked bad. Nothing is written: who finds nothing new
    /// needs no registration. Marks are read whenever a transfer begins: they may be new. Gives whether there are any.
    pub(super) async fn begin(&self, dedup: &Dedup) -> Result<bool> {
        self.draw()?;
        let bad = bad_packs(&self.repository).await?;
        bad.iter().for_each(|pack| self.index.refuse(*pack));
        self.look(dedup).await?;
        Ok(!bad.is_empty())
    }

    /// Draws a token if there is none.
    fn draw(&self) -> Result<()> {
        let token = self.repository.new_token()?;
        self.face().token.get_or_insert(token);
        Ok(())
    }

    /// The token for new packs.
    pub(super) fn token(&self) -> Result<Token> {
        self.face().token()
    }

    /// The latest sweep that this writer knows of.
    pub(super) fn epoch(&self) -> u64 {
        self.face().epoch
    }

    /// It may commit to these mailboxes. The next record says so.
    pub(super) fn want(&self, mailboxes: impl IntoIterator<Item = MailboxName>) {
        self.face().wanted.extend(mailboxes);
    }

    /// It will commit to this mailbox no more: every commit that it began there is written or has failed for good.
    pub(super) fn release(&self, mailbox: &MailboxName) {
        self.face().wanted.remove(mailbox);
    }

    /// The lengths of the records that were written since this was last asked.
    pub(super) fn take_written(&self) -> Vec<u64> {
        std::mem::take(&mut self.face().written)
    }

    /// Waits until a durable record says that this writer may commit to `mailbox`, or, without one, that it is there.
    pub(super) async fn ready(&self, mailbox: Option<&MailboxName>, dedup: &Dedup) -> Result<Writer> {
        if let Some(writer) = self.face().writer(mailbox) {
            return Ok(writer);
        }
        let _turn = self.turn().await;
        loop {
            // Whatever sweep there is now, it finds the registration; and whatever there was before is learned of here.
            if self.face().is_to_look() {
                self.look(dedup).await?;
                let mut face = self.face();
                (face.registered, face.has_looked) = (face.epoch, true);
            }
            if let Some(writer) = self.face().writer(mailbox) {
                return Ok(writer);
            }
            self.declare(mailbox).await?;
        }
    }

    /// Writes the next record, whose turn it is; a new token is drawn if the chain is fenced.
    async fn declare(&self, mailbox: Option<&MailboxName>) -> Result<()> {
        let (token, next, declared) = {
            let mut face = self.face();
            let mut declared = face.wanted.clone();
            declared.extend(mailbox.cloned());
            // Where the next record does not say so nobody may begin to commit any more.
            face.declared.retain(|mailbox| declared.contains(mailbox));
            (face.token()?, face.next, declared)
        };
        let mailboxes = declared.iter().cloned().collect();
        let active = Active { started: self.started, written: self.repository.now(), mailboxes };
        let record = RunRecord::Active(active);
        match create_run_record(&self.repository, &token, next, &record).await? {
            Some(length) => {
                let mut face = self.face();
                face.written.push(length);
                (face.declared, face.next) = (declared, next + 1);
                Ok(())
            }
            None => self.renew().await.map(drop),
        }
    }

    /// Waits for the turn to write a record.
    async fn turn(&self) -> MutexGuard<'_, ()> {
        self.acquisitions.add();
        self.turn.lock().await
    }

    /// Looks whether a sweep has fenced this writer; if so, it needs to register anew.
    pub(super) async fn is_fenced(&self, token: &Token) -> Result<bool> {
        let (current, next) = {
            let face = self.face();
            (face.token()?, face.next)
        };
        if current != *token {
            return Ok(true);
        }
        // Nothing is behind the last record: no fence. (It may be a record that is just being written: then that is waited for, and what is behind it read.)
        if self.repository.store().length(&run_key(token, next)).await?.is_none() {
            return Ok(false);
        }
        let _turn = self.turn().await;
        Ok(self.token()? != *token || self.renew().await?)
    }

    /// Draws a new token if the chain is fenced. The caller has the turn.
    async fn renew(&self) -> Result<bool> {
        let (token, number) = {
            let face = self.face();
            (face.token()?, face.next)
        };
        match read_run_record(&self.repository, &token, number).await? {
            None => Ok(false),
            Some(RunRecord::Fence { epoch, .. }) => {
                let next = self.repository.new_token()?;
                let mut face = self.face();
                face.fenced.push((token, epoch));
                (face.token, face.next, face.has_looked) = (Some(next), 0, false);
                face.declared.clear();
                Ok(true)
            }
            Some(_) => Err(Error::damaged(format!("{} is not this writer's record", run_key(&token, number)))),
        }
    }

    /// A pack that this writer wrote is durable. Gives the sweep up to which it is safe to point at it, `None` if it is lost.
    pub(super) async fn uploaded(&self, pack: &PackId, dedup: &Dedup) -> Result<Option<u64>> {
        let Writer { token, .. } = self.ready(None, dedup).await?;
        if self.is_fenced(&token).await? {
            self.ready(None, dedup).await?;
        }
        self.index.saw(*pack);
        let epoch = self.epoch();
        Ok(self.is_own(pack, epoch).then_some(epoch))
    }

    /// Whether a commit may point at this pack: no sweep up to `epoch` condemns it.
    pub(super) fn may_point_at(&self, pack: &PackId, epoch: u64) -> bool {
        self.is_own(pack, epoch) || self.index.believes(pack, epoch)
    }

    /// Whether the pack is this writer's, and spared. A sweep spares the packs of those writers that it is the first to fence.
    fn is_own(&self, pack: &PackId, epoch: u64) -> bool {
        let (face, writer) = (self.face(), pack.writer());
        face.token == Some(writer) || face.fenced.iter().any(|(token, fenced)| *token == writer && *fenced == epoch)
    }

    /// Learns of the sweeps there were.
    async fn look(&self, dedup: &Dedup) -> Result<()> {
        let latest = latest_sweep(&self.repository).await?;
        let is_first = self.repository.claim_index_load();
        if is_first || self.repository.index_epoch() < latest.epoch {
            let mark = if latest.is_open { read_mark(&self.repository, latest.epoch).await? } else { Mark::default() };
            let mut packs = self.repository.packs().await?;
            for pack in mark.condemned() {
                packs.remove(&pack);
            }
            self.index.believe(&self.repository.id(), &packs, (latest.epoch, !latest.is_open));
            if is_first {
                let condemned = mark.condemned().collect();
                self.fill(&packs, latest.epoch, &condemned).await?;
            }
            self.repository.raise_index_epoch(latest.epoch);
        }
        self.face().epoch = latest.epoch;
        dedup.raise_epoch(latest.epoch);
        Ok(())
    }

    /// Fills the index from those segments whose rows it may not have: all rows that lie inside of one of `packs`, whose lengths are told.
    async fn fill(&self, packs: &HashMap<PackId, u64>, epoch: u64, condemned: &HashSet<PackId>) -> Result<()> {
        let id = self.repository.id();
        let mut listed = HashSet::new();
        let mut listing = segments(&self.repository);
        while let Some(object) = listing.try_next().await? {
            let segment = segment_id(&object);
            if self.index.is_lasting() {
                listed.extend(segment);
            }
            if segment.is_some_and(|segment| !self.index.wants(&id, &segment)) {
                continue;
            }
            let Some(inside) = rows_inside(&self.repository, &object, packs, condemned).await? else { continue };
            // A pack that is condemned may be pardoned: then its rows are to be read again.
            let state = (epoch, !inside.is_any_condemned);
            if self.index.is_lasting() {
                let index = Arc::clone(&self.index);
                let fill = move || index.fill(&id, segment.as_ref(), &inside.rows, state);
                runtime::run(&*self.executor, fill).await?;
            } else {
                self.index.fill(&id, segment.as_ref(), &inside.rows, state);
            }
        }
        self.index.keep_segments(&id, &listed);
        Ok(())
    }

    /// Writes the last record of the run, and gives its name and length. Everything that the run began to write is there.
    pub(super) async fn end(&self, ended: Ended) -> Result<(RunId, u64)> {
        // Who was shut down before anything came has none.
        self.draw()?;
        let _turn = self.turn().await;
        let record = RunRecord::Ended(Box::new(ended));
        loop {
            let (token, next) = {
                let face = self.face();
                (face.token()?, face.next)
            };
            if let Some(length) = create_run_record(&self.repository, &token, next, &record).await? {
                return Ok((RunId::new(token, next), length));
            }
            // It needs no registration for this: it commits nothing any more.
            self.renew().await?;
        }
    }

    fn face(&self) -> Guard<'_, Face> {
        self.face.lock()
    }
}

impl Face {
    fn token(&self) -> Result<Token> {
        self.token.ok_or_else(|| Error::internal("a writer has no token"))
    }

    /// Whether it is registered and does not know yet what sweeps there are.
    fn is_to_look(&self) -> bool {
        self.next > 0 && !self.has_looked
    }

    /// What a commit to `mailbox`, or a pack, is made with, if a durable record says that this writer may.
    fn writer(&self, mailbox: Option<&MailboxName>) -> Option<Writer> {
        let is_declared = mailbox.is_none_or(|mailbox| self.declared.contains(mailbox));
        let is_ready = self.next > 0 && self.has_looked && is_declared;
        let writer = |token| Writer { token, epoch: self.epoch, registered: self.registered };
        self.token.filter(|_| is_ready).map(writer)
    }
}
