//! Bytes to a message: RFC 5424, and what is called RFC 3164, which described in 2001 what was seen on the
//! wire and is followed by nobody to the letter. Whatever comes is a message; what is not understood is text.
//!
//! ```text
//! <165>1 2026-11-25T14:03:27.003Z m01 app 123 ID47 [ex@32473 a="b"] text      RFC 5424
//! <30>Nov 25 14:03:27 m01 sshd[123]: text                                     BSD, rsyslog, logger --rfc3164
//! <30>Nov 25 14:03:27 sshd[123]: text                                         busybox, /dev/log: no host
//! <30>2026-11-25T14:03:27.003+09:00 m01 sshd: text                            rsyslog's own
//! <189>237: sw1: *Mar  1 18:46:11.123: %SYS-5-CONFIG_I: text                  Cisco
//! <14>Nov 25 2026 14:03:27 host text                                          Cisco ASA, some BMCs
//! ```

use jiff::civil::DateTime;
use jiff::{SignedDuration, Timestamp};

use super::message::{Facility, Message, Severity, TEXT_MOST, clean, data as kept, word};

const MONTHS: [&[u8]; 12] = [
    b"Jan", b"Feb", b"Mar", b"Apr", b"May", b"Jun", b"Jul", b"Aug", b"Sep", b"Oct", b"Nov", b"Dec",
];

/// A sender's clock is never faster: what seems to be of a later day is of the year before.
const AHEAD: SignedDuration = SignedDuration::from_hours(31 * 24);

/// One message, its frame taken off. `now` is for years, which BSD's times do not have.
pub fn parse(bytes: &[u8], now: Timestamp) -> Message {
    let bytes = trim_end(bytes);
    let Some((facility, severity, rest)) = pri(bytes) else {
        return Message::bare(clean(bytes, TEXT_MOST));
    };
    let message = rest.strip_prefix(b"1 ").and_then(ietf);
    let message = message.unwrap_or_else(|| bsd(rest, now));
    Message { facility, severity, ..message }
}

/// `<PRI>`, and what is behind it.
pub(super) fn pri(bytes: &[u8]) -> Option<(Facility, Severity, &[u8])> {
    let inner = bytes.strip_prefix(b"<")?;
    let end = inner.iter().take(4).position(|byte| *byte == b'>')?;
    let (digits, rest) = (inner.get(..end)?, inner.get(end + 1..)?);
    if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let number: u16 = std::str::from_utf8(digits).ok()?.parse().ok()?;
    let facility = Facility::new(u8::try_from(number >> 3).ok()?)?;
    Some((facility, Severity::of((number & 7) as u8), rest))
}

/// RFC 5424 6, behind its version. None: it is no such message.
fn ietf(bytes: &[u8]) -> Option<Message> {
    let (time, rest) = token(bytes)?;
    let time = match time {
        b"-" => None,
        time => Some(iso(time)?),
    };
    let (host, rest) = token(rest)?;
    let (app, rest) = token(rest)?;
    let (procid, rest) = token(rest)?;
    let (msgid, rest) = token(rest)?;
    // Data that never ends is text.
    let (found, rest) = data(rest).unwrap_or((None, rest));
    let text = rest.strip_prefix(b" ").unwrap_or(rest);
    let text = text.strip_prefix(b"\xef\xbb\xbf").unwrap_or(text);
    Some(Message {
        time,
        host: word(host),
        app: word(app),
        procid: word(procid),
        msgid: word(msgid),
        data: found.and_then(kept),
        ..Message::bare(clean(text, TEXT_MOST))
    })
}

/// STRUCTURED-DATA (RFC 5424 6.3), and what is behind it. None: it does not end.
pub(super) fn data(bytes: &[u8]) -> Option<(Option<&[u8]>, &[u8])> {
    if let Some(rest) = bytes.strip_prefix(b"-")
        && matches!(rest.first(), None | Some(b' '))
    {
        return Some((None, rest));
    }
    if bytes.first() != Some(&b'[') {
        return None;
    }
    let (mut inside, mut quoted, mut escaped) = (false, false, false);
    for (at, byte) in bytes.iter().enumerate() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if quoted => escaped = true,
            b'"' if inside => quoted = !quoted,
            _ if quoted => {}
            b'[' if !inside => inside = true,
            b']' if inside => inside = false,
            _ if inside => {}
            _ => return bytes.split_at_checked(at).map(|(data, rest)| (Some(data), rest)),
        }
    }
    (!inside).then_some((Some(bytes), &[]))
}

