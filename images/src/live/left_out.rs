//! What every machine writes by itself, and nobody means when he changes one: left out of what is listed and
//! committed, counted, and to be had when it is asked for. All of it is here.

use koboshi_initramfs::changes::listing::{Kind, Node, Touched};

/// Why, by a path and everything below it; `*` stands for some letters of one name.
const PLACES: [(&str, &str); 38] = [
    ("var/log", "logs"),
    ("var/spool/rsyslog", "logs"),
    ("var/cache", "caches"),
    ("var/lib/apt/lists", "caches"),
    ("var/lib/command-not-found", "caches"),
    ("root/.cache", "caches"),
    ("home/*/.cache", "caches"),
    ("tmp", "temporary files"),
    ("var/tmp", "temporary files"),
    ("run", "temporary files"),
    ("var/run", "temporary files"),
    ("var/lock", "temporary files"),
    ("dev", "temporary files"),
    ("etc/machine-id", "who the machine is"),
    ("var/lib/dbus/machine-id", "who the machine is"),
    ("etc/ssh/ssh_host_*", "who the machine is"),
    ("etc/hostname", "who the machine is"),
    ("etc/hosts", "who the machine is"),
    ("etc/resolv.conf", "who the machine is"),
    ("var/lib/systemd", "states of services"),
    ("var/lib/private/systemd", "states of services"),
    ("var/lib/dhcp", "states of services"),
    ("var/lib/NetworkManager", "states of services"),
    ("var/lib/logrotate", "states of services"),
    ("var/lib/chrony", "states of services"),
    ("var/lib/ntpsec", "states of services"),
    ("var/lib/sudo", "states of services"),
    ("var/lib/urandom", "states of services"),
    ("etc/adjtime", "states of services"),
    ("etc/mtab", "states of services"),
    ("etc/.updated", "states of services"),
    ("var/.updated", "states of services"),
    ("root/.*_history", "what somebody typed"),
    ("root/.lesshst", "what somebody typed"),
    ("root/.viminfo", "what somebody typed"),
    ("home/*/.*_history", "what somebody typed"),
    ("home/*/.lesshst", "what somebody typed"),
    ("home/*/.viminfo", "what somebody typed"),
];

/// Of what we write at boot: names, addresses, keys, files of the role and of the seat.
const SETTLED: &str = "written at boot by koboshi";
/// Of what the system's own services wrote when they started: the next boot does it again.
const BOOTED: &str = "written by the system as it booted";
/// Of what no image can hold.
pub(super) const SOCKETS: &str = "sockets";

/// Why a path is left out, whatever lies there.
pub(super) fn place(path: &[u8]) -> Option<&'static str> {
    PLACES.iter().find(|(place, _)| is_in(path, place.as_bytes())).map(|(_, why)| *why)
}

/// Why an inode is left out, wherever it lies.
pub(super) fn inode(node: &Node) -> Option<&'static str> {
    match (&node.kind, node.touched) {
        (Kind::Socket, _) => Some(SOCKETS),
        (_, Touched::Settled) => Some(SETTLED),
        (_, Touched::Booted) => Some(BOOTED),
        _ => None,
    }
}

/// Whether `path` is `place` or below it.
fn is_in(path: &[u8], place: &[u8]) -> bool {
    let mut path = path.split(|c| *c == b'/');
    place.split(|c| *c == b'/').all(|part| path.next().is_some_and(|name| fits(name, part)))
}

/// With one `*` at the most.
fn fits(name: &[u8], pattern: &[u8]) -> bool {
    match pattern.iter().position(|c| *c == b'*') {
        None => name == pattern,
        Some(at) => {
            let (begin, end) = (&pattern[..at], &pattern[at + 1..]);
            name.len() >= begin.len() + end.len() && name.starts_with(begin) && name.ends_with(end)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_machines_write_by_themselves() {
        for path in [
            "var/log",
            "var/log/nginx/access.log",
            "etc/ssh/ssh_host_ed25519_key.pub",
            "etc/machine-id",
            "root/.bash_history",
            "home/alice/.bash_history",
        ] {
            assert!(place(path.as_bytes()).is_some(), "{path}");
        }
        for path in [
            "var/logs",
            "var",
            "etc/ssh/sshd_config",
            "etc/nginx/nginx.conf",
            "var/www/html/index.html",
            "home/alice/.bashrc",
            "root/x/.bash_history",
            "var/lib/dpkg/status",
        ] {
            assert_eq!(place(path.as_bytes()), None, "{path}");
        }
    }
}
