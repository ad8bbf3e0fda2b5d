//! Runs a program on a line. Without sockets: what was said and the time in, what is to be done and a deadline
//! out. It ends: its steps are counted, what is kept of what was said is bounded, and each wait has an end.

use std::borrow::Cow;
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde::Serialize;

use super::parse::compile;
use super::program::{Condition, Match, Pattern, Piece, Program, Text, What};
use super::veil::{Unshown, Veil};
use crate::watch::plain::{Plain, Sign};

/// Bytes of what was said since the last match.
const HEARD_MAX: usize = 64 << 10;
/// Of these a match may still have its beginning in what is forgotten first.
const HEARD_KEPT: usize = 32 << 10;
/// Bytes of a value.
const VALUE_MAX: usize = 16 << 10;
/// Orders that are done.
const STEPS_MAX: u32 = 1_000_000;
/// Lines that are shown when it fails.
const LAST: usize = 10;

/// A program that runs.
#[derive(Debug)]
pub struct Run {
    program: Arc<Program>,
    values: Vec<Vec<u8>>,
    /// Of each loop.
    left: Vec<u32>,
    /// The order that is done.
    at: usize,
    next: usize,
    steps: u32,
    within: Duration,
    on_timeout: Option<usize>,
    waits: Option<Waits>,
    /// What did not come in time: of the expectation whose arm for that runs, and of the script.
    late: Option<Failed>,
    missed: Option<Failed>,
    plain: Plain,
    /// What was said and is not looked at yet.
    unread: Vec<u8>,
    /// What was said since the last match, each line ended by one newline.
    heard: Vec<u8>,
    returned: bool,
    veil: Veil,
    unshown: Unshown,
    last: VecDeque<String>,
    notes: Vec<Note>,
    outcome: Option<Outcome>,
}

/// What it waits for.
#[derive(Debug, Clone, Copy)]
enum Waits {
    /// Any of an order's patterns.
    Expect {
        since: Instant,
        until: Instant,
    },
    Pause {
        until: Instant,
    },
}

/// What is to be done next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// This, and then it is asked again.
    Do(Act),
    /// Nothing, until something is said or that time has come.
    Wait(Instant),
    /// Nothing any more.
    Ended,
}

/// Something to be done to the line.
#[derive(Clone, PartialEq, Eq)]
pub enum Act {
    /// Typed. There may be secrets in it.
    Send(Vec<u8>),
    /// A BREAK.
    Break,
    /// Magic SysRq with this key.
    SysRq(char),
}

impl std::fmt::Debug for Act {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Act::Send(bytes) => write!(f, "Send({} bytes)", bytes.len()),
            Act::Break => f.write_str("Break"),
            Act::SysRq(key) => write!(f, "SysRq({key})"),
        }
    }
}

/// Something for people; no secrets are in it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Note {
    /// The machine said this line, or as much of one.
    Heard(String),
    /// This was typed.
    Sent(String),
    /// This was done to the line.
    Did(String),
    /// The script says so.
    Says(String),
}

/// How it ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "outcome", rename_all = "kebab-case")]
pub enum Outcome {
    /// Well, with what the script says of it.
    Done {
        /// May be empty.
        says: String,
    },
    /// Not well.
    Failed(Failed),
}

/// Why it failed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Failed {
    /// The line of the script.
    pub line: usize,
    /// Why; nothing, where all there is to say is that it did not come.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub why: String,
    /// What was expected, as the script writes it.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub expected: Vec<String>,
    /// How long it was waited for, milliseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub waited: Option<u64>,
    /// The last lines that were seen.
    pub last: Vec<String>,
}

impl Run {
    /// With these values (what is missing is empty), and this time for whatever says none of its own. Values and
    /// secrets by name.
    pub fn new(
        program: Arc<Program>,
        values: impl IntoIterator<Item = (String, Vec<u8>)>,
        secrets: impl IntoIterator<Item = (String, Vec<u8>)>,
        within: Duration,
    ) -> Run {
        let mut known = vec![Vec::new(); program.names.len()];
        let secrets: Vec<(String, Vec<u8>)> = secrets.into_iter().collect();
        for (name, value) in values.into_iter().chain(secrets.iter().cloned()) {
            let number = program.names.iter().position(|known| *known == name);
            if let Some(slot) = number.and_then(|number| known.get_mut(number)) {
                *slot = value;
            }
        }
        let left = vec![0; program.loops];
        Run {
            program,
            values: known,
            left,
            at: 0,
            next: 0,
            steps: 0,
            within,
            on_timeout: None,
            waits: None,
            late: None,
            missed: None,
            plain: Plain::default(),
            unread: Vec::new(),
            heard: Vec::new(),
            returned: false,
            veil: Veil::new(secrets.into_iter()),
            unshown: Unshown::default(),
            last: VecDeque::new(),
            notes: Vec::new(),
            outcome: None,
        }
    }

