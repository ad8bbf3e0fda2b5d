//! The last that a line said: its characters, when they came, and marks of what happened between them. It is
//! bounded, and forgets the oldest; who reads too slowly is told what he missed.

use std::collections::VecDeque;
use std::fmt;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::operator::Turn;

/// Characters that are kept.
pub const CHARACTERS: usize = 256 * 1024;
/// Marks and times that are kept: a port that is broken may send nothing but breaks.
const NOTES: usize = 4096;
/// Characters that come within so long have one time, milliseconds.
const SAME_TIME: u64 = 1000;
/// Characters that are handed on at once.
const PIECE: usize = 16 * 1024;

/// What happened between characters.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum Mark {
    /// It is open for the first time.
    Up,
    /// Packets are missing here for good, counted modulo 15.
    Gap {
        /// How many.
        packets: u32,
    },
    /// Characters are missing here: the BMC's buffer was full.
    Overrun,
    /// A BREAK from the machine.
    Break,
    /// Carrier detect: whether anything is at the other end of the wire.
    Carrier {
        /// It is there.
        up: bool,
    },
    /// Bytes that are no text and had no end are left out here.
    Omitted {
        /// How many.
        bytes: usize,
    },
    /// The port is not set as the site says.
    Unset {
        /// In words.
        why: String,
    },
    /// Characters before this came damaged: their parity or their stop bit was wrong.
    Damaged {
        /// How many.
        characters: u32,
    },
    /// What is typed cannot reach the machine now.
    Unavailable,
    /// It can again.
    Available,
    /// It is down, and tried again until it is up.
    Down {
        /// Why, in words.
        why: String,
    },
    /// Somebody else has it, who is left in peace.
    Stolen {
        /// Account and address, where the BMC tells.
        by: Option<String>,
    },
    /// What was typed came to nothing.
    Discarded {
        /// Characters.
        characters: usize,
    },
    /// It is up again; what was said meanwhile is lost.
    Reconnected {
        /// How long nothing could come, milliseconds.
        after: u64,
    },
    /// Somebody has the line now, or wants it.
    Operator(Turn),
    /// It is closed: the site does not want it any more, or the appliance ends.
    Closed,
    /// Of a viewer, and not of the line: he was too slow, and this is forgotten.
    Skipped {
        /// Characters.
        characters: u64,
        /// Marks.
        marks: u64,
    },
}

impl fmt::Display for Mark {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Mark::Up => f.write_str("the console is up"),
            Mark::Gap { packets } => {
                write!(f, "characters are missing here: {packets} packets did not come")
            }
            Mark::Overrun => f.write_str("characters are missing here: the BMC's buffer was full"),
            Mark::Break => f.write_str("BREAK"),
            Mark::Damaged { characters } => {
                write!(
                    f,
                    "{characters} characters came damaged: is the speed right, and the parity?"
                )
            }
            Mark::Carrier { up: true } => f.write_str("carrier is there"),
            Mark::Carrier { up: false } => {
                f.write_str("carrier is gone: nothing is at the other end of the wire")
            }
            Mark::Omitted { bytes } => {
                write!(f, "{bytes} bytes are left out: a telnet command that had no end")
            }
            Mark::Unset { why } => f.write_str(why),
            Mark::Unavailable => f.write_str("what is typed cannot reach the machine now"),
            Mark::Available => f.write_str("what is typed reaches the machine again"),
            Mark::Down { why } => write!(f, "the console is down: {why}"),
            Mark::Stolen { by: Some(by) } => write!(f, "the console is taken by {by}"),
            Mark::Stolen { by: None } => f.write_str("the console is taken by another"),
            Mark::Discarded { characters } => {
                write!(f, "{characters} characters that were typed came to nothing")
            }
            Mark::Reconnected { after } => {
                let seconds = after.div_ceil(1000);
                write!(f, "the console is up again; what was said for {seconds} s is lost")
            }
            Mark::Operator(turn) => turn.fmt(f),
            Mark::Closed => f.write_str("the console is closed"),
            Mark::Skipped { characters, marks: 0 } => {
                write!(f, "{characters} characters are skipped: this viewer was too slow")
            }
            Mark::Skipped { characters, marks } => write!(
                f,
                "{characters} characters and {marks} marks are skipped: this viewer was too slow"
            ),
        }
    }
}

