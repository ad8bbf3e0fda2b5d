//! What may be typed of machines that are reached out of band.

use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::time::Duration;

use clap::builder::PossibleValuesParser;
use clap::{Args, Subcommand, ValueEnum};
use koboshi_ipmi::commands::boot::Device;

use crate::ops::{lan, power};

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
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
        /// Also those that have no reading, and those of controllers behind the BMC
        #[arg(long)]
        all: bool,
        /// Ask for the thresholds in force, not those the sensors were made with
        #[arg(long)]
        thresholds: bool,
        #[command(flatten)]
        how: How,
    },
    /// Show, follow or clear the event logs of BMCs
    Sel {
        /// Machines (m[01-40]), a seat, @group, @role or @all
        who: String,
        /// What to do
        #[arg(value_enum, default_value_t = SelAction::List)]
        action: SelAction,
        /// Stay, and tell what comes
        #[arg(long, short)]
        follow: bool,
        #[command(flatten)]
        how: How,
    },
    /// Show what machines and their parts say they are: maker, model, serial numbers
    Fru {
        /// Machines (m[01-40]), a seat, @group, @role or @all
        who: String,
        #[command(flatten)]
        how: How,
    },
    /// Show, set, start or stop the timer that resets a machine which hangs
    Watchdog {
        /// Machines (m[01-40]), a seat, @group, @role or @all
        who: String,
        /// What to do; `start` also feeds one that runs
        #[arg(value_enum, default_value_t = WatchdogAction::Status)]
        action: WatchdogAction,
        /// With `set`: how long it counts
        #[arg(long, value_name = "SECONDS", value_parser = seconds, required_if_eq("action", "set"))]
        timeout: Option<Duration>,
        /// With `set`: what happens at the end
        #[arg(long = "action", value_name = "ACTION", default_value = "reset",
              value_parser = PossibleValuesParser::new(["none", "reset", "off", "cycle"]))]
        then: String,
        #[command(flatten)]
        how: How,
    },
    /// Show, or change, the network settings of BMCs
    Lan {
        /// Machines (m[01-40]), a seat, @group, @role or @all
        who: String,
        #[command(subcommand)]
        command: Option<LanCommand>,
        #[command(flatten)]
        how: How,
    },
    /// Ask BMCs for themselves, change them, and find them
    #[command(subcommand_negates_reqs = true)]
    Bmc {
        /// Machines (m[01-40]), a seat, @group, @role or @all
        #[arg(required = true)]
        who: Option<String>,
        #[command(subcommand)]
        command: BmcCommand,
        #[command(flatten)]
        how: How,
    },
}

/// What is done with an event log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum SelAction {
    /// Show it
    List,
    /// Forget all of it
    Clear,
    /// How full it is, and how its clock goes
    Info,
    /// Set its clock to ours
    SetClock,
}

/// What is done with a watchdog.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum WatchdogAction {
    /// How it is set, and whether it runs
    Status,
    /// Let it count, from the top
    Start,
    /// Stop it
    Stop,
    /// Set it, without starting it
    Set,
}

/// What is done with a BMC's network.
#[derive(Debug, Subcommand)]
pub(crate) enum LanCommand {
    /// Show it
    Show,
    /// Change what is given
    Set {
        /// Its address is lent by DHCP
        #[arg(long, conflicts_with_all = ["fixed", "address", "mask"])]
        dhcp: bool,
        /// Its address is its own
        #[arg(long = "static")]
        fixed: bool,
        /// Its address; of one machine only
        #[arg(long)]
        address: Option<Ipv4Addr>,
        /// Its mask
        #[arg(long)]
        mask: Option<Ipv4Addr>,
        /// Its gateway; 0.0.0.0 for none
        #[arg(long)]
        gateway: Option<Ipv4Addr>,
        /// Its VLAN, or `off`
        #[arg(long, value_parser = vlan)]
        vlan: Option<u16>,
        /// The priority of what it sends there
        #[arg(long, value_parser = clap::value_parser!(u8).range(0..=7))]
        priority: Option<u8>,
    },
    /// Put it into a VLAN
    Vlan {
        /// Number, or `off`
        #[arg(value_parser = vlan)]
        id: u16,
    },
}

impl LanCommand {
    /// What it asks for.
    pub fn query(command: Option<LanCommand>) -> lan::Query {
        match command {
            None | Some(LanCommand::Show) => lan::Query::default(),
            Some(LanCommand::Vlan { id }) => lan::Query { vlan: Some(id), ..lan::Query::default() },
            Some(LanCommand::Set { dhcp, fixed, address, mask, gateway, vlan, priority }) => {
                lan::Query {
                    channel: None,
                    dhcp: (dhcp || fixed).then_some(dhcp),
                    address,
                    mask,
                    gateway,
                    vlan,
                    vlan_priority: priority,
                }
            }
        }
    }
}

