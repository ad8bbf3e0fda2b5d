//! What the host told the BMC about itself, and its ACPI state, which the BMC knows by the power alone.
//!
//! IPMI 2.0 §20.6–20.7 (ACPI power state), §22.14a–22.14b (system information).

use std::collections::BTreeMap;

use koboshi_ipmi::{Completion, Response};

use crate::bmc::Bmc;
use crate::dispatch::{Asked, ok, refuse};

const UNSUPPORTED: Completion = Completion(0x80);
const BUSY: Completion = Completion(0x81);

/// Strings by parameter (1 to 5) and part, and "set in progress".
#[derive(Debug, Clone, Default)]
pub struct SystemInfo {
    progress: u8,
    parts: BTreeMap<(u8, u8), Vec<u8>>,
}

/// Parts of a string: 16 bytes each, the first behind the part's number.
const PARTS: u8 = 17;

/// Answers for both.
pub fn answer(bmc: &mut Bmc, asked: &Asked<'_>) -> Option<Response> {
    let info = &mut bmc.system_info;
    match (asked.command, asked.data) {
        // S0 and D0; S5 and D3.
        (0x07, _) if bmc.chassis.on => ok([0x00, 0x00]),
        (0x07, _) => ok([0x05, 0x03]),
        (0x58, [0, 1]) if info.progress == 1 => refuse(BUSY),
        (0x58, [0, progress @ 0..=2]) => {
            info.progress = progress & 1;
            ok([])
        }
        (0x58, [parameter @ 1..=5, part @ 0..PARTS, _, ..]) => {
            info.parts.insert((*parameter, *part), asked.data[1..].to_vec());
            ok([])
        }
        (0x59, [_, 0, _, _]) => ok([0x11, info.progress]),
        (0x59, [_, parameter @ 1..=5, part, _]) => match info.parts.get(&(*parameter, *part)) {
            Some(part) => ok([&[0x11], part.as_slice()].concat()),
            // Nobody told: a string of no characters.
            None if *part == 0 => ok([0x11, 0, 0, 0]),
            None => refuse(Completion::OUT_OF_RANGE),
        },
        (0x59, [_, _, _, _]) | (0x58, [_, _, ..]) => refuse(UNSUPPORTED),
        (0x58 | 0x59, _) => refuse(Completion::LENGTH_INVALID),
        _ => None,
    }
}
