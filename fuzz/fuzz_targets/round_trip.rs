//! Any values as every kind of object of a repository: what is written reads back as it was.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| mailrail::fuzzing::round_trip(input));
