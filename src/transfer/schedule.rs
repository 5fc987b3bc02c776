//! What a transfer begins, and when.

use super::commit::Target;
use super::gather::{Builder, End, RecipeBlock};
use super::intake::Intake;
use super::lane::Lane;
use super::state::{BatchPermit, BatchPermits, Lanes, PackMemory, Work};
use super::walk::Walks;
use super::{BATCH, Event, Phase, Shared, Transfer, commit};
use crate::budget::Permit;
use crate::error::{Error, Result};
use crate::pack::{FinishedPack, Row};
use crate::repository::{CompressedBlock, Ended, note_heads, write_segment};
use crate::runtime;
use crate::store::Payload;
use bytes::Bytes;
use futures::FutureExt;
use futures::future::abortable;
use std::sync::Arc;

impl Transfer {
    /// Begins everything that can be begun.
    pub(super) fn schedule(&mut self) {
        if self.lanes.running == 0 || self.shared.resources.budget().waiting() > 0 {
            self.packs.drop_spares();
        }
        match self.phase {
            Phase::Dormant => return self.await_work(),
            Phase::Starting | Phase::Closing | Phase::Done => return,
            Phase::Running | Phase::Stopping => {}
            Phase::Aborting => {
                self.abandon();
                return self.close_if_quiet();
            }
        }
        if self.phase == Phase::Stopping {
            self.stop_intake();
        }
        self.schedule_intake();
        if self.is_paused {
            self.flush();
            self.fall_asleep_if_quiet();
        }
        self.schedule_lanes();
        self.schedule_commits();
        self.schedule_uploads();
        self.close_if_quiet();
    }

    /// Waits for something to be appended. No memory is held meanwhile.
    fn await_work(&mut self) {
        let Some(intake) = self.intake.take() else { return };
        let (wait, handle) = abortable(intake.wait());
        self.waiting = Some(handle);
        let wait = async move {
            match wait.await {
                Ok((intake, taken)) => Ok(Event::Taken(intake, taken, None)),
                Err(_) => Ok(Event::StoppedWaiting),
            }
        };
        self.tasks.push(wait.boxed());
    }

    /// Asks for the memory of the first lane.
    pub(super) fn wake_up(&mut self) {
        self.phase = Phase::Starting;
        self.tasks.push(self.shared.clone().begin().boxed());
    }

    /// Gives back all memory once everything that was appended is committed.
    fn fall_asleep_if_quiet(&mut self) {
        let is_quiet = self.phase == Phase::Running
            && self.intake.is_some()
            && self.tasks.len() == usize::from(self.batches.is_waiting)
            && self.work.is_empty()
            && self.packs.finished.is_empty()
            && self.gatherers.is_idle();
        if is_quiet {
            (self.lanes, self.is_paused) = (Lanes::default(), false);
            (self.batches.own, self.batches.granted) = (None, None);
            self.phase = Phase::Dormant;
            self.await_work();
        }
    }

    pub(super) fn schedule_intake(&mut self) {
        if !self.is_taking || self.phase == Phase::Stopping {
            return;
        }
        let Some(Intake::Inbox(_)) = &self.intake else { return self.schedule_walks() };
        if self.is_paused || self.work.len() > self.lanes.count() {
            return;
        }
        let Some(permit) = self.batch_permit() else { return };
        let Some(intake) = self.intake.take() else { return };
        let step = async move {
            let (intake, taken) = intake.step().await;
            Ok(Event::Taken(intake, taken, Some(permit)))
        };
        self.tasks.push(step.boxed());
    }

    /// Memory for a batch; if there is none, it is asked for, and whatever can be made durable gives some back.
    pub(super) fn batch_permit(&mut self) -> Option<BatchPermit> {
        let budget = self.shared.resources.budget();
        let permit = self.batches.take(budget);
        if permit.is_some() {
            return permit;
        }
        if !std::mem::replace(&mut self.batches.is_waiting, true) {
            let budget = budget.clone();
            self.tasks.push(async move { Ok(Event::BatchPermit(budget.acquire(BATCH).await)) }.boxed());
        }
        self.flush();
        None
    }

