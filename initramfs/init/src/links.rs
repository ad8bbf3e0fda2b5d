//! All links of this seat, in the order they come up: names, bonds, the link that carries the seat's
//! own address, then the seat's further networks and their VLANs.
//!
//! The boot needs one link and waits for it as long as it takes. Nothing else here stops a boot:
//! what does not work is said, told to the appliance, and left behind as it is.

use std::net::Ipv4Addr;
use std::path::Path;
use std::time::{Duration, Instant};

use crate::assign::{Found, Roll, assign};
use crate::cmdline::Cmdline;
use crate::console::{Pause, pause, say};
use crate::contract::{BOOT_LINK, Bond, BondMode, Net, Nic, Orders, Route};
use crate::link::{self, Card, Netlink, show_mac};
use crate::modules::Modules;
use crate::naming;
use crate::netlink::{self, Hop, stacked};
use crate::rescue::Stop;

/// How long NICs beside the boot NIC may take to appear.
const MUSTER: Duration = Duration::from_secs(10);
/// How long a further link may take to hear its switch before its address is set unheard.
const GRACE: Duration = Duration::from_secs(5);
/// How long LACP may take to agree, or to see that nobody answers.
const LACP: Duration = Duration::from_secs(10);
/// The metric of the second default route; each further one is as much higher.
const LATER: u32 = 1024;

/// What kind of link.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Shape {
    /// Hardware on its own.
    Nic,
    /// Hardware in this bond.
    Member(String),
    /// A bond.
    Bond(BondMode),
    /// A VLAN on this link.
    Vlan(String, u16),
}

/// A link as it stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Standing {
    /// Name, index and address.
    pub card: Card,
    /// Its kind.
    pub shape: Shape,
    /// MTU, if it was set.
    pub mtu: Option<u32>,
    /// Its addresses.
    pub addresses: Vec<(Ipv4Addr, u8)>,
    /// Its routes.
    pub routes: Vec<Hop>,
}

impl Standing {
    fn new(card: Card, shape: Shape) -> Standing {
        Standing { card, shape, mtu: None, addresses: Vec::new(), routes: Vec::new() }
    }
}

/// All of them.
pub struct Network {
    wire: Netlink,
    roll: Roll,
    /// The first one carries the seat's own address.
    pub links: Vec<Standing>,
    /// Hardware whose name is ours to keep, though it carries nothing.
    pub named: Vec<Card>,
    /// What is not as the orders have it.
    pub troubles: Vec<String>,
}

impl Network {
    /// Names and bonds: everything that has to be there before the first address.
    pub fn build(
        orders: &Orders,
        boot: &Card,
        modules: &mut Modules,
        line: &Cmdline,
    ) -> Result<Network, Stop> {
        let wire =
            Netlink::open().map_err(|error| Stop::because(format!("no netlink: {error}")))?;
        if let Some(lo) = link::named("lo") {
            wire.ask("lo up", |seq| netlink::set_up(seq, lo.index, true));
        }
        // What a try before this one left (somebody was in the rescue shell).
        orders.bonds.iter().for_each(|bond| remove(&wire, &bond.name));
        let roll = muster(orders, boot.index, modules, line)?;
        for (index, name) in &roll.named {
            let card = link::all().into_iter().find(|card| card.index == *index);
            if let Some(mut card) = card.filter(|card| card.name != *name) {
                link::rename(&wire, &mut card, name);
            }
        }
        let mut network =
            Network { wire, roll, links: Vec::new(), named: Vec::new(), troubles: Vec::new() };
        for word in network.roll.missing.clone() {
            network.trouble(format!("no NIC {word} here; there is {}", link::inventory()));
        }
        if !orders.bonds.is_empty() {
            // Left to itself the module makes a bond0 of its own.
            modules.load_with("bonding", "max_bonds=0", line);
        }
        for bond in &orders.bonds {
            network.bond(bond, boot.index, mtu_on(orders, &bond.name));
        }
        if !network.links.first().is_some_and(|link| network.carries_boot(link, boot.index)) {
            let card = network.card(boot.index).unwrap_or_else(|| boot.clone());
            network.links.insert(0, Standing::new(card, Shape::Nic));
        }
        let named = network.roll.named.keys().filter_map(|index| network.card(*index));
        let known = |card: &Card| network.links.iter().any(|link| link.card.index == card.index);
        network.named = named.filter(|card| !known(card)).collect();
        Ok(network)
    }

