//! The counter between the boot decision and DHCP: what the site wants done about a client. The
//! decision is made elsewhere and comes in as a value.

use std::collections::HashSet;
use std::net::Ipv4Addr;
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;

use crate::Mac;

/// What to do about a client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// Nothing: not ours, or not to be helped.
    Silence,
    /// Nothing, and no word of it: somebody else's to answer, or told already.
    Aside,
    /// Give it an address, and perhaps something to boot.
    Serve(Serving),
    /// Something to boot, but no address: another server gives those (`mode = "proxy"`).
    Proxy(Proxying),
}

/// What one client is given beside another DHCP server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Proxying {
    /// The network it stands in.
    pub subnet: Arc<Subnet>,
    /// What to boot.
    pub boot: BootFile,
}

/// What one client is given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Serving {
    /// Which address.
    pub address: Address,
    /// The network it stands in.
    pub subnet: Arc<Subnet>,
    /// Its name (option 12).
    pub hostname: Option<String>,
    /// What to boot; nothing for a client that only wants an address.
    pub boot: Option<BootFile>,
    /// Whether the site knows it.
    pub who: Who,
    /// All NICs of its machine, as far as the site knows them: a lease of one is no other machine's.
    pub macs: Vec<Mac>,
    /// It runs there, and reported a moment ago: whoever gives its address up in its name is not it.
    pub runs: bool,
}

/// Whether the site knows a client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Who {
    /// A machine of the site, or one's BMC.
    Machine,
    /// One that the site does not know, and that has fetched its loader from here, or reported.
    Booted,
    /// One that the site does not know, and that has shown nothing but a MAC.
    Stranger,
}

/// Where a client's address comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Address {
    /// A seat's: the site says it, no lease is needed, it never expires (S10).
    Fixed(Ipv4Addr),
    /// Any of the pool, by lease.
    Pool,
}

/// A boot file and the server that has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BootFile {
    /// A TFTP name or a URL.
    pub name: String,
    /// `siaddr` and option 66.
    pub next_server: Ipv4Addr,
}

/// One network, as its clients have to know it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Subnet {
    /// Our own address there, or on the way there: server identifier and source of what we send.
    pub server: Ipv4Addr,
    /// Our addresses on all networks: an offer made by another of them is ours too.
    pub ours: Arc<[Ipv4Addr]>,
    /// Which of the interfaces served leads there.
    pub wire: usize,
    /// Network address.
    pub network: Ipv4Addr,
    /// Prefix length.
    pub prefix: u8,
    /// Addresses for machines without a seat.
    pub pool: Option<RangeInclusive<Ipv4Addr>>,
    /// Never given from the pool, even where it lies in it: seats' addresses of all subnets.
    pub reserved: Arc<HashSet<Ipv4Addr>>,
    /// So many addresses of the pool are kept for machines of the site: those that have no other.
    pub kept: usize,
    /// Option 3.
    pub gateway: Option<Ipv4Addr>,
    /// Option 6.
    pub dns: Vec<Ipv4Addr>,
    /// Option 42.
    pub ntp: Vec<Ipv4Addr>,
    /// Option 15.
    pub domain: Option<String>,
    /// Option 26.
    pub mtu: Option<u16>,
    /// How long a pool address is lent.
    pub lease: Duration,
    /// Further options, raw, as the site writes them. What we send ourselves goes before.
    pub options: Vec<(u8, Vec<u8>)>,
}

impl Subnet {
    /// A network with nothing but our own address in it.
    pub fn new(server: Ipv4Addr, network: Ipv4Addr, prefix: u8) -> Subnet {
        Subnet {
            server,
            ours: Arc::default(),
            wire: 0,
            network,
            prefix,
            pool: None,
            reserved: Arc::default(),
            kept: 0,
            gateway: None,
            dns: Vec::new(),
            ntp: Vec::new(),
            domain: None,
            mtu: None,
            lease: Duration::from_secs(3600),
            options: Vec::new(),
        }
    }

    /// Option 1.
    pub fn mask(&self) -> Ipv4Addr {
        Ipv4Addr::from_bits(u32::MAX.checked_shl(32 - u32::from(self.prefix.min(32))).unwrap_or(0))
    }

