//! Connections: accepted within bounds, kept alive, and closed on whoever holds one without using
//! it. UEFI's HTTP boot speaks HTTP/1.1 with keep-alive, BMCs and BIOS-era loaders HTTP/1.0.

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::Body;
use axum::extract::ConnectInfo;
use axum::http::{HeaderValue, Request, Response, StatusCode, header};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::{Service, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{AbortHandle, Id, JoinSet};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::lane::{Lane, Paved};
use super::stall::{Moved, Watched};
use super::unsent::Unsent;
use crate::gauge::Share;

/// Where so many parts of eight of all connections are taken, one address may have no more than one part in
/// so many of what it may have otherwise, and those that have moved nothing for longest make room …
const CROWDED_OF_8: usize = 7;
const CROWDED_PEER: usize = 8;
/// … if that is no less than this: an honest client's next packet may be lost once.
const UNUSED: Duration = Duration::from_secs(2);
/// How often it is looked for them.
const LOOK: Duration = Duration::from_millis(50);

/// Bounds.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Connections at a time; further ones wait in the kernel's queue. Long before, those that are not used
    /// make room.
    pub connections: usize,
    /// Connections at a time for one address; further ones are closed at once.
    pub per_peer: usize,
    /// Time for a request's head, and for a kept-alive connection between two requests.
    pub head: Duration,
    /// Bytes of a request's head.
    pub head_bytes: usize,
    /// Time until the head of the answer, and so for a request's body.
    pub answer: Duration,
    /// Time without a byte accepted by the client.
    pub stall: Duration,
    /// Time that answers under way get when the service stops.
    pub grace: Duration,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            connections: 8192,
            per_peer: 256,
            head: Duration::from_secs(30),
            head_bytes: 16 * 1024,
            answer: Duration::from_secs(30),
            stall: Duration::from_secs(60),
            grace: Duration::from_secs(5),
        }
    }
}

impl Limits {
    /// The same, where this process may open so many files: a third of them is for connections.
    #[must_use]
    pub fn within(self, descriptors: usize) -> Limits {
        Limits { connections: self.connections.min(descriptors / 3).max(8), ..self }
    }
}

/// Counts since the start.
#[derive(Debug, Default)]
#[allow(missing_docs, reason = "the fields are what they are called")]
pub struct Counters {
    pub connections: AtomicU64,
    pub requests: AtomicU64,
    /// Closed because one address had too many.
    pub crowded: AtomicU64,
    /// Closed because they were not used, and others came.
    pub displaced: AtomicU64,
    /// No HTTP, or too large a head.
    pub malformed: AtomicU64,
    /// Too slow: a head or body that does not come, an answer that is not taken.
    pub slow: AtomicU64,
    /// Broken off by the client, or by a file that could not be read to its end.
    pub broken: AtomicU64,
    /// Connections open now, of all ports that count here.
    pub open: AtomicU64,
    /// Bytes that the sockets took, but for those of this host's own clients.
    pub sent: AtomicU64,
}

fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

/// The address of ours that a client reached, as a request extension: it is what a script tells the
/// machine to come back to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reached(pub SocketAddr);

/// Binds a listening port, to one interface only if a `device` is named.
pub fn bind(address: SocketAddr, device: Option<&str>) -> io::Result<TcpListener> {
    let kind = Type::STREAM.nonblocking().cloexec();
    let socket = Socket::new(Domain::for_address(address), kind, Some(Protocol::TCP))?;
    if let Some(device) = device {
        socket.bind_device(Some(device.as_bytes()))?;
    }
    socket.set_reuse_address(true)?;
    socket.bind(&address.into())?;
    socket.listen(4096)?;
    TcpListener::from_std(socket.into())
}

