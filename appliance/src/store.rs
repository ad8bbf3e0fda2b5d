//! What must survive `kill -9`: boots with their timelines, holdings, the event log. (Leases have a journal.)
//!
//! redb, behind verbs of the domain. One thread writes: it drains its queue, commits once, and only
//! then lets the answers go, so what was answered is on disk and a storm shares commits, fifty of them a second.
//! A full disk is waited out ([`disk`]).

mod booted;
mod boots;
mod disk;
mod machines;
mod records;
mod tickets;

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc as queue;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use std::{fs, io, thread};

use koboshi_pxe::{BootId, dhcp};
use redb::{Database, ReadableDatabase, ReadableTable, TableDefinition, WriteTransaction};
use serde::{Serialize, de::DeserializeOwned};
use tokio::sync::{oneshot, watch};

pub use booted::{Booted, BootedInto};
pub use records::{BootRecord, Event, Holding, HostKeys, Late, Mark, OnConsole, Switched};
pub use tickets::{Ticket, TicketState};

use boots::put_boot;

use crate::unwritten::{self, Trouble, Unwritten};

const META: TableDefinition<&str, u64> = TableDefinition::new("meta");
const LEASES: TableDefinition<&[u8], &[u8]> = TableDefinition::new("leases");
const BOOTS: TableDefinition<&[u8], &[u8]> = TableDefinition::new("boots");
/// Machine, NUL, opening time in milliseconds (big endian): in order of time within a machine.
const BOOTS_OF: TableDefinition<&[u8], &[u8]> = TableDefinition::new("boots-of");
const HOLDINGS: TableDefinition<&str, &[u8]> = TableDefinition::new("holdings");
const EVENTS: TableDefinition<u64, &[u8]> = TableDefinition::new("events");
/// By machine's name, or by MAC for one that the site does not know.
const HARDWARE: TableDefinition<&str, &[u8]> = TableDefinition::new("hardware");
/// Machine's name: what its firmware said of itself.
const FIRMWARE: TableDefinition<&str, &[u8]> = TableDefinition::new("firmware");

/// Machine's name: the SSH host keys that it showed on its console.
const HOST_KEYS: TableDefinition<&str, &[u8]> = TableDefinition::new("host-keys");
/// Machine's name: what its last set-up found.
const SURVEYS: TableDefinition<&str, &[u8]> = TableDefinition::new("surveys");
/// Machine's name: how it has done with versions of images.
const COURSES: TableDefinition<&str, &[u8]> = TableDefinition::new("courses");

/// The layout of the tables. A newer number on disk is refused, an older one migrated here.
const SCHEMA: u64 = 1;
/// Boots remembered for each machine.
const BOOTS_KEPT: usize = 20;
/// Events remembered in all.
const EVENTS_KEPT: u64 = 100_000;
/// Pages kept in memory: ten thousand boots and their past are read at the start and then on request, the
/// page cache is behind it, and redb would take a gigabyte.
const CACHE: usize = 8 << 20;
/// Writes that share one commit.
const BATCH: usize = 256;
/// Commits begin no closer together than this, unless one is full: each costs the same for one change as for a hundred,
/// and what a machine tells within so short a time is written once. Alone, a change waits for nothing.
const PACE: Duration = Duration::from_millis(20);

/// Why the store could not do it.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The file is a newer koboshi's.
    #[error("the state was written by a newer koboshi (schema {0}, this one knows {SCHEMA})")]
    TooNew(u64),
    /// redb's own.
    #[error("state: {0}")]
    Redb(Box<redb::Error>),
    /// A record that does not read back.
    #[error("state: a record of {table} does not read back: {why}")]
    Record {
        /// Table.
        table: String,
        /// serde's word.
        why: String,
    },
    /// Its disk takes nothing, and this is no time to wait for it.
    #[error("{} cannot be written ({why}): {}", path.display(), unwritten::help(path, why))]
    Unwritable {
        /// The file.
        path: PathBuf,
        /// The system's word.
        why: std::io::Error,
    },
    /// The writer is gone.
    #[error("the state's writer has stopped; see the log")]
    Stopped,
}

impl<E: Into<redb::Error>> From<E> for StoreError {
    fn from(error: E) -> StoreError {
        StoreError::Redb(Box::new(error.into()))
    }
}

type Answer = Box<dyn FnOnce(bool) + Send>;
type Change = Box<dyn FnOnce(&WriteTransaction) -> Result<Answer, StoreError> + Send>;

enum Job {
    Change(Change),
    /// Changes nothing: told once all before it is on disk.
    After(Answer),
}

