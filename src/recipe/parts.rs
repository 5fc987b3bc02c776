//! What a message holds, told from its recipe alone: no piece is read.

use super::{Content, Recipe, Span};
use crate::mime::{Event, Framer, Limits, TransferEncoding};
use mail_parser::{Message, MessageParser, MimeHeaders};
use std::ops::Range;

/// A leaf part of a message.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Part {
    /// How many multiparts and enclosed messages it is inside of, as far as its header is known.
    pub depth: u32,
    /// Its transfer encoding in the message.
    pub encoding: TransferEncoding,
    /// Its media type in small letters, such as `image/png`. `None` if its header has none (then it is `text/plain`, RFC 2045 5.2) or is not in the recipe.
    pub media_type: Option<String>,
    /// Its file name as the header has it (RFC 2183 2.3, RFC 2231; RFC 2047 too, as many write it). It is whatever the sender wanted it to be, with `/`, NUL
    /// or `..`: never use it as a path.
    pub name: Option<String>,
    /// Where its body is, in order.
    pub body: Vec<Section>,
}

impl Part {
    /// Octets of its body as they are held: decoded, where base64 was exact.
    #[must_use]
    pub fn octets(&self) -> u64 {
        self.body.iter().map(Section::octets).sum()
    }
}

/// A section of a part's body.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Section {
    /// In [`Recipe::literals`], at these places, in the transfer encoding of the message.
    Literal(Range<usize>),
    /// In [`Recipe::literals`], at these places, decoded from base64.
    InlineBase64(Range<usize>),
    /// In pieces, in the transfer encoding of the message.
    Verbatim {
        /// The first of them in the message's list of pieces, counted from 0.
        first_piece: u64,
        /// How many octets, and how they are cut.
        content: Content,
    },
    /// In pieces, decoded from base64.
    Base64 {
        /// The first of them in the message's list of pieces, counted from 0.
        first_piece: u64,
        /// How many octets, and how they are cut.
        content: Content,
    },
}

impl Section {
    fn octets(&self) -> u64 {
        match self {
            Self::Literal(place) | Self::InlineBase64(place) => place.len() as u64,
            Self::Verbatim { content, .. } | Self::Base64 { content, .. } => content.octets,
        }
    }
}

impl Recipe {
    /// The parts of the message, in order, each with where to find it. Parts inside a run that was put into pieces are not seen; content whose header
    /// is in such a run is listed without type and name.
    #[must_use]
    pub fn parts(&self) -> Vec<Part> {
        let (framed, places) = self.framed();
        let mut leaves = leaves(&framed);
        close_at_runs(&mut leaves, &places);
        assign(leaves, &places)
    }

    /// The octets of literal spans, put together, and what is held where among them.
    fn framed(&self) -> (Vec<u8>, Vec<Place>) {
        let (mut framed, mut places) = (Vec::with_capacity(self.literals().len()), Vec::new());
        let (mut literals, mut pieces) = (0, 0);
        for span in self.spans() {
            let at = framed.len();
            let held = match span {
                Span::Literal(octets) => {
                    framed.extend_from_slice(octets);
                    let from = literals;
                    literals += octets.len();
                    Held::Literal(from..literals)
                }
                Span::InlineBase64(_, octets) => {
                    let from = literals;
                    literals += octets.len();
                    Held::Content(Section::InlineBase64(from..literals))
                }
                Span::Verbatim(content) => Held::Content(Section::Verbatim { first_piece: pieces, content }),
                Span::Base64(_, content) => Held::Content(Section::Base64 { first_piece: pieces, content }),
                Span::Run(_) => Held::Run,
            };
            if let Span::Verbatim(content) | Span::Base64(_, content) | Span::Run(content) = span {
                pieces += content.pieces();
            }
            places.push(Place { at, held });
        }
        (framed, places)
    }
}

/// Something held in front of the octet `at` of the framed ones.
struct Place {
    at: usize,
    held: Held,
}

#[derive(PartialEq, Eq)]
enum Held {
    /// It is the framed octets from there; these in the literals.
    Literal(Range<usize>),
    Content(Section),
    Run,
}

/// A leaf among the framed octets.
struct Leaf {
    part: Part,
    body: Range<usize>,
    /// A run follows: content at the end of the body may be behind the run.
    closed: bool,
}

fn leaves(framed: &[u8]) -> Vec<Leaf> {
    let mut leaves: Vec<Leaf> = Vec::new();
    let (mut at, mut header_from) = (0, 0);
    let mut take = |event: Event<'_>| match event {
        Event::Literal(octets) => at += octets.len(),
        Event::Begin(leaf) => {
            let mut part = part(framed.get(header_from..at).unwrap_or_default());
            part.depth = leaf.depth;
            part.encoding = leaf.encoding;
            leaves.push(Leaf { part, body: at..at, closed: false });
        }
        Event::Body(octets) => {
            at += octets.len();
            if let Some(leaf) = leaves.last_mut() {
                leaf.body.end = at;
            }
        }
        Event::End => header_from = at,
    };
    let mut framer = Framer::new(Limits::default());
    framer.push(framed, &mut take);
    framer.finish(&mut take);
    leaves
}

