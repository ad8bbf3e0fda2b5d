//! The command line, and nothing else: what may be typed. Completions and the manual page come from here.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};
use koboshi_console::sysrq::Keys;

use super::{help, machines, maintain};
use crate::{lab, ops};

/// Boots diskless machines into roles, and says what they do.
#[derive(Debug, Parser)]
#[command(name = "koboshi", version, arg_required_else_help = true)]
pub(super) struct Cli {
    #[command(subcommand)]
    pub(super) command: Command,
}

#[derive(Debug, Clone, Args)]
pub(super) struct Where {
    /// State directory of the appliance
    #[arg(long, value_name = "DIR", default_value = "/var/lib/koboshi", env = "KOBOSHI_STATE")]
    pub(super) state: PathBuf,
}

#[derive(Debug, Clone, Args)]
pub(super) struct Format {
    /// For programs
    #[arg(long)]
    pub(super) json: bool,
}

#[derive(Debug, Subcommand)]
pub(super) enum Command {
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
    /// Show what a machine is made of: what it told at its last boot, and what `maintain M setup` found
    Hardware {
        /// Machine, or the MAC of one that the site does not know
        who: String,
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
        /// Only machines that run another version of their image than they would boot now, as host lists
        #[arg(long, conflicts_with = "silent")]
        drifted: bool,
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
        /// What it had booted at a moment, however long ago: 02:00, 3d (ago), "2026-11-24 03:00"
        #[arg(long = "at", value_name = "TIME", value_parser = crate::ops::log::moment, conflicts_with = "count")]
        at_time: Option<u64>,
        /// Every image it booted, ever, and when
        #[arg(long, conflicts_with_all = ["count", "at_time"])]
        history: bool,
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
    /// Look at a machine's console and type into it; without WHO, all consoles and how they are
    #[command(after_help = help::CONSOLE)]
    Console {
        /// Machine or seat
        who: Option<String>,
        /// How consoles are reached by SSH: address, host key to compare, and whose keys are not taken
        #[arg(long, conflicts_with = "who")]
        fingerprint: bool,
        /// The serial ports of this host, with the names they may have in the site file; no appliance is asked
        #[arg(long, conflicts_with_all = ["who", "fingerprint"])]
        ports: bool,
        /// Only watch: its last lines, then what it says. ^C leaves
        #[arg(long, requires = "who", conflicts_with = "take")]
        watch: bool,
        /// Take the line from whoever has it. He hears who took it
        #[arg(long, requires = "who")]
        take: bool,
        /// Print the screen as it stands now: what a terminal would show that was there from the beginning
        #[arg(long, requires = "who", conflicts_with_all = ["take", "watch", "url"])]
        screen: bool,
        /// Print an address for a browser on the admin network: good once, within a minute
        #[arg(long, requires = "who", conflicts_with = "take")]
        url: bool,
        /// Send a BREAK, and nothing else
        #[arg(long = "break", requires = "who", conflicts_with_all = ["watch", "url"])]
        sends_break: bool,
        /// Send keys of Magic SysRq, each by a BREAK: b reboots at once, reisub gently (--help names all)
        #[arg(
            long, value_name = "KEYS", requires = "who",
            conflicts_with_all = ["watch", "url", "sends_break"],
            long_help = ops::console::sysrq::help()
        )]
        sysrq: Option<Keys>,
        /// Do what this script says, with the values behind it
        #[arg(long, requires = "who", value_name = "FILE", conflicts_with_all = ["watch", "url", "sends_break", "sysrq"])]
        script: Option<PathBuf>,
        /// Values of the script: in the order of its `arg` lines, or NAME=VALUE
        #[arg(requires = "script", value_name = "VALUE")]
        values: Vec<String>,
        /// What the script expects comes within this, where it says no time of its own
        #[arg(long, requires = "script", value_name = "TIME", default_value = "30s", value_parser = ops::console::script::time)]
        timeout: std::time::Duration,
        /// Keep what the script sees and types, without its secrets
        #[arg(long, requires = "script", value_name = "FILE")]
        log: Option<PathBuf>,
        /// Only say what the script would do
        #[arg(long, requires = "script")]
        dry: bool,
        #[command(flatten)]
        files: ops::console::transfer::Words,
        /// Begin with so many of its last lines
        #[arg(long, value_name = "LINES", default_value_t = 20)]
        last: usize,
        /// What begins an escape at the beginning of a line: a character, ^ and a letter, or none
        #[arg(long, value_name = "CHAR|none", default_value = "~", value_parser = Escape::parse)]
        escape: Escape,
        #[command(flatten)]
        at: Where,
        /// For programs: one JSON object a line, of what it says; it does not type
        #[arg(long)]
        json: bool,
    },
    /// Show what machines said on their consoles, or logged: by time, by pattern, as it comes
    #[command(after_help = help::LOG)]
    Log {
        /// Machines (m[01-40]), a seat, @group, @role or @all
        who: String,
        /// On their consoles, by syslog, or both in the order of time [default: console]
        #[arg(long, value_name = "console|syslog|all")]
        from: Option<ops::log::From>,
        /// Of what they logged, only what is so grave or graver: err, warning, crit, …
        #[arg(long, short, value_name = "SEVERITY", conflicts_with = "raw")]
        priority: Option<crate::syslog::Severity>,
        /// Stay and tell what they say
        #[arg(long, short)]
        follow: bool,
        /// Nothing older: 10m (ago), 2h, 14:03, "2026-11-25 14:03"
        #[arg(long, value_name = "TIME", value_parser = ops::log::moment)]
        since: Option<u64>,
        /// Nothing younger
        #[arg(long, value_name = "TIME", value_parser = ops::log::moment)]
        until: Option<u64>,
        /// Only lines that match this regular expression
        #[arg(long, value_name = "RE")]
        grep: Option<String>,
        /// With so many lines before and behind each match
        #[arg(long, value_name = "LINES", default_value_t = 0, requires = "grep")]
        context: usize,
        /// Only the last so many of each machine. 100 where nothing else says how much
        #[arg(long, short = 'n', value_name = "LINES", conflicts_with = "raw")]
        last: Option<usize>,
        /// The bytes as the machine sent them, escape sequences included
        #[arg(long, conflicts_with_all = ["grep", "times", "export"])]
        raw: bool,
        /// The time before each line
        #[arg(long)]
        times: bool,
        /// As a file for others: an asciicast for `asciinema play`, or text with times
        #[arg(long, value_name = "cast|text", conflicts_with_all = ["json", "follow"])]
        export: Option<ops::log::Export>,
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
    /// Make sure that a machine is off: its BMC switches it off and says so twice. Its seats are free, and
    /// who waits for one boots
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
    /// Order a machine for one boot: wipe its disks or prepare them, test its memory, a shell. Without MACHINE: what is ordered, and how far it is
    #[command(after_help = help::MAINTAIN)]
    Maintain(maintain::Words),
    /// Show and verify signed receipts of what was done to disks
    #[command(subcommand)]
    Receipt(ops::receipt::Command),
    #[command(flatten)]
    Machines(machines::Command),
    /// Import, build, publish and show images
    #[command(subcommand)]
    Image(ops::image::Command),
    /// What other programs read: SSH host keys of machines
    #[command(subcommand)]
    Export(Export),
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

#[derive(Debug, Subcommand)]
pub(super) enum Export {
    /// The SSH host keys of machines, as their consoles showed them: a known_hosts file
    #[command(after_help = help::KNOWN_HOSTS)]
    KnownHosts {
        /// Only what goes by this name or address; nothing, and exit code 0, if nothing does
        #[arg(long, value_name = "NAME")]
        host: Option<String>,
        #[command(flatten)]
        at: Where,
        #[command(flatten)]
        format: Format,
    },
}

/// What begins an escape, if anything does.
#[derive(Debug, Clone, Copy)]
pub(super) struct Escape(pub(super) Option<u8>);

impl Escape {
    fn parse(text: &str) -> Result<Escape, String> {
        koboshi_console::escape::parse(text).map(Escape)
    }
}
