//! REQUEST in its four states, RELEASE, DECLINE, INFORM: what is written before it is said.

use super::*;

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

/// Two machines have changed seats, and restart together: the second one's old seat is left by the first one's ACK,
/// after it was offered an address to wait at.
#[test]
fn an_offer_is_kept_though_the_seat_is_free_by_now() {
    let rom =
        |request: Request| Request { vendor_class: b"PXEClient:Arch:00000".into(), ..request };
    let mut rig = Rig::new(200..=201);
    let offered = replies(&rig.run(&rom(discover(1))))[0].1;
    rig.seats.insert(mac(1), at(11));
    for _ in 0..2 {
        let effects = rig.run(&rom(select(1, offered)));
        assert_eq!(replies(&effects), [(MessageType::Ack, offered)], "its ACK may be lost");
    }
    for other in [at(201), at(9)] {
        assert_eq!(replies(&rig.run(&rom(select(1, other)))), [NAK], "{other}: never offered");
    }
    assert_eq!(replies(&rig.run(&select(1, offered))), [NAK], "a system begins anew");
    assert_eq!(replies(&rig.run(&rom(reboot(1, offered)))), [NAK], "nor what it remembers");
    assert_eq!(replies(&rig.run(&rom(renew(1, offered)))), [NAK]);
    rig.pass(60);
    assert_eq!(replies(&rig.run(&rom(select(1, offered)))), [NAK], "no ACK is under way so long");

    // Its loader asks again.
    assert_eq!(replies(&rig.run(&rom(discover(1)))), [(MessageType::Offer, at(11))]);
    assert_eq!(replies(&rig.run(&rom(select(1, at(11))))), [(MessageType::Ack, at(11))]);
    assert_eq!(rig.server.lookup(mac(1), rig.now), None, "one machine, one address");
    assert_eq!(replies(&rig.run(&rom(select(1, offered)))), [NAK]);
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
    rig.disk.apply(change);
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
    assert_eq!(rig.server.lookup(mac(1), rig.now), None);
    rig.restart();
    assert_eq!(rig.server.lookup(mac(1), rig.now), None, "it is written down");
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
    assert!(rig.disk.leases.is_empty());
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
