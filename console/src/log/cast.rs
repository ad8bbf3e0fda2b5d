//! A line's log as an asciicast, version 2: a header, then an event a line, for `asciinema play` and the
//! players of browsers (<https://docs.asciinema.org/manual/asciicast/v2/>). Marks are its markers.

use serde_json::json;

use crate::harmless::Harmless;
use crate::scrollback::Mark;

/// See the module.
#[derive(Debug, Default)]
pub struct Cast {
    begun: Option<u64>,
    harmless: Harmless,
    /// Of a character that is not whole yet.
    half: Vec<u8>,
    last: u64,
}

impl Cast {
    /// The machine said this then, Unix milliseconds: what is to be written. What would harm who plays it is
    /// left out.
    pub fn came(&mut self, title: &str, at: u64, bytes: &[u8]) -> String {
        let mut out = self.begin(title, at);
        let mut passed = std::mem::take(&mut self.half);
        self.harmless.pass(bytes, &mut passed);
        if let Err(why) = std::str::from_utf8(&passed)
            && why.error_len().is_none()
        {
            self.half = passed.split_off(why.valid_up_to());
        }
        if !passed.is_empty() {
            out += &self.event(at, "o", &String::from_utf8_lossy(&passed));
        }
        out
    }

    /// This happened.
    pub fn mark(&mut self, title: &str, at: u64, mark: &Mark) -> String {
        let out = self.begin(title, at);
        let text: String = mark.to_string().chars().filter(|c| !c.is_control()).collect();
        out + &self.event(at, "m", &text)
    }

    fn begin(&mut self, title: &str, at: u64) -> String {
        if self.begun.is_some() {
            return String::new();
        }
        self.begun = Some(at);
        let header = json!({
            "version": 2, "width": 80, "height": 24, "timestamp": at / 1000, "title": title,
            "env": { "TERM": "xterm-256color" },
        });
        format!("{header}\n")
    }

    /// Times never go back, whatever the clock did.
    fn event(&mut self, at: u64, code: &str, data: &str) -> String {
        let since = at.saturating_sub(self.begun.unwrap_or(at)).max(self.last);
        self.last = since;
        format!("[{}.{:03},{},{}]\n", since / 1000, since % 1000, json!(code), json!(data))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    #[test]
    fn it_is_what_players_read() {
        let mut cast = Cast::default();
        let mut out = cast.came("m01", 1_800_000_000_500, b"BIOS \xe3\x82");
        out += &cast.came("m01", 1_800_000_001_750, b"\xb3\x1b[2J\x1b]52;c;YQ==\x07\xff\r\n");
        out += &cast.mark("m01", 1_800_000_001_000, &Mark::Break);
        let mut lines = out.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
        let head = lines.next().unwrap();
        assert_eq!(head["version"], 2);
        assert_eq!((&head["width"], &head["height"]), (&json!(80), &json!(24)));
        assert_eq!(head["timestamp"], 1_800_000_000);
        let events: Vec<_> = lines.collect();
        assert_eq!(events[0], json!([0.0, "o", "BIOS "]));
        assert_eq!(events[1], json!([1.25, "o", "\u{30b3}\u{1b}[2J\u{fffd}\r\n"]));
        assert_eq!(events[2], json!([1.25, "m", "BREAK"]));
    }
}
