use super::*;
use crate::error::{ErrorKind, Result};
use crate::mime::Limits;
use crate::mime::base64::{Encoder, LineEnding, Shape};
use proptest::collection::vec;
use proptest::prelude::*;

struct Dissection {
    recipe: Vec<u8>,
    pieces: Vec<Vec<u8>>,
    outcome: Dissected,
}

fn dissect_with(dissector: &mut Dissector, message: &[u8], slices: &[usize]) -> Dissection {
    let (mut recipe, mut pieces) = (Vec::new(), Vec::new());
    let mut rest = message;
    for slice in slices.iter().cycle() {
        if rest.is_empty() {
            break;
        }
        let (now, later) = rest.split_at((*slice).clamp(1, rest.len()));
        dissector.push(now, &mut |piece| pieces.push(piece.to_vec()));
        rest = later;
    }
    let outcome = dissector.finish(&mut |piece| pieces.push(piece.to_vec()), &mut recipe);
    assert_eq!(outcome.rebuilt, outcome.length);
    Dissection { recipe, pieces, outcome }
}

fn rebuild(recipe: &[u8], pieces: &[Vec<u8>]) -> Result<Vec<u8>> {
    let mut rebuilder = Rebuilder::new(Recipe::decode(recipe)?);
    let mut message = Vec::new();
    let mut out = |octets: &[u8]| {
        assert!(!octets.is_empty() && octets.len() <= 256 << 10);
        message.extend_from_slice(octets);
        Ok(())
    };
    let mut pieces = pieces.iter();
    while let Need::Piece(length) = rebuilder.advance(&mut out)? {
        let piece = pieces.next().expect("the recipe asks for more pieces than there are");
        assert_eq!(piece.len() as u64, length);
        rebuilder.piece(piece, &mut out)?;
    }
    assert!(pieces.next().is_none(), "a piece was not asked for");
    Ok(message)
}

/// Checks everything that holds for every message, and gives the spans.
fn check(cuts: Cuts, message: &[u8], slices: &[usize]) -> Dissection {
    let mut dissector = Dissector::new(cuts, Limits::default());
    let whole = dissect_with(&mut dissector, message, &[usize::MAX]);
    let sliced = dissect_with(&mut dissector, message, slices);
    assert!(whole.recipe == sliced.recipe && whole.pieces == sliced.pieces, "another slicing gives something else");
    assert_eq!(whole.outcome, sliced.outcome);
    assert_eq!(whole.outcome.length, message.len() as u64);
    assert_eq!(whole.outcome.pieces, whole.pieces.len() as u64);
    assert!(whole.recipe.len() <= cuts.recipe_max.max(4096));
    assert!(whole.pieces.iter().all(|piece| !piece.is_empty() && piece.len() <= cuts.piece_max));
    let recipe = Recipe::decode(&whole.recipe).unwrap();
    assert_eq!((recipe.length(), recipe.pieces()), (message.len() as u64, whole.pieces.len() as u64));
    assert!(rebuild(&whole.recipe, &whole.pieces).unwrap() == message, "the message comes back changed");
    whole
}

/// Kind and octets of each span.
fn spans(dissection: &Dissection) -> Vec<(&'static str, u64)> {
    let recipe = Recipe::decode(&dissection.recipe).unwrap();
    let name = |span| match span {
        Span::Literal(octets) => ("literal", octets.len() as u64),
        Span::Verbatim(content) => ("verbatim", content.octets),
        Span::Run(content) => ("run", content.octets),
        Span::Base64(_, content) => ("base64", content.octets),
        Span::InlineBase64(_, octets) => ("inline", octets.len() as u64),
    };
    recipe.spans().map(name).collect()
}

fn exactly(message: &[u8]) -> Vec<(&'static str, u64)> {
    spans(&check(Cuts::default(), message, &[1, 7, 100]))
}

