//! GNU cpio lists and unpacks what we write, and we read what it writes.

use std::fs;
use std::io::Write;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::LazyLock;

use bytes::Bytes;
use koboshi_initramfs::cpio::{Entry, Kind, read};
use koboshi_initramfs::{Archive, Compression, common};
use proptest::prelude::*;

const LIMIT: usize = 64 << 20;

fn gnu_cpio(args: &[&str], dir: &Path, input: &[u8]) -> Vec<u8> {
    let mut child = Command::new("cpio")
        .args(args)
        .current_dir(dir)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("cpio is missing: `make setup` installs it");
    let mut stdin = child.stdin.take().expect("piped");
    let input = input.to_vec();
    let feeder = std::thread::spawn(move || stdin.write_all(&input));
    let out = child.wait_with_output().expect("cpio ends");
    feeder.join().expect("no panic").expect("cpio reads all of it");
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    out.stdout
}

fn sample() -> Archive {
    let mut archive = Archive::new();
    for (path, entry) in [
        ("init", Entry::file(0o755, &b"#!/bin/sh\n"[..])),
        ("/usr/./lib//x-y/file", Entry::file(0o4711, vec![7; 4097]).at(1_000_000_000)),
        ("usr/lib/x", Entry::symlink("x-y/file")),
        ("usr/lib/empty", Entry::file(0o600, &b""[..]).owned_by(1000, 100)),
        ("tmp", Entry::dir(0o1777)),
        ("usr", Entry::dir(0o700)),
    ] {
        archive.insert(path, entry).expect(path);
    }
    archive
}

#[test]
fn gnu_cpio_lists_and_unpacks_ours() {
    let dir = tempfile::tempdir().expect("a directory");
    let bytes = sample().to_bytes();
    assert_eq!(bytes, sample().to_bytes());
    let names = String::from_utf8(gnu_cpio(&["-it", "--quiet"], dir.path(), &bytes)).expect("text");
    let ours = "init\ntmp\nusr\nusr/lib\nusr/lib/empty\nusr/lib/x\nusr/lib/x-y\nusr/lib/x-y/file\n";
    assert_eq!(names, ours);
    gnu_cpio(&["-idm", "--quiet", "--no-preserve-owner"], dir.path(), &bytes);
    let stat = |path: &str| fs::symlink_metadata(dir.path().join(path)).expect(path);
    assert_eq!(stat("usr").permissions().mode() & 0o7777, 0o700);
    assert_eq!(stat("tmp").permissions().mode() & 0o7777, 0o1777);
    assert_eq!(stat("usr/lib/x-y/file").permissions().mode() & 0o7777, 0o4711);
    assert_eq!(stat("usr/lib/x-y/file").mtime(), 1_000_000_000);
    assert_eq!(fs::read(dir.path().join("usr/lib/x")).expect("linked"), vec![7; 4097]);
    assert_eq!(stat("usr/lib/empty").len(), 0);
}

#[test]
fn gnu_cpio_agrees_on_device_nodes() {
    let dir = tempfile::tempdir().expect("a directory");
    let bytes = common::common_archive(b"init", None).to_bytes();
    let long = String::from_utf8(gnu_cpio(&["-itv", "--quiet"], dir.path(), &bytes)).expect("text");
    let line = |end: &str| {
        let line = long.lines().find(|line| line.ends_with(end)).expect(end);
        line.split_whitespace().collect::<Vec<_>>().join(" ")
    };
    let console = line(" dev/console");
    assert!(console.starts_with("crw------- 1 root root 5, 1 "), "{console}");
    let null = line(" dev/null");
    assert!(null.starts_with("crw-rw-rw- 1 root root 1, 3 "), "{null}");
    if am_root() {
        gnu_cpio(&["-idm", "--quiet"], dir.path(), &bytes);
        let stat = fs::metadata(dir.path().join("dev/console")).expect("made");
        assert!(stat.file_type().is_char_device() && stat.rdev() == 0x501);
    }
}

