//! A store that fails as planned.

use super::Operation;
use crate::error::{Error, ErrorKind, Result};
use crate::store::{Created, Listed, Payload, Store};
use bytes::{Bytes, BytesMut};
use futures::future::{self, BoxFuture, FutureExt};
use futures::stream::{self, BoxStream, StreamExt};
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Hands everything to another store, but for the faults that are planned. Clones share the plans.
///
/// ```
/// # use mailrail::{ErrorKind, store::{MemoryStore, Store}, testing::{Fault, FaultyStore, Operation, Plan}};
/// # use std::sync::Arc;
/// let store = FaultyStore::new(Arc::new(MemoryStore::new()));
/// // The third pack that is written gets there, but the writer never learns of it.
/// store.plan(Plan::new(Operation::Put, Fault::After(ErrorKind::Unavailable)).below("packs/").skipping(2));
/// ```
#[derive(Clone, Debug)]
pub struct FaultyStore {
    inner: Arc<dyn Store>,
    state: Arc<Mutex<State>>,
}

#[derive(Debug, Default)]
struct State {
    plans: Vec<Plan>,
    struck: u64,
}

/// What goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Fault {
    /// An error of this kind, and the operation had no effect. A listing fails before its first object.
    Before(ErrorKind),
    /// An error of this kind, though the operation took effect: an answer that was lost. A listing fails after its last object.
    After(ErrorKind),
    /// The operation is done twice and the second answer is given: a client that lost the first answer and tried again by itself. So a
    /// `create` answers [`Exists`](Created::Exists) for an object that it created.
    Repeated,
    /// The answer never comes, though the operation took effect.
    Unanswered,
    /// This bit of what was read is the other one, counted from the lowest bit of the first octet, round and round. Only of `read`.
    FlippedBit(u64),
    /// Only this many octets of what was read are given, without an error. Only of `read`.
    Short(usize),
    /// The listing goes without the object at this place (the first is 0), without an error. Only of `list`.
    Omitted(usize),
}

impl Fault {
    fn can_strike(self, operation: Operation) -> bool {
        match self {
            Self::Before(_) | Self::After(_) | Self::Repeated | Self::Unanswered => true,
            Self::FlippedBit(_) | Self::Short(_) => operation == Operation::Read,
            Self::Omitted(_) => operation == Operation::List,
        }
    }
}

/// Which operations a fault strikes: at first, the next one of its kind.
#[derive(Clone, Debug)]
pub struct Plan {
    operation: Operation,
    fault: Fault,
    prefix: String,
    skip: u64,
    times: u64,
}

impl Plan {
    /// `fault` strikes the next `operation`.
    #[must_use]
    pub fn new(operation: Operation, fault: Fault) -> Self {
        Self { operation, fault, prefix: String::new(), skip: 0, times: 1 }
    }

    /// Only operations with keys (or listed prefixes) that begin with `prefix`.
    #[must_use]
    pub fn below(mut self, prefix: impl Into<String>) -> Self {
        self.prefix = prefix.into();
        self
    }

    /// Not the first `operations` of those.
    #[must_use]
    pub fn skipping(mut self, operations: u64) -> Self {
        self.skip = operations;
        self
    }

    /// As many in a row.
    #[must_use]
    pub fn times(mut self, times: u64) -> Self {
        self.times = times;
        self
    }

    /// All from then on.
    #[must_use]
    pub fn forever(self) -> Self {
        self.times(u64::MAX)
    }

    /// Takes note of an operation; whether the fault strikes it.
    fn strikes(&mut self, operation: Operation, key: &str) -> bool {
        let concerned =
            self.operation == operation && self.fault.can_strike(operation) && key.starts_with(&self.prefix);
        if !concerned || self.times == 0 {
            return false;
        }
        if self.skip > 0 {
            self.skip -= 1;
            return false;
        }
        self.times -= 1;
        true
    }
}

