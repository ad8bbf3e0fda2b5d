//! The archive of the root, read as it streams by: ustar with GNU and PAX extensions.
//!
//! Header fields are the `tar` crate's; the walk is ours, because a name, a PAX header or a sparse
//! map of any size the archive cares to claim would otherwise be taken into the memory of PID 1.

use std::fmt;
use std::io::{self, Read};

use tar::{GnuExtSparseHeader, Header};

const BLOCK: usize = 512;
/// The longest GNU name or PAX header taken: PATH_MAX is 4 KiB, an xattr at most 64 KiB.
const EXTENSION_MAX: u64 = 1 << 20;
const HOLES_MAX: usize = 1 << 16;

/// One member of the archive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// As written: not yet looked at for `..`.
    pub path: Vec<u8>,
    /// What it is.
    pub kind: Kind,
    /// Permission bits.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Seconds and nanoseconds.
    pub mtime: (i64, u32),
    /// Extended attributes (`SCHILY.xattr.`).
    pub xattrs: Vec<(Vec<u8>, Vec<u8>)>,
}

/// What a member is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kind {
    /// Of `size` bytes, in pieces of (offset, length) that follow each other in the archive;
    /// what no piece covers is a hole.
    File { size: u64, pieces: Vec<(u64, u64)> },
    /// A directory.
    Directory,
    /// To a target as written.
    Symlink(Vec<u8>),
    /// To another member.
    HardLink(Vec<u8>),
    /// Character device.
    Char(u32, u32),
    /// Block device.
    Block(u32, u32),
    /// Named pipe.
    Fifo,
}

/// Why a tape cannot be read on.
#[derive(Debug)]
pub enum TapeError {
    /// The bytes stopped coming.
    Io(io::Error),
    /// The bytes are no archive of ours.
    Bad(String),
}

/// An archive in the course of being read. Between two entries, [`Read`] gives the bytes of the
/// first one's pieces.
#[derive(Debug)]
pub struct Tape<R> {
    reader: R,
    left: u64,
    padding: u64,
}

#[derive(Default)]
struct Extensions {
    path: Option<Vec<u8>>,
    link: Option<Vec<u8>>,
    size: Option<u64>,
    uid: Option<u32>,
    gid: Option<u32>,
    mtime: Option<(i64, u32)>,
    xattrs: Vec<(Vec<u8>, Vec<u8>)>,
}

impl<R: Read> Tape<R> {
    /// From the first block on.
    pub fn new(reader: R) -> Tape<R> {
        Tape { reader, left: 0, padding: 0 }
    }

    /// The next member, past whatever was not read of the last.
    pub fn next_entry(&mut self) -> Result<Option<Entry>, TapeError> {
        let mut extensions = Extensions::default();
        loop {
            self.skip()?;
            let mut block = [0; BLOCK];
            if !self.block(&mut block)? || block.iter().all(|&b| b == 0) {
                return Ok(None);
            }
            let header = Header::from_byte_slice(&block);
            let sum: u32 = block
                .iter()
                .enumerate()
                .map(|(at, &b)| u32::from(if (148..156).contains(&at) { b' ' } else { b }))
                .sum();
            if octal(&block[148..156]) != Some(sum.into()) {
                return bad("a header whose checksum is wrong");
            }
            let Some(size) = octal(&block[124..136]) else {
                return bad("a size that is no number");
            };
            match block[156] {
                b'L' => extensions.path = Some(terminated(self.extension(size)?)),
                b'K' => extensions.link = Some(terminated(self.extension(size)?)),
                b'x' => extensions.pax(&self.extension(size)?)?,
                // Comments of the whole archive: git writes its commit here.
                b'g' => self.expect(size),
                _ => return self.entry(header, extensions).map(Some),
            }
        }
    }

