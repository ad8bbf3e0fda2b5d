//! A layer as one tar: the same bytes for the same tree, whatever it was read from.
//!
//! What is gone comes first, then what is there, sorted by path, parents first, so that whoever
//! unpacks it never meets a name before its directory; numeric owners only; whole seconds; pax
//! headers only where ustar has no room (long names, attributes, large numbers).

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read, Write};

use serde::{Deserialize, Serialize};

use crate::Digest;
use crate::digest::Hashing;
use crate::error::{Fault, shown};
use crate::import::Progress;
use crate::layer::{Delta, WHITEOUT};
use crate::tree::{Inode, Kind, Meta};

const BLOCK: usize = 512;
/// What the largest octal number of eleven digits can say.
const OCTAL_11: u64 = 0o77777777777;
const OCTAL_7: u64 = 0o7777777;
/// Memory is given in pages, and an inode with its name takes about this much of the kernel's.
const PAGE: u64 = 4096;
const INODE: u64 = 1024;

/// A layer as it will be served.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Packed {
    /// Of the compressed bytes.
    pub(crate) digest: Digest,
    pub(crate) size: u64,
    /// Of the tar itself (OCI's diff_id).
    pub(crate) diff_id: Digest,
    /// Bytes of memory once unpacked into a tmpfs.
    pub(crate) unpacked: u64,
    pub(crate) inodes: u64,
}

/// Writes a layer to `out`. The same layer gives the same bytes on any number of cores.
pub(crate) fn pack(
    layer: &Delta<'_>,
    level: i32,
    out: File,
    progress: &mut dyn FnMut(Progress),
) -> Result<(File, Packed), Fault> {
    let mut encoder = zstd::stream::write::Encoder::new(Hashing::new(out), level)?;
    // Always with workers, one at least: a frame made without any differs from one made with.
    let workers = std::thread::available_parallelism().map_or(1, |n| n.get().clamp(1, 16));
    encoder.multithread(workers as u32)?;
    let mut writer = Writer::new(io::BufWriter::with_capacity(1 << 18, encoder), progress);
    writer.layer(layer)?;
    let (unpacked, inodes) = (writer.unpacked, writer.inodes);
    let (buffered, diff_id, _) = writer.tar.finish();
    let encoder = buffered.into_inner().map_err(io::IntoInnerError::into_error)?;
    let (file, digest, size) = encoder.finish()?.finish();
    Ok((file, Packed { digest, size, diff_id, unpacked, inodes }))
}

/// What [`pack`] would say of the tar itself: diff_id, bytes of memory, inodes.
pub(crate) fn figures(
    layer: &Delta<'_>,
    progress: &mut dyn FnMut(Progress),
) -> Result<(Digest, u64, u64), Fault> {
    let mut writer = Writer::new(io::sink(), progress);
    writer.layer(layer)?;
    let (unpacked, inodes) = (writer.unpacked, writer.inodes);
    Ok((writer.tar.finish().1, unpacked, inodes))
}

/// A layer as a plain tar.
pub(crate) fn plain(layer: &Delta<'_>, out: File) -> Result<(), Fault> {
    Writer::new(io::BufWriter::with_capacity(1 << 18, out), &mut |_| ()).layer(layer)
}

struct Writer<'a, W> {
    tar: Hashing<W>,
    /// First name of each inode written.
    first: HashMap<usize, Vec<u8>>,
    unpacked: u64,
    inodes: u64,
    done: u64,
    progress: &'a mut dyn FnMut(Progress),
}

