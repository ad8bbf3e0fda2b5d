//! What was heard, told or asked a while ago, so that the same is not told or answered again: within bounds, and
//! whoever sends a thousand invented names a second costs no walk through all of them for each.

use std::collections::HashMap;
use std::hash::Hash;
use std::time::{Duration, Instant};

/// Seconds until it is looked again for what is over, where there is no room.
const SWEEP: u64 = 1;

/// Things that are remembered for some seconds, each by its name, with room for `MOST`.
#[derive(Debug)]
pub(super) struct Lately<K, V, const SECONDS: u64, const MOST: usize> {
    known: HashMap<K, (Instant, V)>,
    swept: Option<Instant>,
}

impl<K, V, const SECONDS: u64, const MOST: usize> Default for Lately<K, V, SECONDS, MOST> {
    fn default() -> Self {
        Lately { known: HashMap::new(), swept: None }
    }
}

impl<K: Eq + Hash, V, const SECONDS: u64, const MOST: usize> Lately<K, V, SECONDS, MOST> {
    /// What is remembered of it.
    pub fn get(&self, key: &K, now: Instant) -> Option<&V> {
        let (at, value) = self.known.get(key)?;
        recent(*at, SECONDS, now).then_some(value)
    }

    /// Whether there is room for one more.
    pub fn room(&mut self, now: Instant) -> bool {
        let due = self.swept.is_none_or(|swept| !recent(swept, SWEEP, now));
        if self.known.len() >= MOST && due {
            self.swept = Some(now);
            self.known.retain(|_, (at, _)| recent(*at, SECONDS, now));
        }
        self.known.len() < MOST
    }

    /// Remembers it from now on, room or not.
    pub fn put(&mut self, key: K, value: V, now: Instant) {
        self.known.insert(key, (now, value));
    }
}

fn recent(at: Instant, seconds: u64, now: Instant) -> bool {
    now.saturating_duration_since(at) < Duration::from_secs(seconds)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_remembered_for_its_time_and_looked_for_room_once_a_second() {
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        let mut lately = Lately::<_, _, 10, 3>::default();
        for name in ["a", "b", "c"] {
            assert!(lately.room(at(0)));
            lately.put(name, name.len(), at(0));
        }
        assert_eq!((lately.get(&"a", at(9_999)), lately.get(&"a", at(10_000))), (Some(&1), None));
        assert_eq!(lately.get(&"d", at(0)), None);
        // All are over half a second after it was looked for what is.
        assert!(!lately.room(at(9_500)));
        assert!(!lately.room(at(10_400)));
        assert!(lately.room(at(10_500)));
        // Who has to be remembered is, however many there are; and again from the last time on.
        for name in ["a", "b", "c", "d"] {
            lately.put(name, 2, at(10_500));
        }
        lately.put("a", 3, at(15_000));
        assert!(!lately.room(at(15_000)));
        assert!(lately.room(at(20_500)));
        assert_eq!((lately.get(&"a", at(20_500)), lately.get(&"d", at(20_500))), (Some(&3), None));
    }
}
