//! How much is kept of what machines log: what `[logs]` says, or the defaults.

use serde::Serialize;

use crate::site::problem::{Problem, Problems};
use crate::site::written::LogsTable;

/// Bounds of all that is received by syslog and netconsole.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Logs {
    /// The most that one machine's take, bytes.
    pub size: u64,
    /// The most that all take together; the oldest goes first, whosever it is.
    pub total: u64,
}

impl Default for Logs {
    fn default() -> Logs {
        Logs { size: 16 << 20, total: 4 << 30 }
    }
}

/// As meant.
pub(super) fn logs(written: &LogsTable, problems: &mut Problems) -> Logs {
    let default = Logs::default();
    let size = written.size.as_ref().map_or(default.size, |size| size.value);
    let total = written.total.as_ref().map_or(default.total, |total| total.value);
    if let Some(at) = written.total.as_ref().or(written.size.as_ref())
        && total < size
    {
        let message = "[logs] total is less than the size that one machine's logs may have";
        let problem = Problem::error("total", &at.origin, message);
        problems.push(
            problem.label("too little").help("size is each machine's, total is all of theirs"),
        );
    }
    Logs { size, total }
}
