//! `koboshi fence m01 --by-hand`: somebody has made sure that a machine cannot run, and says so. Its
//! seats are free by that, and who waits for one boots into it.

use std::time::{Duration, SystemTime};

use koboshi_pxe::decide::{Entry, Place};
use koboshi_pxe::seats::Holder;
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;

use super::table::ago;
use crate::api::Refusal;
use crate::app::App;
use crate::ledger::now_ms;

/// What is asked.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Query {
    /// Machine.
    pub machine: String,
    /// Whoever asks has made sure of it.
    #[serde(default)]
    pub by_hand: bool,
    /// Only say what it would free.
    #[serde(default)]
    pub dry: bool,
}

/// What is, or would be, free.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Answer {
    /// Machine.
    pub machine: String,
    /// Its seats.
    pub frees: Vec<Freed>,
    /// Unix milliseconds of its last sign of life, if there was one.
    pub heard: Option<u64>,
    /// It was done, not only looked at.
    pub done: bool,
}

/// A seat.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Freed {
    /// Its name.
    pub seat: String,
    /// Its address.
    pub address: String,
    /// Unix milliseconds since when it is held.
    pub since: u64,
    /// Machines that wait for it.
    pub waits: Vec<String>,
}

/// A machine that was heard of within this time is not off: heartbeats come every 20 seconds.
const ALIVE_MS: u64 = 70_000;
/// The ledger writes within milliseconds; a disk that takes longer than this is another trouble.
const WRITTEN: Duration = Duration::from_secs(20);

/// Looks, or fences; `who` asks.
pub async fn answer(app: &App, query: &Query, who: &str) -> Result<Answer, Refusal> {
    let machine = machine(app, &query.machine)?;
    let answer = look(app, machine);
    let machine = &answer.machine;
    if !query.by_hand {
        let error = "fencing by BMC, PDU or switch port is not built yet: koboshi cannot make sure of it itself";
        let help = format!(
            "make sure that {machine} is off and stays off (pull its power, or its network cable), then: koboshi fence {machine} --by-hand\n{}",
            show(&answer).trim_end()
        );
        return Err(Refusal::conflict(error, Some(help)));
    }
    if query.dry {
        return Ok(answer);
    }
    let (done, mut written) = mpsc::channel(1);
    let by = match answer.heard {
        Some(heard) => {
            let silent = ago(now_ms().saturating_sub(heard));
            format!("by hand, by {who} (its last sign of life was {silent} before)")
        }
        None => format!("by hand, by {who}"),
    };
    if app.desk.fence(machine, by, done).is_none() {
        let help = Some("nothing was done; try it again".to_string());
        return Err(Refusal::conflict("the ledger is behind", help));
    }
    match tokio::time::timeout(WRITTEN, written.recv()).await {
        Ok(Some(())) => Ok(Answer { done: true, ..answer }),
        _ => {
            Err(Refusal::failed("it could not be written down; `koboshi status` shows what holds"))
        }
    }
}

/// A machine of the site; or one the site does not know any more, that holds a seat all the same.
fn machine(app: &App, who: &str) -> Result<String, Refusal> {
    let site = app.site.load();
    let holders = app.desk.holders();
    if site.machines.contains_key(who) || holders.iter().any(|holder| holder.machine == who) {
        return Ok(who.to_string());
    }
    // A seat's name would be read as whoever the matrix puts there: the one that waits.
    if site.seats.contains_key(who) {
        let holder = holders.iter().find(|holder| holder.seat == who);
        let help = match holder {
            Some(Holder { machine, .. }) => format!("{machine} holds it: koboshi fence {machine}"),
            None => "no machine holds it".to_string(),
        };
        return Err(Refusal::not_found(format!("{who} is a seat, not a machine"), Some(help)));
    }
    super::one(&site, who).map(|machine| machine.to_string())
}

fn look(app: &App, machine: String) -> Answer {
    let site = app.site.load();
    let mut waiting: Vec<(String, String)> = Vec::new();
    for (name, other) in &site.machines {
        let entries = other.macs.first().map(|mac| app.desk.entry(mac.value));
        let Some(Entry::Known(known)) = entries else { continue };
        if let Place::Taken(_, held) = &known.place
            && held.by == machine
        {
            waiting.push((held.sits_in.clone(), name.to_string()));
        }
    }
    let holders = app.desk.holders();
    let mut macs: Vec<_> = site
        .machines
        .get(machine.as_str())
        .map_or_else(Vec::new, |machine| machine.macs.iter().map(|mac| mac.value).collect());
    let mut frees = Vec::new();
    for holder in holders.into_iter().filter(|holder| holder.machine == machine) {
        macs.push(holder.mac);
        let waits = waiting.iter().filter(|(seat, _)| *seat == holder.seat);
        let since = holder.since.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        frees.push(Freed {
            waits: waits.map(|(_, name)| name.clone()).collect(),
            address: holder.address.to_string(),
            since: u64::try_from(since.as_millis()).unwrap_or(u64::MAX),
            seat: holder.seat,
        });
    }
    frees.sort_by(|a, b| a.seat.cmp(&b.seat));
    let heard = macs.into_iter().filter_map(|mac| app.ledger.heard(mac)).max();
    Answer { machine, frees, heard, done: false }
}

/// For a terminal: what it holds and how it was last heard of, or what is free now.
pub fn show(answer: &Answer) -> String {
    let Answer { machine, frees, heard, done } = answer;
    let now = now_ms();
    let age = |at: u64| now.saturating_sub(at);
    let mut text = String::new();
    if frees.is_empty() {
        text.push_str(&format!("{machine} holds no seat\n"));
    }
    for Freed { seat, address, since, waits } in frees {
        let who = waits.join(", ");
        let line = match (done, waits.is_empty()) {
            (true, true) => format!("{seat} ({address}) is free\n"),
            (true, false) => {
                format!("{seat} ({address}) is free; {who} boots into it within 20 s\n")
            }
            (false, true) => {
                format!("{machine} holds {seat} ({address}) for {}\n", ago(age(*since)))
            }
            (false, false) => format!(
                "{machine} holds {seat} ({address}) for {}; {who} waits for it\n",
                ago(age(*since))
            ),
        };
        text.push_str(&line);
    }
    match heard {
        None => text.push_str(&format!("{machine} was never heard of\n")),
        Some(heard) if age(*heard) < ALIVE_MS => text.push_str(&format!(
            "WARNING: {machine} was heard of {} ago: it may well be running. If it is not off, two machines will answer at one address\n",
            ago(age(*heard))
        )),
        Some(heard) => {
            text.push_str(&format!("{machine} was last heard of {} ago\n", ago(age(*heard))));
        }
    }
    text
}
