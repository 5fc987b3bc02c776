//! What a mailbox's journal knows of one source's messages, in few octets a message, so that what is unchanged is told without reading it.

use super::lane::Item;
use crate::digest::{Digest, Domain, Hasher};
use crate::message::{Envelope, Evidence, Folder, Identity};
use crate::repository::MessageRow;
use crate::source::{Known, KnownContainer, Message, Reason, SourceId};
use bytes::Bytes;
use std::collections::{HashMap, VecDeque};

/// Positions of messages that follow one another differ by this much, so that others fit between when a container is rewritten.
const STRIDE: u64 = 1 << 20;

/// How many messages may wait for the end of the enumeration to see whether they were moved.
const DEFERRED_MAX: usize = 4096;

/// What the journal has of one message.
#[derive(Clone, Debug)]
pub(super) struct KnownMessage {
    pub(super) ordinal: u64,
    digest: [u8; 12],
    quarantine: Option<Reason>,
    /// The ordinals of what could be read of it in later runs, which are in quarantine.
    pub(super) attempts: Vec<u64>,
    /// Digest and reason of the last of these.
    attempt: Option<([u8; 12], Option<Reason>)>,
    /// What the source says of it beside its octets is not what the journal has.
    pub(super) differs: Differs,
}

/// How what the source says of a known message differs from what the journal has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Differs {
    /// Not at all.
    No,
    /// In its evidence only.
    InEvidence,
    /// In flags, keywords, date or place.
    InState,
}

impl KnownMessage {
    /// Whether these octets, read to the end or up to what is said, are what the journal has.
    pub(super) fn is(&self, digest: &Digest, quarantine: Option<Reason>) -> bool {
        let read = (short(digest), quarantine);
        (self.digest, self.quarantine) == read || self.attempt == Some(read)
    }

    /// Whether the journal has it in full.
    pub(super) fn is_stored(&self) -> bool {
        self.quarantine.is_none()
    }
}

/// The known messages of one mailbox that came from one source.
#[derive(Debug)]
pub(super) struct KnownMailbox {
    domain: Domain,
    /// Trust no evidence.
    reread: bool,
    named: Vec<Named>,
    folders: HashMap<Bytes, KnownFolder>,
    deferred: Vec<(Message, usize)>,
}

/// A message that has a name.
#[derive(Debug)]
struct Named {
    /// From its name alone, so that it is found in whichever folder it is.
    key: u64,
    folder: u32,
    ordinal: u64,
    /// From name and evidence.
    check: [u8; 12],
    /// From what can change without the octets changing.
    state: u64,
    digest: [u8; 12],
    quarantine: Option<Reason>,
    seen: bool,
}

/// A folder and, if it is a container, its messages in order.
#[derive(Debug, Default)]
struct KnownFolder {
    number: u32,
    evidence: Option<Evidence>,
    content: Vec<Content>,
    /// Places in `content`, sorted by check, made when first asked for.
    by_check: Vec<u32>,
    /// What was matched last is in front of this place in `content`.
    cursor: usize,
    /// The position given last, and the highest known one.
    position: u64,
    position_max: u64,
    /// The positions of messages that were asked for and not matched, and have not come yet.
    reserved: VecDeque<u64>,
}

/// A message that has no name.
#[derive(Debug)]
struct Content {
    position: u64,
    ordinal: u64,
    check: [u8; 12],
    quarantined: bool,
    seen: bool,
}

/// What is to be done about a message that the source named.
pub(super) enum Verdict {
    /// It is what the journal has.
    Unchanged,
    /// Its octets are what the journal has; its envelope is not.
    Changed { ordinal: u64, position: u64, moved: bool },
    /// It must be read.
    Read(Box<Item>),
    /// It may have been moved; the end of the enumeration will tell.
    Later,
}

impl KnownFolder {
    /// The position of the next new message: behind everything known, or between two known messages of a container.
    fn next_position(&mut self) -> u64 {
        let step = if self.position < self.position_max { 1 } else { STRIDE };
        self.position += step;
        self.position
    }

