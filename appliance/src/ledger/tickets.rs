//! Orders for one boot of a machine, from their giving to what came of them: what the desk has in force is written
//! down here, and what the machine says of its work goes into the receipt.

mod receipt;

use std::collections::HashMap;
use std::time::{Duration, Instant};

use koboshi_initramfs::contract::duty::{Prepared, WORKS_MAX, Work};
use koboshi_initramfs::contract::{Hardware, Phase, Survey};
use koboshi_pxe::boots::Stage;
use koboshi_pxe::decide;
use koboshi_pxe::desk::Desk;
use koboshi_pxe::{BootId, Mac};
use tokio::sync::oneshot;

use receipt::{receipt, short, tidy, tidy_prepared};

use super::reports::clean;
use super::{Ledger, now_ms};
use crate::receipts::Receipts;
use crate::store::{BootRecord, Store, StoreError, Ticket, TicketState};
use crate::surveys::{self, Surveyed};

/// As good as no end.
const FOR_EVER: Duration = Duration::from_secs(10 * 365 * 86_400);
/// Disks of one machine in a receipt.
const DISKS_MAX: usize = 512;

/// What the ledger knows of orders.
#[derive(Default)]
pub(super) struct Orders {
    /// The last one of each machine.
    last: HashMap<String, Ticket>,
    /// How far those under way are.
    works: HashMap<String, Vec<Work>>,
    /// Where receipts are written, and for which site.
    receipts: Option<(Receipts, String)>,
}

impl Orders {
    /// Their time goes on as it did.
    pub(super) fn clock_was_set(&mut self, by: i64) {
        self.last.values_mut().for_each(|ticket| move_along(ticket, by));
    }
}

fn move_along(ticket: &mut Ticket, by: i64) {
    for at in [&mut ticket.at, &mut ticket.since, &mut ticket.until] {
        *at = at.saturating_add_signed(by);
    }
}

impl Ledger {
    /// The same, with the orders it remembers, and signing receipts for a site.
    pub fn ordering(self, tickets: Vec<Ticket>, receipts: Receipts, site: &str) -> Ledger {
        {
            let mut inner = self.inner();
            let (orders, now) = (&mut inner.orders, now_ms());
            let named = tickets.into_iter().map(|mut ticket| {
                // Given in what is still to come: the clock was set back, and it lasts no longer for that.
                let ahead = ticket.at.saturating_sub(now);
                move_along(&mut ticket, i64::try_from(ahead).map_or(0, i64::wrapping_neg));
                (ticket.machine.clone(), ticket)
            });
            orders.last = named.collect();
            orders.receipts = Some((receipts, site.to_string()));
        }
        self
    }

    /// Puts orders in force again after a restart: all but those that a boot has taken.
    pub async fn orders_in_force(&self, desk: &Desk) {
        let boots: Vec<BootRecord> = self.inner().boots.values().cloned().collect();
        for boot in boots.iter().filter(|boot| !boot.over) {
            self.ticket_boots(boot, boot.stage).await;
        }
        for (ticket, _) in self.tickets() {
            if ticket.state == TicketState::Open {
                desk.order(&ticket.machine, Some(in_force(&ticket)));
            }
        }
    }

    /// The last order of every machine, with how far it is.
    pub fn tickets(&self) -> Vec<(Ticket, Vec<Work>)> {
        let inner = self.inner();
        let works = |ticket: &Ticket| inner.orders.works.get(&ticket.machine).cloned();
        let all = inner.orders.last.values().cloned();
        let mut all: Vec<_> =
            all.map(|ticket| (works(&ticket).unwrap_or_default(), ticket)).collect();
        all.sort_by(|(_, a), (_, b)| a.machine.cmp(&b.machine));
        all.into_iter().map(|(works, ticket)| (ticket, works)).collect()
    }

    /// A machine's last order, and how far it is.
    pub fn ticket(&self, machine: &str) -> Option<(Ticket, Vec<Work>)> {
        let inner = self.inner();
        let works = inner.orders.works.get(machine).cloned().unwrap_or_default();
        Some((inner.orders.last.get(machine)?.clone(), works))
    }

