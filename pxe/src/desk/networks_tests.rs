//! Many networks at one desk: DHCP's own state machine below, datagrams' contents above.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use tokio::sync::mpsc;

use super::tests::{MAC, RELAY, SEAT, SERVER, desk, snapshot};
use super::*;
use crate::boots::Stage;
use crate::decide::Place;
use crate::dhcp::{Effect, Heard, Kept, MessageType, Now, Packet, Request, Server};

const ROUTER: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 254);
const BMC: Mac = Mac([0x52, 0x54, 0, 0x78, 0, 1]);

/// DHCP over a desk, with a journal that never fails.
struct Rig {
    desk: Desk,
    server: Server,
    heard: mpsc::Receiver<News>,
}

impl Rig {
    fn new((desk, heard): (Desk, mpsc::Receiver<News>)) -> Rig {
        Rig { desk, server: Server::restore(Kept::default(), Now::read()), heard }
    }

    /// What goes back.
    fn ask(&mut self, request: &Request) -> Vec<Packet> {
        let now = Now::read();
        let mut todo = self.server.handle(request, self.desk.dhcp(request), now);
        let mut replies = Vec::new();
        while let Some(effect) = todo.pop() {
            match effect {
                Effect::Send(out) => {
                    replies.push(Packet::decode(&out.bytes).expect("what we send can be read"));
                }
                Effect::Probe { address, .. } => {
                    todo.extend(self.server.probed(address, false, now));
                }
                Effect::Commit { ticket, .. } => {
                    todo.extend(self.server.committed(ticket, true, now));
                }
                Effect::Tell(event) => self.desk.dhcp_event(&event),
            }
        }
        replies
    }

    /// The addresses that go back.
    fn given(&mut self, request: &Request) -> Vec<Ipv4Addr> {
        self.ask(request).iter().map(|packet| packet.yiaddr).collect()
    }

    /// Boots opened and events told since the last look, in words.
    fn told(&mut self) -> Vec<String> {
        let mut told = Vec::new();
        while let Ok(news) = self.heard.try_recv() {
            match news {
                News::Opened { address, .. } => told.push(format!("opened at {address}")),
                News::Heard { kind, text, .. } => told.push(format!("{kind}: {text}")),
                _ => {}
            }
        }
        told
    }
}

fn firmware(mac: Mac, kind: MessageType) -> Request {
    let vendor_class = b"PXEClient:Arch:00000:UNDI:002001".to_vec();
    Request { vendor_class, xid: 7, ..Request::bare(kind, mac) }
}

fn relayed(mut request: Request, giaddr: Ipv4Addr) -> Request {
    request.giaddr = giaddr;
    request.heard = Heard { from: ROUTER, from_port: 67, to: SERVER, ..Heard::default() };
    request.relay_info = Some([&[1u8, 7][..], b"Gi1/0/7"].concat());
    request
}

#[test]
fn a_machine_in_the_wrong_network_gets_words_and_not_its_seats_address() {
    let mut rig = Rig::new(desk());
    let discover = relayed(firmware(MAC, MessageType::Discover), RELAY);
    let [offer] = &rig.ask(&discover)[..] else { panic!("one offer") };
    assert!((200..=210).contains(&offer.yiaddr.octets()[3]), "{}", offer.yiaddr);
    assert_eq!(offer.yiaddr.octets()[1], 79);
    assert_eq!(offer.options.get(82), discover.relay_info.as_deref(), "echoed whole");
    let boot = rig.desk.boot_of(MAC).expect("a boot was opened");
    assert!(boot.plan.is_none());
    let script = rig.desk.script(MAC, IpAddr::V4(offer.yiaddr)).expect("a script that waits");
    let words = "m01 asks from 10.79.0.0/24, its seat web1 lives in 10.77.0.0/24";
    assert!(script.contains(words), "{script}");

    // Plugged into the right one it boots: a plan of the other network does not hold it back.
    assert_eq!(rig.given(&Request { xid: 8, ..firmware(MAC, MessageType::Discover) }), [SEAT]);
    assert!(rig.desk.boot_of(MAC).is_some_and(|boot| boot.plan.is_some()));
    let back = Request { xid: 9, ..discover };
    assert_eq!(rig.given(&back)[0].octets()[1], 79);
    assert!(rig.desk.boot_of(MAC).is_some_and(|boot| boot.plan.is_none()));
}

