//! A boot at the desk, step by step, without a network.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::mpsc;

use super::*;
use crate::boots::{Part, Stage};
use crate::content::hex;
use crate::decide::{Action, Arch, Exclusive, Place, Seat};
use crate::menu::Becomes;

pub(super) const MAC: Mac = Mac([0x52, 0x54, 0x00, 0x77, 0x00, 0x01]);
pub(super) const SEAT: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 11);
pub(super) const SERVER: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 1);
pub(super) const RELAY: Ipv4Addr = Ipv4Addr::new(10, 79, 0, 1);

pub(super) struct Plans;

impl Freeze for Plans {
    fn uart(&self, _: &Entry) -> Option<Uart> {
        Uart::of(0, 115_200)
    }

    fn image(&self, _: &str, _: &str) -> Option<String> {
        Some("web@1".to_string())
    }

    fn freeze(
        &self,
        _: Mac,
        entry: &Entry,
        id: BootId,
        address: Ipv4Addr,
        network: &Subnet,
    ) -> Result<Plan, String> {
        assert!(network.contains(address), "{address} is in {}", network.network);
        let Entry::Known(known) = entry else { return Err("not ours".into()) };
        let seat = match &known.place {
            Place::Seat(seat) => seat.clone(),
            Place::Typed { choice, .. } => {
                let Becomes::Role(role) = &choice.becomes else { return Err("its seat".into()) };
                let (name, role) = ("guest".to_string(), role.clone());
                Seat { name, role, address: None, exclusive: Exclusive::Fence, trouble: None }
            }
            Place::Ticket(order) => {
                let (name, role) = ("guest".to_string(), order.duty.clone());
                Seat { name, role, address: None, exclusive: Exclusive::Fence, trouble: None }
            }
            _ => return Err("no seat".into()),
        };
        let ticket = match &known.place {
            Place::Ticket(order) => Some(order.id),
            _ => None,
        };
        let part = |name: &str, byte| Part { name: name.into(), sha256: [byte; 32], size: 4 };
        Ok(Plan {
            machine: known.name.clone(),
            seat: ticket.is_none().then(|| seat.name.clone()),
            role: seat.role.clone(),
            hostname: seat.name,
            address,
            image: "web@1".into(),
            digest: None,
            kernel: part("kernel", 1),
            efi: None,
            segments: vec![part("common", 2), part("orders", 3)],
            roots: vec![part("root", 4)],
            cmdline: format!("koboshi.boot={id} koboshi.role={}", seat.role),
            revision: 1,
            ticket,
            orders: String::new(),
            because: None,
            blobs: [([3; 32], Content::Bytes(Bytes::from_static(b"mine")))].into(),
        })
    }
}

/// 10.77.0 on eth1, 10.79.0 behind the relay 10.79.0.1, and all of 10.81 there too.
fn networks() -> Vec<Network> {
    let (wire, relays) = (Reach::Wire { interface: "eth1".into() }, Reach::Relays(vec![RELAY]));
    [(77, 24, wire), (79, 24, relays.clone()), (81, 16, relays)]
        .into_iter()
        .map(|(third, prefix, reach)| {
            let mut subnet = Subnet::new(SERVER, Ipv4Addr::new(10, third, 0, 0), prefix);
            let pool = |last| Ipv4Addr::new(10, third, 0, last);
            subnet.pool = Some(pool(200)..=pool(210));
            Network { subnet: Arc::new(subnet), reach, kind: Kind::Boot }
        })
        .collect()
}

/// An address on its way by our own wire.
pub(super) fn at(address: Ipv4Addr) -> Offer {
    let subnet = networks().into_iter().find(|one| one.subnet.contains(address));
    let subnet = subnet.expect("one of the site's").subnet;
    Offer { address, subnet, via: None, lender: None }
}

