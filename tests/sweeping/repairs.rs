//! Damage and sweeps: what a sweep refuses, what a repair promises beside sweeps, and what is no damage.

use crate::common::{self, Delivered, Driven, World, delivered, push};
use crate::processes::{Process, before_each_operation};
use crate::scene::Scene;
use crate::world::{self, SOURCE, forget, keys, mail, name, process, resources, settings, sweep};
use futures::executor::block_on;
use mailrail::message::Identity;
use mailrail::source::Memory;
use mailrail::store::{MemoryStore, Store};
use mailrail::testing::ManualClock;
use mailrail::{Engine, ErrorKind};
use std::sync::Arc;
use std::time::Duration;

/// Changes an octet in the middle of an object.
fn flip(store: &MemoryStore, key: &str) {
    let mut octets = block_on(store.read(key, None)).unwrap().to_vec();
    let middle = octets.len() / 2;
    octets[middle] ^= 1;
    block_on(store.put(key, octets.into())).unwrap();
}

/// A repository of which one pack is damaged, with content that comes from a push that read everything again: nothing leads there before a repair.
struct Damaged {
    store: MemoryStore,
    clock: ManualClock,
    expected: Delivered,
    pack: String,
}

impl Damaged {
    fn new() -> Self {
        let store = MemoryStore::new();
        let clock = ManualClock::new(Duration::from_secs(1_800_000_000));
        let (kept, other) = (Memory::new(SOURCE), Memory::new(SOURCE));
        let expected = mail(&kept, "kept", &[1, 2, 3]);
        push(&process(&store, &clock, 1), kept.clone());
        let pack = keys(&store, "packs/").pop().unwrap();
        mail(&other, "other", &[11, 12]);
        push(&process(&store, &clock, 2), other);
        flip(&store, &pack);
        let found = block_on(process(&store, &clock, 3).check().read_data(true).mark_bad(true).finish()).unwrap();
        assert_eq!(found.marked, 1, "{found:#?}");
        clock.advance(Duration::from_secs(60));
        let mut again = settings();
        again.reread = true;
        push(&common::engine(Arc::new(store.clone()), &clock, resources(), again, 4), kept);
        Self { store, clock, expected, pack }
    }

    fn process(&self, seed: u64) -> Engine {
        world::process(&self.store, &self.clock, seed)
    }

    fn assert_whole(&self, seed: u64, what: &str) {
        let (mut found, report) = delivered(&self.process(seed));
        assert_eq!(report.failed, 0, "{what}: {report:#?}");
        found.retain(|(mailbox, ..), _| mailbox == "kept");
        assert!(found == self.expected, "{what}: {:?}", found.keys());
        let check = block_on(self.process(seed + 1).check().read_data(true).finish()).unwrap();
        assert!(check.is_sound(), "{what}: {check:#?}");
    }
}

#[test]
fn what_only_moves_lead_to_stays_until_nobody_needs_the_pack_that_it_stands_for() {
    let damaged = Damaged::new();
    let repaired = block_on(damaged.process(5).repair().finish()).unwrap();
    assert!(repaired.is_whole() && repaired.blobs_found > 0, "{repaired:#?}");
    assert!(!keys(&damaged.store, "moves/").is_empty());
    forget(&damaged.process(6), "other");
    let swept = sweep(&damaged.process(7));
    assert!(swept.deleted_packs.objects > 0, "{swept:#?}");
    damaged.assert_whole(8, "after a sweep");
    assert!(keys(&damaged.store, "packs/").contains(&damaged.pack), "commits point at it");
    let repaired = block_on(damaged.process(10).repair().finish()).unwrap();
    assert_eq!((repaired.is_whole(), repaired.blobs_found, repaired.packs_written), (true, 0, 0), "{repaired:#?}");
    forget(&damaged.process(11), "kept");
    sweep(&damaged.process(12));
    sweep(&damaged.process(13));
    let left = |prefix: &str| keys(&damaged.store, prefix);
    assert_eq!((left("packs/"), left("moves/"), left("bad/")), (vec![], vec![], vec![]));
    assert!(block_on(damaged.process(14).check().read_data(true).finish()).unwrap().is_sound());
}

