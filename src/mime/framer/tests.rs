use proptest::prelude::*;

use super::*;

/// One event, slices joined and owned.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Seen {
    Literal(Vec<u8>),
    Begin(Leaf),
    Body(Vec<u8>),
    End,
}

fn see(seen: &mut Vec<Seen>, event: Event<'_>) {
    match (event, seen.last_mut()) {
        (Event::Literal(octets), Some(Seen::Literal(before))) | (Event::Body(octets), Some(Seen::Body(before))) => {
            before.extend_from_slice(octets);
        }
        (Event::Literal(octets), _) => seen.push(Seen::Literal(octets.to_vec())),
        (Event::Begin(leaf), _) => seen.push(Seen::Begin(leaf)),
        (Event::Body(octets), _) => seen.push(Seen::Body(octets.to_vec())),
        (Event::End, _) => seen.push(Seen::End),
    }
}

fn frame_with(framer: &mut Framer, chunks: impl Iterator<Item = impl AsRef<[u8]>>) -> (Vec<Seen>, Defects) {
    let mut seen = Vec::new();
    for chunk in chunks {
        framer.push(chunk.as_ref(), &mut |event| see(&mut seen, event));
    }
    let defects = framer.finish(&mut |event| see(&mut seen, event));
    (seen, defects)
}

fn assert_partition(seen: &[Seen], message: &[u8]) {
    let mut octets = Vec::new();
    let mut open = false;
    for each in seen {
        match each {
            Seen::Literal(slice) => {
                assert!(!open, "a literal inside of a body");
                octets.extend_from_slice(slice);
            }
            Seen::Body(slice) => {
                assert!(open, "body octets outside of a body");
                octets.extend_from_slice(slice);
            }
            Seen::Begin(_) => assert!(!std::mem::replace(&mut open, true), "a body inside of a body"),
            Seen::End => assert!(std::mem::take(&mut open), "the end of no body"),
        }
    }
    assert!(!open, "a body that does not end");
    assert!(octets == message, "the slices are not the message");
}

/// Frames whole and in chunks of several sizes: all must be the same, and the slices must be the message.
fn frame_limited(message: &[u8], limits: &Limits) -> (Vec<Seen>, Defects) {
    let mut framer = Framer::new(limits.clone());
    let whole = frame_with(&mut framer, std::iter::once(message));
    assert_partition(&whole.0, message);
    for size in [1, 2, 3, 7, 64] {
        let chunked = frame_with(&mut framer, message.chunks(size));
        assert_eq!(chunked, whole, "in chunks of {size}");
    }
    whole
}

/// The leaves as `depth encoding body`, and the defects.
fn leaves_limited(message: &str, limits: &Limits) -> (Vec<String>, Defects) {
    let (seen, defects) = frame_limited(message.as_bytes(), limits);
    let mut leaves: Vec<String> = Vec::new();
    for each in seen {
        match (each, leaves.last_mut()) {
            (Seen::Begin(leaf), _) => {
                let encoding = match leaf.encoding {
                    TransferEncoding::Identity => '=',
                    TransferEncoding::QuotedPrintable => 'Q',
                    TransferEncoding::Base64 => 'B',
                };
                leaves.push(format!("{}{encoding}", leaf.depth));
            }
            (Seen::Body(body), Some(leaf)) => leaf.push_str(&String::from_utf8_lossy(&body)),
            _ => {}
        }
    }
    (leaves, defects)
}

fn leaves(message: &str) -> Vec<String> {
    leaves_limited(message, &Limits::default()).0
}

fn defects(message: &str) -> Vec<(&'static str, u32)> {
    let (_, defects) = leaves_limited(message, &Limits::default());
    defects.classes().into_iter().filter(|(_, count)| *count > 0).collect()
}

const TWO_PARTS: &str = "Subject: x\nContent-Type: multipart/mixed; boundary=b\n\npreamble\n--b\nContent-Type: text/plain\n\none\n\
                         --b\nContent-Transfer-Encoding: base64\n\nAAAA\n--b--\nepilogue\n";