    /// Closes all open commits and packs.
    pub(super) fn flush(&mut self) {
        let blocks = self.gatherers.close();
        blocks.into_iter().for_each(|(mailbox, block)| self.compress(mailbox, block));
        self.seal_idle_packs();
    }

    pub(super) fn schedule_lanes(&mut self) {
        self.take_more_lanes();
        while let Some(work) = self.work.pop_front() {
            match self.lanes.idle.pop() {
                Some(mut lane) => {
                    lane.give(work.items, work.permit);
                    self.run_lane(lane, work.mailbox);
                }
                None => {
                    self.work.push_front(work);
                    break;
                }
            }
        }
        let takes_no_more = !self.is_taking || self.phase == Phase::Stopping;
        let nothing_comes = self.intake.is_none() && self.inbox.is_none() && self.walks.is_empty() && takes_no_more;
        if nothing_comes && self.work.is_empty() && self.lanes.running == 0 && self.lanes.parked.is_empty() {
            self.seal_idle_packs();
        }
    }

    /// Takes memory for another lane if there is work for it and nobody waits for memory.
    pub(super) fn take_more_lanes(&mut self) {
        let lanes_max = self.shared.resources.executor().parallelism();
        if self.work.len() <= self.lanes.idle.len() || self.lanes.count() >= lanes_max {
            return;
        }
        let budget = self.shared.resources.budget();
        // Three quarters of the budget are for lanes; the rest is for batches, and what they leave in commits.
        let per_lane = self.shared.working_set + self.shared.pack_permit;
        if (self.lanes.count() as u64 + 1) * per_lane > budget.octets() / 4 * 3 {
            return;
        }
        let Some(working_set) = budget.try_acquire(self.shared.working_set) else { return };
        let Some(pack) = budget.try_acquire(self.shared.pack_permit) else { return };
        self.add_lane(working_set, PackMemory::new(pack));
    }

    pub(super) fn add_lane(&mut self, working_set: Permit, pack: PackMemory) {
        match Lane::new(working_set, pack, &self.shared.settings, &self.shared.context) {
            Ok(lane) => self.lanes.idle.push(Box::new(lane)),
            Err(error) => self.fail(error),
        }
    }

    pub(super) fn run_lane(&mut self, mut lane: Box<Lane>, mailbox: usize) {
        if lane.lacks_pack()
            && let Err(error) = self.begin_pack(&mut lane)
        {
            return self.fail(error);
        }
        self.lanes.running += 1;
        let (executor, context) = (Arc::clone(self.shared.resources.executor()), Arc::clone(&self.shared.context));
        let turn = async move {
            let (lane, outcome) = runtime::run(&*executor, move || {
                let outcome = lane.advance(&context);
                (lane, outcome)
            })
            .await?;
            Ok(Event::Lane { lane, mailbox, outcome })
        };
        self.tasks.push(turn.boxed());
    }

    fn begin_pack(&mut self, lane: &mut Lane) -> Result<()> {
        let Shared { repository, registration, context, pack_permit, .. } = &self.shared;
        let buffer = lane.pack_memory.as_mut().map(|memory| memory.take_buffer(*pack_permit)).unwrap_or_default();
        let pack = repository.new_pack(&registration.token()?, buffer)?;
        self.packs.open.insert(pack.id());
        lane.begin_pack(pack, context.effort.level())
    }

    /// Finishes the packs of lanes that have nothing to do.
    pub(super) fn seal_idle_packs(&mut self) {
        let (open, empty): (Vec<_>, Vec<_>) =
            std::mem::take(&mut self.lanes.idle).into_iter().partition(|lane| lane.has_content());
        self.lanes.idle = empty;
        open.into_iter().for_each(|lane| self.seal_pack(lane));
    }

    /// Finishes a lane's pack.
    pub(super) fn seal_pack(&mut self, mut lane: Box<Lane>) {
        self.lanes.running += 1;
        let executor = Arc::clone(self.shared.resources.executor());
        let seal = async move {
            let (lane, pack) = runtime::run(&*executor, move || {
                let pack = lane.finish_pack();
                (lane, pack)
            })
            .await?;
            Ok(Event::Sealed { lane, pack })
        };
        self.tasks.push(seal.boxed());
    }

