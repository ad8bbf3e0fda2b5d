//! What a machine is made of, as `koboshi-init` finds it before the root is fetched: what a stranger
//! is shown by, and the evidence that a known machine is still the one it was.
//!
//! All of it is what firmware, disks and NICs say of themselves. Nothing is decided by it (S17).

use serde::{Deserialize, Serialize};

/// The whole of it. A field that nobody filled in is empty.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Hardware {
    /// Who built it (SMBIOS type 1).
    pub vendor: String,
    /// Its model.
    pub product: String,
    /// Its serial number: the chassis' sticker, if the vendor cared.
    pub serial: String,
    /// Its UUID.
    pub uuid: String,
    /// The mainboard's serial number (SMBIOS type 2).
    pub board: String,
    /// What starts it.
    pub firmware: Firmware,
    /// Processors.
    pub cpu: Cpu,
    /// MiB of memory, as the kernel has them.
    pub memory_mib: u64,
    /// Disks.
    pub disks: Vec<Disk>,
    /// Network cards.
    pub nics: Vec<Port>,
    /// Its BMC, if the kernel can talk to one.
    pub bmc: Option<Bmc>,
    /// Disks and cards that found no room in the report.
    pub left_out: u32,
}

/// Firmware.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Firmware {
    /// It started this kernel by UEFI, not as a BIOS.
    pub uefi: bool,
    /// Who wrote it.
    pub vendor: String,
    /// Its version.
    pub version: String,
    /// Its date, as the vendor writes dates.
    pub date: String,
}

/// Processors.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Cpu {
    /// Model of the first.
    pub model: String,
    /// Sockets.
    pub sockets: u32,
    /// Cores in all sockets.
    pub cores: u32,
    /// Threads in all cores.
    pub threads: u32,
}

/// A disk.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Disk {
    /// `sda`, today.
    pub name: String,
    /// Model.
    pub model: String,
    /// Serial number.
    pub serial: String,
    /// Size.
    pub mib: u64,
    /// It has platters.
    pub rotates: bool,
    /// `nvme`, `sata`, `scsi`, `usb`, `virtio`, `mmc`.
    pub bus: String,
    /// Revision of its firmware.
    pub firmware: String,
}

/// A network card's port.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Port {
    /// `eth0`, today.
    pub name: String,
    /// Its address.
    pub mac: String,
    /// Driver.
    pub driver: String,
    /// Where it sits: a PCI address, mostly.
    pub slot: String,
    /// Whether there is a link; nothing if the port was not brought up to see.
    pub link: Option<bool>,
    /// Megabits a second, with a link.
    pub mbit: Option<u32>,
}

/// A BMC, as it answers the machine it sits in.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Bmc {
    /// IPMI channel of its LAN port.
    pub channel: u8,
    /// Its IPv4 address; `0.0.0.0` before it has one.
    pub address: String,
    /// Its MAC.
    pub mac: String,
}
