//! The decision as a table: who asks, what the site says, how the boot stands, what comes of it.

use super::*;

const MAC: Mac = Mac([0x52, 0x54, 0x00, 0x77, 0x00, 0x01]);
const SEAT: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 11);
const OTHER: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 21);

fn known(place: Place, loader: Option<&str>) -> Entry {
    Entry::Known(Arc::new(Known {
        name: "m01".into(),
        macs: vec![MAC],
        place,
        loader: loader.map(str::to_string),
    }))
}

fn seated(loader: Option<&str>) -> Entry {
    let seat = Seat {
        name: "web1".into(),
        role: "web".into(),
        address: Some(SEAT),
        trouble: None,
        exclusive: Exclusive::Fence,
    };
    known(Place::Seat(seat), loader)
}

fn dhcp(client: Client, arch: Option<Arch>, discover: bool) -> Facts {
    Facts { mac: MAC, asks: Asks::Dhcp { client, archs: arch.into_iter().collect(), discover } }
}

fn plan(address: Ipv4Addr) -> Arc<Plan> {
    let part = |name: &str| crate::boots::Part { name: name.into(), sha256: [0; 32], size: 1 };
    Arc::new(Plan {
        machine: "m01".into(),
        seat: Some("old1".into()),
        role: "web".into(),
        hostname: "old1".into(),
        address,
        image: "web@1".into(),
        digest: None,
        kernel: part("kernel"),
        efi: None,
        segments: vec![part("common")],
        roots: vec![part("root")],
        cmdline: String::new(),
        revision: 1,
        ticket: None,
        orders: String::new(),
        because: None,
        blobs: Default::default(),
    })
}

fn live(stage: Stage, seconds: u64, address: Option<Ipv4Addr>) -> Live {
    Live {
        stage,
        age: Duration::from_secs(seconds),
        plan: address.map(plan),
        fixed: true,
        here: true,
        chosen: None,
    }
}

/// Address, loader, and whether a boot begins.
fn given(step: &Step) -> (Option<Ipv4Addr>, Option<Loader>, bool) {
    match &step.action {
        Action::Address { address, loader, opens, .. } => (*address, loader.clone(), *opens),
        other => panic!("an address was expected, not {other:?}"),
    }
}

fn tftp(name: &str) -> Option<Loader> {
    Some(Loader::Tftp(name.into()))
}

fn ipxe_by_http() -> Option<Loader> {
    Some(Loader::Http("ipxe.efi".into()))
}

#[test]
fn each_firmware_gets_the_loader_it_can_start() {
    let rows = [
        (Client::Firmware, Some(Arch::BIOS), None, tftp("undionly.kpxe")),
        (Client::Firmware, None, None, tftp("undionly.kpxe")),
        (Client::Firmware, Some(Arch::EFI64), None, tftp("ipxe.efi")),
        (Client::Firmware, Some(Arch(9)), None, tftp("ipxe.efi")),
        (Client::Firmware, Some(Arch::EFI64), Some("snponly.efi"), tftp("snponly.efi")),
        (Client::Firmware, Some(Arch::BIOS), Some("snponly.efi"), tftp("undionly.kpxe")),
        (Client::Firmware, Some(Arch(99)), None, None),
        (Client::HttpBoot, Some(Arch::HTTP64), None, ipxe_by_http()),
        (Client::Ipxe, Some(Arch::BIOS), None, Some(Loader::Script)),
        (Client::Ipxe, Some(Arch::BIOS), Some("undionly.kpxe"), tftp("undionly.kpxe")),
        (Client::Ipxe, Some(Arch::BIOS), Some("ipxe.efi"), Some(Loader::Script)),
        // An iPXE ROM starts PXELINUX and GRUB as any other does.
        (Client::Ipxe, Some(Arch::BIOS), Some("lpxelinux.0"), tftp("lpxelinux.0")),
        (Client::Ipxe, Some(Arch::EFI64), Some("shimx64.efi"), tftp("shimx64.efi")),
        (Client::Ipxe, Some(Arch::BIOS), Some("shimx64.efi"), Some(Loader::Script)),
        (Client::Firmware, Some(Arch::EFI64), Some("syslinux.efi"), tftp("efi64/syslinux.efi")),
        (Client::HttpBoot, Some(Arch::HTTP64), Some("grubnetx64.efi.signed"), ipxe_by_http()),
        (Client::Firmware, Some(Arch::ARM64), None, tftp("snponly-arm64.efi")),
        (Client::Firmware, Some(Arch::ARM64), Some("shimx64.efi"), tftp("snponly-arm64.efi")),
        (Client::Firmware, Some(Arch::ARM64), Some("shimaa64.efi"), tftp("shimaa64.efi")),
        (Client::HttpBoot, Some(Arch(19)), None, Some(Loader::Http("snponly-arm64.efi".into()))),
        (Client::System, None, None, None),
    ];
    for (client, arch, named, loader) in rows {
        let step = decide(&dhcp(client, arch, true), &seated(named), None);
        let opens = client != Client::System;
        assert_eq!(given(&step), (Some(SEAT), loader, opens), "{client:?} {arch:?} {named:?}");
    }
}

