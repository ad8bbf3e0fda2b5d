//! What machines say they are made of: kept as it changes, shown to whoever adopts one, and laid
//! beside what the site file says. Where the two disagree both are shown, and neither is acted upon.

use std::collections::{BTreeSet, HashMap};
use std::net::Ipv4Addr;

use koboshi_initramfs::contract::Hardware;
use koboshi_initramfs::contract::hardware::{Disk, Port};
use koboshi_pxe::Mac;
use serde::{Deserialize, Serialize};

use crate::site::{At, MachineName, Site};

/// Characters of any text a machine wrote.
const TEXT_MAX: usize = 64;
/// Serial numbers that firmware writers put where a serial number should be, in lower case.
const NO_SERIAL: [&str; 14] = [
    "to be filled by o.e.m.",
    "to be filled by o.e.m",
    "default string",
    "default",
    "system serial number",
    "not specified",
    "not available",
    "not applicable",
    "none",
    "n/a",
    "empty",
    "0123456789",
    "123456789",
    "1234567890",
];
/// Drivers of the NIC that a BMC offers the machine over USB: every machine has the same MAC there.
const NIC_OF_BMC: [&str; 4] = ["cdc_ether", "cdc_eem", "cdc_ncm", "rndis_host"];

/// A machine's hardware, as it last told.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// The machine's name, or its MAC if the site does not know it.
    pub machine: String,
    /// By which MAC it booted.
    pub mac: Mac,
    /// Unix milliseconds when it was first told like this.
    pub at: u64,
    /// All of it.
    pub hardware: Hardware,
    /// What it proved itself by when it was first seen or last taken on by an operator: what the
    /// present is compared with.
    pub known: Proof,
}

/// What stays the same for as long as a machine is the same.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Proof {
    /// Serial number, if it has a true one.
    pub serial: Option<String>,
    /// UUID.
    pub uuid: Option<String>,
    /// MAC of its BMC.
    pub bmc: Option<String>,
}

impl Proof {
    fn of(hardware: &Hardware) -> Proof {
        let told = |text: &str| (!text.is_empty()).then(|| text.to_string());
        let uuid = told(&hardware.uuid).map(|uuid| uuid.to_lowercase());
        Proof {
            serial: told(&hardware.serial).filter(|serial| tells(serial)),
            uuid: uuid.filter(|uuid| uuid.chars().any(|c| !matches!(c, '0' | 'f' | '-'))),
            bmc: hardware.bmc.as_ref().and_then(|bmc| told(&bmc.mac)),
        }
    }
}

/// Whether a serial number is one.
fn tells(serial: &str) -> bool {
    let lower = serial.to_lowercase();
    let one = lower.chars().next();
    !NO_SERIAL.contains(&lower.as_str()) && !lower.chars().all(|c| Some(c) == one || c == ' ')
}

impl Record {
    /// What a machine tells now, with what is known of it.
    pub fn new(
        machine: &str,
        mac: Mac,
        at: u64,
        hardware: Hardware,
        last: Option<&Record>,
    ) -> Record {
        let now = Proof::of(&hardware);
        // What it never told before is no contradiction.
        let known = last.map_or_else(Proof::default, |last| last.known.clone());
        let known = Proof {
            serial: known.serial.or(now.serial),
            uuid: known.uuid.or(now.uuid),
            bmc: known.bmc.or(now.bmc),
        };
        let same = last.filter(|last| last.hardware == hardware && last.mac == mac);
        let at = same.map_or(at, |last| last.at);
        Record { machine: machine.to_string(), mac, at, hardware, known }
    }

    /// The operator's word: this is the machine now.
    pub fn taken_on(&self) -> Record {
        Record { known: Proof::of(&self.hardware), ..self.clone() }
    }

    /// All its NICs for the site file, that of the boot first.
    pub fn macs(&self) -> Vec<Mac> {
        let ports = self.hardware.nics.iter();
        let own = ports.filter(|port| !NIC_OF_BMC.contains(&port.driver.as_str()));
        let own = own.filter_map(|port| port.mac.parse::<Mac>().ok());
        let own = own.filter(|mac| !mac.is_multicast() && mac.0 != [0; 6]);
        let mut macs = vec![self.mac];
        for mac in own {
            if !macs.contains(&mac) {
                macs.push(mac);
            }
        }
        macs
    }
}

