//! From the kernel to `up`: what `koboshi-init` reports, and the root it fetches between.

use std::net::SocketAddrV4;
use std::time::Duration;

use koboshi_initramfs::contract::{self, Hardware, Phase, Report};

use super::{Ask, Doing, Effect, Effects, HEARTBEAT, Machine, Next, Patience, SYSTEM, What};
use crate::firmware::Firmware;
use crate::log::Stage;
use crate::script::Url;

/// How long it waits for a byte of its root …
const ROOT: Patience =
    Patience { connect: Duration::from_secs(5), silence: Duration::from_secs(20) };
/// … and for an answer to a report.
const REPORT: Patience =
    Patience { connect: Duration::from_secs(1), silence: Duration::from_secs(1) };

/// What the kernel's command line says.
#[derive(Debug, Clone)]
pub(super) struct Init {
    pub(super) server: SocketAddrV4,
    pub(super) boot: String,
    pub(super) root: Option<String>,
    pub(super) seq: u32,
    pub(super) since: Duration,
}

/// Reports, in order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Told {
    Init,
    Hardware,
    RootBegun,
    RootReady,
    Switching,
    Up,
}

impl Machine {
    pub(super) fn tell(&mut self, told: Told, now: Duration, out: &mut Effects) {
        self.tries += 1;
        let phase = match told {
            Told::Init => Phase::Init {
                kernel: "6.1.0-storm-amd64".to_string(),
                memory_mib: 65_536,
                nic: "eth0".to_string(),
            },
            Told::Hardware => Phase::Hardware(Box::new(self.hardware())),
            Told::RootBegun => Phase::RootBegun { attempt: 1 },
            Told::RootReady => Phase::RootReady { bytes: 1, ms: 1, attempts: 1 },
            Told::Switching => Phase::Switching,
            Told::Up => Phase::Up { by: "storm".to_string() },
        };
        match told {
            Told::Init => self.log.asks(Stage::Init, self.tries, now),
            Told::Up => self.log.asks(Stage::Up, self.tries, now),
            _ => {}
        }
        if self.report(phase, now, out) {
            self.doing = Doing::Fetches(What::Report(told));
            self.deadline = None;
        } else {
            self.start_over("its command line names no server", now);
        }
    }

    pub(super) fn told(&mut self, told: Told, now: Duration, out: &mut Effects) {
        match told {
            Told::Init => {
                self.log.done(Stage::Init, now);
                self.tell(Told::Hardware, now, out);
            }
            Told::Hardware => self.tell(Told::RootBegun, now, out),
            Told::RootBegun => self.fetch_root(now, out),
            Told::RootReady => self.tell(Told::Switching, now, out),
            Told::Switching => self.think(SYSTEM, Next::Tell(Told::Up), now),
            Told::Up => {
                self.log.done(Stage::Up, now);
                self.log.lost = None;
                self.doing = Doing::Up;
                self.deadline = Some(now + self.dice.about(HEARTBEAT));
            }
        }
    }

    pub(super) fn fetch_root(&mut self, now: Duration, out: &mut Effects) {
        self.tries += 1;
        self.log.asks(Stage::Root, self.tries, now);
        let root = self.init.as_ref().and_then(|init| Some((init.server, init.root.clone()?)));
        let Some((server, digest)) = root else {
            return self.start_over("its command line names no root", now);
        };
        let url = Url { server, path: format!("/blob/sha256/{digest}") };
        let ask = Ask { keeps: false, ..self.question("GET", url, ROOT) };
        self.fetch(What::Root, ask, out);
    }

    /// False where there is nobody to report to.
    pub(super) fn report(&mut self, phase: Phase, now: Duration, out: &mut Effects) -> bool {
        let Some(init) = &mut self.init else { return false };
        init.seq += 1;
        let uptime = now.saturating_sub(init.since).as_millis();
        let uptime_ms = u64::try_from(uptime).unwrap_or(u64::MAX);
        let Ok(body) = serde_json::to_vec(&Report { phase, uptime_ms, seq: init.seq }) else {
            return false;
        };
        let url = Url { server: init.server, path: format!("/report/{}", init.boot) };
        let ask = self.question("POST", url, REPORT);
        out.push(Effect::Fetch(Ask { body, keeps: false, reads: None, ..ask }));
        true
    }

    fn hardware(&self) -> Hardware {
        let mut hardware = Hardware {
            vendor: "Storm".to_string(),
            product: "Paper 1U".to_string(),
            serial: format!("ST{:08}", self.spec.number),
            memory_mib: 65_536,
            ..Hardware::default()
        };
        hardware.firmware.uefi = matches!(self.spec.firmware, Firmware::Edk2 | Firmware::Http);
        hardware
    }
}

/// The keys of a boot on the kernel's command line.
pub(super) fn init(cmdline: &str, now: Duration) -> Option<Init> {
    let value = |key: &str| {
        let mut words = cmdline.split_whitespace();
        words.find_map(|word| word.strip_prefix(key)?.strip_prefix('='))
    };
    let server = Url::read(value(contract::KEY_SERVER)?)?.server;
    let boot = value(contract::KEY_BOOT)?.to_string();
    let root = value(contract::KEY_ROOT).and_then(|root| root.strip_prefix("sha256:"));
    Some(Init { server, boot, root: root.map(str::to_string), seq: 0, since: now })
}
