//! Whose turn it is to fetch, when hundreds of machines ask for their scripts at once. First come,
//! first served, seats before guests; a machine that was sent away and did not come back loses its
//! place after a while, and one that was let in and fell silent makes room.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use super::{Desk, Inner};
use crate::Mac;
use crate::boots::{Boot, Stage};
use crate::pace::{self, Crowd, SHORTEST};

/// A boot that was let in so long ago and has not spoken since fetches no more, whatever became of it …
const LET_IN: Duration = Duration::from_secs(180);
/// … and nor does one whose `koboshi-init` spoke, after this: a large root over a slow wire.
const FETCHING: Duration = Duration::from_secs(600);
/// How late a machine may be for its turn: a lost packet, a slow firmware.
const LATE: Duration = Duration::from_secs(30);

/// Who asks again within this time is at hand ([`Crowd::at_hand`]).
const AT_HAND: Duration = Duration::from_secs(1);
/// So long without anybody told to wait, and a storm is over.
const STORM: Duration = Duration::from_secs(300);

/// What a machine that asks for its script is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Turn {
    /// To fetch.
    Now {
        /// How long it had waited for that, if it had to.
        waited: Option<Duration>,
    },
    /// To ask again.
    Wait {
        /// After so many seconds.
        seconds: u64,
        /// In words.
        says: String,
        /// The same for the event log, the first time in a while.
        storm: Option<String>,
    },
}

/// Who fetches and who waits. All boots are looked at not more often than every [`LOOK`], and what turns
/// themselves change is counted in between: ten thousand machines ask within seconds, and each used to be
/// held against every other.
#[derive(Debug, Default)]
pub(super) struct Queue {
    looked: Option<Instant>,
    fetching: usize,
    /// Of these, who is at it now.
    busy: usize,
    /// In order, each with when it is to ask again.
    waiting: Vec<(Place, Instant)>,
}

/// Guests after seats, then by when they asked first.
type Place = (bool, Instant, Mac);

/// Between two looks who fell silent has a place still.
const LOOK: Duration = Duration::from_millis(100);

impl Queue {
    fn look<'a>(&mut self, boots: impl Iterator<Item = &'a Boot>, now: Instant) {
        if self.looked.is_some_and(|at| now.saturating_duration_since(at) < LOOK) {
            return;
        }
        (self.looked, self.fetching, self.busy) = (Some(now), 0, 0);
        self.waiting.clear();
        for boot in boots {
            if let Some(queued) = boot.queued {
                if now.saturating_duration_since(queued.until) < LATE {
                    let place = (guest(boot), queued.since, boot.mac);
                    self.waiting.push((place, queued.until));
                }
            } else if fetches(boot, now) {
                self.fetching += 1;
                self.busy += usize::from(is_busy(boot));
            }
        }
        self.waiting.sort_unstable();
    }

    /// One that was let in has its root.
    pub(super) fn has_fetched(&mut self) {
        self.fetching = self.fetching.saturating_sub(1);
        self.busy = self.busy.saturating_sub(1);
    }

    /// How many come before it, how many of those are due, and how many at this moment: a guest leaves its room to
    /// every seat.
    fn before(&self, place: &Place, now: Instant) -> (usize, usize, usize) {
        let before = &self.waiting[..self.at(place).unwrap_or_else(|at| at)];
        let (soon, at_hand) = (now + SHORTEST, now + AT_HAND);
        let counts = before.iter().fold((0, 0), |(due, here), ((other, ..), until)| {
            let guest = place.0 != *other;
            (
                due + usize::from(guest || *until <= soon),
                here + usize::from(guest || *until <= at_hand),
            )
        });
        (before.len(), counts.0, counts.1)
    }

    fn at(&self, place: &Place) -> Result<usize, usize> {
        self.waiting.binary_search_by(|(other, _)| other.cmp(place))
    }

    fn enter(&mut self, place: Place, until: Instant) {
        if let Err(at) = self.at(&place) {
            self.waiting.insert(at, (place, until));
        }
    }

    fn leave(&mut self, place: &Place) {
        if let Ok(at) = self.at(place) {
            self.waiting.remove(at);
        }
    }
}

impl Desk {
    pub(super) fn turn(&self, mac: Mac, now: Instant) -> Turn {
        let mut inner = self.inner();
        if let Some(sockets) = self.sockets.get() {
            inner.rate.taken(sockets.sent.load(Ordering::Relaxed), now);
        }
        inner.turn(mac, now, (self.draw)())
    }
}

