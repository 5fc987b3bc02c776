//! What happens to one seed's world, from an empty store to mail that is all there.

use crate::coverage::{Coverage, Event};
use crate::files::Machine;
use crate::mail::FOLDERS;
use crate::model::{APPENDED, PULLED};
use crate::objects::Conditions;
use crate::process::Which;
use crate::random::Random;
use crate::store::{self, Blow, Manner, Network, Phase, Point, Weather};
use crate::world::{Push, Start, World, now};
use mailrail::{Key, Protection};
use std::panic::{AssertUnwindSafe, catch_unwind};

/// What came of a seed.
pub struct Outcome {
    pub coverage: Coverage,
    /// What was violated.
    pub result: Result<(), String>,
    pub log: Vec<String>,
}

/// What kind of a store, and so of a story, a seed gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Setting {
    Files,
    Objects,
    /// An object store whose conditional writes do not hold, with one writer at a time.
    Alone(Conditions),
    /// The same with several writers, which is not allowed: what is lost must be noticed.
    Crowded(Conditions),
}

/// How many rounds there are in which things go wrong.
const ROUNDS: usize = 4;

pub fn run(seed: u64, with_log: bool) -> Outcome {
    let mut random = Random::new(seed);
    let setting = match (seed % 2, random.below(100)) {
        (0, _) => Setting::Files,
        (_, 0..5) => Setting::Alone(Conditions::Ignored),
        (_, 5..10) => Setting::Alone(Conditions::Raced),
        (_, 10..20) => Setting::Crowded(Conditions::Ignored),
        (_, 20..38) => Setting::Crowded(Conditions::Raced),
        _ => Setting::Objects,
    };
    let machine = Machine::new(random.next());
    let backend = match setting {
        Setting::Files => store::files(&machine),
        Setting::Objects => store::objects(Conditions::Hold),
        Setting::Alone(conditions) | Setting::Crowded(conditions) => store::objects(conditions),
    };
    let is_late_possible = matches!(setting, Setting::Files | Setting::Objects);
    let network = Network::new(random.next(), backend, is_late_possible, with_log);
    let result = catch_unwind(AssertUnwindSafe(|| {
        let protection = if random.per_mille(300) { Protection::Key(Key::new([7; 32])) } else { Protection::None };
        let mailboxes = random.between(2, 3) as usize;
        let world = World::new(seed, random, network.clone(), protection, mailboxes);
        network.log(|| format!("{setting:?}, {mailboxes} mailboxes"));
        let mut story = Story { world, machine, setting, is_calm: false, rows: 0 };
        match setting {
            Setting::Crowded(_) => story.crowded(),
            _ => story.told(),
        }
    }));
    let result = result.unwrap_or_else(|_| Err("a panic".to_owned()));
    let (coverage, log) = network.finish();
    Outcome { coverage, result, log }
}

struct Story {
    world: World,
    machine: Machine,
    setting: Setting,
    /// The next process is to come to its end.
    is_calm: bool,
    /// How many rows the journals had after the last round.
    rows: u64,
}

impl Story {
    /// Rounds in which things go wrong, and then an end in which nothing does.
    fn told(&mut self) -> Result<(), String> {
        self.populate();
        if self.world.random.per_mille(160) {
            self.lengthen()?;
        }
        for round in 0..ROUNDS {
            if round > 0 && self.world.random.per_mille(650) {
                self.change();
            }
            self.round(round > 0)?;
        }
        self.end()
    }

    /// Two or three mailboxes with twenty messages between them, give or take.
    fn populate(&mut self) {
        let World { random, model, mailboxes, network, .. } = &mut self.world;
        // At least six each, so that each has two commits.
        let messages = random.between((6 * *mailboxes as u64).max(13), 22);
        for number in 0..messages {
            model.add(number as usize % *mailboxes, PULLED, random);
            network.count(Event::New);
        }
        for _ in 0..random.between(2, 4) {
            model.add(0, APPENDED, random);
        }
    }

    /// A mailbox whose journal is so long that the next commits are checkpoints.
    fn lengthen(&mut self) -> Result<(), String> {
        let World { random, model, network, commit_messages, .. } = &mut self.world;
        network.count(Event::LongJournal);
        *commit_messages = 1;
        for _ in 0..random.between(25, 40) {
            model.add_short(0, random);
        }
        self.world.push_directly()?;
        self.rows = self.world.inspect(false)?.0.messages;
        Ok(())
    }

