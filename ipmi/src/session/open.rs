//! An open session: requests on their way, each with its number until it is answered, repeated or given up.
//!
//! IPMI 2.0 §6.12.13, §13.8 and §5.2 (completion codes). A repetition keeps its rqSeq, so that the BMC
//! recognises it, and gets a new session number, as the BMC drops what it has seen.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::access::{Patience, Privilege};
use super::numbers::Numbers;
use super::random::Random;
use super::repeat::is_repeatable;
use super::seal::Seal;
use super::{Pending, Ticket};
use crate::message::{Completion, Message, NetFn, Request, Response};
use crate::wire::v20::PayloadType;

/// Times that "it gave up on something behind it" is asked again.
const TIMEOUTS: u32 = 2;
/// Before a deed is repeated: most answers that seem lost are slow.
const SLOWER: u32 = 4;

/// Whose request it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Owner {
    Caller(Ticket),
    Raise(Privilege),
    KeepAlive,
}

/// A request on its way.
#[derive(Debug)]
pub(super) struct Flight {
    pub owner: Owner,
    pub request: Request,
    pub reopened: bool,
    seq: u8,
    /// Times it was sent under this number.
    tries: u32,
    timeouts: u32,
    /// Times that the answer was "not now".
    refusals: u32,
    began: Instant,
    deadline: Instant,
    /// The last answer, if it was "not now".
    refusal: Option<Response>,
    /// It waits to be asked anew, under another number.
    busy: bool,
}

/// What an authentic datagram, or the deadline, brought.
#[derive(Debug)]
pub(super) enum Event {
    Answer(Owner, Response),
    /// Not answered in all the time it had.
    Expired(Box<Flight>),
    /// Nothing was heard for too long.
    Suspect,
    Payload(PayloadType, u32, Vec<u8>),
}

/// An open session.
#[derive(Debug)]
pub(super) struct Open {
    pub seal: Seal,
    /// The level that Set Session Privilege Level was answered with.
    pub privilege: Privilege,
    pub flights: Vec<Flight>,
    /// Nothing is sent for callers before the privilege is raised.
    pub is_raised: bool,
    numbers: Numbers,
    patience: Patience,
    heard: Instant,
    /// The last time that something was sent, or somebody had use of it. What the BMC sends does not keep
    /// its session alive.
    pub used: Instant,
}

impl Open {
    pub fn new(seal: Seal, patience: Patience, now: Instant, random: &mut Random) -> Open {
        Open {
            seal,
            privilege: Privilege::User,
            flights: Vec::new(),
            is_raised: false,
            numbers: Numbers::after(random.bytes::<1>()[0]),
            patience,
            heard: now,
            used: now,
        }
    }

    /// How long nothing was heard.
    pub fn silence(&self, now: Instant) -> Duration {
        now.saturating_duration_since(self.heard)
    }

    /// Sends a request for the first time.
    pub fn send(
        &mut self,
        owner: Owner,
        pending: Pending,
        now: Instant,
        random: &mut Random,
        out: &mut VecDeque<Vec<u8>>,
    ) {
        let mut flight = Flight {
            owner,
            request: pending.request,
            reopened: pending.reopened,
            seq: 0,
            tries: 0,
            timeouts: 0,
            refusals: 0,
            began: now,
            deadline: now,
            refusal: None,
            busy: false,
        };
        self.launch(&mut flight, now, random, out);
        self.flights.push(flight);
    }

    /// Sends a request under a new number.
    fn launch(
        &mut self,
        flight: &mut Flight,
        now: Instant,
        random: &mut Random,
        out: &mut VecDeque<Vec<u8>>,
    ) {
        let flights = &self.flights;
        flight.seq = self.numbers.take(now, |seq| flights.iter().any(|other| other.seq == seq));
        (flight.tries, flight.busy) = (0, false);
        self.transmit(flight, now, random, out);
    }

    fn transmit(
        &mut self,
        flight: &mut Flight,
        now: Instant,
        random: &mut Random,
        out: &mut VecDeque<Vec<u8>>,
    ) {
        let message = Message::request(&flight.request, flight.seq);
        out.push_back(self.seal.message(&message, random));
        let mut wait = self.patience.wait(flight.tries);
        if !is_repeatable(&flight.request) {
            wait = wait.max(self.patience.first * SLOWER);
        }
        flight.tries += 1;
        flight.deadline = (now + wait).min(flight.began + self.patience.total);
        self.used = now;
    }

    /// When `expire` is due, as far as requests go.
    pub fn deadline(&self) -> Option<Instant> {
        self.flights.iter().map(|flight| flight.deadline).min()
    }

