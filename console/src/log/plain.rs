//! What a machine said as lines of text, as a person would have read them: without escape sequences, carriage
//! returns and backspaces done, safe for any terminal. A line has the time of its first character.

use crate::harmless::Harmless;

/// A line is never longer; what is longer goes on in the next.
const LONGEST: usize = 4096;

/// A line of text, without its end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    /// When its first character came, Unix milliseconds.
    pub at: u64,
    /// No control characters are in it.
    pub text: String,
}

/// See the module.
#[derive(Debug, Default)]
pub struct Plain {
    harmless: Harmless,
    line: Vec<char>,
    column: usize,
    at: Option<u64>,
    /// Of a character that is not whole yet.
    half: Vec<u8>,
}

impl Plain {
    /// These came; the lines that ended by it.
    pub fn came(&mut self, at: u64, bytes: &[u8], lines: &mut Vec<Line>) {
        let mut passed = std::mem::take(&mut self.half);
        self.harmless.pass(bytes, &mut passed);
        let mut rest = &passed[..];
        while let Some((&byte, after)) = rest.split_first() {
            rest = match byte {
                0x1b => self.sequence(after, lines),
                b' '..=b'~' => {
                    self.put(at, char::from(byte), lines);
                    after
                }
                0..=0x7f => {
                    self.control(byte, lines);
                    after
                }
                _ => {
                    let many = match byte {
                        0xc2..=0xdf => 2,
                        0xe0..=0xef => 3,
                        0xf0..=0xf4 => 4,
                        _ => 1,
                    };
                    let character = rest.get(..many.min(rest.len())).unwrap_or_default();
                    match std::str::from_utf8(character) {
                        Ok(text) => {
                            text.chars().for_each(|c| self.put(at, c, lines));
                            rest.get(many..).unwrap_or_default()
                        }
                        Err(why) if why.error_len().is_none() && rest.len() < many => {
                            self.half = rest.to_vec();
                            return;
                        }
                        Err(_) => {
                            self.put(at, char::REPLACEMENT_CHARACTER, lines);
                            after
                        }
                    }
                }
            };
        }
    }

    /// What has no end yet: a prompt.
    pub fn rest(&mut self) -> Option<Line> {
        let mut lines = Vec::new();
        if self.at.is_some() {
            self.end(&mut lines);
        }
        lines.pop().filter(|line| !line.text.is_empty())
    }

    fn put(&mut self, at: u64, character: char, lines: &mut Vec<Line>) {
        // What turns the direction of writing could show a line other than it is.
        if matches!(character, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{80}'..='\u{9f}' | '\u{2028}' | '\u{2029}')
        {
            return;
        }
        if self.column >= LONGEST {
            self.end(lines);
        }
        self.at.get_or_insert(at);
        if self.line.len() < self.column {
            self.line.resize(self.column, ' ');
        }
        match self.line.get_mut(self.column) {
            Some(there) => *there = character,
            None => self.line.push(character),
        }
        self.column += 1;
    }

    fn control(&mut self, byte: u8, lines: &mut Vec<Line>) {
        match byte {
            b'\n' => self.end(lines),
            b'\r' => self.column = 0,
            0x08 => self.column = self.column.saturating_sub(1),
            b'\t' => self.column = (self.column / 8 + 1) * 8,
            _ => {}
        }
    }

    fn end(&mut self, lines: &mut Vec<Line>) {
        let text: String = self.line.drain(..).collect();
        self.column = 0;
        let at = self.at.take().or(lines.last().map(|line| line.at));
        lines.push(Line { at: at.unwrap_or(0), text: text.trim_end().to_string() });
    }

    /// Behind its ESC, and whole. Those that go to another place on the screen end the line.
    fn sequence<'a>(&mut self, bytes: &'a [u8], lines: &mut Vec<Line>) -> &'a [u8] {
        let control = bytes.first() == Some(&b'[');
        let begin = usize::from(control);
        let last = if control { 0x40..=0x7e } else { 0x30..=0x7e };
        let inner = bytes.get(begin..).unwrap_or_default();
        let Some(many) = inner.iter().position(|byte| last.contains(byte)) else { return &[] };
        let (parameters, rest) = inner.split_at(many);
        let (Some((end, rest)), true) = (rest.split_first(), control) else {
            return rest.get(1..).unwrap_or_default();
        };
        let first = std::str::from_utf8(parameters).ok().and_then(|text| text.split(';').next());
        let number: usize = first.and_then(|first| first.parse().ok()).unwrap_or(0).min(LONGEST);
        match end {
            b'A' | b'B' | b'E' | b'F' | b'H' | b'f' | b'd' | b'J' if !self.line.is_empty() => {
                self.end(lines);
            }
            b'C' => self.column = (self.column + number.max(1)).min(LONGEST),
            b'D' => self.column = self.column.saturating_sub(number.max(1)),
            b'G' => self.column = number.saturating_sub(1),
            b'K' if number == 0 => self.line.truncate(self.column),
            b'K' if number == 2 => self.line.clear(),
            b'P' => {
                let until = self.line.len().min(self.column + number.max(1));
                self.line.drain(self.column.min(until)..until);
            }
            _ => {}
        }
        rest
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn plain(parts: &[&[u8]]) -> Vec<String> {
        let (mut plain, mut lines) = (Plain::default(), Vec::new());
        parts.iter().for_each(|part| plain.came(1, part, &mut lines));
        lines.extend(plain.rest());
        lines.into_iter().map(|line| line.text).collect()
    }

    #[test]
    fn as_a_person_would_have_read_it() {
        for (sent, lines) in [
            ("one\r\ntwo\r\n", &["one", "two"][..]),
            ("\x1b[1;31mred\x1b[0m \x1b]0;title\x07end\r\n", &["red end"]),
            ("  0%\r 50%\r100%\r\n", &["100%"]),
            ("rm -rf /\x08\x08 \x08\x08ls\r\n", &["rm -rls/"]),
            ("typo\x08\x1b[K\x08\x1b[Kped\r\n", &["typed"]),
            ("a\x1b]52;c;cm0gLXJmIC8K\x07b\x05\x1b[6n\r\n", &["ab"]),
            ("\x1b[2J\x1b[1;1HSetup\x1b[5;10HBoot mode\x1b[24;1H", &["Setup", "Boot mode"]),
            ("\u{30b3}\u{202e}live\r\nlogin: ", &["\u{30b3}live", "login:"]),
            ("a\tb\r\n\r\n", &["a       b", ""]),
        ] {
            assert_eq!(plain(&[sent.as_bytes()]), lines, "{sent:?}");
        }
        assert_eq!(plain(&[b"\xff\xc3", b"\xa9\r\n"]), ["\u{fffd}\u{e9}"]);
    }

    proptest! {
        #[test]
        fn any_bytes_split_anywhere_are_safe_lines(
            bytes in prop::collection::vec(prop_oneof![any::<u8>(), prop::sample::select(&b"\x1b[]P;1KHC\x07\r\n\x08\xc2\x9b"[..])], 0..400),
            cut in 0usize..400,
        ) {
            let (one, two) = bytes.split_at(cut.min(bytes.len()));
            let lines = plain(&[one, two]);
            prop_assert_eq!(&lines, &plain(&[&bytes]));
            prop_assert!(lines.iter().all(|line| !line.chars().any(char::is_control)));
        }
    }
}
