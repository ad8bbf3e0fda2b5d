//! The ledger: hears what DHCP, TFTP, HTTP and the machines themselves say of each boot, keeps the
//! timelines, who holds which seat, and the event log. One task writes; everyone may look.

mod clock;
mod console;
mod host_keys;
mod late;
mod machines;
mod opened;
mod power;
mod reports;
mod seats;
pub mod tickets;

use std::collections::HashMap;
use std::net::Ipv4Addr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use koboshi_pxe::boots::Stage;
use koboshi_pxe::desk::{Desk, News};
use koboshi_pxe::firmware::Firmware;
use koboshi_pxe::seats::Holder;
use koboshi_pxe::{BootId, Mac};
use tokio::sync::{Notify, broadcast, mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use self::clock::{Clock, just_now};
use crate::diagnosis::Learned;
use crate::hardware::Record;
use crate::rollout::{Rollout, Told};
use crate::store::{BootRecord, Event, Holding, HostKeys, Mark, Store, StoreError};
use crate::surveys::Surveyed;

/// Lines of one timeline: its beginning is kept, and its end; the middle of a week of trouble goes.
const MARKS_MAX: usize = 200;
const MARKS_BEGIN: usize = 60;
/// How often a machine is told of that reports where it should not.
const GHOST_AGAIN_MS: u64 = 600_000;
/// How often it is said that something was lost.
const LOST_EVERY: Duration = Duration::from_secs(60);

/// See the module.
pub struct Ledger {
    store: Store,
    /// How versions of images do.
    rollout: Arc<Rollout>,
    inner: Mutex<Inner>,
    events: broadcast::Sender<Event>,
    /// Events on their way to the disk, in order; told once they are there.
    kept: mpsc::Sender<oneshot::Receiver<Event>>,
    failures: AtomicU64,
    changes: AtomicU64,
    /// An order waits for what the appliance does itself.
    follows: Notify,
}

struct Inner {
    /// Each machine's newest boot, by MAC.
    boots: HashMap<Mac, BootRecord>,
    ids: HashMap<BootId, Mac>,
    /// The newest start of each machine that boots nothing from here, as its console showed it.
    unbooted: HashMap<String, BootRecord>,
    /// When each machine was last heard of, Unix milliseconds.
    heard: HashMap<Mac, u64>,
    /// Highest report number seen of each boot.
    reports: HashMap<BootId, u32>,
    /// What machines are made of, by name or MAC.
    hardware: HashMap<String, Record>,
    /// What their firmware said of itself, by name.
    firmware: HashMap<String, Firmware>,
    /// What set-ups found, by name.
    surveys: HashMap<String, Surveyed>,
    /// SSH host keys as they were shown on consoles, by machine's name.
    host_keys: HashMap<String, HostKeys>,
    /// What was last said of evidence that disagrees, by machine.
    evidence: HashMap<String, Vec<String>>,
    /// How long machines take.
    learned: Learned,
    /// When this process began to listen, Unix milliseconds.
    began: u64,
    clock: Clock,
    /// The clock was set, and that is not told yet.
    set: Option<i64>,
    /// The highest place of a boot in their order.
    order: u64,
    /// Machines that report from a seat which they are not known to hold.
    ghosts: HashMap<String, Ghost>,
    /// Orders for one boot.
    orders: tickets::Orders,
}

/// A machine that reports from a seat by a boot that is over.
#[derive(Debug, Clone)]
pub struct Ghost {
    /// The seat.
    pub seat: String,
    /// Where it reports from.
    pub address: Ipv4Addr,
    /// Unix milliseconds of its last report.
    pub heard: u64,
    /// Who has the seat, by the last event about it; when that was told.
    told: (Option<String>, u64),
}

/// Wishes the ledger has of others.
pub enum Wish {
    /// The machine lives: its pool address must not run out.
    Keep(Mac),
    /// Another machine waits for a seat: is anybody else still there?
    Look {
        /// Who holds it.
        holder: Holder,
        /// Who waits for it, and may answer.
        machine: String,
        /// Its MACs.
        macs: Vec<Mac>,
    },
}

/// Who says that a boot has moved.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Source {
    /// We saw it on the wire: never backwards, and nothing once the machine speaks for itself.
    Wire,
    /// The machine.
    Machine,
}

