//! The image becomes this seat: host name, hosts, resolver, keys, getty, written into the new root
//! before it is `/`. Nothing here stops a boot: what fails is said.

mod handover;
mod hostkeys;
pub mod intree;

use std::io;

use crate::contract::Orders;
use crate::net::link::Card;
use crate::net::links::Standing;
use crate::settle::intree::Tree;

/// Where the system keeps its mark, so that a second run replaces and does not add.
const MARK: &str = "# koboshi: this seat, written at boot";

/// Writes all of it; what did not work, in sentences.
pub fn settle(tree: &Tree, orders: &Orders, links: &[Standing], named: &[Card]) -> Vec<String> {
    let steps: [(&str, io::Result<()>); 8] = [
        ("host name", tree.write("etc/hostname", &format!("{}\n", orders.hostname), 0o644)),
        ("hosts", tree.write("etc/hosts", &hosts(&tree.read("etc/hosts"), orders), 0o644)),
        ("resolver", resolver(tree, orders)),
        ("time servers", time_servers(tree, orders)),
        ("SSH keys", ssh_keys(tree, orders)),
        ("serial getty", getty(tree, orders)),
        ("machine id", machine_id(tree, orders)),
        ("SSH host keys", hostkeys::units(tree)),
    ];
    let mut troubles: Vec<String> = steps
        .into_iter()
        .filter_map(|(what, result)| Some(format!("{what} not set: {}", result.err()?)))
        .collect();
    troubles.extend(handover::hand_over(tree, orders, links, named));
    troubles
}

/// `web1.dc.example web1`
fn own_names(orders: &Orders) -> String {
    if orders.domain.is_empty() || orders.hostname.contains('.') {
        orders.hostname.clone()
    } else {
        format!("{0}.{1} {0}", orders.hostname, orders.domain)
    }
}

/// The image's own lines stay, up to our mark of a boot before; 127.0.1.1 is Debian's way to name
/// the machine the image was built on.
fn hosts(image: &str, orders: &Orders) -> String {
    let mut text = String::new();
    for line in image.lines().take_while(|line| *line != MARK) {
        if !line.trim_start().starts_with("127.0.1.1") {
            text.push_str(line);
            text.push('\n');
        }
    }
    if !text.lines().any(|line| line.split_whitespace().skip(1).any(|name| name == "localhost")) {
        text.push_str("127.0.0.1 localhost\n::1 localhost ip6-localhost ip6-loopback\n");
    }
    text.push_str(&format!("{MARK}\n{} {}\n", orders.nic.address, own_names(orders)));
    for (address, names) in &orders.hosts {
        let names: Vec<&str> =
            names.iter().map(String::as_str).filter(|name| is_word(name)).collect();
        if *address != orders.nic.address && !names.is_empty() {
            text.push_str(&format!("{address} {}\n", names.join(" ")));
        }
    }
    text
}

fn resolver(tree: &Tree, orders: &Orders) -> io::Result<()> {
    if orders.dns.is_empty() {
        return Ok(());
    }
    let servers: Vec<String> = orders.dns.iter().map(ToString::to_string).collect();
    if systemd_has(tree, "systemd-resolved") {
        let domains = if orders.domain.is_empty() {
            String::new()
        } else {
            format!("Domains={}\n", orders.domain)
        };
        let text = format!("[Resolve]\nDNS={}\n{domains}", servers.join(" "));
        tree.write("etc/systemd/resolved.conf.d/koboshi.conf", &text, 0o644)?;
        // The link into /run is how programs reach resolved; a file in its place would go round it.
        if tree
            .link_target("etc/resolv.conf")
            .is_some_and(|target| target.contains("systemd/resolve"))
        {
            return Ok(());
        }
    }
    let mut text = String::new();
    if !orders.domain.is_empty() {
        text.push_str(&format!("search {}\n", orders.domain));
    }
    for server in &servers {
        text.push_str(&format!("nameserver {server}\n"));
    }
    tree.write("etc/resolv.conf", &text, 0o644)
}

fn time_servers(tree: &Tree, orders: &Orders) -> io::Result<()> {
    if orders.ntp.is_empty() {
        return Ok(());
    }
    let servers: Vec<String> = orders.ntp.iter().map(ToString::to_string).collect();
    if systemd_has(tree, "systemd-timesyncd") {
        let text = format!("[Time]\nNTP={}\n", servers.join(" "));
        tree.write("etc/systemd/timesyncd.conf.d/koboshi.conf", &text, 0o644)?;
    }
    if tree.has("etc/chrony/sources.d") {
        let text: String =
            servers.iter().map(|server| format!("server {server} iburst\n")).collect();
        tree.write("etc/chrony/sources.d/koboshi.sources", &text, 0o644)?;
    }
    Ok(())
}

/// The site's keys beside those of the image.
fn ssh_keys(tree: &Tree, orders: &Orders) -> io::Result<()> {
    let keys: Vec<&str> = orders
        .ssh_keys
        .iter()
        .map(|key| key.trim())
        .filter(|key| !key.is_empty() && !key.contains('\n'))
        .collect();
    if keys.is_empty() {
        return Ok(());
    }
    let home = root_home(&tree.read("etc/passwd"));
    let file = format!("{home}/.ssh/authorized_keys");
    let mut text = tree.read(&file);
    if !text.is_empty() && !text.ends_with('\n') {
        text.push('\n');
    }
    for key in keys {
        if !text.lines().any(|line| line.trim() == key) {
            text.push_str(key);
            text.push('\n');
        }
    }
    tree.directory(&format!("{home}/.ssh"), 0o700)?;
    tree.write(&file, &text, 0o600)
}

