//! A machine's `nics` as written: what its hardware is called, and what is bonded.
//!
//! ```text
//! nics = { boot = "eno1",                                      # the name of whichever NIC boots
//!          store = "52:54:00:77:01:03",                        # another, by its MAC or its name
//!          bond0 = ["eno1", "eno2"],                           # active-backup
//!          bond1 = { of = ["ens1f0", "ens1f1"], mode = "802.3ad" } }
//! ```

use std::collections::BTreeMap;

use koboshi_initramfs::contract::{BOOT_LINK, BondMode};
use koboshi_pxe::Mac;
use serde::Serialize;

use super::net::interface;
use super::walk::{Value, Walk};
use crate::site::names::Malformed;
use crate::site::origin::At;
use crate::site::problem::Problem;
use crate::site::values::shown;

/// NICs beside the one that boots, and what is made of them all.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Nics {
    /// What the NIC that boots is called.
    pub boot: Option<At<String>>,
    /// Others by name: a MAC address, or what hardware of that place is called.
    pub cards: BTreeMap<String, At<String>>,
    /// Bonds by name.
    pub bonds: BTreeMap<String, At<Bond>>,
}

/// Several NICs as one.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Bond {
    /// Its members: names of this table, MAC addresses, or names as the booted system has them.
    pub of: Vec<At<String>>,
    /// How they share the work.
    pub mode: BondMode,
}

impl Nics {
    /// The bond an interface is in.
    pub fn bond_of(&self, member: &str) -> Option<&str> {
        let holds = |bond: &Bond| bond.of.iter().any(|one| one.value == member);
        self.bonds.iter().find(|(_, bond)| holds(bond)).map(|(name, _)| name.as_str())
    }
}

pub(super) fn nics(walk: &mut Walk, value: &Value) -> Option<Nics> {
    let mut nics = Nics::default();
    for (key, value) in walk.table("nics", value)? {
        let name = At::new(key.get_ref().to_string(), walk.at(key.span()));
        let Some(name) = walk.meaning("interface", name, interface) else { continue };
        let word = value.get_ref();
        if name.value == BOOT_LINK {
            let names = walk.one_or_many("boot", value, |walk, what, value| {
                let text = walk.text(what, value)?;
                walk.meaning("interface", text, interface)
            });
            if names.len() > 1 {
                let message = "a machine boots by one NIC, and `boot` is its name";
                let problem = Problem::error("nics", &name.origin, message);
                let help = "bond0 = [\"eno1\", \"eno2\"] beside it makes a bond of both";
                walk.error(problem.label("one name").help(help));
            }
            nics.boot = names.into_iter().next();
        } else if word.is_str() {
            if let Some(card) = hardware(walk, "a NIC", value) {
                nics.cards.insert(name.value, card);
            }
        } else if let Some(bond) = bond(walk, &name, value) {
            nics.bonds.insert(name.value, At::new(bond, name.origin));
        }
    }
    once(walk, &nics);
    Some(nics)
}

fn bond(walk: &mut Walk, name: &At<String>, value: &Value) -> Option<Bond> {
    let mut bond = Bond { of: Vec::new(), mode: BondMode::default() };
    if value.get_ref().is_array() {
        bond.of = walk.list(name, value, hardware);
    } else {
        for (key, value) in walk.table(name, value)? {
            match key.get_ref().as_ref() {
                "of" => bond.of = walk.list("of", value, hardware),
                "mode" => {
                    let modes = [BondMode::ActiveBackup, BondMode::Lacp];
                    let words = modes.map(|mode| (mode.to_string(), mode));
                    let words = words.each_ref().map(|(word, mode)| (word.as_str(), *mode));
                    bond.mode = walk.word("mode", value, &words)?.value;
                }
                _ => walk.unknown("a bond", key, &["of", "mode"]),
            }
        }
    }
    if bond.of.is_empty() {
        let problem = Problem::error("nics", &name.origin, format!("bond {name} has no members"));
        let help = format!("{name} = [\"eno1\", \"eno2\"]");
        walk.error(problem.label("of which NICs?").help(help));
        return None;
    }
    Some(bond)
}

/// A MAC address, or a name.
fn hardware(walk: &mut Walk, what: &str, value: &Value) -> Option<At<String>> {
    let text = walk.text(what, value)?;
    walk.meaning("NIC", text, |text| match text.parse::<Mac>() {
        Ok(mac) => Ok(mac.to_string()),
        Err(_) if text.contains(':') => {
            Err(Malformed::new(format!("{} is neither a MAC address nor a name", shown(text)))
                .help("like 52:54:00:77:01:02, or eno2 as the booted system calls it"))
        }
        Err(_) => interface(text),
    })
}

/// Nobody is in two bonds, and no bond in a bond.
fn once(walk: &mut Walk, nics: &Nics) {
    let mut seen: BTreeMap<&str, (&str, &At<String>)> = BTreeMap::new();
    for (name, bond) in &nics.bonds {
        for member in &bond.of {
            // A member may be written by the name this table gives it.
            let hardware = nics.cards.get(&member.value).unwrap_or(member);
            if nics.bonds.contains_key(&member.value) || member.value == BOOT_LINK {
                let message = format!("bond {name} is made of NICs, and {member} is none");
                walk.error(Problem::error("nics", &member.origin, message).label("no NIC"));
            } else if let Some((other, there)) = seen.get(hardware.value.as_str()) {
                let message = format!("{member} is in bond {other} and in bond {name}");
                walk.error(
                    Problem::error("nics", &member.origin, message)
                        .label("a second time")
                        .also(&there.origin, "in a bond already"),
                );
            } else {
                seen.insert(&hardware.value, (name, member));
            }
        }
    }
}