impl Ledger {
    /// A ledger over what the store remembers. Needs a tokio runtime.
    pub fn new(store: Store, boots: Vec<BootRecord>, hardware: Vec<Record>) -> Ledger {
        let hardware = hardware.into_iter().map(|record| (record.machine.clone(), record));
        let hardware = hardware.collect();
        let firmware = store.firmware().unwrap_or_else(|error| {
            tracing::warn!(%error, "what firmware machines have is learned anew");
            HashMap::new()
        });
        let host_keys = store.host_keys().unwrap_or_else(|error| {
            tracing::warn!(%error, "SSH host keys of machines are known again after their next boot");
            HashMap::new()
        });
        let surveys = store.surveys().unwrap_or_else(|error| {
            tracing::warn!(%error, "what set-ups found is told anew by the next ones");
            HashMap::new()
        });
        let began = now_ms();
        let mut inner = Inner {
            boots: HashMap::new(),
            ids: HashMap::new(),
            unbooted: HashMap::new(),
            heard: HashMap::new(),
            reports: HashMap::new(),
            hardware,
            firmware,
            surveys,
            host_keys,
            evidence: HashMap::new(),
            learned: Learned::default(),
            began,
            clock: Clock::read(),
            set: None,
            order: boots.iter().map(BootRecord::order).max().unwrap_or(0),
            ghosts: HashMap::new(),
            orders: tickets::Orders::default(),
        };
        for boot in boots {
            inner.ids.insert(boot.id, boot.mac);
            let signs = boot.marks.iter().rev().find(|mark| mark.is_sign());
            let last = signs.map_or(boot.opened, |mark| mark.at);
            // The clock was set back since: it was heard before we began.
            inner.heard.insert(boot.mac, last.min(began));
            inner.boots.insert(boot.mac, boot);
        }
        let (events, _) = broadcast::channel(1024);
        let (kept, mut on_disk) = mpsc::channel::<oneshot::Receiver<Event>>(4096);
        let tell = events.clone();
        tokio::spawn(async move {
            while let Some(event) = on_disk.recv().await {
                // One that did not reach the disk was said by the store.
                let Ok(event) = event.await else { continue };
                tracing::info!(kind = event.kind, who = event.who, "{}", event.text);
                // Nobody following is the usual case.
                let _followers = tell.send(event).unwrap_or(0);
            }
        });
        let (failures, changes) = (AtomicU64::new(0), AtomicU64::new(1));
        let (rollout, inner) = (Arc::default(), Mutex::new(inner));
        let follows = Notify::new();
        Ledger { store, rollout, inner, events, kept, failures, changes, follows }
    }

    /// The same, knowing how long machines take.
    pub fn knowing(self, learned: Learned) -> Ledger {
        self.inner().learned = learned;
        self
    }

    /// The same, telling how versions of images do.
    pub fn telling(self, rollout: Arc<Rollout>) -> Ledger {
        Ledger { rollout, ..self }
    }

    /// Events as they happen.
    pub fn follow(&self) -> broadcast::Receiver<Event> {
        self.events.subscribe()
    }

    /// Each machine's newest boot.
    pub fn newest(&self) -> HashMap<Mac, BootRecord> {
        self.inner().boots.clone()
    }

    /// When this process began to listen, Unix milliseconds.
    pub fn began(&self) -> u64 {
        self.inner().began
    }

    /// Tells that the clock was set, if it was.
    pub async fn look_at_clock(&self) {
        let set = self.inner().set.take();
        if let Some(set) = set {
            self.event("clock", None, clock::says(set)).await;
        }
    }

