//! How much one sender may say: a burst as of a machine that starts, then so much a second. A datagram that
//! is too much is dropped and counted; a connection waits, and its sender counts what it drops.

use std::collections::HashMap;
use std::net::IpAddr;
use std::time::{Duration, Instant};

/// Messages at once: Debian says about 1,500 as it starts.
const BURST: f64 = 5000.0;
/// And each second after that.
const RATE: f64 = 500.0;
/// Senders that are remembered. One that was quiet is forgotten first. Where there are more, addresses are
/// invented; machines of the site are remembered all the same.
const SENDERS: usize = 16_384;
/// How often those that were quiet are looked for.
const SWEEP: Duration = Duration::from_secs(1);
/// Connections of one sender.
const CONNECTIONS: u32 = 8;
/// What was dropped of one sender is told no more often.
const TELL: Duration = Duration::from_secs(10);

/// See the module.
#[derive(Debug, Default)]
pub struct Gate {
    senders: HashMap<IpAddr, Sender>,
    /// Messages of senders for whom there was no room.
    strangers: u64,
    swept: Option<Instant>,
}

#[derive(Debug)]
struct Sender {
    tokens: f64,
    at: Instant,
    /// Since it was last told, and when that was.
    dropped: u64,
    told: Option<Instant>,
    connections: u32,
}

impl Sender {
    fn refill(&mut self, now: Instant) {
        let passed = now.saturating_duration_since(self.at).as_secs_f64();
        self.tokens = (self.tokens + passed * RATE).min(BURST);
        self.at = now;
    }

    fn idle(&mut self, now: Instant) -> bool {
        self.refill(now);
        self.tokens >= BURST && self.dropped == 0 && self.connections == 0
    }
}

impl Gate {
    /// A datagram of this sender. False: it is dropped. `known` says whether it is a machine of the site, where
    /// that has to be asked.
    pub fn pass(&mut self, from: IpAddr, now: Instant, known: impl FnOnce() -> bool) -> bool {
        let Some(sender) = self.sender(from, now, known) else {
            self.strangers += 1;
            return false;
        };
        sender.refill(now);
        let passes = sender.tokens >= 1.0;
        match passes {
            true => sender.tokens -= 1.0,
            false => sender.dropped += 1,
        }
        passes
    }

    /// How long a connection of this sender waits before its next message is read.
    pub fn wait(&mut self, from: IpAddr, now: Instant) -> Duration {
        // It was let in, and so it is remembered.
        let Some(sender) = self.sender(from, now, || false) else { return Duration::from_secs(1) };
        sender.refill(now);
        if sender.tokens >= 1.0 {
            sender.tokens -= 1.0;
            return Duration::ZERO;
        }
        Duration::from_secs_f64((1.0 - sender.tokens) / RATE).max(Duration::from_millis(1))
    }

    /// Another connection. False: it has enough.
    pub fn connects(&mut self, from: IpAddr, now: Instant, known: bool) -> bool {
        let Some(sender) = self.sender(from, now, || known) else { return false };
        let may = sender.connections < CONNECTIONS;
        sender.connections += u32::from(may);
        may
    }

    /// One less.
    pub fn ended(&mut self, from: IpAddr) {
        if let Some(sender) = self.senders.get_mut(&from) {
            sender.connections = sender.connections.saturating_sub(1);
        }
    }

    /// What was dropped, by sender, where it is time to tell; and of senders there was no room for.
    pub fn dropped(&mut self, now: Instant) -> (Vec<(IpAddr, u64)>, u64) {
        let due = |told: Option<Instant>| {
            told.is_none_or(|told| now.saturating_duration_since(told) >= TELL)
        };
        let senders = self.senders.iter_mut();
        let told = senders.filter(|(_, sender)| sender.dropped > 0 && due(sender.told));
        let told = told.map(|(from, sender)| {
            sender.told = Some(now);
            (*from, std::mem::take(&mut sender.dropped))
        });
        (told.collect(), std::mem::take(&mut self.strangers))
    }

    fn sender(
        &mut self,
        from: IpAddr,
        now: Instant,
        known: impl FnOnce() -> bool,
    ) -> Option<&mut Sender> {
        if !self.senders.contains_key(&from) {
            let due = |swept: Instant| now.saturating_duration_since(swept) >= SWEEP;
            if self.senders.len() >= SENDERS && self.swept.is_none_or(due) {
                self.swept = Some(now);
                self.senders.retain(|_, sender| !sender.idle(now));
            }
            if self.senders.len() >= SENDERS && !known() {
                return None;
            }
        }
        let new = || Sender { tokens: BURST, at: now, dropped: 0, told: None, connections: 0 };
        Some(self.senders.entry(from).or_insert_with(new))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const M01: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 77, 0, 11));
    const M02: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 77, 0, 12));

    #[test]
    fn one_that_storms_is_bounded_and_the_others_are_not() {
        let (mut gate, begun) = (Gate::default(), Instant::now());
        let passed = (0..20_000).filter(|_| gate.pass(M01, begun, || false)).count();
        assert_eq!(passed, BURST as usize);
        assert!(gate.pass(M02, begun, || false));
        assert_eq!(gate.dropped(begun), (vec![(M01, 15_000)], 0));
        assert!(!gate.pass(M01, begun, || false));
        assert_eq!(gate.dropped(begun).0, [], "not so soon again");
        let later = begun + Duration::from_secs(10);
        assert_eq!(gate.dropped(later).0, [(M01, 1)]);
        let passed = (0..20_000).filter(|_| gate.pass(M01, later, || false)).count();
        assert_eq!(passed, BURST as usize);
    }

    #[test]
    fn a_connection_waits_and_loses_nothing() {
        let (mut gate, mut now) = (Gate::default(), Instant::now());
        let begun = now;
        for _ in 0..6000 {
            loop {
                let wait = gate.wait(M01, now);
                if wait.is_zero() {
                    break;
                }
                now += wait;
            }
        }
        let took = now.duration_since(begun).as_secs_f64();
        assert!((1.9..2.2).contains(&took), "{took}");
        assert_eq!(gate.dropped(now), (vec![], 0));
    }

    #[test]
    fn senders_are_bounded_and_who_is_quiet_makes_room() {
        let (mut gate, now) = (Gate::default(), Instant::now());
        let from = |number: u32| IpAddr::from(std::net::Ipv4Addr::from(number).octets());
        for number in 0..SENDERS as u32 {
            assert!(gate.pass(from(number), now, || false));
        }
        assert!(!gate.pass(M01, now, || false));
        assert_eq!(gate.dropped(now).1, 1);
        assert!(gate.pass(M02, now, || true), "a machine of the site is heard all the same");
        assert!(gate.pass(M01, now + Duration::from_secs(1), || false));
        for _ in 0..CONNECTIONS {
            assert!(gate.connects(M01, now, false));
        }
        assert!(!gate.connects(M01, now, false));
        gate.ended(M01);
        assert!(gate.connects(M01, now, false));
    }
}
