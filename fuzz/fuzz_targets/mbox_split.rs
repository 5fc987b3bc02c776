//! Any octets as an mbox, read in chunks of any size: the messages and what is around them are the file, and the chunks do not matter.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| mailrail::fuzzing::mbox_split(input));
