//! The keys of a repository: adding, removing and changing them without touching what is stored.
//!
//! All keys open the same two secrets, so a key that was removed is worth nothing only to who has not kept what it opened (docs/security.md).

use super::Repository;
use super::slots::{self, LABEL_MAX, NAMES_MAX, Names, New, PASSPHRASES_MAX, SLOTS_MAX, Slot, SlotId, SlotKind};
use crate::error::{Error, ErrorKind, Result};
use crate::seal::Protection;
use crate::store::Payload;

/// The keys of a repository that is open. See [`Repository::keys`].
#[derive(Clone, Debug)]
pub struct Keys(Repository);

/// A key slot.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct KeySlot {
    /// Names it.
    #[cfg_attr(feature = "serde", serde(serialize_with = "as_text"))]
    pub id: SlotId,
    /// What opens it.
    pub kind: SlotKind,
    /// What its owner called it. Empty if it is unreadable.
    pub label: String,
    /// When it was made, in nanoseconds since 1970. 0 if it is unreadable.
    pub created: u64,
    /// Whether this repository was opened with it.
    pub in_use: bool,
}

impl Keys {
    /// The most slots in a repository.
    pub const SLOTS_MAX: usize = SLOTS_MAX;
    /// The most slots for passphrases: so many are tried to open a repository.
    pub const PASSPHRASES_MAX: usize = PASSPHRASES_MAX;
    /// The longest label, in octets.
    pub const LABEL_OCTETS_MAX: usize = LABEL_MAX;

    pub(super) fn new(repository: Repository) -> Self {
        Self(repository)
    }

    /// All slots, by id, those that are [unreadable](SlotKind::Unreadable) too.
    ///
    /// # Cancel safety
    /// Nothing is written.
    ///
    /// # Errors
    /// [`Invalid`](ErrorKind::Invalid) if the repository is not encrypted, [`Limit`](ErrorKind::Limit) if there are more than 256 objects under `keys/`; what
    /// the store reports.
    pub async fn list(&self) -> Result<Vec<KeySlot>> {
        let names = self.names().await?;
        let mut listed = Vec::new();
        for (id, length) in names.slots {
            if let Some(slot) = Slot::read(&**self.0.store(), id, length).await? {
                listed.push(self.slot(id, slot));
            }
        }
        Ok(listed)
    }

    /// Makes a slot for `new`, and opens it to see that it does open. The label says what it is for; only who has a key can read it.
    ///
    /// # Cancel safety
    /// Leaves no slot, or one more: [`list`](Self::list) tells.
    ///
    /// # Errors
    /// [`Invalid`](ErrorKind::Invalid) if the repository is not encrypted, if `new` is no key, or if the label is longer than 255 octets;
    /// [`Limit`](ErrorKind::Limit) if there are [too many slots](Self::SLOTS_MAX) already; what the store reports, after which there may be a slot more.
    pub async fn add(&self, new: Protection, label: &str) -> Result<SlotId> {
        let kind = slots::kind_of(&new)?;
        if label.len() > LABEL_MAX {
            return Err(Error::invalid("a key's label has at most 255 octets"));
        }
        let slots = self.list().await?;
        let alike = slots.iter().filter(|slot| slot.kind == kind).count();
        if slots.len() >= SLOTS_MAX || (kind == SlotKind::Passphrase && alike >= PASSPHRASES_MAX) {
            return Err(Error::new(ErrorKind::Limit, "a repository has at most 64 keys, of which 16 are passphrases"));
        }
        let (repository, store) = (&self.0, &**self.0.store());
        let mut id = [0; 8];
        id.copy_from_slice(&repository.salt()?[..8]);
        let id = SlotId::new(id);
        let slot = New { id, salt: repository.salt()?, created: repository.now(), label };
        let executor = &*repository.0.seams.executor;
        slots::write(store, executor, &repository.0.id, repository.secrets(), &new, slot).await?;
        self.verify(id, &new).await?;
        Ok(id)
    }

    /// Removes a slot that this repository was not opened with.
    ///
    /// Its key opens nothing any more, unless somebody kept the slot or the secrets in it: the secrets themselves do not change.
    ///
    /// # Cancel safety
    /// The slot is there or is not. A mark that somebody is removing it may stay; removing it again takes it away.
    ///
    /// # Errors
    /// [`Invalid`](ErrorKind::Invalid) if the repository is not encrypted, was opened with this slot, or would have no other that can be read;
    /// [`NotFound`](ErrorKind::NotFound) if there is none; what the store reports.
    pub async fn remove(&self, id: SlotId) -> Result<()> {
        if self.0.slot_in_use() == Some(id) {
            return Err(Error::invalid("this key is in use: the repository was opened with it"));
        }
        self.retire(id).await
    }

