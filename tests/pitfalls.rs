//! Ways in which mail is known to get lost, each as a whole journey: into a repository, checked, and back.
//!
//! The numbers are those of a list that the project keeps of losses seen in other software; a number stays with its pitfall for good. Most
//! have closer tests beside the code as well, by the same names: `grep -rn pitfall_12 src tests`. What applies to a source or protocol that
//! does not exist yet has no number here yet.
#![cfg(all(feature = "testing", feature = "report-json"))]

mod common;

use bytes::Bytes;
use common::{World, assert_same, base64, message, noise, tree, with_attachment, write};
use futures::TryStreamExt;
use futures::executor::block_on;
use mailrail::ledger::Ledger;
use mailrail::message::{Envelope, Flags, Identity, InternalDate, MailboxName, SystemFlags};
use mailrail::source::{Kind, Layout, Memory, SourceId};
use mailrail::store::{MemoryStore, Store};
use mailrail::testing::{self, StalledStore};
use mailrail::{Engine, ErrorKind, Key, Protection, Repository, Resources, Settings, sink, source};
use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::sync::Arc;

/// The pitfalls that apply to what there is.
const APPLY: [u32; 28] =
    [1, 2, 3, 4, 5, 6, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 26, 27, 28, 29, 30, 43, 44, 46, 48, 49, 50, 31];

#[test]
fn every_pitfall_that_applies_has_a_test_that_is_named_after_it() {
    let mut named = BTreeSet::new();
    for directory in ["src", "tests"] {
        collect(&Path::new(env!("CARGO_MANIFEST_DIR")).join(directory), &mut named);
    }
    let missing: Vec<_> = APPLY.iter().filter(|number| !named.contains(number)).collect();
    assert!(missing.is_empty(), "without a test: {missing:?}");
}

/// The numbers in the names of the test functions of all source files below a directory: `pitfall_1_and_28_...` has two.
fn collect(directory: &Path, named: &mut BTreeSet<u32>) {
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            collect(&path, named);
            continue;
        }
        if path.extension().is_none_or(|extension| extension != "rs") {
            continue;
        }
        let text = fs::read_to_string(&path).unwrap();
        let mut lines = text.lines().peekable();
        while let Some(line) = lines.next() {
            let Some(name) = lines.peek().and_then(|next| next.trim().strip_prefix("fn pitfall_")) else { continue };
            if line.trim() == "#[test]" {
                named.extend(name.split('_').filter(|word| *word != "and").map_while(|word| word.parse::<u32>().ok()));
            }
        }
    }
}

fn alice() -> MailboxName {
    MailboxName::new("alice")
}

/// Pushes the messages as one mailbox, checks the repository, and asserts that every one comes back, in this order.
fn journey(messages: &[Vec<u8>]) -> (World, Ledger) {
    let source = Memory::new(SourceId::new([1; 16]));
    for (number, octets) in messages.iter().enumerate() {
        source.put(&alice(), "INBOX", number.to_string(), octets.clone());
    }
    let world = World::inline();
    let ledger = world.push(source.clone());
    assert_eq!(ledger.messages.stored, messages.len() as u64, "{ledger:#?}");
    assert!(ledger.is_complete());
    let check = block_on(world.engine.check().read_data(true).finish()).unwrap();
    assert!(check.is_sound() && check.rebuilt == messages.len() as u64, "{check:#?}");
    let compared = block_on(world.engine.compare(source).finish()).unwrap();
    assert!(compared.is_same() && compared.same == messages.len() as u64, "{compared:#?}");
    assert!(restored(&world) == messages, "not the same octets");
    (world, ledger)
}

/// What a restore delivers of the mailbox, in the order of delivery.
fn restored(world: &World) -> Vec<Vec<u8>> {
    let sink = testing::sink::Memory::new(Kind::Eml).ordered();
    world.restore(sink.clone());
    sink.mailboxes().remove(&alice()).unwrap().messages.into_iter().map(|message| message.octets).collect()
}

/// The octets of the parts that are fetched alone, for each part that has content of its own.
fn contents(engine: &Engine, ordinal: u64) -> Vec<Vec<u8>> {
    block_on(async {
        let mut contents = Vec::new();
        for number in 0..engine.parts(&alice(), ordinal).await.unwrap().len() {
            let stream = engine.read_part(&alice(), ordinal, number).await.unwrap();
            contents.push(stream.try_collect::<Vec<_>>().await.unwrap().concat());
        }
        contents
    })
}

