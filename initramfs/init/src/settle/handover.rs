//! The links change hands. The addresses set here are the seat's, and the root may run over them:
//! whoever manages networks in the image must find them, keep them, and rename nothing.

use std::fmt::Write as _;
use std::io;

use crate::contract::Orders;
use crate::net::link::{Card, show_mac};
use crate::net::links::{Shape, Standing};
use crate::settle::intree::Tree;
use crate::settle::systemd_has;

const NETWORKD: &str = "etc/systemd/network";

/// Tells udev, networkd, ifupdown and NetworkManager, whichever the image has. The first of the
/// links carries the seat's own address; `named` is hardware that keeps its name and no more.
pub fn hand_over(tree: &Tree, orders: &Orders, links: &[Standing], named: &[Card]) -> Vec<String> {
    let mut troubles = Vec::new();
    let mut step = |who: &str, result: io::Result<()>| {
        if let Err(error) = result {
            troubles.push(format!("{who} not told of our links: {error}"));
        }
    };
    if tree.has("usr/lib/systemd") || tree.has("lib/systemd") || tree.has("etc/systemd") {
        for (at, link) in links.iter().enumerate() {
            let path = format!("{NETWORKD}/{}.link", stem(at, link));
            step("udev", tree.write(&path, &link_file(link), 0o644));
        }
        for card in named {
            let path = format!("{NETWORKD}/10-koboshi-{}.link", card.name);
            step("udev", tree.write(&path, &hardware("MACAddress", card), 0o644));
        }
    }
    if systemd_has(tree, "systemd-networkd") {
        for (at, link) in links.iter().enumerate() {
            let path = format!("{NETWORKD}/{}.network", stem(at, link));
            let text = match link.shape {
                Shape::Member(_) => member(link),
                _ => network(orders, link, at == 0),
            };
            step("networkd", tree.write(&path, &text, 0o644));
        }
    }
    let names: Vec<&str> = links.iter().map(|link| link.card.name.as_str()).collect();
    if tree.has("etc/network") {
        step("ifupdown", ifupdown(tree, &names, orders.nic.lent));
    }
    if tree.has("etc/NetworkManager") {
        step(
            "NetworkManager",
            tree.write(
                "etc/NetworkManager/conf.d/10-koboshi.conf",
                &unmanaged(orders, &names),
                0o644,
            ),
        );
    }
    troubles
}

/// What is made of other links stands before what it is made of: it has the same MAC address, and
/// the first file that matches wins.
fn stem(at: usize, link: &Standing) -> String {
    match link.shape {
        Shape::Nic if at == 0 => "10-koboshi".to_owned(),
        Shape::Nic | Shape::Member(_) => format!("10-koboshi-{}", link.card.name),
        Shape::Bond(_) | Shape::Vlan(..) => format!("05-koboshi-{}", link.card.name),
    }
}

fn link_file(link: &Standing) -> String {
    let name = &link.card.name;
    match link.shape {
        Shape::Nic => hardware("MACAddress", &link.card),
        // All members of a bond show one MAC address; only the permanent one is theirs.
        Shape::Member(_) => hardware("PermanentMACAddress", &link.card),
        Shape::Bond(_) | Shape::Vlan(..) => {
            format!(
                "[Match]\nOriginalName={name}\n\n[Link]\nNamePolicy=keep\nMACAddressPolicy=none\n"
            )
        }
    }
}

/// The first matching .link wins, so this one stands before 99-default, which would rename.
fn hardware(by: &str, card: &Card) -> String {
    let mac = show_mac(&card.mac);
    format!("[Match]\n{by}={mac}\n\n[Link]\nNamePolicy=keep\nName={}\n", card.name)
}

/// networkd takes a member down to put it into the bond it is in already (systemd 252), and out of
/// it where it is not told of the bond. So it is told nothing but to let it be; and of a bond and a
/// VLAN, only what is on them: it would not know ours for its own.
fn member(link: &Standing) -> String {
    format!("[Match]\nName={}\n\n[Link]\nUnmanaged=yes\n", link.card.name)
}

