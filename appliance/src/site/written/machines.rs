//! `[classes]`, `[machines]` and BMCs as written.

use std::collections::BTreeMap;
use std::str::FromStr;

use koboshi_ipmi::crypto::{Authentication, Confidentiality, Integrity};
use koboshi_ipmi::{Quirk, Suite, Version};
use koboshi_pxe::Mac;

use super::nics::{Nics, nics};
use super::walk::{Key, Value, Walk};
use crate::site::hardware::{BmcPart, Cipher, Console, Fence, Outlet, Power, Secret, SwitchPort};
use crate::site::names::{ClassName, MachineName, Malformed};
use crate::site::origin::At;
use crate::site::problem::{Problem, did_you_mean};
use crate::site::values::{Serial, shown};

/// What a class and a machine may both say. The machine's word counts.
#[derive(Default, Clone)]
pub(in crate::site) struct Shared {
    pub bmc: BmcPart,
    pub console: Option<At<Console>>,
    pub fence: Option<At<Vec<Fence>>>,
    pub power: Option<At<Power>>,
    pub serial: Option<At<Serial>>,
    pub loader: Option<At<String>>,
    pub nics: Option<At<Nics>>,
    pub quirks: Option<At<Vec<String>>>,
    pub protected: Option<At<bool>>,
}

#[derive(Default)]
pub(in crate::site) struct Class {
    pub shared: Shared,
}

#[derive(Default, Clone)]
pub(in crate::site) struct Machine {
    pub class: Option<At<ClassName>>,
    pub macs: Vec<At<Mac>>,
    pub pdu: Vec<At<Outlet>>,
    pub port: Vec<At<SwitchPort>>,
    pub shared: Shared,
}

const CLASS_KEYS: &[&str] =
    &["bmc", "console", "fence", "power", "serial", "loader", "nics", "quirks", "protected"];
const MACHINE_KEYS: &[&str] = &[
    "class",
    "mac",
    "pdu",
    "port",
    "bmc",
    "console",
    "fence",
    "power",
    "serial",
    "loader",
    "nics",
    "quirks",
    "protected",
];
/// The first two are a machine's own.
const BMC_KEYS: &[&str] = &[
    "host",
    "mac",
    "port",
    "user",
    "password-file",
    "password-env",
    "kg-file",
    "cipher",
    "version",
    "quirks",
    "target",
];

pub(super) fn class(
    walk: &mut Walk,
    classes: &mut BTreeMap<ClassName, At<Class>>,
    key: &Key,
    value: &Value,
) {
    let mut class = Class::default();
    let Some(table) = walk.table(&format!("class {}", key.get_ref()), value) else { return };
    for (key, value) in table {
        if !shared_key(walk, &mut class.shared, key, value, false) {
            walk.unknown("a class", key, CLASS_KEYS);
        }
    }
    let name = At::new(key.get_ref().to_string(), walk.at(key.span()));
    if let Some(name) = walk.meaning("name", name, ClassName::from_str) {
        walk.insert(classes, "class", name.value, At::new(class, name.origin));
    }
}

pub(super) fn machine(
    walk: &mut Walk,
    machines: &mut BTreeMap<MachineName, At<Machine>>,
    key: &Key,
    value: &Value,
) {
    let origin = walk.at(key.span());
    walk.names("name", key, |walk, name: MachineName| {
        if let Some(machine) = one_machine(walk, &name, value) {
            walk.insert(machines, "machine", name, At::new(machine, origin.clone()));
        }
    });
}

fn one_machine(walk: &mut Walk, name: &MachineName, value: &Value) -> Option<Machine> {
    let mut machine = Machine::default();
    for (key, value) in walk.table(&format!("machine {name}"), value)? {
        match key.get_ref().as_ref() {
            "class" => machine.class = walk.parsed("class", value),
            "mac" => machine.macs = walk.one_or_many("mac", value, mac),
            "pdu" => machine.pdu = walk.one_or_many("pdu", value, outlet),
            "port" => machine.port = walk.one_or_many("port", value, switch_port),
            _ if shared_key(walk, &mut machine.shared, key, value, true) => {}
            _ => walk.unknown("a machine", key, MACHINE_KEYS),
        }
    }
    Some(machine)
}