fn small_cuts() -> Cuts {
    Cuts { base64_blob_min: 100, verbatim_blob_min: 200, literal_run_max: 300, piece_max: 250, recipe_max: 4096 }
}

fn octets(length: usize) -> Vec<u8> {
    (0..length as u64).map(|at| (at.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 56) as u8).collect()
}

fn base64(shape: Shape, decoded: &[u8]) -> Vec<u8> {
    let mut encoder = Encoder::new(shape);
    let mut encoded = Vec::new();
    encoder.push(decoded, &mut encoded);
    encoder.finish(&mut encoded);
    encoded
}

fn shape(width: u32) -> Shape {
    Shape::new(Some(width), LineEnding::Lf)
}

fn part(encoding: &str, body: &[u8]) -> Vec<u8> {
    [b"Content-Type: application/octet-stream\nContent-Transfer-Encoding: ", encoding.as_bytes(), b"\n\n", body]
        .concat()
}

fn multipart(boundary: &str, parts: &[Vec<u8>]) -> Vec<u8> {
    let mut message = format!("Content-Type: multipart/mixed; boundary={boundary}\n\n").into_bytes();
    for part in parts {
        message.extend_from_slice(format!("\n--{boundary}\n").as_bytes());
        message.extend_from_slice(part);
    }
    message.extend_from_slice(format!("\n--{boundary}--\n").as_bytes());
    message
}

fn crlf(message: &[u8]) -> Vec<u8> {
    message.iter().flat_map(|octet| if *octet == b'\n' { b"\r\n".to_vec() } else { vec![*octet] }).collect()
}

fn any_body() -> impl Strategy<Value = Vec<u8>> {
    let shape = (prop_oneof![1_u32..100, Just(76)], any::<bool>(), 0_u32..3, 0_u32..4).prop_map(
        |(width, crlf, leading, trailing)| {
            let ending = if crlf { LineEnding::CrLf } else { LineEnding::Lf };
            Shape { leading, trailing, ..Shape::new(Some(width), ending) }
        },
    );
    let exact = (shape, 0_usize..2000).prop_map(|(shape, length)| base64(shape, &octets(length)));
    let broken =
        (exact.clone(), any::<prop::sample::Index>(), "[\\x00\r\n =-]{0,3}").prop_map(|(mut body, at, junk)| {
            let at = at.index(body.len() + 1);
            body.splice(at..at, junk.bytes());
            body
        });
    prop_oneof![
        3 => exact,
        2 => broken,
        1 => "([a-z =\\r\\n\\x00é-]{0,70}\r?\n?){0,40}".prop_map(String::into_bytes),
        1 => vec(any::<u8>(), 0..500),
    ]
}

fn any_part() -> impl Strategy<Value = Vec<u8>> {
    let encoding =
        prop_oneof![3 => Just("base64"), 1 => Just("quoted-printable"), 1 => Just("8bit"), 1 => Just("x-uuencode")];
    let leaf = (encoding, any_body()).prop_map(|(encoding, body)| part(encoding, &body));
    leaf.prop_recursive(4, 24, 5, |inner| {
        prop_oneof![
            4 => ("[a-c]{1,3}", vec(inner.clone(), 0..5)).prop_map(|(boundary, parts)| multipart(&boundary, &parts)),
            1 => inner.clone().prop_map(|message| [b"Content-Type: message/rfc822\n\n".as_slice(), &message].concat()),
            1 => inner.prop_map(|message| crlf(&message)),
        ]
    })
}

fn any_message() -> impl Strategy<Value = Vec<u8>> {
    let end = prop_oneof![Just(usize::MAX), 0_usize..8000];
    ("(Subject: [a-zé\\x00]{0,90}\r?\n){0,3}", any_part(), any::<bool>(), end).prop_map(|(header, part, wire, end)| {
        let mut message = [header.as_bytes(), &part].concat();
        if wire {
            message = crlf(&message);
        }
        message.truncate(end);
        message
    })
}

