//! What each machine booted, ever: small records beside the timelines, which are forgotten after a while.
//!
//! A row for each boot; of a run of boots into the very same (a machine that restarts all night) the first and
//! the last stay, and the last counts. So a machine's rows grow with what changes, not with how often it
//! boots. The newest [`ROWS`] stay: years, but for a machine that is given another version many times a day.

use koboshi_pxe::BootId;
use koboshi_pxe::boots::Stage;
use redb::{ReadableTable, TableDefinition, WriteTransaction};
use serde::{Deserialize, Serialize};

use super::boots::boots_key;
use super::{BootRecord, StoreError, json, parse};

/// Machine, NUL, opening time in milliseconds (big endian).
pub(super) const BOOTED: TableDefinition<&[u8], &[u8]> = TableDefinition::new("booted");
/// Rows of one machine.
const ROWS: usize = 1000;

/// One boot, or the last of a run of boots into the same.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Booted {
    /// Unix milliseconds.
    pub opened: u64,
    /// Its id, by which older logs name it.
    pub id: BootId,
    /// What it booted; none where there was nothing to boot.
    #[serde(flatten)]
    pub what: Option<BootedInto>,
    /// When it was up first, Unix milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub up: Option<u64>,
    /// When it was shut down in good order, Unix milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub down: Option<u64>,
    /// Boots into the very same between the row before and this one, this one included.
    #[serde(default = "one", skip_serializing_if = "is_one")]
    pub times: u64,
}

/// What was booted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BootedInto {
    /// `web@3`
    pub image: String,
    /// Of the image's manifest; none for boots of before it was written down.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub digest: Option<String>,
    /// Role.
    pub role: String,
    /// Seat, if it had one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seat: Option<String>,
}

fn one() -> u64 {
    1
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde wants a reference")]
fn is_one(times: &u64) -> bool {
    *times == 1
}

impl Booted {
    fn of(boot: &BootRecord) -> Booted {
        let first = |stage| boot.marks.iter().find(|m| m.stage == stage && m.is_sign());
        let last = |stage| boot.marks.iter().rev().find(|m| m.stage == stage && m.is_sign());
        Booted {
            opened: boot.opened,
            id: boot.id,
            what: boot.plan.as_ref().map(|plan| BootedInto {
                image: plan.image.clone(),
                digest: plan.digest.clone(),
                role: plan.role.clone(),
                seat: plan.seat.clone(),
            }),
            up: first(Stage::Up).map(|mark| mark.at),
            down: last(Stage::Down).filter(|_| boot.stage == Stage::Down).map(|mark| mark.at),
            times: 1,
        }
    }
}

/// Whether a boot is worth a row: not one of a machine that nobody knows and that boots nothing, nor one
/// that only its console told of.
fn counts(boot: &BootRecord) -> bool {
    !boot.is_unbooted() && (boot.plan.is_some() || boot.machine != boot.mac.to_string())
}

/// A boot begins.
pub(super) fn open(txn: &WriteTransaction, boot: &BootRecord) -> Result<(), StoreError> {
    if !counts(boot) {
        return Ok(());
    }
    let mut table = txn.open_table(BOOTED)?;
    let mut new = Booted::of(boot);
    let (begin, end) = (boots_key(&boot.machine, 0), boots_key(&boot.machine, u64::MAX));
    let mut stale: Vec<Vec<u8>> = Vec::new();
    let mut before = Vec::with_capacity(2);
    for row in table.range(begin.as_slice()..=end.as_slice())?.rev().take(2) {
        let (key, row) = row?;
        // One that does not read back is like no other.
        before
            .extend(parse::<Booted>("booted", row.value()).map(|row| (key.value().to_vec(), row)));
    }
    if let [(key, last), (_, first)] = &before[..]
        && last.what == new.what
        && first.what == new.what
    {
        new.times = last.times.saturating_add(1);
        stale.push(key.clone());
    }
    {
        let all = table.range(begin.as_slice()..=end.as_slice())?;
        let keys: Vec<Vec<u8>> =
            all.map(|row| row.map(|(key, _)| key.value().to_vec())).collect::<Result<_, _>>()?;
        let over = (keys.len() + 1).saturating_sub(stale.len() + ROWS);
        stale.extend(keys.into_iter().take(over));
    }
    for key in stale {
        table.remove(key.as_slice())?;
    }
    let key = boots_key(&boot.machine, boot.order());
    table.insert(key.as_slice(), json(&new).as_slice())?;
    Ok(())
}

/// A boot has gone further: whether it came up and was shut down.
pub(super) fn moved(txn: &WriteTransaction, boot: &BootRecord) -> Result<(), StoreError> {
    if !matches!(boot.stage, Stage::Up | Stage::Down) || !counts(boot) {
        return Ok(());
    }
    let mut table = txn.open_table(BOOTED)?;
    let key = boots_key(&boot.machine, boot.order());
    let known = table.get(key.as_slice())?;
    let Some(known) = known.and_then(|row| parse::<Booted>("booted", row.value()).ok()) else {
        // Of a run whose last boot is another by now.
        return Ok(());
    };
    let seen = Booted::of(boot);
    // A timeline that became too long has lost its middle.
    let new = Booted { up: known.up.or(seen.up), down: seen.down, ..known.clone() };
    if new != known {
        table.insert(key.as_slice(), json(&new).as_slice())?;
    }
    Ok(())
}

/// A machine is forgotten.
pub(super) fn forget(txn: &WriteTransaction, machine: &str) -> Result<(), StoreError> {
    let mut table = txn.open_table(BOOTED)?;
    let (begin, end) = (boots_key(machine, 0), boots_key(machine, u64::MAX));
    table.retain_in(begin.as_slice()..=end.as_slice(), |_, _| false)?;
    Ok(())
}

impl super::Store {
    /// What a machine booted, newest first.
    pub fn booted(&self, machine: &str) -> Result<Vec<Booted>, StoreError> {
        use redb::ReadableDatabase;
        let read = self.db.begin_read()?;
        let table = read.open_table(BOOTED)?;
        let (begin, end) = (boots_key(machine, 0), boots_key(machine, u64::MAX));
        let mut found = Vec::new();
        for row in table.range(begin.as_slice()..=end.as_slice())?.rev() {
            match parse("booted", row?.1.value()) {
                Ok(booted) => found.push(booted),
                Err(error) => tracing::warn!(%error, "what a machine booted once is not known"),
            }
        }
        Ok(found)
    }
}

/// Boots that were remembered before this table was: once, when the state is opened. Whether there were any.
pub(super) fn migrate(txn: &WriteTransaction) -> Result<bool, StoreError> {
    if txn.open_table(BOOTED)?.first()?.is_some() {
        return Ok(false);
    }
    let mut boots: Vec<BootRecord> = Vec::new();
    for row in txn.open_table(super::BOOTS)?.iter()? {
        boots.extend(parse("boots", row?.1.value()).ok());
    }
    boots.sort_by_key(BootRecord::order);
    for boot in &boots {
        open(txn, boot)?;
    }
    Ok(!boots.is_empty())
}
