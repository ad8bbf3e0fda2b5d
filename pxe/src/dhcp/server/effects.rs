//! What the server's decisions send and write: offers, loans that wait for the journal, ACKs and refusals.

use std::net::Ipv4Addr;
use std::time::Duration;

use super::{Effect, Effects, FRESH, Server, Ticket, lent_for};
use crate::dhcp::answer::Serving;
use crate::dhcp::event::{Event, EventKind, Reason, Refusal};
use crate::dhcp::hold::{Asked, Hold, OFFER, Stage};
use crate::dhcp::kept::LeaseChange;
use crate::dhcp::lease::{ClientKey, LeaseRecord, Now, SLACK};
use crate::dhcp::reply::{grant, nak};
use crate::dhcp::request::{MessageType, Request};

impl Server {
    pub(in super::super) fn offer(
        &mut self,
        asked: Asked,
        address: Ipv4Addr,
        now: Now,
        out: &mut Effects,
    ) {
        let stage = Stage::Standing { until: now.mono + OFFER };
        self.holds.put(asked.request.key(), Hold { address, stage });
        let lent = (address, lent_for(&asked.serving));
        self.send_offer(&asked, lent, out);
    }

    pub(in super::super) fn send_offer(
        &mut self,
        asked: &Asked,
        lent: (Ipv4Addr, u32),
        out: &mut Effects,
    ) {
        let Asked { request, serving, .. } = asked;
        self.counters.offers += 1;
        out.push(Effect::Send(grant(request, MessageType::Offer, serving, Some(lent))));
        let boot_file = serving.boot.as_ref().map(|boot| boot.name.clone());
        out.push(Effect::Tell(Event::of(request, EventKind::Offered, Some(lent.0), boot_file)));
    }

    pub(in super::super) fn lend(
        &mut self,
        asked: Asked,
        address: Ipv4Addr,
        now: Now,
        out: &mut Effects,
    ) {
        let key = asked.request.key();
        // One that asks again and again does not cost a write each time.
        if let Some(lease) = self.leases.live(key, now).filter(|its| its.record.address == address)
        {
            let left = lease.until.saturating_duration_since(now.mono).as_secs();
            let left = left.saturating_sub(u64::from(SLACK));
            let left = u32::try_from(left).unwrap_or(u32::MAX).min(lease.record.seconds);
            let wanted = lent_for(&asked.serving);
            if left <= wanted && wanted - left <= wanted / FRESH && self.holds.of(key).is_none() {
                return self.ack(&asked.request, &asked.serving, Some((address, left)), out);
            }
        }
        if self.holds.of(key).is_some_and(Hold::committing) {
            return self.ignore(&asked.request, Reason::Busy, Some(address), out);
        }
        let seconds = lent_for(&asked.serving);
        self.commit(key, address, seconds, Some(asked), now, out);
    }

    /// Writes a lease down. Until that is done it is a hold, and its client waits.
    pub(in super::super) fn commit(
        &mut self,
        key: ClientKey,
        address: Ipv4Addr,
        seconds: u32,
        asked: Option<Asked>,
        now: Now,
        out: &mut Effects,
    ) {
        if let Some(former) = self.leases.at(address).map(|lease| lease.record.key)
            && former != key
        {
            self.forget(former, out);
        }
        // Its own once more: should that be lost, its record is taken for one that was confirmed.
        let lends = self.ahead.lends(address, seconds);
        let early = match self.leases.of(key) {
            Some(lease) if lease.record.address == address => {
                lends || (lease.until > now.mono && lease.record.seconds >= seconds)
            }
            Some(_) => false,
            None => lends,
        };
        let subnet = asked.as_ref().map(|asked| asked.serving.subnet.clone());
        self.serial += 1;
        let ours = u64::from(seconds) + u64::from(SLACK);
        let record = LeaseRecord {
            key,
            address,
            seconds,
            expires: now.wall.saturating_add(ours),
            serial: self.serial,
        };
        let until = now.mono + Duration::from_secs(ours);
        let change = LeaseChange::Put(record.clone());
        let stage = Stage::Committing { record, until, asked: asked.map(Box::new) };
        self.holds.put(key, Hold { address, stage });
        let ticket = self.write(change, !early, out);
        self.holds.ticket(ticket, key);
        if early {
            self.ahead.lent(now);
        } else if let Some(ahead) = self.ahead.wait(ticket, address, subnet.as_deref(), seconds) {
            let ticket = self.write(LeaseChange::Ahead(ahead), true, out);
            self.ahead.opening(ticket, ahead);
        }
    }

