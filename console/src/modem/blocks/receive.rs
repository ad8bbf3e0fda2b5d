//! Receives blocks. A damaged one is asked for again when the line is quiet; one that came before is only
//! answered again; any other is out of step, and the end.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::{ACK, CAN, CRC, EOT, Guard, LARGE, NAK, SMALL, SOH, STX, open};
use crate::modem::{Announced, Answer, CANCEL, Engine, Failure, Heard, Next, Protocol};

/// Before it asks for the first time: a command that was just typed has begun by then.
const LISTEN: Duration = Duration::from_secs(1);
/// It asks the other side to begin so often.
const INVITE: Duration = Duration::from_secs(3);
/// So many times.
const INVITES: u32 = 20;
/// XMODEM senders that know no CRC do not answer to these first ones.
const INVITES_CRC: u32 = 4;
/// The next block may take so long.
const START: Duration = Duration::from_secs(10);
/// The next byte of it.
const BYTE: Duration = Duration::from_secs(1);
/// The line is quiet when nothing came for so long.
const QUIET: Duration = Duration::from_millis(400);
/// A block is asked for so often.
const TRIES: u32 = 12;

/// Receives files by XMODEM or YMODEM.
#[derive(Debug)]
pub struct Receiver {
    protocol: Protocol,
    guard: Guard,
    state: State,
    /// Of the last block that came.
    last: u8,
    /// Whether block 0 is awaited.
    head: bool,
    /// Whether a block of this file came: until then it is asked for by `C` or NAK, and then by NAK.
    begun: bool,
    /// How many files came before this one.
    files: u32,
    file: Option<Announced>,
    /// So often in a row it was said that the file ends.
    ends: u32,
    at: u64,
    tries: u32,
    cans: u32,
    heard: Heard,
    input: VecDeque<u8>,
    out: VecDeque<Next>,
    deadline: Instant,
}

#[derive(Debug, PartialEq, Eq)]
enum State {
    /// Between blocks.
    Start,
    /// Behind SOH or STX.
    Within {
        rest: Vec<u8>,
        whole: usize,
    },
    /// Waits for quiet, to ask for a block again.
    Noise,
    /// An end of file, or what damage made one: it is so when nothing follows, twice.
    Eot,
    /// It was asked what is to become of a file.
    Offered,
    Ended,
}

impl Receiver {
    /// Begins to ask the other side to begin.
    pub fn new(protocol: Protocol, now: Instant) -> Receiver {
        let head = protocol == Protocol::Ymodem;
        let mut receiver = Receiver {
            protocol,
            guard: Guard::Crc,
            state: State::Start,
            last: 0,
            head,
            begun: false,
            files: 0,
            file: None,
            ends: 0,
            at: 0,
            tries: 0,
            cans: 0,
            heard: Heard::default(),
            input: VecDeque::new(),
            out: VecDeque::new(),
            deadline: now + LISTEN,
        };
        if !head {
            receiver.state = State::Offered;
            receiver.out.push_back(Next::Offer(Announced::default()));
        }
        receiver
    }

    fn step(&mut self, byte: u8, now: Instant) {
        match &mut self.state {
            State::Start | State::Eot => {
                self.cans = if byte == CAN { self.cans + 1 } else { 0 };
                if self.cans == 2 {
                    return self.end(Err(Failure::Cancelled { at: self.at }));
                }
                if self.untouched() {
                    self.heard.hear(byte);
                }
                let size = match byte {
                    SOH => SMALL,
                    STX => LARGE,
                    EOT if !self.head || self.files > 0 => {
                        self.state = State::Eot;
                        self.deadline = now + QUIET;
                        return;
                    }
                    CAN => {
                        self.deadline = now + BYTE;
                        return;
                    }
                    // What a shell says before it begins is not damage.
                    _ if self.untouched() => return,
                    _ => return self.noise(now),
                };
                let whole = 2 + size + self.guard.len();
                self.state = State::Within { rest: Vec::with_capacity(whole), whole };
                self.deadline = now + BYTE;
            }
            State::Within { rest, whole } => {
                rest.push(byte);
                self.deadline = now + BYTE;
                if rest.len() == *whole {
                    let rest = std::mem::take(rest);
                    self.state = State::Start;
                    match open(&rest, self.guard) {
                        Some((number, data)) => self.block(number, data, now),
                        None => self.noise(now),
                    }
                }
            }
            State::Noise => {
                // A side that gives up says so in the midst of anything.
                self.cans = if byte == CAN { self.cans + 1 } else { 0 };
                if self.cans == 5 {
                    return self.end(Err(Failure::Cancelled { at: self.at }));
                }
                self.deadline = now + QUIET;
            }
            State::Offered | State::Ended => {}
        }
    }

