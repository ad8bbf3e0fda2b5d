//! `koboshi reload`: the site file read again, now.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::app::Reloaded;

/// What is asked.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Query {
    /// Also if it unseats running machines or drops many.
    #[serde(default)]
    pub accept: bool,
    /// Only say what would change.
    #[serde(default)]
    pub dry: bool,
    /// The file that is meant, if it matters: the appliance refuses if it serves another.
    #[serde(default)]
    pub site: Option<PathBuf>,
}

/// For a terminal.
pub fn show(reloaded: &Reloaded) -> String {
    match reloaded {
        Reloaded::Same => "nothing differs\n".to_string(),
        Reloaded::Applied { changes, warnings, restart } => {
            let mut text = String::from("in force:\n");
            for change in changes {
                text.push_str(&format!("  {change}\n"));
            }
            for warning in warnings {
                text.push_str(&format!("  warning: {warning}\n"));
            }
            for reason in restart {
                text.push_str(&format!("  after a restart of the appliance: {reason}\n"));
            }
            text
        }
        Reloaded::Waits { reasons } => {
            let mut text = String::from("waits for `koboshi reload --accept`, because it would\n");
            for reason in reasons {
                text.push_str(&format!("  {reason}\n"));
            }
            text
        }
        Reloaded::Refused { report, errors } => {
            format!("{report}\nrefused: {errors} errors; the former site stays in force\n")
        }
    }
}

/// A changed site file that is not in force, and why: empty where the file and the site agree.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pending {
    /// The file.
    pub site: PathBuf,
    /// What it waits for, a line each.
    pub waits: Vec<String>,
}

/// A line under every table that would otherwise mislead.
pub fn show_pending(pending: &Pending) -> String {
    if pending.waits.is_empty() {
        return String::new();
    }
    format!(
        "\n{} was changed and is NOT in force; `koboshi reload --accept` puts it in force:\n  {}\n",
        pending.site.display(),
        pending.waits.join("\n  ")
    )
}

/// For `check --diff`: what a reload would do.
pub fn show_dry(reloaded: &Reloaded) -> String {
    match reloaded {
        Reloaded::Applied { .. } => show(reloaded).replacen("in force:", "would change:", 1),
        Reloaded::Waits { .. } => show(reloaded).replacen("waits", "would wait", 1),
        _ => show(reloaded),
    }
}

/// Exit code: a refused or waiting reload is not well.
pub fn code(reloaded: &Reloaded) -> u8 {
    match reloaded {
        Reloaded::Same | Reloaded::Applied { .. } => 0,
        Reloaded::Waits { .. } => 1,
        Reloaded::Refused { .. } => 2,
    }
}
