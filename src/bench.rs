//! Packs, compression and the dedup index, opened for the crate's own benches (feature `bench-internals`).
//!
//! **Not part of the API**: everything here may change or go in any version, without notice.

use crate::digest::{Digest, Domain};
use crate::error::Result;
use crate::index::{self, RepositoryId};
use crate::pack::{self, FinishedPack, Location, PackId, PackReader, PackWriter, Packer, Row};
use crate::seal::Secrets;

/// Compresses blobs as a lane does, into a buffer that is used again and again.
#[derive(Debug)]
pub struct Compressor {
    packer: Packer,
    frame: Vec<u8>,
}

impl Compressor {
    /// A compressor of this zstd level.
    ///
    /// # Errors
    /// If there is no memory for it.
    pub fn new(level: i32) -> Result<Self> {
        Ok(Self { packer: Packer::new(level)?, frame: Vec::new() })
    }

    /// `content` with the octet of its codec in front.
    ///
    /// # Errors
    /// If the compressor fails.
    pub fn compress(&mut self, content: &[u8]) -> Result<&[u8]> {
        self.frame.clear();
        self.packer.compress(content, &mut self.frame)?;
        Ok(&self.frame)
    }
}

/// Undoes [`Compressor::compress`]; `length` is that of the content, in octets.
///
/// # Errors
/// [`Damaged`](crate::ErrorKind::Damaged) if `frame` is none, or its content has another length.
pub fn decompress(frame: &[u8], length: usize) -> Result<Vec<u8>> {
    pack::decompress(frame, length)
}

/// Writes and reads packs with made-up secrets.
#[derive(Debug)]
pub struct Packs {
    secrets: Secrets,
    packer: Packer,
}

/// A pack that was written.
#[derive(Debug)]
pub struct Pack(FinishedPack);

impl Packs {
    const ID: PackId = PackId::new([5; 32]);

    /// Packs at the default level, encrypted or with checksums only.
    ///
    /// # Errors
    /// If there is no memory for a compressor.
    pub fn new(is_sealed: bool) -> Result<Self> {
        let secrets = Secrets { domain: Domain::new([3; 32]), master: is_sealed.then_some([9; 32]) };
        Ok(Self { secrets, packer: Packer::new(3)? })
    }

    /// Writes a pack of these blobs; `capacity` octets are reserved for it.
    ///
    /// # Errors
    /// If a blob is too long.
    pub fn write(&mut self, blobs: &[(Digest, Vec<u8>)], capacity: usize) -> Result<Pack> {
        let mut writer = PackWriter::new(Self::ID, &self.secrets, Vec::with_capacity(capacity))?;
        for (digest, content) in blobs {
            writer.add(*digest, content, &mut self.packer)?;
        }
        writer.finish().map(Pack)
    }

    /// Reads every blob of a pack, each from a copy of its frame as a store gives it, and sums up their lengths.
    ///
    /// # Errors
    /// [`Damaged`](crate::ErrorKind::Damaged) if one does not verify.
    pub fn read(&self, Pack(pack): &Pack) -> Result<u64> {
        let reader = PackReader::new(pack.id, &self.secrets)?;
        let mut octets = 0;
        let mut frame = Vec::new();
        for Row { at, .. } in &pack.rows {
            frame.clear();
            let from = at.offset as usize;
            frame.extend_from_slice(&pack.octets[from..from + at.stored as usize]);
            octets += reader.blob(at, &mut frame)?.len() as u64;
        }
        Ok(octets)
    }
}

/// The dedup index, with rows made of numbers.
#[derive(Debug)]
pub struct Index(index::Index);

impl Index {
    /// Octets that a row in memory takes at most.
    pub const ROW_OCTETS: usize = 85;
    /// What all rows are of.
    const REPOSITORY: RepositoryId = [1; 16];
    /// Long enough for the lasting index.
    const CONTENT: u32 = 40_000;

    /// An empty index in memory that takes at most this many octets.
    #[must_use]
    pub fn new(octets: usize) -> Self {
        Self(index::Index::in_memory(octets))
    }

    /// An index on disk that takes at most this many octets of memory, a quarter of a MiB for recent rows beside them.
    ///
    /// # Errors
    /// If the directory cannot be had.
    #[cfg(feature = "disk-index")]
    pub fn on_disk(directory: &std::path::Path, octets: usize) -> Result<Self> {
        index::Index::on_disk(directory, 256 << 10, octets).map(Self)
    }

    /// Remembers blobs of these digests as a pack's; waits for nothing.
    pub fn insert(&self, pack: u32, digests: &[Digest]) {
        self.0.insert(&Self::REPOSITORY, &rows(pack, digests), 0);
    }

    /// The same, and waits for a disk where it must.
    pub fn fill(&self, pack: u32, digests: &[Digest]) {
        self.0.fill(&Self::REPOSITORY, None, &rows(pack, digests), (0, true));
    }

    /// Whether the index remembers a blob of this digest.
    #[must_use]
    pub fn remembers(&self, digest: &Digest) -> bool {
        self.0.look_up(digest, Self::CONTENT, 0).is_some()
    }

    /// Waits until all is in files, and nothing is left to merge.
    #[cfg(feature = "disk-index")]
    pub fn flush(&self) {
        if let Some(disk) = self.0.disk() {
            disk.flush();
        }
    }

    /// Rows in files, runs, octets of files, octets of memory for filters and packs, rows dropped.
    #[cfg(feature = "disk-index")]
    #[must_use]
    pub fn extent(&self) -> (u64, usize, u64, usize, u64) {
        let extent = self.0.disk().map(|disk| disk.extent()).unwrap_or_default();
        (extent.rows, extent.runs, extent.disk_octets, extent.memory_octets, extent.dropped)
    }
}

fn rows(pack: u32, digests: &[Digest]) -> Vec<Row> {
    let mut id = [0; PackId::OCTETS];
    id[PackId::OCTETS - 4..].copy_from_slice(&pack.to_be_bytes());
    let at = Location { pack: PackId::new(id), offset: 40, stored: 1000, content: Index::CONTENT, frame: 0 };
    digests.iter().map(|digest| Row { digest: *digest, at }).collect()
}
