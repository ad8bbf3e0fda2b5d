//! Files against lrzsz, through a pseudo-terminal and a relay that drops bytes.

mod lrzsz;

use std::path::PathBuf;

use koboshi_console::modem::{Event, Failure, Options, Protocol};
use lrzsz::{Line, bytes, rules};
use tempfile::TempDir;

/// As large as the kernel of a rescue system.
const LARGE: usize = 5_000_000;
/// One byte in so many is dropped, in both directions: several times in a transfer. Each costs lrzsz a second or
/// two of silence by XMODEM and YMODEM.
const DROPS: u64 = 1_200_000;
/// By ZMODEM it is turned back at once.
const DROPS_OFTEN: u64 = 250_000;

fn folders() -> (TempDir, PathBuf, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let (ours, theirs) = (folder.path().join("ours"), folder.path().join("theirs"));
    std::fs::create_dir_all(&ours).unwrap();
    std::fs::create_dir_all(&theirs).unwrap();
    (folder, ours, theirs)
}

/// We send, lrzsz receives.
async fn there(protocol: Protocol, drops: u64, seed: u64) {
    let (_folder, ours, theirs) = folders();
    let name = "a file (1).bin";
    let file = bytes(LARGE, seed);
    std::fs::write(ours.join(name), &file).unwrap();
    let words: &[&str] = match protocol {
        Protocol::Zmodem => &["rz"],
        Protocol::Ymodem => &["rb"],
        Protocol::Xmodem | Protocol::Xmodem1k => &["rx", "-c", name],
    };
    let mut line = Line::start(words, &theirs, drops, seed);
    let (how, _) = line.send(protocol, &[ours.join(name)]).await;
    // `rx` throws its last answer away with all that a pseudo-terminal was not read of when it ends.
    let lost = how == Err(Failure::Unconfirmed) && !protocol.names();
    assert!(how == Ok(()) || lost, "{how:?}");
    line.ended().await;
    let mut came = std::fs::read(theirs.join(name)).unwrap();
    if !protocol.names() {
        assert!(came.len() < LARGE + 128);
        came.truncate(LARGE);
    }
    assert!(came == file, "it is another file");
    assert!(drops == 0 || line.dropped() >= 3, "{} bytes dropped", line.dropped());
    println!("{protocol} to lrzsz: {:?}, {} bytes dropped", line.took(), line.dropped());
}

/// lrzsz sends, we receive.
async fn back(protocol: Protocol, drops: u64, seed: u64) {
    let (_folder, ours, theirs) = folders();
    let name = "b file;$x.bin";
    let file = bytes(LARGE, seed);
    std::fs::write(theirs.join(name), &file).unwrap();
    let words: &[&str] = match protocol {
        Protocol::Zmodem => &["sz", name],
        Protocol::Ymodem => &["sb", name],
        Protocol::Xmodem => &["sx", name],
        Protocol::Xmodem1k => &["sx", "-k", name],
    };
    let mut line = Line::start(words, &theirs, drops, seed);
    let mut rules = rules(&ours);
    if !protocol.names() {
        rules.name = Some(name.to_string());
        rules.size = Some(LARGE as u64);
    }
    let how = line.receive(protocol, rules).await;
    assert_eq!(how.0, Ok(()));
    line.ended().await;
    assert!(std::fs::read(ours.join(name)).unwrap() == file, "it is another file");
    assert!(drops == 0 || line.dropped() >= 3, "{} bytes dropped", line.dropped());
    println!("{protocol} from lrzsz: {:?}, {} bytes dropped", line.took(), line.dropped());
}

#[tokio::test]
async fn zmodem_to_rz_on_a_line_that_drops_bytes() {
    there(Protocol::Zmodem, DROPS_OFTEN, 1).await;
}

#[tokio::test]
async fn zmodem_from_sz_on_a_line_that_drops_bytes() {
    back(Protocol::Zmodem, DROPS_OFTEN, 2).await;
}

