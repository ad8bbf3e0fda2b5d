//! The gate at the desk: before a plan is frozen, the one table of seats is asked who holds the seat,
//! under the same lock that gives it away. Everything that frees a seat comes through here.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use tokio::sync::mpsc;

use super::lately::Lately;
use super::{Desk, Inner, News, Snapshot};
use crate::boots::{Boot, Stage};
use crate::content::BootId;
use crate::decide::{Asks, Client, Entry, Exclusive, Facts, Known, Live, Place, Step, decide};
use crate::dhcp::Subnet;
use crate::held::How;
use crate::mac::Mac;
use crate::seats::{Hardware, Holder};

/// Reports of boots that are over, by address: after ten seconds the next one is looked into.
pub(super) type Strays = Lately<Ipv4Addr, (), 10, 4096>;
/// How often the link is asked for who holds a seat that may move when nobody answers.
const PROBE_AGAIN: Duration = Duration::from_secs(5);
/// A machine between its loader and `koboshi-init` answers nobody, and takes its seat's address a
/// moment later. One that was promised a seat and has not reported for so long is not there.
const PROMISED: Duration = Duration::from_secs(600);

impl Desk {
    /// What the site, and who holds its seats, make of a MAC.
    pub fn entry(&self, mac: Mac) -> Entry {
        let site = self.site.load();
        self.inner().entry(&site, mac)
    }

    /// A machine's boot under way, whichever NIC it goes by: iPXE names its first one.
    pub(super) fn boot_by(&self, mac: Mac) -> Option<Boot> {
        let entry = self.site.load().entry(mac);
        self.inner().find(&entry, mac).cloned()
    }

    /// Who holds what.
    pub fn holders(&self) -> Vec<Holder> {
        self.inner().seats.iter().cloned().collect()
    }

    /// The machine at an address: it holds the seat there, or boots there. One that the site does not know is
    /// called by its MAC.
    pub fn at(&self, address: Ipv4Addr) -> Option<String> {
        let site = self.site.load();
        let inner = self.inner();
        if let Some(holder) = inner.seats.at(address) {
            return Some(holder.machine.clone());
        }
        let mac = inner.boots.at(address)?.mac;
        let known = site.machines.get(&mac).map(|known| known.name.clone());
        Some(known.unwrap_or_else(|| mac.to_string()))
    }

    /// Whether a machine is booting at an address: it is about to ask for files.
    pub fn boots_at(&self, peer: IpAddr) -> bool {
        let IpAddr::V4(address) = peer else { return false };
        let inner = self.inner();
        inner.boots.at(address).is_some_and(|boot| boot.stage < Stage::Init)
            || inner.begun.waits_at(address)
    }

    /// The machine that holds a seat.
    pub fn holder(&self, seat: &str) -> Option<String> {
        self.inner().seats.of(seat).map(|holder| holder.machine.clone())
    }

    /// Puts back what a machine held before a restart of the appliance. False if another one holds
    /// it by now.
    pub fn holds(&self, holder: Holder) -> bool {
        let name = holder.machine.clone();
        let who = Hardware { name: &name, macs: &[holder.mac] };
        self.inner().seats.promise(holder, who)
    }

    /// A machine cannot run any more, says whoever has made sure of it: its boots end and its seats
    /// are free. `None` if the ledger is behind: nothing was done then.
    pub fn fence(&self, machine: &str, by: String, done: mpsc::Sender<()>) -> Option<Vec<Holder>> {
        let site = self.site.load();
        let mut inner = self.inner();
        let permit = self.news.try_reserve().ok()?;
        let named = |mac: &Mac| site.machines.get(mac).is_some_and(|known| known.name == machine);
        let planned = |boot: &Boot| boot.plan.as_ref().is_some_and(|plan| plan.machine == machine);
        let its = |boot: &&Boot| named(&boot.mac) || planned(boot);
        let macs: Vec<Mac> = inner.boots.iter().filter(its).map(|boot| boot.mac).collect();
        for (mac, _) in site.machines.iter().filter(|(_, known)| known.name == machine) {
            inner.begun.remove(*mac);
        }
        let over = macs.into_iter().filter_map(|mac| inner.boots.close(mac));
        let over: Vec<_> = over.map(|boot| (boot.id, boot.mac)).collect();
        for (id, _) in &over {
            inner.budgets.remove(id);
        }
        let freed = inner.seats.fence(machine);
        let (machine, at, told) = (machine.to_string(), SystemTime::now(), freed.clone());
        permit.send(News::Fenced { machine, over, freed, by, at, done });
        Some(told)
    }

