//! How versions of images come to machines: who could be in a trial, how the trials go, and machines that are
//! to try once more what failed on them.

use koboshi_images::Trial;
use serde::{Deserialize, Serialize};

use super::table::{ago, table};
use crate::api::Refusal;
use crate::app::App;
use crate::ledger::now_ms;
use crate::rollout::Does;

/// Which machines are meant, of those that boot an image.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Query {
    /// Image name.
    pub image: String,
    /// A host list.
    pub who: String,
}

/// The machines that were meant.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Meant {
    /// By name.
    pub machines: Vec<String>,
}

/// One trial.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Shown {
    /// Image name.
    pub image: String,
    /// The version that is on trial.
    pub version: u32,
    /// Its terms.
    pub trial: Trial,
    /// How each of its machines does.
    pub machines: Vec<One>,
}

/// A machine of a trial.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct One {
    /// Its name.
    pub machine: String,
    /// How it does.
    #[serde(flatten)]
    pub does: Does,
}

/// Machines that may be given a version of an image: known ones, whose role has that image and leaves it
/// open which version.
pub fn meant(app: &App, query: &Query) -> Result<Meant, Refusal> {
    let site = app.site.load();
    let named =
        site.who(&query.who).map_err(|error| Refusal::not_found(error.to_string(), None))?;
    let image = &query.image;
    for machine in &named {
        let role = site.seat_of(machine).and_then(|(_, seat)| site.role_of(seat));
        let Some((name, role)) = role else {
            let error = format!("{machine} has no seat, and so no image");
            let help = Some(format!("`koboshi seat {machine} SEAT` gives it one"));
            return Err(Refusal::conflict(error, help));
        };
        let wanted = &role.image.value;
        if wanted.name != *image {
            let error = format!("{machine} boots the image {}, not {image}", wanted.name);
            return Err(Refusal::conflict(error, Some(format!("its role is {name}"))));
        }
        if wanted.version.is_some() {
            let error = format!("the role {name} of {machine} boots {wanted} and no other version");
            let help = format!("image = \"{image}\" in {} leaves that open", role.image.origin);
            return Err(Refusal::conflict(error, Some(help)));
        }
    }
    Ok(Meant { machines: named.iter().map(ToString::to_string).collect() })
}

/// Trials under way.
pub fn trials(app: &App) -> Vec<Shown> {
    let site = app.site.load();
    let mut images: Vec<&str> = site.roles.values().map(|role| &*role.image.value.name).collect();
    images.sort_unstable();
    images.dedup();
    let trial = |image: &str| {
        let (version, trial) = app.rollout.track(image)?.trial?;
        let machines = app.rollout.does(image).into_iter();
        let machines = machines.map(|(machine, does)| One { machine, does }).collect();
        Some(Shown { image: image.to_string(), version, trial, machines })
    };
    images.into_iter().filter_map(trial).collect()
}

/// Lets machines try once more what failed on them. Returns those on which something had.
pub async fn retry(app: &App, query: &Query, by: &str) -> Result<Meant, Refusal> {
    let Meant { machines } = meant(app, query)?;
    let mut forgot = Vec::new();
    for machine in machines {
        let Some(told) = app.rollout.forget(&query.image, &machine) else { continue };
        app.ledger.keep(vec![told]).await;
        let text = format!("{by} lets it try {} once more", query.image);
        app.ledger.event("retry", Some(machine.clone()), text).await;
        forgot.push(machine);
    }
    Ok(Meant { machines: forgot })
}

/// For a terminal.
pub fn show(trials: &[Shown]) -> String {
    if trials.is_empty() {
        return "no version is on trial; `koboshi image publish NAME --canary MACHINE` begins a trial\n"
            .to_string();
    }
    let mut text = String::new();
    for Shown { image, version, trial, machines } in trials {
        let age = ago(now_ms().saturating_sub(trial.begun));
        let by = trial.by.as_deref().map(|by| format!(" by {by}")).unwrap_or_default();
        let why = trial.reason.as_deref().map(|why| format!(": {why}")).unwrap_or_default();
        text.push_str(&format!("{image}@{version} is on trial, begun {age} ago{by}{why}\n"));
        let rows = machines.iter().map(|one| vec![one.machine.clone(), one.does.says()]);
        text.push_str(&table(&["MACHINE", "TRIAL"], &rows.collect::<Vec<_>>()));
    }
    text
}
