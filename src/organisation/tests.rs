use super::*;
use crate::digest::Domain;
use mail_parser::{MessageParser, PartType};
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;

/// What an organisation's plan amounts to.
#[derive(Default)]
struct Measured {
    messages: u64,
    parts: u64,
    octets: u64,
    /// Number of parts, number of octets, and distinct contents of each class of sizes.
    classes: BTreeMap<u8, (u64, u64, HashSet<u64>)>,
    unique_octets: u64,
    incompressible: u64,
    attachments: u64,
}

impl Measured {
    fn of(organisation: &Organisation) -> Self {
        let mut measured = Self::default();
        for mailbox in organisation.mailboxes() {
            let mut last = None;
            for index in 0..mailbox.message_count() {
                let (_, number, window) = mailbox.locate(index, &mut last);
                measured.messages += 1;
                for id in &window.message(number).parts {
                    measured.add(mailbox.inner.planner.content(*id));
                }
            }
        }
        measured
    }

    fn add(&mut self, content: Content) {
        let class = self.classes.entry(content.id().class).or_default();
        self.parts += 1;
        self.octets += content.len();
        class.0 += 1;
        class.1 += content.len();
        if class.2.insert(content.id().ordinal) {
            self.unique_octets += content.len();
        }
        if !content.kind().is_text() {
            self.attachments += content.len();
            self.incompressible += if content.kind().is_incompressible() { content.len() } else { 0 };
        }
    }

    /// Parts, octets and distinct contents in the classes from `low` to below `high` octets.
    fn between(&self, low: u64, high: u64) -> (f64, f64, f64) {
        let classes = self.classes.iter().filter(|(class, _)| {
            let class = CLASSES[usize::from(**class)];
            u64::from(class.low) >= low && u64::from(class.low) < high
        });
        classes.fold((0.0, 0.0, 0.0), |sum, (_, (parts, octets, distinct))| {
            (sum.0 + *parts as f64, sum.1 + *octets as f64, sum.2 + distinct.len() as f64)
        })
    }

    /// Each published figure (256stuff.com) and what was measured here.
    fn figures(&self) -> Vec<(String, f64, f64)> {
        let (parts, octets) = (self.parts as f64, self.octets as f64);
        let mut all = vec![("parts per mail".to_owned(), 1.63, parts / self.messages as f64)];
        let counts = [(1, 51.0), (4, 74.0), (16, 88.0), (64, 94.9), (256, 98.1), (1024, 99.4), (8192, 99.97)];
        for (kib, published) in counts {
            all.push((format!("% of parts below {kib} KiB"), published, self.between(0, kib * KIB).0 / parts * 100.0));
        }
        let shares = [(4, 1.8), (16, 5.0), (64, 12.0), (256, 24.0), (1024, 44.0), (4096, 74.0)];
        for (kib, published) in shares {
            all.push((
                format!("% of octets below {kib} KiB"),
                published,
                self.between(0, kib * KIB).1 / octets * 100.0,
            ));
        }
        all.push(("% of octets above 8 MiB".to_owned(), 15.0, self.between(8 * MIB, u64::MAX).1 / octets * 100.0));
        let unique = [(64, 128, 0.25), (512, KIB, 0.69), (4 * KIB, 8 * KIB, 0.84), (16 * KIB, 32 * KIB, 0.67)];
        let large = [(32 * KIB, 64 * KIB, 0.55), (64 * KIB, u64::MAX, 0.445)];
        for (low, high, published) in unique.into_iter().chain(large) {
            let (parts, _, distinct) = self.between(low, high);
            all.push((format!("unique from {low} octets"), published, distinct / parts));
        }
        let distinct = self.between(0, u64::MAX).2;
        all.push(("% of parts unique".to_owned(), 70.0, distinct / parts * 100.0));
        all.push(("% of octets unique".to_owned(), 49.0, self.unique_octets as f64 / octets * 100.0));
        let noise = self.incompressible as f64 / self.attachments as f64;
        all.push(("% of attachments incompressible".to_owned(), 25.0, noise * 100.0));
        all
    }
}

