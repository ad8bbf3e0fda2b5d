//! The host's serial port as SOL packets, without sockets: characters gathered into packets, packets repeated
//! until they are acknowledged, and the console's packets taken once.
//!
//! IPMI 2.0 §15.9 to §15.11, table 15-2; §26.2 (the times).

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use koboshi_ipmi::wire::sol::{
    BREAK, BREAK_DETECTED, CTS_PAUSE, FLUSH_INBOUND, FLUSH_OUTBOUND, NACK, Sol,
    TRANSFER_UNAVAILABLE, TRANSMIT_OVERRUN,
};

use super::ToHost;
use crate::faults::Faults;

/// Characters of the host that wait.
const QUEUE: usize = 4096;
/// How often a BMC repeats that has a retry interval of 0.
const AT_ONCE: Duration = Duration::from_millis(10);

/// SOL configuration parameters 3 and 4.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Timing {
    /// Characters wait for company so long.
    pub accumulate: Duration,
    /// So many go at once.
    pub threshold: usize,
    /// How often a packet is repeated before it is given up.
    pub retries: u32,
    /// Between repetitions.
    pub interval: Duration,
}

impl Default for Timing {
    fn default() -> Timing {
        Timing {
            accumulate: Duration::from_millis(20),
            threshold: 96,
            retries: 7,
            interval: Duration::from_millis(100),
        }
    }
}

#[derive(Debug, Clone)]
struct Outstanding {
    sequence: u8,
    flags: u8,
    data: Vec<u8>,
    tries: u32,
    due: Instant,
}

/// The console's last packet.
#[derive(Debug, Clone, Copy)]
struct Taken {
    sequence: u8,
    /// The session's number of its newest repetition.
    number: u32,
    /// Characters accepted of it.
    count: usize,
}

/// One activation.
#[derive(Debug, Clone)]
pub struct Port {
    timing: Timing,
    /// Characters in a packet to the console.
    largest: usize,
    queue: VecDeque<u8>,
    /// When the oldest of them came.
    since: Option<Instant>,
    /// Flags that the next packet carries.
    flags: u8,
    outstanding: Option<Outstanding>,
    /// The last number sent.
    sent: u8,
    taken: Option<Taken>,
    /// The number of the datagram that acknowledged last: an older one acknowledges nothing new.
    acked: Option<u32>,
    /// Number and count to acknowledge, and flags with them.
    ack: Option<(u8, u8, u8)>,
    packets: u32,
    /// The console dropped CTS: what the host says stays with it.
    paused: bool,
    /// The host cannot be reached.
    unavailable: bool,
    /// The console has to hear of a change of `unavailable`.
    tell: bool,
}

impl Port {
    /// Just activated; packets to the console carry `largest` characters.
    pub fn new(timing: Timing, largest: usize) -> Port {
        Port {
            timing,
            largest: largest.clamp(1, 255),
            queue: VecDeque::new(),
            since: None,
            flags: 0,
            outstanding: None,
            sent: 0,
            taken: None,
            acked: None,
            ack: None,
            packets: 0,
            paused: false,
            unavailable: false,
            tell: false,
        }
    }

    /// How many characters [`heard`](Self::heard) takes.
    pub fn room(&self) -> usize {
        if self.paused { 0 } else { QUEUE - self.queue.len() }
    }

    /// Characters of the host. What there is no room for is lost, and the console told.
    pub fn heard(&mut self, bytes: &[u8], now: Instant) {
        let fits = bytes.len().min(QUEUE - self.queue.len());
        self.queue.extend(bytes.iter().take(fits));
        if fits < bytes.len() {
            self.flags |= TRANSMIT_OVERRUN;
        }
        if fits > 0 {
            self.since.get_or_insert(now);
        }
    }

    /// A BREAK of the host.
    pub fn heard_break(&mut self) {
        self.flags |= BREAK_DETECTED;
    }

    /// The host can be reached, or not.
    pub fn reachable(&mut self, is: bool) {
        self.tell |= self.unavailable == is;
        self.unavailable = !is;
    }

