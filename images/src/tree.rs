//! A root file system in memory: names and metadata, with the bytes left where they lie.
//!
//! Strangers' archives are applied to this tree and never to the host, so a name can at worst be
//! refused. Links are followed as the booted system would follow them: inside the tree, `..` at
//! the top staying at the top. After [`Tree::add`] every entry's parents are real directories.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::content::Content;
use crate::error::{Fault, shown};
use crate::source::Limits;

/// Names longer than this no system call takes (PATH_MAX).
const PATH_MAX: usize = 4095;
/// One component (NAME_MAX).
const NAME_MAX: usize = 255;
/// Links followed before giving up, as the kernel does (ELOOP).
const LINKS_MAX: usize = 40;

/// Owner, mode and times.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Meta {
    /// The twelve permission bits.
    pub(crate) mode: u32,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    /// Seconds since 1970.
    pub(crate) mtime: u64,
    /// Extended attributes, sorted by name.
    pub(crate) xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
}

/// What a name stands for.
#[derive(Debug, Clone)]
pub(crate) enum Kind {
    Dir,
    File(Content),
    Symlink(Box<[u8]>),
    Char { major: u32, minor: u32 },
    Block { major: u32, minor: u32 },
    Fifo,
}

/// An inode: several names may share one.
#[derive(Debug, Clone)]
pub(crate) struct Inode {
    pub(crate) meta: Meta,
    pub(crate) kind: Kind,
}

/// What an archive says of one name.
#[derive(Debug, Clone)]
pub(crate) enum Member {
    Inode(Inode),
    /// Another name of something named earlier.
    HardLink(Vec<u8>),
}

#[derive(Debug, Clone, Copy)]
struct Name {
    inode: usize,
    /// Which layer of an OCI image put it there.
    layer: u32,
}

/// The tree. Paths have no leading and no trailing `/`; the root itself is not among them.
///
/// A clone shares names and inodes with what it was made from: an image is compared with itself as
/// it was a layer ago.
#[derive(Debug, Clone)]
pub(crate) struct Tree {
    names: BTreeMap<Arc<[u8]>, Name>,
    inodes: Vec<Arc<Inode>>,
    layer: u32,
    limits: Limits,
    /// Bytes of names, links and attributes so far.
    words: u64,
    /// Bytes of files so far.
    bytes: u64,
}

impl Tree {
    pub(crate) fn new(limits: Limits) -> Tree {
        Tree { names: BTreeMap::new(), inodes: Vec::new(), layer: 0, limits, words: 0, bytes: 0 }
    }

    /// What strangers may put into it.
    pub(crate) fn limits(&self) -> Limits {
        self.limits
    }

    /// The names added from now on are of the next layer.
    pub(crate) fn next_layer(&mut self) {
        self.layer += 1;
    }

    /// Puts a name into the tree, over whatever was there; returns its normalised path.
    pub(crate) fn add(&mut self, name: &[u8], member: Member) -> Result<(), Fault> {
        let path = normalise(name)?;
        if path.is_empty() {
            // The root's own mode and owner are the same in every image: see `pack`.
            return Ok(());
        }
        let path = self.place(&path, name)?;
        let inode = match member {
            Member::Inode(inode) => inode,
            Member::HardLink(target) => return self.link(path, name, &target),
        };
        if let Kind::Symlink(target) = &inode.kind
            && (target.is_empty() || target.contains(&0) || target.len() > PATH_MAX)
        {
            return Err(Fault::Name { entry: shown(name), why: "its target is no path" });
        }
        self.count(&path, &inode, name)?;
        match self.names.get(&path[..]).map(|old| old.inode) {
            Some(old)
                if matches!(inode.kind, Kind::Dir)
                    && matches!(self.inodes[old].kind, Kind::Dir) =>
            {
                Arc::make_mut(&mut self.inodes[old]).meta = inode.meta;
                self.insert_name(path, old);
                return Ok(());
            }
            Some(_) => self.remove(&path),
            None => {}
        }
        self.inodes.push(Arc::new(inode));
        self.insert_name(path, self.inodes.len() - 1);
        Ok(())
    }

    /// `.wh.NAME` of an OCI layer: what lower layers had at `name` is gone.
    pub(crate) fn whiteout(&mut self, name: &[u8]) -> Result<(), Fault> {
        let parent = |why: &str| Fault::Parent { entry: shown(name), why: why.to_owned() };
        let path = self.follow(&normalise(name)?, false).map_err(parent)?;
        self.remove_lower(&path, true);
        Ok(())
    }

    /// `.wh..wh..opq` of an OCI layer: what lower layers had in `dir` is gone.
    pub(crate) fn opaque(&mut self, dir: &[u8]) -> Result<(), Fault> {
        let parent = |why: &str| Fault::Parent { entry: shown(dir), why: why.to_owned() };
        let path = self.follow(&normalise(dir)?, true).map_err(parent)?;
        self.remove_lower(&path, false);
        Ok(())
    }

