//! Packs: objects that hold many blobs. Frames of blobs, a footer of rows, a fixed trailer (docs/format.md, "Packs").
//!
//! Every frame says its own length and how it is compressed, so that a pack whose footer is lost can still be read from its front.

use crate::digest::{Digest, Domain};
use crate::error::{Error, ErrorKind, Result};
use crate::seal::{ObjectKind, SALT, Seal, Secrets, TAG};
use crate::wire::{Decoder, Encode};
use std::fmt;
use std::io::Cursor;
use std::sync::{Mutex, MutexGuard, PoisonError};
use zstd::bulk::Compressor;

/// Octets in front of the first frame: magic and salt.
pub(crate) const HEADER: usize = 8 + SALT;
/// Octets of the trailer: footer offset, footer length, frame count, magic.
pub(crate) const TRAILER: usize = 8 + 4 + 4 + 8;
const TRAILER_MAGIC: &[u8; 8] = b"MRPACKED";
/// Octets in front of a sealed frame: its length.
const FRAME_LENGTH: usize = 4;

/// The largest content of one blob, in octets. Packs written by others are held to it, so that a lying length reserves no more.
pub(crate) const CONTENT_MAX: usize = 16 << 20;
/// The length of a piece unless it is set otherwise, and so of most large blobs, in octets.
pub(crate) const PIECE_DEFAULT: u64 = 4 << 20;
/// The longest pack that is read as a whole, in octets.
pub(crate) const OCTETS_MAX: u64 = 1 << 30;
/// The most rows in one pack; bounds the memory of a footer.
pub(crate) const ROWS_MAX: usize = 1 << 16;

/// The zstd level for what is written anew without a transfer that could tell how much time there is.
pub(crate) const LEVEL: i32 = 3;

/// A pack's name: the writer's token, then 24 octets drawn at random. It is also the salt of the pack's key, so that a frame opens for whoever knows where it is.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct PackId([u8; SALT]);

impl PackId {
    /// How many octets it has.
    pub(crate) const OCTETS: usize = SALT;

    /// An id of these octets.
    #[must_use]
    pub(crate) const fn new(octets: [u8; SALT]) -> Self {
        Self(octets)
    }

    /// The octets.
    #[must_use]
    pub(crate) const fn as_bytes(&self) -> &[u8; SALT] {
        &self.0
    }

    /// The token of the writer who wrote the pack.
    pub(crate) fn writer(&self) -> [u8; 8] {
        self.0.first_chunk().copied().unwrap_or_default()
    }

    /// The key of the pack's object. Sharded by the last octet, which is random: the first ones are the writer's.
    pub(crate) fn key(&self) -> String {
        format!("packs/{:02x}/{self}", self.shard())
    }

    /// Its last octet, by which keys are spread.
    pub(crate) const fn shard(&self) -> u8 {
        self.0[SALT - 1]
    }

    /// The id in an object's key.
    pub(crate) fn from_key(key: &str) -> Option<Self> {
        let name = key.strip_prefix("packs/")?.get(3..)?;
        let id = crate::wire::from_hex(name).map(Self)?;
        (id.key() == key).then_some(id)
    }
}

/// All 64 hexadecimal digits.
impl fmt::Display for PackId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|octet| write!(f, "{octet:02x}"))
    }
}

impl fmt::Debug for PackId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Where a blob is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Location {
    pub(crate) pack: PackId,
    /// Where its frame begins in the pack.
    pub(crate) offset: u64,
    /// The frame's length, with its length field and tag.
    pub(crate) stored: u32,
    /// The length of the blob's content.
    pub(crate) content: u32,
    /// Which frame of the pack it is: the nonce.
    pub(crate) frame: u32,
}

impl Location {
    /// Whether a frame can be as long as this says for its content, so that reading it asks for no more memory than the content does.
    pub(crate) fn is_possible(&self) -> bool {
        let content = self.content as usize;
        content <= CONTENT_MAX && self.stored as usize <= stored_max(content)
    }

    /// Where its frame ends in the pack.
    pub(crate) fn end(&self) -> u64 {
        self.offset.saturating_add(u64::from(self.stored))
    }
}

