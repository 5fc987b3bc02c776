use super::disk::MADE_MAX;
use super::*;
use crate::error::Retry;
use crate::runtime::WorkerPool;
use crate::store::files::{Entry, Kind, Metadata, NewFile};
use futures::stream::TryStreamExt;
use std::io::{self, IoSlice};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;
use tempfile::TempDir;

/// The system's files, with a record of every call that changes or syncs something, of which chosen ones fail.
#[derive(Debug)]
struct Recording {
    root: PathBuf,
    calls: Arc<Mutex<Vec<String>>>,
    failing: Mutex<Option<(String, io::ErrorKind)>>,
    /// The most octets that a file takes at once.
    mouthful: usize,
    /// Where the written octets were in memory.
    sources: Arc<Mutex<Vec<usize>>>,
}

impl Recording {
    fn record(&self, call: &str, path: &Path) -> io::Result<()> {
        let path = path
            .strip_prefix(&self.root)
            .map_or_else(|_| path.display().to_string(), |path| path.display().to_string());
        let path = if path.starts_with(".tmp/") { "temporary" } else { &path };
        let call = format!("{call} {path}").trim_end().to_owned();
        self.calls.lock().unwrap().push(call.clone());
        match &*self.failing.lock().unwrap() {
            Some((failing, kind)) if *failing == call => Err((*kind).into()),
            _ => Ok(()),
        }
    }

    fn fail(&self, call: &str, kind: io::ErrorKind) {
        *self.failing.lock().unwrap() = Some((call.to_owned(), kind));
    }

    fn fail_no_more(&self) {
        *self.failing.lock().unwrap() = None;
    }

    fn take_calls(&self) -> Vec<String> {
        std::mem::take(&mut *self.calls.lock().unwrap())
    }
}

impl Files for Recording {
    fn create_new(&self, path: &Path) -> io::Result<Box<dyn NewFile>> {
        self.record("new", path)?;
        let file = SystemFiles.create_new(path)?;
        let sync_fails = match &*self.failing.lock().unwrap() {
            Some((call, kind)) if call == "sync file" => Some(*kind),
            _ => None,
        };
        let (calls, sources) = (Arc::clone(&self.calls), Arc::clone(&self.sources));
        Ok(Box::new(RecordedFile { file, calls, sources, sync_fails, mouthful: self.mouthful }))
    }
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.record("rename", to)?;
        SystemFiles.rename(from, to)
    }
    fn link(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.record("link", to)?;
        SystemFiles.link(from, to)
    }
    fn remove(&self, path: &Path) -> io::Result<()> {
        self.record("remove", path)?;
        SystemFiles.remove(path)
    }
    fn create_directory(&self, path: &Path) -> io::Result<()> {
        self.record("make", path)?;
        SystemFiles.create_directory(path)
    }
    fn sync_directory(&self, path: &Path) -> io::Result<()> {
        self.record("sync directory", path)?;
        SystemFiles.sync_directory(path)
    }
    fn read(&self, path: &Path, range: Option<Range<u64>>) -> io::Result<Vec<u8>> {
        SystemFiles.read(path, range)
    }
    fn metadata(&self, path: &Path) -> io::Result<Metadata> {
        SystemFiles.metadata(path)
    }
    fn list(&self, path: &Path) -> io::Result<Vec<Entry>> {
        SystemFiles.list(path)
    }
}

#[derive(Debug)]
struct RecordedFile {
    file: Box<dyn NewFile>,
    calls: Arc<Mutex<Vec<String>>>,
    sources: Arc<Mutex<Vec<usize>>>,
    sync_fails: Option<io::ErrorKind>,
    mouthful: usize,
}