/// Serves the router until it is cancelled; answers under way then get their grace. Handlers find
/// `ConnectInfo<SocketAddr>` and `Reached` in a request's extensions. An error means that the port is
/// gone for good.
pub async fn serve(
    listener: TcpListener,
    router: Router,
    limits: Limits,
    counters: Arc<Counters>,
    cancel: CancellationToken,
) -> io::Result<()> {
    let mut told = Share::new(Arc::clone(&counters), |counters| &counters.open);
    let mut tasks = JoinSet::new();
    let mut open: HashMap<Id, Open> = HashMap::new();
    let mut looked = Instant::now();
    let mut per_peer: HashMap<IpAddr, usize> = HashMap::new();
    let mut failures = 0;
    loop {
        tokio::select! {
            () = cancel.cancelled() => break,
            Some(ended) = tasks.join_next_with_id(), if !tasks.is_empty() => {
                let id = match ended {
                    Ok((id, ())) => id,
                    Err(error) => {
                        if !error.is_cancelled() {
                            tracing::error!(%error, "an HTTP connection's task failed");
                        }
                        error.id()
                    }
                };
                let Some(Open { peer, .. }) = open.remove(&id) else { continue };
                match per_peer.get_mut(&peer) {
                    Some(count) if *count > 1 => *count -= 1,
                    _ => drop(per_peer.remove(&peer)),
                }
            }
            accepted = listener.accept(), if tasks.len() < limits.connections => match accepted {
                Ok((stream, peer)) => {
                    failures = 0;
                    count(&counters.connections);
                    let peer = SocketAddr::new(peer.ip().to_canonical(), peer.port());
                    let mine = per_peer.entry(peer.ip()).or_default();
                    let crowded = tasks.len() > limits.connections * CROWDED_OF_8 / 8;
                    let part = if crowded { CROWDED_PEER } else { 1 };
                    if *mine >= limits.per_peer.div_ceil(part) {
                        count(&counters.crowded);
                        continue;
                    }
                    *mine += 1;
                    let router = router.clone();
                    let counters = Arc::clone(&counters);
                    let cancel = cancel.clone();
                    let moved = Moved::now();
                    let its = (stream, moved.clone());
                    let task = tasks.spawn(connection(its, peer, router, limits, counters, cancel));
                    open.insert(task.id(), Open { peer: peer.ip(), moved, task });
                }
                // Whoever took all descriptors has to give one back; that ends nothing.
                Err(error) if out_of_room(&error) => {
                    tracing::warn!(%error, "HTTP port");
                    displace(&mut open, limits.connections / 8, &counters);
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
                // A connection that was gone before we came.
                Err(error) if failures < 100 => {
                    failures += 1;
                    tracing::warn!(%error, "HTTP port");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
                Err(error) => return Err(error),
            },
            () = tokio::time::sleep(LOOK), if tasks.len() >= limits.connections => {}
        }
        let crowded = limits.connections * CROWDED_OF_8 / 8;
        if tasks.len() > crowded && looked.elapsed() >= LOOK {
            looked = Instant::now();
            displace(&mut open, tasks.len() - crowded, &counters);
        }
        told.tell(tasks.len());
    }
    drop(listener);
    while tasks.join_next().await.is_some() {}
    Ok(())
}

/// A connection, as the port has it.
struct Open {
    peer: IpAddr,
    moved: Moved,
    task: AbortHandle,
}

/// Closes up to so many of those that have not been used for longest.
fn displace(open: &mut HashMap<Id, Open>, many: usize, counters: &Counters) {
    let now = tokio::time::Instant::now();
    let mut unused: Vec<(Duration, Id)> = open
        .iter()
        .map(|(id, open)| (open.moved.ago(now), *id))
        .filter(|(ago, _)| *ago >= UNUSED)
        .collect();
    unused.sort_unstable_by_key(|(ago, _)| std::cmp::Reverse(*ago));
    for (_, id) in unused.into_iter().take(many) {
        if let Some(Open { task, .. }) = open.get(&id).filter(|open| !open.task.is_finished()) {
            task.abort();
            count(&counters.displaced);
        }
    }
}

/// No descriptor, or no memory for one.
fn out_of_room(error: &io::Error) -> bool {
    use rustix::io::Errno;
    let full = [Errno::MFILE, Errno::NFILE, Errno::NOBUFS, Errno::NOMEM];
    error.raw_os_error().is_some_and(|code| full.iter().any(|errno| errno.raw_os_error() == code))
}

async fn connection(
    (stream, moved): (TcpStream, Moved),
    peer: SocketAddr,
    router: Router,
    limits: Limits,
    counters: Arc<Counters>,
    cancel: CancellationToken,
) {
    // Heads and small answers must not wait for the ACK of the one before.
    let _ = stream.set_nodelay(true);
    let Ok(reached) = stream.local_addr() else { return };
    let reached = SocketAddr::new(reached.ip().to_canonical(), reached.port());
    let router = TowerToHyperService::new(router);
    let lane = Lane::default();
    let pieces = lane.clone();
    let service = service_fn(|mut request: Request<Incoming>| {
        count(&counters.requests);
        request.extensions_mut().insert(ConnectInfo(peer));
        request.extensions_mut().insert(Reached(reached));
        request.extensions_mut().insert(pieces.clone());
        let answer = timeout(limits.answer, router.call(request));
        let counters = Arc::clone(&counters);
        async move {
            answer.await.unwrap_or_else(|_| {
                count(&counters.slow);
                Ok(too_slow())
            })
        }
    });
    let paved = Paved::new(stream, lane, Unsent::new(Arc::clone(&counters)));
    let sent = (reached.ip() != peer.ip()).then(|| Arc::clone(&counters));
    let io = TokioIo::new(Watched::new(paved, limits.stall, moved, sent));
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(limits.head)
        .max_buf_size(limits.head_bytes.max(8192))
        // `printf … | nc` and some BMCs close their side as soon as they have asked.
        .half_close(true)
        // A copied chunk would be blank where it stands for a file.
        .writev(true)
        .serve_connection(io, service);
    tokio::pin!(served);
    let end = tokio::select! {
        end = served.as_mut() => end,
        () = cancel.cancelled() => {
            served.as_mut().graceful_shutdown();
            let Ok(end) = timeout(limits.grace, served).await else { return };
            end
        }
    };
    if let Err(error) = end {
        let counter = if error.is_timeout() || stalled(&error) {
            &counters.slow
        } else if error.is_parse() {
            &counters.malformed
        } else {
            &counters.broken
        };
        count(counter);
        tracing::debug!(%peer, %error, "HTTP connection");
    }
}

fn too_slow() -> Response<Body> {
    let mut response = Response::new(Body::from("the request took too long to arrive\n"));
    *response.status_mut() = StatusCode::REQUEST_TIMEOUT;
    response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    response
}

fn stalled(error: &hyper::Error) -> bool {
    let source = std::error::Error::source(error);
    let source = source.and_then(|source| source.downcast_ref::<io::Error>());
    source.is_some_and(|source| source.kind() == io::ErrorKind::TimedOut)
}
