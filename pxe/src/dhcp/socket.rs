//! The driver: the loop between the sockets of all interfaces, the one state machine, the boot
//! decision and the journal.

use std::collections::VecDeque;
use std::io;
use std::net::Ipv4Addr;
use std::task::Poll;
use std::time::{Duration, Instant};

use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use futures::{FutureExt, StreamExt};
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use super::answer::Answer;
use super::event::{Counters, Event};
use super::frame::Arp;
use super::kept::LeaseChange;
use super::lease::Now;
use super::look::{Looks, Seen};
use super::packet::BadPacket;
use super::probe::{Due, Probes};
use super::request::{Heard, Request};
use super::server::{Effect, LeaseStatus, Server, Ticket};
use super::wire::{Received, Wire};
use crate::Mac;

/// Datagrams, ARP packets, or changes that are written down, taken before the others get a turn.
const BATCH: usize = 256;

/// How often it is told that the journal takes no more.
const TELL: Duration = Duration::from_secs(10);

/// One change for the journal. Dropping `done` says that it failed.
#[derive(Debug)]
pub struct JournalWrite {
    /// The change. Those of one channel are made in their order.
    pub change: LeaseChange,
    /// It and all before it must survive that the host loses its power, before anybody is told.
    pub durable: bool,
    /// Told once it is written down, or is not.
    pub done: oneshot::Sender<bool>,
}

/// What the rest of the appliance asks of a running server.
#[derive(Debug)]
pub enum Control {
    /// A machine gave a sign of life.
    Keep(Mac),
    /// The pool address it holds.
    Lookup(Mac, oneshot::Sender<Option<Ipv4Addr>>),
    /// Whether anybody but these machines has an address.
    Look {
        /// On which of the interfaces served.
        wire: usize,
        /// Whose address.
        address: Ipv4Addr,
        /// Who does not count.
        not: Vec<Mac>,
        /// To be told.
        seen: Seen,
    },
    /// An interface as it is now: where it was made anew, or has another address, its sockets are opened again.
    Link {
        /// Which of the interfaces served.
        wire: usize,
        /// Its number in the kernel.
        index: usize,
        /// Its address.
        mac: Mac,
        /// Our addresses on it, to be announced: machines that run know them by the MAC that was.
        ours: Vec<Ipv4Addr>,
        /// Told once it is served as it is.
        served: oneshot::Sender<()>,
    },
    /// All leases.
    Leases(oneshot::Sender<Vec<LeaseStatus>>),
    /// How often what has happened.
    Counters(oneshot::Sender<Counters>),
}

/// Serves interfaces until cancelled; `Heard::wire` and `Subnet::wire` count them in the order given.
/// `desk` is the boot decision; `journal` writes leases
/// down. Nothing here waits for the journal: clients whose lease is on its way do.
pub async fn serve(
    wires: Vec<Wire>,
    server: Server,
    desk: impl Fn(&Request) -> Answer + Send,
    tell: impl Fn(Event) + Send,
    journal: mpsc::Sender<JournalWrite>,
    mut control: mpsc::Receiver<Control>,
    cancel: CancellationToken,
) -> io::Result<()> {
    let probes = wires.iter().map(|wire| Probes::new(wire.mac, wire.config.probe)).collect();
    let looks = wires.iter().map(|wire| Looks::new(wire.mac)).collect();
    let commits = FuturesUnordered::new();
    let overruns = vec![0; wires.len()];
    let lost = Lost::default();
    let mut driver =
        Driver { wires, server, desk, tell, journal, probes, looks, commits, overruns, lost };
    loop {
        let deadlines = driver.probes.iter().map(Probes::next);
        let deadlines = deadlines.chain(driver.looks.iter().map(Looks::next));
        let deadline = deadlines.chain([driver.server.next_deadline()]).flatten().min();
        tokio::select! {
            () = cancel.cancelled() => {
                // That the clock was set a moment ago is for the next one to know.
                driver.sweep(Now::read());
                return Ok(());
            }
            Some((ticket, ok)) = driver.commits.next() => driver.committed(ticket, ok),
            Some(control) = control.recv() => driver.control(control),
            () = until(deadline) => driver.on_deadline(),
            ready = any(&driver.wires) => {
                ready?;
                // Of those that have nothing each call is a look at a flag.
                for wire in 0..driver.wires.len() {
                    driver.hear(wire);
                    driver.receive(wire, false);
                    driver.receive(wire, true);
                }
            }
        }
        driver.all_committed();
    }
}

