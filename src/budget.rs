//! One byte budget, shared by everything that holds memory in proportion to mail. Knows nothing of mail.
//!
//! Permits are counted in whole KiB, rounded up. Waiting is first come, first served, so a large request is not starved by small ones.

use crate::lock::Acquisitions;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

const UNIT: u64 = 1024;

/// A number of octets that may be in memory at once. Cloning shares it.
#[derive(Clone)]
pub struct Budget(Arc<Inner>);

struct Inner {
    semaphore: Arc<Semaphore>,
    units: u64,
    used: AtomicU64,
    peak: AtomicU64,
    waiting: AtomicUsize,
    /// A semaphore has a lock of its own: how often that may have been taken.
    acquisitions: Acquisitions,
}

impl Budget {
    /// A budget of `octets`, rounded down to whole KiB.
    #[must_use]
    pub fn new(octets: u64) -> Self {
        Self::counted(octets, &Acquisitions::default())
    }

    pub(crate) fn counted(octets: u64, acquisitions: &Acquisitions) -> Self {
        let units = (octets / UNIT).min(Semaphore::MAX_PERMITS as u64).min(u64::from(u32::MAX));
        Self(Arc::new(Inner {
            semaphore: Arc::new(Semaphore::new(units as usize)),
            units,
            used: AtomicU64::new(0),
            peak: AtomicU64::new(0),
            waiting: AtomicUsize::new(0),
            acquisitions: acquisitions.clone(),
        }))
    }

    /// The whole budget, in octets.
    #[must_use]
    pub fn octets(&self) -> u64 {
        self.0.units * UNIT
    }

    /// The most that was ever permitted at once, in octets.
    #[must_use]
    pub fn peak(&self) -> u64 {
        self.0.peak.load(Ordering::Relaxed) * UNIT
    }

    /// What is permitted now, in octets.
    #[must_use]
    pub fn used(&self) -> u64 {
        self.0.used.load(Ordering::Relaxed) * UNIT
    }

    /// How many wait for a permit.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.0.waiting.load(Ordering::Relaxed)
    }

    /// A permit for `octets`, as soon as they are free. More than the whole budget is cut to the whole budget: it comes when everything
    /// else is given back.
    ///
    /// # Cancel safety
    /// Dropping the future gives up the place in the queue and takes nothing.
    pub async fn acquire(&self, octets: u64) -> Permit {
        let units = self.units(octets);
        let waiting = Waiting::begin(&self.0.waiting);
        let permit = Arc::clone(&self.0.semaphore).acquire_many_owned(units).await;
        drop(waiting);
        self.permit(permit.ok(), units)
    }

    /// A permit for `octets` if they are free now and nobody waits for their own.
    #[must_use]
    pub fn try_acquire(&self, octets: u64) -> Option<Permit> {
        if self.waiting() > 0 {
            return None;
        }
        let units = self.units(octets);
        let permit = Arc::clone(&self.0.semaphore).try_acquire_many_owned(units).ok()?;
        Some(self.permit(Some(permit), units))
    }

    fn units(&self, octets: u64) -> u32 {
        octets.div_ceil(UNIT).min(self.0.units) as u32
    }

    fn permit(&self, permit: Option<OwnedSemaphorePermit>, units: u32) -> Permit {
        // The semaphore is never closed, so there is always a permit.
        self.0.acquisitions.add();
        let used = self.0.used.fetch_add(u64::from(units), Ordering::Relaxed) + u64::from(units);
        self.0.peak.fetch_max(used, Ordering::Relaxed);
        Permit { permit, budget: self.clone() }
    }
}

impl fmt::Debug for Budget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Budget({} of {} octets)", self.used(), self.octets())
    }
}

/// Counts one more as long as it is there.
pub(crate) struct Waiting<'a>(&'a AtomicUsize);

impl<'a> Waiting<'a> {
    pub(crate) fn begin(count: &'a AtomicUsize) -> Self {
        count.fetch_add(1, Ordering::Relaxed);
        Self(count)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Permission to hold octets in memory; travels with what it paid for and is given back when dropped.
pub struct Permit {
    permit: Option<OwnedSemaphorePermit>,
    budget: Budget,
}

impl Permit {
    /// What is permitted, in octets.
    #[must_use]
    pub fn octets(&self) -> u64 {
        self.units() * UNIT
    }

    /// Gives back what exceeds `octets`.
    pub fn shrink(&mut self, octets: u64) {
        let keep = octets.div_ceil(UNIT);
        if let Some(excess) = self.units().checked_sub(keep).filter(|excess| *excess > 0) {
            drop(self.split(excess * UNIT));
        }
    }

    /// Takes in another permit of the same budget.
    pub fn merge(&mut self, mut other: Self) {
        match (&mut self.permit, other.permit.take()) {
            (Some(mine), Some(theirs)) => mine.merge(theirs),
            (mine @ None, theirs) => *mine = theirs,
            (Some(_), None) => {}
        }
    }

    /// Splits off a permit for `octets`, or for all there is if that is less.
    #[must_use]
    pub fn split(&mut self, octets: u64) -> Self {
        let units = octets.div_ceil(UNIT).min(self.units());
        let permit = self.permit.as_mut().and_then(|permit| permit.split(units as usize));
        Self { permit, budget: self.budget.clone() }
    }

    fn units(&self) -> u64 {
        self.permit.as_ref().map_or(0, |permit| permit.num_permits() as u64)
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.budget.0.acquisitions.add();
        self.budget.0.used.fetch_sub(self.units(), Ordering::Relaxed);
    }
}

impl fmt::Debug for Permit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Permit({})", self.octets())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::FutureExt;

    #[test]
    fn what_is_shrunk_dropped_or_merged_is_free_again() {
        let budget = Budget::new(10 * UNIT);
        let mut permit = budget.try_acquire(8 * UNIT).unwrap();
        assert!(budget.try_acquire(3 * UNIT).is_none());
        permit.shrink(2 * UNIT);
        let other = budget.try_acquire(8 * UNIT).unwrap();
        permit.merge(other);
        assert_eq!(permit.octets(), 10 * UNIT);
        drop(permit);
        assert_eq!((budget.used(), budget.peak()), (0, 10 * UNIT));
    }

    #[test]
    fn nobody_overtakes_who_waits() {
        let budget = Budget::new(10 * UNIT);
        let held = budget.try_acquire(5 * UNIT).unwrap();
        let mut large = Box::pin(budget.acquire(8 * UNIT));
        assert!(large.as_mut().now_or_never().is_none());
        assert!(budget.try_acquire(UNIT).is_none());
        drop(held);
        assert_eq!(large.now_or_never().unwrap().octets(), 8 * UNIT);
        assert_eq!(budget.waiting(), 0);
    }

    #[test]
    fn more_than_the_whole_is_cut_to_the_whole() {
        let budget = Budget::new(10 * UNIT);
        assert_eq!(budget.acquire(u64::MAX).now_or_never().unwrap().octets(), 10 * UNIT);
    }
}
