//! Leases: which machine has which address of the pool, what of it survives a `kill -9`, and what
//! is only promised until its owner takes it up.

use std::collections::HashMap;
use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use crate::Mac;

/// The two clocks. Deadlines run on the monotonic one; what is written down needs the other, and
/// may be read after somebody has set it.
#[derive(Debug, Clone, Copy)]
pub struct Now {
    /// Never goes back.
    pub mono: Instant,
    /// Unix seconds, as good as the host's clock.
    pub wall: u64,
}

impl Now {
    /// Both clocks of this host.
    pub fn read() -> Now {
        let wall = std::time::UNIX_EPOCH.elapsed().map_or(0, |elapsed| elapsed.as_secs());
        Now { mono: Instant::now(), wall }
    }
}

/// What a lease is kept under: hardware type and address, never option 61.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct ClientKey {
    /// 1 is Ethernet.
    pub htype: u8,
    /// The machine.
    pub mac: Mac,
}

/// A lease ends for us a little later than for its client, who counts from when it asked: writing
/// it down takes its time too.
pub(super) const SLACK: u32 = 2;

/// A lease as it is written down.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeaseRecord {
    /// Whose.
    pub key: ClientKey,
    /// What.
    pub address: Ipv4Addr,
    /// For how long it was lent, from when it was last confirmed.
    pub seconds: u32,
    /// Unix time of its end, as we count it.
    pub expires: u64,
    /// Rises with every record written. Where two name one address, the later one holds.
    pub serial: u64,
}

/// A lease in force, or one whose end has passed and whose address nobody else has taken yet: a
/// machine that comes back finds its old address.
#[derive(Debug, Clone)]
pub(super) struct Lease {
    pub record: LeaseRecord,
    pub until: Instant,
}

/// The leases, by machine and by address: at most one of each for the other.
#[derive(Debug, Default)]
pub(super) struct Leases {
    by_key: HashMap<ClientKey, Lease>,
    by_address: HashMap<Ipv4Addr, ClientKey>,
}

impl Leases {
    /// Takes up what the journal had. A clock that was set back while nobody looked cannot stretch a
    /// lease beyond the time it was lent for; one set forward ends it early, and the probe that goes
    /// before every new offer covers that. (One that is set while we run does neither: see `clock`.)
    pub fn restore(records: impl IntoIterator<Item = LeaseRecord>, now: Now) -> Leases {
        let mut records: Vec<LeaseRecord> = records.into_iter().collect();
        records.sort_by_key(|record| record.serial);
        let mut leases = Leases::default();
        for record in records {
            let most = u64::from(record.seconds) + u64::from(SLACK);
            let left = record.expires.saturating_sub(now.wall).min(most);
            leases.put(record, now.mono + Duration::from_secs(left));
        }
        leases
    }

    pub fn put(&mut self, record: LeaseRecord, until: Instant) {
        if let Some(former) = self.by_address.insert(record.address, record.key)
            && former != record.key
        {
            self.by_key.remove(&former);
        }
        let (key, address) = (record.key, record.address);
        if let Some(former) = self.by_key.insert(key, Lease { record, until })
            && former.record.address != address
        {
            self.by_address.remove(&former.record.address);
        }
    }

    pub fn remove(&mut self, key: ClientKey) -> Option<Lease> {
        let lease = self.by_key.remove(&key)?;
        self.by_address.remove(&lease.record.address);
        Some(lease)
    }

    pub fn of(&self, key: ClientKey) -> Option<&Lease> {
        self.by_key.get(&key)
    }

    pub fn live(&self, key: ClientKey, now: Now) -> Option<&Lease> {
        self.of(key).filter(|lease| lease.until > now.mono)
    }

    /// Whose an address is, or was last.
    pub fn at(&self, address: Ipv4Addr) -> Option<&Lease> {
        self.by_address.get(&address).and_then(|key| self.by_key.get(key))
    }

    pub fn iter(&self) -> impl Iterator<Item = &Lease> {
        self.by_key.values()
    }

    pub fn is_empty(&self) -> bool {
        self.by_key.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dhcp::LeaseChange;

    fn record(last: u8, address: u8, expires: u64, serial: u64) -> LeaseRecord {
        LeaseRecord {
            key: ClientKey { htype: 1, mac: Mac([2, 0, 0, 0, 0, last]) },
            address: Ipv4Addr::new(10, 0, 0, address),
            seconds: 3600,
            expires,
            serial,
        }
    }

    fn now(wall: u64) -> Now {
        Now { mono: Instant::now(), wall }
    }

    #[test]
    fn the_later_of_two_records_for_one_address_holds() {
        let records = vec![record(2, 50, 9000, 8), record(1, 50, 9000, 7)];
        let leases = Leases::restore(records, now(8000));
        let holder = leases.at(Ipv4Addr::new(10, 0, 0, 50)).expect("one of them");
        assert_eq!(holder.record.serial, 8);
        assert_eq!(leases.iter().count(), 1);
    }

    #[test]
    fn a_clock_set_back_cannot_stretch_a_lease() {
        let now = now(1000);
        let leases = Leases::restore(vec![record(1, 50, 4_000_000_000, 1)], now);
        let lease = leases.iter().next().expect("kept");
        assert_eq!(lease.until, now.mono + Duration::from_secs(3602));
    }

    #[test]
    fn an_expired_lease_is_remembered_and_not_in_force() {
        let now = now(9001);
        let leases = Leases::restore(vec![record(1, 50, 9000, 1)], now);
        let key = record(1, 50, 0, 0).key;
        assert!(leases.of(key).is_some());
        assert!(leases.live(key, now).is_none());
    }

    #[test]
    fn moving_to_another_address_frees_the_first() {
        let now = now(0);
        let mut leases = Leases::default();
        leases.put(record(1, 50, 100, 1), now.mono);
        leases.put(record(1, 51, 100, 2), now.mono);
        assert!(leases.at(Ipv4Addr::new(10, 0, 0, 50)).is_none());
        assert!(leases.remove(record(1, 51, 0, 0).key).is_some());
        assert!(leases.is_empty() && leases.by_address.is_empty());
    }

    #[test]
    fn records_are_stable_json() {
        let text = serde_json::to_string(&LeaseChange::Put(record(1, 50, 9000, 3))).expect("json");
        assert_eq!(
            text,
            r#"{"Put":{"key":{"htype":1,"mac":"02:00:00:00:00:01"},"address":"10.0.0.50","seconds":3600,"expires":9000,"serial":3}}"#
        );
        assert_eq!(
            serde_json::from_str::<LeaseChange>(&text).expect("ours"),
            LeaseChange::Put(record(1, 50, 9000, 3))
        );
    }
}
