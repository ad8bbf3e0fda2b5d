//! The clock: a board with a flat battery boots in 2010, and every certificate is then of the future.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustix::time::{ClockId, Timespec, clock_gettime, clock_settime};

use crate::console::say;

/// What is left to NTP, in seconds.
const SLACK: u64 = 5;

/// Steps the clock when it is off by more than 5 s from the appliance's `Date`, or lies before
/// `floor`, when the orders were written.
pub fn mind(date: Option<u64>, floor: u64) {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |now| now.as_secs());
    let Some(to) = correction(now, date, floor) else { return };
    let Ok(tv_sec) = i64::try_from(to) else { return };
    match clock_settime(ClockId::Realtime, Timespec { tv_sec, tv_nsec: 0 }) {
        Ok(()) => say(format!("clock stepped by {:+} s", i128::from(to) - i128::from(now))),
        Err(errno) => say(format!(
            "clock is off by {:+} s and does not step: {errno}",
            i128::from(to) - i128::from(now)
        )),
    }
}

/// Time since the kernel started.
pub fn uptime() -> Duration {
    let time = clock_gettime(ClockId::Boottime);
    Duration::new(time.tv_sec.try_into().unwrap_or(0), time.tv_nsec.try_into().unwrap_or(0))
}

/// Of a time since 1970: `2026-11-25T14:03:27.123456Z` (RFC 3339).
pub fn stamp(at: Duration) -> String {
    // Days to a date, as in http://howardhinnant.github.io/date_algorithms.html (civil_from_days).
    let (days, second) = (at.as_secs() / 86_400, at.as_secs() % 86_400);
    let days = days + 719_468;
    let (era, of_era) = (days / 146_097, days % 146_097);
    let year = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    let shifted = (5 * of_year + 2) / 153;
    let day = of_year - (153 * shifted + 2) / 5 + 1;
    let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
    let year = era * 400 + year + u64::from(month <= 2);
    let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
    let micros = at.subsec_micros();
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{micros:06}Z")
}

/// Where the clock should stand instead. A `Date` before `floor` is of an appliance whose own
/// clock is off: it wrote the orders later than it says it is now.
pub fn correction(now: u64, date: Option<u64>, floor: u64) -> Option<u64> {
    match date {
        Some(date) if date.saturating_add(SLACK) >= floor => {
            (now.abs_diff(date) > SLACK).then_some(date)
        }
        _ => (now.saturating_add(SLACK) < floor).then_some(floor),
    }
}

/// RFC 9110 §5.6.7, the one form a server may send: `Sun, 06 Nov 1994 08:49:37 GMT`.
pub fn parse_date(text: &str) -> Option<u64> {
    const MONTHS: [&str; 12] =
        ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    if text.len() != 29 || !text.is_ascii() || !text.ends_with(" GMT") {
        return None;
    }
    let number = |from: usize, to: usize| -> Option<u64> {
        let digits = &text[from..to];
        digits.bytes().all(|b| b.is_ascii_digit()).then(|| digits.parse().ok()).flatten()
    };
    let (day, year) = (number(5, 7)?, number(12, 16)?);
    let month = MONTHS.iter().position(|name| *name == &text[8..11])? as u64 + 1;
    let (hour, minute, second) = (number(17, 19)?, number(20, 22)?, number(23, 25)?);
    if !(1970..=9999).contains(&year)
        || !(1..=31).contains(&day)
        || hour > 23
        || minute > 59
        || second > 60
    {
        return None;
    }
    // Days from the civil calendar, years counted from March so that the leap day comes last.
    let (y, m) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let days = y * 365 + y / 4 - y / 100 + y / 400 + (m * 153 + 2) / 5 + day - 1;
    let days = days.checked_sub(719_468)?;
    Some(days * 86_400 + hour * 3600 + minute * 60 + second)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates() {
        let table = [
            ("Thu, 01 Jan 1970 00:00:00 GMT", Some(0)),
            ("Sun, 06 Nov 1994 08:49:37 GMT", Some(784_111_777)),
            ("Tue, 29 Feb 2000 23:59:59 GMT", Some(951_868_799)),
            ("Wed, 01 Mar 2000 00:00:00 GMT", Some(951_868_800)),
            ("Fri, 31 Dec 9999 23:59:59 GMT", Some(253_402_300_799)),
            ("Sunday, 06-Nov-94 08:49:37 GMT", None),
            ("Sun Nov  6 08:49:37 1994", None),
            ("Sun, 06 Nov 1969 08:49:37 GMT", None),
            ("Sun, 06 Nov 1994 24:49:37 GMT", None),
            ("Sun, 06 Foo 1994 08:49:37 GMT", None),
            ("Sun, +6 Nov 1994 08:49:37 GMT", None),
            ("Sün, 6 Nov 1994 08:49:37 GMT", None),
            ("", None),
        ];
        for (text, meant) in table {
            assert_eq!(parse_date(text), meant, "{text}");
        }
    }

    #[test]
    fn steps_only_when_far_off() {
        let table = [
            // now, date, floor, where to
            (1000, Some(1005), 0, None),
            (1000, Some(1006), 0, Some(1006)),
            (1000, Some(994), 900, Some(994)),
            (0, None, 1000, Some(1000)),
            (998, None, 1000, None),
            (5000, None, 1000, None),
            // The appliance says it is earlier than when it wrote the orders: not believed.
            (1000, Some(10), 1000, None),
            (0, Some(10), 1000, Some(1000)),
            (u64::MAX, Some(u64::MAX), u64::MAX, None),
        ];
        for (now, date, floor, meant) in table {
            assert_eq!(correction(now, date, floor), meant, "{now} {date:?} {floor}");
        }
    }
}
