//! Which NIC the site means by a name, and what each is called from now on.
//!
//! The boot NIC is known by its MAC. Every other is written as its MAC, as the kernel named it, or
//! as udev would (see [`naming`](crate::naming)); and the name the site uses is the name it gets.

use std::collections::BTreeMap;

use crate::contract::{BOOT_LINK, Orders};
use crate::net::link::{Card, parse_mac};

/// A NIC that is there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// As the kernel has it.
    pub card: Card,
    /// As udev would call it.
    pub names: Vec<String>,
}

/// Who is who.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Roll {
    /// Interface index by what the orders call it.
    meant: BTreeMap<String, u32>,
    /// The name each NIC gets, if the site gives it one.
    pub named: BTreeMap<u32, String>,
    /// What was not found.
    pub missing: Vec<String>,
}

impl Roll {
    /// The NIC behind a word of the orders.
    pub fn index(&self, word: &str) -> Option<u32> {
        self.meant.get(word).copied()
    }
}

/// Looks everybody up.
pub fn assign(orders: &Orders, boot: u32, found: &[Found]) -> Roll {
    let mut roll = Roll::default();
    let words = words(orders);
    let boots_as = orders.nic.name.as_deref();
    // A machine with its first cable out boots by its second NIC. That one keeps the name it has
    // elsewhere in the orders; `boot = "eno1"` then speaks of the other.
    let otherwise = words
        .iter()
        .any(|(word, _)| Some(*word) != boots_as && hardware(word, found) == Some(boot));
    for (word, name) in words {
        let index = match Some(word) == boots_as && !otherwise {
            true => Some(boot),
            false => hardware(word, found),
        };
        let Some(index) = index else {
            roll.missing.push(word.to_owned());
            continue;
        };
        roll.meant.insert(word.to_owned(), index);
        roll.meant.insert(name.to_owned(), index);
        if parse_mac(name).is_none() {
            roll.named.entry(index).or_insert_with(|| name.to_owned());
        }
    }
    if let Some(name) = boots_as {
        let taken = roll.named.iter().any(|(index, taken)| taken == name && *index != boot);
        if !taken {
            roll.named.entry(boot).or_insert_with(|| name.to_owned());
        }
    }
    roll
}

/// What the orders say of hardware: the word, and the name it is to get.
fn words(orders: &Orders) -> Vec<(&str, &str)> {
    let mut words: Vec<(&str, &str)> =
        orders.cards.iter().map(|card| (card.hardware.as_str(), card.name.as_str())).collect();
    let made: Vec<&str> = (orders.cards.iter().map(|card| card.name.as_str()))
        .chain(orders.bonds.iter().map(|bond| bond.name.as_str()))
        .chain([BOOT_LINK])
        .collect();
    let members = orders.bonds.iter().flat_map(|bond| &bond.of).map(String::as_str);
    let carriers = orders.nets.iter().map(|net| net.on.as_str());
    for word in members.chain(carriers) {
        if !made.contains(&word) && !words.iter().any(|(known, _)| *known == word) {
            words.push((word, word));
        }
    }
    words
}

fn hardware(word: &str, found: &[Found]) -> Option<u32> {
    let by = |fits: &dyn Fn(&Found) -> bool| found.iter().find(|nic| fits(nic));
    let nic = match parse_mac(word) {
        Some(mac) => by(&|nic| nic.card.mac == mac),
        // udev's names first: they say where the hardware is, the kernel's only who came first.
        None => by(&|nic| nic.names.iter().any(|name| name == word))
            .or_else(|| by(&|nic| nic.card.name == word)),
    };
    Some(nic?.card.index)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::contract::{Bond, BondMode, Card as Named, Net};
    use crate::orders::tests::sample;

    fn nic(index: u32, name: &str, names: &[&str]) -> Found {
        let card = Card { index, name: name.into(), mac: [0x52, 0x54, 0, 0x77, 0, index as u8] };
        Found { card, names: names.iter().map(ToString::to_string).collect() }
    }

    fn bond(of: &[&str]) -> Bond {
        let of = of.iter().map(ToString::to_string).collect();
        Bond { name: "bond0".into(), mode: BondMode::ActiveBackup, of }
    }

    fn net(on: &str) -> Net {
        serde_json::from_value(serde_json::json!({
            "name": "svc", "on": on, "vlan": 20, "address": "10.20.0.21", "prefix": 24,
            "gateway": null, "mtu": null, "routes": []
        }))
        .unwrap()
    }

    fn names(roll: &Roll) -> Vec<(u32, &str)> {
        roll.named.iter().map(|(index, name)| (*index, name.as_str())).collect()
    }

    #[test]
    fn by_mac_by_udev_and_by_the_kernel() {
        let found = [
            nic(2, "eth0", &["eno1", "enp25s0f0"]),
            nic(3, "eth1", &["eno2", "enp25s0f1"]),
            nic(4, "eth2", &["ens3f0"]),
            nic(5, "eth3", &[]),
        ];
        let mut orders = sample();
        orders.nic.name = Some("eno1".into());
        orders.bonds = vec![bond(&["eno1", "enp25s0f1"])];
        orders.cards = vec![Named { name: "store".into(), hardware: "52:54:00:77:00:04".into() }];
        orders.nets = vec![net("boot"), net("bond0"), net("store"), net("eth3"), net("eno9")];
        let roll = assign(&orders, 2, &found);
        assert_eq!(names(&roll), [(2, "eno1"), (3, "enp25s0f1"), (4, "store"), (5, "eth3")]);
        assert_eq!(roll.missing, ["eno9"]);
        for (word, index) in [("eno1", 2), ("enp25s0f1", 3), ("store", 4), ("eth3", 5)] {
            assert_eq!(roll.index(word), Some(index), "{word}");
        }
        // One that is only written as its MAC keeps the name it has.
        orders.bonds = vec![bond(&["52:54:00:77:00:02", "52-54-00-77-00-05"])];
        orders.nic.name = None;
        (orders.cards, orders.nets) = (Vec::new(), Vec::new());
        let roll = assign(&orders, 2, &found);
        assert_eq!(names(&roll), []);
        assert_eq!(roll.index("52-54-00-77-00-05"), Some(5));
    }

    #[test]
    fn the_name_of_the_boot_nic_needs_no_hardware_of_that_name() {
        let found = [nic(2, "eth0", &["enp0s2"]), nic(3, "eth1", &["enp0s3"])];
        let mut orders = sample();
        orders.nic.name = Some("eno1".into());
        orders.bonds = vec![bond(&["eno1", "enp0s3"])];
        let roll = assign(&orders, 2, &found);
        assert_eq!(names(&roll), [(2, "eno1"), (3, "enp0s3")]);
    }

    /// The cable of the first NIC is out: firmware went by the second.
    #[test]
    fn booted_by_the_other_one() {
        let found = [nic(2, "eth0", &["eno1"]), nic(3, "eth1", &["eno2"])];
        let mut orders = sample();
        orders.nic.name = Some("eno1".into());
        orders.bonds = vec![bond(&["eno1", "eno2"])];
        let roll = assign(&orders, 3, &found);
        assert_eq!(names(&roll), [(2, "eno1"), (3, "eno2")]);
        assert!(roll.missing.is_empty());
        // The first is dead altogether.
        let roll = assign(&orders, 3, &found[1..]);
        assert_eq!(names(&roll), [(3, "eno2")]);
        assert_eq!(roll.missing, ["eno1"]);
        // Without a bond the name goes to whichever boots.
        orders.bonds.clear();
        assert_eq!(names(&assign(&orders, 3, &found)), [(3, "eno1")]);
    }
}
