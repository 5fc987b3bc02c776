//! From_ lines: who sent a message and when it was delivered, in front of each message of an mbox.

use crate::message::InternalDate;

/// The date of a From_ line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct FromDate {
    pub(super) date: InternalDate,
    /// Whether a sender, a weekday and a year of four digits are there: then the line is a From_ line even without a blank line before it.
    pub(super) is_strict: bool,
}

/// How many words at the end of a line can belong to a date.
const WORDS_MAX: usize = 14;

/// The date at the end of `line` (without its line ending), which begins with `From `; `None` if there is no plausible one.
///
/// Understood are asctime's form with and without seconds and zone, before or behind the year (`Sat Jan  3 01:05:34 MET 1996`), the date of
/// RFC 5322 3.3, ISO 8601, and UUCP's `remote from host` behind any of them.
pub(super) fn date(line: &[u8]) -> Option<FromDate> {
    let rest = line.strip_prefix(b"From ")?;
    asctime(rest).or_else(|| any_form(rest))
}

/// The form of nearly all From_ lines, because there may be one in every few hundred octets: a sender, and 24 octets of date.
fn asctime(rest: &[u8]) -> Option<FromDate> {
    let (sender, stamp) = rest.split_last_chunk::<24>()?;
    let [w1, w2, w3, b' ', m1, m2, m3, b' ', d1, d2, b' ', h1, h2, b':', i1, i2, b':', s1, s2, b' ', year @ ..] = stamp
    else {
        return None;
    };
    let two = |tens: &u8, ones: &u8| number(&[*tens, *ones]);
    let is_spaced = sender.last() == Some(&b' ') && !sender.trim_ascii().is_empty();
    if !is_spaced || !is_weekday(&[*w1, *w2, *w3]) {
        return None;
    }
    let fields = Fields {
        month: month(&[*m1, *m2, *m3]),
        day: if *d1 == b' ' { number(&[*d2]) } else { two(d1, d2) },
        year: number(year).map(i64::from),
        time: Some((two(h1, h2)?, two(i1, i2)?, two(s1, s2)?)).filter(|time| is_time(*time)),
        ..Fields::default()
    };
    fields.date().map(|date| FromDate { date, is_strict: true })
}

fn any_form(rest: &[u8]) -> Option<FromDate> {
    let mut words = [&b""[..]; WORDS_MAX];
    let mut count = 0;
    let spaced = rest.rsplit(|octet| matches!(octet, b' ' | b'\t' | b'\r')).filter(|word| !word.is_empty());
    for (slot, word) in words.iter_mut().rev().zip(spaced) {
        *slot = word;
        count += 1;
    }
    let words = words.get(WORDS_MAX - count..)?;
    (0..count).find_map(|start| {
        let mut fields = Fields::default();
        fields.take_all(words.get(start..)?)?;
        let date = fields.date()?;
        Some(FromDate { date, is_strict: fields.has_weekday && fields.has_full_year && start > 0 })
    })
}

/// The fields of a date as they come along.
#[derive(Debug, Default)]
struct Fields {
    has_weekday: bool,
    has_full_year: bool,
    month: Option<u32>,
    day: Option<u32>,
    year: Option<i64>,
    time: Option<(u32, u32, u32)>,
    zone: Option<i16>,
}

impl Fields {
    /// Takes all words; `None` if one of them does not belong to a date.
    fn take_all(&mut self, words: &[&[u8]]) -> Option<()> {
        for (index, word) in words.iter().enumerate() {
            if self.is_complete() && (word == b"remote" || word.starts_with(b"(")) {
                return Some(());
            }
            self.take(word, index == 0)?;
        }
        self.is_complete().then_some(())
    }

    fn is_complete(&self) -> bool {
        self.month.is_some() && self.day.is_some() && self.year.is_some() && self.time.is_some()
    }

