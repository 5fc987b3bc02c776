//! Values of options: sizes, times, and text as the octets that it is.

use mail_parser::DateTime;
use mailrail::{Compression, Resources};
use std::ffi::OsString;

const UNITS: [(&str, u64); 12] = [
    ("", 1),
    ("k", 1 << 10),
    ("m", 1 << 20),
    ("g", 1 << 30),
    ("kib", 1 << 10),
    ("mib", 1 << 20),
    ("gib", 1 << 30),
    ("tib", 1 << 40),
    ("kb", 1_000),
    ("mb", 1_000_000),
    ("gb", 1_000_000_000),
    ("tb", 1_000_000_000_000),
];

#[cfg(unix)]
pub(crate) fn octets(text: OsString) -> Vec<u8> {
    std::os::unix::ffi::OsStringExt::into_vec(text)
}

#[cfg(not(unix))]
pub(crate) fn octets(text: OsString) -> Vec<u8> {
    text.to_string_lossy().into_owned().into_bytes()
}

/// An option of a store, as in `region=eu-west-2`. What is wrong is told without the value, which may be a secret.
pub(crate) fn store_option(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once('=').ok_or("give NAME=VALUE")?;
    Ok((name.trim().to_owned(), value.to_owned()))
}

/// A number of octets, as in `64MiB`: a whole number and a unit. `K`, `M` and `G` are powers of 1024, `kB`, `MB` and `GB` of 1000.
fn size(text: &str) -> Option<u64> {
    let digits = text.trim().trim_end_matches(|letter: char| !letter.is_ascii_digit());
    let unit = text.trim()[digits.len()..].trim().to_ascii_lowercase();
    let factor =
        UNITS.iter().find(|(name, _)| *name == unit || (name.is_empty() && unit == "b")).map(|(_, factor)| factor);
    let number = digits.parse::<u64>().ok();
    number.zip(factor).and_then(|(number, factor)| number.checked_mul(*factor))
}

/// A memory budget, as in `64MiB`.
pub(crate) fn memory(text: &str) -> Result<u64, String> {
    let octets = size(text).ok_or("give a size like 64MiB")?;
    if octets < Resources::MEMORY_BYTES_MIN {
        return Err(format!("at least {} MiB are needed", Resources::MEMORY_BYTES_MIN >> 20));
    }
    Ok(octets)
}

/// Octets a second, as in `50MB/s`; `/s` may be left out.
pub(crate) fn bandwidth(text: &str) -> Result<u64, String> {
    let octets = size(text.trim().trim_end_matches("/s")).filter(|octets| *octets > 0);
    octets.ok_or_else(|| "give a size for each second, like 50MB/s".into())
}

/// Requests a second, as in `20` or `0.5`; `/s` may be behind it.
pub(crate) fn requests(text: &str) -> Result<f64, String> {
    let requests = text.trim().trim_end_matches("/s").trim().parse().ok();
    let requests = requests.filter(|requests: &f64| requests.is_finite() && *requests > 0.0);
    requests.ok_or_else(|| "give a number of requests for each second, like 20".into())
}

/// `adaptive`, or a level from 1 to 19.
pub(crate) fn compression(text: &str) -> Result<Compression, String> {
    let level = || text.parse().ok().filter(|level| (1..=19).contains(level)).map(Compression::Level);
    let compression = if text == "adaptive" { Some(Compression::Adaptive) } else { level() };
    compression.ok_or_else(|| "give `adaptive`, or a level from 1 to 19".into())
}

/// A point in time in nanoseconds since 1970: RFC 3339 with a zone (`2026-11-22T10:00:00Z`), or `@SECONDS[.FRACTION]`.
pub(crate) fn time(text: &str) -> Result<u64, String> {
    let nanoseconds = match text.strip_prefix('@') {
        Some(seconds) => since_1970(seconds),
        None => rfc_3339(text),
    };
    nanoseconds.ok_or_else(|| "give a time like 2026-11-22T10:00:00Z or @1795341600".into())
}

/// A point in time in seconds since 1970, as RFC 3339 has it; as `@SECONDS` if that has no year for it.
pub(crate) fn shown(seconds: i64) -> String {
    const YEARS_0_TO_9999: std::ops::Range<i64> = -62_167_219_200..253_402_300_800;
    if !YEARS_0_TO_9999.contains(&seconds) {
        return format!("@{seconds}");
    }
    DateTime::from_timestamp(seconds).to_rfc3339()
}

fn since_1970(text: &str) -> Option<u64> {
    let (seconds, fraction) = text.split_once('.').map_or((text, "0"), |(seconds, fraction)| (seconds, fraction));
    if !is_number(seconds) {
        return None;
    }
    joined(seconds.parse().ok()?, fraction)
}

