//! IPMI 1.5 and 2.0 over LAN, from the console's side: one session a BMC, for commands and Serial over LAN
//! together, correct under loss, and never a panic on a BMC's bytes.
//!
//! # Layout
//! - [`wire`]: bytes ↔ values, and nothing else;
//! - [`crypto`]: cipher suites, passwords, the keys of a session;
//! - [`message`]: one question and its answer, whatever wraps them;
//! - [`commands`]: what may be asked, by family;
//! - [`sol`]: Serial over LAN;
//! - [`controller`]: whoever answers; [`error`]: why not, and what to try;
//! - [`session`]: one BMC's session as a machine without sockets; [`quirks`]: what firmware does otherwise;
//! - [`bmc`]: the handle, and the sockets behind it.
//!
//! Protocols here have no sockets: a machine is handed datagrams and a clock, and hands back datagrams and
//! its next deadline. The specification is IPMI 2.0 rev. 1.1 with errata 7; sections and tables are cited
//! where a field is read or written.

pub mod bmc;
pub mod commands;
pub mod controller;
pub mod crypto;
pub mod error;
pub mod message;
pub mod quirks;
pub mod session;
pub mod sol;
pub mod wire;

pub use bmc::Bmc;
pub use controller::Controller;
pub use crypto::{Kg, Password, Suite};
pub use error::Error;
pub use message::{Completion, Message, NetFn, Request, Response};
pub use quirks::{Quirk, Quirks};
pub use session::{Access, Cipher, Privilege, Version};
pub use wire::Malformed;
