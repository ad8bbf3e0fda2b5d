//! LAN configuration parameters, kept as the bytes they are.
//!
//! IPMI 2.0 §23.1–23.2, table 23-4. Changing the address does not move the simulator: it listens where it
//! was told to, as a BMC behind a NAT would seem to.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv6Addr};

use koboshi_ipmi::{Completion, Response};

use crate::bmc::Bmc;
use crate::config::Config;
use crate::dispatch::{Asked, LAN, ok, refuse};

const UNSUPPORTED: Completion = Completion(0x80);
const BUSY: Completion = Completion(0x81);
const READ_ONLY: Completion = Completion(0x82);

/// Parameters that cannot be written: authentication types, number of destinations, cipher suites, what
/// IPv6 it has.
const FIXED: [u8; 8] = [1, 17, 22, 23, 50, 55, 59, 73];
/// Parameters of several sets, whose datum begins with the set's number.
const IN_SETS: [u8; 6] = [18, 19, 25, 56, 59, 66];

/// Alert destinations, besides the one that is not kept.
const DESTINATIONS: u8 = 4;

/// LAN configuration parameters, by parameter and set.
#[derive(Debug, Clone)]
pub struct Lan {
    data: BTreeMap<(u8, u8), Vec<u8>>,
}

impl Lan {
    /// As it leaves the factory: a static address, that which it listens at; no gateway, no VLAN.
    pub fn new(config: &Config) -> Lan {
        let mut lan = Lan { data: BTreeMap::new() };
        let address = match config.listen.ip() {
            IpAddr::V4(address) => address.octets(),
            IpAddr::V6(_) => [0; 4],
        };
        let [.., a, b, c] = config.seed.to_be_bytes();
        let mac = [0x52, 0x54, 0x00, a, b, c];
        let auths = config.auths.iter().fold(0, |bits, auth| bits | auth.bit());
        lan.put(0, &[0]);
        lan.put(1, &[auths]);
        lan.put(2, &[auths; 5]);
        lan.put(3, &address);
        lan.put(4, &[1]);
        lan.put(5, &mac);
        lan.put(6, &[255, 255, 255, 0]);
        lan.put(7, &[0x40, 0x40, 0x10]);
        lan.put(8, &config.listen.port().to_le_bytes());
        lan.put(9, &[0x98, 0x02]);
        lan.put(10, &[0x02]);
        lan.put(11, &[0x04]);
        for (address, its_mac) in [(12, 13), (14, 15)] {
            lan.put(address, &[0; 4]);
            lan.put(its_mac, &[0; 6]);
        }
        let mut community = [0; 18];
        community[..6].copy_from_slice(b"public");
        lan.put(16, &community);
        lan.put(17, &[DESTINATIONS]);
        for number in 0..=DESTINATIONS {
            lan.put_in(18, number, &[0, 3, 3]);
            lan.put_in(19, number, &[0; 12]);
            lan.put_in(25, number, &[0; 3]);
        }
        lan.put(20, &[0, 0]);
        lan.put(21, &[0]);
        lan.suites(config);
        lan.put(26, &[0; 6]);
        lan.ipv6(mac);
        lan
    }

    fn put(&mut self, parameter: u8, data: &[u8]) {
        self.data.insert((parameter, 0), data.to_vec());
    }

    fn put_in(&mut self, parameter: u8, set: u8, data: &[u8]) {
        let mut whole = vec![set];
        whole.extend_from_slice(data);
        self.data.insert((parameter, set), whole);
    }

    /// Each of them good for an administrator.
    fn suites(&mut self, config: &Config) {
        let ids: Vec<u8> = config.suites.iter().map(|suite| suite.id).take(16).collect();
        let mut list = vec![0; 17];
        let mut limits = vec![0; 9];
        for (place, id) in ids.iter().enumerate() {
            list[1 + place] = *id;
            limits[1 + place / 2] |= if place % 2 == 0 { 0x04 } else { 0x40 };
        }
        self.put(22, &[u8::try_from(ids.len()).unwrap_or(16)]);
        self.put(23, &list);
        self.put(24, &limits);
    }

    /// Both protocols at once; room for one address of each kind, of which only the link's own is there.
    fn ipv6(&mut self, [a, b, c, d, e, f]: [u8; 6]) {
        let mut of_link = [0; 16];
        of_link[..2].copy_from_slice(&[0xfe, 0x80]);
        of_link[8..].copy_from_slice(&[a ^ 2, b, c, 0xff, 0xfe, d, e, f]);
        let none = Ipv6Addr::UNSPECIFIED.octets();
        let entry = |source: u8, address: [u8; 16], prefix: u8, status: u8| {
            let mut data = vec![source];
            data.extend(address);
            data.extend([prefix, status]);
            data
        };
        self.put(50, &[0x02]);
        self.put(51, &[2]);
        self.put(55, &[1, 1, 0]);
        self.put_in(56, 0, &entry(0x00, none, 0, 1));
        self.put_in(59, 0, &entry(0x01, of_link, 64, 0));
        self.put(64, &[1]);
        self.put(65, &none);
    }
}