#[test]
fn an_unknown_machine_gets_silence_unless_the_site_says_otherwise() {
    let ignore = Entry::Unknown(Arc::new(Unknown::Ignore));
    let step = decide(&dhcp(Client::Firmware, Some(Arch::BIOS), true), &ignore, None);
    assert!(matches!(step.action, Action::Silence));
    assert_eq!(step.because, [Rule::MacUnknown]);

    let role = Unknown::Role { role: "rescue".into(), trouble: None };
    let step = decide(
        &dhcp(Client::Firmware, Some(Arch::EFI64), true),
        &Entry::Unknown(Arc::new(role)),
        None,
    );
    assert_eq!(given(&step), (None, tftp("ipxe.efi"), true));
}

#[test]
fn a_group_address_is_no_machine() {
    let facts = Facts { mac: Mac([0xff; 6]), ..dhcp(Client::Firmware, None, true) };
    assert!(matches!(decide(&facts, &seated(None), None).action, Action::Silence));
}

#[test]
fn a_reload_in_mid_boot_does_not_mix_two_seats() {
    // The matrix moved the machine to another seat after its firmware had begun.
    for (stage, client) in
        [(Stage::Ack, Client::Firmware), (Stage::Loader, Client::Ipxe), (Stage::Up, Client::System)]
    {
        let boot = live(stage, 10, Some(OTHER));
        let step = decide(&dhcp(client, Some(Arch::BIOS), false), &seated(None), Some(&boot));
        let (address, _, opens) = given(&step);
        assert_eq!((address, opens), (Some(OTHER), false), "{client:?}");
        assert!(step.because.contains(&Rule::FrozenPlan));
    }
    let script = Facts { mac: MAC, asks: Asks::Script };
    let step = decide(&script, &seated(None), Some(&live(Stage::Ack, 10, Some(OTHER))));
    assert!(matches!(step.action, Action::Boot(plan) if plan.address == OTHER));
}

#[test]
fn firmware_that_begins_again_begins_a_new_boot() {
    let rows = [
        // (stage, age, client, a new boot begins)
        (Stage::Offer, 4, Client::Firmware, false), // EDK2 repeats its DISCOVER
        (Stage::Ack, 60, Client::Firmware, false),
        (Stage::Ack, 600, Client::Firmware, true),
        (Stage::Loader, 20, Client::Firmware, true), // reset in the loader
        (Stage::Up, 5000, Client::Firmware, true),
        (Stage::Loader, 5, Client::Ipxe, false), // undionly asks for itself
        (Stage::Kernel, 20, Client::Ipxe, true), // an iPXE ROM after a reset
        (Stage::Up, 5000, Client::Ipxe, true),
    ];
    for (stage, age, client, begins) in rows {
        let step = decide(
            &dhcp(client, Some(Arch::BIOS), true),
            &seated(None),
            Some(&live(stage, age, Some(OTHER))),
        );
        let (address, _, opens) = given(&step);
        assert_eq!(opens, begins, "{stage:?} after {age} s, {client:?}");
        assert_eq!(address, Some(if begins { SEAT } else { OTHER }));
    }
}

#[test]
fn a_named_loader_is_loaded_once_and_then_the_script() {
    let entry = seated(Some("undionly.kpxe"));
    let ask = dhcp(Client::Ipxe, Some(Arch::BIOS), true);
    assert_eq!(given(&decide(&ask, &entry, None)).1, tftp("undionly.kpxe"));
    let boot = live(Stage::Loader, 5, Some(SEAT));
    assert_eq!(given(&decide(&ask, &entry, Some(&boot))).1, Some(Loader::Script));
}