    /// The machine said this.
    pub fn came(&mut self, bytes: &[u8]) {
        self.unread.extend_from_slice(bytes);
        // Who hands over so much without asking what is to be done looks for nothing.
        while self.unread.len() > HEARD_MAX && self.hear() {}
    }

    /// Looks at the next of what was said, up to a backspace: what that takes back was there, and is looked for
    /// before. False: there is no more.
    fn hear(&mut self) -> bool {
        if self.unread.is_empty() {
            return false;
        }
        let back = self.unread.iter().skip(1).position(|byte| *byte == 0x08);
        let bytes: Vec<u8> =
            self.unread.drain(..back.map_or(self.unread.len(), |at| at + 1)).collect();
        let bytes = &bytes[..];
        let Run { plain, heard, returned, unshown, veil, last, notes, .. } = self;
        let mut show = |lines: Vec<String>| {
            for line in lines {
                if !line.trim().is_empty() {
                    if last.len() >= LAST {
                        last.pop_front();
                    }
                    last.push_back(line.clone());
                }
                notes.push(Note::Heard(line));
            }
        };
        plain.read(bytes, |sign| match sign {
            Sign::Text(text) => {
                if std::mem::take(returned) && heard.last().is_some_and(|last| *last != b'\n') {
                    heard.push(b'\n');
                    show(unshown.push(b"\n", veil));
                }
                heard.extend_from_slice(text);
                show(unshown.push(text, veil));
            }
            Sign::Newline => {
                *returned = false;
                heard.push(b'\n');
                show(unshown.push(b"\n", veil));
            }
            Sign::Moved => {
                *returned = false;
                if heard.last().is_some_and(|last| *last != b'\n') {
                    heard.push(b'\n');
                    show(unshown.push(b"\n", veil));
                }
            }
            Sign::Return => *returned = true,
            Sign::Back => {
                if heard.last().is_some_and(|last| *last != b'\n') {
                    heard.pop();
                    unshown.pop();
                }
            }
        });
        if self.heard.len() > HEARD_MAX {
            self.heard.drain(..self.heard.len() - HEARD_KEPT);
        }
        true
    }

    /// What is to be done now.
    pub fn step(&mut self, now: Instant) -> Step {
        loop {
            if self.outcome.is_some() {
                return Step::Ended;
            }
            match self.waits {
                Some(Waits::Pause { until }) if now < until => {
                    while self.hear() {}
                    return Step::Wait(until);
                }
                Some(Waits::Pause { .. }) => self.waits = None,
                Some(Waits::Expect { since, until }) => match self.matched() {
                    Some(next) => {
                        self.waits = None;
                        self.next = next;
                    }
                    None if self.hear() => {}
                    None if now < until => return Step::Wait(until),
                    None => self.late(now.saturating_duration_since(since)),
                },
                None => {
                    if let Some(act) = self.order(now) {
                        return Step::Do(act);
                    }
                }
            }
        }
    }

    /// The line is gone, was taken, or could not do what was to be done.
    pub fn broke_off(&mut self, why: &str) {
        if self.outcome.is_none() {
            while self.hear() {}
            let expected = self.expected();
            self.fail(why.to_string(), expected, None);
        }
    }

    /// What people should see since this was asked last. It is to be asked often: it is kept until then.
    pub fn notes(&mut self) -> Vec<Note> {
        std::mem::take(&mut self.notes)
    }

    /// How it ended, if it has.
    pub fn outcome(&self) -> Option<&Outcome> {
        self.outcome.as_ref()
    }

    #[cfg(test)]
    pub(super) fn heard_bytes(&self) -> usize {
        self.heard.len()
    }

    #[cfg(test)]
    pub(super) fn veil_debug(&self) -> String {
        format!("{:?}", self.veil)
    }

