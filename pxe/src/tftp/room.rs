//! Who is being served, and who makes room where there are as many transfers as there may be. An honest client's
//! first ACK comes within a round trip.

use std::collections::{HashMap, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::task::{AbortHandle, Id};

use super::server::Limits;

/// Those that are over are looked for among the unheard where there are so many more than twice those under way.
const SPARE: usize = 64;

/// A transfer under way.
pub(super) struct Open {
    pub peer: SocketAddr,
    pub task: AbortHandle,
    /// Its client has acknowledged something.
    pub heard: Arc<AtomicBool>,
}

impl Open {
    fn is_heard(&self) -> bool {
        self.heard.load(Ordering::Relaxed)
    }
}

/// What there is for one more.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Found {
    /// Room.
    Room,
    /// Room that another one has made.
    Made,
    /// None.
    Nothing,
}

/// See the module.
pub(super) struct Room {
    limits: Limits,
    open: HashMap<Id, Open>,
    per_peer: HashMap<IpAddr, usize>,
    /// Transfers whose clients have acknowledged nothing yet, and some that have or are over, the oldest first.
    unheard: VecDeque<(Id, IpAddr)>,
}

impl Room {
    pub fn new(limits: Limits) -> Room {
        let (open, per_peer) = (HashMap::new(), HashMap::new());
        Room { limits, open, per_peer, unheard: VecDeque::new() }
    }

    /// For one more transfer of this peer.
    pub fn find(&mut self, peer: IpAddr) -> Found {
        let mine = self.per_peer.get(&peer).copied().unwrap_or(0);
        let made = if mine >= self.limits.per_peer {
            self.displace(Some(peer))
        } else if self.open.len() >= self.limits.transfers {
            self.displace(None)
        } else {
            return Found::Room;
        };
        if made { Found::Made } else { Found::Nothing }
    }

    /// It is taken.
    pub fn begun(&mut self, open: Open) {
        self.settled();
        let (id, peer) = (open.task.id(), open.peer.ip());
        self.unheard.push_back((id, peer));
        self.open.insert(id, open);
        *self.per_peer.entry(peer).or_default() += 1;
    }

    /// It is given back. Whose it was.
    pub fn ended(&mut self, id: Id) -> Option<SocketAddr> {
        let Open { peer, .. } = self.open.remove(&id)?;
        match self.per_peer.get_mut(&peer.ip()) {
            Some(count) if *count > 1 => *count -= 1,
            _ => drop(self.per_peer.remove(&peer.ip())),
        }
        if self.unheard.len() > 2 * self.open.len() + SPARE {
            let open = &self.open;
            self.unheard.retain(|(id, _)| waits(open, *id));
        }
        Some(peer)
    }

    /// Forgets those at the front that are no more to be displaced.
    fn settled(&mut self) {
        while self.unheard.front().is_some_and(|(id, _)| !waits(&self.open, *id)) {
            self.unheard.pop_front();
        }
    }

    /// There are as many transfers as there may be, of this peer or of all: the one that has waited longest for
    /// its client's first ACK makes room.
    fn displace(&mut self, peer: Option<IpAddr>) -> bool {
        self.settled();
        let its =
            |one: &(Id, IpAddr)| peer.is_none_or(|peer| peer == one.1) && waits(&self.open, one.0);
        let found = self.unheard.iter().position(its);
        let Some((id, _)) = found.and_then(|at| self.unheard.remove(at)) else { return false };
        if let Some(open) = self.open.get(&id) {
            open.task.abort();
        }
        true
    }
}

fn waits(open: &HashMap<Id, Open>, id: Id) -> bool {
    open.get(&id).is_some_and(|open| !open.is_heard() && !open.task.is_finished())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limits(transfers: usize, per_peer: usize) -> Limits {
        Limits { transfers, per_peer, ..Limits::default() }
    }

    fn peer(number: u32) -> SocketAddr {
        SocketAddr::new(std::net::Ipv4Addr::from(0x0a00_0000 + number).into(), 2070)
    }

    /// A transfer that goes on for ever.
    fn open(number: u32) -> Open {
        let task = tokio::spawn(std::future::pending::<()>()).abort_handle();
        Open { peer: peer(number), task, heard: Arc::default() }
    }

    #[tokio::test]
    async fn those_that_are_over_are_forgotten_behind_one_that_is_not() {
        let mut room = Room::new(Limits::default());
        room.begun(open(1));
        for number in 2..10_000 {
            assert_eq!(room.find(peer(number).ip()), Found::Room);
            let open = open(number);
            let id = open.task.id();
            room.begun(open);
            assert_eq!(room.ended(id), Some(peer(number)));
            assert!(room.unheard.len() <= 2 + SPARE, "{} of one", room.unheard.len());
        }
        assert_eq!((room.open.len(), room.per_peer.len()), (1, 1));
        assert_eq!(room.unheard.front(), room.unheard.iter().find(|(_, its)| *its == peer(1).ip()));
    }

    #[tokio::test]
    async fn who_has_waited_longest_makes_room() {
        let mut room = Room::new(limits(3, 2));
        let all = [open(1), open(1), open(2)];
        let heard = Arc::clone(&all[0].heard);
        let tasks: Vec<AbortHandle> = all.iter().map(|open| open.task.clone()).collect();
        all.into_iter().for_each(|open| room.begun(open));
        heard.store(true, Ordering::Relaxed);
        // Of its own, where it has as many as it may have.
        assert_eq!(room.find(peer(1).ip()), Found::Made);
        assert_eq!(room.find(peer(1).ip()), Found::Nothing);
        tokio::task::yield_now().await;
        assert_eq!([false, true, false], [0, 1, 2].map(|at: usize| tasks[at].is_finished()));
        assert_eq!(room.ended(tasks[1].id()), Some(peer(1)));
        room.begun(open(1));
        // Of all, where there are as many as there may be.
        assert_eq!(room.find(peer(3).ip()), Found::Made);
        tokio::task::yield_now().await;
        assert_eq!([false, true, true], [0, 1, 2].map(|at: usize| tasks[at].is_finished()));
    }
}
