//! Messages that are nearly right: generated from their structure, then damaged a little. Each comes back, sliced in any way; and no slice is lost.
//!
//! When one fails, `cargo +nightly fuzz fmt message <artifact>` shows it. What is kept of it is the message itself, as an input of `recipe`.
#![no_main]

use arbitrary::{Arbitrary, Result, Unstructured};
use libfuzzer_sys::fuzz_target;
use mailrail::mime::{Event, Framer, Limits};
use mailrail::recipe::{Cuts, Dissector, Need, Rebuilder, Recipe};

/// A message, and how it is cut into slices.
#[derive(Debug)]
struct Message {
    octets: Vec<u8>,
    slice: usize,
    has_small_cuts: bool,
    has_small_limits: bool,
}

/// The longest message that is generated, in octets.
const OCTETS_MAX: usize = 48 << 10;

fuzz_target!(|message: Message| {
    let Message { octets, slice, has_small_cuts, has_small_limits } = message;
    let (mut cuts, mut limits) = (Cuts::default(), Limits::default());
    if has_small_cuts {
        (cuts.base64_blob_min, cuts.verbatim_blob_min, cuts.literal_run_max) = (50, 100, 200);
        (cuts.piece_max, cuts.recipe_max) = (64, 4096);
    }
    if has_small_limits {
        (limits.depth_max, limits.parts_max, limits.header_bytes_max) = (2, 4, 300);
    }
    let mut framed = Vec::new();
    let mut framer = Framer::new(limits.clone());
    let mut out = |event: Event<'_>| {
        if let Event::Literal(octets) | Event::Body(octets) = event {
            framed.extend_from_slice(octets);
        }
    };
    octets.chunks(slice).for_each(|slice| framer.push(slice, &mut out));
    framer.finish(&mut out);
    assert!(framed == octets);

    let mut dissector = Dissector::new(cuts, limits);
    let whole = dissect(&mut dissector, &octets, usize::MAX);
    assert!(whole == dissect(&mut dissector, &octets, slice));
    assert!(rebuild(&whole.0, &whole.1) == octets);
});

fn dissect(dissector: &mut Dissector, message: &[u8], slice: usize) -> (Vec<u8>, Vec<Vec<u8>>) {
    let (mut recipe, mut pieces) = (Vec::new(), Vec::new());
    for slice in message.chunks(slice) {
        dissector.push(slice, &mut |piece| pieces.push(piece.to_vec()));
    }
    dissector.finish(&mut |piece| pieces.push(piece.to_vec()), &mut recipe);
    (recipe, pieces)
}

fn rebuild(recipe: &[u8], pieces: &[Vec<u8>]) -> Vec<u8> {
    let recipe = Recipe::decode(recipe).expect("our own recipe decodes");
    let _ = recipe.parts();
    let (mut message, mut pieces) = (Vec::new(), pieces.iter());
    let mut out = |octets: &[u8]| {
        message.extend_from_slice(octets);
        Ok(())
    };
    let mut rebuilder = Rebuilder::new(recipe);
    while let Need::Piece(_) = rebuilder.advance(&mut out).expect("our own recipe rebuilds") {
        rebuilder.piece(pieces.next().expect("no piece is missing"), &mut out).expect("our own pieces fit");
    }
    message
}

impl<'a> Arbitrary<'a> for Message {
    fn arbitrary(u: &mut Unstructured<'a>) -> Result<Self> {
        let [has_small_cuts, has_small_limits, is_mutated] = u.arbitrary()?;
        let slice = *u.choose(&[1, 2, 3, 7, 64, 1000, 4096])?;
        let end: &[u8] = if u.arbitrary()? { b"\r\n" } else { b"\n" };
        let mut octets = Vec::new();
        entity(u, &mut octets, end, 0, b"")?;
        octets.truncate(OCTETS_MAX);
        if is_mutated {
            mutate(u, &mut octets)?;
        }
        Ok(Self { octets, slice, has_small_cuts, has_small_limits })
    }
}

