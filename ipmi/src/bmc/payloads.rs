//! Payloads other than commands in a BMC's session: Serial over LAN, and whatever a maker adds.

use tokio::sync::mpsc;
use tokio::sync::mpsc::error::TryRecvError;

use super::Link;
use super::shard::Order;
use crate::error::Error;
use crate::wire::v20::PayloadType;

/// Payloads that may wait to be read. What comes beyond is dropped, as if the network had lost it.
const UNREAD: usize = 64;

/// What a session has for who reads its payloads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PayloadEvent {
    /// One payload, proved and in its order of arrival.
    Payload {
        /// Its datagram's number in the session.
        number: u32,
        /// The payload.
        bytes: Vec<u8>,
    },
    /// The session is gone, and what was activated in it: activate it again, which opens another.
    Lost(Error),
}

/// The payloads of one kind.
#[derive(Debug)]
pub struct Payloads {
    link: LinkOf,
    kind: PayloadType,
    inbox: mpsc::Receiver<PayloadEvent>,
}

struct LinkOf(Link);

impl std::fmt::Debug for LinkOf {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "#{}", self.0.key)
    }
}

impl Payloads {
    pub(super) fn attach(link: Link, kind: PayloadType) -> Result<Payloads, Error> {
        let (sink, inbox) = mpsc::channel(UNREAD);
        let order = Order::Ride { key: link.key, kind, sink };
        link.orders.send(order).map_err(|_| Error::Closed)?;
        Ok(Payloads { link: LinkOf(link), kind, inbox })
    }

    /// The next one. `None`: the handle of the BMC was closed, or somebody else reads this kind now.
    pub async fn next(&mut self) -> Option<PayloadEvent> {
        self.inbox.recv().await
    }

    /// Drops what waits to be read. `false`: nothing will come any more.
    pub fn skip(&mut self) -> bool {
        loop {
            match self.inbox.try_recv() {
                Ok(_) => {}
                Err(TryRecvError::Empty) => return true,
                Err(TryRecvError::Disconnected) => return false,
            }
        }
    }

    /// Sends one, in the session that is open now; without one it is dropped, as if the network had lost it.
    pub fn send(&self, payload: Vec<u8>) {
        let Link { orders, key } = &self.link.0;
        let _its_shard_is_gone = orders.send(Order::Send { key: *key, kind: self.kind, payload });
    }
}

impl Drop for Payloads {
    fn drop(&mut self) {
        // Its channel is closed, by which the shard tells it from who came after it.
        self.inbox.close();
        let Link { orders, key } = &self.link.0;
        let _its_shard_is_gone = orders.send(Order::Leave { key: *key, kind: self.kind });
    }
}
