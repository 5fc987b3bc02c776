//! Runs: files of rows, sorted by key. Written once, read at random, merged in order.
//!
//! A run is two files. `rows` has pages of 4 KiB, each with 113 rows, the run's number, its own, and a check. `filter` has the parts of the [filter](super::filter), the packs that
//! rows name by their place in that list, and a check of all of it. Checks are keyed with the directory's key: what was torn, damaged, or of another directory or run does
//! not verify, and is never believed.

use super::directory::Directory;
use super::filter::{Built, Filter, PartBuilder};
use super::packs::Packs;
use super::{KEY, Key, Slot};
use crate::pack::PackId;
use crate::wire::Decoder;
use std::collections::HashMap;
use std::fs::{self, File};
use std::io::{self, BufReader, BufWriter, Read, Write};
use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicBool, Ordering};

const PAGE: usize = 4096;
/// Octets of a row: its key and five numbers.
const ROW: usize = KEY + 5 * 4;
const PAGE_ROWS: usize = 113;
/// Where the run's number, the page's and the check begin.
const TAG: usize = PAGE_ROWS * ROW;
const CHECKED: usize = TAG + 8 + 4;
/// Octets of a pack in a filter's file: its repository and its id.
const PACK: usize = 32;
/// Octets at the end of a filter's file: buckets, rows, packs, the run's number, a check.
const TRAILER: usize = 4 * 8 + 32;
/// What is written, and read in order, at once.
const BUFFER: usize = 32 * PAGE;

/// The key of a directory's checks.
pub(super) type CheckKey = [u8; 32];

/// A run that is whole.
#[derive(Debug)]
pub(super) struct Run {
    pub(super) number: u64,
    /// How often its rows were merged.
    pub(super) level: u8,
    check_key: CheckKey,
    file: File,
    filter: Filter,
    /// The number of each pack that its rows name.
    packs: Box<[u32]>,
    is_damaged: AtomicBool,
}

impl Run {
    /// Opens a run, and takes its filter into memory.
    ///
    /// # Errors
    /// If its files are not what was written.
    pub(super) fn open(directory: &Directory, (number, level): (u64, u8), packs: &Packs) -> io::Result<Self> {
        let check_key = *directory.check_key();
        let path = directory.filter_path(number);
        verify(&path, &check_key)?;
        let length = fs::metadata(&path)?.len();
        let file = File::open(&path)?;
        let trailer = Trailer::read(&file, length).filter(|trailer| trailer.number == number).ok_or_else(damaged)?;
        let mut reader = BufReader::with_capacity(BUFFER, file);
        let filter = read_filter(&mut reader, &trailer, length)?;
        let mut numbers = Vec::with_capacity(trailer.packs as usize);
        for _ in 0..trailer.packs {
            let (mut repository, mut id) = ([0; 16], [0; PackId::OCTETS]);
            reader.read_exact(&mut repository)?;
            reader.read_exact(&mut id)?;
            numbers.push(packs.remember(&repository, PackId::new(id)));
        }
        let file = File::open(directory.rows_path(number))?;
        let pages = trailer.rows.div_ceil(PAGE_ROWS as u64);
        if filter.rows() != trailer.rows || file.metadata()?.len() != pages * PAGE as u64 {
            return Err(damaged());
        }
        let is_damaged = AtomicBool::new(false);
        Ok(Self { number, level, check_key, file, filter, packs: numbers.into(), is_damaged })
    }

    /// A row of this key that is a hit. At most one page is read for each row that may have it.
    ///
    /// # Errors
    /// If a page is not what was written: the run is of no use any more.
    pub(super) fn find(&self, key: &Key, is_hit: &dyn Fn(&Slot) -> bool) -> io::Result<Option<Slot>> {
        for row in self.filter.candidates(key) {
            let mut page = [0; PAGE];
            let number = row / PAGE_ROWS as u64;
            self.file.read_exact_at(&mut page, number * PAGE as u64)?;
            check(&page, &self.check_key, (self.number, number))?;
            let (found, mut slot) = decode(&page[(row % PAGE_ROWS as u64) as usize * ROW..]).ok_or_else(damaged)?;
            slot.pack = *self.packs.get(slot.pack as usize).ok_or_else(damaged)?;
            if found == *key && is_hit(&slot) {
                return Ok(Some(slot));
            }
        }
        Ok(None)
    }