#[test]
fn a_large_organisation_holds_the_published_table_within_a_tenth_for_any_seed() {
    for seed in [1, 2, 77] {
        let organisation = Organisation::new(seed).mailboxes(100).bytes(60_000_000_000).build();
        for (figure, published, measured) in Measured::of(&organisation).figures() {
            println!("{seed}: {figure}: {published} published, {measured:.3} here");
            assert!((measured / published - 1.0).abs() < 0.1, "{figure}: {measured} for {published}, seed {seed}");
        }
    }
}

#[test]
fn a_small_organisation_holds_the_counts_of_the_table_within_a_tenth_for_any_seed() {
    for seed in [11, 12, 13, 14] {
        let measured = Measured::of(&Organisation::new(seed).mailboxes(20).bytes(200_000_000).build());
        // In octets a few large attachments decide, and the largest are left out here: that is for the large organisation.
        let counted = measured.figures().into_iter().filter(|(figure, ..)| figure.contains("parts"));
        for (figure, published, here) in counted {
            println!("{seed}: {figure}: {published} published, {here:.3} here");
            assert!((here / published - 1.0).abs() < 0.1, "{figure}: {here} for {published}, seed {seed}");
        }
        let redundant = 1.0 - measured.unique_octets as f64 / measured.octets as f64;
        println!("{seed}: redundant octets: {redundant:.3}");
        assert!((0.41..0.61).contains(&redundant), "{redundant} of the octets of parts are redundant, seed {seed}");
    }
}

/// The contents of a message's leaf parts as mail-parser sees them, first to last.
fn decoded(message: &mail_parser::Message<'_>, out: &mut Vec<(bool, Vec<u8>)>) {
    for part in &message.parts {
        match &part.body {
            PartType::Multipart(_) => {}
            PartType::Message(inner) => decoded(inner, out),
            PartType::Text(text) | PartType::Html(text) => out.push((true, text.as_bytes().to_vec())),
            PartType::Binary(octets) | PartType::InlineBinary(octets) => out.push((false, octets.to_vec())),
        }
    }
}

/// Text without carriage returns and trailing line breaks, which belong to a message rather than to a content.
fn plain(text: &[u8]) -> Vec<u8> {
    let mut text: Vec<u8> = text.iter().copied().filter(|octet| *octet != b'\r').collect();
    while text.last() == Some(&b'\n') {
        text.pop();
    }
    text
}

#[test]
fn every_message_is_what_its_plan_says_and_a_mail_parser_finds_every_content() {
    let organisation = Organisation::new(5).mailboxes(12).bytes(60_000_000).build();
    let mut distinct = HashMap::new();
    let mut digests = HashSet::new();
    for message in organisation.messages() {
        let octets = message.octets();
        assert_eq!(octets.len() as u64, message.length());
        let parsed = MessageParser::default().parse(&octets).expect("a message with headers");
        assert!(parsed.message_id().is_some() && parsed.date().is_some() && parsed.subject().is_some());
        let mut leaves = Vec::new();
        decoded(&parsed, &mut leaves);
        assert_eq!(leaves.len(), message.parts().len(), "{}", String::from_utf8_lossy(&octets));
        for ((is_text, leaf), content) in leaves.iter().zip(message.parts()) {
            let octets = content.octets();
            assert_eq!(octets.len() as u64, content.len());
            if *is_text {
                assert_eq!(String::from_utf8_lossy(&plain(leaf)), String::from_utf8_lossy(&plain(&octets)));
            } else {
                assert!(*leaf == octets, "a content of {} octets", octets.len());
            }
            let digest = *blake3::hash(&octets).as_bytes();
            digests.insert(digest);
            assert_eq!(*distinct.entry(content.id()).or_insert(digest), digest, "an id names one content");
        }
    }
    assert_eq!(distinct.len(), digests.len(), "two ids name two contents");
}

