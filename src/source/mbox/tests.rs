use super::super::drained::{Remembered, drain, drain_knowing, folders, lines, messages, read};
use super::super::file::Stat;
use super::super::{Batch, Body, Entry, Reason};
use super::container::Positioned;
use super::scan::{FileScan, State};
use super::whole::{InMemory, split_all};
use super::*;
use crate::ErrorKind;
use crate::message::{Evidence, SystemFlags};
use proptest::prelude::*;
use std::io::{self, Write};
use std::time::Duration;

const A: &str = "From a@example.org Wed Jan  3 01:05:34 1996\n";
const B: &str = "From b@example.org Thu Feb  1 02:03:04 2001 +0100\n";
const FAR: u64 = 1 << 20;

fn split(octets: &str) -> Vec<[String; 3]> {
    let pieces = split_all(octets.as_bytes(), 1 << 20, FAR, None);
    assert_eq!(pieces.concat().concat(), octets.as_bytes());
    pieces.into_iter().map(|piece| piece.map(|part| String::from_utf8(part).unwrap())).collect()
}

fn bodies(octets: &str) -> Vec<String> {
    split(octets).into_iter().map(|[_, body, _]| body).collect()
}

/// A clock long after everything was written, so that nothing is racy.
#[derive(Debug)]
struct Later;

impl Clock for Later {
    fn now(&self) -> Duration {
        SystemClock.now() + Duration::from_secs(3600)
    }
}

fn source(path: &Path) -> Mbox {
    Mbox::open(path).unwrap().with_clock(Arc::new(Later))
}

/// The entries of the only mailbox.
fn entries(source: &Mbox) -> Vec<Entry> {
    let mut mailboxes = drain(source);
    assert_eq!(mailboxes.len(), 1);
    mailboxes.remove(0).1
}

fn traits(octets: &str) -> String {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("a");
    fs::write(&path, octets).unwrap();
    let entries = entries(&source(&path));
    String::from_utf8(folders(&entries).last().unwrap().traits.to_vec()).unwrap()
}

#[test]
fn a_message_has_its_from_line_before_and_its_blank_line_behind() {
    let found = split(&format!("{A}Subject: a\n\nx\n\n{B}\n\ny\n"));
    assert_eq!(found, [[A, "Subject: a\n\nx\n", "\n"], [B, "\n\ny\n", ""]].map(|piece| piece.map(str::to_owned)));
}

#[test]
fn pitfall_2_and_30_empty_files_empty_messages_and_missing_ends_are_kept() {
    assert!(split("").is_empty());
    assert_eq!(bodies(A), [""]);
    assert_eq!(bodies(A.trim_end()), [A.trim_end()]);
    assert_eq!(bodies(&format!("{A}\n{B}")), ["", ""]);
    assert_eq!(bodies(&format!("{A}x\n\n{B}S: y\n\nno end")), ["x\n", "S: y\n\nno end"]);
}

#[test]
fn pitfall_30_octets_before_the_first_from_line_are_a_message_without_one() {
    let found = split(&format!("no mbox\n\n{A}x\n"));
    assert_eq!(found[0], ["", "no mbox\n", "\n"]);
    assert_eq!(found[1][0], A);
}

#[test]
fn pitfall_30_without_a_blank_line_a_from_line_must_be_beyond_doubt() {
    assert_eq!(bodies(&format!("{A}S: a\n\nx\n{B}S: b\n\ny\n")), ["S: a\n\nx\n", "S: b\n\ny\n"]);
    // No header field behind it; no weekday in it.
    assert_eq!(bodies(&format!("{A}S: a\n\nx\n{B}and so on\n")).len(), 1);
    assert_eq!(bodies(&format!("{A}S: a\n\nx\nFrom b Feb 1 02:03:04 2001\nS: b\n")).len(), 1);
    assert_eq!(bodies(&format!("{A}S: a\n\nx\n\nFrom b Feb 1 02:03:04 2001\nS: b\n")).len(), 2);
}

