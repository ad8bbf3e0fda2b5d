//! What operators type, for an audit, without what is typed at a password prompt. Without a clock and without files.
//!
//! A key is kept when the line echoes it: the very next characters that the machine says are those that were typed.
//! What has no echo, or whose echo other output came before, is only counted, and so is all of a line that is typed
//! behind a prompt which asks for a secret. So a secret gets in only where the machine showed it (typed before the
//! prompt was there, say), and then it is in the console's own log too. Control keys are always kept.

use std::sync::LazyLock;
use std::time::{Duration, Instant};

use regex::bytes::Regex;
use serde::{Deserialize, Serialize};

use super::Person;

/// A line of keys is no longer; what follows is another one.
const LINE: usize = 1024;
/// Of what the machine said last, so much may be a prompt.
const PROMPT: usize = 256;
/// A line that does not end is written so long after its last key.
const PAUSE: Duration = Duration::from_secs(10);

static SECRET: LazyLock<Option<Regex>> = LazyLock::new(|| {
    Regex::new(r"(?i-u)(pass(word|phrase|code|wd)?|secret|\bpin|\btoken|\bkey|one-time|otp)\b[^\r\n]*[:>?] *$").ok()
});

/// Somebody typed something: told before the line is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Typed {
    /// When, Unix milliseconds.
    pub at: u64,
    /// Who.
    pub who: Person,
    /// What. Never empty.
    pub bytes: bytes::Bytes,
}

/// What is written of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// When it was begun, Unix milliseconds.
    pub at: u64,
    /// Who.
    pub who: Person,
    /// What: control keys as `^C`, what is left out as `[7 hidden]`.
    pub keys: String,
}

/// See the module.
#[derive(Debug, Default)]
pub struct Keys {
    line: Option<Typing>,
    /// The end of what the machine said, of its last line.
    said: Vec<u8>,
}

#[derive(Debug)]
struct Typing {
    at: u64,
    who: Person,
    secret: bool,
    keys: Vec<(u8, Key)>,
    last: Instant,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Key {
    /// Its echo may still come.
    Waits,
    Hidden,
    Kept,
}

impl Keys {
    /// This was typed, at this moment of the same clock as [`Keys::late`]'s.
    pub fn typed(&mut self, typed: &Typed, now: Instant, out: &mut Vec<Entry>) {
        if self.line.as_ref().is_some_and(|line| line.who != typed.who) {
            self.end(out);
        }
        for byte in &typed.bytes {
            let line = self.line.get_or_insert_with(|| Typing {
                at: typed.at,
                who: typed.who.clone(),
                secret: asks_for_a_secret(&self.said),
                keys: Vec::new(),
                last: now,
            });
            line.last = now;
            let key = match byte {
                0..0x20 | 0x7f => Key::Kept,
                _ if line.secret => Key::Hidden,
                _ => Key::Waits,
            };
            line.keys.push((*byte, key));
            if matches!(byte, b'\r' | b'\n') {
                // Its echo may be on its way: the next line waits for it no more.
                let waits = line.keys.iter().any(|(_, key)| *key == Key::Waits);
                if !waits || line.keys.len() >= LINE {
                    self.end(out);
                }
            } else if line.keys.len() >= LINE {
                self.end(out);
            }
        }
    }

    /// The machine said this.
    pub fn said(&mut self, bytes: &[u8], out: &mut Vec<Entry>) {
        for byte in bytes {
            if matches!(byte, b'\r' | b'\n') {
                self.said.clear();
            } else if self.said.len() < PROMPT {
                self.said.push(*byte);
            }
            let Some(line) = &mut self.line else { continue };
            let waits = line.keys.iter().position(|(_, key)| *key == Key::Waits);
            let Some((first, echo)) = waits.and_then(|at| line.keys.get_mut(at)) else { continue };
            if first == byte {
                *echo = Key::Kept;
            } else {
                // Something else came: what waited up to the end of its line has no echo.
                let waiting = line.keys.iter_mut().skip_while(|(_, key)| *key != Key::Waits);
                for (key, state) in waiting.take_while(|(key, _)| !matches!(key, b'\r' | b'\n')) {
                    if *state == Key::Waits && !key.is_ascii_control() {
                        *state = Key::Hidden;
                    }
                }
            }
            let over = line.keys.last().is_some_and(|(key, _)| matches!(key, b'\r' | b'\n'));
            if over && !line.keys.iter().any(|(_, key)| *key == Key::Waits) {
                self.end(out);
            }
        }
    }

    /// When [`Keys::late`] is to be called.
    pub fn deadline(&self) -> Option<Instant> {
        self.line.as_ref().and_then(|line| line.last.checked_add(PAUSE))
    }

    /// Writes a line that did not end.
    pub fn late(&mut self, now: Instant, out: &mut Vec<Entry>) {
        if self.deadline().is_some_and(|deadline| deadline <= now) {
            self.end(out);
        }
    }

