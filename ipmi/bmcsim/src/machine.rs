//! One BMC's port without sockets: datagrams and a clock in, datagrams and a deadline out. What networks do to
//! datagrams on purpose happens here too.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use koboshi_ipmi::wire::rmcp::{self, Rmcp};
use koboshi_ipmi::wire::v20::is_rmcp_plus;

use crate::bmc::Bmc;
use crate::config::Config;
use crate::faults::{Chance, Mischief};
use crate::session::{v15, v20};

/// A datagram that nothing follows is not overtaken for longer than this.
const OVERTAKING: Duration = Duration::from_millis(20);

/// A datagram, and where it is from or goes to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Datagram {
    /// The console's end.
    pub peer: SocketAddr,
    /// What it carries.
    pub bytes: Vec<u8>,
}

/// A BMC behind its port.
#[derive(Debug)]
pub struct Machine {
    /// Its state.
    pub bmc: Bmc,
    chance: Chance,
    inbound: Lane,
    outbound: Lane,
    ready: VecDeque<Datagram>,
}

/// One direction of a network that is not perfect.
#[derive(Debug, Default)]
struct Lane {
    overtaken: Option<(Instant, Datagram)>,
    late: VecDeque<(Instant, Datagram)>,
}

impl Lane {
    /// What comes out as this goes in.
    fn pass(
        &mut self,
        datagram: Datagram,
        mischief: &Mischief,
        slow: Duration,
        chance: &mut Chance,
        now: Instant,
    ) -> Vec<Datagram> {
        if chance.percent(mischief.loss) {
            return Vec::new();
        }
        let mut out = Vec::with_capacity(1);
        if chance.percent(mischief.duplicates) {
            out.push(datagram.clone());
        }
        if self.overtaken.is_none() && chance.percent(mischief.reordering) {
            self.overtaken = Some((now + OVERTAKING, datagram));
        } else {
            out.push(datagram);
            out.extend(self.overtaken.take().map(|(_, datagram)| datagram));
        }
        if slow.is_zero() {
            return out;
        }
        self.late.extend(out.into_iter().map(|datagram| (now + slow, datagram)));
        Vec::new()
    }

    /// What has waited long enough.
    fn due(&mut self, now: Instant) -> Vec<Datagram> {
        let mut out = Vec::new();
        while let Some((_, datagram)) = self.late.pop_front_if(|(at, _)| *at <= now) {
            out.push(datagram);
        }
        out.extend(self.overtaken.take_if(|(at, _)| *at <= now).map(|(_, datagram)| datagram));
        out
    }

    fn deadline(&self) -> Option<Instant> {
        let overtaken = self.overtaken.as_ref().map(|(at, _)| *at);
        overtaken.into_iter().chain(self.late.iter().map(|(at, _)| *at)).min()
    }
}

impl Machine {
    /// A BMC that was just plugged in.
    pub fn new(config: Config, now: Instant) -> Machine {
        Machine {
            chance: Chance::new(config.seed),
            bmc: Bmc::new(config, now),
            inbound: Lane::default(),
            outbound: Lane::default(),
            ready: VecDeque::new(),
        }
    }

    /// A datagram came.
    pub fn receive(&mut self, peer: SocketAddr, bytes: &[u8], now: Instant) {
        if self.bmc.faults.dead {
            return;
        }
        if self.bmc.faults.single && !self.outbound.late.is_empty() {
            self.bmc.missed += 1;
            return;
        }
        if self.bmc.faults.inbound.is_none() && self.inbound.overtaken.is_none() {
            self.take(peer, bytes, now);
        } else {
            let datagram = Datagram { peer, bytes: bytes.to_vec() };
            let mischief = self.bmc.faults.inbound;
            let chance = &mut self.chance;
            for datagram in self.inbound.pass(datagram, &mischief, Duration::ZERO, chance, now) {
                self.take(datagram.peer, &datagram.bytes, now);
            }
        }
        self.bmc.poll(now);
        self.flush(now);
    }

    fn take(&mut self, peer: SocketAddr, bytes: &[u8], now: Instant) {
        let bmc = &mut self.bmc;
        let answer = match Rmcp::decode(bytes) {
            Ok(Rmcp::Ping { tag }) if !bmc.faults.no_ping => Some(rmcp::pong(tag)),
            Ok(Rmcp::Ipmi(rest)) if is_rmcp_plus(rest) => v20::receive(bmc, peer, rest, now),
            Ok(Rmcp::Ipmi(rest)) => v15::receive(bmc, peer, rest, now),
            _ => None,
        };
        if let Some(bytes) = answer {
            self.send(Datagram { peer, bytes }, now);
        }
        self.flush(now);
    }