/// See the module. Cheap to clone; the writer ends with the last clone.
#[derive(Clone)]
pub struct Store {
    db: Arc<Database>,
    jobs: queue::SyncSender<Job>,
    failed: watch::Receiver<bool>,
    /// Boots on their way to the disk: one that moves on before it is there is written once.
    moving: Arc<Mutex<HashMap<BootId, Moving>>>,
    path: PathBuf,
    unwritten: Arc<Unwritten>,
    /// Cleared when the process ends: then nobody waits for room.
    waits: Arc<AtomicBool>,
}

/// A boot as it will be written.
type Moving = Arc<Mutex<Option<BootRecord>>>;

impl Store {
    /// Opens or makes `DIR/koboshi.redb` and starts its writer.
    pub fn open(dir: &Path) -> Result<Store, StoreError> {
        let path = dir.join("koboshi.redb");
        let (unwritten, waits) = (Arc::<Unwritten>::default(), Arc::new(AtomicBool::new(false)));
        let opened = laid(&path, &|path| {
            let disk = disk::Disk::open(path, unwritten.clone(), waits.clone())?;
            let db = Database::builder().set_cache_size(CACHE).create_with_backend(disk)?;
            lay_tables(&db)?;
            Ok(db)
        });
        let db = opened.map_err(|error| match error {
            StoreError::Redb(error) => match *error {
                redb::Error::Io(why) if unwritten::passes(&why) => {
                    StoreError::Unwritable { path: path.clone(), why }
                }
                error => StoreError::Redb(Box::new(error)),
            },
            error => error,
        })?;
        waits.store(true, Ordering::Relaxed);
        let db = Arc::new(db);
        let (jobs, queue) = queue::sync_channel(4096);
        let writer = db.clone();
        let (fails, failed) = watch::channel(false);
        thread::Builder::new()
            .name("store".to_string())
            .spawn(move || write_all(&writer, &queue, &fails))
            .map_err(|_| StoreError::Stopped)?;
        Ok(Store { db, jobs, failed, moving: Arc::default(), path, unwritten, waits })
    }

    /// What of the state, and beside it, cannot be written just now.
    pub fn unwritten(&self) -> &Arc<Unwritten> {
        &self.unwritten
    }

    /// Why nothing gets onto the disk at this moment, if that is so.
    pub fn trouble(&self) -> Option<Trouble> {
        self.unwritten.list().into_iter().find(|trouble| trouble.path == self.path)
    }

    /// The end of the process: what does not go onto the disk now is not waited for.
    pub fn give_up(&self) {
        self.waits.store(false, Ordering::Relaxed);
    }

    /// `done` hears once all that was queued before is on disk, and is dropped where it will not be.
    pub async fn after(&self, done: oneshot::Sender<()>) -> Result<(), StoreError> {
        // Whoever asked may have gone.
        let answer = Box::new(move |durable| {
            if durable {
                done.send(()).unwrap_or(())
            }
        });
        self.queue(Job::After(answer)).await
    }

    /// Waits until all that was queued before is on disk.
    pub async fn settled(&self) -> Result<(), StoreError> {
        let (done, told) = oneshot::channel();
        self.after(done).await?;
        told.await.map_err(|_| StoreError::Stopped)
    }

    /// Returns when the state can no longer be written, or its writer died: the end of the process.
    pub async fn failed(&self) {
        let mut failed = self.failed.clone();
        // An error says that the writer's end is gone, which is as bad.
        drop(failed.wait_for(|failed| *failed).await);
    }

    /// Puts a change into the queue: it has its place in time when this returns, and the answer comes
    /// when it is on disk.
    async fn submit<T: Send + 'static>(
        &self,
        change: impl FnOnce(&WriteTransaction) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<oneshot::Receiver<T>, StoreError> {
        let (done, answer) = oneshot::channel();
        let change: Change = Box::new(move |txn| {
            let value = change(txn)?;
            Ok(Box::new(move |durable| {
                if durable {
                    // Whoever asked may have gone; the change stands all the same.
                    drop(done.send(value));
                }
            }))
        });
        self.queue(Job::Change(change)).await?;
        Ok(answer)
    }

    async fn queue(&self, job: Job) -> Result<(), StoreError> {
        let jobs = self.jobs.clone();
        // The queue is full only when the disk is slower than a storm: then waiting is right,
        // but not on a thread that serves sockets.
        match jobs.try_send(job) {
            Ok(()) => {}
            Err(queue::TrySendError::Disconnected(_)) => return Err(StoreError::Stopped),
            Err(queue::TrySendError::Full(job)) => {
                tokio::task::spawn_blocking(move || jobs.send(job))
                    .await
                    .map_err(|_| StoreError::Stopped)?
                    .map_err(|_| StoreError::Stopped)?;
            }
        }
        Ok(())
    }

