//! The host's clock is set while leases are in force: by NTP after a start with an empty battery, by a hand. Deadlines
//! run on the other clock and do not mind. What is written down says when it ends by the clock of then, and a server
//! that starts after it would take all of it for over, or for long to come: the journal is told of it, once for all.

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};

use super::lease::Now;
use super::server::Ticket;

/// A clock that is set by less than this many seconds is a clock that is kept right.
const STEP: u64 = 10;
/// Sets that wait for a journal that takes them.
const WAITING: usize = 64;

/// The host's clock was set.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClockSet {
    /// What it would have said, in Unix seconds.
    pub was: u64,
    /// What it says.
    pub is: u64,
    /// The last lease that was written by the former time.
    pub serial: u64,
}

impl ClockSet {
    /// The end of what is lent for so many seconds at most: as far away as it was, as a server that had started a
    /// moment before would have counted it.
    pub(super) fn end(&self, ends: u64, most: u64) -> u64 {
        match ends.checked_sub(self.was) {
            None | Some(0) => ends.min(self.is),
            Some(left) => self.is.saturating_add(left.min(most)),
        }
    }
}

/// The clock, and what the journal is to know of it.
#[derive(Debug)]
pub(super) struct Clock {
    /// Both clocks, as they were when they last agreed.
    agreed: Now,
    /// What the journal does not have yet: one after the other, as each goes by the one before.
    waiting: VecDeque<ClockSet>,
    writing: Option<Ticket>,
}

impl Clock {
    pub fn new(now: Now) -> Clock {
        Clock { agreed: now, waiting: VecDeque::new(), writing: None }
    }

    /// Looks at it. Leases up to this one have been written. Whether it was set.
    pub fn follow(&mut self, now: Now, serial: u64) -> bool {
        let passed = now.mono.saturating_duration_since(self.agreed.mono).as_secs();
        let was = self.agreed.wall.saturating_add(passed);
        if was.abs_diff(now.wall) <= STEP {
            return false;
        }
        self.agreed = now;
        if self.waiting.len() < WAITING {
            self.waiting.push_back(ClockSet { was, is: now.wall, serial });
        }
        true
    }

    /// What is to be written now; say [`Clock::writing`] then.
    pub fn due(&self) -> Option<ClockSet> {
        self.waiting.front().filter(|_| self.writing.is_none()).copied()
    }

    /// It is on its way to the journal.
    pub fn writing(&mut self, ticket: Ticket) {
        self.writing = Some(ticket);
    }

    /// What became of a change.
    pub fn committed(&mut self, ticket: Ticket, ok: bool) {
        if self.writing == Some(ticket) {
            self.writing = None;
            if ok {
                self.waiting.pop_front();
            }
        }
    }

    /// Whether the journal has it all.
    pub fn is_idle(&self) -> bool {
        self.waiting.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::*;

    #[test]
    fn a_clock_that_is_set_is_seen_once_however_slowly() {
        let begun = Instant::now();
        let at = |wall, seconds| Now { mono: begun + Duration::from_secs(seconds), wall };
        let mut clock = Clock::new(at(1000, 0));
        assert!(!clock.follow(at(1060, 60), 1));
        assert!(!clock.follow(at(1076, 66), 1), "NTP slews");
        assert!(clock.follow(at(1081, 70), 1), "but not for ever");
        assert!(clock.follow(at(31_000_000, 80), 7));
        assert!(!clock.follow(at(31_000_001, 81), 7));
        assert!(clock.follow(at(0, 82), 7));
        let sets = [(1070, 1081, 1), (1091, 31_000_000, 7), (31_000_002, 0, 7)];
        assert!(clock.waiting.iter().map(|set| (set.was, set.is, set.serial)).eq(sets));
        (1..1000).for_each(|n| assert!(clock.follow(at(n * 1000, 83), n)));
        assert_eq!(clock.waiting.len(), WAITING);
    }

    #[test]
    fn what_is_left_stays_as_long_as_it_was() {
        for (was, is) in [(1000, 9_000_000), (9_000_000, 1000), (0, u64::MAX)] {
            let set = ClockSet { was, is, serial: 0 };
            assert_eq!(set.end(was + 30, 3600), is.saturating_add(30));
            assert_eq!(set.end(was + 4000, 3600), is.saturating_add(3600), "of a clock before it");
            assert!(set.end(was, 3600) <= is, "over is over");
            assert!(set.end(was.saturating_sub(9), 3600) <= is);
        }
    }
}
