//! `koboshi status`: every machine, the seat it is meant to have, the one it holds, how far its
//! boot is.

use std::collections::{BTreeMap, HashMap};

use koboshi_console::watch::Level;
use koboshi_pxe::Mac;
use koboshi_pxe::boots::Stage;
use koboshi_pxe::decide::{Entry, Place as Meant};
use koboshi_pxe::dhcp::Via;
use koboshi_pxe::firmware::Firmware;
use koboshi_pxe::seats::Holder;
use serde::{Deserialize, Serialize};

use super::maintain;
use super::table::{ago, table};
use crate::api::Refusal;
use crate::app::App;
use crate::diagnosis::Silence;
use crate::diagnosis::silent::cases;
use crate::hardware;
use crate::ledger::{Ghost, now_ms};
use crate::site::hostlist::fold;
use crate::site::{MachineName, Place, Site};
use crate::store::{BootRecord, Mark};

/// What is asked.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Query {
    /// Machines or seats as a host list; all if none.
    #[serde(default)]
    pub who: Option<String>,
    /// Only machines that ran and have not come back.
    #[serde(default)]
    pub silent: bool,
    /// Only machines that run another version of their image than they would boot now.
    #[serde(default)]
    pub drifted: bool,
}

/// One machine.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Row {
    /// Its name, or its MAC if the site does not know it.
    pub machine: String,
    /// The seat the matrix gives it; `spare`, or `-`.
    pub seat: String,
    /// The seat it holds by its running boot, where that is another.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub holds: Option<String>,
    /// The machine that holds the seat the matrix gives it, where that is another.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub held_by: Option<String>,
    /// Role it boots or runs.
    pub role: String,
    /// Image it boots or runs.
    pub image: String,
    /// Address.
    pub address: String,
    /// The relay it came through, with what that says of the switch port.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub via: Option<Via>,
    /// How far it is: `off` if it was never heard of.
    pub stage: String,
    /// Unix milliseconds of the last step.
    pub since: u64,
    /// Unix milliseconds of the last sign of life.
    pub heard: u64,
    /// Whatever an operator should know.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
    /// What it is made of, in a line; `koboshi explain` has all of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hardware: Option<String>,
    /// What its firmware said of itself when it last booted by the network.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub firmware: Option<Firmware>,
    /// Whether that is UEFI: the EFI bit of its BMC's boot flags.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub efi: Option<bool>,
    /// It ran and has not come back: what is known, and what to do.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub silent: Option<Silence>,
    /// The image it would boot now, where it runs another one or another version.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub drifted: Option<String>,
}

/// A machine that is up and has not been heard of for this long is said to be silent.
const SILENT_MS: u64 = 90_000;
/// That log messages of a machine were dropped is said for so long.
const UNHEARD_MS: u64 = 600_000;

