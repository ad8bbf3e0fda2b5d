//! The host's clock is set while we run: by NTP after a start with an empty battery, by a hand. What is remembered of
//! when is moved along then, so that every span stays as long as it was; what is written says what the clock said.

use std::time::{Duration, Instant, SystemTime};

use super::{Inner, ms};

/// A clock that is set by less than this is a clock that is kept right.
const STEP: i64 = 10_000;
/// News wait no longer for the ledger, nor does a boot to have begun.
const YOUNG: u64 = 120_000;

/// Both clocks, at one moment.
#[derive(Debug, Clone, Copy)]
pub(super) struct Clock {
    wall: u64,
    mono: Instant,
}

impl Clock {
    pub fn read() -> Clock {
        Clock { wall: ms(SystemTime::now()), mono: Instant::now() }
    }

    /// By how many milliseconds the clock was set since the last look.
    pub fn follow(&mut self, now: Clock) -> Option<i64> {
        let passed = now.mono.saturating_duration_since(self.mono).as_millis();
        let expected = i128::from(self.wall) + i128::try_from(passed).unwrap_or(i128::MAX);
        *self = now;
        let set = i64::try_from(i128::from(now.wall) - expected).unwrap_or(i64::MAX);
        (set.unsigned_abs() > STEP.unsigned_abs()).then_some(set)
    }
}

/// Milliseconds since 1970, of something that has happened just now: a clock that was set between its hearing and its
/// writing makes it neither old nor yet to come.
pub(super) fn just_now(at: SystemTime) -> u64 {
    let now = super::now_ms();
    ms(at).clamp(now.saturating_sub(YOUNG), now)
}

/// What a clock was set by, for people.
pub(super) fn says(set: i64) -> String {
    let span = Duration::from_millis(set.unsigned_abs());
    let span = crate::ops::table::ago(u64::try_from(span.as_millis()).unwrap_or(u64::MAX));
    let way = if set < 0 { "back" } else { "forward" };
    format!(
        "the clock of this host was set {way} by {span}: what is written from here on goes by it, and nothing ends or \
         lasts for that"
    )
}

impl Inner {
    /// A boot's place in the order of all.
    pub(super) fn next(&mut self, opened: u64) -> u64 {
        self.order = opened.max(self.order.saturating_add(1));
        self.order
    }

    /// Once for every look at what is remembered.
    pub(super) fn follow_clock(&mut self, now: Clock) {
        let Some(set) = self.clock.follow(now) else { return };
        let moved = |at: &mut u64| *at = at.saturating_add_signed(set);
        moved(&mut self.began);
        self.heard.values_mut().for_each(moved);
        self.ghosts.values_mut().for_each(|ghost| {
            moved(&mut ghost.heard);
            moved(&mut ghost.told.1);
        });
        // Not when they were opened: that is what they are known by on disk.
        self.boots
            .values_mut()
            .flat_map(|boot| &mut boot.marks)
            .for_each(|mark| moved(&mut mark.at));
        self.orders.clock_was_set(set);
        self.set = Some(self.set.unwrap_or(0).saturating_add(set));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_that_is_set_is_seen_and_one_that_is_kept_right_is_not() {
        let begun = Instant::now();
        let at = |wall, seconds| Clock { wall, mono: begun + Duration::from_secs(seconds) };
        let mut clock = at(1_000_000, 0);
        assert_eq!(clock.follow(at(1_060_000, 60)), None);
        assert_eq!(clock.follow(at(1_062_000, 61)), None, "NTP slews");
        const YEAR: u64 = 365 * 86_400_000;
        assert_eq!(clock.follow(at(1_063_000 + YEAR, 62)), Some(YEAR as i64));
        assert_eq!(clock.follow(at(1_064_000 + YEAR, 63)), None);
        assert_eq!(clock.follow(at(1_065_000, 64)), Some(-(YEAR as i64)));
        assert_eq!(clock.follow(at(0, 65)), Some(-1_066_000), "before 1970 it is 1970");
        assert!(says(-(YEAR as i64)).contains("back by"));
    }

    #[test]
    fn what_has_just_happened_is_neither_old_nor_to_come() {
        let (now, year) = (SystemTime::now(), Duration::from_secs(365 * 86_400));
        let close = |at| just_now(at).abs_diff(ms(now)) <= YOUNG + 1000;
        assert!(close(now) && close(now - year) && close(now + year));
    }
}
