//! What a running machine tells of its own root: which names are other than its image has them, and what is in
//! them. Both sides compile this, as they do the contract: the machine answers, the appliance asks.
//!
//! It is said only when it is asked for, to whoever is at the machine's console or comes by SSH as root. A console
//! is a line that the kernel talks on too, in the middle of ours: so all that is said is lines that can be checked
//! ([`frame`]), and what is damaged is asked for again ([`ask`], [`answer`]). What the lines carry is a
//! [`listing`] and then [`contents`], each compressed with zstd.

pub mod answer;
pub mod ask;
pub mod contents;
pub mod frame;
pub mod listing;
mod number;

use serde::{Deserialize, Serialize};

/// Where a machine keeps the program that answers.
pub const PROGRAM: &str = "/run/koboshi/koboshi-init";
/// Its first word; the second is how many bytes a frame may carry.
pub const WORD: &str = "changes";
/// Of this file's protocol.
pub const PROTOCOL: u32 = 1;

/// Who answers, and from what its root was made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Header {
    /// [`PROTOCOL`].
    pub protocol: u32,
    /// `web@3`.
    pub image: String,
    /// The root as its command line names it: `sha256:…`.
    pub key: String,
    /// How the root lies in memory.
    pub root: Manner,
    /// What the machine calls itself.
    pub hostname: String,
    /// Its boot, as 32 hex digits; empty where it has none.
    pub boot: String,
    /// Bits a second of the line it answers on; 0 where that is no line.
    pub speed: u32,
}

/// How a root lies in memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Manner {
    /// Unpacked: the names are compared one by one, and times say what cannot have changed.
    Ram,
    /// Compressed, with an upper directory that holds what is other.
    Overlay,
    /// A server's.
    Nfs,
}