fn digest(organisation: &Organisation) -> [u8; 32] {
    let mut hasher = blake3::Hasher::new();
    for message in organisation.messages() {
        hasher.update(message.mailbox().as_bytes()).update(&message.folder().raw).update(message.name().as_bytes());
        hasher.update(message.place().as_bytes());
        message.for_each_block(|block| {
            hasher.update(block);
        });
    }
    *hasher.finalize().as_bytes()
}

#[test]
fn the_same_seed_gives_the_same_octets_and_another_seed_gives_others() {
    let make = |seed| Organisation::new(seed).mailboxes(7).bytes(8_000_000).build();
    assert_eq!(digest(&make(1)), digest(&make(1)));
    assert_ne!(digest(&make(1)), digest(&make(2)));
    assert_ne!(Source::id(&make(1)), Source::id(&make(2)));
}

#[test]
fn the_octets_of_a_seed_stay_the_same_from_one_version_and_platform_to_the_next() {
    let organisation = Organisation::new(42).mailboxes(3).bytes(2_000_000).build();
    assert_eq!(
        blake3::Hash::from(digest(&organisation)).to_hex().as_str(),
        "7dd3fdbf6065d5ee817b4d9b0a151b646f64caef95bf433e38618858325de1e6"
    );
}

#[test]
fn one_content_is_there_under_several_line_widths_and_line_endings() {
    let organisation = Organisation::new(9).mailboxes(20).bytes(60_000_000).build();
    let (mut widths, mut newlines) = (HashMap::<_, BTreeSet<_>>::new(), HashMap::<_, BTreeSet<_>>::new());
    let (mut crlf, mut all) = (0, 0);
    for message in organisation.messages() {
        all += 1;
        crlf += u64::from(message.octets().windows(2).any(|pair| pair == b"\r\n"));
        for segment in &message.segments {
            if let Segment::Base64(content, shape) = segment
                && content.len() > 4 * KIB
            {
                widths.entry(content.id()).or_default().insert(shape.width);
                newlines.entry(content.id()).or_default().insert(shape.newline);
            }
        }
    }
    assert!(widths.values().filter(|widths| widths.len() > 1).count() > 10);
    assert!(newlines.values().filter(|newlines| newlines.len() > 1).count() > 3);
    assert!(crlf * 50 > all && crlf * 2 < all, "{crlf} of {all} messages with CRLF");
}

#[test]
fn a_reply_to_all_has_the_same_body_and_other_headers_in_every_mailbox() {
    let organisation = Organisation::new(3).mailboxes(16).bytes(60_000_000).build();
    let mut copies: HashMap<Vec<u8>, Vec<MailboxName>> = HashMap::new();
    let mut whole = HashSet::new();
    for message in organisation.messages() {
        let octets: Vec<u8> = message.octets().into_iter().filter(|octet| *octet != b'\r').collect();
        assert!(whole.insert(blake3::hash(&octets)), "no message is the duplicate of another");
        let body = memchr::memmem::find(&octets, b"\nMIME-Version").expect("every message says MIME-Version");
        let id = memchr::memmem::find(&octets, b"\nMessage-ID: ").expect("every message has a Message-ID");
        let id = &octets[id..id + 40];
        copies.entry([id, &octets[body..]].concat()).or_default().push(message.mailbox().clone());
    }
    let shared = copies.values().filter(|mailboxes| mailboxes.len() > 1);
    let (bodies, messages) = shared.fold((0, 0), |(bodies, messages), copies| {
        let different: BTreeSet<_> = copies.iter().collect();
        assert_eq!(different.len(), copies.len(), "one copy in a mailbox");
        (bodies + 1, messages + copies.len() as u64)
    });
    let share = messages as f64 / organisation.message_count() as f64;
    assert!((0.03..0.07).contains(&share), "{messages} messages with {bodies} bodies: {share}");
}

