//! What one simulated BMC is made from.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use koboshi_ipmi::crypto::{SUITE_3, SUITE_17, Suite};
use koboshi_ipmi::wire::v15::Auth;
use koboshi_ipmi::{Kg, Password};

use crate::faults::Faults;
use crate::user::{Privilege, User};

/// One BMC before it runs.
#[derive(Debug, Clone)]
pub struct Config {
    /// Where it listens; port 0 takes a free one.
    pub listen: SocketAddr,
    /// Accounts, from user id 2 on. User id 1 has no name, and is disabled.
    pub users: Vec<User>,
    /// Its own key.
    pub kg: Option<Kg>,
    /// Cipher suites it takes; none at all makes it a BMC of IPMI 1.5.
    pub suites: Vec<Suite>,
    /// How sessions of IPMI 1.5 may authenticate; none at all makes it a BMC that knows only 2.0.
    pub auths: Vec<Auth>,
    /// Sessions it can have at a time.
    pub slots: usize,
    /// A session that says nothing for so long is closed.
    pub idle: Duration,
    /// What its GUID, its serial numbers and its faults are made from: the same number, the same BMC.
    pub seed: u64,
    /// Sensors it has.
    pub sensors: usize,
    /// What it does wrong.
    pub faults: Faults,
    /// The machine behind it.
    pub host: Host,
    /// Where its host's serial port is reached.
    pub serial: Serial,
    /// Where QEMU's `ipmi-bmc-extern` finds the host's own interface.
    pub vm: Option<SocketAddr>,
    /// Whether the machine is on from the beginning.
    pub on: bool,
}

/// The machine behind a BMC.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Host {
    /// A flag in memory.
    #[default]
    Memory,
    /// A process: on is running.
    Process {
        /// For `/bin/sh -c`, with `KOBOSHI_BOOT` set to the boot device asked for.
        start: String,
        /// QEMU's monitor (QMP) socket, for reset, ACPI shutdown and NMI. Without one these go by
        /// [`Config::vm`]; without that too, reset starts it anew and shutdown is SIGTERM.
        monitor: Option<PathBuf>,
    },
    /// Whoever holds the [`Sim`](crate::Sim) has it: [`Sim::orders`](crate::Sim::orders) says what is to be
    /// done to it, and what it does by itself is written into [`Chassis::on`](crate::chassis::Chassis::on).
    Elsewhere,
}

/// Where a host's serial port is.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Serial {
    /// Nowhere: tests speak for the host through [`crate::sol::Sol`].
    #[default]
    Memory,
    /// Joined with itself: what the console says comes back (`echo`).
    Echo,
    /// A TCP server (`tcp:HOST:PORT`).
    Tcp(SocketAddr),
    /// A TCP server that speaks telnet, as QEMU's `telnet=on` does: a BREAK gets through (`telnet:HOST:PORT`).
    Telnet(SocketAddr),
    /// A unix socket (`unix:PATH`).
    Unix(PathBuf),
    /// Whoever holds the [`Sim`](crate::Sim) has it: [`Sim::serial`](crate::Sim::serial).
    Elsewhere,
}

impl Serial {
    /// Whether there is a connection to keep.
    pub fn is_socket(&self) -> bool {
        !matches!(self, Serial::Memory | Serial::Echo)
    }
}

impl Default for Config {
    /// On a free port of 127.0.0.1, suites 3 and 17, MD5, five slots; nobody may log in yet.
    fn default() -> Config {
        Config {
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
            users: Vec::new(),
            kg: None,
            suites: vec![SUITE_3, SUITE_17],
            auths: vec![Auth::Md5],
            slots: 5,
            idle: Duration::from_secs(60),
            seed: 1,
            sensors: 8,
            faults: Faults::default(),
            host: Host::Memory,
            serial: Serial::Memory,
            vm: None,
            on: false,
        }
    }
}

impl Config {
    /// The default with one administrator.
    pub fn with_admin(name: &str, password: Password) -> Config {
        let admin = User::new(name, password, Privilege::Admin);
        Config { users: vec![admin], ..Config::default() }
    }
}
