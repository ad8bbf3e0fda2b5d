//! What is left of a set-up when the machine has done its part: the site file says where its BMC is, and the BMC knows
//! the site's account. An appliance that is started anew meanwhile begins with it again: all of it can be done twice.

use std::collections::HashSet;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::account::{self, Patience};
use crate::app::App;
use crate::maintenance::After;
use crate::ops::seat::nothing_pending;
use crate::site::MachineName;
use crate::site::adopt::give_bmc;
use crate::store::Ticket;

/// A BMC that was given its address looks for its link again, and some for spanning tree too.
const PATIENCE: Patience =
    Patience { silent: Duration::from_secs(180), pause: Duration::from_secs(3) };

/// Does it for every order that waits for it, until cancelled.
pub async fn run(app: Arc<App>, cancel: CancellationToken) -> anyhow::Result<()> {
    let mut tasks: JoinSet<u64> = JoinSet::new();
    let mut begun = HashSet::new();
    loop {
        for ticket in app.ledger.following() {
            if begun.insert(ticket.id) {
                tasks.spawn(one(app.clone(), ticket));
            }
        }
        tokio::select! {
            () = cancel.cancelled() => return Ok(()),
            () = app.ledger.followed() => {}
            Some(ended) = tasks.join_next(), if !tasks.is_empty() => match ended {
                Ok(id) => drop(begun.remove(&id)),
                Err(error) => tracing::error!(%error, "the rest of a set-up"),
            },
        }
    }
}

async fn one(app: Arc<App>, ticket: Ticket) -> u64 {
    let mut says = vec![ticket.says.clone()];
    let after = ticket.after.clone().unwrap_or_default();
    let failed = rest(&app, &ticket.machine, &after, &mut says).await.err();
    let well = failed.is_none();
    says.extend(failed);
    says.retain(|part| !part.is_empty());
    app.ledger.ticket_ends(&ticket, well, says.join("; ")).await;
    ticket.id
}

async fn rest(
    app: &App,
    machine: &str,
    after: &After,
    says: &mut Vec<String>,
) -> Result<(), String> {
    let name: MachineName = machine.parse().map_err(|_| format!("{machine} is no machine"))?;
    if let Some(address) = after.address {
        says.push(write(app, &name, address).await.map_err(|why| {
            let account = if after.account.is_some() { "; its BMC's account was not touched" } else { "" };
            format!("the site file does NOT say where it is: {why}; bmc = \"{address}\" goes into its line{account}")
        })?);
    }
    let Some(account) = &after.account else { return Ok(()) };
    let site = app.site.load_full();
    let Some(machine) = site.machines.get(&name) else {
        return Err(format!(
            "the site knows no {name} any more: its BMC's account was not touched"
        ));
    };
    let told = account::ensure(&app.bmcs, (&name, machine), account, PATIENCE).await;
    says.extend(told.did);
    told.failed.map_or(Ok(()), Err)
}

/// Writes it into the machine's line and puts that in force.
async fn write(app: &App, name: &MachineName, address: Ipv4Addr) -> Result<String, String> {
    let is_there = || {
        let site = app.site.load();
        let bmc = site.machines.get(name).and_then(|machine| machine.bmc.as_ref());
        bmc.is_some_and(|bmc| bmc.host.value.parse() == Ok(address))
    };
    if is_there() {
        return Ok("the site file says so".to_string());
    }
    nothing_pending(app).await.map_err(|refusal| refusal.error)?;
    let (path, whose) = (app.path.clone(), name.clone());
    let edited = tokio::task::spawn_blocking(move || give_bmc(&path, &whose, address)).await;
    let edited = edited.map_err(|error| error.to_string())?.map_err(|error| error.to_string())?;
    app.reload(false, false).await;
    if !is_there() {
        return Err(format!(
            "{} says it, and is not in force: `koboshi reload` says why",
            edited.file.display()
        ));
    }
    Ok(format!("{} says so", edited.file.display()))
}