    pub(super) fn rows(&self) -> u64 {
        self.filter.rows()
    }

    /// Octets of memory that it takes.
    pub(super) fn octets(&self) -> usize {
        size_of::<Self>() + self.filter.octets() + self.packs.len() * 4
    }

    /// Octets of its files.
    pub(super) fn disk_octets(&self) -> u64 {
        self.rows().div_ceil(PAGE_ROWS as u64) * PAGE as u64 + (self.filter.octets() + self.packs.len() * PACK) as u64
    }

    pub(super) fn is_damaged(&self) -> bool {
        self.is_damaged.load(Ordering::Relaxed)
    }

    pub(super) fn set_damaged(&self) {
        self.is_damaged.store(true, Ordering::Relaxed);
    }
}

/// Reads the rows of a run in order.
#[derive(Debug)]
pub(super) struct RunReader {
    number: u64,
    check_key: CheckKey,
    /// A file of its own, so that reading in order is no random reading to the operating system.
    file: File,
    rows: u64,
    row: u64,
    packs: Box<[u32]>,
    is_gone: Box<[bool]>,
    buffer: Vec<u8>,
}

impl RunReader {
    pub(super) fn new(run: &Run, directory: &Directory, packs: &Packs) -> io::Result<Self> {
        Ok(Self {
            number: run.number,
            check_key: run.check_key,
            file: File::open(directory.rows_path(run.number))?,
            rows: run.rows(),
            row: 0,
            packs: run.packs.clone(),
            is_gone: run.packs.iter().map(|pack| packs.is_gone(*pack)).collect(),
            buffer: Vec::new(),
        })
    }

    /// The next row of a pack that is not gone.
    pub(super) fn next(&mut self) -> io::Result<Option<(Key, Slot)>> {
        while self.row < self.rows {
            let page_row = (self.row % PAGE_ROWS as u64) as usize;
            let page = self.row / PAGE_ROWS as u64;
            let at = (page * PAGE as u64) as usize % BUFFER;
            if page_row == 0 {
                if at == 0 {
                    self.read(page)?;
                }
                let octets = self.buffer.get(at..at + PAGE).ok_or_else(damaged)?;
                check(octets, &self.check_key, (self.number, page))?;
            }
            let row = self.buffer.get(at + page_row * ROW..).and_then(decode);
            self.row += 1;
            let (key, mut slot) = row.ok_or_else(damaged)?;
            let local = slot.pack as usize;
            slot.pack = *self.packs.get(local).ok_or_else(damaged)?;
            if !self.is_gone[local] {
                return Ok(Some((key, slot)));
            }
        }
        Ok(None)
    }

    fn read(&mut self, page: u64) -> io::Result<()> {
        let pages = self.rows.div_ceil(PAGE_ROWS as u64) - page;
        let length = pages.saturating_mul(PAGE as u64).min(BUFFER as u64) as usize;
        self.buffer.resize(length, 0);
        self.file.read_exact_at(&mut self.buffer, page * PAGE as u64)
    }
}

/// Writes a run: rows that come in order. It counts only when a manifest names it.
#[derive(Debug)]
pub(super) struct RunWriter {
    number: u64,
    check_key: CheckKey,
    rows_file: BufWriter<File>,
    filter_file: Checked<BufWriter<File>>,
    buckets: u64,
    filter: PartBuilder,
    rows: u64,
    page: Vec<u8>,
    /// Packs by their place in the run's list, and the other way round.
    packs: Vec<u32>,
    places: HashMap<u32, u32>,
}