/// All at once: they wait most of the time, for lrzsz's own timeouts.
#[tokio::test]
async fn xmodem_and_ymodem_both_ways_on_a_line_that_drops_bytes() {
    tokio::join!(
        there(Protocol::Ymodem, DROPS, 3),
        back(Protocol::Ymodem, DROPS, 4),
        there(Protocol::Xmodem1k, DROPS, 5),
        back(Protocol::Xmodem1k, DROPS, 6),
    );
}

/// What is in a folder.
fn names(folder: &std::path::Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder).unwrap();
    let mut names: Vec<String> =
        entries.map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}

/// Names that are odd, files that are empty, and several of them.
const BATCH: [(&str, usize); 5] =
    [("empty", 0), ("one byte", 1), ("Größe ü.bin", 5000), ("-rf", 1023), ("it's $(x); *", 128)];

#[tokio::test]
async fn several_files_with_odd_names_go_both_ways() {
    for (protocol, rx, sx) in [(Protocol::Zmodem, "rz", "sz"), (Protocol::Ymodem, "rb", "sb")] {
        let (_folder, ours, theirs) = folders();
        for (name, size) in BATCH {
            std::fs::write(ours.join(name), bytes(size, 9)).unwrap();
        }
        let files: Vec<_> = BATCH.iter().map(|(name, _)| ours.join(name)).collect();
        let mut line = Line::start(&[rx], &theirs, 0, 1);
        let (how, told) = line.send(protocol, &files).await;
        assert_eq!(how, Ok(()));
        assert!(line.ended().await, "{rx} is not content");
        let done = told.iter().filter(|event| matches!(event, Event::Done { .. }));
        assert_eq!(done.count(), BATCH.len());
        assert_eq!(names(&theirs), names(&ours));
        for (name, size) in BATCH {
            assert!(std::fs::read(theirs.join(name)).unwrap() == bytes(size, 9), "{name}");
            let modified = |folder: &PathBuf| {
                let modified = std::fs::metadata(folder.join(name)).unwrap().modified().unwrap();
                modified.duration_since(std::time::UNIX_EPOCH).unwrap().as_secs()
            };
            assert_eq!(modified(&theirs), modified(&ours), "{name}");
        }

        let back = ours.join("back");
        std::fs::create_dir(&back).unwrap();
        let words: Vec<&str> =
            [sx, "--"].into_iter().chain(BATCH.iter().map(|(name, _)| *name)).collect();
        let mut line = Line::start(&words, &theirs, 0, 1);
        let (how, _) = line.receive(protocol, rules(&back)).await;
        assert_eq!(how, Ok(()));
        assert!(line.ended().await, "{sx} is not content");
        // A name that a shell's star would take for an option is changed.
        let ours: Vec<_> = BATCH.map(|(name, _)| name.replace("-rf", "_rf")).to_vec();
        for (name, (_, size)) in ours.iter().zip(BATCH) {
            assert!(std::fs::read(back.join(name)).unwrap() == bytes(size, 9), "{name}");
        }
        assert_eq!(names(&back).len(), BATCH.len());
    }
}

#[tokio::test]
async fn what_is_here_is_not_overwritten_unless_told() {
    let (_folder, ours, theirs) = folders();
    for name in ["a", "b"] {
        std::fs::write(theirs.join(name), bytes(3000, 1)).unwrap();
    }
    std::fs::write(ours.join("a"), "mine").unwrap();
    let (how, told) =
        Line::start(&["sz", "a", "b"], &theirs, 0, 1).receive(Protocol::Zmodem, rules(&ours)).await;
    assert_eq!(how, Ok(()));
    let says =
        |event: &Event| matches!(event, Event::Skipped { why, .. } if why.contains("--overwrite"));
    assert!(told.iter().any(says), "{told:?}");
    assert_eq!(std::fs::read(ours.join("a")).unwrap(), b"mine");
    assert!(std::fs::read(ours.join("b")).unwrap() == bytes(3000, 1));
    // By YMODEM one of several cannot be left out.
    let mut line = Line::start(&["sb", "a"], &theirs, 0, 1);
    let (how, told) = line.receive(Protocol::Ymodem, rules(&ours)).await;
    assert!(matches!(how, Err(Failure::Here(_))), "{how:?}");
    assert!(told.iter().any(says), "{told:?}");
    assert!(!line.ended().await, "it was told");
    let over = koboshi_console::modem::Rules { overwrite: true, ..rules(&ours) };
    let (how, _) = Line::start(&["sz", "a"], &theirs, 0, 1).receive(Protocol::Zmodem, over).await;
    assert_eq!(how, Ok(()));
    assert!(std::fs::read(ours.join("a")).unwrap() == bytes(3000, 1));
    assert_eq!(names(&ours), ["a", "b"]);

    // What is there already is not sent.
    let mut line = Line::start(&["rz"], &theirs, 0, 1);
    let (how, told) = line.send(Protocol::Zmodem, &[ours.join("a"), ours.join("b")]).await;
    assert_eq!(how, Ok(()));
    let skipped = told.iter().filter(|event| matches!(event, Event::Skipped { .. }));
    assert_eq!(skipped.count(), 2, "{told:?}");
}

