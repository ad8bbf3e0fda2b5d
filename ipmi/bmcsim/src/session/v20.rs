//! Packets of IPMI 2.0: those that log in, and those of an open session.
//!
//! IPMI 2.0 §13.6 and table 13-8, §13.28.

use std::net::SocketAddr;
use std::time::Instant;

use koboshi_ipmi::wire::v20::{Packet, PayloadType, encode_open};

use super::{Stage, rakp};
use crate::bmc::Bmc;
use crate::dispatch::{self, Who};
use crate::sol;

/// What follows an RMCP header, from somebody; what to send back, if anything.
pub fn receive(bmc: &mut Bmc, peer: SocketAddr, rest: &[u8], now: Instant) -> Option<Vec<u8>> {
    let packet = Packet::decode(rest).ok()?;
    if packet.session != 0 {
        return within(bmc, peer, &packet, now);
    }
    if bmc.config.suites.is_empty() || packet.encrypted || packet.authenticated {
        return None;
    }
    let (kind, answer) = match packet.kind {
        PayloadType::OpenRequest => {
            (PayloadType::OpenResponse, rakp::open(bmc, peer, packet.payload, now))
        }
        PayloadType::Rakp1 => (PayloadType::Rakp2, rakp::first(bmc, packet.payload, now)),
        PayloadType::Rakp3 => (PayloadType::Rakp4, rakp::third(bmc, packet.payload, now)),
        PayloadType::Ipmi => {
            let answer = dispatch::converse(bmc, packet.payload, &Who::nobody(peer, now));
            (PayloadType::Ipmi, answer)
        }
        _ => return None,
    };
    Some(encode_open(kind, &answer?))
}

/// A packet that names a session: nothing changes unless it is signed by that session's keys, and new.
fn within(bmc: &mut Bmc, peer: SocketAddr, packet: &Packet<'_>, now: Instant) -> Option<Vec<u8>> {
    let session = bmc.sessions.get_mut(packet.session)?;
    let Stage::Open20 { keys, window, .. } = &mut session.stage else { return None };
    let payload = packet.open(keys).ok()?;
    if !window.take(packet.sequence) {
        return None;
    }
    (session.peer, session.heard) = (peer, now);
    // The login is over: its last message has been understood.
    session.repeat = None;
    let id = session.id;
    match packet.kind {
        PayloadType::Ipmi => {
            let who = Who::of(session, now);
            let answer = dispatch::converse(bmc, &payload, &who);
            let session = bmc.sessions.get_mut(id)?;
            let sealed = answer.and_then(|answer| session.seal(PayloadType::Ipmi, &answer));
            if session.ending {
                super::end(bmc, id);
            }
            sealed
        }
        PayloadType::Sol => {
            sol::payload(bmc, id, packet.sequence, &payload, now);
            None
        }
        _ => None,
    }
}
