//! All links of this seat, in the order they come up: names, bonds, the link that carries the seat's
//! own address, then the seat's further networks and their VLANs.
//!
//! The boot needs one link and waits for it as long as it takes. Nothing else here stops a boot:
//! what does not work is said, told to the appliance, and left behind as it is.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::path::Path;
use std::time::{Duration, Instant};

use crate::cmdline::Cmdline;
use crate::console::{Pause, pause, say};
use crate::contract::{BondMode, Net, Nic, Orders};
use crate::modules::Modules;
use crate::net::assign::{Found, Roll, assign};
use crate::net::link::{self, Card, Netlink, show_mac};
use crate::net::naming;
use crate::net::netlink::{self, Hop};
use crate::rescue::Stop;

mod made;

use made::{mtu_on, remove};

/// How long NICs beside the boot NIC may take to appear.
const MUSTER: Duration = Duration::from_secs(10);
/// How long a further link may take to hear its switch before its address is set unheard.
const GRACE: Duration = Duration::from_secs(5);
/// How long LACP may take to agree, or to see that nobody answers.
const LACP: Duration = Duration::from_secs(10);

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
    /// NICs that stand in for a bond, by its name.
    alone: BTreeMap<String, u32>,
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
        let mut network = Network {
            wire,
            roll,
            alone: BTreeMap::new(),
            links: Vec::new(),
            named: Vec::new(),
            troubles: Vec::new(),
        };
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

    fn carries_boot(&self, link: &Standing, boot: u32) -> bool {
        let of = Shape::Member(link.card.name.clone());
        let mine = |member: &Standing| member.card.index == boot && member.shape == of;
        matches!(link.shape, Shape::Bond(_)) && self.links.iter().any(mine)
    }

    fn members(&self, bond: &str) -> Vec<String> {
        let of = Shape::Member(bond.to_owned());
        let members = self.links.iter().filter(|link| link.shape == of);
        members.map(|link| link.card.name.clone()).collect()
    }

    fn card(&self, index: u32) -> Option<Card> {
        link::all().into_iter().find(|card| card.index == index)
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