    /// Nobody answers at a seat's address: it is free, unless its holder has booted or reported since
    /// the link was asked.
    pub fn vacate(&self, asked: &Holder, why: String) -> bool {
        let mut inner = self.inner();
        if inner.seats.of(&asked.seat).is_none_or(|holder| holder.heard != asked.heard) {
            return false;
        }
        let Some(holder) = inner.seats.free(&asked.seat, asked.boot) else { return false };
        let mac = inner.boots.get(asked.boot).map(|boot| boot.mac);
        if let Some(boot) = mac.and_then(|mac| inner.boots.close(mac)) {
            inner.budgets.remove(&boot.id);
            inner.begun.remove(boot.mac);
        }
        self.tell(News::Freed { holder, why, at: SystemTime::now() });
        true
    }

    /// A machine reports from the seat of a boot that is over, though nobody fenced it: what began
    /// another boot was not it, or somebody in its name. The seat is its own as long as no other
    /// machine has been given it. Says who has, if one has.
    pub fn alive(&self, holder: Holder) -> Option<Holder> {
        let site = self.site.load();
        let mut inner = self.inner();
        let who = match site.machines.get(&holder.mac) {
            Some(known) => known.hardware(),
            None => Hardware { name: &holder.machine, macs: &[holder.mac] },
        };
        let other = inner.seats.other(&holder.seat, Some(holder.address), who).cloned();
        if other.is_none() && inner.seats.of(&holder.seat).is_none() {
            inner.seats.put(holder.clone());
            self.tell(News::Held { holder });
        }
        other
    }

    /// A boot has been acknowledged its address: whatever else its machine held, it has left. False if it has no boot there.
    pub(super) fn left(&self, mac: Mac, address: Ipv4Addr) -> bool {
        let site = self.site.load();
        let mut inner = self.inner();
        let here = |boot: &&Boot| boot.speaks_from(address);
        let Some(boot) = inner.boots.of(mac).filter(here) else { return false };
        let id = boot.id;
        let name = mac.to_string();
        let who = match site.machines.get(&mac) {
            Some(known) => known.hardware(),
            None => Hardware { name: &name, macs: &[mac] },
        };
        for holder in inner.seats.leave(who, id) {
            let why = "its firmware began another boot".to_string();
            self.tell(News::Freed { holder, why, at: SystemTime::now() });
        }
        true
    }

    /// A report was taken: its boot sits where it was promised to sit. Says who holds that seat, if
    /// it is another machine.
    pub(super) fn sits(&self, inner: &mut Inner, id: BootId) -> Option<Holder> {
        let seat = inner.boots.get(id)?.plan.as_ref()?.seat.clone()?;
        if inner.seats.heard(&seat, id, SystemTime::now()) {
            return None;
        }
        inner.seats.of(&seat).cloned()
    }

    /// A report of a boot that is not under way. Whether it ever was, the ledger knows.
    pub(super) fn stray(&self, inner: &mut Inner, id: BootId, peer: IpAddr) {
        self.not_its_own(peer);
        let IpAddr::V4(address) = peer else { return };
        let now = Instant::now();
        if inner.strays.get(&address, now).is_some() || !inner.strays.room(now) {
            return;
        }
        inner.strays.put(address, (), now);
        self.tell(News::Stray { id, address, at: SystemTime::now() });
    }

    /// Once a wait: for whom.
    pub(super) fn tell_waits(&self, entry: &Entry, mac: Mac) {
        let Entry::Known(known) = entry else { return };
        let Place::Taken(_, held) = &known.place else { return };
        let text = format!("{} ({})", held.says(), held.evidence());
        self.tell(News::Heard { mac: Some(mac), kind: "waits", text, at: SystemTime::now() });
    }

    /// A machine waits for its seat and has no address to wait at: what to do about that.
    pub(super) fn waits_nowhere(&self, mac: Mac) -> Option<String> {
        let Entry::Known(known) = self.entry(mac) else { return None };
        let Place::Taken(_, held) = &known.place else { return None };
        let (says, evidence) = (held.says(), held.evidence());
        Some(format!(
            "{says} ({evidence}); it gets no answer, for want of an address to wait at: add pool = \"FIRST-LAST\" to its network, or enlarge that"
        ))
    }

    /// A boot asks for an address: if it waits for a seat that moves by ARP, the link is asked.
    pub(super) fn look_for_holder(&self, mac: Mac) {
        let site = self.site.load();
        let mut inner = self.inner();
        let Entry::Known(known) = inner.entry(&site, mac) else { return };
        let Place::Taken(seat, held) = &known.place else { return };
        // Another seat's address is another seat's matter, and behind a relay ARP tells nothing.
        let here = site.subnet_of(held.address).is_some_and(|subnet| subnet.on_link());
        let on_its_way = held.how == How::Promised && held.since < PROMISED;
        let probes = seat.exclusive == Exclusive::Probe && held.sits_in == held.seat;
        if !probes || !here || on_its_way {
            return;
        }
        let Some(holder) = inner.seats.of(&seat.name).cloned() else { return };
        if inner.seats.may_probe(&seat.name, Instant::now(), PROBE_AGAIN) {
            let (machine, macs) = (known.name.clone(), known.macs.clone());
            self.tell(News::Probe { holder, machine, macs });
        }
    }
}

