//! Forgetting and sweeping: what nobody needs goes, what anybody needs stays, whoever writes, sleeps, wakes or dies meanwhile.
#![cfg(feature = "testing")]

mod common;

use bytes::Bytes;
use common::{Delivered, Drip, Driven, World, delivered, message, push, with_attachment};
use futures::executor::block_on;
use futures::future::{BoxFuture, FutureExt};
use futures::stream::{self, BoxStream, StreamExt};
use futures::{TryStreamExt, future};
use mailrail::message::{Identity, MailboxName};
use mailrail::runtime::Clock;
use mailrail::source::{Memory, SourceId};
use mailrail::store::{Created, Listed, MemoryStore, Payload, Store};
use mailrail::sweep::SweepReport;
use mailrail::testing::ManualClock;
use mailrail::transfer::{Outcome, Report, Settled};
use mailrail::{Engine, ErrorKind, Resources, Result, Settings};
use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::{Arc, Mutex};
use std::task::{Poll, Waker};
use std::time::Duration;

const SOURCE: SourceId = SourceId::new([1; 16]);

fn name(mailbox: &str) -> MailboxName {
    MailboxName::new(mailbox)
}

fn resources() -> Resources {
    Resources::inline(64 << 20).unwrap()
}

/// One message a commit.
fn settings() -> Settings {
    let mut settings = Settings::default();
    settings.commit_messages_max = 1;
    settings
}

fn sweep(engine: &Engine) -> SweepReport {
    block_on(engine.sweep().finish()).unwrap()
}

fn forget(engine: &Engine, mailbox: &str) {
    let report = block_on(engine.forget().mailboxes([name(mailbox)]).finish()).unwrap();
    assert_eq!((report.mailboxes, report.untouched), (1, 0));
}

fn keys(store: &MemoryStore, prefix: &str) -> Vec<String> {
    let listed: Vec<Listed> = block_on(store.list(prefix).try_collect()).unwrap();
    listed.into_iter().map(|object| object.key).collect()
}

/// Another process over the same objects.
fn process(store: &MemoryStore, clock: &ManualClock, seed: u64) -> Engine {
    clock.advance(Duration::from_secs(60));
    common::engine(Arc::new(store.clone()), clock, resources(), settings(), seed)
}

/// Puts messages with attachments, one for each content, into a source; gives them as a restore must deliver them.
fn mail(source: &Memory, mailbox: &str, contents: &[u64]) -> Delivered {
    let mut expected = Delivered::new();
    for content in contents {
        let octets = with_attachment(*content + 1000, *content, 40_000);
        source.put(&name(mailbox), "INBOX", content.to_string(), octets.clone());
        expected.insert((mailbox.into(), "INBOX".into(), content.to_string()), octets);
    }
    expected
}

// Forgetting.

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

// Writers and sweepers at the same time.

/// Hands everything to a store until it is told to hold on; then no operation begins until it is released.
#[derive(Clone, Debug)]
struct Paused {
    inner: MemoryStore,
    /// Packs are written twice, as by a client that lost an answer and tries again by itself.
    writes_twice: bool,
    state: Arc<Mutex<State>>,
}

#[derive(Debug, Default)]
struct State {
    /// How many operations may begin; all, if not told.
    left: Option<usize>,
    waiting: Vec<Waker>,
}

impl Paused {
    fn new(inner: &MemoryStore) -> Self {
        Self { inner: inner.clone(), writes_twice: false, state: Arc::default() }
    }

    /// Only so many operations more.
    fn hold_after(&self, operations: usize) {
        self.state.lock().unwrap().left = Some(operations);
    }

    fn release(&self) {
        let mut state = self.state.lock().unwrap();
        state.left = None;
        state.waiting.drain(..).for_each(Waker::wake);
    }

    fn is_holding(&self) -> bool {
        !self.state.lock().unwrap().waiting.is_empty()
    }

    async fn pass(&self) {
        future::poll_fn(|cx| {
            let mut state = self.state.lock().unwrap();
            match &mut state.left {
                None => return Poll::Ready(()),
                Some(0) => {}
                Some(left) => {
                    *left -= 1;
                    return Poll::Ready(());
                }
            }
            state.waiting.push(cx.waker().clone());
            Poll::Pending
        })
        .await;
    }
}