pub(super) fn snapshot(seat: &str, address: Ipv4Addr) -> Snapshot {
    let seat = Seat {
        name: seat.into(),
        role: "web".into(),
        address: Some(address),
        trouble: None,
        exclusive: Exclusive::Fence,
    };
    let known =
        Known { name: "m01".into(), macs: vec![MAC], place: Place::Seat(seat), loader: None };
    Snapshot {
        revision: 1,
        networks: networks(),
        seats: [SEAT].into(),
        bmcs: HashMap::new(),
        proxy: false,
        http_port: 8080,
        machines: [(MAC, Arc::new(known))].into(),
        unknown: Arc::new(Unknown::Ignore),
        menu: None,
        loaders: [("undionly.kpxe".to_string(), Content::Bytes(Bytes::from_static(b"loader")))]
            .into(),
        blobs: HashMap::new(),
        freeze: Arc::new(Plans),
    }
}

pub(super) fn desk() -> (Desk, mpsc::Receiver<News>) {
    let (news, heard) = mpsc::channel(100);
    (Desk::new(snapshot("web1", SEAT), news), heard)
}

fn asks(client: Client, discover: bool) -> Facts {
    Facts { mac: MAC, asks: Asks::Dhcp { client, archs: vec![Arch::BIOS], discover } }
}

/// Stages told since the last look.
fn stages(heard: &mut mpsc::Receiver<News>) -> Vec<&'static str> {
    let mut stages = Vec::new();
    while let Ok(news) = heard.try_recv() {
        stages.push(match news {
            News::Opened { .. } => "opened",
            News::Mark { stage, .. } => stage.as_str(),
            News::Report { .. } => "report",
            News::Heard { kind, .. } => kind,
            News::Freed { .. } => "freed",
            News::Fenced { .. } => "fenced",
            News::Held { .. } => "held",
            News::Stray { .. } => "stray",
            News::Probe { .. } => "probe",
            News::Alive { .. } => continue,
        });
    }
    stages
}

#[test]
fn a_boot_goes_through_its_stages() {
    let (desk, mut heard) = desk();
    let peer = IpAddr::V4(SEAT);
    desk.offered(&asks(Client::Firmware, true), &at(SEAT));
    desk.offered(&asks(Client::Firmware, true), &at(SEAT)); // retransmitted
    desk.acked(&asks(Client::Firmware, false), &at(SEAT), Some("undionly.kpxe"));
    assert_eq!(stages(&mut heard), ["opened", "offer", "ack"]);

    desk.file_sent((SEAT, 2070).into(), "undionly.kpxe", ", 75 KiB");
    desk.offered(&asks(Client::Ipxe, true), &at(SEAT));
    desk.acked(&asks(Client::Ipxe, false), &at(SEAT), None);
    assert_eq!(stages(&mut heard), ["loader", "ack"], "iPXE goes on with the same boot");

    let id = desk.boot_of(MAC).expect("a boot is open").id;
    let text = desk.script(MAC, peer).expect("a known machine has a script");
    assert!(text.contains(&format!("koboshi.boot={id}")), "{text}");
    for digest in [[1; 32], [2; 32], [3; 32]] {
        desk.blob_sent(peer, &digest);
    }
    assert_eq!(stages(&mut heard), ["script", "kernel", "initramfs"]);
}

#[test]
fn looking_at_a_script_opens_nothing_and_moves_nothing() {
    let (desk, mut heard) = desk();
    let elsewhere = IpAddr::V4(Ipv4Addr::new(10, 77, 0, 99));
    let text = desk.script(MAC, elsewhere).expect("a known machine has a script");
    assert!(text.contains("no boot is open"), "{text}");
    desk.offered(&asks(Client::Ipxe, true), &at(SEAT));
    stages(&mut heard);
    desk.script(MAC, elsewhere);
    desk.script(MAC, elsewhere);
    assert_eq!(stages(&mut heard), Vec::<&str>::new());
}

#[test]
fn a_plan_outlives_a_reload_and_so_do_its_blobs() {
    let (desk, _heard) = desk();
    desk.offered(&asks(Client::Ipxe, true), &at(SEAT));
    let other = Ipv4Addr::new(10, 77, 0, 21);
    desk.publish(snapshot("db1", other));
    let text = desk.script(MAC, IpAddr::V4(SEAT)).expect("there is a plan");
    assert!(text.contains("boots into web1"), "{text}");
    assert!(desk.blob(&[3; 32]).is_some());
    // The next boot is the new seat's; nobody needs the old blobs any more.
    desk.acked(&asks(Client::Ipxe, false), &at(SEAT), None);
    desk.script(MAC, IpAddr::V4(SEAT));
    desk.offered(&asks(Client::Ipxe, true), &at(other));
    let text = desk.script(MAC, IpAddr::V4(other)).expect("there is a plan");
    assert!(text.contains("boots into db1"), "{text}");
}

