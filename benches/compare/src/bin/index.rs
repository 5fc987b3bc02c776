//! The dedup index on disk at full size: inserts rows, looks up present and absent ones, and prints rates, write amplification, octets of disk and of memory; with mailrail's own
//! sorted runs, or with fjall in their place. docs/performance.md, "The large index", has the method and the results.
//!
//! To be run in a memory cgroup, so that the page cache counts.
#![allow(clippy::disallowed_methods, reason = "it measures")]

use anyhow::{Context, Result, ensure};
use clap::{Parser, ValueEnum};
use fjall::{Database, Keyspace, KeyspaceCreateOptions, PersistMode};
use mailrail::bench::Index;
use mailrail::digest::Digest;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Instant;

/// Measures the dedup index on disk.
#[derive(Parser)]
struct Arguments {
    /// What keeps the rows
    #[arg(long, value_enum, default_value_t = Kind::Runs)]
    kind: Kind,
    /// Measure at so many rows, each time beginning where the last one ended
    #[arg(long, value_delimiter = ',', default_value = "10000000,100000000")]
    rows: Vec<u64>,
    /// Look-ups of each kind
    #[arg(long, default_value_t = 1_000_000)]
    lookups: u64,
    /// MiB of memory for the index: of runs, what `Resources::index_in` gets; of fjall, the cache, beside which it has tables and a journal of 64 MiB
    #[arg(long, default_value_t = 208)]
    memory: usize,
    /// Where the files go: a new directory in this one
    #[arg(long)]
    work: Option<PathBuf>,
}

#[derive(Clone, Copy, ValueEnum)]
enum Kind {
    Runs,
    Fjall,
}

/// Octets of a row: 16 of a digest, five numbers.
const ROW: u64 = 36;
/// Rows in a pack.
const PACK: u64 = 1000;

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    let parent = arguments.work.clone().unwrap_or_else(std::env::temp_dir);
    let work = tempfile::Builder::new().prefix("mailrail-index.").tempdir_in(parent)?;
    let octets = arguments.memory << 20;
    let store: Box<dyn Store> = match arguments.kind {
        Kind::Runs => Box::new(Runs(Index::on_disk(work.path(), octets)?)),
        Kind::Fjall => Box::new(Fjall::open(work.path(), octets)?),
    };
    println!("| rows | insert, rows/s | to here, rows/s | present, /s | absent, /s | written | disk MB | peak MB |");
    println!("|---:|---:|---:|---:|---:|---:|---:|---:|");
    let (mut inserted, mut seconds, written_before) = (0, 0.0, written()?);
    for rows in arguments.rows {
        let began = Instant::now();
        for pack in inserted / PACK..rows / PACK {
            let digests: Vec<Digest> = (pack * PACK..(pack + 1) * PACK).map(digest).collect();
            store.insert(pack as u32, &digests)?;
        }
        store.flush()?;
        let step = began.elapsed().as_secs_f64();
        seconds += step;
        let amplification = (written()? - written_before) as f64 / (rows * ROW) as f64;
        let present = lookups(&*store, arguments.lookups, |number| scattered(number) % rows, true)?;
        let absent = lookups(&*store, arguments.lookups, |number| (1 << 40) + scattered(number) % rows, false)?;
        println!(
            "| {rows} | {:.0} | {:.0} | {present:.0} | {absent:.0} | {amplification:.2} | {:.0} | {:.0} |",
            (rows - inserted) as f64 / step,
            rows as f64 / seconds,
            disk(work.path())? as f64 / 1e6,
            peak()? as f64 / 1e6,
        );
        if let Some(extent) = store.extent() {
            eprintln!("rows, runs, disk octets, memory octets, dropped: {extent:?}");
        }
        inserted = rows;
    }
    Ok(())
}

/// Look-ups in a second.
fn lookups(store: &dyn Store, count: u64, number: impl Fn(u64) -> u64, is_present: bool) -> Result<f64> {
    let began = Instant::now();
    for turn in 0..count {
        let found = store.remembers(&digest(number(turn)))?;
        ensure!(found == is_present, "row {} is wrong", number(turn));
    }
    Ok(count as f64 / began.elapsed().as_secs_f64())
}

trait Store {
    fn insert(&self, pack: u32, digests: &[Digest]) -> Result<()>;
    fn flush(&self) -> Result<()>;
    fn remembers(&self, digest: &Digest) -> Result<bool>;
    fn extent(&self) -> Option<(u64, usize, u64, usize, u64)> {
        None
    }
}

struct Runs(Index);

impl Store for Runs {
    fn insert(&self, pack: u32, digests: &[Digest]) -> Result<()> {
        self.0.fill(pack, digests);
        Ok(())
    }

    fn flush(&self) -> Result<()> {
        self.0.flush();
        Ok(())
    }

    fn remembers(&self, digest: &Digest) -> Result<bool> {
        Ok(self.0.remembers(digest))
    }

    fn extent(&self) -> Option<(u64, usize, u64, usize, u64)> {
        Some(self.0.extent())
    }
}

/// Rows of the same octets in fjall.
struct Fjall {
    database: Database,
    rows: Keyspace,
}

impl Fjall {
    fn open(path: &Path, octets: usize) -> Result<Self> {
        let database = Database::builder(path)
            .cache_size(octets as u64)
            .worker_threads(1)
            .max_journaling_size(64 << 20)
            .manual_journal_persist(true)
            .open()?;
        let rows = database.keyspace("rows", || KeyspaceCreateOptions::default().max_memtable_size(16 << 20))?;
        Ok(Self { database, rows })
    }
}

impl Store for Fjall {
    fn insert(&self, pack: u32, digests: &[Digest]) -> Result<()> {
        let mut batch = self.database.batch();
        for digest in digests {
            let mut value = [0; 20];
            value[..4].copy_from_slice(&pack.to_le_bytes());
            batch.insert(&self.rows, &digest.as_bytes()[..16], value);
        }
        Ok(batch.commit()?)
    }

    fn flush(&self) -> Result<()> {
        Ok(self.database.persist(PersistMode::SyncAll)?)
    }

    fn remembers(&self, digest: &Digest) -> Result<bool> {
        Ok(self.rows.get(&digest.as_bytes()[..16])?.is_some())
    }
}

/// 32 octets that look random, cheaper than a hash.
fn digest(number: u64) -> Digest {
    let mut octets = [0; 32];
    for (place, chunk) in octets.as_chunks_mut::<8>().0.iter_mut().enumerate() {
        *chunk = scattered(number.wrapping_mul(4) + place as u64).to_le_bytes();
    }
    Digest::new(octets)
}

/// splitmix64.
fn scattered(number: u64) -> u64 {
    let mut value = number.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ (value >> 31)
}

/// Octets that this process has caused to be written to a disk.
fn written() -> Result<u64> {
    field(&fs::read_to_string("/proc/self/io")?, "write_bytes:")
}

/// The most octets that were resident.
fn peak() -> Result<u64> {
    Ok(field(&fs::read_to_string("/proc/self/status")?, "VmHWM:")? << 10)
}

fn field(text: &str, name: &str) -> Result<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name)).context("no such field")?;
    Ok(line.split_whitespace().next().context("an empty field")?.parse()?)
}

/// Octets of all files under a directory.
fn disk(path: &Path) -> Result<u64> {
    let mut octets = 0;
    for entry in walkdir::WalkDir::new(path) {
        // Files may go while they are looked for.
        octets += entry
            .ok()
            .and_then(|entry| entry.metadata().ok())
            .filter(|found| found.is_file())
            .map_or(0, |found| found.len());
    }
    Ok(octets)
}
