//! Orders for one boot of a machine, from their giving to what came of them: what the desk has in force is written
//! down here, and what the machine says of its work goes into the receipt.

use std::collections::HashMap;
use std::time::{Duration, UNIX_EPOCH};

use jiff::Timestamp;
use koboshi_initramfs::contract::duty::{Prepared, WORKS_MAX, Wiped, Work};
use koboshi_initramfs::contract::{Duty, Hardware, Phase, Survey};
use koboshi_pxe::boots::Stage;
use koboshi_pxe::decide;
use koboshi_pxe::desk::Desk;
use koboshi_pxe::{BootId, Mac};

use super::reports::clean;
use super::{Ledger, now_ms};
use crate::receipts::{Receipt, Receipts};
use crate::store::{BootRecord, StoreError, Ticket, TicketState};
use crate::surveys::{self, Surveyed};

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

impl Ledger {
    /// The same, with the orders it remembers, and signing receipts for a site.
    pub fn ordering(self, tickets: Vec<Ticket>, receipts: Receipts, site: &str) -> Ledger {
        {
            let mut inner = self.inner();
            let orders = &mut inner.orders;
            let named = tickets.into_iter().map(|ticket| (ticket.machine.clone(), ticket));
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
        let ticket = written.await.map_err(|_| StoreError::Stopped)?;
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

/// As the desk has it.
pub fn in_force(ticket: &Ticket) -> decide::Ticket {
    let order = ticket.order.as_ref().and_then(|order| serde_json::to_string(order).ok());
    decide::Ticket {
        id: ticket.id,
        duty: ticket.duty.clone(),
        image: ticket.image.clone(),
        order: order.unwrap_or_default(),
        trouble: None,
        until: UNIX_EPOCH + Duration::from_millis(ticket.until),
    }
}

fn receipt(
    ticket: &Ticket,
    site: &str,
    began: u64,
    (address, says_it_is, survey): (Option<String>, Vec<String>, Option<Survey>),
) -> Receipt {
    let boot = ticket.boot.map(|boot| boot.to_string()).unwrap_or_default();
    let from = address.map(|address| format!(" from {address}")).unwrap_or_default();
    let saw = match &ticket.order {
        Some(Duty::Setup(_)) => {
            "what the machine and its BMC are, the machine reports of itself; what was done to the BMC's accounts, the \
             appliance did, and saw that the BMC let it in"
        }
        _ => {
            "what the disks are, and what was done to them, the machine reports of itself: koboshi wrote and read \
             them back there; nobody else looked"
        }
    };
    let witnesses = vec![
        format!("{} gave the order to the appliance of {site}", ticket.by),
        format!(
            "the appliance gave it to the machine that netboots as {}, and heard its reports of boot {boot}{from}, \
             over a network where nobody proves who he is",
            ticket.machine
        ),
        saw.to_string(),
    ];
    Receipt {
        format: "koboshi receipt 1".to_string(),
        site: site.to_string(),
        machine: ticket.machine.clone(),
        duty: ticket.duty.clone(),
        order: ticket.order.clone(),
        ticket: ticket.id,
        operator: ticket.by.clone(),
        ordered: rfc3339(ticket.at),
        boot,
        began: rfc3339(began),
        ended: rfc3339(ticket.since),
        well: ticket.state == TicketState::Done,
        result: ticket.says.clone(),
        says_it_is,
        disks: ticket.disks.clone(),
        prepared: ticket.prepared.clone(),
        survey,
        witnesses,
    }
}

fn rfc3339(ms: u64) -> String {
    let at = i64::try_from(ms / 1000).ok().and_then(|s| Timestamp::from_second(s).ok());
    at.map(|at| at.to_string()).unwrap_or_default()
}

/// A name or a number that a machine wrote.
fn short(text: &str) -> String {
    clean(text).chars().take(80).collect()
}

fn tidy(disk: &Wiped) -> Wiped {
    Wiped {
        name: short(&disk.name),
        model: short(&disk.model),
        serial: short(&disk.serial),
        bus: short(&disk.bus),
        steps: disk.steps.iter().take(32).map(|step| clean(step)).collect(),
        note: clean(&disk.note),
        ..*disk
    }
}

fn tidy_prepared(disk: &Prepared) -> Prepared {
    let lines = |lines: &[String]| lines.iter().take(32).map(|line| clean(line)).collect();
    Prepared {
        name: short(&disk.name),
        model: short(&disk.model),
        serial: short(&disk.serial),
        bus: short(&disk.bus),
        method: short(&disk.method),
        held: lines(&disk.held),
        steps: lines(&disk.steps),
        device: short(&disk.device),
        fs: short(&disk.fs),
        label: short(&disk.label),
        uuid: short(&disk.uuid),
        note: clean(&disk.note),
        ..*disk
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use koboshi_initramfs::contract::duty::{Setup, Step, Verify, Wipe};

    use super::super::tests::boot;
    use super::*;
    use crate::maintenance::{Account, After};
    use crate::store::Store;

    const MAC: Mac = Mac([2, 0, 0, 0, 0, 1]);

    fn ticket() -> Ticket {
        let (serial, disks) = ("CZ123".to_string(), Vec::new());
        let wipe = Wipe { serial, disks, steps: vec![Step::Zeros], verify: Verify::All };
        Ticket {
            id: 0,
            machine: "m01".into(),
            duty: "wipe".into(),
            image: "wipe".into(),
            order: Some(Duty::Wipe(wipe)),
            after: None,
            by: "root".into(),
            at: 1_000,
            until: u64::MAX,
            state: TicketState::Open,
            since: 1_000,
            boot: None,
            disks: Vec::new(),
            prepared: Vec::new(),
            says: String::new(),
            receipt: None,
        }
    }

    /// A boot of the ticket; `segments`: something that can report.
    fn of(id: u8, ticket: Option<u64>) -> BootRecord {
        let mut record = boot("m01", id);
        record.mac = MAC;
        let mut plan = record.plan.as_deref().expect("a plan").clone();
        plan.ticket = ticket;
        plan.segments = vec![plan.kernel.clone()];
        record.plan = Some(Arc::new(plan));
        record
    }

    async fn ledger(dir: &std::path::Path) -> Ledger {
        let store = Store::open(dir).expect("a state");
        let put = store.put_ticket(ticket()).await.expect("queued");
        assert_eq!(put.await.expect("written").id, 1);
        over(store, dir)
    }

    fn over(store: Store, dir: &std::path::Path) -> Ledger {
        let tickets = store.tickets().expect("read");
        let ledger = Ledger::new(store, Vec::new(), Vec::new());
        ledger.ordering(tickets, Receipts::of(dir), "lab")
    }

    fn boots(ledger: &Ledger, record: &BootRecord) {
        let mut inner = ledger.inner();
        inner.ids.insert(record.id, record.mac);
        inner.boots.insert(record.mac, record.clone());
    }

    fn state(ledger: &Ledger) -> TicketState {
        ledger.ticket("m01").expect("a ticket").0.state
    }

    fn disk(serial: &str) -> Phase {
        let (name, serial) = (format!("vd{serial}"), format!("\x1b[2J{serial}"));
        Phase::Wiped(Box::new(Wiped { name, serial, wiped: true, ..Wiped::default() }))
    }

    #[tokio::test]
    async fn a_wipe_from_its_order_to_its_receipt() {
        let dir = tempfile::tempdir().expect("a directory");
        let ledger = ledger(dir.path()).await;
        let other = of(1, Some(9));
        boots(&ledger, &other);
        ledger.ticket_boots(&other, Stage::Up).await;
        assert_eq!(state(&ledger), TicketState::Open, "a boot of another ticket");
        let record = of(2, Some(1));
        boots(&ledger, &record);
        ledger.ticket_boots(&record, Stage::Initramfs).await;
        assert_eq!(state(&ledger), TicketState::Open, "nothing has reported");
        ledger.ticket_boots(&record, Stage::Init).await;
        assert_eq!(state(&ledger), TicketState::Running);

        let of_boot = (record.id, MAC);
        let finished = Phase::Finished { well: true, message: "wiped\x07".into() };
        assert!(ledger.ticket_report((BootId([9; 16]), MAC), &finished).await);
        assert_eq!(state(&ledger), TicketState::Running, "not of its boot");
        assert!(!ledger.ticket_report(of_boot, &Phase::Down).await);
        let work = Work { what: "\x1b[2Jvda".into(), step: "zeros".into(), done: 1, of: 2 };
        ledger.ticket_report(of_boot, &Phase::Working { works: vec![work; 1000] }).await;
        let works = ledger.ticket("m01").expect("a ticket").1;
        assert!(works.len() == WORKS_MAX && works[0].what == "·[2Jvda");
        for serial in ["a", "b", "a"] {
            ledger.ticket_report(of_boot, &disk(serial)).await;
        }
        ledger.ticket_report(of_boot, &finished).await;
        let (ticket, works) = ledger.ticket("m01").expect("a ticket");
        assert_eq!((ticket.state, ticket.disks.len()), (TicketState::Done, 2));
        assert!(works.is_empty());
        let name = ticket.receipt.expect("a receipt");
        let signed = Receipts::of(dir.path()).read(&name).expect("it is there");
        let key = crate::receipts::public_key(&signed.key).expect("a key");
        assert_eq!(crate::receipts::verify(&signed, &key), Ok(()));
        let receipt: Receipt = serde_json::from_value(signed.receipt).expect("ours");
        assert_eq!((receipt.well, receipt.result.as_str()), (true, "wiped·"));
        assert_eq!(receipt.disks[0].serial, "·[2Jb");
        ledger.ticket_over(&of(3, None)).await;
        assert_eq!(state(&ledger), TicketState::Done, "what follows changes nothing");
    }

    /// What the machine found is kept; the rest is the appliance's, over a restart of it and of the machine.
    #[tokio::test]
    async fn a_set_up_is_kept_and_followed() {
        let dir = tempfile::tempdir().expect("a directory");
        let store = Store::open(dir.path()).expect("a state");
        let order = Some(Duty::Setup(Setup::default()));
        let after = Some(After { account: Some(Account::default()), ..After::default() });
        let set_up = Ticket { duty: "setup".into(), order, after, ..ticket() };
        store.put_ticket(set_up.clone()).await.expect("queued").await.expect("written");
        let former = over(store.clone(), dir.path());
        let record = of(2, Some(1));
        boots(&former, &record);
        let survey = |left_out| {
            let mut survey = Survey { left_out, ..Survey::default() };
            survey.board.serial = "\x1b[2JUM19".into();
            Phase::Surveyed(Box::new(survey))
        };
        assert!(former.ticket_report((record.id, MAC), &survey(1)).await, "and no more");
        assert_eq!(former.survey("m01"), None, "it has no ticket yet");
        former.ticket_boots(&record, Stage::Up).await;
        former.ticket_report((record.id, MAC), &survey(1)).await;
        former.ticket_report((record.id, MAC), &survey(2)).await;
        let kept = former.survey("m01").expect("kept");
        assert_eq!((&*kept.survey.board.serial, kept.survey.left_out), ("·[2JUM19", 2));
        let finished = Phase::Finished { well: true, message: "surveyed".into() };
        former.ticket_report((record.id, MAC), &finished).await;
        assert_eq!(state(&former), TicketState::Following);
        former.followed().await;
        let mut events = former.follow();
        former.event("x", None, String::new()).await;
        while events.recv().await.expect("an event").kind != "x" {}

        let ledger = over(store.clone(), dir.path());
        boots(&ledger, &record);
        ledger.ticket_over(&of(3, None)).await;
        let [following] = &ledger.following()[..] else { panic!("it is forgotten") };
        assert_eq!((&*following.says, ledger.survey("m01")), ("surveyed", Some(kept)));
        ledger.ticket_ends(following, false, "surveyed; its BMC refuses".into()).await;
        let (ended, _) = ledger.ticket("m01").expect("a ticket");
        assert_eq!((ended.state, &*ended.says), (TicketState::Failed, "surveyed; its BMC refuses"));
        assert!(ledger.following().is_empty());
        let signed = Receipts::of(dir.path()).read(&ended.receipt.expect("a receipt"));
        let receipt: Receipt =
            serde_json::from_value(signed.expect("there").receipt).expect("ours");
        assert_eq!(receipt.survey.as_ref().map(|survey| survey.left_out), Some(2));
        assert!(!receipt.well && receipt.witnesses[2].contains("the appliance did"), "{receipt:?}");

        // What the machine could not do is not gone on with.
        let again = Ticket { id: 0, ..set_up };
        store.put_ticket(again).await.expect("queued").await.expect("written");
        let ledger = over(store, dir.path());
        let record = of(4, Some(2));
        boots(&ledger, &record);
        ledger.ticket_boots(&record, Stage::Up).await;
        let failed = Phase::Finished { well: false, message: "the BMC is silent".into() };
        ledger.ticket_report((record.id, MAC), &failed).await;
        let (ended, _) = ledger.ticket("m01").expect("a ticket");
        assert_eq!(ended.says, "the BMC is silent; the rest was left undone");
        assert!(ledger.following().is_empty());
    }

    #[tokio::test]
    async fn one_that_is_broken_off_is_said_to_be() {
        let dir = tempfile::tempdir().expect("a directory");
        let record = of(2, Some(1));
        let former = ledger(dir.path()).await;
        boots(&former, &record);
        former.ticket_boots(&record, Stage::Up).await;
        former.ticket_report((record.id, MAC), &disk("a")).await;
        former.ticket_over(&record).await;
        assert_eq!(state(&former), TicketState::Running, "that is its own boot");
        // The last write is on disk when an event after it is.
        let mut events = former.follow();
        former.event("x", None, String::new()).await;
        while events.recv().await.expect("an event").kind != "x" {}
        // The appliance is started anew, and the machine boots.
        let ledger = over(former.store.clone(), dir.path());
        assert_eq!(state(&ledger), TicketState::Running);
        ledger.ticket_over(&of(3, None)).await;
        let (ticket, _) = ledger.ticket("m01").expect("a ticket");
        assert_eq!(ticket.state, TicketState::Unfinished);
        let signed = Receipts::of(dir.path()).read(&ticket.receipt.expect("a receipt too"));
        let receipt: Receipt =
            serde_json::from_value(signed.expect("there").receipt).expect("ours");
        assert!(!receipt.well && receipt.result.starts_with("NOT finished"), "{receipt:?}");
        assert_eq!(receipt.disks.len(), 1);
    }
}
