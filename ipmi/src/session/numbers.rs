//! The six-bit numbers of requests (rqSeq), one after the other, and which of them must rest: the late
//! answer to a repetition would be taken for the answer to whatever bears its number next.

use std::time::{Duration, Instant};

/// How long an answer may be late.
const LATE: Duration = Duration::from_secs(15);

/// Who hands them out.
#[derive(Debug)]
pub(super) struct Numbers {
    last: u8,
    resting: [Option<Instant>; 64],
}

impl Numbers {
    /// Starting anywhere.
    pub fn after(last: u8) -> Numbers {
        Numbers { last: last & 0x3f, resting: [None; 64] }
    }

    /// The next one that neither rests nor is on its way.
    pub fn take(&mut self, now: Instant, is_used: impl Fn(u8) -> bool) -> u8 {
        let candidates = (1..=64).map(|step| (self.last + step) & 0x3f);
        let mut oldest: Option<(Instant, u8)> = None;
        for number in candidates.filter(|number| !is_used(*number)) {
            match self.resting[usize::from(number)] {
                Some(until) if until > now => {
                    if oldest.is_none_or(|(other, _)| until < other) {
                        oldest = Some((until, number));
                    }
                }
                _ => {
                    self.last = number;
                    return number;
                }
            }
        }
        // All rest: the one that has longest.
        self.last = oldest.map_or((self.last + 1) & 0x3f, |(_, number)| number);
        self.last
    }

    /// A number was sent more than once, or never answered.
    pub fn rest(&mut self, number: u8, now: Instant) {
        self.resting[usize::from(number & 0x3f)] = Some(now + LATE);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn around_and_past_those_that_rest() {
        let now = Instant::now();
        let mut numbers = Numbers::after(62);
        assert_eq!(numbers.take(now, |_| false), 63);
        assert_eq!(numbers.take(now, |_| false), 0);
        numbers.rest(1, now);
        assert_eq!(numbers.take(now, |number| number == 2), 3);
        let mut numbers = Numbers::after(0);
        assert_eq!(numbers.take(now + LATE, |_| false), 1);
        for number in 0..64 {
            numbers.rest(number, now + Duration::from_secs(u64::from(number ^ 5)));
        }
        assert_eq!(numbers.take(now, |_| false), 5);
    }
}
