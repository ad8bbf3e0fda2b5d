//! One disk wiped: each step over the whole of it, then read back. A place that cannot be written is
//! halved down to its blocks, so that a bad sector costs itself and no more; a disk that has too many of
//! them is given up, since each try may take it half a minute.

use std::io;

use super::pattern::{CHUNK, Pattern};
use crate::contract::duty::{Step, Verify};

/// Blocks that may fail before a disk is given up.
const FAULTS_MAX: u64 = 512;
/// Chunks read back of a disk's beginning and of its end, and places between.
const ENDS: u64 = 4;
const SAMPLES: u64 = 1000;

/// What can be wiped.
pub trait Medium {
    /// Bytes; a multiple of [`Medium::block`].
    fn size(&self) -> u64;
    /// The least that can be written: bytes.
    fn block(&self) -> usize;
    /// Writes all of it there.
    fn write(&self, at: u64, bytes: &[u8]) -> io::Result<()>;
    /// Reads all of it from there, from the medium and no cache.
    fn read(&self, at: u64, bytes: &mut [u8]) -> io::Result<()>;
    /// Forgets everything and reads as zeros from now on, or cannot do that.
    fn discard(&self) -> io::Result<()>;
    /// What was written is on the medium.
    fn flush(&self) -> io::Result<()>;
    /// Room for as much as is written at a time, where the medium wants it to lie.
    fn buffer(&self) -> Buffer;
}

/// Bytes that lie where direct I/O wants them: at a multiple of a page.
#[derive(Debug)]
pub struct Buffer {
    bytes: Vec<u8>,
    from: usize,
}

impl Buffer {
    /// A chunk's worth, so aligned.
    pub fn aligned(to: usize) -> Buffer {
        let bytes = vec![0; CHUNK + to];
        let from = bytes.as_ptr().align_offset(to).min(to);
        Buffer { bytes, from }
    }

    fn part(&mut self, len: usize) -> &mut [u8] {
        let end = (self.from + len).min(self.bytes.len());
        self.bytes.get_mut(self.from..end).unwrap_or_default()
    }
}

/// What became of it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Outcome {
    /// What was done, in words.
    pub steps: Vec<String>,
    /// Blocks that could not be written in the last pass.
    pub bad: u64,
    /// Blocks that could not be read back.
    pub unread: u64,
    /// Blocks that read back as something else.
    pub differing: u64,
    /// Bytes that are as they should be.
    pub verified: u64,
    /// Why it was given up.
    pub given_up: Option<String>,
}

impl Outcome {
    /// Nothing is left of what was there, as far as it was read back.
    pub fn is_well(&self) -> bool {
        self.given_up.is_none() && self.bad + self.unread + self.differing == 0
    }
}

/// Told how far it is: the step, bytes done, of how many. False: stop here.
pub type Tell<'a> = &'a mut dyn FnMut(&str, u64, u64) -> bool;

/// Does all of it.
pub fn wipe(
    medium: &impl Medium,
    steps: &[Step],
    verify: Verify,
    seed: u64,
    tell: Tell<'_>,
) -> Outcome {
    let mut outcome = Outcome::default();
    let size = medium.size();
    let rounds = steps.len() as u64 + u64::from(verify != Verify::None);
    let of = size.saturating_mul(rounds);
    let mut last = Pattern::Zeros;
    for (round, step) in steps.iter().enumerate() {
        let base = size.saturating_mul(round as u64);
        if *step == Step::Discard {
            if !tell("discard", base, of) {
                return interrupted(outcome);
            }
            match medium.discard() {
                Ok(()) => {
                    outcome.steps.push("discard".to_owned());
                    (last, outcome.bad) = (Pattern::Zeros, 0);
                    continue;
                }
                Err(error) => {
                    outcome
                        .steps
                        .push(format!("discard: not by this disk ({error}), zeros instead"));
                }
            }
        }
        last = match step {
            Step::Random => Pattern::Random(seed.wrapping_add(round as u64)),
            Step::Zeros | Step::Discard => Pattern::Zeros,
        };
        let name = if *step == Step::Random { "random" } else { "zeros" };
        match pass(medium, last, &mut |done| tell(name, base.saturating_add(done), of)) {
            Ok(bad) => outcome.bad = bad,
            Err(why) => {
                outcome.given_up = Some(why);
                return outcome;
            }
        }
        if *step != Step::Discard {
            outcome.steps.push(name.to_owned());
        }
    }
    if let Err(error) = medium.flush() {
        outcome.given_up = Some(format!("what was written is not on the disk: {error}"));
        return outcome;
    }
    let base = size.saturating_mul(steps.len() as u64);
    let mut tell = |done: u64| tell("reading back", base.saturating_add(done), of);
    read_back(medium, last, verify, &mut outcome, &mut tell);
    outcome
}

