//! Names as records hold them: a byte of type and length, then text in one of four codings (IPMI §43.15;
//! the same codings, but for the first, in FRU data: FRU Storage Definition §13).

/// How the bytes of a text are to be read: bits 7:6 of its type/length byte.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Coding {
    /// Bytes without a meaning (FRU data).
    Binary,
    /// Two bytes a character, the low one first (FRU data in another language than English), or UTF-8
    /// (what firmware puts into sensor records and calls Unicode).
    Unicode,
    /// Digits, blank, dash and full stop, two a byte.
    Bcd,
    /// Capitals and digits, four in three bytes.
    SixBit,
    /// ASCII and Latin-1.
    Latin,
}

impl Coding {
    /// As sensor records say it.
    pub fn of_record(type_length: u8) -> Coding {
        match type_length >> 6 {
            0 => Coding::Unicode,
            1 => Coding::Bcd,
            2 => Coding::SixBit,
            _ => Coding::Latin,
        }
    }

    /// As FRU data says it. `english`: the area's language code is 0 or 25.
    pub fn of_fru(type_length: u8, english: bool) -> Coding {
        match type_length >> 6 {
            0 => Coding::Binary,
            1 => Coding::Bcd,
            2 => Coding::SixBit,
            _ if english => Coding::Latin,
            _ => Coding::Unicode,
        }
    }

    /// The text, without anything a terminal would obey.
    pub fn read(self, bytes: &[u8]) -> String {
        let text = match self {
            Coding::Binary => return bytes.iter().map(|byte| format!("{byte:02x}")).collect(),
            Coding::Bcd => bytes.iter().flat_map(|byte| [bcd(byte >> 4), bcd(byte & 15)]).collect(),
            Coding::SixBit => six_bit(bytes),
            Coding::Latin => bytes.iter().copied().map(char::from).collect(),
            Coding::Unicode => unicode(bytes),
        };
        plain(&text)
    }
}

/// What a record calls itself: `bytes` starts at the type/length byte. Blanks at its end are of use where a
/// number follows.
pub fn of_record(bytes: &[u8]) -> String {
    let Some((type_length, rest)) = bytes.split_first() else { return String::new() };
    // Where the length counts characters of six bits, fewer bytes follow than it says.
    let length = usize::from(type_length & 0x1f);
    Coding::of_record(*type_length).read(rest.get(..length).unwrap_or(rest))
}

fn plain(text: &str) -> String {
    text.trim_end_matches('\0')
        .chars()
        .map(|c| if c.is_control() || is_invisible(c) { '.' } else { c })
        .collect()
}

/// Marks that turn the direction of what follows, and the like.
fn is_invisible(c: char) -> bool {
    matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}')
}

fn bcd(digit: u8) -> char {
    match digit {
        0..=9 => char::from(b'0' + digit),
        10 => ' ',
        11 => '-',
        12 => '.',
        13 => ':',
        14 => ',',
        _ => '_',
    }
}

fn six_bit(bytes: &[u8]) -> String {
    let mut out = String::with_capacity(bytes.len() * 4 / 3);
    let mut held = 0u16;
    let mut bits = 0;
    for byte in bytes {
        held |= u16::from(*byte) << bits;
        bits += 8;
        while bits >= 6 {
            out.push(char::from(0x20 + (held & 0x3f) as u8));
            held >>= 6;
            bits -= 6;
        }
    }
    out
}

fn unicode(bytes: &[u8]) -> String {
    let tail = bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
    match std::str::from_utf8(bytes.get(..tail).unwrap_or_default()) {
        Ok(text) if !text.contains(char::is_control) => text.to_owned(),
        _ => {
            let units = bytes.chunks_exact(2).map(|pair| u16::from_le_bytes([pair[0], pair[1]]));
            char::decode_utf16(units).map(|c| c.unwrap_or(char::REPLACEMENT_CHARACTER)).collect()
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn four_codings() {
        assert_eq!(of_record(b"\xc8CPU Temp"), "CPU Temp");
        assert_eq!(of_record(b"\x08CPU Temp"), "CPU Temp");
        assert_eq!(Coding::Unicode.read(b"F\0a\0n\0\xe9\0"), "Fané");
        assert_eq!(Coding::Bcd.read(&[0x12, 0xb3, 0xc4]), "12-3.4");
        // FRU Storage Definition §13.2: "IPMI" is 29 DC A6.
        assert_eq!(Coding::SixBit.read(&[0x29, 0xdc, 0xa6]), "IPMI");
        assert_eq!(of_record(&[0x84, 0x29, 0xdc, 0xa6]), "IPMI");
        assert_eq!(Coding::Binary.read(&[1, 0xab]), "01ab");
    }

    #[test]
    fn nothing_a_terminal_obeys() {
        assert_eq!(of_record(b"\xc6\x1b[2J\0\0"), ".[2J");
        assert_eq!(of_record(b"\xdfshort  "), "short  ");
        assert_eq!(of_record(b""), "");
    }

    proptest! {
        #[test]
        fn any_bytes(bytes in proptest::collection::vec(any::<u8>(), 0..80)) {
            let name = of_record(&bytes);
            prop_assert!(!name.chars().any(char::is_control));
            for coding in [Coding::Unicode, Coding::Bcd, Coding::SixBit, Coding::Latin] {
                prop_assert!(!coding.read(&bytes).chars().any(char::is_control));
            }
        }
    }
}
