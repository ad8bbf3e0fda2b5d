//! `koboshi maintain m07 setup`: what the machine is told to do of it, and what the appliance does itself afterwards.
//!
//! ```text
//! account  the site's account on a BMC, made by that of its factory
//! follow   what is left when the machine has done its part
//! ```

use std::net::Ipv4Addr;

use koboshi_initramfs::contract::duty::{BmcPlace, Setup};

use crate::api::Refusal;
use crate::app::App;
use crate::bmcs::secrets;
use crate::maintenance::{Account, Address, After, SetUp};
use crate::site::network::Cidr;
use crate::site::{Kind, Machine, MachineName, Secret, Site};

pub mod account;
pub mod follow;

/// A set-up as it is ordered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ordered {
    /// What the machine is told.
    pub order: Setup,
    /// What the appliance does itself.
    pub after: Option<After>,
    /// What whoever orders it should know.
    pub says: Vec<String>,
}

/// What is ordered by what was asked for, as the site has the machine.
pub fn ordered(
    app: &App,
    name: &MachineName,
    machine: &Machine,
    asked: &SetUp,
) -> Result<Ordered, Refusal> {
    let ordered = plan(&app.site.load(), name, machine, asked)?;
    if let Some(account) = &asked.account {
        readable(app, name, machine, account)?;
    }
    Ok(ordered)
}

fn plan(
    site: &Site,
    name: &MachineName,
    machine: &Machine,
    asked: &SetUp,
) -> Result<Ordered, Refusal> {
    let unfit =
        |error: String, help: Option<&str>| Refusal::conflict(error, help.map(str::to_string));
    let said = machine.bmc.as_ref().map(|bmc| &bmc.host);
    let here = said.and_then(|host| host.value.parse::<Ipv4Addr>().ok());
    let mut says = Vec::new();
    let bmc = match asked.address {
        None if asked.gateway.is_some() || asked.vlan.is_some() => {
            let help = "--bmc-address ADDRESS/BITS or --bmc-dhcp";
            return Err(unfit("a gateway and a VLAN go with an address".to_string(), Some(help)));
        }
        None => None,
        Some(Address::Dhcp) => {
            Some(BmcPlace { address: None, prefix: 0, gateway: None, vlan: asked.vlan })
        }
        Some(Address::Site) => {
            let Some(address) = here else {
                let error = match said {
                    Some(host) => format!(
                        "{} has {name}'s BMC at {}, which is no IPv4 address",
                        host.origin, host.value
                    ),
                    None => format!("the site names no BMC for {name}"),
                };
                return Err(unfit(
                    error,
                    Some("--bmc-address ADDRESS/BITS says where it shall be"),
                ));
            };
            Some(at(site, address, None, asked)?)
        }
        Some(Address::At { address, prefix }) => {
            if let Some(host) = said.filter(|_| here != Some(address)) {
                let error = format!("{} has {name}'s BMC at {}", host.origin, host.value);
                let help = "change that line first, or say --bmc-address alone: then it is that";
                return Err(unfit(error, Some(help)));
            }
            Some(at(site, address, prefix, asked)?)
        }
    };
    let address = bmc.and_then(|bmc| bmc.address);
    if let Some(address) = address {
        let others = site.machines.iter().filter(|(other, _)| *other != name);
        let mut theirs =
            others.filter_map(|(other, machine)| Some((other, &machine.bmc.as_ref()?.host)));
        if let Some((other, host)) = theirs.find(|(_, host)| host.value.parse() == Ok(address)) {
            return Err(unfit(
                format!("{} has the BMC of {other} at {address}", host.origin),
                None,
            ));
        }
        if let Some(seat) = site.by_address.get(&address) {
            return Err(unfit(format!("{address} is the seat {seat}"), None));
        }
    }
    match (asked.address, here, said) {
        (None, Some(address), Some(host)) => says.push(format!(
            "{} has its BMC at {address}: `--bmc-address` alone would put it there",
            host.origin
        )),
        (Some(Address::Site), Some(address), Some(host)) => {
            says.push(format!("its BMC shall be at {address}, as {} says", host.origin));
        }
        (Some(Address::Dhcp), None, None) => says.push(
            "the site names no BMC for it: once it has an address, bmc = { host = \"ADDRESS\", mac = \"MAC\" } goes \
             into its line (`koboshi hardware` has both)"
                .to_string(),
        ),
        _ => {}
    }
    // Where the site says it already, nothing is written.
    let write = address.filter(|_| said.is_none());
    if let Some(address) = write {
        says.push(format!("bmc = \"{address}\" goes into its line of the site file then"));
    }
    if asked.account.is_some() && said.is_none() && write.is_none() {
        let error = format!("the site names no BMC for {name}: nobody knows where to log in");
        return Err(unfit(
            error,
            Some("--bmc-address ADDRESS/BITS, or bmc = \"ADDRESS\" in its line"),
        ));
    }
    if let (Some(account), Some(bmc)) = (&asked.account, &machine.bmc) {
        let user = bmc.user.as_ref().map(|user| user.value.as_str());
        let factory = account.factory.as_ref().map(|factory| factory.user.as_str());
        if account.disable && user.is_some() && user == factory {
            let error = format!(
                "{} is the site's own account: it is not disabled",
                user.unwrap_or_default()
            );
            return Err(unfit(
                error,
                Some("leave --disable-factory out; its password becomes the site's"),
            ));
        }
    }
    let account = asked.account.clone();
    let after = After { address: write, account };
    let after = (after != After::default()).then_some(after);
    Ok(Ordered { order: Setup { bmc }, after, says })
}

