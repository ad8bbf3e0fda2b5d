//! What is typed becomes characters for the machine and orders for koboshi: `~` at the beginning of a line, and a
//! key. Without a terminal.
//!
//! It follows OpenSSH's escape characters (ssh(1), ESCAPE CHARACTERS): the escape character counts only behind a line
//! end or as the first of all, twice it is sent once, and before any other key both are sent. So each program of
//! several within each other takes one of them away: `~~.` within `ssh` reaches us as `~.`.

use std::fmt::Write;

/// The usual escape character.
pub const TILDE: u8 = b'~';
/// A name that is typed is no longer.
const NAME: usize = 64;

/// What was typed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Key {
    /// For the machine; never empty.
    Type(Vec<u8>),
    /// Leave the line.
    Leave,
    /// Show [`help`].
    Help,
    /// Send a BREAK.
    Break,
    /// Magic SysRq with this key.
    Sysrq(u8),
    /// Show [`SYSRQ`], and wait for the key.
    SysrqMenu,
    /// Take the line.
    Take,
    /// Ask for it.
    Ask,
    /// Let go of it.
    Release,
    /// Show who is here.
    Who,
    /// Show the last lines again.
    Redraw,
    /// Draw the machine's screen as it stands.
    Screen,
    /// Stop this program, as Control-Z does outside.
    Suspend,
    /// A name is asked for: show this on a line of its own.
    Name,
    /// This is typed of the name: show it. A backspace is `\b \b`.
    Echo(Vec<u8>),
    /// The name is complete: the line goes to this person. Empty: it was given up.
    HandOver(String),
}

/// See the module.
#[derive(Debug)]
pub struct Escapes {
    escape: Option<u8>,
    state: State,
}

#[derive(Debug, PartialEq, Eq)]
enum State {
    /// Nothing was typed on this line.
    Begin,
    Within,
    Escaped,
    Sysrq,
    Name(String),
}

impl Escapes {
    /// With this escape character, or none: then all of it is for the machine.
    pub fn new(escape: Option<u8>) -> Escapes {
        Escapes { escape, state: State::Begin }
    }

    /// These were typed, however they were cut into pieces.
    pub fn typed(&mut self, bytes: &[u8], out: &mut Vec<Key>) {
        for byte in bytes {
            self.key(*byte, out);
        }
    }

    fn key(&mut self, byte: u8, out: &mut Vec<Key>) {
        match std::mem::replace(&mut self.state, State::Within) {
            State::Begin if Some(byte) == self.escape => self.state = State::Escaped,
            State::Begin | State::Within => self.pass(&[byte], out),
            State::Escaped => self.escaped(byte, out),
            State::Sysrq => {
                self.state = State::Begin;
                match byte {
                    b'?' => {
                        out.push(Key::SysrqMenu);
                        self.state = State::Sysrq;
                    }
                    byte if byte.is_ascii_alphanumeric() || byte == b' ' => {
                        out.push(Key::Sysrq(byte));
                    }
                    _given_up => {}
                }
            }
            State::Name(name) => self.name(name, byte, out),
        }
    }

    fn escaped(&mut self, byte: u8, out: &mut Vec<Key>) {
        self.state = State::Begin;
        out.push(match byte {
            b'.' => Key::Leave,
            b'?' => Key::Help,
            b'B' => Key::Break,
            b't' => Key::Take,
            b'a' => Key::Ask,
            b'r' => Key::Release,
            b'w' => Key::Who,
            b'l' => Key::Redraw,
            b'v' => Key::Screen,
            0x1a => Key::Suspend,
            b'S' => {
                self.state = State::Sysrq;
                return;
            }
            b'h' => {
                self.state = State::Name(String::new());
                Key::Name
            }
            byte if Some(byte) == self.escape => {
                self.state = State::Within;
                return self.pass(&[byte], out);
            }
            other => {
                self.state = State::Within;
                let both: Vec<u8> = self.escape.into_iter().chain([other]).collect();
                return self.pass(&both, out);
            }
        });
    }

