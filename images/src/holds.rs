//! What the appliance needs of the store, in `holds.json` beside the index. The appliance writes it when
//! that changes and before it relies on it; who removes versions reads it under the store's lock. So
//! nobody has to ask an appliance that may not run: what a dead one held counts until it is back.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, Read};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::oci;
use crate::store::Store;
use crate::{Digest, Error};

const FILE: &str = "holds.json";
/// 100,000 machines take 20 MB.
const SIZE_MAX: u64 = 256 << 20;

/// What is needed.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Holds {
    /// When it was written; none: never.
    #[serde(default)]
    pub written: Option<Timestamp>,
    /// Images of roles, as the appliance serves them.
    #[serde(default)]
    pub roles: BTreeSet<RoleHold>,
    /// Machines, with what they boot or run.
    #[serde(default)]
    pub machines: BTreeSet<MachineHold>,
    /// Blobs that boots under way were promised.
    #[serde(default)]
    pub blobs: BTreeSet<Digest>,
}

/// A role.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct RoleHold {
    /// Its name.
    pub role: String,
    /// `web@3`
    pub image: String,
}

/// A machine.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct MachineHold {
    /// Its name, or its MAC.
    pub machine: String,
    /// `web@3`
    pub image: String,
    /// It runs it: else it is on its way there.
    pub runs: bool,
}

impl Holds {
    /// Why a version is needed, in words; empty if it is not.
    pub fn of(&self, image: &str) -> Vec<String> {
        let mut why = Vec::new();
        let roles = self.roles.iter().filter(|held| held.image == image);
        why.extend(roles.map(|held| format!("role {} boots it", held.role)));
        for (runs, words) in [(true, "run it"), (false, "are on their way to it")] {
            let machines = self.machines_of(image).filter(|held| held.runs == runs);
            let names: Vec<&str> = machines.map(|held| held.machine.as_str()).collect();
            match &names[..] {
                [] => {}
                [one] if runs => why.push(format!("{one} runs it")),
                [one] => why.push(format!("{one} is on its way to it")),
                [some @ .., _] if some.len() < 4 => {
                    why.push(format!("{} {words}", names.join(", ")));
                }
                [a, b, c, ..] => {
                    why.push(format!("{a}, {b}, {c} and {} more {words}", names.len() - 3));
                }
                _ => why.push(format!("{} {words}", names.join(", "))),
            }
        }
        why
    }

    /// Machines that boot or run a version.
    pub fn machines_of(&self, image: &str) -> impl Iterator<Item = &MachineHold> {
        self.machines.iter().filter(move |held| held.image == image)
    }
}

impl Store {
    /// What the appliance needs, as it said last.
    pub fn holds(&self) -> Result<Holds, Error> {
        let path = self.dir().join(FILE);
        let mut bytes = Vec::new();
        match File::open(&path).and_then(|file| file.take(SIZE_MAX).read_to_end(&mut bytes)) {
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Holds::default()),
            Err(error) => return Err(Error::io("reading", &path)(error)),
        }
        serde_json::from_slice(&bytes).map_err(|error| {
            let what = format!(
                "what the appliance needs of it does not read back ({error}); an appliance that is \
                 started writes it anew"
            );
            Error::Store { path, what }
        })
    }

    /// Writes what the appliance needs: from here on none of it is removed. What was removed before is
    /// gone, so whoever relies on it looks again afterwards.
    pub fn hold(&self, holds: &Holds) -> Result<(), Error> {
        let held = self.lock()?;
        self.replace(&held, FILE, &oci::to_bytes(holds))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reasons_are_sentences() {
        let machine = |name: &str, runs| MachineHold {
            machine: name.to_owned(),
            image: "web@3".to_owned(),
            runs,
        };
        let mut holds = Holds::default();
        assert!(holds.of("web@3").is_empty());
        holds.machines.insert(machine("m01", true));
        holds.machines.insert(machine("m02", false));
        assert_eq!(holds.of("web@3"), ["m01 runs it", "m02 is on its way to it"]);
        assert!(holds.of("web@33").is_empty() && holds.of("web@4").is_empty());
        holds.machines.extend(["m03", "m04"].map(|name| machine(name, true)));
        assert_eq!(holds.of("web@3")[0], "m01, m03, m04 run it");
        holds.machines.extend(["m05", "m06", "m07"].map(|name| machine(name, true)));
        assert_eq!(holds.of("web@3")[0], "m01, m03, m04 and 3 more run it");
        holds.roles.insert(RoleHold { role: "w".to_owned(), image: "web@3".to_owned() });
        assert_eq!(holds.of("web@3")[0], "role w boots it");
    }
}
