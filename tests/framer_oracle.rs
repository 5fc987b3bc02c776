//! The framer against mail-parser on real mail: the same leaf parts, or a difference with a name, a count and a ceiling.
//!
//! Reads the messages under `MAILRAIL_CORPUS`, files and mboxes, and is skipped without it.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use mail_parser::{Encoding, Message, MessageParser, MimeHeaders as _, PartType};
use mailrail::mime::{Defects, Event, Framer, TransferEncoding};
use memchr::memmem;

/// Each kind of difference, and in how many of 10,000 messages it may be. What is not in this table may not be at all.
const CEILINGS: [(&str, u64); 13] = [
    // mail-parser makes an empty part of a header block with nothing behind it; the framer has no leaf there.
    ("no octets", 40),
    // The declared encoding does not fit the content: mail-parser takes it back, the framer leaves that to the decoder.
    ("does not decode", 10),
    // The encoding is followed by a semicolon or the like: the framer reads it, mail-parser does not.
    ("encoding with trimmings", 1),
    // No delimiter of a multipart ever comes: a text part for mail-parser, a preamble for the framer.
    ("multipart without delimiters", 4),
    // A multipart has a close delimiter only: mail-parser takes the epilogue for a part.
    ("multipart without parts", 1),
    // An outer delimiter ends an inner multipart for the framer; mail-parser does not look for it.
    ("inner multipart not closed", 2),
    // mail-parser finds a boundary inside of a line.
    ("boundary inside of a line", 1),
    // mail-parser finds a boundary in a line that goes on with other text.
    ("boundary with text behind it", 1),
    // mail-parser takes the white space at a boundary's end for a part of it.
    ("boundary with white space behind it", 1),
    // mail-parser takes an enclosed message without a blank line for text, the framer for a header block.
    ("enclosed message without a body", 1),
    // mail-parser reads a field past the blank line at the block's end (a date that ends in `UT`).
    ("header block read too far", 1),
    // Parts deeper than the framer's limit, or boundaries longer than it.
    ("over a limit", 1),
    // The parser panics (only with debug assertions).
    ("no verdict", 1),
];

/// From this size on, a part that mail-parser finds must be found, or be in a class that says why not.
const ATTACHMENT_BYTES: usize = 16 * 1024;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Part {
    start: usize,
    end: usize,
    encoding: Encoding,
    /// Whether mail-parser has taken the encoding back.
    problem: bool,
    /// Whether the type is multipart or an enclosed message's nevertheless.
    composite: Option<&'static str>,
}

#[test]
fn real_mail_has_the_parts_that_mail_parser_finds_or_a_named_difference() {
    let Some(root) = std::env::var_os("MAILRAIL_CORPUS") else {
        println!("skipped: MAILRAIL_CORPUS is not set");
        return;
    };
    let mut files = Vec::new();
    collect(Path::new(&root), &mut files);
    let mut tally = Tally::default();
    let mut framer = Framer::default();
    for file in &files {
        let Ok(octets) = fs::read(file) else { continue };
        for message in messages(&octets) {
            compare(&mut framer, message, file, &mut tally);
        }
    }
    tally.judge();
}

/// What was found in all messages.
#[derive(Default)]
struct Tally {
    messages: u64,
    parts: u64,
    /// Messages with a difference of each class.
    classes: BTreeMap<&'static str, u64>,
    /// Large parts that only mail-parser sees, of each class.
    attachments: BTreeMap<&'static str, u64>,
    defects: BTreeMap<&'static str, u64>,
}

impl Tally {
    fn judge(&self) {
        println!("{} messages, {} parts", self.messages, self.parts);
        println!("messages with differences: {:?}", self.classes);
        println!("attachments that only mail-parser sees: {:?}", self.attachments);
        println!("defects: {:?}", self.defects);
        assert!(self.messages > 0, "no messages in the corpus");
        for (class, count) in &self.classes {
            let ceiling = CEILINGS.iter().find(|(name, _)| name == class).map_or(0, |(_, ceiling)| *ceiling);
            // A small corpus may have a handful of each.
            let allowed = if ceiling == 0 { 0 } else { (self.messages * ceiling / 10_000).max(5) };
            assert!(*count <= allowed, "{class}: {count} messages of {}, at most {allowed} allowed", self.messages);
        }
    }
}

