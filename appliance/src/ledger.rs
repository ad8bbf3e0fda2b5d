//! The ledger: hears what DHCP, TFTP, HTTP and the machines themselves say of each boot, keeps the
//! timelines, who holds which seat, and the event log. One task writes; everyone may look.

mod seats;

use std::collections::HashMap;
use std::net::Ipv4Addr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use koboshi_initramfs::contract::{Hardware, Phase, Report};
use koboshi_pxe::boots::Stage;
use koboshi_pxe::desk::{Desk, News};
use koboshi_pxe::firmware::Firmware;
use koboshi_pxe::seats::Holder;
use koboshi_pxe::{BootId, Mac};
use tokio::sync::{broadcast, mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use crate::diagnosis::Learned;
use crate::diagnosis::late::Finding;
use crate::diagnosis::learned::Lesson;
use crate::hardware::{self, Record};
use crate::store::{BootRecord, Event, Holding, Mark, Store, StoreError};

/// Lines of one timeline: its beginning is kept, and its end; the middle of a week of trouble goes.
const MARKS_MAX: usize = 200;
const MARKS_BEGIN: usize = 60;
/// Characters of a note that a machine wrote.
const NOTE_MAX: usize = 400;
/// How often a machine is told of that reports where it should not.
const GHOST_AGAIN_MS: u64 = 600_000;
/// How often it is said that something was lost.
const LOST_EVERY: Duration = Duration::from_secs(60);

/// See the module.
pub struct Ledger {
    store: Store,
    inner: Mutex<Inner>,
    events: broadcast::Sender<Event>,
    /// Events on their way to the disk, in order; told once they are there.
    kept: mpsc::Sender<oneshot::Receiver<Event>>,
    failures: AtomicU64,
    changes: AtomicU64,
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
    /// What machines are made of, by name or MAC.
    hardware: HashMap<String, Record>,
    /// What their firmware said of itself, by name.
    firmware: HashMap<String, Firmware>,
    /// What was last said of evidence that disagrees, by machine.
    evidence: HashMap<String, Vec<String>>,
    /// How long machines take.
    learned: Learned,
    /// When this process began to listen, Unix milliseconds.
    began: u64,
    /// Machines that report from a seat which they are not known to hold.
    ghosts: HashMap<String, Ghost>,
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
        let mut inner = Inner { hardware, firmware, began: now_ms(), ..Inner::default() };
        for boot in boots {
            inner.ids.insert(boot.id, boot.mac);
            let signs = boot.marks.iter().rev().find(|mark| mark.late.is_none());
            let last = signs.map_or(boot.opened, |mark| mark.at);
            inner.heard.insert(boot.mac, last);
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
        Ledger { store, inner: Mutex::new(inner), events, kept, failures, changes }
    }

    /// The same, knowing how long machines take.
    pub fn knowing(self, learned: Learned) -> Ledger {
        self.inner().learned = learned;
        self
    }

    /// Events as they happen.
    pub fn follow(&self) -> broadcast::Receiver<Event> {
        self.events.subscribe()
    }

    /// Each machine's newest boot.
    pub fn newest(&self) -> HashMap<Mac, BootRecord> {
        self.inner().boots.clone()
    }

    /// What a machine's firmware said of itself when it last booted by the network.
    pub fn firmware(&self, machine: &str) -> Option<Firmware> {
        self.inner().firmware.get(machine).copied()
    }

    async fn firmware_told(&self, machine: &str, told: Firmware) {
        let told = {
            let mut inner = self.inner();
            let last = inner.firmware.get(machine).copied();
            let told = told.after(last);
            if last == Some(told) {
                return;
            }
            inner.firmware.insert(machine.to_string(), told);
            told
        };
        if let Err(error) = self.store.record_firmware(machine.to_string(), told).await {
            self.failed(&error);
        }
    }

    /// What each machine is made of, by name or, for one that the site does not know, by MAC.
    pub fn hardware(&self) -> HashMap<String, Record> {
        self.inner().hardware.clone()
    }

    /// Counts changes of that.
    pub fn hardware_changes(&self) -> u64 {
        self.changes.load(Ordering::Relaxed)
    }

    /// Replaces what is known of a machine's hardware, by an operator's word.
    pub async fn take_on(&self, record: Record) {
        self.inner().hardware.insert(record.machine.clone(), record.clone());
        self.changes.fetch_add(1, Ordering::Relaxed);
        if let Err(error) = self.store.record_hardware(record).await {
            self.failed(&error);
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
                    opened: ms(at),
                    stage: Stage::Offer,
                    plan,
                    marks: Vec::new(),
                    over: false,
                    after: None,
                    fenced: false,
                };
                self.opened(record, holds, &over).await;
                self.event("boot", Some(machine), what).await;
            }
            News::Mark { id, stage, note, at } => {
                self.mark(id, stage, note, ms(at), Source::Wire).await;
            }
            News::Report { id, mac, address, body, at } => {
                self.report(desk, wishes, (id, mac, address), &body, ms(at)).await;
            }
            News::Alive { mac, at } => {
                if let Some(heard) = self.inner().heard.get_mut(&mac) {
                    *heard = ms(at);
                }
            }
            News::Freed { holder, why, at } => self.freed(holder, why, ms(at)).await,
            News::Fenced { machine, over, freed, by, at, done } => {
                self.fenced(machine, &over, freed, by, ms(at)).await;
                // Who waits for this may have gone.
                let _gone = done.send(()).await.is_err();
            }
            News::Held { holder } => {
                if let Err(error) = self.store.hold(Holding::of(&holder)).await {
                    self.failed(&error);
                }
            }
            News::Stray { id, address, at } => self.stray(desk, id, address, ms(at)).await,
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

    /// The firmware speaks: the last boot is over. What the machine held it holds until the desk says
    /// that it has left.
    async fn opened(
        self: &Arc<Ledger>,
        mut record: BootRecord,
        holds: Option<String>,
        over: &[(BootId, Mac)],
    ) {
        let (mut ended, mut strangers) = (Vec::new(), Vec::new());
        {
            let mut inner = self.inner();
            for (id, mac) in over {
                inner.ids.remove(id);
                inner.reports.remove(id);
                let Some(last) = inner.boots.get_mut(mac).filter(|last| last.id == *id) else {
                    continue;
                };
                last.over = true;
                // A stranger whose address another machine has now: it is forgotten, or random
                // MACs would fill the disk.
                if *mac != record.mac && last.machine == mac.to_string() {
                    let stranger = last.machine.clone();
                    inner.boots.remove(mac);
                    inner.heard.remove(mac);
                    inner.hardware.remove(&stranger);
                    inner.evidence.remove(&stranger);
                    strangers.push(stranger);
                } else {
                    ended.push(last.clone());
                }
            }
            // How long its restart took, if we were there when it was last heard of.
            let ran = inner.boots.get(&record.mac).is_some_and(|last| last.stage >= Stage::Init);
            let last = inner.heard.get(&record.mac).copied();
            let last = last.filter(|last| ran && *last >= inner.began);
            record.after = last.map(|last| record.opened.saturating_sub(last));
            if let Some(lesson) = Lesson::of_opened(&record) {
                inner.learned.learn(lesson);
            }
            inner.heard.insert(record.mac, record.opened);
            inner.ids.insert(record.id, record.mac);
            inner.boots.insert(record.mac, record.clone());
        }
        let holds = holds.map(|seat| Holding {
            seat,
            machine: record.machine.clone(),
            boot: record.id,
            epoch: 0,
            at: Some((record.mac, record.address)),
            since: record.opened,
        });
        let machine = record.machine.clone();
        match self.store.open_boot(record, ended, strangers, holds).await {
            Ok(held) => {
                let ledger = self.clone();
                tokio::spawn(async move {
                    // The desk gives no seat away that another machine has; were the two ever to
                    // disagree, this is where it shows.
                    if let Ok(Some(held)) = held.await
                        && held.machine != machine
                    {
                        let text = format!(
                            "was promised {}, which {} holds by the books",
                            held.seat, held.machine
                        );
                        ledger.event("conflict", Some(machine), text).await;
                    }
                });
            }
            Err(error) => self.failed(&error),
        }
    }

    async fn mark(&self, id: BootId, stage: Stage, note: String, at: u64, source: Source) {
        let record = {
            let mut inner = self.inner();
            let Some(mac) = inner.ids.get(&id).copied() else { return };
            inner.heard.insert(mac, at);
            let Some(record) = inner.boots.get_mut(&mac) else { return };
            let speaks_for_itself = source == Source::Wire && record.stage >= Stage::Init;
            let again = record.marks.last().is_some_and(|m| m.stage == stage && m.note == note);
            if speaks_for_itself || (again && record.stage == stage) {
                return;
            }
            record.stage = match source {
                // Its turn has come.
                Source::Wire if record.stage == Stage::Waiting && stage == Stage::Script => stage,
                Source::Wire => record.stage.max(stage),
                Source::Machine => stage,
            };
            push(record, Mark { at, stage, note, late: None });
            record.clone()
        };
        if let Err(error) = self.store.record_boot(record).await {
            self.failed(&error);
        }
    }

    /// The boots, when each machine was last heard of, and how long things take, to be looked at.
    pub fn look<T>(
        &self,
        see: impl FnOnce(&HashMap<Mac, BootRecord>, &HashMap<Mac, u64>, &Learned) -> T,
    ) -> T {
        let inner = self.inner();
        see(&inner.boots, &inner.heard, &inner.learned)
    }

    /// A boot went no further for too long: a line in its timeline, unless it has moved meanwhile.
    pub async fn is_late(&self, finding: &Finding, at: u64) {
        let record = {
            let mut inner = self.inner();
            let Some(mac) = inner.ids.get(&finding.id).copied() else { return };
            let Some(record) = inner.boots.get_mut(&mac) else { return };
            if record.stage != finding.stage {
                return;
            }
            let (note, late) = (finding.cause.seen.clone(), Some(finding.cause.late.clone()));
            push(record, Mark { at, stage: finding.stage, note, late });
            record.clone()
        };
        if let Err(error) = self.store.record_boot(record).await {
            self.failed(&error);
        }
    }

    async fn report(
        self: &Arc<Ledger>,
        desk: &Desk,
        wishes: &mpsc::Sender<Wish>,
        (id, mac, address): (BootId, Mac, Ipv4Addr),
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
        let (machine, was_up, missed, last) = {
            let mut inner = self.inner();
            // A report that was overtaken on the wire must not move the boot back, and one that
            // was recorded and is played again is no sign of life.
            let last = inner.reports.entry(id).or_insert(0);
            if report.seq <= *last {
                return;
            }
            *last = report.seq;
            inner.heard.insert(mac, at);
            let Some(boot) = inner.boots.get(&mac).filter(|boot| boot.id == id) else { return };
            let was_up = boot.marks.iter().any(|mark| mark.stage == Stage::Up);
            let missed = boot.marks.last().is_some_and(|mark| mark.late.is_some());
            (boot.machine.clone(), was_up, missed, boot.stage)
        };
        let phase = match report.phase {
            Phase::Hardware(hardware) => {
                return self.hardware_told(desk, (&machine, mac), *hardware, at).await;
            }
            phase => phase,
        };
        let (stage, mut note) = words(&phase);
        if let Phase::Heartbeat { .. } = phase {
            // The pool's lease of a machine that runs no DHCP client lives by its heartbeats.
            if wishes.try_send(Wish::Keep(mac)).is_err() {
                self.failures.fetch_add(1, Ordering::Relaxed);
            }
            if last == Stage::Up && !missed {
                return;
            }
            note = "it is heard of again".to_string();
        }
        desk.reached(id, stage);
        self.mark(id, stage, note.clone(), at, Source::Machine).await;
        match stage {
            Stage::Up if !was_up => {
                self.learn(mac);
                let opened = self.inner().boots.get(&mac).map_or(at, |boot| boot.opened);
                let took = at.saturating_sub(opened);
                let text = format!("is up after {}.{} s ({note})", took / 1000, took % 1000 / 100);
                self.event("up", Some(machine), text).await;
            }
            Stage::Trouble | Stage::Rescue => {
                self.event(stage.as_str(), Some(machine), note).await;
            }
            Stage::Down => {
                self.event("down", Some(machine), "shuts down in good order".to_string()).await;
            }
            _ => {}
        }
    }

    /// Keeps what a machine says it is made of, and says where it does not fit.
    async fn hardware_told(
        &self,
        desk: &Desk,
        (machine, mac): (&str, Mac),
        hardware: Hardware,
        at: u64,
    ) {
        let hardware = hardware::tidy(hardware);
        let line = hardware::summary(&hardware);
        let (record, new) = {
            let mut inner = self.inner();
            let last = inner.hardware.get(machine);
            let record = Record::new(machine, mac, at, hardware, last);
            let new = last != Some(&record);
            inner.hardware.insert(machine.to_string(), record.clone());
            (record, new)
        };
        if new {
            self.changes.fetch_add(1, Ordering::Relaxed);
            if let Err(error) = self.store.record_hardware(record).await {
                self.failed(&error);
            }
            let stranger = !desk.site().machines.contains_key(&mac);
            let then = match stranger {
                true => format!("; `koboshi adopt {mac}` writes it into the site file"),
                false => String::new(),
            };
            self.event("hardware", Some(machine.to_string()), format!("{line}{then}")).await;
        }
    }

    /// Where machines' words disagree with their past or with the site, by machine. What is new in it
    /// becomes an event.
    pub async fn weigh(&self, evidence: HashMap<String, Vec<String>>) {
        let mut last = std::mem::replace(&mut self.inner().evidence, evidence.clone());
        for (machine, found) in evidence {
            let last = last.remove(&machine).unwrap_or_default();
            for text in found.into_iter().filter(|text| !last.contains(text)) {
                self.event("evidence", Some(machine.clone()), text).await;
            }
        }
    }

    /// What [`Ledger::weigh`] found last.
    pub fn evidence(&self) -> HashMap<String, Vec<String>> {
        self.inner().evidence.clone()
    }

    /// A machine is up: how long each step took it.
    fn learn(&self, mac: Mac) {
        let mut inner = self.inner();
        if let Some(lesson) = inner.boots.get(&mac).and_then(Lesson::of_up) {
            inner.learned.learn(lesson);
        }
    }

    fn failed(&self, error: &StoreError) {
        self.failures.fetch_add(1, Ordering::Relaxed);
        tracing::error!(%error, "the ledger could not be written");
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn push(record: &mut BootRecord, mark: Mark) {
    if record.marks.len() >= MARKS_MAX {
        record.marks.remove(MARKS_BEGIN);
    }
    record.marks.push(mark);
}

/// A phase as a stage and a line for people.
fn words(phase: &Phase) -> (Stage, String) {
    match phase {
        Phase::Init { kernel, memory_mib, nic } => {
            (Stage::Init, format!("Linux {}, {memory_mib} MiB, {}", clean(kernel), clean(nic)))
        }
        // Kept for itself; it moves no boot.
        Phase::Hardware(hardware) => (Stage::Init, hardware::summary(hardware)),
        Phase::Asks => (
            Stage::Waiting,
            "koboshi-init asks at its console what this machine shall be".to_string(),
        ),
        Phase::RootBegun { attempt: 1 } => (Stage::Root, String::new()),
        Phase::RootBegun { attempt } => (Stage::Root, format!("try {attempt}")),
        Phase::RootReady { bytes: 0, ms, attempts } => {
            let tries = if *attempts > 1 { format!(", {attempts} tries") } else { String::new() };
            (Stage::RootReady, format!("mounted in {:.1} s{tries}", *ms as f64 / 1e3))
        }
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

    fn boot(machine: &str, id: u8) -> BootRecord {
        let part =
            |name: &str| koboshi_pxe::boots::Part { name: name.into(), sha256: [0; 32], size: 1 };
        let address = Ipv4Addr::new(10, 77, 0, 11);
        let plan = koboshi_pxe::boots::Plan {
            machine: machine.into(),
            seat: Some("web1".into()),
            role: "web".into(),
            hostname: "web1".into(),
            address,
            image: "web@1".into(),
            kernel: part("kernel"),
            segments: vec![],
            root: Some(part("root")),
            cmdline: String::new(),
            revision: 1,
            orders: String::new(),
            blobs: HashMap::new(),
        };
        BootRecord {
            id: BootId([id; 16]),
            mac: Mac([2, 0, 0, 0, 0, id]),
            machine: machine.into(),
            address,
            fixed: true,
            lent: None,
            via: None,
            opened: u64::from(id),
            stage: Stage::Offer,
            plan: Some(Arc::new(plan)),
            marks: Vec::new(),
            over: false,
            after: None,
            fenced: false,
        }
    }

    async fn kinds(events: &mut broadcast::Receiver<Event>, count: usize) -> Vec<String> {
        let mut kinds = Vec::new();
        for _ in 0..count {
            let event = tokio::time::timeout(Duration::from_secs(10), events.recv()).await;
            kinds.push(event.expect("told in time").expect("told").kind);
        }
        kinds
    }

    fn holder(machine: &str, id: u8) -> Holder {
        Holder {
            seat: "web1".into(),
            address: Ipv4Addr::new(10, 77, 0, 11),
            machine: machine.into(),
            mac: Mac([2, 0, 0, 0, 0, id]),
            boot: BootId([id; 16]),
            since: SystemTime::now(),
            heard: None,
            down: false,
        }
    }

    #[tokio::test]
    async fn what_firmware_said_is_remembered_over_a_restart() {
        use koboshi_pxe::decide::Arch;
        use koboshi_pxe::firmware::{Firmware, Way};
        let dir = tempfile::tempdir().expect("a temporary directory");
        let store = Store::open(dir.path()).expect("a new state");
        let ledger = Ledger::new(store.clone(), Vec::new(), Vec::new());
        let pxe = Firmware { arch: Arch::EFI64, way: Way::Pxe };
        ledger.firmware_told("m01", pxe).await;
        ledger.firmware_told("m01", Firmware { way: Way::Ipxe, ..pxe }).await;
        assert_eq!(ledger.firmware("m01"), Some(pxe), "its iPXE says nothing new");
        ledger.firmware_told("m01", Firmware { arch: Arch::BIOS, ..pxe }).await;
        // In order with whatever is waited for.
        ledger.event("test", None, String::new()).await;
        let mut events = ledger.follow();
        ledger.event("test", None, String::new()).await;
        kinds(&mut events, 1).await;
        let again = Ledger::new(store, Vec::new(), Vec::new());
        assert_eq!(again.firmware("m01").map(Firmware::is_efi), Some(false));
        assert_eq!(again.firmware("m02"), None);
    }

    #[tokio::test]
    async fn a_seat_is_held_from_the_promise_until_the_desk_says_that_it_is_free() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let store = Store::open(dir.path()).expect("a new state");
        let ledger = Arc::new(Ledger::new(store.clone(), Vec::new(), Vec::new()));
        let mut events = ledger.follow();
        let held = || {
            let held = store.holdings().expect("read");
            held.into_iter().map(|held| (held.machine, held.boot)).collect::<Vec<_>>()
        };
        let m01 = ("m01".to_string(), BootId([1; 16]));
        ledger.opened(boot("m01", 1), Some("web1".into()), &[]).await;
        // The desk would never say this; if it did, the books are not changed by it, and it is told.
        ledger.opened(boot("m02", 2), Some("web1".into()), &[]).await;
        assert_eq!(kinds(&mut events, 1).await, ["conflict"]);
        assert_eq!(held(), std::slice::from_ref(&m01));

        // Its firmware begins another boot: it has not left by that alone.
        let over = [(BootId([1; 16]), Mac([2, 0, 0, 0, 0, 1]))];
        let mut other = boot("m01", 3);
        other.plan = None;
        ledger.opened(other, None, &over).await;
        ledger.freed(holder("m02", 2), "it is not its holder".into(), 9).await;
        assert_eq!(kinds(&mut events, 1).await, ["freed"]);
        assert_eq!(held(), [m01]);
        ledger.freed(holder("m01", 1), "its firmware began another boot".into(), 9).await;
        assert_eq!(kinds(&mut events, 1).await, ["freed"]);
        assert_eq!(held(), []);
    }

    #[tokio::test]
    async fn a_fence_ends_boots_on_disk_before_it_is_answered() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let store = Store::open(dir.path()).expect("a new state");
        let ledger = Arc::new(Ledger::new(store.clone(), Vec::new(), Vec::new()));
        let mut events = ledger.follow();
        ledger.opened(boot("m01", 1), Some("web1".into()), &[]).await;
        let over = [(BootId([1; 16]), Mac([2, 0, 0, 0, 0, 1]))];
        let by = "by hand, by root".to_string();
        ledger.fenced("m01".into(), &over, vec![holder("m01", 1)], by, 9).await;
        let record = store.boot(BootId([1; 16])).expect("read").expect("remembered");
        assert!(record.over && record.fenced);
        assert_eq!(
            record.marks.last().map(|mark| mark.note.as_str()),
            Some("fenced: by hand, by root")
        );
        assert!(store.holdings().expect("read").is_empty());
        let event = tokio::time::timeout(Duration::from_secs(10), events.recv()).await;
        let event = event.expect("told in time").expect("told");
        assert_eq!(event.text, "is fenced, by hand, by root; free is web1");
    }

    #[tokio::test]
    async fn a_late_boot_is_said_to_be_unless_it_has_moved_and_teaches_nothing() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let store = Store::open(dir.path()).expect("a new state");
        let ledger = Arc::new(Ledger::new(store.clone(), Vec::new(), Vec::new()));
        let (id, mac) = (BootId([1; 16]), Mac([2, 0, 0, 0, 0, 1]));
        ledger.opened(boot("m01", 1), None, &[]).await;
        ledger.mark(id, Stage::Ack, String::new(), 1_000, Source::Wire).await;
        let cause = crate::diagnosis::late::Cause {
            seen: "never asked for ipxe.efi".into(),
            late: crate::store::Late { usual: "a firewall".into(), next: "open it".into() },
        };
        let finding = |stage| Finding { id, machine: "m01".into(), stage, cause: cause.clone() };
        ledger.is_late(&finding(Stage::Offer), 2_000).await;
        assert_eq!(ledger.newest()[&mac].marks.len(), 1, "it has moved on since");
        ledger.is_late(&finding(Stage::Ack), 2_000).await;
        let marks = ledger.newest()[&mac].marks.clone();
        assert_eq!(
            (marks[1].note.as_str(), marks[1].stage),
            ("never asked for ipxe.efi", Stage::Ack)
        );
        assert_eq!(ledger.heard(mac), Some(1_000), "that was no sign of life");
        let kept =
            store.append(Event { id: 0, at: 0, kind: "x".into(), who: None, text: String::new() });
        kept.await.expect("queued").await.expect("all before it is on disk");
        let shown = crate::ops::boots::show(&store.boots_of("m01").expect("read"));
        assert!(
            shown.contains("LATE        never asked for ipxe.efi\n")
                && shown.contains("usually: a firewall\n")
                && shown.contains("next: open it\n"),
            "{shown}"
        );
        // A new process: what was said late was no sign of life either.
        let again =
            Ledger::new(store.clone(), store.newest_boots(|_| {}).expect("read"), Vec::new());
        assert_eq!(again.heard(mac), Some(1_000));
    }

    #[tokio::test]
    async fn what_is_seen_on_the_wire_never_moves_a_machine_back_that_speaks() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let store = Store::open(dir.path()).expect("a new state");
        let ledger = Arc::new(Ledger::new(store, Vec::new(), Vec::new()));
        let (id, mac) = (BootId([1; 16]), Mac([2, 0, 0, 0, 0, 1]));
        ledger.opened(boot("m01", 1), None, &[]).await;
        let steps = [
            (Stage::Loader, Source::Wire, Stage::Loader),
            (Stage::Ack, Source::Wire, Stage::Loader),
            (Stage::Up, Source::Machine, Stage::Up),
            (Stage::Kernel, Source::Wire, Stage::Up),
            (Stage::Trouble, Source::Machine, Stage::Trouble),
        ];
        for (stage, source, reached) in steps {
            ledger.mark(id, stage, String::new(), 1, source).await;
            assert_eq!(ledger.newest()[&mac].stage, reached, "{stage:?}");
        }
        // A long trouble drops its middle, not its beginning or its end.
        for number in 0..1000 {
            ledger.mark(id, Stage::Trouble, format!("{number}"), 1, Source::Machine).await;
        }
        let marks = &ledger.newest()[&mac].marks;
        assert_eq!((marks.len(), marks[0].stage), (MARKS_MAX, Stage::Loader));
        assert_eq!(marks[MARKS_MAX - 1].note, "999");
    }
}