    /// Gives an order: it is on disk before it is in force.
    pub async fn order(&self, desk: &Desk, ticket: Ticket) -> Result<Ticket, StoreError> {
        let written = self.store.put_ticket(ticket).await?;
        let ticket = heard_of(self.store.clone(), written).await?;
        desk.order(&ticket.machine, Some(in_force(&ticket)));
        {
            let mut inner = self.inner();
            inner.orders.works.remove(&ticket.machine);
            inner.orders.last.insert(ticket.machine.clone(), ticket.clone());
        }
        let text = format!("ordered by {} for its next boot (ticket {})", ticket.by, ticket.id);
        let kind = format!("maintain-{}", ticket.duty);
        self.event(&kind, Some(ticket.machine.clone()), text).await;
        Ok(ticket)
    }

    /// Takes an order back, unless a boot has it. Says how it stands now.
    pub async fn cancel(&self, desk: &Desk, machine: &str, by: &str) -> Option<Ticket> {
        let (ticket, _) = self.ticket(machine)?;
        if ticket.state != TicketState::Open {
            return Some(ticket);
        }
        desk.order(machine, None);
        let says = format!("taken back by {by}");
        self.ticket_is(machine, ticket.id, TicketState::Cancelled, says).await;
        self.ticket(machine).map(|(ticket, _)| ticket)
    }

    /// Orders whose time is over. To be called now and then.
    pub async fn forget_tickets(&self, desk: &Desk) {
        let now = now_ms();
        let late = |ticket: &Ticket| ticket.state == TicketState::Open && ticket.until <= now;
        let late: Vec<Ticket> = {
            let inner = self.inner();
            inner.orders.last.values().filter(|ticket| late(ticket)).cloned().collect()
        };
        for ticket in late {
            desk.order(&ticket.machine, None);
            let says = "it did not boot in time: the ticket is for nobody any more".to_string();
            self.ticket_is(&ticket.machine, ticket.id, TicketState::Expired, says).await;
        }
    }

    /// A boot of a ticket reports, or was handed what it is: it has the ticket.
    pub(super) async fn ticket_boots(&self, boot: &BootRecord, stage: Stage) {
        let Some(plan) = &boot.plan else { return };
        let Some(id) = plan.ticket else { return };
        if stage < Stage::Init && !(plan.is_bare() && stage == Stage::Kernel) {
            return;
        }
        let ticket = {
            let mut inner = self.inner();
            let Some(ticket) = inner.orders.last.get_mut(&boot.machine) else { return };
            if ticket.id != id || ticket.state != TicketState::Open {
                return;
            }
            (ticket.state, ticket.boot, ticket.since) =
                (TicketState::Running, Some(boot.id), now_ms());
            ticket.clone()
        };
        let text = format!("has begun (ticket {}, boot {})", ticket.id, boot.id);
        self.ticket_told(ticket, text).await;
    }

    /// What a machine says of the work it was given. True if that was all it said.
    pub(super) async fn ticket_report(&self, (id, mac): (BootId, Mac), phase: &Phase) -> bool {
        let Some(machine) = self.has_ticket(id, mac) else {
            return matches!(
                phase,
                Phase::Working { .. }
                    | Phase::Surveyed(_)
                    | Phase::Wiped(_)
                    | Phase::Prepared(_)
                    | Phase::Finished { .. }
            );
        };
        match phase {
            Phase::Working { works } => {
                let works = works.iter().take(WORKS_MAX).map(|work| Work {
                    what: short(&work.what),
                    step: short(&work.step),
                    ..*work
                });
                let works = works.collect();
                self.inner().orders.works.insert(machine, works);
            }
            Phase::Surveyed(survey) => self.surveyed(&machine, id, survey).await,
            Phase::Wiped(disk) => {
                let disk = tidy(disk);
                let text = match (&disk.wiped, disk.note.as_str()) {
                    (true, _) => format!(
                        "{} {} is wiped ({}), {} MiB of {} read back",
                        disk.name,
                        disk.serial,
                        disk.steps.join(", "),
                        disk.verified >> 20,
                        disk.bytes >> 20
                    ),
                    (false, note) => format!("{} {} is not wiped: {note}", disk.name, disk.serial),
                };
                let ticket = {
                    let mut inner = self.inner();
                    let Some(ticket) = inner.orders.last.get_mut(&machine) else { return true };
                    // Said again, because its answer was lost.
                    ticket.disks.retain(|known| known.name != disk.name);
                    if ticket.disks.len() < DISKS_MAX {
                        ticket.disks.push(disk);
                    }
                    ticket.clone()
                };
                self.ticket_told(ticket, text).await;
            }
            Phase::Prepared(disk) => {
                let disk = tidy_prepared(disk);
                let Prepared { name, serial, device, fs, label, uuid, .. } = &disk;
                let text = match disk.prepared {
                    true => format!(
                        "{name} {serial} is prepared: {fs} LABEL={label} UUID={uuid} on {device}"
                    ),
                    false => format!("{name} {serial} is not prepared: {}", disk.note),
                };
                let ticket = {
                    let mut inner = self.inner();
                    let Some(ticket) = inner.orders.last.get_mut(&machine) else { return true };
                    ticket.prepared.retain(|known| known.name != disk.name);
                    if ticket.prepared.len() < DISKS_MAX {
                        ticket.prepared.push(disk);
                    }
                    ticket.clone()
                };
                self.ticket_told(ticket, text).await;
            }
            Phase::Finished { well, message } => {
                let Some((ticket, _)) = self.ticket(&machine) else { return true };
                let says = clean(message);
                match (*well, &ticket.after) {
                    (true, Some(_)) => self.ticket_follows(&machine, says).await,
                    (true, None) => {
                        self.ticket_is(&machine, ticket.id, TicketState::Done, says).await;
                    }
                    (false, after) => {
                        let rest = if after.is_some() { "; the rest was left undone" } else { "" };
                        let says = format!("{says}{rest}");
                        self.ticket_is(&machine, ticket.id, TicketState::Failed, says).await;
                    }
                }
            }
            _ => return false,
        }
        true
    }

