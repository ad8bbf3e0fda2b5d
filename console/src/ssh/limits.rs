//! How much a stranger gets: connections, tries, and how long he waits between them. Without sockets.
//!
//! Nobody is locked out by another's wrong keys, for many come from one address: the maintenance host's own. Who
//! tries many is answered slowly, and of connections that have not logged in the oldest ones make room.

use std::collections::{BTreeMap, HashMap};
use std::net::{IpAddr, Ipv6Addr};
use std::time::{Duration, Instant};

/// Keys that a connection may offer. People have agents with many of them.
pub(super) const KEYS: usize = 20;
/// Channels a connection may ask for in vain.
pub(super) const CHANNELS: usize = 64;

/// Connections in all.
const ALL: usize = 1024;
/// From one source.
const OF_ONE: usize = 256;
/// That have not logged in, in all.
const STRANGERS: usize = 128;
/// And from one source.
const STRANGERS_OF_ONE: usize = 32;

/// A wrong key is forgotten after so long.
const FORGOTTEN: Duration = Duration::from_secs(10);
/// Wrong keys, the wait for the answer to each: an agent's, a script's, an attacker's.
const WAITS: [(u32, Duration); 2] =
    [(40, Duration::from_millis(50)), (200, Duration::from_millis(500))];
const LONGEST: Duration = Duration::from_secs(2);
/// Of one source's wrong keys, people are told so often.
const TOLD: Duration = Duration::from_secs(60);
/// Sources that are remembered without a connection.
const SOURCES: usize = 4096;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Limits {
    open: BTreeMap<u64, Open>,
    sources: HashMap<IpAddr, Source>,
    next: u64,
}

#[derive(Debug)]
struct Open {
    source: IpAddr,
    stranger: bool,
}

#[derive(Debug)]
struct Source {
    /// Wrong keys that are not forgotten yet, as of `at`.
    wrong: u32,
    at: Instant,
    told: Option<Instant>,
    untold: u64,
}

/// What a new connection gets.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Admitted {
    /// It has this number; those of these numbers are to be cut off, to make room.
    As(u64, Vec<u64>),
    /// It is not taken: there are so many already.
    Not,
}

/// What a wrong key gets.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Wrong {
    /// The answer has to wait so long.
    pub wait: Duration,
    /// People are told of it, and of so many before it. None: they were just told of another.
    pub tell: Option<u64>,
}

impl Limits {
    /// Somebody connects.
    pub fn come(&mut self, from: IpAddr) -> Admitted {
        let source = source(from);
        let of_one = |open: &&Open| open.source == source;
        if self.open.len() >= ALL || self.open.values().filter(of_one).count() >= OF_ONE {
            return Admitted::Not;
        }
        self.next += 1;
        self.open.insert(self.next, Open { source, stranger: true });
        let strangers = |of: Option<IpAddr>| {
            let open = self.open.iter().filter(move |(_, open)| {
                open.stranger && of.is_none_or(|source| source == open.source)
            });
            open.map(|(number, _)| *number)
        };
        // Numbers grow with time.
        let mut cut: Vec<u64> = Vec::new();
        let many = strangers(Some(source)).count().saturating_sub(STRANGERS_OF_ONE);
        cut.extend(strangers(Some(source)).take(many));
        let many = strangers(None).count().saturating_sub(STRANGERS + cut.len());
        let more: Vec<u64> = strangers(None).filter(|one| !cut.contains(one)).take(many).collect();
        cut.extend(more);
        for number in &cut {
            self.open.remove(number);
        }
        Admitted::As(self.next, cut)
    }

    /// It logged in.
    pub fn known(&mut self, number: u64) {
        if let Some(open) = self.open.get_mut(&number) {
            open.stranger = false;
        }
    }

    /// It ended.
    pub fn gone(&mut self, number: u64) {
        self.open.remove(&number);
    }

    /// It offered a key that nobody has.
    pub fn wrong(&mut self, from: IpAddr, now: Instant) -> Wrong {
        if self.sources.len() >= SOURCES {
            let old = |known: &Source| now.saturating_duration_since(known.at) < FORGOTTEN * 6;
            self.sources.retain(|_, known| old(known));
            if self.sources.len() >= SOURCES {
                // Thousands of sources within a minute: nobody reads of each.
                return Wrong { wait: LONGEST, tell: None };
            }
        }
        let known = self.sources.entry(source(from)).or_insert(Source {
            wrong: 0,
            at: now,
            told: None,
            untold: 0,
        });
        let steps = now.saturating_duration_since(known.at).as_secs() / FORGOTTEN.as_secs();
        let steps = u32::try_from(steps).unwrap_or(u32::MAX);
        known.wrong = known.wrong.saturating_sub(steps.saturating_mul(STEP)).saturating_add(1);
        if steps > 0 || known.wrong == 1 {
            known.at = now;
        }
        let wait = WAITS.iter().find(|(most, _)| known.wrong <= *most);
        let wait = wait.map_or(LONGEST, |(_, wait)| *wait);
        let quiet = |told| now.saturating_duration_since(told) < TOLD;
        if known.told.is_some_and(quiet) {
            known.untold += 1;
            return Wrong { wait, tell: None };
        }
        known.told = Some(now);
        Wrong { wait, tell: Some(std::mem::take(&mut known.untold)) }
    }
}

