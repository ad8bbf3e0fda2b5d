//! What a machine sends, for the terminal of a person: characters, colours and the cursor pass, what would act on the
//! terminal itself does not. Without a terminal.
//!
//! A machine's console is a stranger's (it shows what anybody writes into a log there), and terminals obey it: a title
//! that is set and asked back is typed into the shell of whoever looks (xterm's `CSI 21 t`), `ENQ` answers back, OSC 52
//! writes into the clipboard, `CSI 5 i` prints. So what passes is listed here (ECMA-48 5th edition, xterm's
//! ctlseqs), and the rest is left out whole. The terminal is taken for a UTF-8 one.

use std::collections::BTreeSet;

/// A control sequence is no longer.
const SEQUENCE: usize = 64;
/// A string (a title, a picture) that has no end by then is none.
const STRING: usize = 8192;
/// No number in a sequence is larger: some terminals do as they are told four billion times.
const NUMBER: u32 = 9999;

/// See the module.
#[derive(Debug, Default)]
pub struct Filter {
    state: State,
    /// Of a sequence or a character that is not complete.
    held: Vec<u8>,
    /// Modes that were set and not reset, `CSI ? n h`.
    modes: BTreeSet<u32>,
    answers: bool,
    left_out: u64,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum State {
    #[default]
    Ground,
    /// Within a character of so many bytes.
    Character(usize),
    Escape,
    /// Behind `ESC` and bytes of 0x20..0x30.
    Intermediate,
    Control,
    /// Within a string; so much of it came.
    String(usize),
    /// Behind an `ESC` within a string.
    StringEscape,
}

impl Filter {
    /// Nothing came yet.
    pub fn new() -> Filter {
        Filter::default()
    }

    /// Whether the person types: then questions to his terminal pass, for its answer goes to the machine. A mere
    /// viewer's terminal would answer into nowhere.
    pub fn answers(&mut self, answers: bool) {
        self.answers = answers;
    }

    /// Sequences that were left out.
    pub fn left_out(&self) -> u64 {
        self.left_out
    }

    /// These came: what of it the terminal shall see.
    pub fn pass(&mut self, bytes: &[u8], out: &mut Vec<u8>) {
        for byte in bytes {
            self.byte(*byte, out);
        }
    }

    /// What brings the terminal back to what a shell expects.
    pub fn farewell(&self) -> Vec<u8> {
        // Behind each mode that is still on, what no mode is: colours, insertion, character sets, the scrolling region
        // (which moves the cursor).
        let mut out = Vec::new();
        for mode in &self.modes {
            // These three are on in a terminal as it begins.
            let end = if matches!(mode, 7 | 25) { 'h' } else { 'l' };
            out.extend_from_slice(format!("\x1b[?{mode}{end}").as_bytes());
        }
        out.extend_from_slice(
            b"\x1b[0m\x1b[4l\x1b[20l\x1b>\x1b(B\x0f\x1b[?7h\x1b[?25h\x1b7\x1b[r\x1b8",
        );
        out
    }

    fn byte(&mut self, byte: u8, out: &mut Vec<u8>) {
        match self.state {
            State::Ground => self.ground(byte, out),
            State::Character(whole) => self.character(byte, whole, out),
            State::Escape => self.escape(byte, out),
            State::Intermediate => match byte {
                0x20..0x30 if self.held.len() < SEQUENCE => self.held.push(byte),
                0x30..0x7f => self.designated(byte, out),
                _ => self.broken(byte, out),
            },
            State::Control => match byte {
                0x20..0x40 if self.held.len() < SEQUENCE => self.held.push(byte),
                0x40..0x7f => self.control(byte, out),
                _ => self.broken(byte, out),
            },
            State::String(many) => match byte {
                0x07 => self.state = State::Ground,
                0x1b => self.state = State::StringEscape,
                // No title has a line end in it: it was noise, or a machine that was switched off in the middle.
                0..0x20 => {
                    self.state = State::Ground;
                    self.ground(byte, out);
                }
                _ if many >= STRING => self.state = State::Ground,
                _ => self.state = State::String(many + 1),
            },
            State::StringEscape => match byte {
                b'\\' => self.state = State::Ground,
                _ => self.escape(byte, out),
            },
        }
    }

