//! Writers, readers and sweepers at the same time: any of them sleeps before any of its operations, wakes too late, or dies.

use crate::common::{self, Drip, Driven, delivered, push, with_attachment};
use crate::processes::{Paused, Process, before_each_operation};
use crate::scene::Scene;
use crate::world::{SOURCE, forget, is_there, keys, mail, name, process, resources, settings, sweep};
use bytes::Bytes;
use futures::executor::block_on;
use futures::future;
use mailrail::ErrorKind;
use mailrail::message::{Envelope, Identity};
use mailrail::runtime::Clock;
use mailrail::source::{Memory, SourceId};
use mailrail::store::MemoryStore;
use mailrail::testing::{Fault, FaultyStore, ManualClock, Operation, Plan};
use mailrail::transfer::{Outcome, Settled};
use std::sync::Arc;
use std::time::Duration;

#[test]
fn a_writer_that_sleeps_before_any_of_its_operations_while_sweeps_run_loses_nothing_that_it_acknowledged() {
    for (is_veteran, sweeps) in [(false, 1), (true, 1), (true, 2), (false, 3)] {
        let (mut pending, mut fenced) = (0, 0);
        let operations = before_each_operation(|at| {
            let scene = Scene::new(is_veteran);
            let what = format!("veteran {is_veteran}, {sweeps} sweeps before operation {at}");
            let asleep = scene.writer.asleep_after(at, scene.writer.transfer(&scene.source));
            for number in 0..sweeps {
                fenced += sweep(&scene.process(500 + number)).fenced_journals;
            }
            let is_over = asleep.is_done();
            let (report, outcomes) = asleep.wake();
            report.ledger.verify().unwrap();
            pending += report.ledger.messages.pending;
            scene.verify(&outcomes, &what);
            is_over
        });
        assert!(operations > 20 && fenced > 20, "{operations} operations, {fenced} fences");
        assert!(pending > 0, "no commit was ever dropped");
    }
}

#[test]
fn a_writer_that_sleeps_while_its_mailbox_is_pushed_forgotten_and_swept_acknowledges_nothing_that_is_not_there() {
    let operations = before_each_operation(|at| {
        let scene = Scene::new(at % 2 == 0);
        let asleep = scene.writer.asleep_after(at, scene.writer.transfer(&scene.source));
        let before = scene.process(8);
        let is_carol_there = block_on(before.repository().mailboxes()).unwrap().contains(&name("carol"));
        // Others take the places where it is about to commit; then these commits are deleted.
        let others = Memory::new(SourceId::new([2; 16]));
        mail(&others, "carol", &[41, 42, 43, 44]);
        push(&before, Drip(Arc::new(others), 1));
        forget(&before, "carol");
        assert!(sweep(&before).deleted_commits.objects >= 4);
        let is_over = asleep.is_done();
        let (report, mut outcomes) = asleep.wake();
        report.ledger.verify().unwrap();
        // What was acknowledged before it was forgotten is forgotten.
        outcomes.retain(|outcome| *outcome.mailbox == name("alice") || !is_over && !is_carol_there);
        scene.verify(&outcomes, &format!("before operation {at}"));
        is_over
    });
    assert!(operations > 20, "{operations} operations");
}

#[test]
fn what_a_writer_left_to_another_is_not_acknowledged_if_it_is_forgotten_before_the_rest_is_committed() {
    let (mut whole, mut pending) = (0, 0);
    let operations = before_each_operation(|at| {
        let scene = Scene::new(false);
        // All of a mailbox in one commit.
        let mut writing = scene.writer.transfer_of(scene.source.clone());
        let packs = keys(&scene.store, "packs/").len();
        assert!(scene.writer.drive_until(&mut writing, || keys(&scene.store, "packs/").len() > packs));
        // Another takes the place of its commit, with some of the same messages.
        let some = Memory::new(SOURCE);
        mail(&some, "carol", &[2, 12]);
        push(&scene.process(8), some);
        let asleep = scene.writer.asleep_after(at, writing);
        let stored = || delivered(&scene.process(600)).0.keys().filter(|(mailbox, ..)| mailbox == "carol").count();
        let is_too_late = stored() == 3;
        forget(&scene.process(9), "carol");
        let is_over = asleep.is_done();
        let (report, outcomes) = asleep.wake();
        report.ledger.verify().unwrap();
        let is_told = |outcome: &&Outcome| *outcome.mailbox == name("carol");
        let told = outcomes.iter().filter(is_told).count();
        let stored = stored();
        // It was forgotten after all of it was committed, or it is there, or it is not told.
        assert!(is_too_late || told == stored, "before operation {at}: {told} told, {stored} there");
        whole += u64::from(stored == 3);
        pending += report.ledger.messages.pending;
        is_over
    });
    assert!(operations > 10 && whole > 0 && pending > 0, "{operations} operations, {whole} whole, {pending} pending");
}

