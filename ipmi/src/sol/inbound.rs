//! From the machine: packets told apart from their repetitions, gaps counted, characters kept until read.
//!
//! IPMI 2.0 §15.9 to §15.11. Packets are numbered 1 to 15 and around, and one is on its way at a time: the
//! BMC repeats it until it is acknowledged or its patience ends. A repetition may carry more characters than
//! the first did. Each repetition is a new datagram of the session, whose own number tells what was delayed
//! on the way from what is new.

use std::collections::VecDeque;
use std::time::Instant;

use bytes::BytesMut;

use super::event::Event;
use crate::wire::sol::{BREAK_DETECTED, DEACTIVATING, Sol, TRANSFER_UNAVAILABLE, TRANSMIT_OVERRUN};

/// Marks that are kept for a reader who does not read; more of them are dropped, characters never are.
const MARKS: usize = 64;
/// Characters that are handed out at once.
const CHUNK: usize = 4096;

/// What is due to the BMC for a packet of its.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Ack {
    pub sequence: u8,
    pub accepted: u8,
}

/// The last packet that had a number.
struct Last {
    sequence: u8,
    /// The session's number of its newest repetition.
    number: u32,
    /// What was taken of it.
    taken: Vec<u8>,
    /// Not all of what it had was taken.
    partly: bool,
}

enum Pending {
    Data { at: Instant, sequence: u8, bytes: BytesMut },
    Mark(Event),
}

pub(super) struct Inbound {
    last: Option<Last>,
    /// The session's newest number of all.
    newest: Option<u32>,
    ack: Option<Ack>,
    pending: VecDeque<Pending>,
    /// Characters in `pending`, and how many there may be.
    held: usize,
    limit: usize,
    marks: usize,
    pub unavailable: bool,
    pub deactivated: bool,
}

/// Whether `number` was given before `other`, around the end of 32 bits.
pub(super) fn is_before(number: u32, other: u32) -> bool {
    number != other && other.wrapping_sub(number) < 1 << 31
}

impl Inbound {
    pub fn new(limit: usize) -> Inbound {
        Inbound {
            last: None,
            newest: None,
            ack: None,
            pending: VecDeque::new(),
            held: 0,
            limit,
            marks: 0,
            unavailable: false,
            deactivated: false,
        }
    }

    /// Takes a packet; `number` is that of its datagram in the session.
    pub fn take(&mut self, number: u32, packet: &Sol<'_>, now: Instant) {
        let late = self.newest.is_some_and(|newest| is_before(number, newest));
        if !late {
            self.newest = Some(number);
            self.status(packet);
        }
        if packet.sequence != 0 {
            self.numbered(number, packet, now);
        } else if !late {
            self.marks_of(packet.flags);
        }
    }

    fn status(&mut self, packet: &Sol<'_>) {
        self.deactivated |= packet.flags & DEACTIVATING != 0;
        let unavailable = packet.flags & TRANSFER_UNAVAILABLE != 0;
        if unavailable != self.unavailable {
            self.unavailable = unavailable;
            self.mark(if unavailable { Event::Unavailable } else { Event::Available });
        }
    }

    fn numbered(&mut self, number: u32, packet: &Sol<'_>, now: Instant) {
        let last = self.last.take();
        let Some(mut last) = last else {
            // The first one may have any number: a BMC goes on counting where another's session ended.
            return self.fresh(number, packet, now);
        };
        if is_before(number, last.number) {
            // Delayed on the way: it was repeated, or given up, before what came since.
            self.last = Some(last);
        } else if packet.sequence == last.sequence {
            let known = last.taken.len().min(packet.data.len());
            if packet.data.get(..known) == last.taken.get(..known) {
                last.number = number;
                let rest = packet.data.get(known..).unwrap_or_default();
                self.accept(last, rest, packet.data.len(), now);
            } else if last.partly {
                // The rest of what was taken in part, under the number of the whole.
                self.fresh(number, packet, now);
            } else {
                self.mark(Event::Gap { packets: 14 });
                self.fresh(number, packet, now);
            }
        } else {
            let missing = (packet.sequence + 15 - last.sequence - 1) % 15;
            if missing > 0 {
                self.mark(Event::Gap { packets: missing.into() });
            }
            self.fresh(number, packet, now);
        }
    }

    fn fresh(&mut self, number: u32, packet: &Sol<'_>, now: Instant) {
        self.marks_of(packet.flags);
        let last = Last { sequence: packet.sequence, number, taken: Vec::new(), partly: false };
        self.accept(last, packet.data, packet.data.len(), now);
    }

