//! The BMC that is asked, and what its machine says was done to it: the witness that no client can talk to.

use std::net::SocketAddrV4;

use koboshi_bmcsim::chassis::{Act, Cause};

use super::desk::{Device, Lan, Server, Verb};
use crate::peers::bmcsim::Bmcsim;
use crate::peers::ipmi_sim::IpmiSim;
use crate::peers::line::Line;
use crate::peers::{Place, until};

/// A running BMC.
pub enum Served {
    /// OpenIPMI's.
    IpmiSim(IpmiSim),
    /// Ours.
    Bmcsim(Bmcsim),
}

impl Served {
    /// Starts it.
    pub async fn start(server: Server) -> Served {
        match server {
            Server::IpmiSim15 | Server::IpmiSim3 => Served::IpmiSim(IpmiSim::start().await),
            Server::Bmcsim15 | Server::Bmcsim3 | Server::Bmcsim17 => {
                Served::Bmcsim(Bmcsim::start().await)
            }
        }
    }

    /// Where it listens.
    pub fn at(&self) -> SocketAddrV4 {
        match self {
            Served::IpmiSim(sim) => sim.at(),
            Served::Bmcsim(sim) => sim.at(),
        }
    }

    /// The test's folder.
    pub fn place(&self) -> &Place {
        match self {
            Served::IpmiSim(sim) => sim.place(),
            Served::Bmcsim(sim) => sim.place(),
        }
    }

    /// The machine's end of its serial line.
    pub fn line(&self) -> &Line {
        match self {
            Served::IpmiSim(sim) => sim.line(),
            Served::Bmcsim(sim) => sim.line(),
        }
    }

    /// What its analog sensors measure.
    pub fn measures(&self) -> Vec<(String, f64)> {
        match self {
            Served::IpmiSim(_) => IpmiSim::sensors()
                .into_iter()
                .map(|(name, value)| (name.to_owned(), value))
                .collect(),
            Served::Bmcsim(sim) => sim.sim().with(|bmc| {
                let analog = bmc.sensors.all.iter().filter(|sensor| sensor.event_type == 1);
                analog.filter_map(|sensor| Some((sensor.name.clone(), sensor.value()?))).collect()
            }),
        }
    }

    /// Its network, as it left the factory.
    pub fn network(&self) -> Lan {
        match self {
            Served::IpmiSim(_) => Lan {
                address: "10.78.0.9".into(),
                mask: "255.255.255.0".into(),
                gateway: "10.78.0.1".into(),
                mac: "52:54:00:78:00:09".into(),
                vlan: None,
            },
            Served::Bmcsim(sim) => Lan {
                address: sim.at().ip().to_string(),
                mask: "255.255.255.0".into(),
                gateway: "0.0.0.0".into(),
                mac: "52:54:00:00:00:01".into(),
                vlan: None,
            },
        }
    }

    /// Waits until the machine has been through this, as the last thing.
    pub async fn did(&self, verb: Verb) {
        match self {
            Served::IpmiSim(sim) => {
                let wanted: &[&str] = match verb {
                    Verb::On => &["power 1"],
                    Verb::Off => &["power 0"],
                    Verb::Cycle => &["power 0", "power 1"],
                    Verb::Reset => &["reset 1"],
                    Verb::Soft => &["shutdown 1"],
                };
                let look = || {
                    let told = sim.told();
                    told.ends_with(&wanted.iter().map(|w| (*w).to_owned()).collect::<Vec<_>>())
                        .then_some(())
                };
                until(&format!("{verb:?} reaches the machine ({:?})", sim.told()), look).await;
            }
            Served::Bmcsim(sim) => {
                let (act, on) = match verb {
                    Verb::On => (Act::On, true),
                    Verb::Off => (Act::Off, false),
                    Verb::Cycle => (Act::Cycle, true),
                    Verb::Reset => (Act::Reset, true),
                    Verb::Soft => (Act::Soft, false),
                };
                let done = |bmc: &mut koboshi_bmcsim::Bmc| {
                    bmc.chassis.acts.back() == Some(&act) && bmc.chassis.on == on
                };
                let look = || sim.sim().with(done).then_some(());
                until(&format!("{verb:?} reaches the machine"), look).await;
            }
        }
    }

    /// Waits until the watchdog reset the machine.
    pub async fn watchdog_reset(&self) {
        match self {
            Served::IpmiSim(sim) => {
                until("the watchdog resets", || sim.vm().told().contains(&"reset").then_some(()))
                    .await;
            }
            Served::Bmcsim(sim) => {
                let done = |bmc: &mut koboshi_bmcsim::Bmc| {
                    bmc.chassis.acts.back() == Some(&Act::Reset)
                        && bmc.chassis.cause == Cause::Watchdog
                };
                until("the watchdog resets", || sim.sim().with(done).then_some(())).await;
            }
        }
    }

    /// What the machine would boot from, once it starts.
    pub async fn would_boot(&self, device: Device) {
        match self {
            Served::IpmiSim(sim) => {
                let wanted = match device {
                    Device::None => "boot none",
                    Device::Pxe => "boot pxe",
                    Device::Disk => "boot default",
                };
                let look = || {
                    let told = sim.told();
                    (told.iter().rfind(|told| told.starts_with("boot"))? == wanted).then_some(())
                };
                until(wanted, look).await;
            }
            Served::Bmcsim(sim) => {
                let wanted = match device {
                    Device::None => None,
                    Device::Pxe => Some("pxe"),
                    Device::Disk => Some("disk"),
                };
                assert_eq!(sim.sim().with(koboshi_bmcsim::boot::chosen), wanted);
            }
        }
    }
}
