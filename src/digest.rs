//! Digests: BLAKE3, keyed with the repository's dedup domain, so that two repositories show no equal digests.

use std::fmt;
use zeroize::Zeroize;

/// A keyed BLAKE3 digest, 32 octets.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Digest([u8; 32]);

impl Digest {
    /// Octets in a digest.
    pub const LEN: usize = 32;

    /// A digest of these octets.
    #[must_use]
    pub const fn new(octets: [u8; Self::LEN]) -> Self {
        Self(octets)
    }

    /// The octets.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; Self::LEN] {
        &self.0
    }
}

/// The first eight hexadecimal digits: enough to tell digests apart in a log.
impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().take(4).try_for_each(|octet| write!(f, "{octet:02x}"))
    }
}

/// All 64 hexadecimal digits.
impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|octet| write!(f, "{octet:02x}"))
    }
}

/// The key of a repository's digests. Whoever knows it can tell whether a given content is in the repository.
#[derive(Clone)]
pub struct Domain([u8; 32]);

impl Domain {
    /// A domain of these octets.
    #[must_use]
    pub const fn new(octets: [u8; 32]) -> Self {
        Self(octets)
    }

    /// The octets, for the repository's config alone.
    pub(crate) const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// The digest of `octets`.
    #[must_use]
    pub fn digest(&self, octets: &[u8]) -> Digest {
        Digest(*blake3::keyed_hash(&self.0, octets).as_bytes())
    }

    /// A hasher for octets that come piecemeal.
    #[must_use]
    pub fn hasher(&self) -> Hasher {
        Hasher(blake3::Hasher::new_keyed(&self.0))
    }
}

impl Drop for Domain {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

impl fmt::Debug for Domain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Domain(..)")
    }
}

/// Digests octets that come piecemeal.
#[derive(Clone)]
pub struct Hasher(blake3::Hasher);

impl Hasher {
    /// Takes in `octets`. Inputs of 16 KiB and more are hashed several times faster than small ones.
    pub fn update(&mut self, octets: &[u8]) {
        self.0.update(octets);
    }

    /// The digest of everything taken in.
    #[must_use]
    pub fn finish(&self) -> Digest {
        Digest(*self.0.finalize().as_bytes())
    }

    /// Starts anew.
    pub fn reset(&mut self) {
        self.0.reset();
    }
}

impl fmt::Debug for Hasher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Hasher(..)")
    }
}
