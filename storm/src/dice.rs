//! Everything random in a storm, from one seed: power-on, think times, losses, who is slow. The same
//! seed draws the same; what the server's answers make of it is the server's.

use std::time::Duration;

/// SplitMix64 (Steele, Lea and Flood 2014): small, and good enough to lose packets by.
#[derive(Debug, Clone)]
pub struct Dice(u64);

impl Dice {
    /// Dice of one machine, or of the wire.
    pub fn new(seed: u64, whose: u64) -> Dice {
        let mut dice = Dice(seed ^ whose.wrapping_mul(0xd134_2543_de82_ef95));
        dice.draw();
        dice
    }

    /// Any number.
    pub fn draw(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// True in so many of a million.
    pub fn chance(&mut self, in_a_million: u32) -> bool {
        in_a_million > 0 && self.draw() % 1_000_000 < u64::from(in_a_million)
    }

    /// Anything from nothing to all of it.
    pub fn within(&mut self, span: Duration) -> Duration {
        span.mul_f64((self.draw() >> 11) as f64 / (1u64 << 53) as f64)
    }

    /// A quarter more or less.
    pub fn about(&mut self, span: Duration) -> Duration {
        span.mul_f64(0.75) + self.within(span / 2)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_seed_draws_the_same_and_machines_differ() {
        let draw = |seed, whose| Dice::new(seed, whose).draw();
        assert_eq!(draw(1, 5), draw(1, 5));
        assert_ne!(draw(1, 5), draw(1, 6));
        assert_ne!(draw(1, 5), draw(2, 5));
    }

    #[test]
    fn what_is_drawn_is_as_likely_as_said() {
        let mut dice = Dice::new(7, 0);
        let lost = (0..100_000).filter(|_| dice.chance(10_000)).count();
        assert!((800..1200).contains(&lost), "{lost} of 100,000 at 1 %");
        assert!(!(0..1000).any(|_| dice.chance(0)));
        let second = Duration::from_secs(1);
        for _ in 0..1000 {
            assert!(dice.within(second) <= second);
            assert!((750..=1250).contains(&dice.about(second).as_millis()));
        }
    }
}
