//! Swaps, rings, fences and deaths, one after another.

use super::*;

#[test]
fn a_swap_goes_well_in_either_order() {
    for order in [[0, 1], [1, 0]] {
        let mut rack = Rack::up();
        rack.matrix(vec![1, 0, 2]);
        let [first, second] = order;
        rack.boot(first);
        rack.check();
        assert_eq!(rack.planned(first), None);
        let text = rack.script(first);
        let (seat, holder) = (seat_name(second), format!("m{:02}", second + 1));
        assert!(text.contains(&format!("waits for {seat}, which {holder} holds")), "{text}");
        assert!(text.contains(&format!("koboshi fence {holder} --by-hand")), "{text}");
        for _ in 0..20 {
            rack.ask_again(first);
            rack.check();
        }
        let waits = rack.told.iter().filter(|told| told.starts_with("waits")).count();
        assert_eq!(waits, 1, "a wait is told once: {:?}", rack.told);

        // The second one is restarted and finds its seat free at once: the first one left it.
        rack.boot(second);
        rack.check();
        assert_eq!(rack.planned(second), Some(seat_name(first)));
        rack.ask_again(first);
        rack.check();
        assert_eq!(rack.planned(first), Some(seat_name(second)));
        assert_eq!(rack.told.iter().filter(|told| told.contains("free:")).count(), 2);
    }
}

/// The second one's DISCOVER comes before the first one's ACK, which leaves its seat, and its REQUEST after it.
#[test]
fn who_was_offered_an_address_to_wait_at_takes_it_and_boots_into_its_seat() {
    // One that is not heard of is believed to have been reset. An offer is late if its address is probed first.
    for (heard, late) in [(true, false), (false, false), (true, true), (false, true)] {
        let mut rack = Rack::up();
        if !heard {
            rack.desk.inner().boots.of_mut(mac(1)).expect("a boot").heard = None;
        }
        rack.matrix(vec![1, 0, 2]);
        rack.reset(0);
        rack.reset(1);
        rack.discover(0, Client::Ipxe);
        match late {
            true => rack.offered[1] = Some(rack.given(1, Client::Ipxe, true)),
            false => rack.discover(1, Client::Ipxe),
        }
        assert_eq!(rack.offered[..2], [Some(pool_at(0)), Some(pool_at(1))], "in each other's way");
        assert!(rack.request(0, Client::Ipxe));
        rack.script(0);
        if late {
            rack.desk.offered(&Rack::facts(1, Client::Ipxe, true), &at(pool_at(1)));
        }
        assert!(rack.request(1, Client::Ipxe), "it has what it was offered, whatever is free now");
        rack.check();
        let told = rack.script(1);
        // A boot that waits was opened by its offer: that goes on by asking again.
        let waits = !heard && !late;
        let wanted = if waits { "it asks DHCP again" } else { "m02 boots into web1" };
        assert!(told.contains(wanted), "{told}");
        rack.check();
        if waits {
            rack.ask_again(1);
        }
        rack.ask_again(0);
        for (machine, seat) in [(0, "web2"), (1, "web1")] {
            assert_eq!(rack.planned(machine), Some(seat.into()), "{heard} {late}");
        }
        rack.check();
    }
}

/// What is asked in the name of a running machine's other NIC begins nothing, whoever fetches from what that is lent.
#[test]
fn another_nic_is_lent_an_address_and_begins_no_boot() {
    let mut rack = Rack::up();
    let running = rack.desk.boot_of(mac(0)).expect("a boot").id;
    let asks = |discover| Asks::Dhcp { client: Client::Ipxe, archs: vec![Arch::BIOS], discover };
    let other = Facts { mac: second(0), asks: asks(false) };
    assert!(matches!(rack.desk.ask(&other).action, Action::Address { address: None, .. }));
    rack.desk.acked(&other, &at(pool_at(0)), None);
    rack.desk.script(second(0), IpAddr::V4(pool_at(0)));
    assert_eq!(rack.desk.boot_of(mac(0)).map(|boot| boot.id), Some(running));
    assert_eq!(rack.report(0), Some(Ok(())));
    rack.check();
}

#[test]
fn both_of_a_swap_and_three_in_a_ring_restart_at_one_moment() {
    for matrix in [vec![1, 0, 2], vec![1, 2, 0], vec![2, 0, 1]] {
        let mut rack = Rack::up();
        rack.matrix(matrix.clone());
        for machine in 0..MACHINES {
            rack.reset(machine);
            rack.discover(machine, Client::Ipxe);
            rack.check();
        }
        for machine in [2, 0, 1] {
            rack.request(machine, Client::Ipxe);
            rack.script(machine);
            rack.check();
        }
        for _ in 0..2 {
            (0..MACHINES).for_each(|machine| rack.ask_again(machine));
            rack.check();
        }
        for (machine, seat) in matrix.iter().enumerate() {
            assert_eq!(rack.planned(machine), Some(seat_name(*seat)), "{matrix:?}");
        }
    }
}