fn compare(framer: &mut Framer, octets: &[u8], file: &Path, tally: &mut Tally) {
    let (ours, defects) = framed(framer, octets, octets.len());
    let (chunked, _) = framed(framer, octets, 4096);
    assert!(ours == chunked, "chunks matter in {}", file.display());
    tally.messages += 1;
    tally.parts += ours.len() as u64;
    for (name, count) in defects.classes() {
        *tally.defects.entry(name).or_default() += u64::from(count);
    }
    let Ok((theirs, boundaries)) = std::panic::catch_unwind(|| parsed(octets)) else {
        *tally.classes.entry("no verdict").or_default() += 1;
        return;
    };
    let case = Case { octets, ours: &ours, theirs: &theirs, boundaries: &boundaries, defects };
    let mut classes: Vec<&'static str> = Vec::new();
    let mut note = |class, start| {
        if !classes.contains(&class) {
            classes.push(class);
        }
        if class == "unnamed" {
            println!("unnamed: {} at {start}", file.display());
        }
    };
    for part in &theirs {
        let Some(class) = case.class_of_theirs(part) else { continue };
        note(class, part.start);
        if part.end - part.start >= ATTACHMENT_BYTES && !ours.iter().any(|each| each.start == part.start) {
            *tally.attachments.entry(class).or_default() += 1;
        }
    }
    for part in &ours {
        if !theirs.iter().any(|each| (each.start, each.end) == (part.start, part.end)) {
            note(case.root_cause(), part.start);
        }
    }
    for class in classes {
        *tally.classes.entry(class).or_default() += 1;
    }
}

/// Whether a part that differs does so for this reason.
type Cause<'a> = fn(&Case<'a>, &Part) -> bool;

/// One message seen by both.
struct Case<'a> {
    octets: &'a [u8],
    ours: &'a [Part],
    theirs: &'a [Part],
    /// The boundaries that mail-parser has read.
    boundaries: &'a [String],
    defects: Defects,
}

impl<'a> Case<'a> {
    /// Why the framer does not have this part just so; `None` if it has.
    fn class_of_theirs(&self, part: &Part) -> Option<&'static str> {
        let same = self.ours.iter().find(|each| (each.start, each.end) == (part.start, part.end));
        match same {
            Some(same) if same.encoding == part.encoding => None,
            Some(_) if part.problem => Some("does not decode"),
            Some(same) if same.encoding != Encoding::None && part.encoding == Encoding::None => {
                Some("encoding with trimmings")
            }
            None if part.start >= part.end => Some("no octets"),
            None if part.composite.is_some() => part.composite,
            _ => Some(self.root_cause()),
        }
    }

    /// Where the two part ways. What follows from that point on differs for the same reason.
    fn root_cause(&self) -> &'static str {
        if self.defects.depth_exceeded > 0 || self.defects.boundary_missing > 0 {
            return "over a limit";
        }
        let causes: [(&str, Cause<'a>); 6] = [
            ("boundary with white space behind it", Self::runs_over_a_trimmed_boundary),
            ("inner multipart not closed", Self::runs_over_an_outer_delimiter),
            ("boundary inside of a line", Self::ends_inside_of_a_line),
            ("multipart without parts", Self::is_behind_a_close_delimiter),
            ("boundary with text behind it", Self::has_a_line_that_begins_like_a_delimiter),
            ("header block read too far", Self::begins_behind_a_body),
        ];
        let differing: Vec<&Part> = self.theirs.iter().filter(|part| !self.has(part)).collect();
        causes
            .iter()
            .find(|(_, cause)| differing.iter().any(|part| cause(self, part)))
            .map_or("unnamed", |(class, _)| *class)
    }

    fn has(&self, part: &Part) -> bool {
        self.ours.iter().any(|each| (each.start, each.end) == (part.start, part.end))
    }

    fn runs_over_a_trimmed_boundary(&self, part: &Part) -> bool {
        self.runs_over_a_delimiter(part, |line, boundary| {
            !line.starts_with(boundary) && boundary.ends_with(b" ") && line.starts_with(boundary.trim_ascii_end())
        })
    }

    /// mail-parser looks for the innermost boundary alone.
    fn runs_over_an_outer_delimiter(&self, part: &Part) -> bool {
        self.runs_over_a_delimiter(part, <[u8]>::starts_with)
    }

    /// Whether the framer ends the part earlier, at a line that is two hyphens and what `fits` one of the boundaries.
    fn runs_over_a_delimiter(&self, part: &Part, fits: impl Fn(&[u8], &[u8]) -> bool) -> bool {
        let ours = self.ours.iter().find(|each| each.start == part.start && each.end < part.end);
        let behind = ours.and_then(|ours| self.octets.get(ours.end..)).unwrap_or_default();
        let line = behind.trim_ascii_start().strip_prefix(b"--");
        line.is_some_and(|line| self.boundaries.iter().any(|boundary| fits(line, boundary.as_bytes())))
    }

    fn ends_inside_of_a_line(&self, part: &Part) -> bool {
        let behind = self.octets.get(part.end..).unwrap_or_default();
        behind.starts_with(b"--") && part.end > part.start && self.octets.get(part.end - 1) != Some(&b'\n')
    }

    fn is_behind_a_close_delimiter(&self, part: &Part) -> bool {
        let before = self.octets.get(..part.start).unwrap_or_default().trim_ascii_end();
        let line = before.rsplit(|octet| *octet == b'\n').next().unwrap_or_default();
        line.starts_with(b"--") && line.ends_with(b"--") && line.len() > 4
    }

    /// Whether the framer begins the same part earlier, behind a blank line.
    fn begins_behind_a_body(&self, part: &Part) -> bool {
        self.ours.iter().any(|ours| {
            let before = self.octets.get(..ours.start).unwrap_or_default();
            ours.end == part.end
                && ours.start < part.start
                && (before.ends_with(b"\n\n") || before.ends_with(b"\n\r\n"))
        })
    }

    fn has_a_line_that_begins_like_a_delimiter(&self, _: &Part) -> bool {
        self.boundaries.iter().filter(|boundary| !boundary.is_empty()).any(|boundary| {
            let delimiter = [b"\n--", boundary.as_bytes()].concat();
            memmem::find_iter(self.octets, &delimiter).any(|at| {
                let behind = self.octets.get(at + delimiter.len()..).unwrap_or_default();
                !behind.is_empty() && !behind.starts_with(b"--") && !behind[0].is_ascii_whitespace()
            })
        })
    }
}

