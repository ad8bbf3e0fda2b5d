//! Reads a line's files: from a place, a time or some lines back, to where they end at the time.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;

use bytes::Bytes;

use super::files::{Name, list, read_index};
use super::index::{Index, Note};
use crate::scrollback::{Cursor, Mark, Piece, What, behind};

/// Read at once.
const READ: usize = 64 * 1024;
/// Characters of a piece.
const PIECE: usize = 16 * 1024;

/// Where to begin in what a line said.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Start {
    /// At the oldest there is.
    Oldest,
    /// Before the last so many lines. 0: behind everything.
    Lines(usize),
    /// Before what came then or later, Unix milliseconds.
    Since(u64),
    /// Before this character, counted since the log was begun.
    Place(u64),
}

/// See the module.
#[derive(Debug)]
pub struct Reader {
    dir: PathBuf,
    names: Vec<Name>,
    /// The segment that was read last.
    segment: Option<Segment>,
    cursor: Cursor,
}

#[derive(Debug)]
struct Segment {
    /// Which of the names it is.
    number: usize,
    file: File,
    base: Cursor,
    /// Behind its last character that the index knows of.
    end: u64,
    /// Of the characters from there on.
    times: Vec<(u64, u64)>,
    /// Characters before it, and when it was.
    marks: Vec<(u64, u64, Mark)>,
}

impl Segment {
    fn new(number: usize, file: File, index: Index, length: u64) -> Segment {
        let base = index.base;
        let (mut times, mut marks) = (Vec::new(), Vec::new());
        for Note { offset, at, mark } in index.notes {
            let text = base.text + u64::from(offset);
            // What came in the moment of a mark has no time of its own.
            times.push((text, at));
            marks.extend(mark.map(|mark| (text, at, mark)));
        }
        Segment { number, file, base, end: base.text + length, times, marks }
    }

    fn marks_before(&self, text: u64) -> u64 {
        self.base.marks + self.marks.partition_point(|(before, ..)| *before < text) as u64
    }

    /// What comes next in it.
    fn next(&self, cursor: Cursor, buffer: &mut [u8]) -> io::Result<Option<(Piece, Cursor)>> {
        let mut after = cursor;
        let mut until = self.end;
        let next = cursor.marks.checked_sub(self.base.marks);
        let next = next.and_then(|next| self.marks.get(usize::try_from(next).ok()?));
        if let Some((text, at, mark)) = next {
            if *text <= cursor.text {
                after.marks += 1;
                return Ok(Some((Piece { at: *at, what: What::Mark(mark.clone()) }, after)));
            }
            until = until.min(*text);
        }
        let known = self.times.partition_point(|(text, _)| *text <= cursor.text);
        let (before, later) = self.times.split_at(known);
        until = until.min(later.first().map_or(u64::MAX, |(text, _)| *text));
        let many = usize::try_from(until.saturating_sub(cursor.text)).unwrap_or(PIECE).min(PIECE);
        let Some(part) = buffer.get_mut(..many).filter(|part| !part.is_empty()) else {
            return Ok(None);
        };
        self.file.read_exact_at(part, cursor.text - self.base.text)?;
        after.text += many as u64;
        let text = What::Text(Bytes::copy_from_slice(part));
        Ok(Some((Piece { at: before.last().map_or(0, |(_, at)| *at), what: text }, after)))
    }
}

impl Reader {
    /// At the oldest there is. A directory that is not there holds nothing.
    ///
    /// # Errors
    /// The directory or a file in it cannot be read.
    pub fn open(dir: PathBuf) -> io::Result<Reader> {
        let mut reader =
            Reader { dir, names: Vec::new(), segment: None, cursor: Cursor::default() };
        reader.refresh()?;
        reader.begin();
        Ok(reader)
    }

    /// Where it is.
    pub fn cursor(&self) -> Cursor {
        self.cursor
    }