    /// The known message behind the one matched last that has this check.
    fn find(&mut self, check: &[u8; 12]) -> Option<usize> {
        if self.by_check.len() != self.content.len() {
            self.by_check = (0..self.content.len() as u32).collect();
            let content = &self.content;
            self.by_check.sort_unstable_by_key(|at| (content[*at as usize].check, *at));
        }
        let sought = (*check, self.cursor as u32);
        let found = self.by_check.partition_point(|at| (self.content[*at as usize].check, *at) < sought);
        let at = self.by_check.get(found).map(|at| *at as usize)?;
        let candidate = &self.content[at];
        let is_it = candidate.check == *check && !candidate.quarantined && candidate.position > self.position;
        is_it.then_some(at)
    }
}

impl KnownMailbox {
    /// Octets of memory for a known message, at most.
    pub(super) const MESSAGE_OCTETS: u64 = size_of::<Named>() as u64;

    pub(super) fn new(domain: Domain, reread: bool) -> Self {
        Self { domain, reread, named: Vec::new(), folders: HashMap::new(), deferred: Vec::new() }
    }

    /// Takes in a folder of the journal.
    pub(super) fn add_folder(&mut self, folder: &Folder) {
        let evidence = folder.evidence.clone();
        self.folder(&folder.path.raw).evidence = Some(evidence);
    }

    /// Takes in a living message of the journal.
    pub(super) fn add(&mut self, row: &MessageRow) {
        let (ordinal, position) = (row.ordinal, row.position);
        match &row.envelope.identity {
            Identity::Named(name) => {
                let named = Named {
                    key: self.key(name),
                    ordinal,
                    check: self.check(name, &row.envelope.evidence),
                    state: self.state(&row.envelope),
                    digest: short(&row.digest),
                    quarantine: row.quarantine,
                    seen: false,
                    folder: self.folder(&row.envelope.folder).number,
                };
                self.named.push(named);
                let folder = self.folder(&row.envelope.folder);
                folder.position_max = folder.position_max.max(position);
            }
            Identity::Content => {
                let check = self.content_check(&row.envelope, &row.digest);
                let quarantined = row.quarantine.is_some();
                let folder = self.folder(&row.envelope.folder);
                folder.position_max = folder.position_max.max(position);
                folder.content.push(Content { position, ordinal, check, quarantined, seen: false });
            }
        }
    }

    /// Takes in a living message that came from another source: only its position matters, which nothing new may have.
    pub(super) fn add_others(&mut self, row: &MessageRow) {
        let folder = self.folder(&row.envelope.folder);
        folder.position_max = folder.position_max.max(row.position);
    }

    /// Call once all is taken in.
    pub(super) fn sort(&mut self) {
        self.named.sort_unstable_by_key(|named| (named.key, named.ordinal));
        for folder in self.folders.values_mut() {
            folder.content.sort_unstable_by_key(|content| content.position);
            folder.position = folder.position_max;
            if !folder.content.is_empty() {
                folder.position = 0;
            }
        }
    }

    /// How many known messages there are.
    pub(super) fn len(&self) -> usize {
        self.named.len() + self.folders.values().map(|folder| folder.content.len()).sum::<usize>()
    }

