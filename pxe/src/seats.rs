//! Who holds which seat: from the moment a plan is frozen for it until the machine is known to be
//! out of it. This is the gate before every boot. The matrix is a wish; a seat that another machine
//! holds is nobody else's, and neither is its address.
//!
//! A machine leaves a seat when its firmware has begun another boot and has been acknowledged an
//! address for it. One DISCOVER is not enough: anybody can send that in its name, and it would cost a
//! machine that runs its seat. Both packets can be forged too, but then the machine goes on
//! reporting, and its reports bring its seat back ([`crate::desk::Desk::alive`]).

use std::collections::{BTreeSet, HashMap};
use std::hash::Hash;
use std::net::Ipv4Addr;
use std::time::{Instant, SystemTime};

use crate::content::BootId;
use crate::decide::Exclusive;
use crate::held::{Held, How};
use crate::mac::Mac;

/// Which machine holds a seat.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Holder {
    /// `web1`
    pub seat: String,
    /// The address it has by it.
    pub address: Ipv4Addr,
    /// Machine's name.
    pub machine: String,
    /// The NIC it booted by.
    pub mac: Mac,
    /// By which boot.
    pub boot: BootId,
    /// Since when.
    pub since: SystemTime,
    /// When it last spoke for itself; never, where the seat is only promised to it.
    pub heard: Option<SystemTime>,
    /// It said that it was shutting down. A word of the machine: evidence, not proof.
    pub down: bool,
}

/// A machine as far as it owns what it holds: a name that was changed in the site file, or a NIC
/// that was replaced, makes it no other machine.
#[derive(Debug, Clone, Copy)]
pub struct Hardware<'a> {
    /// Its name, or its MAC if the site does not know it.
    pub name: &'a str,
    /// All its MACs.
    pub macs: &'a [Mac],
}

/// Seats of one owner: one, as a rule.
type Names = Vec<String>;

/// See the module. Bounded by the seats of the site, and those it had while machines sat in them.
#[derive(Debug, Default)]
pub struct Seats {
    by_seat: HashMap<String, Holder>,
    /// Seats by address: a site may give one seat's address to another while the first is held.
    by_address: HashMap<Ipv4Addr, String>,
    /// Seats by who owns them, by either of the ways [`Hardware::owns`] knows: ten thousand machines leave
    /// theirs within seconds.
    by_machine: HashMap<String, Names>,
    by_mac: HashMap<Mac, Names>,
    probed: HashMap<String, Instant>,
}

impl Hardware<'_> {
    /// Whether it is this machine that holds a seat.
    pub fn owns(&self, holder: &Holder) -> bool {
        holder.machine == self.name || self.macs.contains(&holder.mac)
    }
}

impl Holder {
    /// As the decision sees it.
    pub fn held(&self, wanted: &str, exclusive: Exclusive, now: SystemTime) -> Held {
        let ago = |then: SystemTime| now.duration_since(then).unwrap_or_default();
        Held {
            seat: wanted.to_string(),
            by: self.machine.clone(),
            sits_in: self.seat.clone(),
            address: self.address,
            since: ago(self.since),
            heard: self.heard.map(ago),
            how: match (self.down, self.heard) {
                (true, _) => How::Down,
                (false, Some(_)) => How::Holding,
                (false, None) => How::Promised,
            },
            exclusive,
        }
    }
}

impl Seats {
    /// Which other machine keeps this one out of a seat: it holds the seat, or the seat's address.
    pub fn other(&self, seat: &str, at: Option<Ipv4Addr>, who: Hardware<'_>) -> Option<&Holder> {
        let there = at.and_then(|address| self.at(address));
        [self.by_seat.get(seat), there].into_iter().flatten().find(|holder| !who.owns(holder))
    }

    /// Gives a seat to a machine, unless another one has it. What else the machine holds it keeps
    /// until it is known to have left ([`Seats::leave`]).
    pub fn promise(&mut self, holder: Holder, who: Hardware<'_>) -> bool {
        if self.other(&holder.seat, Some(holder.address), who).is_some() {
            return false;
        }
        self.put(holder);
        true
    }