    /// The link that carries the seat's own address.
    pub fn boot(&self) -> &Standing {
        &self.links[0]
    }

    /// From built to speaking: the seat's own address on its link. `Ok` carries what should be told
    /// to the appliance once it hears us.
    pub fn come_up(&mut self, nic: &Nic) -> Result<Option<String>, Stop> {
        let card = self.boot().card.clone();
        if let Some(mtu) = nic.mtu {
            self.mtu(0, mtu);
        }
        if !self.wire.ask("up", |seq| netlink::set_up(seq, card.index, true)) {
            return Err(Stop::because(format!("{} does not come up", card.name)));
        }
        let members = self.members(&card.name);
        link::wait_for_carrier(&card, &members)?;
        if self.boot().shape == Shape::Bond(BondMode::Lacp) {
            wait_for_lacp(&card, &members)?;
        }
        let trouble = link::wait_for_address(nic.address, &card, &mut |_| ())?;
        if !self.address(0, nic.address, nic.prefix) {
            return Err(Stop::because(format!(
                "cannot set {}/{} on {}",
                nic.address, nic.prefix, card.name
            )));
        }
        self.routes(0, &nic.routes, nic.gateway);
        link::announce(&card, nic.address);
        say(format!("{}/{} on {} ({})", nic.address, nic.prefix, card.name, show_mac(&card.mac)));
        Ok(trouble)
    }

    /// The seat's further networks. `tell` is handed what the appliance should hear at once.
    pub fn further(
        &mut self,
        orders: &Orders,
        modules: &mut Modules,
        line: &Cmdline,
        tell: &mut dyn FnMut(String),
    ) -> Result<(), Stop> {
        if orders.nets.iter().any(|net| net.vlan.is_some()) {
            modules.load("8021q", line);
        }
        let placed: Vec<(usize, &Net)> = (orders.nets.iter())
            .filter_map(|net| Some((self.carrier_of(net, orders)?, net)))
            .collect();
        let grace = Instant::now() + GRACE;
        for (at, net) in placed {
            let card = self.links[at].card.clone();
            let Some(address) = net.address else { continue };
            while !link::has_carrier(&card.name) && Instant::now() < grace {
                if pause(Duration::from_millis(100)) == Pause::Rescue {
                    return Err(Stop::Asked);
                }
            }
            let heard = link::has_carrier(&card.name);
            if heard {
                let mut met = |rival: &str| tell(format!("network {}: {rival}; waiting", net.name));
                let freed = link::wait_for_address(address, &card, &mut met)?;
                freed.into_iter().for_each(|freed| tell(format!("network {}: {freed}", net.name)));
            }
            if !self.address(at, address, net.prefix) {
                self.trouble(format!("network {}: {address} not set on {}", net.name, card.name));
                continue;
            }
            self.routes(at, &net.routes, net.gateway);
            if heard {
                link::announce(&card, address);
            }
            say(format!("network {}: {address}/{} on {}", net.name, net.prefix, card.name));
        }
        Ok(())
    }

    /// What hears nothing though it should. Asked late: a copper port takes seconds to agree.
    pub fn silent(&self) -> Vec<String> {
        let mut silent = Vec::new();
        for link in &self.links {
            let name = &link.card.name;
            match &link.shape {
                Shape::Bond(_) => {
                    let members = self.members(name);
                    let (up, down): (Vec<_>, Vec<_>) =
                        members.into_iter().partition(|member| link::has_carrier(member));
                    if up.is_empty() {
                        silent.push(format!("{name}: no link on {}", down.join(", ")));
                    } else if !down.is_empty() {
                        let (up, down) = (up.join(", "), down.join(", "));
                        silent.push(format!("{name} works by {up}; no link on {down}"));
                    }
                }
                Shape::Nic if !link::has_carrier(name) => silent.push(format!("{name}: no link")),
                // Theirs is their bond's, and their parent's.
                Shape::Nic | Shape::Member(_) | Shape::Vlan(..) => {}
            }
        }
        silent
    }

