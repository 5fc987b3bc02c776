use super::*;
use crate::store::{GovernedStore, MemoryStore, Payload, Store};
use crate::testing::{ManualClock, SlowStore, ThrottledStore, VirtualTime};
use futures::FutureExt;
use futures::future::{join_all, pending};
use futures::stream::{self, StreamExt};

const fn ms(milliseconds: u64) -> Duration {
    Duration::from_millis(milliseconds)
}

fn governor(time: &VirtualTime, settings: GovernorSettings) -> Governor {
    Governor::with(settings, Arc::new(time.clone()), Arc::new(time.clone()))
}

fn slow(time: &VirtualTime, latency: Duration) -> Arc<dyn Store> {
    Arc::new(SlowStore::new(Arc::new(MemoryStore::new()), Arc::new(time.clone()), latency))
}

/// So many puts of this length, all at once.
async fn put(store: &dyn Store, puts: usize, octets: usize) {
    let keys: Vec<String> = (0..puts).map(|number| format!("a{number}")).collect();
    let payload = Payload::from(vec![0; octets]);
    join_all(keys.iter().map(|key| store.put(key, payload.clone()))).await.into_iter().for_each(|put| put.unwrap());
}

#[test]
fn no_more_are_in_flight_than_the_window_and_it_opens() {
    let time = VirtualTime::new();
    let governor = governor(&time, GovernorSettings { in_flight_max: 40, ..GovernorSettings::default() });
    let store = GovernedStore::new(slow(&time, ms(50)), governor.clone());
    let mut puts = Box::pin(put(&store, 1000, 10));
    let mut most = 0;
    time.run(std::future::poll_fn(|context| {
        let polled = puts.poll_unpin(context);
        assert!(governor.in_flight() <= governor.window());
        most = most.max(governor.in_flight());
        polled
    }));
    assert_eq!((most, governor.window(), governor.in_flight()), (40, 40, 0));
    // Round trips of about 8, 16, 32, and then 40.
    assert!((ms(50) * 27..=ms(50) * 30).contains(&time.now()), "{:?}", time.now());
}

#[test]
fn who_waits_is_not_overtaken_and_who_gives_up_leaves_the_place_to_others() {
    let time = VirtualTime::new();
    let governor = governor(&time, GovernorSettings { in_flight_max: 1, ..GovernorSettings::default() });
    let ended = Mutex::new(Vec::new());
    let request = |number: u32, work: Duration| {
        let (governor, time, ended) = (&governor, &time, &ended);
        async move {
            let work = async {
                time.sleep(work).await;
                ended.lock().unwrap().push(number);
                Ok(())
            };
            governor.request(RequestKind::Read, 0, work).await.unwrap();
        }
    };
    let stuck = governor.request(RequestKind::Read, 0, pending::<Result<()>>());
    let mut stuck = Box::pin(stuck);
    assert!(stuck.as_mut().now_or_never().is_none());
    let mut given_up = Box::pin(request(0, ms(1)));
    assert!(given_up.as_mut().now_or_never().is_none());
    let mut others: Vec<_> = (1..=5).map(|number| Box::pin(request(number, ms(1)))).collect();
    assert!(others.iter_mut().all(|other| other.as_mut().now_or_never().is_none()));
    assert_eq!((governor.in_flight(), governor.waiting()), (1, Some(Waiting::Latency)));
    drop((stuck, given_up));
    time.run(join_all(others));
    assert_eq!((&**ended.lock().unwrap(), governor.in_flight()), (&[1, 2, 3, 4, 5][..], 0));
    assert_eq!(governor.waiting(), None);
}

#[test]
fn a_ceiling_of_bandwidth_is_kept_and_can_be_moved_while_requests_wait() {
    let time = VirtualTime::new();
    let settings = GovernorSettings { bandwidth: Some(1_000_000), ..GovernorSettings::default() };
    let governor = governor(&time, settings);
    let store = GovernedStore::new(slow(&time, ms(1)), governor.clone());
    time.run(put(&store, 100, 1_000_000));
    assert!((98_000..=100_000).contains(&time.now().as_millis()), "{:?}", time.now());
    // What is read is paid for when it came.
    let before = time.now();
    time.run(join_all((0..50).map(|_| store.read("a1", None))));
    time.run(store.length("a1")).unwrap();
    let taken = time.now() - before;
    assert!((48_000..=52_000).contains(&taken.as_millis()), "{taken:?}");
    // The evening window opens.
    let before = time.now();
    let open = async {
        time.sleep(ms(10_000)).await;
        assert_eq!(governor.waiting(), Some(Waiting::Ceiling));
        governor.set_bandwidth(None);
    };
    time.run(futures::future::join(put(&store, 100, 1_000_000), open));
    let taken = time.now() - before;
    assert!((10_000..=10_100).contains(&taken.as_millis()), "{taken:?}");
}

