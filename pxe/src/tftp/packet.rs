//! TFTP's packets: requests and answers of the client to values, our answers to bytes.
//!
//! ```text
//! RRQ    01 | file name | 0 | mode | 0 | option | 0 | value | 0 …      RFC 1350 §5, RFC 2347
//! WRQ    02 | as RRQ
//! DATA   03 | block (2) | up to blksize bytes
//! ACK    04 | block (2)
//! ERROR  05 | code (2) | message | 0
//! OACK   06 | option | 0 | value | 0 …                                 RFC 2347
//! ```

/// RFC 1350 §5, RFC 2347: error codes as they go over the wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs, reason = "the names of the RFC")]
pub enum Code {
    NotDefined = 0,
    FileNotFound = 1,
    AccessViolation = 2,
    IllegalOperation = 4,
    OptionNegotiation = 8,
}

/// Largest block RFC 2348 knows.
pub const BLKSIZE_MAX: u16 = 65464;
/// Size of a block when nothing was agreed (RFC 1350).
pub const BLKSIZE_DEFAULT: u16 = 512;

/// What a client sends, to the listening port or to a transfer's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Packet {
    /// It wants to read.
    Read(Request),
    /// It wants to write.
    Write,
    /// It has everything up to this block.
    Ack(u16),
    /// It gives up. Never answered (RFC 1350 §7).
    Error {
        /// As sent; 8 is what a UEFI size probe ends with.
        code: u16,
        /// Text for people, cut at 128 bytes.
        message: String,
    },
    /// DATA or OACK: for clients that write, which nobody does here.
    Stray,
}

/// A read request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// Bytes of the name as sent; `name::clean` makes a key of it.
    pub name: Vec<u8>,
    /// How the bytes are to travel.
    pub mode: Mode,
    /// What else it asks for.
    pub options: Options,
}

/// RFC 1350 §1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// As they are.
    Octet,
    /// Lines end in CR LF on the wire. The default of the Unix `tftp` command.
    Netascii,
    /// To a person's terminal: obsolete in 1992.
    Mail,
    /// Something else.
    Unknown,
}

/// Options within their ranges. One out of range is treated as one we do not know: RFC 2347 leaves
/// it out of the OACK, and the client goes on without it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Options {
    /// RFC 2348: 8..=65464.
    pub blksize: Option<u16>,
    /// RFC 2349: seconds, 1..=255.
    pub timeout: Option<u8>,
    /// RFC 2349: asks for the size. The value should be 0; some send another.
    pub tsize: bool,
    /// RFC 7440: 1..=65535.
    pub windowsize: Option<u16>,
}

/// Bytes that are no packet.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    /// Fewer bytes than the opcode promises.
    #[error("cut short")]
    Short,
    /// An opcode outside 1..=6.
    #[error("opcode {0}")]
    Opcode(u16),
    /// A request without a terminated name.
    #[error("a request without a file name")]
    Name,
    /// A request without a terminated mode.
    #[error("a request without a mode")]
    Mode,
}

/// Reads one datagram.
pub fn decode(datagram: &[u8]) -> Result<Packet, Malformed> {
    let (opcode, rest) = number(datagram).ok_or(Malformed::Short)?;
    match opcode {
        1 => request(rest).map(Packet::Read),
        2 => Ok(Packet::Write),
        4 => Ok(Packet::Ack(number(rest).ok_or(Malformed::Short)?.0)),
        5 => {
            let (code, text) = number(rest).ok_or(Malformed::Short)?;
            // atftp and some ROMs leave out the final NUL.
            let text = text.split(|&byte| byte == 0).next().unwrap_or_default();
            let text = &text[..text.len().min(128)];
            let message = String::from_utf8_lossy(text).replace(char::is_control, " ");
            Ok(Packet::Error { code, message })
        }
        3 | 6 => Ok(Packet::Stray),
        other => Err(Malformed::Opcode(other)),
    }
}

/// Appends a DATA header; the block's bytes follow.
pub fn data_header(block: u16) -> [u8; 4] {
    let [high, low] = block.to_be_bytes();
    [0, 3, high, low]
}

/// An ERROR packet.
pub fn error(code: Code, message: &str) -> Vec<u8> {
    let mut out = vec![0, 5, 0, code as u8];
    out.extend(message.bytes().filter(|&byte| byte != 0));
    out.push(0);
    out
}

