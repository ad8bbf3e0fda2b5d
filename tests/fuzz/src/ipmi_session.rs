//! One BMC's session, fed by a BMC that knows the password and keeps to nothing: it opens sessions as it
//! should or nearly, says what it likes in them, is silent, repeats, and somebody else sends what he likes.
//! The console opens no session that was not proved, sends within bounds, and every request comes to an end.

#![no_main]

use std::sync::Arc;
use std::time::{Duration, Instant};

use koboshi_fuzz::Input;
use koboshi_ipmi::crypto::{Exchange, Keys, Suite};
use koboshi_ipmi::message::{Completion, Message, Response};
use koboshi_ipmi::session::{Access, Event, Learned, Random, Session};
use koboshi_ipmi::wire::rakp::{
    Agreed, Algorithms, OpenRequest, OpenResponse, Rakp1, Rakp2, Rakp2Proof, Rakp3, Rakp4, Status,
};
use koboshi_ipmi::wire::rmcp::Rmcp;
use koboshi_ipmi::wire::v15;
use koboshi_ipmi::wire::v20::{self, PayloadType};
use koboshi_ipmi::{NetFn, Password, Request};
use libfuzzer_sys::fuzz_target;

/// A BMC's side of one session at a time.
#[derive(Default)]
struct Adversary {
    exchange: Option<Exchange>,
    keys: Option<Keys>,
    sequence: u32,
    /// RAKP 4 went out as it should.
    proved: u32,
}

fn password() -> Password {
    Password::new("secret").expect("six bytes")
}

impl Adversary {
    fn answer(&mut self, datagram: &[u8], input: &mut Input<'_>) -> Vec<u8> {
        let Ok(Rmcp::Ipmi(rest)) = Rmcp::decode(datagram) else { panic!("{datagram:?}") };
        if !v20::is_rmcp_plus(rest) {
            return legacy(rest, input);
        }
        let packet = v20::Packet::decode(rest).expect("what the console sends");
        match packet.kind {
            PayloadType::OpenRequest => self.open(packet.payload, input),
            PayloadType::Rakp1 => self.rakp2(packet.payload, input),
            PayloadType::Rakp3 => self.rakp4(packet.payload, input),
            _ => self.within(&packet, input),
        }
    }

    fn open(&mut self, payload: &[u8], input: &mut Input<'_>) -> Vec<u8> {
        let open = OpenRequest::decode(payload).expect("what the console sends");
        let suites = [3, 17].into_iter().filter_map(Suite::by_id);
        let suite = suites.into_iter().find(|suite| Algorithms::from(*suite) == open.suite);
        let suite = suite.expect("a suite that was not asked for by number");
        let mut response = OpenResponse {
            tag: open.tag,
            status: Status::OK,
            privilege: open.privilege,
            console: open.console,
            agreed: Some(Agreed { managed: 7, suite: open.suite }),
        };
        match input.byte() % 8 {
            0 => (response.status, response.agreed) = (Status(input.byte().max(1)), None),
            1 => response.tag = input.byte(),
            2 => response.console = input.word(),
            3 => {
                let suite = Algorithms { confidentiality: input.byte() & 1, ..open.suite };
                response.agreed = Some(Agreed { managed: input.word(), suite });
            }
            _ => {}
        }
        self.exchange = Some(Exchange {
            suite,
            console: open.console,
            managed: response.agreed.map_or(0, |agreed| agreed.managed),
            console_random: [0; 16],
            managed_random: [2; 16],
            guid: [3; 16],
            role: 0,
            name: Vec::new(),
        });
        v20::encode_open(PayloadType::OpenResponse, &response.encode())
    }

    fn rakp2(&mut self, payload: &[u8], input: &mut Input<'_>) -> Vec<u8> {
        let one = Rakp1::decode(payload).expect("what the console sends");
        let exchange = self.exchange.as_mut().expect("it comes after Open Session");
        (exchange.console_random, exchange.role) = (one.random, one.role);
        exchange.name = one.name;
        let mut code = exchange.rakp2(&password()).to_vec();
        let mut two =
            Rakp2 { tag: one.tag, status: Status::OK, console: exchange.console, proof: None };
        match input.byte() % 8 {
            0 => {
                two.status = Status(input.byte().max(1));
                return v20::encode_open(PayloadType::Rakp2, &two.encode());
            }
            1 => two.tag = input.byte(),
            2 => code.truncate(usize::from(input.byte())),
            3 => code.extend_from_slice(input.take(40)),
            _ => {}
        }
        two.proof = Some(Rakp2Proof { random: [2; 16], guid: [3; 16], code });
        v20::encode_open(PayloadType::Rakp2, &two.encode())
    }

