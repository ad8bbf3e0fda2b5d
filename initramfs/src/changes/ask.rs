//! The appliance's half: asks for a stream window by window, puts it in order, and asks again for what did not come
//! or came damaged. It is handed bytes and the time; it hands back what is to be sent, what it learnt, and when
//! to look again.

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

use super::frame::{About, Frame, Lines, Request};
use super::{Header, PROTOCOL};

/// After so long without a word, what is missing is asked for again.
const AGAIN: Duration = Duration::from_secs(3);
/// And so often, before it is given up.
const TRIES: u32 = 8;
/// A line of picks is no longer than this many ranges: it may be typed on a line whose speed is low.
const RANGES: usize = 100;
/// Gaps that are asked for at once.
const GAPS: usize = 8;
/// Frames asked for ahead, where nothing is known of the line.
const WINDOW: u32 = 64;
/// At the most.
const WINDOW_MAX: u32 = 256;
/// What is asked for ahead is on the line for so many seconds at the most: then a line that is given up is quiet.
const AHEAD: u32 = 2;

/// What it wants.
#[derive(Debug, PartialEq, Eq)]
pub enum Next {
    /// This is to be sent.
    Send(Vec<u8>),
    /// Something came of it.
    Came(Event),
    /// Nothing until then, or until something comes.
    Wait(Instant),
    /// Nothing at all: it was asked nothing.
    Idle,
}

/// What came of it.
#[derive(Debug, PartialEq, Eq)]
pub enum Event {
    /// Who answers.
    Hello(Header),
    /// A line that is none of ours, before there was one of ours.
    Said(Vec<u8>),
    /// All picks have arrived.
    Picked,
    /// Bytes of the stream, in order.
    Bytes(Vec<u8>),
    /// The stream is whole.
    Whole,
    /// It came to nothing.
    Failed(String),
}

#[derive(Debug)]
enum Task {
    Idle,
    Hello,
    Pick { round: u32, lines: VecDeque<(u32, Vec<(u32, u32)>)> },
    Get(Get),
}

#[derive(Debug)]
struct Get {
    about: About,
    /// The first that is missing.
    next: u32,
    /// The first that was not asked for.
    asked: u32,
    /// Those before it were either seen or asked for again.
    seen: u32,
    /// Number of the last one, once it is known.
    last: Option<u32>,
    early: BTreeMap<u32, Vec<u8>>,
}

/// See the module.
#[derive(Debug)]
pub struct Ask {
    lines: Lines,
    task: Task,
    window: u32,
    sends: VecDeque<Vec<u8>>,
    events: VecDeque<Event>,
    again: Instant,
    tries: u32,
    /// Lines of ours that came damaged or not at all.
    pub repeated: u64,
}

impl Ask {
    /// Somebody is about to say who he is.
    pub fn new(now: Instant) -> Ask {
        Ask {
            lines: Lines::default(),
            task: Task::Hello,
            window: WINDOW,
            sends: VecDeque::new(),
            events: VecDeque::new(),
            again: now + AGAIN,
            tries: 0,
            repeated: 0,
        }
    }

    /// A frame is a line of so many bytes on a line of so many bits a second (0: no serial line).
    pub fn pace(&mut self, line: u32, speed: u32) {
        let second = speed / 10 / line.max(1);
        let window = if speed == 0 { WINDOW_MAX } else { second.saturating_mul(AHEAD) };
        self.window = window.clamp(4, WINDOW_MAX);
    }

    /// Asks for a stream, from its beginning.
    pub fn get(&mut self, about: About, now: Instant) {
        let early = BTreeMap::new();
        self.begin(Task::Get(Get { about, next: 0, asked: 0, seen: 0, last: None, early }), now);
    }

    /// Says which entries are wanted in this round, by their numbers in ascending order.
    pub fn pick(&mut self, round: u32, picks: &[u32], now: Instant) {
        let mut ranges: Vec<(u32, u32)> = Vec::new();
        for pick in picks {
            match ranges.last_mut() {
                Some((_, to)) if to.checked_add(1) == Some(*pick) => *to = *pick,
                _ => ranges.push((*pick, *pick)),
            }
        }
        // None at all is a line as well.
        let mut lines: VecDeque<_> = (0..).zip(ranges.chunks(RANGES).map(<[_]>::to_vec)).collect();
        if lines.is_empty() {
            lines.push_back((0, Vec::new()));
        }
        self.begin(Task::Pick { round, lines }, now);
        self.ask_again();
    }

    /// Nothing more is wanted: what it has to send is to be sent yet.
    pub fn bye(&mut self) {
        self.task = Task::Idle;
        self.sends.push_back(Request::Bye.line());
    }

    fn begin(&mut self, task: Task, now: Instant) {
        self.task = task;
        self.tries = 0;
        self.again = now + AGAIN;
    }

    /// Something came.
    pub fn came(&mut self, bytes: &[u8], now: Instant) {
        let mut lines = std::mem::take(&mut self.lines);
        lines.came(bytes, |line| match Frame::read(line) {
            Some(frame) => self.frame(frame, now),
            None if matches!(self.task, Task::Hello) => {
                self.events.push_back(Event::Said(line.to_vec()));
            }
            None => {}
        });
        self.lines = lines;
    }

