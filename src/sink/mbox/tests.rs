use super::*;
use crate::message::{Flags, SystemFlags};
use crate::sink::fixture::*;
use proptest::collection::vec;
use proptest::prelude::*;
use std::fs;
use std::time::{Duration, SystemTime};

const FROM: &[u8] = b"From a@b Thu Jan  1 00:00:00 1970\n";

fn filling(target: &Target, origin: Kind) -> Filling {
    Filling::new(&Mbox::new(target.root()), b"x/y", origin)
}

#[test]
fn what_came_from_an_mbox_comes_back_octet_for_octet_with_its_time() {
    let target = Target::new();
    let mut mail = filling(&target, Kind::Mbox);
    let mut inbox = folder(&["inbox"], b"inbox");
    mail.folder(&inbox).folder(&folder(&["empty"], b"empty"));
    mail.message(&in_mbox(b"inbox", FROM, b"\n"), b"a\n>From x\n")
        .message(&in_mbox(b"inbox", b"From b\r\n", b""), b"c");
    inbox.modified = Some(date(1_234_567_890, 42));
    mail.folder(&inbox);
    assert_eq!(mail.finish(), []);
    assert_eq!(target.files(), ["x/y/empty", "x/y/inbox"]);
    assert_eq!(target.read("x/y/inbox"), [FROM, b"a\n>From x\n\nFrom b\r\nc"].concat());
    assert_eq!(target.modified("x/y/inbox"), SystemTime::UNIX_EPOCH + Duration::new(1_234_567_890, 42));
}

#[test]
fn messages_from_elsewhere_get_from_lines_and_quotes_and_line_ends() {
    let target = Target::new();
    let mut mail = filling(&target, Kind::Maildir);
    mail.folder(&folder(&["INBOX"], b"")).folder(&folder(&["A", "b.c"], b".A.b&AC4-c"));
    let flags = Flags::new(SystemFlags::SEEN, []);
    mail.message(&flagged(named(b"", b"1.a"), flags), b"From me\r\n>From you\r\nend");
    let mut dateless = named(b"", b"2.b");
    dateless.internal_date = None;
    mail.message(&dateless, b"\n").message(&named(b".A.b&AC4-c", b"3.c"), b"");
    let notes = mail.finish();
    let expected = b"From MAILER-DAEMON Sun Sep  9 01:46:40 2001\n>From me\r\n>>From you\r\nend\n\nFrom MAILER-DAEMON Thu Jan  1 00:00:00 1970\n\n\n";
    assert_eq!(target.read("x/y/INBOX"), expected);
    assert_eq!(target.read("x/y/A%2Fb.c"), b"From MAILER-DAEMON Sun Sep  9 01:46:40 2001\n\n");
    for what in ["flags", "absence of an internal date", "names of messages and parts of a second of internal dates"] {
        assert!(is_unholdable(&notes, what), "{what}");
    }
    assert!(is_transformed(&notes, "mboxrd quoting") && is_transformed(&notes, "final line ending added"));
}

#[test]
fn a_message_given_up_is_cut_off_again() {
    let target = Target::new();
    let mut mail = filling(&target, Kind::Mbox);
    let large = vec![b'x'; 200_000];
    mail.folder(&folder(&["f"], b"f")).message(&in_mbox(b"f", FROM, b"\n"), b"a\n");
    mail.abandon(&in_mbox(b"f", FROM, b"\n"), &large).message(&in_mbox(b"f", FROM, b"\n"), b"b\n");
    mail.abandon(&in_mbox(b"f", FROM, b"\n"), b"small");
    mail.finish();
    assert_eq!(target.read("x/y/f"), [FROM, b"a\n\n", FROM, b"b\n\n"].concat());
}

#[test]
fn two_messages_at_once_for_one_file_are_refused_and_do_not_block_it() {
    let target = Target::new();
    let mut mail = filling(&target, Kind::Mbox);
    mail.folder(&folder(&["f"], b"f"));
    let envelope = in_mbox(b"f", FROM, b"\n");
    let first = mail.mailbox.deliver(&envelope, &Kind::Mbox, 0, 0, &mut Vec::new()).unwrap();
    assert_eq!(mail.try_message(&envelope, b"").unwrap_err().kind(), ErrorKind::Invalid);
    first.commit(&mut Vec::new()).unwrap();
    mail.message(&envelope, b"b\n").finish();
    assert_eq!(target.read("x/y/f"), [FROM, b"\n", FROM, b"b\n\n"].concat());
}

#[test]
fn an_interrupted_restore_is_completed_at_whatever_octet_it_stopped() {
    let whole = [FROM, b"a\n\n", FROM, b"b\n\n"].concat();
    for there in 0..=whole.len() {
        let target = Target::new();
        fs::create_dir_all(target.path("x/y")).unwrap();
        fs::write(target.path("x/y/f"), &whole[..there]).unwrap();
        let mut mail = filling(&target, Kind::Mbox);
        mail.folder(&folder(&["f"], b"f"));
        mail.message(&in_mbox(b"f", FROM, b"\n"), b"a\n").message(&in_mbox(b"f", FROM, b"\n"), b"b\n");
        mail.finish();
        assert_eq!(target.read("x/y/f"), whole);
    }
}

