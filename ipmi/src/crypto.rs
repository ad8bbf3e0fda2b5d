//! What proves and hides: cipher suites, passwords, and the keys that an RMCP+ session is built on.
//!
//! IPMI 2.0 §13.28–13.32 and table 22-20. Secrets are wiped when dropped and never printed; every
//! comparison takes the same time whatever it finds.

use std::fmt;

use aes::cipher::block_padding::NoPadding;
use aes::cipher::{BlockModeDecrypt, BlockModeEncrypt, KeyIvInit};
use hmac::{Hmac, KeyInit, Mac};
use secrecy::{ExposeSecret, SecretBox};
use sha1::Sha1;
use sha2::Sha256;
use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

/// How the two ends prove to each other that they know the password (table 13-17).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Authentication {
    /// They do not.
    None,
    /// RAKP-HMAC-SHA1.
    Sha1,
    /// RAKP-HMAC-SHA256.
    Sha256,
}

/// How a packet is proved unaltered (table 13-18).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Integrity {
    /// It is not.
    None,
    /// HMAC-SHA1-96.
    Sha1,
    /// HMAC-SHA256-128.
    Sha256,
}

/// How a payload is hidden (table 13-19).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Confidentiality {
    /// It is not.
    None,
    /// AES-CBC-128.
    Aes,
}

/// A cipher suite (table 22-20): three algorithms under one number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Suite {
    /// Its number.
    pub id: u8,
    /// Of RAKP.
    pub authentication: Authentication,
    /// Of packets.
    pub integrity: Integrity,
    /// Of payloads.
    pub confidentiality: Confidentiality,
}

const fn suite(id: u8, a: Authentication, i: Integrity, c: Confidentiality) -> Suite {
    Suite { id, authentication: a, integrity: i, confidentiality: c }
}

/// SHA-256 and AES: what to ask for first.
pub const SUITE_17: Suite =
    suite(17, Authentication::Sha256, Integrity::Sha256, Confidentiality::Aes);
/// SHA-1 and AES: what to ask for where 17 is not known.
pub const SUITE_3: Suite = suite(3, Authentication::Sha1, Integrity::Sha1, Confidentiality::Aes);

/// Those that are known. 0 to 2, 15 and 16 leave something open and are used only when asked for by
/// number.
pub const SUITES: [Suite; 7] = [
    suite(0, Authentication::None, Integrity::None, Confidentiality::None),
    suite(1, Authentication::Sha1, Integrity::None, Confidentiality::None),
    suite(2, Authentication::Sha1, Integrity::Sha1, Confidentiality::None),
    SUITE_3,
    suite(15, Authentication::Sha256, Integrity::None, Confidentiality::None),
    suite(16, Authentication::Sha256, Integrity::Sha256, Confidentiality::None),
    SUITE_17,
];

impl Suite {
    /// The suite of this number.
    pub fn by_id(id: u8) -> Option<Suite> {
        SUITES.into_iter().find(|suite| suite.id == id)
    }
}

impl Authentication {
    /// Its number on the wire.
    pub fn number(self) -> u8 {
        match self {
            Authentication::None => 0,
            Authentication::Sha1 => 1,
            Authentication::Sha256 => 3,
        }
    }

    /// Bytes of a key exchange authentication code (RAKP 2 and 3).
    pub fn code_length(self) -> usize {
        match self {
            Authentication::None => 0,
            Authentication::Sha1 => 20,
            Authentication::Sha256 => 32,
        }
    }

    /// Bytes of the integrity check value in RAKP 4.
    pub fn check_length(self) -> usize {
        match self {
            Authentication::None => 0,
            Authentication::Sha1 => 12,
            Authentication::Sha256 => 16,
        }
    }

    fn hmac(self, key: &[u8], parts: &[&[u8]]) -> Zeroizing<Vec<u8>> {
        match self {
            Authentication::None => Zeroizing::new(Vec::new()),
            Authentication::Sha1 => hmac::<Hmac<Sha1>>(key, parts),
            Authentication::Sha256 => hmac::<Hmac<Sha256>>(key, parts),
        }
    }
}