/// Something to show, in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Piece {
    /// When it came, Unix milliseconds; of characters: within a second.
    pub at: u64,
    /// What it is.
    pub what: What,
}

/// Characters, or a mark.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum What {
    /// As the machine sent them, never empty.
    Text(Bytes),
    /// Between them.
    Mark(Mark),
}

/// A place in a scrollback, before the next piece to be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cursor {
    /// Characters that were before it, since the line was begun.
    text: u64,
    /// Notes that were before it.
    note: u64,
    /// Marks that were before it.
    marks: u64,
}

/// See the module.
#[derive(Debug, Default)]
pub struct Scrollback {
    text: VecDeque<u8>,
    notes: VecDeque<Note>,
    /// How much there ever was.
    written: Totals,
}

#[derive(Debug, Clone, Copy, Default)]
struct Totals {
    text: u64,
    notes: u64,
    marks: u64,
}

#[derive(Debug)]
struct Note {
    /// Characters before it.
    text: u64,
    /// Marks before it.
    marks: u64,
    at: u64,
    /// None: it is the time of the characters that follow.
    mark: Option<Mark>,
}

impl Scrollback {
    /// The machine said this, at this time (Unix milliseconds).
    pub fn write(&mut self, at: u64, mut text: &[u8]) {
        while !text.is_empty() {
            let timed = self
                .notes
                .back()
                .is_some_and(|note| note.mark.is_none() && at.abs_diff(note.at) < SAME_TIME);
            if !timed {
                self.note(at, None);
            }
            let (now, later) = text.split_at(text.len().min(CHARACTERS));
            self.text.extend(now);
            self.written.text += now.len() as u64;
            text = later;
            let many = self.text.len().saturating_sub(CHARACTERS);
            self.forget(many);
        }
    }

    /// This happened behind what was said.
    pub fn mark(&mut self, at: u64, mark: Mark) {
        self.note(at, Some(mark));
    }

    fn note(&mut self, at: u64, mark: Option<Mark>) {
        if self.notes.len() >= NOTES {
            // Characters whose time is not known any more go with it.
            let until = self.notes.get(1).map_or(self.written.text, |note| note.text);
            self.notes.pop_front();
            self.forget(usize::try_from(until.saturating_sub(self.oldest())).unwrap_or(usize::MAX));
        }
        let (text, marks) = (self.written.text, self.written.marks);
        self.written.marks += u64::from(mark.is_some());
        self.written.notes += 1;
        self.notes.push_back(Note { text, marks, at, mark });
    }

    fn forget(&mut self, many: usize) {
        self.text.drain(..many.min(self.text.len()));
        let oldest = self.oldest();
        // The last time before the oldest character is still its own.
        while self.notes.get(1).is_some_and(|next| next.text <= oldest)
            && self.notes.front().is_some_and(|note| note.text < oldest)
        {
            self.notes.pop_front();
        }
    }

    /// The oldest character that is kept.
    fn oldest(&self) -> u64 {
        self.written.text - self.text.len() as u64
    }

    fn oldest_note(&self) -> u64 {
        self.written.notes - self.notes.len() as u64
    }

    /// Before the last so many lines of characters, and the marks that are among them. 0: behind everything.
    pub fn last(&self, lines: usize) -> Cursor {
        if lines == 0 {
            let Totals { text, notes, marks } = self.written;
            return Cursor { text, note: notes, marks };
        }
        let mut ends = self.text.iter().rev().enumerate().skip(1).filter(|(_, c)| **c == b'\n');
        let behind = ends.nth(lines - 1).map_or(self.text.len(), |(behind, _)| behind);
        let text = self.written.text - behind as u64;
        let before = self.notes.partition_point(|note| note.text < text);
        let marks = self.notes.get(before).map_or(self.written.marks, |note| note.marks);
        Cursor { text, note: self.oldest_note() + before as u64, marks }
    }