/// Any of the interfaces has something for us.
async fn any(wires: &[Wire]) -> io::Result<()> {
    std::future::poll_fn(|context| {
        let mut polled = wires.iter().map(|wire| wire.poll_ready(context));
        polled.find(Poll::is_ready).unwrap_or(Poll::Pending)
    })
    .await
}

async fn until(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => tokio::time::sleep_until(deadline.into()).await,
        None => std::future::pending().await,
    }
}

struct Driver<Desk, Tell> {
    wires: Vec<Wire>,
    server: Server,
    desk: Desk,
    tell: Tell,
    journal: mpsc::Sender<JournalWrite>,
    /// Of each interface.
    probes: Vec<Probes>,
    looks: Vec<Looks>,
    commits: FuturesUnordered<BoxFuture<'static, (Ticket, bool)>>,
    /// Datagrams that each interface's socket had no room for.
    overruns: Vec<u64>,
    lost: Lost,
}

/// Changes that the journal had no room for: there may be as many as datagrams, and they are told together.
#[derive(Debug, Default)]
struct Lost {
    told: Option<Instant>,
    since: u64,
}

impl Lost {
    /// One more; how many there are to be told now.
    fn another(&mut self, now: Instant) -> Option<u64> {
        self.since += 1;
        if self.told.is_some_and(|told| now < told + TELL) {
            return None;
        }
        self.told = Some(now);
        Some(std::mem::take(&mut self.since))
    }
}

impl<Desk: Fn(&Request) -> Answer, Tell: Fn(Event)> Driver<Desk, Tell> {
    fn receive(&mut self, wire: usize, proxy_port: bool) {
        let mut buffer = [0; 2048];
        for _ in 0..BATCH {
            let Received { length, dropped, heard } =
                match self.wires[wire].receive(proxy_port, &mut buffer) {
                    Ok(received) => received,
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                    // An interface that goes down says so once, here; the socket outlives it.
                    Err(error) => return tracing::warn!(%error, "DHCP socket"),
                };
            if let Some(dropped) = dropped {
                self.overrun(wire, dropped);
            }
            match Request::decode(&buffer[..length]) {
                Ok(mut request) => {
                    request.heard = Heard { wire, ..heard };
                    let answer = (self.desk)(&request);
                    let effects = self.server.handle(&request, answer, Now::read());
                    self.perform(effects);
                }
                Err(BadPacket::NotARequest(_)) => {}
                Err(error) => {
                    self.server.counters_mut().malformed += 1;
                    tracing::debug!(%error, "datagram not taken");
                }
            }
        }
    }

    /// Each socket counts for itself, from its beginning.
    fn overrun(&mut self, wire: usize, dropped: u32) {
        self.overruns[wire] = self.overruns[wire].max(u64::from(dropped));
        self.server.counters_mut().overrun = self.overruns.iter().sum();
    }

    fn hear(&mut self, wire: usize) {
        for _ in 0..BATCH {
            match self.wires[wire].hear() {
                Ok(Some(arp)) => {
                    self.looks[wire].heard(&arp);
                    if let Some(address) = self.probes[wire].heard(&arp) {
                        let effects = self.server.probed(address, true, Now::read());
                        self.perform(effects);
                    }
                }
                Ok(None) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(error) => return tracing::warn!(%error, "ARP socket"),
            }
        }
    }

    fn on_deadline(&mut self) {
        let now = Now::read();
        for wire in 0..self.wires.len() {
            for due in self.probes[wire].due(now.mono) {
                match due {
                    Due::Ask(arp) => self.wires[wire].ask(&arp),
                    Due::Free(address) => {
                        let effects = self.server.probed(address, false, now);
                        self.perform(effects);
                    }
                }
            }
            for arp in self.looks[wire].due(now.mono) {
                self.wires[wire].ask(&arp);
            }
        }
        if self.server.next_deadline().is_some_and(|deadline| deadline <= now.mono) {
            self.sweep(now);
        }
    }