    /// The source goes on living.
    fn change(&mut self) {
        let World { random, model, mailboxes, network, .. } = &mut self.world;
        model.advance();
        for _ in 0..random.between(1, 3) {
            let mailbox = random.below(*mailboxes as u64) as usize;
            model.add(mailbox, PULLED, random);
            network.count(Event::New);
        }
        for change in [Event::Flagged, Event::Flagged, Event::Moved, Event::Gone, Event::Changed] {
            let keys = model.pulled();
            if keys.is_empty() || random.per_mille(300) {
                continue;
            }
            let key = random.pick(&keys).clone();
            // Enough stay for two commits.
            if change == Event::Gone && keys.iter().filter(|(mailbox, _)| *mailbox == key.0).count() <= 5 {
                continue;
            }
            let (folder, bits) = (*random.pick(&FOLDERS), random.below(8) as u8);
            network.count(change);
            model.change(&key, |mut version| match change {
                Event::Gone => None,
                Event::Moved => {
                    version.folder = folder;
                    Some(version)
                }
                Event::Changed => {
                    version.rewrite(0, random);
                    Some(version)
                }
                _ => {
                    version.flags = bits;
                    Some(version)
                }
            });
        }
        for _ in 0..random.below(2) {
            model.add(0, APPENDED, random);
        }
    }

    fn round(&mut self, is_later: bool) -> Result<(), String> {
        let (rows, late, forgot) = (self.rows, self.world.late(), self.world.forgot());
        let failing = if self.world.random.per_mille(400) { 36 } else { 0 };
        let is_sweeping = self.is_lawful() && self.world.random.per_mille(if is_later { 900 } else { 100 });
        let mut stored = 0;
        if is_sweeping && is_later {
            if self.world.random.per_mille(750) {
                // So that all of it is known.
                stored = self.world.push_directly()?.messages.stored;
            }
            if self.world.random.per_mille(900) {
                let which = self.which();
                self.world.forget_directly(which)?;
            }
        }
        self.machine.failing(failing);
        let tampered = self.world.network.tampered();
        let phase = self.phase();
        let processes = self.begin(phase);
        let mut blows: Vec<Blow> = phase.and_then(|phase| self.blow(phase, &processes)).into_iter().collect();
        if is_sweeping {
            self.begin_sweeping(&mut blows);
        }
        self.world.network.strike(blows);
        let round = self.world.run()?;
        self.world.network.strike(Vec::new());
        self.machine.failing(0);
        let read_data = self.world.random.per_mille(100);
        let (check, restored) = self.world.inspect(read_data)?;
        self.rows = check.messages;
        let is_exact = round.is_undisturbed
            && self.world.late() == late
            && self.world.forgot() == forgot
            && self.world.network.tampered() == tampered;
        let more = self.rows.saturating_sub(rows + stored);
        if is_exact && !(round.stored..=round.stored + round.quarantined).contains(&more) {
            return Err(format!(
                "runs say that they stored {} messages, and there were {rows}, and are {}",
                round.stored, self.rows
            ));
        }
        if self.world.random.per_mille(250) {
            self.world.look_back()?;
        }
        let time = self.world.network.rest();
        self.world.history.remember(time, restored);
        Ok(())
    }

    /// Whether several may write.
    fn is_lawful(&self) -> bool {
        matches!(self.setting, Setting::Files | Setting::Objects)
    }

    /// What is to be forgotten: mostly a mailbox.
    fn which(&mut self) -> Which {
        let World { random, mailboxes, history, network, .. } = &mut self.world;
        let times = history.times();
        if random.per_mille(700) || times.is_empty() {
            return Which::Mailbox(random.below(*mailboxes as u64) as usize);
        }
        Which::Before(if random.per_mille(500) { *random.pick(&times) } else { network.time() })
    }

    /// At what the round's blow is to fall, if there is to be one.
    fn phase(&mut self) -> Option<Phase> {
        let phases = [
            Phase::Intake,
            Phase::Pack,
            Phase::Pack,
            Phase::Commit,
            Phase::Commit,
            Phase::Commit,
            Phase::Segment,
            Phase::Segment,
            Phase::Record,
            Phase::Idle,
            Phase::Restore,
            Phase::Restore,
        ];
        let random = &mut self.world.random;
        random.per_mille(880).then(|| *random.pick(&phases))
    }

