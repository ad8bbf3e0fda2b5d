//! A program of lrzsz on a pseudo-terminal, and a relay to it that drops bytes.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use bytes::Bytes;
use koboshi_console::modem::{
    self, Ends, Event, Failure, Folder, Options, Protocol, Rules, Sources, Work, drive,
};
use nix::pty::openpty;
use nix::sys::signal::{Signal, kill};
use nix::sys::termios::{SetArg, cfmakeraw, tcgetattr, tcsetattr};
use nix::unistd::Pid;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

/// Far beyond what anything here takes.
const CEILING: Duration = Duration::from_secs(240);

/// Of what was typed, so much is kept.
const TYPED: usize = 100_000;

/// How it went, and what was told.
pub type How = (Result<(), Failure>, Vec<Event>);

/// The same each time.
pub struct Dice(u64);

impl Dice {
    pub fn new(seed: u64) -> Dice {
        Dice(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    pub fn throw(&mut self, below: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) % below
    }
}

/// Bytes that nothing like comes by itself.
pub fn bytes(many: usize, seed: u64) -> Vec<u8> {
    let mut dice = Dice::new(seed);
    (0..many).map(|_| dice.throw(256).try_into().unwrap()).collect()
}

/// Into this folder, and as large as they like.
pub fn rules(folder: &Path) -> Rules {
    Rules { folder: folder.to_path_buf(), name: None, size: None, overwrite: false, most: 1 << 30 }
}

/// A program at the other end of a line.
pub struct Line {
    child: Child,
    pub ends: Ends,
    pub stop: CancellationToken,
    dropped: Arc<AtomicU64>,
    begun: Instant,
    say: mpsc::Sender<Bytes>,
    typed: Arc<Mutex<Vec<u8>>>,
    stop_at: u64,
    interrupt_at: u64,
    /// The line stays when the program ends.
    _slave: OwnedFd,
}

impl Drop for Line {
    fn drop(&mut self) {
        let _it_ended = self.child.kill();
        let _it_ended = self.child.wait();
    }
}

/// Drops a byte about every so often.
struct Drops {
    every: u64,
    next: u64,
    dice: Dice,
    count: Arc<AtomicU64>,
}

impl Drops {
    fn new(every: u64, seed: u64, count: &Arc<AtomicU64>) -> Drops {
        let mut drops = Drops { every, next: 0, dice: Dice::new(seed), count: count.clone() };
        drops.roll();
        drops
    }

    fn roll(&mut self) {
        self.next = match self.every {
            0 => u64::MAX,
            every => every / 2 + self.dice.throw(every),
        };
    }

    fn pass(&mut self, bytes: &[u8]) -> Vec<u8> {
        let mut passed = Vec::with_capacity(bytes.len());
        for byte in bytes {
            if self.next == 0 {
                self.roll();
                self.count.fetch_add(1, Ordering::Relaxed);
            } else {
                self.next -= 1;
                passed.push(*byte);
            }
        }
        passed
    }
}

impl Line {
    /// Runs it there. One byte in `drops` is dropped, 0: none.
    pub fn start(words: &[&str], folder: &Path, drops: u64, seed: u64) -> Line {
        let pty = openpty(None, None).unwrap();
        let mut how = tcgetattr(&pty.slave).unwrap();
        cfmakeraw(&mut how);
        tcsetattr(&pty.slave, SetArg::TCSANOW, &how).unwrap();
        let (words, rest) = words.split_first().unwrap();
        let child = Command::new(words)
            .args(rest)
            .current_dir(folder)
            .stdin(Stdio::from(pty.slave.try_clone().unwrap()))
            .stdout(Stdio::from(pty.slave.try_clone().unwrap()))
            .stderr(Stdio::null())
            .process_group(0)
            .spawn()
            .unwrap_or_else(|why| panic!("{words}: {why}: `make setup` installs lrzsz"));
        let dropped = Arc::new(AtomicU64::new(0));
        let (say, says) = mpsc::channel::<Bytes>(4);
        let (types, mut typed) = mpsc::channel::<Bytes>(4);
        let kept_say = say.clone();
        let mut from = File::from(pty.master.try_clone().unwrap());
        let mut to = File::from(pty.master);
        let mut drops_from = Drops::new(drops, seed + 1000, &dropped);
        let mut drops_to = Drops::new(drops, seed + 2000, &dropped);
        thread::spawn(move || {
            let mut buffer = vec![0; 4096];
            while let Ok(many @ 1..) = from.read(&mut buffer) {
                let passed = drops_from.pass(&buffer[..many]);
                if say.blocking_send(passed.into()).is_err() {
                    return;
                }
            }
        });
        let keeps = Arc::new(Mutex::new(Vec::new()));
        let kept = keeps.clone();
        thread::spawn(move || {
            while let Some(bytes) = typed.blocking_recv() {
                let mut kept = kept.lock().unwrap();
                if kept.len() < TYPED {
                    kept.extend_from_slice(&bytes);
                }
                drop(kept);
                if to.write_all(&drops_to.pass(&bytes)).is_err() {
                    return;
                }
            }
        });
        let (ends, stop) = (Ends { says, types }, CancellationToken::new());
        Line {
            child,
            ends,
            stop,
            dropped,
            begun: Instant::now(),
            say: kept_say,
            typed: keeps,
            stop_at: u64::MAX,
            interrupt_at: u64::MAX,
            _slave: pty.slave,
        }
    }

