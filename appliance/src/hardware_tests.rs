//! Machines that change, lie and swap: what is said of it.

use koboshi_initramfs::contract::hardware::{Bmc, Firmware};

use super::*;
use crate::site::tests::site;

const SITE: &str = r#"
[net]
interface = "eth1"

[machines]
m01 = { mac = ["52:54:00:77:00:01"], bmc = "10.78.0.1" }
m02 = { mac = ["52:54:00:77:00:02", "52:54:00:77:01:02"], bmc = "10.78.0.2" }
"#;

fn mac(last: u8) -> Mac {
    Mac([0x52, 0x54, 0, 0x77, 0, last])
}

fn port(mac: &str, driver: &str) -> Port {
    Port { mac: mac.into(), driver: driver.into(), ..Port::default() }
}

fn hardware(serial: &str, macs: &[&str], bmc: &str) -> Hardware {
    let bmc =
        (!bmc.is_empty()).then(|| Bmc { channel: 1, address: bmc.into(), mac: String::new() });
    let nics = macs.iter().map(|mac| port(mac, "igb")).collect();
    Hardware { serial: serial.into(), nics, bmc, ..Hardware::default() }
}

/// m01 and m02 as they should be.
fn all() -> HashMap<String, Record> {
    let one = hardware("CZ1", &["52:54:00:77:00:01"], "10.78.0.1");
    let two = hardware("CZ2", &["52:54:00:77:00:02", "52:54:00:77:01:02"], "10.78.0.2");
    [("m01", 1, one), ("m02", 2, two)]
        .map(|(name, last, hardware)| {
            (name.to_string(), Record::new(name, mac(last), 1, hardware, None))
        })
        .into()
}

fn judged(record: &Record, all: &HashMap<String, Record>) -> Vec<String> {
    let site = site(SITE);
    evidence(&site, record, &Others::of(&site, all))
}

fn said(name: &str, last: u8, now: Hardware) -> Vec<String> {
    let mut all = all();
    let record = Record::new(name, mac(last), 2, now, all.get(name));
    all.insert(name.to_string(), record.clone());
    judged(&record, &all)
}

#[test]
fn what_agrees_is_not_spoken_of() {
    for (name, record) in all() {
        assert_eq!(judged(&record, &all()), Vec::<String>::new(), "{name}");
    }
    // A serial number that is none proves nothing, whoever has it; a BMC without an address neither.
    for serial in ["", "To Be Filled By O.E.M.", "0000000000", "Default string", "XXXXXXXX"] {
        assert_eq!(
            said("m01", 1, hardware(serial, &["52:54:00:77:00:01"], "0.0.0.0")),
            Vec::<String>::new(),
            "{serial}"
        );
    }
}

#[test]
fn each_disagreement_is_said_with_both_sides() {
    let one = &["52:54:00:77:00:01"][..];
    for (now, expected) in [
        (
            hardware("CZ9", one, "10.78.0.1"),
            vec!["m01 answers with serial CZ9, last time CZ1: was"],
        ),
        (
            hardware("CZ2", one, "10.78.0.1"),
            vec![
                "m01 answers with serial CZ2, last time CZ1 (m02 had CZ2 last time): was the board",
            ],
        ),
        (
            hardware("CZ1", one, "10.78.0.9"),
            vec!["site.toml:6 has m01's BMC at 10.78.0.1, the machine itself says 10.78.0.9"],
        ),
        (
            hardware("CZ1", one, "10.78.0.2"),
            vec![
                "site.toml:6 has m01's BMC at 10.78.0.1, the machine itself says 10.78.0.2",
                "m01 says its BMC is at 10.78.0.2, where site.toml:7 has m02's",
            ],
        ),
        (
            hardware("CZ1", &["52:54:00:77:00:01", "52:54:00:77:01:02"], "10.78.0.1"),
            vec!["m01 has a NIC 52:54:00:77:01:02, which site.toml:7 gives to m02"],
        ),
    ] {
        let said = said("m01", 1, now);
        assert_eq!(said.len(), expected.len(), "{said:?}");
        for (said, expected) in said.iter().zip(expected) {
            assert!(said.contains(expected), "{said} should have {expected}");
        }
    }
    let gone = said("m02", 2, hardware("CZ2", &["52:54:00:77:00:02"], "10.78.0.2"));
    assert_eq!(
        gone,
        ["site.toml:7 gives m02 the MAC 52:54:00:77:01:02, but no NIC of it has that"]
    );
    let stranger = said("52:54:00:77:00:09", 9, hardware("CZ1", &["52:54:00:77:00:09"], ""));
    assert!(stranger[0].contains("which is m01's: is this m01 with another NIC?"), "{stranger:?}");
}

#[test]
fn a_board_that_was_exchanged_is_spoken_of_until_somebody_says_so() {
    let mut all = all();
    let now = hardware("CZ9", &["52:54:00:77:00:01"], "10.78.0.1");
    for boot in 2..5 {
        let record = Record::new("m01", mac(1), boot, now.clone(), all.get("m01"));
        assert_eq!(record.at, 2, "told like this since its second boot");
        all.insert("m01".to_string(), record);
        assert_eq!(judged(&all["m01"], &all).len(), 1);
    }
    let taken = all["m01"].taken_on();
    assert_eq!(judged(&taken, &all), Vec::<String>::new());
}

#[test]
fn the_nic_of_a_bmc_is_not_the_machines() {
    let mut now = hardware("CZ1", &["52:54:00:77:00:05", "52:54:00:77:00:01"], "");
    now.nics.push(port("e6:0e:e6:e6:51:ef", "cdc_ether"));
    now.nics.push(port("00:00:00:00:00:00", "igb"));
    now.nics.push(port("01:00:5e:00:00:01", "igb"));
    now.nics.push(port("no MAC", "igb"));
    let record = Record::new("m01", mac(1), 1, now, None);
    assert_eq!(record.macs(), [mac(1), mac(5)]);
}

#[test]
fn what_a_machine_wrote_cannot_drive_a_terminal() {
    let evil = || "\x1b]0;owned\x07\u{9b}2J\n".repeat(20);
    let disk = Disk {
        name: evil(),
        model: evil(),
        serial: evil(),
        bus: evil(),
        firmware: evil(),
        ..Disk::default()
    };
    let port = Port {
        name: evil(),
        mac: evil(),
        driver: evil(),
        slot: evil(),
        link: Some(true),
        mbit: Some(1),
    };
    let hardware = tidy(Hardware {
        vendor: evil(),
        product: evil(),
        serial: evil(),
        uuid: evil(),
        board: evil(),
        firmware: Firmware { uefi: true, vendor: evil(), version: evil(), date: evil() },
        disks: vec![disk],
        nics: vec![port],
        bmc: Some(Bmc { channel: 1, address: evil(), mac: evil() }),
        left_out: 3,
        ..Hardware::default()
    });
    let mut text = lines(&hardware);
    text.push(summary(&hardware));
    text.push(serde_json::to_string(&hardware).unwrap());
    for line in text {
        assert!(!line.chars().any(char::is_control) && line.len() < 4000, "{line:?}");
    }
}
