//! Lines and their logs: what was said is there after a restart, when the disk is full, when somebody took the
//! files away; and a line that is faster than the disk waits for it.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use koboshi_console::log::Writer;
use koboshi_console::wire::{Ends, Event};
use koboshi_console::{Beside, Line, Mark, Piece, Start, Viewer, What, Wire};
use tempfile::TempDir;
use tokio::sync::mpsc;

/// Far beyond what anything here takes.
const CEILING: Duration = Duration::from_secs(60);

/// A line whose machine is this test.
async fn line(writer: &Writer, name: &str) -> (Line, mpsc::Sender<Event>) {
    let (give, mut given) = mpsc::channel(1);
    let opened = Arc::new(AtomicBool::new(false));
    let open = move || {
        let (give, opened) = (give.clone(), opened.clone());
        async move {
            if opened.swap(true, Ordering::AcqRel) {
                std::future::pending::<()>().await;
            }
            let (wire, Ends { events, orders }) = Wire::new();
            tokio::spawn(async move {
                let mut orders = orders;
                while orders.recv().await.is_some() {}
            });
            give.send(events).await.unwrap();
            Ok(wire)
        }
    };
    let log = Some(writer.log(name).unwrap());
    let line = Line::start_beside(open, Beside { log, ..Beside::default() });
    let says = tokio::time::timeout(CEILING, given.recv()).await.unwrap().unwrap();
    (line, says)
}

async fn say(says: &mpsc::Sender<Event>, text: &[u8]) {
    let at = Instant::now();
    says.send(Event::Data { at, bytes: Bytes::copy_from_slice(text) }).await.unwrap();
}

/// All there is until this text has come.
async fn until(viewer: &mut Viewer, last: &[u8]) -> (Vec<u8>, Vec<Mark>) {
    let (mut text, mut marks) = (Vec::new(), Vec::new());
    while !text.ends_with(last) {
        let next = tokio::time::timeout(CEILING, viewer.next()).await;
        let seen = || format!("{} characters, {marks:?}", text.len());
        let Piece { what, .. } = next.unwrap_or_else(|_| panic!("{}", seen())).expect("it goes on");
        match what {
            What::Text(more) => text.extend_from_slice(&more),
            What::Mark(mark) => marks.push(mark),
        }
    }
    (text, marks)
}

/// The characters in a line's files.
fn files(root: &Path, name: &str) -> Vec<u8> {
    let dir = std::fs::read_dir(root.join(name));
    let mut names: Vec<_> = dir.into_iter().flatten().map(|file| file.unwrap().path()).collect();
    names.retain(|name| name.extension().is_some_and(|ending| ending == "log"));
    names.sort();
    names.iter().flat_map(|name| std::fs::read(name).unwrap_or_default()).collect()
}

async fn written(root: &Path, name: &str, last: &[u8]) -> Vec<u8> {
    let begun = Instant::now();
    loop {
        let found = files(root, name);
        if found.ends_with(last) {
            return found;
        }
        assert!(begun.elapsed() < CEILING, "{} characters", found.len());
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// Lines of text, so many bytes or a little more, with every byte there is among them.
fn words(many: usize) -> Vec<u8> {
    let line = |n: usize| [format!("line {n} ").as_bytes(), &[(n % 256) as u8], b"\r\n"].concat();
    let mut words: Vec<u8> = (0..).flat_map(line).take(many).collect();
    words.extend_from_slice(b"\r\nend.\r\n");
    words
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_said_is_there_after_a_restart() {
    let dir = TempDir::new().unwrap();
    let words = words(200_000);
    {
        let writer = Writer::start(dir.path().to_path_buf(), 16 << 20).unwrap();
        let (line, says) = line(&writer, "m01").await;
        for part in words.chunks(77) {
            say(&says, part).await;
        }
        assert!(written(dir.path(), "m01", b"end.\r\n").await == words);
        // A viewer of a line that runs reads what is older than its scrollback in the files.
        let (text, _) = until(&mut line.history(Start::Oldest), b"end.\r\n").await;
        assert!(text == words, "{} of {}", text.len(), words.len());
        line.close().await;
    }
    let writer = Writer::start(dir.path().to_path_buf(), 16 << 20).unwrap();
    let (line, says) = line(&writer, "m01").await;
    say(&says, b"login: ").await;
    for start in [Start::Oldest, Start::Lines(1_000_000), Start::Place(0), Start::Since(1)] {
        let (text, marks) = until(&mut line.history(start), b"login: ").await;
        assert!(text == [&words[..], b"login: "].concat(), "{start:?}: {}", text.len());
        assert!(
            matches!(marks[..], [Mark::Up, Mark::Closed, Mark::Away { .. }, Mark::Up]),
            "{marks:?}"
        );
    }
    let (text, _) = until(&mut line.view(2), b"login: ").await;
    assert_eq!(text, b"end.\r\nlogin: ");
}
