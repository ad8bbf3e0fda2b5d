//! The session wrapper of IPMI 2.0 (RMCP+): payloads of several kinds, hidden and signed by the session's
//! keys.
//!
//! IPMI 2.0 table 13-8 (header and trailer), table 13-16 (payload types), §13.28 (integrity).

use super::{Malformed, rmcp, take};
use crate::crypto::{Confidentiality, Integrity, Keys, same};

/// The authentication type that says "2.0".
pub const AUTH_RMCP_PLUS: u8 = 0x06;

const ENCRYPTED: u8 = 0x80;
const AUTHENTICATED: u8 = 0x40;
const NEXT_HEADER: u8 = 0x07;

/// What a payload is (table 13-16).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum PayloadType {
    /// An IPMB message.
    Ipmi,
    /// Serial over LAN.
    Sol,
    /// Open Session Request.
    OpenRequest,
    /// Open Session Response.
    OpenResponse,
    /// RAKP message 1.
    Rakp1,
    /// RAKP message 2.
    Rakp2,
    /// RAKP message 3.
    Rakp3,
    /// RAKP message 4.
    Rakp4,
    /// Anything else: a maker's own.
    Other(u8),
}

impl PayloadType {
    fn number(self) -> u8 {
        match self {
            PayloadType::Ipmi => 0x00,
            PayloadType::Sol => 0x01,
            PayloadType::OpenRequest => 0x10,
            PayloadType::OpenResponse => 0x11,
            PayloadType::Rakp1 => 0x12,
            PayloadType::Rakp2 => 0x13,
            PayloadType::Rakp3 => 0x14,
            PayloadType::Rakp4 => 0x15,
            PayloadType::Other(number) => number & 0x3f,
        }
    }

    fn of(number: u8) -> PayloadType {
        match number & 0x3f {
            0x00 => PayloadType::Ipmi,
            0x01 => PayloadType::Sol,
            0x10 => PayloadType::OpenRequest,
            0x11 => PayloadType::OpenResponse,
            0x12 => PayloadType::Rakp1,
            0x13 => PayloadType::Rakp2,
            0x14 => PayloadType::Rakp3,
            0x15 => PayloadType::Rakp4,
            other => PayloadType::Other(other),
        }
    }
}

/// One datagram's wrapper; its payload is still hidden and its signature unchecked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Packet<'a> {
    /// What it carries.
    pub kind: PayloadType,
    /// Whether the payload is hidden.
    pub encrypted: bool,
    /// Whether it is signed.
    pub authenticated: bool,
    /// The receiver's id of the session; 0 outside one.
    pub session: u32,
    /// Number within the session, one count for signed and one for unsigned packets.
    pub sequence: u32,
    /// The payload as it travelled.
    pub payload: &'a [u8],
    /// What is signed, and behind it the code: from the authentication type to the end.
    signed: &'a [u8],
    /// Header and payload bytes within `signed`.
    head: usize,
}

/// Why a packet of an open session is not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Unsealed {
    /// No signature where one is due.
    #[error("a packet without the signature that the session agreed on")]
    Unsigned,
    /// The signature is not that of the session's keys.
    #[error("a packet with a wrong signature")]
    Forged,
    /// It cannot be shown again.
    #[error("a payload that does not decrypt")]
    Garbled,
}

/// Whether bytes behind an RMCP header are a 2.0 wrapper.
pub fn is_rmcp_plus(rest: &[u8]) -> bool {
    rest.first() == Some(&AUTH_RMCP_PLUS)
}

