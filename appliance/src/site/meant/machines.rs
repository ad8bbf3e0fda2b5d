//! Machines and classes as meant: a machine's own word, else its class's, else the defaults.

use std::collections::BTreeMap;

use koboshi_pxe::Mac;

use super::build::missing;
use super::{Class, Machine};
use crate::site::hardware::{BmcPart, Console, Fence};
use crate::site::names::{ClassName, MachineName};
use crate::site::origin::At;
use crate::site::problem::{Problem, Problems};
use crate::site::written::{self, Written};

pub(super) fn meant_class(class: written::Class) -> Class {
    let shared = class.shared;
    Class {
        serial: shared.serial,
        loader: shared.loader,
        nics: shared.nics.map(|nics| nics.value).unwrap_or_default(),
        quirks: shared.quirks.map(|quirks| quirks.value).unwrap_or_default(),
    }
}

pub(super) fn machines(
    written: &Written,
    problems: &mut Problems,
) -> BTreeMap<MachineName, At<Machine>> {
    let nothing = written::Class::default();
    let no_bmc = BmcPart::default();
    let defaults = written.bmc.as_ref().map_or(&no_bmc, |bmc| &bmc.value);
    let mut machines = BTreeMap::new();
    for (name, machine) in &written.machines {
        let class = match &machine.class {
            None => &nothing,
            Some(class) => match written.classes.get(&class.value) {
                Some(found) => &found.value,
                None => {
                    let known = written.classes.keys().map(ClassName::as_str);
                    problems.push(missing("class", class, known, format!("machine {name}")));
                    &nothing
                }
            },
        };
        let (own, shared) = (&machine.shared, &class.shared);
        let bmc = own.bmc.merge(&shared.bmc, defaults);
        let fence = own.fence.clone().or_else(|| shared.fence.clone());
        let console = own.console.clone().or_else(|| shared.console.clone());
        let meant = Machine {
            class: machine.class.clone(),
            macs: machine.macs.clone(),
            console,
            fence: fence.as_ref().map(|fence| fence.value.clone()).unwrap_or_default(),
            pdu: machine.pdu.clone(),
            port: machine.port.clone(),
            power: own.power.clone().or_else(|| shared.power.clone()),
            protected: own
                .protected
                .as_ref()
                .or(shared.protected.as_ref())
                .is_some_and(|p| p.value),
            serial: own.serial.clone().or_else(|| shared.serial.clone()),
            loader: own.loader.clone().or_else(|| shared.loader.clone()),
            nics: own
                .nics
                .clone()
                .or_else(|| shared.nics.clone())
                .map(|nics| nics.value)
                .unwrap_or_default(),
            quirks: own
                .quirks
                .clone()
                .or_else(|| shared.quirks.clone())
                .map(|q| q.value)
                .unwrap_or_default(),
            bmc,
        };
        out_of_reach(name, &meant, fence.as_ref(), problems);
        machines.insert(name.clone(), At::new(meant, machine.origin.clone()));
    }
    machines
}

/// A console or a fence through something the machine does not have.
fn out_of_reach(
    name: &MachineName,
    machine: &Machine,
    fence: Option<&At<Vec<Fence>>>,
    problems: &mut Problems,
) {
    if let Some(console) = &machine.console
        && console.value == Console::Sol
        && machine.bmc.is_none()
    {
        let message = format!("machine {name} has its console over its BMC, but has no BMC");
        let problem = Problem::warning("no-bmc", &console.origin, message);
        problems.push(problem.label("needs a bmc").help("bmc = \"ADDRESS\" on the machine"));
    }
    let Some(fence) = fence else { return };
    for means in &fence.value {
        let (there, key) = match means {
            Fence::Bmc => (machine.bmc.is_some(), "bmc"),
            Fence::Pdu => (!machine.pdu.is_empty(), "pdu"),
            Fence::Port => (!machine.port.is_empty(), "port"),
        };
        if !there {
            let message = format!("machine {name} is to be fenced by {key}, but has no {key}");
            let problem = Problem::warning("no-fence", &fence.origin, message);
            problems.push(
                problem.label("cannot be done so").help(format!("add `{key}` to the machine")),
            );
        }
    }
}

/// BMCs by the MACs of their NICs. None is a machine's own, nor another BMC's.
pub(super) fn by_bmc_mac(
    machines: &BTreeMap<MachineName, At<Machine>>,
    by_mac: &BTreeMap<Mac, At<MachineName>>,
    problems: &mut Problems,
) -> BTreeMap<Mac, At<MachineName>> {
    let mut all: Vec<(&MachineName, &At<Mac>)> = machines
        .iter()
        .filter_map(|(name, machine)| Some((name, machine.bmc.as_ref()?.mac.as_ref()?)))
        .collect();
    all.sort_by_key(|(_, mac)| mac.origin.order());
    let mut by_bmc_mac: BTreeMap<Mac, At<MachineName>> = BTreeMap::new();
    for (name, mac) in all {
        let (other, whose) = match (by_mac.get(&mac.value), by_bmc_mac.get(&mac.value)) {
            (Some(machine), _) => (machine, format!("machine {}", machine.value)),
            (None, Some(bmc)) => (bmc, format!("the BMC of {}", bmc.value)),
            (None, None) => {
                by_bmc_mac.insert(mac.value, At::new(name.clone(), mac.origin.clone()));
                continue;
            }
        };
        let message = format!("MAC {mac} is written for {whose} and for the BMC of {name}");
        problems.push(
            Problem::error("duplicate-mac", &mac.origin, message)
                .label(format!("the BMC of {name}"))
                .also(&other.origin, whose)
                .help("a BMC has a NIC of its own; ipmitool lan print shows its MAC"),
        );
    }
    by_bmc_mac
}

pub(super) fn by_mac(
    machines: &BTreeMap<MachineName, At<Machine>>,
    problems: &mut Problems,
) -> BTreeMap<Mac, At<MachineName>> {
    let mut all: Vec<(&MachineName, &At<Mac>)> = machines
        .iter()
        .flat_map(|(name, machine)| machine.macs.iter().map(move |mac| (name, mac)))
        .collect();
    all.sort_by_key(|(_, mac)| mac.origin.order());
    let mut by_mac: BTreeMap<Mac, At<MachineName>> = BTreeMap::new();
    for (name, mac) in all {
        let Some(first) = by_mac.get(&mac.value) else {
            by_mac.insert(mac.value, At::new(name.clone(), mac.origin.clone()));
            continue;
        };
        let whose = match first.value == *name {
            true => format!("twice for {name}"),
            false => format!("for {} and for {name}", first.value),
        };
        problems.push(
            Problem::error("duplicate-mac", &mac.origin, format!("MAC {mac} is written {whose}"))
                .label(format!("for {name} here"))
                .also(&first.origin, format!("for {} here", first.value))
                .help("a NIC is in one machine; look at the label or in the firmware setup"),
        );
    }
    by_mac
}
