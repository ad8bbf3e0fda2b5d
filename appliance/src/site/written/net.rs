//! `[net]`, `[[net.subnet]]` and `[networks]` as written.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::str::FromStr;

use serde::Serialize;

use super::walk::{Key, Value, Walk};
use crate::site::names::{Malformed, NetworkName, RoleName};
use crate::site::network::{Cidr, Pool};
use crate::site::origin::{At, Origin};
use crate::site::problem::Problem;
use crate::site::values::{Lease, Unknown, shown};

/// Whether addresses are ours to give.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// We are the DHCP server.
    #[default]
    Server,
    /// Somebody else is; we only add the boot file.
    Proxy,
}

/// Who lives on a subnet.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// Machines that boot.
    #[default]
    Boot,
    /// BMCs.
    Bmc,
}

/// A static route for option 121 (RFC 3442).
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Route {
    /// Where to.
    pub to: Cidr,
    /// Over which router.
    pub via: Ipv4Addr,
}

impl FromStr for Route {
    type Err = Malformed;
    fn from_str(text: &str) -> Result<Route, Malformed> {
        let bad = || {
            Malformed::new(format!("{} is not a route", shown(text)))
                .help("a route is written like \"10.80.0.0/16 via 10.77.0.254\"")
        };
        let (to, via) = text.split_once(" via ").ok_or_else(bad)?;
        let to = match to.trim() {
            "default" | "0.0.0.0/0" => Cidr::around(Ipv4Addr::UNSPECIFIED, 0),
            to => to.parse()?,
        };
        Ok(Route { to, via: via.trim().parse().map_err(|_| bad())? })
    }
}

/// What makes a machine one of the site.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Identify {
    /// The MAC it boots by, and nothing else.
    #[default]
    Mac,
    /// Also the address of its BMC, where that is written for a machine.
    Bmc,
}

/// The value of a DHCP option somebody wants sent besides ours.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct DhcpOption(pub Vec<u8>);

#[derive(Default)]
pub(in crate::site) struct NetTable {
    pub origin: Option<Origin>,
    pub http_port: Option<At<u16>>,
    pub mode: Option<At<Mode>>,
    pub lease: Option<At<Lease>>,
    pub unknown: Option<At<Unknown>>,
    pub identify: Option<At<Identify>>,
    pub menu: Option<At<Vec<At<RoleName>>>>,
    pub syslog: Option<At<u16>>,
    pub netconsole: Option<At<u16>>,
    /// The one subnet of the shorthand.
    pub own: SubnetTable,
    pub subnets: Vec<At<SubnetTable>>,
}

#[derive(Default, Clone)]
pub(in crate::site) struct SubnetTable {
    pub interface: Option<At<String>>,
    pub relay: Option<At<Vec<At<Ipv4Addr>>>>,
    pub cidr: Option<At<Cidr>>,
    pub gateway: Option<At<Ipv4Addr>>,
    pub pool: Option<At<Pool>>,
    pub dns: Option<At<Vec<At<Ipv4Addr>>>>,
    pub ntp: Option<At<Vec<At<Ipv4Addr>>>>,
    pub domain: Option<At<String>>,
    pub mtu: Option<At<u16>>,
    pub routes: Option<At<Vec<At<Route>>>>,
    pub options: Option<At<BTreeMap<u8, At<DhcpOption>>>>,
    pub kind: Option<At<Kind>>,
}

pub(in crate::site) struct Network {
    pub cidr: Option<At<Cidr>>,
    pub gateway: Option<At<Ipv4Addr>>,
    pub vlan: Option<At<u16>>,
    pub mtu: Option<At<u16>>,
    pub routes: Vec<At<Route>>,
}

