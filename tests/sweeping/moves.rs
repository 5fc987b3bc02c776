//! Packs that are mostly dead: what is needed of them is written anew, and moves say where.

use crate::common::{self, Delivered, delivered, push};
use crate::processes::{Process, before_each_operation};
use crate::world::{self, SOURCE, forget, keys, mail, process, resources, sweep};
use futures::TryStreamExt;
use futures::executor::block_on;
use mailrail::source::Memory;
use mailrail::store::{Listed, MemoryStore, Store};
use mailrail::testing::ManualClock;
use mailrail::{Engine, Settings};
use std::sync::Arc;
use std::time::Duration;

/// A repository with packs of which little is needed: what is kept was pushed together with what was forgotten, and content of that came again.
struct MostlyDead {
    store: MemoryStore,
    clock: ManualClock,
    expected: Delivered,
    /// What has been pushed and is not forgotten.
    source: Memory,
}

impl MostlyDead {
    fn new() -> Self {
        let store = MemoryStore::new();
        let clock = ManualClock::new(Duration::from_secs(1_800_000_000));
        let (all, source) = (Memory::new(SOURCE), Memory::new(SOURCE));
        mail(&all, "old", &[1, 2, 3, 4, 5, 6, 7, 8, 9]);
        mail(&all, "kept", &[10]);
        let mut expected = mail(&source, "kept", &[10]);
        push(&common::engine(Arc::new(store.clone()), &clock, resources(), Settings::default(), 1), all);
        expected.extend(mail(&source, "other", &[3]));
        push(&process(&store, &clock, 2), source.clone());
        forget(&process(&store, &clock, 3), "old");
        Self { store, clock, expected, source }
    }

    fn process(&self, seed: u64) -> Engine {
        world::process(&self.store, &self.clock, seed)
    }

    fn bytes(&self, prefix: &str) -> u64 {
        let listed: Vec<Listed> = block_on(self.store.list(prefix).try_collect()).unwrap();
        listed.iter().map(|object| object.length).sum()
    }

    fn assert_whole(&self, seed: u64, what: &str) -> mailrail::check::CheckReport {
        let (found, report) = delivered(&self.process(seed));
        assert_eq!(report.failed, 0, "{what}: {report:#?}");
        assert!(found == self.expected, "{what}: {:?}", found.keys());
        let check = block_on(self.process(seed + 1).check().read_data(true).finish()).unwrap();
        assert!(check.is_sound(), "{what}: {check:#?}");
        check
    }
}

#[test]
fn what_is_needed_of_a_mostly_dead_pack_is_written_anew_and_the_pack_goes() {
    let scene = MostlyDead::new();
    let (packs, octets) = (keys(&scene.store, "packs/"), scene.bytes("packs/"));
    let untouched = block_on(scene.process(10).sweep().needed_percent_min(0).dry_run(true).finish()).unwrap();
    assert_eq!((untouched.mostly_dead.objects, untouched.moved_packs.objects), (0, 0));
    let swept = sweep(&scene.process(11));
    assert_eq!((swept.moved_packs, swept.written_packs.objects), (swept.mostly_dead, 1), "{swept:#?}");
    assert!(swept.moved_packs.objects > 0 && scene.bytes("packs/") < octets / 2, "{swept:#?}");
    assert!(keys(&scene.store, "packs/").iter().filter(|pack| packs.contains(pack)).count() < packs.len());
    let check = scene.assert_whole(12, "swept");
    assert_eq!((check.moved, check.healed, check.orphans, check.marked), (swept.moved_packs.objects, 0, 0, 0));
    // It is no damage, nothing is pushed again, and what is pushed elsewhere finds the content where it is now.
    let marked = block_on(scene.process(14).check().mark_bad(true).finish()).unwrap();
    let repaired = block_on(scene.process(15).repair().read_data(true).finish()).unwrap();
    assert_eq!((marked.marked, repaired.packs_bad, repaired.packs_written, repaired.blobs_found), (0, 0, 0, 0));
    assert_eq!(push(&scene.process(16), scene.source.clone()).messages.unchanged, 2);
    let again = Memory::new(SOURCE);
    mail(&again, "again", &[3, 10]);
    assert_eq!(push(&scene.process(17), again).bytes.duplicate, 2 * 40_000);
    forget(&scene.process(18), "again");
    assert_eq!(sweep(&scene.process(19)).written_packs.objects, 0, "nothing is mostly dead");
    scene.assert_whole(20, "pushed and forgotten again");
    // Without the moves everything is found by its digest.
    for key in keys(&scene.store, "moves/") {
        block_on(scene.store.delete(&key)).unwrap();
    }
    assert!(delivered(&scene.process(30)).1.failed > 0);
    let sink = mailrail::testing::sink::Memory::new(mailrail::source::Kind::Other("memory".into()));
    let recovered = block_on(scene.process(31).recover(sink).finish()).unwrap();
    assert_eq!((recovered.restored, recovered.failed), (2, 0), "{recovered:#?}");
    assert!(block_on(scene.process(32).repair().finish()).unwrap().is_whole());
    scene.assert_whole(33, "repaired");
}