    /// Begins the processes of a round, and gives their numbers: first the one that the blow is to fall on.
    fn begin(&mut self, phase: Option<Phase>) -> Vec<usize> {
        let mut processes = Vec::new();
        if phase == Some(Phase::Restore) {
            let start = self.start();
            processes.push(self.world.restore(start));
        }
        // What comes last must be come to.
        self.is_calm = matches!(phase, Some(Phase::Segment | Phase::Record | Phase::Idle));
        let draw = self.world.random.below(100);
        match draw {
            _ if matches!(self.setting, Setting::Alone(_)) => processes.push(self.push(1)),
            0..40 => processes.push(self.push(1)),
            40..60 => {
                self.world.network.count(Event::TwoWriters);
                processes.extend([self.push(1), self.push(1)]);
            }
            60..75 => {
                self.world.network.count(Event::TwoSources);
                processes.extend([self.push(1), self.append()]);
            }
            75..87 => {
                self.world.network.count(Event::TwoTransfers);
                processes.push(self.push(2));
            }
            87..95 => processes.push(self.append()),
            _ => {
                self.world.network.count(Event::TwoWriters);
                processes.extend([self.push(1), self.push(1), self.push(1)]);
            }
        }
        if self.world.random.per_mille(150) {
            let start = self.start();
            processes.push(self.world.restore(start));
        }
        if self.world.random.per_mille(100) {
            let start = self.start();
            processes.push(self.world.check(start));
        }
        processes
    }

    /// Begins processes that forget and sweep beside the others, and adds the blows that fall on them.
    fn begin_sweeping(&mut self, blows: &mut Vec<Blow>) {
        if self.world.random.per_mille(350) {
            let (which, start) = (self.which(), self.start());
            let process = self.world.forget(which, start);
            if self.world.random.per_mille(750) {
                blows.extend(self.blow(Phase::Forget, &[process]));
            }
        }
        if self.world.random.per_mille(250) {
            self.read_beside();
        }
        let phases = [
            Phase::Look,
            Phase::Look,
            Phase::Look,
            Phase::Rewrite,
            Phase::Rewrite,
            Phase::Rewrite,
            Phase::Rewrite,
            Phase::Rewrite,
            Phase::Rewrite,
            Phase::Rewrite,
            Phase::Rewrite,
            Phase::Mark,
            Phase::Mark,
            Phase::Mark,
            Phase::Fence,
            Phase::Fence,
            Phase::Fence,
            Phase::ReadAgain,
            Phase::ReadAgain,
            Phase::ReadAgain,
            Phase::ReadAgain,
            Phase::Verdict,
            Phase::Verdict,
            Phase::Verdict,
            Phase::Verdict,
            Phase::Delete,
            Phase::Delete,
            Phase::Delete,
            Phase::Delete,
            Phase::Done,
            Phase::Done,
            Phase::Done,
            Phase::Done,
            Phase::Tidy,
            Phase::Tidy,
            Phase::Tidy,
        ];
        // Two that begin at the same time want to be the same sweep.
        let delay = self.world.random.below(40_000);
        for _ in 0..if self.world.random.per_mille(800) { 2 } else { 1 } {
            let mut start = self.start();
            if self.world.random.per_mille(500) {
                start.delay = delay;
            }
            let sweeps = self.world.random.between(1, 3);
            let process = self.world.sweep(sweeps, start);
            if self.world.random.per_mille(850) {
                let phase = *self.world.random.pick(&phases);
                blows.extend(self.blow(phase, &[process]));
            }
        }
    }

    /// Begins a restore or check that sleeps in the midst of it, and a process that forgets meanwhile.
    fn read_beside(&mut self) {
        let random = &mut self.world.random;
        let weather = Weather { stall: Some(random.between(6, 24)), ..Weather::default() };
        let start = Start { weather, delay: 0 };
        let is_restore = random.per_mille(700);
        let delay = random.between(5_000, 15_000);
        if is_restore {
            self.world.restore(start);
        } else {
            self.world.check(start);
        }
        let which = self.which();
        self.world.forget(which, Start { weather: Weather::default(), delay });
    }

    fn push(&mut self, transfers: usize) -> usize {
        let start = self.start();
        let random = &mut self.world.random;
        let again = random.per_mille(350).then(|| random.below(30_000));
        let is_failing = random.per_mille(200);
        if again.is_some() {
            self.world.network.count(Event::Veteran);
        }
        self.world.push(start, Push { transfers, again, is_failing })
    }

    fn append(&mut self) -> usize {
        let start = self.start();
        self.world.append(0, start)
    }