    fn entry(&mut self, header: &Header, more: Extensions) -> Result<Entry, TapeError> {
        let number = |from: usize, to: usize| {
            let number =
                octal(&header.as_bytes()[from..to]).and_then(|number| u32::try_from(number).ok());
            number.ok_or_else(|| TapeError::Bad(format!("a header with no number at {from}")))
        };
        let path = more.path.unwrap_or_else(|| header.path_bytes().into_owned());
        let link = more.link.or_else(|| header.link_name_bytes().map(|link| link.into_owned()));
        let link = link.unwrap_or_default();
        let Some(size) = more.size.or_else(|| octal(&header.as_bytes()[124..136])) else {
            return bad("a size that is no number");
        };
        let device = || Ok((number(329, 337)?, number(337, 345)?));
        let kind = match header.as_bytes()[156] {
            // Before POSIX, a directory was a file whose name ends so.
            b'\0' | b'0' | b'7' if path.ends_with(b"/") => Kind::Directory,
            b'\0' | b'0' | b'7' => Kind::File { size, pieces: vec![(0, size)] },
            b'1' => Kind::HardLink(link),
            b'2' => Kind::Symlink(link),
            b'3' => device().map(|(major, minor)| Kind::Char(major, minor))?,
            b'4' => device().map(|(major, minor)| Kind::Block(major, minor))?,
            b'5' => Kind::Directory,
            b'6' => Kind::Fifo,
            b'S' => self.sparse(header, size)?,
            other => return bad(format!("a member of type {:?}", char::from(other))),
        };
        // As GNU tar reads it: a hard link may name the size of its file, and has no bytes of its own.
        self.expect(if matches!(kind, Kind::HardLink(_)) { 0 } else { size });
        Ok(Entry {
            path,
            kind,
            mode: number(100, 108)? & 0o7777,
            uid: more.uid.map_or_else(|| number(108, 116), Ok)?,
            gid: more.gid.map_or_else(|| number(116, 124), Ok)?,
            // A date before 1970 is no reason to refuse a file.
            mtime: more.mtime.unwrap_or_else(|| {
                let seconds =
                    octal(&header.as_bytes()[136..148]).and_then(|time| time.try_into().ok());
                (seconds.unwrap_or(0), 0)
            }),
            xattrs: more.xattrs,
        })
    }

    /// GNU's old sparse map: four pieces in the header, more in blocks behind it.
    fn sparse(&mut self, header: &Header, stored: u64) -> Result<Kind, TapeError> {
        let Some(gnu) = header.as_gnu() else { return bad("a sparse file without its map") };
        let Some(real) = octal(&gnu.realsize) else { return bad("a sparse file without its size") };
        let mut pieces = Vec::new();
        let mut take = |map: &[tar::GnuSparseHeader]| -> Result<(), TapeError> {
            for piece in map.iter().filter(|piece| !piece.is_empty()) {
                match (piece.offset(), piece.length()) {
                    (Ok(offset), Ok(length)) if pieces.len() < HOLES_MAX => {
                        pieces.push((offset, length))
                    }
                    _ => return bad("a sparse file whose map cannot be read"),
                }
            }
            Ok(())
        };
        take(&gnu.sparse)?;
        let mut extended = gnu.is_extended();
        while extended {
            let mut more = GnuExtSparseHeader::new();
            if !self.block_into(more.as_mut_bytes())? {
                return bad("a sparse map that is cut");
            }
            take(more.sparse())?;
            extended = more.is_extended();
        }
        let mut end = 0u64;
        let mut sum = 0u64;
        for (offset, length) in &pieces {
            let after =
                offset.checked_add(*length).filter(|after| *offset >= end && *after <= real);
            let Some(after) = after else {
                return bad("a sparse file whose pieces overlap or lie outside");
            };
            end = after;
            sum += length;
        }
        if sum != stored {
            return bad("a sparse file whose pieces do not add up");
        }
        Ok(Kind::File { size: real, pieces })
    }

    fn extension(&mut self, size: u64) -> Result<Vec<u8>, TapeError> {
        if size > EXTENSION_MAX {
            return bad(format!("a name or PAX header of {size} bytes"));
        }
        self.expect(size);
        let mut bytes = Vec::new();
        self.read_to_end(&mut bytes).map_err(TapeError::Io)?;
        if bytes.len() as u64 != size {
            return bad("cut in a name or PAX header");
        }
        Ok(bytes)
    }

    fn expect(&mut self, size: u64) {
        self.left = size;
        self.padding = size.wrapping_neg() % BLOCK as u64;
    }

    fn skip(&mut self) -> Result<(), TapeError> {
        let skip = self.left.saturating_add(self.padding);
        let skipped =
            io::copy(&mut (&mut self.reader).take(skip), &mut io::sink()).map_err(TapeError::Io)?;
        self.expect(0);
        if skipped == skip { Ok(()) } else { bad("cut in a member") }
    }

    fn block(&mut self, block: &mut [u8; BLOCK]) -> Result<bool, TapeError> {
        self.block_into(block)
    }