    /// What is to be done about a message.
    pub(super) fn judge(&mut self, message: Message) -> Verdict {
        let Identity::Named(name) = &message.envelope.identity else {
            return Verdict::Read(Box::new(self.item(message, None)));
        };
        let number = self.folder(&message.envelope.folder).number;
        let candidates = self.candidates(name);
        let is_here = |at: &usize| self.named[*at].folder == number && !self.named[*at].seen;
        let check = self.check(name, &message.envelope.evidence);
        // One that is stored in full before what could be read of it later; of several (two writers saw it at two times) the one that it is now.
        let rank = |at: &usize| (self.named[*at].quarantine.is_some(), self.named[*at].check != check);
        let here = candidates.clone().filter(is_here).min_by_key(rank);
        let Some(at) = here else {
            let trusted = !self.reread && !message.envelope.evidence.is_none();
            let elsewhere = candidates.clone().find(|at| {
                let named = &self.named[*at];
                trusted && !named.seen && named.check == check && named.quarantine.is_none()
            });
            return match elsewhere {
                Some(at) if self.deferred.len() < DEFERRED_MAX => {
                    self.deferred.push((message, at));
                    Verdict::Later
                }
                _ => Verdict::Read(Box::new(self.item(message, None))),
            };
        };
        self.named[at].seen = true;
        let state = self.state(&message.envelope);
        let named = &self.named[at];
        let trusted = !self.reread && !message.envelope.evidence.is_none() && named.quarantine.is_none();
        if trusted && named.check == check {
            if named.state == state {
                return Verdict::Unchanged;
            }
            return Verdict::Changed { ordinal: named.ordinal, position: 0, moved: false };
        }
        let differs = match (named.check == check, named.state == state) {
            (_, false) => Differs::InState,
            (false, true) => Differs::InEvidence,
            (true, true) => Differs::No,
        };
        let (ordinal, digest, quarantine) = (named.ordinal, named.digest, named.quarantine);
        let mut known = KnownMessage { ordinal, digest, quarantine, attempts: Vec::new(), attempt: None, differs };
        for named in &mut self.named[candidates] {
            if named.folder == number && !named.seen && named.quarantine.is_some() {
                named.seen = true;
                known.attempts.push(named.ordinal);
                known.attempt = Some((named.digest, named.quarantine));
            }
        }
        Verdict::Read(Box::new(self.item(message, Some(known))))
    }

    /// Whether there is a message of this name in this folder, in full.
    pub(super) fn has(&self, folder: &[u8], name: &[u8]) -> bool {
        let Some(folder) = self.folders.get(folder) else { return false };
        let mut candidates = self.named[self.candidates(name)].iter();
        candidates.any(|named| named.folder == folder.number && named.quarantine.is_none())
    }

    /// At the end: what is to be done about messages that may have been moved. If not everything was seen, they may as well be copies.
    pub(super) fn judge_deferred(&mut self, is_complete: bool, mut each: impl FnMut(&Envelope, Verdict)) {
        for (message, at) in std::mem::take(&mut self.deferred) {
            let envelope = message.envelope.clone();
            if self.named[at].seen || !is_complete {
                let item = self.item(message, None);
                each(&envelope, Verdict::Read(Box::new(item)));
            } else {
                self.named[at].seen = true;
                let (ordinal, position) = (self.named[at].ordinal, self.next_position(&envelope.folder));
                each(&envelope, Verdict::Changed { ordinal, position, moved: true });
            }
        }
    }

    /// Takes all messages of a container, or its first `messages`, as seen.
    pub(super) fn keep_container(&mut self, folder: &[u8], messages: u64) {
        if let Some(folder) = self.folders.get_mut(folder) {
            let living = folder.content.iter_mut().filter(|content| !content.quarantined);
            living.take(messages as usize).for_each(|content| content.seen = true);
            folder.cursor = folder.content.len();
            folder.position = folder.position_max;
        }
    }

    /// The messages that were not seen, and how many of them are stored in full.
    pub(super) fn unseen(&self) -> (Vec<u64>, u64) {
        let named = self.named.iter().filter(|named| !named.seen);
        let named = named.map(|named| (named.ordinal, named.quarantine.is_some()));
        let content = self.folders.values().flat_map(|folder| &folder.content).filter(|content| !content.seen);
        let content = content.map(|content| (content.ordinal, content.quarantined));
        let mut stored = 0;
        let unseen = named.chain(content).map(|(ordinal, is_quarantined)| {
            stored += u64::from(!is_quarantined);
            ordinal
        });
        let mut unseen: Vec<u64> = unseen.collect();
        unseen.sort_unstable();
        (unseen, stored)
    }

    fn item(&mut self, message: Message, known: Option<KnownMessage>) -> Item {
        let reserved = self.folder(&message.envelope.folder).reserved.pop_front();
        let position = reserved.unwrap_or_else(|| self.next_position(&message.envelope.folder));
        Item { message, position, known, ticket: None }
    }