    /// The second of RFC 5227's two announcements: the first may have met a port still learning.
    pub fn announce_again(&self) {
        for link in self.links.iter().filter(|link| link::has_carrier(&link.card.name)) {
            link.addresses.iter().for_each(|(address, _)| link::announce(&link.card, *address));
        }
    }

    fn bond(&mut self, bond: &Bond, boot: u32, mtu: Option<u32>) {
        let name = &bond.name;
        let mut members: Vec<Card> = (bond.of.iter())
            .filter_map(|word| self.card(self.roll.index(word)?))
            .filter(|card| !self.links.iter().any(|link| link.card.index == card.index))
            .collect();
        members.dedup_by_key(|card| card.index);
        // The boot NIC works first: firmware has just shown that its cable leads to us.
        members.sort_by_key(|card| card.index != boot);
        let Some(first) = members.first().cloned() else {
            return self.trouble(format!("{name} not built: none of its NICs is here"));
        };
        let made = |seq| stacked::new_bond(seq, name, first.mac, bond.mode);
        let made = self.wire.ask(&format!("bond {name}"), made);
        let Some(card) = link::named(name).filter(|_| made) else {
            return self.trouble(format!("{name} not built; {} works alone", first.name));
        };
        let carries_boot = first.index == boot;
        let at = if carries_boot { 0 } else { self.links.len() };
        self.links.insert(at, Standing::new(card.clone(), Shape::Bond(bond.mode)));
        // That of the boot link is the seat's own network's to say.
        if let Some(mtu) = mtu.filter(|_| !carries_boot) {
            self.mtu(at, mtu);
        }
        for member in &members {
            self.wire.ask("down", |seq| netlink::set_up(seq, member.index, false));
            let what = format!("{} in {name}", member.name);
            if self.wire.ask(&what, |seq| stacked::set_master(seq, member.index, card.index)) {
                let standing = Standing::new(member.clone(), Shape::Member(name.clone()));
                self.links.push(standing);
            } else if member.index == boot {
                // A bond without the NIC that boots is none to boot by.
                self.wire.ask("removal", |seq| stacked::delete(seq, card.index));
                self.links.remove(at);
                return self.trouble(format!("{name} not built; {} works alone", member.name));
            } else {
                self.trouble(format!("{name} works without {}", member.name));
            }
        }
        if carries_boot && bond.mode == BondMode::ActiveBackup {
            let what = format!("{} as primary of {name}", first.name);
            self.wire.ask(&what, |seq| stacked::set_primary(seq, card.index, first.index));
        }
        self.wire.ask("up", |seq| netlink::set_up(seq, card.index, true));
        say(format!("{name} is {} of {}", bond.mode, self.members(name).join(", ")));
    }

    /// The link a network is on, made if it is a VLAN.
    fn carrier_of(&mut self, net: &Net, orders: &Orders) -> Option<usize> {
        let Some(mut at) = self.place(&net.on) else {
            self.trouble(format!("network {}: there is no {}", net.name, net.on));
            return None;
        };
        if let Shape::Member(bond) = &self.links[at].shape {
            let bond = bond.clone();
            self.trouble(format!("network {}: {} is a member of {bond}", net.name, net.on));
            return None;
        }
        let parent = self.links[at].card.clone();
        if at != 0 && self.links[at].shape == Shape::Nic && self.links[at].mtu.is_none() {
            if let Some(mtu) = mtu_on(orders, &net.on) {
                self.mtu(at, mtu);
            }
            self.wire.ask("up", |seq| netlink::set_up(seq, parent.index, true));
        }
        if let Some(id) = net.vlan {
            at = self.vlan(&parent, id)?;
            if let Some(mtu) = net.mtu {
                self.mtu(at, mtu);
            }
            let index = self.links[at].card.index;
            self.wire.ask("up", |seq| netlink::set_up(seq, index, true));
        }
        Some(at)
    }

