//! Versions on trial and versions for single machines: who gets which one before all do. All of it is
//! annotations in `index.json`, beside those that say what is published; the appliance reads them, judges
//! by what machines report, and writes its verdict here.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

/// A version that some machines get before all do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Trial {
    /// Which machines.
    pub machines: BTreeSet<String>,
    /// How long each has to stay up, in seconds.
    pub stay: u64,
    /// When it began, Unix milliseconds.
    pub begun: u64,
    /// Who began it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub by: Option<String>,
    /// What for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// What all others booted when it began.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub against: Option<u32>,
}

/// Why a version was taken back.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Withdrawn {
    /// When, Unix milliseconds.
    pub at: u64,
    /// Why, in words.
    pub why: String,
}

/// What is said of an image's versions, all in one.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Track {
    /// What machines boot, and since when (Unix milliseconds).
    pub current: Option<(u32, u64)>,
    /// What they booted before.
    pub former: Option<u32>,
    /// What is on trial.
    pub trial: Option<(u32, Trial)>,
    /// Machines that boot a version of their own.
    pub pins: BTreeMap<String, u32>,
    /// All there are.
    pub versions: BTreeSet<u32>,
}
