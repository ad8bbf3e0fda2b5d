//! LAN configuration parameters.

use koboshi_ipmi::Response;

use crate::bmc::Bmc;
use crate::config::Config;
use crate::dispatch::Asked;

/// LAN configuration parameters.
#[derive(Debug, Clone)]
pub struct Lan {}

impl Lan {
    /// As it leaves the factory.
    pub fn new(_config: &Config) -> Lan {
        Lan {}
    }
}

/// Answers for it.
pub fn answer(_bmc: &mut Bmc, _asked: &Asked<'_>) -> Option<Response> {
    None
}
