//! Commands as lines: what they say, what becomes of them, and that nothing of them stays.

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use koboshi_console::wire::{Event, Operation};
use koboshi_console::{Kind, NotOpen, Wire};

/// Far beyond what anything here takes.
const CEILING: Duration = Duration::from_secs(30);

async fn open(command: &str) -> Wire {
    Kind::Exec(command.to_string()).open().await.unwrap()
}

/// What comes until this is part of it.
async fn until(wire: &mut Wire, end: &str) -> String {
    let mut said = String::new();
    while !said.contains(end) {
        match tokio::time::timeout(CEILING, wire.recv()).await {
            Ok(Some(Event::Data { bytes, .. })) => said.push_str(&String::from_utf8_lossy(&bytes)),
            other => panic!("{other:?} behind {said:?}"),
        }
    }
    said
}

/// All it says, and why it ended.
async fn to_the_end(wire: &mut Wire) -> (String, String) {
    let mut said = String::new();
    loop {
        match tokio::time::timeout(CEILING, wire.recv()).await.unwrap() {
            Some(Event::Data { bytes, .. }) => said.push_str(&String::from_utf8_lossy(&bytes)),
            Some(Event::Down { why: NotOpen::Away(why), itself: false }) => return (said, why),
            other => panic!("{other:?} behind {said:?}"),
        }
    }
}

/// Processes of a session that have not ended.
fn members(session: u32) -> Vec<String> {
    let processes = std::fs::read_dir("/proc").unwrap().flatten();
    let stats =
        processes.filter_map(|entry| std::fs::read_to_string(entry.path().join("stat")).ok());
    let of_it = stats.filter(|stat| {
        let Some((_, behind)) = stat.rsplit_once(')') else { return false };
        let fields: Vec<_> = behind.split_whitespace().collect();
        fields[0] != "Z" && fields[3] == session.to_string()
    });
    of_it.collect()
}

