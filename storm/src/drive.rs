//! The loop: frames to machines, machines' frames to the wire, questions to tasks, and the clock. One
//! thread; what it costs is told apart from what the server costs by processes.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};
use std::io;
use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use koboshi_pxe::Mac;
use koboshi_pxe::dhcp::frame::{self, Arp};
use tokio::net::TcpStream;
use tokio::sync::mpsc;

use crate::dhcp;
use crate::dice::Dice;
use crate::http;
use crate::log::{Log, STAGES, Stage};
use crate::machine::{Answer, Effect, Heard, Machine};
use crate::wire::{self, FRAME_MAX, Wire};

/// Frames taken before the others get a turn.
const BATCH: usize = 256;
/// Where the machines' own addresses begin. Locally administered: nobody else's.
const OUI: [u8; 3] = [0x02, 0x6b, 0x73];

/// The address of a machine by its number.
pub fn mac(number: u32) -> Mac {
    let [_, a, b, c] = number.to_be_bytes();
    let [x, y, z] = OUI;
    Mac([x, y, z, a, b, c])
}

/// A machine by its address.
fn number(mac: &[u8]) -> Option<usize> {
    let [x, y, z, a, b, c] = *mac.first_chunk::<6>()?;
    let number = u32::from_be_bytes([0, a, b, c]);
    ([x, y, z] == OUI).then_some(number as usize)
}

/// What the wire does, and for how long at most.
#[derive(Debug, Clone, Copy)]
pub struct Weather {
    /// What is random comes from here.
    pub seed: u64,
    /// Datagrams lost, of a million, each way.
    pub lost: u32,
    /// Datagrams that come twice, of a million, each way.
    pub doubled: u32,
    /// The storm ends by then.
    pub most: Duration,
    /// How long machines that are up are watched further.
    pub after: Duration,
}

/// How it stands.
#[derive(Debug, Clone, Default)]
pub struct Progress {
    /// Since the storm began.
    pub at: Duration,
    /// Machines switched on.
    pub on: usize,
    /// Machines that have passed each stage.
    pub passed: [usize; STAGES],
    /// Machines that gave up for good.
    pub lost: usize,
}

/// What came of it.
#[derive(Debug)]
pub struct Outcome {
    /// What each machine did.
    pub logs: Vec<Log>,
    /// Datagrams that the weather took.
    pub lost: u64,
    /// Datagrams that our own socket had no room for.
    pub unsent: u64,
    /// Bytes of bodies that were read.
    pub bytes: u64,
    /// Questions over HTTP.
    pub asked: u64,
}

type Answered = (usize, Result<Answer, String>, Option<TcpStream>);

struct Driver<'a> {
    machines: Vec<Machine>,
    wire: &'a Wire,
    weather: Weather,
    dice: Dice,
    start: Instant,
    by_address: HashMap<Ipv4Addr, usize>,
    /// When each machine is looked at next, as the heap knows it.
    due: Vec<Option<Duration>>,
    heap: BinaryHeap<Reverse<(Duration, usize)>>,
    kept: Vec<Option<TcpStream>>,
    answers: mpsc::UnboundedSender<Answered>,
    effects: Vec<Effect>,
    over: usize,
    outcome: Outcome,
}

/// Runs a storm until it is over, or told to `stop`. Machines have [`mac`] addresses by their place in
/// the list. `tell` is called once a second.
pub async fn run(
    machines: Vec<Machine>,
    wire: &Wire,
    weather: Weather,
    mut tell: impl FnMut(&Progress),
    stop: impl Future<Output = ()>,
) -> io::Result<Outcome> {
    let count = machines.len();
    // Bounded by the machines: each has one question under way, and a heartbeat.
    let (answers, mut answered) = mpsc::unbounded_channel();
    let mut driver = Driver {
        dice: Dice::new(weather.seed, 0),
        start: Instant::now(),
        by_address: HashMap::with_capacity(count),
        due: vec![None; count],
        heap: BinaryHeap::with_capacity(count * 2),
        kept: (0..count).map(|_| None).collect(),
        effects: Vec::new(),
        over: 0,
        outcome: Outcome { logs: Vec::new(), lost: 0, unsent: 0, bytes: 0, asked: 0 },
        machines,
        wire,
        weather,
        answers,
    };
    for who in 0..count {
        driver.settle(who, false);
    }
    let mut buffer = vec![0; FRAME_MAX];
    let mut beat = tokio::time::interval(Duration::from_secs(1));
    beat.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Skip);
    let mut end = weather.most;
    let mut stop = std::pin::pin!(stop);
    loop {
        let next = driver.heap.peek().map(|Reverse((at, _))| driver.start + *at);
        tokio::select! {
            ready = wire.ready() => {
                ready?;
                driver.receive(&mut buffer)?;
                driver.hear()?;
            }
            Some(answer) = answered.recv() => {
                driver.answered(answer);
                for _ in 0..BATCH {
                    let Ok(answer) = answered.try_recv() else { break };
                    driver.answered(answer);
                }
            }
            () = until(next) => {}
            _ = beat.tick() => tell(&driver.progress()),
            () = &mut stop => break,
        }
        driver.on_deadlines();
        let now = driver.start.elapsed();
        if driver.over == count && end == weather.most {
            end = now + weather.after;
        }
        if now >= end {
            break;
        }
        // Everything may be ready all the time: the questions' tasks need their turn too.
        tokio::task::yield_now().await;
    }
    tell(&driver.progress());
    driver.outcome.logs = driver.machines.into_iter().map(|machine| machine.log).collect();
    Ok(driver.outcome)
}