    /// Seals and sends what handlers left to be sent.
    fn flush(&mut self, now: Instant) {
        for payload in self.bmc.take_outbox() {
            let Some(session) = self.bmc.sessions.get_mut(payload.session) else { continue };
            let peer = session.peer;
            if let Some(bytes) = session.seal(payload.kind, &payload.bytes) {
                self.send(Datagram { peer, bytes }, now);
            }
        }
    }

    fn send(&mut self, datagram: Datagram, now: Instant) {
        let faults = &self.bmc.faults;
        if faults.dead {
            return;
        }
        if faults.outbound.is_none() && faults.slow.is_zero() && self.outbound.overtaken.is_none() {
            self.ready.push_back(datagram);
            return;
        }
        let chance = &mut self.chance;
        let out = self.outbound.pass(datagram, &faults.outbound, faults.slow, chance, now);
        self.ready.extend(out);
    }

    /// Lets fire what is due.
    pub fn poll(&mut self, now: Instant) {
        for datagram in self.inbound.due(now) {
            self.take(datagram.peer, &datagram.bytes, now);
        }
        self.bmc.poll(now);
        self.flush(now);
        self.ready.extend(self.outbound.due(now));
    }

    /// When to poll next, if nothing comes before.
    pub fn deadline(&self) -> Option<Instant> {
        [self.bmc.deadline(), self.inbound.deadline(), self.outbound.deadline()]
            .into_iter()
            .flatten()
            .min()
    }

    /// The next datagram to send.
    pub fn transmit(&mut self) -> Option<Datagram> {
        self.ready.pop_front()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn machine() -> (Machine, Instant) {
        let now = Instant::now();
        (Machine::new(Config::default(), now), now)
    }

    fn peer() -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], 9))
    }

    #[test]
    fn pings() {
        let (mut machine, now) = machine();
        machine.receive(peer(), &rmcp::ping(5), now);
        assert_eq!(machine.transmit().unwrap().bytes, rmcp::pong(5));
        machine.bmc.faults.no_ping = true;
        machine.receive(peer(), &rmcp::ping(5), now);
        machine.bmc.faults = Default::default();
        machine.bmc.faults.dead = true;
        machine.receive(peer(), &rmcp::ping(5), now);
        assert_eq!(machine.transmit(), None);
    }

    #[test]
    fn mischief_loses_doubles_and_reorders_as_often_as_asked() {
        let (mut machine, mut now) = machine();
        machine.bmc.faults.outbound = Mischief { loss: 10.0, duplicates: 10.0, reordering: 10.0 };
        let mut seen = Vec::new();
        for tag in 0..200 {
            machine.receive(peer(), &rmcp::ping(tag), now);
            while let Some(datagram) = machine.transmit() {
                seen.push(datagram.bytes[9]);
            }
        }
        now += OVERTAKING;
        machine.poll(now);
        seen.extend(machine.transmit().map(|datagram| datagram.bytes[9]));
        assert_eq!(machine.deadline(), None);
        let mut sorted = seen.clone();
        sorted.sort_unstable();
        assert_ne!(seen, sorted, "some are overtaken");
        sorted.dedup();
        assert!((150..200).contains(&sorted.len()), "{} are not lost", sorted.len());
        assert!(seen.len() > sorted.len(), "some come twice");
    }

    #[test]
    fn slow_answers_are_late_and_in_order() {
        let (mut machine, now) = machine();
        machine.bmc.faults.slow = Duration::from_millis(300);
        for tag in 0..3 {
            machine.receive(peer(), &rmcp::ping(tag), now);
        }
        assert_eq!(machine.transmit(), None);
        let due = machine.deadline().unwrap();
        assert_eq!(due, now + Duration::from_millis(300));
        machine.poll(due);
        for tag in 0..3 {
            assert_eq!(machine.transmit().unwrap().bytes, rmcp::pong(tag));
        }
    }

    proptest! {
        #[test]
        fn any_bytes(datagrams in proptest::collection::vec(any::<Vec<u8>>(), 0..8)) {
            let (mut machine, now) = machine();
            for bytes in datagrams {
                machine.receive(peer(), &bytes, now);
                for header in [&[6, 0, 0xff, 7][..], &[6, 0, 0xff, 7, 6, 0x10], &[6, 0, 0xff, 7, 0]] {
                    machine.receive(peer(), &[header, &bytes].concat(), now);
                }
            }
            prop_assert_eq!(machine.bmc.sessions.open().count(), 0);
        }

        /// Commands of every number with any data, as an administrator would send them.
        #[test]
        fn any_command(netfn in (0u8..0x18).prop_map(|n| n * 2), command: u8, data: Vec<u8>) {
            let now = Instant::now();
            let mut bmc = Bmc::new(Config::default(), now);
            let request = koboshi_ipmi::Request::new(koboshi_ipmi::NetFn(netfn), command, data);
            bmc.ask(&request, now);
            bmc.poll(now + Duration::from_secs(7200));
        }
    }
}