    /// Looks again at what there is.
    ///
    /// # Errors
    /// The directory or a file in it cannot be read.
    pub fn refresh(&mut self) -> io::Result<()> {
        self.segment = None;
        self.names = match list(&self.dir) {
            Ok(names) => names,
            Err(why) if why.kind() == io::ErrorKind::NotFound => Vec::new(),
            Err(why) => return Err(why),
        };
        Ok(())
    }

    fn begin(&mut self) {
        let Some(first) = self.names.first() else { return };
        // One whose index is torn has characters still.
        let marks = self.names.iter().find_map(|name| read_index(&self.dir, name));
        let marks = marks.map_or(0, |index| index.base.marks);
        self.cursor = Cursor { text: first.base, marks };
    }

    /// Goes where it is to begin.
    ///
    /// # Errors
    /// The directory or a file in it cannot be read.
    pub fn seek(&mut self, start: Start) -> io::Result<()> {
        match start {
            Start::Oldest => self.begin(),
            Start::Lines(lines) => {
                let place = self.back(lines)?;
                self.place(place)?;
            }
            Start::Place(text) => self.place(text)?,
            Start::Since(at) => self.since(at)?,
        }
        Ok(())
    }

    fn place(&mut self, text: u64) -> io::Result<()> {
        self.begin();
        let begin = self.cursor;
        self.cursor.text = text.max(begin.text);
        if self.load()? {
            let marks = self.segment.as_ref().map(|segment| segment.marks_before(self.cursor.text));
            self.cursor.marks = marks.unwrap_or(begin.marks);
        }
        Ok(())
    }

    fn since(&mut self, at: u64) -> io::Result<()> {
        self.begin();
        for name in self.names.iter().rev() {
            let Some(index) = read_index(&self.dir, name) else { continue };
            let before = index.notes.iter().take_while(|note| note.at < at);
            let before = before.count();
            if before == 0 && index.base.text > self.cursor.text {
                continue;
            }
            let notes = index.notes.get(..before).unwrap_or_default();
            let marks = notes.iter().filter(|note| note.mark.is_some()).count() as u64;
            let place = index.notes.get(before).map_or(u64::from(u32::MAX), |n| n.offset.into());
            let length = fs::metadata(name.log(&self.dir)).map_or(0, |found| found.len());
            let text = index.base.text + place.min(length);
            self.cursor = Cursor { text, marks: index.base.marks + marks };
            return Ok(());
        }
        Ok(())
    }

    /// The place before the last so many lines; the beginning where there are not so many.
    fn back(&self, lines: usize) -> io::Result<u64> {
        let mut wanted = lines;
        let mut end: Option<u64> = None;
        let mut buffer = vec![0; READ];
        for name in self.names.iter().rev() {
            let file = match File::open(name.log(&self.dir)) {
                Ok(file) => file,
                Err(why) if why.kind() == io::ErrorKind::NotFound => continue,
                Err(why) => return Err(why),
            };
            let length = file.metadata()?.len();
            let last = end.is_none();
            let length = end.map_or(length, |next| length.min(next.saturating_sub(name.base)));
            end = Some(name.base);
            if lines == 0 {
                return Ok(name.base + length);
            }
            let mut behind_it = length;
            while behind_it > 0 {
                let many = behind_it.min(READ as u64);
                let from = behind_it - many;
                let part = usize::try_from(many).unwrap_or(READ);
                let Some(part) = buffer.get_mut(..part) else { break };
                file.read_exact_at(part, from)?;
                // A line's end at the very end of all is its own line's.
                let own = last && behind_it == length && part.last() == Some(&b'\n');
                let seen = part.iter().filter(|byte| **byte == b'\n').count() - usize::from(own);
                if seen >= wanted {
                    let rest = match own {
                        true => behind(part.iter().rev(), wanted),
                        false => behind([b'\n'].iter().chain(part.iter().rev()), wanted)
                            .map(|many| many - 1),
                    };
                    return Ok(name.base + behind_it - rest.unwrap_or(0) as u64);
                }
                wanted -= seen;
                behind_it = from;
            }
        }
        Ok(0)
    }

