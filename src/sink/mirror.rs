//! Tests that a sink and the source of its kind are each other's mirror.

use super::fixture::Target;
use super::{Eml, Maildir, Mbox, Note, Sink};
use crate::digest::Domain;
use crate::message::{Envelope, Folder, MailboxName};
use crate::source::{self, Batch, Body, Entry, KnowNothing, Source};
use bytes::Bytes;
use proptest::prelude::*;
use std::fs::{self, File};
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, SystemTime};

/// A mailbox as a source has it: each folder as it was announced last.
struct Contents {
    name: MailboxName,
    folders: Vec<Folder>,
    messages: Vec<(Envelope, Vec<u8>)>,
}

fn contents(source: &dyn Source) -> Vec<Contents> {
    let mut all = Vec::new();
    for mailbox in source.mailboxes().unwrap() {
        let mut mailbox = mailbox.unwrap();
        let mut contents = Contents { name: mailbox.name().clone(), folders: Vec::new(), messages: Vec::new() };
        let mut has_more = true;
        while has_more {
            let mut batch = Batch::new(1 << 20);
            has_more = mailbox.fill(&mut KnowNothing::new(Domain::new([0; 32])), &mut batch).unwrap();
            batch.into_entries().into_iter().for_each(|entry| take(entry, &mut contents));
        }
        all.push(contents);
    }
    all
}

fn take(entry: Entry, contents: &mut Contents) {
    match entry {
        Entry::Folder(folder) => match contents.folders.iter_mut().find(|known| known.path.raw == folder.path.raw) {
            Some(known) => *known = folder,
            None => contents.folders.push(folder),
        },
        Entry::Message(message) => contents.messages.push((message.envelope, read(message.body))),
        Entry::Failed { name, error } => panic!("{name:?}: {error:?}"),
        _ => {}
    }
}

fn read(body: Body) -> Vec<u8> {
    let open = match body {
        Body::Octets(octets) => return octets.to_vec(),
        Body::Open { open, .. } => open,
    };
    let mut body = open.open().unwrap();
    let (mut octets, mut buffer) = (Vec::new(), [0; 4096]);
    loop {
        match body.read(&mut buffer).unwrap() {
            0 => return octets,
            length => octets.extend_from_slice(&buffer[..length]),
        }
    }
}

/// Moves everything from a source to a sink.
fn transfer(source: &dyn Source, sink: &dyn Sink) -> Vec<Note> {
    let (mut notes, origin) = (Vec::new(), source.kind());
    for contents in contents(source) {
        let mailbox = sink.mailbox(&contents.name, &mut notes).unwrap();
        contents.folders.iter().for_each(|folder| mailbox.folder(folder, &origin, &mut notes).unwrap());
        for (position, (envelope, octets)) in contents.messages.iter().enumerate() {
            let length = octets.len() as u64;
            let mut delivery = mailbox.deliver(envelope, &origin, position as u64, length, &mut notes).unwrap();
            octets.chunks(1000).for_each(|octets| delivery.write(octets).unwrap());
            delivery.commit(&mut notes).unwrap();
        }
        mailbox.finish().unwrap();
    }
    notes
}

/// Writes a file and those directories that lead to it, with a time of its own.
fn write(root: &Path, name: &str, octets: &[u8]) {
    let path = root.join(name);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(&path, octets).unwrap();
    let time = SystemTime::UNIX_EPOCH + Duration::new(1_100_000_000 + name.len() as u64, 987_654_321);
    File::options().write(true).open(&path).unwrap().set_modified(time).unwrap();
}

/// Every path under a target, with octets and modification time for files.
fn everything(target: &Target) -> Vec<(String, Vec<u8>, Option<SystemTime>)> {
    let tree = target.tree().into_iter();
    tree.map(|(name, octets)| {
        let time = (!name.ends_with('/') && !name.contains("\\x")).then(|| target.modified(&name));
        (name, octets, time)
    })
    .collect()
}

