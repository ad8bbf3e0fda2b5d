//! The archive becomes a tree: members to files, inside one directory and nowhere else.
//!
//! Parents are walked one name at a time without following links, so neither `..`, nor an absolute
//! name, nor a link planted by an earlier member leads out. Bytes and members are bounded.
//!
//! Of a layer above others, `.wh.NAME` takes away what those have of that name, and what is of another kind
//! than before takes the place of all that was there (OCI image spec, layer.md, "Applying Changesets").

use std::collections::HashSet;
use std::fmt;
use std::io::{self, Read};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use rustix::fs::{
    self, AtFlags, FileType, Gid, Mode, OFlags, Timespec, Timestamps, Uid, XattrFlags,
};
use rustix::io::Errno;

use crate::root::remove::remove;
use crate::root::tape::{Entry, Kind, Tape, TapeError};
use crate::settle::intree;

/// Zeros in a row that are left out: fewer would not spare a page.
const HOLE_MIN: usize = 4096;
static ZEROS: [u8; 128 * 1024] = [0; 128 * 1024];

/// How much an archive may make.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Bytes in files.
    pub bytes: u64,
    /// Members.
    pub members: u64,
    /// Bytes of the archive, decompressed.
    pub archive: u64,
}

/// What an archive is unpacked onto.
#[derive(Debug, Clone, Copy)]
pub enum Onto<'a> {
    /// An empty directory.
    Nothing,
    /// The layers below this one.
    Layers,
    /// A whole root, whose links are followed as it will follow them, and whose directories stay as they are.
    Root(&'a intree::Tree),
}

/// What was made, by all archives of one root together.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Unpacked {
    /// Members of the archives.
    pub members: u64,
    /// Bytes in files, long runs of zeros left out, and those of files that are gone again.
    pub bytes: u64,
    /// Names of extended attributes that this kernel does not keep.
    pub lost: HashSet<String>,
}