impl Inner {
    pub(super) fn ask(&self, site: &Snapshot, facts: &Facts) -> Step {
        self.ask_on(site, facts, None)
    }

    /// The same for a client that stands on this network.
    pub(super) fn ask_on(&self, site: &Snapshot, facts: &Facts, stands: Option<&Subnet>) -> Step {
        let begins = self.begins(site, facts);
        let facts = begins.as_ref().unwrap_or(facts);
        let entry = match facts.asks {
            // A running system keeps its place: an order is for its next boot.
            Asks::Dhcp { client: Client::System, .. } => self.seated(site, facts.mac, stands),
            _ => self.entry_on(site, facts.mac, stands),
        };
        // A frozen plan is of the network the boot began on: plugged into another, it begins anew.
        let live = self.live(&entry, facts.mac).filter(|live| {
            let (Some(subnet), Some(plan)) = (stands, &live.plan) else { return true };
            subnet.contains(plan.address)
        });
        decide(facts, &entry, live.as_ref())
    }

    /// What the site says of a MAC, and whether another machine is in the way.
    pub(super) fn entry(&self, site: &Snapshot, mac: Mac) -> Entry {
        self.entry_on(site, mac, None)
    }

    /// The same for a client that stands on this network; or what it was ordered to do before that.
    pub(super) fn entry_on(&self, site: &Snapshot, mac: Mac, stands: Option<&Subnet>) -> Entry {
        let entry = self.seated(site, mac, stands);
        self.ordered(site, &entry).unwrap_or(entry)
    }

    /// What it is whenever nothing else is ordered.
    fn seated(&self, site: &Snapshot, mac: Mac, stands: Option<&Subnet>) -> Entry {
        let entry = match stands {
            Some(subnet) => site.entry_on(mac, subnet),
            None => site.entry(mac),
        };
        let Entry::Known(known) = &entry else { return entry };
        let Place::Seat(seat) = &known.place else { return entry };
        let Some(holder) = self.seats.other(&seat.name, seat.address, known.hardware()) else {
            return entry;
        };
        let held = holder.held(&seat.name, seat.exclusive, SystemTime::now());
        let place = Place::Taken(seat.clone(), held);
        Entry::Known(Arc::new(Known { place, ..known.as_ref().clone() }))
    }

    /// A machine's boot, whichever of its NICs it goes by.
    pub(super) fn find(&self, entry: &Entry, mac: Mac) -> Option<&Boot> {
        let others = match entry {
            Entry::Known(known) => known.macs.as_slice(),
            Entry::Unknown(_) => &[],
        };
        std::iter::once(&mac).chain(others).find_map(|mac| self.boots.of(*mac))
    }

    pub(super) fn live(&self, entry: &Entry, mac: Mac) -> Option<Live> {
        let boot = self.find(entry, mac)?;
        Some(Live { here: boot.mac == mac, ..boot.live(Instant::now()) })
    }

    /// Whether a boot at this address is not to be opened: the offer was decided a moment ago, and
    /// the seat has changed hands since. The REQUEST will be refused.
    pub(super) fn too_late(&self, entry: &Entry, mac: Mac, address: Ipv4Addr) -> bool {
        let name = mac.to_string();
        let (who, own) = match entry {
            Entry::Known(known) => (known.hardware(), known.place.address()),
            Entry::Unknown(_) => (Hardware { name: &name, macs: &[mac] }, None),
        };
        let taken = self.seats.at(address).is_some_and(|holder| !who.owns(holder));
        taken || own.is_some_and(|own| own != address)
    }

    /// The boot that is about to be opened has its seat from now on: it has a plan for it, or waits
    /// at its address for something to boot. Says which.
    pub(super) fn sit(&mut self, entry: &Entry, boot: &Boot) -> Option<String> {
        let Entry::Known(known) = entry else { return None };
        let (Place::Seat(seat) | Place::Typed { seat: Some(seat), .. }) = &known.place else {
            return None;
        };
        if boot.plan.is_none() && !boot.fixed {
            return None;
        }
        let holder = Holder {
            seat: seat.name.clone(),
            address: boot.address,
            machine: known.name.clone(),
            mac: boot.mac,
            boot: boot.id,
            since: SystemTime::now(),
            heard: None,
            down: false,
        };
        self.seats.promise(holder, known.hardware()).then(|| seat.name.clone())
    }

    pub(super) fn says_down(&mut self, id: BootId, down: bool) {
        let Some(boot) = self.boots.get(id) else { return };
        if let Some(seat) = boot.plan.as_ref().and_then(|plan| plan.seat.clone()) {
            self.seats.down(&seat, id, down);
        }
    }
}