fn am_root() -> bool {
    fs::metadata("/proc/self").is_ok_and(|me| me.uid() == 0)
}

#[test]
fn we_read_gnu_cpio_with_its_hard_links() {
    let dir = tempfile::tempdir().expect("a directory");
    let at = |path: &str| dir.path().join(path);
    fs::create_dir(at("d")).expect("made");
    fs::write(at("d/one"), b"linked").expect("written");
    fs::hard_link(at("d/one"), at("two")).expect("linked");
    fs::hard_link(at("d/one"), at("a")).expect("linked");
    std::os::unix::fs::symlink("d/one", at("s")).expect("linked");
    for format in ["newc", "crc"] {
        let list = b".\nd\nd/one\ntwo\na\ns\n";
        let bytes = gnu_cpio(&["-o", "--quiet", "-H", format], dir.path(), list);
        let archive = read(&bytes, LIMIT).expect("GNU cpio's own");
        for name in ["d/one", "two", "a"] {
            assert_eq!(archive.data(name).expect(name).as_ref(), b"linked", "{format} {name}");
        }
        assert_eq!(archive.get("s").expect("there").kind, Kind::Symlink("d/one".into()));
        assert_eq!(archive.len(), 5);
    }
}

#[test]
fn segments_lie_end_to_end() {
    let segment = |name: &str, text: &'static [u8]| {
        let mut archive = Archive::new();
        archive.insert(name, Entry::file(0o644, text)).expect(name);
        archive.insert("both", Entry::file(0o644, text)).expect("both");
        archive.to_bytes()
    };
    let all = [
        &segment("microcode", b"1")[..],
        &[0; 512],
        &Compression::Gzip.pack(&segment("common", b"22")),
        &Compression::Zstd.pack(&segment("modules", b"333")),
        &segment("orders", b"4444"),
        &[0; 4],
    ]
    .concat();
    let archive = read(&all, LIMIT).expect("four segments");
    for (name, text) in [
        ("microcode", "1"),
        ("common", "22"),
        ("modules", "333"),
        ("orders", "4444"),
        ("both", "4444"),
    ] {
        assert_eq!(archive.data(name).expect(name).as_ref(), text.as_bytes(), "{name}");
    }
    assert!(read(&[], LIMIT).expect("nothing is an archive of nothing").is_empty());
    for (strange, why) in [
        (&b"\xfd7zXZ\0"[..], "starts with"),
        (b"0707", "fill"),
        (b"07070100", "fill"),
        (b"\x1f\x8b", ""),
        (b"\x28\xb5\x2f\xfd", ""),
        (&segment("a", b"b")[..100], "fill"),
    ] {
        let e = read(strange, LIMIT).expect_err("not whole").to_string();
        assert!(e.contains(why), "{e}");
    }
}

#[test]
fn names_are_checked() {
    let mut archive = Archive::new();
    let long = "x/".repeat(2048);
    for name in
        ["", "/", ".", "..", "a/../../b", "../a", "a\0b", "TRAILER!!!", "/TRAILER!!!", &long]
    {
        archive.insert(name, Entry::dir(0o755)).expect_err(name);
    }
    assert!(archive.is_empty());
    archive.insert("a/file", Entry::file(0o644, &b""[..])).expect("sound");
    archive.insert("a/link", Entry::symlink("/etc")).expect("sound");
    archive.insert("a/file/below", Entry::dir(0o755)).expect_err("below a file");
    archive.insert("a/link/passwd", Entry::dir(0o755)).expect_err("through a link");
    archive.insert("a", Entry::symlink("b")).expect_err("it has files in it");
    archive.insert("b", Entry::symlink("")).expect_err("to nothing");
    archive.insert("b", Entry::symlink("a\0b")).expect_err("NUL");
    archive.insert("b", Entry::symlink("x".repeat(4096))).expect_err("long");
    archive.insert("...", Entry::symlink("..")).expect("an odd but lawful name");
    assert_eq!(archive.len(), 4);
}