/// A row of a footer, of an index segment, of a commit's blob table: a blob and where it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Row {
    pub(crate) digest: Digest,
    pub(crate) at: Location,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
enum Codec {
    Raw = 0,
    Zstd = 1,
}

/// Compresses blobs and blocks; holds a zstd context (about 1.3 MiB at level 3) that is used again and again.
pub(crate) struct Packer {
    compressor: Compressor<'static>,
}

impl Packer {
    pub(crate) fn new(level: i32) -> Result<Self> {
        let compressor = Compressor::new(level).map_err(|source| Error::io("making a compressor", source))?;
        Ok(Self { compressor })
    }

    /// Compresses at this level from now on.
    pub(crate) fn set_level(&mut self, level: i32) -> Result<()> {
        let set = self.compressor.set_compression_level(level);
        set.map_err(|source| Error::io("setting a compression level", source))
    }

    /// Appends `content` to `out`, compressed if that makes it smaller, with the octet of the codec in front.
    pub(crate) fn compress(&mut self, content: &[u8], out: &mut Vec<u8>) -> Result<()> {
        let start = out.len();
        out.reserve_exact(1 + zstd::zstd_safe::compress_bound(content.len()));
        out.push(Codec::Zstd as u8);
        let mut rest = Cursor::new(&mut *out);
        rest.set_position(start as u64 + 1);
        let compressed = self.compressor.compress_to_buffer(content, &mut rest);
        let length = compressed.map_err(|source| Error::internal("compressing failed").because(source))?;
        if length >= content.len() {
            out.truncate(start);
            out.push(Codec::Raw as u8);
            out.extend_from_slice(content);
        }
        Ok(())
    }
}

/// Packers that nobody has at the moment, so that not every block makes a context anew.
#[derive(Debug, Default)]
pub(crate) struct Packers(Mutex<Vec<Packer>>);

impl Packers {
    /// Does work with a packer of this level.
    pub(crate) fn with<T>(&self, level: i32, work: impl FnOnce(&mut Packer) -> Result<T>) -> Result<T> {
        let idle = self.idle().pop();
        let mut packer = match idle {
            Some(mut packer) => packer.set_level(level).map(|()| packer),
            None => Packer::new(level),
        }?;
        let done = work(&mut packer);
        self.idle().push(packer);
        done
    }

    fn idle(&self) -> MutexGuard<'_, Vec<Packer>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Packer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Packer(..)")
    }
}

/// The most octets that zstd's context takes at a level, 1 to 19, with content of at most [`CONTENT_MAX`].
pub(crate) fn context_octets(level: i32) -> u64 {
    let mebibytes = match level {
        ..=6 => 3,
        7..=8 => 6,
        9 => 11,
        10..=11 => 21,
        12 => 41,
        13..=18 => 65,
        _ => 82,
    };
    mebibytes << 20
}

/// Undoes [`Packer::compress`]; `length` is how long the content must be.
pub(crate) fn decompress(payload: &[u8], length: usize) -> Result<Vec<u8>> {
    let (codec, data) = payload.split_first().ok_or_else(|| Error::damaged("a frame is empty"))?;
    let content = if *codec == Codec::Raw as u8 {
        data.to_vec()
    } else if *codec == Codec::Zstd as u8 {
        // The bound is the caller's, so a bomb inflates to no more than was promised.
        zstd::bulk::decompress(data, length)
            .map_err(|source| Error::damaged("a frame does not decompress").because(source))?
    } else {
        return Err(Error::new(ErrorKind::Unsupported, "a frame is compressed by an unknown codec"));
    };
    if content.len() == length { Ok(content) } else { Err(Error::damaged("a frame's content has another length")) }
}

/// The longest that content of this length can be when it is compressed and sealed, in octets: what asks for more is a lie.
pub(crate) fn stored_max(content: usize) -> usize {
    FRAME_LENGTH + 1 + zstd::zstd_safe::compress_bound(content) + TAG
}

/// How long the content of a compressed item says that it is.
fn told_length(payload: &[u8]) -> Result<usize> {
    let unknown = || Error::damaged("a frame does not tell how long its content is");
    let (codec, data) = payload.split_first().ok_or_else(unknown)?;
    let length = match *codec {
        codec if codec == Codec::Raw as u8 => data.len() as u64,
        _ => zstd::zstd_safe::get_frame_content_size(data).ok().flatten().ok_or_else(unknown)?,
    };
    usize::try_from(length).ok().filter(|length| *length <= CONTENT_MAX).ok_or_else(unknown)
}

