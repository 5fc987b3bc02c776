//! Forgetting, and what a sweep takes and leaves while nobody else is about.

use crate::common::{Delivered, Drip, World, delivered, message, push};
use crate::world::{SOURCE, forget, keys, mail, name, process, resources, settings, sweep};
use futures::executor::block_on;
use mailrail::ErrorKind;
use mailrail::message::Identity;
use mailrail::source::Memory;
use mailrail::testing::{CountingStore, Operation};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

#[test]
fn a_forgotten_mailbox_goes_with_the_next_sweep_and_what_others_share_with_it_stays() {
    let world = World::inline();
    let (old, kept) = (Memory::new(SOURCE), Memory::new(SOURCE));
    mail(&old, "old", &[1, 2, 3]);
    push(&world.engine, old.clone());
    let expected = mail(&kept, "kept", &[3, 4]);
    push(&world.engine, kept);
    let before = world.now();
    world.clock.advance(Duration::from_secs(1));
    let packs = keys(&world.memory, "packs/").len();
    let idle = sweep(&world.engine);
    assert_eq!(
        (idle.epoch, idle.deleted_packs.objects, idle.deleted_commits.objects),
        (0, 0, 0),
        "nothing is forgotten"
    );
    forget(&world.engine, "old");
    assert_eq!(block_on(world.engine.repository().mailboxes()).unwrap(), [name("kept")]);
    assert_eq!(block_on(world.engine.messages(&name("old"), None)).unwrap_err().kind(), ErrorKind::NotFound);
    let error = block_on(world.engine.messages(&name("old"), Some(before))).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Forgotten);
    let sink = || mailrail::testing::sink::Memory::new(mailrail::source::Kind::Other("memory".into()));
    let error = block_on(world.engine.restore(sink()).mailboxes([name("old")]).finish()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
    let older = block_on(world.engine.restore(sink()).at(before).finish()).unwrap();
    assert_eq!((older.restored, older.failures.len()), (2, 1), "{older:#?}");
    // Its pack is needed for one blob still, which is written anew. The other mailbox forgotten too, all goes.
    let report = sweep(&world.engine);
    assert_eq!((report.deleted_packs.objects, report.deleted_commits.objects), (0, 1));
    assert_eq!((report.mostly_dead.objects, report.moved_packs.objects, report.written_packs.objects), (1, 1, 1));
    let (found, restored) = delivered(&world.engine);
    assert_eq!(restored.failed, 0);
    assert!(found == expected);
    assert!(block_on(world.engine.check().read_data(true).finish()).unwrap().is_sound());
    forget(&world.engine, "kept");
    let dry = block_on(world.engine.sweep().dry_run(true).finish()).unwrap();
    assert_eq!((dry.deleted_packs.objects, dry.deleted_commits.objects), (packs as u64, 1));
    assert_eq!(keys(&world.memory, "packs/").len(), packs);
    let report = sweep(&world.engine);
    assert_eq!((report.deleted_packs, report.deleted_commits), (dry.deleted_packs, dry.deleted_commits));
    assert_eq!((keys(&world.memory, "packs/").len(), keys(&world.memory, "index/").len()), (0, 0));
    assert_eq!(keys(&world.memory, "mailboxes/").len(), 2, "one commit of each says that it is forgotten");
    assert!(block_on(world.engine.check().read_data(true).finish()).unwrap().is_sound());
    // And it can be pushed again.
    assert_eq!(push(&world.engine, old).messages.stored, 3);
    assert_eq!(delivered(&world.engine).0.len(), 3);
    let listing = block_on(world.engine.messages(&name("old"), None)).unwrap();
    assert!(listing.messages.iter().all(|message| message.ordinal >= 3), "an ordinal was given twice");
}

