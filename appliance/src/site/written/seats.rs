//! `[roles]`, `[seats]`, `[groups]` and `[matrix]` as written.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::str::FromStr;

use koboshi_pxe::menu::{fits_cmdline, is_argument, not_for_ipxe};
use serde::{Serialize, Serializer};

use super::machines::loader;
use super::net::interface;
use super::walk::{Key, Value, Walk};
use super::{Row, plain};
use crate::site::hostlist::HostList;
use crate::site::names::{GroupName, MachineName, Malformed, NetworkName, RoleName, SeatName};
use crate::site::origin::At;
use crate::site::problem::Problem;
use crate::site::values::{ImageRef, RootSize, Serial, shown};

/// What a machine is meant to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// In this seat.
    Seat(SeatName),
    /// Free to take over any seat.
    Spare,
}

impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Place::Seat(seat) => std::fmt::Display::fmt(seat, f),
            Place::Spare => f.pad("spare"),
        }
    }
}

impl Serialize for Place {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl FromStr for Place {
    type Err = Malformed;
    fn from_str(text: &str) -> Result<Place, Malformed> {
        match text {
            "spare" => Ok(Place::Spare),
            seat => seat.parse().map(Place::Seat),
        }
    }
}

/// What must be proved of the former holder before a seat moves.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Exclusive {
    /// That it cannot run. Never two holders.
    #[default]
    Fence,
    /// That it does not answer: enough for the stateless.
    Probe,
}

/// Whether a seat moves to a spare by itself.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Takeover {
    /// No.
    Never,
    /// The operator is asked.
    #[default]
    Ask,
    /// Yes.
    Auto,
}

/// A seat's life on a further network.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct SeatNet {
    /// Its address there.
    pub ip: Option<At<Ipv4Addr>>,
    /// The interface or bond that carries it.
    pub on: Option<At<String>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::site) enum RootWord {
    Ram,
    Overlay,
    Nfs,
}

#[derive(Default)]
pub(in crate::site) struct Role {
    pub image: Option<At<ImageRef>>,
    /// An image is named, but not well: said once.
    pub image_named: bool,
    pub cmdline: Option<At<String>>,
    pub root: Option<At<RootWord>>,
    pub root_size: Option<At<RootSize>>,
    pub nfs: Option<At<String>>,
    pub failures: Option<At<u32>>,
    pub serial: Option<At<Serial>>,
    pub loader: Option<At<String>>,
    pub files: Option<At<PathBuf>>,
}

#[derive(Default, Clone)]
pub(in crate::site) struct Seat {
    pub role: Option<At<RoleName>>,
    pub role_named: bool,
    pub ip: Option<At<Ipv4Addr>>,
    pub ip_named: bool,
    pub args: BTreeMap<String, At<String>>,
    pub nets: BTreeMap<NetworkName, At<SeatNet>>,
    pub disks: BTreeMap<String, At<String>>,
    pub exclusive: Option<At<Exclusive>>,
    pub takeover: Option<At<Takeover>>,
    pub files: Option<At<PathBuf>>,
}

const ROLE_KEYS: &[&str] =
    &["image", "cmdline", "root", "root-size", "nfs", "failures", "serial", "loader", "files"];
const SEAT_KEYS: &[&str] =
    &["role", "ip", "args", "nets", "disks", "exclusive", "takeover", "files"];

pub(super) fn role(
    walk: &mut Walk,
    roles: &mut BTreeMap<RoleName, At<Role>>,
    key: &Key,
    value: &Value,
) {
    let mut role = Role::default();
    let Some(table) = walk.table(&format!("role {}", key.get_ref()), value) else { return };
    for (key, value) in table {
        match key.get_ref().as_ref() {
            "image" => {
                role.image_named = true;
                role.image = walk.parsed("image", value);
            }
            "cmdline" => role.cmdline = cmdline(walk, value),
            "root" => {
                let words = [
                    ("ram", RootWord::Ram),
                    ("overlay", RootWord::Overlay),
                    ("nfs", RootWord::Nfs),
                ];
                role.root = walk.word("root", value, &words);
            }
            "root-size" => role.root_size = walk.parsed("size", value),
            "nfs" => {
                let nfs = walk.text("nfs", value);
                role.nfs = nfs.and_then(|nfs| walk.meaning("NFS root", nfs, nfs_root));
            }
            "failures" => role.failures = walk.number("failures", value, 0..=100),
            "serial" => role.serial = walk.parsed("serial port", value),
            "loader" => role.loader = loader(walk, value),
            "files" => role.files = walk.path("files", value),
            _ => walk.unknown("a role", key, ROLE_KEYS),
        }
    }
    let name = At::new(key.get_ref().to_string(), walk.at(key.span()));
    if let Some(name) = walk.meaning("name", name, RoleName::from_str) {
        walk.insert(roles, "role", name.value, At::new(role, name.origin));
    }
}