/// RFC 3339 5.6, strictly; mail-parser takes more, and drops fractions, so that only the calendar is left to it.
fn rfc_3339(text: &str) -> Option<u64> {
    let (second, rest) = text.split_at_checked(19)?;
    let shape = second.bytes().map(|octet| if octet.is_ascii_digit() { b'0' } else { octet.to_ascii_uppercase() });
    if !shape.eq(*b"0000-00-00T00:00:00") {
        return None;
    }
    let at_zone = rest.find(['Z', 'z', '+', '-'])?;
    let (fraction, zone) = rest.split_at(at_zone);
    let fraction = if fraction.is_empty() { "0" } else { fraction.strip_prefix('.')? };
    let zone = zone.to_ascii_uppercase();
    let is_zone = zone == "Z"
        || zone.bytes().skip(1).map(|octet| if octet.is_ascii_digit() { b'0' } else { octet }).eq(*b"00:00");
    if !is_zone {
        return None;
    }
    let time = DateTime::parse_rfc3339(&format!("{}{zone}", second.to_ascii_uppercase()))?;
    let days = DateTime { tz_before_gmt: false, tz_hour: 0, tz_minute: 0, hour: 0, minute: 0, second: 0, ..time };
    let is_day = DateTime::from_timestamp(days.to_timestamp()) == days;
    // A leap second (RFC 3339 5.7) counts as the second after it.
    let is_time = time.hour < 24 && time.minute < 60 && time.second <= 60 && time.tz_hour < 24 && time.tz_minute < 60;
    if !is_day || !is_time {
        return None;
    }
    joined(u64::try_from(time.to_timestamp()).ok()?, fraction)
}

/// Seconds and the digits behind the point, of which nine count.
fn joined(seconds: u64, fraction: &str) -> Option<u64> {
    if !is_number(fraction) {
        return None;
    }
    let nanoseconds = format!("{fraction:0<9}").get(..9)?.parse::<u64>().ok()?;
    seconds.checked_mul(1_000_000_000)?.checked_add(nanoseconds)
}

fn is_number(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|octet| octet.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;

    #[test]
    fn sizes_are_read_with_binary_and_decimal_units() {
        for (text, octets) in
            [("64MiB", 64 << 20), ("64 mib", 64 << 20), ("1G", 1 << 30), ("100MB", 100_000_000), ("67108864", 64 << 20)]
        {
            assert_eq!(memory(text), Ok(octets), "{text}");
        }
        for text in ["", "MiB", "-1MiB", "1.5GiB", "64 apples", "31MiB", "99999999999TiB", "64MiBé"] {
            assert!(memory(text).is_err(), "{text}");
        }
    }

    #[test]
    fn ceilings_are_read_for_a_second() {
        assert_eq!(["50MB/s", "50MB", "1MiB/s", "7"].map(bandwidth), [50_000_000, 50_000_000, 1 << 20, 7].map(Ok));
        assert_eq!(["20", "0.5", "20/s"].map(requests), [20.0, 0.5, 20.0].map(Ok));
        for text in ["", "0", "-1", "/s", "fast", "inf", "NaN", "50MB/h"] {
            assert!(bandwidth(text).is_err() && requests(text).is_err(), "{text}");
        }
    }

    #[test]
    fn times_are_read_with_zones_and_fractions() {
        for (text, nanoseconds) in [
            ("1970-01-01T00:00:00Z", 0),
            ("2026-11-22T10:00:00Z", 1_795_341_600 * SECOND),
            ("2026-11-22T11:30:00+01:30", 1_795_341_600 * SECOND),
            ("2026-11-22t05:00:00-05:00", 1_795_341_600 * SECOND),
            ("2026-11-22T10:00:00.25Z", 1_795_341_600 * SECOND + SECOND / 4),
            ("2024-02-29T00:00:00Z", 1_709_164_800 * SECOND),
            ("@1795341600", 1_795_341_600 * SECOND),
            ("@1795341600.000000001", 1_795_341_600 * SECOND + 1),
            ("@1.1234567899", SECOND + 123_456_789),
        ] {
            assert_eq!(time(text), Ok(nanoseconds), "{text}");
        }
    }

    #[test]
    fn times_are_shown_for_every_number_of_seconds() {
        assert_eq!(shown(1_795_341_600), "2026-11-22T10:00:00Z");
        assert_eq!(shown(-1), "1969-12-31T23:59:59Z");
        assert_eq!(shown(253_402_300_799), "9999-12-31T23:59:59Z");
        assert_eq!(shown(-62_167_219_200), "0000-01-01T00:00:00Z");
        assert_eq!([i64::MIN, i64::MAX].map(shown), ["@-9223372036854775808", "@9223372036854775807"]);
    }

    #[test]
    fn what_is_no_time_is_refused() {
        for text in [
            "",
            "@",
            "@-1",
            "@1.",
            "@.5",
            "@+5",
            "yesterday",
            "2026-11-22",
            "2026-11-22T10:00:00",
            "2026-11-22T10:00Z",
            "2026-02-30T10:00:00Z",
            "2026-13-01T10:00:00Z",
            "2026-11-22T24:00:00Z",
            "2026-11-22T10:61:00Z",
            "2026-11-22T10:00:00.Z",
            "2026-11-22T10:00:00+1",
            "2026-11-22T10:00:00+25:00",
            "1969-12-31T23:59:59Z",
            "@99999999999999999999",
            "2026-11-22T10:00:00Zé",
            "é026-11-22T10:00:00Z",
        ] {
            assert!(time(text).is_err(), "{text}");
        }
    }
}