#[test]
fn a_repair_that_sleeps_before_any_of_its_operations_while_sweeps_run_promises_nothing_that_is_not_there() {
    for sweeps in [1, 2] {
        let (mut fenced, mut whole) = (0, 0);
        let operations = before_each_operation(|at| {
            let damaged = Damaged::new();
            let what = format!("{sweeps} sweeps before operation {at}");
            let sleeper = Process::new(&damaged.store, &damaged.clock, 5);
            let engine = sleeper.engine.clone();
            let asleep = sleeper.asleep_after(at, Driven::new(async move { engine.repair().finish().await }));
            for number in 0..sweeps {
                sweep(&damaged.process(500 + number));
            }
            let is_over = asleep.is_done();
            match asleep.wake() {
                Ok(report) if report.is_whole() => {
                    whole += 1;
                    damaged.assert_whole(20, &what);
                }
                // The sweep took what only the second push had stored, before anything led there.
                Ok(report) => assert!(report.blobs_lost > 0, "{what}: {report:#?}"),
                Err(error) => {
                    fenced += 1;
                    assert_eq!(error.kind(), ErrorKind::Unavailable, "{what}: {error}");
                }
            }
            is_over
        });
        assert!(operations > 20 && fenced > 3 && whole > 0, "{operations} operations, {fenced} fenced, {whole} whole");
    }
}

#[test]
fn a_sweep_refuses_where_a_journal_is_damaged_for_what_cannot_be_read_may_need_anything() {
    let world = World::inline();
    let source = Memory::new(SOURCE);
    mail(&source, "b", &[2]);
    push(&world.engine, source.clone());
    mail(&source, "a", &[1]);
    push(&world.engine, source);
    forget(&world.engine, "a");
    let mut refused = 0;
    for key in keys(&world.memory, "mailboxes/") {
        let octets = block_on(world.memory.read(&key, None)).unwrap();
        // In the head, which every reader needs.
        let mut damaged = octets.to_vec();
        damaged[60] ^= 1;
        block_on(world.memory.delete(&key)).unwrap();
        block_on(world.memory.put(&key, damaged.into())).unwrap();
        let before = keys(&world.memory, "");
        let dry = block_on(world.engine.sweep().dry_run(true).finish());
        if let Err(error) = dry {
            assert_eq!(block_on(world.engine.sweep().finish()).unwrap_err().kind(), error.kind());
            assert_eq!((error.kind(), keys(&world.memory, "")), (ErrorKind::Damaged, before), "{key}");
            refused += 1;
        }
        block_on(world.memory.delete(&key)).unwrap();
        block_on(world.memory.put(&key, octets.into())).unwrap();
    }
    // The forgotten commit alone is not read: nobody needs it.
    assert_eq!(refused, 2);
    assert!(sweep(&world.engine).deleted_packs.objects == 1);
    let (found, report) = delivered(&world.engine);
    assert_eq!((found.len(), report.failed), (1, 0));
}

