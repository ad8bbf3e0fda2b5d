//! What our client sets in a BMC, others read the same, and the other way round: boot device, watchdog, LAN and
//! VLAN, Serial over LAN, accounts, channels, device, a satellite. The BMC is `bmcsim`; ipmitool and FreeIPMI judge.

mod peers;

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use koboshi_bmcsim::bridge::Style;
use koboshi_bmcsim::{Config, Sim};
use koboshi_ipmi::commands::boot::{self, Device};
use koboshi_ipmi::commands::bridge::{Place as At, Satellite};
use koboshi_ipmi::commands::channel::{self, Limit, Store};
use koboshi_ipmi::commands::chassis::{self, Control, Controlled, Light, Restore, Waited};
use koboshi_ipmi::commands::device::{self, ResetTold};
use koboshi_ipmi::commands::lan::{self, Source};
use koboshi_ipmi::commands::lan_set::{self, Changed, LanChange};
use koboshi_ipmi::commands::sol_config::{self, SolSettings, Speed};
use koboshi_ipmi::commands::system_info::{self, SystemString};
use koboshi_ipmi::commands::user::{self, UserAccess};
use koboshi_ipmi::commands::watchdog::{self, Action, Setting, Use, Warning};
use koboshi_ipmi::commands::{authentication, panel, raw, sessions};
use koboshi_ipmi::session::{Access, Patience};
use koboshi_ipmi::{Bmc, Completion, Controller, Error, NetFn, Password, Request};
use peers::tool::{Said, run};
use peers::{PASSWORD, Place, USER, somewhere, until};

/// A BMC, and those who ask it.
struct Desk {
    sim: Sim,
    place: Place,
    bmc: Bmc,
}

impl Desk {
    fn new() -> Desk {
        Desk::at(|_| {})
    }

    fn at(change: impl FnOnce(&mut Config)) -> Desk {
        let mut config = Config::with_admin(USER, Password::new(PASSWORD).unwrap());
        config.listen = SocketAddr::from(somewhere());
        change(&mut config);
        let sim = Sim::start(config).expect("a free address");
        let place = Place::new();
        let bmc = Bmc::new(access(sim.addr(), USER, PASSWORD));
        Desk { sim, place, bmc }
    }

    async fn tried(&self, user: &str, words: &str) -> Said {
        let (at, password) = (self.sim.addr(), self.place.path("password"));
        let how = format!("-I lanplus -C 17 -H {} -p {} -U {user} -f", at.ip(), at.port());
        let mut all: Vec<String> = how.split(' ').map(str::to_owned).collect();
        all.push(password.display().to_string());
        all.extend(words.split(' ').map(str::to_owned));
        run("ipmitool", all).await
    }

    /// ipmitool.
    async fn tool(&self, words: &str) -> String {
        self.tried(USER, words).await.ok()
    }

    /// A program of FreeIPMI.
    async fn free(&self, program: &str, words: &str) -> String {
        let conf = self.place.path("freeipmi.conf");
        let mut all = vec![
            format!("--hostname={}", self.sim.addr()),
            format!("--config-file={}", conf.display()),
            "--driver-type=LAN_2_0".to_owned(),
            "--cipher-suite-id=17".to_owned(),
        ];
        all.extend(words.split(' ').map(str::to_owned));
        run(program, all).await.ok()
    }

    /// A section of FreeIPMI's `ipmi-config`.
    async fn section(&self, category: &str, section: &str) -> String {
        let words = format!("--category={category} --checkout --section={section}");
        self.free("ipmi-config", &words).await
    }
}

fn access(at: SocketAddr, user: &str, password: &str) -> Access {
    let mut access = Access::new(at.ip().to_string(), user, Password::new(password).unwrap());
    access.port = at.port();
    access
}

/// Whether a line of `text` has these words one after the other, whatever blanks, colons and points are between.
fn says(text: &str, line: &str) {
    let words = |text: &str| {
        let blank = |letter: char| letter.is_whitespace() || letter == ':';
        text.split(blank).filter(|word| !word.is_empty()).collect::<Vec<_>>().join(" ")
    };
    let wanted = words(line);
    assert!(text.lines().any(|line| words(line).contains(&wanted)), "{line:?} in\n{text}");
}