    fn sweep(&mut self, now: Now) {
        let effects = self.server.on_deadline(now);
        self.perform(effects);
    }

    fn committed(&mut self, ticket: Ticket, ok: bool) {
        let effects = self.server.committed(ticket, ok, Now::read());
        self.perform(effects);
    }

    /// Those that are known by now: where there are as many as datagrams, one for each turn of theirs would be far too few.
    fn all_committed(&mut self) {
        for _ in 0..BATCH {
            match self.commits.next().now_or_never() {
                Some(Some((ticket, ok))) => self.committed(ticket, ok),
                Some(None) | None => return,
            }
        }
    }

    fn control(&mut self, control: Control) {
        let now = Now::read();
        match control {
            Control::Keep(mac) => {
                let effects = self.server.keep(mac, now);
                self.perform(effects);
            }
            Control::Look { wire, address, not, seen } => {
                let Some(link) = self.wires.get(wire) else { return };
                if let Some(arp) = self.looks[wire].begin(address, not, seen, now.mono) {
                    link.ask(&arp);
                }
            }
            Control::Link { wire, index, mac, ours, served } => {
                if self.link(wire, (index, mac)) {
                    ours.iter()
                        .for_each(|ours| self.wires[wire].ask(&Arp::announcement(mac, *ours)));
                    served.send(()).unwrap_or(());
                }
            }
            // Who asked may have gone: then nobody misses the answer.
            Control::Lookup(mac, answer) => drop(answer.send(self.server.lookup(mac, now))),
            Control::Leases(answer) => drop(answer.send(self.server.leases(now))),
            Control::Counters(answer) => drop(answer.send(self.server.counters())),
        }
    }

    /// False: it is not served yet, and whoever looks at interfaces looks again.
    fn link(&mut self, wire: usize, now: (usize, Mac)) -> bool {
        let Some(open) = self.wires.get_mut(wire) else { return false };
        if open.link() != now {
            match Wire::open(open.config.clone()) {
                Ok(anew) => *open = anew,
                Err(error) => {
                    tracing::warn!(%error, "DHCP sockets not opened again");
                    return false;
                }
            }
            // What was asked on the old one is not answered any more.
            self.probes[wire] = Probes::new(open.mac, open.config.probe);
            self.looks[wire] = Looks::new(open.mac);
        }
        true
    }

    fn perform(&mut self, effects: Vec<Effect>) {
        let mut effects = VecDeque::from(effects);
        while let Some(effect) = effects.pop_front() {
            match effect {
                Effect::Send(out) => {
                    let Some(wire) = self.wires.get(out.wire) else { continue };
                    if let Err(error) = wire.send(&out) {
                        self.server.counters_mut().unsent += 1;
                        tracing::warn!(%error, to = ?out.destination, "DHCP reply not sent");
                    }
                }
                Effect::Probe { wire, address, mac } => {
                    let Some(link) = self.wires.get(wire) else { continue };
                    let arp = self.probes[wire].begin(address, mac, Instant::now());
                    link.ask(&arp);
                }
                Effect::Commit { ticket, change, durable } => {
                    let (done, outcome) = oneshot::channel();
                    match self.journal.try_send(JournalWrite { change, durable, done }) {
                        Ok(()) => self.commits.push(Box::pin(async move {
                            (ticket, outcome.await.unwrap_or(false))
                        })),
                        Err(error) => {
                            let now = Now::read();
                            if let Some(changes) = self.lost.another(now.mono) {
                                tracing::warn!(%error, changes, "leases not written down");
                            }
                            effects.extend(self.server.committed(ticket, false, now));
                        }
                    }
                }
                Effect::Tell(event) => (self.tell)(event),
            }
        }
    }
}

#[cfg(test)]
#[path = "socket_tests.rs"]
mod tests;
