//! From written to meant: names are looked up, classes and defaults merged into machines, groups
//! expanded. What does not fit is said, and the rest is looked at all the same.

use std::collections::BTreeMap;
use std::fmt::Display;

use super::consoles::{Consoles, consoles};
use super::logs::logs;
use super::machines::{by_bmc_mac, by_mac, machines, meant_class};
use super::matrix::{groups, matrix, one_namespace};
use super::{Admin, Net, Network, Role, RootMode, Seat, Site, addresses};
use crate::files::Files;
use crate::rollout::books::FAILURES;
use crate::site::load::{Env, Watched};
use crate::site::names::{NetworkName, RoleName, SeatName};
use crate::site::origin::{At, Origin};
use crate::site::problem::{Problem, Problems, did_you_mean};
use crate::site::values::{ImageRef, Unknown};
use crate::site::written::{self, Identify, Mode, RootWord, Written};

/// The site, as far as it can be made out: with errors among the problems it is not to be used.
pub(in crate::site) fn build(
    mut written: Written,
    root: &Origin,
    env: &Env,
    problems: &mut Problems,
) -> Site {
    let roles = roles(&mut written, problems);
    let machines = machines(&written, problems);
    let by_mac = by_mac(&machines, problems);
    let by_bmc_mac = by_bmc_mac(&machines, &by_mac, problems);
    let groups = groups(&written, problems);
    let net = net(&written, &roles, problems);
    let domain = written.domain.as_ref().map(|domain| domain.value.clone());
    let networks = networks(&mut written, problems);
    let seats = seats(&mut written, &roles, &networks, net.mode, problems);
    let (matrix, seated) = matrix(&mut written, problems);
    let table = addresses::Table {
        net: &net,
        machines: &machines,
        seats: &seats,
        networks: &networks,
        domain: domain.as_deref(),
        root,
        env,
    };
    let (subnets, by_address) = table.build(&written, problems);
    one_namespace(&written, problems);
    written.groups.clear();
    let classes = std::mem::take(&mut written.classes);
    let listen = written.listen.map_or(([127, 0, 0, 1], 7070).into(), |listen| listen.value);
    let ssh = written.ssh.map_or(([127, 0, 0, 1], 2222).into(), |ssh| ssh.value);
    let console = std::mem::take(&mut written.console);
    let logs = logs(&written.logs, problems);
    let mut site = Site {
        name: written.name.map_or_else(|| "koboshi".to_string(), |name| name.value),
        domain,
        ssh_keys: written.ssh_keys.map(|keys| keys.value).unwrap_or_default(),
        loaders: written.loaders,
        net,
        subnets,
        networks: networks.into_iter().filter_map(|(name, net)| Some((name, net?))).collect(),
        admin: Admin { listen, ssh },
        consoles: Consoles::default(),
        logs,
        classes: classes.into_iter().map(|(name, class)| (name, class.map(meant_class))).collect(),
        roles: roles.into_iter().filter_map(|(name, role)| Some((name, role?))).collect(),
        machines,
        groups,
        seats: seats.into_iter().filter_map(|(name, seat)| Some((name, seat?))).collect(),
        matrix,
        by_mac,
        by_bmc_mac,
        by_address,
        seated,
        files: Vec::new(),
        watched: Watched::default(),
        warnings: Problems::default(),
    };
    site.consoles = consoles(console, &site, problems);
    site
}

/// Where syslog listens if the site says nothing else (RFC 5426).
const SYSLOG: u16 = 514;

/// Things that are known by name but too wrong to be used: nobody is told they are missing.
type Half<K, V> = BTreeMap<K, Option<At<V>>>;

fn roles(written: &mut Written, problems: &mut Problems) -> Half<RoleName, Role> {
    let mut roles = Half::new();
    for (name, role) in std::mem::take(&mut written.roles) {
        let At { value: role, origin } = role;
        let root = root_mode(&name, &role, &origin, problems);
        let from_nfs = matches!(root, Some(RootMode::Nfs(_)));
        let image = role.image.or_else(|| {
            if !role.image_named {
                let problem =
                    Problem::error("no-image", &origin, format!("role {name} has no image"))
                        .label("nothing to run")
                        .help(format!(
                            "image = \"{name}\" for its newest version, \"{name}@3\" for one"
                        ));
                problems.push(if from_nfs {
                    problem.help("an NFS root also needs an image, for its kernel")
                } else {
                    problem
                });
            }
            None
        });
        let meant = image.zip(root).map(|(image, root)| {
            let root_size = role.root_size.map(|size| size.value).unwrap_or_default();
            let (cmdline, serial, loader) = (role.cmdline, role.serial, role.loader);
            let failures = role.failures.map_or(FAILURES, |failures| failures.value);
            let files = role.files.map(Files::of);
            let role = Role { image, cmdline, root, root_size, failures, serial, loader, files };
            At::new(role, origin)
        });
        roles.insert(name, meant);
    }
    roles
}

