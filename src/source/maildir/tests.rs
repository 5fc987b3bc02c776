use super::super::drained::{drain, folders, lines, messages, read};
use super::super::{Entry, Finished, Reason};
use super::*;
use crate::ErrorKind;
use crate::message::{Flags, SystemFlags};
use std::fs;
use std::os::unix::fs::symlink;
use std::time::{Duration, UNIX_EPOCH};
use tempfile::TempDir;

/// A directory with these files in it; those that end with a slash are directories.
fn tree(files: &[(&str, &str)]) -> TempDir {
    let directory = tempfile::tempdir().unwrap();
    for (name, octets) in files {
        put(directory.path(), name.as_bytes(), octets);
    }
    directory
}

fn put(root: &Path, name: &[u8], octets: &str) {
    let path = root.join(as_path(name));
    if name.ends_with(b"/") {
        return fs::create_dir_all(path).unwrap();
    }
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, octets).unwrap();
}

fn source(directory: &TempDir) -> Maildir {
    Maildir::open(directory.path()).unwrap()
}

/// The entries of the only mailbox.
fn entries(source: &Maildir) -> Vec<Entry> {
    let mut mailboxes = drain(source);
    assert_eq!(mailboxes.len(), 1);
    mailboxes.remove(0).1
}

fn names(source: &Maildir) -> Vec<String> {
    drain(source).into_iter().map(|(name, _)| name).collect()
}

#[test]
fn pitfall_28_messages_are_in_cur_and_new_and_everything_else_is_counted() {
    let directory = tree(&[
        ("cur/2.b:2,S", "seen"),
        ("cur/1.a:2,", "not seen"),
        ("cur/.hidden", "x"),
        ("cur/sub/", ""),
        ("new/3.c", "new"),
        ("tmp/4.d", "half a mess"),
        ("dovecot-uidlist", "3 V1"),
        ("dovecot.index.log", "x"),
        ("subscriptions", "V\t2\n"),
    ]);
    symlink("2.b:2,S", directory.path().join("cur/5.e:2,")).unwrap();
    symlink("/dev/null", directory.path().join("maildirfolder")).unwrap();
    let entries = entries(&source(&directory));
    assert_eq!(
        lines(&entries),
        [
            "folder ",
            "excluded dovecot-uidlist Foreign",
            "excluded dovecot.index.log Foreign",
            "excluded maildirfolder NotAFile",
            "excluded tmp/4.d Temporary",
            "excluded cur/.hidden Foreign",
            "message |1.a",
            "message |2.b",
            "excluded cur/5.e:2, NotAFile",
            "excluded cur/sub NotAFile",
            "message |3.c",
        ]
    );
    let places: Vec<_> = messages(entries).into_iter().map(|message| message.envelope.place).collect();
    assert_eq!(places, [&b"cur:2,"[..], b"cur:2,S", b"new"]);
}

#[test]
fn pitfall_1_and_28_names_and_octets_come_back_as_they_are() {
    let directory = tree(&[("new/", ""), ("tmp/", "")]);
    let octets = "a\nb\r\nc\rd\0 no end";
    put(directory.path(), b"cur/1.\xff\xfe:2,FQ", octets);
    let message = messages(entries(&source(&directory))).remove(0);
    assert_eq!(message.envelope.identity, crate::message::Identity::Named((&b"1.\xff\xfe"[..]).into()));
    assert_eq!(message.envelope.place, &b"cur:2,FQ"[..]);
    assert_eq!(read(message.body).unwrap().0, octets.as_bytes());
}

#[test]
fn pitfall_2_a_message_of_no_octets_is_a_message() {
    let directory = tree(&[("cur/1:2,", ""), ("new/", "")]);
    let message = messages(entries(&source(&directory))).remove(0);
    assert_eq!(read(message.body).unwrap().0, b"");
}

