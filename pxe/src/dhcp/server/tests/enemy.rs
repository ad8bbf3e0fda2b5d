//! One machine on the wire that sends what it likes, in whatever name.

use super::*;
use crate::dhcp::share::FIRST_LEASE;

fn crowded(effects: &Effects) -> bool {
    matches!(&events(effects)[..], [EventKind::Crowded(_)])
}

/// Of so many invented machines, those that get an address.
fn starve(rig: &mut Rig, machines: std::ops::Range<u16>) -> Vec<(u16, Ipv4Addr)> {
    let mut taken = Vec::new();
    for number in machines {
        if let [(MessageType::Offer, offered)] = replies(&rig.run(&discover(number)))[..] {
            assert_eq!(replies(&rig.run(&select(number, offered))), [(MessageType::Ack, offered)]);
            taken.push((number, offered));
        }
    }
    taken
}

#[test]
fn invented_machines_do_not_empty_the_pool_and_the_sites_own_are_served() {
    let mut rig = Rig::new(101..=180);
    rig.who = Who::Stranger;
    // Ten are kept, and half of the rest is for those that have not booted.
    let taken = starve(&mut rig, 1000..5000);
    assert_eq!(taken.len(), 35);
    assert!(crowded(&rig.run(&discover(6000))));
    rig.who = Who::Machine;
    for number in 1..=45 {
        rig.lease(number);
    }
    // Their leases are short, and over two minutes later; they are not remembered for long either.
    rig.who = Who::Stranger;
    assert!(rig.disk.leases.values().filter(|lease| lease.seconds == FIRST_LEASE).count() == 35);
    rig.pass(u64::from(FIRST_LEASE) + 3);
    let out = rig.server.on_deadline(rig.now);
    rig.carry_out(out, &HashSet::new());
    assert_eq!(starve(&mut rig, 7000..7100).len(), 35);
    rig.pass(u64::from(FIRST_LEASE) + 700);
    let out = rig.server.on_deadline(rig.now);
    rig.carry_out(out, &HashSet::new());
    assert_eq!(rig.disk.leases.len(), 45);
}

#[test]
fn a_lease_given_back_again_and_again_is_written_once() {
    let mut rig = Rig::new(200..=201);
    let address = rig.lease(1);
    assert_eq!(commits(&rig.send(&give_back(1, address))).len(), 1);
    let over = nothing(EventKind::Ignored(Reason::NotItsOwn));
    (0..100).for_each(|_| assert!(over(&rig.send(&give_back(1, address)))));
    // An offer is given back too, and was written nowhere.
    assert_eq!(replies(&rig.run(&discover(1))), [(MessageType::Offer, address)]);
    assert!(nothing(EventKind::Released)(&rig.send(&give_back(1, address))));
    // Of another address than that of its lease, which stays.
    assert_eq!(rig.lease(1), address);
    rig.subnet = subnet(201..=201, &[]);
    assert_eq!(replies(&rig.run(&discover(1))), [(MessageType::Offer, at(201))]);
    assert!(nothing(EventKind::Released)(&rig.send(&give_back(1, at(201)))));
    assert_eq!(rig.server.lookup(mac(1), rig.now), Some(address));
}

#[test]
fn a_stranger_that_boots_has_the_whole_lease() {
    let mut rig = Rig::new(101..=180);
    rig.who = Who::Stranger;
    let address = rig.lease(1);
    assert_eq!(rig.disk.leases.values().next().map(|lease| lease.seconds), Some(FIRST_LEASE));
    let effects = rig.server.keep(mac(1), rig.now);
    rig.carry_out(effects, &HashSet::new());
    assert_eq!(rig.disk.leases.values().next().map(|lease| lease.seconds), Some(3600));
    rig.pass(3000);
    assert_eq!(rig.server.lookup(mac(1), rig.now), Some(address));
    // By its loader, without a report.
    rig.lease(2);
    rig.who = Who::Booted;
    rig.lease(2);
    assert!(rig.disk.leases.values().all(|lease| lease.seconds == 3600));
}

#[test]
fn what_strangers_have_is_counted_over_a_restart() {
    let mut rig = Rig::new(101..=180);
    rig.who = Who::Stranger;
    let taken = starve(&mut rig, 1000..1200);
    assert_eq!(taken.len(), 35);
    rig.restart();
    let subnet = rig.subnet.clone();
    rig.server.count_strangers(|_| Some(subnet.clone()), rig.now);
    assert!(crowded(&rig.run(&discover(6000))));
    let (number, address) = taken[7];
    assert_eq!(replies(&rig.run(&renew(number, address))), [(MessageType::Ack, address)]);
}

