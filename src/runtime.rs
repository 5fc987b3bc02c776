//! The seams to the world: where work runs, what time it is, where randomness comes from. All can be replaced, so that a whole
//! transfer can run deterministically on one thread.

use crate::error::{Error, Result};
use crate::lock::{Acquisitions, Lock, assert_none_is_held};
use futures::FutureExt;
use futures::future::BoxFuture;
use std::collections::VecDeque;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::thread::{self, Thread};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio::sync::oneshot;

/// A piece of work that may compute or block.
pub type Job = Box<dyn FnOnce() + Send>;

/// Runs jobs.
pub trait Executor: fmt::Debug + Send + Sync + 'static {
    /// Runs `job`, now or later, on this thread or on another. Every job given is run to its end.
    fn execute(&self, job: Job);

    /// How many jobs it runs at once.
    fn parallelism(&self) -> usize;
}

/// Runs `work` on `executor` and gives its result.
///
/// # Cancel safety
/// Dropping the future does not stop the work; its result is dropped.
///
/// # Errors
/// [`Internal`](crate::ErrorKind::Internal) if the work panicked.
pub async fn run<T: Send + 'static>(executor: &dyn Executor, work: impl FnOnce() -> T + Send + 'static) -> Result<T> {
    assert_none_is_held();
    let (sender, receiver) = oneshot::channel();
    executor.execute(Box::new(move || {
        // A panic drops the sender, which is how the waiting side learns of it.
        let _ = sender.send(work());
    }));
    receiver.await.map_err(|_| Error::internal("a worker panicked; its message was printed on standard error"))
}

/// Runs every job at once, on the thread that gives it: one thread, no races, the same order every time.
#[derive(Clone, Copy, Debug, Default)]
#[allow(clippy::exhaustive_structs, reason = "there is nothing to it")]
pub struct Inline;

impl Executor for Inline {
    fn execute(&self, job: Job) {
        // The caller learns of a panic as it would from a pool: by the result that never comes.
        let _ = catch_unwind(AssertUnwindSafe(job));
    }

    fn parallelism(&self) -> usize {
        1
    }
}

/// A fixed number of threads that run jobs in the order given. Of idle ones the last that worked is woken first: what it needs is still in its caches, and of very many
/// threads only as many work as there are jobs for. The threads end when the pool is dropped and its queue is empty.
pub struct WorkerPool {
    queue: Arc<Lock<Queue>>,
    threads: usize,
}

#[derive(Default)]
struct Queue {
    jobs: VecDeque<Job>,
    idle: Vec<Thread>,
    is_closed: bool,
}

impl WorkerPool {
    /// A pool of `threads` threads (at least one).
    ///
    /// # Errors
    /// If the operating system refuses a thread.
    pub fn new(threads: usize) -> Result<Self> {
        Self::counted(threads, &Acquisitions::default())
    }

    pub(crate) fn counted(threads: usize, acquisitions: &Acquisitions) -> Result<Self> {
        let threads = threads.max(1);
        let pool = Self { queue: Arc::new(Lock::new(Queue::default(), acquisitions)), threads };
        for number in 0..threads {
            let queue = Arc::clone(&pool.queue);
            thread::Builder::new()
                .name(format!("mailrail-{number}"))
                .spawn(move || work(&queue))
                .map_err(|source| Error::io("starting a worker thread", source))?;
        }
        Ok(pool)
    }
}

fn work(queue: &Lock<Queue>) {
    let me = thread::current();
    loop {
        let mut waiting = queue.lock();
        // It is still there if it was woken by nobody.
        waiting.idle.retain(|thread| thread.id() != me.id());
        match waiting.jobs.pop_front() {
            Some(job) => {
                drop(waiting);
                let _ = catch_unwind(AssertUnwindSafe(job));
            }
            None if waiting.is_closed => return,
            None => {
                waiting.idle.push(me.clone());
                drop(waiting);
                thread::park();
            }
        }
    }
}

impl Executor for WorkerPool {
    fn execute(&self, job: Job) {
        let mut queue = self.queue.lock();
        queue.jobs.push_back(job);
        let idle = queue.idle.pop();
        drop(queue);
        idle.iter().for_each(Thread::unpark);
    }

    fn parallelism(&self) -> usize {
        self.threads
    }
}

impl Drop for WorkerPool {
    fn drop(&mut self) {
        let mut queue = self.queue.lock();
        queue.is_closed = true;
        let idle = std::mem::take(&mut queue.idle);
        drop(queue);
        idle.iter().for_each(Thread::unpark);
    }
}

impl fmt::Debug for WorkerPool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WorkerPool").field("threads", &self.threads).finish()
    }
}

