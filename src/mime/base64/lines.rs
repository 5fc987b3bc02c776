//! Whole lines of base64, decoded from where they are to where they are wanted: no copy between, and one look at each octet.
//!
//! A group of four characters of the alphabet without padding stands for three octets, and these encode to just this group (RFC 4648 4): what was decoded
//! here needs not be encoded again to know that it is exact. The last group of a body, which may be padded, never comes here.
//!
//! This is the only file with `unsafe` in it: copying lines together, decoding them, encoding them again and comparing took 12 % of a push's
//! time, this takes 5 % (docs/performance.md). What the vectors do is held against a twin without them, octet by octet and by property tests, and
//! fuzzed with the address sanitizer.
#![allow(
    unsafe_code,
    reason = "vectors: loads and stores of whole registers, and calls that only some processors know"
)]

use super::{LineEnding, RUN};
use base64_simd::STANDARD;

/// The widths of lines that are decoded here, in characters: multiples of four in this range.
const WIDTHS: std::ops::RangeInclusive<u64> = 32..=1024;

/// How lines are laid out.
#[derive(Clone, Copy, Debug)]
pub(super) struct Layout {
    width: usize,
    ending: LineEnding,
}

impl Layout {
    /// Lines of `width` characters, if these are decoded here.
    pub(super) fn new(width: u64, ending: LineEnding) -> Option<Self> {
        let fits = WIDTHS.contains(&width) && width.is_multiple_of(4);
        fits.then_some(Self { width: width as usize, ending })
    }

    /// Octets of a line with its end.
    pub(super) fn line(self) -> usize {
        self.width + self.ending.octets().len()
    }

    /// Octets that a line stands for.
    pub(super) fn content(self) -> usize {
        self.width / 4 * 3
    }

    /// Decodes lines from the front of `input`, at most `most`, up to the first that is not full, has another octet than the alphabet's, or another end.
    /// Appends what they stand for to `decoded`, and gives how many lines they are.
    pub(super) fn decode(self, input: &[u8], most: usize, decoded: &mut Vec<u8>) -> usize {
        let lines = most.min(input.len() / self.line());
        let input = &input[..lines * self.line()];
        #[cfg(target_arch = "x86_64")]
        if let Some(lines) = vectors::decode(self, input, decoded) {
            return lines;
        }
        self.decode_without_vectors(input, decoded)
    }

    /// The same, with nothing but safe calls.
    fn decode_without_vectors(self, input: &[u8], decoded: &mut Vec<u8>) -> usize {
        let before = decoded.len();
        for lines in input.chunks(RUN / self.line() * self.line()) {
            // All of them at once; only where that fails, one after the other up to where it does.
            if self.decode_run(lines, decoded).is_none() {
                let _broken = lines.chunks(self.line()).try_for_each(|line| self.decode_run(line, decoded));
                break;
            }
        }
        (decoded.len() - before) / self.content()
    }

    fn decode_run(self, input: &[u8], decoded: &mut Vec<u8>) -> Option<()> {
        let mut characters = [0; RUN];
        let mut filled = 0;
        for line in input.chunks_exact(self.line()) {
            let (line, end) = line.split_at(self.width);
            if !self.ending.is(end) {
                return None;
            }
            characters[filled..][..self.width].copy_from_slice(line);
            filled += self.width;
        }
        let characters = &characters[..filled];
        if characters.last() == Some(&b'=') {
            return None;
        }
        STANDARD.decode_append(characters, decoded).ok()
    }
}

/// With vectors, for processors that have them.
#[cfg(target_arch = "x86_64")]
mod vectors {
    use super::Layout;
    use std::arch::{is_x86_feature_detected, x86_64::*};
    use std::mem::MaybeUninit;