fn framed(framer: &mut Framer, octets: &[u8], chunk: usize) -> (Vec<Part>, Defects) {
    let mut parts: Vec<Part> = Vec::new();
    let mut at = 0;
    let mut see = |event: Event<'_>| match event {
        Event::Literal(slice) => {
            assert!(octets[at..].starts_with(slice), "a literal that is not the message's");
            at += slice.len();
        }
        Event::Begin(leaf) => parts.push(Part {
            start: at,
            end: at,
            encoding: match leaf.encoding {
                TransferEncoding::Base64 => Encoding::Base64,
                TransferEncoding::QuotedPrintable => Encoding::QuotedPrintable,
                _ => Encoding::None,
            },
            problem: false,
            composite: None,
        }),
        Event::Body(slice) => {
            assert!(octets[at..].starts_with(slice), "a body that is not the message's");
            at += slice.len();
            parts.last_mut().expect("a body has a beginning").end = at;
        }
        _ => {}
    };
    for chunk in octets.chunks(chunk.max(1)) {
        framer.push(chunk, &mut see);
    }
    let defects = framer.finish(&mut see);
    assert_eq!(at, octets.len(), "octets are missing");
    (parts, defects)
}

/// The leaf parts that mail-parser sees, and all boundaries.
fn parsed(octets: &[u8]) -> (Vec<Part>, Vec<String>) {
    let (mut parts, mut boundaries) = (Vec::new(), Vec::new());
    if let Some(message) = MessageParser::default().parse(octets) {
        gather(&message, &mut parts, &mut boundaries);
    }
    (parts, boundaries)
}

/// The leaf parts, those of messages that stand in the octets as they are included.
fn gather(message: &Message<'_>, parts: &mut Vec<Part>, boundaries: &mut Vec<String>) {
    for part in &message.parts {
        boundaries.extend(part.content_type().and_then(|kind| kind.attribute("boundary")).map(str::to_owned));
        match &part.body {
            PartType::Multipart(_) => {}
            PartType::Message(inner) if part.encoding == Encoding::None => gather(inner, parts, boundaries),
            _ => parts.push(Part {
                start: part.offset_body as usize,
                end: part.offset_end as usize,
                encoding: part.encoding,
                problem: part.is_encoding_problem,
                composite: part.content_type().and_then(|kind| match (kind.ctype(), kind.subtype()) {
                    ("multipart", _) => Some("multipart without delimiters"),
                    ("message", Some("rfc822" | "global")) => Some("enclosed message without a body"),
                    _ => None,
                }),
            }),
        }
    }
}

fn collect(directory: &Path, files: &mut Vec<PathBuf>) {
    let Ok(entries) = fs::read_dir(directory) else { return };
    for entry in entries.flatten() {
        let Ok(kind) = entry.file_type() else { continue };
        if kind.is_dir() {
            collect(&entry.path(), files);
        } else if kind.is_file() && entry.metadata().is_ok_and(|metadata| metadata.len() < 64 << 20) {
            files.push(entry.path());
        }
    }
}

/// The messages in a file: one, or those of an mbox, or none.
fn messages(octets: &[u8]) -> Vec<&[u8]> {
    let mut messages = Vec::new();
    if octets.starts_with(b"From ") {
        let mut rest = octets;
        while let Some(feed) = memchr::memchr(b'\n', rest) {
            rest = &rest[feed + 1..];
            let end = memmem::find(rest, b"\n\nFrom ").map_or(rest.len(), |end| end + 2);
            messages.push(&rest[..end]);
            rest = &rest[end..];
        }
    } else {
        messages.push(octets);
    }
    messages.retain(|message| looks_like_a_message(message));
    messages
}

/// Whether the first line that is not blank has a field's name and a colon, and no zero octets are near.
fn looks_like_a_message(octets: &[u8]) -> bool {
    let mut lines = octets.split(|octet| *octet == b'\n').map(<[u8]>::trim_ascii);
    let first = lines.find(|line| !line.is_empty()).unwrap_or_default();
    let name = first.iter().take_while(|octet| octet.is_ascii_graphic() && **octet != b':').count();
    (1..80).contains(&name) && first.get(name) == Some(&b':') && !octets[..octets.len().min(512)].contains(&0)
}
