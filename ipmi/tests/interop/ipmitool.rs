//! ipmitool 1.8.19, and how to read what it prints.

use super::desk::{Boot, Desk, Device, Lan, Verb, Watchdog, Way};
use crate::peers::USER;
use crate::peers::tool::{Said, run};
use crate::peers::tty::Tty;

fn words(desk: &Desk, words: &[&str]) -> Vec<String> {
    let how: &[&str] = match desk.server.way() {
        Way::Md5 => &["-I", "lan", "-A", "MD5"],
        Way::Suite(3) => &["-I", "lanplus", "-C", "3"],
        Way::Suite(_) => &["-I", "lanplus", "-C", "17"],
    };
    let at = desk.bmc.at();
    let (host, port) = (at.ip().to_string(), at.port().to_string());
    let password = desk.bmc.place().path("password").display().to_string();
    let access = ["-H", &host, "-p", &port, "-U", USER, "-f", &password];
    how.iter().chain(&access).chain(words).map(|word| (*word).to_owned()).collect()
}

async fn say(desk: &Desk, what: &[&str]) -> Said {
    run("ipmitool", words(desk, what)).await
}

async fn ok(desk: &Desk, what: &[&str]) -> String {
    say(desk, what).await.ok()
}

/// What stands behind `label … :`, the first time.
fn field<'t>(text: &'t str, label: &str) -> &'t str {
    let mut lines = text.lines().filter_map(|line| line.split_once(':'));
    let found = lines.find(|(left, _)| left.trim().trim_start_matches("- ") == label);
    found.unwrap_or_else(|| panic!("{label} in {text}")).1.trim()
}

pub async fn power(desk: &Desk) -> bool {
    match ok(desk, &["power", "status"]).await.trim() {
        "Chassis Power is on" => true,
        "Chassis Power is off" => false,
        other => panic!("{other}"),
    }
}

pub async fn press(desk: &Desk, verb: Verb) {
    let word = match verb {
        Verb::On => "on",
        Verb::Off => "off",
        Verb::Cycle => "cycle",
        Verb::Reset => "reset",
        Verb::Soft => "soft",
    };
    ok(desk, &["power", word]).await;
}

pub async fn boot(desk: &Desk) -> Boot {
    let text = ok(desk, &["chassis", "bootparam", "get", "5"]).await;
    let device = match field(&text, "Boot Device Selector") {
        "No override" => Device::None,
        "Force PXE" => Device::Pxe,
        "Force Boot from default Hard-Drive" => Device::Disk,
        other => panic!("{other}"),
    };
    Boot { device, persistent: text.contains("Options apply to all future boots") }
}

pub async fn set_boot(desk: &Desk, boot: Boot) {
    let device = match boot.device {
        Device::None => "none",
        Device::Pxe => "pxe",
        Device::Disk => "disk",
    };
    let mut typed = vec!["chassis", "bootdev", device];
    if boot.persistent {
        typed.push("options=persistent");
    }
    ok(desk, &typed).await;
}

pub async fn raw(desk: &Desk, netfn: u8, command: u8, data: &[u8]) -> Vec<u8> {
    let bytes: Vec<String> =
        [netfn, command].iter().chain(data).map(|byte| format!("{byte:#04x}")).collect();
    let mut typed = vec!["raw"];
    typed.extend(bytes.iter().map(String::as_str));
    let text = ok(desk, &typed).await;
    text.split_whitespace().map(|byte| u8::from_str_radix(byte, 16).expect(&text)).collect()
}

pub async fn events(desk: &Desk) -> Vec<String> {
    // An empty log is told on standard error.
    let said = say(desk, &["sel", "list"]).await;
    said.ok().lines().map(str::to_owned).collect()
}

pub async fn clear_events(desk: &Desk) {
    ok(desk, &["sel", "clear"]).await;
}

pub async fn sensors(desk: &Desk) -> Vec<(String, f64)> {
    let text = ok(desk, &["sensor", "list"]).await;
    let read = |line: &str| {
        let mut columns = line.split('|').map(str::trim);
        let name = columns.next()?.to_owned();
        Some((name, columns.next()?.parse().ok()?))
    };
    text.lines().filter_map(read).collect()
}

pub async fn inventory(desk: &Desk) -> String {
    ok(desk, &["fru", "print", "0"]).await
}

pub async fn set_watchdog(desk: &Desk, seconds: u16) {
    let timeout = format!("timeout={seconds}");
    ok(desk, &["mc", "watchdog", "set", "use=sms", "action=reset", &timeout]).await;
}

pub async fn kick(desk: &Desk) {
    ok(desk, &["mc", "watchdog", "reset"]).await;
}

pub async fn watchdog(desk: &Desk) -> Watchdog {
    let text = ok(desk, &["mc", "watchdog", "get"]).await;
    let seconds = |label| {
        let text = field(&text, label).trim_end_matches(" sec");
        text.parse().unwrap_or_else(|_| panic!("{text}"))
    };
    Watchdog {
        running: field(&text, "Watchdog Timer Is").starts_with("Started"),
        initial: seconds("Initial Countdown"),
        // ipmitool reads it where there is nothing, too.
        left: (!desk.server.is_ipmi_sim()).then(|| seconds("Present Countdown")),
    }
}

pub async fn stop_watchdog(desk: &Desk) {
    ok(desk, &["mc", "watchdog", "off"]).await;
}

pub async fn lan(desk: &Desk) -> Lan {
    let text = ok(desk, &["lan", "print", "1"]).await;
    let of = |label| field(&text, label).to_owned();
    Lan {
        address: of("IP Address"),
        mask: of("Subnet Mask"),
        gateway: of("Default Gateway IP"),
        mac: of("MAC Address"),
        vlan: of("802.1q VLAN ID").parse().ok(),
    }
}

pub async fn set_address(desk: &Desk, address: &str) {
    ok(desk, &["lan", "set", "1", "ipaddr", address]).await;
}

pub async fn set_vlan(desk: &Desk, vlan: Option<u16>) {
    let vlan = vlan.map_or("off".to_owned(), |vlan| vlan.to_string());
    ok(desk, &["lan", "set", "1", "vlan", "id", &vlan]).await;
}

pub async fn console(desk: &Desk) -> Tty {
    let mut tty = Tty::spawn("ipmitool", words(desk, &["sol", "activate"]));
    tty.expect("[SOL Session operational.").await;
    tty
}