fn bsd(bytes: &[u8], now: Timestamp) -> Message {
    let (mut named, mut rest) = (None, bytes);
    let mut timed = own_time(rest, now);
    // A sequence number, a name, or both, before the time.
    for _ in 0..2 {
        let Some((prefix, behind)) = token(rest).filter(|_| timed.is_none()) else { break };
        let Some(prefix) = prefix.strip_suffix(b":").filter(|prefix| !prefix.is_empty()) else {
            break;
        };
        if !prefix.iter().all(u8::is_ascii_digit) {
            named = Some(prefix);
        }
        rest = behind;
        timed = own_time(rest, now);
    }
    let Some((time, rest)) = timed else {
        // Nothing of a header: all of it is content, which may begin with a tag.
        return tagged(trim_start(bytes));
    };
    let rest = trim_start(rest);
    let host = token(rest).filter(|(host, behind)| {
        let tag = host.ends_with(b":") || host.contains(&b'[');
        named.is_none() && !tag && !behind.is_empty() && !rest.starts_with(b"last message repeated")
    });
    let (host, rest) = host.map_or((named, rest), |(host, behind)| (Some(host), behind));
    let rest = trim_start(rest);
    let rest = rest.strip_prefix(b": ").unwrap_or(rest);
    Message { time: Some(time), host: host.and_then(word), ..tagged(rest) }
}

/// `sshd[123]: text`
fn tagged(bytes: &[u8]) -> Message {
    let tag = || {
        let end = bytes.iter().take(65).position(|byte| matches!(byte, b':' | b'[' | b' '))?;
        let (app, behind) = bytes.split_at_checked(end).filter(|(app, _)| !app.is_empty())?;
        let (pid, behind) = match behind.strip_prefix(b"[") {
            None => (None, behind),
            Some(inner) => {
                let end = inner.iter().take(65).position(|byte| *byte == b']')?;
                (Some(inner.get(..end)?), inner.get(end + 1..)?)
            }
        };
        let text = behind.strip_prefix(b":")?;
        // A URL is no tag.
        matches!(text.first(), None | Some(b' ' | b'\t')).then_some((app, pid, text))
    };
    match tag() {
        None => Message::bare(clean(bytes, TEXT_MOST)),
        Some((app, pid, text)) => Message {
            app: word(app),
            procid: pid.and_then(word),
            ..Message::bare(clean(text.strip_prefix(b" ").unwrap_or(text), TEXT_MOST))
        },
    }
}