    fn take(&mut self, word: &[u8], is_first: bool) -> Option<()> {
        let word = word.strip_suffix(b",").unwrap_or(word);
        match word.first()? {
            b'0'..=b'9' if word.contains(&b':') && !word.contains(&b'-') => self.take_time(word),
            b'0'..=b'9' if word.contains(&b'-') => self.take_iso(word),
            b'0'..=b'9' => self.take_number(word),
            b'+' | b'-' => self.take_offset(word),
            _ if is_first && is_weekday(word) => {
                self.has_weekday = true;
                Some(())
            }
            _ => self.take_name(word),
        }
    }

    fn take_number(&mut self, word: &[u8]) -> Option<()> {
        let number = number(word)?;
        match word.len() {
            4 if self.year.is_none() => {
                self.year = Some(i64::from(number));
                self.has_full_year = true;
            }
            1 | 2 if self.day.is_none() => self.day = Some(number),
            2 if self.year.is_none() => {
                self.year = Some(i64::from(if number < 70 { 2000 + number } else { 1900 + number }))
            }
            _ => return None,
        }
        Some(())
    }

    fn take_time(&mut self, word: &[u8]) -> Option<()> {
        let zone_at = word.iter().position(|octet| matches!(octet, b'+' | b'Z')).unwrap_or(word.len());
        let (time, zone) = word.split_at_checked(zone_at)?;
        // Fractions of a second are left out.
        let time = time.split(|&octet| octet == b'.').next()?;
        let mut parts = time.split(|&octet| octet == b':');
        let (hour, minute) = (number(parts.next()?)?, number(parts.next()?)?);
        let second = parts.next().map_or(Some(0), number)?;
        if parts.next().is_some()
            || !is_time((hour, minute, second))
            || self.time.replace((hour, minute, second)).is_some()
        {
            return None;
        }
        match zone {
            b"" => Some(()),
            b"Z" => self.set_zone(Some(0)),
            zone => self.take_offset(zone),
        }
    }

    /// `2001-02-03`, or the whole of `2001-02-03T04:05:06Z`.
    fn take_iso(&mut self, word: &[u8]) -> Option<()> {
        let (date, time) = match word.iter().position(|octet| matches!(octet, b'T' | b't')) {
            Some(at) => (word.get(..at)?, word.get(at + 1..)),
            None => (word, None),
        };
        let mut parts = date.split(|&octet| octet == b'-');
        let (year, month, day) = (parts.next()?, number(parts.next()?)?, number(parts.next()?)?);
        if year.len() != 4
            || parts.next().is_some()
            || self.year.is_some()
            || self.month.is_some()
            || self.day.is_some()
        {
            return None;
        }
        (self.year, self.month, self.day) = (Some(i64::from(number(year)?)), Some(month), Some(day));
        let Some(time) = time else { return Some(()) };
        // An offset west of Greenwich begins with the same sign that parts the date.
        match time.iter().position(|&octet| octet == b'-') {
            Some(at) => {
                self.take_time(time.get(..at)?)?;
                self.take_offset(time.get(at..)?)
            }
            None => self.take_time(time),
        }
    }

    /// `+0130` or `-01:30`.
    fn take_offset(&mut self, word: &[u8]) -> Option<()> {
        let (sign, digits) = word.split_first()?;
        let (hours, minutes) = match digits {
            [h1, h2, b':', m1, m2] | [h1, h2, m1, m2] => (number(&[*h1, *h2])?, number(&[*m1, *m2])?),
            _ => return None,
        };
        let minutes = i16::try_from(hours * 60 + minutes).ok()?;
        self.set_zone(Some(if *sign == b'-' { -minutes } else { minutes }))
    }

    /// The name of a month or of a zone.
    fn take_name(&mut self, word: &[u8]) -> Option<()> {
        if let (None, Some(month)) = (self.month, month(word)) {
            self.month = Some(month);
            return Some(());
        }
        let is_zone = (1..=5).contains(&word.len()) && word.iter().all(u8::is_ascii_uppercase);
        match (is_zone && self.time.is_some(), word) {
            (false, _) => None,
            // `MET DST`: the clock is an hour ahead of the zone.
            (true, b"DST") => {
                self.zone = self.zone.map(|zone| zone + 60);
                Some(())
            }
            (true, _) => self.set_zone(named_zone(word)),
        }
    }

