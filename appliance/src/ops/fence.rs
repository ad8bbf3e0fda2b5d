//! `koboshi fence m01`: it is made sure that a machine cannot run. Its seats are free by that, and who waits for
//! one boots into it. Its BMC switches it off and says so, or with `--by-hand` somebody says so who looked.

use std::time::{Duration, SystemTime};

use koboshi_pxe::decide::{Entry, Place};
use koboshi_pxe::seats::Holder;
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;

use super::many::Failure;
use super::table::{ago, clock};
use crate::api::Refusal;
use crate::app::App;
use crate::bmcs::Switch;
use crate::ledger::now_ms;
use crate::site::{Fence, MachineName};

mod proof;

pub use proof::Reading;

/// What is asked.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Query {
    /// Machine.
    pub machine: String,
    /// Whoever asks has made sure of it himself.
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
    /// How it is, or was, made sure of: `its BMC at 10.78.0.1`, `by hand`.
    #[serde(default)]
    pub means: String,
    /// What was read of its power, and when.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub evidence: Vec<Reading>,
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
    let mut answer = look(app, machine);
    if query.by_hand {
        answer.means = "by hand".to_string();
        if query.dry {
            return Ok(answer);
        }
        let by = match answer.heard {
            Some(heard) => {
                let silent = ago(now_ms().saturating_sub(heard));
                format!("by hand, by {who} (its last sign of life was {silent} before)")
            }
            None => format!("by hand, by {who}"),
        };
        return free(app, answer, by).await;
    }
    let ways = ways(app, &answer)?;
    if query.dry {
        let names: Vec<&str> = ways.iter().map(|way| way.name.as_str()).collect();
        answer.means = names.join(", then ");
        return Ok(answer);
    }
    let mut failures = Vec::new();
    for way in ways {
        let mut said = Vec::new();
        let outcome = match &way.switch {
            Ok(switch) => proof::off(switch, &mut said).await.map_err(|unproved| Failure {
                help: unproved.help.clone(),
                ..Failure::new("", unproved.to_string())
            }),
            Err(failure) => Err(failure.clone()),
        };
        match outcome {
            Ok(()) => {
                let by = format!("by {}, by {who}: {}", way.name, told(&said));
                answer.means = way.name;
                answer.evidence = said;
                return free(app, answer, by).await;
            }
            Err(failure) => {
                let so_far = match said.as_slice() {
                    [] => String::new(),
                    said => format!(" ({})", told(said)),
                };
                let text = format!("by {}: {}{so_far}", way.name, failure.error);
                let event = format!("is not fenced, {text}");
                app.ledger.event("fence-failed", Some(answer.machine.clone()), event).await;
                failures.push((text, failure.help));
            }
        }
    }
    let machine = &answer.machine;
    let errors: Vec<&str> = failures.iter().map(|(error, _)| error.as_str()).collect();
    let error = format!("{machine} is not fenced, and keeps what it holds: {}", errors.join("; "));
    let mut help: Vec<String> = failures.iter().filter_map(|(_, help)| help.clone()).collect();
    help.push(by_hand(machine));
    Err(Refusal::conflict(error, Some(help.join("\n"))))
}

/// A way to make sure.
struct Way {
    /// `its BMC at 10.78.0.1`
    name: String,
    switch: Result<Switch, Failure>,
}

/// The ways there are for a machine, in the order that the site says.
fn ways(app: &App, answer: &Answer) -> Result<Vec<Way>, Refusal> {
    let site = app.site.load();
    let machine = site.machines.get_key_value(answer.machine.as_str());
    let help = || format!("{}\n{}", by_hand(&answer.machine), show(answer).trim_end());
    let Some((name, machine)) = machine else {
        let error = format!("the site does not know {} any more, nor its BMC", answer.machine);
        return Err(Refusal::conflict(error, Some(help())));
    };
    if machine.protected {
        let error = format!("{name} is protected: koboshi does not switch it off");
        return Err(Refusal::conflict(error, Some(help())));
    }
    let by_bmc = |name: &MachineName| {
        machine.bmc.as_ref().map(|bmc| Way {
            name: format!("its BMC at {}", bmc.host),
            switch: app.bmcs.of(name, machine).map(Switch::Bmc),
        })
    };
    let by_command = || {
        machine.power.as_ref().map(|power| Way {
            name: "its power command".to_string(),
            switch: Ok(Switch::Command(power.value.0.clone())),
        })
    };
    if machine.fence.is_empty() {
        let way = by_command().or_else(|| by_bmc(name));
        return way.map(|way| vec![way]).ok_or_else(|| {
            let error = format!(
                "{name} has no BMC and no power command: koboshi cannot make sure of it itself"
            );
            Refusal::conflict(error, Some(help()))
        });
    }
    let unbuilt = |what: &str| {
        let error = format!("fencing by {what} is not built yet");
        Way { name: what.to_string(), switch: Err(Failure::new("unbuilt", error)) }
    };
    let ways = machine.fence.iter().map(|means| match means {
        Fence::Bmc => by_bmc(name).or_else(by_command).unwrap_or_else(|| Way {
            name: "its BMC".to_string(),
            switch: Err(Failure::new("no BMC", "the site names none")),
        }),
        Fence::Pdu => unbuilt("its outlet"),
        Fence::Port => unbuilt("its switch port"),
    });
    Ok(ways.collect())
}

fn by_hand(machine: &str) -> String {
    format!(
        "make sure that {machine} is off and stays off (pull its power, or its network cable), then: koboshi fence {machine} --by-hand"
    )
}

/// `was on 14:03:27, told to switch off 14:03:27, reads off 14:03:29`.
fn told(said: &[Reading]) -> String {
    let said = said.iter().map(|reading| format!("{} {}", reading.says, clock(reading.at)));
    said.collect::<Vec<_>>().join(", ")
}

async fn free(app: &App, answer: Answer, by: String) -> Result<Answer, Refusal> {
    let (done, mut written) = mpsc::channel(1);
    if app.desk.fence(&answer.machine, by, done).is_none() {
        let help = Some("nothing was written; try it again".to_string());
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
    Answer { machine, frees, heard, done: false, means: String::new(), evidence: Vec::new() }
}

/// For a terminal: what it holds and how it was last heard of, or what is free now.
pub fn show(answer: &Answer) -> String {
    let Answer { machine, frees, heard, done, means, evidence } = answer;
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
    for Reading { at, says } in evidence {
        text.push_str(&format!("{machine} {says} at {}\n", clock(*at)));
    }
    match heard {
        None => text.push_str(&format!("{machine} was never heard of\n")),
        // It may well have run until it was switched off.
        Some(_) if !evidence.is_empty() => {}
        Some(heard) if age(*heard) < ALIVE_MS && means == "by hand" => text.push_str(&format!(
            "WARNING: {machine} was heard of {} ago: it may well be running. If it is not off, two machines will answer at one address\n",
            ago(age(*heard))
        )),
        Some(heard) => {
            text.push_str(&format!("{machine} was last heard of {} ago\n", ago(age(*heard))));
        }
    }
    text
}
