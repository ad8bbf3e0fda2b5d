//! What is no error in a site file and yet will not do what its writer thinks, mostly for want of
//! something else. Each is a warning with its line, from `check` and from `serve`: a setting that is
//! silently without effect is found at 3 a.m.

use crate::loaders;
use crate::site::{Kind, MachineName, Mode, NfsRoot, Problem, Problems, RootMode, Site};

mod bmcs;
mod nics;

/// A warning for each.
pub fn caveats(site: &Site) -> Problems {
    let mut found = Problems::default();
    missing(site, &mut found);
    nics::nics(site, &mut found);
    bmcs::bmcs(site, &mut found);
    shared(site, &mut found);
    loaders::unfit(site, &mut found);
    found
}

fn missing(site: &Site, found: &mut Problems) {
    let mut boots = site.subnets.iter().filter(|subnet| subnet.kind == Kind::Boot).peekable();
    let lent_elsewhere = site.net.mode == Mode::Proxy;
    if lent_elsewhere || boots.peek().is_none() || boots.any(|subnet| subnet.pool.is_some()) {
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

/// Roles whose machines would write to one root at once.
fn shared(site: &Site, found: &mut Problems) {
    for (name, role) in &site.roles {
        let RootMode::Nfs(text) = &role.root else { continue };
        let nfs = NfsRoot::of(text);
        let seats = site.seats.values().filter(|seat| seat.role.value == *name).count();
        if nfs.read_only || seats < 2 {
            continue;
        }
        let message = format!(
            "{seats} seats of role {name} would write to one root, {}:{}",
            nfs.host, nfs.path
        );
        let problem = Problem::warning("shared-root", &role.origin, message);
        found.push(problem.label("they take each other's host name, keys and files").help(
            "say ro instead of rw: each machine then writes into its own memory, above the server's root",
        ));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::site::{self, Env};

    fn said(roles: &str) -> Vec<String> {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("site.toml");
        let text = format!(
            "[site]\nname = \"rack\"\n[net]\ninterface = \"eth1\"\ncidr = \"10.77.0.0/24\"\n{roles}\n\
             [seats]\nweb1 = {{ role = \"web\", ip = \"10.77.0.11\" }}\n\
             web2 = {{ role = \"web\", ip = \"10.77.0.12\", disks = {{ \"/data\" = \"SERIAL=S1\" }} }}\n"
        );
        std::fs::write(&path, text).expect("written");
        let env =
            Env { interface_network: &|_: &str| Vec::new(), purpose: site::load::Purpose::Check };
        let site = site::load(&path, &env).map_err(|bad| bad.render(site::Look::Plain));
        caveats(&site.expect("a site")).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn two_seats_that_write_to_one_root_are_told_apart_from_two_that_read_it() {
        let role = |nfs: &str| {
            format!("[roles.web]\nimage = \"web\"\nroot = \"nfs\"\nnfs = \"nas:/srv/web{nfs}\"")
        };
        let shared = said(&role(",vers=4.2,rw"));
        assert!(
            shared.iter().any(|line| line.contains("2 seats of role web would write to one root"))
        );
        for nfs in ["", ",ro", ",rw,ro"] {
            assert_eq!(said(&role(nfs)), Vec::<String>::new(), "{nfs}");
        }
        assert_eq!(said("[roles.web]\nimage = \"web\"\nroot = \"overlay\""), Vec::<String>::new());
    }
}