#[test]
fn other_mail_in_an_existing_file_is_left_as_it_is() {
    let there = [FROM, b"other mail\n\n"].concat();
    let target = Target::new();
    fs::create_dir_all(target.path("x/y")).unwrap();
    fs::write(target.path("x/y/f"), &there).unwrap();
    let mut mail = filling(&target, Kind::Mbox);
    mail.folder(&folder(&["f"], b"f"));
    let error = mail.try_message(&in_mbox(b"f", FROM, b"\n"), b"a\n").unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Exists);
    assert_eq!(mail.mailbox.finish().unwrap_err().kind(), ErrorKind::Exists, "there is more than was restored");
    mail.message(&in_mbox(b"f", FROM, b"\n"), b"other mail\n").message(&in_mbox(b"f", FROM, b"\n"), b"a\n").finish();
    assert_eq!(target.read("x/y/f"), [&there[..], FROM, b"a\n\n"].concat());
}

#[test]
fn a_from_line_is_never_glued_to_a_message_without_an_end() {
    let target = Target::new();
    let mut mail = filling(&target, Kind::Mbox);
    mail.folder(&folder(&["f"], b"f")).message(&in_mbox(b"f", FROM, b""), b"no end");
    mail.message(&in_mbox(b"f", FROM, b""), b"no end");
    mail.origin = Kind::Eml;
    mail.message(&named(b"f", b"x.eml"), b"new\n");
    let notes = mail.finish();
    assert!(is_transformed(&notes, "line ending put before the From_ line"));
    let made = b"\n\nFrom MAILER-DAEMON Sun Sep  9 01:46:40 2001\nnew\n\n";
    assert_eq!(target.read("x/y/f"), [FROM, b"no end\n", FROM, b"no end", made].concat());
}

#[test]
fn a_mailbox_of_many_folders_keeps_few_files_open() {
    let target = Target::new();
    let sink = Mbox::new(target.root());
    let mut mail = Filling::new(&sink, b"", Kind::Mbox);
    let names: Vec<String> = (0..IDLE_FILES_MAX * 2).map(|number| format!("f{number}")).collect();
    for round in 0..2 {
        for name in &names {
            if round == 0 {
                mail.folder(&folder(&[name], name.as_bytes()));
            }
            mail.message(&in_mbox(name.as_bytes(), FROM, b"\n"), format!("{round}\n").as_bytes());
        }
    }
    let idle = Idle::default();
    for name in &names {
        let file = Appender::open(&target.path(name), 0, 0).unwrap();
        idle.give(name.clone().into(), file);
    }
    assert_eq!(idle.0.lock().unwrap().len(), IDLE_FILES_MAX);
    assert!(idle.take(b"f0").is_none() && idle.take(names[names.len() - 1].as_bytes()).is_some());
    mail.finish();
    for name in &names {
        assert_eq!(target.read(name), [FROM, b"0\n\n", FROM, b"1\n\n"].concat());
    }
}

#[test]
fn pitfall_31_folder_names_that_would_be_one_file_stay_two() {
    let target = Target::new();
    let mut mail = filling(&target, Kind::Maildir);
    for (names, raw) in [
        (&["a", "b"][..], &b".a.b"[..]),
        (&["a%2Fb"], b".a%2Fb"),
        (&["a/b"], b".x"),
        (&["INBOX"], b""),
        (&[], b".y"),
        (&["INBOX"], b".INBOX"),
        (&[""], b"."),
    ] {
        mail.folder(&folder(names, raw)).message(&named(raw, b"1"), raw);
    }
    assert!(is_renamed(&mail.finish()));
    assert_eq!(target.files().len(), 7);
}

#[cfg(unix)]
#[test]
fn a_planted_symbolic_link_is_not_written_through() {
    let target = Target::new();
    let outside = tempfile::tempdir().unwrap();
    fs::write(outside.path().join("victim"), b"").unwrap();
    fs::create_dir_all(target.path("x/y")).unwrap();
    std::os::unix::fs::symlink(outside.path().join("victim"), target.path("x/y/f")).unwrap();
    let mail = filling(&target, Kind::Mbox);
    let error = mail.mailbox.folder(&folder(&["f"], b"f"), &Kind::Mbox, &mut Vec::new()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Exists);
    // Planted after the folder was created, while no delivery has the file open.
    mail.mailbox.folder(&folder(&["g"], b"g"), &Kind::Mbox, &mut Vec::new()).unwrap();
    fs::remove_file(target.path("x/y/g")).unwrap();
    std::os::unix::fs::symlink(outside.path().join("victim"), target.path("x/y/g")).unwrap();
    assert!(mail.mailbox.deliver(&in_mbox(b"g", FROM, b""), &Kind::Mbox, 0, 0, &mut Vec::new()).is_err());
    assert_eq!(fs::read(outside.path().join("victim")).unwrap(), b"");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn pitfall_15_no_names_climb_out_of_the_target(
        mailbox in vec(prop_oneof![Just(b'/'), Just(b'.'), any::<u8>()], 0..8),
        raws in proptest::collection::btree_set(vec(prop_oneof![Just(b'/'), Just(b'.'), any::<u8>()], 0..300), 1..5),
    ) {
        let target = Target::new();
        let mut mail = Filling::new(&Mbox::new(target.root()), &mailbox, Kind::Mbox);
        for raw in &raws {
            mail.folder(&folder(&[], raw)).message(&in_mbox(raw, FROM, b"\n"), raw);
        }
        mail.finish();
        prop_assert_eq!(target.outside(), 0);
        prop_assert_eq!(target.files().len(), raws.len());
    }
}
