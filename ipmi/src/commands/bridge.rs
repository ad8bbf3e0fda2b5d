//! A controller behind the BMC, on a bus that only the BMC reaches: a blade, a power supply, a node manager.
//!
//! IPMI 2.0 §6.13 (bridging), §22.6 (Get Message), §22.7 (Send Message, table 22-9).
//!
//! The BMC answers Send Message at once, and passes the satellite's answer on when it has it: in a message of
//! its own within the session (that is what tracking is for), or behind the completion code, or, where it
//! tracks nothing, in its message queue.

use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::time::Duration;

use super::busy;
use crate::controller::Controller;
use crate::error::Error;
use crate::message::{BMC, CONSOLE, Completion, Message, NetFn, Request, Response};
use crate::wire::Malformed;

/// Get Message.
pub const GET_MESSAGE: u8 = 0x33;
/// Send Message.
pub const SEND_MESSAGE: u8 = 0x34;

const TRACKED: u8 = 0x40;
/// Logical unit of the BMC whose messages land in its queue.
const QUEUE: u8 = 2;
const QUEUE_EMPTY: Completion = Completion(0x80);

/// How often the queue is looked into, and how long between.
const LOOKS: usize = 20;
const BETWEEN_LOOKS: Duration = Duration::from_millis(100);

/// Where a controller is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Place {
    /// The channel of the bus it is on; 0 is the BMC's own.
    pub channel: u8,
    /// Its address there, as IPMB writes them (even).
    pub address: u8,
}

/// A controller behind another, asked as if it were a BMC itself.
#[derive(Debug)]
pub struct Satellite<C> {
    inner: C,
    place: Place,
    transit: Option<Place>,
    seq: AtomicU8,
    untracked: AtomicBool,
}

impl<C: Controller> Satellite<C> {
    /// One on a bus of the BMC's.
    pub fn new(inner: C, place: Place) -> Satellite<C> {
        let (seq, untracked) = (AtomicU8::new(0), AtomicBool::new(false));
        Satellite { inner, place, transit: None, seq, untracked }
    }

    /// One on a bus of another controller, which is on a bus of the BMC's.
    #[must_use]
    pub fn through(self, transit: Place) -> Satellite<C> {
        Satellite { transit: Some(transit), ..self }
    }

    fn message(&self, request: &Request, place: Place, from: u8, from_lun: u8) -> Message {
        Message {
            to: place.address,
            to_lun: request.lun,
            netfn: request.netfn,
            from,
            from_lun,
            seq: self.seq.fetch_add(1, Ordering::Relaxed) & 0x3f,
            command: request.command,
            data: request.data.clone(),
            checksums: true,
        }
    }

    /// Send Message with an answer that the BMC passes on.
    async fn tracked(&self, request: &Request) -> Result<Response, Error> {
        let mut message = self.message(request, self.place, CONSOLE, 0);
        let mut channel = self.place.channel;
        if let Some(transit) = self.transit {
            let send = send_message(TRACKED, self.place.channel, &message);
            message = self.message(&send, transit, CONSOLE, 0);
            channel = transit.channel;
        }
        let data = busy::call(&self.inner, &send_message(TRACKED, channel, &message)).await?;
        let mut answer = read(&data, &message)?;
        if self.transit.is_some() {
            if answer.completion != Completion::OK {
                return Err(refused(answer.completion));
            }
            answer = read(&answer.data, &Message { command: request.command, ..message })?;
        }
        Ok(answer)
    }

    /// Send Message whose answer lands in the BMC's queue.
    async fn queued(&self, request: &Request) -> Result<Response, Error> {
        if self.transit.is_some() {
            return Err(Error::Unsupported("bridging through another controller"));
        }
        let message = self.message(request, self.place, BMC, QUEUE);
        busy::call(&self.inner, &send_message(0, self.place.channel, &message)).await?;
        for _ in 0..LOOKS {
            let got = self.inner.ask(Request::new(NetFn::APP, GET_MESSAGE, [])).await?;
            match got.completion {
                Completion::OK => {}
                QUEUE_EMPTY => {
                    tokio::time::sleep(BETWEEN_LOOKS).await;
                    continue;
                }
                completion => {
                    let (netfn, command) = (NetFn::APP, GET_MESSAGE);
                    return Err(Error::Refused { netfn, command, completion });
                }
            }
            // The channel, then the message without the address that it came to.
            let Some((_, rest)) = got.data.split_first() else { continue };
            let whole = [&[BMC], rest].concat();
            // Others' answers, and events, are in the queue too.
            if let Ok(answer) = Message::decode(&whole)
                && answer.from == message.to
                && answer.seq == message.seq
                && answer.netfn == message.netfn.answer()
                && answer.command == message.command
                && let Some(response) = answer.response()
            {
                return Ok(response);
            }
        }
        Err(Error::Refused {
            netfn: NetFn::APP,
            command: SEND_MESSAGE,
            completion: Completion::TIMEOUT,
        })
    }
}

