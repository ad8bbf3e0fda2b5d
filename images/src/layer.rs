//! What one layer of an image holds: the difference of two trees.
//!
//! A layer names what is new or different, with every directory on the way to it, and what is gone
//! (OCI image spec, layer.md, "Whiteouts"; never the opaque ones: what they take away depends on
//! the order of the entries). Whoever unpacks it takes away what is gone first; a name that is no
//! directory below and here, or here and below, replaces what lies there with all that is in it.
//!
//! An inode is a unit: where the set of its names has changed, all of them are written anew. In a
//! stack of squashfs no layer can link to an inode of another.

use std::collections::{HashMap, HashSet};
use std::io::{self, Read};

use crate::content::Content;
use crate::error::{Fault, shown};
use crate::tree::{Inode, Kind, Tree};

/// What begins the name of a whiteout.
pub(crate) const WHITEOUT: &[u8] = b".wh.";

/// What a layer holds.
#[derive(Debug)]
pub(crate) struct Delta<'t> {
    /// Paths of the layers below that are gone, in order.
    pub(crate) gone: Vec<Vec<u8>>,
    /// (Path, number of the inode in its tree, inode), in order, parents first.
    pub(crate) entries: Vec<(&'t [u8], usize, &'t Inode)>,
}

impl<'t> Delta<'t> {
    /// All of a tree: the lowest layer.
    pub(crate) fn whole(tree: &'t Tree) -> Delta<'t> {
        Delta { gone: Vec::new(), entries: tree.iter().collect() }
    }

    /// Whether it changes nothing.
    pub(crate) fn is_empty(&self) -> bool {
        self.gone.is_empty() && self.entries.is_empty()
    }
}

/// What a layer above `base` must hold to make it `new`.
pub(crate) fn between<'t>(base: &Tree, new: &'t Tree) -> Result<Delta<'t>, Fault> {
    let (before, after) = (names(base), names(new));
    let mut same: HashMap<usize, bool> = HashMap::new();
    let mut wanted: HashSet<&[u8]> = HashSet::new();
    for (path, inode, node) in new.iter() {
        let known = same.get(&inode).copied();
        let kept = match (known, base.entry(path)) {
            (Some(kept), _) => kept,
            (None, None) => false,
            (None, Some((_, number, old))) => {
                before.get(&number) == after.get(&inode) && equal(old, node, path)?
            }
        };
        same.insert(inode, kept);
        if !kept {
            wanted.insert(path);
            wanted.extend(parents(path));
        }
    }
    let mut gone = Vec::new();
    for (path, ..) in base.iter().filter(|(path, ..)| new.get(path).is_none()) {
        let cut = path.iter().rposition(|c| *c == b'/');
        let dir = cut.map_or(&b""[..], |cut| &path[..cut]);
        // A parent that is gone, or a directory no longer, has taken it along.
        let stays = match new.get(dir) {
            Some(parent) => matches!(parent.kind, Kind::Dir),
            None => dir.is_empty(),
        };
        if !stays {
            continue;
        }
        if path.len() - cut.map_or(0, |cut| cut + 1) + WHITEOUT.len() > 255 {
            let why = "no layer can take away a name of more than 251 bytes";
            return Err(Fault::Name { entry: shown(path), why });
        }
        gone.push(path.to_vec());
        // In `new` they have the same names.
        if let Some((dir, ..)) = new.entry(dir) {
            wanted.insert(dir);
            wanted.extend(parents(dir));
        }
    }
    let entries = new.iter().filter(|(path, ..)| wanted.contains(path)).collect();
    Ok(Delta { gone, entries })
}

/// Takes out of a tree what no layer can hold, and says what it was.
pub(crate) fn unspeakable(tree: &mut Tree) -> Vec<String> {
    let marked = |path: &[u8]| path.split(|c| *c == b'/').any(|part| part.starts_with(WHITEOUT));
    let mut warnings = Vec::new();
    let bad: Vec<Vec<u8>> = tree
        .iter()
        .filter_map(|(path, _, inode)| {
            let why = if marked(path) {
                ".wh. is OCI's mark of deletion"
            } else if matches!(inode.kind, Kind::Char { major: 0, minor: 0 }) {
                "a device 0:0 is overlayfs's mark of deletion"
            } else {
                return None;
            };
            warnings.push(format!("/{} left out: {why}", shown(path)));
            Some(path.to_vec())
        })
        .collect();
    for path in bad {
        tree.remove(&path);
    }
    warnings
}

