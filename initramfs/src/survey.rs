//! What a set-up finds beyond [`Hardware`](super::Hardware): what a person compares with the order sheet. Slots and
//! sockets are the board's own word (SMBIOS), the BMC is asked by the machine it sits in.
//!
//! There is no password in it: a BMC does not tell one, and nobody asks.

use std::net::Ipv4Addr;

use serde::{Deserialize, Serialize};

/// The whole of it. A field that nobody filled in is empty.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Survey {
    /// The mainboard (SMBIOS type 2).
    pub board: Part,
    /// What all of it is in (type 3).
    pub chassis: Part,
    /// Processors by socket (type 4), empty ones too.
    pub processors: Vec<Processor>,
    /// Memory by slot (type 17), empty ones too.
    pub memory: Vec<Module>,
    /// The BMC, if the kernel can talk to one.
    pub bmc: Option<Controller>,
    /// Slots, sockets and accounts that found no room in the report.
    pub left_out: u32,
}

/// A board or a chassis.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Part {
    /// Who built it.
    pub vendor: String,
    /// Model; what kind of chassis it is: `Rack Mount Chassis`.
    pub product: String,
    /// Version.
    pub version: String,
    /// Serial number.
    pub serial: String,
    /// The owner's own number, if somebody wrote one into it.
    pub asset: String,
}

/// A socket, and what is in it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Processor {
    /// As the board calls it: `CPU 1`.
    pub socket: String,
    /// Nothing is in it.
    pub empty: bool,
    /// Who made what is.
    pub vendor: String,
    /// Its model, as it says itself.
    pub model: String,
    /// Cores.
    pub cores: u32,
    /// Threads.
    pub threads: u32,
    /// Megahertz right now.
    pub mhz: u32,
}

/// A memory slot, and what is in it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Module {
    /// As the board calls it: `DIMM_A1`.
    pub slot: String,
    /// Its bank, if the board has a name for it.
    pub bank: String,
    /// MiB; 0 is an empty slot.
    pub mib: u64,
    /// The size is not told, though something is in it.
    pub unknown: bool,
    /// `DDR4`
    pub kind: String,
    /// Megatransfers a second: what it runs at, or else what it could.
    pub speed: u32,
    /// Who made it.
    pub vendor: String,
    /// Part number.
    pub part: String,
    /// Serial number.
    pub serial: String,
}

/// A BMC, asked from within.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Controller {
    /// The maker's number of its kind.
    pub device: u8,
    /// Firmware, major and minor: `2.88`.
    pub firmware: String,
    /// Of IPMI: `2.0`.
    pub ipmi: String,
    /// IANA number of the maker.
    pub maker: u32,
    /// The maker's number of the product.
    pub product: u16,
    /// Its LAN port, if it has one.
    pub lan: Option<Lan>,
    /// Accounts that have a name or may log in.
    pub users: Vec<User>,
}

/// A BMC's place in the network.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Lan {
    /// IPMI channel.
    pub channel: u8,
    /// Where its address is from.
    pub source: Source,
    /// Its address, if it has one.
    pub address: Option<Ipv4Addr>,
    /// Its mask.
    pub mask: Option<Ipv4Addr>,
    /// Default gateway, if it has one.
    pub gateway: Option<Ipv4Addr>,
    /// MAC.
    pub mac: String,
    /// The VLAN it tags with, if it does.
    pub vlan: Option<u16>,
}

/// Where a BMC has its address from (IPMI 2.0 table 23-4, parameter 4).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Source {
    /// Not told, or in a way without a name.
    #[default]
    Unknown,
    /// Set.
    Static,
    /// Lent by DHCP.
    Dhcp,
    /// From the firmware of the machine.
    Bios,
}

/// An account of a BMC.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct User {
    /// From 1.
    pub id: u8,
    /// Its name, empty if it has none.
    pub name: String,
    /// The most it may be on the LAN channel: `admin`, `operator`, `user`, `callback`, `no-access`.
    pub privilege: String,
    /// It may log in; nothing from firmware that does not tell.
    pub enabled: Option<bool>,
}