fn network(orders: &Orders, link: &Standing, boot: bool) -> String {
    // Name and MAC: a bond or VLAN made on top in the image carries the same MAC.
    let mut text = format!("[Match]\nName={}\n", link.card.name);
    if link.shape == Shape::Nic {
        let _ = writeln!(text, "MACAddress={}", show_mac(&link.card.mac));
    }
    text.push('\n');
    let mut settings = String::new();
    if let Some(mtu) = link.mtu {
        let _ = writeln!(settings, "MTUBytes={mtu}");
    }
    if !boot {
        // A storage network whose switch is down does not hold up network-online.target.
        settings.push_str("RequiredForOnline=no\n");
    }
    if !settings.is_empty() {
        let _ = write!(text, "[Link]\n{settings}\n");
    }
    // A lent address is asked for as firmware and iPXE did, or the other server lends one more.
    let lent = boot && orders.nic.lent;
    let dhcp = if lent { "ipv4" } else { "no" };
    // Without the last line a pulled cable takes address and routes with it, root or no root.
    let _ = write!(
        text,
        "[Network]\nKeepConfiguration=yes\nDHCP={dhcp}\nConfigureWithoutCarrier=yes\n"
    );
    if lent {
        text.push_str("\n[DHCPv4]\nClientIdentifier=mac\n");
        return text;
    }
    for (address, prefix) in &link.addresses {
        let _ = writeln!(text, "Address={address}/{prefix}");
    }
    if boot {
        for server in &orders.dns {
            let _ = writeln!(text, "DNS={server}");
        }
        for server in &orders.ntp {
            let _ = writeln!(text, "NTP={server}");
        }
        if !orders.domain.is_empty() {
            let _ = writeln!(text, "Domains={}", orders.domain);
        }
    }
    for hop in &link.routes {
        text.push_str("\n[Route]\n");
        if hop.prefix > 0 {
            let _ = writeln!(text, "Destination={}/{}", hop.to, hop.prefix);
        }
        let _ = writeln!(text, "Gateway={}", hop.via);
        if hop.metric > 0 {
            let _ = writeln!(text, "Metric={}", hop.metric);
        }
        if hop.onlink {
            text.push_str("GatewayOnLink=yes\n");
        }
    }
    text
}

fn unmanaged(orders: &Orders, names: &[&str]) -> String {
    if orders.nic.lent {
        // It asks DHCP by itself for what nobody has configured.
        let others: Vec<String> =
            names.iter().skip(1).map(|name| format!("interface-name:{name}")).collect();
        return format!("[keyfile]\nunmanaged-devices={}\n", others.join(";"));
    }
    // With nothing left to manage it would write a resolv.conf without a server in it.
    let dns = if orders.dns.is_empty() { "" } else { "[main]\ndns=none\n\n" };
    let names: Vec<String> = names.iter().map(|name| format!("interface-name:{name}")).collect();
    format!("{dns}[keyfile]\nunmanaged-devices=mac:{};{}\n", orders.nic.mac, names.join(";"))
}

/// `manual` and no `auto`: ifup leaves it as it is, ifdown never takes it down. But for an address
/// that is lent: that has to be asked for again.
fn ifupdown(tree: &Tree, names: &[&str], lent: bool) -> io::Result<()> {
    let stanza = |(at, name): (usize, &&str)| match lent && at == 0 {
        true => format!("auto {name}\niface {name} inet dhcp\n"),
        false => format!("iface {name} inet manual\n"),
    };
    let stanzas: String = names.iter().enumerate().map(stanza).collect();
    tree.write("etc/network/interfaces.d/koboshi", &stanzas, 0o644)?;
    let main = tree.read("etc/network/interfaces");
    let (text, changed) = interfaces(&main, names);
    if changed { tree.write("etc/network/interfaces", &text, 0o644) } else { Ok(()) }
}

