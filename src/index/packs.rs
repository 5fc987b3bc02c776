//! What is known of packs: which there are, up to which sweep each is believed to be there, and of which repository it is.

use super::{RepositoryId, Slot};
use crate::lock::{Acquisitions, Lock};
use crate::pack::{Location, PackId, Row};
use std::collections::HashMap;
use std::collections::hash_map::Entry;

/// All packs that rows name, each kept once, by number. A number is never given twice.
#[derive(Debug, Default)]
pub(super) struct Packs(Lock<Table>);

#[derive(Debug, Default)]
struct Table {
    ids: Vec<PackId>,
    states: Vec<State>,
    numbers: HashMap<PackId, u32>,
    repositories: Vec<Repository>,
    repository_numbers: HashMap<RepositoryId, u16>,
}

/// A repository, and the latest sweep whose effects on all of its packs the index was told of.
#[derive(Debug)]
struct Repository {
    #[cfg_attr(not(feature = "disk-index"), allow(dead_code, reason = "only files name repositories"))]
    id: RepositoryId,
    epoch: u64,
}

#[derive(Clone, Copy, Debug)]
struct State {
    /// Up to which sweep the pack is believed to be there.
    epoch: u64,
    /// No frame ends beyond this.
    length: u32,
    /// The repository's number.
    repository: u16,
    trust: Trust,
}

/// What is known of a pack.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Trust {
    /// It was there when its rows were written to a disk, by an earlier process.
    #[cfg_attr(not(feature = "disk-index"), allow(dead_code, reason = "rows in memory are of this process"))]
    Remembered,
    /// It was remembered, and was not there when somebody looked.
    Gone,
    /// It was said to exist.
    Told,
    /// It was seen to exist.
    Seen,
    /// It is damaged or gone: its rows are no hits.
    Refused,
}

/// The number of repositories of which packs tell that they are theirs; those of others never count as gone.
const REPOSITORIES_MAX: usize = 1 << 16;
/// Stands for no repository that is known.
const NOBODY: RepositoryId = [0; 16];

impl Packs {
    /// Octets of memory that a pack takes at most: an id and a state, an id and a number in a hash table, and the slack of all of them while they grow.
    #[cfg(feature = "disk-index")]
    pub(super) const PACK_OCTETS: usize = 2 * (PackId::OCTETS + size_of::<State>()) + 3 * (PackId::OCTETS + 4 + 1);

    pub(super) fn new(acquisitions: &Acquisitions) -> Self {
        Self(Lock::new(Table::default(), acquisitions))
    }

    /// Whether this row is a hit: its pack is not refused, no sweep up to `epoch` may have condemned it, and it is long enough.
    pub(super) fn is_hit(&self, slot: &Slot, epoch: u64) -> bool {
        self.0.lock().locate(slot, epoch).is_some()
    }

    /// Where the blobs of those rows are that are hits.
    pub(super) fn locate(&self, slots: &[Option<Slot>], epoch: u64) -> Vec<Option<Location>> {
        if slots.iter().all(Option::is_none) {
            return vec![None; slots.len()];
        }
        let table = self.0.lock();
        slots.iter().map(|slot| slot.as_ref().and_then(|slot| table.locate(slot, epoch))).collect()
    }

    /// Whether no sweep up to `epoch` condemns this pack, as far as was told, and nobody found it damaged or gone.
    pub(super) fn believes(&self, pack: &PackId, epoch: u64) -> bool {
        let table = self.0.lock();
        table.numbers.get(pack).is_some_and(|number| table.believed(*number, epoch).is_some())
    }

    /// These packs of a repository are there, and no sweep up to `epoch` condemns them; if these are all, others are gone.
    pub(super) fn believe(
        &self,
        repository: &RepositoryId,
        listed: &HashMap<PackId, u64>,
        (epoch, is_all): (u64, bool),
    ) {
        let mut table = self.0.lock();
        let of = table.repository(repository);
        if is_all && let Some(known) = table.repositories.get_mut(usize::from(of)) {
            known.epoch = epoch.max(known.epoch);
        }
        let Table { ids, states, .. } = &mut *table;
        for (id, state) in ids.iter().zip(states) {
            if let Some(length) = listed.get(id) {
                state.epoch = epoch.max(state.epoch);
                state.length = u32::try_from(*length).unwrap_or(u32::MAX);
                if matches!(state.trust, Trust::Remembered | Trust::Gone) {
                    state.trust = Trust::Told;
                }
            } else if is_all && state.trust == Trust::Remembered && state.repository == of && of != 0 {
                state.trust = Trust::Gone;
            }
        }
    }

    /// No row of this pack is a hit any more.
    pub(super) fn refuse(&self, pack: PackId) {
        let mut table = self.0.lock();
        let number = table.number(pack, Trust::Told) as usize;
        table.states[number].trust = Trust::Refused;
    }

    /// Somebody looked and saw the pack.
    pub(super) fn saw(&self, pack: PackId) {
        let mut table = self.0.lock();
        let number = table.number(pack, Trust::Told) as usize;
        let trust = &mut table.states[number].trust;
        if *trust == Trust::Told {
            *trust = Trust::Seen;
        }
    }

    /// Whether the pack was seen to exist, and nothing bad has been heard of it since.
    pub(super) fn is_seen(&self, pack: PackId) -> bool {
        let table = self.0.lock();
        table.numbers.get(&pack).is_some_and(|number| table.states[*number as usize].trust == Trust::Seen)
    }

    /// The numbers of the packs of these rows, which no sweep up to `epoch` condemns, unless they are refused.
    pub(super) fn numbers_unless_refused(
        &self,
        repository: &RepositoryId,
        rows: &[Row],
        epoch: u64,
    ) -> Vec<Option<u32>> {
        let mut table = self.0.lock();
        let of = table.repository(repository);
        rows.iter().map(|row| table.number_unless_refused(of, row.at.pack, epoch)).collect()
    }
}

