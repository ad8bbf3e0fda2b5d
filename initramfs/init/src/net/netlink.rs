//! rtnetlink as bytes: the requests that give a NIC its name, MTU, address and routes. Links made of
//! other links are in [`stacked`].
//!
//! ```text
//! nlmsghdr  len:u32 type:u16 flags:u16 seq:u32 pid:u32      all in host order
//! then the family's own header, then attributes  len:u16 type:u16 value, padded to 4
//! ```

use std::net::Ipv4Addr;

pub mod stacked;

const NLMSG_ERROR: u16 = 2;
const RTM_NEWLINK: u16 = 16;
const RTM_NEWADDR: u16 = 20;
const RTM_NEWROUTE: u16 = 24;

const REQUEST: u16 = 0x001;
const ACK: u16 = 0x004;
const REPLACE: u16 = 0x100;
const CREATE: u16 = 0x400;

const AF_INET: u8 = 2;
const IFF_UP: u32 = 1;

/// Takes the interface down or brings it up.
pub fn set_up(seq: u32, index: u32, up: bool) -> Vec<u8> {
    link(seq, index, if up { IFF_UP } else { 0 }, IFF_UP, &[])
}

/// Renames it; the kernel wants it down.
pub fn set_name(seq: u32, index: u32, name: &str) -> Vec<u8> {
    let mut value = name.as_bytes().to_vec();
    value.push(0);
    link(seq, index, 0, 0, &[(3, &value)]) // IFLA_IFNAME
}

/// Sets the MTU.
pub fn set_mtu(seq: u32, index: u32, mtu: u32) -> Vec<u8> {
    link(seq, index, 0, 0, &[(4, &mtu.to_ne_bytes())]) // IFLA_MTU
}

/// Gives it an address.
pub fn add_address(seq: u32, index: u32, address: Ipv4Addr, prefix: u8) -> Vec<u8> {
    let mut body = vec![AF_INET, prefix, 0, 0];
    body.extend(index.to_ne_bytes());
    attribute(&mut body, 1, &address.octets()); // IFA_ADDRESS
    attribute(&mut body, 2, &address.octets()); // IFA_LOCAL
    // RFC 3021: a /31 has no broadcast address, a /32 nobody to broadcast to.
    if prefix < 31 {
        attribute(&mut body, 4, &broadcast(address, prefix).octets()); // IFA_BROADCAST
    }
    message(RTM_NEWADDR, CREATE | REPLACE, seq, &body)
}

/// A way to somewhere: a static route, or the default one (`0.0.0.0/0`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hop {
    /// Where to.
    pub to: Ipv4Addr,
    /// Network bits.
    pub prefix: u8,
    /// By which router.
    pub via: Ipv4Addr,
    /// The lower one goes first.
    pub metric: u32,
    /// The router is outside the interface's own networks, as hosters do.
    pub onlink: bool,
}

/// Adds a route.
pub fn add_route(seq: u32, index: u32, hop: &Hop) -> Vec<u8> {
    const TABLE_MAIN: u8 = 254;
    // As networkd would write it: it then finds its own route there and adds no second one.
    const PROTO_STATIC: u8 = 4;
    const UNICAST: u8 = 1;
    const ONLINK: u32 = 4;
    let mut body = vec![AF_INET, hop.prefix, 0, 0, TABLE_MAIN, PROTO_STATIC, 0, UNICAST];
    body.extend(if hop.onlink { ONLINK } else { 0 }.to_ne_bytes());
    if hop.prefix > 0 {
        // RFC 4632: the kernel refuses a destination with host bits in it.
        let to = u32::from(hop.to) & !host_bits(hop.prefix);
        attribute(&mut body, 1, &to.to_be_bytes()); // RTA_DST
    }
    attribute(&mut body, 5, &hop.via.octets()); // RTA_GATEWAY
    if hop.metric > 0 {
        attribute(&mut body, 6, &hop.metric.to_ne_bytes()); // RTA_PRIORITY
    }
    attribute(&mut body, 4, &index.to_ne_bytes()); // RTA_OIF
    message(RTM_NEWROUTE, CREATE | REPLACE, seq, &body)
}