/// Takes out of a tree what lies in /boot, and returns it with the directories it is in: a machine
/// has its kernel before it has its root, so that what is there is only in its way.
pub(crate) fn take_boot(tree: &mut Tree) -> Tree {
    let mut boot = tree.clone();
    let dir = tree.resolve(b"boot").map(|(path, _)| path).unwrap_or_default();
    let inside = |path: &[u8]| {
        !dir.is_empty() && path.strip_prefix(&dir[..]).is_some_and(|rest| rest.starts_with(b"/"))
    };
    let held: Vec<Vec<u8>> =
        tree.iter().filter(|(path, ..)| inside(path)).map(|(path, ..)| path.to_vec()).collect();
    let on_the_way: HashSet<&[u8]> = held.iter().flat_map(|path| parents(path)).collect();
    let others: Vec<Vec<u8>> = tree
        .iter()
        .map(|(path, ..)| path)
        .filter(|path| !inside(path) && !on_the_way.contains(path))
        .map(<[u8]>::to_vec)
        .collect();
    others.iter().for_each(|path| boot.forget(path));
    held.iter().for_each(|path| tree.forget(path));
    boot
}

/// `a/b/c` → `a/b`, `a`
fn parents(path: &[u8]) -> impl Iterator<Item = &[u8]> {
    path.iter().enumerate().rev().filter(|(_, c)| **c == b'/').map(|(at, _)| &path[..at])
}

/// The names of every inode, in order.
fn names(tree: &Tree) -> HashMap<usize, Vec<&[u8]>> {
    let mut names: HashMap<usize, Vec<&[u8]>> = HashMap::new();
    for (path, inode, _) in tree.iter() {
        names.entry(inode).or_default().push(path);
    }
    names
}

fn equal(old: &Inode, new: &Inode, path: &[u8]) -> Result<bool, Fault> {
    // A layer ago it was the same tree.
    if std::ptr::eq(old, new) {
        return Ok(true);
    }
    if old.meta != new.meta {
        return Ok(false);
    }
    Ok(match (&old.kind, &new.kind) {
        (Kind::Dir, Kind::Dir) | (Kind::Fifo, Kind::Fifo) => true,
        (Kind::Symlink(a), Kind::Symlink(b)) => a == b,
        (Kind::Char { major: a, minor: b }, Kind::Char { major: c, minor: d })
        | (Kind::Block { major: a, minor: b }, Kind::Block { major: c, minor: d }) => {
            (a, b) == (c, d)
        }
        (Kind::File(a), Kind::File(b)) => {
            a.size() == b.size()
                && same_bytes(a, b).map_err(|error| match error.kind() {
                    io::ErrorKind::UnexpectedEof | io::ErrorKind::NotFound => {
                        Fault::Changed { entry: shown(path) }
                    }
                    _ => Fault::Io(error),
                })?
        }
        _ => false,
    })
}

/// Whether two files of the same size hold the same.
fn same_bytes(a: &Content, b: &Content) -> io::Result<bool> {
    if let (Content::Span(a), Content::Span(b)) = (a, b)
        && std::sync::Arc::ptr_eq(&a.file, &b.file)
        && a.start == b.start
    {
        return Ok(true);
    }
    let mut left = a.size();
    let most = left.min(1 << 17) as usize;
    let (mut a, mut b) = (a.open()?, b.open()?);
    let (mut one, mut other) = (vec![0; most], vec![0; most]);
    while left > 0 {
        let want = most.min(usize::try_from(left).unwrap_or(usize::MAX));
        a.read_exact(&mut one[..want])?;
        b.read_exact(&mut other[..want])?;
        if one[..want] != other[..want] {
            return Ok(false);
        }
        left -= want as u64;
    }
    Ok(true)
}

#[cfg(test)]
mod tests;
