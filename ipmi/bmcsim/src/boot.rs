//! Boot options.

use koboshi_ipmi::Response;

use crate::bmc::Bmc;
use crate::dispatch::Asked;

/// Boot options.
#[derive(Debug, Clone, Default)]
pub struct Boot {}

/// Answers for it.
pub fn answer(_bmc: &mut Bmc, _asked: &Asked<'_>) -> Option<Response> {
    None
}

/// What the machine is to boot from as it starts now (`pxe`, `disk`, `cdrom`, `bios`, …: the value of
/// `KOBOSHI_BOOT`); `None` is its own order. A choice for one boot is used up by this.
pub fn chosen(_bmc: &mut Bmc) -> Option<&'static str> {
    None
}
