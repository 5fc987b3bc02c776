use super::*;
use crate::testing::store_conformance;
use futures::executor::block_on;
use object_store::memory::InMemory;

fn in_memory(prefix: &str) -> ObjectStore014 {
    ObjectStore014::new(Arc::new(InMemory::new()), prefix).unwrap()
}

#[tokio::test]
async fn a_store_of_that_crate_conforms_through_the_adapter() {
    for prefix in ["", "a", "Mail of 2026/b_c"] {
        store_conformance(&in_memory(prefix)).await.unwrap();
    }
}

#[test]
fn without_a_runtime_operations_run_where_they_are_polled() {
    block_on(store_conformance(&in_memory("a"))).unwrap();
}

#[test]
fn operations_run_on_the_runtime_that_was_given_and_are_polled_anywhere() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let store = in_memory("a").on(runtime.handle().clone());
    block_on(store_conformance(&store)).unwrap();
    drop(runtime);
    let error = block_on(store.length("a")).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported);
    assert!(error.to_string().contains("shut down"), "{error}");
}

#[test]
fn a_larger_object_goes_in_parts_and_comes_back() {
    let multipart = Multipart::new(Multipart::PART_MIN, Multipart::PART_MIN, 3).unwrap();
    let store = in_memory("a").multipart(multipart);
    for length in [Multipart::PART_MIN - 1, Multipart::PART_MIN, Multipart::PART_MIN + 1, 3 * Multipart::PART_MIN + 7] {
        let octets: Vec<u8> = (0..length).map(|at| (at % 251) as u8).collect();
        block_on(store.put("b", Payload::from(octets.clone()))).unwrap();
        assert!(block_on(store.read("b", None)).unwrap() == octets, "{length}");
    }
}

#[test]
fn parts_are_as_object_stores_take_them() {
    for (part, at_once) in [(Multipart::PART_MIN - 1, 1), ((1 << 30) + 1, 1), (16 << 20, 0)] {
        assert_eq!(Multipart::new(0, part, at_once).unwrap_err().kind(), ErrorKind::Invalid);
    }
    assert!(!Multipart::never().is_for(&Payload::from(vec![0; 100])));
}

#[test]
fn what_others_have_under_the_prefix_and_beside_it_is_not_listed() {
    let inner = Arc::new(InMemory::new());
    for path in ["a/b", "a/B", "a/b c", "a/.tmp/x", "ab/c", "c", "a"] {
        block_on(inner.put(&Path::parse(path).unwrap(), "octets".into())).unwrap();
    }
    let store = ObjectStore014::new(inner, "a").unwrap();
    let listed: Vec<Listed> = block_on(store.list("").try_collect()).unwrap();
    assert_eq!(listed, [Listed { key: "b".into(), length: 6 }]);
}

#[test]
fn a_listing_may_be_asked_on_behind_its_end() {
    let store = in_memory("a");
    let mut listing = store.list("");
    for _ in 0..3 {
        assert!(block_on(listing.next()).is_none());
    }
}

#[test]
fn what_is_no_key_no_prefix_or_no_range_is_refused() {
    let store = in_memory("");
    let kind = |error: Error| error.kind();
    let backwards = Range { start: 2, end: 1 };
    let kinds = [
        block_on(store.put("../a", Payload::default())).map_err(kind).unwrap_err(),
        block_on(store.create("/a", Payload::default())).map_err(kind).unwrap_err(),
        block_on(store.read("A", None)).map_err(kind).unwrap_err(),
        block_on(store.read("a", Some(backwards))).map_err(kind).unwrap_err(),
        block_on(store.length("")).map_err(kind).unwrap_err(),
        block_on(store.list("a").next()).unwrap().map_err(kind).unwrap_err(),
        block_on(store.delete(".")).map_err(kind).unwrap_err(),
        ObjectStore014::new(Arc::new(InMemory::new()), "a//b").map_err(kind).unwrap_err(),
    ];
    assert_eq!(kinds, [ErrorKind::Invalid; 8]);
}