#[test]
fn a_message_that_is_appended_is_acknowledged_or_refused_whatever_is_swept_meanwhile() {
    let mut refused = 0;
    let operations = before_each_operation(|at| {
        let scene = Scene::new(true);
        let (appender, transfer) = scene.writer.engine.append_to(name("dave"), SourceId::new([3; 16]));
        // Content of the forgotten mailbox, and new content.
        let messages = [1, 51].map(|content| with_attachment(2000 + content, content, 40_000));
        let appending = Driven::new(future::join(
            async move {
                let mut settled = Vec::new();
                for (number, octets) in messages.into_iter().enumerate() {
                    let identity = Identity::Named(number.to_string().into());
                    settled.push(appender.append(Envelope::new("", identity), octets).await);
                }
                settled
            },
            transfer.finish(),
        ));
        let asleep = scene.writer.asleep_after(at, appending);
        for seed in 500..502 {
            sweep(&scene.process(seed));
        }
        let is_over = asleep.is_done();
        let (settled, report) = asleep.wake();
        report.unwrap().ledger.verify().unwrap();
        let engine = scene.process(600);
        let check = block_on(engine.check().read_data(true).finish()).unwrap();
        assert!(check.is_sound(), "before operation {at}: {check:#?}");
        let listing =
            block_on(engine.messages(&name("dave"), None)).map_or_else(|_| Vec::new(), |listing| listing.messages);
        for (number, settled) in settled.into_iter().enumerate() {
            let identity = Identity::Named(number.to_string().into());
            let stored = listing.iter().find(|message| message.identity == identity);
            match settled {
                Ok(Settled::Stored { digest, .. }) => {
                    assert_eq!(stored.map(|stored| stored.digest), Some(digest), "before operation {at}");
                }
                Ok(other) => panic!("{other:?}"),
                Err(error) => {
                    assert_eq!((error.kind(), stored), (ErrorKind::Unavailable, None), "before operation {at}");
                    refused += 1;
                }
            }
        }
        scene.forget_if_there("dave");
        scene.verify(&[], &format!("before operation {at}"));
        is_over
    });
    assert!(operations > 10 && refused > 0, "{operations} operations, {refused} refused");
}

#[test]
fn an_appender_that_wakes_while_a_sweep_is_open_acknowledges_nothing_that_the_next_sweep_deletes() {
    let mut refused = 0;
    let operations = before_each_operation(|at| {
        let scene = Scene::new(true);
        let what = format!("before operation {at}");
        let (appender, transfer) = scene.writer.engine.append_to(name("dave"), SourceId::new([3; 16]));
        let envelope = |number: &'static str| Envelope::new("", Identity::Named(Bytes::from_static(number.as_bytes())));
        let mut driven = Driven::new(transfer.finish());
        let appending = appender.clone();
        let first = async move { appending.append(envelope("0"), with_attachment(2000, 51, 40_000)).await };
        let mut first = Driven::new(first);
        let mut settled = None;
        // The first message registers the writer; then it sleeps.
        while settled.is_none() {
            settled = first.poll();
            assert!(driven.poll().is_none());
        }
        settled.unwrap().unwrap();
        // A sweep is marked, and no more: who wakes now learns of it, and is fenced by it later.
        let sweeper = Process::new(&scene.store, &scene.clock, 5);
        let mut sweeping = sweeper.sweep();
        assert!(sweeper.drive_until(&mut sweeping, || is_there(&scene.store, "sweeps/0000000000000001")));
        scene.writer.paused.hold_after(at);
        let appending = appender.clone();
        let second = async move { appending.append(envelope("1"), with_attachment(2001, 52, 40_000)).await };
        let mut second = Driven::new(second);
        let mut settled = None;
        for _ in 0..2 {
            settled = settled.or_else(|| second.poll());
            assert!(driven.poll().is_none());
        }
        let is_over = !scene.writer.paused.is_holding();
        sweeper.paused.release();
        sweeper.drive(&mut sweeping).unwrap().unwrap();
        sweep(&scene.process(500));
        scene.writer.paused.release();
        while settled.is_none() {
            settled = second.poll();
            assert!(driven.poll().is_none());
        }
        refused += u64::from(settled.unwrap().is_err());
        drop(appender);
        assert!(driven.poll().is_some());
        let engine = scene.process(600);
        let check = block_on(engine.check().read_data(true).finish()).unwrap();
        assert!(check.is_sound(), "{what}: {check:#?}");
        scene.forget_if_there("dave");
        scene.verify(&[], &what);
        is_over
    });
    assert!(operations > 5 && refused > 0, "{operations} operations, {refused} refused");
}