    /// Leases, as they were kept before they had a journal.
    pub fn leases(&self) -> Result<Vec<dhcp::LeaseRecord>, StoreError> {
        let read = self.db.begin_read()?;
        let table = read.open_table(LEASES)?;
        table.iter()?.map(|row| parse("leases", row?.1.value())).collect()
    }

    /// The journal has them.
    pub async fn forget_leases(&self) -> Result<(), StoreError> {
        self.submit(|txn| Ok(txn.open_table(LEASES)?.retain(|_, _| false)?)).await.map(drop)
    }

    /// Seats are free, as far as they are held by these boots; those boots that are over by it go
    /// with them. Queued in order; the receiver answers once it is on disk.
    pub async fn release(
        &self,
        seats: Vec<(String, BootId)>,
        over: Vec<BootRecord>,
    ) -> Result<oneshot::Receiver<()>, StoreError> {
        self.submit(move |txn| {
            for boot in &over {
                put_boot(txn, boot)?;
            }
            let mut holdings = txn.open_table(HOLDINGS)?;
            for (seat, boot) in &seats {
                let held = holdings.get(seat.as_str())?;
                let held = held.map(|row| parse::<Holding>("holdings", row.value())).transpose()?;
                if held.is_some_and(|held| held.boot == *boot) {
                    holdings.remove(seat.as_str())?;
                }
            }
            Ok(())
        })
        .await
    }

    /// A machine holds a seat, unless another one does. Queued in order; the receiver answers with
    /// the holding as it is now.
    pub async fn hold(&self, holding: Holding) -> Result<oneshot::Receiver<Holding>, StoreError> {
        self.submit(move |txn| put_holding(txn, holding)).await
    }

    /// Who holds what.
    pub fn holdings(&self) -> Result<Vec<Holding>, StoreError> {
        let read = self.db.begin_read()?;
        let table = read.open_table(HOLDINGS)?;
        table.iter()?.map(|row| parse("holdings", row?.1.value())).collect()
    }

    /// Appends to the event log, in the order of the calls; the receiver answers with the event and
    /// its id once it is on disk.
    pub async fn append(&self, mut event: Event) -> Result<oneshot::Receiver<Event>, StoreError> {
        self.submit(move |txn| {
            let mut events = txn.open_table(EVENTS)?;
            let mut meta = txn.open_table(META)?;
            event.id = meta.get("events")?.map_or(1, |last| last.value() + 1);
            meta.insert("events", event.id)?;
            events.insert(event.id, json(&event).as_slice())?;
            if let Some(old) = event.id.checked_sub(EVENTS_KEPT) {
                events.remove(old)?;
            }
            Ok(event)
        })
        .await
    }

    /// Up to `count` events after `since`, oldest first; the newest ones if `since` is 0.
    pub fn events(&self, since: u64, count: usize) -> Result<Vec<Event>, StoreError> {
        let read = self.db.begin_read()?;
        let table = read.open_table(EVENTS)?;
        if since == 0 {
            let newest = table.iter()?.rev().take(count);
            let mut events: Vec<Event> =
                newest.map(|row| parse("events", row?.1.value())).collect::<Result<_, _>>()?;
            events.reverse();
            return Ok(events);
        }
        table
            .range(since.saturating_add(1)..)?
            .take(count)
            .map(|row| parse("events", row?.1.value()))
            .collect()
    }
}

/// A new file gets its name once it is whole: one whose making was cut off could never be opened again.
fn laid(
    path: &Path,
    open: &dyn Fn(&Path) -> Result<Database, StoreError>,
) -> Result<Database, StoreError> {
    if !path.try_exists()? {
        let new = path.with_added_extension("new");
        match fs::remove_file(&new) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error.into()),
            _ => drop(open(&new)?),
        }
        fs::rename(&new, path)?;
        fs::File::open(path.parent().unwrap_or(Path::new(".")))?.sync_all()?;
    }
    open(path)
}

