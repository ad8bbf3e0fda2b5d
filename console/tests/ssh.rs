//! Consoles by SSH: OpenSSH as people use it, and clients that mean no good.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bytes::Bytes;
use koboshi_console::ssh::{Authorized, Consoles, HostKey, Key, NotReached, Reach, Server, Times};
use koboshi_console::wire::{Ends, Event, Order};
use koboshi_console::{Cannot, Line, Operation, State, Wire};
use russh::ChannelMsg;
use russh::client::{self, AuthResult};
use russh::keys::ssh_key::LineEnding;
use russh::keys::ssh_key::private::Ed25519Keypair;
use russh::keys::{PrivateKey, PrivateKeyWithHashAlg};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::process::{Child, Command};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

/// Far beyond what anything here takes.
const CEILING: Duration = Duration::from_secs(60);

/// A machine at the other end of a line: what it was told, and a mouth. It knows BREAK, and no other signal.
#[derive(Clone, Default)]
struct Machine {
    told: Arc<Mutex<Told>>,
    says: Arc<Mutex<Option<mpsc::Sender<Event>>>>,
}

#[derive(Default)]
struct Told {
    typed: Vec<u8>,
    breaks: usize,
    /// It takes nothing.
    deaf: bool,
    /// It sends back what is typed.
    echoes: bool,
}

impl Machine {
    fn line(&self) -> Line {
        let machine = self.clone();
        Line::start(move || {
            let machine = machine.clone();
            async move {
                let (wire, ends) = Wire::new();
                tokio::spawn(machine.drive(ends));
                Ok(wire)
            }
        })
    }

