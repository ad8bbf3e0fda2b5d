//! What a console's reader gets: characters, and marks that say what the line did between them.

use std::time::{Duration, Instant};

use bytes::Bytes;

use crate::error::Error;

/// One thing that came along the line, in order.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Event {
    /// Characters of the machine's serial port. Those of several packets are one event where the reader was
    /// slower than the line.
    Data {
        /// When the first of them came.
        at: Instant,
        /// The number of the packet that brought the first of them, 1 to 15.
        sequence: u8,
        /// The characters, never empty.
        bytes: Bytes,
    },
    /// The BMC's numbers jump: packets are missing here for good. Counted modulo 15, as the numbers are.
    Gap {
        /// How many.
        packets: u32,
    },
    /// The BMC's buffer was full, characters are missing here.
    Overrun,
    /// A BREAK on the line.
    Break,
    /// The BMC cannot pass characters on to the machine now (it is in reset, or another has the port). What
    /// is typed waits.
    Unavailable,
    /// It can again.
    Available,
    /// The line is down, and is tried again until it is up or closed.
    Down {
        /// Why.
        why: Error,
    },
    /// Somebody else took the line. It is not taken back, but used again once it is free.
    Stolen {
        /// Account and address, where the BMC tells.
        by: Option<String>,
    },
    /// What was typed was not taken before the line went down, and is not sent later: it was meant for what
    /// the machine was showing then.
    Discarded {
        /// Characters.
        bytes: usize,
    },
    /// The line is up again. What the machine said meanwhile is lost, unless its BMC keeps it.
    Reconnected {
        /// How long nothing could come.
        after: Duration,
    },
}

/// What can be done to the line besides typing (table 15-2, byte 4).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Operation {
    /// A BREAK, which Linux takes for the start of a SysRq.
    Break,
    /// Ring indicator: wakes a machine that is set up so.
    Ring,
    /// Clear to send: `false` asks the machine to pause.
    Cts(bool),
    /// Carrier and data set ready: `false` hangs up.
    Dcd(bool),
    /// Forgets what the machine said and the BMC has not sent yet.
    FlushInbound,
    /// Forgets what was typed and the BMC has not passed on yet.
    FlushOutbound,
}
