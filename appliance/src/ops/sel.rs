//! `koboshi sel m01`: the event log that a machine's BMC keeps; `-f` follows it on many machines at once.

use std::time::Duration;

use koboshi_ipmi::commands::sdr::{self, Repository};
use koboshi_ipmi::commands::sel::record::When;
use koboshi_ipmi::commands::sel::{self, Clock, Described, Follower, Log};
use koboshi_ipmi::commands::sensor::Severity;
use koboshi_ipmi::{Controller, Error};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::many::{Deed, Failure, On, Operation, Said};
use super::table::clock;

/// How often a log is looked at that is followed: one small question, if nothing is new.
const LOOK_EVERY: Duration = Duration::from_secs(5);

/// What is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Query {
    /// All of it.
    List,
    /// What comes from now on.
    Follow,
    /// Forget all of it.
    Clear,
    /// How full it is, and how its clock goes.
    Info,
    /// Set its clock to ours.
    SetClock,
}

impl Operation for Query {
    const NAME: &'static str = "sel";

    fn headings(&self) -> &'static [&'static str] {
        match self {
            Query::List | Query::Follow => &[
                "TIME    ",
                "SENSOR          ",
                "EVENT                     ",
                "SEVERITY    ",
                "DETAIL",
            ],
            Query::Clear => &["LOG"],
            Query::Info | Query::SetClock => &["ENTRIES", "FREE    ", "LAST    ", "CLOCK"],
        }
    }

    fn deed(&self) -> Option<Deed> {
        match self {
            Query::List | Query::Follow | Query::Info => None,
            Query::Clear => Some(Deed::of_bmc("sel clear")),
            Query::SetClock => Some(Deed { harms: false, ..Deed::of_bmc("sel set-clock") }),
        }
    }

    async fn run(&self, on: &On) -> Result<Said, Failure> {
        let bmc = on.bmc()?;
        match self {
            Query::List => {
                let clock = measured(&bmc).await?;
                let log = sel::list(&bmc).await?;
                let repository = names(&bmc, on).await?;
                Ok(entries(&log, repository.as_ref(), clock))
            }
            Query::Follow => follow(&bmc, on).await,
            Query::Clear => {
                sel::clear(&bmc).await?;
                Ok(Said::line("cleared", [], json!({ "cleared": true })))
            }
            Query::Info => info(&bmc, measured(&bmc).await?).await,
            Query::SetClock => info(&bmc, Some(sel::clock::set(&bmc).await?)).await,
        }
    }
}

/// Its clock, where it tells.
async fn measured(bmc: &impl Controller) -> Result<Option<Clock>, Error> {
    match sel::clock::read(bmc).await {
        Ok(clock) => Ok(Some(clock)),
        Err(Error::Refused { .. } | Error::Malformed(_)) => Ok(None),
        Err(error) => Err(error),
    }
}

/// What its sensors are called. An event without is still worth telling.
async fn names(bmc: &impl Controller, on: &On) -> Result<Option<Repository>, Error> {
    match sdr::load(bmc, on.records().as_ref()).await {
        Ok(repository) => Ok(Some(repository)),
        Err(Error::Refused { .. } | Error::Malformed(_) | Error::Unsupported(_)) => Ok(None),
        Err(error) => Err(error),
    }
}

fn entries(log: &Log, repository: Option<&Repository>, clock: Option<Clock>) -> Said {
    let described = log.entries.iter().map(|entry| sel::describe(entry, repository));
    let described: Vec<Described> = described.collect();
    let word = match described.len() {
        0 => "empty".to_string(),
        1 => "1 entry".to_string(),
        many => format!("{many} entries"),
    };
    let mut cells: Vec<Vec<String>> = described.iter().map(|entry| row(entry, clock)).collect();
    if cells.is_empty() {
        cells.push(vec!["-".to_string(), word.clone()]);
    }
    let notes = log.notes.iter().map(|note| vec!["-".to_string(), note.clone()]);
    cells.extend(notes);
    let entries: Vec<Value> = described.iter().map(|entry| object(entry, clock)).collect();
    let data = json!({ "entries": entries, "notes": log.notes, "clock-ahead": clock.map(|clock| clock.ahead) });
    Said { word, cells, data }
}

