//! The console lines that the site wants: one [`Line`] for each machine with a console, on from the
//! start of the appliance to its end, in step with the site file. Where a machine is reached as before, its
//! line is not touched by a reload.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use koboshi_console::log::{Health, Writer};
use koboshi_console::watch::{Found, Watching};
use koboshi_console::{Beside, Handle, Kind, Line, NotOpen, Pace, State, Status, Wire};
use koboshi_ipmi::sol::{Options, Takeover, Turn};
use tokio::sync::broadcast::{self, error::RecvError};
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use crate::bmcs::{Bmcs, same};
use crate::ledger::Ledger;
use crate::site::{self, Console, Machine, MachineName, Site};

/// Closing all of them takes no longer at the end of the process.
const FAREWELL: Duration = Duration::from_secs(4);
/// Between two events of a line that comes and goes; each next time twice as long.
const QUIET: Duration = Duration::from_secs(10);
/// Never longer. One that was steady for so long is told of at once again.
const QUIET_MOST: Duration = Duration::from_secs(600);

/// See the module.
pub struct Lines {
    on: Mutex<BTreeMap<MachineName, On>>,
    /// Others are on now.
    changed: watch::Sender<()>,
    site: watch::Sender<Arc<Site>>,
    /// Of all that is opened over the network.
    pace: Arc<Pace>,
    watching: Watching,
    /// Sessions with BMCs run here: to encrypt them takes all processors, not only the lines' own.
    wide: tokio::runtime::Handle,
    /// What is found, until somebody takes it to tell it.
    found: Mutex<Option<mpsc::Receiver<Found>>>,
    /// What they say, in files.
    logs: Writer,
}

/// How a machine's console is reached.
#[derive(Debug, Clone, PartialEq)]
enum How {
    /// By Serial over LAN, of this BMC.
    Sol(Box<site::Bmc>),
    Kind(Kind),
}

struct On {
    how: How,
    line: Line,
}

impl Lines {
    /// None is on yet: [`Lines::run`] sees to that, on whatever runtime. To be called within the one that has many
    /// threads. Their logs are under `state`.
    ///
    /// # Errors
    /// There is no thread to write them.
    pub fn new(site: Arc<Site>, state: &Path) -> io::Result<Lines> {
        let logs = Writer::start(logs(state), site.consoles.log_size)?;
        let (watching, found) = Watching::new(site.consoles.rules());
        let (site, found) = (watch::channel(site).0, Mutex::new(Some(found)));
        let wide = tokio::runtime::Handle::current();
        let (on, pace) = (Mutex::default(), Arc::default());
        let changed = watch::Sender::default();
        Ok(Lines { on, changed, site, pace, watching, wide, found, logs })
    }

    /// The site says something else now.
    pub fn follow(&self, site: Arc<Site>) {
        let former = self.site.send_replace(site.clone());
        if former.consoles.own_rules() != site.consoles.own_rules() {
            self.watching.follow(site.consoles.rules());
        }
    }

    /// The state of each, by machine.
    pub fn status(&self) -> BTreeMap<MachineName, Status> {
        self.on().iter().map(|(name, on)| (name.clone(), on.line.status())).collect()
    }

    /// For whoever looks at one, or types. None: the machine has no line.
    pub fn handle(&self, machine: &MachineName) -> Option<Handle> {
        self.on().get(machine).map(|on| on.line.handle())
    }

    /// What is found on all of them, for the first who asks; and how much found no room meanwhile.
    pub fn found(&self) -> (Option<mpsc::Receiver<Found>>, Watching) {
        let mut found = self.found.lock().unwrap_or_else(PoisonError::into_inner);
        (found.take(), self.watching.clone())
    }

    /// For whoever looks at all of them.
    pub fn handles(&self) -> Vec<(MachineName, Handle)> {
        self.on().iter().map(|(name, on)| (name.clone(), on.line.handle())).collect()
    }

    /// Tells when others are on.
    pub fn changes(&self) -> watch::Receiver<()> {
        self.changed.subscribe()
    }

    /// Keeps them in step with the site until cancelled, then closes them all.
    pub async fn run(&self, bmcs: Arc<Bmcs>, ledger: Arc<Ledger>, cancel: CancellationToken) {
        let mut sites = self.site.subscribe();
        tokio::spawn(tell_logs(self.logs.health(), ledger.clone()));
        loop {
            let site = sites.borrow_and_update().clone();
            self.logs.set_bound(site.consoles.log_size);
            let keep = self.keep(&site, &bmcs, &ledger);
            let changed = async {
                keep.await;
                sites.changed().await.is_ok()
            };
            match cancel.run_until_cancelled(changed).await {
                Some(true) => {}
                Some(false) | None => break,
            }
        }
        let all: Vec<Line> =
            std::mem::take(&mut *self.on()).into_values().map(|on| on.line).collect();
        if tokio::time::timeout(FAREWELL, close(all)).await.is_err() {
            tracing::warn!("consoles could not all be closed");
        }
    }