    fn set_zone(&mut self, zone: Option<i16>) -> Option<()> {
        // Some write the offset and, behind it, its name.
        self.zone = self.zone.or(zone);
        Some(())
    }

    fn date(&self) -> Option<InternalDate> {
        let (year, month, day) = (self.year?, self.month?, self.day?);
        let (hour, minute, second) = self.time?;
        let is_legal = (1900..=2500).contains(&year) && (1..=12).contains(&month) && (1..=31).contains(&day);
        let local = days_since_1970(year, month, day) * 86_400 + i64::from(hour * 3600 + minute * 60 + second);
        let seconds = local - i64::from(self.zone.unwrap_or(0)) * 60;
        is_legal.then_some(InternalDate { seconds, nanos: 0, zone_minutes: self.zone })
    }
}

fn is_time((hour, minute, second): (u32, u32, u32)) -> bool {
    hour < 24 && minute < 60 && second <= 60
}

fn number(digits: &[u8]) -> Option<u32> {
    let is_number = (1..=4).contains(&digits.len()) && digits.iter().all(u8::is_ascii_digit);
    is_number.then(|| digits.iter().fold(0, |number, digit| number * 10 + u32::from(digit - b'0')))
}

fn is_weekday(word: &[u8]) -> bool {
    let full: &[u8] = match &first_three(word) {
        b"sun" => b"sunday",
        b"mon" => b"monday",
        b"tue" => b"tuesday",
        b"wed" => b"wednesday",
        b"thu" => b"thursday",
        b"fri" => b"friday",
        b"sat" => b"saturday",
        _ => return false,
    };
    word.len() == 3 || word.eq_ignore_ascii_case(full)
}

fn month(word: &[u8]) -> Option<u32> {
    let (month, full): (u32, &[u8]) = match &first_three(word) {
        b"jan" => (1, b"january"),
        b"feb" => (2, b"february"),
        b"mar" => (3, b"march"),
        b"apr" => (4, b"april"),
        b"may" => (5, b"may"),
        b"jun" => (6, b"june"),
        b"jul" => (7, b"july"),
        b"aug" => (8, b"august"),
        b"sep" => (9, b"september"),
        b"oct" => (10, b"october"),
        b"nov" => (11, b"november"),
        b"dec" => (12, b"december"),
        _ => return None,
    };
    (word.len() == 3 || word.eq_ignore_ascii_case(full)).then_some(month)
}

/// The first three letters in lower case: what tells weekdays and months apart.
fn first_three(word: &[u8]) -> [u8; 3] {
    word.first_chunk::<3>().map_or([0; 3], |letters| letters.map(|letter| letter.to_ascii_lowercase()))
}

/// The zones of RFC 822 5.1 and those of central Europe, in minutes east. Other names mean different things to different people.
fn named_zone(name: &[u8]) -> Option<i16> {
    Some(match name {
        b"GMT" | b"UTC" | b"UT" | b"Z" | b"WET" => 0,
        b"CET" | b"MET" => 60,
        b"CEST" | b"MEST" => 120,
        b"EDT" => -240,
        b"EST" | b"CDT" => -300,
        b"CST" | b"MDT" => -360,
        b"MST" | b"PDT" => -420,
        b"PST" => -480,
        _ => return None,
    })
}