    /// Option 28.
    pub fn broadcast(&self) -> Ipv4Addr {
        self.network | !self.mask()
    }

    /// Whether an address lies in this network.
    pub fn contains(&self, address: Ipv4Addr) -> bool {
        address & self.mask() == self.network & self.mask()
    }

    /// Whether a server identifier (option 54) means us.
    pub fn is_us(&self, id: Ipv4Addr) -> bool {
        id == self.server || self.ours.contains(&id)
    }

    /// Whether its machines are on our own link, so that ARP reaches them; else behind a relay.
    pub fn on_link(&self) -> bool {
        self.contains(self.server)
    }

    /// Addresses that the pool may give.
    pub fn pool_size(&self) -> usize {
        let Some(pool) = &self.pool else { return 0 };
        let (first, last) = (pool.start().to_bits(), pool.end().to_bits());
        let (network, broadcast) = (self.network.to_bits(), self.broadcast().to_bits());
        let (first, last) = (first.max(network), last.min(broadcast));
        if first > last {
            return 0;
        }
        let (first, last) = (Ipv4Addr::from_bits(first), Ipv4Addr::from_bits(last));
        let all = last.to_bits().saturating_sub(first.to_bits()).saturating_add(1) as usize;
        // Each of these may lie in it, and be named twice.
        let mut taken: HashSet<Ipv4Addr> = self.reserved.iter().copied().collect();
        taken.extend(self.gateway);
        taken.extend([self.server].iter().chain(self.ours.iter()));
        if self.prefix <= 30 {
            taken.extend([self.network, self.broadcast()]);
        }
        let within = taken.iter().filter(|address| first <= **address && **address <= last).count();
        all.saturating_sub(within)
    }

    /// Whether the pool may give this address.
    pub fn gives(&self, address: Ipv4Addr) -> bool {
        self.pool.as_ref().is_some_and(|pool| pool.contains(&address))
            && self.contains(address)
            && !self.is_us(address)
            && Some(address) != self.gateway
            && (self.prefix > 30 || (address != self.broadcast() && address != self.network))
            && !self.reserved.contains(&address)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn masks_and_edges() {
        for (prefix, mask, broadcast) in [
            (0, [0, 0, 0, 0], [255, 255, 255, 255]),
            (8, [255, 0, 0, 0], [10, 255, 255, 255]),
            (24, [255, 255, 255, 0], [10, 0, 0, 255]),
            (31, [255, 255, 255, 254], [10, 0, 0, 1]),
            (32, [255, 255, 255, 255], [10, 0, 0, 0]),
        ] {
            let network = Ipv4Addr::new(10, 0, 0, 0) & Ipv4Addr::from(mask);
            let subnet = Subnet::new(Ipv4Addr::new(10, 0, 0, 1), network, prefix);
            assert_eq!(subnet.mask(), Ipv4Addr::from(mask), "/{prefix}");
            assert_eq!(subnet.broadcast(), Ipv4Addr::from(broadcast), "/{prefix}");
        }
    }

    #[test]
    fn the_pool_never_gives_what_is_somebodys() {
        let at = |last| Ipv4Addr::new(10, 0, 0, last);
        let mut subnet = Subnet::new(at(1), at(0), 24);
        assert!(!subnet.gives(at(9)), "no pool");
        subnet.pool = Some(at(0)..=Ipv4Addr::new(10, 0, 1, 9));
        subnet.gateway = Some(at(2));
        subnet.reserved = Arc::new(HashSet::from([at(3)]));
        for last in [0, 1, 2, 3, 255] {
            assert!(!subnet.gives(at(last)), "{last}");
        }
        assert!(subnet.gives(at(4)) && subnet.gives(at(254)));
        assert!(!subnet.gives(Ipv4Addr::new(10, 0, 1, 5)), "in the pool, out of the network");
        assert_eq!(subnet.pool_size(), (0..=255).filter(|last| subnet.gives(at(*last))).count());
        subnet.pool = None;
        assert_eq!(subnet.pool_size(), 0);
    }
}
