//! What other ways of cutting and compressing would leave: dictionaries, longer blocks, long-distance matching, small blobs in one frame, other cuts.
//!
//! `sizes [--level N] DIRECTORY` takes all files below a directory for messages, apart as mailrail does, and everything that lies in the same directory of the top for one
//! mailbox. It prints stored octets for each way, counting for each blob what its frame, its row in the footer and its rows in the blob tables of commits take.

use anyhow::{Context, Result};
use clap::Parser;
use mailrail::mime::Limits;
use mailrail::recipe::{Cuts, Dissector};
use std::collections::{BTreeMap, HashSet};
use std::path::{Path, PathBuf};
use walkdir::WalkDir;
use zstd::bulk::Compressor;
use zstd::zstd_safe::CParameter;

/// Recipes are compressed in blocks of this many octets.
const BLOCK: usize = 1 << 20;
/// Blobs that are shorter than this are small.
const SMALL: usize = 64 << 10;
/// Octets of a dictionary: what zstd's own command makes unless told otherwise.
const DICTIONARY: usize = 110 << 10;
/// What a blob takes besides its content: length, codec and tag of its frame, its row in the footer.
const BLOB: usize = 4 + 1 + 16 + 32 + 6;
/// What a blob takes in the table of a commit that needs it.
const REFERENCE: usize = 32 + 10;

/// Measures what other ways of cutting and compressing would leave.
#[derive(Parser)]
struct Arguments {
    /// Mail: a file for each message, a directory for each mailbox
    directory: PathBuf,
    /// zstd's level
    #[arg(long, default_value_t = 3)]
    level: i32,
}

/// Mail, taken apart.
#[derive(Default)]
struct Taken {
    /// Unique blobs, in the order in which they came.
    blobs: Vec<Vec<u8>>,
    /// The recipes of each mailbox, one behind the other.
    recipes: BTreeMap<PathBuf, Vec<u8>>,
    /// How many rows the blob tables of all mailboxes have.
    references: usize,
}

fn main() -> Result<()> {
    let Arguments { directory, level } = Arguments::parse();
    let taken = Taken::new(&directory, Cuts::default())?;
    let (blobs, recipes) = (taken.blobs(level)?, taken.recipes(level, BLOCK, false)?);
    let base = taken.rows() + blobs + recipes;
    let tell = |name: &str, stored: usize| {
        println!("| {name} | {:.1} | {:+.2} % |", stored as f64 / 1e6, (stored as f64 / base as f64 - 1.0) * 100.0);
    };
    let octets: usize = taken.recipes.values().map(Vec::len).sum();
    let small = taken.blobs.iter().filter(|blob| blob.len() < SMALL).count();
    println!("{} blobs, {small} of them small; recipes of {:.1} MB\n", taken.blobs.len(), octets as f64 / 1e6);
    println!("| level {level} | stored MB | |\n|---|---:|---:|");
    tell("as it is", base);
    println!("| of that blobs | {:.1} | |\n| of that recipes | {:.1} | |", blobs as f64 / 1e6, recipes as f64 / 1e6);
    tell("dictionary for small blobs", taken.rows() + recipes + taken.blobs_with_dictionary(level)?);
    for length in [256 << 10, 1 << 20] {
        let name = format!("small blobs in frames of {} KiB", length >> 10);
        tell(&name, taken.rows() + recipes + taken.blobs_in_solid_frames(level, length)?);
    }
    tell("dictionary for recipes", taken.rows() + blobs + taken.recipes_with_dictionary(level)?);
    for length in [BLOCK / 4, BLOCK * 4, BLOCK * 16] {
        let name = format!("recipes in blocks of {} KiB", length >> 10);
        tell(&name, taken.rows() + blobs + taken.recipes(level, length, false)?);
    }
    tell(
        "recipes of a mailbox in one, long distances matched",
        taken.rows() + blobs + taken.recipes(level, usize::MAX, true)?,
    );
    drop(taken);
    for least in [1, 2, 8, 16] {
        let mut cuts = Cuts::default();
        cuts.base64_blob_min = least << 10;
        tell(&format!("base64 in blobs from {least} KiB"), Taken::new(&directory, cuts)?.stored(level)?);
    }
    for least in [8, 16, 64, 128] {
        let mut cuts = Cuts::default();
        cuts.verbatim_blob_min = least << 10;
        cuts.literal_run_max = cuts.literal_run_max.max(least << 11);
        tell(&format!("other bodies in blobs from {least} KiB"), Taken::new(&directory, cuts)?.stored(level)?);
    }
    Ok(())
}

