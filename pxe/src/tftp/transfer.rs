//! One transfer, from the answer to a request until its last ACK: handed datagrams and `now`, it
//! hands back what to send, and a deadline. It never sees a socket, nor the file: it says which
//! blocks are due, and `lay_out` makes datagrams of them.
//!
//! ```text
//!            base            next
//!   acked …  | sent, unacked | …  last          blocks count from 1; 16 bits of that go over the wire,
//!                                               so after 65535 comes 0
//! ```
//!
//! What brings a block twice:
//! * the deadline passing: the window again from its base, the interval doubled;
//! * an ACK inside the window: from the block after it (RFC 7440 §4);
//! * an ACK of the block before the window: the client misses the window's first block, or its ACK
//!   came twice. Answering each at once is the sorcerer's apprentice (every block twice, for ever),
//!   and EDK2 sends one for each block that follows a gap. So it only draws the deadline near;
//!   an honest ACK on its way puts it back.

use std::io::{self, IoSliceMut};
use std::time::{Duration, Instant};

use super::packet::{self, Packet};
use super::terms::Terms;

/// Before a round trip has been measured.
const FIRST_INTERVAL: Duration = Duration::from_secs(1);
/// A ROM in 16-bit code takes its time; quicker than this is never worth a duplicate.
const SHORTEST_INTERVAL: Duration = Duration::from_millis(200);
/// Doubling stops here.
const LONGEST_INTERVAL: Duration = Duration::from_secs(8);
/// How soon after a repeated ACK the window goes out again, two round trips aside.
const NUDGED_INTERVAL: Duration = Duration::from_millis(10);
/// Answers to one request before the first ACK, to a client that asks again from the same port: it is asked
/// six times by EDK2, and the address may be somebody's who asks nothing.
const FIRST_ANSWERS: u32 = 8;

/// When to give up.
#[derive(Debug, Clone, Copy)]
pub struct Patience {
    /// Deadlines in a row without anything new from the client.
    pub tries: u32,
    /// The same before the first ACK: whoever asked may not be at the address that it asked from, and one who
    /// is asks again by itself. None: one datagram is all there is, though its request come again.
    pub unheard: u32,
    /// Time without progress, whatever the client sends.
    pub stall: Duration,
}

impl Default for Patience {
    fn default() -> Patience {
        Patience { tries: 6, unheard: 2, stall: Duration::from_secs(60) }
    }
}

/// What the driver has to do next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Wait for a datagram or the deadline.
    Wait,
    /// Send the OACK.
    Oack,
    /// Send these blocks.
    Blocks(Blocks),
    /// It is over.
    End(End),
}

/// Consecutive blocks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Blocks {
    /// The first one, counted from 1.
    pub first: u64,
    /// How many.
    pub count: u16,
}

/// How a transfer ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum End {
    /// Everything was sent. Not `confirmed`: the client closed its port after the last block
    /// instead of acknowledging it, as some do.
    Done {
        /// The last block was acknowledged.
        confirmed: bool,
    },
    /// The client looked at the OACK and left: a size probe.
    Probed {
        /// Code of its ERROR; none if it only closed its port. EDK2 sends 8, iPXE 0.
        code: Option<u16>,
        /// What it said.
        message: String,
    },
    /// The client sent an ERROR, or closed its port in the middle (no code).
    Aborted {
        /// Code of the ERROR.
        code: Option<u16>,
        /// What it said.
        message: String,
    },
    /// It stopped answering.
    TimedOut,
    /// The same port asked for something else, and nobody answered here any more.
    Replaced,
}

/// One transfer under way.
#[derive(Debug)]
pub struct Transfer {
    blksize: u64,
    window: u64,
    timeout: Option<Duration>,
    patience: Patience,
    /// Number of the last block, the short one (possibly empty).
    last: u64,
    /// First block not acknowledged.
    base: u64,
    /// First block not sent in this window.
    next: u64,
    /// One past the highest block ever sent.
    reached: u64,
    /// Waiting for ACK 0 of the OACK.
    greeting: bool,
    /// Smoothed round trip.
    rtt: Option<Duration>,
    sent_at: Instant,
    /// The window has been sent more than once: its round trip says nothing (Karn).
    repeated: bool,
    tries: u32,
    /// Answers before the first ACK.
    answers: u32,
    /// Deadlines drawn near since the last progress, and whether this one is.
    nudges: u32,
    nudged: bool,
    deadline: Instant,
    progress_at: Instant,
    aside: bool,
    heard: bool,
    resent: u64,
}

