//! How an IPMI 2.0 session is opened: Open Session, then RAKP 1 to 4, one cipher suite after the other.
//!
//! IPMI 2.0 §13.15–13.24. Field notes:
//! * Get Channel Authentication Capabilities is asked only of a BMC that is silent, to learn whether
//!   anybody is there; Get Channel Cipher Suites never: firmware lists suites it refuses, refuses suites it
//!   lists, or does not answer.
//! * A repeated RAKP 1 or 3 confuses many firmwares. Where either is lost, all starts again from Open
//!   Session with new ids.
//! * "Insufficient resources" may mean the cipher suite (Intel M50CYP). The next one is tried first.
//! * Where RAKP 4 is lost the BMC has a session that nobody holds; it is told to close it.

mod verdict;

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::access::{Access, Cipher, Learned, Privilege, Version};
use super::course::farewell;
use super::presence::{Capabilities, Presence};
use super::random::Random;
use super::seal::{Seal, V20};
use super::window::Window;
use crate::crypto::{Exchange, Keys, Password, SUITE_3, SUITE_17, Suite, same};
use crate::error::Error;
use crate::message::Message;
use crate::quirks::{Quirk, Quirks};
use crate::wire::rakp::{
    Algorithms, NAME_ONLY, OpenRequest, OpenResponse, Rakp1, Rakp2, Rakp2Proof, Rakp3, Rakp4,
    Status,
};
use crate::wire::v20::{self, PayloadType};

/// Tries of a cipher suite that meets silence, before the next one.
const TRIES_A_SUITE: u32 = 3;

/// What became of a step.
#[derive(Debug)]
pub(super) enum Outcome {
    /// It goes on.
    Wait,
    /// It is open.
    Open(Box<Opened>),
    /// The BMC says that it knows IPMI 1.5 alone.
    Legacy(Capabilities),
    /// It says that it knows IPMI 2.0, which it was not asked by.
    Modern,
    /// It came to nothing.
    Fail(Error),
}

/// A session as it was agreed on.
#[derive(Debug)]
pub(super) struct Opened {
    pub seal: Seal,
    /// What may be asked for by Set Session Privilege Level.
    pub privilege: Privilege,
    pub learned: Learned,
}

/// A session on its way.
#[derive(Debug)]
pub(super) struct Opening {
    access: Arc<Access>,
    learned: Learned,
    suites: Vec<Suite>,
    /// Index of the one being tried.
    at: usize,
    refused: Vec<(u8, Status)>,
    privilege: Privilege,
    quirks: Quirks,
    /// Both ways of looking up the account were tried.
    looked_up: bool,
    step: Step,
    tag: u8,
    console: u32,
    /// Of the present datagram.
    tries: u32,
    restarts: u32,
    deadline: Instant,
    started: Instant,
    heard: Heard,
    presence: Presence,
}

#[derive(Debug)]
enum Step {
    Open,
    /// The BMC forgot it in between.
    Pause,
    Rakp1(Box<Exchange>),
    Rakp3(Box<Proving>),
}

#[derive(Debug)]
struct Proving {
    exchange: Exchange,
    keys: Keys,
    password: Password,
}

/// What came back so far, for a verdict at the end.
#[derive(Debug, Default)]
struct Heard {
    /// The furthest message that was never answered, once one before it was.
    silent_at: Option<&'static str>,
    not_ipmi: Option<&'static str>,
    unreachable: Option<String>,
    refusals: u32,
}

impl Opening {
    /// Begins.
    pub fn begin(
        access: Arc<Access>,
        learned: Learned,
        now: Instant,
        random: &mut Random,
        out: &mut VecDeque<Vec<u8>>,
    ) -> Opening {
        let pinned = learned.suite.and_then(Suite::by_id);
        let suites = match (access.cipher, pinned) {
            (Cipher::Suite(id), _) => Suite::by_id(id).into_iter().collect(),
            (_, Some(SUITE_17)) => vec![SUITE_17],
            (_, Some(SUITE_3)) => vec![SUITE_3, SUITE_17],
            _ => vec![SUITE_17, SUITE_3],
        };
        let mut opening = Opening {
            privilege: access.privilege,
            quirks: access.quirks.and(learned.quirks),
            access,
            learned,
            suites,
            at: 0,
            refused: Vec::new(),
            looked_up: false,
            step: Step::Open,
            tag: random.bytes::<1>()[0],
            console: 0,
            tries: 0,
            restarts: 0,
            deadline: now,
            started: now,
            heard: Heard::default(),
            presence: Presence::default(),
        };
        opening.afresh(now, random, out);
        opening
    }