    fn rakp4(&mut self, payload: &[u8], input: &mut Input<'_>) -> Vec<u8> {
        let three = Rakp3::decode(payload).expect("what the console sends");
        let exchange = self.exchange.as_ref().expect("it comes after Open Session");
        let keys = exchange.keys(&password(), None, exchange.role);
        let mut four = Rakp4 {
            tag: three.tag,
            status: Status::OK,
            console: exchange.console,
            check: keys.rakp4().to_vec(),
        };
        match input.byte() % 8 {
            0 => four.status = Status(input.byte().max(1)),
            1 => {
                let length = usize::from(input.byte() % 40);
                four.check = input.take(length).to_vec();
            }
            2 => four.console = input.word(),
            _ => {}
        }
        let right = four.status == Status::OK && four.check == keys.rakp4();
        self.proved += u32::from(right && four.console == exchange.console);
        (self.keys, self.sequence) = (Some(keys), 0);
        v20::encode_open(PayloadType::Rakp4, &four.encode())
    }

    /// A command's answer, or whatever else it likes to say in the session.
    fn within(&mut self, packet: &v20::Packet<'_>, input: &mut Input<'_>) -> Vec<u8> {
        let (Some(exchange), Some(keys)) = (&self.exchange, &self.keys) else { return Vec::new() };
        let Ok(payload) = packet.open(keys) else { return Vec::new() };
        let asked = Message::decode(&payload).expect("what the console sends");
        let length = usize::from(input.byte() % 64);
        let (kind, payload) = match input.byte() % 8 {
            0 => (PayloadType::Ipmi, input.take(length).to_vec()),
            1 => (PayloadType::Sol, input.take(length).to_vec()),
            2 => (PayloadType::Other(input.byte()), input.take(length).to_vec()),
            choice => {
                let code = if choice < 6 { 0 } else { input.byte() };
                let data = input.take(length).to_vec();
                let response = Response { completion: Completion(code), data };
                (PayloadType::Ipmi, asked.respond(&response).encode())
            }
        };
        self.sequence = self.sequence.wrapping_add(u32::from(input.byte() % 4));
        v20::encode_sealed(kind, exchange.console, self.sequence, &payload, keys, [5; 16])
    }
}

/// What a silent BMC is asked outside a session.
fn legacy(rest: &[u8], input: &mut Input<'_>) -> Vec<u8> {
    let packet = v15::Packet::decode(rest).expect("what the console sends");
    let asked = Message::decode(packet.payload).expect("what the console sends");
    let code = if input.byte().is_multiple_of(4) { input.byte() } else { 0 };
    let length = usize::from(input.byte() % 32);
    let response = Response { completion: Completion(code), data: input.take(length).to_vec() };
    let bytes = asked.respond(&response).encode();
    v15::encode(packet.auth, packet.session, input.word() % 4, &password(), &bytes)
}

fuzz_target!(|bytes: &[u8]| {
    let input = &mut Input(bytes);
    let access = Arc::new(Access::new("bmc", "admin", password()));
    let mut session = Session::new(access, Learned::default(), Random::seeded(1));
    let mut bmc = Adversary::default();
    let (start, mut asked, mut answered) = (Instant::now(), 0, 0);
    let (mut now, mut opened, mut sent) = (start, 0u32, 0usize);
    let mut steps = 0;
    loop {
        while let Some(event) = session.poll_event() {
            match event {
                Event::Wanted => session.open(now),
                Event::Answer(..) => answered += 1,
                Event::Opened(facts) => {
                    opened += u32::from(facts.suite.is_some());
                    // Under IPMI 1.5 a session needs the password as well.
                    assert!(opened <= bmc.proved, "a session that nobody proved");
                }
                _ => {}
            }
        }
        if let Some(datagram) = session.poll_transmit() {
            sent += 1;
            assert!(datagram.len() < 400);
            // A BMC that is silent, or answers once, or twice.
            if input.more() {
                let times = input.byte() % 8;
                if times != 0 {
                    let answer = bmc.answer(&datagram, input);
                    session.handle(&answer, now);
                    if times == 1 {
                        session.handle(&answer, now);
                    }
                }
            }
            continue;
        }
        steps += 1;
        if !input.more() {
            break;
        }
        match input.byte() % 8 {
            0 | 1 => {
                let netfn = NetFn(input.byte() & 0x3e);
                session.ask(Request::new(netfn, input.byte(), [1, 2, 3]), now);
                asked += 1;
            }
            2 => {
                let length = usize::from(input.byte());
                session.handle(input.take(length), now);
            }
            3 => session.hold(),
            4 => session.release(now),
            5 if input.byte() == 0 => session.close(now),
            5 => now += Duration::from_millis(u64::from(input.short())),
            6 => session.handle_unreachable("gone".to_string(), now),
            _ => {
                now = session.deadline().map_or(now, |deadline| deadline.max(now));
                session.handle_timeout(now);
            }
        }
    }
    assert!(sent <= 64 * (steps + asked + 1), "{sent} datagrams in {steps} steps");
    // Silence from now on: everything that was asked comes to an end.
    for _ in 0..(200 + 200 * asked) {
        while let Some(event) = session.poll_event() {
            match event {
                Event::Wanted => session.open(now),
                Event::Answer(..) => answered += 1,
                _ => {}
            }
        }
        while session.poll_transmit().is_some() {}
        if answered == asked {
            return;
        }
        now = session.deadline().map_or(now, |deadline| deadline.max(now));
        session.handle_timeout(now);
    }
    panic!("{answered} of {asked} answered: {session:?}");
});
