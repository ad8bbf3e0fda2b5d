//! Addresses that are spoken for and not yet leased: being probed, on offer, or on their way to
//! the disk. Nothing here survives a restart, and nothing here has been acknowledged.

use std::collections::HashMap;
use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use super::answer::Serving;
use super::lease::{ClientKey, LeaseRecord, Now};
use super::request::Request;
use super::server::Ticket;

/// EDK2 collects offers for 4 s before it chooses, iPXE for less; nobody takes half a minute. An
/// offer that is taken up later is not lost: its address is probed again.
pub(super) const OFFER: Duration = Duration::from_secs(30);
/// A probe whose result never came.
const PROBE: Duration = Duration::from_secs(5);

/// Whose turn it is with an address.
#[derive(Debug)]
pub(super) struct Hold {
    pub address: Ipv4Addr,
    pub stage: Stage,
}

#[derive(Debug)]
pub(super) enum Stage {
    /// Asked the link whether somebody uses it.
    Probing { asked: Box<Asked>, tries: u8, since: Instant },
    /// Offered.
    Standing { until: Instant },
    /// Accepted; the ACK, if a client waits for one, goes out when the record is on disk.
    Committing { record: LeaseRecord, until: Instant, asked: Option<Box<Asked>> },
}

/// A client's question that has to wait for something.
#[derive(Debug)]
pub(super) struct Asked {
    pub request: Request,
    pub serving: Serving,
    pub then: Then,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Then {
    Offer,
    Ack,
}

impl Hold {
    /// Over, unless its owner comes back before somebody else does. What is on its way to the
    /// disk never lapses: it may arrive there.
    pub fn lapsed(&self, now: Now) -> bool {
        match &self.stage {
            Stage::Probing { since, .. } => *since + PROBE <= now.mono,
            Stage::Standing { until } => *until <= now.mono,
            Stage::Committing { .. } => false,
        }
    }

    pub fn committing(&self) -> bool {
        matches!(self.stage, Stage::Committing { .. })
    }
}

/// The holds, by machine and by address: at most one of each for the other.
#[derive(Debug, Default)]
pub(super) struct Holds {
    by_key: HashMap<ClientKey, Hold>,
    by_address: HashMap<Ipv4Addr, ClientKey>,
    tickets: HashMap<Ticket, ClientKey>,
    probing: usize,
}

impl Holds {
    /// Sets a machine's hold in place of its former one. The address must be nobody's, or held by
    /// one whose hold has lapsed and now ends.
    pub fn put(&mut self, key: ClientKey, hold: Hold) {
        self.remove(key);
        if let Some(former) = self.by_address.get(&hold.address).copied() {
            self.remove(former);
        }
        self.probing += usize::from(matches!(hold.stage, Stage::Probing { .. }));
        self.by_address.insert(hold.address, key);
        self.by_key.insert(key, hold);
    }

    pub fn remove(&mut self, key: ClientKey) -> Option<Hold> {
        let hold = self.by_key.remove(&key)?;
        self.by_address.remove(&hold.address);
        self.probing -= usize::from(matches!(hold.stage, Stage::Probing { .. }));
        Some(hold)
    }

    /// Takes back an offer or a probe, but not what is on its way to the disk.
    pub fn withdraw(&mut self, key: ClientKey) {
        if self.of(key).is_some_and(|hold| !hold.committing()) {
            self.remove(key);
        }
    }

    pub fn of(&self, key: ClientKey) -> Option<&Hold> {
        self.by_key.get(&key)
    }

    /// The question that waits for a machine's probe or commit.
    pub fn asked_mut(&mut self, key: ClientKey) -> Option<&mut Stage> {
        self.by_key.get_mut(&key).map(|hold| &mut hold.stage)
    }

    pub fn at(&self, address: Ipv4Addr) -> Option<(ClientKey, &Hold)> {
        let key = *self.by_address.get(&address)?;
        self.by_key.get(&key).map(|hold| (key, hold))
    }

    /// Remembers whose commit a ticket is.
    pub fn ticket(&mut self, ticket: Ticket, key: ClientKey) {
        self.tickets.insert(ticket, key);
    }

    /// The hold that a ticket was for.
    pub fn redeem(&mut self, ticket: Ticket) -> Option<(ClientKey, Hold)> {
        let key = self.tickets.remove(&ticket)?;
        self.of(key).filter(|hold| hold.committing())?;
        self.remove(key).map(|hold| (key, hold))
    }

    pub fn sweep(&mut self, now: Now) {
        let lapsed: Vec<ClientKey> =
            self.by_key.iter().filter(|(_, hold)| hold.lapsed(now)).map(|(key, _)| *key).collect();
        for key in lapsed {
            self.remove(key);
        }
    }

    pub fn probing(&self) -> usize {
        self.probing
    }

    pub fn len(&self) -> usize {
        self.by_key.len()
    }

    pub fn is_empty(&self) -> bool {
        self.by_key.is_empty()
    }
}