#[test]
fn a_writer_that_cannot_read_what_an_open_sweep_condemns_commits_nothing_that_points_there() {
    let (mut failed, mut stored) = (0, 0);
    let operations = before_each_operation(|at| {
        let mut scene = Scene::new(true);
        let what = format!("before operation {at}");
        let paused = Paused::new(&scene.store);
        let faulty = FaultyStore::new(Arc::new(paused.clone()));
        let engine = common::engine(Arc::new(faulty.clone()), &scene.clock, resources(), settings(), 4);
        scene.writer = Process { paused, engine };
        let mut transfer = scene.writer.engine.transfer(Drip(Arc::new(scene.source.clone()), 1));
        let writing = Driven::new(async move {
            let mut outcomes = Vec::new();
            while let Some(outcome) = transfer.next().await {
                outcomes.push(outcome);
            }
            (transfer.finish().await, outcomes)
        });
        let asleep = scene.writer.asleep_after(at, writing);
        // It is decided what goes, and nothing is gone yet.
        let sweeper = Process::new(&scene.store, &scene.clock, 5);
        let mut sweeping = sweeper.sweep();
        assert!(sweeper.drive_until(&mut sweeping, || is_there(&scene.store, "sweeps/0000000000000001-verdict")));
        let is_over = asleep.is_done();
        // One of those that want to commit looks for all of them.
        faulty.plan(Plan::new(Operation::Read, Fault::Short(10)).below("sweeps/"));
        let (report, outcomes) = asleep.wake();
        failed += u64::from(report.is_err());
        stored += outcomes.len();
        sweeper.paused.release();
        sweeper.drive(&mut sweeping).unwrap().unwrap();
        scene.verify(&outcomes, &what);
        is_over
    });
    assert!(operations > 20 && failed > 5 && stored > 0, "{operations} operations, {failed} failed, {stored} stored");
}

#[test]
fn a_sweeper_that_sleeps_before_any_of_its_operations_while_a_writer_runs_deletes_nothing_that_is_needed() {
    for is_veteran in [false, true] {
        let mut pardoned = 0;
        let operations = before_each_operation(|at| {
            let scene = Scene::new(is_veteran);
            let sweeper = Process::new(&scene.store, &scene.clock, 5);
            let asleep = sweeper.asleep_after(at, sweeper.sweep());
            let mut transfer = scene.writer.transfer(&scene.source);
            let (report, outcomes) = scene.writer.drive(&mut transfer).unwrap();
            report.ledger.verify().unwrap();
            let is_over = asleep.is_done();
            let swept = asleep.wake().unwrap();
            pardoned += swept.pardoned;
            scene.verify(&outcomes, &format!("veteran {is_veteran}, a writer before operation {at} of the sweep"));
            is_over
        });
        assert!(operations > 30, "{operations} operations");
        assert!(pardoned > 0, "no pack was ever pardoned");
    }
}

