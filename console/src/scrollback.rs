//! The last that a line said: its characters, when they came, and marks of what happened between them. It is
//! bounded, and forgets the oldest; who reads too slowly is told what he missed.
//!
//! Places are absolute, counted since the line's log was begun: a place says the same here, in the files, and
//! after a restart. What is older than this is in the files (see [`crate::log`]), which read here themselves:
//! what they do not have yet is forgotten last.

use std::collections::VecDeque;

use bytes::Bytes;

use crate::log::Tap;
pub use crate::mark::Mark;
use crate::screen::Screen;

/// Characters that are kept.
pub const CHARACTERS: usize = 64 * 1024;
/// Times that are kept, of characters.
const TIMES: usize = 512;
/// Marks that are kept: a port that is broken may send nothing but breaks.
const MARKS: usize = 256;
/// Characters that come within so long have one time, milliseconds.
const SAME_TIME: u64 = 100;
/// Characters that are handed on at once.
const PIECE: usize = 16 * 1024;

/// Something to show, in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Piece {
    /// When it came, Unix milliseconds; of characters: within a tenth of a second.
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

/// A place in what a line said, before the next piece to be read.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Cursor {
    /// Characters before it.
    pub text: u64,
    /// Marks before it.
    pub marks: u64,
}

/// What is to be written into the log, in order.
#[derive(Debug, Default)]
pub(crate) struct Batch {
    /// Where it begins.
    pub begin: Cursor,
    /// Characters.
    pub text: Vec<u8>,
    /// Times and marks, with the characters before them.
    pub notes: Vec<(u64, u64, Option<Box<Mark>>)>,
    /// Where it ends.
    pub end: Cursor,
}

/// See the module.
#[derive(Debug, Default)]
pub struct Scrollback {
    text: VecDeque<u8>,
    times: VecDeque<Time>,
    marks: VecDeque<Marked>,
    /// Behind the newest.
    end: Cursor,
    /// What is written into the log from here.
    pub(crate) tap: Option<Tap>,
    screen: Screen,
    /// How far places were moved since it was begun: its log was found late.
    pub(crate) shifted: Cursor,
}

#[derive(Debug, Clone, Copy)]
struct Time {
    /// Of the characters from here on.
    text: u64,
    at: u64,
}

#[derive(Debug)]
struct Marked {
    /// Characters before it.
    text: u64,
    at: u64,
    mark: Box<Mark>,
}

impl Scrollback {
    /// One that goes on where another ended.
    pub(crate) fn at(end: Cursor) -> Scrollback {
        let screen = Screen::from(end.text);
        Scrollback { end, screen, ..Scrollback::default() }
    }

    /// The machine said this, at this time (Unix milliseconds).
    pub fn write(&mut self, at: u64, text: &[u8]) {
        for text in text.chunks(CHARACTERS) {
            self.make_room(text.len());
            let timed = self.times.back().is_some_and(|time| at.abs_diff(time.at) < SAME_TIME);
            // What follows a mark has a time of its own.
            let marked = self.marks.back().map_or(0, |mark| mark.text);
            let since = self.times.back().map_or(0, |time| time.text);
            if !timed || (marked == self.end.text && since < marked) {
                self.time(at);
            }
            self.text.extend(text);
            self.end.text += text.len() as u64;
        }
        self.tell_log();
    }

    fn time(&mut self, at: u64) {
        if self.times.len() >= TIMES {
            // Characters whose time is not known any more go with it.
            let until = self.times.get(1).map_or(self.end.text, |time| time.text);
            self.forget(until);
            self.times.pop_front();
        }
        self.times.push_back(Time { text: self.end.text, at });
    }

    /// This happened behind what was said.
    pub fn mark(&mut self, at: u64, mark: Mark) {
        if self.marks.len() >= MARKS {
            self.marks.pop_front();
        }
        self.marks.push_back(Marked { text: self.end.text, at, mark: Box::new(mark) });
        self.end.marks += 1;
        self.tell_log();
    }

    fn tell_log(&self) {
        let Some(tap) = &self.tap else { return };
        let much = self.end.text.saturating_sub(tap.logged.text) > (CHARACTERS / 2) as u64;
        let many = self.end.marks.saturating_sub(tap.logged.marks) > (MARKS / 2) as u64;
        tap.feed.ring(much || many);
    }

    /// Whether so many more characters, or a mark, may be written before the log has more of what is here: it
    /// comes before all who look, as long as it works.
    pub(crate) fn may_write(&self, many: usize) -> bool {
        self.tap.as_ref().is_none_or(|tap| !tap.works() || self.has_room(tap.logged, many))
    }

    fn make_room(&mut self, many: usize) {
        let over = (self.text.len() + many).saturating_sub(CHARACTERS);
        if over > 0 {
            self.forget(self.oldest() + over as u64);
        }
        // Never twice what is kept, as it would grow by itself.
        let wanted = (self.text.len() + many).next_power_of_two().min(CHARACTERS);
        self.text.reserve_exact(wanted.saturating_sub(self.text.len()));
    }

