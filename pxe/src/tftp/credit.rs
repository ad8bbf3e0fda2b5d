//! What a source gets before it has acknowledged anything. A request is one small datagram and its sender's
//! address may be a lie (RFC 1350 has no handshake): whoever really is there must not be buried under answers.
//! Each source is answered some requests on credit. Its first ACK, to any of them, shows that it is there and
//! settles all of it; who never acknowledges has used it up, and earns another answer now and then.
//!
//! Whoever invents sources fills what is remembered of them. The others then share credit, some with some: each
//! ACK gives back what its own request took, and more is earned than by one source alone.
//!
//! Somebody may use up the credit of a machine that is about to ask. Where DHCP says that one is booting at the
//! address, it is answered beyond it: each request by one datagram, an OACK about as long as the request or,
//! where it has no options, one block of 512 bytes. That buries nobody.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// Requests of one source that are answered before its first ACK. One machine has one transfer under way, and
/// asks again from another port now and then; several firmwares behind one address are rare.
pub const UNHEARD: u32 = 8;
/// One more after so long.
const EARNED: Duration = Duration::from_secs(10);
/// The same for those that share. Three datagrams a second bury nobody, whoever of them gets all; and a machine
/// among invented ones finds one left in the end.
const EARNED_SHARED: Duration = Duration::from_secs(1);
/// What an ERROR costs, of a request: nobody acknowledges one, and PXELINUX and GRUB look for some ten files
/// that are not there before they find one.
const REFUSAL: f64 = 0.125;
/// Sources that are remembered.
const SOURCES: usize = 4096;
/// Credits that the others share. Nobody knows beforehand with whom.
const SHARED: u64 = 4096;
/// Transfers of one source that are waited for; an ACK to an older one settles nothing.
const WAITING: usize = 64;
/// How often those that owe nothing are looked for.
const SWEEP: Duration = Duration::from_secs(1);

/// One that is remembered, or some that share.
#[derive(Debug)]
struct Source {
    shared: bool,
    owes: f64,
    at: Instant,
    /// Set once the client of a transfer has acknowledged something.
    heard: Vec<Arc<AtomicBool>>,
}

impl Source {
    fn new(shared: bool, now: Instant) -> Source {
        Source { shared, owes: 0.0, at: now, heard: Vec::new() }
    }

    fn settle(&mut self, now: Instant) {
        let each = if self.shared { EARNED_SHARED } else { EARNED };
        let earned = now.saturating_duration_since(self.at).as_secs_f64() / each.as_secs_f64();
        self.owes = (self.owes - earned).max(0.0);
        self.at = now;
        let mut acknowledged = 0.0;
        self.heard.retain_mut(|heard| {
            let (set, over) = match Arc::get_mut(heard) {
                // Its transfer is over, and nobody will set it any more.
                Some(heard) => (*heard.get_mut(), true),
                None => (heard.load(Ordering::Relaxed), false),
            };
            acknowledged += f64::from(u8::from(set));
            !set && !over
        });
        if self.shared {
            // Who is there settles nothing for those that are not.
            self.owes = (self.owes - acknowledged).max(0.0);
        } else if acknowledged > 0.0 {
            self.owes = 0.0;
            self.heard.clear();
        }
    }

    fn answered(&mut self, heard: &Arc<AtomicBool>) {
        self.owes += 1.0;
        if self.heard.len() >= WAITING {
            self.heard.remove(0);
        }
        self.heard.push(heard.clone());
    }
}

/// See the module.
#[derive(Debug)]
pub(super) struct Credit {
    most: f64,
    sources: HashMap<IpAddr, Source>,
    shared: HashMap<u64, Source>,
    hasher: RandomState,
    swept: Option<Instant>,
}

impl Credit {
    /// Of so many requests.
    pub fn new(most: u32) -> Credit {
        Credit {
            most: f64::from(most),
            sources: HashMap::new(),
            shared: HashMap::new(),
            hasher: RandomState::new(),
            swept: None,
        }
    }

