use bytes::Bytes;
use tokio::sync::mpsc;

use super::super::News;
use super::super::tests::{MAC, SEAT, at, desk};
use super::*;
use crate::content::BootId;
use crate::decide::Arch;

fn asks(discover: bool) -> Facts {
    Facts {
        mac: MAC,
        asks: Asks::Dhcp { client: Client::Firmware, archs: vec![Arch::BIOS], discover },
    }
}

/// Its firmware, or somebody in its name: DISCOVER to ACK.
fn exchange(desk: &Desk) {
    for discover in [true, false] {
        let step = desk.ask(&asks(discover));
        let Action::Address { address: Some(SEAT), .. } = step.action else { panic!("{step:?}") };
        match discover {
            true => desk.offered(&asks(true), &at(SEAT)),
            false => desk.acked(&asks(false), &at(SEAT), None),
        }
    }
}

fn up(desk: &Desk) -> BootId {
    exchange(desk);
    let id = desk.boot_of(MAC).expect("a boot").id;
    desk.report(id, SEAT.into(), Bytes::new()).expect("taken");
    assert!(desk.reached(id, Stage::Up));
    id
}

fn told(heard: &mut mpsc::Receiver<News>) -> Vec<&'static str> {
    let mut told = Vec::new();
    while let Ok(news) = heard.try_recv() {
        told.extend(match news {
            News::Opened { .. } => Some("opened"),
            News::Freed { .. } => Some("freed"),
            News::Heard { kind, .. } => Some(kind),
            _ => None,
        });
    }
    told
}

#[test]
fn what_is_said_in_the_name_of_a_machine_that_runs_ends_nothing() {
    let (desk, mut heard) = desk();
    let id = up(&desk);
    told(&mut heard);
    for _ in 0..3 {
        exchange(&desk);
    }
    assert_eq!(told(&mut heard), [""; 0]);
    assert_eq!(desk.boot_of(MAC).map(|boot| (boot.id, boot.stage)), Some((id, Stage::Up)));
    assert_eq!(desk.holders()[0].boot, id);
    // Its orders, read from somewhere else, are no sign of it.
    assert!(desk.script(MAC, IpAddr::from([10, 77, 0, 99])).is_some());
    assert_eq!(desk.boot_of(MAC).map(|boot| boot.id), Some(id));
    // It reports, and that is taken; what was forged is told once it cannot have been under way.
    desk.report(id, SEAT.into(), Bytes::new()).expect("it runs");
    assert_eq!(told(&mut heard), [""; 0]);
    desk.inner().begun.by_mac.get_mut(&MAC).expect("it waits").at -= UNDER_WAY;
    desk.report(id, SEAT.into(), Bytes::new()).expect("it runs");
    assert_eq!(told(&mut heard), ["forged"]);
    assert!(!desk.inner().begun.waits(MAC));
}

#[test]
fn a_machine_that_was_reset_boots_as_soon_as_it_fetches() {
    for by_script in [true, false] {
        let (desk, mut heard) = desk();
        let id = up(&desk);
        told(&mut heard);
        exchange(&desk);
        match by_script {
            true => drop(desk.script(MAC, SEAT.into())),
            false => desk.file_sent((SEAT, 2070).into(), "undionly.kpxe", ""),
        }
        let boot = desk.boot_of(MAC).expect("a boot");
        assert_ne!(boot.id, id);
        assert_eq!(boot.stage, if by_script { Stage::Script } else { Stage::Loader });
        assert_eq!(desk.holders()[0].boot, boot.id);
        assert!(told(&mut heard).contains(&"opened"));
        desk.report(id, SEAT.into(), Bytes::new()).expect_err("the former boot is over");
    }
}

