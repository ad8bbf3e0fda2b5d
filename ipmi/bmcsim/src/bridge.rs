//! Controllers behind the BMC.

use koboshi_ipmi::Response;

use crate::bmc::Bmc;
use crate::dispatch::Asked;

/// Controllers behind the BMC.
#[derive(Debug, Clone, Default)]
pub struct Bridge {}

/// Answers for it.
pub fn answer(_bmc: &mut Bmc, _asked: &Asked<'_>) -> Option<Response> {
    None
}