fn slices() -> impl Strategy<Value = Vec<usize>> {
    vec(prop_oneof![1_usize..4, 1_usize..300, 1_usize..5000], 1..6)
}

/// An octet at a time leaves the encoder waiting for its group of three, and a part must not give nothing.
#[test]
fn pieces_shorter_than_a_group_of_base64() {
    let message = part("base64", &base64(shape(76), &octets(3000)));
    for piece_max in 1..4 {
        let cuts = Cuts { piece_max, recipe_max: 20_000, ..small_cuts() };
        assert!(spans(&check(cuts, &message, &[1000])).iter().any(|(kind, _)| *kind == "base64"));
    }
}

proptest! {
    #[test]
    fn any_message_comes_back(message in any_message(), slices in slices()) {
        check(small_cuts(), &message, &slices);
        check(Cuts::default(), &message, &slices);
    }

    #[test]
    fn any_octets_come_back(message in vec(any::<u8>(), 0..3000), slices in slices()) {
        check(small_cuts(), &message, &slices);
    }

    #[test]
    fn any_cuts_will_do(
        message in any_message(), slices in slices(), base64_blob_min in 0_usize..3000, verbatim_blob_min in 0_usize..3000,
        literal_run_max in 0_usize..3000, piece_max in 1_usize..3000, recipe_max in 0_usize..20_000,
    ) {
        check(Cuts { base64_blob_min, verbatim_blob_min, literal_run_max, piece_max, recipe_max }, &message, &slices);
    }

    #[test]
    fn what_is_no_recipe_is_an_error_or_rebuilds_as_long_as_it_says(octets in vec(any::<u8>(), 0..60)) {
        if let Ok(recipe) = Recipe::decode(&octets) {
            prop_assume!(recipe.length() < 1 << 24);
            rebuild_from_zeros(recipe)?;
        }
    }

    #[test]
    fn a_damaged_recipe_is_an_error_or_rebuilds_as_long_as_it_says(message in any_message(), at in any::<prop::sample::Index>(), octet: u8) {
        let mut recipe = check(small_cuts(), &message, &[1000]).recipe;
        let at = at.index(recipe.len().min(60));
        recipe[at] = octet;
        if let Ok(recipe) = Recipe::decode(&recipe) {
            prop_assume!(recipe.length() < 1 << 24);
            rebuild_from_zeros(recipe)?;
        }
    }
}

fn rebuild_from_zeros(recipe: Recipe) -> std::result::Result<(), TestCaseError> {
    let (length, mut rebuilt) = (recipe.length(), 0);
    let mut rebuilder = Rebuilder::new(recipe);
    let mut out = |octets: &[u8]| {
        rebuilt += octets.len() as u64;
        Ok(())
    };
    while let Need::Piece(length) = rebuilder.advance(&mut out).unwrap() {
        rebuilder.piece(&vec![0; length as usize], &mut out).unwrap();
    }
    prop_assert_eq!(rebuilt, length);
    Ok(())
}

#[test]
fn pitfall_2_messages_of_nothing_of_header_alone_or_without_a_last_line_end_come_back() {
    assert_eq!(exactly(b""), []);
    assert_eq!(exactly(b"Subject: a\n"), [("literal", 11)]);
    assert_eq!(exactly(b"Subject: a"), [("literal", 10)]);
    assert_eq!(exactly(b"\r"), [("literal", 1)]);
    assert_eq!(exactly(b"a: b\r\rc\n\nbare\rreturn"), [("literal", 20)]);
}

#[test]
fn pitfall_3_nul_octets_come_back() {
    exactly(b"Subject: a\0b\n\nc\0\0d\n");
    exactly(&part("base64", b"Zm9v\0\n"));
}

#[test]
fn pitfall_4_broken_header_lines_come_back() {
    exactly(b">From nobody\nno colon here\nSubject: \xff\xfe\n: empty\n\nbody\n");
}

