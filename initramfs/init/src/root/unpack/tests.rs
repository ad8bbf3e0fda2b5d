//! Archives that behave, and archives that want out.

use std::fs as stdfs;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::path::Path;

use tar::{Builder, EntryType, Header};

use super::*;

const ROOMY: Limits = Limits { bytes: 1 << 20, members: 1000, archive: 4 << 20 };

/// Headers by hand: the builder refuses the names we want to be refused here.
fn add(
    tar: &mut Builder<Vec<u8>>,
    path: &str,
    kind: EntryType,
    mode: u32,
    link: &str,
    content: &[u8],
) {
    let mut header = Header::new_gnu();
    header.as_mut_bytes()[..path.len()].copy_from_slice(path.as_bytes());
    header.as_mut_bytes()[157..157 + link.len()].copy_from_slice(link.as_bytes());
    header.set_entry_type(kind);
    header.set_size(content.len() as u64);
    header.set_mode(mode);
    header.set_uid(rustix::process::geteuid().as_raw().into());
    header.set_gid(rustix::process::getegid().as_raw().into());
    header.set_mtime(1_795_000_000);
    header.set_device_major(1).unwrap();
    header.set_device_minor(3).unwrap();
    header.set_cksum();
    tar.append(&header, content).unwrap();
}

/// Name, kind, mode, link, content.
type Member = (&'static str, EntryType, u32, &'static str, &'static [u8]);

fn archive(members: &[Member]) -> Vec<u8> {
    let mut tar = Builder::new(Vec::new());
    for (path, kind, mode, link, content) in members {
        add(&mut tar, path, *kind, *mode, link, content);
    }
    tar.into_inner().unwrap()
}

fn run(bytes: &[u8], dir: &Path, limits: Limits) -> Result<Unpacked, UnpackError> {
    run_reader(bytes, dir, limits)
}

#[test]
fn a_small_root() {
    use EntryType as E;
    let dir = tempfile::tempdir().unwrap();
    let bytes = archive(&[
        ("./", E::Directory, 0o755, "", b""),
        ("./usr/", E::Directory, 0o555, "", b""),
        ("./usr/bin/", E::Directory, 0o755, "", b""),
        ("./usr/bin/sh", E::Regular, 0o4755, "", b"#!sh"),
        ("./usr/bin/ash", E::Link, 0o755, "./usr/bin/sh", b""),
        ("./bin", E::Symlink, 0o777, "usr/bin", b""),
        ("./etc/deep/er/file", E::Regular, 0o600, "", b"no parents were named"),
        ("./run/fifo", E::Fifo, 0o640, "", b""),
        ("./tmp", E::Directory, 0o1777, "", b""),
        ("/abs", E::Regular, 0o644, "", b"stripped"),
    ]);
    let done = run(&bytes, dir.path(), ROOMY).unwrap();
    assert_eq!((done.members, done.bytes), (10, 33));
    let meta = |path: &str| stdfs::symlink_metadata(dir.path().join(path)).unwrap();
    assert_eq!(meta("usr").permissions().mode() & 0o7777, 0o555);
    assert_eq!(meta("usr").mtime(), 1_795_000_000);
    assert_eq!(meta("usr/bin/sh").permissions().mode() & 0o7777, 0o4755);
    assert_eq!(meta("usr/bin/sh").ino(), meta("usr/bin/ash").ino());
    assert_eq!(meta("tmp").permissions().mode() & 0o7777, 0o1777);
    assert_eq!(stdfs::read_link(dir.path().join("bin")).unwrap(), Path::new("usr/bin"));
    assert_eq!(meta("bin").mtime(), 1_795_000_000);
    assert!(meta("run/fifo").file_type().is_fifo());
    assert_eq!(stdfs::read(dir.path().join("abs")).unwrap(), b"stripped");
    assert_eq!(stdfs::read(dir.path().join("etc/deep/er/file")).unwrap(), b"no parents were named");
    stdfs::set_permissions(dir.path().join("usr"), stdfs::Permissions::from_mode(0o755)).unwrap();
}

#[test]
fn nothing_leads_out() {
    use EntryType as E;
    let table: [(&str, &[Member]); 7] = [
        ("'..'", &[("../evil", E::Regular, 0o644, "", b"x")]),
        ("'..'", &[("a/../../evil", E::Regular, 0o644, "", b"x")]),
        ("'..'", &[("a/..", E::Directory, 0o755, "", b"")]),
        (
            "link",
            &[("way", E::Symlink, 0o777, "..", b""), ("way/evil", E::Regular, 0o644, "", b"x")],
        ),
        (
            "link",
            &[
                ("way", E::Symlink, 0o777, "/tmp", b""),
                ("way/x/evil", E::Directory, 0o755, "", b""),
            ],
        ),
        ("'..'", &[("evil", E::Link, 0o644, "../outside", b"")]),
        (
            "link",
            &[("way", E::Symlink, 0o777, "..", b""), ("evil", E::Link, 0o644, "way/outside", b"")],
        ),
    ];
    for (word, members) in table {
        let outer = tempfile::tempdir().unwrap();
        let inner = outer.path().join("root");
        stdfs::create_dir(&inner).unwrap();
        stdfs::write(outer.path().join("outside"), b"untouched").unwrap();
        let why = run(&archive(members), &inner, ROOMY).unwrap_err().to_string();
        assert!(why.contains(word), "{why}");
        assert!(!outer.path().join("evil").exists());
        assert_eq!(stdfs::read(outer.path().join("outside")).unwrap(), b"untouched");
        assert_eq!(stdfs::metadata(outer.path().join("outside")).unwrap().nlink(), 1);
    }
}

#[test]
fn a_link_gives_way_to_a_file_and_is_not_written_through() {
    use EntryType as E;
    let outer = tempfile::tempdir().unwrap();
    let inner = outer.path().join("root");
    stdfs::create_dir(&inner).unwrap();
    stdfs::write(outer.path().join("outside"), b"untouched").unwrap();
    let bytes = archive(&[
        ("way", E::Symlink, 0o777, "../outside", b""),
        ("way", E::Regular, 0o644, "", b"mine"),
        ("dir", E::Symlink, 0o777, "..", b""),
        ("dir", E::Directory, 0o755, "", b""),
        ("dir/file", E::Regular, 0o644, "", b"inside"),
    ]);
    run(&bytes, &inner, ROOMY).unwrap();
    assert_eq!(stdfs::read(outer.path().join("outside")).unwrap(), b"untouched");
    assert_eq!(stdfs::read(inner.join("way")).unwrap(), b"mine");
    assert_eq!(stdfs::read(inner.join("dir/file")).unwrap(), b"inside");
}

#[test]
fn bombs_are_bounded() {
    use EntryType as E;
    let dir = tempfile::tempdir().unwrap();
    let big = archive(&[("a", E::Regular, 0o644, "", &[0; 3000])]);
    let few = Limits { bytes: 2999, ..ROOMY };
    assert!(matches!(run(&big, dir.path(), few), Err(UnpackError::TooMuch("bytes"))));
    let many = archive(&[("a", E::Regular, 0o644, "", b""), ("b", E::Regular, 0o644, "", b"")]);
    let one = Limits { members: 1, ..ROOMY };
    assert!(matches!(run(&many, dir.path(), one), Err(UnpackError::TooMuch("members"))));
    // An archive that ends, and goes on in zeros for ever.
    let short = Limits { archive: 1 << 20, ..ROOMY };
    let why = run_reader(many.as_slice().chain(io::repeat(0)), dir.path(), short).unwrap_err();
    assert!(why.to_string().contains("goes on"), "{why}");
}

fn onto(
    onto: Onto<'_>,
    reader: impl Read,
    dir: &Path,
    limits: Limits,
    mut done: Unpacked,
) -> Result<Unpacked, UnpackError> {
    unpack(reader, stdfs::File::open(dir).unwrap().as_fd(), onto, limits, &mut done)?;
    Ok(done)
}

fn run_reader(reader: impl Read, dir: &Path, limits: Limits) -> Result<Unpacked, UnpackError> {
    onto(Onto::Nothing, reader, dir, limits, Unpacked::default())
}

#[test]
fn devices_owners_and_capabilities_for_root() {
    if !rustix::process::geteuid().is_root() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let mut tar = Builder::new(Vec::new());
    // VFS_CAP_REVISION_2 with cap_net_raw: what ping carries.
    let capability = b"\x01\0\0\x02\0\x20\0\0\0\0\0\0\0\0\0\0\0\0\0\0".as_slice();
    tar.append_pax_extensions([("SCHILY.xattr.security.capability", capability)]).unwrap();
    let mut header = Header::new_gnu();
    header.set_path("ping").unwrap();
    header.set_size(0);
    header.set_mode(0o755);
    header.set_uid(0);
    header.set_gid(42);
    header.set_mtime(1);
    header.set_cksum();
    tar.append(&header, io::empty()).unwrap();
    add(&mut tar, "null", EntryType::Char, 0o666, "", b"");
    let done = run(&tar.into_inner().unwrap(), dir.path(), ROOMY).unwrap();
    assert!(done.lost.is_empty(), "{:?}", done.lost);
    let ping = dir.path().join("ping");
    assert_eq!(stdfs::metadata(&ping).unwrap().gid(), 42);
    let mut value = [0u8; 64];
    let n = fs::getxattr(&ping, "security.capability", &mut value).unwrap();
    assert_eq!(&value[..n], capability);
    let null = stdfs::metadata(dir.path().join("null")).unwrap();
    assert!(null.file_type().is_char_device());
    assert_eq!((null.rdev(), null.mode() & 0o777), (fs::makedev(1, 3), 0o666));
}

#[test]
fn every_cut_of_an_archive_is_survived() {
    use EntryType as E;
    let bytes = archive(&[
        ("d", E::Directory, 0o755, "", b""),
        ("d/f", E::Regular, 0o644, "", &[7; 600]),
        ("d/l", E::Symlink, 0o777, "f", b""),
    ]);
    for cut in (0..bytes.len()).step_by(37) {
        let dir = tempfile::tempdir().unwrap();
        // Whole or not is the digest's business; here it must only come back.
        let _ = run(&bytes[..cut], dir.path(), ROOMY);
    }
}

/// Nothing on the way counts in 32 bits, and a gigabyte of zeros is no gigabyte of memory.
#[test]
fn a_file_of_nine_gigabytes_takes_what_is_in_it() {
    const SIZE: u64 = 9 << 30;
    let dir = tempfile::tempdir().unwrap();
    let mut tar = Builder::new(Vec::new());
    // As `koboshi image import` writes a size that octal has no digits for.
    let record = format!("19 size={SIZE}\n");
    assert_eq!(record.len(), 19);
    add(&mut tar, "PaxHeader", EntryType::XHeader, 0o644, "", record.as_bytes());
    let mut head = tar.into_inner().unwrap();
    head.truncate(1024);
    let mut header = Header::new_ustar();
    header.as_mut_bytes()[..4].copy_from_slice(b"huge");
    header.set_entry_type(EntryType::Regular);
    header.set_size(0);
    header.set_mode(0o644);
    header.set_uid(rustix::process::geteuid().as_raw().into());
    header.set_gid(rustix::process::getegid().as_raw().into());
    header.set_mtime(1_795_000_000);
    header.set_cksum();
    head.extend_from_slice(header.as_bytes());
    let bytes = || {
        let zeros = io::repeat(0).take(SIZE - 4096);
        let end = io::repeat(7).take(4096).chain(io::repeat(0).take(1024));
        head.as_slice().chain(zeros).chain(end)
    };
    let limits = Limits { archive: SIZE + (1 << 20), ..ROOMY };
    let done = run_reader(bytes(), dir.path(), limits).unwrap();
    let meta = stdfs::metadata(dir.path().join("huge")).unwrap();
    assert_eq!(meta.len(), SIZE);
    assert!(done.bytes <= 256 * 1024 && meta.blocks() * 512 <= 1 << 20, "{done:?} {meta:?}");
    let file = stdfs::File::open(dir.path().join("huge")).unwrap();
    let mut last = [0; 8192];
    std::os::unix::fs::FileExt::read_exact_at(&file, &mut last, SIZE - 8192).unwrap();
    assert!(last[..4096].iter().all(|&b| b == 0) && last[4096..].iter().all(|&b| b == 7));
    // A bound is a bound, of what is written and of what is read.
    let narrow = Limits { bytes: 2048, ..limits };
    assert!(matches!(run_reader(bytes(), dir.path(), narrow), Err(UnpackError::TooMuch("bytes"))));
    let short = Limits { archive: 1 << 30, ..limits };
    assert!(run_reader(bytes(), dir.path(), short).is_err());
}

/// A base, and a layer above it that takes away, replaces and links.
#[test]
fn a_layer_takes_away_and_replaces() {
    use EntryType as E;
    let dir = tempfile::tempdir().unwrap();
    let base = archive(&[
        ("etc", E::Directory, 0o700, "", b""),
        ("etc/old", E::Regular, 0o644, "", b"old"),
        ("etc/.wh.literal", E::Regular, 0o644, "", b"a name like any other, in the lowest"),
        ("etc/was-file", E::Regular, 0o644, "", b"12345"),
        ("etc/was-dir", E::Directory, 0o755, "", b""),
        ("etc/was-dir/deep", E::Directory, 0o755, "", b""),
        ("etc/was-dir/deep/er", E::Regular, 0o644, "", b"123"),
        ("etc/was-link", E::Symlink, 0o777, "old", b""),
        ("opt", E::Directory, 0o755, "", b""),
        ("opt/tree", E::Directory, 0o755, "", b""),
        ("opt/tree/leaf", E::Regular, 0o644, "", b"leaf"),
        ("opt/one", E::Regular, 0o644, "", b"shared"),
        ("opt/two", E::Link, 0o644, "opt/one", b""),
        ("way", E::Symlink, 0o777, "opt", b""),
    ]);
    let done = run(&base, dir.path(), ROOMY).unwrap();
    assert_eq!(done.bytes, 3 + 36 + 5 + 3 + 4 + 6);
    let layer = archive(&[
        ("etc", E::Directory, 0o755, "", b""),
        ("etc/.wh.old", E::Regular, 0, "", b""),
        ("etc/.wh.never-was", E::Regular, 0, "", b""),
        ("nowhere/at/all/.wh.x", E::Regular, 0, "", b""),
        ("etc/was-file", E::Directory, 0o750, "", b""),
        ("etc/was-file/new", E::Regular, 0o644, "", b"new"),
        ("etc/was-dir", E::Regular, 0o644, "", b"a file now"),
        ("etc/was-link", E::Directory, 0o755, "", b""),
        ("etc/was-link/x", E::Regular, 0o644, "", b""),
        ("opt", E::Directory, 0o755, "", b""),
        ("opt/.wh.tree", E::Regular, 0, "", b""),
        ("opt/tree", E::Directory, 0o711, "", b""),
        ("opt/tree/other", E::Regular, 0o644, "", b"other"),
        ("opt/one", E::Regular, 0o644, "", b"mine"),
        ("opt/three", E::Link, 0o644, "opt/two", b""),
    ]);
    let done = onto(Onto::Layers, &layer[..], dir.path(), ROOMY, done).unwrap();
    assert_eq!(done.members, 14 + 15);
    // What is there: the literal, shared, new, a file now, other, mine.
    assert_eq!(done.bytes, 36 + 6 + 3 + 10 + 5 + 4);
    let at = |path: &str| dir.path().join(path);
    let read = |path: &str| stdfs::read_to_string(at(path)).unwrap_or_else(|e| e.to_string());
    let mode = |path: &str| stdfs::symlink_metadata(at(path)).unwrap().mode() & 0o7777;
    assert!(!at("etc/old").exists() && !at("nowhere").exists());
    assert!(at("etc/.wh.literal").exists() && !at("etc/.wh.old").exists());
    assert_eq!((mode("etc"), mode("etc/was-file"), mode("opt/tree")), (0o755, 0o750, 0o711));
    assert_eq!(read("etc/was-file/new"), "new");
    assert_eq!(read("etc/was-dir"), "a file now");
    assert!(at("etc/was-link").symlink_metadata().unwrap().is_dir());
    assert!(!at("opt/tree/leaf").exists());
    assert_eq!((read("opt/one").as_str(), read("opt/two").as_str()), ("mine", "shared"));
    let ino = |path: &str| stdfs::symlink_metadata(at(path)).unwrap().ino();
    assert_eq!(ino("opt/two"), ino("opt/three"));
    assert_eq!(stdfs::metadata(at("etc")).unwrap().mtime(), 1_795_000_000);
}

#[test]
fn a_whiteout_leads_nowhere() {
    use EntryType as E;
    let outer = tempfile::tempdir().unwrap();
    let inner = outer.path().join("root");
    stdfs::create_dir(&inner).unwrap();
    stdfs::write(outer.path().join("outside"), b"untouched").unwrap();
    let base = archive(&[
        ("way", E::Symlink, 0o777, "..", b""),
        ("file", E::Regular, 0o644, "", b""),
        ("dir", E::Directory, 0o755, "", b""),
    ]);
    run(&base, &inner, ROOMY).unwrap();
    for (path, word) in [
        ("way/.wh.outside", "link"),
        ("file/.wh.x", "link"),
        (".wh...", "no name"),
        ("dir/.wh...", "no name"),
        ("dir/.wh..", "no name"),
        ("dir/.wh.", "no name"),
        ("dir/.wh..wh..opq", "opaque"),
        ("../.wh.outside", "'..'"),
    ] {
        let layer = archive(&[(path, E::Regular, 0, "", b"")]);
        let done = Unpacked::default();
        let why = onto(Onto::Layers, &layer[..], &inner, ROOMY, done).unwrap_err().to_string();
        assert!(why.contains(word), "{path}: {why}");
    }
    // A link itself may go: it, and nothing behind it.
    let layer = archive(&[(".wh.way", E::Regular, 0, "", b"")]);
    onto(Onto::Layers, &layer[..], &inner, ROOMY, Unpacked::default()).unwrap();
    assert!(inner.join("way").symlink_metadata().is_err() && inner.join("dir").is_dir());
    assert_eq!(stdfs::read(outer.path().join("outside")).unwrap(), b"untouched");
}

/// Replaced again and again, a file counts once; side by side, layers count together.
#[test]
fn layers_share_one_bound() {
    use EntryType as E;
    let dir = tempfile::tempdir().unwrap();
    let limits = Limits { bytes: 5000, ..ROOMY };
    let a = archive(&[("a", E::Regular, 0o644, "", &[7; 4000])]);
    let b = archive(&[("b", E::Regular, 0o644, "", &[7; 2000])]);
    let mut done = run(&a, dir.path(), limits).unwrap();
    for _ in 0..5 {
        done = onto(Onto::Layers, &a[..], dir.path(), limits, done).unwrap();
        assert_eq!(done.bytes, 4000);
    }
    let over = onto(Onto::Layers, &b[..], dir.path(), limits, done);
    assert!(matches!(over, Err(UnpackError::TooMuch("bytes"))), "{over:?}");
}

/// Files of a seat: links of the root are followed in it, its directories stay as they are, and nothing is
/// taken away.
#[test]
fn files_are_laid_over_a_root() {
    use EntryType as E;
    let outer = tempfile::tempdir().unwrap();
    let inner = outer.path().join("root");
    stdfs::create_dir(&inner).unwrap();
    let base = archive(&[
        ("usr", E::Directory, 0o755, "", b""),
        ("usr/lib", E::Directory, 0o755, "", b""),
        ("lib", E::Symlink, 0o777, "usr/lib", b""),
        ("etc", E::Directory, 0o755, "", b""),
        ("etc/resolv.conf", E::Symlink, 0o777, "/run/x", b""),
        ("tmp", E::Directory, 0o1777, "", b""),
        ("up", E::Symlink, 0o777, "../../..", b""),
    ]);
    run(&base, &inner, ROOMY).unwrap();
    let tree = intree::Tree(inner.clone());
    let lay = |members: &[Member]| {
        onto(Onto::Root(&tree), &archive(members)[..], &inner, ROOMY, Unpacked::default())
    };
    lay(&[
        ("tmp", E::Directory, 0o755, "", b""),
        ("lib", E::Directory, 0o755, "", b""),
        ("lib/systemd/x.service", E::Regular, 0o644, "", b"unit"),
        ("etc/resolv.conf", E::Regular, 0o644, "", b"mine"),
        ("etc/.wh.hosts", E::Regular, 0o644, "", b"no whiteout"),
        ("up/in", E::Regular, 0o644, "", b"in"),
        ("srv/www/index.html", E::Regular, 0o640, "", b"page"),
    ])
    .unwrap();
    let read = |path: &str| stdfs::read_to_string(inner.join(path)).unwrap();
    assert_eq!(read("usr/lib/systemd/x.service"), "unit");
    assert!(inner.join("lib").symlink_metadata().unwrap().is_symlink());
    assert_eq!(
        (read("etc/resolv.conf"), read("etc/.wh.hosts")),
        ("mine".into(), "no whiteout".into())
    );
    assert_eq!((read("in"), read("srv/www/index.html")), ("in".into(), "page".into()));
    assert!(!outer.path().join("in").exists());
    assert_eq!(stdfs::metadata(inner.join("tmp")).unwrap().mode() & 0o7777, 0o1777);
    let why = lay(&[("etc", E::Regular, 0o644, "", b"")]).unwrap_err().to_string();
    assert!(why.contains("directory") && inner.join("etc").is_dir(), "{why}");
}
