//! Real mail: every file of the corpus named by `MAILRAIL_CORPUS`, into a repository and back, octet by octet. Skipped where it is not set.

use futures::executor::block_on;
use mailrail::sink::Sink;
use mailrail::source::Source;
use mailrail::store::FileStore;
use mailrail::{Engine, Key, Protection, Repository, Resources, sink, source};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

fn corpus() -> Option<PathBuf> {
    let corpus = std::env::var_os("MAILRAIL_CORPUS").map(PathBuf::from);
    if corpus.is_none() {
        println!("skipped: MAILRAIL_CORPUS is not set");
    }
    corpus
}

#[test]
fn every_file_comes_back_as_a_message() {
    let Some(corpus) = corpus() else { return };
    let scratch = tempfile::tempdir().unwrap();
    journey(scratch.path(), &corpus, || source::Eml::open(&corpus).unwrap(), sink::Eml::new);
}

#[test]
fn every_file_comes_back_with_its_line_ends_made_crlf_and_made_lf() {
    let Some(corpus) = corpus() else { return };
    for (name, twin) in [("crlf", crlf as fn(&[u8]) -> Vec<u8>), ("lf", lf)] {
        let scratch = tempfile::tempdir().unwrap();
        let tree = scratch.path().join(name);
        copy(&corpus, &tree, &|octets| Some(twin(octets)));
        journey(scratch.path(), &tree, || source::Eml::open(&tree).unwrap(), sink::Eml::new);
    }
}

#[test]
fn every_mbox_comes_back_as_the_same_file() {
    let Some(corpus) = corpus() else { return };
    let same = |octets: &[u8]| octets.to_vec();
    for twin in [same as fn(&[u8]) -> Vec<u8>, crlf, lf] {
        let scratch = tempfile::tempdir().unwrap();
        let tree = scratch.path().join("mboxes");
        copy(&corpus, &tree, &|octets| octets.starts_with(b"From ").then(|| twin(octets)));
        journey(scratch.path(), &tree, || source::Mbox::open(&tree).unwrap(), sink::Mbox::new);
    }
}

/// Push, check, push again, compare, restore, and compare the trees.
fn journey<S: Source, T: Sink>(scratch: &Path, tree: &Path, source: impl Fn() -> S, sink: impl Fn(PathBuf) -> T) {
    let restored = scratch.join("restored");
    block_on(async {
        let store = Arc::new(FileStore::open_or_create(scratch.join("repository")).unwrap());
        let repository = Repository::open_or_create(store, Protection::Key(Key::new([7; 32]))).await.unwrap();
        let resources = Resources::with(64 << 20, 2).unwrap();
        let engine = Engine::builder(repository).resources(resources).build().unwrap();
        let first = engine.transfer(source()).finish().await.unwrap().ledger;
        assert!(first.is_complete() && first.messages.excluded == 0, "{first:?}");
        let check = engine.check().read_data(true).finish().await.unwrap();
        assert!(check.is_sound(), "{check:?}");
        assert_eq!(check.rebuilt, first.messages.stored);
        let compared = engine.compare(source()).finish().await.unwrap();
        assert!(compared.is_same(), "{compared:?}");
        assert_eq!(compared.same, first.messages.stored);
        let report = engine.restore(sink(restored.clone())).finish().await.unwrap();
        assert!(report.is_complete(), "{report:?}");
        // Files that were written a moment ago prove nothing yet, and are read again; but nothing is stored.
        let second = engine.transfer(source()).finish().await.unwrap().ledger;
        assert_eq!((second.messages.stored, second.messages.unchanged), (0, first.messages.stored));
        println!("{}: {} messages, {} octets", tree.display(), first.messages.stored, first.bytes.read);
    });
    let diff = Command::new("diff").arg("-r").arg(tree).arg(&restored).output().unwrap();
    assert!(diff.status.success(), "{}", String::from_utf8_lossy(&diff.stdout));
}

/// Copies the files of a tree that `twin` gives something for.
fn copy(from: &Path, to: &Path, twin: &dyn Fn(&[u8]) -> Option<Vec<u8>>) {
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let (path, kind) = (entry.path(), entry.file_type().unwrap());
        let target = to.join(entry.file_name());
        if kind.is_dir() {
            copy(&path, &target, twin);
        } else if kind.is_file()
            && let Some(octets) = twin(&fs::read(&path).unwrap())
        {
            fs::create_dir_all(to).unwrap();
            fs::write(target, octets).unwrap();
        }
    }
}

fn lf(octets: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(octets.len());
    for (at, octet) in octets.iter().enumerate() {
        if *octet != b'\r' || octets.get(at + 1) != Some(&b'\n') {
            out.push(*octet);
        }
    }
    out
}

fn crlf(octets: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(octets.len() + octets.len() / 32);
    for octet in lf(octets) {
        if octet == b'\n' {
            out.push(b'\r');
        }
        out.push(octet);
    }
    out
}