impl Store for Paused {
    fn put<'a>(&'a self, key: &'a str, payload: Payload) -> BoxFuture<'a, Result<()>> {
        let again = payload.clone();
        let put = self.pass().then(|()| self.inner.put(key, payload));
        if !self.writes_twice || !key.starts_with("packs/") {
            return put.boxed();
        }
        put.then(|_| self.pass()).then(|()| self.inner.put(key, again)).boxed()
    }

    fn create<'a>(&'a self, key: &'a str, payload: Payload) -> BoxFuture<'a, Result<Created>> {
        self.pass().then(|()| self.inner.create(key, payload)).boxed()
    }

    fn read<'a>(&'a self, key: &'a str, range: Option<Range<u64>>) -> BoxFuture<'a, Result<Bytes>> {
        self.pass().then(|()| self.inner.read(key, range)).boxed()
    }

    fn length<'a>(&'a self, key: &'a str) -> BoxFuture<'a, Result<Option<u64>>> {
        self.pass().then(|()| self.inner.length(key)).boxed()
    }

    fn list<'a>(&'a self, prefix: &'a str) -> BoxStream<'a, Result<Listed>> {
        let listed = self.pass().then(|()| self.inner.list(prefix).collect::<Vec<_>>());
        listed.map(stream::iter).flatten_stream().boxed()
    }

    fn delete<'a>(&'a self, key: &'a str) -> BoxFuture<'a, Result<()>> {
        self.pass().then(|()| self.inner.delete(key)).boxed()
    }
}

/// A process that can be frozen.
struct Process {
    paused: Paused,
    engine: Engine,
}

impl Process {
    fn new(store: &MemoryStore, clock: &ManualClock, seed: u64) -> Self {
        Self::over(Paused::new(store), clock, seed)
    }

    fn over(paused: Paused, clock: &ManualClock, seed: u64) -> Self {
        let engine = common::engine(Arc::new(paused.clone()), clock, resources(), settings(), seed);
        Self { paused, engine }
    }

    fn transfer(&self, source: &Memory) -> Driven<(Report, Vec<Outcome>)> {
        let mut transfer = self.engine.transfer(Drip(Arc::new(source.clone()), 1));
        Driven::new(async move {
            let mut outcomes = Vec::new();
            while let Some(outcome) = transfer.next().await {
                outcomes.push(outcome);
            }
            (transfer.finish().await.unwrap(), outcomes)
        })
    }
}

/// Drives something until it is done, or frozen.
fn drive<T>(process: &Process, driven: &mut Driven<T>) -> Option<T> {
    let output = driven.poll();
    assert!(output.is_some() || process.paused.is_holding(), "it waits for nothing");
    output
}

/// A repository in which much can go wrong: mail of a forgotten mailbox, content of which comes again; the pack of a writer who died; mail that lives.
struct Scene {
    store: MemoryStore,
    clock: ManualClock,
    /// Has the forgotten mail in its index if it is a veteran.
    writer: Process,
    /// What the writer is to push: what lives, and what is new.
    source: Memory,
    living: Delivered,
    all: Delivered,
}

impl Scene {
    fn new(is_veteran: bool) -> Self {
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
        let mut operations = 0;
        while keys(&store, "packs/").len() == packs {
            dead.paused.hold_after(operations);
            operations = 1;
            assert!(drive(&dead, &mut transfer).is_none());
            dead.paused.release();
            dead.paused.hold_after(1);
        }
        drop(transfer);
        forget(&process(&store, &clock, 3), "old");
        if !is_veteran {
            writer = Process::new(&store, &clock, 4);
        }
        let mut all = living.clone();
        all.extend(mail(&source, "alice", &[1, 31]));
        all.extend(mail(&source, "carol", &[2, 12, 32]));
        Self { store, clock, writer, source, living, all }
    }

    fn process(&self, seed: u64) -> Engine {
        process(&self.store, &self.clock, seed)
    }

