//! What a transfer does about what ended.

use super::commit::Committed;
use super::gather::{Builder, Gatherer};
use super::intake::{Found, Intake, Opened, Taken};
use super::lane::{Lane, Output, Step};
use super::state::{BatchPermit, PackMemory, Work};
use super::{Event, Outcome, Phase, Shared, Transfer};
use crate::error::{Error, ErrorKind, Result};
use crate::pack::{FinishedPack, PackId, Row};
use crate::repository::{HEADS_MAX, HEADS_OCTETS_MAX, JournalHead, SEGMENT_CONTENT_MIN, SEGMENT_ROWS_MAX};

impl Transfer {
    pub(super) fn handle(&mut self, event: Event) {
        match event {
            Event::Begun(working_set, pack, batch) => {
                self.batches.own = Some(batch);
                self.add_lane(working_set, PackMemory::new(pack));
                if self.phase == Phase::Starting {
                    self.phase = Phase::Running;
                }
            }
            Event::BatchPermit(permit) => {
                self.batches.is_waiting = false;
                // Who sleeps holds no memory.
                self.batches.granted = (self.phase != Phase::Dormant).then_some(permit);
            }
            Event::StoppedWaiting => {
                self.is_taking = false;
                self.end_inbox();
            }
            Event::Taken(intake, taken, permit) => self.take(intake, taken, permit),
            Event::Walked { mailbox, walked, permit } => self.walked(mailbox, walked, permit),
            Event::Lane { lane, mailbox, outcome } => self.lane_came_back(lane, mailbox, outcome),
            Event::Sealed { lane, pack } => {
                self.lanes.running -= 1;
                match pack {
                    Ok(pack) => self.pack_finished(lane, pack, None),
                    Err(error) => self.fail(error),
                }
            }
            Event::Uploaded { pack, rows, length, memory, epoch } => {
                self.pack_is_durable(pack, rows, (length, epoch), memory);
            }
            Event::Compressed { mailbox, serial, slot, block } => {
                if let Some((gatherer, _)) = self.gatherers.get_mut(mailbox) {
                    gatherer.compressed(serial, slot, block);
                }
            }
            Event::Committed { mailbox, committed } => {
                self.commits -= 1;
                self.committed(mailbox, committed);
                if self.heads.len() >= HEADS_MAX || self.heads_octets >= HEADS_OCTETS_MAX {
                    self.note_heads();
                }
            }
            Event::SegmentWritten(length) | Event::Noted(length) => self.wrote(length),
            Event::Recorded(run, length) => {
                self.run = Some(run);
                self.wrote(length);
                self.phase = Phase::Done;
            }
        }
    }

    pub(super) fn take(&mut self, intake: Intake, taken: Result<Taken>, permit: Option<BatchPermit>) {
        match taken {
            Ok(Taken::Listed(listed)) if listed.is_empty() => {
                self.is_listed = true;
                return self.take_listed(listed);
            }
            Ok(Taken::Listed(listed)) => self.take_listed(listed),
            Ok(Taken::Mailbox(opened)) => {
                self.inbox = Some(self.next_mailbox);
                self.next_mailbox += 1;
                self.open_mailbox(self.next_mailbox - 1, *opened);
            }
            Ok(Taken::Batch(found)) => {
                self.intake = Some(intake);
                self.is_paused = false;
                let Some(mailbox) = self.inbox else { return };
                self.inbox = self.inbox.filter(|_| found.end.is_none());
                return self.take_batch(mailbox, *found, permit);
            }
            Ok(Taken::Pause) => self.is_paused = true,
            Ok(Taken::Ready) => self.wake_up(),
            Ok(Taken::End) => {
                self.is_taking = false;
                if self.phase == Phase::Dormant {
                    self.phase = Phase::Running;
                }
                return self.batches.give_back(permit);
            }
            Err(error) => {
                self.batches.give_back(permit);
                return self.fail(error);
            }
        }
        self.intake = Some(intake);
        self.batches.give_back(permit);
    }

    pub(super) fn open_mailbox(&mut self, mailbox: usize, opened: Opened) {
        let Opened { name, tail, folders } = opened;
        let gatherer = Gatherer::new(name, self.source.clone(), folders);
        self.gatherers.insert(mailbox, gatherer, tail);
    }