    /// Something came from the BMC's address.
    pub fn receive(&mut self, datagram: &[u8], now: Instant) -> Option<Event> {
        let (kind, number, payload) = self.seal.unwrap(datagram)?;
        self.heard = now;
        if kind != PayloadType::Ipmi {
            return Some(Event::Payload(kind, number, payload));
        }
        let message = self.seal.read(&payload)?;
        let own = self.flights.iter().position(|flight| flight.is_answered_by(&message));
        let passed_on = || self.flights.iter().position(|flight| flight.is_behind(&message));
        let at = own.or_else(passed_on)?;
        let flight = self.flights.get_mut(at)?;
        let response = match own {
            Some(_) => message.response()?,
            // Whole, as the controllers do that put it behind Send Message's completion code.
            None => Response { completion: Completion::OK, data: message.encode() },
        };
        let wait = self.patience.wait(flight.refusals) / 2;
        match response.completion {
            // It works on it still: its answer comes by itself, or is asked for after a while.
            Completion::DUPLICATE => {
                flight.deadline = now + self.patience.wait(2);
                flight.refusal = Some(response);
                return None;
            }
            // Said of a repetition: it may be at work on the first, and a new number would be a second deed.
            Completion::NODE_BUSY if flight.tries > 1 && !is_repeatable(&flight.request) => {
                flight.deadline = now + self.patience.wait(2);
            }
            Completion::NODE_BUSY => flight.again_at(now + wait, response),
            Completion::TIMEOUT if flight.timeouts < TIMEOUTS && is_repeatable(&flight.request) => {
                flight.again_at(now + wait, response);
            }
            Completion::OK if flight.is_tracked() && response.data.is_empty() => {
                // A deed that was passed on is not passed on twice, however long its answer takes.
                flight.deadline = match flight.is_deed_behind() {
                    true => flight.began + self.patience.total,
                    false => now + self.patience.wait(2),
                };
            }
            _ => {
                let flight = self.land(at, now)?;
                return Some(Event::Answer(flight.owner, response));
            }
        }
        None
    }

    /// The deadline has passed.
    pub fn expire(
        &mut self,
        now: Instant,
        random: &mut Random,
        out: &mut VecDeque<Vec<u8>>,
    ) -> Option<Event> {
        let at = self.flights.iter().position(|flight| flight.deadline <= now)?;
        let flight = self.flights.get(at)?;
        if now >= flight.began + self.patience.total {
            let mut flight = self.land(at, now)?;
            // "Still at work on it" is no refusal of a deed.
            let is_deed = !is_repeatable(&flight.request);
            let said = flight.refusal.take();
            let said = said.filter(|said| !is_deed || said.completion != Completion::DUPLICATE);
            return Some(match said {
                Some(refusal) => Event::Answer(flight.owner, refusal),
                None => Event::Expired(Box::new(flight)),
            });
        }
        // A deed has all its time: another session would not help it.
        let may = flight.owner == Owner::KeepAlive || is_repeatable(&flight.request);
        if may && flight.tries >= 3 && self.silence(now) >= self.patience.suspect {
            return Some(Event::Suspect);
        }
        let mut flight = self.flights.swap_remove(at);
        match flight.busy {
            true => {
                self.numbers.rest(flight.seq, now);
                self.launch(&mut flight, now, random, out);
            }
            false => self.transmit(&mut flight, now, random, out),
        }
        self.flights.push(flight);
        None
    }

    /// Takes a request out. Its number rests if an answer to it may still be on the way.
    fn land(&mut self, at: usize, now: Instant) -> Option<Flight> {
        if at >= self.flights.len() {
            return None;
        }
        let flight = self.flights.swap_remove(at);
        if flight.tries > 1 {
            self.numbers.rest(flight.seq, now);
        }
        Some(flight)
    }
}

impl Flight {
    fn is_answered_by(&self, message: &Message) -> bool {
        !self.busy
            && message.seq == self.seq
            && message.netfn == self.request.netfn.answer()
            && message.command == self.request.command
            && message.from == crate::message::BMC
            && message.to == crate::message::CONSOLE
    }

    /// Whether this is what a controller behind the BMC answers to the message within. It comes under the
    /// number of that message, or of the one around it, and may overtake the BMC's own answer.
    fn is_behind(&self, message: &Message) -> bool {
        // [channel, then the message: to, netfn and lun, checksum, from, number, command]
        let [_, to, function, _, _, number, command, ..] = self.request.data.as_slice() else {
            return false;
        };
        self.is_tracked()
            && !self.busy
            && (message.seq == self.seq || message.seq == number >> 2)
            && message.netfn == NetFn(function >> 2).answer()
            && message.command == *command
            && message.from == *to
    }

    /// Send Message that the BMC keeps track of (table 22-9: bits 7:6 of the channel byte are 01).
    fn is_tracked(&self) -> bool {
        let first = self.request.data.first();
        self.request.netfn == NetFn::APP
            && self.request.command == 0x34
            && first.is_some_and(|channel| channel >> 6 == 1)
    }

    /// Whether what Send Message carries must not be done twice.
    fn is_deed_behind(&self) -> bool {
        let inner = self.request.data.get(1..).and_then(|inner| Message::decode(inner).ok());
        inner.is_none_or(|inner| {
            let Message { netfn, to_lun, command, data, .. } = inner;
            !is_repeatable(&Request { netfn, lun: to_lun, command, data })
        })
    }

    fn again_at(&mut self, when: Instant, refusal: Response) {
        (self.busy, self.deadline, self.refusal) = (true, when, Some(refusal));
        self.refusals += 1;
    }
}