#[test]
fn the_size_is_about_what_was_asked_for_and_headers_are_of_2_to_12_kib() {
    for (seed, bytes) in [(1, 3_000_000), (2, 30_000_000), (3, 150_000_000), (4, 600_000_000)] {
        let organisation = Organisation::new(seed).bytes(bytes).build();
        let length: u64 = organisation.messages().map(|message| message.length()).sum();
        assert!((length as f64 / bytes as f64 - 1.0).abs() < 0.1, "{length} octets for {bytes}");
        let largest = organisation.messages().flat_map(|message| message.parts().to_vec()).map(|part| part.len()).max();
        assert!(largest.is_some_and(|largest| largest <= (bytes / 50).max(64 * KIB)), "{largest:?} of {bytes}");
    }
    for message in Organisation::new(4).bytes(5_000_000).build().messages() {
        let octets = message.octets();
        let end =
            memchr::memmem::find(&octets, b"\n\n").into_iter().chain(memchr::memmem::find(&octets, b"\n\r\n")).min();
        assert!(end.is_some_and(|end| (1_900..14_000).contains(&end)), "{end:?}");
    }
}

/// What a source has: mailbox, folder, place, name and octets of every message.
fn enumerate(source: &dyn Source) -> Vec<(MailboxName, Bytes, Bytes, Bytes, Vec<u8>)> {
    let mut found = Vec::new();
    for mailbox in source.mailboxes().expect("mailboxes") {
        let mut mailbox = mailbox.expect("a mailbox");
        let (mut more, mut folders) = (true, HashSet::new());
        while more {
            let mut batch = Batch::new(1 << 20);
            more = mailbox.fill(&mut source::KnowNothing::new(Domain::new([0; 32])), &mut batch).expect("entries");
            for entry in batch.into_entries() {
                match entry {
                    Entry::Folder(folder) => assert!(folders.insert(folder.path.raw)),
                    Entry::Message(source::Message { envelope, body: Body::Open { length, open } }) => {
                        assert!(folders.contains(&envelope.folder), "the folder comes first");
                        let mut reader = open.open().expect("a body");
                        let (mut octets, mut buffer) = (Vec::new(), [0; 1000]);
                        while let count @ 1.. = reader.read(&mut buffer).expect("octets") {
                            octets.extend_from_slice(&buffer[..count]);
                        }
                        assert_eq!(octets.len() as u64, length);
                        let Identity::Named(name) = envelope.identity else { panic!("a name") };
                        found.push((mailbox.name().clone(), envelope.folder, envelope.place, name, octets));
                    }
                    other => panic!("{other:?}"),
                }
            }
        }
    }
    found
}

#[test]
fn the_source_and_the_maildirs_on_disk_have_the_same_messages_under_the_same_names() {
    let organisation = Organisation::new(6).mailboxes(4).bytes(4_000_000).build();
    let directory = tempfile::tempdir().expect("a directory");
    let written = organisation.write_maildirs(directory.path()).expect("maildirs");
    let found = enumerate(&organisation);
    assert_eq!(found.len() as u64, organisation.message_count());
    assert_eq!(found.iter().map(|(.., octets)| octets.len() as u64).sum::<u64>(), written);
    let names: HashSet<_> = found.iter().map(|(_, _, _, name, _)| name).collect();
    assert_eq!(names.len(), found.len(), "names are unique");
    for (mailbox, folder, place, name, octets) in &found {
        let (place, name) = (String::from_utf8_lossy(place), String::from_utf8_lossy(name));
        let (part, info) = place.split_at(3);
        let file = directory.path().join(mailbox.to_string()).join(String::from_utf8_lossy(folder).as_ref());
        let file = file.join(part).join(format!("{name}{info}"));
        assert!(std::fs::read(&file).expect("the file") == *octets, "{}", file.display());
    }
    assert_eq!(organisation.write_eml(&directory.path().join("eml")).expect("eml files"), written);
}
