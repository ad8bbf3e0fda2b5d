//! Sends by ZMODEM. It streams, and is never further ahead than a window of what the receiver acknowledged: what
//! lies in the buffers between is short, so that turning back and cancelling do not take minutes on a slow line.
//! And where `rz` is gone, a shell is there that takes what comes for commands: a file begins with little, and a
//! receiver that fell silent is asked for its position by an empty part.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::header::{CANFC32, CANFDX, CANOVIO, ESCCTL, End, Writer, ZCBIN};
use super::{Header, Item, Kind, Reader};
use crate::modem::crc::Crc32;
use crate::modem::info::announce;
use crate::modem::{CANCEL, Engine, Failure, Heard, Next, Options, Outgoing, Protocol};

/// `rz` says that it is there every ten seconds: a shell, or a firmware's menu, need not see what only `rz`
/// understands.
const LISTEN: Duration = Duration::from_secs(12);
/// So often it is asked whether somebody is there.
const ASK: Duration = Duration::from_secs(4);
/// For so long.
const BEGIN: Duration = Duration::from_secs(60);
/// An answer to a header.
const ANSWER: Duration = Duration::from_secs(5);
/// Something of what was sent is acknowledged within this, at 1,200 baud too; or, when it is known how long that
/// takes, within four times as long, and not much less than this.
const PROGRESS: Duration = Duration::from_secs(40);
const PROGRESS_LEAST: Duration = Duration::from_secs(8);
/// A receiver that says again that it is there so long after a file was offered has not heard of it.
const AGAIN: Duration = Duration::from_secs(1);
/// Something is sent again so often.
const TRIES: u32 = 12;
/// The end of the session.
const FINS: u32 = 3;
/// Bytes of a part: fewer on a line that loses many.
const PART: usize = 1024;
const PART_LEAST: usize = 128;
/// So many parts in a row are taken before they become larger again.
const BETTER: u32 = 32;
/// An answer is wanted for each so many bytes.
const REPORT: u64 = 4096;
/// So far ahead at first, and at most.
const WINDOW_FIRST: u64 = REPORT;
const WINDOW: u64 = 32 * 1024;

/// Sends files by ZMODEM.
#[derive(Debug)]
pub struct Sender {
    files: Vec<Outgoing>,
    file: usize,
    options: Options,
    reader: Reader,
    writer: Writer,
    state: State,
    /// Of the file: where the next part begins, and how much the receiver has for sure.
    at: u64,
    acked: u64,
    /// Within a frame of data.
    open: bool,
    /// Where an answer was asked for last.
    asked: u64,
    /// The receiver takes so much at once; 0: it streams.
    room: u64,
    window: u64,
    /// It was asked where it is, and nothing more is sent before the answer.
    probes: bool,
    /// When something was acknowledged last, and how long that takes.
    progress: (Instant, Duration),
    part: usize,
    good: u32,
    /// Where the receiver turned back to last.
    back: u64,
    tries: u32,
    begun: Instant,
    deadline: Instant,
    heard: Heard,
    input: VecDeque<u8>,
    out: VecDeque<Next>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Waits for a receiver.
    Waits,
    /// Told it to escape.
    Sinit,
    /// Offered a file.
    Offered {
        since: Instant,
    },
    /// Reads so much of its beginning for a CRC.
    Sums {
        at: u64,
        most: u64,
        crc: Crc32,
    },
    Data,
    /// All was sent; the part that ends a buffer's worth waits for its answer in `Data`.
    Eof,
    Fin,
    Ended,
}

impl Sender {
    /// Waits for a receiver.
    pub fn new(files: Vec<Outgoing>, options: Options, now: Instant) -> Sender {
        let mut sender = Sender {
            files,
            file: 0,
            options,
            reader: Reader::default(),
            writer: Writer::new(options.escape, false),
            state: State::Waits,
            at: 0,
            acked: 0,
            open: false,
            asked: 0,
            room: 0,
            window: WINDOW_FIRST,
            probes: false,
            progress: (now, PROGRESS),
            part: PART,
            good: 0,
            back: 0,
            tries: 0,
            begun: now,
            deadline: now + LISTEN,
            heard: Heard::default(),
            input: VecDeque::new(),
            out: VecDeque::new(),
        };
        let large = sender.files.iter().find(|file| u32::try_from(file.size).is_err());
        if let Some(name) = large.map(|file| file.name.clone()) {
            let says = format!("{name} is larger than 4 GiB, which is as far as ZMODEM counts");
            sender.state = State::Ended;
            sender.out.push_back(Next::End(Err(Failure::Here(says))));
        }
        sender
    }

