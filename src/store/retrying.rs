//! A store that tries again. All of a repository's operations go through one.

use super::{Created, Listed, Payload, Store, check_key};
use crate::error::{Error, ErrorKind, Result, Retry};
use crate::runtime::Timer;
use backon::{ExponentialBuilder, Retryable};
use bytes::Bytes;
use futures::future::BoxFuture;
use futures::stream::{self, BoxStream};
use futures::{FutureExt, StreamExt, TryStreamExt, future};
use std::future::IntoFuture;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// The most objects that one listing may have: packs of 64 MiB for 16 PiB. A listing that goes on ends in an error.
pub(super) const LISTED_MAX: u64 = 1 << 28;
/// The longest that an object is believed to be, in octets: what a store says beyond it counts as this, so that no sum overflows.
const OBJECT_OCTETS_MAX: u64 = 1 << 34;
/// How often a listing may come by the same key before it goes round in circles.
const REPEATS_MAX: u32 = 8;

/// How often, and after which pauses, an operation that a store could not do for now is tried again.
///
/// Only what [`Retry`] says is worth it. Pauses double, each with up to as much again added at random, so that many clients do not come back
/// at once; a store that says when to come back is believed, up to [`pause_max`](Self::pause_max).
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Retries {
    /// How often an operation is tried again. 9 by default: with the other defaults, about one to two minutes.
    pub times: usize,
    /// The first pause. 100 ms by default.
    pub pause_min: Duration,
    /// The longest pause, and the longest that a store may ask for. 30 s by default.
    pub pause_max: Duration,
}

impl Default for Retries {
    fn default() -> Self {
        Self { times: 9, pause_min: Duration::from_millis(100), pause_max: Duration::from_secs(30) }
    }
}

impl Retries {
    /// Nothing is tried again.
    #[must_use]
    pub fn none() -> Self {
        Self { times: 0, ..Self::default() }
    }

    fn backoff(&self, seed: u64) -> ExponentialBuilder {
        ExponentialBuilder::new()
            .with_min_delay(self.pause_min)
            .with_max_delay(self.pause_max)
            .with_max_times(self.times)
            .with_jitter()
            .with_jitter_seed(seed)
    }

    /// The pause after an error, if there is to be one.
    fn pause(&self, error: &Error, planned: Option<Duration>) -> Option<Duration> {
        match error.retry() {
            Retry::After(asked) => planned.map(|planned| planned.max(asked).min(self.pause_max)),
            _ => planned,
        }
    }
}

/// Hands everything to another store, again and again where that is worth it. A [`Repository`](crate::Repository) puts one in front of its store by itself.
///
/// A *create* that is tried again may find its own object, as the contract of [`Store::create`] says. A listing is begun anew only if it failed before its first object.
#[derive(Debug)]
pub struct RetryingStore {
    inner: Arc<dyn Store>,
    retries: Retries,
    timer: Arc<dyn Timer>,
    /// What the random pauses of the next operation come from.
    seed: AtomicU64,
    listed_max: u64,
}

impl RetryingStore {
    /// Tries `inner` again as `retries` say. `seed` gives the random part of pauses: it should be random, and may be known to anybody.
    #[must_use]
    pub fn new(inner: Arc<dyn Store>, retries: Retries, timer: Arc<dyn Timer>, seed: u64) -> Self {
        Self { inner, retries, timer, seed: AtomicU64::new(seed), listed_max: LISTED_MAX }
    }

    fn persist<'a, T: Send + 'a>(
        &'a self,
        operation: impl FnMut() -> BoxFuture<'a, Result<T>> + Send + 'a,
    ) -> BoxFuture<'a, Result<T>> {
        persist(&self.retries, &self.timer, self.seed.fetch_add(1, Ordering::Relaxed), operation)
    }
}

/// Tries an operation again as `retries` say.
pub(super) fn persist<'a, T: Send + 'a>(
    retries: &'a Retries,
    timer: &Arc<dyn Timer>,
    seed: u64,
    operation: impl FnMut() -> BoxFuture<'a, Result<T>> + Send + 'a,
) -> BoxFuture<'a, Result<T>> {
    let timer = Arc::clone(timer);
    operation
        .retry(retries.backoff(seed))
        .sleep(move |time| timer.sleep(time))
        .when(|error: &Error| error.retry() != Retry::Never)
        .adjust(|error: &Error, planned| retries.pause(error, planned))
        .into_future()
        .boxed()
}

/// Watches a listing: a store that forgets where it was would list for ever.
struct Watch<'a> {
    prefix: &'a str,
    listed_max: u64,
    listed: u64,
    /// The key at the last power of two, and how often it has come again: whatever the length of a circle, some of these is in it.
    mark: String,
    repeats: u32,
}

impl<'a> Watch<'a> {
    fn new(prefix: &'a str, listed_max: u64) -> Self {
        Self { prefix, listed_max, listed: 0, mark: String::new(), repeats: 0 }
    }

    /// The object, if it is one that can be under the prefix: what else a store has there is nobody's.
    fn judge(&mut self, listed: Listed) -> Result<Option<Listed>> {
        self.listed += 1;
        if self.listed > self.listed_max {
            return Err(Error::new(ErrorKind::Limit, format!("the listing of '{}' does not end", self.prefix)));
        }
        self.repeats += u32::from(listed.key == self.mark);
        if self.repeats > REPEATS_MAX {
            return Err(Error::damaged(format!("the listing of '{}' goes round in circles", self.prefix)));
        }
        if self.listed.is_power_of_two() {
            self.mark.clone_from(&listed.key);
            self.repeats = 0;
        }
        let is_possible = listed.key.starts_with(self.prefix) && check_key(&listed.key).is_ok();
        let length = listed.length.min(OBJECT_OCTETS_MAX);
        Ok(is_possible.then_some(Listed { length, ..listed }))
    }
}