#[test]
fn pitfall_30_prose_and_quoted_lines_do_not_split() {
    for line in ["From what I see", ">From b@example.org Thu Feb  1 02:03:04 2001", "from b Thu Feb  1 02:03:04 2001"] {
        assert_eq!(bodies(&format!("{A}S: a\n\nx\n\n{line}\nS: b\n")).len(), 1, "{line}");
    }
}

#[test]
fn pitfall_1_and_30_crlf_and_bare_cr_files_split_in_the_same_places() {
    let lf = format!("{A}S: a\n\nx\n\n{B}S: b\n\ny\n{A}S: c\n\nz\n\n");
    let expected = split(&lf);
    assert_eq!(expected.len(), 3);
    for ending in ["\r\n", "\r"] {
        let twin = split(&lf.replace('\n', ending));
        assert_eq!(twin, expected.clone().map_parts(|part| part.replace('\n', ending)), "{ending:?}");
    }
    assert_eq!(traits(&lf), "mbox;lf");
    assert_eq!(traits(&lf.replace('\n', "\r\n")), "mbox;crlf");
    assert_eq!(traits(&lf.replace('\n', "\r")), "mbox;cr");
}

trait MapParts {
    fn map_parts(self, change: impl Fn(String) -> String) -> Self;
}

impl MapParts for Vec<[String; 3]> {
    fn map_parts(self, change: impl Fn(String) -> String) -> Self {
        self.into_iter().map(|piece| piece.map(&change)).collect()
    }
}

#[test]
fn pitfall_30_a_content_length_that_fits_is_believed_and_one_that_lies_is_not() {
    let body = format!("x\n\n{B}S: quoted by nobody\n\n");
    let cl = |length: usize| format!("{A}Content-Length: {length}\n\n{body}\n{B}S: b\n\ny\n");
    assert_eq!(bodies(&cl(body.len())).len(), 2);
    assert_eq!(bodies(&cl(body.len())).first().unwrap(), &format!("Content-Length: {}\n\n{body}", body.len()));
    for lie in [0, 1, body.len() - 1, body.len() + 2, 1 << 40, usize::MAX] {
        assert_eq!(bodies(&cl(lie)).len(), 3, "{lie}");
    }
    // Declared not to have it, the file is not asked for it.
    assert_eq!(split_all(cl(body.len()).as_bytes(), 100, FAR, Some(Variant::Mboxrd)).len(), 3);
    assert_eq!(split_all(cl(body.len()).as_bytes(), 100, FAR, Some(Variant::Mboxcl2)).len(), 2);
}

#[test]
fn pitfall_30_the_variant_is_told_by_the_file() {
    assert_eq!(traits(&format!("{A}S: a\n\nx\n\n>From y\n")), "mboxo;lf");
    assert_eq!(traits(&format!("{A}S: a\n\nx\n\n>>From y\n")), "mboxrd;lf");
    assert_eq!(traits(&format!("{A}Content-Length: 8\n\n>From y\n\n{B}S: b\n\n")), "mboxcl;lf");
    assert_eq!(traits(&format!("{A}Content-Length: 7\n\nFrom y\n\n{B}S: b\n\n")), "mboxcl2;lf");
    assert_eq!(traits(""), "mbox;lf");
}

#[test]
fn traits_are_read_as_they_are_written() {
    for (_, variant) in VARIANTS {
        for (_, ending) in LINE_ENDINGS {
            let traits = Traits::new(variant, ending);
            assert_eq!(Traits::parse(traits.to_string().as_bytes()), Some(traits));
        }
    }
    assert_eq!(Traits::parse(b"mboxo"), None);
    assert_eq!(Traits::parse(b"mboxo;lf;"), None);
}