#[test]
fn the_switch_port_is_kept_with_the_boot() {
    let (desk, mut heard) = desk();
    let spare = Known { name: "m01".into(), macs: vec![MAC], place: Place::Spare, loader: None };
    desk.publish(Snapshot { machines: [(MAC, Arc::new(spare))].into(), ..snapshot("web1", SEAT) });
    let mut rig = Rig::new((desk, mpsc::channel(1).1));
    rig.ask(&relayed(firmware(MAC, MessageType::Discover), RELAY));
    let (mut via, mut note) = (None, String::new());
    while let Ok(news) = heard.try_recv() {
        match news {
            News::Opened { via: through, .. } => via = through,
            News::Mark { note: text, .. } => note = text,
            _ => {}
        }
    }
    let via = via.expect("it came through a relay");
    assert_eq!((via.relay, via.circuit.as_deref()), (RELAY, Some("Gi1/0/7")));
    assert!(note.contains("by relay 10.79.0.1, circuit Gi1/0/7"), "{note}");
}

#[test]
fn a_seat_whose_address_is_lent_behind_a_relay_is_told_of_and_its_own_nics_are_not_in_its_way() {
    let mut rig = Rig::new(desk());
    let ask = |mac, kind| relayed(firmware(mac, kind), RELAY);
    let spare = Known { name: "m01".into(), macs: vec![MAC], place: Place::Spare, loader: None };
    let machines = [(MAC, Arc::new(spare))].into();
    rig.desk.publish(Snapshot { machines, ..snapshot("web1", SEAT) });
    let [lent] = rig.given(&ask(MAC, MessageType::Discover))[..] else { panic!("one offer") };
    let select = Request {
        requested: Some(lent),
        server_id: Some(SERVER),
        ..ask(MAC, MessageType::Request)
    };
    assert_eq!(rig.given(&select), [lent]);
    rig.told();

    let second = Mac([0x52, 0x54, 0, 0x77, 0, 0x11]);
    let seated = snapshot("web1", lent).machines[&MAC].as_ref().clone();
    for (macs, given) in [(vec![second], vec![]), (vec![MAC, second], vec![lent])] {
        let known = Arc::new(Known { macs: macs.clone(), ..seated.clone() });
        let machines = macs.iter().map(|mac| (*mac, known.clone())).collect();
        rig.desk.publish(Snapshot { machines, ..snapshot("web1", lent) });
        assert_eq!(rig.given(&ask(second, MessageType::Discover)), given);
        let told = rig.told();
        let waits = "is lent to another machine still, which nobody can ask behind a relay";
        assert_eq!(told.iter().any(|text| text.contains(waits)), given.is_empty(), "{told:#?}");
    }
}

#[test]
fn an_agent_that_lies_gets_silence_and_is_told_once() {
    let mut rig = Rig::new(desk());
    for number in 0..20 {
        let mac = Mac([0x52, 0x54, 0, 0x99, 0, number]);
        let mut discover = relayed(firmware(mac, MessageType::Discover), ROUTER);
        assert!(rig.ask(&discover).is_empty(), "a network of our own wire");
        discover.giaddr = Ipv4Addr::new(10, 99, 0, 1);
        assert!(rig.ask(&discover).is_empty());
        // From a machine's own address.
        discover.giaddr = RELAY;
        discover.heard.from = SEAT;
        assert!(rig.ask(&discover).is_empty());
    }
    let told = rig.told();
    assert_eq!(told.len(), 3, "{told:#?}");
    assert!(told.iter().all(|text| text.starts_with("relay: ")), "{told:#?}");
    assert!(told[0].contains("on our own interface eth1"), "{told:#?}");
}