    /// Opens the segment that the cursor is in. False: there is none.
    fn load(&mut self) -> io::Result<bool> {
        let at = self.names.partition_point(|name| name.base <= self.cursor.text);
        let Some(mut number) = at.checked_sub(1) else { return Ok(false) };
        if let Some(segment) = &self.segment {
            // It may end in marks, which are before the next one's first character.
            let here = segment.number + 1 == number && self.cursor.text == segment.end;
            let more = segment.base.marks + segment.marks.len() as u64;
            if segment.number == number || (here && self.cursor.marks < more) {
                return Ok(true);
            }
        } else if let Some(name) =
            self.names.get(number).filter(|name| name.base == self.cursor.text)
            && read_index(&self.dir, name).is_some_and(|index| index.base.marks > self.cursor.marks)
        {
            number = number.saturating_sub(1);
        }
        self.segment = None;
        let Some(name) = self.names.get(number) else { return Ok(false) };
        let file = match File::open(name.log(&self.dir)) {
            Ok(file) => file,
            // It went meanwhile.
            Err(why) if why.kind() == io::ErrorKind::NotFound => return Ok(false),
            Err(why) => return Err(why),
        };
        // In this order: marks are written before the characters behind them.
        let mut length = file.metadata()?.len();
        if let Some(next) = self.names.get(number + 1) {
            length = length.min(next.base - name.base);
        }
        let unknown = Cursor { text: name.base, marks: self.cursor.marks };
        let index = read_index(&self.dir, name);
        let index = index.unwrap_or(Index { base: unknown, notes: Vec::new(), whole: 0 });
        self.segment = Some(Segment::new(number, file, index, length));
        Ok(true)
    }

    /// What comes next, some of it, with the place behind each piece. Empty: that is all there is at the
    /// time; [`Reader::refresh`] looks again.
    ///
    /// # Errors
    /// The directory or a file in it cannot be read.
    pub fn read(&mut self) -> io::Result<Vec<(Piece, Cursor)>> {
        let mut pieces = Vec::new();
        let mut buffer = vec![0; PIECE];
        let mut many = 0;
        while many < READ && pieces.len() < 1024 {
            let loaded = self.load()?;
            let Some((piece, after)) = self.next(loaded, &mut buffer)? else { break };
            if let What::Text(text) = &piece.what {
                many += text.len();
            }
            self.cursor = after;
            pieces.push((piece, after));
        }
        Ok(pieces)
    }

    fn next(&self, loaded: bool, buffer: &mut [u8]) -> io::Result<Option<(Piece, Cursor)>> {
        let segment = self.segment.as_ref().filter(|_| loaded);
        if let Some(base) = segment.map(|segment| segment.base)
            && base.marks > self.cursor.marks
        {
            let marks = base.marks - self.cursor.marks;
            let what = What::Mark(Mark::Missing { characters: 0, marks });
            let after = Cursor { marks: base.marks, ..self.cursor };
            return Ok(Some((Piece { at: 0, what }, after)));
        }
        if let Some(segment) = segment
            && let Some(next) = segment.next(self.cursor, buffer)?
        {
            return Ok(Some(next));
        }
        // The next segment goes on here, or something is missing in between.
        let later = match segment {
            Some(segment) => self.names.get(segment.number + 1),
            None => self.names.iter().find(|name| name.base > self.cursor.text),
        };
        let Some(later) = later else { return Ok(None) };
        let base = read_index(&self.dir, later).map(|index| index.base);
        let base = base.unwrap_or(Cursor { text: later.base, marks: self.cursor.marks });
        let characters = base.text.saturating_sub(self.cursor.text);
        let marks = base.marks.saturating_sub(self.cursor.marks);
        let at = segment.and_then(|segment| segment.times.last()).map_or(0, |(_, at)| *at);
        let what = What::Mark(Mark::Missing { characters, marks });
        Ok(Some((Piece { at, what }, base)))
    }
}
