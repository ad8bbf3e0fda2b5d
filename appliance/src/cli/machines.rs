//! Commands that reach machines out of band, many at once: asked of the appliance, or with `--site` done from
//! here without one. Both print the same lines.

use std::io::{BufRead, IsTerminal};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use clap::builder::PossibleValuesParser;
use clap::{Args, Subcommand};
use koboshi_ipmi::commands::boot::Device;

use super::words::Where;
use super::{Code, code, load, runtime};
use crate::api::{Client, ClientError, Refusal};
use crate::bmcs::Bmcs;
use crate::ops::many::{self, Asked, Operation, Reach, show::Shown};
use crate::ops::{bootdev, power, scan, sensors};
use crate::rights::Principal;
use crate::site;

/// Sessions that are open when we are interrupted are closed within this time.
const CLOSING: Duration = Duration::from_secs(3);

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Switch machines on and off, or say whether they are on
    Power {
        /// Machines (m[01-40]), a seat, @group, @role or @all
        who: String,
        /// What to do; `soft` asks the operating system, `diag` interrupts it (NMI)
        #[arg(value_enum, default_value_t = power::Action::Status)]
        action: power::Action,
        /// Seconds between two machines that start
        #[arg(long, value_name = "SECONDS", default_value = "0.2", value_parser = seconds)]
        stagger: Duration,
        /// Seconds within which the power has to read as wanted; 0: do not read it back
        #[arg(long, value_name = "SECONDS", value_parser = seconds)]
        wait: Option<Duration>,
        #[command(flatten)]
        how: How,
    },
    /// Say, or set, what machines start from next
    Bootdev {
        /// Machines (m[01-40]), a seat, @group, @role or @all
        who: String,
        /// What they start from: the network, a disk, BIOS set-up …; `none` takes an override away. Without
        /// it, what is set is said
        #[arg(value_parser = PossibleValuesParser::new(Device::names()))]
        device: Option<String>,
        /// Every time, not only the next
        #[arg(long)]
        persistent: bool,
        /// As UEFI does; without it, as the machine's firmware did when it last booted by the network
        #[arg(long, conflicts_with = "bios_mode")]
        efi: bool,
        /// As a PC BIOS does
        #[arg(long)]
        bios_mode: bool,
        #[command(flatten)]
        how: How,
    },
    /// Show what sensors read, and what that means
    Sensors {
        /// Machines (m[01-40]), a seat, @group, @role or @all
        who: String,
        /// Only these: fan, temperature, voltage, power-supply …
        #[arg(long)]
        kind: Option<String>,
        /// Also those that have no reading
        #[arg(long)]
        all: bool,
        /// Ask for the thresholds in force, not those the sensors were made with
        #[arg(long)]
        thresholds: bool,
        #[command(flatten)]
        how: How,
    },
    /// Ask BMCs for themselves, and find them
    #[command(subcommand_negates_reqs = true)]
    Bmc {
        /// Machines (m[01-40]), a seat, @group, @role or @all
        #[arg(required = true)]
        who: Option<String>,
        #[command(subcommand)]
        command: BmcCommand,
    },
}

/// What is asked of BMCs themselves.
#[derive(Debug, Subcommand)]
pub(super) enum BmcCommand {
    /// Find BMCs in a network, and say which of them the site knows
    Scan {
        /// Network (10.78.0.0/24)
        network: String,
        /// UDP port
        #[arg(long, default_value_t = koboshi_ipmi::wire::rmcp::PORT)]
        port: u16,
        #[command(flatten)]
        how: How,
    },
}

/// How it is asked, whatever it is.
#[derive(Debug, Clone, Args)]
pub(super) struct How {
    /// Reach them from here by this site file, without the appliance
    #[arg(long, value_name = "FILE")]
    site: Option<PathBuf>,
    /// Give a BMC up that is silent for so long
    #[arg(long, value_name = "SECONDS", value_parser = seconds, requires = "site")]
    patience: Option<Duration>,
    /// You mean all of them, however many
    #[arg(long)]
    yes: bool,
    #[command(flatten)]
    at: Where,
    /// For programs: one JSON object a line
    #[arg(long)]
    json: bool,
}

fn seconds(text: &str) -> Result<Duration, String> {
    let seconds: f64 = text.parse().map_err(|_| "seconds, like 0.5".to_string())?;
    match seconds {
        0.0..=86_400.0 => Ok(Duration::from_secs_f64(seconds)),
        _ => Err("0 to 86400 seconds".to_string()),
    }
}

/// Runs what was typed.
pub(super) fn run(command: Command) -> anyhow::Result<()> {
    match command {
        Command::Power { who, action, stagger, wait, how } => {
            go(how, who, power::Query { action, stagger, wait })
        }
        Command::Bootdev { who, device, persistent, efi, bios_mode, how } => {
            let efi = (efi || bios_mode).then_some(efi);
            go(how, who, bootdev::Query { device, persistent, efi })
        }
        Command::Sensors { who, kind, all, thresholds, how } => {
            go(how, who, sensors::Query { kind, all, thresholds })
        }
        Command::Bmc { who, command } => bmc(who, command),
    }
}