#[test]
fn a_sweep_that_dies_anywhere_is_carried_out_by_the_next() {
    let operations = before_each_operation(|at| {
        let scene = Scene::new(false);
        let sweeper = Process::new(&scene.store, &scene.clock, 5);
        let asleep = sweeper.asleep_after(at, sweeper.sweep());
        let is_over = asleep.is_done();
        drop(asleep);
        let (_, outcomes) = scene.writer.drive(&mut scene.writer.transfer(&scene.source)).unwrap();
        scene.verify(&outcomes, &format!("died before operation {at}"));
        is_over
    });
    assert!(operations > 30, "{operations} operations");
}

#[test]
fn a_sweeper_that_sleeps_while_another_sweeps_and_mail_is_forgotten_and_pushed_again_does_no_harm() {
    let operations = before_each_operation(|at| {
        let scene = Scene::new(false);
        let sweeper = Process::new(&scene.store, &scene.clock, 5);
        let asleep = sweeper.asleep_after(at, sweeper.sweep());
        // What was condemned is needed, and pardoned; then it is forgotten, and needed again.
        scene.writer.drive(&mut scene.writer.transfer(&scene.source)).unwrap();
        let other = scene.process(6);
        sweep(&other);
        forget(&other, "carol");
        if at % 2 == 0 {
            sweep(&other);
        }
        let pusher = scene.process(7);
        push(&pusher, scene.source.clone());
        let is_over = asleep.is_done();
        asleep.wake().unwrap();
        scene.verify(&[], &format!("another sweep before operation {at}"));
        is_over
    });
    assert!(operations > 30, "{operations} operations");
}

#[test]
fn a_sweeper_that_slept_over_its_sweep_and_fences_a_chain_but_not_yet_the_journals_lets_nothing_through() {
    let (mut fenced, mut stored) = (0, 0);
    let operations = before_each_operation(|at| {
        let scene = Scene::new(true);
        let what = format!("before operation {at}");
        // A sweep is marked, and two carry it out: one sleeps before it looks who writes, until it is done.
        let marker = Process::new(&scene.store, &scene.clock, 5);
        let mut marking = marker.sweep();
        assert!(marker.drive_until(&mut marking, || is_there(&scene.store, "sweeps/0000000000000001")));
        drop(marking);
        let late = Process::new(&scene.store, &scene.clock, 6);
        let mut sleeping = late.sweep();
        assert!(late.drive_until(&mut sleeping, || late.paused.has_come_to("sweeps/0000000000000001-verdict")));
        sweep(&scene.process(7));
        let before = keys(&scene.store, "runs/");
        let mut writing = scene.writer.transfer(&scene.source);
        let fence = || {
            let record = keys(&scene.store, "runs/").into_iter().find(|key| !before.contains(key));
            record.map(|record| format!("{}1", &record[..record.len() - 1]))
        };
        scene.writer.drive_until(&mut writing, || fence().is_some());
        let asleep = scene.writer.asleep_after(at, writing);
        let fence = fence().unwrap();
        let is_over = asleep.is_done();
        // The late one fences the writer's chain in the name of a sweep that is over, and sleeps again.
        let is_fenced = late.drive_until(&mut sleeping, || is_there(&scene.store, &fence)) && !is_over;
        for seed in 500..502 {
            sweep(&scene.process(seed));
        }
        let (report, outcomes) = asleep.wake();
        late.paused.release();
        late.drive(&mut sleeping);
        report.ledger.verify().unwrap();
        (fenced, stored) = (fenced + u64::from(is_fenced), stored + report.ledger.messages.stored);
        scene.verify(&outcomes, &what);
        is_over
    });
    assert!(operations > 10 && fenced > 5 && stored > 0, "{operations} operations, {fenced} fenced, {stored} stored");
}

