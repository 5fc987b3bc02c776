use super::*;
use crate::error::ErrorKind;
use crate::message::{Flags, SystemFlags};
use crate::sink::fixture::*;
use proptest::collection::vec;
use proptest::prelude::*;
use std::fs;
use std::time::{Duration, SystemTime};

const MAIL: &[u8] = b"Subject: a\r\n\r\nbody without end";

fn companion(name: &'static str, octets: &'static str) -> Companion {
    Companion { name: name.into(), octets: octets.into(), modified: Some(date(900_000_000, 5)) }
}

#[test]
fn pitfall_28_what_came_from_a_maildir_comes_back_the_same() {
    let target = Target::new();
    let mut filling = Filling::new(&Maildir::new(target.root()), b"example.org/user", Kind::Maildir);
    let mut root = folder(&["INBOX"], b"");
    root.companions = vec![companion("dovecot-keywords", "0 Junk\n"), companion("subscriptions", "A\n")];
    let mut sub = folder(&["A", "B"], b".A.B");
    sub.companions = vec![companion("maildirfolder", "")];
    filling.folder(&root).folder(&sub).folder(&folder(&["Empty"], b".Empty")).folder(&folder(&["N", "M"], b"N/M"));
    filling
        .message(&placed(named(b"", b"1.a,S=3"), b"cur:2,Sa"), MAIL)
        .message(&placed(named(b"", b"2.\xff"), b"new"), b"")
        .message(&placed(named(b".A.B", b"3.c"), b"cur;2,FS"), b"c")
        .message(&placed(named(b"N/M", b"4.d"), b"cur"), b"d\0\n");
    assert_eq!(filling.finish(), [], "nothing had to be changed");
    let tree = target.tree();
    let files: Vec<&str> = tree.keys().filter(|name| !name.ends_with('/')).map(String::as_str).collect();
    assert_eq!(
        files,
        [
            "example.org/user/.A.B/cur/3.c;2,FS",
            "example.org/user/.A.B/maildirfolder",
            "example.org/user/N/M/cur/4.d",
            "example.org/user/cur/1.a,S=3:2,Sa",
            "example.org/user/dovecot-keywords",
            "example.org/user/new/2.\\xff",
            "example.org/user/subscriptions",
        ]
    );
    assert_eq!(target.read("example.org/user/cur/1.a,S=3:2,Sa"), MAIL);
    assert_eq!(target.read("example.org/user/N/M/cur/4.d"), b"d\0\n");
    for directory in ["cur/", "new/", "tmp/", ".A.B/tmp/", ".Empty/cur/", ".Empty/new/", ".Empty/tmp/", "N/M/new/"] {
        assert!(tree.contains_key(&format!("example.org/user/{directory}")), "{directory}");
    }
}

#[test]
fn pitfall_26_dates_become_modification_times_to_the_nanosecond_and_never_now() {
    let target = Target::new();
    let mut filling = Filling::new(&Maildir::new(target.root()), b"", Kind::Maildir);
    let mut root = folder(&["INBOX"], b"");
    root.companions = vec![companion("subscriptions", "A\n")];
    filling.folder(&root);
    let mut none = placed(named(b"", b"2.b"), b"new");
    none.internal_date = None;
    let mut far = placed(named(b"", b"3.c"), b"new");
    far.internal_date = Some(date(i64::MIN, 0));
    let mut old = placed(named(b"", b"5.e"), b"new");
    old.internal_date = Some(date(-2_000_000_000, 7));
    let mut zoned = placed(named(b"", b"4.d"), b"new");
    zoned.internal_date = Some(crate::message::InternalDate { zone_minutes: Some(60), ..date(7, 0) });
    filling
        .message(&placed(named(b"", b"1.a"), b"cur:2,S"), MAIL)
        .message(&none, MAIL)
        .message(&far, MAIL)
        .message(&zoned, b"")
        .message(&old, b"");
    let notes = filling.finish();
    let since = |name: &str| target.modified(name).duration_since(SystemTime::UNIX_EPOCH).unwrap();
    assert_eq!(since("cur/1.a:2,S"), Duration::new(1_000_000_000, 123_456_789));
    assert_eq!(since("subscriptions"), Duration::new(900_000_000, 5));
    assert_eq!(since("new/2.b"), Duration::ZERO);
    assert_eq!(since("new/3.c"), Duration::ZERO);
    assert_eq!(since("new/4.d"), Duration::new(7, 0));
    let early = SystemTime::UNIX_EPOCH - Duration::from_secs(2_000_000_000) + Duration::from_nanos(7);
    assert_eq!(target.modified("new/5.e"), early);
    for what in ["absence of an internal date", "internal date", "time zone of internal dates"] {
        assert!(is_unholdable(&notes, what), "{what}");
    }
}

