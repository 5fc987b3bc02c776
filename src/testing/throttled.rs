//! A store that asks for fewer requests.

use crate::error::{Error, ErrorKind, Result, Retry};
use crate::runtime::Clock;
use crate::store::{Created, Listed, Payload, Store};
use bytes::Bytes;
use futures::future::{self, BoxFuture, FutureExt};
use futures::stream::{self, BoxStream, StreamExt};
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// Refuses operations as [`Throttled`](ErrorKind::Throttled), without effect: the first of every so many, or those that are more than so many a second. The others are handed to another store.
#[derive(Debug)]
pub struct ThrottledStore {
    inner: Arc<dyn Store>,
    rule: Rule,
    wait: Option<Duration>,
    asked: Mutex<Asked>,
}

#[derive(Debug)]
enum Rule {
    Every(u64),
    Rate { per_second: f64, burst: f64, clock: Arc<dyn Clock> },
}

#[derive(Debug, Default)]
struct Asked {
    operations: u64,
    refused: u64,
    /// What is granted at once, and when that was so.
    tokens: f64,
    at: Duration,
}

impl ThrottledStore {
    /// Refuses operations number 1, `every` + 1, 2 * `every` + 1 and so on, and asks to wait for `wait`. With one (or zero) for `every` it
    /// refuses all, so two is the least with which anybody gets on.
    #[must_use]
    pub fn new(inner: Arc<dyn Store>, every: u64, wait: Duration) -> Self {
        Self { inner, rule: Rule::Every(every.max(1)), wait: Some(wait), asked: Mutex::default() }
    }

    /// Grants `per_second` operations a second by this clock, and after idle time as many as `burst` at once (at least one). With what it refuses it says to come back
    /// after `wait`, if it says anything.
    #[must_use]
    pub fn per_second(
        inner: Arc<dyn Store>,
        per_second: f64,
        burst: f64,
        wait: Option<Duration>,
        clock: Arc<dyn Clock>,
    ) -> Self {
        let burst = burst.max(1.0);
        let asked = Asked { tokens: burst, at: clock.now(), ..Asked::default() };
        Self { inner, rule: Rule::Rate { per_second, burst, clock }, wait, asked: Mutex::new(asked) }
    }

    /// How many operations were refused so far.
    #[must_use]
    pub fn refused(&self) -> u64 {
        self.asked.lock().unwrap_or_else(PoisonError::into_inner).refused
    }

    async fn admit(&self) -> Result<()> {
        let mut asked = self.asked.lock().unwrap_or_else(PoisonError::into_inner);
        if self.rule.grants(&mut asked) {
            return Ok(());
        }
        asked.refused += 1;
        let error = Error::new(ErrorKind::Throttled, "the store asks for fewer requests");
        Err(match self.wait {
            Some(wait) => error.retry_as(Retry::After(wait)),
            None => error,
        })
    }
}

impl Rule {
    fn grants(&self, asked: &mut Asked) -> bool {
        asked.operations += 1;
        match self {
            Self::Every(every) => !(asked.operations - 1).is_multiple_of(*every),
            Self::Rate { per_second, burst, clock } => {
                let now = clock.now();
                let come = now.saturating_sub(asked.at).as_secs_f64() * per_second;
                (asked.tokens, asked.at) = ((asked.tokens + come).min(*burst), now);
                let is_granted = asked.tokens >= 1.0;
                asked.tokens -= if is_granted { 1.0 } else { 0.0 };
                is_granted
            }
        }
    }
}

#[deny(clippy::missing_trait_methods)]
impl Store for ThrottledStore {
    fn put<'a>(&'a self, key: &'a str, payload: Payload) -> BoxFuture<'a, Result<()>> {
        async move {
            self.admit().await?;
            self.inner.put(key, payload).await
        }
        .boxed()
    }

    fn create<'a>(&'a self, key: &'a str, payload: Payload) -> BoxFuture<'a, Result<Created>> {
        async move {
            self.admit().await?;
            self.inner.create(key, payload).await
        }
        .boxed()
    }

    fn read<'a>(&'a self, key: &'a str, range: Option<Range<u64>>) -> BoxFuture<'a, Result<Bytes>> {
        async move {
            self.admit().await?;
            self.inner.read(key, range).await
        }
        .boxed()
    }

    fn length<'a>(&'a self, key: &'a str) -> BoxFuture<'a, Result<Option<u64>>> {
        async move {
            self.admit().await?;
            self.inner.length(key).await
        }
        .boxed()
    }

    fn list<'a>(&'a self, prefix: &'a str) -> BoxStream<'a, Result<Listed>> {
        let listed = self.admit().map(move |admitted| match admitted {
            Ok(()) => self.inner.list(prefix),
            Err(error) => stream::once(future::ready(Err(error))).boxed(),
        });
        listed.flatten_stream().boxed()
    }

    fn delete<'a>(&'a self, key: &'a str) -> BoxFuture<'a, Result<()>> {
        async move {
            self.admit().await?;
            self.inner.delete(key).await
        }
        .boxed()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::MemoryStore;

    #[test]
    fn every_second_operation_is_refused_and_has_no_effect() {
        let wait = Duration::from_secs(3);
        let store = ThrottledStore::new(Arc::new(MemoryStore::new()), 2, wait);
        let refusal = store.put("a", Payload::default()).now_or_never().unwrap().unwrap_err();
        assert_eq!((refusal.kind(), refusal.retry()), (ErrorKind::Throttled, Retry::After(wait)));
        assert_eq!(store.length("a").now_or_never().unwrap().unwrap(), None);
        assert_eq!(store.refused(), 1);
        assert!(store.list("").next().now_or_never().unwrap().unwrap().is_err());
        assert!(store.put("a", Payload::default()).now_or_never().unwrap().is_ok());
        assert_eq!(store.refused(), 2);
    }

    #[test]
    fn more_than_so_many_a_second_are_refused() {
        let clock = crate::testing::ManualClock::new(Duration::ZERO);
        let store = ThrottledStore::per_second(Arc::new(MemoryStore::new()), 10.0, 5.0, None, Arc::new(clock.clone()));
        let granted = |tries: u64| (0..tries).filter(|_| store.length("a").now_or_never().unwrap().is_ok()).count();
        assert_eq!(granted(20), 5);
        clock.advance(Duration::from_millis(200));
        assert_eq!(granted(20), 2);
        clock.advance(Duration::from_secs(100));
        assert_eq!((granted(20), store.refused()), (5, 15 + 18 + 15));
    }
}
