//! The command line: what was typed becomes one operation, offline or asked of the appliance, and
//! an exit code: 0 well, 1 something failed, 2 usage or site error.

use std::io::{IsTerminal, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;
use clap::{CommandFactory, Parser};
use koboshi_console::wire::serial;
use koboshi_pxe::hostile;
use serde::Serialize;

use crate::api::{Client, ClientError};
use crate::app::Reloaded;
use crate::ops;
use crate::site::{self, Problems};
use crate::store::Event;
use crate::{lab, serve};

mod help;
mod machines;
mod maintain;
mod words;

use words::{Cli, Command, Export, Where};

/// A site file with errors: they have been printed, exit code 2.
#[derive(Debug, thiserror::Error)]
#[error("the site file has errors")]
struct SiteErrors;

/// Something failed and was said: exit code 1, or 2.
#[derive(Debug, thiserror::Error)]
#[error("exit code {0}")]
struct Code(u8);

/// Runs what was typed.
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    match run(cli.command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            if let Some(Code(code)) = error.downcast_ref() {
                return ExitCode::from(*code);
            }
            if error.downcast_ref::<SiteErrors>().is_some() {
                return ExitCode::from(2);
            }
            // `koboshi events | head` is not a failure.
            let broken = error.chain().filter_map(|cause| cause.downcast_ref::<std::io::Error>());
            if broken.into_iter().any(|io| io.kind() == std::io::ErrorKind::BrokenPipe) {
                return ExitCode::SUCCESS;
            }
            eprintln!("koboshi: {error:#}");
            // Naming something that is not there is a mistake of usage.
            let usage =
                matches!(error.downcast_ref(), Some(ClientError::Refused(r)) if r.status == 404);
            ExitCode::from(if usage { 2 } else { 1 })
        }
    }
}

fn run(command: Command) -> anyhow::Result<()> {
    match command {
        Command::Serve { site, at } => {
            log_to_stderr();
            let loaded = load(&site, site::Purpose::Serve)?;
            let options = serve::Options { site, state: at.state };
            runtime(true)?.block_on(serve::serve(options, loaded))
        }
        Command::Check { site, diff, state, format } => check(site, diff, state, format.json),
        Command::Explain { who, arch, site: Some(site), at, format } => {
            let query = ops::explain::Query { who, arch };
            explain_offline(&site, &at, &query, format.json)
        }
        Command::Console { ports: true, json, .. } => {
            let ports = serial::ports(&serial::Host::default());
            show(&ports, json, |ports| ops::ports::show(ports))
        }
        Command::Machines(command) => machines::run(command),
        Command::Image(command) => ops::image::run(command),
        Command::Receipt(command) => {
            let (text, well) = ops::receipt::run(command)?;
            print_bytes(text.as_bytes())?;
            code(u8::from(!well))
        }
        Command::Lab(command) => lab::cli::run(command),
        Command::Completions { shell } => {
            let mut out = Vec::new();
            clap_complete::generate(shell, &mut Cli::command(), "koboshi", &mut out);
            print_bytes(&out)
        }
        Command::Man => print_bytes(&man()?),
        online => runtime(false)?.block_on(ask(online)),
    }
}

