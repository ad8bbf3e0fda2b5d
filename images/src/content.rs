//! Where the bytes of a file lie while its tree is in memory: in a tar we can seek in, in the
//! spool of an unpacked one, or still in the directory being imported.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use rustix::fs::{Mode, OFlags, ResolveFlags};

/// A stretch of a file that can be read at any place.
#[derive(Debug, Clone)]
pub(crate) struct Span {
    pub(crate) file: Arc<File>,
    pub(crate) start: u64,
    pub(crate) len: u64,
}

impl Span {
    /// A whole file.
    pub(crate) fn whole(file: File) -> io::Result<Span> {
        let len = file.metadata()?.len();
        Ok(Span { file: Arc::new(file), start: 0, len })
    }

    /// A part of this one; `None` where it does not hold that much.
    pub(crate) fn part(&self, offset: u64, len: u64) -> Option<Span> {
        let end = offset.checked_add(len)?;
        (end <= self.len).then(|| Span { file: self.file.clone(), start: self.start + offset, len })
    }

    /// Fills `buf` from `offset` on, or says that the span ends before.
    pub(crate) fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        if offset.checked_add(buf.len() as u64).is_none_or(|end| end > self.len) {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.file.read_exact_at(buf, self.start + offset)
    }

    /// A reader over all of it.
    pub(crate) fn reader(&self) -> SpanReader {
        SpanReader { span: self.clone(), at: 0 }
    }
}

/// Reads a [`Span`] from its beginning.
pub(crate) struct SpanReader {
    span: Span,
    at: u64,
}

impl Read for SpanReader {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let left = self.span.len - self.at;
        let want = buf.len().min(usize::try_from(left).unwrap_or(usize::MAX));
        let got = self.span.file.read_at(&mut buf[..want], self.span.start + self.at)?;
        if got == 0 && want > 0 {
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the file became shorter"));
        }
        self.at += got as u64;
        Ok(got)
    }
}

/// The bytes of one regular file.
#[derive(Debug, Clone)]
pub(crate) enum Content {
    /// None.
    Empty,
    /// All in a row.
    Span(Span),
    /// With holes: (where in the file, which bytes), in ascending order, not overlapping.
    Sparse { size: u64, pieces: Vec<(u64, Span)> },
    /// On the host, below the directory being imported.
    Host { root: Arc<OwnedFd>, path: Box<[u8]>, size: u64 },
}

impl Content {
    /// Size as `stat` would say it.
    pub(crate) fn size(&self) -> u64 {
        match self {
            Content::Empty => 0,
            Content::Span(span) => span.len,
            Content::Sparse { size, .. } | Content::Host { size, .. } => *size,
        }
    }

    /// A reader that gives exactly [`Content::size`] bytes or an error.
    pub(crate) fn open(&self) -> io::Result<Box<dyn Read + '_>> {
        Ok(match self {
            Content::Empty => Box::new(io::empty()),
            Content::Span(span) => Box::new(span.reader()),
            Content::Sparse { size, pieces } => {
                Box::new(SparseReader { size: *size, pieces, at: 0 })
            }
            Content::Host { root, path, size } => {
                let file = open_beneath(root, path)?;
                Box::new(Span { file: Arc::new(file), start: 0, len: *size }.reader())
            }
        })
    }

    /// All bytes of a small file; an error above `most`.
    pub(crate) fn read(&self, most: u64) -> io::Result<Vec<u8>> {
        if self.size() > most {
            return Err(io::Error::new(io::ErrorKind::FileTooLarge, "larger than it may be"));
        }
        let mut bytes = Vec::with_capacity(self.size() as usize);
        self.open()?.read_to_end(&mut bytes)?;
        Ok(bytes)
    }
}

/// Opens a regular file below `root` for reading, never through a symbolic link.
fn open_beneath(root: &OwnedFd, path: &[u8]) -> io::Result<File> {
    let path = std::ffi::OsStr::from_bytes(path);
    // NONBLOCK: a file that became a FIFO since it was indexed must not hang the import.
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW | OFlags::NONBLOCK;
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
    let fd = rustix::fs::openat2(root, path, flags, Mode::empty(), resolve)?;
    let file = File::from(fd);
    if !file.metadata()?.is_file() {
        return Err(io::Error::other("is no longer a regular file"));
    }
    Ok(file)
}

struct SparseReader<'a> {
    size: u64,
    pieces: &'a [(u64, Span)],
    at: u64,
}

impl Read for SparseReader<'_> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        while self.pieces.first().is_some_and(|(begin, span)| begin + span.len <= self.at) {
            self.pieces = &self.pieces[1..];
        }
        let (begin, span) = match self.pieces.first() {
            Some((begin, span)) => (*begin, Some(span)),
            None => (self.size, None),
        };
        if let Some(span) = span.filter(|_| begin <= self.at) {
            let inside = self.at - begin;
            let want = buf.len().min(usize::try_from(span.len - inside).unwrap_or(usize::MAX));
            span.read_exact_at(&mut buf[..want], inside)?;
            self.at += want as u64;
            return Ok(want);
        }
        let want = buf.len().min(usize::try_from(begin - self.at).unwrap_or(usize::MAX));
        buf[..want].fill(0);
        self.at += want as u64;
        Ok(want)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn span(bytes: &[u8]) -> Span {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(bytes).unwrap();
        Span::whole(file).unwrap()
    }

    #[test]
    fn holes_read_as_zeros() {
        let data = span(b"abcdef");
        let pieces = vec![(2, data.part(0, 3).unwrap()), (7, data.part(3, 2).unwrap())];
        let content = Content::Sparse { size: 12, pieces };
        assert_eq!(content.read(99).unwrap(), b"\0\0abc\0\0de\0\0\0");
    }

    #[test]
    fn a_span_never_reads_past_its_end() {
        let data = span(b"abcdef");
        assert!(data.part(4, 3).is_none() && data.part(u64::MAX, 2).is_none());
        let part = data.part(1, 3).unwrap();
        assert_eq!(Content::Span(part.clone()).read(3).unwrap(), b"bcd");
        assert!(part.read_exact_at(&mut [0; 2], 2).is_err());
        let lying = Span { len: 99, ..data };
        assert!(Content::Span(lying).read(100).is_err());
    }
}