impl FaultyStore {
    /// A store without faults so far.
    #[must_use]
    pub fn new(inner: Arc<dyn Store>) -> Self {
        Self { inner, state: Arc::default() }
    }

    /// Plans a fault. Of several that strike one operation the one planned first does; the others do not count it.
    pub fn plan(&self, plan: Plan) {
        self.state().plans.push(plan);
    }

    /// Forgets all plans.
    pub fn heal(&self) {
        self.state().plans.clear();
    }

    /// How many operations were struck so far.
    #[must_use]
    pub fn struck(&self) -> u64 {
        self.state().struck
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn fault(&self, operation: Operation, key: &str) -> Option<Fault> {
        let mut state = self.state();
        let plan = state.plans.iter_mut().find_map(|plan| plan.strikes(operation, key).then_some(plan.fault));
        state.struck += u64::from(plan.is_some());
        plan
    }
}

#[deny(clippy::missing_trait_methods)]
impl Store for FaultyStore {
    fn put<'a>(&'a self, key: &'a str, payload: Payload) -> BoxFuture<'a, Result<()>> {
        async move { under(self.fault(Operation::Put, key), || self.inner.put(key, payload.clone())).await }.boxed()
    }

    fn create<'a>(&'a self, key: &'a str, payload: Payload) -> BoxFuture<'a, Result<Created>> {
        async move { under(self.fault(Operation::Create, key), || self.inner.create(key, payload.clone())).await }
            .boxed()
    }

    fn read<'a>(&'a self, key: &'a str, range: Option<Range<u64>>) -> BoxFuture<'a, Result<Bytes>> {
        async move {
            let fault = self.fault(Operation::Read, key);
            let octets = under(fault, || self.inner.read(key, range.clone())).await?;
            Ok(match fault {
                Some(Fault::FlippedBit(bit)) => flip(&octets, bit),
                Some(Fault::Short(length)) => octets.slice(..length.min(octets.len())),
                _ => octets,
            })
        }
        .boxed()
    }

    fn length<'a>(&'a self, key: &'a str) -> BoxFuture<'a, Result<Option<u64>>> {
        async move { under(self.fault(Operation::Length, key), || self.inner.length(key)).await }.boxed()
    }

    fn list<'a>(&'a self, prefix: &'a str) -> BoxStream<'a, Result<Listed>> {
        let listed = || self.inner.list(prefix);
        let failed = |kind| stream::once(future::ready(Err(planned(kind))));
        match self.fault(Operation::List, prefix) {
            Some(Fault::Before(kind)) => failed(kind).boxed(),
            Some(Fault::After(kind)) => listed().chain(failed(kind)).boxed(),
            Some(Fault::Unanswered) => listed().chain(stream::pending()).boxed(),
            Some(Fault::Omitted(place)) => {
                let kept = move |(at, listed)| future::ready((at != place).then_some(listed));
                listed().enumerate().filter_map(kept).boxed()
            }
            Some(Fault::Repeated | Fault::FlippedBit(_) | Fault::Short(_)) | None => listed(),
        }
    }

    fn delete<'a>(&'a self, key: &'a str) -> BoxFuture<'a, Result<()>> {
        async move { under(self.fault(Operation::Delete, key), || self.inner.delete(key)).await }.boxed()
    }
}

/// Does `act` under `fault`, as far as that concerns whether it takes effect and what becomes of its answer.
async fn under<'a, T>(fault: Option<Fault>, act: impl Fn() -> BoxFuture<'a, Result<T>>) -> Result<T> {
    match fault {
        Some(Fault::Before(kind)) => Err(planned(kind)),
        Some(Fault::After(kind)) => act().await.and_then(|_| Err(planned(kind))),
        Some(Fault::Repeated) => {
            act().await?;
            act().await
        }
        Some(Fault::Unanswered) => {
            act().await?;
            future::pending().await
        }
        Some(Fault::FlippedBit(_) | Fault::Short(_) | Fault::Omitted(_)) | None => act().await,
    }
}

fn planned(kind: ErrorKind) -> Error {
    Error::new(kind, "a planned fault")
}

