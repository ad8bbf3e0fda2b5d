//! How an IPMI 1.5 session is opened: capabilities, a challenge, its activation.
//!
//! IPMI 2.0 §6.12, §22.13, §22.16, §22.17. A BMC says nothing to a datagram whose code is wrong, so that
//! silence after the challenge is what a wrong password looks like.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Instant;

use super::access::{Access, Cipher, Learned, Privilege, Version};
use super::opening::{Opened, Outcome};
use super::presence::{self, Capabilities, Presence};
use super::random::Random;
use super::seal::{Seal, V15};
use super::window::Window;
use crate::error::Error;
use crate::message::{Completion, Message, NetFn, Request};
use crate::quirks::{Quirk, Quirks};
use crate::wire::v15::{self, Auth};

const GET_CHALLENGE: u8 = 0x39;
const ACTIVATE: u8 = 0x3a;
/// Silences after a challenge that make a wrong password.
const SILENCES: u32 = 4;

/// A session on its way.
#[derive(Debug)]
pub(super) struct Legacy {
    access: Arc<Access>,
    learned: Learned,
    auth: Auth,
    privilege: Privilege,
    quirks: Quirks,
    presence: Presence,
    step: Step,
    seq: u8,
    tries: u32,
    silences: u32,
    deadline: Instant,
    started: Instant,
    not_ipmi: Option<&'static str>,
    unreachable: Option<String>,
    refusals: u32,
}

#[derive(Debug, Clone, Copy)]
enum Step {
    Capabilities,
    Challenge,
    Activate { temporary: u32, challenge: [u8; 16], outbound: u32 },
}

impl Legacy {
    /// Begins; with what the BMC said it takes, where it was asked already.
    pub fn begin(
        access: Arc<Access>,
        learned: Learned,
        said: Option<Capabilities>,
        now: Instant,
        random: &mut Random,
        out: &mut VecDeque<Vec<u8>>,
    ) -> (Legacy, Outcome) {
        let auth = match access.cipher {
            Cipher::Legacy(auth) => auth,
            _ => Auth::Md5,
        };
        let mut legacy = Legacy {
            auth,
            privilege: access.privilege,
            quirks: access.quirks.and(learned.quirks),
            access,
            learned,
            presence: Presence::default(),
            step: Step::Capabilities,
            seq: random.bytes::<1>()[0] & 0x3f,
            tries: 0,
            silences: 0,
            deadline: now,
            started: now,
            not_ipmi: None,
            unreachable: None,
            refusals: 0,
        };
        let outcome = match said {
            Some(capabilities) => {
                legacy.learned.version = Version::V15;
                legacy.told(capabilities, now, out)
            }
            None => {
                legacy.send(now, out);
                Outcome::Wait
            }
        };
        (legacy, outcome)
    }

    /// When `expire` is due.
    pub fn deadline(&self) -> Instant {
        self.deadline.min(self.started + self.access.patience.total)
    }

    /// Whether something came back that a BMC may have sent.
    pub fn has_heard(&self) -> bool {
        self.presence.has_heard() || !matches!(self.step, Step::Capabilities)
    }

    /// The host says that nobody listens, or a router that there is no way.
    pub fn unreachable(&mut self, why: String) -> Outcome {
        self.refusals += 1;
        match self.has_heard() || self.refusals < 2 {
            true => {
                self.unreachable = Some(why);
                Outcome::Wait
            }
            false => Outcome::Fail(Error::Network(why)),
        }
    }

    /// Something came that is not RMCP.
    pub fn not_ipmi(&mut self, why: &'static str) {
        self.not_ipmi = Some(why);
    }

    /// Something in the wrapper of IPMI 1.5.
    pub fn receive(
        &mut self,
        packet: &v15::Packet<'_>,
        now: Instant,
        random: &mut Random,
        out: &mut VecDeque<Vec<u8>>,
    ) -> Outcome {
        let Ok(message) = Message::decode(packet.payload) else { return Outcome::Wait };
        if matches!(self.step, Step::Capabilities) {
            if self.presence.receive(&message) {
                if self.presence.is_v20() && self.is_auto() {
                    // Its firmware is newer than what was learned of it.
                    return Outcome::Modern;
                }
                if let Some(capabilities) = self.presence.capabilities() {
                    return self.told(capabilities, now, out);
                }
                // It refused the bit of 2.0: at once without.
                self.send(now, out);
            }
            return Outcome::Wait;
        }
        let ours = message.netfn == NetFn::APP.answer() && message.seq == self.seq;
        let Some(response) = message.response().filter(|_| ours && message.checksums) else {
            return Outcome::Wait;
        };
        let user = || self.access.user.clone();
        match (self.step, message.command, response.completion) {
            (Step::Challenge, GET_CHALLENGE, Completion::OK) => {
                let Some((temporary, rest)) = response.data.split_first_chunk::<4>() else {
                    return Outcome::Wait;
                };
                let Some(challenge) = rest.first_chunk::<16>() else { return Outcome::Wait };
                self.tries = 0;
                self.step = Step::Activate {
                    temporary: u32::from_le_bytes(*temporary),
                    challenge: *challenge,
                    outbound: random.id(),
                };
                self.send(now, out);
                Outcome::Wait
            }
            (Step::Challenge, GET_CHALLENGE, Completion(0x81 | 0x82)) => {
                Outcome::Fail(Error::UserRefused { user: user() })
            }
            (Step::Activate { temporary, .. }, ACTIVATE, Completion::OK) => {
                // Whatever is agreed on for the rest, this one is proved as it was asked for.
                let same = packet.session == temporary
                    || packet.session == 0 && self.quirks.has(Quirk::ZeroSession);
                let proved = packet.auth == self.auth && packet.is_authentic(&self.access.password);
                match proved && (same || packet.code.is_some()) {
                    true => self.activated(&response.data),
                    false => Outcome::Wait,
                }
            }
            (Step::Activate { .. }, ACTIVATE, Completion(0x81..=0x83)) => {
                Outcome::Fail(Error::NoFreeSession)
            }
            (Step::Activate { .. }, ACTIVATE, Completion(0x86) | Completion::PRIVILEGE) => {
                match self.privilege.less() {
                    Some(less) => {
                        self.privilege = less;
                        self.step = Step::Challenge;
                        self.send(now, out);
                        Outcome::Wait
                    }
                    None => Outcome::Fail(Error::Privilege { user: user() }),
                }
            }
            (Step::Challenge, GET_CHALLENGE, completion)
            | (Step::Activate { .. }, ACTIVATE, completion)
                if !completion.is_passing() =>
            {
                Outcome::Fail(Error::Refused {
                    netfn: NetFn::APP,
                    command: message.command,
                    completion,
                })
            }
            _ => Outcome::Wait,
        }
    }

