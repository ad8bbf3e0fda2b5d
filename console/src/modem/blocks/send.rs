//! Sends blocks. What comes is one byte at a time, and nothing guards it: only what is awaited is taken.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::{ACK, CAN, CRC, EOT, FILLING, Guard, LARGE, NAK, SMALL, block};
use crate::modem::info::announce;
use crate::modem::{CANCEL, Engine, Failure, Heard, Next, Outgoing, Protocol};

/// So long the other side may take to begin.
const BEGIN: Duration = Duration::from_secs(60);
/// A `C` that is followed by something within so long is a letter of a shell's answer.
const ALONE: Duration = Duration::from_millis(150);
/// A block that is not answered is sent again; a receiver asks for it by itself after ten seconds.
const ANSWER: Duration = Duration::from_secs(20);
/// The end is answered at once. A receiver that heard it and ends may throw its own answer away (a pseudo-terminal
/// loses what was not read by then).
const END: Duration = Duration::from_secs(4);
/// It is sent so often, and the empty block that ends a batch half as often.
const ENDS: u32 = 6;
/// A receiver that still asks to begin so long after the first block has not got it.
const AGAIN: Duration = Duration::from_secs(1);
/// `rx` and `rb` answer, and then throw away what came meanwhile: what is sent at once may be lost with it, as far
/// as the way is shorter than that. Twice as long each time that something came to nothing, until it goes well.
const PAUSE: Duration = Duration::from_millis(1);
const PAUSE_MOST: Duration = Duration::from_millis(64);
/// So many blocks in a row.
const WELL: u32 = 32;
/// The same where it asks for a block again, or a file begins or ends.
const PAUSE_AGAIN: Duration = Duration::from_millis(100);
/// A block is sent so often.
const TRIES: u32 = 10;

/// Sends files by XMODEM or YMODEM.
#[derive(Debug)]
pub struct Sender {
    protocol: Protocol,
    files: Vec<Outgoing>,
    /// The one that is sent.
    file: usize,
    /// What of it is acknowledged, or being sent.
    at: u64,
    number: u8,
    guard: Guard,
    state: State,
    /// What was sent last, and is sent again if need be.
    last: Vec<u8>,
    /// When that is to be sent.
    due: Option<Instant>,
    pause: Duration,
    well: u32,
    /// The receiver ended: somebody else speaks. A shell takes an end of file (EOT, Control-D) for its own.
    shell: bool,
    sent: Instant,
    /// When it was asked what is next.
    now: Instant,
    tries: u32,
    cans: u32,
    heard: Heard,
    input: VecDeque<u8>,
    out: VecDeque<Next>,
    deadline: Option<Instant>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Waits to be asked for what is next. For the very first time a byte that asks has to stand alone.
    Asked {
        first: bool,
        by: Option<u8>,
    },
    /// A part of the file is being read.
    Reads {
        size: usize,
    },
    /// Waits for the answer to a block with so many bytes of the file.
    Answered {
        block: Block,
    },
    Ended,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Block {
    /// YMODEM's block 0.
    Head,
    Data(usize),
    End,
    /// An empty block 0: there is no other file.
    Nothing,
}

impl Sender {
    /// Waits for the other side to begin.
    pub fn new(protocol: Protocol, mut files: Vec<Outgoing>, now: Instant) -> Sender {
        if !protocol.names() {
            files.truncate(1);
        }
        Sender {
            protocol,
            files,
            file: 0,
            at: 0,
            number: 1,
            guard: Guard::Crc,
            state: State::Asked { first: true, by: None },
            last: Vec::new(),
            due: None,
            pause: PAUSE,
            well: 0,
            shell: false,
            sent: now,
            now,
            tries: 0,
            cans: 0,
            heard: Heard::default(),
            input: VecDeque::new(),
            out: VecDeque::new(),
            deadline: Some(now + BEGIN),
        }
    }

    fn size(&self) -> u64 {
        self.files.get(self.file).map_or(0, |file| file.size)
    }

