//! Proof that a machine cannot run: it is switched off, and its power reads off twice, some seconds apart. What
//! was read, and when, is kept as evidence. Silence is never evidence: a BMC that lost its own power says
//! nothing either.

use std::time::Duration;

use koboshi_ipmi::Controller;
use koboshi_ipmi::commands::chassis::{self, Control, Waited};
use serde::{Deserialize, Serialize};

use crate::bmcs::{Switch, command};
use crate::ledger::now_ms;

/// Within this time a machine that is switched off reads off. Some firmware lets capacitors drain first.
const OFF_WITHIN: Duration = Duration::from_secs(30);
/// Between the two readings: longer than a board takes to start by itself after a fault.
const BETWEEN: Duration = Duration::from_secs(4);
/// How long a command of the site may take.
const COMMAND: Duration = Duration::from_secs(30);
const READ_AGAIN: Duration = Duration::from_millis(500);

/// What was said of a machine's power.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reading {
    /// Unix milliseconds.
    pub at: u64,
    /// In words: `was on`, `told to switch off`, `reads off`.
    pub says: String,
}

/// Where it ended.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{step} failed: {why}")]
pub struct Unproved {
    /// Which step: `reading its power`.
    pub step: &'static str,
    /// Why.
    pub why: String,
    /// What to try.
    pub help: Option<String>,
}

/// Switches a machine off and makes sure of it. What was read is in `said`, also where it failed.
pub async fn off(switch: &Switch, said: &mut Vec<Reading>) -> Result<(), Unproved> {
    match switch {
        Switch::Bmc(bmc) => off_by(&ByBmc(bmc), said, OFF_WITHIN, BETWEEN).await,
        Switch::Command(command) => off_by(&ByCommand(command), said, OFF_WITHIN, BETWEEN).await,
    }
}

/// The three things a fence needs.
trait Power {
    async fn read(&self) -> Result<bool, (String, Option<String>)>;
    async fn off(&self) -> Result<(), (String, Option<String>)>;
    async fn reads_off(&self, patience: Duration) -> Result<bool, (String, Option<String>)>;
}

async fn off_by(
    power: &impl Power,
    said: &mut Vec<Reading>,
    within: Duration,
    between: Duration,
) -> Result<(), Unproved> {
    let mut note = |says: &str| said.push(Reading { at: now_ms(), says: says.to_string() });
    let failed = |step| move |(why, help)| Unproved { step, why, help };
    let on = power.read().await.map_err(failed("reading its power"))?;
    note(if on { "was on" } else { "was off" });
    if on {
        power.off().await.map_err(failed("switching it off"))?;
        note("told to switch off");
    }
    let still = |step, help: &str| Unproved {
        step,
        why: "its power reads on".to_string(),
        help: Some(help.to_string()),
    };
    if !power.reads_off(within).await.map_err(failed("reading its power back"))? {
        note("still reads on");
        return Err(still("switching it off", "look at its log: `koboshi sel`"));
    }
    note("reads off");
    tokio::time::sleep(between).await;
    if power.read().await.map_err(failed("reading its power a second time"))? {
        note("reads on again");
        return Err(still(
            "the second reading",
            "something switches it on again: its power policy, its watchdog, or somebody",
        ));
    }
    note("reads off again");
    Ok(())
}

struct ByBmc<'a, C>(&'a C);

impl<C: Controller> Power for ByBmc<'_, C> {
    async fn read(&self) -> Result<bool, (String, Option<String>)> {
        chassis::status(self.0).await.map(|status| status.power).map_err(because)
    }

    async fn off(&self) -> Result<(), (String, Option<String>)> {
        chassis::control(self.0, Control::Off).await.map(drop).map_err(because)
    }

    async fn reads_off(&self, patience: Duration) -> Result<bool, (String, Option<String>)> {
        let waited = chassis::until(self.0, false, patience).await.map_err(because)?;
        Ok(matches!(waited, Waited::Reads(..)))
    }
}

fn because(error: koboshi_ipmi::Error) -> (String, Option<String>) {
    (error.to_string(), error.advice().map(str::to_string))
}

struct ByCommand<'a>(&'a str);

