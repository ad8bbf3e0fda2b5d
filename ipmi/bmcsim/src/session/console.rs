//! A console for tests: it logs in to a [`Machine`] in memory, and does each thing once.

use std::net::SocketAddr;
use std::time::Instant;

use koboshi_ipmi::crypto::{Exchange, Keys, Suite, same};
use koboshi_ipmi::wire::rakp::{OpenRequest, OpenResponse, Rakp1, Rakp2, Rakp3, Rakp4, Status};
use koboshi_ipmi::wire::v20::{Packet, PayloadType, encode_open, encode_sealed};
use koboshi_ipmi::{Kg, Message, Password, Request, Response};

use crate::Machine;

/// Where consoles of tests are.
pub(crate) fn peer() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], 40_000))
}

/// What a console says of itself.
#[derive(Clone)]
pub(crate) struct Login {
    pub suite: Suite,
    pub name: &'static str,
    pub password: &'static str,
    pub role: u8,
    pub privilege: u8,
    pub kg: Option<Kg>,
}

impl Login {
    pub(crate) fn of(suite: Suite) -> Login {
        Login { suite, name: "admin", password: "secret", role: 0x14, privilege: 0, kg: None }
    }
}

/// A console that is logged in.
pub(crate) struct Console {
    pub keys: Keys,
    pub managed: u32,
    pub sequence: u32,
    pub seq: u8,
}

/// What a BMC says to this now, as one datagram.
pub(crate) fn exchange(machine: &mut Machine, bytes: &[u8], now: Instant) -> Option<Vec<u8>> {
    machine.receive(peer(), bytes, now);
    machine.transmit().map(|datagram| datagram.bytes)
}

/// The payload of an answer outside a session.
pub(crate) fn opening(
    machine: &mut Machine,
    kind: PayloadType,
    payload: &[u8],
    now: Instant,
) -> Option<Vec<u8>> {
    let answer = exchange(machine, &encode_open(kind, payload), now)?;
    Some(Packet::decode(&answer[4..]).unwrap().payload.to_vec())
}

impl Console {
    /// Logs in, or says what was refused.
    pub(crate) fn log_in(
        machine: &mut Machine,
        login: &Login,
        now: Instant,
    ) -> Result<Console, Status> {
        let suite = login.suite.into();
        let open = OpenRequest { tag: 1, privilege: login.privilege, console: 0xc0de, suite };
        let answer = opening(machine, PayloadType::OpenRequest, &open.encode(), now).unwrap();
        let answer = OpenResponse::decode(&answer).unwrap();
        let agreed = answer.agreed.ok_or(answer.status)?;
        assert_eq!(agreed.suite, suite);
        let one = Rakp1 {
            tag: 2,
            managed: agreed.managed,
            random: [7; 16],
            role: login.role,
            name: login.name.as_bytes().to_vec(),
        };
        let two = opening(machine, PayloadType::Rakp1, &one.encode(), now).unwrap();
        let two = Rakp2::decode(&two).unwrap();
        let proof = two.proof.ok_or(two.status)?;
        let exchange = Exchange {
            suite: login.suite,
            console: 0xc0de,
            managed: agreed.managed,
            console_random: [7; 16],
            managed_random: proof.random,
            guid: proof.guid,
            role: login.role,
            name: one.name,
        };
        let password = Password::new(login.password).unwrap();
        let code = exchange.rakp3(&password, login.role).to_vec();
        let three = Rakp3 { tag: 3, status: Status::OK, managed: agreed.managed, code };
        let four = opening(machine, PayloadType::Rakp3, &three.encode(), now).unwrap();
        let four = Rakp4::decode(&four).unwrap();
        if four.status != Status::OK {
            return Err(four.status);
        }
        let keys = exchange.keys(&password, login.kg.as_ref(), login.role);
        if !same(keys.rakp4(), &four.check) {
            return Err(Status::INTEGRITY_CHECK);
        }
        assert!(same(&exchange.rakp2(&password), &proof.code));
        Ok(Console { keys, managed: agreed.managed, sequence: 0, seq: 0 })
    }

    /// A payload as a datagram.
    pub(crate) fn seal(&mut self, kind: PayloadType, payload: &[u8]) -> Vec<u8> {
        self.sequence += 1;
        encode_sealed(kind, self.managed, self.sequence, payload, &self.keys, [9; 16])
    }

    /// The payload of a datagram.
    pub(crate) fn open(&self, bytes: &[u8]) -> (PayloadType, Vec<u8>) {
        let packet = Packet::decode(&bytes[4..]).unwrap();
        assert_eq!(packet.session, 0xc0de);
        (packet.kind, packet.open(&self.keys).unwrap())
    }

    /// Asks. `None`: no answer.
    pub(crate) fn ask(
        &mut self,
        machine: &mut Machine,
        request: &Request,
        now: Instant,
    ) -> Option<Response> {
        self.seq = (self.seq + 1) & 0x3f;
        let bytes = self.seal(PayloadType::Ipmi, &Message::request(request, self.seq).encode());
        let answer = exchange(machine, &bytes, now)?;
        let (kind, payload) = self.open(&answer);
        assert_eq!(kind, PayloadType::Ipmi);
        let message = Message::decode(&payload).unwrap();
        assert_eq!((message.seq, message.command), (self.seq, request.command));
        message.response()
    }
}
