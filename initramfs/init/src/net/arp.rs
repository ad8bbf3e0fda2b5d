//! ARP on the wire (RFC 826, RFC 5227): is the address free, and it is mine now.

use std::net::Ipv4Addr;

/// An Ethernet address.
pub type Mac = [u8; 6];

const REQUEST: u16 = 1;
const REPLY: u16 = 2;

/// "Who has `address`?", from nobody (RFC 5227 §2.1.1): no cache on the wire changes by it.
pub fn probe(mac: Mac, address: Ipv4Addr) -> [u8; 42] {
    frame(mac, Ipv4Addr::UNSPECIFIED, address)
}

/// "`address` is at `mac`" (RFC 5227 §2.3): every cache that knew another learns this one.
pub fn announce(mac: Mac, address: Ipv4Addr) -> [u8; 42] {
    frame(mac, address, address)
}

/// Who else uses `address`, if this frame gives somebody away: its sender has the address, or
/// probes for it at the same moment as we do (RFC 5227 §2.1.1).
pub fn rival(bytes: &[u8], mac: Mac, address: Ipv4Addr) -> Option<Mac> {
    let arp = bytes.get(14..42)?;
    if bytes[12..14] != [0x08, 0x06] || arp[..6] != [0, 1, 8, 0, 6, 4] {
        return None;
    }
    let operation = u16::from_be_bytes([arp[6], arp[7]]);
    if operation != REQUEST && operation != REPLY {
        return None;
    }
    let sender: Mac = arp[8..14].try_into().ok()?;
    let sender_at = Ipv4Addr::new(arp[14], arp[15], arp[16], arp[17]);
    let target_at = Ipv4Addr::new(arp[24], arp[25], arp[26], arp[27]);
    let probing = operation == REQUEST && sender_at.is_unspecified() && target_at == address;
    (sender != mac && (sender_at == address || probing)).then_some(sender)
}

fn frame(mac: Mac, sender: Ipv4Addr, target: Ipv4Addr) -> [u8; 42] {
    let mut bytes = [0u8; 42];
    bytes[..6].fill(0xff);
    bytes[6..12].copy_from_slice(&mac);
    bytes[12..22].copy_from_slice(&[0x08, 0x06, 0, 1, 8, 0, 6, 4, 0, 1]);
    bytes[22..28].copy_from_slice(&mac);
    bytes[28..32].copy_from_slice(&sender.octets());
    bytes[38..42].copy_from_slice(&target.octets());
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    const ME: Mac = [0x52, 0x54, 0, 0x77, 0, 1];
    const OTHER: Mac = [0x52, 0x54, 0, 0x77, 0, 2];
    const AT: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 11);

    #[test]
    fn probe_bytes() {
        let meant = [
            0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x52, 0x54, 0, 0x77, 0, 1, 8, 6, // Ethernet
            0, 1, 8, 0, 6, 4, 0, 1, 0x52, 0x54, 0, 0x77, 0, 1, 0, 0, 0, 0, // from nobody
            0, 0, 0, 0, 0, 0, 10, 77, 0, 11,
        ];
        assert_eq!(probe(ME, AT), meant);
        assert_eq!(announce(ME, AT)[28..32], [10, 77, 0, 11]);
    }

    #[test]
    fn tells_a_rival_from_the_rest() {
        let elsewhere = Ipv4Addr::new(10, 77, 0, 12);
        let mut reply = announce(OTHER, AT);
        reply[21] = 2;
        let table = [
            (announce(OTHER, AT), Some(OTHER)),
            (reply, Some(OTHER)),
            (probe(OTHER, AT), Some(OTHER)),
            (probe(OTHER, elsewhere), None),
            (announce(OTHER, elsewhere), None),
            (frame(OTHER, elsewhere, AT), None), // somebody asks for us, rightly
            (announce(ME, AT), None),            // our own, back from a loop or a hub
            (probe(ME, AT), None),
        ];
        for (at, (bytes, meant)) in table.iter().enumerate() {
            assert_eq!(rival(bytes, ME, AT), *meant, "row {at}");
        }
    }

    #[test]
    fn short_and_foreign_frames_are_nobody() {
        let whole = announce(OTHER, AT);
        for cut in 0..whole.len() {
            assert_eq!(rival(&whole[..cut], ME, AT), None);
        }
        for (at, byte) in [(12, 0x86), (14, 9), (18, 8), (21, 9)] {
            let mut bytes = whole;
            bytes[at] = byte;
            assert_eq!(rival(&bytes, ME, AT), None, "byte {at}");
        }
    }
}