#[test]
fn pitfall_26_the_internal_date_is_the_modification_time_to_the_nanosecond() {
    let directory = tree(&[("cur/1:2,", "x"), ("new/", "")]);
    let file = fs::File::options().write(true).open(directory.path().join("cur/1:2,")).unwrap();
    file.set_modified(UNIX_EPOCH + Duration::new(1_000_000_000, 123_456_789)).unwrap();
    let date = messages(entries(&source(&directory))).remove(0).envelope.internal_date.unwrap();
    assert_eq!((date.seconds, date.nanos, date.zone_minutes), (1_000_000_000, 123_456_789, None));
}

#[test]
fn pitfall_28_keywords_come_from_the_folders_own_file_which_is_carried_along() {
    let directory = tree(&[
        ("cur/1:2,Sab", "x"),
        ("new/", ""),
        ("dovecot-keywords", "0 $Junk\n"),
        (".A/cur/2:2,a", "y"),
        (".A/new/", ""),
        (".A/dovecot-keywords", "0 Work\n"),
        (".A/maildirfolder", ""),
    ]);
    let entries = entries(&source(&directory));
    let companions: Vec<Vec<_>> = folders(&entries)
        .iter()
        .map(|folder| folder.companions.iter().map(|file| String::from_utf8_lossy(&file.name).into_owned()).collect())
        .collect();
    assert_eq!(companions, [vec!["dovecot-keywords"], vec!["dovecot-keywords", "maildirfolder"]]);
    let flags: Vec<_> = messages(entries).into_iter().map(|message| message.envelope.flags).collect();
    assert_eq!(flags[0], Flags::new(SystemFlags::SEEN, ["$Junk".to_owned()]));
    assert_eq!(flags[1], Flags::new(SystemFlags::default(), ["Work".to_owned()]));
}

#[test]
fn pitfall_29_maildir_plus_plus_is_detected_and_its_folders_decoded() {
    let directory = tree(&[
        ("cur/", ""),
        ("new/", ""),
        ("tmp/", ""),
        (".Entw&APw-rfe.Alt/cur/1:2,", "x"),
        (".Entw&APw-rfe.Alt/new/", ""),
        (".Empty/cur/", ""),
        (".Empty/tmp/", ""),
        (".cache/file", "x"),
    ]);
    let entries = entries(&source(&directory));
    assert_eq!(
        lines(&entries),
        [
            "folder ",
            "excluded .cache Foreign",
            "folder .Empty",
            "folder .Entw&APw-rfe.Alt",
            "message .Entw&APw-rfe.Alt|1"
        ]
    );
    let names: Vec<_> = folders(&entries).iter().map(|folder| folder.path.names.join("|")).collect();
    assert_eq!(names, ["INBOX", "Empty", "Entwürfe|Alt"]);
}

#[test]
fn pitfall_29_nested_folders_are_detected_even_below_directories_that_are_none() {
    let directory = tree(&[
        ("cur/", ""),
        ("new/", ""),
        ("A/B/cur/1:2,", "x"),
        ("A/B/new/", ""),
        ("A/stray", "x"),
        ("sieve/rules", "x"),
    ]);
    let entries = entries(&source(&directory));
    assert_eq!(
        lines(&entries),
        ["folder ", "excluded sieve Foreign", "excluded A/stray Foreign", "folder A/B", "message A/B|1"]
    );
    assert_eq!(folders(&entries)[1].path.names, ["A", "B"]);
}

#[test]
fn pitfall_29_a_mailbox_to_which_both_layouts_fit_is_refused_until_one_is_declared() {
    let directory =
        tree(&[("cur/", ""), ("new/", ""), (".A/cur/1:2,", "x"), (".A/new/", ""), ("B/cur/2:2,", "y"), ("B/new/", "")]);
    let error = source(&directory).mailboxes().unwrap().next().unwrap().err().unwrap();
    assert_eq!(error.kind(), ErrorKind::Invalid);
    assert!(error.to_string().contains("Maildir++") && error.to_string().contains("nested"), "{error}");

    let nested = entries(&source(&directory).layout(Layout::Nested));
    assert_eq!(lines(&nested), ["folder ", "folder .A", "message .A|1", "folder B", "message B|2"]);
    let dotted = source(&directory).layout(Layout::MaildirPlusPlus);
    assert_eq!(names(&dotted), ["", "B"]);
    assert_eq!(lines(&drain(&dotted)[0].1), ["folder ", "folder .A", "message .A|1"]);
}