/// Why a tree is not whole.
#[derive(Debug)]
pub enum UnpackError {
    /// The bytes stopped coming, or are no archive.
    Tape(TapeError),
    /// A member that is refused.
    Refused { path: String, why: &'static str },
    /// The file system does not take it.
    Disk { path: String, error: io::Error },
    /// Over one of the limits.
    TooMuch(&'static str),
}

/// Unpacks an archive into the directory `dir`, and counts on in `done`. Only root can give files away or
/// make devices; anybody else gets the tree without (tests).
pub fn unpack(
    archive: impl Read,
    dir: BorrowedFd<'_>,
    onto: Onto<'_>,
    limits: Limits,
    done: &mut Unpacked,
) -> Result<(), UnpackError> {
    let mut rest = Bounded { reader: archive, left: limits.archive };
    let mut tape = Tape::new(&mut rest);
    let mut tree = Tree {
        top: dir,
        onto,
        parent: None,
        directories: Vec::new(),
        root: rustix::process::geteuid().is_root(),
        done,
        limits,
    };
    while let Some(entry) = tape.next_entry().map_err(UnpackError::Tape)? {
        tree.done.members += 1;
        if tree.done.members > limits.members {
            return Err(UnpackError::TooMuch("members"));
        }
        tree.add(entry, &mut tape)?;
    }
    tree.finish()?;
    // What follows the end of the archive is zeros by rule; the digest covers it all the same.
    io::copy(&mut rest, &mut io::sink())
        .map_err(|error| UnpackError::Tape(TapeError::Io(error)))?;
    Ok(())
}

struct Tree<'a> {
    top: BorrowedFd<'a>,
    onto: Onto<'a>,
    /// The directory of the last member: its neighbours mostly follow it.
    parent: Option<(Vec<u8>, OwnedFd)>,
    /// Their modes and times are set last: a directory that is read-only, or whose time should
    /// stay, must take its content first.
    directories: Vec<(Vec<u8>, Entry)>,
    root: bool,
    done: &'a mut Unpacked,
    limits: Limits,
}

impl Tree<'_> {
    fn add(&mut self, entry: Entry, tape: &mut impl Read) -> Result<(), UnpackError> {
        let mut path = clean(&entry.path).map_err(|why| refused(&entry.path, why))?;
        if let Onto::Root(root) = self.onto {
            path = in_root(root, &path, matches!(entry.kind, Kind::Directory))?;
        }
        let Some((folder, name)) = split(&path) else {
            return match entry.kind {
                Kind::Directory => {
                    self.directories.push((path, entry));
                    Ok(())
                }
                _ => Err(refused(&entry.path, "it is a file where the root is")),
            };
        };
        let disk = |errno: Errno| UnpackError::Disk { path: show(&path), error: errno.into() };
        if let (Onto::Layers, Some(gone)) = (self.onto, name.strip_prefix(b".wh.")) {
            return self.white_out(folder, gone, &entry);
        }
        let parent = self.folder(folder)?;
        if matches!(entry.kind, Kind::Directory) {
            if let Onto::Root(_) = self.onto
                && open_directory(parent.as_fd(), name).is_ok()
            {
                self.parent = Some((folder.to_vec(), parent));
                return Ok(());
            }
            if self.make_directory(parent.as_fd(), name).map_err(disk)? {
                self.parent = None;
            } else {
                self.parent = Some((folder.to_vec(), parent));
            }
            self.directories.push((path, entry));
            return Ok(());
        }
        // The last member of a name is the one that counts, as with every tar.
        if let Onto::Root(_) = self.onto
            && open_directory(parent.as_fd(), name).is_ok()
        {
            return Err(refused(&entry.path, "the root has a directory there"));
        }
        self.clear(parent.as_fd(), name).map_err(disk)?;
        match &entry.kind {
            Kind::Directory => {}
            Kind::File { size, pieces } => {
                if *size > self.limits.bytes.max(1 << 40) {
                    return Err(UnpackError::TooMuch("bytes"));
                }
                let room = self.limits.bytes.saturating_sub(self.done.bytes);
                let flags = OFlags::WRONLY
                    | OFlags::CREATE
                    | OFlags::EXCL
                    | OFlags::NOFOLLOW
                    | OFlags::CLOEXEC;
                let file =
                    fs::openat(&parent, name, flags, Mode::RUSR | Mode::WUSR).map_err(disk)?;
                self.done.bytes += write_pieces(&file, *size, pieces, room, tape, &path)?;
                self.dress(parent.as_fd(), name, Some(file.as_fd()), &entry).map_err(disk)?;
            }
            Kind::Symlink(target) => {
                fs::symlinkat(target.as_slice(), &parent, name).map_err(disk)?;
                self.dress(parent.as_fd(), name, None, &entry).map_err(disk)?;
            }
            Kind::HardLink(target) => {
                let target = clean(target).map_err(|why| refused(&entry.path, why))?;
                let Some((folder, old)) = split(&target) else {
                    return Err(refused(&entry.path, "it is a link to the root"));
                };
                let from = self.folder(folder)?;
                fs::linkat(&from, old, &parent, name, AtFlags::empty()).map_err(disk)?;
            }
            Kind::Char(major, minor) => {
                self.node(
                    parent.as_fd(),
                    name,
                    FileType::CharacterDevice,
                    (*major, *minor),
                    &entry,
                )
                .map_err(disk)?;
            }
            Kind::Block(major, minor) => {
                self.node(parent.as_fd(), name, FileType::BlockDevice, (*major, *minor), &entry)
                    .map_err(disk)?;
            }
            Kind::Fifo => {
                self.node(parent.as_fd(), name, FileType::Fifo, (0, 0), &entry).map_err(disk)?
            }
        }
        self.parent = Some((folder.to_vec(), parent));
        Ok(())
    }