#[test]
fn a_plain_message_is_one_leaf() {
    assert_eq!(leaves("Subject: x\n\nbody\n--b\n"), ["0=body\n--b\n"]);
    assert_eq!(leaves("Content-Transfer-Encoding: BASE64\r\n\r\nAAAA\r\n"), ["0BAAAA\r\n"]);
    assert_eq!(leaves("\nbody"), ["0=body"]);
}

#[test]
fn an_empty_body_is_an_empty_leaf_and_a_message_of_headers_has_none() {
    assert_eq!(leaves("Subject: x\n\n"), ["0="]);
    assert_eq!(leaves("Subject: x\n"), [""; 0]);
    assert_eq!(leaves("Subject: x"), [""; 0]);
    assert_eq!(leaves(""), [""; 0]);
    assert_eq!(defects("Subject: x\n"), []);
}

#[test]
fn parts_are_leaves_and_all_around_them_is_literal() {
    let (seen, defects) = frame_limited(TWO_PARTS.as_bytes(), &Limits::default());
    let literal = |text: &str| Seen::Literal(text.as_bytes().to_vec());
    let body = |text: &str| Seen::Body(text.as_bytes().to_vec());
    let begin = |encoding| Seen::Begin(Leaf { encoding, depth: 1 });
    assert_eq!(
        seen,
        [
            literal(
                "Subject: x\nContent-Type: multipart/mixed; boundary=b\n\npreamble\n--b\nContent-Type: text/plain\n\n"
            ),
            begin(TransferEncoding::Identity),
            body("one"),
            Seen::End,
            literal("\n--b\nContent-Transfer-Encoding: base64\n\n"),
            begin(TransferEncoding::Base64),
            body("AAAA"),
            Seen::End,
            literal("\n--b--\nepilogue\n"),
        ]
    );
    assert!(defects.is_empty());
}

/// Pitfall 11: preamble, epilogue and the blank lines around delimiters are kept where they are.
#[test]
fn preamble_epilogue_and_blank_lines_around_delimiters_stay_in_place() {
    for (message, expected) in [
        (
            "Content-Type: multipart/mixed; boundary=b\n\n\n\n--b\n\none\n\n\n--b\n\n\ntwo\n--b--\n\n\n",
            ["1=one\n\n", "1=\ntwo"],
        ),
        ("Content-Type: multipart/mixed; boundary=b\n\n--b\n\none\n--b\n\n\n--b--", ["1=one", "1="]),
        ("Content-Type: multipart/mixed; boundary=b\n\n--b\n\n--b\n\ntwo\n--b--", ["1=", "1=two"]),
    ] {
        assert_eq!(leaves(message), expected, "{message:?}");
        let crlf = message.replace('\n', "\r\n");
        let expected: Vec<String> = expected.iter().map(|leaf| leaf.replace('\n', "\r\n")).collect();
        assert_eq!(leaves(&crlf), expected, "{crlf:?}");
    }
}

#[test]
fn the_line_break_in_front_of_a_delimiter_belongs_to_it_in_mixed_line_endings() {
    let message = "Content-Type: multipart/mixed;\n boundary=b\r\n\n--b\r\n\nlf\n--b\n\r\ncrlf\r\n--b \t\r\n\r\ncr\r\r\n--b--\r\n";
    assert_eq!(leaves(message), ["1=lf", "1=crlf", "1=cr\r"]);
}

#[test]
fn a_bare_carriage_return_ends_no_line_and_no_body() {
    assert_eq!(leaves("Content-Type: multipart/mixed; boundary=b\n\n--b\n\none\r--b\rtwo\n--b--"), ["1=one\r--b\rtwo"]);
}

#[test]
fn multiparts_nest_and_the_outer_goes_on_behind_the_inner() {
    let message = "Content-Type: multipart/mixed; boundary=outer\n\n--outer\n\
                   Content-Type: multipart/alternative; boundary=inner\n\n--inner\n\none\n--inner\n\ntwo\n--inner--\n\n--outer\n\nthree\n--outer--\n";
    assert_eq!(leaves(message), ["2=one", "2=two", "1=three"]);
    assert_eq!(defects(message), []);
}