#[test]
fn one_discover_in_its_name_costs_a_machine_nothing() {
    // A whole exchange in its name: nothing on the wire tells that from its firmware, but it reports.
    let mut rack = Rack::up();
    rack.matrix(vec![1, 0, 2]);
    rack.discover(0, Client::Firmware);
    rack.desk.acked(&Rack::facts(0, Client::Firmware, false), &at(pool_at(0)), None);
    rack.boot(1);
    rack.check();
    assert_eq!(rack.planned(1), None, "m01 has not left: nobody took up what it was offered");
    assert_eq!(rack.report(0), Some(Ok(())));
    // One that reported a while ago is believed to be reset; if it was not, it reports again.
    let mut rack = Rack::up();
    rack.matrix(vec![1, 0, 2]);
    rack.desk.inner().boots.of_mut(mac(0)).expect("a boot").heard = None;
    rack.discover(0, Client::Firmware);
    rack.boot(1);
    rack.check();
    assert_eq!(rack.planned(1), None, "m01 has not left: nobody took up what it was offered");
    let id = rack.runs[0].expect("it runs");
    rack.desk.acked(&Rack::facts(0, Client::Firmware, false), &at(pool_at(0)), None);
    rack.write();
    assert!(rack.desk.holders().iter().all(|holder| holder.seat != "web1"));
    assert_eq!(rack.report(0), Some(Err(ReportRefusal::NoSuchBoot)));
    rack.write();
    assert!(rack.told.contains(&format!("stray: {id}")), "{:?}", rack.told);
    let holder = Holder {
        seat: "web1".into(),
        address: seat_at(0),
        machine: "m01".into(),
        mac: mac(0),
        boot: id,
        since: SystemTime::now(),
        heard: Some(SystemTime::now()),
        down: false,
    };
    assert_eq!(rack.desk.alive(holder.clone()), None);
    rack.write();
    rack.ask_again(1);
    rack.check();
    assert_eq!(rack.planned(1), None, "m01 is in its seat");
    // Where the seat has been given away meanwhile, that is said instead.
    rack.fence(0);
    rack.ask_again(1);
    assert_eq!(rack.planned(1), Some("web1".into()));
    assert_eq!(rack.desk.alive(holder).map(|other| other.machine), Some("m02".into()));
}

#[test]
fn a_fenced_machine_is_out_and_who_waits_is_in() {
    let mut rack = Rack::up();
    rack.matrix(vec![1, 0, 2]);
    let running = rack.runs[0].expect("it runs");
    rack.boot(1);
    let freed = rack.fence(0);
    assert_eq!(freed.iter().map(|holder| holder.seat.as_str()).collect::<Vec<_>>(), ["web1"]);
    rack.write();
    rack.ask_again(1);
    rack.check();
    assert_eq!(rack.planned(1), Some("web1".into()));
    // It was not off at all.
    let peer = IpAddr::V4(seat_at(0));
    let refused = rack.desk.report(running, peer, Bytes::from_static(b"{}"));
    assert_eq!(refused.map(drop), Err(ReportRefusal::NoSuchBoot));
    rack.write();
    assert!(rack.told.iter().any(|told| told.starts_with("stray")), "{:?}", rack.told);
    assert!(rack.fence(0).is_empty());
}

#[test]
fn a_machine_that_dies_at_any_stage_keeps_its_seat_until_it_is_fenced() {
    for steps in 0..4 {
        let mut rack = Rack::new(Exclusive::Fence);
        rack.discover(0, Client::Ipxe);
        if steps > 0 {
            rack.request(0, Client::Ipxe);
        }
        if steps > 1 {
            rack.script(0);
        }
        if steps > 2 {
            rack.report(0);
        }
        rack.write();
        rack.matrix(vec![1, 0, 2]);
        for restarted in [false, true] {
            if restarted {
                rack.restart();
            }
            rack.reset(0);
            rack.boot(1);
            assert_eq!(rack.planned(1), None, "{steps} steps, restarted: {restarted}");
        }
        rack.fence(0);
        rack.ask_again(1);
        rack.check();
        assert_eq!(rack.planned(1), Some("web1".into()));
    }
}

#[test]
fn a_machine_that_said_it_shuts_down_is_not_off_by_that() {
    let mut rack = Rack::up();
    let id = rack.runs[0].expect("it runs");
    assert!(rack.desk.reached(id, Stage::Down));
    rack.matrix(vec![1, 0, 2]);
    rack.boot(1);
    assert_eq!(rack.planned(1), None);
    let text = rack.script(1);
    assert!(text.contains("it shuts down, which does not prove that it stays off"), "{text}");
}

