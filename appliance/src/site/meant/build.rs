//! From written to meant: names are looked up, classes and defaults merged into machines, groups
//! expanded. What does not fit is said, and the rest is looked at all the same.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Display;

use koboshi_pxe::Mac;

use super::{Admin, Class, Group, Machine, Net, Network, Role, RootMode, Seat, Site, addresses};
use crate::site::hardware::{BmcPart, Console, Fence};
use crate::site::hostlist;
use crate::site::load::{Env, Watched};
use crate::site::names::{ClassName, GroupName, MachineName, NetworkName, RoleName, SeatName};
use crate::site::origin::{At, Origin};
use crate::site::problem::{Problem, Problems, did_you_mean};
use crate::site::values::{ImageRef, Unknown};
use crate::site::written::{self, Mode, Place, RootWord, Written};

/// The site, as far as it can be made out. `None` where a part is missing that others stand on.
pub(in crate::site) fn build(
    mut written: Written,
    root: &Origin,
    env: &Env,
    problems: &mut Problems,
) -> Option<Site> {
    let roles = roles(&mut written, problems);
    let machines = machines(&written, problems);
    let by_mac = by_mac(&machines, problems);
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
    Some(Site {
        name: written.name.map_or_else(|| "koboshi".to_string(), |name| name.value),
        domain,
        ssh_keys: written.ssh_keys.map(|keys| keys.value).unwrap_or_default(),
        loaders: written.loaders,
        net,
        subnets,
        networks: networks.into_iter().filter_map(|(name, net)| Some((name, net?))).collect(),
        admin: Admin { listen, ssh },
        classes: classes.into_iter().map(|(name, class)| (name, class.map(meant_class))).collect(),
        roles: roles.into_iter().filter_map(|(name, role)| Some((name, role?))).collect(),
        machines,
        groups,
        seats: seats.into_iter().filter_map(|(name, seat)| Some((name, seat?))).collect(),
        matrix,
        by_mac,
        by_address,
        seated,
        files: Vec::new(),
        watched: Watched::default(),
        warnings: Problems::default(),
    })
}

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
            At::new(Role { image, cmdline, root, root_size, serial, loader }, origin)
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

fn meant_class(class: written::Class) -> Class {
    let shared = class.shared;
    Class {
        serial: shared.serial,
        loader: shared.loader,
        nics: shared.nics.map(|nics| nics.value).unwrap_or_default(),
        quirks: shared.quirks.map(|quirks| quirks.value).unwrap_or_default(),
    }
}

fn machines(written: &Written, problems: &mut Problems) -> BTreeMap<MachineName, At<Machine>> {
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

fn by_mac(
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

/// A name that should be in a table and is not.
fn missing<'a, T: Display>(
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
    Net {
        http_port: net.http_port.as_ref().map_or(8080, |port| port.value),
        mode: net.mode.as_ref().map(|mode| mode.value).unwrap_or_default(),
        lease: net.lease.as_ref().map(|lease| lease.value).unwrap_or_default(),
        unknown: net.unknown.as_ref().map(|unknown| unknown.value.clone()).unwrap_or_default(),
        unknown_at: net.unknown.as_ref().map(|unknown| At::new((), unknown.origin.clone())),
        syslog: net.syslog.as_ref().map(|port| port.value),
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
        let vlan = network.vlan.map(|vlan| vlan.value);
        let meant = network
            .cidr
            .map(|cidr| At::new(Network { cidr: cidr.value, gateway, vlan, mtu }, origin));
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
            };
            At::new(seat, origin.clone())
        });
        seats.insert(name.clone(), meant);
    }
    seats
}

type Matrix = BTreeMap<MachineName, At<Place>>;

fn matrix(
    written: &mut Written,
    problems: &mut Problems,
) -> (Matrix, BTreeMap<SeatName, MachineName>) {
    let mut matrix = Matrix::new();
    let mut held: BTreeMap<SeatName, (MachineName, Origin)> = BTreeMap::new();
    let mut rows: Vec<_> = std::mem::take(&mut written.matrix).into_iter().collect();
    rows.sort_by_key(|(_, row)| row.origin.order());
    for (machine, At { value: row, origin }) in rows {
        let known = written.machines.get(&machine);
        if known.is_none() {
            let names = written.machines.keys().map(MachineName::as_str);
            let name = At::new(machine.clone(), row.key.clone());
            problems.push(missing("machine", &name, names, "the matrix".into()));
        }
        if let Place::Seat(seat) = &row.place {
            if !written.seats.contains_key(seat) {
                let names = written.seats.keys().map(SeatName::as_str).chain(["spare"]);
                let name = At::new(seat.clone(), origin.clone());
                problems.push(missing(
                    "seat",
                    &name,
                    names,
                    format!("the matrix line of {machine}"),
                ));
            }
            match held.get(seat) {
                Some((first, there)) => problems.push(
                    Problem::error(
                        "seat-twice",
                        &origin,
                        format!("seat {seat} is given to {first} and to {machine}"),
                    )
                    .label(format!("{machine} sits in {seat}, too"))
                    .also(there, format!("{first} sits in {seat}"))
                    .help("a seat has one machine; \"spare\" is a machine without a seat"),
                ),
                None => {
                    held.insert(seat.clone(), (machine.clone(), origin.clone()));
                }
            }
        }
        if known.is_some_and(|known| known.macs.is_empty()) {
            let message =
                format!("machine {machine} has a place in the matrix but no mac to boot by");
            let problem = Problem::error("no-mac", &row.key, message);
            problems
                .push(problem.label("cannot boot").help("mac = [\"52:54:00:…\"] on the machine"));
        }
        matrix.insert(machine, At::new(row.place, origin));
    }
    (matrix, held.into_iter().map(|(seat, (machine, _))| (seat, machine)).collect())
}

