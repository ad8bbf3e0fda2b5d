//! What set-ups found: the last of each machine is kept, fit for a terminal, and shown beside what the machine tells of
//! itself at every boot. It is what a person compares with the order sheet.

use koboshi_initramfs::contract::Survey;
use koboshi_initramfs::contract::survey::{Controller, Lan, Module, Part, Processor, Source, User};
use koboshi_ipmi::commands::device;
use koboshi_pxe::BootId;
use serde::{Deserialize, Serialize};

use crate::hardware::{gib, plain};

/// A machine's survey, as its last set-up told it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Surveyed {
    /// The machine's name.
    pub machine: String,
    /// Unix milliseconds when it was told.
    pub at: u64,
    /// The boot that told it.
    pub boot: BootId,
    /// All of it.
    pub survey: Survey,
}

/// What a machine wrote, fit for a terminal and for the disk.
pub fn tidy(mut survey: Survey) -> Survey {
    for part in [&mut survey.board, &mut survey.chassis] {
        let Part { vendor, product, version, serial, asset } = part;
        [vendor, product, version, serial, asset].into_iter().for_each(plain);
    }
    for processor in &mut survey.processors {
        let Processor { socket, vendor, model, .. } = processor;
        [socket, vendor, model].into_iter().for_each(plain);
    }
    for module in &mut survey.memory {
        let Module { slot, bank, kind, vendor, part, serial, .. } = module;
        [slot, bank, kind, vendor, part, serial].into_iter().for_each(plain);
    }
    if let Some(bmc) = &mut survey.bmc {
        [&mut bmc.firmware, &mut bmc.ipmi].into_iter().for_each(plain);
        bmc.lan.iter_mut().for_each(|lan| plain(&mut lan.mac));
        for user in &mut bmc.users {
            [&mut user.name, &mut user.privilege].into_iter().for_each(plain);
        }
    }
    survey
}

/// One line: `2 of 2 sockets, 16 of 24 memory slots, 512.0 GiB, BMC 2.88 at 10.78.0.7/24 (static)`.
pub fn summary(survey: &Survey) -> String {
    let sockets = survey.processors.iter().filter(|one| !one.empty).count();
    let full = survey.memory.iter().filter(|one| one.mib > 0 || one.unknown).count();
    let mut parts = vec![
        format!("{sockets} of {} sockets", survey.processors.len()),
        format!("{full} of {} memory slots", survey.memory.len()),
        gib(survey.memory.iter().fold(0, |sum: u64, one| sum.saturating_add(one.mib))),
    ];
    parts.push(match &survey.bmc {
        None => "no BMC that its kernel can talk to".to_string(),
        Some(bmc) => {
            let at =
                bmc.lan.as_ref().map(place).unwrap_or_else(|| "without a LAN port".to_string());
            format!("BMC {} at {at}", bmc.firmware)
        }
    });
    parts.join(", ")
}

/// Everything, a line each, for a terminal.
pub fn lines(survey: &Survey) -> Vec<String> {
    let mut lines = Vec::new();
    for (name, part) in [("board", &survey.board), ("chassis", &survey.chassis)] {
        let Part { vendor, product, version, serial, asset } = part;
        let what = words(&[vendor, product, version]);
        let asset = if asset.is_empty() { String::new() } else { format!(", asset {asset}") };
        lines.push(format!("{name:<10}{what}, serial {}{asset}", or(serial)));
    }
    for one in &survey.processors {
        let what = match one.empty {
            true => "empty".to_string(),
            false => {
                let Processor { vendor, model, cores, threads, mhz, .. } = one;
                let model = if model.is_empty() { vendor } else { model };
                format!("{}, {cores} cores, {threads} threads, {mhz} MHz", or(model))
            }
        };
        lines.push(format!("socket    {:<12} {what}", one.socket));
    }
    let wide = survey.memory.iter().map(|one| one.slot.chars().count()).max().unwrap_or(0);
    for one in &survey.memory {
        let Module { slot, bank, mib, unknown, kind, speed, vendor, part, serial } = one;
        let place = format!("{slot:<wide$} {bank}");
        let what = match (*mib, *unknown) {
            (0, false) => "empty".to_string(),
            (mib, _) => {
                let size = if mib == 0 { "some memory".to_string() } else { gib(mib) };
                let speed = if *speed == 0 { String::new() } else { format!(" {speed} MT/s") };
                format!(
                    "{size:>9}  {kind}{speed}, {}, serial {}",
                    words(&[vendor, part]),
                    or(serial)
                )
            }
        };
        lines.push(format!("slot      {:<12} {what}", place.trim_end()));
    }
    match &survey.bmc {
        None => lines.push("bmc       none that the kernel can talk to".to_string()),
        Some(bmc) => lines.extend(of_bmc(bmc)),
    }
    if survey.left_out > 0 {
        lines.push(format!("          {} more found no room in the report", survey.left_out));
    }
    lines
}

