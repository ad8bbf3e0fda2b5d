//! A client at its desk: which one, and which BMC it has before it.

use super::bmc::Served;
use super::{freeipmi, ipmitool};
use crate::peers::tty::Tty;

/// Who asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Client {
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
}

impl Server {
    /// Whether more of the boot flags than the device is read back.
    pub fn keeps_boot_flags(self) -> bool {
        match self {
            Server::IpmiSim15 | Server::IpmiSim3 => false,
        }
    }

    /// Whether Get Watchdog Timer tells that it counts, and what is left.
    pub fn tells_countdown(self) -> bool {
        match self {
            Server::IpmiSim15 | Server::IpmiSim3 => false,
        }
    }

    /// Whether LAN parameters reach the hardware only when "set in progress" says so.
    pub fn wants_commit(self) -> bool {
        match self {
            Server::IpmiSim15 | Server::IpmiSim3 => true,
        }
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
}

/// Hands a question to whichever client it is.
macro_rules! ask {
    ($desk:ident . $what:ident ( $($with:expr),* )) => {
        match $desk.client {
            Client::Ipmitool => ipmitool::$what($desk, $($with),*).await,
            Client::FreeIpmi => freeipmi::$what($desk, $($with),*).await,
        }
    };
}

impl Desk {
    /// A client before a BMC that was just plugged in; its machine is off.
    pub async fn at(client: Client, server: Server) -> Desk {
        Desk { client, server, bmc: Served::start(server).await }
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
        Console(ask!(self.console()), self.client)
    }
}

/// Serial over LAN, as a person sees it.
pub struct Console(Tty, Client);

impl Console {
    /// Types.
    pub fn send(&mut self, keys: &str) {
        self.0.send(keys);
    }

    /// Waits until this is shown.
    pub async fn expect(&mut self, text: &str) {
        self.0.expect(text).await;
    }

    /// Sends a BREAK.
    pub async fn send_break(&mut self) {
        let (keys, said) = match self.1 {
            Client::Ipmitool => ("~B", "[send break]"),
            Client::FreeIpmi => ("&B", "[generate break]"),
        };
        self.0.send(keys);
        self.0.expect(said).await;
    }

    /// Leaves.
    pub async fn leave(mut self) {
        match self.1 {
            // The tilde counts only behind a line's end.
            Client::Ipmitool => self.0.send("\r~."),
            Client::FreeIpmi => self.0.send("&."),
        }
        self.0.end().await;
    }
}
