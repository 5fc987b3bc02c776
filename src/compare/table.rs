//! The repository's side of a mailbox, 40 octets a message, with which the source's messages are matched as they come.

use super::reading::{Place, Seen};
use crate::budget::{Budget, Permit};
use std::collections::BTreeMap;

/// Octets by which the memory for what was not found at its place grows.
const GROWTH: u64 = 1 << 20;

/// A message of one side.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Entry {
    pub(super) place: Place,
    pub(super) seen: Seen,
}

/// What a mailbox holds in the repository, sorted by places.
#[derive(Debug, Default)]
pub(super) struct Table {
    entries: Vec<Entry>,
    /// One bit for each entry: it was found in the source.
    found: Vec<u64>,
}

/// The messages of the source that were not found at their places.
#[derive(Debug)]
pub(super) struct Unfound {
    budget: Budget,
    permits: Option<Permit>,
    entries: Vec<(Entry, u32)>,
    /// What names the first of them, for people.
    names: Vec<Name>,
    names_max: usize,
    /// More than the budget has room for; they are missing, whatever else might be said of them.
    beyond: u64,
}

/// Folder and message, for people.
pub(super) type Name = (String, String);

/// Which of two sides a message is in, and what is to be said of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// In both, the octets and all.
    Same,
    /// In both under one name, with other flags, keywords or dates.
    Changed,
    /// In both under one name, with other octets.
    Different,
    /// In both, under another name or in another place.
    Moved,
    /// Only in the source.
    Missing,
}

/// No name was kept.
const UNNAMED: u32 = u32::MAX;

impl Table {
    /// Octets that a table of so many messages takes.
    pub(super) fn octets(messages: u64) -> u64 {
        messages * (size_of::<Entry>() as u64 + 1)
    }

    /// Room for so many messages.
    pub(super) fn with_capacity(messages: u64) -> Self {
        Self { entries: Vec::with_capacity(usize::try_from(messages).unwrap_or_default()), found: Vec::new() }
    }

    /// Adds a message. One without a name comes with its position in the folder, any numbers that grow.
    pub(super) fn add(&mut self, place: Place, seen: Seen) {
        self.entries.push(Entry { place, seen });
    }

    /// Sorts what was added, and numbers the messages without names: from 0 in each folder.
    pub(super) fn settle(&mut self) {
        self.entries.sort_unstable();
        let (mut folder, mut next) = (None, 0);
        for entry in &mut self.entries {
            if let Some(of) = entry.place.unnamed_in() {
                next = if folder == Some(of) { next + 1 } else { 0 };
                folder = Some(of);
                entry.place = Place::unnamed(of, next);
            }
        }
        self.found = vec![0; self.entries.len().div_ceil(64)];
    }

    /// Looks for this very message at its place, and marks it as found.
    pub(super) fn find(&mut self, entry: &Entry) -> bool {
        let from = self.entries.partition_point(|other| other < entry);
        let equal = self.entries[from..].iter().take_while(|other| *other == entry).count();
        let free = (from..from + equal).find(|at| !self.is_found(*at));
        free.inspect(|at| self.mark(*at)).is_some()
    }

    fn is_found(&self, at: usize) -> bool {
        self.found[at / 64] >> (at % 64) & 1 == 1
    }

    fn mark(&mut self, at: usize) {
        self.found[at / 64] |= 1 << (at % 64);
    }