/// Runs each job on a new thread of its own: for what is rare and takes long.
#[derive(Clone, Copy, Debug, Default)]
#[allow(clippy::exhaustive_structs, reason = "there is nothing to it")]
pub struct ThreadPerJob;

impl Executor for ThreadPerJob {
    fn execute(&self, job: Job) {
        match WorkerPool::new(1) {
            // Its thread ends behind the only job.
            Ok(pool) => pool.execute(job),
            Err(_) => Inline.execute(job),
        }
    }

    fn parallelism(&self) -> usize {
        usize::MAX
    }
}

/// Tells the time. Nothing that may not be lost depends on it.
pub trait Clock: fmt::Debug + Send + Sync + 'static {
    /// The time since 1970-01-01T00:00:00Z.
    fn now(&self) -> Duration;
}

/// The operating system's clock.
#[derive(Clone, Copy, Debug, Default)]
#[allow(clippy::exhaustive_structs, reason = "there is nothing to it")]
pub struct SystemClock;

impl Clock for SystemClock {
    #[allow(clippy::disallowed_methods, reason = "this is the one place that asks")]
    fn now(&self) -> Duration {
        SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
    }
}

/// Lets time go by, between one try and the next.
pub trait Timer: fmt::Debug + Send + Sync + 'static {
    /// Resolves after this time, on any runtime.
    ///
    /// # Cancel safety
    /// Nothing happens if the future is dropped.
    fn sleep(&self, time: Duration) -> BoxFuture<'static, ()>;
}

/// Real time, kept by a thread of its own that is started with the first sleep: it needs no runtime's timer to be enabled.
#[derive(Clone, Copy, Debug, Default)]
#[allow(clippy::exhaustive_structs, reason = "there is nothing to it")]
pub struct SystemTimer;

impl Timer for SystemTimer {
    fn sleep(&self, time: Duration) -> BoxFuture<'static, ()> {
        futures_timer::Delay::new(time).boxed()
    }
}

/// Gives random octets: for salts, ids and keys.
pub trait Randomness: fmt::Debug + Send + Sync + 'static {
    /// Fills `octets`.
    ///
    /// # Errors
    /// If the source of randomness fails. Nothing is written then.
    fn fill(&self, octets: &mut [u8]) -> Result<()>;
}

/// The operating system's randomness.
#[derive(Clone, Copy, Debug, Default)]
#[allow(clippy::exhaustive_structs, reason = "there is nothing to it")]
pub struct SystemRandomness;

impl Randomness for SystemRandomness {
    fn fill(&self, octets: &mut [u8]) -> Result<()> {
        use ring::rand::SecureRandom;
        ring::rand::SystemRandom::new()
            .fill(octets)
            .map_err(|_| Error::internal("the operating system gives no randomness"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc;

    fn wait_until_all_are_idle(pool: &WorkerPool) {
        while pool.queue.lock().idle.len() < pool.threads {
            thread::yield_now();
        }
    }

    #[test]
    fn every_job_is_run_once_also_those_that_wait_when_the_pool_is_dropped() {
        let pool = WorkerPool::new(4).unwrap();
        let (sender, ran) = mpsc::channel();
        thread::scope(|scope| {
            for giver in 0..4 {
                let (pool, sender) = (&pool, sender.clone());
                scope.spawn(move || {
                    for job in 0..1000 {
                        let sender = sender.clone();
                        pool.execute(Box::new(move || sender.send(giver * 1000 + job).unwrap()));
                    }
                });
            }
        });
        drop((pool, sender));
        let mut ran: Vec<i32> = ran.iter().collect();
        ran.sort_unstable();
        assert!(ran.into_iter().eq(0..4000));
    }

    #[test]
    fn of_idle_threads_the_one_that_worked_last_is_woken() {
        let pool = WorkerPool::new(8).unwrap();
        let (sender, threads) = mpsc::channel();
        for _ in 0..20 {
            wait_until_all_are_idle(&pool);
            let sender = sender.clone();
            pool.execute(Box::new(move || sender.send(thread::current().id()).unwrap()));
        }
        drop(sender);
        let threads: Vec<_> = threads.iter().collect();
        assert!(threads.len() == 20 && threads.iter().all(|thread| *thread == threads[0]), "{threads:?}");
    }

    #[test]
    fn a_job_that_panics_takes_no_thread_with_it() {
        let pool = WorkerPool::new(1).unwrap();
        let failed = futures::executor::block_on(run(&pool, || panic!("as the test wants")));
        assert!(failed.is_err());
        assert_eq!(futures::executor::block_on(run(&pool, || 7)).unwrap(), 7);
    }
}