#[test]
fn what_another_sweeper_pardoned_is_not_deleted_by_one_who_finds_it_needless_later() {
    let mut pardoned = 0;
    before_each_operation(|at| {
        let mut is_over = false;
        before_each_operation(|later| {
            let scene = Scene::new(false);
            let what = format!("writer before operation {at}, sweeper before operation {later}");
            let source = Memory::new(SOURCE);
            mail(&source, "erin", &[1]);
            // The writer is about to point at what is forgotten.
            let writer = scene.writer.asleep_after(at, scene.writer.transfer(&source));
            is_over = writer.is_done();
            // A sweeper condemns it, and sleeps. The writer commits; another sweeper pardons it; then it is forgotten.
            let sweeper = Process::new(&scene.store, &scene.clock, 5);
            let mut sweeping = sweeper.sweep();
            if !sweeper.drive_until(&mut sweeping, || is_there(&scene.store, "sweeps/0000000000000001")) {
                return true;
            }
            // It reads its mark, and sees no verdict.
            let verdict = "sweeps/0000000000000001-verdict";
            assert!(sweeper.drive_until(&mut sweeping, || sweeper.paused.has_come_to(verdict)));
            assert!(!is_there(&scene.store, verdict));
            writer.wake();
            let other = scene.process(6);
            pardoned += sweep(&other).pardoned;
            scene.forget_if_there("erin");
            // The sweeper looks again, and sleeps. It is needed again. The sweeper deletes.
            let asleep = sweeper.asleep_after(later, sweeping);
            let fay = Memory::new(SOURCE);
            mail(&fay, "fay", &[1]);
            push(&scene.process(7), fay);
            let is_done = asleep.is_done();
            asleep.wake().unwrap();
            scene.forget_what_is_there("fay", &what);
            scene.verify(&[], &what);
            is_done
        });
        is_over
    });
    assert!(pardoned > 0, "no pack was ever pardoned");
}

#[test]
fn a_pack_that_is_written_again_when_it_was_deleted_already_is_not_used() {
    let operations = before_each_operation(|at| {
        let mut scene = Scene::new(false);
        scene.writer = Process::over(Paused::writing_twice(&scene.store), &scene.clock, 4);
        let writer = scene.writer.asleep_after(at, scene.writer.transfer(&scene.source));
        let is_over = writer.is_done();
        // The first sweep fences the writer. The second condemns what it wrote; one who carries it out sleeps before deleting anything, another does.
        sweep(&scene.process(50));
        let sweeper = Process::new(&scene.store, &scene.clock, 5);
        let mut sweeping = sweeper.sweep();
        let is_open = sweeper.drive_until(&mut sweeping, || is_there(&scene.store, "sweeps/0000000000000002-verdict"));
        sweep(&scene.process(51));
        let (_, outcomes) = writer.wake();
        sweeper.paused.release();
        if is_open {
            sweeper.drive(&mut sweeping).unwrap().unwrap();
        }
        scene.verify(&outcomes, &format!("before operation {at}"));
        is_over
    });
    assert!(operations > 20, "{operations} operations");
}

#[test]
fn writer_and_sweeper_interleave_anyhow() {
    for seed in 0..400_u64 {
        let scene = Scene::new(seed % 2 == 0);
        let sweepers: Vec<Process> =
            (0..1 + seed % 3).map(|number| Process::new(&scene.store, &scene.clock, 5 + number)).collect();
        let mut sweeps: Vec<_> = sweepers.iter().map(|sweeper| Some(sweeper.sweep())).collect();
        let mut transfer = Some(scene.writer.transfer(&scene.source));
        let mut outcomes = Vec::new();
        for turn in 0.. {
            if transfer.is_none() && sweeps.iter().all(Option::is_none) {
                break;
            }
            let random = common::random(seed, turn);
            let (who, steps) = ((random % (1 + sweeps.len() as u64)) as usize, 1 + (random >> 8) as usize % 12);
            if who == sweeps.len() {
                let Some(driven) = &mut transfer else { continue };
                scene.writer.paused.hold_after(steps);
                if let Some((report, told)) = scene.writer.drive(driven) {
                    report.ledger.verify().unwrap();
                    (transfer, outcomes) = (None, told);
                }
            } else {
                let (sweeper, Some(driven)) = (&sweepers[who], &mut sweeps[who]) else { continue };
                sweeper.paused.hold_after(steps);
                if let Some(report) = sweeper.drive(driven) {
                    report.unwrap();
                    sweeps[who] = None;
                }
            }
        }
        scene.verify(&outcomes, &format!("seed {seed}"));
    }
}

