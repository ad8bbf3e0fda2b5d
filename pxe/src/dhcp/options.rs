//! Options: everything a DHCP message says beyond the fixed header of 1985. Both directions, and
//! the one table of the codes we read or write.
//!
//! The walk is our own and forty lines long. What it has to survive comes off a wire that any
//! machine in the rack may write to.

use std::net::Ipv4Addr;

use super::packet::BadPacket;

/// Codes of options, each with the text that defines it.
pub mod code {
    /// RFC 2132 3.1: a filler of one byte.
    pub const PAD: u8 = 0;
    /// RFC 2132 3.3.
    pub const SUBNET_MASK: u8 = 1;
    /// RFC 2132 3.5.
    pub const ROUTER: u8 = 3;
    /// RFC 2132 3.8.
    pub const DNS: u8 = 6;
    /// RFC 2132 3.14.
    pub const HOST_NAME: u8 = 12;
    /// RFC 2132 3.17.
    pub const DOMAIN: u8 = 15;
    /// RFC 2132 5.1.
    pub const MTU: u8 = 26;
    /// RFC 2132 5.3.
    pub const BROADCAST: u8 = 28;
    /// RFC 2132 8.3.
    pub const NTP: u8 = 42;
    /// RFC 2132 8.4; its sub-options under PXE are those of the PXE 2.1 specification.
    pub const VENDOR: u8 = 43;
    /// RFC 2132 9.1.
    pub const REQUESTED_ADDRESS: u8 = 50;
    /// RFC 2132 9.2.
    pub const LEASE_TIME: u8 = 51;
    /// RFC 2132 9.3: `sname` and `file` hold options too.
    pub const OVERLOAD: u8 = 52;
    /// RFC 2132 9.6.
    pub const MESSAGE_TYPE: u8 = 53;
    /// RFC 2132 9.7.
    pub const SERVER_ID: u8 = 54;
    /// RFC 2132 9.8.
    pub const PARAMETERS: u8 = 55;
    /// RFC 2132 9.9: why a NAK was sent.
    pub const MESSAGE: u8 = 56;
    /// RFC 2132 9.10.
    pub const MAX_SIZE: u8 = 57;
    /// RFC 2132 9.11: T1.
    pub const RENEWAL_TIME: u8 = 58;
    /// RFC 2132 9.12: T2.
    pub const REBINDING_TIME: u8 = 59;
    /// RFC 2132 9.13: `PXEClient:Arch:00007:UNDI:003016`, `HTTPClient:…`.
    pub const VENDOR_CLASS: u8 = 60;
    /// RFC 2132 9.14.
    pub const CLIENT_ID: u8 = 61;
    /// RFC 2132 9.4.
    pub const TFTP_SERVER: u8 = 66;
    /// RFC 2132 9.5.
    pub const BOOT_FILE: u8 = 67;
    /// RFC 3004, and iPXE, which writes the bare word.
    pub const USER_CLASS: u8 = 77;
    /// RFC 3046.
    pub const RELAY_INFO: u8 = 82;
    /// RFC 4578 2.1: several are allowed.
    pub const ARCH: u8 = 93;
    /// RFC 4578 2.2.
    pub const NDI: u8 = 94;
    /// RFC 4578 2.3: the machine's UUID.
    pub const GUID: u8 = 97;
    /// iPXE's own, encapsulated.
    pub const IPXE: u8 = 175;
    /// RFC 2132 3.2.
    pub const END: u8 = 255;
}

/// The options of one message, in the order of their first appearance, fragments joined (RFC 3396).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Options(Vec<(u8, Vec<u8>)>);

impl Options {
    /// The whole value of an option.
    pub fn get(&self, code: u8) -> Option<&[u8]> {
        self.0.iter().find(|(held, _)| *held == code).map(|(_, value)| value.as_slice())
    }

    /// A value of exactly `N` bytes. An option of fixed size sent twice is not a long one: the
    /// first counts.
    pub fn fixed<const N: usize>(&self, code: u8) -> Option<[u8; N]> {
        let value = self.get(code)?;
        if value.is_empty() || value.len() % N != 0 {
            return None;
        }
        value.first_chunk::<N>().copied()
    }

    /// An address.
    pub fn address(&self, code: u8) -> Option<Ipv4Addr> {
        self.fixed::<4>(code).map(Ipv4Addr::from)
    }

