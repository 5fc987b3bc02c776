//! Messages made to break what takes them apart: each comes back to the octet, in bounded memory.

use crate::bombs::{Bomb, bombs};
use crate::{bomb_octets, is_full};
use futures::executor::block_on;
use mailrail::mime::Limits;
use mailrail::recipe::{Cuts, Dissector, Need, Rebuilder, Recipe};
use mailrail::store::FileStore;
use mailrail::{Engine, Protection, Repository, Resources, sink};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

const BUDGET: u64 = 64 << 20;
const BEYOND: u64 = 64 << 20;
const ROLE: &str = "MAILRAIL_HOSTILE_ROLE";
const PLACE: &str = "MAILRAIL_HOSTILE_PLACE";

/// Each bomb is pushed, restored and checked in processes of their own, whose peaks the kernel keeps.
#[cfg(target_os = "linux")]
#[test]
fn every_bomb_comes_back_to_the_octet_and_takes_no_more_memory_than_any_mail() {
    for bomb in bombs(bomb_octets()) {
        let place = tempfile::tempdir().unwrap();
        for step in ["push", "restore", "check"] {
            let peak = in_a_process(bomb.name, step, place.path());
            if is_full() {
                println!("| {} | {step} | {:.1} MiB |", bomb.name, peak as f64 / 1_048_576.0);
            }
            assert!(peak < BUDGET + BEYOND, "{} {step}: {} MiB at most", bomb.name, peak >> 20);
        }
    }
}

fn in_a_process(bomb: &str, step: &str, place: &Path) -> u64 {
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "mail::child", "--nocapture"])
        .env(ROLE, format!("{step}/{bomb}"))
        .env(PLACE, place)
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{bomb} {step}: {text}\n{}", String::from_utf8_lossy(&output.stderr));
    text.lines().find_map(|line| line.split_once("peak ")?.1.parse::<u64>().ok()).unwrap()
}

/// Does nothing unless it is the process of a step.
#[test]
fn child() {
    let (Ok(role), Ok(place)) = (std::env::var(ROLE), std::env::var(PLACE)) else { return };
    let (step, name) = role.split_once('/').unwrap();
    let bomb = bombs(bomb_octets()).into_iter().find(|bomb| bomb.name == name).unwrap();
    block_on(async {
        let store = Arc::new(FileStore::open_or_create(PathBuf::from(place).join("store")).unwrap());
        let repository = Repository::open_or_create(store, Protection::None).await.unwrap();
        let engine = Engine::builder(repository).resources(Resources::with(BUDGET, 2).unwrap()).build().unwrap();
        run(step, bomb, &engine).await;
        assert!(engine.resources().budget().peak() <= BUDGET);
    });
    println!("peak {}", crate::stores::peak());
}

async fn run(step: &str, bomb: Bomb, engine: &Engine) {
    match step {
        "push" => {
            let report = engine.transfer(bomb).finish().await.unwrap();
            assert!(report.ledger.is_complete() && report.ledger.messages.stored == 1, "{report:?}");
        }
        "restore" => {
            // Whatever is delivered is what its digest says.
            let report = engine.restore(sink::DryRun::new()).finish().await.unwrap();
            assert!(report.is_complete() && report.restored == 1, "{report:?}");
            // A million of anything has a size of its own.
            assert!(report.bytes > (bomb_octets() / 8).min(8 << 20), "{report:?}");
        }
        _ => {
            let report = engine.check().read_data(true).finish().await.unwrap();
            assert!(report.is_sound() && report.rebuilt == 1, "{report:?}");
        }
    }
}

/// What a limit stops is kept as it is: the same bombs, small, under limits that all of them meet.
#[test]
fn beyond_a_limit_of_the_structure_a_message_is_plain_octets_and_comes_back() {
    let mut limits = Limits::default();
    (limits.depth_max, limits.parts_max) = (3, 5);
    (limits.header_bytes_max, limits.field_bytes_max, limits.boundary_bytes_max) = (2000, 200, 20);
    for limits in [limits, Limits::default()] {
        for cuts in [Cuts::default(), small_cuts()] {
            let mut dissector = Dissector::new(cuts, limits.clone());
            for bomb in bombs(100_000) {
                let octets = bomb.prefix(2_000_000);
                let (recipe, pieces) = dissect(&mut dissector, &octets);
                assert!(recipe.len() <= cuts.recipe_max, "{}", bomb.name);
                assert!(rebuild(&recipe, &pieces) == octets, "{}", bomb.name);
            }
        }
    }
}

fn small_cuts() -> Cuts {
    let mut cuts = Cuts::default();
    (cuts.base64_blob_min, cuts.verbatim_blob_min, cuts.literal_run_max) = (50, 100, 200);
    (cuts.piece_max, cuts.recipe_max) = (1000, 4096);
    cuts
}

fn dissect(dissector: &mut Dissector, message: &[u8]) -> (Vec<u8>, Vec<Vec<u8>>) {
    let (mut recipe, mut pieces) = (Vec::new(), Vec::new());
    for chunk in message.chunks(256 << 10) {
        dissector.push(chunk, &mut |piece| pieces.push(piece.to_vec()));
    }
    let outcome = dissector.finish(&mut |piece| pieces.push(piece.to_vec()), &mut recipe);
    assert_eq!(outcome.length, message.len() as u64);
    (recipe, pieces)
}

fn rebuild(recipe: &[u8], pieces: &[Vec<u8>]) -> Vec<u8> {
    let (mut message, mut pieces) = (Vec::new(), pieces.iter());
    let mut out = |octets: &[u8]| {
        message.extend_from_slice(octets);
        Ok(())
    };
    let mut rebuilder = Rebuilder::new(Recipe::decode(recipe).unwrap());
    while let Need::Piece(_) = rebuilder.advance(&mut out).unwrap() {
        rebuilder.piece(pieces.next().unwrap(), &mut out).unwrap();
    }
    message
}

/// Recipes that ask for more than there is, or for more than there can be.
#[test]
fn a_recipe_that_lies_about_its_lengths_is_refused_or_gives_no_more_than_it_says() {
    let lies: [&[u8]; 8] = [
        // As many spans as there are numbers; a literal of 2^60 octets; of none; a piece longer than its span.
        b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01",
        b"\x01\x80\x80\x80\x80\x80\x80\x80\x80\x40",
        b"\x01\x00",
        b"\x01\x11\x09",
        // Base64 of lines without a width; of 2^32 line ends in front; two spans that are 2^64 octets together.
        b"\x01\x0b\x06\x00A",
        b"\x01\x0b\x18\xff\xff\xff\xff\x0fA",
        b"\x02\xf9\xff\xff\xff\xff\xff\xff\xff\xff\x01\x00\xf9\xff\xff\xff\xff\xff\xff\xff\xff\x01\x00",
        b"\x02\xf9\xff\xff\xff\xff\xff\xff\xff\xff\x01\x01\xfa\xff\xff\xff\xff\xff\xff\xff\xff\x01\x00\x00",
    ];
    for lie in lies {
        let Ok(recipe) = Recipe::decode(lie) else { continue };
        // It may be true of a message longer than any: then it asks for pieces that no table has.
        assert!(recipe.length() >= recipe.pieces(), "{lie:?}");
        let mut rebuilder = Rebuilder::new(recipe);
        assert!(matches!(rebuilder.advance(&mut |_| Ok(())), Ok(Need::Piece(_)) | Err(_)), "{lie:?}");
    }
}