    /// When `expire` is due.
    pub fn deadline(&self) -> Instant {
        self.deadline.min(self.started + self.access.patience.total)
    }

    /// Whether something came back that a BMC may have sent.
    pub fn has_heard(&self) -> bool {
        self.heard.silent_at.is_some() || self.presence.has_heard()
    }

    /// The host says that nobody listens, or a router that there is no way.
    pub fn unreachable(&mut self, why: String) -> Outcome {
        self.heard.refusals += 1;
        self.heard.unreachable = Some(why);
        // One may be left from before; a BMC that starts refuses for a while, and its caller comes again.
        match self.has_heard() || self.heard.refusals < 2 {
            true => Outcome::Wait,
            false => Outcome::Fail(self.verdict(self.started)),
        }
    }

    /// Something came that is not RMCP.
    pub fn not_ipmi(&mut self, why: &'static str) {
        self.heard.not_ipmi = Some(why);
    }

    /// Something in the wrapper of IPMI 1.5: an answer to what was asked of a silent BMC.
    pub fn receive_legacy(&mut self, message: &Message, out: &mut VecDeque<Vec<u8>>) -> Outcome {
        if self.presence.receive(message) && self.presence.capabilities().is_none() {
            // It refused the bit of 2.0: at once without.
            out.push_back(self.presence.ask(self.privilege));
        }
        let may = self.access.version == Version::Auto
            && self.access.cipher == Cipher::Auto
            && self.learned.suite.is_none();
        match self.presence.v15_only() {
            Some(capabilities) if may && matches!(self.step, Step::Open) => {
                Outcome::Legacy(capabilities)
            }
            _ => Outcome::Wait,
        }
    }

    /// A payload outside a session.
    pub fn receive(
        &mut self,
        packet: &v20::Packet<'_>,
        now: Instant,
        random: &mut Random,
        out: &mut VecDeque<Vec<u8>>,
    ) -> Outcome {
        if packet.session != 0 || packet.encrypted || packet.authenticated {
            return Outcome::Wait;
        }
        let mut io = Io { now, random, out };
        match (packet.kind, std::mem::replace(&mut self.step, Step::Open)) {
            (PayloadType::OpenResponse, Step::Open) => match OpenResponse::decode(packet.payload) {
                Ok(response) => self.opened(&response, &mut io),
                Err(_) => Outcome::Wait,
            },
            (PayloadType::Rakp2, Step::Rakp1(exchange)) => match Rakp2::decode(packet.payload) {
                Ok(two) if two.tag == self.tag && two.console == self.console => {
                    self.proved(*exchange, two, &mut io)
                }
                _ => self.stay(Step::Rakp1(exchange)),
            },
            (PayloadType::Rakp4, Step::Rakp3(proving)) => match Rakp4::decode(packet.payload) {
                Ok(four) if four.tag == self.tag && four.console == self.console => {
                    self.agreed(*proving, &four, &mut io)
                }
                _ => self.stay(Step::Rakp3(proving)),
            },
            (_, step) => self.stay(step),
        }
    }

    fn stay(&mut self, step: Step) -> Outcome {
        self.step = step;
        Outcome::Wait
    }

    /// The deadline has passed.
    pub fn expire(
        &mut self,
        now: Instant,
        random: &mut Random,
        out: &mut VecDeque<Vec<u8>>,
    ) -> Outcome {
        if now < self.deadline() {
            return Outcome::Wait;
        }
        self.abandon(random, out);
        if now >= self.started + self.access.patience.total {
            return Outcome::Fail(self.verdict(now));
        }
        match self.step {
            Step::Open => {
                self.tries += 1;
                if self.tries >= TRIES_A_SUITE && self.suites.len() > 1 {
                    self.at = (self.at + 1) % self.suites.len();
                    self.afresh(now, random, out);
                } else {
                    self.send_open(now, out);
                }
                if self.presence.capabilities().is_none() {
                    out.push_back(self.presence.ask(self.privilege));
                }
            }
            Step::Pause | Step::Rakp1(_) | Step::Rakp3(_) => {
                self.restarts += 1;
                self.afresh(now, random, out);
            }
        }
        Outcome::Wait
    }

