//! The one archive every role boots with (S4), and the few hundred bytes that differ by boot.
//!
//! The common segment is the same for all machines and kernels, so it is packed with gzip, which
//! every kernel that takes an initramfs unpacks. A boot's orders come last, plain: they are made
//! anew for every boot, and a packet dump of one can be read by eye.

use std::net::Ipv4Addr;

use bytes::Bytes;

use crate::Compression;
use crate::contract::{self, Orders};
use crate::cpio::{Archive, Entry};

/// `koboshi-init`, static, as built along with this crate.
pub const INIT: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/koboshi-init"));

/// `devtmpfs` is not there yet when the kernel opens `/dev/console` for PID 1.
const NODES: [(&str, u32, u32, u32); 2] = [("dev/console", 0o600, 5, 1), ("dev/null", 0o666, 1, 3)];

const FOLDERS: [(&str, u32); 12] = [
    ("bin", 0o755),
    ("dev", 0o755),
    ("etc", 0o755),
    ("koboshi", 0o755),
    ("lib", 0o755),
    ("newroot", 0o755),
    ("proc", 0o555),
    ("root", 0o700),
    ("run", 0o755),
    ("sbin", 0o755),
    ("sys", 0o555),
    ("tmp", 0o1777),
];

/// What a person at the rescue shell types.
const APPLETS: &[&str] = &[
    "ash",
    "awk",
    "blkid",
    "cat",
    "chmod",
    "chroot",
    "clear",
    "cp",
    "cut",
    "date",
    "dd",
    "df",
    "dmesg",
    "du",
    "echo",
    "env",
    "false",
    "fdisk",
    "find",
    "free",
    "grep",
    "gunzip",
    "gzip",
    "head",
    "hexdump",
    "hostname",
    "id",
    "ifconfig",
    "insmod",
    "ip",
    "kill",
    "less",
    "ln",
    "losetup",
    "ls",
    "lsmod",
    "lspci",
    "lsusb",
    "md5sum",
    "mkdir",
    "mknod",
    "more",
    "mount",
    "mv",
    "nc",
    "netstat",
    "nslookup",
    "ping",
    "poweroff",
    "ps",
    "pwd",
    "reboot",
    "rm",
    "rmdir",
    "rmmod",
    "route",
    "sed",
    "seq",
    "setsid",
    "sh",
    "sha256sum",
    "sleep",
    "sort",
    "stat",
    "stty",
    "switch_root",
    "sync",
    "sysctl",
    "tail",
    "tar",
    "test",
    "tftp",
    "top",
    "touch",
    "tr",
    "true",
    "udhcpc",
    "umount",
    "uname",
    "uniq",
    "uptime",
    "vi",
    "watch",
    "wc",
    "wget",
    "xargs",
];

/// The segment for every role: PID 1, the places it mounts on, and a static busybox if there is one.
pub fn common(init: &[u8], busybox: Option<&[u8]>) -> Bytes {
    Compression::Gzip.pack(&common_archive(init, busybox).to_bytes())
}

/// What [`common`] packs.
pub fn common_archive(init: &[u8], busybox: Option<&[u8]>) -> Archive {
    let mut archive = Archive::new();
    for (name, mode) in FOLDERS {
        archive.put(name, Entry::dir(mode));
    }
    for (name, mode, major, minor) in NODES {
        archive.put(name, Entry::char_dev(mode, major, minor));
    }
    archive.put("init", Entry::file(0o755, init.to_vec()));
    // Where the kernel looks for whoever loads the module of a PHY, a file system, a cipher.
    archive.put("sbin/modprobe", Entry::symlink("../init"));
    if let Some(busybox) = busybox {
        archive.put("bin/busybox", Entry::file(0o755, busybox.to_vec()));
        for applet in APPLETS {
            archive.put(&format!("bin/{applet}"), Entry::symlink("busybox"));
        }
    }
    archive
}

/// The names of a site, one segment for all its machines.
pub fn hosts_segment(hosts: &[(Ipv4Addr, Vec<String>)]) -> Bytes {
    let lines = hosts.iter().map(|(address, names)| format!("{address} {}\n", names.join(" ")));
    let mut archive = Archive::new();
    archive.put(contract::HOSTS_PATH, Entry::file(0o444, lines.collect::<String>().into_bytes()));
    archive.to_bytes()
}