/// `host:/path` or `host:/path,opts`, as `nfsroot=` takes it.
fn nfs_root(text: &str) -> Result<String, Malformed> {
    let bad = || {
        Malformed::new(format!("{} is not an NFS root", shown(text)))
            .help("like 10.77.0.1:/srv/web or 10.77.0.1:/srv/web,ro,vers=4.2")
    };
    let (host, path) = text.split_once(":/").ok_or_else(bad)?;
    let plain = |c: char| c.is_ascii_graphic() && c != '"';
    if host.is_empty() || !host.chars().all(plain) || !path.chars().all(plain) {
        return Err(bad());
    }
    if not_for_ipxe(text).is_some() {
        return Err(Malformed::new(format!(
            "{} cannot pass through the loader's script",
            shown(text)
        ))
        .help(NOT_FOR_IPXE));
    }
    Ok(text.to_string())
}

fn cmdline(walk: &mut Walk, value: &Value) -> Option<At<String>> {
    let text = walk.text("cmdline", value)?;
    if text.is_empty() {
        return None;
    }
    if !plain(walk, "cmdline", &text) {
        return None;
    }
    if let Some(word) = not_for_ipxe(&text) {
        let message = format!("{} cannot pass through the loader's script", shown(word));
        let problem = Problem::error("cmdline", &text.origin, message);
        walk.error(problem.label("iPXE would take this as its own").help(NOT_FOR_IPXE));
        return None;
    }
    for word in text.split_whitespace() {
        if word.starts_with("koboshi.") {
            let message = format!("{} on the command line is ours to say", shown(word));
            let problem = Problem::error("cmdline", &text.origin, message);
            walk.error(problem.label("a koboshi.… key").help("use a name of your own"));
            return None;
        }
        if word.starts_with("console=") {
            let problem = Problem::warning(
                "cmdline",
                &text.origin,
                format!("{} may disagree with the machine's serial port", shown(word)),
            );
            walk.error(problem.label("a console of its own").help(
                "`serial` of the machine, its class or this role sets loader, kernel and getty alike",
            ));
        }
    }
    Some(text)
}

pub(super) fn seat(
    walk: &mut Walk,
    seats: &mut BTreeMap<SeatName, At<Seat>>,
    key: &Key,
    value: &Value,
) {
    let origin = walk.at(key.span());
    walk.names("name", key, |walk, name: SeatName| {
        if let Some(seat) = one_seat(walk, &name, value) {
            walk.insert(seats, "seat", name, At::new(seat, origin.clone()));
        }
    });
}

fn one_seat(walk: &mut Walk, name: &SeatName, value: &Value) -> Option<Seat> {
    let mut seat = Seat::default();
    for (key, value) in walk.table(&format!("seat {name}"), value)? {
        match key.get_ref().as_ref() {
            "role" => {
                seat.role_named = true;
                seat.role = walk.parsed("role", value);
            }
            "ip" => {
                seat.ip_named = true;
                seat.ip = walk.address("ip", value);
            }
            "args" => args(walk, &mut seat.args, value),
            "nets" => nets(walk, &mut seat.nets, value),
            "disks" => disks(walk, &mut seat.disks, value),
            "exclusive" => {
                let words = [("fence", Exclusive::Fence), ("probe", Exclusive::Probe)];
                seat.exclusive = walk.word("exclusive", value, &words);
            }
            "takeover" => {
                let words =
                    [("never", Takeover::Never), ("ask", Takeover::Ask), ("auto", Takeover::Auto)];
                seat.takeover = walk.word("takeover", value, &words);
            }
            "files" => seat.files = walk.path("files", value),
            _ => walk.unknown("a seat", key, SEAT_KEYS),
        }
    }
    Some(seat)
}

const NOT_FOR_IPXE: &str = "no word `;`, `||` or `&&`, no word that begins with `#`, and no `${`: iPXE's shell has no quotes";

