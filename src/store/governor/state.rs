//! What a governor knows.

use super::bucket::Bucket;
use super::pace::Pace;
use super::patience::Patience;
use super::usage::Usage;
use super::window::{Window, size_class};
use super::{Request, RequestKind, Waiting};
use std::collections::VecDeque;
use std::task::Waker;
use std::time::Duration;

/// What the user's ceilings save up for while nothing is asked: a tenth of a second.
const SAVED_SECONDS: f64 = 0.1;

pub(super) struct State {
    pub(super) window: Window,
    pub(super) pace: Pace,
    /// Keeps to the pace.
    paced: Bucket,
    pub(super) requests: Bucket,
    pub(super) bandwidth: Bucket,
    pub(super) in_flight: usize,
    pub(super) usage: Usage,
    pub(super) patience: Patience,
    /// Nothing is asked before this time: the store said so.
    paused_until: Duration,
    /// Those that wait, in order; the first is woken when something changes.
    queue: VecDeque<Place>,
    next: u64,
    /// Time that only goes forward, and what the clock showed when it was looked at.
    now: Duration,
    shown: Duration,
}

/// A place in the queue.
struct Place {
    number: u64,
    waker: Option<Waker>,
    /// It could have begun but for time, for this reason.
    wants_time: Option<Waiting>,
}

/// Why a request cannot be made now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Blocked {
    /// Others are before it, or too many are in flight: it is woken.
    Queued,
    /// Nothing but time is wanting.
    Until(Duration),
}

/// What is known of a request when it begins.
#[derive(Clone, Copy, Debug)]
pub(super) struct Begun {
    pub(super) request: Request,
    at: Duration,
    /// As many are in flight as can be, or will be in a moment.
    fills_window: bool,
}

impl State {
    pub(super) fn new(in_flight_max: usize, shown: Duration) -> Self {
        Self {
            window: Window::new(in_flight_max),
            pace: Pace::default(),
            // After a pause a store may grant no two at once.
            paced: Bucket::new(0.0),
            requests: Bucket::new(SAVED_SECONDS),
            bandwidth: Bucket::new(SAVED_SECONDS),
            in_flight: 0,
            usage: Usage::default(),
            patience: Patience::default(),
            paused_until: Duration::ZERO,
            queue: VecDeque::new(),
            next: 0,
            now: Duration::ZERO,
            shown,
        }
    }

    /// The clock shows this. That it was set back is no time gone by.
    pub(super) fn look_at(&mut self, shown: Duration) {
        self.now += shown.saturating_sub(self.shown);
        self.shown = shown;
    }

    /// It is at least so late: somebody waited until then, whatever the clock shows.
    pub(super) fn is_at_least(&mut self, now: Duration) {
        self.now = self.now.max(now);
    }

    pub(super) fn now(&self) -> Duration {
        self.now
    }

    /// A place at the end of the queue.
    pub(super) fn enqueue(&mut self) -> u64 {
        self.next += 1;
        self.queue.push_back(Place { number: self.next, waker: None, wants_time: None });
        self.next
    }

    /// Gives up a place in the queue.
    pub(super) fn leave(&mut self, number: u64) {
        let was_first = self.is_first(number);
        self.queue.retain(|place| place.number != number);
        if was_first {
            self.wake_first();
        }
    }

    pub(super) fn wake_first(&mut self) {
        if let Some(waker) = self.queue.front_mut().and_then(|place| place.waker.take()) {
            waker.wake();
        }
    }

    /// Begins a request, if it is first in the queue and may begin. If not, `waker` is called when it is worth asking again, but for [`Blocked::Until`] that time alone.
    pub(super) fn begin(&mut self, number: u64, request: Request, waker: &Waker) -> Result<Begun, Blocked> {
        let has_room = self.is_first(number) && self.in_flight < self.window.size();
        let wanting = self.time_wanting().filter(|_| has_room);
        if !has_room || wanting.is_some() {
            let place = self.queue.iter_mut().find(|place| place.number == number);
            place.into_iter().for_each(|place| {
                place.waker = Some(waker.clone());
                place.wants_time = wanting.map(|(_, why)| why).or(place.wants_time);
            });
            return Err(wanting.map_or(Blocked::Queued, |(until, _)| Blocked::Until(until)));
        }
        let wanted_time = self.queue.pop_front().and_then(|place| place.wants_time);
        let begun = self.go(request, wanted_time);
        self.wake_first();
        Ok(begun)
    }