impl NewFile for RecordedFile {
    fn write_vectored(&mut self, pieces: &[IoSlice<'_>]) -> io::Result<usize> {
        let first = &pieces[0];
        self.sources.lock().unwrap().push(first.as_ptr() as usize);
        self.file.write_vectored(&[IoSlice::new(&first[..first.len().min(self.mouthful)])])
    }
    fn sync(&mut self) -> io::Result<()> {
        self.calls.lock().unwrap().push("sync file".to_owned());
        self.sync_fails.map_or_else(|| self.file.sync(), |kind| Err(kind.into()))
    }
}

fn recorded() -> (TempDir, Arc<Recording>, FileStore) {
    recorded_with_mouthful(usize::MAX)
}

fn recorded_with_mouthful(mouthful: usize) -> (TempDir, Arc<Recording>, FileStore) {
    let directory = tempfile::tempdir().unwrap();
    let root = directory.path().to_owned();
    std::fs::create_dir(root.join(".tmp")).unwrap();
    let files = Arc::new(Recording {
        root: root.clone(),
        calls: Arc::default(),
        failing: Mutex::default(),
        mouthful,
        sources: Arc::default(),
    });
    let store = FileStore::with(root, Arc::clone(&files) as _, Arc::new(Inline), &SystemRandomness).unwrap();
    (directory, files, store)
}

/// What a future gives that needs not wait, as none does on an inline executor.
fn now<T>(future: impl Future<Output = T>) -> T {
    future.now_or_never().unwrap()
}

fn keys(store: &FileStore, prefix: &str) -> Vec<String> {
    let listed: Vec<_> = now(store.list(prefix).try_collect()).unwrap();
    listed.into_iter().map(|listed| listed.key).collect()
}

fn temporaries(directory: &TempDir) -> usize {
    std::fs::read_dir(directory.path().join(".tmp")).unwrap().count()
}

#[test]
fn a_put_syncs_the_file_before_it_gets_its_name_and_every_directory_after() {
    let (_directory, files, store) = recorded();
    now(store.put("packs/0f/a", Payload::from(b"octets".to_vec()))).unwrap();
    assert_eq!(
        files.take_calls(),
        [
            "new temporary",
            "sync file",
            "make packs",
            "sync directory",
            "make packs/0f",
            "sync directory packs",
            "rename packs/0f/a",
            "sync directory packs/0f",
        ]
    );
    now(store.put("packs/0f/b", Payload::default())).unwrap();
    assert_eq!(files.take_calls(), ["new temporary", "sync file", "rename packs/0f/b", "sync directory packs/0f"]);
}

#[test]
fn a_create_syncs_the_file_before_it_gets_its_name_and_the_directory_after() {
    let (directory, files, store) = recorded();
    assert_eq!(now(store.create("a", Payload::from(b"octets".to_vec()))).unwrap(), Created::New);
    let calls = ["new temporary", "sync file", "link a", "sync directory", "remove temporary"];
    assert_eq!(files.take_calls(), calls);
    assert_eq!(temporaries(&directory), 0);
}

#[test]
fn a_loser_is_told_only_when_the_name_of_the_winners_object_is_durable() {
    let (_directory, files, store) = recorded();
    files.fail("sync directory", io::ErrorKind::Other);
    assert!(now(store.create("a", Payload::from(b"winner".to_vec()))).is_err());
    // Another process, which knows nothing of the failure.
    let other = FileStore::with(&*files.root, Arc::clone(&files) as _, Arc::new(Inline), &SystemRandomness).unwrap();
    assert!(now(other.create("a", Payload::from(b"loser".to_vec()))).is_err());
    files.fail_no_more();
    files.take_calls();
    let another = FileStore::with(&*files.root, Arc::clone(&files) as _, Arc::new(Inline), &SystemRandomness).unwrap();
    assert_eq!(now(another.create("a", Payload::from(b"loser".to_vec()))).unwrap(), Created::Exists);
    assert_eq!(files.take_calls()[2..], ["link a", "sync directory", "remove temporary"]);
    assert_eq!(now(store.read("a", None)).unwrap(), "winner");
}

#[test]
fn a_directory_that_another_writer_made_is_synced_nevertheless() {
    let (directory, files, store) = recorded();
    std::fs::create_dir(directory.path().join("packs")).unwrap();
    now(store.put("packs/a", Payload::default())).unwrap();
    assert_eq!(files.take_calls()[2..4], ["make packs", "sync directory"]);
}

#[test]
fn directories_that_are_durable_are_remembered_up_to_a_number_and_then_synced_again() {
    let (_directory, files, store) = recorded();
    let put = |directory: usize| {
        now(store.put(&format!("{directory}/a"), Payload::default())).unwrap();
        files.take_calls().iter().filter(|call| *call == "sync directory").count()
    };
    assert_eq!([put(0), put(0)], [1, 0]);
    assert!((1..MADE_MAX).all(|directory| put(directory) == 1));
    assert_eq!([put(0), put(MADE_MAX), put(0)], [0, 1, 1]);
}

#[test]
fn a_file_that_fails_to_sync_becomes_no_object_and_is_thrown_away() {
    for kind in [io::ErrorKind::Other, io::ErrorKind::StorageFull] {
        let (directory, files, store) = recorded();
        files.fail("sync file", kind);
        let expected = if kind == io::ErrorKind::StorageFull { ErrorKind::Full } else { ErrorKind::Unavailable };
        assert_eq!(now(store.put("a", Payload::default())).unwrap_err().kind(), expected);
        assert_eq!(now(store.create("b", Payload::default())).unwrap_err().kind(), expected);
        assert_eq!(keys(&store, ""), [""; 0]);
        assert_eq!(temporaries(&directory), 0);
        let syncs = files.take_calls().iter().filter(|call| *call == "sync file").count();
        assert_eq!(syncs, 2, "a failed sync is not tried again");
    }
}

#[test]
fn a_directory_that_failed_to_sync_once_is_not_believed_again() {
    let (_directory, files, store) = recorded();
    now(store.put("packs/a", Payload::default())).unwrap();
    files.fail("sync directory packs", io::ErrorKind::Other);
    assert!(now(store.put("packs/b", Payload::default())).is_err());
    files.fail_no_more();
    files.take_calls();
    for error in [
        now(store.put("packs/b", Payload::default())).unwrap_err(),
        now(store.create("packs/b", Payload::default())).unwrap_err(),
    ] {
        assert_eq!((error.kind(), error.retry()), (ErrorKind::Unavailable, Retry::Never));
    }
    assert!(!files.take_calls().contains(&"sync directory packs".to_owned()));
    now(store.put("mailboxes/a", Payload::default())).unwrap();
}

#[test]
fn a_failed_step_before_the_name_leaves_neither_an_object_nor_a_temporary_file() {
    let steps = ["new temporary", "make packs", "sync directory"];
    for step in steps.into_iter().chain(["rename packs/a"]) {
        let (directory, files, store) = recorded();
        files.fail(step, io::ErrorKind::PermissionDenied);
        assert_eq!(now(store.put("packs/a", Payload::default())).unwrap_err().kind(), ErrorKind::Denied, "{step}");
        assert_eq!((keys(&store, "").len(), temporaries(&directory)), (0, 0), "{step}");
    }
    for step in steps.into_iter().chain(["link packs/a"]) {
        let (directory, files, store) = recorded();
        files.fail(step, io::ErrorKind::ReadOnlyFilesystem);
        assert_eq!(now(store.create("packs/a", Payload::default())).unwrap_err().kind(), ErrorKind::Denied, "{step}");
        assert_eq!((keys(&store, "").len(), temporaries(&directory)), (0, 0), "{step}");
    }
}

#[test]
fn without_hard_links_create_is_unsupported_and_put_works() {
    for kind in [io::ErrorKind::Unsupported, io::ErrorKind::CrossesDevices] {
        let (_directory, files, store) = recorded();
        files.fail("link a", kind);
        assert_eq!(now(store.create("a", Payload::default())).unwrap_err().kind(), ErrorKind::Unsupported);
        now(store.put("a", Payload::default())).unwrap();
    }
}

#[test]
fn without_a_way_to_sync_directories_writing_is_unsupported() {
    let (_directory, files, store) = recorded();
    files.fail("sync directory", io::ErrorKind::InvalidInput);
    assert_eq!(now(store.put("a", Payload::default())).unwrap_err().kind(), ErrorKind::Unsupported);
}

#[test]
fn the_pieces_are_written_from_where_they_are() {
    let (_directory, files, store) = recorded();
    let pieces: Vec<Bytes> = [0, 70_000, 1, 0, 4096].map(|length| Bytes::from(vec![7; length])).into();
    let whole = pieces.concat();
    let sources: Vec<_> =
        pieces.iter().filter(|piece| !piece.is_empty()).map(|piece| piece.as_ptr() as usize).collect();
    now(store.put("a", Payload::new(pieces))).unwrap();
    assert_eq!(*files.sources.lock().unwrap(), sources);
    assert_eq!(now(store.read("a", None)).unwrap(), whole);
}

#[test]
fn a_file_that_takes_little_at_a_time_gets_every_octet_once() {
    let (_directory, _files, store) = recorded_with_mouthful(7);
    let octets: Vec<u8> = (0..=255).collect();
    let pieces = octets.chunks(10).map(Bytes::copy_from_slice).collect();
    now(store.put("a", Payload::new(pieces))).unwrap();
    assert_eq!(now(store.read("a", None)).unwrap(), octets);
}

#[test]
fn a_directory_taken_away_beneath_the_store_is_made_again_by_the_next_try() {
    let (directory, _files, store) = recorded();
    now(store.put("packs/0f/a", Payload::default())).unwrap();
    std::fs::remove_dir_all(directory.path().join("packs")).unwrap();
    assert_eq!(now(store.put("packs/0f/a", Payload::default())).unwrap_err().kind(), ErrorKind::Unavailable);
    now(store.put("packs/0f/a", Payload::default())).unwrap();
}

#[test]
fn temporaries_and_foreign_files_are_never_listed_or_read() {
    let directory = tempfile::tempdir().unwrap();
    let store = FileStore::open(directory.path()).unwrap();
    now(store.put("packs/a", Payload::default())).unwrap();
    for foreign in [".tmp/0-0", ".tmp/a", ".DS_Store", "packs/.a.swp", "Packs", "packs/lost+found"] {
        std::fs::write(directory.path().join(foreign), "foreign").unwrap();
    }
    assert_eq!(keys(&store, ""), ["packs/a"]);
    assert_eq!(keys(&store, "packs/"), ["packs/a"]);
    assert_eq!(now(store.read(".tmp/a", None)).unwrap_err().kind(), ErrorKind::Invalid);
}

#[test]
fn what_is_no_key_reaches_no_file() {
    let (_directory, files, store) = recorded();
    let kinds = [
        now(store.put("../a", Payload::default())).unwrap_err().kind(),
        now(store.create("/a", Payload::default())).unwrap_err().kind(),
        now(store.read("a/../../b", None)).unwrap_err().kind(),
        now(store.length("A")).unwrap_err().kind(),
        now(store.list("../").try_next()).unwrap_err().kind(),
        now(store.delete(".tmp")).unwrap_err().kind(),
    ];
    assert_eq!(kinds, [ErrorKind::Invalid; 6]);
    assert_eq!(files.take_calls(), [""; 0]);
}

#[test]
#[allow(clippy::disallowed_methods, reason = "the store compares with the system's clock")]
fn only_old_temporaries_are_removed() {
    let directory = tempfile::tempdir().unwrap();
    let store = FileStore::open(directory.path()).unwrap();
    now(store.put("a", Payload::default())).unwrap();
    let old = std::fs::File::create(directory.path().join(".tmp/old-1")).unwrap();
    old.set_modified(std::time::SystemTime::now() - Duration::from_secs(7200)).unwrap();
    std::fs::write(directory.path().join(".tmp/young-1"), "being written").unwrap();
    assert_eq!(now(store.remove_temporaries(Duration::from_secs(3600))).unwrap(), 1);
    assert!(!directory.path().join(".tmp/old-1").exists());
    assert_eq!(temporaries(&directory), 1);
    assert_eq!(keys(&store, ""), ["a"]);
}

#[test]
fn a_name_in_use_by_another_writer_is_passed_over() {
    let directory = tempfile::tempdir().unwrap();
    let store = FileStore::open(directory.path()).unwrap();
    // As after a fork: the same token, the same count.
    let forked = || {
        let disk = Disk::new(directory.path().to_owned(), Arc::new(SystemFiles), 7);
        FileStore { disk: Arc::new(disk), executor: Arc::new(Inline) }
    };
    now(store.put("a", Payload::default())).unwrap();
    std::fs::write(directory.path().join(".tmp/0000000000000007-0"), "the parent's").unwrap();
    now(forked().put("b", Payload::from(b"the child's".to_vec()))).unwrap();
    assert_eq!(now(store.read("b", None)).unwrap(), "the child's");
    assert_eq!(temporaries(&directory), 1);
}

#[test]
fn an_object_and_a_directory_cannot_have_one_name() {
    let directory = tempfile::tempdir().unwrap();
    let store = FileStore::open(directory.path()).unwrap();
    now(store.put("a/b", Payload::default())).unwrap();
    now(store.put("c", Payload::default())).unwrap();
    for key in ["a", "c/d"] {
        assert_eq!(now(store.put(key, Payload::default())).unwrap_err().kind(), ErrorKind::Invalid, "{key}");
        assert_eq!(now(store.create(key, Payload::default())).unwrap_err().kind(), ErrorKind::Invalid, "{key}");
        assert_eq!(now(store.read(key, None)).unwrap_err().kind(), ErrorKind::NotFound, "{key}");
        assert_eq!(now(store.length(key)).unwrap(), None, "{key}");
        now(store.delete(key)).unwrap();
    }
    assert_eq!(keys(&store, "c/"), [""; 0]);
    assert_eq!(keys(&store, ""), ["a/b", "c"]);
}

#[test]
fn a_store_that_is_not_there_is_not_an_empty_one() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("some/store");
    assert_eq!(FileStore::open(&path).unwrap_err().kind(), ErrorKind::NotFound);
    let store = FileStore::open_or_create(&path).unwrap();
    assert_eq!(keys(&store, "packs/"), [""; 0]);
    assert_eq!(now(store.length("a")).unwrap(), None);
    std::fs::remove_dir(&path).unwrap();
    assert_eq!(now(store.list("packs/").try_next()).unwrap_err().kind(), ErrorKind::NotFound);
    assert_eq!(now(store.length("a")).unwrap_err().kind(), ErrorKind::NotFound);
    assert_eq!(now(store.put("a", Payload::default())).unwrap_err().kind(), ErrorKind::Unavailable);
    std::fs::write(&path, "a file").unwrap();
    assert_eq!(FileStore::open_or_create(&path).unwrap_err().kind(), ErrorKind::Invalid);
}