#[test]
fn pitfall_28_and_29_a_tree_of_maildirs_of_both_layouts_comes_back_the_same() {
    let (from, to) = (Target::new(), Target::new());
    let root = from.root();
    for folder in ["a/b", "a/b/.A.B", "a/b/.Entw&APw-rfe", "c", "c/N/M", "c/&bad", "d"] {
        ["cur", "new", "tmp"].iter().for_each(|name| fs::create_dir_all(root.join(folder).join(name)).unwrap());
    }
    for name in
        ["cur/1.M2P3.h,S=3,W=4:2,FS", "cur/2;2,S", "cur/3!2,", "cur/4", "new/5", "new/6:2,", "cur/7:1,exp:2,Sab"]
    {
        write(&root, &format!("a/b/{name}"), name.as_bytes());
        write(&root, &format!("c/N/M/{name}"), b"");
    }
    // One unique name for several files, and names that are no UTF-8 or look as if made by a sink.
    for name in
        ["cur/8:2,", "cur/8:2,S", "cur/8:2,FS", "new/8", "cur/9=0123456789abcdef0123456789abcdef:2,", "cur/a:b;c"]
    {
        write(&root, &format!("a/b/.A.B/{name}"), name.as_bytes());
    }
    write(&root, "a/b/dovecot-keywords", b"0 $Label1\n1 Junk\n");
    write(&root, "a/b/subscriptions", b"A.B\n");
    write(&root, "a/b/.A.B/maildirfolder", b"");
    write(&root, &format!("d/cur/{}:2,S", "x".repeat(251)), b"the longest name");
    #[cfg(unix)]
    fs::write(root.join("d/new").join(super::names::native(b"1.\xff\xfe")), b"octets").unwrap();
    for _ in 0..2 {
        let notes = transfer(&source::Maildir::open(&root).unwrap(), &Maildir::new(to.root()));
        assert_eq!(notes, []);
        assert_eq!(everything(&to), everything(&from));
    }
}

#[test]
fn a_tree_of_files_comes_back_the_same() {
    let (from, to) = (Target::new(), Target::new());
    for name in [
        "top",
        "a/1.eml",
        "a/b/c/2",
        "a/b/.hidden",
        "d/ x ",
        "d/x=0123456789abcdef0123456789abcdef.eml",
        "d/0000000001.eml",
    ] {
        write(&from.root(), name, name.as_bytes());
    }
    fs::create_dir_all(from.path("empty/inner")).unwrap();
    for _ in 0..2 {
        assert_eq!(transfer(&source::Eml::open(from.root()).unwrap(), &Eml::new(to.root())), []);
        assert_eq!(everything(&to), everything(&from));
    }
}

#[test]
fn mbox_files_come_back_octet_for_octet() {
    let (from, to) = (Target::new(), Target::new());
    let root = from.root();
    let (line, second) = ("From a@b Thu Jan  1 00:00:00 1970", "From c@d Fri Jan  2 00:00:00 1970");
    let text = format!("{line}\nSubject: a\n\n>From b\n>>From c\n\n\n{second}\n\nno end");
    write(&root, "inbox", text.as_bytes());
    write(&root, "x/crlf", text.replace('\n', "\r\n").as_bytes());
    write(&root, "x/cr", text.replace('\n', "\r").as_bytes());
    write(&root, "x/y/mixed", format!("{text}\r\n\n{line}\r\na: b\r\n\n").as_bytes());
    write(&root, "x/y/unseparated", format!("{line}\na: b\n\nbody\n{second}\nc: d\n\nbody").as_bytes());
    write(&root, "x/empty", b"");
    for _ in 0..2 {
        assert_eq!(transfer(&source::Mbox::open(&root).unwrap(), &Mbox::new(to.root())), []);
        assert_eq!(everything(&to), everything(&from));
    }
}

/// The octets of all messages, sorted.
fn messages(source: &dyn Source) -> Vec<Vec<u8>> {
    let mut messages: Vec<Vec<u8>> =
        contents(source).into_iter().flat_map(|mailbox| mailbox.messages).map(|(_, octets)| octets).collect();
    messages.sort();
    messages
}

fn memory(messages: &[String]) -> source::Memory {
    let memory = source::Memory::new(source::SourceId::new([1; 16])).with_kind(source::Kind::Maildir);
    for (number, message) in messages.iter().enumerate() {
        let name = MailboxName::new("m");
        memory.put(&name, Bytes::new(), format!("{number}"), message.clone().into_bytes());
    }
    memory
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]
    #[test]
    fn messages_put_into_an_mbox_and_taken_out_again_are_the_same_but_for_a_last_line_ending(
        messages_in in proptest::collection::vec("Subject: a\n\n(>|From |From a@b Thu Jan  1 00:00:00 1970\n|\n|\r\n|a: b\n|x){0,12}", 0..6),
    ) {
        let (mboxes, maildirs) = (Target::new(), Target::new());
        transfer(&memory(&messages_in), &Mbox::new(mboxes.root()));
        if messages_in.is_empty() {
            return Ok(());
        }
        let source = source::Mbox::open(mboxes.root()).unwrap().variant(source::mbox::Variant::Mboxrd);
        transfer(&source, &Maildir::new(maildirs.root()));
        let mut expected: Vec<Vec<u8>> = messages_in
            .iter()
            .map(|message| if message.ends_with('\n') { message.clone() } else { format!("{message}\n") }.into_bytes())
            .collect();
        expected.sort();
        prop_assert_eq!(messages(&source::Maildir::open(maildirs.root()).unwrap()), expected);
    }
}

