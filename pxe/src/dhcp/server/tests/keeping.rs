//! What time, reloads and clocks do to leases and to the addresses of seats.

use super::*;

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
    assert_eq!(rig.disk.leases.len(), 2, "and is forgotten on disk too");
    rig.pass(8 * 24 * 3600);
    let effects = rig.server.on_deadline(rig.now);
    assert_eq!(commits(&effects).len(), 2, "a week later all are");
    assert_eq!(rig.server.next_deadline(), None);
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
    assert!(rig.disk.leases.is_empty());
    assert_eq!(replies(&rig.run(&select(2, address))), [(MessageType::Ack, address)]);
    assert_eq!(replies(&rig.run(&renew(1, address))), [NAK]);
    assert_ne!(rig.lease(1), address);
}

#[test]
fn behind_a_relay_it_waits_until_the_lease_is_over() {
    let mut rig = Rig::new(200..=200).far();
    let address = rig.lease(1);
    rig.seats.insert(mac(2), address);
    rig.subnet = far(&subnet(201..=250, &[address]));
    let waits = nothing(EventKind::Ignored(Reason::StillLent));
    for asks in [discover(2), select(2, address), reboot(2, address)] {
        assert!(waits(&rig.run(&asks)));
    }
    assert_eq!(rig.server.lookup(mac(1), rig.now), Some(address));
    // Its firmware asks again.
    rig.pass(LEASE + 3);
    assert_eq!(rig.lease(2), address);
    assert!(rig.disk.leases.is_empty());

    // Or until who has it is told by a renewal, and moves.
    let mut rig = Rig::new(200..=200).far();
    let address = rig.lease(1);
    rig.seats.insert(mac(2), address);
    rig.subnet = far(&subnet(200..=201, &[address]));
    assert!(waits(&rig.run(&discover(2))));
    assert_eq!(replies(&rig.run(&renew(1, address))), [NAK]);
    assert_eq!(rig.lease(1), at(201));
    assert_eq!(rig.lease(2), address);
}

#[test]
fn a_lease_of_the_machine_itself_is_no_other_machines() {
    let mut rig = Rig::new(200..=200).far();
    let address = rig.lease(1);
    (rig.seats, rig.macs) = (BTreeMap::from([(mac(2), address)]), vec![mac(1), mac(2)]);
    assert_eq!(rig.lease(2), address, "it boots by its other NIC now");
    assert!(rig.disk.leases.is_empty());

    // Asked by another type of hardware.
    let mut rig = Rig::new(200..=200).far();
    let address = rig.lease(1);
    rig.seats = BTreeMap::from([(mac(1), address)]);
    let mut other = discover(1);
    other.htype = 6;
    assert_eq!(replies(&rig.run(&other)), [(MessageType::Offer, address)]);
    assert_eq!(rig.lease(1), address, "and its own");
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
    assert!(rig.disk.leases.is_empty());
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
    assert_eq!(rig.disk.leases.len(), 1);
    assert_eq!(rig.server.lookup(mac(1), rig.now), Some(moved));
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
fn a_clock_that_is_set_ends_no_lease_at_the_next_start() {
    const YEARS: u64 = 50 * 365 * 86_400;
    for wall in [1_700_000_000 + YEARS, 1_700_000_000 - YEARS] {
        let mut rig = Rig::new(200..=202);
        let (first, second) = (rig.lease(1), rig.lease(2));
        rig.pass(LEASE / 2);
        // One lease is on its way to the journal, by the former time.
        let (confirmed, change) = commits(&rig.send(&renew(2, second)))[0].clone();
        rig.now.wall = wall;
        rig.disk.apply(change);
        let effects = rig.server.committed(confirmed, true, rig.now);
        assert_eq!(replies(&effects), [(MessageType::Ack, second)]);
        rig.carry_out(effects, &HashSet::new());
        let third = rig.lease(3);
        let before = rig.server.leases(rig.now);
        rig.restart();
        assert_eq!(rig.server.leases(rig.now), before);
        for (passes, left) in [
            (0, [Some(first), Some(second), Some(third)]),
            (LEASE / 2 + 3, [None, Some(second), Some(third)]),
        ] {
            rig.pass(passes);
            rig.restart();
            assert_eq!([1, 2, 3].map(|last| rig.server.lookup(mac(last), rig.now)), left);
        }
        rig.pass(LEASE / 2);
        rig.restart();
        assert!(rig.server.leases(rig.now).iter().all(|lease| lease.left.is_none()));
    }
}

#[test]
fn that_the_clock_was_set_is_written_until_the_journal_has_it() {
    let mut rig = Rig::new(200..=201);
    let address = rig.lease(1);
    rig.now.wall += 1_000_000;
    let [(ticket, LeaseChange::Clock(set))] = commits(&rig.server.on_deadline(rig.now))[..] else {
        panic!("it is seen without anybody who asks")
    };
    drop(rig.server.committed(ticket, false, rig.now));
    // A lease by the new time comes first; and then it is set once more.
    rig.lease(2);
    rig.now.wall -= 2_000_000;
    let mut written = Vec::new();
    while !rig.server.clock.is_idle() {
        rig.pass(1);
        assert_eq!(rig.server.next_deadline(), Some(rig.now.mono));
        let effects = rig.server.on_deadline(rig.now);
        written.extend(commits(&effects).into_iter().map(|(_, change)| change));
        rig.carry_out(effects, &HashSet::new());
    }
    assert!(
        matches!(written[..], [LeaseChange::Clock(again), LeaseChange::Clock(_)] if again == set)
    );
    let before = rig.server.leases(rig.now);
    rig.restart();
    assert_eq!((rig.server.leases(rig.now), before[0].record.address), (before, address));
    assert!(commits(&rig.server.on_deadline(rig.now)).is_empty());
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