    /// Takes as many characters as there is room for. The BMC sends the others again: in a packet of their
    /// own, as it should, or by repeating this one. Where none fit nothing is answered: OpenBMC answers a
    /// refusal with an immediate repetition, which would go on as fast as the network can.
    fn accept(&mut self, mut last: Last, rest: &[u8], whole: usize, now: Instant) {
        let room = self.limit.saturating_sub(self.held);
        let countable = usize::from(u8::MAX).saturating_sub(last.taken.len());
        let (fits, over) = rest.split_at(rest.len().min(room).min(countable));
        last.partly = !over.is_empty();
        last.taken.extend_from_slice(fits);
        if !fits.is_empty() {
            self.data(last.sequence, fits, now);
        }
        if !over.is_empty() && last.taken.is_empty() {
            self.ack = None;
        } else {
            let accepted = u8::try_from(last.taken.len().min(whole)).unwrap_or(u8::MAX);
            self.ack = Some(Ack { sequence: last.sequence, accepted });
        }
        self.last = Some(last);
    }

    fn data(&mut self, sequence: u8, fits: &[u8], now: Instant) {
        self.held += fits.len();
        match self.pending.back_mut() {
            Some(Pending::Data { bytes, .. }) if bytes.len() + fits.len() <= CHUNK => {
                bytes.extend_from_slice(fits);
            }
            _ => self.pending.push_back(Pending::Data {
                at: now,
                sequence,
                bytes: BytesMut::from(fits),
            }),
        }
    }

    fn marks_of(&mut self, flags: u8) {
        if flags & TRANSMIT_OVERRUN != 0 {
            self.mark(Event::Overrun);
        }
        if flags & BREAK_DETECTED != 0 {
            self.mark(Event::Break);
        }
    }

    fn mark(&mut self, event: Event) {
        if let (Some(Pending::Mark(Event::Gap { packets })), Event::Gap { packets: more }) =
            (self.pending.back_mut(), &event)
        {
            *packets = packets.saturating_add(*more);
            return;
        }
        if self.marks < MARKS {
            self.marks += 1;
            self.pending.push_back(Pending::Mark(event));
        }
    }

    pub fn ack(&mut self) -> Option<Ack> {
        self.ack.take()
    }

