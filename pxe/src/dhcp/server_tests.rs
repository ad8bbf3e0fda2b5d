//! Every transition of RFC 2131 4.3 with loss, duplicates, expiry and restarts; and a crowd of
//! clients doing all of it at random while we look for one address in two hands.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use proptest::prelude::*;

use super::*;
use crate::dhcp::answer::{BootFile, Subnet};
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

/// An appliance around the state machine: clocks, a disk and what the site says.
struct Rig {
    server: Server,
    disk: BTreeMap<ClientKey, LeaseRecord>,
    now: Now,
    subnet: Arc<Subnet>,
    seats: BTreeMap<Mac, Ipv4Addr>,
}

impl Rig {
    fn new(pool: std::ops::RangeInclusive<u8>) -> Rig {
        let now = Now { mono: Instant::now(), wall: 1_700_000_000 };
        Rig {
            server: Server::restore(Vec::new(), now),
            disk: BTreeMap::new(),
            now,
            subnet: subnet(pool, &[]),
            seats: BTreeMap::new(),
        }
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
                Effect::Commit { ticket, change } => {
                    self.write(&change);
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

    fn write(&mut self, change: &LeaseChange) {
        match change {
            LeaseChange::Put(record) => drop(self.disk.insert(record.key, record.clone())),
            LeaseChange::Delete(key) => drop(self.disk.remove(key)),
        }
    }

    /// `kill -9`, and up again.
    fn restart(&mut self) {
        self.server = Server::restore(self.disk.values().cloned().collect(), self.now);
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
            Effect::Commit { ticket, change } => Some((*ticket, change.clone())),
            _ => None,
        })
        .collect()
}

fn nothing(kind: EventKind) -> impl Fn(&Effects) -> bool {
    move |effects| effects.len() == 1 && events(effects) == std::slice::from_ref(&kind)
}

const NAK: (MessageType, Ipv4Addr) = (MessageType::Nak, Ipv4Addr::UNSPECIFIED);

#[test]
fn a_pool_address_is_probed_offered_written_and_only_then_acknowledged() {
    let mut rig = Rig::new(200..=250);
    let effects = rig.send(&discover(1));
    let [address] = probes(&effects)[..] else { panic!("one probe: {effects:?}") };
    assert_eq!(effects.len(), 1, "no OFFER before the link has been asked");

    let effects = rig.server.probed(address, false, rig.now);
    assert_eq!(replies(&effects), [(MessageType::Offer, address)]);
    assert_eq!(events(&effects), [EventKind::Offered]);
    assert_eq!(rig.server.lookup(mac(1), rig.now), None);

    let effects = rig.send(&select(1, address));
    let [(ticket, LeaseChange::Put(record))] = &commits(&effects)[..] else { panic!() };
    assert_eq!(effects.len(), 1, "no ACK before the lease is on disk");
    assert_eq!((record.key.mac, record.address), (mac(1), address));
    assert_eq!(record.expires, rig.now.wall + LEASE + u64::from(SLACK));

    let effects = rig.server.committed(*ticket, true, rig.now);
    assert_eq!(replies(&effects), [(MessageType::Ack, address)]);
    assert_eq!(events(&effects), [EventKind::Acked]);
    assert_eq!(rig.server.lookup(mac(1), rig.now), Some(address));
    assert_eq!(rig.server.leases(rig.now)[0].left, Some(LEASE));
}

#[test]
fn a_seats_address_needs_nobodys_leave() {
    let mut rig = Rig::new(200..=250);
    rig.seats.insert(mac(1), at(11));
    let effects = rig.send(&discover(1));
    assert_eq!(replies(&effects), [(MessageType::Offer, at(11))]);
    let effects = rig.send(&select(1, at(11)));
    assert_eq!(replies(&effects), [(MessageType::Ack, at(11))]);
    assert!(probes(&effects).is_empty() && commits(&effects).is_empty());
    rig.restart();
    assert_eq!(replies(&rig.send(&reboot(1, at(11)))), [(MessageType::Ack, at(11))]);
    assert_eq!(replies(&rig.send(&renew(1, at(11)))), [(MessageType::Ack, at(11))]);
    for wrong in [at(12), at(200), ELSEWHERE] {
        assert_eq!(replies(&rig.send(&select(1, wrong))), [NAK]);
        assert_eq!(replies(&rig.send(&reboot(1, wrong))), [NAK]);
        assert_eq!(replies(&rig.send(&renew(1, wrong))), [NAK]);
    }
    assert_eq!(rig.server.next_deadline(), None, "nothing to remember");
}

#[test]
fn a_repeated_discover_gets_the_same_offer_at_once() {
    let mut rig = Rig::new(200..=250);
    let [address] = probes(&rig.send(&discover(1)))[..] else { panic!() };
    assert!(rig.send(&discover(1)).is_empty(), "the probe is under way");
    let mut later = discover(1);
    later.xid = 77;
    assert!(rig.send(&later).is_empty());
    let effects = rig.server.probed(address, false, rig.now);
    let [Effect::Send(out), ..] = &effects[..] else { panic!() };
    assert_eq!(Packet::decode(&out.bytes).expect("ours").xid, 77, "the latest is answered");
    for _ in 0..3 {
        assert_eq!(replies(&rig.send(&later)), [(MessageType::Offer, address)]);
        rig.pass(9);
    }
    assert_eq!(rig.server.counters().probes, 1);
}

#[test]
fn one_machine_has_one_address_whatever_it_calls_itself() {
    let mut rig = Rig::new(200..=250);
    let address = rig.lease(1);
    for id in [&[1, 2, 3][..], &[255, 0, 0, 9], &[]] {
        let mut request = discover(1);
        request.client_id = Some(id.to_vec());
        assert_eq!(replies(&rig.send(&request)), [(MessageType::Offer, address)], "no probe");
    }
    let mut other = discover(1);
    other.htype = 6;
    let offered = replies(&rig.run(&other));
    assert_ne!(offered[0].1, address, "another hardware type is another client");
}

#[test]
fn an_address_in_use_rests_and_the_next_one_is_tried() {
    let mut rig = Rig::new(200..=201);
    let first = probes(&rig.send(&discover(1)))[0];
    let effects = rig.server.probed(first, true, rig.now);
    assert_eq!(events(&effects), [EventKind::Occupied]);
    let second = probes(&effects)[0];
    assert_ne!(first, second);
    let effects = rig.server.probed(second, true, rig.now);
    assert_eq!(events(&effects), [EventKind::Occupied, EventKind::PoolEmpty]);
    rig.pass(599);
    drop(rig.server.on_deadline(rig.now));
    assert!(nothing(EventKind::PoolEmpty)(&rig.send(&discover(1))));
    rig.pass(2);
    drop(rig.server.on_deadline(rig.now));
    assert_eq!(probes(&rig.send(&discover(1))).len(), 1);
}

#[test]
fn one_discover_does_not_probe_the_whole_pool() {
    let mut rig = Rig::new(100..=250);
    let mut effects = rig.send(&discover(1));
    for _ in 0..MAX_TRIES {
        let [address] = probes(&effects)[..] else { panic!() };
        effects = rig.server.probed(address, true, rig.now);
    }
    assert!(probes(&effects).is_empty());
    assert_eq!(events(&effects), [EventKind::Occupied, EventKind::Ignored(Reason::AddressInUse)]);
    assert_eq!(probes(&rig.send(&discover(1))).len(), 1, "the next DISCOVER goes on");
}

#[test]
fn a_probe_or_a_commit_that_answers_late_means_nothing() {
    let mut rig = Rig::new(200..=200);
    let [address] = probes(&rig.send(&discover(1)))[..] else { panic!() };
    rig.pass(6);
    drop(rig.server.on_deadline(rig.now));
    assert!(rig.server.probed(address, false, rig.now).is_empty());
    assert!(rig.server.probed(at(9), true, rig.now).is_empty());
    assert!(rig.server.committed(Ticket(99), true, rig.now).is_empty());
}

#[test]
fn a_lease_that_cannot_be_written_is_not_acknowledged() {
    let mut rig = Rig::new(200..=200);
    let offered = replies(&rig.run(&discover(1)))[0].1;
    let (ticket, _) = commits(&rig.send(&select(1, offered)))[0].clone();
    let effects = rig.server.committed(ticket, false, rig.now);
    assert!(nothing(EventKind::Ignored(Reason::NotStored))(&effects));
    assert_eq!(rig.server.counters().not_stored, 1);
    assert_eq!(rig.server.lookup(mac(1), rig.now), None);
    assert_eq!(
        replies(&rig.run(&select(1, offered))),
        [(MessageType::Ack, offered)],
        "the client asks again"
    );
}

#[test]
fn a_request_repeated_while_its_lease_is_written_is_answered_once() {
    let mut rig = Rig::new(200..=200);
    let offered = replies(&rig.run(&discover(1)))[0].1;
    let (ticket, _) = commits(&rig.send(&select(1, offered)))[0].clone();
    for _ in 0..3 {
        assert!(rig.send(&select(1, offered)).is_empty());
    }
    assert_eq!(
        replies(&rig.send(&discover(1))),
        [(MessageType::Offer, offered)],
        "a machine reset in that moment is offered the same"
    );
    rig.pass(100);
    drop(rig.server.on_deadline(rig.now));
    assert!(probes(&rig.send(&discover(2))).is_empty(), "a slow disk does not free the address");
    let effects = rig.server.committed(ticket, true, rig.now);
    assert_eq!(replies(&effects), [(MessageType::Ack, offered)]);
    assert_eq!(replies(&rig.run(&select(1, offered))), [(MessageType::Ack, offered)], "lost ACK");
}

#[test]
fn who_takes_another_servers_offer_leaves_ours() {
    let mut rig = Rig::new(200..=200);
    let offered = replies(&rig.run(&discover(1)))[0].1;
    let mut elsewhere = select(1, offered);
    elsewhere.server_id = Some(ELSEWHERE);
    assert!(nothing(EventKind::Ignored(Reason::OtherServer))(&rig.send(&elsewhere)));
    assert_eq!(probes(&rig.send(&discover(2))), [offered]);
}

#[test]
fn init_reboot() {
    let mut rig = Rig::new(200..=250);
    let mine = rig.lease(1);
    let theirs = rig.lease(2);
    assert_eq!(replies(&rig.run(&reboot(1, mine))), [(MessageType::Ack, mine)]);
    let free = (200..=250).map(at).find(|a| *a != mine && *a != theirs).expect("room");
    for (client, address, refusal) in [
        (1, ELSEWHERE, Refusal::WrongNetwork),
        (1, at(9), Refusal::NotInPool),
        (1, SERVER, Refusal::NotInPool),
        (1, theirs, Refusal::Taken),
        (1, free, Refusal::NotYours),
        (3, theirs, Refusal::Taken),
        (3, ELSEWHERE, Refusal::WrongNetwork),
    ] {
        let effects = rig.run(&reboot(client, address));
        assert_eq!(replies(&effects), [NAK], "{client} {address}");
        assert_eq!(events(&effects), [EventKind::Nacked(refusal)], "{client} {address}");
        let Some(Effect::Send(out)) = effects.first() else { panic!() };
        assert_eq!(out.destination, Destination::Broadcast);
    }
    assert!(
        nothing(EventKind::Ignored(Reason::NoRecord))(&rig.run(&reboot(3, free))),
        "RFC 2131 4.3.2: silence where we have no record"
    );
}

#[test]
fn renewing_and_rebinding() {
    let mut rig = Rig::new(200..=250);
    let address = rig.lease(1);
    rig.pass(LEASE / 2);
    let effects = rig.run(&renew(1, address));
    assert_eq!(replies(&effects), [(MessageType::Ack, address)]);
    let Some(Effect::Send(out)) = effects.first() else { panic!() };
    assert_eq!(out.destination, Destination::Client(address));
    assert_eq!(rig.server.leases(rig.now)[0].left, Some(LEASE));
    assert_eq!(replies(&rig.run(&renew(1, ELSEWHERE))), [NAK]);

    rig.pass(LEASE + 3);
    let effects = rig.send(&renew(1, address));
    assert_eq!(probes(&effects), [address], "it slept past its lease; nobody took the address");
    assert_eq!(replies(&rig.carry_out(effects, &HashSet::new())), [(MessageType::Ack, address)]);
    assert!(nothing(EventKind::Ignored(Reason::NoRecord))(&rig.run(&renew(9, at(249)))));
    let none = Request::bare(MessageType::Request, mac(1));
    assert!(nothing(EventKind::Ignored(Reason::NoAddress))(&rig.run(&none)));
}

#[test]
fn an_expired_lease_is_its_owners_until_another_needs_it() {
    let mut rig = Rig::new(200..=201);
    let first = rig.lease(1);
    rig.pass(LEASE + 3);
    let second = rig.lease(2);
    assert_ne!(first, second, "an address nobody ever had goes first");
    assert_eq!(rig.lease(1), first, "its own again");
    rig.pass(LEASE + 3);
    rig.lease(2);
    assert_eq!(rig.lease(3), first, "the pool is full of the past: the oldest goes");
    assert_eq!(replies(&rig.run(&renew(1, first))), [NAK]);
    assert_eq!(rig.disk.len(), 2, "and is forgotten on disk too");
    rig.pass(8 * 24 * 3600);
    let effects = rig.server.on_deadline(rig.now);
    assert_eq!(commits(&effects).len(), 2, "a week later all are");
    assert_eq!(rig.server.next_deadline(), None);
}

#[test]
fn an_offer_lapses_and_is_not_lost() {
    let mut rig = Rig::new(200..=200);
    let offered = replies(&rig.run(&discover(1)))[0].1;
    assert!(nothing(EventKind::PoolEmpty)(&rig.run(&discover(2))));
    rig.pass(31);
    drop(rig.server.on_deadline(rig.now));
    let effects = rig.send(&select(1, offered));
    assert_eq!(probes(&effects), [offered], "late, and nobody else came");
    let late = rig.carry_out(effects, &HashSet::new());
    assert_eq!(replies(&late), [(MessageType::Ack, offered)]);

    let mut rig = Rig::new(200..=200);
    rig.run(&discover(1));
    rig.pass(31);
    assert_eq!(replies(&rig.run(&discover(2))), [(MessageType::Offer, offered)]);
    assert_eq!(replies(&rig.run(&select(1, offered))), [NAK]);
    assert_eq!(replies(&rig.run(&select(2, offered))), [(MessageType::Ack, offered)]);
}

#[test]
fn killed_between_offer_and_ack() {
    // Nothing was written: the one who comes first has it, once the link has been asked.
    let mut rig = Rig::new(200..=200);
    let address = replies(&rig.run(&discover(1)))[0].1;
    rig.restart();
    assert_eq!(replies(&rig.run(&discover(2))), [(MessageType::Offer, address)]);
    assert_eq!(replies(&rig.run(&select(1, address))), [NAK]);
    assert_eq!(replies(&rig.run(&select(2, address))), [(MessageType::Ack, address)]);

    let mut rig = Rig::new(200..=200);
    rig.run(&discover(1));
    rig.restart();
    let effects = rig.send(&select(1, address));
    assert_eq!(probes(&effects), [address]);
    assert!(probes(&rig.send(&discover(2))).is_empty(), "while it is being verified");
    let link = HashSet::from([address]);
    assert_eq!(replies(&rig.carry_out(effects, &link)), [NAK], "somebody answers for it");

    // Written, and the ACK never sent.
    let mut rig = Rig::new(200..=200);
    rig.run(&discover(1));
    let (_, change) = commits(&rig.send(&select(1, address)))[0].clone();
    rig.write(&change);
    rig.restart();
    assert!(nothing(EventKind::PoolEmpty)(&rig.run(&discover(2))));
    assert_eq!(replies(&rig.run(&select(2, address))), [NAK]);
    assert_eq!(replies(&rig.run(&select(1, address))), [(MessageType::Ack, address)]);
}

#[test]
fn release() {
    let mut rig = Rig::new(200..=200);
    let address = rig.lease(1);
    let ignored = nothing(EventKind::Ignored(Reason::NotItsOwn));
    assert!(ignored(&rig.run(&give_back(2, address))), "not by another machine");
    assert!(ignored(&rig.run(&give_back(1, at(9)))));
    let mut elsewhere = give_back(1, address);
    elsewhere.server_id = Some(ELSEWHERE);
    assert!(nothing(EventKind::Ignored(Reason::OtherServer))(&rig.run(&elsewhere)));
    assert_eq!(rig.server.lookup(mac(1), rig.now), Some(address));

    assert!(nothing(EventKind::PoolEmpty)(&rig.run(&discover(2))));
    let effects = rig.run(&give_back(1, address));
    assert!(nothing(EventKind::Released)(&effects), "and no reply");
    assert!(rig.disk.is_empty());
    assert_eq!(rig.lease(2), address, "free at once");

    rig.seats.insert(mac(1), at(11));
    assert!(nothing(EventKind::Released)(&rig.run(&give_back(1, at(11)))));
}

#[test]
fn a_declined_address_rests() {
    let mut rig = Rig::new(200..=201);
    let address = rig.lease(1);
    let ignored = nothing(EventKind::Ignored(Reason::NotItsOwn));
    assert!(ignored(&rig.run(&decline(2, address))), "not by another machine");
    assert!(ignored(&rig.run(&decline(1, at(99)))));
    assert!(nothing(EventKind::Declined)(&rig.run(&decline(1, address))));
    assert!(rig.disk.is_empty());
    let next = rig.lease(1);
    assert_ne!(next, address);
    assert!(nothing(EventKind::PoolEmpty)(&rig.run(&discover(2))));
    assert_eq!(replies(&rig.run(&select(2, address))), [NAK]);
    rig.pass(601);
    assert_eq!(rig.lease(2), address);

    rig.seats.insert(mac(5), at(11));
    assert!(nothing(EventKind::Declined)(&rig.run(&decline(5, at(11)))));
    assert_eq!(
        replies(&rig.run(&discover(5))),
        [(MessageType::Offer, at(11))],
        "a seat has no other address; the event says what is wrong"
    );
}

#[test]
fn inform() {
    let mut rig = Rig::new(200..=250);
    let mut request = Request::bare(MessageType::Inform, mac(1));
    assert!(nothing(EventKind::Ignored(Reason::NoAddress))(&rig.run(&request)));
    request.ciaddr = at(9);
    let effects = rig.run(&request);
    assert_eq!(events(&effects), [EventKind::Informed]);
    let [Effect::Send(out), ..] = &effects[..] else { panic!() };
    assert_eq!(out.destination, Destination::Client(at(9)));
    let packet = Packet::decode(&out.bytes).expect("ours");
    assert_eq!(packet.yiaddr, Ipv4Addr::UNSPECIFIED);
    for code in [51, 58, 59] {
        assert_eq!(packet.options.get(code), None, "RFC 2131 4.3.5");
    }
    assert_eq!(packet.options.get(1), Some(&[255, 255, 255, 0][..]));
}

#[test]
fn silence_to_the_unknown() {
    let mut rig = Rig::new(200..=250);
    let address = rig.lease(1);
    let ignored = nothing(EventKind::Ignored(Reason::NotServed));
    let mut inform = Request::bare(MessageType::Inform, mac(1));
    inform.ciaddr = address;
    for request in
        [discover(1), select(1, address), reboot(1, ELSEWHERE), renew(1, address), inform]
    {
        assert!(ignored(&rig.server.handle(&request, Answer::Silence, rig.now)));
    }
    let effects = rig.server.handle(&give_back(1, address), Answer::Silence, rig.now);
    assert_eq!(events(&effects), [EventKind::Released], "what it gives back is taken");
}

#[test]
fn a_seat_set_upon_a_leased_address_waits_until_nobody_is_there() {
    let mut rig = Rig::new(200..=200);
    let address = rig.lease(1);
    rig.seats.insert(mac(2), address);
    rig.subnet = subnet(201..=250, &[address]);
    let link = HashSet::from([address]);

    let effects = rig.send(&discover(2));
    assert_eq!(probes(&effects), [address]);
    let effects = rig.carry_out(effects, &link);
    assert_eq!(events(&effects), [EventKind::Occupied, EventKind::Ignored(Reason::AddressInUse)]);
    assert!(replies(&effects).is_empty());
    let effects = rig.send(&reboot(2, address));
    assert!(replies(&rig.carry_out(effects, &link)).is_empty(), "nor by INIT-REBOOT");
    assert_eq!(rig.server.lookup(mac(1), rig.now), Some(address));

    assert_eq!(replies(&rig.run(&discover(2))), [(MessageType::Offer, address)], "it went");
    assert!(rig.disk.is_empty());
    assert_eq!(replies(&rig.run(&select(2, address))), [(MessageType::Ack, address)]);
    assert_eq!(replies(&rig.run(&renew(1, address))), [NAK]);
    assert_ne!(rig.lease(1), address);
}

#[test]
fn a_seat_set_upon_an_offered_address_takes_it() {
    let mut rig = Rig::new(200..=200);
    let address = replies(&rig.run(&discover(1)))[0].1;
    rig.seats.insert(mac(2), address);
    rig.subnet = subnet(200..=200, &[address]);
    assert_eq!(replies(&rig.run(&discover(2))), [(MessageType::Offer, address)]);
    assert_eq!(replies(&rig.run(&select(1, address))), [NAK]);

    // The same while the lease is on its way to the disk: the seat waits for the outcome.
    let mut rig = Rig::new(200..=200);
    rig.run(&discover(1));
    let (ticket, _) = commits(&rig.send(&select(1, address)))[0].clone();
    rig.seats.insert(mac(2), address);
    rig.subnet = subnet(200..=200, &[address]);
    assert!(nothing(EventKind::Ignored(Reason::Busy))(&rig.send(&discover(2))));
    drop(rig.server.committed(ticket, true, rig.now));
    assert_eq!(probes(&rig.send(&discover(2))), [address]);
}

#[test]
fn a_machine_that_gets_a_seat_gives_its_pool_address_back() {
    let mut rig = Rig::new(200..=200);
    let address = rig.lease(1);
    rig.seats.insert(mac(1), at(11));
    assert_eq!(replies(&rig.run(&renew(1, address))), [NAK]);
    assert_eq!(rig.lease(1), at(11));
    assert!(rig.disk.is_empty());
    assert_eq!(rig.lease(2), address);
    // And back to the pool.
    rig.seats.clear();
    assert_eq!(replies(&rig.run(&renew(1, at(11)))), [NAK]);
}

#[test]
fn a_lease_ends_where_the_pool_no_longer_gives() {
    let mut rig = Rig::new(200..=250);
    let address = rig.lease(1);
    rig.subnet = subnet(100..=150, &[]);
    assert_eq!(replies(&rig.run(&renew(1, address))), [NAK]);
    let moved = rig.lease(1);
    assert_ne!(moved, address);
    assert_eq!(rig.disk.len(), 1);
    assert_eq!(rig.server.lookup(mac(1), rig.now), Some(moved));
}

#[test]
fn behind_a_relay_no_arp_reaches() {
    let mut rig = Rig::new(200..=250);
    let mut far = Subnet::new(SERVER, Ipv4Addr::new(10, 88, 0, 0), 24);
    far.pool = Some(Ipv4Addr::new(10, 88, 0, 9)..=Ipv4Addr::new(10, 88, 0, 9));
    rig.subnet = Arc::new(far);
    let mut request = discover(1);
    request.giaddr = Ipv4Addr::new(10, 88, 0, 1);
    let effects = rig.send(&request);
    assert_eq!(replies(&effects), [(MessageType::Offer, Ipv4Addr::new(10, 88, 0, 9))]);
    let Some(Effect::Send(out)) = effects.first() else { panic!() };
    assert_eq!(out.destination, Destination::Relay(request.giaddr));
}

#[test]
fn signs_of_life_keep_an_address() {
    let mut rig = Rig::new(200..=200);
    let address = rig.lease(1);
    rig.pass(60);
    assert!(rig.server.keep(mac(1), rig.now).is_empty(), "too fresh to be worth a write");
    for _ in 0..5 {
        rig.pass(LEASE / 2);
        let effects = rig.server.keep(mac(1), rig.now);
        assert_eq!(commits(&effects).len(), 1);
        assert!(rig.carry_out(effects, &HashSet::new()).is_empty(), "and nothing is sent");
    }
    assert_eq!(rig.server.lookup(mac(1), rig.now), Some(address));
    rig.restart();
    assert_eq!(rig.server.lookup(mac(1), rig.now), Some(address));

    rig.pass(LEASE + 3);
    assert_eq!(rig.server.lookup(mac(1), rig.now), None);
    let effects = rig.server.keep(mac(1), rig.now);
    assert_eq!(commits(&effects).len(), 1, "late, and nobody else has it");
    rig.carry_out(effects, &HashSet::new());
    rig.pass(LEASE + 3);
    assert_eq!(rig.lease(2), address);
    assert!(rig.server.keep(mac(1), rig.now).is_empty(), "too late");
    assert!(rig.server.keep(mac(9), rig.now).is_empty());
}

#[test]
fn a_clock_set_anywhere_breaks_nothing() {
    for wall in [0, 1_000_000, u64::MAX - 10, u64::MAX] {
        let mut rig = Rig::new(200..=200);
        let address = rig.lease(1);
        rig.now.wall = wall;
        assert_eq!(rig.server.lookup(mac(1), rig.now), Some(address), "{wall}");
        assert_eq!(replies(&rig.run(&renew(1, address))), [(MessageType::Ack, address)]);
        rig.now.mono += Duration::from_secs(LEASE + 3);
        assert_eq!(rig.server.lookup(mac(1), rig.now), None);
        rig.restart();
        assert!(rig.server.leases(rig.now).iter().all(|lease| lease.left <= Some(LEASE)));
    }
}

#[test]
fn a_flood_of_strangers_passes() {
    let mut rig = Rig::new(3..=254);
    for last in 0..10_000 {
        drop(rig.send(&discover(last)));
    }
    assert!(rig.server.holds.probing() <= MAX_PROBES);
    assert!(rig.server.holds.len() <= 252);
    rig.pass(40);
    drop(rig.server.on_deadline(rig.now));
    assert_eq!(rig.server.holds.len(), 0);
    rig.lease(1);

    let mut wide = Subnet::new(SERVER, Ipv4Addr::new(10, 0, 0, 0), 8);
    wide.pool = Some(Ipv4Addr::new(10, 1, 0, 0)..=Ipv4Addr::new(10, 200, 0, 0));
    rig.subnet = Arc::new(wide);
    for last in 0..10_000 {
        rig.run(&discover(last));
    }
    assert_eq!(rig.server.holds.len(), MAX_HOLDS);
    rig.seats.insert(mac(20_000), Ipv4Addr::new(10, 0, 0, 11));
    assert_eq!(replies(&rig.run(&discover(20_000))).len(), 1, "seats are served all the same");
}

#[test]
fn an_upside_down_or_absent_pool_is_an_empty_one() {
    let mut rig = Rig::new(200..=250);
    for pool in [None, Some(at(9)..=at(8))] {
        let mut subnet = Subnet::new(SERVER, at(0), 24);
        subnet.pool = pool;
        rig.subnet = Arc::new(subnet);
        assert!(nothing(EventKind::PoolEmpty)(&rig.run(&discover(1))));
    }
}

prop_compose! {
    fn any_request()(
        kind in prop::sample::select(vec![
            MessageType::Discover, MessageType::Request, MessageType::Decline,
            MessageType::Release, MessageType::Inform, MessageType::Offer,
        ]),
        (who, xid, broadcast) in (0..4u16, any::<u32>(), any::<bool>()),
        (ciaddr, giaddr) in (any_address(), any_address()),
        (requested, server_id) in
            (prop::option::of(any_address()), prop::option::of(any_address())),
        max_size in any::<Option<u16>>(),
        (client_id, guid, relay_info) in (any_bytes(), any_bytes(), any_bytes()),
        vendor in prop::sample::select(vec!["", "PXEClient:Arch:00007", "HTTPClient", "MSFT"]),
    ) -> Request {
        let mut request = Request::bare(kind, mac(who));
        (request.xid, request.broadcast, request.max_size) = (xid, broadcast, max_size);
        (request.ciaddr, request.giaddr) = (ciaddr, giaddr);
        (request.requested, request.server_id) = (requested, server_id);
        (request.client_id, request.guid, request.relay_info) = (client_id, guid, relay_info);
        request.vendor_class = vendor.into();
        request
    }
}

fn any_bytes() -> impl Strategy<Value = Option<Vec<u8>>> {
    prop::option::of(prop::collection::vec(any::<u8>(), 0..1200))
}

fn any_address() -> impl Strategy<Value = Ipv4Addr> {
    prop_oneof![
        2 => Just(Ipv4Addr::UNSPECIFIED),
        2 => Just(SERVER),
        4 => (199..205u8).prop_map(at),
        1 => any::<u32>().prop_map(Ipv4Addr::from),
    ]
}

proptest! {
    /// No message in any state brings it down or makes it say what is no message.
    #[test]
    fn any_message_at_any_time(requests in prop::collection::vec(any_request(), 1..40)) {
        let mut rig = Rig::new(200..=203);
        rig.seats.insert(mac(0), at(201));
        for request in requests {
            for effect in rig.run(&request) {
                if let Effect::Send(out) = effect {
                    prop_assert!((300..=1472).contains(&out.bytes.len()));
                    let packet = Packet::decode(&out.bytes).expect("ours is well formed");
                    prop_assert_eq!(packet.xid, request.xid);
                    prop_assert_eq!(packet.options.get(54), Some(&SERVER.octets()[..]));
                }
            }
            rig.pass(7);
        }
        prop_assert!(rig.disk.len() <= 4);
    }
}

/// What may happen to one of a few clients, or to all.
#[derive(Debug, Clone)]
enum Step {
    Discover(u16),
    Select(u16),
    Reboot(u16),
    Renew(u16),
    Release(u16),
    Decline(u16),
    Keep(u16),
    /// A journal entry reaches the disk, or fails to.
    Disk(bool),
    /// A probe is answered, by the link as it is.
    Link,
    Pass(u16),
    Kill,
    /// A seat for the client, in the middle of the pool; or none any more.
    Reload(u16, Option<u8>),
}

fn any_step() -> impl Strategy<Value = Step> {
    let who = 0..5u16;
    prop_oneof![
        4 => who.clone().prop_map(Step::Discover),
        6 => who.clone().prop_map(Step::Select),
        2 => who.clone().prop_map(Step::Reboot),
        2 => who.clone().prop_map(Step::Renew),
        1 => who.clone().prop_map(Step::Release),
        1 => who.clone().prop_map(Step::Decline),
        1 => who.clone().prop_map(Step::Keep),
        6 => prop::bool::weighted(0.9).prop_map(Step::Disk),
        6 => Just(Step::Link),
        2 => (0..2000u16).prop_map(Step::Pass),
        1 => Just(Step::Kill),
        1 => (who, prop::option::of(200..203u8)).prop_map(|(who, seat)| Step::Reload(who, seat)),
    ]
}

/// A client's side: what it was last offered, and what it believes to have, until when.
#[derive(Debug, Default, Clone)]
struct Client {
    offered: Option<Ipv4Addr>,
    has: Option<(Ipv4Addr, Instant)>,
    asked_at: Option<Instant>,
}

struct Crowd {
    /// Seats come and go too. A seat takes its address from an expired lease without waiting for
    /// the journal, so that here no entry gets lost.
    reloads: bool,
    rig: Rig,
    clients: Vec<Client>,
    probes: Vec<(Ipv4Addr, Mac)>,
    journal: Vec<(Ticket, LeaseChange)>,
}

impl Crowd {
    fn absorb(&mut self, effects: Effects) {
        for effect in effects {
            match effect {
                Effect::Probe { address, mac, .. } => self.probes.push((address, mac)),
                Effect::Commit { ticket, change } => self.journal.push((ticket, change)),
                Effect::Tell(_) => {}
                Effect::Send(out) => {
                    let packet = Packet::decode(&out.bytes).expect("ours");
                    let who = usize::from(packet.chaddr[5]);
                    let client = &mut self.clients[who];
                    match packet.options.fixed::<1>(53) {
                        Some([2]) => client.offered = Some(packet.yiaddr),
                        Some([5]) => {
                            let seconds = packet.options.fixed::<4>(51).expect("a lease time");
                            let seconds = u64::from(u32::from_be_bytes(seconds));
                            // RFC 2131 4.4.1: counted from when the REQUEST was sent.
                            // A client that asks for nothing takes no ACK.
                            let Some(start) = client.asked_at else { continue };
                            client.has =
                                Some((packet.yiaddr, start + Duration::from_secs(seconds)));
                        }
                        _ => *client = Client::default(),
                    }
                }
            }
        }
    }