    /// Whether a lane, which is counted nowhere just now, should give its memory to other transfers that wait for theirs. One is kept.
    pub(super) fn is_one_lane_too_many(&self) -> bool {
        let waiting = self.shared.resources.budget().waiting().saturating_sub(usize::from(self.batches.is_waiting));
        waiting > 0 && self.lanes.count() > 0
    }

    pub(super) fn schedule_uploads(&mut self) {
        let is_governed = self.shared.repository.governor().is_some();
        while self.packs.uploading < self.shared.resources.uploads_max(is_governed) {
            let Some((pack, permit)) = self.packs.finished.pop_front() else { return };
            self.packs.uploading += 1;
            let Shared { repository, registration, context, .. } = self.shared.clone();
            let upload = async move {
                let FinishedPack { id, octets, rows } = pack;
                let octets = Bytes::from(octets);
                let length = octets.len() as u64;
                // A sweep spares the packs of writers that it knows.
                registration.ready(None, &context.dedup).await?;
                repository.store().put(&id.key(), Payload::from(octets.clone())).await?;
                let memory = PackMemory::of(permit, octets);
                let epoch = registration.uploaded(&id, &context.dedup).await?;
                Ok(Event::Uploaded { pack: id, rows, length, memory, epoch })
            };
            self.tasks.push(upload.boxed());
        }
    }

    pub(super) fn schedule_commits(&mut self) {
        for mailbox in self.gatherers.take_due() {
            self.schedule_mailbox(mailbox);
        }
    }

    /// Concludes, closes and commits what is due of one mailbox.
    pub(super) fn schedule_mailbox(&mut self, mailbox: usize) {
        let Some((gatherer, tail)) = self.gatherers.look_at(mailbox) else { return };
        let mut block = None;
        if gatherer.can_conclude() {
            if gatherer.conclude() {
                self.ledger.mailboxes += 1;
            }
            block = gatherer.close();
        } else if gatherer.is_full(&self.shared.settings) {
            block = gatherer.close();
        }
        if !gatherer.is_committing && gatherer.closed.front().is_some_and(Builder::is_ready) {
            if let (Some(tail), Some(builder)) = (tail.take(), gatherer.closed.front_mut()) {
                gatherer.is_committing = true;
                self.commits += 1;
                let draft = std::mem::take(&mut builder.draft);
                let Shared { repository, resources, context, registration, .. } = self.shared.clone();
                let level = context.effort.level();
                let (folders, source) = (gatherer.folders_there(), self.source.clone());
                let target = Target { repository, resources, context, registration, folders, source, level };
                let commit = async move {
                    let committed = commit::commit(target, tail, draft).await?;
                    Ok(Event::Committed { mailbox, committed })
                };
                self.tasks.push(commit.boxed());
            }
        } else if gatherer.is_finished()
            && let Some(gatherer) = self.gatherers.remove(mailbox)
        {
            self.shared.registration.release(&gatherer.mailbox);
            gatherer.open.permits.into_iter().for_each(|permit| self.batches.give_back(permit));
        }
        if let Some(block) = block {
            self.compress(mailbox, block);
        }
    }

    pub(super) fn compress(&mut self, mailbox: usize, block: RecipeBlock) {
        let executor = Arc::clone(self.shared.resources.executor());
        let context = Arc::clone(&self.shared.context);
        let RecipeBlock { serial, slot, recipes } = block;
        let compress = async move {
            let raw = recipes.len() as u32;
            let octets = runtime::run(&*executor, move || {
                let mut octets = Vec::new();
                let level = context.effort.level();
                context.packers.with(level, |packer| packer.compress(&recipes, &mut octets))?;
                octets.shrink_to_fit();
                Ok::<_, Error>(octets)
            });
            let block = CompressedBlock { octets: octets.await??, raw };
            Ok(Event::Compressed { mailbox, serial, slot, block })
        };
        self.tasks.push(compress.boxed());
    }

