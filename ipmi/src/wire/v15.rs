//! The session wrapper of IPMI 1.5, which IPMI 2.0 keeps for what comes before a session.
//!
//! IPMI 2.0 table 13-8 and §22.17.1 (what the authentication code is taken over: the payload alone, without
//! the length byte before it).

use md5::{Digest, Md5};
use secrecy::ExposeSecret;
use subtle::ConstantTimeEq;

use super::{Malformed, rmcp, take};
use crate::crypto::Password;

/// How a 1.5 session proves who sent a message. MD2 is not offered: no board has it alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Auth {
    /// Not at all.
    None,
    /// By a digest keyed with the password.
    Md5,
    /// By the password itself, readable to everybody on the wire.
    Password,
}

impl Auth {
    /// Its number on the wire (table 13-8).
    pub fn number(self) -> u8 {
        match self {
            Auth::None => 0,
            Auth::Md5 => 2,
            Auth::Password => 4,
        }
    }

    /// Its bit in Get Channel Authentication Capabilities (table 22-15).
    pub fn bit(self) -> u8 {
        1 << self.number()
    }
}

/// One datagram's wrapper with what it wraps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Packet<'a> {
    /// How it is authenticated.
    pub auth: Auth,
    /// Number within the session, 0 outside one.
    pub sequence: u32,
    /// Of the session, 0 outside one.
    pub session: u32,
    /// Present unless `auth` is none.
    pub code: Option<[u8; 16]>,
    /// An IPMB message.
    pub payload: &'a [u8],
}

impl<'a> Packet<'a> {
    /// From what follows the RMCP header. The code is not checked yet.
    pub fn decode(mut rest: &'a [u8]) -> Result<Packet<'a>, Malformed> {
        let short = "an IPMI 1.5 header that is cut";
        let auth = match take(&mut rest, short)? {
            [0] => Auth::None,
            [2] => Auth::Md5,
            [4] => Auth::Password,
            _ => return Err(Malformed("an authentication type nobody asked for")),
        };
        let sequence = u32::from_le_bytes(take(&mut rest, short)?);
        let session = u32::from_le_bytes(take(&mut rest, short)?);
        let code = match auth {
            Auth::None => None,
            _ => Some(take(&mut rest, short)?),
        };
        let [length] = take(&mut rest, short)?;
        // A legacy pad byte may follow (table 13-8), and boards of Intel send others.
        let payload = rest.get(..length.into()).ok_or(Malformed("a payload that is cut"))?;
        Ok(Packet { auth, sequence, session, code, payload })
    }

    /// Whether its code is that of the password. True where no code is carried: the caller knows whether
    /// one is due.
    pub fn is_authentic(&self, password: &Password) -> bool {
        let Some(code) = self.code else { return true };
        let due = authcode(self.auth, password, self.session, self.sequence, self.payload);
        code.ct_eq(&due).into()
    }
}

/// A datagram, RMCP header and all.
///
/// # Panics
/// Never: payloads beyond 255 bytes are cut, and nothing in this crate makes one.
pub fn encode(
    auth: Auth,
    session: u32,
    sequence: u32,
    password: &Password,
    payload: &[u8],
) -> Vec<u8> {
    let payload = &payload[..payload.len().min(255)];
    let mut out = rmcp::IPMI.to_vec();
    out.push(auth.number());
    out.extend(sequence.to_le_bytes());
    out.extend(session.to_le_bytes());
    if auth != Auth::None {
        out.extend(authcode(auth, password, session, sequence, payload));
    }
    out.push(u8::try_from(payload.len()).unwrap_or(255));
    out.extend_from_slice(payload);
    // §13.6: some early LAN controllers could not send frames of these lengths.
    if matches!(out.len(), 56 | 84 | 112 | 128 | 156) {
        out.push(0);
    }
    out
}

fn authcode(
    auth: Auth,
    password: &Password,
    session: u32,
    sequence: u32,
    payload: &[u8],
) -> [u8; 16] {
    let padded = password.sixteen();
    match auth {
        Auth::None => [0; 16],
        Auth::Password => *padded.expose_secret(),
        Auth::Md5 => {
            let mut digest = Md5::new();
            digest.update(padded.expose_secret());
            digest.update(session.to_le_bytes());
            digest.update(payload);
            digest.update(sequence.to_le_bytes());
            digest.update(padded.expose_secret());
            digest.finalize().into()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_and_its_forgery() {
        let password = Password::new("secret").unwrap();
        for auth in [Auth::None, Auth::Md5, Auth::Password] {
            let bytes = encode(auth, 0x0102_0304, 9, &password, b"payload");
            let packet = Packet::decode(&bytes[4..]).unwrap();
            assert_eq!((packet.auth, packet.session, packet.sequence), (auth, 0x0102_0304, 9));
            assert_eq!(packet.payload, b"payload");
            assert!(packet.is_authentic(&password));
            let other = Password::new("secreT").unwrap();
            assert_eq!(packet.is_authentic(&other), auth == Auth::None);
            for cut in 4..bytes.len() {
                assert!(Packet::decode(&bytes[4..cut]).is_err(), "{cut}");
            }
        }
    }
}