    fn holders(&self, address: Ipv4Addr) -> Vec<Mac> {
        (0u16..)
            .zip(&self.clients)
            .filter(|(_, client)| {
                client.has.is_some_and(|(has, until)| has == address && until > self.rig.now.mono)
            })
            .map(|(who, _)| mac(who))
            .collect()
    }

    fn by_lease(&self, holder: Mac) -> bool {
        let client = &self.clients[usize::from(holder.0[5])];
        client
            .has
            .is_some_and(|(_, until)| until < self.rig.now.mono + Duration::from_secs(LEASE * 2))
    }

    fn step(&mut self, step: Step) {
        let mono = self.rig.now.mono;
        let effects = match step {
            Step::Discover(who) => self.rig.send(&discover(who)),
            Step::Select(who) => {
                let client = &mut self.clients[usize::from(who)];
                let Some(offered) = client.offered else { return };
                client.asked_at = Some(mono);
                client.has = None;
                self.rig.send(&select(who, offered))
            }
            Step::Reboot(who) => {
                let client = &mut self.clients[usize::from(who)];
                let Some((address, _)) = client.has else { return };
                client.asked_at = Some(mono);
                self.rig.send(&reboot(who, address))
            }
            Step::Renew(who) => {
                let client = &mut self.clients[usize::from(who)];
                let Some((address, until)) = client.has else { return };
                if until <= mono {
                    return;
                }
                client.asked_at = Some(mono);
                self.rig.send(&renew(who, address))
            }
            Step::Release(who) => {
                let client = std::mem::take(&mut self.clients[usize::from(who)]);
                let Some((address, _)) = client.has else { return };
                self.rig.send(&give_back(who, address))
            }
            Step::Decline(who) => {
                let client = std::mem::take(&mut self.clients[usize::from(who)]);
                let Some((address, _)) = client.has else { return };
                self.rig.send(&decline(who, address))
            }
            Step::Keep(who) => self.rig.server.keep(mac(who), self.rig.now),
            Step::Disk(ok) => {
                if self.journal.is_empty() {
                    return;
                }
                let (ticket, change) = self.journal.remove(0);
                let ok = ok || (self.reloads && matches!(change, LeaseChange::Delete(_)));
                if ok {
                    self.rig.write(&change);
                }
                self.rig.server.committed(ticket, ok, self.rig.now)
            }
            Step::Link => {
                if self.probes.is_empty() {
                    return;
                }
                let (address, mac) = self.probes.remove(0);
                let in_use = self.holders(address).iter().any(|holder| *holder != mac);
                self.rig.server.probed(address, in_use, self.rig.now)
            }
            Step::Pass(seconds) => {
                self.rig.pass(u64::from(seconds));
                self.rig.server.on_deadline(self.rig.now)
            }
            Step::Kill => {
                // What was on its way may have arrived: the first half did.
                let arrived = self.journal.len() / if self.reloads { 1 } else { 2 };
                for (_, change) in std::mem::take(&mut self.journal).into_iter().take(arrived) {
                    self.rig.write(&change);
                }
                self.probes.clear();
                self.rig.restart();
                return;
            }
            Step::Reload(who, seat) => {
                let taken = seat.map(at);
                self.rig
                    .seats
                    .retain(|holder, address| *holder != mac(who) && Some(*address) != taken);
                if let Some(address) = taken {
                    self.rig.seats.insert(mac(who), address);
                }
                let reserved: Vec<Ipv4Addr> = self.rig.seats.values().copied().collect();
                self.rig.subnet = subnet(200..=203, &reserved);
                return;
            }
        };
        self.absorb(effects);
    }
}

fn no_address_twice(steps: Vec<Step>, reloads: bool) {
    let mut crowd = Crowd {
        reloads,
        rig: Rig::new(200..=203),
        clients: vec![Client::default(); 5],
        probes: Vec::new(),
        journal: Vec::new(),
    };
    for step in steps {
        if !reloads && matches!(step, Step::Reload(..)) {
            continue;
        }
        crowd.step(step.clone());
        for last in 200..=203 {
            let holders = crowd.holders(at(last));
            // A seat that moves while its former machine runs is for fences to prevent.
            let by_lease = holders.iter().any(|holder| crowd.by_lease(*holder));
            assert!(
                holders.len() <= 1 || !by_lease,
                "{} in two hands: {holders:?} after {step:?}",
                at(last)
            );
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1000, ..ProptestConfig::default() })]

    /// Whatever is lost, late, doubled or killed.
    #[test]
    fn no_address_of_the_pool_is_ever_in_two_hands(
        steps in prop::collection::vec(any_step(), 1..120),
    ) {
        no_address_twice(steps, false);
    }

    /// And whatever the site says in between.
    #[test]
    fn nor_a_seats_address_in_a_lease(steps in prop::collection::vec(any_step(), 1..120)) {
        no_address_twice(steps, true);
    }
}