/// What a machine wrote, fit for a terminal and for the disk.
pub fn tidy(mut hardware: Hardware) -> Hardware {
    let firmware = &mut hardware.firmware;
    [
        &mut hardware.vendor,
        &mut hardware.product,
        &mut hardware.serial,
        &mut hardware.uuid,
        &mut hardware.board,
        &mut firmware.vendor,
        &mut firmware.version,
        &mut firmware.date,
        &mut hardware.cpu.model,
    ]
    .into_iter()
    .for_each(plain);
    for disk in &mut hardware.disks {
        let Disk { name, model, serial, bus, firmware, .. } = disk;
        [name, model, serial, bus, firmware].into_iter().for_each(plain);
    }
    for port in &mut hardware.nics {
        let Port { name, mac, driver, slot, .. } = port;
        [name, mac, driver, slot].into_iter().for_each(plain);
    }
    if let Some(bmc) = &mut hardware.bmc {
        [&mut bmc.address, &mut bmc.mac].into_iter().for_each(plain);
    }
    hardware
}

/// A text that a machine wrote: no control characters, not without end.
pub fn plain(text: &mut String) {
    *text = text.chars().take(TEXT_MAX).map(|c| if c.is_control() { '·' } else { c }).collect();
}

/// One line: `HPE ProLiant DL360 Gen10, serial CZ123, 32 cores, 64.0 GiB, 2 disks, 4 NICs`.
pub fn summary(hardware: &Hardware) -> String {
    let mut parts = vec![format!("{} {}", hardware.vendor, hardware.product).trim().to_string()];
    if !hardware.serial.is_empty() {
        parts.push(format!("serial {}", hardware.serial));
    }
    let many = |count: usize, what: &str| match count {
        1 => format!("1 {what}"),
        _ => format!("{count} {what}s"),
    };
    parts.push(many(hardware.cpu.cores as usize, "core"));
    parts.push(gib(hardware.memory_mib));
    parts.push(many(hardware.disks.len(), "disk"));
    parts.push(many(hardware.nics.len(), "NIC"));
    parts.retain(|part| !part.is_empty());
    parts.join(", ")
}

/// Everything, a line each, for a terminal.
pub fn lines(hardware: &Hardware) -> Vec<String> {
    let or = |text: &str| if text.is_empty() { "-".to_string() } else { text.to_string() };
    let firmware = &hardware.firmware;
    let way = if firmware.uefi { "UEFI" } else { "BIOS" };
    let cpu = &hardware.cpu;
    let mut lines = vec![
        format!(
            "machine   {} {}, serial {}",
            hardware.vendor,
            hardware.product,
            or(&hardware.serial)
        ),
        format!("          board {}, UUID {}", or(&hardware.board), or(&hardware.uuid)),
        format!(
            "firmware  {way}, {} {} of {}",
            firmware.vendor,
            firmware.version,
            or(&firmware.date)
        ),
        format!(
            "cpu       {}, {} sockets, {} cores, {} threads",
            or(&cpu.model),
            cpu.sockets,
            cpu.cores,
            cpu.threads
        ),
        format!("memory    {}", gib(hardware.memory_mib)),
    ];
    for disk in &hardware.disks {
        let turns = if disk.rotates { ", rotates" } else { "" };
        let firmware = match disk.firmware.as_str() {
            "" => String::new(),
            told => format!(", firmware {told}"),
        };
        lines.push(format!(
            "disk      {:<8} {:>9}  {}{turns}, {}, serial {}{firmware}",
            disk.name,
            gib(disk.mib),
            disk.bus,
            or(&disk.model),
            or(&disk.serial)
        ));
    }
    for port in &hardware.nics {
        let link = match (port.link, port.mbit) {
            (Some(true), Some(mbit)) => format!("link, {mbit} Mb/s"),
            (Some(true), None) => "link".to_string(),
            (Some(false), _) => "no link".to_string(),
            (None, _) => "down".to_string(),
        };
        lines.push(format!(
            "nic       {:<8} {}  {link}, {}, {}",
            port.name,
            port.mac,
            or(&port.driver),
            or(&port.slot)
        ));
    }
    match &hardware.bmc {
        Some(bmc) => lines.push(format!("bmc       {} {}", bmc.address, bmc.mac)),
        None => lines.push("bmc       none that the kernel can talk to".to_string()),
    }
    if hardware.left_out > 0 {
        lines.push(format!("          {} more found no room in the report", hardware.left_out));
    }
    lines
}

/// `64.0 GiB`
pub fn gib(mib: u64) -> String {
    match mib {
        0..=1023 => format!("{mib} MiB"),
        _ => format!("{:.1} GiB", mib as f64 / 1024.0),
    }
}

/// Who has what of which there should be one: looked up for each machine, and so made once for all.
#[derive(Debug)]
pub struct Others<'a> {
    /// Machines of the site by the serial number they had.
    serials: HashMap<&'a str, BTreeSet<&'a str>>,
    /// Machines by where the site has their BMC.
    bmcs: HashMap<&'a str, Vec<(&'a MachineName, &'a At<String>)>>,
}

