//! The messages that open an RMCP+ session: Open Session, then RAKP 1 to 4.
//!
//! IPMI 2.0 §13.17–13.24. What they prove is computed in [`crate::crypto`].

use super::{Malformed, take};
use crate::crypto::Suite;

/// Asks for a session with the algorithms of a cipher suite (table 13-9).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OpenRequest {
    /// Repeated by the answer.
    pub tag: u8,
    /// Most that the session may be raised to; 0 leaves it to the BMC.
    pub privilege: u8,
    /// Our id for the session.
    pub console: u32,
    /// The three algorithms.
    pub suite: Algorithms,
}

/// The three algorithms by their numbers (tables 13-17 to 13-19).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Algorithms {
    /// RAKP authentication.
    pub authentication: u8,
    /// Integrity of packets.
    pub integrity: u8,
    /// Confidentiality of payloads.
    pub confidentiality: u8,
}

/// What became of it (table 13-10).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OpenResponse {
    /// Of the request.
    pub tag: u8,
    /// [`Status::OK`], or why not, and then the rest is not there.
    pub status: Status,
    /// The most that the session may be raised to.
    pub privilege: u8,
    /// Our id for the session.
    pub console: u32,
    /// What was agreed on; `None` in a refusal.
    pub agreed: Option<Agreed>,
}

/// What a BMC agreed to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Agreed {
    /// The BMC's id for the session.
    pub managed: u32,
    /// The algorithms: to be compared with those asked for.
    pub suite: Algorithms,
}

/// A status code of RMCP+ (table 13-15).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Status(pub u8);

impl Status {
    /// No errors.
    pub const OK: Status = Status(0x00);
    /// No session slot is free. Some boards (Intel M50CYP) say this of a cipher suite they refuse.
    pub const NO_RESOURCES: Status = Status(0x01);
    /// The session id is not known.
    pub const INVALID_SESSION: Status = Status(0x02);
    /// Authentication algorithm refused.
    pub const AUTHENTICATION: Status = Status(0x04);
    /// Integrity algorithm refused.
    pub const INTEGRITY: Status = Status(0x05);
    /// The role asked for is not one.
    pub const ROLE: Status = Status(0x09);
    /// The account may not have this role.
    pub const UNAUTHORIZED_ROLE: Status = Status(0x0a);
    /// No slot is free at this privilege.
    pub const NO_RESOURCES_FOR_ROLE: Status = Status(0x0b);
    /// A name of no valid length.
    pub const NAME_LENGTH: Status = Status(0x0c);
    /// No such account, or a disabled one.
    pub const UNAUTHORIZED_NAME: Status = Status(0x0d);
    /// An integrity check value was wrong: the password, or the BMC's own key.
    pub const INTEGRITY_CHECK: Status = Status(0x0f);
    /// Confidentiality algorithm refused.
    pub const CONFIDENTIALITY: Status = Status(0x10);
    /// No cipher suite of these algorithms.
    pub const NO_SUITE: Status = Status(0x11);
    /// A parameter that is not legal.
    pub const ILLEGAL: Status = Status(0x12);

    /// What the specification calls it.
    pub fn words(self) -> &'static str {
        match self.0 {
            0x00 => "no error",
            0x01 => "insufficient resources to create a session",
            0x02 => "invalid session id",
            0x03 => "invalid payload type",
            0x04 => "invalid authentication algorithm",
            0x05 => "invalid integrity algorithm",
            0x06 => "no matching authentication payload",
            0x07 => "no matching integrity payload",
            0x08 => "inactive session id",
            0x09 => "invalid role",
            0x0a => "unauthorized role or privilege level requested",
            0x0b => "insufficient resources to create a session at the requested role",
            0x0c => "invalid name length",
            0x0d => "unauthorized name",
            0x0e => "unauthorized GUID",
            0x0f => "invalid integrity check value",
            0x10 => "invalid confidentiality algorithm",
            0x11 => "no cipher suite match with proposed security algorithms",
            0x12 => "illegal or unrecognized parameter",
            _ => "a status code that IPMI does not define",
        }
    }
}

/// We, by name, and a random number (table 13-11).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rakp1 {
    /// Repeated by the answer.
    pub tag: u8,
    /// The BMC's id for the session.
    pub managed: u32,
    /// Our random number.
    pub random: [u8; 16],
    /// The privilege asked for, with [`NAME_ONLY`] where it is not part of the look-up.
    pub role: u8,
    /// The account, at most 16 bytes.
    pub name: Vec<u8>,
}

/// Role bit: the account is looked up by its name alone.
pub const NAME_ONLY: u8 = 0x10;

/// The BMC, and its proof (table 13-12).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rakp2 {
    /// Of RAKP 1.
    pub tag: u8,
    /// [`Status::OK`], or why not, and then the rest is not there.
    pub status: Status,
    /// Our id for the session.
    pub console: u32,
    /// The rest; `None` in a refusal.
    pub proof: Option<Rakp2Proof>,
}

