//! The server's state machine: DISCOVER, REQUEST, DECLINE, RELEASE and INFORM go in, each with what
//! the site wants done about its sender; datagrams, probes, journal entries and events come out.
//! It has no socket and no clock.
//!
//! A seat's address is a function of the site: no lease, no commit, no probe. An address of the
//! pool passes `probe → offer → commit → ACK`, and is a lease from the commit on.

mod effects;

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::ahead::Aheads;
use super::answer::{Address, Answer, Serving, Subnet, Who};
use super::clock::Clock;
use super::event::{Counters, Event, EventKind, Reason, Refusal};
use super::hold::{Hold, Holds, OFFER, Stage, Then};
use super::kept::{Kept, LeaseChange};
use super::lease::{ClientKey, Lease, LeaseRecord, Leases, Now};
use super::pool::Pool;
use super::reply::{FOR_EVER, Outgoing};
use super::request::{MessageType, Request};
use super::share::FIRST_LEASE;
use crate::Mac;

/// Offers, probes and commits under way at once. A storm beyond it asks again in a few seconds.
pub(super) const MAX_HOLDS: usize = 4096;
/// Probes on the link at once.
pub(super) const MAX_PROBES: usize = 256;
/// Of both, those that the site does not know may have one in so many at a time.
pub(super) const STRANGERS: usize = 2;
/// Addresses found in use that one DISCOVER may run into.
const MAX_TRIES: u8 = 3;
/// A lease that was written down, and of which no more than one part in so many is over, is confirmed as it
/// stands.
const FRESH: u32 = 16;
/// How long an expired lease is remembered, so that a machine finds its address again.
const REMEMBER: Duration = Duration::from_secs(7 * 24 * 3600);
/// The same of one that never booted: its MAC may be invented, and a pool full of memories takes long to search.
const REMEMBER_NEW: Duration = Duration::from_secs(600);

/// Names one change to the journal until its outcome is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Ticket(u64);

/// What the driver has to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Effect {
    /// Send a datagram.
    Send(Outgoing),
    /// Ask the link whether anybody but this machine has the address, then call
    /// [`Server::probed`].
    Probe {
        /// On which of the interfaces served.
        wire: usize,
        /// The address to ask for.
        address: Ipv4Addr,
        /// The machine that is to get it, and may have it already.
        mac: Mac,
    },
    /// Write a change down, in the order given, then call [`Server::committed`].
    Commit {
        /// To name it by.
        ticket: Ticket,
        /// The change.
        change: LeaseChange,
        /// Only once it would survive that the host loses its power, with all changes before it.
        durable: bool,
    },
    /// Tell the timeline.
    Tell(Event),
}

/// A lease as shown to people.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct LeaseStatus {
    /// The lease.
    #[serde(flatten)]
    pub record: LeaseRecord,
    /// Seconds left; none once it has expired and its address is only remembered.
    pub left: Option<u64>,
}

/// The DHCP server of all interfaces: one book of leases.
#[derive(Debug)]
pub struct Server {
    pub(super) leases: Leases,
    pub(super) holds: Holds,
    pub(super) pool: Pool,
    pub(super) ahead: Aheads,
    pub(super) clock: Clock,
    pub(super) serial: u64,
    pub(super) tickets: u64,
    pub(super) swept: Instant,
    pub(super) counters: Counters,
}

pub(super) type Effects = Vec<Effect>;

impl Server {
    /// Takes up what the journal holds; nothing for a new appliance. Offers are
    /// not among them: a REQUEST for one made before a restart is probed again, and refused where
    /// another machine has been offered the address since.
    pub fn restore(kept: Kept, now: Now) -> Server {
        let serial = kept.leases.values().map(|record| record.serial).max().unwrap_or(0);
        Server {
            leases: Leases::restore(kept.leases.into_values(), now),
            holds: Holds::default(),
            pool: Pool::default(),
            ahead: Aheads::restore(kept.doubts.into_values(), now),
            clock: Clock::new(now),
            serial,
            tickets: 0,
            swept: now.mono,
            counters: Counters::default(),
        }
    }

    /// Counts those leases again that machines have which the site does not know: of each it says in which
    /// network, if it is one.
    pub fn count_strangers(
        &mut self,
        stranger: impl Fn(&LeaseRecord) -> Option<Arc<Subnet>>,
        now: Now,
    ) {
        for lease in self.leases.iter().filter(|lease| lease.until > now.mono) {
            let Some(subnet) = stranger(&lease.record) else { continue };
            let short = lease.record.seconds <= FIRST_LEASE;
            let who = if short { Who::Stranger } else { Who::Booted };
            let mut request = Request::bare(MessageType::Request, lease.record.key.mac);
            request.htype = lease.record.key.htype;
            let (address, hostname, boot, macs) = (Address::Pool, None, None, Vec::new());
            let serving = Serving { address, subnet, hostname, boot, who, macs, runs: false };
            // None of them is new, and so none is refused.
            let _counted = self.pool.shares.admit(&request, &serving, false);
        }
    }