/// What the kernel said to request `seq`: nothing yet, done, or an errno.
pub fn acknowledged(datagram: &[u8], seq: u32) -> Option<Result<(), i32>> {
    let mut rest = datagram;
    while rest.len() >= 16 {
        let word = |at: usize| [rest[at], rest[at + 1], rest[at + 2], rest[at + 3]];
        let len = u32::from_ne_bytes(word(0)) as usize;
        if len < 16 || len > rest.len() {
            return None;
        }
        let kind = u16::from_ne_bytes([rest[4], rest[5]]);
        if kind == NLMSG_ERROR && u32::from_ne_bytes(word(8)) == seq && len >= 20 {
            return Some(match i32::from_ne_bytes(word(16)) {
                0 => Ok(()),
                errno => Err(errno.saturating_neg()),
            });
        }
        rest = rest.get(len.next_multiple_of(4)..).unwrap_or_default();
    }
    None
}

/// Whether two addresses share a network.
pub fn same_network(one: Ipv4Addr, other: Ipv4Addr, prefix: u8) -> bool {
    (u32::from(one) ^ u32::from(other)) & !host_bits(prefix) == 0
}

fn broadcast(address: Ipv4Addr, prefix: u8) -> Ipv4Addr {
    Ipv4Addr::from(u32::from(address) | host_bits(prefix))
}

fn host_bits(prefix: u8) -> u32 {
    u32::MAX.checked_shr(prefix.into()).unwrap_or(0)
}

fn link(seq: u32, index: u32, flags: u32, change: u32, attributes: &[(u16, &[u8])]) -> Vec<u8> {
    let mut body = vec![0; 4]; // AF_UNSPEC, padding, type
    body.extend(index.to_ne_bytes());
    body.extend(flags.to_ne_bytes());
    body.extend(change.to_ne_bytes());
    for (kind, value) in attributes {
        attribute(&mut body, *kind, value);
    }
    message(RTM_NEWLINK, 0, seq, &body)
}

fn attribute(body: &mut Vec<u8>, kind: u16, value: &[u8]) {
    let len = u16::try_from(4 + value.len()).expect("our longest attribute is a bond of 60 bytes");
    body.extend(len.to_ne_bytes());
    body.extend(kind.to_ne_bytes());
    body.extend(value);
    body.resize(body.len().next_multiple_of(4), 0);
}

fn message(kind: u16, flags: u16, seq: u32, body: &[u8]) -> Vec<u8> {
    let len = u32::try_from(16 + body.len()).expect("a request is under 200 bytes");
    let mut bytes = len.to_ne_bytes().to_vec();
    bytes.extend(kind.to_ne_bytes());
    bytes.extend((REQUEST | ACK | flags).to_ne_bytes());
    bytes.extend(seq.to_ne_bytes());
    bytes.extend([0; 4]); // to the kernel
    bytes.extend(body);
    bytes
}

#[cfg(all(test, target_endian = "little"))]
mod tests {
    use super::*;

    // Bytes as iproute2 sends them (strace of `ip`), ACK flag added.
    #[test]
    fn link_up() {
        let meant = [
            32, 0, 0, 0, 16, 0, 5, 0, 7, 0, 0, 0, 0, 0, 0, 0, // header, seq 7
            0, 0, 0, 0, 2, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0, // index 2, IFF_UP of IFF_UP
        ];
        assert_eq!(set_up(7, 2, true), meant);
        assert_eq!(set_up(7, 2, false)[24..28], [0; 4]);
    }

    #[test]
    fn names_are_terminated_and_padded() {
        let bytes = set_name(1, 3, "eno1");
        assert_eq!(bytes[32..], [9, 0, 3, 0, b'e', b'n', b'o', b'1', 0, 0, 0, 0]);
        assert_eq!(bytes[0], 44);
        assert_eq!(set_mtu(1, 3, 9000)[32..], [8, 0, 4, 0, 0x28, 0x23, 0, 0]);
    }