#[test]
fn an_ambiguous_mailbox_does_not_end_the_list_of_mailboxes() {
    let directory = tree(&[
        ("a/cur/", ""),
        ("a/new/", ""),
        ("a/.A/cur/", ""),
        ("a/.A/new/", ""),
        ("a/B/cur/", ""),
        ("a/B/new/", ""),
        ("b/cur/", ""),
        ("b/new/", ""),
    ]);
    let results: Vec<_> = source(&directory).mailboxes().unwrap().map(|mailbox| mailbox.is_ok()).collect();
    assert_eq!(results, [false, true]);
}

#[test]
fn every_maildir_below_the_directory_is_a_mailbox_named_by_its_path() {
    let directory = tree(&[
        ("example.org/alice/cur/1:2,", "x"),
        ("example.org/alice/new/", ""),
        ("example.org/bob/Maildir/cur/", ""),
        ("example.org/bob/Maildir/new/", ""),
        // An account that is called like one of a Maildir's own directories.
        ("example.org/new/cur/", ""),
        ("example.org/new/tmp/", ""),
        ("README", "x"),
    ]);
    assert_eq!(names(&source(&directory)), ["example.org/alice", "example.org/bob/Maildir", "example.org/new"]);
}

#[test]
fn a_link_to_a_maildir_is_reported_and_not_followed() {
    let directory = tree(&[("real/cur/", ""), ("real/new/", "")]);
    symlink("real", directory.path().join("link")).unwrap();
    let results: Vec<_> = source(&directory).mailboxes().unwrap().map(|mailbox| mailbox.is_ok()).collect();
    assert_eq!(results, [false, true]);
}

#[test]
fn what_cannot_be_listed_is_a_failure_and_not_an_empty_folder() {
    let directory = tree(&[("cur", "a file where the directory should be"), ("new/1", "x"), ("tmp/", "")]);
    let lines = lines(&entries(&source(&directory)));
    assert!(lines.iter().any(|line| line.starts_with("failed cur")), "{lines:?}");
    assert!(lines.iter().any(|line| line == "message |1"), "{lines:?}");
    assert!(Maildir::open(directory.path().join("nothing")).is_err());
    assert!(Maildir::open(directory.path().join("cur")).is_err());
}

#[test]
fn a_folder_that_cannot_be_looked_into_is_a_failure_and_not_foreign() {
    // A path so long that nothing in the directory can be named: that holds for the superuser too, unlike a lack of rights.
    const PATH_OCTETS_MAX: usize = 4095;
    let directory = tempfile::tempdir().unwrap();
    let mut root = directory.path().to_owned();
    let length = |path: &Path| path.as_os_str().len();
    while length(&root) < PATH_OCTETS_MAX - 6 {
        root.push("d".repeat((PATH_OCTETS_MAX - 7 - length(&root)).clamp(1, 200)));
    }
    fs::create_dir_all(root.join("cur")).unwrap();
    fs::create_dir_all(root.join("new")).unwrap();
    fs::create_dir(root.join(".Work")).unwrap();
    let source = Maildir::open(&root).unwrap();
    let lines = lines(&entries(&source));
    assert!(lines.iter().any(|line| line.starts_with("failed .Work")), "{lines:?}");
    assert!(!lines.iter().any(|line| line.starts_with("excluded")), "{lines:?}");
    // Not even a mailbox: what is in a directory of such a name cannot be told.
    fs::remove_dir(root.join("cur")).unwrap();
    fs::remove_dir(root.join("new")).unwrap();
    fs::rename(root.join(".Work"), root.join("_Work")).unwrap();
    let mailboxes: Vec<bool> = source.mailboxes().unwrap().map(|mailbox| mailbox.is_ok()).collect();
    assert_eq!(mailboxes, [false]);
}

