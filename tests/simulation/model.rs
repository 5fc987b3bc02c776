//! What must be true: which messages were acknowledged, and what of them a restore has to give.
//!
//! The source goes through generations. Of each message the model knows every version, and how far it was acknowledged:
//! - a message of which `Stored` was told is restored as it was in that generation, or in a later one;
//! - one of which `Unchanged` was told has the octets that it had then, or later ones;
//! - after a run that was complete nothing is older than the generation that it moved.
//!
//! A commit of an older generation that comes late may take back flags and places, until the next complete run; never octets.
//!
//! When a mailbox is forgotten, what was acknowledged of it until then may be there or not; what is acknowledged afterwards is there.

use crate::mail::{self, Version};
use crate::random::Random;
use mailrail::message::{Envelope, Identity, MailboxName};
use mailrail::source::{Kind, Memory};
use mailrail::testing::sink;
use std::collections::{BTreeMap, BTreeSet};

/// What names a message: mailbox, and a name that no other message of it has or ever had.
pub type Key = (usize, String);

/// The source whose messages are enumerated, and the one whose messages are appended.
pub const PULLED: usize = 0;
pub const APPENDED: usize = 1;

/// What a process was told of a message.
#[derive(Clone, Debug)]
pub enum Told {
    Stored(Key),
    Unchanged(Key),
    Quarantined(Key),
}

impl Told {
    pub fn key(&self) -> &Key {
        let (Self::Stored(key) | Self::Unchanged(key) | Self::Quarantined(key)) = self;
        key
    }
}

#[derive(Clone, Debug, Default)]
pub struct Model {
    /// The source's generation.
    pub generation: usize,
    messages: BTreeMap<Key, Tracked>,
    next: u64,
}

#[derive(Clone, Debug)]
struct Tracked {
    source: usize,
    /// What it was in each generation; `None`: not there.
    versions: Vec<Option<Version>>,
    /// The whole of it is as it was in this generation, or later.
    whole: Option<usize>,
    /// Its octets are those of this generation, or later ones.
    octets: Option<usize>,
    /// Nothing of it is from before this generation.
    since: usize,
}

impl Tracked {
    fn now(&self) -> Option<&Version> {
        self.versions.last().and_then(Option::as_ref)
    }

    fn from(&self, generation: usize) -> impl Iterator<Item = Option<&Version>> {
        self.versions[generation..].iter().map(Option::as_ref)
    }

    /// Whether it may not be there.
    fn may_be_absent(&self, generation: usize) -> bool {
        self.from(generation).any(|version| version.is_none())
    }
}

impl Model {
    /// Adds a message to a source.
    pub fn add(&mut self, mailbox: usize, source: usize, random: &mut Random) {
        let version = Version::new(self.next, random);
        self.add_version(mailbox, source, version);
    }

    /// Adds a message of a few words to the enumerated source.
    pub fn add_short(&mut self, mailbox: usize, random: &mut Random) {
        let version = Version::short(self.next, random);
        self.add_version(mailbox, PULLED, version);
    }

    fn add_version(&mut self, mailbox: usize, source: usize, version: Version) {
        let key = (mailbox, format!("{}{}", ["m", "a"][source], self.next));
        self.next += 1;
        let mut versions = vec![None; self.generation];
        versions.push(Some(version));
        self.messages.insert(key, Tracked { source, versions, whole: None, octets: None, since: 0 });
    }

    /// The next generation, so far the same as this one.
    pub fn advance(&mut self) {
        self.generation += 1;
        for message in self.messages.values_mut() {
            let last = message.versions.last().cloned().flatten();
            message.versions.push(last);
        }
    }

    /// The messages of the enumerated source that are there now.
    pub fn pulled(&self) -> Vec<Key> {
        let there = self.messages.iter().filter(|(_, message)| message.source == PULLED && message.now().is_some());
        there.map(|(key, _)| key.clone()).collect()
    }

    /// Changes a message as it is now; `None` takes it away.
    pub fn change(&mut self, key: &Key, change: impl FnOnce(Version) -> Option<Version>) {
        if let Some(version) = self.messages.get_mut(key).and_then(|message| message.versions.last_mut()) {
            *version = version.take().and_then(change);
        }
    }

    pub fn version(&self, key: &Key) -> Option<&Version> {
        self.messages.get(key).and_then(Tracked::now)
    }