impl Integrity {
    /// Its number on the wire.
    pub fn number(self) -> u8 {
        match self {
            Integrity::None => 0,
            Integrity::Sha1 => 1,
            Integrity::Sha256 => 4,
        }
    }

    /// Bytes of a packet's authentication code.
    pub fn code_length(self) -> usize {
        match self {
            Integrity::None => 0,
            Integrity::Sha1 => 12,
            Integrity::Sha256 => 16,
        }
    }
}

impl Confidentiality {
    /// Its number on the wire.
    pub fn number(self) -> u8 {
        match self {
            Confidentiality::None => 0,
            Confidentiality::Aes => 1,
        }
    }
}

fn hmac<M: Mac + KeyInit>(key: &[u8], parts: &[&[u8]]) -> Zeroizing<Vec<u8>> {
    // HMAC takes keys of any length, an empty one too.
    let Ok(mut mac) = <M as KeyInit>::new_from_slice(key) else {
        return Zeroizing::new(Vec::new());
    };
    for part in parts {
        mac.update(part);
    }
    Zeroizing::new(mac.finalize().into_bytes().to_vec())
}

/// Whether two codes are the same. Different lengths are different.
pub fn same(one: &[u8], other: &[u8]) -> bool {
    one.ct_eq(other).into()
}

/// A secret that is too long for what it is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{what} has {length} bytes; IPMI knows at most {most}")]
pub struct TooLong {
    /// `the password`, `the key`.
    pub what: &'static str,
    /// Its bytes.
    pub length: usize,
    /// What IPMI takes.
    pub most: usize,
}

/// An account's password: up to 20 bytes under IPMI 2.0, of which IPMI 1.5 sees 16.
pub struct Password {
    bytes: SecretBox<[u8; 20]>,
    length: usize,
}

impl Password {
    /// Of this text.
    pub fn new(text: &str) -> Result<Password, TooLong> {
        let length = text.len();
        let (bytes, length) = padded("the password", text.as_bytes(), length)?;
        Ok(Password { bytes, length })
    }

    /// Whether IPMI 1.5, or a BMC that keeps 16 bytes, sees less than all of it.
    pub fn is_beyond_sixteen(&self) -> bool {
        self.length > 16
    }

    /// Cut to 16 bytes, for BMCs that keep no more.
    #[must_use]
    pub fn cut(&self) -> Password {
        let mut bytes = Box::new([0; 20]);
        bytes[..16].copy_from_slice(&self.bytes.expose_secret()[..16]);
        Password { bytes: SecretBox::new(bytes), length: self.length.min(16) }
    }

    /// As IPMI 1.5 uses it: 16 bytes with zeros behind.
    pub fn sixteen(&self) -> SecretBox<[u8; 16]> {
        let mut bytes = Box::new([0; 16]);
        bytes.copy_from_slice(&self.bytes.expose_secret()[..16]);
        SecretBox::new(bytes)
    }

    /// All 20 bytes with zeros behind, as Set User Password takes them.
    pub fn twenty(&self) -> &[u8; 20] {
        self.bytes.expose_secret()
    }
}

impl Default for Password {
    /// The empty password.
    fn default() -> Password {
        Password { bytes: SecretBox::new(Box::new([0; 20])), length: 0 }
    }
}

impl Clone for Password {
    fn clone(&self) -> Password {
        let bytes = SecretBox::new(Box::new(*self.bytes.expose_secret()));
        Password { bytes, length: self.length }
    }
}

impl fmt::Debug for Password {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Password")
    }
}

/// A BMC's own key, K_g: all zeros, which is the same as none, until somebody sets it.
pub struct Kg(SecretBox<[u8; 20]>);

impl Kg {
    /// Of these bytes.
    pub fn new(bytes: &[u8]) -> Result<Kg, TooLong> {
        Ok(Kg(padded("the key", bytes, bytes.len())?.0))
    }
}

impl Clone for Kg {
    fn clone(&self) -> Kg {
        Kg(SecretBox::new(Box::new(*self.0.expose_secret())))
    }
}

impl fmt::Debug for Kg {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Kg")
    }
}

