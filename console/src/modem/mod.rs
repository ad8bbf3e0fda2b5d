//! Files over a line: XMODEM, YMODEM and ZMODEM, both ways.
//!
//! ```text
//! blocks   XMODEM and YMODEM: a block, its answer, the next block
//! zmodem   ZMODEM: a stream of frames that the receiver can turn back
//! info     name, size and time as YMODEM and ZMODEM announce them; names that are safe here
//! crc      the sums that say whether it is the same file
//! detect   sees in what a machine says that it wants to send or receive
//! drive    carries bytes, files and time between an engine and a line
//! folder   where files go to and come from
//! ```
//!
//! An engine does nothing by itself: it is handed bytes and the time, and says what is to be done next.
//!
//! What is detected: ZMODEM guards all it says by a CRC of 32 bits, YMODEM and XMODEM guard each block by one of
//! 16 (one of 65,536 blocks full of noise passes). XMODEM with its sum of 8 bits, which a receiver asks for that
//! knows no CRC, sees one damaged byte in a block, but no two that exchanged their places, and one of 256 blocks
//! full of noise passes it: compare the file afterwards. Serial over LAN and telnet lose and damage nothing by
//! themselves.
//!
//! References: Chuck Forsberg, "XMODEM/YMODEM Protocol Reference" (1988) and "The ZMODEM Inter Application File
//! Transfer Protocol" (1988); lrzsz 0.12.21 for what is done in their place.

mod blocks;
mod crc;
mod detect;
mod drive;
mod folder;
mod info;
mod zmodem;

#[cfg(test)]
mod noise;

use std::fmt;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

pub use detect::{Detector, Wants};
pub use drive::{Ends, Event, Work, drive};
pub use folder::{Folder, Rules, Sources};
pub use info::{Announced, safe_name};

/// Which protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Protocol {
    /// Names, sizes, resuming; streams. `rz` and `sz`.
    Zmodem,
    /// Names and sizes; an answer for each block of 1,024 bytes. `rb` and `sb`.
    Ymodem,
    /// One file without a name; an answer for each block of 128 bytes. `rx` and `sx`, and boot loaders.
    Xmodem,
    /// XMODEM with blocks of 1,024 bytes: `rx` and `sx -k`.
    #[serde(rename = "xmodem-1k")]
    Xmodem1k,
}

impl Protocol {
    /// Whether files have names, so that there may be several.
    pub fn names(self) -> bool {
        matches!(self, Protocol::Zmodem | Protocol::Ymodem)
    }

    /// What receives on the other side, by lrzsz's name.
    pub fn receiver(self) -> &'static str {
        match self {
            Protocol::Zmodem => "rz",
            Protocol::Ymodem => "rb",
            Protocol::Xmodem | Protocol::Xmodem1k => "rx -c FILE",
        }
    }

    /// What sends on the other side.
    pub fn sender(self) -> &'static str {
        match self {
            Protocol::Zmodem => "sz FILE",
            Protocol::Ymodem => "sb FILE",
            Protocol::Xmodem => "sx FILE",
            Protocol::Xmodem1k => "sx -k FILE",
        }
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Protocol::Zmodem => "ZMODEM",
            Protocol::Ymodem => "YMODEM",
            Protocol::Xmodem => "XMODEM",
            Protocol::Xmodem1k => "XMODEM-1K",
        })
    }
}

/// What an engine wants done, one after the other.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Next {
    /// To the other side.
    Send(Vec<u8>),
    /// So much of the file with this number, from there on; fewer bytes where it ends. Answered by
    /// [`Engine::data`] before anything else.
    Read {
        /// Which, from 0.
        file: usize,
        /// From which byte on.
        at: u64,
        /// How many, never 0.
        most: usize,
    },
    /// The other side has all of this file.
    Sent {
        /// Which.
        file: usize,
    },
    /// The other side does not want it.
    Skipped {
        /// Which.
        file: usize,
    },
    /// A file is offered. Answered by [`Engine::answer`] before anything else.
    Offer(Announced),
    /// What comes is stored from this byte on; what was there behind it is gone.
    Begin {
        /// 0, or what [`Answer::Take`] said.
        at: u64,
    },
    /// To be stored behind what was stored before.
    Store(Vec<u8>),
    /// All of the file is stored.
    Whole {
        /// Its length: what was stored beyond is filling.
        size: u64,
        /// It may end in filling (bytes 0x1a): the protocol does not say how long it is.
        padded: bool,
    },
    /// Nothing, until something comes or it is so late.
    Wait(Instant),
    /// It is over.
    End(Result<(), Failure>),
}

