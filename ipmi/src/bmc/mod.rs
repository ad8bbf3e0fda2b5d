//! The handle by which everybody asks a BMC, and what stands behind it: sockets shared by many BMCs, each
//! served by one task ([`shard`]), and what is remembered from one run to the next ([`memory`]).
//!
//! ```text
//!  Bmc ──orders──▶ shard: one UDP socket, up to 128 BMCs told apart by their address,
//!      ◀─answers── each a `Session` that knows nothing of sockets
//! ```

mod console;
mod engine;
mod memory;
mod orphan;
mod payloads;
mod shard;
mod slot;
mod socket;

use std::collections::VecDeque;
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use tokio::sync::{Semaphore, mpsc, oneshot};

pub use engine::{Engine, Limits};
pub use payloads::{PayloadEvent, Payloads};

use crate::controller::Controller;
use crate::error::Error;
use crate::message::{Request, Response};
use crate::session::{Access, Facts, Learned};
use crate::wire::v20::PayloadType;
use memory::{Memory, Orphan};
use shard::Order;

/// Sessions of before that are remembered.
const PAST: usize = 8;

/// Requests of one BMC that may wait or be on their way; who comes later waits for a place.
const WAITING: usize = 64;

/// A BMC. Cheap to make and to clone; nothing is sent until something is asked, and all its clones share
/// one session. When the last one is dropped the session is closed.
#[derive(Clone)]
pub struct Bmc(Arc<Inner>);

struct Inner {
    access: Arc<Access>,
    engine: Engine,
    link: tokio::sync::Mutex<Option<Link>>,
    places: Arc<Semaphore>,
    known: Arc<Known>,
    closed: AtomicBool,
    /// One console at a time.
    console: Arc<Semaphore>,
}

/// What its shard tells of it.
struct Known {
    learned: Mutex<Learned>,
    facts: Mutex<Option<Facts>>,
    /// Sessions that there were, the newest last: a BMC that missed their end keeps them for a minute.
    sessions: Mutex<VecDeque<(u32, Option<Instant>)>>,
    /// Where it is kept, under which name.
    memory: Option<Arc<Memory>>,
    name: String,
}

impl Known {
    fn new(access: &Access, memory: Option<Arc<Memory>>) -> Known {
        let name = match access.host.contains(':') {
            true => format!("[{}]:{}", access.host, access.port),
            false => format!("{}:{}", access.host, access.port),
        };
        let learned = memory.as_ref().map(|memory| memory.learned(&name)).unwrap_or_default();
        Known {
            learned: Mutex::new(learned),
            facts: Mutex::default(),
            sessions: Mutex::default(),
            memory,
            name,
        }
    }

    fn learned(&self, learned: Learned) {
        if let Some(memory) = &self.memory {
            memory.learn(&self.name, &learned);
        }
        *locked(&self.learned) = learned;
    }

    fn opened(&self, facts: Facts, port: u16) {
        if let Some(memory) = &self.memory {
            memory.opened(&self.name, Orphan { managed: facts.managed, port });
        }
        *locked(&self.facts) = Some(facts);
        let mut sessions = locked(&self.sessions);
        sessions.retain(|(session, _)| *session != facts.managed);
        sessions.push_back((facts.managed, None));
        if sessions.len() > PAST {
            sessions.pop_front();
        }
    }

    /// Sessions of this process that are nobody's any more, and that the BMC may still have. Later it may
    /// have given their ids to others.
    fn orphans(&self) -> Vec<u32> {
        let present = locked(&self.facts).map(|facts| facts.managed);
        let mut sessions = locked(&self.sessions);
        sessions.retain(|(_, lost)| lost.is_none_or(|lost| lost.elapsed() < memory::FORGOTTEN));
        let all = sessions.iter().map(|(session, _)| *session);
        all.filter(|session| Some(*session) != present).collect()
    }

    fn closed(&self) {
        if let Some(memory) = &self.memory {
            memory.closed(&self.name);
        }
        *locked(&self.facts) = None;
        for (_, lost) in locked(&self.sessions).iter_mut() {
            lost.get_or_insert_with(Instant::now);
        }
    }
}

