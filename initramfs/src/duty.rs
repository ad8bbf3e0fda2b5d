//! What a machine is to do once, by an operator's order, instead of its seat's duty; and what it says of
//! that. The work is done by `koboshi-init`'s agent, in the image of the order.
//!
//! What comes back is evidence: a machine that lies about its disks cannot be told from one that does
//! not. Whoever signs it says so.

use serde::{Deserialize, Serialize};

/// Disks in one report of progress: what is over that goes untold, and only there.
pub const WORKS_MAX: usize = 64;

/// The order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "duty", rename_all = "kebab-case")]
pub enum Duty {
    /// To wipe disks.
    Wipe(Wipe),
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
    /// Bytes dealt with, in all steps.
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
