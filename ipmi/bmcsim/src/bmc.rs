//! All that a BMC knows, one field a concern; the module of a field's name answers for it.

use std::time::Instant;

use koboshi_ipmi::wire::v20::PayloadType;
use koboshi_ipmi::{Message, Request, Response};

use crate::boot::{self, Boot};
use crate::bridge::Bridge;
use crate::channel::Channel;
use crate::chassis::{self, Chassis};
use crate::config::Config;
use crate::dcmi::Dcmi;
use crate::device::Device;
use crate::dispatch::{self, Who};
use crate::faults::Faults;
use crate::fru::Fru;
use crate::identify::{self, Identify};
use crate::lan::Lan;
use crate::mailbox::Mailbox;
use crate::sdr::Sdr;
use crate::sel::Sel;
use crate::sensor::Sensors;
use crate::session::{self, Sessions};
use crate::sol::{self, Sol};
use crate::sol_config::SolConfig;
use crate::system_info::SystemInfo;
use crate::user::Users;
use crate::watchdog::{self, Watchdog};

/// One BMC's state.
#[derive(Debug)]
pub struct Bmc {
    /// What it is made from.
    pub config: Config,
    /// What it does wrong now. Handlers of records and SOL look here for their own.
    pub faults: Faults,
    /// Who it is.
    pub device: Device,
    /// Power.
    pub chassis: Chassis,
    /// What the host told.
    pub system_info: SystemInfo,
    /// Boot options.
    pub boot: Boot,
    /// The identify light.
    pub identify: Identify,
    /// The watchdog timer.
    pub watchdog: Watchdog,
    /// LAN configuration parameters.
    pub lan: Lan,
    /// SOL configuration parameters.
    pub sol_config: SolConfig,
    /// Accounts.
    pub users: Users,
    /// Access by channel.
    pub channel: Channel,
    /// The host's own interface.
    pub mailbox: Mailbox,
    /// Controllers behind it.
    pub bridge: Bridge,
    /// Sensor data records.
    pub sdr: Sdr,
    /// Sensors.
    pub sensors: Sensors,
    /// The event log.
    pub sel: Sel,
    /// Inventory.
    pub fru: Fru,
    /// DCMI.
    pub dcmi: Dcmi,
    /// Serial over LAN.
    pub sol: Sol,
    /// Who is logged in.
    pub sessions: Sessions,
    /// Datagrams that came while it was at work on another (fault `single`).
    pub missed: u64,
    /// Payloads to send, in order, besides answers to commands.
    outbox: Vec<Payload>,
}

/// A payload that waits to be sealed and sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Payload {
    /// The BMC's id of the session it goes to. Nothing is sent if that has ended meanwhile.
    pub session: u32,
    /// What it is.
    pub kind: PayloadType,
    /// It.
    pub bytes: Vec<u8>,
}

impl Bmc {
    /// A BMC that was just plugged in.
    pub fn new(config: Config, now: Instant) -> Bmc {
        Bmc {
            faults: config.faults.clone(),
            missed: 0,
            device: Device::new(&config),
            chassis: Chassis::new(&config, now),
            system_info: SystemInfo::default(),
            boot: Boot::default(),
            identify: Identify::default(),
            watchdog: Watchdog::default(),
            lan: Lan::new(&config),
            sol_config: SolConfig::new(&config),
            users: Users::new(&config.users),
            channel: Channel::default(),
            mailbox: Mailbox::default(),
            bridge: Bridge::default(),
            sdr: Sdr::new(&config),
            sensors: Sensors::new(&config),
            sel: Sel::default(),
            fru: Fru::new(&config),
            dcmi: Dcmi::default(),
            sol: Sol::default(),
            sessions: Sessions::new(&config),
            outbox: Vec::new(),
            config,
        }
    }

    /// Sends a payload within a session, at any time.
    pub fn send(&mut self, session: u32, kind: PayloadType, bytes: Vec<u8>) {
        self.outbox.push(Payload { session, kind, bytes });
    }

    /// What there is to send, once.
    pub fn take_outbox(&mut self) -> Vec<Payload> {
        std::mem::take(&mut self.outbox)
    }

    /// Asks without a wire, with the privilege of an administrator: for whoever tests a handler.
    pub fn ask(&mut self, request: &Request, now: Instant) -> Response {
        let message = Message::request(request, 0);
        dispatch::answer(self, &Who::admin(now).asks(&message))
    }

    /// Lets fire what is due.
    pub fn poll(&mut self, now: Instant) {
        watchdog::poll(self, now);
        boot::poll(self, now);
        identify::poll(self, now);
        chassis::poll(self, now);
        session::poll(self, now);
        sol::poll(self, now);
    }

    /// When to poll next, if nothing comes before.
    pub fn deadline(&self) -> Option<Instant> {
        [
            watchdog::deadline(self),
            boot::deadline(self),
            identify::deadline(self),
            chassis::deadline(self),
            session::deadline(self),
            sol::deadline(self),
        ]
        .into_iter()
        .flatten()
        .min()
    }
}