impl Transfer {
    /// A transfer of `size` bytes, and its first step.
    pub fn begin(terms: &Terms, size: u64, patience: Patience, now: Instant) -> (Transfer, Step) {
        let blksize = u64::from(terms.blksize).max(1);
        let mut transfer = Transfer {
            blksize,
            window: u64::from(terms.window).max(1),
            timeout: terms.timeout,
            patience,
            last: size / blksize + 1,
            base: 1,
            next: 1,
            reached: 1,
            greeting: terms.oack.is_some(),
            rtt: None,
            sent_at: now,
            repeated: false,
            tries: 0,
            answers: 0,
            nudges: 0,
            nudged: false,
            deadline: now,
            progress_at: now,
            aside: false,
            heard: false,
            resent: 0,
        };
        let step = transfer.send(now);
        (transfer, step)
    }

    /// When `expire` is due.
    pub fn deadline(&self) -> Instant {
        self.deadline
    }

    /// The client has acknowledged something.
    pub fn heard(&self) -> bool {
        self.heard
    }

    /// Blocks sent more than once.
    pub fn resent(&self) -> u64 {
        self.resent
    }

    /// Blocks the client has acknowledged.
    pub fn acknowledged(&self) -> u64 {
        self.base - 1
    }

    /// A datagram from the client.
    pub fn receive(&mut self, packet: Packet, now: Instant) -> Step {
        match packet {
            Packet::Ack(0) if self.greeting => {
                self.greeting = false;
                self.progress(now);
                self.send(now)
            }
            Packet::Ack(_) if self.greeting => Step::Wait,
            Packet::Ack(block) => self.ack(block, now),
            Packet::Error { code, message } => Step::End(self.left(Some(code), message)),
            Packet::Read(_) | Packet::Write | Packet::Stray => Step::Wait,
        }
    }

    /// The deadline has passed.
    pub fn expire(&mut self, now: Instant) -> Step {
        if now < self.deadline {
            return Step::Wait;
        }
        if self.aside {
            return Step::End(End::Replaced);
        }
        if now.saturating_duration_since(self.progress_at) >= self.patience.stall {
            return Step::End(End::TimedOut);
        }
        if !self.heard && self.answers >= FIRST_ANSWERS {
            return Step::End(End::TimedOut);
        }
        // A nudged deadline is the client's own call, and it lives.
        if !self.nudged {
            let most = if self.heard { u32::MAX } else { self.patience.unheard };
            if self.tries >= self.patience.tries.min(most) {
                return Step::End(End::TimedOut);
            }
            self.tries += 1;
        }
        self.repeated = true;
        self.send(now)
    }

    /// The client repeated its request: our answer got lost, or it is slower than the ROM's clock.
    pub fn again(&mut self, now: Instant) -> Step {
        let most = if self.patience.unheard == 0 { 1 } else { FIRST_ANSWERS };
        if self.heard || self.answers >= most {
            return Step::Wait;
        }
        self.tries = 0;
        self.repeated = true;
        self.send(now)
    }

    /// The same port asked for something else. Either the machine was reset, and this transfer
    /// falls silent and ends at its deadline; or the request was an old one that the network
    /// delivered late, then the next ACK shows it, and we go on.
    pub fn step_aside(&mut self) {
        self.aside = true;
    }

    /// The client's port is closed.
    pub fn gone(&self) -> End {
        if self.reached > self.last {
            return End::Done { confirmed: false };
        }
        self.left(None, "its port is closed".to_string())
    }

    fn left(&self, code: Option<u16>, message: String) -> End {
        if self.greeting { End::Probed { code, message } } else { End::Aborted { code, message } }
    }

