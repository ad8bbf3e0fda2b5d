//! A console's bytes as a reader sees them: without cursor movement, colours and titles.
//!
//! SeaBIOS paints its screen with cursor addresses, iPXE colours its banner, EDK2 clears the
//! screen five times before its first word: what a test waits for stands between all that.

/// Takes escape sequences out of a stream that may be cut anywhere.
#[derive(Debug, Default)]
pub struct Plain {
    state: State,
    after_return: bool,
}

#[derive(Debug, Default, Clone, Copy)]
enum State {
    #[default]
    Text,
    /// ESC was read.
    Escape,
    /// ESC and an intermediate byte, as in `ESC ( B`.
    Charset,
    /// `ESC [` until a final byte, 0x40 to 0x7e (ECMA-48 §5.4).
    Control,
    /// `ESC ]`, `ESC P`, `ESC ^`, `ESC _` until BEL or ST.
    String,
    /// ESC inside such a string: ST if `\` follows.
    StringEscape,
}

impl Plain {
    /// Adds the readable part of `bytes` to `text`. Line ends become `\n`, also the lone carriage
    /// returns of progress lines.
    pub fn feed(&mut self, bytes: &[u8], text: &mut Vec<u8>) {
        for &byte in bytes {
            self.state = match (self.state, byte) {
                (State::StringEscape, b'\\') | (State::String, 0x07) => State::Text,
                (State::StringEscape | State::String, 0x1b) => State::StringEscape,
                (State::StringEscape | State::String, _) => State::String,
                // A sequence that begins inside another one starts anew.
                (_, 0x1b) => State::Escape,
                (State::Escape, b'[') => State::Control,
                (State::Escape, b']' | b'P' | b'^' | b'_') => State::String,
                (State::Escape, 0x20..=0x2f) => State::Charset,
                (State::Charset, 0x20..=0x2f) => State::Charset,
                (State::Escape | State::Charset, _) => State::Text,
                (State::Control, 0x40..=0x7e) => State::Text,
                // C0 controls inside a sequence are obeyed as if outside (and a line end
                // after a broken sequence must not swallow the next line).
                (State::Control, b'\n' | b'\r') => {
                    self.text(byte, text);
                    State::Text
                }
                (State::Control, _) => State::Control,
                (State::Text, _) => {
                    self.text(byte, text);
                    State::Text
                }
            };
        }
    }

    fn text(&mut self, byte: u8, text: &mut Vec<u8>) {
        let after_return = std::mem::replace(&mut self.after_return, byte == b'\r');
        match byte {
            b'\r' => text.push(b'\n'),
            b'\n' if after_return => {}
            b'\n' | b'\t' | 0x20..=0x7e | 0x80..=0xff => text.push(byte),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Cut at every byte, the text is the same.
    fn plain(bytes: &[u8]) -> String {
        let mut whole = Vec::new();
        Plain::default().feed(bytes, &mut whole);
        for cut in 0..=bytes.len() {
            let (mut parts, mut plain) = (Vec::new(), Plain::default());
            plain.feed(&bytes[..cut], &mut parts);
            plain.feed(&bytes[cut..], &mut parts);
            assert_eq!(parts, whole, "cut at {cut}");
        }
        String::from_utf8_lossy(&whole).into_owned()
    }

    #[test]
    fn what_a_reader_sees() {
        let table: &[(&[u8], &str)] = &[
            (
                b"\x1bc\x1b[?7l\x1b[2J\x1b[0mSeaBIOS (version 1.16.2)\r\n",
                "SeaBIOS (version 1.16.2)\n",
            ),
            (b"\x1b[2J\x1b[01;01H\x1b[=3h\r\n>>Start PXE over IPv4.", "\n>>Start PXE over IPv4."),
            (b"\x1b[1m\x1b[37m\x1b[40miPXE\x1b[0m -- Open", "iPXE -- Open"),
            (b"root  10%\rroot  20%\r\ndone\n", "root  10%\nroot  20%\ndone\n"),
            (b"line...\x08 \x08\x08 \x08net0", "line...  net0"),
            (b"\x1b]0;root@web1: ~\x07# ", "# "),
            (b"\x1b]0;title\x1b\\web1 login: ", "web1 login: "),
            (b"\x1b(Bplain\x1b[m", "plain"),
            (b"broken \x1b[12\nnext", "broken \nnext"),
            ("Ü\u{2014}".as_bytes(), "Ü\u{2014}"),
        ];
        for (bytes, text) in table {
            assert_eq!(plain(bytes), *text, "{}", bytes.escape_ascii());
        }
    }
}
