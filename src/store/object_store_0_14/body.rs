//! Payloads as that crate has them: the same octets, not copied.

use crate::store::Payload;
use bytes::Bytes;
use object_store::PutPayload;

/// All of it.
pub(super) fn whole(payload: &Payload) -> PutPayload {
    payload.pieces().iter().filter(|piece| !piece.is_empty()).cloned().collect()
}

/// Its parts of `length` octets each, the last one of what is left. `length` is at least 1.
pub(super) fn parts(payload: &Payload, length: u64) -> impl Iterator<Item = PutPayload> {
    let mut pieces: Vec<Bytes> = payload.pieces().iter().rev().cloned().collect();
    std::iter::from_fn(move || {
        let part = next_part(&mut pieces, length);
        (!part.is_empty()).then(|| part.into_iter().collect())
    })
}

/// Takes the next octets off pieces of which the last is the next.
fn next_part(pieces: &mut Vec<Bytes>, length: u64) -> Vec<Bytes> {
    let mut part = Vec::new();
    let mut room = length;
    while room > 0
        && let Some(mut piece) = pieces.pop()
    {
        // No more than the piece has, which is a `usize`.
        let taken = piece.split_to(room.min(piece.len() as u64) as usize);
        room -= taken.len() as u64;
        if !piece.is_empty() {
            pieces.push(piece);
        }
        if !taken.is_empty() {
            part.push(taken);
        }
    }
    part
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn the_parts_together_are_the_whole_and_all_but_the_last_are_as_long_as_was_asked(
            pieces in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..40), 0..12),
            length in 1_u64..50,
        ) {
            let payload = Payload::new(pieces.iter().cloned().map(Bytes::from).collect());
            let parts: Vec<Bytes> = parts(&payload, length).map(Bytes::from).collect();
            prop_assert_eq!(parts.concat(), pieces.concat());
            prop_assert_eq!(Bytes::from(whole(&payload)), pieces.concat());
            let (last, others) = parts.split_last().map_or((0, &[][..]), |(last, others)| (last.len() as u64, others));
            prop_assert!(last <= length && others.iter().all(|part| part.len() as u64 == length));
        }
    }

    #[test]
    fn nothing_is_copied() {
        let piece = Bytes::from(vec![7; 100]);
        let payload = Payload::new(vec![piece.clone()]);
        let parts: Vec<PutPayload> = parts(&payload, 60).collect();
        assert_eq!(parts[1].iter().next().unwrap().as_ptr(), piece[60..].as_ptr());
    }
}
