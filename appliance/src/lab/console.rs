//! A machine's serial console, from the first byte after power-on to long after.
//!
//! Everything is kept twice: raw for terminals and the log file, and as plain text for whoever
//! waits for a line. Offsets count from the rack's start and go on over power cycles.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::ansi::Plain;
pub use super::viewer::{Found, Missed, Viewer};

/// Bytes kept in memory of each of the two streams.
const KEPT: usize = 4 << 20;

/// One console. Cheap to clone; all clones are the same line.
#[derive(Clone)]
pub struct Console {
    shared: Arc<Shared>,
}

struct Shared {
    name: String,
    record: Mutex<Record>,
    /// Raw bytes received so far; watched by all who wait.
    received: watch::Sender<u64>,
    line: tokio::sync::Mutex<Option<Line>>,
}

/// The connection to a machine that is on.
struct Line {
    writer: OwnedWriteHalf,
    recording: JoinHandle<()>,
}

pub(super) struct Record {
    raw: Ring,
    pub(super) text: Ring,
    plain: Plain,
    log: Option<File>,
}

impl Console {
    /// A console nobody is connected to yet. What it prints is also appended to `log`.
    pub fn new(name: &str, log: Option<&Path>) -> io::Result<Console> {
        let open = |path| OpenOptions::new().create(true).append(true).open(path);
        let record = Record {
            raw: Ring::new(KEPT),
            text: Ring::new(KEPT),
            plain: Plain::default(),
            log: log.map(open).transpose()?,
        };
        let shared = Shared {
            name: name.to_string(),
            record: Mutex::new(record),
            received: watch::Sender::new(0),
            line: tokio::sync::Mutex::new(None),
        };
        Ok(Console { shared: Arc::new(shared) })
    }

    /// Takes the machine's end of the line: reads until it hangs up, which a power-off does.
    pub async fn attach(&self, line: UnixStream) {
        let (reader, writer) = line.into_split();
        // What the former system left half said must not swallow the first words of this one.
        self.record().plain = Plain::default();
        let recording = tokio::spawn(self.clone().record_all(reader));
        *self.shared.line.lock().await = Some(Line { writer, recording });
    }

    /// The machine is off: takes down its last words; typing fails until it is attached again.
    pub async fn detach(&self) {
        if let Some(Line { writer, recording }) = self.shared.line.lock().await.take() {
            drop(writer);
            let _ = timeout(Duration::from_secs(2), recording).await;
        }
    }

    async fn record_all(self, mut reader: OwnedReadHalf) {
        let mut buffer = vec![0; 16 * 1024];
        loop {
            match reader.read(&mut buffer).await {
                Ok(0) | Err(_) => return,
                Ok(length) => self.feed(&buffer[..length]),
            }
        }
    }

    fn feed(&self, bytes: &[u8]) {
        let mut record = self.record();
        let Record { raw, text, plain, log } = &mut *record;
        raw.push(bytes);
        let mut readable = Vec::with_capacity(bytes.len());
        plain.feed(bytes, &mut readable);
        text.push(&readable);
        if let Some(file) = log
            && let Err(error) = file.write_all(bytes)
        {
            tracing::warn!(%error, machine = self.shared.name, "console log given up");
            *log = None;
        }
        let end = raw.end();
        drop(record);
        self.shared.received.send_replace(end);
    }

    /// Types on the console. Fails while the machine is off.
    pub async fn send(&self, bytes: impl AsRef<[u8]>) -> io::Result<()> {
        match self.shared.line.lock().await.as_mut() {
            Some(line) => line.writer.write_all(bytes.as_ref()).await,
            None => Err(io::Error::new(io::ErrorKind::NotConnected, "the machine is off")),
        }
    }

    /// A reader that begins with what was printed first.
    pub fn viewer(&self) -> Viewer {
        self.viewer_at(0)
    }

    /// A reader that begins with what is printed from now on.
    pub fn viewer_from_now(&self) -> Viewer {
        self.viewer_at(self.end())
    }

    /// How much plain text there was so far: an offset for [`Console::viewer_at`].
    pub fn end(&self) -> u64 {
        self.record().text.end()
    }

    /// A reader that begins at an offset, or with the oldest text that is kept.
    pub fn viewer_at(&self, cursor: u64) -> Viewer {
        Viewer::new(self.clone(), cursor)
    }