    /// See [`Layout::decode`]; `input` is a whole number of lines. `None` if the processor has no vectors that are wanted for it.
    pub(super) fn decode(layout: Layout, input: &[u8], decoded: &mut Vec<u8>) -> Option<usize> {
        if layout.width >= vbmi::CHARACTERS && vbmi::is_there() {
            // SAFETY: the processor has the features.
            Some(unsafe { vbmi::decode(layout, input, decoded) })
        } else if is_x86_feature_detected!("avx2") {
            // SAFETY: the processor has the feature.
            Some(unsafe { avx2::decode(layout, input, decoded) })
        } else {
            None
        }
    }

    /// Decodes line after line with `decode_line`. That gets the characters of a line and the octets that they stand for, followed by `beyond` more, and says whether the characters
    /// are the alphabet's.
    ///
    /// # Safety
    /// When `decode_line` says true it has written to all octets that its line stands for.
    #[inline(always)]
    unsafe fn decode_lines(
        layout: Layout,
        input: &[u8],
        decoded: &mut Vec<u8>,
        beyond: usize,
        decode_line: impl Fn(&[u8], &mut [MaybeUninit<u8>]) -> bool,
    ) -> usize {
        let (width, content, ending) = (layout.width, layout.content(), layout.ending);
        let lines = input.chunks_exact(layout.line());
        decoded.reserve(lines.len() * content + beyond);
        let mut done = 0;
        let room = decoded.spare_capacity_mut();
        for line in lines {
            let (characters, end) = line.split_at(width);
            let octets = &mut room[done * content..][..content + beyond];
            if !ending.is(end) || !decode_line(characters, octets) {
                break;
            }
            done += 1;
        }
        let length = decoded.len() + done * content;
        // SAFETY: there is room for as many lines, and `decode_line` has written to all of each, as the caller says.
        unsafe { decoded.set_len(length) };
        done
    }

    /// AVX2: 32 characters at a time. The way of decoding is that of W. Mula and D. Lemire, "Faster Base64 Encoding and Decoding using AVX2 Instructions" (2018).
    mod avx2 {
        use super::*;

        const CHARACTERS: usize = 32;
        /// Octets that a vector writes behind those that its characters stand for.
        const BEYOND: usize = 8;

        #[target_feature(enable = "avx2")]
        pub(super) fn decode(layout: Layout, input: &[u8], decoded: &mut Vec<u8>) -> usize {
            // SAFETY: vector after vector is written from the line's first octet to its last.
            unsafe {
                decode_lines(layout, input, decoded, BEYOND, |characters, octets| decode_line(characters, octets))
            }
        }

        #[inline]
        #[target_feature(enable = "avx2")]
        fn decode_line(characters: &[u8], octets: &mut [MaybeUninit<u8>]) -> bool {
            let mut foreign = _mm256_setzero_si256();
            let mut at = 0;
            while at < characters.len() {
                // The last vector begins early enough to end with the line; what it decodes once more it writes once more.
                at = at.min(characters.len() - CHARACTERS);
                let (values, others) = decode_vector(load(&characters[at..]));
                foreign = _mm256_or_si256(foreign, others);
                store(values, &mut octets[at / 4 * 3..]);
                at += CHARACTERS;
            }
            _mm256_testz_si256(foreign, foreign) == 1
        }

