//! Networks beside the one machines boot on: what the switch has to be told, and what a seat asks
//! of a machine that the machine does not have.

use std::collections::{BTreeMap, BTreeSet};

use koboshi_initramfs::contract::{BOOT_LINK, BondMode};

use crate::publish::boot_subnet;
use crate::site::{
    At, Machine, MachineName, Origin, Place, Problem, Problems, Seat, SeatName, Site,
};

/// A packet's usual size.
const USUAL: u16 = 1500;

pub(super) fn nics(site: &Site, found: &mut Problems) {
    for machine in site.machines.values() {
        lacp(machine, found);
    }
    // Names that are bonds or NICs somewhere on this site are not hardware's own.
    let nics = || site.machines.values().map(|machine| &machine.nics);
    let bonds = nics().flat_map(|nics| nics.bonds.keys());
    let made: BTreeSet<&str> =
        bonds.chain(nics().flat_map(|nics| nics.cards.keys())).map(String::as_str).collect();
    for (name, place) in &site.matrix {
        let Some(machine) = site.machines.get(name) else { continue };
        match &place.value {
            Place::Seat(seat) => {
                let Some((seat, meant)) = site.seats.get_key_value(seat) else { continue };
                fits(site, &made, (name, machine), (seat, meant), &place.origin, found);
            }
            Place::Spare => spare(site, &made, (name, machine), &place.origin, found),
        }
    }
    for (name, seat) in &site.seats {
        twice(site, name, seat, found);
    }
}

/// What boots over a port that waits for LACP does not boot.
fn lacp(machine: &Machine, found: &mut Problems) {
    let boot = machine.nics.boot.as_ref().map(|name| name.value.as_str());
    for (name, bond) in &machine.nics.bonds {
        let boots = |member: &At<String>| boot.is_none_or(|boot| boot == member.value);
        let by_mac = |member: &At<String>| {
            machine.macs.iter().any(|mac| mac.value.to_string() == member.value)
        };
        if bond.mode == BondMode::Lacp && bond.of.iter().any(|one| boots(one) || by_mac(one)) {
            let message = format!(
                "{name} is an LACP bond that machines boot by: firmware and loader speak no LACP"
            );
            let problem = Problem::warning("lacp", &bond.origin, message);
            found.push(problem.label("the switch has to know").help(
                "its ports must work singly until LACP begins: `port-channel lacp fallback` (Arista), `no lacp suspend-individual` (Cisco), `force-up` (Juniper), `bond-lacp-bypass-allow` (Linux)",
            ));
        }
    }
}

/// Whether a machine has what a seat's networks are on.
enum Fit<'a> {
    Well,
    /// It is a member of this bond.
    Member(&'a str),
    Missing,
}

fn fit<'a>(made: &BTreeSet<&str>, machine: &'a Machine, on: &str) -> Fit<'a> {
    let nics = &machine.nics;
    if on == BOOT_LINK || nics.bonds.contains_key(on) {
        return Fit::Well;
    }
    let hardware = nics.cards.get(on).map(|hardware| hardware.value.as_str());
    if let Some(bond) = nics.bond_of(on).or_else(|| nics.bond_of(hardware?)) {
        return Fit::Member(bond);
    }
    let own = hardware.is_some() || nics.boot.as_ref().is_some_and(|boot| boot.value == on);
    // What nobody calls so may still be what hardware is called there.
    if !own && (made.contains(on) || on.starts_with("bond")) { Fit::Missing } else { Fit::Well }
}