    fn ground(&mut self, byte: u8, out: &mut Vec<u8>) {
        match byte {
            // BEL to SI: what moves the cursor, rings, or selects a character set.
            0x07..=0x0f | 0x20..0x7f => out.push(byte),
            0x1b => self.state = State::Escape,
            // ENQ is answered by a text that the terminal keeps. NUL and DEL are padding of old.
            0..0x20 | 0x7f => {}
            0xc2..0xe0 => self.begins(byte, 2),
            0xe0..0xf0 => self.begins(byte, 3),
            0xf0..0xf5 => self.begins(byte, 4),
            // No UTF-8. Among them are the C1 controls, of one byte.
            _ => out.push(b'?'),
        }
    }

    fn begins(&mut self, byte: u8, whole: usize) {
        self.held.clear();
        self.held.push(byte);
        self.state = State::Character(whole);
    }

    fn character(&mut self, byte: u8, whole: usize, out: &mut Vec<u8>) {
        if !(0x80..0xc0).contains(&byte) {
            out.push(b'?');
            self.state = State::Ground;
            return self.ground(byte, out);
        }
        self.held.push(byte);
        if self.held.len() < whole {
            return;
        }
        self.state = State::Ground;
        match std::str::from_utf8(&self.held) {
            // U+0080..U+009F are controls too, `CSI` and `OSC` among them.
            Ok(text) if !text.chars().any(char::is_control) => out.extend_from_slice(&self.held),
            _ => out.push(b'?'),
        }
    }

    fn escape(&mut self, byte: u8, out: &mut Vec<u8>) {
        self.state = State::Ground;
        self.held.clear();
        match byte {
            b'[' => self.state = State::Control,
            // OSC, DCS, SOS, PM, APC.
            b']' | b'P' | b'X' | b'^' | b'_' => {
                self.left_out += 1;
                self.state = State::String(0);
            }
            0x20..0x30 => {
                self.held.push(byte);
                self.state = State::Intermediate;
            }
            // Save and restore the cursor, index, next line, tab, reverse index, keypad.
            b'7' | b'8' | b'D' | b'E' | b'H' | b'M' | b'=' | b'>' => {
                out.extend_from_slice(&[0x1b, byte]);
            }
            // A full reset forgets what scrolled away in some terminals. Firmware means a clear screen by it.
            b'c' => out.extend_from_slice(b"\x1b[!p\x1b[H\x1b[2J"),
            b'\\' => {}
            0x30..0x7f => self.left_out += 1,
            _ => self.broken(byte, out),
        }
    }

    /// A sequence ended where it could not: what came instead counts.
    fn broken(&mut self, byte: u8, out: &mut Vec<u8>) {
        self.left_out += 1;
        self.state = State::Ground;
        self.ground(byte, out);
    }

    /// `ESC`, intermediate bytes, a final one: character sets.
    fn designated(&mut self, last: u8, out: &mut Vec<u8>) {
        self.state = State::Ground;
        match (self.held.as_slice(), last) {
            // ASCII, line drawing, British, Linux's own.
            ([set @ (b'(' | b')')], b'B' | b'0' | b'A' | b'U') => {
                out.extend_from_slice(&[0x1b, *set, last]);
            }
            _ => self.left_out += 1,
        }
    }

    /// `CSI`, parameters, intermediate bytes, a final one.
    fn control(&mut self, last: u8, out: &mut Vec<u8>) {
        self.state = State::Ground;
        if !self.may(last) {
            self.left_out += 1;
            return;
        }
        out.extend_from_slice(b"\x1b[");
        out.extend_from_slice(&self.held);
        out.push(last);
    }

