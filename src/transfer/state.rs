//! What a transfer has under way.

use super::commit::Tail;
use super::gather::{Gatherer, RecipeBlock};
use super::intake::BATCH;
use super::lane::{Item, Lane};
use crate::budget::{Budget, Permit};
use crate::pack::{FinishedPack, PackId, Row};
use bytes::Bytes;
use std::collections::{BTreeMap, BTreeSet, HashSet, VecDeque};

/// The lanes, by what they do.
#[derive(Default)]
pub(super) struct Lanes {
    #[allow(clippy::vec_box, reason = "a lane is handed from task to task; it is boxed once")]
    pub(super) idle: Vec<Box<Lane>>,
    /// Have a pack finished and no memory for the next; with the mailbox whose batch they are in the midst of, if they are.
    pub(super) parked: Vec<(Box<Lane>, Option<usize>)>,
    pub(super) running: usize,
}

/// The packs that are not durable yet, and what came of those that are.
#[derive(Default)]
pub(super) struct Packs {
    pub(super) open: HashSet<PackId>,
    pub(super) uploading: usize,
    /// Waiting for their turn to be uploaded.
    pub(super) finished: VecDeque<(FinishedPack, Permit)>,
    /// Rows of durable packs that are in no index segment yet.
    pub(super) rows: Vec<Row>,
    /// Of packs that are durable, for the next ones.
    spares: Vec<PackMemory>,
}

/// The mailboxes under way, by number. With short mailboxes there are thousands that wait for one pack, so only those are looked at to which anything
/// happened.
#[derive(Default)]
pub(super) struct Gatherers {
    all: BTreeMap<usize, (Gatherer, Option<Tail>)>,
    /// Something happened to them since their commits were scheduled.
    due: BTreeSet<usize>,
    /// Something may have come to their open commits since all of these were closed.
    open: BTreeSet<usize>,
}

/// The memory of batches: one's worth is the transfer's own, so that it always gets on.
#[derive(Default)]
pub(super) struct BatchPermits {
    pub(super) own: Option<Permit>,
    pub(super) granted: Option<Permit>,
    /// A permit was asked for and has not come.
    pub(super) is_waiting: bool,
}

/// The memory of one batch, which travels with it until its messages are committed.
#[derive(Debug)]
pub(super) struct BatchPermit {
    pub(super) permit: Permit,
    /// It is the transfer's own, and comes back whole.
    pub(super) is_own: bool,
}

/// A batch to be read.
pub(super) struct Work {
    pub(super) mailbox: usize,
    pub(super) items: Vec<Item>,
    pub(super) permit: Option<BatchPermit>,
}

impl Lanes {
    pub(super) fn count(&self) -> usize {
        self.idle.len() + self.parked.len() + self.running
    }
}

/// Memory for one pack. What was a pack's buffer becomes that of the next one: memory that is fresh from the system costs more time than sealing does.
pub(super) struct PackMemory {
    pub(super) permit: Permit,
    /// Empty, if it is not made yet.
    buffer: Vec<u8>,
}

impl PackMemory {
    pub(super) fn new(permit: Permit) -> Self {
        Self { permit, buffer: Vec::new() }
    }

    /// A pack that was written, and its memory: its buffer comes back if the store has not kept it.
    pub(super) fn of(permit: Permit, written: Bytes) -> Self {
        let buffer = written.try_into_mut().map(|mut buffer| {
            buffer.clear();
            Vec::from(buffer)
        });
        Self { permit, buffer: buffer.unwrap_or_default() }
    }

    /// The buffer, of `octets` at least.
    pub(super) fn take_buffer(&mut self, octets: u64) -> Vec<u8> {
        let buffer = std::mem::take(&mut self.buffer);
        if buffer.capacity() as u64 >= octets { buffer } else { Vec::with_capacity(octets as usize) }
    }
}

