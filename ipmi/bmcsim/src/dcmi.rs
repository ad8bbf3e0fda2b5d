//! DCMI: what it is, and the power that the machine takes.
//!
//! DCMI 1.5 §6.1.1 (capabilities), §6.6.1 (power reading).

use koboshi_ipmi::commands::dcmi::{DCMI, Power};
use koboshi_ipmi::{Completion, Response};

use crate::bmc::Bmc;
use crate::dispatch::{Asked, ok, refuse};
use crate::sel;

/// DCMI.
#[derive(Debug, Clone)]
pub struct Dcmi {
    /// Watts that the machine takes while it is on.
    pub watts: u16,
    /// Whether there is DCMI at all.
    pub present: bool,
}

impl Default for Dcmi {
    fn default() -> Dcmi {
        Dcmi { watts: 212, present: true }
    }
}

/// Answers for it.
pub fn answer(bmc: &mut Bmc, asked: &Asked<'_>) -> Option<Response> {
    let [DCMI, rest @ ..] = asked.data else { return None };
    if !bmc.dcmi.present {
        return None;
    }
    match (asked.command, rest) {
        // Version 1.5, revision 2 of a parameter's data.
        (0x01, [parameter, ..]) => {
            let data: &[u8] = match parameter {
                // Power management; in band, serial and LAN.
                1 => &[0x00, 0x01, 0x07],
                // A log without overwriting, no identification, asset tag nor temperatures.
                2 => &[0x00, 0x04, 0x00, 0x00, 0x00],
                // The power controller's address and channel.
                3 => &[0x20, 0x00],
                // The LAN channel first, none second, no serial one.
                4 => &[0x01, 0xff, 0xff],
                _ => return refuse(Completion::INVALID_FIELD),
            };
            ok([&[DCMI, 1, 5, 2][..], data].concat())
        }
        (0x02, [1, ..]) => {
            let watts = bmc.dcmi.watts;
            // Off, a machine takes what its BMC takes.
            let current = if bmc.chassis.on { watts } else { 9 };
            let power = Power {
                current,
                minimum: current.min(180),
                maximum: watts.saturating_add(88),
                average: current,
                time: sel::time(bmc),
                period: 1000,
                active: true,
            };
            ok(power.encode())
        }
        (0x02, _) => refuse(Completion::INVALID_FIELD),
        _ => None,
    }
}
