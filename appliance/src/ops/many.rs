//! One operation over many machines at once, out of band: who is asked how, what each answers, a line each as
//! it comes. The appliance streams the lines, a command without an appliance prints them: both run this.
//!
//! A machine that does not answer costs its own patience and nobody else's.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use koboshi_ipmi::commands::sdr::Cache;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::sync::{Mutex, mpsc};
use tokio::time::Instant;

use crate::api::Refusal;
use crate::bmcs::{Bmcs, Switch};
use crate::ledger::Ledger;
use crate::rights::Verb;
use crate::site::hostlist::fold;
use crate::site::{Machine, MachineName, Site};
use crate::store::Switched;

pub mod show;

/// Machines at a time. The dead ones of a site all wait out their patience together.
const AT_ONCE: usize = 2048;
/// More machines than this are not switched off on one word.
const FEW: usize = 5;
/// Lines that wait for a slow reader before machines wait too.
const LINES: usize = 256;

/// What is asked of whom.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Asked<O> {
    /// A host list, a seat, `@group`, `@role` or `@all`.
    pub who: String,
    /// The operation.
    pub what: O,
    /// How many machines the asker says these are, where that is asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub count: Option<usize>,
    /// Whoever asks means all of them, however many.
    #[serde(default)]
    pub yes: bool,
}

/// What an operation does to a machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Deed {
    /// The right it takes.
    pub verb: Verb,
    /// In words, for the event log and for questions: `power off`.
    pub says: String,
    /// Whether it takes something away that nobody gives back: on many machines it is asked for twice.
    pub harms: bool,
    /// Whether it stops, or may stop, what the machine does: those that are `protected` refuse it.
    pub stops: bool,
    /// Whether the machine is off or starts anew by it.
    pub power: Option<Switched>,
}

impl Deed {
    /// A change that does no harm.
    pub fn harmless(says: impl Into<String>) -> Deed {
        Deed { verb: Verb::Operate, says: says.into(), harms: false, stops: false, power: None }
    }

    /// A change that stops what the machine does.
    pub fn stopping(says: impl Into<String>) -> Deed {
        Deed { harms: true, stops: true, ..Deed::harmless(says) }
    }

    /// A change of the BMC itself, its log or its settings.
    pub fn of_bmc(says: impl Into<String>) -> Deed {
        Deed { verb: Verb::Administer, harms: true, ..Deed::harmless(says) }
    }
}

/// What is asked of each machine.
pub trait Operation: Serialize + DeserializeOwned + Clone + Send + Sync + 'static {
    /// Its name: of the command, of its path in the API, of its events.
    const NAME: &'static str;

    /// Columns after the machine's name, each with the room that its cells usually take: rows are printed as
    /// they come, before anybody knows the widest.
    fn headings(&self) -> &'static [&'static str];

    /// What it does. `None`: it looks and changes nothing.
    fn deed(&self) -> Option<Deed> {
        None
    }

    /// What makes no sense, before any machine is asked.
    fn check(&self, _machines: usize) -> Result<(), String> {
        Ok(())
    }

    /// Time between two machines where they must not all do it at once.
    fn stagger(&self) -> Duration {
        Duration::ZERO
    }

    /// Does it to one machine. What it says on the way goes through [`On::tell`], the rest is returned.
    fn run(&self, on: &On) -> impl Future<Output = Result<Said, Failure>> + Send;
}

/// What a machine answered.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Said {
    /// What the last line counts it under: `on`.
    pub word: String,
    /// For a terminal: lines of cells.
    pub cells: Vec<Vec<String>>,
    /// For programs: an object.
    pub data: Value,
}

impl Said {
    /// One line that begins with the word.
    pub fn line(word: &str, rest: impl IntoIterator<Item = String>, data: Value) -> Said {
        let cells = std::iter::once(word.to_string()).chain(rest).collect();
        Said { word: word.to_string(), cells: vec![cells], data }
    }
}

