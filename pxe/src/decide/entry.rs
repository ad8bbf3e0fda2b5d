//! What the site says of a machine, as far as a boot needs it: the half of the question that does not
//! come from the wire.

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Instant;

use serde::Serialize;

use crate::Mac;
use crate::held::Held;
use crate::menu::{Choice, Offered};
use crate::seats::Hardware;

/// What the site says of a MAC address.
#[derive(Debug, Clone)]
pub enum Entry {
    /// A machine of the site.
    Known(Arc<Known>),
    /// No machine has this address.
    Unknown(Arc<Unknown>),
}

impl Entry {
    /// Why its seat or its role cannot be booted now, if it cannot.
    pub fn trouble(&self) -> Option<&str> {
        match self {
            Entry::Known(known) => match &known.place {
                Place::Seat(seat) => seat.trouble.as_deref(),
                // Who holds it is said by whoever makes the plan.
                Place::Taken(..) | Place::Spare | Place::Nowhere => None,
                Place::Typed { seat, .. } => seat.as_ref()?.trouble.as_deref(),
                Place::Ticket(ticket) => ticket.trouble.as_deref(),
            },
            Entry::Unknown(policy) => match policy.as_ref() {
                Unknown::Role { trouble, .. } => trouble.as_deref(),
                Unknown::Ignore | Unknown::Menu(_) | Unknown::Typed(_) => None,
            },
        }
    }

    /// What was typed at its console, if that is what it is by.
    pub fn choice(&self) -> Option<&Choice> {
        match self {
            Entry::Known(known) => match &known.place {
                Place::Typed { choice, .. } => Some(choice),
                _ => None,
            },
            Entry::Unknown(unknown) => match unknown.as_ref() {
                Unknown::Typed(choice) => Some(choice),
                _ => None,
            },
        }
    }
}

/// A machine of the site, as far as a boot needs it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Known {
    /// `m01`
    pub name: String,
    /// All its addresses.
    pub macs: Vec<Mac>,
    /// What the matrix gives it.
    pub place: Place,
    /// A loader the machine or its class insists on.
    pub loader: Option<String>,
}

impl Known {
    /// The machine, whatever its place.
    pub fn hardware(&self) -> Hardware<'_> {
        Hardware { name: &self.name, macs: &self.macs }
    }
}

/// A machine's place in the matrix.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// It sits in a seat.
    Seat(Seat),
    /// It is to sit in a seat that another machine still holds. The site never says this: the desk
    /// does, in the moment it asks.
    Taken(Seat, Held),
    /// Free to take over any seat.
    Spare,
    /// The matrix does not name it.
    Nowhere,
    /// Whoever is at its console chose for it.
    Typed {
        /// What.
        choice: Arc<Choice>,
        /// Its own seat, if that is what was chosen.
        seat: Option<Seat>,
    },
    /// An operator's order for its next boot. The site never says this either.
    Ticket(Arc<Ticket>),
}

/// An order for one boot of a machine. It stands until a boot of it has reported, and not until one
/// has begun: anybody can begin one in a machine's name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ticket {
    /// Never used twice.
    pub id: u64,
    /// `wipe`: what it is to do.
    pub duty: String,
    /// The image that does it.
    pub image: String,
    /// What the machine is told of it, as the appliance wrote it. Opaque here.
    pub order: String,
    /// Why that cannot be booted now, in words, if it cannot.
    pub trouble: Option<String>,
    /// It is for nobody from then on.
    pub until: Instant,
}

impl Place {
    /// The address of the seat that it may sit in.
    pub fn address(&self) -> Option<Ipv4Addr> {
        match self {
            Place::Seat(seat) => seat.address,
            Place::Typed { seat, .. } => seat.as_ref()?.address,
            Place::Taken(..) | Place::Spare | Place::Nowhere | Place::Ticket(_) => None,
        }
    }
}

/// A seat, as far as a boot needs it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seat {
    /// `web1`; for an unknown machine, the host name it gets.
    pub name: String,
    /// `web`
    pub role: String,
    /// Its fixed address; from the pool if none.
    pub address: Option<Ipv4Addr>,
    /// Why it cannot be booted now, in words, if it cannot: its image is missing, say.
    pub trouble: Option<String>,
    /// What proves that nobody else has it any more.
    pub exclusive: Exclusive,
}

/// What it takes to move a seat from the machine that holds it (`exclusive`).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Exclusive {
    /// That machine boots afresh, is fenced, or somebody says that it is off.
    #[default]
    Fence,
    /// Nobody answers at its address: enough where nothing is written twice.
    Probe,
}

/// What the site does with a MAC address it does not know (`net.unknown`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Unknown {
    /// Say nothing.
    Ignore,
    /// Boot this role with an address from the pool.
    Role {
        /// The role's name.
        role: String,
        /// Why it cannot be booted now, if it cannot.
        trouble: Option<String>,
    },
    /// Ask at its console which of these it shall be, and boot that with an address from the pool.
    Menu(Arc<Vec<Offered>>),
    /// Somebody chose.
    Typed(Arc<Choice>),
}