    /// A whole block, or the end of the tape at its edge.
    fn block_into(&mut self, block: &mut [u8]) -> Result<bool, TapeError> {
        let mut have = 0;
        while have < block.len() {
            match self.reader.read(&mut block[have..]) {
                Ok(0) if have == 0 => return Ok(false),
                Ok(0) => return bad("cut in a header"),
                Ok(n) => have += n,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(TapeError::Io(error)),
            }
        }
        Ok(true)
    }
}

impl<R: Read> Read for Tape<R> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let most = usize::try_from(self.left).unwrap_or(usize::MAX).min(into.len());
        if most == 0 {
            return Ok(0);
        }
        let n = self.reader.read(&mut into[..most])?;
        self.left -= n as u64;
        Ok(n)
    }
}

impl Extensions {
    /// `LEN key=value\n`, LEN counting itself. Values may hold newlines: capabilities are binary.
    fn pax(&mut self, mut bytes: &[u8]) -> Result<(), TapeError> {
        while !bytes.is_empty() {
            let Some((key, value, rest)) = record(bytes) else {
                return bad("a PAX header that cannot be read");
            };
            bytes = rest;
            let text = || str::from_utf8(value).unwrap_or("");
            let numeric = |what: Option<u64>| {
                what.ok_or_else(|| TapeError::Bad("a PAX number that is none".into()))
            };
            let id =
                |text: &str| numeric(text.parse::<u32>().ok().map(u64::from)).map(|id| id as u32);
            match key {
                b"path" => self.path = Some(value.to_vec()),
                b"linkpath" => self.link = Some(value.to_vec()),
                b"size" => self.size = Some(numeric(text().parse().ok())?),
                b"uid" => self.uid = Some(id(text())?),
                b"gid" => self.gid = Some(id(text())?),
                b"mtime" => self.mtime = timestamp(text()),
                _ if key.starts_with(b"GNU.sparse.") => {
                    return bad("a sparse file in PAX form; pack it with --format=gnu");
                }
                _ => {
                    if let Some(name) = key.strip_prefix(b"SCHILY.xattr.") {
                        self.xattrs.push((name.to_vec(), value.to_vec()));
                    }
                }
            }
        }
        Ok(())
    }
}

/// Octal digits between blanks, or GNU's base 256 for what is larger. A field left blank is 0, as
/// old writers mean it (the `tar` crate's own accessors refuse it).
fn octal(field: &[u8]) -> Option<u64> {
    if field[0] & 0x80 != 0 {
        let (high, low) = field.split_at(field.len().saturating_sub(8));
        let positive =
            high.first().is_none_or(|&b| b == 0x80) && high.iter().skip(1).all(|&b| b == 0);
        // In a field of 8 bytes the mark shares the number's top byte.
        let value = low.iter().fold(0u64, |value, &b| (value << 8) | u64::from(b));
        return if high.is_empty() {
            Some(value & !(0x80 << 56))
        } else {
            positive.then_some(value)
        };
    }
    let end = field.iter().position(|&b| b == 0).unwrap_or(field.len());
    match str::from_utf8(&field[..end]).ok()?.trim() {
        "" => Some(0),
        digits => u64::from_str_radix(digits, 8).ok(),
    }
}

fn record(bytes: &[u8]) -> Option<(&[u8], &[u8], &[u8])> {
    let space = bytes.iter().take(8).position(|&b| b == b' ')?;
    let len: usize = str::from_utf8(&bytes[..space]).ok()?.parse().ok()?;
    let body = bytes.get(space + 1..len)?.strip_suffix(b"\n")?;
    let equals = body.iter().position(|&b| b == b'=')?;
    Some((&body[..equals], &body[equals + 1..], &bytes[len..]))
}

/// `1795000000.123456789`
fn timestamp(text: &str) -> Option<(i64, u32)> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let digits: String =
        fraction.bytes().take(9).filter(u8::is_ascii_digit).map(char::from).collect();
    Some((whole.parse().ok()?, format!("{digits:0<9}").parse().ok()?))
}

fn terminated(mut bytes: Vec<u8>) -> Vec<u8> {
    if let Some(end) = bytes.iter().position(|&b| b == 0) {
        bytes.truncate(end);
    }
    bytes
}

fn bad<T>(what: impl Into<String>) -> Result<T, TapeError> {
    Err(TapeError::Bad(what.into()))
}

impl fmt::Display for TapeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            TapeError::Io(error) => error.fmt(f),
            TapeError::Bad(what) => write!(f, "the archive has {what}"),
        }
    }
}

#[cfg(test)]
#[path = "tape/tests.rs"]
mod tests;