#[tokio::test]
async fn a_transfer_that_broke_goes_on_where_it_was() {
    let (_folder, ours, theirs) = folders();
    let file = bytes(LARGE, 11);
    std::fs::write(theirs.join("big"), &file).unwrap();
    let mut line = Line::start(&["sz", "big"], &theirs, 0, 1);
    line.stop_at(1_000_000);
    let (how, _) = line.receive(Protocol::Zmodem, rules(&ours)).await;
    assert_eq!(how, Err(Failure::Stopped));
    assert!(!line.ended().await, "it was told");
    assert_eq!(names(&ours), ["big.part"]);
    let there = std::fs::metadata(ours.join("big.part")).unwrap().len();
    assert!((1_000_000..5_000_000).contains(&there), "{there}");
    let (how, told) =
        Line::start(&["sz", "big"], &theirs, 0, 1).receive(Protocol::Zmodem, rules(&ours)).await;
    assert_eq!(how, Ok(()));
    assert!(matches!(told[0], Event::Begun { at, .. } if at == there), "{told:?}");
    assert!(matches!(told[1], Event::At(at) if at == there), "{told:?}");
    assert!(std::fs::read(ours.join("big")).unwrap() == file);

    // A part of another file is not gone on with.
    std::fs::remove_file(ours.join("big")).unwrap();
    std::fs::write(ours.join("big.part"), vec![7; 1_000_000]).unwrap();
    let (how, _) =
        Line::start(&["sz", "big"], &theirs, 0, 1).receive(Protocol::Zmodem, rules(&ours)).await;
    assert_eq!(how, Ok(()));
    assert!(std::fs::read(ours.join("big")).unwrap() == file);

    // The same the other way: `rz -r` goes on.
    std::fs::write(ours.join("up"), &file).unwrap();
    let mut line = Line::start(&["rz"], &theirs, 0, 1);
    line.stop_at(2_000_000);
    let (how, _) = line.send(Protocol::Zmodem, &[ours.join("up")]).await;
    assert_eq!(how, Err(Failure::Stopped));
    assert!(!line.ended().await, "it was told");
    if std::fs::metadata(theirs.join("up")).is_ok_and(|about| about.len() > 0) {
        let (how, _) = Line::start(&["rz", "-r"], &theirs, 0, 1)
            .send(Protocol::Zmodem, &[ours.join("up")])
            .await;
        assert_eq!(how, Ok(()));
        assert!(std::fs::read(theirs.join("up")).unwrap() == file);
    }
}

/// A program of lrzsz is interrupted in the middle of a file: what that looks like here.
async fn interrupted(protocol: Protocol, words: &[&str], receives: bool) -> Result<(), Failure> {
    let (_folder, ours, theirs) = folders();
    let from = if receives { &ours } else { &theirs };
    std::fs::write(from.join("big"), bytes(LARGE, 3)).unwrap();
    let mut line = Line::start(words, &theirs, 0, 1);
    line.interrupt_at(20_000);
    if receives {
        return line.send(protocol, &[ours.join("big")]).await.0;
    }
    let name = Some("big".to_string()).filter(|_| !protocol.names());
    let rules = koboshi_console::modem::Rules { name, ..rules(&ours) };
    line.receive(protocol, rules).await.0
}

