//! One machine on the wire that means harm: invented MACs that want addresses and give them away, messages in
//! the names of machines that run, files asked for from addresses that are others', log messages of hosts that
//! are none, and ARP answers for every address that is asked for. Frames and a clock in, frames out; what it does
//! over TCP is in `siege`.

use std::net::Ipv4Addr;
use std::time::Duration;

use koboshi_pxe::Mac;
use koboshi_pxe::dhcp::frame::{Arp, Datagram};
use koboshi_pxe::dhcp::options::code;
use koboshi_pxe::dhcp::{MessageType, Packet};

use crate::dhcp;
use crate::dice::Dice;
use crate::firmware::Speaker;
use crate::wire;

/// MACs that it invents begin so. Locally administered.
const OUI: [u8; 3] = [0x02, 0x65, 0x6e];
/// It never sends more at once, however late it comes.
const AT_ONCE: u64 = 200;
const EVERYBODY: Mac = Mac([255; 6]);
const SYSLOG: u16 = 514;

/// What it attacks.
#[derive(Debug, Clone)]
pub struct Target {
    /// The appliance, and its NIC.
    pub server: (Mac, Ipv4Addr),
    /// Machines that run, or boot: it speaks in their names.
    pub victims: Vec<(Mac, Ipv4Addr)>,
    /// A file that can be asked for by TFTP.
    pub file: String,
}

/// One kind of attack.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Attack {
    /// Invented MACs ask for addresses, take them, and decline every other.
    Starve,
    /// DISCOVER, REQUEST, RELEASE and DECLINE in the names of others.
    Forge,
    /// Requests by TFTP from others' addresses.
    Amplify,
    /// Log messages from others' addresses, by hosts that are none.
    Babble,
    /// ARP answers for each address that is asked for.
    Claim,
}

impl Attack {
    /// All of them.
    pub const ALL: [Attack; 5] =
        [Attack::Starve, Attack::Forge, Attack::Amplify, Attack::Babble, Attack::Claim];
}

/// See the module.
#[derive(Debug)]
pub struct Enemy {
    target: Target,
    own: Mac,
    attacks: Vec<Attack>,
    /// Messages a second, of each kind.
    rate: u32,
    dice: Dice,
    sent: u64,
    /// Addresses that it was offered, and took or declined.
    pub offers: u64,
}

impl Enemy {
    /// One with this NIC. `rate`: messages a second of each kind that is not an answer.
    pub fn new(target: Target, own: Mac, attacks: &[Attack], rate: u32, seed: u64) -> Enemy {
        let (attacks, dice) = (attacks.to_vec(), Dice::new(seed, u64::MAX));
        Enemy { target, own, attacks, rate, dice, sent: 0, offers: 0 }
    }

    /// What is to be sent by now, so long after it began.
    pub fn due(&mut self, since: Duration) -> Vec<Vec<u8>> {
        let wanted = (since.as_secs_f64() * f64::from(self.rate)) as u64;
        let many = wanted.saturating_sub(self.sent).min(AT_ONCE);
        self.sent = wanted;
        let attacks = self.attacks.clone();
        let mut frames = Vec::new();
        for _ in 0..many {
            for attack in &attacks {
                frames.extend(match attack {
                    Attack::Starve => Some(self.starve()),
                    Attack::Forge => self.forge(),
                    Attack::Amplify => self.amplify(),
                    Attack::Babble => self.babble(),
                    Attack::Claim => None,
                });
            }
        }
        frames
    }

    /// A frame with a datagram off the wire: an offer to one of its MACs is taken, or declined.
    pub fn heard(&mut self, frame: &[u8]) -> Option<Vec<u8>> {
        let datagram = wire::read(frame).filter(|datagram| datagram.to.2 == dhcp::PORTS.0)?;
        let offer = Packet::decode(datagram.payload).ok()?;
        let kind = offer.options.fixed::<1>(code::MESSAGE_TYPE)?;
        let invented = offer.chaddr.starts_with(&OUI) && kind == [MessageType::Offer as u8];
        if !invented || !self.attacks.contains(&Attack::Starve) {
            return None;
        }
        self.offers += 1;
        let mac = Mac(*offer.chaddr.first_chunk()?);
        let kind = match self.offers % 2 {
            0 => MessageType::Request,
            _ => MessageType::Decline,
        };
        Some(self.says(kind, mac, offer.xid, Some(offer.yiaddr), Ipv4Addr::UNSPECIFIED))
    }