    fn next_position(&mut self, folder: &Bytes) -> u64 {
        self.folder(folder).next_position()
    }

    fn folder(&mut self, raw: &Bytes) -> &mut KnownFolder {
        let number = self.folders.len() as u32;
        self.folders.entry(raw.clone()).or_insert_with(|| KnownFolder { number, ..KnownFolder::default() })
    }

    /// The known messages of this name.
    fn candidates(&self, name: &[u8]) -> std::ops::Range<usize> {
        let key = self.key(name);
        let start = self.named.partition_point(|named| named.key < key);
        let length = self.named[start..].partition_point(|named| named.key == key);
        start..start + length
    }

    fn key(&self, name: &[u8]) -> u64 {
        first_eight(&self.domain.digest(name))
    }

    fn check(&self, name: &[u8], evidence: &Evidence) -> [u8; 12] {
        self.hash(&[name, &evidence.0])
    }

    fn content_check(&self, envelope: &Envelope, digest: &Digest) -> [u8; 12] {
        self.hash(&[digest.as_bytes(), &envelope.before, &envelope.after])
    }

    fn state(&self, envelope: &Envelope) -> u64 {
        let flags = &envelope.flags;
        let date = envelope.internal_date.map_or([0; 14], |date| {
            let mut octets = [1; 14];
            octets[..8].copy_from_slice(&date.seconds.to_le_bytes());
            octets[8..12].copy_from_slice(&date.nanos.to_le_bytes());
            octets[12..].copy_from_slice(&date.zone_minutes.unwrap_or(i16::MIN).to_le_bytes());
            octets
        });
        let mut values: Vec<&[u8]> = vec![&envelope.place, &date];
        let bits = [flags.system.bits()];
        values.push(&bits);
        values.extend(flags.keywords().iter().map(String::as_bytes));
        first_eight(&self.digest(&values))
    }

    fn hash(&self, values: &[&[u8]]) -> [u8; 12] {
        short(&self.digest(values))
    }

    /// A digest of several values, none of which runs into the next.
    fn digest(&self, values: &[&[u8]]) -> Digest {
        let mut hasher = self.domain.hasher();
        for value in values {
            hasher.update(&(value.len() as u64).to_le_bytes());
            hasher.update(value);
        }
        hasher.finish()
    }
}

impl Known for KnownMailbox {
    fn container(&self, folder: &[u8]) -> Option<KnownContainer> {
        let folder = self.folders.get(folder)?;
        let evidence = folder.evidence.clone().filter(|_| !self.reread).unwrap_or(Evidence::NONE);
        // Without evidence (its enumeration was interrupted, say) nothing but the messages themselves can be matched.
        let living = folder.content.iter().filter(|content| !content.quarantined).count() as u64;
        (folder.evidence.is_some() || living > 0).then(|| KnownContainer::new(evidence, living))
    }

    fn hasher(&self) -> Hasher {
        self.domain.hasher()
    }

    fn matches(&mut self, envelope: &Envelope, digest: &Digest) -> bool {
        let check = self.content_check(envelope, digest);
        let Some(folder) = self.folders.get_mut(&envelope.folder) else { return false };
        let Some(at) = folder.find(&check) else {
            // It comes in a batch with others, which may be matched before it is looked at: its place in the order is told here.
            let position = folder.next_position();
            folder.reserved.push_back(position);
            return false;
        };
        folder.content[at].seen = true;
        folder.position = folder.content[at].position;
        folder.cursor = at + 1;
        true
    }
}

fn short(digest: &Digest) -> [u8; 12] {
    let mut short = [0; 12];
    short.copy_from_slice(&digest.as_bytes()[..12]);
    short
}

fn first_eight(digest: &Digest) -> u64 {
    digest.as_bytes().first_chunk::<8>().map_or(0, |octets| u64::from_le_bytes(*octets))
}

/// The source whose messages may be matched: those of others are left alone.
pub(super) fn is_from(id: SourceId, sources: &[crate::repository::SourceRecord], number: u32) -> bool {
    sources.get(number as usize).is_some_and(|source| source.id == id)
}
