//! A synthetic organisation: mailboxes full of mail that has the statistics of real corporate mail, made from a seed.
//!
//! The same settings give the same octets on every platform, from a few MB to many GB. Every message is made from its number alone, and every
//! content from its id: memory does not grow with the organisation, and any part of it can be made again at any time.
//!
//! An organisation is a [`Source`] itself, and can be written to disk for other tools with [`Organisation::write_maildirs`] and
//! [`Organisation::write_eml`].

mod body;
mod compose;
mod content;
mod disk;
mod headers;
mod plan;
mod random;
mod table;
#[cfg(test)]
mod tests;
mod words;

pub use content::{Content, ContentId};

use crate::error::Result;
use crate::message::{Envelope, Evidence, Flags, Folder, FolderPath, Identity, InternalDate, MailboxName, SystemFlags};
use crate::source::{self, Batch, Body, Entry, Kind, Known, MailboxIter, MailboxSource, Source, SourceId};
use body::{Opener, Reader, Segment};
use bytes::Bytes;
use compose::Composer;
use headers::Subject;
use plan::{FOLDERS, Layout, Planner, Window};
use random::{Random, mix};
use std::sync::Arc;
use table::{CLASSES, PARTS_PER_HUNDRED, WINDOW};

/// A synthetic organisation. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Organisation(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    seed: u64,
    id: SourceId,
    planner: Planner,
    layout: Layout,
}

/// The settings of an organisation.
#[derive(Clone, Debug)]
#[must_use = "an organisation is made by build()"]
pub struct Builder {
    seed: u64,
    mailboxes: u64,
    bytes: u64,
    part_bytes_max: Option<u64>,
}

/// Octets that a message has besides its parts, on average: headers, delimiters.
const MESSAGE_OVERHEAD: f64 = 6_700.0;
/// Organisations of fewer windows (about 10 GB) are planned once to find how many messages they need.
const WINDOWS_WEIGHED: u64 = 1 << 12;
/// The largest part there is, in octets.
const PART_MAX: u64 = 30 << 20;
/// When the oldest mail was sent: 2023-01-02, in seconds since 1970.
const EPOCH: i64 = 1_672_617_600;
/// The time over which the mail of a folder is spread: two years, in seconds.
const SPAN: u64 = 63_072_000;

impl Builder {
    /// How many mailboxes (20 if not set, and one at least). Some have up to eight times as much mail as others.
    pub fn mailboxes(mut self, count: u64) -> Self {
        self.mailboxes = count.max(1);
        self
    }

    /// About how many octets all messages have together (100,000,000 if not set).
    pub fn bytes(mut self, octets: u64) -> Self {
        self.bytes = octets;
        self
    }

    /// The largest part, decoded, in octets. If not set, a fiftieth of the whole, but at least 64 KiB and at most 30 MiB: a
    /// small organisation would else be ruled by its one largest attachment.
    pub fn part_bytes_max(mut self, octets: u64) -> Self {
        self.part_bytes_max = Some(octets);
        self
    }

    /// The organisation.
    #[must_use]
    pub fn build(self) -> Organisation {
        let cap =
            self.part_bytes_max.unwrap_or_else(|| (self.bytes / 50).max(64 << 10)).clamp(1 << 10, PART_MAX) as u32;
        let expected = (self.bytes as f64 / mean_message(cap)) as u64;
        let layout = Layout::new(self.seed, self.mailboxes, expected.max(1));
        let planner = Planner { seed: self.seed, cap, rates: table::rates(cap, layout.shared()) };
        let messages = match expected / WINDOW {
            0..WINDOWS_WEIGHED => weighed(&planner, self.bytes, 2 * expected + WINDOW),
            _ => expected,
        };
        let layout = Layout::new(self.seed, self.mailboxes, messages.max(1));
        let place: Vec<u8> = [self.seed, self.mailboxes, messages, u64::from(cap)]
            .iter()
            .flat_map(|number| number.to_le_bytes())
            .collect();
        Organisation(Arc::new(Inner { seed: self.seed, id: SourceId::of("organisation", &place), planner, layout }))
    }
}