impl Taken {
    fn new(directory: &Path, cuts: Cuts) -> Result<Self> {
        let mut taken = Self::default();
        let (mut known, mut referred) = (HashSet::new(), HashSet::new());
        let mut dissector = Dissector::new(cuts, Limits::default());
        for entry in WalkDir::new(directory).sort_by_file_name() {
            let entry = entry?;
            if !entry.file_type().is_file() {
                continue;
            }
            let mailbox: PathBuf = entry.path().strip_prefix(directory)?.iter().take(1).collect();
            let mailbox = if entry.depth() > 1 { mailbox } else { PathBuf::new() };
            let message = std::fs::read(entry.path()).with_context(|| entry.path().display().to_string())?;
            let Self { blobs, recipes, references } = &mut taken;
            let mut take = |piece: &[u8]| {
                let digest = *blake3::hash(piece).as_bytes();
                if known.insert(digest) {
                    blobs.push(piece.to_vec());
                }
                *references += usize::from(referred.insert((mailbox.clone(), digest)));
            };
            for slice in message.chunks(256 << 10) {
                dissector.push(slice, &mut take);
            }
            dissector.finish(&mut take, recipes.entry(mailbox.clone()).or_default());
        }
        Ok(taken)
    }

    fn stored(&self, level: i32) -> Result<usize> {
        Ok(self.rows() + self.blobs(level)? + self.recipes(level, BLOCK, false)?)
    }

    /// What blobs take besides their content.
    fn rows(&self) -> usize {
        self.blobs.len() * BLOB + self.references * REFERENCE
    }

    fn blobs(&self, level: i32) -> Result<usize> {
        compressed(&mut Compressor::new(level)?, self.blobs.iter().map(Vec::as_slice))
    }

    fn small(&self) -> impl Iterator<Item = &[u8]> {
        self.blobs.iter().map(Vec::as_slice).filter(|blob| blob.len() < SMALL)
    }

    fn large(&self, level: i32) -> Result<usize> {
        compressed(
            &mut Compressor::new(level)?,
            self.blobs.iter().map(Vec::as_slice).filter(|blob| blob.len() >= SMALL),
        )
    }

    /// Small blobs with a dictionary made of every tenth of them, which is counted once.
    fn blobs_with_dictionary(&self, level: i32) -> Result<usize> {
        let samples: Vec<&[u8]> = self.small().step_by(10).collect();
        let dictionary = zstd::dict::from_samples(&samples, DICTIONARY)?;
        let small = compressed(&mut Compressor::with_dictionary(level, &dictionary)?, self.small())?;
        Ok(dictionary.len() + small + self.large(level)?)
    }

    /// Small blobs joined into frames of this length: who wants one decompresses all in front of it.
    fn blobs_in_solid_frames(&self, level: i32, length: usize) -> Result<usize> {
        let (mut frames, mut frame) = (Vec::new(), Vec::new());
        for blob in self.small() {
            frame.extend_from_slice(blob);
            if frame.len() >= length {
                frames.push(std::mem::take(&mut frame));
            }
        }
        frames.push(frame);
        Ok(compressed(&mut Compressor::new(level)?, frames.iter().map(Vec::as_slice))? + self.large(level)?)
    }

    /// Recipes in blocks of this length, perhaps with matches of up to 128 MiB away.
    fn recipes(&self, level: i32, length: usize, is_long: bool) -> Result<usize> {
        let mut compressor = Compressor::new(level)?;
        if is_long {
            compressor.set_parameter(CParameter::EnableLongDistanceMatching(true))?;
            compressor.set_parameter(CParameter::WindowLog(27))?;
        }
        compressed(&mut compressor, self.recipes.values().flat_map(|recipes| recipes.chunks(length)))
    }

    /// Blocks of recipes with a dictionary made of every tenth KiB of them.
    fn recipes_with_dictionary(&self, level: i32) -> Result<usize> {
        let samples: Vec<&[u8]> =
            self.recipes.values().flat_map(|recipes| recipes.chunks(1 << 10)).step_by(10).collect();
        let dictionary = zstd::dict::from_samples(&samples, DICTIONARY)?;
        let mut compressor = Compressor::with_dictionary(level, &dictionary)?;
        Ok(dictionary.len()
            + compressed(&mut compressor, self.recipes.values().flat_map(|recipes| recipes.chunks(BLOCK)))?)
    }
}

/// What these take, each compressed by itself, or as it is if that is shorter.
fn compressed<'a>(compressor: &mut Compressor<'_>, contents: impl Iterator<Item = &'a [u8]>) -> Result<usize> {
    let mut stored = 0;
    for content in contents {
        stored += compressor.compress(content)?.len().min(content.len());
    }
    Ok(stored)
}
