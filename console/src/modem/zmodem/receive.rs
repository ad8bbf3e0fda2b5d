//! Receives by ZMODEM. What is damaged is asked for again from where it broke off, in the same session or, where a
//! part of the file is there from a transfer that broke, in the next.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::header::{CANFC32, CANFDX, CANOVIO, ESCCTL, End};
use super::{Header, Item, Kind, Reader};
use crate::modem::{Announced, Answer, CANCEL, Engine, Failure, Heard, Next, Options, Protocol};

/// A sender asks whether it is there, every ten seconds; until then nothing is said, which a shell would hear.
const BEGIN: Duration = Duration::from_secs(60);
/// A sender that said nothing for so long has not heard what it was told.
const SILENCE: Duration = Duration::from_secs(4);
/// In the midst of data it may only be slow.
const PAUSE: Duration = Duration::from_secs(8);
/// Nothing that can be used came for so long, however much came. In a part of data that is the line's own speed.
const NOISE: Duration = Duration::from_secs(20);
const SLOW: Duration = Duration::from_secs(60);
/// It is told again so often.
const TRIES: u32 = 12;
/// The last word is waited for.
const FAREWELL: Duration = Duration::from_secs(1);

/// Receives files by ZMODEM.
#[derive(Debug)]
pub struct Receiver {
    options: Options,
    reader: Reader,
    state: State,
    at: u32,
    /// What is there of the file that is offered, and its CRC-32.
    there: (u32, u32),
    /// What was said last, and is said again.
    last: Vec<u8>,
    /// Whether a sender was heard.
    met: bool,
    tries: u32,
    /// When something came, and when something of use.
    came: Option<Instant>,
    used: Instant,
    /// When it was asked what is next.
    now: Instant,
    deadline: Instant,
    heard: Heard,
    input: VecDeque<u8>,
    out: VecDeque<Next>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Between files. `data` of this kind follows a header.
    Ready {
        data: Option<Kind>,
    },
    Offered,
    /// Asked whether the other side has the same as is there.
    Sums,
    /// In a file. `Some`: its data comes. None: it was asked for from where it is wanted.
    Data {
        flows: bool,
    },
    /// The other side ends.
    Fin,
    Ended,
}

impl Receiver {
    /// Says that it is there.
    pub fn new(options: Options, now: Instant) -> Receiver {
        Receiver {
            options,
            reader: Reader::default(),
            state: State::Ready { data: None },
            at: 0,
            there: (0, 0),
            last: Vec::new(),
            met: false,
            tries: 0,
            came: None,
            used: now,
            now,
            deadline: now + BEGIN,
            heard: Heard::default(),
            input: VecDeque::new(),
            out: VecDeque::new(),
        }
    }

    fn say(&mut self, bytes: Vec<u8>, now: Instant) {
        self.last.clone_from(&bytes);
        self.out.push_back(Next::Send(bytes));
        self.deadline = now + SILENCE;
    }

    fn ready(&mut self, now: Instant) {
        self.state = State::Ready { data: None };
        let escape = if self.options.escape { ESCCTL } else { 0 };
        self.say(Header::flags(Kind::Rinit, CANFDX | CANOVIO | CANFC32 | escape).hex(), now);
    }

    /// From here on, please.
    fn position(&mut self, now: Instant) {
        self.state = State::Data { flows: false };
        self.reader.skip();
        self.say(Header::at(Kind::Rpos, self.at).hex(), now);
    }

    fn take(&mut self, item: Item, now: Instant) {
        match item {
            Item::Cancel => self.end(Err(Failure::Cancelled { at: u64::from(self.at) })),
            Item::Bad => match self.state {
                State::Data { flows: true } => self.damaged(now),
                // ZFILE's own data: it is offered again.
                State::Ready { data: Some(_) } => {
                    self.state = State::Ready { data: None };
                    self.say(Header::at(Kind::Nak, 0).hex(), now);
                }
                _ => {}
            },
            Item::Header(header) => self.header(header, now),
            Item::Data(data, end) => self.data(data, end, now),
        }
    }