    /// Keeps what a set-up found.
    async fn surveyed(&self, machine: &str, boot: BootId, survey: &Survey) {
        let survey = surveys::tidy(survey.clone());
        let text = surveys::summary(&survey);
        let surveyed = Surveyed { machine: machine.to_string(), at: now_ms(), boot, survey };
        {
            let mut inner = self.inner();
            let last = inner.surveys.insert(machine.to_string(), surveyed.clone());
            // Said again, because its answer was lost.
            if last.is_some_and(|last| (last.boot, &last.survey) == (boot, &surveyed.survey)) {
                return;
            }
        }
        if let Err(error) = self.store.record_survey(surveyed).await {
            self.failed(&error);
        }
        self.event("survey", Some(machine.to_string()), text).await;
    }

    /// The machine has done its part: what is left is the appliance's.
    async fn ticket_follows(&self, machine: &str, says: String) {
        let ticket = {
            let mut inner = self.inner();
            let Some(ticket) = inner.orders.last.get_mut(machine) else { return };
            (ticket.state, ticket.says) = (TicketState::Following, says.clone());
            ticket.clone()
        };
        self.ticket_told(ticket, format!("{says}; the appliance does the rest")).await;
        self.follows.notify_one();
    }

    /// Orders that wait for the appliance's own part.
    pub fn following(&self) -> Vec<Ticket> {
        let inner = self.inner();
        let following = |ticket: &&Ticket| ticket.state == TicketState::Following;
        inner.orders.last.values().filter(following).cloned().collect()
    }

    /// Until there is another one.
    pub async fn followed(&self) {
        self.follows.notified().await;
    }

    /// The appliance has done its part of an order, or could not.
    pub async fn ticket_ends(&self, ticket: &Ticket, well: bool, says: String) {
        let state = if well { TicketState::Done } else { TicketState::Failed };
        self.ticket_is(&ticket.machine, ticket.id, state, says).await;
    }

    /// The machine boots again: an order that was not finished is not going to be.
    pub(super) async fn ticket_over(&self, boot: &BootRecord) {
        let Some((ticket, _)) = self.ticket(&boot.machine) else { return };
        if ticket.state != TicketState::Running || ticket.boot == Some(boot.id) {
            return;
        }
        let (state, says) = match ticket.order {
            Some(_) => (
                TicketState::Unfinished,
                "NOT finished: the machine boots again, and never said that it was done"
                    .to_string(),
            ),
            None => (TicketState::Done, "the machine boots into its own duty again".to_string()),
        };
        self.ticket_is(&boot.machine, ticket.id, state, says).await;
    }

    /// Which machine carries a ticket out by this boot.
    fn has_ticket(&self, id: BootId, mac: Mac) -> Option<String> {
        let inner = self.inner();
        let boot = inner.boots.get(&mac).filter(|boot| boot.id == id)?;
        let ticket = inner.orders.last.get(&boot.machine)?;
        (ticket.state == TicketState::Running && ticket.boot == Some(id))
            .then(|| boot.machine.clone())
    }

