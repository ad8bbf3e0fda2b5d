//! A script as words: strings, patterns, names, times and signs, each with its place. Without a meaning yet.

use std::ops::Range;
use std::time::Duration;

use super::Fault;

/// A time that a script waits may be so long.
const TIME_MOST: Duration = Duration::from_secs(3600);

/// Something in a script, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Word {
    pub what: Token,
    /// Bytes of the script.
    pub at: Range<usize>,
}

/// What it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Token {
    /// `send`, or somebody's name for something.
    Name(String),
    /// `3`
    Number(u32),
    /// `500ms`, `10s`, `2m`
    Time(Duration),
    /// Between quotation marks.
    Text(Vec<Part>),
    /// Between slashes, and whether an `i` stands behind it.
    Pattern(Vec<Part>, bool),
    /// `{`, `}`, `=`, `==`, `!=`, `~`, `!~`, `=>`
    Sign(&'static str),
    /// The end of a line.
    End,
}

impl Token {
    /// For people.
    pub fn shown(&self) -> String {
        match self {
            Token::Name(name) => format!("{name:?}"),
            Token::Number(number) => number.to_string(),
            Token::Time(_) => "a time".to_string(),
            Token::Text(_) => "a text".to_string(),
            Token::Pattern(..) => "a pattern".to_string(),
            Token::Sign(sign) => sign.to_string(),
            Token::End => "the end of the line".to_string(),
        }
    }
}

/// A part of a text or a pattern.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Part {
    /// As it is; escapes are resolved, of a text.
    Plain(Vec<u8>),
    /// `${name}`, and where.
    Value(String, Range<usize>),
}

/// Longest first.
const SIGNS: [&str; 8] = ["==", "!=", "!~", "=>", "{", "}", "=", "~"];

/// Reads them all. What does not read is said, and left out.
pub(super) fn words(script: &str, faults: &mut Vec<Fault>) -> Vec<Word> {
    let mut reader = Reader { script, at: 0, faults };
    let mut words = Vec::new();
    while let Some(next) = reader.rest().chars().next() {
        let start = reader.at;
        let what = match next {
            '\n' => {
                reader.at += 1;
                Some(Token::End)
            }
            '#' => {
                reader.at += reader.rest().find('\n').unwrap_or(reader.rest().len());
                continue;
            }
            _ if next.is_whitespace() => {
                reader.at += next.len_utf8();
                continue;
            }
            '"' => reader.text(),
            '/' => reader.pattern(),
            '0'..='9' => reader.number(),
            _ if next.is_ascii_alphabetic() || next == '_' => {
                let name = reader.take_while(|c| c.is_ascii_alphanumeric() || c == '_');
                Some(Token::Name(name.to_string()))
            }
            _ => reader.sign(),
        };
        if let Some(what) = what {
            words.push(Word { what, at: start..reader.at });
        }
    }
    words.push(Word { what: Token::End, at: script.len()..script.len() });
    words
}

struct Reader<'a> {
    script: &'a str,
    at: usize,
    faults: &'a mut Vec<Fault>,
}