    /// The next order. Some: it is to be done to the line.
    fn order(&mut self, now: Instant) -> Option<Act> {
        let program = self.program.clone();
        let Some(order) = program.orders.get(self.next) else {
            self.done(String::new());
            return None;
        };
        self.steps += 1;
        if self.steps > STEPS_MAX {
            self.fail("it runs in circles: a million steps".to_string(), Vec::new(), None);
            return None;
        }
        self.at = self.next;
        self.next += 1;
        match &order.what {
            What::Send(text) => {
                let bytes = self.text(text);
                self.show_partial();
                self.notes.push(Note::Sent(self.veil.shown(&bytes)));
                return Some(Act::Send(bytes));
            }
            What::Break => {
                self.did("BREAK".to_string());
                return Some(Act::Break);
            }
            What::SysRq(key) => {
                self.did(format!("SysRq {key}"));
                return Some(Act::SysRq(*key));
            }
            What::Pause(time) => self.waits = Some(Waits::Pause { until: now + *time }),
            What::Say(text) => {
                let says = self.veil.shown(&self.text(text));
                self.notes.push(Note::Says(says));
            }
            What::Set(number, text) => {
                let value = self.text(text);
                self.set(*number, &value);
            }
            What::Expect { within, .. } => {
                self.next = self.at;
                self.late = None;
                let until = now + within.unwrap_or(self.within);
                self.waits = Some(Waits::Expect { since: now, until });
            }
            What::Within(time) => self.within = *time,
            What::OnTimeout(next) => self.on_timeout = Some(*next),
            What::Jump(next) => self.next = *next,
            What::Unless(condition, next) => {
                if !self.holds(condition) {
                    self.next = *next;
                }
            }
            What::Times(number, times) => {
                self.left.get_mut(*number).into_iter().for_each(|left| *left = *times);
            }
            What::Next(number, over) => match self.left.get_mut(*number) {
                Some(left) if *left > 0 => *left -= 1,
                _ => self.next = *over,
            },
            What::Fail(text) => {
                let why = self.veil.shown(&self.text(text));
                match self.late.take().or(self.missed.take()) {
                    Some(missed) => self.end(Outcome::Failed(Failed { why, ..missed })),
                    None => self.fail(why, Vec::new(), None),
                }
            }
            What::Done(text) => {
                let says = self.veil.shown(&self.text(text));
                self.done(says);
            }
            What::GiveUp => match self.missed.take() {
                Some(missed) => self.end(Outcome::Failed(missed)),
                None => self.done(String::new()),
            },
        }
        None
    }

    /// The order that follows what was heard, if it is what was expected.
    fn matched(&mut self) -> Option<usize> {
        let program = self.program.clone();
        let What::Expect { arms, .. } = &program.orders.get(self.next)?.what else { return None };
        arms.iter().find_map(|(pattern, next)| {
            let heard = std::mem::take(&mut self.heard);
            let end = self.matches(pattern, &heard);
            self.heard = heard;
            self.heard.drain(..end?);
            Some(*next)
        })
    }

    /// Where the match ends. What it keeps is kept.
    fn matches(&mut self, pattern: &Pattern, bytes: &[u8]) -> Option<usize> {
        let template;
        let (regex, kept) = match &pattern.what {
            Match::Literal(text) => {
                let text = self.text(text);
                // A value that is empty is there at once.
                let found = match text.len() {
                    0 => Some(0),
                    long => bytes.windows(long).position(|window| window == text),
                };
                return found.map(|at| at + text.len());
            }
            Match::Regex(regex, kept) => (&**regex, kept),
            Match::Template(text, any_case, kept) => {
                let literal = |value: &[u8]| regex::escape(&String::from_utf8_lossy(value));
                let pieces = text.0.iter().map(|piece| match piece {
                    Piece::Plain(plain) => String::from_utf8_lossy(plain).into_owned(),
                    Piece::Value(number) => {
                        self.values.get(*number).map_or_else(String::new, |value| literal(value))
                    }
                });
                let whole: String = pieces.collect();
                match compile(&whole, *any_case) {
                    Ok(regex) => template = regex,
                    Err(why) => {
                        let why = format!("{} with its values does not read: {why}", pattern.shown);
                        self.fail(self.veil.shown(why.as_bytes()), Vec::new(), None);
                        return None;
                    }
                }
                (&template, kept)
            }
        };
        let captures = regex.captures(bytes)?;
        for (group, number) in kept {
            let value = captures.get(*group).map_or(&b""[..], |found| found.as_bytes());
            self.set(*number, value);
        }
        captures.get(0).map(|whole| whole.end())
    }

