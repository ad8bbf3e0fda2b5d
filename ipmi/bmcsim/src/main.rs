//! `bmcsim`: simulated BMCs on loopback addresses.

mod args;

use std::io::BufRead;
use std::net::{IpAddr, SocketAddr};
use std::time::Instant;

use anyhow::Context;
use clap::Parser;
use koboshi_bmcsim::{Sim, control};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use tokio::signal::unix::{SignalKind, signal};

/// Files besides a few for each BMC.
const SPARE: u64 = 64;

fn main() -> anyhow::Result<()> {
    let filter = tracing_subscriber::EnvFilter::try_from_default_env()
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("warn"));
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).init();
    let args = args::Args::parse();
    let configs = args.configs()?;
    allow_files(configs.len())?;
    let count = configs.len();
    let sim = Sim::fleet(configs, args.threads)?;
    let first = sim.addr();
    match sim.addresses().last() {
        Some(last) if count > 1 => println!("listening on {first} to {last} ({count} BMCs)"),
        _ => println!("listening on {first}"),
    }
    // Signals kill by themselves, but not what runs behind the BMCs: the simulator has to be dropped.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let mut terminate = {
        let _entered = runtime.enter();
        signal(SignalKind::terminate())?
    };
    let (said, mut lines) = tokio::sync::mpsc::channel::<String>(16);
    if args.control {
        std::thread::spawn(move || {
            for line in std::io::stdin().lock().lines().map_while(Result::ok) {
                if said.blocking_send(line).is_err() {
                    return;
                }
            }
        });
    }
    runtime.block_on(async {
        loop {
            tokio::select! {
                _ = tokio::signal::ctrl_c() => return,
                _ = terminate.recv() => return,
                line = lines.recv(), if args.control => match line {
                    Some(line) => println!("{}", obey(&sim, &line)),
                    None => return,
                },
            }
        }
    });
    Ok(())
}

/// A line of standard input: for whom, and what.
fn obey(sim: &Sim, line: &str) -> String {
    let (to, what) = line.trim().split_once(' ').unwrap_or((line.trim(), ""));
    let is_meant = |address: &SocketAddr| {
        to == "all"
            || to.parse() == Ok(*address)
            || to.parse::<IpAddr>().is_ok_and(|ip| ip == address.ip())
    };
    let mut told = 0;
    for address in sim.addresses().filter(is_meant) {
        let done = sim.with_at(address, |bmc| control::obey(bmc, what, Instant::now()));
        match done {
            Some(Err(error)) => return format!("error: {address}: {error}"),
            _ => told += 1,
        }
    }
    match told {
        0 => format!("error: no BMC is {to:?}"),
        _ => "ok".to_owned(),
    }
}

/// As many open files as the BMCs need, if the system lets us.
fn allow_files(bmcs: usize) -> anyhow::Result<()> {
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    let needed = bmcs as u64 * 3 + SPARE;
    if soft < needed {
        setrlimit(Resource::RLIMIT_NOFILE, needed.min(hard), hard)
            .with_context(|| format!("{bmcs} BMCs need {needed} open files"))?;
    }
    Ok(())
}
