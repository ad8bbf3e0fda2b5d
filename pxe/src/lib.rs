//! What a booting machine talks to, in the order it does: DHCP gives it an address, TFTP a loader,
//! HTTP a script, a kernel and archives. One decision (`decide`) stands behind all three.
//!
//! ```text
//! dhcp/     DISCOVER to ACK: packets, the server's state machine, its sockets
//! tftp/     read-only transfers: packets, the transfer's state machine, its sockets
//! http/     script, blobs, reports
//! firmware  what a machine's firmware said of itself
//! loader    the programs firmware starts: where each runs, what it reads
//! script/   the plan of a boot in the language of each loader
//! decide    what the site says + what the client said = what it gets, and because of which rule
//! boots     boots under way: ids, frozen plans, who is where
//! seats     who holds which seat: the gate before every boot
//! held      … and what is said to those who wait for one
//! menu      what a person may choose at a machine's console, and did
//! pace      a storm of boots: pauses, turns
//! desk      the counter they all come to: one snapshot of the site, one table of boots
//! ```

pub mod boots;
pub mod content;
pub mod decide;
pub mod desk;
pub mod dhcp;
pub mod firmware;
mod gauge;
pub mod held;
pub mod hostile;
pub mod http;
pub mod loader;
pub mod mac;
pub mod menu;
pub mod pace;
pub mod script;
pub mod seats;
pub mod tftp;

pub use content::{BootId, Content};
pub use mac::Mac;
