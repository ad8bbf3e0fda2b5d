//! DISCOVER to ACK, the client's side (RFC 2131 §4.4): one program of one machine asks for an address,
//! with the time-outs of that program. Messages and a clock in; messages, an address or despair out.

use std::net::Ipv4Addr;
use std::time::Duration;

use koboshi_pxe::Mac;
use koboshi_pxe::dhcp::options::code;
use koboshi_pxe::dhcp::{MessageType, Packet};

use crate::firmware::{PROXY_WAIT, Speaker, Takes};

/// Client and server port.
pub const PORTS: (u16, u16) = (68, 67);

/// What a client was given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lease {
    /// Its address.
    pub address: Ipv4Addr,
    /// Who gave it (option 54).
    pub server: Ipv4Addr,
    /// Where the boot file is.
    pub next_server: Ipv4Addr,
    /// The boot file, by the header or option 67.
    pub file: String,
}

/// What comes of a message, or of a time-out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Nothing yet.
    Wait,
    /// To be broadcast.
    Send(Vec<u8>),
    /// An address.
    Got(Lease),
    /// All time-outs are over.
    GaveUp,
}

/// One exchange.
#[derive(Debug)]
pub struct Exchange {
    speaker: Speaker,
    mac: Mac,
    xid: u32,
    begun: Duration,
    state: State,
    deadline: Duration,
    /// Of the message that waits for its answer.
    tries: usize,
}

#[derive(Debug)]
enum State {
    Selecting(Option<Lease>),
    Requesting(Lease),
}

impl Exchange {
    /// Begins one, by what is to be sent.
    pub fn begin(speaker: Speaker, mac: Mac, xid: u32, now: Duration) -> (Exchange, Vec<u8>) {
        let state = State::Selecting(None);
        let mut exchange =
            Exchange { speaker, mac, xid, begun: now, state, deadline: now, tries: 0 };
        let sent = exchange.send(now).unwrap_or_default();
        (exchange, sent)
    }

    /// When [`Exchange::on_deadline`] is to be called.
    pub fn deadline(&self) -> Duration {
        self.deadline
    }

    /// Who asks.
    pub fn speaker(&self) -> Speaker {
        self.speaker
    }

    /// How often the message that waits for its answer was sent.
    pub fn tries(&self) -> usize {
        self.tries
    }

    /// A message from a server.
    pub fn heard(&mut self, packet: &Packet, now: Duration) -> Step {
        if packet.xid != self.xid || packet.chaddr[..6] != self.mac.0 {
            return Step::Wait;
        }
        let kind = packet.options.fixed::<1>(code::MESSAGE_TYPE).map(|[kind]| kind);
        match &mut self.state {
            State::Selecting(taken) if kind == Some(MessageType::Offer as u8) => {
                let Some(lease) = lease(packet) else { return Step::Wait };
                // EDK2's HTTP boot takes no offer that does not say HTTPClient.
                let class = packet.options.get(code::VENDOR_CLASS).unwrap_or_default();
                if self.speaker == Speaker::Edk2Http && !class.starts_with(b"HTTPClient") {
                    return Step::Wait;
                }
                taken.get_or_insert(lease);
                let at_once = match self.speaker.timing().takes {
                    Takes::AtOnce => true,
                    Takes::AtTimeout => false,
                    Takes::UnlessProxy => {
                        says_no_proxy(packet) || now.saturating_sub(self.begun) > PROXY_WAIT
                    }
                };
                if at_once { self.request(now) } else { Step::Wait }
            }
            State::Requesting(wanted) if kind == Some(MessageType::Ack as u8) => {
                match lease(packet) {
                    Some(lease) if lease.address == wanted.address => Step::Got(lease),
                    _ => Step::Wait,
                }
            }
            // iPXE knows none until March 2021, and ROMs are older: it asks on, and gives up.
            State::Requesting(_) if self.speaker.is_ipxe() => Step::Wait,
            State::Requesting(_) if kind == Some(MessageType::Nak as u8) => {
                // From the beginning, in a new transaction.
                self.xid = self.xid.wrapping_add(1);
                self.state = State::Selecting(None);
                (self.tries, self.begun) = (0, now);
                self.send(now).map_or(Step::GaveUp, Step::Send)
            }
            _ => Step::Wait,
        }
    }

    /// The time-out after the last message is over.
    pub fn on_deadline(&mut self, now: Duration) -> Step {
        if now < self.deadline {
            return Step::Wait;
        }
        let proxy = self.speaker.timing().takes == Takes::UnlessProxy
            && now.saturating_sub(self.begun) <= PROXY_WAIT;
        if matches!(self.state, State::Selecting(Some(_))) && !proxy {
            return self.request(now);
        }
        self.send(now).map_or(Step::GaveUp, Step::Send)
    }

