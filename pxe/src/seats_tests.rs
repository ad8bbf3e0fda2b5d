//! The table of seats alone: who may have what.

use std::time::Duration;

use super::*;

const SEAT: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 11);
const M01: [Mac; 2] = [Mac([2, 0, 0, 0, 0, 1]), Mac([2, 0, 0, 0, 1, 1])];
const M02: [Mac; 1] = [Mac([2, 0, 0, 0, 0, 2])];

fn one() -> Hardware<'static> {
    Hardware { name: "m01", macs: &M01 }
}

fn two() -> Hardware<'static> {
    Hardware { name: "m02", macs: &M02 }
}

fn holder(seat: &str, address: Ipv4Addr, who: Hardware<'_>, boot: u8) -> Holder {
    Holder {
        seat: seat.into(),
        address,
        machine: who.name.into(),
        mac: who.macs[0],
        boot: BootId([boot; 16]),
        since: SystemTime::UNIX_EPOCH,
        heard: None,
        down: false,
    }
}

#[test]
fn a_seat_is_one_machines_until_it_leaves() {
    let mut seats = Seats::default();
    assert!(seats.promise(holder("web1", SEAT, one(), 1), one()));
    assert!(!seats.promise(holder("web1", SEAT, two(), 2), two()));
    assert!(seats.promise(holder("web1", SEAT, one(), 3), one()), "it boots again");
    assert_eq!(seats.free("web1", BootId([1; 16])), None, "that boot holds nothing any more");
    assert_eq!(seats.leave(one(), BootId([3; 16])), [], "it is where it boots");
    let left = seats.leave(one(), BootId([4; 16]));
    assert_eq!(left.len(), 1);
    assert!(seats.promise(holder("web1", SEAT, two(), 2), two()));
    assert_eq!(seats.fence("m01"), []);
    assert_eq!(seats.fence("m02").len(), 1);
    assert_eq!(seats.iter().count(), 0);
}

#[test]
fn an_address_that_went_to_another_seat_is_still_its_holders() {
    let mut seats = Seats::default();
    seats.put(holder("web1", SEAT, one(), 1));
    let in_the_way = seats.other("web9", Some(SEAT), two()).expect("m01 has the address");
    assert_eq!(in_the_way.seat, "web1");
    assert!(!seats.promise(holder("web9", SEAT, two(), 2), two()));
    // The machine itself may move from one seat to the other; leaving the first frees no more than that.
    assert!(seats.promise(holder("web9", SEAT, one(), 3), one()));
    assert_eq!(seats.leave(one(), BootId([3; 16])).len(), 1);
    assert_eq!(seats.at(SEAT).map(|holder| holder.seat.as_str()), Some("web9"));
}

#[test]
fn a_machine_renamed_or_with_a_new_nic_is_the_same_machine() {
    let mut seats = Seats::default();
    seats.put(holder("web1", SEAT, one(), 1));
    let renamed = Hardware { name: "m17", macs: &M01 };
    let repaired = Hardware { name: "m01", macs: &M02 };
    assert_eq!(seats.other("web1", Some(SEAT), renamed), None);
    assert_eq!(seats.other("web1", Some(SEAT), repaired), None);
    assert!(seats.other("web1", Some(SEAT), two()).is_some());
}

#[test]
fn what_is_said_of_a_holder_follows_what_was_heard_of_it() {
    let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1000);
    let mut seats = Seats::default();
    seats.put(holder("web1", SEAT, one(), 1));
    let says = |seats: &Seats, exclusive| {
        let held = seats.of("web1").expect("held").held("web1", exclusive, now);
        (held.says(), held.evidence(), held.ends())
    };
    let (says_so, evidence, ends) = says(&seats, Exclusive::Fence);
    assert_eq!(says_so, "waits for web1, which m01 holds");
    assert_eq!(evidence, "it was given to m01 16 min ago, which has not reported since");
    assert!(ends.ends_with("`koboshi fence m01 --by-hand`") && !ends.contains("ARP"), "{ends}");

    assert!(!seats.heard("web1", BootId([2; 16]), now), "that boot has no seat");
    assert!(seats.heard("web1", BootId([1; 16]), now - Duration::from_secs(4)));
    assert_eq!(says(&seats, Exclusive::Fence).1, "m01 has it for 16 min and last reported 4 s ago");
    seats.down("web1", BootId([1; 16]), true);
    let (_, evidence, ends) = says(&seats, Exclusive::Probe);
    assert!(evidence.contains("does not prove"), "{evidence}");
    assert!(ends.contains("answers ARP no more at 10.77.0.11"), "{ends}");
}

#[test]
fn the_link_is_asked_once_in_a_while() {
    let mut seats = Seats::default();
    seats.put(holder("web1", SEAT, one(), 1));
    let (now, pause) = (Instant::now(), Duration::from_secs(5));
    assert!(seats.may_probe("web1", now, pause));
    assert!(!seats.may_probe("web1", now + Duration::from_secs(4), pause));
    assert!(seats.may_probe("web1", now + pause, pause));
}