    async fn keep(&self, site: &Site, bmcs: &Arc<Bmcs>, ledger: &Arc<Ledger>) {
        let wanted = |name: &MachineName, how: &How| {
            let new = site.machines.get(name).and_then(|machine| how_of(machine));
            match (new, how) {
                (Some(How::Sol(new)), How::Sol(bmc)) => same(&new, bmc) && new.target == bmc.target,
                (new, how) => new.as_ref() == Some(how),
            }
        };
        let gone = {
            let mut on = self.on();
            let gone = on.extract_if(.., |name, on| !wanted(name, &on.how));
            gone.map(|(_, on)| on.line).collect::<Vec<_>>()
        };
        // A BMC has one console, and a port is opened once: the former line has let go of it before the next one asks.
        close(gone).await;
        let mut on = self.on();
        for (name, machine) in &site.machines {
            let Some(how) = how_of(machine).filter(|_| !on.contains_key(name)) else { continue };
            let log = self.logs.log(name.as_str());
            let log = log.inspect_err(|error| tracing::error!(machine = %name, %error, "no log"));
            let watch = Some(self.watching.feed(name.as_str()));
            let beside = Beside { watch, log: log.ok(), ..Beside::default() };
            let line = match how.clone() {
                How::Sol(_) => {
                    let reach = (name.clone(), machine.value.clone(), bmcs.clone());
                    by_sol(reach, self.pace.clone(), beside, self.wide.clone())
                }
                How::Kind(kind) => by(kind, self.pace.clone(), beside),
            };
            tokio::spawn(tell(name.clone(), line.follow_status(), ledger.clone()));
            tokio::spawn(turns(name.clone(), line.turns(), ledger.clone()));
            on.insert(name.clone(), On { how, line });
        }
        on.values().for_each(|on| on.line.set_idle(site.consoles.idle));
        self.changed.send_replace(());
    }

