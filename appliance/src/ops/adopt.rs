//! `koboshi adopt <mac>`: a machine nobody knew becomes one of the site, with what it said of itself;
//! and for a machine of the site that answers otherwise than it did, the operator's word that this is
//! right.

use std::net::Ipv4Addr;

use koboshi_initramfs::contract::Hardware;
use koboshi_pxe::Mac;
use serde::{Deserialize, Serialize};

use super::seat::{free, nothing_pending, place};
use crate::api::Refusal;
use crate::app::{App, Reloaded};
use crate::hardware::{self, Record};
use crate::site::adopt::{Newcomer, adopt, next_name};
use crate::site::{MachineName, Site};

/// What is asked.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Query {
    /// Its MAC, or a machine's name.
    pub who: String,
    /// Its name.
    #[serde(default)]
    pub name: Option<String>,
    /// Its place in the matrix.
    #[serde(default)]
    pub seat: Option<String>,
    /// A machine of the site is to be taken on as it is now.
    #[serde(default)]
    pub accept: bool,
    /// Only say what would be done.
    #[serde(default)]
    pub dry: bool,
}

/// What was done.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Answer {
    /// In words.
    pub says: String,
    /// Its name.
    pub machine: String,
    /// The lines written, or to be written.
    pub wrote: Vec<String>,
    /// The file.
    #[serde(default)]
    pub file: Option<String>,
    /// What the machine said of itself.
    #[serde(default)]
    pub hardware: Option<Hardware>,
    /// What came of the reload.
    #[serde(default)]
    pub reload: Option<Reloaded>,
}

/// Writes the machine and reads the site again.
pub async fn answer(app: &App, query: Query) -> Result<Answer, Refusal> {
    let site = app.site.load_full();
    let mac = query.who.parse::<Mac>();
    let known = match &mac {
        Ok(mac) => site.machine_by_mac(*mac).map(|(name, _)| name.clone()),
        Err(_) => Some(super::one(&site, &query.who).map_err(|refusal| {
            let help = "koboshi adopt 52:54:00:77:00:07; `koboshi status` lists who was heard of";
            Refusal { help: refusal.help.or(Some(help.to_string())), ..refusal }
        })?),
    };
    let hardware = app.ledger.hardware();
    let mac = match (known, mac) {
        (Some(name), _) if query.accept => return take_on(app, &query, &name, &hardware).await,
        (Some(name), mac) => return Err(already(&site, &name, mac.ok(), app)),
        (None, Ok(mac)) => mac,
        (None, Err(_)) => unreachable!("a name that is no MAC was looked up"),
    };
    if query.accept {
        let help = Some(format!("`koboshi adopt {mac}` writes it"));
        return Err(Refusal::conflict(format!("no machine of the site has {mac}"), help));
    }
    let record = hardware.get(&mac.to_string());
    let newcomer = newcomer(&site, &query, mac, record)?;
    let mut answer = Answer {
        says: format!("{} would be written", newcomer.name),
        machine: newcomer.name.to_string(),
        wrote: newcomer.lines(),
        file: None,
        hardware: record.map(|record| record.hardware.clone()),
        reload: None,
    };
    if query.dry {
        return Ok(answer);
    }
    nothing_pending(app).await?;
    let path = app.path.clone();
    let written = newcomer.clone();
    let edited = tokio::task::spawn_blocking(move || adopt(&path, &written))
        .await
        .map_err(|error| Refusal::failed(error.to_string()))?
        .map_err(|error| Refusal::conflict(error.to_string(), None))?;
    let reload = app.reload(false, false).await;
    if let Some(record) = record {
        // What it is compared with from now on, under its new name.
        let now = record.hardware.clone();
        let record = Record::new(newcomer.name.as_str(), mac, record.at, now, None);
        app.ledger.take_on(record).await;
    }
    let text = format!("{mac} was adopted: {}", answer.wrote.join("; "));
    app.ledger.event("adopt", Some(newcomer.name.to_string()), text).await;
    let then = match (&newcomer.place, record) {
        (None, _) => {
            format!("; `koboshi seat {} SEAT` (or spare) gives it a place", newcomer.name)
        }
        (Some(place), Some(_)) => format!("; it becomes {place} as soon as it boots again"),
        (Some(place), None) => format!("; it becomes {place} when it boots"),
    };
    let set_up = match newcomer.bmc {
        Some(_) => String::new(),
        None => {
            let name = &newcomer.name;
            format!("; `koboshi maintain {name} setup --bmc-address ADDRESS/BITS` sets up its BMC")
        }
    };
    answer.says = format!("{mac} is {} now{then}{set_up}", newcomer.name);
    answer.file = Some(edited.file.display().to_string());
    answer.reload = Some(reload);
    Ok(answer)
}