/// An address with what goes with it: its own word, or the site's subnet of BMCs.
fn at(
    site: &Site,
    address: Ipv4Addr,
    prefix: Option<u8>,
    asked: &SetUp,
) -> Result<BmcPlace, Refusal> {
    let unfit = |error: String, help: &str| Refusal::conflict(error, Some(help.to_string()));
    let subnets = site.subnets.iter().filter(|subnet| subnet.kind == Kind::Bmc);
    let subnet = subnets.into_iter().find(|subnet| subnet.cidr.contains(address));
    let Some(prefix) = prefix.or(subnet.map(|subnet| subnet.cidr.prefix())) else {
        let help =
            format!("--bmc-address {address}/24, or a [[net.subnet]] of kind = \"bmc\" with it");
        return Err(unfit(format!("nobody says how large the network of {address} is"), &help));
    };
    let cidr = Cidr::around(address, prefix);
    if !(1..=31).contains(&prefix) || !cidr.is_host(address) || !is_hosts(address) {
        return Err(unfit(
            format!("{address}/{prefix} is no address for a BMC"),
            "like 10.78.0.7/24",
        ));
    }
    let gateway = asked.gateway.or(subnet.and_then(|subnet| Some(subnet.gateway.as_ref()?.value)));
    if let Some(gateway) = gateway.filter(|one| !cidr.is_host(*one) || *one == address) {
        let error = format!("the gateway {gateway} is no neighbour of {address}/{prefix}");
        return Err(unfit(error, "--bmc-gateway names a router in the BMC's own network"));
    }
    if let Some(vlan) = asked.vlan.filter(|vlan| *vlan > 4094) {
        return Err(unfit(format!("{vlan} is no VLAN"), "1 to 4094, or 0 for none"));
    }
    Ok(BmcPlace { address: Some(address), prefix, gateway, vlan: asked.vlan })
}

fn is_hosts(address: Ipv4Addr) -> bool {
    !(address.is_unspecified()
        || address.is_multicast()
        || address.is_broadcast()
        || address.is_loopback())
}