    fn name(&mut self, mut name: String, byte: u8, out: &mut Vec<Key>) {
        match byte {
            b'\r' | b'\n' => {
                self.state = State::Begin;
                out.push(Key::HandOver(name.trim().to_string()));
            }
            // Escape, Control-C, Control-D.
            0x1b | 0x03 | 0x04 => {
                self.state = State::Begin;
                out.push(Key::HandOver(String::new()));
            }
            0x08 | 0x7f => {
                if name.pop().is_some() {
                    out.push(Key::Echo(b"\x08 \x08".to_vec()));
                }
                self.state = State::Name(name);
            }
            byte => {
                if (0x20..0x7f).contains(&byte) && name.len() < NAME {
                    name.push(char::from(byte));
                    out.push(Key::Echo(vec![byte]));
                }
                self.state = State::Name(name);
            }
        }
    }

    fn pass(&mut self, bytes: &[u8], out: &mut Vec<Key>) {
        if matches!(bytes.last(), Some(b'\r' | b'\n')) {
            self.state = State::Begin;
        }
        match out.last_mut() {
            Some(Key::Type(typed)) => typed.extend_from_slice(bytes),
            _ => out.push(Key::Type(bytes.to_vec())),
        }
    }
}

/// The help screen, for this escape character; lines end with CR LF.
pub fn help(escape: u8) -> String {
    let e = shown(escape);
    let mut help = format!("{e} at the beginning of a line, and then:\r\n");
    for (key, does) in [
        (".", "leave; the line stays on"),
        ("?", "this"),
        ("a", "ask for the line: it is yours when it is free or its holder is idle"),
        ("t", "take the line, whoever has it; he hears who took it"),
        ("r", "let go of the line, and go on looking"),
        ("h", "hand it over to somebody who looks too, by name"),
        ("w", "who is here"),
        ("l", "the last lines again"),
        ("v", "the machine's screen as it stands: the menu that was drawn an hour ago"),
        ("B", "send a BREAK"),
        ("S", "Magic SysRq, and its key: Ss syncs, Sb reboots, S? shows them all"),
        ("^Z", "stop this program (`fg` comes back)"),
    ] {
        let _a_string_takes_it = write!(help, "  {e}{key:<3} {does}\r\n");
    }
    let _a_string_takes_it = write!(help, "  {e}{e:<3} send one {e}\r\n");
    if escape == TILDE {
        help.push_str(
            "Within ssh, which takes the first ~ for itself, type one more for each ssh around: \
             ~~. leaves\r\nhere, and ~. would end that ssh. An ssh on the machine: ~~. too. \
             With --escape ^] or\r\n--escape none there is nothing to count.\r\n",
        );
    }
    help
}

/// Keys of Magic SysRq (Linux: Documentation/admin-guide/sysrq.rst) that help at a console; lines end with CR LF.
pub const SYSRQ: &str = "Magic SysRq, by BREAK and a key (Linux: kernel.sysrq has to allow it):\r\n  \
h  what it knows     s  sync disks        u  remount read-only  b  reboot at once\r\n  \
o  power off         c  crash (kdump)     e  TERM to all        i  KILL to all\r\n  \
f  OOM killer        k  SAK               l  backtrace of CPUs  w  blocked tasks\r\n  \
t  all tasks         m  memory            p  registers          r  keyboard out of raw mode\r\n  \
0-9  log level       any other key gives up\r\n";

/// `^]` for 0x1d; others as they are.
pub fn shown(byte: u8) -> String {
    match byte {
        0..0x20 => format!("^{}", char::from(byte ^ 0x40)),
        _ => char::from(byte).to_string(),
    }
}

