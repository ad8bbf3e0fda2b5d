//! A BMC's IPv6 addresses, as far as it tells.
//!
//! IPMI 2.0 (errata 6 and later) table 23-4, parameters 50 to 102.

use std::net::Ipv6Addr;

use serde::Serialize;

use super::parameters::Table;
use crate::controller::Controller;
use crate::error::Error;

/// IPv6 and IPv4 support.
pub const SUPPORT: u8 = 50;
/// IPv6 and IPv4 addressing enables.
pub const ENABLES: u8 = 51;
/// How many addresses there may be.
pub const STATUS: u8 = 55;
/// Addresses that were set.
pub const STATIC: u8 = 56;
/// Addresses that came by themselves.
pub const DYNAMIC: u8 = 59;
/// The first router that was set.
pub const ROUTER: u8 = 65;

/// Which of the two a BMC speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Mode {
    /// IPv4 alone.
    V4,
    /// IPv6 alone.
    V6,
    /// Both.
    Both,
}

/// One address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Address {
    /// It.
    pub address: Ipv6Addr,
    /// Bits of its prefix.
    pub prefix: u8,
    /// It was set; otherwise it came by router advertisements or DHCPv6.
    pub set: bool,
    /// It is in use, not disabled, pending or a duplicate.
    pub active: bool,
}

/// What a BMC has of IPv6.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Ipv6 {
    /// Which it speaks.
    pub mode: Mode,
    /// Its addresses.
    pub addresses: Vec<Address>,
    /// The router that was set.
    pub router: Option<Ipv6Addr>,
}

/// Addresses of either kind that are asked for at most, whatever a BMC counts.
const MOST: u8 = 16;

fn address(data: &[u8], set: bool) -> Option<Address> {
    let [_, source, rest @ ..] = data else { return None };
    let (bytes, rest) = rest.split_first_chunk::<16>()?;
    let address = Ipv6Addr::from(*bytes);
    let enabled = !set || source & 0x80 != 0;
    let active = enabled && rest.get(1).copied().unwrap_or(0) == 0;
    (!address.is_unspecified()).then_some(Address {
        address,
        prefix: rest.first().copied().unwrap_or(0).min(128),
        set,
        active,
    })
}

/// What it has; `None` where it has no IPv6, or tells nothing of it.
pub async fn get(bmc: &impl Controller, table: Table) -> Result<Option<Ipv6>, Error> {
    if table.read_if_known(bmc, SUPPORT, 0, 0).await?.is_none() {
        return Ok(None);
    }
    let mode = match table.read_if_known(bmc, ENABLES, 0, 0).await?.as_deref() {
        Some([1, ..]) => Mode::V6,
        Some([2, ..]) => Mode::Both,
        _ => Mode::V4,
    };
    let mut found = Ipv6 { mode, addresses: Vec::new(), router: None };
    if mode == Mode::V4 {
        return Ok(Some(found));
    }
    let counts = table.read_if_known(bmc, STATUS, 0, 0).await?.unwrap_or_default();
    for (place, parameter) in [STATIC, DYNAMIC].into_iter().enumerate() {
        let count = counts.get(place).copied().unwrap_or(0).min(MOST);
        for number in 0..count {
            let Some(data) = table.read_if_known(bmc, parameter, number, 0).await? else { break };
            found.addresses.extend(address(&data, parameter == STATIC));
        }
    }
    let router = table.read_if_known(bmc, ROUTER, 0, 0).await?.unwrap_or_default();
    found.router = router
        .first_chunk::<16>()
        .map(|bytes| Ipv6Addr::from(*bytes))
        .filter(|address| !address.is_unspecified());
    Ok(Some(found))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::commands::script::{Script, ok, refuse};
    use crate::message::{Request, Response};

    fn read(parameter: u8, set: u8, data: &[u8]) -> (Request, Result<Response, Error>) {
        (Table::lan(1).get_request(parameter, set, 0), ok([&[0x11], data].concat()))
    }

    fn entry(number: u8, source: u8, address: Ipv6Addr, status: u8) -> Vec<u8> {
        let mut data = vec![number, source];
        data.extend(address.octets());
        data.extend([64, status]);
        data
    }

    proptest! {
        #[test]
        fn any_bytes(data in prop::collection::vec(any::<u8>(), 0..24)) {
            prop_assert!(data.len() >= 18 || address(&data, true).is_none());
        }
    }

    #[tokio::test]
    async fn addresses_of_both_kinds_and_a_count_that_lies() {
        let [one, two] = ["fd00::1", "fe80::5054:ff:fe77:1"].map(|text| text.parse().unwrap());
        let mut steps = vec![
            read(SUPPORT, 0, &[6]),
            read(ENABLES, 0, &[2]),
            read(STATUS, 0, &[255, 2, 3]),
            read(STATIC, 0, &entry(0, 0x80, one, 0)),
        ];
        steps.extend((1..MOST).map(|n| read(STATIC, n, &entry(n, 0, Ipv6Addr::UNSPECIFIED, 1))));
        steps.extend([
            read(DYNAMIC, 0, &entry(0, 1, two, 3)),
            (Table::lan(1).get_request(DYNAMIC, 1, 0), refuse(0xc9)),
            read(ROUTER, 0, &one.octets()),
        ]);
        let bmc = Script::new(steps);
        let found = get(&bmc, Table::lan(1)).await.unwrap().unwrap();
        assert_eq!((found.mode, found.router, found.addresses.len()), (Mode::Both, Some(one), 2));
        assert!(found.addresses[0].active && found.addresses[0].set);
        assert!(!found.addresses[1].active && !found.addresses[1].set);
        bmc.finish();
    }
}
