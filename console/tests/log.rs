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

/// How much was said between the places that are told.
fn sum(text: &[u8], marks: &[Mark]) -> u64 {
    let missing = marks.iter().map(|mark| match mark {
        Mark::Missing { characters, .. } | Mark::Skipped { characters, .. } => *characters,
        _ => 0,
    });
    text.len() as u64 + missing.sum::<u64>()
}

#[tokio::test(flavor = "multi_thread")]
async fn who_follows_is_told_what_went_with_the_oldest_segments() {
    let dir = TempDir::new().unwrap();
    let words = words(1_000_000);
    let writer = Writer::start(dir.path().to_path_buf(), koboshi_console::log::LEAST).unwrap();
    let (line, says) = line(&writer, "m01").await;
    say(&says, &words[..150_000]).await;
    written(dir.path(), "m01", &words[149_990..150_000]).await;
    let mut viewer = line.history(Start::Oldest);
    let (text, marks) = tokio::join!(until(&mut viewer, b"end.\r\n"), async {
        for part in words[150_000..].chunks(4096) {
            say(&says, part).await;
        }
    })
    .0;
    // It was written faster than it was kept: what he read and what he was told he missed is all there was
    // since the first that he read, the oldest that was kept when he came to it.
    let (seen, all) = (sum(&text, &marks), words.len() as u64);
    let first = words.windows(64).position(|there| there == &text[..64]).expect("of the words");
    assert!(seen <= all && seen + first as u64 >= all, "{seen} since {first}");
    assert!(words.ends_with(&text[text.len() - 1000..]));
    // The screen is ahead of the files, and the oldest of these goes until all is written.
    written(dir.path(), "m01", b"end.\r\n").await;
    let used: u64 = std::fs::read_dir(dir.path().join("m01"))
        .unwrap()
        .filter_map(|f| f.unwrap().metadata().ok())
        .map(|file| file.len())
        .sum();
    assert!(used <= koboshi_console::log::LEAST, "{used}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_directory_that_is_taken_away_is_made_again_with_what_is_known() {
    let dir = TempDir::new().unwrap();
    let writer = Writer::start(dir.path().to_path_buf(), 1 << 20).unwrap();
    let (line, says) = line(&writer, "m01").await;
    let mut viewer = line.view(0);
    say(&says, b"before\r\n").await;
    written(dir.path(), "m01", b"before\r\n").await;
    std::fs::remove_dir_all(dir.path().join("m01")).unwrap();
    tokio::time::sleep(Duration::from_millis(1100)).await;
    say(&says, b"behind\r\n").await;
    assert_eq!(written(dir.path(), "m01", b"behind\r\n").await, b"before\r\nbehind\r\n");
    say(&says, b"!").await;
    let (_, marks) = until(&mut viewer, b"!").await;
    let told = marks
        .iter()
        .any(|mark| matches!(mark, Mark::NotLogged { why } if why.contains("taken away")));
    assert!(told && marks.contains(&Mark::LoggedAgain { characters: 0, marks: 0 }), "{marks:?}");
}

const TINY: &str = "KOBOSHI_TEST_TINY_DISK";

#[test]
fn a_full_disk_costs_the_log_and_not_the_line() {
    let dir = TempDir::new().unwrap();
    let inner = std::env::current_exe().unwrap();
    let output = std::process::Command::new("unshare")
        .args(["-Urm", "sh", "-c"])
        .arg("mount -t tmpfs -o size=400k none \"$1\" && exec \"$0\" --exact --ignored on_a_tiny_disk")
        .arg(inner)
        .arg(dir.path())
        .env(TINY, dir.path())
        .output()
        .expect("unshare runs");
    let said = String::from_utf8_lossy(&output.stdout).into_owned()
        + &String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && said.contains("1 passed"), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "runs within a_full_disk_costs_the_log_and_not_the_line"]
async fn on_a_tiny_disk() {
    let root = std::path::PathBuf::from(std::env::var_os(TINY).expect("a tiny disk"));
    let ballast = root.join("ballast");
    std::fs::write(&ballast, vec![0; 300_000]).unwrap();
    let writer = Writer::start(root.clone(), 16 << 20).unwrap();
    let mut health = writer.health();
    let (line, says) = line(&writer, "m01").await;
    let words = words(500_000);
    let begun = Instant::now();
    for part in words.chunks(1000) {
        say(&says, part).await;
    }
    // The line goes on.
    until(&mut line.view(2), b"end.\r\n").await;
    assert!(begun.elapsed() < Duration::from_secs(20), "{:?}", begun.elapsed());
    health.wait_for(|health| health.failing.contains_key("m01")).await.unwrap();
    let (_, why) = line.logging().unwrap().failing.expect("it fails");
    assert!(why.contains("space"), "{why}");
    // Somebody makes room.
    std::fs::remove_file(&ballast).unwrap();
    health.wait_for(|health| health.failing.is_empty()).await.unwrap();
    let logging = line.logging().unwrap();
    assert!(logging.failing.is_none() && logging.lost > 100_000, "{logging:?}");
    assert_eq!(health.borrow().lost, logging.lost);
    say(&says, b"login: ").await;
    written(&root, "m01", b"login: ").await;
    let (text, marks) = until(&mut line.history(Start::Oldest), b"login: ").await;
    assert_eq!(sum(&text, &marks), words.len() as u64 + 7);
    let again = |mark: &Mark| matches!(mark, Mark::LoggedAgain { characters, .. } if *characters == logging.lost);
    assert!(marks.iter().any(again), "{marks:?}");
    assert!(marks.iter().any(|mark| matches!(mark, Mark::Missing { .. })), "{marks:?}");
}