fn of_bmc(bmc: &Controller) -> Vec<String> {
    let maker =
        device::maker(bmc.maker).map_or_else(|| format!("maker {}", bmc.maker), str::to_string);
    let mut lines = vec![format!(
        "bmc       {maker}, device {:#04x}, product {:#06x}, firmware {}, IPMI {}",
        bmc.device, bmc.product, bmc.firmware, bmc.ipmi
    )];
    if let Some(lan) = &bmc.lan {
        let gateway = lan.gateway.map_or("none".to_string(), |gateway| gateway.to_string());
        let vlan = lan.vlan.map_or("untagged".to_string(), |id| format!("VLAN {id}"));
        lines.push(format!(
            "          channel {}: {}, gateway {gateway}, {vlan}, MAC {}",
            lan.channel,
            place(lan),
            or(&lan.mac)
        ));
    }
    for user in &bmc.users {
        let User { id, name, privilege, enabled } = user;
        let name = if name.is_empty() { "(none)" } else { name };
        let may = match enabled {
            Some(true) => ", enabled",
            Some(false) => ", disabled",
            None => "",
        };
        lines.push(format!("          user {id}: {name}, {privilege}{may}"));
    }
    lines
}

/// `10.78.0.7/24 (static)`
fn place(lan: &Lan) -> String {
    let source = match lan.source {
        Source::Unknown => "of unknown source",
        Source::Static => "static",
        Source::Dhcp => "by DHCP",
        Source::Bios => "by the firmware",
    };
    let bits = lan.mask.map_or(0, |mask| mask.to_bits().count_ones());
    match lan.address {
        Some(address) => format!("{address}/{bits} ({source})"),
        None => format!("no address ({source})"),
    }
}

fn words(all: &[&String]) -> String {
    let told: Vec<&str> =
        all.iter().map(|one| one.as_str()).filter(|one| !one.is_empty()).collect();
    if told.is_empty() { "-".to_string() } else { told.join(" ") }
}

fn or(text: &str) -> &str {
    if text.is_empty() { "-" } else { text }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn survey() -> Survey {
        let full = Module {
            slot: "P1-DIMMA1".into(),
            bank: "P0_Node0".into(),
            mib: 65_536,
            kind: "DDR4".into(),
            speed: 2933,
            vendor: "Samsung".into(),
            part: "M393A8G40AB2".into(),
            serial: "03A5".into(),
            ..Module::default()
        };
        let empty = Module { slot: "P1-DIMMA2".into(), ..Module::default() };
        let lan = Lan {
            channel: 1,
            source: Source::Static,
            address: Some([10, 78, 0, 7].into()),
            mask: Some([255, 255, 255, 0].into()),
            mac: "52:54:00:78:00:07".into(),
            ..Lan::default()
        };
        let users = vec![User {
            id: 2,
            name: "ADMIN".into(),
            privilege: "admin".into(),
            enabled: Some(true),
        }];
        let bmc = Controller {
            firmware: "2.88".into(),
            ipmi: "2.0".into(),
            maker: 10_876,
            lan: Some(lan),
            users,
            ..Controller::default()
        };
        let cpu = Processor {
            socket: "CPU1".into(),
            model: "EPYC".into(),
            cores: 64,
            ..Processor::default()
        };
        let none = Processor { socket: "CPU2".into(), empty: true, ..Processor::default() };
        Survey {
            board: Part { vendor: "Supermicro".into(), serial: "UM19".into(), ..Part::default() },
            processors: vec![cpu, none],
            memory: vec![full, empty],
            bmc: Some(bmc),
            left_out: 3,
            ..Survey::default()
        }
    }

    #[test]
    fn a_page_to_compare_with_the_order_sheet() {
        let text = lines(&survey()).join("\n");
        for line in [
            "board     Supermicro, serial UM19",
            "socket    CPU1         EPYC, 64 cores, 0 threads, 0 MHz",
            "socket    CPU2         empty",
            "slot      P1-DIMMA1 P0_Node0  64.0 GiB  DDR4 2933 MT/s, Samsung M393A8G40AB2, serial 03A5",
            "slot      P1-DIMMA2    empty",
            "bmc       Supermicro, device 0x00, product 0x0000, firmware 2.88, IPMI 2.0",
            "channel 1: 10.78.0.7/24 (static), gateway none, untagged, MAC 52:54:00:78:00:07",
            "user 2: ADMIN, admin, enabled",
            "3 more found no room",
        ] {
            assert!(text.contains(line), "{line} in\n{text}");
        }
        assert_eq!(
            summary(&survey()),
            "1 of 2 sockets, 1 of 2 memory slots, 64.0 GiB, BMC 2.88 at 10.78.0.7/24 (static)"
        );
        assert!(summary(&Survey::default()).contains("no BMC"));
    }

    #[test]
    fn what_a_machine_wrote_is_no_terminals() {
        let mut bad = survey();
        let evil = || "\x1b]0;x\x07".repeat(60);
        bad.memory[0].serial = evil();
        bad.board.asset = evil();
        if let Some(bmc) = &mut bad.bmc {
            bmc.users[0].name = evil();
            bmc.firmware = evil();
        }
        let text =
            serde_json::to_string(&tidy(bad.clone())).unwrap() + &lines(&tidy(bad)).join(" ");
        assert!(!text.contains('\x1b') && !text.contains("\\u001b") && text.len() < 5000, "{text}");
    }
}
