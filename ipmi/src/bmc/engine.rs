//! Which shard serves whom: BMCs are put together on sockets, so that thousands of them cost a few dozen.

use std::collections::HashSet;
use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, Weak};

use tokio::sync::{Semaphore, mpsc};

use super::memory::Memory;
use super::shard::{Order, Shard};
use super::{Bmc, Inner, Known, Link, WAITING, locked, socket};
use crate::error::Error;
use crate::session::{Access, Random, Session};

/// How much at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// BMCs on one socket.
    pub per_socket: usize,
    /// Sessions that one socket has on their way at once; those whose BMC is silent do not count.
    pub opening: usize,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits { per_socket: 128, opening: 128 }
    }
}

/// Serves BMCs.
#[derive(Clone)]
pub struct Engine(Arc<Core>);

pub(super) struct Core {
    limits: Limits,
    shards: Mutex<Vec<Handle>>,
    keys: AtomicU64,
    memory: Option<Arc<Memory>>,
}

struct Handle {
    id: u64,
    v4: bool,
    orders: mpsc::UnboundedSender<Order>,
    peers: HashSet<SocketAddr>,
}

impl Default for Engine {
    fn default() -> Engine {
        Engine::new(Limits::default())
    }
}

impl Engine {
    /// Without any BMC yet, and remembering nothing.
    pub fn new(limits: Limits) -> Engine {
        Engine::with(limits, None)
    }

    /// One that keeps what it learns of its BMCs in a folder, and which sessions it has open: after it was
    /// killed, the next one of the same folder closes them first. One process at a time.
    ///
    /// # Errors
    /// The folder cannot be made or read.
    pub fn remembering(limits: Limits, folder: &Path) -> io::Result<Engine> {
        Ok(Engine::with(limits, Some(Memory::open(folder)?)))
    }

    fn with(limits: Limits, memory: Option<Arc<Memory>>) -> Engine {
        let keys = AtomicU64::new(1);
        Engine(Arc::new(Core { limits, shards: Mutex::default(), keys, memory }))
    }

    /// The one of the process.
    pub(super) fn shared() -> Engine {
        static SHARED: OnceLock<Engine> = OnceLock::new();
        SHARED.get_or_init(Engine::default).clone()
    }

    /// A BMC that is reached this way.
    pub fn bmc(&self, access: Access) -> Bmc {
        Bmc(Arc::new(Inner {
            known: Arc::new(Known::new(&access, self.0.memory.clone())),
            access: Arc::new(access),
            engine: self.clone(),
            link: tokio::sync::Mutex::default(),
            places: Arc::new(Semaphore::new(WAITING)),
            closed: AtomicBool::new(false),
            console: Arc::new(Semaphore::new(1)),
        }))
    }

    /// A place for a BMC on a socket that has none of its address yet: datagrams are told apart by it.
    pub(super) fn attach(
        &self,
        peer: SocketAddr,
        access: &Arc<Access>,
        known: &Arc<Known>,
    ) -> Result<Link, Error> {
        if let Some(memory) = &self.0.memory {
            memory.keep();
        }
        let key = self.0.keys.fetch_add(1, Ordering::Relaxed);
        let learned = locked(&known.learned).clone();
        let session = Session::new(Arc::clone(access), learned, Random::system());
        let mut shards = locked(&self.0.shards);
        shards.retain(|shard| !shard.orders.is_closed());
        let fits = |shard: &&mut Handle| {
            shard.v4 == peer.is_ipv4()
                && shard.peers.len() < self.0.limits.per_socket.max(1)
                && !shard.peers.contains(&peer)
        };
        let shard = match shards.iter_mut().find(fits) {
            Some(shard) => shard,
            None => {
                let id = self.0.keys.fetch_add(1, Ordering::Relaxed);
                let (orders, taken) = mpsc::unbounded_channel();
                let socket = socket::bind(peer.is_ipv4())
                    .map_err(|error| Error::Network(format!("no socket: {error}")))?;
                let home = Home { core: Arc::downgrade(&self.0), id };
                tokio::spawn(Shard::new(socket, taken, home, self.0.limits.opening).run());
                shards.push(Handle { id, v4: peer.is_ipv4(), orders, peers: HashSet::new() });
                let last = shards.len() - 1;
                &mut shards[last]
            }
        };
        shard.peers.insert(peer);
        let order =
            Order::Attach { key, peer, session: Box::new(session), known: Arc::clone(known) };
        let orders = shard.orders.clone();
        orders.send(order).map_err(|_| Error::Closed)?;
        Ok(Link { orders, key })
    }
}

/// A shard's way back.
pub(super) struct Home {
    core: Weak<Core>,
    id: u64,
}

impl Home {
    /// A BMC has left. Whether none is left nor on its way, and the shard may end.
    pub fn left(&self, peer: SocketAddr) -> bool {
        let Some(core) = self.core.upgrade() else { return true };
        let mut shards = locked(&core.shards);
        let Some(at) = shards.iter().position(|shard| shard.id == self.id) else { return true };
        let Some(shard) = shards.get_mut(at) else { return true };
        shard.peers.remove(&peer);
        let empty = shard.peers.is_empty();
        if empty {
            shards.swap_remove(at);
        }
        empty
    }
}
