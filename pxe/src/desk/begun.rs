//! A boot that may have begun. A DISCOVER of firmware says that a machine was started over, and anybody can
//! send one in its name; a REQUEST as well. Of a machine that runs and reports, neither ends its boot: its
//! timeline, its plan and its seat stay (unless the site has given it another seat since) until the firmware
//! fetches something from the address that it was given, which nobody else can from there. Its running system goes
//! on reporting meanwhile, if it was not it, and then the DISCOVER was forged, or another machine has its MAC. If it
//! does not, and the firmware finds no loader, the boot has begun all the same once that is certain. The same holds
//! of a machine that has its loader and is on its way: one in its name a second would begin its boot anew for ever.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::MutexGuard;
use std::time::{Duration, Instant, SystemTime};

use super::{Desk, Inner, Offer, Snapshot};
use crate::boots::{Boot, HEARD_LATELY, Stage};
use crate::decide::{Action, Asks, Client, Entry, Facts};
use crate::hostile::Harm;
use crate::mac::Mac;

/// A report this long after the DISCOVER cannot have been under way before it: the machine runs.
const UNDER_WAY: Duration = Duration::from_secs(5);
/// What runs is heard of every 20 to 30 s: three times nothing, and it does not run.
const SILENT: Duration = Duration::from_secs(90);
/// Lines that wait for a boot to begin: EDK2 asks for its loader's size before it fetches it.
const REMARKS_MAX: usize = 4;

/// What is to be opened.
#[derive(Debug)]
pub(super) struct Begun {
    facts: Facts,
    offer: Offer,
    /// The seat's own address, if it was that.
    fixed: Option<Ipv4Addr>,
    /// Its first DISCOVER: that is when the boot began.
    at: Instant,
    /// What the timeline is to hear of its ACK.
    acked: Option<(String, Instant)>,
    /// And of what it did then.
    remarks: Vec<(String, Instant)>,
}

/// All of them, by machine and by where they would fetch from: a whole site may be started over at once. One at each
/// address.
#[derive(Debug, Default)]
pub(super) struct Begins {
    by_mac: HashMap<Mac, Begun>,
    by_address: HashMap<Ipv4Addr, Mac>,
}

impl Begins {
    pub(super) fn waits(&self, mac: Mac) -> bool {
        self.by_mac.contains_key(&mac)
    }

    pub(super) fn waits_at(&self, address: Ipv4Addr) -> bool {
        self.by_address.contains_key(&address)
    }

    fn at(&mut self, peer: IpAddr) -> Option<&mut Begun> {
        let IpAddr::V4(address) = peer.to_canonical() else { return None };
        self.by_mac.get_mut(self.by_address.get(&address)?)
    }

    /// In place of the machine's last one, and of whoever had that address, or goes by another NIC.
    fn insert(&mut self, begun: Begun) {
        let (mac, address) = (begun.facts.mac, begun.offer.address);
        self.remove(mac);
        self.leave(address);
        self.by_address.insert(address, mac);
        self.by_mac.insert(mac, begun);
    }

    pub(super) fn remove(&mut self, mac: Mac) -> Option<Begun> {
        let begun = self.by_mac.remove(&mac)?;
        self.by_address.remove(&begun.offer.address);
        Some(begun)
    }

    /// A boot is opened at this address.
    pub(super) fn leave(&mut self, address: Ipv4Addr) {
        if let Some(mac) = self.by_address.get(&address).copied() {
            self.remove(mac);
        }
    }
}