    fn step(&mut self, byte: u8, now: Instant) {
        self.cans = if byte == CAN { self.cans + 1 } else { 0 };
        if self.cans == 2 {
            return self.end(Err(Failure::Cancelled { at: self.at }));
        }
        match self.state {
            State::Asked { first: true, by } => {
                self.heard.hear(byte);
                let asks = matches!(byte, CRC | NAK) && by.is_none_or(|by| by == byte);
                self.state = State::Asked { first: true, by: asks.then_some(byte) };
                if asks {
                    self.sent = now;
                }
            }
            State::Asked { first: false, .. } => match byte {
                CRC | NAK => self.begin(byte, now),
                _ => {}
            },
            // It answers what was sent before.
            State::Answered { .. } if self.due.is_some() => {}
            State::Answered { block } => match byte {
                ACK => {
                    // What else is there was said of this block, or before it; but it asks for the data of a
                    // file, or for another file, right behind.
                    if matches!(block, Block::Data(_)) {
                        self.input.clear();
                    }
                    self.acknowledged(block, now);
                }
                NAK => {
                    self.input.clear();
                    self.again(now, PAUSE_AGAIN);
                }
                // It did not get what it asked for. What it asked before that is on its way is not heard.
                CRC if self.begins(block) && now >= self.sent + AGAIN => {
                    if self.guard == Guard::Sum && matches!(block, Block::Data(_)) {
                        return self.begin(CRC, now);
                    }
                    self.again(now, PAUSE_AGAIN);
                }
                b' '..=b'~' | b'\r' | b'\n' if matches!(block, Block::End | Block::Nothing) => {
                    self.shell = true;
                    self.deadline = Some(now + AGAIN);
                }
                _ => {}
            },
            State::Reads { .. } | State::Ended => {}
        }
    }

    /// Whether a receiver that has not got this block would ask by `C`.
    fn begins(&self, block: Block) -> bool {
        match block {
            Block::Head | Block::Nothing => true,
            Block::Data(_) => self.at == 0,
            Block::End => false,
        }
    }

    /// Asked for what is next.
    fn begin(&mut self, by: u8, now: Instant) {
        self.guard = if by == CRC { Guard::Crc } else { Guard::Sum };
        if self.protocol == Protocol::Ymodem && self.number == 0 {
            match self.files.get(self.file) {
                Some(file) => {
                    let left = self.files.get(self.file..).unwrap_or_default();
                    let bytes = left.iter().map(|file| file.size).sum();
                    let says = announce(file, (left.len(), bytes));
                    let size = if says.len() <= SMALL { SMALL } else { LARGE };
                    self.send(Block::Head, block(0, &says, size, self.guard, 0), now);
                }
                None => self.send(Block::Nothing, block(0, &[], SMALL, self.guard, 0), now),
            }
        } else {
            self.read(now);
        }
    }

    fn read(&mut self, now: Instant) {
        let left = self.size().saturating_sub(self.at);
        if left == 0 {
            return self.send(Block::End, vec![EOT], now);
        }
        // Large ones as long as they are full: the filling stays short. A sum is too weak for them.
        let large = self.protocol != Protocol::Xmodem && self.guard == Guard::Crc;
        let size = if large && left >= LARGE as u64 { LARGE } else { SMALL };
        self.state = State::Reads { size };
        let most = usize::try_from(left).unwrap_or(size).min(size);
        self.out.push_back(Next::Read { file: self.file, at: self.at, most });
    }

    fn send(&mut self, block: Block, bytes: Vec<u8>, now: Instant) {
        self.shell = false;
        self.state = State::Answered { block };
        self.last = bytes;
        self.tries = 1;
        let often = matches!(block, Block::Data(_)) && self.at > 0;
        self.later(now + if often { self.pause } else { PAUSE_AGAIN });
    }

    fn later(&mut self, due: Instant) {
        self.due = Some(due);
        self.sent = due;
        let ends = matches!(self.state, State::Answered { block: Block::End | Block::Nothing });
        self.deadline = Some(due + if ends { END } else { ANSWER });
    }

    fn again(&mut self, now: Instant, pause: Duration) {
        match self.state {
            State::Answered { block: Block::End } if self.shell || self.tries >= ENDS => {
                return self.end(Err(Failure::Unconfirmed));
            }
            // Each file is there.
            State::Answered { block: Block::Nothing } if self.shell || self.tries >= ENDS / 2 => {
                return self.end(Ok(()));
            }
            _ if self.tries >= TRIES => {
                let what = format!("block {} (byte {})", self.number, self.at);
                return self.end(Err(Failure::Errors { what, tries: self.tries }));
            }
            _ => {}
        }
        self.tries += 1;
        (self.pause, self.well) = ((self.pause * 2).min(PAUSE_MOST), 0);
        self.later(now + pause);
    }

