//! Commands that open, show, raise and close sessions.
//!
//! IPMI 2.0 §22.13 (authentication capabilities), §22.15 (cipher suites), §22.16 (challenge), §22.18–22.20
//! (privilege, close, info); table 22-20 (cipher suite records).

use std::net::SocketAddr;

use koboshi_ipmi::wire::v15::Auth;
use koboshi_ipmi::{Completion, Response};

use super::{Session, Stage, random};
use crate::bmc::Bmc;
use crate::dispatch::{Asked, LAN, ok, refuse};
use crate::user::Privilege;

const NO_SUCH_USER: Completion = Completion(0x81);
const NOT_FOR_THIS_USER: Completion = Completion(0x80);
const BEYOND_LIMIT: Completion = Completion(0x81);
const NO_SUCH_SESSION: Completion = Completion(0x87);
const NO_SUCH_HANDLE: Completion = Completion(0x88);

/// Answers for sessions.
pub fn answer(bmc: &mut Bmc, asked: &Asked<'_>) -> Option<Response> {
    match asked.command {
        0x38 => capabilities(bmc, asked),
        0x39 => challenge(bmc, asked),
        0x3b => raise(bmc, asked),
        0x3c => close(bmc, asked),
        0x3d => info(bmc, asked),
        0x54 => suites(bmc, asked),
        _ => None,
    }
}

fn capabilities(bmc: &Bmc, asked: &Asked<'_>) -> Option<Response> {
    let [channel, privilege, ..] = asked.data else { return refuse(Completion::LENGTH_INVALID) };
    let wants_v2 = channel & 0x80 != 0;
    if wants_v2 && bmc.faults.no_v2_bit || asked.channel_of(*channel) != LAN {
        return refuse(Completion::INVALID_FIELD);
    }
    if Privilege::of(privilege & 0x0f).is_none() {
        return refuse(Completion::INVALID_FIELD);
    }
    let v2 = wants_v2 && !bmc.config.suites.is_empty();
    let v15 = !bmc.config.auths.is_empty();
    let auths = bmc.config.auths.iter().fold(0, |bits, auth| bits | auth.bit());
    let all = Auth::None.bit() | Auth::Md5.bit() | Auth::Password.bit();
    let auths = if bmc.faults.wrong_capabilities { all & !auths } else { auths };
    let named = |named: bool| {
        bmc.users.0.iter().any(|user| user.may_log_in() && user.name.is_empty() != named)
    };
    let logins = u8::from(named(true)) << 2 | u8::from(named(false)) << 1;
    let own_key = if v2 && bmc.config.kg.is_some() { 0x20 } else { 0 };
    let unauthenticated = u8::from(bmc.faults.legacy.says_unauthenticated()) << 4;
    let versions = if v2 { 0x02 | u8::from(v15) } else { 0 };
    let version_bit = if v2 { 0x80 } else { 0 };
    ok([LAN, version_bit | auths, own_key | unauthenticated | logins, versions, 0, 0, 0, 0])
}

fn challenge(bmc: &mut Bmc, asked: &Asked<'_>) -> Option<Response> {
    let (Some((kind, name)), Some(peer)) = (asked.data.split_first(), asked.peer) else {
        return refuse(Completion::LENGTH_INVALID);
    };
    let Some((name, _)) = name.split_first_chunk::<16>() else {
        return refuse(Completion::LENGTH_INVALID);
    };
    let auth = [Auth::None, Auth::Md5, Auth::Password]
        .into_iter()
        .find(|auth| auth.number() == kind & 0x0f && bmc.config.auths.contains(auth));
    let Some(auth) = auth else { return refuse(Completion::INVALID_FIELD) };
    let length = name.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
    let Some((user, _)) = bmc.users.find(&name[..length], |_| true) else {
        return refuse(NO_SUCH_USER);
    };
    let challenge = random();
    let session = bmc.sessions.begin(peer, asked.now, Stage::Challenged { auth, challenge });
    session.user = user;
    let mut data = session.id.to_le_bytes().to_vec();
    data.extend(challenge);
    ok(data)
}