    /// Writes what there is.
    pub fn end(&mut self, out: &mut Vec<Entry>) {
        let Some(Typing { at, who, keys, .. }) = self.line.take() else { return };
        let mut text = Vec::new();
        let mut hidden = 0u32;
        for (byte, key) in keys.iter().chain([&(0, Key::Kept)]) {
            if *key != Key::Kept {
                hidden += 1;
                continue;
            }
            if hidden > 0 {
                text.extend_from_slice(format!("[{hidden} hidden]").as_bytes());
                hidden = 0;
            }
            match byte {
                0 => {}
                0..0x20 | 0x7f => text.extend_from_slice(&[b'^', byte ^ 0x40]),
                _ => text.push(*byte),
            }
        }
        out.push(Entry { at, who, keys: String::from_utf8_lossy(&text).into_owned() });
    }
}

fn asks_for_a_secret(said: &[u8]) -> bool {
    SECRET.as_ref().is_none_or(|secret| secret.is_match(said))
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use proptest::prelude::*;

    use super::*;

    fn who(name: &str) -> Person {
        Person { name: name.to_string(), via: "cli".to_string() }
    }

    fn types(keys: &mut Keys, text: &str, out: &mut Vec<Entry>) {
        let bytes = Bytes::copy_from_slice(text.as_bytes());
        keys.typed(&Typed { at: 7, who: who("alice"), bytes }, Instant::now(), out);
    }

    /// What is written of steps: `>` is typed, `<` is said.
    fn written(steps: &[&str]) -> Vec<String> {
        let (mut keys, mut out) = (Keys::default(), Vec::new());
        for step in steps {
            match step.split_at(1) {
                (">", text) => types(&mut keys, text, &mut out),
                (_, text) => keys.said(text.as_bytes(), &mut out),
            }
        }
        keys.end(&mut out);
        out.into_iter().map(|entry| entry.keys).collect()
    }

    #[test]
    fn what_is_echoed_is_kept_and_what_is_not_is_counted() {
        assert_eq!(written(&["<$ ", ">l", "<l", ">s", "<s", ">\r", "<\r\nbin\r\n$ "]), ["ls^M"]);
        assert_eq!(written(&["<$ ", ">ls -l\r", "<ls -l\r\nbin\r\n$ "]), ["ls -l^M"], "a paste");
        let login =
            ["<login: ", ">root\r", "<root\r\nPassword: ", ">hunter2\r", "<\r\nLast login\r\n# "];
        assert_eq!(written(&login), ["root^M", "[7 hidden]^M"]);
        let other = ["<Enter it: ", ">hunter2\r", "<\r\nhunters and 2 others\r\n"];
        assert_eq!(written(&other), ["[7 hidden]^M"], "no word for it, and no echo");
        let stars = ["<Enter it: ", ">h", "<*", ">u", "<*", ">\r", "<\r\n"];
        assert_eq!(written(&stars), ["[2 hidden]^M"]);
        let shown = ["<BMC password> ", ">hunter2\r", "<hunter2\r\n"];
        assert_eq!(written(&shown), ["[7 hidden]^M"], "a prompt that shows it");
        assert_eq!(written(&["<$ ", ">sleep 9\r", "<sleep 9\r\n", ">\x03"]), ["sleep 9^M", "^C"]);
        assert_eq!(written(&["<$ ", ">ab", "<[ 1.5] eth0: up\r\n", ">c", "<c"]), ["[2 hidden]c"]);
    }

    #[test]
    fn lines_end_with_their_typist_their_length_or_time() {
        let (mut keys, mut out, now) = (Keys::default(), Vec::new(), Instant::now());
        let typed = |name: &str, text: &'static str| Typed {
            at: 7,
            who: who(name),
            bytes: Bytes::from_static(text.as_bytes()),
        };
        keys.typed(&typed("alice", "rm -rf"), now, &mut out);
        keys.said(b"rm -rf", &mut out);
        keys.typed(&typed("bob", "x"), now, &mut out);
        let entry =
            |name: &str, keys: &str| Entry { at: 7, who: who(name), keys: keys.to_string() };
        assert_eq!(out, [entry("alice", "rm -rf")]);
        keys.late(now, &mut out);
        assert_eq!(keys.deadline(), Some(now + PAUSE));
        keys.late(now + PAUSE, &mut out);
        assert_eq!(out[1..], [entry("bob", "[1 hidden]")]);
        assert_eq!(keys.deadline(), None);
        types(&mut keys, &"y".repeat(LINE + 1), &mut out);
        keys.end(&mut out);
        assert_eq!((out.len(), out[2].keys.as_str()), (4, "[1024 hidden]"));
        let text = serde_json::to_string(&out[0]).unwrap();
        assert_eq!(text, r#"{"at":7,"who":{"name":"alice","via":"cli"},"keys":"rm -rf"}"#);
    }

    proptest! {
        /// What a machine does not echo is nowhere, whatever else it says behind the end of the line.
        #[test]
        fn a_secret_stays_one(secret in "[a-zA-Z0-9]{4,20}", after in "\\PC{0,80}", cut in 1usize..4) {
            let (mut keys, mut out) = (Keys::default(), Vec::new());
            for part in secret.as_bytes().chunks(cut) {
                types(&mut keys, std::str::from_utf8(part).unwrap(), &mut out);
            }
            types(&mut keys, "\r", &mut out);
            keys.said(b"\r\n", &mut out);
            keys.said(after.as_bytes(), &mut out);
            keys.end(&mut out);
            prop_assert_eq!(out.len(), 1);
            let expected = format!("[{} hidden]^M", secret.len());
            prop_assert_eq!(&out[0].keys, &expected);
        }
    }
}
