//! What is said to a BMC from outside, line by line, while it runs: faults set, buttons pressed.

use std::time::Instant;

use crate::bmc::Bmc;
use crate::chassis::{self, Act, Cause};
use crate::faults::{Faults, NAMES};
use crate::session;

/// What can be said, and what it does.
pub const LINES: &[(&str, &str)] = &[
    ("fault NAME[=VALUE]", "sets a fault"),
    ("well", "no fault any more"),
    ("power on|off|reset", "presses the button"),
    ("forget", "ends all sessions, as a reset of the BMC does"),
];

/// Does what a line says; what came of it, for whoever said it.
pub fn obey(bmc: &mut Bmc, line: &str, now: Instant) -> Result<(), String> {
    let (verb, rest) = line.trim().split_once(' ').unwrap_or((line.trim(), ""));
    match (verb, rest.trim()) {
        ("fault", fault) => bmc.faults.set(fault).map_err(|error| error.to_string()),
        ("well", "") => {
            bmc.faults = Faults::default();
            Ok(())
        }
        ("forget", "") => {
            session::end_all(bmc);
            Ok(())
        }
        ("power", button) => {
            let act = match button {
                "on" => Act::On,
                "off" => Act::Off,
                "reset" => Act::Reset,
                _ => return Err(format!("power takes on, off or reset, not {button:?}")),
            };
            let completion = chassis::act(bmc, act, Cause::Unknown, now);
            if completion.0 == 0 { Ok(()) } else { Err(completion.to_string()) }
        }
        _ => Err(format!("{line:?} is nothing that can be said: {}", known())),
    }
}

fn known() -> String {
    LINES.iter().map(|(line, _)| *line).collect::<Vec<_>>().join(", ")
}

/// Faults as help lists them, a line each.
pub fn faults_help() -> String {
    let lines = NAMES.iter().map(|(name, does)| format!("  {name:22} {does}\n"));
    lines.collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Config;

    #[test]
    fn lines() {
        let now = Instant::now();
        let mut bmc = Bmc::new(Config::default(), now);
        obey(&mut bmc, "fault busy=3\n", now).unwrap();
        assert_eq!(bmc.faults.busy, 3);
        obey(&mut bmc, "well", now).unwrap();
        assert_eq!(bmc.faults, Faults::default());
        obey(&mut bmc, "power on", now).unwrap();
        assert!(bmc.chassis.on);
        for wrong in ["", "fault", "fault x", "power", "power up", "dance"] {
            assert!(obey(&mut bmc, wrong, now).is_err(), "{wrong}");
        }
    }
}
