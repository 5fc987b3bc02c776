//! Frames that were read and may be wanted again, still sealed: mailboxes share attachments, and each is to be read once. Least recently used goes first: on what is measured (docs/performance.md)
//! that is better than S3-FIFO, since what is wanted again is mostly wanted again soon.

use crate::budget::{Budget, Permit};
use crate::pack::{Location, PackId};
use bytes::Bytes;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::watch;

/// What a frame takes beside its octets, in the tables below.
const ENTRY_OCTETS: u64 = 256;
/// Frames that failed to open, and are not shared any more; then all is forgotten.
const DISTRUSTED_MAX: usize = 4096;
/// The least memory that is worth having.
const OCTETS_MIN: u64 = 1 << 20;

/// A frame: pack, offset, length.
pub(super) type Place = (PackId, u64, u32);

/// The frame of a blob.
pub(super) fn place(at: &Location) -> Place {
    (at.pack, at.offset, at.stored)
}

/// The frames that all who fetch from one place share. Cloning shares them.
#[derive(Clone, Default)]
pub(super) struct Frames(Arc<Mutex<Table>>);

#[derive(Default)]
struct Table {
    held: HashMap<Place, Held>,
    /// From the one that was not wanted for the longest time on.
    order: BTreeMap<u64, Place>,
    next: u64,
    octets: u64,
    octets_max: u64,
    /// Frames that somebody is reading now.
    flights: HashMap<Place, watch::Receiver<Option<Bytes>>>,
    distrusted: HashSet<Place>,
    permit: Option<Permit>,
}

struct Held {
    octets: Bytes,
    used: u64,
}

/// What there is of a frame.
pub(super) enum Found {
    /// It is here.
    Held(Bytes),
    /// Somebody is reading it: [`Coming::land`].
    Coming(Coming),
    /// Whoever asked has to read it.
    Ours,
}

/// A frame that somebody else is reading.
pub(super) struct Coming(watch::Receiver<Option<Bytes>>);

/// Frames that their reader has promised to read. What is dropped without having landed, others read.
pub(super) struct Flights {
    frames: Frames,
    senders: HashMap<Place, watch::Sender<Option<Bytes>>>,
}

impl Frames {
    /// Takes up to so many octets of the budget for good, as far as they are free now and nobody waits for them.
    pub(super) fn reserve(&self, budget: &Budget, octets: u64) {
        let mut wanted = octets.min(budget.octets());
        while wanted >= OCTETS_MIN {
            if let Some(permit) = budget.try_acquire(wanted) {
                let mut table = self.lock();
                (table.octets_max, table.permit) = (permit.octets(), Some(permit));
                return;
            }
            wanted /= 2;
        }
    }

    /// Forgets everything and gives its memory back to the budget.
    pub(super) fn give_back(&self) {
        let mut table = self.lock();
        if table.permit.is_some() {
            (table.held, table.order) = (HashMap::new(), BTreeMap::new());
            (table.octets, table.octets_max, table.permit) = (0, 0, None);
        }
    }

    /// Finds these frames, and registers those that nobody has and nobody reads as being read by whoever holds the `flights`.
    pub(super) fn find(&self, places: impl IntoIterator<Item = Place>, flights: &mut Flights) -> Vec<(Place, Found)> {
        let mut table = self.lock();
        places.into_iter().map(|place| (place, table.find(place, flights))).collect()
    }

    /// Forgets a frame that did not open, and says whether it is worth reading again: what many share may have been damaged on its way here, once.
    pub(super) fn distrust(&self, place: &Place) -> bool {
        let mut table = self.lock();
        if table.octets_max == 0 || table.distrusted.contains(place) {
            return false;
        }
        if table.distrusted.len() >= DISTRUSTED_MAX {
            table.distrusted.clear();
        }
        table.remove(place);
        table.distrusted.insert(*place)
    }

    fn lock(&self) -> MutexGuard<'_, Table> {
        // Nothing in here panics between two changes that belong together.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Coming {
    /// The frame, once it is read. `None` if it was not: then whoever wants it asks again.
    pub(super) async fn land(mut self) -> Option<Bytes> {
        // An error says that the reader is gone, and what it left is seen all the same.
        let _ = self.0.wait_for(Option::is_some).await;
        self.0.borrow().clone()
    }
}

impl Flights {
    pub(super) fn new(frames: &Frames) -> Self {
        Self { frames: frames.clone(), senders: HashMap::new() }
    }

    /// A frame was read. The octets must be its own: what is part of something longer keeps all of that in memory.
    pub(super) fn land(&mut self, place: Place, octets: &Bytes) {
        let sender = self.senders.remove(&place);
        {
            let mut table = self.frames.lock();
            table.flights.remove(&place);
            table.insert(place, octets.clone());
        }
        if let Some(sender) = sender {
            sender.send_replace(Some(octets.clone()));
        }
    }
}

impl Drop for Flights {
    fn drop(&mut self) {
        if !self.senders.is_empty() {
            let mut table = self.frames.lock();
            for place in self.senders.keys() {
                table.flights.remove(place);
            }
        }
    }
}

impl Table {
    fn find(&mut self, place: Place, flights: &mut Flights) -> Found {
        if let Some(held) = self.held.get_mut(&place) {
            self.order.remove(&held.used);
            self.next += 1;
            held.used = self.next;
            self.order.insert(held.used, place);
            return Found::Held(held.octets.clone());
        }
        if let Some(flight) = self.flights.get(&place) {
            return Found::Coming(Coming(flight.clone()));
        }
        let (sender, receiver) = watch::channel(None);
        self.flights.insert(place, receiver);
        flights.senders.insert(place, sender);
        Found::Ours
    }

