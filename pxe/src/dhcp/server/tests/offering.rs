//! DISCOVER: whose address is offered, probed, put aside.

use super::*;

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
