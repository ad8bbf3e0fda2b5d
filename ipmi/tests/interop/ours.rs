//! This library: one session for everything, commands and console together.

use std::time::{Duration, Instant};

use koboshi_ipmi::commands::{boot, chassis, fru, lan, lan_set, sdr, sel, sensor, watchdog};
use koboshi_ipmi::{Access, Bmc, Cipher, Controller, Error, NetFn, Password, Request, Version};

use koboshi_ipmi::sol::{Console, Event, Options};

use super::bmc::Served;
use super::desk::{Boot, Desk, Device, Lan, Server, Verb, Watchdog, Way};
use crate::peers::{PASSWORD, USER};

/// The BMC as an operator's site would name it.
pub fn access(server: Server, bmc: &Served) -> Bmc {
    let password = Password::new(PASSWORD).expect("it is short");
    let mut access = Access::new(bmc.at().ip().to_string(), USER, password);
    access.port = bmc.at().port();
    match server.way() {
        Way::Md5 => access.version = Version::V15,
        Way::Suite(id) => access.cipher = Cipher::Suite(id),
    }
    Bmc::new(access)
}

pub async fn power(desk: &Desk) -> bool {
    chassis::status(&desk.ours).await.expect("a status").power
}

pub async fn press(desk: &Desk, verb: Verb) {
    let control = match verb {
        Verb::On => chassis::Control::On,
        Verb::Off => chassis::Control::Off,
        Verb::Cycle => chassis::Control::Cycle,
        Verb::Reset => chassis::Control::Reset,
        Verb::Soft => chassis::Control::Soft,
    };
    chassis::control(&desk.ours, control).await.expect("it obeys");
}

pub async fn boot(desk: &Desk) -> Boot {
    let flags = boot::get(&desk.ours).await.expect("boot flags");
    let device = match flags.device {
        boot::Device::None => Device::None,
        boot::Device::Pxe => Device::Pxe,
        boot::Device::Disk => Device::Disk,
        other => panic!("{other:?}"),
    };
    Boot { device, persistent: flags.persistent }
}

pub async fn set_boot(desk: &Desk, boot: Boot) {
    let device = match boot.device {
        Device::None => boot::Device::None,
        Device::Pxe => boot::Device::Pxe,
        Device::Disk => boot::Device::Disk,
    };
    let set = boot::set(&desk.ours, device, false, boot.persistent).await;
    // Of flags that do not read back valid it says so, which is right.
    let is_kept = !desk.server.is_ipmi_sim() || boot.device == Device::None;
    assert_eq!(!matches!(set, Err(Error::NotKept { .. })), is_kept, "{set:?}");
    if is_kept {
        set.expect("it takes boot flags");
    }
}

pub async fn raw(desk: &Desk, netfn: u8, command: u8, data: &[u8]) -> Vec<u8> {
    desk.ours.call(Request::new(NetFn(netfn), command, data)).await.expect("it takes the command")
}

pub async fn events(desk: &Desk) -> Vec<String> {
    let log = sel::list(&desk.ours).await.expect("an event log");
    let said = |entry| {
        let described = sel::describe(entry, None);
        format!("{} | {} | {}", described.sensor, described.kind, described.event)
    };
    log.entries.iter().map(said).collect()
}

pub async fn clear_events(desk: &Desk) {
    sel::clear(&desk.ours).await.expect("it clears");
}

pub async fn sensors(desk: &Desk) -> Vec<(String, f64)> {
    let repository = sdr::load(&desk.ours, None).await.expect("sensor records");
    let options = sensor::Options::default();
    let read = sensor::read_all(&desk.ours, &repository, options).await.expect("readings");
    read.into_iter().filter_map(|reading| Some((reading.name, reading.value?))).collect()
}

pub async fn inventory(desk: &Desk) -> String {
    let inventory = fru::one(&desk.ours, 0).await.expect("an inventory");
    assert!(inventory.notes.is_empty(), "{:?}", inventory.notes);
    format!("{inventory:?}")
}

pub async fn set_watchdog(desk: &Desk, seconds: u16) {
    let setting = watchdog::Setting {
        user: watchdog::Use::Os,
        action: watchdog::Action::Reset,
        warning: watchdog::Warning::None,
        warning_seconds: 0,
        unlogged: false,
        countdown: Duration::from_secs(seconds.into()),
    };
    watchdog::set(&desk.ours, setting).await.expect("it takes the watchdog");
}

pub async fn kick(desk: &Desk) {
    watchdog::start(&desk.ours).await.expect("it starts");
}

pub async fn watchdog(desk: &Desk) -> Watchdog {
    let read = watchdog::get(&desk.ours).await.expect("a watchdog");
    Watchdog {
        running: read.running,
        initial: read.setting.countdown.as_secs_f32(),
        left: read.left.map(|left| left.as_secs_f32()),
    }
}

pub async fn stop_watchdog(desk: &Desk) {
    watchdog::stop(&desk.ours).await.expect("it stops");
}

pub async fn lan(desk: &Desk) -> Lan {
    let read = lan::basic(&desk.ours, 1).await.expect("LAN settings");
    let shown = |address: Option<std::net::Ipv4Addr>| {
        address.unwrap_or(std::net::Ipv4Addr::UNSPECIFIED).to_string()
    };
    Lan {
        address: shown(read.address),
        mask: shown(read.mask),
        gateway: shown(read.gateway),
        mac: read.mac.expect("a MAC").to_string(),
        vlan: read.vlan,
    }
}

async fn change(desk: &Desk, change: lan_set::LanChange) {
    let changed = lan_set::set(&desk.ours, 1, &change).await.expect("it takes the change");
    assert!(matches!(changed, lan_set::Changed::Done(_) | lan_set::Changed::Nothing));
}

pub async fn set_address(desk: &Desk, address: &str) {
    let address = Some(address.parse().expect("an address"));
    change(desk, lan_set::LanChange { address, ..lan_set::LanChange::default() }).await;
}

pub async fn set_vlan(desk: &Desk, vlan: Option<u16>) {
    change(desk, lan_set::LanChange { vlan: Some(vlan), ..lan_set::LanChange::default() }).await;
}

/// A console and what it has shown.
pub struct Screen {
    console: Console,
    shown: Vec<u8>,
    seen: usize,
}

pub async fn console(desk: &Desk) -> Screen {
    let console = desk.ours.sol(Options::default()).await.expect("Serial over LAN");
    Screen { console, shown: Vec::new(), seen: 0 }
}

impl Screen {
    pub async fn send(&mut self, keys: &str) {
        self.console.send(keys).await.expect("it is open");
    }

    pub async fn send_break(&mut self) {
        self.console.send_break().await.expect("it is open");
    }

    pub async fn expect(&mut self, text: &str) {
        let begun = Instant::now();
        loop {
            let rest = &self.shown[self.seen..];
            if let Some(at) = rest.windows(text.len()).position(|w| w == text.as_bytes()) {
                self.seen += at + text.len();
                return;
            }
            let event = tokio::time::timeout(Duration::from_secs(30), self.console.recv()).await;
            match event {
                Ok(Some(Event::Data { bytes, .. })) => self.shown.extend_from_slice(&bytes),
                other => panic!(
                    "{text:?} after {:?}: {other:?}, {:?}",
                    begun.elapsed(),
                    String::from_utf8_lossy(&self.shown)
                ),
            }
        }
    }

    pub async fn leave(self) {
        self.console.close().await;
    }
}
