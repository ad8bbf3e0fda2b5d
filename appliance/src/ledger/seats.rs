//! Seats that become free, and machines that report from seats which are not theirs any more: the
//! ledger's part of the gate. What the desk has decided is written down here, in the same order.

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use koboshi_pxe::desk::Desk;
use koboshi_pxe::seats::Holder;
use koboshi_pxe::{BootId, Mac};

use super::{GHOST_AGAIN_MS, Ghost, Ledger};
use crate::store::{BootRecord, Mark};

/// Machines that report from seats which are not theirs, at once.
const GHOSTS_MAX: usize = 4096;

impl Ledger {
    /// Machines that report from seats which they are not known to hold, by name.
    pub fn ghosts(&self) -> Vec<(String, Ghost)> {
        self.inner()
            .ghosts
            .iter()
            .map(|(machine, ghost)| (machine.clone(), ghost.clone()))
            .collect()
    }

    /// A seat is free.
    pub(super) async fn freed(self: &Arc<Ledger>, holder: Holder, why: String, at: u64) {
        let ended = self.end(holder.boot, holder.mac, &why, at, false);
        let seats = vec![(holder.seat.clone(), holder.boot)];
        if let Err(error) = self.store.release(seats, ended.into_iter().collect()).await {
            return self.failed(&error);
        }
        let text = format!("is free of {}: {why}", holder.machine);
        self.event("freed", Some(holder.seat), text).await;
    }

    /// A machine cannot run any more. Returns when that is on disk.
    pub(super) async fn fenced(
        self: &Arc<Ledger>,
        machine: String,
        over: &[(BootId, Mac)],
        freed: Vec<Holder>,
        by: String,
        at: u64,
    ) {
        let note = format!("fenced: {by}");
        // A machine that had shut down has no boot under way, and may have one that is not over.
        let mut boots = over.to_vec();
        boots.extend(freed.iter().map(|holder| (holder.boot, holder.mac)));
        boots.dedup();
        let ended = boots.iter().filter_map(|(id, mac)| self.end(*id, *mac, &note, at, true));
        let ended = ended.collect();
        let seats = freed.iter().map(|holder| (holder.seat.clone(), holder.boot)).collect();
        match self.store.release(seats, ended).await {
            // Where the disk is gone the process ends, and says so.
            Ok(written) => written.await.unwrap_or_default(),
            Err(error) => return self.failed(&error),
        }
        let free: Vec<&str> = freed.iter().map(|holder| holder.seat.as_str()).collect();
        let text = match free.as_slice() {
            [] => format!("is fenced, {by}; it held no seat"),
            seats => format!("is fenced, {by}; free is {}", seats.join(", ")),
        };
        self.event("fenced", Some(machine), text).await;
    }

    fn end(&self, id: BootId, mac: Mac, note: &str, at: u64, fenced: bool) -> Option<BootRecord> {
        let mut inner = self.inner();
        inner.ids.remove(&id);
        inner.reports.remove(&id);
        let boot = inner.boots.get_mut(&mac).filter(|boot| boot.id == id)?;
        if boot.over && !fenced {
            return None;
        }
        self.rollout.ordered(&boot.machine);
        boot.over = true;
        boot.fenced = fenced;
        boot.marks.push(Mark {
            at,
            stage: boot.stage,
            note: note.to_string(),
            late: None,
            power: None,
            console: None,
        });
        Some(boot.clone())
    }

    /// A report came in for a boot that is not under way. If it is one that is over, its machine is
    /// not what we think it is: it runs, at a seat's address.
    pub(super) async fn stray(
        self: &Arc<Ledger>,
        desk: &Desk,
        id: BootId,
        address: Ipv4Addr,
        at: u64,
    ) {
        let record = match self.store.boot(id) {
            Ok(Some(record)) if record.over && record.address == address => record,
            // An id that nobody was given, or a stranger's word about another's boot.
            Ok(_) => return,
            Err(error) => return self.failed(&error),
        };
        let Some(seat) = record.plan.as_ref().and_then(|plan| plan.seat.clone()) else { return };
        let machine = record.machine.clone();
        let holder = Holder {
            seat: seat.clone(),
            address,
            machine: machine.clone(),
            mac: record.mac,
            boot: id,
            since: UNIX_EPOCH + Duration::from_millis(record.opened),
            heard: Some(UNIX_EPOCH + Duration::from_millis(at)),
            down: false,
        };
        let other = match record.fenced {
            // Whoever fenced it was wrong, and has to act: a seat is not taken back for that.
            true => desk.holders().into_iter().find(|held| {
                held.machine != machine && (held.seat == seat || held.address == address)
            }),
            false => desk.alive(holder),
        };
        let other = other.map(|holder| holder.machine);
        {
            let mut inner = self.inner();
            if inner.ghosts.len() >= GHOSTS_MAX && !inner.ghosts.contains_key(&machine) {
                return;
            }
            let last = inner.ghosts.get(&machine);
            let told = last.map(|ghost| ghost.told.clone());
            let again = told.filter(|told| told.0 == other && at < told.1 + GHOST_AGAIN_MS);
            let ghost = Ghost {
                seat: seat.clone(),
                address,
                heard: at,
                told: again.clone().unwrap_or_else(|| (other.clone(), at)),
            };
            inner.ghosts.insert(machine.clone(), ghost);
            if again.is_some() {
                return;
            }
        }
        let text = match (&other, record.fenced) {
            (Some(other), _) => format!(
                "still reports from {seat}, which {other} has: two machines answer at {address}; switch {machine} off"
            ),
            (None, true) => format!(
                "was said to be off, and still reports from {seat} ({address}): switch it off before anybody sits there"
            ),
            (None, false) => format!(
                "still reports from {seat} ({address}), though its boot was over: it keeps {seat}; look who boots by its MAC"
            ),
        };
        self.event("conflict", Some(machine), text).await;
    }
}