#[test]
fn a_report_counts_only_from_the_address_of_its_boot() {
    let (desk, mut heard) = desk();
    desk.offered(&asks(Client::Ipxe, true), &at(SEAT));
    let id = desk.boot_of(MAC).expect("a boot is open").id;
    let body = || Bytes::from_static(b"{}");
    let stranger = IpAddr::V4(Ipv4Addr::new(10, 77, 0, 99));
    assert_eq!(desk.report(id, stranger, body()).map(drop), Err(ReportRefusal::WrongAddress));
    assert_eq!(
        desk.report(BootId([9; 16]), IpAddr::V4(SEAT), body()).map(drop),
        Err(ReportRefusal::NoSuchBoot)
    );
    assert_eq!(desk.report(id, IpAddr::V4(SEAT), body()).map(drop), Ok(()));
    let refused = (0..100).filter(|_| desk.report(id, IpAddr::V4(SEAT), body()).is_err()).count();
    assert!(refused >= 60, "a flood of reports is cut: {refused}");
    assert!(stages(&mut heard).len() < 60);
}

#[test]
fn nothing_else_can_be_read_over_tftp() {
    let (desk, _heard) = desk();
    assert!(desk.file("undionly.kpxe", IpAddr::V4(SEAT)).is_some());
    assert!(desk.file("autoexec.ipxe", IpAddr::V4(SEAT)).is_some());
    for name in ["", "etc/passwd", "blob/sha256/", "blob/sha256/zz", "boot/52:54:00:77:00:01.ipxe"]
    {
        assert!(desk.file(name, IpAddr::V4(SEAT)).is_none(), "{name}");
    }
}

#[test]
fn an_unknown_machine_is_named_once_in_a_while() {
    let (desk, mut heard) = desk();
    for _ in 0..50 {
        desk.heard(Some(Mac([2; 6])), "unknown-machine", "asks".into());
    }
    assert_eq!(stages(&mut heard), ["unknown-machine"]);
}

#[test]
fn a_lease_that_changed_hands_opens_another_boot() {
    let (desk, _heard) = desk();
    let unknown = Unknown::Role { role: "rescue".into(), trouble: None };
    desk.publish(Snapshot { unknown: Arc::new(unknown), ..snapshot("web1", SEAT) });
    let stranger = |last| Facts { mac: Mac([2, 0, 0, 0, 0, last]), ..asks(Client::Firmware, true) };
    let (first, second) = (Ipv4Addr::new(10, 77, 0, 200), Ipv4Addr::new(10, 77, 0, 201));
    desk.offered(&stranger(1), &at(first));
    let id = |last| desk.boot_of(Mac([2, 0, 0, 0, 0, last])).map(|boot| (boot.id, boot.address));
    let (before, _) = id(1).expect("a boot");
    // The offer lapsed, and the same firmware was offered another address.
    desk.offered(&stranger(1), &at(second));
    let (after, address) = id(1).expect("a boot");
    assert!(before != after && address == second);
    // Its address went to another stranger: there is one boot at an address, and one is forgotten.
    desk.offered(&stranger(2), &at(second));
    assert_eq!(id(1), None);
    assert_eq!(id(2).map(|(_, address)| address), Some(second));
}

#[test]
fn a_seat_that_came_while_the_pool_was_probed_opens_nothing_yet() {
    let (desk, mut heard) = desk();
    desk.offered(&asks(Client::Firmware, true), &at(Ipv4Addr::new(10, 77, 0, 200)));
    assert!(desk.boot_of(MAC).is_none());
    assert_eq!(stages(&mut heard), Vec::<&str>::new());
}

#[test]
fn a_machine_that_waits_says_so_once() {
    let (desk, mut heard) = desk();
    let known = Known { name: "m01".into(), macs: vec![MAC], place: Place::Spare, loader: None };
    let machines = [(MAC, Arc::new(known))].into();
    desk.publish(Snapshot { machines, ..snapshot("web1", SEAT) });
    let address = Ipv4Addr::new(10, 77, 0, 200);
    for _ in 0..20 {
        desk.offered(&asks(Client::Ipxe, true), &at(address));
        desk.acked(&asks(Client::Ipxe, false), &at(address), None);
        desk.script(MAC, IpAddr::V4(address));
    }
    assert_eq!(stages(&mut heard), ["opened", "offer", "ack", "waiting"]);
}

