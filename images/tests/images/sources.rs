//! The same root by every road gives the same image, byte for byte, and nothing of it is lost.

use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};

use crate::fixture::{Bench, RELEASE, fault, gzip, run};

#[test]
fn directory_tar_and_every_compression_agree() {
    let bench = Bench::new();
    let root = bench.root();
    let first = bench.import(&root).unwrap();
    assert!(first.new && first.warnings.is_empty());
    assert_eq!(first.version.to_string(), "web@1");
    assert_eq!(first.version.boot.kernel_release, RELEASE);
    let kernel = fs::read(bench.store.blob_path(&first.version.boot.kernel.digest)).unwrap();
    assert_eq!(kernel, b"a kernel");
    assert_eq!(first.version.boot.segments.len(), 1);
    bench.store.verify(&first.version).unwrap();

    run("tar", &["-cf", "../plain.tar", "."], &root);
    run(
        "tar",
        &[
            "-cf",
            "../names.tar",
            "--sort=name",
            "--format=posix",
            "boot",
            "etc",
            "lib",
            "sbin",
            "usr",
            "var",
        ],
        &root,
    );
    run("tar", &["-czf", "../gzip.tar", "."], &root);
    run("tar", &["-cJf", "../xz.tar", "."], &root);
    let plain = fs::read(bench.path("plain.tar")).unwrap();
    fs::write(bench.path("zstd.tar"), zstd::encode_all(&plain[..], 3).unwrap()).unwrap();
    // Two gzip members in a row, as pigz -i and bgzip write them.
    let (half, rest) = plain.split_at(plain.len() / 2);
    fs::write(bench.path("members.tar"), [gzip(half), gzip(rest)].concat()).unwrap();
    for name in ["plain.tar", "names.tar", "gzip.tar", "xz.tar", "zstd.tar", "members.tar"] {
        let again = bench.import(&bench.path(name)).unwrap();
        assert_eq!(again.version.digest, first.version.digest, "{name}");
        assert!(!again.new, "{name} made a version of its own");
    }
    assert_eq!(bench.store.list().unwrap().len(), 1);
}

#[test]
fn boot_stays_out_of_the_root() {
    let bench = Bench::new();
    bench.import(&bench.root()).unwrap();
    let tar = bench.root_tar();
    let mut archive = tar::Archive::new(&tar[..]);
    let names: Vec<String> = archive
        .entries()
        .unwrap()
        .map(|entry| String::from_utf8(entry.unwrap().path_bytes().into_owned()).unwrap())
        .collect();
    assert!(names.contains(&"boot/".to_owned()));
    assert!(!names.iter().any(|name| name.starts_with("boot/v")), "{names:?}");
    assert!(names.is_sorted(), "{names:?}");
}