/// Builds one pack in memory.
pub(crate) struct PackWriter {
    id: PackId,
    seal: Seal,
    octets: Vec<u8>,
    rows: Vec<Row>,
}

impl PackWriter {
    /// An empty pack, in this buffer; whatever is in that goes.
    pub(crate) fn new(id: PackId, secrets: &Secrets, mut octets: Vec<u8>) -> Result<Self> {
        let seal = seal(id, secrets)?;
        octets.clear();
        octets.extend_from_slice(&ObjectKind::Pack.magic());
        octets.extend_from_slice(id.as_bytes());
        Ok(Self { id, seal, octets, rows: Vec::new() })
    }

    pub(crate) fn id(&self) -> PackId {
        self.id
    }

    /// Its length so far, in octets, without footer.
    pub(crate) fn len(&self) -> usize {
        self.octets.len()
    }

    pub(crate) fn rows(&self) -> &[Row] {
        &self.rows
    }

    /// Appends a blob and says where it is.
    pub(crate) fn add(&mut self, digest: Digest, content: &[u8], packer: &mut Packer) -> Result<Location> {
        let (offset, frame) = (self.octets.len(), self.rows.len());
        self.octets.extend_from_slice(&[0; FRAME_LENGTH]);
        packer.compress(content, &mut self.octets)?;
        let stored = self.octets.len() + TAG - offset;
        // Known before it is sealed: the number of a frame that was sealed and then refused would be given again.
        let sealed = u32::try_from(stored - FRAME_LENGTH).map_err(|_| Error::internal("a frame is too long"))?;
        self.seal.seal(frame as u64, &mut self.octets, offset + FRAME_LENGTH)?;
        self.octets[offset..offset + FRAME_LENGTH].copy_from_slice(&sealed.to_le_bytes());
        let at = Location {
            pack: self.id,
            offset: offset as u64,
            stored: stored as u32,
            content: content.len() as u32,
            frame: frame as u32,
        };
        self.rows.push(Row { digest, at });
        Ok(at)
    }

    /// Writes footer and trailer.
    pub(crate) fn finish(mut self) -> Result<FinishedPack> {
        let offset = self.octets.len();
        let mut footer = Vec::with_capacity(self.rows.len() * 40);
        for row in &self.rows {
            footer.extend_from_slice(row.digest.as_bytes());
            footer.number(u64::from(row.at.stored));
            footer.number(u64::from(row.at.content));
        }
        self.octets.extend_from_slice(&footer);
        self.seal.seal(self.rows.len() as u64, &mut self.octets, offset)?;
        let length = (self.octets.len() - offset) as u32;
        self.octets.extend_from_slice(&(offset as u64).to_le_bytes());
        self.octets.extend_from_slice(&length.to_le_bytes());
        self.octets.extend_from_slice(&(self.rows.len() as u32).to_le_bytes());
        self.octets.extend_from_slice(TRAILER_MAGIC);
        Ok(FinishedPack { id: self.id, octets: self.octets, rows: self.rows })
    }
}

impl fmt::Debug for PackWriter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PackWriter({}, {} octets, {} blobs)", self.id, self.octets.len(), self.rows.len())
    }
}

/// A pack ready to be written.
#[derive(Debug)]
pub(crate) struct FinishedPack {
    pub(crate) id: PackId,
    pub(crate) octets: Vec<u8>,
    pub(crate) rows: Vec<Row>,
}

/// Opens what was read of a pack.
#[derive(Debug)]
pub(crate) struct PackReader {
    id: PackId,
    seal: Seal,
}

impl PackReader {
    /// A reader for this pack; nothing needs to be read for it.
    pub(crate) fn new(id: PackId, secrets: &Secrets) -> Result<Self> {
        Ok(Self { id, seal: seal(id, secrets)? })
    }