    /// Whether a request is answered; `heard` is to be set by its client's first ACK.
    pub fn take(&mut self, from: IpAddr, heard: &Arc<AtomicBool>, now: Instant) -> bool {
        let known = self.sources.contains_key(&from);
        if !known && self.sources.len() >= SOURCES {
            self.sweep(now);
        }
        let source = if known || self.sources.len() < SOURCES {
            self.sources.entry(from).or_insert_with(|| Source::new(false, now))
        } else {
            let share = self.share(from);
            self.shared.entry(share).or_insert_with(|| Source::new(true, now))
        };
        source.settle(now);
        if source.owes + 1.0 > self.most {
            return false;
        }
        source.answered(heard);
        true
    }

    /// One of its requests was answered by an ERROR.
    pub fn refused(&mut self, from: IpAddr) {
        self.gives_back(from, 1.0 - REFUSAL);
    }

    /// One of its requests was not answered after all.
    pub fn unanswered(&mut self, from: IpAddr) {
        self.gives_back(from, 1.0);
    }

    fn gives_back(&mut self, from: IpAddr, part: f64) {
        let share = self.share(from);
        let source = self.sources.get_mut(&from).or_else(|| self.shared.get_mut(&share));
        if let Some(source) = source {
            source.owes = (source.owes - part).max(0.0);
        }
    }

    fn share(&self, from: IpAddr) -> u64 {
        self.hasher.hash_one(from) % SHARED
    }

