//! The moment a boot begins: an address is on its way to firmware, its plan is frozen, and its seat promised.

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::{Instant, SystemTime};

use super::{Desk, Inner, News, Offer, Snapshot, boots, said, says};
use crate::boots::{Boot, Stage};
use crate::content::BootId;
use crate::decide::{Action, Asks, Client, Entry, Facts, Step, typed};
use crate::firmware::Firmware;

impl Desk {
    /// An address was offered: the moment a boot is opened, once.
    pub fn offered(&self, facts: &Facts, offer: &Offer) {
        let site = self.site.load();
        let mut inner = self.inner();
        let step = inner.ask_on(&site, facts, Some(&offer.subnet));
        let Action::Address { opens, address: fixed, .. } = step.action else { return };
        let address = offer.address;
        // The site was read anew, or the seat given away or left, while the pool's address was being probed: it gets
        // that address and no boot, or none at all, and the next DISCOVER opens the boot.
        if fixed.is_some_and(|fixed| fixed != address) {
            return;
        }
        // A lease that lapsed between two tries of one firmware: the old plan names an address
        // that may be another machine's by now.
        if opens || (boots(facts) && inner.moved(facts.mac, address)) {
            if self.may_begin(&mut inner, &site, facts, fixed, offer) {
                return;
            }
            self.open(&mut inner, &site, facts, fixed, offer, SystemTime::now());
        }
    }

    /// An address that is not its seat's was taken: another server's (`mode = "proxy"`), or one of the pool that was
    /// offered before its seat was free. The moment a boot is opened there; the seat's own address, where it has one,
    /// is set by the machine itself.
    pub fn lent_elsewhere(&self, facts: &Facts, offer: &Offer) {
        let Asks::Dhcp { client, .. } = &facts.asks else { return };
        {
            let site = self.site.load();
            let mut inner = self.inner();
            let step = inner.ask_on(&site, facts, Some(&offer.subnet));
            let Action::Address { opens, address: fixed, .. } = step.action else { return };
            let moved = boots(facts) && inner.moved(facts.mac, offer.address);
            if opens || (moved && !inner.boots.lent(facts.mac, offer.address)) {
                if self.may_begin(&mut inner, &site, facts, fixed, offer) {
                    drop(inner);
                    let note = format!("{} to {}", offer.shown(), says(*client));
                    self.may_have_begun(facts, offer, &note);
                    return;
                }
                self.open(&mut inner, &site, facts, fixed, offer, SystemTime::now());
            }
        }
        self.left(facts.mac, offer.address);
        self.took(facts.mac, format!("{} to {}", offer.shown(), says(*client)));
    }

    /// An address was acknowledged. After a restart in mid-exchange this opens the boot.
    pub fn acked(&self, facts: &Facts, offer: &Offer, file: Option<&str>) {
        let Asks::Dhcp { client, archs, .. } = &facts.asks else { return };
        if *client == Client::System {
            return;
        }
        let file = file.map(|file| format!("{}{file}", said::THEN)).unwrap_or_default();
        let note = format!("{} to {}{file}", offer.address, says(*client));
        if self.may_have_begun(facts, offer, &note) {
            return;
        }
        if self.live(facts.mac).is_none() || self.inner().moved(facts.mac, offer.address) {
            self.offered(facts, offer);
        }
        if self.left(facts.mac, offer.address) {
            return self.took(facts.mac, note);
        }
        // DHCP kept its word: as this one was offered, its seat's address was another's, and is not any more. (Another
        // NIC of a machine that has a boot is lent an address of the pool, and begins nothing.)
        let address = |step: Step| match step.action {
            Action::Address { address, .. } => address,
            _ => None,
        };
        if address(self.ask_on(facts, &offer.subnet)).is_some_and(|seat| seat != offer.address) {
            let asks = Asks::Dhcp { client: *client, archs: archs.clone(), discover: true };
            self.lent_elsewhere(&Facts { mac: facts.mac, asks }, offer);
        }
    }

    fn new_id(&self) -> BootId {
        let mut id = [0; 16];
        for half in id.chunks_exact_mut(8) {
            half.copy_from_slice(&(self.draw)().to_be_bytes());
        }
        BootId(id)
    }

    pub(super) fn open(
        &self,
        inner: &mut Inner,
        site: &Snapshot,
        facts: &Facts,
        fixed: Option<Ipv4Addr>,
        offer: &Offer,
        at: SystemTime,
    ) {
        let address = fixed.unwrap_or(offer.address);
        let entry = inner.entry_on(site, facts.mac, Some(&offer.subnet));
        let typed = typed(facts, &entry, inner.live(&entry, facts.mac).as_ref());
        let entry = typed.unwrap_or(entry);
        if inner.too_late(&entry, facts.mac, address) {
            return;
        }
        let id = self.new_id();
        let plan = match entry.trouble() {
            Some(why) => Err(why.to_string()),
            None => site.freeze.freeze(facts.mac, &entry, id, address, &offer.subnet),
        };
        let (plan, why) = match plan {
            Ok(plan) => (Some(Arc::new(plan)), None),
            Err(why) => (None, Some(why)),
        };
        let (machine, others) = match &entry {
            Entry::Known(known) => (known.name.clone(), known.macs.as_slice()),
            Entry::Unknown(_) => (facts.mac.to_string(), &[][..]),
        };
        let mut boot =
            Boot::begin(id, facts.mac, address, fixed.is_some(), plan.clone(), Instant::now());
        boot.lent = (offer.address != address).then_some(offer.address);
        let plan_because = plan.as_ref().and_then(|plan| plan.because.clone());
        let (fixed, lent, via) = (fixed.is_some(), boot.lent, offer.via.clone());
        // Its firmware speaks on one NIC: whatever ran and had booted by another does not.
        let mut over: Vec<Boot> = others
            .iter()
            .filter(|mac| **mac != facts.mac)
            .filter_map(|mac| inner.boots.close(*mac))
            .collect();
        for mac in others.iter().chain([&facts.mac]) {
            inner.begun.remove(*mac);
        }
        boot.addresses().for_each(|address| inner.begun.leave(address));
        let holds = inner.sit(&entry, &boot);
        over.extend(inner.boots.open(boot));
        for boot in &over {
            inner.budgets.remove(&boot.id);
        }
        let over = over.iter().map(|boot| (boot.id, boot.mac)).collect();
        let (mac, firmware) = (facts.mac, Firmware::of(facts));
        // Told before anybody else has a turn: the ledger writes holdings in the order they changed.
        self.tell(News::Opened {
            id,
            mac,
            machine,
            address,
            fixed,
            lent,
            via,
            plan,
            holds,
            firmware,
            over,
            at,
        });
        let who = match &facts.asks {
            Asks::Dhcp { client, archs, .. } => {
                let archs: Vec<String> = archs.iter().map(ToString::to_string).collect();
                format!("{} ({})", says(*client), archs.join(", "))
            }
            Asks::Script => "its script".to_string(),
        };
        let why = why.as_deref().and_then(|why| why.lines().next());
        let why = why.map(|why| format!("; nothing to boot: {why}")).unwrap_or_default();
        let typed = match entry.choice() {
            Some(choice) => format!("; {} was typed at its console", choice.says()),
            None => String::new(),
        };
        let because = plan_because.map(|because| format!("; {because}")).unwrap_or_default();
        let through = offer.via.as_ref().map(|via| format!(", by {via}")).unwrap_or_default();
        let note = format!("{} to {who}{through}{typed}{because}{why}", offer.shown());
        self.tell(News::Mark { id, stage: Stage::Offer, note, at });
        self.tell_waits(&entry, mac);
    }
}
