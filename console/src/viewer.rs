//! Somebody who follows a line, at his own pace: the line never waits for him.
//!
//! He may begin far back: what the scrollback does not hold any more he reads from the line's log, until he
//! is in the scrollback. From then on, if he is too slow, he is told what he missed.

use std::collections::VecDeque;
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::line::locked;
use crate::log::{Reader, Start};
use crate::scrollback::{Cursor, Piece};
use crate::state::Record;

/// A place in what a line said.
#[derive(Debug)]
pub struct Viewer {
    /// None: there are only files.
    line: Option<(Arc<Mutex<Record>>, watch::Receiver<()>)>,
    stage: Stage,
}

#[derive(Debug)]
enum Stage {
    /// The line's log is being opened.
    Waits(Start),
    Files(Box<Files>),
    Here(Place),
}

/// A place in a scrollback.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Place {
    cursor: Cursor,
    /// How far places were moved when this one was noted.
    shifted: Cursor,
}

#[derive(Debug)]
struct Files {
    reading: Option<JoinHandle<io::Result<Read>>>,
    reader: Option<Reader>,
    /// What was read, with the place behind each.
    pieces: VecDeque<(Piece, Cursor)>,
    cursor: Cursor,
    /// It was looked again, and there was no more.
    again: bool,
}

type Read = (Reader, Vec<(Piece, Cursor)>);

impl Place {
    /// Behind all that is said.
    pub fn at(record: &Record) -> Place {
        Place { cursor: record.scrollback.end(), shifted: record.scrollback.shifted }
    }

    fn read(&mut self, record: &Record) -> Option<Piece> {
        let shifted = record.scrollback.shifted;
        self.cursor.text += shifted.text - self.shifted.text;
        self.cursor.marks += shifted.marks - self.shifted.marks;
        self.shifted = shifted;
        record.scrollback.read(&mut self.cursor)
    }
}

impl Files {
    fn open(dir: PathBuf, start: Start) -> Box<Files> {
        let reading = tokio::task::spawn_blocking(move || {
            let mut reader = Reader::open(dir)?;
            reader.seek(start)?;
            let pieces = reader.read()?;
            Ok((reader, pieces))
        });
        let (pieces, cursor) = (VecDeque::new(), Cursor::default());
        Box::new(Files { reading: Some(reading), reader: None, pieces, cursor, again: false })
    }

    /// Reads more, from what is there now. False: there is no more.
    async fn read(&mut self) -> io::Result<bool> {
        let reading = match (&mut self.reading, self.reader.take()) {
            (Some(reading), _) => reading,
            (reading @ None, Some(mut reader)) => {
                reading.insert(tokio::task::spawn_blocking(move || {
                    let mut pieces = reader.read()?;
                    if pieces.is_empty() {
                        reader.refresh()?;
                        pieces = reader.read()?;
                    }
                    Ok((reader, pieces))
                }))
            }
            (None, None) => return Ok(false),
        };
        let read = reading.await.map_err(io::Error::other).flatten();
        self.reading = None;
        let (reader, pieces) = read?;
        if pieces.is_empty() {
            self.cursor = reader.cursor();
        }
        self.pieces = pieces.into();
        self.reader = Some(reader);
        Ok(!self.pieces.is_empty())
    }
}

impl Viewer {
    pub(crate) fn new(
        record: Arc<Mutex<Record>>,
        changed: watch::Receiver<()>,
        start: Start,
    ) -> Viewer {
        let stage = Viewer::find(&locked(&record), start);
        Viewer { line: Some((record, changed)), stage }
    }

    pub(crate) fn at(
        record: Arc<Mutex<Record>>,
        changed: watch::Receiver<()>,
        place: Place,
    ) -> Viewer {
        Viewer { line: Some((record, changed)), stage: Stage::Here(place) }
    }

    /// Reads a line's log where no line is; it ends where that ends. To be called within a runtime.
    pub fn of_files(dir: PathBuf, start: Start) -> Viewer {
        Viewer { line: None, stage: Stage::Files(Files::open(dir, start)) }
    }

    fn find(record: &Record, start: Start) -> Stage {
        if !record.ready {
            return Stage::Waits(start);
        }
        let scrollback = &record.scrollback;
        let begin = scrollback.begin();
        let cursor = match start {
            _ if begin == Cursor::default() => None,
            Start::Lines(lines) => scrollback.back(lines),
            Start::Since(at) => scrollback.since(at),
            Start::Place(text) => (text > begin.text).then(|| scrollback.place(text)),
            Start::Oldest => None,
        };
        match (cursor, &record.files) {
            (None, Some(dir)) if begin != Cursor::default() => {
                Stage::Files(Files::open(dir.clone(), start))
            }
            (cursor, _) => Stage::Here(Place {
                cursor: cursor.unwrap_or_else(|| match start {
                    Start::Lines(lines) => scrollback.last(lines),
                    Start::Since(at) => scrollback.since(at).unwrap_or(begin),
                    Start::Place(text) => scrollback.place(text.max(begin.text)),
                    Start::Oldest => begin,
                }),
                shifted: scrollback.shifted,
            }),
        }
    }

    /// What comes next. None: the line is closed, and all of it was read. May be given up while it waits, and
    /// called again.
    pub async fn next(&mut self) -> Option<Piece> {
        let mut open = true;
        loop {
            if let Some((_, changed)) = &mut self.line {
                changed.mark_unchanged();
            }
            if let Some(piece) = self.now().await {
                return Some(piece);
            }
            if !open {
                return None;
            }
            let (_, changed) = self.line.as_mut()?;
            open = changed.changed().await.is_ok();
        }
    }

    /// What comes next of what was said already. None: there is no more now. May be given up and called
    /// again.
    pub async fn now(&mut self) -> Option<Piece> {
        loop {
            match &mut self.stage {
                Stage::Waits(start) => {
                    let (start, (record, changed)) = (*start, self.line.as_mut()?);
                    let found = Viewer::find(&locked(record), start);
                    if matches!(found, Stage::Waits(_)) {
                        changed.changed().await.ok()?;
                    }
                    self.stage = found;
                }
                Stage::Here(place) => {
                    let (record, _) = self.line.as_ref()?;
                    return place.read(&locked(record));
                }
                Stage::Files(files) => {
                    if let Some((piece, after)) = files.pieces.pop_front() {
                        files.cursor = after;
                        return Some(piece);
                    }
                    let read = files.read().await;
                    if matches!(read, Ok(true)) {
                        files.again = false;
                        continue;
                    }
                    let (record, _) = self.line.as_ref()?;
                    let scrollback = &locked(record).scrollback;
                    // The line may have been faster than the last look.
                    if read.is_ok() && !files.again && !scrollback.reaches(files.cursor) {
                        files.again = true;
                        continue;
                    }
                    // Otherwise what is here is here, and what is not is told.
                    let cursor = match read {
                        Ok(_) => files.cursor,
                        Err(_) => scrollback.begin(),
                    };
                    self.stage = Stage::Here(Place { cursor, shifted: scrollback.shifted });
                }
            }
        }
    }
}
