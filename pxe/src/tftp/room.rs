//! Who is being served, and who makes room where there are as many transfers as there may be. An honest client's
//! first ACK comes within a round trip, and then it takes its file as fast as it can. Who takes a block now and
//! then only holds a place.

use std::cmp::Reverse;
use std::collections::{HashMap, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tokio::sync::mpsc;
use tokio::task::{AbortHandle, Id};

use super::delivery::Nudge;
use super::server::Limits;

/// Where so many parts of eight of all transfers are under way, one address may have no more than one part in so
/// many of what it may have otherwise.
const CROWDED_OF_8: usize = 7;
const CROWDED_PEER: usize = 8;
/// Bytes a second that nobody who wants a file is slower than: one block of the smallest size anybody asks for.
const DAWDLES: u64 = 512;
/// How often all transfers are looked through for slow ones.
const LOOK: Duration = Duration::from_millis(10);
/// Those that are over are looked for among the unheard where there are so many more than twice those under way.
const SPARE: usize = 64;

/// A transfer under way.
pub(super) struct Open {
    pub peer: SocketAddr,
    pub began: Instant,
    pub task: AbortHandle,
    /// Its client has acknowledged something.
    pub heard: Arc<AtomicBool>,
    /// How much of it.
    pub bytes: Arc<AtomicU64>,
    pub nudge: mpsc::Sender<Nudge>,
    /// It has been told to make room.
    pub leaving: bool,
}

/// A transfer that could make room: whether it dawdles, how many its peer has, its bytes a second. The greatest
/// goes first.
type Slow = (bool, usize, Reverse<u64>);

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
    looked: Option<Instant>,
}

impl Room {
    pub fn new(limits: Limits) -> Room {
        let (open, per_peer) = (HashMap::new(), HashMap::new());
        Room { limits, open, per_peer, unheard: VecDeque::new(), looked: None }
    }

