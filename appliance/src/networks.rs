//! The site's networks as DHCP has to know them: what their machines are told, which interface leads
//! there, and our own address as they reach it. Made anew at each reading of the site.

use std::collections::{HashMap, HashSet};
use std::net::Ipv4Addr;
use std::sync::Arc;

use koboshi_pxe::desk::{self, Bmc, Network};
use koboshi_pxe::{Mac, dhcp};

use crate::home::Homes;
use crate::site::{self, Kind, MachineName, Reach, Site, Subnet};

/// All that can be served, those with machines to boot first; what cannot is said.
pub fn read(site: &Site, homes: &Homes, warnings: &mut Vec<String>) -> Vec<Network> {
    let ours: Arc<[Ipv4Addr]> = homes.addresses().into();
    let reserved = Arc::new(reserved(site, &ours));
    let kept = kept(site);
    let mut networks = Vec::new();
    for meant in &site.subnets {
        let (home, reach) = match &meant.reach {
            Reach::Interface(name) => {
                (homes.on(name, meant.cidr), desk::Reach::Wire { interface: name.clone() })
            }
            Reach::Relay(agents) => {
                for agent in agents.iter().filter(|agent| !homes.reaches(**agent)) {
                    warnings.push(format!(
                        "{}: the way to the relay {agent} does not lead over an interface of the \
                         site (ip route get {agent}): its machines may get no answer",
                        meant.origin
                    ));
                }
                let home = agents.first().and_then(|agent| homes.towards(*agent));
                (home, desk::Reach::Relays(agents.clone()))
            }
        };
        let Some((wire, home)) = home else {
            let text = "is not served before koboshi is restarted";
            warnings.push(format!("{}: {} {text}", meant.origin, meant.cidr));
            continue;
        };
        let mut subnet = subnet(site, meant, home.address);
        (subnet.wire, subnet.ours, subnet.reserved) = (wire, ours.clone(), reserved.clone());
        subnet.kept = if meant.kind == Kind::Boot { kept } else { 0 };
        let kind = match meant.kind {
            Kind::Boot => desk::Kind::Boot,
            Kind::Bmc => desk::Kind::Bmc,
        };
        networks.push(Network { subnet: Arc::new(subnet), reach, kind });
    }
    networks.sort_by_key(|network| network.kind != desk::Kind::Boot);
    networks
}

/// Of each pool, what machines of the site need that have no address of their own: spares, and seats without
/// one. Where they stand nobody says, so that each network has its part of them.
fn kept(site: &Site) -> usize {
    let own = |name: &MachineName| site.seat_of(name).is_some_and(|(_, seat)| seat.ip.is_some());
    let machines = site.machines.iter().filter(|(_, machine)| !machine.macs.is_empty());
    let without = machines.filter(|(name, _)| !own(name)).count();
    let pools = site.subnets.iter().filter(|one| one.kind == Kind::Boot && one.pool.is_some());
    without.div_ceil(pools.count().max(1))
}

/// What no pool may lend: somebody's already.
fn reserved(site: &Site, ours: &[Ipv4Addr]) -> HashSet<Ipv4Addr> {
    let mut reserved: HashSet<Ipv4Addr> = site.by_address.keys().copied().collect();
    reserved.extend(ours);
    let bmcs = site.machines.values().filter_map(|machine| machine.bmc.as_ref());
    reserved.extend(bmcs.filter_map(bmc_address));
    for subnet in &site.subnets {
        reserved.extend(subnet.gateway.as_ref().map(|gateway| gateway.value));
        reserved.extend(subnet.dns.iter().chain(&subnet.ntp));
        if let Reach::Relay(agents) = &subnet.reach {
            reserved.extend(agents);
        }
    }
    reserved
}

fn subnet(site: &Site, meant: &Subnet, own: Ipv4Addr) -> dhcp::Subnet {
    let mut subnet = dhcp::Subnet::new(own, meant.cidr.network(), meant.cidr.prefix());
    subnet.lease = site.net.lease.0;
    subnet.pool = meant.pool.as_ref().map(|pool| pool.first..=pool.last);
    subnet.gateway = meant.gateway.as_ref().map(|gateway| gateway.value);
    subnet.dns = meant.dns.clone();
    subnet.ntp = meant.ntp.clone();
    subnet.domain = meant.domain.clone();
    subnet.mtu = meant.mtu;
    subnet.options = meant.options.iter().map(|(code, option)| (*code, option.0.clone())).collect();
    if !meant.routes.is_empty() {
        let routes =
            meant.routes.iter().map(|route| (route.to.network(), route.to.prefix(), route.via));
        subnet.options.push((121, classless(subnet.gateway, routes)));
    }
    subnet
}

/// Option 121 (RFC 3442): each destination with only the octets its mask needs. A client that takes
/// it ignores option 3, so the default route is in it too.
fn classless(
    gateway: Option<Ipv4Addr>,
    routes: impl Iterator<Item = (Ipv4Addr, u8, Ipv4Addr)>,
) -> Vec<u8> {
    let default = gateway.map(|gateway| (Ipv4Addr::UNSPECIFIED, 0, gateway));
    let mut option = Vec::new();
    for (to, prefix, via) in routes.chain(default) {
        option.push(prefix);
        option.extend(&to.octets()[..usize::from(prefix.div_ceil(8))]);
        option.extend(via.octets());
    }
    option
}

/// The BMCs whose MAC the site knows.
pub fn bmcs(site: &Site) -> HashMap<Mac, Bmc> {
    let all = site.by_bmc_mac.iter().filter_map(|(mac, name)| {
        let bmc = site.machines.get(&name.value)?.bmc.as_ref()?;
        Some((*mac, Bmc { machine: name.value.to_string(), address: bmc_address(bmc) }))
    });
    all.collect()
}

fn bmc_address(bmc: &site::Bmc) -> Option<Ipv4Addr> {
    bmc.host.value.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn routes_are_as_short_as_rfc_3442_has_them() {
        let ip = Ipv4Addr::new;
        let routes =
            [(ip(10, 80, 0, 0), 16, ip(10, 77, 0, 254)), (ip(10, 0, 0, 128), 25, ip(10, 77, 0, 9))];
        assert_eq!(
            classless(Some(ip(10, 77, 0, 1)), routes.into_iter()),
            [16, 10, 80, 10, 77, 0, 254, 25, 10, 0, 0, 128, 10, 77, 0, 9, 0, 10, 77, 0, 1]
        );
    }
}