fn fits(
    site: &Site,
    made: &BTreeSet<&str>,
    (name, machine): (&MachineName, &Machine),
    (seat, meant): (&SeatName, &Seat),
    line: &Origin,
    found: &mut Problems,
) {
    for (network, net) in &meant.nets {
        let on = net.on.as_ref().map_or(BOOT_LINK, |on| on.value.as_str());
        let origin = net.on.as_ref().map_or(&net.origin, |on| &on.origin);
        match fit(made, machine, on) {
            Fit::Well => large(site, machine, (seat, on, origin), network.as_str(), found),
            Fit::Member(bond) => {
                let message = format!(
                    "seat {seat} has network {network} on {on}, which is a member of {bond} in {name}"
                );
                let problem = Problem::warning("nets", origin, message);
                found
                    .push(problem.label("cannot carry a network").help(format!("on = \"{bond}\"")));
            }
            Fit::Missing => {
                let message =
                    format!("seat {seat} has network {network} on {on}, and {name} has no {on}");
                let problem = Problem::warning("nets", origin, message);
                let help =
                    format!("nics = {{ {on} = [\"eno1\", \"eno2\"] }} on {name} or its class");
                found.push(
                    problem
                        .label("its seat comes up without this network")
                        .also(line, format!("{name} is {seat}"))
                        .help(help),
                );
            }
        }
    }
}

/// A spare that could not be what it may have to be tonight.
fn spare(
    site: &Site,
    made: &BTreeSet<&str>,
    (name, machine): (&MachineName, &Machine),
    line: &Origin,
    found: &mut Problems,
) {
    for (seat, meant) in &site.seats {
        let lacks = |on: &&At<String>| !matches!(fit(made, machine, on), Fit::Well);
        let Some(on) = meant.nets.values().filter_map(|net| net.on.as_ref()).find(lacks) else {
            continue;
        };
        let message = format!("spare {name} cannot stand in for {seat}: it has no {on} of its own");
        let problem = Problem::warning("nets", line, message);
        found.push(
            problem
                .label("not for every seat")
                .also(&on.origin, format!("{seat} needs it"))
                .help(format!("give {name} or its class the same nics")),
        );
        return;
    }
}

/// A VLAN cannot take larger packets than the link it is on, and the link that boots has the size
/// of the seat's own network.
fn large(
    site: &Site,
    machine: &Machine,
    (seat, on, origin): (&SeatName, &str, &Origin),
    network: &str,
    found: &mut Problems,
) {
    let Some((_, meant)) = site.networks.iter().find(|(name, _)| name.as_str() == network) else {
        return;
    };
    let nics = &machine.nics;
    let boot = nics.boot.as_ref().map(|name| name.value.as_str());
    let boots = on == BOOT_LINK
        || boot == Some(on)
        || boot.is_some_and(|boot| nics.bond_of(boot) == Some(on));
    let below = boot_subnet(site).and_then(|subnet| subnet.mtu).unwrap_or(USUAL);
    let Some(mtu) = meant.mtu.filter(|mtu| boots && *mtu > below) else { return };
    let message = format!(
        "network {network} of seat {seat} has mtu {mtu}, and what carries it, {on}, has {below}"
    );
    found.push(
        Problem::warning("mtu", origin, message)
            .label("cannot carry this")
            .also(&meant.origin, format!("mtu {mtu}"))
            .help(format!("mtu = {mtu} in [net] (the switch must agree), or another NIC for it")),
    );
}