#[tokio::test]
async fn power_and_chassis() {
    let desk = Desk::new();
    let bmc = &desk.bmc;
    assert!(!chassis::status(bmc).await.unwrap().power);
    let error = chassis::control(bmc, Control::Cycle).await.unwrap_err();
    assert!(error.to_string().contains("can only be switched on"), "{error}");
    assert_eq!(chassis::control(bmc, Control::On).await, Ok(Controlled::Accepted));
    let waited = chassis::until(bmc, true, Duration::from_secs(20)).await.unwrap();
    assert!(matches!(waited, Waited::Reads(..)));
    panel::set_restore(bmc, Restore::On).await.unwrap();
    panel::identify(bmc, None).await.unwrap();
    let text = desk.tool("chassis status").await;
    says(&text, "System Power on");
    says(&text, "Power Restore Policy always-on");
    says(&text, "Last Power Event command");
    let text = desk.free("ipmi-chassis", "--get-chassis-status").await;
    says(&text, "Chassis Identify state Indefinite on");
    says(&text, "Power restore policy Always on");
    desk.tool("chassis identify 0").await;
    desk.tool("chassis policy previous").await;
    let status = chassis::status(bmc).await.unwrap();
    assert_eq!((status.identify, status.restore), (Some(Light::Off), Restore::Previous));
    assert_eq!(panel::restart_cause(bmc).await.unwrap(), "an IPMI command");
    says(&desk.tool("chassis restart_cause").await, "chassis power control command");
    assert_eq!(panel::powered(bmc).await, Ok(365 * 24 * 60));
    says(&desk.tool("chassis poh").await, "365 days");
    assert_eq!(chassis::control(bmc, Control::Soft).await, Ok(Controlled::Accepted));
    let waited = chassis::until(bmc, false, Duration::from_secs(20)).await.unwrap();
    assert!(matches!(waited, Waited::Reads(..)));
    says(&desk.tool("power status").await, "Chassis Power is off");
}

#[tokio::test]
async fn boot_device() {
    let desk = Desk::new();
    let bmc = &desk.bmc;
    let set = boot::set(bmc, Device::Pxe, true, true).await.unwrap();
    assert_eq!(set.words(), "pxe (EFI), every start");
    let text = desk.tool("chassis bootparam get 5").await;
    says(&text, "Options apply to all future boots");
    says(&text, "BIOS EFI boot");
    says(&text, "Boot Device Selector Force PXE");
    let text = desk.section("chassis", "Chassis_Boot_Flags").await;
    says(&text, "BIOS_Boot_Type EFI");
    says(&text, "Boot_Device PXE");
    // Kept whatever starts the machine, and longer than a minute.
    says(&desk.tool("chassis bootparam get 3").await, "Boot parameter data 1f");
    assert!(!boot::set(bmc, Device::None, false, false).await.unwrap().is_override());
    says(&desk.tool("chassis bootparam get 5").await, "Boot Flag Invalid");
    for name in ["pxe", "disk", "safe", "diag", "cdrom", "bios", "floppy"] {
        desk.tool(&format!("chassis bootdev {name} options=efiboot")).await;
        let read = boot::get(bmc).await.unwrap();
        assert_eq!((read.device.name(), read.efi, read.persistent), (name, true, false));
        assert!(read.valid);
    }
    boot::set(bmc, Device::Bios, false, false).await.unwrap();
    chassis::control(bmc, Control::On).await.unwrap();
    desk.sim.with(|bmc| assert_eq!(bmc.chassis.boots.back(), Some(&Some("bios"))));
    assert!(!boot::get(bmc).await.unwrap().is_override(), "it was for one start");
}

