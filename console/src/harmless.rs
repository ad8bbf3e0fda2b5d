//! What a machine sends, without what harms or confuses a terminal that shows it: strings (window titles, the
//! clipboard of OSC 52, DCS), questions that a terminal answers as if its user had typed (answerback, device
//! attributes, cursor reports), window orders, a character repeated without measure, C1 controls in one byte.
//!
//! ECMA-48 §5; XTerm's `ctlseqs`. A string ends at the end of its line at the latest: noise that looks like
//! the beginning of one must not hide what a machine says from then on.

/// A sequence is never longer; longer ones are noise.
const SEQUENCE: usize = 64;
/// A string is never longer.
const STRING: usize = 4096;
/// A character is repeated no more often by one sequence: a line of a wide terminal.
const REPEAT: u32 = 200;

/// See the module.
#[derive(Debug, Clone, Default)]
pub(crate) struct Harmless {
    state: State,
    /// The sequence so far, its ESC included.
    sequence: Vec<u8>,
    /// Bytes of this string.
    string: usize,
    /// Bytes that this UTF-8 character still has.
    more: u8,
    /// It may be a C1 control in UTF-8.
    c2: bool,
    /// A scroll region was set and not unset.
    region: bool,
    /// It may be the other screen's.
    other: bool,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum State {
    #[default]
    Plain,
    /// Behind ESC and intermediates.
    Escape,
    Control,
    String,
    /// Behind an ESC in a string.
    StringEscape,
}

impl Harmless {
    /// Adds what may be shown of these bytes, the next ones that came.
    pub fn pass(&mut self, bytes: &[u8], out: &mut Vec<u8>) {
        let mut rest = bytes;
        while let Some((&byte, after)) = rest.split_first() {
            if self.state == State::Plain && self.more == 0 && !self.c2 {
                let plain = |byte: &u8| matches!(byte, b' '..=b'~' | b'\r' | b'\n');
                let many = rest.iter().position(|byte| !plain(byte)).unwrap_or(rest.len());
                let (now, later) = rest.split_at(many);
                out.extend_from_slice(now);
                rest = later;
                if many > 0 {
                    continue;
                }
            }
            self.byte(byte, out);
            rest = after;
        }
    }

    /// Whether it is between characters.
    pub fn is_plain(&self) -> bool {
        self.state == State::Plain
    }

    /// Whether the terminal scrolls only a part of its screen.
    pub fn has_region(&self) -> bool {
        self.region
    }

    fn byte(&mut self, byte: u8, out: &mut Vec<u8>) {
        match (self.state, byte) {
            (State::String | State::StringEscape, _) => self.in_string(byte, out),
            (_, 0x1b) => {
                self.more = 0;
                self.c2 = false;
                self.sequence.clear();
                self.sequence.push(byte);
                self.state = State::Escape;
            }
            (State::Plain, _) => self.plain(byte, out),
            // They end a sequence that is under way.
            (_, 0x18 | 0x1a) => self.state = State::Plain,
            // Answerback.
            (_, 0x05) => {}
            // Controls within a sequence are done at once.
            (_, 0..=0x1f) => out.push(byte),
            (State::Escape, _) => self.escape(byte, out),
            (State::Control, 0x20..=0x3f) => self.grow(byte),
            (State::Control, 0x40..=0x7e) => self.control(byte, out),
            (State::Control, _) => self.state = State::Plain,
        }
    }

    fn plain(&mut self, byte: u8, out: &mut Vec<u8>) {
        if std::mem::take(&mut self.c2) {
            match byte {
                0x80..=0x9f => return,
                0xa0..=0xbf => return out.extend_from_slice(&[0xc2, byte]),
                _ => {}
            }
        }
        if self.more > 0 && matches!(byte, 0x80..=0xbf) {
            self.more -= 1;
            return out.push(byte);
        }
        self.more = 0;
        match byte {
            0x05 | 0x80..=0x9f => {}
            0xc2 => self.c2 = true,
            _ => {
                self.more = match byte {
                    0xc3..=0xdf => 1,
                    0xe0..=0xef => 2,
                    0xf0..=0xf4 => 3,
                    _ => 0,
                };
                out.push(byte);
            }
        }
    }

    fn in_string(&mut self, byte: u8, out: &mut Vec<u8>) {
        self.string += 1;
        match (self.state, byte) {
            (State::StringEscape, b'\\') => self.state = State::Plain,
            (State::StringEscape, _) => {
                self.state = State::Escape;
                self.sequence = vec![0x1b];
                self.byte(byte, out);
            }
            (_, 0x1b) => self.state = State::StringEscape,
            (_, 0x07 | 0x18 | 0x1a) => self.state = State::Plain,
            (_, b'\r' | b'\n') => {
                self.state = State::Plain;
                out.push(byte);
            }
            _ if self.string >= STRING => self.state = State::Plain,
            _ => {}
        }
    }

