//! One active SOL payload: what is read and typed on one side, payloads of the session on the other.
//!
//! It is handed payloads with the time, and what is to be sent; it hands back payloads, events and when to
//! come back.

use std::time::{Duration, Instant};

use super::event::{Event, Operation};
use super::inbound::{Ack, Inbound};
use super::outbound::{Outbound, Timing};
use crate::wire::sol::Sol;

/// What an engine goes by.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Characters that a packet to the BMC may carry, 1 to 255.
    pub largest: usize,
    /// Characters that wait to be sent before [`Engine::write`] takes no more.
    pub input: usize,
    /// Characters that wait to be read before the BMC's are no longer acknowledged.
    pub output: usize,
    /// How long to wait for the first acknowledgement; later what is measured counts, down to a fifth of it.
    pub retry: Duration,
    /// Unanswered for so long, the line is deaf.
    pub patience: Duration,
    /// The BMC acknowledges a packet once and drops its repetitions without a word (OpenBMC). It is found
    /// out, at the price of some seconds.
    pub acks_once: bool,
}

impl Default for Settings {
    fn default() -> Settings {
        Settings {
            largest: 255,
            input: 4096,
            output: 16 * 1024,
            retry: Duration::from_millis(500),
            patience: Duration::from_secs(15),
            acks_once: false,
        }
    }
}

/// Why an engine can do no more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// The BMC says that the payload is deactivated, or about to be.
    Deactivated,
    /// It acknowledges nothing.
    Deaf,
}

/// The state of one activation.
pub struct Engine {
    inbound: Inbound,
    outbound: Outbound,
}

impl Engine {
    /// Just activated.
    pub fn new(settings: &Settings) -> Engine {
        let timing = Timing {
            initial: settings.retry,
            least: settings.retry / 5,
            most: settings.retry * 2,
            patience: settings.patience,
        };
        let Settings { largest, input, acks_once, .. } = *settings;
        Engine {
            inbound: Inbound::new(settings.output),
            outbound: Outbound::new(largest, input, acks_once, timing),
        }
    }

    /// Types: takes as much as there is room for, and says how much that was.
    pub fn write(&mut self, bytes: &[u8]) -> usize {
        self.outbound.write(bytes)
    }

    /// Characters that [`write`](Self::write) would take.
    pub fn room(&self) -> usize {
        self.outbound.room()
    }

    /// Characters that were typed and not acknowledged.
    pub fn waiting(&self) -> usize {
        self.outbound.waiting()
    }

    /// Whether all that was typed and done is acknowledged.
    pub fn is_idle(&self) -> bool {
        self.outbound.is_idle()
    }

    /// Does something to the line, after what was typed before. `false`: too much of it waits already.
    pub fn operate(&mut self, operation: Operation) -> bool {
        self.outbound.operate(operation)
    }

    /// Whether it was found that this BMC acknowledges once only.
    pub fn acks_once(&self) -> bool {
        self.outbound.acks_once
    }

    /// Takes a SOL payload; `number` is the session's number of its datagram. One that cannot be read is
    /// dropped.
    pub fn handle(&mut self, number: u32, payload: &[u8], now: Instant) {
        let Ok(packet) = Sol::decode(payload) else { return };
        self.inbound.take(number, &packet, now);
        self.outbound.acknowledged(number, &packet, self.inbound.unavailable, now);
    }

    /// The next payload to send now; to be called until there is none. An acknowledgement rides on characters
    /// where some are ready, but not on repetitions: firmware that has those drops them whole.
    pub fn poll(&mut self, now: Instant) -> Option<Vec<u8>> {
        if let Some(packet) = self.outbound.again(now) {
            return Some(encode(packet.sequence, None, packet.flags, &packet.data));
        }
        if let Some(packet) = self.outbound.fresh(now) {
            let ack = self.inbound.ack();
            return Some(encode(packet.sequence, ack, packet.flags, &packet.data));
        }
        let ack = self.inbound.ack()?;
        Some(encode(0, Some(ack), self.outbound.levels(), b""))
    }

    /// When to call [`poll`](Self::poll) next, if nothing else happens.
    pub fn deadline(&self) -> Option<Instant> {
        self.outbound.deadline()
    }

    /// What there is to read.
    pub fn event(&mut self) -> Option<Event> {
        self.inbound.event()
    }

    /// Whether, and why, it is over: what there is to read can still be read.
    pub fn ended(&self) -> Option<Ended> {
        if self.inbound.deactivated {
            Some(Ended::Deactivated)
        } else {
            self.outbound.deaf.then_some(Ended::Deaf)
        }
    }
}