    fn acknowledged(&mut self, block: Block, now: Instant) {
        match block {
            Block::Head => {
                self.number = 1;
                self.asked(now);
            }
            Block::Data(many) => {
                self.at += many as u64;
                self.number = self.number.wrapping_add(1);
                self.well += 1;
                if self.well.is_multiple_of(WELL) {
                    self.pause = (self.pause / 2).max(PAUSE);
                }
                self.read(now);
            }
            Block::End => {
                self.out.push_back(Next::Sent { file: self.file });
                if self.protocol != Protocol::Ymodem {
                    return self.end(Ok(()));
                }
                self.file += 1;
                (self.at, self.number) = (0, 0);
                self.asked(now);
            }
            Block::Nothing => self.end(Ok(())),
        }
    }

    fn asked(&mut self, now: Instant) {
        self.state = State::Asked { first: false, by: None };
        self.sent = now;
        self.deadline = Some(now + BEGIN);
    }

    fn late(&mut self, now: Instant) {
        match self.state {
            State::Asked { first: false, .. } if self.file == self.files.len() => self.end(Ok(())),
            State::Asked { first, .. } => {
                let program = self.protocol.receiver();
                let why = match first && self.file == 0 {
                    true => Failure::Nobody { waited: BEGIN, program, heard: self.heard.last() },
                    false => Failure::Silent { waited: BEGIN, at: self.at },
                };
                self.end(Err(why));
            }
            State::Answered { .. } => self.again(now, PAUSE),
            State::Reads { .. } | State::Ended => {}
        }
    }

    fn end(&mut self, how: Result<(), Failure>) {
        if self.state == State::Ended {
            return;
        }
        self.state = State::Ended;
        self.out.retain(|next| !matches!(next, Next::Read { .. }));
        let told = matches!(how, Ok(()) | Err(Failure::Cancelled { .. } | Failure::Nobody { .. }));
        if !told && how != Err(Failure::Unconfirmed) {
            self.out.push_back(Next::Send(CANCEL.to_vec()));
        }
        self.out.push_back(Next::End(how));
        (self.due, self.deadline) = (None, None);
    }
}

impl Engine for Sender {
    fn came(&mut self, bytes: &[u8]) {
        self.input.extend(bytes);
    }

    fn next(&mut self, now: Instant) -> Next {
        self.now = now;
        loop {
            if let Some(next) = self.out.pop_front() {
                return next;
            }
            if let Some(byte) = self.input.pop_front() {
                self.step(byte, now);
                continue;
            }
            if let State::Asked { first: true, by: Some(by) } = self.state {
                if now < self.sent + ALONE {
                    return Next::Wait(self.sent + ALONE);
                }
                self.number = u8::from(self.protocol != Protocol::Ymodem);
                self.begin(by, now);
                continue;
            }
            if let Some(due) = self.due {
                if now < due {
                    return Next::Wait(due);
                }
                self.due = None;
                return Next::Send(self.last.clone());
            }
            let Some(deadline) = self.deadline else { return Next::Wait(now + ANSWER) };
            if now < deadline {
                return Next::Wait(deadline);
            }
            self.late(now);
        }
    }

    fn data(&mut self, bytes: &[u8]) {
        let State::Reads { size } = self.state else { return };
        if bytes.is_empty() || bytes.len() > size {
            let says = "the file became shorter while it was sent".to_string();
            return self.end(Err(Failure::Here(says)));
        }
        let whole = block(self.number, bytes, size, self.guard, FILLING);
        self.send(Block::Data(bytes.len()), whole, self.now);
    }

    fn stop(&mut self, why: Failure) {
        self.end(Err(why));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shell_gets_no_end_of_file() {
        let mut now = Instant::now();
        let file = Outgoing { name: "empty".to_string(), size: 0, modified: 0 };
        let mut sender = Sender::new(Protocol::Xmodem, vec![file], now);
        sender.came(b"C");
        let mut said = Vec::new();
        let end = loop {
            match sender.next(now) {
                Next::Wait(until) => now = until,
                Next::Send(bytes) => {
                    said.extend(bytes);
                    // The receiver's answer was lost as it ended.
                    sender.came(b"\r\nTransfer complete\r\n# ");
                }
                Next::End(how) => break how,
                other => panic!("{other:?}"),
            }
        };
        assert_eq!((end, &said[..]), (Err(Failure::Unconfirmed), &[EOT][..]));
    }
}
