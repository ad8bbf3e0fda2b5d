//! Roots on this host's file system: ctime is the kernel's here too, and so the tests wait for its clock.

use std::collections::BTreeMap;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::time::{SystemTime, UNIX_EPOCH};

use super::*;
use crate::wire::listing::Reader;

fn now() -> i64 {
    // Past the tick in which something was written.
    std::thread::sleep(std::time::Duration::from_millis(25));
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_nanos() as i64;
    std::thread::sleep(std::time::Duration::from_millis(25));
    now
}

/// A root as an image made it, and the time when it was whole.
fn root() -> (tempfile::TempDir, Times) {
    let root = tempfile::tempdir().unwrap();
    let at = |path: &str| root.path().join(path);
    for dir in ["etc/nginx", "usr/share/doc", "proc/1"] {
        fs::create_dir_all(at(dir)).unwrap();
    }
    fs::write(at("etc/hostname"), "image").unwrap();
    fs::write(at("etc/nginx/nginx.conf"), "worker_processes 1;").unwrap();
    fs::write(at("usr/share/doc/a"), "a").unwrap();
    fs::write(at("usr/share/doc/b"), "b").unwrap();
    let made = now();
    fs::write(at("etc/hostname"), "web1").unwrap();
    let settled = now();
    fs::write(at("etc/booted"), "by a service").unwrap();
    let up = now();
    (root, Times { made, settled, up })
}

fn read(told: &Told) -> (BTreeMap<String, What>, u64) {
    let plain = zstd::decode_all(&told.listing[..]).unwrap();
    let mut reader = Reader::new(&plain[..]);
    let mut entries = BTreeMap::new();
    let mut nodes = Vec::new();
    while let Some(entry) = reader.next_entry().unwrap() {
        if matches!(entry.what, What::Node(_)) {
            nodes.push(entry.path.clone());
        }
        entries.insert(String::from_utf8(entry.path).unwrap(), entry.what);
    }
    assert_eq!(nodes, told.nodes, "numbers mean the same on both sides");
    (entries, reader.end().unwrap().unread)
}

fn node<'a>(entries: &'a BTreeMap<String, What>, path: &str) -> &'a Node {
    match &entries[path] {
        What::Node(node) => node,
        other => panic!("{path}: {other:?}"),
    }
}

#[test]
fn times_tell_what_cannot_have_changed() {
    let (root, times) = root();
    let at = |path: &str| root.path().join(path);
    let mounts = HashSet::from([b"proc".to_vec()]);
    let walk = Walk::new(root.path(), times, mounts);
    let (entries, unread) = read(&walk.all().unwrap());
    assert_eq!((unread, &entries["proc"]), (0, &What::Covered));
    assert!(!entries.contains_key("proc/1"));
    assert_eq!(node(&entries, "etc/hostname").touched, Touched::Settled);
    assert_eq!(node(&entries, "etc/booted").touched, Touched::Booted);
    for same in ["usr", "usr/share/doc", "usr/share/doc/a", "usr/share/doc/b"] {
        assert_eq!(entries[same], What::Same, "{same}");
    }

    fs::write(at("etc/nginx/nginx.conf"), "worker_processes 8;").unwrap();
    fs::set_permissions(at("usr/share/doc/b"), fs::Permissions::from_mode(0o4700)).unwrap();
    // A directory that takes another's place: what is in it was not touched and is other than it was.
    fs::rename(at("usr/share/doc"), at("usr/share/man")).unwrap();
    symlink("../bin", at("usr/share/x")).unwrap();
    fs::hard_link(at("usr/share/x"), at("usr/share/y")).unwrap();
    let (entries, unread) = read(&walk.all().unwrap());
    assert_eq!(unread, 0);
    let changed = node(&entries, "etc/nginx/nginx.conf");
    assert_eq!((changed.touched, &changed.kind), (Touched::Since, &Kind::File(19)));
    assert_eq!(changed.sha256, Some(Sha256::digest("worker_processes 8;").into()));
    // `etc` was touched by what booted, and so could be another directory than it was.
    assert_eq!(node(&entries, "etc/nginx").touched, Touched::Made);
    let renamed = node(&entries, "usr/share/man/a");
    assert_eq!((renamed.touched, renamed.sha256), (Touched::Made, None));
    assert_eq!(node(&entries, "usr/share/man/b").mode, 0o4700);
    assert!(!entries.contains_key("usr/share/doc"));
    assert_eq!(entries["usr"], What::Same);
    let link = node(&entries, "usr/share/x");
    assert_eq!(link.kind, Kind::Symlink(b"../bin".to_vec()));
    assert!(link.inode != 0 && link.inode == node(&entries, "usr/share/y").inode);
}