/// The sender's time at the very beginning, and what is behind it.
fn own_time(bytes: &[u8], now: Timestamp) -> Option<(String, &[u8])> {
    if bytes.first()?.is_ascii_digit() {
        let (time, rest) = token(bytes)?;
        if let Some(time) = iso(time.strip_suffix(b":").unwrap_or(time)) {
            return Some((time, rest));
        }
        // Date and time as two words.
        let both = bytes.get(..19)?;
        let more = bytes.get(19..)?;
        let fraction = more.iter().position(|b| !matches!(b, b'.' | b'0'..=b'9'));
        let (fraction, rest) = more.split_at_checked(fraction.unwrap_or(more.len()))?;
        let text = [both, fraction].concat();
        return Some((iso(&text)?, rest.strip_prefix(b":").unwrap_or(rest)));
    }
    // Cisco: the clock was never set, or may be wrong.
    let bytes = bytes.strip_prefix(b"*").or(bytes.strip_prefix(b".")).unwrap_or(bytes);
    let month = bytes.get(..3)?;
    let month = MONTHS.iter().position(|name| name.eq_ignore_ascii_case(month))? + 1;
    let (day, rest) = number(trim_start(bytes.get(3..)?.strip_prefix(b" ")?))?;
    let rest = rest.strip_prefix(b" ")?;
    let (year, rest) = match number(rest) {
        Some((year @ 1970..=9999, behind)) => (Some(year), behind.strip_prefix(b" ")?),
        _ => (None, rest),
    };
    let (clock, fraction) = (rest.get(..8)?, rest.get(8..)?);
    let end = match fraction.first() {
        Some(b'.') => fraction.iter().skip(1).position(|b| !b.is_ascii_digit()).map(|at| at + 1),
        _ => Some(0),
    };
    let (fraction, mut rest) = fraction.split_at_checked(end.unwrap_or(fraction.len()))?;
    let fraction = fraction.get(..fraction.len().min(10))?;
    let clock = std::str::from_utf8(clock).ok()?;
    let fraction = std::str::from_utf8(fraction).ok()?;
    let at = |year: i16| -> Option<DateTime> {
        format!("{year:04}-{month:02}-{day:02}T{clock}{fraction}").parse().ok()
    };
    let year = year.or_else(|| {
        // A year behind the time, and not a host's name of four digits.
        let (year, behind) = number(rest.strip_prefix(b" ")?)?;
        let ends = matches!(behind.first(), None | Some(b' ' | b':'));
        ((1970..=2199).contains(&year) && ends).then(|| {
            rest = behind;
            year
        })
    });
    let time = match year {
        Some(year) => at(i16::try_from(year).ok()?)?,
        None => {
            // The last such day: not of the future, but for a clock that is fast.
            let here = now.to_zoned(jiff::tz::TimeZone::UTC).datetime();
            let near = (-1..=1).filter_map(|years| at(here.year() + years));
            near.filter(|time| time.duration_since(here) < AHEAD).max()?
        }
    };
    // `JST:` is a zone; only a table of all of them would say which.
    if let Some((zone, behind)) = rest.strip_prefix(b" ").and_then(token)
        && zone.len() <= 5
        && zone.strip_suffix(b":").is_some_and(|zone| zone.iter().all(u8::is_ascii_uppercase))
    {
        rest = behind;
    }
    Some((time.to_string(), rest.strip_prefix(b":").unwrap_or(rest)))
}

/// RFC 3339, or the same without its offset.
fn iso(bytes: &[u8]) -> Option<String> {
    let text = std::str::from_utf8(bytes.get(..bytes.len().min(40))?).ok()?;
    // A day alone is no time.
    if !text.get(4..5)?.starts_with('-') || text.len() < 19 {
        return None;
    }
    if text.parse::<Timestamp>().is_ok() {
        // As it was written: its offset says where the clock is.
        return Some(text.replace(' ', "T"));
    }
    text.parse::<DateTime>().ok().map(|time| time.to_string())
}

fn number(bytes: &[u8]) -> Option<(u32, &[u8])> {
    let end = bytes.iter().position(|byte| !byte.is_ascii_digit()).unwrap_or(bytes.len());
    let (digits, rest) = bytes.split_at_checked(end)?;
    if digits.len() > 4 {
        return None;
    }
    Some((std::str::from_utf8(digits).ok()?.parse().ok()?, rest))
}

/// Up to a space, and behind it.
fn token(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let end = bytes.iter().position(|byte| *byte == b' ').unwrap_or(bytes.len());
    let (token, rest) = bytes.split_at_checked(end).filter(|(token, _)| !token.is_empty())?;
    Some((token, rest.strip_prefix(b" ").unwrap_or(rest)))
}

fn trim_start(bytes: &[u8]) -> &[u8] {
    let begin = bytes.iter().position(|byte| *byte != b' ').unwrap_or(bytes.len());
    bytes.get(begin..).unwrap_or_default()
}

/// Senders end a datagram with a line's end, a NUL, or both.
fn trim_end(bytes: &[u8]) -> &[u8] {
    let end = bytes.iter().rposition(|byte| !matches!(byte, b'\n' | b'\r' | 0 | b' '));
    end.and_then(|end| bytes.get(..=end)).unwrap_or_default()
}

#[cfg(test)]
#[path = "parse_tests.rs"]
mod tests;
