//! Sender against receiver over a line that loses, damages and doubles bytes and cuts what it carries anywhere,
//! in a time of its own: each file arrives as it is or the receiver says that it did not, and both end.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::crc::crc32;
use super::*;

/// The time that a transfer may take, in all.
const CEILING: Duration = Duration::from_secs(4 * 3600);
/// Of one byte at 115,200 baud, and of the way.
const BYTE: Duration = Duration::from_micros(87);
const WAY: Duration = Duration::from_millis(15);

/// Numbers that are the same each time.
struct Dice(u64);

impl Dice {
    fn throw(&mut self, below: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) % below
    }

    /// Once in so many times; 0: never.
    fn once_in(&mut self, many: u64) -> bool {
        many != 0 && self.throw(many) == 0
    }
}

/// Once in so many bytes; 0: never.
#[derive(Debug, Clone, Copy)]
struct Noise {
    lost: u64,
    damaged: u64,
    doubled: u64,
}

const CLEAN: Noise = Noise { lost: 0, damaged: 0, doubled: 0 };

/// One direction of a line.
struct Direction {
    noise: Noise,
    /// Nothing comes any more from this byte on.
    cut: u64,
    carried: u64,
    free: Instant,
    carries: VecDeque<(Instant, Vec<u8>)>,
}

impl Direction {
    fn take(&mut self, bytes: &[u8], now: Instant, dice: &mut Dice) {
        let mut at = now.max(self.free);
        let mut piece = Vec::new();
        for byte in bytes {
            at += BYTE;
            self.carried += 1;
            if self.carried > self.cut || dice.once_in(self.noise.lost) {
                continue;
            }
            let damage = if dice.once_in(self.noise.damaged) { 1 << dice.throw(8) } else { 0 };
            piece.push(byte ^ damage);
            if dice.once_in(self.noise.doubled) {
                piece.push(byte ^ damage);
            }
            if dice.once_in(200) {
                self.carries.push_back((at + WAY, std::mem::take(&mut piece)));
            }
        }
        self.free = at;
        if !piece.is_empty() {
            self.carries.push_back((at + WAY, piece));
        }
    }
}

struct Side {
    engine: Box<dyn Engine>,
    wakes: Instant,
    ended: Option<Result<(), Failure>>,
}

/// What is there of a file that did not come whole, and all that did.
#[derive(Default)]
struct Disk {
    part: Vec<u8>,
    whole: Vec<Vec<u8>>,
    /// The first file goes on here.
    resumed: bool,
}

struct World {
    files: Vec<Vec<u8>>,
    disk: Disk,
    dice: Dice,
    sent: usize,
}

impl World {
    /// Does all that can be done now; what is sent goes that way.
    fn turn(&mut self, side: &mut Side, way: &mut Direction, now: Instant) {
        while side.ended.is_none() {
            match side.engine.next(now) {
                Next::Wait(until) => {
                    assert!(until > now, "it wants to be asked again at once");
                    side.wakes = until;
                    return;
                }
                Next::End(how) => side.ended = Some(how),
                Next::Send(bytes) => way.take(&bytes, now, &mut self.dice),
                Next::Read { file, at, most } => {
                    let file = &self.files[file];
                    let at = usize::try_from(at).unwrap();
                    assert!(most > 0 && at + most <= file.len());
                    side.engine.data(&file[at..at + most]);
                }
                Next::Sent { file } => {
                    assert_eq!(file, self.sent);
                    self.sent += 1;
                }
                Next::Skipped { .. } => panic!("nothing is left out"),
                Next::Offer(_) => {
                    let there = if self.disk.resumed { self.disk.part.len() } else { 0 };
                    let at = u64::try_from(there).unwrap();
                    side.engine.answer(Answer::Take { at, crc: crc32(&self.disk.part) });
                }
                Next::Begin { at } => self.disk.part.truncate(usize::try_from(at).unwrap()),
                Next::Store(bytes) => self.disk.part.extend(bytes),
                Next::Whole { size, .. } => {
                    self.disk.part.truncate(usize::try_from(size).unwrap());
                    self.disk.whole.push(std::mem::take(&mut self.disk.part));
                    self.disk.resumed = false;
                }
            }
        }
    }
}

struct Outcome {
    sender: Result<(), Failure>,
    receiver: Result<(), Failure>,
    disk: Disk,
    took: Duration,
}

