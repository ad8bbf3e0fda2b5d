//! `koboshi watchdog m01 status`: the timer that resets a machine when nobody feeds it any more.

use std::time::Duration;

use koboshi_ipmi::commands::watchdog::{self, Action, Setting, Use, Warning, Watchdog};
use serde::{Deserialize, Serialize};

use super::many::{Deed, Failure, On, Operation, Said};

/// What is asked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Query {
    /// How it is set, and whether it runs.
    Status,
    /// It begins to count, from the top; the same feeds it.
    Start,
    /// It stops.
    Stop,
    /// It is set, and does not run yet.
    Set {
        /// How long it counts.
        timeout: Duration,
        /// What happens at the end: none, reset, off, cycle.
        action: String,
    },
}

impl Operation for Query {
    const NAME: &'static str = "watchdog";

    fn headings(&self) -> &'static [&'static str] {
        &["WATCHDOG", "ACTION", "TIMEOUT", "LEFT   ", "NOTE"]
    }

    fn deed(&self) -> Option<Deed> {
        let stopping = Deed::stopping;
        match self {
            Query::Status => None,
            // A machine that feeds it not is reset by it.
            Query::Start => Some(stopping("watchdog start")),
            Query::Stop => Some(Deed { stops: false, ..stopping("watchdog stop") }),
            Query::Set { timeout, action } => {
                Some(stopping(&format!("watchdog set, {action} after {} s", timeout.as_secs_f32())))
            }
        }
    }

    fn check(&self, _machines: usize) -> Result<(), String> {
        match self {
            Query::Set { action, .. } if Action::by_name(action).is_none() => {
                Err(format!("no action {action:?}: none, reset, off, cycle"))
            }
            _ => Ok(()),
        }
    }

    async fn run(&self, on: &On) -> Result<Said, Failure> {
        let bmc = on.bmc()?;
        match self {
            Query::Status => {}
            Query::Start => watchdog::start(&bmc).await?,
            Query::Stop => watchdog::stop(&bmc).await?,
            Query::Set { timeout, action } => {
                let setting = Setting {
                    user: Use::Os,
                    action: Action::by_name(action).unwrap_or(Action::None),
                    warning: Warning::None,
                    warning_seconds: 0,
                    unlogged: false,
                    countdown: *timeout,
                };
                watchdog::set(&bmc, setting).await?;
            }
        }
        Ok(said(&watchdog::get(&bmc).await?))
    }
}

fn said(watchdog: &Watchdog) -> Said {
    let word = if watchdog.running { "runs" } else { "stopped" };
    let seconds = |time: Duration| format!("{} s", time.as_secs_f32());
    let left = watchdog.left.filter(|_| watchdog.running).map_or("-".to_string(), seconds);
    let expired = match watchdog.expired.as_slice() {
        [] => String::new(),
        _ => "it has run out before".to_string(),
    };
    let cells = [
        watchdog.setting.action.name().to_string(),
        seconds(watchdog.setting.countdown),
        left,
        expired,
    ];
    Said::line(word, cells, serde_json::to_value(watchdog).unwrap_or_default())
}
