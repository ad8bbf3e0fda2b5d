//! Looking an image through for what must not be in it, before machines may boot it.
//!
//! - `rules`: what is looked for, why, and what to do;
//! - `scan`: a tree from end to end; `places`: files known by where they lie, with `accounts` and
//!   `logins` for their formats and `text` for their lines; `markers`: contents, with `keys` and
//!   `tokens`; `modes`: permissions;
//! - `layers`: an image of the store, layer by layer, each looked through once;
//! - `allow`: what somebody answers for, kept with the image;
//! - `report`: all of it in words.
//!
//! Archives inside the root are not opened, and nothing is said of what a secret is, only of where.

mod accounts;
mod allow;
mod keys;
mod layers;
mod logins;
mod markers;
mod modes;
mod places;
mod report;
mod rules;
mod scan;
mod text;
mod tokens;

use std::path::Path;

use serde::{Deserialize, Deserializer, Serialize};

use crate::source::{self, Limits, Reading, Spool};
use crate::tree::Tree;
use crate::{Digest, Error};

pub use allow::Allowance;
pub use report::Report;
pub use rules::{Rule, Severity, rule, rules};

/// Something an image should not hold.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finding {
    /// Which rule found it.
    #[serde(deserialize_with = "known")]
    pub rule: &'static Rule,
    /// Where, from `/` on; what is not printable is written `\x0a`.
    pub path: String,
    /// The first line, in a text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub line: Option<u64>,
    /// The first byte, in what is no text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub byte: Option<u64>,
    /// How many different ones.
    pub count: u32,
    /// Whose, or of which kind: never the secret.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
    /// Of what was found: another secret at the same place has another.
    pub evidence: Digest,
    /// In which layer of the image, counted from 1; 0: not in layers.
    #[serde(default)]
    pub layer: usize,
    /// A later layer takes it away, and whoever reads the layers reads it all the same.
    #[serde(default)]
    pub hidden: bool,
    /// Who answers for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub allowed: Option<Allowance>,
}

impl Finding {
    fn new(rule: &'static Rule, path: &[u8], note: Option<String>, evidence: Digest) -> Finding {
        Finding {
            rule,
            path: format!("/{}", quoted(path)),
            line: None,
            byte: None,
            count: 1,
            note,
            evidence,
            layer: 0,
            hidden: false,
            allowed: None,
        }
    }

    /// Whether it stops a publish.
    pub fn stops(&self) -> bool {
        self.rule.severity == Severity::Secret && self.allowed.is_none()
    }
}

fn known<'de, D: Deserializer<'de>>(from: D) -> Result<&'static Rule, D::Error> {
    let id = String::deserialize(from)?;
    rule(&id).ok_or_else(|| serde::de::Error::custom(format!("no rule `{id}`")))
}

/// A path as text from which it can be read back: what is no text or not printable as `\xNN`.
fn quoted(path: &[u8]) -> String {
    let mut out = String::with_capacity(path.len());
    for chunk in path.utf8_chunks() {
        for c in chunk.valid().chars() {
            match c {
                '\\' => out.push_str("\\\\"),
                c if c.is_control() || "\u{202a}\u{202b}\u{202c}\u{202d}\u{202e}".contains(c) => {
                    let mut bytes = [0; 4];
                    c.encode_utf8(&mut bytes)
                        .bytes()
                        .for_each(|b| out.push_str(&format!("\\x{b:02x}")));
                }
                c => out.push(c),
            }
        }
        chunk.invalid().iter().for_each(|b| out.push_str(&format!("\\x{b:02x}")));
    }
    out
}

/// Looks a root through that is still in memory: everything found, by path.
pub(crate) fn tree(tree: &Tree) -> Result<Vec<Finding>, Error> {
    scan::scan(tree)
}

/// Looks a directory or an archive through that is not, or not yet, an image: what is handed to
/// machines beside their images, for one. `work` is where an archive is unpacked, into files
/// without a name.
pub fn lint(path: &Path, work: &Path) -> Result<Vec<Finding>, Error> {
    let mut progress = |_| ();
    let mut reading = Reading {
        spool: Spool::new(work),
        limits: Limits::default(),
        warnings: Vec::new(),
        progress: &mut progress,
    };
    scan::scan(source::read(path, &mut reading)?.root())
}