#[test]
fn pitfall_5_very_long_lines_come_back_unwrapped() {
    let line = "x".repeat(3 << 20);
    assert_eq!(exactly(format!("Subject: a\n\n{line}\n").as_bytes()), [("literal", 12), ("verbatim", (3 << 20) + 1)]);
}

#[test]
fn pitfall_6_a_header_that_does_not_end_becomes_pieces() {
    let header = format!("References: {}", " <a@b>\n".repeat(30_000));
    let dissection = check(Cuts::default(), header.as_bytes(), &[4096]);
    assert!(dissection.recipe.len() < 100);
    assert_eq!(spans(&dissection), [("run", header.len() as u64)]);
}

#[test]
fn pitfall_9_base64_that_would_not_come_back_is_kept_as_it_is() {
    let content = octets(30_000);
    let mut body = base64(shape(76), &content);
    let at = 77 * 100;
    body.insert(at, b' ');
    let message = multipart("b", &[part("base64", &body)]);
    let spans = exactly(&message);
    assert_eq!(spans[1], ("base64", 5700), "{spans:?}");
    assert_eq!(spans[2].0, "verbatim");
    let whole = check(Cuts::default(), &message, &[1000]);
    assert_eq!((whole.outcome.base64_parts, whole.outcome.base64_exact), (1, 0));
    assert_eq!((whole.outcome.base64_octets, whole.outcome.base64_decoded), (body.len() as u64, at as u64));
}

#[test]
fn pitfall_10_quoted_printable_and_uuencode_are_kept_as_they_are() {
    let body = "=41 soft=\nbreak =C3=A9=20\n".repeat(3000);
    let spans =
        exactly(&multipart("b", &[part("quoted-printable", body.as_bytes()), part("x-uuencode", body.as_bytes())]));
    let verbatim: Vec<_> = spans.iter().filter(|(kind, _)| *kind == "verbatim").collect();
    assert_eq!(verbatim, [&("verbatim", body.len() as u64); 2]);
}

#[test]
fn pitfall_11_preamble_epilogue_and_blank_lines_round_boundaries_come_back() {
    let mut message = b"Content-Type: multipart/mixed; boundary=b\n\npreamble\n\n".to_vec();
    message.extend(b"--b\nContent-Transfer-Encoding: base64\n\n\n\n");
    message.extend(base64(shape(60), &octets(9000)));
    message.extend(b"\n\n\n--b--  \n\nepilogue\n--b\n");
    assert_eq!(exactly(&message)[1], ("base64", 9000));
}

#[test]
fn pitfall_13_a_signed_part_comes_back_whatever_is_around() {
    let signed = "Content-Type: text/plain\r\n\r\n  trailing space \r\n\ttab\t\r\n\r\n";
    let message = multipart("b", &[signed.into(), part("base64", &base64(shape(64), &octets(5000)))]);
    let dissection = check(Cuts::default(), &message, &[999]);
    let rebuilt = rebuild(&dissection.recipe, &dissection.pieces).unwrap();
    assert!(memchr::memmem::find(&rebuilt, signed.as_bytes()).is_some());
}

#[test]
fn pitfall_14_an_attachment_inside_an_enclosed_message_is_the_same_piece() {
    let content = octets(20_000);
    let plain = multipart("b", &[part("base64", &base64(shape(76), &content))]);
    let enclosed = [b"Content-Type: message/rfc822\n\n".as_slice(), &plain].concat();
    let forwarded = multipart("outer", &[enclosed]);
    let (one, other) = (check(Cuts::default(), &plain, &[100]), check(Cuts::default(), &crlf(&forwarded), &[100]));
    assert_eq!(one.pieces, [content]);
    assert_eq!(other.pieces, one.pieces);
}