    /// Gives up what the BMC may hold open for us.
    pub fn abandon(&self, random: &mut Random, out: &mut VecDeque<Vec<u8>>) {
        if let Step::Rakp3(proving) = &self.step {
            let Proving { exchange, keys, .. } = &**proving;
            let seal = self.seal(exchange, keys.clone());
            out.push_back(farewell(seal, random));
        }
    }

    /// From Open Session, with new ids.
    fn afresh(&mut self, now: Instant, random: &mut Random, out: &mut VecDeque<Vec<u8>>) {
        self.step = Step::Open;
        self.tag = self.tag.wrapping_add(1);
        self.console = random.id();
        self.tries = 0;
        self.send_open(now, out);
    }

    fn send_open(&mut self, now: Instant, out: &mut VecDeque<Vec<u8>>) {
        let Some(suite) = self.suites.get(self.at) else { return };
        let request = OpenRequest {
            tag: self.tag,
            privilege: self.privilege.number(),
            console: self.console,
            suite: (*suite).into(),
        };
        self.deadline = now + self.access.patience.wait(self.tries);
        out.push_back(v20::encode_open(PayloadType::OpenRequest, &request.encode()));
    }

    fn opened(&mut self, response: &OpenResponse, io: &mut Io<'_>) -> Outcome {
        // Nothing proves a refusal; whoever does not hear us cannot guess its tag. Some leave our id out of it.
        let other = response.console != self.console
            && (response.console != 0 || response.status == Status::OK);
        if response.tag != self.tag || other {
            return Outcome::Wait;
        }
        let Some(suite) = self.suites.get(self.at).copied() else { return Outcome::Wait };
        let Some(agreed) = response.agreed else {
            self.heard.silent_at.get_or_insert("an Open Session Request");
            return self.refused(suite, response.status, io);
        };
        if agreed.managed == 0 {
            return Outcome::Wait;
        }
        if agreed.suite != Algorithms::from(suite) {
            return Outcome::Fail(Error::Downgrade(format!(
                "algorithms {}-{}-{} where cipher suite {} was asked for",
                agreed.suite.authentication,
                agreed.suite.integrity,
                agreed.suite.confidentiality,
                suite.id
            )));
        }
        let mut name = self.access.user.clone().into_bytes();
        if self.quirks.has(Quirk::PadNames) {
            name.resize(16, 0);
        }
        let name_only = !self.quirks.has(Quirk::NoNameOnly);
        let exchange = Exchange {
            suite,
            console: self.console,
            managed: agreed.managed,
            console_random: io.random.bytes(),
            managed_random: [0; 16],
            guid: [0; 16],
            role: self.privilege.number() | if name_only { NAME_ONLY } else { 0 },
            name: name.clone(),
        };
        let one = Rakp1 {
            tag: self.next_tag(),
            managed: agreed.managed,
            random: exchange.console_random,
            role: exchange.role,
            name,
        };
        io.out.push_back(v20::encode_open(PayloadType::Rakp1, &one.encode()));
        self.heard.silent_at = Some("RAKP message 1");
        self.await_rakp(io.now);
        self.stay(Step::Rakp1(Box::new(exchange)))
    }