#[test]
fn an_upper_directory_tells_what_is_gone() {
    let (root, times) = root();
    let upper = tempfile::tempdir().unwrap();
    let above = |path: &str| upper.path().join(path);
    fs::create_dir_all(above("etc/nginx")).unwrap();
    fs::create_dir_all(above("proc")).unwrap();
    fs::copy(root.path().join("etc/nginx/nginx.conf"), above("etc/nginx/nginx.conf")).unwrap();
    let mounts = HashSet::from([b"proc".to_vec()]);
    let walk = Walk::new(root.path(), times, mounts);
    // Whiteouts and attributes of `trusted` take root; without it there is one claim less.
    let whiteout = rustix::fs::mknodat(
        rustix::fs::CWD,
        above("etc/passwd"),
        rustix::fs::FileType::CharacterDevice,
        rustix::fs::Mode::empty(),
        0,
    );
    let mark = |path: &str, name: &str| {
        let flags = rustix::fs::XattrFlags::empty();
        rustix::fs::lsetxattr(above(path), name, b"y", flags).is_ok()
    };
    fs::create_dir_all(above("usr/share")).unwrap();
    let opaque = mark("usr/share", "trusted.overlay.opaque");
    let (entries, unread) = read(&walk.above(upper.path()).unwrap());
    assert_eq!((unread, &entries["proc"]), (0, &What::Covered));
    assert_eq!(node(&entries, "etc/nginx/nginx.conf").touched, Touched::Since);
    assert!(!entries.contains_key("etc/hostname") && !entries.contains_key("usr/share/doc"));
    if whiteout.is_ok() {
        assert_eq!(entries["etc/passwd"], What::Gone);
    }
    assert_eq!(node(&entries, "usr/share").opaque, opaque);
    assert!(node(&entries, "usr/share").xattrs.is_empty(), "bookkeeping is no attribute");
    if mark("etc/nginx", "trusted.overlay.redirect") {
        let (entries, _) = read(&walk.above(upper.path()).unwrap());
        assert!(node(&entries, "etc/nginx").opaque);
        node(&entries, "etc/nginx/nginx.conf");
    }
}

#[test]
fn what_is_read_is_a_file_and_no_link() {
    let (root, _) = root();
    symlink("hostname", root.path().join("etc/link")).unwrap();
    assert!(open(root.path(), b"etc/link").is_err());
    assert!(open(root.path(), b"etc").is_err());
    let mut text = String::new();
    open(root.path(), b"etc/hostname").unwrap().read_to_string(&mut text).unwrap();
    assert_eq!(text, "web1");
}

#[test]
fn mount_points_of_proc() {
    let text = "22 1 0:21 / / rw - overlay overlay rw\n\
                23 22 0:5 / /proc rw,nosuid shared:2 - proc proc rw\n\
                24 22 8:1 / /srv/two\\040words\\134 rw - ext4 /dev/sda1 rw\n\
                broken\n";
    let meant = HashSet::from([b"proc".to_vec(), b"srv/two words\\".to_vec()]);
    assert_eq!(mounts(text), meant);
}