/// Answers for it.
pub fn answer(bmc: &mut Bmc, asked: &Asked<'_>) -> Option<Response> {
    match (asked.command, asked.data) {
        (0x01 | 0x02, [channel, ..]) if asked.channel_of(*channel) != LAN => {
            refuse(Completion::INVALID_FIELD)
        }
        (0x01, [_, parameter, data @ ..]) => set(&mut bmc.lan, *parameter, data),
        (0x02, [channel, parameter, set, _block]) => {
            let set = if IN_SETS.contains(parameter) { *set } else { 0 };
            match bmc.lan.data.get(&(*parameter, set)) {
                // Bit 7: its revision alone.
                Some(_) if channel & 0x80 != 0 => ok([0x11]),
                Some(datum) => ok([&[0x11], datum.as_slice()].concat()),
                None if bmc.lan.data.contains_key(&(*parameter, 0)) => {
                    refuse(Completion::OUT_OF_RANGE)
                }
                None => refuse(UNSUPPORTED),
            }
        }
        (0x01 | 0x02, _) => refuse(Completion::LENGTH_INVALID),
        _ => None,
    }
}

fn set(lan: &mut Lan, parameter: u8, data: &[u8]) -> Option<Response> {
    if FIXED.contains(&parameter) {
        return refuse(READ_ONLY);
    }
    let set = match data {
        [set, ..] if IN_SETS.contains(&parameter) => *set,
        _ => 0,
    };
    let is_static = lan.data.get(&(4, 0)).is_some_and(|source| source.first() == Some(&1));
    let Some(datum) = lan.data.get_mut(&(parameter, set)) else { return refuse(UNSUPPORTED) };
    if data.len() != datum.len() {
        return refuse(Completion::LENGTH_INVALID);
    }
    match (parameter, data) {
        (0, [1]) if *datum == [1] => return refuse(BUSY),
        (0, [2]) => *datum = vec![0],
        (0, [3..=255]) => return refuse(Completion::INVALID_FIELD),
        // As real ones: what DHCP gave is not to be written over.
        (3 | 6 | 12, _) if !is_static => return refuse(Completion::NOT_NOW),
        (4, [0 | 4..=255]) => return refuse(Completion::INVALID_FIELD),
        (20, [low, high]) => {
            let id = u16::from_le_bytes([*low, high & 0x0f]);
            if high & 0x80 != 0 && !(1..=4094).contains(&id) {
                return refuse(Completion::INVALID_FIELD);
            }
            *datum = data.to_vec();
        }
        _ => *datum = data.to_vec(),
    }
    ok([])
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use koboshi_ipmi::{NetFn, Request};

    use super::*;

    #[test]
    fn one_change_at_a_time_and_what_cannot_be_changed() {
        let now = Instant::now();
        let mut bmc = Bmc::new(Config::default(), now);
        let mut set = |data: &[u8]| {
            let data = [&[1], data].concat();
            bmc.ask(&Request::new(NetFn::TRANSPORT, 1, data), now).completion.0
        };
        assert_eq!((set(&[0, 1]), set(&[0, 1]), set(&[0, 2]), set(&[0, 0])), (0, 0x81, 0, 0));
        assert_eq!((set(&[23, 0]), set(&[200, 0]), set(&[3, 10, 0])), (0x82, 0x80, 0xc7));
        assert_eq!((set(&[20, 0xff, 0x8f]), set(&[20, 0xe8, 0x83])), (0xcc, 0));
        assert_eq!((set(&[4, 2]), set(&[3, 10, 0, 0, 1])), (0, 0xd5));
        assert_eq!((set(&[4, 1]), set(&[3, 10, 0, 0, 1])), (0, 0));
        let get =
            |bmc: &mut Bmc, data: &[u8]| bmc.ask(&Request::new(NetFn::TRANSPORT, 2, data), now);
        assert_eq!(get(&mut bmc, &[1, 3, 0, 0]).data, [0x11, 10, 0, 0, 1]);
        assert_eq!(get(&mut bmc, &[1, 19, 9, 0]).completion, Completion::OUT_OF_RANGE);
        assert_eq!(get(&mut bmc, &[0x81, 3, 0, 0]).data, [0x11]);
        assert_eq!(get(&mut bmc, &[15, 3, 0, 0]).completion, Completion::INVALID_FIELD);
    }
}