#[test]
fn what_was_gone_before_a_time_goes_and_what_was_there_then_can_still_be_asked_for() {
    let world = World::inline();
    let source = Memory::new(SOURCE);
    let remove = |content: u64| source.remove(&name("a"), b"INBOX", &Identity::Named(content.to_string().into()));
    let mut times = Vec::new();
    let mut states = Vec::new();
    let mut expected = Delivered::new();
    for step in 0..6_u64 {
        expected.extend(mail(&source, "a", &[step]));
        if step >= 2 {
            remove(step - 2);
            expected.remove(&("a".to_owned(), "INBOX".to_owned(), (step - 2).to_string()));
        }
        world.clock.advance(Duration::from_secs(10));
        push(&world.engine, source.clone());
        times.push(world.now());
        states.push(expected.clone());
    }
    let at = |time: u64| {
        let sink = mailrail::testing::sink::Memory::new(mailrail::source::Kind::Other("memory".into()));
        let report = block_on(world.engine.restore(sink.clone()).at(time).finish()).unwrap();
        (report.failures, sink.mailboxes().values().map(|mailbox| mailbox.messages.len()).sum::<usize>())
    };
    for cut in [1, 3, 3, 5] {
        let report = block_on(world.engine.forget().all_mailboxes().before(times[cut]).finish()).unwrap();
        assert_eq!(report.mailboxes + report.untouched, 1);
        sweep(&world.engine);
        for (step, time) in times.iter().enumerate() {
            let (failures, messages) = at(*time);
            if step < cut {
                assert_eq!(failures.len(), 1, "{step} of {cut}");
                assert!(failures[0].reason.contains("forgotten") && !failures[0].is_damage, "{failures:?}");
            } else {
                assert_eq!((failures, messages), (vec![], states[step].len()), "{step} of {cut}");
            }
        }
        let (found, report) = delivered(&world.engine);
        assert_eq!(report.failed, 0);
        assert!(found == expected);
        let check = block_on(world.engine.check().read_data(true).finish()).unwrap();
        assert!(check.is_sound(), "{check:#?}");
        // One pack a message here: those living at the cut, and all that came later.
        assert_eq!(keys(&world.memory, "packs/").len(), 6 - (cut - 1).min(4), "cut {cut}");
    }
    let again = push(&world.engine, source.clone());
    assert_eq!((again.messages.stored, again.messages.unchanged), (0, 2));
}

#[test]
fn forgetting_wants_to_be_told_what_and_asks_of_no_mailbox_that_is_not_there() {
    let world = World::inline();
    let source = Memory::new(SOURCE);
    mail(&source, "a", &[1]);
    push(&world.engine, source);
    let untold = block_on(world.engine.forget().before(5).finish()).unwrap_err();
    assert_eq!(untold.kind(), ErrorKind::Invalid);
    let absent = block_on(world.engine.forget().mailboxes([name("a"), name("b")]).finish()).unwrap_err();
    assert_eq!(absent.kind(), ErrorKind::NotFound);
    assert_eq!(delivered(&world.engine).0.len(), 1);
}

#[test]
fn a_journal_with_a_history_of_forgetting_and_checkpoints_stays_readable() {
    let world = World::with(resources(), settings(), |memory| Arc::new(memory));
    let source = Memory::new(SOURCE);
    let mut expected = Delivered::new();
    for round in 0..12_u64 {
        for number in round * 10..round * 10 + 10 {
            let octets = message(number, 300);
            source.put(&name("a"), "INBOX", number.to_string(), octets.clone());
            expected.insert(("a".into(), "INBOX".into(), number.to_string()), octets);
        }
        for number in (0..round * 10).filter(|number| number % 12 == round) {
            source.remove(&name("a"), b"INBOX", &Identity::Named(number.to_string().into()));
            expected.remove(&("a".to_owned(), "INBOX".to_owned(), number.to_string()));
        }
        world.clock.advance(Duration::from_secs(1));
        push(&world.engine, Drip(Arc::new(source.clone()), 1));
        if round % 3 == 1 {
            block_on(world.engine.forget().all_mailboxes().before(world.now() - 500_000_000).finish()).unwrap();
            sweep(&world.engine);
        }
        let (found, report) = delivered(&process(&world.memory, &world.clock, 50 + round));
        assert_eq!(report.failed, 0, "round {round}: {report:#?}");
        assert!(found == expected, "round {round}");
        let check = block_on(world.engine.check().read_data(true).finish()).unwrap();
        assert!(check.is_sound(), "round {round}: {check:#?}");
    }
}

