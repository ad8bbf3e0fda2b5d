//! The squashfs of a root: what is in it, who finds it, and what becomes of one that rotted.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::process::Command;

use koboshi_images::{By, Error, squash};
use rustix::fs::{XattrFlags, getxattr, setxattr};

use crate::fixture::{Bench, base_tar, member, run};
use crate::layers::Layout;

fn made(bench: &Bench, image: &str) -> bool {
    squash(&bench.store, image, &mut |_| ()).unwrap().1
}

#[test]
fn a_squashfs_holds_the_root_as_it_is() {
    let bench = Bench::new();
    let root = bench.root();
    symlink("usr/sbin/init", root.join("linked")).unwrap();
    fs::hard_link(root.join("etc/hostname"), root.join("etc/aka")).unwrap();
    fs::write(root.join("usr/sbin/ping"), b"ping").unwrap();
    fs::set_permissions(root.join("usr/sbin/ping"), PermissionsExt::from_mode(0o4755)).unwrap();
    let flags = XattrFlags::empty();
    setxattr(root.join("usr/sbin/ping"), "user.note", b"kept", flags).unwrap();
    bench.import(&root).unwrap();
    assert!(made(&bench, "web"));
    let squashfs = bench.store.show("web").unwrap().boot.layers[0].squashfs.unwrap();
    let blob = bench.store.blob_path(&squashfs.digest);
    run("unsquashfs", &["-q", "-n", "-d", "out", blob.to_str().unwrap()], bench.dir.path());
    let out = bench.path("out");
    assert_eq!(fs::metadata(&out).unwrap().mode() & 0o7777, 0o755);
    assert_eq!(fs::read(out.join("var/big")).unwrap(), fs::read(root.join("var/big")).unwrap());
    assert_eq!(fs::metadata(out.join("usr/sbin/ping")).unwrap().mode() & 0o7777, 0o4755);
    let mut note = [0; 16];
    let length = getxattr(out.join("usr/sbin/ping"), "user.note", &mut note[..]).unwrap();
    assert_eq!(&note[..length], b"kept");
    assert_eq!(fs::read_link(out.join("linked")).unwrap().to_str(), Some("usr/sbin/init"));
    let inode = |name: &str| fs::metadata(out.join(name)).unwrap().ino();
    assert_eq!(inode("etc/aka"), inode("etc/hostname"));
    assert_eq!(fs::read_dir(out.join("boot")).unwrap().count(), 0);
}

#[test]
fn versions_of_the_same_root_share_it_and_damage_heals() {
    let bench = Bench::new();
    let root = bench.root();
    bench.import(&root).unwrap();
    assert!(matches!(squash(&bench.store, "db", &mut |_| ()), Err(Error::NoSuchImage(_))));
    assert!(made(&bench, "web"));
    assert!(!made(&bench, "web"), "once is enough");
    let first = bench.store.show("web").unwrap();
    bench.store.verify(&first).unwrap();
    bench.store.publish("web", None, &By::default()).unwrap();
    let then = fs::metadata(root.join("etc")).unwrap().modified().unwrap();
    fs::write(root.join("etc/motd"), b"two").unwrap();
    assert!(bench.import(&root).unwrap().version.boot.layers[0].squashfs.is_none());
    fs::remove_file(root.join("etc/motd")).unwrap();
    // The folder's time belongs to the root, and a second may have passed.
    fs::File::open(root.join("etc")).unwrap().set_modified(then).unwrap();
    let third = bench.import(&root).unwrap();
    assert!(third.new);
    assert_eq!(
        third.version.boot.layers[0].squashfs, first.boot.layers[0].squashfs,
        "the same root"
    );

    let squashfs = first.boot.layers[0].squashfs.unwrap();
    fs::write(bench.store.blob_path(&squashfs.digest), b"cut").unwrap();
    assert!(bench.store.show("web").unwrap().boot.layers[0].squashfs.is_none());
    assert!(made(&bench, "web"));
    bench.store.verify(&bench.store.show("web").unwrap()).unwrap();

    // A root that rotted gets no squashfs of its own: its bytes would be believed.
    fs::write(bench.store.blob_path(&first.boot.layers[0].blob.digest), b"rotten").unwrap();
    fs::remove_file(
        bench
            .store
            .blob_path(&bench.store.show("web").unwrap().boot.layers[0].squashfs.unwrap().digest),
    )
    .unwrap();
    assert!(matches!(squash(&bench.store, "web", &mut |_| ()), Err(Error::Damaged { .. })));
    assert_eq!(fs::read_dir(bench.store.dir().join("tmp")).unwrap().count(), 0);
}

#[test]
fn each_layer_has_its_own_and_what_is_gone_is_a_device() {
    let bench = Bench::new();
    let mut above = tar::Builder::new(Vec::new());
    member(&mut above, "etc/.wh.hostname", tar::EntryType::Regular, "", b"");
    member(&mut above, "etc/motd", tar::EntryType::Regular, "", b"hello");
    let kind = "application/vnd.oci.image.layer.v1.tar";
    let layers = [(kind, base_tar().into_inner().unwrap()), (kind, above.into_inner().unwrap())];
    bench.import_bytes(&Layout::new(&layers).archive()).unwrap();
    assert!(bench.store.show("web").unwrap().boot.squashed().is_none());
    assert!(made(&bench, "web"));
    let squashed = bench.store.show("web").unwrap().boot.squashed().unwrap();
    assert_eq!(squashed.len(), 2);
    let listed = |at: usize| {
        let blob = bench.store.blob_path(&squashed[at].digest);
        let out = Command::new("unsquashfs").arg("-lln").arg(blob).output().unwrap();
        assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
        String::from_utf8(out.stdout).unwrap()
    };
    let names: Vec<(String, char)> = listed(1)
        .lines()
        .map(|line| (line.rsplit(' ').next().unwrap().to_owned(), line.chars().next().unwrap()))
        .collect();
    let want = [
        ("squashfs-root", 'd'),
        ("squashfs-root/etc", 'd'),
        ("squashfs-root/etc/hostname", 'c'),
        ("squashfs-root/etc/motd", '-'),
    ];
    assert_eq!(names, want.map(|(name, kind)| (name.to_owned(), kind)));
    assert!(listed(1).lines().next().unwrap().starts_with("drwxr-xr-x 0/0"), "{}", listed(1));

    // Another image on the same base has half the work done.
    bench.import_bytes(&Layout::new(&layers[..1]).archive()).unwrap();
    assert_eq!(bench.store.show("web").unwrap().boot.squashed().unwrap(), squashed[..1]);
}