    pub(super) fn take_batch(&mut self, mailbox: usize, found: Found, permit: Option<BatchPermit>) {
        let Some((gatherer, _)) = self.gatherers.get_mut(mailbox) else { return };
        let Found { seen, folders, items, updates, unchanged, excluded, failed, end, weight } = found;
        self.ledger.see(seen);
        excluded.into_iter().for_each(|reason| self.ledger.exclude(reason));
        for (name, error) in failed {
            let name = String::from_utf8_lossy(&name).into_owned();
            self.ledger.miss(name, &error);
        }
        for (folder, identity, messages) in unchanged {
            self.ledger.keep(messages);
            if self.with_outcomes {
                self.outcomes.push_back(Outcome::unchanged(&gatherer.mailbox, folder, identity, messages));
            }
        }
        folders.into_iter().for_each(|folder| gatherer.folder(folder));
        for update in updates {
            gatherer.update(update.ordinal, update.position, update.envelope, update.moved);
        }
        if let Some(end) = end {
            gatherer.end(end);
        }
        // What is kept until the commit is at most what the batch weighed.
        let permit = permit.map(|permit| permit.shrunk(weight));
        if !items.is_empty() {
            gatherer.outstanding += 1;
            self.work.push_back(Work { mailbox, items, permit });
        } else if gatherer.open.draft.is_empty() {
            self.batches.give_back(permit);
        } else {
            gatherer.open.permits.extend(permit);
        }
    }

    pub(super) fn lane_came_back(&mut self, mut lane: Box<Lane>, mailbox: usize, outcome: Result<(Step, Output)>) {
        self.lanes.running -= 1;
        let (step, output) = match outcome {
            Ok(done) => done,
            Err(error) => return self.fail(error),
        };
        let Output { messages, recipes, octets, pack } = output;
        self.ledger.bytes.read += octets.read;
        self.ledger.bytes.content += octets.content;
        self.ledger.bytes.duplicate += octets.duplicate;
        self.ledger.bytes.compressed += octets.compressed;
        let mut blocks = Vec::new();
        if let Some((gatherer, _)) = self.gatherers.get_mut(mailbox) {
            let Shared { settings, .. } = &self.shared;
            blocks = gatherer.messages(messages, &recipes, &self.packs.open, settings, self.with_outcomes);
            if step == Step::Done {
                gatherer.outstanding -= 1;
                let free = lane.batch_permit.take().and_then(|permit| gatherer.keep(permit));
                self.batches.give_back(free);
            }
        }
        lane.take_back(recipes);
        blocks.into_iter().for_each(|block| self.compress(mailbox, block));
        match step {
            // Nothing that it reads will be committed.
            _ if self.phase == Phase::Aborting => {}
            Step::Again => self.run_lane(lane, mailbox),
            Step::PackFull => self.pack_finished(lane, pack, Some(mailbox)),
            Step::Done if self.is_one_lane_too_many() => self.seal_pack(lane),
            Step::Done => self.lanes.idle.push(lane),
        }
    }

    /// Hands a finished pack on, and lets the lane go on if there is memory for its next pack.
    pub(super) fn pack_finished(&mut self, mut lane: Box<Lane>, pack: Option<FinishedPack>, mailbox: Option<usize>) {
        if let (Some(pack), Some(PackMemory { mut permit, .. })) = (pack, lane.pack_memory.take()) {
            // A lane's own memory comes back to it whole; memory beyond that is given back as soon as it can be.
            let more = || self.shared.resources.budget().try_acquire(self.shared.pack_permit).map(PackMemory::new);
            let spare = self.packs.take_spare().or_else(more);
            if spare.is_some() {
                permit.shrink(pack.octets.capacity() as u64);
                lane.pack_memory = spare;
            }
            // With the smallest budgets every worker waits for its own pack, whatever the store is like: that tells nothing. And if others are at work, processors are
            // what is waited for: with more workers than processors memory is short whatever the store is like.
            let in_flight = self.packs.uploading + self.packs.finished.len();
            let waits_for_store = lane.pack_memory.is_none() && in_flight > 1 && self.lanes.running == 0;
            self.shared.context.effort.learn(waits_for_store);
            self.packs.finished.push_back((pack, permit));
        }
        match (lane.pack_memory.is_some(), mailbox) {
            // Its memory is for who waits.
            (_, None) if self.is_one_lane_too_many() => {}
            (true, Some(mailbox)) => self.run_lane(lane, mailbox),
            (true, None) => self.lanes.idle.push(lane),
            (false, mailbox) => {
                self.lanes.parked.push((lane, mailbox));
            }
        }
    }