#[test]
fn pitfall_28_two_files_of_one_unique_name_both_come_back() {
    let target = Target::new();
    let mut filling = Filling::new(&Maildir::new(target.root()), b"", Kind::Maildir);
    filling.folder(&folder(&[], b""));
    filling.message(&placed(named(b"", b"1.a"), b"cur:2,"), b"one");
    filling.message(&placed(named(b"", b"cur/1.a:2,S"), b"cur:2,S"), b"two");
    filling.message(&placed(named(b"", b"new/1.a"), b"new"), b"three");
    assert_eq!(filling.finish(), []);
    assert_eq!(target.files(), ["cur/1.a:2,", "cur/1.a:2,S", "new/1.a"]);
}

#[test]
fn a_message_given_up_leaves_nothing_behind() {
    let target = Target::new();
    let mut filling = Filling::new(&Maildir::new(target.root()), b"", Kind::Maildir);
    filling.folder(&folder(&[], b"")).abandon(&placed(named(b"", b"1.a"), b"cur:2,"), b"half");
    filling.finish();
    assert_eq!(target.files(), [""; 0]);
}

#[test]
fn an_unfinished_message_is_only_in_tmp() {
    let target = Target::new();
    let mut filling = Filling::new(&Maildir::new(target.root()), b"", Kind::Maildir);
    filling.folder(&folder(&[], b""));
    let envelope = placed(named(b"", b"1.a"), b"cur:2,");
    let mut delivery = filling.mailbox.deliver(&envelope, &Kind::Maildir, 0, 3, &mut Vec::new()).unwrap();
    delivery.write(b"abc").unwrap();
    assert!(target.files().iter().all(|name| name.starts_with("tmp/")));
    delivery.commit(&mut Vec::new()).unwrap();
    assert_eq!(target.files(), ["cur/1.a:2,"]);
}

#[test]
fn a_restore_run_again_changes_nothing_and_one_over_other_mail_fails_for_that_message_alone() {
    let target = Target::new();
    let mut before = None;
    for _ in 0..2 {
        let mut filling = Filling::new(&Maildir::new(target.root()).durable(true), b"", Kind::Maildir);
        filling.folder(&folder(&[], b"")).message(&placed(named(b"", b"1.a"), b"cur:2,"), MAIL);
        filling.finish();
        let mut filling = Filling::new(&Maildir::new(target.root()), b"e", Kind::Eml);
        filling.folder(&folder(&["f"], b"f")).message(&named(b"f", b"x.eml"), MAIL);
        filling.finish();
        let mut filling = Filling::new(&Maildir::new(target.root()), b"m", Kind::Mbox);
        filling.folder(&folder(&["f"], b"f"));
        filling.message(&in_mbox(b"f", b"From a\n", b"\n"), MAIL).message(&in_mbox(b"f", b"From a\n", b"\n"), MAIL);
        filling.finish();
        let tree = target.tree();
        assert_eq!(target.files().len(), 4, "equal messages of an mbox stay two");
        assert_eq!(before.get_or_insert_with(|| tree.clone()), &tree);
    }
    let mut filling = Filling::new(&Maildir::new(target.root()), b"", Kind::Maildir);
    filling.folder(&folder(&[], b""));
    let error = filling.try_message(&placed(named(b"", b"1.a"), b"cur:2,"), b"other").unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Exists);
    filling.message(&placed(named(b"", b"2.b"), b"cur:2,"), b"other");
    assert_eq!(target.read("cur/1.a:2,"), MAIL);
}

