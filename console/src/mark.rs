//! What happened to a line between its characters: that it went down, what is missing and why, who has it. A gap is
//! one of these, never silence; programs read them as JSON, people in words.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::operator::Turn;

/// What happened between characters.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum Mark {
    /// It is open for the first time.
    Up,
    /// Packets are missing here for good, counted modulo 15.
    Gap {
        /// How many.
        packets: u32,
    },
    /// Characters are missing here: the BMC's buffer was full.
    Overrun,
    /// A BREAK from the machine.
    Break,
    /// Carrier detect: whether anything is at the other end of the wire.
    Carrier {
        /// It is there.
        up: bool,
    },
    /// Bytes that are no text and had no end are left out here.
    Omitted {
        /// How many.
        bytes: usize,
    },
    /// The port is not set as the site says.
    Unset {
        /// In words.
        why: String,
    },
    /// Characters before this came damaged: their parity or their stop bit was wrong.
    Damaged {
        /// How many.
        characters: u32,
    },
    /// What is typed cannot reach the machine now.
    Unavailable,
    /// It can again.
    Available,
    /// It is down, and tried again until it is up.
    Down {
        /// Why, in words.
        why: String,
    },
    /// Somebody else has it, who is left in peace.
    Stolen {
        /// Account and address, where the BMC tells.
        by: Option<String>,
    },
    /// What was typed came to nothing.
    Discarded {
        /// Characters.
        characters: usize,
    },
    /// It is up again; what was said meanwhile is lost.
    Reconnected {
        /// How long nothing could come, milliseconds.
        after: u64,
    },
    /// Somebody has the line now, or wants it.
    Operator(Turn),
    /// The appliance was not there, or did not have this console; what was said meanwhile is lost.
    Away {
        /// The last that was written down before, Unix milliseconds.
        since: u64,
    },
    /// What follows cannot be written into the line's log, for now.
    NotLogged {
        /// Why, in words.
        why: String,
    },
    /// It can again.
    LoggedAgain {
        /// Characters that are not in the log.
        characters: u64,
        /// Marks that are not in the log.
        marks: u64,
    },
    /// Of the log: something is not in it here.
    Missing {
        /// Characters.
        characters: u64,
        /// Marks.
        marks: u64,
    },
    /// It is closed: the site does not want it any more, or the appliance ends.
    Closed,
    /// Of a viewer, and not of the line: he was too slow, and this is forgotten.
    Skipped {
        /// Characters.
        characters: u64,
        /// Marks.
        marks: u64,
    },
    /// A later koboshi wrote it.
    #[serde(other)]
    Unknown,
}

impl fmt::Display for Mark {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Mark::Up => f.write_str("the console is up"),
            Mark::Gap { packets } => {
                write!(f, "characters are missing here: {packets} packets did not come")
            }
            Mark::Overrun => f.write_str("characters are missing here: the BMC's buffer was full"),
            Mark::Break => f.write_str("BREAK"),
            Mark::Damaged { characters } => {
                write!(
                    f,
                    "{characters} characters came damaged: is the speed right, and the parity?"
                )
            }
            Mark::Carrier { up: true } => f.write_str("carrier is there"),
            Mark::Carrier { up: false } => {
                f.write_str("carrier is gone: nothing is at the other end of the wire")
            }
            Mark::Omitted { bytes } => {
                write!(f, "{bytes} bytes are left out: a telnet command that had no end")
            }
            Mark::Unset { why } => f.write_str(why),
            Mark::Unavailable => f.write_str("what is typed cannot reach the machine now"),
            Mark::Available => f.write_str("what is typed reaches the machine again"),
            Mark::Down { why } => write!(f, "the console is down: {why}"),
            Mark::Stolen { by: Some(by) } => write!(f, "the console is taken by {by}"),
            Mark::Stolen { by: None } => f.write_str("the console is taken by another"),
            Mark::Discarded { characters } => {
                write!(f, "{characters} characters that were typed came to nothing")
            }
            Mark::Reconnected { after } => {
                let seconds = after.div_ceil(1000);
                write!(f, "the console is up again; what was said for {seconds} s is lost")
            }
            Mark::Operator(turn) => turn.fmt(f),
            Mark::Away { since } => write!(
                f,
                "koboshi did not have this console; what was said since {} is lost",
                at(*since)
            ),
            Mark::NotLogged { why } => {
                write!(f, "what follows is not in the log, which cannot be written: {why}")
            }
            Mark::LoggedAgain { characters: 0, marks: 0 } => {
                f.write_str("the log is written again, and nothing is missing in it")
            }
            Mark::LoggedAgain { characters, marks } => write!(
                f,
                "the log is written again; {characters} characters and {marks} marks are missing in it"
            ),
            Mark::Missing { characters, marks } => write!(
                f,
                "{characters} characters and {marks} marks are missing here: the log does not have them"
            ),
            Mark::Unknown => f.write_str("something that this koboshi does not know"),
            Mark::Closed => f.write_str("the console is closed"),
            Mark::Skipped { characters, marks: 0 } => {
                write!(f, "{characters} characters are skipped: this viewer was too slow")
            }
            Mark::Skipped { characters, marks } => write!(
                f,
                "{characters} characters and {marks} marks are skipped: this viewer was too slow"
            ),
        }
    }
}

/// A moment, in words.
fn at(ms: u64) -> String {
    let at = jiff::Timestamp::from_millisecond(i64::try_from(ms).unwrap_or(i64::MAX));
    let at = at.map(|at| at.to_zoned(jiff::tz::TimeZone::system()));
    at.map_or_else(|_| "some time".to_string(), |at| at.strftime("%Y-%m-%d %H:%M:%S").to_string())
}
