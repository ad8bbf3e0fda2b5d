//! How long to wait before asking again: a rack that loses its appliance must not come back as one
//! thundering herd.

use std::hash::{BuildHasher, Hasher, RandomState};
use std::time::Duration;

const LONGEST: u64 = 30;

/// The pause after the `failures`-th failure in a row, from 1: 1, 2, 4 … 30 s, a quarter more or less.
pub fn pause(failures: u32, random: u64) -> Duration {
    let seconds = 1u64.checked_shl(failures.saturating_sub(1)).unwrap_or(LONGEST).clamp(1, LONGEST);
    jitter(Duration::from_secs(seconds), random)
}

/// `span`, a quarter more or less.
pub fn jitter(span: Duration, random: u64) -> Duration {
    let permille = 750 + random % 501;
    Duration::from_millis(
        u64::try_from(span.as_millis()).unwrap_or(u64::MAX).saturating_mul(permille) / 1000,
    )
}

/// A number that another machine does not draw at the same time.
pub fn random() -> u64 {
    RandomState::new().build_hasher().finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn doubles_up_to_half_a_minute() {
        let middle = 250;
        let seconds: Vec<u64> = (0..8).map(|n| pause(n, middle).as_secs()).collect();
        assert_eq!(seconds, [1, 1, 2, 4, 8, 16, 30, 30]);
        assert_eq!(pause(u32::MAX, middle).as_secs(), 30);
    }

    #[test]
    fn jitter_stays_within_a_quarter() {
        for random in [0, 1, 250, 500, 501, u64::MAX] {
            let wait = pause(3, random);
            assert!(wait >= Duration::from_secs(3) && wait <= Duration::from_secs(5), "{wait:?}");
        }
    }
}