fn newcomer(
    site: &Site,
    query: &Query,
    mac: Mac,
    record: Option<&Record>,
) -> Result<Newcomer, Refusal> {
    if mac.is_multicast() || mac.0 == [0; 6] {
        let help = "a machine's own address has an even first byte, and is not all zeros";
        return Err(Refusal::not_found(format!("no machine has {mac}"), Some(help.to_string())));
    }
    let name: MachineName = match &query.name {
        None => next_name(site),
        Some(name) => name.parse().map_err(|bad: crate::site::names::Malformed| {
            Refusal::not_found(bad.message, bad.help)
        })?,
    };
    let taken = site.machines.get(&name).map(|machine| ("machine", machine.origin.clone()));
    let taken = taken
        .or_else(|| Some(("seat", site.seats.get(name.as_str())?.origin.clone())))
        .or_else(|| Some(("group", site.groups.get(name.as_str())?.origin.clone())));
    if let Some((what, origin)) = taken {
        let help = Some(format!("{} is free", next_name(site)));
        return Err(Refusal::conflict(format!("{origin} has a {what} {name} already"), help));
    }
    let to = query.seat.as_deref().map(|seat| place(site, seat)).transpose()?;
    if let Some(to) = &to {
        free(site, to, &name)?;
    }
    let macs = record.map_or_else(|| vec![mac], Record::macs);
    if let Some(other) = macs.iter().find(|mac| site.by_mac.contains_key(mac)) {
        let line = &site.by_mac[other];
        let error = format!("it has a NIC {other}, which {} gives to {}", line.origin, line.value);
        let help = "one of the two is wrong: mend that line, or write this machine by hand";
        return Err(Refusal::conflict(error, Some(help.to_string())));
    }
    let bmc = record.and_then(|record| record.hardware.bmc.as_ref());
    let bmc = bmc.and_then(|bmc| bmc.address.parse::<Ipv4Addr>().ok());
    let bmc = bmc.filter(|address| !address.is_unspecified() && !address.is_link_local());
    let of = site.machines.iter().find_map(|(other, machine)| {
        let host = &machine.bmc.as_ref()?.host;
        (host.value.parse() == Ok(bmc?)).then_some((other, &host.origin))
    });
    if let (Some(address), Some((other, origin))) = (bmc, of) {
        let error = format!("it says its BMC is at {address}, which {origin} gives to {other}");
        let help = "one of the two is wrong: mend that line, or write this machine by hand";
        return Err(Refusal::conflict(error, Some(help.to_string())));
    }
    Ok(Newcomer { name, macs, bmc, place: to })
}

fn already(site: &Site, name: &MachineName, mac: Option<Mac>, app: &App) -> Refusal {
    let line = mac.and_then(|mac| Some((mac, &site.by_mac.get(&mac)?.origin)));
    let error = match line {
        Some((mac, origin)) => format!("{origin} gives {mac} to {name} already"),
        None => format!("{name} is a machine of the site already"),
    };
    let differs = app.ledger.evidence().contains_key(name.as_str());
    let help = format!("`koboshi adopt {name} --accept` takes it on as it answers now");
    Refusal::conflict(error, differs.then_some(help))
}

/// The board was exchanged, and that is right.
async fn take_on(
    app: &App,
    query: &Query,
    name: &MachineName,
    hardware: &std::collections::HashMap<String, Record>,
) -> Result<Answer, Refusal> {
    let Some(record) = hardware.get(name.as_str()) else {
        let help = "its next boot tells what it is made of".to_string();
        return Err(Refusal::conflict(format!("nothing is known of {name}"), Some(help)));
    };
    let line = hardware::summary(&record.hardware);
    if !query.dry {
        app.ledger.take_on(record.taken_on()).await;
        app.ledger.event("adopt", Some(name.to_string()), format!("taken on as {line}")).await;
    }
    Ok(Answer {
        says: format!("{name} is taken on as it answers now: {line}"),
        machine: name.to_string(),
        wrote: Vec::new(),
        file: None,
        hardware: Some(record.hardware.clone()),
        reload: None,
    })
}

/// For a terminal.
pub fn show(answer: &Answer) -> String {
    let mut text = String::new();
    for line in answer.hardware.iter().flat_map(hardware::lines) {
        text.push_str(&format!("  {line}\n"));
    }
    if let Some(file) = &answer.file {
        text.push_str(&format!("wrote into {file}:\n"));
    }
    for line in &answer.wrote {
        text.push_str(&format!("  {line}\n"));
    }
    match &answer.reload {
        Some(Reloaded::Applied { .. } | Reloaded::Same) | None => {
            text.push_str(&format!("{}\n", answer.says));
        }
        Some(other) => text.push_str(&super::reload::show(other)),
    }
    text
}
