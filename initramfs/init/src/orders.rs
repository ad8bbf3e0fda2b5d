//! The boot's own orders, read from the initramfs and checked before anything acts on them.

use std::collections::HashSet;
use std::fs::File;
use std::io::Read;
use std::net::Ipv4Addr;
use std::path::Path;

use crate::cmdline::Cmdline;
use crate::contract::{BOOT_LINK, Blob, Orders, Route, Source};
use crate::disks::Wanted;
use crate::net::link::parse_mac;

const ORDERS_MAX: u64 = 1024 * 1024;
/// 10,000 seats take a megabyte.
const HOSTS_MAX: u64 = 8 << 20;
/// Cards, bonds, members, networks, routes: nobody has so many of any.
const EACH_MAX: usize = 256;
/// Layers of a root: overlayfs takes more, a page of options for them does not.
const LAYERS_MAX: usize = 24;

/// Archives of files over a root: one of the role, one of the seat.
const FILES_EACH: usize = 4;

/// The site's names, if the initramfs brings them. Lines that do not read are left out.
pub fn hosts(path: &Path) -> Vec<(Ipv4Addr, Vec<String>)> {
    let mut text = String::new();
    let read = File::open(path).and_then(|file| file.take(HOSTS_MAX).read_to_string(&mut text));
    if read.is_err() {
        return Vec::new();
    }
    let line = |line: &str| {
        let mut words = line.split_whitespace();
        let address = words.next()?.parse().ok()?;
        let fits =
            |name: &&str| name.chars().all(|c| c.is_ascii_alphanumeric() || "-._".contains(c));
        Some((address, words.filter(fits).map(str::to_owned).collect()))
    };
    text.lines().filter_map(line).collect()
}

/// Reads and checks the orders. The error is a sentence for the console.
pub fn read(path: &Path, line: &Cmdline) -> Result<Orders, String> {
    let mut text = Vec::new();
    File::open(path)
        .and_then(|file| file.take(ORDERS_MAX).read_to_end(&mut text))
        .map_err(|error| format!("no orders for this boot in {}: {error}", path.display()))?;
    parse(&text, line).map_err(|why| format!("the orders in {} are no good: {why}", path.display()))
}

fn parse(text: &[u8], line: &Cmdline) -> Result<Orders, String> {
    let orders: Orders = serde_json::from_slice(text).map_err(|error| error.to_string())?;
    check(&orders, line)?;
    Ok(orders)
}

