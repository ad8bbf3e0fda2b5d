//! Trees that differ in one thing, and any two trees.

use proptest::prelude::*;

use super::*;
use crate::source::Limits;
use crate::source::spool::spooled;
use crate::tree::{Member, Meta};

fn file(bytes: &[u8]) -> Kind {
    Kind::File(Content::Span(spooled(bytes)))
}

fn meta(mode: u32) -> Meta {
    Meta { mode, mtime: 1, ..Meta::default() }
}

fn tree(members: Vec<(&str, Meta, Kind)>) -> Tree {
    let mut tree = Tree::new(Limits::default());
    for (name, meta, kind) in members {
        tree.add(name.as_bytes(), Member::Inode(Inode { meta, kind })).unwrap();
    }
    tree
}

fn link(mut tree: Tree, name: &str, target: &str) -> Tree {
    tree.add(name.as_bytes(), Member::HardLink(target.into())).unwrap();
    tree
}

#[test]
fn every_aspect_is_told_apart() {
    let plain = |kind| tree(vec![("n", meta(0o644), kind)]);
    let with = |meta| tree(vec![("n", meta, file(b"text\n"))]);
    let xattrs = BTreeMap::from([(b"user.a".to_vec(), b"\x01\0".to_vec())]);
    let symlink = |to: &str| plain(Kind::Symlink(to.as_bytes().into()));
    let char = |major| plain(Kind::Char { major, minor: 3 });
    let former = || plain(file(b"text\n"));
    let cases = vec![
        (former(), plain(Kind::Dir), vec![Aspect::Type]),
        (former(), with(meta(0o4755)), vec![Aspect::Mode]),
        (former(), with(Meta { uid: 33, ..meta(0o644) }), vec![Aspect::Owner]),
        (former(), with(Meta { gid: 33, ..meta(0o644) }), vec![Aspect::Owner]),
        (former(), with(Meta { xattrs, ..meta(0o644) }), vec![Aspect::Xattrs]),
        (former(), plain(file(b"Text\n")), vec![Aspect::Content]),
        (former(), plain(file(b"")), vec![Aspect::Content]),
        (symlink("a"), symlink("b"), vec![Aspect::Target]),
        (char(1), char(4), vec![Aspect::Device]),
        (char(1), plain(Kind::Block { major: 1, minor: 3 }), vec![Aspect::Type]),
    ];
    for (old, new, differs) in cases {
        let diff = compare(&old, &new).unwrap();
        let found: Vec<_> = diff.changes.iter().map(|c| (&c.path[..], &c.differs[..])).collect();
        assert_eq!(found, [("n", &differs[..])]);
        assert_eq!(diff.changes[0].what, What::Changed);
    }
}

#[test]
fn a_time_alone_is_counted_and_a_name_more_is_told() {
    let later = tree(vec![("n", Meta { mtime: 2, ..meta(0o644) }, file(b"x"))]);
    let former = tree(vec![("n", meta(0o644), file(b"x"))]);
    let diff = compare(&former, &later).unwrap();
    assert_eq!((diff.changes.len(), diff.counts.touched), (0, 1));
    let linked = link(tree(vec![("n", meta(0o644), file(b"x"))]), "other", "n");
    let diff = compare(&former, &linked).unwrap();
    let told: Vec<_> = diff.changes.iter().map(|c| (&c.path[..], c.what, &c.differs[..])).collect();
    assert_eq!(
        told,
        [("n", What::Changed, &[Aspect::Links][..]), ("other", What::Added, &[][..]),]
    );
    assert_eq!(diff.changes[0].after.as_ref().unwrap().links, Some(2));
}

#[test]
fn a_file_that_moved_is_one_change() {
    let old = tree(vec![
        ("a/one", meta(0o644), file(b"same")),
        ("a/two", meta(0o644), file(b"same")),
        ("gone", meta(0o644), file(b"else")),
    ]);
    let new =
        tree(vec![("b/two", meta(0o600), file(b"same")), ("came", meta(0o644), file(b"else!"))]);
    let diff = compare(&old, &new).unwrap();
    let told: Vec<_> =
        diff.changes.iter().map(|c| (&c.path[..], c.what, c.from.as_deref())).collect();
    assert_eq!(
        told,
        [
            ("a", What::Removed, None),
            ("a/one", What::Removed, None),
            ("b", What::Added, None),
            ("b/two", What::Renamed, Some("a/two")),
            ("came", What::Added, None),
            ("gone", What::Removed, None),
        ]
    );
    assert_eq!(diff.changes[3].differs, [Aspect::Mode]);
}