impl<'a> Packet<'a> {
    /// From what follows the RMCP header.
    pub fn decode(bytes: &'a [u8]) -> Result<Packet<'a>, Malformed> {
        let short = "an IPMI 2.0 header that is cut";
        let mut rest = bytes;
        let [auth, kind] = take(&mut rest, short)?;
        if auth != AUTH_RMCP_PLUS {
            return Err(Malformed("not IPMI 2.0"));
        }
        if kind & 0x3f == 0x02 {
            // An explicit OEM payload: enterprise and payload id come first.
            let _: [u8; 6] = take(&mut rest, short)?;
        }
        let session = u32::from_le_bytes(take(&mut rest, short)?);
        let sequence = u32::from_le_bytes(take(&mut rest, short)?);
        let length = usize::from(u16::from_le_bytes(take(&mut rest, short)?));
        let payload = rest.get(..length).ok_or(Malformed("a payload that is cut"))?;
        Ok(Packet {
            kind: PayloadType::of(kind),
            encrypted: kind & ENCRYPTED != 0,
            authenticated: kind & AUTHENTICATED != 0,
            session,
            sequence,
            payload,
            signed: bytes,
            head: bytes.len() - rest.len() + length,
        })
    }

    /// The payload, if the packet is signed as the session agreed. A signed payload that is not hidden is
    /// taken: some firmware sends SOL so whatever was asked, and a signature proves it all the same.
    pub fn open(&self, keys: &Keys) -> Result<Vec<u8>, Unsealed> {
        let suite = keys.suite();
        if suite.integrity != Integrity::None {
            if !self.authenticated {
                return Err(Unsealed::Unsigned);
            }
            let length = suite.integrity.code_length();
            // A pad, its length, the next header and the code: the code is the last of it.
            let end = self.signed.len().checked_sub(length).filter(|end| *end >= self.head + 2);
            let end = end.ok_or(Unsealed::Forged)?;
            let (signed, code) = self.signed.split_at(end);
            if !same(&keys.sign(signed), code) {
                return Err(Unsealed::Forged);
            }
        }
        if !self.encrypted {
            return Ok(self.payload.to_vec());
        }
        if suite.confidentiality == Confidentiality::None {
            return Err(Unsealed::Garbled);
        }
        keys.decrypt(self.payload).ok_or(Unsealed::Garbled)
    }
}

/// A datagram outside a session: what opens one.
pub fn encode_open(kind: PayloadType, payload: &[u8]) -> Vec<u8> {
    encode(kind.number(), 0, 0, payload)
}

/// A datagram within a session, hidden and signed as its keys agreed. `vector`: 16 random bytes.
pub fn encode_sealed(
    kind: PayloadType,
    session: u32,
    sequence: u32,
    payload: &[u8],
    keys: &Keys,
    vector: [u8; 16],
) -> Vec<u8> {
    let suite = keys.suite();
    let mut bits = kind.number();
    let hidden;
    let payload = match suite.confidentiality {
        Confidentiality::None => payload,
        Confidentiality::Aes => {
            bits |= ENCRYPTED;
            hidden = keys.encrypt(payload, vector);
            &hidden
        }
    };
    if suite.integrity == Integrity::None {
        return encode(bits, session, sequence, payload);
    }
    let mut out = encode(bits | AUTHENTICATED, session, sequence, payload);
    // Counted from the authentication type, the pad makes what is signed a multiple of four.
    let signed = out.len() - rmcp::IPMI.len() + 2;
    let pad = (4 - signed % 4) % 4;
    out.extend(std::iter::repeat_n(0xff, pad));
    out.extend([u8::try_from(pad).unwrap_or(0), NEXT_HEADER]);
    let code = keys.sign(&out[rmcp::IPMI.len()..]);
    out.extend(code);
    out
}

fn encode(kind: u8, session: u32, sequence: u32, payload: &[u8]) -> Vec<u8> {
    let length = u16::try_from(payload.len()).unwrap_or(u16::MAX);
    let mut out = Vec::with_capacity(48 + payload.len());
    out.extend(rmcp::IPMI);
    out.extend([AUTH_RMCP_PLUS, kind]);
    out.extend(session.to_le_bytes());
    out.extend(sequence.to_le_bytes());
    out.extend(length.to_le_bytes());
    out.extend_from_slice(&payload[..length.into()]);
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crypto::SUITES;
    use crate::crypto::tests::keys;

    #[test]
    fn sealed_by_every_suite_and_opened() {
        for suite in SUITES {
            let keys = keys(suite);
            for length in 0..40 {
                let payload = vec![0x33; length];
                let bytes = encode_sealed(PayloadType::Sol, 7, 8, &payload, &keys, [1; 16]);
                let packet = Packet::decode(&bytes[4..]).unwrap();
                assert_eq!(
                    (packet.kind, packet.session, packet.sequence),
                    (PayloadType::Sol, 7, 8)
                );
                assert_eq!(packet.open(&keys).unwrap(), payload, "suite {}", suite.id);
            }
        }
    }

    #[test]
    fn no_altered_byte_is_taken() {
        for suite in SUITES.into_iter().filter(|suite| suite.integrity != Integrity::None) {
            let keys = keys(suite);
            let good = encode_sealed(PayloadType::Ipmi, 7, 8, b"power off", &keys, [1; 16]);
            for at in 4..good.len() {
                let mut bytes = good.clone();
                bytes[at] ^= 0x01;
                let opened = Packet::decode(&bytes[4..]).ok().and_then(|p| p.open(&keys).ok());
                assert_eq!(opened, None, "suite {} byte {at}", suite.id);
            }
            for cut in 4..good.len() {
                let opened = Packet::decode(&good[4..cut]).ok().and_then(|p| p.open(&keys).ok());
                assert_eq!(opened, None, "suite {} cut at {cut}", suite.id);
            }
        }
    }

    #[test]
    fn what_opens_a_session_is_in_the_clear() {
        let bytes = encode_open(PayloadType::Rakp1, b"one");
        assert_eq!(bytes[..6], [6, 0, 0xff, 7, 6, 0x12]);
        let packet = Packet::decode(&bytes[4..]).unwrap();
        assert!(!packet.authenticated && !packet.encrypted && packet.payload == b"one");
    }
}
