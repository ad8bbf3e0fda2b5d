//! Where a line's keeper hands over what came, and where hits go: into a bounded queue for whoever tells
//! people. What finds no room there is counted: a line waits for nobody.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use tokio::sync::{mpsc, watch};
use tokio::time::{Sleep, sleep_until};

use super::rules::Rules;
use super::{Hit, Watcher};

/// Hits that wait for whoever tells them.
const FOUND_MAX: usize = 1024;

/// A hit, and the line it was found on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// The line's name.
    pub line: Arc<str>,
    /// What was found.
    pub hit: Hit,
}

/// Watches lines: one for all of them.
#[derive(Debug, Clone)]
pub struct Watching {
    rules: watch::Sender<Arc<Rules>>,
    found: mpsc::Sender<Found>,
    lost: Arc<AtomicU64>,
}

impl Watching {
    /// By these rules; and where the hits come out.
    pub fn new(rules: Rules) -> (Watching, mpsc::Receiver<Found>) {
        let (found, hits) = mpsc::channel(FOUND_MAX);
        let rules = watch::channel(Arc::new(rules)).0;
        (Watching { rules, found, lost: Arc::default() }, hits)
    }

    /// By other rules from now on, on all lines.
    pub fn follow(&self, rules: Rules) {
        self.rules.send_replace(Arc::new(rules));
    }

    /// Hits that found no room since this was asked last.
    pub fn lost(&self) -> u64 {
        self.lost.swap(0, Ordering::Relaxed)
    }

    /// For the keeper of the line with this name.
    pub fn feed(&self, line: &str) -> Feed {
        let line: Arc<str> = line.into();
        let rules = self.rules.subscribe();
        let watcher = Watcher::new(line.clone(), rules.borrow().clone());
        let (found, lost) = (self.found.clone(), self.lost.clone());
        Feed { line, watcher, rules, found, lost, alarm: None }
    }
}

/// Of one line.
#[derive(Debug)]
pub struct Feed {
    line: Arc<str>,
    watcher: Watcher,
    rules: watch::Receiver<Arc<Rules>>,
    found: mpsc::Sender<Found>,
    lost: Arc<AtomicU64>,
    /// Rings at the deadline or before it: most deadlines are put off before they come, and that costs nothing.
    alarm: Option<Pin<Box<Sleep>>>,
}

impl Feed {
    /// This was said now: by both clocks, the second one in Unix milliseconds.
    pub fn came(&mut self, bytes: &[u8], now: (Instant, u64)) {
        let mut hits = Vec::new();
        if self.rules.has_changed().unwrap_or(false) {
            let rules = self.rules.borrow_and_update().clone();
            self.watcher.rules(rules, &mut hits);
        }
        self.watcher.came(bytes, now, &mut hits);
        self.tell(hits);
    }

    /// The line broke off.
    pub fn broke_off(&mut self, now: (Instant, u64)) {
        let mut hits = Vec::new();
        self.watcher.broke_off(now, &mut hits);
        self.tell(hits);
    }

    /// Waits until [`Feed::late`] is to be called; for ever, if it is not. May be given up while it waits, and
    /// called again.
    pub async fn due(&mut self) {
        while let Some(deadline) = self.watcher.deadline() {
            let deadline = deadline.into();
            let rings =
                |alarm: &Pin<Box<Sleep>>| !alarm.is_elapsed() && alarm.deadline() <= deadline;
            if !self.alarm.as_ref().is_some_and(rings) {
                self.alarm = Some(Box::pin(sleep_until(deadline)));
            }
            if let Some(alarm) = &mut self.alarm {
                alarm.await;
            }
            if tokio::time::Instant::now() >= deadline {
                return;
            }
        }
        std::future::pending().await
    }

    /// That time has come.
    pub fn late(&mut self, now: (Instant, u64)) {
        let mut hits = Vec::new();
        self.watcher.late(now, &mut hits);
        self.tell(hits);
    }

    fn tell(&self, hits: Vec<Hit>) {
        for hit in hits {
            if self.found.try_send(Found { line: self.line.clone(), hit }).is_err() {
                self.lost.fetch_add(1, Ordering::Relaxed);
            }
        }
    }
}