        /// What 32 characters stand for, in the first 24 octets; and a vector that is not zero if one of them is not the alphabet's.
        #[inline]
        #[target_feature(enable = "avx2")]
        fn decode_vector(characters: __m256i) -> (__m256i, __m256i) {
            let low = _mm256_and_si256(characters, _mm256_set1_epi8(0x0f));
            let high = _mm256_and_si256(_mm256_srli_epi32(characters, 4), _mm256_set1_epi8(0x0f));
            // Each half of a character has a set of bits, by the groups in which it is not allowed; a character is the alphabet's if its halves have none in common.
            let of_low = twice([21, 17, 17, 17, 17, 17, 17, 17, 17, 17, 19, 26, 27, 27, 27, 26]);
            let of_high = twice([16, 16, 1, 2, 4, 8, 4, 8, 16, 16, 16, 16, 16, 16, 16, 16]);
            let foreign = _mm256_and_si256(_mm256_shuffle_epi8(of_low, low), _mm256_shuffle_epi8(of_high, high));
            // What is to be added to a character for its value, by its high half; the slash is told from the plus by one less.
            let steps = twice([0, 16, 19, 4, -65, -65, -71, -71, 0, 0, 0, 0, 0, 0, 0, 0]);
            let slash = _mm256_cmpeq_epi8(characters, _mm256_set1_epi8(b'/' as i8));
            let values = _mm256_add_epi8(characters, _mm256_shuffle_epi8(steps, _mm256_add_epi8(high, slash)));
            // Values of 6 bits into 12, into 24, then these three octets in their order.
            let pairs = _mm256_maddubs_epi16(values, _mm256_set1_epi32(0x0140_0140));
            let groups = _mm256_madd_epi16(pairs, _mm256_set1_epi32(0x0001_1000));
            let octets = _mm256_shuffle_epi8(groups, twice([2, 1, 0, 6, 5, 4, 10, 9, 8, 14, 13, 12, -1, -1, -1, -1]));
            (_mm256_permutevar8x32_epi32(octets, _mm256_setr_epi32(0, 1, 2, 4, 5, 6, 3, 7)), foreign)
        }

        #[inline]
        #[target_feature(enable = "avx2")]
        fn twice(half: [i8; 16]) -> __m256i {
            // SAFETY: 16 octets are read, of an array of 16.
            _mm256_broadcastsi128_si256(unsafe { _mm_loadu_si128(half.as_ptr().cast()) })
        }

        #[inline]
        #[target_feature(enable = "avx2")]
        fn load(from: &[u8]) -> __m256i {
            let from = &from[..32];
            // SAFETY: 32 octets are read, of a slice of 32.
            unsafe { _mm256_loadu_si256(from.as_ptr().cast()) }
        }

        #[inline]
        #[target_feature(enable = "avx2")]
        fn store(octets: __m256i, to: &mut [MaybeUninit<u8>]) {
            let to = &mut to[..32];
            // SAFETY: 32 octets are written, to a slice of 32.
            unsafe { _mm256_storeu_si256(to.as_mut_ptr().cast(), octets) };
        }
    }

    /// AVX-512 with VBMI: 64 characters at a time, and a table of the whole alphabet in two registers.
    mod vbmi {
        use super::*;

        pub(super) const CHARACTERS: usize = 64;
        /// Octets that a vector writes behind those that its characters stand for.
        const BEYOND: usize = 16;

        /// Whether the processor has all of the features that are enabled below.
        pub(super) fn is_there() -> bool {
            is_x86_feature_detected!("avx512f")
                && is_x86_feature_detected!("avx512bw")
                && is_x86_feature_detected!("avx512vbmi")
        }

        #[target_feature(enable = "avx512f,avx512bw,avx512vbmi")]
        pub(super) fn decode(layout: Layout, input: &[u8], decoded: &mut Vec<u8>) -> usize {
            // SAFETY: vector after vector is written from the line's first octet to its last.
            unsafe {
                decode_lines(layout, input, decoded, BEYOND, |characters, octets| decode_line(characters, octets))
            }
        }

        #[inline]
        #[target_feature(enable = "avx512f,avx512bw,avx512vbmi")]
        fn decode_line(characters: &[u8], octets: &mut [MaybeUninit<u8>]) -> bool {
            let (first, second) = (load(&VALUES), load(&VALUES[64..]));
            let mut foreign = _mm512_setzero_si512();
            let mut at = 0;
            while at < characters.len() {
                // As with AVX2.
                at = at.min(characters.len() - CHARACTERS);
                let vector = load(&characters[at..]);
                let values = _mm512_permutex2var_epi8(first, vector, second);
                // The high bit of what is no character is set, or that of its value is.
                foreign = _mm512_or_si512(foreign, _mm512_or_si512(vector, values));
                let pairs = _mm512_maddubs_epi16(values, _mm512_set1_epi32(0x0140_0140));
                let groups = _mm512_madd_epi16(pairs, _mm512_set1_epi32(0x0001_1000));
                store(_mm512_permutexvar_epi8(load(&ORDER), groups), &mut octets[at / 4 * 3..]);
                at += CHARACTERS;
            }
            _mm512_movepi8_mask(foreign) == 0
        }

