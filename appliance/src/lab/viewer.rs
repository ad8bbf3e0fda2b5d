//! Somebody who reads along on a console and waits for lines: a boot test is such a script.

use std::io;
use std::time::Duration;

use tokio::time::{Instant, timeout_at};

use super::console::{Console, find};

/// Lines shown when an expectation fails.
const TAIL: usize = 40;

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

/// A reader with a cursor: every expectation looks only at what came after the former one.
#[derive(Clone)]
pub struct Viewer {
    console: Console,
    cursor: u64,
    alarms: Vec<String>,
}

impl Viewer {
    pub(super) fn new(console: Console, cursor: u64) -> Viewer {
        Viewer { console, cursor, alarms: Vec::new() }
    }

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
        let mut received = self.console.received();
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
            machine: self.console.name().to_string(),
            wanted: wanted.join(" or "),
            why,
            tail: self.console.tail(TAIL),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::UnixStream;

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
}