#[test]
fn a_boot_began_with_its_discover_and_what_its_firmware_asked_since_is_of_it() {
    let (desk, mut heard) = desk();
    let former = up(&desk);
    told(&mut heard);
    let before = SystemTime::now();
    exchange(&desk);
    let asked = SystemTime::now();
    for size in 0..20 {
        // EDK2 asks for the size, and asks again if it hears nothing.
        desk.remark(SEAT.into(), format!("asked for the size: {size}"));
    }
    assert!(heard.try_recv().is_err(), "nothing of this is of the boot that may run on");
    std::thread::sleep(Duration::from_millis(20));
    desk.file_sent((SEAT, 2070).into(), "undionly.kpxe", "");
    let (mut opened, mut notes) = (None, Vec::new());
    while let Ok(news) = heard.try_recv() {
        match news {
            News::Opened { id, at, .. } => opened = Some((id, at)),
            News::Mark { id, note, .. } => notes.push((id, note)),
            _ => {}
        }
    }
    let (id, at) = opened.expect("a boot");
    assert!(before <= at && at <= asked, "{before:?} {at:?} {asked:?}");
    assert!(id != former && notes.iter().all(|(of, _)| *of == id), "{notes:?}");
    let sizes = notes.iter().filter(|(_, note)| note.starts_with("asked for the size"));
    assert_eq!(sizes.count(), REMARKS_MAX);
}

#[test]
fn one_that_is_on_its_way_goes_on() {
    let (desk, mut heard) = desk();
    exchange(&desk);
    desk.script(MAC, SEAT.into());
    let id = desk.boot_of(MAC).expect("a boot").id;
    told(&mut heard);
    exchange(&desk);
    assert_eq!(told(&mut heard), [""; 0]);
    assert_eq!(desk.boot_of(MAC).map(|boot| boot.id), Some(id));
    // It was reset: its firmware fetches its loader anew.
    desk.file_sent((SEAT, 2070).into(), "undionly.kpxe", "");
    assert_ne!(desk.boot_of(MAC).map(|boot| boot.id), Some(id));
    desk.inner().boots.of_mut(MAC).expect("a boot").moved = None;
    exchange(&desk);
    assert!(told(&mut heard).contains(&"opened"), "one that hangs begins at once");
}

#[test]
fn one_that_has_fallen_silent_begins_at_once() {
    let (desk, mut heard) = desk();
    let id = up(&desk);
    told(&mut heard);
    desk.inner().boots.of_mut(MAC).expect("a boot").heard = None;
    exchange(&desk);
    assert_eq!(told(&mut heard), ["opened"]);
    assert_ne!(desk.boot_of(MAC).map(|boot| boot.id), Some(id));
    let (desk, mut heard) = super::super::tests::desk();
    let id = up(&desk);
    told(&mut heard);
    assert!(desk.reached(id, Stage::Down), "it said that it goes");
    exchange(&desk);
    assert!(told(&mut heard).contains(&"opened"));
}

/// Moves what waits to begin, and what was heard before, so far into the past.
fn ago(desk: &Desk, span: Duration) {
    let mut inner = desk.inner();
    let begun = inner.begun.by_mac.get_mut(&MAC).expect("it waits");
    begun.at -= span;
    let (before, boot) = (begun.at - UNDER_WAY, inner.boots.of_mut(MAC).expect("a boot"));
    (boot.heard, boot.moved) = (boot.heard.and(Some(before)), boot.moved.and(Some(before)));
}

#[test]
fn firmware_that_finds_no_loader_has_begun_its_boot_all_the_same() {
    let (desk, mut heard) = desk();
    let former = up(&desk);
    exchange(&desk);
    desk.remark(SEAT.into(), "asked for nothing.kpxe, which is not here".into());
    told(&mut heard);
    ago(&desk, SILENT - UNDER_WAY);
    desk.settle(Instant::now());
    assert_eq!(told(&mut heard), [""; 0], "it may be late");
    ago(&desk, UNDER_WAY);
    desk.settle(Instant::now());
    let mut lines = Vec::new();
    while let Ok(news) = heard.try_recv() {
        match news {
            News::Opened { at, .. } => lines.push(("opened".to_string(), at)),
            News::Mark { note, at, .. } => lines.push((note, at)),
            _ => {}
        }
    }
    assert_ne!(desk.boot_of(MAC).map(|boot| boot.id), Some(former));
    assert_eq!(lines[0].0, "opened");
    assert!(lines[0].1 <= SystemTime::now() - SILENT, "it began when it asked");
    let last = lines.last().expect("lines");
    assert_eq!(last.0, "asked for nothing.kpxe, which is not here");
    assert!(lines.is_sorted_by_key(|(_, at)| *at), "{lines:?}");
}

