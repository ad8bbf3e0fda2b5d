//! Numbers of packets that came, so that none is taken twice.
//!
//! IPMI 2.0 §6.12.12–6.12.13: a packet may come late or early by so many, and once.

/// A sliding window over a session's inbound numbers.
#[derive(Debug, Clone)]
pub struct Window {
    top: u32,
    /// Bit `n`: the number `top - n` has come.
    seen: u32,
    reach: u32,
}

impl Window {
    /// The next number is `first`; `reach` (below 32) is how far it may be off.
    pub fn starting(first: u32, reach: u32) -> Window {
        Window { top: first.wrapping_sub(1), seen: u32::MAX, reach: reach.min(31) }
    }

    /// Takes a number, or not: it has come before, or is too far from the others. To be asked only of packets
    /// that are authentic.
    pub fn take(&mut self, number: u32) -> bool {
        if number == 0 {
            return false;
        }
        let ahead = number.wrapping_sub(self.top);
        if (1..=self.reach).contains(&ahead) {
            self.seen = self.seen << ahead | 1;
            self.top = number;
            return true;
        }
        let behind = self.top.wrapping_sub(number);
        if behind > self.reach || self.seen >> behind & 1 == 1 {
            return false;
        }
        self.seen |= 1 << behind;
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn once_and_not_from_afar() {
        let mut window = Window::starting(1, 16);
        assert!(!window.take(0));
        assert!(window.take(1) && !window.take(1));
        assert!(window.take(4) && window.take(2) && window.take(3) && !window.take(2));
        assert!(window.take(20) && !window.take(3) && !window.take(37));
        assert!(window.take(36) && window.take(21) && !window.take(19));
    }

    #[test]
    fn nothing_from_before_it_began() {
        let mut window = Window::starting(0x1000, 8);
        for number in 0x0ff0..0x1000 {
            assert!(!window.take(number), "{number:#x}");
        }
        assert!(window.take(0x1000));
    }

    #[test]
    fn around() {
        let mut window = Window::starting(u32::MAX - 1, 8);
        assert!(window.take(u32::MAX) && window.take(2) && !window.take(0));
        assert!(window.take(1) && window.take(u32::MAX - 1) && !window.take(u32::MAX));
    }
}