/// How many messages, `most` at most, have `bytes` octets: by their plans, because a few large parts decide in a small organisation.
fn weighed(planner: &Planner, bytes: u64, most: u64) -> u64 {
    let mut octets = 0.0;
    let mut window = planner.window(0);
    for number in 0..most {
        if number % WINDOW == 0 {
            window = planner.window(number / WINDOW);
        }
        let parts = window.message(number).parts.iter();
        octets +=
            parts.map(|id| planner.content(*id).len() as f64 * growth(id.class())).sum::<f64>() + MESSAGE_OVERHEAD;
        if octets >= bytes as f64 {
            return number + 1;
        }
    }
    most
}

/// How much longer a part is in a message: most larger ones are in base64, most smaller ones are texts.
fn growth(class: usize) -> f64 {
    if class >= 8 { 1.352 } else { 1.15 }
}

/// The mean length of a message, in octets.
fn mean_message(cap: u32) -> f64 {
    let (mut weights, mut octets) = (0.0, 0.0);
    for (number, class) in CLASSES.iter().enumerate().filter(|(_, class)| class.low < cap) {
        weights += f64::from(class.weight);
        octets += f64::from(class.weight) * class.mean(cap) * growth(number);
    }
    octets / weights * PARTS_PER_HUNDRED as f64 / 100.0 + MESSAGE_OVERHEAD
}

impl Organisation {
    /// The settings of an organisation made from `seed`.
    #[allow(clippy::new_ret_no_self, reason = "an organisation has settings, and this is where they begin")]
    pub fn new(seed: u64) -> Builder {
        Builder { seed, mailboxes: 20, bytes: 100_000_000, part_bytes_max: None }
    }

    /// How many messages there are.
    #[must_use]
    pub fn message_count(&self) -> u64 {
        self.0.layout.messages()
    }

    /// The mailboxes, in order.
    pub fn mailboxes(&self) -> impl Iterator<Item = Mailbox> + Send + use<> {
        let inner = Arc::clone(&self.0);
        (0..inner.layout.mailboxes()).map(move |number| Mailbox { inner: Arc::clone(&inner), number })
    }

    /// All messages, mailbox by mailbox and folder by folder.
    pub fn messages(&self) -> impl Iterator<Item = Message> + Send + use<> {
        self.mailboxes().flat_map(|mailbox| mailbox.messages())
    }
}

/// One mailbox of an organisation.
#[derive(Clone, Debug)]
pub struct Mailbox {
    inner: Arc<Inner>,
    number: u64,
}

impl Mailbox {
    /// Its name: unique in the organisation, and a legal name of a directory.
    #[must_use]
    pub fn name(&self) -> MailboxName {
        MailboxName::new(self.owner())
    }

    /// Its folders, in the order of their messages. Some may have none. Raw names are those of Maildir++.
    #[must_use]
    pub fn folders(&self) -> Vec<FolderPath> {
        (0..FOLDERS.len()).map(folder_path).collect()
    }

    /// How many messages are in it.
    #[must_use]
    pub fn message_count(&self) -> u64 {
        let range = self.inner.layout.range(self.number);
        range.end - range.start
    }

    /// Its messages, folder by folder, made one at a time.
    pub fn messages(&self) -> impl Iterator<Item = Message> + Send + use<> {
        let (mailbox, mut last) = (self.clone(), None);
        (0..self.message_count()).map(move |index| mailbox.message(index, &mut last))
    }

    fn owner(&self) -> String {
        let mut random = Random::new(mix(self.inner.seed ^ 0x6e, self.number));
        format!("{}.{}{:03}", words::word(&mut random), words::word(&mut random), self.number)
    }

    /// Where the plan of message `index` is: the mailbox that it comes from, its number, its window.
    /// `last` keeps the window of this mailbox that was planned last.
    fn locate(&self, index: u64, last: &mut Option<(u64, Arc<Window>)>) -> (u64, u64, Arc<Window>) {
        let inner = &*self.inner;
        let origin = inner.layout.origin(self.number, index);
        let mailbox = origin.unwrap_or(self.number);
        let number = inner.layout.range(mailbox).start + index;
        if let (None, Some((known, window))) = (origin, &last)
            && *known == number / WINDOW
        {
            return (mailbox, number, Arc::clone(window));
        }
        let window = Arc::new(inner.planner.window(number / WINDOW));
        if origin.is_none() {
            *last = Some((number / WINDOW, Arc::clone(&window)));
        }
        (mailbox, number, window)
    }