const NET_KEYS: &[&str] = &[
    "interface",
    "http-port",
    "mode",
    "cidr",
    "pool",
    "gateway",
    "dns",
    "ntp",
    "lease",
    "unknown",
    "identify",
    "menu",
    "syslog",
    "netconsole",
    "subnet",
    "relay",
    "domain",
    "mtu",
    "routes",
    "options",
    "kind",
];
const SUBNET_KEYS: &[&str] = &[
    "interface",
    "relay",
    "cidr",
    "gateway",
    "pool",
    "dns",
    "ntp",
    "domain",
    "mtu",
    "routes",
    "options",
    "kind",
];
const NETWORK_KEYS: &[&str] = &["vlan", "cidr", "gateway", "mtu", "routes"];

pub(super) fn net(walk: &mut Walk, net: &mut NetTable, value: &Value) {
    let Some(table) = walk.table("[net]", value) else { return };
    net.origin.get_or_insert_with(|| walk.at(value.span()));
    for (key, value) in table {
        match key.get_ref().as_ref() {
            "http-port" => {
                let port = walk.number("http-port", value, 1..=65_535);
                walk.once(&mut net.http_port, "http-port", port);
            }
            "mode" => {
                let words = [("server", Mode::Server), ("proxy", Mode::Proxy)];
                let mode = walk.word("mode", value, &words);
                walk.once(&mut net.mode, "mode", mode);
            }
            "lease" => {
                let lease = walk.parsed("time", value);
                walk.once(&mut net.lease, "lease", lease);
            }
            "unknown" => {
                let unknown = walk.parsed("policy for unknown machines", value);
                walk.once(&mut net.unknown, "unknown", unknown);
            }
            "identify" => {
                let words = [("mac", Identify::Mac), ("bmc", Identify::Bmc)];
                let identify = walk.word("identify", value, &words);
                walk.once(&mut net.identify, "identify", identify);
            }
            "menu" => {
                let roles =
                    walk.one_or_many("menu", value, |walk, _, role| walk.parsed("role", role));
                let roles = At::new(roles, walk.at(value.span()));
                walk.once(&mut net.menu, "menu", Some(roles));
            }
            "syslog" => {
                let port = walk.number("syslog", value, 0..=65_535);
                walk.once(&mut net.syslog, "syslog", port);
            }
            "netconsole" => {
                let port = walk.number("netconsole", value, 0..=65_535);
                walk.once(&mut net.netconsole, "netconsole", port);
            }
            "subnet" => {
                let subnets = walk.list("net.subnet", value, |walk, _, value| subnet(walk, value));
                net.subnets.extend(subnets);
            }
            _ if subnet_key(walk, &mut net.own, key, value) => {}
            _ => walk.unknown("[net]", key, NET_KEYS),
        }
    }
}

fn subnet(walk: &mut Walk, value: &Value) -> Option<At<SubnetTable>> {
    let mut subnet = SubnetTable::default();
    for (key, value) in walk.table("[[net.subnet]]", value)? {
        if !subnet_key(walk, &mut subnet, key, value) {
            walk.unknown("[[net.subnet]]", key, SUBNET_KEYS);
        }
    }
    Some(At::new(subnet, walk.at(value.span())))
}