/// A multipart message with these parts, each with its own header, between boundary lines.
fn multipart(boundary: &str, parts: &[&[u8]]) -> Vec<u8> {
    let mut octets =
        format!("Subject: parts\nMIME-Version: 1.0\nContent-Type: multipart/mixed; boundary=\"{boundary}\"\n\n")
            .into_bytes();
    for part in parts {
        octets.extend_from_slice(format!("--{boundary}\n").as_bytes());
        octets.extend_from_slice(part);
        octets.push(b'\n');
    }
    octets.extend_from_slice(format!("--{boundary}--\n").as_bytes());
    octets
}

fn with_line_ends(octets: &[u8], end: &[u8]) -> Vec<u8> {
    octets.split(|octet| *octet == b'\n').collect::<Vec<_>>().join(end)
}

// Octets and framing.

#[test]
fn pitfall_1_line_ends_of_any_kind_come_back_and_hide_no_attachment() {
    let lf = with_attachment(1, 1, 100_000);
    let crlf = with_line_ends(&lf, b"\r\n");
    let mut mixed = crlf[..600].to_vec();
    mixed.extend_from_slice(&lf[600..]);
    let cr = with_line_ends(&lf, b"\r");
    let (world, ledger) = journey(&[lf, crlf, cr, mixed]);
    assert!(ledger.bytes.duplicate >= 100_000, "the attachment is one, whatever ends its lines: {ledger:?}");
    assert!(contents(&world.engine, 0).contains(&noise(1, 100_000)));
    assert!(contents(&world.engine, 1).contains(&noise(1, 100_000)));
}

#[test]
fn pitfall_2_messages_without_an_end_a_body_or_any_octet_come_back() {
    journey(&[
        b"".to_vec(),
        b"\n".to_vec(),
        b"\r".to_vec(),
        b"Subject: header alone".to_vec(),
        b"Subject: header alone\n".to_vec(),
        b"Subject: x\n\nno line end".to_vec(),
        b"Subject: x\r\n\r\nZm9v\r".to_vec(),
        b"Subject: x\nContent-Transfer-Encoding: base64\n\nZm9v".to_vec(),
    ]);
}

#[test]
fn pitfall_3_nul_octets_come_back_in_header_text_and_attachment() {
    let mut everywhere = b"Subject: a\0b\n\0: \0\nContent-Type: text/plain; name=\"\0\"\n\n".to_vec();
    everywhere.extend_from_slice(&[0; 70_000]);
    journey(&[everywhere, multipart("\0b", &[b"\0\n\n\0"]), vec![0; 3]]);
}

#[test]
fn pitfall_4_header_lines_that_are_none_come_back() {
    journey(&[
        b"From someone Mon Jan  1 00:00:00 2024\nSubject: x\n\nx\n".to_vec(),
        b">From someone\nSubject: x\n\nx\n".to_vec(),
        b"no colon here\nSubject: x\n\nx\n".to_vec(),
        b"Subject: gr\xfc\xdfe \x80\xff\nMessage-ID: \nMessage-ID:<>\n: empty name\n\nx\n".to_vec(),
        b" folded first line\n\tand another\n\nx\n".to_vec(),
    ]);
}

#[test]
fn pitfall_5_a_line_of_megabytes_comes_back_unwrapped() {
    let mut text = b"Subject: long\n\n".to_vec();
    text.resize(3 << 20, b'x');
    let mut encoded = b"Content-Type: image/png\nContent-Transfer-Encoding: base64\n\n".to_vec();
    encoded.extend(base64(&noise(5, 300_000)).into_iter().filter(|octet| *octet != b'\n'));
    let (world, _) = journey(&[text, encoded]);
    assert_eq!(contents(&world.engine, 1).last().unwrap(), &noise(5, 300_000), "base64 on one line is base64");
}

#[test]
fn pitfall_6_header_fields_of_any_length_come_back() {
    let long = "x".repeat(200_000);
    let folded = "<reference@example.org>\n ".repeat(10_000);
    let body = String::from_utf8(base64(&noise(6, 30_000))).unwrap();
    let many = "X-Field: value\n".repeat(50_000);
    journey(&[
        format!("Message-ID: <{long}@example.org>\nReferences: {folded}end\n\nx\n").into_bytes(),
        format!("{long}: x\nContent-Transfer-Encoding: base64\n\n{body}").into_bytes(),
        format!("{many}Content-Transfer-Encoding: base64\n\n{body}").into_bytes(),
    ]);
}

// MIME and attachments.

