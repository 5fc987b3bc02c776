//! Names made to climb, to collide, to end too early, to be too long: on the way in and on the way out.

use crate::common::World;
use bytes::Bytes;
use futures::executor::block_on;
use mailrail::message::{Companion, Envelope, Flags, Folder, FolderPath, Identity, MailboxName, SystemFlags};
use mailrail::restore::RestoreReport;
use mailrail::sink::{self, Sink};
use mailrail::source::{self, Kind, SourceId};
use mailrail::testing;
use mailrail::{ErrorKind, Resources, Settings};
use std::fs;
use std::path::Path;

fn source(kind: Kind) -> source::Memory {
    source::Memory::new(SourceId::new([1; 16])).with_kind(kind)
}

/// Names that lead out of a directory, or that no file can have.
fn evil_names() -> Vec<Vec<u8>> {
    let mut names: Vec<Vec<u8>> = [
        "",
        ".",
        "..",
        "...",
        "/",
        "//",
        "../..",
        "../../../../../../tmp/out",
        "/etc/passwd",
        "a/../../out",
        "./out",
        "cur",
        "new",
        "tmp",
        "a/cur",
        ".mailrail-tmp",
        "inbox",
        "INBOX",
        "out\0",
        "\0",
        "..\0",
        "C:\\out",
        "..\\out",
        "CON",
        "nul.txt",
        "-rf",
        "~",
        "$HOME",
        "a\nb",
        "a\r\nb",
        ":2,S",
        "x:2,../..",
        "\u{202e}gnp.exe",
        "a=b",
    ]
    .into_iter()
    .map(|name| name.as_bytes().to_vec())
    .collect();
    names.push(vec![0xff, 0xfe, b'/', 0x80]);
    names.push(vec![b'x'; 255]);
    names.push(vec![b'x'; 256]);
    names.push(vec![b'.'; 4096]);
    names.push(b"../".repeat(5000));
    names
}

/// Delivers everything, and looks at what is beside the target.
fn restore_into(
    world: &World,
    sink: impl Fn(&Path) -> Box<dyn FnOnce(&World) -> RestoreReport>,
) -> (RestoreReport, usize) {
    let directory = tempfile::tempdir().unwrap();
    let target = directory.path().join("deep/down/target");
    let report = sink(&target)(world);
    let beside = |path: &Path, name: &str| {
        let others = fs::read_dir(path).unwrap().filter(|entry| entry.as_ref().unwrap().file_name() != name);
        assert_eq!(others.count(), 0, "something climbed out of the target");
    };
    beside(directory.path(), "deep");
    beside(&directory.path().join("deep"), "down");
    beside(&directory.path().join("deep/down"), "target");
    (report, files_below(&target))
}

fn files_below(directory: &Path) -> usize {
    let entries = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap());
    let count = |entry: fs::DirEntry| {
        let kind = entry.file_type().unwrap();
        assert!(!kind.is_symlink());
        if kind.is_dir() { files_below(&entry.path()) } else { 1 }
    };
    entries.map(count).sum()
}

fn boxed(sink: impl Sink) -> Box<dyn FnOnce(&World) -> RestoreReport> {
    Box::new(move |world| block_on(world.engine.restore(sink).finish()).unwrap())
}

