//! Headers and data as they are written: hexadecimal, or binary with what lines take for themselves escaped.

use crate::modem::crc::{Crc32, crc16, crc32};

pub(super) const ZPAD: u8 = b'*';
/// Escapes; the same as CAN.
pub(super) const ZDLE: u8 = 0x18;
const XON: u8 = 0x11;

/// What a frame is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Kind {
    /// The sender asks whether a receiver is there.
    Rqinit,
    /// The receiver is, and can this.
    Rinit,
    /// What the sender wants of the receiver.
    Sinit,
    Ack,
    /// A file is offered.
    File,
    /// It is not wanted.
    Skip,
    Nak,
    Abort,
    /// The session ends.
    Fin,
    /// From here on, please.
    Rpos,
    Data,
    Eof,
    /// Reading or writing failed on the other side.
    Ferr,
    /// The CRC of a file's beginning: asked for, and the answer.
    Crc,
    Challenge,
    Compl,
    Can,
    Freecnt,
    /// A command is to be run here.
    Command,
    Stderr,
}

impl Kind {
    const ALL: [Kind; 20] = [
        Kind::Rqinit,
        Kind::Rinit,
        Kind::Sinit,
        Kind::Ack,
        Kind::File,
        Kind::Skip,
        Kind::Nak,
        Kind::Abort,
        Kind::Fin,
        Kind::Rpos,
        Kind::Data,
        Kind::Eof,
        Kind::Ferr,
        Kind::Crc,
        Kind::Challenge,
        Kind::Compl,
        Kind::Can,
        Kind::Freecnt,
        Kind::Command,
        Kind::Stderr,
    ];

    /// Data follows.
    pub(super) fn has_data(self) -> bool {
        matches!(self, Kind::Sinit | Kind::File | Kind::Data | Kind::Command | Kind::Stderr)
    }
}

/// ZRINIT: both directions at once.
pub(super) const CANFDX: u8 = 0x01;
/// ZRINIT: receives while it writes to its disk.
pub(super) const CANOVIO: u8 = 0x02;
/// ZRINIT: knows the CRC of 32 bits.
pub(super) const CANFC32: u8 = 0x20;
/// ZRINIT, ZSINIT: all control characters are to be escaped.
pub(super) const ESCCTL: u8 = 0x40;
/// ZFILE: no ends of line are changed.
pub(super) const ZCBIN: u8 = 1;

/// What a frame begins with: its kind and a position, or flags.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    pub kind: Kind,
    /// A position is written lowest byte first; flags ZF0 to ZF3 last byte first.
    pub value: [u8; 4],
}

impl Header {
    pub(super) fn at(kind: Kind, at: u32) -> Header {
        Header { kind, value: at.to_le_bytes() }
    }

    pub(super) fn flags(kind: Kind, zf0: u8) -> Header {
        Header { kind, value: [0, 0, 0, zf0] }
    }

    pub(super) fn position(self) -> u32 {
        u32::from_le_bytes(self.value)
    }

    pub(super) fn zf0(self) -> u8 {
        self.value[3]
    }

    /// From kind and value.
    pub(super) fn of(bytes: &[u8]) -> Option<Header> {
        let (kind, value) = bytes.split_first()?;
        let kind = *Kind::ALL.get(usize::from(*kind))?;
        Some(Header { kind, value: value.try_into().ok()? })
    }

    fn bytes(self) -> [u8; 5] {
        let [a, b, c, d] = self.value;
        [self.kind as u8, a, b, c, d]
    }

    /// As receivers write it, and whoever cannot be sure of eight bits.
    pub(super) fn hex(self) -> Vec<u8> {
        let bytes = self.bytes();
        let mut text = vec![ZPAD, ZPAD, ZDLE, b'B'];
        for byte in bytes.into_iter().chain(crc16(&bytes).to_be_bytes()) {
            text.extend_from_slice(format!("{byte:02x}").as_bytes());
        }
        text.extend([b'\r', b'\n' | 0x80]);
        // A line that was stopped by noise goes on.
        if !matches!(self.kind, Kind::Ack | Kind::Fin) {
            text.push(XON);
        }
        text
    }
}

/// What ends a part of data.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum End {
    /// The frame ends; a header follows.
    E = b'h',
    /// The frame goes on.
    G = b'i',
    /// It goes on, and an answer is wanted.
    Q = b'j',
    /// The frame ends, and nothing comes before the answer.
    W = b'k',
}

impl End {
    pub(super) fn of(byte: u8) -> Option<End> {
        Some(match byte {
            b'h' => End::E,
            b'i' => End::G,
            b'j' => End::Q,
            b'k' => End::W,
            _ => return None,
        })
    }
}

/// Writes what is binary.
#[derive(Debug)]
pub(super) struct Writer {
    /// All control characters are escaped.
    pub control: bool,
    /// Guarded by a CRC of 32 bits, or of 16.
    pub long: bool,
    last: u8,
}

impl Writer {
    pub fn new(control: bool, long: bool) -> Writer {
        Writer { control, long, last: 0 }
    }

    /// A header.
    pub fn header(&mut self, header: Header) -> Vec<u8> {
        let bytes = header.bytes();
        let mut out = vec![ZPAD, ZDLE, if self.long { b'C' } else { b'A' }];
        self.last = 0;
        self.escape(&bytes, &mut out);
        match self.long {
            true => self.escape(&crc32(&bytes).to_le_bytes(), &mut out),
            false => self.escape(&crc16(&bytes).to_be_bytes(), &mut out),
        }
        out
    }

    /// A part of a frame's data.
    pub fn data(&mut self, data: &[u8], end: End, out: &mut Vec<u8>) {
        out.reserve(data.len() + data.len() / 8 + 16);
        self.escape(data, out);
        let mark = end as u8;
        out.extend([ZDLE, mark]);
        self.last = mark;
        if self.long {
            let crc = Crc32::new().and(data).and(&[mark]).value();
            self.escape(&crc.to_le_bytes(), out);
        } else {
            let all: Vec<u8> = data.iter().copied().chain([mark]).collect();
            self.escape(&crc16(&all).to_be_bytes(), out);
        }
        // A line that was stopped by noise goes on, as the answer is waited for.
        if end == End::W {
            out.push(XON);
        }
    }

    fn escape(&mut self, bytes: &[u8], out: &mut Vec<u8>) {
        for byte in bytes.iter().copied() {
            let seven = byte & 0x7f;
            let escaped = match seven {
                _ if byte == ZDLE => true,
                // DLE, XON and XOFF: modems and terminals take them for themselves.
                0x10 | 0x11 | 0x13 => true,
                // "@ CR" ended a command of Telenet.
                b'\r' if self.last & 0x7f == b'@' => true,
                _ => self.control && seven < 0x20,
            };
            if escaped {
                out.extend([ZDLE, byte ^ 0x40]);
            } else {
                out.push(byte);
            }
            self.last = byte;
        }
    }
}