    /// The deadline has passed.
    pub fn expire(&mut self, now: Instant, out: &mut VecDeque<Vec<u8>>) -> Outcome {
        if now < self.deadline() {
            return Outcome::Wait;
        }
        if now >= self.started + self.access.patience.total {
            return Outcome::Fail(self.verdict(now));
        }
        self.tries += 1;
        if matches!(self.step, Step::Activate { .. }) {
            self.silences += 1;
            if self.silences >= SILENCES {
                return Outcome::Fail(self.verdict(now));
            }
            self.step = Step::Challenge;
        }
        self.send(now, out);
        Outcome::Wait
    }

    fn is_auto(&self) -> bool {
        self.access.version == Version::Auto && self.access.cipher == Cipher::Auto
    }

    fn told(&mut self, said: Capabilities, now: Instant, out: &mut VecDeque<Vec<u8>>) -> Outcome {
        if !said.takes(self.auth) && !self.quirks.has(Quirk::NoCapabilities) {
            return Outcome::Fail(Error::Unsupported(match self.auth {
                Auth::None => "sessions without authentication (IPMI 1.5, cipher none)",
                Auth::Md5 => "MD5 authentication (IPMI 1.5); it may know `cipher = \"password\"`",
                Auth::Password => "straight passwords (IPMI 1.5)",
            }));
        }
        self.step = Step::Challenge;
        self.tries = 0;
        self.send(now, out);
        Outcome::Wait
    }

    fn send(&mut self, now: Instant, out: &mut VecDeque<Vec<u8>>) {
        self.deadline = now + self.access.patience.wait(self.tries);
        self.seq = (self.seq + 1) & 0x3f;
        out.push_back(match self.step {
            Step::Capabilities => self.presence.ask(self.privilege),
            Step::Challenge => {
                let mut data = vec![self.auth.number()];
                data.extend_from_slice(self.access.user.as_bytes());
                data.resize(17, 0);
                let request = Request::new(NetFn::APP, GET_CHALLENGE, data);
                presence::outside(&Message::request(&request, self.seq))
            }
            Step::Activate { temporary, challenge, outbound } => {
                let mut data = vec![self.auth.number(), self.privilege.number()];
                data.extend(challenge);
                let number = match self.quirks.has(Quirk::BigEndianSequence) {
                    true => outbound.swap_bytes(),
                    false => outbound,
                };
                data.extend(number.to_le_bytes());
                let message = Message::request(&Request::new(NetFn::APP, ACTIVATE, data), self.seq);
                let password = &self.access.password;
                v15::encode(self.auth, temporary, 0, password, &message.encode())
            }
        });
    }

    fn activated(&mut self, data: &[u8]) -> Outcome {
        let [auth, s0, s1, s2, s3, n0, n1, n2, n3, ..] = data else { return Outcome::Wait };
        let session = u32::from_le_bytes([*s0, *s1, *s2, *s3]);
        let inbound = u32::from_le_bytes([*n0, *n1, *n2, *n3]);
        let swap = self.quirks.has(Quirk::BigEndianSequence);
        let inbound = if swap { inbound.swap_bytes() } else { inbound };
        // For the rest of the session it may ask for no authentication, and for no other than agreed.
        let auth = match auth & 0x0f {
            0 if !self.quirks.has(Quirk::ForcePerMessage) => Auth::None,
            0 => self.auth,
            number if number == self.auth.number() => self.auth,
            _ => {
                return Outcome::Fail(Error::Downgrade(format!(
                    "authentication type {auth} where {} was asked for",
                    self.auth.number()
                )));
            }
        };
        let seal = Seal::V15(V15 {
            session,
            auth,
            password: self.access.password.clone(),
            // The first packet carries the number that was given.
            sequence: inbound.wrapping_sub(1),
            window: Window::default(),
            quirks: self.quirks,
        });
        let learned = self.learned.clone();
        Outcome::Open(Box::new(Opened { seal, privilege: self.privilege, learned }))
    }

    /// Why nothing came of it.
    fn verdict(&self, now: Instant) -> Error {
        match self.step {
            // Unsigned, it would have been answered.
            Step::Activate { .. } if self.auth != Auth::None => {
                Error::WrongPassword { user: self.access.user.clone() }
            }
            Step::Activate { .. } => Error::Silent { what: "the activation of a session" },
            Step::Challenge => Error::Silent { what: "a request for a challenge" },
            Step::Capabilities => match (self.not_ipmi, &self.unreachable) {
                (Some(why), _) => Error::NotABmc(why.to_string()),
                (None, Some(why)) => Error::Network(why.clone()),
                (None, None) => {
                    Error::Unreachable { waited: now.saturating_duration_since(self.started) }
                }
            },
        }
    }
}