#[test]
fn one_question_by_two_relays_is_one_boot_at_one_address() {
    let mut rig = Rig::new(desk());
    let second = Ipv4Addr::new(10, 80, 0, 1);
    let mut networks = snapshot("web1", SEAT).networks;
    let mut third = networks[1].clone();
    let subnet = Arc::make_mut(&mut third.subnet);
    subnet.network = Ipv4Addr::new(10, 80, 0, 0);
    subnet.pool = Some(Ipv4Addr::new(10, 80, 0, 200)..=Ipv4Addr::new(10, 80, 0, 210));
    third.reach = Reach::Relays(vec![second]);
    networks[1].reach = Reach::Relays(vec![RELAY, Ipv4Addr::new(10, 79, 0, 2)]);
    networks.push(third);
    let known = Known { name: "m01".into(), macs: vec![MAC], place: Place::Spare, loader: None };
    let machines = [(MAC, Arc::new(known))].into();
    rig.desk.publish(Snapshot { networks, machines, ..snapshot("web1", SEAT) });

    // Two agents of one network: both copies are answered, with one address.
    let copy = |giaddr| relayed(firmware(MAC, MessageType::Discover), giaddr);
    let first = rig.given(&copy(RELAY));
    assert_eq!(first, rig.given(&copy(Ipv4Addr::new(10, 79, 0, 2))));
    // An agent of another network: that copy is not.
    assert!(rig.given(&copy(second)).is_empty());
    let told = rig.told();
    assert_eq!(told.len(), 2, "{told:#?}");
    assert!(told[0].starts_with("opened at 10.79.0."), "{told:#?}");
    assert!(told[1].starts_with("two-networks: one question of it came from"), "{told:#?}");
    // A question of its own, later, is another matter.
    let later = Request { xid: 8, ..copy(second) };
    assert_eq!(rig.given(&later)[0].octets()[1], 80);
}

#[test]
fn bmcs_get_their_addresses_and_nothing_to_boot() {
    let mut rig = Rig::new(desk());
    let mut networks = snapshot("web1", SEAT).networks;
    networks[1].kind = Kind::Bmc;
    let own = Ipv4Addr::new(10, 79, 0, 11);
    let bmc = Bmc { machine: "m01".into(), address: Some(own) };
    let bmcs = [(BMC, bmc)].into();
    let unknown = Arc::new(Unknown::Role { role: "rescue".into(), trouble: None });
    rig.desk.publish(Snapshot { networks, bmcs, unknown, ..snapshot("web1", SEAT) });

    let [offer] = &rig.ask(&relayed(firmware(BMC, MessageType::Discover), RELAY))[..] else {
        panic!("one offer")
    };
    assert_eq!((offer.yiaddr, &offer.file[..]), (own, &b""[..]));
    assert_eq!(offer.options.get(67), None);
    assert_eq!(offer.options.get(51), Some(&[0xff; 4][..]), "it never expires");
    assert_eq!(rig.told(), Vec::<String>::new());

    let stranger = Mac([0x52, 0x54, 0, 0x78, 0, 9]);
    let given = rig.given(&relayed(firmware(stranger, MessageType::Discover), RELAY));
    assert_eq!(given, [Ipv4Addr::new(10, 79, 0, given[0].octets()[3])]);
    let told = rig.told();
    assert!(
        told[0].starts_with("unknown-bmc: a BMC nobody knows asks from 10.79.0.0/24"),
        "{told:#?}"
    );
    assert_eq!(told.len(), 1, "no boot was opened: {told:#?}");

    // On the wrong side, each way.
    assert!(rig.ask(&firmware(BMC, MessageType::Discover)).is_empty());
    assert!(rig.ask(&relayed(firmware(MAC, MessageType::Discover), RELAY)).is_empty());
    let told = rig.told();
    assert!(
        told[0].starts_with("bmc-misplaced: the BMC of m01 asks from 10.77.0.0/24"),
        "{told:#?}"
    );
    assert!(
        told[1].starts_with("misplaced: m01 asks from 10.79.0.0/24, a network of BMCs"),
        "{told:#?}"
    );
}