#[tokio::test]
async fn watchdog_counts_and_fires() {
    let desk = Desk::at(|config| config.on = true);
    let bmc = &desk.bmc;
    let error = watchdog::start(bmc).await.unwrap_err();
    assert!(error.to_string().contains("never set"), "{error}");
    let setting = Setting {
        user: Use::Os,
        action: Action::Cycle,
        warning: Warning::Nmi,
        warning_seconds: 20,
        unlogged: false,
        countdown: Duration::from_secs(300),
    };
    watchdog::set(bmc, setting).await.unwrap();
    watchdog::start(bmc).await.unwrap();
    let text = desk.tool("mc watchdog get").await;
    says(&text, "Watchdog Timer Use SMS/OS");
    says(&text, "Watchdog Timer Is Started/Running");
    says(&text, "Watchdog Timer Action Power Cycle");
    says(&text, "Pre-timeout interrupt NMI");
    says(&text, "Initial Countdown 300.0 sec");
    watchdog::stop(bmc).await.unwrap();
    says(&desk.tool("mc watchdog get").await, "Watchdog Timer Is Stopped");
    desk.tool("mc watchdog set use=oem timeout=90 action=poweroff pretimeout=0 int=none nolog")
        .await;
    let now = watchdog::get(bmc).await.unwrap();
    assert_eq!((now.setting.user, now.setting.action), (Use::Oem, Action::Off));
    assert_eq!(now.setting.countdown, Duration::from_secs(90));
    let soon = Setting {
        action: Action::Off,
        warning: Warning::None,
        warning_seconds: 0,
        countdown: Duration::from_millis(200),
        ..setting
    };
    watchdog::set(bmc, soon).await.unwrap();
    watchdog::start(bmc).await.unwrap();
    let waited = chassis::until(bmc, false, Duration::from_secs(20)).await.unwrap();
    assert!(matches!(waited, Waited::Reads(..)), "it fires");
    let after = watchdog::get(bmc).await.unwrap();
    assert!(!after.running && after.expired == [Use::Os]);
    says(&desk.tool("mc watchdog get").await, "SMS/OS");
    says(&desk.tool("sel elist").await, "Power down");
}

#[tokio::test]
async fn lan_and_vlan() {
    let desk = Desk::new();
    let bmc = &desk.bmc;
    let channel = channel::lan(bmc).await.unwrap();
    assert_eq!(channel, 1);
    let change = LanChange {
        address: Some(Ipv4Addr::new(10, 78, 0, 9)),
        mask: Some(Ipv4Addr::new(255, 255, 254, 0)),
        gateway: Some(Some(Ipv4Addr::new(10, 78, 1, 254))),
        vlan: Some(Some(1234)),
        vlan_priority: Some(6),
        ..LanChange::default()
    };
    let changed = lan_set::set(bmc, channel, &change).await.unwrap();
    assert!(matches!(changed, Changed::Done(..)));
    let text = desk.tool("lan print 1").await;
    for line in [
        "IP Address Source Static Address",
        "IP Address 10.78.0.9",
        "Subnet Mask 255.255.254.0",
        "Default Gateway IP 10.78.1.254",
        "802.1q VLAN ID 1234",
        "802.1q VLAN Priority 6",
        "RMCP+ Cipher Suites 3,17",
    ] {
        says(&text, line);
    }
    let text = desk.section("core", "Lan_Conf").await;
    says(&text, "IP_Address 10.78.0.9");
    says(&text, "Default_Gateway_IP_Address 10.78.1.254");
    let text = desk.section("core", "Lan_Conf_Misc").await;
    says(&text, "Enable_ARP_Response Yes");
    desk.tool("lan set 1 vlan id off").await;
    desk.tool("lan set 1 ipaddr 10.78.0.10").await;
    desk.tool("lan set 1 bakgw ipaddr 10.78.0.253").await;
    let read = lan::get(bmc, channel).await.unwrap();
    assert_eq!((read.address, read.vlan), (Some(Ipv4Addr::new(10, 78, 0, 10)), None));
    assert_eq!(read.backup_gateway, Some(Ipv4Addr::new(10, 78, 0, 253)));
    let own = read.ipv6.expect("it has IPv6").addresses;
    assert_eq!(own.len(), 1);
    says(&desk.tool("lan6 print 1 dynamic_addr").await, &own[0].address.to_string());
    let change = LanChange { source: Some(Source::Dhcp), ..LanChange::default() };
    let changed = lan_set::set(bmc, channel, &change).await.unwrap();
    assert!(matches!(changed, Changed::Done(lan) if lan.source == Some(Source::Dhcp)));
    says(&desk.tool("lan print 1").await, "IP Address Source DHCP Address");
    let back = LanChange { address: read.address, ..LanChange::default() };
    lan_set::set(bmc, channel, &back).await.unwrap();
    says(&desk.tool("lan print 1").await, "IP Address Source Static Address");
    lan_set::limit_suite(bmc, channel, 3, Limit::Operator).await.unwrap();
    says(&desk.tool("lan print 1").await, "Cipher Suite Priv Max oaXXXXXXXXXXXXX");
    desk.tool("lan set 1 cipher_privs XaXXXXXXXXXXXXX").await;
    let suites = lan::suites(bmc, channel).await.unwrap();
    assert_eq!((suites[0].limit, suites[1].limit), (Limit::Unset, Limit::Admin));
    desk.tool("lan alert set 1 2 ipaddr 10.78.0.200").await;
    let read = lan::get(bmc, channel).await.unwrap();
    let alerts: Vec<_> = read.destinations.iter().map(|one| (one.number, one.address)).collect();
    assert_eq!(alerts, [(2, Ipv4Addr::new(10, 78, 0, 200))]);
}