#[test]
fn one_that_reports_meanwhile_has_begun_nothing() {
    let (desk, mut heard) = desk();
    let id = up(&desk);
    exchange(&desk);
    told(&mut heard);
    ago(&desk, SILENT * 2);
    desk.inner().boots.of_mut(MAC).expect("a boot").heard = Some(Instant::now());
    desk.settle(Instant::now());
    assert_eq!(told(&mut heard), [""; 0]);
    assert_eq!(desk.boot_of(MAC).map(|boot| boot.id), Some(id));
}

#[test]
fn who_is_given_something_else_meanwhile_asks_dhcp_again() {
    let (desk, mut heard) = desk();
    let id = up(&desk);
    exchange(&desk);
    told(&mut heard);
    // Its seat is another now; its loader asks for its orders from the address it was given for the former one.
    let other = Ipv4Addr::new(10, 77, 0, 12);
    desk.publish(super::super::tests::snapshot("web2", other));
    let text = desk.script(MAC, SEAT.into()).expect("a script");
    assert!(
        !text.contains(&format!("koboshi.boot={id}")),
        "never the plan of a boot that is over: {text}"
    );
    assert!(text.contains("dhcp"), "{text}");
    assert_eq!(told(&mut heard), [""; 0]);
    assert_eq!(desk.holders()[0].boot, id, "nothing is freed on a guess");
    // It does.
    desk.offered(&asks(true), &at(other));
    desk.acked(&asks(false), &at(other), None);
    assert!(told(&mut heard).contains(&"opened"));
    assert_eq!(desk.holders().iter().map(|one| one.seat.as_str()).collect::<Vec<_>>(), ["web2"]);
}

#[test]
fn a_boot_that_was_not_heard_to_begin_gets_no_former_plan() {
    let (desk, _heard) = desk();
    let id = up(&desk);
    // The appliance was started anew between its ACK and its script.
    let text = desk.script(MAC, SEAT.into()).expect("a script");
    assert!(!text.contains(&format!("koboshi.boot={id}")) && text.contains("dhcp"), "{text}");
    let text = desk.script(MAC, IpAddr::from([10, 77, 0, 99])).expect("who only looks sees it");
    assert!(text.contains(&format!("koboshi.boot={id}")), "{text}");
}

#[test]
fn an_order_that_is_carried_out_is_not_ended_by_a_discover() {
    let (desk, mut heard) = desk();
    let id = up(&desk);
    let pool = Ipv4Addr::new(10, 77, 0, 201);
    let mut boot = desk.boot_of(MAC).expect("a boot");
    let plan = boot.plan.take().expect("a plan");
    boot.plan = Some(std::sync::Arc::new(crate::boots::Plan { seat: None, ..(*plan).clone() }));
    (boot.address, boot.fixed) = (pool, false);
    desk.restore(boot);
    told(&mut heard);
    exchange(&desk);
    assert_eq!(told(&mut heard), [""; 0]);
    desk.report(id, pool.into(), Bytes::new()).expect("the wipe goes on");
    // Its true restart is seen by what it fetches, from its seat's address.
    drop(desk.script(MAC, SEAT.into()));
    assert!(told(&mut heard).contains(&"opened"));
    assert_eq!(desk.boot_of(MAC).map(|boot| boot.address), Some(SEAT));
}

#[test]
fn a_discover_more_undoes_no_ack_and_an_address_is_one_machines() {
    let (desk, mut heard) = desk();
    up(&desk);
    exchange(&desk);
    desk.remark(SEAT.into(), "asked for its size".into());
    desk.offered(&asks(true), &at(SEAT));
    {
        let mut inner = desk.inner();
        let begun = &inner.begun.by_mac[&MAC];
        assert!(begun.acked.is_some() && begun.remarks.len() == 1);
        // Another machine is given the address.
        let other = Mac([2, 0, 0, 0, 0, 9]);
        let facts = Facts { mac: other, ..asks(true) };
        let begun = Begun {
            facts,
            offer: at(SEAT),
            fixed: None,
            at: Instant::now(),
            acked: None,
            remarks: Vec::new(),
        };
        inner.begun.insert(begun);
        assert!(!inner.begun.waits(MAC) && inner.begun.waits(other));
        inner.begun.leave(SEAT);
        assert!(!inner.begun.waits(other) && !inner.begun.waits_at(SEAT));
    }
    told(&mut heard);
}
