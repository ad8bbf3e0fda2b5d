//! The command line: what was typed becomes one operation, offline or asked of the appliance, and
//! an exit code: 0 well, 1 something failed, 2 usage or site error.

use std::io::{IsTerminal, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;
use clap::{Args, CommandFactory, Parser, Subcommand};
use serde::Serialize;

use crate::api::{Client, ClientError};
use crate::app::Reloaded;
use crate::ops;
use crate::site::{self, Problems};
use crate::store::Event;
use crate::{lab, serve};

/// Boots diskless machines into roles, and says what they do.
#[derive(Debug, Parser)]
#[command(name = "koboshi", version, arg_required_else_help = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Clone, Args)]
struct Where {
    /// State directory of the appliance
    #[arg(long, value_name = "DIR", default_value = "/var/lib/koboshi", env = "KOBOSHI_STATE")]
    state: PathBuf,
}

#[derive(Debug, Clone, Args)]
struct Format {
    /// For programs
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the appliance in the foreground
    Serve {
        /// Site file
        #[arg(long, value_name = "FILE")]
        site: PathBuf,
        #[command(flatten)]
        at: Where,
    },
    /// Show every error of a site file at once (exit code 2 if there is one)
    Check {
        /// Site file
        #[arg(long, value_name = "FILE", default_value = "site.toml")]
        site: PathBuf,
        /// Also show what would change in the running appliance
        #[arg(long)]
        diff: bool,
        /// State directory; with it, images are looked up too
        #[arg(long, value_name = "DIR", env = "KOBOSHI_STATE")]
        state: Option<PathBuf>,
        #[command(flatten)]
        format: Format,
    },
    /// Read the site file again, now
    Reload {
        /// Also if it unseats running machines or drops many
        #[arg(long)]
        accept: bool,
        #[command(flatten)]
        at: Where,
        #[command(flatten)]
        format: Format,
    },
    /// Say what a machine would boot, and which line of the site file decided
    Explain {
        /// Machine, seat or MAC
        who: String,
        /// bios, efi64, http64, arm64, or a number of DHCP option 93
        #[arg(long)]
        arch: Option<String>,
        /// Ask this site file instead of the running appliance
        #[arg(long, value_name = "FILE")]
        site: Option<PathBuf>,
        #[command(flatten)]
        at: Where,
        #[command(flatten)]
        format: Format,
    },
    /// Show every machine, its seat and how far its boot is
    Status {
        /// Machines (m[01-40]), a seat, @group, @role or @all
        who: Option<String>,
        /// Stay and show it anew every second
        #[arg(long, short)]
        watch: bool,
        /// Only machines that ran and have not come back, as host lists, with what is known of each
        #[arg(long)]
        silent: bool,
        #[command(flatten)]
        at: Where,
        #[command(flatten)]
        format: Format,
    },
    /// Show a machine's last boots with their timelines
    Boots {
        /// Machine, seat or MAC
        who: String,
        /// How many
        #[arg(long, short = 'n', default_value_t = 3, value_parser = clap::value_parser!(u64).range(1..))]
        count: u64,
        #[command(flatten)]
        at: Where,
        #[command(flatten)]
        format: Format,
    },
    /// Show what happened
    Events {
        /// Stay and tell what happens
        #[arg(short, long)]
        follow: bool,
        /// Only after the event with this id
        #[arg(long, default_value_t = 0)]
        since: u64,
        /// How many
        #[arg(long, short = 'n', default_value_t = 50)]
        count: usize,
        #[command(flatten)]
        at: Where,
        /// For programs: one JSON object a line
        #[arg(long)]
        json: bool,
    },
    /// Give a machine a seat, or make it a spare: one line of the matrix
    Seat {
        /// Machine
        machine: String,
        /// Seat, or `spare`
        place: String,
        /// Also if the machine is running in another seat
        #[arg(long)]
        accept: bool,
        #[command(flatten)]
        at: Where,
        #[command(flatten)]
        format: Format,
    },
    /// Write a machine that the site does not know into the site file, with what it says of itself
    Adopt {
        /// Its MAC; with --accept also the name of a machine of the site
        who: String,
        /// Its name; the next free one of the site's own (m01, m02: m03) if none
        #[arg(long)]
        name: Option<String>,
        /// Its place in the matrix: a seat, or `spare`
        #[arg(long, value_name = "SEAT|spare")]
        seat: Option<String>,
        /// Of a machine of the site: take it on as it answers now, exchanged board and all
        #[arg(long, conflicts_with_all = ["name", "seat"])]
        accept: bool,
        /// Only show what would be written
        #[arg(long)]
        dry: bool,
        #[command(flatten)]
        at: Where,
        #[command(flatten)]
        format: Format,
    },
    /// Say that a machine is off for certain: its seats are free, and who waits for one boots
    Fence {
        /// Machine
        machine: String,
        /// You have made sure of it yourself: its power is off, or its network cable is pulled
        #[arg(long)]
        by_hand: bool,
        /// Do not ask
        #[arg(long)]
        yes: bool,
        #[command(flatten)]
        at: Where,
        #[command(flatten)]
        format: Format,
    },
    /// Import, build, publish and show images
    #[command(subcommand)]
    Image(ops::image::Command),
    /// A rack of virtual machines with real firmware
    #[command(subcommand)]
    Lab(lab::cli::LabCommand),
    /// Print completions for a shell
    Completions {
        /// Shell
        shell: clap_complete::Shell,
    },
    /// Print the manual page
    Man,
}

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
        Command::Image(command) => ops::image::run(command),
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
        Command::Status { who, watch, silent, at, format } => {
            let client = Client::new(&at.state);
            let query = ops::status::Query { who, silent };
            loop {
                let rows: Vec<ops::status::Row> = client.get("/status", &query).await?;
                if watch && std::io::stdout().is_terminal() && !format.json {
                    print_bytes(b"\x1b[H\x1b[2J")?;
                }
                show(&rows, format.json, |rows| match silent {
                    true => ops::status::show_all_silent(rows),
                    false => ops::status::show(rows),
                })?;
                let pending: ops::reload::Pending = client.get("/pending", &()).await?;
                if !format.json {
                    print_bytes(ops::reload::show_pending(&pending).as_bytes())?;
                }
                if !watch {
                    return Ok(());
                }
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
        }
        Command::Boots { who, count, at, format } => {
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
                if !look.frees.is_empty() {
                    confirm(&look.machine)?;
                }
            }
            query.dry = false;
            let answer: ops::fence::Answer = client.post("/fence", &query).await?;
            show(&answer, format.json, ops::fence::show)
        }
        Command::Serve { .. }
        | Command::Check { .. }
        | Command::Image(_)
        | Command::Lab(_)
        | Command::Completions { .. }
        | Command::Man => unreachable!("these run without an appliance"),
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
    let answer = ops::explain::explain(&site, &desk, query, None).map_err(ClientError::Refused)?;
    show(&answer, json, ops::explain::show)
}

/// Asks whoever sits there to type a machine's name, so that it is the right one that is off.
fn confirm(machine: &str) -> anyhow::Result<()> {
    if !std::io::stdin().is_terminal() {
        eprintln!("koboshi: nobody is there to be asked: --yes says that {machine} is off");
        return Err(Code(2).into());
    }
    eprint!("Is {machine} off, and will it stay off? Type its name: ");
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
        .init();
}