fn padded(
    what: &'static str,
    bytes: &[u8],
    length: usize,
) -> Result<(SecretBox<[u8; 20]>, usize), TooLong> {
    let mut out = Box::new([0; 20]);
    let Some(place) = out.get_mut(..length) else {
        return Err(TooLong { what, length, most: 20 });
    };
    place.copy_from_slice(bytes);
    Ok((SecretBox::new(out), length))
}

/// What both ends know after RAKP 1 and 2: all that the codes of RAKP 2, 3 and 4 are taken over (§13.31).
#[derive(Debug, Clone)]
pub struct Exchange {
    /// Its algorithm is used for the codes.
    pub suite: Suite,
    /// Our id for the session.
    pub console: u32,
    /// The BMC's id for the session.
    pub managed: u32,
    /// Our random number.
    pub console_random: [u8; 16],
    /// The BMC's random number.
    pub managed_random: [u8; 16],
    /// The machine's GUID.
    pub guid: [u8; 16],
    /// The role byte of RAKP 1, bit 4 and all.
    pub role: u8,
    /// The account.
    pub name: Vec<u8>,
}

impl Exchange {
    fn name_length(&self) -> u8 {
        u8::try_from(self.name.len()).unwrap_or(16)
    }

    /// RAKP 2's code: the BMC knows the password.
    pub fn rakp2(&self, password: &Password) -> Zeroizing<Vec<u8>> {
        self.suite.authentication.hmac(
            password.twenty(),
            &[
                &self.console.to_le_bytes(),
                &self.managed.to_le_bytes(),
                &self.console_random,
                &self.managed_random,
                &self.guid,
                &[self.role, self.name_length()],
                &self.name,
            ],
        )
    }

    /// RAKP 3's code: we know it. `role`: that of RAKP 1, except for boards that take the privilege of
    /// Open Session here (Supermicro X8DT*, ipmi_sim's peer FreeIPMI calls it `opensesspriv`).
    pub fn rakp3(&self, password: &Password, role: u8) -> Zeroizing<Vec<u8>> {
        self.suite.authentication.hmac(
            password.twenty(),
            &[
                &self.managed_random,
                &self.console.to_le_bytes(),
                &[role, self.name_length()],
                &self.name,
            ],
        )
    }

    /// The keys of the session. Where the BMC has no key of its own, the password stands in for it.
    pub fn keys(&self, password: &Password, kg: Option<&Kg>, role: u8) -> Keys {
        let authentication = self.suite.authentication;
        let key = kg.map_or(password.twenty(), |kg| kg.0.expose_secret());
        let sik = authentication.hmac(
            key,
            &[&self.console_random, &self.managed_random, &[role, self.name_length()], &self.name],
        );
        let check = authentication
            .hmac(&sik, &[&self.console_random, &self.managed.to_le_bytes(), &self.guid]);
        let check = check[..authentication.check_length().min(check.len())].to_vec();
        let k1 = authentication.hmac(&sik, &[&[1; 20]]);
        let k2 = authentication.hmac(&sik, &[&[2; 20]]);
        let mut aes = Zeroizing::new([0; 16]);
        if let Some(first) = k2.first_chunk() {
            *aes = *first;
        }
        Keys { suite: self.suite, k1, aes, check }
    }
}

/// The keys of an open session.
#[derive(Clone)]
pub struct Keys {
    suite: Suite,
    k1: Zeroizing<Vec<u8>>,
    aes: Zeroizing<[u8; 16]>,
    check: Vec<u8>,
}

impl fmt::Debug for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Keys(suite {})", self.suite.id)
    }
}

impl Keys {
    /// What the session agreed on.
    pub fn suite(&self) -> Suite {
        self.suite
    }

    /// RAKP 4's check value: both ends have the same keys.
    pub fn rakp4(&self) -> &[u8] {
        &self.check
    }

    /// The authentication code of a packet (from its authentication type to its next-header byte).
    pub fn sign(&self, bytes: &[u8]) -> Vec<u8> {
        let length = self.suite.integrity.code_length();
        let full = match self.suite.integrity {
            Integrity::None => return Vec::new(),
            Integrity::Sha1 => hmac::<Hmac<Sha1>>(&self.k1, &[bytes]),
            Integrity::Sha256 => hmac::<Hmac<Sha256>>(&self.k1, &[bytes]),
        };
        full[..length.min(full.len())].to_vec()
    }

