//! The rules by which a boot is decided, and what each says to people.

use std::fmt;
use std::net::Ipv4Addr;

use serde::Serialize;

use super::Arch;
use crate::held::Held;

/// A rule that took part in a decision. The appliance maps each to a line of the site file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Rule {
    /// The address is a group address: no machine has it.
    MacIsMulticast,
    /// Not even an address: the packet is dropped before the site is asked.
    Malformed(String),
    /// A machine of the site has this MAC.
    MacKnown,
    /// No machine has it: `net.unknown` decides.
    MacUnknown,
    /// The matrix puts the machine into this seat.
    MatrixSeat,
    /// The matrix keeps it as a spare.
    MatrixSpare,
    /// The matrix does not name it.
    MatrixSilent,
    /// The seat has this address.
    SeatAddress(Ipv4Addr),
    /// No seat address: one of the pool.
    PoolAddress,
    /// The seat's role.
    SeatRole,
    /// The role cannot be booted now.
    RoleTrouble(String),
    /// `net.unknown` asks whoever is at the console.
    MenuAsks,
    /// This was typed there.
    Typed(String),
    /// An operator ordered this for its next boot.
    Ticket(String),
    /// A boot is under way and its plan holds, whatever the site says since.
    FrozenPlan,
    /// The machine or its class names the loader.
    LoaderNamed(String),
    /// The loader named does not fit the architecture the client told.
    LoaderMisfit(String),
    /// The loader that goes with the architecture.
    LoaderByArch(Arch, String),
    /// No loader for it.
    NoLoader(Option<Arch>),
    /// iPXE needs no loader: it gets its script.
    AlreadyIpxe,
    /// Not a boot: an operating system asks for its address.
    NotBooting,
    /// Another machine holds the seat.
    SeatHeld(Held),
    /// The machine has booted by another NIC, which has its address.
    OtherNic,
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Rule::MacIsMulticast => f.write_str("a group address belongs to no machine"),
            Rule::Malformed(why) => write!(f, "{why}: it is dropped and counted where it is heard"),
            Rule::MacKnown => f.write_str("the MAC is this machine's"),
            Rule::MacUnknown => f.write_str("no machine has this MAC: net.unknown decides"),
            Rule::MatrixSeat => f.write_str("the matrix gives the machine this seat"),
            Rule::MatrixSpare => f.write_str("the matrix keeps the machine as a spare"),
            Rule::MatrixSilent => f.write_str("the matrix does not name the machine"),
            Rule::SeatAddress(address) => write!(f, "the seat's address is {address}"),
            Rule::PoolAddress => f.write_str("no fixed address: one of the pool"),
            Rule::SeatRole => f.write_str("the seat's role"),
            Rule::RoleTrouble(why) => write!(f, "it cannot be booted now: {why}"),
            Rule::MenuAsks => f.write_str("whoever is at its console is asked what it shall be"),
            Rule::Typed(says) => write!(f, "{says} was typed at the machine's console"),
            Rule::Ticket(duty) => {
                write!(f, "a ticket orders {duty} for its next boot, once (`koboshi maintain`)")
            }
            Rule::FrozenPlan => f.write_str("a boot is under way, and its plan holds"),
            Rule::LoaderNamed(file) => write!(f, "the site names the loader {file}"),
            Rule::LoaderMisfit(file) => {
                write!(f, "the site names the loader {file}, which this firmware cannot start")
            }
            Rule::LoaderByArch(arch, file) => write!(f, "{arch} starts {file}"),
            Rule::NoLoader(Some(arch)) => write!(f, "there is no loader for {arch}"),
            Rule::NoLoader(None) => f.write_str("there is no loader for this client"),
            Rule::AlreadyIpxe => f.write_str("the client is iPXE: it gets its script"),
            Rule::NotBooting => f.write_str("an operating system asks, not a boot"),
            Rule::SeatHeld(held) => {
                write!(f, "{} holds the seat: {}; {}", held.by, held.evidence(), held.ends())
            }
            Rule::OtherNic => {
                f.write_str("the machine has booted by another NIC, which has its seat's address")
            }
        }
    }
}