/// Pitfall 12: boundaries that begin with one another, in either order of nesting.
#[test]
fn boundaries_that_begin_with_one_another_are_not_confused() {
    for (outer, inner) in [("b", "bb"), ("bb", "b"), ("b", "b--"), ("b", "b-")] {
        let message = format!(
            "Content-Type: multipart/mixed; boundary={outer}\n\n--{outer}\n\
             Content-Type: multipart/alternative; boundary={inner}\n\n--{inner}\n\none\n--{inner}\n\ntwo\n--{inner}--\n\n--{outer}\n\nthree\n--{outer}--\n"
        );
        if inner == "b--" {
            // Its delimiters are the outer one's close delimiters as much: the inner one goes first.
            assert_eq!(leaves(&message)[..2], ["2=one", "2=two"]);
        } else {
            assert_eq!(leaves(&message), ["2=one", "2=two", "1=three"], "{outer} {inner}");
        }
    }
}

/// Pitfall 12: the same boundary nested in itself is closed from the inside.
#[test]
fn the_same_boundary_nested_in_itself_is_closed_from_the_inside() {
    let message = "Content-Type: multipart/mixed; boundary=b\n\n--b\nContent-Type: multipart/alternative; boundary=b\n\n\
                   --b\n\none\n--b\n\ntwo\n--b--\n--b\n\nthree\n--b--\nepilogue";
    assert_eq!(leaves(message), ["2=one", "2=two", "1=three"]);
}

/// Pitfall 12: an outer delimiter closes what is open inside.
#[test]
fn an_outer_delimiter_closes_inner_multiparts_that_are_not_closed() {
    let message = "Content-Type: multipart/mixed; boundary=outer\n\n--outer\nContent-Type: multipart/mixed; boundary=middle\n\n--middle\n\
                   Content-Type: multipart/alternative; boundary=inner\n\n--inner\n\none\n--outer\n\ntwo\n--outer--\n";
    assert_eq!(leaves(message), ["3=one", "1=two"]);
    assert_eq!(defects(message), [("close_missing", 2)]);
}

/// Pitfall 12: a truncated message.
#[test]
fn a_message_cut_short_anywhere_is_still_all_there() {
    for end in 0..TWO_PARTS.len() {
        let _ = leaves(&TWO_PARTS[..end]);
    }
    let cut = TWO_PARTS.len() - "AA\n--b--\nepilogue\n".len();
    assert_eq!(leaves(&TWO_PARTS[..cut]), ["1=one", "1BAA"]);
    assert_eq!(defects(&TWO_PARTS[..cut]), [("close_missing", 1)]);
}

/// Pitfall 12: no boundary, an empty one, one that never comes, or two.
#[test]
fn a_multipart_without_a_usable_boundary_is_one_leaf() {
    for field in [
        "multipart/mixed",
        "multipart/mixed; boundary=",
        "multipart/mixed; boundary=\"\"",
        "multipart/mixed; boundary=\" \"",
    ] {
        let message = format!("Content-Type: {field}\n\n--\n\n--b\n\none\n--b--\n");
        assert_eq!(leaves(&message), ["0=--\n\n--b\n\none\n--b--\n"], "{field}");
        assert_eq!(defects(&message), [("boundary_missing", 1)], "{field}");
    }
    assert_eq!(leaves("Content-Type: multipart/mixed; boundary=b\n\nnone\n"), [""; 0]);
    assert_eq!(defects("Content-Type: multipart/mixed; boundary=b\n\nnone\n"), [("boundary_unused", 1)]);
    assert_eq!(leaves("Content-Type: multipart/mixed; boundary=b; boundary=c\n\n--c\n--b\n\none\n--b--\n"), ["1=one"]);
}

/// Pitfall 12: Content-Type twice.
#[test]
fn of_two_content_types_the_last_one_counts() {
    let message = "Content-Type: text/plain\nContent-Type: multipart/mixed; boundary=b\n\n--b\n\none\n--b--\n";
    assert_eq!(leaves(message), ["1=one"]);
    assert_eq!(defects(message), [("field_repeated", 1)]);
    let message = "Content-Type: multipart/mixed; boundary=b\nContent-Type: text/plain\n\n--b\n\none\n--b--\n";
    assert_eq!(leaves(message), ["0=--b\n\none\n--b--\n"]);
}