        /// The value of each character; the high bit is set for those that are not the alphabet's.
        static VALUES: [u8; 128] = {
            let alphabet = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
            let mut values = [0x80; 128];
            let mut value = 0;
            while value < alphabet.len() {
                values[alphabet[value] as usize] = value as u8;
                value += 1;
            }
            values
        };

        /// Where the octets of a vector come from: three of each four, in the order of the wire.
        static ORDER: [u8; 64] = {
            let mut order = [0; 64];
            let mut group = 0;
            while group < 16 {
                (order[3 * group], order[3 * group + 1], order[3 * group + 2]) =
                    (4 * group as u8 + 2, 4 * group as u8 + 1, 4 * group as u8);
                group += 1;
            }
            order
        };

        #[inline]
        #[target_feature(enable = "avx512f")]
        fn load(from: &[u8]) -> __m512i {
            let from = &from[..64];
            // SAFETY: 64 octets are read, of a slice of 64.
            unsafe { _mm512_loadu_si512(from.as_ptr().cast()) }
        }

        #[inline]
        #[target_feature(enable = "avx512f")]
        fn store(octets: __m512i, to: &mut [MaybeUninit<u8>]) {
            let to = &mut to[..64];
            // SAFETY: 64 octets are written, to a slice of 64.
            unsafe { _mm512_storeu_si512(to.as_mut_ptr().cast(), octets) };
        }
    }

    #[cfg(test)]
    mod tests {
        use super::*;