/// What becomes of a file that is offered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answer {
    /// It is taken, from this byte on.
    Take {
        /// So much of it is there already. Only ZMODEM can begin anywhere but at 0, and does so only if the
        /// other side has the same there.
        at: u64,
        /// The CRC-32 of what is there.
        crc: u32,
    },
    /// It is not wanted.
    Skip,
}

/// Why a transfer came to nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    /// It never began.
    #[error("nobody answered within {} s: is `{program}` running on the other side?{}", .waited.as_secs(), said(.heard))]
    Nobody {
        /// For how long.
        waited: Duration,
        /// What should run there.
        program: &'static str,
        /// The last of what was said instead, without control characters.
        heard: String,
    },
    /// Somebody there wanted it so.
    #[error("the other side cancelled, at byte {at}")]
    Cancelled {
        /// How far it was.
        at: u64,
    },
    /// Somebody here wanted it so.
    #[error("stopped")]
    Stopped,
    /// The line is too bad, or not clean for eight bits.
    #[error(
        "too many errors: {what} came to nothing {tries} times; is something else typing or logging on this line, \
         or is it not clean for all characters (ZMODEM: try --escape-control)?"
    )]
    Errors {
        /// Of what: `block 17`, `byte 4096`.
        what: String,
        /// So often.
        tries: u32,
    },
    /// It began, and then nothing came any more.
    #[error("no answer for {} s, at byte {at}", .waited.as_secs())]
    Silent {
        /// For how long.
        waited: Duration,
        /// How far it was.
        at: u64,
    },
    /// The other side has all of it, most likely.
    #[error(
        "every block was acknowledged, but the end of the file was not: compare it on the other side"
    )]
    Unconfirmed,
    /// The other side does what the protocol does not know, in words.
    #[error("{0}")]
    Confused(String),
    /// Something on this side, in words.
    #[error("{0}")]
    Here(String),
}

fn said(heard: &str) -> String {
    match heard {
        "" => String::new(),
        heard => format!(" It says: {heard}"),
    }
}

/// Sends or receives files. [`Engine::next`] says what is to be done, again and again.
pub trait Engine: Send + fmt::Debug {
    /// These came from the other side. To be called after [`Next::Wait`] or [`Next::Send`].
    fn came(&mut self, bytes: &[u8]);

    /// What is to be done next.
    fn next(&mut self, now: Instant) -> Next;

    /// The answer to [`Next::Read`].
    fn data(&mut self, _bytes: &[u8]) {}

    /// The answer to [`Next::Offer`].
    fn answer(&mut self, _answer: Answer) {}

    /// Gives up: the other side is told so that it does not hang, and it ends with this.
    fn stop(&mut self, why: Failure);
}

/// A file that is sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outgoing {
    /// Its name on the other side.
    pub name: String,
    /// Bytes.
    pub size: u64,
    /// When it was changed, Unix seconds; 0 if nobody knows.
    pub modified: u64,
}

/// How much ZMODEM escapes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Options {
    /// All control characters, for lines that eat or mean some of them. ZMODEM alone can.
    pub escape: bool,
}

/// Sends files; XMODEM sends the first one.
pub fn send(
    protocol: Protocol,
    files: Vec<Outgoing>,
    options: Options,
    now: Instant,
) -> Box<dyn Engine> {
    match protocol {
        Protocol::Zmodem => Box::new(zmodem::Sender::new(files, options, now)),
        other => Box::new(blocks::Sender::new(other, files, now)),
    }
}

/// Receives what the other side sends.
pub fn receive(protocol: Protocol, options: Options, now: Instant) -> Box<dyn Engine> {
    match protocol {
        Protocol::Zmodem => Box::new(zmodem::Receiver::new(options, now)),
        other => Box::new(blocks::Receiver::new(other, now)),
    }
}

/// What both sides of lrzsz send to end it at once: enough CAN for each of the three, and backspaces for a shell
/// that gets them.
const CANCEL: [u8; 20] = {
    let mut all = [0x18; 20];
    let mut at = 10;
    while at < 20 {
        all[at] = 0x08;
        at += 1;
    }
    all
};

/// The last of what was said before it began: a shell that does not know the command says so.
#[derive(Debug, Default)]
struct Heard(Vec<u8>);

impl Heard {
    const MOST: usize = 160;

    fn hear(&mut self, byte: u8) {
        if self.0.len() == Heard::MOST {
            self.0.remove(0);
        }
        self.0.push(byte);
    }

    /// The last line that says anything.
    fn last(&self) -> String {
        let text = String::from_utf8_lossy(&self.0);
        let says = |line: &&str| line.chars().any(char::is_alphabetic);
        let line = text.lines().rev().find(says).unwrap_or_default();
        line.chars().filter(|c| !c.is_control()).collect::<String>().trim().to_string()
    }
}