    /// The enumerated source as it is now.
    pub fn source(&self, mailboxes: usize) -> Memory {
        let memory = Memory::new(mail::source_id(PULLED));
        (0..mailboxes).for_each(|number| memory.mailbox(&mail::mailbox(number)));
        for ((number, name), message) in self.messages.iter().filter(|(_, message)| message.source == PULLED) {
            if let Some(version) = message.now() {
                memory.message(&mail::mailbox(*number), version.envelope(name), version.octets.clone());
            }
        }
        memory
    }

    /// The appended messages of a mailbox of which nothing was told yet.
    pub fn unacknowledged(&self, mailbox: usize) -> Vec<Key> {
        let mine =
            self.messages.iter().filter(|((number, _), message)| *number == mailbox && message.source == APPENDED);
        mine.filter(|(_, message)| message.octets.is_none()).map(|(key, _)| key.clone()).collect()
    }

    /// Whether a message was in one folder always.
    pub fn is_at_rest(&self, key: &Key) -> bool {
        let message = self.messages.get(key);
        let folders = message.iter().flat_map(|message| message.from(0).flatten()).map(|version| version.folder);
        folders.collect::<BTreeSet<_>>().len() == 1
    }

    /// A mailbox was forgotten, perhaps.
    pub fn forget(&mut self, mailbox: usize) {
        for (_, message) in self.messages.iter_mut().filter(|((number, _), _)| *number == mailbox) {
            (message.whole, message.octets) = (None, None);
        }
    }

    /// The outcome of a run that moves `generation`. `is_forgotten`: perhaps it was forgotten before it was told.
    pub fn told(&mut self, generation: usize, told: &Told, is_forgotten: bool) -> Result<(), String> {
        let key = told.key();
        let message = self.messages.get_mut(key).ok_or_else(|| format!("{key:?} was told of, and never was"))?;
        if message.versions.get(generation).is_none_or(Option::is_none) {
            return Err(format!("{key:?} was told of in generation {generation}, in which it is not there"));
        }
        if is_forgotten || matches!(told, Told::Quarantined(_)) {
            return Ok(());
        }
        message.octets = message.octets.max(Some(generation));
        if let Told::Stored(_) = told {
            message.whole = message.whole.max(Some(generation));
        }
        Ok(())
    }

    /// A run that moved all of the enumerated source in `generation` was complete. These mailboxes were forgotten while it went on.
    pub fn complete(&mut self, generation: usize, forgotten: &BTreeSet<usize>) {
        for ((mailbox, _), message) in self.messages.iter_mut().filter(|(_, message)| message.source == PULLED) {
            message.since = message.since.max(generation);
            let is_there = message.versions.get(generation).is_some_and(Option::is_some);
            if is_there && !forgotten.contains(mailbox) {
                message.whole = message.whole.max(Some(generation));
                message.octets = message.octets.max(Some(generation));
            }
        }
    }

    /// A commit of a run that moved `generation` came late.
    pub fn came_late(&mut self, generation: usize) {
        for message in self.messages.values_mut() {
            message.since = message.since.min(generation);
            if message.source == PULLED && message.whole.is_some_and(|whole| whole > generation) {
                message.whole = None;
            }
        }
    }

    /// How many rows the journals may have in the end: one for each time that a message got other octets. A commit that came late may
    /// have a message in the folder that it has left since: whether that is a copy only the next run can tell.
    pub fn rows_max(&self, with_late_commits: bool) -> u64 {
        let contents = |message: &Tracked| {
            let versions = message.from(0).flatten();
            let place = |version: &Version| if with_late_commits { version.folder } else { "" };
            versions.map(|version| (version.content, place(version))).collect::<BTreeSet<_>>().len() as u64
        };
        self.messages.values().map(contents).sum()
    }

    /// How many messages were appended, or are to be.
    pub fn appended(&self) -> usize {
        self.messages.values().filter(|message| message.source == APPENDED).count()
    }