#[test]
fn pitfall_9_base64_of_every_shape_comes_back_and_regular_base64_is_taken_out() {
    let octets = base64(&noise(9, 50_000));
    let joined: Vec<u8> = octets.iter().copied().filter(|octet| *octet != b'\n').collect();
    let wrapped = |width: usize, end: &[u8]| joined.chunks(width).collect::<Vec<_>>().join(end);
    let shapes = [
        wrapped(76, b"\n"),
        wrapped(72, b"\n"),
        wrapped(64, b"\r\n"),
        wrapped(60, b"\n"),
        wrapped(61, b"\n"),
        wrapped(76, b" \n"),
        wrapped(76, b"\n\n"),
        joined.iter().map(|octet| if *octet == b'+' { b'-' } else { *octet }).collect(),
        joined.strip_suffix(b"=").unwrap_or(&joined).to_vec(),
        [&joined[..], b"==trailing junk"].concat(),
        wrapped(76, b"\n").to_ascii_uppercase(),
    ];
    let messages: Vec<_> = shapes
        .iter()
        .map(|shape| [b"Content-Type: image/jpeg\nContent-Transfer-Encoding: base64\n\n", &shape[..]].concat())
        .collect();
    let (_, ledger) = journey(&messages);
    assert!(ledger.bytes.duplicate >= 4 * 49_000, "five regular widths hold one content: {ledger:?}");
}

#[test]
fn pitfall_10_other_encodings_come_back_as_they_are() {
    let soft = "caf=C3=A9=20=\nnext=\r\n=3d=3D =\n".repeat(3000);
    let uuencoded = format!(
        "begin 644 file\n{}`\nend\n",
        "M<&5R9F5C=`H`<&5R9F5C=`H`<&5R9F5C=`H`<&5R9F5C=`H`<&5R9F5C\n".repeat(2000)
    );
    let yenc: Vec<u8> = (0..60_000_u32).map(|at| (at % 253) as u8 + 1).collect();
    journey(&[
        format!("Content-Transfer-Encoding: quoted-printable\n\n{soft}").into_bytes(),
        format!("Content-Transfer-Encoding: x-uuencode\n\n{uuencoded}").into_bytes(),
        [b"Subject: yEnc\n\n=ybegin line=128 size=60000 name=x\n", &yenc[..], b"\n=yend size=60000\n"].concat(),
        b"Content-Transfer-Encoding: binhex40\n\n(This file must be converted with BinHex 4.0)\n:$f*TEQKPH:\n".to_vec(),
    ]);
}

#[test]
fn pitfall_11_what_stands_round_parts_comes_back() {
    let part = [b"Content-Transfer-Encoding: base64\n\n", &base64(&noise(11, 20_000))[..]].concat();
    let plain = multipart("b", &[&part]);
    let text = String::from_utf8(plain).unwrap();
    let preamble = text.replacen("\n\n--b\n", "\n\npreamble\n\n--b \t\n", 1) + "epilogue\n--b--\n--b\nafter the end";
    let blank = text.replacen("--b--\n", "\n\n\n--b--", 1);
    journey(&[preamble.into_bytes(), blank.into_bytes()]);
}

#[test]
fn pitfall_12_malformed_multiparts_are_never_rejected_and_come_back() {
    let part = [b"Content-Transfer-Encoding: base64\n\n", &base64(&noise(12, 20_000))[..]].concat();
    let whole = multipart("b", &[&part, b"Content-Type: text/plain\n\nx"]);
    let without_boundary = String::from_utf8(whole.clone()).unwrap().replace("; boundary=\"b\"", "").into_bytes();
    let twice = [b"Content-Type: text/plain\n", &whole[..]].concat();
    let truncated = whole[..whole.len() - 9_000].to_vec();
    let prefix = multipart("b", &[&multipart("bb", &[&multipart("b", &[&part])])]);
    let mut deep = Vec::new();
    (0..5_000).for_each(|_| deep.extend_from_slice(b"Content-Type: multipart/mixed; boundary=b\n\n--b\n"));
    let mut many = b"Content-Type: multipart/mixed; boundary=b\n\n".to_vec();
    (0..50_000).for_each(|_| many.extend_from_slice(b"--b\n\n"));
    let wrong_label = [b"Content-Type: text/plain; charset=no-such\n", &part[..]].concat();
    let empty = multipart("", &[&part]);
    journey(&[whole, without_boundary, twice, truncated, prefix, deep, many, wrong_label, empty]);
}

#[test]
fn pitfall_13_a_signature_that_held_before_holds_after() {
    let pair = ring::signature::Ed25519KeyPair::from_seed_unchecked(&[13; 32]).unwrap();
    // What is signed has all that tempts one to mend it: trailing space, mixed case, odd padding of lines, an attachment.
    let signed = with_line_ends(
        &[b"Content-Type: image/png\nContent-transfer-ENCODING: base64 \n\n", &base64(&noise(13, 40_000))[..]].concat(),
        b"\r\n",
    );
    let signature = base64(pair.sign(&signed).as_ref());
    let octets = [
        b"DKIM-Signature: v=1;  a=ed25519-sha256 ;\r\n\tb=x\r\nContent-Type: multipart/signed; boundary=s\r\n\r\n--s\r\n",
        &signed[..],
        b"\r\n--s\r\nContent-Type: application/pgp-signature\r\n\r\n",
        &signature,
        b"\r\n--s--\r\n",
    ]
    .concat();
    let (world, _) = journey(&[octets]);
    let back = restored(&world).remove(0);
    let start = back.windows(7).position(|window| window == b"\r\n--s\r\n").unwrap() + 7;
    let end = start + back[start..].windows(7).position(|window| window == b"\r\n--s\r\n").unwrap();
    let key = ring::signature::KeyPair::public_key(&pair);
    let public = ring::signature::UnparsedPublicKey::new(&ring::signature::ED25519, key);
    public.verify(&back[start..end], pair.sign(&signed).as_ref()).unwrap();
}