#[test]
fn messages_from_eml_get_unique_names_letters_and_keywords() {
    let target = Target::new();
    let mut filling = Filling::new(&Maildir::new(target.root()), b"u", Kind::Eml);
    filling.folder(&folder(&[], b"")).folder(&folder(&["Über.uns", "x"], "Über.uns/x".as_bytes()));
    let flags = Flags::new(SystemFlags::SEEN.with(SystemFlags::DRAFT), ["Junk".to_owned(), "no good".to_owned()]);
    filling.message(&flagged(named(b"", b"../../evil.eml"), flags), MAIL);
    filling.message(&named("Über.uns/x".as_bytes(), b"b"), MAIL);
    let notes = filling.finish();
    let files = target.files();
    assert!(files[0].starts_with("u/.&ANw-ber&AC4-uns.x/cur/1000000000.I") && files[0].ends_with(".mailrail:2,"));
    assert!(files[1].starts_with("u/cur/1000000000.I") && files[1].ends_with(".mailrail:2,DSa"), "{files:?}");
    assert_eq!(target.read("u/dovecot-keywords"), b"0 Junk\n");
    assert!(is_unholdable(&notes, "keyword") && is_unholdable(&notes, "names of messages") && is_renamed(&notes));
}

#[test]
fn an_mboxrd_is_unquoted_and_an_mboxo_is_not() {
    for (traits, expected) in [(MBOXRD, &b"a\nFrom b\n"[..]), (MBOXO, b"a\n>From b\n")] {
        let target = Target::new();
        let mut filling = Filling::new(&Maildir::new(target.root()), b"", Kind::Mbox);
        let mut file = folder(&["f"], b"f");
        file.traits = Bytes::from_static(traits);
        filling.folder(&file).message(&in_mbox(b"f", b"From a\n", b"\n"), b"a\n>From b\n");
        let notes = filling.finish();
        assert_eq!(target.read(".f/cur/1000000000.P1.mailrail:2,"), expected);
        assert_eq!(is_transformed(&notes, "mboxrd unquoting"), traits == MBOXRD);
        assert!(is_unholdable(&notes, "From_ lines and separators"));
    }
}

const MBOXRD: &[u8] = b"mboxrd;lf";
const MBOXO: &[u8] = b"mboxo;lf";

#[test]
fn pitfall_29_a_folder_cannot_take_the_place_of_a_maildirs_own_directories() {
    let target = Target::new();
    let sink = Maildir::new(target.root());
    let mut filling = Filling::new(&sink, b"u", Kind::Maildir);
    filling.folder(&folder(&[], b"")).folder(&folder(&["cur"], b"cur")).folder(&folder(&["a"], b"a/new/b"));
    assert!(is_renamed(&filling.finish()));
    // A mailbox beside a mailbox that is above it has the same wish.
    let mut filling = Filling::new(&sink, b"u/cur", Kind::Maildir);
    filling.folder(&folder(&[], b"")).message(&placed(named(b"", b"1.a"), b"cur:2,"), MAIL);
    assert!(is_renamed(&filling.finish()));
    assert!(!target.tree().contains_key("u/cur/cur/"));
    // A mailbox of that name where nothing is in the way keeps it.
    let mut filling = Filling::new(&sink, b"new", Kind::Maildir);
    filling.folder(&folder(&[], b""));
    assert!(!is_renamed(&filling.finish()));
}

#[test]
fn pitfall_29_two_folders_of_one_name_stay_two() {
    let target = Target::new();
    let sink = Maildir::new(target.root());
    let mut filling = Filling::new(&sink, b"a", Kind::Maildir);
    filling.folder(&folder(&["b"], b"b"));
    let mut other = Filling::new(&sink, b"a/b", Kind::Maildir);
    other.folder(&folder(&[], b"")).message(&placed(named(b"", b"1"), b"new"), b"x");
    assert!(is_renamed(&other.finish()));
    let mut third = Filling::new(&sink, b"i", Kind::Mbox);
    third.folder(&folder(&["INBOX"], b"INBOX")).folder(&folder(&["Inbox"], b"Inbox"));
    third.message(&in_mbox(b"INBOX", b"", b""), b"1").message(&in_mbox(b"Inbox", b"", b""), b"2");
    assert!(is_renamed(&third.finish()));
    assert_eq!(target.files().len(), 3);
}

#[test]
fn letters_are_exchanged_where_the_target_gives_them_another_meaning() {
    let target = Target::new();
    fs::create_dir_all(target.root()).unwrap();
    fs::write(target.path("dovecot-keywords"), "0 Work\n").unwrap();
    let mut filling = Filling::new(&Maildir::new(target.root()), b"", Kind::Maildir);
    let mut root = folder(&[], b"");
    root.companions = vec![companion("dovecot-keywords", "0 Junk\n")];
    let flags = Flags::new(SystemFlags::SEEN, ["Junk".to_owned()]);
    filling.folder(&root).message(&flagged(placed(named(b"", b"1"), b"cur:2,Sa"), flags), MAIL);
    assert!(is_unholdable(&filling.finish(), "companion file"));
    assert_eq!(target.files(), ["cur/1:2,Sb", "dovecot-keywords"]);
    assert_eq!(target.read("dovecot-keywords"), b"0 Work\n1 Junk\n");
}