/// Answers from the site in force and the ledger.
pub fn answer(app: &App, query: &Query) -> Result<Vec<Row>, Refusal> {
    let site = app.site.load();
    let newest = app.ledger.newest();
    let silent = app.silent.load();
    let holders = app.desk.holders();
    let ghosts = app.ledger.ghosts();
    let wanted = match &query.who {
        Some(who) => {
            let named = site.who(who);
            Some(named.map_err(|error| Refusal::not_found(error.to_string(), None))?)
        }
        None => None,
    };
    let mut by_machine: HashMap<&str, &BootRecord> = HashMap::new();
    for boot in newest.values() {
        let newer = by_machine.get(boot.machine.as_str()).is_none_or(|b| b.order() < boot.order());
        if newer {
            by_machine.insert(&boot.machine, boot);
        }
    }
    // Two machines with one address: the older one was not restarted when its seat was given away.
    let mut sitting: HashMap<&str, Vec<&str>> = HashMap::new();
    for boot in newest.values().filter(|boot| boot.sits()) {
        if let Some(seat) = boot.plan.as_ref().and_then(|plan| plan.seat.as_deref()) {
            sitting.entry(seat).or_default().push(&boot.machine);
        }
    }
    let conflict = |boot: Option<&BootRecord>| -> Option<String> {
        let boot = boot.filter(|boot| boot.sits())?;
        let seat = boot.plan.as_ref()?.seat.as_deref()?;
        let other = sitting.get(seat)?.iter().find(|other| **other != boot.machine)?;
        Some(format!("CONFLICT: {other} sits in {seat} too; restart the one that should not"))
    };
    let (hardware, evidence) = (app.ledger.hardware(), app.ledger.evidence());
    let made_of = |machine: &str| Some(hardware::summary(&hardware.get(machine)?.hardware));
    let snapshot = app.desk.site();
    let would = |machine: &str, role: &str| snapshot.freeze.image(machine, role);
    let no_room = |name: &MachineName| {
        let memory = hardware.get(name.as_str())?.hardware.memory_mib << 20;
        let (_, seat) = site.seat_of(name)?;
        let why = snapshot.freeze.no_room(name.as_str(), seat.role.as_str(), memory);
        why.filter(|_| memory > 0)
            .map(|why| format!("{} has no room in its memory: {why}", seat.role))
    };
    let mut rows = Vec::new();
    for (name, machine) in &site.machines {
        // A switch or PDU has a console and nothing to boot.
        let unwanted = wanted.as_ref().is_some_and(|wanted| !wanted.contains(name));
        if unwanted || machine.macs.is_empty() {
            continue;
        }
        let seat = match site.matrix.get(name).map(|line| &line.value) {
            Some(Place::Seat(seat)) => seat.to_string(),
            Some(Place::Spare) => "spare".to_string(),
            None => "-".to_string(),
        };
        let holds = holders.iter().filter(|held| held.machine == name.as_str());
        let holds = holds.map(|held| &held.seat).find(|held| **held != seat);
        let boot = by_machine.remove(name.as_str());
        let heard = boot.and_then(|boot| app.ledger.heard(boot.mac)).unwrap_or(0);
        let mut row = row(name.as_str(), seat, holds.cloned(), boot, heard);
        gate(app, machine.macs[0].value, boot, &mut row);
        row.notes.extend(version(app, &site, name));
        row.notes.extend(conflict(boot));
        row.notes.extend(no_room(name));
        row.notes.extend(haunted(name.as_str(), &ghosts, &holders));
        let ticket = app.ledger.ticket(name.as_str());
        row.notes.extend(ticket.and_then(|(ticket, works)| maintain::note(&ticket, &works)));
        row.notes.extend(unheard(app.syslog.dropped(name.as_str())));
        row.silent = silent.get(name.as_str()).cloned();
        row.drifted = drifted(boot, &would);
        row.notes.extend(evidence.get(name.as_str()).into_iter().flatten().cloned());
        row.hardware = made_of(name.as_str());
        row.firmware = app.ledger.firmware(name.as_str());
        row.efi = row.firmware.map(Firmware::is_efi);
        rows.push(row);
    }
    // Machines the site does not know, that boot a role all the same.
    let mut guests: Vec<&&BootRecord> = by_machine.values().collect();
    guests.sort_by_key(|boot| &boot.machine);
    if query.who.is_none() {
        for boot in guests {
            let heard = app.ledger.heard(boot.mac).unwrap_or(0);
            let mut row = row(&boot.machine, "-".into(), None, Some(boot), heard);
            row.notes.extend(evidence.get(&boot.machine).into_iter().flatten().cloned());
            row.hardware = made_of(&boot.machine);
            row.notes.extend(row.hardware.clone());
            row.drifted = drifted(Some(boot), &would);
            rows.push(row);
        }
    }
    rows.retain(|row| !query.silent || row.silent.is_some());
    rows.retain(|row| !query.drifted || row.drifted.is_some());
    Ok(rows)
}

/// What a machine that runs, or is on its way, would boot by now in the role it has.
fn drifted(
    boot: Option<&BootRecord>,
    would: &impl Fn(&str, &str) -> Option<String>,
) -> Option<String> {
    let boot = boot.filter(|boot| !boot.over && boot.stage != Stage::Down)?;
    let plan = boot.plan.as_ref()?;
    would(&boot.machine, &plan.role).filter(|now| *now != plan.image)
}

/// Where it boots another version than all do, and why.
fn version(app: &App, site: &Site, machine: &MachineName) -> Option<String> {
    let (_, seat) = site.seat_of(machine)?;
    let (name, role) = site.role_of(seat)?;
    let image = Some(&role.image.value).filter(|image| image.version.is_none())?;
    app.rollout.note(&image.name, machine.as_str(), name.as_str())
}

