//! The site as meant: every name looked up, every default filled in, every address in its network.
//! This is what DHCP, the boot decision, the API and the command line see; none of them meets text.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;

use koboshi_pxe::Mac;
use serde::Serialize;

use super::hardware::{Bmc, Console, Fence, Outlet, Power, SwitchPort};
use super::load::{SiteFile, Watched};
use super::names::{ClassName, GroupName, MachineName, NetworkName, RoleName, SeatName};
use super::network::{Cidr, Pool};
use super::origin::{At, Origin};
use super::problem::Problems;
use super::values::{ImageRef, Lease, RootSize, Serial, Unknown};
use super::written::{
    DhcpOption, Exclusive, Identify, Kind, Mode, Nics, Place, Route, SeatNet, Takeover,
};
use crate::files::Files;

mod addresses;
mod build;
mod consoles;
mod logs;
mod machines;
mod matrix;
mod who;

pub(super) use build::build;
pub use build::image_missing;
pub use consoles::{Consoles, Watch};
pub use logs::Logs;
pub use who::Nobody;

/// A whole site. Its origins keep the text of its files, so it can explain itself after they changed.
#[derive(Debug, Clone, Serialize)]
pub struct Site {
    /// `[site] name`, for people.
    pub name: String,
    /// The domain of seats.
    pub domain: Option<String>,
    /// Public keys for every root.
    pub ssh_keys: Vec<At<String>>,
    /// A folder of loaders to use instead of the distribution's.
    pub loaders: Option<At<PathBuf>>,
    /// What holds for the whole provisioning network.
    pub net: Net,
    /// The subnets machines boot on, and those of BMCs.
    pub subnets: Vec<At<Subnet>>,
    /// Further networks a seat may live on.
    pub networks: BTreeMap<NetworkName, At<Network>>,
    /// The maintenance network.
    pub admin: Admin,
    /// How consoles are kept.
    pub consoles: Consoles,
    /// How much is kept of what machines log.
    pub logs: Logs,
    /// What machines of one model share.
    pub classes: BTreeMap<ClassName, At<Class>>,
    /// What seats run.
    pub roles: BTreeMap<RoleName, At<Role>>,
    /// The hardware.
    pub machines: BTreeMap<MachineName, At<Machine>>,
    /// Machines by one name.
    pub groups: BTreeMap<GroupName, At<Group>>,
    /// The services.
    pub seats: BTreeMap<SeatName, At<Seat>>,
    /// Who is meant to sit where.
    pub matrix: BTreeMap<MachineName, At<Place>>,
    /// The machine with this address, and where it is written.
    #[serde(skip)]
    pub by_mac: BTreeMap<Mac, At<MachineName>>,
    /// The machine whose BMC has this address, and where it is written.
    #[serde(skip)]
    pub by_bmc_mac: BTreeMap<Mac, At<MachineName>>,
    /// The seat with this address on the provisioning network.
    #[serde(skip)]
    pub by_address: BTreeMap<Ipv4Addr, SeatName>,
    /// The machine the matrix gives a seat.
    #[serde(skip)]
    pub seated: BTreeMap<SeatName, MachineName>,
    /// What was read.
    pub files: Vec<SiteFile>,
    /// What to watch for a change.
    #[serde(skip)]
    pub watched: Watched,
    /// What is odd, but not wrong.
    pub warnings: Problems,
}

/// `[net]`, but for its subnet.
#[derive(Debug, Clone, Serialize)]
pub struct Net {
    /// Where HTTP listens on the provisioning network.
    pub http_port: u16,
    /// Whether addresses are ours to give.
    pub mode: Mode,
    /// How long a pool's address is lent.
    pub lease: Lease,
    /// What a MAC we do not know gets.
    pub unknown: Unknown,
    /// What makes a machine one of the site.
    pub identify: Identify,
    /// The line that says so.
    #[serde(skip)]
    pub unknown_at: Option<At<()>>,
    /// Roles that whoever is at a machine's console may choose. Without it a machine of the site has
    /// no menu, and a machine nobody knows is offered every role by `unknown = "menu"`.
    pub menu: Option<Vec<At<RoleName>>>,
    /// Where syslog listens, if it does (`syslog = 0`: it does not).
    pub syslog: Option<u16>,
    /// Where kernels are heard that send by themselves (netconsole), and machines of ours are told to.
    pub netconsole: Option<u16>,
}

/// How a subnet is reached.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Reach {
    /// It is on this interface.
    Interface(String),
    /// Through relay agents with these addresses (giaddr).
    Relay(Vec<Ipv4Addr>),
}