#[test]
fn a_sweep_that_has_too_little_memory_refuses_before_it_writes_anything() {
    let world = World::inline();
    let source = Memory::new(SOURCE);
    mail(&source, "a", &[1]);
    push(&world.engine, source);
    forget(&world.engine, "a");
    let budget = world.engine.resources().budget();
    let all = block_on(budget.acquire(budget.octets() - budget.used()));
    let before = keys(&world.memory, "");
    let error = block_on(world.engine.sweep().finish()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Limit);
    assert_eq!(keys(&world.memory, ""), before);
    drop(all);
    assert_eq!(sweep(&world.engine).deleted_packs.objects, 1);
}

#[test]
fn many_small_mailboxes_cost_few_records() {
    let world = World::inline();
    let source = Memory::new(SOURCE);
    for number in 0..400_u64 {
        source.put(&name(&format!("box {}", number % 200)), "INBOX", number.to_string(), message(number, 300));
    }
    let ledger = push(&world.engine, source.clone());
    let records = keys(&world.memory, "runs/").len() as u64;
    assert!(records <= 10, "{records} records");
    assert_eq!(ledger.objects, 200 + records);
    assert_eq!(push(&world.engine, source).objects, 1, "a run that finds nothing new registers nowhere");
}

#[test]
fn records_of_old_runs_and_rows_of_packs_that_are_gone_go() {
    let world = World::inline();
    let source = Memory::new(SOURCE);
    for content in 0..10 {
        mail(&source, &format!("box {content}"), &[content]);
        push(&world.engine, source.clone());
    }
    assert_eq!(keys(&world.memory, "index/").len(), 10);
    forget(&world.engine, "box 3");
    let report = block_on(world.engine.sweep().runs_kept(4).finish()).unwrap();
    assert_eq!(keys(&world.memory, "runs/").len(), 4);
    assert_eq!((report.deleted_segments.objects, keys(&world.memory, "index/").len()), (10, 1));
    // What is left is found by who comes next.
    let again = Memory::new(SOURCE);
    mail(&again, "again", &[0, 1, 3, 9]);
    let ledger = push(&process(&world.memory, &world.clock, 9), again);
    assert_eq!(ledger.bytes.duplicate, 3 * 40_000);
    let runs: BTreeMap<u64, ()> = block_on(world.engine.runs()).unwrap().iter().map(|run| (run.started, ())).collect();
    assert!(!runs.is_empty());
}

#[test]
fn what_pushes_and_sweeps_ask_for_does_not_grow_with_the_sweeps_that_there_were() {
    let mut counting = None;
    let world = World::with(resources(), settings(), |memory| {
        let store = CountingStore::new(Arc::new(memory));
        counting = Some(store.clone());
        Arc::new(store)
    });
    let counting = counting.unwrap();
    let asked = || {
        let listed = counting.total(Operation::List);
        let asked = (counting.total(Operation::Length).operations, counting.total(Operation::Read).operations);
        counting.reset();
        (listed.operations, listed.octets, asked)
    };
    let round = |number: u64| {
        let source = Memory::new(SOURCE);
        mail(&source, "a", &[number]);
        push(&world.engine, source);
        let pushed = asked();
        forget(&world.engine, "a");
        asked();
        assert_eq!(block_on(world.engine.sweep().runs_kept(2).finish()).unwrap().deleted_packs.objects, 1);
        (pushed, asked())
    };
    let asked: Vec<_> = (0..50).map(round).collect();
    assert_eq!(asked[49], asked[19]);
}
