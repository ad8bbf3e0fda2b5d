//! What was heard on the wire and is worth telling: the same of the same machine once in a while, strangers within
//! bounds, trouble by its kind.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::atomic::Ordering;
use std::time::{Instant, SystemTime};

use super::lately::Lately;
use super::{Desk, Inner, News};
use crate::Mac;
use crate::hostile::Harm;

/// Seconds until the same is told again.
const AGAIN: u64 = 600;
/// What was told, by kind and by whom it is about.
pub(super) type Told = Lately<(Subject, &'static str), (), AGAIN, 4096>;
/// Strangers that are told of one by one within that time: a rack of new machines is, and a thousand invented
/// MACs a second do not push all else out of the events.
const STRANGERS_MAX: usize = 512;

/// Whom an event is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Subject {
    Machine(Mac),
    Relay(Ipv4Addr),
    Address(Ipv4Addr),
}

impl Desk {
    /// Something heard on the wire; the same of the same machine is told once in ten minutes.
    pub fn heard(&self, mac: Option<Mac>, kind: &'static str, text: String) {
        self.heard_once(mac.map(Subject::Machine), kind, text);
    }

    /// Something heard of a relay.
    pub(super) fn heard_of_relay(&self, relay: Ipv4Addr, text: String) {
        self.heard_once(Some(Subject::Relay(relay)), "relay", text);
    }

    /// A kind of trouble goes on.
    pub fn harm(&self, kind: Harm, many: u64, text: String) {
        if self.hostile.seen(kind, many, &text, Instant::now()) {
            let at = SystemTime::now();
            self.tell(News::Heard { mac: None, kind: kind.as_str(), text, at });
        }
    }

    fn too_many_strangers(&self, now: Instant) {
        let text = format!(
            "more than {STRANGERS_MAX} MACs or addresses that the site does not know were heard of within ten \
             minutes: somebody invents them, or very many machines are new; further ones are counted here, and \
             not told one by one"
        );
        if self.hostile.seen(Harm::Unknown, 1, &text, now) {
            let at = SystemTime::now();
            self.tell(News::Heard { mac: None, kind: Harm::Unknown.as_str(), text, at });
        }
    }

    /// A report from another address than its boot's.
    pub(super) fn not_its_own(&self, peer: IpAddr) {
        let text = format!(
            "{peer} reports for boots that are not its own, or that nobody knows: it is not believed"
        );
        self.harm(Harm::Reports, 1, text);
    }

    pub(super) fn heard_once(&self, subject: Option<Subject>, kind: &'static str, text: String) {
        let mac = match subject {
            Some(Subject::Machine(mac)) => Some(mac),
            _ => None,
        };
        if let Some(subject) = subject {
            let mut inner = self.inner();
            let now = Instant::now();
            if inner.heard.get(&(subject, kind), now).is_some() {
                return;
            }
            // Strangers without end must not silence what is heard of the site's own machines.
            let stranger = mac.is_none_or(|mac| !self.site.load().machines.contains_key(&mac));
            if !inner.heard.room(now) && stranger {
                self.lost.fetch_add(1, Ordering::Relaxed);
                return;
            }
            if stranger && !inner.tells_of_stranger(now) {
                drop(inner);
                return self.too_many_strangers(now);
            }
            inner.heard.put((subject, kind), (), now);
        }
        self.tell(News::Heard { mac, kind, text, at: SystemTime::now() });
    }
}

impl Inner {
    /// Whether one more stranger is told of by itself.
    fn tells_of_stranger(&mut self, now: Instant) -> bool {
        let recent =
            |(since, _): &(Instant, usize)| now.saturating_duration_since(*since).as_secs() < AGAIN;
        let (since, many) = self.strangers.filter(recent).unwrap_or((now, 0));
        self.strangers = Some((since, many + 1));
        many < STRANGERS_MAX
    }
}
