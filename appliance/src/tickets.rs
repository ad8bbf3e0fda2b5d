//! Tickets for browsers: who may open the API's socket makes one, and it lets a browser on the admin address in, once,
//! within a minute, to one machine's console. Without a clock.
//!
//! A browser has no credential of ours, and a cookie would go with every page that tells it to. The ticket stands
//! in the fragment of an address, which browsers send to nobody.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use sha2::{Digest, Sha256};

use crate::rights::Principal;

/// How long one is good.
pub const GOOD: Duration = Duration::from_secs(60);
/// Not used yet, at a time.
const MOST: usize = 256;

/// What one is good for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ticket {
    /// Who made it: whoever comes with it has his rights, and no more.
    pub by: Principal,
    /// Whose console.
    pub machine: String,
    /// Not only to look.
    pub types: bool,
}

/// Those that were made and not used. They are known by their hashes alone.
#[derive(Debug, Default)]
pub struct Tickets(Mutex<HashMap<[u8; 32], (Ticket, Instant)>>);

impl Tickets {
    /// Makes one. None: too many wait to be used, or the system has no random numbers.
    pub fn make(&self, ticket: Ticket, now: Instant) -> Option<String> {
        let mut random = [0; 16];
        getrandom::fill(&mut random).ok()?;
        let text = hex(&random);
        let mut kept = self.kept();
        kept.retain(|_, (_, until)| now < *until);
        if kept.len() >= MOST {
            return None;
        }
        kept.insert(hash(&text), (ticket, now + GOOD));
        Some(text)
    }

    /// Uses one up. None: it was used, it is too old, or it never was.
    pub fn redeem(&self, text: &str, now: Instant) -> Option<Ticket> {
        let (ticket, until) = self.kept().remove(&hash(text))?;
        (now < until).then_some(ticket)
    }

    fn kept(&self) -> MutexGuard<'_, HashMap<[u8; 32], (Ticket, Instant)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn hash(text: &str) -> [u8; 32] {
    Sha256::digest(text.as_bytes()).into()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn good_once_and_not_for_long() {
        let (tickets, now) = (Tickets::default(), Instant::now());
        let by = Principal::Local { uid: 0 };
        let ticket = Ticket { by, machine: "m01".to_string(), types: true };
        let make = |now| tickets.make(ticket.clone(), now);
        let (first, second) = (make(now).unwrap(), make(now).unwrap());
        assert!(first != second && first.len() == 32);
        assert_eq!(tickets.redeem("", now), None);
        assert_eq!(tickets.redeem(&first, now), Some(ticket.clone()));
        assert_eq!(tickets.redeem(&first, now), None, "it was used");
        assert_eq!(tickets.redeem(&second, now + GOOD), None, "it is too old");
        for _ in 0..MOST {
            assert!(make(now).is_some());
        }
        assert_eq!(make(now), None);
        assert!(make(now + GOOD).is_some(), "the old ones made room");
    }
}
