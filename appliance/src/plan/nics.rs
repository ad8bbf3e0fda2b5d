//! What is built beside the boot NIC: from the machine's NICs and the seat's networks, the cards,
//! bonds and nets of a boot's orders.

use koboshi_initramfs::contract::{BOOT_LINK, Bond, Card, Net, Orders, Route};

use crate::site::{self, At, Machine, Seat, Site};

/// All three. A machine the site does not know has none, nor has one without a seat nets.
pub fn links(
    site: &Site,
    machine: Option<&Machine>,
    seat: Option<&Seat>,
) -> (Vec<Card>, Vec<Bond>, Vec<Net>) {
    let nics = machine.map(|machine| &machine.nics);
    let cards = nics
        .iter()
        .flat_map(|nics| &nics.cards)
        .map(|(name, hardware)| Card { name: name.clone(), hardware: hardware.value.clone() });
    let bonds = nics.iter().flat_map(|nics| &nics.bonds).map(|(name, bond)| Bond {
        name: name.clone(),
        mode: bond.mode,
        of: bond.of.iter().map(|member| member.value.clone()).collect(),
    });
    let nets = seat.iter().flat_map(|seat| &seat.nets).filter_map(|(name, net)| {
        let network = site.networks.get(name)?;
        Some(Net {
            name: name.to_string(),
            on: net.on.as_ref().map_or(BOOT_LINK, |on| on.value.as_str()).to_string(),
            vlan: network.vlan,
            address: net.ip.as_ref().map(|ip| ip.value),
            prefix: network.cidr.prefix(),
            gateway: network.gateway.as_ref().map(|gateway| gateway.value),
            mtu: network.mtu.map(u32::from),
            routes: routes(&network.routes),
        })
    });
    (cards.collect(), bonds.collect(), nets.collect())
}

/// Static routes as a machine sets them.
pub fn routes(routes: &[At<site::Route>]) -> Vec<Route> {
    let route = |route: &At<site::Route>| Route {
        to: route.to.network(),
        prefix: route.to.prefix(),
        via: route.via,
    };
    routes.iter().map(route).collect()
}

/// A line for each of a boot's links but a plain boot NIC, for people.
pub fn in_words(orders: &Orders) -> Vec<String> {
    let cards = orders.cards.iter().map(|card| format!("{} is NIC {}", card.name, card.hardware));
    let bonds = orders
        .bonds
        .iter()
        .map(|bond| format!("{} is {} of {}", bond.name, bond.mode, bond.of.join(", ")));
    let nets = orders.nets.iter().map(|net| {
        let address = match net.address {
            Some(address) => format!("{address}/{}", net.prefix),
            None => "no address".to_string(),
        };
        let on = if net.on == BOOT_LINK { "the link that boots" } else { &net.on };
        let vlan = net.vlan.map(|id| format!(", VLAN {id}")).unwrap_or_default();
        format!("network {}: {address} on {on}{vlan}", net.name)
    });
    cards.chain(bonds).chain(nets).collect()
}

#[cfg(test)]
mod tests {
    use koboshi_initramfs::contract::BondMode;

    use super::*;
    use crate::site::tests::site;

    const SITE: &str = r#"
[net]
interface = "eth1"
[networks]
svc = { vlan = 20, cidr = "10.20.0.0/24", gateway = "10.20.0.1", mtu = 9000, routes = "10.80.0.0/16 via 10.20.0.254" }
store = { cidr = "10.30.0.0/16" }
[classes.r640]
nics = { boot = "eno1", store = "52-54-00-77-01-AB", bond0 = { of = ["eno1", "eno2"], mode = "802.3ad" } }
[roles.web]
image = "web"
[machines]
m01 = { class = "r640", mac = "52:54:00:77:00:01" }
m02 = { mac = "52:54:00:77:00:02" }
[seats]
db1 = { role = "web", ip = "10.77.0.21", nets = { svc = { ip = "10.20.0.21", on = "bond0" }, store = { on = "store" } } }
db2 = { role = "web", ip = "10.77.0.22", nets = { svc = "10.20.0.22" } }
[matrix]
m01 = "db1"
m02 = "db2"
"#;

    fn of(machine: &str, seat: &str) -> (Vec<Card>, Vec<Bond>, Vec<Net>) {
        let site = site(SITE);
        let machine = site.machines.get(machine).map(|machine| &machine.value);
        links(&site, machine, site.seats.get(seat).map(|seat| &seat.value))
    }

    #[test]
    fn of_a_machine_and_its_seat() {
        let (cards, bonds, nets) = of("m01", "db1");
        assert_eq!(cards[0].name, "store");
        assert_eq!(cards[0].hardware, "52:54:00:77:01:ab");
        assert_eq!((bonds[0].mode, bonds[0].of.join(" ")), (BondMode::Lacp, "eno1 eno2".into()));
        let [store, svc] = nets.as_slice() else { panic!("{nets:?}") };
        assert_eq!((store.address, store.vlan, store.prefix), (None, None, 16));
        assert_eq!((svc.on.as_str(), svc.vlan, svc.mtu), ("bond0", Some(20), Some(9000)));
        assert_eq!((svc.routes[0].to.to_string(), svc.routes[0].prefix), ("10.80.0.0".into(), 16));
        // Whatever boots carries what the seat puts nowhere.
        let (cards, bonds, nets) = of("m02", "db2");
        assert_eq!((cards.len(), bonds.len(), nets[0].on.as_str()), (0, 0, BOOT_LINK));
        assert_eq!(of("m09", "none"), (Vec::new(), Vec::new(), Vec::new()));
    }
}