    /// What lower layers have of this name is gone. Where they have not even a directory for it, it was.
    fn white_out(&mut self, folder: &[u8], gone: &[u8], entry: &Entry) -> Result<(), UnpackError> {
        if gone.starts_with(b".wh.") {
            return Err(refused(&entry.path, "an opaque directory; import the image again"));
        }
        if matches!(gone, b"" | b"." | b"..") {
            return Err(refused(&entry.path, "it takes away no name"));
        }
        // The directory at hand may be one of those that go.
        self.parent = None;
        let disk =
            |errno: Errno| UnpackError::Disk { path: show(&entry.path), error: errno.into() };
        let mut here = open_directory(self.top, b".").map_err(disk)?;
        for name in folder.split(|&b| b == b'/').filter(|name| !name.is_empty()) {
            here = match open_directory(here.as_fd(), name) {
                Ok(next) => next,
                Err(Errno::NOENT) => return Ok(()),
                Err(Errno::LOOP | Errno::NOTDIR) => {
                    return Err(refused(&entry.path, "its way leads over a link or a file"));
                }
                Err(errno) => return Err(disk(errno)),
            };
        }
        self.clear(here.as_fd(), gone).map_err(disk)
    }

    /// Makes a directory or keeps the one there; says whether something else had to give way.
    fn make_directory(&mut self, parent: BorrowedFd<'_>, name: &[u8]) -> Result<bool, Errno> {
        match fs::mkdirat(parent, name, Mode::from_raw_mode(0o755)) {
            Ok(()) => return Ok(false),
            Err(Errno::EXIST) => {}
            Err(errno) => return Err(errno),
        }
        if open_directory(parent, name).is_ok() {
            return Ok(false);
        }
        self.clear(parent, name)?;
        fs::mkdirat(parent, name, Mode::from_raw_mode(0o755))?;
        Ok(true)
    }

    /// Makes room for a name.
    fn clear(&mut self, parent: BorrowedFd<'_>, name: &[u8]) -> Result<(), Errno> {
        if let Onto::Nothing = self.onto {
            match fs::unlinkat(parent, name, AtFlags::empty()) {
                Ok(()) | Err(Errno::NOENT) => return Ok(()),
                Err(Errno::ISDIR | Errno::PERM) => {}
                Err(errno) => return Err(errno),
            }
        }
        let mut freed = 0;
        let removed = remove(parent, name, &mut freed);
        self.done.bytes = self.done.bytes.saturating_sub(freed);
        removed
    }

    fn finish(&mut self) -> Result<(), UnpackError> {
        // Innermost first: setting a child's mode would touch nothing of the parent's, but a parent
        // made unreadable would bar the way of anybody but root.
        let mut directories = std::mem::take(&mut self.directories);
        directories.sort_by(|one, other| other.0.cmp(&one.0));
        // A name that came twice keeps its last entry: the sort is stable, the later stands behind.
        for at in 0..directories.len() {
            let (path, entry) = &directories[at];
            if directories.get(at + 1).is_some_and(|next| next.0 == *path) {
                continue;
            }
            let disk = |errno: Errno| UnpackError::Disk { path: show(path), error: errno.into() };
            let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let dir = match split(path) {
                None => fs::openat(self.top, ".", flags, Mode::empty()),
                Some((folder, name)) => {
                    fs::openat(self.folder(folder)?, name, flags, Mode::empty())
                }
            };
            match dir {
                Ok(dir) => {
                    if let Onto::Layers = self.onto {
                        undress(dir.as_fd(), entry);
                    }
                    self.dress(self.top, b".", Some(dir.as_fd()), entry).map_err(disk)?;
                }
                // Replaced by a later member.
                Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => {}
                Err(errno) => return Err(disk(errno)),
            }
        }
        Ok(())
    }

    /// Opens a directory below the top, making what is missing, following nothing.
    fn folder(&mut self, path: &[u8]) -> Result<OwnedFd, UnpackError> {
        if let Some((known, _)) = &self.parent
            && known == path
            && let Some((_, fd)) = self.parent.take()
        {
            return Ok(fd);
        }
        let disk = |errno: Errno| UnpackError::Disk { path: show(path), error: errno.into() };
        let mut here = open_directory(self.top, b".").map_err(disk)?;
        for name in path.split(|&b| b == b'/').filter(|name| !name.is_empty()) {
            let next = match open_directory(here.as_fd(), name) {
                Err(Errno::NOENT) => {
                    fs::mkdirat(&here, name, Mode::from_raw_mode(0o755)).map_err(disk)?;
                    open_directory(here.as_fd(), name)
                }
                other => other,
            };
            here = match next {
                Ok(next) => next,
                Err(Errno::LOOP | Errno::NOTDIR) => {
                    return Err(UnpackError::Refused {
                        path: show(path),
                        why: "its way leads over a link or a file",
                    });
                }
                Err(errno) => return Err(disk(errno)),
            };
        }
        Ok(here)
    }