#[test]
fn pitfall_26_and_30_flags_come_from_the_header_and_the_date_from_the_from_line() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("Inbox");
    fs::write(&path, format!("{A}Status: RO\nX-Status: F\n\nx\n\n{B}X-Mozilla-Status: 0008\n\ny\n")).unwrap();
    let entries = entries(&source(&path));
    assert_eq!(lines(&entries), ["folder Inbox", "message Inbox|-", "message Inbox|-", "folder Inbox"]);
    let found = messages(entries);
    assert_eq!(found[0].envelope.flags.system, SystemFlags::SEEN.with(SystemFlags::FLAGGED));
    assert_eq!(found[1].envelope.flags.system, SystemFlags::DELETED);
    let dates: Vec<_> = found.iter().map(|message| message.envelope.internal_date.unwrap()).collect();
    assert_eq!((dates[0].seconds, dates[0].zone_minutes), (820_631_134, None));
    assert_eq!((dates[1].seconds, dates[1].zone_minutes), (980_989_384, Some(60)));
}

#[test]
fn in_a_tree_each_file_is_a_folder_of_the_mailbox_that_its_directory_is() {
    let directory = tempfile::tempdir().unwrap();
    let root = directory.path();
    for (name, octets) in [
        ("top", A),
        ("alice/Inbox", A),
        ("alice/Inbox.msf", "// <!-- <mdb:mork:z"),
        ("alice/Sent", ""),
        ("alice/Inbox.sbd/Old", A),
        ("deep/er/x", "no mail"),
    ] {
        fs::create_dir_all(root.join(name).parent().unwrap()).unwrap();
        fs::write(root.join(name), octets).unwrap();
    }
    fs::create_dir(root.join("nothing")).unwrap();
    std::os::unix::fs::symlink("Inbox", root.join("alice/link")).unwrap();
    let found: Vec<_> = drain(&source(root)).into_iter().map(|(name, entries)| (name, lines(&entries))).collect();
    let expected = [
        ("", vec!["folder top", "message top|-", "folder top"]),
        (
            "alice",
            vec![
                "folder Inbox",
                "message Inbox|-",
                "folder Inbox",
                "excluded Inbox.msf NotMail",
                "folder Sent",
                "folder Sent",
                "excluded link NotAFile",
            ],
        ),
        ("alice/Inbox.sbd", vec!["folder Old", "message Old|-", "folder Old"]),
        ("deep/er", vec!["excluded x NotMail"]),
        ("nothing", vec![]),
    ];
    for ((name, lines), expected) in found.iter().zip(&expected) {
        assert_eq!((name.as_str(), lines), (expected.0, &expected.1.iter().map(|line| (*line).to_owned()).collect()));
    }
    assert_eq!(found.len(), expected.len());
}

#[test]
fn a_file_given_by_itself_is_taken_whatever_it_is() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("x");
    fs::write(&path, "no mail").unwrap();
    assert_eq!(lines(&entries(&source(&path))), ["folder x", "message x|-", "folder x"]);
    assert!(Mbox::open(directory.path().join("y")).is_err());
}

#[test]
fn a_long_message_is_opened_and_its_neighbours_are_not() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("x");
    let long = format!("S: long\n\n{}\n", "0123456789\n".repeat(400_000));
    fs::write(&path, format!("{A}S: a\n\nx\n\n{B}{long}\n{A}S: c\n\nz\n")).unwrap();
    let found = messages(entries(&source(&path)));
    let opened: Vec<_> = found.iter().map(|message| matches!(message.body, Body::Open { .. })).collect();
    assert_eq!(opened, [false, true, false]);
    let octets: Vec<_> = found.into_iter().map(|message| read(message.body).unwrap().0).collect();
    assert_eq!(octets, [b"S: a\n\nx\n".to_vec(), long.into_bytes(), b"S: c\n\nz\n".to_vec()]);
}

#[test]
fn a_long_message_whose_file_changed_meanwhile_is_not_taken() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("x");
    fs::write(&path, format!("{A}S: a\n\n{}\n", "x".repeat(3 << 20))).unwrap();
    let found = messages(entries(&source(&path))).remove(0);
    let file = fs::File::options().write(true).open(&path).unwrap();
    file.set_modified(std::time::UNIX_EPOCH).unwrap();
    assert_eq!(read(found.body).unwrap_err().reason, Reason::Changed);
}

