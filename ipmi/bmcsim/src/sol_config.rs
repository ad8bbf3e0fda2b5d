//! SOL configuration parameters.

use koboshi_ipmi::Response;

use crate::bmc::Bmc;
use crate::dispatch::Asked;

/// SOL configuration parameters.
#[derive(Debug, Clone, Default)]
pub struct SolConfig {}

/// Answers for it.
pub fn answer(_bmc: &mut Bmc, _asked: &Asked<'_>) -> Option<Response> {
    None
}