    /// What comes next there, and moves on. None: nothing yet.
    pub fn read(&self, cursor: &mut Cursor) -> Option<Piece> {
        self.skip(cursor).or_else(|| {
            let from = usize::try_from(cursor.note - self.oldest_note()).ok()?;
            let mut until = self.written.text;
            for note in self.notes.iter().skip(from) {
                if note.text > cursor.text {
                    until = note.text;
                    break;
                }
                cursor.note += 1;
                if let Some(mark) = &note.mark {
                    cursor.marks += 1;
                    return Some(Piece { at: note.at, what: What::Mark(mark.clone()) });
                }
            }
            let start = usize::try_from(cursor.text - self.oldest()).ok()?;
            let many = usize::try_from(until - cursor.text).ok()?.min(PIECE);
            let text: Bytes = self.text.range(start..start + many).copied().collect();
            let at = self.time_of(cursor.text);
            cursor.text += many as u64;
            (many > 0).then_some(Piece { at, what: What::Text(text) })
        })
    }

    /// Over what is forgotten.
    fn skip(&self, cursor: &mut Cursor) -> Option<Piece> {
        let (text, note) = (self.oldest(), self.oldest_note());
        let first = self.notes.front();
        let gone = first.map_or(self.written.marks, |note| note.marks);
        let characters = text.saturating_sub(cursor.text);
        let marks = if note > cursor.note { gone.saturating_sub(cursor.marks) } else { 0 };
        cursor.text = cursor.text.max(text);
        cursor.note = cursor.note.max(note);
        cursor.marks = cursor.marks.max(gone);
        let at = first.map_or(0, |note| note.at);
        let mark = Mark::Skipped { characters, marks };
        (characters > 0 || marks > 0).then_some(Piece { at, what: What::Mark(mark) })
    }

