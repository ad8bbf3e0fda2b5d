//! Any datagram on port 67, answered in each way the site may want, once by a fresh server and once
//! more as the next message of the same exchange.

#![no_main]

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use koboshi_pxe::dhcp::{
    Address, Answer, BootFile, Effect, Kept, MessageType, Now, Packet, Request, Server, Serving,
    Subnet, Who,
};
use libfuzzer_sys::fuzz_target;

const AT: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 11);

fn subnet(relayed: bool) -> Arc<Subnet> {
    let at = |last| Ipv4Addr::new(10, 77, if relayed { 1 } else { 0 }, last);
    let mut subnet = Subnet::new(Ipv4Addr::new(10, 77, 0, 1), at(0), 24);
    subnet.pool = Some(at(200)..=at(203));
    subnet.gateway = Some(at(254));
    subnet.dns = vec![at(2); 8];
    subnet.ntp = vec![at(3)];
    subnet.domain = Some("dc.example".into());
    subnet.mtu = Some(9000);
    subnet.options = vec![(150, vec![10, 77, 0, 1]), (43, vec![1; 300]), (66, vec![b'x'; 40])];
    Arc::new(subnet)
}

fn answers(request: &Request) -> Vec<Answer> {
    let boot = |name: &str| Some(BootFile { name: name.into(), next_server: AT });
    let long = "http://10.77.0.1:8080/boot/".to_string() + &"x".repeat(150);
    let serve = |address, boot| {
        let (subnet, hostname) = (subnet(request.relayed()), Some("web1".to_string()));
        let (who, macs, runs) = (Who::Machine, Vec::new(), false);
        Answer::Serve(Serving { address, subnet, hostname, boot, who, macs, runs })
    };
    vec![
        Answer::Silence,
        serve(Address::Fixed(AT), boot("ipxe.efi")),
        serve(Address::Pool, boot(&long)),
        serve(Address::Pool, None),
    ]
}

/// Carries out effects as a driver does, and looks at what goes out.
fn carry(server: &mut Server, request: &Request, effects: Vec<Effect>, now: Now) {
    let mut todo = effects;
    for _ in 0..16 {
        let mut next = Vec::new();
        for effect in todo {
            match effect {
                Effect::Send(out) => {
                    let reply = Packet::decode(&out.bytes).expect("what we send can be read");
                    assert_eq!((reply.op, reply.xid), (2, request.xid));
                    assert_eq!(reply.chaddr, request.chaddr);
                    assert!((300..=1472).contains(&out.bytes.len()));
                    assert_eq!(reply.options.iter().next().map(|(code, _)| code), Some(53));
                    assert!(request.relay_info.is_none() || reply.options.get(82).is_some());
                }
                Effect::Probe { address, .. } => next.extend(server.probed(address, false, now)),
                Effect::Commit { ticket, .. } => next.extend(server.committed(ticket, true, now)),
                Effect::Tell(event) => drop(serde_json::to_string(&event).expect("plain data")),
            }
        }
        todo = next;
    }
    assert!(todo.is_empty(), "an exchange that never ends");
}

fuzz_target!(|datagram: &[u8]| {
    if let Ok(packet) = Packet::decode(datagram) {
        let again = Packet::decode(&packet.encode());
        // Options may have lain in `file` and `sname`; in one field they may be too long. And a name that fills its
        // field, without a NUL, is not sent on.
        if packet.encode().len() <= 1472 && packet.file.len() < 128 {
            assert_eq!(again.as_ref(), Ok(&packet));
        }
    }
    let Ok(request) = Request::decode(datagram) else { return };
    assert!(!request.mac.is_multicast());
    let _ = (request.is_ipxe(), request.vendor(), request.uuid(), request.user_classes().count());
    let start = Instant::now();
    for answer in answers(&request) {
        let now = Now { mono: start, wall: 1_700_000_000 };
        let mut server = Server::restore(Kept::default(), now);
        let effects = server.handle(&request, answer.clone(), now);
        carry(&mut server, &request, effects, now);
        let mut then = request.clone();
        for kind in [MessageType::Request, MessageType::Decline, MessageType::Release] {
            then.kind = kind;
            let effects = server.handle(&then, answer.clone(), now);
            carry(&mut server, &then, effects, now);
        }
        let later = Now { mono: start + Duration::from_secs(8 * 24 * 3600), wall: now.wall };
        let effects = server.on_deadline(later);
        carry(&mut server, &request, effects, later);
        assert!(server.leases(later).is_empty());
    }
});
