//! The exchanges of RFC 2131 4.3, one function for each message of a client, and the two ways an
//! address is found free: nobody has it on our books, and nobody answers for it on the link.

use std::net::Ipv4Addr;
use std::time::Duration;

use super::answer::{Address, Serving, Who};
use super::event::{Event, EventKind, Reason, Refusal};
use super::hold::{Asked, Hold, OFFER, Stage, Then};
use super::lease::{Lease, Now};
use super::reply::FOR_EVER;
use super::request::{Request, Vendor};
use super::server::{Effect, Effects, MAX_HOLDS, MAX_PROBES, STRANGERS, Server, lent_for};

impl Server {
    pub(super) fn discover(
        &mut self,
        request: &Request,
        serving: Serving,
        now: Now,
        out: &mut Effects,
    ) {
        let key = request.key();
        let asked = Asked { request: request.clone(), serving, then: Then::Offer };
        let subnet = asked.serving.subnet.clone();
        if let Address::Fixed(address) = asked.serving.address {
            return self.fixed(asked, address, now, out);
        }
        if let Some(hold) = self.holds.of(key) {
            let address = hold.address;
            match (&hold.stage, subnet.gives(address)) {
                (Stage::Probing { .. }, true) => return self.ask_instead(key, asked),
                (Stage::Standing { .. }, true) => return self.offer(asked, address, now, out),
                (Stage::Committing { record, .. }, true) => {
                    let lent = (address, record.seconds);
                    return self.send_offer(&asked, lent, out);
                }
                (Stage::Committing { .. }, false) => {
                    return self.ignore(request, Reason::Busy, None, out);
                }
                (_, false) => self.holds.withdraw(key),
            }
        }
        // Its own lease, in force: the machine may be using the address this moment, and a probe
        // would only cost it 300 ms.
        if let Some(lease) = self.leases.live(key, now) {
            let address = lease.record.address;
            if subnet.gives(address) && self.free(address, key, now) {
                self.counted(&asked, false, out);
                let lent = (address, lent_for(&asked.serving));
                return self.send_offer(&asked, lent, out);
            }
        }
        self.offer_any(asked, 0, now, out);
    }

    pub(super) fn offer_any(&mut self, asked: Asked, tries: u8, now: Now, out: &mut Effects) {
        if !self.counted(&asked, true, out) {
            return;
        }
        let Asked { request, serving, .. } = &asked;
        match self.pool.pick(request, &serving.subnet, &self.leases, &self.holds, &self.ahead, now)
        {
            Some(address) => self.propose(asked, address, tries, now, out),
            None => {
                self.counters.pool_empty += 1;
                out.push(Effect::Tell(Event::of(request, EventKind::PoolEmpty, None, None)));
            }
        }
    }

    /// Whether one more may have an address of the pool, where the site does not know it.
    fn counted(&mut self, asked: &Asked, new: bool, out: &mut Effects) -> bool {
        let Asked { request, serving, .. } = asked;
        if serving.address != Address::Pool {
            return true;
        }
        let admitted = self.pool.shares.admit(request, serving, new);
        if let Err(why) = admitted {
            self.counters.crowded += 1;
            out.push(Effect::Tell(Event::of(request, EventKind::Crowded(why), None, None)));
            return false;
        }
        true
    }

    pub(super) fn request(
        &mut self,
        request: &Request,
        serving: Serving,
        now: Now,
        out: &mut Effects,
    ) {
        let key = request.key();
        let subnet = serving.subnet.clone();
        if request.server_id.is_some_and(|id| !subnet.is_us(id)) {
            self.holds.withdraw(key);
            return self.ignore(request, Reason::OtherServer, request.server_id, out);
        }
        let Some(wanted) = request.requested.or(has(request.ciaddr)) else {
            return self.ignore(request, Reason::NoAddress, None, out);
        };
        let mut asked = Asked { request: request.clone(), serving, then: Then::Ack };
        if self.keeps_word(&asked, wanted, now) {
            asked.serving.address = Address::Pool;
        }
        let refusal = match asked.serving.address {
            Address::Fixed(address) if wanted == address => {
                return self.fixed(asked, address, now, out);
            }
            _ if !subnet.contains(wanted) => Refusal::WrongNetwork,
            Address::Fixed(_) => Refusal::NotYours,
            Address::Pool if !subnet.gives(wanted) => Refusal::NotInPool,
            Address::Pool => return self.request_pool(asked, wanted, now, out),
        };
        self.refuse(request, &asked.serving, refusal, wanted, out);
    }