#[test]
fn questions_without_end_cost_no_write_each() {
    let mut rig = Rig::new(101..=180);
    let address = rig.lease(1);
    let mut writes = 0;
    for _ in 0..100 {
        let effects = rig.send(&renew(1, address));
        writes += commits(&effects).len();
        assert_eq!(replies(&rig.carry_out(effects, &HashSet::new())).len(), 1);
    }
    assert_eq!(writes, 0);
    rig.pass(LEASE / 2);
    assert_eq!(commits(&rig.send(&renew(1, address))).len(), 1, "one half is over");
}

#[test]
fn declines_without_end_leave_a_part_of_the_pool() {
    let mut rig = Rig::new(101..=180);
    for (who, number) in [(Who::Stranger, 1000), (Who::Machine, 1)] {
        rig.who = who;
        for _ in 0..500 {
            if let [(MessageType::Offer, offered)] = replies(&rig.run(&discover(number)))[..] {
                rig.run(&decline(number, offered));
            }
        }
    }
    rig.who = Who::Machine;
    for number in 2..=10 {
        rig.lease(number);
    }
}

#[test]
fn a_machine_that_claims_every_address_is_believed_of_a_part() {
    let mut rig = Rig::new(101..=180);
    let all: HashSet<Ipv4Addr> = (101..=180).map(at).collect();
    let mut asked = 0;
    let (offered, told) = loop {
        let effects = rig.send(&discover(1));
        let effects = rig.carry_out(effects, &all);
        asked += 1;
        if let [(MessageType::Offer, offered)] = replies(&effects)[..] {
            break (offered, events(&effects));
        }
        assert!(asked < 40, "it gets one before long");
    };
    assert!(told.contains(&EventKind::Disbelieved), "{told:?}");
    assert_eq!(replies(&rig.run(&select(1, offered))), [(MessageType::Ack, offered)]);
    // A pool where a handful is really taken by others is not mistaken for that.
    let mut rig = Rig::new(101..=180);
    let taken: HashSet<Ipv4Addr> = (101..=130).map(at).collect();
    for number in 1..=40 {
        for _ in 0..9 {
            let effects = rig.send(&discover(number));
            let effects = rig.carry_out(effects, &taken);
            assert!(!events(&effects).contains(&EventKind::Disbelieved));
            if let [(MessageType::Offer, offered)] = replies(&effects)[..] {
                assert!(!taken.contains(&offered));
                rig.run(&select(number, offered));
                break;
            }
        }
    }
}

#[test]
fn what_is_given_up_in_the_name_of_a_machine_that_runs_stays_its_own() {
    let mut rig = Rig::new(101..=180);
    let address = rig.lease(1);
    let forged = nothing(EventKind::Ignored(Reason::NotItself));
    let mut elsewhere = give_back(1, address);
    elsewhere.heard.from = at(66);
    assert!(forged(&rig.run(&elsewhere)), "not from the address that it gives back");
    rig.runs = true;
    assert!(forged(&rig.run(&give_back(1, address))));
    assert!(forged(&rig.run(&decline(1, address))));
    assert_eq!(rig.server.lookup(mac(1), rig.now), Some(address));
    // Where it is not known to run, its next report finds the address where it was.
    rig.runs = false;
    rig.run(&give_back(1, address));
    for number in 2..=60 {
        assert_ne!(rig.lease(number), address, "it is the last to go");
    }
    let effects = rig.server.keep(mac(1), rig.now);
    rig.carry_out(effects, &HashSet::new());
    assert_eq!(rig.server.lookup(mac(1), rig.now), Some(address));
}

#[test]
fn strangers_leave_room_for_offers_to_others() {
    let mut rig = Rig::new(1..=1);
    let mut wide = Subnet::new(SERVER, Ipv4Addr::new(10, 64, 0, 0), 10);
    wide.pool = Some(Ipv4Addr::new(10, 64, 0, 1)..=Ipv4Addr::new(10, 127, 0, 1));
    wide.reserved = Arc::new((0..=255).map(at).collect());
    rig.subnet = Arc::new(wide);
    rig.who = Who::Stranger;
    let asked = (0..9000).map(|number| rig.run(&discover(number)));
    let offers = asked.filter(|effects| !replies(effects).is_empty()).count();
    assert_eq!(offers, MAX_HOLDS / STRANGERS);
    rig.who = Who::Machine;
    rig.lease(9999);
}