#[test]
fn a_seat_that_needs_no_fence_moves_when_nobody_answers() {
    let mut rack = Rack::new(Exclusive::Probe);
    (0..MACHINES).for_each(|machine| rack.boot(machine));
    rack.matrix(vec![1, 0, 2]);
    rack.boot(1);
    let looks = |rack: &mut Rack| {
        rack.write();
        rack.told.iter().filter(|told| *told == "look for m01 for m02").count()
    };
    assert_eq!(looks(&mut rack), 0, "DHCP asks for it, where the link is");
    rack.desk.look_for_holder(mac(1));
    rack.desk.look_for_holder(mac(1));
    assert_eq!(looks(&mut rack), 1, "one look at a time");
    // An answer that comes late, for a boot that holds the seat no more, moves nothing.
    let holder = rack.desk.holders().into_iter().find(|holder| holder.seat == "web1");
    let holder = holder.expect("held");
    let other = Holder { boot: BootId([9; 16]), ..holder.clone() };
    assert!(!rack.desk.vacate(&other, "nobody answers".into()));
    // Nor one for a machine that has reported meanwhile.
    rack.report(0);
    assert!(!rack.desk.vacate(&holder, "nobody answers".into()));
    let holder = rack.desk.holders().into_iter().find(|holder| holder.seat == "web1");
    rack.reset(0);
    assert!(rack.desk.vacate(&holder.expect("held"), "nobody answers".into()));
    rack.write();
    rack.ask_again(1);
    rack.check();
    assert_eq!(rack.planned(1), Some("web1".into()));
    rack.restart();
    rack.check();
    assert_eq!(rack.planned(1), Some("web1".into()));

    // A machine between loader and koboshi-init answers nobody either, and is on its way.
    let mut rack = Rack::new(Exclusive::Probe);
    rack.discover(0, Client::Ipxe);
    rack.request(0, Client::Ipxe);
    rack.script(0);
    rack.matrix(vec![1, 0, 2]);
    rack.boot(1);
    rack.desk.look_for_holder(mac(1));
    assert_eq!(looks(&mut rack), 0);
    // What needs a fence is not asked for.
    let mut rack = Rack::up();
    rack.matrix(vec![1, 0, 2]);
    rack.boot(1);
    rack.desk.look_for_holder(mac(1));
    assert_eq!(looks(&mut rack), 0);
}

#[test]
fn two_nics_of_a_machine_never_have_two_seats_nor_one_address_twice() {
    let mut rack = Rack::up();
    let ask = |rack: &Rack, client, discover| {
        let asks = Asks::Dhcp { client, archs: vec![], discover };
        let step = rack.desk.ask(&Facts { mac: second(0), asks });
        match step.action {
            Action::Address { address, hostname, loader, opens } => {
                assert!(address.is_some() || (hostname.is_none() && loader.is_none() && !opens));
                (address, step.because.contains(&Rule::OtherNic))
            }
            other => panic!("an address, not {other:?}"),
        }
    };
    // Its system asks by the other NIC too: an address of the pool, also once the matrix has changed.
    assert_eq!(ask(&rack, Client::System, true), (None, true));
    rack.matrix(vec![1, 0, 2]);
    assert_eq!(ask(&rack, Client::System, true), (None, true));
    assert_eq!(ask(&rack, Client::System, false), (None, true));
    rack.matrix(vec![0, 1, 2]);
    // Its firmware asks by the other NIC: a boot of the whole machine, and what ran does not.
    assert_eq!(ask(&rack, Client::Firmware, true), (Some(seat_at(0)), false));
    let asks = Asks::Dhcp { client: Client::Firmware, archs: vec![], discover: true };
    rack.desk.offered(&Facts { mac: second(0), asks }, &at(seat_at(0)));
    assert!(rack.desk.boot_of(mac(0)).is_some(), "it ran a moment ago, and this may not be it");
    rack.desk.script(second(0), seat_at(0).into());
    assert!(rack.desk.boot_of(mac(0)).is_none());
    rack.check();
    // A REQUEST that was under way by the first NIC comes too late.
    assert_eq!(rack.given(0, Client::Firmware, false), pool_at(0));
}

#[test]
fn an_offer_whose_seat_was_given_away_meanwhile_opens_nothing() {
    let mut rack = Rack::new(Exclusive::Fence);
    let address = rack.given(0, Client::Ipxe, true);
    assert_eq!(address, seat_at(0));
    rack.matrix(vec![1, 0, 2]);
    rack.boot(1);
    assert_eq!(rack.planned(1), Some("web1".into()));
    rack.matrix(vec![0, 1, 2]);
    rack.desk.offered(&Rack::facts(0, Client::Ipxe, true), &at(address));
    rack.check();
    assert!(rack.desk.boot_of(mac(0)).is_none());
    assert_eq!(rack.given(0, Client::Ipxe, false), pool_at(0), "and is refused");
}
