//! A server of consoles, the machines behind it, and people's keys.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Output, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bytes::Bytes;
use koboshi_console::ssh::{Authorized, Consoles, HostKey, Key, NotReached, Reach, Server, Times};
use koboshi_console::wire::{Ends, Event, Order};
use koboshi_console::{Cannot, Line, Operation, State, Wire};
use russh::client;
use russh::keys::PrivateKey;
use russh::keys::ssh_key::LineEnding;
use russh::keys::ssh_key::private::Ed25519Keypair;
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::process::Command;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::seat::{Anybody, Seat, ended};

/// Far beyond what anything here takes.
pub const CEILING: Duration = Duration::from_secs(60);

/// A machine at the other end of a line: what it was told, and a mouth. It knows BREAK, and no other signal.
#[derive(Clone, Default)]
pub struct Machine {
    pub told: Arc<Mutex<Told>>,
    pub says: Arc<Mutex<Option<mpsc::Sender<Event>>>>,
}

#[derive(Default)]
pub struct Told {
    pub typed: Vec<u8>,
    pub breaks: usize,
    /// It takes nothing.
    pub deaf: bool,
    /// It sends back what is typed.
    pub echoes: bool,
}

impl Machine {
    pub fn line(&self) -> Line {
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

    pub async fn drive(self, Ends { events, mut orders }: Ends) {
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

    pub async fn says(&self, bytes: &[u8]) {
        let says = self.says.lock().unwrap().clone().expect("its line is open");
        for chunk in bytes.chunks(4096) {
            let bytes = Bytes::copy_from_slice(chunk);
            says.send(Event::Data { at: Instant::now(), bytes }).await.expect("the line is kept");
        }
    }

    pub fn typed(&self) -> Vec<u8> {
        self.told.lock().unwrap().typed.clone()
    }

    pub async fn until(&self, what: &str, is: impl Fn(&Told) -> bool) {
        let begun = Instant::now();
        while !is(&self.told.lock().unwrap()) {
            let typed = String::from_utf8_lossy(&self.typed()).into_owned();
            assert!(begun.elapsed() < CEILING, "{what}: {typed:?}");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}

/// Machines and their lines; lists are names with commas between them.
pub struct Rack {
    pub lines: BTreeMap<String, Line>,
    pub notes: Mutex<Vec<String>>,
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
pub struct World {
    pub dir: TempDir,
    pub at: SocketAddr,
    pub rack: Arc<Rack>,
    pub machines: BTreeMap<&'static str, Machine>,
    pub cancel: CancellationToken,
}

pub fn private(seed: u8) -> PrivateKey {
    PrivateKey::from(Ed25519Keypair::from_seed(&[seed; 32]))
}

impl World {
    /// Each with a key of the same name: alice, bob … `keys` are what stands before theirs.
    pub async fn new(people: &[(&str, &str)]) -> World {
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

    pub fn keys(&self) -> PathBuf {
        self.dir.path().join("console.keys")
    }

    pub fn let_in(&self, people: &[(&str, &str)]) {
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

    pub fn machine(&self, name: &str) -> &Machine {
        &self.machines[name]
    }

    /// One of OpenSSH's programs, as this person.
    pub fn command(&self, program: &str, person: &str) -> Command {
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
    pub async fn ssh(&self, person: &str, options: &[&str], who: &str, words: &[&str]) -> Output {
        let mut command = self.command("ssh", person);
        command.args(options).arg(format!("{who}@{}", self.at.ip())).args(words);
        ended(command).await
    }

    /// Somebody at a console, with these options and words.
    pub fn attach(&self, person: &str, options: &[&str], who: &str, words: &[&str]) -> Seat {
        let mut command = self.command("ssh", person);
        command.args(options).arg(format!("{who}@{}", self.at.ip())).args(words);
        command.stdin(Stdio::piped());
        Seat::new(command.spawn().expect("ssh runs"))
    }

    pub fn noted(&self, part: &str) -> usize {
        self.rack.notes.lock().unwrap().iter().filter(|note| note.contains(part)).count()
    }

    /// A client of our own, as nobody's friend.
    pub async fn stranger(&self) -> client::Handle<Anybody> {
        let config = Arc::new(client::Config::default());
        client::connect(config, self.at, Anybody).await.expect("it is answered")
    }
}

impl Drop for World {
    fn drop(&mut self) {
        self.cancel.cancel();
    }
}
