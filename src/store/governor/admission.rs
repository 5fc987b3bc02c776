//! Waiting until a request may be made, and the place of one that is.

use super::state::{Begun, Blocked, End};
use super::{Governor, Request, refusal};
use crate::error::Error;
use futures::FutureExt;
use futures::future::BoxFuture;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

/// Resolves when a request may be made. Dropped before, it gives up its place in the queue.
pub(in crate::store) struct Admission {
    governor: Governor,
    request: Request,
    /// The place in the queue.
    number: Option<u64>,
    sleep: Option<(Duration, BoxFuture<'static, ()>)>,
}

impl Admission {
    pub(super) fn new(governor: Governor, request: Request) -> Self {
        Self { governor, request, number: None, sleep: None }
    }
}

impl Future for Admission {
    type Output = Slot;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Slot> {
        let this = self.get_mut();
        loop {
            let begun = {
                let mut state = this.governor.state();
                let number = *this.number.get_or_insert_with(|| state.enqueue());
                (state.begin(number, this.request, cx.waker()), state.now())
            };
            let until = match begun {
                (Ok(begun), _) => {
                    this.number = None;
                    return Poll::Ready(Slot::new(this.governor.clone(), begun));
                }
                (Err(Blocked::Queued), _) => {
                    this.sleep = None;
                    return Poll::Pending;
                }
                (Err(Blocked::Until(until)), now) => {
                    if this.sleep.as_ref().is_none_or(|(set, _)| *set != until) {
                        this.sleep = Some((until, this.governor.0.timer.sleep(until.saturating_sub(now))));
                    }
                    until
                }
            };
            if let Some((_, sleep)) = &mut this.sleep
                && sleep.poll_unpin(cx).is_pending()
            {
                return Poll::Pending;
            }
            this.sleep = None;
            this.governor.state().is_at_least(until);
        }
    }
}

impl Drop for Admission {
    fn drop(&mut self) {
        if let Some(number) = self.number {
            self.governor.state().leave(number);
        }
    }
}

/// A request that is being made. Dropped, it was given up.
pub(in crate::store) struct Slot {
    governor: Governor,
    begun: Option<Begun>,
}

impl Slot {
    pub(super) fn new(governor: Governor, begun: Begun) -> Self {
        Self { governor, begun: Some(begun) }
    }

    /// The store has answered: with an error, or with so many octets.
    pub(in crate::store) fn end(mut self, error: Option<&Error>, received: u64) {
        let end = match error {
            None => End::Answered { received },
            Some(error) => refusal(error).map_or(End::Unknown, |pause| End::Refused { pause }),
        };
        self.finish(end);
    }

    fn finish(&mut self, end: End) {
        if let Some(begun) = self.begun.take() {
            self.governor.state().end(begun, end);
        }
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.finish(End::Unknown);
    }
}
