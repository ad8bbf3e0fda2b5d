//! What an open session wraps around each message, and what it takes: ids, counts, signatures.
//!
//! IPMI 2.0 §6.12.8–6.12.14 (1.5), §13.28 (2.0). A datagram that is not proved to come from the session's
//! other end changes nothing here.

use super::random::Random;
use super::window::{Window, next};
use crate::crypto::{Integrity, Keys, Password};
use crate::message::Message;
use crate::quirks::{Quirk, Quirks};
use crate::wire::rmcp::Rmcp;
use crate::wire::v15::{self, Auth};
use crate::wire::v20::{self, PayloadType};

/// One end of an open session.
#[derive(Debug)]
pub(super) enum Seal {
    /// IPMI 1.5.
    V15(V15),
    /// IPMI 2.0.
    V20(V20),
}

/// What an IPMI 1.5 session agreed on.
#[derive(Debug)]
pub(super) struct V15 {
    /// Of the session, the same in both directions.
    pub session: u32,
    /// How its packets are proved.
    pub auth: Auth,
    pub password: Password,
    /// The last number sent.
    pub sequence: u32,
    pub window: Window,
    pub quirks: Quirks,
}

/// What an IPMI 2.0 session agreed on.
#[derive(Debug)]
pub(super) struct V20 {
    pub keys: Keys,
    /// Our id, which the BMC puts on its packets.
    pub console: u32,
    /// The BMC's id, which we put on ours.
    pub managed: u32,
    /// The last number sent.
    pub sequence: u32,
    pub window: Window,
    pub quirks: Quirks,
}

impl Seal {
    /// The id that Close Session takes.
    pub fn managed(&self) -> u32 {
        match self {
            Seal::V15(seal) => seal.session,
            Seal::V20(seal) => seal.managed,
        }
    }

    /// Whether it carries anything but IPMB messages.
    pub fn has_payloads(&self) -> bool {
        matches!(self, Seal::V20(_))
    }

    /// A message as a datagram, under a new number.
    pub fn message(&mut self, message: &Message, random: &mut Random) -> Vec<u8> {
        self.wrap(PayloadType::Ipmi, &message.encode(), random)
    }

    /// Any payload as a datagram, under a new number. IPMI 1.5 knows messages only.
    pub fn wrap(&mut self, kind: PayloadType, payload: &[u8], random: &mut Random) -> Vec<u8> {
        match self {
            Seal::V15(seal) => {
                seal.sequence = next(seal.sequence);
                let number = seal.number(seal.sequence);
                v15::encode(seal.auth, seal.session, number, &seal.password, payload)
            }
            Seal::V20(seal) => {
                seal.sequence = next(seal.sequence);
                let vector = random.bytes();
                v20::encode_sealed(kind, seal.managed, seal.sequence, payload, &seal.keys, vector)
            }
        }
    }

    /// What a datagram carries, if it is of this session, proved, and new; and its number in the session,
    /// by which what was delayed on the way can be told from what is new.
    pub fn unwrap(&mut self, datagram: &[u8]) -> Option<(PayloadType, u32, Vec<u8>)> {
        let Ok(Rmcp::Ipmi(rest)) = Rmcp::decode(datagram) else { return None };
        match self {
            Seal::V15(seal) => Some((PayloadType::Ipmi, 0, seal.unwrap(rest)?)),
            Seal::V20(seal) => seal.unwrap(rest),
        }
    }

    /// The message in a payload that was unwrapped. Checksums need not hold where a signature did.
    pub fn read(&self, payload: &[u8]) -> Option<Message> {
        let message = Message::decode(payload).ok()?;
        let (signed, quirks) = match self {
            Seal::V15(seal) => (false, seal.quirks),
            Seal::V20(seal) => (seal.keys.suite().integrity != Integrity::None, seal.quirks),
        };
        (message.checksums || signed || quirks.has(Quirk::NoChecksum)).then_some(message)
    }
}

impl V15 {
    fn number(&self, sequence: u32) -> u32 {
        match self.quirks.has(Quirk::BigEndianSequence) {
            true => sequence.swap_bytes(),
            false => sequence,
        }
    }

    fn unwrap(&mut self, rest: &[u8]) -> Option<Vec<u8>> {
        let packet = v15::Packet::decode(rest).ok()?;
        let zero = packet.session == 0 && self.quirks.has(Quirk::ZeroSession);
        if packet.session != self.session && !zero {
            return None;
        }
        // Where nothing was agreed on, a code that holds is taken too, and any code with the quirk.
        let proved = match (self.auth, packet.auth) {
            (Auth::None, Auth::None) => true,
            (Auth::None, _) if self.quirks.has(Quirk::UnexpectedAuth) => true,
            (_, Auth::None) => false,
            (_, _) => packet.is_authentic(&self.password),
        };
        let fresh = proved && self.window.take(self.number(packet.sequence));
        fresh.then(|| packet.payload.to_vec())
    }
}

impl V20 {
    fn unwrap(&mut self, rest: &[u8]) -> Option<(PayloadType, u32, Vec<u8>)> {
        let packet = v20::Packet::decode(rest).ok()?;
        if packet.session != self.console {
            return None;
        }
        let payload = packet.open(&self.keys).ok()?;
        self.window.take(packet.sequence).then_some((packet.kind, packet.sequence, payload))
    }
}