/// Pitfall 12: a charset that is wrong changes nothing here.
#[test]
fn a_wrong_charset_label_changes_nothing() {
    let message = "Content-Type: text/plain; charset=\"x-nobody-knows\"\n\nbody";
    assert_eq!(leaves(message), ["0=body"]);
    assert_eq!(defects(message), []);
}

#[test]
fn a_delimiter_ends_a_header_block_without_a_blank_line() {
    let message = "Content-Type: multipart/mixed; boundary=b\n\n--b\nContent-Type: text/html\n--b\nContent-Transfer-Encoding: base64\n\nAAAA\n--b--\n";
    assert_eq!(leaves(message), ["1BAAAA"]);
    assert_eq!(defects(message), [("header_unended", 1)]);
}

#[test]
fn the_header_block_of_the_message_itself_knows_no_delimiters() {
    let message = "Content-Type: multipart/mixed; boundary=b\n--b\nSubject: x\n\n--b\n\none\n--b--\n";
    assert_eq!(leaves(message), ["1=one"]);
}

#[test]
fn a_delimiter_line_may_have_text_behind_white_space_and_a_close_delimiter_right_behind() {
    let message = "Content-Type: multipart/mixed; boundary=b\n\n--b text\n\none\n--bold\n--b--text\n--b\n";
    assert_eq!(leaves(message), ["1=one\n--bold"]);
    assert_eq!(defects(message), [("close_garbage", 1)]);
}

/// Pitfall 14: an enclosed message is walked into where its octets stand as they are.
#[test]
fn an_enclosed_message_is_walked_into_unless_it_is_encoded() {
    for encoding in [
        "",
        "Content-Transfer-Encoding: 7bit\n",
        "Content-Transfer-Encoding: 8BIT\n",
        "Content-Transfer-Encoding: binary\n",
    ] {
        for kind in ["rfc822", "global"] {
            let message = format!(
                "Content-Type: multipart/mixed; boundary=b\n\n--b\nContent-Type: message/{kind}\n{encoding}\n\
                 Subject: inner\nContent-Transfer-Encoding: base64\n\nAAAA\n--b\n\ntwo\n--b--\n"
            );
            assert_eq!(leaves(&message), ["2BAAAA", "1=two"], "{kind} {encoding}");
        }
    }
    let message = "Content-Type: message/rfc822\nContent-Transfer-Encoding: base64\n\nAAAA\n";
    assert_eq!(leaves(message), ["0BAAAA\n"]);
}

/// Pitfall 14: a multipart inside of an enclosed message, inside of a multipart.
#[test]
fn an_enclosed_multipart_ends_with_the_message_around_it() {
    let message = "Content-Type: multipart/mixed; boundary=outer\n\n--outer\nContent-Type: message/rfc822\n\n\
                   Content-Type: multipart/mixed; boundary=inner\n\n--inner\n\none\n--inner--\nepilogue\n--outer\n\ntwo\n--outer--\n";
    assert_eq!(leaves(message), ["3=one", "1=two"]);
}

/// Pitfall 14: TNEF, partial and external bodies are carried as they are.
#[test]
fn tnef_partial_and_external_bodies_are_leaves() {
    for kind in [
        "application/ms-tnef",
        "message/partial; id=a; number=1",
        "message/external-body; access-type=URL",
        "message/delivery-status",
    ] {
        let message = format!("Content-Type: {kind}\n\nContent-Type: multipart/mixed; boundary=b\n\n--b\n");
        assert_eq!(leaves(&message), ["0=Content-Type: multipart/mixed; boundary=b\n\n--b\n"], "{kind}");
    }
}

#[test]
fn parts_of_a_digest_are_messages_unless_they_say_otherwise() {
    let message = "Content-Type: multipart/digest; boundary=b\n\n--b\n\nSubject: x\n\none\n--b\nContent-Type: text/plain\n\ntwo\n--b\n\n\
                   Content-Type: multipart/mixed; boundary=c\n\n--c\n\nthree\n--c--\n--b--\n";
    assert_eq!(leaves(message), ["2=one", "1=two", "3=three"]);
}