#[test]
fn evil_names_of_mailboxes_folders_messages_and_companions_lead_nowhere_in_any_sink() {
    for kind in [Kind::Eml, Kind::Maildir, Kind::Mbox, Kind::Other("evil".into())] {
        let (world, source) = (World::inline(), source(kind.clone()));
        let names = evil_names();
        let mut messages = 0;
        for (number, name) in names.iter().enumerate() {
            let mailbox = MailboxName::new(name.clone());
            let text = String::from_utf8_lossy(name).into_owned();
            let mut folder =
                Folder::new(FolderPath { names: vec![text.clone(), text.clone()], raw: name.clone().into() });
            let companion = [name, &b"~"[..]].concat();
            folder.companions = vec![Companion { name: companion.into(), octets: "x".into(), modified: None }];
            folder.traits = name.clone().into();
            source.folder(&mailbox, folder);
            for identity in [name, &names[(number + 1) % names.len()]] {
                let mut envelope = Envelope::new(name.clone(), Identity::Named(identity.clone().into()));
                (envelope.place, envelope.before, envelope.after) =
                    (name.clone().into(), name.clone().into(), "\n".into());
                envelope.flags = Flags::new(SystemFlags::SEEN, [text.clone()]);
                envelope.extensions = vec![(text.clone(), name.clone().into())];
                source.message(&mailbox, envelope, format!("Subject: {number}\n\n{messages}\n").into_bytes());
                messages += 1;
            }
        }
        let ledger = world.push(source);
        assert!(ledger.is_complete() && ledger.messages.stored == messages, "{kind:?}: {ledger:?}");
        let check = |report: &RestoreReport, what: &str| {
            assert!(report.restored + report.failed == messages, "{kind:?} to {what}: {report:?}");
            assert_eq!(report.failed, 0, "{kind:?} to {what}: {:?}", report.failures);
        };
        let (report, files) = restore_into(&world, |target| boxed(sink::Eml::new(target)));
        check(&report, "eml");
        assert!(files as u64 >= messages, "{kind:?}: {files} files");
        let (report, files) = restore_into(&world, |target| boxed(sink::Maildir::new(target)));
        check(&report, "Maildir");
        assert!(files as u64 >= messages, "{kind:?}: {files} files");
        let (report, _) = restore_into(&world, |target| boxed(sink::Mbox::new(target)));
        check(&report, "mbox");
    }
}

#[test]
fn a_folder_10_000_deep_comes_back_and_messages_in_it() {
    let (world, source) = (World::inline(), source(Kind::Eml));
    let mailbox = MailboxName::new("m");
    let names = vec!["d".to_owned(); 10_000];
    let raw: Bytes = names.join("/").into();
    source.folder(&mailbox, Folder::new(FolderPath { names: names.clone(), raw: raw.clone() }));
    source.message(&mailbox, Envelope::new(raw.clone(), Identity::Named("1".into())), "Subject: deep\n\nx\n");
    assert!(world.push(source).is_complete());
    let memory = testing::sink::Memory::new(Kind::Eml);
    world.restore(memory.clone());
    let mailboxes = memory.mailboxes();
    let found = &mailboxes[&mailbox];
    assert_eq!(found.folders[0].0.path, FolderPath { names, raw: raw.clone() });
    assert_eq!(
        (&found.messages[0].envelope.folder, &found.messages[0].octets[..]),
        (&raw, &b"Subject: deep\n\nx\n"[..])
    );
    for sink in [|target: &Path| boxed(sink::Eml::new(target)), |target: &Path| boxed(sink::Maildir::new(target))] {
        let (report, files) = restore_into(&world, sink);
        assert_eq!((report.failed, report.restored, files), (0, 1, 1), "{:?}", report.failures);
    }
    let (report, _) = restore_into(&world, |target| boxed(sink::Mbox::new(target)));
    assert_eq!((report.failed, report.restored), (0, 1), "{:?}", report.failures);
}

