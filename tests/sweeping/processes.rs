//! Processes that are driven by hand: each sleeps before any of its operations on the store, while others do something, and goes on or dies.

use crate::common::{self, Drip, Driven};
use crate::world::{resources, settings};
use bytes::Bytes;
use futures::future::{self, BoxFuture, FutureExt};
use futures::stream::{self, BoxStream, StreamExt};
use mailrail::source::{Memory, Source};
use mailrail::store::{Created, Listed, MemoryStore, Payload, Store};
use mailrail::sweep::SweepReport;
use mailrail::testing::ManualClock;
use mailrail::transfer::{Outcome, Report};
use mailrail::{Engine, Result};
use std::ops::Range;
use std::sync::{Arc, Mutex};
use std::task::{Poll, Waker};

/// Tells a story in which somebody sleeps before operation number 0, then the same with number 1, and so on, up to the first in which the sleeper was
/// done before it came to that operation: then the story says `true`. Gives how many operations there were.
pub(crate) fn before_each_operation(mut story: impl FnMut(usize) -> bool) -> usize {
    let mut at = 0;
    while !story(at) {
        at += 1;
    }
    at
}

/// A process that can be frozen.
pub(crate) struct Process {
    pub(crate) paused: Paused,
    pub(crate) engine: Engine,
}

impl Process {
    pub(crate) fn new(store: &MemoryStore, clock: &ManualClock, seed: u64) -> Self {
        Self::over(Paused::new(store), clock, seed)
    }

    pub(crate) fn over(paused: Paused, clock: &ManualClock, seed: u64) -> Self {
        let engine = common::engine(Arc::new(paused.clone()), clock, resources(), settings(), seed);
        Self { paused, engine }
    }

    pub(crate) fn transfer(&self, source: &Memory) -> Driven<(Report, Vec<Outcome>)> {
        self.transfer_of(Drip(Arc::new(source.clone()), 1))
    }

    /// The same of any source, with as many messages in a batch as it gives.
    pub(crate) fn transfer_of(&self, source: impl Source) -> Driven<(Report, Vec<Outcome>)> {
        let mut transfer = self.engine.transfer(source);
        Driven::new(async move {
            let mut outcomes = Vec::new();
            while let Some(outcome) = transfer.next().await {
                outcomes.push(outcome);
            }
            (transfer.finish().await.unwrap(), outcomes)
        })
    }

    pub(crate) fn sweep(&self) -> Driven<Result<SweepReport>> {
        Driven::new(self.engine.sweep().finish())
    }

    /// Drives something until it is done, or frozen.
    pub(crate) fn drive<T>(&self, driven: &mut Driven<T>) -> Option<T> {
        let output = driven.poll();
        assert!(output.is_some() || self.paused.is_holding(), "it waits for nothing");
        output
    }

    /// Drives something, operation by operation, until `is_so`; says whether it ever was. If not, what was driven is done.
    pub(crate) fn drive_until<T>(&self, driven: &mut Driven<T>, mut is_so: impl FnMut() -> bool) -> bool {
        while !is_so() {
            self.paused.hold_after(1);
            if self.drive(driven).is_some() {
                return false;
            }
        }
        true
    }

    /// Lets it do so many operations of something, and holds it before the next.
    pub(crate) fn asleep_after<T>(&self, operations: usize, mut driven: Driven<T>) -> Asleep<'_, T> {
        self.paused.hold_after(operations);
        let output = self.drive(&mut driven);
        Asleep { process: self, driven, output }
    }
}

/// What a process is held in the middle of; or its output, where it was done before. To drop it is to let the process die.
pub(crate) struct Asleep<'a, T> {
    process: &'a Process,
    driven: Driven<T>,
    output: Option<T>,
}

impl<T> Asleep<'_, T> {
    pub(crate) fn is_done(&self) -> bool {
        self.output.is_some()
    }

    /// Lets it go on to its end.
    pub(crate) fn wake(mut self) -> T {
        self.process.paused.release();
        self.output.unwrap_or_else(|| self.process.drive(&mut self.driven).unwrap())
    }
}

/// Hands everything to a store until it is told to hold on; then no operation begins until it is released.
#[derive(Clone, Debug)]
pub(crate) struct Paused {
    inner: MemoryStore,
    /// Packs are written twice, as by a client that lost an answer and tries again by itself.
    writes_twice: bool,
    state: Arc<Mutex<State>>,
}

#[derive(Debug, Default)]
struct State {
    /// How many operations may begin; all, if not told.
    left: Option<usize>,
    /// The key or prefix of the last operation that began.
    last: String,
    waiting: Vec<Waker>,
}

impl Paused {
    pub(crate) fn new(inner: &MemoryStore) -> Self {
        Self { inner: inner.clone(), writes_twice: false, state: Arc::default() }
    }

    pub(crate) fn writing_twice(inner: &MemoryStore) -> Self {
        Self { writes_twice: true, ..Self::new(inner) }
    }

    /// Only so many operations more, with those that wait.
    pub(crate) fn hold_after(&self, operations: usize) {
        self.go_on(Some(operations));
    }

    pub(crate) fn release(&self) {
        self.go_on(None);
    }

    fn go_on(&self, operations: Option<usize>) {
        let mut state = self.state.lock().unwrap();
        state.left = operations;
        state.waiting.drain(..).for_each(Waker::wake);
    }

    pub(crate) fn is_holding(&self) -> bool {
        !self.state.lock().unwrap().waiting.is_empty()
    }

    /// Whether the last operation that began was on this object.
    pub(crate) fn has_come_to(&self, key: &str) -> bool {
        self.state.lock().unwrap().last == key
    }

    async fn pass(&self, key: &str) {
        future::poll_fn(|cx| {
            let mut state = self.state.lock().unwrap();
            if state.left == Some(0) {
                state.waiting.push(cx.waker().clone());
                return Poll::Pending;
            }
            state.left = state.left.map(|left| left - 1);
            key.clone_into(&mut state.last);
            Poll::Ready(())
        })
        .await;
    }
}

impl Store for Paused {
    fn put<'a>(&'a self, key: &'a str, payload: Payload) -> BoxFuture<'a, Result<()>> {
        let again = payload.clone();
        let put = self.pass(key).then(|()| self.inner.put(key, payload));
        if !self.writes_twice || !key.starts_with("packs/") {
            return put.boxed();
        }
        put.then(|_| self.pass(key)).then(|()| self.inner.put(key, again)).boxed()
    }

    fn create<'a>(&'a self, key: &'a str, payload: Payload) -> BoxFuture<'a, Result<Created>> {
        self.pass(key).then(|()| self.inner.create(key, payload)).boxed()
    }

    fn read<'a>(&'a self, key: &'a str, range: Option<Range<u64>>) -> BoxFuture<'a, Result<Bytes>> {
        self.pass(key).then(|()| self.inner.read(key, range)).boxed()
    }

    fn length<'a>(&'a self, key: &'a str) -> BoxFuture<'a, Result<Option<u64>>> {
        self.pass(key).then(|()| self.inner.length(key)).boxed()
    }

    fn list<'a>(&'a self, prefix: &'a str) -> BoxStream<'a, Result<Listed>> {
        let listed = self.pass(prefix).then(|()| self.inner.list(prefix).collect::<Vec<_>>());
        listed.map(stream::iter).flatten_stream().boxed()
    }

    fn delete<'a>(&'a self, key: &'a str) -> BoxFuture<'a, Result<()>> {
        self.pass(key).then(|()| self.inner.delete(key)).boxed()
    }
}