    fn vlan(&mut self, parent: &Card, id: u16) -> Option<usize> {
        let name = vlan_name(&parent.name, id);
        let shape = Shape::Vlan(parent.name.clone(), id);
        if let Some(at) = self.links.iter().position(|link| link.shape == shape) {
            return Some(at);
        }
        if !self.links.iter().any(|link| link.card.name == name) {
            remove(&self.wire, &name);
        }
        let made = |seq| stacked::new_vlan(seq, &name, parent.index, id);
        let made = self.wire.ask(&format!("VLAN {id} on {}", parent.name), made);
        let Some(card) = link::named(&name).filter(|_| made) else {
            self.trouble(format!("VLAN {id} on {} not built", parent.name));
            return None;
        };
        self.links.push(Standing::new(card, shape));
        Some(self.links.len() - 1)
    }

    /// Where a word of the orders stands among the links; a NIC that is used for the first time
    /// joins them.
    fn place(&mut self, word: &str) -> Option<usize> {
        if word == BOOT_LINK {
            return Some(0);
        }
        let bond = |link: &Standing| matches!(link.shape, Shape::Bond(_)) && link.card.name == word;
        if let Some(at) = self.links.iter().position(bond) {
            return Some(at);
        }
        let index = self.roll.index(word)?;
        if let Some(at) = self.links.iter().position(|link| link.card.index == index) {
            return Some(at);
        }
        let card = self.card(index)?;
        self.named.retain(|named| named.index != index);
        self.links.push(Standing::new(card, Shape::Nic));
        Some(self.links.len() - 1)
    }

    fn carries_boot(&self, link: &Standing, boot: u32) -> bool {
        let mine = |member: &&Standing| {
            member.card.index == boot && member.shape == Shape::Member(link.card.name.clone())
        };
        matches!(link.shape, Shape::Bond(_)) && self.links.iter().any(|link| mine(&link))
    }

    fn members(&self, bond: &str) -> Vec<String> {
        let of = Shape::Member(bond.to_owned());
        let members = self.links.iter().filter(|link| link.shape == of);
        members.map(|link| link.card.name.clone()).collect()
    }

    fn card(&self, index: u32) -> Option<Card> {
        link::all().into_iter().find(|card| card.index == index)
    }

    fn mtu(&mut self, at: usize, mtu: u32) {
        let Card { index, name, .. } = self.links[at].card.clone();
        let what = format!("MTU {mtu} on {name}");
        if self.wire.ask(&what, |seq| netlink::set_mtu(seq, index, mtu)) {
            self.links[at].mtu = Some(mtu);
        } else {
            self.trouble(format!("{name} keeps its MTU and not {mtu}"));
        }
    }

    fn address(&mut self, at: usize, address: Ipv4Addr, prefix: u8) -> bool {
        let Card { index, name, .. } = self.links[at].card.clone();
        let what = format!("{address}/{prefix} on {name}");
        let set = self.wire.ask(&what, |seq| netlink::add_address(seq, index, address, prefix));
        if set {
            self.links[at].addresses.push((address, prefix));
        }
        set
    }

    fn routes(&mut self, at: usize, routes: &[Route], gateway: Option<Ipv4Addr>) {
        let before = self.links.iter().flat_map(|link| &link.routes);
        let before = before.filter(|hop| hop.prefix == 0).count() as u32;
        let hops = hops(&self.links[at].addresses, routes, gateway, before * LATER);
        for hop in hops {
            let Card { index, name, .. } = self.links[at].card.clone();
            let what = format!("route to {}/{} by {} on {name}", hop.to, hop.prefix, hop.via);
            if self.wire.ask(&what, |seq| netlink::add_route(seq, index, &hop)) {
                self.links[at].routes.push(hop);
            } else {
                self.trouble(format!("no {what}"));
            }
        }
    }

    fn trouble(&mut self, what: String) {
        say(&what);
        self.troubles.push(what);
    }
}

