//! Why something asked of a BMC did not come about, and what to try: each variant is one cause that an
//! operator can act on, told apart as far as the protocol allows.

use std::time::Duration;

use crate::commands::refusal;
use crate::message::{Completion, NetFn};
use crate::wire::Malformed;
use crate::wire::rakp::Status;

/// What went wrong.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Nothing came back at all.
    #[error("no answer within {} s", .waited.as_secs_f32().ceil())]
    Unreachable {
        /// How long it was asked.
        waited: Duration,
    },
    /// The host says that nobody listens at the port, or the name does not resolve.
    #[error("it cannot be reached: {0}")]
    Network(String),
    /// Something answers, and not as a BMC does.
    #[error("what answers there is not a BMC: {0}")]
    NotABmc(String),
    /// It answers some messages and not the one that matters.
    #[error("the BMC is there, and silent to {what}")]
    Silent {
        /// Which one.
        what: &'static str,
    },
    /// It stopped answering after it was asked to do something that must not be done twice.
    #[error("the BMC stopped answering ({} s): whether it did what was asked is not known", .waited.as_secs_f32().ceil())]
    Uncertain {
        /// How long nothing came.
        waited: Duration,
    },
    /// It stopped answering in mid-session.
    #[error("the BMC stopped answering ({} s)", .waited.as_secs_f32().ceil())]
    Lost {
        /// How long nothing came.
        waited: Duration,
    },
    /// The password is not that of the account.
    #[error("wrong password for {user}")]
    WrongPassword {
        /// The account.
        user: String,
    },
    /// The password is right and the BMC's own key is not (or the other way round: it shows only now).
    #[error("the BMC's own key (K_g) is not the one given")]
    WrongKey,
    /// No such account, it is disabled, or it may not log in from here.
    #[error("the BMC does not let {user} in")]
    UserRefused {
        /// The account.
        user: String,
    },
    /// The account has less privilege than was asked for.
    #[error("{user} has not the privilege that this needs")]
    Privilege {
        /// The account.
        user: String,
    },
    /// Every session slot is taken.
    #[error("the BMC has no free session")]
    NoFreeSession,
    /// None of the cipher suites asked for is taken.
    #[error("the BMC refuses cipher suite {}", .tried.iter().map(u8::to_string).collect::<Vec<_>>().join(" and "))]
    SuiteRefused {
        /// Those tried.
        tried: Vec<u8>,
    },
    /// The BMC, or somebody between, would have weaker algorithms than those asked for.
    #[error("the BMC answers with weaker algorithms than those asked for: {0}")]
    Downgrade(String),
    /// Another status of RMCP+.
    #[error("the BMC refuses the session: {}", .0.words())]
    SessionRefused(Status),
    /// What the BMC proves does not hold: it is another, or its firmware computes otherwise.
    #[error("the BMC's proof does not hold: {0}")]
    BadProof(&'static str),
    /// It is a BMC and does not speak this.
    #[error("the BMC does not do {0}")]
    Unsupported(&'static str),
    /// The command was refused.
    #[error("{}", words(*.netfn, *.command, *.completion))]
    Refused {
        /// What was asked.
        netfn: NetFn,
        /// What was asked.
        command: u8,
        /// The answer.
        completion: Completion,
    },
    /// It answered well, and reads back as something else.
    #[error("it took {what} and keeps another: {reads}")]
    NotKept {
        /// What was set.
        what: &'static str,
        /// What it has now, in words.
        reads: String,
    },
    /// An answer that cannot be read.
    #[error("an answer that cannot be read: {0}")]
    Malformed(#[from] Malformed),
    /// Serial over LAN is switched off, for all or for this account.
    #[error("the BMC's Serial over LAN is switched off")]
    SolDisabled,
    /// The BMC ended Serial over LAN, or says that it is not active.
    #[error("the BMC ended Serial over LAN")]
    SolEnded,
    /// The session is well, and Serial over LAN takes nothing that is typed.
    #[error("Serial over LAN takes nothing any more")]
    SolDeaf,
    /// Somebody else has the console.
    #[error("Serial over LAN is taken{}", .by.as_ref().map(|by| format!(" by {by}")).unwrap_or_default())]
    SolTaken {
        /// Address and account of who has it, where the BMC tells.
        by: Option<String>,
    },
    /// What was asked makes no sense, before anything was sent.
    #[error("{0}")]
    Invalid(String),
    /// The handle was closed.
    #[error("the session was closed")]
    Closed,
}

/// A refusal in the words of the command, where it has its own.
fn words(netfn: NetFn, command: u8, completion: Completion) -> String {
    match refusal::words(netfn, command, completion) {
        Some(words) => format!("{words} ({completion:?})"),
        None => completion.to_string(),
    }
}

impl Error {
    /// The completion code, where it is one.
    pub fn completion(&self) -> Option<Completion> {
        match self {
            Error::Refused { completion, .. } => Some(*completion),
            _ => None,
        }
    }

    /// Whether trying again later, with nothing changed, may help.
    pub fn is_passing(&self) -> bool {
        match self {
            Error::Unreachable { .. }
            | Error::Network(_)
            | Error::Lost { .. }
            | Error::Silent { .. }
            | Error::NoFreeSession
            | Error::SolEnded
            | Error::SolDeaf
            | Error::SolTaken { .. } => true,
            Error::Refused { completion, .. } => completion.is_passing(),
            _ => false,
        }
    }

    /// What to try, in a sentence for the operator.
    pub fn advice(&self) -> Option<&'static str> {
        Some(match self {
            Error::Unreachable { .. } => {
                "is the address right, has the BMC a link, and is IPMI over LAN switched on in its settings?"
            }
            Error::Network(_) => "check the address, and the way there from this host",
            Error::NotABmc(_) => {
                "check the address and the port (623 unless the site says otherwise)"
            }
            Error::Lost { .. } => {
                "a BMC that shares the host's NIC loses its link while the host starts; else `koboshi bmc WHO reset`"
            }
            Error::Silent { .. } => {
                "some firmware is silent where it should refuse: check account and cipher. Else all its sessions may be taken: they end by themselves after a minute or so"
            }
            Error::Uncertain { .. } => "look what state it is in before asking again",
            Error::WrongPassword { .. } => {
                "check the account and its password file; IPMI takes 20 bytes of a password at most, IPMI 1.5 takes 16"
            }
            Error::WrongKey => "check kg-file; without one the BMC's key must be unset (all zeros)",
            Error::UserRefused { .. } => {
                "is the account's name right, is it enabled, and has it access on the LAN channel? `koboshi bmc WHO users`"
            }
            Error::Privilege { .. } => {
                "give the account more privilege on the LAN channel, or use another"
            }
            Error::NoFreeSession => {
                "others hold its sessions; they end by themselves after a minute or so. Some BMCs say the same of a cipher suite they refuse: try cipher = 17, then 3"
            }
            Error::SuiteRefused { .. } => {
                "enable cipher suite 17 or 3 in the BMC's settings, or ask for another by number (cipher)"
            }
            Error::Downgrade(_) => {
                "if its firmware was changed on purpose, `koboshi bmc WHO forget` drops what was learned; else somebody is between"
            }
            Error::BadProof(_) => {
                "try the other cipher suite by number (cipher = 3, or 17); else it is not the BMC you think"
            }
            Error::Unsupported(_) | Error::SessionRefused(_) | Error::Malformed(_) => return None,
            Error::Refused { completion, .. } if *completion == Completion::PRIVILEGE => {
                "give the account more privilege on the LAN channel, or use another"
            }
            Error::Refused { .. } | Error::NotKept { .. } | Error::Invalid(_) | Error::Closed => {
                return None;
            }
            Error::SolDisabled => {
                "switch Serial over LAN on in the BMC's settings, and for the account"
            }
            Error::SolEnded | Error::SolDeaf => {
                "it is activated anew; if it does not come back, `koboshi bmc WHO reset`"
            }
            Error::SolTaken { .. } => "`--take` ends the other's session",
        })
    }
}
