//! Passphrases: a key from what a person can remember, by Argon2id (RFC 9106), which makes every guess expensive.

use super::{Key, SALT};
use crate::error::{Error, ErrorKind, Result};
use argon2::{Algorithm, Argon2, Block, Params, Version};
use std::fmt;
use zeroize::{Zeroize, Zeroizing};

/// A passphrase. Overwritten when it is dropped.
#[derive(Clone)]
pub struct Passphrase {
    octets: Zeroizing<Vec<u8>>,
    cost: PassphraseCost,
}

impl Passphrase {
    /// The longest passphrase, in octets.
    pub const OCTETS_MAX: usize = 4096;

    /// A passphrase of these octets, as they are: no line end is taken off, and no Unicode is normalised.
    ///
    /// # Errors
    /// [`Key`](ErrorKind::Key) if there is none, or more than [`OCTETS_MAX`](Self::OCTETS_MAX).
    pub fn new(octets: impl Into<Vec<u8>>) -> Result<Self> {
        let octets = Zeroizing::new(octets.into());
        match octets.len() {
            0 => Err(Error::new(ErrorKind::Key, "the passphrase is empty")),
            1..=Self::OCTETS_MAX => Ok(Self { octets, cost: PassphraseCost::default() }),
            _ => Err(Error::new(ErrorKind::Key, "a passphrase has at most 4,096 octets")),
        }
    }

    /// The same with another cost for key slots that are made with it. A slot that is there has its own.
    #[must_use]
    pub fn with_cost(mut self, cost: PassphraseCost) -> Self {
        self.cost = cost;
        self
    }

    /// What a new key slot is to cost.
    pub(crate) fn cost(&self) -> PassphraseCost {
        self.cost
    }

    /// The key that this passphrase is under `salt`. Takes the memory and the time of `cost`; the memory is overwritten and freed at the end.
    pub(crate) fn derive(&self, cost: PassphraseCost, salt: &[u8; SALT]) -> Result<Key> {
        let refused = |_| Error::internal("Argon2 refuses its parameters");
        let params = Params::new(cost.memory_kib, cost.passes, cost.lanes, Some(32)).map_err(refused)?;
        let mut memory: Vec<Block> = Vec::new();
        // A machine without this much memory must learn it as an error.
        memory.try_reserve_exact(params.block_count()).map_err(|source| {
            let needed = format!("there are no {} MiB of memory to make a key of a passphrase", cost.memory_kib >> 10);
            Error::new(ErrorKind::Limit, needed).because(source)
        })?;
        memory.resize(params.block_count(), Block::new());
        let mut key = Zeroizing::new([0; 32]);
        let argon2 = Argon2::new(Algorithm::Argon2id, Version::V0x13, params);
        let derived = argon2.hash_password_into_with_memory(&self.octets, salt, &mut *key, &mut memory[..]);
        memory.zeroize();
        derived.map_err(refused)?;
        Ok(Key::new(*key))
    }
}

impl fmt::Debug for Passphrase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Passphrase(..)")
    }
}

/// What one guess at a passphrase costs, and what opening a repository with it costs: the parameters of Argon2id.
///
/// By default 64 MiB, 3 passes, 4 lanes (RFC 9106, section 4, for machines with little memory). Lanes are worked off one after the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PassphraseCost {
    memory_kib: u32,
    passes: u32,
    lanes: u32,
}

impl PassphraseCost {
    /// The least memory, in KiB: 8 MiB.
    pub const MEMORY_KIB_MIN: u32 = 8 << 10;
    /// The most memory, in KiB: 256 MiB. A store must not choose how much memory its readers use.
    pub const MEMORY_KIB_MAX: u32 = 256 << 10;
    /// The most that memory in KiB times passes may be: 1 GiB, about five times the default.
    pub const WORK_KIB_MAX: u32 = 1 << 20;
    /// The most lanes.
    pub const LANES_MAX: u32 = 16;
    /// Octets of the encoded parameters.
    pub(crate) const LEN: usize = 12;

    /// A cost of this much memory (KiB), this many passes over it, and this many lanes.
    ///
    /// # Errors
    /// [`Limit`](ErrorKind::Limit) if it is beyond the limits.
    pub fn new(memory_kib: u32, passes: u32, lanes: u32) -> Result<Self> {
        let is_legal = (Self::MEMORY_KIB_MIN..=Self::MEMORY_KIB_MAX).contains(&memory_kib)
            && (1..=Self::LANES_MAX).contains(&lanes)
            && passes > 0
            && memory_kib.checked_mul(passes).is_some_and(|work| work <= Self::WORK_KIB_MAX);
        if is_legal {
            return Ok(Self { memory_kib, passes, lanes });
        }
        Err(Error::new(
            ErrorKind::Limit,
            "Argon2 is given 8 to 256 MiB of memory, at most 1 GiB in all passes together, and 1 to 16 lanes",
        ))
    }

