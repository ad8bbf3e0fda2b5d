//! Strangers' tars: ustar, GNU and pax, read by seeking from header to header.
//!
//! Our own reader because it must give *where* the bytes of a file lie, hold bounded memory
//! whatever a header claims, take pax values with newlines in them (binary attributes have some)
//! and know the sparse formats GNU tar writes.

use std::collections::BTreeMap;

use crate::content::{Content, Span};
use crate::error::{Fault, shown};
use crate::tree::{Inode, Kind, Member, Meta};

const BLOCK: u64 = 512;
/// A GNU long name; PATH_MAX is 4096.
const LONG_NAME_MAX: u64 = 64 * 1024;
/// All records of one pax header: attributes of 64 KiB each, and some of them.
const PAX_MAX: u64 = 1 << 20;
/// The map of a sparse file: a piece takes at least four bytes of it.
const MAP_MAX: u64 = 4 << 20;

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

type Records = BTreeMap<Vec<u8>, Vec<u8>>;

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

/// A header block: POSIX.1-1988 ustar, and GNU's use of the same bytes.
struct Header([u8; 512]);

impl Header {
    fn field(&self, from: usize, to: usize) -> &[u8] {
        &self.0[from..to]
    }

    fn text(&self, from: usize, to: usize) -> &[u8] {
        until_nul(&self.0[from..to])
    }

    fn kind(&self) -> u8 {
        self.0[156]
    }

    fn name(&self) -> Vec<u8> {
        let name = self.text(0, 100);
        // GNU's magic is `ustar  \0`, and it keeps times and sparse maps where ustar has a prefix.
        let prefix = self.text(345, 500);
        if self.field(257, 263) == b"ustar\0" && !prefix.is_empty() {
            return [prefix, b"/", name].concat();
        }
        name.to_vec()
    }

