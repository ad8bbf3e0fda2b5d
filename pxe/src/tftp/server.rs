//! The listening port: each request becomes a task with a port of its own, within bounds. Nothing a
//! client sends holds up another one.

use std::collections::HashMap;
use std::io;
use std::iter::Cycle;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};
use std::vec::IntoIter;

use tokio::net::UdpSocket;
use tokio::runtime::Handle;
use tokio::sync::mpsc;
use tokio::sync::mpsc::error::TrySendError;
use tokio::task::{Id, JoinSet};
use tokio_util::sync::CancellationToken;

use super::credit::{self, Credit};
use super::delivery::{Delivery, Nudge, Outcome, Refusal};
use super::packet::{self, Code, Packet, Request};
use super::room::{Found, Open, Room};
use super::socket::{Listener, Port, REQUEST_MAX};
use super::threads::Threads;
use super::transfer::Patience;
use crate::content::Content;
use crate::gauge::Share;

/// Who asks for which (clean) name gets what. Called on a thread that transfers live on: it may compute, not wait.
pub type Lookup = Arc<dyn Fn(SocketAddr, &str) -> Option<Content> + Send + Sync>;

/// Whether somebody at this address is expected to ask: a machine that boots there. Must not wait.
pub type Expected = Arc<dyn Fn(IpAddr) -> bool + Send + Sync>;

/// Hears of each transfer. Must not wait.
pub type Tell = Arc<dyn Fn(Event) + Send + Sync>;

/// What a server needs besides its socket.
#[derive(Clone)]
pub struct Server {
    /// What there is to read.
    pub lookup: Lookup,
    /// Who is answered though others have asked in his name.
    pub expected: Expected,
    /// Who wants to know.
    pub tell: Tell,
    /// Bounds.
    pub limits: Limits,
    /// Counts.
    pub counters: Arc<Counters>,
    /// Interface that transfers are bound to, if the listening port is.
    pub device: Option<String>,
}

/// Bounds. A transfer holds one window (64 KiB at most), one socket and one task.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Transfers at a time. A request above it is not answered: the ROM asks again.
    pub transfers: usize,
    /// Transfers at a time for one address; fewer where there is little room left.
    pub per_peer: usize,
    /// Requests of one address that are answered before it has acknowledged anything.
    pub unheard: u32,
    /// How long a client may be as slow as it likes, however many want to be served.
    pub slow: Duration,
    /// When a silent client is given up.
    pub patience: Patience,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            transfers: 4096,
            per_peer: 64,
            unheard: credit::UNHEARD,
            slow: Duration::from_secs(20),
            patience: Patience::default(),
        }
    }
}

impl Limits {
    /// The same, where this process may open so many files: a quarter of them is for transfers.
    #[must_use]
    pub fn within(self, descriptors: usize) -> Limits {
        Limits { transfers: self.transfers.min(descriptors / 4).max(8), ..self }
    }
}

/// What became of a request. Each transfer says `Begun` and then one of the others, unless it makes room for
/// another before its client has acknowledged anything.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(missing_docs, reason = "the fields are what they are called")]
pub enum Event {
    /// It will be answered.
    Begun { peer: SocketAddr, name: Arc<str>, size: u64 },
    /// It only wanted to know the size (UEFI does, before it loads).
    Probed { peer: SocketAddr, name: Arc<str>, size: u64 },
    /// It has everything. Unconfirmed: it closed its port instead of acknowledging the last block.
    Done {
        peer: SocketAddr,
        name: Arc<str>,
        bytes: u64,
        elapsed: Duration,
        resent: u64,
        confirmed: bool,
    },
    /// It gave up in the middle, or we did (a file that shrank, a stop).
    Aborted { peer: SocketAddr, name: Arc<str>, code: Option<u16>, message: String, bytes: u64 },
    /// It fell silent.
    TimedOut { peer: SocketAddr, name: Arc<str>, bytes: u64, size: u64 },
    /// The same port began anew and this one fell silent: a reset machine.
    Replaced { peer: SocketAddr, name: Arc<str>, bytes: u64, size: u64 },
    /// It got an ERROR for an answer.
    Refused { peer: SocketAddr, name: Arc<str>, why: String },
}

