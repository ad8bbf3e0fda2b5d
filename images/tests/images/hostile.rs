//! Archives of strangers: each is refused with a sentence that names the culprit, or harmless; the
//! store is as it was before, and nothing outside it is touched.

use koboshi_images::{Fault, ImportOptions, Limits, import};
use proptest::prelude::*;
use tar::EntryType::{self, Block, Char, Continuous, Fifo, Link, Regular, Symlink};

use crate::fixture::{Bench, base_tar, fault, gzip, member};

fn with(members: &[(&str, EntryType, &str)]) -> Vec<u8> {
    let mut builder = base_tar();
    for (name, kind, link) in members {
        member(&mut builder, name, *kind, link, b"");
    }
    builder.into_inner().unwrap()
}

#[test]
fn names_that_climb_out_are_refused() {
    let bench = Bench::new();
    for name in [
        "../evil",
        "..",
        "a/../../evil",
        "/../evil",
        "./../evil",
        "etc/..",
        "a/b/../../../evil",
        "//..//evil",
        "etc/../evil",
        "../../../../../../../../tmp/evil",
    ] {
        for kind in [Regular, Symlink, EntryType::Directory, Char, Fifo, Link] {
            let refused = fault(bench.import_bytes(&with(&[(name, kind, "etc/hostname")])));
            assert!(
                matches!(&refused, Fault::Escape { entry } if entry == name),
                "{name}: {refused}"
            );
        }
    }
    bench.assert_clean();
    assert!(!std::path::Path::new("/tmp/evil").exists());
}

#[test]
fn hard_links_out_of_the_tree_are_refused() {
    let bench = Bench::new();
    for target in
        ["../secret", "/etc/shadow", "etc/../../secret", "/../etc/shadow", "", "etc", "not/there"]
    {
        let refused = fault(bench.import_bytes(&with(&[("etc/leak", Link, target)])));
        assert!(
            matches!(&refused, Fault::Link { entry, .. } if entry == "etc/leak"),
            "{target}: {refused}"
        );
    }
    bench.assert_clean();
}

/// A link may point anywhere, for it is read on the machine that boots the image, as every
/// /etc/mtab is; but what an archive puts *behind* a link stays in the tree.
#[test]
fn nothing_is_written_through_a_link() {
    let bench = Bench::new();
    let outside = tempfile::tempdir().unwrap();
    let target = outside.path().to_str().unwrap();
    let archive = with(&[
        ("etc/abs", Symlink, target),
        ("etc/abs/file", Regular, ""),
        ("etc/rel", Symlink, "../../../../../../../../../../tmp"),
        ("etc/rel/koboshi-escape", Regular, ""),
        ("usr/lib/firmware", Symlink, target),
        ("usr/lib/firmware/fw.bin", Regular, ""),
    ]);
    bench.import_bytes(&archive).unwrap();
    assert_eq!(std::fs::read_dir(outside.path()).unwrap().count(), 0);
    assert!(!std::path::Path::new("/tmp/koboshi-escape").exists());
    let tar = bench.root_tar();
    let names: Vec<String> = tar::Archive::new(&tar[..])
        .entries()
        .unwrap()
        .map(|entry| entry.unwrap().path().unwrap().to_string_lossy().into_owned())
        .collect();
    assert!(names.contains(&"tmp/koboshi-escape".to_owned()), "{names:?}");
    assert!(names.contains(&format!("{}/file", &target[1..])), "{names:?}");
}

#[test]
fn links_in_circles_are_refused() {
    let bench = Bench::new();
    let archive = with(&[("a", Symlink, "b"), ("b", Symlink, "a"), ("a/x", Regular, "")]);
    assert!(matches!(fault(bench.import_bytes(&archive)), Fault::Parent { .. }));
    let archive = with(&[("etc/hostname/x", Regular, "")]);
    assert!(matches!(fault(bench.import_bytes(&archive)), Fault::Parent { .. }));
}

#[test]
fn devices_are_entries_and_nothing_more() {
    let bench = Bench::new();
    let archive = with(&[
        ("dev/null", Char, ""),
        ("dev/sda", Block, ""),
        ("run/f", Fifo, ""),
        ("c", Continuous, ""),
    ]);
    bench.import_bytes(&archive).unwrap();
}

