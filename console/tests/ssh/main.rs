//! Consoles by SSH: OpenSSH as people use it, and (`strangers`) clients that mean no good.

mod rig;
mod seat;
mod strangers;

use std::path::Path;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::process::Command;

use rig::{CEILING, World};
use seat::{ended, text};

#[tokio::test(flavor = "multi_thread")]
async fn without_a_terminal_bytes_are_exact_both_ways() {
    let world = World::new(&[("alice", "")]).await;
    let m01 = world.machine("m01");
    m01.says(b"long ago\r\n").await;
    let mut alice = world.attach("alice", &["-T", "-e", "none"], "m01", &[]);
    let all: Vec<u8> = (0..=255).cycle().take(20_000).collect();
    alice.types(&all).await;
    m01.until("all that was typed", |told| told.typed.len() >= all.len()).await;
    assert_eq!(m01.typed(), all);
    m01.says(&all).await;
    m01.says(b"the end").await;
    alice.sees("the end").await;
    assert_eq!(text(&alice.seen), text(&[&all[..], b"the end"].concat()), "and nothing of old");
    // The end of what is piped in is typed, and ends it.
    alice.types(b"last").await;
    drop(alice.child.stdin.take());
    assert_eq!(alice.leaves().await, 0);
    m01.until("the last word", |told| told.typed.ends_with(b"last")).await;
    assert!(
        text(&alice.heard).contains("alice (ssh from 127.0.0.1) holds the line]\n"),
        "{}",
        alice.saw()
    );
    // Who only looks has nothing to pipe in.
    let mut alice = world.attach("alice", &["-n"], "m01", &["watch"]);
    alice.sees("the end").await;
    m01.says(b"more").await;
    alice.sees("more").await;
    world.cancel.cancel();
    alice.sees("the appliance ends").await;
    assert_eq!(alice.leaves().await, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_only_looks_does_not_type() {
    let world = World::new(&[("alice", ""), ("bob", "watch=\"m01\"")]).await;
    let m01 = world.machine("m01");
    m01.says(b"booted an hour ago\r\n").await;
    for words in [&["watch"][..], &["--", "--watch"], &["watch", "last", "5"]] {
        let mut alice = world.attach("alice", &["-tt"], "m01", words);
        alice.sees("booted an hour ago").await;
        alice.types(b"reboot\r").await;
        alice.sees("you may watch this line, and not type").await;
        alice.types(b"\x1dt").await;
        alice.sees("you only look: come without `watch` to type").await;
        alice.types(b"\r\x1d.").await;
        assert_eq!(alice.leaves().await, 0);
    }
    let mut bob = world.attach("bob", &["-tt"], "m01", &[]);
    bob.sees("your key may not type here (line 2").await;
    bob.types(b"reboot\r\x1dt\x1dBx").await;
    bob.sees("you may watch this line, and not type").await;
    bob.types(b"\r\x1d.").await;
    assert_eq!(bob.leaves().await, 0);
    assert_eq!(m01.typed(), b"");
    assert_eq!(m01.told.lock().unwrap().breaks, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn refusals_are_plain() {
    let world = World::new(&[("alice", "watch=\"m02\""), ("bob", "from=\"192.0.2.1\"")]).await;
    let output = world.ssh("alice", &["-T"], "m01", &[]).await;
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(text(&output.stderr), "koboshi: alice has no business at m01\n");
    // A machine that is not there, and the name for the list.
    let output = world.ssh("alice", &["-T"], "m99", &[]).await;
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(text(&output.stdout), "m01 is there\nm02 is there\n");
    assert_eq!(text(&output.stderr), "koboshi: there is no m99\n");
    let output = world.ssh("alice", &["-T"], "consoles", &[]).await;
    assert_eq!((output.status.code(), text(&output.stderr)), (Some(0), String::new()));
    // Keys that let nobody in.
    for (person, why) in [("stranger", "not among the authorized keys"), ("bob", "other addresses")]
    {
        let output = world.ssh(person, &[], "m02", &[]).await;
        assert_eq!(output.status.code(), Some(255));
        assert!(text(&output.stderr).contains("Permission denied (publickey)"), "{output:?}");
        assert_eq!(world.noted(why), usize::from(person == "stranger"), "{:?}", world.rack.notes);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_but_consoles_is_to_be_had() {
    let world = World::new(&[("alice", "")]).await;
    let host = format!("m01@{}", world.at.ip());
    for (program, before, words) in [
        ("scp", &[][..], vec!["/etc/hostname".to_string(), format!("{host}:/tmp/x")]),
        ("scp", &["-O"], vec!["/etc/hostname".to_string(), format!("{host}:/tmp/x")]),
        ("scp", &["-O"], vec![format!("{host}:/etc/passwd"), "/dev/null".to_string()]),
        ("sftp", &[], vec![host.clone()]),
    ] {
        let mut command = world.command(program, "alice");
        let output = ended({
            command.args(before).args(words);
            command
        })
        .await;
        assert!(!output.status.success(), "{program}: {output:?}");
        assert!(text(&output.stderr).contains("no files of this host"), "{program}: {output:?}");
    }
    let output = world.ssh("alice", &[], "m01", &["cat", "/etc/passwd"]).await;
    assert_eq!((output.status.code(), text(&output.stdout)), (Some(1), String::new()));
    assert!(text(&output.stderr).contains("`cat /etc/passwd` is not run"), "{output:?}");
    let output = world.ssh("alice", &["-s"], "m01", &["netconf"]).await;
    assert!(text(&output.stderr).contains("no subsystems"), "{output:?}");
    // Forwarding: standard input and output to somewhere, and a port of the server's.
    let output = world.ssh("alice", &["-W", "127.0.0.1:22"], "m01", &[]).await;
    assert!(text(&output.stderr).contains("nothing is forwarded"), "{output:?}");
    let exits = ["-o", "ExitOnForwardFailure=yes", "-R", "127.0.0.1:0:127.0.0.1:22", "-N"];
    let output = world.ssh("alice", &exits, "m01", &[]).await;
    assert!(text(&output.stderr).contains("remote port forwarding failed"), "{output:?}");
    // A port of the client's own is opened by the client; what comes there goes nowhere.
    let (mut alice, port) = {
        let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let forward = format!("127.0.0.1:{free}:127.0.0.1:{}", world.at.port());
        (world.attach("alice", &["-T", "-L", &forward, "-A", "-X"], "m01", &["watch"]), free)
    };
    world.machine("m01").says(b"here").await;
    alice.sees("here").await;
    let mut through = TcpStream::connect(("127.0.0.1", port)).await.expect("ssh listens");
    let mut answer = Vec::new();
    let answered = tokio::time::timeout(CEILING, through.read_to_end(&mut answer)).await;
    assert!(!matches!(answered.expect("it is closed"), Ok(1..)), "{}", text(&answer));
    alice.sees("nothing is forwarded").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_menu_works_within_ssh_at_its_defaults() {
    let world = World::new(&[("alice", "")]).await;
    let m01 = world.machine("m01");
    let mut alice = world.attach("alice", &["-tt"], "m01", &[]);
    alice.sees("m01's console is up; ^]? helps, ^]. leaves").await;
    alice.types(b"\x1d?").await;
    alice.sees("send a BREAK").await;
    alice.types(b"\x1dB").await;
    alice.sees("BREAK is sent").await;
    m01.until("a BREAK", |told| told.breaks == 1).await;
    alice.types(b"\x1dSb").await;
    m01.until("BREAK and b", |told| told.breaks == 2 && told.typed == b"b").await;
    alice.types(b"\x1dw").await;
    alice.sees("here: alice (ssh from 127.0.0.1)").await;
    // What would act on her terminal does not reach it; and where her ssh has its own escapes, it keeps them.
    m01.says(b"\x1b]0;title\x07plain \x1b[31mred").await;
    alice.sees("plain \x1b[31mred").await;
    assert!(!alice.saw().contains("title"), "{:?}", alice.saw());
    alice.types(b"\r~~ \x1d.").await;
    m01.until("one tilde", |told| told.typed.ends_with(b"\r~ \x1d.")).await;
    alice.types(b"\r\x1d.").await;
    assert_eq!(alice.leaves().await, 0);
    assert!(text(&alice.seen).contains("\x1b[0m"), "her terminal is as it was: {:?}", alice.saw());
    assert_eq!(world.noted("alice is at its console by SSH from 127.0.0.1"), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_size_of_the_terminal_is_known_and_followed() {
    use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
    use rustix::termios::{Winsize, tcsetwinsize};

    let world = World::new(&[("alice", "")]).await;
    let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
    grantpt(&master).unwrap();
    unlockpt(&master).unwrap();
    let path = ptsname(&master, Vec::new()).unwrap().into_string().unwrap();
    let size =
        |rows, columns| Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
    tcsetwinsize(&master, size(33, 101)).unwrap();
    let ssh = world.command("ssh", "alice");
    let mut command = Command::new("setsid");
    command.args(["--ctty", "ssh"]).args(ssh.as_std().get_args());
    command.arg(format!("m01@{}", world.at.ip())).kill_on_drop(true);
    let slave = || std::fs::File::options().read(true).write(true).open(Path::new(&path)).unwrap();
    command.stdin(slave()).stdout(slave()).stderr(slave());
    let mut child = command.spawn().unwrap();
    let mut master = tokio::fs::File::from_std(std::fs::File::from(master));
    let mut seen = Vec::new();
    let mut buffer = vec![0; 4096];
    let mut sees = async |master: &mut tokio::fs::File, part: &str| {
        while !text(&seen).contains(part) {
            let read = tokio::time::timeout(CEILING, master.read(&mut buffer)).await;
            let many = read.unwrap_or_else(|_| panic!("no {part:?} in {:?}", text(&seen))).unwrap();
            seen.extend_from_slice(&buffer[..many]);
        }
        seen.clear();
    };
    sees(&mut master, "? helps").await;
    master.write_all(b"\x1d?").await.unwrap();
    sees(&mut master, "stty rows 33 cols 101").await;
    tcsetwinsize(&master, size(50, 132)).unwrap();
    // The signal goes its own way.
    tokio::time::sleep(Duration::from_millis(500)).await;
    master.write_all(b"\x1d?").await.unwrap();
    sees(&mut master, "stty rows 50 cols 132").await;
    master.write_all(b"\x1d.").await.unwrap();
    assert!(tokio::time::timeout(CEILING, child.wait()).await.unwrap().unwrap().success());
}

#[tokio::test(flavor = "multi_thread")]
async fn two_operators_share_a_line_in_turns() {
    let world = World::new(&[("alice", ""), ("bob", "")]).await;
    let m01 = world.machine("m01");
    let mut alice = world.attach("alice", &["-tt"], "m01", &[]);
    alice.sees("alice (ssh from 127.0.0.1) holds the line").await;
    let mut bob = world.attach("bob", &["-tt"], "m01", &[]);
    bob.sees("m01's console is up; alice (ssh from 127.0.0.1) has the line; ^]? helps").await;
    bob.types(b"x").await;
    bob.sees("alice (ssh from 127.0.0.1) has the line: ^]a asks for it, ^]t takes it").await;
    bob.types(b"\r\x1da").await;
    alice.sees("bob (ssh from 127.0.0.1) asks for the line").await;
    alice.types(b"1").await;
    m01.until("alice's", |told| told.typed == b"1").await;
    bob.types(b"\x1dt").await;
    alice.sees("bob (ssh from 127.0.0.1) took the line from alice").await;
    bob.types(b"2").await;
    m01.until("bob's", |told| told.typed == b"12").await;
    alice.types(b"3").await;
    alice.sees("bob (ssh from 127.0.0.1) has the line: ^]a").await;
    bob.types(b"\r\x1dhalice\r").await;
    alice.sees("bob (ssh from 127.0.0.1) handed the line over to alice").await;
    alice.types(b"4").await;
    m01.until("alice's again", |told| told.typed == b"12\r4").await;
    // Bob asks and goes; a third one takes it at once.
    bob.types(b"\x1da\x1d.").await;
    assert_eq!(bob.leaves().await, 0);
    let mut again = world.attach("bob", &["-tt"], "m01", &["take"]);
    alice.sees("took the line from alice (ssh from 127.0.0.1)]\r\n").await;
    again.types(b"\x1d.").await;
    assert_eq!(again.leaves().await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_that_is_withdrawn_is_out() {
    let world = World::new(&[("alice", ""), ("bob", "")]).await;
    let mut alice = world.attach("alice", &["-tt"], "m01", &[]);
    alice.sees("alice (ssh from 127.0.0.1) holds the line").await;
    let mut bob = world.attach("bob", &["-tt"], "m02", &[]);
    bob.sees("bob (ssh from 127.0.0.1) holds the line").await;
    world.let_in(&[("alice", "watch=\"m01\"")]);
    alice.sees("your key may not type here").await;
    bob.sees("your key lets you in no more").await;
    assert_eq!(bob.leaves().await, 1);
    alice.types(b"x").await;
    assert_eq!(world.ssh("bob", &[], "m02", &[]).await.status.code(), Some(255));
    assert_eq!(world.machine("m01").typed(), b"");
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_of_every_kind_that_openssh_makes() {
    let world = World::new(&[]).await;
    let mut lines = String::new();
    let kinds =
        [("rsa", "2048"), ("ecdsa", "256"), ("ecdsa", "384"), ("ecdsa", "521"), ("ed25519", "256")];
    for (kind, bits) in kinds {
        let path = world.dir.path().join(format!("{kind}{bits}"));
        let mut command = Command::new("ssh-keygen");
        command.args(["-q", "-N", "", "-t", kind, "-b", bits, "-f"]).arg(&path);
        assert!(ended(command).await.status.success());
        lines += &std::fs::read_to_string(path.with_extension("pub")).unwrap();
    }
    std::fs::write(world.keys(), lines).unwrap();
    for (kind, bits) in kinds {
        let output = world.ssh(&format!("{kind}{bits}"), &["-T"], "consoles", &[]).await;
        assert_eq!(output.status.code(), Some(0), "{kind}{bits}: {output:?}");
    }
    // The same key with SHA-1 is none.
    let sha1 = ["-T", "-o", "PubkeyAcceptedAlgorithms=ssh-rsa"];
    let output = world.ssh("rsa2048", &sha1, "consoles", &[]).await;
    assert_eq!(output.status.code(), Some(255), "{output:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn ssh_audit_finds_nothing_red() {
    let world = World::new(&[]).await;
    let mut command = Command::new("ssh-audit");
    command.args(["-n", "-p", &world.at.port().to_string(), &world.at.ip().to_string()]);
    let output = ended(command).await;
    let says = text(&output.stdout);
    // 3: a failure; 2: warnings, for it does not know what is newer than itself.
    assert!(matches!(output.status.code(), Some(0 | 2)), "{says}");
    assert!(says.contains("(kex) curve25519-sha256") && !says.contains("[fail]"), "{says}");
    let warns = says.lines().filter(|line| line.contains("[warn]"));
    let news: Vec<&str> = warns.filter(|line| !line.contains("unknown algorithm")).collect();
    assert_eq!(news, Vec::<&str>::new());
}