fn refused(completion: Completion) -> Error {
    Error::Refused { netfn: NetFn::APP, command: SEND_MESSAGE, completion }
}

fn send_message(tracking: u8, channel: u8, message: &Message) -> Request {
    let mut data = vec![tracking | channel & 0x0f];
    data.extend(message.encode());
    Request::new(NetFn::APP, SEND_MESSAGE, data)
}

/// The answer to a message, of which the BMC passed on the bytes.
fn read(bytes: &[u8], asked: &Message) -> Result<Response, Error> {
    if bytes.is_empty() {
        return Err(Error::Unsupported("bridging: it sends a message on, and no answer back"));
    }
    let answer = Message::decode(bytes)?;
    if answer.command != asked.command || answer.netfn.0 & 1 == 0 {
        return Err(Malformed("an answer of a satellite to something else").into());
    }
    Ok(answer.response().ok_or(Malformed("an answer of a satellite without completion code"))?)
}

impl<C: Controller> Controller for Satellite<C> {
    async fn ask(&self, request: Request) -> Result<Response, Error> {
        if self.untracked.load(Ordering::Relaxed) {
            return self.queued(&request).await;
        }
        match self.tracked(&request).await {
            // It does not take "tracked"; a satellite that is not there is another code.
            Err(error) if error.completion() == Some(Completion::INVALID_FIELD) => {
                let answer = self.queued(&request).await?;
                self.untracked.store(true, Ordering::Relaxed);
                Ok(answer)
            }
            outcome => outcome,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commands::script::{Script, ok, refuse};

    const PLACE: Place = Place { channel: 0, address: 0x82 };

    fn id() -> Request {
        Request::new(NetFn::APP, 0x01, [])
    }

    fn asked(seq: u8) -> Message {
        let mut message = Message::request(&id(), seq);
        message.to = PLACE.address;
        message
    }

    fn answered(message: &Message, code: u8, data: &[u8]) -> Vec<u8> {
        let completion = Completion(code);
        message.respond(&Response { completion, data: data.to_vec() }).encode()
    }

    #[tokio::test]
    async fn an_answer_that_is_passed_on_and_a_satellite_that_is_not_there() {
        let nonsense = answered(&Message { command: 2, ..asked(2) }, 0, &[]);
        let bmc = Script::new([
            (send_message(TRACKED, 0, &asked(0)), ok(answered(&asked(0), 0xc1, &[7]))),
            (send_message(TRACKED, 0, &asked(1)), refuse(0x83)),
            (send_message(TRACKED, 0, &asked(2)), ok(nonsense)),
            (send_message(TRACKED, 0, &asked(3)), ok([])),
            (send_message(TRACKED, 0, &asked(4)), ok([1, 2, 3])),
        ]);
        let satellite = Satellite::new(&bmc, PLACE);
        let answer = satellite.ask(id()).await.unwrap();
        assert_eq!((answer.completion, answer.data), (Completion::INVALID_COMMAND, vec![7]));
        let error = satellite.ask(id()).await.unwrap_err();
        assert!(error.to_string().contains("nobody answers at that address"), "{error}");
        for _ in 0..3 {
            assert!(satellite.ask(id()).await.is_err());
        }
        bmc.finish();
    }

    #[tokio::test]
    async fn through_a_transit_and_back() {
        let transit = Place { channel: 6, address: 0x24 };
        let send = send_message(TRACKED, 0, &asked(0));
        let mut outer = Message::request(&send, 1);
        outer.to = transit.address;
        let back = answered(&outer, 0, &answered(&asked(0), 0, &[0x82]));
        let bmc = Script::new([(send_message(TRACKED, 6, &outer), ok(back))]);
        let satellite = Satellite::new(&bmc, PLACE).through(transit);
        assert_eq!(satellite.call(id()).await.unwrap(), [0x82]);
        bmc.finish();
    }

    #[tokio::test]
    async fn where_nothing_is_tracked_the_queue_is_looked_into() {
        let untracked = |seq| {
            let mut message = asked(seq);
            (message.from, message.from_lun) = (BMC, QUEUE);
            message
        };
        let get = || Request::new(NetFn::APP, GET_MESSAGE, []);
        let got = |seq: u8| {
            let bytes = answered(&untracked(seq), 0, &[seq]);
            ok([&[0x00], &bytes[1..]].concat())
        };
        let bmc = Script::new([
            (send_message(TRACKED, 0, &asked(0)), refuse(0xcc)),
            (send_message(0, 0, &untracked(1)), ok([])),
            (get(), refuse(0x80)),
            (get(), got(9)),
            (get(), got(1)),
            (send_message(0, 0, &untracked(2)), ok([])),
            (get(), got(2)),
        ]);
        let satellite = Satellite::new(&bmc, PLACE);
        assert_eq!(satellite.call(id()).await.unwrap(), [1]);
        assert_eq!(satellite.call(id()).await.unwrap(), [2], "learned");
        bmc.finish();
    }
}