/// A network machines get their addresses on.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Subnet {
    /// How it is reached.
    pub reach: Reach,
    /// The network.
    pub cidr: Cidr,
    /// Our own address on it; unknown where the interface is not here, or behind a relay.
    pub own: Option<Ipv4Addr>,
    /// Its router.
    pub gateway: Option<At<Ipv4Addr>>,
    /// Addresses for machines without a seat.
    pub pool: Option<At<Pool>>,
    /// Name servers.
    pub dns: Vec<Ipv4Addr>,
    /// Time servers.
    pub ntp: Vec<Ipv4Addr>,
    /// Its domain, or the site's.
    pub domain: Option<String>,
    /// The largest packet.
    pub mtu: Option<u16>,
    /// Static routes.
    pub routes: Vec<At<Route>>,
    /// DHCP options sent besides ours.
    pub options: BTreeMap<u8, At<DhcpOption>>,
    /// Who lives here.
    pub kind: Kind,
}

impl Subnet {
    /// The interface, unless it is behind a relay.
    pub fn interface(&self) -> Option<&str> {
        match &self.reach {
            Reach::Interface(name) => Some(name),
            Reach::Relay(_) => None,
        }
    }
}

/// A further network.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Network {
    /// The network.
    pub cidr: Cidr,
    /// Its router.
    pub gateway: Option<At<Ipv4Addr>>,
    /// Its VLAN, if it comes tagged.
    pub vlan: Option<u16>,
    /// The largest packet.
    pub mtu: Option<u16>,
    /// Static routes.
    pub routes: Vec<At<Route>>,
}

/// Where people and programs come in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Admin {
    /// Web, API, metrics.
    pub listen: SocketAddr,
    /// Consoles.
    pub ssh: SocketAddr,
}

/// What machines of one model share. Already merged into each [`Machine`].
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Class {
    /// Serial port and speed.
    pub serial: Option<At<Serial>>,
    /// The loader its firmware needs.
    pub loader: Option<At<String>>,
    /// NICs and bonds by name.
    pub nics: Nics,
    /// Workarounds, by name.
    pub quirks: Vec<String>,
}

/// What a seat runs.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Role {
    /// The image.
    pub image: At<ImageRef>,
    /// The end of the kernel command line.
    pub cmdline: Option<At<String>>,
    /// Where the root lives.
    pub root: RootMode,
    /// How large it may grow in memory.
    pub root_size: RootSize,
    /// Boots of a version that may fail on a machine, one after another, before it boots the former one. 0:
    /// it never does.
    pub failures: u32,
    /// Serial port, where neither machine nor class says.
    pub serial: Option<At<Serial>>,
    /// Loader, where neither machine nor class says.
    pub loader: Option<At<String>>,
    /// Laid over its root.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub files: Option<Files>,
}

/// Where a root lives.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum RootMode {
    /// Unpacked into memory (S8).
    #[default]
    Ram,
    /// The image read-only, changes in memory.
    Overlay,
    /// On this export: `host:/path,opts` (S9).
    Nfs(String),
}

/// A root on a server, taken apart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NfsRoot<'a> {
    /// Address or name.
    pub host: &'a str,
    /// What it exports.
    pub path: &'a str,
    /// As `mount -o` takes them, without `ro` and `rw`.
    pub options: String,
    /// Machines write into memory, not to the server: so it is unless `rw` is said, for several
    /// machines that write to one root destroy it.
    pub read_only: bool,
}

impl NfsRoot<'_> {
    /// Of `host:/path,opts`, as it was checked when it was read.
    pub fn of(text: &str) -> NfsRoot<'_> {
        let (export, options) = text.split_once(',').unwrap_or((text, ""));
        let (host, path) = export.split_once(':').unwrap_or((export, "/"));
        let all = options.split(',').filter(|option| !option.is_empty());
        let mut read_only = true;
        let mut kept = Vec::new();
        for option in all {
            match option {
                "ro" => read_only = true,
                "rw" => read_only = false,
                other => kept.push(other),
            }
        }
        NfsRoot { host, path, options: kept.join(","), read_only }
    }
}