fn row(
    machine: &str,
    seat: String,
    holds: Option<String>,
    boot: Option<&BootRecord>,
    heard: u64,
) -> Row {
    let plan = boot.and_then(|boot| boot.plan.as_ref());
    let stage = boot.map_or("off", |boot| boot.stage.as_str());
    let mut notes = Vec::new();
    let happened = |mark: &&Mark| mark.is_sign();
    let last = boot.and_then(|boot| boot.marks.iter().rev().find(happened));
    if let Some(mark) = last
        && matches!(mark.stage, Stage::Trouble | Stage::Rescue | Stage::Waiting)
    {
        notes.push(mark.note.clone());
    }
    // Since it last went a step further.
    let since = last.map_or(0, |mark| mark.at);
    let grave = |mark: &&Mark| mark.console.as_ref().is_some_and(|seen| seen.level == Level::Error);
    let graver = boot.and_then(|boot| boot.marks.iter().rev().find(grave));
    if let Some(mark) = graver.filter(|mark| mark.at >= since) {
        notes.push(format!("console: {}", mark.note));
    }
    // `koboshi boots` has the whole of it.
    let late = boot.and_then(|boot| boot.marks.last()).filter(|mark| mark.late.is_some());
    notes.extend(late.map(|mark| format!("late: {}", mark.note)));
    let booted = plan.and_then(|plan| plan.seat.clone());
    if let Some(booted) = booted.filter(|booted| *booted != seat && seat != "-") {
        notes.push(format!("sits in {booted} until it boots again"));
    }
    if let (Some(boot), Some(plan)) = (boot, plan)
        && plan.seat.is_none()
        && plan.ticket.is_none()
        && boot.machine != boot.mac.to_string()
    {
        let empty = if seat == "-" || seat == "spare" { "" } else { "; its seat is empty" };
        notes.push(format!("role {} was typed at its console, for this boot{empty}", plan.role));
    }
    if stage == "up" && late.is_none() && now_ms().saturating_sub(heard) > SILENT_MS {
        notes.push("silent".to_string());
    }
    let or = |text: Option<String>| text.unwrap_or_else(|| "-".to_string());
    Row {
        machine: machine.to_string(),
        holds,
        held_by: None,
        seat,
        role: or(plan.map(|plan| plan.role.clone())),
        image: or(plan.map(|plan| plan.image.clone())),
        address: or(boot.map(|boot| boot.address.to_string())),
        via: boot.and_then(|boot| boot.via.clone()),
        stage: stage.to_string(),
        since: boot.map_or(0, |boot| last.map_or(boot.opened, |mark| mark.at)),
        heard,
        notes,
        silent: None,
        drifted: None,
        hardware: None,
        firmware: None,
        efi: None,
    }
}

/// Another machine has the seat that the matrix gives this one.
fn gate(app: &App, mac: Mac, boot: Option<&BootRecord>, row: &mut Row) {
    let Entry::Known(known) = app.desk.entry(mac) else { return };
    let Meant::Taken(_, held) = &known.place else { return };
    let waits = boot.is_some_and(|boot| boot.plan.is_none() && !boot.over);
    // The note of the timeline is the same without its times.
    row.notes.retain(|note| *note != held.says());
    row.notes.push(match waits {
        true => format!("{} ({})", held.says(), held.evidence()),
        false => format!("{} has {} ({})", held.by, held.seat, held.evidence()),
    });
    row.held_by = Some(held.by.clone());
}

/// A machine reports from a seat that it is not known to hold: that concerns whoever holds it too.
fn haunted(machine: &str, ghosts: &[(String, Ghost)], holders: &[Holder]) -> Vec<String> {
    let recent = |ghost: &Ghost| now_ms().saturating_sub(ghost.heard) < SILENT_MS;
    let ghosts = ghosts.iter().filter(|(_, ghost)| recent(ghost));
    let note = |(name, Ghost { seat, address, .. }): &(String, Ghost)| {
        if name == machine {
            return Some(format!("CONFLICT: it still reports from {seat} ({address})"));
        }
        let mut its = holders.iter().filter(|held| held.machine == machine);
        let shared = its.any(|held| held.seat == *seat || held.address == *address);
        shared.then(|| format!("CONFLICT: {name} still reports from {seat}; switch {name} off"))
    };
    ghosts.filter_map(note).collect()
}

