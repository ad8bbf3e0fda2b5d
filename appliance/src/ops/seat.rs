//! `koboshi seat m01 web1`: one line of the matrix, changed in the site file as an editor would,
//! and put in force at once.

use koboshi_pxe::decide::{Entry, Place as Meant};
use serde::{Deserialize, Serialize};

use crate::api::Refusal;
use crate::app::{App, Reloaded};
use crate::site::{MachineName, Place, Site, edit};

/// What is asked.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Query {
    /// Machine.
    pub machine: String,
    /// Seat, or `spare`.
    pub place: String,
    /// Also where it unseats a running machine.
    #[serde(default)]
    pub accept: bool,
}

/// What was done.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Answer {
    /// In words.
    pub says: String,
    /// What came of the reload.
    pub reload: Reloaded,
    /// What it waits for, if another machine holds the seat.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub waits: Option<String>,
}

/// Edits the file, then reloads.
pub async fn answer(app: &App, query: Query) -> Result<Answer, Refusal> {
    let site = app.site.load_full();
    let machine = super::one(&site, &query.machine)?;
    let place = place(&site, &query.place).map_err(|mut refusal| {
        let swapped =
            site.machines.contains_key(&*query.place) && site.seats.contains_key(&*query.machine);
        if swapped {
            let help =
                format!("`koboshi seat {} {}`: the machine first", query.place, query.machine);
            refusal.help = Some(help);
        }
        refusal
    })?;
    let former = site.seat_of(&machine).map(|(seat, _)| seat.to_string());
    nothing_pending(app).await?;
    let newest = app.ledger.newest();
    let runs = newest.values().any(|boot| boot.machine == machine.as_str() && boot.sits());
    if let Some(former) = former.as_ref().filter(|former| runs && **former != query.place)
        && !query.accept
    {
        let help = format!("it keeps {former} until it boots again; --accept if that is meant");
        let error = format!("{machine} is running in {former}");
        return Err(Refusal::conflict(error, Some(help)));
    }
    free(&site, &place, &machine)?;
    let (path, name) = (app.path.clone(), machine.clone());
    let edited = tokio::task::spawn_blocking(move || edit::set_place(&path, &name, &place))
        .await
        .map_err(|error| Refusal::failed(error.to_string()))?;
    edited.map_err(|error| Refusal::conflict(error.to_string(), None))?;
    let reload = app.reload(query.accept, false).await;
    let says = match former {
        Some(former) if former != query.place => {
            format!("{machine} now has {} (it had {former})", query.place)
        }
        _ => format!("{machine} now has {}", query.place),
    };
    let waits = waits(app, &machine);
    Ok(Answer { says, reload, waits })
}

/// `spare`, or a seat of the site.
pub(super) fn place(site: &Site, text: &str) -> Result<Place, Refusal> {
    match (text, site.seats.get_key_value(text)) {
        ("spare", _) => Ok(Place::Spare),
        (_, Some((seat, _))) => Ok(Place::Seat(seat.clone())),
        (other, None) => {
            let seats = site.seats.keys().map(|seat| seat.as_str());
            let help = crate::site::problem::did_you_mean(other, seats);
            Err(Refusal::not_found(format!("no seat {other:?}"), help))
        }
    }
}

/// Only what is asked for is put in force by a command, not what else is in the file by now.
pub(super) async fn nothing_pending(app: &App) -> Result<(), Refusal> {
    match app.reload(false, true).await {
        Reloaded::Same => Ok(()),
        pending => {
            let help = format!(
                "`koboshi reload` first, or undo it in {}; it says:\n{}",
                app.path.display(),
                super::reload::show_dry(&pending)
            );
            let error = "the site file holds changes that are not in force";
            Err(Refusal::conflict(error, Some(help)))
        }
    }
}

/// The file with a seat given twice would be refused; better not to write it.
pub(super) fn free(site: &Site, place: &Place, machine: &MachineName) -> Result<(), Refusal> {
    let Place::Seat(seat) = place else { return Ok(()) };
    let holder = site.machine_of(seat).map(|(holder, _)| holder);
    let Some(holder) = holder.filter(|holder| *holder != machine) else { return Ok(()) };
    let help = format!("`koboshi seat {holder} spare` first, or swap the two lines in the file");
    Err(Refusal::conflict(format!("the matrix gives {seat} to {holder}"), Some(help)))
}

fn waits(app: &App, machine: &MachineName) -> Option<String> {
    let site = app.site.load();
    let mac = site.machines.get(machine)?.macs.first()?.value;
    let Entry::Known(known) = app.desk.entry(mac) else { return None };
    let Meant::Taken(_, held) = &known.place else { return None };
    Some(format!("it {}: {}, {}", held.says(), held.evidence(), held.ends()))
}

/// For a terminal.
pub fn show(answer: &Answer) -> String {
    match &answer.reload {
        Reloaded::Applied { warnings, .. } => {
            let mut text = format!("{}, from its next start on\n", answer.says);
            for warning in warnings {
                text.push_str(&format!("warning: {warning}\n"));
            }
            if let Some(waits) = &answer.waits {
                text.push_str(&format!("{waits}\n"));
            }
            text
        }
        Reloaded::Same => format!("{}, as before\n", answer.says),
        other => format!("the file says: {}\n{}", answer.says, super::reload::show(other)),
    }
}