#[test]
fn junk_on_the_wire_does_not_fill_a_timeline() {
    let (desk, mut heard) = desk();
    desk.offered(&asks(Client::Ipxe, true), &at(SEAT));
    for number in 0..1000 {
        desk.remark(IpAddr::V4(SEAT), format!("asked for junk{number}: not here"));
        desk.script(MAC, IpAddr::V4(SEAT));
    }
    assert!(stages(&mut heard).len() < 60);
}

#[test]
fn an_end_on_one_nic_ends_what_booted_by_the_other() {
    let (desk, _heard) = desk();
    let other = Mac([0x52, 0x54, 0, 0x77, 0, 0x11]);
    let site = snapshot("web1", SEAT);
    let mut known = site.machines[&MAC].as_ref().clone();
    known.macs.push(other);
    let known = Arc::new(known);
    desk.publish(Snapshot { machines: [(MAC, known.clone()), (other, known)].into(), ..site });
    desk.offered(&asks(Client::Firmware, true), &at(SEAT));
    desk.offered(&Facts { mac: other, ..asks(Client::Firmware, true) }, &at(SEAT));
    assert!(desk.boot_of(MAC).is_none() && desk.boot_of(other).is_some());
}

#[test]
fn in_a_storm_the_script_says_whose_turn_it_is() {
    let (news, mut heard) = mpsc::channel(10_000);
    let desk = Desk::new(snapshot("web1", SEAT), news);
    let number = |n: u16| {
        let [high, low] = n.to_be_bytes();
        (Mac([2, 0, 0, 0, high, low]), Ipv4Addr::new(10, 81, 1 + high, low))
    };
    let machines = (0..1032).map(|n| {
        let (mac, address) = number(n);
        let seat = Seat {
            name: format!("web{n}"),
            role: "web".into(),
            address: Some(address),
            trouble: None,
            exclusive: Exclusive::Fence,
        };
        let place = Place::Seat(seat);
        (mac, Arc::new(Known { name: format!("m{n}"), macs: vec![mac], place, loader: None }))
    });
    desk.publish(Snapshot { machines: machines.collect(), ..snapshot("web1", SEAT) });
    let asks = |n| {
        let (mac, address) = number(n);
        desk.script(mac, IpAddr::V4(address)).expect("a script")
    };
    for n in 0..1032 {
        let (mac, address) = number(n);
        desk.offered(&asks_of(mac), &at(address));
    }
    for n in 0..1024 {
        assert!(asks(n).contains("\nkernel "), "m{n}");
    }
    let text = asks(1031);
    assert!(text.contains("koboshi: 1025 machines boot at once, 0 wait before this one"), "{text}");
    assert!(!text.contains("\nkernel ") && text.contains("\nsleep "), "{text}");
    assert_eq!(desk.boot_of(number(1031).0).map(|boot| boot.stage), Some(Stage::Waiting));
    let elsewhere = IpAddr::V4(Ipv4Addr::new(10, 77, 0, 99));
    let shown = desk.script(number(1030).0, elsewhere).expect("a script");
    assert!(shown.contains("\nkernel "), "who only looks takes no turn");
    // One has its root: the next one's turn has come.
    let first = desk.boot_of(number(0).0).expect("a boot");
    desk.reached(first.id, Stage::RootReady);
    stages(&mut heard);
    assert!(asks(1031).contains("\nkernel "));
    assert_eq!(desk.boot_of(number(1031).0).map(|boot| boot.stage), Some(Stage::Script));
    assert_eq!(stages(&mut heard), ["script"]);
}

fn asks_of(mac: Mac) -> Facts {
    Facts { mac, ..asks(Client::Ipxe, true) }
}

fn text(desk: &Desk, name: &str) -> String {
    text_at(desk, name, SEAT)
}