/// A receiver of lrzsz that ends throws away, now and then, what the pseudo-terminal was not read of: its word
/// that it cancels with it. Then the line takes nothing more, and it is asked again.
#[tokio::test]
async fn the_other_side_may_cancel() {
    for (protocol, rx, sx) in [
        (Protocol::Zmodem, &["rz"][..], &["sz", "big"][..]),
        (Protocol::Ymodem, &["rb"], &["sb", "big"]),
        (Protocol::Xmodem1k, &["rx", "-c", "got"], &["sx", "-k", "big"]),
    ] {
        for words in [rx, sx] {
            let mut how = interrupted(protocol, words, words == rx).await;
            if words == rx
                && matches!(&how, Err(Failure::Here(why)) if why.contains("takes nothing"))
            {
                how = interrupted(protocol, words, true).await;
            }
            assert!(matches!(how, Err(Failure::Cancelled { .. })), "{words:?}: {how:?}");
        }
    }
}

#[tokio::test]
async fn limits_hold_whatever_is_announced() {
    let (_folder, ours, theirs) = folders();
    let huge = std::fs::File::create(theirs.join("huge")).unwrap();
    huge.set_len(1 << 30).unwrap();
    let rules = koboshi_console::modem::Rules { most: 1 << 20, ..rules(&ours) };
    let mut line = Line::start(&["sz", "huge"], &theirs, 0, 1);
    let (how, told) = line.receive(Protocol::Zmodem, rules.clone()).await;
    assert_eq!(how, Ok(()));
    let says =
        |event: &Event| matches!(event, Event::Skipped { why, .. } if why.contains("--most"));
    assert!(told.iter().any(says), "{told:?}");
    // XMODEM does not say how much comes.
    let named = koboshi_console::modem::Rules { name: Some("x".to_string()), ..rules };
    let mut line = Line::start(&["sx", "-k", "huge"], &theirs, 0, 1);
    let (how, _) = line.receive(Protocol::Xmodem1k, named).await;
    assert!(matches!(&how, Err(Failure::Here(why)) if why.contains("--most")), "{how:?}");
    assert!(!line.ended().await, "it was told");
    assert_eq!(names(&ours), ["x.part"]);
    assert!(std::fs::metadata(ours.join("x.part")).unwrap().len() <= 1 << 20);
}

#[tokio::test]
async fn a_shell_that_answers_is_no_receiver() {
    let (_folder, ours, theirs) = folders();
    std::fs::write(ours.join("a"), "a").unwrap();
    let script = "printf 'sh: 1: rz: Command not found\r\n# '; sleep 100";
    let mut line = Line::start(&["sh", "-c", script], &theirs, 0, 1);
    for protocol in [Protocol::Zmodem, Protocol::Ymodem] {
        line.stop_after(std::time::Duration::from_secs(2));
        let (how, _) = line.send(protocol, &[ours.join("a")]).await;
        // The C of "Command" asks for nothing.
        assert_eq!(how, Err(Failure::Stopped), "{protocol}");
        line.go_on();
    }
}

#[tokio::test]
async fn all_control_characters_can_be_escaped() {
    let (_folder, ours, theirs) = folders();
    let all: Vec<u8> = (0..20_000u32).map(|n| (n % 256) as u8).collect();
    std::fs::write(ours.join("all"), &all).unwrap();
    for words in [&["rz"][..], &["rz", "-e", "-y"]] {
        let mut line = Line::start(words, &theirs, 0, 1);
        let (how, _) =
            line.send_so(Protocol::Zmodem, &[ours.join("all")], Options { escape: true }).await;
        assert_eq!(how, Ok(()));
        assert!(line.ended().await);
        assert!(std::fs::read(theirs.join("all")).unwrap() == all);
        let typed = line.typed();
        let taken =
            |byte: &u8| byte & 0x60 == 0 && !matches!(byte, b'\r' | b'\n' | 0x8a | 0x11 | 0x18);
        assert_eq!(typed.iter().position(taken), None, "{typed:?}");
    }
}