    fn ack(&mut self, block: u16, now: Instant) -> Step {
        // The 16 bits are a distance from the block before the window; a window is at most 64.
        let before = (self.base - 1) as u16;
        let ahead = u64::from(block.wrapping_sub(before));
        if ahead == 0 {
            return self.nudge(now);
        }
        if ahead > self.next - self.base {
            return Step::Wait;
        }
        self.base += ahead;
        self.progress(now);
        if self.base > self.last {
            return Step::End(End::Done { confirmed: true });
        }
        self.send(now)
    }

    fn progress(&mut self, now: Instant) {
        if !self.repeated {
            let sample = now.saturating_duration_since(self.sent_at);
            self.rtt = Some(self.rtt.map_or(sample, |rtt| (rtt * 7 + sample) / 8));
        }
        self.repeated = false;
        self.tries = 0;
        self.nudges = 0;
        self.progress_at = now;
        self.aside = false;
        self.heard = true;
    }

    fn nudge(&mut self, now: Instant) -> Step {
        self.aside = false;
        self.heard = true;
        let soon = NUDGED_INTERVAL + self.rtt.unwrap_or_default() * 2;
        // Twice as long for each one that brought nothing, so that a client that repeats itself
        // for ever costs no more than one that is silent.
        let soon = doubled(soon, self.nudges, self.interval());
        if now + soon < self.deadline {
            self.deadline = now + soon;
            self.nudges += 1;
            self.nudged = true;
        }
        Step::Wait
    }

    fn send(&mut self, now: Instant) -> Step {
        let longest = self.interval().max(LONGEST_INTERVAL);
        self.deadline = now + doubled(self.interval(), self.tries, longest);
        self.sent_at = now;
        self.nudged = false;
        self.answers = self.answers.saturating_add(1);
        if self.greeting {
            return Step::Oack;
        }
        let count = self.window.min(self.last + 1 - self.base);
        self.next = self.base + count;
        self.resent += self.reached.min(self.next) - self.base;
        self.reached = self.reached.max(self.next);
        let count = u16::try_from(count).expect("a window is at most 65535 blocks");
        Step::Blocks(Blocks { first: self.base, count })
    }

    fn interval(&self) -> Duration {
        self.timeout.unwrap_or_else(|| {
            self.rtt
                .map_or(FIRST_INTERVAL, |rtt| (rtt * 8).clamp(SHORTEST_INTERVAL, FIRST_INTERVAL))
        })
    }

    /// Bytes acknowledged so far.
    pub fn bytes(&self, size: u64) -> u64 {
        (self.acknowledged() * self.blksize).min(size)
    }
}

fn doubled(interval: Duration, times: u32, longest: Duration) -> Duration {
    interval.saturating_mul(1 << times.min(16)).min(longest)
}

/// Writes the DATA packets of `blocks` into `out`, one behind the other, all of `blksize + 4` bytes
/// but perhaps the last: the form in which one call can send them. `fill` reads from an offset of
/// the content on until all buffers are full, one after the other; it answers `false` where that would wait
/// for a disk, and so does this.
pub fn lay_out(
    blocks: Blocks,
    blksize: u16,
    size: u64,
    out: &mut Vec<u8>,
    fill: impl FnOnce(u64, &mut [IoSliceMut<'_>]) -> io::Result<bool>,
) -> io::Result<bool> {
    let (step, count) = (u64::from(blksize), u64::from(blocks.count));
    let offset = blocks.first.saturating_sub(1) * step;
    let length = size.saturating_sub(offset).min(count * step);
    // What is left in it is written over.
    out.resize((length + 4 * count) as usize, 0);
    let mut bodies = Vec::with_capacity(usize::from(blocks.count));
    let mut rest = &mut out[..];
    for block in blocks.first..blocks.first + count {
        let Some((header, more)) = rest.split_at_mut_checked(4) else { break };
        header.copy_from_slice(&packet::data_header(block as u16));
        let (body, more) = more.split_at_mut(more.len().min(step as usize));
        if !body.is_empty() {
            bodies.push(IoSliceMut::new(body));
        }
        rest = more;
    }
    Ok(bodies.is_empty() || fill(offset, &mut bodies)?)
}

#[cfg(test)]
#[path = "transfer_tests.rs"]
mod tests;