/// What RAKP 2 proves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rakp2Proof {
    /// The BMC's random number.
    pub random: [u8; 16],
    /// The machine's GUID.
    pub guid: [u8; 16],
    /// Key exchange authentication code; its length is the algorithm's.
    pub code: Vec<u8>,
}

/// Our proof (table 13-13).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rakp3 {
    /// Repeated by the answer.
    pub tag: u8,
    /// [`Status::OK`], or why we end it here.
    pub status: Status,
    /// The BMC's id for the session.
    pub managed: u32,
    /// Key exchange authentication code.
    pub code: Vec<u8>,
}

/// Both agree (table 13-14).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rakp4 {
    /// Of RAKP 3.
    pub tag: u8,
    /// [`Status::OK`], or why not.
    pub status: Status,
    /// Our id for the session.
    pub console: u32,
    /// Integrity check value; its length is the *authentication* algorithm's: 12 bytes of SHA-1, 16 of
    /// SHA-256.
    pub check: Vec<u8>,
}

impl From<Suite> for Algorithms {
    fn from(suite: Suite) -> Algorithms {
        Algorithms {
            authentication: suite.authentication.number(),
            integrity: suite.integrity.number(),
            confidentiality: suite.confidentiality.number(),
        }
    }
}

fn put_algorithms(suite: Algorithms, out: &mut Vec<u8>) {
    let numbers = [suite.authentication, suite.integrity, suite.confidentiality];
    for (kind, number) in (0u8..).zip(numbers) {
        out.extend([kind, 0, 0, 8, number, 0, 0, 0]);
    }
}

fn take_algorithms(bytes: &mut &[u8]) -> Result<Algorithms, Malformed> {
    let mut numbers = [0; 3];
    for (kind, number) in (0u8..).zip(&mut numbers) {
        let record: [u8; 8] = take(bytes, "an algorithm that is cut")?;
        if record[0] != kind {
            return Err(Malformed("algorithms in another order"));
        }
        // Length 0 is "any" in a request: number 0 then means nothing. Read as what stands there.
        *number = record[4] & 0x3f;
    }
    let [authentication, integrity, confidentiality] = numbers;
    Ok(Algorithms { authentication, integrity, confidentiality })
}

impl OpenRequest {
    /// As a payload.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = vec![self.tag, self.privilege, 0, 0];
        out.extend(self.console.to_le_bytes());
        put_algorithms(self.suite, &mut out);
        out
    }

    /// From a payload.
    pub fn decode(mut bytes: &[u8]) -> Result<OpenRequest, Malformed> {
        let short = "an Open Session Request that is cut";
        let [tag, privilege, _, _] = take(&mut bytes, short)?;
        let console = u32::from_le_bytes(take(&mut bytes, short)?);
        let suite = take_algorithms(&mut bytes)?;
        Ok(OpenRequest { tag, privilege: privilege & 0x0f, console, suite })
    }
}

impl OpenResponse {
    /// As a payload.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = vec![self.tag, self.status.0, self.privilege, 0];
        out.extend(self.console.to_le_bytes());
        if let Some(agreed) = &self.agreed {
            out.extend(agreed.managed.to_le_bytes());
            put_algorithms(agreed.suite, &mut out);
        }
        out
    }

    /// From a payload. A refusal may end after its status: boards of Sun send two bytes.
    pub fn decode(mut bytes: &[u8]) -> Result<OpenResponse, Malformed> {
        let short = "an Open Session Response that is cut";
        let [tag, status] = take(&mut bytes, short)?;
        let status = Status(status);
        if status != Status::OK {
            let console = bytes.get(2..6).and_then(|id| id.try_into().ok()).unwrap_or([0; 4]);
            let console = u32::from_le_bytes(console);
            return Ok(OpenResponse { tag, status, privilege: 0, console, agreed: None });
        }
        let [privilege, _] = take(&mut bytes, short)?;
        let console = u32::from_le_bytes(take(&mut bytes, short)?);
        let managed = u32::from_le_bytes(take(&mut bytes, short)?);
        let suite = take_algorithms(&mut bytes)?;
        let agreed = Some(Agreed { managed, suite });
        Ok(OpenResponse { tag, status, privilege: privilege & 0x0f, console, agreed })
    }
}

impl Rakp1 {
    /// As a payload.
    pub fn encode(&self) -> Vec<u8> {
        let name = &self.name[..self.name.len().min(16)];
        let mut out = vec![self.tag, 0, 0, 0];
        out.extend(self.managed.to_le_bytes());
        out.extend(self.random);
        out.extend([self.role, 0, 0, u8::try_from(name.len()).unwrap_or(16)]);
        out.extend_from_slice(name);
        out
    }

