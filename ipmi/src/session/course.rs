//! What follows from what: a session that opened is raised and used, one that was lost is opened again, one
//! that nobody needs is closed.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::legacy::Legacy;
use super::open::{self, Flight, Open, Owner};
use super::opening::{Opened, Outcome};
use super::presence::Capabilities;
use super::random::Random;
use super::repeat::is_repeatable;
use super::seal::Seal;
use super::{
    CLOSE_SESSION, Closing, Event, Facts, Learned, Pending, Phase, Privilege, Session, Version,
};
use crate::error::Error;
use crate::message::{Completion, Message, NetFn, Request};
use crate::quirks::Quirk;

const GET_DEVICE_ID: u8 = 0x01;
const SET_PRIVILEGE: u8 = 0x3b;

/// A session of which nothing was heard for so long may be gone.
const STALE: Duration = Duration::from_secs(3);

impl Session {
    pub(super) fn want(&mut self) {
        self.phase = Phase::Wanted;
        self.events.push_back(Event::Wanted);
    }

    pub(super) fn open_legacy(&mut self, said: Option<Capabilities>, now: Instant) {
        let (access, learned) = (Arc::clone(&self.access), self.learned.clone());
        let (legacy, outcome) =
            Legacy::begin(access, learned, said, now, &mut self.random, &mut self.out);
        self.phase = Phase::Legacy(Box::new(legacy));
        self.follow(outcome, now);
    }

    pub(super) fn follow(&mut self, outcome: Outcome, now: Instant) {
        match outcome {
            Outcome::Wait => {}
            Outcome::Legacy(said) => self.open_legacy(Some(said), now),
            Outcome::Modern => {
                self.learned = Learned { version: Version::Auto, ..self.learned.clone() };
                self.events.push_back(Event::Learned(self.learned.clone()));
                self.phase = Phase::Wanted;
                self.open(now);
            }
            Outcome::Open(opened) => self.opened(*opened, now),
            Outcome::Fail(error) => {
                let error = match error {
                    Error::Unreachable { waited } if self.reopening => Error::Lost { waited },
                    error => error,
                };
                self.reopening = false;
                self.phase = Phase::Closed;
                self.fail_queue(&error);
                self.events.push_back(Event::Closed);
            }
        }
    }

    pub(super) fn opened(&mut self, opened: Opened, now: Instant) {
        if opened.learned != self.learned {
            self.learned = opened.learned;
            self.events.push_back(Event::Learned(self.learned.clone()));
        }
        let open = Open::new(opened.seal, self.access.patience, now, &mut self.random);
        self.phase = Phase::Open(Box::new(open));
        self.raise(opened.privilege, now);
    }

    /// Sessions begin with the privilege of a user (§22.18), and are asked for more.
    pub(super) fn raise(&mut self, privilege: Privilege, now: Instant) {
        let Phase::Open(open) = &mut self.phase else { return };
        if privilege > Privilege::User {
            let request = Request::new(NetFn::APP, SET_PRIVILEGE, [privilege.number()]);
            let pending = Pending { request, reopened: false };
            open.send(Owner::Raise(privilege), pending, now, &mut self.random, &mut self.out);
            return;
        }
        self.raised(Privilege::User, now);
    }

    pub(super) fn raised(&mut self, privilege: Privilege, now: Instant) {
        let Phase::Open(open) = &mut self.phase else { return };
        (open.privilege, open.is_raised, open.used) = (privilege, true, now);
        self.reopening = false;
        let suite = match &open.seal {
            Seal::V15(_) => None,
            Seal::V20(seal) => Some(seal.keys.suite().id),
        };
        let facts = Facts { managed: open.seal.managed(), privilege, suite };
        self.events.push_back(Event::Opened(facts));
        self.dispatch(now);
    }

    pub(super) fn dispatch(&mut self, now: Instant) {
        let Phase::Open(open) = &mut self.phase else { return };
        let quirks = self.access.quirks.and(self.learned.quirks);
        let at_once = if quirks.has(Quirk::OneAtATime) { 1 } else { self.access.at_once.max(1) };
        while open.is_raised && open.flights.len() < at_once {
            let is_deed = self.queue.front().is_some_and(|(_, next)| !is_repeatable(&next.request));
            if is_deed && open.silence(now) >= STALE {
                // Nobody would know what became of it in a session that the BMC has forgotten.
                if !open.flights.iter().any(|flight| flight.owner == Owner::KeepAlive) {
                    open.send(Owner::KeepAlive, probe(), now, &mut self.random, &mut self.out);
                }
                return;
            }
            let Some((ticket, pending)) = self.queue.pop_front() else { return };
            open.send(Owner::Caller(ticket), pending, now, &mut self.random, &mut self.out);
        }
    }