    /// Verifies the first octets of the pack (at least [`HEADER`]), which no reader of frames needs.
    pub(crate) fn verify_header(&self, front: &[u8]) -> Result<()> {
        let mut front = Decoder::new(front);
        if front.array::<8>()? != ObjectKind::Pack.magic() {
            return Err(Error::damaged("this is no pack of a known version"));
        }
        let is_its_own = front.array::<SALT>()? == *self.id.as_bytes();
        if is_its_own { Ok(()) } else { Err(Error::damaged("a pack's salt is not its name")) }
    }

    /// The content of the blob whose frame (all of it, as [`Location`] says) these octets are. They are opened in place.
    pub(crate) fn blob(&self, at: &Location, frame: &mut [u8]) -> Result<Vec<u8>> {
        let stored = frame.split_first_chunk_mut::<FRAME_LENGTH>();
        let (length, sealed) = stored.ok_or_else(|| Error::damaged("a frame is too short"))?;
        if u32::from_le_bytes(*length) as usize != sealed.len() {
            return Err(Error::damaged("a frame's length is not the one in the table"));
        }
        if at.content as usize > CONTENT_MAX {
            return Err(Error::new(ErrorKind::Limit, "a blob is longer than the limit"));
        }
        decompress(self.seal.open(u64::from(at.frame), sealed)?, at.content as usize)
    }

    /// Walks the frames from the front of a pack whose end is lost, as each says its own length, and gives every blob that opens; its digest is made anew.
    pub(crate) fn walk(&self, octets: &[u8], domain: &Domain, mut each: impl FnMut(Row, Vec<u8>)) {
        let mut offset = HEADER;
        for frame in 0..ROWS_MAX as u32 {
            let rest = octets.get(offset..).unwrap_or_default();
            let Some((length, _)) = rest.split_first_chunk::<FRAME_LENGTH>() else { return };
            let stored = FRAME_LENGTH.saturating_add(u32::from_le_bytes(*length) as usize);
            let Some(sealed) = rest.get(FRAME_LENGTH..stored) else { return };
            let mut sealed = sealed.to_vec();
            let opened = self.seal.open(u64::from(frame), &mut sealed);
            if let Ok(content) = opened.and_then(|payload| decompress(payload, told_length(payload)?)) {
                let at = Location {
                    pack: self.id,
                    offset: offset as u64,
                    stored: stored as u32,
                    content: content.len() as u32,
                    frame,
                };
                each(Row { digest: domain.digest(&content), at }, content);
            }
            offset += stored;
        }
    }

    /// The content of a blob of this pack, of which all octets are given, if it is what its row says.
    pub(crate) fn blob_of(&self, octets: &[u8], row: &Row, domain: &Domain) -> Result<Vec<u8>> {
        let frame = usize::try_from(row.at.offset).ok().zip(usize::try_from(row.at.end()).ok());
        let frame = frame.and_then(|(from, to)| octets.get(from..to));
        let mut frame = frame.ok_or_else(|| Error::damaged("a frame lies outside its pack"))?.to_vec();
        self.verified(row, &mut frame, domain)
    }

    /// The content of a blob, of whose frame all octets are given, if it is what its row says.
    pub(crate) fn verified(&self, row: &Row, frame: &mut [u8], domain: &Domain) -> Result<Vec<u8>> {
        let content = self.blob(&row.at, frame)?;
        let is_same = domain.digest(&content) == row.digest;
        if is_same { Ok(content) } else { Err(Error::damaged("a blob's content has another digest")) }
    }

    /// The rows in the footer, whose sealed octets `footer` are, from where `trailer` says.
    pub(crate) fn footer(&self, trailer: &Trailer, footer: &mut [u8]) -> Result<Vec<Row>> {
        let payload = self.seal.open(u64::from(trailer.frames), footer)?;
        let mut decoder = Decoder::new(payload);
        let mut rows = Vec::with_capacity(trailer.frames as usize);
        let mut offset = HEADER as u64;
        for frame in 0..trailer.frames {
            let digest = Digest::new(decoder.array()?);
            let stored = decoder.number_up_to(u64::from(u32::MAX))? as u32;
            let content = decoder.number_up_to(CONTENT_MAX as u64)? as u32;
            rows.push(Row { digest, at: Location { pack: self.id, offset, stored, content, frame } });
            offset += u64::from(stored);
        }
        decoder.end()?;
        if offset == trailer.footer_offset { Ok(rows) } else { Err(Error::damaged("a footer does not cover its pack")) }
    }