#[test]
fn names_up_to_the_limit_come_back_and_longer_ones_are_told_and_make_nothing_gone() {
    let (world, source) = (World::inline(), source(Kind::Eml));
    let (mailbox, other) = (MailboxName::new("m"), MailboxName::new("other"));
    let name = |length: usize| Bytes::from(vec![b'n'; length]);
    let put = |name: Bytes| source.put(&mailbox, "f", name, "Subject: x\n\nx\n");
    put(name(Envelope::OCTETS_MAX - 100));
    put(name(1));
    source.put(&other, "f", "1", "Subject: x\n\nx\n");
    let ledger = world.push(source.clone());
    assert!(ledger.is_complete() && ledger.messages.stored == 3, "{ledger:?}");
    // One octet more, in each of the things that have names.
    put(name(Envelope::OCTETS_MAX));
    let mut keyworded = Envelope::new("f", Identity::Named("k".into()));
    keyworded.flags = Flags::new(SystemFlags::default(), (0..60_000).map(|number| format!("{number}")));
    source.message(&mailbox, keyworded, "Subject: x\n\nx\n");
    let long = vec!["x".to_owned(); Folder::OCTETS_MAX / 33 + 1];
    source.folder(&mailbox, Folder::new(FolderPath { names: long, raw: "long".into() }));
    let nobody = MailboxName::new(vec![b'm'; MailboxName::OCTETS_MAX + 1]);
    source.put(&nobody, "f", "1", "Subject: x\n\nx\n");
    source.remove(&mailbox, b"f", &Identity::Named(name(1)));
    source.remove(&other, b"f", &Identity::Named("1".into()));
    let ledger = world.push(source);
    assert!(!ledger.is_complete(), "{ledger:?}");
    assert_eq!(ledger.incomplete.len(), 4, "{:?}", ledger.incomplete);
    assert!(ledger.incomplete.iter().all(|one| one.reason.contains("longer than the limit") && one.name.len() < 1000));
    // Of a mailbox that was not enumerated to its end nothing is gone; of another it is.
    assert_eq!((ledger.messages.stored, ledger.changes.gone), (0, 1));
    let report = block_on(world.engine.restore(testing::sink::Memory::new(Kind::Eml)).finish()).unwrap();
    assert!(report.is_complete() && report.restored == 2, "{report:?}");
    let (report, files) = restore_into(&world, |target| boxed(sink::Eml::new(target)));
    assert_eq!((report.failed, report.restored, files), (0, 2, 2), "{:?}", report.failures);
}

#[test]
fn an_appended_message_with_too_long_a_name_is_refused_and_others_are_stored() {
    let world = World::inline();
    let (appender, transfer) = world.engine.append_to(MailboxName::new("m"), SourceId::new([1; 16]));
    let driven = async {
        let name = Bytes::from(vec![b'n'; Envelope::OCTETS_MAX + 1]);
        let refused = appender.append(Envelope::new("f", Identity::Named(name)), b"x".to_vec()).await;
        assert_eq!(refused.unwrap_err().kind(), ErrorKind::Limit);
        appender.append(Envelope::new("f", Identity::Named("1".into())), b"x".to_vec()).await.unwrap();
        drop(appender);
    };
    let (report, ()) = block_on(async { futures::join!(transfer.finish(), driven) });
    assert_eq!(report.unwrap().ledger.messages.stored, 1);
}

/// Folders and envelopes that compress to nothing: no commit may grow beyond what a reader takes of one.
#[test]
fn heavy_envelopes_and_folders_make_many_commits_and_not_one_that_nobody_can_read() {
    let mut settings = Settings::default();
    settings.commit_bytes_max = 1 << 20;
    let world = World::with(Resources::inline(64 << 20).unwrap(), settings, |memory| std::sync::Arc::new(memory));
    let (source, mailbox) = (source(Kind::Eml), MailboxName::new("m"));
    for number in 0..160 {
        let raw = Bytes::from(format!("{number}{}", "f".repeat(900_000)));
        let names = vec!["x".to_owned(); 3000];
        source.folder(&mailbox, Folder::new(FolderPath { names, raw: raw.clone() }));
        source.put(&mailbox, raw, "1", format!("Subject: {number}\n\n"));
    }
    assert!(world.push(source.clone()).is_complete());
    let commits = block_on(futures::TryStreamExt::try_collect::<Vec<_>>(world.store.list("mailboxes/"))).unwrap();
    assert!(commits.len() > 40, "{}", commits.len());
    let memory = testing::sink::Memory::new(Kind::Eml);
    assert_eq!(world.restore(memory).restored, 160);
    assert_eq!(world.push(source).messages.unchanged, 160);
}
