//! The encoding of everything structured inside objects: LEB128 numbers and length-prefixed octets (docs/format.md, "Encoding").
//!
//! Decoding never trusts a length: it is checked against what is left before anything is reserved.

use crate::error::{Error, Result};

/// The largest number that is counted on from: sequences, ordinals, epochs, times. None that is true comes near it, and a lie must not overflow.
pub(crate) const COUNTER_MAX: u64 = 1 << 63;

/// Appends encoded values to a buffer.
pub(crate) trait Encode {
    /// An unsigned number, LEB128: 7 bits an octet, low bits first, at most 10 octets.
    fn number(&mut self, value: u64);
    /// A signed number, zigzag, then as [`number`](Self::number).
    fn signed(&mut self, value: i64);
    /// The length, then the octets.
    fn octets(&mut self, value: &[u8]);
}

impl Encode for Vec<u8> {
    fn number(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.push(value as u8 | 0x80);
            value >>= 7;
        }
        self.push(value as u8);
    }

    fn signed(&mut self, value: i64) {
        self.number(((value << 1) ^ (value >> 63)) as u64);
    }

    fn octets(&mut self, value: &[u8]) {
        self.number(value.len() as u64);
        self.extend_from_slice(value);
    }
}

/// Reads encoded values from the front of a slice.
#[derive(Clone, Debug)]
pub(crate) struct Decoder<'a> {
    rest: &'a [u8],
}

impl<'a> Decoder<'a> {
    pub(crate) fn new(octets: &'a [u8]) -> Self {
        Self { rest: octets }
    }

    /// The octets not read yet.
    pub(crate) fn rest(&self) -> &'a [u8] {
        self.rest
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    /// The next `length` octets.
    pub(crate) fn take(&mut self, length: usize) -> Result<&'a [u8]> {
        let (taken, rest) = self.rest.split_at_checked(length).ok_or_else(ended_early)?;
        self.rest = rest;
        Ok(taken)
    }

    /// The next `N` octets.
    pub(crate) fn array<const N: usize>(&mut self) -> Result<[u8; N]> {
        let (taken, rest) = self.rest.split_first_chunk::<N>().ok_or_else(ended_early)?;
        self.rest = rest;
        Ok(*taken)
    }

    pub(crate) fn byte(&mut self) -> Result<u8> {
        Ok(self.array::<1>()?[0])
    }

    pub(crate) fn number(&mut self) -> Result<u64> {
        let mut value = 0_u64;
        for shift in (0..64).step_by(7) {
            let octet = self.byte()?;
            let bits = u64::from(octet & 0x7f);
            if shift == 63 && bits > 1 {
                break;
            }
            value |= bits << shift;
            if octet & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(Error::damaged("a number is longer than 64 bits"))
    }

    pub(crate) fn signed(&mut self) -> Result<i64> {
        let value = self.number()?;
        Ok((value >> 1) as i64 ^ -((value & 1) as i64))
    }

    /// A number that must be at most `max`.
    pub(crate) fn number_up_to(&mut self, max: u64) -> Result<u64> {
        let value = self.number()?;
        if value > max { Err(Error::damaged("a number exceeds its limit")) } else { Ok(value) }
    }

    /// A number that others are counted on from.
    pub(crate) fn counter(&mut self) -> Result<u64> {
        self.number_up_to(COUNTER_MAX)
    }

    /// How many items follow, at most `max`: else as [`count`](Self::count).
    pub(crate) fn count_up_to(&mut self, octets_min: usize, max: usize) -> Result<usize> {
        let count = self.count(octets_min)?;
        if count > max { Err(Error::damaged("a table has more entries than it may have")) } else { Ok(count) }
    }

    /// How many items follow, each at least `octets_min` (not 0) octets long: a count that cannot be true is an error before anything is reserved.
    pub(crate) fn count(&mut self, octets_min: usize) -> Result<usize> {
        let count = self.number()?;
        if count > (self.rest.len() / octets_min) as u64 {
            return Err(Error::damaged("a count exceeds what is there"));
        }
        Ok(count as usize)
    }

    /// Length-prefixed octets.
    pub(crate) fn octets(&mut self) -> Result<&'a [u8]> {
        let length = self.number_up_to(self.rest.len() as u64)?;
        self.take(length as usize)
    }

    /// Length-prefixed UTF-8.
    pub(crate) fn text(&mut self) -> Result<&'a str> {
        std::str::from_utf8(self.octets()?).map_err(|source| Error::damaged("a text is not UTF-8").because(source))
    }

    /// That everything was read.
    pub(crate) fn end(&self) -> Result<()> {
        if self.rest.is_empty() { Ok(()) } else { Err(Error::damaged("octets are left over")) }
    }
}

/// Octets as lower-case hexadecimal digits, for object names.
pub(crate) fn hex(octets: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let digit = |value: u8| char::from(DIGITS[usize::from(value & 15)]);
    octets.iter().flat_map(|octet| [digit(octet >> 4), digit(*octet)]).collect()
}

/// Exactly `N` octets from lower-case hexadecimal digits.
pub(crate) fn from_hex<const N: usize>(digits: &str) -> Option<[u8; N]> {
    let value = |digit: u8| match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        _ => None,
    };
    let digits = digits.as_bytes();
    let mut octets = [0; N];
    if digits.len() != 2 * N {
        return None;
    }
    for (octet, pair) in octets.iter_mut().zip(digits.chunks_exact(2)) {
        *octet = value(pair[0])? << 4 | value(pair[1])?;
    }
    Some(octets)
}

/// A counter in an object's name, from 16 lower-case hexadecimal digits.
pub(crate) fn counter_from_hex(digits: &str) -> Option<u64> {
    from_hex(digits).map(u64::from_be_bytes).filter(|number| *number <= COUNTER_MAX)
}

fn ended_early() -> Error {
    Error::damaged("the octets end too early")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn what_is_encoded_decodes(a: u64, b: i64, c: Vec<u8>) {
            let mut out = Vec::new();
            out.number(a);
            out.signed(b);
            out.octets(&c);
            let mut decoder = Decoder::new(&out);
            prop_assert_eq!(decoder.number().unwrap(), a);
            prop_assert_eq!(decoder.signed().unwrap(), b);
            prop_assert_eq!(decoder.octets().unwrap(), &c[..]);
            prop_assert!(decoder.end().is_ok());
        }

        #[test]
        fn anything_decodes_without_panic(octets: Vec<u8>) {
            let mut decoder = Decoder::new(&octets);
            while decoder.number().is_ok() {}
            let _ = Decoder::new(&octets).octets();
            let _ = Decoder::new(&octets).count(1);
        }
    }

    #[test]
    fn a_number_of_more_than_64_bits_is_refused() {
        assert!(Decoder::new(&[0xff; 11]).number().is_err());
        assert_eq!(Decoder::new(&[255, 255, 255, 255, 255, 255, 255, 255, 255, 1]).number().unwrap(), u64::MAX);
    }
}
