//! One set of assertions over all clients and all BMCs: where a foreign client and ours, before a foreign BMC and
//! ours, all see the same, what they see is IPMI.
//!
//! What `ipmi_sim` 2.0.33 does otherwise, and what the assertions take for it:
//!
//! | | answers | taken for right |
//! |---|---|---|
//! | cipher suite 17 | "invalid authentication algorithm" | 3 is asked for |
//! | boot flags | takes all, reads back the device alone: never valid, never persistent | the device |
//! | boot device `none` | hands `none` to its hardware | the same |
//! | soft power-off | tells its hardware, which is a file | that it was told |
//! | diagnostic interrupt | 0xCC | not asked |
//! | watchdog without action | takes it, and never counts | action `reset` |
//! | Get Watchdog Timer | never "running", and two bytes short: no present countdown | that it fires |
//! | a watchdog started anew | fires when it would have before | it fires first, then it counts |
//! | LAN parameters | reach its hardware with "set in progress: commit" alone | FreeIPMI does not send it, so `ipmi-raw` does |
//! | BREAK | reaches the line with the next character | one is typed behind it |
//! | Get Channel Payload Support | crashes | FreeIPMI's `solchannelsupport` |
//! | SOL in IPMI 1.5 | there is none | no such test |

mod bmc;
mod desk;
mod freeipmi;
mod ipmitool;
mod ours;
#[path = "../peers/mod.rs"]
mod peers;

use std::time::Duration;

use desk::{Boot, Client, Desk, Device, Server, Verb};

/// A test for each client before each BMC.
macro_rules! matrix {
    ($area:ident: $($name:ident = $client:ident at $server:ident;)*) => {
        mod $area {
            $(#[tokio::test]
            async fn $name() {
                let desk = super::Desk::at(super::Client::$client, super::Server::$server).await;
                super::$area(desk).await;
            })*
        }
    };
    ($area:ident) => {
        matrix! { $area:
            ours_ipmi_sim_15 = Ours at IpmiSim15;
            ours_ipmi_sim_suite_3 = Ours at IpmiSim3;
            ours_bmcsim_15 = Ours at Bmcsim15;
            ours_bmcsim_suite_3 = Ours at Bmcsim3;
            ours_bmcsim_suite_17 = Ours at Bmcsim17;
            ipmitool_ipmi_sim_15 = Ipmitool at IpmiSim15;
            ipmitool_ipmi_sim_suite_3 = Ipmitool at IpmiSim3;
            ipmitool_bmcsim_15 = Ipmitool at Bmcsim15;
            ipmitool_bmcsim_suite_3 = Ipmitool at Bmcsim3;
            ipmitool_bmcsim_suite_17 = Ipmitool at Bmcsim17;
            freeipmi_ipmi_sim_15 = FreeIpmi at IpmiSim15;
            freeipmi_ipmi_sim_suite_3 = FreeIpmi at IpmiSim3;
            freeipmi_bmcsim_15 = FreeIpmi at Bmcsim15;
            freeipmi_bmcsim_suite_3 = FreeIpmi at Bmcsim3;
            freeipmi_bmcsim_suite_17 = FreeIpmi at Bmcsim17;
        }
    };
    ($area:ident by sessions of 2.0) => {
        matrix! { $area:
            ours_ipmi_sim_suite_3 = Ours at IpmiSim3;
            ours_bmcsim_suite_3 = Ours at Bmcsim3;
            ours_bmcsim_suite_17 = Ours at Bmcsim17;
            ipmitool_ipmi_sim_suite_3 = Ipmitool at IpmiSim3;
            ipmitool_bmcsim_suite_3 = Ipmitool at Bmcsim3;
            ipmitool_bmcsim_suite_17 = Ipmitool at Bmcsim17;
            freeipmi_ipmi_sim_suite_3 = FreeIpmi at IpmiSim3;
            freeipmi_bmcsim_suite_3 = FreeIpmi at Bmcsim3;
            freeipmi_bmcsim_suite_17 = FreeIpmi at Bmcsim17;
        }
    };
}

matrix! { power }
matrix! { boot_device }
matrix! { event_log }
matrix! { sensors }
matrix! { inventory }
matrix! { watchdog }
matrix! { lan }
matrix! { console by sessions of 2.0 }

async fn power(desk: Desk) {
    assert!(!desk.power().await);
    desk.press(Verb::On).await;
    desk.bmc.did(Verb::On).await;
    assert!(desk.power().await);
    desk.press(Verb::Reset).await;
    desk.bmc.did(Verb::Reset).await;
    assert!(desk.power().await);
    desk.press(Verb::Cycle).await;
    desk.bmc.did(Verb::Cycle).await;
    assert!(desk.power().await);
    desk.press(Verb::Soft).await;
    desk.bmc.did(Verb::Soft).await;
    desk.press(Verb::Off).await;
    desk.bmc.did(Verb::Off).await;
    assert!(!desk.power().await);
}

