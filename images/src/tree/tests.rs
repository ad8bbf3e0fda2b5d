//! Strangers' names and links, applied to a tree.

use super::*;

fn node(kind: Kind) -> Member {
    Member::Inode(Inode { meta: Meta::default(), kind })
}

fn file() -> Member {
    node(Kind::File(Content::Empty))
}

fn link(target: &str) -> Member {
    node(Kind::Symlink(target.as_bytes().into()))
}

fn tree(members: &[(&str, Member)]) -> Tree {
    let mut tree = Tree::new(Limits::default());
    for (name, member) in members {
        tree.add(name.as_bytes(), member.clone()).unwrap();
    }
    tree
}

fn names(tree: &Tree) -> Vec<String> {
    tree.iter().map(|(path, ..)| String::from_utf8(path.to_vec()).unwrap()).collect()
}

#[test]
fn names_that_leave_the_tree_are_refused_in_every_spelling() {
    for bad in ["..", "../x", "a/../b", "a/..", "/..", "./../x", "a//../../x", "a/b/.."] {
        assert!(matches!(normalise(bad.as_bytes()), Err(Fault::Escape { .. })), "{bad}");
    }
    for (name, path) in [
        ("./a/./b//c/", "a/b/c"),
        ("/etc/passwd", "etc/passwd"),
        ("//x", "x"),
        ("./", ""),
        ("...", "..."),
        ("a/..b", "a/..b"),
        ("a\\..\\b", "a\\..\\b"),
        ("a\nb", "a\nb"),
    ] {
        assert_eq!(normalise(name.as_bytes()).unwrap(), path.as_bytes(), "{name}");
    }
    assert!(matches!(normalise(b"a\0b"), Err(Fault::Name { .. })));
    assert!(normalise(&[b'x'; 256]).is_err() && normalise(&[b'x'; 255]).is_ok());
    assert!(normalise(b"y/".repeat(2048).as_slice()).is_ok());
    assert!(normalise(b"yy/".repeat(1400).as_slice()).is_err());
    assert_eq!(normalise(b"a/\xff\xfe").unwrap(), b"a/\xff\xfe");
}

#[test]
fn parents_are_made_and_links_in_them_followed_inside_the_tree() {
    let tree = tree(&[
        ("usr/lib", node(Kind::Dir)),
        ("lib", link("usr/lib")),
        ("out", link("../../../etc")),
        ("abs", link("/var")),
        ("lib/libc.so", file()),
        ("out/passwd", file()),
        ("abs/log/x", file()),
    ]);
    let want = [
        "abs",
        "etc",
        "etc/passwd",
        "lib",
        "out",
        "usr",
        "usr/lib",
        "usr/lib/libc.so",
        "var",
        "var/log",
        "var/log/x",
    ];
    assert_eq!(names(&tree), want);
    assert_eq!(tree.resolve(b"lib/libc.so").unwrap().0, b"usr/lib/libc.so");
    assert!(tree.resolve(b"lib/none").is_none());
}

#[test]
fn links_in_circles_and_files_as_parents_are_refused() {
    let mut tree = tree(&[("a", link("b")), ("b", link("a")), ("f", file())]);
    assert!(matches!(tree.add(b"a/x", file()), Err(Fault::Parent { .. })));
    assert!(matches!(tree.add(b"f/x", file()), Err(Fault::Parent { .. })));
    for target in ["", "a\0b", &"x".repeat(4096)] {
        assert!(matches!(tree.add(b"l", link(target)), Err(Fault::Name { .. })));
    }
    assert!(tree.resolve(b"a").is_none());
}