#[test]
fn pitfall_28_a_message_renamed_after_enumeration_is_found_by_its_unique_name() {
    let directory =
        tree(&[("cur/1:2,", "one"), ("new/2", "two"), ("cur/3:2,", "three"), ("dovecot-keywords", "0 k\n")]);
    let mut found = messages(entries(&source(&directory)));
    let at = |name: &str| directory.path().join(name);
    fs::rename(at("cur/1:2,"), at("cur/1:2,FSa")).unwrap();
    fs::rename(at("new/2"), at("cur/2:2,S")).unwrap();
    fs::remove_file(at("cur/3:2,")).unwrap();

    let mut results = found.drain(..).map(|message| read(message.body));
    let (octets, finished) = results.next().unwrap().unwrap();
    assert_eq!(octets, b"one");
    let Finished::Moved { flags, place } = finished else { panic!("not moved: {finished:?}") };
    assert_eq!(flags, Flags::new(SystemFlags::SEEN.with(SystemFlags::FLAGGED), ["k".to_owned()]));
    assert_eq!(place, &b"cur:2,FSa"[..]);
    assert_eq!(results.next().unwrap().unwrap_err().reason, Reason::Vanished);
    assert_eq!(results.next().unwrap().unwrap().0, b"two");
}

#[test]
fn pitfall_28_a_message_that_moves_from_new_to_cur_keeps_its_identity() {
    let directory = tree(&[("cur/", ""), ("new/1", "one")]);
    let mut found = messages(entries(&source(&directory)));
    fs::rename(directory.path().join("new/1"), directory.path().join("cur/1:2,")).unwrap();
    let (octets, finished) = read(found.remove(0).body).unwrap();
    assert_eq!(octets, b"one");
    assert!(matches!(finished, Finished::Moved { place, .. } if place == b"cur:2,"[..]));
}

#[test]
fn a_message_renamed_between_listing_and_enumeration_is_not_lost() {
    let directory = tree(&[("cur/1:2,", "one"), ("cur/2:2,", "two"), ("new/3", "three")]);
    let mut mailbox = source(&directory).mailboxes().unwrap().next().unwrap().unwrap();
    let mut known = super::super::drained::Remembered::default();
    // The first batch is full with the folder, which has listed its directories by then.
    let mut batch = super::super::Batch::new(1);
    assert!(mailbox.fill(&mut known, &mut batch).unwrap());
    let at = |name: &str| directory.path().join(name);
    fs::rename(at("cur/2:2,"), at("cur/2:2,S")).unwrap();
    fs::rename(at("new/3"), at("cur/3:2,")).unwrap();
    let mut batch = super::super::Batch::new(1 << 20);
    assert!(!mailbox.fill(&mut known, &mut batch).unwrap());
    let found = messages(batch.into_entries());
    let places: Vec<_> = found.iter().map(|message| message.envelope.place.clone()).collect();
    assert_eq!(places, [&b"cur:2,"[..], b"cur:2,S", b"cur:2,"]);
}

#[test]
fn two_files_of_one_unique_name_are_two_messages_and_two_links_to_one_file_are_one() {
    let directory = tree(&[("cur/1:2,", "one"), ("cur/1:2,S", "another"), ("new/1", "a third"), ("cur/2:2,", "two")]);
    fs::hard_link(directory.path().join("cur/2:2,"), directory.path().join("new/2")).unwrap();
    assert_eq!(
        lines(&entries(&source(&directory))),
        ["folder ", "message |1", "message |cur/1:2,S", "message |2", "message |new/1"]
    );
}

#[test]
fn a_companion_that_is_too_long_is_counted() {
    let directory = tree(&[("cur/", ""), ("new/", "")]);
    fs::write(directory.path().join("subscriptions"), vec![b'x'; crate::message::Companion::OCTETS_MAX + 1]).unwrap();
    let entries = entries(&source(&directory));
    assert_eq!(lines(&entries), ["folder ", "excluded subscriptions TooLong"]);
    assert!(folders(&entries)[0].companions.is_empty());
}

#[test]
fn the_id_follows_the_path_unless_it_is_given() {
    let (one, two) = (tree(&[]), tree(&[]));
    assert_eq!(source(&one).id(), source(&one).id());
    assert_ne!(source(&one).id(), source(&two).id());
    assert_eq!(source(&one).with_id(SourceId::new([1; 16])).id(), SourceId::new([1; 16]));
}