#[test]
fn a_bomb_stops_at_the_limit() {
    let mut archive = Archive::new();
    archive.insert("zeros", Entry::file(0o644, vec![0; 8 << 20])).expect("sound");
    for compression in [Compression::None, Compression::Gzip, Compression::Zstd] {
        let packed = compression.pack(&archive.to_bytes());
        read(&packed, 1 << 20).expect_err("8 MiB");
        assert_eq!(read(&packed, 9 << 20).expect("fits"), archive);
        read(&[&packed[..], &packed[..]].concat(), 9 << 20).expect_err("twice 8 MiB");
    }
    // A header that promises 4 GiB costs nothing.
    let mut header = archive.to_bytes().to_vec();
    header[54..62].copy_from_slice(b"ffffffff");
    read(&header, usize::MAX).expect_err("cut short");
}

fn entries() -> impl Strategy<Value = Vec<(String, Entry)>> {
    let name =
        proptest::collection::vec("[a-c.\u{e9} -]{1,3}", 1..4).prop_map(|parts| parts.join("/"));
    let kind = prop_oneof![
        Just(Entry::dir(0)),
        proptest::collection::vec(any::<u8>(), 0..40).prop_map(|data| Entry::file(0, data)),
        "[^\0]{1,9}".prop_map(Entry::symlink),
        any::<(u32, u32)>().prop_map(|(major, minor)| Entry::char_dev(0, major, minor)),
        any::<(u32, u32)>().prop_map(|(major, minor)| Entry::block_dev(0, major, minor)),
    ];
    let entry = (kind, any::<(u32, u32, u32)>(), 0..=0o7777u32).prop_map(
        |(entry, (uid, gid, mtime), mode)| Entry { mode, ..entry.owned_by(uid, gid).at(mtime) },
    );
    proptest::collection::vec((name, entry), 0..12)
}

static PACKED: LazyLock<Vec<Bytes>> = LazyLock::new(|| {
    let ways = [Compression::None, Compression::Gzip, Compression::Zstd];
    ways.into_iter().map(|way| way.pack(&sample().to_bytes())).collect()
});

proptest! {
    #[test]
    fn what_is_written_is_read(entries in entries()) {
        let mut archive = Archive::new();
        for (name, entry) in entries {
            // Names that clash or climb are refused, and leave the archive as it was but for parents.
            let _refused = archive.insert(&name, entry);
        }
        let bytes = archive.to_bytes();
        prop_assert_eq!(bytes.len() % 4, 0);
        let again = read(&bytes, LIMIT).expect("our own");
        prop_assert_eq!(&again, &archive);
        prop_assert_eq!(again.to_bytes(), bytes);
    }

    #[test]
    fn garbage_is_an_error_at_most(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
        let _any = read(&bytes, 1 << 20);
    }

    #[test]
    fn a_damaged_archive_is_an_error_at_most(
        packing in 0usize..3,
        at in 0usize..10_000,
        bytes in proptest::collection::vec(any::<u8>(), 1..9),
        cut in 1usize..10_000,
    ) {
        let mut all = PACKED[packing].to_vec();
        let at = at % all.len();
        let end = all.len().min(at + bytes.len());
        all[at..end].copy_from_slice(&bytes[..end - at]);
        all.truncate(cut);
        let _any = read(&all, 1 << 20);
    }

    #[test]
    fn hex_digits_may_be_anything(at in 6usize..110, digit in "[0-9a-fA-F+ -]{8}") {
        let mut all = sample().to_bytes().to_vec();
        let at = 6 + (at - 6) / 8 * 8;
        all[at..at + 8].copy_from_slice(digit.as_bytes());
        let _any = read(&all, 1 << 20);
    }
}