    /// The next event for the reader.
    pub fn event(&mut self) -> Option<Event> {
        Some(match self.pending.pop_front()? {
            Pending::Mark(event) => {
                self.marks -= 1;
                event
            }
            Pending::Data { at, sequence, bytes } => {
                self.held = self.held.saturating_sub(bytes.len());
                Event::Data { at, sequence, bytes: bytes.freeze() }
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn packet(sequence: u8, data: &[u8]) -> Sol<'_> {
        Sol { sequence, ack: 0, accepted: 0, flags: 0, data }
    }

    struct Line {
        inbound: Inbound,
        now: Instant,
        number: u32,
    }

    impl Line {
        fn new(limit: usize) -> Line {
            Line { inbound: Inbound::new(limit), now: Instant::now(), number: u32::MAX - 3 }
        }

        /// A packet in a new datagram, and the acknowledgement it gets.
        fn hear(&mut self, packet: &Sol<'_>) -> Option<(u8, u8)> {
            self.number = self.number.wrapping_add(1);
            self.inbound.take(self.number, packet, self.now);
            self.inbound.ack().map(|ack| (ack.sequence, ack.accepted))
        }

        fn read(&mut self) -> Vec<String> {
            std::iter::from_fn(|| self.inbound.event())
                .map(|event| match event {
                    Event::Data { bytes, .. } => String::from_utf8_lossy(&bytes).into_owned(),
                    mark => format!("{mark:?}"),
                })
                .collect()
        }
    }

    #[test]
    fn numbers_go_around_and_nothing_is_missed() {
        let mut line = Line::new(1000);
        for sequence in (5..=15).chain(1..=15).chain(1..=3) {
            assert_eq!(line.hear(&packet(sequence, b"x")), Some((sequence, 1)));
        }
        assert_eq!(line.read(), ["x".repeat(29)]);
    }

    #[test]
    fn a_repetition_is_acknowledged_and_heard_once_with_what_it_adds() {
        let mut line = Line::new(1000);
        assert_eq!(line.hear(&packet(1, b"log")), Some((1, 3)));
        assert_eq!(line.hear(&packet(1, b"log")), Some((1, 3)));
        assert_eq!(line.hear(&packet(1, b"login: ")), Some((1, 7)));
        assert_eq!(line.hear(&packet(1, b"lo")), Some((1, 2)), "less than before adds nothing");
        assert_eq!(line.hear(&packet(2, b"root")), Some((2, 4)));
        assert_eq!(line.read(), ["login: root"]);
    }

    #[test]
    fn what_was_delayed_on_the_way_is_neither_text_nor_a_gap() {
        let mut line = Line::new(1000);
        line.hear(&packet(1, b"a"));
        let delayed = line.number;
        line.hear(&packet(2, b"b"));
        line.inbound.take(delayed, &packet(1, b"a"), line.now);
        assert_eq!(line.inbound.ack(), None);
        line.hear(&packet(3, b"c"));
        assert_eq!(line.read(), ["abc"]);
        // An acknowledgement that overtook the packet before it makes that packet no less new.
        line.number = line.number.wrapping_add(2);
        line.inbound.take(line.number, &packet(0, b""), line.now);
        line.inbound.take(line.number.wrapping_sub(1), &packet(4, b"d"), line.now);
        assert_eq!(line.read(), ["d"]);
    }

    #[test]
    fn gaps_are_counted_around_the_end() {
        let mut line = Line::new(1000);
        line.hear(&packet(14, b"a"));
        line.hear(&packet(2, b"b"));
        line.hear(&packet(4, b"c"));
        assert_eq!(line.read(), ["a", "Gap { packets: 2 }", "b", "Gap { packets: 1 }", "c"]);
        // All fifteen numbers later: the same number and other text.
        line.hear(&packet(4, b"d"));
        assert_eq!(line.read(), ["Gap { packets: 14 }", "d"]);
    }

    #[test]
    fn a_reader_who_does_not_read_holds_the_line_up() {
        let mut line = Line::new(5);
        assert_eq!(line.hear(&packet(1, b"abc")), Some((1, 3)));
        assert_eq!(line.hear(&packet(2, b"defg")), Some((2, 2)));
        assert_eq!(line.hear(&packet(3, b"fg")), None, "no room, no answer");
        assert_eq!(line.read(), ["abcde"]);
        assert_eq!(line.hear(&packet(3, b"fg")), Some((3, 2)));
        assert_eq!(line.read(), ["fg"]);
    }

    /// OpenBMC repeats the whole packet when a part was taken.
    #[test]
    fn the_whole_again_after_a_part() {
        let mut line = Line::new(5);
        assert_eq!(line.hear(&packet(1, b"abcdefg")), Some((1, 5)));
        assert_eq!(line.read(), ["abcde"]);
        assert_eq!(line.hear(&packet(1, b"abcdefg")), Some((1, 7)));
        assert_eq!(line.read(), ["fg"]);
        assert_eq!(line.hear(&packet(2, b"abcdefg")), Some((2, 5)));
        assert_eq!(line.read(), ["abcde"]);
        assert_eq!(line.hear(&packet(2, b"fg")), Some((2, 2)), "the rest under the same number");
        assert_eq!(line.read(), ["fg"]);
    }

    #[test]
    fn marks_are_heard_once_and_in_order() {
        let mut line = Line::new(100);
        let flags = BREAK_DETECTED | TRANSMIT_OVERRUN;
        let broken = Sol { flags, ..packet(1, b"a") };
        line.hear(&broken);
        line.hear(&broken);
        assert_eq!(line.read(), ["Overrun", "Break", "a"]);
        line.hear(&Sol { flags: TRANSFER_UNAVAILABLE, ..packet(0, b"") });
        line.hear(&Sol { flags: TRANSFER_UNAVAILABLE, ..packet(0, b"") });
        line.hear(&packet(0, b""));
        assert_eq!(line.read(), ["Unavailable", "Available"]);
        for _ in 0..10_000 {
            line.hear(&Sol { flags, ..packet(0, b"") });
        }
        assert_eq!(line.read().len(), MARKS);
        line.hear(&Sol { flags: DEACTIVATING, ..packet(0, b"") });
        assert!(line.inbound.deactivated);
    }

    #[test]
    fn more_characters_than_can_be_counted() {
        let mut line = Line::new(1000);
        let data = [b'x'; 300];
        assert_eq!(line.hear(&packet(1, &data)), Some((1, 255)));
        assert_eq!(line.hear(&packet(2, &data[255..])), Some((2, 45)));
        assert_eq!(line.read()[0].len(), 300);
    }
}
