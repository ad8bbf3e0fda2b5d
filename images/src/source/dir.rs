//! A directory that holds a root file system: walked by descriptors, links never followed, other
//! file systems mounted in it left out.

use std::collections::BTreeMap;
use std::collections::HashMap;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::Arc;

use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;

use crate::content::Content;
use crate::error::{Fault, shown};
use crate::import::Progress;
use crate::source::Reading;
use crate::source::untar::keep_xattr;
use crate::tree::{Inode, Kind, Member, Meta, Tree};

/// The directory as a tree; file contents stay where they are until they are packed.
pub(super) fn read(path: &Path, reading: &mut Reading<'_>) -> Result<Tree, Fault> {
    let mut tree = Tree::new(reading.limits);
    walk(&mut tree, path, false, reading)?;
    Ok(tree)
}

/// Lays the directory over a tree, all of it root's.
pub(super) fn overlay(
    tree: &mut Tree,
    path: &Path,
    reading: &mut Reading<'_>,
) -> Result<(), Fault> {
    walk(tree, path, true, reading)
}

fn walk(
    tree: &mut Tree,
    path: &Path,
    owned_by_root: bool,
    reading: &mut Reading<'_>,
) -> Result<(), Fault> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let root = Arc::new(rustix::fs::open(path, flags, Mode::empty()).map_err(io)?);
    let mut walk = Walk { tree, root: root.clone(), seen: HashMap::new(), owned_by_root, reading };
    walk.directory(root.as_fd(), &mut Vec::new())
}

struct Walk<'a, 'b> {
    tree: &'a mut Tree,
    root: Arc<OwnedFd>,
    owned_by_root: bool,
    /// First name of every inode with several.
    seen: HashMap<(u64, u64), Vec<u8>>,
    reading: &'a mut Reading<'b>,
}

impl Walk<'_, '_> {
    fn directory(&mut self, dir: BorrowedFd<'_>, path: &mut Vec<u8>) -> Result<(), Fault> {
        let mut names: Vec<Vec<u8>> = Vec::new();
        for entry in Dir::read_from(dir).map_err(io)? {
            let name = entry.map_err(io)?.file_name().to_bytes().to_vec();
            if name != b"." && name != b".." {
                names.push(name);
            }
        }
        names.sort_unstable();
        for name in names {
            let before = path.len();
            if before > 0 {
                path.push(b'/');
            }
            path.extend_from_slice(&name);
            self.entry(dir, &name, path)?;
            path.truncate(before);
        }
        Ok(())
    }

    fn entry(&mut self, dir: BorrowedFd<'_>, name: &[u8], path: &mut Vec<u8>) -> Result<(), Fault> {
        let os_name = std::ffi::OsStr::from_bytes(name);
        let stat = match rustix::fs::statat(dir, os_name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => stat,
            Err(Errno::NOENT) => return Err(Fault::Changed { entry: shown(path) }),
            Err(error) => return Err(io_at(path)(error)),
        };
        let kind = FileType::from_raw_mode(stat.st_mode);
        if kind != FileType::Directory && stat.st_nlink > 1 {
            let key = (stat.st_dev, stat.st_ino);
            if let Some(first) = self.seen.get(&key) {
                return self.tree.add(path, Member::HardLink(first.clone()));
            }
            self.seen.insert(key, path.clone());
        }
        let (major, minor) = (rustix::fs::major(stat.st_rdev), rustix::fs::minor(stat.st_rdev));
        let node = match kind {
            FileType::Directory => Kind::Dir,
            FileType::RegularFile if stat.st_size == 0 => Kind::File(Content::Empty),
            FileType::RegularFile => Kind::File(Content::Host {
                root: self.root.clone(),
                path: path.as_slice().into(),
                size: stat.st_size as u64,
            }),
            FileType::Symlink => {
                let target =
                    rustix::fs::readlinkat(dir, os_name, Vec::new()).map_err(io_at(path))?;
                Kind::Symlink(target.into_bytes().into_boxed_slice())
            }
            FileType::CharacterDevice => Kind::Char { major, minor },
            FileType::BlockDevice => Kind::Block { major, minor },
            FileType::Fifo => Kind::Fifo,
            // A socket's name means nothing once the process behind it is gone.
            _ => return Ok(()),
        };
        let meta = Meta {
            mode: stat.st_mode & 0o7777,
            uid: if self.owned_by_root { 0 } else { stat.st_uid },
            gid: if self.owned_by_root { 0 } else { stat.st_gid },
            mtime: u64::try_from(stat.st_mtime).unwrap_or(0),
            xattrs: xattrs(dir, name).map_err(io_at(path))?,
        };
        // An overlay brings files; the directories they go into are the tree's own.
        if !(self.owned_by_root && kind == FileType::Directory && self.tree.resolve(path).is_some())
        {
            self.tree.add(path, Member::Inode(Inode { meta, kind: node }))?;
        }
        if self.tree.len().is_multiple_of(1000) {
            (self.reading.progress)(Progress::Reading { entries: self.tree.len() as u64 });
        }
        if kind != FileType::Directory {
            return Ok(());
        }
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_XDEV;
        match rustix::fs::openat2(dir, os_name, flags, Mode::empty(), resolve) {
            Ok(below) => self.directory(below.as_fd(), path),
            // A mount point: /proc and friends of a chroot in use.
            Err(Errno::XDEV) => {
                let text = format!("/{} is a mount point: kept as an empty directory", shown(path));
                self.reading.warnings.push(text);
                Ok(())
            }
            Err(error) => Err(io_at(path)(error)),
        }
    }
}

/// Attributes that mean something on another machine.
fn xattrs(dir: BorrowedFd<'_>, name: &[u8]) -> Result<BTreeMap<Vec<u8>, Vec<u8>>, Errno> {
    let mut found = BTreeMap::new();
    // There is no llistxattrat before Linux 6.13; the descriptor keeps parents from moving.
    let mut path = format!("/proc/self/fd/{}/", dir.as_raw_fd()).into_bytes();
    path.extend_from_slice(name);
    let path = std::ffi::OsStr::from_bytes(&path);
    let mut list = vec![0u8; 4096];
    let len = loop {
        match rustix::fs::llistxattr(path, &mut list[..]) {
            Ok(len) => break len,
            Err(Errno::RANGE) if list.len() < 1 << 17 => list.resize(list.len() * 4, 0),
            // No attributes on this file system, or no /proc: then there is nothing to keep.
            Err(Errno::NOTSUP | Errno::NOENT) => return Ok(found),
            Err(error) => return Err(error),
        }
    };
    for key in list[..len].split(|c| *c == 0).filter(|key| keep_xattr(key)) {
        let mut value = vec![0u8; 1 << 16];
        match rustix::fs::lgetxattr(path, key, &mut value[..]) {
            Ok(len) => {
                value.truncate(len);
                found.insert(key.to_vec(), value);
            }
            Err(Errno::NODATA) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(found)
}

fn io(error: Errno) -> Fault {
    Fault::Io(error.into())
}

fn io_at(path: &[u8]) -> impl FnOnce(Errno) -> Fault {
    let name = shown(path);
    move |error| {
        let error = std::io::Error::from(error);
        Fault::Io(std::io::Error::new(error.kind(), format!("{name}: {error}")))
    }
}
