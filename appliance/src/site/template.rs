//! `{n}` in a value under a host-list key: `"m[03-40]" = { bmc = "10.78.0.{n}" }`.
//!
//! `{n}` is the number as written (`03`); `{n+10}` and `{n-1}` count (`13`, `2`), `{n:02}` pads and
//! `{n:02x}` writes hexadecimal, as a MAC wants it. With several brackets in the key they are `{n1}`,
//! `{n2}` … Other braces are left alone: a console command may hold them.

/// Puts the numbers in. `plain` drops leading zeros from a bare `{n}`, as an address needs it.
pub fn fill(text: &str, numbers: &[String], plain: bool) -> Result<String, String> {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(open) = rest.find("{n") {
        let (before, from) = rest.split_at(open);
        out.push_str(before);
        let Some(close) = from.find('}') else { break };
        match Field::parse(&from[2..close]) {
            Some(field) => out.push_str(&field.write(&from[..=close], numbers, plain)?),
            None => out.push_str(&from[..=close]),
        }
        rest = &from[close + 1..];
        continue;
    }
    out.push_str(rest);
    Ok(out)
}

/// Does this text ask for a number?
pub fn asks(text: &str) -> bool {
    text.match_indices("{n").any(|(at, _)| {
        let rest = &text[at + 2..];
        rest.find('}').is_some_and(|close| Field::parse(&rest[..close]).is_some())
    })
}

struct Field {
    which: Option<usize>,
    add: Option<i64>,
    width: usize,
    hex: bool,
    formatted: bool,
}

impl Field {
    /// What stands between `{n` and `}`.
    fn parse(text: &str) -> Option<Field> {
        let (count, format) = match text.split_once(':') {
            Some((count, format)) => (count, Some(format)),
            None => (text, None),
        };
        let digits = count.bytes().take_while(u8::is_ascii_digit).count();
        let (which, add) = count.split_at(digits);
        let which = match which {
            "" => None,
            which => Some(which.parse().ok().filter(|which| (1..=9).contains(which))?),
        };
        let add = match add {
            "" => None,
            add if add.len() <= 12 && add.starts_with(['+', '-']) => Some(add.parse().ok()?),
            _ => return None,
        };
        let width = format.unwrap_or("").trim_end_matches('x');
        let hex = format.is_some_and(|format| format.ends_with('x'));
        let width = match width {
            "" => 0,
            width => width.strip_prefix('0')?.parse().ok().filter(|width| *width <= 12)?,
        };
        Some(Field { which, add, width, hex, formatted: format.is_some() })
    }

    fn write(&self, written: &str, numbers: &[String], plain: bool) -> Result<String, String> {
        let digits = match (self.which, numbers) {
            (None, [one]) => one,
            (None, []) => return Err(format!("{written} has no number to stand for")),
            (None, _) => {
                return Err(format!("{written} could be either bracket: write {{n1}} or {{n2}}"));
            }
            (Some(which), _) => {
                numbers.get(which - 1).ok_or(format!("there is no bracket for {written}"))?
            }
        };
        if self.add.is_none() && !self.formatted && !plain {
            return Ok(digits.clone());
        }
        let number: i64 = digits.parse().map_err(|_| format!("{digits} is too large"))?;
        let number = number + self.add.unwrap_or(0);
        if number < 0 {
            return Err(format!("{written} is below zero for {digits}"));
        }
        let width = self.width;
        Ok(if self.hex { format!("{number:0width$x}") } else { format!("{number:0width$}") })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_go_in_as_written_counted_or_formatted() {
        let one = ["03".to_string()];
        let two = ["2".to_string(), "17".to_string()];
        for (text, numbers, want) in [
            ("web{n}", &one[..], "web03"),
            ("10.0.0.{n+10}", &one, "10.0.0.13"),
            ("10.0.0.{n-1}", &one, "10.0.0.2"),
            ("{n+0}", &one, "3"),
            ("52:54:00:00:00:{n:02x}", &["26".to_string()], "52:54:00:00:00:1a"),
            ("{n+1:03}", &one, "004"),
            ("10.{n1}.0.{n2}", &two, "10.2.0.17"),
            ("awk '{ print }' {n} {name} {", &one, "awk '{ print }' 03 {name} {"),
            ("{n", &one, "{n"),
        ] {
            assert_eq!(fill(text, numbers, false).as_deref(), Ok(want), "{text}");
        }
        assert_eq!(fill("10.0.0.{n}", &one, true).as_deref(), Ok("10.0.0.3"));
        for (text, numbers) in [
            ("{n}", &two[..]),
            ("{n3}", &two),
            ("{n-4}", &one),
            ("{n}", &[]),
            ("{n+99999999999}", &["999999999999999999999".to_string()]),
        ] {
            assert!(fill(text, numbers, false).is_err(), "{text}");
        }
        assert!(asks("a{n}") && asks("{n2+1:02x}") && !asks("{name}") && !asks("{n") && !asks("x"));
    }
}