/// Two networks of one seat in one VLAN of one link.
fn twice(site: &Site, name: &SeatName, seat: &Seat, found: &mut Problems) {
    let mut seen = BTreeMap::new();
    for (network, net) in &seat.nets {
        let vlan = site.networks.get(network).and_then(|network| network.vlan);
        let on = net.on.as_ref().map_or(BOOT_LINK, |on| on.value.as_str());
        let Some(id) = vlan else { continue };
        let Some((other, there)) = seen.insert((on, id), (network, &net.origin)) else { continue };
        let message =
            format!("networks {other} and {network} of seat {name} are both VLAN {id} on {on}");
        found.push(
            Problem::warning("nets", &net.origin, message)
                .label("the same wire")
                .also(there, format!("{other} here"))
                .help("they become two addresses of one interface; a VLAN has one number in [networks]"),
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::site::tests::site;

    fn said(nics: &str, nets: &str, matrix: &str) -> Vec<String> {
        let site = site(&format!(
            r#"
[net]
interface = "eth1"
pool = "10.77.0.200-10.77.0.210"
[networks]
svc = {{ vlan = 20, cidr = "10.20.0.0/24" }}
more = {{ vlan = 20, cidr = "10.21.0.0/24" }}
big = {{ vlan = 30, cidr = "10.30.0.0/24", mtu = 9000 }}
[classes.r640]
nics = {{ {nics} }}
[roles.web]
image = "web"
[machines]
m01 = {{ class = "r640", mac = "52:54:00:77:00:01" }}
m02 = {{ mac = "52:54:00:77:00:02" }}
[seats]
db1 = {{ role = "web", ip = "10.77.0.21", nets = {{ {nets} }} }}
[matrix]
{matrix}
"#
        ));
        let mut found = Problems::default();
        super::nics(&site, &mut found);
        let line = |problem: &Problem| format!("{} {}", problem.origin.line(), problem.message);
        found.iter().map(line).collect()
    }

    #[test]
    fn a_seat_fits_its_machine_or_it_is_said() {
        let bond = r#"boot = "eno1", bond0 = ["eno1", "eno2"]"#;
        let svc = r#"svc = { ip = "10.20.0.21", on = "bond0" }"#;
        assert!(said(bond, svc, r#"m01 = "db1""#).is_empty());
        assert_eq!(
            said(bond, svc, r#"m02 = "db1""#),
            ["17 seat db1 has network svc on bond0, and m02 has no bond0"]
        );
        assert_eq!(
            said(bond, svc, "m01 = \"db1\"\nm02 = \"spare\""),
            ["20 spare m02 cannot stand in for db1: it has no bond0 of its own"]
        );
        let member = r#"svc = { ip = "10.20.0.21", on = "eno2" }"#;
        assert_eq!(
            said(bond, member, r#"m01 = "db1""#),
            ["17 seat db1 has network svc on eno2, which is a member of bond0 in m01"]
        );
        // Hardware that nobody speaks of may be there.
        assert!(said(bond, r#"svc = { on = "ens1" }"#, r#"m02 = "db1""#).is_empty());
    }

    #[test]
    fn lacp_is_told_to_the_switch_where_it_boots() {
        let svc = r#"svc = "10.20.0.21""#;
        let boots = r#"boot = "eno1", bond0 = { of = ["eno1", "eno2"], mode = "802.3ad" }"#;
        let said_of = said(boots, svc, r#"m01 = "db1""#);
        assert_eq!(said_of.len(), 1, "{said_of:?}");
        assert!(said_of[0].starts_with("10 bond0 is an LACP bond"), "{said_of:?}");
        let other = r#"boot = "eno1", bond0 = { of = ["eno3", "eno2"], mode = "802.3ad" }"#;
        assert!(said(other, svc, r#"m01 = "db1""#).is_empty());
    }

    #[test]
    fn vlans_that_collide_and_packets_that_do_not_fit() {
        let bond = r#"boot = "eno1", bond0 = ["eno1", "eno2"], bond1 = ["eno3"]"#;
        assert_eq!(
            said(bond, r#"svc = "10.20.0.21", more = "10.21.0.21""#, r#"m01 = "db1""#),
            ["17 networks more and svc of seat db1 are both VLAN 20 on boot"]
        );
        let big = |on: &str| format!(r#"big = {{ ip = "10.30.0.21", on = "{on}" }}"#);
        for on in ["boot", "bond0"] {
            assert_eq!(
                said(bond, &big(on), r#"m01 = "db1""#),
                [format!(
                    "17 network big of seat db1 has mtu 9000, and what carries it, {on}, has 1500"
                )]
            );
        }
        assert!(said(bond, &big("bond1"), r#"m01 = "db1""#).is_empty());
    }
}