    /// Whether firmware takes what it was offered a moment ago, while the address of its seat was another machine's, or
    /// the site said something else. iPXE takes no notice of a NAK before March 2021, and ROMs are older: it asks for the
    /// same address six times in 8 s and gives up, and its machine goes on to the next of its boot order, or stops
    /// there. With an address of the pool it comes as far as its script, which boots it into its seat, or has it ask
    /// DHCP again. A system begins anew at a NAK.
    fn keeps_word(&self, asked: &Asked, wanted: Ipv4Addr, now: Now) -> bool {
        let Asked { request, serving, .. } = asked;
        let key = request.key();
        let held = || {
            let offered = |hold: &Hold| !matches!(hold.stage, Stage::Probing { .. });
            self.holds.of(key).is_some_and(|hold| hold.address == wanted && offered(hold))
        };
        // Its ACK may have been lost.
        let just_lent = |lease: &Lease| {
            let whole = Duration::from_secs(u64::from(lease.record.seconds));
            lease.record.address == wanted && lease.until + OFFER >= now.mono + whole
        };
        let lent = || self.leases.live(key, now).is_some_and(just_lent);
        matches!(serving.address, Address::Fixed(seat) if seat != wanted)
            && (request.is_ipxe() || matches!(request.vendor(), Vendor::Pxe | Vendor::Http))
            && request.server_id.is_some()
            && serving.subnet.gives(wanted)
            && (held() || lent())
    }

    /// RFC 2131 4.3.2 for an address that the pool may give.
    fn request_pool(&mut self, asked: Asked, wanted: Ipv4Addr, now: Now, out: &mut Effects) {
        let key = asked.request.key();
        if let Some(hold) = self.holds.of(key)
            && hold.address == wanted
        {
            return match hold.stage {
                Stage::Standing { .. } => self.lend(asked, wanted, now, out),
                // A retransmission: the first one's ACK answers it too.
                Stage::Probing { .. } | Stage::Committing { .. } => self.ask_instead(key, asked),
            };
        }
        let free = self.free(wanted, key, now);
        let remembered = self.leases.of(key).is_some_and(|lease| lease.record.address == wanted);
        let live = self.leases.live(key, now).is_some();
        // Somebody's, perhaps. Who says that it is theirs, and names no offer, has a lease that has not run
        // out (RFC 2131 4.3.2), and the only one there can be.
        let doubtful = !remembered && self.ahead.doubts(wanted, now);
        let lost =
            doubtful && asked.request.server_id.is_none() && self.leases.at(wanted).is_none();
        let on_link = asked.serving.subnet.on_link();
        if !free || (doubtful && !lost && !on_link) {
            self.refuse(&asked.request, &asked.serving, Refusal::Taken, wanted, out);
        } else if remembered && live {
            self.counted(&asked, false, out);
            self.lend(asked, wanted, now, out);
        } else if live {
            self.refuse(&asked.request, &asked.serving, Refusal::NotYours, wanted, out);
        } else if remembered || lost || asked.request.server_id.is_some() {
            // An offer of ours that has lapsed, or was made before a restart; or a lease that ran
            // out while its owner slept. Free as far as we know: the link knows better.
            if self.counted(&asked, true, out) {
                self.propose(asked, wanted, 0, now, out);
            }
        } else {
            self.ignore(&asked.request, Reason::NoRecord, Some(wanted), out);
        }
    }