#[test]
fn an_ipxe_rom_that_was_sent_on_comes_back_only_after_a_reset() {
    let entry = seated(Some("lpxelinux.0"));
    let ask = |discover| dhcp(Client::Ipxe, Some(Arch::BIOS), discover);
    let rows = [
        (Stage::Offer, true, false),  // it repeats its DISCOVER
        (Stage::Offer, false, false), // its REQUEST
        (Stage::Loader, true, true),
        (Stage::Kernel, true, true),
    ];
    for (stage, discover, begins) in rows {
        let step = decide(&ask(discover), &entry, Some(&live(stage, 20, Some(SEAT))));
        assert_eq!(given(&step), (Some(SEAT), tftp("lpxelinux.0"), begins), "{stage:?}");
    }
}

#[test]
fn a_spare_waits_in_one_boot_until_it_has_a_seat() {
    let ask = dhcp(Client::Ipxe, Some(Arch::BIOS), true);
    let waiting = live(Stage::Waiting, 300, None);
    let step = decide(&ask, &known(Place::Spare, None), Some(&waiting));
    assert_eq!(given(&step), (None, Some(Loader::Script), false));
    let step = decide(&ask, &seated(None), Some(&waiting));
    assert_eq!(given(&step), (Some(SEAT), Some(Loader::Script), true));

    let script = Facts { mac: MAC, asks: Asks::Script };
    let step = decide(&script, &seated(None), Some(&waiting));
    assert!(matches!(step.action, Action::Wait { begins: true, .. }));
    let step = decide(&script, &seated(None), Some(&live(Stage::Waiting, 5, None)));
    assert!(matches!(step.action, Action::Wait { begins: false, .. }), "it has just begun");
    let step = decide(&script, &known(Place::Spare, None), Some(&waiting));
    assert!(
        matches!(step.action, Action::Wait { says, .. } if says == "m01 is a spare and waits for a seat")
    );
}

#[test]
fn an_image_that_is_missing_is_said_on_the_console() {
    let seat = Seat {
        name: "web1".into(),
        role: "web".into(),
        address: Some(SEAT),
        trouble: Some("no published image web".into()),
        exclusive: Exclusive::Fence,
    };
    let step =
        decide(&Facts { mac: MAC, asks: Asks::Script }, &known(Place::Seat(seat), None), None);
    assert!(matches!(step.action, Action::Wait { says, .. } if says == "no published image web"));
    assert!(step.because.contains(&Rule::RoleTrouble("no published image web".into())));
}

#[test]
fn a_choice_begins_one_boot_and_no_other() {
    let choice = |becomes| Choice { becomes, args: vec![("id".into(), "100".into())] };
    let chosen = |becomes, in_loader| Live {
        chosen: Some(Chosen { choice: Arc::new(choice(becomes)), in_loader }),
        ..live(Stage::Script, 10, Some(SEAT))
    };
    let db = || Becomes::Role("db".into());
    let unknown = Entry::Unknown(Arc::new(Unknown::Menu(Arc::default())));
    let ipxe = |discover| dhcp(Client::Ipxe, Some(Arch::BIOS), discover);
    let firmware = dhcp(Client::Firmware, Some(Arch::BIOS), true);
    let system = dhcp(Client::System, None, true);
    for (facts, entry, live, address, opens) in [
        // The loader asks DHCP again: another boot, without the seat's address.
        (ipxe(true), seated(None), chosen(db(), true), None, true),
        // Its own seat with other arguments keeps its address.
        (ipxe(true), seated(None), chosen(Becomes::Seat, true), Some(SEAT), true),
        (ipxe(true), unknown, chosen(db(), true), None, true),
        // What was under way, and whoever else asks, is not touched.
        (ipxe(false), seated(None), chosen(db(), true), Some(SEAT), false),
        (firmware.clone(), seated(None), chosen(db(), true), Some(SEAT), true),
        (system.clone(), seated(None), chosen(db(), true), Some(SEAT), false),
        // koboshi-init starts the machine over: whichever program speaks first.
        (firmware, seated(None), chosen(db(), false), None, true),
        (ipxe(true), seated(None), chosen(db(), false), None, true),
        (system, seated(None), chosen(db(), false), Some(SEAT), false),
    ] {
        let step = decide(&facts, &entry, Some(&live));
        let (given, _, opened) = given(&step);
        assert_eq!((given, opened), (address, opens), "{facts:?} {live:?}");
        let by_choice = step.because.iter().any(|rule| matches!(rule, Rule::Typed(_)));
        assert_eq!(by_choice, typed(&facts, &entry, Some(&live)).is_some());
    }
    // The site ignores strangers by now: nothing typed before changes that.
    let ignored = Entry::Unknown(Arc::new(Unknown::Ignore));
    let step = decide(&ipxe(true), &ignored, Some(&chosen(db(), true)));
    assert!(matches!(step.action, Action::Silence));
}