/// A transfer with noise from the sender to the receiver, and back.
fn transfer(
    protocol: Protocol,
    files: &[Vec<u8>],
    (there, back): (Noise, Noise),
    seed: u64,
    disk: Disk,
    cut: u64,
) -> Outcome {
    let begun = Instant::now();
    let name = |number| format!("file-{number}");
    let outgoing = files.iter().enumerate().map(|(number, file)| Outgoing {
        name: name(number),
        size: u64::try_from(file.len()).unwrap(),
        modified: 1,
    });
    let options = Options { escape: seed.is_multiple_of(4) };
    let side = |engine| Side { engine, wakes: begun, ended: None };
    let mut sender = side(send(protocol, outgoing.collect(), options, begun));
    let mut receiver = side(receive(protocol, Options::default(), begun));
    let direction =
        |noise, cut| Direction { noise, cut, carried: 0, free: begun, carries: VecDeque::new() };
    let (mut there, mut back) = (direction(there, cut), direction(back, u64::MAX));
    let dice = Dice(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
    let mut world = World { files: files.to_vec(), disk, dice, sent: 0 };
    let mut now = begun;
    while sender.ended.is_none() || receiver.ended.is_none() {
        assert!(now < begun + CEILING, "{protocol} {seed}: it takes for ever");
        world.turn(&mut sender, &mut there, now);
        world.turn(&mut receiver, &mut back, now);
        let wakes = |side: &Side| side.ended.is_none().then_some(side.wakes);
        let comes = |way: &Direction| way.carries.front().map(|(at, _)| *at);
        let all = [wakes(&sender), wakes(&receiver), comes(&there), comes(&back)];
        let Some(next) = all.into_iter().flatten().min() else { break };
        now = now.max(next);
        for (way, side) in [(&mut there, &mut receiver), (&mut back, &mut sender)] {
            while let Some((_, bytes)) = way.carries.pop_front_if(|(at, _)| *at <= now) {
                side.engine.came(&bytes);
            }
        }
    }
    let (Some(sender), Some(receiver)) = (sender.ended, receiver.ended) else {
        panic!("both ended")
    };
    Outcome { sender, receiver, disk: world.disk, took: now - begun }
}

/// Nothing like it comes by itself, and every byte is there.
fn file(bytes: usize, seed: u64) -> Vec<u8> {
    let mut dice = Dice(seed * 2 + 1);
    (0..bytes).map(|_| dice.throw(256).try_into().unwrap()).collect()
}

fn files(seed: u64) -> Vec<Vec<u8>> {
    let sizes: &[usize] = match seed % 5 {
        0 => &[0],
        1 => &[1],
        2 => &[12_800],
        3 => &[40_001],
        _ => &[3000, 0, 9000],
    };
    sizes.iter().zip(seed..).map(|(size, seed)| file(*size, seed)).collect()
}

/// How many of so many came through. Whatever came whole is what was sent.
fn all(protocol: Protocol, noise: (Noise, Noise), seeds: std::ops::Range<u64>) -> usize {
    let mut good = 0;
    for seed in seeds {
        let mut files = files(seed);
        if !protocol.names() {
            files.truncate(1);
        }
        let outcome = transfer(protocol, &files, noise, seed, Disk::default(), u64::MAX);
        let Outcome { sender, receiver, disk, .. } = outcome;
        assert!(disk.whole.len() <= files.len());
        for (number, (came, file)) in disk.whole.iter().zip(&files).enumerate() {
            let (head, filling) = came.split_at_checked(file.len()).expect("no byte is missing");
            let what = format!("{protocol} {seed} file {number}: {sender:?} {receiver:?}");
            assert!(head == file, "{what}: another file was accepted");
            assert!(filling.len() < 128 && filling.iter().all(|byte| *byte == 0x1a), "{what}");
            assert!(filling.is_empty() || !protocol.names(), "{what}");
        }
        let whole = disk.whole.len() == files.len();
        assert!(receiver.is_err() || whole, "{protocol} {seed}: something is missing");
        if sender.is_ok() {
            assert!(whole, "{protocol} {seed}: the sender thinks that all is there: {receiver:?}");
        }
        good += usize::from(sender.is_ok() && receiver.is_ok());
    }
    good
}

const ALL: [Protocol; 4] =
    [Protocol::Zmodem, Protocol::Ymodem, Protocol::Xmodem, Protocol::Xmodem1k];

#[test]
fn a_clean_line_takes_no_longer_than_its_bytes() {
    for protocol in ALL {
        assert_eq!(all(protocol, (CLEAN, CLEAN), 1..11), 10, "{protocol}");
        let files = [file(100_000, 1)];
        let outcome = transfer(protocol, &files, (CLEAN, CLEAN), 1, Disk::default(), u64::MAX);
        let bytes = BYTE * 100_000;
        // Each block is answered.
        let most = match protocol {
            Protocol::Zmodem => bytes.mul_f64(1.10) + Duration::from_secs(13),
            Protocol::Xmodem => bytes + 800 * WAY * 2 + Duration::from_secs(5),
            _ => bytes + 110 * WAY * 2 + Duration::from_secs(5),
        };
        assert!(outcome.took < most, "{protocol}: {:?} of {most:?}", outcome.took);
    }
}

#[test]
fn a_bad_line_is_survived() {
    let bad = Noise { lost: 5000, damaged: 5000, doubled: 5000 };
    for protocol in ALL {
        // An answer of one byte that comes twice is taken for two: the receiver notices, and it is the end.
        let back = match protocol {
            Protocol::Zmodem => bad,
            _ => Noise { doubled: 0, ..bad },
        };
        let good = all(protocol, (bad, back), 1..61);
        assert!(good >= 57, "{protocol}: {good} of 60 came through");
    }
}

#[test]
fn a_line_that_is_too_bad_ends_and_accepts_nothing_else() {
    let noise = Noise { lost: 300, damaged: 300, doubled: 300 };
    for protocol in ALL {
        let back = match protocol {
            Protocol::Xmodem | Protocol::Xmodem1k => Noise { doubled: 0, ..noise },
            _ => noise,
        };
        all(protocol, (noise, back), 1..41);
    }
}

#[test]
fn nobody_is_there() {
    let deaf = Noise { lost: 1, damaged: 0, doubled: 0 };
    for protocol in ALL {
        let files = [file(1000, 1)];
        let outcome = transfer(protocol, &files, (deaf, deaf), 1, Disk::default(), u64::MAX);
        assert!(matches!(outcome.sender, Err(Failure::Nobody { .. })), "{:?}", outcome.sender);
        assert!(matches!(outcome.receiver, Err(Failure::Nobody { .. })), "{:?}", outcome.receiver);
    }
}

#[test]
fn zmodem_goes_on_where_it_broke_off_and_only_in_the_same_file() {
    let files = [file(60_000, 7)];
    for (seed, same) in [(1, true), (2, true), (3, false)] {
        let broken =
            transfer(Protocol::Zmodem, &files, (CLEAN, CLEAN), seed, Disk::default(), 40_000);
        assert!(broken.sender.is_err() && broken.receiver.is_err());
        let mut disk = Disk { resumed: true, ..broken.disk };
        let there = disk.part.len();
        assert!(there > 30_000 && files[0].starts_with(&disk.part), "{there}");
        if !same {
            disk.part[100] ^= 1;
        }
        let again = transfer(Protocol::Zmodem, &files, (CLEAN, CLEAN), seed, disk, u64::MAX);
        assert_eq!((again.sender, again.receiver), (Ok(()), Ok(())));
        assert!(again.disk.whole == files, "it is another file");
        let short = BYTE * 40_000 + Duration::from_secs(13);
        assert_eq!(again.took < short, same, "{:?}", again.took);
    }
}

#[test]
fn who_stops_tells_the_other_side() {
    for protocol in ALL {
        for sends in [true, false] {
            let now = Instant::now();
            let file = Outgoing { name: "a".to_string(), size: 10, modified: 0 };
            let mut engine = match sends {
                true => send(protocol, vec![file], Options::default(), now),
                false => receive(protocol, Options::default(), now),
            };
            engine.stop(Failure::Stopped);
            engine.stop(Failure::Stopped);
            let mut said = Vec::new();
            let end = loop {
                match engine.next(now) {
                    Next::Send(bytes) => said.extend(bytes),
                    Next::End(how) => break how,
                    Next::Offer(_) => {}
                    other => panic!("{other:?}"),
                }
            };
            assert_eq!((end, &said[..]), (Err(Failure::Stopped), &CANCEL[..]));
            assert!(matches!(engine.next(now), Next::Wait(_)));

            let mut other = match sends {
                true => receive(protocol, Options::default(), now),
                false => send(protocol, Vec::new(), Options::default(), now),
            };
            if let Next::Offer(_) = other.next(now) {
                other.answer(Answer::Take { at: 0, crc: 0 });
            }
            while !matches!(other.next(now), Next::Wait(_)) {}
            other.came(&said);
            assert_eq!(other.next(now), Next::End(Err(Failure::Cancelled { at: 0 })));
        }
    }
}

proptest::proptest! {
    /// Whatever a stranger says, in whatever pieces: no panic, and what is kept is bounded by what came.
    #[test]
    fn any_bytes_at_any_time(
        pieces in proptest::collection::vec((proptest::collection::vec(stranger(), 0..200), 0u64..15_000), 0..12),
        which in 0usize..4,
        sends in proptest::bool::ANY,
    ) {
        let mut now = Instant::now();
        let protocol = ALL[which];
        let file = Outgoing { name: "a".to_string(), size: 5000, modified: 0 };
        let mut engine = match sends {
            true => send(protocol, vec![file.clone(), file], Options::default(), now),
            false => receive(protocol, Options::default(), now),
        };
        for (bytes, later) in pieces {
            engine.came(&bytes);
            let mut asked = 0;
            loop {
                asked += 1;
                proptest::prop_assert!(asked < 100_000, "it never waits");
                match engine.next(now) {
                    Next::Wait(until) => {
                        proptest::prop_assert!(until > now);
                        break;
                    }
                    Next::Read { most, .. } => engine.data(&vec![0x18; most]),
                    Next::Offer(_) => engine.answer(Answer::Take { at: later, crc: 0 }),
                    _ => {}
                }
            }
            now += Duration::from_millis(later);
        }
    }
}

/// Bytes that mean something, and any.
fn stranger() -> impl proptest::strategy::Strategy<Value = u8> {
    use proptest::prelude::*;
    prop_oneof![
        any::<u8>(),
        prop::sample::select(&b"\x01\x02\x04\x06\x15\x18*CABCGijkh00123\xff"[..])
    ]
}
