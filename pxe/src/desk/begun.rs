//! A boot that may have begun. A DISCOVER of firmware says that a machine was started over, and anybody can
//! send one in its name; a REQUEST as well. Of a machine that runs and reports, neither ends its boot: its
//! timeline, its plan and its seat stay (unless the site has given it another seat since) until the firmware
//! fetches something from the address that it was given, which nobody else can from there. Its running system goes on reporting meanwhile, if it was not it,
//! and then the DISCOVER was forged, or another machine has its MAC. The same holds of a machine that has its
//! loader and is on its way: one in its name a second would begin its boot anew for ever.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::MutexGuard;
use std::time::{Duration, Instant, SystemTime};

use super::{Desk, Inner, Offer, Snapshot};
use crate::boots::{Boot, HEARD_LATELY, Stage};
use crate::decide::{Action, Asks, Client, Facts};
use crate::hostile::Harm;
use crate::mac::Mac;

/// A report this long after the DISCOVER cannot have been under way before it: the machine runs.
const UNDER_WAY: Duration = Duration::from_secs(5);
/// Lines that wait for a boot to begin: EDK2 asks for its loader's size before it fetches it.
const REMARKS_MAX: usize = 4;

/// What is to be opened.
#[derive(Debug)]
pub(super) struct Begun {
    facts: Facts,
    offer: Offer,
    at: Instant,
    /// The same, by the clock on the wall: that is when the boot began.
    since: SystemTime,
    /// What the timeline is to hear of its ACK.
    acked: Option<String>,
    /// And of what it did then.
    remarks: Vec<String>,
}

/// All of them, by machine and by where they would fetch from: a whole site may be started over at once.
#[derive(Debug, Default)]
pub(super) struct Begins {
    by_mac: HashMap<Mac, Begun>,
    by_address: HashMap<Ipv4Addr, Mac>,
}

impl Begins {
    pub(super) fn waits(&self, mac: Mac) -> bool {
        self.by_mac.contains_key(&mac)
    }

    fn get(&self, mac: Mac) -> Option<&Begun> {
        self.by_mac.get(&mac)
    }

    fn get_mut(&mut self, mac: Mac) -> Option<&mut Begun> {
        self.by_mac.get_mut(&mac)
    }

    /// The newest of those at an address: a machine may ask by two NICs.
    fn at(&mut self, peer: IpAddr) -> Option<&mut Begun> {
        let IpAddr::V4(address) = peer.to_canonical() else { return None };
        self.by_mac.get_mut(self.by_address.get(&address)?)
    }

    fn insert(&mut self, begun: Begun) {
        let mac = begun.facts.mac;
        self.remove(mac);
        self.by_address.insert(begun.offer.address, mac);
        self.by_mac.insert(mac, begun);
    }

    fn remove(&mut self, mac: Mac) -> Option<Begun> {
        let begun = self.by_mac.remove(&mac)?;
        if self.by_address.get(&begun.offer.address) == Some(&mac) {
            self.by_address.remove(&begun.offer.address);
        }
        Some(begun)
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
        // Another seat's address has to be promised before it is acknowledged, and that takes a boot.
        let moves = |boot: &&Boot| fixed.is_some_and(|fixed| fixed != boot.address);
        // What was typed in the loader is followed by a DISCOVER at once.
        let typed = |boot: &&Boot| boot.chosen.as_ref().is_some_and(|(chosen, _)| chosen.in_loader);
        if runs.filter(|boot| !moves(boot) && !typed(boot)).is_none() {
            inner.begun.remove(facts.mac);
            return false;
        }
        let (facts, offer) = (facts.clone(), offer.clone());
        let former =
            inner.begun.get(facts.mac).filter(|begun| begun.offer.address == offer.address);
        // Firmware that asks again is not younger by it.
        let now = (Instant::now(), SystemTime::now());
        let (at, since) = former.map_or(now, |begun| (begun.at, begun.since));
        let begun = Begun { facts, offer, at, since, acked: None, remarks: Vec::new() };
        inner.begun.insert(begun);
        true
    }

    /// Its address was acknowledged. False: no boot waits to begin there.
    pub(super) fn may_have_begun(&self, facts: &Facts, offer: &Offer, note: &str) -> bool {
        let site = self.site.load();
        let mut inner = self.inner();
        let runs = inner.goes_on(&site, facts.mac, Instant::now());
        let begun = inner.begun.get_mut(facts.mac);
        let Some(begun) = begun.filter(|begun| begun.offer.address == offer.address) else {
            return false;
        };
        begun.acked = Some(note.to_string());
        if !runs {
            self.begins(inner, &site, facts.mac);
        }
        true
    }