#[test]
fn what_was_moved_is_moved_on_and_goes_when_nobody_needs_it() {
    let mut scene = MostlyDead::new();
    sweep(&scene.process(10));
    for round in 0..20_u64 {
        // More mail comes and goes, and takes most of a pack with it that holds what was moved: all packs are mostly dead then.
        let passing = Memory::new(SOURCE);
        mail(&passing, "passing", &(100..140).map(|content| content + round * 100).collect::<Vec<_>>());
        let engine =
            common::engine(Arc::new(scene.store.clone()), &scene.clock, resources(), Settings::default(), 50 + round);
        push(&engine, passing);
        let all = block_on(scene.process(100 + round).sweep().needed_percent_min(100).finish()).unwrap();
        forget(&scene.process(200 + round), "passing");
        sweep(&scene.process(300 + round));
        scene.assert_whole(400 + round, &format!("round {round}: {all:#?}"));
    }
    forget(&scene.process(500), "kept");
    scene.expected.retain(|(mailbox, ..), _| mailbox != "kept");
    sweep(&scene.process(501));
    scene.assert_whole(502, "one is forgotten");
    forget(&scene.process(510), "other");
    sweep(&scene.process(511));
    let left = |prefix: &str| keys(&scene.store, prefix);
    assert_eq!((left("packs/"), left("moves/"), left("index/")), (vec![], vec![], vec![]));
    let last = sweep(&scene.process(512));
    assert_eq!((last.epoch, last.bytes_freed()), (0, 0), "{last:#?}");
}

#[test]
fn a_sweep_that_dies_anywhere_while_it_writes_anew_loses_nothing_and_the_next_ends_it() {
    let operations = before_each_operation(|at| {
        let scene = MostlyDead::new();
        let what = format!("died before operation {at}");
        let sweeper = Process::new(&scene.store, &scene.clock, 5);
        let asleep = sweeper.asleep_after(at, sweeper.sweep());
        let is_over = asleep.is_done();
        drop(asleep);
        scene.assert_whole(20, &what);
        for seed in 30..32 {
            sweep(&scene.process(seed));
        }
        let last = sweep(&scene.process(33));
        assert_eq!((last.epoch, last.mostly_dead.objects), (0, 0), "{what}: {last:#?}");
        let check = scene.assert_whole(40, &what);
        assert_eq!(check.orphans, 0, "{what}: {check:#?}");
        is_over
    });
    assert!(operations > 40, "{operations} operations");
}

#[test]
fn a_sweeper_that_sleeps_while_it_writes_anew_and_writers_and_sweepers_run_moves_nothing_away_from_anybody() {
    let mut pardoned = 0;
    let operations = before_each_operation(|at| {
        let mut scene = MostlyDead::new();
        let what = format!("others before operation {at}");
        let writer = Process::new(&scene.store, &scene.clock, 6);
        // It has the index, and finds content there that nobody else needs.
        let first = Memory::new(SOURCE);
        scene.expected.extend(mail(&first, "first", &[501]));
        push(&writer.engine, first.clone());
        let sweeper = Process::new(&scene.store, &scene.clock, 5);
        let asleep = sweeper.asleep_after(at, sweeper.sweep());
        let hits = Memory::new(SOURCE);
        scene.expected.extend(mail(&hits, "hits", &[3, 4, 5]));
        push(&writer.engine, hits.clone());
        if at % 2 == 0 {
            sweep(&scene.process(7));
        }
        let is_over = asleep.is_done();
        let swept = asleep.wake().unwrap();
        pardoned += swept.pardoned;
        // What was dropped comes again.
        push(&scene.process(8), hits);
        scene.assert_whole(20, &what);
        for seed in 30..33 {
            sweep(&scene.process(seed));
        }
        let last = sweep(&scene.process(33));
        assert_eq!((last.epoch, last.mostly_dead.objects), (0, 0), "{what}: {last:#?}");
        let check = scene.assert_whole(40, &what);
        assert_eq!(check.orphans, 0, "{what}: {check:#?}");
        is_over
    });
    assert!(operations > 40 && pardoned > 0, "{operations} operations, {pardoned} pardoned");
}

#[test]
fn a_writer_that_sleeps_while_what_it_is_about_to_point_at_is_written_anew_loses_nothing() {
    for sweeps in [1, 2] {
        let operations = before_each_operation(|at| {
            let mut scene = MostlyDead::new();
            let what = format!("{sweeps} sweeps before operation {at}");
            let writer = Process::new(&scene.store, &scene.clock, 6);
            let hits = Memory::new(SOURCE);
            scene.expected.extend(mail(&hits, "hits", &[3, 4, 5, 10]));
            let asleep = writer.asleep_after(at, writer.transfer(&hits));
            for number in 0..sweeps {
                sweep(&scene.process(50 + number));
            }
            let is_over = asleep.is_done();
            let (report, _) = asleep.wake();
            report.ledger.verify().unwrap();
            push(&scene.process(8), hits);
            scene.assert_whole(20, &what);
            for seed in 30..33 {
                sweep(&scene.process(seed));
            }
            let check = scene.assert_whole(40, &what);
            assert_eq!(check.orphans, 0, "{what}: {check:#?}");
            is_over
        });
        assert!(operations > 15, "{operations} operations");
    }
}

#[test]
fn a_mostly_dead_pack_that_is_damaged_stays() {
    let scene = MostlyDead::new();
    let pack = keys(&scene.store, "packs/").remove(0);
    // Every frame of it.
    let mut octets = block_on(scene.store.read(&pack, None)).unwrap().to_vec();
    let end = octets.len() - 2000;
    octets[60..end].iter_mut().step_by(500).for_each(|octet| *octet ^= 1);
    block_on(scene.store.put(&pack, octets.into())).unwrap();
    sweep(&scene.process(10));
    assert!(keys(&scene.store, "packs/").contains(&pack));
    assert!(!block_on(scene.process(11).check().read_data(true).finish()).unwrap().is_sound());
}
