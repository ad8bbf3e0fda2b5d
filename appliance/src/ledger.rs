//! The ledger: hears what DHCP, TFTP, HTTP and the machines themselves say of each boot, keeps the
//! timelines, who holds which seat, and the event log. One task writes; everyone may look.

use std::collections::HashMap;
use std::net::Ipv4Addr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use koboshi_initramfs::contract::{Phase, Report};
use koboshi_pxe::boots::Stage;
use koboshi_pxe::desk::{Desk, News};
use koboshi_pxe::{BootId, Mac};
use tokio::sync::{broadcast, mpsc};
use tokio_util::sync::CancellationToken;

use crate::store::{BootRecord, Event, Mark, Store};

/// Lines of one timeline; a machine that reports trouble for a week does not fill the state.
const MARKS_MAX: usize = 200;
/// Characters of a note that a machine wrote.
const NOTE_MAX: usize = 400;

/// See the module.
pub struct Ledger {
    store: Store,
    inner: Mutex<Inner>,
    events: broadcast::Sender<Event>,
    failures: AtomicU64,
}

#[derive(Default)]
struct Inner {
    /// Each machine's newest boot, by MAC.
    boots: HashMap<Mac, BootRecord>,
    ids: HashMap<BootId, Mac>,
    /// When each machine was last heard of, Unix milliseconds.
    heard: HashMap<Mac, u64>,
    /// Highest report number seen of each boot.
    reports: HashMap<BootId, u32>,
}

/// Wishes the ledger has of others.
pub enum Wish {
    /// The machine lives: its pool address must not run out.
    Keep(Mac),
}

impl Ledger {
    /// A ledger over what the store remembers.
    pub fn new(store: Store, boots: Vec<BootRecord>) -> Ledger {
        let mut inner = Inner::default();
        for boot in boots {
            inner.ids.insert(boot.id, boot.mac);
            inner.boots.insert(boot.mac, boot);
        }
        let (events, _) = broadcast::channel(1024);
        Ledger { store, inner: Mutex::new(inner), events, failures: AtomicU64::new(0) }
    }

    /// Events as they happen.
    pub fn follow(&self) -> broadcast::Receiver<Event> {
        self.events.subscribe()
    }

    /// Each machine's newest boot.
    pub fn newest(&self) -> HashMap<Mac, BootRecord> {
        self.inner().boots.clone()
    }

    /// When a machine was last heard of, Unix milliseconds.
    pub fn heard(&self, mac: Mac) -> Option<u64> {
        self.inner().heard.get(&mac).copied()
    }

