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
use tokio::time::{Instant, timeout, timeout_at};

use super::ansi::Plain;

/// Bytes kept in memory of each of the two streams.
const KEPT: usize = 4 << 20;
/// Lines shown when an expectation fails.
const TAIL: usize = 40;

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

struct Record {
    raw: Ring,
    text: Ring,
    plain: Plain,
    log: Option<File>,
}

/// What an expectation found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// Which of the patterns, from 0.
    pub which: usize,
    /// The text between the cursor and the match.
    pub before: String,
    /// Where the match ends, in plain text since the rack's start: the new cursor.
    pub offset: u64,
}

/// What an expectation did not find, with what was there instead.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{machine}: {why} while waiting for {wanted}\n--- last lines of its console ---\n{tail}\n---"
)]
pub struct Missed {
    /// Whose console.
    pub machine: String,
    /// The patterns waited for.
    pub wanted: String,
    /// Why the wait ended.
    pub why: String,
    /// The last lines before that.
    pub tail: String,
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
        Viewer { console: self.clone(), cursor, alarms: Vec::new() }
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
        Stream { console: self.clone(), received: self.shared.received.subscribe(), cursor }
    }

    fn record(&self) -> MutexGuard<'_, Record> {
        self.shared.record.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A reader with a cursor: every expectation looks only at what came after the former one.
#[derive(Clone)]
pub struct Viewer {
    console: Console,
    cursor: u64,
    alarms: Vec<String>,
}

impl Viewer {
    /// From now on an expectation fails as soon as one of these appears instead.
    pub fn alarmed_by(mut self, alarms: &[&str]) -> Viewer {
        self.alarms = alarms.iter().map(ToString::to_string).collect();
        self
    }

    /// Waits for a text.
    pub async fn expect(&mut self, pattern: &str, within: Duration) -> Result<Found, Missed> {
        self.expect_any(&[pattern], within).await
    }

    /// Waits for the first of several texts.
    pub async fn expect_any(
        &mut self,
        patterns: &[&str],
        within: Duration,
    ) -> Result<Found, Missed> {
        let deadline = Instant::now() + within;
        let mut received = self.console.shared.received.subscribe();
        let longest = patterns.iter().map(|pattern| pattern.len()).max().unwrap_or(1);
        let mut scanned = self.cursor;
        loop {
            received.mark_unchanged();
            if let Some(found) = self.look(patterns, scanned) {
                self.cursor = found.offset;
                if let Some(alarm) = self.alarms.get(found.which.wrapping_sub(patterns.len())) {
                    return Err(self.missed(patterns, format!("it printed {alarm:?}")));
                }
                return Ok(found);
            }
            // A match may straddle what was seen and what comes.
            let seen = self.console.record().text.end();
            let overlap = self.alarms.iter().map(String::len).fold(longest, usize::max) as u64;
            scanned = seen.saturating_sub(overlap).max(self.cursor);
            if timeout_at(deadline, received.changed()).await.is_err() {
                return Err(self.missed(patterns, format!("{} s passed", within.as_secs())));
            }
        }
    }

    /// Waits for one text after another, all within one span of time.
    pub async fn follow(&mut self, script: &[&str], within: Duration) -> Result<(), Missed> {
        let deadline = Instant::now() + within;
        for line in script {
            self.expect(line, deadline.saturating_duration_since(Instant::now())).await?;
        }
        Ok(())
    }

    /// Types on the console.
    pub async fn send(&self, text: &str) -> io::Result<()> {
        self.console.send(text).await
    }

    /// Types a line at a loader's prompt: a few keys, their echo, the next few, and return. SeaBIOS
    /// keeps 15 keys and loses the rest while iPXE looks elsewhere.
    pub async fn enter(&mut self, line: &str, within: Duration) -> Result<(), Missed> {
        let deadline = Instant::now() + within;
        let keys: Vec<char> = line.chars().collect();
        let pieces = keys.chunks(8).map(|keys| keys.iter().collect::<String>());
        for piece in pieces.chain(["\r".to_string()]) {
            if let Err(error) = self.send(&piece).await {
                return Err(self.missed(&[line], error.to_string()));
            }
            if piece != "\r" {
                self.expect(&piece, deadline.saturating_duration_since(Instant::now())).await?;
            }
        }
        Ok(())
    }

    /// Types a shell command and waits for all it prints, between two marks. Consoles echo what
    /// is typed and shells wrap it, so the marks as typed differ from the marks as printed.
    pub async fn shell(&mut self, command: &str, within: Duration) -> Result<String, Missed> {
        let deadline = Instant::now() + within;
        let mark = self.cursor;
        let typed = format!("echo be''gin-{mark}; {command}; echo en''d-{mark}\n");
        if let Err(error) = self.send(&typed).await {
            return Err(self.missed(&[command], error.to_string()));
        }
        self.expect(&format!("begin-{mark}\n"), within).await?;
        let left = deadline.saturating_duration_since(Instant::now());
        let found = self.expect(&format!("end-{mark}\n"), left).await?;
        Ok(found.before.trim().to_string())
    }