    pub(crate) fn encode(self) -> [u8; Self::LEN] {
        let mut octets = [0; Self::LEN];
        for (octets, number) in octets.chunks_exact_mut(4).zip([self.memory_kib, self.passes, self.lanes]) {
            octets.copy_from_slice(&number.to_le_bytes());
        }
        octets
    }

    /// Holds what was read to the same limits.
    pub(crate) fn decode(octets: &[u8; Self::LEN]) -> Result<Self> {
        let number = |at: usize| u32::from_le_bytes([octets[at], octets[at + 1], octets[at + 2], octets[at + 3]]);
        Self::new(number(0), number(4), number(8))
    }
}

impl Default for PassphraseCost {
    fn default() -> Self {
        Self { memory_kib: 64 << 10, passes: 3, lanes: 4 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_hold_for_what_is_made_and_for_what_is_read() {
        for (memory_kib, passes, lanes) in [
            (0, 1, 1),
            ((8 << 10) - 1, 1, 1),
            ((256 << 10) + 1, 1, 1),
            (u32::MAX, 1, 1),
            (64 << 10, 0, 1),
            (64 << 10, 17, 1),
            (8 << 10, u32::MAX, 1),
            (64 << 10, 1, 0),
            (64 << 10, 1, 17),
            (64 << 10, 1, u32::MAX),
        ] {
            assert_eq!(PassphraseCost::new(memory_kib, passes, lanes).unwrap_err().kind(), ErrorKind::Limit);
            let octets = PassphraseCost { memory_kib, passes, lanes }.encode();
            assert!(PassphraseCost::decode(&octets).is_err());
        }
        for (memory_kib, passes, lanes) in [(8 << 10, 1, 1), (256 << 10, 4, 16), (64 << 10, 16, 4)] {
            let cost = PassphraseCost::new(memory_kib, passes, lanes).unwrap();
            assert_eq!(PassphraseCost::decode(&cost.encode()).unwrap(), cost);
        }
        let default = PassphraseCost::default();
        assert_eq!(PassphraseCost::new(default.memory_kib, default.passes, default.lanes).unwrap(), default);
    }

    #[test]
    fn passphrase_salt_and_each_parameter_make_another_key() {
        let cost = |memory_mib: u32, passes, lanes| PassphraseCost::new(memory_mib << 10, passes, lanes).unwrap();
        let derive = |text: &str, cost, salt| Passphrase::new(text).unwrap().derive(cost, &[salt; SALT]).unwrap().0;
        let keys = [
            derive("one", cost(8, 1, 1), 1),
            derive("one ", cost(8, 1, 1), 1),
            derive("one", cost(9, 1, 1), 1),
            derive("one", cost(8, 2, 1), 1),
            derive("one", cost(8, 1, 2), 1),
            derive("one", cost(8, 1, 1), 2),
        ];
        let different: std::collections::BTreeSet<_> = keys.iter().collect();
        assert_eq!(different.len(), keys.len());
        assert_eq!(derive("one", cost(8, 1, 1), 1), keys[0]);
    }

    #[test]
    fn a_key_is_the_one_that_other_implementations_make() {
        // argon2-cffi 25.1 (the reference implementation in C): hash_secret_raw(b"correct horse", bytes([7] * 32), 2, 8192, 4, 32, Type.ID)
        let cost = PassphraseCost::new(8 << 10, 2, 4).unwrap();
        let key = Passphrase::new("correct horse").unwrap().derive(cost, &[7; SALT]).unwrap();
        assert_eq!(crate::wire::hex(&key.0), "f9eebad522854b8e102702b55e4984ca93a43fc23b83e8fc70ae04c3c84f60fc");
    }

    #[test]
    fn a_passphrase_is_neither_empty_nor_endless_and_never_shown() {
        assert_eq!(Passphrase::new("").unwrap_err().kind(), ErrorKind::Key);
        assert_eq!(Passphrase::new(vec![b'a'; 4097]).unwrap_err().kind(), ErrorKind::Key);
        assert_eq!(format!("{:?}", Passphrase::new("secret").unwrap()), "Passphrase(..)");
    }
}