impl<'a> Others<'a> {
    /// Of all machines that have told, and of the site.
    pub fn of(site: &'a Site, all: &'a HashMap<String, Record>) -> Others<'a> {
        let mut serials: HashMap<&str, BTreeSet<&str>> = HashMap::new();
        // Only machines of the site are anybody.
        let known = all.values().filter(|one| site.machines.contains_key(one.machine.as_str()));
        for one in known {
            if let Some(serial) = &one.known.serial {
                serials.entry(serial).or_default().insert(&one.machine);
            }
        }
        let mut bmcs: HashMap<&str, Vec<_>> = HashMap::new();
        for (name, machine) in &site.machines {
            // Blades behind one bridging BMC share it.
            if let Some(bmc) = machine.bmc.as_ref().filter(|bmc| bmc.target.is_none()) {
                bmcs.entry(&bmc.host.value).or_default().push((name, &bmc.host));
            }
        }
        Others { serials, bmcs }
    }
}

/// Where a machine's word about itself disagrees with its past or with the site file: a sentence
/// each. What to make of it is the operator's to say.
pub fn evidence(site: &Site, record: &Record, others: &Others<'_>) -> Vec<String> {
    let machine = record.machine.as_str();
    let mut found = Vec::new();
    let now = Proof::of(&record.hardware);
    let known = site.machines.get(machine);
    // Who else had this number.
    let whose = |serial: &str| {
        let had = others.serials.get(serial).into_iter().flatten();
        had.copied().find(|other| *other != machine)
    };
    if let Some(serial) = &now.serial {
        let other = whose(serial);
        match (&record.known.serial, other) {
            (Some(last), other) if serial != last => {
                let also = other.map(|other| format!(" ({other} had {serial} last time)"));
                found.push(format!(
                    "{machine} answers with serial {serial}, last time {last}{}: \
                     was the board exchanged, or are two lines of the site swapped?",
                    also.unwrap_or_default()
                ));
            }
            (_, Some(other)) if known.is_some() => found.push(format!(
                "{machine} answers with serial {serial}, and so did {other}: \
                 one machine under two names, or two with one number?"
            )),
            (_, Some(other)) => found.push(format!(
                "{machine} answers with serial {serial}, which is {other}'s: \
                 is this {other} with another NIC?"
            )),
            _ => {}
        }
    }
    if let (Some(uuid), Some(last)) = (&now.uuid, &record.known.uuid)
        && uuid != last
        && now.serial == record.known.serial
    {
        found.push(format!("{machine} answers with UUID {uuid}, last time {last}: another board?"));
    }
    if let (Some(bmc), Some(last)) = (&now.bmc, &record.known.bmc)
        && bmc != last
    {
        found.push(format!("{machine}'s BMC has the MAC {bmc}, last time {last}"));
    }
    let reported = record.hardware.bmc.as_ref();
    let reported = reported.and_then(|bmc| bmc.address.parse::<Ipv4Addr>().ok());
    let reported = reported.filter(|address| !address.is_unspecified());
    if let (Some(machine_of_site), Some(address)) = (known, reported) {
        let written = machine_of_site.bmc.as_ref().map(|bmc| &bmc.host);
        let differs =
            written.filter(|host| host.value.parse().is_ok_and(|host: Ipv4Addr| host != address));
        if let Some(host) = differs {
            found.push(format!(
                "{} has {machine}'s BMC at {}, the machine itself says {address}",
                host.origin, host.value
            ));
        }
        let text = address.to_string();
        let there = others.bmcs.get(text.as_str()).into_iter().flatten();
        for (other, host) in there.filter(|(name, _)| name.as_str() != machine) {
            found.push(format!(
                "{machine} says its BMC is at {address}, where {} has {other}'s",
                host.origin
            ));
        }
    }
    let macs = record.macs();
    for mac in macs.iter().filter(|mac| **mac != record.mac) {
        if let Some((other, _)) = site.machine_by_mac(*mac)
            && other.as_str() != machine
        {
            let line = site.by_mac.get(mac).map(|line| line.origin.to_string());
            found.push(format!(
                "{machine} has a NIC {mac}, which {} gives to {other}",
                line.unwrap_or_default()
            ));
        }
    }
    // A NIC whose driver the kernel of that role lacks is not reported, so this is a hint.
    let missing = known.into_iter().flat_map(|known| &known.macs);
    for mac in missing.filter(|mac| !record.hardware.nics.is_empty() && !macs.contains(&mac.value))
    {
        found.push(format!(
            "{} gives {machine} the MAC {}, but no NIC of it has that",
            mac.origin, mac.value
        ));
    }
    found
}

#[cfg(test)]
#[path = "hardware_tests.rs"]
mod tests;