/// The other server of the proxy tests.
const LENDER: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 2);

fn proxied(seat: Option<Ipv4Addr>) -> Rig {
    let rig = Rig::new(desk());
    let mut site = snapshot("web1", SEAT);
    site.proxy = true;
    let mut known = site.machines[&MAC].as_ref().clone();
    if let Place::Seat(place) = &mut known.place {
        place.address = seat;
    }
    site.machines = [(MAC, Arc::new(known))].into();
    rig.desk.publish(site);
    rig
}

fn taken(address: Ipv4Addr) -> Request {
    let (requested, server_id) = (Some(address), Some(LENDER));
    Request { requested, server_id, ..firmware(MAC, MessageType::Request) }
}

#[test]
fn beside_another_server_we_give_a_boot_file_and_never_an_address() {
    let mut rig = proxied(None);
    let [offer] = &rig.ask(&firmware(MAC, MessageType::Discover))[..] else { panic!("one offer") };
    assert_eq!((offer.yiaddr, offer.siaddr), (Ipv4Addr::UNSPECIFIED, SERVER));
    assert_eq!(offer.file, b"undionly.kpxe");
    assert_eq!(offer.options.get(60), Some(&b"PXEClient"[..]));
    assert_eq!(offer.options.get(43), Some(&[6, 1, 8, 255][..]));
    for code in [1, 3, 6, 51] {
        assert_eq!(offer.options.get(code), None, "option {code} is the other server's");
    }
    assert!(rig.desk.boot_of(MAC).is_none(), "nobody knows its address yet");

    let lent = Ipv4Addr::new(10, 77, 0, 130);
    for _ in 0..3 {
        assert!(rig.ask(&taken(lent)).is_empty(), "never an ACK on port 67");
    }
    let boot = rig.desk.boot_of(MAC).expect("it was heard what it was lent");
    assert_eq!((boot.address, boot.lent, boot.fixed), (lent, None, false));
    assert_eq!(boot.plan.as_ref().map(|plan| plan.address), Some(lent));

    // Who asks port 4011 is answered there.
    let mut asks = Request { ciaddr: lent, ..firmware(MAC, MessageType::Request) };
    asks.heard = Heard { from: lent, to: SERVER, proxy_port: true, ..Heard::default() };
    let [ack] = &rig.ask(&asks)[..] else { panic!("one answer") };
    assert_eq!((ack.options.get(53), &ack.file[..]), (Some(&[5u8][..]), &b"undionly.kpxe"[..]));
    // iPXE, once it is loaded, finds its script the same way.
    rig.desk.file_sent((lent, 2070).into(), "undionly.kpxe", ", 75 KiB");
    let ipxe = Request { user_class: b"iPXE".to_vec(), ..firmware(MAC, MessageType::Discover) };
    let [offer] = &rig.ask(&ipxe)[..] else { panic!("one offer") };
    let url = b"http://10.77.0.1:8080/boot/52:54:00:77:00:01.ipxe";
    assert_eq!(offer.options.get(67), Some(&url[..]));
    rig.ask(&Request { user_class: b"iPXE".to_vec(), ..taken(lent) });
    assert_eq!(rig.desk.boot_of(MAC).map(|now| now.id), Some(boot.id), "one boot all along");

    // What is none of ours: other systems, declines, releases, an unknown machine.
    let system = Request::bare(MessageType::Discover, MAC);
    let stranger = firmware(Mac([2, 0, 0, 0, 0, 9]), MessageType::Discover);
    let decline = Request { kind: MessageType::Decline, ..taken(lent) };
    let release = Request { ciaddr: lent, ..firmware(MAC, MessageType::Release) };
    for request in [system, stranger, decline, release] {
        assert!(rig.ask(&request).is_empty(), "{:?}", request.kind);
    }
}