#[test]
fn a_tar_cut_anywhere_is_refused() {
    let bench = Bench::new();
    let whole = base_tar().into_inner().unwrap();
    let end = whole.len() - 1024;
    let packed = [gzip(&whole), zstd::encode_all(&whole[..], 1).unwrap()];
    for part in 0..40 {
        let refused = fault(bench.import_bytes(&whole[..end * part / 40]));
        assert!(matches!(refused, Fault::Cut { .. } | Fault::Unknown), "{part}: {refused}");
    }
    for packed in packed {
        for part in 1..20 {
            fault(bench.import_bytes(&packed[..packed.len() * part / 20]));
        }
        fault(bench.import_bytes(&packed[..packed.len() - 1]));
    }
    bench.assert_clean();
}

fn bounded(bench: &Bench, archive: &[u8], limits: Limits) -> Fault {
    let path = bench.path("archive");
    std::fs::write(&path, archive).unwrap();
    let options = ImportOptions { limits, ..ImportOptions::default() };
    fault(import(&bench.store, "web", &path, &options, &mut |_| ()))
}

#[test]
fn bombs_are_refused_before_they_fill_anything() {
    let bench = Bench::new();
    let zeros = |len| {
        let mut builder = base_tar();
        member(&mut builder, "var/zeros", Regular, "", &vec![0; len]);
        builder.into_inner().unwrap()
    };
    let small = Limits { unpacked: 8 << 20, ..Limits::default() };
    for packed in [
        gzip(&zeros(32 << 20)),
        zstd::encode_all(&zeros(32 << 20)[..], 1).unwrap(),
        zeros(32 << 20),
    ] {
        let refused = bounded(&bench, &packed, small);
        assert!(matches!(refused, Fault::TooLarge { .. }), "{refused}");
    }
    // A terabyte that is all holes takes no room in an archive.
    let mut builder = base_tar();
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(EntryType::GNUSparse);
    header.set_path("var/log/lastlog").unwrap();
    header.set_size(0);
    header.set_mode(0o644);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    header.as_gnu_mut().unwrap().set_real_size(1 << 32);
    header.set_cksum();
    for _ in 0..17 {
        builder.append(&header, &b""[..]).unwrap();
    }
    let refused = bounded(&bench, &builder.into_inner().unwrap(), Limits::default());
    assert!(refused.to_string().contains("var/log/lastlog"), "{refused}");

    let crowd = (0..200).fold(base_tar(), |mut builder, n| {
        member(&mut builder, &format!("crowd/{n}"), Regular, "", b"");
        builder
    });
    let few = Limits { entries: 100, ..Limits::default() };
    assert!(matches!(bounded(&bench, &crowd.into_inner().unwrap(), few), Fault::TooLarge { .. }));
    bench.assert_clean();
}

/// Headers that promise more than memory holds.
#[test]
fn lengths_are_not_believed() {
    let bench = Bench::new();
    for (kind, name) in [
        (b'L', "././@LongLink"),
        (b'K', "././@LongLink"),
        (b'x', "pax"),
        (b'g', "pax"),
        (b'0', "f"),
    ] {
        for size in [1 << 40, 1 << 20, (1u64 << 63) + 5, u64::MAX] {
            let mut header = tar::Header::new_gnu();
            header.set_entry_type(EntryType::new(kind));
            header.set_path(name).unwrap();
            header.set_mode(0o644);
            header.set_uid(0);
            header.set_gid(0);
            header.set_mtime(0);
            header.set_size(size);
            header.set_cksum();
            let mut bytes = with(&[]);
            bytes.truncate(bytes.len() - 1024);
            bytes.extend_from_slice(header.as_bytes());
            bytes.extend_from_slice(&[b'a'; 4096]);
            let refused = fault(bench.import_bytes(&bytes));
            assert!(
                matches!(
                    refused,
                    Fault::Cut { .. } | Fault::TooLarge { .. } | Fault::Malformed { .. }
                ),
                "{} {size}: {refused}",
                kind as char
            );
        }
    }
    bench.assert_clean();
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]
    /// Bent at random, with checksums made right again: an error or an image, never a panic.
    #[test]
    fn bent_archives_never_panic(
        edits in prop::collection::vec((0usize..60, 0usize..512, any::<u8>()), 1..12),
        packed in any::<bool>(),
    ) {
        let bench = Bench::new();
        let mut bytes = with(&[("etc/link", Link, "etc/hostname"), ("etc/s", Symlink, "hostname")]);
        for (block, at, byte) in edits {
            // The base files are small: most of the first blocks are headers.
            let start = block * 512;
            bytes[start + at] = byte;
            let mut header = tar::Header::new_old();
            header.as_mut_bytes().copy_from_slice(&bytes[start..start + 512]);
            header.set_cksum();
            bytes[start..start + 512].copy_from_slice(header.as_bytes());
        }
        let _ = bench.import_bytes(&if packed { gzip(&bytes) } else { bytes });
    }
}