#[cfg(feature = "disk-index")]
impl Packs {
    /// The number of a pack that a file names: nothing is believed of it yet.
    pub(super) fn remember(&self, repository: &RepositoryId, id: PackId) -> u32 {
        let mut table = self.0.lock();
        let of = table.repository(repository);
        let number = table.number(id, Trust::Remembered);
        table.states[number as usize].repository = of;
        number
    }

    /// Whether no row of this pack can ever be a hit, as far as is known: it was swept.
    pub(super) fn is_gone(&self, number: u32) -> bool {
        let table = self.0.lock();
        let Some(state) = table.states.get(number as usize) else { return true };
        let looked = table.repositories.get(usize::from(state.repository)).map_or(0, |repository| repository.epoch);
        match state.trust {
            Trust::Remembered => false,
            Trust::Gone => true,
            // Who is refused may be healed.
            Trust::Told | Trust::Seen | Trust::Refused => state.epoch < looked && state.repository != 0,
        }
    }

    /// A pack's id, and its repository's.
    pub(super) fn id(&self, number: u32) -> Option<(RepositoryId, PackId)> {
        let table = self.0.lock();
        let state = table.states.get(number as usize)?;
        let repository = table.repositories.get(usize::from(state.repository)).map_or(NOBODY, |known| known.id);
        Some((repository, *table.ids.get(number as usize)?))
    }

    /// Octets that all this takes.
    pub(super) fn octets(&self) -> usize {
        self.0.lock().ids.len() * Self::PACK_OCTETS
    }
}

impl Table {
    /// The pack of this number, unless it is refused, or a sweep up to `epoch` may have condemned it.
    fn believed(&self, number: u32, epoch: u64) -> Option<PackId> {
        let state = self.states.get(number as usize)?;
        let is_believed = matches!(state.trust, Trust::Told | Trust::Seen) && state.epoch >= epoch;
        is_believed.then(|| self.ids[number as usize])
    }

    /// Where the blob of this row is, if it is a hit.
    fn locate(&self, slot: &Slot, epoch: u64) -> Option<Location> {
        let end = u64::from(slot.offset) + u64::from(slot.stored);
        let is_inside = end <= u64::from(self.states.get(slot.pack as usize)?.length);
        let pack = is_inside.then(|| self.believed(slot.pack, epoch)).flatten()?;
        let Slot { offset, stored, content, frame, .. } = *slot;
        Some(Location { pack, offset: offset.into(), stored, content, frame })
    }

    fn number_unless_refused(&mut self, of: u16, id: PackId, epoch: u64) -> Option<u32> {
        let number = self.number(id, Trust::Told);
        let state = &mut self.states[number as usize];
        state.repository = of;
        state.epoch = epoch.max(state.epoch);
        if matches!(state.trust, Trust::Remembered | Trust::Gone) {
            state.trust = Trust::Told;
        }
        (state.trust != Trust::Refused).then_some(number)
    }

    fn number(&mut self, id: PackId, trust: Trust) -> u32 {
        match self.numbers.entry(id) {
            Entry::Occupied(entry) => *entry.get(),
            Entry::Vacant(entry) => {
                let number = self.ids.len() as u32;
                self.ids.push(id);
                self.states.push(State { epoch: 0, length: u32::MAX, repository: 0, trust });
                *entry.insert(number)
            }
        }
    }

    /// A repository's number; 0 for nobody's.
    fn repository(&mut self, id: &RepositoryId) -> u16 {
        if self.repositories.is_empty() {
            self.repositories.push(Repository { id: NOBODY, epoch: 0 });
        }
        let next = self.repositories.len();
        if next >= REPOSITORIES_MAX && !self.repository_numbers.contains_key(id) {
            return 0;
        }
        *self.repository_numbers.entry(*id).or_insert_with(|| {
            self.repositories.push(Repository { id: *id, epoch: 0 });
            next as u16
        })
    }
}

#[cfg(all(test, feature = "disk-index"))]
mod tests {
    use super::*;
    use crate::digest::Digest;

    #[test]
    fn a_remembered_pack_is_believed_when_it_is_listed_and_gone_when_it_is_not() {
        let packs = Packs::default();
        let (mine, other) = ([1; 16], [2; 16]);
        let [here, away, theirs] = [1, 2, 3].map(|octet| PackId::new([octet; 32]));
        let numbers = [(mine, here), (mine, away), (other, theirs)].map(|(of, pack)| packs.remember(&of, pack));
        assert!([here, away, theirs].iter().all(|pack| !packs.believes(pack, 0)));
        packs.believe(&mine, &HashMap::from([(here, 100)]), (3, false));
        assert_eq!(numbers.map(|number| packs.is_gone(number)), [false, false, false]);
        packs.believe(&mine, &HashMap::from([(here, 100)]), (3, true));
        assert_eq!(numbers.map(|number| packs.is_gone(number)), [false, true, false]);
        assert!(packs.believes(&here, 3) && !packs.believes(&here, 4));
        assert!(!packs.believes(&away, 0) && !packs.believes(&theirs, 0));
        // A later sweep took the other one, too.
        packs.believe(&mine, &HashMap::new(), (4, true));
        assert_eq!(numbers.map(|number| packs.is_gone(number)), [true, true, false]);
        let row = Row {
            digest: Digest::new([0; 32]),
            at: Location { pack: away, offset: 40, stored: 1, content: 1, frame: 0 },
        };
        assert_eq!(packs.numbers_unless_refused(&mine, &[row], 4), [Some(numbers[1])]);
        assert!(packs.believes(&away, 4) && !packs.is_gone(numbers[1]));
    }
}