/// A piece of hardware, with what its class says of it.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Machine {
    /// Its class.
    pub class: Option<At<ClassName>>,
    /// Its addresses.
    pub macs: Vec<At<Mac>>,
    /// Its BMC.
    pub bmc: Option<Bmc>,
    /// Its console line.
    pub console: Option<At<Console>>,
    /// How it is kept from running.
    pub fence: Vec<Fence>,
    /// Its outlets.
    pub pdu: Vec<At<Outlet>>,
    /// Its switch ports.
    pub port: Vec<At<SwitchPort>>,
    /// Power, without IPMI.
    pub power: Option<At<Power>>,
    /// Power commands refuse it.
    pub protected: bool,
    /// Serial port: its own word, or its class's. See [`Site::serial`].
    pub serial: Option<At<Serial>>,
    /// Loader: its own word, or its class's. See [`Site::loader`].
    pub loader: Option<At<String>>,
    /// NICs and bonds by name.
    pub nics: Nics,
    /// Workarounds, by name.
    pub quirks: Vec<String>,
}

impl Machine {
    /// What the NIC it boots from is called in the booted system, if the site says so.
    pub fn boot_nic(&self) -> Option<&str> {
        self.nics.boot.as_ref().map(|name| name.value.as_str())
    }
}

/// A service identity.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Seat {
    /// What it runs.
    pub role: At<RoleName>,
    /// Its address on the provisioning network; always there in server mode.
    pub ip: Option<At<Ipv4Addr>>,
    /// `key=value` for the kernel command line.
    pub args: BTreeMap<String, At<String>>,
    /// Further networks.
    pub nets: BTreeMap<NetworkName, At<SeatNet>>,
    /// Disks by mount point.
    pub disks: BTreeMap<String, At<String>>,
    /// What must be proved of the former holder.
    pub exclusive: Exclusive,
    /// Whether it moves by itself.
    pub takeover: Takeover,
    /// Laid over its root, and over the files of its role.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub files: Option<Files>,
}

/// Some machines by one name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct Group {
    /// Its machines.
    pub members: BTreeSet<MachineName>,
}

/// A value that several places may decide, and the line that did; none if nobody said and it is the default.
#[derive(Debug, Clone)]
pub struct Resolved<'a, T> {
    /// The value.
    pub value: T,
    /// The line.
    pub origin: Option<&'a Origin>,
}

impl Site {
    /// The machine with this address.
    pub fn machine_by_mac(&self, mac: Mac) -> Option<(&MachineName, &At<Machine>)> {
        let name = &self.by_mac.get(&mac)?.value;
        self.machines.get_key_value(name)
    }

    /// The seat the matrix gives a machine.
    pub fn seat_of(&self, machine: &MachineName) -> Option<(&SeatName, &At<Seat>)> {
        match &self.matrix.get(machine)?.value {
            Place::Seat(seat) => self.seats.get_key_value(seat),
            Place::Spare => None,
        }
    }

    /// The machine the matrix gives a seat.
    pub fn machine_of(&self, seat: &SeatName) -> Option<(&MachineName, &At<Machine>)> {
        self.machines.get_key_value(self.seated.get(seat)?)
    }

    /// A seat's role.
    pub fn role_of(&self, seat: &Seat) -> Option<(&RoleName, &At<Role>)> {
        self.roles.get_key_value(&seat.role.value)
    }

    /// A machine's serial port in a role: its own word, its class's, the role's, else `ttyS0,115200` (S24).
    pub fn serial<'a>(
        &'a self,
        machine: Option<&'a Machine>,
        role: Option<&'a Role>,
    ) -> Resolved<'a, Serial> {
        let said = machine.and_then(|machine| machine.serial.as_ref());
        match said.or_else(|| role.and_then(|role| role.serial.as_ref())) {
            Some(said) => Resolved { value: said.value.clone(), origin: Some(&said.origin) },
            None => Resolved { value: Serial::default(), origin: None },
        }
    }

    /// A machine's loader in a role, if anybody says; else its firmware's kind decides.
    pub fn loader<'a>(
        &'a self,
        machine: Option<&'a Machine>,
        role: Option<&'a Role>,
    ) -> Resolved<'a, Option<&'a str>> {
        let said = machine.and_then(|machine| machine.loader.as_ref());
        match said.or_else(|| role.and_then(|role| role.loader.as_ref())) {
            Some(said) => Resolved { value: Some(&said.value), origin: Some(&said.origin) },
            None => Resolved { value: None, origin: None },
        }
    }

    /// The subnet an address is in.
    pub fn subnet_of(&self, address: Ipv4Addr) -> Option<&At<Subnet>> {
        self.subnets.iter().find(|subnet| subnet.cidr.contains(address))
    }

    /// Every image a role needs, and where it says so: the caller knows which there are.
    pub fn images_used(&self) -> Vec<(ImageRef, Origin)> {
        let roles = self.roles.values();
        roles.map(|role| (role.image.value.clone(), role.image.origin.clone())).collect()
    }
}