    pub(super) fn react(&mut self, event: open::Event, now: Instant) {
        match event {
            open::Event::Payload(kind, number, payload) => {
                self.events.push_back(Event::Payload(kind, number, payload));
            }
            open::Event::Answer(Owner::Caller(ticket), response) => {
                self.events.push_back(Event::Answer(ticket, Ok(response)));
                if let Phase::Open(open) = &mut self.phase {
                    open.used = now;
                }
                self.dispatch(now);
            }
            open::Event::Answer(Owner::KeepAlive, _) => self.dispatch(now),
            open::Event::Answer(Owner::Raise(asked), response) => {
                match (response.completion, asked.less()) {
                    (Completion::OK, _) => self.raised(asked, now),
                    (_, Some(less)) => self.raise(less, now),
                    (_, None) => self.raised(Privilege::User, now),
                }
            }
            open::Event::Expired(flight) => match flight.owner {
                // A session that answers others and not this one.
                Owner::Caller(ticket) => {
                    let error = given_up(&flight, self.access.patience.total);
                    self.events.push_back(Event::Answer(ticket, Err(error)));
                    self.dispatch(now);
                }
                Owner::Raise(_) | Owner::KeepAlive => self.lost(now),
            },
            open::Event::Suspect => self.lost(now),
        }
    }

    /// The BMC does not know the session any more, or is gone.
    pub(super) fn lost(&mut self, now: Instant) {
        let Phase::Open(open) = std::mem::replace(&mut self.phase, Phase::Closed) else { return };
        let waited = open.silence(now);
        self.out.push_back(farewell(open.seal, &mut self.random));
        if !open.is_raised {
            // It opens sessions and answers nothing in them.
            let error = match self.reopening {
                true => Error::Lost { waited },
                false => Error::Silent { what: "commands in the session that it opened" },
            };
            return self.follow(Outcome::Fail(error), now);
        }
        let mut again = Vec::new();
        for flight in open.flights {
            let Owner::Caller(ticket) = flight.owner else { continue };
            if flight.reopened || !is_repeatable(&flight.request) {
                let error = given_up(&flight, waited);
                self.events.push_back(Event::Answer(ticket, Err(error)));
                continue;
            }
            again.push((ticket, Pending { request: flight.request, reopened: true }));
        }
        // Tickets count up, so the oldest first.
        again.sort_by_key(|(ticket, _)| std::cmp::Reverse(ticket.0));
        for entry in again {
            self.queue.push_front(entry);
        }
        self.events.push_back(Event::Lost(Error::Lost { waited }));
        self.events.push_back(Event::Closed);
        self.reopening = true;
        if !self.queue.is_empty() {
            self.want();
        }
    }

    pub(super) fn retire(&mut self, now: Instant) {
        if let Phase::Open(open) = std::mem::replace(&mut self.phase, Phase::Closed) {
            self.part(open.seal, now);
        }
    }

    pub(super) fn part(&mut self, mut seal: Seal, now: Instant) {
        let seq = self.random.bytes::<1>()[0] & 0x3f;
        let message = close_request(&seal, seq);
        self.out.push_back(seal.message(&message, &mut self.random));
        let deadline = now + self.access.patience.first;
        self.phase = Phase::Closing(Box::new(Closing { seal, seq, tries: 0, deadline }));
    }

    pub(super) fn closed(&mut self) {
        self.phase = Phase::Closed;
        self.events.push_back(Event::Closed);
        if !self.queue.is_empty() {
            self.want();
        }
    }

    pub(super) fn fail_queue(&mut self, error: &Error) {
        for (ticket, _) in self.queue.drain(..) {
            self.events.push_back(Event::Answer(ticket, Err(error.clone())));
        }
    }
}

/// What every BMC answers.
pub(super) fn probe() -> Pending {
    Pending { request: Request::new(NetFn::APP, GET_DEVICE_ID, []), reopened: false }
}

/// What is said of a request that was sent and never answered.
pub(super) fn given_up(flight: &Flight, waited: Duration) -> Error {
    match is_repeatable(&flight.request) {
        true => Error::Lost { waited },
        false => Error::Uncertain { waited },
    }
}

pub(super) fn close_request(seal: &Seal, seq: u8) -> Message {
    let id = seal.managed().to_le_bytes();
    Message::request(&Request::new(NetFn::APP, CLOSE_SESSION, id), seq)
}

/// Closes a session of which nobody will hear the answer.
pub(super) fn farewell(mut seal: Seal, random: &mut Random) -> Vec<u8> {
    let message = close_request(&seal, random.bytes::<1>()[0] & 0x3f);
    seal.message(&message, random)
}
