//! The site as written: every key of every file, typed and in its place, but nothing looked up yet.
//! What belongs together across files and tables is found out in `meant`.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use toml::de::DeTable;

use super::hardware::BmcPart;
use super::hostlist::HostList;
use super::names::{ClassName, GroupName, MachineName, Malformed, NetworkName, RoleName, SeatName};
use super::origin::{At, Origin, Source};
use super::problem::{Problem, Problems};

mod console;
mod logs;
mod machines;
mod net;
mod nics;
mod seats;
mod walk;

pub(super) use console::ConsoleTable;
pub(super) use logs::LogsTable;
pub(super) use machines::{Class, Machine};
pub use net::{DhcpOption, Identify, Kind, Mode, Route};
pub(super) use net::{Network, SubnetTable};
pub use nics::{Bond, Nics};
pub use seats::{Exclusive, Place, SeatNet, Takeover};
pub(super) use seats::{Role, RootWord, Seat};
use walk::{Key, Value, Walk};

/// All files together.
#[derive(Default)]
pub(super) struct Written {
    pub name: Option<At<String>>,
    pub domain: Option<At<String>>,
    pub ssh_keys: Option<At<Vec<At<String>>>>,
    pub loaders: Option<At<PathBuf>>,
    pub net: net::NetTable,
    pub networks: BTreeMap<NetworkName, At<Network>>,
    pub listen: Option<At<SocketAddr>>,
    pub ssh: Option<At<SocketAddr>>,
    pub console: console::ConsoleTable,
    pub logs: logs::LogsTable,
    pub bmc: Option<At<BmcPart>>,
    pub classes: BTreeMap<ClassName, At<Class>>,
    pub roles: BTreeMap<RoleName, At<Role>>,
    pub machines: BTreeMap<MachineName, At<Machine>>,
    pub groups: BTreeMap<GroupName, At<Vec<At<HostList>>>>,
    pub seats: BTreeMap<SeatName, At<Seat>>,
    pub matrix: BTreeMap<MachineName, At<Row>>,
    named: usize,
}

/// A line of the matrix.
pub(super) struct Row {
    pub place: Place,
    /// The key, where the machine is named.
    pub key: Origin,
}

const TOP_KEYS: &[&str] = &[
    "site", "net", "networks", "admin", "console", "logs", "defaults", "classes", "roles",
    "machines", "groups", "seats", "matrix",
];
const SITE_KEYS: &[&str] = &["name", "domain", "ssh-keys", "include", "loaders"];
const ADMIN_KEYS: &[&str] = &["listen", "ssh"];
const DEFAULTS_KEYS: &[&str] = &["bmc"];

impl Written {
    /// Takes one file in; hands back the patterns of further files.
    pub fn read(
        &mut self,
        source: &Arc<Source>,
        file: &DeTable,
        problems: &mut Problems,
    ) -> Vec<At<String>> {
        let mut named = self.named;
        let mut walk = Walk { source, problems, numbers: None, named: &mut named };
        let mut include = Vec::new();
        for (key, value) in file {
            match key.get_ref().as_ref() {
                "site" => include = self.site(&mut walk, value),
                "net" => net::net(&mut walk, &mut self.net, value),
                "networks" => each(&mut walk, "networks", value, |walk, key, value| {
                    net::network(walk, &mut self.networks, key, value);
                }),
                "admin" => self.admin(&mut walk, value),
                "console" => console::console(&mut walk, &mut self.console, value),
                "logs" => logs::logs(&mut walk, &mut self.logs, value),
                "defaults" => self.defaults(&mut walk, value),
                "classes" => each(&mut walk, "classes", value, |walk, key, value| {
                    machines::class(walk, &mut self.classes, key, value);
                }),
                "roles" => each(&mut walk, "roles", value, |walk, key, value| {
                    seats::role(walk, &mut self.roles, key, value);
                }),
                "machines" => each(&mut walk, "machines", value, |walk, key, value| {
                    machines::machine(walk, &mut self.machines, key, value);
                }),
                "groups" => each(&mut walk, "groups", value, |walk, key, value| {
                    seats::group(walk, &mut self.groups, key, value);
                }),
                "seats" => each(&mut walk, "seats", value, |walk, key, value| {
                    seats::seat(walk, &mut self.seats, key, value);
                }),
                "matrix" => each(&mut walk, "matrix", value, |walk, key, value| {
                    seats::row(walk, &mut self.matrix, key, value);
                }),
                _ => walk.unknown("the site file", key, TOP_KEYS),
            }
        }
        self.named = named;
        include
    }

