//! The machine's half: a stream cut into frames, as many of them kept as may be asked for again.

use std::collections::VecDeque;
use std::io::{self, Read};

use super::frame::{About, BODY_MAX, Frame};

/// Frames that are kept at the most.
const KEPT: u32 = 1024;

/// A stream that is asked for frame by frame.
pub struct Answer<R> {
    source: R,
    about: About,
    size: usize,
    /// Number of the first that is kept.
    first: u32,
    kept: VecDeque<Vec<u8>>,
    over: bool,
}

impl<R: Read> Answer<R> {
    /// With so many bytes in a frame.
    pub fn new(source: R, about: About, size: usize) -> Answer<R> {
        let size = size.clamp(1, BODY_MAX);
        Answer { source, about, size, first: 0, kept: VecDeque::new(), over: false }
    }

    /// Of which stream.
    pub fn about(&self) -> About {
        self.about
    }

    /// Those before this one are not asked for any more.
    pub fn free(&mut self, before: u32) {
        while self.first < before && self.kept.pop_front().is_some() {
            self.first += 1;
        }
    }

    /// A frame; nothing where there is none: it is behind the end, is not kept any more, or is too far ahead.
    ///
    /// # Errors
    /// The source's.
    pub fn frame(&mut self, seq: u32) -> io::Result<Option<Frame>> {
        let Some(at) = seq.checked_sub(self.first).filter(|at| *at < KEPT) else {
            return Ok(None);
        };
        let at = at as usize;
        while self.kept.len() <= at && !self.over {
            let mut body = Vec::new();
            self.source.by_ref().take(self.size as u64).read_to_end(&mut body)?;
            // A short one is the last one, and an empty one is short.
            self.over = body.len() < self.size;
            self.kept.push_back(body);
        }
        let last = self.over && at + 1 == self.kept.len();
        let body = self.kept.get(at).cloned();
        Ok(body.map(|body| Frame { about: self.about, seq, last, body }))
    }
}
