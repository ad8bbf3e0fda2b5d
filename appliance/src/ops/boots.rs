//! `koboshi boots <who>`: the last boots of a machine, each with its timeline.

use serde::{Deserialize, Serialize};

use super::table::clock;
use crate::api::Refusal;
use crate::app::App;
use crate::store::{BootRecord, Mark};

/// What is asked.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Query {
    /// A machine, or a seat: the machine the matrix puts into it.
    pub who: String,
    /// How many, newest first.
    #[serde(default = "three")]
    pub count: usize,
}

fn three() -> usize {
    3
}

/// One boot.
pub type Boot = BootRecord;

/// Answers from the store.
pub fn answer(app: &App, query: &Query) -> Result<Vec<Boot>, Refusal> {
    let machine = machine(app, &query.who)?;
    let mut boots =
        app.store.boots_of(&machine).map_err(|error| Refusal::failed(error.to_string()))?;
    boots.truncate(query.count);
    Ok(boots)
}

/// The name under which a machine's boots are kept.
pub(super) fn machine(app: &App, who: &str) -> Result<String, Refusal> {
    let site = app.site.load();
    let mac = who.parse::<koboshi_pxe::Mac>().ok();
    let by_mac = mac.and_then(|mac| site.machine_by_mac(mac)).map(|(name, _)| name.clone());
    match by_mac.map_or_else(|| super::one(&site, who), Ok) {
        Ok(machine) => Ok(machine.to_string()),
        // A machine the site does not know (it goes by its MAC), or knows no longer.
        Err(error) => {
            let name = mac.map_or_else(|| who.to_string(), |mac| mac.to_string());
            let known = app.store.boots_of(&name).is_ok_and(|boots| !boots.is_empty())
                || app.store.booted(&name).is_ok_and(|boots| !boots.is_empty());
            if !known && mac.is_none() {
                return Err(error);
            }
            Ok(name)
        }
    }
}

/// Under the notes.
const INDENT: &str = "                        ";

/// For a terminal: newest last, so that it stands next to the prompt.
pub fn show(boots: &[Boot]) -> String {
    if boots.is_empty() {
        return "no boot seen yet\n".to_string();
    }
    let mut text = String::new();
    for boot in boots.iter().rev() {
        let what = match &boot.plan {
            Some(plan) => format!(
                "{} (role {}, image {})",
                plan.seat.as_deref().unwrap_or("no seat"),
                plan.role,
                plan.image
            ),
            None => "nothing to boot".to_string(),
        };
        let (opened, machine) = (clock(boot.opened), &boot.machine);
        text.push_str(&match boot.is_unbooted() {
            true => format!("{opened} {machine}  as its console showed it\n"),
            false => format!("{opened} {machine}  {}  {what}  {}\n", boot.id, boot.address),
        });
        for mark in &boot.marks {
            let after = mark.at.saturating_sub(boot.opened);
            let line = format!(
                "  {:>4}.{} s  {:<10}  {}",
                after / 1000,
                after % 1000 / 100,
                match mark {
                    Mark { late: Some(_), .. } => "LATE",
                    Mark { power: Some(_), .. } => "POWER",
                    Mark { console: Some(_), .. } => "CONSOLE",
                    mark => mark.stage.as_str(),
                },
                match &mark.console {
                    Some(seen) => format!("{}: {}", seen.rule, mark.note),
                    None => mark.note.clone(),
                }
            );
            let line: String = line.chars().map(|c| if c.is_control() { '·' } else { c }).collect();
            text.push_str(line.trim_end());
            text.push('\n');
            if let Some(late) = &mark.late {
                text.push_str(&format!("{INDENT}usually: {}\n", late.usual));
                text.push_str(&format!("{INDENT}next: {}\n", late.next));
            }
        }
        if boot.over {
            text.push_str("  the machine booted anew since\n");
        }
    }
    text
}
