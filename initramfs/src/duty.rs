//! What a machine is to do once, by an operator's order, instead of its seat's duty; and what it says of
//! that. The work is done by `koboshi-init`'s agent, in the image of the order.
//!
//! What comes back is evidence: a machine that lies about its disks cannot be told from one that does
//! not. Whoever signs it says so.

use std::net::Ipv4Addr;

use serde::{Deserialize, Serialize};

/// Disks in one report of progress: what is over that goes untold, and only there.
pub const WORKS_MAX: usize = 64;

/// The order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "duty", rename_all = "kebab-case")]
pub enum Duty {
    /// To wipe disks.
    Wipe(Wipe),
    /// To make file systems on disks.
    Prepare(Prepare),
    /// To tell what the machine is made of, and to give its BMC a place in the network.
    Setup(Setup),
}

/// What of a machine is set up. Nothing, if it is only looked at.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Setup {
    /// Where its BMC shall be.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bmc: Option<BmcPlace>,
}

/// A BMC's place in the network. Holds no account and no password: those do not pass through the machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct BmcPlace {
    /// Its own address; one that DHCP lends if none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<Ipv4Addr>,
    /// Network bits of that, 1 to 32.
    #[serde(default)]
    pub prefix: u8,
    /// Its gateway; stays as it is if none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gateway: Option<Ipv4Addr>,
    /// Its VLAN, 1 to 4094, or 0 for none; stays as it is if nothing is said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vlan: Option<u16>,
}

/// Which disks, and how.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Wipe {
    /// The serial number of the machine that is meant: not a byte is written on another one.
    pub serial: String,
    /// Serial numbers of the disks that are meant; if none, all that are fixed in the machine.
    pub disks: Vec<String>,
    /// What is done to each, in order.
    pub steps: Vec<Step>,
    /// How much is read back at the end.
    pub verify: Verify,
}

/// One step of a wipe.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Step {
    /// The disk forgets by itself, and reads as zeros. One that cannot is overwritten with zeros.
    Discard,
    /// Every byte becomes 0.
    Zeros,
    /// Every byte becomes pseudo-random, of a seed drawn for this disk and pass.
    Random,
}

impl Step {
    /// `zeros`
    pub fn as_str(self) -> &'static str {
        match self {
            Step::Discard => "discard",
            Step::Zeros => "zeros",
            Step::Random => "random",
        }
    }
}

/// How much of a disk is read back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verify {
    /// Every byte.
    All,
    /// Its beginning, its end, and about a thousand places between.
    Samples,
    /// Nothing.
    None,
}

impl Verify {
    /// `all`
    pub fn as_str(self) -> &'static str {
        match self {
            Verify::All => "all",
            Verify::Samples => "samples",
            Verify::None => "none",
        }
    }
}

/// How far one piece of the work is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Work {
    /// `vda VD-07`
    pub what: String,
    /// `zeros`, `reading back`
    pub step: String,
    /// Bytes dealt with, in all steps; where nobody counts bytes, steps.
    pub done: u64,
    /// Of how many.
    pub of: u64,
}

/// One disk that was to be wiped.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Wiped {
    /// `vda`, at that boot.
    pub name: String,
    /// Model.
    pub model: String,
    /// Serial number.
    pub serial: String,
    /// How it is attached.
    pub bus: String,
    /// Bytes, as the kernel sees them.
    pub bytes: u64,
    /// What was done to it, in words and in order.
    pub steps: Vec<String>,
    /// Blocks that could not be written.
    pub bad: u64,
    /// Blocks that could not be read back.
    pub unread: u64,
    /// Blocks that read back as something else than what was written.
    pub differing: u64,
    /// Bytes that were read back and are as they should be.
    pub verified: u64,
    /// Bytes of a block.
    pub block: u32,
    /// Seconds since 1970, by the machine's clock.
    pub began: u64,
    /// The same.
    pub ended: u64,
    /// Nothing of what was on it is left, as far as it was read back.
    pub wiped: bool,
    /// Why not, or why it was left alone; more of it where there is more to say.
    pub note: String,
}