    /// That everything acknowledged is there and sound; that the rest can be pushed; and that no garbage stays.
    fn verify(&self, outcomes: &[Outcome], what: &str) {
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
}

#[test]
fn a_writer_that_sleeps_before_any_of_its_operations_while_sweeps_run_loses_nothing_that_it_acknowledged() {
    for (is_veteran, sweeps) in [(false, 1), (true, 1), (true, 2), (false, 3)] {
        let (mut at, mut pending, mut fenced) = (0, 0, 0);
        loop {
            let scene = Scene::new(is_veteran);
            let what = format!("veteran {is_veteran}, {sweeps} sweeps before operation {at}");
            scene.writer.paused.hold_after(at);
            let mut transfer = scene.writer.transfer(&scene.source);
            let done = drive(&scene.writer, &mut transfer);
            for number in 0..sweeps {
                fenced += sweep(&scene.process(500 + number)).fenced_journals;
            }
            let is_over = done.is_some();
            scene.writer.paused.release();
            let (report, outcomes) = done.unwrap_or_else(|| drive(&scene.writer, &mut transfer).unwrap());
            report.ledger.verify().unwrap();
            pending += report.ledger.messages.pending;
            scene.verify(&outcomes, &what);
            if is_over {
                break;
            }
            at += 1;
        }
        assert!(at > 20 && fenced > 20, "{at} operations, {fenced} fences");
        assert!(pending > 0, "no commit was ever dropped");
    }
}

#[test]
fn a_writer_that_sleeps_while_its_mailbox_is_pushed_forgotten_and_swept_acknowledges_nothing_that_is_not_there() {
    let mut at = 0;
    loop {
        let scene = Scene::new(at % 2 == 0);
        scene.writer.paused.hold_after(at);
        let mut transfer = scene.writer.transfer(&scene.source);
        let done = drive(&scene.writer, &mut transfer);
        let before = scene.process(8);
        let is_carol_there = block_on(before.repository().mailboxes()).unwrap().contains(&name("carol"));
        // Others take the places where it is about to commit; then these commits are deleted.
        let others = Memory::new(SourceId::new([2; 16]));
        mail(&others, "carol", &[41, 42, 43, 44]);
        push(&before, Drip(Arc::new(others), 1));
        forget(&before, "carol");
        assert!(sweep(&before).deleted_commits.objects >= 4);
        scene.writer.paused.release();
        let is_over = done.is_some();
        let (report, mut outcomes) = done.unwrap_or_else(|| drive(&scene.writer, &mut transfer).unwrap());
        report.ledger.verify().unwrap();
        // What was acknowledged before it was forgotten is forgotten.
        outcomes.retain(|outcome| *outcome.mailbox == name("alice") || !is_over && !is_carol_there);
        scene.verify(&outcomes, &format!("before operation {at}"));
        if is_over {
            break;
        }
        at += 1;
    }
    assert!(at > 20, "{at} operations");
}

#[test]
fn a_message_that_is_appended_is_acknowledged_or_refused_whatever_is_swept_meanwhile() {
    let (mut at, mut refused) = (0, 0);
    loop {
        let scene = Scene::new(true);
        let (appender, transfer) = scene.writer.engine.append_to(name("dave"), SourceId::new([3; 16]));
        // Content of the forgotten mailbox, and new content.
        let messages: Vec<Vec<u8>> = [1, 51].map(|content| with_attachment(2000 + content, content, 40_000)).into();
        let octets = messages;
        scene.writer.paused.hold_after(at);
        let mut driven = Driven::new(future::join(
            async move {
                let mut settled = Vec::new();
                for (number, octets) in octets.into_iter().enumerate() {
                    let identity = Identity::Named(number.to_string().into());
                    settled.push(appender.append(mailrail::message::Envelope::new("", identity), octets).await);
                }
                settled
            },
            transfer.finish(),
        ));
        let done = drive(&scene.writer, &mut driven);
        for seed in 500..502 {
            sweep(&scene.process(seed));
        }
        scene.writer.paused.release();
        let is_over = done.is_some();
        let (settled, report) = done.unwrap_or_else(|| drive(&scene.writer, &mut driven).unwrap());
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
        forget_if_there(&scene, "dave");
        scene.verify(&[], &format!("before operation {at}"));
        if is_over {
            break;
        }
        at += 1;
    }
    assert!(at > 10 && refused > 0, "{at} operations, {refused} refused");
}

#[test]
fn an_appender_that_wakes_while_a_sweep_is_open_acknowledges_nothing_that_the_next_sweep_deletes() {
    let (mut at, mut refused) = (0, 0);
    loop {
        let scene = Scene::new(true);
        let what = format!("before operation {at}");
        let (appender, transfer) = scene.writer.engine.append_to(name("dave"), SourceId::new([3; 16]));
        let envelope = |number: &'static str| {
            mailrail::message::Envelope::new("", Identity::Named(Bytes::from_static(number.as_bytes())))
        };
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
        let mut sweeping = Driven::new(sweeper.engine.sweep().finish());
        assert!(sweep_until(&sweeper, &mut sweeping, &scene.store, "sweeps/0000000000000001"));
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
        drive(&sweeper, &mut sweeping).unwrap().unwrap();
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
        forget_if_there(&scene, "dave");
        scene.verify(&[], &what);
        if is_over {
            break;
        }
        at += 1;
    }
    assert!(at > 5 && refused > 0, "{at} operations, {refused} refused");
}

