//! What happens in the network, one event after the other.

use super::client::in_files;
use super::{BEGIN, Blow, Due, Fate, Forgot, Manner, Operation, Part, Phase, Point, State};
use crate::coverage::Event;
use crate::objects::{Answer, Backend, Call, Conditions, Reply};
use mailrail::store::Created;
use mailrail::{Error, ErrorKind};
use std::time::Duration;

impl State {
    pub(super) fn submit(&mut self, process: usize, call: Call) -> u64 {
        self.sequence += 1;
        let id = self.sequence;
        let fate = self.fate(process, &call);
        let effect = self.latency(process) + self.stall(process, &call);
        let phase = self.phase(process, &call);
        self.note(|| {
            format!("p{process} {call}{}", if fate == Fate::Normal { String::new() } else { format!(" ({fate:?})") })
        });
        let mut operation = Operation {
            process,
            call,
            phase,
            fate,
            reply: None,
            is_effective: false,
            is_answered: false,
            is_abandoned: false,
            due: None,
            waker: None,
        };
        let late = self.random.between(1_000, 100_000);
        match fate {
            Fate::Throttled | Fate::Transient => {
                (operation.reply, operation.is_effective) = (Some(Err(failure(fate))), true);
                self.after(effect, Due::Answer(id));
            }
            Fate::Late => {
                operation.reply = Some(Err(failure(fate)));
                self.after(effect, Due::Answer(id));
                operation.due = Some(self.after(effect + late, Due::Effect(id)));
            }
            _ => operation.due = Some(self.after(effect, Due::Effect(id))),
        }
        self.operations.insert(id, operation);
        id
    }

    fn fate(&mut self, process: usize, call: &Call) -> Fate {
        let weather = self.processes[process].weather;
        if weather.faults == 0 || call.is_rest() {
            return Fate::Normal;
        }
        let (is_write, is_read) = (call.is_write(), matches!(call, Call::Read(..)));
        // The rare ones that decide something.
        let weight = if call.is_commit() || self.processes[process].part == Part::Sweep { 3 } else { 1 };
        let late = if self.is_late_possible { weather.late * weight } else { 0 };
        let fates = [
            (Fate::AnswerLost, weather.answer_lost, is_write, Event::AnswerLost),
            (Fate::Late, late, is_write, Event::Transient),
            (Fate::Throttled, weather.throttled, true, Event::Throttled),
            (Fate::Transient, weather.transient, true, Event::Transient),
            (Fate::Short, weather.short, is_read, Event::ShortRead),
            (Fate::Flipped, weather.flipped, is_read, Event::FlippedBit),
        ];
        for (fate, per_mille, is_possible, event) in fates {
            if is_possible && per_mille > 0 && self.random.per_mille(per_mille) {
                self.coverage.count(event);
                self.processes[process].weather.faults -= 1;
                self.processes[process].faults += 1;
                self.tampered += u64::from(is_read);
                return fate;
            }
        }
        Fate::Normal
    }

    fn latency(&mut self, process: usize) -> u64 {
        let slow = self.processes[process].weather.slow;
        if slow > 0 && self.random.per_mille(slow) {
            self.coverage.count(Event::Slow);
            return self.random.between(10_000, 50_000);
        }
        self.random.between(50, 1_000)
    }

    /// How long a process does nothing before it asks for this.
    fn stall(&mut self, process: usize, call: &Call) -> u64 {
        if let Call::Sleep(time) = call {
            return *time;
        }
        let process = &mut self.processes[process];
        process.operations += 1;
        if process.weather.stall != Some(process.operations) {
            return 0;
        }
        self.coverage.count(Event::Stalled);
        self.random.between(20_000, 300_000)
    }

    fn after(&mut self, delay: u64, due: Due) -> (u64, u64) {
        self.sequence += 1;
        let at = (self.now + delay, self.sequence);
        self.due.insert(at, due);
        at
    }

    pub(super) fn step(&mut self) -> bool {
        let Some(((at, _), due)) = self.due.pop_first() else { return false };
        self.now = self.now.max(at);
        self.show_time();
        match due {
            Due::Effect(id) => self.effect(id),
            Due::Write(id) => self.write(id),
            Due::Answer(id) => self.answer(id),
        }
        true
    }

    pub(super) fn show_time(&self) {
        self.clock.set(BEGIN + Duration::from_micros(self.now + self.ahead));
    }

