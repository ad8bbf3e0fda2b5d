//! The other end, as small as it can be, with the faults that the tests need.

use std::collections::HashMap;

use crate::crypto::{Exchange, Kg, Password, Suite};
use crate::message::{Completion, Message, NetFn, Response};
use crate::quirks::Quirks;
use crate::session::Random;
use crate::session::seal::{Seal, V15, V20};
use crate::session::window::Window;
use crate::wire::rakp::{
    Agreed, Algorithms, NAME_ONLY, OpenRequest, OpenResponse, Rakp1, Rakp2, Rakp2Proof, Rakp3,
    Rakp4, Status,
};
use crate::wire::rmcp::Rmcp;
use crate::wire::v15::{self, Auth};
use crate::wire::v20::{self, PayloadType};

pub const USER: &str = "admin";
pub const PASSWORD: &str = "a password of 20 by.";

/// What is odd about it.
#[derive(Clone, Default)]
pub struct Odd {
    pub suites: Vec<u8>,
    /// It says nothing to these.
    pub mute: Vec<u8>,
    /// It says "insufficient resources" of suites that it refuses.
    pub misleading: bool,
    pub full: bool,
    /// It answers with these algorithms whatever was asked for.
    pub answers: Option<Algorithms>,
    pub kg: Option<Kg>,
    pub keeps_16: bool,
    pub open_privilege: bool,
    pub no_name_only: bool,
    /// Most that the account may have.
    pub privilege: u8,
    /// It refuses more in RAKP 2, instead of when it is asked for.
    pub strict: bool,
    pub v15_only: bool,
    pub no_per_message: bool,
    pub bad_checksums: bool,
    pub long_rakp2: bool,
    /// Answers to commands that say "busy" (0xC0), "duplicate" (0xCF) or what else first.
    pub first: Vec<u8>,
    /// It does not answer commands at all.
    pub deaf: bool,
}

impl Odd {
    pub fn none() -> Odd {
        Odd { suites: vec![3, 17], privilege: 4, ..Odd::default() }
    }
}

struct Half {
    exchange: Exchange,
    open_privilege: u8,
    proved: bool,
}

pub struct Fake {
    pub odd: Odd,
    pub random: Random,
    halves: HashMap<u32, Half>,
    pub sessions: HashMap<u32, Seal>,
    /// Commands that were carried out, by family, number and first datum.
    pub done: Vec<(u8, u8, Option<u8>)>,
    /// The number (rqSeq) of every command that came.
    pub numbers: Vec<u8>,
    pub closed: Vec<u32>,
    /// Payloads of SOL that came.
    pub payloads: Vec<Vec<u8>>,
    /// Names and suites asked for, one an Open Session.
    pub asked: Vec<u8>,
    challenge: u32,
}

impl Fake {
    pub fn new(odd: Odd) -> Fake {
        Fake {
            odd,
            random: Random::seeded(99),
            halves: HashMap::new(),
            sessions: HashMap::new(),
            numbers: Vec::new(),
            done: Vec::new(),
            closed: Vec::new(),
            payloads: Vec::new(),
            asked: Vec::new(),
            challenge: 0,
        }
    }

    fn password(&self) -> Password {
        let password = Password::new(PASSWORD).unwrap();
        if self.odd.keeps_16 { password.cut() } else { password }
    }

    pub fn handle(&mut self, datagram: &[u8]) -> Vec<Vec<u8>> {
        let Ok(Rmcp::Ipmi(rest)) = Rmcp::decode(datagram) else { return Vec::new() };
        if !v20::is_rmcp_plus(rest) {
            return self.legacy(rest, datagram);
        }
        if self.odd.v15_only {
            return Vec::new();
        }
        let Ok(packet) = v20::Packet::decode(rest) else { return Vec::new() };
        match packet.kind {
            PayloadType::OpenRequest => self.open(packet.payload),
            PayloadType::Rakp1 => self.rakp1(packet.payload),
            PayloadType::Rakp3 => self.rakp3(packet.payload),
            _ => self.within(packet.session, datagram),
        }
        .into_iter()
        .collect()
    }