/// What is asked of BMCs themselves.
#[derive(Debug, Subcommand)]
pub(crate) enum BmcCommand {
    /// Find BMCs in a network, and say which of them the site knows
    Scan {
        /// Network (10.78.0.0/24)
        network: String,
        /// UDP port
        #[arg(long, default_value_t = koboshi_ipmi::wire::rmcp::PORT)]
        port: u16,
    },
    /// Who it is, whether it is well, what was learned of it
    Info,
    /// Start it anew; the machine runs on
    Reset {
        /// Only its software
        #[arg(long)]
        warm: bool,
    },
    /// Its accounts
    Users,
    /// Change an account
    User(UserArgs),
    /// How it does Serial over LAN; change what is given
    Sol(SolArgs),
    /// Its channels, and who may come in by them
    Channel,
    /// Send a request by its bytes: NETFN COMMAND [DATA…], hexadecimal with 0x
    Raw {
        /// Bytes
        #[arg(required = true, num_args = 2..)]
        bytes: Vec<String>,
    },
    /// Light the lamp by which it is found
    Identify {
        /// For so many seconds (255 at most)
        #[arg(long, default_value_t = 15, conflicts_with_all = ["on", "off"])]
        seconds: u8,
        /// Until told otherwise
        #[arg(long, conflicts_with = "off")]
        on: bool,
        /// No more
        #[arg(long)]
        off: bool,
    },
    /// Who is logged in
    Sessions,
    /// Drop what was learned of it: its cipher suite, its quirks
    Forget,
}

#[derive(Debug, Args)]
pub(crate) struct UserArgs {
    /// Its number; `bmc WHO users` shows them
    pub id: u8,
    /// Its name
    #[arg(long)]
    pub name: Option<String>,
    /// Ask for its new password
    #[arg(long, conflicts_with = "password_file")]
    pub password: bool,
    /// The file with its new password
    #[arg(long, value_name = "FILE")]
    pub password_file: Option<PathBuf>,
    /// What it may do by LAN: user, operator, admin, no-access
    #[arg(long)]
    pub privilege: Option<String>,
    /// Whether it may use Serial over LAN: on, off
    #[arg(long, value_parser = on_off)]
    pub sol: Option<bool>,
    /// It may log in
    #[arg(long, conflicts_with = "disable")]
    pub enable: bool,
    /// It may not log in
    #[arg(long)]
    pub disable: bool,
}

#[derive(Debug, Args)]
pub(crate) struct SolArgs {
    /// It does it
    #[arg(long, conflicts_with = "disable")]
    pub enable: bool,
    /// It does not
    #[arg(long)]
    pub disable: bool,
    /// Bits a second of the host's serial port
    #[arg(long)]
    pub speed: Option<u32>,
    /// How often a packet is sent again
    #[arg(long, value_parser = clap::value_parser!(u8).range(0..=7))]
    pub retries: Option<u8>,
    /// After how many milliseconds
    #[arg(long, value_name = "MS")]
    pub retry_interval: Option<u64>,
    /// Whether it refuses sessions that do not encrypt: on, off
    #[arg(long, value_parser = on_off)]
    pub force_encryption: Option<bool>,
}

/// How it is asked, whatever it is.
#[derive(Debug, Clone, Args)]
pub(crate) struct How {
    /// Reach them from here by this site file, without the appliance
    #[arg(long, value_name = "FILE", global = true)]
    pub site: Option<PathBuf>,
    /// With --site: give a BMC up that is silent for so long
    #[arg(long, value_name = "SECONDS", value_parser = seconds, global = true)]
    pub patience: Option<Duration>,
    /// You mean all of them, however many
    #[arg(long, global = true)]
    pub yes: bool,
    /// State directory of the appliance
    #[arg(
        long,
        value_name = "DIR",
        default_value = "/var/lib/koboshi",
        env = "KOBOSHI_STATE",
        global = true
    )]
    pub state: PathBuf,
    /// For programs: one JSON object a line
    #[arg(long, global = true)]
    pub json: bool,
}

fn seconds(text: &str) -> Result<Duration, String> {
    let seconds: f64 = text.parse().map_err(|_| "seconds, like 0.5".to_string())?;
    match seconds {
        0.0..=86_400.0 => Ok(Duration::from_secs_f64(seconds)),
        _ => Err("0 to 86400 seconds".to_string()),
    }
}

fn vlan(text: &str) -> Result<u16, String> {
    match text {
        "off" => Ok(0),
        _ => text
            .parse()
            .ok()
            .filter(|id| (1..=4094).contains(id))
            .ok_or_else(|| "1 to 4094, or off".to_string()),
    }
}

fn on_off(text: &str) -> Result<bool, String> {
    match text {
        "on" => Ok(true),
        "off" => Ok(false),
        _ => Err("on or off".to_string()),
    }
}
