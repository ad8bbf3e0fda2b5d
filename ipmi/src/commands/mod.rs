//! What may be asked of a controller, by family: pure requests and decoders, and the procedures of several
//! steps built on them, written once against [`Controller`](crate::Controller).

pub mod authentication;
pub mod boot;
pub mod bridge;
pub mod busy;
pub mod channel;
pub mod chassis;
pub mod dcmi;
pub mod device;
pub mod fru;
pub mod guid;
pub mod lan;
pub mod lan_ipv6;
pub mod lan_set;
pub mod panel;
pub mod parameters;
pub mod raw;
pub mod refusal;
#[cfg(test)]
pub(crate) mod script;
pub mod sdr;
pub mod sel;
pub mod sensor;
pub mod sessions;
pub mod sol_config;
pub mod system_info;
pub mod user;
pub mod watchdog;
