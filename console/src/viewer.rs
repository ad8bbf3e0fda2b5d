//! Somebody who follows a line, at his own pace: the line never waits for him.

use std::sync::{Arc, Mutex};

use tokio::sync::watch;

use crate::line::locked;
use crate::scrollback::{Cursor, Piece};
use crate::state::Record;

/// A place in a line's scrollback.
#[derive(Debug)]
pub struct Viewer {
    record: Arc<Mutex<Record>>,
    cursor: Cursor,
    changed: watch::Receiver<()>,
}

impl Viewer {
    /// Begins before the last so many lines.
    pub(crate) fn new(
        record: Arc<Mutex<Record>>,
        changed: watch::Receiver<()>,
        lines: usize,
    ) -> Viewer {
        let cursor = locked(&record).scrollback.last(lines);
        Viewer { record, cursor, changed }
    }

    /// What comes next. None: the line is closed, and all of it was read. May be given up while it waits, and
    /// called again.
    pub async fn next(&mut self) -> Option<Piece> {
        let mut open = true;
        loop {
            self.changed.mark_unchanged();
            if let Some(piece) = locked(&self.record).scrollback.read(&mut self.cursor) {
                return Some(piece);
            }
            if !open {
                return None;
            }
            open = self.changed.changed().await.is_ok();
        }
    }
}
