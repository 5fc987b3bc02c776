use super::*;
use proptest::collection::vec;
use proptest::prelude::*;

/// Decodes with `encoded` cut after each of `cuts` octets in turn, draining `decoded` at `until`.
fn decode(encoded: &[u8], cuts: &[usize], until: usize) -> (Covered, Vec<u8>, Vec<u8>) {
    let mut decoder = Decoder::new();
    let (mut all, mut decoded) = (Vec::new(), Vec::new());
    let mut rest = encoded;
    let mut cuts = cuts.iter().copied().cycle();
    while !rest.is_empty() && !decoder.is_stopped() {
        let cut = cuts.next().unwrap_or(usize::MAX).clamp(1, rest.len());
        let taken = decoder.push(&rest[..cut], &mut decoded, until);
        assert!(decoded.len() <= until.saturating_add(RUN / 4 * 3));
        assert!(taken > 0 || decoder.is_stopped() || decoded.len() >= until);
        if decoded.len() >= until {
            all.append(&mut decoded);
        }
        rest = &rest[taken..];
    }
    let covered = decoder.finish(&mut decoded);
    all.append(&mut decoded);
    let uncovered = [decoder.uncovered(), rest].concat();
    assert_eq!(covered.decoded, all.len() as u64);
    (covered, all, uncovered)
}

fn encode(shape: Shape, decoded: &[u8], cuts: &[usize]) -> Vec<u8> {
    let mut encoder = Encoder::new(shape);
    let mut encoded = Vec::new();
    let mut rest = decoded;
    for cut in cuts.iter().cycle() {
        if rest.is_empty() {
            break;
        }
        let (now, later) = rest.split_at((*cut).clamp(1, rest.len()));
        encoder.push(now, &mut encoded);
        rest = later;
    }
    encoder.finish(&mut encoded);
    encoded
}

/// Checks that covered and uncovered octets are the whole, whatever the cuts.
fn check(encoded: &[u8], cuts: &[usize]) -> (Covered, Vec<u8>, Vec<u8>) {
    let result = decode(encoded, &[usize::MAX], usize::MAX);
    let (covered, decoded, uncovered) = &result;
    let mut again = if covered.decoded > 0 { encode(covered.shape, decoded, &[1000, 1]) } else { Vec::new() };
    assert_eq!(again.len() as u64, covered.encoded);
    again.extend_from_slice(uncovered);
    assert!(again == encoded, "what is covered and what is not are not the whole");
    assert!(result == decode(encoded, cuts, 5000), "another chunking decodes to something else");
    result
}

/// One octet after another: what the decoder is defined by, written the slow way.
fn reference(shape: Shape, decoded: &[u8]) -> Vec<u8> {
    let characters = base64_simd::STANDARD.encode_to_string(decoded).into_bytes();
    let mut encoded = shape.ending.octets().repeat(shape.leading as usize);
    for (at, character) in characters.iter().enumerate() {
        if at > 0 && shape.width.is_some_and(|width| at % width as usize == 0) {
            encoded.extend_from_slice(shape.ending.octets());
        }
        encoded.push(*character);
    }
    encoded.extend(shape.ending.octets().repeat(shape.trailing as usize));
    encoded
}

fn octets(length: usize) -> Vec<u8> {
    let mut state = length as u64 | 1;
    (0..length)
        .map(|_| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 56) as u8
        })
        .collect()
}

fn ending() -> impl Strategy<Value = LineEnding> {
    prop_oneof![Just(LineEnding::Lf), Just(LineEnding::CrLf)]
}

fn width() -> impl Strategy<Value = Option<u32>> {
    prop_oneof![4 => (1_u32..=200).prop_map(Some), 2 => Just(Some(76)), 1 => Just(None), 1 => (1_u32..70_000).prop_map(Some)]
}

fn cuts() -> impl Strategy<Value = Vec<usize>> {
    vec(prop_oneof![1_usize..5, 1_usize..100, 1_usize..10_000], 1..8)
}

fn length() -> impl Strategy<Value = usize> {
    prop_oneof![1_usize..10, 1_usize..400, 1_usize..80_000]
}

prop_compose! {
    fn shape()(width in width(), ending in ending(), leading in 0_u32..4, trailing in 0_u32..5) -> Shape {
        Shape { width, ending, leading, trailing }
    }
}

