//! Serial over LAN, from the BMC's side: without sockets. The driver brings what the host's serial port said
//! ([`heard`]), as far as there is room ([`room`]), and takes what is for it ([`Sol::to_host`]).

use std::collections::VecDeque;
use std::time::Instant;

use koboshi_ipmi::Response;

use crate::bmc::Bmc;
use crate::dispatch::Asked;

/// Serial over LAN.
#[derive(Debug, Clone, Default)]
pub struct Sol {
    /// What goes to the host's serial port, in order. The driver takes it.
    pub to_host: VecDeque<ToHost>,
}

/// Something for the host's serial port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ToHost {
    /// Characters.
    Data(Vec<u8>),
    /// A BREAK.
    Break,
}

/// Answers Activate and Deactivate Payload, their status and their owners.
pub fn answer(_bmc: &mut Bmc, _asked: &Asked<'_>) -> Option<Response> {
    None
}

/// A SOL payload came in an open session (its signature and number have been checked). What is to be sent
/// goes by [`Bmc::send`].
pub fn payload(_bmc: &mut Bmc, _session: u32, _bytes: &[u8], _now: Instant) {}

/// A session ended, however it did: closed, idle for too long, or the BMC was reset.
pub fn session_ended(_bmc: &mut Bmc, _session: u32) {}

/// Characters that the host's serial port emitted.
pub fn heard(_bmc: &mut Bmc, _bytes: &[u8], _now: Instant) {}

/// How many characters [`heard`] would take now: the driver reads no more than that.
pub fn room(_bmc: &Bmc) -> usize {
    0
}

/// Lets fire what is due: retries, characters that have waited.
pub fn poll(_bmc: &mut Bmc, _now: Instant) {}

/// When to poll.
pub fn deadline(_bmc: &Bmc) -> Option<Instant> {
    None
}
