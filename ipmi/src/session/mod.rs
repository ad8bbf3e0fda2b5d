//! One BMC from the console's side, for as long as it is of interest: a session is opened when something is
//! asked, carries commands and Serial over LAN together, is kept alive while somebody holds it, opened
//! again when it was lost, and closed when nobody needs it.
//!
//! No sockets: [`Session::handle`] takes datagrams, [`Session::poll_transmit`] hands them out,
//! [`Session::poll_event`] says what became of what, [`Session::deadline`] when [`Session::handle_timeout`]
//! is due. Call both polls until they are empty after everything else.
//!
//! What is guaranteed of a request: within one session it is repeated under its own number (rqSeq), by
//! which a BMC that keeps to §5.2 knows a repetition; a *deed* (power cycle, reset, clearing a log) is
//! repeated later than a question, as its answer is more often slow than lost, and never in a second
//! session: [`Error::Uncertain`] then says that nobody knows. So a deed is not sent before the session has
//! shown that it lives.
//!
//! Send Message that the BMC tracks (bits 7:6 of its channel byte are 01) is answered by what the controller
//! behind it says: the data of the response is that controller's whole message, whether it came behind
//! the completion code or by itself.

mod access;
mod course;
mod legacy;
mod numbers;
mod open;
mod opening;
mod presence;
mod random;
mod repeat;
mod seal;
#[cfg(test)]
mod tests;
mod window;

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Instant;

pub use access::{Access, Cipher, Learned, Patience, Privilege, Version};
pub use random::Random;
pub use repeat::is_repeatable;

use crate::error::Error;
use crate::message::{Message, Request, Response};
use crate::wire::rmcp::Rmcp;
use crate::wire::v15;
use crate::wire::v20::{self, PayloadType};
use course::{close_request, probe};
use legacy::Legacy;
use open::{Open, Owner};
use opening::{Opening, Outcome};
use seal::Seal;

const CLOSE_SESSION: u8 = 0x3c;

/// Names a request until it is answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Ticket(u64);

/// What became of something.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// A session is needed: [`Session::open`] may be called, at once or when others are through.
    Wanted,
    /// It is open, with this privilege.
    Opened(Facts),
    /// A request was answered, or came to nothing.
    Answer(Ticket, Result<Response, Error>),
    /// A payload that is not a command's, with its datagram's number in the session, in the order they came.
    Payload(PayloadType, u32, Vec<u8>),
    /// Something was learned of the BMC that holds for the next session.
    Learned(Learned),
    /// A session that was open is gone, and with it whatever was activated in it.
    Lost(Error),
    /// There is no session any more, or none came about.
    Closed,
}

/// What holds of an open session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Facts {
    /// The BMC's id for it.
    pub managed: u32,
    /// The privilege it was raised to.
    pub privilege: Privilege,
    /// Its cipher suite; `None` under IPMI 1.5.
    pub suite: Option<u8>,
}

/// A request that waits.
#[derive(Debug)]
struct Pending {
    request: Request,
    /// It was on its way in a session that was lost.
    reopened: bool,
}

/// One BMC.
#[derive(Debug)]
pub struct Session {
    access: Arc<Access>,
    learned: Learned,
    random: Random,
    out: VecDeque<Vec<u8>>,
    events: VecDeque<Event>,
    phase: Phase,
    queue: VecDeque<(Ticket, Pending)>,
    tickets: u64,
    holds: u32,
    /// A session was lost, and its successor is on its way.
    reopening: bool,
}

#[derive(Debug)]
enum Phase {
    Closed,
    Wanted,
    Opening(Box<Opening>),
    Legacy(Box<Legacy>),
    Open(Box<Open>),
    Closing(Box<Closing>),
}

#[derive(Debug)]
struct Closing {
    seal: Seal,
    seq: u8,
    tries: u32,
    deadline: Instant,
}

impl Session {
    /// Of a BMC of which this is known. Nothing is sent until something is asked.
    pub fn new(access: Arc<Access>, learned: Learned, random: Random) -> Session {
        Session {
            access,
            learned,
            random,
            out: VecDeque::new(),
            events: VecDeque::new(),
            phase: Phase::Closed,
            queue: VecDeque::new(),
            tickets: 0,
            holds: 0,
            reopening: false,
        }
    }

    /// Asks something. [`Event::Answer`] will name the ticket.
    pub fn ask(&mut self, request: Request, now: Instant) -> Ticket {
        self.tickets += 1;
        let ticket = Ticket(self.tickets);
        self.queue.push_back((ticket, Pending { request, reopened: false }));
        match &self.phase {
            Phase::Closed => self.want(),
            Phase::Open(_) => self.dispatch(now),
            _ => {}
        }
        ticket
    }

