//! The appliance's own places: an interface, and our address on it, for each network that is on one.
//! Sockets are bound there when it starts, and nowhere else.

use std::net::{Ipv4Addr, SocketAddr, UdpSocket};

use anyhow::{Context, bail};

use crate::site::{Cidr, Site};

/// Our place on one network.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Home {
    /// The interface.
    pub interface: String,
    /// Our address there.
    pub address: Ipv4Addr,
    /// The network.
    pub cidr: Cidr,
}

/// All of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Homes {
    all: Vec<Home>,
    /// Where HTTP listens, on each.
    pub http_port: u16,
}

impl Homes {
    /// Where the site puts us on this machine.
    pub fn of(site: &Site) -> anyhow::Result<Homes> {
        let mut all = Vec::new();
        for subnet in &site.subnets {
            let Some(interface) = subnet.interface() else { continue };
            let Some(address) = subnet.own else {
                bail!("{}: the interface has no IPv4 address in {}", subnet.origin, subnet.cidr)
            };
            all.push(Home { interface: interface.to_string(), address, cidr: subnet.cidr });
        }
        let homes = Homes { all, http_port: site.net.http_port };
        homes.all.first().context(
            "the site names no interface: set interface in [net]; where all machines are behind \
             relays, name the interface by which the relays reach us",
        )?;
        Ok(homes)
    }

    /// For a look at a site whose interfaces are not at hand: each network's first address stands
    /// for ours.
    pub fn stand_ins(site: &Site) -> Homes {
        let here = site.subnets.iter().filter_map(|subnet| {
            let first = Ipv4Addr::from_bits(subnet.cidr.network().to_bits().saturating_add(1));
            let (interface, cidr) = (subnet.interface()?.to_string(), subnet.cidr);
            Some(Home { interface, address: subnet.own.unwrap_or(first), cidr })
        });
        Homes { all: here.collect(), http_port: site.net.http_port }
    }

    /// Each of them.
    pub fn all(&self) -> &[Home] {
        &self.all
    }

    /// The interfaces, each once: their order is the numbering of DHCP's wires.
    pub fn interfaces(&self) -> Vec<&str> {
        let mut names: Vec<&str> = Vec::new();
        for home in &self.all {
            if !names.contains(&home.interface.as_str()) {
                names.push(&home.interface);
            }
        }
        names
    }

    /// Our addresses.
    pub fn addresses(&self) -> Vec<Ipv4Addr> {
        self.all.iter().map(|home| home.address).collect()
    }

    /// Where HTTP listens.
    pub fn http(&self) -> Vec<SocketAddr> {
        self.addresses().into_iter().map(|at| SocketAddr::from((at, self.http_port))).collect()
    }

    /// The place on this network of this interface, with the wire's number.
    pub fn on(&self, interface: &str, cidr: Cidr) -> Option<(usize, &Home)> {
        let home = self.all.iter().find(|home| home.interface == interface && home.cidr == cidr)?;
        Some((self.wire(home), home))
    }

    /// The place from which packets go to a relay, as the kernel would route them now; the first
    /// one where it knows no way or another interface leads there.
    pub fn towards(&self, relay: Ipv4Addr) -> Option<(usize, &Home)> {
        let ours = |address: Ipv4Addr| self.all.iter().find(|home| home.address == address);
        let home = source_towards(relay).and_then(ours).or(self.all.first())?;
        Some((self.wire(home), home))
    }

    /// Whether the kernel sends packets to a relay from one of our places.
    pub fn reaches(&self, relay: Ipv4Addr) -> bool {
        source_towards(relay).is_some_and(|source| self.addresses().contains(&source))
    }

    fn wire(&self, home: &Home) -> usize {
        let position = self.interfaces().iter().position(|name| *name == home.interface);
        position.unwrap_or_default()
    }
}

/// The address the kernel would send from. Connecting a UDP socket looks the route up and sends
/// nothing.
fn source_towards(to: Ipv4Addr) -> Option<Ipv4Addr> {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).ok()?;
    socket.connect((to, 67)).ok()?;
    match socket.local_addr().ok()? {
        SocketAddr::V4(local) => Some(*local.ip()),
        SocketAddr::V6(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wires_are_numbered_by_interface() {
        let home = |interface: &str, third| {
            let address = Ipv4Addr::new(10, 77, third, 1);
            Home { interface: interface.into(), address, cidr: Cidr::around(address, 24) }
        };
        let all = vec![home("eth1", 0), home("br0", 1), home("eth1", 2), home("eth1.20", 3)];
        let homes = Homes { all: all.clone(), http_port: 8080 };
        assert_eq!(homes.interfaces(), ["eth1", "br0", "eth1.20"]);
        for (home, wire) in all.iter().zip([0, 1, 0, 2]) {
            assert_eq!(homes.on(&home.interface, home.cidr), Some((wire, home)));
        }
        assert_eq!(homes.on("br0", all[0].cidr), None, "that network is on another interface");
        // Nothing of ours is on the way to ourselves: the first place stands in.
        assert_eq!(homes.towards(Ipv4Addr::LOCALHOST), Some((0, &all[0])));
        assert!(!homes.reaches(Ipv4Addr::LOCALHOST));
    }
}
