//! Leases that go out ahead of the disk, and what is left of them when the host loses its power.

use super::*;

/// A pool of a /24, on the link or behind a relay.
fn rig(relayed: bool) -> Rig {
    let rig = Rig::new(100..=250);
    if relayed { rig.far() } else { rig }
}

/// DISCOVER to what is to be written.
fn asks(rig: &mut Rig, last: u16) -> (Ipv4Addr, Vec<(Ticket, LeaseChange, bool)>) {
    let address = replies(&rig.run(&discover(last)))[0].1;
    let commits = rig.send(&select(last, address)).into_iter().filter_map(|effect| match effect {
        Effect::Commit { ticket, change, durable } => Some((ticket, change, durable)),
        _ => None,
    });
    (address, commits.collect())
}

/// Machines from this one on ask until one is lent an address ahead of the disk, whose entry is lost with the host's power:
/// its address, and who comes next.
fn storm_and_loss(rig: &mut Rig, first: u16) -> (Ipv4Addr, u16) {
    let mut waiting = Vec::new();
    for last in first..first + 100 {
        let (address, commits) = asks(rig, last);
        if let [(ticket, LeaseChange::Put(_), false)] = &commits[..] {
            let sent = rig.server.committed(*ticket, true, rig.now);
            assert_eq!(replies(&sent), [(MessageType::Ack, address)]);
            rig.disk.lose_power(rig.now.wall);
            rig.restart();
            return (address, last + 1);
        }
        assert!(commits.iter().all(|(_, _, durable)| *durable));
        waiting.extend(commits);
        if waiting.len() > 4 {
            for (ticket, change, _) in waiting.drain(..) {
                rig.disk.apply(change);
                drop(rig.server.committed(ticket, true, rig.now));
            }
        }
    }
    panic!("a hundred machines at once are a storm");
}

#[test]
fn few_machines_wait_for_the_disk_and_a_storm_does_not() {
    let mut rig = rig(true);
    for last in 0..20 {
        let (_, commits) = asks(&mut rig, last);
        let [(ticket, change, true)] = &commits[..] else { panic!("{commits:?}") };
        rig.disk.apply(change.clone());
        drop(rig.server.committed(*ticket, true, rig.now));
    }
    assert!(rig.disk.ahead.is_empty());
    // What is its own need not wait.
    let address = rig.server.lookup(mac(3), rig.now).expect("it has one");
    rig.pass(LEASE / 2);
    let effects = rig.send(&renew(3, address));
    assert!(matches!(effects[..], [Effect::Commit { durable: false, .. }]), "{effects:?}");
    rig.carry_out(effects, &HashSet::new());

    let mut waiting = Vec::new();
    for last in 20..24 {
        waiting.extend(asks(&mut rig, last).1);
    }
    let Some((_, LeaseChange::Ahead(ahead), true)) = waiting.last().cloned() else {
        panic!("{waiting:?}")
    };
    assert_eq!(ahead.stripes.count_ones(), 1);
    let (_, more) = asks(&mut rig, 24);
    assert!(matches!(more[..], [(_, LeaseChange::Put(_), true)]), "the disk does not say it yet");
    for (ticket, _, _) in waiting {
        drop(rig.server.committed(ticket, true, rig.now));
    }
    let (address, more) = asks(&mut rig, 25);
    assert!(matches!(more[..], [(_, LeaseChange::Put(_), false)]), "{more:?}");
    assert_eq!(ahead.stripes, 1 << (address.to_bits() & 15));
    // Such an address comes back: until the disk says so too, the next one waits.
    drop(rig.server.committed(more[0].0, true, rig.now));
    rig.run(&give_back(25, address));
    let mut wants = discover(26);
    wants.requested = Some(address);
    assert_eq!(replies(&rig.run(&wants)), [(MessageType::Offer, address)]);
    let effects = rig.send(&select(26, address));
    let all = effects.iter().all(|effect| matches!(effect, Effect::Commit { durable: true, .. }));
    assert!(all && effects.len() == 2, "{effects:?}");
    for (ticket, _) in commits(&effects) {
        drop(rig.server.committed(ticket, true, rig.now));
    }

    // And it passes.
    rig.pass(60);
    let effects = rig.server.on_deadline(rig.now);
    let [(_, LeaseChange::Ahead(closed))] = &commits(&effects)[..] else { panic!("{effects:?}") };
    assert_eq!((closed.first, closed.stripes), (ahead.first, 0));
    assert!(matches!(asks(&mut rig, 27).1[..], [(_, LeaseChange::Put(_), true)]));
}

#[test]
fn what_may_be_lent_behind_a_relay_goes_to_nobody_but_who_says_so() {
    let mut rig = rig(true);
    let (address, next) = storm_and_loss(&mut rig, 0);
    // All others find room beside it.
    for last in next..next + 100 {
        assert_ne!(rig.lease(last), address);
        assert_eq!(replies(&rig.run(&select(last, address))), [NAK]);
    }
    let mut wants = discover(next + 100);
    wants.requested = Some(address);
    assert_ne!(replies(&rig.run(&wants))[0].1, address, "a wish is no lease");
    // Over a `kill -9` too.
    rig.restart();
    let its = renew(next - 1, address);
    assert_eq!(replies(&rig.run(&its)), [(MessageType::Ack, address)], "it has it");
}