#[test]
fn what_was_forgotten_and_swept_is_no_damage_to_check_repair_or_who_reads_a_damaged_journal() {
    let world = World::with(resources(), settings(), |memory| Arc::new(memory));
    let source = Memory::new(SOURCE);
    let mut expected = Delivered::new();
    for content in [1, 2, 3] {
        // A pack for each.
        expected.extend(mail(&source, "a", &[content]));
        push(&world.engine, source.clone());
    }
    source.remove(&name("a"), b"INBOX", &Identity::Named("1".into()));
    expected.remove(&("a".to_owned(), "INBOX".to_owned(), "1".to_owned()));
    world.clock.advance(Duration::from_secs(10));
    push(&world.engine, source.clone());
    block_on(world.engine.forget().all_mailboxes().before(world.now()).finish()).unwrap();
    let swept = sweep(&world.engine);
    assert!(swept.deleted_packs.objects > 0 && swept.deleted_commits.objects > 0, "{swept:#?}");
    world.clock.advance(Duration::from_secs(10));
    let engine = process(&world.memory, &world.clock, 7);
    let repaired = block_on(engine.repair().read_data(true).finish()).unwrap();
    assert!(repaired.is_whole() && repaired.packs_bad == 0 && repaired.blobs_lost == 0, "{repaired:#?}");
    assert!(block_on(engine.check().read_data(true).finish()).unwrap().is_sound());
    // Two commits more; the first of them is damaged, and takes its own message with it and nothing else.
    for content in [4, 5] {
        expected.extend(mail(&source, "a", &[content]));
        world.clock.advance(Duration::from_secs(10));
        push(&engine, source.clone());
    }
    let commits = keys(&world.memory, "mailboxes/");
    flip(&world.memory, &commits[commits.len() - 2]);
    expected.remove(&("a".to_owned(), "INBOX".to_owned(), "4".to_owned()));
    let (found, report) = delivered(&process(&world.memory, &world.clock, 8));
    assert!(found == expected, "{:?}", found.keys());
    assert_eq!(report.failed, 1, "{report:#?}");
    let check = block_on(process(&world.memory, &world.clock, 9).check().read_data(true).finish()).unwrap();
    assert_eq!((check.messages_touched, check.marked), (1, 0), "{check:#?}");
    assert!(check.damaged.iter().all(|damage| damage.object.starts_with("mailboxes/")), "{check:#?}");
    let repaired = block_on(process(&world.memory, &world.clock, 10).repair().finish()).unwrap();
    assert_eq!((repaired.messages_lost, repaired.packs_bad), (1, 0), "{repaired:#?}");
}

#[test]
fn who_lost_the_record_of_a_run_must_be_told_that_no_run_goes_on_before_it_sweeps() {
    let world = World::inline();
    let old = Memory::new(SOURCE);
    mail(&old, "old", &[1, 2]);
    push(&world.engine, old);
    forget(&world.engine, "old");
    let record = keys(&world.memory, "runs/").pop().unwrap();
    flip(&world.memory, &record);
    let packs = keys(&world.memory, "packs/");
    let refused = |what: &str| {
        let error = block_on(world.engine.sweep().finish()).unwrap_err();
        assert_eq!(
            (error.kind(), keys(&world.memory, "packs/")),
            (ErrorKind::Damaged, packs.clone()),
            "{what}: {error}"
        );
    };
    refused("damaged");
    let repaired = block_on(world.engine.repair().finish()).unwrap();
    assert_eq!(repaired.replaced, [record]);
    assert!(block_on(world.engine.check().finish()).unwrap().is_sound());
    refused("repaired");
    let swept = block_on(world.engine.sweep().alone(true).finish()).unwrap();
    assert_eq!(swept.deleted_packs.objects, packs.len() as u64);
    // It need not be told again: a fence says so.
    let again = sweep(&world.engine);
    assert_eq!((again.bytes_freed(), again.epoch), (0, 0), "{again:#?}");
}

#[test]
fn a_repair_of_an_open_sweeps_mark_lets_no_sleeping_writer_point_at_what_the_next_sweep_deletes() {
    let (mut mended, mut acknowledged) = (0, 0);
    let operations = before_each_operation(|at| {
        let scene = Scene::new(false);
        let what = format!("a writer that sleeps before operation {at}");
        let asleep = scene.writer.asleep_after(at, scene.writer.transfer(&scene.source));
        let is_over = asleep.is_done();
        // A sweeper fences the writer's chain and dies before it fences a journal.
        let records = keys(&scene.store, "runs/").len();
        let sweeper = Process::new(&scene.store, &scene.clock, 700);
        let mut dying = sweeper.sweep();
        let is_fenced = sweeper.drive_until(&mut dying, || keys(&scene.store, "runs/").len() > records + 1);
        drop(dying);
        if is_fenced {
            let mark = keys(&scene.store, "sweeps/").pop().unwrap();
            flip(&scene.store, &mark);
            let repaired = block_on(scene.process(701).repair().finish()).unwrap();
            assert!(repaired.replaced.contains(&mark), "{what}: {repaired:#?}");
            mended += 1;
            for seed in 702..704 {
                sweep(&scene.process(seed));
            }
        }
        let (_, outcomes) = asleep.wake();
        acknowledged += outcomes.len();
        scene.verify(&outcomes, &what);
        is_over
    });
    assert!(operations > 20 && mended > 10 && acknowledged > 100, "{operations}, {mended}, {acknowledged}");
}
