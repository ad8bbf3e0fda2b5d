//! What one record of each table says.

use std::sync::Arc;

use koboshi_console::watch::Level;
use koboshi_pxe::boots::{Plan, Stage};
use koboshi_pxe::seats::Holder;
use koboshi_pxe::{BootId, Mac};
use serde::{Deserialize, Serialize};

use crate::ledger::ms;

/// One boot as it is remembered.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct BootRecord {
    /// Its id.
    pub id: BootId,
    /// Whose.
    pub mac: Mac,
    /// Machine's name, or its MAC.
    pub machine: String,
    /// Address.
    pub address: std::net::Ipv4Addr,
    /// The address is a seat's.
    pub fixed: bool,
    /// The address another server lent it, where its seat has one of its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lent: Option<std::net::Ipv4Addr>,
    /// The relay it came through, with what that says of the switch port.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub via: Option<koboshi_pxe::dhcp::Via>,
    /// Unix milliseconds.
    pub opened: u64,
    /// Its place in the order of all, which a clock that was set back does not turn round. See [`BootRecord::order`].
    #[serde(default, skip_serializing_if = "is_none")]
    pub order: u64,
    /// How far it came.
    pub stage: Stage,
    /// What it was promised.
    pub plan: Option<Arc<Plan>>,
    /// What happened, oldest first.
    pub marks: Vec<Mark>,
    /// The machine booted anew since.
    pub over: bool,
    /// Milliseconds from the machine's last sign of life to the firmware that opened this boot, where
    /// the appliance listened all the while: how long a restart takes at most.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<u64>,
    /// It was made sure that the machine cannot run: it ended by that.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub fenced: bool,
}

fn is_none(order: &u64) -> bool {
    *order == 0
}

impl BootRecord {
    /// A start that was seen on its console alone: of a switch, or of a server with a disk.
    pub fn unbooted(machine: &str, id: BootId, opened: u64) -> BootRecord {
        BootRecord {
            id,
            mac: Mac([0; 6]),
            machine: machine.to_string(),
            address: std::net::Ipv4Addr::UNSPECIFIED,
            fixed: false,
            lent: None,
            via: None,
            opened,
            order: 0,
            stage: Stage::Offer,
            plan: None,
            marks: Vec::new(),
            over: false,
            after: None,
            fenced: false,
        }
    }

    /// What is sorted by: when it was opened, or later where the clock was set back before.
    pub fn order(&self) -> u64 {
        self.order.max(self.opened)
    }

    /// Whether it is one of those.
    pub fn is_unbooted(&self) -> bool {
        self.mac == Mac([0; 6])
    }

    /// Whether the machine has its seat's address on its NIC, as far as anyone knows: from
    /// `koboshi-init` on, until it netboots again or shuts down in good order.
    pub fn sits(&self) -> bool {
        !self.over && self.stage >= Stage::Init && self.stage != Stage::Down
    }

    /// Whether somebody here switched the machine off, and nothing was heard of it since. `heard`:
    /// when that was last, Unix milliseconds.
    pub fn is_off(&self, heard: u64) -> bool {
        let last = self.marks.iter().rev().find_map(|mark| Some((mark.power?, mark.at)));
        // A last report may still be under way.
        last.is_some_and(|(power, at)| power == Switched::Off && heard < at + 5000)
    }
}

/// A line of a boot's timeline. Ten thousand machines have ten each in memory: what few have lies apart.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Mark {
    /// Unix milliseconds.
    pub at: u64,
    /// Stage.
    pub stage: Stage,
    /// Facts in words.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub note: String,
    /// Nothing happened, for too long: what the note says is what was seen until then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub late: Option<Box<Late>>,
    /// Somebody here switched the machine's power: the machine itself said nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub power: Option<Switched>,
    /// It was seen on the machine's console: the note is its line.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub console: Option<Box<OnConsole>>,
}

impl Mark {
    /// Whether it is a step of the machine's own.
    pub fn is_sign(&self) -> bool {
        self.late.is_none() && self.power.is_none() && self.console.is_none()
    }
}

/// What a line on a machine's console was seen for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OnConsole {
    /// The rule's name.
    pub rule: String,
    /// How grave it is.
    pub level: Level,
}

/// What was done to a machine's power.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Switched {
    /// It is off, or on its way there: nobody waits for it.
    Off,
    /// It starts, or starts anew.
    On,
}

/// What a boot that went no further suffers from, as a rule.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Late {
    /// What usually causes it.
    pub usual: String,
    /// What to do next.
    pub next: String,
}

/// Which machine does hold a seat. The matrix is the wish, this is the fact.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Holding {
    /// `web1`
    pub seat: String,
    /// Machine's name.
    pub machine: String,
    /// By which boot.
    pub boot: BootId,
    /// Counts changes of this seat's holding.
    pub epoch: u64,
    /// The NIC it booted by, and the address it has there. (Not known of holdings that were written
    /// before seats were waited for.)
    #[serde(default)]
    pub at: Option<(Mac, std::net::Ipv4Addr)>,
    /// Unix milliseconds.
    #[serde(default)]
    pub since: u64,
}

impl Holding {
    /// As the desk has it.
    pub fn of(holder: &Holder) -> Holding {
        Holding {
            seat: holder.seat.clone(),
            machine: holder.machine.clone(),
            boot: holder.boot,
            epoch: 0,
            at: Some((holder.mac, holder.address)),
            since: ms(holder.since),
        }
    }
}

/// The SSH host keys that a machine showed on its console.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostKeys {
    /// Machine's name.
    pub machine: String,
    /// In which boot: the machine makes new ones at each. None: it boots nothing from here.
    pub boot: Option<BootId>,
    /// Unix milliseconds, of the first.
    pub at: u64,
    /// `ssh-ed25519 AAAA…`, one of each kind.
    pub keys: Vec<String>,
    /// How often another one of a known kind was shown in that boot. None of those is believed.
    #[serde(default)]
    pub others: u32,
}

/// A line of the event log.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Event {
    /// Monotonic; never used twice.
    #[serde(default)]
    pub id: u64,
    /// Unix milliseconds.
    pub at: u64,
    /// `boot`, `seat`, `reload`, `unknown-machine`, …
    pub kind: String,
    /// Machine, seat or MAC it is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub who: Option<String>,
    /// In words.
    pub text: String,
}
