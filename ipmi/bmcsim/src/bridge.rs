//! Controllers behind the BMC, and how their answers come back.
//!
//! IPMI 2.0 §6.13 (bridging), §22.6 (Get Message), §22.7 (Send Message).

use std::collections::VecDeque;

use koboshi_ipmi::wire::v20::PayloadType;
use koboshi_ipmi::{Completion, Message, NetFn, Response};

use crate::bmc::Bmc;
use crate::channel::IPMB;
use crate::dispatch::{Asked, ok, refuse};

/// Nobody answers at that address.
const NAK: Completion = Completion(0x83);
const QUEUE_EMPTY: Completion = Completion(0x80);
/// Messages that the queue holds.
const QUEUE: usize = 8;

/// How the answer of a satellite comes to who tracks it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Style {
    /// In a message of its own, in the same session.
    #[default]
    Follows,
    /// Behind the completion code of Send Message.
    Embedded,
    /// Not at all: nothing is tracked, answers are in the queue.
    Queued,
}

/// Controllers behind the BMC.
#[derive(Debug, Clone)]
pub struct Bridge {
    /// Addresses on the IPMB where one answers. It says who it is (its device id is its address), has one
    /// sensor, number 1, that reads 33, and knows no other command.
    pub satellites: Vec<u8>,
    /// How their answers come back.
    pub style: Style,
    queue: VecDeque<Vec<u8>>,
}

impl Default for Bridge {
    fn default() -> Bridge {
        Bridge { satellites: vec![0x82], style: Style::Follows, queue: VecDeque::new() }
    }
}

/// Answers for it.
pub fn answer(bmc: &mut Bmc, asked: &Asked<'_>) -> Option<Response> {
    match (asked.command, asked.data) {
        (0x33, _) => match bmc.bridge.queue.pop_front() {
            Some(message) => ok(message),
            None => refuse(QUEUE_EMPTY),
        },
        (0x34, [channel, bytes @ ..]) => send(bmc, asked, *channel, bytes),
        (0x34, []) => refuse(Completion::LENGTH_INVALID),
        _ => None,
    }
}

fn send(bmc: &mut Bmc, asked: &Asked<'_>, channel: u8, bytes: &[u8]) -> Option<Response> {
    let tracked = channel >> 6 == 1;
    if channel & 0x0f != IPMB || channel >> 6 > 1 || tracked && bmc.bridge.style == Style::Queued {
        return refuse(Completion::INVALID_FIELD);
    }
    let Ok(message) = Message::decode(bytes) else { return refuse(Completion::LENGTH_INVALID) };
    if !message.checksums || !bmc.bridge.satellites.contains(&message.to) {
        return refuse(NAK);
    }
    let answer = message.respond(&satellite(&message)).encode();
    match (tracked, bmc.bridge.style, asked.session) {
        (true, Style::Embedded, _) => ok(answer),
        (true, _, Some(session)) => {
            bmc.send(session, PayloadType::Ipmi, answer);
            ok([])
        }
        _ => {
            // As Get Message hands it out: the channel in place of the address that it came to.
            let mut queued = answer;
            if let Some(first) = queued.first_mut() {
                *first = IPMB;
            }
            if bmc.bridge.queue.len() == QUEUE {
                bmc.bridge.queue.pop_front();
            }
            bmc.bridge.queue.push_back(queued);
            ok([])
        }
    }
}

/// What a satellite answers.
fn satellite(message: &Message) -> Response {
    match (message.netfn, message.command) {
        (NetFn::APP, 0x01) => Response {
            completion: Completion::OK,
            data: vec![message.to, 0x01, 0x09, 0x05, 0x02, 0x29, 0x57, 0x01, 0x00, 0x34, 0x12],
        },
        (NetFn::SENSOR, 0x2d) if message.data.first() == Some(&1) => {
            Response { completion: Completion::OK, data: vec![33, 0xc0, 0xc0] }
        }
        _ => Response { completion: Completion::INVALID_COMMAND, data: Vec::new() },
    }
}
