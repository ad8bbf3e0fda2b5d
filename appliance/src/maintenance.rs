//! What can be ordered for one boot of a machine, beside its seat: each duty with its image. The order stands as a
//! ticket in `ledger`, the desk gives it to the machine, and its image does the work. What of a set-up the appliance
//! does itself afterwards ([`After`]) stands in the same ticket: it is done by `ops::setup`.

use std::net::Ipv4Addr;
use std::path::PathBuf;

use koboshi_initramfs::contract::Duty;
use koboshi_initramfs::contract::duty::{Blank, FileSystem, HELD, Prepare, Step, Verify, Wipe};
use serde::{Deserialize, Serialize};

use crate::api::Refusal;
use crate::memtest;

/// Images that are for orders, whether the site has roles for them or not.
pub const IMAGES: [&str; 3] = ["wipe", "rescue", "setup"];
/// Passes over a disk: more is superstition, and days.
const STEPS_MAX: usize = 16;
/// Disks in one order to prepare some: a receipt and an order travel in one report each.
const BLANKS_MAX: usize = 64;

/// What is ordered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Asked {
    /// Wipe disks.
    Wipe {
        /// The machine's serial number.
        serial: String,
        /// Serial numbers of disks; all that are fixed in it if none.
        disks: Vec<String>,
        /// What is done to each.
        steps: Vec<Step>,
        /// How much is read back.
        verify: Verify,
    },
    /// Make file systems on disks.
    PrepareDisks {
        /// The machine's serial number.
        serial: String,
        /// Which disks, and what they are called from then on.
        disks: Vec<Blank>,
        /// What is made on each.
        fs: FileSystem,
        /// In a partition over the whole of it.
        partition: bool,
        /// What is on them that may be lost.
        force: Vec<String>,
    },
    /// Look at the machine, and set up its BMC.
    Setup(SetUp),
    /// A shell, in the image `rescue`.
    Rescue,
    /// Memtest86+, until somebody ends it.
    Memtest,
}

/// What of a machine is to be set up; nothing, if it is only looked at.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct SetUp {
    /// Its BMC's address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<Address>,
    /// That one's gateway.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gateway: Option<Ipv4Addr>,
    /// Its VLAN, 0 for none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vlan: Option<u16>,
    /// The site's account is to be on its BMC.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub account: Option<Account>,
}

/// A BMC's address, as it is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Address {
    /// What the site file says.
    Site,
    /// Whatever DHCP lends.
    Dhcp,
    /// This one.
    At {
        /// Address.
        address: Ipv4Addr,
        /// Network bits; those of the site's subnet of BMCs if none.
        prefix: Option<u8>,
    },
}

/// What the appliance does itself once the machine has done its part.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct After {
    /// The site file is to say that the machine's BMC is there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<Ipv4Addr>,
    /// The site's account is to be on it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub account: Option<Account>,
}

/// How the site's account comes onto a BMC. Names where a password is kept, and never a password.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Account {
    /// By whom it is made, if it is not there yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub factory: Option<Factory>,
    /// That one is disabled once the site's is proved to work.
    #[serde(default)]
    pub disable: bool,
}

/// An account that a BMC leaves its factory with.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Factory {
    /// Its name.
    pub user: String,
    /// The file with its password, an absolute path on the appliance. It is read when it is needed.
    pub password_file: PathBuf,
}

