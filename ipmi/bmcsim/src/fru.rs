//! Inventory.

use koboshi_ipmi::Response;

use crate::bmc::Bmc;
use crate::config::Config;
use crate::dispatch::Asked;

/// Inventory.
#[derive(Debug, Clone)]
pub struct Fru {}

impl Fru {
    /// As it leaves the factory.
    pub fn new(_config: &Config) -> Fru {
        Fru {}
    }
}

/// Answers for it.
pub fn answer(_bmc: &mut Bmc, _asked: &Asked<'_>) -> Option<Response> {
    None
}
