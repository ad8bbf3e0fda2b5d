//! `koboshi power m[01-40] on`: by each machine's BMC, or by the command that the site names for it.

use std::time::{Duration, Instant};

use clap::ValueEnum;
use koboshi_ipmi::Controller;
use koboshi_ipmi::commands::chassis::{self, ChassisStatus, Control, Controlled, Waited};
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::many::{Deed, Failure, On, Operation, Said};
use crate::bmcs::{Switch, command};
use crate::store::Switched;

/// Within this time the power reads as it was switched.
const SETTLED: Duration = Duration::from_secs(10);
/// How long a power command of the site may take.
const COMMAND: Duration = Duration::from_secs(30);
const READ_AGAIN: Duration = Duration::from_millis(500);

/// What is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Action {
    /// Switch it on
    On,
    /// Switch it off at once
    Off,
    /// Ask its operating system to shut down
    Soft,
    /// Off, and on again
    Cycle,
    /// The reset line
    Reset,
    /// A diagnostic interrupt (NMI)
    Diag,
    /// Say whether it is on
    Status,
}

impl Action {
    fn name(self) -> &'static str {
        match self {
            Action::On => "on",
            Action::Off => "off",
            Action::Soft => "soft",
            Action::Cycle => "cycle",
            Action::Reset => "reset",
            Action::Diag => "diag",
            Action::Status => "status",
        }
    }
}

/// What is asked.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Query {
    /// What is done.
    pub action: Action,
    /// Time between two machines that start.
    #[serde(default = "stagger")]
    pub stagger: Duration,
    /// Within which time the power has to read as wanted. None: ten seconds for on and off, and the rest is
    /// not read back.
    #[serde(default)]
    pub wait: Option<Duration>,
}

/// A rack's fuse does not blow by it, and forty machines start within eight seconds.
pub const STAGGER: Duration = Duration::from_millis(200);

fn stagger() -> Duration {
    STAGGER
}

impl Operation for Query {
    const NAME: &'static str = "power";

    fn headings(&self) -> &'static [&'static str] {
        &["POWER", "NOTE"]
    }

    fn deed(&self) -> Option<Deed> {
        let says = format!("power {}", self.action.name());
        let (deed, power) = match self.action {
            Action::Status => return None,
            Action::On => (Deed::harmless(says), Some(Switched::On)),
            Action::Off | Action::Soft => (Deed::stopping(says), Some(Switched::Off)),
            Action::Cycle | Action::Reset => (Deed::stopping(says), Some(Switched::On)),
            Action::Diag => (Deed::stopping(says), None),
        };
        Some(Deed { power, ..deed })
    }

    fn stagger(&self) -> Duration {
        match self.action {
            Action::On | Action::Cycle | Action::Reset => self.stagger,
            _ => Duration::ZERO,
        }
    }

    async fn run(&self, on: &On) -> Result<Said, Failure> {
        match on.switch()? {
            Switch::Bmc(bmc) => self.by_bmc(&bmc, on.turn()).await,
            Switch::Command(command) => self.by_command(&command, on.turn()).await,
        }
    }
}

/// Which way a machine is.
fn way(on: bool) -> &'static str {
    if on { "on" } else { "off" }
}

impl Query {
    async fn by_bmc(
        &self,
        bmc: &impl Controller,
        turn: impl Future<Output = Result<(), Failure>>,
    ) -> Result<Said, Failure> {
        let before = chassis::status(bmc).await?;
        let control = match self.action {
            Action::Status => return Ok(status(&before)),
            Action::On => Control::On,
            Action::Off => Control::Off,
            Action::Soft => Control::Soft,
            Action::Cycle => Control::Cycle,
            Action::Reset => Control::Reset,
            Action::Diag => Control::Diag,
        };
        if let Some(already) = self.already(before.power) {
            return already;
        }
        turn.await?;
        let controlled = chassis::control(bmc, control).await?;
        let (Some(wanted), Some(patience)) = (control.ends_as(), self.patience()) else {
            return Ok(self.done(before.power, None));
        };
        if controlled == Controlled::Already {
            return Ok(self.done(wanted, Some(wanted)));
        }
        match chassis::until(bmc, wanted, patience).await? {
            Waited::Reads(..) => Ok(self.done(before.power, Some(wanted))),
            Waited::Still(status) => Err(self.still(status.power, patience)),
        }
    }