    /// All that is before this character.
    fn forget(&mut self, until: u64) {
        if self.screen.fed() < until {
            self.feed_screen();
        }
        let many = usize::try_from(until.saturating_sub(self.oldest())).unwrap_or(usize::MAX);
        self.text.drain(..many.min(self.text.len()));
        let oldest = self.oldest();
        // The last time before the oldest character is still its own.
        while self.times.get(1).is_some_and(|next| next.text <= oldest) {
            self.times.pop_front();
        }
        while self.marks.front().is_some_and(|mark| mark.text < oldest) {
            self.marks.pop_front();
        }
    }

    /// The screen as it stands now.
    pub(crate) fn screen(&mut self) -> &mut Screen {
        self.feed_screen();
        &mut self.screen
    }

    /// It is fed late, when somebody looks or what it needs would be forgotten: most of what a machine says
    /// is off the screen by then, and was never worth drawing.
    fn feed_screen(&mut self) {
        let mut screen = std::mem::take(&mut self.screen);
        for part in self.parts(screen.fed()) {
            screen.feed(part);
        }
        self.screen = screen;
    }

    /// The oldest character that is kept.
    fn oldest(&self) -> u64 {
        self.end.text - self.text.len() as u64
    }

    fn oldest_mark(&self) -> u64 {
        self.end.marks - self.marks.len() as u64
    }

    /// Places count from there on.
    pub(crate) fn shift(&mut self, by: Cursor) {
        for time in &mut self.times {
            time.text += by.text;
        }
        for mark in &mut self.marks {
            mark.text += by.text;
        }
        self.screen.shift(by.text);
        for place in [&mut self.end, &mut self.shifted] {
            place.text += by.text;
            place.marks += by.marks;
        }
    }

    /// Behind the newest.
    pub fn end(&self) -> Cursor {
        self.end
    }

    /// Before the oldest that is kept.
    pub fn begin(&self) -> Cursor {
        Cursor { text: self.oldest(), marks: self.oldest_mark() }
    }

    /// Whether nothing between there and here is forgotten.
    pub(crate) fn reaches(&self, place: Cursor) -> bool {
        place.text >= self.oldest() && place.marks >= self.oldest_mark()
    }

    /// Whether so many more characters and a mark would push out nothing that is behind this place.
    fn has_room(&self, keep: Cursor, many: usize) -> bool {
        let text = usize::try_from(self.end.text.saturating_sub(keep.text)).unwrap_or(usize::MAX);
        let marks = self.end.marks.saturating_sub(keep.marks);
        let first = self.times.partition_point(|time| time.text <= keep.text);
        text.saturating_add(many) <= CHARACTERS
            && marks < MARKS as u64
            && self.times.len() - first + 2 <= TIMES
    }

    /// Before the last so many lines of characters, and the marks that are among them. 0: behind everything.
    /// None: there are not so many here.
    pub(crate) fn back(&self, lines: usize) -> Option<Cursor> {
        let behind = match lines {
            0 => return Some(self.end),
            _ => behind(self.text.iter().rev(), lines)?,
        };
        let text = self.end.text - behind as u64;
        Some(Cursor { text, marks: self.marks_before(text) })
    }

    /// The same; all there is where that is less.
    pub fn last(&self, lines: usize) -> Cursor {
        self.back(lines).unwrap_or(self.begin())
    }

    /// Before what came at this time (Unix milliseconds) or later. None: it may be older than what is here.
    pub(crate) fn since(&self, at: u64) -> Option<Cursor> {
        let first = self.times.front().map(|time| time.at);
        let first = first.into_iter().chain(self.marks.front().map(|mark| mark.at)).min();
        if first.is_none_or(|first| at <= first) {
            return None;
        }
        let time = self.times.iter().find(|time| time.at.saturating_add(SAME_TIME) > at);
        let mark = self.marks.iter().position(|mark| mark.at >= at);
        let text = time.map_or(self.end.text, |time| time.text).max(self.oldest());
        Some(match mark.and_then(|mark| Some((mark, self.marks.get(mark)?.text))) {
            Some((mark, before)) if before <= text => {
                Cursor { text: before, marks: self.oldest_mark() + mark as u64 }
            }
            _ => Cursor { text, marks: self.marks_before(text) },
        })
    }

    /// Before this character.
    pub(crate) fn place(&self, text: u64) -> Cursor {
        let text = text.min(self.end.text);
        Cursor { text, marks: self.marks_before(text) }
    }

    fn marks_before(&self, text: u64) -> u64 {
        self.oldest_mark() + self.marks.partition_point(|mark| mark.text < text) as u64
    }

    /// What comes next there, and moves on. None: nothing yet.
    pub fn read(&self, cursor: &mut Cursor) -> Option<Piece> {
        if let Some(skipped) = self.skip(cursor) {
            return Some(skipped);
        }
        let next = usize::try_from(cursor.marks.checked_sub(self.oldest_mark())?).ok()?;
        let mut until = self.end.text;
        if let Some(mark) = self.marks.get(next) {
            if mark.text <= cursor.text {
                cursor.marks += 1;
                return Some(Piece { at: mark.at, what: What::Mark((*mark.mark).clone()) });
            }
            until = mark.text;
        }
        let known = self.times.partition_point(|time| time.text <= cursor.text);
        until = until.min(self.times.get(known).map_or(u64::MAX, |time| time.text));
        let at = known.checked_sub(1).and_then(|last| self.times.get(last));
        let at = at.map_or(0, |time| time.at);
        let many = usize::try_from(until - cursor.text).ok()?.min(PIECE);
        let text = Bytes::from(self.copy(cursor.text, many));
        cursor.text += text.len() as u64;
        (!text.is_empty()).then_some(Piece { at, what: What::Text(text) })
    }