fn root_mode(
    name: &RoleName,
    role: &written::Role,
    origin: &Origin,
    problems: &mut Problems,
) -> Option<RootMode> {
    match (role.root.as_ref().map(|root| root.value), &role.nfs) {
        (Some(RootWord::Nfs), Some(nfs)) => Some(RootMode::Nfs(nfs.value.clone())),
        (Some(RootWord::Nfs), None) => {
            let at = role.root.as_ref().map_or(origin, |root| &root.origin);
            let message = format!("role {name} has its root on NFS but does not say where");
            let problem = Problem::error("no-nfs", at, message).label("on which server?");
            problems.push(problem.help("nfs = \"10.77.0.1:/srv/web,ro\""));
            None
        }
        (word, nfs) => {
            if let Some(nfs) = nfs {
                let message = format!("role {name} says nfs, but its root is not on NFS");
                let problem = Problem::warning("no-nfs", &nfs.origin, message);
                problems.push(problem.label("not used").help("root = \"nfs\" would use it"));
            }
            match word {
                Some(RootWord::Overlay) => Some(RootMode::Overlay),
                _ => Some(RootMode::Ram),
            }
        }
    }
}

/// A name that should be in a table and is not.
pub(super) fn missing<'a, T: Display>(
    kind: &'static str,
    name: &At<T>,
    known: impl Iterator<Item = &'a str>,
    who: String,
) -> Problem {
    let code = match kind {
        "class" => "unknown-class",
        "role" => "unknown-role",
        "seat" => "unknown-seat",
        "machine" => "unknown-machine",
        "network" => "unknown-network",
        _ => "unknown-name",
    };
    let table = match kind {
        "class" => "classes",
        "role" => "roles",
        "seat" => "seats",
        "machine" => "machines",
        _ => "networks",
    };
    let word = name.value.to_string();
    let help = did_you_mean(&word, known);
    let help = help.unwrap_or_else(|| format!("there is no {word} in [{table}]"));
    Problem::error(
        code,
        &name.origin,
        format!("{who} refers to {kind} {word}, which does not exist"),
    )
    .label(format!("no such {kind}"))
    .help(help)
}

fn net(written: &Written, roles: &Half<RoleName, Role>, problems: &mut Problems) -> Net {
    let net = &written.net;
    if let Some(At { value: Unknown::Role(role), origin }) = &net.unknown
        && !roles.contains_key(role)
    {
        let words = ["ignore", "discover", "menu"].into_iter();
        let known = words.chain(roles.keys().map(RoleName::as_str));
        let role = At::new(role.clone(), origin.clone());
        let problem = missing("role", &role, known, "`unknown`".into());
        let also = "\"ignore\", \"discover\", \"menu\" or a role's name".to_string();
        let help = problem.help.clone().filter(|help| help.starts_with("did")).unwrap_or(also);
        problems.push(problem.help(help));
    }
    if let Some(At { value: Unknown::Discover, origin }) = &net.unknown
        && !roles.contains_key("rescue")
    {
        let message = "unknown = \"discover\" boots the role rescue, which does not exist";
        let problem = Problem::error("unknown-role", origin, message);
        let help = "[roles.rescue] with image = \"rescue\"; `koboshi image build rescue --publish` makes it";
        problems.push(problem.label("into what?").help(help));
    }
    let menu = net.menu.as_ref().map(|menu| {
        for role in menu.value.iter().filter(|role| !roles.contains_key(&role.value)) {
            let known = roles.keys().map(RoleName::as_str);
            problems.push(missing("role", role, known, "`menu`".into()));
        }
        menu.value.clone()
    });
    if let Some(At { value: Unknown::Menu, origin }) = &net.unknown
        && menu.as_ref().map_or(roles.is_empty(), Vec::is_empty)
    {
        let problem = Problem::error("no-menu", origin, "the menu for unknown machines is empty");
        let problem = problem.label("nothing to choose");
        problems.push(problem.help("menu = [\"rescue\"] in [net], of roles under [roles]"));
    }
    let port = |port: u16| (port != 0).then_some(port);
    let ignored = !matches!(&net.unknown, Some(unknown) if unknown.value == Unknown::Discover);
    if let Some(At { value: Identify::Bmc, origin }) = &net.identify
        && ignored
    {
        let message = "identify = \"bmc\" needs to hear what machines are made of";
        let problem = Problem::warning("no-identity", origin, message);
        problems.push(problem.label("without effect").help("unknown = \"discover\" in [net]"));
    }
    Net {
        identify: net.identify.as_ref().map(|identify| identify.value).unwrap_or_default(),
        http_port: net.http_port.as_ref().map_or(8080, |port| port.value),
        mode: net.mode.as_ref().map(|mode| mode.value).unwrap_or_default(),
        lease: net.lease.as_ref().map(|lease| lease.value).unwrap_or_default(),
        unknown: net.unknown.as_ref().map(|unknown| unknown.value.clone()).unwrap_or_default(),
        unknown_at: net.unknown.as_ref().map(|unknown| At::new((), unknown.origin.clone())),
        menu,
        syslog: port(net.syslog.as_ref().map_or(SYSLOG, |port| port.value)),
        netconsole: port(net.netconsole.as_ref().map_or(0, |port| port.value)),
    }
}