    async fn by_command(
        &self,
        command: &str,
        turn: impl Future<Output = Result<(), Failure>>,
    ) -> Result<Said, Failure> {
        let before = ask(command).await?;
        match self.action {
            Action::Status => {
                let data = json!({ "power": way(before), "by": "command" });
                return Ok(Said::line(way(before), [], data));
            }
            Action::Soft | Action::Diag => {
                let error = format!("its power command has no {}", self.action.name());
                return Err(Failure::new("unknown to its command", error)
                    .help("power = \"exec:…\" is asked for on, off, reset and status"));
            }
            Action::On | Action::Off | Action::Cycle | Action::Reset => {}
        }
        if let Some(already) = self.already(before) {
            return already;
        }
        turn.await?;
        match self.action {
            Action::Reset => {
                tell(command, "reset").await?;
                Ok(self.done(before, None))
            }
            Action::Cycle => {
                let patience = self.patience().unwrap_or(SETTLED);
                tell(command, "off").await?;
                self.reads(command, false, patience).await?;
                tell(command, "on").await?;
                self.reads(command, true, patience).await?;
                Ok(self.done(before, Some(true)))
            }
            _ => {
                let wanted = self.action == Action::On;
                tell(command, self.action.name()).await?;
                let Some(patience) = self.patience() else { return Ok(self.done(before, None)) };
                self.reads(command, wanted, patience).await?;
                Ok(self.done(before, Some(wanted)))
            }
        }
    }

    /// Waits until its command says so.
    async fn reads(&self, command: &str, on: bool, patience: Duration) -> Result<(), Failure> {
        let begun = Instant::now();
        while ask(command).await? != on {
            if begun.elapsed() >= patience {
                return Err(self.still(!on, patience));
            }
            tokio::time::sleep(READ_AGAIN).await;
        }
        Ok(())
    }

    /// Where there is nothing to do, or nothing that can be done.
    fn already(&self, on: bool) -> Option<Result<Said, Failure>> {
        match (self.action, on) {
            (Action::On, true) | (Action::Off | Action::Soft, false) => {
                Some(Ok(self.done(on, Some(on))))
            }
            (Action::Cycle | Action::Reset | Action::Diag, false) => {
                let failure = Failure::new("off", "it is off, and stays so");
                Some(Err(failure.help("`koboshi power WHO on` switches it on")))
            }
            _ => None,
        }
    }

    /// How long the power is read back.
    fn patience(&self) -> Option<Duration> {
        let usual = match self.action {
            Action::On | Action::Off => Some(SETTLED),
            _ => None,
        };
        self.wait.or(usual).filter(|wait| !wait.is_zero())
    }

    /// `reads`: what was read afterwards, if it was.
    fn done(&self, was: bool, reads: Option<bool>) -> Said {
        let word = match (self.action, reads) {
            (_, Some(on)) => way(on),
            (Action::On, None) => "told to start",
            (Action::Off, None) => "told to stop",
            (Action::Soft, None) => "shutting down",
            (Action::Cycle, None) => "cycled",
            (Action::Reset, None) => "reset",
            (Action::Diag | Action::Status, None) => "interrupted",
        };
        let note = match reads {
            Some(on) if on == was && self.action != Action::Cycle => "as before".to_string(),
            _ => format!("was {}", way(was)),
        };
        let power = reads.map(way);
        let data = json!({ "action": self.action.name(), "was": way(was), "power": power, "result": word });
        Said::line(word, [note], data)
    }

    fn still(&self, on: bool, patience: Duration) -> Failure {
        let word = format!("still {}", way(on));
        let error = format!("still {} after {} s", way(on), patience.as_secs());
        let help = match self.action {
            Action::Soft => {
                "its operating system does not shut down: look at its console, or `koboshi power WHO off`"
            }
            _ => "look at its log: `koboshi sel WHO`; --wait SECONDS waits longer",
        };
        Failure::new(&word, error).help(help)
    }
}

fn status(status: &ChassisStatus) -> Said {
    let word = way(status.power);
    let mut data = serde_json::to_value(status).unwrap_or_default();
    data["power"] = word.into();
    data["by"] = "bmc".into();
    Said::line(word, [status.complaints().join(", ")], data)
}

async fn ask(command: &str) -> Result<bool, Failure> {
    command::status(command, COMMAND).await.map_err(by_command)
}

async fn tell(command: &str, word: &str) -> Result<(), Failure> {
    let spoken = command::run(command, word, COMMAND).await.map_err(by_command)?;
    if spoken.well {
        return Ok(());
    }
    Err(by_command(format!("{word} failed: {:?}", command::first_words(&spoken.text))))
}

fn by_command(why: String) -> Failure {
    Failure::new("command failed", format!("its power command: {why}"))
        .help("run it by hand as the user the appliance runs as")
}
