//! What may be asked of a controller, by family: pure requests and decoders, and the procedures of several
//! steps built on them, written once against [`Controller`](crate::Controller).

pub mod boot;
pub mod busy;
pub mod chassis;
pub mod parameters;
pub mod refusal;
#[cfg(test)]
pub(crate) mod script;
pub mod sdr;
pub mod sensor;
