//! A stream onto a block device, past the page cache.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileExt;

/// What O_DIRECT asks of addresses and lengths, on a RAM disk and on anything else.
pub const ALIGNED: usize = 4096;
const CHUNK: usize = 1 << 20;

/// Writes the stream from the start on, in whole blocks; zeros fill the last one. Returns its bytes.
pub fn pour(from: &mut impl Read, disk: &File) -> io::Result<u64> {
    let mut buffer = vec![0; CHUNK + ALIGNED];
    let first = buffer.as_ptr().align_offset(ALIGNED).min(ALIGNED);
    let chunk = &mut buffer[first..first + CHUNK];
    let mut at = 0;
    loop {
        let mut have = 0;
        while have < CHUNK {
            match from.read(&mut chunk[have..]) {
                Ok(0) => break,
                Ok(n) => have += n,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        if have == 0 {
            return Ok(at);
        }
        let whole = have.next_multiple_of(ALIGNED);
        chunk[have..whole].fill(0);
        disk.write_all_at(&chunk[..whole], at)?;
        at += have as u64;
        if have < CHUNK {
            return Ok(at);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs::{self, OpenOptions};
    use std::os::unix::fs::OpenOptionsExt;

    use rustix::fs::OFlags;

    use super::*;

    #[test]
    fn poured_bytes_are_all_there_and_whole_blocks() {
        for size in [1, ALIGNED - 1, ALIGNED, CHUNK, CHUNK + 1, 3 * CHUNK + 70_000] {
            let bytes: Vec<u8> = (0..size).map(|n| ((n * 7) >> 3) as u8).collect();
            let file = tempfile::NamedTempFile::new().unwrap();
            let direct = OpenOptions::new()
                .write(true)
                .custom_flags(OFlags::DIRECT.bits().cast_signed())
                .open(file.path());
            // A file system without O_DIRECT (tmpfs before 6.6) still shows what was written.
            let disk =
                direct.or_else(|_| OpenOptions::new().write(true).open(file.path())).unwrap();
            // A reader that gives odd pieces.
            let mut slow =
                bytes.chunks(77_777).fold(Box::new(io::empty()) as Box<dyn Read>, |all, piece| {
                    Box::new(all.chain(piece))
                });
            assert_eq!(pour(&mut slow, &disk).unwrap(), size as u64);
            let written = fs::read(file.path()).unwrap();
            assert_eq!(written.len(), size.next_multiple_of(ALIGNED));
            assert!(written[..size] == bytes && written[size..].iter().all(|&b| b == 0), "{size}");
        }
    }

    #[test]
    fn a_stream_that_breaks_is_an_error() {
        struct Broken;
        impl Read for Broken {
            fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
                Err(io::Error::other("the stream has ended"))
            }
        }
        let file = tempfile::tempfile().unwrap();
        assert!(pour(&mut Broken, &file).is_err());
    }
}