/// What is needed later is looked for now: nobody is there when the machine has done its part.
fn readable(
    app: &App,
    name: &MachineName,
    machine: &Machine,
    account: &Account,
) -> Result<(), Refusal> {
    if machine.bmc.is_some()
        && let Err(failure) = app.bmcs.of(name, machine)
    {
        return Err(Refusal::conflict(failure.error, failure.help));
    }
    let Some(factory) = &account.factory else { return Ok(()) };
    let file = Secret::File(factory.password_file.clone());
    secrets::password(&file).map(drop).map_err(|why| {
        let help =
            "a file that the appliance can read, with the factory's password in its first line";
        Refusal::conflict(format!("the factory account's password: {why}"), Some(help.to_string()))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::maintenance::Factory;
    use crate::site::tests::site as loaded;

    fn site() -> Site {
        loaded(
            "[net]\ninterface = \"eth1\"\n\
             [[net.subnet]]\nkind = \"bmc\"\nrelay = \"10.78.0.1\"\ncidr = \"10.78.0.0/24\"\ngateway = \"10.78.0.1\"\n\
             [defaults.bmc]\nuser = \"admin\"\n\
             [machines]\nm01 = { mac = \"52:54:00:77:00:01\", bmc = \"10.78.0.11\" }\n\
             m02 = { mac = \"52:54:00:77:00:02\" }\n\
             m03 = { mac = \"52:54:00:77:00:03\", bmc = \"m03-bmc\" }\n",
        )
    }

    fn asked(address: Option<Address>) -> SetUp {
        SetUp { address, ..SetUp::default() }
    }

    fn of(name: &str, asked: &SetUp) -> Result<Ordered, Refusal> {
        let (site, name) = (site(), name.parse::<MachineName>().unwrap());
        let machine = site.machines.get(&name).unwrap();
        plan(&site, &name, machine, asked)
    }

    fn at(text: &str, prefix: Option<u8>) -> Option<Address> {
        Some(Address::At { address: text.parse().unwrap(), prefix })
    }

    #[test]
    fn nothing_asked_is_a_look_and_the_sites_word_is_proposed() {
        let look = of("m01", &asked(None)).unwrap();
        assert_eq!((look.order.bmc, &look.after), (None, &None));
        assert!(
            look.says[0].contains("has its BMC at 10.78.0.11: `--bmc-address` alone"),
            "{look:?}"
        );
        assert!(of("m02", &asked(None)).unwrap().says.is_empty());
    }

    #[test]
    fn the_sites_address_comes_with_its_subnet() {
        let ordered = of("m01", &asked(Some(Address::Site))).unwrap();
        let bmc = ordered.order.bmc.unwrap();
        assert_eq!((bmc.prefix, bmc.gateway), (24, Some([10, 78, 0, 1].into())));
        assert_eq!(ordered.after, None, "the site says so already");
        for (name, why) in [("m02", "the site names no BMC for m02"), ("m03", "is no IPv4 address")]
        {
            let refused = of(name, &asked(Some(Address::Site))).unwrap_err();
            assert!(refused.error.contains(why), "{refused:?}");
        }
    }

    #[test]
    fn a_new_address_is_written_into_the_site() {
        let ordered = of("m02", &asked(at("10.78.0.12", None))).unwrap();
        assert_eq!(ordered.after.unwrap().address, Some([10, 78, 0, 12].into()));
        let far =
            SetUp { gateway: Some([10, 79, 0, 2].into()), ..asked(at("10.79.0.12", Some(28))) };
        assert_eq!(of("m02", &far).unwrap().order.bmc.unwrap().prefix, 28);
        for (wrong, why) in [
            (at("10.78.0.11", None), "has the BMC of m01"),
            (at("10.79.0.12", None), "how large the network"),
            (at("10.78.0.255", None), "no address for a BMC"),
            (at("127.0.0.1", Some(8)), "no address for a BMC"),
            (at("10.79.0.1", Some(0)), "no address for a BMC"),
            (at("10.79.0.1", Some(200)), "no address for a BMC"),
        ] {
            let refused = of("m02", &asked(wrong)).unwrap_err();
            assert!(refused.error.contains(why), "{refused:?}");
        }
        let other = of("m01", &asked(at("10.78.0.12", None))).unwrap_err();
        assert!(other.error.contains("has m01's BMC at 10.78.0.11"), "{other:?}");
        let gateway =
            SetUp { gateway: Some([10, 77, 0, 1].into()), ..asked(at("10.78.0.12", None)) };
        assert!(of("m02", &gateway).unwrap_err().error.contains("no neighbour"));
        let alone = SetUp { vlan: Some(5), ..asked(None) };
        assert!(of("m02", &alone).is_err());
        let vlan = SetUp { vlan: Some(4095), ..asked(at("10.78.0.12", None)) };
        assert!(of("m02", &vlan).is_err());
    }

    #[test]
    fn an_account_needs_a_place_and_the_sites_own_is_not_disabled() {
        let factory = |user: &str, disable| {
            let factory = Factory { user: user.into(), password_file: "/run/factory.pw".into() };
            Some(Account { factory: Some(factory), disable })
        };
        let lost = SetUp { account: factory("ADMIN", true), ..asked(None) };
        assert!(of("m02", &lost).unwrap_err().error.contains("nobody knows where"));
        let placed = SetUp { account: factory("ADMIN", true), ..asked(at("10.78.0.12", None)) };
        let ordered = of("m02", &placed).unwrap();
        assert!(ordered.after.unwrap().account.unwrap().disable);
        let own = SetUp { account: factory("admin", true), ..asked(None) };
        assert!(of("m01", &own).unwrap_err().error.contains("not disabled"));
        let renewed = SetUp { account: factory("admin", false), ..asked(None) };
        assert!(of("m01", &renewed).is_ok());
        // What the machine is told names nobody.
        let told = serde_json::to_string(&of("m02", &placed).unwrap().order).unwrap();
        assert!(!told.contains("ADMIN") && !told.contains("factory"), "{told}");
    }
}