/// Makes the main file read the folder, and takes our links out of it: a second stanza with
/// `dhcp` would ask for another address on the way up and drop ours on the way down.
fn interfaces(main: &str, links: &[&str]) -> (String, bool) {
    let mut text = String::new();
    let mut changed = false;
    let mut ours = false;
    let mut sourced = false;
    for line in main.lines() {
        let words: Vec<&str> = line.split_whitespace().collect();
        match words.as_slice() {
            ["iface", name, ..] => ours = links.contains(name),
            ["auto" | "mapping" | "source" | "source-directory", ..] => ours = false,
            [word, ..] if word.starts_with("allow-") => ours = false,
            _ => {}
        }
        if let ["source" | "source-directory", from, ..] = words.as_slice() {
            sourced |= from.contains("interfaces.d");
        }
        let starts = matches!(words.first(), Some(&"auto"))
            || words.first().is_some_and(|word| word.starts_with("allow-"));
        if ours {
            changed = true;
        } else if starts && words.iter().any(|word| links.contains(word)) {
            changed = true;
            let rest: Vec<&str> = words.into_iter().filter(|word| !links.contains(word)).collect();
            if rest.len() > 1 {
                let _ = writeln!(text, "{}", rest.join(" "));
            }
        } else {
            let _ = writeln!(text, "{line}");
        }
    }
    if main.is_empty() {
        text.push_str("auto lo\niface lo inet loopback\n");
    }
    if !sourced {
        text.push_str("source /etc/network/interfaces.d/*\n");
    }
    (text, changed || !sourced)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::contract::BondMode;
    use crate::net::netlink::Hop;
    use crate::orders::tests::sample;

    fn standing(name: &str, shape: Shape, mac: u8) -> Standing {
        let card = Card { index: 2, name: name.into(), mac: [0x52, 0x54, 0, 0x77, 0, mac] };
        Standing { card, shape, mtu: None, addresses: Vec::new(), routes: Vec::new() }
    }

    fn hop(to: [u8; 4], prefix: u8, via: [u8; 4], metric: u32) -> Hop {
        Hop { to: to.into(), prefix, via: via.into(), metric, onlink: false }
    }

    fn boot_nic() -> Standing {
        let mut link = standing("eno1", Shape::Nic, 1);
        link.addresses = vec![([10, 77, 0, 11].into(), 24)];
        link.routes = vec![hop([0; 4], 0, [10, 77, 0, 1], 0)];
        link
    }

    fn image() -> (tempfile::TempDir, Tree) {
        let root = tempfile::tempdir().unwrap();
        for folder in ["usr/lib/systemd", "etc/network", "etc/NetworkManager"] {
            fs::create_dir_all(root.path().join(folder)).unwrap();
        }
        fs::write(root.path().join("usr/lib/systemd/systemd-networkd"), "").unwrap();
        let tree = Tree(root.path().to_owned());
        (root, tree)
    }

    #[test]
    fn everybody_in_the_image_is_told() {
        let (_root, tree) = image();
        let mut link = boot_nic();
        link.mtu = Some(9000);
        let spare = standing("store", Shape::Nic, 9).card;
        assert_eq!(hand_over(&tree, &sample(), &[link], &[spare]), Vec::<String>::new());
        assert_eq!(
            tree.read("etc/systemd/network/10-koboshi.link"),
            "[Match]\nMACAddress=52:54:00:77:00:01\n\n[Link]\nNamePolicy=keep\nName=eno1\n"
        );
        assert_eq!(
            tree.read("etc/systemd/network/10-koboshi.network"),
            "[Match]\nName=eno1\nMACAddress=52:54:00:77:00:01\n\n[Link]\nMTUBytes=9000\n\n\
             [Network]\nKeepConfiguration=yes\nDHCP=no\nConfigureWithoutCarrier=yes\n\
             Address=10.77.0.11/24\nDNS=10.77.0.1\n\
             NTP=10.77.0.1\nDomains=dc.example\n\n[Route]\nGateway=10.77.0.1\n"
        );
        // Its name is kept; what is done with it is the image's affair.
        assert!(tree.read("etc/systemd/network/10-koboshi-store.link").contains("77:00:09"));
        assert!(!tree.has("etc/systemd/network/10-koboshi-store.network"));
        assert_eq!(tree.read("etc/network/interfaces.d/koboshi"), "iface eno1 inet manual\n");
        assert!(tree.read("etc/network/interfaces").contains("source /etc/network/interfaces.d/*"));
        assert!(
            tree.read("etc/NetworkManager/conf.d/10-koboshi.conf")
                .contains("mac:52:54:00:77:00:01;interface-name:eno1\n")
        );
    }

    #[test]
    fn a_bond_with_a_vlan_is_left_as_it_stands() {
        let (_root, tree) = image();
        let mut bond = boot_nic();
        (bond.shape, bond.card.name) = (Shape::Bond(BondMode::ActiveBackup), "bond0".into());
        let mut vlan = standing("bond0.20", Shape::Vlan("bond0".into(), 20), 1);
        vlan.addresses = vec![([10, 20, 0, 21].into(), 24)];
        vlan.routes = vec![
            hop([10, 80, 0, 0], 16, [10, 20, 0, 254], 0),
            hop([0; 4], 0, [10, 20, 0, 1], 1024),
        ];
        let links = [
            bond,
            standing("eno1", Shape::Member("bond0".into()), 1),
            standing("eno2", Shape::Member("bond0".into()), 2),
            vlan,
        ];
        assert_eq!(hand_over(&tree, &sample(), &links, &[]), Vec::<String>::new());
        let read = |file: &str| tree.read(&format!("{NETWORKD}/{file}"));
        assert_eq!(
            read("05-koboshi-bond0.20.network"),
            "[Match]\nName=bond0.20\n\n[Link]\nRequiredForOnline=no\n\n\
             [Network]\nKeepConfiguration=yes\nDHCP=no\nConfigureWithoutCarrier=yes\n\
             Address=10.20.0.21/24\n\n\
             [Route]\nDestination=10.80.0.0/16\nGateway=10.20.0.254\n\n\
             [Route]\nGateway=10.20.0.1\nMetric=1024\n"
        );
        assert!(read("05-koboshi-bond0.network").contains("\nAddress=10.77.0.11/24\nDNS="));
        assert_eq!(
            read("05-koboshi-bond0.link"),
            "[Match]\nOriginalName=bond0\n\n[Link]\nNamePolicy=keep\nMACAddressPolicy=none\n"
        );
        assert_eq!(
            read("10-koboshi-eno2.link"),
            "[Match]\nPermanentMACAddress=52:54:00:77:00:02\n\n[Link]\nNamePolicy=keep\nName=eno2\n"
        );
        let member = "[Match]\nName=eno1\n\n[Link]\nUnmanaged=yes\n";
        assert_eq!(read("10-koboshi-eno1.network"), member);
        assert_eq!(
            tree.read("etc/network/interfaces.d/koboshi"),
            "iface bond0 inet manual\niface eno1 inet manual\niface eno2 inet manual\n\
             iface bond0.20 inet manual\n"
        );
        assert!(
            tree.read("etc/NetworkManager/conf.d/10-koboshi.conf")
                .contains("interface-name:eno2;interface-name:bond0.20\n")
        );
    }

    #[test]
    fn an_image_without_any_of_them_stays_as_it_is() {
        let root = tempfile::tempdir().unwrap();
        let tree = Tree(root.path().to_owned());
        assert!(hand_over(&tree, &sample(), &[boot_nic()], &[]).is_empty());
        assert_eq!(fs::read_dir(root.path()).unwrap().count(), 0);
    }

    #[test]
    fn an_address_that_is_lent_is_asked_for_again() {
        let (_root, tree) = image();
        let mut orders = sample();
        orders.nic.lent = true;
        let vlan = standing("eno1.20", Shape::Vlan("eno1".into(), 20), 1);
        assert_eq!(hand_over(&tree, &orders, &[boot_nic(), vlan], &[]), Vec::<String>::new());
        let network = tree.read("etc/systemd/network/10-koboshi.network");
        assert!(network.contains("DHCP=ipv4\n") && network.contains("ClientIdentifier=mac"));
        assert!(!network.contains("Address=10.77"), "{network}");
        assert_eq!(
            tree.read("etc/network/interfaces.d/koboshi"),
            "auto eno1\niface eno1 inet dhcp\niface eno1.20 inet manual\n"
        );
        let nm = tree.read("etc/NetworkManager/conf.d/10-koboshi.conf");
        assert_eq!(nm, "[keyfile]\nunmanaged-devices=interface-name:eno1.20\n");
    }

    #[test]
    fn a_gateway_outside_the_network_is_on_the_link() {
        let mut link = boot_nic();
        link.routes = vec![Hop { onlink: true, ..hop([0; 4], 0, [192, 0, 2, 1], 0) }];
        assert!(
            network(&sample(), &link, true)
                .ends_with("[Route]\nGateway=192.0.2.1\nGatewayOnLink=yes\n")
        );
    }

    #[test]
    fn debian_interfaces() {
        let debian = "source /etc/network/interfaces.d/*\n\nauto lo\niface lo inet loopback\n";
        assert_eq!(interfaces(debian, &["eth0"]), (debian.to_owned(), false));
        let dhcp = "auto lo eth0\niface lo inet loopback\nallow-hotplug eth0\niface eth0 inet dhcp\n  metric 5\n\
                    auto eth1\niface eth1 inet dhcp\n";
        let meant = "auto lo\niface lo inet loopback\nauto eth1\niface eth1 inet dhcp\n\
                     source /etc/network/interfaces.d/*\n";
        assert_eq!(interfaces(dhcp, &["eth0", "bond0"]), (meant.to_owned(), true));
    }
}