/// Ends leaves where a run is: what comes behind it is not known to be of the part in front.
fn close_at_runs(leaves: &mut [Leaf], places: &[Place]) {
    let mut runs = places.iter().filter(|place| place.held == Held::Run).map(|place| place.at).peekable();
    for leaf in leaves {
        while runs.next_if(|at| *at < leaf.body.start).is_some() {}
        if let Some(at) = runs.peek().filter(|at| **at <= leaf.body.end) {
            leaf.body.end = *at;
            leaf.closed = true;
        }
    }
}

/// Puts sections into the parts that they belong to; content that belongs to none becomes a part of its own.
fn assign(leaves: Vec<Leaf>, places: &[Place]) -> Vec<Part> {
    let mut parts = Vec::with_capacity(leaves.len());
    let mut leaves = leaves.into_iter().peekable();
    let mut run_at = None;
    for Place { at, held } in places {
        let end = *at + if let Held::Literal(place) = held { place.len() } else { 0 };
        // Leaves that end before this place are complete.
        while let Some(leaf) = leaves.next_if(|leaf| leaf.body.end < *at) {
            parts.push(leaf.part);
        }
        match held {
            Held::Run => run_at = Some(*at),
            Held::Content(section) => match leaves.peek_mut() {
                Some(leaf) if leaf.body.start <= *at && !(leaf.closed && run_at == Some(*at)) => {
                    leaf.part.body.push(section.clone())
                }
                _ => {
                    while let Some(leaf) = leaves.next_if(|leaf| leaf.body.start <= *at) {
                        parts.push(leaf.part);
                    }
                    parts.push(nameless(section.clone()));
                }
            },
            Held::Literal(place) => {
                while let Some(leaf) = leaves.peek_mut() {
                    let (from, to) = (leaf.body.start.max(*at), leaf.body.end.min(end));
                    if from < to {
                        leaf.part.body.push(Section::Literal(place.start + (from - at)..place.start + (to - at)));
                    }
                    // A body that ends where the literals end may go on with content.
                    match leaves.next_if(|leaf| leaf.body.end < end) {
                        Some(leaf) => parts.push(leaf.part),
                        None => break,
                    }
                }
            }
        }
    }
    parts.extend(leaves.map(|leaf| leaf.part));
    parts
}

fn nameless(section: Section) -> Part {
    let encoding = match section {
        Section::Base64 { .. } | Section::InlineBase64(_) => TransferEncoding::Base64,
        Section::Verbatim { .. } | Section::Literal(_) => TransferEncoding::Identity,
    };
    Part { depth: 0, encoding, media_type: None, name: None, body: vec![section] }
}

/// A part by its header, which is at the end of `octets`, behind whatever ended the part before.
fn part(octets: &[u8]) -> Part {
    let message = MessageParser::new().with_mime_headers().parse_headers(header_block(octets));
    let media_type = message.as_ref().and_then(Message::content_type).map(|media| match &media.c_subtype {
        Some(subtype) => format!("{}/{subtype}", media.c_type).to_ascii_lowercase(),
        None => media.c_type.to_ascii_lowercase(),
    });
    let name = message.as_ref().and_then(MimeHeaders::attachment_name).map(str::to_owned);
    Part { depth: 0, encoding: TransferEncoding::Identity, media_type, name, body: Vec::new() }
}

