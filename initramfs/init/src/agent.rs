//! What stays behind in the running system: it says `up` once the system is, and then that it
//! still is. It owns nothing, writes nothing but when that was, and does not mind when nobody listens (S10).

use std::fs;
use std::io::{self, Read};
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;
use std::process::{Child, Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use serde::{Deserialize, Serialize};

use crate::changes;
use crate::contract::room::Memory;
use crate::contract::{Duty, Orders, Phase};
use crate::duty;
use crate::http::Server;
use crate::logs::{self, Forwarder};
use crate::report::Reporter;
use crate::{backoff, console, rescue};

/// Where the agent lies: on the `/run` that moves into the new root.
pub const PROGRAM: &str = "/run/koboshi/koboshi-init";
/// Its first argument.
pub const WORD: &str = "agent";
const STATE: &str = "/run/koboshi/agent.json";
const SYSTEMCTL: [&str; 2] = ["/usr/bin/systemctl", "/bin/systemctl"];

/// A system that is still starting after so long deserves a word.
const LONG_START: Duration = Duration::from_secs(600);
/// How long PID 1 must be the same to count as an init that stays.
const STEADY: Duration = Duration::from_secs(3);
/// For whoever reads the console, from the end of an order to the restart.
const LAST_WORDS: Duration = Duration::from_secs(10);
/// What does not go at once deserves no word before this.
const PATIENCE: Duration = Duration::from_secs(30);

/// What PID 1 leaves its agent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct State {
    server: String,
    boot: String,
    seq: u32,
    heartbeat: u32,
    /// Device and inode of the program PID 1 ran when it left this: ourselves.
    init: (u64, u64),
    /// What is to be done once the system is up.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    duty: Option<Duty>,
    /// The appliance's port of syslog, if it listens.
    #[serde(default)]
    syslog: Option<u16>,
    /// The port for what the kernel prints, if the site wants that.
    #[serde(default)]
    netconsole: Option<u16>,
}

/// Leaves the program and its state in `/run`, if there is somebody to report to.
pub fn leave(reporter: &Reporter, orders: &Orders) -> io::Result<()> {
    let (Some(server), Some(boot)) = (reporter.server, &reporter.boot) else {
        return Err(io::Error::other("nobody to report to"));
    };
    let folder = Path::new(PROGRAM).parent().unwrap_or(Path::new("/run"));
    fs::create_dir_all(folder)?;
    fs::copy("/proc/self/exe", PROGRAM)?;
    fs::set_permissions(PROGRAM, fs::Permissions::from_mode(0o755))?;
    let init = program_of_init().ok_or_else(|| io::Error::other("no /proc/1/exe"))?;
    let state = State {
        server: format!("http://{}", server.0),
        boot: boot.clone(),
        seq: reporter.seq,
        heartbeat: orders.heartbeat,
        init,
        duty: orders.duty.clone(),
        syslog: orders.syslog,
        netconsole: orders.netconsole,
    };
    if state.syslog.is_some() {
        logs::prepare()?;
    }
    fs::write(STATE, serde_json::to_vec(&state)?)
}

/// The agent's whole life.
pub fn run() -> ExitCode {
    let state = fs::read(STATE).and_then(|text| Ok(serde_json::from_slice(&text)?));
    let state = match state {
        Ok(state) => state,
        Err(error) => {
            eprintln!("koboshi-init agent: {STATE}: {error}");
            return ExitCode::FAILURE;
        }
    };
    match live(&state) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("koboshi-init agent: {error}");
            ExitCode::FAILURE
        }
    }
}

fn live(state: &State) -> io::Result<()> {
    // Away from the console's session: a hang-up there is none of ours.
    let _ = rustix::process::setsid();
    let _ = rustix::process::chdir("/");
    let bell = Bell::new()?;
    let server = Server::parse(&state.server).map_err(io::Error::other)?;
    let mut reporter =
        Reporter { server: Some(server), boot: Some(state.boot.clone()), seq: state.seq };
    let mut outlets = Outlets::new(state, server.0.ip());
    let rung = match wait_until_up(state, &bell, &mut reporter, &mut outlets) {
        Some(by) => {
            // Not to be known costs a list that is longer than it need be.
            let _ = changes::is_up();
            let rings = |span| bell.rings_within(span);
            duty::heard_within(Duration::MAX, &mut reporter, &rings, &Phase::Up { by })
                || state.duty.as_ref().is_some_and(|order| ordered(order, &bell, &mut reporter))
                || beat(state.heartbeat, &bell, &mut reporter, &mut outlets)
        }
        None => true,
    };
    if rung {
        let _ = reporter.tell(Phase::Down);
    }
    Ok(())
}