/// An OACK packet of these options.
pub fn oack(options: &[(&str, u64)]) -> Vec<u8> {
    let mut out = vec![0, 6];
    for (option, value) in options {
        out.extend_from_slice(option.as_bytes());
        out.push(0);
        out.extend_from_slice(value.to_string().as_bytes());
        out.push(0);
    }
    out
}

/// Text as netascii carries it (RFC 764: LF is CR LF, a lone CR is CR NUL), or `None` once the
/// result would be longer than `bound`.
pub fn netascii(text: &[u8], bound: usize) -> Option<Vec<u8>> {
    let mut out = Vec::with_capacity(text.len().min(bound));
    for &byte in text {
        match byte {
            b'\n' => out.extend_from_slice(b"\r\n"),
            b'\r' => out.extend_from_slice(b"\r\0"),
            byte => out.push(byte),
        }
        if out.len() > bound {
            return None;
        }
    }
    Some(out)
}

fn request(bytes: &[u8]) -> Result<Request, Malformed> {
    let (name, rest) = string(bytes).filter(|(name, _)| !name.is_empty()).ok_or(Malformed::Name)?;
    let (mode, mut rest) = string(rest).ok_or(Malformed::Mode)?;
    let mode = match mode.to_ascii_lowercase().as_slice() {
        b"octet" => Mode::Octet,
        b"netascii" => Mode::Netascii,
        b"mail" => Mode::Mail,
        _ => Mode::Unknown,
    };
    let mut options = Options::default();
    // A pair that is cut off ends the list; what came before it counts.
    while let Some((option, value, after)) = string(rest)
        .and_then(|(option, rest)| string(rest).map(|(value, rest)| (option, value, rest)))
    {
        take(&mut options, option, value);
        rest = after;
    }
    Ok(Request { name: name.to_vec(), mode, options })
}

/// An option may be given once (RFC 2347): the first counts.
fn take(options: &mut Options, option: &[u8], value: &[u8]) {
    let Some(value) = decimal(value) else { return };
    let within = |low, high| (low..=high).contains(&value).then_some(value);
    match option.to_ascii_lowercase().as_slice() {
        // RFC 2348
        b"blksize" => {
            let asked = within(8, u64::from(BLKSIZE_MAX)).and_then(|size| size.try_into().ok());
            options.blksize = options.blksize.or(asked);
        }
        // RFC 2349
        b"timeout" => {
            options.timeout = options.timeout.or(within(1, 255).and_then(|s| s.try_into().ok()));
        }
        b"tsize" => options.tsize = true,
        // RFC 7440
        b"windowsize" => {
            let asked = within(1, 65535).and_then(|blocks| blocks.try_into().ok());
            options.windowsize = options.windowsize.or(asked);
        }
        _ => {}
    }
}

fn number(bytes: &[u8]) -> Option<(u16, &[u8])> {
    let (number, rest) = bytes.split_first_chunk()?;
    Some((u16::from_be_bytes(*number), rest))
}

fn string(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let end = bytes.iter().position(|&byte| byte == 0)?;
    Some((&bytes[..end], &bytes[end + 1..]))
}