impl Power for ByCommand<'_> {
    async fn read(&self) -> Result<bool, (String, Option<String>)> {
        command::status(self.0, COMMAND).await.map_err(|why| (why, None))
    }

    async fn off(&self) -> Result<(), (String, Option<String>)> {
        let spoken = command::run(self.0, "off", COMMAND).await.map_err(|why| (why, None))?;
        match spoken.well {
            true => Ok(()),
            false => Err((format!("it says {:?}", command::first_words(&spoken.text)), None)),
        }
    }

    async fn reads_off(&self, patience: Duration) -> Result<bool, (String, Option<String>)> {
        let begun = tokio::time::Instant::now();
        loop {
            if !self.read().await? {
                return Ok(true);
            }
            if begun.elapsed() >= patience {
                return Ok(false);
            }
            tokio::time::sleep(READ_AGAIN).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use koboshi_ipmi::{Completion, Error, Request, Response};

    use super::*;

    /// A machine whose power reads as told, one reading after the other; the last one stays.
    struct Scripted {
        readings: Mutex<Vec<Result<bool, Error>>>,
        takes_off: u8,
    }

    impl Controller for Scripted {
        async fn ask(&self, request: Request) -> Result<Response, Error> {
            if request.command == chassis::CONTROL {
                let completion = Completion(self.takes_off);
                return Ok(Response { completion, data: Vec::new() });
            }
            let mut readings = self.readings.lock().unwrap();
            let on = if readings.len() > 1 { readings.remove(0) } else { readings[0].clone() };
            let data = vec![u8::from(on?), 0, 0];
            Ok(Response { completion: Completion::OK, data })
        }
    }

    async fn fenced(
        readings: Vec<Result<bool, Error>>,
        takes_off: u8,
    ) -> (Result<(), Unproved>, Vec<String>) {
        let bmc = Scripted { readings: Mutex::new(readings), takes_off };
        let mut said = Vec::new();
        let outcome =
            off_by(&ByBmc(&bmc), &mut said, Duration::from_millis(300), Duration::ZERO).await;
        (outcome, said.into_iter().map(|reading| reading.says).collect())
    }

    #[tokio::test]
    async fn off_is_off_when_it_reads_off_twice() {
        let (outcome, said) = fenced(vec![Ok(true), Ok(true), Ok(false), Ok(false)], 0).await;
        assert_eq!(outcome, Ok(()));
        assert_eq!(said, ["was on", "told to switch off", "reads off", "reads off again"]);
        let (outcome, said) = fenced(vec![Ok(false)], 0).await;
        assert_eq!(outcome, Ok(()));
        assert_eq!(said, ["was off", "reads off", "reads off again"]);
    }

    #[tokio::test]
    async fn what_is_no_proof_says_at_which_step() {
        let lost = || Err(Error::Lost { waited: Duration::from_secs(15) });
        let (outcome, said) = fenced(vec![lost()], 0).await;
        assert!(outcome.unwrap_err().to_string().starts_with("reading its power failed: "));
        assert!(said.is_empty());
        let (outcome, said) = fenced(vec![Ok(true)], 0xd5).await;
        assert!(outcome.unwrap_err().to_string().starts_with("switching it off failed: "));
        assert_eq!(said, ["was on"]);
        let (outcome, said) = fenced(vec![Ok(true)], 0).await;
        assert_eq!(outcome.unwrap_err().why, "its power reads on");
        assert_eq!(said.last().unwrap(), "still reads on");
        // Its BMC dies with it: nobody said that it is off.
        let (outcome, _) = fenced(vec![Ok(true), lost()], 0).await;
        assert_eq!(outcome.unwrap_err().step, "reading its power back");
        let (outcome, said) = fenced(vec![Ok(true), Ok(false), Ok(true)], 0).await;
        assert_eq!(outcome.unwrap_err().step, "the second reading");
        assert_eq!(said.last().unwrap(), "reads on again");
        let (outcome, _) = fenced(vec![Ok(true), Ok(false), lost()], 0).await;
        assert_eq!(outcome.unwrap_err().step, "reading its power a second time");
    }
}