fn interrupted(outcome: Outcome) -> Outcome {
    Outcome { given_up: Some("interrupted".to_owned()), ..outcome }
}

/// Writes the whole of it. Says how many blocks would not be written.
fn pass(
    medium: &impl Medium,
    pattern: Pattern,
    tell: &mut dyn FnMut(u64) -> bool,
) -> Result<u64, String> {
    let mut buffer = medium.buffer();
    let (size, mut at, mut bad) = (medium.size(), 0u64, 0);
    let mut chunk = 0;
    while at < size {
        if !tell(at) {
            return Err("interrupted".to_owned());
        }
        let len = usize::try_from(size - at).unwrap_or(CHUNK).min(CHUNK);
        let bytes = buffer.part(len);
        // Zeros stay where they are.
        if pattern != Pattern::Zeros || chunk == 0 {
            pattern.fill(chunk, bytes);
        }
        if let Err(error) = medium.write(at, bytes) {
            bad += halves(medium, at, bytes, bad).map_err(|()| {
                format!("over {FAULTS_MAX} blocks cannot be written ({error}): destroy it")
            })?;
        }
        at += len as u64;
        chunk += 1;
    }
    medium.flush().map_err(|error| format!("what was written is not on the disk: {error}"))?;
    Ok(bad)
}

/// Writes what can be written of a place where not all can.
fn halves(medium: &impl Medium, at: u64, bytes: &[u8], sofar: u64) -> Result<u64, ()> {
    if sofar >= FAULTS_MAX {
        return Err(());
    }
    let block = medium.block();
    if bytes.len() <= block {
        return Ok(1);
    }
    let middle = (bytes.len() / block / 2).max(1) * block;
    let (first, second) = bytes.split_at(middle.min(bytes.len()));
    let mut bad = 0;
    for (at, half) in [(at, first), (at + first.len() as u64, second)] {
        if medium.write(at, half).is_err() {
            bad += halves(medium, at, half, sofar + bad)?;
        }
    }
    Ok(bad)
}

/// Which chunks are read back.
fn places(chunks: u64, verify: Verify) -> Box<dyn Iterator<Item = u64>> {
    match verify {
        Verify::None => Box::new(std::iter::empty()),
        Verify::All => Box::new(0..chunks),
        Verify::Samples => {
            let stride = (chunks / SAMPLES).max(1);
            Box::new((0..chunks).filter(move |chunk| {
                *chunk < ENDS || *chunk + ENDS >= chunks || chunk.is_multiple_of(stride)
            }))
        }
    }
}

fn read_back(
    medium: &impl Medium,
    pattern: Pattern,
    verify: Verify,
    outcome: &mut Outcome,
    tell: &mut dyn FnMut(u64) -> bool,
) {
    let (mut buffer, mut wanted) = (medium.buffer(), vec![0; CHUNK]);
    let (size, block) = (medium.size(), medium.block());
    for chunk in places(size.div_ceil(CHUNK as u64), verify) {
        let at = chunk * CHUNK as u64;
        if !tell(at) {
            outcome.given_up = Some("interrupted".to_owned());
            return;
        }
        if outcome.unread > FAULTS_MAX {
            let why = format!("over {FAULTS_MAX} blocks cannot be read back: destroy it");
            outcome.given_up = Some(why);
            return;
        }
        let len = usize::try_from(size - at).unwrap_or(CHUNK).min(CHUNK);
        let Some(wanted) = wanted.get_mut(..len) else { continue };
        if pattern != Pattern::Zeros {
            pattern.fill(chunk, wanted);
        }
        let bytes = buffer.part(len);
        if medium.read(at, bytes).is_ok() {
            outcome.compare(bytes, wanted, block);
            continue;
        }
        for (n, wanted) in wanted.chunks(block).enumerate() {
            let part = buffer.part(wanted.len());
            match medium.read(at + (n * block) as u64, part) {
                Ok(()) => outcome.compare(part, wanted, block),
                Err(_) => outcome.unread += 1,
            }
            if outcome.unread > FAULTS_MAX {
                break;
            }
        }
    }
}

