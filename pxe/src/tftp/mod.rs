//! The moment a ROM asks for its loader: read-only TFTP (RFC 1350, with the options of RFC 2347,
//! 2348, 2349 and 7440).
//!
//! ```text
//! packet     bytes <-> requests, ACKs, ERRORs, DATA, OACK
//! name       what a ROM sends as a file name -> the name that is looked up
//! terms      options asked for -> options granted
//! transfer   one transfer: datagrams and `now` in, what to send and a deadline out
//! socket     the listening port, and the port of one transfer
//! delivery   drives one transfer from the request to its end
//! credit     what a source gets that has acknowledged nothing yet
//! room       who is being served, and who makes room for another one
//! server     the listening port's loop: one task a transfer, bounded
//! threads    what the loop and the transfers run on
//! ```
//!
//! The size probe of UEFI firmware (EDK2 asks for `tsize`, sends ERROR 8 as soon as it has read the
//! answer, and asks again from another port) is an ordinary end here: it costs one OACK.

mod credit;
mod delivery;
pub mod name;
pub mod packet;
mod room;
mod server;
mod socket;
pub mod terms;
mod threads;
pub mod transfer;

pub use server::{Counters, Event, Limits, Lookup, Server, Tell, serve};
pub use socket::bind;