    fn proved(&mut self, mut exchange: Exchange, two: Rakp2, io: &mut Io<'_>) -> Outcome {
        let Some(Rakp2Proof { random, guid, code }) = two.proof else {
            return self.refused(exchange.suite, two.status, io);
        };
        (exchange.managed_random, exchange.guid) = (random, guid);
        let holds = |password: &Password| {
            // Supermicro H8QME is off by one in how long the code is. All but one byte prove it as well.
            let due = exchange.rakp2(password);
            let length = due.len().min(code.len());
            let near = length + 1 >= due.len() && due.len() + 1 >= code.len();
            near && same(&due[..length], &code[..length])
        };
        let full = &self.access.password;
        let cut = full.is_beyond_sixteen().then(|| full.cut());
        let password = match cut {
            Some(cut) if self.quirks.has(Quirk::Password16) && holds(&cut) => cut,
            _ if holds(full) => full.clone(),
            Some(cut) if holds(&cut) => {
                self.learn(Quirk::Password16);
                cut
            }
            _ => {
                // Said, so that the BMC does not keep the slot for a minute.
                let three = Rakp3 {
                    tag: self.next_tag(),
                    status: Status::INTEGRITY_CHECK,
                    managed: exchange.managed,
                    code: Vec::new(),
                };
                io.out.push_back(v20::encode_open(PayloadType::Rakp3, &three.encode()));
                return Outcome::Fail(Error::WrongPassword { user: self.access.user.clone() });
            }
        };
        let role = self.role(&exchange);
        let three = Rakp3 {
            tag: self.next_tag(),
            status: Status::OK,
            managed: exchange.managed,
            code: exchange.rakp3(&password, role).to_vec(),
        };
        io.out.push_back(v20::encode_open(PayloadType::Rakp3, &three.encode()));
        self.heard.silent_at = Some("RAKP message 3");
        self.await_rakp(io.now);
        let keys = exchange.keys(&password, self.access.kg.as_ref(), role);
        self.stay(Step::Rakp3(Box::new(Proving { exchange, keys, password })))
    }

    fn agreed(&mut self, proving: Proving, four: &Rakp4, io: &mut Io<'_>) -> Outcome {
        let Proving { exchange, mut keys, password } = proving;
        if four.status == Status::INTEGRITY_CHECK {
            // It showed in RAKP 2 that it knows the password, so it computes RAKP 3 otherwise.
            if self.quirks.has(Quirk::OpenPrivilege) {
                return Outcome::Fail(Error::BadProof(
                    "it knows the password and refuses the proof that we know it",
                ));
            }
            self.learn(Quirk::OpenPrivilege);
            self.again(io);
            return Outcome::Wait;
        }
        if four.status != Status::OK {
            return self.refused(exchange.suite, four.status, io);
        }
        if !same(keys.rakp4(), &four.check) {
            let other = exchange.keys(&password, self.access.kg.as_ref(), self.privilege.number());
            if !same(other.rakp4(), &four.check) {
                return Outcome::Fail(Error::WrongKey);
            }
            keys = other;
        }
        let seal = self.seal(&exchange, keys);
        // A suite is pinned where every better one was refused as a suite, or met silence.
        let full = self.refused.iter().any(|(_, status)| *status == Status::NO_RESOURCES);
        let asked = matches!(self.access.cipher, Cipher::Suite(_));
        let mut learned = self.learned.clone();
        if !full && !asked {
            learned.suite = Some(exchange.suite.id);
        }
        if self.looked_up {
            learned.quirks = learned.quirks.with(Quirk::NoNameOnly);
        }
        Outcome::Open(Box::new(Opened { seal, privilege: self.privilege, learned }))
    }

    fn again(&mut self, io: &mut Io<'_>) {
        self.afresh(io.now, io.random, io.out);
    }

    fn learn(&mut self, quirk: Quirk) {
        self.quirks = self.quirks.with(quirk);
        self.learned.quirks = self.learned.quirks.with(quirk);
    }

    fn role(&self, exchange: &Exchange) -> u8 {
        match self.quirks.has(Quirk::OpenPrivilege) {
            true => self.privilege.number(),
            false => exchange.role,
        }
    }

    fn seal(&self, exchange: &Exchange, keys: Keys) -> Seal {
        Seal::V20(V20 {
            keys,
            console: exchange.console,
            managed: exchange.managed,
            sequence: 0,
            window: Window::default(),
            quirks: self.quirks,
        })
    }

    fn next_tag(&mut self) -> u8 {
        self.tag = self.tag.wrapping_add(1);
        self.tag
    }

    /// RAKP takes firmware longer than anything else: at least a second.
    fn await_rakp(&mut self, now: Instant) {
        let wait = self.access.patience.wait(self.restarts + 1);
        self.deadline = now + wait.max(Duration::from_secs(1).min(self.access.patience.total / 4));
    }
}

struct Io<'a> {
    now: Instant,
    random: &'a mut Random,
    out: &'a mut VecDeque<Vec<u8>>,
}
