//! Networks and pools of addresses, and which addresses in them a host can have.

use std::fmt;
use std::net::Ipv4Addr;
use std::str::FromStr;

use serde::{Serialize, Serializer};

use super::names::Malformed;
use super::values::shown;

/// A network: `10.77.0.0/24`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Cidr {
    network: Ipv4Addr,
    prefix: u8,
}

impl Cidr {
    /// The network an address with a prefix length is in.
    pub fn around(address: Ipv4Addr, prefix: u8) -> Cidr {
        let prefix = prefix.min(32);
        Cidr { network: Ipv4Addr::from_bits(address.to_bits() & mask_bits(prefix)), prefix }
    }

    /// Its first address, which no host has.
    pub fn network(self) -> Ipv4Addr {
        self.network
    }

    /// The prefix length.
    pub fn prefix(self) -> u8 {
        self.prefix
    }

    /// As a mask: `255.255.255.0`.
    pub fn netmask(self) -> Ipv4Addr {
        Ipv4Addr::from_bits(mask_bits(self.prefix))
    }

    /// Its last address, which everybody hears.
    pub fn broadcast(self) -> Ipv4Addr {
        Ipv4Addr::from_bits(self.network.to_bits() | !mask_bits(self.prefix))
    }

    /// Is the address within?
    pub fn contains(self, address: Ipv4Addr) -> bool {
        Cidr::around(address, self.prefix) == self
    }

    /// Do they share an address?
    pub fn overlaps(self, other: Cidr) -> bool {
        self.contains(other.network) || other.contains(self.network)
    }

    /// Can a host have this address here? RFC 3021: in a /31 both can.
    pub fn is_host(self, address: Ipv4Addr) -> bool {
        let edge = address == self.network || address == self.broadcast();
        self.contains(address) && (self.prefix >= 31 || !edge)
    }
}

fn mask_bits(prefix: u8) -> u32 {
    u32::MAX.checked_shl(32 - u32::from(prefix)).unwrap_or(0)
}

impl FromStr for Cidr {
    type Err = Malformed;
    fn from_str(text: &str) -> Result<Cidr, Malformed> {
        let bad = || {
            Malformed::new(format!("{} is not a network", shown(text)))
                .help("a network is written like 10.77.0.0/24")
        };
        let (address, prefix) = text.split_once('/').ok_or_else(bad)?;
        let address: Ipv4Addr = address.parse().map_err(|_| bad())?;
        let prefix: u8 = prefix.parse().map_err(|_| bad())?;
        if !(1..=32).contains(&prefix) {
            return Err(bad());
        }
        let cidr = Cidr::around(address, prefix);
        if cidr.network != address {
            return Err(Malformed::new(format!(
                "{} is an address in a network, not a network",
                shown(text)
            ))
            .help(format!("the network is {cidr}")));
        }
        Ok(cidr)
    }
}

impl fmt::Display for Cidr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.network, self.prefix)
    }
}

/// Addresses from one to another, both included.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pool {
    /// The first one.
    pub first: Ipv4Addr,
    /// The last one.
    pub last: Ipv4Addr,
}

impl Pool {
    /// Is the address within?
    pub fn contains(self, address: Ipv4Addr) -> bool {
        (self.first..=self.last).contains(&address)
    }

    /// How many addresses.
    pub fn len(self) -> usize {
        (self.last.to_bits() - self.first.to_bits()) as usize + 1
    }

    /// Never: a pool has at least one address.
    pub fn is_empty(self) -> bool {
        false
    }
}

impl FromStr for Pool {
    type Err = Malformed;
    fn from_str(text: &str) -> Result<Pool, Malformed> {
        let bad = || {
            Malformed::new(format!("{} is not a pool of addresses", shown(text)))
                .help("a pool is written like 10.77.0.200-10.77.0.250")
        };
        let (first, last) = text.split_once('-').ok_or_else(bad)?;
        let first: Ipv4Addr = first.trim().parse().map_err(|_| bad())?;
        let last: Ipv4Addr = last.trim().parse().map_err(|_| bad())?;
        if first > last {
            return Err(Malformed::new(format!("the pool {} runs backwards", shown(text)))
                .help(format!("write {last}-{first}")));
        }
        Ok(Pool { first, last })
    }
}

impl fmt::Display for Pool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.first, self.last)
    }
}

impl Serialize for Cidr {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl Serialize for Pool {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn networks_know_their_edges() {
        let cidr: Cidr = "10.77.0.0/24".parse().unwrap();
        assert_eq!(cidr.netmask().to_string(), "255.255.255.0");
        assert_eq!(cidr.broadcast().to_string(), "10.77.0.255");
        for (address, within, host) in [
            ("10.77.0.0", true, false),
            ("10.77.0.1", true, true),
            ("10.77.0.255", true, false),
            ("10.77.1.1", false, false),
        ] {
            let address = address.parse().unwrap();
            assert_eq!((cidr.contains(address), cidr.is_host(address)), (within, host));
        }
        assert!("10.0.0.0/31".parse::<Cidr>().unwrap().is_host("10.0.0.1".parse().unwrap()));
        assert!(cidr.overlaps("10.0.0.0/8".parse().unwrap()));
        assert!(!cidr.overlaps("10.78.0.0/24".parse().unwrap()));
        assert_eq!(Cidr::around([1, 2, 3, 4].into(), 0).to_string(), "0.0.0.0/0");
        let bad = "10.77.0.5/24".parse::<Cidr>().unwrap_err();
        assert_eq!(bad.help.as_deref(), Some("the network is 10.77.0.0/24"));
        for bad in ["", "10.77.0.0", "10.77.0.0/0", "10.77.0.0/33", "10.77.0/24", "::/64", "a/8"] {
            assert!(bad.parse::<Cidr>().is_err(), "{bad}");
        }
    }

    #[test]
    fn pools_read_back_as_they_print() {
        let pool: Pool = "10.0.0.1-10.0.0.9".parse().unwrap();
        assert_eq!((pool.to_string().as_str(), pool.len()), ("10.0.0.1-10.0.0.9", 9));
        assert!(pool.contains([10, 0, 0, 9].into()) && !pool.contains([10, 0, 0, 10].into()));
        let bad = "10.0.0.9-10.0.0.1".parse::<Pool>().unwrap_err();
        assert_eq!(bad.help.as_deref(), Some("write 10.0.0.1-10.0.0.9"));
        for bad in ["", "10.0.0.1", "10.0.0.0/24", "10.0.0.1-9", "10.0.0.1-10.0.0.2-10.0.0.3"] {
            assert!(bad.parse::<Pool>().is_err(), "{bad}");
        }
    }
}