    /// A payload hidden: the vector, then blocks that end in 01 02 03 … and their count (§13.29).
    pub fn encrypt(&self, payload: &[u8], vector: [u8; 16]) -> Vec<u8> {
        let pad = 15 - payload.len() % 16;
        let mut blocks = Vec::with_capacity(payload.len() + pad + 1);
        blocks.extend_from_slice(payload);
        blocks.extend((1u8..).take(pad));
        blocks.push(u8::try_from(pad).unwrap_or(0));
        let cipher = cbc::Encryptor::<aes::Aes128>::new((&*self.aes).into(), (&vector).into());
        let hidden = cipher.encrypt_padded_vec::<NoPadding>(&blocks);
        let mut out = Vec::with_capacity(16 + hidden.len());
        out.extend(vector);
        out.extend(hidden);
        out
    }

    /// A payload shown again; `None` if it is not whole blocks with a pad that fits. What the pad's bytes
    /// are is not looked at: firmware fills them as it likes.
    pub fn decrypt(&self, payload: &[u8]) -> Option<Vec<u8>> {
        let (vector, blocks) = payload.split_first_chunk::<16>()?;
        if blocks.is_empty() || blocks.len() % 16 != 0 {
            return None;
        }
        let cipher = cbc::Decryptor::<aes::Aes128>::new((&*self.aes).into(), vector.into());
        let mut shown = cipher.decrypt_padded_vec::<NoPadding>(blocks).ok()?;
        let pad = usize::from(shown.pop()?);
        let length = shown.len().checked_sub(pad)?;
        shown.truncate(length);
        Some(shown)
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn keys(suite: Suite) -> Keys {
        exchange(suite).keys(&Password::new("secret").unwrap(), None, 0x14)
    }

    fn exchange(suite: Suite) -> Exchange {
        Exchange {
            suite,
            console: 0x1122_3344,
            managed: 0x5566_7788,
            console_random: [1; 16],
            managed_random: [2; 16],
            guid: [3; 16],
            role: 0x14,
            name: b"admin".to_vec(),
        }
    }

    #[test]
    fn lengths_are_those_of_the_suites() {
        let password = Password::new("secret").unwrap();
        for suite in SUITES {
            let exchange = exchange(suite);
            let length = suite.authentication.code_length();
            assert_eq!(exchange.rakp2(&password).len(), length);
            assert_eq!(exchange.rakp3(&password, 0x14).len(), length);
            let keys = exchange.keys(&password, None, 0x14);
            assert_eq!(keys.rakp4().len(), suite.authentication.check_length());
            assert_eq!(keys.sign(b"x").len(), suite.integrity.code_length());
        }
    }

    #[test]
    fn every_length_is_hidden_and_shown() {
        let keys = keys(SUITE_17);
        for length in 0..70 {
            let payload = vec![0x5a; length];
            let hidden = keys.encrypt(&payload, [9; 16]);
            assert_eq!(hidden.len() % 16, 0);
            assert_eq!(keys.decrypt(&hidden).unwrap(), payload);
        }
        for length in 0..33 {
            let _odd_ones_are_none_or_garbage_never_a_panic = keys.decrypt(&vec![0xff; length]);
        }
    }

    #[test]
    fn secrets_are_not_printed() {
        let password = Password::new("hunter2").unwrap();
        assert_eq!(format!("{password:?} {:?}", Kg::new(b"key").unwrap()), "Password Kg");
        assert!(!format!("{:?}", keys(SUITE_3)).contains("hunter2"));
        assert!(Password::new("123456789012345678901").is_err());
        assert!(Password::new("12345678901234567").unwrap().is_beyond_sixteen());
    }

    /// The key of the BMC and the password's own are two things; zeros stand for the password's.
    #[test]
    fn the_bmcs_own_key_matters() {
        let exchange = exchange(SUITE_3);
        let password = Password::new("secret").unwrap();
        let without = exchange.keys(&password, None, 0x14);
        let with = exchange.keys(&password, Some(&Kg::new(b"own").unwrap()), 0x14);
        assert_ne!(without.rakp4(), with.rakp4());
    }
}