/// Everything GNU tar can say of a file system, there and back. Devices, owners and capabilities
/// only where the test may make them: as root.
#[test]
fn links_attributes_devices_and_holes_survive_gnu_tar() {
    let bench = Bench::new();
    let root = bench.root();
    let long = format!("etc/{}", "deep/".repeat(40));
    fs::create_dir_all(root.join(&long)).unwrap();
    fs::write(root.join(&long).join("n".repeat(200)), b"long").unwrap();
    symlink("t".repeat(150), root.join("etc/longlink")).unwrap();
    fs::hard_link(root.join("etc/hostname"), root.join("etc/aka")).unwrap();
    fs::write(root.join("etc/suid"), b"x").unwrap();
    fs::set_permissions(root.join("etc/suid"), PermissionsExt::from_mode(0o6755)).unwrap();
    let privileged = rustix::process::geteuid().is_root();
    if privileged {
        std::os::unix::fs::chown(root.join("etc/suid"), Some(70_000), Some(3_000_000)).unwrap();
        // Changing the owner takes the bits away.
        fs::set_permissions(root.join("etc/suid"), PermissionsExt::from_mode(0o6755)).unwrap();
    }
    fs::write(root.join(std::ffi::OsStr::from_bytes(b"etc/\xff\xfe\n")), b"no text").unwrap();
    run("mkfifo", &["etc/fifo"], &root);
    let capability = b"\x01\0\0\x02\0\x20\0\n\0\0\0\0\0\0\0\0\0\0\0\0";
    if privileged {
        run("mknod", &["etc/null", "c", "1", "3"], &root);
        let flags = rustix::fs::XattrFlags::empty();
        rustix::fs::setxattr(root.join("etc/suid"), "security.capability", capability, flags)
            .expect("root on a file system with attributes");
    }
    let sparse = fs::File::create(root.join("var/sparse")).unwrap();
    sparse.set_len(5_000_000).unwrap();
    std::os::unix::fs::FileExt::write_all_at(&sparse, &[7; 5000], 1_000_000).unwrap();
    std::os::unix::fs::FileExt::write_all_at(&sparse, &[9; 5000], 4_000_000).unwrap();

    let first = bench.import(&root).unwrap();
    for (name, options) in [
        ("gnu.tar", "--format=gnu"),
        ("posix.tar", "--format=posix --xattrs --xattrs-include=*"),
        ("posix01.tar", "--format=posix --xattrs --xattrs-include=* --sparse-version=0.1"),
    ] {
        let file = format!("../{name}");
        let args = ["-cf", &file, "--sparse"].into_iter().chain(options.split(' ')).chain(["."]);
        run("tar", &args.collect::<Vec<_>>(), &root);
        let again = bench.import(&bench.path(name)).unwrap();
        if name == "gnu.tar" {
            // GNU's own format has no attributes; everything else must be the same.
            assert_eq!(again.version.boot.unpacked(), first.version.boot.unpacked());
            continue;
        }
        assert_eq!(again.version.boot.layers[0].blob, first.version.boot.layers[0].blob, "{name}");
    }

    // And GNU tar finds in ours what was on disk.
    bench.import(&root).unwrap();
    fs::write(bench.path("ours.tar"), bench.root_tar()).unwrap();
    fs::create_dir(bench.path("back")).unwrap();
    run("tar", &["-xpf", "../ours.tar", "--xattrs", "--xattrs-include=*"], &bench.path("back"));
    let back = bench.path("back");
    let suid = fs::metadata(back.join("etc/suid")).unwrap();
    assert_eq!(suid.mode() & 0o7777, 0o6755);
    if privileged {
        assert_eq!((suid.uid(), suid.gid()), (70_000, 3_000_000));
        let mut value = [0u8; 64];
        let len =
            rustix::fs::getxattr(back.join("etc/suid"), "security.capability", &mut value[..]);
        assert_eq!(&value[..len.unwrap()], capability);
        assert_eq!(fs::metadata(back.join("etc/null")).unwrap().rdev(), rustix::fs::makedev(1, 3));
    }
    assert_eq!(fs::metadata(back.join("etc/aka")).unwrap().nlink(), 2);
    assert_eq!(fs::read(back.join(&long).join("n".repeat(200))).unwrap(), b"long");
    assert_eq!(fs::read_link(back.join("etc/longlink")).unwrap().as_os_str().len(), 150);
    run("cmp", &["root/var/sparse", "back/var/sparse"], bench.dir.path());
    assert!(back.join(std::ffi::OsStr::from_bytes(b"etc/\xff\xfe\n")).exists());
}

#[test]
fn a_directory_is_never_left_through_its_links() {
    let bench = Bench::new();
    let root = bench.root();
    fs::write(bench.path("secret"), b"KEEP OUT").unwrap();
    fs::create_dir(bench.path("outside")).unwrap();
    fs::write(bench.path("outside/secret"), b"KEEP OUT").unwrap();
    symlink("../../secret", root.join("etc/leak")).unwrap();
    symlink(bench.path("outside"), root.join("etc/dir")).unwrap();
    bench.import(&root).unwrap();
    let tar = bench.root_tar();
    assert!(!tar.windows(8).any(|bytes| bytes == b"KEEP OUT"));

    // Nor is the kernel read through one.
    fs::remove_file(root.join(format!("boot/vmlinuz-{RELEASE}"))).unwrap();
    symlink(bench.path("secret"), root.join(format!("boot/vmlinuz-{RELEASE}"))).unwrap();
    assert!(matches!(fault(bench.import(&root)), koboshi_images::Fault::NoKernel));
}