    pub(super) fn write_segment(&mut self, mut rows: Vec<Row>) {
        let repository = self.shared.repository.clone();
        let write = async move { Ok(Event::SegmentWritten(write_segment(&repository, &mut rows, &[]).await?)) };
        self.tasks.push(write.boxed());
    }

    /// Writes where journals end by now: the run's own record cannot tell of that many.
    pub(super) fn note_heads(&mut self) {
        self.heads_octets = 0;
        let heads = std::mem::take(&mut self.heads).into_values().collect();
        let (repository, started) = (self.shared.repository.clone(), self.started);
        self.tasks.push(async move { Ok(Event::Noted(note_heads(&repository, started, heads).await?)) }.boxed());
    }

    /// Ends the wait for something to be appended.
    pub(super) fn stop_waiting(&mut self) {
        if let Some(handle) = self.waiting.take() {
            handle.abort();
        }
    }

    /// Forgets everything that has not begun.
    pub(super) fn stop_intake(&mut self) {
        // Work not begun stays pending; its mailbox is not concluded, for it was not seen to its end.
        for Work { mailbox, permit, .. } in std::mem::take(&mut self.work) {
            self.batches.give_back(permit);
            if let Some((gatherer, _)) = self.gatherers.get_mut(mailbox) {
                gatherer.outstanding -= 1;
                gatherer.cut_short();
            }
        }
        if self.intake.take().is_some() {
            self.end_inbox();
        }
        self.end_walks();
    }

    /// Nothing more is appended.
    pub(super) fn end_inbox(&mut self) {
        if let Some(mailbox) = self.inbox.take() {
            self.end_mailbox(mailbox);
        }
    }

    /// A mailbox that is being enumerated will not be enumerated to its end.
    pub(super) fn end_mailbox(&mut self, mailbox: usize) {
        if let Some((gatherer, _)) = self.gatherers.get_mut(mailbox) {
            gatherer.end(End::default());
        }
    }

    /// Forgets everything that is not in flight.
    pub(super) fn abandon(&mut self) {
        self.work.clear();
        self.intake = None;
        self.inbox = None;
        self.walks.abandon();
        self.gatherers.abandon();
        self.packs.finished.clear();
        self.lanes.parked.clear();
        self.lanes.idle.clear();
    }

    /// Gives back all memory: who is over must not keep others waiting, even if it is not dropped yet.
    pub(super) fn release(&mut self) {
        self.tasks.clear();
        self.intake = None;
        self.walks = Walks::default();
        self.work.clear();
        self.gatherers.clear();
        self.packs.finished.clear();
        (self.lanes, self.batches) = (Lanes::default(), BatchPermits::default());
    }

    /// When nothing is under way any more, writes the last objects.
    pub(super) fn close_if_quiet(&mut self) {
        let is_quiet = self.tasks.len() == usize::from(self.batches.is_waiting)
            && self.gatherers.is_empty()
            && self.work.is_empty()
            && self.walks.is_empty()
            && self.packs.finished.is_empty()
            && (self.intake.is_none() || self.phase == Phase::Aborting);
        if !is_quiet {
            return;
        }
        if self.failure.is_some() {
            self.phase = Phase::Done;
            return;
        }
        if let Err(error) = self.ledger.verify() {
            self.failure = Some(error);
            self.phase = Phase::Done;
            return;
        }
        if !self.packs.rows.is_empty() {
            let rows = std::mem::take(&mut self.packs.rows);
            return self.write_segment(rows);
        }
        self.phase = Phase::Closing;
        let registration = Arc::clone(&self.shared.registration);
        registration.take_written().into_iter().for_each(|length| self.wrote(length));
        let ended = Ended {
            started: self.started,
            written: self.shared.repository.now(),
            ledger: self.ledger.clone(),
            heads: std::mem::take(&mut self.heads).into_values().collect(),
        };
        let write = async move {
            let (run, length) = registration.end(ended).await?;
            Ok(Event::Recorded(run, length))
        };
        self.tasks.push(write.boxed());
    }
}
