//! Who asks, on the network it asks from: a machine where its seat lives, a machine that is plugged
//! into the wrong network, a BMC, or somebody on the wrong side of the two.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::Instant;

use super::lately::Lately;
use super::place::{Kind, Network, Stray, Whence, place};
use super::{Desk, Inner, Snapshot};
use crate::decide::{Entry, Known, Place, Seat};
use crate::dhcp::{Address, Answer, MessageType, Request, Serving, Subnet, Who};
use crate::{Mac, dhcp};

/// A client asks with one transaction number for ten seconds; a copy of the same question from another
/// network within it has come through a second relay. So of each MAC: its transaction, and the network it came from.
pub(super) type Questions = Lately<Mac, (u32, Ipv4Addr), 10, 4096>;

/// A BMC of the site, as far as its address is concerned.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bmc {
    /// The machine it is of.
    pub machine: String,
    /// The address the site gives it.
    pub address: Option<Ipv4Addr>,
}

impl Snapshot {
    /// The network an address is in.
    pub fn subnet_of(&self, address: Ipv4Addr) -> Option<&Arc<Subnet>> {
        self.networks.iter().map(|one| &one.subnet).find(|subnet| subnet.contains(address))
    }

    /// `http://10.77.0.1:8080`: us, as this address reaches us.
    pub fn server_for(&self, peer: IpAddr) -> String {
        format!("http://{}:{}", self.address_for(peer), self.http_port)
    }

    /// Our address, as this one reaches us.
    pub fn address_for(&self, peer: IpAddr) -> Ipv4Addr {
        let subnet = match peer {
            IpAddr::V4(peer) => self.subnet_of(peer),
            IpAddr::V6(_) => None,
        };
        let subnet = subnet.or(self.networks.first().map(|one| &one.subnet));
        subnet.map_or(Ipv4Addr::LOCALHOST, |subnet| subnet.server)
    }

    /// What the site says of a MAC that asks from this network.
    pub fn entry_on(&self, mac: Mac, subnet: &Subnet) -> Entry {
        match self.entry(mac) {
            Entry::Known(known) => match elsewhere(&known, subnet, self) {
                Some(place) => Entry::Known(Arc::new(Known { place, ..known.as_ref().clone() })),
                None => Entry::Known(known),
            },
            unknown => unknown,
        }
    }

    /// An address that machines are given: no agent has it.
    fn lends(&self, address: Ipv4Addr) -> bool {
        self.seats.contains(&address) || self.networks.iter().any(|one| one.subnet.gives(address))
    }

    /// The network a message came from. Several on one wire are told apart by who asks.
    pub(super) fn network(&self, mac: Mac, whence: &Whence) -> Result<&Network, Stray> {
        let here = place(&self.networks, &|address| self.lends(address), whence)?;
        let kind = if self.bmcs.contains_key(&mac) { Kind::Bmc } else { Kind::Boot };
        let seat = match self.machines.get(&mac).map(|known| &known.place) {
            Some(Place::Seat(seat)) => seat.address,
            _ => None,
        };
        let lives = |one: &&&Network| seat.is_some_and(|seat| one.subnet.contains(seat));
        let fits = |one: &&&Network| one.kind == kind;
        let chosen = here.iter().find(|one| fits(one) && lives(one));
        chosen.or(here.iter().find(fits)).or(here.first()).copied().ok_or(Stray::NoNetwork)
    }
}

/// A seat's place as it looks from a network that its address is not in.
fn elsewhere(known: &Known, subnet: &Subnet, site: &Snapshot) -> Option<Place> {
    let Place::Seat(seat) = &known.place else { return None };
    let address = seat.address.filter(|address| !subnet.contains(*address))?;
    let lives = match site.subnet_of(address) {
        Some(home) => format!("lives in {}/{}", home.network, home.prefix),
        None => format!("has the address {address}"),
    };
    let why = format!(
        "{} asks from {}/{}, its seat {} {lives}: it is plugged into the wrong network",
        known.name, subnet.network, subnet.prefix, seat.name
    );
    Some(Place::Seat(Seat { address: None, trouble: Some(why), ..seat.clone() }))
}

