//! How many there are now of what several ports serve together: connections, transfers. Each port says how many are its
//! own.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// One port's part of a number; given back when it is dropped.
pub(crate) struct Share<Counters> {
    counters: Arc<Counters>,
    of: fn(&Counters) -> &AtomicU64,
    own: u64,
}

impl<Counters> Share<Counters> {
    /// Nothing yet of this one of the counters.
    pub(crate) fn new(counters: Arc<Counters>, of: fn(&Counters) -> &AtomicU64) -> Self {
        Share { counters, of, own: 0 }
    }

    /// So many are this port's own.
    pub(crate) fn tell(&mut self, own: usize) {
        let own = own as u64;
        let all = (self.of)(&self.counters);
        match own.checked_sub(self.own) {
            Some(more) => all.fetch_add(more, Ordering::Relaxed),
            None => all.fetch_sub(self.own - own, Ordering::Relaxed),
        };
        self.own = own;
    }
}

impl<Counters> Drop for Share<Counters> {
    fn drop(&mut self) {
        self.tell(0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_are_counted_together_and_leave_nothing_behind() {
        let all = Arc::new(AtomicU64::new(0));
        let mut ports = [1, 2].map(|_| Share::new(all.clone(), |all: &AtomicU64| all));
        for (port, own, together) in [(0, 5, 5), (1, 3, 8), (0, 2, 5), (1, 0, 2), (1, 4, 6)] {
            ports[port].tell(own);
            assert_eq!(all.load(Ordering::Relaxed), together);
        }
        drop(ports);
        assert_eq!(all.load(Ordering::Relaxed), 0);
    }
}