#[test]
fn making_the_store_syncs_every_directory_that_got_a_new_name() {
    let (_directory, files, _) = recorded();
    let disk = Disk::new(files.root.join("some/store"), Arc::clone(&files) as _, 0);
    disk.create_root().unwrap();
    assert_eq!(files.take_calls(), ["make some", "sync directory", "make some/store", "sync directory some"]);
}

#[test]
fn of_racing_threads_one_creates_and_its_octets_are_kept() {
    const THREADS: usize = 8;
    let directory = tempfile::tempdir().unwrap();
    for round in 0..20 {
        let key = format!("mailboxes/0f/{round}");
        let winners = AtomicUsize::new(0);
        let start = std::sync::Barrier::new(THREADS);
        std::thread::scope(|scope| {
            for thread in 0..THREADS {
                let (key, winners, start) = (&key, &winners, &start);
                // A store of its own, as another process has.
                let store = FileStore::open(directory.path()).unwrap();
                scope.spawn(move || {
                    let octets = vec![thread as u8; 10_000 + thread];
                    start.wait();
                    let created = now(store.create(key, octets.clone().into())).unwrap();
                    let kept = now(store.read(key, None)).unwrap();
                    assert_eq!(kept.len(), 10_000 + usize::from(kept[0]), "the object is whole as soon as it is there");
                    if created == Created::New {
                        winners.fetch_add(1, Ordering::Relaxed);
                        assert_eq!(kept, octets);
                    }
                });
            }
        });
        assert_eq!(winners.into_inner(), 1);
    }
    assert_eq!(temporaries(&directory), 0);
}

