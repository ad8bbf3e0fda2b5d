//! A client at its desk: which one, and which BMC it has before it.

use koboshi_ipmi::Bmc;

use super::bmc::Served;
use super::{freeipmi, ipmitool, ours};
use crate::peers::tty::Tty;

/// Who asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Client {
    /// This library.
    Ours,
    /// ipmitool 1.8.19.
    Ipmitool,
    /// FreeIPMI 1.6.10: a program for each concern.
    FreeIpmi,
}

/// Who answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Server {
    /// OpenIPMI's `ipmi_sim`, by IPMI 1.5 with MD5.
    IpmiSim15,
    /// The same by RMCP+ with cipher suite 3.
    IpmiSim3,
    /// Our simulator, by IPMI 1.5 with MD5.
    Bmcsim15,
    /// The same by RMCP+ with cipher suite 3.
    Bmcsim3,
    /// The same with cipher suite 17.
    Bmcsim17,
}

/// How a server is talked to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// IPMI 1.5 with MD5.
    Md5,
    /// RMCP+ with this cipher suite.
    Suite(u8),
}

impl Server {
    /// How it is talked to.
    pub fn way(self) -> Way {
        match self {
            Server::IpmiSim15 | Server::Bmcsim15 => Way::Md5,
            Server::IpmiSim3 | Server::Bmcsim3 => Way::Suite(3),
            Server::Bmcsim17 => Way::Suite(17),
        }
    }

    /// Whether it is OpenIPMI's, with all that [`super`] lists.
    pub fn is_ipmi_sim(self) -> bool {
        matches!(self, Server::IpmiSim15 | Server::IpmiSim3)
    }
}

/// Buttons.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verb {
    /// On.
    On,
    /// Off at once.
    Off,
    /// Off and on.
    Cycle,
    /// The reset line.
    Reset,
    /// The power button, pressed shortly.
    Soft,
}

/// What the machine starts from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Device {
    /// As its firmware likes.
    None,
    /// The network.
    Pxe,
    /// Its disk.
    Disk,
}

/// Boot flags, as read back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Boot {
    /// From what.
    pub device: Device,
    /// For every boot, or for the next one.
    pub persistent: bool,
}

/// The watchdog, as read back.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Watchdog {
    /// It counts.
    pub running: bool,
    /// From so many seconds.
    pub initial: f32,
    /// So many are left, where the BMC tells.
    pub left: Option<f32>,
}

/// The BMC's own network.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Lan {
    /// IPv4 address.
    pub address: String,
    /// Its mask.
    pub mask: String,
    /// Where the rest of the world is.
    pub gateway: String,
    /// MAC.
    pub mac: String,
    /// VLAN, if tagged.
    pub vlan: Option<u16>,
}

/// See the module.
pub struct Desk {
    /// Who asks.
    pub client: Client,
    /// Who answers.
    pub server: Server,
    /// The running BMC.
    pub bmc: Served,
    /// Our own way to it, one session for all that is asked.
    pub ours: Bmc,
}

/// Hands a question to whichever client it is.
macro_rules! ask {
    ($desk:ident . $what:ident ( $($with:expr),* )) => {
        match $desk.client {
            Client::Ours => ours::$what($desk, $($with),*).await,
            Client::Ipmitool => ipmitool::$what($desk, $($with),*).await,
            Client::FreeIpmi => freeipmi::$what($desk, $($with),*).await,
        }
    };
}

impl Desk {
    /// A client before a BMC that was just plugged in; its machine is off.
    pub async fn at(client: Client, server: Server) -> Desk {
        let bmc = Served::start(server).await;
        let ours = ours::access(server, &bmc);
        Desk { client, server, bmc, ours }
    }

    /// Whether the machine is on.
    pub async fn power(&self) -> bool {
        ask!(self.power())
    }

    /// Presses a button.
    pub async fn press(&self, verb: Verb) {
        ask!(self.press(verb))
    }

