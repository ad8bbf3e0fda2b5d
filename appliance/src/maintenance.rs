//! What can be ordered for one boot of a machine, beside its seat: each duty with its image. The order stands as a
//! ticket in `ledger`, the desk gives it to the machine, and its image does the work.

use koboshi_initramfs::contract::Duty;
use koboshi_initramfs::contract::duty::{Step, Verify, Wipe};
use serde::{Deserialize, Serialize};

use crate::api::Refusal;
use crate::memtest;

/// Images that are for orders, whether the site has roles for them or not.
pub const IMAGES: [&str; 3] = ["wipe", "rescue", "setup"];
/// Passes over a disk: more is superstition, and days.
const STEPS_MAX: usize = 16;

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
    /// A shell, in the image `rescue`.
    Rescue,
    /// Memtest86+, until somebody ends it.
    Memtest,
}

impl Asked {
    /// `wipe`
    pub fn duty(&self) -> &'static str {
        match self {
            Asked::Wipe { .. } => "wipe",
            Asked::Rescue => "rescue",
            Asked::Memtest => memtest::DUTY,
        }
    }

    /// The image that does it.
    pub fn image(&self) -> &'static str {
        match self {
            Asked::Wipe { .. } => "wipe",
            Asked::Rescue => "rescue",
            Asked::Memtest => memtest::DUTY,
        }
    }

    /// Whether something is lost by it for good.
    pub fn harms(&self) -> bool {
        matches!(self, Asked::Wipe { .. })
    }

    /// What the machine is told; nothing where its image is all.
    pub fn order(self) -> Result<Option<Duty>, Refusal> {
        match self {
            Asked::Rescue | Asked::Memtest => Ok(None),
            Asked::Wipe { serial, disks, steps, verify } => {
                let odd = |text: &String| text.trim().is_empty() || text.len() > 100;
                if odd(&serial) || disks.iter().any(odd) {
                    let error = "a serial number is 1 to 100 characters";
                    return Err(Refusal::not_found(error, None));
                }
                if steps.is_empty() || steps.len() > STEPS_MAX {
                    let error = format!("1 to {STEPS_MAX} passes, not {}", steps.len());
                    return Err(Refusal::not_found(error, None));
                }
                Ok(Some(Duty::Wipe(Wipe { serial, disks, steps, verify })))
            }
        }
    }
}
