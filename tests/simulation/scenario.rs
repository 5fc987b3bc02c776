//! What happens to one seed's world, from an empty store to mail that is all there.

use crate::coverage::{Coverage, Event};
use crate::files::Machine;
use crate::mail::FOLDERS;
use crate::model::{APPENDED, PULLED};
use crate::objects::Conditions;
use crate::random::Random;
use crate::store::{self, Blow, Manner, Network, Phase, Point, Weather};
use crate::world::{World, now};
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

pub fn run(seed: u64, with_log: bool) -> Outcome {
    let mut random = Random::new(seed);
    let setting = match (seed % 2, random.below(100)) {
        (0, _) => Setting::Files,
        (_, 0..6) => Setting::Alone(Conditions::Ignored),
        (_, 6..12) => Setting::Alone(Conditions::Raced),
        (_, 12..20) => Setting::Crowded(Conditions::Ignored),
        (_, 20..32) => Setting::Crowded(Conditions::Raced),
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
        if self.world.random.per_mille(25) {
            self.lengthen()?;
        }
        let rounds = self.world.random.between(2, 3);
        for round in 0..rounds {
            if round > 0 && self.world.random.per_mille(650) {
                self.change();
            }
            self.round()?;
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

    fn round(&mut self) -> Result<(), String> {
        let (rows, late) = (self.rows, self.world.late());
        let failing = if self.world.random.per_mille(200) { 25 } else { 0 };
        self.machine.failing(failing);
        let tampered = self.world.network.tampered();
        let phase = self.phase();
        let processes = self.begin(phase);
        let blow = phase.and_then(|phase| self.blow(phase, &processes));
        self.world.network.strike(blow);
        let round = self.world.run()?;
        self.world.network.strike(None);
        self.machine.failing(0);
        let read_data = self.world.random.per_mille(100);
        let (check, _) = self.world.inspect(read_data)?;
        self.rows = check.messages;
        let is_exact = round.is_undisturbed && self.world.late() == late && self.world.network.tampered() == tampered;
        if is_exact && self.rows - rows != round.stored {
            return Err(format!(
                "runs say that they stored {} messages, and there were {rows}, and are {}",
                round.stored, self.rows
            ));
        }
        Ok(())
    }

    /// At what the round's blow is to fall, if there is to be one.
    fn phase(&mut self) -> Option<Phase> {
        let phases = [
            Phase::Intake,
            Phase::Pack,
            Phase::Pack,
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
            let weather = self.weather();
            processes.push(self.world.restore(weather));
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
            let weather = self.weather();
            processes.push(self.world.restore(weather));
        }
        if self.world.random.per_mille(100) {
            let weather = self.weather();
            processes.push(self.world.check(weather));
        }
        processes
    }

    fn push(&mut self, transfers: usize) -> usize {
        let weather = self.weather();
        self.world.push(transfers, weather)
    }

    fn append(&mut self) -> usize {
        let weather = self.weather();
        self.world.append(0, weather)
    }

    fn weather(&mut self) -> Weather {
        let random = &mut self.world.random;
        let mut weather = Weather { slow: random.below(30), ..Weather::default() };
        if random.per_mille(600) && !std::mem::take(&mut self.is_calm) {
            weather.faults = random.between(1, 3);
            let mut rate = |often: u64| if random.per_mille(500) { often } else { 0 };
            (weather.answer_lost, weather.late) = (rate(70), rate(40));
            (weather.throttled, weather.transient) = (rate(15), rate(12));
            (weather.short, weather.flipped) = (rate(20), rate(20));
        }
        weather
    }

    fn blow(&mut self, phase: Phase, processes: &[usize]) -> Option<Blow> {
        let random = &mut self.world.random;
        let process = *processes.first()?;
        let skip = match phase {
            Phase::Intake => random.below(14),
            Phase::Pack => random.below(2),
            Phase::Commit => random.below(5),
            Phase::Segment | Phase::Record => 0,
            Phase::Idle => random.below(2),
            Phase::Restore => random.below(7),
        };
        let point = match random.below(6) {
            0 => Point::Before,
            1 => Point::After,
            // Mostly between writing and syncing.
            2..4 => Point::Inside(2),
            _ => Point::Inside(random.below(14)),
        };
        let manner = match random.below(100) {
            0..35 => Manner::Kill,
            35..75 => Manner::Power,
            75..90 => Manner::Drop,
            _ => Manner::Stop,
        };
        Some(Blow { process, phase, skip, point, manner })
    }

    /// Nothing goes wrong any more: runs come to their end, nothing is there twice, and all is as in the sources.
    fn end(&mut self) -> Result<(), String> {
        let weather = Weather::default();
        self.world.append(0, weather);
        self.world.run()?;
        let late = self.world.late();
        self.world.push(1, weather);
        let round = self.world.run()?;
        if !round.is_undisturbed {
            return Err("a run without faults did not come to its end".to_owned());
        }
        self.world.drain();
        if self.world.late() > late {
            // What came late may have taken back flags and places.
            self.world.push_directly()?;
        }
        let (check, restored) = self.world.inspect(true)?;
        let rows_max = self.world.model.rows_max(self.world.late() > 0);
        if check.messages > rows_max {
            return Err(format!("there are {} rows for {rows_max} messages", check.messages));
        }
        let Some(engine) = self.world.engine()? else { return Err("there is no repository".to_owned()) };
        self.world.model.verify_exactly(&restored)?;
        let commits = self.world.network.keys("mailboxes/").len();
        let again = self.world.push_directly()?;
        if again.messages.stored > 0 || again.changes != Default::default() {
            return Err(format!("a run that has nothing to do does something: {again:?}"));
        }
        if self.world.network.keys("mailboxes/").len() != commits {
            return Err("a run that has nothing to do commits".to_owned());
        }
        self.measure()?;
        self.compare(&engine)
    }

    /// It was not too little: two mailboxes, two commits for each of them, two packs.
    fn measure(&self) -> Result<(), String> {
        let network = &self.world.network;
        let (commits, packs) = (network.keys("mailboxes/").len(), network.keys("packs/").len());
        let is_enough = commits >= 2 * self.world.mailboxes && packs > 1;
        if is_enough { Ok(()) } else { Err(format!("too little happened: {commits} commits, {packs} packs")) }
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
        let weather = Weather::default();
        if self.world.random.per_mille(500) {
            self.world.push_directly()?;
            self.change();
        }
        self.world.push(1, weather);
        self.world.push(1, weather);
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
        let restored = crate::world::restored(&engine)?;
        let is_noticed = !check.is_sound() || restored.report.failed > 0;
        if is_noticed { Ok(()) } else { Err(format!("a silent loss: {wrong}")) }
    }
}
