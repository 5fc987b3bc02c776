//! Any octets, and sound objects with one octet changed, as packs, commits and the rest of a repository.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| mailrail::fuzzing::objects(input));
