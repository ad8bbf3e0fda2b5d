//! The boot's own orders, read from the initramfs and checked before anything acts on them.

use std::fs::File;
use std::io::Read;
use std::net::Ipv4Addr;
use std::path::Path;

use crate::cmdline::Cmdline;
use crate::contract::Orders;
use crate::link::parse_mac;

const ORDERS_MAX: u64 = 1024 * 1024;
/// 10,000 seats take a megabyte.
const HOSTS_MAX: u64 = 8 << 20;

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
    if !host_name(&orders.hostname) {
        return Err(format!("hostname {:?} cannot be a host name", orders.hostname));
    }
    if !orders.domain.is_empty() && !host_name(&orders.domain) {
        return Err(format!("domain {:?} cannot be a domain", orders.domain));
    }
    if root.sha256.len() != 64 || !root.sha256.bytes().all(|b| b.is_ascii_hexdigit()) {
        return Err(format!("root.sha256 {:?} is not 64 hex digits", root.sha256));
    }
    if !root.path.starts_with('/') || root.path.bytes().any(|b| !b.is_ascii_graphic()) {
        return Err(format!("root.path {:?} is no path on the server", root.path));
    }
    if root.size == 0 {
        return Err("root.size is 0".to_owned());
    }
    // The command line and the orders reach the machine by two roads. If they name two roots,
    // one of them is of another boot, and neither can be trusted.
    if let Some(named) = &line.root {
        let digest = named.strip_prefix("sha256:").unwrap_or(named);
        if !digest.eq_ignore_ascii_case(&root.sha256) {
            return Err(format!("they name root {}, the command line {digest}", root.sha256));
        }
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

    pub(crate) fn sample() -> Orders {
        serde_json::from_str(&format!(
            r#"{{"written":1795000000,"hostname":"web1","domain":"dc.example",
            "nic":{{"mac":"52:54:00:77:00:01","name":null,"address":"10.77.0.11","prefix":24,
                    "gateway":"10.77.0.1","mtu":null}},
            "dns":["10.77.0.1"],"ntp":["10.77.0.1"],
            "ssh_keys":["ssh-ed25519 AAAA ops"],"serial":"ttyS0,115200",
            "root":{{"path":"/blob/sha256/{0}","sha256":"{0}","size":10,"unpacked":100,
                     "tmpfs":"80%","image":"web@3"}},
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
        let table: [(&str, Spoil); 9] = [
            ("nic.mac", |o| o.nic.mac = "52:54".into()),
            ("nic.prefix", |o| o.nic.prefix = 33),
            ("nic.name", |o| o.nic.name = Some("a name far too long".into())),
            ("nic.name", |o| o.nic.name = Some("../x".into())),
            ("hostname", |o| o.hostname = "a\nb".into()),
            ("domain", |o| o.domain = "a b".into()),
            ("root.sha256", |o| o.root.sha256 = "zz".repeat(32)),
            ("root.path", |o| o.root.path = "/x HTTP/1.1\r\nX: y".into()),
            ("root.size", |o| o.root.size = 0),
        ];
        for (word, spoil) in table {
            let mut orders = sample();
            spoil(&mut orders);
            let why = check(&orders, &Cmdline::default()).unwrap_err();
            assert!(why.contains(word), "{why}");
        }
    }

    #[test]
    fn two_roots_are_refused() {
        let line = cmdline::parse(&format!("koboshi.root=sha256:{}", "cd".repeat(32)));
        assert!(check(&sample(), &line).unwrap_err().contains("command line"));
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
