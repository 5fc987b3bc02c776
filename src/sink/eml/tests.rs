use super::*;
use crate::message::{FolderPath, SystemFlags};
use crate::sink::fixture::*;
use proptest::collection::vec;
use proptest::prelude::*;
use std::fs;
use std::time::{Duration, SystemTime};

#[test]
fn what_came_from_a_tree_of_files_comes_back_the_same() {
    let target = Target::new();
    let sink = Eml::new(target.root());
    let mut mail = Filling::new(&sink, b"user", Kind::Eml);
    mail.folder(&folder(&[], b"")).folder(&folder(&["a", "b"], b"a/b")).folder(&folder(&["empty"], b"empty"));
    mail.message(&named(b"", b"1.eml"), b"one").message(&named(b"a/b", b"\xffno extension "), b"");
    assert_eq!(mail.finish(), []);
    let mut top = Filling::new(&sink, b"", Kind::Eml);
    top.folder(&folder(&[], b"")).message(&named(b"", b".hidden"), b"h");
    assert_eq!(top.finish(), []);
    let names: Vec<String> = target.tree().into_keys().collect();
    let expected =
        [".hidden", "user/", "user/1.eml", "user/a/", "user/a/b/", "user/a/b/\\xffno extension ", "user/empty/"];
    assert_eq!(names, expected, "and no directory of temporary files");
    assert_eq!(target.read("user/1.eml"), b"one");
    assert_eq!(target.modified("user/1.eml"), SystemTime::UNIX_EPOCH + Duration::new(1_000_000_000, 123_456_789));
}

#[test]
fn messages_from_elsewhere_keep_name_or_position_and_what_is_lost_is_said() {
    let target = Target::new();
    let sink = Eml::new(target.root());
    let mut mail = Filling::new(&sink, b"u", Kind::Maildir);
    mail.folder(&folder(&["INBOX"], b"")).folder(&folder(&["A/B", "c"], b".A.B.c"));
    mail.message(&flagged(named(b"", b"1.a"), SystemFlags::SEEN.into()), b"x").message(&named(b".A.B.c", b"2.b"), b"y");
    let notes = mail.finish();
    assert!(is_unholdable(&notes, "flags") && is_renamed(&notes));
    let mut mail = Filling::new(&sink, b"x/y", Kind::Mbox);
    let mut file = folder(&["in"], b"in");
    file.modified = Some(date(5, 0));
    mail.folder(&file).message(&in_mbox(b"in", b"From a\n", b"\n"), b"z");
    let notes = mail.finish();
    for what in ["From_ lines and separators", "modification time of the folder's file"] {
        assert!(is_unholdable(&notes, what), "{what}");
    }
    assert!(is_renamed(&notes), "the mailbox is one directory");
    let files = target.files();
    assert_eq!(files.len(), 3);
    assert!(files[0].starts_with("u/A_B=") && files[0].ends_with("/c/2.b.eml"), "{files:?}");
    assert_eq!(files[1], "u/INBOX/1.a.eml");
    assert!(files[2].starts_with("x_y=") && files[2].ends_with("/in/0000000001.eml"));
}

#[test]
fn a_restore_run_again_changes_nothing_and_one_over_other_mail_fails_for_that_message_alone() {
    let target = Target::new();
    for _ in 0..2 {
        let mut mail = Filling::new(&Eml::new(target.root()).durable(true), b"u", Kind::Eml);
        mail.folder(&folder(&[], b"")).message(&named(b"", b"1"), b"one").message(&named(b"", b"a\0"), b"nul");
        mail.finish();
        assert_eq!(target.files().len(), 2);
    }
    let mut mail = Filling::new(&Eml::new(target.root()), b"u", Kind::Eml);
    mail.folder(&folder(&[], b""));
    assert_eq!(mail.try_message(&named(b"", b"1"), b"two").unwrap_err().kind(), ErrorKind::Exists);
    mail.message(&named(b"", b"2"), b"two").finish();
    assert_eq!(target.read("u/1"), b"one");
}

