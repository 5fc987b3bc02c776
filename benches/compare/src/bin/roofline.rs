//! The least that could be done: what no engine can leave out that holds mail by the hash of its decoded content, and nothing else.
//!
//! Reads every file, hashes it (BLAKE3), finds its runs of base64, decodes them and hashes what they hold, looks up whether that is new, compresses
//! (zstd) what is new by itself and all other octets in blocks of 1 MiB, and writes the result. It can restore nothing: no index, no digests kept,
//! no order, no sealing, no error that is more than an end. mailrail is measured by how near it comes.
//!
//! `roofline DIRECTORY OUTPUT` prints what it did; it uses all cores.

use anyhow::{Context, Result, bail};
use std::collections::HashSet;
use std::fs::File;
use std::io::{Cursor, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use zstd::bulk::Compressor;

/// Other octets are compressed in blocks of this many.
const BLOCK: usize = 1 << 20;
/// Decoded content of at least this many octets is held by its hash.
const CONTENT_MIN: usize = 4 << 10;
/// Output is written in this many octets at once.
const WRITE: usize = 4 << 20;
/// Files are read in slices of at most this many octets.
const SLICE: u64 = 64 << 20;
/// Files are taken from the list this many at a time.
const FILES: usize = 32;
const LEVEL: i32 = 3;
/// A run of base64 has lines of at least this many octets.
const LINE_MIN: usize = 40;

fn main() -> Result<()> {
    let arguments: Vec<PathBuf> = std::env::args_os().skip(1).map(PathBuf::from).collect();
    let [tree, output] = arguments.as_slice() else { bail!("usage: roofline DIRECTORY OUTPUT") };
    let mut files = Vec::new();
    for entry in walkdir::WalkDir::new(tree).sort_by_file_name() {
        let entry = entry?;
        if entry.file_type().is_file() {
            files.push(entry.into_path());
        }
    }
    std::fs::create_dir_all(output)?;
    let (next, seen) = (AtomicUsize::new(0), Mutex::new(HashSet::new()));
    let threads = thread::available_parallelism().map_or(1, usize::from);
    let written = thread::scope(|scope| -> Result<u64> {
        let work = |number| {
            let (files, next, seen) = (&files, &next, &seen);
            let path = output.join(format!("worker-{number}"));
            scope.spawn(move || Worker::new(&path, seen)?.work(files, next))
        };
        let workers: Vec<_> = (0..threads).map(work).collect();
        workers.into_iter().map(|worker| worker.join().expect("a worker panicked")).sum()
    })?;
    println!("{} files, {written} octets written", files.len());
    Ok(())
}

type Seen = Mutex<HashSet<[u8; 16]>>;

struct Worker<'a> {
    output: File,
    written: u64,
    waiting: Cursor<Vec<u8>>,
    compressor: Compressor<'static>,
    block: Vec<u8>,
    decoded: Vec<u8>,
    seen: &'a Seen,
}

impl<'a> Worker<'a> {
    fn new(path: &Path, seen: &'a Seen) -> Result<Self> {
        Ok(Self {
            output: File::create(path)?,
            written: 0,
            waiting: Cursor::new(Vec::with_capacity(WRITE * 2)),
            compressor: Compressor::new(LEVEL)?,
            block: Vec::with_capacity(BLOCK * 2),
            decoded: Vec::new(),
            seen,
        })
    }

    /// Takes files until there are no more, and gives the octets written.
    fn work(mut self, files: &[PathBuf], next: &AtomicUsize) -> Result<u64> {
        let mut octets = Vec::new();
        loop {
            let first = next.fetch_add(FILES, Ordering::Relaxed);
            if first >= files.len() {
                break;
            }
            for path in &files[first..files.len().min(first + FILES)] {
                let mut file = File::open(path).with_context(|| path.display().to_string())?;
                loop {
                    octets.clear();
                    if (&mut file).take(SLICE).read_to_end(&mut octets)? == 0 {
                        break;
                    }
                    std::hint::black_box(blake3::hash(&octets));
                    self.take_apart(&octets)?;
                }
            }
        }
        self.close_block()?;
        self.flush()?;
        Ok(self.written)
    }