mod incremental {
    use super::*;

    struct Case {
        _directory: tempfile::TempDir,
        path: PathBuf,
        known: Remembered,
    }

    /// A file that was read once.
    fn case(octets: &str) -> Case {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("x");
        fs::write(&path, octets).unwrap();
        let known = Remembered::of(entries(&source(&path)));
        Case { _directory: directory, path, known }
    }

    fn again(case: &mut Case) -> Vec<String> {
        lines(&drain_knowing(&source(&case.path), &mut case.known).remove(0).1)
    }

    fn append(path: &Path, octets: &str) {
        fs::File::options().append(true).open(path).unwrap().write_all(octets.as_bytes()).unwrap();
    }

    fn two() -> String {
        format!("{A}S: a\n\nx\n\n{B}S: b\n\ny\n\n")
    }

    #[test]
    fn an_unchanged_file_is_not_read() {
        let mut case = case(&two());
        assert_eq!(again(&mut case), ["folder x", "unchanged x 2", "folder x"]);
    }

    #[test]
    fn the_evidence_is_sent_only_behind_the_last_message_and_stays_the_same() {
        let mut case = case(&two());
        let first = entries(&source(&case.path));
        let evidence: Vec<_> = folders(&first).iter().map(|folder| folder.evidence.clone()).collect();
        assert_eq!(evidence[0], Evidence::NONE);
        assert_ne!(evidence[1], Evidence::NONE);
        let second = drain_knowing(&source(&case.path), &mut case.known).remove(0).1;
        assert_eq!(folders(&second)[1], folders(&first)[1]);
    }

    #[test]
    fn a_file_read_too_soon_after_it_was_written_is_read_again() {
        let mut case = case(&two());
        case.known = Remembered::of(entries(&Mbox::open(&case.path).unwrap()));
        assert_eq!(again(&mut case), ["folder x", "matched x", "matched x", "folder x"]);
    }

    #[test]
    fn of_a_file_that_grew_only_the_new_part_is_read() {
        let mut case = case(&two());
        append(&case.path, &format!("{A}S: c\n\nz\n\n"));
        let entries = drain_knowing(&source(&case.path), &mut case.known).remove(0).1;
        assert_eq!(lines(&entries), ["folder x", "unchanged x 2", "message x|-", "folder x"]);
        let full = super::entries(&source(&case.path));
        assert_eq!(folders(&entries)[1], folders(&full)[1], "the evidence is that of reading all of it");
        assert_eq!(read(messages(entries).remove(0).body).unwrap().0, b"S: c\n\nz\n");
    }

    #[test]
    fn a_file_that_grew_in_the_middle_of_a_message_is_read_again() {
        for (old, new) in [
            (format!("{A}S: a\n\nx\n\n{B}S: b\n\nhalf"), "of it\n\n".to_owned()),
            (two(), "not the start of a message\n\n".to_owned()),
            (format!("{A}Content-Length: 90\n\nx\n\n"), format!("{B}S: b\n\n")),
        ] {
            let mut case = case(&old);
            append(&case.path, &new);
            let lines = again(&mut case);
            assert!(!lines.iter().any(|line| line.starts_with("unchanged")), "{lines:?}");
        }
    }

    #[test]
    fn a_file_that_grew_and_changed_before_its_old_end_is_read_again() {
        let mut case = case(&two());
        fs::write(&case.path, format!("{A}S: a\n\nx\n\n{B}S: B\n\ny\n\n{A}S: c\n\n")).unwrap();
        assert_eq!(again(&mut case), ["folder x", "matched x", "message x|-", "message x|-", "folder x"]);
    }