fn shared_key(walk: &mut Walk, out: &mut Shared, key: &Key, value: &Value, machine: bool) -> bool {
    let at = walk.at(key.span());
    match key.get_ref().as_ref() {
        "bmc" => {
            let place = if machine { "a machine's bmc" } else { "a class's bmc" };
            out.bmc = bmc(walk, place, value, machine).unwrap_or_default();
        }
        "console" => out.console = walk.parsed("console line", value),
        "fence" => {
            let words = [("bmc", Fence::Bmc), ("pdu", Fence::Pdu), ("port", Fence::Port)];
            let fence = walk.one_or_many("fence", value, |walk, what, value| {
                walk.word(what, value, &words).map(|fence| fence.value)
            });
            out.fence = Some(At::new(fence, at));
        }
        "power" => out.power = walk.parsed("way to switch power", value),
        "serial" => out.serial = walk.parsed("serial port", value),
        "loader" => out.loader = loader(walk, value),
        "nics" => out.nics = nics(walk, value).map(|nics| At::new(nics, at)),
        "quirks" => {
            let quirks = walk.one_or_many("quirks", value, Walk::text);
            out.quirks = Some(At::new(quirks.into_iter().map(|quirk| quirk.value).collect(), at));
        }
        "protected" => out.protected = walk.boolean("protected", value),
        _ => return false,
    }
    true
}

fn mac(walk: &mut Walk, what: &str, value: &Value) -> Option<At<Mac>> {
    let text = walk.text(what, value)?;
    walk.meaning("MAC address", text, |text| {
        let mac: Mac = text
            .parse()
            .map_err(|bad: koboshi_pxe::mac::BadMac| Malformed::new(bad.to_string()))?;
        if mac.0 == [0; 6] {
            return Err(Malformed::new("00:00:00:00:00:00 is what a broken NIC calls itself")
                .help("no machine has this address; look it up in its firmware setup"));
        }
        if mac.is_multicast() {
            return Err(Malformed::new(format!(
                "{mac} is a group address (multicast or broadcast)"
            ))
            .help("a machine's own address has an even first byte"));
        }
        Ok(mac)
    })
}

/// A file name and nothing else: it is asked for over TFTP.
pub(super) fn loader(walk: &mut Walk, value: &Value) -> Option<At<String>> {
    let text = walk.text("loader", value)?;
    walk.meaning("loader", text, |text| {
        let fits = |c: char| c.is_ascii_alphanumeric() || "._-+".contains(c);
        if text.is_empty() || text.len() > 100 || !text.chars().all(fits) || text.starts_with('.') {
            return Err(Malformed::new(format!("{} is not a loader's file name", shown(text)))
                .help(
                    "like snponly.efi; a loader of your own goes into the folder of [site] loaders",
                ));
        }
        Ok(text.to_string())
    })
}

fn outlet(walk: &mut Walk, what: &str, value: &Value) -> Option<At<Outlet>> {
    let (host, outlet) = pair(walk, what, value, ["host", "outlet"])?;
    Some(At::new(Outlet { host, outlet }, walk.at(value.span())))
}

fn switch_port(walk: &mut Walk, what: &str, value: &Value) -> Option<At<SwitchPort>> {
    let (switch, name) = pair(walk, what, value, ["switch", "name"])?;
    Some(At::new(SwitchPort { switch, name }, walk.at(value.span())))
}

/// A table of two words, the second of which may be a number.
fn pair(walk: &mut Walk, what: &str, value: &Value, keys: [&str; 2]) -> Option<(String, String)> {
    let (mut first, mut second) = (None, None);
    for (key, value) in walk.table(what, value)? {
        match key.get_ref().as_ref() {
            name if name == keys[0] => first = Some(walk.host(name, value)),
            name if name == keys[1] && value.get_ref().is_integer() => {
                let number = walk.number::<u16>(name, value, 0..=65_535);
                second = Some(number.map(|number| number.map(|number| number.to_string())));
            }
            name if name == keys[1] => second = Some(walk.text(name, value)),
            _ => walk.unknown(what, key, &keys),
        }
    }
    if first.is_none() || second.is_none() {
        let message = format!("{what} needs both {} and {}", keys[0], keys[1]);
        let problem = Problem::error("incomplete", &walk.at(value.span()), message);
        walk.error(problem.label("incomplete"));
    }
    Some((first??.value, second??.value))
}