    /// Writes an event and tells whoever follows.
    pub async fn event(&self, kind: &str, who: Option<String>, text: String) {
        let event = Event { id: 0, at: now_ms(), kind: kind.to_string(), who, text };
        match self.store.append(event).await {
            Ok(event) => {
                tracing::info!(kind = event.kind, who = event.who, "{}", event.text);
                // Nobody following is the usual case.
                let _followers = self.events.send(event).unwrap_or(0);
            }
            Err(error) => {
                self.failures.fetch_add(1, Ordering::Relaxed);
                tracing::error!(%error, "an event was not kept");
            }
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
        loop {
            let item = tokio::select! {
                item = news.recv() => item,
                () = cancel.cancelled() => break,
            };
            let Some(item) = item else { break };
            self.take(&desk, &wishes, item).await;
        }
        while let Ok(item) = news.try_recv() {
            self.take(&desk, &wishes, item).await;
        }
    }

    async fn take(&self, desk: &Desk, wishes: &mpsc::Sender<Wish>, item: News) {
        match item {
            News::Opened { id, mac, machine, address, plan, at } => {
                let fixed = desk.boot_of(mac).is_some_and(|boot| boot.fixed);
                let record = BootRecord {
                    id,
                    mac,
                    machine: machine.clone(),
                    address,
                    fixed,
                    opened: ms(at),
                    stage: Stage::Offer,
                    plan: plan.clone(),
                    marks: Vec::new(),
                    over: false,
                };
                self.opened(record, ms(at)).await;
                let what = match &plan {
                    Some(plan) => format!(
                        "boots into {} (role {}, image {}) at {address}",
                        plan.seat.as_deref().unwrap_or("no seat"),
                        plan.role,
                        plan.image
                    ),
                    None => format!("is on the network at {address}, with nothing to boot"),
                };
                self.event("boot", Some(machine), what).await;
            }
            News::Mark { id, stage, note, at } => self.mark(id, stage, note, ms(at)).await,
            News::Report { id, mac, address, body, at } => {
                self.report(desk, wishes, id, mac, address, &body, ms(at)).await;
            }
            News::Heard { mac, kind, text, .. } => {
                self.event(kind, mac.map(|mac| mac.to_string()), text).await;
            }
        }
    }

    /// The firmware speaks: the last boot is over, and with it whatever the machine held.
    async fn opened(&self, record: BootRecord, at: u64) {
        let (mac, id, machine) = (record.mac, record.id, record.machine.clone());
        let last = {
            let mut inner = self.inner();
            inner.heard.insert(mac, at);
            inner.ids.insert(id, mac);
            let last = inner.boots.insert(mac, record.clone());
            if let Some(last) = &last {
                inner.ids.remove(&last.id);
                inner.reports.remove(&last.id);
            }
            last
        };
        if let Some(mut last) = last {
            last.over = true;
            self.keep(self.store.record_boot(last).await);
        }
        self.keep(self.store.record_boot(record).await);
        match self.store.release(machine).await {
            Ok(released) => {
                for holding in released {
                    let text =
                        format!("{} left {}: its firmware boots", holding.machine, holding.seat);
                    self.event("seat", Some(holding.seat), text).await;
                }
            }
            Err(error) => self.keep(Err(error)),
        }
    }

    async fn mark(&self, id: BootId, stage: Stage, note: String, at: u64) {
        let record = {
            let mut inner = self.inner();
            let Some(mac) = inner.ids.get(&id).copied() else { return };
            inner.heard.insert(mac, at);
            let Some(record) = inner.boots.get_mut(&mac) else { return };
            record.stage = stage;
            let again = record.marks.last().is_some_and(|m| m.stage == stage && m.note == note);
            if !again && record.marks.len() < MARKS_MAX {
                record.marks.push(Mark { at, stage, note });
            }
            record.clone()
        };
        self.keep(self.store.record_boot(record).await);
    }

    #[allow(clippy::too_many_arguments)]
    async fn report(
        &self,
        desk: &Desk,
        wishes: &mpsc::Sender<Wish>,
        id: BootId,
        mac: Mac,
        address: Ipv4Addr,
        body: &[u8],
        at: u64,
    ) {
        let report: Report = match serde_json::from_slice(body) {
            Ok(report) => report,
            Err(error) => {
                let text = format!("{address} sent a report that does not read: {error}");
                desk.heard(Some(mac), "bad-report", text);
                return;
            }
        };
        let machine = {
            let mut inner = self.inner();
            inner.heard.insert(mac, at);
            // A report that was overtaken on the wire must not move the boot back.
            let last = inner.reports.entry(id).or_insert(0);
            if report.seq < *last {
                return;
            }
            *last = report.seq;
            inner.boots.get(&mac).map(|boot| boot.machine.clone())
        };
        let Some(machine) = machine else { return };
        let (stage, note) = words(&report.phase);
        if let Phase::Heartbeat { .. } = report.phase {
            // The pool's lease of a machine that runs no DHCP client lives by its heartbeats.
            if wishes.try_send(Wish::Keep(mac)).is_err() {
                self.failures.fetch_add(1, Ordering::Relaxed);
            }
            // After a restart of the appliance the heartbeat is what says it is up.
            let stage_known = self.inner().boots.get(&mac).map(|boot| boot.stage);
            if matches!(stage_known, Some(Stage::Up | Stage::Trouble)) {
                return;
            }
        }
        desk.reached(id, stage);
        self.mark(id, stage, note.clone(), at).await;
        match stage {
            Stage::Init => self.hold(id, mac, &machine).await,
            Stage::Up => {
                let took = {
                    let inner = self.inner();
                    inner.boots.get(&mac).map_or(0, |boot| at.saturating_sub(boot.opened))
                };
                let text = format!("is up after {}.{} s ({note})", took / 1000, took % 1000 / 100);
                self.event("up", Some(machine), text).await;
            }
            Stage::Trouble | Stage::Rescue => {
                self.event(stage.as_str(), Some(machine), note).await;
            }
            Stage::Down => {
                self.event("down", Some(machine), "shuts down in good order".into()).await
            }
            _ => {}
        }
    }

    /// The machine now has the seat's address on its NIC: it holds the seat.
    async fn hold(&self, id: BootId, mac: Mac, machine: &str) {
        let seat = {
            let inner = self.inner();
            let plan = inner.boots.get(&mac).and_then(|boot| boot.plan.clone());
            plan.and_then(|plan| plan.seat.clone())
        };
        let Some(seat) = seat else { return };
        let holder = match self.store.holdings() {
            Ok(holdings) => holdings.into_iter().find(|held| held.seat == seat),
            Err(error) => return self.keep(Err(error)),
        };
        if let Some(holder) = holder.filter(|holder| holder.machine != machine) {
            let text = format!(
                "{machine} takes {seat}, which {} still holds: two machines may answer at one address",
                holder.machine
            );
            self.event("conflict", Some(seat.clone()), text).await;
        }
        match self.store.claim(seat, machine.to_string(), id, None).await {
            Ok(_) => {}
            Err(error) => self.keep(Err(error)),
        }
    }

    fn keep(&self, result: Result<(), crate::store::StoreError>) {
        if let Err(error) = result {
            self.failures.fetch_add(1, Ordering::Relaxed);
            tracing::error!(%error, "the ledger could not be written");
        }
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A phase as a stage and a line for people.
fn words(phase: &Phase) -> (Stage, String) {
    match phase {
        Phase::Init { kernel, memory_mib, nic } => {
            (Stage::Init, format!("Linux {}, {memory_mib} MiB, {}", clean(kernel), clean(nic)))
        }
        Phase::RootBegun { attempt: 1 } => (Stage::Root, String::new()),
        Phase::RootBegun { attempt } => (Stage::Root, format!("try {attempt}")),
        Phase::RootReady { bytes, ms, attempts } => {
            let rate = *bytes as f64 / 1e3 / (*ms).max(1) as f64;
            let tries = if *attempts > 1 { format!(", {attempts} tries") } else { String::new() };
            let size = *bytes as f64 / 1e6;
            (
                Stage::RootReady,
                format!("{size:.1} MB in {:.1} s, {rate:.1} MB/s{tries}", *ms as f64 / 1e3),
            )
        }
        Phase::Switching => (Stage::Switching, String::new()),
        Phase::Up { by } => (Stage::Up, clean(by)),
        Phase::Heartbeat { .. } => (Stage::Up, "heartbeat".to_string()),
        Phase::Trouble { message } => (Stage::Trouble, clean(message)),
        Phase::Rescue { message } => (Stage::Rescue, clean(message)),
        Phase::Down => (Stage::Down, String::new()),
    }
}

/// What a machine wrote, fit for a terminal: no control characters, not without end.
fn clean(text: &str) -> String {
    text.chars().take(NOTE_MAX).map(|c| if c.is_control() { '·' } else { c }).collect()
}

/// Unix milliseconds.
pub fn now_ms() -> u64 {
    ms(SystemTime::now())
}

fn ms(at: SystemTime) -> u64 {
    at.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_machine_wrote_cannot_drive_a_terminal() {
        let (_, note) = words(&Phase::Trouble { message: "\x1b]0;owned\x07 disk".into() });
        assert_eq!(note, "·]0;owned· disk");
        let (_, note) = words(&Phase::Up { by: "x".repeat(10_000) });
        assert_eq!(note.len(), NOTE_MAX);
    }

    #[test]
    fn a_root_is_told_with_its_rate() {
        let phase = Phase::RootReady { bytes: 69_000_000, ms: 3_000, attempts: 2 };
        assert_eq!(words(&phase).1, "69.0 MB in 3.0 s, 23.0 MB/s, 2 tries");
    }
}
