//! What Linux writes between characters where `PARMRK` is set (termios(3)): `377 0 0` is a BREAK, `377 0 X` is
//! a character X whose parity or stop bit was wrong, `377 377` is the character 377.

use std::time::{Duration, Instant};

use crate::scrollback::Mark;
use crate::wire::Event;

/// Damaged characters within so long are one mark: a line at the wrong speed is nothing else.
const TOGETHER: Duration = Duration::from_secs(1);
/// A BREAK within so long of another is the same one going on: FTDI's adapters tell of it over and over.
const SAME_BREAK: Duration = Duration::from_millis(100);

/// Takes the marks out of what is read.
#[derive(Debug, Default)]
pub struct Marks {
    within: Within,
    /// Damaged characters that were not told of yet.
    damaged: u32,
    /// When some were told of last.
    told: Option<Instant>,
    /// When a BREAK came last.
    broke: Option<Instant>,
}

/// How much of a sequence came.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum Within {
    #[default]
    Text,
    /// 377.
    Marked,
    /// 377 0.
    Damaged,
}

impl Marks {
    /// These were read.
    pub fn came(&mut self, bytes: &[u8], now: Instant, events: &mut Vec<Event>) {
        // Nearly always there is no mark in it.
        if self.within == Within::Text && !bytes.contains(&0o377) {
            if !bytes.is_empty() {
                events.push(Event::data(bytes));
            }
            return self.tell(now, events);
        }
        let mut text = Vec::with_capacity(bytes.len());
        for byte in bytes {
            self.within = match (self.within, *byte) {
                (Within::Text, 0o377) => Within::Marked,
                (Within::Marked, 0) => Within::Damaged,
                (Within::Damaged, 0) => {
                    flush(&mut text, events);
                    self.broken(now, events);
                    Within::Text
                }
                (Within::Damaged, byte) => {
                    self.damaged = self.damaged.saturating_add(1);
                    text.push(byte);
                    Within::Text
                }
                // Of `Marked` only 377 is in the book; whatever else comes is taken as it is.
                (Within::Text | Within::Marked, byte) => {
                    text.push(byte);
                    Within::Text
                }
            };
        }
        flush(&mut text, events);
        self.tell(now, events);
    }

    fn broken(&mut self, now: Instant, events: &mut Vec<Event>) {
        let same = self.broke.is_some_and(|broke| now.duration_since(broke) < SAME_BREAK);
        self.broke = Some(now);
        if !same {
            events.push(Event::Mark(Mark::Break));
        }
    }

    /// When something is to be told that was not yet.
    pub fn deadline(&self) -> Option<Instant> {
        let told = self.told.filter(|_| self.damaged > 0)?;
        Some(told + TOGETHER)
    }

    /// Tells it, if it is time.
    pub fn tell(&mut self, now: Instant, events: &mut Vec<Event>) {
        let soon = self.told.is_some_and(|told| now.duration_since(told) < TOGETHER);
        if self.damaged > 0 && !soon {
            events.push(Event::Mark(Mark::Damaged { characters: self.damaged }));
            self.damaged = 0;
            self.told = Some(now);
        }
    }
}

fn flush(text: &mut Vec<u8>, events: &mut Vec<Event>) {
    if !text.is_empty() {
        events.push(Event::data(text));
        text.clear();
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn seen(events: &[Event]) -> (Vec<u8>, Vec<Mark>) {
        let (mut text, mut marks) = (Vec::new(), Vec::new());
        for event in events {
            match event {
                Event::Data { bytes, .. } => {
                    assert!(!bytes.is_empty());
                    text.extend_from_slice(bytes);
                }
                Event::Mark(mark) => marks.push(mark.clone()),
                other => panic!("{other:?}"),
            }
        }
        (text, marks)
    }

    #[test]
    fn breaks_damage_and_377() {
        let (mut marks, now) = (Marks::default(), Instant::now());
        let mut events = Vec::new();
        marks.came(b"a\xff\xffb\xff\0\0c\xff\0Dd", now, &mut events);
        let kinds: Vec<_> = events
            .iter()
            .map(|event| match event {
                Event::Data { bytes, .. } => String::from_utf8_lossy(bytes).into_owned(),
                other => format!("{other:?}"),
            })
            .collect();
        assert_eq!(kinds, ["a\u{fffd}b", "Mark(Break)", "cDd", "Mark(Damaged { characters: 1 })"]);
    }

    #[test]
    fn a_line_at_the_wrong_speed_is_a_mark_a_second_and_all_is_counted() {
        let (mut marks, begun) = (Marks::default(), Instant::now());
        let mut events = Vec::new();
        let mut now = begun;
        for _ in 0..2500 {
            marks.came(b"\xff\0x\xff\0y", now, &mut events);
            now += Duration::from_millis(1);
        }
        let deadline = marks.deadline().unwrap();
        assert!(deadline > now && deadline <= now + TOGETHER);
        marks.tell(deadline, &mut events);
        assert_eq!(marks.deadline(), None);
        let (text, told) = seen(&events);
        assert_eq!(text.len(), 5000);
        let counts = told.iter().map(|mark| match mark {
            Mark::Damaged { characters } => *characters,
            other => panic!("{other:?}"),
        });
        assert_eq!((counts.sum::<u32>(), told.len()), (5000, 4));
    }

    #[test]
    fn a_break_that_goes_on_is_one() {
        let (mut marks, now) = (Marks::default(), Instant::now());
        let mut events = Vec::new();
        for ms in [0, 16, 32, 131, 500] {
            marks.came(b"\xff\0\0", now + Duration::from_millis(ms), &mut events);
        }
        assert_eq!(seen(&events), (Vec::new(), vec![Mark::Break, Mark::Break]));
    }

    proptest! {
        /// Split anywhere, any bytes mean the same.
        #[test]
        fn any_bytes_split_anywhere(
            bytes in prop::collection::vec(prop_oneof![Just(0u8), Just(0xff), any::<u8>()], 0..200),
            at in prop::collection::vec(any::<prop::sample::Index>(), 0..6),
        ) {
            let now = Instant::now();
            let mut whole = Vec::new();
            Marks::default().came(&bytes, now, &mut whole);
            let mut cuts: Vec<_> = at.iter().map(|at| at.index(bytes.len() + 1)).collect();
            cuts.extend([0, bytes.len()]);
            cuts.sort_unstable();
            let (mut marks, mut split) = (Marks::default(), Vec::new());
            for cut in cuts.windows(2) {
                marks.came(&bytes[cut[0]..cut[1]], now, &mut split);
            }
            marks.tell(now + TOGETHER, &mut split);
            let (split, whole) = (seen(&split), seen(&whole));
            let count = |marks: &[Mark]| marks.iter().map(|mark| match mark {
                Mark::Damaged { characters } => *characters,
                _ => 0,
            }).sum::<u32>();
            prop_assert_eq!(split.0, whole.0);
            prop_assert_eq!(count(&split.1), count(&whole.1));
        }

        /// What a sender says comes out, after the kernel marked it.
        #[test]
        fn what_the_kernel_marks_is_read_back(text in prop::collection::vec(any::<u8>(), 0..200)) {
            let marked: Vec<u8> = text.iter().flat_map(|byte| match byte {
                0xff => vec![0xff, 0xff],
                byte => vec![*byte],
            }).collect();
            let mut events = Vec::new();
            Marks::default().came(&marked, Instant::now(), &mut events);
            prop_assert_eq!(seen(&events), (text, Vec::new()));
        }
    }
}
