//! Channels: what they are, and who may use them.
//!
//! IPMI 2.0 §22.22–22.24; tables 22-27 to 22-29. There is the IPMB (0), a LAN (1) and the host's own
//! interface (15).

use koboshi_ipmi::{Completion, Response};

use crate::bmc::Bmc;
use crate::dispatch::{Asked, LAN, SYSTEM, ok, refuse};
use crate::user::Privilege;

/// The bus between controllers.
pub const IPMB: u8 = 0;

const NO_SESSIONS: Completion = Completion(0x82);

/// Access to the LAN channel: the kept setting, and the one in force.
#[derive(Debug, Clone)]
pub struct Channel {
    kept: [u8; 2],
    in_force: [u8; 2],
}

impl Default for Channel {
    /// Always available, without alerts, up to administrator.
    fn default() -> Channel {
        Channel { kept: [0x22, 0x04], in_force: [0x22, 0x04] }
    }
}

impl Channel {
    /// The most that anybody may do by LAN now. `None`: it is switched off.
    pub fn ceiling(&self) -> Option<Privilege> {
        let [access, limit] = self.in_force;
        if access & 0x07 == 0 { None } else { Privilege::of(limit & 0x0f) }
    }
}

/// Answers for it.
pub fn answer(bmc: &mut Bmc, asked: &Asked<'_>) -> Option<Response> {
    match (asked.command, asked.data) {
        (0x40, [channel, access, limit, ..]) => {
            if asked.channel_of(*channel) != LAN {
                return refuse(NO_SESSIONS);
            }
            let set =
                |which: u8, value: u8, mask: u8, channel: &mut Channel, place: usize| match which
                    >> 6
                {
                    1 => channel.kept[place] = value & mask,
                    2 => channel.in_force[place] = value & mask,
                    _ => {}
                };
            set(*access, *access, 0x3f, &mut bmc.channel, 0);
            set(*limit, *limit, 0x0f, &mut bmc.channel, 1);
            ok([])
        }
        (0x41, [channel, which, ..]) => {
            if asked.channel_of(*channel) != LAN {
                return refuse(NO_SESSIONS);
            }
            match which >> 6 {
                1 => ok(bmc.channel.kept),
                2 => ok(bmc.channel.in_force),
                _ => refuse(Completion::INVALID_FIELD),
            }
        }
        (0x42, [channel, ..]) => {
            let channel = asked.channel_of(*channel);
            // Medium, protocol, sessions: IPMB 1.0; 802.3 and IPMB, many; system interface and KCS.
            let [medium, protocol, sessions] = match channel {
                IPMB => [0x01, 0x01, 0x00],
                LAN => {
                    let open = u8::try_from(bmc.sessions.open().count()).unwrap_or(0x3f);
                    [0x04, 0x01, 0x80 | open & 0x3f]
                }
                SYSTEM => [0x0c, 0x05, 0x00],
                _ => return refuse(Completion::INVALID_FIELD),
            };
            ok([channel, medium, protocol, sessions, 0xf2, 0x1b, 0, 0, 0])
        }
        (0x40..=0x42, _) => refuse(Completion::LENGTH_INVALID),
        _ => None,
    }
}