    /// Reads the boot flags.
    pub async fn boot(&self) -> Boot {
        ask!(self.boot())
    }

    /// Sets them.
    pub async fn set_boot(&self, boot: Boot) {
        ask!(self.set_boot(boot))
    }

    /// Any command: its data after the completion code, which must be 0.
    pub async fn raw(&self, netfn: u8, command: u8, data: &[u8]) -> Vec<u8> {
        ask!(self.raw(netfn, command, data))
    }

    /// The event log, a line an event, in the client's words.
    pub async fn events(&self) -> Vec<String> {
        ask!(self.events())
    }

    /// Empties it.
    pub async fn clear_events(&self) {
        ask!(self.clear_events())
    }

    /// Analog sensors: name and value.
    pub async fn sensors(&self) -> Vec<(String, f64)> {
        ask!(self.sensors())
    }

    /// Inventory of device 0: whatever the client says of it.
    pub async fn inventory(&self) -> String {
        ask!(self.inventory())
    }

    /// Sets the watchdog to reset the machine; it does not run before [`Desk::kick`].
    pub async fn set_watchdog(&self, seconds: u16) {
        ask!(self.set_watchdog(seconds))
    }

    /// Starts it, and starts it anew.
    pub async fn kick(&self) {
        ask!(self.kick())
    }

    /// Reads it.
    pub async fn watchdog(&self) -> Watchdog {
        ask!(self.watchdog())
    }

    /// Stops it.
    pub async fn stop_watchdog(&self) {
        ask!(self.stop_watchdog())
    }

    /// The BMC's network.
    pub async fn lan(&self) -> Lan {
        ask!(self.lan())
    }

    /// Gives it another address.
    pub async fn set_address(&self, address: &str) {
        ask!(self.set_address(address))
    }

    /// Tags its frames, or does not.
    pub async fn set_vlan(&self, vlan: Option<u16>) {
        ask!(self.set_vlan(vlan))
    }

    /// Opens the console.
    pub async fn console(&self) -> Console {
        match self.client {
            Client::Ours => Console::Ours(ours::console(self).await),
            Client::Ipmitool => Console::Ipmitool(ipmitool::console(self).await),
            Client::FreeIpmi => Console::FreeIpmi(freeipmi::console(self).await),
        }
    }
}

/// Serial over LAN, as a person sees it.
pub enum Console {
    /// Ours.
    Ours(ours::Screen),
    /// `ipmitool sol activate`.
    Ipmitool(Tty),
    /// `ipmiconsole`.
    FreeIpmi(Tty),
}

impl Console {
    /// Types.
    pub async fn send(&mut self, keys: &str) {
        match self {
            Console::Ours(screen) => screen.send(keys).await,
            Console::Ipmitool(tty) | Console::FreeIpmi(tty) => tty.send(keys),
        }
    }

    /// Waits until this is shown.
    pub async fn expect(&mut self, text: &str) {
        match self {
            Console::Ours(screen) => screen.expect(text).await,
            Console::Ipmitool(tty) | Console::FreeIpmi(tty) => tty.expect(text).await,
        }
    }

    /// Sends a BREAK.
    pub async fn send_break(&mut self) {
        match self {
            Console::Ours(screen) => screen.send_break().await,
            // The tilde counts only behind a line's end.
            Console::Ipmitool(tty) => {
                tty.send("~B");
                tty.expect("[send break]").await;
            }
            Console::FreeIpmi(tty) => {
                tty.send("&B");
                tty.expect("[generate break]").await;
            }
        }
    }

    /// Leaves.
    pub async fn leave(self) {
        match self {
            Console::Ours(screen) => screen.leave().await,
            Console::Ipmitool(mut tty) => {
                tty.send("\r~.");
                tty.end().await;
            }
            Console::FreeIpmi(mut tty) => {
                tty.send("&.");
                tty.end().await;
            }
        }
    }
}