    /// Nothing was understood yet, in all.
    fn untouched(&self) -> bool {
        !self.begun && self.file.is_none() && self.files == 0
    }

    fn noise(&mut self, now: Instant) {
        self.state = State::Noise;
        self.deadline = now + QUIET;
    }

    fn block(&mut self, number: u8, data: &[u8], now: Instant) {
        if self.head {
            return match number {
                0 => self.announced(data, now),
                // The last one of the file before.
                number if number == self.last && self.files > 0 => self.reply(ACK, now),
                _ => self.confused(number),
            };
        }
        let next = self.last.wrapping_add(1);
        if number == next {
            self.last = number;
            self.begun = true;
            self.store(data, now);
        } else if number == self.last && (self.begun || self.protocol == Protocol::Ymodem) {
            // It did not get the answer.
            self.reply(ACK, now);
            if !self.begun {
                self.out.push_back(Next::Send(vec![self.asks()]));
            }
        } else {
            self.confused(number);
        }
    }

    fn confused(&mut self, number: u8) {
        let says = match (self.protocol, self.begun, number) {
            (Protocol::Xmodem | Protocol::Xmodem1k, false, 0) => {
                "the other side sends by YMODEM: --protocol ymodem".to_string()
            }
            (Protocol::Ymodem, false, 1) if self.head => {
                "the other side sends by XMODEM: --protocol xmodem".to_string()
            }
            _ => format!(
                "out of step: block {number} came after block {}: begin anew, by ZMODEM if you can",
                self.last
            ),
        };
        self.end(Err(Failure::Confused(says)));
    }

    fn announced(&mut self, data: &[u8], now: Instant) {
        self.last = 0;
        match Announced::parse(data) {
            None => {
                self.out.push_back(Next::Send(vec![ACK]));
                self.end(Ok(()));
            }
            Some(file) => {
                self.file = Some(file.clone());
                self.state = State::Offered;
                self.out.push_back(Next::Offer(file));
                self.deadline = now + START;
            }
        }
    }

    fn store(&mut self, data: &[u8], now: Instant) {
        let size = self.file.as_ref().and_then(|file| file.size);
        let left = size.map_or(u64::MAX, |size| size.saturating_sub(self.at));
        let most = usize::try_from(left).unwrap_or(usize::MAX);
        let data = data.get(..most).unwrap_or(data);
        if data.is_empty() {
            let says = format!("the other side announced {} bytes and sends more", self.at);
            return self.end(Err(Failure::Confused(says)));
        }
        self.at += data.len() as u64;
        self.out.push_back(Next::Store(data.to_vec()));
        self.tries = 0;
        self.reply(ACK, now);
    }

    fn reply(&mut self, byte: u8, now: Instant) {
        self.out.push_back(Next::Send(vec![byte]));
        self.state = State::Start;
        self.deadline = now + START;
    }

    fn asks(&self) -> u8 {
        match self.guard {
            Guard::Crc => CRC,
            Guard::Sum => NAK,
        }
    }

