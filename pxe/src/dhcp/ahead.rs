//! Leases ahead of the disk. A lease is in the journal before its ACK leaves, so that a server that dies
//! has it; on the disk it is a moment later. Where the host itself loses its power in that moment, the lease is
//! forgotten, and its address must not go to another machine. So only those addresses are lent ahead of the disk
//! which the disk says may be lent: in a storm, a sixteenth of a pool, and the next one when that is used up.
//! After a loss of power the free ones among them are in doubt for as long as a lease goes. All other leases wait for the
//! disk, as all do while few machines ask: then nothing is ever in doubt.

use std::collections::{HashMap, HashSet};
use std::net::Ipv4Addr;
use std::ops::RangeInclusive;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use super::answer::Subnet;
use super::kept::LeaseChange;
use super::lease::{Now, SLACK};
use super::server::Ticket;

/// Leases that wait for the disk at once, from which on the next ones do not.
const STORM: usize = 4;
/// How long after the last lease of a storm its pools are as before.
const CALM: Duration = Duration::from_secs(10);

/// Addresses of one pool that may be lent ahead of the disk, as the disk says it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ahead {
    /// First address of the pool.
    pub first: Ipv4Addr,
    /// Last address of the pool.
    pub last: Ipv4Addr,
    /// Bit n: the addresses whose last four bits are n.
    pub stripes: u16,
    /// For how long at most.
    pub seconds: u32,
}

/// Addresses of one pool of which nobody knows whether they are lent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Doubt {
    /// First address of the pool.
    pub first: Ipv4Addr,
    /// Last address of the pool.
    pub last: Ipv4Addr,
    /// Bit n: the addresses whose last four bits are n.
    pub stripes: u16,
    /// For how long at most they were lent.
    pub seconds: u32,
    /// Unix time from which on no such lease can be in force.
    pub until: u64,
}

impl Ahead {
    /// What is to be thought of them after a loss of power at this Unix time or before.
    pub(super) fn doubt(self, wall: u64) -> Doubt {
        let Ahead { first, last, stripes, seconds } = self;
        let until = wall.saturating_add(u64::from(seconds) + u64::from(SLACK));
        Doubt { first, last, stripes, seconds, until }
    }

    fn covers(&self, address: Ipv4Addr) -> bool {
        covers(self.first..=self.last, self.stripes, address)
    }
}

fn covers(pool: RangeInclusive<Ipv4Addr>, stripes: u16, address: Ipv4Addr) -> bool {
    stripes & stripe(address) != 0 && pool.contains(&address)
}

fn stripe(address: Ipv4Addr) -> u16 {
    1 << (address.to_bits() & 15)
}

/// What may go ahead of the disk, and what is in doubt since it once did.
#[derive(Debug)]
pub(super) struct Aheads {
    /// As the disk says it. A handful: pools where there is a storm.
    open: Vec<Ahead>,
    /// On its way to the disk.
    opening: HashMap<Ticket, Ahead>,
    /// Leases that wait for the disk.
    waiting: HashMap<Ticket, Ipv4Addr>,
    /// Given up by those who had them, which the disk does not say yet.
    freed: HashSet<Ipv4Addr>,
    freeing: HashMap<Ticket, Ipv4Addr>,
    used: Option<Instant>,
    doubts: Vec<(Doubt, Instant)>,
    /// Of these, what was a seat's when the doubt was taken up, and so lent to nobody.
    seats: HashSet<Ipv4Addr>,
    pub(super) storm: usize,
}

impl Aheads {
    /// Takes up what the journal says. As with leases, a clock set back cannot stretch it.
    pub fn restore(doubts: impl IntoIterator<Item = Doubt>, now: Now) -> Aheads {
        let left = |doubt: &Doubt| {
            let most = u64::from(doubt.seconds) + u64::from(SLACK);
            Duration::from_secs(doubt.until.saturating_sub(now.wall).min(most))
        };
        let doubts = doubts.into_iter().map(|doubt| (doubt, now.mono + left(&doubt)));
        Aheads {
            open: Vec::new(),
            opening: HashMap::new(),
            waiting: HashMap::new(),
            freed: HashSet::new(),
            freeing: HashMap::new(),
            used: None,
            doubts: doubts.collect(),
            seats: HashSet::new(),
            storm: STORM,
        }
    }