fn raise(bmc: &mut Bmc, asked: &Asked<'_>) -> Option<Response> {
    let Some(session) = asked.session.and_then(|id| bmc.sessions.get_mut(id)) else {
        return refuse(Completion::NOT_NOW);
    };
    let [wanted, ..] = asked.data else { return refuse(Completion::LENGTH_INVALID) };
    match wanted & 0x0f {
        0 => {}
        number => match Privilege::of(number) {
            Some(Privilege::Callback) | None => return refuse(Completion::INVALID_FIELD),
            Some(wanted) if wanted <= session.limit => session.privilege = wanted,
            Some(Privilege::Oem) => return refuse(NOT_FOR_THIS_USER),
            Some(_) => return refuse(BEYOND_LIMIT),
        },
    }
    ok([session.privilege as u8])
}

fn close(bmc: &mut Bmc, asked: &Asked<'_>) -> Option<Response> {
    let Some((id, rest)) = asked.data.split_first_chunk() else {
        return refuse(Completion::LENGTH_INVALID);
    };
    let id = u32::from_le_bytes(*id);
    let target = match (id, rest) {
        (0, [handle, ..]) => bmc.sessions.open().find(|session| session.handle == *handle),
        _ => bmc.sessions.open().find(|session| session.id == id),
    };
    let Some(target) = target.map(|session| session.id) else {
        return refuse(if id == 0 { NO_SUCH_HANDLE } else { NO_SUCH_SESSION });
    };
    if asked.session == Some(target) {
        // It wants to read the answer.
        bmc.sessions.get_mut(target)?.ending = true;
    } else if asked.privilege < Some(Privilege::Admin) {
        return refuse(Completion::PRIVILEGE);
    } else {
        super::end(bmc, target);
    }
    ok([])
}

fn info(bmc: &Bmc, asked: &Asked<'_>) -> Option<Response> {
    let found = match *asked.data {
        [0, ..] => bmc.sessions.open().find(|session| Some(session.id) == asked.session),
        [0xfe, handle, ..] => bmc.sessions.open().find(|session| session.handle == handle),
        [0xff, a, b, c, d, ..] => {
            let id = u32::from_le_bytes([a, b, c, d]);
            bmc.sessions.open().find(|session| session.id == id)
        }
        [index @ 1..=0xfd, ..] => bmc.sessions.open().nth(usize::from(index) - 1),
        _ => return refuse(Completion::LENGTH_INVALID),
    };
    let count = |number: usize| u8::try_from(number).unwrap_or(0x3f) & 0x3f;
    let (slots, open) = (count(bmc.sessions.slots), count(bmc.sessions.open().count()));
    let Some(session) = found else { return ok([0, slots, open]) };
    let mut data = vec![session.handle, slots, open];
    data.extend(describe(session));
    ok(data)
}

/// The part of Get Session Info that is there for an active session of a LAN channel.
fn describe(session: &Session) -> Vec<u8> {
    let protocol = u8::from(session.is_rmcp_plus()) << 4;
    let mut data = vec![session.user, session.privilege as u8, protocol | LAN];
    match session.peer {
        SocketAddr::V4(peer) => data.extend(peer.ip().octets()),
        SocketAddr::V6(_) => data.extend([0; 4]),
    }
    // A MAC address that is nobody's: the console is beyond a router as far as we know.
    data.extend([0; 6]);
    data.extend(session.peer.port().to_le_bytes());
    data
}

fn suites(bmc: &Bmc, asked: &Asked<'_>) -> Option<Response> {
    let [channel, _, index, ..] = asked.data else { return refuse(Completion::LENGTH_INVALID) };
    if bmc.config.suites.is_empty() {
        return refuse(Completion::INVALID_COMMAND);
    }
    if asked.channel_of(*channel) != LAN {
        return refuse(Completion::INVALID_FIELD);
    }
    let mut records = Vec::new();
    for suite in &bmc.config.suites {
        let algorithms = [
            suite.authentication.number(),
            0x40 | suite.integrity.number(),
            0x80 | suite.confidentiality.number(),
        ];
        if index & 0x80 != 0 {
            records.extend([0xc0, suite.id]);
            records.extend(algorithms);
        } else {
            records.extend(
                algorithms.into_iter().filter(|one| !records.contains(one)).collect::<Vec<_>>(),
            );
        }
    }
    let part = records.chunks(16).nth(usize::from(index & 0x3f)).unwrap_or_default();
    let mut data = vec![LAN];
    data.extend_from_slice(part);
    ok(data)
}
