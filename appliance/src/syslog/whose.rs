//! The machine at an address: who holds the seat with it, who boots there, whose further network it is of. A
//! seat that another machine has taken over is that machine's.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use koboshi_pxe::desk::Desk;

use super::UNKNOWN;
use crate::site::{SeatName, Site};

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Whose {
    /// Of the site that was looked at last: seats by all their addresses.
    site: Option<Arc<Site>>,
    seats: HashMap<Ipv4Addr, SeatName>,
}

impl Whose {
    /// The directory for what comes from there: a machine's name, or `unknown/ADDRESS`.
    pub fn place(&mut self, site: &Arc<Site>, desk: &Desk, from: IpAddr) -> String {
        let machine = match from.to_canonical() {
            IpAddr::V4(from) => self.machine(site, desk, from),
            IpAddr::V6(_) => None,
        };
        match machine {
            // One that the site does not know is called by its MAC.
            Some(machine) => machine.replace(':', "-"),
            None => format!("{UNKNOWN}/{}", from.to_canonical().to_string().replace(':', "-")),
        }
    }

    fn machine(&mut self, site: &Arc<Site>, desk: &Desk, from: Ipv4Addr) -> Option<String> {
        if let Some(machine) = desk.at(from) {
            return Some(machine);
        }
        if !self.site.as_ref().is_some_and(|known| Arc::ptr_eq(known, site)) {
            self.seats = addresses(site);
            self.site = Some(site.clone());
        }
        let seat = self.seats.get(&from)?;
        let holder = desk.holder(seat.as_str());
        holder.or_else(|| site.seated.get(seat).map(ToString::to_string))
    }
}

/// A seat's own address, and those on further networks.
fn addresses(site: &Site) -> HashMap<Ipv4Addr, SeatName> {
    let mut all: HashMap<Ipv4Addr, SeatName> = HashMap::new();
    for (name, seat) in &site.seats {
        let nets = seat.nets.values().filter_map(|net| net.ip.as_ref().map(|ip| ip.value));
        for address in seat.ip.iter().map(|ip| ip.value).chain(nets) {
            all.insert(address, name.clone());
        }
    }
    all
}