/// The segment of one boot. Readable by root alone inside the machine, by anyone on the wire.
pub fn orders_segment(orders: &Orders) -> Bytes {
    let json = serde_json::to_vec(orders).expect("orders are text, numbers and lists of them");
    let mut archive = Archive::new();
    archive.put(contract::ORDERS_PATH, Entry::file(0o400, json));
    archive.to_bytes()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::contract::{Blob, Disk, Nic, Root, Source};
    use crate::cpio::{Kind, read};

    fn orders() -> Orders {
        Orders {
            written: 1_795_000_000,
            hostname: "web1".into(),
            domain: "dc.example".into(),
            machine_id: Some("0123456789ab4def8123456789abcdef".into()),
            cards: Vec::new(),
            bonds: Vec::new(),
            nets: Vec::new(),
            nic: Nic {
                mac: "52:54:00:77:00:01".into(),
                name: Some("eth0".into()),
                address: [10, 77, 0, 11].into(),
                lent: false,
                prefix: 24,
                gateway: Some([10, 77, 0, 1].into()),
                mtu: None,
                routes: Vec::new(),
            },
            dns: vec![[10, 77, 0, 1].into()],
            ntp: vec![],
            hosts: vec![],
            ssh_keys: vec!["ssh-ed25519 AAAA ops".into()],
            serial: "ttyS0,115200".into(),
            root: Root {
                image: "web@3".into(),
                tmpfs: "80%".into(),
                digest: format!("sha256:{}", "b".repeat(64)),
                from: Source::Archive {
                    layers: vec![Blob {
                        path: format!("/blob/sha256/{}", "a".repeat(64)),
                        sha256: "a".repeat(64),
                        size: 69_000_000,
                    }],
                    unpacked: 229_000_000,
                },
                files: vec![],
            },
            disks: vec![Disk { at: "/data".into(), what: "LABEL=db".into() }],
            args: BTreeMap::from([("id".into(), "100".into())]),
            heartbeat: 30,
            syslog: Some(514),
            netconsole: None,
            menu: None,
            duty: None,
        }
    }

    #[test]
    fn pid_1_finds_its_places() {
        let archive = read(&common(b"\x7fELF init", Some(b"\x7fELF box")), 1 << 20).expect("ours");
        assert_eq!(archive.data("init").expect("there").as_ref(), b"\x7fELF init");
        assert_eq!(archive.get("init").expect("there").mode, 0o755);
        assert_eq!(
            archive.get("dev/console").expect("there").kind,
            Kind::CharDev { major: 5, minor: 1 }
        );
        assert_eq!(archive.get("bin/sh").expect("there").kind, Kind::Symlink("busybox".into()));
        for place in ["proc", "sys", "dev", "run", "newroot", "tmp", "etc", "bin", "sbin", "lib"] {
            assert_eq!(archive.get(place).expect(place).kind, Kind::Dir, "{place}");
        }
        let bare = common_archive(b"init", None);
        assert!(bare.get("bin/sh").is_none() && bare.get("bin").is_some());
    }

    #[test]
    fn orders_arrive_last_and_whole() {
        let segment = orders_segment(&orders());
        assert!(segment.starts_with(b"070701") && segment.len().is_multiple_of(4));
        assert!(segment.len() < 1500, "{}", segment.len());
        let all = [common(b"init", None), segment].concat();
        let archive = read(&all, 1 << 20).expect("both");
        let json = archive.data(contract::ORDERS_PATH).expect("there");
        assert_eq!(serde_json::from_slice::<Orders>(json).expect("JSON"), orders());
    }

    #[test]
    fn the_names_of_a_site_are_lines_of_etc_hosts() {
        let names = |name: &str| vec![format!("{name}.dc.example"), name.to_string()];
        let hosts =
            [([10, 77, 0, 11].into(), names("web1")), ([10, 77, 0, 21].into(), names("db1"))];
        let archive = crate::cpio::read(&hosts_segment(&hosts), 1 << 20).expect("our own");
        assert_eq!(
            archive.data(contract::HOSTS_PATH).expect("in it").as_ref(),
            b"10.77.0.11 web1.dc.example web1\n10.77.0.21 db1.dc.example db1\n"
        );
    }

    #[test]
    fn init_is_a_static_program() {
        assert!(INIT.starts_with(b"\x7fELF\x02\x01"));
        let number = |at: usize, len: usize| {
            INIT[at..at + len].iter().rev().fold(0, |n, byte| n << 8 | usize::from(*byte))
        };
        let (headers, size, count) = (number(0x20, 8), number(0x36, 2), number(0x38, 2));
        let types: Vec<usize> = (0..count).map(|n| number(headers + n * size, 4)).collect();
        // PT_LOAD; and no PT_INTERP, since there is no loader in an initramfs.
        assert!(types.contains(&1) && !types.contains(&3), "{types:?}");
    }
}