#[test]
fn one_content_in_different_shapes_is_the_same_pieces() {
    let content = octets(100_000);
    let cuts = Cuts { piece_max: 30_000, ..Cuts::default() };
    let first = check(cuts, &part("base64", &base64(shape(76), &content)), &[5000]);
    assert_eq!(first.pieces.iter().map(Vec::len).collect::<Vec<_>>(), [30_000, 30_000, 30_000, 10_000]);
    for shape in [shape(72), shape(61), Shape::new(None, LineEnding::Lf), Shape::new(Some(76), LineEnding::CrLf)] {
        assert!(check(cuts, &part("base64", &base64(shape, &content)), &[333]).pieces == first.pieces);
    }
}

#[test]
fn the_cuts_are_where_they_are_said_to_be() {
    let message = |encoding, body: &[u8]| exactly(&part(encoding, body)).last().copied().unwrap();
    assert_eq!(message("base64", &base64(shape(76), &octets(4095))), ("inline", 4095));
    assert_eq!(message("base64", &base64(shape(76), &octets(4096))), ("base64", 4096));
    assert_eq!(message("8bit", &octets(32_767)).0, "literal");
    assert_eq!(message("8bit", &octets(32_768)), ("verbatim", 32_768));
}

#[test]
fn text_that_only_says_it_is_base64_stays_text() {
    assert_eq!(exactly(&part("base64", b"Hello world, this is no base64 at all.\n")).len(), 1);
}

#[test]
fn a_small_base64_text_with_a_list_footer_is_decoded_up_to_the_footer() {
    let text = "text of some length, as people write it. ".repeat(10);
    let body = [base64(shape(76), text.as_bytes()), b"\n_____________\na list\n".to_vec()].concat();
    let spans = exactly(&part("base64", &body));
    assert_eq!(spans.iter().map(|(kind, _)| *kind).collect::<Vec<_>>(), ["literal", "inline", "literal"]);
    assert_eq!(spans[1].1, text.len() as u64);
}

#[test]
fn the_recipe_is_bounded_whatever_the_message() {
    let cuts = Cuts::default();
    let many_parts = multipart("b", &vec![part("base64", b"Zm9vYmFyZm9vYmFyZm9vYmFyZm9vYmFy\n"); 100_000]);
    let boundaries = [b"Content-Type: multipart/mixed; boundary=b\n\n".to_vec(), b"--b\n".repeat(1_000_000)].concat();
    let empty_parts =
        [b"Content-Type: multipart/mixed; boundary=b\n\n".to_vec(), b"\n--b\n\n".repeat(300_000)].concat();
    for message in [many_parts, boundaries, empty_parts] {
        let mut dissector = Dissector::new(cuts, Limits::default());
        let Dissection { recipe, pieces, .. } = dissect_with(&mut dissector, &message, &[1 << 20]);
        assert!(recipe.len() <= cuts.recipe_max, "{} octets", recipe.len());
        assert!(rebuild(&recipe, &pieces).unwrap() == message);
        // A vector doubles, so each buffer may have twice the memory that it needs.
        assert!(
            dissector.capacity() < 2 * (cuts.recipe_max + (256 << 10)) + cuts.piece_max,
            "{}",
            dissector.capacity()
        );
    }
}

#[test]
fn memory_is_bounded_by_one_piece_and_two_recipes() {
    let cuts = Cuts { piece_max: 1 << 20, ..Cuts::default() };
    let bound = cuts.piece_max + 2 * cuts.recipe_max + (512 << 10);
    let line = b"QUJDREVGR0hJSktMTU5PUFFSU1RVVldYWVphYmNkZWZnaGlqa2xtbm9wcXJzdHV2d3h5ejAxMjM0NTY3ODkr\n";
    let text = b"a line of text that is no base64, and an end to it\n";
    let header = b"X-Header: and so on\n";
    let starts = [part("base64", b""), part("8bit", b""), b"Subject: a\n".to_vec(), part("base64", b"!")];
    for (start, rest) in starts.into_iter().zip([line.as_slice(), text, header, line]) {
        let mut dissector = Dissector::new(cuts, Limits::default());
        let mut given = 0;
        dissector.push(&start, &mut |_| {});
        for _ in 0..40 {
            dissector.push(&rest.repeat(10_000), &mut |piece| given += piece.len());
            assert!(dissector.capacity() <= bound, "{} of {bound} octets", dissector.capacity());
        }
        assert!(given > 4 << 20);
        let mut recipe = Vec::new();
        dissector.finish(&mut |_| {}, &mut recipe);
        assert!(recipe.len() < 100_000);
    }
}