/// Some of what it logged was dropped, and not long ago.
fn unheard(dropped: Option<(u64, u64)>) -> Option<String> {
    let (_, many) = dropped.filter(|(at, _)| now_ms().saturating_sub(*at) < UNHEARD_MS)?;
    Some(format!("{many} of its log messages were dropped: koboshi log --from syslog says why"))
}

/// For a terminal.
pub fn show(rows: &[Row]) -> String {
    let now = now_ms();
    let age = |at: u64| if at == 0 { "-".to_string() } else { ago(now.saturating_sub(at)) };
    let cells: Vec<Vec<String>> = rows
        .iter()
        .map(|row| {
            let mut notes = row.notes.clone();
            notes.extend(row.holds.iter().map(|seat| format!("holds {seat}")));
            notes.extend(row.drifted.iter().map(|now| format!("drifted: it would boot {now} now")));
            vec![
                row.machine.clone(),
                row.seat.clone(),
                row.role.clone(),
                row.image.clone(),
                row.address.clone(),
                row.stage.clone(),
                age(row.since),
                age(row.heard),
                notes.join("; "),
            ]
        })
        .collect();
    let headings =
        ["MACHINE", "SEAT", "ROLE", "IMAGE", "ADDRESS", "STAGE", "SINCE", "HEARD", "NOTES"];
    let mut text = table(&headings, &cells);
    text.push_str(&show_silent(rows));
    text.push_str(&show_drifted(rows));
    text
}

/// Machines that run another version than they would boot now, by version, as host lists to paste.
fn show_drifted(rows: &[Row]) -> String {
    let mut cases: BTreeMap<(&str, &str), Vec<&str>> = BTreeMap::new();
    for row in rows {
        if let Some(now) = &row.drifted {
            cases.entry((&row.image, now)).or_default().push(&row.machine);
        }
    }
    let mut text = String::new();
    for ((runs, now), machines) in cases {
        let (count, hosts) = (machines.len(), fold(&machines));
        let machines = if count == 1 { "1 machine has" } else { &format!("{count} machines have") };
        text.push_str(&format!(
            "\n{machines} drifted: {hosts}\n  {runs}, and {now} from the next boot on: \
             `koboshi power {hosts} cycle`\n"
        ));
    }
    text
}

/// For a terminal, of the machines that have drifted alone.
pub fn show_all_drifted(rows: &[Row]) -> String {
    match show_drifted(rows).trim_start_matches('\n') {
        "" => "every machine runs what it would boot now\n".to_string(),
        text => text.to_string(),
    }
}

/// Machines that have not come back, by what there is to do about them, as host lists to paste.
fn show_silent(rows: &[Row]) -> String {
    let silent = rows.iter().filter_map(|row| Some((row.machine.as_str(), row.silent.as_ref()?)));
    let mut text = String::new();
    for (says, count, hosts) in cases(silent) {
        let machines = if count == 1 { "1 machine has" } else { &format!("{count} machines have") };
        text.push_str(&format!("\n{machines} not come back: {hosts}\n  {says}\n"));
    }
    text
}

/// For a terminal, of the machines that have not come back alone.
pub fn show_all_silent(rows: &[Row]) -> String {
    match show_silent(rows).trim_start_matches('\n') {
        "" => "every machine that ran is heard of, or has the time to start still\n".to_string(),
        text => text.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn machines_that_drifted_are_lists_to_paste() {
        let row = |machine: &str, image: &str, drifted: Option<&str>| Row {
            drifted: drifted.map(str::to_string),
            image: image.to_string(),
            ..row(machine, "-".into(), None, None, 0)
        };
        let rows = [
            row("m01", "web@3", Some("web@4")),
            row("m02", "web@3", Some("web@4")),
            row("m03", "web@4", None),
            row("m04", "web@5", Some("web@4")),
        ];
        let text = show_all_drifted(&rows);
        let cases: Vec<&str> = text.lines().filter(|line| line.contains("drifted")).collect();
        assert_eq!(cases, ["2 machines have drifted: m[01-02]", "1 machine has drifted: m04"]);
        assert!(text.contains("web@3, and web@4 from the next boot on"), "{text}");
        assert!(show_all_drifted(&rows[2..3]).contains("every machine"));
    }
}