#[test]
fn the_packs_of_a_dead_writer_go_with_the_second_sweep_and_its_records_but_the_fence() {
    let scene = Scene::new(false);
    let first = sweep(&scene.process(50));
    assert_eq!((first.spared.objects, first.fenced_writers, first.fenced_journals), (1, 1, 1));
    let runs = keys(&scene.store, "runs/").len();
    let second = sweep(&scene.process(51));
    assert_eq!((second.spared.objects, second.deleted_packs.objects, second.fenced_writers), (0, 1, 0));
    assert!(keys(&scene.store, "runs/").len() <= runs);
    // A journal that has nothing but a fence is no mailbox.
    assert_eq!(block_on(scene.process(52).repository().mailboxes()).unwrap(), [name("alice")]);
    scene.verify(&[], "after two sweeps");
}

#[test]
fn the_packs_of_a_dead_writer_go_with_the_second_sweep_even_if_nothing_is_ever_forgotten() {
    let (store, clock) = (MemoryStore::new(), ManualClock::new(Duration::from_secs(1_800_000_000)));
    let source = Memory::new(SOURCE);
    mail(&source, "alice", &[1]);
    let dead = Process::new(&store, &clock, 1);
    let mut transfer = dead.transfer(&source);
    assert!(dead.drive_until(&mut transfer, || !keys(&store, "packs/").is_empty()));
    drop(transfer);
    let first = sweep(&process(&store, &clock, 2));
    assert_eq!((first.epoch, first.spared.objects, first.fenced_writers), (1, 1, 1));
    let second = sweep(&process(&store, &clock, 3));
    assert_eq!((second.epoch, second.deleted_packs.objects), (2, 1));
    let third = sweep(&process(&store, &clock, 4));
    assert_eq!((third.epoch, third.bytes_freed(), keys(&store, "packs/").len()), (0, 0, 0));
}

#[test]
fn a_check_that_sleeps_while_what_was_forgotten_is_swept_finds_no_damage() {
    let operations = before_each_operation(|at| {
        let scene = Scene::new(false);
        let reader = Process::new(&scene.store, &scene.clock, 5);
        let asleep = reader.asleep_after(at, Driven::new(reader.engine.check().read_data(true).finish()));
        for seed in 500..502 {
            sweep(&scene.process(seed));
        }
        let is_over = asleep.is_done();
        let report = asleep.wake().unwrap();
        assert!(report.is_sound(), "before operation {at}: {report:#?}");
        is_over
    });
    assert!(operations > 15, "{operations} operations");
}

#[test]
fn a_restore_that_sleeps_while_the_past_is_forgotten_and_swept_gives_all_that_is_there_now() {
    let operations = before_each_operation(|at| {
        let (store, clock) = (MemoryStore::new(), ManualClock::new(Duration::from_secs(1_800_000_000)));
        let (source, writer) = (Memory::new(SOURCE), process(&store, &clock, 1));
        let mut expected = mail(&source, "a", &[1, 2]);
        push(&writer, source.clone());
        // A last commit that no message needs.
        source.remove(&name("a"), b"INBOX", &Identity::Named("1".into()));
        expected.remove(&("a".to_owned(), "INBOX".to_owned(), "1".to_owned()));
        clock.advance(Duration::from_secs(60));
        push(&writer, source);
        clock.advance(Duration::from_secs(60));
        let reader = Process::new(&store, &clock, 2);
        let sink = mailrail::testing::sink::Memory::new(mailrail::source::Kind::Other("memory".into()));
        let asleep = reader.asleep_after(at, Driven::new(reader.engine.restore(sink.clone()).finish()));
        let before = clock.now().as_nanos() as u64;
        block_on(process(&store, &clock, 3).forget().all_mailboxes().before(before).finish()).unwrap();
        assert_eq!(sweep(&process(&store, &clock, 4)).deleted_commits.objects, 1);
        let is_over = asleep.is_done();
        let report = asleep.wake().unwrap();
        assert_eq!(report.failed, 0, "before operation {at}: {report:#?}");
        let messages: usize = sink.mailboxes().values().map(|mailbox| mailbox.messages.len()).sum();
        assert_eq!(messages, expected.len(), "before operation {at}");
        is_over
    });
    assert!(operations > 5, "{operations} operations");
}
