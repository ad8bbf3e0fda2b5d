//! The watchdog timer.

use std::time::Instant;

use koboshi_ipmi::Response;

use crate::bmc::Bmc;
use crate::dispatch::Asked;

/// The watchdog timer.
#[derive(Debug, Clone, Default)]
pub struct Watchdog {}

/// Answers for it.
pub fn answer(_bmc: &mut Bmc, _asked: &Asked<'_>) -> Option<Response> {
    None
}

/// Lets it fire if it is due: through [`crate::chassis::act`].
pub fn poll(_bmc: &mut Bmc, _now: Instant) {}

/// When it is due.
pub fn deadline(_bmc: &Bmc) -> Option<Instant> {
    None
}