    /// For one more transfer of this peer.
    pub fn find(&mut self, peer: IpAddr, now: Instant) -> Found {
        let (open, transfers) = (self.open.len(), self.limits.transfers);
        let crowded = open > transfers * CROWDED_OF_8 / 8;
        let most = if crowded { self.crowded_peer() } else { self.limits.per_peer };
        let made = if self.of(peer) >= most {
            self.displace_unheard(Some(peer))
        } else if open >= transfers {
            self.displace(now)
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

    fn of(&self, peer: IpAddr) -> usize {
        self.per_peer.get(&peer).copied().unwrap_or(0)
    }

    fn crowded_peer(&self) -> usize {
        self.limits.per_peer.div_ceil(CROWDED_PEER)
    }

    /// There are as many as there may be: who dawdles makes room, or who has waited longest for its client's first
    /// ACK, or the slowest of a peer that has many.
    fn displace(&mut self, now: Instant) -> bool {
        let slowest = self.slowest(now);
        let dawdles = slowest.is_some_and(|((dawdles, ..), _)| dawdles);
        if !dawdles && self.displace_unheard(None) {
            return true;
        }
        let Some(((_, of, _), id)) = slowest else { return false };
        if !dawdles && of <= self.crowded_peer() {
            return false;
        }
        let Some(open) = self.open.get_mut(&id) else { return false };
        open.leaving = true;
        // It says so to its client, if it can be told.
        if open.nudge.try_send(Nudge::MakeRoom).is_err() {
            open.task.abort();
        }
        true
    }

    fn slowest(&mut self, now: Instant) -> Option<(Slow, Id)> {
        if self.looked.is_some_and(|looked| now.saturating_duration_since(looked) < LOOK) {
            return None;
        }
        self.looked = Some(now);
        let slow = self.open.iter().filter_map(|(id, open)| {
            let age = now.saturating_duration_since(open.began);
            if open.leaving || !open.is_heard() || age < self.limits.slow {
                return None;
            }
            let speed = open.bytes.load(Ordering::Relaxed) / age.as_secs().max(1);
            Some(((speed < DAWDLES, self.of(open.peer.ip()), Reverse(speed)), *id))
        });
        slow.max_by_key(|(slow, _)| *slow)
    }

    /// Of this peer, or of all: the one that has waited longest for its client's first ACK.
    fn displace_unheard(&mut self, peer: Option<IpAddr>) -> bool {
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
        Open {
            peer: peer(number),
            began: Instant::now(),
            task,
            heard: Arc::default(),
            bytes: Arc::default(),
            nudge: mpsc::channel(1).0,
            leaving: false,
        }
    }

    #[tokio::test]
    async fn those_that_are_over_are_forgotten_behind_one_that_is_not() {
        let (mut room, now) = (Room::new(Limits::default()), Instant::now());
        room.begun(open(1));
        for number in 2..10_000 {
            assert_eq!(room.find(peer(number).ip(), now), Found::Room);
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
        let (mut room, now) = (Room::new(limits(3, 2)), Instant::now());
        let all = [open(1), open(1), open(2)];
        let heard = Arc::clone(&all[0].heard);
        let tasks: Vec<AbortHandle> = all.iter().map(|open| open.task.clone()).collect();
        all.into_iter().for_each(|open| room.begun(open));
        heard.store(true, Ordering::Relaxed);
        // Of its own, where it has as many as it may have.
        assert_eq!(room.find(peer(1).ip(), now), Found::Made);
        assert_eq!(room.find(peer(1).ip(), now), Found::Nothing);
        tokio::task::yield_now().await;
        assert_eq!([false, true, false], [0, 1, 2].map(|at: usize| tasks[at].is_finished()));
        assert_eq!(room.ended(tasks[1].id()), Some(peer(1)));
        room.begun(open(1));
        // Of all, where there are as many as there may be.
        assert_eq!(room.find(peer(3).ip(), now), Found::Made);
        tokio::task::yield_now().await;
        assert_eq!([false, true, true], [0, 1, 2].map(|at: usize| tasks[at].is_finished()));
    }

    /// Takes room, if there is some, for a transfer that has been heard and has taken so much.
    fn takes(room: &mut Room, number: u32, bytes: u64, now: Instant) -> bool {
        if room.find(peer(number).ip(), now) == Found::Nothing {
            return false;
        }
        let open = Open { began: now, ..open(number) };
        open.heard.store(true, Ordering::Relaxed);
        open.bytes.store(bytes, Ordering::Relaxed);
        room.begun(open);
        true
    }

    /// Those that have been told to make room are gone. How many, by peer.
    fn leave(room: &mut Room) -> HashMap<IpAddr, usize> {
        let leaving = room.open.iter().filter(|(_, open)| open.leaving).map(|(id, _)| *id);
        let leaving: Vec<Id> = leaving.collect();
        let mut peers = HashMap::new();
        for id in leaving {
            *peers.entry(room.ended(id).unwrap().ip()).or_default() += 1;
        }
        peers
    }

    #[tokio::test]
    async fn a_few_addresses_that_take_a_block_now_and_then_do_not_hold_every_place() {
        let (mut room, begun) = (Room::new(limits(512, 64)), Instant::now());
        let all = |room: &mut Room, peers: std::ops::Range<u32>, bytes: u64| {
            let asks = peers.flat_map(|peer| std::iter::repeat_n(peer, 64));
            asks.filter(|&peer| takes(room, peer, bytes, begun)).count()
        };
        // Eight addresses would hold all of it; an eighth is left for the others.
        assert_eq!(all(&mut room, 0..8, 0), 456);
        assert_eq!(all(&mut room, 100..110, 1 << 20), 56, "eight each");
        let honest = 1000;
        assert!(!takes(&mut room, honest, 0, begun + Duration::from_secs(19)));
        // Then those that dawdle make room, of whom there are most first, but not all at once.
        let mut now = begun + Duration::from_secs(21);
        for number in 0..456 {
            now += LOOK;
            assert!(takes(&mut room, honest + number, 1 << 20, now), "{number}");
            assert!(!takes(&mut room, honest + number, 0, now));
            let left = leave(&mut room);
            assert!(left.len() == 1 && left.keys().all(|left| *left < peer(8).ip()), "{left:?}");
            if number == 391 {
                assert!((0..8).all(|number| room.of(peer(number).ip()) == 8));
            }
        }
        now += LOOK;
        assert!(
            !takes(&mut room, honest + 456, 1 << 20, now),
            "the others are quick, and have few each"
        );
    }

    #[tokio::test]
    async fn who_has_many_makes_room_after_those_that_are_not_heard() {
        let (mut room, begun) = (Room::new(limits(64, 64)), Instant::now());
        assert_eq!((0..64).filter(|_| takes(&mut room, 1, 1 << 20, begun)).count(), 57);
        assert_eq!((2..8).filter(|number| takes(&mut room, *number, 1 << 20, begun)).count(), 6);
        room.begun(open(8));
        let now = begun + Duration::from_secs(21);
        assert_eq!(room.find(peer(9).ip(), now), Found::Made);
        assert_eq!(leave(&mut room), HashMap::new(), "the one that was not heard");
        assert_eq!(room.find(peer(9).ip(), now + LOOK), Found::Made);
        assert_eq!(leave(&mut room), HashMap::from([(peer(1).ip(), 1)]));
    }
}