    /// Somebody fetches a loader, or a machine's orders, from this address: a boot that may have begun there has.
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
            self.begins(inner, &site, mac);
        }
    }

    fn begins(&self, mut inner: MutexGuard<'_, Inner>, site: &Snapshot, mac: Mac) {
        let Some(begun) = inner.begun.remove(mac) else { return };
        let Begun { facts, offer, since, acked, remarks, .. } = begun;
        let step = inner.ask_on(site, &facts, Some(&offer.subnet));
        let Action::Address { address: fixed, .. } = step.action else { return };
        if offer.lender.is_none() && fixed.is_some_and(|fixed| fixed != offer.address) {
            return;
        }
        self.open(&mut inner, site, &facts, fixed, &offer, since);
        drop(inner);
        if let Some(note) = acked {
            self.left(mac, offer.address);
            self.took(mac, note);
        }
        remarks.into_iter().for_each(|note| self.note(mac, note));
    }

    /// Something about the machine at this address that is of a boot which may have begun there, and waits until it
    /// has. False: of none.
    pub(super) fn may_be_of_begun(&self, peer: IpAddr, note: &str) -> bool {
        let mut inner = self.inner();
        let Some(begun) = inner.begun.at(peer) else { return false };
        if begun.remarks.len() < REMARKS_MAX {
            begun.remarks.push(note.to_string());
        }
        true
    }

    /// A machine's boot has just reported: what was said in its name meanwhile was not it.
    pub(super) fn runs_on(&self, inner: &mut Inner, mac: Mac, now: Instant) {
        let since = |begun: &Begun| now.saturating_duration_since(begun.at);
        let Some(ago) = inner.begun.get(mac).map(since).filter(|ago| *ago >= UNDER_WAY) else {
            return;
        };
        inner.begun.remove(mac);
        let text = format!(
            "a boot of it was begun by DHCP {} s ago, and it runs and reports: somebody sends in its name, or \
             another machine has its MAC; its boot goes on",
            ago.as_secs()
        );
        let text_of_all = format!("{mac}: {text}");
        let _told_of_the_machine = self.hostile.seen(Harm::Forged, 1, &text_of_all, now);
        inner.forged.push((mac, text));
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
mod tests {
    use bytes::Bytes;
    use tokio::sync::mpsc;

    use super::super::News;
    use super::super::tests::{MAC, SEAT, at, desk};
    use super::*;
    use crate::content::BootId;
    use crate::decide::Arch;

    fn asks(discover: bool) -> Facts {
        Facts {
            mac: MAC,
            asks: Asks::Dhcp { client: Client::Firmware, archs: vec![Arch::BIOS], discover },
        }
    }

    /// Its firmware, or somebody in its name: DISCOVER to ACK.
    fn exchange(desk: &Desk) {
        for discover in [true, false] {
            let step = desk.ask(&asks(discover));
            let Action::Address { address: Some(SEAT), .. } = step.action else {
                panic!("{step:?}")
            };
        }
        desk.offered(&asks(true), &at(SEAT));
        desk.acked(&asks(false), &at(SEAT), None);
    }

    fn up(desk: &Desk) -> BootId {
        exchange(desk);
        let id = desk.boot_of(MAC).expect("a boot").id;
        desk.report(id, SEAT.into(), Bytes::new()).expect("taken");
        assert!(desk.reached(id, Stage::Up));
        id
    }

    fn told(heard: &mut mpsc::Receiver<News>) -> Vec<&'static str> {
        let mut told = Vec::new();
        while let Ok(news) = heard.try_recv() {
            told.extend(match news {
                News::Opened { .. } => Some("opened"),
                News::Freed { .. } => Some("freed"),
                News::Heard { kind, .. } => Some(kind),
                _ => None,
            });
        }
        told
    }

    #[test]
    fn what_is_said_in_the_name_of_a_machine_that_runs_ends_nothing() {
        let (desk, mut heard) = desk();
        let id = up(&desk);
        told(&mut heard);
        for _ in 0..3 {
            exchange(&desk);
        }
        assert_eq!(told(&mut heard), [""; 0]);
        assert_eq!(desk.boot_of(MAC).map(|boot| (boot.id, boot.stage)), Some((id, Stage::Up)));
        assert_eq!(desk.holders()[0].boot, id);
        // Its orders, read from somewhere else, are no sign of it.
        assert!(desk.script(MAC, IpAddr::from([10, 77, 0, 99])).is_some());
        assert_eq!(desk.boot_of(MAC).map(|boot| boot.id), Some(id));
        // It reports, and that is taken; what was forged is told once it cannot have been under way.
        desk.report(id, SEAT.into(), Bytes::new()).expect("it runs");
        assert_eq!(told(&mut heard), [""; 0]);
        desk.inner().begun.get_mut(MAC).expect("it waits").at -= UNDER_WAY;
        desk.report(id, SEAT.into(), Bytes::new()).expect("it runs");
        assert_eq!(told(&mut heard), ["forged"]);
        assert!(!desk.inner().begun.waits(MAC));
    }

    #[test]
    fn a_machine_that_was_reset_boots_as_soon_as_it_fetches() {
        for by_script in [true, false] {
            let (desk, mut heard) = desk();
            let id = up(&desk);
            told(&mut heard);
            exchange(&desk);
            match by_script {
                true => drop(desk.script(MAC, SEAT.into())),
                false => desk.file_sent((SEAT, 2070).into(), "undionly.kpxe", ""),
            }
            let boot = desk.boot_of(MAC).expect("a boot");
            assert_ne!(boot.id, id);
            assert_eq!(boot.stage, if by_script { Stage::Script } else { Stage::Loader });
            assert_eq!(desk.holders()[0].boot, boot.id);
            assert!(told(&mut heard).contains(&"opened"));
            desk.report(id, SEAT.into(), Bytes::new()).expect_err("the former boot is over");
        }
    }

    #[test]
    fn a_boot_began_with_its_discover_and_what_its_firmware_asked_since_is_of_it() {
        let (desk, mut heard) = desk();
        let former = up(&desk);
        told(&mut heard);
        let before = SystemTime::now();
        exchange(&desk);
        let asked = SystemTime::now();
        for size in 0..20 {
            // EDK2 asks for the size, and asks again if it hears nothing.
            desk.remark(SEAT.into(), format!("asked for the size: {size}"));
        }
        assert!(heard.try_recv().is_err(), "nothing of this is of the boot that may run on");
        std::thread::sleep(Duration::from_millis(20));
        desk.file_sent((SEAT, 2070).into(), "undionly.kpxe", "");
        let (mut opened, mut notes) = (None, Vec::new());
        while let Ok(news) = heard.try_recv() {
            match news {
                News::Opened { id, at, .. } => opened = Some((id, at)),
                News::Mark { id, note, .. } => notes.push((id, note)),
                _ => {}
            }
        }
        let (id, at) = opened.expect("a boot");
        assert!(before <= at && at <= asked, "{before:?} {at:?} {asked:?}");
        assert!(id != former && notes.iter().all(|(of, _)| *of == id), "{notes:?}");
        let sizes = notes.iter().filter(|(_, note)| note.starts_with("asked for the size"));
        assert_eq!(sizes.count(), REMARKS_MAX);
    }

    #[test]
    fn one_that_is_on_its_way_goes_on() {
        let (desk, mut heard) = desk();
        exchange(&desk);
        desk.script(MAC, SEAT.into());
        let id = desk.boot_of(MAC).expect("a boot").id;
        told(&mut heard);
        exchange(&desk);
        assert_eq!(told(&mut heard), [""; 0]);
        assert_eq!(desk.boot_of(MAC).map(|boot| boot.id), Some(id));
        // It was reset: its firmware fetches its loader anew.
        desk.file_sent((SEAT, 2070).into(), "undionly.kpxe", "");
        assert_ne!(desk.boot_of(MAC).map(|boot| boot.id), Some(id));
        desk.inner().boots.of_mut(MAC).expect("a boot").moved = None;
        exchange(&desk);
        assert!(told(&mut heard).contains(&"opened"), "one that hangs begins at once");
    }

    #[test]
    fn one_that_has_fallen_silent_begins_at_once() {
        let (desk, mut heard) = desk();
        let id = up(&desk);
        told(&mut heard);
        desk.inner().boots.of_mut(MAC).expect("a boot").heard = None;
        exchange(&desk);
        assert_eq!(told(&mut heard), ["opened"]);
        assert_ne!(desk.boot_of(MAC).map(|boot| boot.id), Some(id));
        let (desk, mut heard) = super::super::tests::desk();
        let id = up(&desk);
        told(&mut heard);
        assert!(desk.reached(id, Stage::Down), "it said that it goes");
        exchange(&desk);
        assert!(told(&mut heard).contains(&"opened"));
    }
}
