//! The BMC's side of sessions: who is logged in, by which version of IPMI, and until when.
//!
//! IPMI 2.0 §6.12 (sessions, sequence numbers, inactivity), §13 (RMCP+).

pub mod commands;
#[cfg(test)]
pub(crate) mod console;
pub mod rakp;
#[cfg(test)]
mod tests;
pub mod v15;
pub mod v20;
pub mod window;

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use koboshi_ipmi::Password;
use koboshi_ipmi::crypto::{Exchange, Keys, Suite};
use koboshi_ipmi::wire::v15::Auth;
use koboshi_ipmi::wire::v20::{PayloadType, encode_sealed};

use crate::bmc::Bmc;
use crate::config::Config;
use crate::faults::Legacy;
use crate::sol;
use crate::user::{Privilege, User};
use window::Window;

pub use commands::answer;

/// Logins under way that are kept, beside those that hold a slot: the oldest gives way to the next.
const HALF_OPEN: usize = 16;

/// All sessions, and the logins that may become one.
#[derive(Debug)]
pub struct Sessions {
    list: Vec<Session>,
    /// How many may be open at a time.
    pub slots: usize,
    /// A session that says nothing for so long is closed.
    pub idle: Duration,
    handles: u8,
}

/// One session, or one login under way.
#[derive(Debug)]
pub struct Session {
    /// Our id: what the console addresses packets to.
    pub id: u32,
    /// Where its last authentic packet came from.
    pub peer: SocketAddr,
    /// Id of the user.
    pub user: u8,
    /// What it may do now.
    pub privilege: Privilege,
    /// The most it may be raised to.
    pub limit: Privilege,
    /// Its number for Get Session Info.
    pub handle: u8,
    /// When it said something that was authentic.
    pub heard: Instant,
    stage: Stage,
    /// The last message of its login, and what was answered: for the message that comes twice.
    repeat: Option<(Vec<u8>, Vec<u8>)>,
    /// It has asked to be closed.
    ending: bool,
}

#[derive(Debug)]
enum Stage {
    /// 1.5: Get Session Challenge was answered.
    Challenged { auth: Auth, challenge: [u8; 16] },
    /// 2.0: Open Session was answered.
    Opened { suite: Suite, console: u32, privilege: u8 },
    /// 2.0: RAKP 1 was answered.
    Named { exchange: Box<ExchangeOf> },
    /// 1.5: open.
    Open15 { auth: Auth, password: Password, window: Window, next: u32, odd: Legacy },
    /// 2.0: open.
    Open20 { keys: Box<Keys>, console: u32, window: Window, next: u32 },
}

/// An exchange under way, and by whom.
struct ExchangeOf {
    exchange: Exchange,
    password: Password,
    /// The role that keys are hashed with.
    role: u8,
}

impl std::fmt::Debug for ExchangeOf {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "ExchangeOf({})", String::from_utf8_lossy(&self.exchange.name))
    }
}

impl Session {
    /// Whether somebody is logged in by it.
    pub fn is_open(&self) -> bool {
        matches!(self.stage, Stage::Open15 { .. } | Stage::Open20 { .. })
    }

    /// Whether it is one of RMCP+.
    pub fn is_rmcp_plus(&self) -> bool {
        !matches!(self.stage, Stage::Challenged { .. } | Stage::Open15 { .. })
    }

    /// The cipher suite of an open session of 2.0.
    pub fn suite(&self) -> Option<Suite> {
        match &self.stage {
            Stage::Open20 { keys, .. } => Some(keys.suite()),
            _ => None,
        }
    }

    /// A payload as a datagram to its console. `None`: it is not open, or knows no such payload.
    pub fn seal(&mut self, kind: PayloadType, payload: &[u8]) -> Option<Vec<u8>> {
        match &mut self.stage {
            Stage::Open15 { auth, password, next, odd, .. } if kind == PayloadType::Ipmi => {
                let sequence = odd.order(*next);
                *next = after(*next);
                let id = if odd.zero_session { 0 } else { self.id };
                let encode = koboshi_ipmi::wire::v15::encode;
                Some(match odd.unexpected_auth {
                    true => encode(Auth::Md5, id, sequence, &Password::default(), payload),
                    false => encode(*auth, id, sequence, password, payload),
                })
            }
            Stage::Open20 { keys, console, next, .. } => {
                let sequence = *next;
                *next = after(sequence);
                Some(encode_sealed(kind, *console, sequence, payload, keys, random()))
            }
            _ => None,
        }
    }
}