#[test]
fn inside_of_a_runtime_the_polling_thread_does_not_touch_the_disk() {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let (sender, receiver) = mpsc::channel();
    runtime
        .block_on(runtime::run(&RuntimeOfCaller, move || sender.send(std::thread::current().id())))
        .unwrap()
        .unwrap();
    assert_ne!(receiver.recv().unwrap(), std::thread::current().id());
    let here = now(runtime::run(&RuntimeOfCaller, || std::thread::current().id())).unwrap();
    assert_eq!(here, std::thread::current().id());
}

#[test]
fn a_write_whose_future_is_dropped_leaves_a_whole_object() {
    let directory = tempfile::tempdir().unwrap();
    let pool = Arc::new(WorkerPool::new(1).unwrap());
    let store =
        FileStore::with(directory.path(), Arc::new(SystemFiles), Arc::clone(&pool) as _, &SystemRandomness).unwrap();
    let _ = store.put("a", Payload::from(vec![7; 100_000])).now_or_never();
    // The one worker comes to this after the write.
    let (sender, receiver) = mpsc::channel();
    pool.execute(Box::new(move || sender.send(()).unwrap()));
    receiver.recv().unwrap();
    assert_eq!(std::fs::read(directory.path().join("a")).unwrap(), [7; 100_000]);
}

