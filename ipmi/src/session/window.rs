//! Which packet numbers of the peer have been seen: each is taken once, late ones within reason.
//!
//! IPMI 2.0 §6.12.13–14. The specification would have a packet refused that is more than 15 ahead; here
//! any is taken that lies ahead, as after a burst that was lost whole nothing would ever be in range
//! again, and only packets whose signature holds come here.

/// How far behind the newest a number may be.
const BEHIND: u32 = 64;

/// The numbers seen.
#[derive(Debug, Clone, Default)]
pub struct Window {
    newest: Option<u32>,
    /// Bit n: `newest - n` was seen.
    seen: u64,
}

impl Window {
    /// Whether a number is new, which it then no longer is.
    pub fn take(&mut self, number: u32) -> bool {
        let Some(newest) = self.newest else {
            (self.newest, self.seen) = (Some(number), 1);
            return true;
        };
        let ahead = number.wrapping_sub(newest);
        if ahead == 0 {
            return false;
        }
        if ahead < 1 << 31 {
            self.seen = self.seen.checked_shl(ahead).unwrap_or(0) | 1;
            self.newest = Some(number);
            return true;
        }
        let behind = newest.wrapping_sub(number);
        if behind >= BEHIND || self.seen & 1 << behind != 0 {
            return false;
        }
        self.seen |= 1 << behind;
        true
    }
}

/// The next number of one's own: 0 means "outside a session" and is passed over.
pub fn next(number: u32) -> u32 {
    match number.wrapping_add(1) {
        0 => 1,
        next => next,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_once_in_any_order() {
        let mut window = Window::default();
        assert!(window.take(1) && !window.take(1));
        assert!(window.take(4) && window.take(2) && window.take(3));
        assert!(!window.take(2) && !window.take(4));
        assert!(window.take(1000) && !window.take(4));
        assert!(window.take(1000 - 63) && !window.take(1000 - 64));
    }

    #[test]
    fn around_the_end() {
        let mut window = Window::default();
        assert!(window.take(u32::MAX - 1) && window.take(1) && window.take(u32::MAX));
        assert!(!window.take(u32::MAX) && !window.take(1) && window.take(2));
        assert_eq!((next(u32::MAX), next(7)), (1, 8));
    }

    proptest::proptest! {
        #[test]
        fn never_the_same_twice(start: u32, steps in proptest::collection::vec(-70i32..70, 0..200)) {
            let mut window = Window::default();
            let mut taken = std::collections::HashSet::new();
            for step in steps {
                let number = start.wrapping_add_signed(step);
                if window.take(number) {
                    proptest::prop_assert!(taken.insert(number));
                }
            }
        }
    }
}
