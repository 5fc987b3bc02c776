//! Text from a table of words: quick to make, and as compressible as what people write.

use super::random::{Random, mix};
use std::sync::OnceLock;

/// Common words come first, because low ranks are drawn more often.
const COMMON: &str = "the to and of in a is for you that we on it with as be this have are I will not at please by from or if your \
can our an but all me my was do has so would there which they know one any more up time what about out get just when no been \
project meeting thanks attached report regards need report next week update team should could also only new see like use make \
after before them some other then than into work could two first call send today tomorrow question order price customer";

const ABROAD: &str = "für über können Grüße größer Straße müssen würde café déjà élève même où après été mañana señor año \
también más à être naïve Øresund Łódź";

const SYLLABLES: [&str; 32] = [
    "an", "ber", "con", "de", "er", "for", "ge", "ha", "in", "jo", "ka", "lin", "mo", "ne", "or", "pre", "qui", "re",
    "ser", "ti", "un", "ver", "wo", "ex", "yo", "za", "tion", "ment", "al", "ist", "ing", "ed",
];

/// The ranks of the table.
const RANKS: usize = 2048;

/// A word and the space behind it, in a fixed number of octets, which copies faster than a varying one.
#[derive(Clone, Copy, Debug)]
struct Word {
    octets: [u8; 16],
    len: u8,
}

impl Word {
    fn new(text: &str) -> Self {
        let mut octets = [b' '; 16];
        let len = text.len().min(15);
        octets[..len].copy_from_slice(&text.as_bytes()[..len]);
        Self { octets, len: len as u8 + 1 }
    }

    /// The word and its space.
    fn as_bytes(&self) -> &[u8] {
        &self.octets[..usize::from(self.len)]
    }
}

/// A table of words, and the words as text.
#[derive(Debug)]
struct Table {
    words: Vec<Word>,
    text: Vec<String>,
}

impl Table {
    fn new(words: impl Iterator<Item = Word>) -> Self {
        let words: Vec<Word> = words.collect();
        let text = words.iter().map(|word| String::from_utf8_lossy(word.as_bytes()).trim_end().to_owned()).collect();
        Self { words, text }
    }
}

fn table() -> &'static Table {
    static TABLE: OnceLock<Table> = OnceLock::new();
    TABLE.get_or_init(|| {
        let rare = (0..).map(|number| {
            let draw = mix(0x776f_7264, number);
            let syllables = 2 + (draw >> 60) as u32 % 3;
            let word: String = (0..syllables).map(|turn| SYLLABLES[(draw >> (turn * 5)) as usize % 32]).collect();
            Word::new(&word)
        });
        Table::new(COMMON.split_whitespace().map(Word::new).chain(rare).take(RANKS))
    })
}

fn abroad() -> &'static Table {
    static TABLE: OnceLock<Table> = OnceLock::new();
    TABLE.get_or_init(|| Table::new(ABROAD.split_whitespace().map(Word::new)))
}

/// Low ranks far more often than high ones. Needs 16 bits.
fn rank(bits: u64) -> usize {
    let point = bits & 0xffff;
    ((point * point) >> 21) as usize
}

/// A word, without the space.
pub(super) fn word(random: &mut Random) -> &'static str {
    &table().text[rank(random.next())]
}

/// A word outside ASCII, without the space.
pub(super) fn foreign_word(random: &mut Random) -> &'static str {
    let table = abroad();
    &table.text[random.below(table.text.len() as u64) as usize]
}

/// Appends exactly `count` octets of running text in lines of about 72.
pub(super) fn text(random: &mut Random, foreign: bool, count: usize, out: &mut Vec<u8>) {
    fill(random, foreign, count, out, |_, _| {});
}

/// Appends exactly `count` octets of running text with HTML tags.
pub(super) fn html(random: &mut Random, foreign: bool, count: usize, out: &mut Vec<u8>) {
    const TAGS: [&str; 8] = [
        "</p>\n<p style=\"margin:0cm;font-size:11.0pt;font-family:Calibri\">",
        "<b>",
        "</b>",
        "<br>\n",
        "</td><td align=\"left\" bgcolor=\"#f4f4f4\">",
        "<span lang=\"EN-GB\">",
        "</span>",
        "<a href=\"https://www.example.org/",
    ];
    fill(random, foreign, count, out, |random, out| {
        let tag = random.pick(&TAGS);
        out.extend_from_slice(tag.as_bytes());
        if tag.ends_with('/') {
            out.extend_from_slice(&hex(random.next()));
            out.extend_from_slice(b"\">");
        }
    });
}

/// Appends exactly `count` octets of lines with numbers and words.
pub(super) fn records(random: &mut Random, count: usize, out: &mut Vec<u8>) {
    fill(random, false, count, out, |random, out| {
        out.extend_from_slice(b"\n2024-03-");
        out.extend_from_slice(&hex(random.next() & 0x0fff_ffff)[8..]);
        out.push(b';');
    });
}

/// Sixteen hexadecimal digits.
pub(super) fn hex(number: u64) -> [u8; 16] {
    let mut digits = [0; 16];
    for (place, digit) in (0u32..).zip(&mut digits) {
        *digit = b"0123456789abcdef"[(number >> (60 - 4 * place)) as usize & 15];
    }
    digits
}

/// Appends words until exactly `count` octets are there; `between` may add something after every few words (up to about 80 octets).
fn fill(
    random: &mut Random,
    foreign: bool,
    count: usize,
    out: &mut Vec<u8>,
    between: impl Fn(&mut Random, &mut Vec<u8>),
) {
    const LINE: usize = 72;
    // Room for four words and what comes between them.
    const MARGIN: usize = 160;
    let end = out.len() + count;
    let words = &table().words;
    let abroad = &abroad().words;
    let mut line = out.len();
    while out.len() + MARGIN < end {
        let mut bits = random.next();
        for _ in 0..4 {
            out.extend_from_slice(words[rank(bits)].as_bytes());
            bits >>= 16;
        }
        if foreign && random.percent(40) {
            out.extend_from_slice(abroad[random.below(abroad.len() as u64) as usize].as_bytes());
        }
        if out.len() - line > LINE - 20 {
            if let Some(last) = out.last_mut() {
                *last = b'\n';
            }
            line = out.len();
            between(random, out);
        }
    }
    while out.len() < end {
        let word = words[rank(random.next())].as_bytes();
        let take = word.len().min(end - out.len());
        out.extend_from_slice(&word[..take]);
        if out.len() - line > LINE && out.last() == Some(&b' ') && out.len() < end {
            if let Some(last) = out.last_mut() {
                *last = b'\n';
            }
            line = out.len();
        }
    }
}