async fn boot_device(desk: Desk) {
    for (device, persistent) in
        [(Device::Pxe, false), (Device::Disk, true), (Device::Pxe, true), (Device::None, false)]
    {
        let boot = Boot { device, persistent };
        desk.set_boot(boot).await;
        let read = desk.boot().await;
        assert_eq!(read.device, device);
        assert_eq!(read.persistent, persistent && !desk.server.is_ipmi_sim(), "{boot:?}");
        desk.bmc.would_boot(device).await;
    }
}

async fn event_log(desk: Desk) {
    desk.clear_events().await;
    assert_eq!(desk.events().await, [""; 0]);
    // System event 0x02 of the BMC's sensor 1, a temperature: above a threshold (offset 7), reading, threshold.
    for reading in [0x50, 0x51] {
        let event = [0, 0, 2, 0, 0, 0, 0, 0x20, 0, 4, 1, 1, 1, 0x57, reading, 0x60];
        desk.raw(0x0a, 0x44, &event).await;
    }
    let events = desk.events().await;
    assert_eq!(events.len(), 2, "{events:?}");
    for event in events.iter().map(|event| event.to_lowercase()) {
        assert!(event.contains("temperature") && event.contains("upper non-critical"), "{event}");
    }
    desk.clear_events().await;
    assert_eq!(desk.events().await, [""; 0]);
}

async fn sensors(desk: Desk) {
    let read = desk.sensors().await;
    let measured = desk.bmc.measures();
    assert!(!measured.is_empty());
    for (name, value) in measured {
        let found = read.iter().find(|(called, _)| *called == name);
        let (_, shown) = found.unwrap_or_else(|| panic!("{name} is in {read:?}"));
        // Clients print as many digits as they like.
        assert!((shown - value).abs() < 0.01 + value.abs() / 1000.0, "{name}: {shown} for {value}");
    }
}

async fn inventory(desk: Desk) {
    let text = desk.inventory().await;
    for field in peers::fru::BOARD.iter().chain(&peers::fru::PRODUCT) {
        assert!(text.contains(field), "{field} in {text}");
    }
}

async fn watchdog(desk: Desk) {
    desk.press(Verb::On).await;
    desk.set_watchdog(1).await;
    desk.kick().await;
    desk.bmc.watchdog_reset().await;
    assert!(!desk.watchdog().await.running, "it fired");
    desk.set_watchdog(60).await;
    let set = desk.watchdog().await;
    assert!(!set.running && set.initial == 60.0, "{set:?}");
    desk.kick().await;
    let counting = desk.watchdog().await;
    assert_eq!(counting.initial, 60.0, "{counting:?}");
    assert_eq!(counting.running, !desk.server.is_ipmi_sim(), "{counting:?}");
    assert_eq!(counting.left.is_some(), !desk.server.is_ipmi_sim(), "{counting:?}");
    if let Some(left) = counting.left {
        assert!(left <= 60.0 && left > 20.0, "{counting:?}");
        tokio::time::sleep(Duration::from_millis(300)).await;
        let later = desk.watchdog().await;
        assert!(later.left < counting.left, "{later:?} after {counting:?}");
    }
    desk.stop_watchdog().await;
    assert!(!desk.watchdog().await.running);
}

async fn lan(desk: Desk) {
    let lan = desk.lan().await;
    assert_eq!(lan, desk.bmc.network());
    desk.set_address("10.78.0.77").await;
    assert_eq!(desk.lan().await, desk::Lan { address: "10.78.0.77".into(), ..lan.clone() });
    for vlan in [Some(77), Some(4094), None] {
        desk.set_vlan(vlan).await;
        let vlan = desk::Lan { address: "10.78.0.77".into(), vlan, ..lan.clone() };
        assert_eq!(desk.lan().await, vlan);
    }
}

async fn console(desk: Desk) {
    let mut console = desk.console().await;
    let line = desk.bmc.line();
    line.connected().await;
    line.say("m01 login: ");
    console.expect("m01 login: ").await;
    console.send("root\r").await;
    assert_eq!(line.hear(5).await, b"root\r");
    console.send_break().await;
    console.send("h").await;
    line.broken(1).await;
    assert_eq!(line.hear(6).await, b"root\rh");
    assert_eq!(line.heard().breaks, [5]);
    // More than a payload, and more than the sequence numbers there are.
    let text: String = (0..300).map(|number| format!("line {number} of the log\r\n")).collect();
    line.say(&text);
    console.expect("line 299 of the log").await;
    console.leave().await;
    // The next one gets in at once.
    let mut console = desk.console().await;
    line.say("welcome back");
    console.expect("welcome back").await;
    console.leave().await;
}