    /// Appends; a value for a code already there is joined to it. PAD and END are not options.
    pub fn push(&mut self, code: u8, value: &[u8]) {
        if code == code::PAD || code == code::END {
            return;
        }
        match self.0.iter_mut().find(|(held, _)| *held == code) {
            Some((_, whole)) => whole.extend_from_slice(value),
            None => self.0.push((code, value.to_vec())),
        }
    }

    /// Takes an option out.
    pub fn remove(&mut self, code: u8) -> Option<Vec<u8>> {
        let at = self.0.iter().position(|(held, _)| *held == code)?;
        Some(self.0.remove(at).1)
    }

    /// Each option with its value.
    pub fn iter(&self) -> impl Iterator<Item = (u8, &[u8])> {
        self.0.iter().map(|(code, value)| (*code, value.as_slice()))
    }

    /// Reads one field of options to its END. A missing END is common in firmware and harmless;
    /// an option that runs past its field is neither.
    pub(super) fn read(&mut self, field: &[u8]) -> Result<(), BadPacket> {
        let mut rest = field;
        while let [code, tail @ ..] = rest {
            match *code {
                code::PAD => rest = tail,
                code::END => break,
                code => {
                    let [length, tail @ ..] = tail else { return Err(BadPacket::OptionCut(code)) };
                    let length = usize::from(*length);
                    if tail.len() < length {
                        return Err(BadPacket::OptionCut(code));
                    }
                    let (value, tail) = tail.split_at(length);
                    self.push(code, value);
                    rest = tail;
                }
            }
        }
        Ok(())
    }

    /// Writes every option, long ones in pieces (RFC 3396), and the END.
    pub(super) fn write(&self, out: &mut Vec<u8>) {
        for (code, value) in self.iter() {
            if value.is_empty() {
                out.extend_from_slice(&[code, 0]);
            }
            for piece in value.chunks(255) {
                out.extend_from_slice(&[code, piece.len() as u8]);
                out.extend_from_slice(piece);
            }
        }
        out.push(code::END);
    }
}

/// Bytes that an option takes on the wire.
pub fn cost(value: &[u8]) -> usize {
    value.len() + 2 * value.len().div_ceil(255).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(field: &[u8]) -> Result<Options, BadPacket> {
        let mut options = Options::default();
        options.read(field).map(|()| options)
    }

    #[test]
    fn pads_are_skipped_and_nothing_counts_after_the_end() {
        let options = read(&[0, 0, 53, 1, 1, 0, 12, 0, 255, 60, 200]).expect("well formed");
        assert_eq!(options.iter().collect::<Vec<_>>(), [(53, &[1u8][..]), (12, &[][..])]);
    }

    #[test]
    fn an_option_past_its_field_is_named() {
        for (field, code) in [
            (&[53u8][..], 53),
            (&[53, 1], 53),
            (&[53, 1, 1, 61, 255, 1, 2, 3], 61),
            (&[43, 2, 6], 43),
            (&[12, 0, 97], 97),
        ] {
            assert_eq!(read(field), Err(BadPacket::OptionCut(code)), "{field:?}");
        }
        assert!(read(&[53, 1, 1]).is_ok(), "no END");
        assert_eq!(read(&[]), Ok(Options::default()));
    }

    #[test]
    fn fragments_join_also_when_others_stand_between() {
        let options = read(&[67, 2, b'a', b'b', 53, 1, 1, 67, 1, b'c', 255]).expect("well formed");
        assert_eq!(options.get(67), Some(&b"abc"[..]));
    }

    #[test]
    fn a_fixed_option_sent_twice_is_read_once() {
        let options = read(&[54, 4, 10, 0, 0, 1, 54, 4, 10, 0, 0, 2, 50, 3, 1, 2, 3]).expect("ok");
        assert_eq!(options.address(54), Some(Ipv4Addr::new(10, 0, 0, 1)));
        assert_eq!(options.address(50), None, "three bytes are no address");
        assert_eq!(read(&[54, 0]).expect("ok").address(54), None);
    }

    #[test]
    fn long_values_are_split_and_cost_what_they_take() {
        for length in [0, 1, 254, 255, 256, 510, 511, 1000] {
            let mut options = Options::default();
            options.push(67, &vec![7; length]);
            let mut wire = Vec::new();
            options.write(&mut wire);
            assert_eq!(wire.len(), cost(&vec![7; length]) + 1, "{length}");
            assert_eq!(read(&wire), Ok(options), "{length}");
        }
    }
}