    /// Whether an address that is nobody's may be lent for so long without waiting for the disk.
    pub fn lends(&self, address: Ipv4Addr, seconds: u32) -> bool {
        self.open.iter().any(|ahead| ahead.covers(address) && ahead.seconds >= seconds)
            && !self.freed.contains(&address)
    }

    /// Whether an address is one of those that the disk says may be lent.
    pub fn covers(&self, address: Ipv4Addr) -> bool {
        self.open.iter().any(|ahead| ahead.covers(address))
    }

    /// None are.
    pub fn is_calm(&self) -> bool {
        self.open.is_empty()
    }

    /// One is lent ahead of the disk.
    pub fn lent(&mut self, now: Now) {
        self.used = Some(now.mono);
    }

    /// Whether an address may be somebody's of whom the journal has lost word.
    pub fn doubts(&self, address: Ipv4Addr, now: Now) -> bool {
        self.doubts.iter().any(|(doubt, until)| {
            *until > now.mono && covers(doubt.first..=doubt.last, doubt.stripes, address)
        })
    }

    /// The same of a seat's address. It lies in a pool often, and its machine must not wait because others had leases.
    pub fn doubts_seat(&self, address: Ipv4Addr, now: Now) -> bool {
        !self.seats.contains(&address) && self.doubts(address, now)
    }

    /// What the pools did not give when this was taken up.
    pub fn had(&mut self, reserved: impl Iterator<Item = Ipv4Addr>, now: Now) {
        self.seats = reserved.filter(|address| self.doubts(*address, now)).collect();
    }

    /// A lease of this network's pool waits for the disk. What to have written where that is one too many.
    pub fn wait(
        &mut self,
        ticket: Ticket,
        address: Ipv4Addr,
        subnet: Option<&Subnet>,
        seconds: u32,
    ) -> Option<Ahead> {
        self.waiting.insert(ticket, address);
        let subnet = subnet?;
        let (first, last) = subnet.pool.as_ref().map(|pool| (*pool.start(), *pool.end()))?;
        // A stranger's first lease is a short one, and not its last.
        let longest = u32::try_from(subnet.lease.as_secs()).unwrap_or(u32::MAX).max(seconds);
        let same = |ahead: &&Ahead| (ahead.first, ahead.last) == (first, last);
        if self.waiting.len() < self.storm || self.opening.values().any(|ahead| same(&ahead)) {
            return None;
        }
        let known = self.open.iter().find(same).copied();
        let known = known.unwrap_or(Ahead { first, last, stripes: 0, seconds: longest });
        if known.covers(address) && known.seconds >= seconds {
            return None;
        }
        let stripes = known.stripes | stripe(address);
        Some(Ahead { stripes, seconds: longest.max(known.seconds), ..known })
    }

    pub fn opening(&mut self, ticket: Ticket, ahead: Ahead) {
        self.opening.insert(ticket, ahead);
    }

    /// A former holder is forgotten by this change.
    pub fn frees(&mut self, ticket: Ticket, address: Ipv4Addr) {
        self.freed.insert(address);
        self.freeing.insert(ticket, address);
    }

    /// What became of a change that was to wait for the disk. An address whose former holder the disk still has
    /// is never lent ahead of it.
    pub fn committed(&mut self, ticket: Ticket, ok: bool, now: Now) {
        let freed = self.freeing.remove(&ticket);
        if let Some(address) = self.waiting.remove(&ticket).or(freed)
            && ok
            && !self.freeing.values().any(|freeing| *freeing == address)
        {
            self.freed.remove(&address);
        }
        if let Some(ahead) = self.opening.remove(&ticket).filter(|_| ok) {
            self.open.retain(|open| (open.first, open.last) != (ahead.first, ahead.last));
            self.open.push(ahead);
            self.used = Some(now.mono);
        }
    }

    /// A storm is over, or a doubt: what to have written.
    pub fn sweep(&mut self, now: Now) -> Vec<LeaseChange> {
        self.doubts.retain(|(_, until)| *until > now.mono);
        let calm = self.used.is_none_or(|used| used + CALM <= now.mono);
        if !calm || !self.opening.is_empty() {
            return Vec::new();
        }
        let closed = std::mem::take(&mut self.open).into_iter();
        closed.map(|ahead| LeaseChange::Ahead(Ahead { stripes: 0, ..ahead })).collect()
    }

    /// Whether time changes anything.
    pub fn is_idle(&self) -> bool {
        self.open.is_empty() && self.doubts.is_empty()
    }
}