    #[test]
    fn of_a_file_that_lost_a_message_the_others_are_matched() {
        let mut case = case(&format!("{}{A}S: c\n\nz\n\n", two()));
        fs::write(&case.path, format!("{A}S: a\n\nx\n\n{A}S: c\n\nz\n\n")).unwrap();
        assert_eq!(again(&mut case), ["folder x", "matched x", "matched x", "folder x"]);
    }

    #[test]
    fn a_long_message_is_matched_too() {
        let mut case = case(&format!("{A}S: a\n\n{}\n\n{B}S: b\n\n", "x\n".repeat(3 << 20)));
        fs::File::options().write(true).open(&case.path).unwrap().set_modified(std::time::UNIX_EPOCH).unwrap();
        assert_eq!(again(&mut case), ["folder x", "matched x", "matched x", "folder x"]);
    }

    #[test]
    fn a_file_declared_to_be_of_another_variant_is_read_again() {
        let mut case = case(&two());
        let source = source(&case.path).variant(Variant::Mboxrd);
        let lines = lines(&drain_knowing(&source, &mut case.known).remove(0).1);
        assert_eq!(lines, ["folder x", "matched x", "matched x", "folder x"]);
    }

    #[test]
    fn evidence_of_another_source_is_not_understood_as_ones_own() {
        let mut case = case(&two());
        for container in case.known.containers.values_mut() {
            container.evidence = Evidence(vec![9; 80].into());
        }
        assert_eq!(again(&mut case), ["folder x", "matched x", "matched x", "folder x"]);
    }
}

/// A file that cannot be read behind some offset, or that is another one when it is looked at again.
struct Faulty {
    octets: Vec<u8>,
    readable: usize,
    error: Option<io::ErrorKind>,
    looked_at: std::sync::atomic::AtomicU32,
}

impl Positioned for Faulty {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let rest = self.octets.get(offset as usize..self.readable).unwrap_or_default();
        if let (true, Some(error)) = (rest.is_empty(), self.error) {
            return Err(error.into());
        }
        let length = rest.len().min(buffer.len());
        buffer[..length].copy_from_slice(&rest[..length]);
        Ok(length)
    }

    fn stat(&self) -> io::Result<Stat> {
        let changed = self.looked_at.load(std::sync::atomic::Ordering::Relaxed);
        let size = self.octets.len() as u64;
        Ok(Stat { device: 1, inode: 1, size, modified: (1, 0), changed: (1, changed) })
    }
}

fn scan_faulty(octets: String, readable: usize, error: Option<io::ErrorKind>) -> Vec<Entry> {
    let file: Arc<dyn Positioned> =
        Arc::new(Faulty { octets: octets.into_bytes(), readable, error, looked_at: 0.into() });
    let stat = file.stat().unwrap();
    let settings = Settings { variant: None, clock: Arc::new(Later) };
    let scan = FileScan { path: "x".into(), name: "x".into(), file, stat, settings, state: State::Ended };
    let mut known = Remembered::default();
    let mut batch = Batch::new(1 << 30);
    let mut scan = scan.begin(&known, &mut batch);
    while scan.next(&mut known, &mut batch) {}
    batch.into_entries()
}

#[test]
fn where_reading_fails_the_message_is_quarantined_with_what_was_read_and_the_file_reported() {
    let octets = format!("{A}S: a\n\nx\n\n{B}S: b\n\ny and more\n\n{A}S: c\n\n");
    let readable = octets.find(" and").unwrap();
    for (error, kind) in [
        (Some(io::ErrorKind::Other), ErrorKind::Unavailable),
        (Some(io::ErrorKind::PermissionDenied), ErrorKind::Denied),
        (None, ErrorKind::Unavailable),
    ] {
        let entries = scan_faulty(octets.clone(), readable, error);
        assert_eq!(
            lines(&entries),
            ["folder x".to_owned(), "message x|-".to_owned(), "message x|-".to_owned(), format!("failed x {kind:?}")]
        );
        let mut found = messages(entries);
        let Body::Open { open, .. } = found.pop().unwrap().body else { panic!("not opened") };
        let mut body = open.open().unwrap();
        let mut buffer = [0; 100];
        let length = body.read(&mut buffer).unwrap();
        assert_eq!(&buffer[..length], b"S: b\n\ny");
        assert_eq!(body.read(&mut buffer).unwrap_err().reason, Reason::ReadFailed);
    }
}

