//! `koboshi maintain m07 wipe`: an order for the machine's next boot, once; afterwards it is what it was.

use koboshi_initramfs::contract::duty::Work;
use koboshi_initramfs::contract::{Duty, Hardware};
use koboshi_pxe::desk::Kind;
use koboshi_pxe::seats::Holder;
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;

use super::many::{Line, Operation, Reach, begin};
use super::table::{ago, table};
use super::{bootdev, power, setup};
use crate::api::Refusal;
use crate::app::App;
use crate::hardware;
use crate::ledger::now_ms;
use crate::maintenance::Asked;
use crate::memtest;
use crate::site::MachineName;
use crate::store::{Ticket, TicketState};

/// An order that came to nothing or was carried out is shown for so long.
const SHOWN_MS: u64 = 24 * 3_600_000;

/// What is asked.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Query {
    /// Machine.
    pub machine: String,
    /// What it is to do.
    pub duty: Asked,
    /// The seat that the asker knows will be empty meanwhile.
    #[serde(default)]
    pub seat: Option<String>,
    /// Start it anew at once, by its BMC.
    #[serde(default)]
    pub now: bool,
    /// Only say what would be done.
    #[serde(default)]
    pub dry: bool,
    /// Milliseconds until the order is for nobody any more.
    pub expires: u64,
}

/// What was ordered, or would be.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Answer {
    /// Machine.
    pub machine: String,
    /// What it does.
    pub duty: String,
    /// The order, if it was given.
    pub ticket: Option<Ticket>,
    /// The seat that is empty meanwhile.
    pub seat: Option<String>,
    /// The machine, as it last told of itself.
    pub hardware: Vec<String>,
    /// What was done to its power, or what has to be.
    pub then: Vec<String>,
}

/// An order, and how far it is.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Row {
    /// The order.
    pub ticket: Ticket,
    /// How far each piece of it is.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub works: Vec<Work>,
}

/// Whose order is taken back.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Cancel {
    /// Machine.
    pub machine: String,
}

/// Orders; `who` asks.
pub async fn answer(app: &App, query: Query, who: &str) -> Result<Answer, Refusal> {
    let site = app.site.load_full();
    let name = super::one(&site, &query.machine)?;
    let machine = site.machines.get(&name);
    let Some(machine) = machine.filter(|machine| !machine.macs.is_empty()) else {
        let error = format!("{name} does not boot: it has no MAC");
        return Err(Refusal::not_found(error, None));
    };
    if machine.protected {
        let help = "the site says protected = true; take that out if you mean it".to_string();
        return Err(Refusal::conflict(format!("{name} is protected"), Some(help)));
    }
    let (duty, image) = (query.duty.duty(), query.duty.image());
    if let Some(why) = app.desk.site().freeze.no_image(image) {
        return Err(Refusal::conflict(format!("no machine can do a {duty} now: {why}"), None));
    }
    stands(app, &name)?;
    has_pool(app)?;
    let hardware = app.ledger.hardware().remove(name.as_str()).map(|record| record.hardware);
    if let (Some(serial), Some(hardware)) = (query.duty.serial(), &hardware) {
        let own = [&hardware.serial, &hardware.board, &hardware.uuid];
        let is = |own: &&String| own.trim().eq_ignore_ascii_case(serial.trim());
        if !query.dry && !own.iter().any(is) {
            let error = format!(
                "{serial:?} is not the serial number of {name}: that is {:?}, by its last boot",
                hardware.serial
            );
            let help = "look at its sticker: the serial number says which machine is meant";
            return Err(Refusal::conflict(error, Some(help.to_string())));
        }
    }
    let seat = sits(app, &name).map(|holder| holder.seat);
    if let Some(seat) = seat.as_ref().filter(|seat| query.seat.as_ref() != Some(seat) && !query.dry)
    {
        let error = format!("{name} runs in {seat}, which will be empty meanwhile");
        return Err(Refusal::unsure(error, format!("--seat {seat} says that you know it")));
    }
    let lines = hardware.iter().flat_map(hardware::lines).collect();
    let absent = hardware.as_ref().map(|known| absent(&query.duty.disks(), known));
    let mut answer = Answer {
        machine: name.to_string(),
        duty: duty.to_string(),
        ticket: None,
        seat,
        hardware: lines,
        then: absent.unwrap_or_default(),
    };
    let (order, after, says) = match &query.duty {
        Asked::Setup(asked) => {
            let setup::Ordered { order, after, says } = setup::ordered(app, &name, machine, asked)?;
            (Some(Duty::Setup(order)), after, says)
        }
        other => (other.clone().order()?, None, Vec::new()),
    };
    answer.then.extend(says);
    if query.dry {
        return Ok(answer);
    }
    let now = now_ms();
    let ticket = Ticket {
        id: 0,
        machine: name.to_string(),
        duty: duty.to_string(),
        image: image.to_string(),
        order,
        after,
        by: who.to_string(),
        at: now,
        until: now.saturating_add(query.expires),
        state: TicketState::Open,
        since: now,
        boot: None,
        disks: Vec::new(),
        prepared: Vec::new(),
        says: String::new(),
        receipt: None,
    };
    let ticket = app.ledger.order(&app.desk, ticket).await;
    answer.ticket = Some(ticket.map_err(|error| Refusal::failed(error.to_string()))?);
    answer.then.extend(match query.now {
        true => start_anew(app, &name, who).await,
        false => vec![
            format!("it begins when {name} netboots next; to have that now:"),
            format!("  koboshi bootdev {name} pxe && koboshi power {name} cycle"),
        ],
    });
    Ok(answer)
}