#[test]
fn pitfall_14_enclosed_messages_share_their_attachments_and_containers_stay_closed() {
    let inner = with_attachment(14, 14, 80_000);
    let forwarded = multipart("outer", &[&[b"Content-Type: message/rfc822\n\n", &inner[..]].concat()]);
    let tnef = [b"\x78\x9f\x3e\x22".to_vec(), noise(15, 40_000)].concat();
    let winmail = [
        b"Content-Type: application/ms-tnef; name=winmail.dat\nContent-Transfer-Encoding: base64\n\n",
        &base64(&tnef)[..],
    ]
    .concat();
    let partial = b"Content-Type: message/partial; id=\"x\"; number=2; total=3\n\nSubject: not mine\n\nrest\n".to_vec();
    let external = b"Content-Type: message/external-body; access-type=URL; URL=\"http://x.example/\"\n\nContent-Type: image/gif\n\n".to_vec();
    let (world, ledger) = journey(&[inner, forwarded, winmail, partial, external]);
    assert!(ledger.bytes.duplicate >= 80_000, "{ledger:?}");
    assert_eq!(contents(&world.engine, 2).last().unwrap(), &tnef, "a TNEF container is one attachment");
}

#[test]
fn pitfall_15_attachment_names_are_told_and_never_used_as_paths() {
    let names = ["../../etc/passwd", "/etc/passwd", "a\0b", "\u{202e}gpj.exe", "..", "CON", "a\\..\\b"];
    let messages: Vec<_> = names
        .iter()
        .map(|name| {
            let header = format!(
                "Content-Type: application/octet-stream; name=\"{name}\"\nContent-Transfer-Encoding: base64\n\n"
            );
            multipart("b", &[&[header.as_bytes(), &base64(&noise(15, 20_000))].concat()])
        })
        .collect();
    let (world, _) = journey(&messages);
    let told = block_on(world.engine.parts(&alice(), 0)).unwrap();
    assert_eq!(told[0].name.as_deref(), Some("../../etc/passwd"));
    let directory = tempfile::tempdir().unwrap();
    let report = block_on(world.engine.restore(sink::Eml::new(directory.path().join("out"))).finish()).unwrap();
    assert_eq!((report.restored, report.failed), (names.len() as u64, 0));
    let files: Vec<_> = tree(directory.path()).into_iter().filter(|(_, node)| node.is_some()).collect();
    assert_eq!(files.len(), names.len(), "one file for each message, none for an attachment");
    assert!(files.iter().all(|(path, _)| path.starts_with("out/alice/INBOX")), "{files:?}");
}

#[test]
fn pitfall_16_contents_that_differ_anywhere_are_two_and_digests_betray_nothing() {
    let content = noise(16, 200_000);
    let messages: Vec<_> = [0, 1, 99_999, 100_000, 199_999]
        .into_iter()
        .map(|at| {
            let mut other = content.clone();
            other[at] ^= 1;
            multipart("b", &[&[b"Content-Transfer-Encoding: base64\n\n", &base64(&other)[..]].concat()])
        })
        .collect();
    let (_, ledger) = journey(&messages);
    assert_eq!(ledger.bytes.duplicate, 0);
    // Whoever can write a message with a chosen content learns nothing from the store: under two keys nothing is the same, lengths aside.
    let [one, two] = [1, 2].map(|key| sealed_packs(key, &messages));
    let windows: BTreeSet<&[u8]> = one.iter().flat_map(|octets| octets.windows(16).step_by(16)).collect();
    assert!(windows.len() > 60_000);
    assert!(two.iter().all(|octets| !octets.windows(16).any(|window| windows.contains(window))));
}