/// Why a machine gave no answer, or a no.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// What the last line counts it under: `no answer`.
    pub kind: String,
    /// In words.
    pub error: String,
    /// What to try.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub help: Option<String>,
}

impl Failure {
    /// Of this kind.
    pub fn new(kind: &str, error: impl Into<String>) -> Failure {
        Failure { kind: kind.to_string(), error: error.into(), help: None }
    }

    /// With what to try.
    #[must_use]
    pub fn help(self, help: impl Into<String>) -> Failure {
        Failure { help: Some(help.into()), ..self }
    }
}

/// What is streamed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Line {
    /// What is to come.
    Begin {
        /// Whom it is asked of.
        machines: Vec<String>,
        /// Columns after the machine's name.
        headings: Vec<String>,
    },
    /// A machine said something, and is not done.
    Said(String, Said),
    /// A machine is done.
    Done(String, Said),
    /// A machine failed.
    Failed(String, Failure),
}

/// By which ways machines are reached, and on whose word.
#[derive(Clone)]
pub struct Reach {
    /// Who is who.
    pub site: Arc<Site>,
    /// Their BMCs.
    pub bmcs: Arc<Bmcs>,
    /// Where it is written down, and what their firmware last said of itself. None without an appliance.
    pub ledger: Option<Arc<Ledger>>,
    /// Who asks.
    pub by: String,
}

/// One machine, as an operation sees it.
pub struct On {
    /// Its name.
    pub name: MachineName,
    /// What the site says of it.
    pub machine: Machine,
    reach: Reach,
    turns: Arc<Turns>,
    lines: mpsc::Sender<Line>,
}

impl On {
    /// Its BMC.
    pub fn bmc(&self) -> Result<crate::bmcs::Lent, Failure> {
        self.reach.bmcs.of(&self.name, &self.machine)
    }

    /// Where its sensor records are kept between runs.
    pub fn records(&self) -> Option<Cache> {
        self.reach.bmcs.records(&self.machine)
    }

    /// Drops what was learned of its BMC.
    pub async fn forget(&self) -> Result<(), Failure> {
        self.bmc()?.bmc().forget().await;
        Ok(())
    }

    /// What switches its power: the command that the site names, else its BMC.
    pub fn switch(&self) -> Result<Switch, Failure> {
        let switch = self.reach.bmcs.switch(&self.name, &self.machine);
        switch.unwrap_or_else(|| self.bmc().map(Switch::Bmc))
    }

    /// Whether its firmware is UEFI, as its last netboot told.
    pub fn is_efi(&self) -> Option<bool> {
        let told = self.reach.ledger.as_ref()?.firmware(self.name.as_str())?;
        Some(told.is_efi())
    }

    /// Says something without being done; false if nobody listens any more.
    pub async fn tell(&self, said: Said) -> bool {
        self.lines.send(Line::Said(self.name.to_string(), said)).await.is_ok()
    }

    /// Returns once nobody listens any more.
    pub async fn unheard(&self) {
        self.lines.closed().await;
    }

    /// Waits for its turn, where machines must not do it all at once. To be called right before a deed: an
    /// error is that nobody wants it any more.
    pub async fn turn(&self) -> Result<(), Failure> {
        turn(&self.turns, &self.lines).await
    }
}

async fn turn(turns: &Turns, lines: &mpsc::Sender<Line>) -> Result<(), Failure> {
    tokio::select! {
        () = lines.closed() => {}
        () = turns.wait() => {}
    }
    match lines.is_closed() {
        true => Err(Failure::new("not reached", "whoever asked for it has gone")),
        false => Ok(()),
    }
}

/// One after the other, so long apart.
struct Turns {
    every: Duration,
    next: Mutex<Instant>,
}

impl Turns {
    fn new(every: Duration) -> Turns {
        Turns { every, next: Mutex::new(Instant::now()) }
    }

    async fn wait(&self) {
        let at = {
            let mut next = self.next.lock().await;
            let at = (*next).max(Instant::now());
            *next = at + self.every;
            at
        };
        tokio::time::sleep_until(at).await;
    }
}

