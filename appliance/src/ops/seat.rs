//! `koboshi seat m01 web1`: one line of the matrix, changed in the site file as an editor would,
//! and put in force at once.

use serde::{Deserialize, Serialize};

use crate::api::Refusal;
use crate::app::{App, Reloaded};
use crate::site::{Place, edit};

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
}

/// Edits the file, then reloads.
pub async fn answer(app: &App, query: Query) -> Result<Answer, Refusal> {
    let site = app.site.load_full();
    let machine = super::one(&site, &query.machine)?;
    let place = match (query.place.as_str(), site.seats.get_key_value(query.place.as_str())) {
        ("spare", _) => Place::Spare,
        (_, Some((seat, _))) => Place::Seat(seat.clone()),
        (other, None) => {
            let seats = site.seats.keys().map(|seat| seat.as_str());
            let help = crate::site::problem::did_you_mean(other, seats);
            let swapped =
                site.machines.contains_key(other) && site.seats.contains_key(&*query.machine);
            let help = match swapped {
                true => {
                    Some(format!("`koboshi seat {other} {}`: the machine first", query.machine))
                }
                false => help,
            };
            return Err(Refusal::not_found(format!("no seat {other:?}"), help));
        }
    };
    let former = site.seat_of(&machine).map(|(seat, _)| seat.to_string());
    // Only what is asked for is put in force by this, not what else is in the file by now.
    match app.reload(false, true).await {
        Reloaded::Same => {}
        pending => {
            let help = format!(
                "`koboshi reload` first, or undo it in {}; it says:\n{}",
                app.path.display(),
                super::reload::show_dry(&pending)
            );
            let error = "the site file holds changes that are not in force";
            return Err(Refusal::conflict(error, Some(help)));
        }
    }
    let newest = app.ledger.newest();
    let runs = newest.values().any(|boot| boot.machine == machine.as_str() && boot.sits());
    if let Some(former) = former.as_ref().filter(|former| runs && **former != query.place)
        && !query.accept
    {
        let help = format!("it keeps {former} until it boots again; --accept if that is meant");
        let error = format!("{machine} is running in {former}");
        return Err(Refusal::conflict(error, Some(help)));
    }
    // The file with the seat given twice would be refused; better not to write it.
    let holder = match &place {
        Place::Seat(seat) => site.machine_of(seat).map(|(holder, _)| holder),
        Place::Spare => None,
    };
    if let Some(holder) = holder.filter(|holder| **holder != machine) {
        let help =
            format!("`koboshi seat {holder} spare` first, or swap the two lines in the file");
        let error = format!("the matrix gives {} to {holder}", query.place);
        return Err(Refusal::conflict(error, Some(help)));
    }
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
    Ok(Answer { says, reload })
}

/// For a terminal.
pub fn show(answer: &Answer) -> String {
    match &answer.reload {
        Reloaded::Applied { warnings, .. } => {
            let mut text = format!("{}, from its next start on\n", answer.says);
            for warning in warnings {
                text.push_str(&format!("warning: {warning}\n"));
            }
            text
        }
        Reloaded::Same => format!("{}, as before\n", answer.says),
        other => format!("the file says: {}\n{}", answer.says, super::reload::show(other)),
    }
}