    /// When a machine was last heard of, Unix milliseconds.
    pub fn heard(&self, mac: Mac) -> Option<u64> {
        self.inner().heard.get(&mac).copied()
    }

    /// Things that could not be kept.
    pub fn failures(&self) -> u64 {
        self.failures.load(Ordering::Relaxed)
    }

    /// Writes an event and tells whoever follows, once it is on disk.
    pub async fn event(&self, kind: &str, who: Option<String>, text: String) {
        let event = Event { id: 0, at: now_ms(), kind: kind.to_string(), who, text };
        match self.store.append(event).await {
            Ok(event) => {
                if self.kept.send(event).await.is_err() {
                    self.failures.fetch_add(1, Ordering::Relaxed);
                }
            }
            Err(error) => self.failed(&error),
        }
    }

    /// Reads news until cancelled, then what is still queued.
    pub async fn run(
        self: Arc<Ledger>,
        desk: Arc<Desk>,
        mut news: mpsc::Receiver<News>,
        wishes: mpsc::Sender<Wish>,
        cancel: CancellationToken,
    ) {
        let mut look = tokio::time::interval(LOST_EVERY);
        let mut said = 0;
        loop {
            let item = tokio::select! {
                item = news.recv() => item,
                _ = look.tick() => {
                    let lost = desk.lost_news() + self.failures();
                    if lost > said {
                        tracing::warn!(lost, "news of boots were lost: the ledger or the disk is behind");
                        said = lost;
                    }
                    continue;
                }
                () = cancel.cancelled() => break,
            };
            let Some(item) = item else { break };
            self.take(&desk, &wishes, item).await;
        }
        while let Ok(item) = news.try_recv() {
            self.take(&desk, &wishes, item).await;
        }
    }

    async fn take(self: &Arc<Ledger>, desk: &Desk, wishes: &mpsc::Sender<Wish>, item: News) {
        match item {
            News::Opened {
                id,
                mac,
                machine,
                address,
                fixed,
                lent,
                via,
                plan,
                holds,
                firmware,
                over,
                at,
            } => {
                let what = match &plan {
                    Some(plan) => format!(
                        "boots into {} (role {}, image {}) at {address}",
                        plan.seat.as_deref().unwrap_or("no seat"),
                        plan.role,
                        plan.image
                    ),
                    None => format!("is on the network at {address}, with nothing to boot"),
                };
                // A stranger's is not kept: random MACs would fill the disk.
                if let Some(firmware) = firmware
                    && desk.site().machines.contains_key(&mac)
                {
                    self.firmware_told(&machine, firmware).await;
                }
                let record = BootRecord {
                    id,
                    mac,
                    machine: machine.clone(),
                    address,
                    fixed,
                    lent,
                    via,
                    opened: just_now(at),
                    order: 0,
                    stage: Stage::Offer,
                    plan,
                    marks: Vec::new(),
                    over: false,
                    after: None,
                    fenced: false,
                };
                self.ticket_over(&record).await;
                self.opened(record, holds, &over).await;
                self.event("boot", Some(machine), what).await;
            }
            News::Mark { id, stage, note, at } => {
                // A stranger that has its loader is a machine, and its first lease a short one.
                let mac = self.inner().ids.get(&id).copied().filter(|_| stage >= Stage::Loader);
                if let Some(mac) = mac.filter(|mac| !desk.site().machines.contains_key(mac))
                    && wishes.try_send(Wish::Keep(mac)).is_err()
                {
                    self.failures.fetch_add(1, Ordering::Relaxed);
                }
                self.mark(id, stage, note, just_now(at), Source::Wire).await;
            }
            News::Report { id, mac, address, body, at, kept } => {
                self.report(desk, wishes, (id, mac, address), &body, just_now(at)).await;
                // While nothing gets onto the disk nobody waits for it: it is not acknowledged.
                if self.store.trouble().is_none()
                    && let Err(error) = self.store.after(kept).await
                {
                    self.failed(&error);
                }
            }
            News::Alive { mac, at } => {
                if let Some(heard) = self.inner().heard.get_mut(&mac) {
                    *heard = just_now(at);
                }
            }
            News::Freed { holder, why, at } => self.freed(holder, why, just_now(at)).await,
            News::Fenced { machine, over, freed, by, at, done } => {
                self.fenced(machine, &over, freed, by, just_now(at)).await;
                // Who waits for this may have gone.
                let _gone = done.send(()).await.is_err();
            }
            News::Held { holder } => {
                if let Err(error) = self.store.hold(Holding::of(&holder)).await {
                    self.failed(&error);
                }
            }
            News::Stray { id, address, at } => self.stray(desk, id, address, just_now(at)).await,
            News::Probe { holder, machine, macs } => {
                if wishes.try_send(Wish::Look { holder, machine, macs }).is_err() {
                    self.failures.fetch_add(1, Ordering::Relaxed);
                }
            }
            News::Heard { mac, kind, text, .. } => {
                let known = mac.and_then(|mac| desk.site().machines.get(&mac).cloned());
                let who = known.map(|known| known.name.clone());
                self.event(kind, who.or(mac.map(|mac| mac.to_string())), text).await;
            }
        }
    }

