//! Logging in by RMCP+: Open Session, and RAKP 1 to 4.
//!
//! IPMI 2.0 §13.17–13.24, §13.31; table 13-15 (why not).

use std::net::SocketAddr;
use std::time::Instant;

use koboshi_ipmi::crypto::{Exchange, SUITES, Suite, same};
use koboshi_ipmi::wire::rakp::{
    Agreed, NAME_ONLY, OpenRequest, OpenResponse, Rakp1, Rakp2, Rakp2Proof, Rakp3, Rakp4, Status,
};

use super::{ExchangeOf, Session, Stage, most, random};
use crate::bmc::Bmc;
use crate::session::window::Window;
use crate::user::Privilege;

/// How far a packet of RMCP+ may be off (§6.12.13).
const REACH: u32 = 16;

/// Open Session: a suite is agreed on, or not.
pub fn open(bmc: &mut Bmc, peer: SocketAddr, payload: &[u8], now: Instant) -> Option<Vec<u8>> {
    let request = OpenRequest::decode(payload).ok()?;
    let under_way = bmc.sessions.list.iter().find(|one| one.peer == peer && !one.is_open());
    if let Some(answer) = under_way.and_then(|one| repeated(one, payload)) {
        return if bmc.faults.once { None } else { Some(answer) };
    }
    let refused = |status| {
        let console = request.console;
        Some(
            OpenResponse { tag: request.tag, status, privilege: 0, console, agreed: None }.encode(),
        )
    };
    if bmc.faults.full || bmc.sessions.is_full() {
        return refused(Status::NO_RESOURCES);
    }
    let suite = match agree(bmc, &request) {
        Ok(suite) => suite,
        Err(_) if bmc.faults.misleading => return refused(Status::NO_RESOURCES),
        Err(status) => return refused(status),
    };
    let stage = Stage::Opened { suite, console: request.console, privilege: request.privilege };
    let session = bmc.sessions.begin(peer, now, stage);
    let privilege = match request.privilege {
        0 => Privilege::Admin as u8,
        asked => asked,
    };
    let agreed = Some(Agreed { managed: session.id, suite: suite.into() });
    let answer = OpenResponse {
        tag: request.tag,
        status: Status::OK,
        privilege,
        console: request.console,
        agreed,
    };
    Some(remember(session, payload, answer.encode()))
}

/// The suite of these algorithms, if it is one of ours.
fn agree(bmc: &Bmc, request: &OpenRequest) -> Result<Suite, Status> {
    if let Some(suite) = bmc.faults.downgrade.and_then(Suite::by_id) {
        return Ok(suite);
    }
    let ours = &bmc.config.suites;
    let asked = request.suite;
    if let Some(suite) = ours.iter().copied().find(|suite| asked == (*suite).into()) {
        return Ok(suite);
    }
    let knows = |of: fn(&Suite) -> u8, number| ours.iter().any(|suite| of(suite) == number);
    Err(if !knows(|suite| suite.authentication.number(), asked.authentication) {
        Status::AUTHENTICATION
    } else if !knows(|suite| suite.integrity.number(), asked.integrity) {
        Status::INTEGRITY
    } else if SUITES.iter().all(|suite| suite.confidentiality.number() != asked.confidentiality) {
        Status::CONFIDENTIALITY
    } else {
        Status::NO_SUITE
    })
}

/// RAKP 1: somebody says a name, and we prove that we know the password.
pub fn first(bmc: &mut Bmc, payload: &[u8], now: Instant) -> Option<Vec<u8>> {
    let message = Rakp1::decode(payload).ok()?;
    let refused =
        |console, status| Some(Rakp2 { tag: message.tag, status, console, proof: None }.encode());
    let Some(session) = bmc.sessions.get(message.managed) else {
        return refused(0, Status::INVALID_SESSION);
    };
    let Stage::Opened { suite, console, privilege } = session.stage else {
        return repeated(session, payload).filter(|_| !bmc.faults.once);
    };
    let (user, limit, password) = match look_up(bmc, &message) {
        Ok((id, limit)) => (id, limit, bmc.users.by_id(id)?.password.clone()),
        Err(status) => {
            super::end(bmc, message.managed);
            return refused(console, status);
        }
    };
    // The ceiling of Open Session holds too; 0 is none.
    let limit = Privilege::of(privilege).map_or(limit, |open| limit.min(open));
    let password = if bmc.faults.sixteen { password.cut() } else { password };
    let exchange = Exchange {
        suite,
        console,
        managed: message.managed,
        console_random: message.random,
        managed_random: random(),
        guid: bmc.device.guid,
        role: message.role,
        name: message.name,
    };
    let mut code = exchange.rakp2(&password).to_vec();
    let length = code.len().saturating_add_signed(bmc.faults.rakp2_length.into());
    code.resize(length, 0);
    let proof = Rakp2Proof { random: exchange.managed_random, guid: exchange.guid, code };
    let answer = Rakp2 { tag: message.tag, status: Status::OK, console, proof: Some(proof) };
    let mut role = exchange.role;
    if bmc.faults.opensesspriv {
        role = role & NAME_ONLY | privilege;
    }
    if bmc.faults.no_name_bit {
        role &= !NAME_ONLY;
    }
    let session = bmc.sessions.get_mut(message.managed)?;
    (session.user, session.limit, session.heard) = (user, limit, now);
    session.stage = Stage::Named { exchange: Box::new(ExchangeOf { exchange, password, role }) };
    Some(remember(session, payload, answer.encode()))
}