impl Desk {
    /// What is to be done on a network of BMCs, and about a BMC on another one.
    pub(super) fn bmc(
        &self,
        site: &Snapshot,
        request: &Request,
        network: &Network,
    ) -> Option<Answer> {
        let (mac, subnet) = (request.mac, &network.subnet);
        let cidr = format!("{}/{}", subnet.network, subnet.prefix);
        let bmc = site.bmcs.get(&mac);
        let known = site.machines.get(&mac);
        let address = match (network.kind, bmc, known) {
            (Kind::Boot, None, _) => return None,
            (Kind::Boot, Some(bmc), _) => {
                let text =
                    format!("the BMC of {} asks from {cidr}, where machines boot", bmc.machine);
                self.heard(Some(mac), "bmc-misplaced", text);
                return Some(Answer::Aside);
            }
            (Kind::Bmc, _, Some(known)) => {
                let text = format!("{} asks from {cidr}, a network of BMCs", known.name);
                self.heard(Some(mac), "misplaced", text);
                return Some(Answer::Aside);
            }
            (Kind::Bmc, Some(Bmc { machine, address }), None) => match *address {
                Some(address) if subnet.contains(address) => Address::Fixed(address),
                Some(address) => {
                    let text =
                        format!("the BMC of {machine} asks from {cidr}, its address is {address}");
                    self.heard(Some(mac), "bmc-misplaced", text);
                    return Some(Answer::Aside);
                }
                None => Address::Pool,
            },
            (Kind::Bmc, None, None) => {
                let then = match &subnet.pool {
                    Some(_) => "it gets an address of the pool",
                    None => "no answer, there is no pool",
                };
                let text = format!("a BMC nobody knows asks from {cidr}; {then}");
                self.heard(Some(mac), "unknown-bmc", text);
                Address::Pool
            }
        };
        if address == Address::Pool && subnet.pool.is_none() {
            return Some(Answer::Aside);
        }
        let subnet = subnet.clone();
        // A BMC boots nothing, and so has nothing to show but its MAC.
        let who = if bmc.is_some() { Who::Machine } else { Who::Booted };
        let (hostname, boot, macs, runs) = (None, None, Vec::new(), false);
        Some(Answer::Serve(Serving { address, subnet, hostname, boot, who, macs, runs }))
    }

    /// A second copy of a question, from another network than the first: two relays forward one
    /// wire. Answering both would lend one machine two addresses and open two boots.
    pub(super) fn asked_elsewhere(&self, request: &Request, subnet: &Subnet) -> bool {
        if request.kind != MessageType::Discover {
            return false;
        }
        let (xid, now) = (request.xid, Instant::now());
        let first = self.inner().first_asked(request.mac, xid, subnet.network, now);
        if first == subnet.network {
            return false;
        }
        let text = format!(
            "one question of it came from {first} and from {}: two relays forward one wire; \
             the first copy is answered",
            subnet.network
        );
        self.heard(Some(request.mac), "two-networks", text);
        true
    }

    /// A message that stands nowhere is told, once for each relay that brings such.
    pub(super) fn stands_nowhere(&self, mac: Mac, stray: &Stray) {
        match stray.relay() {
            Some(relay) => self.heard_of_relay(relay, format!("{stray} (it brought {mac})")),
            None => self.heard(Some(mac), "stray", stray.to_string()),
        }
    }

    /// Whether what DHCP tells belongs to a boot, and where.
    pub(super) fn boots_on(&self, event: &dhcp::Event) -> Option<Arc<Subnet>> {
        let site = self.site();
        let network = site.network(event.mac, &Whence::of_event(event)).ok()?;
        let boots = network.kind == Kind::Boot && !site.bmcs.contains_key(&event.mac);
        boots.then(|| network.subnet.clone())
    }
}

impl Inner {
    /// The network from which this question came first.
    fn first_asked(&mut self, mac: Mac, xid: u32, network: Ipv4Addr, now: Instant) -> Ipv4Addr {
        match self.questions.get(&mac, now) {
            Some((asked, first)) if *asked == xid => *first,
            _ => {
                if self.questions.room(now) {
                    self.questions.put(mac, (xid, network), now);
                }
                network
            }
        }
    }
}