    fn request(&mut self, now: Duration) -> Step {
        let State::Selecting(taken) = &mut self.state else { return Step::Wait };
        let Some(lease) = taken.take() else { return Step::Wait };
        self.state = State::Requesting(lease);
        self.tries = 0;
        self.send(now).map_or(Step::GaveUp, Step::Send)
    }

    /// What is due, again or for the first time, unless it has been sent often enough.
    fn send(&mut self, now: Duration) -> Option<Vec<u8>> {
        let timing = self.speaker.timing();
        let waits = match self.state {
            State::Selecting(_) => timing.discover,
            State::Requesting(_) => timing.request,
        };
        let wait = waits.get(self.tries)?;
        self.deadline = now + Duration::from_millis(*wait);
        self.tries += 1;
        let secs = u16::try_from(now.saturating_sub(self.begun).as_secs()).unwrap_or(u16::MAX);
        let mut packet = self.speaker.discover(self.mac, self.xid, secs);
        if let State::Requesting(lease) = &self.state {
            packet.options.remove(code::MESSAGE_TYPE);
            packet.options.push(code::MESSAGE_TYPE, &[MessageType::Request as u8]);
            packet.options.push(code::REQUESTED_ADDRESS, &lease.address.octets());
            packet.options.push(code::SERVER_ID, &lease.server.octets());
        }
        Some(packet.encode())
    }
}

fn lease(packet: &Packet) -> Option<Lease> {
    let server = packet.options.address(code::SERVER_ID)?;
    let named = packet.options.get(code::BOOT_FILE).map(|name| name.split(|byte| *byte == 0));
    let named = named.and_then(|mut parts| parts.next());
    let file = if packet.file.is_empty() { named.unwrap_or_default() } else { &packet.file };
    let next_server = if packet.siaddr.is_unspecified() { server } else { packet.siaddr };
    let file = String::from_utf8_lossy(file).into_owned();
    Some(Lease { address: packet.yiaddr, server, next_server, file })
}

/// iPXE's option 175 with sub-option 176 set.
fn says_no_proxy(packet: &Packet) -> bool {
    let mut rest = packet.options.get(code::IPXE).unwrap_or_default();
    while let [code, length, tail @ ..] = rest {
        let (value, after) = tail.split_at(usize::from(*length).min(tail.len()));
        if *code == 176 && value.iter().any(|byte| *byte != 0) {
            return true;
        }
        rest = after;
    }
    false
}

#[cfg(test)]
mod tests {
    use koboshi_pxe::dhcp::Request;
    use koboshi_pxe::dhcp::packet::BOOTREPLY;

    use super::*;

    const MAC: Mac = Mac([2, 0, 0, 0, 0, 9]);
    const ADDRESS: Ipv4Addr = Ipv4Addr::new(10, 77, 4, 9);