    /// A client gives its lease back: it is over, and its address is the last to be given to another. Anybody
    /// can say so in its name; then its next report, or its next renewal, finds it where it was.
    pub(in super::super) fn give_back(&mut self, key: ClientKey, now: Now, out: &mut Effects) {
        let Some(lease) = self.leases.of(key) else { return };
        self.serial += 1;
        let record = LeaseRecord { expires: now.wall, serial: self.serial, ..lease.record.clone() };
        self.leases.put(record.clone(), now.mono);
        self.pool.refilled();
        self.pool.shares.leave(key);
        self.write(LeaseChange::Put(record), false, out);
    }

    /// Ends a lease, in memory at once.
    pub(in super::super) fn forget(&mut self, key: ClientKey, out: &mut Effects) {
        if let Some(lease) = self.leases.remove(key) {
            self.pool.refilled();
            let address = lease.record.address;
            let ticket = self.write(LeaseChange::Delete(key, address), true, out);
            self.ahead.frees(ticket, address);
        }
    }

    /// Before anything is written by the time that it says now.
    pub(super) fn follow_clock(&mut self, now: Now) -> Effects {
        let mut out = Effects::new();
        if self.clock.follow(now, self.serial) {
            self.write_clock(&mut out);
        }
        out
    }

    pub(super) fn write_clock(&mut self, out: &mut Effects) {
        if let Some(set) = self.clock.due() {
            let ticket = self.write(LeaseChange::Clock(set), false, out);
            self.clock.writing(ticket);
        }
    }

    pub(super) fn write(
        &mut self,
        change: LeaseChange,
        durable: bool,
        out: &mut Effects,
    ) -> Ticket {
        self.tickets += 1;
        let ticket = Ticket(self.tickets);
        out.push(Effect::Commit { ticket, change, durable });
        ticket
    }

    pub(in super::super) fn ack(
        &mut self,
        request: &Request,
        serving: &Serving,
        lent: Option<(Ipv4Addr, u32)>,
        out: &mut Effects,
    ) {
        self.counters.acks += 1;
        out.push(Effect::Send(grant(request, MessageType::Ack, serving, lent)));
        let (kind, address) = match lent {
            Some((address, _)) => (EventKind::Acked, address),
            None => (EventKind::Informed, request.ciaddr),
        };
        let boot_file = serving.boot.as_ref().map(|boot| boot.name.clone());
        out.push(Effect::Tell(Event::of(request, kind, Some(address), boot_file)));
    }

    pub(in super::super) fn refuse(
        &mut self,
        request: &Request,
        serving: &Serving,
        refusal: Refusal,
        address: Ipv4Addr,
        out: &mut Effects,
    ) {
        self.counters.naks += 1;
        out.push(Effect::Send(nak(request, &serving.subnet, &refusal.to_string())));
        let kind = EventKind::Nacked(refusal);
        out.push(Effect::Tell(Event::of(request, kind, Some(address), None)));
    }

    pub(in super::super) fn ignore(
        &mut self,
        request: &Request,
        reason: Reason,
        address: Option<Ipv4Addr>,
        out: &mut Effects,
    ) {
        self.counters.ignored += 1;
        out.push(Effect::Tell(Event::of(request, EventKind::Ignored(reason), address, None)));
    }

    /// The client asks again while its first question waits: the latest one is answered.
    pub(in super::super) fn ask_instead(&mut self, key: ClientKey, latest: Asked) {
        match self.holds.asked_mut(key) {
            Some(Stage::Probing { asked, .. }) => **asked = latest,
            Some(Stage::Committing { asked, .. }) => *asked = Some(Box::new(latest)),
            Some(Stage::Standing { .. }) | None => {}
        }
    }

    pub(in super::super) fn free(&self, address: Ipv4Addr, key: ClientKey, now: Now) -> bool {
        self.pool.free(address, key, &self.leases, &self.holds, now)
    }

    /// Whether we gave or offered this address to this machine.
    pub(in super::super) fn gave(&self, key: ClientKey, address: Ipv4Addr) -> bool {
        self.leases.of(key).is_some_and(|lease| lease.record.address == address)
            || self.offered(key, address)
    }

    /// Whether it is offered, and waits to be taken.
    pub(in super::super) fn offered(&self, key: ClientKey, address: Ipv4Addr) -> bool {
        self.holds.of(key).is_some_and(|hold| {
            hold.address == address && matches!(hold.stage, Stage::Standing { .. })
        })
    }
}