    fn effect(&mut self, id: u64) {
        let Some(operation) = self.operations.get(&id) else { return };
        let (process, fate, is_abandoned) = (operation.process, operation.fate, operation.is_abandoned);
        let (call, phase) = (operation.call.clone(), operation.phase);
        let blow = if is_abandoned || fate == Fate::Late { None } else { self.falls(process, phase) };
        self.struck.extend(blow);
        if let Some(blow) = blow.filter(|blow| blow.manner != Manner::Stop) {
            self.note(|| format!("p{process} is struck at {call}: {blow:?}"));
            match blow.point {
                Point::Before => return,
                Point::Inside(steps) if call.is_write() => self.die_inside(process, &call, steps),
                _ => drop(self.apply(process, &call)),
            }
            if let Some(operation) = self.operations.get_mut(&id) {
                operation.is_effective = true;
            }
            return;
        }
        if let (Call::Create(key, _), Backend::Objects(objects)) = (&call, &self.backend)
            && objects.conditions == Conditions::Raced
            && !objects.has(key)
        {
            let gap = self.random.between(50, 3_000);
            self.after(gap, Due::Write(id));
            return;
        }
        let reply = self.apply(process, &call);
        self.took_effect(id, reply);
    }

    /// The second half of a create that is not atomic.
    fn write(&mut self, id: u64) {
        let Some(operation) = self.operations.get(&id) else { return };
        let (process, call) = (operation.process, operation.call.clone());
        if let (Backend::Objects(objects), Call::Create(key, octets)) = (&mut self.backend, &call)
            && objects.put(key, octets)
        {
            self.coverage.count(Event::RaceBothWon);
        }
        let reply = Ok(Answer::Created(Created::New));
        if let Some(journal) = call.journal() {
            self.came_to_journal(process, journal, &reply);
        }
        self.took_effect(id, reply);
    }

    fn took_effect(&mut self, id: u64, reply: Reply) {
        let Some(operation) = self.operations.get(&id) else { return };
        let (process, fate, is_abandoned) = (operation.process, operation.fate, operation.is_abandoned);
        if is_abandoned || fate == Fate::Late {
            let call = operation.call.clone();
            self.came_late(process, &call, &reply);
        }
        let gone = self.operations.get(&id).is_some_and(|operation| operation.is_abandoned);
        if gone {
            self.operations.remove(&id);
            return;
        }
        if fate == Fate::Late {
            // Who waits is told of a failure, or was told already.
            if let Some(operation) = self.operations.get_mut(&id) {
                operation.is_effective = true;
            }
            return;
        }
        let reply = self.tamper(fate, reply);
        let delay = self.latency(process);
        if let Some(operation) = self.operations.get_mut(&id) {
            (operation.reply, operation.is_effective) = (Some(reply), true);
        }
        self.after(delay, Due::Answer(id));
    }

    fn came_late(&mut self, process: usize, call: &Call, reply: &Reply) {
        self.note(|| format!("p{process} late: {call}"));
        if !call.is_write() || reply.is_err() {
            return;
        }
        self.coverage.count(Event::LateWrite);
        let part = self.processes[process].part;
        if part == Part::Sweep {
            self.coverage.count(Event::LateSweep);
        }
        let is_new = matches!(reply, Ok(Answer::Created(Created::New)));
        self.is_journal_late |= is_new && call.is_commit();
        if call.is_commit() && part == Part::Write {
            self.coverage.count(Event::LateCommit);
            if is_new {
                self.late_commits.push(self.processes[process].generation);
            }
        }
    }

    fn tamper(&mut self, fate: Fate, reply: Reply) -> Reply {
        match (fate, reply) {
            (Fate::AnswerLost, _) => Err(failure(fate)),
            (Fate::Short, Ok(Answer::Octets(octets))) => {
                let length = self.random.below(octets.len() as u64) as usize;
                Ok(Answer::Octets(octets.slice(..length)))
            }
            (Fate::Flipped, Ok(Answer::Octets(octets))) if !octets.is_empty() => {
                let mut flipped = octets.to_vec();
                let bit = self.random.below(flipped.len() as u64 * 8) as usize;
                flipped[bit / 8] ^= 1 << (bit % 8);
                Ok(Answer::Octets(flipped.into()))
            }
            (_, reply) => reply,
        }
    }

    fn answer(&mut self, id: u64) {
        let Some(operation) = self.operations.get(&id) else { return };
        let process = operation.process;
        let overtaken = self.operations.range(..id).any(|(_, older)| {
            older.process == process && !older.is_answered && !older.is_abandoned && !older.call.is_rest()
        });
        if overtaken {
            self.coverage.count(Event::Reordered);
        }
        if let Some(operation) = self.operations.get_mut(&id) {
            operation.is_answered = true;
            if let Some(waker) = operation.waker.take() {
                waker.wake();
            }
        }
    }

