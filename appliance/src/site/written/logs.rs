//! `[logs]`: how much is kept of what machines log, each and together.

use super::console::log_size;
use super::walk::{Value, Walk};
use crate::site::origin::At;

/// As written.
#[derive(Default)]
pub(in crate::site) struct LogsTable {
    pub size: Option<At<u64>>,
    pub total: Option<At<u64>>,
}

const KEYS: &[&str] = &["size", "total"];

pub(super) fn logs(walk: &mut Walk, logs: &mut LogsTable, value: &Value) {
    let Some(table) = walk.table("[logs]", value) else { return };
    for (key, value) in table {
        let (what, slot) = match key.get_ref().as_ref() {
            "size" => ("size", &mut logs.size),
            "total" => ("total", &mut logs.total),
            _ => {
                walk.unknown("[logs]", key, KEYS);
                continue;
            }
        };
        let Some(text) = walk.text(what, value) else { continue };
        let size = walk.meaning("size of logs", text, log_size);
        walk.once(slot, what, size);
    }
}