async fn ask(command: Command) -> anyhow::Result<()> {
    match command {
        Command::Reload { accept, at, format } => {
            let query = ops::reload::Query { accept, ..Default::default() };
            let reloaded: Reloaded = Client::new(&at.state).post("/reload", &query).await?;
            show(&reloaded, format.json, ops::reload::show)?;
            code(ops::reload::code(&reloaded))
        }
        Command::Explain { who, arch, at, format, .. } => {
            let query = ops::explain::Query { who, arch };
            let answer: ops::explain::Explanation =
                Client::new(&at.state).get("/explain", &query).await?;
            show(&answer, format.json, ops::explain::show)?;
            let pending: ops::reload::Pending = Client::new(&at.state).get("/pending", &()).await?;
            if !format.json {
                print_bytes(ops::reload::show_pending(&pending).as_bytes())?;
            }
            Ok(())
        }
        Command::Hardware { who, at, format } => {
            let query = ops::hardware::Query { who };
            let answer: ops::hardware::Answer =
                Client::new(&at.state).get("/hardware", &query).await?;
            show(&answer, format.json, ops::hardware::show)
        }
        Command::Status { who, watch, silent, drifted, at, format } => {
            let client = Client::new(&at.state);
            let query = ops::status::Query { who, silent, drifted };
            loop {
                let rows: Vec<ops::status::Row> = client.get("/status", &query).await?;
                if watch && std::io::stdout().is_terminal() && !format.json {
                    print_bytes(b"\x1b[H\x1b[2J")?;
                }
                show(&rows, format.json, |rows| match (silent, drifted) {
                    (true, _) => ops::status::show_all_silent(rows),
                    (_, true) => ops::status::show_all_drifted(rows),
                    _ => ops::status::show(rows),
                })?;
                let pending: ops::reload::Pending = client.get("/pending", &()).await?;
                if !format.json {
                    print_bytes(ops::reload::show_pending(&pending).as_bytes())?;
                    let troubles: Vec<hostile::Trouble> = client.get("/hostile", &()).await?;
                    print_bytes(crate::hostile::show(&troubles).as_bytes())?;
                }
                // Beside the rows, for whoever reads those by a program too.
                let troubles: Vec<String> = client.get("/troubles", &()).await?;
                troubles.iter().for_each(|trouble| eprintln!("koboshi: {trouble}"));
                if !watch {
                    return Ok(());
                }
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
        }
        Command::Boots { who, at_time, history, at, format, .. }
            if history || at_time.is_some() =>
        {
            let query = ops::booted::Query { who, at: at_time };
            let answer: ops::booted::Answer = Client::new(&at.state).get("/booted", &query).await?;
            show(&answer, format.json, ops::booted::show)
        }
        Command::Boots { who, count, at, format, .. } => {
            let count = usize::try_from(count).unwrap_or(usize::MAX);
            let query = ops::boots::Query { who, count };
            let boots: Vec<ops::boots::Boot> = Client::new(&at.state).get("/boots", &query).await?;
            show(&boots, format.json, |boots| ops::boots::show(boots))
        }
        Command::Events { follow, since, count, at, json } => {
            let client = Client::new(&at.state);
            let query = ops::events::Query { since, count, follow };
            let mut failed = None;
            let mut each = |event: Event| match show_event(&event, json) {
                Ok(()) => true,
                Err(error) => {
                    failed = Some(error);
                    false
                }
            };
            if follow {
                client.follow("/events", &query, each).await?;
            } else {
                let events: Vec<Event> = client.get("/events", &query).await?;
                let _all_shown = events.into_iter().all(&mut each);
            }
            failed.map_or(Ok(()), Err)
        }
        Command::Console { fingerprint: true, at, json, .. } => {
            let answer: crate::ssh::Answer =
                Client::new(&at.state).get("/consoles/ssh", &()).await?;
            show(&answer, json, crate::ssh::show)
        }
        Command::Console { who: None, at, json, .. } => {
            let rows: Vec<ops::console::Row> = Client::new(&at.state).get("/consoles", &()).await?;
            show(&rows, json, |rows| ops::console::show(rows))
        }
        Command::Console { who: Some(who), screen: true, at, json, .. } => {
            let query = ops::console::Query { who, last: 0 };
            let drawn: koboshi_console::Drawn =
                Client::new(&at.state).get("/console/screen", &query).await?;
            show(&drawn, json, |drawn| drawn.text.join("\n") + "\n")
        }
        Command::Log {
            who,
            from,
            priority,
            follow,
            since,
            until,
            grep,
            context,
            last,
            raw,
            times,
            export,
            at,
            json,
        } => {
            let all =
                since.is_some() || until.is_some() || grep.is_some() || export.is_some() || raw;
            let last = last.or((!all).then_some(100));
            let cast = export == Some(ops::log::Export::Cast);
            let raw = raw || cast;
            let logged = priority.map_or(ops::log::From::Console, |_| ops::log::From::Syslog);
            let from = from.unwrap_or(logged);
            let query = ops::log::Query {
                who,
                since,
                until,
                grep,
                context,
                last,
                follow,
                raw,
                from,
                priority,
            };
            log(&at.state, query, times, export, json).await
        }
        Command::Console { who: Some(who), watch, url: true, at, json, .. } => {
            let query = ops::console::Browse { who, watch };
            let address: ops::console::Address =
                Client::new(&at.state).post("/console/ticket", &query).await?;
            show(&address, json, |address| format!("{}\n", address.url))
        }
        Command::Console { who: Some(who), sends_break, sysrq: keys, take, at, json, .. }
            if sends_break || keys.is_some() =>
        {
            let query = ops::console::sysrq::Query { who, keys, take };
            send(&Client::new(&at.state), &query, json).await
        }
        Command::Console {
            who: Some(who),
            script: Some(path),
            values,
            timeout,
            log,
            dry,
            take,
            at,
            json,
            ..
        } => {
            let script =
                ops::console::script::Script { path, values, timeout, log, dry, take, json };
            code(ops::console::script::run(&Client::new(&at.state), who, script).await?)
        }
        Command::Console { who: Some(who), files, take, last, at, json, .. } if files.any() => {
            let query = ops::console::Query { who, last };
            ops::console::transfer::run(&Client::new(&at.state), query, &files, take, json).await
        }
        Command::Console { who: Some(who), watch, take, last, escape, at, json, .. } => {
            let query = ops::console::Query { who, last };
            let client = Client::new(&at.state);
            if !watch && !json {
                let asked = ops::console::Asked { take, escape: escape.0 };
                return code(ops::console::run(&client, query, asked).await?);
            }
            let mut screen = ops::console::Screen::new(json);
            client.listen("/console", &query, |seen| screen.show(&seen)).await?;
            anyhow::bail!(
                "the console is closed: its machine has none any more, or the appliance ends"
            )
        }
        Command::Seat { machine, place, accept, at, format } => {
            let query = ops::seat::Query { machine, place, accept };
            let answer: ops::seat::Answer = Client::new(&at.state).post("/seat", &query).await?;
            show(&answer, format.json, ops::seat::show)?;
            code(ops::reload::code(&answer.reload))
        }
        Command::Adopt { who, name, seat, accept, dry, at, format } => {
            let query = ops::adopt::Query { who, name, seat, accept, dry };
            let answer: ops::adopt::Answer = Client::new(&at.state).post("/adopt", &query).await?;
            show(&answer, format.json, ops::adopt::show)?;
            code(answer.reload.as_ref().map_or(0, ops::reload::code))
        }
        Command::Fence { machine, by_hand, yes, at, format } => {
            let client = Client::new(&at.state);
            let mut query = ops::fence::Query { machine, by_hand, dry: true };
            let look: ops::fence::Answer = client.post("/fence", &query).await?;
            if !yes {
                eprint!("{}", ops::fence::show(&look));
                match by_hand {
                    true if look.frees.is_empty() => {}
                    true => confirm(&look.machine, "Is it off, and will it stay off?")?,
                    false => {
                        confirm(&look.machine, &format!("It is switched off by {}.", look.means))?
                    }
                }
            }
            query.dry = false;
            let answer: ops::fence::Answer = client.post("/fence", &query).await?;
            show(&answer, format.json, ops::fence::show)
        }
        Command::Export(Export::KnownHosts { host, at, format }) => {
            let query = ops::known_hosts::Query { host };
            let rows: Vec<ops::known_hosts::Row> =
                Client::new(&at.state).get("/known-hosts", &query).await?;
            show(&rows, format.json, |rows| ops::known_hosts::show(rows))
        }
        Command::Maintain(words) => maintain::run(words).await,
        Command::Serve { .. }
        | Command::Receipt(_)
        | Command::Check { .. }
        | Command::Machines(_)
        | Command::Image(_)
        | Command::Lab(_)
        | Command::Completions { .. }
        | Command::Man => unreachable!("these run without an appliance"),
    }
}

/// Sends a BREAK, or keys of SysRq, and says what is sent while it is.
async fn send(
    client: &Client,
    query: &ops::console::sysrq::Query,
    json: bool,
) -> anyhow::Result<()> {
    let mut failed = false;
    let each = |step: ops::console::sysrq::Step| {
        failed = step.error.is_some();
        let line = match json {
            true => serde_json::to_string(&step)?,
            false => ops::console::sysrq::show(&step),
        };
        match failed && !json {
            true => writeln!(std::io::stderr(), "{line}"),
            false => writeln!(std::io::stdout(), "{line}"),
        }
    };
    client.lines("/console/break", query, each).await?;
    code(failed.into())
}

/// From the appliance; from the files where none runs.
async fn log(
    state: &std::path::Path,
    query: ops::log::Query,
    times: bool,
    export: Option<ops::log::Export>,
    json: bool,
) -> anyhow::Result<()> {
    let many = query.who.contains(['@', ',', '[']);
    if many && query.raw && !json {
        anyhow::bail!("characters of many machines in one stream are nobody's: name one machine");
    }
    let mut rows = ops::log::Show::new(json, many, times, query.raw && export.is_none(), export);
    let asked = Client::new(state).listen("/log", &query, |row| rows.row(&row)).await;
    match asked {
        Err(ClientError::NoAppliance { .. }) if ops::log::has_any(state) => {
            let sources = ops::log::files(state, &query).map_err(ClientError::Refused)?;
            let mut found = ops::log::begin(query, sources);
            while let Some(row) = found.recv().await {
                rows.row(&row)?;
            }
            Ok(())
        }
        asked => Ok(asked?),
    }
}

fn check(path: PathBuf, diff: bool, state: Option<PathBuf>, json: bool) -> anyhow::Result<()> {
    let checked = ops::check::check(&path, state.as_deref());
    let (site, problems) = match checked {
        Ok((site, warnings)) => (Some(site), warnings),
        Err(problems) => (None, problems),
    };
    if json {
        print_bytes(format!("{}\n", serde_json::to_string_pretty(&problems)?).as_bytes())?;
    } else {
        print_problems(&problems);
    }
    let Some(site) = site else { return Err(SiteErrors.into()) };
    if !json {
        let what = match crate::publish::boot_subnet(&site) {
            Some(_) => "well",
            None => "well as far as it goes, but `serve` needs a network: interface in [net]",
        };
        let says = format!(
            "{}: {} machines, {} seats, {} roles: {what}\n",
            path.display(),
            site.machines.len(),
            site.seats.len(),
            site.roles.len()
        );
        print_bytes(says.as_bytes())?;
    }
    if diff {
        let state = state.unwrap_or_else(|| PathBuf::from("/var/lib/koboshi"));
        let site = Some(std::path::absolute(&path)?);
        let query = ops::reload::Query { accept: false, dry: true, site };
        let reloaded: Reloaded =
            runtime(false)?.block_on(Client::new(&state).post("/reload", &query))?;
        show(&reloaded, json, ops::reload::show_dry)?;
    }
    Ok(())
}

fn explain_offline(
    site: &std::path::Path,
    at: &Where,
    query: &ops::explain::Query,
    json: bool,
) -> anyhow::Result<()> {
    let site = std::sync::Arc::new(load(site, site::Purpose::Check)?);
    let desk = ops::explain::desk_of(&site, &at.state)?;
    let answer =
        ops::explain::explain(&site, &desk, query, None, None).map_err(ClientError::Refused)?;
    show(&answer, json, ops::explain::show)
}

/// Asks whoever sits there to type a machine's name, so that it is the right one that is off.
fn confirm(machine: &str, what: &str) -> anyhow::Result<()> {
    if !std::io::stdin().is_terminal() {
        eprintln!("koboshi: nobody is there to be asked: --yes says that {machine} is meant");
        return Err(Code(2).into());
    }
    eprint!("{what} Type the machine's name ({machine}): ");
    let mut typed = String::new();
    std::io::stdin().read_line(&mut typed)?;
    if typed.trim() == machine {
        return Ok(());
    }
    eprintln!("koboshi: nothing was done");
    Err(Code(1).into())
}

/// Reads a site file, or prints all its errors.
fn load(path: &std::path::Path, purpose: site::Purpose) -> anyhow::Result<site::Site> {
    site::load(path, &site::Env::system(purpose)).map_err(|problems| {
        print_problems(&problems);
        SiteErrors.into()
    })
}

fn print_problems(problems: &Problems) {
    eprint!("{}", problems.render(site::Look::for_stderr()));
}

fn show<T: Serialize>(answer: &T, json: bool, text: impl Fn(&T) -> String) -> anyhow::Result<()> {
    if json {
        print_bytes(format!("{}\n", serde_json::to_string_pretty(answer)?).as_bytes())
    } else {
        print_bytes(text(answer).as_bytes())
    }
}

fn show_event(event: &Event, json: bool) -> anyhow::Result<()> {
    let line = if json { serde_json::to_string(event)? } else { ops::events::show(event) };
    print_bytes(format!("{line}\n").as_bytes())
}

fn print_bytes(bytes: &[u8]) -> anyhow::Result<()> {
    let mut out = std::io::stdout().lock();
    out.write_all(bytes)?;
    out.flush()?;
    Ok(())
}

fn code(code: u8) -> anyhow::Result<()> {
    if code == 0 { Ok(()) } else { Err(Code(code).into()) }
}

/// One page for the program and each of its commands, in one file.
fn man() -> anyhow::Result<Vec<u8>> {
    let mut out = Vec::new();
    let command = Cli::command();
    clap_mangen::Man::new(command.clone()).render(&mut out)?;
    for sub in command.get_subcommands() {
        let name = format!("koboshi-{}", sub.get_name());
        clap_mangen::Man::new(sub.clone().name(name)).render(&mut out)?;
    }
    Ok(out)
}

fn runtime(many: bool) -> anyhow::Result<tokio::runtime::Runtime> {
    let mut builder = if many {
        tokio::runtime::Builder::new_multi_thread()
    } else {
        tokio::runtime::Builder::new_current_thread()
    };
    builder.enable_all().build().context("starting the runtime")
}

fn log_to_stderr() {
    let filter = tracing_subscriber::EnvFilter::try_from_env("KOBOSHI_LOG")
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("info"));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .with_target(false)
        // It would say so on the same stderr, and panic where that is a file on a full disk.
        .log_internal_errors(false)
        .init();
}