    fn size(&self) -> u64 {
        self.files.get(self.file).map_or(0, |file| file.size)
    }

    /// Never further than 4 GiB.
    fn position(at: u64) -> u32 {
        u32::try_from(at).unwrap_or(u32::MAX)
    }

    fn take(&mut self, item: Item, now: Instant) {
        let header = match item {
            Item::Header(header) => header,
            Item::Cancel => return self.end(Err(Failure::Cancelled { at: self.acked })),
            // The receiver says it again.
            Item::Bad | Item::Data(..) => return,
        };
        match (header.kind, self.state) {
            (Kind::Can | Kind::Abort, _) => self.end(Err(Failure::Cancelled { at: self.acked })),
            (Kind::Ferr, _) => {
                let says = "the other side cannot write the file: is its disk full?".to_string();
                self.end(Err(Failure::Confused(says)));
            }
            (Kind::Challenge, _) => {
                let echo = Header { kind: Kind::Ack, ..header };
                self.out.push_back(Next::Send(echo.hex()));
            }
            (Kind::Rinit, State::Waits) => self.receiver(header, now),
            (Kind::Rinit, State::Offered { since }) if now < since + AGAIN => {}
            (Kind::Rinit | Kind::Nak, State::Offered { .. }) => self.again(now),
            (Kind::Nak, State::Sinit | State::Eof | State::Fin) => self.again(now),
            (Kind::Ack, State::Sinit) => self.offer(now),
            (Kind::Rpos, State::Offered { .. } | State::Data | State::Eof) => {
                self.turn(header.position(), now);
            }
            (Kind::Crc, State::Offered { .. }) => {
                let size = self.size();
                let most = match u64::from(header.position()) {
                    0 => size,
                    most => most.min(size),
                };
                self.state = State::Sums { at: 0, most, crc: Crc32::new() };
            }
            (Kind::Skip | Kind::Compl, State::Offered { .. } | State::Data | State::Eof) => {
                self.out.push_back(Next::Skipped { file: self.file });
                self.file += 1;
                self.offer(now);
            }
            (Kind::Ack, State::Data | State::Eof) => {
                let acked = u64::from(header.position());
                if acked > self.acked && acked <= self.at {
                    self.acked = acked;
                    self.tries = 0;
                    self.window = (self.window * 2).min(WINDOW);
                    let took = now.saturating_duration_since(self.progress.0);
                    self.progress = (now, (took * 4).clamp(PROGRESS_LEAST, PROGRESS));
                    self.deadline = now + self.progress.1;
                }
                if self.probes && acked >= self.acked {
                    // It has nothing of what was sent since.
                    (self.at, self.asked, self.open, self.probes) =
                        (self.acked, self.acked, false, false);
                    self.deadline = now + self.progress.1;
                    self.finish(now);
                }
            }
            (Kind::Rinit, State::Eof) => {
                self.out.push_back(Next::Sent { file: self.file });
                self.file += 1;
                self.offer(now);
            }
            (Kind::Fin, State::Fin) => {
                self.out.push_back(Next::Send(b"OO".to_vec()));
                self.end(Ok(()));
            }
            (Kind::Fin, _) => {
                let says = "the other side ended before it had all files".to_string();
                self.end(Err(Failure::Confused(says)));
            }
            _ => {}
        }
    }