    /// Reads a whole pack: gives every blob with its digest verified, or what is wrong with it. Damage that touches no blob is told at the end.
    pub(crate) fn verify(
        &self,
        octets: &mut [u8],
        domain: &Domain,
        mut each: impl FnMut(&Row, Result<()>),
    ) -> Result<()> {
        let trailer = Trailer::parse(octets, octets.len() as u64)?;
        let (body, footer) = octets.split_at_mut(trailer.footer_offset as usize);
        let rows = self.footer(&trailer, &mut footer[..trailer.footer_length as usize])?;
        for row in &rows {
            let from = row.at.offset as usize;
            let frame = body.get_mut(from..from + row.at.stored as usize);
            let outcome = frame
                .ok_or_else(|| Error::damaged("a frame lies outside its pack"))
                .and_then(|frame| self.verified(row, frame, domain).map(drop));
            each(row, outcome);
        }
        self.verify_header(body)
    }
}

/// The end of a pack: where the footer is.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Trailer {
    pub(crate) footer_offset: u64,
    pub(crate) footer_length: u32,
    pub(crate) frames: u32,
}

impl Trailer {
    /// Reads the trailer at the end of `tail`, the last octets of a pack of `length` octets.
    pub(crate) fn parse(tail: &[u8], length: u64) -> Result<Self> {
        let trailer = tail.last_chunk::<TRAILER>().ok_or_else(|| Error::damaged("a pack is too short"))?;
        let mut decoder = Decoder::new(trailer);
        let footer_offset = u64::from_le_bytes(decoder.array()?);
        let footer_length = u32::from_le_bytes(decoder.array()?);
        let frames = u32::from_le_bytes(decoder.array()?);
        let whole = footer_offset.checked_add(u64::from(footer_length)).and_then(|end| end.checked_add(TRAILER as u64));
        let sound = decoder.rest() == TRAILER_MAGIC
            && whole == Some(length)
            && footer_offset >= HEADER as u64
            && footer_length as usize >= TAG
            && frames as usize <= ROWS_MAX;
        if sound {
            Ok(Self { footer_offset, footer_length, frames })
        } else {
            Err(Error::damaged("a pack's trailer does not fit the pack"))
        }
    }
}