    /// Begins a read beside one that takes long, if that may be, and nobody has to wait for it.
    pub(super) fn hedge(&mut self, read: Request) -> Option<Begun> {
        let is_free = self.queue.is_empty() && self.in_flight < self.window.size() && self.time_wanting().is_none();
        if !is_free || !self.patience.hedge() {
            return None;
        }
        self.usage.hedged += 1;
        Some(self.go(read, None))
    }

    /// Begins a request that had to wait for time for this reason.
    fn go(&mut self, request: Request, wanted_time: Option<Waiting>) -> Begun {
        let now = self.now;
        self.in_flight += 1;
        self.count(request);
        self.pace.begin(wanted_time == Some(Waiting::Throttling), now);
        self.paced.set_rate(self.pace.rate(), now);
        self.paced.take(request.requests as f64, now);
        self.requests.take(request.requests as f64, now);
        self.bandwidth.take(request.octets as f64, now);
        let fills_window = wanted_time.is_none() && self.in_flight + self.queue.len() >= self.window.size();
        Begun { request, at: now, fills_window }
    }

    /// A request has ended: answered, refused (with the pause that the store wants), failed, or given up.
    pub(super) fn end(&mut self, begun: Begun, end: End) {
        let (now, Request { kind, octets, .. }) = (self.now, begun.request);
        self.in_flight -= 1;
        match end {
            End::Answered { received } => {
                self.usage.received_bytes += received;
                self.bandwidth.take(received as f64, now);
                self.pace.granted(now);
                if kind == RequestKind::Read {
                    self.patience.answered(begun.request.asked, now.saturating_sub(begun.at));
                }
                let alike = (kind as u8, size_class(octets.max(received)));
                self.window.answered(alike, begun.fills_window, begun.at, now);
            }
            End::Refused { pause } => {
                self.usage.refused += 1;
                self.paused_until = self.paused_until.max(now + pause);
                self.pace.refused(begun.at, now, self.paused_until);
                self.paced.set_rate(self.pace.rate(), now);
                self.window.refused(begun.at, now);
            }
            End::Unknown => {}
        }
        self.wake_first();
    }

    pub(super) fn count(&mut self, Request { kind, octets, requests, .. }: Request) {
        let usage = &mut self.usage;
        *match kind {
            RequestKind::Write => &mut usage.writes,
            RequestKind::List => &mut usage.lists,
            RequestKind::Read => &mut usage.reads,
            RequestKind::Length => &mut usage.lengths,
            RequestKind::Delete => &mut usage.deletes,
        } += requests;
        usage.sent_bytes += octets;
    }

    pub(super) fn asked(&self) -> usize {
        self.in_flight + self.queue.len()
    }

    /// What holds up requests now.
    pub(super) fn waiting(&mut self) -> Option<Waiting> {
        let is_asked = !self.queue.is_empty();
        match self.time_wanting() {
            // Those that were refused wait elsewhere until the pause is over.
            Some((_, Waiting::Throttling)) if is_asked || self.paused_until > self.now => Some(Waiting::Throttling),
            Some((_, waiting)) if is_asked && self.in_flight < self.window.size() => Some(waiting),
            _ => (is_asked || self.in_flight > 0).then_some(Waiting::Latency),
        }
    }

    /// Until when nothing can begin, and why, if it cannot now: the latest of all reasons.
    fn time_wanting(&mut self) -> Option<(Duration, Waiting)> {
        let now = self.now;
        let ceiling = self.requests.wait(now).max(self.bandwidth.wait(now));
        let throttling = self.paced.wait(now).max(self.paused_until.saturating_sub(now));
        let (wait, why) =
            if ceiling > throttling { (ceiling, Waiting::Ceiling) } else { (throttling, Waiting::Throttling) };
        (!wait.is_zero()).then_some((now.saturating_add(wait), why))
    }

    fn is_first(&self, number: u64) -> bool {
        self.queue.front().is_some_and(|place| place.number == number)
    }
}

/// What became of a request.
#[derive(Clone, Copy, Debug)]
pub(super) enum End {
    Answered {
        received: u64,
    },
    Refused {
        pause: Duration,
    },
    /// It failed for another reason, or nobody waits for it any more: that tells nothing of what the store takes.
    Unknown,
}
