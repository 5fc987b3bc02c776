//! Contents: the decoded octets of parts, each made from its id alone, block by block.

use super::random::{Random, at_weight, even, mix};
use super::table::{CLASSES, LARGE};
use super::words;

/// Names a content: the same id has the same octets wherever it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub struct ContentId {
    /// The class of sizes that it belongs to.
    pub(super) class: u8,
    /// Its number in the class.
    pub(super) ordinal: u64,
}

impl ContentId {
    /// The number of its class in the table.
    pub(super) fn class(self) -> usize {
        usize::from(self.class)
    }
}

/// One content: the decoded octets of a part.
#[derive(Clone, Copy, Debug)]
pub struct Content {
    id: ContentId,
    key: u64,
    size: u32,
    kind: Kind,
}

impl Content {
    /// Octets in a block, the unit in which contents are made.
    pub const BLOCK: usize = 64 << 10;

    pub(super) fn new(seed: u64, cap: u32, id: ContentId) -> Self {
        let class = usize::from(id.class);
        let [size, kind, _] = even(mix(seed ^ 0x6f, u64::from(id.class)), id.ordinal);
        let key = mix(mix(seed ^ 0x63, u64::from(id.class)), id.ordinal);
        Self { id, key, size: CLASSES[class].size(size, cap), kind: Kind::at(class, kind) }
    }

    /// Its name inside the organisation.
    #[must_use]
    pub fn id(&self) -> ContentId {
        self.id
    }

    /// Its length in octets; never 0.
    #[must_use]
    pub fn len(&self) -> u64 {
        u64::from(self.size)
    }

    /// Whether it has no octets: never.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.size == 0
    }

    /// All of its octets: up to 30 MiB, the longest there is.
    #[must_use]
    pub fn octets(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(self.size as usize);
        for block in 0..self.blocks() {
            self.block(block, &mut out);
        }
        out
    }

    /// What it is.
    pub(super) fn kind(&self) -> Kind {
        self.kind
    }

    /// A number of its own, for file names and the like.
    pub(super) fn key(&self) -> u64 {
        self.key
    }

    /// How many blocks it has.
    pub(super) fn blocks(&self) -> u64 {
        self.len().div_ceil(Self::BLOCK as u64)
    }

    /// Appends block `number`.
    pub(super) fn block(&self, number: u64, out: &mut Vec<u8>) {
        let left = self.len().saturating_sub(number * Self::BLOCK as u64);
        let count = left.min(Self::BLOCK as u64) as usize;
        let mut random = Random::new(mix(self.key, number));
        match self.kind.texture() {
            Texture::Noise => random.octets(count, out),
            Texture::Mixed(fresh) => mixed(&mut random, usize::from(fresh), count, out),
            Texture::Text => words::text(&mut random, self.is_foreign(), count, out),
            Texture::Html => words::html(&mut random, self.is_foreign(), count, out),
            Texture::Records => words::records(&mut random, count, out),
        }
    }

    /// Whether a text has words outside ASCII.
    pub(super) fn is_foreign(&self) -> bool {
        self.key.is_multiple_of(4) && matches!(self.kind.texture(), Texture::Text | Texture::Html)
    }
}

/// Octets of which `fresh` in every 64 are new and the others were there before, up to 4 KiB back.
fn mixed(random: &mut Random, fresh: usize, count: usize, out: &mut Vec<u8>) {
    const CHUNK: usize = 64;
    const REACH: usize = 4 << 10;
    let start = out.len();
    random.octets(count.min(2 * CHUNK), out);
    while out.len() - start + CHUNK <= count {
        random.octets(fresh, out);
        let old = CHUNK - fresh;
        let reach = (out.len() - start).min(REACH) - old;
        let from = out.len() - old - random.below(reach as u64 + 1) as usize;
        out.extend_from_within(from..from + old);
    }
    random.octets(count - (out.len() - start), out);
}

/// What a part is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Plain,
    Html,
    Calendar,
    Gif,
    Png,
    Jpeg,
    Bitmap,
    Pdf,
    Word,
    Sheet,
    Zip,
    Video,
    Csv,
}

/// How compressible octets are, and in what way.
#[derive(Clone, Copy, Debug)]
enum Texture {
    /// Not at all.
    Noise,
    /// So many octets in 64 are new, the others repeat what was shortly before.
    Mixed(u8),
    Text,
    Html,
    Records,
}

use Kind::{Bitmap, Calendar, Csv, Gif, Html, Jpeg, Pdf, Plain, Png, Sheet, Video, Word, Zip};

/// Kinds among a hundred contents below 1 KiB, below 4 KiB, below 16 KiB, below 64 KiB, and above.
const KINDS: [&[(Kind, u64)]; 5] = [
    &[(Plain, 84), (Html, 10), (Gif, 4), (Calendar, 2)],
    &[(Plain, 48), (Html, 40), (Gif, 5), (Png, 4), (Calendar, 3)],
    &[(Html, 45), (Plain, 18), (Png, 17), (Jpeg, 8), (Gif, 5), (Pdf, 4), (Word, 3)],
    &[(Html, 18), (Png, 22), (Jpeg, 18), (Pdf, 18), (Word, 14), (Sheet, 10)],
    &[(Jpeg, 12), (Zip, 10), (Video, 3), (Pdf, 20), (Word, 16), (Sheet, 12), (Csv, 12), (Bitmap, 8), (Png, 7)],
];

impl Kind {
    /// The kind of a content of size class `class` at `point` of 2^32.
    fn at(class: usize, point: u32) -> Self {
        let kinds = match class {
            LARGE.. => KINDS[4],
            8.. => KINDS[3],
            6.. => KINDS[2],
            4.. => KINDS[1],
            _ => KINDS[0],
        };
        let point = (u64::from(point) * 100) >> 32;
        kinds[at_weight(kinds.iter().map(|(_, weight)| *weight), point)].0
    }

    /// Whether it can be the text of a message.
    pub(super) const fn is_text(self) -> bool {
        matches!(self, Plain | Html)
    }

    /// Whether a text in HTML shows it in its place.
    pub(super) const fn is_inline(self) -> bool {
        matches!(self, Gif | Png)
    }

    /// Its media type and the ending of a file's name.
    pub(super) const fn media(self) -> (&'static str, &'static str) {
        match self {
            Plain => ("text/plain", "txt"),
            Html => ("text/html", "html"),
            Calendar => ("text/calendar", "ics"),
            Gif => ("image/gif", "gif"),
            Png => ("image/png", "png"),
            Jpeg => ("image/jpeg", "jpg"),
            Bitmap => ("image/tiff", "tif"),
            Pdf => ("application/pdf", "pdf"),
            Word => ("application/msword", "doc"),
            Sheet => ("application/vnd.ms-excel", "xls"),
            Zip => ("application/zip", "zip"),
            Video => ("video/mp4", "mp4"),
            Csv => ("text/csv", "csv"),
        }
    }

    const fn texture(self) -> Texture {
        match self {
            Plain | Calendar => Texture::Text,
            Html => Texture::Html,
            Csv => Texture::Records,
            Jpeg | Zip | Video => Texture::Noise,
            Gif | Png => Texture::Mixed(48),
            Pdf => Texture::Mixed(36),
            Word => Texture::Mixed(16),
            Sheet => Texture::Mixed(10),
            Bitmap => Texture::Mixed(4),
        }
    }

    /// Whether no compressor makes it smaller.
    #[cfg(test)]
    pub(super) const fn is_incompressible(self) -> bool {
        matches!(self.texture(), Texture::Noise)
    }
}