impl Outcome {
    fn compare(&mut self, found: &[u8], wanted: &[u8], block: usize) {
        if found == wanted {
            self.verified += found.len() as u64;
            return;
        }
        for (found, wanted) in found.chunks(block).zip(wanted.chunks(block)) {
            match found == wanted {
                true => self.verified += found.len() as u64,
                false => self.differing += 1,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::collections::BTreeSet;

    use super::*;

    const BLOCK: usize = 512;

    /// A disk in memory, with sectors that cannot be written, or forget.
    struct Fake {
        bytes: RefCell<Vec<u8>>,
        bad: BTreeSet<u64>,
        forgets: BTreeSet<u64>,
        unread: BTreeSet<u64>,
        discards: bool,
    }

    impl Fake {
        fn new(size: usize) -> Fake {
            let (bad, forgets, unread) = Default::default();
            let bytes = RefCell::new(b"secret! ".repeat(size / 8));
            Fake { bytes, bad, forgets, unread, discards: false }
        }

        fn hits(set: &BTreeSet<u64>, at: u64, len: usize) -> bool {
            let (from, to) = (at / BLOCK as u64, (at + len as u64) / BLOCK as u64);
            set.range(from..to).next().is_some()
        }

        fn secret_blocks(&self) -> usize {
            let bytes = self.bytes.borrow();
            bytes.chunks(BLOCK).filter(|block| block.starts_with(b"secret!")).count()
        }
    }

    impl Medium for Fake {
        fn size(&self) -> u64 {
            self.bytes.borrow().len() as u64
        }
        fn block(&self) -> usize {
            BLOCK
        }
        fn write(&self, at: u64, bytes: &[u8]) -> io::Result<()> {
            if Fake::hits(&self.bad, at, bytes.len()) {
                return Err(io::Error::other("medium error"));
            }
            if !(bytes.len() == BLOCK && Fake::hits(&self.forgets, at, bytes.len())) {
                let at = at as usize;
                self.bytes.borrow_mut()[at..at + bytes.len()].copy_from_slice(bytes);
            }
            for block in &self.forgets {
                let at = *block as usize * BLOCK;
                self.bytes.borrow_mut()[at..at + 7].copy_from_slice(b"secret!");
            }
            Ok(())
        }
        fn read(&self, at: u64, bytes: &mut [u8]) -> io::Result<()> {
            if Fake::hits(&self.unread, at, bytes.len()) {
                return Err(io::Error::other("unrecovered read error"));
            }
            let at = at as usize;
            bytes.copy_from_slice(&self.bytes.borrow()[at..at + bytes.len()]);
            Ok(())
        }
        fn discard(&self) -> io::Result<()> {
            if !self.discards {
                return Err(io::Error::other("not supported"));
            }
            self.bytes.borrow_mut().fill(0);
            Ok(())
        }
        fn flush(&self) -> io::Result<()> {
            Ok(())
        }
        fn buffer(&self) -> Buffer {
            Buffer::aligned(4096)
        }
    }

    fn done(fake: &Fake, steps: &[Step], verify: Verify) -> Outcome {
        let mut last = 0;
        wipe(fake, steps, verify, 99, &mut |_, done, of| {
            assert!(done >= last && done <= of, "{done} of {of} after {last}");
            last = done;
            true
        })
    }

    #[test]
    fn nothing_of_a_good_disk_is_left() {
        // A chunk and a half, and a bit: the last one is cut.
        let size = CHUNK + CHUNK / 2 + 3 * BLOCK;
        for steps in [&[Step::Zeros][..], &[Step::Random], &[Step::Random, Step::Zeros]] {
            for verify in [Verify::All, Verify::Samples] {
                let fake = Fake::new(size);
                let outcome = done(&fake, steps, verify);
                assert!(outcome.is_well(), "{outcome:?}");
                assert_eq!(outcome.verified, size as u64);
                let names: Vec<&str> = steps.iter().map(|step| step.as_str()).collect();
                assert_eq!(outcome.steps, names);
                assert_eq!(fake.secret_blocks(), 0);
                let zero = fake.bytes.borrow().iter().all(|byte| *byte == 0);
                assert_eq!(zero, steps.last() == Some(&Step::Zeros));
            }
        }
        let unread = done(&Fake::new(size), &[Step::Zeros], Verify::None);
        assert!(unread.is_well() && unread.verified == 0);
    }

    #[test]
    fn a_disk_that_cannot_forget_is_overwritten() {
        let fake = Fake::new(1 << 20);
        let outcome = done(&fake, &[Step::Discard], Verify::All);
        assert!(outcome.is_well() && fake.secret_blocks() == 0, "{outcome:?}");
        let said = "discard: not by this disk (not supported), zeros instead";
        assert_eq!(outcome.steps, [said]);
        let fake = Fake { discards: true, ..Fake::new(1 << 20) };
        let outcome = done(&fake, &[Step::Discard, Step::Random], Verify::All);
        assert!(outcome.is_well(), "{outcome:?}");
        assert_eq!(outcome.steps, ["discard", "random"]);
    }

    #[test]
    fn a_bad_sector_costs_itself_alone() {
        let blocks = (CHUNK / BLOCK) as u64;
        let bad = BTreeSet::from([0, 7, blocks - 1, blocks, blocks + 1]);
        let fake = Fake { bad, ..Fake::new(2 * CHUNK) };
        let outcome = done(&fake, &[Step::Zeros], Verify::All);
        assert!(!outcome.is_well());
        assert_eq!((outcome.bad, outcome.differing, outcome.unread), (5, 5, 0));
        assert_eq!(fake.secret_blocks(), 5);
        let fake = Fake { forgets: BTreeSet::from([9]), ..Fake::new(CHUNK) };
        let outcome = done(&fake, &[Step::Random], Verify::All);
        assert_eq!((outcome.bad, outcome.differing), (0, 1));
        assert!(!outcome.is_well());
        let fake = Fake { unread: BTreeSet::from([3, 4]), ..Fake::new(CHUNK) };
        let outcome = done(&fake, &[Step::Zeros], Verify::All);
        assert_eq!((outcome.unread, outcome.verified), (2, (CHUNK - 2 * BLOCK) as u64));
        assert!(!outcome.is_well());
    }

    #[test]
    fn a_disk_that_fails_everywhere_is_given_up() {
        let fake = Fake { bad: (0..1 << 20).collect(), ..Fake::new(2 * CHUNK) };
        let outcome = done(&fake, &[Step::Zeros, Step::Random], Verify::All);
        assert!(outcome.given_up.is_some_and(|why| why.contains("512 blocks")));
        let fake = Fake { unread: (0..1 << 20).collect(), ..Fake::new(2 * CHUNK) };
        let outcome = done(&fake, &[Step::Zeros], Verify::All);
        assert!(outcome.given_up.is_some_and(|why| why.contains("read back")));
    }

    #[test]
    fn it_stops_when_it_is_told_to() {
        let fake = Fake::new(4 * CHUNK);
        let mut asked = 0;
        let outcome = wipe(&fake, &[Step::Zeros], Verify::All, 1, &mut |_, _, _| {
            asked += 1;
            asked < 3
        });
        assert_eq!(outcome.given_up.as_deref(), Some("interrupted"));
        assert!(!outcome.is_well() && fake.secret_blocks() > 0);
    }

    #[test]
    fn samples_reach_both_ends() {
        let all: Vec<u64> = places(1_000_000, Verify::Samples).collect();
        assert!((1000..1020).contains(&all.len()), "{}", all.len());
        assert!(all.starts_with(&[0, 1, 2, 3]) && all.ends_with(&[999_998, 999_999]));
        assert_eq!(places(5, Verify::Samples).collect::<Vec<_>>(), [0, 1, 2, 3, 4]);
    }
}