impl Asked {
    /// `wipe`
    pub fn duty(&self) -> &'static str {
        match self {
            Asked::Wipe { .. } => "wipe",
            Asked::PrepareDisks { .. } => "prepare-disks",
            Asked::Setup(_) => "setup",
            Asked::Rescue => "rescue",
            Asked::Memtest => memtest::DUTY,
        }
    }

    /// The image that does it.
    pub fn image(&self) -> &'static str {
        match self {
            Asked::Wipe { .. } => "wipe",
            Asked::PrepareDisks { .. } => "setup",
            Asked::Setup(_) => "setup",
            Asked::Rescue => "rescue",
            Asked::Memtest => memtest::DUTY,
        }
    }

    /// Whether a BMC is changed by it.
    pub fn changes_bmc(&self) -> bool {
        matches!(self, Asked::Setup(setup) if *setup != SetUp::default())
    }

    /// Whether something is lost by it for good.
    pub fn harms(&self) -> bool {
        matches!(self, Asked::Wipe { .. } | Asked::PrepareDisks { .. })
    }

    /// The serial number of the machine that is meant, where that has to be said.
    pub fn serial(&self) -> Option<&str> {
        match self {
            Asked::Wipe { serial, .. } | Asked::PrepareDisks { serial, .. } => Some(serial),
            Asked::Setup(_) | Asked::Rescue | Asked::Memtest => None,
        }
    }

    /// The same for the machine with that serial number.
    pub fn for_serial(mut self, typed: String) -> Asked {
        if let Asked::Wipe { serial, .. } | Asked::PrepareDisks { serial, .. } = &mut self {
            *serial = typed;
        }
        self
    }

    /// Serial numbers of disks that are named.
    pub fn disks(&self) -> Vec<&str> {
        match self {
            Asked::Wipe { disks, .. } => disks.iter().map(String::as_str).collect(),
            Asked::PrepareDisks { disks, .. } => {
                disks.iter().map(|blank| blank.serial.as_str()).collect()
            }
            Asked::Setup(_) | Asked::Rescue | Asked::Memtest => Vec::new(),
        }
    }

    /// What the machine is told; nothing where its image is all. What it takes of a set-up is for `ops::setup` to say,
    /// which knows the site.
    pub fn order(self) -> Result<Option<Duty>, Refusal> {
        let odd = |text: &str| text.trim().is_empty() || text.len() > 100;
        if self.serial().is_some_and(odd) || self.disks().into_iter().any(odd) {
            let error = "a serial number is 1 to 100 characters";
            return Err(Refusal::not_found(error, None));
        }
        match self {
            Asked::Rescue | Asked::Memtest | Asked::Setup(_) => Ok(None),
            Asked::PrepareDisks { serial, disks, fs, partition, force } => {
                match unfit(&disks, fs, &force) {
                    Some(why) => Err(Refusal::not_found(why, None)),
                    None => {
                        let order = Prepare { serial, disks, fs, partition, force };
                        Ok(Some(Duty::Prepare(order)))
                    }
                }
            }
            Asked::Wipe { serial, disks, steps, verify } => {
                if steps.is_empty() || steps.len() > STEPS_MAX {
                    let error = format!("1 to {STEPS_MAX} passes, not {}", steps.len());
                    return Err(Refusal::not_found(error, None));
                }
                Ok(Some(Duty::Wipe(Wipe { serial, disks, steps, verify })))
            }
        }
    }
}

/// Why disks cannot be prepared so, whatever is on them.
fn unfit(disks: &[Blank], fs: FileSystem, force: &[String]) -> Option<String> {
    if disks.is_empty() || disks.len() > BLANKS_MAX {
        return Some(format!("1 to {BLANKS_MAX} disks, not {}", disks.len()));
    }
    if let Some(why) = disks.iter().find_map(|blank| fs.no_label(&blank.label)) {
        return Some(why);
    }
    for (at, blank) in disks.iter().enumerate() {
        let others = disks.iter().take(at);
        for other in others {
            if other.serial.trim().eq_ignore_ascii_case(blank.serial.trim()) {
                return Some(format!("the disk {} is named twice", blank.serial));
            }
            if other.label == blank.label {
                let label = &blank.label;
                return Some(format!(
                    "two disks with the label {label}: LABEL={label} would find both"
                ));
            }
        }
    }
    let unknown = force.iter().find(|word| !HELD.contains(&word.as_str()))?;
    Some(format!("nothing on a disk is called {unknown:?}; there are: {}", HELD.join(", ")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(disks: &[(&str, &str)], force: &[&str]) -> Result<Option<Duty>, String> {
        let blank = |(serial, label): &(&str, &str)| Blank {
            serial: (*serial).to_string(),
            label: (*label).to_string(),
        };
        let asked = Asked::PrepareDisks {
            serial: "CZ123".to_string(),
            disks: disks.iter().map(blank).collect(),
            fs: FileSystem::Xfs,
            partition: false,
            force: force.iter().map(|word| (*word).to_string()).collect(),
        };
        asked.order().map_err(|refusal| refusal.error)
    }

    #[test]
    fn disks_are_prepared_with_names_of_their_own() {
        let order = asked(&[("S1", "db"), ("S2", "log")], &["gpt", "data"]).unwrap();
        let Some(Duty::Prepare(order)) = order else { panic!("{order:?}") };
        assert_eq!((order.disks.len(), order.fs), (2, FileSystem::Xfs));
        for (disks, force, says) in [
            (&[][..], &[][..], "1 to 64 disks"),
            (&[("S1", "a b")], &[], "is no label"),
            (&[("S1", "0123456789abc")], &[], "has 12 characters"),
            (&[("S1", "db"), ("s1 ", "log")], &[], "named twice"),
            (&[("S1", "db"), ("S2", "db")], &[], "LABEL=db would find both"),
            (&[(" ", "db")], &[], "a serial number"),
            (&[("S1", "db")], &["all"], "nothing on a disk is called \"all\""),
        ] {
            let why = asked(disks, force).unwrap_err();
            assert!(why.contains(says), "{why}");
        }
    }
}
