//! Our own simulated BMC, in this process.

use std::net::{SocketAddr, SocketAddrV4};

use koboshi_bmcsim::config::Serial;
use koboshi_bmcsim::{Config, Sim};
use koboshi_ipmi::Password;

use super::line::Line;
use super::{PASSWORD, Place, USER, fru, somewhere};

/// A running one.
pub struct Bmcsim {
    place: Place,
    at: SocketAddrV4,
    line: Line,
    sim: Sim,
}

impl Bmcsim {
    /// Starts it: one account, all that it can, no faults.
    pub async fn start() -> Bmcsim {
        let at = somewhere();
        let line = Line::open(somewhere()).await;
        let password = Password::new(PASSWORD).expect("it is short");
        let config = Config {
            listen: SocketAddr::V4(at),
            serial: Serial::Telnet(SocketAddr::V4(line.at())),
            ..Config::with_admin(USER, password)
        };
        let sim = Sim::start(config).expect("a port of our own");
        sim.with(|bmc| {
            let mut inventory = fru::bytes();
            inventory.resize(512, 0);
            bmc.fru.devices[0] = inventory;
        });
        line.connected().await;
        Bmcsim { place: Place::new(), at, line, sim }
    }

    /// Where it listens.
    pub fn at(&self) -> SocketAddrV4 {
        self.at
    }

    /// The test's folder.
    pub fn place(&self) -> &Place {
        &self.place
    }

    /// The machine's end of the serial line.
    pub fn line(&self) -> &Line {
        &self.line
    }

    /// Its state.
    pub fn sim(&self) -> &Sim {
        &self.sim
    }
}
