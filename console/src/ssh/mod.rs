//! Consoles by SSH: `ssh -p 2222 m01@host` is m01's console, and nothing else is to be had.
//!
//! ```text
//! server      listens, counts, and cuts off
//! client      one connection: lets in, and refuses what is no console
//! session     what a channel is for
//! console     somebody at a console
//! screen      what he is shown
//! words       what stands behind `ssh m01@host`
//! keys        who may log in, and to what; `options`: how that is written; `source`: from where
//! authorized  the file of keys, read again when it changed
//! host_key    the key by which people know us
//! limits      how much a stranger gets
//! ```
//!
//! The protocol (RFC 4251–4254) is russh's. Who may do what, and which machine a name stands for, is decided by
//! whoever has the lines ([`Consoles`]). No session can reach a shell, a file or a network of this host: there is no
//! code that could.

mod authorized;
mod client;
mod console;
mod host_key;
mod keys;
mod limits;
mod options;
mod screen;
mod server;
mod session;
mod source;
mod words;

pub use authorized::Authorized;
pub use host_key::HostKey;
pub use keys::{Key, Keys, Limits, NotLet, Refused};
pub use server::{Consoles, NotReached, Reach, Server, Times};