    fn may(&mut self, last: u8) -> bool {
        let split = self.held.iter().position(|byte| *byte < 0x30).unwrap_or(self.held.len());
        let (parameters, intermediate) = self.held.split_at(split);
        let (private, numbers) = match parameters {
            [mark @ 0x3c..0x40, rest @ ..] => (Some(*mark), rest),
            all => (None, all),
        };
        let mut parsed = Vec::new();
        for number in numbers.split(|byte| matches!(byte, b';' | b':')) {
            let mut value = 0u32;
            for digit in number {
                if !digit.is_ascii_digit() {
                    return false;
                }
                value = value.saturating_mul(10).saturating_add(u32::from(digit - b'0'));
            }
            parsed.push(value);
        }
        if parsed.iter().any(|number| *number > NUMBER) {
            return false;
        }
        let first = parsed.first().copied().unwrap_or(0);
        match (private, intermediate, last) {
            // Moving, erasing, inserting, deleting, repeating, tabs, colours.
            (None, [], b'@'..=b'I' | b'K'..=b'M' | b'P' | b'S' | b'X' | b'Z') => true,
            (None, [], b'`' | b'a' | b'b' | b'd'..=b'g' | b'm' | b'r' | b's' | b'u') => true,
            // What scrolled away stays.
            (None, [], b'J') => first != 3,
            (Some(b'?'), [], b'J' | b'K') => true,
            // With more numbers it begins to follow the mouse.
            (None, [], b'T') => parsed.len() <= 1,
            // Insert, line feed. 2 locks the keyboard.
            (None, [], b'h' | b'l') => parsed.iter().all(|mode| matches!(mode, 4 | 20)),
            (Some(b'?'), [], b'h' | b'l') => {
                let may = parsed.iter().all(|mode| self.answers && reports(*mode) || draws(*mode));
                if may {
                    // Wrapping and the cursor are what a terminal begins with.
                    for mode in parsed {
                        match (last == b'h') != matches!(mode, 7 | 25) {
                            true => self.modes.insert(mode),
                            false => self.modes.remove(&mode),
                        };
                    }
                }
                may
            }
            // How the cursor looks; soft reset.
            (None, b" ", b'q') | (None, b"!", b'p') => true,
            // Questions: status and place of the cursor, what kind of terminal, which mode.
            (None, [], b'n') => self.answers && matches!(first, 5 | 6),
            (None | Some(b'>'), [], b'c') => self.answers && first == 0,
            (None | Some(b'?'), b"$", b'p') => self.answers,
            _ => false,
        }
    }
}

/// Modes of what is drawn: cursor keys, reverse, origin, wrapping, blinking, cursor, the other screen, paste,
/// drawing at once.
fn draws(mode: u32) -> bool {
    matches!(mode, 1 | 5 | 6 | 7 | 12 | 25 | 45 | 47 | 1047 | 1048 | 1049 | 2004 | 2026)
}

/// Modes in which the terminal types by itself: mouse, focus.
fn reports(mode: u32) -> bool {
    matches!(mode, 9 | 1000 | 1002 | 1003 | 1004 | 1005 | 1006 | 1015)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn passed(bytes: &[u8]) -> String {
        let (mut filter, mut out) = (Filter::new(), Vec::new());
        filter.pass(bytes, &mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn what_draws_passes_as_it_is() {
        for bytes in [
            "login: ",
            "\x1b[2J\x1b[01;31mERROR\x1b[0m\r\n\t\x07\x08",
            "\x1b[38;2;1;2;3mgrün 漢字 🙂 ─┐\x1b[K",
            "\x1b[?25l\x1b[?1049h\x1b[10;20H\x1b[?25h\x1b[?1049l",
            "\x1b(0lqk\x1b(B\x0e\x0f\x1b7\x1b8\x1b[3;20r\x1bM\x1b[2 q\x1b[!p",
        ] {
            assert_eq!(passed(bytes.as_bytes()), bytes);
        }
    }

    #[test]
    fn what_acts_on_the_terminal_does_not() {
        for attack in [
            &b"\x1b]0;rm -rf /\x07"[..],
            b"\x1b]52;c;ZXZpbA==\x1b\\",
            b"\x1b[21t\x1b[8;1;1t",
            b"\x05\x1bZ\x1b[c\x1b[>c\x1b[6n\x1b[?6n",
            b"\x1bP$q\"p\x1b\\\x1bP0;1|17/6C\x1b\\",
            b"\x1b[5i\x1b[4i\x1b[?5i",
            b"\x1b[2h\x1b[?1003h\x1b[?1000;25h",
            b"\x1b[3J\x1b[>4;2m\x1b[>1u\x1b[?2026$p\x1b[>q",
            b"\x1b[99999999b\x1b[1;4294967297H",
            b"\x1b_Gf=32\x1b\\\x1b^pm\x1b\\\x1bXsos\x1b\\",
            b"\x1b%@\x1b(K\x1b#8\x1bn\x1bl",
            b"\x1b]8;;http://evil/\x1b\\\x1b]8;;\x1b\\",
        ] {
            assert_eq!(passed(attack), "", "{attack:?}");
        }
        assert_eq!(passed(b"\x9b21t \x9d0;x\x07"), "?21t ?0;x\x07", "C1 of one byte");
        assert_eq!(passed("\u{9b}21t\u{9d}".as_bytes()), "?21t?", "and in UTF-8");
        assert_eq!(passed(b"\xe2\x9b[21t \xc3"), "?[21t ", "no character at all");
        assert_eq!(passed(b"\x1b]0;cut off\r\nlogin: "), "\r\nlogin: ");
        assert_eq!(passed(b"\x1b[3\x1b[1mbold"), "\x1b[1mbold", "begun anew");
        assert_eq!(passed(b"\x1bc"), "\x1b[!p\x1b[H\x1b[2J");
    }

    #[test]
    fn who_types_has_a_terminal_that_answers() {
        let (mut filter, mut out) = (Filter::new(), Vec::new());
        filter.answers(true);
        let asks = b"\x1b[6n\x1b[c\x1b[?1000h\x1b[?1006h\x1b[?2004h\x1b[?1049h\x1b[?7l";
        filter.pass(asks, &mut out);
        assert_eq!(out, asks);
        let farewell = String::from_utf8(filter.farewell()).unwrap();
        let end = "\x1b[?7h\x1b[?1000l\x1b[?1006l\x1b[?1049l\x1b[?2004l\x1b[0m";
        assert!(farewell.starts_with(end), "{farewell:?}");
        out.clear();
        filter.pass(b"\x1b[?1000l\x1b[?1006l\x1b[?2004l\x1b[?1049l\x1b[?7h\x1b[21t", &mut out);
        assert!(filter.farewell().starts_with(b"\x1b[0m"));
        assert_eq!(filter.left_out(), 1);
    }

    fn hostile() -> impl Strategy<Value = Vec<u8>> {
        let part = prop_oneof![
            Just(b"\x1b[".to_vec()),
            Just(b"\x1b]".to_vec()),
            Just(b"\x1bP".to_vec()),
            Just("\u{9b}".as_bytes().to_vec()),
            "[0-9;?>$ ]{0,6}[@-~]".prop_map(String::into_bytes),
            prop::collection::vec(any::<u8>(), 0..4),
        ];
        prop::collection::vec(part, 0..40).prop_map(|parts| parts.concat())
    }

    proptest! {
        /// Cut anywhere it is the same, it is UTF-8 but for an end that is cut, and what passed passes again.
        #[test]
        fn cut_anywhere_and_safe(bytes in hostile(), at in 0usize..200) {
            let at = at.min(bytes.len());
            let (mut filter, mut cut) = (Filter::new(), Vec::new());
            filter.pass(&bytes[..at], &mut cut);
            filter.pass(&bytes[at..], &mut cut);
            let whole = passed(&bytes);
            prop_assert_eq!(&String::from_utf8(cut).unwrap(), &whole);
            prop_assert!(filter.held.len() <= SEQUENCE + 1);
            prop_assert_eq!(&passed(whole.as_bytes()), &whole);
            let controls = ['\u{5}', '\u{90}', '\u{9b}', '\u{9d}'];
            prop_assert!(!whole.contains(controls), "{:?}", whole);
            for opener in ["\x1b]", "\x1bP", "\x1b_", "\x1b^", "\x1bX", "\x1bZ"] {
                prop_assert!(!whole.contains(opener), "{:?}", whole);
            }
        }
    }
}
