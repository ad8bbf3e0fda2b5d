//! What a client is shown: the machine's own on standard output; ours in lines of their own, on the same terminal or
//! on standard error.

use std::collections::VecDeque;

use jiff::Timestamp;
use jiff::tz::TimeZone;

/// To be shown.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Piece {
    Out(Vec<u8>),
    Err(Vec<u8>),
}

/// See the module.
#[derive(Debug)]
pub(super) struct Screen {
    /// It is one. OpenSSH writes standard error past its terminal's queue: ours goes where the machine's own does.
    pub terminal: bool,
    waits: VecDeque<Piece>,
    /// The cursor is not at the beginning of a line.
    within: bool,
}

impl Screen {
    pub fn new(terminal: bool) -> Screen {
        Screen { terminal, waits: VecDeque::new(), within: false }
    }

    /// The machine's own.
    pub fn show(&mut self, bytes: Vec<u8>) {
        if let Some(last) = bytes.last() {
            self.within = *last != b'\n';
            self.waits.push_back(Piece::Out(bytes));
        }
    }

    /// In a line of its own; it may hold a stranger's words. With a time, where it is not now: Unix milliseconds.
    pub fn note(&mut self, at: Option<u64>, text: &str) {
        let time = at.and_then(|at| Timestamp::from_millisecond(i64::try_from(at).ok()?).ok());
        let time =
            time.map(|time| time.to_zoned(TimeZone::system()).strftime("%H:%M:%S ").to_string());
        let line = format!("[{}{}]", time.unwrap_or_default(), text.trim());
        let line: String = line.chars().map(|c| if c.is_control() { '·' } else { c }).collect();
        let (begin, end) = match self.terminal {
            true => (if self.within { "\r\n" } else { "" }, "\r\n"),
            false => ("", "\n"),
        };
        self.within = false;
        self.aside(format!("{begin}{line}{end}"));
    }

    /// Where the cursor is, or on lines of its own where it has several.
    pub fn say(&mut self, text: &str) {
        let lines = text.ends_with('\n');
        let begin = if self.within && lines { "\r\n" } else { "" };
        self.within = !lines;
        self.aside(format!("{begin}{text}"));
    }

    fn aside(&mut self, text: String) {
        self.waits.push_back(match self.terminal {
            true => Piece::Out(text.into_bytes()),
            false => Piece::Err(text.into_bytes()),
        });
    }

    /// Something is to be shown.
    pub fn waits(&self) -> bool {
        !self.waits.is_empty()
    }

    /// What is to be shown next.
    pub fn next(&mut self) -> Option<Piece> {
        self.waits.pop_front()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(terminal: bool) -> String {
        let mut screen = Screen::new(terminal);
        screen.show(b"login: ".to_vec());
        screen.note(None, "down: \x1b[2J");
        screen.note(None, "up");
        screen.say("To whom? ");
        screen.say("x");
        screen.say("Help\r\n");
        screen.show(Vec::new());
        let pieces = std::iter::from_fn(|| screen.next());
        let shown = pieces.map(|piece| match piece {
            Piece::Out(bytes) => String::from_utf8(bytes).unwrap(),
            Piece::Err(bytes) => format!("2>{}", String::from_utf8(bytes).unwrap()),
        });
        shown.collect::<Vec<_>>().join("|")
    }

    #[test]
    fn ours_is_in_lines_of_its_own_and_harmless() {
        let expected = "login: |\r\n[down: ·[2J]\r\n|[up]\r\n|To whom? |x|\r\nHelp\r\n";
        assert_eq!(all(true), expected);
        assert!(all(false).starts_with("login: |2>[down: ·[2J]\n|2>[up]\n|"), "{}", all(false));
        let mut screen = Screen::new(true);
        screen.note(Some(1000), "BREAK");
        let Some(Piece::Out(line)) = screen.next() else { panic!() };
        assert!(String::from_utf8(line).unwrap().ends_with(":01 BREAK]\r\n"));
    }
}