    /// Puts back what was held before a restart, or is proved by the machine's own reports.
    pub fn put(&mut self, holder: Holder) {
        self.remove(&holder.seat);
        self.by_address.insert(holder.address, holder.seat.clone());
        note(&mut self.by_machine, holder.machine.clone(), &holder.seat);
        note(&mut self.by_mac, holder.mac, &holder.seat);
        self.by_seat.insert(holder.seat.clone(), holder);
    }

    /// A machine boots afresh: all that it holds by other boots than this one is free.
    pub fn leave(&mut self, who: Hardware<'_>, boot: BootId) -> Vec<Holder> {
        let by_name = self.by_machine.get(who.name).into_iter().flatten();
        let by_mac = who.macs.iter().filter_map(|mac| self.by_mac.get(mac)).flatten();
        let own: BTreeSet<String> = by_name.chain(by_mac).cloned().collect();
        let left = |seat: &String| self.of(seat).is_some_and(|holder| holder.boot != boot);
        let left: Vec<String> = own.into_iter().filter(left).collect();
        left.iter().filter_map(|seat| self.remove(seat)).collect()
    }

    /// A machine cannot run any more: all that it holds is free.
    pub fn fence(&mut self, machine: &str) -> Vec<Holder> {
        let seats = self.by_machine.get(machine).cloned().unwrap_or_default();
        seats.iter().filter_map(|seat| self.remove(seat)).collect()
    }

    /// A seat is free, if it is still held by this boot.
    pub fn free(&mut self, seat: &str, boot: BootId) -> Option<Holder> {
        self.by_seat.get(seat).filter(|holder| holder.boot == boot)?;
        self.remove(seat)
    }

    /// The machine spoke. False if the seat is not this boot's.
    pub fn heard(&mut self, seat: &str, boot: BootId, now: SystemTime) -> bool {
        match self.by_seat.get_mut(seat).filter(|holder| holder.boot == boot) {
            Some(holder) => {
                holder.heard = Some(now);
                true
            }
            None => false,
        }
    }

    /// The machine said that it was shutting down, or that it was not.
    pub fn down(&mut self, seat: &str, boot: BootId, down: bool) {
        if let Some(holder) = self.by_seat.get_mut(seat).filter(|holder| holder.boot == boot) {
            holder.down = down;
        }
    }

    /// Whether the link may be asked now for who holds the seat: one machine that waits asks every
    /// 10 to 20 seconds, but several may wait, and anybody can send a DISCOVER in their names.
    pub fn may_probe(&mut self, seat: &str, now: Instant, pause: std::time::Duration) -> bool {
        if self.probed.get(seat).is_some_and(|at| now.saturating_duration_since(*at) < pause) {
            return false;
        }
        self.probed.insert(seat.to_string(), now);
        true
    }

    /// Who holds a seat.
    pub fn of(&self, seat: &str) -> Option<&Holder> {
        self.by_seat.get(seat)
    }

    /// Who holds the seat with this address.
    pub fn at(&self, address: Ipv4Addr) -> Option<&Holder> {
        self.by_seat.get(self.by_address.get(&address)?)
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = &Holder> {
        self.by_seat.values()
    }

    fn remove(&mut self, seat: &str) -> Option<Holder> {
        let holder = self.by_seat.remove(seat)?;
        self.probed.remove(seat);
        forget(&mut self.by_machine, &holder.machine, seat);
        forget(&mut self.by_mac, &holder.mac, seat);
        if self.by_address.get(&holder.address).is_some_and(|there| there == seat) {
            self.by_address.remove(&holder.address);
        }
        Some(holder)
    }
}

fn note<K: Eq + Hash>(index: &mut HashMap<K, Names>, key: K, seat: &str) {
    let seats = index.entry(key).or_insert_with(|| Vec::with_capacity(1));
    if !seats.iter().any(|there| there == seat) {
        seats.push(seat.to_string());
    }
}

fn forget<K: Eq + Hash>(index: &mut HashMap<K, Names>, key: &K, seat: &str) {
    if let Some(seats) = index.get_mut(key) {
        seats.retain(|there| there != seat);
        if seats.is_empty() {
            index.remove(key);
        }
    }
}

#[cfg(test)]
#[path = "seats_tests.rs"]
mod tests;
