//! What machines say of themselves, from `init` to the last heartbeat: read, bounded, and written into
//! the timeline of the boot it belongs to. It is evidence, and moves nothing but that timeline.

use std::collections::HashMap;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use koboshi_initramfs::contract::{Hardware, Phase, Report};
use koboshi_pxe::boots::Stage;
use koboshi_pxe::desk::Desk;
use koboshi_pxe::{BootId, Mac};
use tokio::sync::mpsc;

use super::{Ledger, Source, Wish};
use crate::hardware::{self, Record};
use crate::surveys;

/// Characters of a note that a machine wrote.
pub(super) const NOTE_MAX: usize = 400;

impl Ledger {
    pub(super) async fn report(
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
        let (machine, fixed, was_up, missed, last) = {
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
            (boot.machine.clone(), boot.fixed, was_up, missed, boot.stage)
        };
        let phase = match report.phase {
            Phase::Hardware(hardware) => {
                return self.hardware_told(desk, (&machine, mac), *hardware, at).await;
            }
            phase => phase,
        };
        // At its seat's address it needs none: what its loader may have been lent ends by itself.
        let wishes = (!fixed).then_some(wishes);
        if let Phase::Working { .. } = phase {
            // As good as a heartbeat.
            self.keep_lease(wishes, mac);
        }
        if self.ticket_report((id, mac), &phase).await {
            return;
        }
        let (stage, mut note) = words(&phase);
        if let Phase::Heartbeat { .. } = phase {
            self.keep_lease(wishes, mac);
            self.rollout.heard(&machine, id);
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

    /// The pool's lease of a machine that runs no DHCP client lives by its heartbeats.
    fn keep_lease(&self, wishes: Option<&mpsc::Sender<Wish>>, mac: Mac) {
        if wishes.is_some_and(|wishes| wishes.try_send(Wish::Keep(mac)).is_err()) {
            self.failures.fetch_add(1, Ordering::Relaxed);
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
}

/// A phase as a stage and a line for people.
pub(super) fn words(phase: &Phase) -> (Stage, String) {
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
        // Kept with the ticket.
        Phase::Working { .. } => (Stage::Up, "works".to_string()),
        Phase::Surveyed(survey) => (Stage::Up, clean(&surveys::summary(survey))),
        Phase::Wiped(disk) => (Stage::Up, clean(&disk.note)),
        Phase::Prepared(disk) => (Stage::Up, clean(&disk.note)),
        Phase::Finished { message, .. } => (Stage::Up, clean(message)),
        Phase::Trouble { message } => (Stage::Trouble, clean(message)),
        Phase::Rescue { message } => (Stage::Rescue, clean(message)),
        Phase::Down => (Stage::Down, String::new()),
    }
}

/// What a machine wrote, fit for a terminal: no control characters, not without end.
pub(super) fn clean(text: &str) -> String {
    text.chars().take(NOTE_MAX).map(|c| if c.is_control() { '·' } else { c }).collect()
}