#[test]
fn flags_keywords_dates_and_folders_cross_from_maildir_by_way_of_memory_to_maildir() {
    let (from, to) = (Target::new(), Target::new());
    let root = from.root();
    for folder in ["u", "u/.A.B", "u/.Entw&APw-rfe.&AC4-"] {
        ["cur", "new", "tmp"].iter().for_each(|name| fs::create_dir_all(root.join(folder).join(name)).unwrap());
        write(&root, &format!("{folder}/dovecot-keywords"), b"0 Junk\n1 Work\n");
        write(&root, &format!("{folder}/cur/1:2,DFPRSTab"), b"one");
    }
    let foreign = source::Memory::new(source::SourceId::new([1; 16]));
    for contents in contents(&source::Maildir::open(&root).unwrap()) {
        contents.folders.into_iter().for_each(|folder| foreign.folder(&contents.name, folder));
        contents.messages.into_iter().for_each(|(envelope, octets)| foreign.message(&contents.name, envelope, octets));
    }
    transfer(&foreign, &Maildir::new(to.root()));
    let [before, after] = [&from, &to].map(|target| {
        let mut mailboxes = contents(&source::Maildir::open(target.root()).unwrap());
        let mailbox = mailboxes.remove(0);
        let folders: Vec<_> = mailbox.folders.into_iter().map(|folder| folder.path).collect();
        let messages: Vec<_> = mailbox
            .messages
            .into_iter()
            .map(|(envelope, octets)| (envelope.folder, envelope.flags, envelope.internal_date, octets))
            .collect();
        (folders, messages)
    });
    assert_eq!(before, after);
}

/// Reads the directory that `MAILRAIL_CORPUS` names; skipped without.
#[test]
fn real_mboxes_come_back_octet_for_octet_and_lose_no_message_on_the_way_to_maildir() {
    let Some(corpus) = std::env::var_os("MAILRAIL_CORPUS") else {
        eprintln!("skipped: MAILRAIL_CORPUS is not set");
        return;
    };
    let mut waiting = vec![std::path::PathBuf::from(corpus)];
    let mut files = Vec::new();
    while let Some(directory) = waiting.pop() {
        for entry in fs::read_dir(&directory).unwrap() {
            let (path, kind) = entry.map(|entry| (entry.path(), entry.file_type().unwrap())).unwrap();
            if kind.is_dir() {
                waiting.push(path);
            } else if kind.is_file() && fs::read(&path).is_ok_and(|octets| octets.starts_with(b"From ")) {
                files.push(path);
            }
        }
    }
    let next = AtomicUsize::new(0);
    let check = || {
        while let Some(path) = files.get(next.fetch_add(1, Ordering::Relaxed)) {
            check_mbox(path);
        }
    };
    let threads = thread::available_parallelism().map_or(1, usize::from);
    thread::scope(|scope| (0..threads).for_each(|_| drop(scope.spawn(check))));
    eprintln!("{} files", files.len());
}

fn check_mbox(path: &Path) {
    let source = source::Mbox::open(path).unwrap().variant(source::mbox::Variant::Mboxo);
    let (mboxes, maildirs, files, again) = (Target::new(), Target::new(), Target::new(), Target::new());
    assert_eq!(transfer(&source, &Mbox::new(mboxes.root())), []);
    let name = path.file_name().unwrap().to_str().unwrap();
    assert!(mboxes.read(name) == fs::read(path).unwrap(), "{}", path.display());
    assert_eq!(mboxes.modified(name), fs::metadata(path).unwrap().modified().unwrap());
    let expected = messages(&source);
    transfer(&source, &Maildir::new(maildirs.root()));
    assert!(messages(&source::Maildir::open(maildirs.root()).unwrap()) == expected, "{}", path.display());
    transfer(&source::Maildir::open(maildirs.root()).unwrap(), &Eml::new(files.root()));
    assert!(messages(&source::Eml::open(files.root()).unwrap()) == expected, "{}", path.display());
    transfer(&source::Eml::open(files.root()).unwrap(), &Mbox::new(again.root()));
    let again = contents(&source::Mbox::open(again.root()).unwrap().variant(source::mbox::Variant::Mboxrd));
    let count: usize = again.iter().map(|mailbox| mailbox.messages.len()).sum();
    assert_eq!(count, expected.len(), "{}", path.display());
}