    fn grow(&mut self, byte: u8) {
        if self.sequence.len() < SEQUENCE {
            self.sequence.push(byte);
        } else {
            self.state = State::Plain;
        }
    }

    fn escape(&mut self, byte: u8, out: &mut Vec<u8>) {
        let first = self.sequence.len() == 1;
        match byte {
            b'[' if first => {
                self.sequence.push(byte);
                self.state = State::Control;
            }
            // DCS, SOS, OSC, PM, APC; and the title of `screen`.
            b'P' | b'X' | b']' | b'^' | b'_' | b'k' if first => {
                self.state = State::String;
                self.string = 0;
            }
            0x20..=0x2f => self.grow(byte),
            // DECID is answered.
            b'Z' if first => self.state = State::Plain,
            0x30..=0x7e => {
                self.state = State::Plain;
                if first && byte == b'c' {
                    (self.region, self.other) = (false, false);
                }
                out.append(&mut self.sequence);
                out.push(byte);
            }
            _ => self.state = State::Plain,
        }
    }

    fn control(&mut self, byte: u8, out: &mut Vec<u8>) {
        self.state = State::Plain;
        let inner = self.sequence.get(2..).unwrap_or_default();
        let odd = inner.iter().any(|byte| matches!(byte, 0x20..=0x2f | b'<'..=b'?'));
        match byte {
            // Device attributes, reports, terminal parameters, window orders, requests of modes.
            b'c' | b'n' | b'x' | b't' => return,
            b'p' | b'q' | b'y' | b'w'
                if inner.iter().any(|byte| matches!(byte, b'$' | b'>' | b'*')) =>
            {
                return;
            }
            b'b' => {
                let many = std::str::from_utf8(inner).ok().and_then(|many| many.parse().ok());
                if !inner.is_empty() && many.is_none_or(|many: u32| many > REPEAT) {
                    return;
                }
            }
            b'r' if !odd => self.region = self.other || !inner.is_empty(),
            b'h' | b'l' if odd => self.other |= self.region,
            _ => {}
        }
        out.append(&mut self.sequence);
        out.push(byte);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn passed(bytes: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        Harmless::default().pass(bytes, &mut out);
        out
    }

    #[test]
    fn attacks_are_taken_out_and_the_rest_stays() {
        for (sent, shown) in [
            ("\x1b[1;31mred\x1b[0m\r\n", "\x1b[1;31mred\x1b[0m\r\n"),
            ("a\x1b]0;title\x07b", "ab"),
            ("a\x1b]52;c;cm0gLXJmIC8K\x1b\\b", "ab"),
            ("a\x05b\x1b[cc\x1b[>cd\x1b[6ne\x1bZf", "abcdef"),
            ("a\x1bP$q\"p\x1b\\b\x1b_apc\x1b\\c\x1b^pm\x1b\\d", "abcd"),
            ("a\x1b[21tb\x1b[8;1;1tc", "abc"),
            ("a\x1b[65535bb\x1b[3bc", "ab\x1b[3bc"),
            ("a\u{9d}0;title\u{9c}b", "a0;titleb"),
            ("\u{e9}\u{30b3}\u{1f600}", "\u{e9}\u{30b3}\u{1f600}"),
            ("a\x1b]0;no end\r\nlogin: ", "a\r\nlogin: "),
            ("\x1b(0lqk\x1b(B", "\x1b(0lqk\x1b(B"),
            ("\x1bktitle\x1b\\a", "a"),
        ] {
            assert_eq!(String::from_utf8_lossy(&passed(sent.as_bytes())), shown, "{sent:?}");
        }
        assert_eq!(passed(b"a\x9d0;title\x07b"), b"a0;title\x07b");
    }

    proptest! {
        #[test]
        fn split_anywhere_it_is_the_same(
            bytes in prop::collection::vec(prop_oneof![any::<u8>(), prop::sample::select(&b"\x1b[]P\\;1r\x07\xc2\x9b"[..])], 0..300),
            cut in 0usize..300,
        ) {
            let (one, two) = bytes.split_at(cut.min(bytes.len()));
            let mut out = Vec::new();
            let mut harmless = Harmless::default();
            harmless.pass(one, &mut out);
            harmless.pass(two, &mut out);
            prop_assert_eq!(&out, &passed(&bytes));
            prop_assert!(out.len() <= bytes.len());
            prop_assert!(!out.contains(&0x05) && !out.windows(2).any(|two| two == b"\x1b]"));
        }
    }
}