fn text_at(desk: &Desk, name: &str, peer: Ipv4Addr) -> String {
    match desk.file(name, IpAddr::V4(peer)) {
        Some(Content::Bytes(bytes)) => String::from_utf8(bytes.to_vec()).expect("text"),
        other => panic!("{name}: {other:?}"),
    }
}

#[test]
fn pxelinux_and_grub_go_the_same_way_by_tftp() {
    let (desk, mut heard) = desk();
    let mut site = snapshot("web1", SEAT);
    site.loaders.insert("lpxelinux.0".into(), Content::Bytes(Bytes::from_static(b"loader")));
    site.loaders.insert("ldlinux.c32".into(), Content::Bytes(Bytes::from_static(b"module")));
    desk.publish(site);
    let peer = (SEAT, 2070).into();
    desk.offered(&asks(Client::Firmware, true), &at(SEAT));
    let orders = "pxelinux.cfg/01-52-54-00-77-00-01";
    let elsewhere = Ipv4Addr::new(10, 77, 0, 99);
    let shown = text_at(&desk, orders, elsewhere);
    assert!(shown.contains("KERNEL blob/sha256/"), "TFTP, while nobody knows better");
    for file in ["lpxelinux.0", "ldlinux.c32"] {
        desk.file_sent(peer, file, "");
    }
    assert_eq!(
        stages(&mut heard),
        ["opened", "offer", "loader", "loader"],
        "looking moves nothing"
    );
    assert!(text(&desk, orders).contains("KERNEL http://10.77.0.1:8080/blob/sha256/"));
    assert!(text(&desk, "efi64/pxelinux.cfg/01-52-54-00-77-00-01").contains("web1"));
    let grub = text(&desk, "grub/grub.cfg-01-52:54:00:77:00:01");
    assert!(grub.contains("linux (tftp,10.77.0.1)/blob/sha256/"), "{grub}");
    assert!(text(&desk, "grub/grub.cfg-01-52-54-00-77-00-01").contains("boots into web1"));
    for absent in [
        "pxelinux.cfg/01-52-54-00-77-00-99", // unknown and ignored
        "pxelinux.cfg/6b6f626f-7368-4969-8000-525400770001",
        "pxelinux.cfg/0A4D000B",
        "pxelinux.cfg/default",
        "grub/grub.cfg-01-junk",
        "grub/x86_64-efi/command.lst",
        "revocations.efi",
    ] {
        assert!(desk.file(absent, IpAddr::V4(SEAT)).is_none(), "{absent}");
    }

    desk.file_sent(peer, orders, "");
    for byte in 1..=3 {
        desk.file_sent(peer, &format!("blob/sha256/{}", hex(&[byte; 32])), ", 4 KiB in 0.1 s");
    }
    let seen = stages(&mut heard);
    assert_eq!(seen[0], "script");
    assert_eq!(seen[seen.len() - 2..], ["kernel", "initramfs"]);
}

#[test]
fn a_plan_that_a_loader_cannot_say_waits_and_says_why() {
    let (desk, mut heard) = desk();
    let mut site = snapshot("web1", SEAT);
    let known = Arc::make_mut(site.machines.get_mut(&MAC).expect("m01"));
    let Place::Seat(seat) = &mut known.place else { panic!("it has a seat") };
    seat.role = "we\"b".into();
    desk.publish(site);
    desk.offered(&asks(Client::Firmware, true), &at(SEAT));
    let grub = text(&desk, "grub/grub.cfg-01-52-54-00-77-00-01");
    assert!(
        grub.contains("cannot be handed to the kernel by GRUB") && !grub.contains("\nif linux")
    );
    assert_eq!(stages(&mut heard), ["opened", "offer", "waiting"]);
    assert!(text(&desk, "pxelinux.cfg/01-52-54-00-77-00-01").contains("KERNEL"));
}

#[test]
fn what_a_stranger_reads_moves_nobody() {
    let (desk, mut heard) = desk();
    desk.offered(&asks(Client::Firmware, true), &at(SEAT));
    stages(&mut heard);
    let stranger = (Ipv4Addr::new(10, 77, 0, 99), 2070).into();
    for file in ["pxelinux.cfg/01-52-54-00-77-00-01", "grub/grub.cfg-01-52-54-00-77-00-01"] {
        text_at(&desk, file, Ipv4Addr::new(10, 77, 0, 99));
        desk.file_sent(stranger, file, "");
    }
    assert_eq!(stages(&mut heard), Vec::<&str>::new());
    // One machine that reads another's orders says so in its own timeline, and goes no further.
    desk.file_sent((SEAT, 2070).into(), "pxelinux.cfg/01-52-54-00-77-00-02", "");
    assert_eq!(stages(&mut heard), ["offer"]);
}