    /// Earliest match of any pattern or alarm; alarms are numbered after the patterns.
    fn look(&self, patterns: &[&str], from: u64) -> Option<Found> {
        let record = self.console.record();
        let text = record.text.since(from);
        let begin = record.text.end() - text.len() as u64;
        let wanted = patterns.iter().copied().chain(self.alarms.iter().map(String::as_str));
        let (at, which, length) = wanted
            .enumerate()
            .filter_map(|(which, pattern)| {
                Some((find(text, pattern.as_bytes())?, which, pattern.len()))
            })
            .min()?;
        let offset = begin + (at + length) as u64;
        let before = record.text.since(self.cursor);
        let before = &before[..before.len() - (record.text.end() - begin) as usize + at];
        Some(Found { which, before: String::from_utf8_lossy(before).into_owned(), offset })
    }

    fn missed(&self, patterns: &[&str], why: String) -> Missed {
        let wanted: Vec<String> = patterns.iter().map(|pattern| format!("{pattern:?}")).collect();
        Missed {
            machine: self.console.shared.name.clone(),
            wanted: wanted.join(" or "),
            why,
            tail: self.console.tail(TAIL),
        }
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
struct Ring {
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

    fn end(&self) -> u64 {
        self.start + self.bytes.len() as u64
    }

    /// What is kept from `offset` on.
    fn since(&self, offset: u64) -> &[u8] {
        let skip = offset.saturating_sub(self.start).min(self.bytes.len() as u64);
        &self.bytes[skip as usize..]
    }
}

fn find(text: &[u8], pattern: &[u8]) -> Option<usize> {
    if pattern.is_empty() {
        return Some(0);
    }
    text.windows(pattern.len()).position(|window| window == pattern)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOON: Duration = Duration::from_millis(300);
    const LONG: Duration = Duration::from_secs(20);

    async fn line() -> (Console, UnixStream) {
        let console = Console::new("m01", None).expect("no log to open");
        let (ours, theirs) = UnixStream::pair().expect("a socket pair");
        console.attach(ours).await;
        (console, theirs)
    }

    #[tokio::test]
    async fn expectations_are_met_in_order_and_across_pieces() {
        let (console, mut machine) = line().await;
        let mut viewer = console.viewer();
        let expecting = tokio::spawn(async move {
            let first = viewer.expect("iPXE initialising", LONG).await?;
            let second = viewer.expect_any(&["panic", "Linux version"], LONG).await?;
            let again = viewer.expect("iPXE", SOON).await.expect_err("it is before the cursor");
            Ok::<_, Missed>((first, second, again))
        });
        for piece in
            ["\x1b[2JSeaBIOS\r\niP", "XE initial\x1b[", "1mising\r\nLinux ver", "sion 6.1\r\n"]
        {
            machine.write_all(piece.as_bytes()).await.expect("attached");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        let (first, second, again) = expecting.await.expect("no panic").expect("all found");
        assert_eq!((first.before.as_str(), first.which), ("SeaBIOS\n", 0));
        assert_eq!((second.before.as_str(), second.which), ("\n", 1));
        assert_eq!(second.offset, "SeaBIOS\niPXE initialising\nLinux version".len() as u64);
        let text = again.to_string();
        assert!(text.contains("m01: 0 s passed") && text.contains("Linux version 6.1"), "{text}");
    }

    #[tokio::test]
    async fn an_alarm_ends_the_wait() {
        let (console, mut machine) = line().await;
        let mut viewer = console.viewer().alarmed_by(&["Kernel panic"]);
        machine.write_all(b"Kernel panic - not syncing: no init\n").await.expect("attached");
        let missed = viewer.expect("login:", LONG).await.expect_err("it panicked");
        assert_eq!(missed.why, r#"it printed "Kernel panic""#);
        assert!(missed.tail.contains("no init"), "{missed}");
    }

    #[tokio::test]
    async fn a_shell_command_yields_its_output_without_the_echo() {
        let (console, machine) = line().await;
        let (mut reader, mut writer) = machine.into_split();
        let shell = tokio::spawn(async move {
            let mut typed = vec![0; 200];
            let length = reader.read(&mut typed).await.expect("attached");
            let typed = String::from_utf8_lossy(&typed[..length]).into_owned();
            let marks: Vec<_> = typed.split("echo ").map(|word| word.replace("''", "")).collect();
            let begin = marks[1].split(';').next().expect("a mark");
            // A narrow terminal wraps the echo, even inside the mark.
            let (echo, rest) = typed.split_at(7);
            let reply =
                format!("/ # {echo}\r\n{rest}\r\n{begin}\r\nweb1\r\n{}\r\n/ # ", marks[2].trim());
            writer.write_all(reply.as_bytes()).await.expect("attached");
        });
        let output = console.viewer().shell("hostname", LONG).await.expect("answered");
        assert_eq!(output, "web1");
        shell.await.expect("no panic");
        let off = Console::new("m02", None).expect("no log");
        assert!(off.viewer().shell("hostname", SOON).await.is_err(), "the machine is off");
    }

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