/// Makes what tables are missing. Where none is, nothing is written: a full disk is no reason not to start.
fn lay_tables(db: &Database) -> Result<(), StoreError> {
    let write = db.begin_write()?;
    let before = write.list_tables()?.count();
    let migrated = {
        let mut meta = write.open_table(META)?;
        let found = meta.get("schema")?.map(|schema| schema.value());
        if let Some(newer) = found.filter(|schema| *schema > SCHEMA) {
            return Err(StoreError::TooNew(newer));
        }
        if found != Some(SCHEMA) {
            meta.insert("schema", SCHEMA)?;
        }
        write.open_table(LEASES)?;
        write.open_table(BOOTS)?;
        write.open_table(BOOTS_OF)?;
        write.open_table(HOLDINGS)?;
        write.open_table(EVENTS)?;
        write.open_table(HARDWARE)?;
        write.open_table(FIRMWARE)?;
        write.open_table(SURVEYS)?;
        write.open_table(booted::BOOTED)?;
        write.open_table(HOST_KEYS)?;
        write.open_table(COURSES)?;
        write.open_table(tickets::TICKETS)?;
        booted::migrate(&write)? || found != Some(SCHEMA)
    };
    match migrated || write.list_tables()?.count() != before {
        true => write.commit()?,
        false => write.abort()?,
    }
    Ok(())
}

fn held<T>(lock: &Mutex<T>) -> MutexGuard<'_, T> {
    lock.lock().unwrap_or_else(PoisonError::into_inner)
}

fn write_all(db: &Database, queue: &queue::Receiver<Job>, failed: &watch::Sender<bool>) {
    let mut due = Instant::now();
    while let Ok(first) = queue.recv() {
        let mut jobs = vec![first];
        while jobs.len() < BATCH {
            match queue.recv_timeout(due.saturating_duration_since(Instant::now())) {
                Ok(job) => jobs.push(job),
                Err(_) => break,
            }
        }
        due = Instant::now() + PACE;
        match commit(db, jobs) {
            Ok(answers) => answers.into_iter().for_each(|answer| answer(true)),
            // The disk is gone, and redb takes no more writes after a failed one. Who
            // waits for an answer gets none and keeps silent towards the machines.
            Err(error) => {
                tracing::error!(%error, "the state could not be written");
                failed.send_replace(true);
                return;
            }
        }
    }
}

fn commit(db: &Database, jobs: Vec<Job>) -> Result<Vec<Answer>, StoreError> {
    let mut txn = None;
    let mut answers = Vec::with_capacity(jobs.len());
    for job in jobs {
        let change = match job {
            Job::Change(change) => change,
            Job::After(answer) => {
                answers.push(answer);
                continue;
            }
        };
        let txn = match &mut txn {
            Some(txn) => txn,
            None => {
                let mut begun = db.begin_write()?;
                begun.set_quick_repair(true);
                txn.insert(begun)
            }
        };
        match change(txn) {
            Ok(answer) => answers.push(answer),
            // One bad record is its own trouble, not that of its neighbours in the batch.
            Err(error @ StoreError::Record { .. }) => tracing::error!(%error, "not written"),
            Err(error) => return Err(error),
        }
    }
    if let Some(txn) = txn {
        txn.commit()?;
    }
    Ok(answers)
}

/// Compare and set: a seat goes to the machine that has it already, or to anybody if nobody has.
fn put_holding(txn: &WriteTransaction, mut new: Holding) -> Result<Holding, StoreError> {
    let mut holdings = txn.open_table(HOLDINGS)?;
    let old = holdings.get(new.seat.as_str())?;
    let old = old.map(|row| parse::<Holding>("holdings", row.value())).transpose()?;
    let mac = |holding: &Holding| holding.at.map(|(mac, _)| mac);
    if let Some(old) = old
        && old.machine != new.machine
        && (mac(&old).is_none() || mac(&old) != mac(&new))
    {
        return Ok(old);
    }
    // Epochs outlive the holding: a seat released and taken again is not as it was.
    let mut meta = txn.open_table(META)?;
    let counter = format!("epoch {}", new.seat);
    new.epoch = meta.get(counter.as_str())?.map_or(0, |last| last.value()) + 1;
    meta.insert(counter.as_str(), new.epoch)?;
    holdings.insert(new.seat.as_str(), json(&new).as_slice())?;
    Ok(new)
}

fn json<T: Serialize>(value: &T) -> Vec<u8> {
    serde_json::to_vec(value).expect("our records hold nothing that JSON cannot")
}

fn parse<T: DeserializeOwned>(table: &str, bytes: &[u8]) -> Result<T, StoreError> {
    serde_json::from_slice(bytes)
        .map_err(|error| StoreError::Record { table: table.to_string(), why: error.to_string() })
}

#[cfg(test)]
mod tests;
