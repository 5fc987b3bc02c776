//! The lock that workers and tasks share things by. How often it is taken is counted, and nobody may read or write a file while holding it.
//!
//! No guard can be held while a future waits for a store: guards are not `Send`, and the futures of this crate are. What blocks on a worker asks
//! [`assert_none_is_held`] before, which costs nothing in a release build.

use std::cell::Cell;
use std::ops::{Deref, DerefMut};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

thread_local! {
    /// How many locks this thread holds.
    static HELD: Cell<u32> = const { Cell::new(0) };
}

/// How often locks were taken. Cloning shares the count.
#[derive(Clone, Debug, Default)]
pub(crate) struct Acquisitions(Arc<AtomicU64>);

impl Acquisitions {
    /// Counts one.
    pub(crate) fn add(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    /// How many there were.
    #[cfg(any(test, feature = "testing"))]
    pub(crate) fn count(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// A value that one thread at a time has. Who panicked while having it left it whole: every change is one call of its own.
#[derive(Debug, Default)]
pub(crate) struct Lock<T> {
    value: Mutex<T>,
    acquisitions: Acquisitions,
}

impl<T> Lock<T> {
    /// A lock whose acquisitions are counted there.
    pub(crate) fn new(value: T, acquisitions: &Acquisitions) -> Self {
        Self { value: Mutex::new(value), acquisitions: acquisitions.clone() }
    }

    /// Waits until nobody else has the value.
    pub(crate) fn lock(&self) -> Guard<'_, T> {
        self.acquisitions.add();
        Guard::new(self.value.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Whether somebody has it.
    #[cfg(test)]
    pub(crate) fn is_held(&self) -> bool {
        self.value.try_lock().is_err()
    }
}

/// The value, as long as this lives.
pub(crate) struct Guard<'a, T>(Option<MutexGuard<'a, T>>);

impl<'a, T> Guard<'a, T> {
    fn new(guard: MutexGuard<'a, T>) -> Self {
        HELD.set(HELD.get() + 1);
        Self(Some(guard))
    }

    /// Gives the value to others until `condition` is told of something.
    pub(crate) fn wait(mut self, condition: &Condvar) -> Self {
        self.0 = self.0.take().map(|guard| condition.wait(guard).unwrap_or_else(PoisonError::into_inner));
        self
    }
}

const HAS_VALUE: &str = "a guard has its value until it is dropped";

impl<T> Deref for Guard<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        self.0.as_ref().expect(HAS_VALUE)
    }
}

impl<T> DerefMut for Guard<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        self.0.as_mut().expect(HAS_VALUE)
    }
}

impl<T> Drop for Guard<'_, T> {
    fn drop(&mut self) {
        HELD.set(HELD.get() - 1);
    }
}

/// Fails, in debug builds, if this thread holds a lock: it is about to wait for a file or a store.
pub(crate) fn assert_none_is_held() {
    debug_assert_eq!(HELD.get(), 0, "a lock is held while waiting for a file or a store");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn acquisitions_are_counted_and_a_guard_that_is_dropped_is_not_held() {
        let acquisitions = Acquisitions::default();
        let (one, other) = (Lock::new(1, &acquisitions), Lock::new(2, &acquisitions));
        let (first, second) = (one.lock(), other.lock());
        assert_eq!((*first, *second, acquisitions.count()), (1, 2, 2));
        drop((first, second));
        assert_none_is_held();
        *one.lock() += 1;
        assert_eq!((*one.lock(), acquisitions.count()), (2, 4));
    }

    #[test]
    #[should_panic(expected = "a lock is held while waiting")]
    fn who_holds_a_lock_may_wait_for_no_file() {
        let lock = Lock::<u8>::default();
        let _guard = lock.lock();
        assert_none_is_held();
    }
}