    fn checksum_holds(&self) -> bool {
        let Some(want) = number(self.field(148, 156)) else { return false };
        let outside = || self.0[..148].iter().chain(&self.0[156..]);
        let unsigned: u64 = outside().map(|byte| u64::from(*byte)).sum::<u64>() + 8 * 32;
        // Old Sun tars summed signed bytes.
        let signed: i64 = outside().map(|byte| i64::from(*byte as i8)).sum::<i64>() + 8 * 32;
        want == unsigned || i64::try_from(want) == Ok(signed)
    }
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

/// The decimal lines before the data of format 1.0, and where the data begin.
fn map_before(data: &Span) -> Result<(Vec<(u64, u64)>, u64), Fault> {
    let bad = || Fault::Malformed { what: "a damaged sparse map".to_owned() };
    let mut text = Vec::new();
    let mut numbers: Vec<u64> = Vec::new();
    let mut parsed = 0;
    loop {
        let at = text.len() as u64;
        if at >= MAP_MAX {
            return Err(Fault::TooLarge { what: "a sparse map".to_owned() });
        }
        text.resize(text.len() + 512, 0);
        data.read_exact_at(&mut text[at as usize..], at).map_err(|_| bad())?;
        while let Some(len) = text[parsed..].iter().position(|c| *c == b'\n') {
            numbers.push(decimal(&text[parsed..parsed + len]).ok_or_else(bad)?);
            parsed += len + 1;
            let want = numbers[0].checked_mul(2).and_then(|n| n.checked_add(1)).ok_or_else(bad)?;
            if numbers.len() as u64 == want {
                let map = numbers[1..].chunks_exact(2).map(|pair| (pair[0], pair[1])).collect();
                return Ok((map, text.len() as u64));
            }
        }
    }
}

/// Pieces in a row in `data`, each at its place in a file of `real` bytes.
fn sparse(data: &Span, real: u64, map: &[(u64, u64)]) -> Option<Content> {
    let mut pieces = Vec::new();
    let (mut taken, mut end) = (0u64, 0u64);
    for &(begin, len) in map {
        if begin < end {
            return None;
        }
        end = begin.checked_add(len)?;
        if end > real {
            return None;
        }
        if len > 0 {
            pieces.push((begin, data.part(taken, len)?));
        }
        taken += len;
    }
    Some(if real == 0 { Content::Empty } else { Content::Sparse { size: real, pieces } })
}

/// `LEN KEY=VALUE\n`, LEN counting all of it.
fn pax(mut bytes: &[u8]) -> Option<Records> {
    let mut records = Records::new();
    while !bytes.is_empty() && bytes[0] != 0 {
        let space = bytes.iter().take(20).position(|c| *c == b' ')?;
        let len = usize::try_from(decimal(&bytes[..space])?).ok()?;
        let record = bytes.get(space + 1..len)?.strip_suffix(b"\n")?;
        let equals = record.iter().position(|c| *c == b'=')?;
        records.insert(record[..equals].to_vec(), record[equals + 1..].to_vec());
        bytes = &bytes[len..];
    }
    Some(records)
}

/// Octal between blanks and NULs, or GNU's base 256 for what octal cannot hold.
fn number(field: &[u8]) -> Option<u64> {
    if field[0] == 0x80 {
        return field[1..]
            .iter()
            .try_fold(0u64, |value, byte| Some(value.checked_mul(256)? + u64::from(*byte)));
    }
    let digits = field.trim_ascii_start();
    let end = digits.iter().position(|c| *c == 0 || *c == b' ').unwrap_or(digits.len());
    digits[..end].iter().try_fold(0u64, |value, digit| {
        let digit = (*digit as char).to_digit(8)?;
        value.checked_mul(8)?.checked_add(u64::from(digit))
    })
}

fn decimal(text: &[u8]) -> Option<u64> {
    if text.is_empty() || !text.iter().all(u8::is_ascii_digit) {
        return None;
    }
    std::str::from_utf8(text).ok()?.parse().ok()
}

fn until_nul(field: &[u8]) -> &[u8] {
    &field[..field.iter().position(|c| *c == 0).unwrap_or(field.len())]
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::source::spool::spooled;

    fn list(bytes: &[u8], end: End) -> Result<Vec<(String, u64)>, Fault> {
        let mut names = Vec::new();
        each(&spooled(bytes), end, &mut |entry| {
            let size = match &entry.member {
                Member::Inode(Inode { kind: Kind::File(content), .. }) => {
                    assert_eq!(content.read(1 << 20)?.len() as u64, content.size());
                    content.size()
                }
                _ => 0,
            };
            names.push((String::from_utf8_lossy(&entry.name).into_owned(), size));
            Ok(())
        })?;
        Ok(names)
    }

    fn sample() -> Vec<u8> {
        let mut builder = tar::Builder::new(Vec::new());
        let mut header = tar::Header::new_gnu();
        header.set_size(5);
        header.set_mode(0o644);
        header.set_cksum();
        builder.append_data(&mut header.clone(), "etc/hello", &b"hello"[..]).unwrap();
        builder.append_data(&mut header.clone(), "x/".repeat(80) + "long", &b"world"[..]).unwrap();
        builder.append_pax_extensions([("SCHILY.xattr.user.x", &b"a\nb"[..])]).unwrap();
        builder.append_data(&mut header, "attr", &b"12345"[..]).unwrap();
        builder.into_inner().unwrap()
    }

    #[test]
    fn a_tar_of_another_writer_reads_as_written() {
        let names = list(&sample(), End::Marked).unwrap();
        assert_eq!(names[0], ("etc/hello".to_owned(), 5));
        assert_eq!(names[1], ("x/".repeat(80) + "long", 5));
        assert_eq!(names[2], ("attr".to_owned(), 5));
    }

    #[test]
    fn a_tar_cut_anywhere_is_refused() {
        let whole = sample();
        let end = whole.len() - 1024;
        for cut in (0..end).step_by(7).chain([end, 512, 1024, end - 1]) {
            let error = list(&whole[..cut], End::Marked).expect_err("a cut tar");
            assert!(matches!(error, Fault::Cut { .. }), "{cut}: {error}");
        }
        assert!(list(&whole[..end], End::Digested).is_ok());
        assert!(list(&whole[..end + 512], End::Marked).is_ok());
    }

    #[test]
    fn numbers_as_tars_write_them() {
        for (field, value) in [
            (&b"0000644\0"[..], Some(0o644)),
            (b"   644 \0", Some(0o644)),
            (b"\0\0\0\0", Some(0)),
            (b"    ", Some(0)),
            (b"77777777777\0", Some(0o77777777777)),
            (b"\x80\0\0\0\0\0\0\x01\0\0\0\0", Some(1 << 32)),
            (b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff", None),
            (b"\x80\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff", None),
            (b"99", None),
            (b"-1", None),
        ] {
            assert_eq!(number(field), value, "{field:?}");
        }
    }

    #[test]
    fn pax_records_hold_newlines_and_lies_are_seen() {
        let records = pax(b"12 path=a\nb\n6 a=b\n").unwrap();
        assert_eq!(records[&b"path"[..]], b"a\nb");
        for bad in [
            &b"13 path=a\nb\n"[..],
            b"5 a\n",
            b"99999999999999999999999 a=b\n",
            b"0 a=b\n",
            b"2 a=b\n",
        ] {
            assert!(pax(bad).is_none(), "{bad:?}");
        }
    }

    #[test]
    fn sparse_maps_that_lie_are_refused() {
        let data = spooled(b"abcdef");
        assert!(sparse(&data, 10, &[(0, 3), (5, 3), (10, 0)]).is_some());
        for map in [
            &[(0, 3), (2, 3)][..],
            &[(0, 7)],
            &[(8, 3)],
            &[(u64::MAX, 2)],
            &[(0, 4), (5, 4)],
            &[(5, 1), (0, 1)],
        ] {
            assert!(sparse(&data, 10, map).is_none(), "{map:?}");
        }
    }

    proptest! {
        #[test]
        fn bent_tars_never_panic(
            edits in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8),
            fix in any::<bool>(),
        ) {
            let mut bytes = sample();
            for (at, byte) in edits {
                let at = at.index(bytes.len());
                bytes[at] = byte;
                if fix {
                    let block = at / 512 * 512;
                    let mut header = tar::Header::new_old();
                    header.as_mut_bytes().copy_from_slice(&bytes[block..block + 512]);
                    header.set_cksum();
                    bytes[block..block + 512].copy_from_slice(header.as_bytes());
                }
            }
            let _ = list(&bytes, End::Marked);
        }

        #[test]
        fn pax_of_any_bytes_never_panics(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = pax(&bytes);
        }
    }
}
