//! The mail that is moved: what messages are, and sources that give few of them at a time.

use crate::common::Drip;
use crate::coverage::Event;
use crate::random::Random;
use bytes::Bytes;
use mailrail::ErrorKind;
use mailrail::message::{Envelope, Evidence, Flags, Identity, InternalDate, MailboxName, SystemFlags};
use mailrail::source::{Source, SourceId};
use mailrail::testing::source::{Fault, Scripted};
use std::sync::{Arc, LazyLock};

pub const MAILBOXES: [&str; 3] = ["anna", "bert", "carla"];
pub const FOLDERS: [&str; 3] = ["INBOX", "Sent", "Archive"];

/// Lengths of attachments, in octets: four too short for the lasting index, four of which each fills a pack.
const ATTACHMENTS: [usize; 8] = [4_200, 4_500, 5_000, 6_000, 16_500, 16_600, 17_000, 18_000];

/// Attachments in base64, the same for all seeds. Messages share them.
static CONTENTS: LazyLock<Vec<Vec<u8>>> = LazyLock::new(|| {
    let number = |number: usize| crate::common::base64(&crate::common::noise(number as u64, ATTACHMENTS[number % 8]));
    (0..32).map(number).collect()
});

/// A message at one time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Version {
    pub folder: &'static str,
    pub flags: u8,
    pub octets: Bytes,
    /// Tells its octets from those of other versions.
    pub content: u64,
}

impl Version {
    pub fn new(number: u64, random: &mut Random) -> Self {
        let mut version = Self { folder: FOLDERS[0], flags: 0, octets: Bytes::new(), content: 0 };
        version.folder = FOLDERS[random.below(2) as usize];
        version.flags = random.below(4) as u8;
        version.rewrite(number, random);
        version
    }

    /// A message of a few words.
    pub fn short(number: u64, random: &mut Random) -> Self {
        let content = random.next();
        let octets = format!("From: a@example.org\nSubject: {number} {content:x}\n\nHello.\n").into();
        Self { folder: FOLDERS[0], flags: 0, octets, content }
    }

    /// Gives it other octets.
    pub fn rewrite(&mut self, number: u64, random: &mut Random) {
        self.content = random.next();
        let mut octets = format!("From: a@example.org\nSubject: {number} {:x}\n", self.content);
        // Some have long attachments whatever is drawn, so that there are two packs.
        let is_long = number.is_multiple_of(5);
        if is_long || random.per_mille(450) {
            octets
                .push_str("MIME-Version: 1.0\nContent-Type: multipart/mixed; boundary=\"=b\"\n\n--=b\n\nSee there.\n");
            octets.push_str("--=b\nContent-Type: application/pdf\nContent-Transfer-Encoding: base64\n\n");
            let mut octets = octets.into_bytes();
            let content = random.below(CONTENTS.len() as u64) as usize & !4 | if is_long { 4 } else { 0 };
            octets.extend_from_slice(&CONTENTS[content]);
            octets.extend_from_slice(b"--=b--\n");
            self.octets = octets.into();
        } else {
            octets.push('\n');
            for line in 0..random.below(30) {
                octets.push_str(&format!("Line {line} of what is written here.\n"));
            }
            self.octets = octets.into();
        }
    }

    pub fn envelope(&self, name: &str) -> Envelope {
        let mut envelope = Envelope::new(self.folder, Identity::Named(Bytes::copy_from_slice(name.as_bytes())));
        envelope.evidence = Evidence(Bytes::copy_from_slice(&self.content.to_le_bytes()));
        envelope.flags = flags(self.flags);
        envelope.internal_date = Some(date(name));
        envelope
    }

    /// Whether a message that was delivered is this version.
    pub fn is(&self, envelope: &Envelope, octets: &[u8]) -> bool {
        self.has_octets(octets) && envelope.folder == self.folder && envelope.flags == flags(self.flags)
    }

    pub fn has_octets(&self, octets: &[u8]) -> bool {
        self.octets == octets
    }
}

pub fn flags(bits: u8) -> Flags {
    let keywords = (bits & 2 != 0).then(|| "work".to_owned());
    Flags::new(SystemFlags::from_bits(bits & 1 | (bits & 4) << 1), keywords)
}

pub fn date(name: &str) -> InternalDate {
    InternalDate { seconds: 1_600_000_000 + name.len() as i64 * 86_400, nanos: 0, zone_minutes: Some(60) }
}

pub fn mailbox(number: usize) -> MailboxName {
    MailboxName::new(MAILBOXES[number])
}

pub fn source_id(number: usize) -> SourceId {
    SourceId::new([number as u8 + 1; 16])
}

/// Mail that comes a few messages at a time, so that few messages make several commits.
pub fn dripping(source: impl Source, entries: u64) -> Arc<dyn Source> {
    Arc::new(Drip(Arc::new(source), entries as usize))
}

/// What goes wrong with a message of so many octets when it is read, as the seed decides.
pub fn fault(octets: u64, random: &mut Random) -> (Fault, Event) {
    let at = random.below(octets);
    match random.below(5) {
        0 => (Fault::ReadFailed { at }, Event::ReadFailed),
        1 => (Fault::Denied { at: if random.per_mille(500) { 0 } else { at } }, Event::Denied),
        2 => (Fault::Vanished, Event::Vanished),
        3 => (Fault::Changed, Event::ReadChanged),
        _ => (Fault::Short { at }, Event::ReadShort),
    }
}

/// Lets something go wrong with the listing of mailboxes, as the seed decides.
pub fn fail_listing(source: &Scripted, mailboxes: usize, random: &mut Random) {
    let name = mailbox(random.below(mailboxes as u64) as usize);
    match random.below(8) {
        0 => source.listing(ErrorKind::Unavailable),
        1..3 => source.mailbox(&name, ErrorKind::Denied),
        3..5 => source.entry(&name, "locked", ErrorKind::Denied),
        _ => source.enumeration(&name, random.below(12) as usize),
    }
}