    fn on(&self) -> MutexGuard<'_, BTreeMap<MachineName, On>> {
        self.on.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// How a machine's console is reached, if it has one.
fn how_of(machine: &Machine) -> Option<How> {
    Some(How::Kind(match &machine.console.as_ref()?.value {
        Console::Sol => return machine.bmc.clone().map(|bmc| How::Sol(Box::new(bmc))),
        Console::Telnet(host, port, settings) => {
            Kind::Telnet { host: host.clone(), port: *port, settings: *settings }
        }
        Console::Tcp(host, port) => Kind::Tcp { host: host.clone(), port: *port },
        Console::Unix(path) => Kind::Unix(path.clone()),
        Console::Serial(port) => Kind::Serial(port.clone()),
        Console::Exec(command) => Kind::Exec(command.clone()),
    }))
}

fn by(kind: Kind, pace: Arc<Pace>, beside: Beside) -> Line {
    let kind = Arc::new(kind);
    let open = {
        let kind = kind.clone();
        move || {
            let kind = kind.clone();
            async move { kind.open().await }
        }
    };
    // Whoever plugs an adapter in does not wait for a room that lost its power.
    let here = matches!(*kind, Kind::Serial(_) | Kind::Unix(_));
    let pace = Some(pace).filter(|_| !here);
    Line::start_beside(open, Beside { pace, ..beside })
}

fn by_sol(
    reach: (MachineName, Machine, Arc<Bmcs>),
    pace: Arc<Pace>,
    beside: Beside,
    wide: tokio::runtime::Handle,
) -> Line {
    let reach = Arc::new(reach);
    let turns = pace.clone();
    let turn = Turn::new(move || turns.turn(Instant::now()));
    let beside = Beside { pace: Some(pace), ..beside };
    let open = move || {
        let (reach, turn, wide) = (reach.clone(), turn.clone(), wide.clone());
        async move {
            let (name, machine, bmcs) = &*reach;
            // Whoever else has it is left in peace.
            let takeover = Takeover::OwnOrphan;
            let options = Options { takeover, turn, ..Options::default() };
            let bmc = bmcs.of(name, machine).map_err(|why| NotOpen::Here(why.error))?;
            let opened = AbortOnDropHandle::new(wide.spawn(async move { bmc.sol(options).await }));
            let ended = |why| NotOpen::Here(format!("a session with its BMC was not begun: {why}"));
            opened.await.map_err(ended)?.map(Wire::from).map_err(NotOpen::Bmc)
        }
    };
    Line::start_beside(open, beside)
}

async fn close(lines: Vec<Line>) {
    futures::future::join_all(lines.into_iter().map(Line::close)).await;
}

/// Where the logs of all lines are.
pub fn logs(state: &Path) -> PathBuf {
    state.join("consoles")
}

/// Writes down when logs cannot be written, and when they can again: of all lines together, as a full disk is
/// full for all of them.
async fn tell_logs(mut health: watch::Receiver<Health>, ledger: Arc<Ledger>) {
    let mut failed = false;
    loop {
        if health.changed().await.is_err() {
            return;
        }
        // What befalls one befalls others in the same moment.
        tokio::time::sleep(Duration::from_secs(1)).await;
        let now = health.borrow_and_update().clone();
        let Some(text) = words_of_logs(&now, failed) else { continue };
        failed = !now.failing.is_empty();
        ledger.event("console-log", None, text).await;
        tokio::time::sleep(QUIET).await;
    }
}

/// None: nothing to be told.
fn words_of_logs(health: &Health, failed: bool) -> Option<String> {
    match health.failing.first_key_value() {
        Some((_, why)) => {
            let who = crate::site::hostlist::fold(health.failing.keys());
            Some(format!(
                "logs of consoles cannot be written: {who}: {why}; the consoles go on, and what \
                 is lost is counted"
            ))
        }
        None if failed => Some(match health.lost {
            0 => "logs of consoles are written again, and nothing is missing in them".to_string(),
            lost => format!(
                "logs of consoles are written again; {lost} characters are missing in them since \
                 the appliance began"
            ),
        }),
        None => None,
    }
}

/// Writes down what becomes of a line. One that comes and goes is told of less and less often, and always how
/// it is in the end.
async fn tell(name: MachineName, mut status: watch::Receiver<Status>, ledger: Arc<Ledger>) {
    let (mut quiet, mut told) = (QUIET, 0);
    loop {
        let begun = Instant::now();
        if status.changed().await.is_err() {
            return;
        }
        if begun.elapsed() >= QUIET_MOST {
            quiet = QUIET;
        }
        let Status { state, changes } = status.borrow_and_update().clone();
        let between = changes.saturating_sub(told + 1);
        told = changes;
        ledger.event("console", Some(name.to_string()), words(&state, between)).await;
        tokio::time::sleep(quiet).await;
        quiet = (quiet * 2).min(QUIET_MOST);
    }
}

/// Writes down who had a line, and who took it from whom.
async fn turns(
    name: MachineName,
    mut turns: broadcast::Receiver<koboshi_console::Turn>,
    ledger: Arc<Ledger>,
) {
    loop {
        let text = match turns.recv().await {
            Ok(turn) => turn.to_string(),
            Err(RecvError::Lagged(many)) => format!("its operator changed {many} times"),
            Err(RecvError::Closed) => return,
        };
        ledger.event("operator", Some(name.to_string()), text).await;
    }
}

fn words(state: &State, between: u64) -> String {
    let says = match state {
        State::Opening => "its console is opened".to_string(),
        State::Up { .. } => "its console is up".to_string(),
        State::Down { why, .. } => format!("its console is down: {why}"),
        State::Stolen { by: Some(by), .. } => {
            format!("its console is taken by {by}, who is left in peace")
        }
        State::Stolen { by: None, .. } => {
            "its console is taken by another, who is left in peace".to_string()
        }
    };
    match between {
        0 => says,
        many => format!("{says}; it changed {many} times before"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_disk_is_told_once_for_all_and_its_end_with_what_it_cost() {
        let mut health = Health::default();
        assert_eq!(words_of_logs(&health, false), None);
        for machine in ["m01", "m02", "m03"] {
            health.failing.insert(machine.to_string(), "No space left on device".to_string());
        }
        let says = words_of_logs(&health, false).unwrap();
        assert!(says.contains("m[01-03]: No space left on device"), "{says}");
        let health = Health { lost: 7, ..Health::default() };
        assert!(words_of_logs(&health, true).unwrap().contains("7 characters are missing"));
    }

    #[test]
    fn a_line_that_came_and_went_says_how_often() {
        assert_eq!(words(&State::Up { since: 1 }, 0), "its console is up");
        let by = Some("eve from 10.0.0.9".to_string());
        let says = words(&State::Stolen { since: 1, by }, 3);
        assert_eq!(
            says,
            "its console is taken by eve from 10.0.0.9, who is left in peace; it changed 3 times before"
        );
    }
}
