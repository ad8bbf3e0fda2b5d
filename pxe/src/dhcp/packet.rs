//! The envelope: one datagram of RFC 2131 section 2, bytes ↔ values. Every message of a boot,
//! from the firmware's first DISCOVER to the running system's renewal, goes through here.

use std::net::Ipv4Addr;

use super::options::{Options, code};

/// From a client.
pub const BOOTREQUEST: u8 = 1;
/// From a server.
pub const BOOTREPLY: u8 = 2;
/// Nothing on an Ethernet of 1500 carries more; a jumbo frame of options is no boot request.
pub const LARGEST: usize = 1472;
/// RFC 1542 2.1: BOOTP messages have 300 bytes, and some relays and ROMs drop shorter ones.
pub const SMALLEST: usize = 300;

const COOKIE: [u8; 4] = [99, 130, 83, 99];
const OPTIONS_AT: usize = 240;
const BROADCAST_FLAG: u16 = 0x8000;

/// Why a datagram is not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BadPacket {
    /// Shorter than the fixed header.
    #[error("{0} bytes are no DHCP message, which has at least 240")]
    Short(usize),
    /// Longer than any Ethernet frame that a booting machine sends.
    #[error("{0} bytes are more than the {LARGEST} of an Ethernet frame")]
    Long(usize),
    /// Somebody's answer, looped back or from another server.
    #[error("op {0} is not a request")]
    NotARequest(u8),
    /// RFC 2131 section 3: the first four bytes of options.
    #[error("no DHCP magic cookie: plain BOOTP, or none at all")]
    NoCookie,
    /// `chaddr` holds 16 bytes.
    #[error("hardware address of {0} bytes in a field of 16")]
    HardwareLength(u8),
    /// No machine of ours has such an address.
    #[error("hardware type {htype} with {hlen} address bytes is no Ethernet machine's address")]
    NoMac {
        /// As sent.
        htype: u8,
        /// As sent.
        hlen: u8,
    },
    /// An option promises more bytes than there are.
    #[error("option {0} runs past the end of its field")]
    OptionCut(u8),
    /// An option that the exchange hangs on, of a wrong size.
    #[error("option {0} has a wrong length")]
    OptionLength(u8),
    /// Neither DISCOVER nor anything else.
    #[error("no message type (option 53)")]
    NoMessageType,
    /// A message that clients do not send, or that we do not know.
    #[error("message type {0} is not a client's")]
    MessageType(u8),
}

/// The header fields and the options, with option overload (52) already followed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Packet {
    /// [`BOOTREQUEST`] or [`BOOTREPLY`].
    pub op: u8,
    /// Hardware type; 1 is Ethernet.
    pub htype: u8,
    /// How much of `chaddr` counts; never over 16.
    pub hlen: u8,
    /// Relays passed.
    pub hops: u8,
    /// Transaction.
    pub xid: u32,
    /// Seconds since the client began.
    pub secs: u16,
    /// The client cannot take unicast before it has an address.
    pub broadcast: bool,
    /// The address a client has.
    pub ciaddr: Ipv4Addr,
    /// The address a client gets.
    pub yiaddr: Ipv4Addr,
    /// Where the boot file is.
    pub siaddr: Ipv4Addr,
    /// The relay.
    pub giaddr: Ipv4Addr,
    /// Hardware address, as sent.
    pub chaddr: [u8; 16],
    /// Boot file, up to its first NUL.
    pub file: Vec<u8>,
    /// The options.
    pub options: Options,
}