fn subnet_key(walk: &mut Walk, subnet: &mut SubnetTable, key: &Key, value: &Value) -> bool {
    let at = walk.at(key.span());
    match key.get_ref().as_ref() {
        "interface" => {
            let name = walk.text("interface", value);
            let name = name.and_then(|name| walk.meaning("interface", name, interface));
            walk.once(&mut subnet.interface, "interface", name);
        }
        "relay" => {
            let relay = walk.one_or_many("relay", value, Walk::address);
            walk.once(&mut subnet.relay, "relay", Some(At::new(relay, at)));
        }
        "cidr" => {
            let cidr = walk.parsed("network", value);
            walk.once(&mut subnet.cidr, "cidr", cidr);
        }
        "gateway" => {
            let gateway = walk.address("gateway", value);
            walk.once(&mut subnet.gateway, "gateway", gateway);
        }
        "pool" => {
            let pool = walk.parsed("pool", value);
            walk.once(&mut subnet.pool, "pool", pool);
        }
        "dns" => {
            let dns = walk.one_or_many("dns", value, Walk::address);
            walk.once(&mut subnet.dns, "dns", Some(At::new(dns, at)));
        }
        "ntp" => {
            let ntp = walk.one_or_many("ntp", value, Walk::address);
            walk.once(&mut subnet.ntp, "ntp", Some(At::new(ntp, at)));
        }
        "domain" => {
            let domain = domain(walk, value);
            walk.once(&mut subnet.domain, "domain", domain);
        }
        "mtu" => {
            // RFC 791: every host takes 576; jumbo frames end at 9216 in practice, loopback at 65535.
            let mtu = walk.number("mtu", value, 576..=65_535);
            walk.once(&mut subnet.mtu, "mtu", mtu);
        }
        "routes" => {
            let routes = walk.one_or_many("routes", value, route);
            walk.once(&mut subnet.routes, "routes", Some(At::new(routes, at)));
        }
        "options" => {
            let options = options(walk, value).map(|options| At::new(options, at));
            walk.once(&mut subnet.options, "options", options);
        }
        "kind" => {
            let kind = walk.word("kind", value, &[("boot", Kind::Boot), ("bmc", Kind::Bmc)]);
            walk.once(&mut subnet.kind, "kind", kind);
        }
        _ => return false,
    }
    true
}

/// IFNAMSIZ is 16 with the NUL; the kernel refuses `/`, `:` and white space.
pub(super) fn interface(text: &str) -> Result<String, Malformed> {
    let fits = |c: char| c.is_ascii_graphic() && c != '/' && c != ':';
    if text.is_empty() || text.len() > 15 || !text.chars().all(fits) || text.starts_with('.') {
        return Err(Malformed::new(format!("{} is not the name of an interface", shown(text)))
            .help("like eth1, bond0 or eno1.20: at most 15 letters"));
    }
    Ok(text.to_string())
}

pub(super) fn domain(walk: &mut Walk, value: &Value) -> Option<At<String>> {
    let text = walk.text("domain", value)?;
    walk.meaning("domain", text, |text| {
        let label = |label: &str| {
            let fits = |b: u8| b.is_ascii_alphanumeric() || b == b'-' || b == b'_';
            !label.is_empty() && label.len() <= 63 && label.bytes().all(fits)
        };
        if text.len() > 253 || !text.split('.').all(label) {
            return Err(Malformed::new(format!("{} is not a domain", shown(text)))
                .help("a domain is written like dc.example"));
        }
        Ok(text.to_string())
    })
}

fn route(walk: &mut Walk, what: &str, value: &Value) -> Option<At<Route>> {
    if value.get_ref().is_str() {
        return walk.parsed("route", value);
    }
    let (mut to, mut via) = (None, None);
    for (key, value) in walk.table(what, value)? {
        match key.get_ref().as_ref() {
            "to" => to = walk.parsed::<Cidr>("network", value),
            "via" => via = walk.address("via", value),
            _ => walk.unknown("a route", key, &["to", "via"]),
        }
    }
    let origin = walk.at(value.span());
    match (to, via) {
        (Some(to), Some(via)) => Some(At::new(Route { to: to.value, via: via.value }, origin)),
        _ => {
            let problem = Problem::error("route", &origin, "a route needs `to` and `via`");
            walk.error(problem.label("incomplete"));
            None
        }
    }
}

