//! A repository in which much can go wrong, and what must be true of it whatever went on there.

use crate::common::{Delivered, delivered, push};
use crate::processes::Process;
use crate::world::{self, SOURCE, forget, keys, mail, name, sweep};
use futures::executor::block_on;
use mailrail::Engine;
use mailrail::message::Identity;
use mailrail::source::Memory;
use mailrail::store::MemoryStore;
use mailrail::testing::ManualClock;
use mailrail::transfer::{Outcome, Settled};
use std::time::Duration;

/// A repository in which much can go wrong: mail of a forgotten mailbox, content of which comes again; the pack of a writer who died; mail that lives.
pub(crate) struct Scene {
    pub(crate) store: MemoryStore,
    pub(crate) clock: ManualClock,
    /// Has the forgotten mail in its index if it is a veteran.
    pub(crate) writer: Process,
    /// What the writer is to push: what lives, and what is new.
    pub(crate) source: Memory,
    living: Delivered,
    all: Delivered,
}

impl Scene {
    pub(crate) fn new(is_veteran: bool) -> Self {
        let store = MemoryStore::new();
        let clock = ManualClock::new(Duration::from_secs(1_800_000_000));
        let mut writer = Process::new(&store, &clock, 1);
        let (old, source) = (Memory::new(SOURCE), Memory::new(SOURCE));
        mail(&old, "old", &[1, 2]);
        push(&writer.engine, old);
        let living = mail(&source, "alice", &[11, 12]);
        push(&writer.engine, source.clone());
        // A writer who dies with a pack written and nothing committed.
        let dead = Process::new(&store, &clock, 2);
        let lost = Memory::new(SOURCE);
        mail(&lost, "dead", &[21]);
        let packs = keys(&store, "packs/").len();
        let mut transfer = dead.transfer(&lost);
        assert!(dead.drive_until(&mut transfer, || keys(&store, "packs/").len() > packs));
        drop(transfer);
        forget(&world::process(&store, &clock, 3), "old");
        if !is_veteran {
            writer = Process::new(&store, &clock, 4);
        }
        let mut all = living.clone();
        all.extend(mail(&source, "alice", &[1, 31]));
        all.extend(mail(&source, "carol", &[2, 12, 32]));
        Self { store, clock, writer, source, living, all }
    }

    pub(crate) fn process(&self, seed: u64) -> Engine {
        world::process(&self.store, &self.clock, seed)
    }

    /// That everything acknowledged is there and sound; that the rest can be pushed; and that no garbage stays.
    pub(crate) fn verify(&self, outcomes: &[Outcome], what: &str) {
        let engine = self.process(900);
        let (found, report) = delivered(&engine);
        assert_eq!(report.failed, 0, "{what}: {report:#?}");
        for (key, octets) in &self.living {
            assert!(found.get(key) == Some(octets), "{what}: {key:?} is lost");
        }
        for outcome in outcomes.iter().filter(|outcome| matches!(outcome.settled, Settled::Stored { .. })) {
            let Identity::Named(name) = &outcome.identity else { panic!("{what}: no name") };
            let text = |octets: &[u8]| String::from_utf8_lossy(octets).into_owned();
            let key = (outcome.mailbox.to_string(), text(&outcome.folder), text(name));
            assert!(found.contains_key(&key), "{what}: {key:?} was acknowledged and is lost");
        }
        let check = block_on(engine.check().read_data(true).finish()).unwrap();
        assert!(check.is_sound(), "{what}: {check:#?}");
        let next = push(&engine, self.source.clone());
        assert!(next.is_complete(), "{what}");
        let (found, report) = delivered(&engine);
        assert_eq!(report.failed, 0, "{what}: {report:#?}");
        assert!(found == self.all, "{what}: {:?}", found.keys());
        // The writers that were about may have died: their packs go with the second sweep.
        for seed in 901..903 {
            sweep(&self.process(seed));
        }
        let last = sweep(&self.process(904));
        assert_eq!((last.bytes_freed(), last.epoch, last.spared.objects), (0, 0, 0), "{what}: {last:#?}");
        let check = block_on(self.process(905).check().read_data(true).finish()).unwrap();
        assert!(check.is_sound() && check.orphans == 0, "{what}: {check:#?}");
        assert!(delivered(&self.process(906)).0 == self.all, "{what}");
    }

    pub(crate) fn forget_if_there(&self, mailbox: &str) {
        let engine = self.process(800);
        if block_on(engine.repository().mailboxes()).unwrap().contains(&name(mailbox)) {
            forget(&engine, mailbox);
        }
    }

    /// Forgets a mailbox, which must be there with a message at least, and all others sound.
    pub(crate) fn forget_what_is_there(&self, mailbox: &str, what: &str) {
        let engine = self.process(810);
        let (found, report) = delivered(&engine);
        assert_eq!(report.failed, 0, "{what}: {report:#?}");
        assert!(found.keys().any(|(found, ..)| found == mailbox), "{what}");
        forget(&engine, mailbox);
    }
}