/// The last header block: the lines behind the last blank line or delimiter, not counting the blank line that ends it.
fn header_block(octets: &[u8]) -> &[u8] {
    let mut from = octets.len();
    for line in octets.split_inclusive(|octet| *octet == b'\n').rev() {
        let blank = line.iter().all(|octet| matches!(octet, b'\r' | b'\n'));
        if blank && from != octets.len() || line.starts_with(b"--") {
            break;
        }
        from -= line.len();
    }
    &octets[from..]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::recipe::{Cuts, Dissector};
    use proptest::prelude::*;

    fn parts_with(cuts: Cuts, message: &[u8]) -> (Recipe, Vec<Part>) {
        let mut dissector = Dissector::new(cuts, Limits::default());
        let mut recipe = Vec::new();
        dissector.push(message, &mut |_| {});
        dissector.finish(&mut |_| {}, &mut recipe);
        let recipe = Recipe::decode(&recipe).unwrap();
        let parts = recipe.parts();
        (recipe, parts)
    }

    fn small_cuts() -> Cuts {
        Cuts { base64_blob_min: 60, verbatim_blob_min: 200, literal_run_max: 500, piece_max: 100, recipe_max: 1 << 20 }
    }

    const MESSAGE: &str = "From: a\r\nContent-Type: multipart/mixed; boundary=\"b\"\r\n\r\npreamble: x\r\n\r\n\
        --b\r\n\r\nHello,\r\nhere it is.\r\n\
        --b\r\nContent-Type: Image/PNG; name=other\r\nContent-Transfer-Encoding: base64\r\n\
        Content-Disposition: attachment; filename*=utf-8''%e2%82%ac%20rates.png\r\n\r\nLARGE\r\n\
        --b\r\nContent-Type: message/rfc822\r\n\r\nSubject: inner\r\nContent-Type: text/csv; name=\"=?utf-8?B?w6Q=?=\"\r\n\
        Content-Transfer-Encoding: base64\r\n\r\nSMALL\r\n\
        --b--\r\n";

    fn message() -> String {
        let large = format!("{}\r\n", "QUJD".repeat(19)).repeat(4);
        MESSAGE.replace("LARGE\r\n", &large).replace("SMALL", "QUJDREVG")
    }

    #[test]
    fn parts_are_listed_with_type_name_and_place() {
        let (recipe, parts) = parts_with(small_cuts(), message().as_bytes());
        let [text, image, table] = parts.as_slice() else { panic!("{parts:?}") };
        assert_eq!((&text.media_type, &text.name, text.depth), (&None, &None, 1));
        let [Section::Literal(place)] = text.body.as_slice() else { panic!("{text:?}") };
        assert_eq!(&recipe.literals()[place.clone()], b"Hello,\r\nhere it is.");
        assert_eq!(
            (image.media_type.as_deref(), image.name.as_deref()),
            (Some("image/png"), Some("\u{20ac} rates.png"))
        );
        assert_eq!(image.encoding, TransferEncoding::Base64);
        assert_eq!(image.body, [Section::Base64 { first_piece: 0, content: Content { octets: 228, piece: 100 } }]);
        assert_eq!(
            (table.media_type.as_deref(), table.name.as_deref(), table.depth),
            (Some("text/csv"), Some("\u{e4}"), 2)
        );
        let [Section::InlineBase64(place)] = table.body.as_slice() else { panic!("{table:?}") };
        assert_eq!(&recipe.literals()[place.clone()], b"ABCDEF");
        assert_eq!(table.octets(), 6);
    }

    #[test]
    fn a_part_that_turns_irregular_has_two_sections() {
        let body = format!("{}\n{}", "QUJD".repeat(30), "not base64!\n".repeat(30));
        let (_, parts) = parts_with(small_cuts(), format!("Content-Transfer-Encoding: base64\n\n{body}").as_bytes());
        let [part] = parts.as_slice() else { panic!("{parts:?}") };
        assert!(
            matches!(part.body.as_slice(), [Section::Base64 { .. }, Section::Verbatim { first_piece: 1, .. }]),
            "{part:?}"
        );
    }

    #[test]
    fn content_behind_a_run_is_listed_without_a_name() {
        let padding = "X-Padding: and so on\r\n".repeat(100);
        let message = message().replace("Content-Type: Image", &format!("{padding}Content-Type: Image"));
        let (_, parts) = parts_with(small_cuts(), message.as_bytes());
        let first_piece = parts.iter().find_map(|part| match part.body.as_slice() {
            [Section::Base64 { first_piece, .. }] => Some((*first_piece, part.name.clone())),
            _ => None,
        });
        // The header's run, with what is in front of it, has pieces of its own.
        assert!(matches!(first_piece, Some((20.., None))), "{parts:?}");
    }

    #[test]
    fn pitfall_15_a_hostile_name_is_only_a_name() {
        let message = "Content-Type: a/b\nContent-Disposition: attachment; filename=\"../../etc/passwd\"\n\nbody\n";
        assert_eq!(parts_with(Cuts::default(), message.as_bytes()).1[0].name.as_deref(), Some("../../etc/passwd"));
    }

    proptest! {
        #[test]
        fn every_content_is_in_exactly_one_part(text in "((--[ab]{1,2}(--)?|Content-(Type: (multipart/mixed; boundary=[ab]|message/rfc822)|Transfer-Encoding: base64)|QUJDQUJD|)\n){0,60}") {
            let cuts = Cuts { base64_blob_min: 9, verbatim_blob_min: 10, literal_run_max: 40, piece_max: 5, recipe_max: 1 << 20 };
            let (recipe, parts) = parts_with(cuts, text.as_bytes());
            let contents = recipe.spans().filter(|span| !matches!(span, Span::Literal(_) | Span::Run(_))).count();
            let listed = parts.iter().flat_map(|part| &part.body).filter(|section| !matches!(section, Section::Literal(_))).count();
            prop_assert_eq!(contents, listed);
        }
    }
}