/// What is sealed of all packs of a repository of this key that holds the messages: without the magic in front and the lengths behind.
fn sealed_packs(key: u8, messages: &[Vec<u8>]) -> Vec<Bytes> {
    let (store, source) = (MemoryStore::new(), Memory::new(SourceId::new([1; 16])));
    for (number, octets) in messages.iter().enumerate() {
        source.put(&alice(), "INBOX", number.to_string(), octets.clone());
    }
    block_on(async {
        let protection = Protection::Key(Key::new([key; 32]));
        let repository = Repository::open_or_create(Arc::new(store.clone()), protection).await.unwrap();
        let engine = Engine::builder(repository).resources(Resources::inline(64 << 20).unwrap()).build().unwrap();
        assert!(engine.transfer(source).finish().await.unwrap().ledger.is_complete());
        let packs: Vec<_> = store.list("packs/").try_collect().await.unwrap();
        let mut objects = Vec::new();
        for pack in packs {
            let octets = store.read(&pack.key, None).await.unwrap();
            objects.push(octets.slice(8..octets.len() - 24));
        }
        objects
    })
}

// Identity, placement, dates, order.

#[test]
fn pitfall_17_a_message_id_is_no_identity() {
    let same = |body: &str| format!("Message-ID: <same@example.org>\n\n{body}\n").into_bytes();
    journey(&[
        same("one"),
        same("two"),
        same("two"),
        b"Subject: no id\n\n1\n".to_vec(),
        b"Subject: no id\n\n2\n".to_vec(),
        b"Message-ID:\nMessage-ID: <a>\nMessage-ID: <b>\n\n".to_vec(),
        b"Message-ID:\nMessage-ID: <a>\nMessage-ID: <b>\n\n".to_vec(),
    ]);
}

#[test]
fn pitfall_18_a_message_in_many_places_keeps_each_with_its_own_flags_and_date() {
    let (source, octets) = (Memory::new(SourceId::new([1; 16])), with_attachment(18, 18, 50_000));
    let mut expected = Vec::new();
    for (number, (mailbox, folder)) in [("alice", "INBOX"), ("alice", "Kept"), ("bob", "INBOX")].iter().enumerate() {
        let mut envelope = Envelope::new(*folder, Identity::Named("same name".into()));
        let system = [SystemFlags::SEEN, SystemFlags::FLAGGED, SystemFlags::default()][number];
        envelope.flags = Flags::new(system, [format!("keyword{number}")]);
        envelope.internal_date = date(number as i64);
        source.message(&MailboxName::new(*mailbox), envelope.clone(), octets.clone());
        expected.push((MailboxName::new(*mailbox), envelope.folder, envelope.flags, envelope.internal_date));
    }
    let world = World::inline();
    let ledger = world.push(source);
    assert_eq!((ledger.messages.stored, ledger.bytes.duplicate >= 100_000), (3, true), "{ledger:?}");
    let sink = testing::sink::Memory::new(Kind::Eml);
    world.restore(sink.clone());
    let mut found = Vec::new();
    for (mailbox, delivered) in sink.mailboxes() {
        for message in delivered.messages {
            assert!(message.octets == octets);
            found.push((
                mailbox.clone(),
                message.envelope.folder,
                message.envelope.flags,
                message.envelope.internal_date,
            ));
        }
    }
    assert_eq!(found, expected);
}

fn date(seconds: i64) -> Option<InternalDate> {
    Some(InternalDate { seconds, nanos: 7, zone_minutes: Some(-570) })
}

#[test]
fn pitfall_26_internal_dates_keep_second_and_zone_and_what_has_none_gets_none() {
    let source = Memory::new(SourceId::new([1; 16]));
    let dates = [date(-2_208_988_800), date(0), date(951_782_400), date(253_402_300_799), None];
    for (number, date) in dates.iter().enumerate() {
        let mut envelope = Envelope::new("INBOX", Identity::Named(number.to_string().into()));
        envelope.internal_date = *date;
        source.message(&alice(), envelope, b"Date: Mon, 1 Jan 2024 00:00:00 +0000\n\nx\n".to_vec());
    }
    let world = World::inline();
    world.push(source);
    let sink = testing::sink::Memory::new(Kind::Eml).ordered();
    world.restore(sink.clone());
    let found = sink.mailboxes().remove(&alice()).unwrap().messages;
    assert_eq!(found.iter().map(|message| message.envelope.internal_date).collect::<Vec<_>>(), dates);
}

#[test]
fn pitfall_27_messages_come_back_in_the_order_of_the_source_however_many_work_at_once() {
    let source = Memory::new(SourceId::new([1; 16]));
    let messages: Vec<_> =
        (0..400).map(|number| with_attachment(number, number, 1 + (number as usize % 7) * 9_000)).collect();
    // Names whose order by octets is another one.
    for (number, octets) in messages.iter().enumerate() {
        source.put(&alice(), "INBOX", format!("{:x}", common::random(27, number as u64)), octets.clone());
    }
    let world = World::with(Resources::with(64 << 20, 4).unwrap(), Settings::default(), |memory| Arc::new(memory));
    world.push(source);
    assert!(restored(&world) == messages);
}