#[test]
fn sockets_are_dropped_and_mounts_kept_empty() {
    let bench = Bench::new();
    let root = bench.root();
    let _socket = std::os::unix::net::UnixListener::bind(root.join("etc/socket")).unwrap();
    let first = bench.import(&root).unwrap();
    let tar = bench.root_tar();
    assert!(!tar.windows(10).any(|bytes| bytes == b"etc/socket"));
    assert!(first.warnings.is_empty());
}

#[test]
fn what_a_root_lacks_is_said() {
    let cases: [(&str, &str); 4] = [
        ("boot", "linux-image-cloud-amd64"),
        ("usr/lib/modules", "has no modules in /usr/lib/modules"),
        ("usr/sbin/init", "systemd-sysv"),
        ("usr/lib/modules/6.1.0-99-test/modules.dep", "depmod -b ROOT 6.1.0-99-test"),
    ];
    for (gone, advice) in cases {
        let bench = Bench::new();
        let root = bench.root();
        run("rm", &["-r", gone], &root);
        let said = bench.import(&root).unwrap_err().to_string();
        assert!(said.contains(advice), "{gone}: {said}");
        bench.assert_clean();
    }
}

#[test]
fn what_is_no_root_at_all_is_refused() {
    let bench = Bench::new();
    for bytes in [&b""[..], b"short", &[0x55; 4096], b"#!/bin/sh\necho hello\n"] {
        let said = fault(bench.import_bytes(bytes)).to_string();
        assert!(said.contains("neither a directory nor a tar"), "{said}");
    }
    assert!(bench.import(std::path::Path::new("/dev/null")).is_err());
    assert!(bench.import(&bench.path("not-there")).is_err());
    let empty = bench.path("empty");
    fs::create_dir(&empty).unwrap();
    assert!(matches!(fault(bench.import(&empty)), koboshi_images::Fault::NoKernel));
    bench.assert_clean();
}

#[test]
fn a_file_that_changes_while_it_is_read_is_an_error() {
    let bench = Bench::new();
    let root = bench.root();
    let big = root.join("var/big");
    let options = koboshi_images::ImportOptions::default();
    let result = koboshi_images::import(&bench.store, "web", &root, &options, &mut |progress| {
        // The tree is indexed, the packing has not begun.
        if matches!(progress, koboshi_images::Progress::Modules { .. }) {
            fs::write(&big, b"shorter").unwrap();
        }
    });
    assert!(matches!(fault(result), koboshi_images::Fault::Changed { .. }));
    bench.assert_clean();
}

/// 32 bits are nowhere enough, and the memory of an import does not grow with its files.
#[test]
fn a_root_larger_than_4_gib_streams_through() {
    use std::io::Read;
    const SIZE: u64 = 5 << 30;
    let bench = Bench::new();
    let root = bench.root();
    let huge = fs::File::create(root.join("var/huge")).unwrap();
    huge.set_len(SIZE).unwrap();
    std::os::unix::fs::FileExt::write_all_at(&huge, b"end", SIZE - 3).unwrap();
    let version = bench.import(&root).unwrap().version;
    assert!(version.boot.unpacked() > SIZE && version.boot.layers[0].blob.size < 8 << 20);
    let packed =
        fs::File::open(bench.store.blob_path(&version.boot.layers[0].blob.digest)).unwrap();
    let mut archive = tar::Archive::new(zstd::Decoder::new(packed).unwrap());
    let mut entries = archive.entries().unwrap().map(Result::unwrap);
    let mut entry = entries.find(|entry| &*entry.path_bytes() == b"var/huge").unwrap();
    assert_eq!(entry.size(), SIZE);
    std::io::copy(&mut (&mut entry).take(SIZE - 3), &mut std::io::sink()).unwrap();
    let mut end = Vec::new();
    entry.read_to_end(&mut end).unwrap();
    assert_eq!(end, b"end");
}
