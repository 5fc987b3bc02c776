//! Contents of the kinds that attachments are of, made from nothing: the same on every machine.

const WORDS: [&str; 24] = [
    "the",
    "ward",
    "of",
    "minutes",
    "and",
    "patient",
    "to",
    "please",
    "find",
    "attached",
    "report",
    "in",
    "meeting",
    "regards",
    "schedule",
    "for",
    "Thursday",
    "we",
    "have",
    "Krankenhaus",
    "budget",
    "with",
    "appointment",
    "a",
];

/// Numbers that look drawn at random (SplitMix64).
pub(crate) struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn word(&mut self) -> &'static str {
        WORDS[(self.next() >> 32) as usize % WORDS.len()]
    }
}

/// Octets that do not compress, as in JPEG pictures and videos.
pub(crate) fn incompressible(length: usize) -> Vec<u8> {
    let mut random = Random(1);
    let mut octets: Vec<u8> = (0..length.div_ceil(8)).flat_map(|_| random.next().to_le_bytes()).collect();
    octets.truncate(length);
    octets
}

/// What zstd saves about a tenth of, as in office documents: deflated members, and directories that repeat their names.
#[allow(dead_code, reason = "not every bench has all kinds")]
pub(crate) fn office(length: usize) -> Vec<u8> {
    let noise = incompressible(length);
    let mut octets = Vec::with_capacity(length + 512);
    for (number, member) in noise.chunks(1800).enumerate() {
        octets.extend_from_slice(b"PK\x03\x04\x14\x00\x06\x00\x08\x00\x00\x00!\x00word/media/document-");
        octets.extend_from_slice(format!("{number:06}.xml.rels application/vnd.openxmlformats-package").as_bytes());
        octets.extend_from_slice(&[0; 80]);
        octets.extend_from_slice(member);
    }
    octets.truncate(length);
    octets
}

/// Plain text.
#[allow(dead_code, reason = "not every bench has all kinds")]
pub(crate) fn text(length: usize) -> Vec<u8> {
    let mut random = Random(2);
    let mut text = Vec::with_capacity(length + 80);
    while text.len() < length {
        let number = random.next();
        for _ in 0..8 + number % 5 {
            text.extend_from_slice(random.word().as_bytes());
            text.push(b' ');
        }
        text.extend_from_slice(format!("{}.\r\n", number % 10_000).as_bytes());
    }
    text.truncate(length);
    text
}

/// HTML as mail programs write it: more marks than words.
#[allow(dead_code, reason = "not every bench has all kinds")]
pub(crate) fn html(length: usize) -> Vec<u8> {
    let mut random = Random(3);
    let mut html = Vec::with_capacity(length + 200);
    while html.len() < length {
        let size = random.next() % 30;
        let (one, two, three) = (random.word(), random.word(), random.word());
        let line = format!(
            "<tr><td style=\"font-family:Calibri,sans-serif;font-size:{size}.0pt;margin:0\"><p class=\"MsoNormal\">{one} {two}&nbsp;{three}</p></td></tr>\r\n"
        );
        html.extend_from_slice(line.as_bytes());
    }
    html.truncate(length);
    html
}
