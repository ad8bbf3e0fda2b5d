//! The NIC changes hands. The address set here is the seat's, and the root runs over nothing else:
//! whoever manages networks in the image must find it, keep it, and not rename it.

use std::fmt::Write as _;
use std::io;

use crate::contract::Orders;
use crate::intree::Tree;
use crate::settle::systemd_has;

/// Tells udev, networkd, ifupdown and NetworkManager, whichever the image has.
pub fn hand_over(tree: &Tree, orders: &Orders, interface: &str) -> Vec<String> {
    let mut troubles = Vec::new();
    let mut step = |who: &str, result: io::Result<()>| {
        if let Err(error) = result {
            troubles.push(format!("{who} not told of {interface}: {error}"));
        }
    };
    if tree.has("usr/lib/systemd") || tree.has("lib/systemd") || tree.has("etc/systemd") {
        step(
            "udev",
            tree.write("etc/systemd/network/10-koboshi.link", &link(orders, interface), 0o644),
        );
    }
    if systemd_has(tree, "systemd-networkd") {
        step(
            "networkd",
            tree.write(
                "etc/systemd/network/10-koboshi.network",
                &network(orders, interface),
                0o644,
            ),
        );
    }
    if tree.has("etc/network") {
        step("ifupdown", ifupdown(tree, interface));
    }
    if tree.has("etc/NetworkManager") {
        // With nothing left to manage it would write a resolv.conf without a server in it.
        let dns = if orders.dns.is_empty() { "" } else { "[main]\ndns=none\n\n" };
        let text = format!("{dns}[keyfile]\nunmanaged-devices=mac:{}\n", orders.nic.mac);
        step(
            "NetworkManager",
            tree.write("etc/NetworkManager/conf.d/10-koboshi.conf", &text, 0o644),
        );
    }
    troubles
}

/// The first matching .link wins, so this one stands before 99-default, which would rename.
fn link(orders: &Orders, interface: &str) -> String {
    format!("[Match]\nMACAddress={}\n\n[Link]\nNamePolicy=keep\nName={interface}\n", orders.nic.mac)
}

/// Name and MAC: a bond or VLAN made on top in the image carries the same MAC.
fn network(orders: &Orders, interface: &str) -> String {
    let nic = &orders.nic;
    let mut text = format!("[Match]\nName={interface}\nMACAddress={}\n\n", nic.mac);
    if let Some(mtu) = nic.mtu {
        let _ = write!(text, "[Link]\nMTUBytes={mtu}\n\n");
    }
    let _ = write!(
        text,
        "[Network]\nKeepConfiguration=yes\nDHCP=no\nAddress={}/{}\n",
        nic.address, nic.prefix
    );
    for server in &orders.dns {
        let _ = writeln!(text, "DNS={server}");
    }
    for server in &orders.ntp {
        let _ = writeln!(text, "NTP={server}");
    }
    if !orders.domain.is_empty() {
        let _ = writeln!(text, "Domains={}", orders.domain);
    }
    if let Some(gateway) = nic.gateway {
        let _ = write!(text, "\n[Route]\nGateway={gateway}\n");
        if !crate::netlink::same_network(nic.address, gateway, nic.prefix) {
            text.push_str("GatewayOnLink=yes\n");
        }
    }
    text
}

/// `manual` and no `auto`: ifup leaves it as it is, ifdown never takes it down.
fn ifupdown(tree: &Tree, interface: &str) -> io::Result<()> {
    tree.write(
        "etc/network/interfaces.d/koboshi",
        &format!("iface {interface} inet manual\n"),
        0o644,
    )?;
    let main = tree.read("etc/network/interfaces");
    let (text, changed) = interfaces(&main, interface);
    if changed { tree.write("etc/network/interfaces", &text, 0o644) } else { Ok(()) }
}

/// Makes the main file read the folder, and takes the boot NIC out of it: a second stanza with
/// `dhcp` would ask for another address on the way up and drop ours on the way down.
fn interfaces(main: &str, interface: &str) -> (String, bool) {
    let mut text = String::new();
    let mut changed = false;
    let mut ours = false;
    let mut sourced = false;
    for line in main.lines() {
        let words: Vec<&str> = line.split_whitespace().collect();
        match words.as_slice() {
            ["iface", name, ..] => ours = *name == interface,
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
        } else if starts && words.contains(&interface) {
            changed = true;
            let rest: Vec<&str> = words.into_iter().filter(|word| *word != interface).collect();
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
    use crate::orders::tests::sample;

    #[test]
    fn everybody_in_the_image_is_told() {
        let root = tempfile::tempdir().unwrap();
        for folder in ["usr/lib/systemd", "etc/network", "etc/NetworkManager"] {
            fs::create_dir_all(root.path().join(folder)).unwrap();
        }
        fs::write(root.path().join("usr/lib/systemd/systemd-networkd"), "").unwrap();
        let tree = Tree(root.path().to_owned());
        let mut orders = sample();
        orders.nic.mtu = Some(9000);
        assert_eq!(hand_over(&tree, &orders, "eno1"), Vec::<String>::new());
        assert_eq!(
            tree.read("etc/systemd/network/10-koboshi.link"),
            "[Match]\nMACAddress=52:54:00:77:00:01\n\n[Link]\nNamePolicy=keep\nName=eno1\n"
        );
        assert_eq!(
            tree.read("etc/systemd/network/10-koboshi.network"),
            "[Match]\nName=eno1\nMACAddress=52:54:00:77:00:01\n\n[Link]\nMTUBytes=9000\n\n\
             [Network]\nKeepConfiguration=yes\nDHCP=no\nAddress=10.77.0.11/24\nDNS=10.77.0.1\n\
             NTP=10.77.0.1\nDomains=dc.example\n\n[Route]\nGateway=10.77.0.1\n"
        );
        assert_eq!(tree.read("etc/network/interfaces.d/koboshi"), "iface eno1 inet manual\n");
        assert!(tree.read("etc/network/interfaces").contains("source /etc/network/interfaces.d/*"));
        assert!(
            tree.read("etc/NetworkManager/conf.d/10-koboshi.conf")
                .contains("mac:52:54:00:77:00:01")
        );
    }

    #[test]
    fn an_image_without_any_of_them_stays_as_it_is() {
        let root = tempfile::tempdir().unwrap();
        assert!(hand_over(&Tree(root.path().to_owned()), &sample(), "eth0").is_empty());
        assert_eq!(fs::read_dir(root.path()).unwrap().count(), 0);
    }

    #[test]
    fn a_gateway_outside_the_network_is_on_the_link() {
        let mut orders = sample();
        orders.nic.gateway = Some("192.0.2.1".parse().unwrap());
        assert!(
            network(&orders, "eth0").ends_with("[Route]\nGateway=192.0.2.1\nGatewayOnLink=yes\n")
        );
    }

    #[test]
    fn debian_interfaces() {
        let debian = "source /etc/network/interfaces.d/*\n\nauto lo\niface lo inet loopback\n";
        assert_eq!(interfaces(debian, "eth0"), (debian.to_owned(), false));
        let dhcp = "auto lo eth0\niface lo inet loopback\nallow-hotplug eth0\niface eth0 inet dhcp\n  metric 5\n\
                    auto eth1\niface eth1 inet dhcp\n";
        let meant = "auto lo\niface lo inet loopback\nauto eth1\niface eth1 inet dhcp\n\
                     source /etc/network/interfaces.d/*\n";
        assert_eq!(interfaces(dhcp, "eth0"), (meant.to_owned(), true));
    }
}