fn bmc(_who: Option<String>, command: BmcCommand) -> anyhow::Result<()> {
    match command {
        BmcCommand::Scan { network, port, how } => {
            runtime(false)?.block_on(look(&how, scan::Query { network, port }))
        }
    }
}

/// Finds BMCs.
async fn look(how: &How, query: scan::Query) -> anyhow::Result<()> {
    let mut shown = scan::Shown::new(how.json);
    match &how.site {
        None => {
            let client = Client::new(&how.at.state);
            client.lines("/scan", &query, |line| shown.line(&line)).await?;
        }
        Some(path) => {
            let site = Arc::new(load(path, site::Purpose::Check)?);
            let mut lines = scan::begin(site, &query).map_err(ClientError::Refused)?;
            while let Some(line) = lines.recv().await {
                shown.line(&line)?;
            }
        }
    }
    shown.end();
    Ok(())
}

fn go<O: Operation>(how: How, who: String, what: O) -> anyhow::Result<()> {
    let asked = Asked { who, what, count: None, yes: how.yes };
    runtime(false)?.block_on(async {
        match &how.site {
            Some(site) => offline(site, asked, &how).await,
            None => online(&how.at.state, asked, how.json).await,
        }
    })
}

async fn online<O: Operation>(state: &Path, mut asked: Asked<O>, json: bool) -> anyhow::Result<()> {
    let client = Client::new(state);
    let path = format!("/{}", O::NAME);
    loop {
        let mut shown = Shown::new(json);
        match client.lines(&path, &asked, |line| shown.line(line)).await {
            Ok(()) => return code(shown.end()),
            Err(ClientError::Refused(refusal)) if refusal.is_unsure() => {
                asked.count = Some(ask_count(&refusal)?);
            }
            Err(error) => return Err(error.into()),
        }
    }
}

async fn offline<O: Operation>(path: &Path, mut asked: Asked<O>, how: &How) -> anyhow::Result<()> {
    let site = Arc::new(load(path, site::Purpose::Check)?);
    let machines = loop {
        match many::meant(&site, &asked) {
            Ok(machines) => break machines,
            Err(refusal) if refusal.is_unsure() => asked.count = Some(ask_count(&refusal)?),
            Err(refusal) => return Err(ClientError::Refused(refusal).into()),
        }
    };
    let mut bmcs = Bmcs::new(cache(), |text| eprintln!("koboshi: {text}"));
    bmcs.be_patient(how.patience);
    let bmcs = Arc::new(bmcs);
    bmcs.ask_passwords(machines.iter().filter_map(|name| site.machines.get(name)))?;
    let by = Principal::Local { uid: nix::unistd::Uid::effective().as_raw() }.to_string();
    let reach = Reach { site, bmcs: bmcs.clone(), ledger: None, by };
    let mut lines = many::begin(reach, asked.what, machines);
    let mut shown = Shown::new(how.json);
    let mut interrupted = std::pin::pin!(tokio::signal::ctrl_c());
    let outcome: anyhow::Result<()> = loop {
        tokio::select! {
            line = lines.recv() => match line {
                Some(line) => if let Err(error) = shown.line(line) { break Err(error.into()) },
                None => break Ok(()),
            },
            _ = &mut interrupted => break Err(Code(130).into()),
        }
    };
    drop(lines);
    // A BMC has few sessions, and some keep one that nobody closed for a minute.
    if tokio::time::timeout(CLOSING, bmcs.close()).await.is_err() {
        eprintln!(
            "koboshi: some sessions could not be closed; they end by themselves in a minute or so"
        );
    }
    let ended = code(shown.end());
    outcome.and(ended)
}

/// Where whoever runs this keeps what can be had again.
fn cache() -> Option<PathBuf> {
    let folder =
        |name: &str| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let caches = folder("XDG_CACHE_HOME").or_else(|| Some(folder("HOME")?.join(".cache")))?;
    Some(caches.join("koboshi/bmcs"))
}

/// How many machines are meant, typed by whoever sits there.
fn ask_count(refusal: &Refusal) -> anyhow::Result<usize> {
    if !std::io::stdin().is_terminal() {
        eprintln!("koboshi: {}", ClientError::Refused(refusal.clone()));
        return Err(Code(2).into());
    }
    eprint!("{}\nHow many machines are that? Type the number: ", refusal.error);
    let mut typed = String::new();
    std::io::stdin().lock().read_line(&mut typed)?;
    typed.trim().parse().map_err(|_| {
        eprintln!("koboshi: nothing was done");
        Code(1).into()
    })
}
