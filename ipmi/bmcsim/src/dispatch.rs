//! Who may ask what, and who answers it.
//!
//! IPMI 2.0 appendix G (privilege of each command).

use std::net::SocketAddr;
use std::time::Instant;

use koboshi_ipmi::{Completion, Message, NetFn, Response};

use crate::bmc::Bmc;
use crate::session::Session;
use crate::user::Privilege;
use crate::{
    boot, bridge, channel, chassis, dcmi, device, fru, identify, lan, mailbox, sdr, sel, sensor,
    session, sol, sol_config, system_info, user, watchdog,
};

/// The LAN channel.
pub const LAN: u8 = 1;
/// The host's own interface (KCS).
pub const SYSTEM: u8 = 15;
/// In a request: the channel it came by.
pub const THIS: u8 = 14;

/// A request, and who asks.
#[derive(Debug, Clone, Copy)]
pub struct Asked<'a> {
    /// Family.
    pub netfn: NetFn,
    /// Logical unit.
    pub lun: u8,
    /// Number within the family.
    pub command: u8,
    /// What follows the command.
    pub data: &'a [u8],
    /// The whole message, for whoever passes it on.
    pub message: &'a Message,
    /// The BMC's id of the session; `None` outside one, and from the host.
    pub session: Option<u32>,
    /// Id of the user, from 1; 0 outside a session, and from the host.
    pub user: u8,
    /// What the session may do now. `None` before there is a session.
    pub privilege: Option<Privilege>,
    /// By which channel: [`LAN`] or [`SYSTEM`].
    pub channel: u8,
    /// From which address; `None` from the host.
    pub peer: Option<SocketAddr>,
    /// When.
    pub now: Instant,
}

/// Who sends messages: all of [`Asked`] but the message.
#[derive(Debug, Clone, Copy)]
pub struct Who {
    session: Option<u32>,
    user: u8,
    privilege: Option<Privilege>,
    channel: u8,
    peer: Option<SocketAddr>,
    now: Instant,
}

impl Who {
    /// Somebody who has not logged in.
    pub fn nobody(peer: SocketAddr, now: Instant) -> Who {
        let peer = Some(peer);
        Who { session: None, user: 0, privilege: None, channel: LAN, peer, now }
    }

    /// Whoever opened a session.
    pub fn of(session: &Session, now: Instant) -> Who {
        Who {
            session: Some(session.id),
            user: session.user,
            privilege: Some(session.privilege),
            channel: LAN,
            peer: Some(session.peer),
            now,
        }
    }

    /// The host itself, which may do everything.
    pub fn host(now: Instant) -> Who {
        let privilege = Some(Privilege::Admin);
        Who { session: None, user: 0, privilege, channel: SYSTEM, peer: None, now }
    }

    /// An administrator by LAN, without a session.
    pub fn admin(now: Instant) -> Who {
        Who { channel: LAN, ..Who::host(now) }
    }

    /// Asks this.
    pub fn asks(self, message: &Message) -> Asked<'_> {
        let Who { session, user, privilege, channel, peer, now } = self;
        Asked {
            netfn: message.netfn,
            lun: message.to_lun,
            command: message.command,
            data: &message.data,
            message,
            session,
            user,
            privilege,
            channel,
            peer,
            now,
        }
    }
}

impl Asked<'_> {
    /// The channel that a request means by this number ([`THIS`] is where it came from).
    pub fn channel_of(&self, number: u8) -> u8 {
        match number & 0x0f {
            THIS => self.channel,
            other => other,
        }
    }
}

/// Done, with these data.
pub fn ok(data: impl Into<Vec<u8>>) -> Option<Response> {
    Some(Response { completion: Completion::OK, data: data.into() })
}

/// Not done.
pub fn refuse(completion: Completion) -> Option<Response> {
    Some(Response { completion, data: Vec::new() })
}

