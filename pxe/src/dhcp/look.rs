//! Who is there? A seat that needs no fence moves to the machine that waits for it once nobody answers
//! at its address (RFC 5227 2.1.1: three probes a second apart, and a second more to answer the last).

use std::collections::HashMap;
use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

use super::frame::Arp;
use super::probe::{Due, Probes};
use crate::Mac;

/// All three probes.
const LISTEN: Duration = Duration::from_secs(3);
/// Looks at once: as many addresses, not askers.
const MAX_LOOKS: usize = 256;

/// Told who answered, if anybody did. Dropped where nobody was asked.
pub type Seen = oneshot::Sender<Option<Mac>>;

/// The looks under way on one link.
#[derive(Debug)]
pub struct Looks {
    probes: Probes,
    asked: HashMap<Ipv4Addr, Look>,
}

#[derive(Debug)]
struct Look {
    not: Vec<Mac>,
    told: Vec<Seen>,
}

impl Looks {
    /// From an interface with this hardware address.
    pub fn new(us: Mac) -> Looks {
        Looks { probes: Probes::new(us, LISTEN), asked: HashMap::new() }
    }

    /// Begins to look for anybody but these. Send what comes back.
    pub fn begin(
        &mut self,
        address: Ipv4Addr,
        not: Vec<Mac>,
        told: Seen,
        now: Instant,
    ) -> Option<Arp> {
        if let Some(look) = self.asked.get_mut(&address) {
            look.told.retain(|seen| !seen.is_closed());
            look.told.push(told);
            return None;
        }
        if self.asked.len() >= MAX_LOOKS {
            return None;
        }
        let first = not.first().copied().unwrap_or(Mac([0; 6]));
        self.asked.insert(address, Look { not, told: vec![told] });
        Some(self.probes.begin(address, first, now))
    }

    /// An ARP packet from the link.
    pub fn heard(&mut self, arp: &Arp) {
        let (sender, claimed) = arp.sender;
        let address = if claimed.is_unspecified() { arp.target.1 } else { claimed };
        if self.asked.get(&address).is_some_and(|look| look.not.contains(&sender)) {
            return;
        }
        if let Some(address) = self.probes.heard(arp) {
            self.tell(address, Some(sender));
        }
    }

    /// When there is something to do.
    pub fn next(&self) -> Option<Instant> {
        self.probes.next()
    }

    /// What to send now. Who waited for nothing to be heard is told.
    pub fn due(&mut self, now: Instant) -> Vec<Arp> {
        let mut asks = Vec::new();
        for due in self.probes.due(now) {
            match due {
                Due::Ask(arp) => asks.push(arp),
                Due::Free(address) => self.tell(address, None),
            }
        }
        asks
    }

    fn tell(&mut self, address: Ipv4Addr, who: Option<Mac>) {
        for told in self.asked.remove(&address).into_iter().flat_map(|look| look.told) {
            // Who asked may have gone: then nobody misses the answer.
            let _gone = told.send(who).is_err();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const US: Mac = Mac([2, 0, 0, 0, 0, 1]);
    const WAITS: [Mac; 2] = [Mac([2, 0, 0, 0, 0, 2]), Mac([2, 0, 0, 0, 0, 3])];
    const HOLDER: Mac = Mac([2, 0, 0, 0, 0, 9]);
    const SEAT: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 11);

    fn look(looks: &mut Looks, now: Instant) -> oneshot::Receiver<Option<Mac>> {
        let (told, seen) = oneshot::channel();
        looks.begin(SEAT, WAITS.to_vec(), told, now);
        seen
    }

    #[test]
    fn silence_of_three_seconds_after_three_probes_is_nobody() {
        let start = Instant::now();
        let mut looks = Looks::new(US);
        let (told, mut seen) = oneshot::channel();
        let first = looks.begin(SEAT, WAITS.to_vec(), told, start);
        assert_eq!(first, Some(Arp::probe(US, SEAT)));
        let mut second = look(&mut looks, start);
        let mut asks = 1;
        for tenth in 0..=29 {
            asks += looks.due(start + Duration::from_millis(tenth * 100)).len();
            assert!(seen.try_recv().is_err(), "not after {tenth} tenths");
        }
        assert_eq!(asks, 3, "one look, however many ask");
        assert_eq!(looks.due(start + LISTEN), []);
        assert_eq!((seen.try_recv(), second.try_recv()), (Ok(None), Ok(None)));
        assert_eq!(looks.next(), None);
    }

    #[test]
    fn an_answer_of_anybody_but_who_waits_is_somebody() {
        let start = Instant::now();
        let mut looks = Looks::new(US);
        let mut seen = look(&mut looks, start);
        let reply = |from| Arp { op: 2, sender: (from, SEAT), target: (US, SEAT) };
        for own in WAITS {
            looks.heard(&reply(own));
        }
        looks.heard(&reply(US));
        looks.heard(&Arp { op: 2, sender: (HOLDER, US_AT), target: (US, SEAT) });
        assert!(seen.try_recv().is_err());
        looks.heard(&reply(HOLDER));
        assert_eq!(seen.try_recv(), Ok(Some(HOLDER)));
        assert_eq!(looks.due(start + LISTEN), []);
    }

    const US_AT: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 1);

    #[test]
    fn looks_are_bounded_and_those_too_many_hear_nothing() {
        let mut looks = Looks::new(US);
        let now = Instant::now();
        let mut receivers = Vec::new();
        for number in 0..=MAX_LOOKS {
            let (told, seen) = oneshot::channel();
            let address = Ipv4Addr::from(0x0a00_0000 + u32::try_from(number).expect("small"));
            looks.begin(address, vec![], told, now);
            receivers.push(seen);
        }
        let last = receivers.last_mut().expect("some").try_recv();
        assert_eq!(last, Err(oneshot::error::TryRecvError::Closed));
    }
}
