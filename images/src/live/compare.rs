//! A listing against the tree of the version that the machine booted: what came, what is other, what is gone.

use std::collections::{HashMap, HashSet};
use std::io::{self, Read};

use koboshi_initramfs::changes::Manner;
use koboshi_initramfs::changes::listing::{Kind, Node, Reader, Touched, What};

use crate::Digest;
use crate::content::Content;
use crate::digest::Hashing;
use crate::error::{Fault, shown};
use crate::source::Limits;
use crate::source::keep_xattr;
use crate::tree::{self, Inode, Tree};

/// What became of a name.
#[derive(Debug, Clone)]
pub(super) enum Became {
    /// It is there now: the entry's number in the listing, and what it is.
    Is(u32, Box<Node>),
    /// It is there no more.
    Gone,
}

/// A name that is other than the image has it.
#[derive(Debug, Clone)]
pub(super) struct Change {
    pub(super) path: Vec<u8>,
    pub(super) became: Became,
}

/// What a listing comes to.
#[derive(Debug, Default)]
pub(super) struct Compared {
    /// Parents first; what is gone stands before all else.
    pub(super) changes: Vec<Change>,
    /// Names of which the machine could read nothing.
    pub(super) unread: u64,
}

/// Reads a listing to its end.
pub(super) fn compare(
    base: &Tree,
    manner: Manner,
    listing: impl Read,
    limits: &Limits,
) -> Result<Compared, Fault> {
    let damaged =
        |bad: koboshi_initramfs::changes::listing::Bad| Fault::Malformed { what: bad.to_string() };
    let mut reader = Reader::new(io::BufReader::with_capacity(1 << 16, listing));
    let mut seen = Seen::default();
    let mut compared = Compared::default();
    let (mut number, mut words) = (0_u32, 0_u64);
    while let Some(entry) = reader.next_entry().map_err(damaged)? {
        // A Tree takes no other names, and neither does a disk.
        let path = tree::normalise(&entry.path)?;
        words += path.len() as u64 + 64;
        if seen.names.len() >= limits.entries || words > limits.words {
            return Err(Fault::TooLarge { what: "the machine's list of names".to_owned() });
        }
        match entry.what {
            What::Same if base.get(&path).is_none() => {
                let what = format!(
                    "`{}` is said to be as the image has it, which has no such name: the machine booted something else",
                    shown(&path)
                );
                return Err(Fault::Malformed { what });
            }
            What::Same => {}
            What::Covered => {
                seen.covered.insert(path.clone());
            }
            What::Gone => {
                seen.gone.insert(path.clone());
            }
            What::Node(node) => {
                if node.opaque || node.kind != Kind::Dir {
                    seen.hides.insert(path.clone());
                }
                if !base.get(&path).is_some_and(|inode| same(inode, &node)) {
                    let became = Became::Is(number, Box::new(node));
                    compared.changes.push(Change { path: path.clone(), became });
                }
                number = number.saturating_add(1);
            }
        }
        seen.names.insert(path);
    }
    compared.unread = reader.end().map_or(0, |end| end.unread);
    let gone = seen.gone(base, manner);
    let gone = gone.into_iter().map(|path| Change { path, became: Became::Gone });
    compared.changes.splice(0..0, gone);
    Ok(compared)
}

/// What of the machine's names tells which of the image's are gone.
#[derive(Debug, Default)]
struct Seen {
    names: HashSet<Vec<u8>>,
    covered: HashSet<Vec<u8>>,
    gone: HashSet<Vec<u8>>,
    /// Directories that hide what the image has there, and what is no directory.
    hides: HashSet<Vec<u8>>,
}

impl Seen {
    /// Names of the image that the machine has no more.
    fn gone(&self, base: &Tree, manner: Manner) -> Vec<Vec<u8>> {
        // A machine has its kernel before it has its root, which holds no /boot.
        let boot = base.resolve(b"boot").map(|(path, _)| path).unwrap_or_default();
        let unseen = |path: &[u8]| {
            parents(path).any(|dir| self.covered.contains(dir) || (!boot.is_empty() && dir == boot))
        };
        let taken = |path: &[u8]| {
            let above = |dir: &[u8]| self.gone.contains(dir) || self.hides.contains(dir);
            self.gone.contains(path) || (!self.names.contains(path) && parents(path).any(above))
        };
        let gone = |path: &&[u8]| match manner {
            // Its upper directory tells of nothing else.
            Manner::Overlay => taken(path),
            Manner::Ram | Manner::Nfs => !self.names.contains(*path),
        };
        let names = base.iter().map(|(path, ..)| path);
        names.filter(gone).filter(|path| !unseen(path)).map(<[u8]>::to_vec).collect()
    }
}

/// `a/b/c` → `a/b`, `a`
pub(super) fn parents(path: &[u8]) -> impl Iterator<Item = &[u8]> {
    path.iter().enumerate().rev().filter(|(_, c)| **c == b'/').map(|(at, _)| &path[..at])
}

/// Whether an inode is what the image has. Times alone are no difference.
pub(super) fn same(inode: &Inode, node: &Node) -> bool {
    let meta = &inode.meta;
    let link = matches!(node.kind, Kind::Symlink(_));
    // A symbolic link's mode means nothing.
    if (meta.uid, meta.gid) != (node.uid, node.gid) || (!link && meta.mode != node.mode) {
        return false;
    }
    let xattrs: HashMap<&[u8], &[u8]> = xattrs(node).collect();
    if xattrs.len() != meta.xattrs.len()
        || meta.xattrs.iter().any(|(name, value)| xattrs.get(&name[..]) != Some(&&value[..]))
    {
        return false;
    }
    match (&inode.kind, &node.kind) {
        (tree::Kind::Dir, Kind::Dir) | (tree::Kind::Fifo, Kind::Fifo) => true,
        (tree::Kind::Symlink(one), Kind::Symlink(other)) => **one == **other,
        (tree::Kind::Char { major, minor }, Kind::Char(a, b))
        | (tree::Kind::Block { major, minor }, Kind::Block(a, b)) => (major, minor) == (a, b),
        (tree::Kind::File(content), Kind::File(size)) if content.size() == *size => {
            match node.sha256 {
                Some(sum) => digest(content).is_ok_and(|digest| digest == Digest(sum)),
                // It lies in a directory that was touched, and was not touched itself.
                None => node.touched == Touched::Made && meta.mtime == node.mtime.max(0) as u64,
            }
        }
        _ => false,
    }
}

/// Those that an image keeps.
pub(super) fn xattrs(node: &Node) -> impl Iterator<Item = (&[u8], &[u8])> {
    node.xattrs
        .iter()
        .map(|(name, value)| (&name[..], &value[..]))
        .filter(|(name, _)| keep_xattr(name))
}

fn digest(content: &Content) -> io::Result<Digest> {
    let mut hashing = Hashing::new(io::sink());
    io::copy(&mut content.open()?, &mut hashing)?;
    Ok(hashing.finish().1)
}
