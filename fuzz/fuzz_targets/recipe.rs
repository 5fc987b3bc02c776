//! Any message comes back, sliced in any way; anything taken for a recipe is an error or rebuilds exactly as long as it says.
#![no_main]

use libfuzzer_sys::fuzz_target;
use mailrail::mime::Limits;
use mailrail::recipe::{Cuts, Dissector, Need, Rebuilder, Recipe};

fuzz_target!(|input: &[u8]| {
    let Some((&control, octets)) = input.split_first() else { return };
    rebuild_from_zeros(octets);
    let mut cuts = Cuts::default();
    if control & 1 == 1 {
        // Small ones, so that a short message meets all of them.
        cuts.base64_blob_min = 50;
        cuts.verbatim_blob_min = 100;
        cuts.literal_run_max = 200;
        cuts.piece_max = 64;
        cuts.recipe_max = 4096;
    }
    let mut dissector = Dissector::new(cuts, Limits::default());
    let whole = dissect(&mut dissector, octets, usize::MAX);
    assert_eq!(whole, dissect(&mut dissector, octets, usize::from(control >> 1).max(1)));
    assert!(whole.0.len() <= cuts.recipe_max);
    assert_eq!(rebuild(&whole.0, &whole.1), octets);
});

fn dissect(dissector: &mut Dissector, message: &[u8], slice: usize) -> (Vec<u8>, Vec<Vec<u8>>) {
    let (mut recipe, mut pieces) = (Vec::new(), Vec::new());
    for slice in message.chunks(slice) {
        dissector.push(slice, &mut |piece| pieces.push(piece.to_vec()));
    }
    let outcome = dissector.finish(&mut |piece| pieces.push(piece.to_vec()), &mut recipe);
    assert_eq!(outcome.rebuilt, outcome.length);
    assert_eq!((outcome.length, outcome.pieces), (message.len() as u64, pieces.len() as u64));
    (recipe, pieces)
}

fn rebuild(recipe: &[u8], pieces: &[Vec<u8>]) -> Vec<u8> {
    let recipe = Recipe::decode(recipe).expect("our own recipe decodes");
    let _ = recipe.parts();
    let mut message = Vec::new();
    let mut out = |octets: &[u8]| {
        message.extend_from_slice(octets);
        Ok(())
    };
    let mut rebuilder = Rebuilder::new(recipe);
    let mut pieces = pieces.iter();
    while let Need::Piece(_) = rebuilder.advance(&mut out).expect("our own recipe rebuilds") {
        rebuilder.piece(pieces.next().expect("no piece is missing"), &mut out).expect("our own pieces fit");
    }
    message
}

fn rebuild_from_zeros(octets: &[u8]) {
    let Ok(recipe) = Recipe::decode(octets) else { return };
    let _ = recipe.parts();
    let length = recipe.length();
    if length > 1 << 16 {
        return;
    }
    let mut rebuilt = 0;
    let mut out = |octets: &[u8]| {
        rebuilt += octets.len() as u64;
        Ok(())
    };
    let mut rebuilder = Rebuilder::new(recipe);
    while let Need::Piece(piece) = rebuilder.advance(&mut out).expect("a recipe that decodes rebuilds") {
        rebuilder.piece(&vec![0; piece as usize], &mut out).expect("a piece of the length asked for fits");
    }
    assert_eq!(rebuilt, length);
}