/// Its place in a shard.
#[derive(Clone)]
struct Link {
    orders: mpsc::UnboundedSender<Order>,
    key: u64,
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Bmc {
    /// One served by the engine that the whole process shares, which remembers nothing.
    pub fn new(access: Access) -> Bmc {
        Engine::shared().bmc(access)
    }

    /// How it is reached.
    pub fn access(&self) -> &Access {
        &self.0.access
    }

    /// What was found out about it.
    pub fn learned(&self) -> Learned {
        locked(&self.0.known.learned).clone()
    }

    /// Drops what was found out about it, the pinned cipher suite above all: for firmware that was changed on
    /// purpose. A session that is open stays so.
    pub async fn forget(&self) {
        self.0.known.learned(Learned::default());
        if let Some(link) = self.0.link.lock().await.as_ref() {
            let _its_shard_is_gone = link.orders.send(Order::Forget { key: link.key });
        }
    }

    /// The session that is open now, if one is.
    pub fn facts(&self) -> Option<Facts> {
        *locked(&self.0.known.facts)
    }

    /// Closes the session and waits until the BMC was told. Nothing can be asked by this handle and its
    /// clones afterwards.
    pub async fn close(&self) {
        self.0.closed.store(true, Ordering::Release);
        let Some(link) = self.0.link.lock().await.take() else { return };
        let (done, told) = oneshot::channel();
        if link.orders.send(Order::Detach { key: link.key, done: Some(done) }).is_ok() {
            let _closed_or_the_shard_is_gone = told.await;
        }
    }

    /// The payloads of this kind that the BMC sends in the session, and a way to send some; one such handle
    /// for each kind at a time. The session is kept alive until it is dropped. Nothing is sent yet: a
    /// session is opened when something is asked (Activate Payload).
    ///
    /// # Errors
    /// As [`Controller::ask`], as far as finding the BMC goes.
    pub async fn payloads(&self, kind: PayloadType) -> Result<Payloads, Error> {
        let link = self.link().await?;
        Payloads::attach(link, kind)
    }

    /// Its place in a shard, found if it has none.
    async fn link(&self) -> Result<Link, Error> {
        self.0.access.check()?;
        let mut link = self.0.link.lock().await;
        if self.0.closed.load(Ordering::Acquire) {
            return Err(Error::Closed);
        }
        if let Some(link) = link.as_ref().filter(|link| !link.orders.is_closed()) {
            return Ok(link.clone());
        }
        let peer = resolve(&self.0.access.host, self.0.access.port).await?;
        let made = self.0.engine.attach(peer, &self.0.access, &self.0.known)?;
        let made = link.insert(made).clone();
        // Whoever else asks waits here for as long.
        self.bury(&made).await?;
        Ok(made)
    }

    /// Closes the session that the run before left behind, if it did.
    async fn bury(&self, link: &Link) -> Result<(), Error> {
        let Known { memory: Some(memory), name, .. } = &*self.0.known else { return Ok(()) };
        let Some(orphan) = memory.orphan(name) else { return Ok(()) };
        match orphan::close(link, orphan).await {
            Ok(burial) => {
                tracing::info!(bmc = name, ?burial, "the session of the run before");
                Ok(())
            }
            Err(error) => {
                memory.keep_orphan(name, orphan);
                Err(error)
            }
        }
    }

    /// A name may stand for another address next time.
    async fn unlink(&self) {
        if self.0.access.host.parse::<IpAddr>().is_ok() {
            return;
        }
        let mut link = self.0.link.lock().await;
        // Others are asking, by this very place; the last whom it fails leaves it.
        if self.0.places.available_permits() + 1 < WAITING {
            return;
        }
        if let Some(link) = link.take() {
            let _its_shard_is_gone = link.orders.send(Order::Detach { key: link.key, done: None });
        }
    }
}

impl Controller for Bmc {
    async fn ask(&self, request: Request) -> Result<Response, Error> {
        let place = Arc::clone(&self.0.places).acquire_owned().await;
        let _place = place.map_err(|_| Error::Closed)?;
        let answer = match self.link().await {
            Ok(link) => link.ask(request).await,
            Err(error) => Err(error),
        };
        if matches!(answer, Err(Error::Unreachable { .. } | Error::Network(_) | Error::Lost { .. }))
        {
            self.unlink().await;
        }
        answer
    }
}

impl Controller for Link {
    async fn ask(&self, request: Request) -> Result<Response, Error> {
        let (reply, answer) = oneshot::channel();
        let order = Order::Ask { key: self.key, request, reply };
        self.orders.send(order).map_err(|_| Error::Closed)?;
        let waiting = Waiting(Some(self));
        let answer = answer.await.unwrap_or(Err(Error::Closed));
        waiting.over();
        answer
    }
}

/// Somebody who waits for an answer. Who is gone before it came would not have a machine switched off later.
struct Waiting<'a>(Option<&'a Link>);

impl Waiting<'_> {
    fn over(mut self) {
        self.0 = None;
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        if let Some(link) = self.0 {
            let _its_shard_is_gone = link.orders.send(Order::Forgo { key: link.key });
        }
    }
}

impl fmt::Debug for Bmc {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Bmc({}:{})", self.0.access.host, self.0.access.port)
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        if let Some(link) = self.link.get_mut().take() {
            let _its_shard_is_gone = link.orders.send(Order::Detach { key: link.key, done: None });
        }
    }
}

/// The first address of a host that this machine has a way to.
async fn resolve(host: &str, port: u16) -> Result<SocketAddr, Error> {
    if let Ok(address) = host.parse::<IpAddr>() {
        return Ok(SocketAddr::new(address, port));
    }
    let found = tokio::net::lookup_host((host, port)).await;
    let mut found = found.map_err(|error| Error::Network(format!("{host}: {error}")))?;
    found.next().ok_or_else(|| Error::Network(format!("{host} has no address")))
}