    /// Nobody wants the answer any more: what was not sent yet is not sent. Whether it was so; else its answer
    /// comes as any other.
    pub fn forgo(&mut self, ticket: Ticket) -> bool {
        let before = self.queue.len();
        self.queue.retain(|(other, _)| *other != ticket);
        self.queue.len() < before
    }

    /// A session was wanted: opens it.
    pub fn open(&mut self, now: Instant) {
        if !matches!(self.phase, Phase::Wanted) {
            return;
        }
        let access = Arc::clone(&self.access);
        let v15 = match (self.access.version, self.access.cipher) {
            (Version::V15, _) | (_, Cipher::Legacy(_)) => true,
            (Version::Auto, Cipher::Auto) => {
                self.learned.version == Version::V15 && self.learned.suite.is_none()
            }
            _ => false,
        };
        if v15 {
            return self.open_legacy(None, now);
        }
        let learned = self.learned.clone();
        let opening = Opening::begin(access, learned, now, &mut self.random, &mut self.out);
        self.phase = Phase::Opening(Box::new(opening));
    }

    /// Somebody needs the session kept alive, until as many [`Session::release`].
    pub fn hold(&mut self) {
        self.holds += 1;
    }

    /// Somebody needs it no more.
    pub fn release(&mut self, now: Instant) {
        self.holds = self.holds.saturating_sub(1);
        if let Phase::Open(open) = &mut self.phase {
            open.used = now;
        }
    }

    /// Sends a payload that is not a command. Whether there is a session that can carry it.
    pub fn send_payload(&mut self, kind: PayloadType, payload: &[u8], now: Instant) -> bool {
        let Phase::Open(open) = &mut self.phase else { return false };
        if !open.is_raised || !open.seal.has_payloads() {
            return false;
        }
        open.used = now;
        self.out.push_back(open.seal.wrap(kind, payload, &mut self.random));
        true
    }

    /// Ends it. What was asked and is not answered comes to [`Error::Closed`].
    pub fn close(&mut self, now: Instant) {
        self.fail_queue(&Error::Closed);
        match std::mem::replace(&mut self.phase, Phase::Closed) {
            Phase::Opening(opening) => {
                opening.abandon(&mut self.random, &mut self.out);
                self.events.push_back(Event::Closed);
            }
            Phase::Open(open) => {
                for flight in &open.flights {
                    if let Owner::Caller(ticket) = flight.owner {
                        self.events.push_back(Event::Answer(ticket, Err(Error::Closed)));
                    }
                }
                self.part(open.seal, now);
            }
            Phase::Closing(closing) => self.phase = Phase::Closing(closing),
            Phase::Closed | Phase::Wanted | Phase::Legacy(_) => {
                self.events.push_back(Event::Closed);
            }
        }
    }

    /// Whether there is no session and none is wanted.
    pub fn is_closed(&self) -> bool {
        matches!(self.phase, Phase::Closed)
    }

    /// Whether it is being opened and nothing has come back yet.
    pub fn is_unheard(&self) -> bool {
        match &self.phase {
            Phase::Opening(opening) => !opening.has_heard(),
            Phase::Legacy(legacy) => !legacy.has_heard(),
            _ => false,
        }
    }

    /// Whether it is being opened.
    pub fn is_opening(&self) -> bool {
        match &self.phase {
            Phase::Opening(_) | Phase::Legacy(_) => true,
            Phase::Open(open) => !open.is_raised,
            _ => false,
        }
    }

    /// What is known of the BMC.
    pub fn learned(&self) -> &Learned {
        &self.learned
    }

    /// Drops it, for the next session.
    pub fn forget(&mut self) {
        self.learned = Learned::default();
    }

    /// The next datagram to send.
    pub fn poll_transmit(&mut self) -> Option<Vec<u8>> {
        self.out.pop_front()
    }

    /// The next thing that happened.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// When [`Session::handle_timeout`] is due.
    pub fn deadline(&self) -> Option<Instant> {
        match &self.phase {
            Phase::Closed | Phase::Wanted => None,
            Phase::Opening(opening) => Some(opening.deadline()),
            Phase::Legacy(legacy) => Some(legacy.deadline()),
            Phase::Open(open) => Some(open.deadline().unwrap_or_else(|| self.rest_until(open))),
            Phase::Closing(closing) => Some(closing.deadline),
        }
    }

    /// With nothing on its way: when it is kept alive, or closed.
    fn rest_until(&self, open: &Open) -> Instant {
        let patience = &self.access.patience;
        open.used + if self.holds > 0 { patience.keep_alive } else { patience.linger }
    }

