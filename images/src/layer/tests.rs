//! Two trees, the layer between them, and whether it makes one of the other.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::pack;
use crate::source::spool::spooled;
use crate::source::{Limits, Reading, Spool, apply};
use crate::tree::{Member, Meta};

/// One change of a tree.
#[derive(Debug, Clone)]
enum Step {
    File(String, u8, u8),
    Dir(String, u8),
    Symlink(String, &'static str),
    Device(String, u32),
    Link(String, String),
    Remove(String),
}

fn meta(kind: u8) -> Meta {
    let xattrs = if kind == 2 {
        BTreeMap::from([(b"security.capability".to_vec(), b"\x01\n=\0".to_vec())])
    } else {
        BTreeMap::new()
    };
    let kind = u32::from(kind);
    Meta { mode: 0o640 + kind, uid: kind * 3_000_000, gid: 7, mtime: 1_700_000_000, xattrs }
}

fn step(tree: &mut Tree, step: &Step) {
    let mut add = |path: &str, meta: Meta, kind: Kind| {
        // A link in the way, or one in circles: then nothing has changed.
        let _ = tree.add(path.as_bytes(), Member::Inode(Inode { meta, kind }));
    };
    match step {
        Step::File(path, bytes, kind) => {
            let content = match bytes {
                0 => Content::Empty,
                1 => Content::Sparse { size: 9000, pieces: vec![(5000, spooled(b"x"))] },
                more => Content::Span(spooled(&[*more; 700])),
            };
            add(path, meta(*kind), Kind::File(content));
        }
        Step::Dir(path, kind) => add(path, meta(*kind), Kind::Dir),
        Step::Symlink(path, to) => add(path, meta(0), Kind::Symlink(to.as_bytes().into())),
        Step::Device(path, minor) => {
            add(path, meta(0), Kind::Char { major: 1, minor: *minor });
        }
        Step::Link(path, to) => {
            let _ = tree.add(path.as_bytes(), Member::HardLink(to.clone().into_bytes()));
        }
        Step::Remove(path) => tree.remove(path.as_bytes()),
    }
}

fn tree(steps: &[Step]) -> Tree {
    let mut tree = Tree::new(Limits::default());
    steps.iter().for_each(|one| step(&mut tree, one));
    tree
}

/// Path → everything that can be said of it; an inode by the first of its names.
fn told(tree: &Tree) -> BTreeMap<String, String> {
    let mut first: HashMap<usize, String> = HashMap::new();
    tree.iter()
        .map(|(path, inode, node)| {
            let path = String::from_utf8(path.to_vec()).unwrap();
            let kind = match &node.kind {
                Kind::File(content) => format!("{:?}", content.read(1 << 20).unwrap()),
                other => format!("{other:?}"),
            };
            let inode = first.entry(inode).or_insert_with(|| path.clone());
            let said = format!("{inode} {:?} {kind}", node.meta);
            (path, said)
        })
        .collect()
}

fn packed(layer: &Delta<'_>) -> Vec<u8> {
    let out = tempfile::NamedTempFile::new().unwrap();
    pack::pack(layer, 1, out.reopen().unwrap(), &mut |_| ()).unwrap();
    zstd::decode_all(&std::fs::read(out.path()).unwrap()[..]).unwrap()
}

/// As whoever imports the layer does.
fn applied(base: &Tree, tar: &[u8]) -> Tree {
    let mut tree = base.clone();
    let dir = tempfile::tempdir().unwrap();
    let (limits, warnings) = (Limits::default(), Vec::new());
    let progress = &mut |_| ();
    let mut reading = Reading { spool: Spool::new(dir.path()), limits, warnings, progress };
    apply(&mut tree, &spooled(tar), &mut reading).unwrap();
    tree
}

fn names_in(tar: &[u8]) -> Vec<String> {
    let mut archive = tar::Archive::new(tar);
    let paths = archive.entries().unwrap().map(|entry| entry.unwrap().path().unwrap().into_owned());
    paths.map(|path| path.to_str().unwrap().to_owned()).collect()
}

/// The names of the layer between two trees, once it was seen to make one of the other.
fn layer_of(base: &[Step], new: &[Step]) -> Vec<String> {
    let (base, new) = (tree(base), tree(new));
    let tar = packed(&between(&base, &new).unwrap());
    assert_eq!(told(&applied(&base, &tar)), told(&new));
    names_in(&tar)
}

fn file(path: &str, bytes: u8) -> Step {
    Step::File(path.to_owned(), bytes, 0)
}

fn link(path: &str, to: &str) -> Step {
    Step::Link(path.to_owned(), to.to_owned())
}

fn dir(path: &str) -> Step {
    Step::Dir(path.to_owned(), 0)
}

#[test]
fn a_layer_names_what_changed_its_directories_and_what_is_gone() {
    let base = [dir("d"), file("d/a", 2), file("d/b", 3), file("e/f", 4), dir("e")];
    assert_eq!(layer_of(&base, &base), ["./"], "nothing has");
    let new = [dir("d"), file("d/a", 2), file("d/b", 5), dir("e")];
    assert_eq!(layer_of(&base, &new), ["./", "e/.wh.f", "d/", "d/b", "e/"]);
    assert_eq!(layer_of(&base, &base[..3]), ["./", ".wh.e"]);
    assert!(between(&tree(&base), &tree(&base)).unwrap().is_empty());
}

#[test]
fn a_directory_becomes_a_file_and_a_file_a_directory() {
    let (as_dir, as_file) = ([file("x/a", 2), file("x/b/c", 3)], [file("x", 4)]);
    assert_eq!(layer_of(&as_dir, &as_file), ["./", "x"]);
    assert_eq!(layer_of(&as_file, &as_dir), ["./", "x/", "x/a", "x/b/", "x/b/c"]);
    let as_link = [dir("y"), Step::Symlink("x".to_owned(), "y")];
    let beside = [dir("y"), file("x/a", 2)];
    assert_eq!(layer_of(&as_link, &beside), ["./", "x/", "x/a"]);
    assert_eq!(layer_of(&beside, &as_link), ["./", "x"]);
}

#[test]
fn a_directory_made_anew_loses_what_was_in_it_name_by_name() {
    let (old, new) = ([dir("d"), file("d/a", 2), file("d/s/b", 3)], [dir("d"), file("d/new", 2)]);
    assert_eq!(layer_of(&old, &new), ["./", "d/.wh.a", "d/.wh.s", "d/", "d/new"]);
}

#[test]
fn an_inode_is_a_unit() {
    let alone = [file("a", 2), file("c", 3)];
    let twice = [file("a", 2), link("b", "a"), file("c", 3)];
    assert_eq!(layer_of(&alone, &twice), ["./", "a", "b"]);
    assert_eq!(layer_of(&twice, &alone), ["./", ".wh.b", "a"]);
    // Another name of the bytes, no longer of the inode.
    let apart = [file("a", 2), file("b", 2), file("c", 3)];
    assert_eq!(layer_of(&twice, &apart), ["./", "a", "b"]);
    let moved = [file("c", 3), link("b", "c"), file("a", 2)];
    assert_eq!(layer_of(&twice, &moved), ["./", "a", "b", "c"]);
}

#[test]
fn metadata_alone_are_a_change_and_times_of_the_same_bytes_none() {
    let changed = |kind| [Step::File("a".to_owned(), 2, kind), dir("d")];
    for (old, new) in [(0, 1), (1, 2), (2, 0)] {
        assert_eq!(layer_of(&changed(old), &changed(new)), ["./", "a"]);
    }
    let holes = [file("a", 1)];
    let mut zeros = Tree::new(Limits::default());
    let mut bytes = vec![0; 9000];
    bytes[5000] = b'x';
    let kind = Kind::File(Content::Span(spooled(&bytes)));
    zeros.add(b"a", Member::Inode(Inode { meta: meta(0), kind })).unwrap();
    assert!(between(&tree(&holes), &zeros).unwrap().is_empty(), "holes are zeros");
}

#[test]
fn names_no_whiteout_can_take_away_are_refused() {
    let (fits, long) = ("n".repeat(251), "n".repeat(252));
    assert_eq!(layer_of(&[file(&fits, 2)], &[]).len(), 2);
    let base = tree(&[file(&long, 2)]);
    assert!(matches!(between(&base, &tree(&[])), Err(Fault::Name { .. })));
    assert_eq!(layer_of(&[file(&format!("d/{long}"), 2)], &[]), ["./", ".wh.d"]);
}

#[test]
fn boot_is_a_layer_of_its_own() {
    let steps = [file("boot/vmlinuz", 2), file("boot/grub/x", 3), file("etc/x", 4), dir("bootx")];
    let mut root = tree(&steps);
    let boot = take_boot(&mut root);
    let paths = |tree: &Tree| told(tree).into_keys().collect::<Vec<_>>();
    assert_eq!(paths(&boot), ["boot", "boot/grub", "boot/grub/x", "boot/vmlinuz"]);
    assert_eq!(paths(&root), ["boot", "bootx", "etc", "etc/x"]);
    let mut linked = tree(&[Step::Symlink("boot".to_owned(), "usr/boot"), file("usr/boot/k", 2)]);
    assert_eq!(paths(&take_boot(&mut linked)), ["usr", "usr/boot", "usr/boot/k"]);
    assert_eq!(paths(&linked), ["boot", "usr", "usr/boot"]);
    let mut none = tree(&[file("etc/x", 4)]);
    assert!(take_boot(&mut none).len() == 0 && none.len() == 2);
}

#[test]
fn what_no_layer_can_hold_is_left_out_and_said() {
    let mut root = tree(&[file("etc/.wh.x", 2), file("a.wh.b", 2), file(".wh.d/x", 2)]);
    let kind = Kind::Char { major: 0, minor: 0 };
    root.add(b"dev/gone", Member::Inode(Inode { meta: meta(0), kind })).unwrap();
    let said = unspeakable(&mut root);
    assert_eq!(told(&root).into_keys().collect::<Vec<_>>(), ["a.wh.b", "dev", "etc"]);
    assert_eq!(said.len(), 4, "{said:?}");
}

fn path() -> impl Strategy<Value = String> {
    prop::collection::vec(prop::sample::select(&["a", "b", "c", "a-", "b0"][..]), 1..4)
        .prop_map(|parts| parts.join("/"))
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let targets = &["a", "/b", "c/a", "nowhere", "../a-"][..];
    let one = prop_oneof![
        4 => (path(), 0..4u8, 0..3u8).prop_map(|(path, bytes, kind)| Step::File(path, bytes, kind)),
        2 => (path(), 0..3u8).prop_map(|(path, kind)| Step::Dir(path, kind)),
        2 => (path(), prop::sample::select(targets)).prop_map(|(path, to)| Step::Symlink(path, to)),
        1 => (path(), 1..3u32).prop_map(|(path, minor)| Step::Device(path, minor)),
        3 => (path(), path()).prop_map(|(path, to)| Step::Link(path, to)),
        3 => path().prop_map(Step::Remove),
    ];
    prop::collection::vec(one, 0..24)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(192))]

    #[test]
    fn the_layer_between_two_trees_makes_one_of_the_other(base in steps(), more in steps()) {
        let base = tree(&base);
        // One that came of the other, and two that never met.
        let mut after = base.clone();
        after.next_layer();
        more.iter().for_each(|one| step(&mut after, one));
        for new in [after, tree(&more)] {
            let tar = packed(&between(&base, &new).unwrap());
            prop_assert_eq!(told(&applied(&base, &tar)), told(&new));
            let names = names_in(&tar);
            let first = names.iter().rposition(|name| name.contains(".wh."));
            prop_assert!(first.is_none_or(|at| names[1..=at].iter().all(|name| name.contains(".wh."))));
            prop_assert!(!names.iter().any(|name| name.ends_with(".wh..wh..opq")));
        }
    }

    #[test]
    fn a_layer_does_not_depend_on_the_order_its_names_came_in(base in steps(), new in steps()) {
        let (base, new) = (tree(&base), tree(&new));
        let again = applied(&Tree::new(Limits::default()), &packed(&Delta::whole(&new)));
        let layers = [between(&base, &new).unwrap(), between(&base, &again).unwrap()];
        prop_assert_eq!(packed(&layers[0]), packed(&layers[1]));
    }
}
