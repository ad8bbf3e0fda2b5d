//! Commands that reach machines out of band, many at once: asked of the appliance, or with `--site` done from
//! here without one. Both print the same lines.

use std::io::{BufRead, IsTerminal};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use super::{Code, code, load, runtime};
use crate::api::{Client, ClientError, Refusal};
use crate::bmcs::{Bmcs, secrets};
use crate::ops::many::{self, Asked, Operation, Reach, show::Shown};
use crate::ops::{bmc, bootdev, fru, power, scan, sel, sensors, watchdog};
use crate::rights::Principal;
use crate::site;

mod words;

pub(super) use words::Command;
use words::{BmcCommand, How, LanCommand, SelAction, UserArgs, WatchdogAction};

/// Sessions that are open when we are interrupted are closed within this time.
const CLOSING: Duration = Duration::from_secs(3);

/// Runs what was typed.
pub(super) fn run(command: Command) -> anyhow::Result<()> {
    match command {
        Command::Power { who, action, stagger, wait, how } => {
            go(&how, who, power::Query { action, stagger, wait })
        }
        Command::Bootdev { who, device, persistent, efi, bios_mode, how } => {
            let efi = (efi || bios_mode).then_some(efi);
            go(&how, who, bootdev::Query { device, persistent, efi })
        }
        Command::Sensors { who, kind, all, thresholds, how } => {
            go(&how, who, sensors::Query { kind, all, thresholds })
        }
        Command::Sel { who, action, follow, how } => {
            let query = match (action, follow) {
                (SelAction::List, false) => sel::Query::List,
                (SelAction::List, true) => sel::Query::Follow,
                (_, true) => return usage("-f follows a log, and does nothing else with it"),
                (SelAction::Clear, false) => sel::Query::Clear,
                (SelAction::Info, false) => sel::Query::Info,
                (SelAction::SetClock, false) => sel::Query::SetClock,
            };
            go(&how, who, query)
        }
        Command::Fru { who, how } => go(&how, who, fru::Query {}),
        Command::Watchdog { who, action, timeout, then, how } => {
            let query = match action {
                WatchdogAction::Status => watchdog::Query::Status,
                WatchdogAction::Start => watchdog::Query::Start,
                WatchdogAction::Stop => watchdog::Query::Stop,
                WatchdogAction::Set => {
                    watchdog::Query::Set { timeout: timeout.unwrap_or_default(), action: then }
                }
            };
            go(&how, who, query)
        }
        Command::Lan { who, command, how } => go(&how, who, LanCommand::query(command)),
        Command::Bmc { who, command, how } => bmc(who, command, &how),
    }
}

fn usage<T>(what: &str) -> anyhow::Result<T> {
    eprintln!("koboshi: {what}");
    Err(Code(2).into())
}

fn bmc(who: Option<String>, command: BmcCommand, how: &How) -> anyhow::Result<()> {
    if let BmcCommand::Scan { network, port } = command {
        return runtime(false)?.block_on(look(how, scan::Query { network, port }));
    }
    let Some(who) = who else { return usage("whose BMC? koboshi bmc m01 info") };
    let query = match command {
        BmcCommand::Scan { .. } => unreachable!("done above"),
        BmcCommand::Info => bmc::Query::Info,
        BmcCommand::Reset { warm } => bmc::Query::Reset { warm },
        BmcCommand::Users => bmc::Query::Users,
        BmcCommand::User(args) => bmc::Query::User(account(args)?),
        BmcCommand::Sol(args) => bmc::Query::Sol(bmc::SolChange {
            enabled: (args.enable || args.disable).then_some(args.enable),
            speed: args.speed,
            retries: args.retries,
            retry_interval: args.retry_interval.map(Duration::from_millis),
            force_encryption: args.force_encryption,
        }),
        BmcCommand::Channel => bmc::Query::Channel,
        BmcCommand::Raw { bytes } => bmc::Query::Raw(bytes),
        BmcCommand::Identify { on: true, .. } => bmc::Query::Identify { seconds: None },
        BmcCommand::Identify { off: true, .. } => bmc::Query::Identify { seconds: Some(0) },
        BmcCommand::Identify { seconds, .. } => bmc::Query::Identify { seconds: Some(seconds) },
        BmcCommand::Sessions => bmc::Query::Sessions,
        BmcCommand::Forget => bmc::Query::Forget,
    };
    go(how, who, query)
}

/// What changes of an account, with its password from a file or a terminal.
fn account(args: UserArgs) -> anyhow::Result<bmc::UserChange> {
    let password = match (&args.password_file, args.password) {
        (Some(path), _) => Some(secrets::file(path)?),
        (None, false) => None,
        (None, true) => {
            let Some(typed) = secrets::ask("New password")? else {
                return usage("nobody is there to be asked for the password: --password-file FILE");
            };
            let again = secrets::ask("The same again")?;
            if again.is_none_or(|again| *again != *typed) {
                return usage("these are two passwords; nothing was done");
            }
            Some(typed)
        }
    };
    Ok(bmc::UserChange {
        id: args.id,
        name: args.name,
        password: password.map(|text| bmc::Typed(text.to_string())),
        privilege: args.privilege,
        sol: args.sol,
        enabled: (args.enable || args.disable).then_some(args.enable),
    })
}

/// Finds BMCs.
async fn look(how: &How, query: scan::Query) -> anyhow::Result<()> {
    let mut shown = scan::Shown::new(how.json);
    match &how.site {
        None => {
            let client = Client::new(&how.state);
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

fn go<O: Operation>(how: &How, who: String, what: O) -> anyhow::Result<()> {
    let asked = Asked { who, what, count: None, yes: how.yes };
    runtime(false)?.block_on(async {
        match &how.site {
            Some(site) => offline(site, asked, how).await,
            None => online(&how.state, asked, how.json).await,
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
    let mut bmcs = Bmcs::passing(cache(), |text| eprintln!("koboshi: {text}"));
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
