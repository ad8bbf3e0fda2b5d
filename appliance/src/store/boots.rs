//! Boots and their timelines: each machine's last ones are kept.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use koboshi_pxe::boots::Stage;
use koboshi_pxe::{BootId, Mac};
use redb::{ReadableDatabase, ReadableTable, WriteTransaction};
use tokio::sync::oneshot;

use super::{
    BOOTS, BOOTS_KEPT, BOOTS_OF, BootRecord, COURSES, HARDWARE, Holding, Moving, Store, StoreError,
    booted, held, json, parse, put_holding,
};

impl Store {
    /// A machine's firmware speaks, in one commit: its new boot, the ends of others, strangers to
    /// be forgotten, and the seat that is promised to it. Queued in order; the receiver answers with
    /// the holding as it is now: another machine's, where that still has the seat.
    pub async fn open_boot(
        &self,
        boot: BootRecord,
        ended: Vec<BootRecord>,
        strangers: Vec<String>,
        holds: Option<Holding>,
    ) -> Result<oneshot::Receiver<Option<Holding>>, StoreError> {
        self.submit(move |txn| {
            for last in &ended {
                put_boot(txn, last)?;
            }
            for stranger in &strangers {
                forget_boots(txn, stranger, 0)?;
                booted::forget(txn, stranger)?;
                txn.open_table(HARDWARE)?.remove(stranger.as_str())?;
                txn.open_table(COURSES)?.remove(stranger.as_str())?;
            }
            put_boot(txn, &boot)?;
            booted::open(txn, &boot)?;
            forget_boots(txn, &boot.machine, BOOTS_KEPT)?;
            holds.map(|holding| put_holding(txn, holding)).transpose()
        })
        .await
    }

    /// One boot, if it is remembered.
    pub fn boot(&self, id: BootId) -> Result<Option<BootRecord>, StoreError> {
        let read = self.db.begin_read()?;
        let boots = read.open_table(BOOTS)?;
        let row = boots.get(id.0.as_slice())?;
        row.map(|row| parse("boots", row.value())).transpose()
    }

    /// Writes a boot as it stands. Queued in order; nobody need wait for it. Where the disk is behind, a
    /// boot has one place in the queue, and what is written there is how it stands by then.
    pub async fn record_boot(&self, boot: BootRecord) -> Result<(), StoreError> {
        let id = boot.id;
        let place = {
            let mut moving = held(&self.moving);
            if let Some(place) = moving.get(&id) {
                let mut waiting = held(place);
                // That it came up, and went down, is looked for in what is written.
                let ends = |stage| matches!(stage, Stage::Up | Stage::Down);
                let same = |last: &BootRecord| !ends(last.stage) || last.stage == boot.stage;
                if waiting.as_ref().is_some_and(same) {
                    *waiting = Some(boot);
                    return Ok(());
                }
            }
            let place: Moving = Arc::new(Mutex::new(Some(boot)));
            moving.insert(id, place.clone());
            place
        };
        let moving = self.moving.clone();
        let write = move |txn: &WriteTransaction| {
            let boot = {
                let mut moving = held(&moving);
                if moving.get(&id).is_some_and(|last| Arc::ptr_eq(last, &place)) {
                    moving.remove(&id);
                }
                held(&place).take()
            };
            boot.map_or(Ok(()), |boot| put_boot(txn, &boot))
        };
        self.submit(write).await.map(drop)
    }

    /// A machine's boots, newest first.
    pub fn boots_of(&self, machine: &str) -> Result<Vec<BootRecord>, StoreError> {
        let read = self.db.begin_read()?;
        let of = read.open_table(BOOTS_OF)?;
        let boots = read.open_table(BOOTS)?;
        let (first, last) = (boots_key(machine, 0), boots_key(machine, u64::MAX));
        let mut found = Vec::new();
        for row in of.range(first.as_slice()..=last.as_slice())?.rev() {
            if let Some(boot) = boots.get(row?.1.value())? {
                found.push(parse("boots", boot.value())?);
            }
        }
        Ok(found)
    }

    /// Each machine's newest boot; `each` sees all that are kept, in no order.
    pub fn newest_boots(
        &self,
        mut each: impl FnMut(&BootRecord),
    ) -> Result<Vec<BootRecord>, StoreError> {
        let read = self.db.begin_read()?;
        let boots = read.open_table(BOOTS)?;
        let mut newest = HashMap::<Mac, BootRecord>::new();
        for row in boots.iter()? {
            // A record of another version's making is history, not a reason not to start.
            let boot: BootRecord = match parse("boots", row?.1.value()) {
                Ok(boot) => boot,
                Err(error) => {
                    tracing::warn!(%error, "a boot is forgotten");
                    continue;
                }
            };
            if boot.is_unbooted() {
                continue;
            }
            each(&boot);
            let older = newest.get(&boot.mac).is_some_and(|known| known.order() >= boot.order());
            if !older {
                newest.insert(boot.mac, boot);
            }
        }
        Ok(newest.into_values().collect())
    }
}

pub(super) fn put_boot(txn: &WriteTransaction, boot: &BootRecord) -> Result<(), StoreError> {
    txn.open_table(BOOTS)?.insert(boot.id.0.as_slice(), json(boot).as_slice())?;
    let key = boots_key(&boot.machine, boot.order());
    txn.open_table(BOOTS_OF)?.insert(key.as_slice(), boot.id.0.as_slice())?;
    booted::moved(txn, boot)
}

/// Forgets all boots of a machine but the newest `kept`.
fn forget_boots(txn: &WriteTransaction, machine: &str, kept: usize) -> Result<(), StoreError> {
    let mut of = txn.open_table(BOOTS_OF)?;
    let mut boots = txn.open_table(BOOTS)?;
    let (first, last) = (boots_key(machine, 0), boots_key(machine, u64::MAX));
    let all: Vec<(Vec<u8>, Vec<u8>)> = of
        .range(first.as_slice()..=last.as_slice())?
        .map(|row| row.map(|(key, id)| (key.value().to_vec(), id.value().to_vec())))
        .collect::<Result<_, _>>()?;
    for (key, id) in all.iter().rev().skip(kept) {
        of.remove(key.as_slice())?;
        boots.remove(id.as_slice())?;
    }
    Ok(())
}

pub(super) fn boots_key(machine: &str, opened: u64) -> Vec<u8> {
    let mut key = machine.as_bytes().to_vec();
    key.push(0);
    key.extend(opened.to_be_bytes());
    key
}