    fn s(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    /// What a server says to this message.
    fn answer(sent: &[u8], no_proxy: bool) -> Packet {
        let mut packet = Packet::decode(sent).expect("ours");
        let request = Request::decode(sent).expect("ours");
        let kind = match request.kind {
            MessageType::Discover => MessageType::Offer,
            _ => MessageType::Ack,
        };
        let class = request.vendor_class;
        packet.op = BOOTREPLY;
        packet.yiaddr = ADDRESS;
        packet.options = Default::default();
        packet.options.push(code::MESSAGE_TYPE, &[kind as u8]);
        packet.options.push(code::SERVER_ID, &[10, 77, 0, 1]);
        packet.options.push(code::VENDOR_CLASS, &class[..10.min(class.len())]);
        packet.options.push(code::BOOT_FILE, b"undionly.kpxe");
        if no_proxy {
            packet.options.push(code::IPXE, &[176, 1, 1]);
        }
        packet
    }

    fn refusal(sent: &[u8], no_proxy: bool) -> Packet {
        let mut packet = answer(sent, no_proxy);
        packet.options.remove(code::MESSAGE_TYPE);
        packet.options.push(code::MESSAGE_TYPE, &[MessageType::Nak as u8]);
        packet
    }

    fn sent(step: Step) -> Vec<u8> {
        match step {
            Step::Send(bytes) => bytes,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn each_gives_up_when_its_firmware_does() {
        for (speaker, at) in [
            (Speaker::PxeRom, [0, 4, 12, 28, 60]),
            (Speaker::Edk2Pxe, [0, 4, 12, 28, 60]),
            (Speaker::Ipxe, [0, 1, 3, 7, 15]),
        ] {
            let (mut exchange, _) = Exchange::begin(speaker, MAC, 1, s(100));
            let mut seen = vec![0];
            loop {
                let now = exchange.deadline();
                assert_eq!(exchange.on_deadline(now - Duration::from_millis(1)), Step::Wait);
                let step = exchange.on_deadline(now);
                seen.push(now.as_secs() - 100);
                if step == Step::GaveUp {
                    break;
                }
                let again = Request::decode(&sent(step)).expect("a DISCOVER");
                assert_eq!(u64::from(again.secs), now.as_secs() - 100, "{speaker:?}");
            }
            assert_eq!(seen, at, "{speaker:?}");
        }
    }

    #[test]
    fn an_offer_is_taken_when_the_firmware_takes_it() {
        for (speaker, no_proxy, takes) in [
            (Speaker::PxeRom, false, 0),
            (Speaker::Edk2Pxe, false, 4),
            (Speaker::Edk2Http, false, 4),
            (Speaker::Ipxe, true, 0),
            // At 1 s it sends another DISCOVER, at 3 s its wait for a proxy is over.
            (Speaker::Ipxe, false, 3),
        ] {
            let (mut exchange, discover) = Exchange::begin(speaker, MAC, 1, s(0));
            let offer = answer(&discover, no_proxy);
            let mut step = exchange.heard(&offer, s(0));
            let mut now = s(0);
            let request = loop {
                if let Step::Send(bytes) = &step
                    && Request::decode(bytes).expect("ours").kind == MessageType::Request
                {
                    break sent(step);
                }
                now = exchange.deadline();
                step = exchange.on_deadline(now);
                assert_ne!(step, Step::GaveUp, "{speaker:?}");
            };
            assert_eq!(now, s(takes), "{speaker:?}");
            let said = Request::decode(&request).expect("ours");
            assert_eq!(said.requested, Some(ADDRESS));
            assert_eq!(said.server_id, Some(Ipv4Addr::new(10, 77, 0, 1)));
            // The ACK is lost, and it asks again.
            let again = loop {
                now = exchange.deadline();
                if let Step::Send(bytes) = exchange.on_deadline(now) {
                    break bytes;
                }
            };
            let Step::Got(lease) = exchange.heard(&answer(&again, no_proxy), now) else {
                panic!("{speaker:?} takes the ACK")
            };
            assert_eq!((lease.address, lease.file.as_str()), (ADDRESS, "undionly.kpxe"));
        }
    }

    #[test]
    fn others_answers_and_doubles_change_nothing() {
        let (mut exchange, discover) = Exchange::begin(Speaker::PxeRom, MAC, 5, s(0));
        let offer = answer(&discover, false);
        for (xid, mac) in [(6, MAC), (5, Mac([2, 0, 0, 0, 0, 8]))] {
            let mut other = offer.clone();
            other.xid = xid;
            other.chaddr[..6].copy_from_slice(&mac.0);
            assert_eq!(exchange.heard(&other, s(0)), Step::Wait);
        }
        let request = sent(exchange.heard(&offer, s(0)));
        assert_eq!(exchange.heard(&offer, s(0)), Step::Wait, "a second copy");
        let ack = answer(&request, false);
        assert!(matches!(exchange.heard(&ack, s(0)), Step::Got(_)));
    }

    #[test]
    fn refused_it_begins_anew() {
        let (mut exchange, discover) = Exchange::begin(Speaker::PxeRom, MAC, 5, s(0));
        let request = sent(exchange.heard(&answer(&discover, false), s(0)));
        let nak = refusal(&request, false);
        let again = Request::decode(&sent(exchange.heard(&nak, s(1)))).expect("ours");
        assert_eq!((again.kind, again.xid), (MessageType::Discover, 6));
    }

    #[test]
    fn ipxe_takes_no_notice_of_a_nak_and_gives_up() {
        let (mut exchange, discover) = Exchange::begin(Speaker::Ipxe, MAC, 5, s(0));
        let request = sent(exchange.heard(&answer(&discover, true), s(0)));
        let nak = refusal(&request, true);
        let mut seen = vec![0];
        loop {
            assert_eq!(exchange.heard(&nak, exchange.deadline()), Step::Wait);
            let now = exchange.deadline();
            seen.push(now.as_millis());
            match exchange.on_deadline(now) {
                Step::GaveUp => break,
                step => {
                    let again = Request::decode(&sent(step)).expect("ours");
                    assert_eq!((again.kind, again.xid), (MessageType::Request, 5));
                }
            }
        }
        assert_eq!(seen, [0, 250, 750, 1750, 3750, 7750, 15750]);
    }

    #[test]
    fn http_boot_takes_only_what_says_so() {
        let (mut exchange, discover) = Exchange::begin(Speaker::Edk2Http, MAC, 5, s(0));
        let mut offer = answer(&discover, false);
        offer.options.remove(code::VENDOR_CLASS);
        assert_eq!(exchange.heard(&offer, s(0)), Step::Wait);
        let now = exchange.deadline();
        let again = Request::decode(&sent(exchange.on_deadline(now))).expect("ours");
        assert_eq!(again.kind, MessageType::Discover, "nothing to request");
    }
}
