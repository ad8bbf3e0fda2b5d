//! `koboshi image test`: a version boots in the virtual rack before any metal sees it.

use std::io::IsTerminal;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::bail;
use clap::{Args, ValueEnum};
use koboshi_images::{Store, squash};
use koboshi_initramfs::contract::duty::FileSystem;
use regex::Regex;

use super::progress::Line;
use super::{At, by, pretty, print};
use crate::lab;
use crate::lab::cli::AccelWord;
use crate::lab::proof::{Claim, DataDisk, Proof, prove};
use crate::lab::qemu::Firmware;
use crate::ops::console::script::time;

/// `koboshi image test`
#[derive(Debug, Args)]
#[command(after_help = "A role that wants something of its seat is given it:\n  \
    koboshi image test db --memory 2g --disk 1g:db:/var/lib/mysql\n  \
    koboshi image test lb --arg vip=10.77.0.100/24 --arg port=80 --arg real=10.77.0.21,10.77.0.22 --arg priority=150 \
    --arg vrid=51")]
pub struct Test {
    /// Image: `web` for its newest version, `web@3` for that one
    image: String,
    /// Where its root lives
    #[arg(long, value_enum, default_value_t = Root::Ram)]
    root: Root,
    /// Memory of the machine: 1g, 1536m
    #[arg(long, value_name = "SIZE", default_value = "1g", value_parser = memory)]
    memory: u32,
    /// Firmware of the machine
    #[arg(long, value_enum, default_value_t = FirmwareWord::Bios)]
    firmware: FirmwareWord,
    /// How instructions are executed
    #[arg(long, value_enum, default_value_t = AccelWord::Tcg)]
    accel: AccelWord,
    /// What its seat says by `args`; more than once for more
    #[arg(long = "arg", value_name = "NAME=VALUE", value_parser = named)]
    args: Vec<(String, String)>,
    /// A data disk: blank, or an ext4 of that label, or that one as its seat mounts it at AT; more than once for more
    #[arg(long = "disk", value_name = "SIZE[:LABEL[:AT]]", value_parser = disk)]
    disks: Vec<DataDisk>,
    /// Its console has to show this regular expression too
    #[arg(long, value_name = "RE")]
    expect: Vec<Regex>,
    /// Once it is up, this console script has to go well (as `koboshi console --script`)
    #[arg(long, value_name = "SCRIPT")]
    run: Option<PathBuf>,
    /// This unit of systemd may fail
    #[arg(long, value_name = "UNIT")]
    may_fail: Vec<String>,
    /// Within which all of it has to happen. Emulation without KVM is slow: 2 minutes on two idle cores
    #[arg(long, value_name = "TIME", default_value = "10m", value_parser = time)]
    timeout: Duration,
    /// For programs
    #[arg(long)]
    json: bool,
    /// Where the images are
    #[command(flatten)]
    at: At,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Root {
    /// Unpacked into memory
    Ram,
    /// Compressed in memory, changes above it
    Overlay,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum FirmwareWord {
    /// SeaBIOS
    Bios,
    /// OVMF, by PXE
    Uefi,
    /// OVMF, by HTTP
    UefiHttp,
}

impl Test {
    pub(super) fn run(self) -> anyhow::Result<()> {
        let store = self.at.there()?;
        let version = store.show(&self.image)?;
        // Starts this program again, where it is not root's: nothing is done before.
        lab::ensure_namespace()?;
        if self.root == Root::Overlay && version.boot.squashed().is_none() {
            let mut line = Line::new();
            squash(&store, &version.to_string(), &mut |step| line.show(&step))?;
            line.clear();
        }
        let word = |value: &str| value.to_string();
        let root = self.root.to_possible_value().map_or_else(String::new, |v| word(v.get_name()));
        let firmware = self.firmware.to_possible_value();
        let firmware = firmware.map_or_else(String::new, |value| word(value.get_name()));
        let how = format!("{firmware}, {root}, {} MiB", self.memory);
        let loud = !self.json || std::io::stderr().is_terminal();
        if loud {
            eprintln!("boots {version} in the virtual rack ({how})");
        }
        let claim = Claim {
            state: self.at.state.clone(),
            image: version.to_string(),
            root,
            memory_mib: self.memory,
            firmware: match self.firmware {
                FirmwareWord::Bios => Firmware::Bios,
                FirmwareWord::Uefi => Firmware::Uefi,
                FirmwareWord::UefiHttp => Firmware::UefiHttp,
            },
            accel: self.accel.into(),
            within: self.timeout,
            expect: self.expect,
            script: self.run.map(std::path::absolute).transpose()?,
            may_fail: self.may_fail,
            args: self.args,
            disks: self.disks,
        };
        let proof = prove(claim, move |step| {
            if loud {
                eprintln!("{step}");
            }
        })?;
        if proof.well {
            remember(&store, &version.name, version.version, &how)?;
        }
        print(&if self.json { pretty(&proof)? } else { show(&proof) })?;
        if !proof.well {
            bail!("{} did not pass", proof.image);
        }
        Ok(())
    }
}

fn remember(store: &Store, name: &str, version: u32, how: &str) -> anyhow::Result<()> {
    Ok(store.tested(name, version, how, &by(Some(format!("came up: {how}"))))?)
}

fn show(proof: &Proof) -> String {
    let image = &proof.image;
    let units = proof.failed.join(", ");
    match &proof.why {
        None => {
            let failed =
                if units.is_empty() { units } else { format!("; failed, as it may: {units}") };
            let by = proof.by.as_deref().unwrap_or_default();
            let seconds = proof.up.unwrap_or_default();
            format!("{image} is up after {seconds:.0} s ({by}){failed}\n")
        }
        Some(why) => {
            let console = proof.console.join("\n");
            format!("--- the end of its console ---\n{console}\n---\n{image}: {why}\n")
        }
    }
}

/// `vip=10.77.0.100/24`
fn named(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once('=').ok_or("NAME=VALUE, as in a seat's args")?;
    Ok((name.to_string(), value.to_string()))
}

/// `1g`, `1g:db`, `1g:db:/var/lib/mysql`
fn disk(text: &str) -> Result<DataDisk, String> {
    let mut parts = text.splitn(3, ':');
    let size = parts.next().unwrap_or_default();
    let mib = mebibytes(size).filter(|mib| (1..=1 << 20).contains(mib));
    let mib = mib.ok_or("a size like 1g or 256m, of at most 1t as 1024g")?;
    let label = parts.next().map(str::to_string);
    if let Some(why) = label.as_ref().and_then(|label| FileSystem::Ext4.no_label(label)) {
        return Err(why);
    }
    Ok(DataDisk { mib, label, at: parts.next().map(str::to_string) })
}

/// `1g`, `1536m` or a number of MiB.
fn memory(text: &str) -> Result<u32, String> {
    let bad = || "a size like 1g or 1536m, from 128m to 64g".to_string();
    mebibytes(text).filter(|mib| (128..=65_536).contains(mib)).ok_or_else(bad)
}

fn mebibytes(text: &str) -> Option<u32> {
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let number: u32 = number.parse().ok()?;
    match unit.to_ascii_lowercase().as_str() {
        "g" | "gib" => number.checked_mul(1024),
        "" | "m" | "mib" => Some(number),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_of_memory() {
        for (text, mib) in [("1g", 1024), ("1536m", 1536), ("512", 512), ("2GiB", 2048)] {
            assert_eq!(memory(text), Ok(mib), "{text}");
        }
        for bad in ["", "g", "64m", "1t", "-1g", "99999999999g", "4294967295g"] {
            assert!(memory(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn what_a_seat_would_say() {
        let db =
            DataDisk { mib: 1024, label: Some("db".into()), at: Some("/var/lib/mysql".into()) };
        assert_eq!(disk("1g:db:/var/lib/mysql"), Ok(db));
        assert_eq!(disk("64m"), Ok(DataDisk { mib: 64, label: None, at: None }));
        for bad in ["", "db", "0", "1g:", "1g:a b", "1g:-x:/data", "2000000"] {
            assert!(disk(bad).is_err(), "{bad}");
        }
        assert_eq!(named("real=a,b=c"), Ok(("real".into(), "a,b=c".into())));
        assert!(named("vip").is_err());
    }
}