impl RunWriter {
    /// A run of at most about so many rows.
    pub(super) fn create(directory: &Directory, number: u64, rows_max: u64) -> io::Result<Self> {
        let buckets = Filter::buckets_for(rows_max);
        let file = |path| Ok::<_, io::Error>(BufWriter::with_capacity(BUFFER, File::create_new(path)?));
        let check_key = *directory.check_key();
        Ok(Self {
            number,
            check_key,
            rows_file: file(directory.rows_path(number))?,
            filter_file: Checked::new(file(directory.filter_path(number))?, &check_key),
            buckets,
            filter: PartBuilder::new(buckets),
            rows: 0,
            page: Vec::with_capacity(PAGE),
            packs: Vec::new(),
            places: HashMap::new(),
        })
    }

    /// Appends a row, whose key is greater than the one before.
    pub(super) fn push(&mut self, key: &Key, slot: &Slot) -> io::Result<()> {
        let Self { packs, places, .. } = self;
        let pack = *places.entry(slot.pack).or_insert_with(|| {
            packs.push(slot.pack);
            (packs.len() - 1) as u32
        });
        self.page.extend_from_slice(key);
        for number in [pack, slot.offset, slot.stored, slot.content, slot.frame] {
            self.page.extend_from_slice(&number.to_le_bytes());
        }
        self.rows += 1;
        let mut written = Ok(());
        let file = &mut self.filter_file;
        self.filter.push(key, |built| write_part(file, &built, &mut written));
        written?;
        if self.page.len() == TAG { self.end_page() } else { Ok(()) }
    }

    /// Writes what is left and makes all of it durable; the directory must still be synced.
    pub(super) fn finish(mut self, packs: &Packs) -> io::Result<u64> {
        if !self.page.is_empty() {
            self.page.resize(TAG, 0);
            self.end_page()?;
        }
        let (mut file, mut written) = (self.filter_file, Ok(()));
        self.filter.finish(|built| write_part(&mut file, &built, &mut written));
        written?;
        for pack in &self.packs {
            let (repository, id) = packs.id(*pack).ok_or_else(damaged)?;
            file.write_all(&repository)?;
            file.write_all(id.as_bytes())?;
        }
        for number in [self.buckets, self.rows, self.packs.len() as u64, self.number] {
            file.write_all(&number.to_le_bytes())?;
        }
        sync(file.end()?)?;
        sync(self.rows_file)?;
        Ok(self.rows)
    }

    fn end_page(&mut self) -> io::Result<()> {
        let number = (self.rows - 1) / PAGE_ROWS as u64;
        self.page.extend_from_slice(&self.number.to_le_bytes());
        self.page.extend_from_slice(&(number as u32).to_le_bytes());
        let check = blake3::keyed_hash(&self.check_key, &self.page);
        self.page.extend_from_slice(&check.as_bytes()[..PAGE - CHECKED]);
        self.rows_file.write_all(&self.page)?;
        self.page.clear();
        Ok(())
    }
}

fn sync(file: BufWriter<File>) -> io::Result<()> {
    file.into_inner().map_err(io::IntoInnerError::into_error)?.sync_all()
}

/// A part: how many words and prints, then both.
fn write_part(file: &mut impl Write, built: &Built, written: &mut io::Result<()>) {
    let mut octets = Vec::with_capacity(8 + built.ends.len() * 8);
    octets.extend_from_slice(&(built.ends.len() as u32).to_le_bytes());
    octets.extend_from_slice(&(built.prints.len() as u32).to_le_bytes());
    built.ends.iter().for_each(|word| octets.extend_from_slice(&word.to_le_bytes()));
    if written.is_ok() {
        *written = file.write_all(&octets).and_then(|()| file.write_all(&built.prints));
    }
}

fn read_filter(reader: &mut impl Read, trailer: &Trailer, length: u64) -> io::Result<Filter> {
    let mut filter = Filter::new(trailer.buckets);
    for _ in 0..Filter::parts_of(trailer.buckets) {
        let (mut words, mut prints) = ([0; 4], [0; 4]);
        reader.read_exact(&mut words)?;
        reader.read_exact(&mut prints)?;
        let [words, prints] = [words, prints].map(|number| u32::from_le_bytes(number) as usize);
        if (words * 8 + prints) as u64 > length {
            return Err(damaged());
        }
        let mut octets = vec![0; words * 8];
        reader.read_exact(&mut octets)?;
        let words = octets.as_chunks().0.iter().map(|word| u64::from_le_bytes(*word)).collect();
        let mut prints = vec![0; prints];
        reader.read_exact(&mut prints)?;
        if !filter.append(words, prints.into()) {
            return Err(damaged());
        }
    }
    Ok(filter)
}