fn forget_if_there(scene: &Scene, mailbox: &str) {
    let engine = scene.process(800);
    if block_on(engine.repository().mailboxes()).unwrap().contains(&name(mailbox)) {
        forget(&engine, mailbox);
    }
}

#[test]
fn a_sweeper_that_sleeps_before_any_of_its_operations_while_a_writer_runs_deletes_nothing_that_is_needed() {
    for is_veteran in [false, true] {
        let (mut at, mut pardoned) = (0, 0);
        loop {
            let scene = Scene::new(is_veteran);
            let sweeper = Process::new(&scene.store, &scene.clock, 5);
            sweeper.paused.hold_after(at);
            let mut driven = Driven::new(sweeper.engine.sweep().finish());
            let done = drive(&sweeper, &mut driven);
            let mut transfer = scene.writer.transfer(&scene.source);
            let (report, outcomes) = drive(&scene.writer, &mut transfer).unwrap();
            report.ledger.verify().unwrap();
            sweeper.paused.release();
            let is_over = done.is_some();
            let swept = done.unwrap_or_else(|| drive(&sweeper, &mut driven).unwrap()).unwrap();
            pardoned += swept.pardoned;
            scene.verify(&outcomes, &format!("veteran {is_veteran}, a writer before operation {at} of the sweep"));
            if is_over {
                break;
            }
            at += 1;
        }
        assert!(at > 30, "{at} operations");
        assert!(pardoned > 0, "no pack was ever pardoned");
    }
}

#[test]
fn a_sweep_that_dies_anywhere_is_carried_out_by_the_next() {
    let mut at = 0;
    loop {
        let scene = Scene::new(false);
        let sweeper = Process::new(&scene.store, &scene.clock, 5);
        sweeper.paused.hold_after(at);
        let mut driven = Driven::new(sweeper.engine.sweep().finish());
        let is_over = drive(&sweeper, &mut driven).is_some();
        drop(driven);
        let (_, outcomes) = drive(&scene.writer, &mut scene.writer.transfer(&scene.source)).unwrap();
        scene.verify(&outcomes, &format!("died before operation {at}"));
        if is_over {
            break;
        }
        at += 1;
    }
    assert!(at > 30, "{at} operations");
}

#[test]
fn a_sweeper_that_sleeps_while_another_sweeps_and_mail_is_forgotten_and_pushed_again_does_no_harm() {
    let mut at = 0;
    loop {
        let scene = Scene::new(false);
        let sweeper = Process::new(&scene.store, &scene.clock, 5);
        sweeper.paused.hold_after(at);
        let mut driven = Driven::new(sweeper.engine.sweep().finish());
        let done = drive(&sweeper, &mut driven);
        // What was condemned is needed, and pardoned; then it is forgotten, and needed again.
        let (_, outcomes) = drive(&scene.writer, &mut scene.writer.transfer(&scene.source)).unwrap();
        drop(outcomes);
        let other = scene.process(6);
        sweep(&other);
        forget(&other, "carol");
        if at % 2 == 0 {
            sweep(&other);
        }
        let pusher = scene.process(7);
        push(&pusher, scene.source.clone());
        sweeper.paused.release();
        let is_over = done.is_some();
        done.unwrap_or_else(|| drive(&sweeper, &mut driven).unwrap()).unwrap();
        scene.verify(&[], &format!("another sweep before operation {at}"));
        if is_over {
            break;
        }
        at += 1;
    }
    assert!(at > 30, "{at} operations");
}

