//! Strangers' tars: ustar, GNU and pax, read by seeking from header to header.
//!
//! Our own reader because it must give *where* the bytes of a file lie, hold bounded memory
//! whatever a header claims, take pax values with newlines in them (binary attributes have some)
//! and know the sparse formats GNU tar writes.

use std::collections::BTreeMap;

use crate::content::{Content, Span};
use crate::error::{Fault, shown};
use crate::source::header::{Header, Records, decimal, number, pax, until_nul};
use crate::source::sparse::{MAP_MAX, map_before, sparse};
use crate::tree::{Inode, Kind, Member, Meta};

const BLOCK: u64 = 512;
/// A GNU long name; PATH_MAX is 4096.
const LONG_NAME_MAX: u64 = 64 * 1024;
/// All records of one pax header: attributes of 64 KiB each, and some of them.
const PAX_MAX: u64 = 1 << 20;

/// One name of a tar.
#[derive(Debug)]
pub(crate) struct Entry {
    /// As the archive has it.
    pub(crate) name: Vec<u8>,
    pub(crate) member: Member,
}

/// Whether a tar must say where it ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    /// Two blocks of zeros: without them nobody can tell a tar from its first half.
    Marked,
    /// A digest over the whole tar was checked; some writers of layers leave the mark out.
    Digested,
}

/// Attributes that mean something on another machine: capabilities and users' own, but neither
/// the importing host's SELinux labels nor overlayfs's bookkeeping. ACLs go with the latter.
pub(crate) fn keep_xattr(name: &[u8]) -> bool {
    name.starts_with(b"user.")
        || name == b"security.capability"
        || (name.starts_with(b"trusted.") && !name.starts_with(b"trusted.overlay."))
}

/// Hands every member of the tar to `visit`, in order.
pub(crate) fn each(
    tar: &Span,
    end: End,
    visit: &mut dyn FnMut(Entry) -> Result<(), Fault>,
) -> Result<(), Fault> {
    let mut reader = Reader { tar, at: 0, global: BTreeMap::new(), next: Overrides::default() };
    loop {
        if reader.at == tar.len {
            return match end {
                End::Digested if !reader.next.any() => Ok(()),
                _ => Err(Fault::Cut { what: "the tar has no end mark".to_owned() }),
            };
        }
        let header = reader.header()?;
        if header.0.iter().all(|byte| *byte == 0) {
            return if reader.next.any() {
                Err(Fault::Cut { what: "a long name without its file".to_owned() })
            } else {
                Ok(())
            };
        }
        if let Some(entry) = reader.entry(&header)? {
            visit(entry)?;
        }
    }
}

/// Whether a block carries a header's checksum: all that old tars have for a magic number.
pub(super) fn has_checksum(block: &[u8; 512]) -> bool {
    Header(*block).checksum_holds()
}

/// What headers before the real one said about it.
#[derive(Default)]
struct Overrides {
    name: Option<Vec<u8>>,
    link: Option<Vec<u8>>,
    pax: Records,
}

impl Overrides {
    fn any(&self) -> bool {
        self.name.is_some() || self.link.is_some() || !self.pax.is_empty()
    }
}

struct Reader<'a> {
    tar: &'a Span,
    at: u64,
    global: Records,
    next: Overrides,
}

