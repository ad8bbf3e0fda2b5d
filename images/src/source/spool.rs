//! Compressed archives are unpacked once into a file of the import's own, so that everything after
//! can seek. Bounds are kept while the bytes come: a bomb fills neither disk nor memory.

use std::io::{self, BufReader, Read, Write};
use std::path::Path;
use std::process::{Command, Stdio};

use crate::content::Span;
use crate::error::Fault;
use crate::import::Progress;
use crate::source::Limits;

const CHUNK: usize = 256 * 1024;

/// How an archive is compressed, by its first bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Packing {
    Plain,
    Gzip,
    Zstd,
    Xz,
}

impl Packing {
    /// Told from the magic number; media types of strangers' manifests are often wrong.
    pub(crate) fn of(span: &Span) -> io::Result<Packing> {
        let mut head = [0u8; 6];
        let len = head.len().min(usize::try_from(span.len).unwrap_or(usize::MAX));
        span.read_exact_at(&mut head[..len], 0)?;
        Ok(match head {
            [0x1f, 0x8b, ..] => Packing::Gzip,
            [0x28, 0xb5, 0x2f, 0xfd, ..] => Packing::Zstd,
            // Skippable frames, as pzstd and eStargz-like tools put first.
            [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..] => Packing::Zstd,
            [0xfd, b'7', b'z', b'X', b'Z', 0] => Packing::Xz,
            _ => Packing::Plain,
        })
    }
}

/// Unnamed files in the import's directory: they are gone with the process, however it ends.
pub(crate) struct Spool<'a> {
    dir: &'a Path,
    /// Bytes written by all archives of this import.
    written: u64,
}

impl<'a> Spool<'a> {
    pub(crate) fn new(dir: &'a Path) -> Spool<'a> {
        Spool { dir, written: 0 }
    }

    /// Where unnamed files may be made.
    pub(crate) fn dir(&self) -> &Path {
        self.dir
    }

    /// The plain bytes behind `packed`: itself, or a spooled copy.
    pub(crate) fn plain(
        &mut self,
        packed: &Span,
        limits: &Limits,
        progress: &mut dyn FnMut(Progress),
    ) -> Result<Span, Fault> {
        let source = packed.reader();
        match Packing::of(packed)? {
            Packing::Plain => Ok(packed.clone()),
            Packing::Gzip => {
                // Several members in a row are one stream (RFC 1952, 2.2): pigz, bgzip.
                let reader = flate2::bufread::MultiGzDecoder::new(BufReader::new(source));
                self.fill(reader, packed.len, limits, progress)
            }
            Packing::Zstd => {
                let mut reader = zstd::stream::read::Decoder::new(source)?;
                // What `zstd -d` itself accepts: 128 MiB of window.
                reader.window_log_max(27)?;
                self.fill(reader, packed.len, limits, progress)
            }
            Packing::Xz => self.xz(source, packed.len, limits, progress),
        }
    }

    fn fill(
        &mut self,
        mut reader: impl Read,
        packed: u64,
        limits: &Limits,
        progress: &mut dyn FnMut(Progress),
    ) -> Result<Span, Fault> {
        let mut file = tempfile::tempfile_in(self.dir)?;
        let mut buf = vec![0u8; CHUNK];
        let mut here = 0u64;
        loop {
            let got = match reader.read(&mut buf) {
                Ok(0) => break,
                Ok(got) => got,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(unpack_fault(error)),
            };
            here += got as u64;
            self.written += got as u64;
            // Headers and padding: a tar of many small files is larger than its files.
            let most = limits.unpacked.saturating_add(limits.unpacked / 4);
            if self.written > most {
                let what = format!("it unpacks to more than {most} bytes");
                return Err(Fault::TooLarge { what });
            }
            let ratio = limits.ratio.max(1);
            if here > Limits::RATIO_FREE && here / ratio > packed {
                let what = format!("it unpacks to more than {ratio} times its size");
                return Err(Fault::TooLarge { what });
            }
            file.write_all(&buf[..got])?;
            progress(Progress::Unpacking { bytes: self.written });
        }
        Ok(Span::whole(file)?)
    }

    /// xz(1) in bounded memory; the crates that read xz keep a whole block of it.
    fn xz(
        &mut self,
        mut source: impl Read + Send,
        packed: u64,
        limits: &Limits,
        progress: &mut dyn FnMut(Progress),
    ) -> Result<Span, Fault> {
        let mut child = Command::new("xz")
            .args(["--decompress", "--stdout", "--memlimit-decompress=256MiB"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(|error| match error.kind() {
                io::ErrorKind::NotFound => Fault::Unsupported {
                    what: "is compressed with xz, and xz is not installed: `apt install xz-utils`"
                        .to_owned(),
                },
                _ => Fault::Io(error),
            })?;
        let mut stdin = child.stdin.take().expect("stdin was asked to be a pipe");
        let stdout = child.stdout.take().expect("stdout was asked to be a pipe");
        let filled = std::thread::scope(|scope| {
            // A pipe broken by xz's own exit is reported by its status, not here.
            scope.spawn(move || io::copy(&mut source, &mut stdin));
            let filled = self.fill(stdout, packed, limits, progress);
            if filled.is_err() {
                // The feeding thread ends with the pipe.
                let _ = child.kill();
            }
            filled
        });
        let out = child.wait_with_output()?;
        let span = filled?;
        if !out.status.success() {
            let what = String::from_utf8_lossy(&out.stderr).trim().to_owned();
            return Err(Fault::Malformed { what });
        }
        Ok(span)
    }
}

/// A decompressor's error: the archive's fault, unless the disk's.
fn unpack_fault(error: io::Error) -> Fault {
    match error.kind() {
        io::ErrorKind::UnexpectedEof => {
            Fault::Cut { what: "the compressed data end in the middle".to_owned() }
        }
        // flate2 and zstd have no better kinds of their own.
        io::ErrorKind::InvalidInput | io::ErrorKind::InvalidData | io::ErrorKind::Other => {
            Fault::Malformed { what: format!("unpacking: {error}") }
        }
        _ => Fault::Io(error),
    }
}

/// Bytes as a test wants them read.
#[cfg(test)]
pub(crate) fn spooled(bytes: &[u8]) -> Span {
    let mut file = tempfile::tempfile().expect("a temporary file");
    file.write_all(bytes).expect("room for it");
    Span::whole(file).expect("its length")
}