#[test]
fn a_range_far_beyond_the_end_gives_what_there_is_and_takes_no_memory() {
    let directory = tempfile::tempdir().unwrap();
    let store = FileStore::open(directory.path()).unwrap();
    now(store.put("a", Payload::from(b"octets".to_vec()))).unwrap();
    for (range, octets) in [(0..u64::MAX, "octets"), (u64::MAX - 1..u64::MAX, ""), (5..7, "s"), (6..7, ""), (7..7, "")]
    {
        assert_eq!(now(store.read("a", Some(range.clone()))).unwrap(), octets, "{range:?}");
    }
    #[allow(clippy::reversed_empty_ranges, reason = "that is what is tried")]
    let reversed = now(store.read("a", Some(4..2)));
    assert_eq!(reversed.unwrap_err().kind(), ErrorKind::Invalid);
}

#[test]
fn a_listing_is_sorted_in_every_directory_and_leaves_out_links() {
    let directory = tempfile::tempdir().unwrap();
    let store = FileStore::open(directory.path()).unwrap();
    for key in ["packs/b/2", "packs/a/9", "packs/b/1", "config", "packs/0"] {
        now(store.put(key, Payload::from(b"12".to_vec()))).unwrap();
    }
    #[cfg(unix)]
    std::os::unix::fs::symlink(directory.path(), directory.path().join("packs/loop")).unwrap();
    assert_eq!(keys(&store, ""), ["config", "packs/0", "packs/a/9", "packs/b/1", "packs/b/2"]);
    assert_eq!(keys(&store, "packs/b/"), ["packs/b/1", "packs/b/2"]);
    let sizes: Vec<_> = now(store.list("").map_ok(|listed| listed.length).try_collect()).unwrap();
    assert_eq!(sizes, [2; 5]);
    assert_eq!(SystemFiles.metadata(directory.path()).unwrap().kind, Kind::Directory);
}