/// Counts since the start.
#[derive(Debug, Default)]
#[allow(missing_docs, reason = "the fields are what they are called")]
pub struct Counters {
    pub requests: AtomicU64,
    /// The same request again before its answer arrived.
    pub repeated: AtomicU64,
    pub malformed: AtomicU64,
    /// ACKs and the like at the listening port, and noise at a transfer's.
    pub stray: AtomicU64,
    pub refused: AtomicU64,
    /// Not answered because of a bound, or for want of a socket.
    pub overload: AtomicU64,
    /// Not answered because their source has acknowledged none of those before.
    pub unheard: AtomicU64,
    /// Made room for another one: before anything was acknowledged, or slow.
    pub displaced: AtomicU64,
    pub probed: AtomicU64,
    pub done: AtomicU64,
    pub aborted: AtomicU64,
    pub timed_out: AtomicU64,
    pub replaced: AtomicU64,
    /// Of transfers that are over.
    pub bytes: AtomicU64,
    /// Blocks sent more than once, of transfers that are over.
    pub resent: AtomicU64,
    /// Transfers under way.
    pub running: AtomicU64,
}

pub(super) fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

/// Answers requests until it is cancelled; then the transfers under way get an ERROR, so that their
/// ROMs need not wait. An error means that the port is gone for good.
pub async fn serve(socket: UdpSocket, server: Server, cancel: CancellationToken) -> io::Result<()> {
    let threads = Threads::start()?;
    let socket = socket.into_std()?;
    let handles = threads.handles.clone();
    let home = handles.first().cloned().unwrap_or_else(Handle::current);
    let listening = home.spawn(async move {
        let listener = Listener::new(UdpSocket::from_std(socket)?)?;
        listen(listener, server, handles, cancel).await
    });
    listening.await.map_err(io::Error::other)?
}

