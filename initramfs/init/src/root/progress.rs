//! The progress of the root, in lines that suit a serial port: each tenth, yet none in the same
//! second as the last, and at least one every five seconds.

use std::time::{Duration, Instant};

use crate::contract::Blob;

/// All that is fetched for one root, told as one thing: bytes and tries.
#[derive(Debug)]
pub struct Course {
    size: u64,
    /// Of what is whole.
    before: u64,
    begun: Instant,
    progress: Progress,
    attempt: u32,
    told: u32,
}

impl Course {
    /// Of these, beginning now.
    pub fn new(blobs: &[Blob]) -> Course {
        let size = blobs.iter().fold(0u64, |sum, blob| sum.saturating_add(blob.size));
        let (begun, progress) = (Instant::now(), Progress::new(size));
        Course { size, before: 0, begun, progress, attempt: 1, told: 0 }
    }

    /// Tries so far, this one counted.
    pub fn attempt(&self) -> u32 {
        self.attempt
    }

    /// This try failed.
    pub fn failed(&mut self) {
        self.attempt = self.attempt.saturating_add(1);
    }

    /// A byte arrived: whether it is the first of its try.
    pub fn begins(&mut self) -> bool {
        std::mem::replace(&mut self.told, self.attempt) != self.attempt
    }

    /// Bytes of what is whole.
    pub fn before(&self) -> u64 {
        self.before
    }

    /// So many are whole now, or again: what came behind them is fetched anew.
    pub fn stands_at(&mut self, before: u64) {
        self.before = before;
        if before == 0 {
            (self.begun, self.progress) = (Instant::now(), Progress::new(self.size));
        }
    }

    /// The line for `got` bytes behind those that are whole, if one is due.
    pub fn line(&mut self, got: u64) -> Option<String> {
        self.progress.line(self.before.saturating_add(got), self.begun.elapsed())
    }
}

/// Decides when a line is due.
#[derive(Debug)]
pub struct Progress {
    size: u64,
    last: Duration,
    tenth: u64,
}

impl Progress {
    /// For `size` bytes, counted from now.
    pub fn new(size: u64) -> Progress {
        Progress { size, last: Duration::ZERO, tenth: 0 }
    }

    /// The line for `got` bytes after `elapsed`, if one is due.
    pub fn line(&mut self, got: u64, elapsed: Duration) -> Option<String> {
        let since = elapsed.saturating_sub(self.last);
        let tenth = got.saturating_mul(10) / self.size.max(1);
        let due = since >= Duration::from_secs(5)
            || (since >= Duration::from_secs(1) && tenth > self.tenth);
        if !due || got >= self.size {
            return None;
        }
        self.last = elapsed;
        self.tenth = tenth;
        let percent = u128::from(got) * 100 / u128::from(self.size.max(1));
        Some(format!(
            "root {percent:3} %  {} of {} MB  {}",
            got / 1_000_000,
            self.size / 1_000_000,
            rate(got, elapsed)
        ))
    }
}

/// `11.2 MB/s`
pub fn rate(bytes: u64, elapsed: Duration) -> String {
    let millis = elapsed.as_millis().max(1);
    let tenths = u128::from(bytes) / 100 / millis;
    format!("{}.{} MB/s", tenths / 10, tenths % 10)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(size: u64, step: u64, millis: u64) -> Vec<String> {
        let mut progress = Progress::new(size);
        (1..=size / step)
            .filter_map(|n| progress.line(n * step, Duration::from_millis(n * millis)))
            .collect()
    }

    #[test]
    fn a_fast_fetch_says_nothing_and_a_slow_one_not_much() {
        assert!(lines(70_000_000, 1_000_000, 10).is_empty());
        let steady = lines(100_000_000, 1_000_000, 200);
        assert_eq!(steady.len(), 9);
        assert_eq!(steady[0], "root  10 %  10 of 100 MB  5.0 MB/s");
        // 100 s for the whole: every five seconds.
        assert_eq!(lines(10_000_000, 10_000, 100).len(), 19);
    }

    #[test]
    fn a_rate_needs_no_time_to_have_passed() {
        assert_eq!(rate(1_000_000, Duration::ZERO), "1000.0 MB/s");
        assert_eq!(rate(u64::MAX, Duration::from_secs(1)), "18446744073709.5 MB/s");
        assert_eq!(Progress::new(0).line(0, Duration::from_secs(60)), None);
    }
}
