//! The console's engine and the BMC's port across a bad network, on a clock of their own.

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

use koboshi_ipmi::sol::{Engine, Event, Operation, Settings};

use super::ToHost;
use super::port::{Port, Timing};
use crate::faults::Faults;

/// A network that loses, doubles and delays, and the numbers that a session gives its datagrams.
struct Road {
    random: u64,
    percent: u64,
    number: u32,
    /// Of those that arrived, as a session keeps them.
    seen: VecDeque<u32>,
    /// By arrival.
    flying: BTreeMap<(Instant, u64), (u32, Vec<u8>)>,
    count: u64,
}

impl Road {
    fn new(seed: u64, percent: u64) -> Road {
        Road {
            random: seed,
            percent,
            number: u32::MAX - 100,
            seen: VecDeque::new(),
            flying: BTreeMap::new(),
            count: 0,
        }
    }

    fn chance(&mut self, of: u64) -> u64 {
        self.random = self.random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (self.random >> 33) % of
    }

    fn send(&mut self, bytes: Vec<u8>, now: Instant) {
        self.number = self.number.wrapping_add(1);
        if self.chance(100) < self.percent {
            return;
        }
        let copies = 1 + u64::from(self.chance(100) < self.percent);
        for _ in 0..copies {
            // One in ten takes a detour, long enough for several packets to overtake it.
            let detour = if self.chance(100) < self.percent { self.chance(400) } else { 0 };
            let at = now
                + Duration::from_micros(1000 + self.chance(200))
                + Duration::from_millis(detour);
            self.count += 1;
            self.flying.insert((at, self.count), (self.number, bytes.clone()));
        }
    }

    fn arrived(&mut self, now: Instant) -> Option<(u32, Vec<u8>)> {
        loop {
            let first = self.flying.first_entry().filter(|first| first.key().0 <= now)?;
            let (number, bytes) = first.remove();
            let newest =
                self.seen.iter().copied().reduce(|one, other| {
                    if other.wrapping_sub(one) < 1 << 31 { other } else { one }
                });
            let late =
                newest.is_some_and(|newest| (64..1 << 31).contains(&newest.wrapping_sub(number)));
            if late || self.seen.contains(&number) {
                continue;
            }
            self.seen.push_back(number);
            if self.seen.len() > 128 {
                self.seen.pop_front();
            }
            return Some((number, bytes));
        }
    }

    fn next(&self) -> Option<Instant> {
        self.flying.first_key_value().map(|((at, _), _)| *at)
    }
}

struct Storm {
    now: Instant,
    began: Instant,
    engine: Engine,
    port: Port,
    faults: Faults,
    there: Road,
    back: Road,
    host: VecDeque<ToHost>,
    heard: Vec<u8>,
    marks: Vec<Event>,
    typed: Vec<u8>,
    breaks: Vec<usize>,
}

impl Storm {
    fn new(seed: u64, percent: u64, faults: Faults) -> Storm {
        let now = Instant::now();
        let timing = Timing { interval: Duration::from_millis(50), ..Timing::default() };
        Storm {
            now,
            began: now,
            engine: Engine::new(&Settings { largest: 200, ..Settings::default() }),
            port: Port::new(timing, 200),
            faults,
            there: Road::new(seed, percent),
            back: Road::new(seed ^ 0x5555, percent),
            host: VecDeque::new(),
            heard: Vec::new(),
            marks: Vec::new(),
            typed: Vec::new(),
            breaks: Vec::new(),
        }
    }

    /// Lets everything happen that is due now, then goes on to what is due next.
    fn step(&mut self) -> bool {
        while let Some((number, bytes)) = self.back.arrived(self.now) {
            self.engine.handle(number, &bytes, self.now);
        }
        while let Some((number, bytes)) = self.there.arrived(self.now) {
            self.port.take(number, &bytes, &self.faults, &mut self.host, self.now);
        }
        while let Some(bytes) = self.engine.poll(self.now) {
            self.there.send(bytes, self.now);
        }
        while let Some(bytes) = self.port.poll(&self.faults, self.now) {
            self.back.send(bytes, self.now);
        }
        while let Some(event) = self.engine.event() {
            match event {
                Event::Data { bytes, .. } => self.heard.extend_from_slice(&bytes),
                mark => self.marks.push(mark),
            }
        }
        for item in self.host.drain(..) {
            match item {
                ToHost::Data(bytes) => self.typed.extend(bytes),
                ToHost::Break => self.breaks.push(self.typed.len()),
            }
        }
        let deadlines =
            [self.engine.deadline(), self.port.deadline(), self.there.next(), self.back.next()];
        let Some(next) = deadlines.into_iter().flatten().min() else { return false };
        // Never at the same moment again: a deadline that has passed and does nothing would stop the clock.
        self.now = next.max(self.now + Duration::from_micros(1));
        true
    }
}

