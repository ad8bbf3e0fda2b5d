//! Many consoles in one process, each at the speed of a serial port both ways, before simulated BMCs in another
//! process, each with a plug in its port that joins the two wires: what is typed comes back.
//!
//! ```text
//! sol_storm [--sessions 1000] [--seconds 10] [--baud 115200] [--suite 17]
//! ```
//! One line of JSON: bytes each way, how many were lost or wrong, the memory of a session, the time of the
//! processor. Exit code 1 if a byte is missing.

use std::io::Read;
use std::net::{Ipv4Addr, SocketAddr};
use std::process::{Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use koboshi_bmcsim::config::Serial;
use koboshi_bmcsim::{Config, Sim};
use koboshi_ipmi::bmc::{Engine, Limits};
use koboshi_ipmi::session::{Access, Cipher};
use koboshi_ipmi::sol::{Console, Event, Options};
use koboshi_ipmi::{Bmc, Error, Password};
use nix::sys::resource::{Resource, UsageWho, getrlimit, getrusage, setrlimit};
use nix::sys::time::TimeValLike;
use tokio::task::JoinSet;

const PORT: u16 = 6231;
/// A chunk is typed so often.
const TICK: Duration = Duration::from_millis(50);

struct Args {
    sessions: u32,
    seconds: u64,
    baud: usize,
    suite: u8,
    bmcs: bool,
}

fn args() -> anyhow::Result<Args> {
    let mut args = Args { sessions: 1000, seconds: 10, baud: 115_200, suite: 17, bmcs: false };
    let mut words = std::env::args().skip(1);
    while let Some(word) = words.next() {
        if word == "--bmcs" {
            args.bmcs = true;
            continue;
        }
        let value = words.next().unwrap_or_default();
        match word.as_str() {
            "--sessions" => args.sessions = value.parse()?,
            "--seconds" => args.seconds = value.parse()?,
            "--baud" => args.baud = value.parse()?,
            "--suite" => args.suite = value.parse()?,
            _ => anyhow::bail!("{word}: one of --sessions, --seconds, --baud, --suite"),
        }
    }
    Ok(args)
}

fn address(number: u32) -> SocketAddr {
    let host = Ipv4Addr::from(u32::from(Ipv4Addr::new(127, 45, 0, 1)) + number);
    SocketAddr::from((host, PORT))
}

fn password() -> anyhow::Result<Password> {
    Ok(Password::new("a secret")?)
}

fn main() -> anyhow::Result<ExitCode> {
    let args = args()?;
    let (_, most) = getrlimit(Resource::RLIMIT_NOFILE)?;
    setrlimit(Resource::RLIMIT_NOFILE, most, most)?;
    if args.bmcs { bmcs(&args) } else { consoles(&args) }
}

/// The other process: until its standard input ends.
fn bmcs(args: &Args) -> anyhow::Result<ExitCode> {
    let config = Config { serial: Serial::Echo, ..Config::with_admin("admin", password()?) };
    let configs =
        (0..args.sessions).map(|n| Config { listen: address(n), ..config.clone() }).collect();
    let sim = Sim::fleet(configs, 2)?;
    for n in 0..args.sessions {
        sim.with_at(address(n), |bmc| bmc.sol.largest = 251);
    }
    println!("ready");
    std::io::stdin().read_to_end(&mut Vec::new())?;
    Ok(ExitCode::SUCCESS)
}

#[tokio::main]
async fn consoles(args: &Args) -> anyhow::Result<ExitCode> {
    let mut other = Command::new(std::env::current_exe()?)
        .args(["--bmcs", "--sessions", &args.sessions.to_string()])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()?;
    let mut ready = [0; 6];
    let mut said = other.stdout.take().ok_or_else(|| anyhow::anyhow!("a pipe"))?;
    said.read_exact(&mut ready)?;

    let engine = Engine::new(Limits::default());
    let before = memory();
    let began = Instant::now();
    let mut opening = JoinSet::new();
    for n in 0..args.sessions {
        let at = address(n);
        let mut access = Access::new(at.ip().to_string(), "admin", password()?);
        (access.port, access.cipher) = (at.port(), Cipher::Suite(args.suite));
        let bmc = engine.bmc(access);
        opening.spawn(async move { open(bmc).await.map(|console| (n, console)) });
    }
    let mut open = Vec::new();
    while let Some(opened) = opening.join_next().await {
        open.push(opened??);
    }
    let opened = began.elapsed();

    let (cpu, began) = (processor(UsageWho::RUSAGE_SELF)?, Instant::now());
    let chunk = args.baud / 10 * usize::try_from(TICK.as_millis())? / 1000;
    let ticks = args.seconds * 1000 / u64::try_from(TICK.as_millis())?;
    let mut storm = JoinSet::new();
    for (n, console) in open {
        storm.spawn(storm_one(n, console, chunk, ticks));
    }
    let (mut bytes, mut lost, mut consoles) = (0, 0, Vec::new());
    let mut peak = memory();
    while let Some(done) = storm.join_next().await {
        let (console, came, missing) = done?;
        peak = peak.max(memory());
        (bytes, lost) = (bytes + came, lost + missing);
        consoles.push(console);
    }
    let took = began.elapsed().as_secs_f64();
    let cpu = processor(UsageWho::RUSAGE_SELF)? - cpu;
    drop(consoles);
    other.kill()?;
    other.wait()?;
    let bmcs = processor(UsageWho::RUSAGE_CHILDREN)?;
    let mb = f64::from(u32::try_from(bytes / 1000)?) / 1000.0;
    println!(
        "{{\"sessions\": {}, \"suite\": {}, \"opened_s\": {:.2}, \"seconds\": {took:.2}, \"mb_each_way\": {mb:.1}, \
         \"mb_per_s_both\": {:.1}, \"bytes_lost\": {lost}, \"kib_per_session\": {:.1}, \"cpu_s\": {cpu:.2}, \"cpu_s_of_the_bmcs\": {bmcs:.2}}}",
        args.sessions,
        args.suite,
        opened.as_secs_f64(),
        2.0 * mb / took,
        f64::from(u32::try_from(peak.saturating_sub(before))?) / f64::from(args.sessions),
    );
    Ok(if lost == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

async fn open(bmc: Bmc) -> Result<Console, Error> {
    bmc.sol(Options::default()).await
}

/// What is typed at this place of a console's stream: no two of them have the same.
fn letter(console: u32, at: usize) -> u8 {
    let mixed = (console as usize).wrapping_mul(31).wrapping_add(at.wrapping_mul(7)) ^ (at >> 8);
    b'!' + (mixed % 90) as u8
}

/// Types at the line's speed, reads what comes back. How many bytes came, and how many are missing or wrong.
async fn storm_one(
    n: u32,
    mut console: Console,
    chunk: usize,
    ticks: u64,
) -> (Console, usize, usize) {
    let typist = console.typist();
    let typing = tokio::spawn(async move {
        let mut at = 0;
        let first = tokio::time::Instant::now() + TICK * n / 1000;
        let mut tick = tokio::time::interval_at(first, TICK);
        for _ in 0..ticks {
            tick.tick().await;
            let text: Vec<u8> = (at..at + chunk).map(|at| letter(n, at)).collect();
            at += chunk;
            if typist.send(text).await.is_err() {
                break;
            }
        }
    });
    let due = chunk * usize::try_from(ticks).unwrap_or(0);
    let (mut came, mut wrong) = (0, 0);
    while came < due {
        match tokio::time::timeout(Duration::from_secs(30), console.recv()).await {
            Ok(Some(Event::Data { bytes, .. })) => {
                for byte in bytes {
                    wrong += usize::from(byte != letter(n, came));
                    came += 1;
                }
            }
            Ok(Some(mark)) => eprintln!("console {n}: {mark:?}"),
            Ok(None) | Err(_) => break,
        }
    }
    typing.abort();
    (console, came, due.saturating_sub(came) + wrong)
}

/// KiB of this process that are its own.
fn memory() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:"));
    line.and_then(|line| line.trim().trim_end_matches(" kB").parse().ok()).unwrap_or(0)
}

/// Seconds of the processor so far; those of other processes show when they have ended.
fn processor(whose: UsageWho) -> anyhow::Result<f64> {
    let usage = getrusage(whose)?;
    let spent = usage.user_time().num_microseconds() + usage.system_time().num_microseconds();
    Ok(Duration::from_micros(u64::try_from(spent)?).as_secs_f64())
}
