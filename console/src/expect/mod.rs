//! Scripts for a line: send, wait for an answer, go on by what it was, or fail and say what was missing.
//!
//! ```text
//! words    a script as words
//! parse    words as a program
//! program  what there is to do
//! run      does it: bytes and the time in, bytes and a deadline out
//! veil     keeps secrets out of what people see
//! show     a program for people, without running it
//! drive    runs one over an attach session
//! ```
//!
//! ```text
//! # close-port.expect: shuts a port of a switch
//! arg port "like Gi1/0/7"
//! secret PASSWORD from file "sw1.pw"
//! timeout 10s
//!
//! send "\r"
//! expect {
//!     /[>#] ?$/
//!     "Password:" => {
//!         send "${PASSWORD}\r"
//!         again
//!     }
//!     timeout => fail "the switch does not answer"
//! }
//! send "shutdown\r"
//! expect "${port}, changed state to administratively down" within 30s
//! ```
//!
//! What a machine says is matched as text: escape sequences are taken out, and each line ends with one newline.

mod drive;
mod parse;
mod program;
mod run;
mod show;
mod veil;
mod words;

use std::ops::Range;

pub use drive::drive;
pub use program::{Arg, From, Program, Secret};
pub use run::{Act, Failed, Note, Outcome, Run, Step};

/// Something that is wrong in a script.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// Where: bytes of the script.
    pub at: Range<usize>,
    /// What.
    pub message: String,
    /// What to do about it.
    pub help: Option<String>,
}

impl Fault {
    fn new(at: Range<usize>, message: &str) -> Fault {
        Fault { at, message: message.to_string(), help: None }
    }

    fn help(self, help: &str) -> Fault {
        let help = (!help.is_empty()).then(|| help.to_string());
        Fault { help, ..self }
    }
}

#[cfg(test)]
mod tests;