/// Lets a sweep go on, operation by operation, until there is an object of this name.
fn sweep_until(sweeper: &Process, sweep: &mut Driven<Result<SweepReport>>, store: &MemoryStore, key: &str) -> bool {
    loop {
        if keys(store, "sweeps/").iter().any(|listed| listed == key) {
            return true;
        }
        sweeper.paused.release();
        sweeper.paused.hold_after(1);
        if drive(sweeper, sweep).is_some() {
            return false;
        }
    }
}

#[test]
fn what_another_sweeper_pardoned_is_not_deleted_by_one_who_finds_it_needless_later() {
    let mut pardoned = 0;
    for at in 0.. {
        let mut is_over = false;
        for later in 0.. {
            let scene = Scene::new(false);
            let what = format!("writer before operation {at}, sweeper before operation {later}");
            let source = Memory::new(SOURCE);
            mail(&source, "erin", &[1]);
            // The writer is about to point at what is forgotten.
            scene.writer.paused.hold_after(at);
            let mut transfer = scene.writer.transfer(&source);
            is_over = drive(&scene.writer, &mut transfer).is_some();
            // A sweeper condemns it, and sleeps. The writer commits; another sweeper pardons it; then it is forgotten.
            let sweeper = Process::new(&scene.store, &scene.clock, 5);
            let mut driven = Driven::new(sweeper.engine.sweep().finish());
            sweeper.paused.hold_after(0);
            if !sweep_until(&sweeper, &mut driven, &scene.store, "sweeps/0000000000000001") {
                break;
            }
            // It reads its mark, and sees no verdict.
            sweeper.paused.release();
            sweeper.paused.hold_after(2);
            assert!(drive(&sweeper, &mut driven).is_none());
            scene.writer.paused.release();
            if !is_over {
                drive(&scene.writer, &mut transfer).unwrap();
            }
            let other = scene.process(6);
            pardoned += sweep(&other).pardoned;
            forget_if_there(&scene, "erin");
            // The sweeper looks again, and sleeps. It is needed again. The sweeper deletes.
            sweeper.paused.release();
            sweeper.paused.hold_after(later);
            let done = drive(&sweeper, &mut driven);
            let fay = Memory::new(SOURCE);
            mail(&fay, "fay", &[1]);
            push(&scene.process(7), fay);
            sweeper.paused.release();
            let is_done = done.is_some();
            done.unwrap_or_else(|| drive(&sweeper, &mut driven).unwrap()).unwrap();
            forget_unless_sound(&scene, "fay", &what);
            scene.verify(&[], &what);
            if is_done {
                break;
            }
        }
        if is_over {
            break;
        }
    }
    assert!(pardoned > 0, "no pack was ever pardoned");
}

/// Forgets a mailbox of one message, which must be there.
fn forget_unless_sound(scene: &Scene, mailbox: &str, what: &str) {
    let engine = scene.process(810);
    let (found, report) = delivered(&engine);
    assert_eq!(report.failed, 0, "{what}: {report:#?}");
    assert!(found.keys().any(|(found, ..)| found == mailbox), "{what}");
    forget(&engine, mailbox);
}