impl Inner {
    pub(super) fn turn(&mut self, mac: Mac, now: Instant, draw: u64) -> Turn {
        self.queue.look(self.boots.iter(), now);
        let Some(own) = self.boots.of_mut(mac) else { return Turn::Now { waited: None } };
        let since = own.queued.map_or(now, |queued| queued.since);
        let place = (guest(own), since, mac);
        let was_fetching = own.queued.is_none() && fetches(own, now);
        self.queue.leave(&place);
        let was_busy = was_fetching && is_busy(own);
        let fetching = self.queue.fetching.saturating_sub(usize::from(was_fetching));
        let busy = self.queue.busy.saturating_sub(usize::from(was_busy));
        let (queue, (before, due, at_hand)) =
            (self.queue.waiting.len(), self.queue.before(&place, now));
        let (bytes, rate) = (own.bytes(), self.rate.now(now, fetching));
        let crowd = Crowd { fetching, busy, before, due, at_hand, bytes, rate };
        // One that was let in and failed has its place still.
        let pause =
            if was_fetching && own.let_in.is_some() { None } else { pace::pause(&crowd, draw) };
        match pause {
            None => {
                own.let_in = Some(now);
                (self.queue.fetching, self.queue.busy) = (fetching + 1, busy + 1);
                let waited = own.queued.take().map(|_| now.saturating_duration_since(since));
                Turn::Now { waited }
            }
            Some(pause) => {
                let seconds = pause.as_secs();
                let until = now + pause;
                own.queued = Some(crate::boots::Queued { since, until });
                (self.queue.fetching, self.queue.busy) = (fetching, busy);
                self.queue.enter(place, until);
                let all = fetching + queue + 1;
                let says = format!(
                    "{all} machines boot at once, {before} wait before this one; it asks again in {seconds} s"
                );
                let fresh = self.storm.is_none_or(|at| now.saturating_duration_since(at) > STORM);
                self.storm = Some(now);
                let storm = fresh.then(|| {
                    format!("{all} machines boot at once, {fetching} fetch: the others wait for their turn")
                });
                Turn::Wait { seconds, says, storm }
            }
        }
    }
}

/// Without a seat: it comes after those that have one.
fn guest(boot: &Boot) -> bool {
    boot.plan.as_ref().is_none_or(|plan| plan.seat.is_none())
}

/// Between its script and its root.
fn fetches(boot: &Boot, now: Instant) -> bool {
    let since = boot.let_in.unwrap_or(boot.opened);
    let on_its_way = boot.let_in.is_some() || boot.stage >= Stage::Script;
    let patience = if boot.stage >= Stage::Init { FETCHING } else { LET_IN };
    on_its_way
        && boot.queued.is_none()
        && boot.stage != Stage::Waiting
        && boot.stage < Stage::RootReady
        && now.saturating_duration_since(since) < patience
}

/// Its connection is of use now: its kernel is not just starting.
fn is_busy(boot: &Boot) -> bool {
    !matches!(boot.stage, Stage::Initramfs | Stage::Init)
}

#[cfg(test)]
mod tests {
    use std::cmp::Reverse;
    use std::collections::BinaryHeap;
    use std::net::Ipv4Addr;
    use std::sync::Arc;

    use super::*;
    use crate::BootId;
    use crate::boots::{Part, Plan};

    const MB: u64 = 1_000_000;

    fn mac(number: u32) -> Mac {
        let [_, a, b, c] = number.to_be_bytes();
        Mac([2, 0, 0, a, b, c])
    }

    fn boot(number: u32, seat: Option<&str>, now: Instant) -> Boot {
        let part = |size| Part { name: "part".into(), sha256: [0; 32], size };
        let address = Ipv4Addr::from(0x0a4d_0000 + number);
        let plan = Plan {
            machine: format!("m{number}"),
            seat: seat.map(str::to_string),
            role: "web".into(),
            hostname: "web".into(),
            address,
            image: "web@1".into(),
            digest: None,
            kernel: part(10 * MB),
            efi: None,
            segments: vec![],
            roots: vec![part(70 * MB)],
            cmdline: String::new(),
            revision: 1,
            ticket: None,
            orders: String::new(),
            because: None,
            blobs: Vec::new(),
        };
        let mut id = [0; 16];
        id[..4].copy_from_slice(&number.to_be_bytes());
        Boot::begin(BootId(id), mac(number), address, true, Some(Arc::new(plan)), now)
    }

    /// What came of a storm.
    #[derive(Debug)]
    struct Storm {
        /// Seconds until the last one had its root.
        all: u64,
        /// Most that fetched at a time.
        crowd: usize,
        /// Most that asked for a script within one second, after the first.
        asked: usize,
        /// Longest time in the queue.
        waited: u64,
        /// In the order they were let in.
        order: Vec<u32>,
    }

