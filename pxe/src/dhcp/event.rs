//! What the timeline of a boot hears of its first second, and what the counters count.

use std::net::Ipv4Addr;

use serde::Serialize;

use super::relay::RelayInfo;
use super::request::{Heard, Request, Vendor};
use super::share::Crowded;
use crate::Mac;

/// Something that happened with one client.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Event {
    /// What.
    pub kind: EventKind,
    /// With whom.
    pub mac: Mac,
    /// Transaction: a retransmission has the same.
    pub xid: u32,
    /// The address it is about.
    pub address: Option<Ipv4Addr>,
    /// Client architectures (option 93).
    pub archs: Vec<u16>,
    /// Whether iPXE spoke.
    pub ipxe: bool,
    /// What option 60 makes of it.
    pub vendor: Vendor,
    /// The boot file it was given.
    pub boot_file: Option<String>,
    /// The relay it came through.
    pub relay: Option<Ipv4Addr>,
    /// What the relay says of it.
    #[serde(skip)]
    pub relay_info: Option<RelayInfo>,
    /// Where it came in.
    pub heard: Heard,
    /// The address it has and uses.
    pub ciaddr: Ipv4Addr,
}

/// What happened.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum EventKind {
    /// OFFER sent.
    Offered,
    /// ACK sent; a lease of the pool is on disk.
    Acked,
    /// NAK sent.
    Nacked(Refusal),
    /// The client found its address in use by another.
    Declined,
    /// The client gave its address back.
    Released,
    /// ACK of an INFORM sent.
    Informed,
    /// A boot file offered beside another server's address.
    ProxyOffered,
    /// The same, given on port 4011.
    ProxyAcked,
    /// It takes the address that another server lent it.
    LentElsewhere {
        /// That server.
        by: Option<Ipv4Addr>,
    },
    /// No address left in the pool, or no pool.
    PoolEmpty,
    /// No address for one more that the site does not know.
    Crowded(Crowded),
    /// Somebody answers ARP for an address that was about to be offered.
    Occupied,
    /// The same, of more addresses than may rest: it is not believed, and the address is given.
    Disbelieved,
    /// Silence.
    Ignored(Reason),
}

/// Why a NAK.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, thiserror::Error)]
#[serde(rename_all = "kebab-case")]
pub enum Refusal {
    /// It stands in another network now.
    #[error("address of another network")]
    WrongNetwork,
    /// The site gives it another address.
    #[error("not the address of this machine")]
    NotYours,
    /// Neither its seat's nor the pool's.
    #[error("address not in the pool")]
    NotInPool,
    /// Another machine has it, or is being offered it.
    #[error("address taken")]
    Taken,
}

/// Why silence.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Reason {
    /// The boot decision says so: an unknown machine.
    NotServed,
    /// It answers another server's offer.
    OtherServer,
    /// We know nothing of the address it had (RFC 2131 4.3.2: MUST remain silent).
    NoRecord,
    /// The message names no address where it has to.
    NoAddress,
    /// It gives back an address that is not its own.
    NotItsOwn,
    /// It gives up an address in the name of a machine that runs there.
    NotItself,
    /// Its seat's address is in use by another machine.
    AddressInUse,
    /// Its seat's address is another machine's by lease, or may be, and the link cannot be asked.
    StillLent,
    /// Its lease could not be written down.
    NotStored,
    /// More clients at once than the tables hold; it will ask again.
    Busy,
}

impl Event {
    pub(super) fn of(
        request: &Request,
        kind: EventKind,
        address: Option<Ipv4Addr>,
        boot_file: Option<String>,
    ) -> Event {
        Event {
            kind,
            mac: request.mac,
            xid: request.xid,
            address,
            archs: request.archs.clone(),
            ipxe: request.is_ipxe(),
            vendor: request.vendor(),
            boot_file,
            relay: request.relayed().then_some(request.giaddr),
            relay_info: request.relay_info.as_deref().map(RelayInfo::read),
            heard: request.heard,
            ciaddr: request.ciaddr,
        }
    }
}

/// How often what has happened since the start.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
#[expect(missing_docs, reason = "each is named after what it counts")]
pub struct Counters {
    pub discovers: u64,
    pub requests: u64,
    pub declines: u64,
    pub releases: u64,
    pub informs: u64,
    pub offers: u64,
    pub acks: u64,
    pub naks: u64,
    pub ignored: u64,
    pub malformed: u64,
    pub pool_empty: u64,
    /// Machines that the site does not know, for whom there was no address.
    pub crowded: u64,
    pub probes: u64,
    pub occupied: u64,
    pub not_stored: u64,
    /// Datagrams that the socket's buffer had no room for.
    pub overrun: u64,
    /// Replies that could not be sent.
    pub unsent: u64,
}