/// Disks that are named and that the machine did not have when it last told of itself. They may have been put in
/// since.
fn absent(named: &[&str], known: &Hardware) -> Vec<String> {
    let has = |serial: &str| {
        let mut disks = known.disks.iter();
        disks.any(|disk| disk.serial.eq_ignore_ascii_case(serial.trim()))
    };
    let absent = named.iter().filter(|serial| known.left_out == 0 && !has(serial));
    absent
        .map(|serial| {
            format!("it had no disk {serial} at its last boot: is that its serial number?")
        })
        .collect()
}

/// An order that stands is not written over.
fn stands(app: &App, name: &MachineName) -> Result<(), Refusal> {
    let Some((ticket, _)) = app.ledger.ticket(name.as_str()) else { return Ok(()) };
    let help = match ticket.state {
        TicketState::Open => format!("`koboshi maintain {name} --cancel` takes that back"),
        TicketState::Running => "it ends by itself, or with the machine's next boot".to_string(),
        TicketState::Following => "it ends by itself, in a few minutes at most".to_string(),
        _ => return Ok(()),
    };
    let error = format!(
        "{name} has an order already: {}, {}, by {}",
        ticket.duty,
        ticket.state.as_str(),
        ticket.by
    );
    Err(Refusal::conflict(error, Some(help)))
}

/// It leaves its seat and that seat's address: another one has to be there for it.
fn has_pool(app: &App) -> Result<(), Refusal> {
    let site = app.desk.site();
    let mut boots = site.networks.iter().filter(|network| network.kind == Kind::Boot);
    if site.proxy || boots.any(|network| network.subnet.pool.is_some()) {
        return Ok(());
    }
    let error = "there is no address for it: orders are done outside of any seat";
    let help = "add pool = \"FIRST-LAST\" to [net]";
    Err(Refusal::conflict(error, Some(help.to_string())))
}

/// The seat that it runs in, as far as anybody knows.
fn sits(app: &App, name: &MachineName) -> Option<Holder> {
    let holder = app.desk.holders().into_iter().find(|held| held.machine == name.as_str())?;
    let boot = app.ledger.newest().remove(&holder.mac);
    let off = boot.is_some_and(|boot| boot.is_off(app.ledger.heard(boot.mac).unwrap_or(0)));
    (!holder.down && !off).then_some(holder)
}

