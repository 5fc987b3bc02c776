//! The From_ line in front of a message that never had one.

/// `From MAILER-DAEMON Thu Jan  1 00:00:00 1970`: the sender that says nobody knows, and the date in UTC as `asctime` writes it, without a line
/// ending. `None` for years that are not of four digits.
pub(super) fn from_line(seconds: i64) -> Option<String> {
    const WEEKDAYS: [&str; 7] = ["Thu", "Fri", "Sat", "Sun", "Mon", "Tue", "Wed"];
    const MONTHS: [&str; 12] = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    let (days, second) = (seconds.div_euclid(86_400), seconds.rem_euclid(86_400));
    let (year, month, day) = civil(days)?;
    let weekday = WEEKDAYS.get(usize::try_from(days.rem_euclid(7)).ok()?)?;
    let month = MONTHS.get(month)?;
    let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
    Some(format!("From MAILER-DAEMON {weekday} {month} {day:2} {hour:02}:{minute:02}:{second:02} {year:04}"))
}

/// Year, month from 0 and day from 1 of a day since 1970-01-01, in the Gregorian calendar.
fn civil(days: i64) -> Option<(i64, usize, i64)> {
    // Eras of 400 years begin on the first of March of the year 0, so that the leap day is the last of its year.
    let day = days.checked_add(719_468)?;
    let (era, day) = (day.div_euclid(146_097), day.rem_euclid(146_097));
    let year = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let date = day - (153 * month + 2) / 5 + 1;
    let calendar_month = usize::try_from((month + 2) % 12).ok()?;
    let year = year + era.checked_mul(400)? + i64::from(calendar_month < 2);
    (1000..=9999).contains(&year).then_some((year, calendar_month, date))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn from_lines_carry_the_date_as_asctime_writes_it() {
        for (seconds, date) in [
            (0, "Thu Jan  1 00:00:00 1970"),
            (-1, "Wed Dec 31 23:59:59 1969"),
            (951_826_154, "Tue Feb 29 12:09:14 2000"),
            (1_709_251_199, "Thu Feb 29 23:59:59 2024"),
            (4_107_542_400, "Mon Mar  1 00:00:00 2100"),
            (253_402_300_799, "Fri Dec 31 23:59:59 9999"),
        ] {
            assert_eq!(from_line(seconds).unwrap(), format!("From MAILER-DAEMON {date}"));
        }
        for seconds in [253_402_300_800, i64::MAX, i64::MIN] {
            assert_eq!(from_line(seconds), None);
        }
    }
}
