//! What the journal of leases amounts to, all its changes taken together: what a server that starts
//! takes up, and what is left to believe where the host itself lost its power.

use std::collections::{BTreeMap, HashMap};
use std::net::Ipv4Addr;

use serde::{Deserialize, Serialize};

use super::ahead::{Ahead, Doubt};
use super::clock::ClockSet;
use super::lease::{ClientKey, LeaseRecord, SLACK};

/// What the journal has to do. The order of changes is their order in time.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum LeaseChange {
    /// Write, over any former record of the same key.
    Put(LeaseRecord),
    /// Forget that it has this address. (It may be on its way to another one.)
    Delete(ClientKey, Ipv4Addr),
    /// From here on these addresses are lent ahead of the disk, over what was said of their pool
    /// before; none of them where it names no stripe.
    Ahead(Ahead),
    /// These may be lent, and nobody knows to whom.
    Doubt(Doubt),
    /// What is before it goes by another clock.
    Clock(ClockSet),
}

/// See the module.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Kept {
    /// The last record of each machine.
    pub leases: HashMap<ClientKey, LeaseRecord>,
    /// By first and last address of the pool.
    pub ahead: BTreeMap<(Ipv4Addr, Ipv4Addr), Ahead>,
    /// The same.
    pub doubts: BTreeMap<(Ipv4Addr, Ipv4Addr), Doubt>,
    /// When the last lease was written, in Unix seconds.
    written: u64,
}

impl Kept {
    /// One change more.
    pub fn apply(&mut self, change: LeaseChange) {
        match change {
            LeaseChange::Put(record) => {
                let ours = u64::from(record.seconds) + u64::from(SLACK);
                self.written = record.expires.saturating_sub(ours);
                self.leases.insert(record.key, record);
            }
            LeaseChange::Delete(key, address) => {
                if self.leases.get(&key).is_some_and(|lease| lease.address == address) {
                    self.leases.remove(&key);
                }
            }
            LeaseChange::Ahead(ahead) if ahead.stripes == 0 => {
                self.ahead.remove(&(ahead.first, ahead.last));
            }
            LeaseChange::Ahead(ahead) => {
                self.ahead.insert((ahead.first, ahead.last), ahead);
            }
            LeaseChange::Doubt(doubt) => {
                let all = self.doubts.entry((doubt.first, doubt.last)).or_insert(doubt);
                all.stripes |= doubt.stripes;
                all.seconds = all.seconds.max(doubt.seconds);
                all.until = all.until.max(doubt.until);
            }
            LeaseChange::Clock(set) => self.set(set),
        }
    }

    fn set(&mut self, set: ClockSet) {
        let ours = |seconds| u64::from(seconds) + u64::from(SLACK);
        for lease in self.leases.values_mut().filter(|lease| lease.serial <= set.serial) {
            lease.expires = set.end(lease.expires, ours(lease.seconds));
        }
        for doubt in self.doubts.values_mut() {
            doubt.until = set.end(doubt.until, ours(doubt.seconds));
        }
        self.written = set.is.saturating_sub(set.was.saturating_sub(self.written));
    }

    /// Changes between these and the last ones could not be read: what is said of a pool since then
    /// takes nothing back.
    pub fn apply_after_gap(&mut self, change: LeaseChange) {
        let change = match change {
            LeaseChange::Ahead(ahead) => match self.ahead.get(&(ahead.first, ahead.last)) {
                Some(known) => LeaseChange::Ahead(Ahead {
                    stripes: known.stripes | ahead.stripes,
                    seconds: known.seconds.max(ahead.seconds),
                    ..ahead
                }),
                None => LeaseChange::Ahead(ahead),
            },
            other => other,
        };
        self.apply(change);
    }

    /// The host went down and what was written last may not have reached the disk, at this Unix time
    /// or before. A lease in force may have been confirmed once more; an address that was to be lent ahead of the disk
    /// may have been. Both for as long as leases go.
    pub fn lose_power(&mut self, wall: u64) {
        for lease in self.leases.values_mut().filter(|lease| lease.expires >= self.written) {
            let ours = u64::from(lease.seconds) + u64::from(SLACK);
            lease.expires = lease.expires.max(wall.saturating_add(ours));
        }
        for ahead in std::mem::take(&mut self.ahead).into_values() {
            self.apply(LeaseChange::Doubt(ahead.doubt(wall)));
        }
    }

    /// The changes that amount to this, once the server of before is gone: it lends nothing ahead of
    /// the disk any more, and a doubt that has passed by this Unix time is none.
    pub fn restart(&mut self, wall: u64) {
        self.ahead.clear();
        self.doubts.retain(|_, doubt| doubt.until > wall);
    }

    /// The fewest changes that amount to this.
    pub fn changes(&self) -> impl Iterator<Item = LeaseChange> {
        let ahead = self.ahead.values().copied().map(LeaseChange::Ahead);
        let doubts = self.doubts.values().copied().map(LeaseChange::Doubt);
        let mut leases: Vec<&LeaseRecord> = self.leases.values().collect();
        leases.sort_by_key(|lease| lease.serial);
        let leases = leases.into_iter().cloned().map(LeaseChange::Put);
        ahead.chain(doubts).chain(leases)
    }
}

