//! Real mail, wherever there is some: every file under MAILRAIL_CORPUS is taken apart and put together again, as it is and with its line ends
//! changed to LF and to CR LF.

use mailrail::mime::Limits;
use mailrail::recipe::{Cuts, Dissected, Dissector, Need, Rebuilder, Recipe};
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};

#[test]
fn every_file_of_the_corpus_comes_back() {
    let Some(corpus) = std::env::var_os("MAILRAIL_CORPUS") else {
        println!("skipped: MAILRAIL_CORPUS is not set");
        return;
    };
    let files = files_under(&corpus);
    let workers = std::thread::available_parallelism().map_or(1, usize::from);
    let totals: Vec<Totals> = std::thread::scope(|scope| {
        let shares = files.chunks(files.len().div_ceil(workers).max(1));
        let running: Vec<_> = shares.map(|share| scope.spawn(|| check_files(share))).collect();
        running.into_iter().map(|share| share.join().expect("a share of the corpus failed")).collect()
    });
    let total = totals.into_iter().fold(Totals::default(), Totals::plus);
    println!(
        "{} files, {} octets; literals and spans {} octets, {} pieces of {} octets",
        total.files, total.octets, total.recipes, total.pieces, total.piece_octets,
    );
    println!(
        "base64: {} parts, {:.2} % exact; {} octets, {:.2} % decoded",
        total.parts,
        percent(total.exact, total.parts),
        total.base64_octets,
        percent(total.decoded, total.base64_octets),
    );
}

#[derive(Clone, Copy, Default)]
struct Totals {
    files: u64,
    octets: u64,
    recipes: u64,
    pieces: u64,
    piece_octets: u64,
    parts: u64,
    exact: u64,
    base64_octets: u64,
    decoded: u64,
}

impl Totals {
    fn plus(self, other: Self) -> Self {
        Self {
            files: self.files + other.files,
            octets: self.octets + other.octets,
            recipes: self.recipes + other.recipes,
            pieces: self.pieces + other.pieces,
            piece_octets: self.piece_octets + other.piece_octets,
            parts: self.parts + other.parts,
            exact: self.exact + other.exact,
            base64_octets: self.base64_octets + other.base64_octets,
            decoded: self.decoded + other.decoded,
        }
    }
}

fn percent(part: u64, whole: u64) -> f64 {
    100.0 * part as f64 / whole.max(1) as f64
}

fn files_under(corpus: &OsString) -> Vec<PathBuf> {
    let mut open = vec![PathBuf::from(corpus)];
    let mut files = Vec::new();
    while let Some(directory) = open.pop() {
        for entry in fs::read_dir(&directory).expect("a directory of the corpus cannot be read") {
            let entry = entry.expect("a directory of the corpus cannot be read");
            match entry.file_type() {
                Ok(kind) if kind.is_dir() => open.push(entry.path()),
                Ok(kind) if kind.is_file() => files.push(entry.path()),
                _ => {}
            }
        }
    }
    files.sort();
    files
}

fn check_files(files: &[PathBuf]) -> Totals {
    let mut dissector = Dissector::new(Cuts::default(), Limits::default());
    let mut totals = Totals::default();
    for file in files {
        let message = fs::read(file).expect("a file of the corpus cannot be read");
        totals = totals.plus(check(&mut dissector, file, &message));
        let lf = with_lf(&message);
        check(&mut dissector, file, &lf);
        check(&mut dissector, file, &with_crlf(&lf));
    }
    totals
}

fn check(dissector: &mut Dissector, file: &Path, message: &[u8]) -> Totals {
    let (recipe, pieces, outcome) = dissect(dissector, message, 256 << 10);
    // Another slicing, with an odd number, so that it cuts everywhere.
    let (recipe_again, pieces_again, outcome_again) = dissect(dissector, message, 61);
    assert!(
        recipe == recipe_again && pieces == pieces_again && outcome == outcome_again,
        "{}: slicing matters",
        file.display()
    );
    assert!(rebuild(&recipe, &pieces) == message, "{}: comes back changed", file.display());
    Totals {
        files: 1,
        octets: outcome.length,
        recipes: recipe.len() as u64,
        pieces: outcome.pieces,
        piece_octets: pieces.iter().map(|piece| piece.len() as u64).sum(),
        parts: outcome.base64_parts,
        exact: outcome.base64_exact,
        base64_octets: outcome.base64_octets,
        decoded: outcome.base64_decoded,
    }
}

fn dissect(dissector: &mut Dissector, message: &[u8], slice: usize) -> (Vec<u8>, Vec<Vec<u8>>, Dissected) {
    let (mut recipe, mut pieces) = (Vec::new(), Vec::new());
    for slice in message.chunks(slice) {
        dissector.push(slice, &mut |piece| pieces.push(piece.to_vec()));
    }
    let outcome = dissector.finish(&mut |piece| pieces.push(piece.to_vec()), &mut recipe);
    assert_eq!(outcome.rebuilt, outcome.length);
    (recipe, pieces, outcome)
}

fn rebuild(recipe: &[u8], pieces: &[Vec<u8>]) -> Vec<u8> {
    let mut rebuilder = Rebuilder::new(Recipe::decode(recipe).expect("a recipe does not decode"));
    let mut message = Vec::new();
    let mut out = |octets: &[u8]| {
        message.extend_from_slice(octets);
        Ok(())
    };
    let mut pieces = pieces.iter();
    while let Need::Piece(_) = rebuilder.advance(&mut out).expect("a message does not rebuild") {
        let piece = pieces.next().expect("the recipe asks for more pieces than there are");
        rebuilder.piece(piece, &mut out).expect("a piece does not fit");
    }
    assert!(pieces.next().is_none(), "a piece was not asked for");
    message
}

fn with_lf(message: &[u8]) -> Vec<u8> {
    let mut changed = Vec::with_capacity(message.len());
    for (at, octet) in message.iter().enumerate() {
        if *octet != b'\r' || message.get(at + 1) != Some(&b'\n') {
            changed.push(*octet);
        }
    }
    changed
}

fn with_crlf(message: &[u8]) -> Vec<u8> {
    let mut changed = Vec::with_capacity(message.len() + message.len() / 32);
    for octet in message {
        if *octet == b'\n' {
            changed.push(b'\r');
        }
        changed.push(*octet);
    }
    changed
}
