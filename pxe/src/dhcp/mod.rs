//! DISCOVER to ACK: the first second of every boot, and all that a running system asks later
//! (RFC 2131).
//!
//! ```text
//! options, packet      bytes ↔ values
//! request, reply       what a client said; what we say and where it goes
//! relay, proxy         what a relay agent adds; what is said beside another DHCP server
//! answer               what the boot decision wants done: comes in as a value
//! server, exchange     the state machine: requests and deadlines in, effects out; no sockets
//! lease, hold, pool    what it remembers: for good, until the next ACK, and what is left to give
//! share                what of a pool is for machines that nobody knows
//! kept, ahead, clock   what the journal amounts to; what is lent before the disk has it; a clock that is set
//! event                what the timeline and the counters hear
//! frame                Ethernet, IPv4, UDP and ARP by hand, for clients without an address
//! wire, probe, look    sockets; is anybody there, and who
//! socket               the driver
//! ```

mod ahead;
pub mod answer;
mod clock;
pub mod event;
mod exchange;
pub mod frame;
mod hold;
pub mod kept;
pub mod lease;
pub mod look;
pub mod options;
pub mod packet;
mod pool;
pub mod probe;
mod proxy;
pub mod relay;
pub mod reply;
pub mod request;
pub mod server;
pub mod share;
pub mod socket;
pub mod wire;

pub use ahead::{Ahead, Doubt};
pub use answer::{Address, Answer, BootFile, Proxying, Serving, Subnet, Who};
pub use clock::ClockSet;
pub use event::{Counters, Event, EventKind, Reason, Refusal};
pub use kept::{Kept, LeaseChange};
pub use lease::{ClientKey, LeaseRecord, Now};
pub use packet::{BadPacket, Packet};
pub use relay::{RelayInfo, Via};
pub use reply::{Destination, Outgoing};
pub use request::{Heard, MessageType, Request, Vendor};
pub use server::{Effect, LeaseStatus, Server, Ticket};
pub use share::Crowded;
pub use socket::{Control, JournalWrite, serve};
pub use wire::{Config, Wire, WireError};