    fn open(&mut self, payload: &[u8]) -> Option<Vec<u8>> {
        let request = OpenRequest::decode(payload).unwrap();
        let suite = crate::crypto::SUITES
            .into_iter()
            .find(|suite| Algorithms::from(*suite) == request.suite)
            .unwrap();
        self.asked.push(suite.id);
        if self.odd.mute.contains(&suite.id) {
            return None;
        }
        let mut response = OpenResponse {
            tag: request.tag,
            status: Status::OK,
            privilege: request.privilege,
            console: request.console,
            agreed: None,
        };
        if !self.odd.suites.contains(&suite.id) {
            response.status =
                if self.odd.misleading { Status::NO_RESOURCES } else { Status::NO_SUITE };
        } else if self.odd.full {
            response.status = Status::NO_RESOURCES;
        } else {
            let managed = self.random.id();
            self.half(suite, managed, &request);
            let suite = self.odd.answers.unwrap_or(request.suite);
            response.agreed = Some(Agreed { managed, suite });
        }
        Some(v20::encode_open(PayloadType::OpenResponse, &response.encode()))
    }

    fn half(&mut self, suite: Suite, managed: u32, request: &OpenRequest) {
        let exchange = Exchange {
            suite,
            console: request.console,
            managed,
            console_random: [0; 16],
            managed_random: self.random.bytes(),
            guid: [7; 16],
            role: 0,
            name: Vec::new(),
        };
        let half = Half { exchange, open_privilege: request.privilege, proved: false };
        self.halves.insert(managed, half);
    }

    fn rakp1(&mut self, payload: &[u8]) -> Option<Vec<u8>> {
        let one = Rakp1::decode(payload).unwrap();
        let password = self.password();
        let odd = self.odd.clone();
        let half = self.halves.get_mut(&one.managed)?;
        half.exchange.console_random = one.random;
        half.exchange.role = one.role;
        half.exchange.name = one.name.clone();
        half.proved = true;
        let mut two =
            Rakp2 { tag: one.tag, status: Status::OK, console: half.exchange.console, proof: None };
        if one.name != USER.as_bytes() || odd.no_name_only && one.role & NAME_ONLY != 0 {
            two.status = Status::UNAUTHORIZED_NAME;
        } else if odd.strict && one.role & 0x0f > odd.privilege {
            two.status = Status::UNAUTHORIZED_ROLE;
        } else {
            let mut code = half.exchange.rakp2(&password).to_vec();
            code.extend(odd.long_rakp2.then_some(0));
            two.proof = Some(Rakp2Proof {
                random: half.exchange.managed_random,
                guid: half.exchange.guid,
                code,
            });
        }
        Some(v20::encode_open(PayloadType::Rakp2, &two.encode()))
    }

    fn rakp3(&mut self, payload: &[u8]) -> Option<Vec<u8>> {
        let three = Rakp3::decode(payload).unwrap();
        let password = self.password();
        // A second RAKP 3 of the same session is met with silence, as by many firmwares.
        let half = self.halves.remove(&three.managed).filter(|half| half.proved)?;
        if three.status != Status::OK {
            self.closed.push(three.managed);
            return None;
        }
        let exchange = &half.exchange;
        let role = if self.odd.open_privilege { half.open_privilege } else { exchange.role };
        let mut four = Rakp4 {
            tag: three.tag,
            status: Status::OK,
            console: exchange.console,
            check: Vec::new(),
        };
        if three.code[..] != exchange.rakp3(&password, role)[..] {
            four.status = Status::INTEGRITY_CHECK;
        } else {
            let keys = exchange.keys(&password, self.odd.kg.as_ref(), role);
            four.check = keys.rakp4().to_vec();
            // Console and managed change places: it is the other end.
            let seal = V20 {
                keys,
                console: exchange.managed,
                managed: exchange.console,
                sequence: 0,
                window: Window::default(),
                quirks: Quirks::NONE,
            };
            self.sessions.insert(exchange.managed, Seal::V20(seal));
        }
        Some(v20::encode_open(PayloadType::Rakp4, &four.encode()))
    }

    fn within(&mut self, session: u32, datagram: &[u8]) -> Option<Vec<u8>> {
        let (kind, _, payload) = self.sessions.get_mut(&session)?.unwrap(datagram)?;
        if kind != PayloadType::Ipmi {
            self.payloads.push(payload);
            return None;
        }
        let message = Message::decode(&payload).unwrap();
        self.numbers.push(message.seq);
        if self.odd.deaf {
            return None;
        }
        let response = self.command(&message, session);
        let mut bytes = message.respond(&response).encode();
        if self.odd.bad_checksums {
            bytes[2] ^= 0xff;
        }
        let seal = self.sessions.get_mut(&session)?;
        let datagram = seal.wrap(PayloadType::Ipmi, &bytes, &mut self.random);
        if self.closed.contains(&session) {
            self.sessions.remove(&session);
        }
        Some(datagram)
    }