impl FromIterator<LeaseRecord> for Kept {
    fn from_iter<I: IntoIterator<Item = LeaseRecord>>(records: I) -> Kept {
        let mut records: Vec<LeaseRecord> = records.into_iter().collect();
        records.sort_by_key(|record| record.serial);
        let mut kept = Kept::default();
        records.into_iter().map(LeaseChange::Put).for_each(|change| kept.apply(change));
        kept
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Mac;

    fn lease(last: u8, expires: u64, serial: u64) -> LeaseRecord {
        LeaseRecord {
            key: ClientKey { htype: 1, mac: Mac([2, 0, 0, 0, 0, last]) },
            address: Ipv4Addr::new(10, 0, 0, last),
            seconds: 3600,
            expires,
            serial,
        }
    }

    fn ahead(stripes: u16) -> Ahead {
        let (first, last) = (Ipv4Addr::new(10, 0, 0, 0), Ipv4Addr::new(10, 0, 0, 99));
        Ahead { first, last, stripes, seconds: 3600 }
    }

    #[test]
    fn a_loss_of_power_ends_no_lease_that_may_have_been_confirmed() {
        let mut kept = Kept::from_iter([lease(1, 5000, 1), lease(2, 20_000, 2)]);
        kept.apply(LeaseChange::Ahead(ahead(0b110)));
        kept.lose_power(90_000);
        let expires = |last| kept.leases[&lease(last, 0, 0).key].expires;
        assert_eq!(expires(2), 93_602, "written at 16,398, and who knows what came after");
        assert_eq!(expires(1), 5000, "that was over by then");
        assert!(kept.ahead.is_empty());
        let doubt = kept.doubts.values().next().expect("one");
        assert_eq!((doubt.stripes, doubt.until), (0b110, 93_602));
        // And again, before that has passed.
        kept.apply(LeaseChange::Ahead(ahead(1)));
        kept.lose_power(91_000);
        let doubt = kept.doubts.values().next().expect("one");
        assert_eq!((doubt.stripes, doubt.until), (0b111, 94_602));
        kept.restart(94_601);
        assert_eq!(kept.doubts.len(), 1);
        kept.restart(94_602);
        assert!(kept.doubts.is_empty());
    }

    #[test]
    fn a_clock_that_was_set_moves_what_was_before() {
        let mut kept = Kept::from_iter([lease(1, 5000, 1), lease(2, 20_000, 2), lease(3, 500, 4)]);
        kept.apply(LeaseChange::Doubt(ahead(1).doubt(15_000)));
        kept.apply(LeaseChange::Clock(ClockSet { was: 17_000, is: 1000, serial: 3 }));
        let expires = |last| kept.leases[&lease(last, 0, 0).key].expires;
        assert_eq!([1, 2, 3].map(expires), [1000, 4000, 500], "over, 3,000 s left, and after it");
        assert_eq!(kept.doubts.values().map(|doubt| doubt.until).next(), Some(2602));
        // What may have been confirmed is known as before.
        let mut kept = Kept::from_iter([lease(1, 16_000, 1), lease(2, 20_000, 2)]);
        kept.apply(LeaseChange::Clock(ClockSet { was: 17_000, is: 90_000, serial: 2 }));
        kept.lose_power(91_000);
        let expires = |last| kept.leases[&lease(last, 0, 0).key].expires;
        assert_eq!([1, 2].map(expires), [16_000, 94_602]);
    }

    #[test]
    fn the_fewest_changes_amount_to_the_same() {
        let mut kept = Kept::default();
        for change in [
            LeaseChange::Put(lease(1, 100, 1)),
            LeaseChange::Ahead(ahead(1)),
            LeaseChange::Put(lease(2, 9000, 2)),
            LeaseChange::Doubt(ahead(4).doubt(7)),
            LeaseChange::Put(lease(1, 200, 3)),
            LeaseChange::Put(lease(3, 9000, 4)),
            LeaseChange::Delete(lease(2, 0, 0).key, lease(2, 0, 0).address),
            LeaseChange::Delete(lease(1, 0, 0).key, lease(2, 0, 0).address),
        ] {
            kept.apply(change);
        }
        let mut again = Kept::default();
        kept.changes().for_each(|change| again.apply(change));
        assert_eq!(again, kept);
        assert_eq!(kept.changes().count(), 4);
        kept.apply(LeaseChange::Ahead(ahead(0)));
        assert!(kept.ahead.is_empty());
    }

    #[test]
    fn after_a_gap_nothing_is_taken_back() {
        let mut kept = Kept::default();
        kept.apply(LeaseChange::Ahead(ahead(0b11)));
        kept.apply_after_gap(LeaseChange::Ahead(ahead(0)));
        assert_eq!(kept.ahead.values().next().map(|ahead| ahead.stripes), Some(0b11));
        kept.apply_after_gap(LeaseChange::Ahead(ahead(0b100)));
        assert_eq!(kept.ahead.values().next().map(|ahead| ahead.stripes), Some(0b111));
    }
}
