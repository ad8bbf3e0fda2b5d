//! Reads headers and data out of what comes, a byte at a time, and finds the next header in any noise.

use super::header::{End, Header, ZDLE, ZPAD};
use crate::modem::crc::{Crc32, crc16, crc32};

/// A part of data is no longer: 1,024 bytes by the book, eight times that by lrzsz's choice.
const PART: usize = 8192;
/// So many CAN in a row are no data: the other side cancels.
const CANS: u32 = 5;

/// What was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Item {
    Header(Header),
    /// A part of the data of the header before.
    Data(Vec<u8>, End),
    /// Data, or a header, that is damaged. A header is looked for.
    Bad,
    /// The other side gives up.
    Cancel,
}

/// A stream of frames, as it comes.
#[derive(Debug, Default)]
pub struct Reader {
    at: At,
    /// A part of data, then its CRC; or a header.
    buffer: Vec<u8>,
    /// Behind ZDLE.
    escaped: bool,
    cans: u32,
    /// Data is guarded by 32 bits.
    long: bool,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum At {
    /// Looks for a header.
    #[default]
    Noise,
    /// Behind `*`.
    Pad,
    /// Behind `*` and ZDLE.
    Begin,
    /// In a hexadecimal header.
    Hex,
    /// In a binary header.
    Binary,
    /// In the end of line of a hexadecimal header; data follows.
    Line,
    Data,
    /// In the CRC behind so much data.
    Check(usize, End),
}

impl Reader {
    /// What comes is no data, until the next header.
    pub fn skip(&mut self) {
        self.to(At::Noise);
    }

    fn to(&mut self, at: At) {
        (self.at, self.escaped) = (at, false);
        self.buffer.clear();
    }

    fn bad(&mut self) -> Option<Item> {
        self.to(At::Noise);
        Some(Item::Bad)
    }

    /// One byte more.
    pub fn step(&mut self, byte: u8) -> Option<Item> {
        self.cans = if byte == ZDLE { self.cans + 1 } else { 0 };
        if self.cans == CANS {
            self.cans = 0;
            self.to(At::Noise);
            return Some(Item::Cancel);
        }
        match self.at {
            At::Noise | At::Pad if byte == ZPAD => self.at = At::Pad,
            At::Noise => {}
            At::Pad => self.at = if byte == ZDLE { At::Begin } else { At::Noise },
            At::Begin => match byte {
                b'A' | b'C' => {
                    self.to(At::Binary);
                    self.long = byte == b'C';
                }
                b'B' => {
                    self.to(At::Hex);
                    self.long = false;
                }
                _ => self.to(At::Noise),
            },
            At::Hex => return self.hex(byte),
            At::Binary => {
                let byte = match self.unescape(byte) {
                    Unescaped::Byte(byte) => byte,
                    Unescaped::Nothing => return None,
                    Unescaped::End(_) | Unescaped::Bad => return self.bad(),
                };
                self.buffer.push(byte);
                let whole = if self.long { 9 } else { 7 };
                if self.buffer.len() == whole {
                    return self.header();
                }
            }
            At::Line if matches!(byte & 0x7f, b'\r' | b'\n' | 0x11 | 0x13) => {}
            At::Line => {
                self.to(At::Data);
                return self.data(byte);
            }
            At::Data => return self.data(byte),
            At::Check(many, end) => {
                match self.unescape(byte) {
                    Unescaped::Byte(byte) => self.buffer.push(byte),
                    Unescaped::Nothing => return None,
                    Unescaped::End(_) | Unescaped::Bad => return self.bad(),
                }
                let check = if self.long { 4 } else { 2 };
                if self.buffer.len() == many + check {
                    return self.part(many, end);
                }
            }
        }
        None
    }

    fn hex(&mut self, byte: u8) -> Option<Item> {
        let digit = match byte & 0x7f {
            digit @ b'0'..=b'9' => digit - b'0',
            digit @ b'a'..=b'f' => digit - b'a' + 10,
            0x11 | 0x13 => return None,
            _ => return self.bad(),
        };
        self.buffer.push(digit);
        if self.buffer.len() < 14 {
            return None;
        }
        let pairs = self.buffer.chunks_exact(2);
        self.buffer =
            pairs.map(|pair| pair.iter().fold(0, |byte, digit| byte << 4 | digit)).collect();
        self.header()
    }

    /// A header is whole.
    fn header(&mut self) -> Option<Item> {
        let (head, check) = self.buffer.split_at_checked(5)?;
        let whole = match self.long {
            true => check == crc32(head).to_le_bytes(),
            false => check == crc16(head).to_be_bytes(),
        };
        let header = Header::of(head).filter(|_| whole);
        let Some(header) = header else { return self.bad() };
        let data = match self.at {
            At::Hex => At::Line,
            _ => At::Data,
        };
        self.to(if header.kind.has_data() { data } else { At::Noise });
        Some(Item::Header(header))
    }

