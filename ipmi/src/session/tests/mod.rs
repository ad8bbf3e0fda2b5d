//! A session against the smallest BMC there is, over a network that loses, repeats and turns around what
//! it is told to, on a clock that only moves when nothing else does.

mod commands;
mod fake;
mod hostile;
mod opening;

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::{Access, Event, Learned, Random, Session, Ticket};
use crate::crypto::Password;
use crate::error::Error;
use crate::message::{NetFn, Request, Response};
use fake::{Fake, Odd, PASSWORD, USER};

/// What happens to a datagram.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    Pass,
    Lose,
    Twice,
}

struct Rig {
    session: Session,
    fake: Fake,
    start: Instant,
    now: Instant,
    events: Vec<Event>,
    /// Fates of the datagrams to the BMC, and from it, in their order; then all pass.
    there: Vec<Fate>,
    back: Vec<Fate>,
    /// Everything that went either way.
    sent: Vec<Vec<u8>>,
    received: Vec<Vec<u8>>,
}

fn access() -> Access {
    Access::new("bmc", USER, Password::new(PASSWORD).unwrap())
}

fn get(command: u8) -> Request {
    Request::new(NetFn::APP, command, [1, 2])
}

fn rig(odd: Odd) -> Rig {
    rig_of(odd, access(), Learned::default())
}

fn rig_of(odd: Odd, access: Access, learned: Learned) -> Rig {
    let now = Instant::now();
    Rig {
        session: Session::new(Arc::new(access), learned, Random::seeded(5)),
        fake: Fake::new(odd),
        start: now,
        now,
        events: Vec::new(),
        there: Vec::new(),
        back: Vec::new(),
        sent: Vec::new(),
        received: Vec::new(),
    }
}

fn fate(fates: &mut Vec<Fate>) -> Fate {
    if fates.is_empty() { Fate::Pass } else { fates.remove(0) }
}

impl Rig {
    fn elapsed(&self) -> Duration {
        self.now - self.start
    }

    fn events(&mut self) {
        while let Some(event) = self.session.poll_event() {
            if event == Event::Wanted {
                self.session.open(self.now);
            }
            self.events.push(event);
        }
    }

    fn deliver(&mut self, datagram: &[u8]) {
        self.received.push(datagram.to_vec());
        self.session.handle(datagram, self.now);
    }

    /// Everything that goes on without the clock.
    fn exchange(&mut self) {
        loop {
            self.events();
            let Some(datagram) = self.session.poll_transmit() else { return };
            self.sent.push(datagram.clone());
            let times = match fate(&mut self.there) {
                Fate::Lose => 0,
                Fate::Pass => 1,
                Fate::Twice => 2,
            };
            for _ in 0..times {
                for answer in self.fake.handle(&datagram) {
                    match fate(&mut self.back) {
                        Fate::Lose => {}
                        Fate::Pass => self.deliver(&answer),
                        Fate::Twice => {
                            self.deliver(&answer);
                            self.deliver(&answer);
                        }
                    }
                }
            }
        }
    }

    /// Until an event comes; the clock moves from deadline to deadline.
    fn until(&mut self, is_it: impl Fn(&Event) -> bool) -> Event {
        for _ in 0..500 {
            self.exchange();
            if let Some(at) = self.events.iter().position(&is_it) {
                return self.events.remove(at);
            }
            let Some(deadline) = self.session.deadline() else { panic!("{:?}", self.events) };
            self.now = self.now.max(deadline);
            self.session.handle_timeout(self.now);
        }
        panic!("it never comes: {:?}", self.events);
    }

    fn answer(&mut self, ticket: Ticket) -> Result<Response, Error> {
        let event =
            self.until(|event| matches!(event, Event::Answer(other, _) if *other == ticket));
        let Event::Answer(_, answer) = event else { unreachable!() };
        answer
    }

    fn ask(&mut self, request: Request) -> Result<Response, Error> {
        let ticket = self.session.ask(request, self.now);
        self.answer(ticket)
    }

    fn opened(&mut self) -> super::Facts {
        let event = self.until(|event| matches!(event, Event::Opened(_)));
        let Event::Opened(facts) = event else { unreachable!() };
        facts
    }

    /// Lets the time pass.
    fn rest(&mut self, time: Duration) {
        let end = self.now + time;
        loop {
            self.exchange();
            match self.session.deadline() {
                Some(deadline) if deadline <= end => {
                    self.now = self.now.max(deadline);
                    self.session.handle_timeout(self.now);
                }
                _ => break,
            }
        }
        self.now = end;
    }
}