// Trees of files.

/// Pushes a tree, restores it to its own kind, and compares names, octets and times.
fn tree_journey(
    from: &Path,
    source: impl mailrail::source::Source,
    sink: impl FnOnce(&Path) -> Arc<dyn sink::Sink>,
) -> Ledger {
    let world = World::inline();
    let ledger = world.push(source);
    assert!(ledger.is_complete(), "{ledger:#?}");
    let to = tempfile::tempdir().unwrap();
    world.restore(sink(to.path()));
    assert_same(&tree(from), &tree(to.path()), "restored");
    ledger
}

#[test]
fn pitfall_28_a_maildirs_names_are_octets_and_what_is_no_message_is_counted() {
    let directory = tempfile::tempdir().unwrap();
    let alice = directory.path().join("alice");
    for folder in ["cur", "new", "tmp"] {
        fs::create_dir_all(alice.join(folder)).unwrap();
    }
    for (number, name) in [
        "cur/1.M1.host:2,DFPRSTa",
        "cur/2.host,S=120,W=124:2,",
        "cur/3.host;2,S",
        "cur/4.host!2,R",
        "cur/5",
        "new/6.host",
    ]
    .iter()
    .enumerate()
    {
        write(&alice.join(name), &message(number as u64, 300), number as u64);
    }
    let latin = std::ffi::OsStr::new("cur");
    let odd =
        alice.join(latin).join(<std::ffi::OsStr as std::os::unix::ffi::OsStrExt>::from_bytes(b"7.\xe4\xff\n:2,S"));
    write(&odd, &message(7, 300), 7);
    write(&alice.join("dovecot-keywords"), b"0 $Forwarded\n", 8);
    write(&alice.join("subscriptions"), b"Sent\n", 9);
    let sink = |to: &Path| Arc::new(sink::Maildir::new(to)) as Arc<dyn sink::Sink>;
    let ledger = tree_journey(directory.path(), source::Maildir::open(directory.path()).unwrap(), sink);
    assert_eq!((ledger.messages.stored, ledger.messages.excluded), (7, 0));
    write(&alice.join("tmp/8.host"), b"half", 10);
    write(&alice.join("dovecot.index.log"), b"index", 11);
    let ledger = World::inline().push(source::Maildir::open(directory.path()).unwrap());
    assert_eq!((ledger.messages.seen, ledger.messages.stored, ledger.messages.excluded), (9, 7, 2));
}

#[test]
fn pitfall_29_both_layouts_come_back_and_what_could_be_either_is_refused() {
    for (folders, layout) in
        [([".Sent", ".Sent.2024"], Layout::MaildirPlusPlus), (["Sent", "Sent/2024"], Layout::Nested)]
    {
        let directory = tempfile::tempdir().unwrap();
        for folder in ["", folders[0], folders[1]] {
            for part in ["cur", "new", "tmp"] {
                fs::create_dir_all(directory.path().join("alice").join(folder).join(part)).unwrap();
            }
            let file = directory.path().join("alice").join(folder).join("cur/1.host:2,");
            write(&file, &message(29, 200), 29);
        }
        let sink = |to: &Path| Arc::new(sink::Maildir::new(to)) as Arc<dyn sink::Sink>;
        let source = source::Maildir::open(directory.path()).unwrap().layout(layout);
        assert_eq!(tree_journey(directory.path(), source, sink).messages.stored, 3);
    }
    let directory = tempfile::tempdir().unwrap();
    for folder in ["", ".A", "B"] {
        for part in ["cur", "new", "tmp"] {
            fs::create_dir_all(directory.path().join("alice").join(folder).join(part)).unwrap();
        }
        write(&directory.path().join("alice").join(folder).join("cur/1.host:2,"), &message(29, 200), 29);
    }
    let ledger = World::inline().push(source::Maildir::open(directory.path()).unwrap());
    assert!(!ledger.is_complete() && ledger.messages.stored == 0, "{ledger:?}");
    assert_eq!(ledger.incomplete.len(), 1, "it is said which mailbox was refused");
}

