//! FreeIPMI 1.6.10: a program for each concern. `bmc-watchdog` asks only the BMC of its own machine, so the watchdog
//! is asked by `ipmi-raw`.

use super::desk::{Boot, Desk, Device, Lan, Server, Verb, Watchdog, Way};
use crate::peers::tool::run;
use crate::peers::tty::Tty;

/// `ipmi_sim` computes keys with the privilege of Open Session.
const SIM: &str = "opensesspriv";
/// Get Channel Payload Support ends `ipmi_sim`, and the payload sizes that it tells are the wrong way round.
const SIM_CONSOLE: &str = "opensesspriv,solchannelsupport,solpayloadsize";

fn access(desk: &Desk) -> Vec<String> {
    let conf = desk.bmc.place().path("freeipmi.conf");
    vec![format!("--hostname={}", desk.bmc.at()), format!("--config-file={}", conf.display())]
}

fn driver(desk: &Desk) -> Vec<String> {
    let way: &[&str] = match desk.server.way() {
        Way::Md5 => &["--driver-type=LAN"],
        Way::Suite(3) => &["--driver-type=LAN_2_0", "--cipher-suite-id=3"],
        Way::Suite(_) => &["--driver-type=LAN_2_0", "--cipher-suite-id=17"],
    };
    let around: &[&str] = if desk.server == Server::IpmiSim3 { &["-W", SIM] } else { &[] };
    way.iter().chain(around).map(|word| (*word).to_owned()).collect()
}

async fn ok(desk: &Desk, program: &str, words: &[&str]) -> String {
    let mut all = access(desk);
    all.extend(driver(desk));
    all.extend(words.iter().map(|word| (*word).to_owned()));
    if ["ipmi-sel", "ipmi-sensors", "ipmi-fru"].contains(&program) {
        let cache = desk.bmc.place().dir().display();
        all.push(format!("--sdr-cache-directory={cache}"));
        all.push("--quiet-cache".to_owned());
    }
    run(program, all).await.ok()
}

pub async fn power(desk: &Desk) -> bool {
    let text = ok(desk, "ipmipower", &["--stat"]).await;
    match text.trim().rsplit(": ").next() {
        Some("on") => true,
        Some("off") => false,
        _ => panic!("{text}"),
    }
}

pub async fn press(desk: &Desk, verb: Verb) {
    let word = match verb {
        Verb::On => "--on",
        Verb::Off => "--off",
        Verb::Cycle => "--cycle",
        Verb::Reset => "--reset",
        Verb::Soft => "--soft",
    };
    let text = ok(desk, "ipmipower", &[word]).await;
    assert!(text.trim().ends_with(": ok"), "{text}");
}

/// A value of `ipmi-config --checkout`.
fn value<'t>(text: &'t str, key: &str) -> &'t str {
    let mut lines = text.lines().filter_map(|line| line.trim().split_once(char::is_whitespace));
    lines.find(|(left, _)| *left == key).unwrap_or_else(|| panic!("{key} in {text}")).1.trim()
}

pub async fn boot(desk: &Desk) -> Boot {
    let words = ["--category=chassis", "--checkout", "--section=Chassis_Boot_Flags"];
    let text = ok(desk, "ipmi-config", &words).await;
    let device = match value(&text, "Boot_Device") {
        "NO-OVERRIDE" => Device::None,
        "PXE" => Device::Pxe,
        "HARD-DRIVE" => Device::Disk,
        other => panic!("{other}"),
    };
    Boot { device, persistent: value(&text, "Boot_Flags_Persistent") == "Yes" }
}

pub async fn set_boot(desk: &Desk, boot: Boot) {
    let device = match boot.device {
        Device::None => "NO-OVERRIDE",
        Device::Pxe => "PXE",
        Device::Disk => "HARD-DRIVE",
    };
    let device = format!("Chassis_Boot_Flags:Boot_Device={device}");
    let persistent = if boot.persistent { "Yes" } else { "No" };
    let persistent = format!("Chassis_Boot_Flags:Boot_Flags_Persistent={persistent}");
    let words = ["--category=chassis", "--commit", "-e", &persistent, "-e", &device];
    ok(desk, "ipmi-config", &words).await;
}

pub async fn raw(desk: &Desk, netfn: u8, command: u8, data: &[u8]) -> Vec<u8> {
    let mut typed = vec!["0".to_owned()];
    typed.extend([netfn, command].iter().chain(data).map(|byte| format!("{byte:#04x}")));
    let typed: Vec<&str> = typed.iter().map(String::as_str).collect();
    let text = ok(desk, "ipmi-raw", &typed).await;
    let bytes = text.trim().strip_prefix("rcvd: ").unwrap_or_else(|| panic!("{text}"));
    let bytes: Vec<u8> =
        bytes.split(' ').map(|byte| u8::from_str_radix(byte, 16).expect(&text)).collect();
    assert_eq!(bytes[1], 0, "{text}");
    bytes[2..].to_vec()
}