    /// So many characters from there on, as far as they are here.
    fn copy(&self, from: u64, many: usize) -> Vec<u8> {
        let mut text = Vec::with_capacity(many);
        for part in self.parts(from) {
            let many = many - text.len();
            text.extend_from_slice(part.get(..many.min(part.len())).unwrap_or_default());
        }
        text
    }

    /// The characters from there on, as they lie.
    pub(crate) fn parts(&self, from: u64) -> [&[u8]; 2] {
        let skip = usize::try_from(from.saturating_sub(self.oldest())).unwrap_or(usize::MAX);
        let (one, two) = self.text.as_slices();
        let more = skip.saturating_sub(one.len());
        [one.get(skip..).unwrap_or_default(), two.get(more..).unwrap_or_default()]
    }

    /// Over what is forgotten.
    fn skip(&self, cursor: &mut Cursor) -> Option<Piece> {
        let begin = self.begin();
        let characters = begin.text.saturating_sub(cursor.text);
        let marks = begin.marks.saturating_sub(cursor.marks);
        cursor.text = cursor.text.max(begin.text);
        cursor.marks = cursor.marks.max(begin.marks);
        let at = self.times.front().map_or(0, |time| time.at);
        let mark = Mark::Skipped { characters, marks };
        (characters > 0 || marks > 0).then_some(Piece { at, what: What::Mark(mark) })
    }

    /// All from there on that is still here, for the log.
    pub(crate) fn batch(&self, from: Cursor, batch: &mut Batch) {
        let begin = self.begin();
        let text = from.text.max(begin.text);
        let marks = from.marks.max(begin.marks);
        batch.begin = Cursor { text, marks };
        batch.end = self.end;
        batch.text.clear();
        batch.notes.clear();
        for part in self.parts(text) {
            batch.text.extend_from_slice(part);
        }
        let known = self.times.partition_point(|time| time.text < text);
        // The first of it may belong to a time that was told before.
        let known = if self.times.get(known).is_some_and(|time| time.text == text) {
            known
        } else {
            known.saturating_sub(1)
        };
        let times = self.times.iter().skip(known).map(|time| (time.text.max(text), time.at, None));
        batch.notes.extend(times.filter(|(text, ..)| *text < self.end.text));
        let skip = usize::try_from(marks - begin.marks).unwrap_or(usize::MAX);
        let marks = self.marks.iter().skip(skip);
        batch.notes.extend(marks.map(|mark| (mark.text, mark.at, Some(mark.mark.clone()))));
        // A mark stands before the characters that came behind it.
        batch.notes.sort_by_key(|(text, _, mark)| (*text, mark.is_none()));
    }
}

/// Characters behind the place before the last so many lines. None: there are not so many.
pub(crate) fn behind<'a>(reversed: impl Iterator<Item = &'a u8>, lines: usize) -> Option<usize> {
    let mut ends = reversed.enumerate().skip(1).filter(|(_, c)| **c == b'\n');
    ends.nth(lines.saturating_sub(1)).map(|(behind, _)| behind)
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
        scrollback.write(10_050, b"v1\r\n");
        scrollback.mark(11_000, Mark::Break);
        scrollback.write(20_000, b"login: ");
        let piece = |at, what| Some(Piece { at, what });
        let text = |text: &'static [u8]| What::Text(Bytes::from_static(text));
        assert_eq!(scrollback.read(&mut cursor), piece(10_000, text(b"BIOS v1\r\n")));
        assert_eq!(scrollback.read(&mut cursor), piece(11_000, What::Mark(Mark::Break)));
        assert_eq!(scrollback.read(&mut cursor), piece(20_000, text(b"login: ")));
        assert_eq!(scrollback.read(&mut cursor), None);
        scrollback.write(20_050, b"root");
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
        assert_eq!(scrollback.marks.len(), MARKS);
        let missed = 100_000 - MARKS as u64;
        let (text, marks) = all(&scrollback, &mut cursor);
        assert_eq!(marks[0], Mark::Skipped { characters: 0, marks: missed });
        assert_eq!((text.len(), marks.len()), (5, MARKS + 1));
    }

    proptest! {
        /// However it is written and read: nothing twice, nothing lost without a word.
        #[test]
        fn all_is_read_or_told(steps in prop::collection::vec((0u8..4, 0usize..30_000, 0u64..300), 0..80)) {
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
                prop_assert!(scrollback.text.capacity() <= CHARACTERS && scrollback.marks.len() <= MARKS && scrollback.times.len() <= TIMES);
            }
            prop_assert_eq!((seen, told), (written, marked));
        }
    }
}
