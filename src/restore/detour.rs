//! Detours: where blobs are fetched from instead of the place in their commit's table, once that has failed.

use crate::error::{Error, ErrorKind, Result};
use crate::pack::{Location, PackId};
use crate::repository::{Move, Moves};
use std::collections::{HashMap, HashSet};

/// The most places that are tried for one blob, also where what is known of them was forgotten meanwhile and read again.
pub(super) const PLACES_MAX: usize = 256;
/// The most blobs of which other places are remembered (about 150 octets each); then all is forgotten, and read again where it is needed.
const BLOBS_MAX: usize = 1 << 17;

/// What is known of blobs whose packs failed. Empty as long as nothing fails.
#[derive(Debug, Default)]
pub(super) struct Detours {
    /// The packs whose moves were read.
    known: HashSet<PackId>,
    routes: HashMap<(PackId, u64), Route>,
    /// What no moves tell of, in order: never forgotten.
    finds: Vec<(PackId, u64, Location)>,
}

/// The other places of a blob, in the order in which they are tried.
#[derive(Clone, Debug, Default)]
struct Route {
    places: Vec<Location>,
    current: usize,
}

/// Where blobs were found that nothing in the repository tells of: by pack and offset. Takes no more memory than it was made for.
#[derive(Debug, Default)]
pub(crate) struct Finds {
    places: Vec<(PackId, u64, Location)>,
    places_max: usize,
}

impl Finds {
    /// Room for as many as these octets hold.
    pub(crate) fn new(octets: u64) -> Self {
        let places_max = octets / size_of::<(PackId, u64, Location)>() as u64;
        Self { places: Vec::new(), places_max: usize::try_from(places_max).unwrap_or(usize::MAX) }
    }

    /// Takes in where blobs of a pack are.
    ///
    /// # Errors
    /// [`Limit`](ErrorKind::Limit) if there is no room for them.
    pub(crate) fn add(&mut self, pack: PackId, moves: &[Move]) -> Result<()> {
        if self.places_max - self.places.len() < moves.len() {
            let what = "more damaged blobs were found elsewhere than there is memory for: give it a larger budget";
            return Err(Error::new(ErrorKind::Limit, what));
        }
        if self.places.is_empty() && !moves.is_empty() {
            // At once: a table that grows by copies is in memory twice.
            self.places.reserve_exact(self.places_max);
        }
        self.places.extend(moves.iter().map(|one| (pack, one.offset, one.to.at)));
        Ok(())
    }
}

impl Detours {
    /// Takes in where blobs are that no moves tell of, for good.
    pub(super) fn keep(&mut self, finds: Finds) {
        self.finds = finds.places;
        self.finds.sort_unstable_by_key(|(pack, offset, _)| (*pack, *offset));
    }

    /// Whether any were found of this pack.
    pub(super) fn has_finds(&self, pack: PackId) -> bool {
        !self.finds_of(pack).is_empty()
    }

    fn finds_of(&self, pack: PackId) -> &[(PackId, u64, Location)] {
        let begin = self.finds.partition_point(|(other, ..)| *other < pack);
        let end = self.finds.partition_point(|(other, ..)| *other <= pack);
        &self.finds[begin..end]
    }

    /// Gives the places to fetch from. Those that are not the ones asked for are told in `taken`.
    pub(super) fn lead(
        &self,
        places: impl IntoIterator<Item = Location>,
        taken: &mut HashMap<(PackId, u64), Location>,
    ) -> Vec<Location> {
        let lead = |at: Location| {
            let route = self.routes.get(&(at.pack, at.offset));
            let Some(place) = route.and_then(|route| route.places.get(route.current)) else { return at };
            taken.insert((at.pack, at.offset), *place);
            *place
        };
        places.into_iter().map(lead).collect()
    }

    /// Whether the moves of this pack were read.
    pub(super) fn is_known(&self, pack: PackId) -> bool {
        self.known.contains(&pack)
    }

    /// Takes in where blobs of a pack are, for the sake of the blob that belongs `at` a place: whatever is forgotten for want of room, how far this one
    /// has come is not.
    pub(super) fn learn_for(&mut self, at: Location, pack: PackId, moves: &Moves) {
        if self.routes.len() + moves.places.len() + self.finds_of(pack).len() > BLOBS_MAX {
            let kept = self.routes.remove_entry(&(at.pack, at.offset));
            self.known.clear();
            self.routes.clear();
            self.routes.extend(kept);
        }
        self.learn(pack, moves);
    }

    /// Takes in where blobs of a pack are.
    fn learn(&mut self, pack: PackId, moves: &Moves) {
        self.known.insert(pack);
        for (offset, rows) in &moves.places {
            let route = self.routes.entry((pack, *offset)).or_default();
            // Moves may lead in circles.
            let others = rows.iter().filter(|row| (row.at.pack, row.at.offset) != (pack, *offset));
            others.for_each(|row| route.add(row.at));
        }
        let finds: Vec<(u64, Location)> = self.finds_of(pack).iter().map(|(_, offset, at)| (*offset, *at)).collect();
        for (offset, at) in finds {
            self.routes.entry((pack, offset)).or_default().add(at);
        }
    }

    /// Lets the blob that belongs `at` a place be fetched from the next one after `failed`. False if none is known.
    pub(super) fn turn(&mut self, at: Location, failed: Location) -> bool {
        if failed == at {
            return self.routes.get(&(at.pack, at.offset)).is_some_and(|route| !route.places.is_empty());
        }
        // A blob that was moved may have been moved again.
        let further = self.routes.get(&(failed.pack, failed.offset)).cloned().unwrap_or_default();
        let Some(route) = self.routes.get_mut(&(at.pack, at.offset)) else { return false };
        further.places.into_iter().filter(|place| *place != at).for_each(|place| route.add(place));
        // Another may have turned already.
        if route.places.get(route.current) == Some(&failed) {
            if route.current + 1 >= route.places.len() {
                return false;
            }
            route.current += 1;
        }
        true
    }
}