    /// Makes message `index`; `last` is for [`locate`](Self::locate).
    fn message(&self, index: u64, last: &mut Option<(u64, Arc<Window>)>) -> Message {
        let inner = &*self.inner;
        let number = inner.layout.range(self.number).start + index;
        // A reply to all has the body, the date and the sender's headers of the message in the mailbox that it comes from.
        let (origin, shared, window) = self.locate(index, last);
        let first = Self { inner: Arc::clone(&self.inner), number: origin };
        let (_, place, count) = plan::folder(index, first.message_count());
        let own = mix(inner.seed ^ 0x68, number);
        let key = mix(inner.seed ^ 0x6b, shared);
        let sent = EPOCH + (SPAN * place / count.max(1)) as i64 + (key % (SPAN / count.max(1))) as i64;
        let planned = window.message(shared);
        let subject = Subject {
            key,
            own,
            thread: mix(mix(inner.seed ^ 0x74, shared / WINDOW), planned.thread),
            earlier: window
                .earlier(shared)
                .map(|position| mix(inner.seed ^ 0x6b, shared / WINDOW * WINDOW + position))
                .collect(),
            sent,
            owner: self.owner(),
            is_list: planned.thread == 1,
        };
        let contents: Vec<Content> = planned.parts.iter().map(|id| inner.planner.content(*id)).collect();
        let (segments, parts) = self.compose(&subject, contents);
        let (folder, _, _) = plan::folder(index, self.message_count());
        Message { number, own, sent, folder, mailbox: self.name(), segments, parts }
    }

    fn compose(&self, subject: &Subject, contents: Vec<Content>) -> (Vec<Segment>, Vec<Content>) {
        // One mailbox in ten has CRLF throughout, and a few messages in the others; some have LF only in what the last server put on top.
        let is_crlf = mix(self.inner.seed ^ 0x6c, self.number) % 10 == 3 || subject.own.is_multiple_of(50);
        let is_mixed = !is_crlf && subject.own % 50 == 1;
        let newline: &[u8] = if is_crlf || is_mixed { b"\r\n" } else { b"\n" };
        let mut composer = Composer::new(subject.key, newline);
        if is_mixed {
            composer.set_newline(b"\n");
        }
        headers::trace(subject, &mut composer);
        composer.set_newline(newline);
        headers::rest(subject, header_target(subject.own), &mut composer);
        composer.body(contents)
    }
}

/// How long headers are to be: 2 to 12 KiB, log-uniform.
fn header_target(own: u64) -> usize {
    let draw = mix(own, 7);
    let octave = 2048 << (draw % 5 / 2);
    (octave + (draw >> 32) % octave).min(12 << 10) as usize
}

fn folder_path(number: usize) -> FolderPath {
    let (names, raw, _) = FOLDERS[number];
    FolderPath { names: names.iter().map(ToString::to_string).collect(), raw: Bytes::from_static(raw.as_bytes()) }
}

/// One message of an organisation. Holds its headers and texts; attachments are made when its octets are asked for.
#[derive(Clone, Debug)]
pub struct Message {
    number: u64,
    own: u64,
    sent: i64,
    folder: usize,
    mailbox: MailboxName,
    segments: Vec<Segment>,
    parts: Vec<Content>,
}

impl Message {
    /// The mailbox that it is in.
    #[must_use]
    pub fn mailbox(&self) -> &MailboxName {
        &self.mailbox
    }

    /// The folder that it is in.
    #[must_use]
    pub fn folder(&self) -> FolderPath {
        folder_path(self.folder)
    }

    /// Its flags.
    #[must_use]
    pub fn flags(&self) -> SystemFlags {
        const FLAGS: [(u64, SystemFlags); 3] =
            [(30, SystemFlags::ANSWERED), (6, SystemFlags::FLAGGED), (4, SystemFlags::PASSED)];
        let mut random = Random::new(mix(self.own, 8));
        if !random.percent(85) {
            return SystemFlags::default();
        }
        let draft =
            if FOLDERS[self.folder].1.starts_with(".Entw") { SystemFlags::DRAFT } else { SystemFlags::default() };
        FLAGS.iter().fold(SystemFlags::SEEN.with(draft), |flags, (percent, flag)| {
            if random.percent(*percent) { flags.with(*flag) } else { flags }
        })
    }