    /// A receiver is there, and says what it can.
    fn receiver(&mut self, header: Header, now: Instant) {
        let can = header.zf0();
        let [low, high, ..] = header.value;
        self.room = u64::from(u16::from_le_bytes([low, high]));
        if self.room == 0 && can & (CANFDX | CANOVIO) != CANFDX | CANOVIO {
            self.room = PART as u64;
        }
        self.writer.long = can & CANFC32 != 0;
        self.writer.control |= can & ESCCTL != 0;
        if self.options.escape && can & ESCCTL == 0 {
            self.state = State::Sinit;
            self.tries = 0;
            return self.again(now);
        }
        self.offer(now);
    }

    /// Offers the next file, or ends.
    fn offer(&mut self, now: Instant) {
        (self.at, self.acked, self.open, self.back) = (0, 0, false, 0);
        self.tries = 0;
        self.state = match self.file < self.files.len() {
            true => State::Offered { since: now },
            false => State::Fin,
        };
        self.again(now);
    }

    /// Says what is not answered.
    fn again(&mut self, now: Instant) {
        self.tries += 1;
        // Each file is there.
        if self.state == State::Fin && self.tries > FINS {
            return self.end(Ok(()));
        }
        if self.tries > TRIES {
            let waited = ANSWER * TRIES;
            return self.end(Err(Failure::Silent { waited, at: self.acked }));
        }
        self.deadline = now + ANSWER;
        let bytes = match self.state {
            State::Sinit => {
                let mut bytes = self.writer.header(Header::flags(Kind::Sinit, ESCCTL));
                self.writer.data(&[0], End::W, &mut bytes);
                bytes
            }
            State::Offered { .. } => {
                self.state = State::Offered { since: now };
                let mut bytes = self.writer.header(Header::flags(Kind::File, ZCBIN));
                let left = self.files.get(self.file..).unwrap_or_default();
                let Some(file) = left.first() else { return };
                let sum = left.iter().map(|file| file.size).sum();
                self.writer.data(&announce(file, (left.len(), sum)), End::W, &mut bytes);
                bytes
            }
            State::Eof => self.writer.header(Header::at(Kind::Eof, Sender::position(self.size()))),
            State::Fin => Header::at(Kind::Fin, 0).hex(),
            State::Waits | State::Sums { .. } | State::Data | State::Ended => return,
        };
        self.out.push_back(Next::Send(bytes));
    }

    /// From there on, once more.
    fn turn(&mut self, to: u32, now: Instant) {
        let to = u64::from(to);
        if to > self.size() {
            let says = format!("the other side wants byte {to} of {}", self.size());
            return self.end(Err(Failure::Confused(says)));
        }
        if matches!(self.state, State::Offered { .. }) {
            self.tries = 0;
        } else {
            if to <= self.back {
                self.tries += 1;
            } else {
                self.tries = 0;
            }
            self.part = (self.part / 2).max(PART_LEAST);
            self.good = 0;
        }
        if self.tries > TRIES {
            let what = format!("byte {to}");
            return self.end(Err(Failure::Errors { what, tries: self.tries }));
        }
        (self.at, self.acked, self.asked, self.back) = (to, to, to, to);
        (self.open, self.probes) = (false, false);
        self.window = WINDOW_FIRST;
        self.state = State::Data;
        self.progress = (now, PROGRESS);
        self.deadline = now + PROGRESS;
        self.finish(now);
    }

    /// If all was sent, says so.
    fn finish(&mut self, now: Instant) {
        if self.at == self.size() {
            self.state = State::Eof;
            self.again(now);
        }
    }

    fn late(&mut self, now: Instant) {
        match self.state {
            State::Waits if now >= self.begun + BEGIN => {
                let (waited, program) = (BEGIN, Protocol::Zmodem.receiver());
                let heard = self.heard.last();
                self.end(Err(Failure::Nobody { waited, program, heard }));
            }
            State::Waits => {
                self.deadline = now + ASK;
                self.out.push_back(Next::Send(Header::at(Kind::Rqinit, 0).hex()));
            }
            State::Data => {
                self.tries += 1;
                if self.tries > TRIES / 2 {
                    let waited = now.saturating_duration_since(self.progress.0);
                    return self.end(Err(Failure::Silent { waited, at: self.acked }));
                }
                self.probes = true;
                self.deadline = now + ANSWER;
                let header = Header::at(Kind::Data, Sender::position(self.acked));
                let mut bytes = self.writer.header(header);
                self.writer.data(&[], End::W, &mut bytes);
                self.out.push_back(Next::Send(bytes));
            }
            _ => self.again(now),
        }
    }

