//! A message as a machine said it, in the words of RFC 5424, in whatever dialect it came; and the line that
//! is kept of it.
//!
//! ```text
//! 2026-11-25T14:03:27.123Z daemon.err udp 2026-11-25T14:03:26+09:00 m01 nginx 123 - - bind() failed
//! when it came             what       way and from TIMESTAMP on as RFC 5424 6 writes it
//! ```
//!
//! One message is one line of UTF-8: other bytes, and characters that control or deceive a terminal, stand
//! as `#` and three octal digits, as rsyslog writes them.

use std::fmt::{self, Display, Write as _};
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::parse;

/// Bytes of a message's text; what is longer is cut, and says so.
pub const TEXT_MOST: usize = 16 * 1024;
/// Bytes of what stands before it, each; of its structured data.
pub const WORD_MOST: usize = 255;
const DATA_MOST: usize = 4096;

/// How grave it is, by the sender's word (RFC 5424 6.2.1). The smaller, the graver.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, clap::ValueEnum,
)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// The system is unusable
    Emerg,
    /// Act at once
    Alert,
    /// Critical
    Crit,
    /// An error
    #[value(alias = "error")]
    Err,
    /// A warning
    #[value(alias = "warn")]
    Warning,
    /// Normal and significant
    Notice,
    /// Information
    Info,
    /// For who looks for faults
    Debug,
}

const SEVERITIES: [(Severity, &str); 8] = [
    (Severity::Emerg, "emerg"),
    (Severity::Alert, "alert"),
    (Severity::Crit, "crit"),
    (Severity::Err, "err"),
    (Severity::Warning, "warning"),
    (Severity::Notice, "notice"),
    (Severity::Info, "info"),
    (Severity::Debug, "debug"),
];

const FACILITIES: [&str; 24] = [
    "kern", "user", "mail", "daemon", "auth", "syslog", "lpr", "news", "uucp", "cron", "authpriv",
    "ftp", "ntp", "audit", "alert", "clock", "local0", "local1", "local2", "local3", "local4",
    "local5", "local6", "local7",
];

/// What part of the system says it (RFC 5424 6.2.1), by its word.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Facility(u8);

impl Facility {
    /// The kernel's.
    pub const KERN: Facility = Facility(0);
    /// Of who says nothing else.
    pub const USER: Facility = Facility(1);
    /// Of logging itself.
    pub const SYSLOG: Facility = Facility(5);

    /// 0 to 23.
    pub fn new(number: u8) -> Option<Facility> {
        (usize::from(number) < FACILITIES.len()).then_some(Facility(number))
    }
}

impl Display for Facility {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(FACILITIES.get(usize::from(self.0)).unwrap_or(&"user"))
    }
}

impl FromStr for Facility {
    type Err = ();

    fn from_str(text: &str) -> Result<Facility, ()> {
        let number = FACILITIES.iter().position(|name| *name == text).ok_or(())?;
        u8::try_from(number).map(Facility).map_err(|_| ())
    }
}

impl Severity {
    /// The lower three bits of a PRI.
    pub fn of(number: u8) -> Severity {
        SEVERITIES.get(usize::from(number & 7)).map_or(Severity::Debug, |(severity, _)| *severity)
    }

    /// `err`
    pub fn as_str(self) -> &'static str {
        SEVERITIES.iter().find(|(one, _)| *one == self).map_or("debug", |(_, name)| *name)
    }
}

impl FromStr for Severity {
    type Err = ();

    fn from_str(text: &str) -> Result<Severity, ()> {
        SEVERITIES.iter().find(|(_, name)| *name == text).map(|(one, _)| *one).ok_or(())
    }
}

/// How it came.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Way {
    /// A datagram.
    Udp,
    /// A connection.
    Tcp,
    /// The kernel by itself.
    Netconsole,
    /// The appliance's own word, of what it dropped.
    Koboshi,
}

const WAYS: [(Way, &str); 4] = [
    (Way::Udp, "udp"),
    (Way::Tcp, "tcp"),
    (Way::Netconsole, "netconsole"),
    (Way::Koboshi, "koboshi"),
];

impl Way {
    fn as_str(self) -> &'static str {
        WAYS.iter().find(|(one, _)| *one == self).map_or("udp", |(_, name)| *name)
    }
}

/// A message. What the sender did not say is None.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// What part of the system.
    pub facility: Facility,
    /// How grave.
    pub severity: Severity,
    /// When it was said, by the sender's clock: RFC 3339, and without an offset where it named none.
    pub time: Option<String>,
    /// What it calls itself. Text and nothing more: whose it is the address says.
    pub host: Option<String>,
    /// The program.
    pub app: Option<String>,
    /// Its process, most often a number.
    pub procid: Option<String>,
    /// The kind of message.
    pub msgid: Option<String>,
    /// Structured data, brackets included.
    pub data: Option<String>,
    /// The text.
    pub text: String,
}

/// A message that has come.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// When, by our clock, Unix milliseconds.
    pub at: u64,
    /// How.
    pub way: Way,
    /// The message.
    pub message: Message,
}

impl Message {
    /// One that says nothing of itself (RFC 3164 4.3.3).
    pub fn bare(text: String) -> Message {
        Message {
            facility: Facility::USER,
            severity: Severity::Notice,
            time: None,
            host: None,
            app: None,
            procid: None,
            msgid: None,
            data: None,
            text,
        }
    }
}

