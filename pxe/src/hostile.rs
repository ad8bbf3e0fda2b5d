//! What looks as if somebody on the wire meant harm, or as if something were very wrong: what is going on
//! now, since when and how often, for `koboshi status`; and once in ten minutes an event. `docs/hostile.md`
//! lists the kinds and their limits.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use serde::{Deserialize, Serialize};

/// What was seen within this time goes on; told again as an event no sooner.
pub const GOES_ON: Duration = Duration::from_secs(600);

/// Kinds of trouble.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Harm {
    /// Machines that the site does not know would have more of a pool than they may.
    Strangers,
    /// More MACs that the site does not know than are told one by one.
    Unknown,
    /// Addresses of the pool are taken by ARP or by DECLINE, more than may rest.
    Conflicts,
    /// DHCP messages in the name of a machine that runs.
    Forged,
    /// Files are asked for by TFTP by somebody who takes none.
    Tftp,
    /// Connections over HTTP that ask nothing, or more than one address may have.
    Http,
    /// Reports for boots that are over, never were, or are another machine's.
    Reports,
    /// Log messages that were dropped.
    Syslog,
}

impl Harm {
    /// As events are called, and `--json` has it.
    pub fn as_str(self) -> &'static str {
        match self {
            Harm::Strangers => "strangers",
            Harm::Unknown => "unknown",
            Harm::Conflicts => "conflicts",
            Harm::Forged => "forged",
            Harm::Tftp => "tftp",
            Harm::Http => "http",
            Harm::Reports => "reports",
            Harm::Syslog => "syslog",
        }
    }
}

/// One kind of trouble, that goes on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Trouble {
    /// Which.
    pub kind: Harm,
    /// What was seen last, in words.
    pub text: String,
    /// How often, since it began.
    pub count: u64,
    /// Unix milliseconds of when it began …
    pub since: u64,
    /// … and of when it was seen last.
    pub last: u64,
}

/// See the module. One entry for each kind.
#[derive(Debug, Default)]
pub struct Hostile(Mutex<BTreeMap<Harm, Seen>>);

#[derive(Debug)]
struct Seen {
    trouble: Trouble,
    at: Instant,
    told: Instant,
}

impl Hostile {
    /// Something was seen, so often. True where it is to be told as an event.
    pub fn seen(&self, kind: Harm, many: u64, text: &str, now: Instant) -> bool {
        let wall = unix_ms();
        let mut all = self.all();
        let over = |at: Instant| now.saturating_duration_since(at) >= GOES_ON;
        match all.get_mut(&kind).filter(|seen| !over(seen.at)) {
            Some(seen) => {
                seen.at = now;
                seen.trouble.last = wall;
                seen.trouble.count = seen.trouble.count.saturating_add(many);
                let tell = over(seen.told);
                if tell || seen.trouble.text != text {
                    seen.trouble.text = text.to_string();
                }
                if tell {
                    seen.told = now;
                }
                tell
            }
            None => {
                let text = text.to_string();
                let trouble = Trouble { kind, text, count: many, since: wall, last: wall };
                all.insert(kind, Seen { trouble, at: now, told: now });
                true
            }
        }
    }

    /// What goes on.
    pub fn now(&self, now: Instant) -> Vec<Trouble> {
        let all = self.all();
        let recent = |seen: &&Seen| now.saturating_duration_since(seen.at) < GOES_ON;
        all.values().filter(recent).map(|seen| seen.trouble.clone()).collect()
    }

    fn all(&self) -> MutexGuard<'_, BTreeMap<Harm, Seen>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn unix_ms() -> u64 {
    let since = SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_told_once_counted_always_and_over_after_a_while() {
        let (hostile, begun) = (Hostile::default(), Instant::now());
        let at = |seconds| begun + Duration::from_secs(seconds);
        assert!(hostile.seen(Harm::Tftp, 1, "one", at(0)));
        assert!(!hostile.seen(Harm::Tftp, 5, "two", at(1)));
        assert!(hostile.seen(Harm::Http, 1, "other", at(2)));
        let now = hostile.now(at(3));
        let found: Vec<_> =
            now.iter().map(|one| (one.kind, one.count, one.text.as_str())).collect();
        assert_eq!(found, [(Harm::Tftp, 6, "two"), (Harm::Http, 1, "other")]);
        assert!(!hostile.seen(Harm::Tftp, 1, "three", at(599)));
        assert!(hostile.seen(Harm::Tftp, 1, "still", at(600)), "it goes on, and is told again");
        assert_eq!(hostile.now(at(700)).len(), 1, "the other one is over");
        assert!(hostile.seen(Harm::Tftp, 1, "anew", at(2000)));
        assert_eq!(hostile.now(at(2000))[0].count, 1);
    }
}