/// The answer to a request.
pub fn answer(bmc: &mut Bmc, asked: &Asked<'_>) -> Response {
    let refused = |completion| Response { completion, data: Vec::new() };
    if bmc.faults.busy > 0 {
        bmc.faults.busy -= 1;
        return refused(Completion::NODE_BUSY);
    }
    match required(asked.netfn, asked.command) {
        Some(needs) if asked.privilege.is_none_or(|has| has < needs) => {
            refused(Completion::PRIVILEGE)
        }
        _ => route(bmc, asked).unwrap_or_else(|| refused(Completion::INVALID_COMMAND)),
    }
}

/// The answer to an IPMB message, as bytes. `None`: it is not for us, or we take no notice of it.
pub fn converse(bmc: &mut Bmc, bytes: &[u8], who: &Who) -> Option<Vec<u8>> {
    let message = Message::decode(bytes).ok()?;
    let named = (message.netfn, message.command);
    let is_request = message.netfn.0 & 1 == 0;
    if !message.checksums || !is_request || bmc.faults.ignored.contains(&named) {
        return None;
    }
    let response = answer(bmc, &who.asks(&message));
    if bmc.faults.unanswered.contains(&named) {
        return None;
    }
    let mut bytes = message.respond(&response).encode();
    if bmc.faults.checksums {
        let last = bytes.len() - 1;
        for at in [2, last] {
            bytes[at] = bytes[at].wrapping_add(1);
        }
    }
    Some(bytes)
}

/// The modules of each family, in the order they are asked.
pub fn route(bmc: &mut Bmc, asked: &Asked<'_>) -> Option<Response> {
    type Answer = fn(&mut Bmc, &Asked<'_>) -> Option<Response>;
    let modules: &[Answer] = match asked.netfn {
        NetFn::CHASSIS => &[chassis::answer, boot::answer, identify::answer],
        NetFn::SENSOR => &[sensor::answer],
        NetFn::APP => &[
            device::answer,
            system_info::answer,
            session::answer,
            watchdog::answer,
            sol::answer,
            user::answer,
            channel::answer,
            mailbox::answer,
            bridge::answer,
        ],
        NetFn::STORAGE => &[sdr::answer, sel::answer, fru::answer],
        NetFn::TRANSPORT => &[lan::answer, sol_config::answer],
        NetFn::GROUP => &[dcmi::answer],
        _ => &[],
    };
    modules.iter().find_map(|module| module(bmc, asked))
}

/// The least privilege for a command; `None`: also outside a session.
fn required(netfn: NetFn, command: u8) -> Option<Privilege> {
    use Privilege::{Admin, Callback, Operator, User};
    Some(match (netfn, command) {
        // GUID, what sessions are opened with.
        (NetFn::APP, 0x37..=0x3a | 0x54) => return None,
        (NetFn::APP, 0x3b | 0x3c) => Callback,
        // Cold and warm reset, manufacturing test, ACPI state, watchdog set.
        (NetFn::APP, 0x02 | 0x03 | 0x05 | 0x06) => Admin,
        (NetFn::APP, 0x22 | 0x24 | 0x28 | 0x2a) => Operator,
        // Message flags and bridging.
        (NetFn::APP, 0x2e | 0x30..=0x33 | 0x35) => Operator,
        // Channels, users, keys, payload access.
        (NetFn::APP, 0x40 | 0x43 | 0x45 | 0x47 | 0x4c | 0x55..=0x58) => Admin,
        (NetFn::APP, 0x44 | 0x46) => Operator,
        (NetFn::APP, 0x52) => Operator,
        (NetFn::CHASSIS, 0x02..=0x04 | 0x06 | 0x08 | 0x09) => Operator,
        (NetFn::CHASSIS, 0x05 | 0x0a | 0x0b) => Admin,
        (NetFn::SENSOR, 0x00 | 0x02 | 0x12 | 0x24 | 0x26 | 0x28 | 0x2e | 0x30) => Operator,
        (NetFn::SENSOR, 0x10 | 0x16) => Admin,
        (NetFn::STORAGE, 0x12 | 0x24..=0x2b | 0x44..=0x47 | 0x49) => Operator,
        (NetFn::TRANSPORT, 0x01 | 0x03 | 0x21) => Admin,
        (NetFn::TRANSPORT, 0x02) => Operator,
        _ => User,
    })
}