/// Wrong keys that are forgotten at a time.
const STEP: u32 = 20;

/// Whoever has one address of an IPv6 network has all of it.
fn source(from: IpAddr) -> IpAddr {
    match from.to_canonical() {
        IpAddr::V6(address) => {
            Ipv6Addr::from_bits(address.to_bits() & !u128::from(u64::MAX)).into()
        }
        address => address,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn strangers_make_room_for_strangers_and_nobody_else_does() {
        let mut limits = Limits::default();
        let here = address("10.0.0.1");
        let Admitted::As(alice, _) = limits.come(here) else { panic!() };
        limits.known(alice);
        for nth in 0..STRANGERS_OF_ONE as u64 {
            assert_eq!(limits.come(here), Admitted::As(alice + 1 + nth, vec![]));
        }
        let next = alice + 1 + STRANGERS_OF_ONE as u64;
        assert_eq!(limits.come(here), Admitted::As(next, vec![alice + 1]), "the oldest goes");
        assert_eq!(limits.come(address("10.0.0.2")), Admitted::As(next + 1, vec![]));
        limits.gone(next);
        assert_eq!(limits.come(here), Admitted::As(next + 2, vec![]));
    }

    #[test]
    fn connections_are_bounded_from_one_source_and_in_all() {
        let mut limits = Limits::default();
        let mut come = |from: IpAddr| match limits.come(from) {
            Admitted::As(number, _) => {
                limits.known(number);
                true
            }
            Admitted::Not => false,
        };
        let one = address("2001:db8::1");
        assert_eq!((0..OF_ONE * 2).filter(|_| come(one)).count(), OF_ONE);
        assert!(!come(address("2001:db8::ffff")), "the same network");
        let all =
            (0..ALL).filter(|nth| come(address(&format!("10.0.{}.{}", nth / 256, nth % 256))));
        assert_eq!(all.count(), ALL - OF_ONE);
        limits.gone(1);
        assert_ne!(limits.come(address("10.9.9.9")), Admitted::Not);
    }

    #[test]
    fn strangers_from_everywhere_are_bounded_too() {
        let mut limits = Limits::default();
        let mut open = 0;
        for nth in 0..1000 {
            let from = address(&format!("10.1.{}.{}", nth / 256, nth % 256));
            if let Admitted::As(_, cut) = limits.come(from) {
                open += 1;
                open -= cut.len();
            }
        }
        assert_eq!((open, limits.open.len()), (STRANGERS, STRANGERS));
    }

    #[test]
    fn a_thousand_wrong_keys_are_answered_slowly_and_told_of_once_a_minute() {
        let mut limits = Limits::default();
        let (from, mut now) = (address("10.0.0.9"), Instant::now());
        assert_eq!(limits.wrong(from, now), Wrong { wait: WAITS[0].1, tell: Some(0) });
        for _ in 1..1000 {
            now += Duration::from_millis(10);
            let wrong = limits.wrong(from, now);
            assert_eq!(wrong.tell, None);
        }
        assert_eq!(limits.wrong(from, now).wait, LONGEST);
        assert_eq!(
            limits.wrong(address("10.0.0.10"), now).wait,
            WAITS[0].1,
            "another pays nothing"
        );
        let later = now + TOLD;
        assert_eq!(limits.wrong(from, later).tell, Some(1000));
        let much_later = later + Duration::from_secs(3600);
        assert_eq!(limits.wrong(from, much_later), Wrong { wait: WAITS[0].1, tell: Some(0) });
    }

    #[test]
    fn sources_that_are_remembered_are_bounded() {
        let mut limits = Limits::default();
        let now = Instant::now();
        for nth in 0..2 * SOURCES as u32 {
            limits.wrong(IpAddr::V4(nth.into()), now);
        }
        assert_eq!(limits.sources.len(), SOURCES);
        limits.wrong(address("10.0.0.9"), now + FORGOTTEN * 7);
        assert_eq!(limits.sources.len(), 1);
    }
}