/// The end of a filter's file.
struct Trailer {
    buckets: u64,
    rows: u64,
    packs: u64,
    number: u64,
}

impl Trailer {
    fn read(file: &File, length: u64) -> Option<Self> {
        let mut octets = [0; TRAILER];
        file.read_exact_at(&mut octets, length.checked_sub(TRAILER as u64)?).ok()?;
        let mut decoder = Decoder::new(&octets);
        let mut number = || decoder.array().ok().map(u64::from_le_bytes);
        let trailer = Self { buckets: number()?, rows: number()?, packs: number()?, number: number()? };
        // A part takes 8 octets at least.
        let is_possible = trailer.packs <= length / PACK as u64 && Filter::parts_of(trailer.buckets) <= length / 8;
        is_possible.then_some(trailer)
    }
}

/// Verifies a filter's file: its last octets are the check of all others.
fn verify(path: &std::path::Path, check_key: &CheckKey) -> io::Result<()> {
    let mut file = File::open(path)?;
    let length = file.metadata()?.len();
    let mut left = length.checked_sub(32).ok_or_else(damaged)?;
    let mut hasher = blake3::Hasher::new_keyed(check_key);
    let mut buffer = vec![0; BUFFER];
    while left > 0 {
        let step = left.min(BUFFER as u64) as usize;
        file.read_exact(&mut buffer[..step])?;
        hasher.update(&buffer[..step]);
        left -= step as u64;
    }
    let mut told = [0; 32];
    file.read_exact(&mut told)?;
    // A comparison of hashes.
    if hasher.finalize() == told { Ok(()) } else { Err(damaged()) }
}

/// Whether these octets are this page of this run.
fn check(page: &[u8], check_key: &CheckKey, (run, page_number): (u64, u64)) -> io::Result<()> {
    let (checked, told) = page.split_at_checked(CHECKED).ok_or_else(damaged)?;
    let mut tag = [0; CHECKED - TAG];
    tag[..8].copy_from_slice(&run.to_le_bytes());
    tag[8..].copy_from_slice(&(page_number as u32).to_le_bytes());
    let is_sound = checked[TAG..] == tag && blake3::keyed_hash(check_key, checked).as_bytes()[..told.len()] == *told;
    if is_sound { Ok(()) } else { Err(damaged()) }
}

fn decode(octets: &[u8]) -> Option<(Key, Slot)> {
    let mut decoder = Decoder::new(octets);
    let key = decoder.array().ok()?;
    let mut number = || decoder.array().ok().map(u32::from_le_bytes);
    let slot = Slot { pack: number()?, offset: number()?, stored: number()?, content: number()?, frame: number()? };
    Some((key, slot))
}

/// Files are not what was written.
pub(super) fn damaged() -> io::Error {
    io::Error::from(io::ErrorKind::InvalidData)
}

/// Hashes what is written through it.
#[derive(Debug)]
struct Checked<W> {
    inner: W,
    hasher: blake3::Hasher,
}

impl<W: Write> Checked<W> {
    fn new(inner: W, check_key: &CheckKey) -> Self {
        Self { inner, hasher: blake3::Hasher::new_keyed(check_key) }
    }

    /// Writes the check at the end.
    fn end(mut self) -> io::Result<W> {
        self.inner.write_all(self.hasher.finalize().as_bytes())?;
        Ok(self.inner)
    }
}

impl<W: Write> Write for Checked<W> {
    fn write(&mut self, octets: &[u8]) -> io::Result<usize> {
        let written = self.inner.write(octets)?;
        self.hasher.update(&octets[..written]);
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}