impl Packet {
    /// Reads a datagram. Pure: no byte of it can do more than be refused.
    pub fn decode(datagram: &[u8]) -> Result<Packet, BadPacket> {
        let Some((header, field)) = datagram.split_first_chunk::<OPTIONS_AT>() else {
            return Err(BadPacket::Short(datagram.len()));
        };
        if datagram.len() > LARGEST {
            return Err(BadPacket::Long(datagram.len()));
        }
        if header[236..] != COOKIE {
            return Err(BadPacket::NoCookie);
        }
        if header[2] > 16 {
            return Err(BadPacket::HardwareLength(header[2]));
        }
        let (sname, file) = (&header[44..108], &header[108..236]);
        let mut options = Options::default();
        options.read(field)?;
        // RFC 3396 section 5: the options field first, then `file`, then `sname`. Only the first
        // field's option 52 counts, so no message can send us in circles.
        let overload = options.remove(code::OVERLOAD).and_then(|value| value.first().copied());
        let (in_file, in_sname) =
            (matches!(overload, Some(1 | 3)), matches!(overload, Some(2 | 3)));
        if in_file {
            options.read(file)?;
        }
        if in_sname {
            options.read(sname)?;
        }
        options.remove(code::OVERLOAD);
        let address =
            |at: usize| Ipv4Addr::new(header[at], header[at + 1], header[at + 2], header[at + 3]);
        let mut chaddr = [0; 16];
        chaddr.copy_from_slice(&header[28..44]);
        Ok(Packet {
            op: header[0],
            htype: header[1],
            hlen: header[2],
            hops: header[3],
            xid: u32::from_be_bytes([header[4], header[5], header[6], header[7]]),
            secs: u16::from_be_bytes([header[8], header[9]]),
            broadcast: u16::from_be_bytes([header[10], header[11]]) & BROADCAST_FLAG != 0,
            ciaddr: address(12),
            yiaddr: address(16),
            siaddr: address(20),
            giaddr: address(24),
            chaddr,
            file: if in_file {
                Vec::new()
            } else {
                file.split(|byte| *byte == 0).next().unwrap_or_default().to_vec()
            },
            options,
        })
    }