impl Desk {
    /// A boot would begin, and the machine runs. True: it begins when it fetches something.
    pub(super) fn may_begin(
        &self,
        inner: &mut Inner,
        site: &Snapshot,
        facts: &Facts,
        fixed: Option<Ipv4Addr>,
        offer: &Offer,
    ) -> bool {
        let entry = site.entry(facts.mac);
        let runs = inner.find(&entry, facts.mac).filter(|boot| boot.goes_on(Instant::now()));
        // Another seat's address has to be promised before it is acknowledged, and that takes a boot. But an order that
        // is carried out, or a role that was typed, runs at an address of the pool: its own seat's ends neither.
        let seated = |boot: &Boot| boot.plan.as_ref().is_some_and(|plan| plan.seat.is_some());
        let moves = |boot: &&Boot| seated(boot) && fixed.is_some_and(|fixed| fixed != boot.address);
        // What was typed in the loader is followed by a DISCOVER at once.
        let typed = |boot: &&Boot| boot.chosen.as_ref().is_some_and(|(chosen, _)| chosen.in_loader);
        if runs.filter(|boot| !moves(boot) && !typed(boot)).is_none() {
            inner.begun.remove(facts.mac);
            return false;
        }
        let (facts, offer) = (facts.clone(), offer.clone());
        // Firmware that asks again is not younger by it, and one DISCOVER more undoes no ACK.
        let former = inner.begun.remove(facts.mac);
        let former =
            former.filter(|begun| begun.offer.address == offer.address && begun.fixed == fixed);
        let begun = match former {
            Some(former) => Begun { facts, offer, ..former },
            None => {
                let (at, remarks) = (Instant::now(), Vec::new());
                Begun { facts, offer, fixed, at, acked: None, remarks }
            }
        };
        inner.begun.insert(begun);
        true
    }

    /// Its address was acknowledged. False: no boot waits to begin there.
    pub(super) fn may_have_begun(&self, facts: &Facts, offer: &Offer, note: &str) -> bool {
        let site = self.site.load();
        let mut inner = self.inner();
        let runs = inner.goes_on(&site, facts.mac, Instant::now());
        let begun = inner.begun.by_mac.get_mut(&facts.mac);
        let Some(begun) = begun.filter(|begun| begun.offer.address == offer.address) else {
            return false;
        };
        begun.acked = Some((note.to_string(), Instant::now()));
        if !runs {
            self.begins(inner, &site, facts.mac, false);
        }
        true
    }

    /// Somebody fetches a loader, or a machine's orders by HTTP, from this address: a boot that may have begun there
    /// has.
    pub(super) fn begins_at(&self, peer: IpAddr, whose: Option<Mac>) {
        let site = self.site.load();
        let mut inner = self.inner();
        let Some(mac) = inner.begun.at(peer).map(|begun| begun.facts.mac) else { return };
        let names = |mac: &Mac| site.machines.get(mac).map(|known| &known.name);
        // iPXE calls a machine by its first NIC.
        let its = whose.is_none_or(|whose| {
            whose == mac || (names(&mac).is_some() && names(&mac) == names(&whose))
        });
        if its {
            self.begins(inner, &site, mac, true);
        }
    }

    /// Boots of machines of which nothing was heard since their DISCOVER, and which fetch nothing: their firmware found
    /// no loader, and the timeline is to say so. To be asked every few seconds.
    pub fn settle(&self, now: Instant) {
        let site = self.site.load();
        let silent: Vec<Mac> = {
            let inner = self.inner();
            let begun = inner.begun.by_mac.iter();
            let silent = begun.filter(|(mac, begun)| {
                let former = inner.find(&site.entry(**mac), **mac);
                let last = former.and_then(|former| former.heard.max(former.moved));
                now.saturating_duration_since(begun.at) >= SILENT
                    && last.is_none_or(|last| last < begun.at)
            });
            silent.map(|(mac, _)| *mac).collect()
        };
        for mac in silent {
            self.begins(self.inner(), &site, mac, false);
        }
    }

    fn begins(&self, mut inner: MutexGuard<'_, Inner>, site: &Snapshot, mac: Mac, fetches: bool) {
        let Some(begun) = inner.begun.remove(mac) else { return };
        let Begun { facts, offer, at, acked, remarks, .. } = begun;
        let step = inner.ask_on(site, &facts, Some(&offer.subnet));
        let Action::Address { address: fixed, .. } = step.action else { return };
        // The site, or an order, says something else by now. An address that it was lent does for any boot, and its
        // seat's for none but that: whoever asks for its orders there is told to ask DHCP again.
        if begun.fixed.is_some() && offer.lender.is_none() && fixed != begun.fixed {
            return;
        }
        // The clock on the wall may have been set since.
        let then = |at: Instant| SystemTime::now() - at.elapsed();
        self.open(&mut inner, site, &facts, fixed, &offer, then(at));
        drop(inner);
        // Who fetches from there has its address, whether or not we remember giving it.
        if fetches || acked.is_some() {
            self.left(mac, offer.address);
        }
        if let Some((note, at)) = acked {
            self.took_at(mac, note, then(at));
        }
        for (note, at) in remarks {
            self.note_at(mac, note, then(at));
        }
    }