#[test]
fn a_ceiling_of_requests_counts_parts() {
    let time = VirtualTime::new();
    let multipart = Multipart { above_bytes: 100, part_bytes: 10, is_governed_below: false };
    let settings = GovernorSettings { requests: Some(10.0), multipart: Some(multipart), ..GovernorSettings::default() };
    let governor = governor(&time, settings);
    let store = GovernedStore::new(slow(&time, ms(1)), governor.clone());
    time.run(put(&store, 10, 198));
    assert_eq!(governor.usage().writes, 220);
    assert!((19_000..=20_000).contains(&time.now().as_millis()), "{:?}", time.now());
    time.run(put(&store, 10, 100));
    assert_eq!(governor.usage().writes, 230);
    assert_eq!([1, 14, 15, 101, 109].map(|octets| multipart.parts(octets)), [1, 1, 2, 10, 11]);
}

#[test]
fn a_store_that_governs_its_parts_by_itself_does_not_wait_for_a_place_of_its_own() {
    let time = VirtualTime::new();
    let multipart = Multipart { above_bytes: 100, part_bytes: 10, is_governed_below: true };
    let settings = GovernorSettings { in_flight_max: 1, multipart: Some(multipart), ..GovernorSettings::default() };
    let governor = governor(&time, settings);
    let store = GovernedStore::new(slow(&time, ms(1)), governor.clone());
    let held = governor.request(RequestKind::Write, 10, pending::<Result<()>>());
    let mut held = Box::pin(held);
    assert!(held.as_mut().now_or_never().is_none());
    time.run(put(&store, 1, 101));
    assert!(put(&store, 1, 100).now_or_never().is_none());
    assert_eq!(governor.usage().writes, 1);
}

#[test]
fn what_one_is_told_to_wait_all_wait() {
    let time = VirtualTime::new();
    let governor = governor(&time, GovernorSettings::default());
    let throttled = ThrottledStore::new(slow(&time, ms(1)), 1000, Duration::from_secs(7));
    let store = GovernedStore::new(Arc::new(throttled), governor.clone());
    assert!(time.run(store.put("a", Payload::default())).is_err());
    assert_eq!(governor.waiting(), Some(Waiting::Throttling));
    time.run(store.put("b", Payload::default())).unwrap();
    assert!((7000..=7100).contains(&time.now().as_millis()), "{:?}", time.now());
    assert_eq!((governor.usage().writes, governor.usage().refused), (2, 1));
    // An hour is not believed.
    let throttled = ThrottledStore::new(slow(&time, ms(1)), 1000, Duration::from_secs(3600));
    let (store, before) = (GovernedStore::new(Arc::new(throttled), governor), time.now());
    assert!(time.run(store.put("a", Payload::default())).is_err());
    time.run(store.put("b", Payload::default())).unwrap();
    assert!((60..=75).contains(&(time.now() - before).as_secs()), "{:?}", time.now() - before);
}

#[test]
fn a_failure_that_is_no_refusal_makes_nothing_slower() {
    let time = VirtualTime::new();
    let governor = governor(&time, GovernorSettings::default());
    let fail =
        |_| governor.request(RequestKind::Read, 0, async { Err::<(), _>(Error::new(ErrorKind::Unavailable, "")) });
    time.run(join_all((0..100).map(fail)));
    assert_eq!((governor.window(), governor.pace(), governor.usage().refused), (8, None, 0));
}

#[test]
fn a_clock_that_is_set_back_or_stands_still_holds_up_nothing() {
    let clock = ManualClock::new(Duration::from_secs(1_000_000));
    let settings = GovernorSettings { requests: Some(1.0), ..GovernorSettings::default() };
    let governor = Governor::with(settings, Arc::new(clock.clone()), Arc::new(VirtualTime::new()));
    let request = || governor.request(RequestKind::Read, 0, async { Ok(()) });
    assert!(request().now_or_never().is_some());
    clock.set(Duration::ZERO);
    assert!(request().now_or_never().is_none());
    clock.advance(Duration::from_secs(1));
    assert!(request().now_or_never().is_some());
    // The timer is right where the clock stands still.
    let time = VirtualTime::new();
    let settings = GovernorSettings { requests: Some(1.0), ..GovernorSettings::default() };
    let governor = Governor::with(settings, Arc::new(clock), Arc::new(time.clone()));
    time.run(join_all((0..10).map(|_| governor.request(RequestKind::Read, 0, async { Ok(()) })))).len();
    assert_eq!(time.now(), Duration::from_secs(9));
}