/// When it was, by our clock where that can be told.
fn when(entry: &Described, bmc: Option<Clock>) -> String {
    let Some(stamp) = entry.time else { return "-".to_string() };
    let ours = bmc.and_then(|bmc| bmc.ours(stamp));
    match (ours, stamp.when()) {
        (Some(seconds), _) => clock(u64::try_from(seconds).unwrap_or(0) * 1000),
        (None, When::At(seconds)) => format!("{}?", clock(u64::from(seconds) * 1000)),
        (None, When::AfterStart(seconds)) => format!("{seconds} s after its start"),
        (None, When::Unknown) => "-".to_string(),
    }
}

fn severity(severity: Severity) -> &'static str {
    match severity {
        Severity::Ok => "ok",
        Severity::NonCritical => "non-critical",
        Severity::Critical => "critical",
        Severity::NonRecoverable => "non-recoverable",
    }
}

fn row(entry: &Described, clock: Option<Clock>) -> Vec<String> {
    let ended = if entry.asserted == Some(false) { " (ended)" } else { "" };
    vec![
        when(entry, clock),
        entry.sensor.clone(),
        format!("{}{ended}", entry.event),
        severity(entry.severity).to_string(),
        entry.detail.clone().unwrap_or_default(),
    ]
}

fn object(entry: &Described, clock: Option<Clock>) -> Value {
    let mut object = serde_json::to_value(entry).unwrap_or_default();
    let ours = entry.time.and_then(|stamp| clock?.ours(stamp));
    object["at"] = ours.into();
    object
}

async fn follow(bmc: &impl Controller, on: &On) -> Result<Said, Failure> {
    let clock = measured(bmc).await?;
    let repository = names(bmc, on).await?;
    let mut follower = Follower::from_now(bmc).await?;
    let mut silent = false;
    loop {
        tokio::select! {
            () = on.unheard() => return Ok(Said::default()),
            () = tokio::time::sleep(LOOK_EVERY) => {}
        }
        let log = match follower.poll(bmc).await {
            Ok(log) => log,
            // It is asked again: whoever follows for days sees BMCs restart.
            Err(error) if error.is_passing() => {
                if !silent {
                    let cells = vec![vec!["-".to_string(), format!("! {error}")]];
                    let data = json!({ "note": error.to_string() });
                    on.tell(Said { word: String::new(), cells, data }).await;
                }
                silent = true;
                continue;
            }
            Err(error) => return Err(error.into()),
        };
        silent = false;
        for entry in &log.entries {
            let entry = sel::describe(entry, repository.as_ref());
            let (cells, data) = (vec![row(&entry, clock)], object(&entry, clock));
            on.tell(Said { word: String::new(), cells, data }).await;
        }
    }
}

async fn info(bmc: &impl Controller, clock: Option<Clock>) -> Result<Said, Failure> {
    let info = sel::info(bmc).await?;
    let full = if info.overflow { " (events were lost)" } else { "" };
    let goes = match clock {
        None => "it does not tell".to_string(),
        Some(clock) if matches!(clock.time.when(), When::At(_)) => {
            let way = if clock.ahead < 0.0 { "behind" } else { "ahead" };
            match clock.is_off() {
                true => format!("{:.0} s {way}", clock.ahead.abs()),
                false => "right".to_string(),
            }
        }
        Some(_) => "never set".to_string(),
    };
    let last = match (info.entries, clock.and_then(|clock| clock.ours(info.added))) {
        (0, _) | (_, None) => "-".to_string(),
        (_, Some(seconds)) => super::table::clock(u64::try_from(seconds).unwrap_or(0) * 1000),
    };
    let free = match info.free {
        0xffff => "64 KiB or more".to_string(),
        free => format!("{free} B"),
    };
    let word = format!("{} entries", info.entries);
    let cells = vec![vec![info.entries.to_string(), format!("{free}{full}"), last, goes]];
    let data = json!({ "log": info, "clock": clock });
    Ok(Said { word, cells, data })
}
