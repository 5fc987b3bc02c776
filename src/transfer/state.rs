//! What a transfer has under way.

use super::intake::BATCH;
use super::lane::{Item, Lane};
use crate::budget::{Budget, Permit};
use crate::pack::{FinishedPack, PackId, Row};
use std::collections::{HashSet, VecDeque};

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
