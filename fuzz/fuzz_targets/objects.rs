//! Any octets as every kind of object of a repository, as they are and sealed, and sealed objects with one octet changed.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| mailrail::fuzzing::sealed_objects(input));