    /// The messages that are not found, by their numbers.
    fn unfound(&self) -> impl Iterator<Item = usize> + '_ {
        (0..self.entries.len()).filter(|at| !self.is_found(*at))
    }

    /// Whether a message that was not found is at this place, with these octets.
    pub(super) fn is_left(&self, entry: &Entry) -> bool {
        let from = self.entries.partition_point(|other| other < entry);
        let equal = self.entries[from..].iter().take_while(|other| *other == entry).count();
        (from..from + equal).any(|at| !self.is_found(at))
    }

    /// How many messages were not found.
    pub(super) fn left(&self) -> u64 {
        self.unfound().count() as u64
    }

    /// How many messages without names were not found, by folder.
    pub(super) fn left_without_names(&self) -> BTreeMap<u64, u64> {
        let mut left = BTreeMap::new();
        let folders = self.unfound().filter_map(|at| self.entries[at].place.unnamed_in());
        folders.for_each(|folder| *left.entry(folder).or_default() += 1);
        left
    }

    /// Settles what was not found at its place: tells a verdict for each message of the source, and its name where one was kept.
    /// What is [left](Self::left) then is only in the repository.
    pub(super) fn resolve(&mut self, unfound: Unfound, mut tell: impl FnMut(Verdict, Option<&Name>, u64)) {
        let Unfound { mut entries, names, beyond, .. } = unfound;
        entries.sort_unstable();
        self.by_name(&mut entries, |verdict, name| tell(verdict, names.get(name as usize), 1));
        self.by_order(&mut entries, |verdict, name| tell(verdict, names.get(name as usize), 1));
        self.by_octets(&mut entries, |verdict, name| tell(verdict, names.get(name as usize), 1));
        for (_, name) in entries {
            tell(Verdict::Missing, names.get(name as usize), 1);
        }
        if beyond > 0 {
            tell(Verdict::Missing, None, beyond);
        }
    }

    /// Pairs messages of one name that are not the same.
    fn by_name(&mut self, entries: &mut Vec<(Entry, u32)>, mut tell: impl FnMut(Verdict, u32)) {
        entries.retain(|(entry, name)| {
            if entry.place.unnamed_in().is_some() {
                return true;
            }
            let from = self.entries.partition_point(|other| other.place < entry.place);
            let of_name = self.entries[from..].iter().take_while(|other| other.place == entry.place).count();
            let free = |at: &usize| !self.is_found(*at);
            let same_octets = |at: &usize| self.entries[*at].seen.digest == entry.seen.digest;
            let mut places = from..from + of_name;
            let changed = places.clone().find(|at| free(at) && same_octets(at));
            let Some(at) = changed.or_else(|| places.find(free)) else { return true };
            self.mark(at);
            tell(if changed.is_some() { Verdict::Changed } else { Verdict::Different }, *name);
            false
        });
    }

    /// Pairs messages without names that are the same but for their numbers, because some before them are not in both: from the folder's end.
    fn by_order(&mut self, entries: &mut Vec<(Entry, u32)>, mut tell: impl FnMut(Verdict, u32)) {
        let mut left: BTreeMap<u64, Vec<usize>> = BTreeMap::new();
        let unnamed = self.unfound().filter_map(|at| Some((self.entries[at].place.unnamed_in()?, at)));
        unnamed.for_each(|(folder, at)| left.entry(folder).or_default().push(at));
        let mut kept = Vec::with_capacity(entries.len());
        let mut broken = None;
        // Both sides are in the folders' order.
        for (entry, name) in entries.drain(..).rev() {
            let folder = entry.place.unnamed_in().filter(|folder| broken != Some(*folder));
            let last = folder.and_then(|folder| left.get_mut(&folder)?.pop());
            match last {
                Some(at) if self.entries[at].seen == entry.seen => {
                    self.mark(at);
                    tell(Verdict::Same, name);
                }
                _ => {
                    broken = entry.place.unnamed_in();
                    kept.push((entry, name));
                }
            }
        }
        kept.reverse();
        *entries = kept;
    }

    /// Pairs messages of the same octets wherever they are.
    fn by_octets(&mut self, entries: &mut Vec<(Entry, u32)>, mut tell: impl FnMut(Verdict, u32)) {
        let mut left: Vec<usize> = self.unfound().collect();
        left.sort_unstable_by_key(|at| self.entries[*at].seen.digest);
        entries.sort_unstable_by_key(|(entry, _)| entry.seen.digest);
        let mut theirs = left.into_iter().peekable();
        entries.retain(|(entry, name)| {
            while theirs.next_if(|at| self.entries[*at].seen.digest < entry.seen.digest).is_some() {}
            let Some(at) = theirs.next_if(|at| self.entries[*at].seen.digest == entry.seen.digest) else { return true };
            self.mark(at);
            tell(Verdict::Moved, *name);
            false
        });
    }
}

impl Unfound {
    /// What is kept is paid for from `budget`; the first `names_max` by name.
    pub(super) fn new(budget: Budget, names_max: usize) -> Self {
        Self { budget, permits: None, entries: Vec::new(), names: Vec::new(), names_max, beyond: 0 }
    }

    /// Keeps a message until all is known.
    pub(super) fn keep(&mut self, entry: Entry, name: impl FnOnce() -> Name) {
        if self.entries.len() == self.entries.capacity() && !self.grow() {
            self.beyond += 1;
            return;
        }
        let number = if self.names.len() < self.names_max { self.names.len() as u32 } else { UNNAMED };
        if number != UNNAMED {
            self.names.push(name());
        }
        self.entries.push((entry, number));
    }