fn flip(octets: &Bytes, bit: u64) -> Bytes {
    let mut flipped = BytesMut::from(&octets[..]);
    let bits = flipped.len() as u64 * 8;
    if bits > 0 {
        let bit = bit % bits;
        // Below the length, which is a `usize`.
        flipped[(bit / 8) as usize] ^= 1 << (bit % 8);
    }
    flipped.freeze()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::MemoryStore;

    fn faulty() -> (MemoryStore, FaultyStore) {
        let memory = MemoryStore::new();
        (memory.clone(), FaultyStore::new(Arc::new(memory)))
    }

    fn now<T>(future: impl Future<Output = T>) -> T {
        future.now_or_never().unwrap()
    }

    fn put(store: &dyn Store, key: &str) -> Result<()> {
        now(store.put(key, Payload::from(b"octets".to_vec())))
    }

    #[test]
    fn a_fault_strikes_the_planned_operation_and_no_other() {
        let (memory, store) = faulty();
        let fault = Fault::Before(ErrorKind::Full);
        store.plan(Plan::new(Operation::Put, fault).below("packs/").skipping(1).times(2));
        let results = ["packs/a", "config", "packs/b", "packs/c", "packs/d"].map(|key| put(&store, key).is_ok());
        assert_eq!(results, [true, true, false, false, true]);
        assert_eq!(store.struck(), 2);
        assert_eq!(now(memory.length("packs/b")).unwrap(), None);
    }

    #[test]
    fn a_lost_answer_leaves_the_object() {
        let (memory, store) = faulty();
        store.plan(Plan::new(Operation::Put, Fault::After(ErrorKind::Unavailable)));
        assert_eq!(put(&store, "a").unwrap_err().kind(), ErrorKind::Unavailable);
        assert_eq!(now(memory.length("a")).unwrap(), Some(6));
        store.plan(Plan::new(Operation::Put, Fault::Unanswered));
        assert!(store.put("b", Payload::default()).now_or_never().is_none());
        assert_eq!(now(memory.length("b")).unwrap(), Some(0));
    }

    #[test]
    fn a_repeated_create_finds_its_own_object() {
        let (_, store) = faulty();
        store.plan(Plan::new(Operation::Create, Fault::Repeated));
        assert_eq!(now(store.create("a", Payload::default())).unwrap(), Created::Exists);
    }

    #[test]
    fn what_is_read_is_damaged_as_planned_and_the_object_is_not() {
        let (memory, store) = faulty();
        put(&store, "a").unwrap();
        store.plan(Plan::new(Operation::Read, Fault::FlippedBit(48 + 9)));
        store.plan(Plan::new(Operation::Read, Fault::Short(2)));
        assert_eq!(now(store.read("a", None)).unwrap(), "oatets");
        assert_eq!(now(store.read("a", None)).unwrap(), "oc");
        assert_eq!(now(store.read("a", None)).unwrap(), "octets");
        assert_eq!(now(memory.read("a", None)).unwrap(), "octets");
    }

    #[test]
    fn a_listing_leaves_out_what_is_planned_or_fails() {
        let (_, store) = faulty();
        for key in ["a", "b", "c"] {
            put(&store, key).unwrap();
        }
        let listing = |fault| {
            store.heal();
            store.plan(Plan::new(Operation::List, fault));
            let listed: Vec<_> = now(store.list("").collect());
            listed
                .into_iter()
                .map(|listed| listed.map_or_else(|_| "error".to_owned(), |listed| listed.key))
                .collect::<Vec<_>>()
        };
        assert_eq!(listing(Fault::Omitted(1)), ["a", "c"]);
        assert_eq!(listing(Fault::Before(ErrorKind::Denied)), ["error"]);
        assert_eq!(listing(Fault::After(ErrorKind::Unavailable)), ["a", "b", "c", "error"]);
        assert_eq!(listing(Fault::Short(1)), ["a", "b", "c"]);
    }
}
