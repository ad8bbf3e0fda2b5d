//! What comes from a telnet peer, taken apart: characters, commands, negotiations and subnegotiations (RFC 854,
//! RFC 855). Pieces may end anywhere, within a command too; what is kept of one is bounded.

/// What follows is a command.
pub(super) const IAC: u8 = 255;
/// Do not do this option.
pub(super) const DONT: u8 = 254;
/// Do this option.
pub(super) const DO: u8 = 253;
/// I do not do this option.
pub(super) const WONT: u8 = 252;
/// I do this option.
pub(super) const WILL: u8 = 251;
/// A subnegotiation begins.
pub(super) const SB: u8 = 250;
/// BREAK.
pub(super) const BRK: u8 = 243;
/// A subnegotiation ends.
pub(super) const SE: u8 = 240;

const CR: u8 = 13;
const NUL: u8 = 0;

/// Of a subnegotiation so much is kept: the longest that is of use here is a terminal server's name.
const KEPT: usize = 128;
/// A subnegotiation that has no end by then was none: characters follow again.
const ENDLESS: usize = 4096;

/// A piece of what came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Said<'a> {
    /// Characters, at least one.
    Text(&'a [u8]),
    /// A command without an option: BRK, NOP, GA …
    Command(u8),
    /// WILL, WONT, DO or DONT, and the option.
    Negotiation(u8, u8),
    /// Of an option, what was within.
    Sub(u8, &'a [u8]),
    /// So much of a subnegotiation was left out of what it says: it had no end.
    Endless(usize),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum At {
    #[default]
    Text,
    /// Behind a CR, where a NUL is no character.
    Cr,
    Iac,
    Negotiation(u8),
    Sub,
    SubIac,
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Parser {
    at: At,
    /// The option and the beginning of a subnegotiation.
    sub: Vec<u8>,
    /// How long that is, what is not kept of it too.
    long: usize,
}

impl Parser {
    /// The next piece, taken from the front of `bytes`. None: there is no whole one any more, and `bytes` is
    /// empty. `binary` (RFC 856): a NUL behind a CR is a character.
    pub fn next<'s, 'b: 's>(&'s mut self, bytes: &mut &'b [u8], binary: bool) -> Option<Said<'s>> {
        // Until a whole subnegotiation is there; anything else returns.
        loop {
            let (byte, rest) = bytes.split_first()?;
            match self.at {
                At::Text | At::Cr => {
                    if *byte == NUL && self.at == At::Cr && !binary {
                        (self.at, *bytes) = (At::Text, rest);
                        continue;
                    }
                    if *byte == IAC {
                        (self.at, *bytes) = (At::Iac, rest);
                        continue;
                    }
                    let ends = |pair: &[u8]| match pair {
                        [_, IAC] => true,
                        pair => pair == [CR, NUL] && !binary,
                    };
                    let many = bytes.windows(2).position(ends).map_or(bytes.len(), |at| at + 1);
                    let (text, rest) = bytes.split_at(many);
                    *bytes = rest;
                    self.at = if text.last() == Some(&CR) { At::Cr } else { At::Text };
                    return Some(Said::Text(text));
                }
                At::Iac => {
                    let (escaped, whole) = bytes.split_at(1);
                    *bytes = whole;
                    match *byte {
                        IAC => {
                            self.at = At::Text;
                            return Some(Said::Text(escaped));
                        }
                        WILL | WONT | DO | DONT => self.at = At::Negotiation(*byte),
                        SB => {
                            self.at = At::Sub;
                            self.sub.clear();
                            self.long = 0;
                        }
                        // One without a beginning.
                        SE => self.at = At::Text,
                        command => {
                            self.at = At::Text;
                            return Some(Said::Command(command));
                        }
                    }
                }
                At::Negotiation(verb) => {
                    (self.at, *bytes) = (At::Text, rest);
                    return Some(Said::Negotiation(verb, *byte));
                }
                At::Sub => {
                    *bytes = rest;
                    if *byte == IAC {
                        self.at = At::SubIac;
                    } else if let Some(endless) = self.keep(*byte) {
                        return Some(endless);
                    }
                }
                At::SubIac => match *byte {
                    IAC => {
                        (self.at, *bytes) = (At::Sub, rest);
                        if let Some(endless) = self.keep(IAC) {
                            return Some(endless);
                        }
                    }
                    SE => {
                        (self.at, *bytes) = (At::Text, rest);
                        // One that was cut is not understood in part.
                        if (1..=KEPT).contains(&self.long) {
                            break;
                        }
                    }
                    // Some peers forget the end of one and go on with the next command.
                    _ => self.at = At::Iac,
                },
            }
        }
        let (option, within) = self.sub.split_first()?;
        Some(Said::Sub(*option, within))
    }

    fn keep(&mut self, byte: u8) -> Option<Said<'static>> {
        self.long += 1;
        if self.long <= KEPT {
            self.sub.push(byte);
        }
        if self.long < ENDLESS {
            return None;
        }
        self.at = At::Text;
        Some(Said::Endless(self.long))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// What a piece says, characters joined: pieces may be cut anywhere.
    #[derive(Debug, PartialEq)]
    enum Own {
        Text(Vec<u8>),
        Other(String),
    }

    fn read(pieces: &[&[u8]], binary: bool) -> Vec<Own> {
        let mut parser = Parser::default();
        let mut out: Vec<Own> = Vec::new();
        for piece in pieces {
            let mut rest = *piece;
            while let Some(said) = parser.next(&mut rest, binary) {
                match (said, out.last_mut()) {
                    (Said::Text([]), _) => panic!("a piece of nothing"),
                    (Said::Text(text), Some(Own::Text(before))) => before.extend_from_slice(text),
                    (Said::Text(text), _) => out.push(Own::Text(text.to_vec())),
                    (other, _) => out.push(Own::Other(format!("{other:?}"))),
                }
            }
            assert!(rest.is_empty() && parser.sub.len() <= KEPT);
        }
        out
    }

    fn text(text: &[u8]) -> Own {
        Own::Text(text.to_vec())
    }

    fn other(said: Said<'_>) -> Own {
        Own::Other(format!("{said:?}"))
    }

    #[test]
    fn commands_are_told_from_characters() {
        let said = b"a\xff\xfb\x01b\xff\xffc\xff\xf3\xff\xfa\x2c\x6a\xff\xff\x01\xff\xf0d\xff\xf1";
        let expected = [
            text(b"a"),
            other(Said::Negotiation(WILL, 1)),
            text(b"b\xffc"),
            other(Said::Command(BRK)),
            other(Said::Sub(44, &[106, 255, 1])),
            text(b"d"),
            other(Said::Command(241)),
        ];
        assert_eq!(read(&[said], true), expected);
        let bytewise: Vec<&[u8]> = said.chunks(1).collect();
        assert_eq!(read(&bytewise, true), expected);
    }

    #[test]
    fn a_nul_behind_a_return_is_a_character_in_binary_alone() {
        assert_eq!(
            read(&[b"a\r\0b\r\n\0c\r", b"\0\0\r\xff\xff"], false),
            [text(b"a\rb\r\n\0c\r\0\r\xff")]
        );
        assert_eq!(read(&[b"a\r\0b\r", b"\0"], true), [text(b"a\r\0b\r\0")]);
    }

    #[test]
    fn a_subnegotiation_without_end_gives_the_line_back() {
        let mut said = b"\xff\xfa\x18".to_vec();
        said.extend([b'x'; ENDLESS]);
        said.extend(b"login: ");
        let read = read(&[&said], false);
        assert_eq!(read, [other(Said::Endless(ENDLESS)), text(b"xlogin: ")]);
    }

    #[test]
    fn a_long_subnegotiation_is_not_understood_in_part_and_a_cut_one_not_at_all() {
        let mut said = b"\xff\xfa\x2c".to_vec();
        said.extend([b'x'; KEPT + 1]);
        said.extend(b"\xff\xf0a\xff\xfa\x18\x01\xff\xfd\x03b");
        let expected = [text(b"a"), other(Said::Negotiation(DO, 3)), text(b"b")];
        assert_eq!(read(&[&said], false), expected);
    }

    proptest! {
        #[test]
        fn anything_is_read_the_same_wherever_it_is_cut(
            bytes in prop::collection::vec(
                prop_oneof![Just(IAC), Just(SB), Just(SE), Just(CR), Just(NUL), any::<u8>()],
                0..400,
            ),
            cut in 0_usize..400,
            binary: bool,
        ) {
            let (one, two) = bytes.split_at(cut.min(bytes.len()));
            let whole = read(&[&bytes], binary);
            prop_assert_eq!(&read(&[one, two], binary), &whole);
            prop_assert_eq!(&read(&bytes.chunks(1).collect::<Vec<_>>(), binary), &whole);
        }
    }
}