    fn data(&mut self, byte: u8) -> Option<Item> {
        match self.unescape(byte) {
            Unescaped::Nothing => return None,
            Unescaped::Byte(_) if self.buffer.len() == PART => return self.bad(),
            Unescaped::Byte(byte) => self.buffer.push(byte),
            Unescaped::End(end) => self.at = At::Check(self.buffer.len(), end),
            Unescaped::Bad => return self.bad(),
        }
        None
    }

    /// A part of data is whole.
    fn part(&mut self, many: usize, end: End) -> Option<Item> {
        let mark = [end as u8];
        let mut data = std::mem::take(&mut self.buffer);
        let check = data.split_off(many);
        let whole = match self.long {
            true => check == Crc32::new().and(&data).and(&mark).value().to_le_bytes(),
            false => {
                data.extend(mark);
                let crc = crc16(&data).to_be_bytes();
                data.truncate(many);
                check == crc
            }
        };
        if !whole {
            return self.bad();
        }
        self.to(if matches!(end, End::G | End::Q) { At::Data } else { At::Noise });
        Some(Item::Data(data, end))
    }

    fn unescape(&mut self, byte: u8) -> Unescaped {
        // Never sent as they are: the line's own.
        if matches!(byte, 0x11 | 0x13 | 0x91 | 0x93) {
            return Unescaped::Nothing;
        }
        if !std::mem::take(&mut self.escaped) {
            if byte == ZDLE {
                self.escaped = true;
                return Unescaped::Nothing;
            }
            return Unescaped::Byte(byte);
        }
        match byte {
            // CAN upon CAN: it may become a cancel.
            ZDLE => {
                self.escaped = true;
                Unescaped::Nothing
            }
            b'l' => Unescaped::Byte(0x7f),
            b'm' => Unescaped::Byte(0xff),
            byte if byte & 0x60 == 0x40 => Unescaped::Byte(byte ^ 0x40),
            byte => End::of(byte).map_or(Unescaped::Bad, Unescaped::End),
        }
    }
}

enum Unescaped {
    Byte(u8),
    Nothing,
    End(End),
    Bad,
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::header::{Kind, Writer};
    use super::*;

    fn read(bytes: &[u8]) -> Vec<Item> {
        let mut reader = Reader::default();
        bytes.iter().filter_map(|byte| reader.step(*byte)).collect()
    }

    #[test]
    fn what_lrzsz_writes() {
        // `sz` asks, `rz` answers.
        let asks = b"rz\r**\x18B00000000000000\r\x8a\x11";
        let rqinit = Header { kind: Kind::Rqinit, value: [0; 4] };
        assert_eq!(read(asks), [Item::Header(rqinit)]);
        let rinit = Header { kind: Kind::Rinit, value: [0, 0, 0, 0x23] };
        assert_eq!(read(b"**\x18B0100000023be50\r\x8a\x11"), [Item::Header(rinit)]);
        assert_eq!(rinit.hex(), b"**\x18B0100000023be50\r\x8a\x11");
        assert_eq!(read(&crate::modem::CANCEL), [Item::Cancel, Item::Cancel]);
    }

    #[test]
    fn a_damaged_part_is_bad_and_the_next_header_is_found() {
        let mut writer = Writer::new(false, true);
        let mut bytes = writer.header(Header::at(Kind::Data, 7));
        writer.data(b"one", End::G, &mut bytes);
        let damaged = bytes.len() + 1;
        writer.data(b"two", End::G, &mut bytes);
        writer.data(b"three", End::E, &mut bytes);
        bytes.extend(writer.header(Header::at(Kind::Eof, 18)));
        if let Some(byte) = bytes.get_mut(damaged) {
            *byte ^= 1;
        }
        let items = read(&bytes);
        let [Item::Header(_), Item::Data(one, End::G), Item::Bad, Item::Header(eof)] = &items[..]
        else {
            panic!("{items:?}")
        };
        assert_eq!((&one[..], eof.position()), (&b"one"[..], 18));
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(
            data in prop::collection::vec(any::<u8>(), 0..2000),
            (control, long) in any::<(bool, bool)>(),
            at in any::<u32>(),
        ) {
            let mut writer = Writer::new(control, long);
            let header = Header::at(Kind::Data, at);
            let mut bytes = writer.header(header);
            writer.data(&data, End::Q, &mut bytes);
            writer.data(&data, End::W, &mut bytes);
            if control {
                let plain = bytes.iter().filter(|byte| **byte & 0x60 == 0);
                prop_assert!(plain.clone().all(|byte| matches!(*byte, ZDLE | 0x11)), "{bytes:?}");
            }
            let expected = [Item::Header(header), Item::Data(data.clone(), End::Q), Item::Data(data, End::W)];
            prop_assert_eq!(read(&bytes), expected);
        }

        #[test]
        fn any_bytes(bytes in prop::collection::vec(prop_oneof![any::<u8>(), Just(ZDLE), Just(ZPAD), Just(b'C'), Just(b'i')], 0..3000)) {
            let _no_panic = read(&bytes);
        }
    }
}