impl Entry {
    /// The line that is kept, its end included.
    pub fn line(&self) -> String {
        let message = &self.message;
        let at = i64::try_from(self.at).unwrap_or(i64::MAX);
        let at = jiff::Timestamp::from_millisecond(at).unwrap_or(jiff::Timestamp::UNIX_EPOCH);
        let (facility, severity, way) =
            (message.facility, message.severity.as_str(), self.way.as_str());
        let mut line = format!("{at:.3} {facility}.{severity} {way}");
        let said = [&message.time, &message.host, &message.app, &message.procid, &message.msgid];
        for word in said.into_iter().chain([&message.data]) {
            line.push(' ');
            line.push_str(word.as_deref().unwrap_or("-"));
        }
        line.push(' ');
        line.push_str(&message.text);
        line.push('\n');
        line
    }

    /// Reads one back, without its end. None: it is none of ours.
    pub fn read(line: &str) -> Option<Entry> {
        let mut words = line.splitn(9, ' ');
        let at: jiff::Timestamp = words.next()?.parse().ok()?;
        let at = u64::try_from(at.as_millisecond()).ok()?;
        let (facility, severity) = words.next()?.split_once('.')?;
        let way = words.next()?;
        let way = WAYS.iter().find(|(_, name)| *name == way).map(|(way, _)| *way)?;
        let mut word = || words.next().map(|word| (word != "-").then(|| word.to_string()));
        let (time, host, app, procid, msgid) = (word()?, word()?, word()?, word()?, word()?);
        let rest = words.next()?;
        let (data, text) = parse::data(rest.as_bytes())?;
        let data = data.map(|data| String::from_utf8_lossy(data).into_owned());
        let text = text.strip_prefix(b" ").unwrap_or(text);
        let text = String::from_utf8_lossy(text).into_owned();
        let (facility, severity) = (facility.parse().ok()?, severity.parse().ok()?);
        let message = Message { facility, severity, time, host, app, procid, msgid, data, text };
        Some(Entry { at, way, message })
    }
}

/// Text of a stranger as one line, safe to keep and to show.
pub(super) fn clean(bytes: &[u8], most: usize) -> String {
    let mut text = String::with_capacity(bytes.len().min(most));
    let mut done = 0;
    for chunk in bytes.utf8_chunks() {
        let valid = chunk.valid().chars().map(|character| (character.len_utf8(), Ok(character)));
        let invalid = chunk.invalid().iter().map(|byte| (1, Err(*byte)));
        for (many, what) in valid.chain(invalid) {
            if text.len() >= most {
                let _ = write!(text, " … ({} bytes more)", bytes.len() - done);
                return text;
            }
            match what {
                Ok(character) if deceives(character) => {
                    let mut buffer = [0; 4];
                    let bytes = character.encode_utf8(&mut buffer).bytes();
                    bytes.for_each(|byte| octal(&mut text, byte));
                }
                Ok(character) => text.push(character),
                Err(byte) => octal(&mut text, byte),
            }
            done += many;
        }
    }
    text
}

/// A word of the header: no space is in it, and it is not empty.
pub(super) fn word(bytes: &[u8]) -> Option<String> {
    let short = bytes.get(..bytes.len().min(WORD_MOST))?;
    (!short.is_empty() && short != b"-").then(|| clean(short, WORD_MOST).replace(' ', "_"))
}

/// Structured data that was found whole. What is too much is left out: half of it would be none.
pub(super) fn data(bytes: &[u8]) -> Option<String> {
    (bytes.len() <= DATA_MOST).then(|| clean(bytes, DATA_MOST))
}

fn octal(text: &mut String, byte: u8) {
    let _ = write!(text, "#{byte:03o}");
}

/// What moves a cursor, or turns the direction of writing (as in `console/src/log/plain.rs`).
fn deceives(character: char) -> bool {
    character.is_control()
        || matches!(character, '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_line_says_all_and_reads_back() {
        let mut message = Message::bare("bind() failed".into());
        let entry = |message: &Message| Entry {
            at: 1_764_079_407_123,
            way: Way::Tcp,
            message: message.clone(),
        };
        let line = entry(&message).line();
        assert_eq!(line, "2025-11-25T14:03:27.123Z user.notice tcp - - - - - - bind() failed\n");
        message.data = Some(r#"[ex@1 a="b \] c"][y]"#.into());
        message.app = Some("nginx".into());
        message.severity = Severity::Err;
        let line = entry(&message).line();
        assert_eq!(Entry::read(line.trim_end_matches('\n')), Some(entry(&message)));
    }

    #[test]
    fn what_deceives_is_told_in_octal() {
        assert_eq!(clean(b"a\x1b[31m\xff\tb\xe2\x80\xaec", 99), "a#033[31m#377#011b#342#200#256c");
        assert_eq!(clean(b"abcdef", 3), "abc … (3 bytes more)");
    }

    proptest! {
        #[test]
        fn any_line_is_read_or_refused(line in ".{0,120}", cut in 0usize..200) {
            let _none = Entry::read(&line);
            let whole = Entry { at: 1, way: Way::Udp, message: Message::bare(line) }.line();
            let part = whole.get(..cut.min(whole.len())).unwrap_or_default();
            let _torn = Entry::read(part);
        }

        #[test]
        fn any_bytes_make_one_safe_line(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let text = clean(&bytes, 100);
            prop_assert!(!text.chars().any(deceives));
            let entry = Entry { at: 7, way: Way::Netconsole, message: Message::bare(text) };
            let line = entry.line();
            prop_assert_eq!(line.matches('\n').count(), 1);
            prop_assert_eq!(Entry::read(line.trim_end_matches('\n')), Some(entry));
        }
    }
}