    /// Makes room for more. Not waited for: who would give memory back may be waiting for us.
    fn grow(&mut self) -> bool {
        let Some(permit) = self.budget.try_acquire(GROWTH) else { return false };
        match &mut self.permits {
            Some(permits) => permits.merge(permit),
            None => self.permits = Some(permit),
        }
        self.entries.reserve_exact(GROWTH as usize / size_of::<(Entry, u32)>());
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::digest::Domain;
    use proptest::prelude::*;

    fn seen(octets: u8, envelope: u8) -> Seen {
        let domain = Domain::new([1; 32]);
        Seen::new(&domain.digest(&[octets]), &domain.digest(&[envelope]))
    }

    fn named(name: u8, octets: u8, envelope: u8) -> Entry {
        Entry { place: Place::named(&Domain::new([1; 32]), b"folder", &[name]), seen: seen(octets, envelope) }
    }

    fn unnamed(position: u64, octets: u8) -> Entry {
        let folder = Place::folder(&Domain::new([1; 32]), b"folder");
        Entry { place: Place::unnamed(folder, position), seen: seen(octets, 0) }
    }

    /// The verdicts of the source's messages, sorted by their letters; and how many are left.
    fn compare(theirs: &[Entry], mine: &[Entry]) -> (String, u64) {
        let mut table = Table::with_capacity(theirs.len() as u64);
        theirs.iter().for_each(|entry| table.add(entry.place, entry.seen));
        table.settle();
        let mut unfound = Unfound::new(Budget::new(64 << 20), 100);
        let mut verdicts = Vec::new();
        for entry in mine {
            if table.find(entry) {
                verdicts.push('s');
            } else {
                unfound.keep(*entry, || (String::new(), String::new()));
            }
        }
        table.resolve(unfound, |verdict, _, count| {
            let letter = match verdict {
                Verdict::Same => 's',
                Verdict::Changed => 'c',
                Verdict::Different => 'd',
                Verdict::Moved => 'm',
                Verdict::Missing => '-',
            };
            verdicts.extend((0..count).map(|_| letter));
        });
        verdicts.sort_unstable();
        (verdicts.into_iter().collect(), table.left())
    }

    #[test]
    fn messages_with_names_are_the_same_changed_different_moved_or_missing() {
        let theirs = [named(1, 1, 1), named(2, 2, 2), named(3, 3, 3), named(4, 4, 4), named(5, 5, 5)];
        assert_eq!(compare(&theirs, &theirs), ("sssss".into(), 0));
        let mine = [named(1, 1, 1), named(2, 2, 9), named(3, 9, 3), named(6, 4, 4), named(7, 7, 7)];
        assert_eq!(compare(&theirs, &mine), ("-cdms".into(), 1));
        // Two messages of one name: the exact one is found whichever comes first.
        let two = [named(1, 1, 1), named(1, 1, 2)];
        assert_eq!(compare(&two, &[named(1, 1, 2), named(1, 1, 3)]), ("cs".into(), 0));
    }

    #[test]
    fn messages_without_names_are_the_same_when_those_before_them_are_gone_or_new() {
        let theirs: Vec<Entry> = (0..6).map(|at| unnamed(at * 10 + 3, at as u8)).collect();
        let mine = |octets: &[u8]| octets.iter().zip(0..).map(|(octets, at)| unnamed(at, *octets)).collect::<Vec<_>>();
        assert_eq!(compare(&theirs, &mine(&[0, 1, 2, 3, 4, 5])), ("ssssss".into(), 0));
        assert_eq!(compare(&theirs, &mine(&[1, 2, 3, 4, 5])), ("sssss".into(), 1));
        assert_eq!(compare(&theirs, &mine(&[0, 1, 9, 2, 3, 4, 5])), ("-ssssss".into(), 0));
        assert_eq!(compare(&theirs, &mine(&[5, 1, 2, 3, 4, 0])), ("mmssss".into(), 0));
        assert_eq!(compare(&theirs, &mine(&[])), (String::new(), 6));
    }

    #[test]
    fn what_the_budget_has_no_room_for_is_missing() {
        let budget = Budget::new(GROWTH);
        let mut unfound = Unfound::new(budget, 2);
        let room = GROWTH / size_of::<(Entry, u32)>() as u64;
        for number in 0..room + 5 {
            unfound.keep(unnamed(number, 1), || (String::new(), String::new()));
        }
        let (mut missing, mut named) = (0, 0);
        Table::default().resolve(unfound, |verdict, name, count| {
            assert_eq!(verdict, Verdict::Missing);
            (missing, named) = (missing + count, named + u64::from(name.is_some()));
        });
        assert_eq!((missing, named), (room + 5, 2));
    }

    proptest! {
        #[test]
        fn every_message_of_both_sides_is_told_once_and_equal_sides_are_the_same(
            theirs in proptest::collection::vec((0..6_u8, 0..4_u8, 0..2_u8), 0..20),
            mine in proptest::collection::vec((0..6_u8, 0..4_u8, 0..2_u8), 0..20),
        ) {
            let of = |side: &[(u8, u8, u8)]| side.iter().map(|(n, o, e)| named(*n, *o, *e)).collect::<Vec<_>>();
            let unnamed = |side: &[(u8, u8, u8)]| side.iter().zip(0..).map(|((_, o, _), at)| unnamed(at, *o)).collect::<Vec<_>>();
            for (theirs, mine) in [(of(&theirs), of(&mine)), (unnamed(&theirs), unnamed(&mine))] {
                let (verdicts, left) = compare(&theirs, &mine);
                prop_assert_eq!(verdicts.len(), mine.len());
                let missing = verdicts.chars().filter(|verdict| *verdict == '-').count();
                prop_assert_eq!(mine.len() - missing, theirs.len() - left as usize);
                let (verdicts, left) = compare(&theirs, &theirs);
                prop_assert_eq!((verdicts, left), ("s".repeat(theirs.len()), 0));
            }
        }
    }
}