    /// Compares what was restored with what was acknowledged. `is_whole`: nothing went wrong with the restore, so that what must be there is.
    pub fn verify(&self, restored: &Delivered, is_whole: bool) -> Result<(), String> {
        let mut found = self.sort(restored)?;
        for (key, message) in &self.messages {
            let rows = found.remove(key).unwrap_or_default();
            for (envelope, octets) in &rows {
                let is_legal = message.from(message.since).flatten().any(|version| version.is(envelope, octets));
                if !is_legal {
                    return Err(format!(
                        "{key:?} is restored as what it never was since generation {}: {}; it was {:#?}",
                        message.since,
                        describe(envelope, octets),
                        message.versions
                    ));
                }
            }
            let whole = message.whole.map(|whole| {
                let is_there = |version: &Version| rows.iter().any(|(envelope, octets)| version.is(envelope, octets));
                message.may_be_absent(whole) || message.from(whole).flatten().any(is_there)
            });
            let octets = message.octets.map(|from| {
                let is_there = |version: &Version| rows.iter().any(|(_, octets)| version.has_octets(octets));
                message.may_be_absent(from) || message.from(from).flatten().any(is_there)
            });
            if is_whole && (whole == Some(false) || octets == Some(false)) {
                let rows: Vec<_> = rows.iter().map(|(envelope, octets)| describe(envelope, octets)).collect();
                return Err(format!("{key:?} was acknowledged and is not restored: {message:?} but {rows:?}"));
            }
        }
        match found.into_keys().next() {
            Some(key) => Err(format!("{key:?} is restored, and never was")),
            None => Ok(()),
        }
    }

    /// Compares what was restored of a mailbox with what was there once: exactly the same.
    pub fn verify_past(&self, number: usize, past: &Delivered, restored: &Delivered) -> Result<bool, String> {
        let (mut past, mut found) = (self.sort(past)?, self.sort(restored)?);
        past.retain(|(mailbox, _), _| *mailbox == number);
        found.retain(|(mailbox, _), _| *mailbox == number);
        for rows in past.values_mut().chain(found.values_mut()) {
            rows.sort_by_key(|(envelope, octets)| (&envelope.folder, *octets));
        }
        Ok(past == found)
    }

    /// Compares what was restored with the sources as they are now: exactly the same.
    pub fn verify_exactly(&self, restored: &Delivered) -> Result<(), String> {
        let mut found = self.sort(restored)?;
        for (key, message) in &self.messages {
            let rows = found.remove(key).unwrap_or_default();
            let is_same = match message.now() {
                None => rows.is_empty(),
                Some(version) => rows.len() == 1 && version.is(rows[0].0, rows[0].1),
            };
            if !is_same {
                let rows: Vec<_> = rows.iter().map(|(envelope, octets)| describe(envelope, octets)).collect();
                return Err(format!(
                    "in the end {key:?} is {rows:?} instead of {:?}",
                    message.now().map(|now| now.envelope(&key.1))
                ));
            }
        }
        Ok(())
    }

    fn sort<'a>(&self, restored: &'a Delivered) -> Result<Found<'a>, String> {
        let mut found = Found::new();
        for (name, mailbox) in restored {
            let number = (0..mail::MAILBOXES.len()).find(|number| mail::mailbox(*number) == *name);
            let number = number.ok_or_else(|| format!("a mailbox {name} is restored"))?;
            for message in &mailbox.messages {
                let Identity::Named(octets) = &message.envelope.identity else {
                    return Err("a message without a name is restored".to_owned());
                };
                let key = (number, String::from_utf8_lossy(octets).into_owned());
                if message.origin != Kind::Other(["memory", "append"][usize::from(key.1.starts_with('a'))].into()) {
                    return Err(format!("{key:?} comes from a source of another kind: {:?}", message.origin));
                }
                if message.envelope.internal_date != Some(mail::date(&key.1)) {
                    return Err(format!("{key:?} has another date: {:?}", message.envelope.internal_date));
                }
                let rows: &mut Vec<_> = found.entry(key.clone()).or_default();
                let is_twice = |(envelope, octets): &(&Envelope, &[u8])| {
                    envelope.folder == message.envelope.folder && **octets == message.octets[..]
                };
                if rows.iter().any(is_twice) {
                    return Err(format!("{key:?} is restored twice"));
                }
                rows.push((&message.envelope, &message.octets[..]));
            }
        }
        Ok(found)
    }
}

/// What a restore delivered.
pub type Delivered = BTreeMap<MailboxName, sink::Mailbox>;

type Found<'a> = BTreeMap<Key, Vec<(&'a Envelope, &'a [u8])>>;

fn describe(envelope: &Envelope, octets: &[u8]) -> String {
    let folder = String::from_utf8_lossy(&envelope.folder);
    let subject: String = String::from_utf8_lossy(octets).lines().nth(1).unwrap_or_default().into();
    format!("{} octets in {folder} with {:?}, '{subject}'", octets.len(), envelope.flags)
}
