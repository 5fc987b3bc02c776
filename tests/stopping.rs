//! Stopping a transfer anywhere.
#![cfg(all(feature = "organisation", feature = "testing"))]

use futures::task::noop_waker;
use mailrail::organisation::Organisation;
use mailrail::sink::DryRun;
use mailrail::store::MemoryStore;
use mailrail::{Engine, Protection, Repository, Resources};
use std::future::poll_fn;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll};

/// Polls a future that needs nobody to wake it; one that is not ready after so many polls never will be.
#[track_caller]
fn driven<T>(future: impl Future<Output = T>) -> T {
    const POLLS_MAX: usize = 100_000;
    let mut future = pin!(future);
    let waker = noop_waker();
    let mut context = Context::from_waker(&waker);
    for _ in 0..POLLS_MAX {
        if let Poll::Ready(value) = future.as_mut().poll(&mut context) {
            return value;
        }
    }
    panic!("it hangs");
}

/// Resolves when it is polled for the nth time.
fn at_poll(n: usize) -> impl Future<Output = ()> + Send + 'static {
    let mut polls = 0;
    poll_fn(move |_| {
        polls += 1;
        if polls > n { Poll::Ready(()) } else { Poll::Pending }
    })
}

#[test]
fn a_transfer_stopped_at_any_step_ends_and_the_next_goes_on() {
    let organisation = Organisation::new(5).mailboxes(4).bytes(1_000_000).build();
    let messages = organisation.message_count();
    for n in 0.. {
        let engine = driven(async {
            let repository = Repository::open_or_create(Arc::new(MemoryStore::new()), Protection::None).await.unwrap();
            Engine::builder(repository).resources(Resources::inline(32 << 20).unwrap()).build().unwrap()
        });
        let stopped = driven(engine.transfer(organisation.clone()).shutdown_on(at_poll(n)).finish()).unwrap();
        let ledger = &stopped.ledger.messages;
        assert_eq!(ledger.seen, ledger.stored + ledger.pending, "step {n}");
        assert!(stopped.stopped || ledger.stored == messages, "step {n}");
        let kept = driven(engine.restore(DryRun::new()).finish()).unwrap();
        assert_eq!((kept.restored, kept.failed), (ledger.stored, 0), "step {n}");
        let next = driven(engine.transfer(organisation.clone()).finish()).unwrap();
        assert_eq!((next.ledger.messages.unchanged, next.ledger.messages.pending), (ledger.stored, 0), "step {n}");
        assert_eq!(next.ledger.messages.stored, messages - ledger.stored, "step {n}");
        if !stopped.stopped {
            // It was at its end before it was told to stop.
            assert!(n > 10);
            return;
        }
    }
}