    fn frame(&mut self, frame: Frame, now: Instant) {
        if frame.about == About::Failed {
            let words = String::from_utf8_lossy(&frame.body).into_owned();
            self.task = Task::Idle;
            return self.events.push_back(Event::Failed(words));
        }
        match &mut self.task {
            Task::Hello if frame.about == About::Hello => {
                self.task = Task::Idle;
                self.events.push_back(hello(&frame.body));
            }
            Task::Pick { round, lines }
                if frame.about == About::Picked(*round)
                    && lines.front().is_some_and(|(line, _)| *line == frame.seq) =>
            {
                lines.pop_front();
                if lines.is_empty() {
                    self.task = Task::Idle;
                    self.events.push_back(Event::Picked);
                } else {
                    (self.tries, self.again) = (0, now + AGAIN);
                    self.ask_again();
                }
            }
            Task::Get(get) if frame.about == get.about => {
                if frame.seq >= get.asked {
                    return;
                }
                (self.tries, self.again) = (0, now + AGAIN);
                let seq = frame.seq;
                let gaps = if seq > get.seen {
                    get.missing(get.seen.max(get.next), seq)
                } else {
                    Vec::new()
                };
                get.seen = get.seen.max(seq + 1);
                for (first, last) in gaps {
                    self.repeated += u64::from(last - first) + 1;
                    let free = get.next;
                    self.sends
                        .push_back(Request::Go { about: get.about, first, last, free }.line());
                }
                if get.take(frame, &mut self.events) {
                    self.task = Task::Idle;
                    self.events.push_back(Event::Whole);
                }
            }
            _ => {}
        }
    }

    /// What it wants now.
    pub fn next(&mut self, now: Instant) -> Next {
        if let Some(event) = self.events.pop_front() {
            return Next::Came(event);
        }
        if let Some(bytes) = self.sends.pop_front() {
            return Next::Send(bytes);
        }
        match &mut self.task {
            Task::Idle => return Next::Idle,
            Task::Get(get) if get.last.is_none() && get.asked - get.next <= self.window / 2 => {
                let (first, free) = (get.asked, get.next);
                get.asked = get.next.saturating_add(self.window);
                let (about, last) = (get.about, get.asked - 1);
                return Next::Send(Request::Go { about, first, last, free }.line());
            }
            _ => {}
        }
        if now < self.again {
            return Next::Wait(self.again);
        }
        self.tries += 1;
        self.again = now + AGAIN;
        if self.tries > TRIES {
            self.task = Task::Idle;
            let seconds = AGAIN.as_secs() * u64::from(TRIES);
            let why = format!("the machine says nothing more: it was asked for {seconds} s");
            return Next::Came(Event::Failed(why));
        }
        self.ask_again();
        self.sends.pop_front().map_or(Next::Wait(self.again), Next::Send)
    }

    /// What was asked and not answered.
    fn ask_again(&mut self) {
        match &self.task {
            Task::Idle => {}
            Task::Hello => self.sends.push_back(Request::Hello.line()),
            Task::Pick { round, lines } => {
                if let Some((line, ranges)) = lines.front() {
                    let ranges = ranges.clone();
                    let pick = Request::Pick { round: *round, line: *line, ranges };
                    self.sends.push_back(pick.line());
                }
            }
            Task::Get(get) => {
                let end = get.last.map_or(get.asked, |last| last + 1);
                for (first, last) in get.missing(get.next, end).into_iter().take(GAPS) {
                    self.repeated += 1;
                    let free = get.next;
                    self.sends
                        .push_back(Request::Go { about: get.about, first, last, free }.line());
                }
            }
        }
    }
}

impl Get {
    /// Runs of what is not there, from `from` on and before `end`.
    fn missing(&self, from: u32, end: u32) -> Vec<(u32, u32)> {
        let mut runs = Vec::new();
        let mut from = from;
        for there in self.early.range(from..end.max(from)).map(|(seq, _)| *seq).chain([end]) {
            if there > from {
                runs.push((from, there - 1));
            }
            from = there.saturating_add(1);
        }
        runs
    }

    /// Whether all of it is there.
    fn take(&mut self, frame: Frame, events: &mut VecDeque<Event>) -> bool {
        if frame.last {
            self.last = Some(frame.seq);
        }
        if frame.seq >= self.next {
            self.early.insert(frame.seq, frame.body);
        }
        while let Some(body) = self.early.remove(&self.next) {
            self.next += 1;
            if !body.is_empty() {
                events.push_back(Event::Bytes(body));
            }
        }
        self.last.is_some_and(|last| self.next > last)
    }
}

fn hello(body: &[u8]) -> Event {
    #[derive(serde::Deserialize)]
    struct Version {
        protocol: u32,
    }
    let other = |protocol| {
        Event::Failed(format!(
            "the machine speaks protocol {protocol} and we {PROTOCOL}: it booted with another version of koboshi"
        ))
    };
    match serde_json::from_slice::<Version>(body) {
        Ok(Version { protocol }) if protocol != PROTOCOL => other(protocol),
        Ok(_) => match serde_json::from_slice(body) {
            Ok(header) => Event::Hello(header),
            Err(error) => Event::Failed(format!("the machine says who it is, but {error}")),
        },
        Err(error) => Event::Failed(format!("the machine says who it is, but {error}")),
    }
}

#[cfg(test)]
mod tests;