#[tokio::test]
async fn an_address_that_changes_under_the_session() {
    let set_lan = (NetFn::TRANSPORT, 0x01);
    let desk = Desk::new();
    let patience = Patience { total: Duration::from_secs(3), ..Patience::default() };
    let bmc = Bmc::new(Access { patience, ..access(desk.sim.addr(), USER, PASSWORD) });
    lan::basic(&bmc, 1).await.unwrap();
    desk.sim.with(|bmc| bmc.faults.unanswered.push(set_lan));
    let change = LanChange { vlan: Some(Some(78)), ..LanChange::default() };
    assert_eq!(lan_set::set(&bmc, 1, &change).await, Ok(Changed::Silent));
}

#[tokio::test]
async fn settings_of_serial_over_lan() {
    let desk = Desk::new();
    let bmc = &desk.bmc;
    let now = sol_config::get(bmc, 1).await.unwrap();
    assert_eq!((now.enabled, now.payload_port), (Some(true), Some(desk.sim.addr().port())));
    let wanted = SolSettings {
        privilege: Some(Limit::Operator),
        force_encryption: Some(false),
        threshold: Some(50),
        retry_interval: Some(Duration::from_millis(300)),
        speed: Some(Speed::Bits(57600)),
        ..SolSettings::default()
    };
    sol_config::set(bmc, 1, &now, &wanted).await.unwrap();
    let text = desk.tool("sol info 1").await;
    for line in [
        "Enabled true",
        "Force Encryption false",
        "Force Authentication true",
        "Privilege Level OPERATOR",
        "Character Accumulate Level (ms) 20",
        "Character Send Threshold 50",
        "Retry Count 7",
        "Retry Interval (ms) 300",
        "Volatile Bit Rate (kbps) 57.6",
        "Non-Volatile Bit Rate (kbps) 115.2",
    ] {
        says(&text, line);
    }
    says(&desk.section("core", "SOL_Conf").await, "SOL_Retry_Interval 30");
    desk.tool("sol set non-volatile-bit-rate 19.2 1").await;
    desk.tool("sol set enabled false 1").await;
    let read = sol_config::get(bmc, 1).await.unwrap();
    assert_eq!((read.enabled, read.speed_kept), (Some(false), Some(Speed::Bits(19200))));
}

#[tokio::test]
async fn an_account_is_made_and_others_log_in_with_it() {
    let desk = Desk::new();
    let bmc = &desk.bmc;
    let password = Password::new(PASSWORD).unwrap();
    user::set_name(bmc, 3, "night").await.unwrap();
    assert_eq!(user::set_password(bmc, 3, &password).await, Ok(false));
    let rights =
        UserAccess { callback: false, link: false, messaging: true, limit: Limit::Operator };
    user::set_access(bmc, 1, 3, rights).await.unwrap();
    desk.tried("night", "-L OPERATOR mc info").await.refused();
    user::enable(bmc, 3, true).await.unwrap();
    desk.tried("night", "-L OPERATOR mc info").await.ok();
    desk.tried("night", "-L ADMINISTRATOR mc info").await.refused();
    assert_eq!(user::test_password(bmc, 3, &password).await, Ok(true));
    let other = Password::new("something else").unwrap();
    assert_eq!(user::test_password(bmc, 3, &other).await, Ok(false));
    user::set_sol(bmc, 1, 3, false).await.unwrap();
    let text = desk.tool("user list 1").await;
    says(&text, "3 night true false true OPERATOR");
    let text = desk.section("core", "User3").await;
    for line in [
        "Username night",
        "Enable_User Yes",
        "Lan_Enable_IPMI_Msgs Yes",
        "Lan_Privilege_Limit Operator",
        "SOL_Payload_Access No",
    ] {
        says(&text, line);
    }
    desk.tool("user set name 4 day").await;
    desk.tool("channel setaccess 1 4 ipmi=on privilege=2").await;
    desk.tool("user enable 4").await;
    let users = user::list(bmc, 1).await.unwrap();
    let names: Vec<_> = users.iter().map(|user| (user.id, user.name.as_str())).collect();
    assert_eq!(names, [(2, USER), (3, "night"), (4, "day")]);
    let day = &users[2];
    assert_eq!((day.enabled, day.access.limit, day.sol), (Some(true), Limit::User, Some(false)));
    // Twenty bytes, which sessions of IPMI 2.0 take.
    let long = "twenty bytes of word";
    let long_password = Password::new(long).unwrap();
    assert_eq!(user::set_password(bmc, 4, &long_password).await, Ok(true));
    assert_eq!(user::test_password(bmc, 4, &long_password).await, Ok(true));
    let mut access = access(desk.sim.addr(), "day", long);
    access.privilege = koboshi_ipmi::Privilege::User;
    assert!(!chassis::status(&Bmc::new(access)).await.unwrap().power);
    desk.place.write("password", long);
    desk.tried("day", "-L USER power status").await.ok();
}

