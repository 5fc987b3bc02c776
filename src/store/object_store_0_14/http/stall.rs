//! Noticing that no octet moves.

use super::stalled;
use bytes::Bytes;
use futures::future::{Either, select};
use futures_timer::Delay;
use http_body::{Body, Frame, SizeHint};
use object_store::client::{HttpError, HttpRequestBody};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

/// The most octets of a request that are handed on at once: what is handed on counts as moved.
const FRAME_MAX: usize = 128 << 10;

/// How many times octets of a request have moved.
#[derive(Clone, Debug, Default)]
pub(super) struct Moving(Arc<AtomicU64>);

impl Moving {
    /// The same body, whose octets are counted as they go.
    pub(super) fn count(&self, body: HttpRequestBody) -> Counted {
        Counted { body, frame: Bytes::new(), moving: self.clone() }
    }

    fn times(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// The outcome of `work`; `None` if nothing has moved for `limit`, or for up to twice as long.
pub(super) async fn unless_stalled<T>(limit: Duration, moving: &Moving, work: impl Future<Output = T>) -> Option<T> {
    let mut work = pin!(work);
    loop {
        let before = moving.times();
        match select(work, Delay::new(limit)).await {
            Either::Left((done, _)) => return Some(done),
            Either::Right(_) if moving.times() == before => return None,
            Either::Right(((), unfinished)) => work = unfinished,
        }
    }
}

/// A request's body in small frames that are counted.
pub(super) struct Counted {
    body: HttpRequestBody,
    /// What is left of the body's latest frame.
    frame: Bytes,
    moving: Moving,
}

impl Body for Counted {
    type Data = Bytes;
    type Error = HttpError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, HttpError>>> {
        while self.frame.is_empty() {
            let next = ready!(Pin::new(&mut self.body).poll_frame(context));
            match next.map(|next| next.map(Frame::into_data)) {
                Some(Ok(Ok(octets))) => self.frame = octets,
                // Trailers, of which there are none.
                Some(Ok(Err(_))) => {}
                Some(Err(error)) => return Poll::Ready(Some(Err(error))),
                None => return Poll::Ready(None),
            }
        }
        self.moving.0.fetch_add(1, Ordering::Relaxed);
        let length = self.frame.len().min(FRAME_MAX);
        Poll::Ready(Some(Ok(Frame::data(self.frame.split_to(length)))))
    }

    fn is_end_stream(&self) -> bool {
        self.frame.is_empty() && self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        let left = self.body.size_hint().exact().map(|left| left + self.frame.len() as u64);
        left.map_or_else(SizeHint::default, SizeHint::with_exact)
    }
}

/// An answer's body, given up when nothing came for a time, or for up to twice as long.
pub(super) struct Watched {
    body: reqwest::Body,
    limit: Duration,
    pause: Delay,
    has_moved: bool,
}

impl Watched {
    pub(super) fn new(body: reqwest::Body, limit: Duration) -> Self {
        Self { body, limit, pause: Delay::new(limit), has_moved: false }
    }
}

impl Body for Watched {
    type Data = Bytes;
    type Error = HttpError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, HttpError>>> {
        let Self { body, limit, pause, has_moved } = &mut *self;
        if let Poll::Ready(next) = Pin::new(body).poll_frame(context) {
            *has_moved = true;
            return Poll::Ready(next.map(|next| next.map_err(|error| super::unanswered(error, false))));
        }
        while Pin::new(&mut *pause).poll(context).is_ready() {
            if !std::mem::take(has_moved) {
                return Poll::Ready(Some(Err(stalled())));
            }
            pause.reset(*limit);
        }
        Poll::Pending
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