fn decimal(text: &[u8]) -> Option<u64> {
    // `parse` would take a leading `+`.
    let digits = text.iter().all(u8::is_ascii_digit) && !text.is_empty();
    std::str::from_utf8(text).ok().filter(|_| digits)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read(bytes: &[u8]) -> Request {
        match decode(bytes) {
            Ok(Packet::Read(request)) => request,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn requests_as_firmware_sends_them() {
        // EDK2's size probe and its real request; U-Boot; the PXE ROM of an Intel card.
        let table: &[(&[u8], &[u8], Options)] = &[
            (
                b"\0\x01ipxe.efi\0octet\0tsize\x000\0blksize\x001468\0windowsize\x004\0",
                b"ipxe.efi",
                Options {
                    blksize: Some(1468),
                    tsize: true,
                    windowsize: Some(4),
                    ..Options::default()
                },
            ),
            (
                b"\0\x01boot.scr\0octet\0timeout\x005\0blksize\x001468\0",
                b"boot.scr",
                Options { blksize: Some(1468), timeout: Some(5), ..Options::default() },
            ),
            (
                b"\0\x01pxelinux.0\xff\0OCTET\0TSIZE\x000\0",
                b"pxelinux.0\xff",
                Options { tsize: true, ..Options::default() },
            ),
            (b"\0\x01x\0octet\0", b"x", Options::default()),
        ];
        for (bytes, name, options) in table {
            let wanted = Request { name: name.to_vec(), mode: Mode::Octet, options: *options };
            assert_eq!(read(bytes), wanted, "{}", bytes.escape_ascii());
        }
    }

    #[test]
    fn options_out_of_range_are_as_if_not_asked() {
        let asked = |text: &str| {
            let bytes = [b"\0\x01f\0octet\0", text.replace(' ', "\0").as_bytes(), b"\0"].concat();
            read(&bytes).options
        };
        let none = Options::default();
        for text in [
            "blksize 7",
            "blksize 65465",
            "blksize 0",
            "blksize -1",
            "blksize +512",
            "blksize 99999999999999999999999",
            "blksize 0x200",
            "blksize  ",
            "timeout 0",
            "timeout 256",
            "windowsize 0",
            "windowsize 65536",
            "tsize x",
            "multicast 1",
            "blksize",
        ] {
            assert_eq!(asked(text), none, "{text:?}");
        }
        assert_eq!(asked("blksize 8").blksize, Some(8));
        assert_eq!(asked("blksize 65464").blksize, Some(65464));
        assert_eq!(asked("timeout 255").timeout, Some(255));
        assert_eq!(asked("windowsize 65535").windowsize, Some(65535));
        assert_eq!(asked("blksize 512 blksize 1024").blksize, Some(512));
        assert!(asked("tsize 4096").tsize);
    }

    #[test]
    fn what_is_no_packet_is_said() {
        let table: &[(&[u8], Malformed)] = &[
            (b"", Malformed::Short),
            (b"\0", Malformed::Short),
            (b"\0\x04\0", Malformed::Short),
            (b"\0\x05", Malformed::Short),
            (b"\0\0", Malformed::Opcode(0)),
            (b"\0\x07", Malformed::Opcode(7)),
            (b"\x01\0x\0octet\0", Malformed::Opcode(256)),
            (b"\0\x01", Malformed::Name),
            (b"\0\x01\0octet\0", Malformed::Name),
            (b"\0\x01name", Malformed::Name),
            (b"\0\x01name\0", Malformed::Mode),
            (b"\0\x01name\0octet", Malformed::Mode),
        ];
        for (bytes, wanted) in table {
            assert_eq!(decode(bytes).as_ref(), Err(wanted), "{}", bytes.escape_ascii());
        }
    }

    #[test]
    fn a_request_cut_at_every_byte_is_a_shorter_request_or_none() {
        let whole = b"\0\x01ipxe.efi\0octet\0tsize\x000\0blksize\x001468\0windowsize\x004\0";
        for cut in 0..whole.len() {
            if let Ok(Packet::Read(request)) = decode(&whole[..cut]) {
                assert_eq!(request.name, b"ipxe.efi");
                assert_eq!(request.options.windowsize, None);
            }
        }
    }

    #[test]
    fn answers_as_bytes() {
        assert_eq!(
            oack(&[("tsize", 1_074_688), ("blksize", 1468)]),
            b"\0\x06tsize\x001074688\0blksize\x001468\0"
        );
        assert_eq!(error(Code::FileNotFound, "x: no"), b"\0\x05\0\x01x: no\0");
        assert_eq!(data_header(0x1234), [0, 3, 0x12, 0x34]);
        assert_eq!(
            decode(b"\0\x05\0\x08User aborted the transfer\0"),
            Ok(Packet::Error { code: 8, message: "User aborted the transfer".to_string() })
        );
        assert_eq!(
            decode(b"\0\x05\0\0\x1b[2J\xff"),
            Ok(Packet::Error { code: 0, message: " [2J\u{fffd}".to_string() })
        );
    }

    #[test]
    fn netascii_marks_line_ends() {
        assert_eq!(netascii(b"a\nb\rc\r\n", 100).unwrap(), b"a\r\nb\r\0c\r\0\r\n");
        assert_eq!(netascii(b"\n\n", 4).unwrap().len(), 4);
        assert_eq!(netascii(b"\n\n", 3), None);
    }

    proptest! {
        #[test]
        fn no_bytes_panic(bytes in proptest::collection::vec(any::<u8>(), 0..600)) {
            let _ = decode(&bytes);
            for opcode in 1..=6 {
                let _ = decode(&[&[0, opcode], bytes.as_slice()].concat());
            }
        }
    }
}
