//! To the machine: what is typed and done, in order, a packet at a time, repeated until it is acknowledged.
//!
//! IPMI 2.0 §15.9 to §15.11. A repetition has the number and the characters of the first; what was not
//! accepted of a packet goes into the next one.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::event::Operation;
use super::inbound::is_before;
use crate::wire::sol::{
    BREAK, CTS_PAUSE, DROP_DCD, FLUSH_INBOUND, FLUSH_OUTBOUND, NACK, RING, Sol,
};

/// Operations that wait; more are refused.
const OPERATIONS: usize = 16;
/// Repetitions without an answer before numbers behind this one are tried, without characters. OpenBMC drops
/// without a word what has not the number it waits for, a repetition of what it has too: once an
/// acknowledgement is lost, only the next number gets an answer, which then may get lost as well. The first
/// is where nobody knows that this BMC needs it, the other where it is known.
const PROBE_AFTER: u32 = 10;
const PROBE_AFTER_KNOWN: u32 = 2;
/// How far the numbers behind go.
const PROBES: u8 = 7;
/// Between attempts while the BMC says that it cannot pass characters on.
const UNAVAILABLE: Duration = Duration::from_secs(2);

/// How long to wait for an acknowledgement.
#[derive(Debug, Clone, Copy)]
pub(super) struct Timing {
    /// Before anything is known of the way there.
    pub initial: Duration,
    /// Never less than this.
    pub least: Duration,
    /// Never more than this.
    pub most: Duration,
    /// Unanswered for so long, the line is deaf.
    pub patience: Duration,
}

/// A packet that is to be sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Packet {
    pub sequence: u8,
    pub flags: u8,
    pub data: Vec<u8>,
}

struct Outstanding {
    packet: Packet,
    first: Instant,
    sent: Instant,
    due: Instant,
    /// Times that it was sent since anything was heard of it.
    tries: u32,
    repeated: bool,
    /// How far behind its number the last one was that was sent, 0 for itself, and how far it goes.
    probe: u8,
    probes: u8,
}

pub(super) struct Outbound {
    queue: VecDeque<u8>,
    limit: usize,
    /// Operations, each with how many characters of the queue go before it.
    operations: VecDeque<(usize, Operation)>,
    /// CTS and DCD, which every packet repeats.
    levels: u8,
    largest: usize,
    next: u8,
    outstanding: Option<Outstanding>,
    /// The session's number of the datagram that acknowledged last: an older one acknowledges nothing new.
    acked: Option<u32>,
    /// The BMC takes no characters; when to try all the same.
    held: Option<Instant>,
    timing: Timing,
    round_trip: Option<(Duration, Duration)>,
    /// The BMC acknowledges a packet once and no repetition of it (OpenBMC's netipmid).
    pub acks_once: bool,
    pub deaf: bool,
}

fn beyond(sequence: u8, by: u8) -> u8 {
    (sequence + 14 + by) % 15 + 1
}

fn after(sequence: u8) -> u8 {
    beyond(sequence, 1)
}

impl Outbound {
    pub fn new(largest: usize, limit: usize, acks_once: bool, timing: Timing) -> Outbound {
        Outbound {
            queue: VecDeque::new(),
            limit,
            operations: VecDeque::new(),
            levels: 0,
            largest: largest.clamp(1, 255),
            next: 1,
            outstanding: None,
            acked: None,
            held: None,
            timing,
            round_trip: None,
            acks_once,
            deaf: false,
        }
    }

    /// Takes as much as there is room for.
    pub fn write(&mut self, bytes: &[u8]) -> usize {
        let fits = bytes.len().min(self.room());
        self.queue.extend(bytes.iter().take(fits));
        fits
    }

    pub fn room(&self) -> usize {
        self.limit.saturating_sub(self.queue.len())
    }

    /// Characters that no packet was acknowledged for.
    pub fn waiting(&self) -> usize {
        self.queue.len() + self.outstanding.as_ref().map_or(0, |one| one.packet.data.len())
    }

    pub fn is_idle(&self) -> bool {
        self.waiting() == 0 && self.operations.is_empty() && self.outstanding.is_none()
    }

    pub fn operate(&mut self, operation: Operation) -> bool {
        let room = self.operations.len() < OPERATIONS;
        if room {
            self.operations.push_back((self.queue.len(), operation));
        }
        room
    }