/// Carries an order out and starts the machine anew. Comes back when told to stop meanwhile, with
/// true, or where the kernel refuses.
fn ordered(order: &Duty, bell: &Bell, reporter: &mut Reporter) -> bool {
    console::open();
    if duty::run(order, reporter, &|span| bell.rings_within(span)) {
        return true;
    }
    console::say("starts the machine anew in 10 seconds");
    if bell.rings_within(LAST_WORDS) {
        return true;
    }
    let _ = reporter.tell(Phase::Down);
    // Nothing of this system is worth an orderly end, and its init may wait for somebody.
    rescue::power(rustix::system::RebootCommand::Restart);
    false
}

/// Who says that the system is up; nothing if it goes down first.
fn wait_until_up(
    state: &State,
    bell: &Bell,
    reporter: &mut Reporter,
    outlets: &mut Outlets,
) -> Option<String> {
    let begun = Instant::now();
    let mut steady = Steady::new(state.init);
    let mut complained = false;
    loop {
        outlets.mind(reporter);
        if Path::new("/run/systemd/system").exists() {
            if let Some(by) = systemd_says(&system_state().unwrap_or_default()) {
                return Some(by.to_owned());
            }
        } else if steady.is(program_of_init(), begun.elapsed()) && !init_is_systemd() {
            return Some("init".to_owned());
        }
        if begun.elapsed() > LONG_START && !complained {
            complained = true;
            let minutes = LONG_START.as_secs() / 60;
            let _ = reporter.tell(Phase::Trouble {
                message: format!(
                    "the system is still starting after {minutes} minutes; waiting on"
                ),
            });
        }
        if bell.rings_within(Duration::from_secs(1)) {
            return None;
        }
    }
}

/// For ever; true when told to stop.
fn beat(seconds: u32, bell: &Bell, reporter: &mut Reporter, outlets: &mut Outlets) -> bool {
    let span = Duration::from_secs(u64::from(seconds.max(1)));
    loop {
        if bell.rings_within(backoff::jitter(span, backoff::random())) {
            return true;
        }
        outlets.mind(reporter);
        let load = fs::read_to_string("/proc/loadavg").unwrap_or_default();
        let _ = reporter.tell(Phase::Heartbeat {
            load5: load5(&load),
            available_mib: Memory::now().available >> 20,
        });
    }
}

/// What the machine says goes to the appliance: its logs by a child, and what its kernel prints.
struct Outlets {
    ours: (u64, u64),
    forwarder: Option<Forwarder>,
    netconsole: Option<SocketAddr>,
    begun: Instant,
    complained: bool,
}

impl Outlets {
    fn new(state: &State, server: IpAddr) -> Outlets {
        let at = |port| SocketAddr::new(server, port);
        Outlets {
            ours: state.init,
            forwarder: state.syslog.map(|port| Forwarder::new(at(port))),
            netconsole: state.netconsole.map(at),
            begun: Instant::now(),
            complained: false,
        }
    }

    fn mind(&mut self, reporter: &mut Reporter) {
        // Until its init is there, this is the system of nobody.
        if program_of_init() == Some(self.ours) {
            return;
        }
        if let Some(forwarder) = &mut self.forwarder {
            forwarder.mind();
        }
        let Some(to) = self.netconsole else { return };
        let Err(why) = logs::netconsole::arm(to) else { return };
        if self.begun.elapsed() > PATIENCE && !self.complained {
            self.complained = true;
            let message = format!("netconsole is not armed: {why}; trying on");
            let _ = reporter.tell(Phase::Trouble { message });
        }
    }
}

/// `systemctl is-system-running` → who says so, once there is something to say.
fn systemd_says(state: &str) -> Option<&'static str> {
    match state.trim() {
        "running" => Some("systemd running"),
        "degraded" => Some("systemd degraded"),
        // initializing, starting, maintenance, stopping, offline, unknown
        _ => None,
    }
}

fn system_state() -> Option<String> {
    let program = SYSTEMCTL.iter().find(|path| Path::new(path).exists())?;
    let mut child = Command::new(program)
        .arg("is-system-running")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .ok()?;
    if !ends_within(&mut child, Duration::from_secs(10)) {
        let _ = child.kill();
        let _ = child.wait();
        return None;
    }
    let mut word = String::new();
    child.stdout.take()?.take(64).read_to_string(&mut word).ok()?;
    Some(word)
}

/// PID 1 answers late while it is busy starting things; a call must not outlive its use.
fn ends_within(child: &mut Child, span: Duration) -> bool {
    let end = Instant::now() + span;
    while Instant::now() < end {
        match child.try_wait() {
            Ok(None) => std::thread::sleep(Duration::from_millis(20)),
            Ok(Some(_)) => return true,
            Err(_) => return false,
        }
    }
    false
}

fn program_of_init() -> Option<(u64, u64)> {
    fs::metadata("/proc/1/exe").ok().map(|meta| (meta.dev(), meta.ino()))
}