    /// Something about the machine at this address that is of a boot which may have begun there, and waits until it
    /// has. False: of none.
    pub(super) fn may_be_of_begun(&self, peer: IpAddr, note: &str) -> bool {
        let mut inner = self.inner();
        let Some(begun) = inner.begun.at(peer) else { return false };
        if begun.remarks.len() < REMARKS_MAX {
            begun.remarks.push((note.to_string(), Instant::now()));
        }
        true
    }

    /// A machine's boot has just reported: what was said in its name meanwhile, by whichever NIC, was not it.
    pub(super) fn runs_on(&self, inner: &mut Inner, mac: Mac, now: Instant) {
        let site = self.site.load();
        let entry = site.entry(mac);
        let macs = match &entry {
            Entry::Known(known) => known.macs.as_slice(),
            Entry::Unknown(_) => &[mac],
        };
        for mac in macs {
            let since = |begun: &Begun| now.saturating_duration_since(begun.at);
            let ago = inner.begun.by_mac.get(mac).map(since);
            let Some(ago) = ago.filter(|ago| *ago >= UNDER_WAY) else { continue };
            inner.begun.remove(*mac);
            let text = format!(
                "a boot of it was begun by DHCP {} s ago, and it runs and reports: somebody sends in its name, or \
                 another machine has its MAC; its boot goes on",
                ago.as_secs()
            );
            let text_of_all = format!("{mac}: {text}");
            let _told_of_the_machine = self.hostile.seen(Harm::Forged, 1, &text_of_all, now);
            inner.forged.push((*mac, text));
        }
    }
}

impl Inner {
    /// Whether a machine runs, by whichever of its NICs, and reported a moment ago.
    pub(super) fn runs(&self, site: &Snapshot, mac: Mac, now: Instant) -> bool {
        let entry = site.entry(mac);
        self.find(&entry, mac).is_some_and(|boot| boot.runs(now))
    }

    /// The same, or it is on its way there.
    pub(super) fn goes_on(&self, site: &Snapshot, mac: Mac, now: Instant) -> bool {
        let entry = site.entry(mac);
        self.find(&entry, mac).is_some_and(|boot| boot.goes_on(now))
    }

    /// The question of a firmware as it is to be decided: what follows the DISCOVER of a boot that may have
    /// begun belongs to that boot, and not to the one that runs.
    pub(super) fn begins(&self, site: &Snapshot, facts: &Facts) -> Option<Facts> {
        let Asks::Dhcp { client, archs, discover: false } = &facts.asks else { return None };
        let firmware = *client != Client::System && self.begun.waits(facts.mac);
        if !firmware || !self.goes_on(site, facts.mac, Instant::now()) {
            return None;
        }
        let asks = Asks::Dhcp { client: *client, archs: archs.clone(), discover: true };
        Some(Facts { mac: facts.mac, asks })
    }
}

impl Boot {
    /// Whether it reported a moment ago that it runs.
    pub(super) fn runs(&self, now: Instant) -> bool {
        let running = self.stage >= Stage::Init && self.stage != Stage::Down;
        running && self.heard.is_some_and(|at| lately(at, now))
    }

    /// Whether it runs, or has its loader and came a step further a moment ago.
    pub(super) fn goes_on(&self, now: Instant) -> bool {
        let on_its_way = self.stage >= Stage::Loader && self.stage < Stage::Init;
        let on_its_way = on_its_way && self.plan.is_some();
        self.runs(now) || (on_its_way && self.moved.is_some_and(|at| lately(at, now)))
    }
}

fn lately(at: Instant, now: Instant) -> bool {
    now.saturating_duration_since(at) < HEARD_LATELY
}

#[cfg(test)]
#[path = "begun_tests.rs"]
mod tests;