/// The user, and the most that the session may do (table 13-11, requested maximum privilege level).
fn look_up(bmc: &Bmc, message: &Rakp1) -> Result<(u8, Privilege), Status> {
    let wanted = match message.role & 0x0f {
        0 => None,
        number => Some(Privilege::of(number).ok_or(Status::ROLE)?),
    };
    let reaches = |limit: Option<Privilege>| limit >= wanted;
    let by_name_only = message.role & NAME_ONLY != 0;
    let misnamed = bmc.faults.pad_names && message.name.len() < 16;
    if misnamed || by_name_only && bmc.faults.no_name_only {
        return Err(Status::UNAUTHORIZED_NAME);
    }
    let length = message.name.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
    let name = &message.name[..length];
    let found =
        bmc.users.find(name, |user| by_name_only || reaches(most(bmc, user))).or_else(|| {
            // Told apart for the operator's sake: the name is known, but may not do that.
            bmc.users.find(name, |_| true)
        });
    let (id, user) = found.ok_or(Status::UNAUTHORIZED_NAME)?;
    let limit = most(bmc, user).ok_or(Status::UNAUTHORIZED_NAME)?;
    if !reaches(Some(limit)) {
        return Err(Status::UNAUTHORIZED_ROLE);
    }
    Ok((id, wanted.unwrap_or(limit)))
}

/// RAKP 3: they prove that they know it too, and the session is open.
pub fn third(bmc: &mut Bmc, payload: &[u8], now: Instant) -> Option<Vec<u8>> {
    let message = Rakp3::decode(payload).ok()?;
    let refused = |console, status| {
        Some(Rakp4 { tag: message.tag, status, console, check: Vec::new() }.encode())
    };
    let Some(session) = bmc.sessions.get(message.managed) else {
        return refused(0, Status::INVALID_SESSION);
    };
    let Stage::Named { exchange: of } = &session.stage else {
        return repeated(session, payload).filter(|_| !bmc.faults.once);
    };
    let console = of.exchange.console;
    if message.status != Status::OK {
        super::end(bmc, message.managed);
        return None;
    }
    let due = of.exchange.rakp3(&of.password, of.role);
    if !same(&due, &message.code) {
        super::end(bmc, message.managed);
        return refused(console, Status::INTEGRITY_CHECK);
    }
    let keys = of.exchange.keys(&of.password, bmc.config.kg.as_ref(), of.role);
    if bmc.sessions.is_full() {
        super::end(bmc, message.managed);
        return refused(console, Status::NO_RESOURCES);
    }
    let check = keys.rakp4().to_vec();
    let handle = bmc.sessions.handle();
    let session = bmc.sessions.get_mut(message.managed)?;
    session.handle = handle;
    session.heard = now;
    session.privilege = session.limit.min(Privilege::User);
    let window = Window::starting(1, REACH);
    session.stage = Stage::Open20 { keys: Box::new(keys), console, window, next: 1 };
    let answer = Rakp4 { tag: message.tag, status: Status::OK, console, check };
    Some(remember(session, payload, answer.encode()))
}

/// What was answered, if this is the message that was answered last.
fn repeated(session: &Session, payload: &[u8]) -> Option<Vec<u8>> {
    let (asked, answer) = session.repeat.as_ref()?;
    (asked == payload).then(|| answer.clone())
}

fn remember(session: &mut Session, payload: &[u8], answer: Vec<u8>) -> Vec<u8> {
    session.repeat = Some((payload.to_vec(), answer.clone()));
    answer
}
