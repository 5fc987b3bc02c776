//! The simulation: whole transfers, restores and checks, on one thread each, over a store that does its worst, from one number each.
//!
//! docs/reliability.md tells what it does, how to run it, and what it has found. A seed that fails says how to run it again.
//!
//! - `MAILRAIL_SIMULATION_SEEDS`: how many seeds are run;
//! - `MAILRAIL_SIMULATION_FIRST`: the first of them;
//! - `MAILRAIL_SIMULATION_LIST=1`: seeds that fail are listed, each with what is wrong, and those behind them are run as well.
#![cfg(feature = "testing")]
#![allow(unreachable_pub, reason = "the modules of a test are seen by nobody else")]

#[path = "../common/mod.rs"]
mod common;
mod coverage;
mod files;
mod history;
mod mail;
mod model;
mod objects;
mod process;
mod random;
mod scenario;
mod store;
mod world;

use coverage::Coverage;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

/// How many seeds are run unless it is said otherwise: so many that `cargo test` takes seconds for them.
const SEEDS: u64 = 1_000;

/// How many seeds are run at once, each on a thread of its own.
const THREADS: u64 = 2;

/// How many of the last lines of a failed seed's log are printed.
const LOG_LINES: u64 = 2_000;

#[test]
fn whatever_goes_wrong_nothing_that_was_acknowledged_is_lost_and_nothing_lies() {
    let (first, seeds) = (number("MAILRAIL_SIMULATION_FIRST", 0), number("MAILRAIL_SIMULATION_SEEDS", SEEDS));
    let is_list = number("MAILRAIL_SIMULATION_LIST", 0) > 0;
    let (next, coverage, failed) = (AtomicU64::new(first), Mutex::new(Coverage::default()), Mutex::new(None));
    std::thread::scope(|scope| {
        for _ in 0..THREADS.min(seeds) {
            scope.spawn(|| {
                let mut counted = Coverage::default();
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= first + seeds || !is_list && failed.lock().unwrap().is_some() {
                        break;
                    }
                    let outcome = scenario::run(seed, false);
                    counted.join(&outcome.coverage);
                    if let Err(wrong) = outcome.result {
                        if is_list {
                            println!("seed {seed}: {wrong}");
                        }
                        let mut failed = failed.lock().unwrap();
                        *failed = Some(failed.map_or(seed, |other: u64| other.min(seed)));
                    }
                }
                coverage.lock().unwrap().join(&counted);
            });
        }
    });
    if let Some(seed) = *failed.lock().unwrap() {
        explain(seed);
    }
    let coverage = coverage.lock().unwrap().clone();
    println!("{seeds} seeds from {first}\n{coverage:?}");
    // In few seeds anything may be missing by chance.
    let rare = if seeds < 500 { Vec::new() } else { coverage.rare(seeds) };
    assert!(rare.is_empty(), "in {seeds} seeds these happened too rarely: {rare:#?}");
}

#[test]
fn a_seed_tells_the_same_story_every_time() {
    for seed in 0..20 {
        let (one, two) = (scenario::run(seed, true), scenario::run(seed, true));
        assert_eq!(one.log, two.log, "seed {seed}");
        assert!(one.coverage == two.coverage && one.log.len() > 100);
    }
}

/// Runs a seed that failed once more, prints what happened, and how to see it again.
fn explain(seed: u64) -> ! {
    let outcome = scenario::run(seed, true);
    let skipped = outcome.log.len().saturating_sub(number("MAILRAIL_SIMULATION_LOG", LOG_LINES) as usize);
    println!("the log of seed {seed}, without its first {skipped} lines:");
    outcome.log.iter().skip(skipped).for_each(|line| println!("{line}"));
    let wrong = outcome.result.err().unwrap_or_else(|| "it does not fail again: it is not deterministic".to_owned());
    panic!(
        "seed {seed}: {wrong}\nMAILRAIL_SIMULATION_FIRST={seed} MAILRAIL_SIMULATION_SEEDS=1 cargo test --features testing --test simulation -- --nocapture whatever"
    );
}

fn number(variable: &str, otherwise: u64) -> u64 {
    let value = std::env::var(variable).ok();
    value.map_or(otherwise, |value| value.parse().unwrap_or_else(|_| panic!("{variable} is not a number: '{value}'")))
}