    /// A datagram from the BMC's address.
    pub fn handle(&mut self, datagram: &[u8], now: Instant) {
        match &mut self.phase {
            Phase::Closed | Phase::Wanted => {}
            Phase::Opening(opening) => {
                let outcome = match Wrapped::decode(datagram) {
                    Ok(Wrapped::V20(packet)) => {
                        opening.receive(&packet, now, &mut self.random, &mut self.out)
                    }
                    Ok(Wrapped::V15(packet)) => match Message::decode(packet.payload) {
                        Ok(message) if packet.session == 0 => {
                            opening.receive_legacy(&message, &mut self.out)
                        }
                        _ => Outcome::Wait,
                    },
                    Ok(Wrapped::Other) => Outcome::Wait,
                    Err(why) => {
                        opening.not_ipmi(why);
                        Outcome::Wait
                    }
                };
                self.follow(outcome, now);
            }
            Phase::Legacy(legacy) => {
                let outcome = match Wrapped::decode(datagram) {
                    Ok(Wrapped::V15(packet)) => {
                        legacy.receive(&packet, now, &mut self.random, &mut self.out)
                    }
                    Ok(_) => Outcome::Wait,
                    Err(why) => {
                        legacy.not_ipmi(why);
                        Outcome::Wait
                    }
                };
                self.follow(outcome, now);
            }
            Phase::Open(open) => {
                if let Some(event) = open.receive(datagram, now) {
                    self.react(event, now);
                }
            }
            Phase::Closing(closing) => {
                let Some((PayloadType::Ipmi, _, payload)) = closing.seal.unwrap(datagram) else {
                    return;
                };
                let Some(message) = closing.seal.read(&payload) else { return };
                if message.seq == closing.seq && message.command == CLOSE_SESSION {
                    self.closed();
                }
            }
        }
    }

    /// The host says that nobody listens there, or the network that there is no way. Nothing proves it, so
    /// that it never ends an open session.
    pub fn handle_unreachable(&mut self, why: String, now: Instant) {
        let outcome = match &mut self.phase {
            Phase::Opening(opening) => opening.unreachable(why),
            Phase::Legacy(legacy) => legacy.unreachable(why),
            _ => return,
        };
        self.follow(outcome, now);
    }

    /// A deadline has passed.
    pub fn handle_timeout(&mut self, now: Instant) {
        if self.deadline().is_none_or(|deadline| now < deadline) {
            return;
        }
        match &mut self.phase {
            Phase::Closed | Phase::Wanted => {}
            Phase::Opening(opening) => {
                let outcome = opening.expire(now, &mut self.random, &mut self.out);
                self.follow(outcome, now);
            }
            Phase::Legacy(legacy) => {
                let outcome = legacy.expire(now, &mut self.out);
                self.follow(outcome, now);
            }
            Phase::Open(open) if open.flights.is_empty() => match self.holds {
                0 => self.retire(now),
                _ => open.send(Owner::KeepAlive, probe(), now, &mut self.random, &mut self.out),
            },
            Phase::Open(open) => {
                // One may have passed its deadline for every request on its way.
                for _ in 0..open.flights.len() {
                    let event = open.expire(now, &mut self.random, &mut self.out);
                    if let Some(event) = event {
                        return self.react(event, now);
                    }
                }
            }
            Phase::Closing(closing) => {
                closing.tries += 1;
                if closing.tries > 1 {
                    return self.closed();
                }
                let message = close_request(&closing.seal, closing.seq);
                self.out.push_back(closing.seal.message(&message, &mut self.random));
                closing.deadline = now + self.access.patience.first;
            }
        }
    }
}

/// A datagram's wrapper, whichever.
enum Wrapped<'a> {
    V15(v15::Packet<'a>),
    V20(v20::Packet<'a>),
    Other,
}

impl<'a> Wrapped<'a> {
    fn decode(datagram: &'a [u8]) -> Result<Wrapped<'a>, &'static str> {
        match Rmcp::decode(datagram) {
            Ok(Rmcp::Ipmi(rest)) if v20::is_rmcp_plus(rest) => {
                v20::Packet::decode(rest).map(Wrapped::V20).map_err(|bad| bad.0)
            }
            Ok(Rmcp::Ipmi(rest)) => {
                v15::Packet::decode(rest).map(Wrapped::V15).map_err(|bad| bad.0)
            }
            Ok(Rmcp::Ping { .. } | Rmcp::Pong { .. }) => Ok(Wrapped::Other),
            Err(bad) => Err(bad.0),
        }
    }
}