    /// What is sent next, if there is room.
    fn more(&self) -> Option<Next> {
        let file = self.file;
        match self.state {
            State::Sums { at, most, .. } => {
                let most = usize::try_from(most - at).unwrap_or(PART).min(16 * PART);
                Some(Next::Read { file, at, most })
            }
            State::Data if self.probes => None,
            State::Data => {
                let window = if self.room == 0 { self.window } else { self.room };
                let room = window.saturating_sub(self.at - self.acked);
                let left = room.min(self.size() - self.at);
                let most = usize::try_from(left).unwrap_or(PART).min(self.part);
                (most > 0).then_some(Next::Read { file, at: self.at, most })
            }
            _ => None,
        }
    }

    fn end(&mut self, how: Result<(), Failure>) {
        if self.state == State::Ended {
            return;
        }
        self.state = State::Ended;
        if !matches!(how, Ok(()) | Err(Failure::Cancelled { .. } | Failure::Nobody { .. })) {
            self.out.clear();
            self.out.push_back(Next::Send(CANCEL.to_vec()));
        }
        self.out.push_back(Next::End(how));
    }
}

impl Engine for Sender {
    fn came(&mut self, bytes: &[u8]) {
        self.input.extend(bytes);
    }

    fn next(&mut self, now: Instant) -> Next {
        loop {
            if let Some(next) = self.out.pop_front() {
                return next;
            }
            if let State::Sums { at, most, crc } = self.state
                && at == most
            {
                let answer = Header::at(Kind::Crc, crc.value());
                self.out.push_back(Next::Send(answer.hex()));
                self.state = State::Offered { since: now };
                self.deadline = now + ANSWER;
                continue;
            }
            if let State::Sums { .. } = self.state
                && let Some(next) = self.more()
            {
                return next;
            }
            if let Some(byte) = self.input.pop_front() {
                if self.state == State::Waits {
                    self.heard.hear(byte);
                }
                if self.state != State::Ended
                    && let Some(item) = self.reader.step(byte)
                {
                    self.take(item, now);
                }
                continue;
            }
            if self.state == State::Ended {
                return Next::Wait(now + ANSWER);
            }
            if now >= self.deadline {
                self.late(now);
                continue;
            }
            return self.more().unwrap_or(Next::Wait(self.deadline));
        }
    }

    fn data(&mut self, bytes: &[u8]) {
        if bytes.is_empty() && matches!(self.state, State::Sums { .. } | State::Data) {
            let says = "the file became shorter while it was sent".to_string();
            return self.end(Err(Failure::Here(says)));
        }
        match &mut self.state {
            State::Sums { at, most, crc } => {
                *crc = crc.and(bytes);
                *at = (*at + bytes.len() as u64).min(*most);
            }
            State::Data => {
                let mut out = Vec::new();
                if !self.open {
                    let header = Header::at(Kind::Data, Sender::position(self.at));
                    out = self.writer.header(header);
                }
                self.at += bytes.len() as u64;
                self.good += 1;
                if self.good == BETTER {
                    self.good = 0;
                    self.part = (self.part * 2).min(PART);
                }
                let full = self.room > 0 && self.at - self.acked >= self.room;
                let end = match self.at >= self.size() {
                    true => End::E,
                    false if full => End::W,
                    false if self.at - self.asked >= REPORT => End::Q,
                    false => End::G,
                };
                if end == End::Q {
                    self.asked = self.at;
                }
                self.open = matches!(end, End::G | End::Q);
                self.writer.data(bytes, end, &mut out);
                if end == End::E {
                    let eof = Header::at(Kind::Eof, Sender::position(self.at));
                    out.extend(self.writer.header(eof));
                    self.state = State::Eof;
                }
                self.out.push_back(Next::Send(out));
            }
            _ => {}
        }
    }

    fn stop(&mut self, why: Failure) {
        self.end(Err(why));
    }
}
