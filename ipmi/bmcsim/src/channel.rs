//! Access by channel.

use koboshi_ipmi::Response;

use crate::bmc::Bmc;
use crate::dispatch::Asked;

/// Access by channel.
#[derive(Debug, Clone, Default)]
pub struct Channel {}

/// Answers for it.
pub fn answer(_bmc: &mut Bmc, _asked: &Asked<'_>) -> Option<Response> {
    None
}