    async fn mark(&self, id: BootId, stage: Stage, note: String, at: u64, source: Source) {
        let record = {
            let mut inner = self.inner();
            let Some(mac) = inner.ids.get(&id).copied() else { return };
            let Some(record) = inner.boots.get(&mac) else { return };
            // What is seen on the wire of one that reports is somebody in its name, or its next boot.
            if source == Source::Wire && record.stage >= Stage::Init {
                return;
            }
            inner.heard.insert(mac, at);
            let Some(record) = inner.boots.get_mut(&mac) else { return };
            let again = record.marks.last().is_some_and(|m| m.stage == stage && m.note == note);
            if again && record.stage == stage {
                return;
            }
            record.stage = match source {
                // Its turn has come.
                Source::Wire if record.stage == Stage::Waiting && stage == Stage::Script => stage,
                Source::Wire => record.stage.max(stage),
                Source::Machine => stage,
            };
            push(record, Mark { at, stage, note, late: None, power: None, console: None });
            record.clone()
        };
        if let Some(Mark { note, .. }) = record.marks.last() {
            let told = self.rollout.reached(&record.machine, id, record.stage, note, at);
            self.keep(told).await;
        }
        self.ticket_boots(&record, stage).await;
        if let Err(error) = self.store.record_boot(record).await {
            self.failed(&error);
        }
    }

    /// Writes down what came of it for versions of images.
    pub async fn keep(&self, told: Vec<Told>) {
        for one in told {
            match one {
                Told::Keep(machine, course) => {
                    if let Err(error) = self.store.record_course(machine, course).await {
                        self.failed(&error);
                    }
                }
                Told::Event { kind, machine, text } => self.event(kind, Some(machine), text).await,
            }
        }
    }

    fn failed(&self, error: &StoreError) {
        self.failures.fetch_add(1, Ordering::Relaxed);
        tracing::error!(%error, "the ledger could not be written");
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        inner.follow_clock(Clock::read());
        inner
    }
}

fn push(record: &mut BootRecord, mark: Mark) {
    if record.marks.len() >= MARKS_MAX {
        record.marks.remove(MARKS_BEGIN);
    }
    record.marks.push(mark);
}

/// Unix milliseconds.
pub fn now_ms() -> u64 {
    ms(SystemTime::now())
}

/// The same of any moment.
pub(crate) fn ms(at: SystemTime) -> u64 {
    at.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64)
}

#[cfg(test)]
pub(crate) mod tests;
#[cfg(test)]
pub(crate) use tests::boot as tests_boot;