fn encode(sequence: u8, ack: Option<Ack>, flags: u8, data: &[u8]) -> Vec<u8> {
    let (ack, accepted) = ack.map_or((0, 0), |ack| (ack.sequence, ack.accepted));
    Sol { sequence, ack, accepted, flags, data }.encode()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::wire::sol::NACK;

    #[test]
    fn an_acknowledgement_rides_on_what_is_typed_but_not_on_repetitions() {
        let now = Instant::now();
        let mut engine = Engine::new(&Settings::default());
        engine.handle(1, &[1, 0, 0, 0, b'$'], now);
        engine.write(b"ls");
        assert_eq!(engine.poll(now), Some(vec![1, 1, 1, 0, b'l', b's']));
        assert_eq!(engine.poll(now), None);
        let later = engine.deadline().unwrap();
        engine.handle(2, &[2, 0, 0, 0, b' '], later);
        assert_eq!(engine.poll(later), Some(vec![1, 0, 0, 0, b'l', b's']));
        assert_eq!(engine.poll(later), Some(vec![0, 2, 1, 0]));
        assert_eq!(engine.poll(later), None);
        engine.handle(3, &[0, 1, 2, 0], later);
        assert!(engine.is_idle() && engine.deadline().is_none());
    }

    #[test]
    fn it_ends_when_the_bmc_says_so_and_what_came_is_read() {
        let now = Instant::now();
        let mut engine = Engine::new(&Settings::default());
        engine.handle(1, &[1, 0, 0, 0x10, b'!'], now);
        assert_eq!(engine.ended(), Some(Ended::Deactivated));
        assert!(matches!(engine.event(), Some(Event::Data { .. })));
    }

    #[derive(Debug, Clone)]
    enum Step {
        Hear { number: u32, payload: Vec<u8> },
        Type(Vec<u8>),
        Do(Operation),
        Read,
        Wait(u16),
    }

    fn step() -> impl Strategy<Value = Step> {
        let flags = prop_oneof![Just(0), Just(NACK), any::<u8>()];
        let head = (0u8..17, 0u8..17, any::<u8>(), flags);
        let packet = (head, prop::collection::vec(any::<u8>(), 0..300));
        let packet = packet.prop_map(|((a, b, c, d), data)| [vec![a, b, c, d], data].concat());
        let payload = prop_oneof![4 => packet, 1 => prop::collection::vec(any::<u8>(), 0..8)];
        let number = prop_oneof![0u32..40, any::<u32>()];
        prop_oneof![
            4 => (number, payload).prop_map(|(number, payload)| Step::Hear { number, payload }),
            1 => prop::collection::vec(any::<u8>(), 0..500).prop_map(Step::Type),
            1 => prop_oneof![
                Just(Operation::Break),
                Just(Operation::Cts(false)),
                Just(Operation::FlushOutbound)
            ]
            .prop_map(Step::Do),
            1 => Just(Step::Read),
            2 => any::<u16>().prop_map(Step::Wait),
        ]
    }

    proptest! {
        /// Whatever a BMC sends: bounds hold, a packet is answered by a few at most, and there is always
        /// something to wait for while something is not acknowledged.
        #[test]
        fn any_bmc(steps in prop::collection::vec(step(), 0..200), acks_once: bool) {
            let settings =
                Settings { largest: 40, input: 600, output: 700, acks_once, ..Settings::default() };
            let mut engine = Engine::new(&settings);
            let mut now = Instant::now();
            let mut unread = 0;
            for step in steps {
                match step {
                    Step::Hear { number, payload } => {
                        engine.handle(number, &payload, now);
                        unread += payload.len();
                    }
                    Step::Type(bytes) => prop_assert!(engine.write(&bytes) <= bytes.len()),
                    Step::Do(operation) => drop(engine.operate(operation)),
                    Step::Read => {
                        let mut read = 0;
                        while let Some(event) = engine.event() {
                            if let Event::Data { bytes, .. } = event {
                                prop_assert!(!bytes.is_empty());
                                read += bytes.len();
                            }
                        }
                        prop_assert!(read <= settings.output && read <= unread);
                        unread = 0;
                    }
                    Step::Wait(milliseconds) => now += Duration::from_millis(milliseconds.into()),
                }
                for sent in 0.. {
                    let Some(payload) = engine.poll(now) else { break };
                    prop_assert!(sent < 3 && (4..=4 + settings.largest).contains(&payload.len()));
                }
                prop_assert!(engine.deadline().is_none_or(|deadline| deadline > now));
                prop_assert!(engine.is_idle() || engine.deadline().is_some());
                // What was typed, and a packet of it that was not accepted.
                prop_assert!(engine.waiting() <= settings.input + settings.largest);
            }
        }
    }
}