#[test]
fn listings_count_by_pages_and_hold_no_place_while_they_are_read() {
    let time = VirtualTime::new();
    let governor = governor(&time, GovernorSettings { in_flight_max: 1, ..GovernorSettings::default() });
    let store = GovernedStore::new(Arc::new(MemoryStore::new()), governor.clone());
    for (objects, pages) in [(0, 1), (1000, 1), (1001, 2), (2500, 3)] {
        let before = governor.usage();
        time.run(put(&store, objects, 0));
        let mut listing = store.list("");
        let mut listed = 0;
        while time.run(listing.next()).transpose().unwrap().is_some() {
            listed += 1;
            assert_eq!(governor.in_flight(), 0);
        }
        let used = governor.usage().since(&before);
        assert_eq!((listed, used.lists, used.writes), (objects, pages, objects as u64), "{objects}");
    }
}

#[test]
fn a_store_that_grants_so_many_a_second_is_asked_for_so_many() {
    for wait in [Some(Duration::from_secs(1)), None] {
        let time = VirtualTime::new();
        let governor = governor(&time, GovernorSettings::default());
        let throttled = ThrottledStore::per_second(slow(&time, ms(30)), 20.0, 20.0, wait, Arc::new(time.clone()));
        let store = GovernedStore::new(Arc::new(throttled), governor.clone());
        let end = Duration::from_secs(120);
        let mut settled = None;
        let watch = async {
            time.sleep(Duration::from_secs(10)).await;
            settled = Some(governor.usage());
        };
        let clients = stream::iter((0..50).map(|_| async {
            while time.now() < end {
                if store.length("a").await.is_err() {
                    time.sleep(ms(1000)).await;
                }
            }
        }));
        let clients = async { clients.buffer_unordered(50).collect::<Vec<()>>().await };
        time.run(futures::future::join(clients, watch));
        let used = governor.usage().since(&settled.unwrap());
        let rate = (used.requests() - used.refused) as f64 / 110.0;
        let refused = used.refused as f64 / used.requests() as f64;
        assert!((18.0..=22.0).contains(&rate), "{rate} a second, {refused} refused");
        assert!(refused < 0.1, "{refused} refused");
    }
}

/// A store of which one read in so many takes five seconds, and the others 20 ms.
#[derive(Debug)]
struct Stalls {
    inner: MemoryStore,
    time: VirtualTime,
    one_in: u64,
    reads: std::sync::atomic::AtomicU64,
}

impl Store for Stalls {
    fn put<'a>(&'a self, key: &'a str, payload: Payload) -> future::BoxFuture<'a, Result<()>> {
        self.inner.put(key, payload)
    }

    fn create<'a>(&'a self, key: &'a str, payload: Payload) -> future::BoxFuture<'a, Result<crate::store::Created>> {
        self.inner.create(key, payload)
    }

    fn read<'a>(
        &'a self,
        key: &'a str,
        range: Option<std::ops::Range<u64>>,
    ) -> future::BoxFuture<'a, Result<bytes::Bytes>> {
        let read = self.reads.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let latency = if read % self.one_in == self.one_in - 1 { 5000 } else { 20 };
        self.time.sleep(ms(latency)).then(move |()| self.inner.read(key, range)).boxed()
    }

    fn length<'a>(&'a self, key: &'a str) -> future::BoxFuture<'a, Result<Option<u64>>> {
        self.inner.length(key)
    }

    fn list<'a>(&'a self, prefix: &'a str) -> futures::stream::BoxStream<'a, Result<crate::store::Listed>> {
        self.inner.list(prefix)
    }

    fn delete<'a>(&'a self, key: &'a str) -> future::BoxFuture<'a, Result<()>> {
        self.inner.delete(key)
    }
}

/// How long 2,000 reads take one after the other, and how many of them were sent twice.
fn read_with_stalls(one_in: u64, hedges_reads: bool) -> (Duration, u64) {
    let time = VirtualTime::new();
    let governor = governor(&time, GovernorSettings { hedges_reads, ..GovernorSettings::default() });
    let stalls = Stalls { inner: MemoryStore::new(), time: time.clone(), one_in, reads: Default::default() };
    let store = GovernedStore::new(Arc::new(stalls), governor.clone());
    time.run(async {
        store.put("a", Payload::from(vec![7; 100])).await.unwrap();
        for _ in 0..2000 {
            assert_eq!(store.read("a", Some(10..20)).await.unwrap(), [7; 10][..]);
        }
    });
    assert_eq!(governor.in_flight(), 0);
    (time.now(), governor.usage().hedged)
}

#[test]
fn a_read_that_takes_long_is_sent_again_and_few_are() {
    let (without, none) = read_with_stalls(150, false);
    assert!(without > Duration::from_secs(13 * 5) && none == 0, "{without:?}");
    let (with, hedged) = read_with_stalls(150, true);
    // Before enough is known, one or two stall.
    assert!(with < Duration::from_secs(40 + 2 * 5 + 5), "{with:?}, {hedged} sent twice");
    assert!((10..=13).contains(&hedged), "{hedged}");
    // Where many take long, no more than one in a hundred is.
    let (_, hedged) = read_with_stalls(10, true);
    assert!(hedged <= 20, "{hedged}");
}