/// A header block and a body.
fn entity(u: &mut Unstructured<'_>, out: &mut Vec<u8>, end: &[u8], depth: usize, outer: &[u8]) -> Result<()> {
    if out.len() > OCTETS_MAX || depth > 8 {
        return Ok(());
    }
    for _ in 0..u.int_in_range(0..=3)? {
        field(u, out, end)?;
    }
    match u.int_in_range(0..=6)? {
        0 | 1 => multipart(u, out, end, depth, outer),
        2 => {
            out.extend_from_slice(b"Content-Type: message/rfc822");
            out.extend_from_slice(end);
            out.extend_from_slice(end);
            entity(u, out, end, depth + 1, outer)
        }
        _ => leaf(u, out, end),
    }
}

fn field(u: &mut Unstructured<'_>, out: &mut Vec<u8>, end: &[u8]) -> Result<()> {
    let fields: [&[u8]; 9] = [
        b"Subject: =?utf-8?q?a?= b",
        b"X-Long: a\r\n b\n\tc",
        b"content-type : text/plain; name*0=\"a\"; name*1*=b'c'%41",
        b"Content-Type:",
        b"no colon in this line",
        b"From a@b Thu Jan  1 00:00:00 1970",
        b" begins with a space",
        b"Content-Transfer-Encoding: 7bit (a comment)",
        b":",
    ];
    out.extend_from_slice(u.choose(&fields)?);
    out.extend_from_slice(end);
    Ok(())
}

fn multipart(u: &mut Unstructured<'_>, out: &mut Vec<u8>, end: &[u8], depth: usize, outer: &[u8]) -> Result<()> {
    let boundaries: [&[u8]; 7] = [b"b", b"bb", b"b b", b"=_x", b"--", b"b--", b"0123456789012345678901234567890"];
    // One that begins with the outer one, or is the outer one, is a trap.
    let boundary = match u.int_in_range(0..=3)? {
        0 => [outer, b"x"].concat(),
        1 if !outer.is_empty() => outer.to_vec(),
        _ => u.choose(&boundaries)?.to_vec(),
    };
    let line = |out: &mut Vec<u8>, pieces: &[&[u8]]| {
        pieces.iter().for_each(|piece| out.extend_from_slice(piece));
        out.extend_from_slice(end);
    };
    let kind: &[u8] = *u.choose(&[&b"mixed"[..], b"digest", b"alternative", b""])?;
    let fold: &[u8] = if u.arbitrary()? { b"\r\n\t" } else { b" " };
    line(out, &[b"Content-Type: multipart/", kind, b";", fold, b"boundary=\"", &boundary, b"\""]);
    line(out, &[]);
    if u.arbitrary()? {
        line(out, &[b"preamble"]);
    }
    for _ in 0..u.int_in_range(0..=3)? {
        let blanks: &[u8] = *u.choose(&[&b""[..], b" ", b"\t \t", b" text"])?;
        line(out, &[b"--", &boundary, blanks]);
        entity(u, out, end, depth + 1, &boundary)?;
        if u.ratio(7, 8)? {
            line(out, &[]);
        }
    }
    if u.ratio(3, 4)? {
        let garbage: &[u8] = *u.choose(&[&b""[..], b" ", b"garbage", b"-"])?;
        line(out, &[b"--", &boundary, b"--", garbage]);
    }
    if u.arbitrary()? {
        line(out, &[b"epilogue"]);
    }
    Ok(())
}

fn leaf(u: &mut Unstructured<'_>, out: &mut Vec<u8>, end: &[u8]) -> Result<()> {
    let encodings: [&[u8]; 6] = [b"base64", b"BASE64 ", b"quoted-printable", b"x-uuencode", b"8bit", b"\"base64\""];
    let which = u.int_in_range(0..=9)?.min(5);
    // Most are base64.
    let encoding = encodings[if which == 5 { 0 } else { which }];
    out.extend_from_slice(b"Content-Transfer-Encoding: ");
    out.extend_from_slice(encoding);
    out.extend_from_slice(end);
    if u.ratio(15, 16)? {
        out.extend_from_slice(end);
    }
    match which {
        2 => quoted(u, out, end),
        3 => uuencoded(u, out, end),
        4 => text(u, out, end),
        _ => base64(u, out, end),
    }
}