/// `key=value` on the kernel command line. The kernel knows quotes but no way to escape one.
fn args(walk: &mut Walk, out: &mut BTreeMap<String, At<String>>, value: &Value) {
    let Some(table) = walk.table("args", value) else { return };
    for (key, value) in table {
        let name = At::new(key.get_ref().to_string(), walk.at(key.span()));
        let name = walk.meaning("argument", name, |name| {
            if !is_argument(name) {
                return Err(Malformed::new(format!(
                    "{} is not a name for an argument",
                    shown(name)
                ))
                .help("letters, digits, '.', '_' and '-', and not beginning with \"koboshi.\""));
            }
            Ok(name.to_string())
        });
        let text = if let Some(flag) = value.get_ref().as_bool() {
            Some(At::new(flag.to_string(), walk.at(value.span())))
        } else if value.get_ref().is_integer() {
            let number = walk.number::<i64>("an argument", value, i64::MIN..=i64::MAX);
            number.map(|number| number.map(|number| number.to_string()))
        } else {
            let text = walk.text("an argument", value);
            text.and_then(|text| {
                walk.meaning("argument's value", text, |text| {
                    if let Some(word) = not_for_ipxe(text) {
                        return Err(Malformed::new(format!(
                            "{} cannot pass through the loader's script",
                            shown(word)
                        ))
                        .help(NOT_FOR_IPXE));
                    }
                    if !fits_cmdline(text) {
                        return Err(Malformed::new(format!(
                            "{} cannot stand on a kernel command line",
                            shown(text)
                        ))
                        .help("no quotation marks and no control characters"));
                    }
                    Ok(text.to_string())
                })
            })
        };
        if let (Some(name), Some(text)) = (name, text) {
            out.insert(name.value, text);
        }
    }
}

fn nets(walk: &mut Walk, out: &mut BTreeMap<NetworkName, At<SeatNet>>, value: &Value) {
    let Some(table) = walk.table("nets", value) else { return };
    for (key, value) in table {
        let mut net = SeatNet { ip: None, on: None };
        if value.get_ref().is_str() {
            net.ip = walk.address("ip", value);
        } else if let Some(table) = walk.table("a seat's network", value) {
            for (key, value) in table {
                match key.get_ref().as_ref() {
                    "ip" => net.ip = walk.address("ip", value),
                    "on" => {
                        let name = walk.text("on", value);
                        net.on = name.and_then(|name| walk.meaning("interface", name, interface));
                    }
                    _ => walk.unknown("a seat's network", key, &["ip", "on"]),
                }
            }
        }
        let name = At::new(key.get_ref().to_string(), walk.at(key.span()));
        if let Some(name) = walk.meaning("name", name, NetworkName::from_str) {
            out.insert(name.value, At::new(net, name.origin));
        }
    }
}

fn disks(walk: &mut Walk, out: &mut BTreeMap<String, At<String>>, value: &Value) {
    let Some(table) = walk.table("disks", value) else { return };
    for (key, value) in table {
        let path = At::new(key.get_ref().to_string(), walk.at(key.span()));
        let path = walk.meaning("mount point", path, |path| {
            let up = path.split('/').any(|part| part == "..");
            if !path.starts_with('/') || path == "/" || up || path.chars().any(char::is_control) {
                return Err(Malformed::new(format!("{} is not a place to mount at", shown(path)))
                    .help("like \"/var/lib/mysql\": an absolute path, and not / itself"));
            }
            Ok(path.to_string())
        });
        let what = walk.text("a disk", value);
        let what = what.and_then(|what| {
            walk.meaning("disk", what, |what| {
                const BY: [&str; 6] =
                    ["LABEL=", "UUID=", "PARTLABEL=", "PARTUUID=", "SERIAL=", "/dev/"];
                let named = BY.iter().any(|by| what.len() > by.len() && what.starts_with(by));
                if !named || what.chars().any(|c| c.is_control() || c.is_whitespace()) {
                    return Err(Malformed::new(format!("{} does not name a disk", shown(what)))
                        .help(
                            "like LABEL=db, UUID=…, PARTLABEL=…, PARTUUID=…, SERIAL=… or /dev/…",
                        ));
                }
                Ok(what.to_string())
            })
        });
        if let (Some(path), Some(what)) = (path, what) {
            out.insert(path.value, what);
        }
    }
}

pub(super) fn group(
    walk: &mut Walk,
    groups: &mut BTreeMap<GroupName, At<Vec<At<HostList>>>>,
    key: &Key,
    value: &Value,
) {
    let lists = walk.one_or_many("a group", value, |walk, what, value| {
        let text = walk.text(what, value)?;
        walk.meaning("host list", text, |text| {
            HostList::from_str(text).map_err(|bad| {
                Malformed::new(bad.to_string()).help("like m[01-20],sw1 or @other,m07")
            })
        })
    });
    let name = At::new(key.get_ref().to_string(), walk.at(key.span()));
    if let Some(name) = walk.meaning("name", name, GroupName::from_str) {
        walk.insert(groups, "group", name.value, At::new(lists, name.origin));
    }
}

pub(super) fn row(
    walk: &mut Walk,
    matrix: &mut BTreeMap<MachineName, At<Row>>,
    key: &Key,
    value: &Value,
) {
    let origin = walk.at(key.span());
    walk.names("name", key, |walk, machine: MachineName| {
        if let Some(place) = walk.parsed::<Place>("seat", value) {
            let row = place.map(|place| Row { place, key: origin.clone() });
            walk.insert(matrix, "the matrix line of", machine, row);
        }
    });
}