    /// Addresses that the site has for itself as this server starts: no lease of one was ever lost.
    pub fn had(&mut self, reserved: impl Iterator<Item = Ipv4Addr>, now: Now) {
        self.ahead.had(reserved, now);
    }

    /// One message of a client, and what the site wants done about it.
    #[must_use]
    pub fn handle(&mut self, request: &Request, answer: Answer, now: Now) -> Effects {
        let mut out = self.follow_clock(now);
        let serving = match answer {
            Answer::Serve(serving) => Some(serving),
            Answer::Silence => None,
            Answer::Aside => {
                self.counters.ignored += 1;
                return out;
            }
            Answer::Proxy(proxying) => {
                self.beside(request, &proxying, &mut out);
                return out;
            }
        };
        match (request.kind, serving) {
            (MessageType::Discover, Some(serving)) => {
                self.counters.discovers += 1;
                self.discover(request, serving, now, &mut out);
            }
            (MessageType::Request, Some(serving)) => {
                self.counters.requests += 1;
                self.request(request, serving, now, &mut out);
            }
            (MessageType::Inform, Some(serving)) => {
                self.counters.informs += 1;
                self.inform(request, &serving, &mut out);
            }
            (MessageType::Decline, serving) => {
                self.counters.declines += 1;
                self.decline(request, serving.as_ref(), now, &mut out);
            }
            (MessageType::Release, serving) => {
                self.counters.releases += 1;
                self.release(request, serving.as_ref(), now, &mut out);
            }
            _ => self.ignore(request, Reason::NotServed, None, &mut out),
        }
        out
    }

    /// What a probe found. An answer that came after the question was given up means nothing.
    #[must_use]
    pub fn probed(&mut self, address: Ipv4Addr, in_use: bool, now: Now) -> Effects {
        let mut out = self.follow_clock(now);
        let Some((key, Hold { stage: Stage::Probing { .. }, .. })) = self.holds.at(address) else {
            return out;
        };
        let Some(Hold { stage: Stage::Probing { asked, tries, .. }, .. }) = self.holds.remove(key)
        else {
            return out;
        };
        if !in_use {
            self.settle(*asked, address, now, &mut out);
            return out;
        }
        self.counters.occupied += 1;
        let request = &asked.request;
        out.push(Effect::Tell(Event::of(request, EventKind::Occupied, Some(address), None)));
        match (asked.serving.address, asked.then) {
            (Address::Fixed(_), _) => {
                self.ignore(request, Reason::AddressInUse, Some(address), &mut out);
            }
            (Address::Pool, _) if !self.pool.rest(address, &asked.serving.subnet, now) => {
                out.push(Effect::Tell(Event::of(
                    request,
                    EventKind::Disbelieved,
                    Some(address),
                    None,
                )));
                self.settle(*asked, address, now, &mut out);
            }
            (Address::Pool, Then::Ack) => {
                self.refuse(request, &asked.serving, Refusal::Taken, address, &mut out);
            }
            (Address::Pool, Then::Offer) => {
                if tries + 1 >= MAX_TRIES {
                    self.ignore(request, Reason::AddressInUse, Some(address), &mut out);
                } else {
                    self.offer_any(*asked, tries + 1, now, &mut out);
                }
            }
        }
        out
    }

    /// Whether a change is written down as it was to be. Only now is a lease a lease, and acknowledged.
    #[must_use]
    pub fn committed(&mut self, ticket: Ticket, ok: bool, now: Now) -> Effects {
        let mut out = self.follow_clock(now);
        self.counters.not_stored += u64::from(!ok);
        self.ahead.committed(ticket, ok, now);
        self.clock.committed(ticket, ok);
        let Some((key, hold)) = self.holds.redeem(ticket) else { return out };
        let Stage::Committing { record, until, asked } = hold.stage else { return out };
        // A slow disk, and a client that asked again meanwhile: it must not count the whole time
        // from its last question.
        let left = until.saturating_duration_since(now.mono).as_secs();
        let seconds = record.seconds.min(u32::try_from(left).unwrap_or(record.seconds));
        let address = record.address;
        if ok {
            self.leases.put(record, until);
            if let Some(asked) = asked.filter(|_| seconds > 0) {
                self.ack(&asked.request, &asked.serving, Some((address, seconds)), &mut out);
            }
        } else if let Some(asked) = asked {
            let stage = Stage::Standing { until: now.mono + OFFER };
            self.holds.put(key, Hold { address, stage });
            self.ignore(&asked.request, Reason::NotStored, Some(address), &mut out);
        }
        out
    }

