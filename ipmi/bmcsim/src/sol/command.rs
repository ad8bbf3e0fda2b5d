//! Who gets SOL, who has it, and what is said of it.
//!
//! IPMI 2.0 §24.1 (Activate Payload), §24.2 (Deactivate), §24.4 (status), §24.5 (instance info), §24.8 and
//! §24.9 (what a channel carries).

use koboshi_ipmi::crypto::Confidentiality;
use koboshi_ipmi::{Completion, Response};

use super::{Active, deactivate};
use crate::bmc::Bmc;
use crate::dispatch::{Asked, ok, refuse};
use crate::session::Session;
use crate::sol::port::Port;

/// The payload type that SOL is (table 13-16), and its only instance.
const SOL: u8 = 1;
const INSTANCE: u8 = 1;
/// In Activate's auxiliary data (table 24-2), like what becomes of alerts by the serial port.
const ENCRYPTED: u8 = 0x80;
const ALERTS: u8 = 0x0c;
const DEFERRED: u8 = 0x04;

/// Of Activate: another session (or the same) has it.
const ACTIVE: Completion = Completion(0x80);
/// Of Deactivate: nobody has it.
const NOT_ACTIVE: Completion = Completion(0x80);
/// Of Activate: by this session it cannot be encrypted, or has to be.
const NOT_ENCRYPTED: Completion = Completion(0x83);
const ENCRYPTED_ONLY: Completion = Completion(0x84);
/// Of both: it is switched off, or not for this account.
const SWITCHED_OFF: Completion = Completion(0x81);

/// Answers Activate and Deactivate Payload, their status and their owners.
pub fn answer(bmc: &mut Bmc, asked: &Asked<'_>) -> Option<Response> {
    match (asked.command, asked.data) {
        (0x48, [SOL, INSTANCE, auxiliary, ..]) => activate(bmc, asked, *auxiliary),
        (0x49, [SOL, INSTANCE, ..]) => {
            let Some(owner) = bmc.sol.owner() else { return refuse(NOT_ACTIVE) };
            let told = asked.session != Some(owner) && !bmc.faults.sol_silent_theft;
            deactivate(bmc, told);
            ok([])
        }
        (0x4a, _) if bmc.faults.sol_no_status => refuse(Completion::INVALID_FIELD),
        (0x4a, [SOL, ..]) => {
            let instances = u8::from(!bmc.faults.sol_no_instances);
            ok([instances, u8::from(bmc.sol.owner().is_some()), 0])
        }
        (0x4b, [SOL, INSTANCE, ..]) => {
            let mut info = bmc.sol.owner().unwrap_or(0).to_le_bytes().to_vec();
            info.extend([0; 8]);
            ok(info)
        }
        // IPMI messages and SOL; Open Session and RAKP.
        (0x4e, [_, ..]) => ok([0x03, 0x00, 0x3f, 0x00, 0x00, 0x00, 0x00, 0x00]),
        (0x4f, [_, SOL, ..]) => ok([0x10]),
        (0x48..=0x4b | 0x4f, [_, _, ..]) => refuse(Completion::OUT_OF_RANGE),
        (0x48..=0x4b | 0x4e | 0x4f, _) => refuse(Completion::LENGTH_INVALID),
        _ => None,
    }
}

fn activate(bmc: &mut Bmc, asked: &Asked<'_>, auxiliary: u8) -> Option<Response> {
    // The host's own interface has no session to carry it.
    let Some(session) = asked.session else { return refuse(Completion::NOT_NOW) };
    let allowed = bmc.users.by_id(asked.user).is_none_or(|user| user.sol);
    if !bmc.sol_config.is_enabled() || !allowed {
        return refuse(SWITCHED_OFF);
    }
    let suite = bmc.sessions.get(session).and_then(Session::suite);
    let can_hide = suite.is_some_and(|suite| suite.confidentiality != Confidentiality::None);
    match (auxiliary & ENCRYPTED != 0, can_hide) {
        (true, false) => return refuse(NOT_ENCRYPTED),
        (false, _) if bmc.sol_config.forces_encryption() => return refuse(ENCRYPTED_ONLY),
        _ => {}
    }
    if bmc.faults.sol_alerts && auxiliary & ALERTS != DEFERRED {
        return refuse(Completion::INVALID_FIELD);
    }
    if bmc.sol.active.is_some() {
        return refuse(ACTIVE);
    }
    let mut port = Port::new(bmc.sol.timing.clone(), bmc.sol.largest.into());
    if !bmc.sol.reachable {
        port.reachable(false);
    }
    bmc.sol.active = Some(Active { session, port });
    let size = bmc.faults.sol_size.unwrap_or(bmc.sol.largest + 4).to_le_bytes();
    let told = bmc.faults.sol_port.unwrap_or(bmc.config.listen.port());
    let told = if bmc.faults.sol_port_swapped { told.swap_bytes() } else { told };
    let mut answer = vec![0; 4];
    answer.extend(size);
    answer.extend(size);
    answer.extend(told.to_le_bytes());
    answer.extend([0xff, 0xff]);
    ok(answer)
}