    /// Writes the datagram, padded to [`SMALLEST`]. A `file` that does not fit its field with
    /// its NUL is left out: option 67 has room for it.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(SMALLEST);
        out.extend_from_slice(&[self.op, self.htype, self.hlen, self.hops]);
        out.extend_from_slice(&self.xid.to_be_bytes());
        out.extend_from_slice(&self.secs.to_be_bytes());
        let flags = if self.broadcast { BROADCAST_FLAG } else { 0 };
        out.extend_from_slice(&flags.to_be_bytes());
        for address in [self.ciaddr, self.yiaddr, self.siaddr, self.giaddr] {
            out.extend_from_slice(&address.octets());
        }
        out.extend_from_slice(&self.chaddr);
        out.extend_from_slice(&[0; 64]);
        let mut file = [0; 128];
        if self.file.len() < file.len() {
            file[..self.file.len()].copy_from_slice(&self.file);
        }
        out.extend_from_slice(&file);
        out.extend_from_slice(&COOKIE);
        self.options.write(&mut out);
        if out.len() < SMALLEST {
            out.resize(SMALLEST, code::PAD);
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn any_address() -> impl Strategy<Value = Ipv4Addr> {
        any::<u32>().prop_map(Ipv4Addr::from)
    }

    prop_compose! {
        fn any_packet()(
            (op, htype, hlen, hops, xid, secs, broadcast) in
                (any::<u8>(), any::<u8>(), 0..=16u8, any::<u8>(), any::<u32>(), any::<u16>(), any::<bool>()),
            (ciaddr, yiaddr, siaddr, giaddr) in
                (any_address(), any_address(), any_address(), any_address()),
            chaddr in any::<[u8; 16]>(),
            file in prop::collection::vec(1..=255u8, 0..128),
            list in prop::collection::vec((1..=254u8, prop::collection::vec(any::<u8>(), 0..300)), 0..4),
        ) -> Packet {
            let mut options = Options::default();
            for (code, value) in list {
                if code != code::OVERLOAD {
                    options.push(code, &value);
                }
            }
            Packet { op, htype, hlen, hops, xid, secs, broadcast, ciaddr, yiaddr, siaddr, giaddr, chaddr, file, options }
        }
    }

    proptest! {
        #[test]
        fn a_packet_reads_back_as_written(packet in any_packet()) {
            let wire = packet.encode();
            prop_assert!(wire.len() >= SMALLEST);
            prop_assert_eq!(Packet::decode(&wire), Ok(packet));
        }

        /// A decoder that others wrote sees what we wrote.
        #[test]
        fn a_stranger_reads_the_same(packet in any_packet()) {
            use dhcproto::v4::borrowed::Message;
            let wire = packet.encode();
            let theirs = Message::new(&wire).expect("a well-formed message");
            prop_assert_eq!(theirs.xid(), packet.xid);
            prop_assert_eq!(theirs.yiaddr(), packet.yiaddr);
            prop_assert_eq!(theirs.siaddr(), packet.siaddr);
            prop_assert_eq!(theirs.giaddr(), packet.giaddr);
            let mut seen = Options::default();
            for option in theirs.opts() {
                seen.push(u8::from(option.code()), option.data());
            }
            prop_assert_eq!(seen, packet.options);
        }

        #[test]
        fn no_bytes_bring_it_down(bytes in prop::collection::vec(any::<u8>(), 0..1600)) {
            let _ = Packet::decode(&bytes);
        }

        /// Noise behind a sound header, so that the options are reached; overload included.
        #[test]
        fn no_options_bring_it_down(
            packet in any_packet(),
            overload in 0..=4u8,
            header in prop::collection::vec(any::<u8>(), 192),
            noise in prop::collection::vec(any::<u8>(), 0..1000),
        ) {
            let mut wire = packet.encode();
            wire.truncate(OPTIONS_AT);
            wire[44..236].copy_from_slice(&header);
            wire.extend_from_slice(&[52, 1, overload]);
            wire.extend_from_slice(&noise);
            if let Ok(packet) = Packet::decode(&wire) {
                let bytes: usize = packet.options.iter().map(|(_, value)| value.len()).sum();
                prop_assert!(bytes <= wire.len(), "no growth");
            }
        }
    }

    fn plain(options: &[u8]) -> Vec<u8> {
        let mut wire = vec![0; OPTIONS_AT];
        (wire[0], wire[1], wire[2]) = (BOOTREQUEST, 1, 6);
        wire[236..].copy_from_slice(&COOKIE);
        wire.extend_from_slice(options);
        wire
    }

    #[test]
    fn what_is_no_message_is_refused_by_name() {
        assert_eq!(Packet::decode(&[]), Err(BadPacket::Short(0)));
        assert_eq!(Packet::decode(&plain(&[])[..239]), Err(BadPacket::Short(239)));
        assert_eq!(Packet::decode(&plain(&[0; 1233])), Err(BadPacket::Long(1473)));
        let mut wire = plain(&[255]);
        wire[236] = 98;
        assert_eq!(Packet::decode(&wire), Err(BadPacket::NoCookie));
        for hlen in [17, 128, 255] {
            let mut wire = plain(&[255]);
            wire[2] = hlen;
            assert_eq!(Packet::decode(&wire), Err(BadPacket::HardwareLength(hlen)));
        }
    }

    #[test]
    fn overload_is_followed_once_and_in_the_order_of_rfc_3396() {
        let mut wire = plain(&[52, 1, 3, 67, 1, b'a', 255]);
        wire[108..116].copy_from_slice(&[67, 1, b'b', 52, 1, 3, 255, 9]);
        wire[44..49].copy_from_slice(&[67, 1, b'c', 255, 9]);
        let packet = Packet::decode(&wire).expect("well formed");
        assert_eq!(packet.options.get(67), Some(&b"abc"[..]));
        assert_eq!(packet.options.get(52), None);
        assert_eq!(packet.file, b"");

        for overload in [0, 4, 255] {
            let mut wire = plain(&[52, 1, overload, 255]);
            wire[108..111].copy_from_slice(&[67, 1, b'b']);
            let packet = Packet::decode(&wire).expect("well formed");
            assert_eq!(packet.options.get(67), None, "overload {overload} means nothing");
            assert_eq!(packet.file, [67, 1, b'b']);
        }

        let mut wire = plain(&[52, 1, 2, 255]);
        wire[44..46].copy_from_slice(&[67, 63]);
        assert_eq!(Packet::decode(&wire), Err(BadPacket::OptionCut(67)), "one byte over sname");
    }

    #[test]
    fn a_name_too_long_for_the_header_is_left_to_option_67() {
        let mut packet = Packet::decode(&plain(&[255])).expect("well formed");
        packet.file = vec![b'x'; 127];
        assert_eq!(Packet::decode(&packet.encode()).expect("ours").file.len(), 127);
        packet.file = vec![b'x'; 128];
        assert_eq!(Packet::decode(&packet.encode()).expect("ours").file.len(), 0);
    }
}
