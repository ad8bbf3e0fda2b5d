//! Every transition of RFC 2131 4.3 with loss, duplicates, expiry and restarts. Here is the rig that they
//! run on: clocks, a disk and what the site says.

mod crowd;
mod enemy;
mod keeping;
mod messages;
mod offering;
mod power;
mod requesting;

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use super::*;
use crate::dhcp::answer::{BootFile, Subnet};
use crate::dhcp::lease::SLACK;
use crate::dhcp::packet::Packet;
use crate::dhcp::reply::Destination;

const SERVER: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 2);
const ELSEWHERE: Ipv4Addr = Ipv4Addr::new(192, 168, 9, 9);
const LEASE: u64 = 3600;

fn at(last: u8) -> Ipv4Addr {
    Ipv4Addr::new(10, 77, 0, last)
}

fn mac(last: u16) -> Mac {
    let [high, low] = last.to_be_bytes();
    Mac([0x52, 0x54, 0, 0x77, high, low])
}

fn subnet(pool: std::ops::RangeInclusive<u8>, reserved: &[Ipv4Addr]) -> Arc<Subnet> {
    let mut subnet = Subnet::new(SERVER, at(0), 24);
    subnet.pool = Some(at(*pool.start())..=at(*pool.end()));
    subnet.reserved = Arc::new(reserved.iter().copied().collect());
    subnet.lease = Duration::from_secs(LEASE);
    Arc::new(subnet)
}

/// The same network, whose machines no ARP of ours reaches.
fn far(subnet: &Subnet) -> Arc<Subnet> {
    let (server, ours) = (ELSEWHERE, Arc::new([SERVER]));
    Arc::new(Subnet { server, ours, ..subnet.clone() })
}

/// An appliance around the state machine: clocks, a disk and what the site says.
struct Rig {
    server: Server,
    disk: Kept,
    now: Now,
    subnet: Arc<Subnet>,
    seats: BTreeMap<Mac, Ipv4Addr>,
    /// What the site knows of all of them.
    who: Who,
    /// The NICs of the machine that asks.
    macs: Vec<Mac>,
    runs: bool,
}

impl Rig {
    fn new(pool: std::ops::RangeInclusive<u8>) -> Rig {
        let now = Now { mono: Instant::now(), wall: 1_700_000_000 };
        Rig {
            server: Server::restore(Kept::default(), now),
            disk: Kept::default(),
            now,
            subnet: subnet(pool, &[]),
            seats: BTreeMap::new(),
            who: Who::Machine,
            macs: Vec::new(),
            runs: false,
        }
    }

    /// The same network behind a relay.
    fn far(mut self) -> Rig {
        self.subnet = far(&self.subnet);
        self
    }

    fn pass(&mut self, seconds: u64) {
        self.now.mono += Duration::from_secs(seconds);
        self.now.wall += seconds;
    }

    fn answer(&self, mac: Mac) -> Answer {
        let address = self.seats.get(&mac).map_or(Address::Pool, |seat| Address::Fixed(*seat));
        Answer::Serve(Serving {
            address,
            subnet: self.subnet.clone(),
            hostname: None,
            boot: Some(BootFile { name: "ipxe.efi".into(), next_server: SERVER }),
            who: self.who,
            macs: self.macs.clone(),
            runs: self.runs,
        })
    }

    fn send(&mut self, request: &Request) -> Effects {
        let answer = self.answer(request.mac);
        self.server.handle(request, answer, self.now)
    }

    /// Does what is asked, with a link where nobody else is and a disk that works.
    fn run(&mut self, request: &Request) -> Effects {
        let effects = self.send(request);
        self.carry_out(effects, &HashSet::new())
    }

    fn carry_out(&mut self, effects: Effects, in_use: &HashSet<Ipv4Addr>) -> Effects {
        let mut done = Vec::new();
        for effect in effects {
            let more = match effect {
                Effect::Probe { address, .. } => {
                    self.server.probed(address, in_use.contains(&address), self.now)
                }
                Effect::Commit { ticket, change, .. } => {
                    self.disk.apply(change);
                    self.server.committed(ticket, true, self.now)
                }
                other => {
                    done.push(other);
                    continue;
                }
            };
            done.extend(self.carry_out(more, in_use));
        }
        done
    }

    /// `kill -9`, and up again.
    fn restart(&mut self) {
        self.disk.restart(self.now.wall);
        self.server = Server::restore(self.disk.clone(), self.now);
    }

    /// DISCOVER to ACK; the address.
    fn lease(&mut self, last: u16) -> Ipv4Addr {
        let offer = replies(&self.run(&discover(last)));
        assert_eq!(offer.len(), 1, "one OFFER");
        let offered = offer[0].1;
        assert_eq!(replies(&self.run(&select(last, offered))), [(MessageType::Ack, offered)]);
        offered
    }
}

fn discover(last: u16) -> Request {
    let mut request = Request::bare(MessageType::Discover, mac(last));
    request.xid = u32::from(last);
    request
}

fn select(last: u16, address: Ipv4Addr) -> Request {
    let mut request = reboot(last, address);
    request.server_id = Some(SERVER);
    request
}

fn reboot(last: u16, address: Ipv4Addr) -> Request {
    let mut request = Request::bare(MessageType::Request, mac(last));
    request.requested = Some(address);
    request
}

fn renew(last: u16, address: Ipv4Addr) -> Request {
    let mut request = Request::bare(MessageType::Request, mac(last));
    request.ciaddr = address;
    request
}

fn give_back(last: u16, address: Ipv4Addr) -> Request {
    let mut request = Request::bare(MessageType::Release, mac(last));
    request.ciaddr = address;
    request.heard.from = address;
    request
}

fn decline(last: u16, address: Ipv4Addr) -> Request {
    let mut request = Request::bare(MessageType::Decline, mac(last));
    request.requested = Some(address);
    request.server_id = Some(SERVER);
    request
}

/// The replies as their clients read them: type and `yiaddr`.
fn replies(effects: &[Effect]) -> Vec<(MessageType, Ipv4Addr)> {
    effects
        .iter()
        .filter_map(|effect| match effect {
            Effect::Send(out) => {
                let packet = Packet::decode(&out.bytes).expect("ours is well formed");
                let kind = match packet.options.fixed::<1>(53) {
                    Some([2]) => MessageType::Offer,
                    Some([5]) => MessageType::Ack,
                    Some([6]) => MessageType::Nak,
                    other => panic!("a server sends no {other:?}"),
                };
                Some((kind, packet.yiaddr))
            }
            _ => None,
        })
        .collect()
}

fn events(effects: &[Effect]) -> Vec<EventKind> {
    effects
        .iter()
        .filter_map(|effect| match effect {
            Effect::Tell(event) => Some(event.kind.clone()),
            _ => None,
        })
        .collect()
}

fn probes(effects: &[Effect]) -> Vec<Ipv4Addr> {
    effects
        .iter()
        .filter_map(|effect| match effect {
            Effect::Probe { address, .. } => Some(*address),
            _ => None,
        })
        .collect()
}

fn commits(effects: &[Effect]) -> Vec<(Ticket, LeaseChange)> {
    effects
        .iter()
        .filter_map(|effect| match effect {
            Effect::Commit { ticket, change, .. } => Some((*ticket, change.clone())),
            _ => None,
        })
        .collect()
}

fn nothing(kind: EventKind) -> impl Fn(&Effects) -> bool {
    move |effects| effects.len() == 1 && events(effects) == std::slice::from_ref(&kind)
}

const NAK: (MessageType, Ipv4Addr) = (MessageType::Nak, Ipv4Addr::UNSPECIFIED);