#[test]
fn what_not_everybody_may_read_is_not_shown() {
    let shadow = |text: &str, mode| tree(vec![("etc/shadow", meta(mode), file(text.as_bytes()))]);
    for (before, after) in [(0o640, 0o640), (0o640, 0o644), (0o644, 0o600)] {
        let diff = compare(&shadow("root:*:\n", before), &shadow("root:$y$\n", after)).unwrap();
        assert_eq!(diff.changes[0].no_text, Some(NoText::Private));
        assert!(!serde_json::to_string(&diff).unwrap().contains("$y$"));
    }
    let open = compare(&shadow("a\n", 0o644), &shadow("b\n", 0o644)).unwrap();
    assert_eq!(open.changes[0].text.as_deref(), Some("@@ -1 +1 @@\n-a\n+b\n"));
    let binary = compare(&shadow("a\n", 0o644), &shadow("\0", 0o644)).unwrap();
    assert_eq!(binary.changes[0].no_text, Some(NoText::Binary));
    let large = compare(&shadow("a\n", 0o644), &shadow(&"x".repeat(300_000), 0o644)).unwrap();
    assert_eq!(large.changes[0].no_text, Some(NoText::Large));
}

#[test]
fn programs_read_octal_modes_and_hexadecimal_attributes() {
    let xattrs = BTreeMap::from([(b"security.capability".to_vec(), vec![1, 0, 0, 2])]);
    let new = tree(vec![("ping", Meta { xattrs, ..meta(0o4755) }, file(b"\x7fELF\0"))]);
    let diff = compare(&Tree::new(Limits::default()), &new).unwrap();
    let json = serde_json::to_value(&diff.changes[0]).unwrap();
    assert_eq!(
        json,
        serde_json::json!({
            "path": "ping", "what": "added", "no_text": "binary",
            "after": {
                "type": "file", "mode": "4755", "uid": 0, "gid": 0, "size": 5,
                "xattrs": { "security.capability": "0x01000002" },
            },
        })
    );
}

#[derive(Debug, Clone)]
struct Spec(Vec<(String, u8, u8)>);

fn spec() -> impl Strategy<Value = Spec> {
    let name = prop::sample::select(vec!["a", "b", "a/x", "a/y", "c/d/e", "é", "b-"]);
    let one = (name.prop_map(str::to_owned), 0u8..5, 0u8..3);
    prop::collection::vec(one, 0..10).prop_map(Spec)
}

fn grow(spec: &Spec) -> Tree {
    let mut tree = Tree::new(Limits::default());
    for (name, kind, flavour) in &spec.0 {
        let kind = match kind {
            0 => Kind::Dir,
            1 => file(&[*flavour; 2]),
            2 => Kind::File(Content::Empty),
            3 => Kind::Symlink(Box::from([b'0' + flavour])),
            _ => Kind::Char { major: u32::from(*flavour), minor: 0 },
        };
        let meta = meta(0o640 + u32::from(*flavour));
        // A link or a file may lie where a name needs a directory.
        let _ = tree.add(name.as_bytes(), Member::Inode(Inode { meta, kind }));
    }
    tree
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]
    /// Every name is told of once, by what is true of it; turned round, the same is said backwards.
    #[test]
    fn any_two_trees(old in spec(), new in spec()) {
        let (old, new) = (grow(&old), grow(&new));
        prop_assert_eq!(compare(&old, &old).unwrap().changes, vec![]);
        let diff = compare(&old, &new).unwrap();
        let back = compare(&new, &old).unwrap();
        let count = |diff: &Diff| (diff.counts.changed, diff.counts.renamed);
        prop_assert_eq!(count(&diff), count(&back));
        prop_assert_eq!(diff.counts.added, back.counts.removed);
        prop_assert_eq!(diff.counts.bytes_after, back.counts.bytes_before);
        let mut names: std::collections::BTreeSet<String> =
            old.iter().map(|(path, ..)| String::from_utf8_lossy(path).into_owned()).collect();
        for change in &diff.changes {
            match change.what {
                What::Added => prop_assert!(names.insert(change.path.clone())),
                What::Removed => prop_assert!(names.remove(&change.path)),
                What::Renamed => {
                    prop_assert!(names.remove(change.from.as_ref().unwrap()));
                    prop_assert!(names.insert(change.path.clone()));
                }
                What::Changed => {
                    prop_assert!(!change.differs.is_empty() && names.contains(&change.path));
                }
            }
        }
        let after: std::collections::BTreeSet<String> =
            new.iter().map(|(path, ..)| String::from_utf8_lossy(path).into_owned()).collect();
        prop_assert_eq!(names, after);
    }
}
