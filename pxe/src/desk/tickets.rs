//! Orders for one boot of a machine, at the desk: who has one gets its plan before that of its seat. It
//! stands until a boot of it has reported. Not until one has begun: a DISCOVER in a machine's name
//! begins one, and whoever sends it can read its plan, but does nothing of what it orders.

use std::sync::Arc;
use std::time::Instant;

use super::{Desk, Inner, Snapshot};
use crate::boots::Stage;
use crate::content::BootId;
use crate::decide::{Entry, Known, Place, Ticket};
use crate::mac::Mac;

impl Desk {
    /// A machine's next boot is this, or what its place is if there is none. In force when it returns.
    pub fn order(&self, machine: &str, ticket: Option<Ticket>) {
        let mut inner = self.inner();
        match ticket {
            Some(ticket) => inner.tickets.insert(machine.to_string(), ticket),
            None => inner.tickets.remove(machine),
        };
    }

    /// The order that stands for a machine's next boot.
    pub fn ordered(&self, machine: &str) -> Option<Ticket> {
        let now = Instant::now();
        self.inner().tickets.get(machine).filter(|ticket| now < ticket.until).cloned()
    }
}

impl Inner {
    /// What a machine is by the order that stands for it.
    pub(super) fn ordered(&self, site: &Snapshot, entry: &Entry) -> Option<Entry> {
        let Entry::Known(known) = entry else { return None };
        let ticket = self.tickets.get(&known.name)?;
        if Instant::now() >= ticket.until {
            return None;
        }
        let trouble = site.freeze.no_image(&ticket.image);
        let place = Place::Ticket(Arc::new(Ticket { trouble, ..ticket.clone() }));
        Some(Entry::Known(Arc::new(Known { place, ..known.as_ref().clone() })))
    }

    /// A boot of a ticket reports: the machine has it, and its next boot is its own again.
    pub(super) fn ticket_taken(&mut self, id: BootId) {
        let boot = self.boots.get(id);
        let taken = boot.and_then(|boot| boot.plan.as_ref()?.ticket);
        if taken.is_some() {
            self.tickets.retain(|_, ticket| Some(ticket.id) != taken);
        }
    }

    /// The same where the machine runs nothing that could report: its kernel was handed over.
    pub(super) fn handed_over(&mut self, mac: Mac, stage: Stage) {
        let boot = self.boots.of(mac).filter(|_| stage == Stage::Kernel);
        let boot = boot.filter(|boot| boot.plan.as_ref().is_some_and(|plan| plan.is_bare()));
        if let Some(id) = boot.map(|boot| boot.id) {
            self.ticket_taken(id);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use bytes::Bytes;

    use super::super::tests::{MAC, SEAT, at, desk};
    use super::super::{Facts, News};
    use super::*;
    use crate::decide::{Action, Arch, Asks, Client, Rule};

    const POOL: std::net::Ipv4Addr = std::net::Ipv4Addr::new(10, 77, 0, 200);

    fn asks(client: Client, discover: bool) -> Facts {
        Facts { mac: MAC, asks: Asks::Dhcp { client, archs: vec![Arch::BIOS], discover } }
    }

    fn wipe(until: Instant) -> Option<Ticket> {
        let (duty, image, order) = ("wipe".into(), "wipe".into(), String::new());
        Some(Ticket { id: 7, duty, image, order, trouble: None, until })
    }

    fn soon() -> Instant {
        Instant::now() + Duration::from_secs(60)
    }

    fn boot(desk: &Desk, address: std::net::Ipv4Addr) -> BootId {
        let facts = asks(Client::Firmware, true);
        desk.offered(&facts, &at(address));
        desk.acked(&facts, &at(address), None);
        desk.boot_of(MAC).expect("a boot").id
    }

    fn role(desk: &Desk) -> String {
        desk.boot_of(MAC).expect("a boot").plan.expect("a plan").role.clone()
    }

    #[test]
    fn a_ticket_is_for_one_boot_and_one_that_reported() {
        let (desk, _heard) = desk();
        let up = boot(&desk, SEAT);
        assert!(desk.reached(up, Stage::Up));
        assert_eq!(desk.holders().len(), 1);
        desk.order("m01", wipe(soon()));
        // Its running system keeps what it has.
        let step = desk.ask(&asks(Client::System, false));
        assert!(matches!(step.action, Action::Address { address: Some(SEAT), .. }), "{step:?}");
        let step = desk.ask(&asks(Client::Firmware, true));
        assert!(step.because.contains(&Rule::Ticket("wipe".into())), "{step:?}");
        assert!(matches!(step.action, Action::Address { address: None, opens: true, .. }));

        // Somebody begins a boot in its name, fetches what there is, and is no step further.
        let forged = boot(&desk, POOL);
        assert_eq!(role(&desk), "wipe");
        assert!(desk.holders().is_empty(), "it has left its seat");
        assert!(desk.ordered("m01").is_some());
        assert!(desk.reached(forged, Stage::Initramfs));
        assert!(desk.ordered("m01").is_some());

        // The machine itself does it; what follows is its seat.
        let (mac, peer) = (MAC, std::net::IpAddr::V4(POOL));
        assert!(desk.script(mac, peer).is_some());
        assert!(desk.report(forged, SEAT.into(), Bytes::new()).is_err(), "not from there");
        assert!(desk.reached(forged, Stage::Init));
        assert!(desk.ordered("m01").is_none());
        assert!(desk.reached(forged, Stage::Down));
        boot(&desk, SEAT);
        assert_eq!(role(&desk), "web");
    }

    #[test]
    fn a_ticket_ends() {
        let (desk, mut heard) = desk();
        desk.order("m01", wipe(Instant::now() - Duration::from_secs(1)));
        boot(&desk, SEAT);
        assert_eq!(role(&desk), "web", "it was too late");
        desk.order("m02", wipe(soon()));
        let entry = desk.entry(MAC);
        assert!(matches!(&entry, Entry::Known(known) if matches!(known.place, Place::Seat(_))));
        desk.order("m01", wipe(soon()));
        assert!(desk.ordered("m01").is_some());
        desk.order("m01", None);
        assert!(desk.ordered("m01").is_none());
        assert!(matches!(heard.try_recv(), Ok(News::Opened { .. })));
    }

    #[test]
    fn a_boot_that_reported_under_another_ticket_takes_none() {
        let (desk, _heard) = desk();
        desk.order("m01", wipe(soon()));
        let first = boot(&desk, POOL);
        desk.order("m01", wipe(soon()).map(|ticket| Ticket { id: 8, ..ticket }));
        assert!(desk.reached(first, Stage::Init));
        assert_eq!(desk.ordered("m01").map(|ticket| ticket.id), Some(8));
    }
}