#[test]
fn pitfall_30_mbox_files_of_every_variant_come_back_octet_for_octet() {
    let line = "From a@example.org Mon Jan  1 00:00:00 2024\n";
    let plain = format!("{line}Subject: 1\n\none\n\n{line}Subject: 2\n\n>From quoted\n>>From twice\n\n{line}\n");
    let length =
        format!("{line}Content-Length: 29\n\nFrom the sea we came\n\nFrom x\n\n{line}Content-Length: 999\n\nlies\n\n");
    let files: [(&str, Vec<u8>); 8] = [
        ("plain", plain.clone().into_bytes()),
        ("crlf", with_line_ends(plain.as_bytes(), b"\r\n")),
        ("cr", with_line_ends(plain.as_bytes(), b"\r")),
        ("content-length", length.into_bytes()),
        ("no blank line", format!("{line}Subject: 1\n\none\n{line}Subject: 2\n\ntwo").into_bytes()),
        ("thunderbird", format!("{line}X-Mozilla-Status: 0009\n\ndeleted but there\n\n").into_bytes()),
        ("cut", plain.as_bytes()[..plain.len() - 60].to_vec()),
        ("empty", Vec::new()),
    ];
    let directory = tempfile::tempdir().unwrap();
    for (number, (name, octets)) in files.iter().enumerate() {
        write(&directory.path().join("list").join(name), octets, number as u64);
    }
    let sink = |to: &Path| Arc::new(sink::Mbox::new(to)) as Arc<dyn sink::Sink>;
    let ledger = tree_journey(directory.path(), source::Mbox::open(directory.path()).unwrap(), sink);
    assert!(ledger.messages.stored == 16, "{ledger:?}");
    write(&directory.path().join("list/no mbox"), b"prose\n\nFrom here on it is prose\n", 9);
    let again = World::inline().push(source::Mbox::open(directory.path()).unwrap());
    assert_eq!((again.messages.stored, again.messages.excluded), (ledger.messages.stored, 1));
}

// Storage.

#[test]
fn pitfall_43_attachments_are_decoded_before_they_are_compressed() {
    let (world, ledger) = journey(&[with_attachment(43, 43, 600_000)]);
    assert!(
        ledger.bytes.compressed < 606_000,
        "what does not compress costs its own octets, not those of its base64: {ledger:?}"
    );
    let text: Vec<u8> = (0..40_000_u32).flat_map(|line| format!("{}, line\n", line % 97).into_bytes()).collect();
    let octets = [b"Content-Type: text/csv\nContent-Transfer-Encoding: base64\n\n", &base64(&text)[..]].concat();
    let (_, ledger) = journey(&[octets]);
    assert!(ledger.bytes.compressed * 20 < text.len() as u64, "{ledger:?}");
    drop(world);
}

#[test]
fn pitfall_44_no_commit_is_begun_before_its_packs_are_durable() {
    let objects = MemoryStore::new();
    let (store, gate) = StalledStore::new(Arc::new(objects.clone()));
    let source = Memory::new(SourceId::new([1; 16]));
    source.put(&alice(), "INBOX", "one", with_attachment(44, 44, 90_000));
    let world = World::inline();
    let repository = Repository::open_or_create(Arc::new(objects.clone()), Protection::None);
    block_on(repository).unwrap();
    let engine =
        common::engine(Arc::new(store), &world.clock, Resources::inline(64 << 20).unwrap(), Settings::default(), 3);
    let mut transfer = common::Driven::new(async move { engine.transfer(source).finish().await });
    // Write after write is let through. Whenever a commit stands there, all packs it could name do.
    let mut commits = 0;
    loop {
        let is_done = transfer.poll().is_some();
        let keys: Vec<_> = block_on(objects.list("").try_collect::<Vec<_>>()).unwrap();
        let count = |prefix: &str| keys.iter().filter(|object| object.key.starts_with(prefix)).count();
        if count("mailboxes/") > commits {
            commits = count("mailboxes/");
            let check = common::engine(
                Arc::new(objects.clone()),
                &world.clock,
                Resources::inline(64 << 20).unwrap(),
                Settings::default(),
                4,
            );
            let check = block_on(check.check().read_data(true).finish()).unwrap();
            assert!(check.is_sound() && check.rebuilt == 1, "a commit names what is not there: {check:?}");
        }
        if is_done {
            break;
        }
        gate.release(1);
    }
    assert_eq!(commits, 1);
}

#[test]
fn pitfall_46_no_counters_decide_what_is_there() {
    let source = Memory::new(SourceId::new([1; 16]));
    (0..6).for_each(|number| {
        source.put(&alice(), "INBOX", number.to_string(), with_attachment(number, number % 2, 50_000))
    });
    let world = World::inline();
    world.push(source.clone());
    let expected = restored(&world);
    // Everything that only helps to find things is thrown away: nothing that is kept depends on it.
    block_on(async {
        for prefix in ["index/", "runs/"] {
            let derived: Vec<_> = world.memory.list(prefix).try_collect().await.unwrap();
            assert!(!derived.is_empty());
            for object in derived {
                world.memory.delete(&object.key).await.unwrap();
            }
        }
    });
    let fresh = world.another(Resources::inline(64 << 20).unwrap(), Settings::default(), 46);
    assert_eq!(common::push(&fresh, source).messages.unchanged, 6);
    assert!(restored(&world) == expected);
}