#[test]
fn a_message_given_up_leaves_nothing_behind_and_one_on_its_way_is_apart() {
    let target = Target::new();
    let mut mail = Filling::new(&Eml::new(target.root()), b"u", Kind::Eml);
    mail.folder(&folder(&[], b"")).abandon(&named(b"", b"1"), b"half");
    let mut delivery = mail.mailbox.deliver(&named(b"", b"2"), &Kind::Eml, 0, 1, &mut Vec::new()).unwrap();
    delivery.write(b"x").unwrap();
    assert!(target.files().iter().all(|name| name.starts_with("u/.mailrail-tmp/")));
    drop(delivery);
    drop(mail);
    assert_eq!(target.tree().into_keys().collect::<Vec<_>>(), ["u/"]);
}

#[test]
fn a_folder_or_mailbox_cannot_be_the_directory_of_temporary_files() {
    let target = Target::new();
    let sink = Eml::new(target.root());
    let mut mail = Filling::new(&sink, TEMPORARY, Kind::Eml);
    mail.folder(&folder(&[], TEMPORARY)).message(&named(TEMPORARY, b"1"), b"");
    mail.message(&named(TEMPORARY, TEMPORARY), b"");
    assert!(is_renamed(&mail.finish()));
    assert_eq!(target.files().len(), 2);
    assert!(!target.tree().contains_key(".mailrail-tmp/"));
}

#[test]
fn a_file_and_a_directory_of_one_name_both_get_their_place() {
    let target = Target::new();
    let sink = Eml::new(target.root());
    let mut top = Filling::new(&sink, b"", Kind::Eml);
    top.folder(&folder(&[], b"")).message(&named(b"", b"a"), b"file");
    let mut a = Filling::new(&sink, b"a", Kind::Eml);
    a.folder(&folder(&["b"], b"b")).folder(&folder(&[], b"")).message(&named(b"", b"b"), b"file too");
    assert!(is_renamed(&a.finish()) && !is_renamed(&top.finish()));
    assert_eq!(target.files().len(), 2);
}

#[cfg(unix)]
#[test]
fn a_planted_symbolic_link_is_neither_followed_nor_overwritten() {
    let target = Target::new();
    let outside = tempfile::tempdir().unwrap();
    fs::create_dir_all(target.path("u")).unwrap();
    for planted in ["u/f", "u/1", "u/.mailrail-tmp"] {
        std::os::unix::fs::symlink(outside.path(), target.path(planted)).unwrap();
    }
    let mut mail = Filling::new(&Eml::new(target.root()), b"u", Kind::Eml);
    let error = mail.mailbox.folder(&folder(&[], b"f"), &Kind::Eml, &mut Vec::new()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Exists);
    mail.folder(&folder(&[], b""));
    assert_eq!(mail.try_message(&named(b"", b"1"), b"x").unwrap_err().kind(), ErrorKind::Exists);
    fs::remove_file(target.path("u/.mailrail-tmp")).unwrap();
    assert_eq!(mail.try_message(&named(b"", b"1"), b"x").unwrap_err().kind(), ErrorKind::Exists);
    assert_eq!(fs::read_dir(outside.path()).unwrap().count(), 0);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn pitfall_15_no_names_climb_out_of_the_target_and_no_message_is_lost(
        mailbox in "(\\.|\\.\\.|/|a|\\x00){0,5}",
        raw in "(\\.|\\.\\.|/|a|\\x00|é){0,6}",
        names in vec("(\\.|/|a|\\x00){0,3}", 0..3),
        identities in proptest::collection::btree_set(vec(prop_oneof![Just(b'.'), Just(b'/'), any::<u8>()], 0..5), 1..6),
        origin in prop_oneof![Just(Kind::Maildir), Just(Kind::Eml)],
    ) {
        let target = Target::new();
        let mut mail = Filling::new(&Eml::new(target.root()), mailbox.as_bytes(), origin);
        let raw = Bytes::from(raw);
        mail.folder(&Folder::new(FolderPath { names, raw: raw.clone() }));
        for identity in &identities {
            mail.message(&named(&raw, identity), identity);
        }
        mail.finish();
        prop_assert_eq!(target.outside(), 0);
        prop_assert_eq!(target.files().len(), identities.len());
    }
}
