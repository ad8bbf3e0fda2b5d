//! Who in a network is a BMC: RMCP's ping and Get Channel Authentication Capabilities, both, because firmware
//! answers one, the other or both (ASF 2.0 §3.2.4; IPMI 2.0 §22.13 and table 22-15). Neither needs an account.
//!
//! The scan is handed a clock and answers; it hands back what to send and who was found.

use std::collections::{BTreeMap, VecDeque};
use std::net::{Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use koboshi_ipmi::commands::{authentication, channel};
use koboshi_ipmi::wire::rmcp::{self, Rmcp};
use koboshi_ipmi::wire::v15::{self, Auth};
use koboshi_ipmi::{Completion, Message, NetFn, Password, Request};
use serde::{Deserialize, Serialize};

use crate::site::Cidr;

/// The widest network that is scanned.
pub const WIDEST: u8 = 16;
/// Addresses asked in a second. A thousand small datagrams are nothing to a switch, and its neighbour
/// table holds what does not answer for a few seconds each.
const PACE: u32 = 500;
/// Each address is asked so often while it is silent.
const TRIES: usize = 3;
/// From the last question to the end.
const PATIENCE: Duration = Duration::from_secs(2);
/// Asks for the data of 2.0 too.
const EXTENDED: u8 = 0x80;

/// A BMC.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Found {
    /// It answers pings.
    pub ping: bool,
    /// What it says of how it lets people in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub says: Option<Capabilities>,
}

/// Get Channel Authentication Capabilities, as far as it concerns whoever is about to log in.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Capabilities {
    /// It speaks IPMI 2.0.
    pub v20: bool,
    /// Authentication types of IPMI 1.5: bit 0 none, 2 MD5, 4 password.
    pub types: u8,
    /// It lets anybody in who names no account and no password.
    pub anonymous: bool,
    /// It has a key of its own (K_g).
    pub key: bool,
}

impl Capabilities {
    fn of(data: &[u8]) -> Option<Capabilities> {
        let said = authentication::Capabilities::decode(data).ok()?;
        Some(Capabilities {
            v20: said.v20,
            types: said.ways,
            anonymous: said.anonymous,
            key: said.kg,
        })
    }

    /// For a terminal: what is careless in it.
    pub fn notes(&self) -> Vec<&'static str> {
        let mut notes = Vec::new();
        if self.anonymous {
            notes.push("lets anybody in without an account");
        }
        if self.types & Auth::None.bit() != 0 {
            notes.push("takes IPMI 1.5 without authentication");
        }
        if self.key {
            notes.push("has a key of its own (kg-file)");
        }
        notes
    }
}

/// See the module.
pub struct Scan {
    network: Cidr,
    port: u16,
    /// Who is still to be asked, and how often each was.
    waiting: VecDeque<(Ipv4Addr, usize)>,
    asked: usize,
    total: usize,
    begun: Instant,
    /// When the last question went out.
    last: Instant,
    found: BTreeMap<Ipv4Addr, Found>,
}

impl Scan {
    /// Of every address a host can have there.
    pub fn new(network: Cidr, port: u16, now: Instant) -> Scan {
        let all = network.network().to_bits()..=network.broadcast().to_bits();
        let hosts = all.map(Ipv4Addr::from_bits).filter(|address| network.is_host(*address));
        let waiting: VecDeque<_> = hosts.map(|address| (address, 0)).collect();
        let total = waiting.len() * TRIES;
        let found = BTreeMap::new();
        Scan { network, port, waiting, asked: 0, total, begun: now, last: now, found }
    }

    /// What to send now.
    pub fn due(&mut self, now: Instant) -> Vec<(SocketAddr, Vec<u8>)> {
        let elapsed = now.duration_since(self.begun).as_millis();
        let may = usize::try_from(elapsed * u128::from(PACE) / 1000).unwrap_or(usize::MAX);
        let mut out = Vec::new();
        // A clock that jumped must not let everything go at once.
        while self.asked <= may && out.len() < 2 * PACE as usize / 10 {
            let Some((address, tries)) = self.waiting.pop_front() else { break };
            self.asked += 1;
            self.last = now;
            if tries + 1 < TRIES {
                self.waiting.push_back((address, tries + 1));
            }
            let known = self.found.get(&address);
            let to = SocketAddr::from((address, self.port));
            if known.is_none_or(|known| !known.ping) {
                out.push((to, rmcp::ping(u8::try_from(tries).unwrap_or(0))));
            }
            if known.is_none_or(|known| known.says.is_none()) {
                out.push((to, question(tries)));
            }
        }
        out
    }

    /// An answer. The address, if it is news.
    pub fn receive(&mut self, from: SocketAddr, datagram: &[u8]) -> Option<Ipv4Addr> {
        let SocketAddr::V4(from) = from else { return None };
        let address = *from.ip();
        if from.port() != self.port || !self.network.contains(address) {
            return None;
        }
        let found = match Rmcp::decode(datagram).ok()? {
            Rmcp::Pong { ipmi: true, .. } => Found { ping: true, says: None },
            Rmcp::Ipmi(rest) => Found { ping: false, says: Some(answer(rest)?) },
            _ => return None,
        };
        let known = self.found.entry(address).or_default();
        let before = known.clone();
        known.ping |= found.ping;
        // Asked again without the bit of 2.0, it says less than it did.
        if known.says.as_ref().is_none_or(|says| !says.v20) {
            known.says = found.says.or(known.says.take());
        }
        (*known != before).then_some(address)
    }

    /// Whether all had their chance.
    pub fn is_over(&self, now: Instant) -> bool {
        self.waiting.is_empty() && now.duration_since(self.last) >= PATIENCE
    }

