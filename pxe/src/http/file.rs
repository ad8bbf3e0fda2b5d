//! Reading what is being served, for HTTP and TFTP alike, without a disk holding up everybody else.
//!
//! Three hundred machines of one role read the same few files, so nearly every read is answered
//! from the page cache: those are copied right here (`RWF_NOWAIT`), since a trip to another thread
//! costs more than the copy. Only a read that would wait for the disk goes to the blocking threads,
//! and brings the neighbourhood along.

use std::fs::{File, OpenOptions};
use std::io::{self, IoSliceMut};
use std::os::unix::fs::OpenOptionsExt;
use std::sync::Arc;

use bytes::Bytes;
use rustix::fs::OFlags;
use rustix::io::{Errno, ReadWriteFlags, preadv2};
use tokio::task::{JoinHandle, spawn_blocking};

use crate::content::Content;

/// Bytes one trip to the disk brings into the page cache.
const AHEAD: u64 = 512 * 1024;

/// Content opened for reading at any offset.
#[derive(Debug, Clone)]
pub(crate) enum Source {
    /// In memory.
    Bytes(Bytes),
    /// On disk.
    File {
        /// Open, so that it can be renamed over or unlinked meanwhile.
        file: Arc<File>,
        /// Its size when it was opened.
        size: u64,
        /// What has just been brought into the page cache: reads in here need not ask first. Some
        /// file systems (overlayfs, older tmpfs) cannot tell, and would send us to the disk for each.
        warm: std::ops::Range<u64>,
    },
}

impl Source {
    /// Opens it. One `open` and one `fstat`, which do not wait on a store in use.
    pub(crate) fn open(content: &Content) -> io::Result<Source> {
        match content {
            Content::Bytes(bytes) => Ok(Source::Bytes(bytes.clone())),
            Content::File { path, size } => {
                // A pipe in the place of a file would hold us up for ever.
                let nonblock = OFlags::NONBLOCK.bits().cast_signed();
                let file = OpenOptions::new().read(true).custom_flags(nonblock).open(&**path)?;
                let found = file.metadata()?;
                if !found.is_file() || found.len() != *size {
                    let found = found.len();
                    let why = format!("{}: {found} bytes, expected {size}", path.display());
                    return Err(io::Error::new(io::ErrorKind::InvalidData, why));
                }
                Ok(Source::File { file: Arc::new(file), size: *size, warm: 0..0 })
            }
        }
    }

    /// Size in bytes.
    pub(crate) fn size(&self) -> u64 {
        match self {
            Source::Bytes(bytes) => bytes.len() as u64,
            Source::File { size, .. } => *size,
        }
    }

    /// Fills the buffer from an offset. `false`: that would wait for a disk; `warm` first. A file
    /// that ends early is an error.
    pub(crate) fn fill(&self, offset: u64, buffer: &mut [u8]) -> io::Result<bool> {
        self.fill_all(offset, &mut [IoSliceMut::new(buffer)])
    }