impl Route {
    fn add(&mut self, place: Location) {
        if self.places.len() < PLACES_MAX && !self.places.contains(&place) {
            self.places.push(place);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::digest::Digest;
    use crate::pack::Row;
    use crate::repository::Move;

    fn at(pack: u8, offset: u64) -> Location {
        Location { pack: PackId::new([pack; 32]), offset, stored: 9, content: 1, frame: 0 }
    }

    fn moves(moves: &[(u64, Location)]) -> Moves {
        let mut all = Moves::default();
        all.add(
            moves
                .iter()
                .map(|(offset, at)| Move { offset: *offset, to: Row { digest: Digest::new([0; 32]), at: *at } }),
        );
        all
    }

    fn led(detours: &Detours, at: Location) -> Location {
        detours.lead([at], &mut HashMap::new())[0]
    }

    #[test]
    fn every_known_place_is_tried_and_moves_of_moved_blobs_are_followed_but_not_in_circles() {
        let mut detours = Detours::default();
        assert_eq!(led(&detours, at(1, 40)), at(1, 40));
        assert!(!detours.turn(at(1, 40), at(1, 40)));
        detours.learn(PackId::new([1; 32]), &moves(&[(40, at(2, 40)), (40, at(3, 90))]));
        assert!(detours.turn(at(1, 40), at(1, 40)));
        assert_eq!(led(&detours, at(1, 40)), at(2, 40));
        // Two that fail at the same place turn once.
        detours.learn(PackId::new([2; 32]), &moves(&[(40, at(1, 40)), (40, at(4, 50))]));
        assert!(detours.turn(at(1, 40), at(2, 40)) && detours.turn(at(1, 40), at(2, 40)));
        assert_eq!(led(&detours, at(1, 40)), at(3, 90));
        assert!(detours.turn(at(1, 40), at(3, 90)));
        assert_eq!(led(&detours, at(1, 40)), at(4, 50));
        assert!(!detours.turn(at(1, 40), at(4, 50)));
        assert_eq!(led(&detours, at(1, 90)), at(1, 90), "a blob that was not moved stays where it is");
    }

    #[test]
    fn what_was_found_and_no_moves_tell_of_outlasts_all_that_is_forgotten_for_want_of_room() {
        let found = Move { offset: 40, to: Row { digest: Digest::new([0; 32]), at: at(2, 90) } };
        let mut finds = Finds::new(size_of::<(PackId, u64, Location)>() as u64 * 2);
        finds.add(PackId::new([1; 32]), &[found]).unwrap();
        finds.add(PackId::new([3; 32]), &[found]).unwrap();
        assert_eq!(finds.add(PackId::new([4; 32]), &[found]).unwrap_err().kind(), ErrorKind::Limit);
        let mut detours = Detours::default();
        detours.keep(finds);
        for round in 0..2 {
            assert!(!detours.is_known(PackId::new([1; 32])) && detours.has_finds(PackId::new([1; 32])));
            detours.learn_for(at(1, 40), PackId::new([1; 32]), &moves(&[(50, at(2, 40))]));
            assert!(detours.turn(at(1, 40), at(1, 40)), "{round}");
            assert_eq!(led(&detours, at(1, 40)), at(2, 90), "{round}");
            let many: Vec<_> = (0..BLOBS_MAX as u64).map(|offset| (offset, at(5, offset))).collect();
            detours.learn_for(at(4, 0), PackId::new([4; 32]), &moves(&many));
        }
        assert!(!detours.has_finds(PackId::new([4; 32])));
    }

    #[test]
    fn a_blob_comes_to_its_last_place_even_if_there_is_no_room_for_all_that_is_known() {
        let mut detours = Detours::default();
        let blob = at(1, 0);
        let mut many: Vec<_> = (1..=BLOBS_MAX as u64).map(|offset| (offset, at(2, offset))).collect();
        many.extend([(0, at(2, 0)), (0, at(3, 0)), (0, at(4, 0))]);
        let many = moves(&many);
        let (mut failed, nothing) = (blob, Moves::default());
        for place in 2..=4 {
            for pack in [failed.pack, blob.pack] {
                if !detours.is_known(pack) {
                    detours.learn_for(blob, pack, if pack == blob.pack { &many } else { &nothing });
                }
            }
            assert!(detours.turn(blob, failed));
            failed = led(&detours, blob);
            assert_eq!(failed, at(place, 0));
        }
        detours.learn_for(blob, failed.pack, &nothing);
        assert!(!detours.turn(blob, failed));
    }

    #[test]
    fn a_blob_whose_moves_lead_back_to_it_is_given_up_when_it_reads_nowhere() {
        let mut detours = Detours::default();
        // Moves over moves, as they are read: there and back.
        detours.learn(PackId::new([1; 32]), &moves(&[(40, at(2, 40)), (40, at(1, 40)), (90, at(1, 90))]));
        assert!(detours.turn(at(1, 40), at(1, 40)));
        assert_eq!(led(&detours, at(1, 40)), at(2, 40));
        assert!(!detours.turn(at(1, 40), at(2, 40)));
        assert!(!detours.turn(at(1, 90), at(1, 90)), "it is nowhere else");
    }
}