#[tokio::test]
async fn channels_and_their_access() {
    let desk = Desk::new();
    let bmc = &desk.bmc;
    let found = channel::list(bmc).await.unwrap();
    let numbers: Vec<_> = found.iter().map(|one| (one.channel, one.medium)).collect();
    let due =
        [(0, channel::Medium::Ipmb), (1, channel::Medium::Lan), (15, channel::Medium::System)];
    assert_eq!(numbers, due);
    let mut wanted = channel::access(bmc, 1, Store::Volatile).await.unwrap();
    wanted.alerting = true;
    channel::set_access(bmc, 1, wanted).await.unwrap();
    let text = desk.tool("channel info 1").await;
    says(&text, "Alerting enabled");
    says(&text, "Access Mode always available");
    assert_eq!(authentication::cipher_suites(bmc, channel::PRESENT).await.unwrap(), [3, 17]);
    let text = desk.tool("channel getciphers ipmi 1").await;
    says(&text, "17 N/A hmac_sha256 sha256_128 aes_cbc_128");
    let able = authentication::capabilities(bmc, channel::PRESENT, Limit::Admin).await.unwrap();
    assert!(able.v20 && able.v15 && able.named && !able.kg && !able.anonymous);
    // Last, as nobody comes in as an administrator any more.
    wanted.limit = Limit::Operator;
    channel::set_access(bmc, 1, wanted).await.unwrap();
    let words = "--category=core --checkout --section=Lan_Channel --privilege-level=OPERATOR";
    let text = desk.free("ipmi-config", words).await;
    says(&text, "Volatile_Channel_Privilege_Limit Operator");
    says(&text, "Non_Volatile_Channel_Privilege_Limit Operator");
}

#[tokio::test]
async fn who_it_is_and_who_is_logged_in() {
    let desk = Desk::at(|config| config.on = true);
    let bmc = &desk.bmc;
    desk.sim.with(|bmc| {
        bmc.device.manufacturer = 10876;
        bmc.device.firmware = [3, 0x88];
    });
    system_info::set(bmc, SystemString::Name, "m01.rack.koboshi.example").await.unwrap();
    desk.tool("mc setsysinfo os_name koboshi").await;
    let info = device::info(bmc).await.unwrap();
    assert_eq!((info.id.maker, info.id.firmware.as_str()), (Some("Supermicro"), "3.88"));
    assert_eq!((info.complaints, info.acpi), (Some(Vec::new()), Some("S0 (working)")));
    assert_eq!(info.host.as_deref(), Some("m01.rack.koboshi.example"));
    assert_eq!(info.os.as_deref(), Some("koboshi"));
    says(&desk.tool("mc getsysinfo system_name").await, "m01.rack.koboshi.example");
    let text = desk.tool("mc info").await;
    says(&text, "Firmware Revision 3.88");
    says(&text, &format!("Product ID {}", info.id.product));
    let guid = info.guid.unwrap().to_string();
    says(&desk.tool("mc guid").await, &format!("System GUID {guid}"));
    let text = desk.free("bmc-info", "--get-device-id").await;
    says(&text, "Manufacturer ID Super Micro Computer Inc. (10876)");
    assert_eq!(desk.free("bmc-info", "--get-device-guid").await.trim(), guid);
    let request = raw::parse(&["0x06", "0x04"]).unwrap();
    let answer = bmc.call(request).await.unwrap();
    assert_eq!(answer, [0x55, 0x00]);
    says(&desk.tool("raw 0x06 0x04").await, "55 00");
    let found = sessions::list(bmc).await.unwrap();
    assert_eq!((found.slots, found.active, found.list.len()), (5, 1, 1));
    assert_eq!((found.list[0].user, found.list[0].privilege), (2, Limit::Admin));
    let text = desk.tool("session info active").await;
    says(&text, "privilege level ADMINISTRATOR");
}

