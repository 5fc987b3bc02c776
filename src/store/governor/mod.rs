//! How much may be asked of a store, and when: a window of requests in flight and a pace that follow what the store takes, its own word for when to come back,
//! and ceilings of the user's. docs/throughput.md tells how it behaves.

mod admission;
mod bucket;
mod pace;
mod patience;
mod state;
mod usage;
mod window;

pub use usage::{Cost, Prices, Usage};

use crate::error::{Error, ErrorKind, Result, Retry};
use crate::runtime::{Clock, SystemClock, SystemTimer, Timer};
use admission::Admission;
pub(super) use admission::Slot;
use futures::future;
use state::State;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Governs the requests to one store. Cloning shares it: whatever goes to one store should go through one governor, of however many transfers, for the store counts all of them.
///
/// Give it to a repository by [`Seams::governor`](crate::repository::Seams::governor). Every try of a request goes through it, one after the other as they come: who waits is not overtaken.
#[derive(Clone)]
pub struct Governor(Arc<Inner>);

struct Inner {
    state: Mutex<State>,
    multipart: Option<Multipart>,
    prices: Prices,
    hedges_reads: bool,
    clock: Arc<dyn Clock>,
    timer: Arc<dyn Timer>,
}

/// What a governor begins with.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct GovernorSettings {
    /// The most requests in flight at once. 256 by default.
    pub in_flight_max: usize,
    /// Octets a second, to the store and from it together. No ceiling by default.
    pub bandwidth: Option<u64>,
    /// Requests a second. No ceiling by default.
    pub requests: Option<f64>,
    /// How the store writes long objects. In one request by default.
    pub multipart: Option<Multipart>,
    /// What requests cost. [`Prices::S3`] by default.
    pub prices: Prices,
    /// Reads that take longer than 99 of 100 like them are sent a second time, at most one in a hundred; the first answer counts. Yes by default.
    pub hedges_reads: bool,
}

/// How a store writes objects that are longer than one request takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(clippy::exhaustive_structs, reason = "two sizes, and who counts")]
pub struct Multipart {
    /// Longer objects are written in parts. In octets.
    pub above_bytes: u64,
    /// About the length of a part, in octets: parts are of equal length, so many that this comes nearest.
    pub part_bytes: u64,
    /// The store passes each part through the governor by itself ([`Governor::request`]). Or else an object counts as one request in flight,
    /// and for ceilings and prices as its parts, and two more.
    pub is_governed_below: bool,
}

impl Multipart {
    /// How many parts an object of so many octets has: a pack that is a little longer than four parts has four.
    #[must_use]
    pub fn parts(&self, octets: u64) -> u64 {
        let part = self.part_bytes.max(1);
        ((octets.saturating_add(part / 2)) / part).max(1)
    }
}

/// What a request does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[allow(clippy::exhaustive_enums, reason = "as the operations of a store")]
pub enum RequestKind {
    /// Writes an object or a part of one, or begins or completes an upload in parts.
    Write,
    /// Gives a page of a listing.
    List,
    /// Reads a range.
    Read,
    /// Asks for a length.
    Length,
    /// Deletes an object.
    Delete,
}

/// Why requests wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(clippy::exhaustive_enums, reason = "the three shares of a report that are the store's")]
pub enum Waiting {
    /// For answers.
    Latency,
    /// The store asked for fewer requests, or for a pause.
    Throttling,
    /// For a ceiling of the user's.
    Ceiling,
}

impl Default for GovernorSettings {
    fn default() -> Self {
        Self {
            in_flight_max: IN_FLIGHT_MAX,
            bandwidth: None,
            requests: None,
            multipart: None,
            prices: Prices::S3,
            hedges_reads: true,
        }
    }
}

/// Requests in flight at most, unless set otherwise.
const IN_FLIGHT_MAX: usize = 256;
/// The longest pause that a store may ask for.
const PAUSE_MAX: Duration = Duration::from_secs(60);

impl Governor {
    /// A governor in real time.
    #[must_use]
    pub fn new(settings: GovernorSettings) -> Self {
        Self::with(settings, Arc::new(SystemClock), Arc::new(SystemTimer))
    }

    /// A governor whose time is this.
    #[must_use]
    pub fn with(settings: GovernorSettings, clock: Arc<dyn Clock>, timer: Arc<dyn Timer>) -> Self {
        let GovernorSettings { in_flight_max, bandwidth, requests, multipart, prices, hedges_reads } = settings;
        let state = Mutex::new(State::new(in_flight_max, clock.now()));
        let governor = Self(Arc::new(Inner { state, multipart, prices, hedges_reads, clock, timer }));
        governor.set_bandwidth(bandwidth);
        governor.set_requests(requests);
        governor
    }

    /// Another ceiling of octets a second from now on, up and down together; `None` for none. Who waits goes by it at once.
    ///
    /// Octets are paid for when they were read, and before they are written, so one request of any length gets through, and the next one waits until it is paid for.
    pub fn set_bandwidth(&self, octets: Option<u64>) {
        let mut state = self.state();
        let now = state.now();
        state.bandwidth.set_rate(octets.map(|octets| octets as f64), now);
        state.wake_first();
    }