    async fn drive(&mut self, engine: Box<dyn modem::Engine>, mut work: Work) -> How {
        let mut told: Vec<Event> = Vec::new();
        let stop = self.stop.clone();
        let says = self.say.clone();
        let (stop_at, mut interrupt_at) = (self.stop_at, self.interrupt_at);
        let child = Pid::from_raw(self.child.id().cast_signed());
        let driven = drive(engine, &mut work, &mut self.ends, &stop, |event| {
            if let Event::At(at) = event {
                if at >= stop_at {
                    stop.cancel();
                }
                if at >= interrupt_at {
                    interrupt_at = u64::MAX;
                    kill(child, Signal::SIGKILL).unwrap();
                    let says = says.clone();
                    // More than once: in the middle of a block they are taken for bytes of it.
                    tokio::spawn(async move {
                        while says.send(Bytes::from_static(&[0x18; 10])).await.is_ok() {
                            tokio::time::sleep(Duration::from_millis(500)).await;
                        }
                    });
                }
            }
            // Of how it goes on, only the first and the last.
            if let (Event::At(_), [.., Event::At(_), Event::At(_)]) = (&event, &told[..]) {
                told.pop();
            }
            told.push(event);
        });
        let how = tokio::time::timeout(CEILING, driven).await;
        (how.expect("it ends"), told)
    }

    /// Stops when so much is done.
    pub fn stop_at(&mut self, at: u64) {
        self.stop_at = at;
    }

    /// Stops after so long.
    pub fn stop_after(&mut self, after: Duration) {
        let stop = self.stop.clone();
        tokio::spawn(async move {
            tokio::time::sleep(after).await;
            stop.cancel();
        });
    }

    /// What stopped is forgotten.
    pub fn go_on(&mut self) {
        self.stop = CancellationToken::new();
    }

    /// The program ends when so much is done, and says so as lrzsz does: what it says at its own end is lost on a
    /// pseudo-terminal more often than not.
    pub fn interrupt_at(&mut self, at: u64) {
        self.interrupt_at = at;
    }

    /// What was typed first.
    pub fn typed(&self) -> Vec<u8> {
        self.typed.lock().unwrap().clone()
    }

    pub async fn send(&mut self, protocol: Protocol, files: &[PathBuf]) -> How {
        self.send_so(protocol, files, Options::default()).await
    }

    pub async fn send_so(&mut self, protocol: Protocol, files: &[PathBuf], so: Options) -> How {
        let sources = Sources::new(files).unwrap();
        let engine = modem::send(protocol, sources.outgoing(), so, Instant::now());
        self.drive(engine, Work::Send(sources)).await
    }

    pub async fn receive(&mut self, protocol: Protocol, rules: Rules) -> How {
        let engine = modem::receive(protocol, Options::default(), Instant::now());
        self.drive(engine, Work::Receive(Folder::new(rules))).await
    }

    /// Waits for the program's end; whether it is content.
    pub async fn ended(&mut self) -> bool {
        let begun = Instant::now();
        loop {
            while self.ends.says.try_recv().is_ok() {}
            if let Some(status) = self.child.try_wait().unwrap() {
                return status.success();
            }
            assert!(begun.elapsed() < CEILING, "it does not end");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    pub fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }

    pub fn took(&self) -> Duration {
        self.begun.elapsed()
    }
}