    fn node(
        &mut self,
        parent: BorrowedFd<'_>,
        name: &[u8],
        kind: FileType,
        (major, minor): (u32, u32),
        entry: &Entry,
    ) -> Result<(), Errno> {
        if !self.root && kind != FileType::Fifo {
            return Ok(());
        }
        let mode = Mode::RUSR | Mode::WUSR;
        fs::mknodat(parent, name, kind, mode, fs::makedev(major, minor))?;
        self.dress(parent, name, None, entry)
    }

    /// Owner before attributes and mode: a change of owner clears capabilities and set-uid bits.
    fn dress(
        &mut self,
        parent: BorrowedFd<'_>,
        name: &[u8],
        open: Option<BorrowedFd<'_>>,
        entry: &Entry,
    ) -> Result<(), Errno> {
        let times = Timestamps {
            last_access: Timespec { tv_sec: entry.mtime.0, tv_nsec: entry.mtime.1.into() },
            last_modification: Timespec { tv_sec: entry.mtime.0, tv_nsec: entry.mtime.1.into() },
        };
        let (uid, gid) = (Some(Uid::from_raw(entry.uid)), Some(Gid::from_raw(entry.gid)));
        let mode = Mode::from_raw_mode(entry.mode);
        if let Some(fd) = open {
            if self.root {
                fs::fchown(fd, uid, gid)?;
            }
            for (key, value) in &entry.xattrs {
                let kept = fs::fsetxattr(fd, key.as_slice(), value, XattrFlags::empty());
                self.note(key, kept);
            }
            fs::fchmod(fd, mode)?;
            return fs::futimens(fd, &times);
        }
        if self.root {
            fs::chownat(parent, name, uid, gid, AtFlags::SYMLINK_NOFOLLOW)?;
        }
        if !entry.xattrs.is_empty() {
            // There is no setxattrat before Linux 6.13; through /proc the directory stays pinned.
            let mut path = format!("/proc/self/fd/{}/", parent.as_raw_fd()).into_bytes();
            path.extend_from_slice(name);
            for (key, value) in &entry.xattrs {
                let kept =
                    fs::lsetxattr(path.as_slice(), key.as_slice(), value, XattrFlags::empty());
                self.note(key, kept);
            }
        }
        if !matches!(entry.kind, Kind::Symlink(_)) {
            fs::chmodat(parent, name, mode, AtFlags::empty())?;
        }
        fs::utimensat(parent, name, &times, AtFlags::SYMLINK_NOFOLLOW)
    }

    /// tmpfs keeps `security.*` and `trusted.*`, and `user.*` only since Linux 6.6. A root with
    /// one attribute less still boots; it is said, not fatal.
    fn note(&mut self, key: &[u8], kept: Result<(), Errno>) {
        if kept.is_err() && self.done.lost.len() < 16 {
            self.done.lost.insert(show(key));
        }
    }
}

/// A directory of a lower layer loses the extended attributes that it has no more. Those that the kernel
/// gives by itself stay, whoever asks.
fn undress(dir: BorrowedFd<'_>, entry: &Entry) {
    let mut names = [0u8; 4096];
    let Ok(end) = fs::flistxattr(dir, &mut names) else { return };
    for name in names[..end].split(|&b| b == 0).filter(|name| !name.is_empty()) {
        if entry.xattrs.iter().all(|(kept, _)| kept != name) {
            let _ = fs::fremovexattr(dir, name);
        }
    }
}

/// Where a name lies in a root, its links read as the root will read them.
fn in_root(root: &intree::Tree, path: &[u8], follow_last: bool) -> Result<Vec<u8>, UnpackError> {
    let disk = |error: io::Error| UnpackError::Disk { path: show(path), error };
    let text = str::from_utf8(path).map_err(|_| refused(path, "its name is not UTF-8"))?;
    let place = root.place(text, follow_last).map_err(disk)?;
    let inner = place.strip_prefix(&root.0).map_err(|error| disk(io::Error::other(error)))?;
    Ok(inner.as_os_str().as_encoded_bytes().to_vec())
}