/// Where its machine cannot be asked. What was a seat's before has been lent to nobody.
#[test]
fn a_doubtful_address_is_no_seats_until_the_doubt_has_passed() {
    let mut rig = rig(true);
    let (address, next) = storm_and_loss(&mut rig, 0);
    let reserve = |rig: &mut Rig| {
        rig.subnet = far(&subnet(100..=250, &[address]));
        rig.seats.insert(mac(next), address);
    };
    reserve(&mut rig);
    let waits = nothing(EventKind::Ignored(Reason::StillLent));
    assert!(waits(&rig.run(&discover(next))));
    assert!(waits(&rig.run(&select(next, address))));
    rig.pass(LEASE + 60);
    drop(rig.server.on_deadline(rig.now));
    assert_eq!(rig.lease(next), address);

    // It is the seat's own machine that has had the lost lease.
    let mut rig = self::rig(true);
    let (address, next) = storm_and_loss(&mut rig, 0);
    rig.seats.insert(mac(next - 1), address);
    let its = renew(next - 1, address);
    assert_eq!(replies(&rig.run(&its)), [(MessageType::Ack, address)]);

    let mut rig = self::rig(true);
    let (address, next) = storm_and_loss(&mut rig, 0);
    rig.subnet = far(&subnet(100..=250, &[address]));
    rig.seats.insert(mac(next), address);
    rig.server.had(rig.subnet.reserved.iter().copied(), rig.now);
    assert_eq!(rig.lease(next), address);
}

#[test]
fn a_doubt_passes() {
    let mut rig = rig(true);
    let (address, next) = storm_and_loss(&mut rig, 0);
    let mut wants = discover(next);
    wants.requested = Some(address);
    rig.pass(LEASE);
    assert_ne!(replies(&rig.run(&wants))[0].1, address);
    rig.pass(60);
    drop(rig.server.on_deadline(rig.now));
    assert_eq!(replies(&rig.run(&wants))[0].1, address);
}

#[test]
fn on_the_link_a_doubtful_address_goes_last_and_nobody_may_answer_for_it() {
    let mut rig = rig(false);
    let (address, next) = storm_and_loss(&mut rig, 0);
    rig.subnet =
        subnet(100..=250, &(100..=250).map(at).filter(|at| *at != address).collect::<Vec<_>>());
    let effects = rig.send(&discover(next));
    assert_eq!(probes(&effects), [address]);
    let effects = rig.carry_out(effects, &HashSet::from([address]));
    assert!(replies(&effects).is_empty(), "{effects:?}");
    rig.pass(700);
    drop(rig.server.on_deadline(rig.now));
    assert_eq!(rig.lease(next), address, "it went");
}

/// Confirmed once more, which is lost; and an address whose former holder's end is lost.
#[test]
fn what_the_disk_says_is_taken_for_as_much_as_it_may_have_become() {
    let mut rig = rig(true);
    let address = rig.lease(1);
    rig.pass(LEASE - 10);
    let effects = rig.send(&renew(1, address));
    let [Effect::Commit { ticket, durable: false, .. }] = effects[..] else {
        panic!("{effects:?}")
    };
    assert_eq!(
        replies(&rig.server.committed(ticket, true, rig.now)),
        [(MessageType::Ack, address)]
    );
    rig.disk.lose_power(rig.now.wall);
    rig.restart();
    rig.pass(LEASE - 10);
    assert_eq!(rig.server.lookup(mac(1), rig.now), Some(address));
    rig.pass(20);
    assert_eq!(rig.server.lookup(mac(1), rig.now), None);

    // For longer than before, or after it ran out: that waits for the disk.
    let wait = |effects: &[Effect]| matches!(effects, [Effect::Commit { durable: true, .. }]);
    assert!(wait(&rig.server.keep(mac(1), rig.now)));
    let mut rig = Rig::new(200..=200);
    let address = rig.lease(1);
    let mut longer = rig.subnet.as_ref().clone();
    longer.lease *= 2;
    rig.subnet = Arc::new(longer);
    assert!(wait(&rig.send(&renew(1, address))));
    // Another one's of before.
    let mut rig = Rig::new(200..=200);
    rig.lease(1);
    rig.pass(LEASE + 3);
    let offer = replies(&rig.run(&discover(2)))[0].1;
    let effects = rig.send(&select(2, offer));
    let all = effects.iter().all(|effect| matches!(effect, Effect::Commit { durable: true, .. }));
    assert!(all && effects.len() == 2, "{effects:?}");
}

/// The end of a lease, while it is being confirmed or its machine moves: it is not the new one that ends.
#[test]
fn what_ends_is_not_what_is_being_written() {
    let mut rig = Rig::new(200..=201);
    let address = rig.lease(1);
    for end in [decline(1, address), give_back(1, address)] {
        rig.pass(LEASE / 2);
        let (ticket, _) = commits(&rig.send(&renew(1, address)))[0].clone();
        assert!(nothing(EventKind::Ignored(Reason::Busy))(&rig.send(&end)));
        drop(rig.server.committed(ticket, true, rig.now));
    }
    rig.pass(LEASE / 2);
    let (ticket, change) = commits(&rig.send(&renew(1, address)))[0].clone();
    rig.disk.apply(change);
    rig.seats.insert(mac(1), at(11));
    assert!(nothing(EventKind::Ignored(Reason::Busy))(&rig.send(&select(1, at(11)))));
    drop(rig.server.committed(ticket, true, rig.now));

    // Its address has become a seat's while it moves away: the seat's machine is told of nobody there.
    let mut rig = Rig::new(200..=201);
    let address = rig.lease(1);
    rig.seats.insert(mac(2), address);
    rig.subnet = subnet(200..=201, &[address]);
    let other = replies(&rig.run(&discover(1)))[0].1;
    let (ticket, change) = commits(&rig.send(&select(1, other)))[0].clone();
    let effects = rig.send(&discover(2));
    rig.disk.apply(change);
    drop(rig.carry_out(effects, &HashSet::new()));
    drop(rig.server.committed(ticket, true, rig.now));
    rig.restart();
    assert_eq!(rig.server.lookup(mac(1), rig.now), Some(other));
}