    fn start(&mut self) -> Start {
        let random = &mut self.world.random;
        let delay = if random.per_mille(400) { random.below(40_000) } else { 0 };
        let mut weather = Weather { slow: random.below(30), ..Weather::default() };
        // Mostly where a writer has found what is there already, and has not committed yet.
        let (first, last) = if random.per_mille(800) { (10, 24) } else { (1, 60) };
        weather.stall = random.per_mille(500).then(|| random.between(first, last));
        if random.per_mille(600) && !std::mem::take(&mut self.is_calm) {
            weather.faults = random.between(1, 3);
            let mut rate = |often: u64| if random.per_mille(500) { often } else { 0 };
            (weather.answer_lost, weather.late) = (rate(70), rate(60));
            (weather.throttled, weather.transient) = (rate(15), rate(12));
            (weather.short, weather.flipped) = (rate(20), rate(20));
        }
        Start { weather, delay }
    }

    fn blow(&mut self, phase: Phase, processes: &[usize]) -> Option<Blow> {
        let is_on_disk = self.setting == Setting::Files;
        let random = &mut self.world.random;
        let process = *processes.first()?;
        let skip = match phase {
            Phase::Intake => random.below(14),
            Phase::Pack => random.below(2),
            Phase::Commit => random.below(5),
            Phase::Segment | Phase::Record | Phase::Mark | Phase::Verdict | Phase::Done | Phase::Forget => 0,
            Phase::Idle => random.below(2),
            Phase::Restore => random.below(7),
            Phase::Look => random.below(25),
            Phase::Fence | Phase::ReadAgain | Phase::Tidy => random.below(6),
            Phase::Delete | Phase::Rewrite => random.below(3),
        };
        let point = match random.below(10) {
            0 => Point::Before,
            1 => Point::After,
            // Mostly between writing and syncing.
            2..7 => Point::Inside(2),
            7 => Point::Inside(random.between(3, 6)),
            _ => Point::Inside(random.below(14)),
        };
        let power = match (is_on_disk, phase.is_of_sweep()) {
            (true, false) => 60,
            (true, true) => 30,
            (false, _) => 15,
        };
        let manner = match random.below(100) {
            draw if draw < power => Manner::Power,
            ..75 => Manner::Kill,
            75..90 => Manner::Drop,
            _ => Manner::Stop,
        };
        Some(Blow { process, phase, skip, point, manner })
    }

    /// Nothing goes wrong any more: runs come to their end, nothing is there twice, and all is as in the sources.
    fn end(&mut self) -> Result<(), String> {
        self.world.lasting.clear();
        self.move_all()?;
        if self.measure().is_err() {
            // A run whose operations take no time may put a mailbox into one commit.
            self.world.model.advance();
            for mailbox in 0..self.world.mailboxes {
                self.world.model.add(mailbox, PULLED, &mut self.world.random);
            }
            self.move_all()?;
        }
        let (check, restored) = self.world.inspect(true)?;
        let rows_max = self.world.model.rows_max(self.world.late() > 0) + self.world.faulted();
        if check.messages > rows_max {
            return Err(format!("there are {} rows for {rows_max} messages", check.messages));
        }
        let Some(engine) = self.world.engine()? else { return Err("there is no repository".to_owned()) };
        self.world.model.verify_exactly(&restored)?;
        self.find_nothing_to_do()?;
        self.measure()?;
        self.compare(&engine)?;
        if self.is_lawful() {
            self.clear_away()?;
        }
        Ok(())
    }

    /// Runs in which nothing goes wrong.
    fn move_all(&mut self) -> Result<(), String> {
        let start = Start::default();
        let push = Push { transfers: 1, again: None, is_failing: false };
        for _ in 0..3 {
            let (late, forgot) = (self.world.late(), self.world.forgot());
            self.world.append(0, start);
            let appended = self.world.run()?;
            self.world.push(start, push);
            let round = self.world.run()?;
            if !round.is_undisturbed {
                return Err("a run without faults did not come to its end".to_owned());
            }
            self.world.drain();
            // What came late may have taken back flags and places, or what was pushed; or it may be a sweep's mark.
            if (self.world.late(), self.world.forgot()) == (late, forgot)
                && round.is_complete
                && appended.is_undisturbed
            {
                return Ok(());
            }
        }
        Err("runs without faults are not complete".to_owned())
    }

