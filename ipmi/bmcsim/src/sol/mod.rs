//! Serial over LAN, from the BMC's side: without sockets. The driver brings what the host's serial port said
//! ([`heard`]), as far as there is room ([`room`]), and takes what is for it ([`Sol::to_host`]).
//!
//! ```text
//! mod       whose SOL is, and what it is to the rest of the BMC
//! command   Activate and Deactivate Payload, status, owner
//! port      characters, packets, repetitions
//! ```

pub mod command;
pub mod port;
#[cfg(test)]
mod storm;

use std::collections::VecDeque;
use std::time::Instant;

use koboshi_ipmi::wire::sol::{self, DEACTIVATING};
use koboshi_ipmi::wire::v20::PayloadType;

pub use self::command::answer;
use self::port::{Port, Timing};
use crate::bmc::Bmc;
use crate::config::Serial;

/// What a host may say while nobody listens: it goes nowhere.
const UNHEARD: usize = 4096;

/// Packets of the console that a host may leave unread: a serial port without flow control loses the rest.
const UNREAD: usize = 4096;

/// Serial over LAN.
#[derive(Debug, Clone)]
pub struct Sol {
    /// What goes to the host's serial port, in order. The driver takes it.
    pub to_host: VecDeque<ToHost>,
    /// Who has it.
    active: Option<Active>,
    /// How it gathers and repeats.
    pub timing: Timing,
    /// Characters in a packet, either way.
    pub largest: u16,
    /// Whether the host can be reached: if not, what is typed is refused for now.
    reachable: bool,
}

#[derive(Debug, Clone)]
struct Active {
    session: u32,
    port: Port,
}

/// Something for the host's serial port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ToHost {
    /// Characters.
    Data(Vec<u8>),
    /// A BREAK.
    Break,
}

impl Default for Sol {
    fn default() -> Sol {
        Sol {
            to_host: VecDeque::new(),
            active: None,
            timing: Timing::default(),
            largest: 200,
            reachable: true,
        }
    }
}

impl Sol {
    /// The session that has it.
    pub fn owner(&self) -> Option<u32> {
        self.active.as_ref().map(|active| active.session)
    }
}

/// Ends an activation. `told`: its console hears of it, where the BMC tells.
fn deactivate(bmc: &mut Bmc, told: bool) {
    let Some(active) = bmc.sol.active.take() else { return };
    if told {
        let packet = sol::Sol { sequence: 0, ack: 0, accepted: 0, flags: DEACTIVATING, data: b"" };
        bmc.send(active.session, PayloadType::Sol, packet.encode());
    }
}

/// A SOL payload came in an open session, in the datagram of this number (it and the signature have been
/// checked). What is to be sent goes by [`Bmc::send`].
pub fn payload(bmc: &mut Bmc, session: u32, number: u32, bytes: &[u8], now: Instant) {
    if bmc.faults.sol_deaf {
        return;
    }
    if let Some(active) = bmc.sol.active.as_mut().filter(|active| active.session == session) {
        active.port.take(number, bytes, &bmc.faults, &mut bmc.sol.to_host, now);
        bmc.sol.to_host.truncate(UNREAD);
        if bmc.config.serial == Serial::Echo {
            echo(bmc, now);
        }
        poll(bmc, now);
    }
}

/// A plug in the host's port joins its two wires: what fits comes back.
fn echo(bmc: &mut Bmc, now: Instant) {
    let Some(active) = &mut bmc.sol.active else { return };
    let host = &mut bmc.sol.to_host;
    while let Some(next) = host.pop_front_if(
        |next| !matches!(next, ToHost::Data(bytes) if bytes.len() > active.port.room()),
    ) {
        match next {
            ToHost::Data(bytes) => active.port.heard(&bytes, now),
            ToHost::Break => active.port.heard_break(),
        }
    }
}

/// A session ended, however it did: closed, idle for too long, or the BMC was reset.
pub fn session_ended(bmc: &mut Bmc, session: u32) {
    if bmc.sol.owner() == Some(session) {
        deactivate(bmc, false);
    }
}

/// Characters that the host's serial port emitted.
pub fn heard(bmc: &mut Bmc, bytes: &[u8], now: Instant) {
    if let Some(active) = &mut bmc.sol.active {
        active.port.heard(bytes, now);
        poll(bmc, now);
    }
}

/// A BREAK that the host's serial port sent.
pub fn heard_break(bmc: &mut Bmc, now: Instant) {
    if let Some(active) = &mut bmc.sol.active {
        active.port.heard_break();
        poll(bmc, now);
    }
}

/// Whether what is typed reaches the host: on some boards it does not while the host is in reset.
pub fn reachable(bmc: &mut Bmc, is: bool, now: Instant) {
    bmc.sol.reachable = is;
    if let Some(active) = &mut bmc.sol.active {
        active.port.reachable(is);
        poll(bmc, now);
    }
}

/// How many characters [`heard`] would take now: the driver reads no more than that.
pub fn room(bmc: &Bmc) -> usize {
    bmc.sol.active.as_ref().map_or(UNHEARD, |active| active.port.room())
}

/// Lets fire what is due: retries, characters that have waited.
pub fn poll(bmc: &mut Bmc, now: Instant) {
    if bmc.faults.sol_deaf {
        return;
    }
    while let Some(active) = &mut bmc.sol.active
        && let Some(packet) = active.port.poll(&bmc.faults, now)
    {
        let session = active.session;
        bmc.send(session, PayloadType::Sol, packet);
    }
}

/// When to poll.
pub fn deadline(bmc: &Bmc) -> Option<Instant> {
    if bmc.faults.sol_deaf {
        return None;
    }
    bmc.sol.active.as_ref().and_then(|active| active.port.deadline())
}