/// The number after this one; 0 is none.
fn after(sequence: u32) -> u32 {
    sequence.checked_add(1).unwrap_or(1)
}

/// Bytes that nobody can guess.
pub(crate) fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    // It fails on kernels without the call alone, and a simulator keeps no secrets.
    let _ = getrandom::fill(&mut bytes);
    bytes
}

impl Sessions {
    /// None yet.
    pub fn new(config: &Config) -> Sessions {
        Sessions { list: Vec::new(), slots: config.slots, idle: config.idle, handles: 0 }
    }

    /// Those that are open, the oldest first.
    pub fn open(&self) -> impl Iterator<Item = &Session> {
        self.list.iter().filter(|session| session.is_open())
    }

    /// The one of this id, open or not.
    pub fn get(&self, id: u32) -> Option<&Session> {
        self.list.iter().find(|session| session.id == id)
    }

    /// The same, to be changed.
    pub fn get_mut(&mut self, id: u32) -> Option<&mut Session> {
        self.list.iter_mut().find(|session| session.id == id)
    }

    /// Whether another session can be opened.
    pub fn is_full(&self) -> bool {
        self.open().count() >= self.slots
    }

    /// Keeps a login under way, and gives it an id.
    fn begin(&mut self, peer: SocketAddr, now: Instant, stage: Stage) -> &mut Session {
        let half_open = |list: &[Session]| list.iter().filter(|one| !one.is_open()).count();
        if half_open(&self.list) >= HALF_OPEN
            && let Some(oldest) = self.list.iter().position(|one| !one.is_open())
        {
            self.list.remove(oldest);
        }
        let mut id = 0;
        while id == 0 || self.get(id).is_some() {
            id = u32::from_le_bytes(random());
        }
        self.list.push(Session {
            id,
            peer,
            user: 0,
            privilege: Privilege::Callback,
            limit: Privilege::Callback,
            handle: 0,
            heard: now,
            stage,
            repeat: None,
            ending: false,
        });
        let last = self.list.len() - 1;
        &mut self.list[last]
    }

    /// A handle that no session has.
    fn handle(&mut self) -> u8 {
        loop {
            self.handles = self.handles.checked_add(1).unwrap_or(1);
            if !self.list.iter().any(|session| session.handle == self.handles) {
                return self.handles;
            }
        }
    }
}

/// The most that a user may do in a session by LAN: the account's limit, and the channel's.
fn most(bmc: &Bmc, user: &User) -> Option<Privilege> {
    Some(user.limit?.min(bmc.channel.ceiling()?))
}

/// Ends a session, and what lives by it.
pub fn end(bmc: &mut Bmc, id: u32) {
    let before = bmc.sessions.list.len();
    bmc.sessions.list.retain(|session| session.id != id);
    if bmc.sessions.list.len() < before {
        sol::session_ended(bmc, id);
    }
}

/// A BMC that is about to start anew: who asked for it reads the answer, and then nobody is known.
pub fn reset(bmc: &mut Bmc, asking: Option<u32>) {
    let others: Vec<u32> =
        bmc.sessions.list.iter().map(|one| one.id).filter(|id| Some(*id) != asking).collect();
    for other in others {
        end(bmc, other);
    }
    if let Some(own) = asking.and_then(|id| bmc.sessions.get_mut(id)) {
        own.ending = true;
    }
}

/// Ends all: a BMC that was reset knows nobody.
pub fn end_all(bmc: &mut Bmc) {
    for session in std::mem::take(&mut bmc.sessions.list) {
        sol::session_ended(bmc, session.id);
    }
}

/// The reaper: who has been silent for too long is not there any more.
pub fn poll(bmc: &mut Bmc, now: Instant) {
    let idle = bmc.sessions.idle;
    while let Some(silent) =
        bmc.sessions.list.iter().find(|session| session.heard + idle <= now).map(|one| one.id)
    {
        end(bmc, silent);
    }
}

/// When the reaper comes next.
pub fn deadline(bmc: &Bmc) -> Option<Instant> {
    bmc.sessions.list.iter().map(|session| session.heard + bmc.sessions.idle).min()
}