    fn find_nothing_to_do(&mut self) -> Result<(), String> {
        let commits = self.world.network.keys("mailboxes/").len();
        let again = self.world.push_directly()?;
        if again.messages.stored > 0 || again.changes != Default::default() {
            return Err(format!("a run that has nothing to do does something: {again:?}"));
        }
        if self.world.network.keys("mailboxes/").len() != commits {
            return Err("a run that has nothing to do commits".to_owned());
        }
        Ok(())
    }

    /// Nobody disturbs the sweeps any more: nothing stays that nobody needs, and what is needed stays.
    fn clear_away(&mut self) -> Result<(), String> {
        self.sweep_twice()?;
        let (check, restored) = self.world.inspect(true)?;
        if check.orphans > 0 {
            return Err(format!("{} packs that nobody needs stay", check.orphans));
        }
        self.world.model.verify_exactly(&restored)?;
        self.find_nothing_to_do()?;
        self.world.look_back()?;
        if !self.world.random.per_mille(250) {
            return Ok(());
        }
        (0..self.world.mailboxes).try_for_each(|mailbox| self.world.forget_directly(Which::Mailbox(mailbox)))?;
        self.sweep_twice()?;
        let (packs, commits) = (self.world.network.keys("packs/").len(), self.world.network.keys("mailboxes/").len());
        // A commit that says that all is forgotten, and a fence for the sake of who died.
        if packs > 0 || commits > 2 * self.world.mailboxes {
            return Err(format!("all is forgotten, and {packs} packs and {commits} commits stay"));
        }
        self.world.inspect(false)?;
        self.world.look_back()?;
        self.move_all()?;
        let (_, restored) = self.world.inspect(true)?;
        self.world.model.verify_exactly(&restored)
    }

    /// The first sweep fences the writers that died, the second takes what they left; the third finds nothing.
    fn sweep_twice(&mut self) -> Result<(), String> {
        self.world.sweep_directly()?;
        self.world.sweep_directly()?;
        let last = self.world.sweep_directly()?;
        let is_idle = (last.epoch, last.resumed, last.bytes_freed(), last.spared.objects) == (0, 0, 0, 0);
        if is_idle { Ok(()) } else { Err(format!("a sweep that has nothing to do does something: {last:?}")) }
    }

    /// It was not too little: two mailboxes, two commits for each of them, two packs.
    fn measure(&self) -> Result<(), String> {
        let network = &self.world.network;
        let (commits, packs) = (network.commits(), network.keys("packs/").len());
        let is_enough = commits.iter().filter(|commits| **commits >= 2).count() == self.world.mailboxes && packs > 1;
        if is_enough { Ok(()) } else { Err(format!("too little happened: {commits:?} commits, {packs} packs")) }
    }

    /// The comparison, which knows one source only, agrees.
    fn compare(&self, engine: &mailrail::Engine) -> Result<(), String> {
        let source = self.world.model.source(self.world.mailboxes);
        let report = now(engine.compare(source).finish())?;
        let appended = self.world.model.appended() as u64;
        let is_same = report.same == self.world.messages().len() as u64
            && (report.missing, report.different, report.changed, report.moved) == (0, 0, 0, 0)
            && report.extra == appended;
        if is_same { Ok(()) } else { Err(format!("a comparison does not agree: {report:?}")) }
    }

    /// Several writers where conditional writes do not hold: all end in good order, so whatever is lost must be noticed.
    fn crowded(&mut self) -> Result<(), String> {
        self.populate();
        self.world.is_lawless = true;
        if self.world.random.per_mille(500) {
            self.world.push_directly()?;
            self.change();
        }
        for _ in 0..3 {
            self.world.push(Start::default(), Push { transfers: 1, again: None, is_failing: false });
        }
        let round = self.world.run();
        let is_told = !round?.is_undisturbed;
        let sound = self.world.inspect(false);
        match (sound, is_told) {
            (Ok(_), _) => Ok(()),
            (Err(_), true) => {
                self.world.network.count(Event::DetectedLoss);
                Ok(())
            }
            (Err(wrong), false) => self.noticed(wrong),
        }
    }

    /// Whether a check, or a restore, notices that something is wrong.
    fn noticed(&mut self, wrong: String) -> Result<(), String> {
        self.world.network.count(Event::DetectedLoss);
        let Some(engine) = self.world.engine()? else { return Err(wrong) };
        let check = now(engine.check().finish())?;
        let restored = crate::world::restored(&engine, None)?;
        let is_noticed = !check.is_sound() || restored.report.failed > 0;
        if is_noticed { Ok(()) } else { Err(format!("a silent loss: {wrong}")) }
    }
}
