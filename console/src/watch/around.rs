//! The last lines of a console, numbered, each cut to what a person reads of it.

use std::collections::VecDeque;

/// Bytes that are kept of a line.
const KEPT: usize = 256;

/// See the module.
#[derive(Debug)]
pub(super) struct Around {
    text: VecDeque<u8>,
    lengths: VecDeque<u16>,
    /// How many there ever were.
    written: u64,
    keeps: usize,
}

impl Around {
    /// Keeps so many.
    pub fn new(keeps: usize) -> Around {
        Around { text: VecDeque::new(), lengths: VecDeque::new(), written: 0, keeps }
    }

    /// How many it keeps.
    pub fn keeps(&self) -> usize {
        self.keeps
    }

    /// How many lines there were: the number of the next one.
    pub fn written(&self) -> u64 {
        self.written
    }

    /// The next line.
    pub fn push(&mut self, line: &[u8]) {
        if self.lengths.len() >= self.keeps
            && let Some(first) = self.lengths.pop_front()
        {
            self.text.drain(..usize::from(first).min(self.text.len()));
        }
        let kept = line.get(..KEPT).unwrap_or(line);
        self.text.extend(kept);
        self.lengths.push_back(kept.len() as u16);
        self.written += 1;
    }

    /// Those with these numbers, as far as they are here.
    pub fn lines(&self, from: u64, to: u64) -> Vec<Vec<u8>> {
        let first = self.written - self.lengths.len() as u64;
        let (mut start, mut lines) = (0, Vec::new());
        for (number, length) in (first..).zip(&self.lengths) {
            let end = start + usize::from(*length);
            if (from..to).contains(&number) {
                lines.push(self.text.range(start..end).copied().collect());
            }
            start = end;
        }
        lines
    }

    #[cfg(test)]
    pub fn bytes(&self) -> usize {
        self.text.capacity() + 2 * self.lengths.capacity()
    }
}
