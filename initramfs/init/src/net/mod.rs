//! The machine's NICs, from what the kernel found to what the seat's addresses stand on: which is
//! which ([`assign`], [`naming`]), what is built on top of them ([`links`]), each brought up and proved
//! to be alone with its address ([`link`], [`arp`]), all of it said to the kernel in bytes ([`netlink`]).

pub mod arp;
pub mod assign;
pub mod link;
pub mod links;
pub mod naming;
pub mod netlink;
