//! Which address of the pool a machine is offered: its own of last time, the one it asks for, or
//! one that nobody had for longest.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::net::Ipv4Addr;
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::ahead::Aheads;
use super::answer::Subnet;
use super::hold::Holds;
use super::lease::{ClientKey, Leases, Now};
use super::request::Request;
use super::share::Shares;

/// How long an address stays out of use once somebody was found on it.
const REST: Duration = Duration::from_secs(600);
/// How long an exhausted pool is not searched again, unless something is given back.
const EXHAUSTED: Duration = Duration::from_secs(1);
/// Addresses looked at for one client.
const SEARCH: u32 = 65_536;
/// How many of those for one that need not wait for the disk.
const NEAR: u32 = 256;

/// Addresses that rest, and a note that a pool has run dry.
#[derive(Debug, Default)]
pub(super) struct Pool {
    /// What of it is for whom.
    pub shares: Shares,
    resting: HashMap<Ipv4Addr, Rest>,
    exhausted: Option<(RangeInclusive<Ipv4Addr>, Instant)>,
}

#[derive(Debug)]
struct Rest {
    until: Instant,
    network: Ipv4Addr,
}

impl Pool {
    /// Takes an address out of use for a while. False: so many of its pool rest that whoever says that yet
    /// another is taken is not believed.
    pub fn rest(&mut self, address: Ipv4Addr, subnet: &Arc<Subnet>, now: Now) -> bool {
        let rest = Rest { until: now.mono + REST, network: subnet.network };
        if let Some(resting) = self.resting.get_mut(&address) {
            *resting = rest;
            return true;
        }
        if !self.shares.may_rest(subnet) {
            return false;
        }
        self.shares.rests(subnet);
        self.resting.insert(address, rest);
        true
    }

    /// The same, where its own client has found it taken: another one that rests makes room for it.
    pub fn rest_instead(&mut self, address: Ipv4Addr, subnet: &Arc<Subnet>, now: Now) {
        if self.rest(address, subnet, now) {
            return;
        }
        let its = self.resting.iter().filter(|(_, rest)| rest.network == subnet.network);
        let Some(oldest) = its.min_by_key(|(_, rest)| rest.until).map(|(address, _)| *address)
        else {
            return;
        };
        self.resting.remove(&oldest);
        self.shares.rested(subnet.network);
        self.rest(address, subnet, now);
    }

    /// Something was given back.
    pub fn refilled(&mut self) {
        self.exhausted = None;
    }

    pub fn sweep(&mut self, now: Now) {
        let before = self.resting.len();
        let Pool { resting, shares, .. } = self;
        resting.retain(|_, rest| {
            let rests = rest.until > now.mono;
            if !rests {
                shares.rested(rest.network);
            }
            rests
        });
        if self.resting.len() < before {
            self.refilled();
        }
    }

    pub fn is_idle(&self) -> bool {
        self.resting.is_empty() && self.shares.is_idle()
    }

    /// Whether a machine may have an address: nobody else's lease, offer or quarrel.
    pub fn free(
        &self,
        address: Ipv4Addr,
        key: ClientKey,
        leases: &Leases,
        holds: &Holds,
        now: Now,
    ) -> bool {
        self.resting.get(&address).is_none_or(|rest| rest.until <= now.mono)
            && leases
                .at(address)
                .is_none_or(|lease| lease.record.key == key || lease.until <= now.mono)
            && holds.at(address).is_none_or(|(holder, hold)| holder == key || hold.lapsed(now))
    }

    /// An address for a client, if there is one.
    pub fn pick(
        &mut self,
        request: &Request,
        subnet: &Subnet,
        leases: &Leases,
        holds: &Holds,
        ahead: &Aheads,
        now: Now,
    ) -> Option<Ipv4Addr> {
        let range = subnet.pool.as_ref()?;
        let key = request.key();
        let usable = |address: &Ipv4Addr| {
            subnet.gives(*address) && self.free(*address, key, leases, holds, now)
        };
        let own = leases.of(key).map(|lease| lease.record.address);
        // Who may be on an address in doubt answers for it, if the link reaches it: it goes last.
        let doubtful = |address: &Ipv4Addr| own != Some(*address) && ahead.doubts(*address, now);
        let known = |address: &Ipv4Addr| subnet.on_link() || !doubtful(address);
        let named = own.into_iter().chain(request.requested);
        if let Some(address) = named.filter(known).find(usable) {
            return Some(address);
        }
        if self.exhausted.as_ref().is_some_and(|(pool, until)| pool == range && *until > now.mono) {
            return None;
        }
        // Each machine begins at a place of its own, so that a machine finds its address again
        // even where we have forgotten it, and neighbours do not race for one.
        let (first, last) = (range.start().to_bits(), range.end().to_bits());
        let size = last.checked_sub(first)?.saturating_add(1);
        let mut place = DefaultHasher::new();
        key.hash(&mut place);
        let start = (place.finish() % u64::from(size)) as u32;
        let near = if ahead.is_calm() { 0 } else { NEAR };
        let (mut fresh, mut last_resort) = (None, None);
        let mut oldest: Option<(Instant, Ipv4Addr)> = None;
        for step in 0..size.min(SEARCH) {
            if fresh.is_some() && step >= near {
                break;
            }
            let offset = (u64::from(start) + u64::from(step)) % u64::from(size);
            let address = Ipv4Addr::from_bits(first + offset as u32);
            if (fresh.is_some() && !ahead.covers(address)) || !usable(&address) {
                continue;
            }
            if doubtful(&address) {
                last_resort = last_resort.or(subnet.on_link().then_some(address));
                continue;
            }
            match leases.at(address) {
                None if near == 0 || ahead.covers(address) => return Some(address),
                None => fresh = fresh.or(Some(address)),
                Some(lease) if oldest.is_none_or(|(until, _)| lease.until < until) => {
                    oldest = Some((lease.until, address));
                }
                Some(_) => {}
            }
        }
        let found = fresh.or(oldest.map(|(_, address)| address)).or(last_resort);
        if found.is_none() {
            self.exhausted = Some((range.clone(), now.mono + EXHAUSTED));
        }
        found
    }
}