pub async fn events(desk: &Desk) -> Vec<String> {
    let words = ["--comma-separated-output", "--no-header-output"];
    ok(desk, "ipmi-sel", &words).await.lines().map(str::to_owned).collect()
}

pub async fn clear_events(desk: &Desk) {
    ok(desk, "ipmi-sel", &["--clear"]).await;
}

pub async fn sensors(desk: &Desk) -> Vec<(String, f64)> {
    let words = ["--comma-separated-output", "--no-header-output"];
    let text = ok(desk, "ipmi-sensors", &words).await;
    let read = |line: &str| {
        let mut columns = line.split(',');
        let name = columns.nth(1)?.to_owned();
        Some((name, columns.nth(1)?.parse().ok()?))
    };
    text.lines().filter_map(read).collect()
}

pub async fn inventory(desk: &Desk) -> String {
    ok(desk, "ipmi-fru", &["--device-id=0"]).await
}

pub async fn set_watchdog(desk: &Desk, seconds: u16) {
    let [low, high] = (seconds * 10).to_le_bytes();
    // For the operating system, action reset; no flag of another use is cleared.
    raw(desk, 0x06, 0x24, &[0x04, 0x01, 0, 0, low, high]).await;
}

pub async fn kick(desk: &Desk) {
    raw(desk, 0x06, 0x22, &[]).await;
}

pub async fn watchdog(desk: &Desk) -> Watchdog {
    let data = raw(desk, 0x06, 0x25, &[]).await;
    let seconds = |at: usize| {
        let [low, high] = *data.get(at..at + 2)?.first_chunk()?;
        Some(f32::from(u16::from_le_bytes([low, high])) / 10.0)
    };
    let initial = seconds(4).expect("an initial countdown");
    Watchdog { running: data[0] & 0x40 != 0, initial, left: seconds(6) }
}

pub async fn stop_watchdog(desk: &Desk) {
    raw(desk, 0x06, 0x24, &[0x04, 0, 0, 0, 0, 0]).await;
}

pub async fn lan(desk: &Desk) -> Lan {
    let text = checkout(desk).await;
    let of = |key| value(&text, key).to_owned();
    Lan {
        address: of("IP_Address"),
        mask: of("Subnet_Mask"),
        gateway: of("Default_Gateway_IP_Address"),
        mac: of("MAC_Address").to_lowercase(),
        vlan: (value(&text, "Vlan_Id_Enable") == "Yes")
            .then(|| of("Vlan_id").parse().expect("a number")),
    }
}

/// Not `ok`: what a BMC refuses among thirty values makes the whole command fail, with all others printed.
async fn checkout(desk: &Desk) -> String {
    let mut all = access(desk);
    all.extend(driver(desk));
    all.extend(["--checkout", "--section=Lan_Conf", "--verbose"].map(str::to_owned));
    run("ipmi-config", all).await.out
}

pub async fn set_address(desk: &Desk, address: &str) {
    let pair = format!("Lan_Conf:IP_Address={address}");
    let words = ["--commit", "-e", &pair];
    if desk.server.is_ipmi_sim() {
        // Parameter 0, set in progress: 1 begins, 2 commits.
        raw(desk, 0x0c, 0x01, &[1, 0, 1]).await;
        ok(desk, "ipmi-config", &words).await;
        raw(desk, 0x0c, 0x01, &[1, 0, 2]).await;
    } else {
        ok(desk, "ipmi-config", &words).await;
    }
}

pub async fn set_vlan(desk: &Desk, vlan: Option<u16>) {
    let id = vlan.map(|vlan| format!("Lan_Conf:Vlan_id={vlan}"));
    let mut words = vec!["--commit"];
    if let Some(id) = &id {
        words.extend(["-e", id, "-e", "Lan_Conf:Vlan_Id_Enable=Yes"]);
    } else {
        words.extend(["-e", "Lan_Conf:Vlan_Id_Enable=No"]);
    }
    ok(desk, "ipmi-config", &words).await;
}

pub async fn console(desk: &Desk) -> Tty {
    let mut all = access(desk);
    let how: &[&str] = match desk.server {
        Server::IpmiSim3 => &["--cipher-suite-id=3", "-W", SIM_CONSOLE],
        Server::Bmcsim3 => &["--cipher-suite-id=3"],
        Server::Bmcsim17 => &["--cipher-suite-id=17"],
        Server::IpmiSim15 | Server::Bmcsim15 => panic!("no Serial over LAN in IPMI 1.5"),
    };
    all.extend(how.iter().map(|word| (*word).to_owned()));
    let mut tty = Tty::spawn("ipmiconsole", all);
    tty.expect("[SOL established]").await;
    tty
}
