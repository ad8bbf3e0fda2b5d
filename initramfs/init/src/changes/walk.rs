//! The root, name by name. Unpacked into memory, all of its names are told, and more than the name only of what can
//! have changed; with an overlay, the upper directory holds all that changed, and whiteouts for what is gone.
//!
//! What is mounted elsewhere in the tree is no part of the root: `/proc`, data disks, a directory that shows
//! another one.

use std::collections::HashSet;
use std::ffi::{OsStr, OsString};
use std::fs::{self, File, Metadata, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::OFlags;
use sha2::{Digest, Sha256};

use super::nanoseconds;
use crate::wire::listing::{Entry, Kind, Node, Touched, What, Writer};

/// Files up to here are compared by their digest: what was touched may be what it was.
const HASHED_MAX: u64 = 16 << 20;
/// What a listing may take in memory, compressed.
const LISTING_MAX: usize = 64 << 20;
/// Names of which more than the name is told.
const NODES_MAX: usize = 2_000_000;
/// PATH_MAX: a longer one no system call takes.
const PATH_MAX: usize = 4095;
const LEVEL: i32 = 6;

/// Times of the root, in nanoseconds.
#[derive(Debug, Clone, Copy)]
pub struct Times {
    /// When the image's root was whole.
    pub made: i64,
    /// When we were done with it.
    pub settled: i64,
    /// When the system said that it is up; not said: when we were done.
    pub up: i64,
}

impl Times {
    fn touched(&self, meta: &Metadata) -> Touched {
        match nanoseconds(meta.ctime(), meta.ctime_nsec()) {
            ctime if ctime >= self.up => Touched::Since,
            ctime if ctime >= self.settled => Touched::Booted,
            ctime if ctime >= self.made => Touched::Settled,
            _ => Touched::Made,
        }
    }
}

/// What was told, compressed, and the names by number of which more than the name was.
#[derive(Debug)]
pub struct Told {
    pub listing: Vec<u8>,
    pub nodes: Vec<Vec<u8>>,
}

/// A root that is looked at.
#[derive(Debug)]
pub struct Walk {
    top: PathBuf,
    times: Times,
    mounts: HashSet<Vec<u8>>,
}

impl Walk {
    /// The root at `top`; `mounts` are paths in it at which something else is mounted.
    pub fn new(top: &Path, times: Times, mounts: HashSet<Vec<u8>>) -> Walk {
        Walk { top: top.to_owned(), times, mounts }
    }

    /// All names of a root that was unpacked.
    pub fn all(&self) -> io::Result<Told> {
        let mut gather = Gather::new()?;
        self.dir(&[], false, &mut gather)?;
        gather.end()
    }

    /// What an overlay's upper directory holds.
    pub fn above(&self, upper: &Path) -> io::Result<Told> {
        let mut gather = Gather::new()?;
        self.upper(upper, &[], &mut gather)?;
        gather.end()
    }

    /// `changed`: a directory above was touched since, so its names may be others' than they were.
    fn dir(&self, path: &[u8], changed: bool, gather: &mut Gather) -> io::Result<()> {
        for name in names(&self.place(path), &mut gather.unread) {
            let path = join(path, &name);
            if path.len() > PATH_MAX {
                gather.unread += 1;
                continue;
            }
            if self.mounts.contains(&path) {
                gather.put(path, What::Covered)?;
                continue;
            }
            let Some(meta) = self.stat(&path, gather) else { continue };
            let touched = self.times.touched(&meta);
            if touched == Touched::Made && !changed {
                gather.put(path.clone(), What::Same)?;
            } else {
                self.node(path.clone(), &meta, touched, false, gather)?;
            }
            if meta.is_dir() {
                let now = matches!(touched, Touched::Booted | Touched::Since);
                self.dir(&path, changed || now, gather)?;
            }
        }
        Ok(())
    }

    fn upper(&self, upper: &Path, path: &[u8], gather: &mut Gather) -> io::Result<()> {
        for name in names(upper, &mut gather.unread) {
            let path = join(path, &name);
            let upper = upper.join(OsStr::from_bytes(&name));
            if path.len() > PATH_MAX {
                gather.unread += 1;
                continue;
            }
            if self.mounts.contains(&path) {
                gather.put(path, What::Covered)?;
                continue;
            }
            let Ok(above) = fs::symlink_metadata(&upper) else {
                gather.unread += 1;
                continue;
            };
            if above.file_type().is_char_device() && above.rdev() == 0 {
                gather.put(path, What::Gone)?;
                continue;
            }
            // The merged one, whose bytes are all there even where only its owner was changed.
            let Some(meta) = self.stat(&path, gather) else { continue };
            let touched = match self.times.touched(&above) {
                Touched::Made => Touched::Settled,
                touched => touched,
            };
            let mark = |name| attribute(&upper, name).filter(|value| !value.is_empty());
            // A directory that was renamed shows another one of the image's: all of it is told.
            let moved = mark("trusted.overlay.redirect").is_some();
            let opaque = moved || mark("trusted.overlay.opaque").is_some_and(|value| value == b"y");
            self.node(path.clone(), &meta, touched, opaque && meta.is_dir(), gather)?;
            if meta.is_dir() && moved {
                self.dir(&path, true, gather)?;
            } else if meta.is_dir() {
                self.upper(&upper, &path, gather)?;
            }
        }
        Ok(())
    }

    fn stat(&self, path: &[u8], gather: &mut Gather) -> Option<Metadata> {
        match fs::symlink_metadata(self.place(path)) {
            Ok(meta) => Some(meta),
            // Gone since its directory was read: not there, as far as anybody can say.
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(_) => {
                gather.unread += 1;
                None
            }
        }
    }

    fn node(
        &self,
        path: Vec<u8>,
        meta: &Metadata,
        touched: Touched,
        opaque: bool,
        gather: &mut Gather,
    ) -> io::Result<()> {
        let place = self.place(&path);
        let device = meta.rdev();
        let (major, minor) = (rustix::fs::major(device), rustix::fs::minor(device));
        let is = meta.file_type();
        let kind = if is.is_dir() {
            Kind::Dir
        } else if is.is_file() {
            Kind::File(meta.len())
        } else if is.is_symlink() {
            match fs::read_link(&place) {
                Ok(target) => Kind::Symlink(target.into_os_string().into_vec()),
                Err(_) => {
                    gather.unread += 1;
                    return Ok(());
                }
            }
        } else if is.is_char_device() {
            Kind::Char(major, minor)
        } else if is.is_block_device() {
            Kind::Block(major, minor)
        } else if is.is_fifo() {
            Kind::Fifo
        } else {
            Kind::Socket
        };
        let hashed = touched != Touched::Made && meta.is_file() && meta.len() <= HASHED_MAX;
        let node = Node {
            mode: meta.mode() & 0o7777,
            uid: meta.uid(),
            gid: meta.gid(),
            mtime: meta.mtime(),
            inode: if meta.nlink() > 1 && !meta.is_dir() { meta.ino() } else { 0 },
            touched,
            opaque,
            sha256: if hashed { digest(&place).ok() } else { None },
            xattrs: attributes(&place),
            kind,
        };
        gather.put(path, What::Node(node))
    }

    fn place(&self, path: &[u8]) -> PathBuf {
        self.top.join(OsStr::from_bytes(path))
    }
}

struct Gather {
    writer: Writer,
    out: zstd::Encoder<'static, Vec<u8>>,
    nodes: Vec<Vec<u8>>,
    unread: u64,
}

impl Gather {
    fn new() -> io::Result<Gather> {
        let out = zstd::Encoder::new(Vec::new(), LEVEL)?;
        Ok(Gather { writer: Writer::default(), out, nodes: Vec::new(), unread: 0 })
    }

    fn put(&mut self, path: Vec<u8>, what: What) -> io::Result<()> {
        let entry = Entry { path, what };
        let mut bytes = Vec::new();
        self.writer.put(&entry, &mut bytes);
        self.out.write_all(&bytes)?;
        if matches!(entry.what, What::Node(_)) {
            self.nodes.push(entry.path);
        }
        if self.out.get_ref().len() > LISTING_MAX || self.nodes.len() > NODES_MAX {
            return Err(io::Error::other("more names have changed than can be told"));
        }
        Ok(())
    }

    fn end(mut self) -> io::Result<Told> {
        let mut bytes = Vec::new();
        self.writer.end(self.unread, &mut bytes);
        self.out.write_all(&bytes)?;
        Ok(Told { listing: self.out.finish()?, nodes: self.nodes })
    }
}

/// A regular file of the root, opened to be read and by no link.
pub fn open(top: &Path, path: &[u8]) -> io::Result<File> {
    open_at(&top.join(OsStr::from_bytes(path)))
}

fn open_at(place: &Path) -> io::Result<File> {
    let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK;
    let file =
        OpenOptions::new().read(true).custom_flags(flags.bits().cast_signed()).open(place)?;
    if !file.metadata()?.is_file() {
        return Err(io::Error::other("is no file"));
    }
    Ok(file)
}

fn digest(place: &Path) -> io::Result<[u8; 32]> {
    let mut file = open_at(place)?.take(HASHED_MAX + 1);
    let mut sum = Sha256::new();
    let mut bytes = vec![0; 64 * 1024];
    loop {
        match file.read(&mut bytes) {
            Ok(0) => return Ok(sum.finalize().into()),
            Ok(many) => sum.update(bytes.get(..many).unwrap_or_default()),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

fn names(dir: &Path, unread: &mut u64) -> Vec<Vec<u8>> {
    let mut names = Vec::new();
    match fs::read_dir(dir) {
        Ok(entries) => {
            for entry in entries {
                match entry {
                    Ok(entry) => names.push(entry.file_name().into_vec()),
                    Err(_) => *unread += 1,
                }
            }
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(_) => *unread += 1,
    }
    names.sort_unstable();
    names
}

fn join(dir: &[u8], name: &[u8]) -> Vec<u8> {
    match dir {
        [] => name.to_vec(),
        dir => [dir, b"/", name].concat(),
    }
}

/// overlayfs's own are its bookkeeping, and no file's.
fn attributes(place: &Path) -> Vec<(Vec<u8>, Vec<u8>)> {
    let mut list = vec![0_u8; 64 * 1024];
    let Ok(many) = rustix::fs::llistxattr(place, &mut list) else { return Vec::new() };
    let names = list.get(..many).unwrap_or_default().split(|byte| *byte == 0);
    let names = names.filter(|name| !name.is_empty() && !name.starts_with(b"trusted.overlay."));
    let mut found: Vec<(Vec<u8>, Vec<u8>)> = names
        .filter_map(|name| {
            let name = OsString::from_vec(name.to_vec());
            let value = attribute(place, &name)?;
            Some((name.into_vec(), value))
        })
        .collect();
    found.sort_unstable();
    found
}

fn attribute(place: &Path, name: impl rustix::path::Arg) -> Option<Vec<u8>> {
    let mut value = vec![0_u8; 64 * 1024];
    let many = rustix::fs::lgetxattr(place, name, &mut value).ok()?;
    value.truncate(many);
    Some(value)
}

/// Where something is mounted, relative to `/`, of `/proc/self/mountinfo` (proc(5)): the fifth field, with blanks
/// and backslashes as octal numbers.
pub fn mounts(mountinfo: &str) -> HashSet<Vec<u8>> {
    let point = |line: &str| Some(octal(line.split(' ').nth(4)?.strip_prefix('/')?));
    mountinfo.lines().filter_map(point).filter(|path| !path.is_empty()).collect()
}

fn octal(text: &str) -> Vec<u8> {
    let mut out = Vec::new();
    let mut rest = text.as_bytes();
    while let Some((first, more)) = rest.split_first() {
        let digits = more.get(..3).and_then(|digits| str::from_utf8(digits).ok());
        match (first, digits.and_then(|digits| u8::from_str_radix(digits, 8).ok())) {
            (b'\\', Some(byte)) => {
                out.push(byte);
                rest = more.get(3..).unwrap_or_default();
            }
            _ => {
                out.push(*first);
                rest = more;
            }
        }
    }
    out
}

#[cfg(test)]
mod tests;
