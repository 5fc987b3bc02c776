//! A store that fails for now is tried again, and no longer than is sensible.
#![cfg(feature = "testing")]

use futures::TryStreamExt;
use futures::executor::block_on;
use mailrail::ErrorKind;
use mailrail::runtime::Clock;
use mailrail::store::{Created, MemoryStore, Payload, Retries, RetryingStore, Store};
use mailrail::testing::{Fault, FaultyStore, ManualClock, Operation, Plan, ThrottledStore};
use std::sync::Arc;
use std::time::Duration;

fn retrying(inner: Arc<dyn Store>, clock: &ManualClock) -> RetryingStore {
    RetryingStore::new(inner, Retries::default(), Arc::new(clock.clone()), 1)
}

#[test]
fn what_is_unavailable_for_a_while_is_tried_again_with_growing_pauses() {
    let faulty = FaultyStore::new(Arc::new(MemoryStore::new()));
    let clock = ManualClock::new(Duration::ZERO);
    let store = retrying(Arc::new(faulty.clone()), &clock);
    for operation in [Operation::Put, Operation::Create, Operation::Read, Operation::Length, Operation::List] {
        let before = clock.now();
        faulty.plan(Plan::new(operation, Fault::Before(ErrorKind::Unavailable)).times(4));
        block_on(async {
            store.put("a", Payload::default()).await.unwrap();
            assert_eq!(
                store.create(&format!("{operation:?}").to_lowercase(), Payload::default()).await.unwrap(),
                Created::New
            );
            assert_eq!(store.read("a", None).await.unwrap().len(), 0);
            assert_eq!(store.length("a").await.unwrap(), Some(0));
            assert!(!store.list("").try_collect::<Vec<_>>().await.unwrap().is_empty());
        });
        // 100, 200, 400 and 800 ms, each with up to as much again.
        let paused = clock.now() - before;
        assert!((Duration::from_millis(1500)..=Duration::from_millis(3000)).contains(&paused), "{paused:?}");
    }
}

#[test]
fn what_does_not_come_back_is_given_up_and_what_cannot_get_better_is_not_tried_again() {
    let faulty = FaultyStore::new(Arc::new(MemoryStore::new()));
    let clock = ManualClock::new(Duration::ZERO);
    let store = retrying(Arc::new(faulty.clone()), &clock);
    faulty.plan(Plan::new(Operation::Put, Fault::Before(ErrorKind::Unavailable)).forever());
    assert_eq!(block_on(store.put("a", Payload::default())).unwrap_err().kind(), ErrorKind::Unavailable);
    assert_eq!(faulty.struck(), 10);
    faulty.heal();
    faulty.plan(Plan::new(Operation::Put, Fault::Before(ErrorKind::Full)).forever());
    assert_eq!(block_on(store.put("a", Payload::default())).unwrap_err().kind(), ErrorKind::Full);
    assert_eq!(faulty.struck(), 11);
}

#[test]
fn a_store_that_says_when_to_come_back_is_believed_within_reason() {
    for (asked, paused) in [(7, 7), (3600, 30)] {
        let clock = ManualClock::new(Duration::ZERO);
        let throttled = ThrottledStore::new(Arc::new(MemoryStore::new()), 2, Duration::from_secs(asked));
        block_on(retrying(Arc::new(throttled), &clock).put("a", Payload::default())).unwrap();
        assert_eq!(clock.now(), Duration::from_secs(paused));
    }
}
