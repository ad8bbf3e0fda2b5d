//! Many lines in one process, and viewers that do not read: what that costs, and that it delays nobody.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use koboshi_console::{Kind, Line, Mark, State, What};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use tempfile::TempDir;
use tokio::io::AsyncWriteExt;
use tokio::net::{UnixListener, UnixStream};

/// Far beyond what anything here takes.
const CEILING: Duration = Duration::from_secs(60);

/// A socket that any number of lines may connect to.
struct Machines {
    path: PathBuf,
    listener: UnixListener,
    _folder: TempDir,
}

impl Machines {
    fn new() -> Machines {
        let folder = TempDir::new().unwrap();
        let path = folder.path().join("console");
        let listener = UnixListener::bind(&path).unwrap();
        Machines { path, listener, _folder: folder }
    }

    fn line(&self) -> Line {
        let kind = Arc::new(Kind::Unix(self.path.clone()));
        Line::start(move || {
            let kind = kind.clone();
            async move { kind.open().await }
        })
    }

    async fn accept(&self) -> UnixStream {
        tokio::time::timeout(CEILING, self.listener.accept()).await.unwrap().unwrap().0
    }
}

async fn up(line: &Line) {
    let mut status = line.follow_status();
    let up = status.wait_for(|status| matches!(status.state, State::Up { .. }));
    tokio::time::timeout(CEILING, up).await.unwrap().unwrap();
}

/// KiB of this process that are its own.
fn memory() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_thousand_lines_begin_speak_and_end_within_seconds() {
    const LINES: usize = 2000;
    let (_, most) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    setrlimit(Resource::RLIMIT_NOFILE, most, most).unwrap();
    assert!(most > 3 * LINES as u64, "`ulimit -Hn` is {most}");
    let (machines, began, before) = (Machines::new(), Instant::now(), memory());
    let mut lines = Vec::new();
    let mut ends = Vec::new();
    for _ in 0..LINES {
        lines.push(machines.line());
        ends.push(machines.accept().await);
    }
    for line in &lines {
        up(line).await;
    }
    let begun = began.elapsed();
    assert!(begun < Duration::from_secs(20), "{begun:?}");
    // More than is kept of any of them.
    let text: Vec<u8> = (0..6000)
        .flat_map(|n| {
            format!("line {n:05} of its own words, kept for those who come later\r\n").into_bytes()
        })
        .collect();
    for end in &mut ends {
        end.write_all(&text).await.unwrap();
    }
    for line in &lines {
        let mut viewer = line.view(1);
        let mut tail = Vec::new();
        while !tail.ends_with(b"line 05999 of its own words, kept for those who come later\r\n") {
            let piece = tokio::time::timeout(CEILING, viewer.next()).await.unwrap().unwrap();
            if let What::Text(text) = piece.what {
                tail = text.to_vec();
            }
        }
    }
    let each = memory().saturating_sub(before) / LINES;
    println!("{begun:?} to begin, {each} KiB each");
    assert!(each < 256, "{each} KiB for each line");
    let closing = Instant::now();
    tokio::time::timeout(CEILING, futures::future::join_all(lines.into_iter().map(Line::close)))
        .await
        .unwrap();
    assert!(closing.elapsed() < Duration::from_secs(20), "{:?}", closing.elapsed());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_never_reads_delays_nobody_and_is_told_what_he_missed() {
    let machines = Machines::new();
    let line = machines.line();
    let mut end = machines.accept().await;
    up(&line).await;
    let mut idle: Vec<_> = (0..50).map(|_| line.view(0)).collect();
    let mut reader = line.view(0);
    let before = memory();
    let mut written = 0u64;
    let writing = tokio::spawn(async move {
        for number in 0..200_000 {
            let text = format!("line {number:06} for whoever reads\r\n");
            end.write_all(text.as_bytes()).await.unwrap();
            written += text.len() as u64;
        }
        end.write_all(b"login: ").await.unwrap();
        (end, written + 7)
    });
    let (mut read, mut skipped) = (0, 0);
    let mut last = Vec::new();
    while !last.ends_with(b"login: ") {
        match tokio::time::timeout(CEILING, reader.next()).await.unwrap().unwrap().what {
            What::Text(text) => {
                read += text.len() as u64;
                // The last word may come in two pieces.
                last.extend_from_slice(&text[text.len().saturating_sub(7)..]);
                last.drain(..last.len().saturating_sub(7));
            }
            What::Mark(Mark::Skipped { characters, .. }) => skipped += characters,
            What::Mark(mark) => panic!("{mark:?}"),
        }
    }
    let (_end, written) = writing.await.unwrap();
    assert_eq!(read + skipped, written, "of a viewer that reads");
    for viewer in &mut idle {
        let (mut read, mut skipped) = (0, 0);
        while read + skipped < written {
            match tokio::time::timeout(CEILING, viewer.next()).await.unwrap().unwrap().what {
                What::Text(text) => read += text.len() as u64,
                What::Mark(Mark::Skipped { characters, .. }) => skipped += characters,
                What::Mark(mark) => panic!("{mark:?}"),
            }
        }
        assert!(skipped > written / 2, "{skipped} of {written}");
        assert_eq!(read + skipped, written, "of a viewer that did not");
    }
    let more = memory().saturating_sub(before);
    assert!(more < 8 * 1024, "{more} KiB more");
}