    /// The last `lines` lines as plain text.
    pub fn tail(&self, lines: usize) -> String {
        let record = self.record();
        let text = record.text.since(0);
        // A progress line may be 200 bytes, a broken stream one endless line.
        let recent = &text[text.len().saturating_sub(lines * 400)..];
        let recent = String::from_utf8_lossy(recent);
        let all: Vec<&str> = recent.lines().filter(|line| !line.trim().is_empty()).collect();
        all[all.len().saturating_sub(lines)..].join("\n")
    }

    /// The plain text since an offset, as far as it is kept.
    pub fn text_since(&self, offset: u64) -> String {
        String::from_utf8_lossy(self.record().text.since(offset)).into_owned()
    }

    /// Whether the kept text holds `pattern`.
    pub fn shows(&self, pattern: &str) -> bool {
        find(self.record().text.since(0), pattern.as_bytes()).is_some()
    }

    /// The raw bytes from now on, after the last `replay` bytes: for a terminal.
    pub fn stream(&self, replay: usize) -> Stream {
        let cursor = self.record().raw.end().saturating_sub(replay as u64);
        Stream { console: self.clone(), received: self.received(), cursor }
    }

    /// Whose it is.
    pub fn name(&self) -> &str {
        &self.shared.name
    }

    /// Changes whenever something was received.
    pub(super) fn received(&self) -> watch::Receiver<u64> {
        self.shared.received.subscribe()
    }

    pub(super) fn record(&self) -> MutexGuard<'_, Record> {
        self.shared.record.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Raw console output in pieces.
pub struct Stream {
    console: Console,
    received: watch::Receiver<u64>,
    cursor: u64,
}

impl Stream {
    /// The next piece; waits until there is one.
    pub async fn next(&mut self) -> Vec<u8> {
        loop {
            self.received.mark_unchanged();
            let piece = {
                let record = self.console.record();
                let piece = record.raw.since(self.cursor).to_vec();
                self.cursor = record.raw.end();
                piece
            };
            if !piece.is_empty() {
                return piece;
            }
            if self.received.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    }
}

/// The last bytes of a stream, with their offset.
pub(super) struct Ring {
    bytes: Vec<u8>,
    start: u64,
    limit: usize,
}

impl Ring {
    fn new(limit: usize) -> Ring {
        Ring { bytes: Vec::new(), start: 0, limit }
    }

    fn push(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
        // A quarter of slack, so that moving the rest to the front happens rarely.
        if self.bytes.len() > self.limit + self.limit / 4 {
            let surplus = self.bytes.len() - self.limit;
            self.bytes.drain(..surplus);
            self.start += surplus as u64;
        }
    }

    pub(super) fn end(&self) -> u64 {
        self.start + self.bytes.len() as u64
    }

    /// What is kept from `offset` on.
    pub(super) fn since(&self, offset: u64) -> &[u8] {
        let skip = offset.saturating_sub(self.start).min(self.bytes.len() as u64);
        &self.bytes[skip as usize..]
    }
}

pub(super) fn find(text: &[u8], pattern: &[u8]) -> Option<usize> {
    if pattern.is_empty() {
        return Some(0);
    }
    text.windows(pattern.len()).position(|window| window == pattern)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ring_forgets_the_oldest_and_keeps_offsets() {
        let mut ring = Ring::new(8);
        for piece in 0..100u8 {
            ring.push(&[piece; 3]);
            assert!(ring.bytes.len() <= 10);
        }
        assert_eq!(ring.end(), 300);
        assert_eq!(ring.since(298), [99, 99]);
        assert_eq!(ring.since(0).last(), Some(&99));
        assert_eq!(ring.since(1000), [0u8; 0]);
    }

    #[tokio::test]
    async fn the_log_holds_every_byte() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("m01.log");
        let console = Console::new("m01", Some(&path)).expect("a log");
        console.feed(b"\x1b[2Jone\r\n");
        console.feed(b"two\r\n");
        assert_eq!(std::fs::read(&path).expect("written"), b"\x1b[2Jone\r\ntwo\r\n");
        assert_eq!(console.tail(1), "two");
        let mut stream = console.stream(5);
        assert_eq!(stream.next().await, b"two\r\n");
    }
}