fn root_home(passwd: &str) -> String {
    passwd
        .lines()
        .map(|line| line.split(':').collect::<Vec<_>>())
        .find(|fields| fields.first() == Some(&"root"))
        .and_then(|fields| fields.get(5).copied())
        .filter(|home| home.starts_with('/') && home.len() > 1)
        .unwrap_or("/root")
        .to_owned()
}

const GETTYS: [&str; 6] = [
    "/sbin/getty",
    "/bin/getty",
    "/usr/sbin/getty",
    "/usr/bin/getty",
    "/sbin/agetty",
    "/usr/sbin/agetty",
];

/// systemd's generator serves the kernel's console by itself; the link makes sure of the line the
/// site names even where the kernel was not told. agetty keeps the kernel's speed (`--keep-baud`).
fn getty(tree: &Tree, orders: &Orders) -> io::Result<()> {
    let mut parts = orders.serial.split(',');
    let tty = parts.next().unwrap_or_default();
    let speed: String =
        parts.next().unwrap_or("115200").chars().take_while(char::is_ascii_digit).collect();
    if tty.is_empty() || !tty.bytes().all(|b| b.is_ascii_alphanumeric()) {
        return Ok(());
    }
    for lib in ["usr/lib", "lib"] {
        let unit = format!("{lib}/systemd/system/serial-getty@.service");
        if tree.has(&unit) {
            let link = format!("etc/systemd/system/getty.target.wants/serial-getty@{tty}.service");
            tree.link(&link, &format!("/{unit}"))?;
            break;
        }
    }
    let table = tree.read("etc/inittab");
    if !table.is_empty() {
        let getty = GETTYS.iter().copied().find(|path| tree.has(path));
        let text = inittab(&table, tty, &speed, getty)
            .ok_or_else(|| io::Error::other(format!("the image has no getty for {tty}")))?;
        tree.write("etc/inittab", &text, 0o644)?;
    }
    Ok(())
}

/// sysvinit's table (`id:levels:action:process`) names a default level, busybox's (`tty::action:process`)
/// does not. A getty that serves the line already keeps its options and gets the one speed (S24).
fn inittab(table: &str, tty: &str, speed: &str, getty: Option<&str>) -> Option<String> {
    let sysv = table.lines().any(|line| line.contains(":initdefault:"));
    let mut served = false;
    let mut text = String::new();
    for line in table.lines() {
        let live = !line.trim_start().starts_with('#');
        let fields: Vec<&str> = line.splitn(4, ':').collect();
        let waits = fields.len() == 4 && matches!(fields[2], "respawn" | "askfirst");
        // An empty id is busybox's word for the console, which is this very line.
        let on_console = !sysv && waits && matches!(fields[0], "" | "console");
        let named =
            waits && line.split(|c: char| !c.is_ascii_alphanumeric()).any(|word| word == tty);
        if live && (on_console || named) {
            served = true;
        }
        if live && named && line.contains("getty") {
            let words: Vec<&str> = line.split(' ').collect();
            let words: Vec<&str> =
                words.into_iter().map(|word| if is_speed(word) { speed } else { word }).collect();
            text.push_str(&words.join(" "));
        } else {
            text.push_str(line);
        }
        text.push('\n');
    }
    if !served {
        let getty = getty?;
        text.push_str(&match sysv {
            true => format!("K0:2345:respawn:{getty} -L {tty} {speed} vt100\n"),
            false => format!("{tty}::respawn:{getty} -L {speed} {tty} vt100\n"),
        });
    }
    Some(text)
}

fn is_speed(word: &str) -> bool {
    matches!(
        word,
        "1200"
            | "2400"
            | "4800"
            | "9600"
            | "19200"
            | "38400"
            | "57600"
            | "115200"
            | "230400"
            | "460800"
            | "921600"
    )
}

/// The machine's own, where somebody in the image reads it: one that came with the image would be that of
/// all who boot it. No file at all would be a first boot to systemd, with its presets: every service of the
/// image that is off would be on.
fn machine_id(tree: &Tree, orders: &Orders) -> io::Result<()> {
    let systemd = tree.has("usr/lib/systemd/systemd") || tree.has("lib/systemd/systemd");
    let dbus = tree.has("var/lib/dbus");
    let there = tree.has("etc/machine-id");
    match &orders.machine_id {
        Some(id) if systemd || dbus || there => {
            tree.write("etc/machine-id", &format!("{id}\n"), 0o444)?;
        }
        None if systemd && !there => tree.write("etc/machine-id", "", 0o444)?,
        _ => return Ok(()),
    }
    if dbus { tree.link("var/lib/dbus/machine-id", "/etc/machine-id") } else { Ok(()) }
}

/// Whether one of systemd's daemons is in the image.
pub fn systemd_has(tree: &Tree, daemon: &str) -> bool {
    ["usr/lib/systemd", "lib/systemd"].iter().any(|lib| tree.has(&format!("{lib}/{daemon}")))
}

fn is_word(name: &str) -> bool {
    !name.is_empty() && name.bytes().all(|b| b.is_ascii_graphic() && b != b'#')
}

#[cfg(test)]
mod tests;