/// What a disk may hold, in the words by which an operator says that it may be lost. `data` is something
/// that none of the others is.
pub const HELD: [&str; 15] = [
    "gpt",
    "mbr",
    "ext4",
    "xfs",
    "btrfs",
    "raid",
    "lvm",
    "luks",
    "swap",
    "bitlocker",
    "ntfs",
    "iso9660",
    "fat",
    "journal",
    "data",
];

/// Which disks get a file system.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Prepare {
    /// The serial number of the machine that is meant: not a byte is written on another one.
    pub serial: String,
    /// Which, and what they are called from then on.
    pub disks: Vec<Blank>,
    /// What is made on each.
    pub fs: FileSystem,
    /// In a GPT partition over the whole of it.
    pub partition: bool,
    /// What is on them that may be lost, by [`HELD`]: a disk with anything else on it is left alone, and
    /// so are all others.
    pub force: Vec<String>,
}

/// One disk that is to get a file system.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Blank {
    /// The disk's serial number.
    pub serial: String,
    /// The file system's label.
    pub label: String,
}

/// A file system that we make.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum FileSystem {
    /// ext4.
    #[default]
    Ext4,
    /// XFS.
    Xfs,
}

impl FileSystem {
    /// `ext4`
    pub fn as_str(self) -> &'static str {
        match self {
            FileSystem::Ext4 => "ext4",
            FileSystem::Xfs => "xfs",
        }
    }

    /// Bytes of a label that its superblock has room for.
    pub fn label_max(self) -> usize {
        match self {
            FileSystem::Ext4 => 16,
            FileSystem::Xfs => 12,
        }
    }

    /// Why this is no label for it, if it is none. What `LABEL=` finds has to be typed into site files and
    /// read in tables.
    pub fn no_label(self, label: &str) -> Option<String> {
        let fits = |c: char| c.is_ascii_alphanumeric() || "._+-".contains(c);
        let begins = label.starts_with(|c: char| c.is_ascii_alphanumeric());
        if !begins || !label.chars().all(fits) {
            return Some(format!(
                "{label:?} is no label: letters, digits, and . _ + - after the first"
            ));
        }
        let (most, name) = (self.label_max(), self.as_str());
        (label.len() > most)
            .then(|| format!("{label:?} is too long: a label of {name} has {most} characters"))
    }
}

/// One disk that was to get a file system.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Prepared {
    /// `vda`, at that boot.
    pub name: String,
    /// Model.
    pub model: String,
    /// Serial number.
    pub serial: String,
    /// How it is attached.
    pub bus: String,
    /// Bytes, as the kernel sees them.
    pub bytes: u64,
    /// What was done: `prepared`.
    pub method: String,
    /// What was on it, and is lost.
    pub held: Vec<String>,
    /// What was done to it, in words and in order.
    pub steps: Vec<String>,
    /// Where the file system lies: `vda1`, or the disk.
    pub device: String,
    /// What it is, as it was read back.
    pub fs: String,
    /// Its label, as it was read back.
    pub label: String,
    /// Its UUID, as it was read back.
    pub uuid: String,
    /// Seconds since 1970, by the machine's clock.
    pub began: u64,
    /// The same.
    pub ended: u64,
    /// The file system that was asked for is on it.
    pub prepared: bool,
    /// Why not; more of it where there is more to say.
    pub note: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_label_is_one_that_can_be_asked_for() {
        for label in ["db", "a", "db-1.old_x+y", "0123456789ab"] {
            assert_eq!(FileSystem::Ext4.no_label(label), None, "{label}");
            assert_eq!(FileSystem::Xfs.no_label(label), None, "{label}");
        }
        for label in ["", "-q", ".x", "a b", "a/b", "é", "a\n", "a\"b", "0123456789abcdefg"] {
            assert!(FileSystem::Ext4.no_label(label).is_some(), "{label}");
        }
        let long = "0123456789abc";
        assert_eq!(FileSystem::Ext4.no_label(long), None);
        assert!(FileSystem::Xfs.no_label(long).unwrap().contains("has 12 characters"));
    }
}