    /// A seat's address, offered or acknowledged. A reload may have given a seat an address that
    /// a pool lease is still out on: then the link is asked, and the lease ends only if nobody is
    /// there. Behind a relay nobody can be asked: the seat waits until it is over. (A machine that
    /// runs a DHCP client learns of it at its next renewal.)
    fn fixed(&mut self, asked: Asked, address: Ipv4Addr, now: Now, out: &mut Effects) {
        let key = asked.request.key();
        if let Some((holder, hold)) = self.holds.at(address) {
            match &hold.stage {
                Stage::Probing { .. } if holder == key => return self.ask_instead(key, asked),
                Stage::Committing { .. } if holder != key => {
                    return self.ignore(&asked.request, Reason::Busy, Some(address), out);
                }
                _ => self.holds.withdraw(holder),
            }
        }
        if self.holds.of(key).is_some_and(Hold::committing) {
            return self.ignore(&asked.request, Reason::Busy, Some(address), out);
        }
        self.holds.withdraw(key);
        let record = self.leases.at(address);
        let live = record.is_some_and(|lease| lease.until > now.mono);
        let rival = live && record.is_some_and(|lease| lease.record.key != key);
        if !asked.serving.subnet.on_link() {
            let its = |mac| mac == key.mac || asked.serving.macs.contains(&mac);
            // Who says that it has the address already is the one that a lost lease was for.
            let says = asked.then == Then::Ack && asked.request.server_id.is_none();
            let lent = match record {
                Some(lease) if its(lease.record.key.mac) => false,
                Some(_) => live || self.ahead.doubts_seat(address, now),
                None => !says && self.ahead.doubts_seat(address, now),
            };
            match lent {
                true => self.ignore(&asked.request, Reason::StillLent, Some(address), out),
                false => self.settle(asked, address, now, out),
            }
        } else if rival || self.ahead.doubts(address, now) {
            self.propose(asked, address, 0, now, out);
        } else {
            self.settle(asked, address, now, out);
        }
    }

    /// Has an address probed, where the link reaches it, and goes on from there.
    fn propose(&mut self, asked: Asked, address: Ipv4Addr, tries: u8, now: Now, out: &mut Effects) {
        let key = asked.request.key();
        let on_link = asked.serving.subnet.on_link();
        let part = if asked.serving.who == Who::Machine { 1 } else { STRANGERS };
        let full = self.holds.len() >= MAX_HOLDS / part && self.holds.of(key).is_none();
        if full || (on_link && self.holds.probing() >= MAX_PROBES / part) {
            return self.ignore(&asked.request, Reason::Busy, Some(address), out);
        }
        if self.holds.of(key).is_some_and(Hold::committing) {
            return self.ignore(&asked.request, Reason::Busy, Some(address), out);
        }
        if !on_link {
            return self.settle(asked, address, now, out);
        }
        self.counters.probes += 1;
        let wire = asked.serving.subnet.wire;
        out.push(Effect::Probe { wire, address, mac: key.mac });
        let stage = Stage::Probing { asked: Box::new(asked), tries, since: now.mono };
        self.holds.put(key, Hold { address, stage });
    }

    /// Nobody else has the address: offer or acknowledge it.
    pub(super) fn settle(&mut self, asked: Asked, address: Ipv4Addr, now: Now, out: &mut Effects) {
        let key = asked.request.key();
        match (asked.serving.address, asked.then) {
            (Address::Pool, Then::Offer) => self.offer(asked, address, now, out),
            (Address::Pool, Then::Ack) => self.lend(asked, address, now, out),
            (Address::Fixed(_), then) => {
                if let Some(rival) = self.leases.at(address).map(|lease| lease.record.key)
                    && rival != key
                {
                    self.forget(rival, out);
                }
                match then {
                    Then::Offer => self.send_offer(&asked, (address, FOR_EVER), out),
                    Then::Ack => {
                        // One machine, one address: what it had of the pool goes back.
                        self.forget(key, out);
                        let lent = Some((address, FOR_EVER));
                        self.ack(&asked.request, &asked.serving, lent, out);
                    }
                }
            }
        }
    }