    /// What comes is damaged: it is asked for again, not for ever.
    fn damaged(&mut self, now: Instant) {
        self.tries += 1;
        if self.tries > TRIES {
            let (what, tries) = (format!("byte {}", self.at), self.tries);
            return self.end(Err(Failure::Errors { what, tries }));
        }
        self.position(now);
    }

    fn header(&mut self, header: Header, now: Instant) {
        self.met = true;
        self.used = now;
        let within = matches!(self.state, State::Data { .. });
        match (header.kind, self.state) {
            (_, State::Offered | State::Ended) => {}
            (Kind::Rqinit, State::Ready { .. }) => self.ready(now),
            (Kind::Sinit | Kind::File | Kind::Stderr, State::Ready { .. }) => {
                self.state = State::Ready { data: Some(header.kind) };
                self.deadline = now + SILENCE;
            }
            // It did not hear the answer. Its data is not looked at.
            (Kind::File, State::Data { flows: false } | State::Sums) => {
                self.reader.skip();
                self.out.push_back(Next::Send(self.last.clone()));
            }
            (Kind::Crc, State::Sums) => {
                let (there, crc) = self.there;
                self.at = if header.position() == crc { there } else { 0 };
                self.out.push_back(Next::Begin { at: u64::from(self.at) });
                self.tries = 0;
                self.position(now);
            }
            (Kind::Data, State::Data { .. }) => {
                if header.position() == self.at {
                    self.state = State::Data { flows: true };
                    self.deadline = now + PAUSE;
                } else if self.state == (State::Data { flows: true }) {
                    self.damaged(now);
                } else {
                    // Said before it heard from where on it is wanted.
                    self.reader.skip();
                }
            }
            (Kind::Eof, State::Data { .. }) if header.position() == self.at => {
                self.out.push_back(Next::Whole { size: u64::from(self.at), padded: false });
                self.tries = 0;
                self.ready(now);
            }
            // Something before it was lost.
            (Kind::Eof, State::Data { flows: true }) => self.damaged(now),
            // It did not hear the answer.
            (Kind::Eof, State::Ready { .. }) => self.out.push_back(Next::Send(self.last.clone())),
            (Kind::Sinit | Kind::File | Kind::Stderr, State::Data { flows: true }) => {
                self.damaged(now);
            }
            (Kind::Nak, State::Data { flows: true }) => {}
            (Kind::Nak, _) => self.out.push_back(Next::Send(self.last.clone())),
            (Kind::Freecnt, _) => {
                self.out.push_back(Next::Send(Header::at(Kind::Ack, u32::MAX).hex()));
            }
            (Kind::Challenge, _) => {
                self.out.push_back(Next::Send(Header { kind: Kind::Ack, ..header }.hex()));
            }
            (Kind::Fin, State::Ready { .. } | State::Fin) => {
                self.state = State::Fin;
                self.say(Header::at(Kind::Fin, 0).hex(), now);
                self.deadline = now + FAREWELL;
            }
            (Kind::Fin, _) => {
                let says =
                    format!("the other side ended in the midst of a file, at byte {}", self.at);
                self.end(Err(Failure::Confused(says)));
            }
            (Kind::Can | Kind::Abort | Kind::Ferr, _) => {
                self.end(Err(Failure::Cancelled { at: u64::from(self.at) }));
            }
            (Kind::Command, _) => {
                let says = "the other side asked for a command to be run here, which is never done";
                self.end(Err(Failure::Confused(says.to_string())));
            }
            _ if !within => self.reader.skip(),
            _ => {}
        }
    }

    fn data(&mut self, data: Vec<u8>, end: End, now: Instant) {
        match self.state {
            State::Data { flows: true } => self.store(data, end, now),
            State::Ready { data: Some(Kind::File) } => match Announced::parse(&data) {
                Some(file) => {
                    self.state = State::Offered;
                    self.out.push_back(Next::Offer(file));
                }
                None => self.end(Err(Failure::Confused("a file without a name".to_string()))),
            },
            // The sequence that would interrupt a sender is not needed: it hears ZRPOS.
            State::Ready { data: Some(Kind::Sinit) } => {
                self.state = State::Ready { data: None };
                self.say(Header::at(Kind::Ack, 1).hex(), now);
            }
            State::Ready { .. } => self.state = State::Ready { data: None },
            State::Data { flows: false }
            | State::Offered
            | State::Sums
            | State::Fin
            | State::Ended => {}
        }
    }