    /// It was quiet for long enough.
    fn late(&mut self, now: Instant) {
        match self.state {
            State::Start | State::Within { .. } | State::Noise => {
                let invites = !self.begun;
                self.tries += 1;
                if invites && self.tries > INVITES {
                    let (waited, program) = (INVITE * INVITES, self.protocol.sender());
                    return self.end(Err(match self.untouched() {
                        true => Failure::Nobody { waited, program, heard: self.heard.last() },
                        false => Failure::Silent { waited, at: self.at },
                    }));
                }
                if !invites && self.tries > TRIES {
                    let tries = TRIES;
                    let started = matches!(self.state, State::Start);
                    return self.end(Err(match started {
                        true => Failure::Silent { waited: START * tries, at: self.at },
                        false => Failure::Errors { what: format!("byte {}", self.at), tries },
                    }));
                }
                // One that sends blocks of the other kind is asked for its own after a while.
                if self.protocol != Protocol::Ymodem && self.untouched() {
                    let sum = (self.tries - 1) / INVITES_CRC % 2 == 1;
                    self.guard = if sum { Guard::Sum } else { Guard::Crc };
                }
                let damaged = !matches!(self.state, State::Start) && !self.untouched();
                let byte = if invites && !damaged { self.asks() } else { NAK };
                self.reply(byte, now);
                if invites {
                    self.deadline = now + INVITE;
                }
            }
            State::Eot => self.eot(now),
            State::Offered | State::Ended => {}
        }
    }

    /// An end of file that nothing followed.
    fn eot(&mut self, now: Instant) {
        if self.head {
            // The answer to the one before was lost.
            self.reply(ACK, now);
            return self.out.push_back(Next::Send(vec![self.asks()]));
        }
        let size = self.file.as_ref().and_then(|file| file.size);
        let sure = match size {
            Some(size) => size == self.at,
            None => self.ends > 0,
        };
        if !sure {
            self.tries += 1;
            if self.tries > TRIES {
                let says = match size {
                    Some(size) => {
                        format!("the file ended after {} of its {size} bytes", self.at)
                    }
                    None => "its end came to nothing".to_string(),
                };
                return self.end(Err(Failure::Confused(says)));
            }
            self.ends += 1;
            return self.reply(NAK, now);
        }
        self.out.push_back(Next::Whole { size: self.at, padded: size.is_none() });
        self.out.push_back(Next::Send(vec![ACK]));
        if self.protocol != Protocol::Ymodem {
            return self.end(Ok(()));
        }
        self.next_file(now);
    }

    fn next_file(&mut self, now: Instant) {
        self.files += 1;
        (self.head, self.begun, self.file) = (true, false, None);
        (self.at, self.tries, self.ends) = (0, 0, 0);
        self.out.push_back(Next::Send(vec![self.asks()]));
        self.state = State::Start;
        self.deadline = now + START;
    }

    fn end(&mut self, how: Result<(), Failure>) {
        if self.state == State::Ended {
            return;
        }
        self.state = State::Ended;
        if !matches!(how, Ok(()) | Err(Failure::Cancelled { .. })) {
            self.out.push_back(Next::Send(CANCEL.to_vec()));
        }
        self.out.push_back(Next::End(how));
    }
}

impl Engine for Receiver {
    fn came(&mut self, bytes: &[u8]) {
        self.input.extend(bytes);
    }

    fn next(&mut self, now: Instant) -> Next {
        loop {
            if let Some(next) = self.out.pop_front() {
                return next;
            }
            if let Some(byte) = self.input.pop_front() {
                self.step(byte, now);
                continue;
            }
            if matches!(self.state, State::Offered | State::Ended) {
                return Next::Wait(now + START);
            }
            if now < self.deadline {
                return Next::Wait(self.deadline);
            }
            self.late(now);
        }
    }

    fn answer(&mut self, answer: Answer) {
        if self.state != State::Offered {
            return;
        }
        if answer == Answer::Skip {
            let says = format!("{} cannot leave out one file of several", self.protocol);
            return self.end(Err(Failure::Here(says)));
        }
        self.state = State::Start;
        self.out.push_back(Next::Begin { at: 0 });
        if self.head {
            (self.head, self.begun, self.at, self.tries) = (false, false, 0, 0);
            self.out.push_back(Next::Send(vec![ACK, self.asks()]));
        }
    }

    fn stop(&mut self, why: Failure) {
        self.end(Err(why));
    }
}
