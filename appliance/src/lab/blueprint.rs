//! A rack from a site file: its machines with their MACs, its provisioning network as the wire.

use std::net::Ipv4Addr;
use std::path::Path;

use koboshi_pxe::Mac;

use super::Error;
use super::net::Plan;
use super::qemu::{Card, Nic, Spec};
use crate::site::{self, Env, Kind, Look, Subnet};

/// The wire and the machines a site file speaks of. The bridge gets the name of the site's
/// interface, so that the file is rehearsed as it is; the appliance gets the gateway's address if
/// that lies in the network, else the network's first. Only the first boot network is laid, a
/// machine has a NIC for each of its MACs, and those without one (switches, PDUs) are left out.
pub fn read(path: &Path) -> Result<(Plan, Vec<Spec>), Error> {
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
    let specs: Vec<Spec> = site
        .machines
        .iter()
        .filter_map(|(name, machine)| {
            let (boot, others) = machine.macs.split_first()?;
            let card = |mac: &site::At<Mac>| Card { mac: mac.value, model: Nic::Virtio };
            let more_nics = others.iter().map(card).collect();
            Some(Spec { more_nics, ..Spec::new(name.as_str(), boot.value) })
        })
        .collect();
    if specs.is_empty() {
        return Err(wrong("none of its machines has a MAC".into()));
    }
    Ok((plan, specs))
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

    fn site(text: &str) -> Result<(Plan, Vec<Spec>), Error> {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("site.toml");
        std::fs::write(&path, format!("[site]\nname = \"rack\"\n{text}")).expect("written");
        read(&path)
    }

    const M01: &str = "[machines]\nm01 = { mac = [\"52:54:00:77:00:01\"] }\n";

    #[test]
    fn machines_and_network_of_the_site() {
        let (plan, specs) = site(
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
    }

    #[test]
    fn the_appliance_has_an_address_in_the_network() {
        for (net, address, prefix) in [
            ("cidr = \"10.9.8.128/25\"", "10.9.8.129", 25),
            ("cidr = \"10.77.0.0/24\"", "10.77.0.1", 24),
            ("", "10.77.0.1", 24),
        ] {
            let (plan, _) = site(&format!("[net]\ninterface = \"eth1\"\n{net}\n{M01}")).expect(net);
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
        let (plan, specs) = read(&path).expect("a rack");
        assert_eq!(plan, Plan::default());
        let racked: Vec<_> = super::super::demo::machines(super::super::qemu::Accel::Tcg);
        let macs =
            |specs: &[Spec]| specs.iter().map(|s| (s.name.clone(), s.mac)).collect::<Vec<_>>();
        assert_eq!(macs(&specs), macs(&racked));
    }
}
