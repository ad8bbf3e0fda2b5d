//! The archive a kernel unpacks before it starts `/init`: newc, as a value.
//!
//! An initramfs is several archives laid end to end (microcode, the common one, a kernel's modules,
//! this boot's orders); the kernel unpacks them in order into one file system. What is built here
//! has sorted names, no clock and no inode numbers from a disk, so the same content is the same
//! bytes on every machine. Entries carry mtime 0 unless told otherwise: these bytes are named by
//! their digest, and an environment variable has no say in it.

use std::collections::{BTreeMap, HashMap};
use std::io::{Read, Write};

use ::cpio::newc::{self, ModeFileType, Reader as NewcReader};
use bytes::Bytes;

use crate::Error;
use crate::compress;

/// Kernels read names and link targets into one page.
const PATH_MAX: usize = 4096;
const TRAILER: &str = "TRAILER!!!";
const PERMISSIONS: u32 = 0o7777;
const TYPE_MASK: u32 = 0o170000;

/// A file system tree, sorted by name. Parents always exist.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Archive {
    entries: BTreeMap<String, Entry>,
}

/// One name's inode.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// What it is.
    pub kind: Kind,
    /// Permission bits, with set-uid, set-gid and sticky.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Seconds since 1970.
    pub mtime: u32,
}

/// Kinds of file an initramfs has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kind {
    /// A directory.
    Dir,
    /// A regular file.
    File(Bytes),
    /// A symbolic link and what it says.
    Symlink(String),
    /// A character device.
    CharDev {
        /// Major number.
        major: u32,
        /// Minor number.
        minor: u32,
    },
    /// A block device.
    BlockDev {
        /// Major number.
        major: u32,
        /// Minor number.
        minor: u32,
    },
}

impl Entry {
    /// A directory.
    pub fn dir(mode: u32) -> Self {
        Self::new(Kind::Dir, mode)
    }

    /// A regular file.
    pub fn file(mode: u32, data: impl Into<Bytes>) -> Self {
        Self::new(Kind::File(data.into()), mode)
    }

    /// A symbolic link.
    pub fn symlink(target: impl Into<String>) -> Self {
        Self::new(Kind::Symlink(target.into()), 0o777)
    }

    /// A character device.
    pub fn char_dev(mode: u32, major: u32, minor: u32) -> Self {
        Self::new(Kind::CharDev { major, minor }, mode)
    }

    /// A block device.
    pub fn block_dev(mode: u32, major: u32, minor: u32) -> Self {
        Self::new(Kind::BlockDev { major, minor }, mode)
    }

    /// The same, owned by somebody else than root.
    pub fn owned_by(self, uid: u32, gid: u32) -> Self {
        Self { uid, gid, ..self }
    }

    /// The same, with a time.
    pub fn at(self, mtime: u32) -> Self {
        Self { mtime, ..self }
    }

    fn new(kind: Kind, mode: u32) -> Self {
        Self { kind, mode: mode & PERMISSIONS, uid: 0, gid: 0, mtime: 0 }
    }
}

impl Archive {
    /// Nothing in it.
    pub fn new() -> Self {
        Self::default()
    }

    /// Puts an entry at `path`, with its parents where they are missing. A second entry of the
    /// same path replaces the first, as it would in the kernel.
    pub fn insert(&mut self, path: &str, entry: Entry) -> Result<(), Error> {
        let path = normal(path)?;
        check(&path, &entry)?;
        for (slash, _) in path.match_indices('/') {
            let parent = &path[..slash];
            match self.entries.get(parent).map(|entry| &entry.kind) {
                Some(Kind::Dir) => {}
                Some(_) => {
                    return Err(Error::Name { name: path, why: "a parent is not a directory" });
                }
                None => {
                    self.entries.insert(parent.to_owned(), Entry::dir(0o755));
                }
            }
        }
        if entry.kind != Kind::Dir && self.has_children(&path) {
            return Err(Error::Name { name: path, why: "it is a directory with files in it" });
        }
        self.entries.insert(path, entry);
        Ok(())
    }

    /// For names and contents written in this crate's own text.
    pub(crate) fn put(&mut self, path: &str, entry: Entry) {
        self.insert(path, entry).expect("names written in the source are sound");
    }

    /// The entry at a path.
    pub fn get(&self, path: &str) -> Option<&Entry> {
        self.entries.get(&normal(path).ok()?)
    }

