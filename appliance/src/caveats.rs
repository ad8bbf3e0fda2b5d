//! What is no error in a site file and yet will not do what its writer thinks: what is missing for
//! it, and what this koboshi does not do yet. Each is a warning with its line, from `check` and from
//! `serve`: a setting that is silently without effect is found at 3 a.m. When something of the
//! second kind is built, its paragraph here goes.

use crate::publish::boot_subnet;
use crate::site::{
    At, Kind, MachineName, Mode, Origin, Problem, Problems, Reach, Role, RootMode, Site,
};

mod nics;

/// A warning for each.
pub fn caveats(site: &Site) -> Problems {
    let mut found = Problems::default();
    missing(site, &mut found);
    nics::nics(site, &mut found);
    unbuilt(site, &mut found);
    found
}

fn missing(site: &Site, found: &mut Problems) {
    let Some(subnet) = boot_subnet(site) else { return };
    if subnet.pool.is_some() {
        return;
    }
    let without =
        |name: &&MachineName| site.seat_of(name).is_none_or(|(_, seat)| seat.ip.is_none());
    let boots = site.machines.iter().filter(|(_, machine)| !machine.macs.is_empty());
    let mut idle = boots.map(|(name, _)| name).filter(without).peekable();
    if let Some(name) = idle.peek() {
        let origin = match site.matrix.get(*name) {
            Some(line) => &line.origin,
            None => &site.machines[*name].origin,
        };
        let message = format!("{name} has no address, and there is no pool to give it one");
        let problem = Problem::warning("no-pool", origin, message);
        let problem = problem.label("it gets no answer at all");
        found.push(
            problem.help(
                "add pool = \"FIRST-LAST\" to [net], for machines without a seat (spares too)",
            ),
        );
    }
}

fn unbuilt(site: &Site, found: &mut Problems) {
    let mut say = |origin: &Origin, what: String, help: &str| {
        let problem = Problem::warning("not-built", origin, format!("{what}: not built yet"));
        found.push(problem.label("without effect").help(help));
    };
    if site.net.mode == Mode::Proxy
        && let Some(subnet) = site.subnets.first()
    {
        let help = "serve refuses to start: a second DHCP server beside yours would do harm";
        say(&subnet.origin, "mode = \"proxy\"".to_string(), help);
    }
    let mut boots = 0;
    for subnet in &site.subnets {
        match (&subnet.reach, subnet.kind) {
            (Reach::Relay(_), _) => {
                say(
                    &subnet.origin,
                    "a subnet behind a relay".to_string(),
                    "its machines get no answer",
                );
            }
            (_, Kind::Bmc) => {
                say(&subnet.origin, "kind = \"bmc\"".to_string(), "BMCs get no addresses from it");
            }
            (Reach::Interface(name), Kind::Boot) => {
                boots += 1;
                if boots > 1 {
                    let what = format!("a second network to boot on ({name})");
                    say(&subnet.origin, what, "only the first one is served");
                }
            }
        }
    }
    for (name, role) in &site.roles {
        if let Some(why) = role_unbuilt(role) {
            say(
                &role.origin,
                format!("role {name}, {why}"),
                "its machines wait instead of booting",
            );
        }
    }
    for (name, seat) in &site.seats {
        if !seat.disks.is_empty() {
            say(&seat.origin, format!("seat {name}, disks"), "nothing is mounted");
        }
    }
}

/// Why a role cannot be booted by this koboshi.
pub fn role_unbuilt(role: &At<Role>) -> Option<String> {
    match role.root {
        RootMode::Ram => None,
        RootMode::Overlay => Some("root = \"overlay\"".to_string()),
        RootMode::Nfs(_) => Some("root = \"nfs\"".to_string()),
    }
}
