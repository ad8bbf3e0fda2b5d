//! What a machine and its driver say to each other: what it is, what it wants sent and fetched, what it hears.

use std::net::Ipv4Addr;
use std::time::Duration;

use koboshi_pxe::Mac;

use crate::firmware::Firmware;
use crate::script::Url;

/// What a machine is.
#[derive(Debug, Clone)]
pub struct Spec {
    /// Its number, from 0.
    pub number: u32,
    /// Its NIC.
    pub mac: Mac,
    /// What is in its flash.
    pub firmware: Firmware,
    /// When it is switched on, since the storm began.
    pub on: Duration,
    /// Bytes a second at which it reads, if it is one of the slow.
    pub reads: Option<u32>,
}

/// How long to wait for what.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Patience {
    /// For a connection.
    pub connect: Duration,
    /// For the next byte.
    pub silence: Duration,
}

/// A question over HTTP.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ask {
    /// `GET`, `HEAD` or `POST`.
    pub method: &'static str,
    /// Where.
    pub url: Url,
    /// What is sent along.
    pub body: Vec<u8>,
    /// The connection may serve for the next question too.
    pub keeps: bool,
    /// So many bytes of the answer are wanted; the rest is counted and dropped.
    pub wants: usize,
    /// How long it waits.
    pub patience: Patience,
    /// Bytes a second at which it reads, if not as fast as they come.
    pub reads: Option<u32>,
}

/// An answer.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Answer {
    /// `200`
    pub status: u16,
    /// The beginning of its body, as far as it was wanted.
    pub body: Vec<u8>,
    /// Bytes of the body.
    pub bytes: u64,
}

/// What the driver has to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Effect {
    /// Send a datagram, by a frame of this machine.
    Send {
        /// Its address and port.
        from: (Ipv4Addr, u16),
        /// Whose.
        to: (Mac, Ipv4Addr, u16),
        /// What.
        payload: Vec<u8>,
    },
    /// Ask, from this machine's address, and call [`Machine::answered`].
    Fetch(Ask),
    /// Close the connection that was kept.
    HangUp,
}

/// A datagram for the machine.
#[derive(Debug, Clone, Copy)]
pub struct Heard<'a> {
    /// Who sent it.
    pub from: (Mac, Ipv4Addr, u16),
    /// To which port.
    pub port: u16,
    /// What.
    pub payload: &'a [u8],
}
