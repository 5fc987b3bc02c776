//! Real mbox files split into messages that, put together, are the file. Reads the directory that `MAILRAIL_CORPUS` names; skipped without.

use mailrail::digest::Domain;
use mailrail::message::Folder;
use mailrail::source::{Batch, Body, Entry, KnowNothing, Mbox, Source};
use std::fs;
use std::path::{Path, PathBuf};

#[test]
fn real_mboxes_and_their_twins_are_what_their_messages_are_put_together() {
    let Some(corpus) = std::env::var_os("MAILRAIL_CORPUS") else {
        eprintln!("skipped: MAILRAIL_CORPUS is not set");
        return;
    };
    let scratch = tempfile::tempdir().unwrap();
    let (mut files, mut messages) = (0, 0);
    for path in mboxes(Path::new(&corpus)) {
        let octets = fs::read(&path).unwrap();
        let found = check(&path, &octets);
        messages += found;
        for ending in [&b"\r\n"[..], b"\r"] {
            let twin = with_line_ending(&octets, ending);
            let twin_path = scratch.path().join("twin");
            fs::write(&twin_path, &twin).unwrap();
            let twins = check(&twin_path, &twin);
            // Where the file's own line endings are mixed, what is a line depends on the first of them.
            assert!(twins == found || octets.contains(&b'\r'), "'{}': {found} and {twins}", path.display());
        }
        files += 1;
    }
    eprintln!("{files} files, {messages} messages");
}

/// Compares a file with its messages, and gives their number.
fn check(path: &Path, octets: &[u8]) -> usize {
    let (folders, pieces) = split(path);
    assert_eq!(folders.len(), 2, "{}", path.display());
    assert!(!folders[1].evidence.is_none() && !folders[1].traits.is_empty());
    assert!(pieces.concat() == octets, "'{}' is not what its messages are put together", path.display());
    pieces.len()
}

/// The regular files below `directory` that begin as an mbox does.
fn mboxes(directory: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut waiting = vec![directory.to_owned()];
    while let Some(directory) = waiting.pop() {
        for entry in fs::read_dir(&directory).unwrap() {
            let entry = entry.unwrap();
            let kind = entry.file_type().unwrap();
            if kind.is_dir() {
                waiting.push(entry.path());
            } else if kind.is_file() && fs::read(entry.path()).is_ok_and(|octets| octets.starts_with(b"From ")) {
                found.push(entry.path());
            }
        }
    }
    found.sort();
    found
}

/// The folders, and the octets before, of and behind each message.
fn split(path: &Path) -> (Vec<Folder>, Vec<Vec<u8>>) {
    let (mut folders, mut pieces) = (Vec::new(), Vec::new());
    for mailbox in Mbox::open(path).unwrap().mailboxes().unwrap() {
        let mut mailbox = mailbox.unwrap();
        let mut more = true;
        while more {
            let mut batch = Batch::new(4 << 20);
            more = mailbox.fill(&mut KnowNothing::new(Domain::new([0; 32])), &mut batch).unwrap();
            for entry in batch.into_entries() {
                match entry {
                    Entry::Folder(folder) => folders.push(folder),
                    Entry::Message(message) => {
                        let octets = read(message.body);
                        pieces.push([&message.envelope.before[..], &octets, &message.envelope.after].concat());
                    }
                    other => panic!("{other:?}"),
                }
            }
        }
    }
    (folders, pieces)
}

fn read(body: Body) -> Vec<u8> {
    let open = match body {
        Body::Octets(octets) => return octets.to_vec(),
        Body::Open { open, .. } => open,
    };
    let mut body = open.open().unwrap();
    let (mut octets, mut buffer) = (Vec::new(), vec![0; 1 << 16]);
    loop {
        match body.read(&mut buffer).unwrap() {
            0 => break,
            length => octets.extend_from_slice(&buffer[..length]),
        }
    }
    body.finish(octets.len() as u64).unwrap();
    octets
}

/// The same text with another line ending.
fn with_line_ending(octets: &[u8], ending: &[u8]) -> Vec<u8> {
    let mut twin = Vec::with_capacity(octets.len() + octets.len() / 16);
    for line in octets.split_inclusive(|&octet| octet == b'\n') {
        match line.strip_suffix(b"\n") {
            Some(line) => {
                twin.extend_from_slice(line.strip_suffix(b"\r").unwrap_or(line));
                twin.extend_from_slice(ending);
            }
            None => twin.extend_from_slice(line),
        }
    }
    twin
}