    /// Somebody asks for an address: it has it.
    pub fn asked(&self, arp: &Arp) -> Option<Vec<u8>> {
        let probe = arp.op == 1 && arp.sender.1.is_unspecified();
        let claims = self.attacks.contains(&Attack::Claim) && probe;
        let answer = Arp { op: 2, sender: (self.own, arp.target.1), target: arp.sender };
        claims.then(|| answer.encode())
    }

    fn starve(&mut self) -> Vec<u8> {
        let draw = self.dice.draw().to_be_bytes();
        let mac = Mac([OUI[0], OUI[1], OUI[2], draw[0], draw[1], draw[2]]);
        let xid = u32::from_be_bytes([draw[4], draw[5], draw[6], draw[7]]);
        let speaker = if draw[3].is_multiple_of(2) { Speaker::Ipxe } else { Speaker::PxeRom };
        self.broadcast(speaker.discover(mac, xid, 0).encode())
    }

    fn victim(&mut self) -> Option<(Mac, Ipv4Addr)> {
        let many = self.target.victims.len().max(1) as u64;
        let which = self.dice.draw() % many;
        self.target.victims.get(usize::try_from(which).ok()?).copied()
    }

    fn forge(&mut self) -> Option<Vec<u8>> {
        let (mac, address) = self.victim()?;
        let (draw, xid) = (self.dice.draw() % 5, self.dice.draw() as u32);
        Some(match draw {
            0 => self.broadcast(Speaker::PxeRom.discover(mac, xid, 0).encode()),
            1 => self.says(MessageType::Request, mac, xid, Some(address), Ipv4Addr::UNSPECIFIED),
            2 => self.says(MessageType::Decline, mac, xid, Some(address), Ipv4Addr::UNSPECIFIED),
            3 => self.says(MessageType::Release, mac, xid, None, address),
            // An address that is another machine's, by INIT-REBOOT.
            _ => {
                let (other, _) = self.victim()?;
                self.says(MessageType::Request, other, xid, Some(address), Ipv4Addr::UNSPECIFIED)
            }
        })
    }

    fn amplify(&mut self) -> Option<Vec<u8>> {
        let (_, address) = self.victim()?;
        let port = 1024 + (self.dice.draw() % 60_000) as u16;
        let file = &self.target.file;
        let options = match self.dice.draw() % 2 {
            0 => "",
            _ => "blksize\x001468\0windowsize\x0064\0",
        };
        let asks = [b"\0\x01", file.as_bytes(), b"\0octet\0", options.as_bytes()].concat();
        let (mac, server) = self.target.server;
        let datagram =
            Datagram { from: (self.own, address, port), to: (mac, server, 69), payload: &asks };
        Some(datagram.encode())
    }

    fn babble(&mut self) -> Option<Vec<u8>> {
        let draw = self.dice.draw().to_be_bytes();
        let from = Ipv4Addr::new(10, 77, 200 + draw[0] % 40, draw[1]);
        let text = format!(
            "<2>1 2026-01-01T00:00:00Z ../../host{:x} ghost - - - {}",
            u32::from_be_bytes([draw[2], draw[3], draw[4], draw[5]]),
            "x".repeat(200)
        );
        let (mac, server) = self.target.server;
        let (from, to) = ((self.own, from, 514), (mac, server, SYSLOG));
        Some(Datagram { from, to, payload: text.as_bytes() }.encode())
    }

    /// A DHCP message of a client.
    fn says(
        &self,
        kind: MessageType,
        mac: Mac,
        xid: u32,
        wanted: Option<Ipv4Addr>,
        from: Ipv4Addr,
    ) -> Vec<u8> {
        let mut packet = Speaker::PxeRom.discover(mac, xid, 0);
        packet.options.remove(code::MESSAGE_TYPE);
        packet.options.push(code::MESSAGE_TYPE, &[kind as u8]);
        packet.options.push(code::SERVER_ID, &self.target.server.1.octets());
        if let Some(wanted) = wanted {
            packet.options.push(code::REQUESTED_ADDRESS, &wanted.octets());
        }
        if from.is_unspecified() {
            return self.broadcast(packet.encode());
        }
        packet.ciaddr = from;
        let (mac, server) = self.target.server;
        let payload = packet.encode();
        let (from, to) = ((self.own, from, dhcp::PORTS.0), (mac, server, dhcp::PORTS.1));
        Datagram { from, to, payload: &payload }.encode()
    }