/// A name is a machine's or a seat's; `@name` a group's or a role's.
fn one_namespace(written: &Written, problems: &mut Problems) {
    for (name, seat) in &written.seats {
        if let Some(machine) = written.machines.get(name.as_str()) {
            problems.push(
                Problem::error(
                    "name-twice",
                    &seat.origin,
                    format!("{name} is a machine and a seat"),
                )
                .label("the seat")
                .also(&machine.origin, "the machine")
                .help("a machine is hardware, a seat is what it serves as: give one another name"),
            );
        }
    }
}

fn groups(written: &Written, problems: &mut Problems) -> BTreeMap<GroupName, At<Group>> {
    let mut groups = BTreeMap::new();
    let mut round = BTreeSet::new();
    for (name, group) in &written.groups {
        let mut members = BTreeSet::new();
        let mut chain = vec![name];
        gather(written, name, &mut chain, &mut members, &mut round, problems);
        groups.insert(name.clone(), At::new(Group { members }, group.origin.clone()));
        if written.roles.contains_key(name.as_str()) {
            let problem = Problem::error(
                "name-twice",
                &group.origin,
                format!("{name} is a group and a role"),
            );
            problems.push(problem.label("the group").help(format!("@{name} would be either")));
        }
    }
    groups
}

/// A group's machines; those of `@other` within it, too.
fn gather<'w>(
    written: &'w Written,
    name: &'w GroupName,
    chain: &mut Vec<&'w GroupName>,
    members: &mut BTreeSet<MachineName>,
    round: &mut BTreeSet<GroupName>,
    problems: &mut Problems,
) {
    let Some(group) = written.groups.get(name) else { return };
    for list in &group.value {
        let names = list.resolve(|other| {
            let mut inside = BTreeSet::new();
            if other == "all" {
                inside.extend(written.machines.keys().cloned());
            } else if let Some((other, _)) = written.groups.get_key_value(other) {
                if let Some(at) = chain.iter().position(|one| *one == other) {
                    // Said once, whichever group of the round is looked at first.
                    let whole: Vec<String> =
                        chain[at..].iter().map(|one| format!("@{one}")).collect();
                    if chain[at..].iter().all(|one| !round.contains(*one)) {
                        let message = format!("groups contain each other: {}", whole.join(" → "));
                        let problem = Problem::error("group-cycle", &list.origin, message);
                        problems.push(problem.label(format!("leads back to @{other}")));
                    }
                    round.extend(chain[at..].iter().map(|one| (*one).clone()));
                } else if chain.len() < 64 {
                    chain.push(other);
                    gather(written, other, chain, &mut inside, round, problems);
                    chain.pop();
                }
            } else {
                let known = written.groups.keys().map(GroupName::as_str);
                let help = did_you_mean(other, known);
                let message = format!("group {name} contains @{other}, which does not exist");
                let problem = Problem::error("unknown-group", &list.origin, message);
                problems.push(problem.label("no such group").maybe_help(help));
            }
            Ok::<_, std::convert::Infallible>(inside.iter().map(|m| m.to_string()).collect())
        });
        let Ok(names) = names;
        let (known, unknown): (Vec<_>, Vec<_>) =
            names.into_iter().partition(|name| written.machines.contains_key(name.as_str()));
        members.extend(known.iter().filter_map(|name| {
            written.machines.get_key_value(name.as_str()).map(|(name, _)| name.clone())
        }));
        if !unknown.is_empty() && chain.len() == 1 {
            let message = format!("group {name} names machines that do not exist");
            let problem = Problem::warning("unknown-machine", &list.origin, message);
            let folded: String = hostlist::fold(&unknown).chars().take(200).collect();
            problems.push(problem.label(format!("not in [machines]: {folded}")));
        }
    }
}

/// An image a role needs and the store does not have, for the caller who knows the store.
pub fn image_missing(image: &ImageRef, origin: &Origin, known: &[String]) -> Problem {
    let known_names = known.iter().map(String::as_str);
    Problem::error("no-such-image", origin, format!("image {image} does not exist"))
        .label("no such image")
        .help(format!("koboshi image import {} PATH, then koboshi image publish", image.name))
        .maybe_help(did_you_mean(&image.name, known_names))
}
