//! A systemd image, a busybox image, and words that are no words.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;

use super::*;
use crate::orders::tests::sample;

fn make(root: &Path, files: &[(&str, &str)]) -> Tree {
    for (path, content) in files {
        fs::create_dir_all(root.join(path).parent().unwrap()).unwrap();
        fs::write(root.join(path), content).unwrap();
    }
    Tree(root.to_owned())
}

#[test]
fn a_systemd_image() {
    let root = tempfile::tempdir().unwrap();
    let tree = make(
        root.path(),
        &[
            ("usr/lib/systemd/systemd", ""),
            ("usr/lib/systemd/systemd-resolved", ""),
            ("usr/lib/systemd/systemd-timesyncd", ""),
            ("usr/lib/systemd/systemd-networkd", ""),
            ("usr/lib/systemd/system/serial-getty@.service", ""),
            ("etc/hosts", "127.0.0.1 localhost\n127.0.1.1 builder\n10.0.0.9 ours\n"),
            ("root/.ssh/authorized_keys", "ssh-ed25519 OLD image"),
            ("etc/machine-id", "ffffffffffffffffffffffffffffffff\n"),
            ("var/lib/dbus/machine-id", "ffffffffffffffffffffffffffffffff\n"),
            ("usr/sbin/sshd", ""),
            ("usr/bin/ssh-keygen", ""),
        ],
    );
    symlink("../run/systemd/resolve/stub-resolv.conf", root.path().join("etc/resolv.conf"))
        .unwrap();
    // The site's names come by a segment of their own, with a line in it that does not read.
    let segment = root.path().join("hosts-segment");
    fs::write(&segment, "10.77.0.21 db1.dc.example db1\nnonsense here\n10.77.0.22 a\tb;c\n")
        .unwrap();
    let mut orders = sample();
    orders.hosts = crate::orders::hosts(&segment);
    assert_eq!(orders.hosts.pop(), Some(("10.77.0.22".parse().unwrap(), vec!["a".to_owned()])));
    // Twice: a retry finds what the try before left.
    for _ in 0..2 {
        assert_eq!(settle(&tree, &orders, &[], &[]), Vec::<String>::new());
    }
    assert_eq!(tree.read("etc/hostname"), "web1\n");
    assert_eq!(
        tree.read("etc/hosts"),
        format!(
            "127.0.0.1 localhost\n10.0.0.9 ours\n{MARK}\n10.77.0.11 web1.dc.example web1\n\
             10.77.0.21 db1.dc.example db1\n"
        )
    );
    assert!(tree.link_target("etc/resolv.conf").is_some());
    assert_eq!(
        tree.read("etc/systemd/resolved.conf.d/koboshi.conf"),
        "[Resolve]\nDNS=10.77.0.1\nDomains=dc.example\n"
    );
    assert_eq!(tree.read("etc/systemd/timesyncd.conf.d/koboshi.conf"), "[Time]\nNTP=10.77.0.1\n");
    assert_eq!(
        tree.read("root/.ssh/authorized_keys"),
        "ssh-ed25519 OLD image\nssh-ed25519 AAAA ops\n"
    );
    let mode =
        |path: &str| fs::metadata(root.path().join(path)).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode("root/.ssh"), mode("root/.ssh/authorized_keys")), (0o700, 0o600));
    assert_eq!(
        tree.link_target("etc/systemd/system/getty.target.wants/serial-getty@ttyS0.service")
            .unwrap(),
        "/usr/lib/systemd/system/serial-getty@.service"
    );
    // The image's own, and D-Bus's copy of it, would be those of all its machines.
    let own = "0123456789ab4def8123456789abcdef\n";
    assert_eq!(tree.read("etc/machine-id"), own);
    assert_eq!(tree.link_target("var/lib/dbus/machine-id").as_deref(), Some("/etc/machine-id"));
    assert_eq!(
        (mode("etc/machine-id"), tree.read("var/lib/dbus/machine-id").as_str()),
        (0o444, own)
    );
    orders.machine_id = None;
    fs::remove_file(root.path().join("etc/machine-id")).unwrap();
    assert_eq!(settle(&tree, &orders, &[], &[]), Vec::<String>::new());
    assert!(tree.has("etc/machine-id") && tree.read("etc/machine-id").is_empty());
}

#[test]
fn a_busybox_image() {
    let root = tempfile::tempdir().unwrap();
    let tree = make(
        root.path(),
        &[
            ("etc/passwd", "root:x:0:0:root:/home/admin:/bin/sh\n"),
            ("etc/inittab", "::sysinit:/etc/rc\n"),
            ("sbin/getty", ""),
        ],
    );
    symlink("/dev/null", root.path().join("etc/resolv.conf")).unwrap();
    assert_eq!(settle(&tree, &sample(), &[], &[]), Vec::<String>::new());
    assert_eq!(tree.read("etc/resolv.conf"), "search dc.example\nnameserver 10.77.0.1\n");
    assert_eq!(tree.read("home/admin/.ssh/authorized_keys"), "ssh-ed25519 AAAA ops\n");
    assert!(tree.read("etc/hosts").starts_with("127.0.0.1 localhost\n"));
    assert!(
        tree.read("etc/inittab").ends_with("\nttyS0::respawn:/sbin/getty -L 115200 ttyS0 vt100\n")
    );
    assert!(!tree.has("etc/systemd") && !tree.has("etc/machine-id"));
}

#[test]
fn inittabs() {
    let sysv = "id:2:initdefault:\n1:2345:respawn:/sbin/getty 38400 tty1\n";
    let table = [
        (sysv, format!("{sysv}K0:2345:respawn:/sbin/getty -L ttyS1 57600 vt100\n")),
        ("console::respawn:/bin/sh\n", "console::respawn:/bin/sh\n".to_owned()),
        ("::askfirst:-/bin/sh\n", "::askfirst:-/bin/sh\n".to_owned()),
        (
            "#ttyS1::respawn:/sbin/getty\n",
            "#ttyS1::respawn:/sbin/getty\nttyS1::respawn:/sbin/getty -L 57600 ttyS1 vt100\n".to_owned(),
        ),
        (
            "ttyS1::respawn:/sbin/getty -n -l /bin/sh 9600 ttyS1\n",
            "ttyS1::respawn:/sbin/getty -n -l /bin/sh 57600 ttyS1\n".to_owned(),
        ),
        (
            "ttyS10::respawn:/sbin/getty 9600 ttyS10",
            "ttyS10::respawn:/sbin/getty 9600 ttyS10\nttyS1::respawn:/sbin/getty -L 57600 ttyS1 vt100\n".to_owned(),
        ),
    ];
    for (before, after) in table {
        let fits = inittab(before, "ttyS1", "57600", None);
        assert!(fits.is_none() || fits.as_ref() == Some(&after), "{before}");
        assert_eq!(
            inittab(before, "ttyS1", "57600", Some("/sbin/getty")).unwrap(),
            after,
            "{before}"
        );
    }
}

#[test]
fn words_with_line_ends_make_no_lines() {
    let mut orders = sample();
    orders.hosts = vec![("10.0.0.1".parse().unwrap(), vec!["a\n10.0.0.2 b".into(), "good".into()])];
    assert!(hosts("", &orders).ends_with("10.0.0.1 good\n"));
    orders.serial = "ttyS0/../../x,1".into();
    let root = tempfile::tempdir().unwrap();
    assert!(getty(&Tree(root.path().to_owned()), &orders).is_ok());
    assert_eq!(root_home("root:x:0:0:r:relative:/bin/sh"), "/root");
    assert_eq!(root_home(""), "/root");
}
