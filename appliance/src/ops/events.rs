//! `koboshi events`: what happened to whom, in order, and as it happens with `-f`.

use serde::{Deserialize, Serialize};

use super::table::clock;
use crate::store::Event;

/// What is asked.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Query {
    /// Only events after this id; 0 for the newest.
    #[serde(default)]
    pub since: u64,
    /// At most this many.
    #[serde(default = "fifty")]
    pub count: usize,
    /// Stay and tell.
    #[serde(default)]
    pub follow: bool,
}

fn fifty() -> usize {
    50
}

/// A line for a terminal.
pub fn show(event: &Event) -> String {
    let who = event.who.as_ref().map(|who| format!("{who} ")).unwrap_or_default();
    let line = format!("{}  {:<14}  {who}{}", clock(event.at), event.kind, event.text);
    line.chars().map(|c| if c.is_control() { '·' } else { c }).collect()
}
