//! Sensors.

use koboshi_ipmi::Response;

use crate::bmc::Bmc;
use crate::config::Config;
use crate::dispatch::Asked;

/// Sensors.
#[derive(Debug, Clone)]
pub struct Sensors {}

impl Sensors {
    /// As it leaves the factory.
    pub fn new(_config: &Config) -> Sensors {
        Sensors {}
    }
}

/// Answers for it.
pub fn answer(_bmc: &mut Bmc, _asked: &Asked<'_>) -> Option<Response> {
    None
}