    #[test]
    fn address_with_broadcast() {
        let meant = [
            48, 0, 0, 0, 20, 0, 5, 5, 2, 0, 0, 0, 0, 0, 0, 0, // CREATE, REPLACE, ACK, REQUEST
            2, 24, 0, 0, 2, 0, 0, 0, // inet /24 on index 2
            8, 0, 1, 0, 10, 77, 0, 11, 8, 0, 2, 0, 10, 77, 0, 11, 8, 0, 4, 0, 10, 77, 0, 255,
        ];
        assert_eq!(add_address(2, 2, Ipv4Addr::new(10, 77, 0, 11), 24), meant);
        assert_eq!(add_address(2, 2, Ipv4Addr::new(10, 77, 0, 11), 31).len(), 40);
        assert_eq!(add_address(2, 2, Ipv4Addr::new(10, 77, 0, 11), 32).len(), 40);
    }

    #[test]
    fn routes() {
        let mut hop = Hop {
            to: Ipv4Addr::UNSPECIFIED,
            prefix: 0,
            via: Ipv4Addr::new(10, 77, 0, 1),
            metric: 0,
            onlink: false,
        };
        let meant = [
            44, 0, 0, 0, 24, 0, 5, 5, 3, 0, 0, 0, 0, 0, 0, 0, //
            2, 0, 0, 0, 254, 4, 0, 1, 0, 0, 0, 0, // inet, main, static, universe, unicast
            8, 0, 5, 0, 10, 77, 0, 1, 8, 0, 4, 0, 2, 0, 0, 0,
        ];
        assert_eq!(add_route(3, 2, &hop), meant);
        hop.onlink = true;
        assert_eq!(add_route(3, 2, &hop)[24], 4);
        let hop = Hop {
            to: Ipv4Addr::new(10, 80, 9, 9),
            prefix: 16,
            via: Ipv4Addr::new(10, 77, 0, 254),
            metric: 1024,
            onlink: false,
        };
        let meant = [
            60, 0, 0, 0, 24, 0, 5, 5, 3, 0, 0, 0, 0, 0, 0, 0, //
            2, 16, 0, 0, 254, 4, 0, 1, 0, 0, 0, 0, //
            8, 0, 1, 0, 10, 80, 0, 0, 8, 0, 5, 0, 10, 77, 0, 254, 8, 0, 6, 0, 0, 4, 0, 0, 8, 0, 4,
            0, 2, 0, 0, 0,
        ];
        assert_eq!(add_route(3, 2, &hop), meant);
    }

    #[test]
    fn answers() {
        let mut answer = message(NLMSG_ERROR, 0, 9, &[0; 20]);
        assert_eq!(acknowledged(&answer, 9), Some(Ok(())));
        assert_eq!(acknowledged(&answer, 8), None);
        answer[16..20].copy_from_slice(&(-16i32).to_ne_bytes());
        assert_eq!(acknowledged(&answer, 9), Some(Err(16)));
        // Behind another message, as when an event slips in.
        let mut two = message(RTM_NEWLINK, 0, 0, &[0; 17]);
        two.resize(two.len().next_multiple_of(4), 0);
        two.extend(&answer);
        assert_eq!(acknowledged(&two, 9), Some(Err(16)));
    }

    #[test]
    fn cut_and_false_lengths_are_no_answer() {
        let answer = message(NLMSG_ERROR, 0, 9, &[0; 20]);
        for cut in 0..answer.len() {
            assert_eq!(acknowledged(&answer[..cut], 9), None);
        }
        for len in [0u32, 15, 16, 19, u32::MAX] {
            let mut lie = answer.clone();
            lie[..4].copy_from_slice(&len.to_ne_bytes());
            assert_eq!(acknowledged(&lie, 9), None, "{len}");
        }
    }

    #[test]
    fn networks() {
        let (a, b) = (Ipv4Addr::new(10, 77, 0, 11), Ipv4Addr::new(10, 77, 1, 1));
        for (prefix, meant) in [(0, true), (8, true), (23, true), (24, false), (32, false)] {
            assert_eq!(same_network(a, b, prefix), meant, "/{prefix}");
        }
        assert_eq!(broadcast(a, 0), Ipv4Addr::BROADCAST);
    }
}