/// Its BMC starts it anew, from the network. What came of that.
async fn start_anew(app: &App, name: &MachineName, who: &str) -> Vec<String> {
    let device = Some("pxe".to_string());
    let bootdev = bootdev::Query { device, persistent: false, efi: None };
    let mut said = Vec::new();
    if let Err(error) = done(app, name, who, bootdev).await {
        said.push(format!("its boot device could not be set: {error}"));
    }
    let power = |action| power::Query { action, stagger: power::STAGGER, wait: None };
    match done(app, name, who, power(power::Action::Cycle)).await {
        Ok(()) => said.push(format!("{name} starts anew")),
        // A machine that is off has no power to cycle.
        Err(first) => match done(app, name, who, power(power::Action::On)).await {
            Ok(()) => said.push(format!("{name} was off, and starts")),
            Err(error) => {
                said.push(format!(
                    "its power could not be cycled: {first}; nor switched on: {error}"
                ));
                said.push("the order stands: start it anew from the network by hand".to_string());
            }
        },
    }
    said
}

/// One operation on one machine out of band, to its end.
async fn done<O: Operation>(
    app: &App,
    name: &MachineName,
    who: &str,
    what: O,
) -> Result<(), String> {
    let reach = Reach {
        site: app.site.load_full(),
        bmcs: app.bmcs.clone(),
        ledger: Some(app.ledger.clone()),
        by: who.to_string(),
    };
    let mut lines: mpsc::Receiver<Line> = begin(reach, what, vec![name.clone()]);
    let mut outcome = Err("it did not answer".to_string());
    while let Some(line) = lines.recv().await {
        match line {
            Line::Done(..) => outcome = Ok(()),
            Line::Failed(_, failure) => outcome = Err(failure.error),
            Line::Begin { .. } | Line::Said(..) => {}
        }
    }
    outcome
}

/// Takes an order back; `who` asks.
pub async fn cancel(app: &App, query: &Cancel, who: &str) -> Result<Row, Refusal> {
    let site = app.site.load_full();
    let name = super::one(&site, &query.machine)?;
    let ticket = app.ledger.cancel(&app.desk, name.as_str(), who).await;
    match ticket {
        Some(ticket) if ticket.state == TicketState::Cancelled => {
            Ok(Row { ticket, works: Vec::new() })
        }
        Some(ticket) if ticket.state == TicketState::Running => {
            let error = format!("{name} does it already: {}", ticket.duty);
            let help = format!("`koboshi power {name} cycle` breaks it off");
            Err(Refusal::conflict(error, Some(help)))
        }
        Some(ticket) if ticket.state == TicketState::Following => {
            let error = format!("{name} has done its part, and the appliance does the rest");
            Err(Refusal::conflict(error, Some("it ends by itself, in a few minutes".to_string())))
        }
        _ => Err(Refusal::conflict(format!("nothing is ordered for {name}"), None)),
    }
}

/// Orders that stand, and what became of others since yesterday.
pub fn list(app: &App) -> Vec<Row> {
    let now = now_ms();
    let recent = |ticket: &Ticket| ticket.state.stands() || ticket.since + SHOWN_MS > now;
    let all = app.ledger.tickets().into_iter().filter(|(ticket, _)| recent(ticket));
    all.map(|(ticket, works)| Row { ticket, works }).collect()
}

/// How far it is, for a line of `koboshi status`.
pub fn note(ticket: &Ticket, works: &[Work]) -> Option<String> {
    let duty = &ticket.duty;
    match ticket.state {
        TicketState::Open => Some(format!("ordered for its next boot: {duty}")),
        TicketState::Running => {
            let under_way = works.iter().filter(|work| work.done < work.of).map(far);
            let under_way: Vec<String> = under_way.collect();
            let wiped = ticket.disks.iter().filter(|disk| disk.wiped).count();
            let done = wiped + ticket.prepared.iter().filter(|disk| disk.prepared).count();
            let done = if done == 0 { String::new() } else { format!("; {done} disks done") };
            match under_way.as_slice() {
                [] if duty == memtest::DUTY => Some(format!(
                    "{duty} was handed over, and is on its console until its power is cycled"
                )),
                [] => Some(format!("{duty} is under way{done}")),
                some => Some(format!("{duty}: {}{done}", some.join(", "))),
            }
        }
        TicketState::Following => {
            Some(format!("{duty}: {}; the appliance does the rest", ticket.says))
        }
        TicketState::Failed | TicketState::Unfinished => Some(format!("{duty}: {}", ticket.says)),
        TicketState::Done | TicketState::Cancelled | TicketState::Expired => None,
    }
}