    fn insert(&mut self, place: Place, octets: Bytes) {
        let taken = octets.len() as u64 + ENTRY_OCTETS;
        // One that takes half of all is not worth all the others.
        if taken > self.octets_max / 2 || self.distrusted.contains(&place) {
            return;
        }
        self.remove(&place);
        while self.octets + taken > self.octets_max {
            let Some((_, oldest)) = self.order.pop_first() else { break };
            self.remove(&oldest);
        }
        self.next += 1;
        self.octets += taken;
        self.order.insert(self.next, place);
        self.held.insert(place, Held { octets, used: self.next });
    }

    fn remove(&mut self, place: &Place) {
        if let Some(held) = self.held.remove(place) {
            self.order.remove(&held.used);
            self.octets -= held.octets.len() as u64 + ENTRY_OCTETS;
        }
    }
}

impl fmt::Debug for Frames {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let table = self.lock();
        write!(f, "Frames({} in {} of {} octets)", table.held.len(), table.octets, table.octets_max)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::FutureExt;

    fn frame(number: u64) -> Place {
        (PackId::new([1; 32]), number, 100)
    }

    fn frames(budget: &Budget) -> Frames {
        let frames = Frames::default();
        frames.reserve(budget, 1 << 20);
        frames
    }

    /// Asks for a frame, and reads it if nobody has it.
    fn read(frames: &Frames, place: Place, length: usize) -> bool {
        let mut flights = Flights::new(frames);
        let (_, found) = frames.find([place], &mut flights).pop().unwrap();
        match found {
            Found::Held(octets) => {
                assert_eq!(octets.len(), length);
                false
            }
            Found::Coming(_) => panic!("nobody reads it"),
            Found::Ours => {
                flights.land(place, &vec![7; length].into());
                true
            }
        }
    }

    #[test]
    fn what_was_not_wanted_for_the_longest_time_goes_first_and_what_is_taken_is_counted() {
        let budget = Budget::new(4 << 20);
        let frames = frames(&budget);
        assert_eq!(budget.used(), 1 << 20);
        let length = (256 << 10) - ENTRY_OCTETS as usize;
        assert!((0..4).all(|number| read(&frames, frame(number), length)));
        assert!((0..4).all(|number| !read(&frames, frame(number), length)));
        assert!(!read(&frames, frame(0), length));
        assert!(read(&frames, frame(4), length));
        assert!(!read(&frames, frame(0), length), "it was wanted last");
        assert!(read(&frames, frame(1), length));
        assert_eq!(frames.lock().octets, 1 << 20);
        assert!(read(&frames, frame(9), 600 << 10) && read(&frames, frame(9), 600 << 10), "too long to be kept");
        frames.give_back();
        assert_eq!((budget.used(), frames.lock().held.len()), (0, 0));
        assert!(read(&frames, frame(0), length) && read(&frames, frame(0), length), "there is no room any more");
    }

    #[test]
    fn of_two_who_want_a_frame_at_once_one_reads_it_also_if_there_is_no_room_to_keep_it() {
        let frames = Frames::default();
        let (mut first, mut second) = (Flights::new(&frames), Flights::new(&frames));
        assert!(matches!(frames.find([frame(1)], &mut first)[0].1, Found::Ours));
        let Some((_, Found::Coming(coming))) = frames.find([frame(1)], &mut second).pop() else { panic!("not shared") };
        let mut landing = Box::pin(coming.land());
        assert!(landing.as_mut().now_or_never().is_none());
        first.land(frame(1), &Bytes::from_static(b"octets"));
        assert_eq!(landing.now_or_never().unwrap().unwrap(), "octets");
    }

    #[test]
    fn a_reader_that_fails_or_goes_leaves_the_frame_to_the_next() {
        let frames = Frames::default();
        let (mut first, mut second) = (Flights::new(&frames), Flights::new(&frames));
        frames.find([frame(1)], &mut first);
        let Some((_, Found::Coming(coming))) = frames.find([frame(1)], &mut second).pop() else { panic!("not shared") };
        drop(first);
        assert_eq!(coming.land().now_or_never().unwrap(), None);
        assert!(matches!(frames.find([frame(1)], &mut second)[0].1, Found::Ours));
    }

    #[test]
    fn a_frame_that_did_not_open_is_read_once_more_and_never_kept_again() {
        let budget = Budget::new(4 << 20);
        let frames = frames(&budget);
        assert!(read(&frames, frame(1), 100) && !read(&frames, frame(1), 100));
        assert!(frames.distrust(&frame(1)));
        assert!(read(&frames, frame(1), 100) && read(&frames, frame(1), 100));
        assert!(!frames.distrust(&frame(1)));
    }

    #[test]
    fn no_more_is_taken_of_a_budget_than_is_free() {
        let budget = Budget::new(8 << 20);
        let held = budget.try_acquire(5 << 20).unwrap();
        let frames = Frames::default();
        frames.reserve(&budget, 8 << 20);
        assert_eq!(budget.used(), 7 << 20);
        drop(held);
        let other = Frames::default();
        other.reserve(&Budget::new(512 << 10), 8 << 20);
        assert_eq!(other.lock().octets_max, 0);
    }
}