/// Those that leave something open are there for BMCs that have nothing else.
fn cipher_suite(walk: &mut Walk, suite: At<u8>) -> Option<At<Cipher>> {
    let Some(known) = Suite::by_id(suite.value) else {
        let message = format!("cipher suite {} is not one we speak", suite.value);
        let problem = Problem::error("value", &suite.origin, message);
        walk.error(problem.label("\"auto\", 3 or 17"));
        return None;
    };
    let open = match known {
        Suite { authentication: Authentication::None, .. } => "asks for no password",
        Suite { integrity: Integrity::None, .. } => "lets anybody on the way switch machines",
        Suite { confidentiality: Confidentiality::None, .. } => "sends consoles in the clear",
        _ => return Some(suite.map(Cipher::Suite)),
    };
    let message = format!("cipher suite {} {open}", suite.value);
    let problem = Problem::warning("weak-cipher", &suite.origin, message);
    walk.error(
        problem.label("leaves something open").help("17, 3 or \"auto\" if the BMC has them"),
    );
    Some(suite.map(Cipher::Suite))
}

/// A mistake in it switches no machine off, and must not keep any from booting.
fn quirk_known(walk: &mut Walk, quirk: &At<String>) {
    if quirk.value.parse::<Quirk>().is_ok() {
        return;
    }
    let names: Vec<&str> = Quirk::ALL.iter().map(|quirk| quirk.name()).collect();
    let message = format!("no BMC has the quirk {}", shown(&quirk.value));
    let problem = Problem::warning("quirk", &quirk.origin, message);
    let help = did_you_mean(&quirk.value, names.iter().copied());
    let help = help.unwrap_or_else(|| format!("known are {}", names.join(", ")));
    walk.error(problem.label("without effect").help(help));
}

/// `"10.78.0.1"`, or a table. Only a machine's has a host.
pub(super) fn bmc(walk: &mut Walk, place: &str, value: &Value, machine: bool) -> Option<BmcPart> {
    let mut bmc = BmcPart::default();
    if machine && value.get_ref().is_str() {
        bmc.host = walk.host("bmc", value);
        return Some(bmc);
    }
    let known = if machine { BMC_KEYS } else { &BMC_KEYS[2..] };
    for (key, value) in walk.table(place, value)? {
        match key.get_ref().as_ref() {
            "host" if machine => bmc.host = walk.host("host", value),
            "mac" if machine => bmc.mac = mac(walk, "mac", value),
            "port" => bmc.port = walk.number("port", value, 1..=65_535),
            "user" => bmc.user = walk.text("user", value),
            "password-file" => {
                let file = walk.path("password-file", value).map(|path| path.map(Secret::File));
                walk.once(&mut bmc.password, "the password", file);
            }
            "password-env" => {
                let name = walk.text("password-env", value).map(|name| name.map(Secret::Env));
                walk.once(&mut bmc.password, "the password", name);
            }
            "kg-file" => bmc.kg = walk.path("kg-file", value),
            "cipher" if value.get_ref().is_integer() => {
                let suite = walk.number("cipher", value, 0..=255);
                bmc.cipher = suite.and_then(|suite| cipher_suite(walk, suite));
            }
            "version" => {
                let versions =
                    [("auto", Version::Auto), ("1.5", Version::V15), ("2.0", Version::V20)];
                bmc.version = walk.word("version", value, &versions);
            }
            "cipher" => bmc.cipher = walk.word("cipher", value, &[("auto", Cipher::Auto)]),
            "quirks" => {
                let quirks = walk.one_or_many("quirks", value, Walk::text);
                quirks.iter().for_each(|quirk| quirk_known(walk, quirk));
                bmc.quirks = Some(quirks.into_iter().map(|quirk| quirk.value).collect());
            }
            "target" => bmc.target = walk.number("target", value, 0..=255),
            _ => walk.unknown(place, key, known),
        }
    }
    Some(bmc)
}