#[test]
fn a_piece_of_a_wrong_length_is_an_error() {
    let message = part("base64", &base64(shape(76), &octets(10_000)));
    let Dissection { recipe, mut pieces, .. } = check(Cuts::default(), &message, &[100]);
    let mut rebuilder = Rebuilder::new(Recipe::decode(&recipe).unwrap());
    assert_eq!(rebuilder.piece(b"early", &mut |_| Ok(())).unwrap_err().kind(), ErrorKind::Invalid);
    assert_eq!(rebuilder.advance(&mut |_| Ok(())).unwrap(), Need::Piece(10_000));
    pieces[0].pop();
    assert_eq!(rebuilder.piece(&pieces[0], &mut |_| Ok(())).unwrap_err().kind(), ErrorKind::Damaged);
}

#[test]
fn lying_lengths_are_errors() {
    let lies: [&[u8]; 9] = [
        b"",
        b"\x05",                                                     // five spans and nothing there
        b"\x01\x00",                                                 // an empty span
        b"\x01\x10a",                                                // two literal octets, one there
        b"\x01\x08ab",                                               // one literal octet, two there
        b"\x01\x51\x0a",                                             // pieces as long as their span must be told as one
        b"\x01\xfb\xff\xff\xff\xff\xff\xff\xff\xff\x01\x00",         // inline, endless
        b"\x03\xfa\xff\xff\xff\xff\xff\xff\xff\xff\x01\x00\x07\x01\xfa\xff\xff\xff\xff\xff\xff\xff\xff\x01\x00\x07\x01\xfa\xff\xff\xff\xff\xff\xff\xff\xff\x01\x00\x07\x01", // more encoded octets than 64 bits count
        b"\x01\x0a\x00\x06\x00",                                     // lines of no width
    ];
    for lie in lies {
        assert_eq!(Recipe::decode(lie).unwrap_err().kind(), ErrorKind::Damaged, "{lie:x?}");
    }
    assert_eq!(Recipe::decode(b"\x01\x0d").unwrap_err().kind(), ErrorKind::Unsupported);
}

#[test]
fn the_format_of_a_recipe_is_as_documented() {
    let shape = Shape { leading: 1, trailing: 1, ..Shape::new(Some(76), LineEnding::CrLf) };
    let body = base64(shape, &octets(58));
    let dissection =
        check(Cuts::default(), &[b"Content-Transfer-Encoding: base64\r\n\r\n".to_vec(), body].concat(), &[1]);
    // 37 * 8 + 0 and 58 * 8 + 3 in 7 bits an octet; then the flags: CR LF, 76 characters, one line end in front and one behind.
    let mut expected = vec![2, 0xa8, 0x02, 0xd3, 0x03, 1 | 1 << 1 | 1 << 3 | 1 << 5];
    expected.extend(b"Content-Transfer-Encoding: base64\r\n\r\n");
    expected.extend(octets(58));
    assert_eq!(dissection.recipe, expected);
}

#[test]
fn a_dissector_is_used_again_after_reset() {
    let mut dissector = Dissector::new(small_cuts(), Limits::default());
    let message = part("base64", &base64(shape(76), &octets(10_000)));
    let fresh = dissect_with(&mut dissector, &message, &[500]);
    for end in (0..message.len()).step_by(97) {
        dissector.push(&message[..end], &mut |_| {});
        dissector.reset();
        let again = dissect_with(&mut dissector, &message, &[500]);
        assert!(again.recipe == fresh.recipe && again.pieces == fresh.pieces);
    }
}
