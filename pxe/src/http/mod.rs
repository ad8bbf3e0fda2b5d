//! The moment a machine has a loader and asks for what it is to become: script, kernel, archives
//! and root over HTTP, and its reports back.
//!
//! ```text
//! range      conditions and ranges of a request -> which bytes are owed (RFC 9110)
//! file       reading them without a disk holding up everybody else
//! body       the answer, streamed in bounded memory
//! lane       a file's way to the client without a copy
//! unsent     how much of it waits in the kernel
//! serve      connections: bounds, timeouts, keep-alive, the graceful stop
//! stall      a client that takes no more
//! routes     what is where
//! ```

mod body;
pub(crate) mod file;
mod lane;
pub mod range;
mod routes;
mod serve;
mod stall;
mod unsent;

pub use body::respond;
pub use lane::Lane;
pub use routes::routes;
pub use serve::{Counters, Limits, Reached, bind, serve};
