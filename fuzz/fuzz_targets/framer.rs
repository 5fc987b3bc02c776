//! Any octets in any chunks: the slices are the message, bodies are bracketed, and the chunks do not matter.
#![no_main]

use libfuzzer_sys::fuzz_target;
use mailrail::mime::{Defects, Event, Framer, Leaf, Limits};

#[derive(Debug, PartialEq)]
enum Seen {
    Literal(Vec<u8>),
    Begin(Leaf),
    Body(Vec<u8>),
    End,
}

// The first octets choose the limits and the chunk sizes, the rest is the message.
fuzz_target!(|input: &[u8]| {
    let Some((choice, message)) = input.split_first_chunk::<4>() else { return };
    let mut framer = Framer::new(limits(choice[0]));
    let whole = frame(&mut framer, std::iter::once(message));
    check(&whole.0, message);

    let sizes = choice[1..].iter().map(|size| usize::from(*size)).chain([1]).cycle();
    let chunked = frame(&mut framer, chunks(message, sizes));
    assert_eq!(chunked, whole);

    framer.push(&message[..message.len() / 2], &mut |_| {});
    framer.reset();
    assert_eq!(frame(&mut framer, message.chunks(1)), whole);
});

fn limits(choice: u8) -> Limits {
    let mut limits = Limits::default();
    if choice & 1 != 0 {
        limits.depth_max = u32::from(choice >> 1 & 3);
    }
    if choice & 8 != 0 {
        limits.parts_max = u32::from(choice >> 4 & 3);
    }
    if choice & 64 != 0 {
        limits.header_bytes_max = 100;
        limits.field_bytes_max = 50;
        limits.boundary_bytes_max = 3;
    }
    limits
}

fn chunks(message: &[u8], mut sizes: impl Iterator<Item = usize>) -> impl Iterator<Item = &[u8]> {
    let mut rest = message;
    std::iter::from_fn(move || {
        let (chunk, after) = rest.split_at(sizes.next()?.min(rest.len()));
        rest = after;
        (!chunk.is_empty() || !rest.is_empty()).then_some(chunk)
    })
}

fn frame<'a>(framer: &mut Framer, chunks: impl Iterator<Item = &'a [u8]>) -> (Vec<Seen>, Defects) {
    let mut seen = Vec::new();
    let mut see = |event: Event<'_>| match (event, seen.last_mut()) {
        (Event::Literal(octets), Some(Seen::Literal(before))) | (Event::Body(octets), Some(Seen::Body(before))) => {
            before.extend_from_slice(octets);
        }
        (Event::Literal(octets), _) => seen.push(Seen::Literal(octets.to_vec())),
        (Event::Begin(leaf), _) => seen.push(Seen::Begin(leaf)),
        (Event::Body(octets), _) => seen.push(Seen::Body(octets.to_vec())),
        (Event::End, _) => seen.push(Seen::End),
        _ => unreachable!("a kind of event that is not known here"),
    };
    for chunk in chunks {
        framer.push(chunk, &mut see);
    }
    let defects = framer.finish(&mut see);
    (seen, defects)
}

fn check(seen: &[Seen], message: &[u8]) {
    let mut octets = Vec::new();
    let mut open = false;
    for each in seen {
        match each {
            Seen::Literal(slice) => {
                assert!(!open);
                octets.extend_from_slice(slice);
            }
            Seen::Body(slice) => {
                assert!(open);
                octets.extend_from_slice(slice);
            }
            Seen::Begin(_) => assert!(!std::mem::replace(&mut open, true)),
            Seen::End => assert!(std::mem::replace(&mut open, false)),
        }
    }
    assert!(!open);
    assert!(octets == message);
}