/// systemd is PID 1 a moment before it makes `/run/systemd/system`.
pub fn init_is_systemd() -> bool {
    fs::read_link("/proc/1/exe").is_ok_and(|path| path.ends_with("systemd"))
}

/// `0.10 0.25 0.30 1/99 123` → 25
fn load5(loadavg: &str) -> u32 {
    loadavg
        .split_whitespace()
        .nth(1)
        .and_then(|load| load.parse::<f32>().ok())
        .map_or(0, |load| (load * 100.0).round() as u32)
}

/// Watches PID 1 turn from us into an init that stays: `/sbin/init` may be a script that execs on.
struct Steady {
    ours: (u64, u64),
    last: Option<((u64, u64), Duration)>,
}

impl Steady {
    fn new(ours: (u64, u64)) -> Steady {
        Steady { ours, last: None }
    }

    fn is(&mut self, now_runs: Option<(u64, u64)>, now: Duration) -> bool {
        let Some(program) = now_runs.filter(|program| *program != self.ours) else {
            self.last = None;
            return false;
        };
        match self.last {
            Some((same, since)) if same == program => now.saturating_sub(since) >= STEADY,
            _ => {
                self.last = Some((program, now));
                false
            }
        }
    }
}

/// SIGTERM and SIGINT as something to wait for; SIGHUP is not for us.
pub struct Bell(SignalFd);

impl Bell {
    pub fn new() -> io::Result<Bell> {
        let mut stop = SigSet::empty();
        stop.add(Signal::SIGTERM);
        stop.add(Signal::SIGINT);
        let mut blocked = stop;
        blocked.add(Signal::SIGHUP);
        blocked.thread_block()?;
        Ok(Bell(SignalFd::with_flags(&stop, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)?))
    }

    /// To wait for it beside others.
    pub fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }

    /// It was waited for, and rang.
    pub fn heard(&self) {
        let _ = self.0.read_signal();
    }

    fn rings_within(&self, span: Duration) -> bool {
        let end = Instant::now() + span;
        loop {
            let left = end.saturating_duration_since(Instant::now());
            let timeout = Timespec {
                tv_sec: left.as_secs().min(86_400) as i64,
                tv_nsec: left.subsec_nanos().into(),
            };
            let mut fds = [PollFd::from_borrowed_fd(self.0.as_fd(), PollFlags::IN)];
            match poll(&mut fds, Some(&timeout)) {
                Ok(0) if left.is_zero() => return false,
                Ok(0) | Err(rustix::io::Errno::INTR) => {}
                Ok(_) => return true,
                // No poll, no pause: rather stop than spin.
                Err(_) => return true,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_systemd_says() {
        for (state, meant) in [
            ("running\n", Some("systemd running")),
            ("degraded\n", Some("systemd degraded")),
            ("starting\n", None),
            ("initializing", None),
            ("stopping", None),
            ("offline", None),
            ("", None),
        ] {
            assert_eq!(systemd_says(state), meant, "{state:?}");
        }
    }

    #[test]
    fn an_init_is_one_that_stays() {
        let s = Duration::from_secs;
        let mut steady = Steady::new((1, 1));
        let story = [
            (Some((1, 1)), s(0), false), // still ourselves
            (None, s(1), false),
            (Some((2, 7)), s(2), false), // a script
            (Some((2, 8)), s(4), false), // what it execs
            (Some((2, 8)), s(6), false),
            (Some((2, 8)), s(7), true),
            (Some((2, 9)), s(8), false), // telinit u
            (Some((2, 9)), s(11), true),
        ];
        for (program, now, meant) in story {
            assert_eq!(steady.is(program, now), meant, "{program:?} at {now:?}");
        }
    }

    #[test]
    fn loads() {
        assert_eq!(load5("0.10 0.25 0.30 1/99 123"), 25);
        for odd in ["", "x y z", "1", "nan nan nan"] {
            assert_eq!(load5(odd), 0, "{odd}");
        }
    }

    #[test]
    fn a_call_that_hangs_is_given_up() {
        let mut child = Command::new("sleep").arg("60").spawn().unwrap();
        assert!(!ends_within(&mut child, Duration::from_millis(100)));
        child.kill().unwrap();
        assert!(ends_within(&mut child, Duration::from_secs(10)));
    }

    #[test]
    fn the_state_survives_the_way() {
        let state = State {
            server: "http://10.77.0.1:8080".into(),
            boot: "00".repeat(16),
            seq: 5,
            heartbeat: 30,
            init: (2, 3),
            duty: None,
            syslog: Some(514),
            netconsole: None,
        };
        let text = serde_json::to_vec(&state).unwrap();
        assert_eq!(serde_json::from_slice::<State>(&text).unwrap(), state);
    }
}
