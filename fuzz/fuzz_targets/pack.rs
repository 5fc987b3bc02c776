//! Any octets, and sound objects with one thing changed, as what a repository holds: refused or read, never a panic, no changed octet unnoticed.
#![no_main]

use libfuzzer_sys::fuzz_target;
use mailrail::fuzzing;

// The first octet chooses what the rest is taken for.
fuzz_target!(|input: &[u8]| {
    let Some((choice, octets)) = input.split_first() else { return };
    match choice % 7 {
        0 => fuzzing::pack(octets),
        1 => fuzzing::pack_changed(octets),
        2 => fuzzing::commit(octets),
        3 => fuzzing::commit_changed(octets),
        4 => fuzzing::columns(octets),
        5 => fuzzing::config(octets),
        _ => fuzzing::tables(octets),
    }
});