fn until_members(session: u32, as_many: impl Fn(usize) -> bool) {
    let begun = Instant::now();
    while !as_many(members(session).len()) {
        assert!(begun.elapsed() < CEILING, "{:?}", members(session));
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn none_is_left(session: u32) {
    until_members(session, |left| left == 0);
}

/// Ignores what it can, has jobs in its own group, in others, and in the background: six processes, some of which
/// begin behind the line that tells the session.
const STUBBORN: &str = "trap '' HUP TERM INT; set -m; sleep 300 & \
    (trap '' HUP TERM; while :; do sleep 301; done) & set +m; sleep 302 & echo session=$$.; \
    while :; do sleep 303; done";

async fn session_of(wire: &mut Wire) -> u32 {
    let said = until(wire, ".").await;
    let number = said.split("session=").nth(1).and_then(|rest| rest.split('.').next());
    number.and_then(|number| number.parse().ok()).unwrap_or_else(|| panic!("{said:?}"))
}

#[tokio::test]
async fn it_has_a_terminal_and_is_typed_at() {
    let mut wire =
        open("tty; stty size; ps -o sid= -p $$ | tr -d ' '; echo $$; echo ready; cat").await;
    let said = until(&mut wire, "ready\r\n").await;
    assert!(said.starts_with("/dev/pts/"), "{said}");
    // The leader of a session of its own, whose terminal it is: what is echoed, and what the command says.
    wire.typist().send(b"hello\r").await.unwrap();
    until(&mut wire, "hello\r\nhello\r\n").await;
    assert!(said.contains("\r\n24 80\r\n"), "{said}");
    let numbers: Vec<_> = said.split("\r\n").skip(2).take(2).collect();
    assert_eq!(numbers[0], numbers[1], "{said}");
    let typist = wire.typist();
    let cannot = tokio::select! {
        done = typist.operate(Operation::Break) => done.unwrap_err(),
        event = wire.recv() => panic!("{event:?}"),
    };
    assert!(cannot.to_string().starts_with("a command carries characters alone"), "{cannot}");
    // An interrupt is a character, as on any terminal.
    wire.typist().send(b"\x03").await.unwrap();
    let (_, why) = to_the_end(&mut wire).await;
    assert_eq!(why, "the command was killed by SIGINT");
}

#[tokio::test]
async fn how_it_ended_is_said_behind_all_that_it_said() {
    for (command, says) in [
        ("exit 0", "the command ended with exit status 0"),
        ("exit 3", "the command ended with exit status 3"),
        ("/no/such/program", "the command was not found (exit status 127)"),
        ("kill -KILL $$", "the command was killed by SIGKILL"),
        // Who stays in the background does not keep the line.
        ("trap '' HUP; sleep 60 & exit 4", "the command ended with exit status 4"),
        ("exec <&- >&- 2>&-; sleep 60", "the command let go of its terminal"),
    ] {
        let mut wire = open(command).await;
        assert_eq!(to_the_end(&mut wire).await.1, says, "{command}");
    }
    let mut wire = open("seq 1 20000; exit 7").await;
    let (said, why) = to_the_end(&mut wire).await;
    let expected: String = (1..=20000).map(|number| format!("{number}\r\n")).collect();
    assert!(said == expected, "{} of {} characters", said.len(), expected.len());
    assert_eq!(why, "the command ended with exit status 7");
}

#[tokio::test]
async fn of_our_environment_it_gets_no_secrets() {
    assert!(std::env::var_os("CARGO_MANIFEST_DIR").is_some(), "there is something to hide");
    let (said, _) = to_the_end(&mut open("env; pwd").await).await;
    assert!(
        said.contains("PATH=") && said.contains("TERM=vt220") && said.ends_with("/\r\n"),
        "{said}"
    );
    assert!(!said.contains("CARGO"), "{said}");
}

#[tokio::test]
async fn nothing_of_it_stays_when_the_line_is_closed() {
    let mut wire = open(STUBBORN).await;
    let session = session_of(&mut wire).await;
    until_members(session, |begun| begun >= 6);
    wire.close().await;
    none_is_left(session);
    // Nor when it ended itself.
    let mut wire = open("trap '' HUP; sleep 300 & echo session=$$.; exit 1").await;
    let session = session_of(&mut wire).await;
    to_the_end(&mut wire).await;
    wire.close().await;
    none_is_left(session);
    // One that is well-behaved is given the time to put its things in order.
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("put-in-order");
    let trap = format!(
        "trap 'echo done > {}; exit' TERM; echo session=$$.; while :; do sleep 0.05; done",
        file.display()
    );
    let mut wire = open(&trap).await;
    let session = session_of(&mut wire).await;
    wire.close().await;
    none_is_left(session);
    assert!(file.exists());
}

#[test]
fn nothing_of_it_stays_when_we_are_killed() {
    let this = std::env::current_exe().unwrap();
    let mut child = Command::new(this)
        .args(["--exact", "holds_a_line_until_it_is_killed", "--ignored", "--nocapture"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let said = std::io::BufReader::new(child.stdout.take().unwrap());
    let session = std::io::BufRead::lines(said).map_while(Result::ok).find_map(|line| {
        line.split("holds ").nth(1).and_then(|session| session.trim().parse().ok())
    });
    let session = session.unwrap();
    let begun = std::time::Instant::now();
    while members(session).len() < 5 {
        assert!(begun.elapsed() < std::time::Duration::from_secs(20), "{:?}", members(session));
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    child.kill().unwrap();
    child.wait().unwrap();
    none_is_left(session);
}

/// Of another test, which kills it.
#[tokio::test]
#[ignore = "runs within nothing_of_it_stays_when_we_are_killed"]
async fn holds_a_line_until_it_is_killed() {
    let mut wire = open(STUBBORN).await;
    println!("holds {}", session_of(&mut wire).await);
    tokio::time::sleep(CEILING).await;
}