    fn take_apart(&mut self, octets: &[u8]) -> Result<()> {
        let mut rest = octets;
        while let Some(found) = find_run(rest) {
            let (before, run) = rest.split_at(found);
            self.other(before)?;
            let mut decoded = std::mem::take(&mut self.decoded);
            let (encoded, length) = decode(run, &mut decoded);
            if length < CONTENT_MIN {
                self.other(&decoded[..length])?;
            } else {
                self.content(&decoded[..length])?;
            }
            self.decoded = decoded;
            rest = &run[encoded..];
        }
        self.other(rest)
    }

    fn content(&mut self, octets: &[u8]) -> Result<()> {
        let digest = blake3::hash(octets);
        let (key, _) = digest.as_bytes().split_first_chunk::<16>().expect("a digest is longer");
        if self.seen.lock().expect("a worker panicked").insert(*key) {
            self.compress(octets)?;
        }
        Ok(())
    }

    fn other(&mut self, octets: &[u8]) -> Result<()> {
        self.block.extend_from_slice(octets);
        if self.block.len() >= BLOCK { self.close_block() } else { Ok(()) }
    }

    fn close_block(&mut self) -> Result<()> {
        let block = std::mem::take(&mut self.block);
        for part in block.chunks(BLOCK) {
            self.compress(part)?;
        }
        self.block = block;
        self.block.clear();
        Ok(())
    }

    fn compress(&mut self, octets: &[u8]) -> Result<()> {
        let from = self.waiting.get_ref().len();
        self.waiting.get_mut().reserve(zstd::zstd_safe::compress_bound(octets.len()));
        self.waiting.set_position(from as u64);
        self.compressor.compress_to_buffer(octets, &mut self.waiting)?;
        if self.waiting.get_ref().len() >= WRITE { self.flush() } else { Ok(()) }
    }

    fn flush(&mut self) -> Result<()> {
        self.output.write_all(self.waiting.get_ref())?;
        self.written += self.waiting.get_ref().len() as u64;
        self.waiting.get_mut().clear();
        Ok(())
    }
}

/// Where the next body begins that is declared to be base64 and looks like it.
fn find_run(octets: &[u8]) -> Option<usize> {
    let mut from = 0;
    loop {
        let declared = from + memchr::memmem::find(&octets[from..], b"base64")?;
        let blank = blank_line(&octets[declared..])?;
        let at = declared + blank;
        if line(&octets[at..]).is_some_and(|line| line.content >= LINE_MIN && is_base64(&octets[at..at + line.content]))
        {
            return Some(at);
        }
        from = at;
    }
}

/// Behind the first blank line.
fn blank_line(octets: &[u8]) -> Option<usize> {
    memchr::memchr_iter(b'\n', octets).find_map(|at| match &octets[at + 1..] {
        [b'\n', ..] => Some(at + 2),
        [b'\r', b'\n', ..] => Some(at + 3),
        _ => None,
    })
}

struct Line {
    content: usize,
    whole: usize,
}

fn line(octets: &[u8]) -> Option<Line> {
    let end = memchr::memchr(b'\n', octets)?;
    let content = if end > 0 && octets[end - 1] == b'\r' { end - 1 } else { end };
    Some(Line { content, whole: end + 1 })
}

fn is_base64(octets: &[u8]) -> bool {
    base64_simd::STANDARD.check(octets).is_ok()
}

/// Decodes lines of base64, all as long as the first one but the last, into the front of `decoded`. Gives how many octets they are, and hold.
fn decode(run: &[u8], decoded: &mut Vec<u8>) -> (usize, usize) {
    let Some(first) = line(run) else { return (0, 0) };
    let (mut at, mut length) = (0, 0);
    while let Some(next) = run.get(at..at + first.whole).filter(|next| next.ends_with(b"\n")) {
        let Some(octets) = decode_line(&next[..first.content], decoded, length) else { break };
        length += octets;
        at += first.whole;
    }
    let last = line(&run[at..]).filter(|last| (1..first.content).contains(&last.content));
    if let Some(last) = last
        && let Some(octets) = decode_line(&run[at..at + last.content], decoded, length)
    {
        length += octets;
        at += last.whole;
    }
    (at, length)
}

fn decode_line(line: &[u8], decoded: &mut Vec<u8>, at: usize) -> Option<usize> {
    if decoded.len() < at + line.len() {
        decoded.resize((at + line.len()) * 2, 0);
    }
    let room = base64_simd::Out::from_slice(&mut decoded[at..at + line.len()]);
    base64_simd::STANDARD.decode(line, room).ok().map(|octets| octets.len())
}
