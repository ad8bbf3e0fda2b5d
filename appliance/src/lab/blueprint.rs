//! A rack from a site file: its machines with their MACs, its provisioning network as the wire, its BMCs.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::Path;

use koboshi_pxe::Mac;

use super::Error;
use super::bmc::Account;
use super::net::Plan;
use super::qemu::{Card, Nic, Spec};
use crate::bmcs::secrets;
use crate::site::{self, Env, Kind, Look, Machine, Subnet};

/// What a site file makes of a rack.
#[derive(Debug)]
pub struct Blueprint {
    /// The wire.
    pub plan: Plan,
    /// The machines.
    pub specs: Vec<Spec>,
    /// Their BMCs, of those that the site gives one.
    pub bmcs: Vec<Account>,
}

/// The wire and the machines a site file speaks of. The bridge gets the name of the site's
/// interface, so that the file is rehearsed as it is; the appliance gets the gateway's address if
/// that lies in the network, else the network's first. Only the first boot network is laid, a
/// machine has a NIC for each of its MACs, and those without one (switches, PDUs) are left out. A BMC is
/// at the address the site gives it, with the site's account; it has to be an address, not a name.
pub fn read(path: &Path) -> Result<Blueprint, Error> {
    let wrong = |why: String| Error::Site { path: path.to_path_buf(), why };
    // The interface is not here yet: where the site leaves its network to the interface, it is ours.
    let ours = Plan::default();
    let interface_network = |_: &str| vec![(ours.address, ours.prefix)];
    let env = Env { interface_network: &interface_network, purpose: site::load::Purpose::Check };
    let site = site::load(path, &env)
        .map_err(|problems| wrong(format!("\n{}", problems.render(Look::for_stderr()))))?;
    let boot = site.subnets.iter().find(|subnet| subnet.kind == Kind::Boot);
    let plan = boot
        .and_then(|subnet| plan(subnet))
        .ok_or_else(|| wrong("it has no network with an interface to boot on".into()))?;
    let mut specs = Vec::new();
    let mut bmcs = Vec::new();
    for (name, machine) in &site.machines {
        let Some((boot, others)) = machine.macs.split_first() else { continue };
        let card = |mac: &site::At<Mac>| Card { mac: mac.value, model: Nic::Virtio };
        let more_nics = others.iter().map(card).collect();
        let account = account(name.as_str(), machine).map_err(&wrong)?;
        let bmc = account.as_ref().map(Account::system_interface);
        bmcs.extend(account);
        specs.push(Spec { more_nics, bmc, ..Spec::new(name.as_str(), boot.value) });
    }
    if specs.is_empty() {
        return Err(wrong("none of its machines has a MAC".into()));
    }
    Ok(Blueprint { plan, specs, bmcs })
}

fn account(name: &str, machine: &Machine) -> Result<Option<Account>, String> {
    let Some(bmc) = &machine.bmc else { return Ok(None) };
    let Ok(host) = bmc.host.value.parse::<IpAddr>() else { return Ok(None) };
    let (Some(user), Some(password)) = (&bmc.user, &bmc.password) else { return Ok(None) };
    let secret = |why: secrets::NoSecret| format!("the secret of {name}'s BMC: {why}");
    Ok(Some(Account {
        machine: name.to_string(),
        listen: SocketAddr::new(host, bmc.port),
        mac: bmc.mac.as_ref().map(|mac| mac.value),
        user: user.value.clone(),
        password: secrets::password(&password.value).map_err(secret)?,
        kg: bmc.kg.as_ref().map(|kg| secrets::kg(&kg.value)).transpose().map_err(secret)?,
        suite: match bmc.cipher {
            site::Cipher::Auto => None,
            site::Cipher::Suite(id) => Some(id),
        },
    }))
}