#[test]
fn hard_links_point_at_something_earlier_inside() {
    let mut tree = tree(&[("d/f", file()), ("s", link("/d"))]);
    for (target, fine) in [
        ("d/f", true),
        ("/d/f", true),
        ("s/f", true),
        ("../f", false),
        ("d/../../f", false),
        ("none", false),
        ("d", false),
        ("", false),
    ] {
        let added = tree.add(b"h", Member::HardLink(target.into()));
        match added {
            Ok(()) => assert!(fine, "{target}"),
            Err(Fault::Link { .. }) => assert!(!fine, "{target}"),
            Err(other) => panic!("{target}: {other}"),
        }
    }
    let inodes: Vec<usize> =
        tree.iter().filter(|(path, ..)| [&b"d/f"[..], b"h"].contains(path)).map(|e| e.1).collect();
    assert_eq!(inodes[0], inodes[1]);
    // A link to itself changes nothing.
    tree.add(b"d/f", Member::HardLink(b"d/f".to_vec())).unwrap();
    assert!(tree.get(b"d/f").is_some());
}

#[test]
fn later_entries_win() {
    let mut tree = tree(&[("d/old", file()), ("d", node(Kind::Dir))]);
    assert_eq!(names(&tree), ["d", "d/old"], "a directory named again keeps what is in it");
    tree.add(b"d", file()).unwrap();
    assert_eq!(names(&tree), ["d"]);
    tree.add(b"d", node(Kind::Dir)).unwrap();
    tree.add(b"d/new", file()).unwrap();
    assert_eq!(names(&tree), ["d", "d/new"]);
}

#[test]
fn whiteouts_take_from_lower_layers_only() {
    let base = [("d/a", file()), ("d/b/c", file()), ("e", file())];
    let mut one = tree(&base);
    one.next_layer();
    one.add(b"d/new", file()).unwrap();
    one.opaque(b"d").unwrap();
    one.whiteout(b"e").unwrap();
    assert_eq!(names(&one), ["d", "d/new"]);

    let mut two = tree(&base);
    two.next_layer();
    two.add(b"d/b/new", file()).unwrap();
    two.whiteout(b"d/b").unwrap();
    two.whiteout(b"never-there").unwrap();
    assert_eq!(names(&two), ["d", "d/a", "d/b", "d/b/new", "e"]);
    assert!(matches!(two.whiteout(b"../e"), Err(Fault::Escape { .. })));
}

#[test]
fn bounds_hold() {
    let limits = Limits { entries: 3, ..Limits::default() };
    let mut tree = Tree::new(limits);
    for name in [b"a", b"b", b"c"] {
        tree.add(name, file()).unwrap();
    }
    assert!(matches!(tree.add(b"d", file()), Err(Fault::TooLarge { .. })));
    let mut tree = Tree::new(Limits { unpacked: 1 << 40, ..Limits::default() });
    let huge = Content::Sparse { size: 1 << 39, pieces: Vec::new() };
    tree.add(b"a", node(Kind::File(huge.clone()))).unwrap();
    tree.add(b"b", node(Kind::File(huge.clone()))).unwrap();
    assert!(matches!(tree.add(b"c", node(Kind::File(huge))), Err(Fault::TooLarge { .. })));
}

#[test]
fn children_and_below_do_not_stray_into_neighbours() {
    let tree = tree(&[("a/x/y", file()), ("a-b/z", file()), ("a0", file()), ("a/w", file())]);
    assert_eq!(tree.children(b"a"), [b"w".to_vec(), b"x".to_vec()]);
    assert_eq!(tree.below(b"a").count(), 3);
}

#[test]
fn what_lies_below_keeps_its_time() {
    let at = |mtime| {
        let meta = Meta { mtime, ..Meta::default() };
        Member::Inode(Inode { meta, kind: Kind::File(Content::Empty) })
    };
    let below = tree(&[("young", at(2000)), ("old", at(10)), ("changed", at(2000))]);
    let mut above = below.clone();
    for (name, mtime) in [("changed", 3000), ("new", 3000), ("new-and-old", 20)] {
        above.add(name.as_bytes(), at(mtime)).unwrap();
    }
    above.age(1000, &below);
    let times: Vec<u64> = above.iter().map(|(.., inode)| inode.meta.mtime).collect();
    assert_eq!(names(&above), ["changed", "new", "new-and-old", "old", "young"]);
    assert_eq!(times, [1000, 1000, 20, 10, 2000]);
    above.age(1000, &tree(&[]));
    assert_eq!(above.get(b"young").unwrap().meta.mtime, 1000);
}