fn text(length: usize, salt: usize) -> Vec<u8> {
    let lines = (0usize..).flat_map(|line| {
        format!("[{:>12}] line {line} of {salt}: {}\r\n", line * 7919, line.wrapping_mul(salt))
            .into_bytes()
    });
    lines.take(length).collect()
}

/// Both ways at once, at the pace of whoever is slower; a BREAK in the middle of what is typed.
fn exchange(storm: &mut Storm, length: usize) {
    let (said, typed) = (text(length, 3), text(length, 5));
    let (mut said_at, mut typed_at, mut broke) = (0, 0, false);
    while storm.heard.len() < length || storm.typed.len() < length {
        let room = storm.port.room().min(length - said_at);
        if room > 0 {
            storm.port.heard(&said[said_at..said_at + room], storm.now);
            said_at += room;
        }
        if typed_at >= length / 2 && !broke {
            broke = storm.engine.operate(Operation::Break);
        }
        let until = if broke { length } else { length / 2 };
        typed_at += storm.engine.write(&typed[typed_at..until]);
        let fed = (said_at, typed_at) == (length, length);
        assert!(storm.step() || !fed, "nothing is due and not all of it has come");
        assert_eq!(storm.engine.ended(), None, "after {:?}", storm.now - storm.began);
    }
    assert!(storm.heard == said, "not what the machine said");
    assert!(storm.typed == typed, "not what was typed");
    assert_eq!(storm.breaks, [length / 2]);
    assert_eq!(storm.marks, []);
}

#[test]
fn ten_megabytes_each_way_through_loss_doubles_and_detours() {
    let mut storm = Storm::new(1, 10, Faults::default());
    exchange(&mut storm, 10_000_000);
}

#[test]
fn every_seed_a_little() {
    for seed in 0..40 {
        exchange(&mut Storm::new(seed, 10, Faults::default()), 40_000);
    }
}

/// OpenBMC: a packet is acknowledged once. What that costs is found out once, and nothing is lost or doubled.
#[test]
fn through_a_bmc_that_acknowledges_once() {
    let faults = Faults { sol_acks_once: true, ..Faults::default() };
    let mut storm = Storm::new(9, 10, faults);
    exchange(&mut storm, 200_000);
    assert!(storm.engine.acks_once());
}

#[test]
fn through_a_bmc_that_takes_parts() {
    let faults = Faults { sol_part: Some(7), ..Faults::default() };
    exchange(&mut Storm::new(4, 10, faults), 60_000);
}

#[test]
fn through_a_bmc_that_repeats_without_end() {
    let faults = Faults { sol_repeats: true, ..Faults::default() };
    exchange(&mut Storm::new(4, 10, faults), 200_000);
}

/// What a BMC gives up is lost, and each of its packets is counted.
#[test]
fn lost_packets_are_counted_and_the_rest_is_whole() {
    let faults = Faults { sol_skip: Some(10), ..Faults::default() };
    let mut storm = Storm::new(4, 5, faults);
    let said = vec![b'x'; 100 * 200];
    let mut at = 0;
    while at < said.len() || storm.port.room() < 4096 || storm.back.next().is_some() {
        let room = storm.port.room().min(said.len() - at);
        storm.port.heard(&said[at..at + room], storm.now);
        at += room;
        storm.step();
    }
    let missing: usize = storm
        .marks
        .iter()
        .map(|mark| match mark {
            Event::Gap { packets } => *packets as usize,
            other => panic!("{other:?}"),
        })
        .sum();
    // The last one is missing behind all that came: no number says so.
    assert_eq!((storm.heard.len(), missing), (18_000, 9));
}

#[test]
fn unavailable_holds_what_is_typed() {
    let mut storm = Storm::new(4, 0, Faults::default());
    storm.port.reachable(false);
    storm.engine.write(b"hello");
    for _ in 0..200 {
        storm.step();
    }
    assert!(storm.typed.is_empty() && storm.engine.ended().is_none());
    storm.port.reachable(true);
    while storm.step() {}
    assert_eq!(storm.marks, [Event::Unavailable, Event::Available]);
    assert_eq!(storm.typed, b"hello");
}
