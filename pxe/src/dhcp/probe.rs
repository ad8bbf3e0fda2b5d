//! Is anybody there? Before an address of the pool is offered for the first time, the link is asked
//! by ARP (RFC 2131 2.2, after RFC 5227): somebody may have set it by hand.

use std::collections::HashMap;
use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use super::frame::Arp;
use crate::Mac;

/// RFC 5227 wants three probes; it also wants seconds between them, which firmware does not have.
const PROBES: u32 = 3;

/// The probes under way on one link. Bounded by who starts them.
#[derive(Debug)]
pub struct Probes {
    us: Mac,
    wait: Duration,
    open: HashMap<Ipv4Addr, Probe>,
}

#[derive(Debug)]
struct Probe {
    mac: Mac,
    sent: u32,
    next: Instant,
}

/// What a deadline brings.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Due {
    /// Ask once more.
    Ask(Arp),
    /// Nobody answered.
    Free(Ipv4Addr),
}

impl Probes {
    /// Probes from an interface with this hardware address, each for this long.
    pub fn new(us: Mac, wait: Duration) -> Probes {
        Probes { us, wait, open: HashMap::new() }
    }

    /// Begins to ask for an address that is to be this machine's. Send what comes back.
    pub fn begin(&mut self, address: Ipv4Addr, mac: Mac, now: Instant) -> Arp {
        self.open.insert(address, Probe { mac, sent: 1, next: now + self.wait / PROBES });
        Arp::probe(self.us, address)
    }

    /// An ARP packet from the link. The address that it shows to be in use, if we asked for it.
    /// The machine that is to get an address may well have it still from its last boot.
    pub fn heard(&mut self, arp: &Arp) -> Option<Ipv4Addr> {
        let (sender, claimed) = arp.sender;
        // RFC 5227 2.1.1: somebody else's probe for the same address is a claim too.
        let address = if claimed.is_unspecified() { arp.target.1 } else { claimed };
        let probe = self.open.get(&address)?;
        if sender == probe.mac || sender == self.us {
            return None;
        }
        self.open.remove(&address);
        Some(address)
    }

    /// When there is something to do.
    pub fn next(&self) -> Option<Instant> {
        self.open.values().map(|probe| probe.next).min()
    }

    /// What there is to do.
    pub fn due(&mut self, now: Instant) -> Vec<Due> {
        let (us, pause) = (self.us, self.wait / PROBES);
        let mut due = Vec::new();
        self.open.retain(|address, probe| {
            if probe.next > now {
                return true;
            }
            if probe.sent == PROBES {
                due.push(Due::Free(*address));
                return false;
            }
            probe.sent += 1;
            probe.next = now + pause;
            due.push(Due::Ask(Arp::probe(us, *address)));
            true
        });
        due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const US: Mac = Mac([2, 0, 0, 0, 0, 1]);
    const CLIENT: Mac = Mac([2, 0, 0, 0, 0, 2]);
    const OTHER: Mac = Mac([2, 0, 0, 0, 0, 3]);
    const ADDRESS: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 9);

    fn reply(from: Mac, address: Ipv4Addr) -> Arp {
        Arp { op: 2, sender: (from, address), target: (US, Ipv4Addr::UNSPECIFIED) }
    }

    #[test]
    fn silence_for_three_questions_means_free() {
        let start = Instant::now();
        let mut probes = Probes::new(US, Duration::from_millis(300));
        assert_eq!(probes.begin(ADDRESS, CLIENT, start), Arp::probe(US, ADDRESS));
        let at = |ms| start + Duration::from_millis(ms);
        assert_eq!(probes.next(), Some(at(100)));
        assert_eq!(probes.due(at(99)), []);
        assert_eq!(probes.due(at(100)), [Due::Ask(Arp::probe(US, ADDRESS))]);
        assert_eq!(probes.due(at(200)), [Due::Ask(Arp::probe(US, ADDRESS))]);
        assert_eq!(probes.due(at(300)), [Due::Free(ADDRESS)]);
        assert_eq!(probes.next(), None);
        assert_eq!(probes.heard(&reply(OTHER, ADDRESS)), None, "too late");
    }

    #[test]
    fn only_somebody_elses_answer_counts() {
        let start = Instant::now();
        let mut probes = Probes::new(US, Duration::from_millis(300));
        probes.begin(ADDRESS, CLIENT, start);
        for (arp, why) in [
            (reply(CLIENT, ADDRESS), "its own, from its last boot"),
            (reply(US, ADDRESS), "ours"),
            (reply(OTHER, Ipv4Addr::new(10, 0, 0, 8)), "another address"),
            (Arp::probe(CLIENT, ADDRESS), "the client probes for itself"),
        ] {
            assert_eq!(probes.heard(&arp), None, "{why}");
        }
        assert_eq!(probes.heard(&Arp::probe(OTHER, ADDRESS)), Some(ADDRESS));
        probes.begin(ADDRESS, CLIENT, start);
        assert_eq!(probes.heard(&reply(OTHER, ADDRESS)), Some(ADDRESS));
        assert_eq!(probes.next(), None);
    }
}
