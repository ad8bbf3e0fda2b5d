//! The BMC's side of sessions: who is logged in, by which version of IPMI, and until when.
//!
//! IPMI 2.0 §6.12 (sessions, sequence numbers, inactivity), §13 (RMCP+).

use std::time::Instant;

use koboshi_ipmi::Response;

use crate::bmc::Bmc;
use crate::config::Config;
use crate::dispatch::Asked;

/// All sessions.
#[derive(Debug)]
pub struct Sessions {}

impl Sessions {
    /// None yet.
    pub fn new(_config: &Config) -> Sessions {
        Sessions {}
    }
}

/// Answers what opens, shows and closes sessions.
pub fn answer(_bmc: &mut Bmc, _asked: &Asked<'_>) -> Option<Response> {
    None
}

/// Lets fire what is due.
pub fn poll(_bmc: &mut Bmc, _now: Instant) {}

/// When.
pub fn deadline(_bmc: &Bmc) -> Option<Instant> {
    None
}