#[test]
fn what_is_deeper_than_the_limit_is_a_leaf_and_outer_delimiters_still_count() {
    let limits = Limits { depth_max: 1, ..Limits::default() };
    let message = "Content-Type: multipart/mixed; boundary=outer\n\n--outer\nContent-Type: multipart/mixed; boundary=inner\n\n\
                   --inner\n\none\n--inner--\n--outer\nContent-Type: message/rfc822\n\nSubject: x\n\ntwo\n--outer--\n";
    let (leaves, defects) = leaves_limited(message, &limits);
    assert_eq!(leaves, ["1=--inner\n\none\n--inner--", "1=Subject: x\n\ntwo"]);
    assert_eq!(defects.depth_exceeded, 2);
}

#[test]
fn what_comes_behind_the_last_allowed_part_is_one_leaf() {
    let limits = Limits { parts_max: 1, ..Limits::default() };
    let message = "Content-Type: multipart/mixed; boundary=b\n\n--b\n\none\n--b\n\ntwo\n--b\n\nthree\n--b--\nepilogue";
    let (leaves, defects) = leaves_limited(message, &limits);
    assert_eq!(leaves, ["1=one", "1=\ntwo\n--b\n\nthree\n--b--\nepilogue"]);
    assert_eq!(defects.parts_exceeded, 1);
}

#[test]
fn a_header_block_over_the_limit_leaves_the_rest_to_one_leaf() {
    for header_bytes_max in 0..40 {
        let limits = Limits { header_bytes_max, ..Limits::default() };
        let message = "Content-Type: text/plain; name=\"a long one\"\n\nbody";
        let (leaves, defects) = leaves_limited(message, &limits);
        assert_eq!(leaves, [format!("0={}", &message[header_bytes_max..])]);
        assert_eq!(defects.header_overlong, 1);
    }
    let limits = Limits { header_bytes_max: 60, ..Limits::default() };
    let part = format!("X: {}\n\nbody\n", "x".repeat(100));
    let message = format!("Content-Type: multipart/mixed; boundary=b\n\n--b\n{part}--b\n\ntwo\n--b--\n");
    assert_eq!(leaves_limited(&message, &limits).0, [format!("1={}", &part[60..].trim_end()), "1=two".to_owned()]);
}

#[test]
fn a_boundary_or_a_value_over_its_limit_makes_a_leaf() {
    let limits = Limits { boundary_bytes_max: 3, ..Limits::default() };
    let (leaves, defects) = leaves_limited("Content-Type: multipart/mixed; boundary=abcd\n\n--abcd\n\none\n", &limits);
    assert_eq!((leaves.len(), defects.boundary_missing), (1, 1));
    let limits = Limits { field_bytes_max: 20, ..Limits::default() };
    let (leaves, defects) = leaves_limited("Content-Type: multipart/mixed; boundary=abcd\n\n--abcd\n\none\n", &limits);
    assert_eq!((leaves.len(), defects.boundary_missing, defects.field_overlong), (1, 1, 1));
}

#[test]
fn a_million_nested_multiparts_stop_at_the_depth_limit() {
    let mut framer = Framer::default();
    let (mut leaves, mut depth) = (0_u32, 0);
    let mut octets = 0;
    for level in 0..1_000_000 {
        let block = format!("Content-Type: multipart/mixed; boundary={level}\n\n--{level}\n");
        octets += block.len();
        framer.push(block.as_bytes(), &mut |event| match event {
            Event::Begin(leaf) => (leaves, depth) = (leaves + 1, leaf.depth),
            Event::Literal(slice) | Event::Body(slice) => octets -= slice.len(),
            Event::End => {}
        });
    }
    assert!(framer.held.capacity() < 4096 && framer.boundaries.len() == 64);
    let defects = framer.finish(&mut |event| {
        if let Event::Literal(slice) | Event::Body(slice) = event {
            octets -= slice.len();
        }
    });
    assert_eq!((leaves, depth, defects.depth_exceeded, octets), (1, 64, 1, 0));
}