fn open_directory(parent: BorrowedFd<'_>, name: &[u8]) -> Result<OwnedFd, Errno> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    fs::openat(parent, name, flags, Mode::empty())
}

/// Writes at most `room` bytes, and says how many. Zeros that nothing needs to be written for become
/// holes: a file of many gigabytes of them, as databases make, takes no memory.
fn write_pieces(
    file: &OwnedFd,
    size: u64,
    pieces: &[(u64, u64)],
    room: u64,
    tape: &mut impl Read,
    path: &[u8],
) -> Result<u64, UnpackError> {
    let disk = |error: io::Error| UnpackError::Disk { path: show(path), error };
    let mut buffer = vec![0; ZEROS.len()];
    let mut end = 0;
    let mut put = 0;
    for (offset, length) in pieces {
        let mut at = *offset;
        let mut left = *length;
        while left > 0 {
            let most = usize::try_from(left).unwrap_or(usize::MAX).min(buffer.len());
            let n = match tape.read(&mut buffer[..most]) {
                Ok(0) => {
                    return Err(UnpackError::Tape(TapeError::Bad("a cut in a file".to_owned())));
                }
                Ok(n) => n,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(UnpackError::Tape(TapeError::Io(error))),
            };
            left -= n as u64;
            let mut rest = &buffer[..n];
            if n >= HOLE_MIN && rest == &ZEROS[..n] {
                at += n as u64;
                continue;
            }
            put += n as u64;
            if put > room {
                return Err(UnpackError::TooMuch("bytes"));
            }
            while !rest.is_empty() {
                let written =
                    rustix::io::pwrite(file, rest, at).map_err(|errno| disk(errno.into()))?;
                rest = &rest[written..];
                at += written as u64;
                end = at;
            }
        }
    }
    if end != size {
        fs::ftruncate(file, size).map_err(|errno| disk(errno.into()))?;
    }
    Ok(put)
}

/// A member's name as a way below the top: `./usr//bin/` → `usr/bin`, `/etc` → `etc`.
fn clean(path: &[u8]) -> Result<Vec<u8>, &'static str> {
    let mut names: Vec<&[u8]> = Vec::new();
    if path.contains(&0) {
        return Err("its name holds a NUL");
    }
    for name in path.split(|&b| b == b'/') {
        match name {
            b"" | b"." => {}
            b".." => return Err("its name holds '..'"),
            name => names.push(name),
        }
    }
    Ok(names.join(&b'/'))
}

/// Directory and name; nothing for the top itself.
fn split(path: &[u8]) -> Option<(&[u8], &[u8])> {
    match path.iter().rposition(|&b| b == b'/') {
        Some(at) => Some((&path[..at], &path[at + 1..])),
        None if path.is_empty() => None,
        None => Some((b"", path)),
    }
}

fn refused(path: &[u8], why: &'static str) -> UnpackError {
    UnpackError::Refused { path: show(path), why }
}

fn show(path: &[u8]) -> String {
    String::from_utf8_lossy(path).into_owned()
}

struct Bounded<R> {
    reader: R,
    left: u64,
}

impl<R: Read> Read for Bounded<R> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let n = self.reader.read(into)?;
        self.left = self.left.checked_sub(n as u64).ok_or_else(|| {
            io::Error::new(
                io::ErrorKind::FileTooLarge,
                "the archive goes on for longer than its tmpfs could hold",
            )
        })?;
        Ok(n)
    }
}

impl fmt::Display for UnpackError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            UnpackError::Tape(error) => error.fmt(f),
            UnpackError::Refused { path, why } => {
                write!(f, "the archive's member {path:?} is refused: {why}")
            }
            UnpackError::Disk { path, error } => write!(f, "cannot write {path:?}: {error}"),
            UnpackError::TooMuch(what) => {
                write!(f, "the archive has more {what} than its tmpfs could hold")
            }
        }
    }
}

#[cfg(test)]
#[path = "unpack/tests.rs"]
mod tests;