/// Days from 1970-01-01 to this day of the Gregorian calendar. The year is counted from March, so that the leap day is its last.
fn days_since_1970(year: i64, month: u32, day: u32) -> i64 {
    let (year, month) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let day_of_year = i64::from((153 * month + 2) / 5 + day) - 1;
    let leap_days = year.div_euclid(4) - year.div_euclid(100) + year.div_euclid(400);
    year * 365 + leap_days + day_of_year - 719_468
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn seconds(line: &str) -> Option<(i64, Option<i16>, bool)> {
        date(line.as_bytes()).map(|from| (from.date.seconds, from.date.zone_minutes, from.is_strict))
    }

    #[test]
    fn the_common_forms_are_understood() {
        // 1996-01-03T01:05:34Z
        let at = 820_631_134;
        for (line, expected) in [
            ("From a@b Wed Jan  3 01:05:34 1996", (at, None, true)),
            ("From a at b  Wed Jan 3 01:05:34 1996", (at, None, true)),
            ("From a@b Wed Jan  3 01:05:34 1996\r", (at, None, true)),
            ("From A B <a@b> Wed Jan  3 01:05:34 1996 +0100", (at - 3600, Some(60), true)),
            ("From a@b Wed Jan  3 01:05:34 MET 1996", (at - 3600, Some(60), true)),
            ("From a@b Wed Jan  3 01:05:34 MET DST 1996", (at - 7200, Some(120), true)),
            ("From a@b Wed Jan  3 01:05:34 XYZ 1996", (at, None, true)),
            ("From a@b Wed Jan  3 01:05 1996", (at - 34, None, true)),
            ("From a@b Wed, 3 Jan 1996 01:05:34 -0130", (at + 5400, Some(-90), true)),
            ("From a@b Wed, 3 Jan 96 01:05:34 GMT", (at, Some(0), false)),
            ("From a@b Jan  3 01:05:34 1996", (at, None, false)),
            ("From a@b 1996-01-03T01:05:34Z", (at, Some(0), false)),
            ("From a@b 1996-01-03 01:05:34.25", (at, None, false)),
            ("From a@b 1996-01-03T01:05:34-01:00", (at + 3600, Some(-60), false)),
            ("From host!a Wed Jan  3 01:05:34 1996 remote from there", (at, None, true)),
            ("From a@b Wed Jan  3 01:05:34 1996 -0800 (PST)", (at + 28_800, Some(-480), true)),
            ("From  Wed Jan  3 01:05:34 1996", (at, None, false)),
        ] {
            assert_eq!(seconds(line), Some(expected), "{line}");
        }
    }

    #[test]
    fn prose_is_not_a_date() {
        for line in [
            "From what I see, it is not",
            "From a@b",
            "From ",
            "From Monday on we open at 9:00",
            "From Wed Jan 3 1996",
            "From a@b Wed Jan 33 01:05:34 1996",
            "From a@b Wed Jan 3 25:05:34 1996",
            "From a@b Wed Jan 3 01:05:34 1996 we were",
            "From a@b Wed Jan 3 01:05:34 199",
            "FROM a@b Wed Jan  3 01:05:34 1996",
        ] {
            assert_eq!(seconds(line), None, "{line}");
        }
    }

    #[test]
    fn leap_years_and_old_dates_are_counted_right() {
        assert_eq!(days_since_1970(1970, 1, 1), 0);
        assert_eq!(days_since_1970(2000, 2, 29), 11_016);
        assert_eq!(days_since_1970(2000, 3, 1), 11_017);
        assert_eq!(days_since_1970(1969, 12, 31), -1);
        assert_eq!(days_since_1970(1900, 3, 1), -25_508);
    }

    proptest! {
        #[test]
        fn the_short_way_gives_what_the_long_way_does(stamp in "(Wed|wed|Xyz) (Jan|Feb|Mai) [ 0-9][0-9] [0-2][0-9]:[0-6][0-9]:[0-6][0-9] [12][0-9]{3}") {
            let line = format!("a@b {stamp}");
            let short = asctime(line.as_bytes());
            prop_assert!(short.is_none() || short == any_form(line.as_bytes()));
        }

        #[test]
        fn any_line_is_read_without_panic(line: Vec<u8>, digits in "[0-9 :+A-Z,-]{0,60}") {
            let _ = date(&[b"From ", &line[..]].concat());
            let _ = date(format!("From {digits}").as_bytes());
        }
    }
}
