//! One module for each operation: what it is asked, what it answers, how that is shown. The API's
//! handler and the command line both come here.

pub mod adopt;
pub mod bmc;
pub mod bootdev;
pub mod booted;
pub mod boots;
pub mod check;
pub mod console;
pub mod events;
pub mod explain;
pub mod fence;
pub mod fru;
pub mod hardware;
pub mod image;
pub mod known_hosts;
pub mod lan;
pub mod log;
pub mod maintain;
pub mod many;
pub mod ports;
pub mod power;
pub mod receipt;
pub mod reload;
pub mod rollout;
pub mod scan;
pub mod seat;
pub mod sel;
pub mod sensors;
pub mod setup;
pub mod status;
pub mod table;
pub mod watchdog;

use crate::api::Refusal;
use crate::site::{MachineName, Site};

/// The one machine that WHO stands for.
fn one(site: &Site, who: &str) -> Result<MachineName, Refusal> {
    let named = site.who(who).map_err(|error| Refusal::not_found(error.to_string(), None))?;
    match named.as_slice() {
        [one] => Ok(one.clone()),
        many => {
            let error = format!("{who} stands for {} machines; name one", many.len());
            Err(Refusal::not_found(error, None))
        }
    }
}