    /// A thousand machines ask in one second; they share `wire` bytes a second. Every tenth is a
    /// guest. Those in `gone` are switched off when they are told to wait.
    fn storm(machines: u32, wire: u64, gone: impl Fn(u32) -> bool) -> Storm {
        let start = Instant::now();
        let mut inner = Inner::default();
        for number in 0..machines {
            inner.boots.open(boot(number, (number % 10 != 0).then_some("web1"), start));
        }
        let mut asks: BinaryHeap<Reverse<(u64, u32)>> =
            (0..machines).map(|number| Reverse((0, number))).collect();
        let mut fetching: Vec<(u32, u64)> = Vec::new();
        let mut seen = Storm { all: 0, crowd: 0, asked: 0, waited: 0, order: Vec::new() };
        let mut draw = 1u64;
        for second in 0..100_000 {
            let now = start + Duration::from_secs(second);
            let mut asked = 0;
            while asks.peek().is_some_and(|Reverse((at, _))| *at <= second) {
                let Some(Reverse((_, number))) = asks.pop() else { break };
                draw = draw.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
                asked += 1;
                match inner.turn(mac(number), now, draw >> 33) {
                    Turn::Now { waited } => {
                        seen.order.push(number);
                        seen.waited = seen.waited.max(waited.unwrap_or_default().as_secs());
                        fetching.push((number, 80 * MB));
                        inner.boots.of_mut(mac(number)).expect("a boot").stage = Stage::Root;
                    }
                    Turn::Wait { seconds, says, .. } => {
                        assert!((5..=20).contains(&seconds), "{says}");
                        if !gone(number) {
                            // Its own restart of the script, and its clock, are a little off.
                            asks.push(Reverse((second + seconds + (draw >> 40) % 2, number)));
                        }
                    }
                }
            }
            if second > 0 {
                seen.asked = seen.asked.max(asked);
            }
            seen.crowd = seen.crowd.max(fetching.len());
            let share = wire / (fetching.len().max(1) as u64);
            fetching.retain_mut(|(number, left)| {
                *left = left.saturating_sub(share);
                if *left == 0 {
                    let boot = inner.boots.of_mut(mac(*number)).expect("a boot");
                    boot.stage = Stage::RootReady;
                    let let_in = boot.let_in.expect("it fetched");
                    inner.rate.fetched(80 * MB, let_in, now);
                }
                *left > 0
            });
            if asks.is_empty() && fetching.is_empty() {
                seen.all = second;
                return seen;
            }
        }
        panic!("somebody waits for ever");
    }

    #[test]
    fn a_thousand_at_once_are_spread_and_all_served() {
        // A gigabit: 80 GB are 800 s at best.
        let seen = storm(1000, 100 * MB, |_| false);
        assert_eq!(seen.order.len(), 1000);
        assert!((800..1000).contains(&seen.all), "the wire is never idle: {}", seen.all);
        assert!(seen.crowd <= 90, "as the best span has it: {}", seen.crowd);
        assert!(seen.asked <= 150, "no thundering herd of 900: {}", seen.asked);
        assert!(seen.waited <= seen.all, "{}", seen.waited);
        // Seats before guests, but for those that were there before the queue was.
        let last = &seen.order[seen.order.len() - 80..];
        assert!(last.iter().filter(|number| *number % 10 == 0).count() >= 70, "{last:?}");

        // Ten gigabits: more at a time, and soon over.
        let seen = storm(1000, 1000 * MB, |_| false);
        assert!(seen.all < 300, "{}", seen.all);
        // A hundred megabits: what was let in before that is known takes its time, then 32 at a time.
        let seen = storm(300, 10 * MB, |_| false);
        assert!(seen.crowd <= 90 && seen.all < 2600, "{} {}", seen.crowd, seen.all);
    }

    #[test]
    fn who_was_switched_off_meanwhile_holds_up_nobody() {
        let seen = storm(1000, 100 * MB, |number| number % 2 == 0);
        assert!(seen.order.len() >= 500, "{}", seen.order.len());
        assert!(seen.all < 600, "{}", seen.all);
    }

    #[test]
    fn few_never_wait_and_a_retry_keeps_its_place() {
        let now = Instant::now();
        let mut inner = Inner::default();
        for number in 0..200 {
            inner.boots.open(boot(number, Some("web1"), now));
        }
        let at_once = |turn: &Turn| *turn == Turn::Now { waited: None };
        assert!((0..32).all(|number| at_once(&inner.turn(mac(number), now, 0))));
        let turns: Vec<Turn> = (32..200).map(|number| inner.turn(mac(number), now, 0)).collect();
        let let_in = turns.iter().filter(|turn| at_once(turn)).count();
        assert_eq!(let_in, 75 - 32, "80 MB each over an assumed gigabit");
        let told = |turn: &&Turn| matches!(turn, Turn::Wait { storm: Some(_), .. });
        assert_eq!(turns.iter().filter(told).count(), 1, "one storm is one event");
        let Some(Turn::Wait { seconds, says, .. }) = turns.last() else { panic!("{turns:?}") };
        assert_eq!(*seconds, 20);
        assert_eq!(
            says,
            "200 machines boot at once, 124 wait before this one; it asks again in 20 s"
        );
        assert!(at_once(&inner.turn(mac(3), now + Duration::from_secs(40), 0)), "its retry");
        assert!(at_once(&inner.turn(mac(4000), now, 0)), "no boot, no queue");
    }
}
