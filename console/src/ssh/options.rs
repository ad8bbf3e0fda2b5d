//! What stands in front of a key, as sshd(8) writes it: words with commas between them, some with a value in quotes.

use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::TimeZone;

/// Until the first blank outside quotes.
pub(super) fn first_word(text: &str) -> Result<(&str, &str), String> {
    let (mut quoted, mut escaped) = (false, false);
    for (at, c) in text.char_indices() {
        match c {
            '"' if !escaped => quoted = !quoted,
            ' ' | '\t' if !quoted => return Ok(text.split_at(at)),
            _ => {}
        }
        escaped = c == '\\' && !escaped;
    }
    if quoted { Err("a quote is not closed".to_string()) } else { Ok((text, "")) }
}

/// `word` or `word="value"` each, as OpenSSH reads them: `\"` is a quote within a value.
pub(super) fn split(options: &str) -> Result<Vec<(&str, Option<String>)>, String> {
    let mut all = Vec::new();
    let mut rest = options;
    while !rest.is_empty() {
        let end = rest.find([',', '=']).unwrap_or(rest.len());
        let (word, behind) = rest.split_at(end);
        if word.is_empty() {
            return Err("an option has no name".to_string());
        }
        let Some(quoted) = behind.strip_prefix('=') else {
            all.push((word, None));
            rest = behind.strip_prefix(',').unwrap_or_default();
            continue;
        };
        let quoted = quoted.strip_prefix('"').ok_or(format!("the value of {word} needs quotes"))?;
        let (mut value, mut escaped, mut close) = (String::new(), false, None);
        for (at, c) in quoted.char_indices() {
            match c {
                '"' if escaped => {
                    value.pop();
                    value.push('"');
                }
                '"' => {
                    close = Some(at);
                    break;
                }
                c => value.push(c),
            }
            escaped = c == '\\' && !escaped;
        }
        let close = close.ok_or(format!("the quote of {word} is not closed"))?;
        let behind = quoted.get(close + 1..).unwrap_or_default();
        all.push((word, Some(value)));
        rest = match behind.strip_prefix(',') {
            Some(rest) => rest,
            None if behind.is_empty() => "",
            None => return Err(format!("a comma is missing behind {word}")),
        };
    }
    Ok(all)
}

/// `YYYYMMDD[HHMM[SS]]`, local time, or UTC with `Z` behind it. Unix milliseconds.
pub(super) fn expiry(text: &str) -> Result<u64, String> {
    let wrong =
        || format!("expiry-time is like 20270101, 202701010830 or 20270101083000Z, not {text}");
    let (digits, zone) = match text.strip_suffix(['Z', 'z']) {
        Some(digits) => (digits, TimeZone::UTC),
        None => (text, TimeZone::system()),
    };
    if !matches!(digits.len(), 8 | 12 | 14) || !digits.bytes().all(|c| c.is_ascii_digit()) {
        return Err(wrong());
    }
    let part = |from: usize, many: usize| -> Result<i16, String> {
        digits.get(from..from + many).map_or(Ok(0), |digits| digits.parse().map_err(|_| wrong()))
    };
    let small =
        |from: usize| part(from, 2).and_then(|part| i8::try_from(part).map_err(|_| wrong()));
    let (year, month, day) = (part(0, 4)?, small(4)?, small(6)?);
    let (hour, minute, second) = (small(8)?, small(10)?, small(12)?);
    let at = DateTime::new(year, month, day, hour, minute, second, 0).map_err(|_| wrong())?;
    let at: Timestamp = at.to_zoned(zone).map_err(|_| wrong())?.timestamp();
    Ok(u64::try_from(at.as_millisecond()).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_as_openssh_does() {
        assert_eq!(expiry("20200101Z"), Ok(1_577_836_800_000));
        assert_eq!(expiry("202001010102Z"), Ok(1_577_836_800_000 + 62 * 60_000));
        assert_eq!(expiry("20200101010203Z"), Ok(1_577_836_800_000 + 3_723_000));
        for wrong in
            ["", "2020", "2020010", "20200101010", "20203001", "2020010199", "é0200101", "-2020101"]
        {
            assert!(expiry(wrong).is_err(), "{wrong}");
        }
    }
}