fn networks(written: &mut Written, problems: &mut Problems) -> Half<NetworkName, Network> {
    let mut networks = Half::new();
    for (name, At { value: network, origin }) in std::mem::take(&mut written.networks) {
        if network.cidr.is_none() {
            let problem = Problem::error("no-cidr", &origin, format!("network {name} has no cidr"));
            problems.push(problem.label("which addresses?").help("cidr = \"10.20.0.0/24\""));
        }
        let (gateway, mtu) = (network.gateway, network.mtu.map(|mtu| mtu.value));
        let (vlan, routes) = (network.vlan.map(|vlan| vlan.value), network.routes);
        let meant = network
            .cidr
            .map(|cidr| At::new(Network { cidr: cidr.value, gateway, vlan, mtu, routes }, origin));
        networks.insert(name, meant);
    }
    networks
}

fn seats(
    written: &mut Written,
    roles: &Half<RoleName, Role>,
    networks: &Half<NetworkName, Network>,
    mode: Mode,
    problems: &mut Problems,
) -> Half<SeatName, Seat> {
    let mut seats = Half::new();
    for (name, At { value: seat, origin }) in &written.seats {
        match &seat.role {
            Some(role) if !roles.contains_key(&role.value) => {
                let known = roles.keys().map(RoleName::as_str);
                problems.push(missing("role", role, known, format!("seat {name}")));
            }
            None if !seat.role_named => {
                let problem = Problem::error("no-role", origin, format!("seat {name} has no role"));
                problems
                    .push(problem.label("what does it run?").help("role = \"NAME\" of [roles]"));
            }
            _ => {}
        }
        if mode == Mode::Server && !seat.ip_named {
            let problem = Problem::error("no-ip", origin, format!("seat {name} has no ip"));
            problems.push(problem.label("no address").help(
                "ip = \"ADDRESS\"; only beside somebody else's DHCP server (mode = \"proxy\") it may be left out",
            ));
        }
        for (network, net) in &seat.nets {
            if !networks.contains_key(network) {
                let known = networks.keys().map(NetworkName::as_str);
                let network = At::new(network.clone(), net.origin.clone());
                problems.push(missing("network", &network, known, format!("seat {name}")));
            }
        }
        let meant = seat.role.clone().map(|role| {
            let seat = Seat {
                role,
                ip: seat.ip.clone(),
                args: seat.args.clone(),
                nets: seat.nets.clone(),
                disks: seat.disks.clone(),
                exclusive: seat.exclusive.as_ref().map(|word| word.value).unwrap_or_default(),
                takeover: seat.takeover.as_ref().map(|word| word.value).unwrap_or_default(),
                files: seat.files.clone().map(Files::of),
            };
            At::new(seat, origin.clone())
        });
        seats.insert(name.clone(), meant);
    }
    seats
}

/// An image a role needs and the store does not have, for the caller who knows the store.
pub fn image_missing(image: &ImageRef, origin: &Origin, known: &[String]) -> Problem {
    let known_names = known.iter().map(String::as_str);
    Problem::error("no-such-image", origin, format!("image {image} does not exist"))
        .label("no such image")
        .help(format!("koboshi image import {} PATH, then koboshi image publish", image.name))
        .maybe_help(did_you_mean(&image.name, known_names))
}