    pub(super) fn decline(
        &mut self,
        request: &Request,
        serving: Option<&Serving>,
        now: Now,
        out: &mut Effects,
    ) {
        let key = request.key();
        let Some(address) = request.requested.or(has(request.ciaddr)) else {
            return self.ignore(request, Reason::NoAddress, None, out);
        };
        if !for_us(request, serving) {
            return self.ignore(request, Reason::OtherServer, request.server_id, out);
        }
        if self.holds.of(key).is_some_and(Hold::committing) {
            return self.ignore(request, Reason::Busy, Some(address), out);
        }
        if !self.gave(key, address) {
            if serving.is_some_and(|serving| serving.address == Address::Fixed(address)) {
                out.push(Effect::Tell(Event::of(
                    request,
                    EventKind::Declined,
                    Some(address),
                    None,
                )));
                return;
            }
            return self.ignore(request, Reason::NotItsOwn, Some(address), out);
        }
        if serving.is_some_and(|serving| serving.runs) {
            return self.ignore(request, Reason::NotItself, Some(address), out);
        }
        self.holds.withdraw(key);
        self.forget(key, out);
        if let Some(serving) = serving {
            self.pool.rest_instead(address, &serving.subnet, now);
        }
        self.pool.shares.leave(key);
        out.push(Effect::Tell(Event::of(request, EventKind::Declined, Some(address), None)));
    }

    pub(super) fn release(
        &mut self,
        request: &Request,
        serving: Option<&Serving>,
        now: Now,
        out: &mut Effects,
    ) {
        let key = request.key();
        let Some(address) = has(request.ciaddr) else {
            return self.ignore(request, Reason::NoAddress, None, out);
        };
        if !for_us(request, serving) {
            return self.ignore(request, Reason::OtherServer, request.server_id, out);
        }
        let fixed = serving.is_some_and(|serving| serving.address == Address::Fixed(address));
        // What is over already is not given back again, and costs no write: anybody can say so without end.
        let lent = self.leases.live(key, now).is_some_and(|its| its.record.address == address);
        let own = lent || self.offered(key, address);
        if !own && !fixed {
            return self.ignore(request, Reason::NotItsOwn, Some(address), out);
        }
        // RFC 2131 4.4.6: by unicast, from the address that is given back.
        if request.heard.from != address || serving.is_some_and(|serving| serving.runs) {
            return self.ignore(request, Reason::NotItself, Some(address), out);
        }
        if own {
            // Its lease is being confirmed this moment: then it ends by itself.
            if self.holds.of(key).is_some_and(Hold::committing) {
                return self.ignore(request, Reason::Busy, Some(address), out);
            }
            self.holds.withdraw(key);
            if lent {
                self.give_back(key, now, out);
            }
        }
        out.push(Effect::Tell(Event::of(request, EventKind::Released, Some(address), None)));
    }

    /// RFC 2131 4.3.5: everything but an address.
    pub(super) fn inform(&mut self, request: &Request, serving: &Serving, out: &mut Effects) {
        if request.ciaddr.is_unspecified() {
            return self.ignore(request, Reason::NoAddress, None, out);
        }
        self.ack(request, serving, None, out);
    }
}

/// Not 0.0.0.0.
fn has(address: Ipv4Addr) -> Option<Ipv4Addr> {
    (!address.is_unspecified()).then_some(address)
}

/// Whether a message names us as its server, or nobody.
fn for_us(request: &Request, serving: Option<&Serving>) -> bool {
    match (request.server_id, serving) {
        (Some(id), Some(serving)) => serving.subnet.is_us(id),
        _ => true,
    }
}