/// The machines that are meant, if it may be done to them all on this word.
pub fn meant<O: Operation>(site: &Site, asked: &Asked<O>) -> Result<Vec<MachineName>, Refusal> {
    let named = site.who(&asked.who);
    let machines = named.map_err(|error| Refusal::not_found(error.to_string(), None))?;
    asked.what.check(machines.len()).map_err(|error| Refusal::not_found(error, None))?;
    let Some(deed) = asked.what.deed().filter(|deed| deed.harms) else { return Ok(machines) };
    let many = machines.len();
    match asked.count {
        _ if many <= FEW || asked.yes || asked.count == Some(many) => Ok(machines),
        Some(count) => {
            Err(Refusal::conflict(format!("these are {many} machines, not {count}"), None))
        }
        None => {
            let error = format!("{} for {many} machines: {}", deed.says, fold(&machines));
            Err(Refusal::unsure(error, format!("--yes if you mean all {many}")))
        }
    }
}

/// Begins. Lines come out as they are there; dropping the receiver leaves alone whom it has not reached
/// yet.
pub fn begin<O: Operation>(
    reach: Reach,
    what: O,
    machines: Vec<MachineName>,
) -> mpsc::Receiver<Line> {
    let (lines, out) = mpsc::channel(LINES);
    tokio::spawn(async move {
        let names = machines.iter().map(ToString::to_string).collect();
        let headings = what.headings().iter().map(ToString::to_string).collect();
        if lines.send(Line::Begin { machines: names, headings }).await.is_err() {
            return;
        }
        let turns = Arc::new(Turns::new(what.stagger()));
        let each = machines.into_iter().filter_map(|name| {
            let machine = reach.site.machines.get(&name)?.value.clone();
            let (reach, turns, lines) = (reach.clone(), turns.clone(), lines.clone());
            Some(On { name, machine, reach, turns, lines })
        });
        let mut running =
            futures::stream::iter(each).map(|on| one(&what, on)).buffer_unordered(AT_ONCE);
        while running.next().await.is_some() {}
    });
    out
}

async fn one<O: Operation>(what: &O, on: On) {
    if on.lines.is_closed() {
        return;
    }
    let deed = what.deed();
    let outcome = match &deed {
        Some(deed) if deed.stops && on.machine.protected => {
            Err(Failure::new("protected", format!("{} is protected", on.name))
                .help("the site says protected = true; take that out if you mean it"))
        }
        _ => what.run(&on).await,
    };
    if let (Some(deed), Some(ledger)) = (&deed, &on.reach.ledger) {
        let became = match &outcome {
            Ok(said) => said.word.clone(),
            Err(failure) => format!("failed: {}", failure.error),
        };
        let text = format!("{} by {}: {became}", deed.says, on.reach.by);
        if let (Some(power), true) = (deed.power, outcome.is_ok()) {
            ledger.switched(on.name.as_str(), power, &text).await;
        }
        ledger.event(O::NAME, Some(on.name.to_string()), text).await;
    }
    let name = on.name.to_string();
    let line = match outcome {
        Ok(said) => Line::Done(name, said),
        Err(failure) => Line::Failed(name, failure),
    };
    // Whoever asked may have gone: it is in the event log.
    let _gone = on.lines.send(line).await.is_err();
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Ctrl-C in the middle of `power @all cycle`.
    #[tokio::test]
    async fn who_is_not_reached_when_nobody_listens_any_more_is_left_alone() {
        let turns = Turns::new(Duration::from_secs(60));
        let (lines, out) = mpsc::channel(1);
        assert!(turn(&turns, &lines).await.is_ok());
        let (second, ()) = tokio::join!(turn(&turns, &lines), async {
            tokio::time::sleep(Duration::from_millis(50)).await;
            drop(out);
        });
        assert!(second.is_err());
        assert!(turn(&Turns::new(Duration::ZERO), &lines).await.is_err());
    }
}
