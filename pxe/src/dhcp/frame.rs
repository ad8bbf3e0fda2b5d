//! Frames by hand: DHCP to a client that has no address yet and so answers no ARP, and the ARP
//! probe that asks whether an address is somebody's. Ethernet, IPv4, UDP and ARP, bytes ↔ values.

use std::net::Ipv4Addr;

use crate::Mac;

/// EtherType of ARP.
pub const ARP: u16 = 0x0806;
const IPV4: u16 = 0x0800;
const BROADCAST: Mac = Mac([255; 6]);

/// A UDP datagram and the two machines it passes between.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Datagram<'a> {
    /// Sender.
    pub from: (Mac, Ipv4Addr, u16),
    /// Receiver.
    pub to: (Mac, Ipv4Addr, u16),
    /// What it carries.
    pub payload: &'a [u8],
}

impl Datagram<'_> {
    /// The frame. DF stays clear and the id zero: what we send never needs fragments.
    pub fn encode(&self) -> Vec<u8> {
        let ((from_mac, from, from_port), (to_mac, to, to_port)) = (self.from, self.to);
        let udp_length = (8 + self.payload.len()) as u16;
        let mut ip = [0u8; 20];
        ip[0] = 0x45;
        ip[2..4].copy_from_slice(&(20 + udp_length).to_be_bytes());
        ip[8] = 64;
        ip[9] = 17;
        ip[12..16].copy_from_slice(&from.octets());
        ip[16..20].copy_from_slice(&to.octets());
        let checksum = !sum(0, &ip);
        ip[10..12].copy_from_slice(&checksum.to_be_bytes());

        let mut udp = [0u8; 8];
        udp[0..2].copy_from_slice(&from_port.to_be_bytes());
        udp[2..4].copy_from_slice(&to_port.to_be_bytes());
        udp[4..6].copy_from_slice(&udp_length.to_be_bytes());
        // RFC 768: zero would mean that there is no checksum.
        let checksum = match !udp_sum(from, to, &udp, self.payload) {
            0 => 0xffff,
            checksum => checksum,
        };
        udp[6..8].copy_from_slice(&checksum.to_be_bytes());

        let mut out = Vec::with_capacity(42 + self.payload.len());
        out.extend_from_slice(&to_mac.0);
        out.extend_from_slice(&from_mac.0);
        out.extend_from_slice(&IPV4.to_be_bytes());
        out.extend_from_slice(&ip);
        out.extend_from_slice(&udp);
        out.extend_from_slice(self.payload);
        out
    }

    /// Reads a frame; `None` for everything that is not one whole, sound UDP datagram.
    pub fn decode(frame: &[u8]) -> Option<Datagram<'_>> {
        let (ethernet, packet) = frame.split_first_chunk::<14>()?;
        let header = usize::from(packet.first()? & 15) * 4;
        let ip = packet.get(..header).filter(|ip| ip.len() >= 20)?;
        let length = usize::from(u16::from_be_bytes([ip[2], ip[3]]));
        let (udp, payload) = packet.get(header..length)?.split_first_chunk::<8>()?;
        let port = |at: usize| u16::from_be_bytes([udp[at], udp[at + 1]]);
        let address = |at: usize| Ipv4Addr::new(ip[at], ip[at + 1], ip[at + 2], ip[at + 3]);
        let mac = |at: usize| ethernet[at..].first_chunk::<6>().copied().map(Mac);
        let sound = u16::from_be_bytes([ethernet[12], ethernet[13]]) == IPV4
            && ip[0] >> 4 == 4
            && ip[9] == 17
            && sum(0, ip) == 0xffff
            && usize::from(port(4)) == 8 + payload.len()
            && (port(6) == 0 || udp_sum(address(12), address(16), udp, payload) == 0xffff);
        sound.then_some(Datagram {
            from: (mac(6)?, address(12), port(0)),
            to: (mac(0)?, address(16), port(2)),
            payload,
        })
    }
}

/// An ARP packet for IPv4 on Ethernet (RFC 826).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Arp {
    /// 1 asks, 2 answers.
    pub op: u16,
    /// Who sends it.
    pub sender: (Mac, Ipv4Addr),
    /// Whom it is about.
    pub target: (Mac, Ipv4Addr),
}

impl Arp {
    /// RFC 5227 2.1.1: a question from nobody, so that no cache learns anything by it.
    pub fn probe(from: Mac, address: Ipv4Addr) -> Arp {
        Arp { op: 1, sender: (from, Ipv4Addr::UNSPECIFIED), target: (Mac([0; 6]), address) }
    }

    /// RFC 5227 2.3: we have this address, and whoever knew it by another MAC knows better from here on.
    pub fn announcement(from: Mac, address: Ipv4Addr) -> Arp {
        Arp { op: 1, sender: (from, address), target: (Mac([0; 6]), address) }
    }