impl Packs {
    /// Keeps the memory of a pack for the next one if it is enough for `octets`, and if that leaves enough for everybody.
    pub(super) fn keep(&mut self, memory: PackMemory, octets: u64, budget: &Budget) {
        let (paid, made) = (memory.permit.octets(), memory.buffer.capacity() as u64);
        if (octets..=paid).contains(&made) && budget.waiting() == 0 && budget.used() <= budget.octets() / 4 * 3 {
            self.spares.push(memory);
        }
    }

    pub(super) fn take_spare(&mut self) -> Option<PackMemory> {
        self.spares.pop()
    }

    pub(super) fn drop_spares(&mut self) {
        self.spares.clear();
    }
}

impl Gatherers {
    pub(super) fn insert(&mut self, mailbox: usize, gatherer: Gatherer, tail: Tail) {
        self.all.insert(mailbox, (gatherer, Some(tail)));
        self.touch(mailbox);
    }

    /// A mailbox to which something happens: it is due.
    pub(super) fn get_mut(&mut self, mailbox: usize) -> Option<&mut (Gatherer, Option<Tail>)> {
        self.touch(mailbox);
        self.all.get_mut(&mailbox)
    }

    fn touch(&mut self, mailbox: usize) {
        self.due.insert(mailbox);
        self.open.insert(mailbox);
    }

    /// The numbers of those that are due, which they are no more.
    pub(super) fn take_due(&mut self) -> BTreeSet<usize> {
        std::mem::take(&mut self.due)
    }

    /// A mailbox of which what is due is done.
    pub(super) fn look_at(&mut self, mailbox: usize) -> Option<&mut (Gatherer, Option<Tail>)> {
        self.all.get_mut(&mailbox)
    }

    pub(super) fn remove(&mut self, mailbox: usize) -> Option<Gatherer> {
        self.open.remove(&mailbox);
        self.all.remove(&mailbox).map(|(gatherer, _)| gatherer)
    }

    /// Closes all open commits, and gives what is left to be compressed of them.
    pub(super) fn close(&mut self) -> Vec<(usize, RecipeBlock)> {
        let mut blocks = Vec::new();
        for mailbox in std::mem::take(&mut self.open) {
            if let Some((gatherer, _)) = self.all.get_mut(&mailbox) {
                blocks.extend(gatherer.close().map(|block| (mailbox, block)));
                self.due.insert(mailbox);
            }
        }
        blocks
    }

    /// This pack is durable, or lost: nobody waits for it any more.
    pub(super) fn durable(&mut self, pack: &PackId) {
        for (mailbox, (gatherer, _)) in &mut self.all {
            if gatherer.durable(pack) {
                self.due.insert(*mailbox);
            }
        }
    }

    /// Forgets those that are not committing.
    pub(super) fn abandon(&mut self) {
        self.all.retain(|_, (gatherer, _)| gatherer.is_committing);
    }

    pub(super) fn is_idle(&self) -> bool {
        self.all.values().all(|(gatherer, _)| gatherer.is_idle())
    }

    pub(super) fn is_empty(&self) -> bool {
        self.all.is_empty()
    }

    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }
}

impl BatchPermits {
    /// Memory for a batch, if there is any now. What the transfer has of its own is taken last.
    pub(super) fn take(&mut self, budget: &Budget) -> Option<BatchPermit> {
        let shared = self.granted.take().or_else(|| budget.try_acquire(BATCH));
        let shared = shared.map(|permit| BatchPermit { permit, is_own: false });
        shared.or_else(|| Some(BatchPermit { permit: self.own.take()?, is_own: true }))
    }

    /// A batch's memory is free.
    pub(super) fn give_back(&mut self, permit: impl Into<Option<BatchPermit>>) {
        if let Some(BatchPermit { permit, is_own: true }) = permit.into() {
            self.own = Some(permit);
        }
    }
}

impl BatchPermit {
    /// Gives back what exceeds `octets`.
    pub(super) fn shrunk(mut self, octets: u64) -> Self {
        if !self.is_own {
            self.permit.shrink(octets);
        }
        self
    }
}