#[test]
fn a_million_delimiter_lines_and_a_million_lines_that_nearly_are_keep_nothing() {
    let mut framer = Framer::new(Limits { parts_max: u32::MAX, ..Limits::default() });
    let ignore = &mut |_: Event<'_>| {};
    framer.push(b"Content-Type: multipart/mixed; boundary=boundary\n\n", ignore);
    framer.push("--boundary\n".repeat(1_000_000).as_bytes(), ignore);
    framer.push("--boundarx\n--\n".repeat(1_000_000).as_bytes(), ignore);
    assert!(framer.held.capacity() < 4096);
    assert_eq!(framer.finish(ignore).header_unended, 999_999);
}

#[test]
fn a_header_line_without_an_end_is_bounded() {
    let mut framer = Framer::default();
    let (mut literal, mut body) = (0, 0);
    for start in ["Content-Type: ", "C", "", "X: "] {
        let chunk = [b'x'; 4096];
        let mut out = |event: Event<'_>| match event {
            Event::Literal(slice) => literal += slice.len(),
            Event::Body(slice) => body += slice.len(),
            _ => {}
        };
        framer.push(start.as_bytes(), &mut out);
        for _ in 0..1024 {
            framer.push(&chunk, &mut out);
        }
        assert!(framer.held.capacity() < 4096 && framer.headers.content_type.value.capacity() <= 2 * 4096);
        assert_eq!(framer.finish(&mut out).header_overlong, 1);
    }
    assert_eq!(literal, 4 << 20);
    assert_eq!(body, (16 << 20) - (4 << 20) + "Content-Type: CX: ".len());
}

#[test]
fn a_framer_that_was_reset_knows_nothing_of_the_message_before() {
    let mut framer = Framer::default();
    let expected = frame_with(&mut framer, std::iter::once(TWO_PARTS));
    for end in 0..TWO_PARTS.len() {
        framer.push(&TWO_PARTS.as_bytes()[..end], &mut |_| {});
        framer.reset();
        assert_eq!(frame_with(&mut framer, std::iter::once(TWO_PARTS)), expected);
    }
}

#[test]
fn body_slices_are_parts_of_the_pushed_chunk() {
    let body = "A".repeat(100_000);
    let message = format!("Content-Type: multipart/mixed; boundary=b\n\n--b\n\n{body}\n--b--\n");
    let range = message.as_bytes().as_ptr_range();
    let mut largest = 0;
    let mut framer = Framer::default();
    framer.push(message.as_bytes(), &mut |event| {
        if let Event::Body(slice) = event {
            assert!(range.contains(&slice.as_ptr()));
            largest = largest.max(slice.len());
        }
    });
    assert_eq!(largest, body.len());
}

/// A tree of entities, written out with whatever line endings and flaws.
fn entity() -> impl Strategy<Value = String> {
    let header = prop_oneof![
        Just(""),
        Just("Content-Type: text/plain\n"),
        Just("Content-Transfer-Encoding: base64\n"),
        Just("Content-Type : image/png;\n name=x\r\nContent-Transfer-Encoding: quoted-printable\n"),
        Just("Subject: x\n y\n"),
        Just("junk\n"),
    ];
    let text = "[a \r\n-]{0,12}";
    let leaf = (header, "\r?\n?", text).prop_map(|(header, blank, text)| format!("{header}{blank}{text}"));
    leaf.prop_recursive(4, 24, 4, |inner| {
        let end = prop_oneof![Just("--\r\n"), Just("--\n"), Just("--"), Just(""), Just("--x\n"), Just(" \n")];
        let kind = prop_oneof![Just("mixed"), Just("digest"), Just("alternative")];
        let multipart = (kind, "[ab]{1,3}", prop::collection::vec((inner.clone(), "\r?\n"), 0..4), end, "\r?\n")
            .prop_map(|(kind, boundary, parts, end, feed)| {
                let mut text = format!("Content-Type: multipart/{kind}; boundary={boundary}{feed}{feed}");
                for (part, feed) in parts {
                    text += &format!("--{boundary}{feed}{part}{feed}");
                }
                text + "--" + &boundary + end
            });
        prop_oneof![3 => multipart, 1 => inner.prop_map(|inner| format!("Content-Type: message/rfc822\n\n{inner}"))]
    })
}