#[deny(clippy::missing_trait_methods)]
impl Store for RetryingStore {
    fn put<'a>(&'a self, key: &'a str, payload: Payload) -> BoxFuture<'a, Result<()>> {
        self.persist(move || self.inner.put(key, payload.clone()))
    }

    fn create<'a>(&'a self, key: &'a str, payload: Payload) -> BoxFuture<'a, Result<Created>> {
        self.persist(move || self.inner.create(key, payload.clone()))
    }

    fn read<'a>(&'a self, key: &'a str, range: Option<Range<u64>>) -> BoxFuture<'a, Result<Bytes>> {
        let wanted = range.as_ref().map(|range| range.end.saturating_sub(range.start));
        let read = self.persist(move || self.inner.read(key, range.clone()));
        async move {
            let octets = read.await?;
            match wanted {
                Some(wanted) if wanted < octets.len() as u64 => {
                    let given = octets.len();
                    Err(Error::damaged(format!(
                        "of '{key}' {wanted} octets were asked for, and the store gave {given}"
                    )))
                }
                _ => Ok(octets),
            }
        }
        .boxed()
    }

    fn length<'a>(&'a self, key: &'a str) -> BoxFuture<'a, Result<Option<u64>>> {
        let length = self.persist(move || self.inner.length(key));
        length.map(|length| length.map(|length| length.map(|length| length.min(OBJECT_OCTETS_MAX)))).boxed()
    }

    fn list<'a>(&'a self, prefix: &'a str) -> BoxStream<'a, Result<Listed>> {
        let begun = self.persist(move || {
            let mut listing = self.inner.list(prefix);
            async move {
                let first = listing.try_next().await?;
                // An empty listing has ended already, and need not bear to be asked again.
                Ok(stream::iter(first.map(Ok)).chain(listing.fuse()))
            }
            .boxed()
        });
        let listing = stream::once(begun).try_flatten();
        let mut watch = Watch::new(prefix, self.listed_max);
        listing.try_filter_map(move |listed| future::ready(watch.judge(listed))).boxed()
    }

    fn delete<'a>(&'a self, key: &'a str) -> BoxFuture<'a, Result<()>> {
        self.persist(move || self.inner.delete(key))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::executor::block_on;

    /// What comes of a listing of these keys, watched.
    fn watch(keys: impl Iterator<Item = String>, listed_max: u64) -> Result<Vec<String>> {
        let mut watch = Watch::new("packs/", listed_max);
        let mut seen = Vec::new();
        for key in keys {
            seen.extend(watch.judge(Listed { key, length: 1 })?.map(|listed| listed.key));
        }
        Ok(seen)
    }

    #[test]
    fn a_listing_that_goes_round_in_circles_or_never_ends_is_an_error() {
        for length in [1, 2, 3, 7, 64, 1000] {
            let circle = (0_u64..).map(move |at| format!("packs/{}", at % length));
            assert_eq!(watch(circle, LISTED_MAX).unwrap_err().kind(), ErrorKind::Damaged, "{length}");
        }
        let endless = (0_u64..).map(|at| format!("packs/{at}"));
        assert_eq!(watch(endless.clone(), 5000).unwrap_err().kind(), ErrorKind::Limit);
        assert_eq!(watch(endless.take(5000), 5000).unwrap().len(), 5000);
    }

    #[test]
    fn a_key_that_is_listed_twice_is_no_circle_and_names_from_elsewhere_are_left_out() {
        let keys = ["packs/a", "packs/a", "../packs/a", "index/b", "packs/../c", "packs/B", "", "packs/d"];
        let seen = watch(keys.into_iter().map(str::to_owned), LISTED_MAX).unwrap();
        assert_eq!(seen, ["packs/a", "packs/a", "packs/d"]);
    }

    /// Answers every read with this many octets.
    #[derive(Debug)]
    struct Gives(usize);

    impl Store for Gives {
        fn put<'a>(&'a self, _: &'a str, _: Payload) -> BoxFuture<'a, Result<()>> {
            future::ready(Ok(())).boxed()
        }

        fn create<'a>(&'a self, _: &'a str, _: Payload) -> BoxFuture<'a, Result<Created>> {
            future::ready(Ok(Created::New)).boxed()
        }

        fn read<'a>(&'a self, _: &'a str, _: Option<Range<u64>>) -> BoxFuture<'a, Result<Bytes>> {
            future::ready(Ok(vec![0; self.0].into())).boxed()
        }

        fn length<'a>(&'a self, _: &'a str) -> BoxFuture<'a, Result<Option<u64>>> {
            future::ready(Ok(None)).boxed()
        }

        fn list<'a>(&'a self, _: &'a str) -> BoxStream<'a, Result<Listed>> {
            stream::empty().boxed()
        }

        fn delete<'a>(&'a self, _: &'a str) -> BoxFuture<'a, Result<()>> {
            future::ready(Ok(())).boxed()
        }
    }

    #[test]
    fn a_store_that_gives_more_octets_than_were_asked_for_is_not_believed() {
        let timer: Arc<dyn Timer> = Arc::new(crate::runtime::SystemTimer);
        for (given, is_right) in [(0, true), (4, true), (5, true), (6, false), (500, false)] {
            let store = RetryingStore::new(Arc::new(Gives(given)), Retries::none(), Arc::clone(&timer), 1);
            let read = block_on(store.read("packs/a", Some(10..15)));
            assert_eq!(read.map_err(|error| error.kind()).map(|octets| octets.len()).ok(), is_right.then_some(given));
        }
    }
}