#[test]
fn pitfall_48_rot_is_noticed_on_every_read_and_never_delivered() {
    let (world, _) = journey(&[with_attachment(48, 48, 90_000), message(48, 500)]);
    let pack = block_on(world.memory.list("packs/").try_collect::<Vec<_>>()).unwrap().remove(0).key;
    let sound = block_on(world.memory.read(&pack, None)).unwrap();
    let expected = restored(&world);
    for at in (8..sound.len()).step_by(sound.len() / 64) {
        let mut rotten = sound.to_vec();
        rotten[at] ^= 4;
        block_on(world.memory.put(&pack, rotten.into())).unwrap();
        let engine = world.another(Resources::inline(64 << 20).unwrap(), Settings::default(), 48);
        let (delivered, report) = common::delivered(&engine);
        assert!(delivered.values().all(|octets| expected.contains(octets)), "rot at {at} was delivered");
        assert_eq!(delivered.len() as u64 + report.failed, 2, "rot at {at}: {report:?}");
        let read = block_on(async { engine.read(&alice(), 0).await?.try_collect::<Vec<_>>().await });
        assert!(read.map_or_else(|error| error.kind() == ErrorKind::Damaged, |octets| octets.concat() == expected[0]));
    }
}

// Reports.

#[test]
fn pitfall_49_what_a_run_says_agrees_with_what_is_counted_otherwise() {
    let directory = tempfile::tempdir().unwrap();
    for number in 0..37_u64 {
        write(
            &directory.path().join(format!("box{}/f{}/{number}.eml", number % 3, number % 2)),
            &message(number, 400),
            number,
        );
    }
    let files = tree(directory.path()).values().filter(|node| node.is_some()).count() as u64;
    let world = World::inline();
    let source = || source::Eml::open(directory.path()).unwrap();
    let ledger = world.push(source());
    let compared = block_on(world.engine.compare(source()).finish()).unwrap();
    let check = block_on(world.engine.check().finish()).unwrap();
    let statistics = block_on(world.engine.statistics()).unwrap();
    let counts = [
        ledger.messages.seen,
        ledger.messages.stored,
        compared.messages,
        compared.same,
        check.messages,
        statistics.messages,
    ];
    assert_eq!(counts, [files; 6]);
    let octets: u64 = tree(directory.path()).values().flatten().map(|(octets, _)| octets.len() as u64).sum();
    assert_eq!((ledger.bytes.read, compared.bytes), (octets, octets));
    let recorded = block_on(world.engine.runs()).unwrap().remove(0);
    let account = (recorded.ledger.messages, recorded.ledger.changes, recorded.ledger.bytes.read);
    assert_eq!(account, (ledger.messages, ledger.changes, ledger.bytes.read), "the repository keeps the same account");
}

#[test]
fn pitfall_50_reports_and_errors_say_nothing_of_what_is_in_a_message() {
    const MARK: &str = "Zyzzyva-7141";
    let octets = multipart(
        "b",
        &[
            format!("Content-Type: text/plain; name=\"{MARK}.txt\"\n\n{MARK}").as_bytes(),
            &[
                format!("Content-Type: image/png; name={MARK}\nContent-Transfer-Encoding: base64\n\n").as_bytes(),
                &base64(&noise(50, 50_000)),
            ]
            .concat(),
        ],
    );
    let octets =
        [format!("Subject: {MARK}\nFrom: {MARK}@example.org\nMessage-ID: <{MARK}>\n").as_bytes(), &octets[..]].concat();
    let memory = Memory::new(SourceId::new([1; 16]));
    memory.put(&alice(), "INBOX", "good", octets.clone());
    memory.put(&alice(), "INBOX", "bad", octets);
    let source = testing::source::Scripted::new(memory);
    source.message(&alice(), "INBOX", Identity::Named("bad".into()), testing::source::Fault::ReadFailed { at: 400 });
    let world = World::inline();
    let report = block_on(world.engine.transfer(source.clone()).finish()).unwrap();
    assert_eq!(report.ledger.messages.quarantined, 1);
    let compared = block_on(world.engine.compare(source).finish()).unwrap();
    let pack = block_on(world.memory.list("packs/").try_collect::<Vec<_>>()).unwrap().remove(0).key;
    block_on(world.memory.put(&pack, Bytes::from_static(b"rot").into())).unwrap();
    let check = block_on(world.engine.check().read_data(true).finish()).unwrap();
    let restored = block_on(world.engine.restore(testing::sink::Memory::new(Kind::Eml)).finish()).unwrap();
    assert!(!check.is_sound() && !restored.is_complete() && !compared.is_same());
    let said = format!("{report:?}{compared:?}{check:?}{restored:?}{:?}", world.engine);
    assert!(!said.contains(MARK), "{said}");
}