    /// When it arrived: a few seconds after it was sent.
    #[must_use]
    pub fn internal_date(&self) -> InternalDate {
        InternalDate { seconds: self.sent + 10 + (self.own % 50) as i64, nanos: 0, zone_minutes: None }
    }

    /// A name like Maildir's, without flags: unique in the organisation.
    #[must_use]
    pub fn name(&self) -> String {
        let micros = self.own % 1_000_000;
        format!("{}.M{micros:06}P{}.mx1", self.internal_date().seconds, self.number)
    }

    /// Where a Maildir keeps it: `cur:2,` and its flags, or `new`.
    #[must_use]
    pub fn place(&self) -> String {
        const LETTERS: [(char, SystemFlags); 5] = [
            ('D', SystemFlags::DRAFT),
            ('F', SystemFlags::FLAGGED),
            ('P', SystemFlags::PASSED),
            ('R', SystemFlags::ANSWERED),
            ('S', SystemFlags::SEEN),
        ];
        let flags = self.flags();
        if flags == SystemFlags::default() {
            return "new".into();
        }
        let letters = LETTERS.iter().filter(|(_, flag)| flags.contains(*flag)).map(|(letter, _)| *letter);
        "cur:2,".chars().chain(letters).collect()
    }

    /// Its length in octets.
    #[must_use]
    pub fn length(&self) -> u64 {
        self.segments.iter().map(Segment::len).sum()
    }

    /// The contents of its leaf parts, in the order in which they are in it.
    #[must_use]
    pub fn parts(&self) -> &[Content] {
        &self.parts
    }

    /// Its octets.
    #[must_use]
    pub fn octets(&self) -> Vec<u8> {
        let mut octets = Vec::with_capacity(self.length() as usize);
        self.for_each_block(|block| octets.extend_from_slice(block));
        octets
    }

    /// Calls `take` with its octets, piece by piece; no piece is much longer than 100 KiB.
    pub fn for_each_block(&self, mut take: impl FnMut(&[u8])) {
        let mut reader = Reader::new(self.segments.clone());
        while let Some(block) = reader.next() {
            take(block);
        }
    }

    /// The message as a source gives it.
    fn into_source(self) -> source::Message {
        let mut envelope = Envelope::new(FOLDERS[self.folder].1, Identity::Named(self.name().into()));
        envelope.evidence = Evidence(Bytes::copy_from_slice(&self.own.to_le_bytes()));
        envelope.flags = Flags::from(self.flags());
        envelope.internal_date = Some(self.internal_date());
        envelope.place = self.place().into();
        source::Message { envelope, body: Body::Open { length: self.length(), open: Box::new(Opener(self.segments)) } }
    }
}

/// Kind [`Maildir`](Kind::Maildir): names, places and folders are those that [`write_maildirs`](Organisation::write_maildirs) writes.
impl Source for Organisation {
    fn id(&self) -> SourceId {
        self.0.id
    }

    fn kind(&self) -> Kind {
        Kind::Maildir
    }

    fn mailboxes(&self) -> Result<MailboxIter> {
        Ok(Box::new(Self::mailboxes(self).map(|mailbox| {
            let reading = Reading { name: mailbox.name(), mailbox, next: 0, folders: 0, window: None };
            Ok(Box::new(reading) as Box<dyn MailboxSource>)
        })))
    }
}

/// A mailbox being enumerated.
struct Reading {
    mailbox: Mailbox,
    name: MailboxName,
    next: u64,
    /// Folders sent.
    folders: usize,
    window: Option<(u64, Arc<Window>)>,
}

impl MailboxSource for Reading {
    fn name(&self) -> &MailboxName {
        &self.name
    }

    fn fill(&mut self, _known: &mut dyn Known, batch: &mut Batch) -> Result<bool> {
        while !batch.is_full() {
            if self.folders < FOLDERS.len() {
                batch.push(Entry::Folder(Folder::new(folder_path(self.folders))));
                self.folders += 1;
            } else if self.next < self.mailbox.message_count() {
                let message = self.mailbox.message(self.next, &mut self.window);
                batch.push(Entry::Message(message.into_source()));
                self.next += 1;
            } else {
                return Ok(false);
            }
        }
        Ok(true)
    }
}