proptest! {
    #[test]
    fn every_shape_is_recognised_and_comes_back(shape in shape(), length in length(), cuts in cuts()) {
        let decoded = octets(length);
        let encoded = encode(shape, &decoded, &cuts);
        prop_assert_eq!(&encoded, &reference(shape, &decoded));
        prop_assert_eq!(shape.encoded_len(length as u64), Some(encoded.len() as u64));
        let (covered, all, uncovered) = check(&encoded, &cuts);
        prop_assert!(all == decoded && uncovered.is_empty());
        let one_line = shape.width.is_none_or(|width| (length as u64).div_ceil(3) * 4 <= u64::from(width));
        let expected = Shape { width: if one_line { None } else { shape.width }, ..shape }.canonical();
        prop_assert_eq!(covered.shape, expected);
    }

    #[test]
    fn what_turns_irregular_is_covered_up_to_there(
        shape in shape(), length in length(), cuts in cuts(), at in any::<prop::sample::Index>(), junk in "[\\r\\n =A!-]{1,5}", replace: bool,
    ) {
        let mut encoded = encode(shape, &octets(length), &[usize::MAX]);
        let at = at.index(encoded.len());
        let end = if replace { (at + junk.len()).min(encoded.len()) } else { at };
        encoded.splice(at..end, junk.bytes());
        let (covered, ..) = check(&encoded, &cuts);
        // At most a group of four with a line end in every gap is lost in front of the irregular octet.
        let slack = 4 + 4 * 2 + if covered.decoded == 0 { 2 * shape.leading as usize } else { 0 };
        prop_assert!(covered.encoded as usize + slack >= at.min(encoded.len()), "{:?} stops early, before {}", covered, at);
    }

    #[test]
    fn what_lacks_some_octets_or_has_some_twice_is_covered_or_not_and_none_is_lost(
        shape in shape(), length in length(), cuts in cuts(), at in any::<prop::sample::Index>(), count in 1_usize..200, twice: bool,
    ) {
        let mut encoded = encode(shape, &octets(length), &[usize::MAX]);
        let at = at.index(encoded.len());
        let end = (at + count).min(encoded.len());
        if twice {
            let again = encoded[at..end].to_vec();
            encoded.splice(at..at, again);
        } else {
            encoded.drain(at..end);
        }
        check(&encoded, &cuts);
    }

    #[test]
    fn any_octets_are_covered_or_not_and_none_is_lost(encoded in vec(any::<u8>(), 0..200), cuts in cuts()) {
        check(&encoded, &cuts);
    }

    #[test]
    fn anything_like_base64_is_covered_or_not_and_none_is_lost(encoded in "[A-D=\\r\\n]{0,60}|(A{3,5}\r?\n){0,9}[A=\\r\\n -]{0,9}", cuts in cuts()) {
        check(encoded.as_bytes(), &cuts);
    }
}

#[test]
fn every_width_up_to_200_and_some_large_ones_come_back() {
    for width in (1..=200).chain([996, 998, 8192, 32_767, 32_768, 32_769, 100_000]) {
        for ending in [LineEnding::Lf, LineEnding::CrLf] {
            for length in [1, 2, 3, 57, 150, 151, 152, 30_000, 100_001] {
                let shape = Shape { trailing: width % 3, ..Shape::new(Some(width), ending) };
                let decoded = octets(length);
                let encoded = encode(shape, &decoded, &[usize::MAX]);
                let (covered, all, uncovered) = decode(&encoded, &[4096], usize::MAX);
                assert!(all == decoded && uncovered.is_empty(), "width {width}, {length} octets");
                assert_eq!(covered.encoded, encoded.len() as u64);
            }
        }
    }
}

fn covered(encoded: &str) -> (Shape, Vec<u8>, String) {
    let (covered, decoded, uncovered) = check(encoded.as_bytes(), &[1]);
    (covered.shape, decoded, String::from_utf8(uncovered).unwrap())
}

const LF: LineEnding = LineEnding::Lf;

#[test]
fn pitfall_9_a_missing_padding_stays_verbatim() {
    assert_eq!(covered("Zm9vYg\n"), (Shape::new(None, LF), b"foo".to_vec(), "Yg\n".into()));
    assert_eq!(covered("Zm9vYg=\n"), (Shape::new(None, LF), b"foo".to_vec(), "Yg=\n".into()));
}

#[test]
fn pitfall_9_unused_bits_that_are_not_zero_stay_verbatim() {
    assert_eq!(covered("Zm9vYh==\n"), (Shape::new(None, LF), b"foo".to_vec(), "Yh==\n".into()));
    assert_eq!(covered("Zm9vYmF="), (Shape::new(None, LF), b"foo".to_vec(), "YmF=".into()));
}

#[test]
fn pitfall_9_trailing_junk_stays_verbatim() {
    let tail = |trailing| Shape { trailing, ..Shape::new(None, LF) };
    assert_eq!(covered("Zm9v\n\n-- \nA list\n"), (tail(2), b"foo".to_vec(), "-- \nA list\n".into()));
    assert_eq!(covered("Zm9vYg==\n____"), (tail(1), b"foob".to_vec(), "____".into()));
    assert_eq!(covered("Zm9vYg==Zm9v"), (tail(0), b"foob".to_vec(), "Zm9v".into()));
    assert_eq!(covered("Zm9v\n ____\n"), (tail(1), b"foo".to_vec(), " ____\n".into()));
}