async fn listen(
    listener: Listener,
    server: Server,
    threads: Vec<Handle>,
    cancel: CancellationToken,
) -> io::Result<()> {
    let mut desk = Desk {
        threads: threads.into_iter().cycle(),
        cancel: cancel.clone(),
        tasks: JoinSet::new(),
        told: Share::new(Arc::clone(&server.counters), |counters| &counters.running),
        room: Room::new(server.limits),
        newest: HashMap::new(),
        credit: Credit::new(server.limits.unheard),
        server: Arc::new(server),
    };
    let mut buffer = [0; REQUEST_MAX];
    let mut failures = 0;
    loop {
        tokio::select! {
            () = cancel.cancelled() => break,
            Some(ended) = desk.tasks.join_next_with_id(), if !desk.tasks.is_empty() => {
                match ended {
                    Ok((id, outcome)) => desk.ended(id, outcome),
                    Err(error) => {
                        if !error.is_cancelled() {
                            tracing::error!(%error, "a TFTP transfer's task failed");
                        }
                        desk.ended(error.id(), Outcome::default());
                    }
                }
            }
            received = listener.receive(&mut buffer) => match received {
                Ok((length, peer, to)) => {
                    failures = 0;
                    desk.request(&buffer[..length], peer, to);
                }
                // An interface that is down for a moment must not end the service.
                Err(error) if failures < 100 => {
                    failures += 1;
                    tracing::warn!(%error, "TFTP port");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
                Err(error) => return Err(error),
            }
        }
    }
    while desk.tasks.join_next().await.is_some() {}
    Ok(())
}

/// Who is being served.
struct Desk {
    server: Arc<Server>,
    /// Where the next one lives, and the one after it.
    threads: Cycle<IntoIter<Handle>>,
    cancel: CancellationToken,
    tasks: JoinSet<Outcome>,
    told: Share<Counters>,
    room: Room,
    /// The newest task of each port.
    newest: HashMap<SocketAddr, Running>,
    credit: Credit,
}

struct Running {
    id: Id,
    request: Request,
    to: Option<IpAddr>,
    heard: Arc<AtomicBool>,
    nudge: mpsc::Sender<Nudge>,
}

impl Desk {
    fn request(&mut self, datagram: &[u8], peer: SocketAddr, to: Option<IpAddr>) {
        let counters = Arc::clone(&self.server.counters);
        // RFC 1123 §4.2.3.3: no answer to a broadcast request.
        let everybody = to.is_some_and(|to| match to {
            IpAddr::V4(to) => to.is_broadcast() || to.is_multicast(),
            IpAddr::V6(to) => to.is_multicast(),
        });
        if everybody || peer.port() == 0 {
            return count(&counters.stray);
        }
        let asked = match packet::decode(datagram) {
            Ok(Packet::Read(request)) => Ok(request),
            Ok(Packet::Write) => {
                Err(Refusal::new(Code::AccessViolation, "nothing can be written here"))
            }
            Ok(Packet::Ack(_) | Packet::Error { .. } | Packet::Stray) => {
                return count(&counters.stray);
            }
            Err(error @ (packet::Malformed::Name | packet::Malformed::Mode)) => {
                count(&counters.malformed);
                Err(Refusal::new(Code::IllegalOperation, error.to_string()))
            }
            Err(_) => return count(&counters.malformed),
        };
        count(&counters.requests);
        if let (Ok(request), Some(running)) = (&asked, self.newest.get(&peer)) {
            // ROMs with a fixed port (2070 is a favourite) ask again from it, be it that our answer
            // got lost or that the machine was reset in the middle.
            let repeated = running.request == *request && !running.heard.load(Ordering::Relaxed);
            let nudge = if repeated { Nudge::Again } else { Nudge::StepAside };
            // One that is just ending takes no more.
            let taken = running.nudge.try_send(nudge);
            if repeated && !matches!(taken, Err(TrySendError::Closed(_))) {
                return count(&counters.repeated);
            }
        }
        self.begin(asked, peer, to);
    }

    fn begin(&mut self, asked: Result<Request, Refusal>, peer: SocketAddr, to: Option<IpAddr>) {
        let heard = Arc::new(AtomicBool::new(false));
        let now = Instant::now();
        let on_credit = self.credit.take(peer.ip(), &heard, now);
        if !on_credit && !(self.server.expected)(peer.ip()) {
            return count(&self.server.counters.unheard);
        }
        // The ROM asks again, and may not have used up its credit by then.
        let overload = |desk: &mut Desk| {
            if on_credit {
                desk.credit.unanswered(peer.ip());
            }
            count(&desk.server.counters.overload);
        };
        match self.room.find(peer.ip(), now) {
            Found::Room => {}
            Found::Made => count(&self.server.counters.displaced),
            Found::Nothing => return overload(self),
        }
        let thread = self.threads.next().unwrap_or_else(Handle::current);
        let entered = thread.enter();
        let port = match Port::open(to, peer, self.server.device.as_deref()) {
            Ok(port) => port,
            Err(error) => {
                tracing::warn!(%peer, ?to, %error, "no port for a TFTP transfer");
                return overload(self);
            }
        };
        let (nudge, nudged) = mpsc::channel(4);
        let bytes = Arc::new(AtomicU64::new(0));
        let delivery = Delivery {
            server: Arc::clone(&self.server),
            port,
            peer,
            heard: Arc::clone(&heard),
            bytes: Arc::clone(&bytes),
            nudged,
            unanswered: false,
            once: !on_credit,
            cancel: self.cancel.clone(),
        };
        let request = asked.as_ref().ok().cloned();
        drop(entered);
        let task = self.tasks.spawn_on(delivery.run(asked), &thread);
        let id = task.id();
        self.room.begun(Open {
            peer,
            began: now,
            task,
            heard: Arc::clone(&heard),
            bytes,
            nudge: nudge.clone(),
            leaving: false,
        });
        if let Some(request) = request {
            self.newest.insert(peer, Running { id, request, to, heard, nudge });
        }
        self.told.tell(self.tasks.len());
    }

    fn ended(&mut self, id: Id, outcome: Outcome) {
        let Some(peer) = self.room.ended(id) else { return };
        if outcome.refused {
            self.credit.refused(peer.ip());
        }
        if self.newest.get(&peer).is_some_and(|running| running.id == id)
            && let Some(Running { request, to, .. }) = self.newest.remove(&peer)
            && outcome.unanswered
        {
            self.begin(Ok(request), peer, to);
        }
        self.told.tell(self.tasks.len());
    }
}
