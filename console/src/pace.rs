//! When a line is opened again. Each waits longer from time to time, and the longer the shorter it stayed up;
//! and all of them together are opened at a bounded rate, such that a room that got its power back is not met by
//! two thousand at once. Without a clock: whoever asks says what time it is.

use std::sync::Mutex;
use std::time::{Duration, Instant};

use crate::line::locked;

/// A line that was up for so long was steady: what was before does not count any more.
const STEADY: Duration = Duration::from_secs(60);

/// Turns for all lines of a process, one behind the other: a bucket of tokens that fills at a steady rate.
#[derive(Debug)]
pub struct Pace {
    /// Between two turns.
    between: Duration,
    /// So many may have theirs at once, when none was asked for lately.
    burst: u32,
    /// When the bucket would be full: each turn puts it off.
    full: Mutex<Option<Instant>>,
}

impl Pace {
    /// So many turns a second, and so many at once.
    pub fn new(a_second: u32, burst: u32) -> Pace {
        let between = Duration::from_secs(1) / a_second.max(1);
        Pace { between, burst: burst.max(1), full: Mutex::default() }
    }

    /// Takes a turn: how long it is until then. Nought: now.
    pub fn turn(&self, now: Instant) -> Duration {
        let mut full = locked(&self.full);
        let next = full.map_or(now, |full| full.max(now)) + self.between;
        *full = Some(next);
        let ahead = self.between * self.burst;
        next.saturating_duration_since(now).saturating_sub(ahead)
    }
}

impl Default for Pace {
    /// Two thousand lines within twenty seconds.
    fn default() -> Pace {
        Pace::new(100, 100)
    }
}

/// One line's wait before it is opened again: twice as long each time, until it was steady.
#[derive(Debug, Default)]
pub(crate) struct Backoff {
    wait: Duration,
}

impl Backoff {
    /// The wait before the next attempt; nought at first.
    pub fn wait(&self) -> Duration {
        self.wait
    }

    /// It could not be opened, for a cause that asks for waits between these two.
    pub fn failed(&mut self, (first, most): (Duration, Duration)) {
        self.wait = (self.wait * 2).clamp(first, most);
    }

    /// It was open for so long, and is not any more.
    pub fn lost(&mut self, after: Duration, waits: (Duration, Duration)) {
        if after >= STEADY {
            self.wait = Duration::ZERO;
        }
        self.failed(waits);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn a_room_that_lost_its_power_comes_back_in_turn() {
        let pace = Pace::new(100, 100);
        let now = Instant::now();
        let waits: Vec<_> = (0..2000).map(|_| pace.turn(now)).collect();
        assert!(waits[..100].iter().all(Duration::is_zero));
        assert_eq!(waits[100], 10 * MS);
        assert_eq!(waits[1999], Duration::from_secs(19));
        // Whoever comes ten seconds later stands behind them.
        assert_eq!(pace.turn(now + Duration::from_secs(10)), Duration::from_millis(9010));
        // And when all had theirs, a hundred may go at once again, and not more.
        let later = now + Duration::from_secs(3600);
        let waits: Vec<_> = (0..101).map(|_| pace.turn(later)).collect();
        assert!(waits[..100].iter().all(Duration::is_zero));
        assert_eq!(waits[100], 10 * MS);
    }

    #[test]
    fn a_line_that_comes_and_goes_waits_longer_and_a_steady_one_does_not() {
        let waits = (Duration::from_secs(1), Duration::from_secs(30));
        let mut backoff = Backoff::default();
        assert_eq!(backoff.wait(), Duration::ZERO);
        let mut seen = Vec::new();
        for _ in 0..7 {
            backoff.lost(Duration::from_millis(20), waits);
            seen.push(backoff.wait().as_secs());
        }
        assert_eq!(seen, [1, 2, 4, 8, 16, 30, 30]);
        backoff.lost(STEADY, waits);
        assert_eq!(backoff.wait().as_secs(), 1);
        backoff.failed((Duration::from_secs(40), Duration::from_secs(300)));
        assert_eq!(backoff.wait().as_secs(), 40);
    }

    proptest! {
        /// Never more than the burst and what the rate gives, wherever one looks.
        #[test]
        fn no_more_than_it_says(steps in prop::collection::vec(0u64..200, 1..300)) {
            let (rate, burst) = (50, 10);
            let pace = Pace::new(rate, burst);
            let (begun, mut now) = (Instant::now(), Duration::ZERO);
            let mut turns = Vec::new();
            for step in steps {
                now += MS * u32::try_from(step).unwrap();
                turns.push(now + pace.turn(begun + now));
            }
            prop_assert!(turns.is_sorted());
            for (first, from) in turns.iter().enumerate() {
                let within = turns[first..].iter().filter(|turn| **turn < *from + 1000 * MS).count();
                prop_assert!(within <= (rate + burst) as usize, "{}", within);
            }
        }
    }
}
