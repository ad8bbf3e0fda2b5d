//! One task that serves the BMCs of one socket: datagrams and orders in, datagrams and answers out, and the
//! next deadline of all its sessions. Decisions are the sessions'.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap, VecDeque};
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use tokio::io::Interest;
use tokio::net::UdpSocket;
use tokio::sync::{mpsc, oneshot};

use super::engine::Home;
use super::payloads::PayloadEvent;
use super::slot::{Reply, Slot};
use super::{Known, socket};
use crate::message::Request;
use crate::session::{Event, Session};
use crate::wire::v20::PayloadType;

/// Datagrams or orders in a row before the others have their turn.
const ROUND: usize = 128;

/// Datagrams that may wait for room in the kernel; what comes beyond its session sends again.
const BACKLOG: usize = 1024;

/// What a handle wants of its shard.
pub(super) enum Order {
    Attach {
        key: u64,
        peer: SocketAddr,
        session: Box<Session>,
        known: Arc<Known>,
    },
    Ask {
        key: u64,
        request: Request,
        reply: Reply,
    },
    /// Somebody asked, and does not wait any more.
    Forgo {
        key: u64,
    },
    /// Drop what was learned.
    Forget {
        key: u64,
    },
    /// Hold the session, and pass on these payloads.
    Ride {
        key: u64,
        kind: PayloadType,
        sink: mpsc::Sender<PayloadEvent>,
    },
    Leave {
        key: u64,
        kind: PayloadType,
    },
    Send {
        key: u64,
        kind: PayloadType,
        payload: Vec<u8>,
    },
    /// Close the session, and forget the BMC.
    Detach {
        key: u64,
        done: Option<oneshot::Sender<()>>,
    },
}

/// The BMCs of one socket.
pub(super) struct Shard {
    socket: UdpSocket,
    /// Of the socket.
    port: u16,
    orders: mpsc::UnboundedReceiver<Order>,
    home: Home,
    slots: HashMap<u64, Slot>,
    peers: HashMap<SocketAddr, u64>,
    /// May name deadlines that have moved on.
    timers: BinaryHeap<Reverse<(Instant, u64)>>,
    opening: usize,
    most_opening: usize,
    /// Datagrams that the kernel had no room for.
    backlog: VecDeque<(Vec<u8>, SocketAddr)>,
    /// Those who wait for their turn to open a session.
    turns: VecDeque<u64>,
    over: bool,
}

impl Shard {
    pub fn new(
        socket: UdpSocket,
        orders: mpsc::UnboundedReceiver<Order>,
        home: Home,
        most_opening: usize,
    ) -> Shard {
        Shard {
            port: socket.local_addr().map_or(0, |address| address.port()),
            socket,
            orders,
            home,
            slots: HashMap::new(),
            peers: HashMap::new(),
            timers: BinaryHeap::new(),
            opening: 0,
            most_opening: most_opening.max(1),
            backlog: VecDeque::new(),
            turns: VecDeque::new(),
            over: false,
        }
    }

