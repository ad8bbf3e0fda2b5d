//! Packets of IPMI 1.5: those outside a session, Activate Session, and those of an open one.
//!
//! IPMI 2.0 §22.16 (Get Session Challenge), §22.17 (Activate Session).

use std::net::SocketAddr;
use std::time::Instant;

use koboshi_ipmi::crypto::same;
use koboshi_ipmi::wire::v15::{Auth, Packet, encode};
use koboshi_ipmi::wire::v20::PayloadType;
use koboshi_ipmi::{Completion, Message, NetFn, Password, Response};

use super::{Stage, most, random};
use crate::bmc::Bmc;
use crate::dispatch::{self, Who};
use crate::session::window::Window;
use crate::user::Privilege;

/// How far a packet of IPMI 1.5 may be off (§6.12.12).
const REACH: u32 = 8;

const ACTIVATE: u8 = 0x3a;
const NO_SLOT: Completion = Completion(0x81);
const INVALID_SESSION: Completion = Completion(0x85);
const BEYOND_LIMIT: Completion = Completion(0x86);

/// What follows an RMCP header, from somebody; what to send back, if anything.
pub fn receive(bmc: &mut Bmc, peer: SocketAddr, rest: &[u8], now: Instant) -> Option<Vec<u8>> {
    let packet = Packet::decode(rest).ok()?;
    if packet.session == 0 {
        let answer = dispatch::converse(bmc, packet.payload, &Who::nobody(peer, now))?;
        return Some(encode(Auth::None, 0, 0, &Password::default(), &answer));
    }
    let session = bmc.sessions.get_mut(packet.session)?;
    if let Some((asked, answer)) = &session.repeat
        && asked == rest
    {
        return Some(answer.clone());
    }
    match &mut session.stage {
        Stage::Challenged { auth, challenge } => {
            let (auth, challenge) = (*auth, *challenge);
            let password = bmc.users.by_id(session.user)?.password.clone();
            if packet.auth != auth || !packet.is_authentic(&password) {
                return None;
            }
            activate(bmc, peer, rest, &packet, challenge, password, now)
        }
        Stage::Open15 { auth, password, window, odd, .. } => {
            let authentic = packet.auth == *auth && packet.is_authentic(password);
            if !authentic || !window.take(odd.order(packet.sequence)) {
                return None;
            }
            (session.peer, session.heard, session.repeat) = (peer, now, None);
            let (id, who) = (session.id, Who::of(session, now));
            let answer = dispatch::converse(bmc, packet.payload, &who);
            let session = bmc.sessions.get_mut(id)?;
            let sealed = answer.and_then(|answer| session.seal(PayloadType::Ipmi, &answer));
            if session.ending {
                super::end(bmc, id);
            }
            sealed
        }
        _ => None,
    }
}

/// Activate Session, by somebody who knows the password.
fn activate(
    bmc: &mut Bmc,
    peer: SocketAddr,
    rest: &[u8],
    packet: &Packet<'_>,
    challenge: [u8; 16],
    password: Password,
    now: Instant,
) -> Option<Vec<u8>> {
    let message = Message::decode(packet.payload).ok()?;
    if (message.netfn, message.command) != (NetFn::APP, ACTIVATE) || !message.checksums {
        return None;
    }
    let odd = bmc.faults.legacy;
    let named = if odd.zero_session { 0 } else { packet.session };
    let sign = |sequence, response: &Response| {
        let answer = message.respond(response).encode();
        Some(encode(packet.auth, named, odd.order(sequence), &password, &answer))
    };
    let refused = |completion| sign(0, &Response { completion, data: Vec::new() });
    let Some((fixed, _)) = message.data.split_first_chunk::<22>() else {
        return refused(Completion::LENGTH_INVALID);
    };
    let (wanted, outbound) = (fixed[1] & 0x0f, [fixed[18], fixed[19], fixed[20], fixed[21]]);
    if fixed[0] & 0x0f != packet.auth.number() || !same(&fixed[2..18], &challenge) {
        return refused(INVALID_SESSION);
    }
    if bmc.faults.full || bmc.sessions.is_full() {
        return refused(NO_SLOT);
    }
    let user = bmc.sessions.get(packet.session).and_then(|one| bmc.users.by_id(one.user));
    let limit = user.and_then(|user| most(bmc, user));
    let Some(limit) = Privilege::of(wanted).filter(|wanted| limit >= Some(*wanted)) else {
        return refused(BEYOND_LIMIT);
    };
    let handle = bmc.sessions.handle();
    let session = bmc.sessions.get_mut(packet.session)?;
    let outbound = odd.order(u32::from_le_bytes(outbound));
    let inbound = (u32::from_le_bytes(random()) & 0x7fff_ffff).max(1);
    // For the rest of the session.
    let said = if odd.says_unauthenticated() { Auth::None } else { packet.auth };
    let auth = if odd.force_per_message { packet.auth } else { said };
    let mut data = vec![said.number()];
    data.extend(session.id.to_le_bytes());
    data.extend(odd.order(inbound).to_le_bytes());
    data.push(limit as u8);
    let answer = sign(outbound, &Response { completion: Completion::OK, data })?;
    (session.peer, session.heard, session.handle) = (peer, now, handle);
    (session.limit, session.privilege) = (limit, limit.min(Privilege::User));
    session.repeat = Some((rest.to_vec(), answer.clone()));
    let window = Window::starting(inbound, REACH);
    let next = super::after(outbound);
    session.stage = Stage::Open15 { auth, password, window, next, odd };
    Some(answer)
}