    fn late(&mut self, waited: Duration) {
        let expected = self.expected();
        self.waits = None;
        let missed = self.failed(String::new(), expected, Some(waited));
        let program = self.program.clone();
        let order = program.orders.get(self.next).map(|order| &order.what);
        if let Some(What::Expect { late: Some(late), .. }) = order {
            self.late = Some(missed);
            self.next = *late;
        } else if let Some(handler) = self.on_timeout.take() {
            self.missed = Some(missed);
            self.next = handler;
        } else {
            self.end(Outcome::Failed(missed));
        }
    }

    /// What is waited for, if anything is.
    fn expected(&self) -> Vec<String> {
        match self.program.orders.get(self.at).map(|order| &order.what) {
            Some(What::Expect { arms, .. }) if self.waits.is_some() => {
                arms.iter().map(|(pattern, _)| pattern.shown.clone()).collect()
            }
            _ => Vec::new(),
        }
    }

    fn holds(&mut self, condition: &Condition) -> bool {
        match condition {
            Condition::Same(one, other) => self.text(one) == self.text(other),
            Condition::Matches(text, pattern) => {
                let text = self.text(text);
                self.matches(pattern, &text).is_some()
            }
            Condition::Not(condition) => !self.holds(condition),
        }
    }

    fn text(&self, text: &Text) -> Vec<u8> {
        let pieces = text.0.iter().map(|piece| match piece {
            Piece::Plain(plain) => Cow::Borrowed(plain.as_slice()),
            Piece::Value(number) => {
                Cow::Borrowed(self.values.get(*number).map_or(&[][..], |value| value))
            }
        });
        pieces.fold(Vec::new(), |mut whole, piece| {
            whole.extend_from_slice(&piece);
            whole
        })
    }

    fn set(&mut self, number: usize, value: &[u8]) {
        let value = value.get(..VALUE_MAX).unwrap_or(value);
        self.values.get_mut(number).into_iter().for_each(|slot| *slot = value.to_vec());
    }

    fn did(&mut self, what: String) {
        self.show_partial();
        self.notes.push(Note::Did(what));
    }

    /// A prompt has no newline behind it: it is shown before the answer.
    fn show_partial(&mut self) {
        self.notes.extend(self.unshown.settled(&self.veil).map(Note::Heard));
    }

    fn done(&mut self, says: String) {
        self.end(Outcome::Done { says });
    }

    fn fail(&mut self, why: String, expected: Vec<String>, waited: Option<Duration>) {
        let failed = self.failed(why, expected, waited);
        self.end(Outcome::Failed(failed));
    }

    fn failed(&mut self, why: String, expected: Vec<String>, waited: Option<Duration>) -> Failed {
        let waited = waited.map(|waited| u64::try_from(waited.as_millis()).unwrap_or(u64::MAX));
        let line = self.program.orders.get(self.at).map_or(0, |order| order.line);
        let partial = self.unshown.settled(&self.veil);
        self.notes.extend(partial.clone().map(Note::Heard));
        let last = self.last.iter().cloned().chain(partial).collect();
        Failed { line, why, expected, waited, last }
    }

    fn end(&mut self, outcome: Outcome) {
        self.notes.extend(self.unshown.rest(&self.veil).map(Note::Heard));
        self.outcome.get_or_insert(outcome);
    }
}

impl std::fmt::Display for Failed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "line {}: {}", self.line, self.why)?;
        let expected = self.expected.join(" or ");
        let between = if self.why.is_empty() { "" } else { ": " };
        match self.waited {
            Some(waited) => {
                let waited = waited as f64 / 1000.0;
                write!(
                    f,
                    "{between}{expected} was expected, and did not come within {waited:.1} s"
                )?;
            }
            None if expected.is_empty() => {}
            None => write!(f, "{between}{expected} was expected")?,
        }
        match self.last.as_slice() {
            [] => f.write_str("; the machine said nothing"),
            last => write!(f, "; its last lines:\n  {}", last.join("\n  ")),
        }
    }
}