    /// Another ceiling of requests a second from now on; `None` for none.
    pub fn set_requests(&self, requests: Option<f64>) {
        let mut state = self.state();
        let now = state.now();
        state.requests.set_rate(requests, now);
        state.wake_first();
    }

    /// What was asked of the store so far.
    #[must_use]
    pub fn usage(&self) -> Usage {
        self.state().usage
    }

    /// What requests cost.
    #[must_use]
    pub fn prices(&self) -> &Prices {
        &self.0.prices
    }

    /// Requests in flight.
    #[must_use]
    pub fn in_flight(&self) -> usize {
        self.state().in_flight
    }

    /// How many requests may be in flight now.
    #[must_use]
    pub fn window(&self) -> usize {
        self.state().window.size()
    }

    /// How many requests a second the store is believed to grant; `None` if it has refused none.
    #[must_use]
    pub fn pace(&self) -> Option<f64> {
        self.state().pace.rate()
    }

    /// Requests in flight, and those that wait to be.
    pub(crate) fn asked(&self) -> usize {
        self.state().asked()
    }

    /// What holds up requests now; `None` if there are none.
    #[must_use]
    pub fn waiting(&self) -> Option<Waiting> {
        self.state().waiting()
    }

    /// Makes one request when it may be made: `work` is not polled before. For stores that make more than one request for an operation, see [`Multipart::is_governed_below`].
    /// `octets` are those that it writes.
    ///
    /// # Cancel safety
    /// As `work`: who is dropped while waiting gives up the place in the queue.
    ///
    /// # Errors
    /// Those of `work`.
    pub async fn request<T>(&self, kind: RequestKind, octets: u64, work: impl Future<Output = Result<T>>) -> Result<T> {
        let slot = self.admit(Request::new(kind, octets)).await;
        let done = work.await;
        slot.end(done.as_ref().err(), 0);
        done
    }

    /// What writing so many octets is.
    pub(super) fn write(&self, octets: u64) -> Option<Request> {
        match self.0.multipart {
            Some(multipart) if octets > multipart.above_bytes => {
                let requests = multipart.parts(octets) + 2;
                let request = Request { requests, ..Request::new(RequestKind::Write, octets) };
                (!multipart.is_governed_below).then_some(request)
            }
            _ => Some(Request::new(RequestKind::Write, octets)),
        }
    }

    /// Waits until a request may be made.
    pub(super) fn admit(&self, request: Request) -> Admission {
        Admission::new(self.clone(), request)
    }

    /// Resolves when a read that asks for so much has taken longer than nearly all others; never, if that is not known or not wanted.
    pub(super) async fn patience(&self, asked: u64) {
        let p99 = self.state().patience.p99(asked).filter(|_| self.0.hedges_reads);
        match p99 {
            Some(p99) => self.0.timer.sleep(p99).await,
            None => future::pending().await,
        }
    }

    /// A place for a second read beside one that takes long, if there is one to spare.
    pub(super) fn hedge(&self, read: Request) -> Option<Slot> {
        let begun = self.state().hedge(read)?;
        Some(Slot::new(self.clone(), begun))
    }

    /// Counts a request that follows another of the same operation: the next page of a listing.
    pub(super) fn count(&self, kind: RequestKind) {
        self.state().count(Request::new(kind, 0));
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Every change to the state is one call, so a panic elsewhere cannot have left it half changed.
        let mut state = self.0.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.look_at(self.0.clock.now());
        state
    }
}

impl fmt::Debug for Governor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = self.state();
        f.debug_struct("Governor")
            .field("window", &state.window.size())
            .field("in_flight", &state.in_flight)
            .field("pace", &state.pace.rate())
            .finish_non_exhaustive()
    }
}

/// A request to be made.
#[derive(Clone, Copy, Debug)]
pub(super) struct Request {
    kind: RequestKind,
    /// Octets that it writes.
    octets: u64,
    /// How many it counts as.
    requests: u64,
    /// Octets that a read asks for at most.
    asked: u64,
}

impl Request {
    pub(super) const fn new(kind: RequestKind, octets: u64) -> Self {
        Self { kind, octets, requests: 1, asked: 0 }
    }

    /// A read that asks for so many octets at most.
    pub(super) const fn read(asked: u64) -> Self {
        Self { asked, ..Self::new(RequestKind::Read, 0) }
    }
}

/// How long a store that refused wants to be left alone; `None` if it did not refuse.
fn refusal(error: &Error) -> Option<Duration> {
    match (error.kind(), error.retry()) {
        (ErrorKind::Throttled, Retry::After(pause)) => Some(pause.min(PAUSE_MAX)),
        (ErrorKind::Throttled, _) => Some(Duration::ZERO),
        _ => None,
    }
}

#[cfg(test)]
mod tests;