    /// The content of a regular file.
    pub fn data(&self, path: &str) -> Option<&Bytes> {
        match &self.get(path)?.kind {
            Kind::File(data) => Some(data),
            _ => None,
        }
    }

    /// All entries, sorted by path; a directory comes before what is in it.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Entry)> {
        self.entries.iter().map(|(path, entry)| (path.as_str(), entry))
    }

    /// How many entries.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// As newc, a multiple of four bytes long, so that another segment may follow.
    pub fn to_bytes(&self) -> Bytes {
        let room: usize =
            self.iter().map(|(path, entry)| 120 + path.len() + data_of(entry).len()).sum();
        let mut out = Vec::with_capacity(room + 124);
        for (ino, (path, entry)) in (1..).zip(&self.entries) {
            let data = data_of(entry);
            let size = u32::try_from(data.len()).expect("insert refuses 4 GiB and more");
            let (file_type, rdev) = match entry.kind {
                Kind::Dir => (ModeFileType::Directory, (0, 0)),
                Kind::File(_) => (ModeFileType::Regular, (0, 0)),
                Kind::Symlink(_) => (ModeFileType::Symlink, (0, 0)),
                Kind::CharDev { major, minor } => (ModeFileType::Char, (major, minor)),
                Kind::BlockDev { major, minor } => (ModeFileType::Block, (major, minor)),
            };
            let mut writer = newc::Builder::new(path)
                .ino(ino)
                .mode(entry.mode & PERMISSIONS)
                .set_mode_file_type(file_type)
                .uid(entry.uid)
                .gid(entry.gid)
                .mtime(entry.mtime)
                .nlink(if entry.kind == Kind::Dir { 2 } else { 1 })
                .rdev_major(rdev.0)
                .rdev_minor(rdev.1)
                .write(&mut out, size);
            // One call with every byte the header promises: the crate says nothing of fewer.
            writer.write_all(data).expect("a Vec takes all of it");
            writer.finish().expect("a Vec takes all of it");
        }
        newc::trailer(&mut out).expect("a Vec takes all of it");
        compress::padded(out)
    }

    fn has_children(&self, path: &str) -> bool {
        let below = format!("{path}/");
        self.entries.range(below.clone()..).next().is_some_and(|(name, _)| name.starts_with(&below))
    }
}

/// Reads segments as the kernel would: one after the other with NULs between, plain, gzip or zstd,
/// a later entry replacing an earlier one. `limit` bounds the bytes after unpacking.
pub fn read(bytes: &[u8], limit: usize) -> Result<Archive, Error> {
    let mut reading = Reading { archive: Archive::new(), left: limit, limit };
    let mut rest = bytes;
    loop {
        rest = skip_nuls(rest);
        let at = bytes.len() - rest.len();
        match rest {
            [] => return Ok(reading.archive),
            [b'0', ..] => rest = reading.plain(rest, at)?,
            [0x1f, 0x8b, ..] | [0x28, 0xb5, 0x2f, 0xfd, ..] => {
                let (inner, after) = compress::unpack_front(rest, reading.left).map_err(|why| {
                    Error::Format { at, why: format!("{why} (limit {} bytes)", reading.left) }
                })?;
                let mut inside = inner.as_slice();
                while !inside.is_empty() {
                    let offset = inner.len() - inside.len();
                    inside = skip_nuls(reading.plain(inside, offset)?);
                }
                rest = after;
            }
            _ => {
                let why = format!("starts with {:02x?}", &rest[..rest.len().min(4)]);
                return Err(Error::Format { at, why });
            }
        }
    }
}

struct Reading {
    archive: Archive,
    left: usize,
    limit: usize,
}

