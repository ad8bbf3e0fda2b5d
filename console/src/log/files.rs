//! A line's files: segments of what the machine sent, as it sent it, an index beside each; the oldest goes
//! when all of them together would be over their bound.
//!
//! ```text
//! consoles/m01/0000000000000000-20261125T213000Z.log   its first character's place; when it was begun
//! consoles/m01/0000000000000000-20261125T213000Z.idx
//! ```
//!
//! The index is written before the characters: after a crash it may tell of characters that are not there,
//! and then they are known to be missing. A write that fails leaves both as they were.

use std::collections::VecDeque;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::index::{self, HEAD, MARK, RECORD};
use crate::scrollback::{Batch, Cursor, Mark};

/// All segments together are no more than so many.
const SEGMENTS: u64 = 8;
/// A segment takes so many parts at least, of so much as is written at once.
const PARTS: u64 = 8;
/// The least that a bound may be: segments below a few kilobytes are nothing but heads.
pub const LEAST: u64 = 64 * 1024;
/// Whether the files are still there is looked at no more often.
const LOOK: Duration = Duration::from_secs(1);

/// A segment's place and its names.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Name {
    /// Characters before it.
    pub base: u64,
    /// Without its ending.
    pub stem: String,
}

impl Name {
    pub fn log(&self, dir: &Path) -> PathBuf {
        dir.join(format!("{}.log", self.stem))
    }

    pub fn idx(&self, dir: &Path) -> PathBuf {
        dir.join(format!("{}.idx", self.stem))
    }

    fn new(base: u64) -> Name {
        let now = jiff::Timestamp::now().strftime("%Y%m%dT%H%M%SZ");
        Name { base, stem: format!("{base:016}-{now}") }
    }
}

/// The segments that are there, the oldest first.
pub(super) fn list(dir: &Path) -> io::Result<Vec<Name>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(dir)? {
        let name = entry?.file_name();
        let Some(stem) = name.to_str().and_then(|name| name.strip_suffix(".log")) else { continue };
        let base = stem.split_once('-').and_then(|(base, _)| base.parse().ok());
        // No line ever said so much: somebody else's file.
        let base = base.filter(|base| *base <= u64::MAX >> 8);
        names.extend(base.map(|base| Name { base, stem: stem.to_string() }));
    }
    names.sort();
    Ok(names)
}

/// See the module.
#[derive(Debug)]
pub(super) struct Files {
    dir: PathBuf,
    bound: u64,
    /// The newest is last; with the bytes of both files of each.
    segments: VecDeque<(Name, u64)>,
    /// Of the newest, while it can go on.
    newest: Option<Newest>,
    end: Cursor,
    /// Time of the last character or mark, Unix milliseconds; 0: there is none.
    last: u64,
}

#[derive(Debug)]
struct Newest {
    base: u64,
    log: u64,
    idx: u64,
    /// None: they are opened for each batch.
    open: Option<(File, File)>,
    /// What the file is, and when it was last seen under its name.
    file: Option<(u64, u64)>,
    looked: Option<Instant>,
}

impl Files {
    /// What is there, to be gone on with. The directory may not be there yet.
    pub fn open(dir: PathBuf, bound: u64) -> io::Result<Files> {
        let names = match list(&dir) {
            Ok(names) => names,
            Err(why) if why.kind() == io::ErrorKind::NotFound => Vec::new(),
            Err(why) => return Err(why),
        };
        let mut files = Files {
            dir,
            bound: bound.max(LEAST),
            segments: VecDeque::new(),
            newest: None,
            end: Cursor::default(),
            last: 0,
        };
        for name in names {
            let size = size(&name.log(&files.dir)) + size(&name.idx(&files.dir));
            files.segments.push_back((name, size));
        }
        files.resume()?;
        files.trim(0)?;
        Ok(files)
    }

    /// Where it ends, from its last segment; of those whose index is gone, only the characters count.
    fn resume(&mut self) -> io::Result<()> {
        let Some((newest, _)) = self.segments.back() else { return Ok(()) };
        let log = size(&newest.log(&self.dir));
        self.end.text = newest.base + log;
        for (name, _) in self.segments.iter().rev() {
            let Some(index) = read_index(&self.dir, name) else { continue };
            let offset = index.notes.last().map_or(0, |note| u64::from(note.offset));
            let marks = index.notes.iter().filter(|note| note.mark.is_some()).count();
            self.end.text = self.end.text.max(name.base + offset);
            self.end.marks = index.base.marks + marks as u64;
            self.last = index.notes.last().map_or(0, |note| note.at);
            if name == newest && offset <= log {
                let idx = index.whole as u64;
                OpenOptions::new().write(true).open(name.idx(&self.dir))?.set_len(idx)?;
                let base = name.base;
                self.newest = Some(Newest { base, log, idx, open: None, file: None, looked: None });
            }
            break;
        }
        Ok(())
    }