    pub fn levels(&self) -> u8 {
        self.levels
    }

    /// A repetition, if one is due.
    pub fn again(&mut self, now: Instant) -> Option<Packet> {
        let wait = self.wait();
        let most = self.timing.most;
        let (acks_once, patience) = (self.acks_once, self.timing.patience);
        let one = self.outstanding.as_mut().filter(|one| one.due <= now)?;
        one.tries += 1;
        one.repeated = true;
        one.sent = now;
        let longer = wait.saturating_mul(1 << (one.tries / 2).min(6)).min(most.max(wait));
        one.due = now + longer;
        if let Some(held) = &mut self.held {
            // It is there, and cannot pass characters on: that is not deafness.
            *held = now + UNAVAILABLE;
            one.due = *held;
            one.first = now;
            one.tries = 1;
        }
        self.deaf |= now.saturating_duration_since(one.first) >= patience;
        let limit = if acks_once { PROBE_AFTER_KNOWN } else { PROBE_AFTER };
        if one.tries > limit {
            if one.probe < one.probes {
                one.probe += 1;
            } else {
                one.probe = 0;
                one.probes = (one.probes + 1).min(PROBES);
            }
        }
        if one.probe > 0 {
            let sequence = beyond(one.packet.sequence, one.probe);
            return Some(Packet { sequence, flags: self.levels, data: Vec::new() });
        }
        Some(one.packet.clone())
    }

    /// The next packet, if none is on its way.
    pub fn fresh(&mut self, now: Instant) -> Option<Packet> {
        if self.outstanding.is_some() || self.held.is_some_and(|held| held > now) {
            return None;
        }
        let (flags, data) = self.content()?;
        let packet = Packet { sequence: self.next, flags, data };
        self.next = after(self.next);
        self.outstanding = Some(Outstanding {
            packet: packet.clone(),
            first: now,
            sent: now,
            due: now + self.wait(),
            tries: 1,
            repeated: false,
            probe: 0,
            probes: 0,
        });
        Some(packet)
    }

    /// An operation has a packet of its own: not all firmware minds the order within one.
    fn content(&mut self) -> Option<(u8, Vec<u8>)> {
        let until = self.operations.front().map_or(self.queue.len(), |(before, _)| *before);
        if until == 0 {
            let (_, operation) = self.operations.pop_front()?;
            let once = match operation {
                Operation::Break => BREAK,
                Operation::Ring => RING,
                Operation::FlushInbound => FLUSH_INBOUND,
                Operation::FlushOutbound => FLUSH_OUTBOUND,
                Operation::Cts(up) => return Some((self.level(CTS_PAUSE, !up), Vec::new())),
                Operation::Dcd(up) => return Some((self.level(DROP_DCD, !up), Vec::new())),
            };
            return Some((once | self.levels, Vec::new()));
        }
        let length = until.min(self.largest).min(self.queue.len());
        if length == 0 {
            return None;
        }
        for (before, _) in &mut self.operations {
            *before = before.saturating_sub(length);
        }
        Some((self.levels, self.queue.drain(..length).collect()))
    }

    fn level(&mut self, bit: u8, set: bool) -> u8 {
        self.levels = if set { self.levels | bit } else { self.levels & !bit };
        self.levels
    }

    /// What a packet from the BMC says of ours. `number` is that of its datagram in the session;
    /// `unavailable` what its newest packet says.
    pub fn acknowledged(&mut self, number: u32, sol: &Sol<'_>, unavailable: bool, now: Instant) {
        self.hold(unavailable, now);
        if sol.ack == 0 || self.acked.is_some_and(|acked| is_before(number, acked)) {
            return;
        }
        let Some(one) = self.outstanding.take() else { return };
        let probe = (1..=one.probes).any(|by| sol.ack == beyond(one.packet.sequence, by));
        if !probe && sol.ack != one.packet.sequence {
            self.outstanding = Some(one);
            return;
        }
        if probe {
            // It waited for that number: it has this packet, and its acknowledgement was lost.
            self.acks_once = true;
            self.next = after(sol.ack);
            self.acked = Some(number);
            return;
        }
        if !one.repeated {
            self.measure(now.saturating_duration_since(one.sent));
        }
        let accepted = usize::from(sol.accepted).min(one.packet.data.len());
        let refused = sol.flags & NACK != 0;
        if refused && accepted == 0 {
            // The same again, a little later: at once if it says when it can.
            let due = self.held.unwrap_or(now + self.wait());
            self.outstanding = Some(Outstanding { due, first: now, tries: 1, ..one });
            return;
        }
        self.acked = Some(number);
        let rest = one.packet.data.get(accepted..).unwrap_or_default();
        if rest.is_empty() {
            return;
        }
        for (before, _) in &mut self.operations {
            *before += rest.len();
        }
        for byte in rest.iter().rev() {
            self.queue.push_front(*byte);
        }
        if accepted == 0 && self.held.is_none() {
            // Nothing taken and nothing said: not as fast as the network can.
            self.held = Some(now + self.wait());
        }
    }