    /// Serves until the last BMC has left.
    pub async fn run(mut self) {
        // What is longer is cut, and does not keep to its own length then.
        let mut buffer = vec![0; 4096];
        while !self.over {
            let next = self.timers.peek().map(|Reverse((when, _))| *when);
            let sleep = async {
                match next {
                    Some(when) => tokio::time::sleep_until(when.into()).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                ready = self.socket.ready(Interest::READABLE | Interest::ERROR) => {
                    if ready.is_ok_and(|ready| ready.is_error()) {
                        self.refusals();
                    }
                    self.receive(&mut buffer);
                }
                order = self.orders.recv() => {
                    // The engine and all handles are gone.
                    let Some(order) = order else { return };
                    self.obey(order);
                    for _ in 0..ROUND {
                        match self.orders.try_recv() {
                            Ok(order) => self.obey(order),
                            Err(_) => break,
                        }
                    }
                }
                ready = self.socket.writable(), if !self.backlog.is_empty() => {
                    if ready.is_ok() {
                        self.send_backlog();
                    }
                }
                () = sleep => {}
            }
            self.expire();
        }
    }

    fn receive(&mut self, buffer: &mut [u8]) {
        for _ in 0..ROUND {
            match self.socket.try_recv_from(buffer) {
                Ok((length, from)) => {
                    let Some(key) = self.peers.get(&from).copied() else { continue };
                    let Some(datagram) = buffer.get(..length) else { continue };
                    self.with(key, |slot, now| slot.session.handle(datagram, now));
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(_) => self.refusals(),
            }
        }
    }

    fn refusals(&mut self) {
        for (peer, error) in socket::refused(&self.socket) {
            let Some(key) = self.peers.get(&peer).copied() else { continue };
            self.with(key, |slot, now| slot.session.handle_unreachable(words(&error), now));
        }
    }

    fn obey(&mut self, order: Order) {
        match order {
            Order::Attach { key, peer, session, known } => {
                let slot = Slot {
                    peer,
                    session: *session,
                    known,
                    asked: HashMap::new(),
                    riders: Vec::new(),
                    timer: None,
                    counted: false,
                    detached: false,
                    done: Vec::new(),
                };
                self.peers.insert(peer, key);
                self.slots.insert(key, slot);
            }
            Order::Ask { key, request, reply } => self.with(key, |slot, now| {
                // Who does not wait any more need not be asked for; nor is a session opened that ends at once.
                if !reply.is_closed() && !slot.detached {
                    let ticket = slot.session.ask(request, now);
                    slot.asked.insert(ticket, reply);
                }
            }),
            Order::Ride { key, kind, sink } => self.with(key, |slot, _| {
                match slot.riders.iter_mut().find(|(other, _)| *other == kind) {
                    Some(rider) => rider.1 = sink,
                    None => {
                        slot.riders.push((kind, sink));
                        slot.session.hold();
                    }
                }
            }),
            Order::Leave { key, kind } => self.with(key, |slot, now| {
                let before = slot.riders.len();
                slot.riders.retain(|(other, sink)| *other != kind || !sink.is_closed());
                if slot.riders.len() < before {
                    slot.session.release(now);
                }
            }),
            Order::Send { key, kind, payload } => self.with(key, |slot, now| {
                slot.session.send_payload(kind, &payload, now);
            }),
            Order::Forgo { key } => self.with(key, |slot, _| {
                let gone = slot.asked.iter().filter(|(_, reply)| reply.is_closed());
                for ticket in gone.map(|(ticket, _)| *ticket).collect::<Vec<_>>() {
                    if slot.session.forgo(ticket) {
                        slot.asked.remove(&ticket);
                    }
                }
            }),
            Order::Forget { key } => self.with(key, |slot, _| slot.session.forget()),
            Order::Detach { key, done } => self.with(key, |slot, now| {
                slot.detached = true;
                slot.done.extend(done);
                slot.riders.clear();
                slot.session.close(now);
            }),
        }
    }

    fn expire(&mut self) {
        let now = Instant::now();
        while let Some(Reverse((when, key))) = self.timers.peek().copied() {
            if when > now {
                return;
            }
            self.timers.pop();
            let Some(slot) = self.slots.get_mut(&key) else { continue };
            if slot.timer == Some(when) {
                slot.timer = None;
            }
            self.with(key, |slot, now| slot.session.handle_timeout(now));
            // A BMC that is silent shall not keep others from their turn.
            if let Some(slot) = self.slots.get_mut(&key)
                && slot.counted
                && slot.session.is_unheard()
            {
                slot.counted = false;
                self.opening -= 1;
                self.next_turns();
            }
        }
    }

    /// Does something with a BMC's session, and everything that follows from it.
    fn with(&mut self, key: u64, act: impl FnOnce(&mut Slot, Instant)) {
        let Some(slot) = self.slots.get_mut(&key) else { return };
        let now = Instant::now();
        act(slot, now);
        self.settle(key, now);
        self.next_turns();
    }

    fn settle(&mut self, key: u64, now: Instant) {
        let Some(slot) = self.slots.get_mut(&key) else { return };
        loop {
            while let Some(event) = slot.session.poll_event() {
                if event == Event::Wanted {
                    self.turns.push_back(key);
                } else {
                    slot.tell(event, self.port);
                }
            }
            let mut refused = None;
            while let Some(datagram) = slot.session.poll_transmit() {
                match transmit(&self.socket, &datagram, slot.peer) {
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                        if self.backlog.len() < BACKLOG {
                            self.backlog.push_back((datagram, slot.peer));
                        }
                    }
                    Err(error) => refused = Some(error),
                    Ok(()) => {}
                }
            }
            match refused {
                Some(error) => slot.session.handle_unreachable(words(&error), now),
                None => break,
            }
        }
        if slot.counted && !slot.session.is_opening() {
            slot.counted = false;
            self.opening -= 1;
        }
        if slot.detached && slot.session.is_closed() {
            for done in slot.done.drain(..) {
                let _who_waited_is_gone = done.send(());
            }
            let peer = slot.peer;
            self.slots.remove(&key);
            self.peers.remove(&peer);
            self.over = self.home.left(peer);
            return;
        }
        if let Some(deadline) = slot.session.deadline()
            && slot.timer.is_none_or(|timer| deadline < timer)
        {
            slot.timer = Some(deadline);
            self.timers.push(Reverse((deadline, key)));
        }
    }

    fn send_backlog(&mut self) {
        while let Some((datagram, peer)) = self.backlog.pop_front() {
            let sent = transmit(&self.socket, &datagram, peer);
            if sent.is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock) {
                self.backlog.push_front((datagram, peer));
                return;
            }
        }
    }

    fn next_turns(&mut self) {
        while self.opening < self.most_opening {
            let Some(key) = self.turns.pop_front() else { return };
            let Some(slot) = self.slots.get_mut(&key) else { continue };
            let now = Instant::now();
            slot.session.open(now);
            if slot.session.is_opening() {
                slot.counted = true;
                self.opening += 1;
            }
            self.settle(key, now);
        }
    }
}

/// Sends, and once more where the error was one left from before by another BMC.
fn transmit(socket: &UdpSocket, datagram: &[u8], peer: SocketAddr) -> io::Result<()> {
    for last in [false, true] {
        match socket.try_send_to(datagram, peer) {
            Err(error) if last || error.kind() == io::ErrorKind::WouldBlock => return Err(error),
            Err(_) => {}
            Ok(_) => return Ok(()),
        }
    }
    Ok(())
}

fn words(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::ConnectionRefused => "nothing listens at that port".to_string(),
        io::ErrorKind::HostUnreachable => "no such host on its network".to_string(),
        io::ErrorKind::NetworkUnreachable => "there is no way to its network".to_string(),
        io::ErrorKind::PermissionDenied => "a packet filter forbids it".to_string(),
        _ => error.to_string(),
    }
}
