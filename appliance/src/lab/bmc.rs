//! The rack's BMCs: bmcsim, whose chassis is the machine and whose Serial over LAN is the machine's console.
//! The rack's own switch and console go on working beside them, as a power button does.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use koboshi_bmcsim::chassis::Order;
use koboshi_bmcsim::config::{Host, Serial};
use koboshi_bmcsim::sol::ToHost;
use koboshi_bmcsim::{Config, SerialPort, Sim};
use koboshi_ipmi::{Kg, Password, Suite};
use koboshi_pxe::mac::Mac;
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::Error;
use super::machine::{Machine, Power};
use super::qemu::Start;
use super::rack::Rack;

/// Where a BMC waits for its machine's QEMU, at its own address.
const SYSTEM_INTERFACE: u16 = 9002;
/// How often a BMC looks whether its machine went on or off by itself.
const LOOK: Duration = Duration::from_millis(300);
/// A machine that takes no characters for so long loses them, as at any serial port.
const TYPED: Duration = Duration::from_secs(1);

/// A machine's BMC as a site has it.
#[derive(Debug, Clone)]
pub struct Account {
    /// Whose.
    pub machine: String,
    /// Its address and port.
    pub listen: SocketAddr,
    /// Its MAC, as its LAN settings say it.
    pub mac: Option<Mac>,
    /// The administrator.
    pub user: String,
    /// His password.
    pub password: Password,
    /// Its own key.
    pub kg: Option<Kg>,
    /// A cipher suite that it takes besides 3 and 17.
    pub suite: Option<u8>,
}

impl Account {
    /// Where the machine's own interface to it is, for [`Spec::bmc`](super::qemu::Spec::bmc).
    pub fn system_interface(&self) -> SocketAddr {
        SocketAddr::new(self.listen.ip(), SYSTEM_INTERFACE)
    }

    fn config(&self, machine: &Machine) -> Config {
        // Next to its machine's MAC: 52:54:00:78:00:01 beside 52:54:00:77:00:01.
        let Mac([_, _, _, high, middle, low]) = self.mac.unwrap_or_else(|| {
            let Mac([a, b, c, high, middle, low]) = machine.spec().mac;
            Mac([a, b, c, high.wrapping_add(1), middle, low])
        });
        let mut config = Config {
            listen: self.listen,
            seed: u64::from(u32::from_be_bytes([0, high, middle, low])),
            kg: self.kg.clone(),
            host: Host::Elsewhere,
            serial: Serial::Elsewhere,
            vm: machine.spec().bmc,
            ..Config::with_admin(&self.user, self.password.clone())
        };
        config.suites.extend(self.suite.and_then(Suite::by_id));
        config
    }
}

/// The BMCs of a rack. Dropping them unplugs them; their machines stay as they are.
pub struct Bmcs {
    sim: Arc<Sim>,
    _tasks: JoinSet<()>,
}

impl Bmcs {
    /// Gives machines their BMCs, at addresses of this namespace.
    pub fn plug_in(rack: &Rack, accounts: Vec<Account>) -> Result<Bmcs, Error> {
        let mut places = HashMap::new();
        let mut configs = Vec::new();
        for account in accounts {
            let machine = rack.machine(&account.machine)?;
            rack.wire().own(account.listen.ip())?;
            configs.push(account.config(machine));
            places.insert(account.listen, machine.clone());
        }
        let sim = Sim::fleet(configs, 1).map_err(Error::io("starting the BMCs"))?;
        let sim = Arc::new(sim);
        let mut tasks = JoinSet::new();
        for (at, machine) in places {
            if let Some(port) = sim.serial(at) {
                tasks.spawn(line(machine.clone(), port));
            }
            tasks.spawn(power(machine, Arc::clone(&sim), at));
        }
        Ok(Bmcs { sim, _tasks: tasks })
    }

    /// The simulator, to look into.
    pub fn sim(&self) -> &Sim {
        &self.sim
    }
}

/// Does to the machine what its BMC is told, and tells the BMC what the machine does by itself.
async fn power(machine: Machine, sim: Arc<Sim>, at: SocketAddr) {
    let mut started = Start::Network;
    loop {
        let orders = match timeout(LOOK, sim.orders(at)).await {
            Ok(Some(orders)) => orders,
            Ok(None) => return,
            Err(_) => Vec::new(),
        };
        for order in orders {
            if let Err(error) = obey(&machine, &order, &mut started).await {
                tracing::warn!(%error, ?order, "a BMC's order");
            }
        }
        let on = matches!(machine.status().await, Power::On(_));
        sim.with_at(at, |bmc| {
            // What has been ordered meanwhile is newer than what was looked at.
            if bmc.chassis.orders.is_empty() {
                bmc.chassis.on = on;
            }
        });
    }
}

async fn obey(machine: &Machine, order: &Order, started: &mut Start) -> Result<(), Error> {
    match order {
        Order::Start(device) => {
            *started = if *device == Some("disk") { Start::Disk } else { Start::Network };
            machine.power_on_from(*started).await
        }
        Order::Kill => machine.power_off().await,
        // QEMU keeps the order it was started with.
        Order::Reset if *started != Start::Network => {
            *started = Start::Network;
            machine.cycle().await
        }
        Order::Reset => machine.reset().await,
        Order::Shutdown => machine.soft_off().await,
        Order::Interrupt => machine.interrupt().await,
    }
}

/// Carries characters both ways between the machine's console and its BMC.
async fn line(machine: Machine, port: SerialPort) {
    let mut printed = machine.console().stream(0);
    let mut waiting = Vec::new();
    loop {
        for said in port.take() {
            match said {
                // Typed at a machine that is off: lost, as on a real line.
                ToHost::Data(bytes) => drop(timeout(TYPED, machine.console().send(bytes)).await),
                ToHost::Break => drop(machine.send_break().await),
            }
        }
        let taken = port.put(&waiting);
        waiting.drain(..taken);
        tokio::select! {
            () = port.changed() => {}
            piece = printed.next(), if waiting.is_empty() => waiting = piece,
        }
    }
}