fn check(orders: &Orders, line: &Cmdline) -> Result<(), String> {
    let root = &orders.root;
    if parse_mac(&orders.nic.mac).is_none() {
        return Err(format!("nic.mac {:?} is no MAC address", orders.nic.mac));
    }
    if orders.nic.prefix > 32 {
        return Err(format!("nic.prefix {} is over 32", orders.nic.prefix));
    }
    if let Some(name) = &orders.nic.name
        && !interface_name(name)
    {
        return Err(format!("nic.name {name:?} cannot be the name of an interface"));
    }
    routes("nic.routes", &orders.nic.routes)?;
    links(orders)?;
    if !host_name(&orders.hostname) {
        return Err(format!("hostname {:?} cannot be a host name", orders.hostname));
    }
    if !orders.domain.is_empty() && !host_name(&orders.domain) {
        return Err(format!("domain {:?} cannot be a domain", orders.domain));
    }
    if let Some(id) = &orders.machine_id
        && (id.len() != 32 || !id.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')))
    {
        return Err(format!("machine_id {id:?} is not 32 hex digits"));
    }
    match &root.from {
        Source::Archive { layers, .. } | Source::Squashfs { layers } => {
            if layers.is_empty() || layers.len() > LAYERS_MAX {
                return Err(format!("root.layers are {}, not 1 to {LAYERS_MAX}", layers.len()));
            }
            layers.iter().try_for_each(check_blob)?;
        }
        Source::Nfs { path, options, .. } => {
            let plain = |text: &str| text.bytes().all(|b| b.is_ascii_graphic());
            if !path.starts_with('/') || !plain(path) {
                return Err(format!("root.path {path:?} is no path of a server"));
            }
            if !plain(options) {
                return Err(format!("root.options {options:?} are no options of a mount"));
            }
        }
    }
    if root.files.len() > FILES_EACH {
        return Err(format!("root.files are {}, over {FILES_EACH}", root.files.len()));
    }
    root.files.iter().try_for_each(check_blob)?;
    for disk in &orders.disks {
        let up = disk.at.split('/').any(|part| part == "..");
        if !disk.at.starts_with('/') || disk.at == "/" || up || disk.at.contains(char::is_control) {
            return Err(format!("disks: {:?} is no place in the root", disk.at));
        }
        if Wanted::parse(&disk.what).is_none() {
            return Err(format!("disks: {:?} does not name a disk", disk.what));
        }
    }
    // The command line and the orders reach the machine by two roads. If they name two roots,
    // one of them is of another boot, and neither can be trusted.
    if let Some(named) = &line.root {
        let key = root.key();
        let same = match root.layers() {
            [] => key == *named,
            _ => key.eq_ignore_ascii_case(named),
        };
        if !same {
            return Err(format!("they name root {key}, the command line {named}"));
        }
    }
    Ok(())
}

/// What is built beside the boot NIC.
fn links(orders: &Orders) -> Result<(), String> {
    let (cards, bonds, nets) = (&orders.cards, &orders.bonds, &orders.nets);
    if [cards.len(), bonds.len(), nets.len()].iter().any(|count| *count > EACH_MAX) {
        return Err(format!("over {EACH_MAX} cards, bonds or nets"));
    }
    let made = cards.iter().map(|card| &card.name).chain(bonds.iter().map(|bond| &bond.name));
    let mut seen = HashSet::new();
    for name in made {
        if !interface_name(name) || name == BOOT_LINK || !seen.insert(name) {
            return Err(format!(
                "{name:?} cannot be the name of a card or bond, or is one already"
            ));
        }
    }
    let hardware = |word: &String| parse_mac(word).is_some() || interface_name(word);
    let members = bonds.iter().flat_map(|bond| &bond.of);
    let words = cards.iter().map(|card| &card.hardware).chain(members);
    let words = words.chain(nets.iter().map(|net| &net.on));
    if let Some(word) = words.clone().find(|word| !hardware(word)) {
        return Err(format!("{word:?} names no NIC"));
    }
    if words.count() > EACH_MAX {
        return Err(format!("over {EACH_MAX} members of bonds"));
    }
    for net in nets {
        if !host_name(&net.name) || net.prefix > 32 {
            return Err(format!("network {:?}/{} is none", net.name, net.prefix));
        }
        if net.vlan.is_some_and(|id| !(1..=4094).contains(&id)) {
            return Err(format!("network {} has no VLAN {:?}", net.name, net.vlan));
        }
        routes(&net.name, &net.routes)?;
    }
    Ok(())
}

fn routes(whose: &str, routes: &[Route]) -> Result<(), String> {
    if routes.len() > EACH_MAX || routes.iter().any(|route| route.prefix > 32) {
        return Err(format!("{whose}: over {EACH_MAX} routes, or one of over 32 bits"));
    }
    Ok(())
}

fn check_blob(blob: &Blob) -> Result<(), String> {
    if blob.sha256.len() != 64 || !blob.sha256.bytes().all(|b| b.is_ascii_hexdigit()) {
        return Err(format!("root.sha256 {:?} is not 64 hex digits", blob.sha256));
    }
    if !blob.path.starts_with('/') || blob.path.bytes().any(|b| !b.is_ascii_graphic()) {
        return Err(format!("root.path {:?} is no path on the server", blob.path));
    }
    if blob.size == 0 {
        return Err("root.size is 0".to_owned());
    }
    Ok(())
}

/// IFNAMSIZ is 16 with the NUL; `/`, `:` and blanks are refused by the kernel.
fn interface_name(name: &str) -> bool {
    (1..=15).contains(&name.len())
        && name != "."
        && name != ".."
        && name.bytes().all(|b| b.is_ascii_graphic() && b != b'/' && b != b':' && b != b'%')
}

fn host_name(name: &str) -> bool {
    (1..=253).contains(&name.len())
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_'))
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::cmdline;
    use crate::contract::Disk;

    pub(crate) fn sample() -> Orders {
        serde_json::from_str(&format!(
            r#"{{"written":1795000000,"hostname":"web1","domain":"dc.example",
            "machine_id":"0123456789ab4def8123456789abcdef",
            "nic":{{"mac":"52:54:00:77:00:01","name":null,"address":"10.77.0.11","prefix":24,
                    "gateway":"10.77.0.1","mtu":null}},
            "dns":["10.77.0.1"],"ntp":["10.77.0.1"],
            "ssh_keys":["ssh-ed25519 AAAA ops"],"serial":"ttyS0,115200",
            "root":{{"image":"web@3","tmpfs":"80%","from":{{"kind":"archive","unpacked":100,
                     "layers":[{{"path":"/blob/sha256/{0}","sha256":"{0}","size":10}}]}}}},
            "args":{{"id":"100"}},"heartbeat":30}}"#,
            "ab".repeat(32)
        ))
        .expect("the sample is written by hand to fit")
    }

    #[test]
    fn takes_good_orders() {
        let text = serde_json::to_vec(&sample()).unwrap();
        let line = cmdline::parse(&format!("koboshi.root=sha256:{}", "AB".repeat(32)));
        assert_eq!(parse(&text, &line).unwrap(), sample());
    }

    #[test]
    fn says_what_is_wrong() {
        type Spoil = fn(&mut Orders);
        fn blob(orders: &mut Orders) -> &mut Blob {
            match &mut orders.root.from {
                Source::Archive { layers, .. } | Source::Squashfs { layers } => &mut layers[0],
                Source::Nfs { .. } => panic!("the sample is an archive"),
            }
        }
        fn nfs(path: &str, options: &str) -> Source {
            let (path, options) = (path.to_owned(), options.to_owned());
            Source::Nfs { server: [10, 77, 0, 9].into(), path, options, read_only: true }
        }
        fn disk(at: &str, what: &str) -> Vec<Disk> {
            vec![Disk { at: at.to_owned(), what: what.to_owned() }]
        }
        let table: [(&str, Spoil); 17] = [
            ("nic.mac", |o| o.nic.mac = "52:54".into()),
            ("nic.prefix", |o| o.nic.prefix = 33),
            ("nic.name", |o| o.nic.name = Some("a name far too long".into())),
            ("nic.name", |o| o.nic.name = Some("../x".into())),
            ("hostname", |o| o.hostname = "a\nb".into()),
            ("domain", |o| o.domain = "a b".into()),
            ("machine_id", |o| o.machine_id = Some("0".repeat(31))),
            ("machine_id", |o| o.machine_id = Some("\n".repeat(32))),
            ("root.sha256", |o| blob(o).sha256 = "zz".repeat(32)),
            ("root.path", |o| blob(o).path = "/x HTTP/1.1\r\nX: y".into()),
            ("root.size", |o| blob(o).size = 0),
            ("root.path", |o| o.root.from = nfs("srv/web", "")),
            ("root.path", |o| o.root.from = nfs("/srv/w eb", "")),
            ("root.options", |o| o.root.from = nfs("/srv/web", "ro,\n")),
            ("no place", |o| o.disks = disk("/", "LABEL=db")),
            ("no place", |o| o.disks = disk("/var/../etc", "LABEL=db")),
            ("name a disk", |o| o.disks = disk("/data", "db")),
        ];
        for (word, spoil) in table {
            let mut orders = sample();
            spoil(&mut orders);
            let why = check(&orders, &Cmdline::default()).unwrap_err();
            assert!(why.contains(word), "{why}");
        }
    }

    #[test]
    fn further_links_are_checked_too() {
        let links = serde_json::json!({
            "cards": [{"name": "store", "hardware": "52:54:00:77:01:03"}],
            "bonds": [{"name": "bond0", "mode": "802.3ad", "of": ["eno1", "52:54:00:77:01:02"]}],
            "nets": [{"name": "svc", "on": "bond0", "vlan": 20, "address": "10.20.0.21",
                      "prefix": 24, "gateway": null, "mtu": 9000,
                      "routes": [{"to": "10.80.0.0", "prefix": 16, "via": "10.20.0.254"}]}]
        });
        let with = |at: &str, value: serde_json::Value| {
            let mut links = links.clone();
            if !at.is_empty() {
                *links.pointer_mut(at).unwrap() = value;
            }
            let mut orders = serde_json::to_value(sample()).unwrap();
            for key in ["cards", "bonds", "nets"] {
                orders[key] = links[key].clone();
            }
            parse(&serde_json::to_vec(&orders).unwrap(), &Cmdline::default())
        };
        assert_eq!(with("", 0.into()).unwrap().bonds[0].of.len(), 2);
        for (at, value) in [
            ("/cards/0/name", "boot".into()),
            ("/cards/0/name", "bond0".into()),
            ("/cards/0/name", "a/b".into()),
            ("/cards/0/hardware", "eno1\nName=x".into()),
            ("/bonds/0/name", "".into()),
            ("/bonds/0/mode", "balance-rr".into()),
            ("/bonds/0/of/1", "52:54:00:77:01".into()),
            ("/bonds/0/of", vec!["eno1"; 300].into()),
            ("/nets/0/on", "a b".into()),
            ("/nets/0/name", "svc\n[Route]".into()),
            ("/nets/0/vlan", 0.into()),
            ("/nets/0/vlan", 4095.into()),
            ("/nets/0/prefix", 33.into()),
            ("/nets/0/routes/0/prefix", 33.into()),
            ("/nets/0/address", "10.20.0.256".into()),
        ] {
            assert!(with(at, value).is_err(), "{at}");
        }
    }

    #[test]
    fn two_roots_are_refused() {
        let line = cmdline::parse(&format!("koboshi.root=sha256:{}", "cd".repeat(32)));
        assert!(check(&sample(), &line).unwrap_err().contains("command line"));
        let mut orders = sample();
        let (path, options) = ("/srv/web".to_owned(), String::new());
        let server = [10, 77, 0, 9].into();
        orders.root.from = Source::Nfs { server, path, options, read_only: true };
        let line = |root: &str| cmdline::parse(&format!("koboshi.root={root}"));
        assert_eq!(check(&orders, &line("nfs:10.77.0.9:/srv/web")), Ok(()));
        assert!(check(&orders, &line("nfs:10.77.0.9:/srv/WEB")).is_err());
        assert!(check(&orders, &line(&format!("sha256:{}", "ab".repeat(32)))).is_err());
    }

    #[test]
    fn cut_orders_are_refused_at_every_byte() {
        let text = serde_json::to_vec(&sample()).unwrap();
        for cut in 0..text.len() {
            assert!(parse(&text[..cut], &Cmdline::default()).is_err(), "cut at {cut}");
        }
        let missing = read(Path::new("/nonexistent/orders.json"), &Cmdline::default());
        assert!(missing.unwrap_err().contains("no orders"));
    }
}