/// `vda VD-07 zeros 37 %`
fn far(work: &Work) -> String {
    let percent = work.done.saturating_mul(100).checked_div(work.of).unwrap_or(0);
    format!("{} {} {percent} %", work.what, work.step)
}

/// For a terminal.
pub fn show(answer: &Answer) -> String {
    let Answer { machine, duty, seat, .. } = answer;
    let mut text = String::new();
    match &answer.ticket {
        Some(ticket) => {
            let hours = ticket.until.saturating_sub(ticket.at) as f64 / 3.6e6;
            text.push_str(&format!(
                "{machine}: {duty} is ordered (ticket {}), good for {hours:.1} h\n",
                ticket.id
            ));
        }
        None => {
            text.push_str(&format!("{machine} would be ordered: {duty}\n"));
            answer.hardware.iter().for_each(|line| text.push_str(&format!("  {line}\n")));
        }
    }
    if let Some(seat) = seat {
        text.push_str(&format!("{seat} will be empty until {machine} is back in it\n"));
    }
    answer.then.iter().for_each(|line| text.push_str(&format!("{line}\n")));
    text
}

/// For a terminal.
pub fn show_list(rows: &[Row]) -> String {
    if rows.is_empty() {
        return "nothing is ordered; `koboshi maintain m07 wipe` would be\n".to_string();
    }
    let now = now_ms();
    let cell = |row: &Row| {
        let Row { ticket, works } = row;
        let mut notes: Vec<String> =
            works.iter().filter(|work| work.done < work.of).map(far).collect();
        if !ticket.says.is_empty() {
            notes.push(ticket.says.clone());
        }
        notes.extend(ticket.receipt.iter().map(|name| format!("receipt {name}")));
        vec![
            ticket.machine.clone(),
            ticket.duty.clone(),
            ticket.state.as_str().to_string(),
            ago(now.saturating_sub(ticket.since)),
            ticket.by.clone(),
            notes.join("; "),
        ]
    };
    let cells: Vec<Vec<String>> = rows.iter().map(cell).collect();
    table(&["MACHINE", "DUTY", "STATE", "SINCE", "BY", "NOTES"], &cells)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ticket_says_how_far_it_is() {
        let mut ticket = Ticket {
            id: 1,
            machine: "m07".into(),
            duty: "wipe".into(),
            image: "wipe".into(),
            order: None,
            after: None,
            by: "root".into(),
            at: 0,
            until: 1,
            state: TicketState::Open,
            since: 0,
            boot: None,
            disks: Vec::new(),
            prepared: Vec::new(),
            says: String::new(),
            receipt: None,
        };
        assert_eq!(note(&ticket, &[]).unwrap(), "ordered for its next boot: wipe");
        ticket.state = TicketState::Running;
        let work = |done| Work { what: "vda V1".into(), step: "zeros".into(), done, of: 200 };
        assert_eq!(note(&ticket, &[work(75), work(200)]).unwrap(), "wipe: vda V1 zeros 37 %");
        assert_eq!(note(&ticket, &[Work { of: 0, ..work(0) }]).unwrap(), "wipe is under way");
        (ticket.state, ticket.says) = (TicketState::Unfinished, "NOT finished".into());
        assert_eq!(note(&ticket, &[]).unwrap(), "wipe: NOT finished");
        ticket.state = TicketState::Done;
        assert_eq!(note(&ticket, &[]), None);
    }
}