#[test]
fn a_spare_in_another_loader_waits_and_then_restarts() {
    let (desk, mut heard) = desk();
    let known = Known { name: "m01".into(), macs: vec![MAC], place: Place::Spare, loader: None };
    let machines = [(MAC, Arc::new(known))].into();
    desk.publish(Snapshot { machines, ..snapshot("web1", SEAT) });
    let address = Ipv4Addr::new(10, 77, 0, 200);
    desk.offered(&asks(Client::Firmware, true), &at(address));
    let files = ["pxelinux.cfg/01-52-54-00-77-00-01", "grub/grub.cfg-01-52-54-00-77-00-01"];
    for file in files.iter().cycle().take(20) {
        assert!(
            text_at(&desk, file, address).contains("koboshi: m01 is a spare and waits for a seat")
        );
        desk.file_sent((address, 2070).into(), file, "");
    }
    assert_eq!(stages(&mut heard), ["opened", "offer", "waiting"]);
    desk.publish(snapshot("web1", SEAT));
    assert!(!text(&desk, files[0]).contains("reboot"), "it has just begun");
    desk.inner().boots.of_mut(MAC).expect("a boot").opened -= std::time::Duration::from_secs(40);
    assert!(text(&desk, files[0]).contains("COM32 reboot.c32"));
    assert!(text(&desk, files[1]).contains("\nreboot\n"));
}

fn offered(desk: &Desk, place: Place) {
    let known = Known { name: "m01".into(), macs: vec![MAC], place, loader: None };
    let roles = [("db", None), ("old", Some("its image is missing".to_string()))];
    let roles = roles.map(|(role, trouble)| Offered { role: role.into(), trouble }).into();
    desk.publish(Snapshot {
        machines: [(MAC, Arc::new(known))].into(),
        menu: Some(Arc::new(roles)),
        ..snapshot("web1", SEAT)
    });
}

fn seat() -> Place {
    let (name, role) = ("web1".into(), "web".into());
    let exclusive = Exclusive::Fence;
    Place::Seat(Seat { name, role, address: Some(SEAT), exclusive, trouble: None })
}

#[test]
fn a_choice_typed_in_the_loader_is_the_next_boot_and_only_that() {
    let (desk, mut heard) = desk();
    offered(&desk, seat());
    let peer = IpAddr::V4(SEAT);
    desk.offered(&asks(Client::Ipxe, true), &at(SEAT));
    let before = desk.boot_of(MAC).expect("a boot").id;
    let script = desk.script(MAC, peer).expect("a script");
    assert!(script.contains("--timeout 1000") && script.contains("boots into web1"), "{script}");

    let refused = desk.choose_in_loader(MAC, peer, "nope").expect("a script");
    assert!(refused.contains("no \"nope\" here; there is web1, db, old"), "{refused}");
    assert!(desk.choose_in_loader(MAC, peer, "old").expect("a script").contains("its image"));
    let long = desk.choose_in_loader(MAC, peer, &"x".repeat(10_000)).expect("a script");
    assert!(long.contains("10000 characters are too many") && long.len() < 2000, "{long}");
    let taken = desk.choose_in_loader(MAC, peer, "db id=100").expect("a script");
    assert!(taken.contains("koboshi: role db, id=100") && taken.contains("\ndhcp ||"), "{taken}");
    assert_eq!(desk.boot_of(MAC).expect("a boot").id, before, "a GET opens no boot");

    // The DISCOVER that follows gets an address of the pool, and a boot of its own.
    let pool = Ipv4Addr::new(10, 77, 0, 200);
    let step = desk.ask(&asks(Client::Ipxe, true));
    assert!(matches!(step.action, Action::Address { address: None, opens: true, .. }), "{step:?}");
    stages(&mut heard);
    desk.offered(&asks(Client::Ipxe, true), &at(pool));
    let boot = desk.boot_of(MAC).expect("a boot");
    assert!(boot.id != before && boot.chosen.is_none() && boot.address == pool);
    assert_eq!(boot.plan.expect("a plan").role, "db");
    assert_eq!(stages(&mut heard), ["opened", "offer"]);
    // Asked again, it is the same boot; at the next start, the machine is what the site says.
    desk.offered(&asks(Client::Ipxe, true), &at(pool));
    assert_eq!(desk.boot_of(MAC).expect("a boot").id, boot.id);
    desk.acked(&asks(Client::Ipxe, false), &at(pool), None);
    desk.script(MAC, IpAddr::V4(pool));
    desk.offered(&asks(Client::Ipxe, true), &at(SEAT));
    assert_eq!(desk.boot_of(MAC).expect("a boot").plan.expect("a plan").role, "web");
}