        #[test]
        fn both_kinds_of_vectors_do_the_same() {
            if !vbmi::is_there() {
                return eprintln!("skipped: this processor has no AVX-512 with VBMI");
            }
            for (width, octet) in [64, 68, 72, 76, 100, 128, 1024]
                .into_iter()
                .flat_map(|width| (0..=u8::MAX).map(move |octet| (width, octet)))
            {
                let layout = Layout::new(width, super::super::LineEnding::CrLf).unwrap();
                let mut input = [vec![b'm'; layout.width], b"\r\n".to_vec()].concat().repeat(3);
                input[layout.line() + usize::from(octet) % layout.width] = octet;
                let (mut one, mut other) = (Vec::new(), Vec::new());
                // SAFETY: the processor has the features.
                let lines =
                    unsafe { (avx2::decode(layout, &input, &mut one), vbmi::decode(layout, &input, &mut other)) };
                assert_eq!(lines.0, lines.1, "{octet:#x} in lines of {width}");
                assert!(one == other);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const ENDINGS: [LineEnding; 2] = [LineEnding::Lf, LineEnding::CrLf];

    /// Decodes with and without vectors, which must be the same.
    fn decode(layout: Layout, input: &[u8]) -> (usize, Vec<u8>) {
        let (mut decoded, mut twin) = (b"before".to_vec(), b"before".to_vec());
        let lines = layout.decode(input, usize::MAX, &mut decoded);
        let whole = input.len() / layout.line() * layout.line();
        assert_eq!(layout.decode_without_vectors(&input[..whole], &mut twin), lines);
        assert!(decoded == twin, "vectors and their twin differ");
        (lines, decoded)
    }

    fn encode(layout: Layout, octets: &[u8]) -> Vec<u8> {
        let mut lines = Vec::new();
        for line in octets.chunks(layout.content()) {
            STANDARD.encode_append(line, &mut lines);
            lines.extend_from_slice(layout.ending.octets());
        }
        lines
    }

    #[test]
    fn every_octet_in_every_place_is_the_alphabets_or_ends_the_lines_before_it() {
        for width in [32, 36, 60, 64, 72, 76, 100] {
            let layout = Layout::new(width, LineEnding::Lf).unwrap();
            let lines = encode(layout, &vec![0x5a; layout.content() * 2]);
            for at in 0..layout.width {
                for octet in 0..=u8::MAX {
                    let mut lines = lines.clone();
                    lines[layout.line() + at] = octet;
                    let is_character = octet.is_ascii_alphanumeric() || octet == b'+' || octet == b'/';
                    assert_eq!(
                        decode(layout, &lines).0,
                        if is_character { 2 } else { 1 },
                        "{octet:#x} at {at} of {width}"
                    );
                }
            }
        }
    }

    #[test]
    fn every_group_of_four_characters_comes_back_as_it_was() {
        // All pairs of characters in every place of a group: no two bits of a group's values depend on more.
        let alphabet: Vec<u8> = (0..=u8::MAX).filter(|octet| super::super::decoder::is_character(*octet)).collect();
        let layout = Layout::new(64, LineEnding::Lf).unwrap();
        let mut lines = Vec::new();
        for (first, second) in alphabet.iter().flat_map(|first| alphabet.iter().map(move |second| (*first, *second))) {
            let places = [[0, 1], [0, 2], [0, 3], [1, 2], [1, 3], [2, 3]];
            for group in places.iter().cycle().take(16).map(|[one, other]| {
                let mut group = [b'k'; 4];
                (group[*one], group[*other]) = (first, second);
                group
            }) {
                lines.extend_from_slice(&group);
            }
            lines.push(b'\n');
        }
        let (count, decoded) = decode(layout, &lines);
        assert_eq!(count, 64 * 64);
        assert!(encode(layout, &decoded[b"before".len()..]) == lines);
    }

    #[test]
    fn padding_and_another_line_end_belong_to_no_whole_line() {
        for ending in ENDINGS {
            let layout = Layout::new(76, ending).unwrap();
            let mut lines = encode(layout, &[7; 57 * 3]);
            lines.truncate(lines.len() - 1);
            assert_eq!(decode(layout, &lines).0, 2);
            let padded = encode(layout, &[7; 57 * 2 - 1]);
            assert_eq!(decode(layout, &padded).0, 1);
            let other = encode(
                Layout { ending: if ending == LineEnding::Lf { LineEnding::CrLf } else { LineEnding::Lf }, ..layout },
                &[7; 570],
            );
            assert_eq!(decode(layout, &other).0, 0);
        }
    }

    #[test]
    fn no_more_lines_than_asked_for_are_taken() {
        let layout = Layout::new(76, LineEnding::Lf).unwrap();
        let lines = encode(layout, &[7; 57 * 9]);
        let mut decoded = Vec::new();
        assert_eq!(layout.decode(&lines, 4, &mut decoded), 4);
        assert_eq!(decoded, [7; 57 * 4]);
    }

    proptest! {
        #[test]
        fn vectors_and_their_twin_are_the_same(
            quarter in 8_usize..=256, ending in 0_usize..2, octets in proptest::collection::vec(any::<u8>(), 0..9000), broken in proptest::option::of((any::<proptest::sample::Index>(), any::<u8>())),
        ) {
            let layout = Layout::new(quarter as u64 * 4, ENDINGS[ending]).unwrap();
            let mut lines = encode(layout, &octets);
            if let (Some((at, octet)), false) = (broken, lines.is_empty()) {
                let at = at.index(lines.len());
                lines[at] = octet;
            }
            let (count, decoded) = decode(layout, &lines);
            prop_assert_eq!(&encode(layout, &decoded[b"before".len()..])[..], &lines[..count * layout.line()]);
        }
    }
}