    /// Behind all that is written.
    pub fn end(&self) -> Cursor {
        self.end
    }

    /// When the last of it came, Unix milliseconds. None: it is empty.
    pub fn last(&self) -> Option<u64> {
        (self.last > 0).then_some(self.last)
    }

    /// Another bound: what is over it goes now.
    pub fn set_bound(&mut self, bound: u64) -> io::Result<()> {
        self.bound = bound.max(LEAST);
        if self.segments.back().is_some_and(|(_, size)| *size > self.segment()) {
            self.newest = None;
        }
        self.trim(0)
    }

    /// Whether nothing is there, or somebody took it away.
    pub fn is_empty(&self) -> bool {
        self.segments.is_empty()
    }

    /// Lets go of what is open.
    pub fn close(&mut self) {
        if let Some(newest) = &mut self.newest {
            newest.open = None;
        }
    }

    /// Whether files are open.
    pub fn is_open(&self) -> bool {
        self.newest.as_ref().is_some_and(|newest| newest.open.is_some())
    }

    /// Whether somebody took the files away: then all of it begins anew, with an empty directory.
    pub fn is_gone(&mut self, now: Instant) -> bool {
        let Some((name, _)) = self.segments.back() else { return false };
        let Some(newest) = &mut self.newest else { return false };
        let (Some(file), Some(looked)) = (newest.file, newest.looked) else { return false };
        if now.saturating_duration_since(looked) < LOOK {
            return false;
        }
        newest.looked = Some(now);
        let found = fs::metadata(name.log(&self.dir)).map(|found| (found.dev(), found.ino()));
        let gone = match found {
            Ok(found) => found != file,
            Err(why) => {
                matches!(why.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
            }
        };
        if gone {
            self.forget();
        }
        gone
    }

    fn forget(&mut self) {
        self.segments.clear();
        self.newest = None;
        self.last = 0;
    }

    /// Writes it behind what there is, all of it or as much as could be: [`Files::end`] tells.
    pub fn write(&mut self, batch: &Batch, now: Instant) -> io::Result<()> {
        if batch.begin != self.end {
            // Something is missing, which the next segment's place tells.
            self.newest = None;
            self.end = batch.begin;
        }
        let most = self.segment() / PARTS;
        let mut notes = batch.notes.iter().peekable();
        let mut encoded = Vec::new();
        while self.end.text < batch.end.text || notes.peek().is_some() {
            let at = self.end.text;
            let mut until = batch.end.text.min(at.saturating_add(most));
            let begins = self.make_ready(now)?;
            encoded.clear();
            let (mut marks, mut last) = (0, self.last);
            if let Some(base) = begins.filter(|_| last > 0) {
                index::record(base, 0, last, None, &mut encoded);
            }
            let base = self.newest.as_ref().map_or(at, |newest| newest.base);
            while let Some((text, time, mark)) = notes.peek() {
                if *text >= until && until < batch.end.text {
                    break;
                }
                if encoded.len() as u64 >= most {
                    until = (*text).max(at);
                    break;
                }
                let mark: Option<&Mark> = mark.as_deref();
                if mark.is_some() || *time != last {
                    let offset = u32::try_from(text.saturating_sub(base)).unwrap_or(u32::MAX);
                    index::record(base, offset, *time, mark, &mut encoded);
                }
                marks += u64::from(mark.is_some());
                last = *time;
                notes.next();
            }
            let range =
                |place: u64| usize::try_from(place - batch.begin.text).unwrap_or(usize::MAX);
            let text = batch.text.get(range(at)..range(until)).unwrap_or_default();
            self.part(text, &encoded, now)?;
            self.end = Cursor { text: until, marks: self.end.marks + marks };
            self.last = last;
        }
        Ok(())
    }

    /// There is a newest segment with room for a part. Where it was begun for that: its place.
    fn make_ready(&mut self, now: Instant) -> io::Result<Option<u64>> {
        let full = |newest: &Newest| newest.log + newest.idx + self.part_most() > self.segment();
        if self.newest.as_ref().is_some_and(|newest| !full(newest)) {
            return Ok(None);
        }
        self.newest = None;
        self.trim(HEAD as u64)?;
        if !self.dir.is_dir() {
            DirBuilder::new().recursive(true).mode(0o750).create(&self.dir)?;
        }
        let name = Name::new(self.end.text);
        let create = |path: &Path| {
            OpenOptions::new().write(true).create(true).truncate(true).mode(0o640).open(path)
        };
        let begun = create(&name.log(&self.dir)).and_then(|log| {
            create(&name.idx(&self.dir))?.write_all(&index::head(self.end))?;
            log.metadata()
        });
        let found = begun.inspect_err(|_| {
            let _it_is_empty = fs::remove_file(name.log(&self.dir));
            let _it_is_torn = fs::remove_file(name.idx(&self.dir));
        })?;
        self.newest = Some(Newest {
            base: name.base,
            log: 0,
            idx: HEAD as u64,
            file: Some((found.dev(), found.ino())),
            looked: Some(now),
            open: None,
        });
        let base = name.base;
        self.segments.push_back((name, HEAD as u64));
        Ok(Some(base))
    }

    /// Characters and their records, together.
    fn part(&mut self, text: &[u8], records: &[u8], now: Instant) -> io::Result<()> {
        let more = (text.len() + records.len()) as u64;
        self.trim(more)?;
        let Some((name, size)) = self.segments.back_mut() else { return Ok(()) };
        let Some(newest) = &mut self.newest else { return Ok(()) };
        if newest.open.is_none() {
            let append = |path: &Path| OpenOptions::new().append(true).open(path);
            let open = || Ok((append(&name.log(&self.dir))?, append(&name.idx(&self.dir))?));
            let (log, idx) = match open() {
                Ok(open) => open,
                Err(why) => {
                    let why: io::Error = why;
                    if why.kind() == io::ErrorKind::NotFound {
                        self.forget();
                    }
                    return Err(why);
                }
            };
            let found = log.metadata()?;
            newest.file = Some((found.dev(), found.ino()));
            newest.looked = Some(now);
            newest.open = Some((log, idx));
        }
        let Some((log, idx)) = &mut newest.open else { return Ok(()) };
        let written = match records.is_empty() {
            true => Ok(()),
            false => idx.write_all(records),
        };
        let written = written.and_then(|()| match text.is_empty() {
            true => Ok(()),
            false => log.write_all(text),
        });
        if let Err(why) = written {
            let back = idx.set_len(newest.idx).and_then(|()| log.set_len(newest.log));
            if back.is_err() {
                // What is too much in it is before the next segment's place, and is not read.
                self.newest = None;
            }
            return Err(why);
        }
        newest.idx += records.len() as u64;
        newest.log += text.len() as u64;
        *size += more;
        Ok(())
    }

    /// A segment with its index is no larger.
    fn segment(&self) -> u64 {
        self.bound / SEGMENTS
    }

    /// A part is no larger: its characters, its records, and one record more.
    fn part_most(&self) -> u64 {
        2 * self.segment() / PARTS + 2 * RECORD as u64 + MARK as u64
    }

    /// Drops the oldest until so much more may be written.
    fn trim(&mut self, more: u64) -> io::Result<()> {
        let mut total: u64 = self.segments.iter().map(|(_, size)| size).sum();
        while total + more > self.bound {
            let only = self.segments.len() == 1 && self.newest.is_some();
            let Some((oldest, size)) = self.segments.front().filter(|_| !only) else { break };
            for path in [oldest.log(&self.dir), oldest.idx(&self.dir)] {
                match fs::remove_file(path) {
                    Err(why) if why.kind() != io::ErrorKind::NotFound => return Err(why),
                    _ => {}
                }
            }
            total -= size;
            self.segments.pop_front();
        }
        Ok(())
    }
}

fn size(path: &Path) -> u64 {
    fs::metadata(path).map_or(0, |found| found.len())
}

/// None: it is not there, or not even its head is whole, or it is another segment's.
pub(super) fn read_index(dir: &Path, name: &Name) -> Option<index::Index> {
    let index = index::read(&fs::read(name.idx(dir)).ok()?)?;
    (index.base.text == name.base).then_some(index)
}