/// Base64 of one width and with one kind of line end, or nearly so.
fn base64(u: &mut Unstructured<'_>, out: &mut Vec<u8>, end: &[u8]) -> Result<()> {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let width = *u.choose(&[76, 72, 64, 60, 4, 5, 3, 1, 1000, usize::MAX])?;
    (0..u.int_in_range(0..=4)?).for_each(|_| out.extend_from_slice(end));
    let (length, seed) = (u.int_in_range(0..=3000_usize)?, u.arbitrary::<u8>()?);
    let mut encoded: Vec<u8> = (0..length).map(|at| ALPHABET[(at * 7 + usize::from(seed) * at / 5) % 64]).collect();
    encoded.truncate(length / 4 * 4);
    match u.int_in_range(0..=5)? {
        0 => encoded.extend_from_slice(b"QQ=="),
        1 => encoded.extend_from_slice(b"QUI="),
        2 => encoded.extend_from_slice(b"QR=="),
        3 => encoded.extend_from_slice(b"Q"),
        _ => {}
    }
    let odd = if u.ratio(1, 4)? { u.int_in_range(0..=40)? } else { usize::MAX };
    for (number, line) in encoded.chunks(width.min(encoded.len().max(1))).enumerate() {
        out.extend_from_slice(line);
        match (number == odd, number % 4) {
            (true, 0) => out.extend_from_slice(b" \n"),
            (true, 1) => out.extend_from_slice(b"\n\n"),
            (true, 2) => out.extend_from_slice(b"!"),
            (true, _) => out.extend_from_slice(b"=\n"),
            _ => out.extend_from_slice(end),
        }
    }
    (0..u.int_in_range(0..=9)?).for_each(|_| out.extend_from_slice(end));
    Ok(())
}

fn quoted(u: &mut Unstructured<'_>, out: &mut Vec<u8>, end: &[u8]) -> Result<()> {
    for _ in 0..u.int_in_range(0..=40)? {
        out.extend_from_slice(u.choose(&[
            &b"Gr=C3=BC=C3=9Fe=\n"[..],
            b"a line",
            b"=",
            b"--b",
            b"=3D=",
            b"soft=\r\nline",
        ])?);
        out.extend_from_slice(end);
    }
    Ok(())
}

fn uuencoded(u: &mut Unstructured<'_>, out: &mut Vec<u8>, end: &[u8]) -> Result<()> {
    out.extend_from_slice(b"begin 644 a.bin");
    out.extend_from_slice(end);
    for _ in 0..u.int_in_range(0..=40)? {
        out.extend_from_slice(b"M0F5G:6X@82!F:6QE('1H870@:7,@96YC;V1E9\"!T:&4@;VQD('=A>2!A;F0@");
        out.extend_from_slice(end);
    }
    out.extend_from_slice(b"`\nend\n");
    Ok(())
}

fn text(u: &mut Unstructured<'_>, out: &mut Vec<u8>, end: &[u8]) -> Result<()> {
    for _ in 0..u.int_in_range(0..=60)? {
        out.extend_from_slice(u.choose(&[
            &b"words of a text"[..],
            b"",
            b"--",
            b"-- ",
            b"--b-",
            b"From here",
            b"\xff\x00",
            b"\r",
        ])?);
        out.extend_from_slice(end);
    }
    Ok(())
}

/// Takes out, doubles, moves or changes a few octets.
fn mutate(u: &mut Unstructured<'_>, octets: &mut Vec<u8>) -> Result<()> {
    for _ in 0..u.int_in_range(1..=4)? {
        if octets.is_empty() {
            return Ok(());
        }
        let at = u.choose_index(octets.len())?;
        let length = u.int_in_range(1..=64)?.min(octets.len() - at);
        match u.int_in_range(0..=4)? {
            0 => drop(octets.drain(at..at + length)),
            1 => octets.extend_from_within(at..at + length),
            2 => octets[at] = u.arbitrary()?,
            3 => octets.insert(at, *u.choose(b"\r\n-= \t:;\0")?),
            _ => octets.truncate(at),
        }
    }
    Ok(())
}