/// `options = { 150 = "10.77.0.1", 252 = "http://…", 43 = "hex:0104…" }`
fn options(walk: &mut Walk, value: &Value) -> Option<BTreeMap<u8, At<DhcpOption>>> {
    let mut out = BTreeMap::new();
    for (key, value) in walk.table("options", value)? {
        let origin = walk.at(key.span());
        // Those that make an exchange what it is: address, lease, kind, server, client (RFC 2132).
        const OURS: [u8; 12] = [0, 50, 51, 52, 53, 54, 55, 57, 58, 59, 61, 82];
        let code = key.get_ref().parse::<u8>().ok().filter(|code| *code != 255);
        let Some(code) = code.filter(|code| !OURS.contains(code)) else {
            let shown = shown(key.get_ref());
            let problem =
                Problem::error("option", &origin, format!("{shown} is not an option you can set"));
            walk.error(problem.label("no such option").help(
                "a DHCP option is a number from 1 to 254, and none of 50 to 59, 61 and 82, which are ours",
            ));
            continue;
        };
        if let Some(bytes) = option(walk, value) {
            out.insert(code, At::new(DhcpOption(bytes), origin));
        }
    }
    Some(out)
}

/// A string is text, an address or `hex:…`; a list is addresses; a number says its width as `u8:…`.
fn option(walk: &mut Walk, value: &Value) -> Option<Vec<u8>> {
    if value.get_ref().is_array() {
        let addresses = walk.list("a DHCP option", value, Walk::address);
        return Some(addresses.iter().flat_map(|address| address.octets()).collect());
    }
    let text = walk.text("a DHCP option", value)?;
    let bytes = walk.meaning("option's value", text, |text| {
        let bad = || {
            Malformed::new(format!("{} is not an option's value", shown(text))).help(
                "text, an address, [\"address\", …], hex:0a4d0001, u8:1, u16:1500 or u32:3600",
            )
        };
        if let Ok(address) = text.parse::<Ipv4Addr>() {
            return Ok(address.octets().to_vec());
        }
        let bytes = match text.split_once(':') {
            Some(("hex", digits)) => {
                let digits: Vec<u32> = digits
                    .chars()
                    .filter(|c| *c != ':' && *c != ' ')
                    .map(|c| c.to_digit(16).ok_or_else(bad))
                    .collect::<Result<_, _>>()?;
                if digits.len() % 2 == 1 {
                    return Err(bad());
                }
                digits.chunks(2).map(|pair| (pair[0] << 4 | pair[1]) as u8).collect()
            }
            Some(("u8", n)) => vec![n.parse().map_err(|_| bad())?],
            Some(("u16", n)) => n.parse::<u16>().map_err(|_| bad())?.to_be_bytes().to_vec(),
            Some(("u32", n)) => n.parse::<u32>().map_err(|_| bad())?.to_be_bytes().to_vec(),
            _ => text.as_bytes().to_vec(),
        };
        // RFC 3396 splits what is longer; no client of a boot ROM puts it together again.
        if bytes.is_empty() || bytes.len() > 255 { Err(bad()) } else { Ok(bytes) }
    })?;
    Some(bytes.value)
}

pub(super) fn network(
    walk: &mut Walk,
    networks: &mut BTreeMap<NetworkName, At<Network>>,
    key: &Key,
    value: &Value,
) {
    let mut network =
        Network { cidr: None, gateway: None, vlan: None, mtu: None, routes: Vec::new() };
    let Some(table) = walk.table(&format!("network {}", key.get_ref()), value) else { return };
    for (key, value) in table {
        match key.get_ref().as_ref() {
            // IEEE 802.1Q: 0 is no VLAN and 4095 is reserved.
            "vlan" => network.vlan = walk.number("vlan", value, 1..=4094),
            "cidr" => network.cidr = walk.parsed("network", value),
            "gateway" => network.gateway = walk.address("gateway", value),
            "mtu" => network.mtu = walk.number("mtu", value, 576..=65_535),
            "routes" => network.routes = walk.one_or_many("routes", value, route),
            _ => walk.unknown("a network", key, NETWORK_KEYS),
        }
    }
    let name = At::new(key.get_ref().to_string(), walk.at(key.span()));
    if let Some(name) = walk.meaning("name", name, NetworkName::from_str) {
        walk.insert(networks, "network", name.value, At::new(network, name.origin));
    }
}
