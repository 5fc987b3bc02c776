//! Any octets, in any slices: what is covered encodes back to what it was, what is not is given back, and slices do not matter.
#![no_main]

use libfuzzer_sys::fuzz_target;
use mailrail::mime::base64::{Covered, Decoder, Encoder};

fuzz_target!(|input: &[u8]| {
    let Some((&slice, encoded)) = input.split_first() else { return };
    let (covered, decoded, uncovered) = decode(encoded, usize::MAX);
    let mut again = Vec::new();
    if covered.decoded > 0 {
        let mut encoder = Encoder::new(covered.shape);
        for chunk in decoded.chunks(usize::from(slice).max(1)) {
            encoder.push(chunk, &mut again);
        }
        encoder.finish(&mut again);
    }
    assert_eq!(again.len() as u64, covered.encoded);
    again.extend_from_slice(&uncovered);
    assert_eq!(again, encoded);
    assert_eq!(decode(encoded, usize::from(slice).max(1)), (covered, decoded, uncovered));
});

fn decode(encoded: &[u8], slice: usize) -> (Covered, Vec<u8>, Vec<u8>) {
    let mut decoder = Decoder::new();
    let mut decoded = Vec::new();
    let mut rest = encoded;
    while !rest.is_empty() && !decoder.is_stopped() {
        let taken = decoder.push(&rest[..slice.min(rest.len())], &mut decoded, usize::MAX);
        rest = &rest[taken..];
    }
    let covered = decoder.finish(&mut decoded);
    assert_eq!(covered.decoded, decoded.len() as u64);
    (covered, decoded, [decoder.uncovered(), rest].concat())
}