    /// How far it is: questions asked, and all there are.
    pub fn progress(&self) -> (usize, usize) {
        (self.asked, self.total)
    }

    /// Who was found.
    pub fn found(&self) -> &BTreeMap<Ipv4Addr, Found> {
        &self.found
    }
}

/// The second try goes without the bit of 2.0: firmware of 1.5 alone may refuse it.
fn question(tries: usize) -> Vec<u8> {
    let channel = if tries == 1 { channel::PRESENT } else { channel::PRESENT | EXTENDED };
    // As an operator: some boards refuse to say what an administrator may.
    let request = Request::new(NetFn::APP, authentication::CAPABILITIES, [channel, 3]);
    let message = Message::request(&request, u8::try_from(tries).unwrap_or(0));
    match Password::new("") {
        Ok(none) => v15::encode(Auth::None, 0, 0, &none, &message.encode()),
        Err(_) => Vec::new(),
    }
}

fn answer(rest: &[u8]) -> Option<Capabilities> {
    let message = Message::decode(v15::Packet::decode(rest).ok()?.payload).ok()?;
    if message.netfn != NetFn::APP.answer() || message.command != authentication::CAPABILITIES {
        return None;
    }
    let response = message.response()?;
    match response.completion {
        Completion::OK => Capabilities::of(&response.data),
        // It is a BMC that does not like the question.
        _ => Some(Capabilities::default()),
    }
}

#[cfg(test)]
mod tests {
    use koboshi_ipmi::Response;
    use proptest::prelude::*;

    use super::*;

    fn scan(network: &str, now: Instant) -> Scan {
        Scan::new(network.parse().unwrap(), 623, now)
    }

    /// The answer of a BMC to one of our datagrams.
    fn answered(datagram: &[u8], completion: u8, data: &[u8]) -> Vec<u8> {
        let Ok(Rmcp::Ipmi(rest)) = Rmcp::decode(datagram) else { panic!("a question") };
        let message = Message::decode(v15::Packet::decode(rest).unwrap().payload).unwrap();
        let response = Response { completion: Completion(completion), data: data.to_vec() };
        let none = Password::new("").unwrap();
        v15::encode(Auth::None, 0, 0, &none, &message.respond(&response).encode())
    }

    #[test]
    fn everybody_is_asked_both_ways_at_a_pace_and_three_times() {
        let mut now = Instant::now();
        let mut scan = scan("10.78.0.0/24", now);
        let (mut sent, mut most) = (BTreeMap::new(), 0);
        while !scan.is_over(now) {
            let due = scan.due(now);
            most = most.max(due.len());
            for (to, _) in due {
                *sent.entry(to).or_insert(0) += 1;
            }
            now += Duration::from_millis(20);
        }
        assert_eq!(sent.len(), 254);
        assert!(sent.values().all(|times| *times == 2 * TRIES), "{sent:?}");
        assert!(most <= 24, "{most} datagrams within 20 ms");
    }

    #[test]
    fn a_ping_and_an_answer_are_each_enough_and_strangers_are_none() {
        let now = Instant::now();
        let mut scan = scan("10.78.0.0/30", now);
        let later = now + Duration::from_secs(1);
        let due = scan.due(later);
        let at = |last: u8| SocketAddr::from(([10, 78, 0, last], 623));
        let asked = &due.iter().find(|(to, data)| *to == at(2) && data[3] == 7).unwrap().1;
        assert_eq!(scan.receive(at(1), &rmcp::pong(0)), Some(Ipv4Addr::new(10, 78, 0, 1)));
        assert_eq!(scan.receive(at(1), &rmcp::pong(0)), None);
        let both = answered(asked, 0, &[1, 0x95, 0x21, 3, 0, 0, 0, 0]);
        assert!(scan.receive(at(2), &both).is_some());
        assert!(scan.receive(SocketAddr::from(([10, 78, 0, 3], 53)), &both).is_none());
        assert!(scan.receive(at(3), b"\x06\x00\xff\x07hello").is_none());
        let found = scan.found();
        assert_eq!(found.len(), 2);
        assert_eq!(found[&Ipv4Addr::new(10, 78, 0, 1)], Found { ping: true, says: None });
        let says = found[&Ipv4Addr::new(10, 78, 0, 2)].says.clone().unwrap();
        assert!(says.v20 && says.anonymous && says.key && says.notes().len() == 3, "{says:?}");
        // Who said all is not asked again; who only answered the ping is asked the other question.
        let again: Vec<_> = scan.due(later).into_iter().filter(|(to, _)| *to == at(2)).collect();
        assert!(again.iter().all(|(_, data)| data[3] == 6), "{again:?}");
    }

    #[test]
    fn a_board_of_1_5_refuses_the_first_question_and_answers_the_second() {
        let now = Instant::now();
        let mut scan = scan("10.78.0.1/32", now);
        let from = SocketAddr::from(([10, 78, 0, 1], 623));
        let first = answered(&question(0), 0xcc, &[]);
        assert!(scan.receive(from, &first).is_some());
        let second = answered(&question(1), 0, &[1, 0x14, 0, 0, 0, 0, 0, 0]);
        assert!(scan.receive(from, &second).is_some());
        let says = scan.found().values().next().unwrap().says.clone().unwrap();
        assert_eq!((says.v20, says.types), (false, 0x14));
    }

    proptest! {
        #[test]
        fn any_bytes(datagram in prop::collection::vec(any::<u8>(), 0..80)) {
            let mut scan = scan("10.78.0.1/32", Instant::now());
            scan.receive(SocketAddr::from(([10, 78, 0, 1], 623)), &datagram);
        }
    }
}