#[tokio::test]
async fn a_reset_ends_the_session_and_the_next_question_opens_another() {
    let desk = Desk::new();
    let patience = Patience {
        total: Duration::from_secs(8),
        suspect: Duration::from_secs(1),
        ..Patience::default()
    };
    let bmc = Bmc::new(Access { patience, ..access(desk.sim.addr(), USER, PASSWORD) });
    assert_eq!(device::reset(&bmc, true).await, Ok(ResetTold::Answered));
    desk.sim.with(|bmc| assert_eq!(bmc.sessions.open().count(), 0));
    device::id(&bmc).await.unwrap();
    desk.sim.with(|bmc| {
        assert_eq!(bmc.sessions.open().count(), 1);
        bmc.faults.unanswered.push((NetFn::APP, device::WARM_RESET));
    });
    assert_eq!(device::reset(&bmc, false).await, Ok(ResetTold::Silent));
    until("another session", || {
        desk.sim.with(|bmc| (bmc.sessions.open().count() == 0).then_some(()))
    })
    .await;
}

#[tokio::test]
async fn a_satellite_by_every_way_back() {
    let desk = Desk::new();
    let text = desk.tool("-t 0x82 -b 0 mc info").await;
    says(&text, "Device ID 130");
    says(&text, "Firmware Revision 9.05");
    for style in [Style::Follows, Style::Embedded, Style::Queued] {
        desk.sim.with(|bmc| bmc.bridge.style = style);
        let satellite = Satellite::new(&desk.bmc, At { channel: 0, address: 0x82 });
        for _ in 0..5 {
            let id =
                device::id(&satellite).await.unwrap_or_else(|error| panic!("{style:?}: {error}"));
            assert_eq!((id.device, id.firmware.as_str(), id.maker), (0x82, "9.05", Some("Intel")));
        }
        let error = chassis::status(&satellite).await.unwrap_err();
        assert_eq!(error.completion(), Some(Completion::INVALID_COMMAND), "{style:?}");
        let nobody = Satellite::new(&desk.bmc, At { channel: 0, address: 0x84 });
        let error = device::id(&nobody).await.unwrap_err();
        assert!(error.to_string().contains("nobody answers"), "{style:?}: {error}");
    }
    // What is asked of the BMC itself at the same time is not taken for the satellite's.
    desk.sim.with(|bmc| bmc.bridge.style = Style::Follows);
    let satellite = Satellite::new(&desk.bmc, At { channel: 0, address: 0x82 });
    let own = Request::new(NetFn::APP, device::ID, []);
    for _ in 0..20 {
        let (theirs, ours) = tokio::join!(device::id(&satellite), desk.bmc.call(own.clone()));
        assert_eq!((theirs.unwrap().device, ours.unwrap()[0]), (0x82, 0x20));
    }
}

#[tokio::test]
async fn a_satellite_of_a_bmc_that_others_wrote() {
    let sim = peers::ipmi_sim::IpmiSim::start().await;
    let bmc = Bmc::new(access(SocketAddr::from(sim.at()), USER, PASSWORD));
    let satellite = Satellite::new(&bmc, At { channel: 0, address: 0x82 });
    for _ in 0..5 {
        let id = device::id(&satellite).await.unwrap();
        assert_eq!((id.product, id.firmware.as_str()), (0xabc, "7.05"));
    }
    let nobody = Satellite::new(&bmc, At { channel: 0, address: 0x84 });
    let error = device::id(&nobody).await.unwrap_err();
    assert!(matches!(error, Error::Refused { .. }), "{error}");
}
