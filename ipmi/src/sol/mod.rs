//! Serial over LAN: the machine's serial port through its BMC.
//!
//! IPMI 2.0 §15 (the protocol), §24 (activating payloads), §26 (settings).
//! - [`engine`]: one activation as a state machine, of [`inbound`] and [`outbound`];
//! - [`event`]: what a reader gets;
//! - [`console`]: the handle of an open one, which the `bmc` module drives;
//! - [`activate`], of [`payload`] and [`owner`]: how one is come by, and whose it is.

pub mod activate;
pub mod console;
pub mod engine;
pub mod event;
mod inbound;
mod outbound;
pub mod owner;
pub mod payload;

pub use activate::Takeover;
pub use console::{Console, Options, Turn, Typist};
pub use engine::{Ended, Engine, Settings};
pub use event::{Event, Operation};
pub use payload::Alerts;