#[test]
fn a_pack_that_is_written_again_when_it_was_deleted_already_is_not_used() {
    for at in 0.. {
        let mut scene = Scene::new(false);
        let paused = Paused { writes_twice: true, ..Paused::new(&scene.store) };
        scene.writer = Process::over(paused, &scene.clock, 4);
        scene.writer.paused.hold_after(at);
        let mut transfer = scene.writer.transfer(&scene.source);
        let is_over = drive(&scene.writer, &mut transfer).is_some();
        // The first sweep fences the writer. The second condemns what it wrote; one who carries it out sleeps before deleting anything, another does.
        sweep(&scene.process(50));
        let sweeper = Process::new(&scene.store, &scene.clock, 5);
        let mut driven = Driven::new(sweeper.engine.sweep().finish());
        sweeper.paused.hold_after(0);
        let is_open = sweep_until(&sweeper, &mut driven, &scene.store, "sweeps/0000000000000002-verdict");
        sweep(&scene.process(51));
        scene.writer.paused.release();
        let mut outcomes = Vec::new();
        if !is_over {
            outcomes = drive(&scene.writer, &mut transfer).unwrap().1;
        }
        sweeper.paused.release();
        if is_open {
            drive(&sweeper, &mut driven).unwrap().unwrap();
        }
        scene.verify(&outcomes, &format!("before operation {at}"));
        if is_over {
            assert!(at > 20, "{at} operations");
            break;
        }
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
fn writer_and_sweeper_interleave_anyhow() {
    for seed in 0..400_u64 {
        let scene = Scene::new(seed % 2 == 0);
        let sweepers: Vec<Process> =
            (0..1 + seed % 3).map(|number| Process::new(&scene.store, &scene.clock, 5 + number)).collect();
        let mut sweeps: Vec<_> =
            sweepers.iter().map(|sweeper| Some(Driven::new(sweeper.engine.sweep().finish()))).collect();
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
                scene.writer.paused.release();
                scene.writer.paused.hold_after(steps);
                if let Some((report, told)) = drive(&scene.writer, driven) {
                    report.ledger.verify().unwrap();
                    (transfer, outcomes) = (None, told);
                }
            } else {
                let (sweeper, Some(driven)) = (&sweepers[who], &mut sweeps[who]) else { continue };
                sweeper.paused.release();
                sweeper.paused.hold_after(steps);
                if let Some(report) = drive(sweeper, driven) {
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
    while keys(&store, "packs/").is_empty() {
        dead.paused.release();
        dead.paused.hold_after(1);
        assert!(drive(&dead, &mut transfer).is_none());
    }
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
    let mut at = 0;
    loop {
        let scene = Scene::new(false);
        let reader = Process::new(&scene.store, &scene.clock, 5);
        reader.paused.hold_after(at);
        let mut check = Driven::new(reader.engine.check().read_data(true).finish());
        let done = drive(&reader, &mut check);
        for seed in 500..502 {
            sweep(&scene.process(seed));
        }
        reader.paused.release();
        let is_over = done.is_some();
        let report = done.unwrap_or_else(|| drive(&reader, &mut check).unwrap()).unwrap();
        assert!(report.is_sound(), "before operation {at}: {report:#?}");
        if is_over {
            break;
        }
        at += 1;
    }
    assert!(at > 15, "{at} operations");
}

#[test]
fn a_restore_that_sleeps_while_the_past_is_forgotten_and_swept_gives_all_that_is_there_now() {
    let mut at = 0;
    loop {
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
        reader.paused.hold_after(at);
        let sink = mailrail::testing::sink::Memory::new(mailrail::source::Kind::Other("memory".into()));
        let mut restore = Driven::new(reader.engine.restore(sink.clone()).finish());
        let done = drive(&reader, &mut restore);
        let before = clock.now().as_nanos() as u64;
        block_on(process(&store, &clock, 3).forget().all_mailboxes().before(before).finish()).unwrap();
        assert_eq!(sweep(&process(&store, &clock, 4)).deleted_commits.objects, 1);
        reader.paused.release();
        let is_over = done.is_some();
        let report = done.unwrap_or_else(|| drive(&reader, &mut restore).unwrap()).unwrap();
        assert_eq!(report.failed, 0, "before operation {at}: {report:#?}");
        let messages: usize = sink.mailboxes().values().map(|mailbox| mailbox.messages.len()).sum();
        assert_eq!(messages, expected.len(), "before operation {at}");
        if is_over {
            break;
        }
        at += 1;
    }
    assert!(at > 5, "{at} operations");
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

// Packs that are mostly dead.

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
        process(&self.store, &self.clock, seed)
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
    let mut at = 0;
    loop {
        let scene = MostlyDead::new();
        let what = format!("died before operation {at}");
        let sweeper = Process::new(&scene.store, &scene.clock, 5);
        sweeper.paused.hold_after(at);
        let mut driven = Driven::new(sweeper.engine.sweep().finish());
        let is_over = drive(&sweeper, &mut driven).is_some();
        drop(driven);
        scene.assert_whole(20, &what);
        for seed in 30..32 {
            sweep(&scene.process(seed));
        }
        let last = sweep(&scene.process(33));
        assert_eq!((last.epoch, last.mostly_dead.objects), (0, 0), "{what}: {last:#?}");
        let check = scene.assert_whole(40, &what);
        assert_eq!(check.orphans, 0, "{what}: {check:#?}");
        if is_over {
            break;
        }
        at += 1;
    }
    assert!(at > 40, "{at} operations");
}

#[test]
fn a_sweeper_that_sleeps_while_it_writes_anew_and_writers_and_sweepers_run_moves_nothing_away_from_anybody() {
    let (mut at, mut pardoned) = (0, 0);
    loop {
        let mut scene = MostlyDead::new();
        let what = format!("others before operation {at}");
        let writer = Process::new(&scene.store, &scene.clock, 6);
        // It has the index, and finds content there that nobody else needs.
        let first = Memory::new(SOURCE);
        scene.expected.extend(mail(&first, "first", &[501]));
        push(&writer.engine, first.clone());
        let sweeper = Process::new(&scene.store, &scene.clock, 5);
        sweeper.paused.hold_after(at);
        let mut driven = Driven::new(sweeper.engine.sweep().finish());
        let done = drive(&sweeper, &mut driven);
        let hits = Memory::new(SOURCE);
        scene.expected.extend(mail(&hits, "hits", &[3, 4, 5]));
        push(&writer.engine, hits.clone());
        if at % 2 == 0 {
            sweep(&scene.process(7));
        }
        sweeper.paused.release();
        let is_over = done.is_some();
        let swept = done.unwrap_or_else(|| drive(&sweeper, &mut driven).unwrap()).unwrap();
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
        if is_over {
            break;
        }
        at += 1;
    }
    assert!(at > 40 && pardoned > 0, "{at} operations, {pardoned} pardoned");
}

#[test]
fn a_writer_that_sleeps_while_what_it_is_about_to_point_at_is_written_anew_loses_nothing() {
    for sweeps in [1, 2] {
        let mut at = 0;
        loop {
            let mut scene = MostlyDead::new();
            let what = format!("{sweeps} sweeps before operation {at}");
            let writer = Process::new(&scene.store, &scene.clock, 6);
            let hits = Memory::new(SOURCE);
            scene.expected.extend(mail(&hits, "hits", &[3, 4, 5, 10]));
            writer.paused.hold_after(at);
            let mut transfer = writer.transfer(&hits);
            let done = drive(&writer, &mut transfer);
            for number in 0..sweeps {
                sweep(&scene.process(50 + number));
            }
            writer.paused.release();
            let is_over = done.is_some();
            let (report, _) = done.unwrap_or_else(|| drive(&writer, &mut transfer).unwrap());
            report.ledger.verify().unwrap();
            push(&scene.process(8), hits);
            scene.assert_whole(20, &what);
            for seed in 30..33 {
                sweep(&scene.process(seed));
            }
            let check = scene.assert_whole(40, &what);
            assert_eq!(check.orphans, 0, "{what}: {check:#?}");
            if is_over {
                break;
            }
            at += 1;
        }
        assert!(at > 15, "{at} operations");
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

// Damage and sweeps.

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
        process(&self.store, &self.clock, seed)
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
        let (mut at, mut fenced, mut whole) = (0, 0, 0);
        loop {
            let damaged = Damaged::new();
            let what = format!("{sweeps} sweeps before operation {at}");
            let sleeper = Process::new(&damaged.store, &damaged.clock, 5);
            sleeper.paused.hold_after(at);
            let engine = sleeper.engine.clone();
            let mut repair = Driven::new(async move { engine.repair().finish().await });
            let done = drive(&sleeper, &mut repair);
            for number in 0..sweeps {
                sweep(&damaged.process(500 + number));
            }
            let is_over = done.is_some();
            sleeper.paused.release();
            match done.unwrap_or_else(|| drive(&sleeper, &mut repair).unwrap()) {
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
            if is_over {
                break;
            }
            at += 1;
        }
        assert!(at > 20 && fenced > 3 && whole > 0, "{at} operations, {fenced} fenced, {whole} whole");
    }
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
}
