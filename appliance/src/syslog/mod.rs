//! Logs of machines that have no disk (S15): syslog by UDP and TCP, and what a kernel sends by itself, into a
//! directory for each sender, by the address that it came from. What a message says of its origin is text.
//!
//! ```text
//! frame, parse, netconsole   bytes to messages: RFC 6587, RFC 5424 and RFC 3164's dialects, printk
//! message                    a message, and the line that is kept of it
//! gate                       how much one sender may say
//! whose                      the machine at an address
//! receive                    sockets
//! writer, files              one thread; a directory each, bounded each and together
//! reader                     from a time, from some lines back, and on
//! ```
//!
//! There is no authentication and there can be none: it is evidence, and nothing here acts on it.

mod files;
mod frame;
mod gate;
mod message;
mod netconsole;
mod parse;
mod reader;
mod receive;
mod whose;
mod writer;

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;

pub use files::LEAST;
pub use frame::{Frames, MOST};
pub use message::{Entry, Facility, Message, Severity, Way};
pub use netconsole::parse as parse_netconsole;
pub use parse::parse;
pub use reader::Reader;
pub use receive::run;
pub use writer::{Bounds, Health, UNKNOWN, Writer};

/// The running appliance's.
#[derive(Debug)]
pub struct Syslog {
    writer: Writer,
    /// When messages of a machine were last dropped, Unix milliseconds, and how many ever.
    dropped: Mutex<BTreeMap<String, (u64, u64)>>,
}

impl Syslog {
    /// Begins to write under `state`.
    ///
    /// # Errors
    /// There is no thread to be had.
    pub fn new(state: &Path, bounds: Bounds) -> io::Result<Syslog> {
        let writer = Writer::start(root(state), bounds)?;
        Ok(Syslog { writer, dropped: Mutex::default() })
    }

    /// Other bounds from now on.
    pub fn set_bounds(&self, bounds: Bounds) {
        self.writer.set_bounds(bounds);
    }

    /// How the writing goes.
    pub fn health(&self) -> watch::Receiver<Health> {
        self.writer.health()
    }

    /// When messages of this machine were last dropped, Unix milliseconds, and how many since the appliance began.
    pub fn dropped(&self, machine: &str) -> Option<(u64, u64)> {
        self.drops().get(machine).copied()
    }

    fn drops(&self) -> MutexGuard<'_, BTreeMap<String, (u64, u64)>> {
        self.dropped.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Where the directories are.
pub fn root(state: &Path) -> PathBuf {
    state.join("syslog")
}

/// The directories there are: machines' names, and `unknown/ADDRESS`.
pub fn places(state: &Path) -> Vec<String> {
    writer::places(&root(state))
}

/// The directory of a machine, or of an address that is no machine's.
pub fn directory(state: &Path, place: &str) -> io::Result<PathBuf> {
    let (folder, name) = match place.strip_prefix(UNKNOWN).and_then(|rest| rest.strip_prefix('/')) {
        Some(address) => (root(state).join(UNKNOWN), address.replace(':', "-")),
        // A machine that the site does not know is called by its MAC.
        None => (root(state), place.replace(':', "-")),
    };
    koboshi_console::log::directory(&folder, &name)
}