    fn time_of(&self, character: u64) -> u64 {
        let known = self.notes.partition_point(|note| note.text <= character);
        let known = known.checked_sub(1).and_then(|last| self.notes.get(last));
        known.map_or(0, |note| note.at)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn all(scrollback: &Scrollback, cursor: &mut Cursor) -> (Vec<u8>, Vec<Mark>) {
        let (mut text, mut marks) = (Vec::new(), Vec::new());
        while let Some(piece) = scrollback.read(cursor) {
            match piece.what {
                What::Text(more) => text.extend_from_slice(&more),
                What::Mark(mark) => marks.push(mark),
            }
        }
        (text, marks)
    }

    #[test]
    fn characters_times_and_marks_come_out_as_they_went_in() {
        let mut scrollback = Scrollback::default();
        let mut cursor = scrollback.last(0);
        scrollback.write(10_000, b"BIOS ");
        scrollback.write(10_500, b"v1\r\n");
        scrollback.mark(11_000, Mark::Break);
        scrollback.write(20_000, b"login: ");
        let piece = |at, what| Some(Piece { at, what });
        let text = |text: &'static [u8]| What::Text(Bytes::from_static(text));
        assert_eq!(scrollback.read(&mut cursor), piece(10_000, text(b"BIOS v1\r\n")));
        assert_eq!(scrollback.read(&mut cursor), piece(11_000, What::Mark(Mark::Break)));
        assert_eq!(scrollback.read(&mut cursor), piece(20_000, text(b"login: ")));
        assert_eq!(scrollback.read(&mut cursor), None);
        scrollback.write(20_100, b"root");
        assert_eq!(scrollback.read(&mut cursor), piece(20_000, text(b"root")));
    }

    #[test]
    fn the_last_lines_and_their_marks() {
        let mut scrollback = Scrollback::default();
        assert_eq!(all(&scrollback, &mut scrollback.last(5)), (Vec::new(), Vec::new()));
        scrollback.mark(1, Mark::Up);
        scrollback.write(2, b"one\ntwo\n");
        scrollback.mark(3, Mark::Overrun);
        scrollback.write(4, b"three\nfour\n");
        let last = |lines| all(&scrollback, &mut scrollback.last(lines));
        assert_eq!(last(0), (Vec::new(), Vec::new()));
        assert_eq!(last(1), (b"four\n".to_vec(), Vec::new()));
        assert_eq!(last(2), (b"three\nfour\n".to_vec(), vec![Mark::Overrun]));
        assert_eq!(last(9).1, [Mark::Up, Mark::Overrun]);
        scrollback.write(5, b"login: ");
        assert_eq!(all(&scrollback, &mut scrollback.last(2)).0, b"four\nlogin: ");
    }

    #[test]
    fn who_is_slow_is_told_how_much_he_missed() {
        let mut scrollback = Scrollback::default();
        let mut cursor = scrollback.last(0);
        scrollback.mark(1, Mark::Up);
        scrollback.write(2, &vec![b'a'; 1000]);
        scrollback.write(4000, &vec![b'b'; CHARACTERS - 10]);
        let skipped = Mark::Skipped { characters: 990, marks: 1 };
        let (text, marks) = all(&scrollback, &mut cursor);
        assert_eq!(marks, [skipped]);
        assert_eq!(&text[..11], b"aaaaaaaaaab");
        assert_eq!(text.len(), CHARACTERS);
        // He is up to date now.
        scrollback.write(5000, b"!");
        assert_eq!(all(&scrollback, &mut cursor), (b"!".to_vec(), Vec::new()));
    }

    #[test]
    fn a_port_that_sends_nothing_but_breaks_costs_no_memory() {
        let mut scrollback = Scrollback::default();
        let mut cursor = scrollback.last(0);
        scrollback.write(1, b"hello");
        for at in 0..100_000 {
            scrollback.mark(at, Mark::Break);
        }
        assert_eq!(scrollback.notes.len(), NOTES);
        let missed = 100_000 - NOTES as u64;
        let (text, marks) = all(&scrollback, &mut cursor);
        assert_eq!(marks[0], Mark::Skipped { characters: 5, marks: missed });
        assert_eq!((text.len(), marks.len()), (0, NOTES + 1));
    }

    proptest! {
        /// However it is written and read: nothing twice, nothing lost without a word.
        #[test]
        fn all_is_read_or_told(steps in prop::collection::vec((0u8..4, 0usize..60_000, 0u64..3000), 0..80)) {
            let mut scrollback = Scrollback::default();
            let mut cursor = scrollback.last(0);
            let (mut written, mut marked, mut seen, mut told, mut now) = (0u64, 0u64, 0u64, 0u64, 0u64);
            let mut next = 0u8;
            let mut expected = 0u8;
            for (step, many, later) in steps.into_iter().chain([(3, 0, 0)]) {
                now += later;
                match step {
                    0 | 1 => {
                        let text: Vec<u8> = (0..many).map(|_| { next = next.wrapping_add(1); next }).collect();
                        scrollback.write(now, &text);
                        written += text.len() as u64;
                    }
                    2 => {
                        scrollback.mark(now, Mark::Overrun);
                        marked += 1;
                    }
                    _ => while let Some(piece) = scrollback.read(&mut cursor) {
                        match piece.what {
                            What::Text(text) => {
                                for byte in &text {
                                    expected = expected.wrapping_add(1);
                                    prop_assert_eq!(*byte, expected);
                                }
                                seen += text.len() as u64;
                            }
                            What::Mark(Mark::Skipped { characters, marks }) => {
                                expected = expected.wrapping_add((characters % 256) as u8);
                                seen += characters;
                                told += marks;
                            }
                            What::Mark(_) => told += 1,
                        }
                    },
                }
                prop_assert!(scrollback.text.len() <= CHARACTERS && scrollback.notes.len() <= NOTES);
            }
            prop_assert_eq!((seen, told), (written, marked));
        }
    }
}