    /// It ends so. Its receipt is there before anybody is told.
    async fn ticket_is(&self, machine: &str, id: u64, state: TicketState, says: String) {
        let (mut ticket, receipt) = {
            let inner = self.inner();
            let Some(ticket) = inner.orders.last.get(machine) else { return };
            if ticket.id != id || !ticket.state.stands() {
                return;
            }
            let began = ticket.since;
            let mut ticket = ticket.clone();
            (ticket.state, ticket.since) = (state, now_ms());
            ticket.says.clone_from(&says);
            let receipts = inner.orders.receipts.clone();
            let receipts = receipts.filter(|_| ticket.boot.is_some() && ticket.order.is_some());
            let receipt = receipts.map(|(receipts, site)| {
                let boot = inner.boots.values().find(|boot| ticket.boot == Some(boot.id));
                let address = boot.map(|boot| boot.address.to_string());
                let mut says_it_is = Vec::new();
                if let Some(record) = inner.hardware.get(machine) {
                    let Hardware { vendor, product, serial, uuid, .. } = record.hardware.clone();
                    let all = [vendor, product, serial, uuid];
                    says_it_is.extend(all.into_iter().filter(|word| !word.is_empty()));
                }
                let survey = inner.surveys.get(machine);
                let survey = survey.filter(|survey| Some(survey.boot) == ticket.boot);
                let survey = survey.map(|surveyed| surveyed.survey.clone());
                let told = (address, says_it_is, survey);
                (receipts, receipt(&ticket, &site, began, told))
            });
            (ticket, receipt)
        };
        let mut text = format!("{says} (ticket {})", ticket.id);
        if let Some((receipts, receipt)) = receipt {
            let written = tokio::task::spawn_blocking(move || receipts.write(&receipt)).await;
            match written.map_err(std::io::Error::other).flatten() {
                Ok(name) => {
                    text.push_str(&format!("; `koboshi receipt show {name}`"));
                    ticket.receipt = Some(name);
                }
                Err(error) => {
                    text.push_str(&format!("; its receipt could not be written: {error}"));
                }
            }
        }
        {
            let mut inner = self.inner();
            inner.orders.works.remove(machine);
            inner.orders.last.insert(machine.to_string(), ticket.clone());
        }
        self.ticket_told(ticket, text).await;
    }

    async fn ticket_told(&self, ticket: Ticket, text: String) {
        let (kind, who) = (format!("maintain-{}", ticket.duty), ticket.machine.clone());
        if let Err(error) = self.store.put_ticket(ticket).await {
            self.failed(&error);
        }
        self.event(&kind, Some(who), text).await;
    }
}

/// An order that is on disk, by whoever waits for it. Where nobody does any more (the disk was full for longer
/// than he waited), he was told that nothing was ordered: it is taken back, and no restart puts it in force.
async fn heard_of(store: Store, written: oneshot::Receiver<Ticket>) -> Result<Ticket, StoreError> {
    let (told, waits) = oneshot::channel();
    tokio::spawn(async move {
        let Ok(ticket) = written.await else { return };
        let Err(mut ticket) = told.send(ticket) else { return };
        ticket.state = TicketState::Cancelled;
        ticket.says = "nobody waited any more until it was written".to_string();
        if let Err(error) = store.put_ticket(ticket).await {
            tracing::error!(%error, "an order that nobody waits for stays in the state");
        }
    });
    waits.await.map_err(|_| StoreError::Stopped)
}

/// As the desk has it.
pub fn in_force(ticket: &Ticket) -> decide::Ticket {
    let order = ticket.order.as_ref().and_then(|order| serde_json::to_string(order).ok());
    decide::Ticket {
        id: ticket.id,
        duty: ticket.duty.clone(),
        image: ticket.image.clone(),
        order: order.unwrap_or_default(),
        trouble: None,
        until: deadline(ticket, now_ms()),
    }
}

/// When it ends, by a clock that nobody sets.
fn deadline(ticket: &Ticket, now: u64) -> Instant {
    Instant::now() + Duration::from_millis(ticket.until.saturating_sub(now)).min(FOR_EVER)
}

#[cfg(test)]
mod tests;