#[test]
fn many_workers_deliver_to_one_folder_at_once() {
    let target = Target::new();
    let mut filling = Filling::new(&Maildir::new(target.root()), b"", Kind::Eml);
    filling.folder(&folder(&[], b""));
    let mailbox = &*filling.mailbox;
    std::thread::scope(|scope| {
        for worker in 0..4_u64 {
            scope.spawn(move || {
                for number in 0..25 {
                    let flags = Flags::new(SystemFlags::SEEN, [format!("k{}", number % 5)]);
                    let envelope = flagged(named(b"", format!("{worker}-{number}").as_bytes()), flags);
                    let mut delivery = mailbox.deliver(&envelope, &Kind::Eml, 0, 4, &mut Vec::new()).unwrap();
                    delivery.write(b"mail").unwrap();
                    delivery.commit(&mut Vec::new()).unwrap();
                }
            });
        }
    });
    filling.finish();
    assert_eq!(target.files().len(), 101);
    assert_eq!(target.read("dovecot-keywords").iter().filter(|octet| **octet == b'\n').count(), 5);
}

#[cfg(unix)]
#[test]
fn a_planted_symbolic_link_is_neither_followed_nor_overwritten() {
    let target = Target::new();
    let outside = tempfile::tempdir().unwrap();
    for planted in ["m", "n/.f", "o/cur", "p/tmp"] {
        fs::create_dir_all(target.path(planted).parent().unwrap()).unwrap();
        std::os::unix::fs::symlink(outside.path(), target.path(planted)).unwrap();
    }
    let sink = Maildir::new(target.root());
    assert_eq!(sink.mailbox(&MailboxName::new("m"), &mut Vec::new()).err().unwrap().kind(), ErrorKind::Exists);
    for (mailbox, raw) in [("n", ".f"), ("o", ""), ("p", "")] {
        let mailbox = sink.mailbox(&MailboxName::new(mailbox), &mut Vec::new()).unwrap();
        let error = mailbox.folder(&folder(&[], raw.as_bytes()), &Kind::Maildir, &mut Vec::new()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Exists);
    }
    assert_eq!(fs::read_dir(outside.path()).unwrap().count(), 0);
}

#[test]
fn a_message_for_a_folder_never_announced_is_an_error() {
    let target = Target::new();
    let mut filling = Filling::new(&Maildir::new(target.root()), b"", Kind::Maildir);
    assert_eq!(filling.try_message(&named(b"f", b"1"), b"").unwrap_err().kind(), ErrorKind::Invalid);
}

fn nasty() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        "(\\.|\\.\\.|/|a|cur|new|tmp|=|\\x00|:2,|%2F){0,5}".prop_map(String::into_bytes),
        vec(any::<u8>(), 0..20),
        vec(Just(b'x'), 250..300),
        Just(b"../../../etc/passwd".to_vec()),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn pitfall_15_no_names_climb_out_of_the_target_and_no_message_is_lost(
        mailbox in nasty(), raw in nasty(), name in vec("[ab./é]{0,3}", 0..3),
        identities in vec((nasty(), "(cur|new)?(:2,[Sa]|/\\.\\./x)?"), 1..6),
        origin in prop_oneof![Just(Kind::Maildir), Just(Kind::Eml), Just(Kind::Mbox)],
    ) {
        let target = Target::new();
        let mut filling = Filling::new(&Maildir::new(target.root()), &mailbox, origin);
        let path = crate::message::FolderPath { names: name, raw: raw.clone().into() };
        filling.folder(&Folder::new(path));
        let mut identities = identities;
        identities.sort();
        identities.dedup_by(|a, b| a.0 == b.0);
        for (identity, place) in &identities {
            filling.message(&placed(named(&raw, identity), place.as_bytes()), identity);
        }
        filling.finish();
        prop_assert_eq!(target.outside(), 0);
        prop_assert_eq!(target.files().len(), identities.len());
    }
}