impl Reading {
    /// One archive, up to and with its trailer; gives back what follows.
    fn plain<'a>(&mut self, bytes: &'a [u8], start: usize) -> Result<&'a [u8], Error> {
        // newc keeps the data of hard links with the last of them.
        let mut links: HashMap<(u32, u32, u32), Vec<String>> = HashMap::new();
        let mut rest = bytes;
        loop {
            let at = start + bytes.len() - rest.len();
            let wrong = |why: String| Error::Format { at, why };
            let mut reader = NewcReader::new(rest).map_err(|e| wrong(e.to_string()))?;
            if reader.entry().is_trailer() {
                // A trailer's own padding may be missing where something else cut the file.
                return Ok(reader.finish().unwrap_or_default());
            }
            let (header, size) = (reader.entry().clone(), reader.entry().file_size() as usize);
            if size > rest.len() {
                return Err(wrong(format!("{:?} is cut short", header.name())));
            }
            let cost = size + header.name().len() + 110;
            self.left = self.left.checked_sub(cost).ok_or_else(|| Error::TooLarge {
                what: "the archive".into(),
                limit: self.limit as u64,
            })?;
            let mut data = Vec::with_capacity(size);
            reader.read_to_end(&mut data).map_err(|e| wrong(e.to_string()))?;
            if data.len() != size {
                return Err(wrong(format!("{:?} is cut short", header.name())));
            }
            rest = reader.finish().map_err(|e| wrong(e.to_string()))?;
            if matches!(header.name(), "." | "/" | "./") {
                continue;
            }
            let kind = match header.mode() & TYPE_MASK {
                0o040000 => Kind::Dir,
                0o100000 => Kind::File(data.into()),
                0o120000 => Kind::Symlink(
                    String::from_utf8(data)
                        .map_err(|_| wrong(format!("target of {:?} is not text", header.name())))?,
                ),
                0o020000 => {
                    Kind::CharDev { major: header.rdev_major(), minor: header.rdev_minor() }
                }
                0o060000 => {
                    Kind::BlockDev { major: header.rdev_major(), minor: header.rdev_minor() }
                }
                other => return Err(wrong(format!("{:?} has type {other:o}", header.name()))),
            };
            let entry = Entry {
                kind,
                mode: header.mode() & PERMISSIONS,
                uid: header.uid(),
                gid: header.gid(),
                mtime: header.mtime(),
            };
            if header.nlink() > 1 && matches!(entry.kind, Kind::File(_)) {
                let inode = (header.ino(), header.dev_major(), header.dev_minor());
                let names = links.entry(inode).or_default();
                self.link(names, header.name(), entry)?;
            } else {
                self.archive.insert(header.name(), entry)?;
            }
        }
    }

    fn link(&mut self, names: &mut Vec<String>, name: &str, entry: Entry) -> Result<(), Error> {
        let name = normal(name)?;
        let empty = matches!(&entry.kind, Kind::File(data) if data.is_empty());
        let known = names.first().and_then(|first| self.archive.get(first).cloned());
        match known {
            // Before the data has come, this copies nothing and is mended when it does.
            Some(known) if empty => self.archive.insert(&name, known)?,
            _ => {
                for earlier in names.drain(..) {
                    self.archive.insert(&earlier, entry.clone())?;
                }
                self.archive.insert(&name, entry)?;
            }
        }
        names.push(name);
        Ok(())
    }
}

fn skip_nuls(bytes: &[u8]) -> &[u8] {
    let nuls = bytes.iter().take_while(|byte| **byte == 0).count();
    &bytes[nuls..]
}

fn data_of(entry: &Entry) -> &[u8] {
    match &entry.kind {
        Kind::File(data) => data,
        Kind::Symlink(target) => target.as_bytes(),
        Kind::Dir | Kind::CharDev { .. } | Kind::BlockDev { .. } => &[],
    }
}

/// `/a/./b//c` is `a/b/c`; what leaves the tree, or would end it early, is refused.
fn normal(path: &str) -> Result<String, Error> {
    let refuse = |why| Err(Error::Name { name: path.chars().take(200).collect(), why });
    if path.len() >= PATH_MAX {
        return refuse("longer than 4095 bytes");
    }
    if path.contains('\0') {
        return refuse("it holds a NUL");
    }
    let mut out = String::with_capacity(path.len());
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => return refuse("it climbs with `..`"),
            part => {
                if !out.is_empty() {
                    out.push('/');
                }
                out.push_str(part);
            }
        }
    }
    match out.as_str() {
        "" => refuse("it names nothing"),
        // The kernel takes this name, whatever its type, for the end of the archive.
        TRAILER => refuse("it is the archive's own end mark"),
        _ => Ok(out),
    }
}

fn check(name: &str, entry: &Entry) -> Result<(), Error> {
    let refuse = |why| Err(Error::Entry { name: name.to_owned(), why });
    match &entry.kind {
        Kind::File(data) if u32::try_from(data.len()).is_err() => {
            refuse("newc holds no file of 4 GiB or more")
        }
        Kind::Symlink(target) if target.is_empty() => refuse("a link to nothing"),
        Kind::Symlink(target) if target.contains('\0') => refuse("its target holds a NUL"),
        Kind::Symlink(target) if target.len() >= PATH_MAX => {
            refuse("its target is longer than 4095 bytes")
        }
        _ => Ok(()),
    }
}