    pub(super) fn pack_is_durable(
        &mut self,
        pack: PackId,
        rows: Vec<Row>,
        (length, epoch): (u64, Option<u64>),
        memory: PackMemory,
    ) {
        self.packs.uploading -= 1;
        self.packs.open.remove(&pack);
        self.wrote(length);
        match epoch {
            Some(epoch) => {
                self.shared.context.dedup.publish(&rows, epoch);
                let lasting = rows.into_iter().filter(|row| row.at.content >= SEGMENT_CONTENT_MIN);
                self.packs.rows.extend(lasting);
            }
            // What points at it is not committed.
            None => self.shared.context.dedup.forget(&rows),
        }
        self.gatherers.durable(&pack);
        if let Some((mut lane, mailbox)) = self.lanes.parked.pop() {
            // A parked lane's own permit is one that travelled whole.
            lane.pack_memory = Some(memory);
            match mailbox {
                Some(mailbox) => self.run_lane(lane, mailbox),
                None => self.lanes.idle.push(lane),
            }
        } else {
            self.packs.keep(memory, self.shared.pack_permit, self.shared.resources.budget());
        }
        if self.packs.rows.len() >= SEGMENT_ROWS_MAX {
            let rows: Vec<Row> = self.packs.rows.drain(..SEGMENT_ROWS_MAX).collect();
            self.write_segment(rows);
        }
    }

    pub(super) fn committed(&mut self, mailbox: usize, committed: Committed) {
        let Committed { tail, length, covered, dropped } = committed;
        if length > 0 {
            self.wrote(length);
        }
        let Some((gatherer, slot)) = self.gatherers.get_mut(mailbox) else { return };
        gatherer.is_committing = false;
        if let Some((sequence, digest)) = tail.head() {
            let mailbox_name = (*gatherer.mailbox).clone();
            self.heads_octets += mailbox_name.as_bytes().len();
            self.heads.insert(mailbox, JournalHead { mailbox: mailbox_name, sequence, digest });
        }
        *slot = Some(tail);
        let Some(builder) = gatherer.closed.pop_front() else { return };
        if let Some(folders) = dropped {
            let name = gatherer.mailbox.to_string();
            gatherer.lose(folders);
            return self.dropped(name, builder);
        }
        let stored = builder.stored - covered.min(builder.stored);
        self.ledger.store(stored);
        self.ledger.keep(builder.unchanged + (builder.stored - stored));
        builder.quarantined.into_iter().for_each(|reason| self.ledger.quarantine(reason));
        self.stop_if_too_much_is_quarantined();
        self.ledger.changes.flags += builder.changes.flags;
        self.ledger.changes.moved += builder.changes.moved;
        self.ledger.changes.gone += builder.changes.gone;
        if self.with_outcomes {
            self.outcomes.extend(builder.outcomes);
        }
        for (ticket, settled) in builder.tickets {
            // Whoever waited may have gone.
            let _ = ticket.send(Ok(settled));
        }
        builder.permits.into_iter().for_each(|permit| self.batches.give_back(permit));
    }

    /// What a commit was to point at is gone, or was found damaged. Its messages stay pending.
    fn dropped(&mut self, name: String, builder: Builder) {
        let error = || {
            Error::new(
                ErrorKind::Unavailable,
                "content that messages share is gone or damaged; they must be read again",
            )
        };
        for (ticket, _) in builder.tickets {
            // Whoever waited may have gone.
            let _ = ticket.send(Err(error()));
        }
        self.ledger.miss(name, &error());
        builder.permits.into_iter().for_each(|permit| self.batches.give_back(permit));
    }

    /// A run in which more goes wrong than its caller allowed ends as if it was told to.
    fn stop_if_too_much_is_quarantined(&mut self) {
        let is_too_much =
            self.shared.settings.quarantined_max.is_some_and(|max| self.ledger.messages.quarantined > max);
        if is_too_much && matches!(self.phase, Phase::Starting | Phase::Running) {
            self.is_quarantine_exceeded = true;
            self.phase = Phase::Stopping;
            self.stop_waiting();
        }
    }

    pub(super) fn wrote(&mut self, length: u64) {
        self.ledger.objects += 1;
        self.ledger.bytes.written += length;
    }

    pub(super) fn fail(&mut self, error: Error) {
        if self.failure.is_none() {
            self.failure = Some(error);
        }
        self.phase = Phase::Aborting;
    }
}