/// An escape character as people write it: `~`, `^]`, `none`.
///
/// # Errors
/// It is none, in words.
pub fn parse(text: &str) -> Result<Option<u8>, String> {
    match *text.as_bytes() {
        [byte] if byte.is_ascii_graphic() => Ok(Some(byte)),
        [b'^', byte @ (b'@'..=b'_' | b'a'..=b'z')] => match byte & 0x1f {
            b'\r' | b'\n' => Err("that is the end of a line".to_string()),
            byte => Ok(Some(byte)),
        },
        _ if text == "none" => Ok(None),
        _ => Err("one character, ^ and a letter, or none".to_string()),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn all(escape: Option<u8>, typed: &[u8]) -> Vec<Key> {
        let (mut escapes, mut out) = (Escapes::new(escape), Vec::new());
        escapes.typed(typed, &mut out);
        out
    }

    fn types(bytes: &[u8]) -> Key {
        Key::Type(bytes.to_vec())
    }

    #[test]
    fn only_at_the_beginning_of_a_line() {
        let tilde = Some(TILDE);
        assert_eq!(all(tilde, b"~."), [Key::Leave]);
        assert_eq!(all(tilde, b"ls ~.\r~."), [types(b"ls ~.\r"), Key::Leave]);
        assert_eq!(all(tilde, b"a\n~?~B~t~r~w~l~v"), {
            use Key::{Break, Help, Redraw, Release, Screen, Take, Who};
            [types(b"a\n"), Help, Break, Take, Release, Who, Redraw, Screen]
        });
        assert_eq!(all(tilde, b"\r~~."), [types(b"\r~.")], "for the ssh within");
        assert_eq!(all(tilde, b"~~~."), [types(b"~~.")]);
        assert_eq!(all(tilde, b"~/bin\r~\r~."), [types(b"~/bin\r~\r"), Key::Leave]);
        assert_eq!(all(None, b"~.\r~."), [types(b"~.\r~.")]);
        assert_eq!(all(Some(0x1d), b"~.\r\x1d."), [types(b"~.\r"), Key::Leave]);
    }

    #[test]
    fn sysrq_and_names() {
        let tilde = Some(TILDE);
        assert_eq!(all(tilde, b"~Sb"), [Key::Sysrq(b'b')]);
        assert_eq!(all(tilde, b"~S?s~."), [Key::SysrqMenu, Key::Sysrq(b's'), Key::Leave]);
        assert_eq!(all(tilde, b"~S\x1b~a"), [Key::Ask], "given up");
        let keys = all(tilde, b"~hbo\x7fb\r~a");
        let echo = |bytes: &[u8]| Key::Echo(bytes.to_vec());
        let expected = [
            Key::Name,
            echo(b"b"),
            echo(b"o"),
            echo(b"\x08 \x08"),
            echo(b"b"),
            Key::HandOver("bb".to_string()),
            Key::Ask,
        ];
        assert_eq!(keys, expected);
        assert_eq!(all(tilde, b"~h\x03x"), [Key::Name, Key::HandOver(String::new()), types(b"x")]);
    }

    #[test]
    fn the_escape_character_is_written_in_words() {
        assert_eq!(parse("~"), Ok(Some(b'~')));
        assert_eq!((parse("^]"), parse("^a")), (Ok(Some(0x1d)), Ok(Some(1))));
        assert_eq!(parse("none"), Ok(None));
        for wrong in ["", "ab", "^", "^M", "^j", "^~", "é", " "] {
            let parsed = parse(wrong);
            assert!(parsed.is_err() || wrong == "^", "{wrong:?}: {parsed:?}");
        }
        assert!(help(TILDE).contains("~~. leaves") && help(0x1d).starts_with("^] at"));
    }

    proptest! {
        /// However it is cut: the same keys, and every character is somewhere where nothing is an escape.
        #[test]
        fn cut_anywhere(typed in prop::collection::vec(prop_oneof![Just(b'~'), Just(b'\r'), Just(b'S'), Just(b'h'), any::<u8>()], 0..60), at in 0usize..60) {
            let at = at.min(typed.len());
            let (mut escapes, mut cut) = (Escapes::new(Some(TILDE)), Vec::new());
            escapes.typed(&typed[..at], &mut cut);
            escapes.typed(&typed[at..], &mut cut);
            prop_assert_eq!(cut, all(Some(TILDE), &typed));
            let plain = if typed.is_empty() { vec![] } else { vec![Key::Type(typed.clone())] };
            prop_assert_eq!(all(None, &typed), plain);
        }
    }
}
