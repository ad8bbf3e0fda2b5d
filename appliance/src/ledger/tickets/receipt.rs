//! What goes into a receipt: the order, what the machine says it did, and who saw what of it.

use jiff::Timestamp;
use koboshi_initramfs::contract::duty::{Prepared, Wiped};
use koboshi_initramfs::contract::{Duty, Survey};

use crate::ledger::reports::clean;
use crate::receipts::Receipt;
use crate::store::{Ticket, TicketState};

/// What an order came to, as it will be signed. `began`: milliseconds since 1970.
pub(super) fn receipt(
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
pub(super) fn short(text: &str) -> String {
    clean(text).chars().take(80).collect()
}

/// As a machine said it, without what could harm a terminal or fill a disk.
pub(super) fn tidy(disk: &Wiped) -> Wiped {
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

/// The same.
pub(super) fn tidy_prepared(disk: &Prepared) -> Prepared {
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