    fn site(&mut self, walk: &mut Walk, value: &Value) -> Vec<At<String>> {
        let mut include = Vec::new();
        let Some(table) = walk.table("[site]", value) else { return include };
        for (key, value) in table {
            match key.get_ref().as_ref() {
                "name" => {
                    let name = walk.text("name", value);
                    let name = name.filter(|name| plain(walk, "name", name));
                    walk.once(&mut self.name, "the site's name", name);
                }
                "domain" => {
                    let domain = net::domain(walk, value);
                    walk.once(&mut self.domain, "the site's domain", domain);
                }
                "ssh-keys" => {
                    let keys = walk.list("ssh-keys", value, ssh_key);
                    let keys = At::new(keys, walk.at(key.span()));
                    walk.once(&mut self.ssh_keys, "ssh-keys", Some(keys));
                }
                "include" => include = walk.one_or_many("include", value, Walk::text),
                "loaders" => {
                    let path = walk.path("loaders", value);
                    walk.once(&mut self.loaders, "loaders", path);
                }
                _ => walk.unknown("[site]", key, SITE_KEYS),
            }
        }
        include
    }

    fn admin(&mut self, walk: &mut Walk, value: &Value) {
        let Some(table) = walk.table("[admin]", value) else { return };
        for (key, value) in table {
            let (what, slot) = match key.get_ref().as_ref() {
                "listen" => ("listen", &mut self.listen),
                "ssh" => ("ssh", &mut self.ssh),
                _ => {
                    walk.unknown("[admin]", key, ADMIN_KEYS);
                    continue;
                }
            };
            let Some(text) = walk.text(what, value) else { continue };
            let address = walk.meaning("address with a port", text, |text| {
                text.parse().map_err(|_| {
                    let shown = super::values::shown(text);
                    Malformed::new(format!("{shown} is not an address with a port"))
                        .help(format!("{what} is written like 127.0.0.1:7070"))
                })
            });
            walk.once(slot, what, address);
        }
    }

    fn defaults(&mut self, walk: &mut Walk, value: &Value) {
        let Some(table) = walk.table("[defaults]", value) else { return };
        for (key, value) in table {
            match key.get_ref().as_ref() {
                "bmc" => {
                    let bmc = machines::bmc(walk, "[defaults.bmc]", value, false);
                    let bmc = bmc.map(|bmc| At::new(bmc, walk.at(key.span())));
                    walk.once(&mut self.bmc, "defaults.bmc", bmc);
                }
                _ => walk.unknown("[defaults]", key, DEFAULTS_KEYS),
            }
        }
    }
}

/// Every entry of a table of named things.
fn each(walk: &mut Walk, what: &str, value: &Value, mut one: impl FnMut(&mut Walk, &Key, &Value)) {
    let Some(table) = walk.table(&format!("[{what}]"), value) else { return };
    for (key, value) in table {
        one(walk, key, value);
    }
}

/// One line of printable text.
fn plain(walk: &mut Walk, what: &str, text: &At<String>) -> bool {
    let fine = !text.is_empty() && !text.chars().any(char::is_control);
    if !fine {
        let problem =
            Problem::error("value", &text.origin, format!("{what} must be one line of text"));
        walk.error(problem.label("empty, or with control characters"));
    }
    fine
}

/// A public key, as it goes into `authorized_keys`.
fn ssh_key(walk: &mut Walk, what: &str, value: &Value) -> Option<At<String>> {
    let text = walk.text(what, value)?;
    if text.contains("PRIVATE KEY") {
        let problem = Problem::error(
            "private-key",
            &text.origin,
            "THIS IS A PRIVATE KEY. It would be put into every root, where anybody on the \
             provisioning network can read it",
        )
        .label("a private key")
        .help("write the public key (the .pub file); treat this one as known to others and replace it");
        walk.error(problem);
        return None;
    }
    let text = text.map(|text| text.trim().to_string());
    if !plain(walk, "an SSH key", &text) {
        return None;
    }
    const KINDS: [&str; 4] = ["ssh-", "ecdsa-sha2-", "sk-ssh-", "sk-ecdsa-sha2-"];
    if !text.split_whitespace().any(|word| KINDS.iter().any(|kind| word.starts_with(kind))) {
        let problem =
            Problem::warning("ssh-key", &text.origin, "this is not an SSH public key I know");
        walk.error(problem.label("sshd may ignore it").help("like \"ssh-ed25519 AAAA… ops\""));
    }
    Some(text)
}
