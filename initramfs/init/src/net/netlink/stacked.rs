//! Links made of other links: bonds and VLANs.
//!
//! ```text
//! IFLA_LINKINFO { IFLA_INFO_KIND "bond", IFLA_INFO_DATA { the kind's own attributes } }
//! ```

use super::{CREATE, RTM_NEWLINK, attribute, message};
use crate::contract::BondMode;
use crate::net::arp::Mac;

const RTM_DELLINK: u16 = 17;
const EXCL: u16 = 0x200;

const ADDRESS: u16 = 1;
const IFNAME: u16 = 3;
const LINK: u16 = 5;
const MASTER: u16 = 10;
const LINKINFO: u16 = 18;
const INFO_KIND: u16 = 1;
const INFO_DATA: u16 = 2;

/// Milliseconds between two looks at a member's carrier. The kernel's default is never to look.
const MIIMON: u32 = 100;

/// Makes a bond, without members yet. Its address is given and not its first member's: DHCP, the
/// switch and the site know the machine by the boot NIC's.
pub fn new_bond(seq: u32, name: &str, mac: Mac, mode: BondMode) -> Vec<u8> {
    let mut options = Vec::new();
    attribute(&mut options, 1, &[if mode == BondMode::Lacp { 4 } else { 1 }]); // IFLA_BOND_MODE
    attribute(&mut options, 3, &MIIMON.to_ne_bytes()); // IFLA_BOND_MIIMON
    match mode {
        // PRIMARY_RESELECT failure: a port that has its link back may still be listening for
        // spanning tree, and the one that works is good enough.
        BondMode::ActiveBackup => attribute(&mut options, 12, &[2]),
        // XMIT_HASH_POLICY layer2+3: by layer 2 all that goes to the router is one flow.
        BondMode::Lacp => attribute(&mut options, 14, &[2]),
    }
    let mut body = vec![0; 16];
    attribute(&mut body, ADDRESS, &mac);
    attribute(&mut body, IFNAME, &terminated(name));
    kind(&mut body, b"bond", &options);
    message(RTM_NEWLINK, CREATE | EXCL, seq, &body)
}

/// Which member of a bond works as long as it can.
pub fn set_primary(seq: u32, bond: u32, member: u32) -> Vec<u8> {
    let mut options = Vec::new();
    attribute(&mut options, 11, &member.to_ne_bytes()); // IFLA_BOND_PRIMARY
    let mut body = to(bond);
    kind(&mut body, b"bond", &options);
    message(RTM_NEWLINK, 0, seq, &body)
}

/// Makes an interface a member of a bond; the kernel wants it down.
pub fn set_master(seq: u32, index: u32, bond: u32) -> Vec<u8> {
    let mut body = to(index);
    attribute(&mut body, MASTER, &bond.to_ne_bytes());
    message(RTM_NEWLINK, 0, seq, &body)
}

/// Makes a VLAN on top of a link.
pub fn new_vlan(seq: u32, name: &str, parent: u32, id: u16) -> Vec<u8> {
    let mut options = Vec::new();
    attribute(&mut options, 1, &id.to_ne_bytes()); // IFLA_VLAN_ID
    let mut body = vec![0; 16];
    attribute(&mut body, LINK, &parent.to_ne_bytes());
    attribute(&mut body, IFNAME, &terminated(name));
    kind(&mut body, b"vlan", &options);
    message(RTM_NEWLINK, CREATE | EXCL, seq, &body)
}

/// Takes a bond or VLAN away, with all that is on top of it. Hardware refuses.
pub fn delete(seq: u32, index: u32) -> Vec<u8> {
    message(RTM_DELLINK, 0, seq, &to(index))
}

fn to(index: u32) -> Vec<u8> {
    let mut body = vec![0; 16];
    body[4..8].copy_from_slice(&index.to_ne_bytes());
    body
}

fn kind(body: &mut Vec<u8>, kind: &[u8], options: &[u8]) {
    let mut info = Vec::new();
    attribute(&mut info, INFO_KIND, kind);
    attribute(&mut info, INFO_DATA, options);
    attribute(body, LINKINFO, &info);
}

fn terminated(name: &str) -> Vec<u8> {
    let mut value = name.as_bytes().to_vec();
    value.push(0);
    value
}

#[cfg(all(test, target_endian = "little"))]
mod tests {
    use super::*;

    // Bytes as iproute2 sends them (strace of `ip`).
    #[test]
    fn bonds() {
        let meant = [
            96, 0, 0, 0, 16, 0, 5, 6, 7, 0, 0, 0, 0, 0, 0, 0, // CREATE, EXCL, ACK, REQUEST
            0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, // ifinfomsg
            10, 0, 1, 0, 0x52, 0x54, 0, 0x77, 0, 1, 0, 0, // IFLA_ADDRESS
            10, 0, 3, 0, b'b', b'o', b'n', b'd', b'0', 0, 0, 0, // IFLA_IFNAME
            40, 0, 18, 0, 8, 0, 1, 0, b'b', b'o', b'n', b'd', // IFLA_LINKINFO, INFO_KIND
            28, 0, 2, 0, 5, 0, 1, 0, 1, 0, 0, 0, // INFO_DATA, MODE active-backup
            8, 0, 3, 0, 100, 0, 0, 0, 5, 0, 12, 0, 2, 0, 0,
            0, // MIIMON, PRIMARY_RESELECT failure
        ];
        let mac = [0x52, 0x54, 0, 0x77, 0, 1];
        assert_eq!(new_bond(7, "bond0", mac, BondMode::ActiveBackup), meant);
        let lacp = new_bond(7, "bond0", mac, BondMode::Lacp);
        assert_eq!(lacp[76], 4);
        assert_eq!(lacp[88..], [5, 0, 14, 0, 2, 0, 0, 0]);
    }

    #[test]
    fn members() {
        let meant = [
            40, 0, 0, 0, 16, 0, 5, 0, 7, 0, 0, 0, 0, 0, 0, 0, //
            0, 0, 0, 0, 3, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, //
            8, 0, 10, 0, 5, 0, 0, 0,
        ];
        assert_eq!(set_master(7, 3, 5), meant);
        let meant = [
            56, 0, 0, 0, 16, 0, 5, 0, 7, 0, 0, 0, 0, 0, 0, 0, //
            0, 0, 0, 0, 5, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, //
            24, 0, 18, 0, 8, 0, 1, 0, b'b', b'o', b'n', b'd', //
            12, 0, 2, 0, 8, 0, 11, 0, 3, 0, 0, 0,
        ];
        assert_eq!(set_primary(7, 5, 3), meant);
    }

    #[test]
    fn vlans() {
        let meant = [
            76, 0, 0, 0, 16, 0, 5, 6, 7, 0, 0, 0, 0, 0, 0, 0, //
            0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, //
            8, 0, 5, 0, 1, 0, 0, 0, 10, 0, 3, 0, b'l', b'o', b'.', b'2', b'0', 0, 0, 0, //
            24, 0, 18, 0, 8, 0, 1, 0, b'v', b'l', b'a', b'n', //
            12, 0, 2, 0, 6, 0, 1, 0, 20, 0, 0, 0,
        ];
        assert_eq!(new_vlan(7, "lo.20", 1, 20), meant);
        let meant = [
            32, 0, 0, 0, 17, 0, 5, 0, 7, 0, 0, 0, 0, 0, 0, 0, //
            0, 0, 0, 0, 9, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
        ];
        assert_eq!(delete(7, 9), meant);
    }
}