fn seal(id: PackId, secrets: &Secrets) -> Result<Seal> {
    Seal::new(secrets, ObjectKind::Pack, &id.key(), id.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn secrets(master: Option<[u8; 32]>) -> Secrets {
        Secrets { domain: Domain::new([3; 32]), master }
    }

    fn build(secrets: &Secrets, blobs: &[Vec<u8>]) -> FinishedPack {
        let mut packer = Packer::new(3).unwrap();
        let mut writer = PackWriter::new(PackId::new([5; SALT]), secrets, Vec::new()).unwrap();
        for blob in blobs {
            writer.add(secrets.domain.digest(blob), blob, &mut packer).unwrap();
        }
        writer.finish().unwrap()
    }

    #[test]
    fn a_context_takes_no_more_than_is_counted() {
        let octet = |at: u64| (at.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 56) as u8 & 15;
        let content: Vec<u8> = (0..CONTENT_MAX as u64).map(octet).collect();
        for level in 1..=19 {
            let mut packer = Packer::new(level).unwrap();
            let mut most = 0;
            // What a context was made for with little content it does not shrink.
            for length in [1 << 10, 1 << 17, 1 << 18, 1 << 20, 4 << 20, CONTENT_MAX] {
                packer.compress(&content[..length], &mut Vec::new()).unwrap();
                most = packer.compressor.context_mut().sizeof().max(most);
            }
            assert!(most as u64 <= context_octets(level), "level {level}: {most} octets");
        }
    }

    proptest! {
        #[test]
        fn every_blob_of_a_pack_reads_back(blobs: Vec<Vec<u8>>, master: Option<[u8; 32]>) {
            let secrets = secrets(master);
            let mut pack = build(&secrets, &blobs);
            let reader = PackReader::new(pack.id, &secrets).unwrap();
            for (row, blob) in pack.rows.iter().zip(&blobs) {
                let from = row.at.offset as usize;
                let frame = &mut pack.octets.clone()[from..from + row.at.stored as usize];
                prop_assert_eq!(&reader.blob(&row.at, frame).unwrap(), blob);
            }
            let mut sound = Vec::new();
            reader.verify(&mut pack.octets, &secrets.domain, |row, outcome| sound.push((*row, outcome.is_ok()))).unwrap();
            prop_assert_eq!(sound, pack.rows.iter().map(|row| (*row, true)).collect::<Vec<_>>());
        }

        #[test]
        fn any_octets_are_refused_without_panic(mut octets: Vec<u8>, flip in 0_usize..4000, sealed: bool) {
            let secrets = secrets(sealed.then_some([1; 32]));
            let reader = PackReader::new(PackId::new([5; SALT]), &secrets).unwrap();
            let _ = reader.verify(&mut octets, &secrets.domain, |_, _| {});
            let mut pack = build(&secrets, &[vec![b'a'; 2000], octets]);
            let at = flip % pack.octets.len();
            pack.octets[at] ^= 1;
            let mut bad = 0;
            let whole = reader.verify(&mut pack.octets, &secrets.domain, |_, outcome| bad += usize::from(outcome.is_err()));
            prop_assert!(whole.is_err() || bad > 0, "a flipped bit at {} went unnoticed", at);
        }
    }

    #[test]
    fn a_pack_whose_end_is_lost_reads_from_its_front() {
        for master in [None, Some([9; 32])] {
            let secrets = secrets(master);
            let blobs = [vec![b'a'; 2000], Vec::new(), (0..=255).collect(), vec![b'b'; 70_000]];
            let pack = build(&secrets, &blobs);
            let reader = PackReader::new(pack.id, &secrets).unwrap();
            let walked = |octets: &[u8]| {
                let mut rows = Vec::new();
                reader.walk(octets, &secrets.domain, |row, content| rows.push((row, content)));
                rows
            };
            let all: Vec<_> = pack.rows.iter().copied().zip(blobs.iter().cloned()).collect();
            assert_eq!(walked(&pack.octets), all);
            let end = pack.rows[3].at.end() as usize;
            assert_eq!(walked(&pack.octets[..end]), all);
            assert_eq!(walked(&pack.octets[..end - 1]), all[..3]);
            let mut flipped = pack.octets.clone();
            flipped[pack.rows[0].at.offset as usize + 6] ^= 1;
            assert_eq!(walked(&flipped), all[1..]);
        }
    }

    #[test]
    fn a_frame_opens_for_who_knows_its_place_alone_and_a_pack_without_its_front_is_told() {
        let secrets = secrets(Some([9; 32]));
        let mut pack = build(&secrets, &[vec![b'a'; 2000]]);
        let reader = PackReader::new(pack.id, &secrets).unwrap();
        for at in [0, 8, HEADER - 1] {
            let mut octets = pack.octets.clone();
            octets[at] ^= 1;
            let mut sound = 0;
            let whole = reader.verify(&mut octets, &secrets.domain, |_, outcome| sound += usize::from(outcome.is_ok()));
            assert_eq!((sound, whole.unwrap_err().kind()), (1, ErrorKind::Damaged), "at {at}");
        }
        assert!(reader.verify(&mut pack.octets, &secrets.domain, |_, _| {}).is_ok());
    }

    #[test]
    fn a_bomb_inflates_to_no_more_than_its_row_says() {
        let mut payload = vec![Codec::Zstd as u8];
        payload.extend_from_slice(&zstd::bulk::compress(&vec![0; 64 << 20], 3).unwrap());
        assert_eq!(decompress(&payload, 1000).unwrap_err().kind(), ErrorKind::Damaged);
    }

    #[test]
    fn a_key_names_the_pack_and_nothing_else_does() {
        let id = PackId::new(*b"0123456789abcdef0123456789abcdef");
        assert_eq!(PackId::from_key(&id.key()), Some(id));
        for wrong in ["packs/00/x", "packs/", "index/00", &id.key()[..20], &id.key().replace("packs/66", "packs/67")] {
            assert_eq!(PackId::from_key(wrong), None, "{wrong}");
        }
    }
}