    /// The same for buffers that are to be filled one after the other.
    pub(crate) fn fill_all(&self, offset: u64, buffers: &mut [IoSliceMut<'_>]) -> io::Result<bool> {
        let length = buffers.iter().map(|buffer| buffer.len()).sum::<usize>();
        match self {
            Source::Bytes(bytes) => {
                let start = usize::try_from(offset).unwrap_or(usize::MAX);
                let end = start.saturating_add(length);
                let mut from = bytes.get(start..end).ok_or_else(shrank)?;
                for buffer in buffers {
                    let (these, rest) = from.split_at(buffer.len());
                    buffer.copy_from_slice(these);
                    from = rest;
                }
                Ok(true)
            }
            Source::File { file, warm, .. } => {
                let end = offset + length as u64;
                let is_warm = warm.start <= offset && end <= warm.end;
                let flags = if is_warm { ReadWriteFlags::empty() } else { ReadWriteFlags::NOWAIT };
                read(file, offset, length, buffers, flags)
            }
        }
    }

    /// Brings what lies at and behind an offset into memory; hand the result to `warmed`.
    pub(crate) fn warm(&self, offset: u64) -> JoinHandle<io::Result<u64>> {
        let source = self.clone();
        spawn_blocking(move || {
            let end = source.size().min(offset.saturating_add(AHEAD));
            let Source::File { file, .. } = source else { return Ok(end) };
            let mut scratch = vec![0; 64 * 1024];
            let mut at = offset;
            while at < end {
                let length = (end - at).min(scratch.len() as u64) as usize;
                let into = &mut [IoSliceMut::new(&mut scratch[..length])];
                read(&file, at, length, into, ReadWriteFlags::empty())?;
                at += length as u64;
            }
            Ok(end)
        })
    }

    /// `warm` and `warmed` in one.
    pub(crate) async fn warm_up(&mut self, offset: u64) -> io::Result<()> {
        let end = self.warm(offset).await.map_err(io::Error::other)??;
        self.warmed(offset, end);
        Ok(())
    }

    /// `offset..end` is in the page cache.
    pub(crate) fn warmed(&mut self, offset: u64, end: u64) {
        if let Source::File { warm, .. } = self {
            *warm = offset..end;
        }
    }
}

fn read(
    file: &File,
    offset: u64,
    length: usize,
    mut buffers: &mut [IoSliceMut<'_>],
    flags: ReadWriteFlags,
) -> io::Result<bool> {
    let mut filled = 0;
    while filled < length {
        match preadv2(file, buffers, offset + filled as u64, flags) {
            Ok(0) => return Err(shrank()),
            Ok(count) => {
                filled += count;
                IoSliceMut::advance_slices(&mut buffers, count);
            }
            Err(Errno::INTR) => {}
            Err(Errno::AGAIN | Errno::OPNOTSUPP) if !flags.is_empty() => return Ok(false),
            Err(other) => return Err(other.into()),
        }
    }
    Ok(true)
}

fn shrank() -> io::Error {
    io::Error::new(io::ErrorKind::UnexpectedEof, "the file ends before its size says")
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn content(path: &std::path::Path, size: u64) -> Content {
        Content::File { path: Arc::new(path.to_path_buf()), size }
    }

    #[tokio::test]
    async fn a_file_is_read_at_any_offset_warm_or_not() {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        let bytes: Vec<u8> = (0..700_000u32).map(|at| (at / 7) as u8).collect();
        file.write_all(&bytes).unwrap();
        let size = bytes.len() as u64;
        for content in [content(file.path(), size), Content::Bytes(bytes.clone().into())] {
            let mut source = Source::open(&content).unwrap();
            for (offset, length) in [(0, 10), (699_990, 10), (0, 500_000), (700_000, 0)] {
                let mut buffer = vec![0; length];
                if !source.fill(offset, &mut buffer).unwrap() {
                    source.warm_up(offset).await.unwrap();
                    assert!(source.fill(offset, &mut buffer).is_ok_and(|full| full));
                }
                assert!(buffer == bytes[offset as usize..][..length]);
            }
            assert_eq!(source.warm(0).await.unwrap().unwrap(), AHEAD);
            assert_eq!(source.warm(600_000).await.unwrap().unwrap(), size);
            let error = source.fill(size - 1, &mut [0; 2]).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
        }
    }

    #[test]
    fn what_is_not_as_the_store_says_is_not_opened() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("f");
        assert_eq!(Source::open(&content(&path, 3)).unwrap_err().kind(), io::ErrorKind::NotFound);
        std::fs::write(&path, "four").unwrap();
        let error = Source::open(&content(&path, 3)).unwrap_err().to_string();
        assert!(error.contains("4 bytes, expected 3"), "{error}");
        Source::open(&content(folder.path(), 3)).unwrap_err();
    }
}