#[test]
fn pitfall_9_white_space_stays_verbatim() {
    assert_eq!(covered(" Zm9v\n"), (Shape::new(None, LF), vec![], " Zm9v\n".into()));
    assert_eq!(covered("Zm9v \nZm9v\n"), (Shape::new(None, LF), b"foo".to_vec(), " \nZm9v\n".into()));
    assert_eq!(covered("\n\nZm 9v"), (Shape { leading: 2, ..Shape::new(None, LF) }, vec![], "\n\nZm 9v".into()));
}

#[test]
fn pitfall_9_mixed_line_ends_end_the_span() {
    let shape = Shape::new(Some(4), LineEnding::CrLf);
    assert_eq!(covered("Zm9v\r\nYmFy\nZm9v\r\n"), (shape, b"foobar".to_vec(), "\nZm9v\r\n".into()));
    assert_eq!(covered("Zm9v\r"), (Shape::new(None, LF), b"foo".to_vec(), "\r".into()));
    assert_eq!(covered("Zm9v\r\r\n"), (Shape::new(None, LF), b"foo".to_vec(), "\r\r\n".into()));
}

#[test]
fn pitfall_9_other_alphabets_stay_verbatim() {
    assert_eq!(covered("Zm9v-_-_"), (Shape::new(None, LF), b"foo".to_vec(), "-_-_".into()));
}

#[test]
fn a_short_last_line_that_looks_like_a_full_one_with_its_line_end_is_recognised() {
    let tail = |width| Shape { trailing: 2, ..Shape::new(Some(width), LF) };
    assert_eq!(covered("Zm9vY\nmE=\n\n"), (tail(5), b"fooba".to_vec(), String::new()));
    assert_eq!(covered("Zm9vYmF\nyYg==\n\n"), (tail(7), b"foobarb".to_vec(), String::new()));
    assert_eq!(covered("Zm9vY\nmFy\n\n"), (tail(5), b"foobar".to_vec(), String::new()));
    assert_eq!(covered("Zm9vY\nmFyZ\n\n"), (Shape::new(Some(5), LF), b"foobar".to_vec(), "Z\n\n".into()));
}

#[test]
fn an_irregular_octet_far_behind_keeps_what_is_in_front() {
    let decoded = octets(57 * 40_000);
    let mut encoded = encode(Shape::new(Some(76), LF), &decoded, &[usize::MAX]);
    let at = 77 * 30_000;
    encoded[at] = b' ';
    let (covered, all, uncovered) = check(&encoded, &[65_536]);
    assert_eq!(covered.encoded, at as u64);
    assert_eq!(covered.shape, Shape { trailing: 1, ..Shape::new(Some(76), LF) });
    assert!(all == decoded[..57 * 30_000] && uncovered == encoded[at..]);
}

#[test]
fn endless_blank_lines_end_the_span() {
    let many = "\n".repeat(5000);
    let (shape, decoded, rest) = covered(&format!("Zm9v{many}"));
    assert_eq!(
        (shape.trailing, decoded.as_slice(), rest.len()),
        (LINE_ENDS_MAX, &b"foo"[..], 5000 - LINE_ENDS_MAX as usize)
    );
    assert_eq!(covered(&many).2, many);
}

#[test]
fn a_length_that_does_not_fit_is_no_length() {
    assert_eq!(Shape::new(Some(1), LineEnding::CrLf).encoded_len(u64::MAX / 3), None);
    assert_eq!(Shape::new(Some(0), LF).encoded_len(1), None);
    assert_eq!(Shape::new(None, LF).encoded_len(0), Some(0));
}

#[test]
fn a_decoder_is_used_again_after_reset() {
    let mut decoder = Decoder::new();
    let mut decoded = Vec::new();
    decoder.push(b"Zm9v\r\n!", &mut decoded, usize::MAX);
    decoder.finish(&mut decoded);
    decoder.reset();
    decoded.clear();
    assert_eq!(decoder.push(b"Zm9vYg==\n", &mut decoded, usize::MAX), 9);
    assert_eq!(decoder.finish(&mut decoded).encoded, 9);
    assert_eq!((decoded.as_slice(), decoder.uncovered()), (&b"foob"[..], &b""[..]));
}

#[test]
fn a_line_that_is_too_short_ends_the_span_wherever_it_is() {
    for short in 1..72 {
        for before in 0..4 {
            let mut encoded = encode(Shape::new(Some(72), LineEnding::Lf), &octets(54 * 9), &[usize::MAX]);
            encoded.push(b'\n');
            encoded.drain(73 * before + short..73 * (before + 1) - 1);
            check(&encoded, &[1000, 73, 5]);
        }
    }
}