    fn sweep(&mut self, now: Instant) {
        if self.swept.is_some_and(|swept| now.saturating_duration_since(swept) < SWEEP) {
            return;
        }
        self.swept = Some(now);
        let owes = |source: &mut Source| {
            source.settle(now);
            source.owes > 0.0
        };
        self.sources.retain(|_, source| owes(source));
        self.shared.retain(|_, source| owes(source));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const VICTIM: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 77, 0, 9));

    fn asks(credit: &mut Credit, times: usize, now: Instant) -> (usize, Vec<Arc<AtomicBool>>) {
        let flags: Vec<Arc<AtomicBool>> = (0..times).map(|_| Arc::default()).collect();
        (flags.iter().filter(|flag| credit.take(VICTIM, flag, now)).count(), flags)
    }

    #[test]
    fn who_acknowledges_nothing_has_used_it_up() {
        let (mut credit, begun) = (Credit::new(UNHEARD), Instant::now());
        assert_eq!(asks(&mut credit, 1000, begun).0, 8);
        assert_eq!(asks(&mut credit, 1000, begun + Duration::from_secs(5)).0, 0);
        assert_eq!(asks(&mut credit, 1000, begun + Duration::from_secs(10)).0, 1);
        // Over an hour, asked a hundred times a second: one in ten seconds.
        let answered: usize = (0..3600)
            .map(|second| asks(&mut credit, 100, begun + Duration::from_secs(11 + second)).0)
            .sum();
        assert!((355..=361).contains(&answered), "{answered}");
    }

    #[test]
    fn one_ack_settles_it() {
        let (mut credit, now) = (Credit::new(UNHEARD), Instant::now());
        for _ in 0..100 {
            let (answered, flags) = asks(&mut credit, 9, now);
            assert_eq!(answered, 8);
            flags[3].store(true, Ordering::Relaxed);
        }
    }

    #[test]
    fn files_that_are_not_there_cost_little() {
        let (mut credit, now) = (Credit::new(UNHEARD), Instant::now());
        let mut refused = 0;
        while asks(&mut credit, 1, now).0 == 1 {
            credit.refused(VICTIM);
            refused += 1;
        }
        assert!((50..=64).contains(&refused), "{refused}");
    }

    #[test]
    fn what_is_not_answered_costs_nothing() {
        let (mut credit, now) = (Credit::new(UNHEARD), Instant::now());
        for _ in 0..1000 {
            assert_eq!(asks(&mut credit, 1, now).0, 1);
            credit.unanswered(VICTIM);
        }
        assert_eq!(asks(&mut credit, 1000, now).0, 8);
    }

    #[test]
    fn what_is_over_is_not_waited_for() {
        let (mut credit, mut now) = (Credit::new(UNHEARD), Instant::now());
        // Names that are not there, now and then, and a transfer that is under way for long.
        let mut under_way = Vec::new();
        for request in 0..10_000 {
            now += Duration::from_secs(2);
            let flag = Arc::default();
            assert!(credit.take(VICTIM, &flag, now));
            credit.refused(VICTIM);
            if request % 100 == 0 {
                under_way.push(flag);
            }
        }
        assert_eq!(credit.sources[&VICTIM].heard.len(), WAITING);
        drop(under_way);
        assert_eq!(asks(&mut credit, 1, now).0, 1);
        // What was acknowledged by one that is over by now counts all the same.
        let (answered, flags) = asks(&mut credit, 1000, now);
        assert!(answered < 8, "{answered}");
        flags[0].store(true, Ordering::Relaxed);
        drop(flags);
        assert_eq!(asks(&mut credit, 1000, now).0, 8);
        assert_eq!(asks(&mut credit, 1000, now).0, 0);
        assert_eq!(credit.sources[&VICTIM].heard.len(), 0, "all of them are over");
    }

    fn invented(number: u32) -> IpAddr {
        std::net::Ipv4Addr::from(0x0b00_0000 + number).into()
    }

    #[test]
    fn invented_sources_do_not_lock_out_real_ones() {
        let (mut credit, begun) = (Credit::new(UNHEARD), Instant::now());
        for number in 0..50_000 {
            credit.take(invented(number), &Arc::default(), begun);
        }
        assert!(credit.sources.len() <= SOURCES && credit.shared.len() <= SHARED as usize);
        // Whoever acknowledges has nothing to wait for, however many share.
        let mut now = begun + Duration::from_secs(1);
        for _ in 0..1000 {
            let (answered, flags) = asks(&mut credit, 1, now);
            assert_eq!(answered, 1);
            flags[0].store(true, Ordering::Relaxed);
        }
        // They go on, ten thousand a second, and a machine asks every two seconds: it is answered in the end.
        let mut answered = 0;
        for flood in 1..=600_000 {
            now += Duration::from_micros(100);
            credit.take(invented(flood % 20_000), &Arc::default(), now);
            if flood % 20_000 == 0 {
                answered += asks(&mut credit, 1, now).0;
            }
        }
        assert!(answered > 0);
        now += Duration::from_secs(90);
        assert_eq!(asks(&mut credit, 1, now).0, 1);
        assert_eq!((credit.sources.len(), credit.shared.len()), (1, 0), "they are forgotten");
    }

    #[test]
    fn invented_sources_bury_nobody_that_they_name_among_them() {
        let (mut credit, begun) = (Credit::new(UNHEARD), Instant::now());
        let mut answered = 0;
        for tick in 0..100 {
            let now = begun + Duration::from_millis(100) * tick;
            for number in 0..10_000 {
                credit.take(invented(number), &Arc::default(), now);
            }
            answered += asks(&mut credit, 100, now).0;
        }
        assert!(answered <= 8 + 10, "{answered} in ten seconds");
        // Nor does one that is there, and shares with it.
        let victims = credit.share(VICTIM);
        let shares = |number: &u32| credit.share(invented(*number)) == victims;
        let there = (10_000..).find(shares).map(invented);
        let now = begun + Duration::from_secs(30);
        let mut more = 0;
        for _ in 0..1000 {
            let flag = Arc::default();
            credit.take(there.unwrap(), &flag, now);
            flag.store(true, Ordering::Relaxed);
            more += asks(&mut credit, 1, now).0;
        }
        assert_eq!(more, 8);
    }
}
