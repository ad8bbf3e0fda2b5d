//! BMCs that cannot be logged into, or that everybody could; and machines whose fence is not built yet.

use std::collections::{BTreeMap, BTreeSet};

use crate::bmcs::secrets;
use crate::site::hostlist::fold;
use crate::site::{At, Bmc, Fence, MachineName, Origin, Problem, Problems, Secret, Site};

pub(super) fn bmcs(site: &Site, found: &mut Problems) {
    let bmcs = || {
        let machines = site.machines.iter();
        machines.filter_map(|(name, machine)| Some((name, machine.bmc.as_ref()?)))
    };
    let without = |lacks: fn(&Bmc) -> bool| bmcs().filter(move |(_, bmc)| lacks(bmc));
    nobody("no-account", without(|bmc| bmc.user.is_none()), "account", "user = \"NAME\"", found);
    nobody(
        "no-password",
        without(|bmc| bmc.password.is_none()),
        "password",
        "password-file = \"FILE\"",
        found,
    );
    let mut files = BTreeMap::new();
    for (_, bmc) in bmcs() {
        if let Some(At { value: Secret::File(path), origin }) = &bmc.password {
            files.entry(path).or_insert(origin);
        }
        if let Some(path) = &bmc.kg {
            files.entry(&path.value).or_insert(&path.origin);
        }
    }
    for (path, origin) in files {
        let message = match (secrets::file(path), secrets::careless(path)) {
            (Err(why), _) => why.to_string(),
            (Ok(_), Some(careless)) => format!("{}: {careless}", path.display()),
            (Ok(_), None) => continue,
        };
        let problem = Problem::warning("secret-file", origin, message);
        let help = format!("chmod 600 {0}, owned by whom the appliance runs as", path.display());
        found.push(problem.label("this file").help(help));
    }
    unbuilt(site, found);
}

/// Machines whose BMC lets nobody in, for want of this.
fn nobody<'a>(
    code: &'static str,
    bmcs: impl Iterator<Item = (&'a MachineName, &'a Bmc)>,
    what: &str,
    example: &str,
    found: &mut Problems,
) {
    let bmcs: Vec<(&MachineName, &Bmc)> = bmcs.collect();
    let Some((_, first)) = bmcs.first() else { return };
    let names = fold(bmcs.iter().map(|(name, _)| name));
    let message = format!("no {what} is given for the BMC of {names}");
    let problem = Problem::warning(code, &first.host.origin, message);
    let help = format!("{example} in [defaults.bmc], in the class or with the machine's bmc");
    found.push(problem.label("cannot be logged into").help(help));
}

/// Machines that are to be fenced by a means that is not built yet, and by no other.
fn unbuilt(site: &Site, found: &mut Problems) {
    let other = |machine: &&At<crate::site::Machine>| {
        !machine.fence.is_empty() && !machine.fence.contains(&Fence::Bmc)
    };
    let machines = site.machines.iter().filter(|(_, machine)| other(machine));
    let machines: Vec<(&MachineName, &Origin)> =
        machines.map(|(name, machine)| (name, &machine.origin)).collect();
    let Some((_, origin)) = machines.first() else { return };
    let names: BTreeSet<&MachineName> = machines.iter().map(|(name, _)| *name).collect();
    let message = format!("fencing by outlet or switch port is not built yet: {}", fold(names));
    let problem = Problem::warning("no-fence", origin, message);
    found.push(
        problem.label("only by hand").help("fence = \"bmc\", or `koboshi fence … --by-hand`"),
    );
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;
    use crate::site::tests::eth1;
    use crate::site::{Env, Look, Purpose, load};

    /// What is said of a site with these machines, its secret beside it.
    fn said(defaults: &str, machines: &str, mode: u32) -> Vec<String> {
        let dir = tempfile::tempdir().expect("a directory");
        let (path, secret) = (dir.path().join("site.toml"), dir.path().join("bmc.pw"));
        std::fs::write(&secret, "s3cret").expect("written");
        std::fs::set_permissions(&secret, std::fs::Permissions::from_mode(mode)).expect("set");
        let text = format!(
            "[site]\nname = \"rack\"\n[net]\ninterface = \"eth1\"\n{defaults}\n[machines]\n{machines}\n"
        );
        std::fs::write(&path, text).expect("written");
        let env = Env { interface_network: &eth1, purpose: Purpose::Check };
        let site = load(&path, &env).map_err(|bad| bad.render(Look::Plain)).expect("a site");
        let mut found = Problems::default();
        bmcs(&site, &mut found);
        found.iter().map(Problem::whole_message).collect()
    }

    #[test]
    fn a_bmc_that_lets_us_not_in_is_told_of_with_all_its_like() {
        let machines = "\"m[01-03]\" = { bmc = \"10.78.0.{n}\" }\nsw1 = { console = \"sol\" }";
        let none = said("", machines, 0o600);
        assert!(none[0].contains("no account is given for the BMC of m[01-03]"), "{none:?}");
        assert!(none[1].contains("no password is given for the BMC of m[01-03]"), "{none:?}");
        let given =
            |file: &str| format!("[defaults.bmc]\nuser = \"admin\"\npassword-file = \"{file}\"");
        assert_eq!(said(&given("bmc.pw"), machines, 0o600), Vec::<String>::new());
        let careless = said(&given("bmc.pw"), machines, 0o644);
        assert!(
            careless.len() == 1 && careless[0].contains("everybody on this host"),
            "{careless:?}"
        );
        let missing = said(&given("none.pw"), machines, 0o600);
        assert!(missing.len() == 1 && missing[0].contains("No such file"), "{missing:?}");
        let fence = "m01 = { fence = \"pdu\", pdu = { host = \"pdu1\", outlet = 7 } }";
        let unbuilt = said("", fence, 0o600);
        assert!(unbuilt.len() == 1 && unbuilt[0].contains("is not built yet: m01"), "{unbuilt:?}");
    }
}