impl<'a> Reader<'a> {
    fn rest(&self) -> &'a str {
        self.script.get(self.at..).unwrap_or_default()
    }

    fn take_while(&mut self, is: impl Fn(char) -> bool) -> &'a str {
        let rest = self.rest();
        let end = rest.find(|c| !is(c)).unwrap_or(rest.len());
        self.at += end;
        rest.get(..end).unwrap_or_default()
    }

    fn fault(&mut self, at: Range<usize>, message: &str, help: &str) {
        self.faults.push(Fault::new(at, message).help(help));
    }

    fn sign(&mut self) -> Option<Token> {
        let rest = self.rest();
        if let Some(sign) = SIGNS.into_iter().find(|sign| rest.starts_with(sign)) {
            self.at += sign.len();
            return Some(Token::Sign(sign));
        }
        let odd = rest.chars().next()?;
        let start = self.at;
        self.at += odd.len_utf8();
        let help = "texts stand in \"…\", patterns in /…/, and # begins a remark";
        self.fault(start..self.at, &format!("{odd:?} means nothing here"), help);
        None
    }

    fn number(&mut self) -> Option<Token> {
        let start = self.at;
        let digits = self.take_while(|c| c.is_ascii_digit());
        let unit = self.take_while(|c| c.is_ascii_alphanumeric() || c == '_');
        let at = start..self.at;
        let Ok(number) = digits.parse::<u32>() else {
            self.fault(at, "a number that is too large", "");
            return None;
        };
        let time = match unit {
            "" => return Some(Token::Number(number)),
            "ms" => Duration::from_millis(number.into()),
            "s" => Duration::from_secs(number.into()),
            "m" => Duration::from_secs(u64::from(number) * 60),
            _ => {
                self.fault(at, &format!("{digits}{unit} is no time"), "like 500ms, 10s or 2m");
                return None;
            }
        };
        if time > TIME_MOST {
            self.fault(at, "nobody waits for more than an hour", "at most 60m");
            return None;
        }
        Some(Token::Time(time))
    }

    /// Up to the quotation mark that ends it.
    fn text(&mut self) -> Option<Token> {
        let start = self.at;
        let (mut parts, mut plain) = (Vec::new(), Vec::new());
        self.at += 1;
        loop {
            let (rest, here) = (self.rest(), self.at);
            let Some(next) = rest.chars().next().filter(|next| *next != '\n') else {
                self.fault(start..here, "a text that does not end on its line", "end it with \"");
                return None;
            };
            self.at += next.len_utf8();
            match next {
                '"' => break,
                '\\' => plain.extend(self.escape(here)),
                '$' => match self.value(here) {
                    Some(value) => {
                        push_plain(&mut parts, &mut plain);
                        parts.push(value);
                    }
                    None => plain.push(b'$'),
                },
                other => plain.extend_from_slice(other.encode_utf8(&mut [0; 4]).as_bytes()),
            }
        }
        push_plain(&mut parts, &mut plain);
        Some(Token::Text(parts))
    }

    /// Behind a backslash.
    fn escape(&mut self, start: usize) -> Option<u8> {
        let next = self.rest().chars().next();
        self.at += next.map_or(0, char::len_utf8);
        let byte = match next {
            Some('r') => b'\r',
            Some('n') => b'\n',
            Some('t') => b'\t',
            Some('e') => 0x1b,
            Some('0') => 0,
            Some(plain @ ('"' | '\\' | '$')) => plain as u8,
            Some('x') => {
                let digits = self.rest().get(..2).unwrap_or_default();
                match u8::from_str_radix(digits, 16).ok().filter(|_| !digits.starts_with('+')) {
                    Some(byte) => {
                        self.at += 2;
                        byte
                    }
                    None => {
                        let help = "two digits, like \\x03 for Ctrl-C";
                        self.fault(start..self.at, "\\x without a byte", help);
                        return None;
                    }
                }
            }
            _ => {
                let help = "there are \\r \\n \\t \\e \\0 \\xNN \\\" \\\\ \\$";
                // The newline is the text's own trouble.
                if next == Some('\n') {
                    self.at -= 1;
                }
                self.fault(start..self.at, "an escape that there is not", help);
                return None;
            }
        };
        Some(byte)
    }

    /// Behind a dollar sign: `{name}`.
    fn value(&mut self, start: usize) -> Option<Part> {
        let rest = self.rest().strip_prefix('{')?;
        let end = rest.find(|c: char| !(c.is_ascii_alphanumeric() || c == '_'))?;
        let name = rest.get(..end).filter(|name| !name.is_empty())?;
        if !rest.get(end..)?.starts_with('}') {
            return None;
        }
        self.at += end + 2;
        Some(Part::Value(name.to_string(), start..self.at))
    }

    /// Up to the slash that ends it. Escapes are the pattern's own, but for `\/`.
    fn pattern(&mut self) -> Option<Token> {
        let start = self.at;
        let (mut parts, mut plain) = (Vec::new(), Vec::new());
        self.at += 1;
        loop {
            let (rest, here) = (self.rest(), self.at);
            let Some(next) = rest.chars().next().filter(|next| *next != '\n') else {
                self.fault(start..here, "a pattern that does not end on its line", "end it with /");
                return None;
            };
            self.at += next.len_utf8();
            match next {
                '/' => break,
                '\\' if self.rest().starts_with('/') => {
                    self.at += 1;
                    plain.push(b'/');
                }
                '\\' => {
                    plain.push(b'\\');
                    if let Some(escaped) = self.rest().chars().next().filter(|c| *c != '\n') {
                        self.at += escaped.len_utf8();
                        plain.extend_from_slice(escaped.encode_utf8(&mut [0; 4]).as_bytes());
                    }
                }
                '$' => match self.value(here) {
                    Some(value) => {
                        push_plain(&mut parts, &mut plain);
                        parts.push(value);
                    }
                    None => plain.push(b'$'),
                },
                other => plain.extend_from_slice(other.encode_utf8(&mut [0; 4]).as_bytes()),
            }
        }
        push_plain(&mut parts, &mut plain);
        let any_case = self.rest().starts_with('i');
        self.at += usize::from(any_case);
        Some(Token::Pattern(parts, any_case))
    }
}

fn push_plain(parts: &mut Vec<Part>, plain: &mut Vec<u8>) {
    if !plain.is_empty() {
        parts.push(Part::Plain(std::mem::take(plain)));
    }
}