    /// A payload of SOL from the BMC.
    pub fn send(&mut self, payload: &[u8]) -> Vec<u8> {
        let seal = self.sessions.values_mut().next().unwrap();
        seal.wrap(PayloadType::Sol, payload, &mut self.random)
    }

    /// A message that nobody asked for, or that a controller behind it answers.
    pub fn say(&mut self, message: &Message) -> Vec<u8> {
        let seal = self.sessions.values_mut().next().unwrap();
        seal.wrap(PayloadType::Ipmi, &message.encode(), &mut self.random)
    }

    fn command(&mut self, message: &Message, session: u32) -> Response {
        let code = |code: u8| Response { completion: Completion(code), data: Vec::new() };
        let ok = |data: &[u8]| Response { completion: Completion::OK, data: data.to_vec() };
        let first = message.data.first().copied();
        if message.netfn == NetFn::APP && message.command == 0x3b {
            return match first {
                Some(level) if level > self.odd.privilege => code(0x81),
                Some(level) => ok(&[level]),
                None => code(0xc7),
            };
        }
        if message.netfn == NetFn::APP && message.command == 0x3c {
            let Some(id) = message.data.first_chunk().copied() else { return code(0xc7) };
            let id = u32::from_le_bytes(id);
            if id != session && self.sessions.remove(&id).is_none() {
                return code(0x87);
            }
            self.closed.push(id);
            return ok(&[]);
        }
        if !self.odd.first.is_empty() {
            return code(self.odd.first.remove(0));
        }
        self.done.push((message.netfn.0, message.command, first));
        if message.netfn == NetFn::APP && message.command == 0x34 {
            return ok(&[]);
        }
        ok(&message.data)
    }

    fn legacy(&mut self, rest: &[u8], datagram: &[u8]) -> Vec<Vec<u8>> {
        let Ok(packet) = v15::Packet::decode(rest) else { return Vec::new() };
        let password = self.password();
        let message = Message::decode(packet.payload).unwrap();
        let answer = |auth, session, sequence, code: u8, data: &[u8]| {
            let response = Response { completion: Completion(code), data: data.to_vec() };
            let bytes = message.respond(&response).encode();
            vec![v15::encode(auth, session, sequence, &password, &bytes)]
        };
        match (packet.session, message.command) {
            (0, 0x38) if self.odd.v15_only && message.data[0] & 0x80 != 0 => {
                answer(Auth::None, 0, 0, 0xcc, &[])
            }
            (0, 0x38) => {
                let v20 = if self.odd.v15_only { 0 } else { 0x80 };
                answer(Auth::None, 0, 0, 0, &[1, 0x15 | v20, 0, v20 >> 6, 0, 0, 0, 0])
            }
            (0, 0x39) if &message.data[1..6] != USER.as_bytes() => {
                answer(Auth::None, 0, 0, 0x81, &[])
            }
            (0, 0x39) => {
                self.challenge = self.random.id();
                let mut data = self.challenge.to_le_bytes().to_vec();
                data.extend([9; 16]);
                answer(Auth::None, 0, 0, 0, &data)
            }
            (id, 0x3a) if id == self.challenge => {
                if !packet.is_authentic(&password) || message.data[2..18] != [9; 16] {
                    return Vec::new();
                }
                let outbound = u32::from_le_bytes(message.data[18..22].try_into().unwrap());
                let session = self.random.id();
                let auth = if self.odd.no_per_message { Auth::None } else { packet.auth };
                let mut data = vec![auth.number()];
                data.extend(session.to_le_bytes());
                data.extend([5, 0, 0, 0, 4]);
                let seal = V15 {
                    session,
                    auth,
                    password: password.clone(),
                    sequence: outbound.wrapping_sub(1),
                    window: Window::default(),
                    quirks: Quirks::NONE,
                };
                self.sessions.insert(session, Seal::V15(seal));
                answer(packet.auth, id, 0, 0, &data)
            }
            (id, _) => self.within(id, datagram).into_iter().collect(),
        }
    }
}