    fn broadcast(&self, payload: Vec<u8>) -> Vec<u8> {
        let from = (self.own, Ipv4Addr::UNSPECIFIED, dhcp::PORTS.0);
        let to = (EVERYBODY, Ipv4Addr::BROADCAST, dhcp::PORTS.1);
        Datagram { from, to, payload: &payload }.encode()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use koboshi_pxe::dhcp::Request;
    use koboshi_pxe::dhcp::packet::BOOTREPLY;

    use super::*;

    const OWN: Mac = Mac([2, 6, 6, 6, 6, 6]);
    const SERVER: (Mac, Ipv4Addr) = (Mac([2, 1, 1, 1, 1, 1]), Ipv4Addr::new(10, 77, 0, 1));
    const VICTIM: (Mac, Ipv4Addr) = (Mac([2, 0, 0, 0, 0, 9]), Ipv4Addr::new(10, 77, 4, 9));

    fn enemy(attacks: &[Attack]) -> Enemy {
        let target = Target { server: SERVER, victims: vec![VICTIM], file: "ipxe.efi".into() };
        Enemy::new(target, OWN, attacks, 1000, 7)
    }

    #[test]
    fn it_keeps_its_pace_and_invents_a_machine_a_message() {
        let mut enemy = enemy(&[Attack::Starve]);
        let mut macs = HashSet::new();
        for hundredth in 1..=100 {
            for frame in enemy.due(Duration::from_millis(hundredth * 10)) {
                let datagram = Datagram::decode(&frame).expect("a sound frame");
                let request = Request::decode(datagram.payload).expect("the server reads it");
                assert_eq!(request.kind, MessageType::Discover);
                macs.insert(request.mac);
            }
        }
        assert!((990..=1000).contains(&macs.len()), "{}", macs.len());
        assert_eq!(enemy.due(Duration::from_secs(60)).len(), AT_ONCE as usize, "it was late");
    }

    #[test]
    fn offers_are_taken_and_declined_and_others_are_left_alone() {
        let mut enemy = enemy(&[Attack::Starve, Attack::Claim]);
        let mut kinds = HashSet::new();
        for frame in enemy.due(Duration::from_millis(20)) {
            let mut packet =
                Packet::decode(Datagram::decode(&frame).expect("sound").payload).expect("reads");
            packet.op = BOOTREPLY;
            packet.yiaddr = Ipv4Addr::new(10, 77, 2, 7);
            packet.options.remove(code::MESSAGE_TYPE);
            packet.options.push(code::MESSAGE_TYPE, &[MessageType::Offer as u8]);
            let to = (OWN, packet.yiaddr, dhcp::PORTS.0);
            let from = (SERVER.0, SERVER.1, dhcp::PORTS.1);
            let payload = packet.encode();
            let answer = enemy.heard(&Datagram { from, to, payload: &payload }.encode());
            let answer = answer.expect("it takes the bait");
            let said = Datagram::decode(&answer).expect("sound").payload;
            let request = Request::decode(said).expect("reads");
            assert_eq!(request.requested, Some(packet.yiaddr));
            kinds.insert(request.kind);
            packet.chaddr[..6].copy_from_slice(&VICTIM.0.0);
            let payload = packet.encode();
            assert_eq!(enemy.heard(&Datagram { from, to, payload: &payload }.encode()), None);
        }
        assert_eq!(kinds, HashSet::from([MessageType::Request, MessageType::Decline]));
        let probe = Arp::probe(SERVER.0, VICTIM.1);
        let claim = enemy.asked(&probe).and_then(|frame| Arp::decode(&frame)).expect("it lies");
        assert_eq!((claim.op, claim.sender), (2, (OWN, VICTIM.1)));
        assert_eq!(enemy.asked(&Arp { sender: (SERVER.0, SERVER.1), ..probe }), None);
    }

    #[test]
    fn what_it_sends_in_others_names_is_as_theirs() {
        let mut enemy = enemy(&[Attack::Forge, Attack::Amplify, Attack::Babble]);
        let mut ports = HashSet::new();
        for second in 1..4 {
            for frame in enemy.due(Duration::from_secs(second)) {
                let datagram = Datagram::decode(&frame).expect("a sound frame");
                ports.insert(datagram.to.2);
                match datagram.to.2 {
                    67 => {
                        let request = Request::decode(datagram.payload).expect("reads");
                        assert_eq!(request.mac, VICTIM.0);
                    }
                    69 => assert_eq!(datagram.from.1, VICTIM.1),
                    _ => assert!(datagram.payload.starts_with(b"<2>1 ")),
                }
            }
        }
        assert_eq!(ports, HashSet::from([67, 69, 514]));
    }
}