    fn store(&mut self, data: Vec<u8>, end: End, now: Instant) {
        let many = u32::try_from(data.len()).unwrap_or(u32::MAX);
        let Some(at) = self.at.checked_add(many) else {
            let says = "the file is larger than 4 GiB, which is as far as ZMODEM counts";
            return self.end(Err(Failure::Confused(says.to_string())));
        };
        self.at = at;
        self.used = now;
        self.deadline = now + PAUSE;
        if many > 0 {
            self.tries = 0;
            self.out.push_back(Next::Store(data));
        }
        match end {
            End::Q | End::W => {
                self.out.push_back(Next::Send(Header::at(Kind::Ack, self.at).hex()));
            }
            End::G | End::E => {}
        }
    }

    fn late(&mut self, now: Instant) {
        if self.state == State::Fin {
            return self.end(Ok(()));
        }
        if !self.met {
            let (waited, program) = (BEGIN, Protocol::Zmodem.sender());
            return self.end(Err(Failure::Nobody { waited, program, heard: self.heard.last() }));
        }
        // Much came, of which nothing was of use; or it is only slow.
        let quiet = self.came.is_none_or(|came| now >= came + SILENCE);
        let noise = if self.state == (State::Data { flows: true }) { SLOW } else { NOISE };
        if !quiet && now < self.used + noise {
            let came = self.came.unwrap_or(now);
            self.deadline = (came + SILENCE).min(self.used + noise);
            return;
        }
        self.used = now;
        self.tries += 1;
        if self.tries > TRIES {
            let waited = SILENCE * TRIES;
            return self.end(Err(Failure::Silent { waited, at: u64::from(self.at) }));
        }
        match self.state {
            State::Ready { .. } => self.ready(now),
            State::Data { .. } => self.position(now),
            // A sender that knows no ZCRC: it begins at the beginning.
            State::Sums if self.tries > 2 => {
                self.at = 0;
                self.out.push_back(Next::Begin { at: 0 });
                self.position(now);
            }
            _ => {
                let last = self.last.clone();
                self.say(last, now);
            }
        }
    }

    fn end(&mut self, how: Result<(), Failure>) {
        if self.state == State::Ended {
            return;
        }
        self.state = State::Ended;
        if !matches!(how, Ok(()) | Err(Failure::Cancelled { .. } | Failure::Nobody { .. })) {
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
        self.now = now;
        loop {
            if let Some(next) = self.out.pop_front() {
                return next;
            }
            if let Some(byte) = self.input.pop_front() {
                self.came = Some(now);
                if !self.met {
                    self.heard.hear(byte);
                }
                if self.state != State::Ended
                    && let Some(item) = self.reader.step(byte)
                {
                    self.take(item, now);
                }
                if self.state == State::Fin && byte == b'O' {
                    self.end(Ok(()));
                }
                continue;
            }
            if matches!(self.state, State::Ended | State::Offered) {
                return Next::Wait(now + SILENCE);
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
        self.tries = 0;
        let header = match answer {
            Answer::Skip => {
                self.state = State::Ready { data: None };
                Header::at(Kind::Skip, 0)
            }
            Answer::Take { at, crc } => match u32::try_from(at).ok().filter(|at| *at > 0) {
                Some(at) => {
                    self.there = (at, crc);
                    self.state = State::Sums;
                    Header::at(Kind::Crc, at)
                }
                None => {
                    self.at = 0;
                    self.state = State::Data { flows: false };
                    self.out.push_back(Next::Begin { at: 0 });
                    Header::at(Kind::Rpos, 0)
                }
            },
        };
        self.say(header.hex(), self.now);
    }

    fn stop(&mut self, why: Failure) {
        self.end(Err(why));
    }
}
