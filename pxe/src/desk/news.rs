//! What the desk hears of an address on its way, and what it tells the appliance.

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::SystemTime;

use bytes::Bytes;
use tokio::sync::{mpsc, oneshot};

use crate::Mac;
use crate::boots::{Plan, Stage};
use crate::content::BootId;
use crate::dhcp::{Subnet, Via};
use crate::firmware::Firmware;
use crate::seats::Holder;

/// What happened, for the appliance's ledger.
#[derive(Debug)]
pub enum News {
    /// A boot began.
    Opened {
        /// Its id.
        id: BootId,
        /// Whose.
        mac: Mac,
        /// Machine's name, or its MAC.
        machine: String,
        /// Address.
        address: Ipv4Addr,
        /// The address is a seat's.
        fixed: bool,
        /// The address another server lent it, where its seat has one of its own.
        lent: Option<Ipv4Addr>,
        /// The relay it came through, with what that says of the switch port.
        via: Option<Via>,
        /// What it was promised.
        plan: Option<Arc<Plan>>,
        /// The seat it holds from now on.
        holds: Option<String>,
        /// What its firmware said of itself.
        firmware: Option<Firmware>,
        /// Boots that are over by this one: the machine's last, and whoever's had its address.
        over: Vec<(BootId, Mac)>,
        /// When.
        at: SystemTime,
    },
    /// A boot moved.
    Mark {
        /// Which.
        id: BootId,
        /// To where.
        stage: Stage,
        /// Facts in words.
        note: String,
        /// When.
        at: SystemTime,
    },
    /// A machine reported; the text is opaque here.
    Report {
        /// Which boot.
        id: BootId,
        /// Whose.
        mac: Mac,
        /// Its address.
        address: Ipv4Addr,
        /// What it sent.
        body: Bytes,
        /// When.
        at: SystemTime,
        /// Told once it is written down.
        kept: oneshot::Sender<()>,
    },
    /// A machine that waits has asked again: it lives, and that is all.
    Alive {
        /// Who.
        mac: Mac,
        /// When.
        at: SystemTime,
    },
    /// A seat is free again.
    Freed {
        /// Who held it.
        holder: Holder,
        /// Why, in words.
        why: String,
        /// When.
        at: SystemTime,
    },
    /// Somebody made sure that a machine cannot run.
    Fenced {
        /// Its name.
        machine: String,
        /// Its boots, which are over by this.
        over: Vec<(BootId, Mac)>,
        /// What it held.
        freed: Vec<Holder>,
        /// By whom, and by what proof.
        by: String,
        /// When.
        at: SystemTime,
        /// Told once all this is written down.
        done: mpsc::Sender<()>,
    },
    /// A seat that was free is held again by a machine that never left it.
    Held {
        /// By whom.
        holder: Holder,
    },
    /// A report of a boot that is over, or never was: somebody may run who should not.
    Stray {
        /// The boot it names.
        id: BootId,
        /// Where it came from.
        address: Ipv4Addr,
        /// When.
        at: SystemTime,
    },
    /// A machine waits for a seat that may move as soon as nobody answers at its address.
    Probe {
        /// Who holds the seat.
        holder: Holder,
        /// Who waits.
        machine: String,
        /// By these MACs.
        macs: Vec<Mac>,
    },
    /// Something of the wire worth an event that belongs to no boot.
    Heard {
        /// Who, if known.
        mac: Option<Mac>,
        /// `unknown-machine`, `declined`, `pool-empty`, …
        kind: &'static str,
        /// In words.
        text: String,
        /// When.
        at: SystemTime,
    },
}

/// An address on its way to a machine.
#[derive(Debug, Clone)]
pub struct Offer {
    /// Which.
    pub address: Ipv4Addr,
    /// The network the machine asked from.
    pub subnet: Arc<Subnet>,
    /// The relay it asked through.
    pub via: Option<Via>,
    /// The server that lends it, where that is not us.
    pub lender: Option<Option<Ipv4Addr>>,
}

impl Offer {
    pub(super) fn shown(&self) -> String {
        match self.lender {
            None => self.address.to_string(),
            Some(None) => format!("{}, lent by another server,", self.address),
            Some(Some(by)) => format!("{}, lent by {by},", self.address),
        }
    }
}

/// Why a report was not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReportRefusal {
    /// No boot has this id.
    NoSuchBoot,
    /// It came from another address than the boot's.
    WrongAddress,
    /// Too many of them.
    TooOften,
    /// The ledger is behind: to be sent again.
    Busy,
}