async fn until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at.into()).await,
        None => std::future::pending().await,
    }
}

impl Driver<'_> {
    fn receive(&mut self, buffer: &mut [u8]) -> io::Result<()> {
        for _ in 0..BATCH {
            let length = match self.wire.receive(buffer) {
                Ok(length) => length,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error),
            };
            let Some(datagram) = buffer.get(..length).and_then(wire::read) else { continue };
            let (_, address, port) = datagram.to;
            // To everybody, or to one who has no address: the message says whose it is.
            let who = match port == dhcp::PORTS.0 {
                true => datagram.payload.get(28..34).and_then(number),
                false => self.by_address.get(&address).copied(),
            };
            let Some(who) = who.filter(|who| *who < self.machines.len()) else { continue };
            let whole = datagram.payload.len().max(1);
            let cut = self.machines[who].cut().filter(|_| port != dhcp::PORTS.0).unwrap_or(whole);
            for payload in datagram.payload.chunks(cut.max(1)) {
                if self.takes() {
                    continue;
                }
                let copies = 1 + u32::from(self.dice.chance(self.weather.doubled));
                for _ in 0..copies {
                    let heard = Heard { from: datagram.from, port, payload };
                    let now = self.start.elapsed();
                    let was_over = self.machines[who].is_over();
                    self.machines[who].heard(heard, now, &mut self.effects);
                    self.settle(who, was_over);
                }
            }
        }
        Ok(())
    }

    /// Whoever asks for a machine's address by ARP gets the interface's, by which its TCP goes.
    fn hear(&mut self) -> io::Result<()> {
        for _ in 0..BATCH {
            match self.wire.hear() {
                Ok(Some(arp)) if arp.op == 1 => {
                    let (mac, address) = (self.wire.mac, arp.target.1);
                    if self.by_address.contains_key(&address) && arp.sender.0 != mac {
                        let answer = Arp { op: 2, sender: (mac, address), target: arp.sender };
                        self.wire.send(&answer.encode())?;
                    }
                }
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    fn answered(&mut self, (who, answer, kept): Answered) {
        if kept.is_some() {
            self.kept[who] = kept;
        }
        if let Ok(answer) = &answer {
            self.outcome.bytes += answer.bytes;
        }
        let was_over = self.machines[who].is_over();
        let now = self.start.elapsed();
        self.machines[who].answered(answer, now, &mut self.effects);
        self.settle(who, was_over);
    }

    fn on_deadlines(&mut self) {
        for _ in 0..BATCH {
            let now = self.start.elapsed();
            let Some(Reverse((at, who))) = self.heap.peek().copied() else { return };
            if at > now {
                return;
            }
            self.heap.pop();
            if self.due[who] != Some(at) {
                continue;
            }
            self.due[who] = None;
            let was_over = self.machines[who].is_over();
            self.machines[who].on_deadline(now, &mut self.effects);
            self.settle(who, was_over);
        }
    }

    /// Does what a machine wants done, and remembers when to look at it again.
    fn settle(&mut self, who: usize, was_over: bool) {
        for effect in std::mem::take(&mut self.effects) {
            match effect {
                Effect::Send { from: (address, port), to, payload } => {
                    let from = (self.machines[who].spec.mac, address, port);
                    let frame = frame::Datagram { from, to, payload: &payload }.encode();
                    let copies = 1 + u32::from(self.dice.chance(self.weather.doubled));
                    for _ in 0..copies {
                        // What does not fit is lost, as in any other NIC.
                        if !self.takes() && self.wire.send(&frame).is_err() {
                            self.outcome.unsent += 1;
                        }
                    }
                }
                Effect::HangUp => self.kept[who] = None,
                Effect::Fetch(ask) => {
                    let Some(from) = self.machines[who].address() else { continue };
                    let (kept, answers) = (self.kept[who].take(), self.answers.clone());
                    self.outcome.asked += 1;
                    tokio::spawn(async move {
                        let (answer, kept) = http::ask(from, kept, &ask).await;
                        // The storm may be over.
                        drop(answers.send((who, answer, kept)));
                    });
                }
            }
        }
        let machine = &self.machines[who];
        if let Some(address) = machine.address() {
            self.by_address.insert(address, who);
        }
        let due = machine.deadline();
        if due != self.due[who] {
            self.due[who] = due;
            self.heap.extend(due.map(|at| Reverse((at, who))));
        }
        if machine.is_over() && !was_over {
            self.over += 1;
        }
    }

    /// The weather takes a datagram.
    fn takes(&mut self) -> bool {
        let taken = self.dice.chance(self.weather.lost);
        self.outcome.lost += u64::from(taken);
        taken
    }

    fn progress(&self) -> Progress {
        let at = self.start.elapsed();
        let mut progress = Progress { at, ..Progress::default() };
        for machine in &self.machines {
            progress.on += usize::from(machine.log.on <= at);
            let up = machine.log.of(Stage::Up).done.is_some();
            progress.lost += usize::from(machine.is_over() && !up);
            for stage in Stage::ALL {
                progress.passed[stage as usize] +=
                    usize::from(machine.log.of(stage).done.is_some());
            }
        }
        progress
    }
}
