//! What a terminal would show of the bytes of a line, as text: escape sequences (ECMA-48, and what xterm adds)
//! are taken out, wherever the bytes are split. What moves the cursor elsewhere is told as such: firmware draws
//! its menus without a single newline.
//!
//! Bytes of 0x80 and more are text: 0x9b is the second half of many a letter in UTF-8, and no CSI.

/// A sequence that goes on for longer is none: noise that looks like its beginning must not swallow what
/// comes behind it.
const CONTROL_MAX: u16 = 64;
/// The same of strings: window titles, and whatever else a terminal is told.
const STRING_MAX: u16 = 512;

/// What some bytes are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Sign<'a> {
    /// Printable bytes and tabs, never none.
    Text(&'a [u8]),
    /// The next line.
    Newline,
    /// Back to the beginning of the line: what follows is written over it.
    Return,
    /// One to the left.
    Back,
    /// To another place of the screen.
    Moved,
}

/// Takes escape sequences out.
#[derive(Debug, Clone, Default)]
pub(crate) struct Plain {
    within: Within,
    /// Bytes of the sequence so far.
    length: u16,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum Within {
    #[default]
    Text,
    /// Behind ESC.
    Escape,
    /// Behind ESC and an intermediate byte: `ESC ( B`.
    Charset,
    /// Behind `ESC [`.
    Control,
    /// A title, or another string, until BEL or `ESC \`.
    String,
    /// Behind an ESC within a string.
    StringEnd,
}

impl Plain {
    /// Reads on.
    pub fn read<'a>(&mut self, mut bytes: &'a [u8], mut each: impl FnMut(Sign<'a>)) {
        while let Some((first, rest)) = bytes.split_first() {
            if self.within == Within::Text {
                let text = bytes.iter().position(|byte| !is_text(*byte)).unwrap_or(bytes.len());
                if text > 0 {
                    let (text, rest) = bytes.split_at(text);
                    each(Sign::Text(text));
                    bytes = rest;
                    continue;
                }
            }
            // A byte that ends a sequence without belonging to it is read once more, as what it is.
            if self.take(*first, &mut each) {
                bytes = rest;
            }
        }
    }

    /// One byte; whether it is done with.
    fn take<'a>(&mut self, byte: u8, each: &mut impl FnMut(Sign<'a>)) -> bool {
        self.length = self.length.saturating_add(1);
        match self.within {
            Within::Text => match byte {
                0x1b => self.now(Within::Escape),
                b'\n' | 0x0b | 0x0c => each(Sign::Newline),
                b'\r' => each(Sign::Return),
                0x08 => each(Sign::Back),
                _ => {}
            },
            Within::Escape => match byte {
                0x1b => {}
                b'[' => self.now(Within::Control),
                b']' | b'P' | b'X' | b'^' | b'_' => self.now(Within::String),
                0x20..=0x2f => self.now(Within::Charset),
                b'D' | b'E' | b'M' | b'c' => {
                    each(Sign::Moved);
                    self.now(Within::Text);
                }
                0x30..=0x7e => self.now(Within::Text),
                _ => return self.give_up(),
            },
            Within::Charset => match byte {
                0x20..=0x2f if self.length < CONTROL_MAX => {}
                0x30..=0x7e => self.now(Within::Text),
                _ => return self.give_up(),
            },
            Within::Control => match byte {
                0x20..=0x3f if self.length < CONTROL_MAX => {}
                0x40..=0x7e => {
                    match byte {
                        // Up, down, next and previous line, to a row and column, and a screen that is wiped.
                        b'A' | b'B' | b'E' | b'F' | b'H' | b'd' | b'f' | b'J' => each(Sign::Moved),
                        // To the right, or to a column: a gap between words.
                        b'C' | b'G' => each(Sign::Text(b" ")),
                        _ => {}
                    }
                    self.now(Within::Text);
                }
                _ => return self.give_up(),
            },
            Within::String => match byte {
                0x07 => self.now(Within::Text),
                0x1b => self.within = Within::StringEnd,
                b'\r' | b'\n' => return self.give_up(),
                _ if self.length >= STRING_MAX => self.now(Within::Text),
                _ => {}
            },
            Within::StringEnd => {
                self.now(if byte == b'\\' { Within::Text } else { Within::Escape });
                return byte == b'\\';
            }
        }
        true
    }

    fn now(&mut self, within: Within) {
        self.within = within;
        self.length = 0;
    }

    fn give_up(&mut self) -> bool {
        self.now(Within::Text);
        false
    }
}

fn is_text(byte: u8) -> bool {
    (byte >= 0x20 && byte != 0x7f) || byte == b'\t'
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// As one text: `|` next line, `<` return, `^` back, `@` moved.
    fn shown(chunks: &[&[u8]]) -> String {
        let (mut plain, mut out) = (Plain::default(), Vec::new());
        for chunk in chunks {
            plain.read(chunk, |sign| match sign {
                Sign::Text(text) => out.extend_from_slice(text),
                Sign::Newline => out.push(b'|'),
                Sign::Return => out.push(b'<'),
                Sign::Back => out.push(b'^'),
                Sign::Moved => out.push(b'@'),
            });
        }
        String::from_utf8_lossy(&out).into_owned()
    }

    #[test]
    fn colours_titles_and_cursors_are_taken_out() {
        for (bytes, text) in [
            (&b"\x1b[1;31mKernel\x1b[0m panic\r\n"[..], "Kernel panic<|"),
            (b"\x1b]0;a title\x07login: ", "login: "),
            (b"\x1bP+q544e\x1b\\x\x1b(By\x1b=z", "xyz"),
            (b"\x1b[2J\x1b[1;1HBIOS\x1b[12;30HF1", "@@BIOS@F1"),
            (b"a\x1b[5Cb\x08c\x00\x07d", "a b^cd"),
            (b"\xc3\x9b\x7f\t", "\u{db}\t"),
            // Ends without one.
            (b"\x1b]0;never closed\r\nKernel panic", "<|Kernel panic"),
            (b"\x1b[12\nKernel panic", "|Kernel panic"),
            (b"\x1b]a\x1b[31mb\x1b\x1b[0mc", "bc"),
        ] {
            assert_eq!(shown(&[bytes]), text, "{bytes:?}");
        }
        let noise = [&b"\x1b]"[..], &[b'x'; 600], b"Kernel panic"].concat();
        assert!(shown(&[&noise]).ends_with("Kernel panic"));
        let noise = [&b"\x1b["[..], &[b'1'; 600], b"Kernel panic"].concat();
        assert!(shown(&[&noise]).ends_with("Kernel panic"));
    }

    proptest! {
        #[test]
        fn any_bytes_split_anywhere(
            bytes in prop::collection::vec(prop_oneof![any::<u8>(), prop::sample::select(b"\x1b[]\\;1mH\r\n\x07(P".to_vec())], 0..400),
            at in any::<prop::sample::Index>(),
        ) {
            let (one, other) = bytes.split_at(at.index(bytes.len() + 1));
            prop_assert_eq!(shown(&[one, other]), shown(&[&bytes]));
        }
    }
}