    /// Removes a slot, also the one that this repository was opened with. It stays open.
    ///
    /// # Cancel safety
    /// As [`remove`](Self::remove).
    ///
    /// # Errors
    /// As [`remove`](Self::remove), but for the slot in use.
    pub async fn remove_even_in_use(&self, id: SlotId) -> Result<()> {
        self.retire(id).await
    }

    /// Puts a new key in the place of the one that this repository was opened with: adds it, sees that it opens, and only then removes the old one.
    ///
    /// # Cancel safety
    /// Leaves the old slot, both, or the new one.
    ///
    /// # Errors
    /// As [`add`](Self::add) and [`remove`](Self::remove). If only removing failed, the error names the new slot; the old one can still be removed.
    pub async fn rotate(&self, new: Protection, label: &str) -> Result<SlotId> {
        let old = self.0.slot_in_use().ok_or_else(not_encrypted)?;
        let id = self.add(new, label).await?;
        self.0.set_slot_in_use(id);
        match self.retire(old).await {
            Ok(()) => Ok(id),
            Err(error) => {
                let message = format!("the new key {id} is in place, but the old one, {old}, could not be removed");
                Err(Error::new(error.kind(), message).because(error))
            }
        }
    }

    async fn names(&self) -> Result<Names> {
        if self.0.secrets().master.is_none() {
            return Err(not_encrypted());
        }
        let names = Names::look(&**self.0.store()).await?;
        match names.is_cut {
            true => {
                Err(Error::new(ErrorKind::Limit, format!("there are more than {NAMES_MAX} objects among the keys")))
            }
            false => Ok(names),
        }
    }

    fn slot(&self, id: SlotId, slot: Result<Slot>) -> KeySlot {
        let in_use = self.0.slot_in_use() == Some(id);
        let noted = slot.and_then(|slot| Ok((slot.kind, slot.note(self.0.secrets())?)));
        match noted {
            Ok((kind, note)) => KeySlot { id, kind, label: note.label, created: note.created, in_use },
            Err(_) => KeySlot { id, kind: SlotKind::Unreadable, label: String::new(), created: 0, in_use },
        }
    }

    /// Reads a slot back from the store, and opens it.
    async fn verify(&self, id: SlotId, new: &Protection) -> Result<()> {
        let (repository, store) = (&self.0, &**self.0.store());
        let unverified = || Error::damaged(format!("the new key slot {id} does not open; remove it"));
        let slot = Slot::read_any(store, id).await?.ok_or_else(unverified)??;
        let opened = slot.open(new, &*repository.0.seams.executor).await?.ok_or_else(unverified)?;
        let secrets = repository.secrets();
        let is_same = opened.master == secrets.master && opened.domain.as_bytes() == secrets.domain.as_bytes();
        if is_same && slot.note(secrets).is_ok() { Ok(()) } else { Err(unverified()) }
    }

    /// Removes a slot if another stays.
    ///
    /// Two who remove one each of the last two slots must not both succeed, and no store deletes on condition. So each first creates a mark of its own,
    /// and then looks: of two, the later one to look sees the mark of the other.
    async fn retire(&self, id: SlotId) -> Result<()> {
        let store = &**self.0.store();
        let is_there = |names: &Names| names.slots.iter().any(|(slot, _)| *slot == id);
        if !is_there(&self.names().await?) {
            return Err(Error::new(ErrorKind::NotFound, format!("there is no key {id}")));
        }
        let mut token = [0; 8];
        token.copy_from_slice(&self.0.salt()?[..8]);
        let mark = slots::mark(id, token);
        store.put(&mark, Payload::default()).await?;
        let names = self.names().await?;
        if !self.another_stays(id, &names).await? {
            store.delete(&mark).await?;
            return Err(Error::invalid("the last key cannot be removed; add another first"));
        }
        store.delete(&id.object()).await?;
        // Ids are never given again, so marks of slots that are gone mean nothing.
        let stays = |marked: SlotId| marked != id && names.slots.iter().any(|(slot, _)| *slot == marked);
        for (marked, mark) in &names.marks {
            if !stays(*marked) {
                store.delete(mark).await?;
            }
        }
        Ok(())
    }

    /// Whether there is another slot that is whole, and that nobody is removing.
    async fn another_stays(&self, id: SlotId, names: &Names) -> Result<bool> {
        let is_marked = |slot: SlotId| names.marks.iter().any(|(marked, _)| *marked == slot);
        for (other, length) in names.slots.iter().filter(|(slot, _)| *slot != id && !is_marked(*slot)) {
            if let Some(slot) = Slot::read(&**self.0.store(), *other, *length).await?
                && self.slot(*other, slot).kind != SlotKind::Unreadable
            {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

fn not_encrypted() -> Error {
    Error::invalid("this repository is not encrypted, so it has no keys")
}

#[cfg(feature = "serde")]
fn as_text<S: serde::Serializer>(id: &SlotId, serializer: S) -> std::result::Result<S::Ok, S::Error> {
    serializer.collect_str(id)
}
