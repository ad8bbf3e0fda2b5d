//! Is there a BMC, and what does it speak? Get Channel Authentication Capabilities, which needs no session.
//!
//! IPMI 2.0 §22.13 and table 22-15. Firmware that knows IPMI 1.5 alone may answer 0xCC to the bit that
//! asks for the data of 2.0, so that every other question goes without it.

use super::access::Privilege;
use crate::crypto::Password;
use crate::message::{Completion, Message, NetFn, Request};
use crate::wire::v15::{self, Auth};

const GET_CAPABILITIES: u8 = 0x38;
/// The channel that the question comes in by.
const THIS_CHANNEL: u8 = 0x0e;
const EXTENDED: u8 = 0x80;

/// What a BMC says of itself. Nothing proves it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Capabilities {
    /// Authentication types of IPMI 1.5, as bits.
    pub types: u8,
}

impl Capabilities {
    /// Whether it takes this type.
    pub fn takes(self, auth: Auth) -> bool {
        self.types & auth.bit() != 0
    }
}

/// Asking, and what was answered.
#[derive(Debug, Default)]
pub(super) struct Presence {
    asked: u8,
    heard: bool,
    /// It said that it knows 2.0, or that it does not.
    v20: Option<bool>,
    capabilities: Option<Capabilities>,
}

impl Presence {
    /// The next question.
    pub fn ask(&mut self, privilege: Privilege) -> Vec<u8> {
        let channel = match self.asks_v20(self.asked) {
            true => THIS_CHANNEL | EXTENDED,
            false => THIS_CHANNEL,
        };
        let request = Request::new(NetFn::APP, GET_CAPABILITIES, [channel, privilege.number()]);
        let message = Message::request(&request, self.asked & 0x3f);
        self.asked = self.asked.wrapping_add(1) & 0x3f;
        outside(&message)
    }

    fn asks_v20(&self, seq: u8) -> bool {
        seq.is_multiple_of(2)
    }

    /// Whether it answered at all.
    pub fn has_heard(&self) -> bool {
        self.heard
    }

    /// A message outside a session. Whether it told something.
    pub fn receive(&mut self, message: &Message) -> bool {
        if message.netfn != NetFn::APP.answer() || message.command != GET_CAPABILITIES {
            return false;
        }
        let Some(response) = message.response() else { return false };
        self.heard = true;
        let extended = self.asks_v20(message.seq);
        match (response.completion, response.data.as_slice()) {
            (Completion::OK, [_, types, _, versions, ..]) => {
                if extended {
                    self.v20 = Some(types & EXTENDED != 0 && versions & 0x02 != 0);
                }
                self.capabilities = Some(Capabilities { types: *types });
            }
            (Completion::OK, _) => return false,
            _ if extended => self.v20 = Some(false),
            _ => return false,
        }
        true
    }

    /// What it takes, if it said.
    pub fn capabilities(&self) -> Option<Capabilities> {
        self.capabilities
    }

    /// Whether it says that it knows IPMI 2.0.
    pub fn is_v20(&self) -> bool {
        self.v20 == Some(true)
    }

    /// What it takes, if it says that it knows nothing but IPMI 1.5.
    pub fn v15_only(&self) -> Option<Capabilities> {
        self.capabilities.filter(|_| self.v20 == Some(false))
    }
}

/// A message outside a session (§13.6: authentication type none, session and number 0).
pub(super) fn outside(message: &Message) -> Vec<u8> {
    // Nothing is computed from the password where nothing is authenticated.
    match Password::new("") {
        Ok(none) => v15::encode(Auth::None, 0, 0, &none, &message.encode()),
        Err(_) => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::Response;
    use crate::wire::rmcp::Rmcp;

    fn asked(datagram: &[u8]) -> Message {
        let Ok(Rmcp::Ipmi(rest)) = Rmcp::decode(datagram) else { panic!() };
        Message::decode(v15::Packet::decode(rest).unwrap().payload).unwrap()
    }

    fn answer(to: &Message, completion: u8, data: &[u8]) -> Message {
        to.respond(&Response { completion: Completion(completion), data: data.to_vec() })
    }

    #[test]
    fn with_the_bit_of_2_0_then_without() {
        let mut presence = Presence::default();
        let first = asked(&presence.ask(Privilege::Admin));
        assert_eq!(first.data, [0x8e, 4]);
        assert!(presence.receive(&answer(&first, 0xcc, &[])));
        assert!(presence.has_heard() && presence.v15_only().is_none());
        let second = asked(&presence.ask(Privilege::Admin));
        assert_eq!(second.data, [0x0e, 4]);
        assert!(presence.receive(&answer(&second, 0, &[1, 0x14, 0x08, 0, 0, 0, 0, 0])));
        let said = presence.v15_only().unwrap();
        assert!(said.takes(Auth::Md5) && said.takes(Auth::Password) && !said.takes(Auth::None));
    }

    #[test]
    fn a_board_of_2_0_is_not_taken_for_an_old_one() {
        let mut presence = Presence::default();
        let first = asked(&presence.ask(Privilege::Admin));
        let second = asked(&presence.ask(Privilege::Admin));
        assert!(presence.receive(&answer(&second, 0, &[1, 0x14, 0, 0, 0, 0, 0, 0])));
        assert_eq!(presence.v15_only(), None);
        assert!(presence.receive(&answer(&first, 0, &[1, 0x94, 0, 3, 0, 0, 0, 0])));
        assert_eq!(presence.v15_only(), None);
        assert!(!presence.receive(&answer(&first, 0, &[1])));
    }
}