    /// Whether the blow falls now.
    fn falls(&mut self, process: usize, phase: Option<Phase>) -> Option<Blow> {
        let is_meant = |blow: &Blow| blow.process == process && Some(blow.phase) == phase;
        let at = self.blows.iter().position(is_meant)?;
        if self.blows[at].skip > 0 {
            self.blows[at].skip -= 1;
            return None;
        }
        Some(self.blows.swap_remove(at))
    }

    fn die_inside(&mut self, process: usize, call: &Call, steps: u64) {
        let Backend::Files(machine) = &self.backend else { return drop(self.apply(process, call)) };
        let machine = machine.clone();
        machine.kill_after(steps);
        drop(self.apply(process, call));
        if machine.reap() {
            self.coverage.count(Event::KillInWrite);
        }
    }

    /// Does what is asked for, at once.
    pub(super) fn apply(&mut self, process: usize, call: &Call) -> Reply {
        let part = self.processes[process].part;
        let is_counted = part == Part::Sweep && !self.processes[process].is_direct;
        let was_there = is_counted && matches!(call, Call::Delete(key) if self.is_there(key));
        let reply = match (&mut self.backend, &self.processes[process].store) {
            (_, _) if call.is_rest() => Ok(Answer::Done),
            (Backend::Objects(objects), _) => {
                let overwritten = objects.overwritten;
                let reply = objects.apply(call);
                self.coverage.add(Event::Overwritten, objects.overwritten - overwritten);
                reply
            }
            (Backend::Files(_), Some(store)) => in_files(store, call),
            (Backend::Files(_), None) => Err(Error::new(ErrorKind::Internal, "a process without a file store")),
        };
        if is_counted {
            self.count_sweep(call, &reply, was_there);
        }
        if part == Part::Read && reply.is_ok() && matches!(call, Call::Read(key, _) if key.starts_with("moves/")) {
            self.coverage.count(Event::Followed);
        }
        match call.journal() {
            Some(journal) if reply.is_ok() || self.is_there(call.key()) => {
                self.came_to_journal(process, journal, &reply);
            }
            _ => {}
        }
        if let Err(error) = &reply {
            if error.kind() != ErrorKind::NotFound {
                self.processes[process].faults += 1;
            }
            self.note(|| format!("p{process} {call}: {error}"));
        }
        reply
    }

    /// Notes what a create in a journal came to.
    fn came_to_journal(&mut self, process: usize, journal: &str, reply: &Reply) {
        if matches!(reply, Ok(Answer::Created(Created::Exists))) {
            self.coverage.count(Event::Taken);
            return;
        }
        self.sequence += 1;
        let at = self.sequence;
        match self.processes[process].part {
            // Who was struck down in the midst of it, or whose disk failed, may have created it all the same.
            Part::Forget => self.forgot.push(Forgot { process, journal: journal.to_owned(), at }),
            Part::Write => {
                *self.commits.entry(journal.to_owned()).or_default() += 1;
                if reply.is_ok() {
                    self.committed.insert((process, journal.to_owned()), at);
                }
            }
            _ => {}
        }
    }

    fn is_there(&self, key: &str) -> bool {
        match &self.backend {
            Backend::Objects(objects) => objects.has(key),
            Backend::Files(machine) => machine.has(key),
        }
    }

    /// Nobody waits for the operation any more.
    pub(super) fn abandon(&mut self, id: u64) {
        let Some(operation) = self.operations.get_mut(&id) else { return };
        operation.is_abandoned = true;
        operation.waker = None;
        let is_over = operation.is_effective || !operation.call.is_write();
        let is_on_disk = matches!(self.backend, Backend::Files(_));
        // Whoever is killed does nothing more on its disk; in a network its request may be under way.
        let is_lost = match self.ending {
            Some(Manner::Power | Manner::Kill) if is_on_disk => true,
            _ => self.random.per_mille(200),
        };
        if is_over || is_lost {
            self.operations.remove(&id);
            return;
        }
        if !self.is_late_possible {
            let operation = self.operations.remove(&id);
            if let Some(operation) = operation {
                drop(self.apply(operation.process, &operation.call));
            }
            return;
        }
        let late = self.random.between(50, 100_000);
        let due = self.after(late, Due::Effect(id));
        if let Some(before) = self.operations.get_mut(&id).and_then(|operation| operation.due.replace(due)) {
            self.due.remove(&before);
        }
    }

    fn note(&mut self, line: impl FnOnce() -> String) {
        let now = self.now;
        if let Some(log) = &mut self.log {
            log.push(format!("{now:>9} {}", line()));
        }
    }
}

fn failure(fate: Fate) -> Error {
    match fate {
        Fate::Throttled => Error::new(ErrorKind::Throttled, "the store asks for fewer requests"),
        _ => Error::new(ErrorKind::Unavailable, format!("a fault of the simulation: {fate:?}")),
    }
}