#[test]
fn nobody_chooses_for_another_or_where_the_site_offers_nothing() {
    let (desk, _heard) = desk();
    let (peer, elsewhere) = (IpAddr::V4(SEAT), IpAddr::V4(Ipv4Addr::new(10, 77, 0, 99)));
    desk.offered(&asks(Client::Ipxe, true), &at(SEAT));
    let id = desk.boot_of(MAC).expect("a boot").id;
    assert_eq!(desk.choose_in_loader(MAC, peer, "db"), None, "no menu in the site");
    assert!(!desk.script(MAC, peer).expect("a script").contains("menu"));
    offered(&desk, seat());
    let script = desk.choose_in_loader(MAC, elsewhere, "db").expect("a script");
    assert!(script.contains("not its own any more"), "{script}");
    for (id, peer) in [(id, elsewhere), (BootId([9; 16]), peer)] {
        assert_eq!(desk.choose_in_init(id, peer, "db"), Err(NoChoice::NotYours));
    }
    // A stranger is offered something only where `net.unknown` says so.
    let stranger = Mac([2; 6]);
    assert_eq!(desk.choose_in_loader(stranger, peer, "db"), None);
    assert!(desk.boot_of(MAC).expect("a boot").chosen.is_none());
    assert_eq!(desk.choose_in_init(id, peer, "db a=1"), Ok("role db, a=1".into()));
    let flood = (0..100).filter(|_| desk.choose_in_init(id, peer, "db").is_ok()).count();
    assert!(flood <= 40, "{flood}");
}

#[test]
fn a_spare_is_offered_roles_while_it_waits() {
    let (desk, _heard) = desk();
    offered(&desk, Place::Spare);
    let address = Ipv4Addr::new(10, 77, 0, 200);
    desk.offered(&asks(Client::Ipxe, true), &at(address));
    let script = desk.script(MAC, IpAddr::V4(address)).expect("a script");
    assert!(script.contains("m for the menu") && script.contains("is a spare"), "{script}");
    assert_eq!(
        desk.choose_in_loader(MAC, IpAddr::V4(address), "")
            .map(|s| s.contains("nothing was typed")),
        Some(true)
    );
    desk.choose_in_loader(MAC, IpAddr::V4(address), "db").expect("a script");
    desk.offered(&asks(Client::Ipxe, true), &at(address));
    assert_eq!(desk.boot_of(MAC).expect("a boot").plan.expect("a plan").role, "db");
}

#[test]
fn the_id_of_a_boot_that_is_over_is_nobodys() {
    let (desk, _heard) = desk();
    desk.offered(&asks(Client::Ipxe, true), &at(SEAT));
    let old = desk.boot_of(MAC).expect("a boot").id;
    desk.script(MAC, IpAddr::V4(SEAT));
    desk.offered(&asks(Client::Ipxe, true), &at(SEAT));
    let body = Bytes::from_static(b"{}");
    let peer = IpAddr::V4(SEAT);
    // Only now it is known to have been started over.
    desk.script(MAC, peer);
    assert_eq!(desk.report(old, peer, body.clone()).map(drop), Err(ReportRefusal::NoSuchBoot));
    assert!(!desk.reached(old, Stage::Up));
    let new = desk.boot_of(MAC).expect("a boot").id;
    assert!(new != old && desk.report(new, peer, body).is_ok());
}