fn plan(subnet: &Subnet) -> Option<Plan> {
    let cidr = subnet.cidr;
    let first = Ipv4Addr::from_bits(cidr.network().to_bits() + 1);
    let gateway = subnet.gateway.as_ref().map(|gateway| gateway.value);
    let address = gateway.filter(|gateway| cidr.is_host(*gateway)).or(subnet.own).unwrap_or(first);
    let bridge = subnet.interface()?.to_string();
    Some(Plan { bridge, address, prefix: cidr.prefix(), ..Plan::default() })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn site(text: &str) -> Result<Blueprint, Error> {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("site.toml");
        std::fs::write(dir.path().join("bmc.pw"), "secret\n").expect("written");
        std::fs::write(&path, format!("[site]\nname = \"rack\"\n{text}")).expect("written");
        read(&path)
    }

    const M01: &str = "[machines]\nm01 = { mac = [\"52:54:00:77:00:01\"] }\n";

    #[test]
    fn machines_and_network_of_the_site() {
        let Blueprint { plan, specs, bmcs } = site(
            r#"
            [net]
            interface = "eth1"
            cidr = "10.9.8.0/24"
            gateway = "10.9.8.254"
            [machines]
            m02 = { mac = ["52:54:00:77:00:02", "52:54:00:77:01:02"] }
            sw1 = { console = "serial:/dev/ttyUSB1@9600" }
            [machines.m01]
            mac = ["52:54:00:77:00:01"]
            "#,
        )
        .expect("a rack");
        assert_eq!((plan.bridge.as_str(), plan.address.to_string()), ("eth1", "10.9.8.254".into()));
        let names: Vec<_> = specs.iter().map(|spec| (&*spec.name, spec.mac.0[5])).collect();
        assert_eq!(names, [("m01", 1), ("m02", 2)]);
        assert_eq!(specs[1].more_nics[0].mac.to_string(), "52:54:00:77:01:02");
        assert!(bmcs.is_empty() && specs.iter().all(|spec| spec.bmc.is_none()));
    }

    #[test]
    fn bmcs_of_the_site() {
        let Blueprint { specs, bmcs, .. } = site(
            r#"
            [net]
            interface = "eth1"
            [defaults.bmc]
            user = "admin"
            password-file = "bmc.pw"
            [machines]
            m01 = { mac = ["52:54:00:77:00:01"], bmc = "10.78.0.11" }
            m02 = { mac = ["52:54:00:77:00:02"], bmc = "m02-bmc.example" }
            "#,
        )
        .expect("a rack");
        assert_eq!(bmcs.len(), 1, "a name is not an address that can be had");
        assert_eq!(
            (&*bmcs[0].machine, bmcs[0].listen.to_string()),
            ("m01", "10.78.0.11:623".into())
        );
        assert_eq!(specs[0].bmc.unwrap().to_string(), "10.78.0.11:9002");
        assert_eq!(specs[1].bmc, None);
    }

    #[test]
    fn the_appliance_has_an_address_in_the_network() {
        for (net, address, prefix) in [
            ("cidr = \"10.9.8.128/25\"", "10.9.8.129", 25),
            ("cidr = \"10.77.0.0/24\"", "10.77.0.1", 24),
            ("", "10.77.0.1", 24),
        ] {
            let Blueprint { plan, .. } =
                site(&format!("[net]\ninterface = \"eth1\"\n{net}\n{M01}")).expect(net);
            assert_eq!((plan.address.to_string().as_str(), plan.prefix), (address, prefix));
        }
    }

    #[test]
    fn what_is_no_rack_is_said() {
        let switch = "[machines]\nsw1 = { console = \"serial:/dev/ttyUSB1@9600\" }\n";
        for (text, said) in [
            (format!("[net]\ninterface = \"eth1\"\n{switch}"), "none of its machines"),
            (
                "[net]\ninterface = \"eth1\"\n[machines]\nm01 = { mac = [\"52:54\"] }".into(),
                "52:54",
            ),
            ("[machines".into(), "site.toml"),
        ] {
            let error = site(&text).expect_err(&text).to_string();
            assert!(error.contains(said) && error.contains("site.toml"), "{error}");
        }
    }

    /// The demonstration's own site is one the appliance takes.
    #[test]
    fn the_demonstration_is_in_order() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("site.toml");
        std::fs::write(&path, super::super::demo::SITE).expect("written");
        std::fs::write(dir.path().join("bmc.pw"), "secret\n").expect("written");
        let Blueprint { plan, specs, bmcs } = read(&path).expect("a rack");
        assert_eq!(bmcs.len(), specs.len());
        assert_eq!(plan, Plan::default());
        let names: Vec<_> = specs.iter().map(|spec| (&*spec.name, spec.mac.to_string())).collect();
        assert_eq!(names[2], ("m03", "52:54:00:77:00:03".to_string()));
    }
}