    async fn drive(self, Ends { events, mut orders }: Ends) {
        *self.says.lock().unwrap() = Some(events.clone());
        loop {
            while self.told.lock().unwrap().deaf {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            let Some(order) = orders.recv().await else { return };
            match order {
                Order::Type(bytes) => {
                    self.told.lock().unwrap().typed.extend_from_slice(&bytes);
                    if self.told.lock().unwrap().echoes {
                        let _nobody_reads = events.send(Event::data(&bytes)).await;
                    }
                }
                Order::Do(Operation::Break, done) => {
                    self.told.lock().unwrap().breaks += 1;
                    let _nobody_waits = done.send(Ok(()));
                }
                Order::Do(_, done) => {
                    let _nobody_waits = done.send(Err(Cannot::Unable("it cannot".to_string())));
                }
                Order::Close(done) => {
                    let _nobody_waits = done.send(());
                    return;
                }
            }
        }
    }

    async fn says(&self, bytes: &[u8]) {
        let says = self.says.lock().unwrap().clone().expect("its line is open");
        for chunk in bytes.chunks(4096) {
            let bytes = Bytes::copy_from_slice(chunk);
            says.send(Event::Data { at: Instant::now(), bytes }).await.expect("the line is kept");
        }
    }

    fn typed(&self) -> Vec<u8> {
        self.told.lock().unwrap().typed.clone()
    }

    async fn until(&self, what: &str, is: impl Fn(&Told) -> bool) {
        let begun = Instant::now();
        while !is(&self.told.lock().unwrap()) {
            let typed = String::from_utf8_lossy(&self.typed()).into_owned();
            assert!(begun.elapsed() < CEILING, "{what}: {typed:?}");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}

/// Machines and their lines; lists are names with commas between them.
struct Rack {
    lines: BTreeMap<String, Line>,
    notes: Mutex<Vec<String>>,
}

impl Consoles for Rack {
    fn reach(&self, key: &Key, who: &str) -> Result<Reach, NotReached> {
        let line = self.lines.get(who);
        let line = line.ok_or_else(|| NotReached::Unknown(format!("there is no {who}")))?;
        let holds = |list: &Option<String>| {
            list.as_ref().is_some_and(|list| list.split(',').any(|name| name == who))
        };
        let types = key.limits.as_ref().is_none_or(|limits| holds(&limits.types));
        if !types && !key.limits.as_ref().is_some_and(|limits| holds(&limits.watch)) {
            return Err(NotReached::Refused(format!("{} has no business at {who}", key.name)));
        }
        Ok(Reach { name: who.to_string(), line: line.handle(), types })
    }

    fn list(&self, _: &Key) -> String {
        self.lines.keys().map(|name| format!("{name} is there\n")).collect()
    }

    fn note(&self, _: Option<&str>, text: String) {
        self.notes.lock().unwrap().push(text);
    }
}

/// A server with machines m01 and m02, and people's keys.
struct World {
    dir: TempDir,
    at: SocketAddr,
    rack: Arc<Rack>,
    machines: BTreeMap<&'static str, Machine>,
    cancel: CancellationToken,
}

fn private(seed: u8) -> PrivateKey {
    PrivateKey::from(Ed25519Keypair::from_seed(&[seed; 32]))
}

impl World {
    /// Each with a key of the same name: alice, bob … `keys` are what stands before theirs.
    async fn new(people: &[(&str, &str)]) -> World {
        let dir = TempDir::new().unwrap();
        let machines: BTreeMap<_, _> =
            ["m01", "m02"].into_iter().map(|name| (name, Machine::default())).collect();
        let lines: BTreeMap<String, Line> =
            machines.iter().map(|(name, machine)| (name.to_string(), machine.line())).collect();
        for line in lines.values() {
            let mut status = line.follow_status();
            let up = status.wait_for(|status| matches!(status.state, State::Up { .. }));
            tokio::time::timeout(CEILING, up).await.unwrap().unwrap();
        }
        let rack = Arc::new(Rack { lines, notes: Mutex::default() });
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let at = listener.local_addr().unwrap();
        let world = World { dir, at, rack, machines, cancel: CancellationToken::new() };
        for (seed, name) in (1u8..).zip(["alice", "bob", "carol", "stranger"]) {
            let private = private(seed);
            let path = world.dir.path().join(name);
            private.write_openssh_file(&path, LineEnding::LF).unwrap();
        }
        world.let_in(people);
        let key = HostKey::at(&world.dir.path().join("ssh")).unwrap();
        let known = format!("[{}]:{} {}\n", at.ip(), at.port(), key.public);
        std::fs::write(world.dir.path().join("known_hosts"), known).unwrap();
        let authorized = Arc::new(Authorized::default());
        authorized.follow(Some(world.keys()));
        let (rack, cancel) = (world.rack.clone(), world.cancel.clone());
        let secs = Duration::from_secs;
        let times = Times { grace: secs(4), look: secs(1), stuck: secs(3) };
        let server = Server { key, authorized, consoles: rack, times };
        tokio::spawn(server.serve(listener, cancel));
        world
    }

    fn keys(&self) -> PathBuf {
        self.dir.path().join("console.keys")
    }

    fn let_in(&self, people: &[(&str, &str)]) {
        let line = |(name, options): &(&str, &str)| {
            let seed = match *name {
                "alice" => 1,
                "bob" => 2,
                _ => 3,
            };
            let public = private(seed).public_key().to_openssh().unwrap();
            format!("{options} {public} {name}\n")
        };
        let text: String = people.iter().map(line).collect();
        let new = self.dir.path().join("console.keys.new");
        std::fs::write(&new, text).unwrap();
        std::fs::rename(new, self.keys()).unwrap();
    }

    fn machine(&self, name: &str) -> &Machine {
        &self.machines[name]
    }

    /// One of OpenSSH's programs, as this person.
    fn command(&self, program: &str, person: &str) -> Command {
        let mut command = Command::new(program);
        command.args(["-F", "none", "-i"]).arg(self.dir.path().join(person));
        let known = self.dir.path().join("known_hosts");
        command.arg("-o").arg(format!("UserKnownHostsFile={}", known.display()));
        for option in [
            "StrictHostKeyChecking=yes",
            "IdentitiesOnly=yes",
            "IdentityAgent=none",
            "BatchMode=yes",
            "GlobalKnownHostsFile=/dev/null",
        ] {
            command.args(["-o", option]);
        }
        command.arg("-o").arg(format!("Port={}", self.at.port()));
        command.env_remove("SSH_AUTH_SOCK").kill_on_drop(true);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    /// What `ssh` says and how it ends, with these options and words.
    async fn ssh(&self, person: &str, options: &[&str], who: &str, words: &[&str]) -> Output {
        let mut command = self.command("ssh", person);
        command.args(options).arg(format!("{who}@{}", self.at.ip())).args(words);
        ended(command).await
    }

    /// Somebody at a console, with these options and words.
    fn attach(&self, person: &str, options: &[&str], who: &str, words: &[&str]) -> Seat {
        let mut command = self.command("ssh", person);
        command.args(options).arg(format!("{who}@{}", self.at.ip())).args(words);
        command.stdin(Stdio::piped());
        Seat::new(command.spawn().expect("ssh runs"))
    }

    fn noted(&self, part: &str) -> usize {
        self.rack.notes.lock().unwrap().iter().filter(|note| note.contains(part)).count()
    }

    /// A client of our own, as nobody's friend.
    async fn stranger(&self) -> client::Handle<Anybody> {
        let config = Arc::new(client::Config::default());
        client::connect(config, self.at, Anybody).await.expect("it is answered")
    }
}

impl Drop for World {
    fn drop(&mut self) {
        self.cancel.cancel();
    }
}

async fn ended(mut command: Command) -> Output {
    let ended = tokio::time::timeout(CEILING, command.output()).await;
    ended.expect("it ends").expect("it runs")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// An `ssh` that runs.
struct Seat {
    child: Child,
    out: mpsc::Receiver<Vec<u8>>,
    err: mpsc::Receiver<Vec<u8>>,
    seen: Vec<u8>,
    heard: Vec<u8>,
}

fn read(mut from: impl tokio::io::AsyncRead + Unpin + Send + 'static) -> mpsc::Receiver<Vec<u8>> {
    let (send, receive) = mpsc::channel(64);
    tokio::spawn(async move {
        let mut buffer = vec![0; 16 * 1024];
        while let Ok(many @ 1..) = from.read(&mut buffer).await {
            if send.send(buffer[..many].to_vec()).await.is_err() {
                return;
            }
        }
    });
    receive
}

impl Seat {
    fn new(mut child: Child) -> Seat {
        let (out, err) = (child.stdout.take().unwrap(), child.stderr.take().unwrap());
        Seat { out: read(out), err: read(err), child, seen: Vec::new(), heard: Vec::new() }
    }

    async fn types(&mut self, bytes: &[u8]) {
        let stdin = self.child.stdin.as_mut().expect("a pipe");
        stdin.write_all(bytes).await.expect("ssh reads");
        stdin.flush().await.expect("ssh reads");
    }

    /// Until that was shown on standard output or error.
    async fn sees(&mut self, part: &str) {
        let ends = Instant::now() + CEILING;
        let has = |bytes: &[u8]| text(bytes).contains(part);
        while !has(&self.seen) && !has(&self.heard) {
            let all = || format!("{:?} {:?}", text(&self.seen), text(&self.heard));
            tokio::select! {
                Some(bytes) = self.out.recv() => self.seen.extend(bytes),
                Some(bytes) = self.err.recv() => self.heard.extend(bytes),
                () = tokio::time::sleep_until(ends.into()) => panic!("no {part:?} in {}", all()),
                else => panic!("ssh ended without {part:?}: {}", all()),
            }
        }
    }

    fn saw(&self) -> String {
        text(&self.seen) + &text(&self.heard)
    }

    /// Its exit code, when all of what it said is known.
    async fn leaves(&mut self) -> i32 {
        let ended = tokio::time::timeout(CEILING, self.child.wait()).await;
        while let Some(bytes) = self.out.recv().await {
            self.seen.extend(bytes);
        }
        while let Some(bytes) = self.err.recv().await {
            self.heard.extend(bytes);
        }
        ended.expect("it ends").expect("it ran").code().expect("by itself")
    }
}

/// Trusts any server: it is ours.
struct Anybody;

impl client::Handler for Anybody {
    type Error = russh::Error;

    async fn check_server_key(
        &mut self,
        _: &russh::keys::PublicKeyOrCertificate,
    ) -> Result<bool, russh::Error> {
        Ok(true)
    }
}

async fn log_in(handle: &mut client::Handle<Anybody>, who: &str, seed: u8) -> bool {
    let key = PrivateKeyWithHashAlg::new(Arc::new(private(seed)), None);
    matches!(handle.authenticate_publickey(who, key).await, Ok(AuthResult::Success))
}

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
async fn a_thousand_wrong_keys_keep_nobody_out() {
    let world = World::new(&[("alice", "")]).await;
    let tried = try_keys(world.at, 0).await;
    assert!((20..=21).contains(&tried), "the last answer is the end of the connection: {tried}");
    let tries: Vec<_> = (1..50).map(|nth| tokio::spawn(try_keys(world.at, nth))).collect();
    tokio::time::sleep(Duration::from_secs(1)).await;
    let mut alice = world.attach("alice", &["-tt"], "m01", &[]);
    alice.sees("alice (ssh from 127.0.0.1) holds the line").await;
    for tried in tries {
        let tried = tokio::time::timeout(CEILING, tried).await.expect("it ends").unwrap();
        assert!(tried < 20, "they are answered slowly, and cut off: {tried}");
    }
    assert_eq!(world.noted("not among the authorized keys"), 1, "{:?}", world.rack.notes);
    alice.types(b"\x1d.").await;
    assert_eq!(alice.leaves().await, 0);
}

/// Tries one key after the other, forty of them; how many were answered.
async fn try_keys(at: SocketAddr, connection: u32) -> usize {
    let config = Arc::new(client::Config::default());
    let Ok(mut handle) = client::connect(config, at, Anybody).await else { return 0 };
    let mut tried = 0;
    for nth in 0..40u32 {
        let mut seed = [7; 32];
        seed[..8].copy_from_slice(&[connection.to_be_bytes(), nth.to_be_bytes()].concat());
        let key = PrivateKey::from(Ed25519Keypair::from_seed(&seed));
        let key = PrivateKeyWithHashAlg::new(Arc::new(key), None);
        match handle.authenticate_publickey("m01", key).await {
            Ok(AuthResult::Success) => panic!("a wrong key let somebody in"),
            Ok(_) => tried += 1,
            Err(_) => break,
        }
    }
    tried
}

#[tokio::test(flavor = "multi_thread")]
async fn strangers_are_cut_off_after_a_while() {
    let world = World::new(&[("alice", "")]).await;
    let mut open = Vec::new();
    for _ in 0..40 {
        open.push(TcpStream::connect(world.at).await.unwrap());
    }
    let mut alice = world.attach("alice", &["-tt"], "m01", &[]);
    alice.sees("alice (ssh from 127.0.0.1) holds the line").await;
    // The oldest made room; the others had their time.
    let mut buffer = Vec::new();
    for (nth, stream) in open.iter_mut().enumerate() {
        let begun = Instant::now();
        let read = tokio::time::timeout(CEILING, stream.read_to_end(&mut buffer)).await;
        let _reset_is_as_good = read.expect("it is cut off");
        assert!(nth > 8 || begun.elapsed() < Duration::from_secs(3), "{nth}");
    }
    alice.types(b"\x1d.").await;
    assert_eq!(alice.leaves().await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn floods_hurt_nobody_but_their_own() {
    let world = World::new(&[("alice", ""), ("bob", "")]).await;
    let m01 = world.machine("m01").clone();
    // Channels: one console at a time, and the door after so many.
    let mut flood = world.stranger().await;
    assert!(log_in(&mut flood, "m01", 1).await);
    let first = flood.channel_open_session().await.expect("one console");
    let mut refused = 0;
    for _ in 0..1000 {
        match flood.channel_open_session().await {
            Ok(_) => panic!("a second console"),
            Err(russh::Error::ChannelOpenFailure(_)) => refused += 1,
            Err(_) => break,
        }
    }
    assert_eq!(refused, 64);
    drop(first);
    // A viewer that never reads.
    let mut stuck = world.stranger().await;
    assert!(log_in(&mut stuck, "m01", 1).await);
    let stuck_channel = stuck.channel_open_session().await.unwrap();
    stuck_channel.exec(true, "watch").await.unwrap();
    let mut bob = world.attach("bob", &["-T"], "m01", &["watch"]);
    m01.says(b"begin ").await;
    bob.sees("begin ").await;
    let megabyte = vec![b'x'; 1 << 20];
    for _ in 0..8 {
        tokio::time::timeout(CEILING, m01.says(&megabyte))
            .await
            .expect("the line waits for nobody");
    }
    m01.says(b"the end").await;
    bob.sees("the end").await;
    // Who pastes into a line that takes nothing is told, and can still leave.
    m01.told.lock().unwrap().deaf = true;
    let mut alice = world.attach("alice", &["-tt"], "m01", &[]);
    alice.sees("alice (ssh from 127.0.0.1) holds the line").await;
    alice.types(&vec![b'y'; 8 * 1024]).await;
    m01.says(b"still heard").await;
    alice.sees("still heard").await;
    alice.sees("the line takes nothing").await;
    m01.told.lock().unwrap().deaf = false;
    alice.types(b"\r\x1d.").await;
    assert_eq!(alice.leaves().await, 0);
    drop(stuck_channel);
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_that_are_odd_end_nothing_but_themselves() {
    let world = World::new(&[("alice", "")]).await;
    let mut handle = world.stranger().await;
    assert!(log_in(&mut handle, "m01", 1).await);
    // A channel after the other, on one connection.
    for _ in 0..3 {
        let mut channel = handle.channel_open_session().await.expect("the former one has ended");
        channel.request_pty(true, "xterm", u32::MAX, 0, 0, 0, &[]).await.unwrap();
        channel.set_env(true, "LD_PRELOAD", "/tmp/x.so").await.unwrap();
        channel.window_change(0, u32::MAX, 0, 0).await.unwrap();
        channel.exec(true, vec![0xff; 900]).await.unwrap();
        channel.request_shell(true).await.unwrap();
        let mut status = None;
        while let Some(message) = channel.wait().await {
            if let ChannelMsg::ExitStatus { exit_status } = message {
                status = Some(exit_status);
            }
        }
        assert_eq!(status, Some(1));
    }
    let from: IpAddr = world.at.ip();
    assert_eq!(world.noted(&format!("from {from}")), 0, "nobody came to a console");
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