impl<'a, W: Write> Writer<'a, W> {
    fn new(out: W, progress: &'a mut dyn FnMut(Progress)) -> Writer<'a, W> {
        let (tar, first) = (Hashing::new(out), HashMap::new());
        Writer { tar, first, unpacked: 0, inodes: 0, done: 0, progress }
    }

    fn layer(&mut self, layer: &Delta<'_>) -> Result<(), Fault> {
        let size = |inode: &Inode| match &inode.kind {
            Kind::File(content) => content.size(),
            _ => 0,
        };
        let total = layer.entries.iter().map(|(.., inode)| size(inode)).sum();
        // The top itself, the same for all: a root made in a directory of mode 0700 would lock
        // out every service that does not run as root.
        let top = Inode { meta: Meta { mode: 0o755, ..Meta::default() }, kind: Kind::Dir };
        self.inode(b".", &top, total)?;
        let mark = Meta { mode: 0o644, ..Meta::default() };
        for path in &layer.gone {
            let at = path.iter().rposition(|c| *c == b'/').map_or(0, |cut| cut + 1);
            let name = [&path[..at], WHITEOUT, &path[at..]].concat();
            self.header(&name, b'0', &mark, b"", 0, (0, 0))?;
        }
        for (path, inode, node) in &layer.entries {
            if let Some(first) = self.first.get(inode) {
                let first = first.clone();
                self.header(path, b'1', &node.meta, &first, 0, (0, 0))?;
                continue;
            }
            self.first.insert(*inode, path.to_vec());
            self.inode(path, node, total)?;
        }
        self.end()
    }

    /// POSIX: two blocks of zeros; GNU tar and Go fill up to a record, we do not.
    fn end(&mut self) -> Result<(), Fault> {
        self.tar.write_all(&[0; 2 * BLOCK])?;
        self.tar.flush()?;
        Ok(())
    }

    fn inode(&mut self, path: &[u8], inode: &Inode, total: u64) -> Result<(), Fault> {
        let meta = &inode.meta;
        self.inodes += 1;
        self.unpacked += INODE;
        match &inode.kind {
            Kind::Dir => self.header(&[path, b"/"].concat(), b'5', meta, b"", 0, (0, 0))?,
            Kind::Symlink(target) => self.header(path, b'2', meta, target, 0, (0, 0))?,
            Kind::Char { major, minor } => {
                self.header(path, b'3', meta, b"", 0, (*major, *minor))?
            }
            Kind::Block { major, minor } => {
                self.header(path, b'4', meta, b"", 0, (*major, *minor))?
            }
            Kind::Fifo => self.header(path, b'6', meta, b"", 0, (0, 0))?,
            Kind::File(content) => {
                let size = content.size();
                self.header(path, b'0', meta, b"", size, (0, 0))?;
                self.unpacked += size.next_multiple_of(PAGE);
                let changed = |error: io::Error| match error.kind() {
                    io::ErrorKind::UnexpectedEof | io::ErrorKind::NotFound => {
                        Fault::Changed { entry: shown(path) }
                    }
                    _ => Fault::Io(error),
                };
                let mut reader = content.open().map_err(changed)?;
                let mut buf = vec![0u8; (1 << 17).min(size as usize)];
                let mut left = size;
                while left > 0 {
                    let want = buf.len().min(usize::try_from(left).unwrap_or(usize::MAX));
                    reader.read_exact(&mut buf[..want]).map_err(changed)?;
                    self.tar.write_all(&buf[..want])?;
                    left -= want as u64;
                    self.done += want as u64;
                    (self.progress)(Progress::Packing { done: self.done, total });
                }
                let padding = size.next_multiple_of(BLOCK as u64) - size;
                self.tar.write_all(&[0; BLOCK][..padding as usize])?;
            }
        }
        Ok(())
    }

    fn header(
        &mut self,
        path: &[u8],
        kind: u8,
        meta: &Meta,
        link: &[u8],
        size: u64,
        device: (u32, u32),
    ) -> Result<(), Fault> {
        self.tar.write_all(&header(path, kind, meta, link, size, device))?;
        Ok(())
    }
}

/// Overlayfs's mark of deletion, as a member of a tar.
pub(crate) fn mark(path: &[u8]) -> Vec<u8> {
    header(path, b'3', &Meta::default(), b"", 0, (0, 0))
}

/// The header of a member, with a pax header before it where ustar has no room.
fn header(
    path: &[u8],
    kind: u8,
    meta: &Meta,
    link: &[u8],
    size: u64,
    device: (u32, u32),
) -> Vec<u8> {
    let mut records = Vec::new();
    if path.len() > 100 {
        record(&mut records, b"path", path);
    }
    if link.len() > 100 {
        record(&mut records, b"linkpath", link);
    }
    if size > OCTAL_11 {
        record(&mut records, b"size", size.to_string().as_bytes());
    }
    for (key, id) in [(&b"uid"[..], meta.uid), (b"gid", meta.gid)] {
        if u64::from(id) > OCTAL_7 {
            record(&mut records, key, id.to_string().as_bytes());
        }
    }
    if kind != b'1' {
        for (name, value) in &meta.xattrs {
            record(&mut records, &[b"SCHILY.xattr.", &name[..]].concat(), value);
        }
    }
    let mut header = Vec::new();
    if !records.is_empty() {
        let plain = Meta { mode: 0o644, ..Meta::default() };
        header.extend(ustar(b"PaxHeader", b'x', &plain, b"", records.len() as u64, (0, 0)));
        records.resize(records.len().next_multiple_of(BLOCK), 0);
        header.extend(records);
    }
    header.extend(ustar(path, kind, meta, link, size, device));
    header
}

/// `LEN KEY=VALUE\n`, where LEN counts its own digits too.
fn record(records: &mut Vec<u8>, key: &[u8], value: &[u8]) {
    let rest = key.len() + value.len() + 3;
    let mut len = rest;
    while len != rest + len.to_string().len() {
        len = rest + len.to_string().len();
    }
    records.extend_from_slice(len.to_string().as_bytes());
    records.push(b' ');
    records.extend_from_slice(key);
    records.push(b'=');
    records.extend_from_slice(value);
    records.push(b'\n');
}

/// POSIX.1-1988. What does not fit is cut: a pax record before it says it in full.
fn ustar(
    path: &[u8],
    kind: u8,
    meta: &Meta,
    link: &[u8],
    size: u64,
    (major, minor): (u32, u32),
) -> [u8; BLOCK] {
    let mut block = [0u8; BLOCK];
    let mut put = |at: usize, most: usize, bytes: &[u8]| {
        let len = bytes.len().min(most);
        block[at..at + len].copy_from_slice(&bytes[..len]);
    };
    let octal = |value: u64, most: u64, digits: usize| {
        format!("{:0digits$o}", if value > most { 0 } else { value })
    };
    put(0, 100, path);
    put(100, 7, octal(u64::from(meta.mode), OCTAL_7, 7).as_bytes());
    put(108, 7, octal(u64::from(meta.uid), OCTAL_7, 7).as_bytes());
    put(116, 7, octal(u64::from(meta.gid), OCTAL_7, 7).as_bytes());
    put(124, 11, octal(size, OCTAL_11, 11).as_bytes());
    put(136, 11, octal(meta.mtime.min(OCTAL_11), OCTAL_11, 11).as_bytes());
    put(148, 8, b"        ");
    put(156, 1, &[kind]);
    put(157, 100, link);
    put(257, 8, b"ustar\x0000");
    put(329, 7, octal(u64::from(major), OCTAL_7, 7).as_bytes());
    put(337, 7, octal(u64::from(minor), OCTAL_7, 7).as_bytes());
    let sum: u64 = block.iter().map(|byte| u64::from(*byte)).sum();
    block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    block
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::content::Content;
    use crate::source::Limits;
    use crate::source::spool::spooled;
    use crate::tree::{Member, Tree};

    fn tree() -> Tree {
        let mut tree = Tree::new(Limits::default());
        let meta =
            Meta { mode: 0o4755, uid: 3_000_000, gid: 7, mtime: 1_700_000_000, ..Meta::default() };
        let xattrs = BTreeMap::from([(b"security.capability".to_vec(), b"\x01\0\0=".to_vec())]);
        let file = |bytes: &[u8]| Kind::File(Content::Span(spooled(bytes)));
        let long = "d/".repeat(60) + "end";
        let mut add = |name: &str, meta: &Meta, kind| {
            let inode = Inode { meta: meta.clone(), kind };
            tree.add(name.as_bytes(), Member::Inode(inode)).unwrap();
        };
        add("bin/ping", &Meta { xattrs, ..meta.clone() }, file(b"ping"));
        add(&long, &meta, file(&[7; 5000]));
        add("link", &meta, Kind::Symlink(long.as_bytes().into()));
        add("dev/sda", &meta, Kind::Block { major: 8, minor: 300 });
        tree.add(b"again", Member::HardLink(long.into_bytes())).unwrap();
        tree
    }

    fn packed() -> (Vec<u8>, Packed) {
        let out = tempfile::NamedTempFile::new().unwrap();
        let (tree, file) = (tree(), out.reopen().unwrap());
        let (_, packed) = pack(&Delta::whole(&tree), 3, file, &mut |_| ()).unwrap();
        (std::fs::read(out.path()).unwrap(), packed)
    }

    #[test]
    fn another_reader_finds_everything_in_order() {
        let (bytes, packed) = packed();
        assert_eq!((Digest::of(&bytes), bytes.len() as u64), (packed.digest, packed.size));
        let plain = zstd::decode_all(&bytes[..]).unwrap();
        assert_eq!(Digest::of(&plain), packed.diff_id);
        let mut archive = tar::Archive::new(&plain[..]);
        let mut names = Vec::new();
        for entry in archive.entries().unwrap() {
            let mut entry = entry.unwrap();
            let name = String::from_utf8(entry.path_bytes().into_owned()).unwrap();
            if name == "bin/ping" {
                let pax: Vec<_> = entry
                    .pax_extensions()
                    .unwrap()
                    .unwrap()
                    .map(|e| e.unwrap().key().unwrap().to_owned())
                    .collect();
                assert_eq!(pax, ["uid", "SCHILY.xattr.security.capability"]);
                assert_eq!(entry.header().mode().unwrap(), 0o4755);
                assert_eq!(entry.header().mtime().unwrap(), 1_700_000_000);
            }
            if entry.header().entry_type().is_hard_link() {
                assert_eq!(entry.link_name_bytes().unwrap()[..], b"again"[..]);
            }
            let mut content = Vec::new();
            entry.read_to_end(&mut content).unwrap();
            names.push((name, content.len()));
        }
        let ends = |end: &str| names.iter().position(|(name, _)| name.ends_with(end));
        assert_eq!(names[0].0, "./");
        // The first name in order is the file, later ones are links to it.
        assert_eq!(names[1], ("again".to_owned(), 5000));
        assert!(ends("d/end").is_some());
        let of_tar = (packed.diff_id, packed.unpacked, packed.inodes);
        assert_eq!(figures(&Delta::whole(&tree()), &mut |_| ()).unwrap(), of_tar);
    }

    #[test]
    fn memory_is_counted_in_pages_and_inodes() {
        let (_, packed) = packed();
        // ./ again bin bin/ping 60 × d, dev dev/sda link
        assert_eq!(packed.inodes, 4 + 60 + 3);
        assert_eq!(packed.unpacked, packed.inodes * INODE + 3 * PAGE);
    }

    #[test]
    fn the_same_tree_gives_the_same_bytes() {
        assert_eq!(packed().0, packed().0);
    }

    #[test]
    fn records_count_their_own_length() {
        for len in [1, 2, 86, 87, 88, 89, 90, 985, 986, 987, 988, 989, 990] {
            let mut records = Vec::new();
            record(&mut records, b"path", &vec![b'x'; len]);
            let said: usize = std::str::from_utf8(records.split(|c| *c == b' ').next().unwrap())
                .unwrap()
                .parse()
                .unwrap();
            assert_eq!(said, records.len(), "{len}");
        }
    }
}