    /// The frame, broadcast.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(60);
        out.extend_from_slice(&BROADCAST.0);
        out.extend_from_slice(&self.sender.0.0);
        out.extend_from_slice(&ARP.to_be_bytes());
        out.extend_from_slice(&[0, 1, 8, 0, 6, 4]);
        out.extend_from_slice(&self.op.to_be_bytes());
        for (mac, address) in [self.sender, self.target] {
            out.extend_from_slice(&mac.0);
            out.extend_from_slice(&address.octets());
        }
        out.resize(60, 0);
        out
    }

    /// Reads a frame; `None` for everything else.
    pub fn decode(frame: &[u8]) -> Option<Arp> {
        let arp = frame.get(14..)?.first_chunk::<28>()?;
        if frame[12..14] != ARP.to_be_bytes() || arp[..6] != [0, 1, 8, 0, 6, 4] {
            return None;
        }
        let party = |at: usize| {
            let mac = Mac(*arp[at..].first_chunk::<6>()?);
            Some((mac, Ipv4Addr::from(*arp[at + 6..].first_chunk::<4>()?)))
        };
        Some(Arp {
            op: u16::from_be_bytes([arp[6], arp[7]]),
            sender: party(8)?,
            target: party(18)?,
        })
    }
}

/// The ones' complement sum of RFC 1071, on top of a former one.
fn sum(start: u32, bytes: &[u8]) -> u16 {
    let (pairs, rest) = bytes.as_chunks::<2>();
    let mut sum = pairs
        .iter()
        .fold(start, |sum, pair| sum.wrapping_add(u32::from(u16::from_be_bytes(*pair))));
    if let [last] = rest {
        sum += u32::from(*last) << 8;
    }
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    sum as u16
}

fn udp_sum(from: Ipv4Addr, to: Ipv4Addr, udp: &[u8; 8], payload: &[u8]) -> u16 {
    let mut pseudo = [0u8; 12];
    pseudo[0..4].copy_from_slice(&from.octets());
    pseudo[4..8].copy_from_slice(&to.octets());
    pseudo[9] = 17;
    pseudo[10..12].copy_from_slice(&udp[4..6]);
    let head = sum(sum(0, &pseudo).into(), udp);
    sum(head.into(), payload)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const A: (Mac, Ipv4Addr, u16) = (Mac([2, 0, 0, 0, 0, 1]), Ipv4Addr::new(10, 0, 0, 1), 67);
    const B: (Mac, Ipv4Addr, u16) = (Mac([2, 0, 0, 0, 0, 2]), Ipv4Addr::new(10, 0, 0, 2), 68);

    /// The sums of RFC 1071 worked out apart from the code above.
    #[test]
    fn checksums_as_worked_by_hand() {
        let frame = Datagram { from: A, to: B, payload: b"ok!" }.encode();
        assert_eq!(frame.len(), 45);
        assert_eq!(frame[24..26], [0x66, 0xcc]);
        assert_eq!(frame[40..42], [0x5a, 0xe3]);
    }

    #[test]
    fn a_changed_bit_is_noticed() {
        let frame = Datagram { from: A, to: B, payload: b"payload" }.encode();
        assert!(Datagram::decode(&frame).is_some());
        for at in 14..frame.len() {
            for bit in 0..8 {
                let mut bad = frame.clone();
                bad[at] ^= 1 << bit;
                assert_eq!(Datagram::decode(&bad), None, "byte {at} bit {bit}");
            }
        }
    }

    #[test]
    fn a_probe_reads_back() {
        let probe = Arp::probe(A.0, B.1);
        assert_eq!(Arp::decode(&probe.encode()), Some(probe));
        assert_eq!(probe.sender.1, Ipv4Addr::UNSPECIFIED);
        for length in 0..42 {
            assert_eq!(Arp::decode(&probe.encode()[..length]), None);
        }
    }

    proptest! {
        #[test]
        fn a_datagram_reads_back(payload in prop::collection::vec(any::<u8>(), 0..1473)) {
            let datagram = Datagram { from: A, to: B, payload: &payload };
            let mut frame = datagram.encode();
            prop_assert_eq!(Datagram::decode(&frame), Some(datagram.clone()));
            frame.extend_from_slice(&[0; 20]);
            prop_assert_eq!(Datagram::decode(&frame), Some(datagram), "Ethernet's padding");
        }

        #[test]
        fn no_bytes_bring_it_down(frame in prop::collection::vec(any::<u8>(), 0..100)) {
            let _ = (Datagram::decode(&frame), Arp::decode(&frame));
        }
    }
}