impl Reader<'_> {
    fn header(&mut self) -> Result<Header, Fault> {
        let mut block = [0u8; 512];
        if self.tar.len - self.at < BLOCK {
            return Err(Fault::Cut { what: format!("half a header at byte {}", self.at) });
        }
        self.tar.read_exact_at(&mut block, self.at)?;
        self.at += BLOCK;
        let header = Header(block);
        if header.0.iter().any(|byte| *byte != 0) && !header.checksum_holds() {
            return Err(self.malformed("no tar header (its checksum is wrong)"));
        }
        Ok(header)
    }

    fn malformed(&self, what: &str) -> Fault {
        Fault::Malformed { what: format!("at byte {} {what}", self.at.saturating_sub(BLOCK)) }
    }

    /// Passes over `size` bytes and their padding, and says where they were.
    fn skip(&mut self, size: u64, name: &[u8]) -> Result<Span, Fault> {
        let cut = || Fault::Cut { what: format!("in the middle of `{}`", shown(name)) };
        let data = self.tar.part(self.at, size).ok_or_else(cut)?;
        let padded = size.checked_next_multiple_of(BLOCK).ok_or_else(cut)?;
        // The last padding may be missing from a tar without an end mark.
        self.at = self.at.saturating_add(padded).min(self.tar.len);
        Ok(data)
    }

    fn small(&mut self, size: u64, most: u64, what: &str) -> Result<Vec<u8>, Fault> {
        if size > most {
            return Err(Fault::TooLarge { what: format!("{what} of {size} bytes") });
        }
        let span = self.skip(size, what.as_bytes())?;
        let mut bytes = vec![0; size as usize];
        span.read_exact_at(&mut bytes, 0)?;
        Ok(bytes)
    }

    /// The entry this header begins, or `None` if it was about the next one or about nothing.
    fn entry(&mut self, header: &Header) -> Result<Option<Entry>, Fault> {
        let size = number(header.field(124, 136))
            .ok_or_else(|| self.malformed("the size is no number"))?;
        match header.kind() {
            b'L' => {
                let name = self.small(size, LONG_NAME_MAX, "a long name")?;
                self.next.name = Some(until_nul(&name).to_vec());
                return Ok(None);
            }
            b'K' => {
                let link = self.small(size, LONG_NAME_MAX, "a long link")?;
                self.next.link = Some(until_nul(&link).to_vec());
                return Ok(None);
            }
            b'x' | b'X' => {
                let records = self.small(size, PAX_MAX, "a pax header")?;
                let records =
                    pax(&records).ok_or_else(|| self.malformed("a damaged pax header"))?;
                self.next.pax.extend(records);
                return Ok(None);
            }
            b'g' => {
                let records = self.small(size, PAX_MAX, "a global pax header")?;
                let records =
                    pax(&records).ok_or_else(|| self.malformed("a damaged pax header"))?;
                self.global.extend(records);
                let held: usize =
                    self.global.iter().map(|(key, value)| key.len() + value.len()).sum();
                if held as u64 > PAX_MAX {
                    return Err(Fault::TooLarge { what: "global pax records".to_owned() });
                }
                return Ok(None);
            }
            // GNU: volume label; Solaris: ACLs.
            b'V' | b'A' => {
                self.small(size, PAX_MAX, "a label")?;
                return Ok(None);
            }
            b'M' => {
                let what = "is one volume of several; join them first".to_owned();
                return Err(Fault::Unsupported { what });
            }
            _ => {}
        }
        let next = std::mem::take(&mut self.next);
        // An empty value takes a global record back (POSIX pax, "Keyword precedence").
        let mut records = self.global.clone();
        records.extend(next.pax);
        records.retain(|_, value| !value.is_empty());
        let name = records.remove(&b"path"[..]).or(next.name).unwrap_or_else(|| header.name());
        let link = records
            .remove(&b"linkpath"[..])
            .or(next.link)
            .unwrap_or_else(|| header.text(157, 257).to_vec());
        let size = match records.get(&b"size"[..]) {
            Some(text) => decimal(text).ok_or_else(|| self.malformed("a pax size is no number"))?,
            None => size,
        };
        let meta = self.meta(header, &records)?;
        let (name, kind) = match header.kind() {
            b'1' => return Ok(Some(Entry { name, member: Member::HardLink(link) })),
            b'2' => (name, Kind::Symlink(link.into_boxed_slice())),
            b'3' | b'4' => {
                let device =
                    |from, to| number(header.field(from, to)).and_then(|n| n.try_into().ok());
                let (Some(major), Some(minor)) = (device(329, 337), device(337, 345)) else {
                    return Err(self.malformed("a device number is no number"));
                };
                let character = header.kind() == b'3';
                (
                    name,
                    if character {
                        Kind::Char { major, minor }
                    } else {
                        Kind::Block { major, minor }
                    },
                )
            }
            b'5' => (name, Kind::Dir),
            b'6' => (name, Kind::Fifo),
            // GNU --incremental: a directory with a listing behind it.
            b'D' => {
                self.skip(size, &name)?;
                (name, Kind::Dir)
            }
            b'S' => {
                let content = self.old_sparse(header, size, &name)?;
                (name, Kind::File(content))
            }
            // Seventh Edition tars have no type for a directory.
            0 if name.ends_with(b"/") => (name, Kind::Dir),
            0 | b'0' | b'7' if records.keys().any(|key| key.starts_with(b"GNU.sparse.")) => {
                let (name, content) = self.pax_sparse(&records, size, name)?;
                (name, Kind::File(content))
            }
            0 | b'0' | b'7' => {
                let data = self.skip(size, &name)?;
                let content = if size == 0 { Content::Empty } else { Content::Span(data) };
                (name, Kind::File(content))
            }
            other => {
                let what = format!("an entry of unknown type {:?}", other as char);
                return Err(self.malformed(&what));
            }
        };
        Ok(Some(Entry { name, member: Member::Inode(Inode { meta, kind }) }))
    }

    fn meta(&self, header: &Header, records: &Records) -> Result<Meta, Fault> {
        let id = |key: &[u8], from, to| {
            let id = match records.get(key) {
                Some(text) => decimal(text),
                None => number(header.field(from, to)),
            };
            id.and_then(|id| u32::try_from(id).ok())
                .ok_or_else(|| self.malformed("an owner is no number"))
        };
        let mtime = match records.get(&b"mtime"[..]) {
            // Seconds with a fraction, perhaps negative.
            Some(text) => {
                decimal(text.split(|c| *c == b'.').next().unwrap_or_default()).unwrap_or(0)
            }
            None => number(header.field(136, 148)).unwrap_or(0),
        };
        let xattrs = records
            .iter()
            .filter_map(|(key, value)| {
                let name = key.strip_prefix(b"SCHILY.xattr.")?;
                keep_xattr(name).then(|| (name.to_vec(), value.clone()))
            })
            .collect();
        let mode = number(header.field(100, 108))
            .ok_or_else(|| self.malformed("the mode is no number"))?;
        Ok(Meta {
            mode: (mode & 0o7777) as u32,
            uid: id(b"uid", 108, 116)?,
            gid: id(b"gid", 116, 124)?,
            mtime,
            xattrs,
        })
    }

    /// GNU's own sparse format: a map in the header and in blocks after it.
    fn old_sparse(&mut self, header: &Header, size: u64, name: &[u8]) -> Result<Content, Fault> {
        let bad = |reader: &Self| reader.malformed("a damaged sparse map");
        let real = number(header.field(483, 495)).ok_or_else(|| bad(self))?;
        let mut map = Vec::new();
        let mut add = |bytes: &[u8]| -> Option<()> {
            for pair in bytes.chunks_exact(24).filter(|pair| pair[0] != 0 && pair[12] != 0) {
                map.push((number(&pair[..12])?, number(&pair[12..])?));
            }
            Some(())
        };
        add(header.field(386, 482)).ok_or_else(|| bad(self))?;
        let mut extended = header.0[482] != 0;
        let mut blocks = 0;
        while extended {
            let mut block = [0u8; 512];
            let more = self.skip(BLOCK, name)?;
            more.read_exact_at(&mut block, 0)?;
            add(&block[..504]).ok_or_else(|| bad(self))?;
            extended = block[504] != 0;
            blocks += 1;
            if blocks > MAP_MAX / BLOCK {
                return Err(Fault::TooLarge {
                    what: format!("the sparse map of `{}`", shown(name)),
                });
            }
        }
        let data = self.skip(size, name)?;
        sparse(&data, real, &map).ok_or_else(|| bad(self))
    }

    /// The sparse formats 0.1 (map in a record) and 1.0 (map before the data) of GNU tar's pax.
    fn pax_sparse(
        &mut self,
        records: &Records,
        size: u64,
        name: Vec<u8>,
    ) -> Result<(Vec<u8>, Content), Fault> {
        let get = |key: &str| records.get(format!("GNU.sparse.{key}").as_bytes());
        let name = get("name").cloned().unwrap_or(name);
        let data = self.skip(size, &name)?;
        let real = get("realsize").or_else(|| get("size")).and_then(|text| decimal(text));
        let content = match (get("major").map(|v| &v[..]), get("map"), real) {
            (Some(b"1"), _, Some(real)) => {
                let (map, begin) = map_before(&data)?;
                data.part(begin, data.len.saturating_sub(begin))
                    .and_then(|rest| sparse(&rest, real, &map))
            }
            (None, Some(map), Some(real)) => {
                let numbers: Option<Vec<u64>> = map.split(|c| *c == b',').map(decimal).collect();
                numbers.filter(|numbers| numbers.len() % 2 == 0).and_then(|numbers| {
                    let map: Vec<_> =
                        numbers.chunks_exact(2).map(|pair| (pair[0], pair[1])).collect();
                    sparse(&data, real, &map)
                })
            }
            _ => {
                let what = format!("`{}` is sparse in a format we do not read", shown(&name));
                return Err(Fault::Unsupported { what });
            }
        };
        let content = content.ok_or_else(|| self.malformed("a damaged sparse map"))?;
        Ok((name, content))
    }
}

#[cfg(test)]
mod tests;
