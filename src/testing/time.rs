//! Time that goes by when nothing else is to be done.

use crate::runtime::{Clock, Timer};
use futures::FutureExt;
use futures::future::BoxFuture;
use std::collections::BTreeMap;
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Wake, Waker};
use std::thread::{self, Thread};
use std::time::Duration;

/// A clock and a timer whose time goes by only while [`run`](Self::run) has nothing else to do, and then at once to the next end of a sleep: whatever takes a day in it takes no time, and
/// goes the same way each time. Clones are the same time. It begins at 1970-01-01T00:00:00Z.
#[derive(Clone, Debug, Default)]
pub struct VirtualTime(Arc<Mutex<Times>>);

#[derive(Debug, Default)]
struct Times {
    now: Duration,
    sleepers: BTreeMap<(Duration, u64), Option<Waker>>,
    slept: u64,
}

impl VirtualTime {
    /// Time that begins.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Drives a future to its end. Work that other threads do takes no time.
    pub fn run<T>(&self, future: impl Future<Output = T>) -> T {
        let mut future = pin!(future);
        let woken = Arc::new(Woken { is_woken: AtomicBool::new(true), thread: thread::current() });
        let waker = Waker::from(Arc::clone(&woken));
        loop {
            if woken.is_woken.swap(false, Ordering::AcqRel) {
                if let Poll::Ready(output) = future.as_mut().poll(&mut Context::from_waker(&waker)) {
                    return output;
                }
            } else if !self.go_on() {
                thread::park();
            }
        }
    }

    /// Goes on to the next end of a sleep, if there is one.
    fn go_on(&self) -> bool {
        let mut times = self.times();
        let Some(((end, _), waker)) = times.sleepers.pop_first() else { return false };
        times.now = times.now.max(end);
        drop(times);
        waker.into_iter().for_each(Waker::wake);
        true
    }

    fn times(&self) -> MutexGuard<'_, Times> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Clock for VirtualTime {
    fn now(&self) -> Duration {
        self.times().now
    }
}

impl Timer for VirtualTime {
    fn sleep(&self, time: Duration) -> BoxFuture<'static, ()> {
        let mut times = self.times();
        times.slept += 1;
        let end = (times.now.saturating_add(time), times.slept);
        times.sleepers.insert(end, None);
        Sleep { time: self.clone(), end }.boxed()
    }
}

struct Sleep {
    time: VirtualTime,
    end: (Duration, u64),
}

impl Future for Sleep {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        match self.time.times().sleepers.get_mut(&self.end) {
            Some(waker) => {
                *waker = Some(cx.waker().clone());
                Poll::Pending
            }
            None => Poll::Ready(()),
        }
    }
}

impl Drop for Sleep {
    fn drop(&mut self) {
        self.time.times().sleepers.remove(&self.end);
    }
}

struct Woken {
    is_woken: AtomicBool,
    thread: Thread,
}

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.is_woken.store(true, Ordering::Release);
        self.thread.unpark();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::future::{join, select};

    const fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn sleeps_end_in_order_and_those_that_are_dropped_take_no_time() {
        let time = VirtualTime::new();
        let ends = Mutex::new(Vec::new());
        let sleep = async |of: u64| {
            time.sleep(seconds(of)).await;
            ends.lock().unwrap().push((of, time.now()));
        };
        time.run(join(sleep(3), sleep(1)));
        time.run(async { drop(select(time.sleep(seconds(5)), time.sleep(seconds(500))).await) });
        time.run(sleep(2));
        assert_eq!(*ends.lock().unwrap(), [(1, seconds(1)), (3, seconds(3)), (2, seconds(10))]);
    }
}
