//! One link made, or given what it is to carry: bonds with their members, VLANs, MTU, addresses and
//! routes. A request that the kernel refuses is a trouble and not the end of a boot.

use std::collections::HashSet;
use std::net::Ipv4Addr;

use super::{Network, Shape, Standing};
use crate::console::say;
use crate::contract::{BOOT_LINK, Bond, BondMode, Net, Orders, Route};
use crate::net::link::{self, Card, Netlink};
use crate::net::netlink::{self, Hop, stacked};

/// The metric of the second default route; each further one is as much higher.
const LATER: u32 = 1024;

impl Network {
    pub(super) fn bond(&mut self, bond: &Bond, boot: u32, mtu: Option<u32>) {
        let name = &bond.name;
        // One NIC by two names, or in two bonds, counts where it is met first.
        let mut met: HashSet<u32> = self.links.iter().map(|link| link.card.index).collect();
        let mut members: Vec<Card> = (bond.of.iter())
            .filter_map(|word| self.card(self.roll.index(word)?))
            .filter(|card| met.insert(card.index))
            .collect();
        // The boot NIC works first: firmware has just shown that its cable leads to us.
        members.sort_by_key(|card| card.index != boot);
        let Some(first) = members.first().cloned() else {
            return self.trouble(format!("{name} not built: none of its NICs is here"));
        };
        let made = |seq| stacked::new_bond(seq, name, first.mac, bond.mode);
        let made = self.wire.ask(&format!("bond {name}"), made);
        let Some(card) = link::named(name).filter(|_| made) else {
            return self.alone(name, &first);
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
                return self.alone(name, member);
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

    /// A kernel without bonds: one NIC does what the bond was to do.
    fn alone(&mut self, bond: &str, nic: &Card) {
        self.trouble(format!("{bond} not built; {} works alone", nic.name));
        self.alone.insert(bond.to_owned(), nic.index);
    }

    /// The link a network is on, made if it is a VLAN.
    pub(super) fn carrier_of(&mut self, net: &Net, orders: &Orders) -> Option<usize> {
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
        let index = self.alone.get(word).copied().or_else(|| self.roll.index(word))?;
        if let Some(at) = self.links.iter().position(|link| link.card.index == index) {
            return Some(at);
        }
        let card = self.card(index)?;
        self.named.retain(|named| named.index != index);
        self.links.push(Standing::new(card, Shape::Nic));
        Some(self.links.len() - 1)
    }

    pub(super) fn mtu(&mut self, at: usize, mtu: u32) {
        let Card { index, name, .. } = self.links[at].card.clone();
        let what = format!("MTU {mtu} on {name}");
        if self.wire.ask(&what, |seq| netlink::set_mtu(seq, index, mtu)) {
            self.links[at].mtu = Some(mtu);
        } else {
            self.trouble(format!("{name} keeps its MTU and not {mtu}"));
        }
    }

    pub(super) fn address(&mut self, at: usize, address: Ipv4Addr, prefix: u8) -> bool {
        let Card { index, name, .. } = self.links[at].card.clone();
        let what = format!("{address}/{prefix} on {name}");
        let set = self.wire.ask(&what, |seq| netlink::add_address(seq, index, address, prefix));
        if set {
            self.links[at].addresses.push((address, prefix));
        }
        set
    }

    pub(super) fn routes(&mut self, at: usize, routes: &[Route], gateway: Option<Ipv4Addr>) {
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
}

pub(super) fn remove(wire: &Netlink, name: &str) {
    if let Some(old) = link::named(name).filter(|old| !link::is_hardware(&old.name)) {
        wire.ask(&format!("removal of {name}"), |seq| stacked::delete(seq, old.index));
    }
}

/// The largest packet of all networks on a link; the seat's own network says for the one it is on.
pub(super) fn mtu_on(orders: &Orders, link: &str) -> Option<u32> {
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