/// The REQUEST for the other server's address is a broadcast that nobody repeats once it is acknowledged.
#[test]
fn who_is_first_heard_on_port_4011_has_its_boot_opened_there() {
    let mut rig = proxied(Some(SEAT));
    let mut former = None;
    for last in [130, 131] {
        let lent = Ipv4Addr::new(10, 77, 0, last);
        rig.ask(&firmware(MAC, MessageType::Discover));
        let mut asks = Request { ciaddr: lent, ..firmware(MAC, MessageType::Request) };
        asks.heard = Heard { from: lent, to: SERVER, proxy_port: true, ..Heard::default() };
        for _ in 0..2 {
            assert_eq!(rig.ask(&asks).len(), 1);
        }
        let boot = rig.desk.boot_of(MAC).expect("a boot");
        assert_eq!((boot.address, boot.lent, boot.stage), (SEAT, Some(lent), Stage::Ack));
        assert_ne!(former.replace(boot.id), Some(boot.id), "what ran before is over");
        // It runs for a while, and is silent by the time it is started over.
        rig.desk.reached(boot.id, Stage::Up);
        rig.desk.inner().boots.of_mut(MAC).expect("a boot").heard = None;
    }
}

#[test]
fn a_seat_with_an_address_of_its_own_is_known_by_both() {
    let mut rig = proxied(Some(SEAT));
    rig.ask(&firmware(MAC, MessageType::Discover));
    let lent = Ipv4Addr::new(10, 77, 0, 130);
    rig.ask(&taken(lent));
    let boot = rig.desk.boot_of(MAC).expect("a boot");
    assert_eq!((boot.address, boot.lent, boot.fixed), (SEAT, Some(lent), true));
    // iPXE is another client to that server, and is lent another address: one boot all the same.
    rig.desk.file_sent((lent, 2070).into(), "undionly.kpxe", ", 75 KiB");
    let second = Ipv4Addr::new(10, 77, 0, 131);
    rig.ask(&Request { user_class: b"iPXE".to_vec(), ..taken(second) });
    let now = rig.desk.boot_of(MAC).expect("a boot");
    assert_eq!((now.id, now.lent), (boot.id, Some(second)));
    assert_eq!(now.stage, Stage::Loader, "its transfer was known by the first address");
    let gone = rig.desk.report(boot.id, IpAddr::V4(lent), bytes::Bytes::new());
    assert_eq!(gone.map(drop), Err(ReportRefusal::WrongAddress));
    for address in [second, SEAT] {
        let script = rig.desk.script(MAC, IpAddr::V4(address)).expect("its script");
        assert!(script.contains("boots into web1"), "{script}");
        let body = bytes::Bytes::from_static(b"{}");
        assert_eq!(rig.desk.report(boot.id, IpAddr::V4(address), body).map(drop), Ok(()));
    }
    // It has its own by now, and what its loader was lent may be anybody's.
    let gone = rig.desk.report(boot.id, IpAddr::V4(second), bytes::Bytes::new());
    assert_eq!(gone.map(drop), Err(ReportRefusal::WrongAddress));
    let elsewhere = IpAddr::V4(Ipv4Addr::new(10, 77, 0, 99));
    let refused = rig.desk.report(boot.id, elsewhere, bytes::Bytes::new());
    assert_eq!(refused.map(drop), Err(ReportRefusal::WrongAddress));
    // An address of another network cannot be worked with: told, and no boot of it.
    let mut rig = proxied(None);
    rig.ask(&taken(Ipv4Addr::new(192, 168, 1, 30)));
    assert!(rig.desk.boot_of(MAC).is_none());
    assert!(rig.told()[0].contains("192.168.1.30, which is not in 10.77.0.0/24"));
}