/// Pieces of mboxes, put together at random.
fn mbox() -> impl Strategy<Value = Vec<u8>> {
    let part = prop_oneof![
        Just(A.as_bytes().to_vec()),
        Just(B.as_bytes().to_vec()),
        Just(b"From nobody\n".to_vec()),
        Just(b"From a Wed Jan  3 01:05:34 1996".to_vec()),
        Just(b"\n".to_vec()),
        Just(b"\r\n".to_vec()),
        Just(b"\r".to_vec()),
        Just(b">From x\n".to_vec()),
        Just(b"Fro".to_vec()),
        Just(b"Subject: x\n".to_vec()),
        Just(b"Status: RO\n\n".to_vec()),
        (0_u32..200).prop_map(|length| format!("Content-Length: {length}\n\n").into_bytes()),
        "[a-z ]{0,40}\n".prop_map(String::into_bytes),
        prop::collection::vec(any::<u8>(), 0..8),
    ];
    let whole = prop::collection::vec(part, 0..24).prop_map(|parts| parts.concat());
    (whole, 0..3).prop_map(|(octets, ending)| match ending {
        0 => octets,
        1 => with_ending(&octets, b"\r\n"),
        _ => with_ending(&octets, b"\r"),
    })
}

fn with_ending(octets: &[u8], ending: &[u8]) -> Vec<u8> {
    octets.split(|&octet| octet == b'\n').collect::<Vec<_>>().join(ending)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, ..ProptestConfig::default() })]

    #[test]
    fn whatever_the_split_the_pieces_are_the_file(octets in mbox(), chunk in 1_usize..400, inline_max in 0_u64..300) {
        let pieces = split_all(&octets, chunk, inline_max, None);
        prop_assert_eq!(pieces.concat().concat(), octets);
    }

    #[test]
    fn the_split_does_not_depend_on_how_much_is_read_at_once(octets in mbox(), chunk in 1_usize..400, inline_max in 0_u64..300) {
        prop_assert_eq!(split_all(&octets, chunk, inline_max, None), split_all(&octets, 1 << 20, FAR, None));
    }

    #[test]
    fn a_file_that_grew_splits_as_if_it_had_been_read_at_once(old in mbox(), new in mbox(), chunk in 1_usize..400) {
        use super::split::{Limits, Rules, Splitter};
        let rules = Rules { declared: None, limits: Limits { chunk, inline_max: FAR } };
        let whole: Arc<dyn Positioned> = Arc::new(InMemory([&old[..], &new].concat()));
        let end = (old.len() + new.len()) as u64;
        let count = |splitter: &mut Splitter| {
            let mut lengths = Vec::new();
            while let Some(piece) = splitter.next() {
                lengths.push((piece.before, piece.head, piece.after));
            }
            lengths
        };
        let mut first = Splitter::new(Arc::new(InMemory(old.clone())), old.len() as u64, rules, None);
        let mut found = count(&mut first);
        if !old.is_empty() && first.is_terminated() {
            let state = (first.line_ending(), first.seen());
            if let Some(mut rest) = Splitter::resume(Arc::clone(&whole), old.len() as u64, end, rules, state) {
                found.append(&mut count(&mut rest));
                let mut at_once = Splitter::new(whole, end, rules, None);
                let (old, new) = (String::from_utf8_lossy(&old), String::from_utf8_lossy(&new));
                prop_assert_eq!(found, count(&mut at_once), "{:?} and {:?}", old, new);
                prop_assert_eq!(rest.tail(), at_once.tail());
                prop_assert_eq!(rest.seen(), at_once.seen());
            }
        }
    }
}