    /// A packet of the console's, in the session's datagram of this number; what it has for the host is added
    /// to `host`.
    pub fn take(
        &mut self,
        number: u32,
        bytes: &[u8],
        faults: &Faults,
        host: &mut VecDeque<ToHost>,
        now: Instant,
    ) {
        let Ok(packet) = Sol::decode(bytes) else { return };
        let expected = self.taken.map_or(packet.sequence, |taken| taken.sequence % 15 + 1);
        if faults.sol_acks_once && packet.sequence != 0 && packet.sequence != expected {
            return;
        }
        self.acknowledged(number, &packet, now);
        if packet.flags & FLUSH_INBOUND != 0 {
            self.queue.clear();
            self.since = None;
        }
        self.paused = packet.flags & CTS_PAUSE != 0;
        if packet.flags & FLUSH_OUTBOUND != 0 {
            host.clear();
        }
        if packet.sequence == 0 {
            return;
        }
        if self.taken.is_some_and(|taken| is_before(number, taken.number)) {
            return; // delayed on the way
        }
        let repeated = self.taken.filter(|taken| taken.sequence == packet.sequence);
        let before = repeated.map_or(0, |taken| taken.count);
        if self.unavailable {
            self.ack = Some((packet.sequence, 0, NACK | TRANSFER_UNAVAILABLE));
            return;
        }
        let most = faults.sol_part.map_or(usize::MAX, usize::from);
        let count = packet.data.len().min(most).max(before);
        if packet.flags & BREAK != 0 && repeated.is_none() {
            host.push_back(ToHost::Break);
        }
        if let Some(new) = packet.data.get(before..count).filter(|new| !new.is_empty()) {
            host.push_back(ToHost::Data(new.to_vec()));
        }
        self.taken = Some(Taken { sequence: packet.sequence, number, count });
        self.ack = Some((packet.sequence, u8::try_from(count).unwrap_or(u8::MAX), 0));
    }

    fn acknowledged(&mut self, number: u32, packet: &Sol<'_>, now: Instant) {
        if self.acked.is_some_and(|acked| is_before(number, acked)) {
            return;
        }
        let Some(one) = self.outstanding.take_if(|one| one.sequence == packet.ack) else { return };
        let accepted = usize::from(packet.accepted).min(one.data.len());
        if packet.flags & NACK != 0 && accepted == 0 {
            let due = now + self.timing.interval;
            self.outstanding = Some(Outstanding { due, ..one });
            return;
        }
        self.acked = Some(number);
        for byte in one.data[accepted..].iter().rev() {
            self.queue.push_front(*byte);
        }
        if accepted < one.data.len() {
            self.since.get_or_insert(now);
        }
    }

    /// The next packet that is due, until there is none.
    pub fn poll(&mut self, faults: &Faults, now: Instant) -> Option<Vec<u8>> {
        self.repeat(faults, now);
        if let Some(one) = self.outstanding.as_ref().filter(|one| one.due <= now) {
            let packet = self.encode(one.sequence, None, one.flags, &one.data);
            if let Some(one) = &mut self.outstanding {
                one.tries += 1;
                one.due = now + interval(&self.timing, faults);
            }
            return Some(packet);
        }
        if self.outstanding.is_none() && (self.ripe(now) || self.flags != 0) {
            let length = self.largest.min(self.queue.len());
            let data: Vec<u8> = self.queue.drain(..length).collect();
            self.since = (!self.queue.is_empty()).then_some(now);
            self.sent = self.sent % 15 + 1;
            self.packets += 1;
            if faults.sol_skip.is_some_and(|every| self.packets.is_multiple_of(every.max(1))) {
                return self.poll(faults, now); // its characters are lost
            }
            let flags = std::mem::take(&mut self.flags);
            let ack = self.ack.take();
            self.outstanding = Some(Outstanding {
                sequence: self.sent,
                flags,
                data: data.clone(),
                tries: 0,
                due: now + interval(&self.timing, faults),
            });
            return Some(self.encode(self.sent, ack, flags, &data));
        }
        if let Some(ack) = self.ack.take() {
            return Some(self.encode(0, Some(ack), 0, b""));
        }
        std::mem::take(&mut self.tell).then(|| self.encode(0, None, 0, b""))
    }

    /// Gives up what was repeated often enough: its characters are lost.
    fn repeat(&mut self, faults: &Faults, now: Instant) {
        let tries = if faults.sol_repeats { u32::MAX } else { self.timing.retries };
        self.outstanding.take_if(|one| one.due <= now && one.tries >= tries);
    }

    fn ripe(&self, now: Instant) -> bool {
        self.queue.len() >= self.timing.threshold.min(self.largest)
            || self.since.is_some_and(|since| since + self.timing.accumulate <= now)
    }

    fn encode(&self, sequence: u8, ack: Option<(u8, u8, u8)>, flags: u8, data: &[u8]) -> Vec<u8> {
        let (ack, accepted, refused) = ack.unwrap_or_default();
        let state = if self.unavailable { TRANSFER_UNAVAILABLE } else { 0 };
        Sol { sequence, ack, accepted, flags: flags | refused | state, data }.encode()
    }

    /// When [`poll`](Self::poll) has something without anything happening before.
    pub fn deadline(&self) -> Option<Instant> {
        match &self.outstanding {
            Some(one) => Some(one.due),
            None => self.since.map(|since| since + self.timing.accumulate),
        }
    }
}

fn is_before(number: u32, other: u32) -> bool {
    number != other && other.wrapping_sub(number) < 1 << 31
}

fn interval(timing: &Timing, faults: &Faults) -> Duration {
    if faults.sol_repeats { AT_ONCE } else { timing.interval }
}