/// A port that negotiates has its link and swallows what is sent: no probe for a rival would leave.
fn wait_for_lacp(bond: &Card, members: &[String]) -> Result<(), Stop> {
    let begun = Instant::now();
    while !members.iter().any(|member| link::distributes(member)) {
        if begun.elapsed() > LACP {
            say(format!("{}: LACP is not settled; going on", bond.name));
            break;
        }
        if pause(Duration::from_millis(100)) == Pause::Rescue {
            return Err(Stop::Asked);
        }
    }
    Ok(())
}

/// Waits until every NIC of the orders is there, but not for ever.
fn muster(orders: &Orders, boot: u32, modules: &mut Modules, line: &Cmdline) -> Result<Roll, Stop> {
    let sys = Path::new("/sys");
    let begun = Instant::now();
    let mut told = false;
    loop {
        while modules.coldplug(sys, line) > 0 {}
        let found = |card: Card| Found { names: naming::names(sys, &card.name), card };
        let hardware = link::all().into_iter().filter(|card| link::is_hardware(&card.name));
        let roll = assign(orders, boot, &hardware.map(found).collect::<Vec<_>>());
        if roll.missing.is_empty() || begun.elapsed() > MUSTER {
            return Ok(roll);
        }
        if !told && begun.elapsed() > Duration::from_secs(2) {
            told = true;
            say(format!("waiting for NIC {}", roll.missing.join(", ")));
        }
        if pause(Duration::from_millis(200)) == Pause::Rescue {
            return Err(Stop::Asked);
        }
    }
}

fn remove(wire: &Netlink, name: &str) {
    if let Some(old) = link::named(name).filter(|old| !link::is_hardware(&old.name)) {
        wire.ask(&format!("removal of {name}"), |seq| stacked::delete(seq, old.index));
    }
}

/// The largest packet of all networks on a link; the seat's own network says for the one it is on.
fn mtu_on(orders: &Orders, link: &str) -> Option<u32> {
    orders.nets.iter().filter(|net| net.on == link).filter_map(|net| net.mtu).max()
}

/// `bond0.20`, as far as it fits into the kernel's 15 letters.
fn vlan_name(parent: &str, id: u16) -> String {
    let name = format!("{parent}.{id}");
    if name.len() <= 15 { name } else { format!("vlan{id}") }
}

/// Routes as the kernel is to have them: the default one last, behind those of other links.
fn hops(
    addresses: &[(Ipv4Addr, u8)],
    routes: &[Route],
    gateway: Option<Ipv4Addr>,
    metric: u32,
) -> Vec<Hop> {
    let near = |via: Ipv4Addr| {
        addresses.iter().any(|(own, prefix)| netlink::same_network(*own, via, *prefix))
    };
    let default = Route { to: Ipv4Addr::UNSPECIFIED, prefix: 0, via: Ipv4Addr::UNSPECIFIED };
    let default = gateway.map(|via| Route { via, ..default });
    let hop = |route: &Route| Hop {
        to: route.to,
        prefix: route.prefix,
        via: route.via,
        metric: if route.prefix == 0 { metric } else { 0 },
        onlink: !near(route.via),
    };
    routes.iter().chain(&default).map(hop).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn vlans_have_names_that_fit() {
        assert_eq!(vlan_name("bond0", 20), "bond0.20");
        assert_eq!(vlan_name("enp129s0f0", 4094), "enp129s0f0.4094");
        assert_eq!(vlan_name("enp129s0f0np0", 20), "vlan20");
    }

    #[test]
    fn default_routes_queue_up() {
        let ip = Ipv4Addr::new;
        let route = Route { to: ip(10, 80, 0, 0), prefix: 16, via: ip(10, 20, 0, 254) };
        let made = hops(&[(ip(10, 20, 0, 21), 24)], &[route], Some(ip(10, 21, 0, 1)), 1024);
        let hop = |to, prefix, via, metric, onlink| Hop { to, prefix, via, metric, onlink };
        assert_eq!(
            made,
            [
                hop(ip(10, 80, 0, 0), 16, ip(10, 20, 0, 254), 0, false),
                hop(ip(0, 0, 0, 0), 0, ip(10, 21, 0, 1), 1024, true),
            ]
        );
    }
}