    /// Every name in order, parents first.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&[u8], usize, &Inode)> {
        self.names.iter().map(|(path, name)| (&path[..], name.inode, &*self.inodes[name.inode]))
    }

    /// Number of names.
    pub(crate) fn len(&self) -> usize {
        self.names.len()
    }

    /// Every name below `dir` (empty: the root), in order, parents first.
    pub(crate) fn below(&self, dir: &[u8]) -> impl Iterator<Item = (&[u8], usize, &Inode)> {
        use std::ops::Bound::{Excluded, Included, Unbounded};
        let [first, end] = [b'/', b'/' + 1].map(|c| [dir, &[c]].concat());
        let range = if dir.is_empty() {
            (Unbounded, Unbounded)
        } else {
            (Included(&first[..]), Excluded(&end[..]))
        };
        self.names
            .range::<[u8], _>(range)
            .map(|(path, name)| (&path[..], name.inode, &*self.inodes[name.inode]))
    }

    /// Names directly in `dir`.
    pub(crate) fn children(&self, dir: &[u8]) -> Vec<Vec<u8>> {
        let skip = if dir.is_empty() { 0 } else { dir.len() + 1 };
        self.below(dir)
            .filter(|(path, ..)| !path[skip..].contains(&b'/'))
            .map(|(path, ..)| path[skip..].to_vec())
            .collect()
    }

    /// What lies at `path` itself, links not followed.
    pub(crate) fn get(&self, path: &[u8]) -> Option<&Inode> {
        self.names.get(path).map(|name| &*self.inodes[name.inode])
    }

    /// The same, as [`Tree::iter`] has it.
    pub(crate) fn entry(&self, path: &[u8]) -> Option<(&[u8], usize, &Inode)> {
        let (path, name) = self.names.get_key_value(path)?;
        Some((path, name.inode, &self.inodes[name.inode]))
    }

    /// Where `path` leads once all links are followed, as in the booted system.
    pub(crate) fn resolve(&self, path: &[u8]) -> Option<(Vec<u8>, &Inode)> {
        let real = self.follow(path, true).ok()?;
        let inode = self.get(&real)?;
        Some((real, inode))
    }

    /// The path with links in its parents followed and missing parents made.
    fn place(&mut self, path: &[u8], shown_as: &[u8]) -> Result<Arc<[u8]>, Fault> {
        let parent = |why: &str| Fault::Parent { entry: shown(shown_as), why: why.to_owned() };
        let real = self.follow(path, false).map_err(parent)?;
        if real.is_empty() {
            return Err(parent("leads to the root itself"));
        }
        let ends = real.iter().enumerate().filter(|(_, c)| **c == b'/').map(|(at, _)| at);
        for end in ends.collect::<Vec<_>>() {
            match self.get(&real[..end]).map(|inode| &inode.kind) {
                Some(Kind::Dir) => {}
                Some(_) => {
                    let what = shown(&real[..end]);
                    return Err(parent(&format!("`{what}` above it is not a directory")));
                }
                None => {
                    let meta = Meta { mode: 0o755, ..Meta::default() };
                    let inode = Inode { meta, kind: Kind::Dir };
                    self.count(&real[..end], &inode, shown_as)?;
                    self.inodes.push(Arc::new(inode));
                    self.insert_name(real[..end].into(), self.inodes.len() - 1);
                }
            }
        }
        Ok(real.into())
    }

    /// Follows links: in all components, or in all but the last.
    fn follow(&self, path: &[u8], last_too: bool) -> Result<Vec<u8>, &'static str> {
        let mut todo: Vec<&[u8]> = path.split(|c| *c == b'/').rev().collect();
        let mut real: Vec<u8> = Vec::with_capacity(path.len());
        let mut links = 0;
        while let Some(part) = todo.pop() {
            match part {
                b"" | b"." => continue,
                b".." => {
                    let end = real.iter().rposition(|c| *c == b'/').unwrap_or(0);
                    real.truncate(end);
                    continue;
                }
                _ => {}
            }
            let before = real.len();
            if !real.is_empty() {
                real.push(b'/');
            }
            real.extend_from_slice(part);
            if real.len() > PATH_MAX {
                return Err("its path is too long once links are followed");
            }
            if todo.is_empty() && !last_too {
                break;
            }
            if let Some(Inode { kind: Kind::Symlink(target), .. }) = self.get(&real) {
                links += 1;
                if links > LINKS_MAX || todo.len() > PATH_MAX {
                    return Err("too many levels of symbolic links");
                }
                real.truncate(if target.first() == Some(&b'/') { 0 } else { before });
                todo.extend(target.split(|c| *c == b'/').rev());
            }
        }
        Ok(real)
    }

    fn link(&mut self, path: Arc<[u8]>, name: &[u8], target: &[u8]) -> Result<(), Fault> {
        let fault = |why| Fault::Link { entry: shown(name), target: shown(target), why };
        let wanted = normalise(target).map_err(|fault_of_target| match fault_of_target {
            Fault::Escape { .. } => fault("outside the image"),
            _ => fault("which is no file name"),
        })?;
        let real = self.follow(&wanted, false).map_err(fault)?;
        let Some(inode) = self.names.get(&real[..]).map(|name| name.inode) else {
            return Err(fault("which is not in the archive before it"));
        };
        if matches!(self.inodes[inode].kind, Kind::Dir) {
            return Err(fault("which is a directory"));
        }
        if *real == *path {
            return Ok(());
        }
        self.words += path.len() as u64 + 64;
        self.check(name)?;
        self.remove(&path);
        self.insert_name(path, inode);
        Ok(())
    }

    fn insert_name(&mut self, path: Arc<[u8]>, inode: usize) {
        self.names.insert(path, Name { inode, layer: self.layer });
    }

    /// Takes `path` and everything below it away.
    pub(crate) fn remove(&mut self, path: &[u8]) {
        let inside: Vec<Arc<[u8]>> = self.below(path).map(|(path, ..)| path.into()).collect();
        for path in inside {
            self.names.remove(&path);
        }
        self.names.remove(path);
    }

    /// Gives what is younger than `epoch` its time; what `below` has with the very time keeps it, or all of a
    /// young base would be in the layer above it once more.
    pub(crate) fn age(&mut self, epoch: u64, below: &Tree) {
        let young = |inode: &Inode| inode.meta.mtime > epoch;
        let mut aged = BTreeSet::new();
        for (path, number, inode) in self.iter().filter(|(.., inode)| young(inode)) {
            if below.get(path).is_none_or(|old| old.meta.mtime != inode.meta.mtime) {
                aged.insert(number);
            }
        }
        for number in aged {
            Arc::make_mut(&mut self.inodes[number]).meta.mtime = epoch;
        }
    }

    /// Takes one name away; what lies below it goes in its turn.
    pub(crate) fn forget(&mut self, path: &[u8]) {
        self.names.remove(path);
    }

    /// What lower layers put below `path`; directories that hold newer names stay.
    fn remove_lower(&mut self, path: &[u8], itself: bool) {
        let mut all: Vec<Arc<[u8]>> = self.below(path).map(|(path, ..)| path.into()).collect();
        if itself {
            all.insert(0, path.into());
        }
        // Children come after their parents, so going backwards a directory is empty in time.
        for path in all.into_iter().rev() {
            let lower = self.names.get(&path).is_some_and(|name| name.layer < self.layer);
            if lower && self.below(&path).next().is_none() {
                self.names.remove(&path);
            }
        }
    }

    fn count(&mut self, path: &[u8], inode: &Inode, name: &[u8]) -> Result<(), Fault> {
        let attrs: usize =
            inode.meta.xattrs.iter().map(|(key, value)| key.len() + value.len()).sum();
        let inner = match &inode.kind {
            Kind::Symlink(target) => target.len(),
            Kind::File(Content::Sparse { pieces, .. }) => pieces.len() * 40,
            _ => 0,
        };
        // 200: the maps' own share of a name, measured on a Debian root.
        self.words += (path.len() + attrs + inner) as u64 + 200;
        if let Kind::File(content) = &inode.kind {
            self.bytes = self.bytes.saturating_add(content.size());
        }
        self.check(name)
    }

    fn check(&self, name: &[u8]) -> Result<(), Fault> {
        let limits = &self.limits;
        let what = if self.bytes > limits.unpacked {
            format!("with `{}` its files have more than {} bytes", shown(name), limits.unpacked)
        } else if self.names.len() >= limits.entries {
            format!("more than {} entries", limits.entries)
        } else if self.words > limits.words {
            format!("names and attributes of more than {} bytes", limits.words)
        } else {
            return Ok(());
        };
        Err(Fault::TooLarge { what })
    }
}

/// A member's name as a path of the tree. A leading `/` is the image's own root, as for GNU tar;
/// `..` is refused even where it would stay inside: no honest archiver writes it.
pub(crate) fn normalise(name: &[u8]) -> Result<Vec<u8>, Fault> {
    let bad = |why| Fault::Name { entry: shown(name), why };
    let mut path = Vec::with_capacity(name.len());
    if name.contains(&0) {
        return Err(bad("it holds a NUL"));
    }
    for part in name.split(|c| *c == b'/') {
        match part {
            b"" | b"." => continue,
            b".." => return Err(Fault::Escape { entry: shown(name) }),
            _ if part.len() > NAME_MAX => return Err(bad("a part of it is over 255 bytes")),
            _ => {}
        }
        if !path.is_empty() {
            path.push(b'/');
        }
        path.extend_from_slice(part);
    }
    if path.len() > PATH_MAX {
        return Err(bad("it is over 4095 bytes"));
    }
    Ok(path)
}

#[cfg(test)]
mod tests;