/// Pieces out of which anything may be put together.
fn fragments() -> impl Strategy<Value = String> {
    let fragment = prop::sample::select(vec![
        "\n",
        "\r\n",
        "\r",
        "-",
        "--",
        "--a",
        "--ab",
        "--a--",
        "a",
        "b",
        " ",
        "\t",
        ":",
        ";",
        "=",
        "\"",
        "Content-Type:",
        "content-transfer-encoding: base64",
        "multipart/mixed; boundary=a",
        "multipart/digest; boundary=\"ab\"",
        "multipart/mixed; boundary=\"a--\"",
        "message/rfc822",
        "\nContent-Type: multipart/mixed; boundary=a\n\n--a\n",
        "\nContent-Type: multipart/mixed; boundary=ab\n\n--ab\n",
        "C",
        "\u{e9}",
        "\0",
    ]);
    prop::collection::vec(fragment, 0..40).prop_map(|fragments| fragments.concat())
}

fn assert_chunks_do_not_matter(message: &[u8], sizes: &[usize], limits: Limits) -> Result<(), TestCaseError> {
    let mut framer = Framer::new(limits);
    let whole = frame_with(&mut framer, std::iter::once(message));
    assert_partition(&whole.0, message);
    let ones = frame_with(&mut framer, message.chunks(1));
    prop_assert_eq!(&ones, &whole);
    let mut rest = message;
    let mut sizes = sizes.iter().copied().cycle();
    let chunks = std::iter::from_fn(|| {
        let (chunk, after) = rest.split_at(sizes.next().unwrap_or(1).min(rest.len()));
        rest = after;
        (!chunk.is_empty() || !rest.is_empty()).then_some(chunk)
    });
    let chunked = frame_with(&mut framer, chunks);
    prop_assert_eq!(&chunked, &whole);
    Ok(())
}

fn sizes() -> impl Strategy<Value = Vec<usize>> {
    prop::collection::vec(0_usize..30, 1..8).prop_map(|mut sizes| {
        sizes.push(1);
        sizes
    })
}

fn limits() -> impl Strategy<Value = Limits> {
    let small = (0_u32..5, 0_u32..6, 0_usize..80, 0_usize..60, 0_usize..4);
    let small = small.prop_map(|(depth_max, parts_max, header_bytes_max, field_bytes_max, boundary_bytes_max)| {
        Limits { depth_max, parts_max, header_bytes_max, field_bytes_max, boundary_bytes_max }
    });
    prop_oneof![3 => Just(Limits::default()), 1 => small]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1024))]

    #[test]
    fn generated_mail_is_partitioned_and_chunks_do_not_matter(message in entity(), sizes in sizes(), limits in limits()) {
        assert_chunks_do_not_matter(message.as_bytes(), &sizes, limits)?;
    }

    #[test]
    fn any_octets_are_partitioned_and_chunks_do_not_matter(message in fragments(), sizes in sizes(), limits in limits()) {
        assert_chunks_do_not_matter(message.as_bytes(), &sizes, limits)?;
    }

    /// What a writer puts between well-formed delimiters comes back as it is.
    #[test]
    fn well_formed_parts_come_back(parts in prop::collection::vec("[a-z\r\n]{0,20}", 1..6), crlf in any::<bool>()) {
        let feed = if crlf { "\r\n" } else { "\n" };
        let mut message = format!("Content-Type: multipart/mixed; boundary=b{feed}{feed}");
        for part in &parts {
            message += &format!("--b{feed}{feed}{part}{feed}");
        }
        message += "--b--";
        let expected: Vec<String> = parts
            .iter()
            // A part that ends in CR has it taken for a half of the line feed behind it.
            .map(|part| format!("1={}", if crlf { part } else { part.strip_suffix('\r').unwrap_or(part) }))
            .collect();
        prop_assert_eq!(leaves(&message), expected);
    }
}