    fn hold(&mut self, unavailable: bool, now: Instant) {
        if unavailable {
            self.held.get_or_insert(now + UNAVAILABLE);
        } else if self.held.take().is_some()
            && let Some(one) = &mut self.outstanding
        {
            one.due = now;
        }
    }

    fn wait(&self) -> Duration {
        let wait = self.round_trip.map_or(self.timing.initial, |(mean, spread)| mean + 4 * spread);
        wait.clamp(self.timing.least, self.timing.most)
    }

    /// As TCP does it (RFC 6298).
    fn measure(&mut self, took: Duration) {
        self.round_trip = Some(match self.round_trip {
            None => (took, took / 2),
            Some((mean, spread)) => ((7 * mean + took) / 8, (3 * spread + mean.abs_diff(took)) / 4),
        });
    }

    /// When [`again`](Self::again) or [`fresh`](Self::fresh) will have something.
    pub fn deadline(&self) -> Option<Instant> {
        match (&self.outstanding, self.held) {
            (Some(one), _) => Some(one.due),
            (None, Some(held)) if self.waiting() > 0 || !self.operations.is_empty() => Some(held),
            (None, _) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TIMING: Timing = Timing {
        initial: Duration::from_millis(500),
        least: Duration::from_millis(100),
        most: Duration::from_secs(1),
        patience: Duration::from_secs(15),
    };

    struct Line {
        out: Outbound,
        now: Instant,
        number: u32,
    }

    impl Line {
        fn new() -> Line {
            let out = Outbound::new(4, 100, false, TIMING);
            Line { out, now: Instant::now(), number: 7 }
        }

        fn sent(&mut self) -> Option<(u8, u8, String)> {
            let packet = self.out.again(self.now).or_else(|| self.out.fresh(self.now))?;
            let text = String::from_utf8_lossy(&packet.data).into_owned();
            Some((packet.sequence, packet.flags, text))
        }

        fn text(&mut self) -> Option<String> {
            self.sent().map(|(_, _, text)| text)
        }

        fn answer(&mut self, ack: u8, accepted: u8, flags: u8) {
            self.number += 1;
            let sol = Sol { sequence: 0, ack, accepted, flags, data: b"" };
            let unavailable = flags & crate::wire::sol::TRANSFER_UNAVAILABLE != 0;
            self.out.acknowledged(self.number, &sol, unavailable, self.now);
        }

        fn wait(&mut self) {
            self.now = self.out.deadline().unwrap().max(self.now);
        }
    }

    #[test]
    fn one_at_a_time_in_full_packets_around_the_end_of_the_numbers() {
        let mut line = Line::new();
        assert_eq!(line.out.write(&[b'x'; 77]), 77);
        for round in 0..20u8 {
            let sequence = round % 15 + 1;
            let length = if round == 19 { 1 } else { 4 };
            assert_eq!(line.sent(), Some((sequence, 0, "x".repeat(length))));
            assert_eq!(line.sent(), None, "the one before is not acknowledged");
            line.answer(after(sequence), 4, 0);
            assert_eq!(line.sent(), None, "another number acknowledges nothing");
            line.answer(sequence, 4, 0);
        }
        assert!(line.out.is_idle());
        assert_eq!(line.sent(), None);
    }

    #[test]
    fn the_same_again_until_it_is_acknowledged() {
        let mut line = Line::new();
        line.out.write(b"ab");
        assert_eq!(line.text().unwrap(), "ab");
        line.out.write(b"cd");
        for _ in 0..5 {
            assert_eq!(line.sent(), None);
            line.wait();
            assert_eq!(line.sent(), Some((1, 0, "ab".into())), "with nothing added");
        }
        line.answer(1, 2, 0);
        assert_eq!(line.sent(), Some((2, 0, "cd".into())));
        // The acknowledgement of an earlier round, delayed.
        let sol = Sol { sequence: 0, ack: 2, accepted: 2, flags: 0, data: b"" };
        line.out.acknowledged(line.number - 1, &sol, false, line.now);
        assert_eq!(line.out.waiting(), 2);
    }

    #[test]
    fn what_was_not_accepted_goes_first_in_the_next() {
        let mut line = Line::new();
        line.out.write(b"abcdef");
        line.out.operate(Operation::Break);
        line.out.write(b"g");
        assert_eq!(line.text().unwrap(), "abcd");
        line.answer(1, 1, 0);
        assert_eq!(line.sent(), Some((2, 0, "bcde".into())));
        line.answer(2, 200, 0);
        assert_eq!(line.sent(), Some((3, 0, "f".into())), "more than was sent is all of it");
        line.answer(3, 1, 0);
        assert_eq!(line.sent(), Some((4, BREAK, String::new())));
        line.answer(4, 0, 0);
        assert_eq!(line.sent(), Some((5, 0, "g".into())));
        line.answer(5, 0, 0);
        assert_eq!(line.sent(), None, "nothing was taken: not at once");
        line.wait();
        assert_eq!(line.sent(), Some((6, 0, "g".into())));
    }

    #[test]
    fn refused_is_the_same_again_and_unavailable_waits() {
        use crate::wire::sol::TRANSFER_UNAVAILABLE;
        let mut line = Line::new();
        line.out.write(b"ab");
        line.text().unwrap();
        line.answer(1, 0, NACK);
        assert_eq!(line.sent(), None);
        line.wait();
        assert_eq!(line.sent(), Some((1, 0, "ab".into())));
        line.answer(1, 0, NACK | TRANSFER_UNAVAILABLE);
        let began = line.now;
        for _ in 0..60 {
            line.wait();
            assert_eq!(line.sent(), Some((1, 0, "ab".into())));
            line.answer(1, 0, NACK | TRANSFER_UNAVAILABLE);
        }
        assert!(line.now - began > TIMING.patience && !line.out.deaf, "it answers: not deaf");
        line.answer(0, 0, 0);
        assert_eq!(line.sent(), Some((1, 0, "ab".into())), "at once when it can");
        line.answer(1, 2, 0);
        assert!(line.out.is_idle());
    }

    #[test]
    fn deaf_after_its_patience() {
        let mut line = Line::new();
        line.out.write(b"ab");
        line.text().unwrap();
        let began = line.now;
        while !line.out.deaf {
            line.wait();
            assert!(line.sent().is_some());
            assert!(line.now - began < 2 * TIMING.patience);
        }
        assert!(line.now - began >= TIMING.patience);
    }

    /// OpenBMC drops a repetition of what it has, without a word.
    #[test]
    fn a_bmc_that_acknowledges_once() {
        let mut line = Line::new();
        line.out.write(b"abcdefgh");
        assert_eq!(line.sent(), Some((1, 0, "abcd".into())));
        let probe = loop {
            line.wait();
            let sent = line.sent().unwrap();
            if sent.0 == 2 {
                break sent;
            }
            assert_eq!(sent, (1, 0, "abcd".into()));
        };
        assert_eq!(probe, (2, 0, String::new()));
        line.answer(2, 0, 0);
        assert!(line.out.acks_once);
        assert_eq!(line.sent(), Some((3, 0, "efgh".into())), "what it has is not sent again");
    }

    #[test]
    fn levels_are_in_every_packet_and_operations_are_bounded() {
        let mut line = Line::new();
        line.out.operate(Operation::Cts(false));
        line.out.write(b"a");
        line.out.operate(Operation::Cts(true));
        assert_eq!(line.sent(), Some((1, CTS_PAUSE, String::new())));
        line.answer(1, 0, 0);
        assert_eq!(line.sent(), Some((2, CTS_PAUSE, "a".into())));
        line.answer(2, 1, 0);
        assert_eq!(line.sent(), Some((3, 0, String::new())));
        assert_eq!((0..100).filter(|_| line.out.operate(Operation::Break)).count(), OPERATIONS);
        assert_eq!(line.out.write(&[0; 1000]), 100);
    }
}