    /// From a payload.
    pub fn decode(mut bytes: &[u8]) -> Result<Rakp1, Malformed> {
        let short = "a RAKP message 1 that is cut";
        let [tag, _, _, _] = take(&mut bytes, short)?;
        let managed = u32::from_le_bytes(take(&mut bytes, short)?);
        let random = take(&mut bytes, short)?;
        let [role, _, _, length] = take(&mut bytes, short)?;
        if length > 16 {
            return Err(Malformed("a name of more than 16 bytes"));
        }
        let name = bytes.get(..length.into()).ok_or(Malformed(short))?.to_vec();
        Ok(Rakp1 { tag, managed, random, role, name })
    }
}

impl Rakp2 {
    /// As a payload.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = vec![self.tag, self.status.0, 0, 0];
        out.extend(self.console.to_le_bytes());
        if let Some(proof) = &self.proof {
            out.extend(proof.random);
            out.extend(proof.guid);
            out.extend_from_slice(&proof.code);
        }
        out
    }

    /// From a payload.
    pub fn decode(mut bytes: &[u8]) -> Result<Rakp2, Malformed> {
        let short = "a RAKP message 2 that is cut";
        let [tag, status, _, _] = take(&mut bytes, short)?;
        let status = Status(status);
        let console = u32::from_le_bytes(take(&mut bytes, short)?);
        if status != Status::OK {
            return Ok(Rakp2 { tag, status, console, proof: None });
        }
        let random = take(&mut bytes, short)?;
        let guid = take(&mut bytes, short)?;
        let proof = Some(Rakp2Proof { random, guid, code: bytes.to_vec() });
        Ok(Rakp2 { tag, status, console, proof })
    }
}

impl Rakp3 {
    /// As a payload.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = vec![self.tag, self.status.0, 0, 0];
        out.extend(self.managed.to_le_bytes());
        out.extend_from_slice(&self.code);
        out
    }

    /// From a payload.
    pub fn decode(mut bytes: &[u8]) -> Result<Rakp3, Malformed> {
        let short = "a RAKP message 3 that is cut";
        let [tag, status, _, _] = take(&mut bytes, short)?;
        let managed = u32::from_le_bytes(take(&mut bytes, short)?);
        Ok(Rakp3 { tag, status: Status(status), managed, code: bytes.to_vec() })
    }
}

impl Rakp4 {
    /// As a payload.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = vec![self.tag, self.status.0, 0, 0];
        out.extend(self.console.to_le_bytes());
        out.extend_from_slice(&self.check);
        out
    }

    /// From a payload.
    pub fn decode(mut bytes: &[u8]) -> Result<Rakp4, Malformed> {
        let short = "a RAKP message 4 that is cut";
        let [tag, status, _, _] = take(&mut bytes, short)?;
        let console = u32::from_le_bytes(take(&mut bytes, short)?);
        Ok(Rakp4 { tag, status: Status(status), console, check: bytes.to_vec() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crypto::{SUITE_3, SUITE_17};

    #[test]
    fn all_of_them_there_and_back() {
        let open =
            OpenRequest { tag: 1, privilege: 4, console: 0xa0a1_a2a3, suite: SUITE_17.into() };
        let bytes = open.encode();
        assert_eq!(bytes.len(), 32);
        assert_eq!(bytes[8..16], [0, 0, 0, 8, 3, 0, 0, 0]);
        assert_eq!(OpenRequest::decode(&bytes), Ok(open));
        let agreed = Some(Agreed { managed: 7, suite: SUITE_3.into() });
        let answer = OpenResponse { tag: 1, status: Status::OK, privilege: 4, console: 9, agreed };
        assert_eq!(answer.encode().len(), 36);
        assert_eq!(OpenResponse::decode(&answer.encode()), Ok(answer));
        assert_eq!(OpenResponse::decode(&[1, 0x11]).unwrap().status, Status::NO_SUITE);
        let one =
            Rakp1 { tag: 2, managed: 7, random: [3; 16], role: 0x14, name: b"admin".to_vec() };
        assert_eq!(Rakp1::decode(&one.encode()), Ok(one));
        let proof = Some(Rakp2Proof { random: [4; 16], guid: [5; 16], code: vec![6; 20] });
        let two = Rakp2 { tag: 2, status: Status::OK, console: 9, proof };
        assert_eq!(Rakp2::decode(&two.encode()), Ok(two));
        let three = Rakp3 { tag: 3, status: Status::OK, managed: 7, code: vec![8; 32] };
        assert_eq!(Rakp3::decode(&three.encode()), Ok(three));
        let four = Rakp4 { tag: 3, status: Status::OK, console: 9, check: vec![1; 12] };
        assert_eq!(Rakp4::decode(&four.encode()), Ok(four));
    }
}