    /// When [`Server::on_deadline`] wants to be called.
    pub fn next_deadline(&self) -> Option<Instant> {
        let waits = !self.holds.is_empty() || !self.pool.is_idle();
        if waits || !self.ahead.is_idle() || !self.clock.is_idle() {
            Some(self.swept + Duration::from_secs(1))
        } else if !self.leases.is_empty() {
            // Who sets the clock may restart this server next.
            Some(self.swept + Duration::from_secs(10))
        } else {
            None
        }
    }

    /// Ends what has run out. Expiry itself needs no deadline: every use of an offer or a lease
    /// looks at the clock.
    #[must_use]
    pub fn on_deadline(&mut self, now: Now) -> Effects {
        let mut out = self.follow_clock(now);
        self.write_clock(&mut out);
        self.swept = now.mono;
        self.holds.sweep(now);
        self.pool.sweep(now);
        for change in self.ahead.sweep(now) {
            self.write(change, false, &mut out);
        }
        let (holds, leases) = (&self.holds, &self.leases);
        self.pool.shares.sweep(|key| holds.of(key).is_some() || leases.live(key, now).is_some());
        let remembered = |lease: &Lease| match lease.record.seconds {
            0..=FIRST_LEASE => REMEMBER_NEW,
            _ => REMEMBER,
        };
        let forgotten: Vec<ClientKey> = self
            .leases
            .iter()
            .filter(|lease| lease.until + remembered(lease) <= now.mono)
            .map(|lease| lease.record.key)
            .filter(|key| !self.holds.of(*key).is_some_and(Hold::committing))
            .take(256)
            .collect();
        for key in forgotten {
            self.forget(key, &mut out);
        }
        out
    }

    /// A machine that gives signs of life keeps its address, though it runs no DHCP client. Only
    /// a lease with a quarter of its time gone is worth a write.
    #[must_use]
    pub fn keep(&mut self, mac: Mac, now: Now) -> Effects {
        let mut out = self.follow_clock(now);
        let key = ClientKey { htype: 1, mac };
        let Some(lease) = self.leases.of(key) else { return out };
        let (address, mut seconds) = (lease.record.address, lease.record.seconds);
        // With its first report it is no stranger's first lease any more.
        seconds = self.pool.shares.boots(key).unwrap_or(seconds).max(seconds);
        let fresh = lease.until > now.mono + Duration::from_secs(u64::from(seconds) * 3 / 4);
        if !fresh && self.holds.of(key).is_none() && self.free(address, key, now) {
            self.commit(key, address, seconds, None, now, &mut out);
        }
        out
    }

    /// The pool address that a machine holds by lease.
    pub fn lookup(&self, mac: Mac, now: Now) -> Option<Ipv4Addr> {
        self.leases.live(ClientKey { htype: 1, mac }, now).map(|lease| lease.record.address)
    }

    /// All leases, by address.
    pub fn leases(&self, now: Now) -> Vec<LeaseStatus> {
        let mut all: Vec<LeaseStatus> = self
            .leases
            .iter()
            .map(|lease| {
                let mut record = lease.record.clone();
                let left = lease.until.checked_duration_since(now.mono).map(|left| left.as_secs());
                let left = left.filter(|_| lease.until > now.mono);
                // The clock may have been set since it was written.
                if let Some(left) = left {
                    record.expires = now.wall.saturating_add(left);
                }
                let left = left.map(|left| left.min(u64::from(record.seconds)));
                LeaseStatus { record, left }
            })
            .collect();
        all.sort_by_key(|lease| lease.record.address);
        all
    }

    /// How often what has happened.
    pub fn counters(&self) -> Counters {
        self.counters
    }

    /// For what the driver alone can see: malformed, overrun and unsent datagrams.
    pub fn counters_mut(&mut self) -> &mut Counters {
        &mut self.counters
    }
}

/// Seconds that a pool address is lent for. A stranger's first lease is a short one.
pub(super) fn lent_for(serving: &Serving) -> u32 {
    let whole = whole_lease(&serving.subnet);
    if serving.who == Who::Stranger { whole.min(FIRST_LEASE) } else { whole }
}

/// What the site says: a minute at least, and never for ever.
pub(super) fn whole_lease(subnet: &Subnet) -> u32 {
    u32::try_from(subnet.lease.as_secs()).unwrap_or(u32::MAX).clamp(60, FOR_EVER - 1)
}

#[cfg(test)]
mod tests;
