//! Any octets as an mbox, read in chunks of any size: the messages and what is around them are the file, and the chunks do not matter.
#![no_main]

use libfuzzer_sys::fuzz_target;
use mailrail::source::mbox::{Variant, split_all};

// The first octets choose the chunk, the longest message in memory and the variant, the rest is the file.
fuzz_target!(|input: &[u8]| {
    let Some((choice, file)) = input.split_first_chunk::<4>() else { return };
    let chunk = usize::from(u16::from_le_bytes([choice[0], choice[1]])) + 1;
    let inline_max = u64::from(choice[2]) * 16;
    let variant = [None, Some(Variant::Mboxrd), Some(Variant::Mboxcl2)][usize::from(choice[3]) % 3];

    let pieces = split_all(file, chunk, inline_max, variant);
    assert_eq!(pieces.concat().concat(), file);
    assert_eq!(split_all(file, file.len().max(1), u64::MAX, variant), pieces);
});
