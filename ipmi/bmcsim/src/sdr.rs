//! Sensor data records.

use koboshi_ipmi::Response;

use crate::bmc::Bmc;
use crate::config::Config;
use crate::dispatch::Asked;

/// Sensor data records.
#[derive(Debug, Clone)]
pub struct Sdr {}

impl Sdr {
    /// As it leaves the factory.
    pub fn new(_config: &Config) -> Sdr {
        Sdr {}
    }
}

/// Answers for it.
pub fn answer(_bmc: &mut Bmc, _asked: &Asked<'_>) -> Option<Response> {
    None
}
