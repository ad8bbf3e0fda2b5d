//! One sender's directory: text, a line a message, in segments of which the oldest goes (multilog's idea).
//! A segment is named by when it was begun, so that `ls`, `grep` and `cat *.log` see them in order.
//!
//! Lines are written whole or not at all: what a full disk took the half of is cut off again, and the half
//! that a crash left gets its end before more is written.

use std::collections::VecDeque;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Seek, SeekFrom, Write};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// A bound is never smaller.
pub const LEAST: u64 = 64 << 10;
/// A segment is so many parts of the bound.
const PARTS: u64 = 8;
/// How often it is looked whether somebody took the files away.
const LOOK: Duration = Duration::from_secs(1);
const ENDING: &str = "Z.log";

/// See the module.
#[derive(Debug)]
pub(super) struct Dir {
    path: PathBuf,
    segments: VecDeque<Segment>,
    /// The last one, to write.
    file: Option<File>,
    looked: Option<Instant>,
}

#[derive(Debug)]
struct Segment {
    name: String,
    size: u64,
}

impl Dir {
    /// What is there. A directory that is not there holds nothing, and is made when something is written.
    pub fn open(path: PathBuf) -> io::Result<Dir> {
        let mut segments = VecDeque::new();
        for name in names(&path)? {
            let size = fs::metadata(path.join(&name))?.len();
            segments.push_back(Segment { name, size });
        }
        Ok(Dir { path, segments, file: None, looked: None })
    }

    /// Bytes it takes.
    pub fn size(&self) -> u64 {
        self.segments.iter().map(|segment| segment.size).sum()
    }

    pub fn is_open(&self) -> bool {
        self.file.is_some()
    }

    pub fn close(&mut self) {
        self.file = None;
    }

    /// The name of its oldest segment; of its newest.
    pub fn oldest(&self) -> Option<&str> {
        self.segments.front().map(|segment| segment.name.as_str())
    }

    pub fn newest(&self) -> Option<&str> {
        self.segments.back().map(|segment| segment.name.as_str())
    }

    /// How many there are.
    pub fn segments(&self) -> usize {
        self.segments.len()
    }

    /// Writes whole lines, and keeps within the bound. `at` is Unix milliseconds. Where it cannot, those are left
    /// that are not written.
    pub fn write(
        &mut self,
        lines: &mut &[u8],
        at: u64,
        bound: u64,
        now: Instant,
    ) -> io::Result<()> {
        let bound = bound.max(LEAST);
        let most = usize::try_from(bound / PARTS).unwrap_or(usize::MAX);
        while !lines.is_empty() {
            // So many lines as a segment takes, but one at least.
            let newline = |byte: &u8| *byte == b'\n';
            let end = match lines.get(..most) {
                None => None,
                Some(part) => part.iter().rposition(newline).or(lines.iter().position(newline)),
            };
            let (part, rest) = lines.split_at(end.map_or(lines.len(), |end| end + 1));
            self.append(part, at, bound, now)?;
            *lines = rest;
        }
        Ok(())
    }

    fn append(&mut self, lines: &[u8], at: u64, bound: u64, now: Instant) -> io::Result<()> {
        let many = lines.len() as u64;
        if self.looked.is_none_or(|looked| now.saturating_duration_since(looked) >= LOOK) {
            self.looked = Some(now);
            let gone = self
                .file
                .as_ref()
                .is_some_and(|file| file.metadata().map_or(true, |found| found.nlink() == 0));
            if gone {
                self.file = None;
                self.segments.clear();
            }
        }
        let full = self.segments.back().is_some_and(|last| last.size + many > bound / PARTS);
        let empty = self.segments.back().is_none_or(|last| last.size == 0);
        if (full && !empty) || self.segments.is_empty() {
            self.begin(at)?;
        }
        while self.size() + many > bound && self.segments.len() > 1 {
            self.forget_oldest()?;
        }
        if self.file.is_none() {
            self.reopen()?;
        }
        let (Some(file), Some(last)) = (&mut self.file, self.segments.back_mut()) else {
            return Ok(());
        };
        file.seek(SeekFrom::Start(last.size))?;
        if let Err(why) = file.write_all(lines) {
            // What is there of it is no line.
            let cut = file.set_len(last.size);
            self.file = None;
            return Err(cut.err().unwrap_or(why));
        }
        last.size += many;
        Ok(())
    }

    /// Another segment. None of its bytes is older than `at`, or than the last one's.
    fn begin(&mut self, at: u64) -> io::Result<()> {
        fs::create_dir_all(&self.path)?;
        let last = self.newest().and_then(begun);
        let name = name(at.max(last.map_or(0, |last| last + 1)));
        let path = self.path.join(&name);
        self.file = None;
        let file = OpenOptions::new().write(true).create_new(true).open(&path)?;
        self.segments.push_back(Segment { name, size: 0 });
        self.file = Some(file);
        Ok(())
    }

    fn reopen(&mut self) -> io::Result<()> {
        let Some(last) = self.segments.back_mut() else { return Ok(()) };
        let path = self.path.join(&last.name);
        let file = OpenOptions::new().read(true).write(true).open(&path);
        let file = match file {
            Err(why) if why.kind() == io::ErrorKind::NotFound => {
                self.segments.clear();
                return Err(why);
            }
            file => file?,
        };
        last.size = file.metadata()?.len();
        let mut end = [b'\n'];
        if let Some(before) = last.size.checked_sub(1) {
            file.read_exact_at(&mut end, before)?;
        }
        if end != [b'\n'] {
            file.write_all_at(b"\n", last.size)?;
            last.size += 1;
        }
        self.file = Some(file);
        Ok(())
    }

    /// The oldest goes. Bytes that are free by it.
    pub fn forget_oldest(&mut self) -> io::Result<u64> {
        let Some(oldest) = self.segments.front() else { return Ok(0) };
        match fs::remove_file(self.path.join(&oldest.name)) {
            Err(why) if why.kind() != io::ErrorKind::NotFound => return Err(why),
            _ => {}
        }
        let size = oldest.size;
        self.segments.pop_front();
        if self.segments.is_empty() {
            self.file = None;
            // It is made again when something comes.
            let _not_empty = fs::remove_dir(&self.path);
        }
        Ok(size)
    }
}

/// Segments in order.
pub(super) fn names(path: &Path) -> io::Result<Vec<String>> {
    let entries = match fs::read_dir(path) {
        Err(why) if why.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries?,
    };
    let mut names = Vec::new();
    for entry in entries {
        let Ok(name) = entry?.file_name().into_string() else { continue };
        if begun(&name).is_some() {
            names.push(name);
        }
    }
    names.sort_unstable();
    Ok(names)
}

/// `20261125T140327.123Z.log`
fn name(at: u64) -> String {
    let at = i64::try_from(at).unwrap_or(i64::MAX);
    let at = jiff::Timestamp::from_millisecond(at).unwrap_or(jiff::Timestamp::MAX);
    let at = at.to_zoned(jiff::tz::TimeZone::UTC);
    format!("{}{ENDING}", at.strftime("%Y%m%dT%H%M%S%.3f"))
}

/// When a segment of this name was begun, Unix milliseconds. None: it is none.
pub(super) fn begun(name: &str) -> Option<u64> {
    let time = name.strip_suffix(ENDING)?;
    let time = jiff::civil::DateTime::strptime("%Y%m%dT%H%M%S%.3f", time).ok()?;
    let at = time.to_zoned(jiff::tz::TimeZone::UTC).ok()?.timestamp();
    u64::try_from(at.as_millisecond()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const AT: u64 = 1_764_079_407_123;

    fn text(path: &Path) -> String {
        let names = names(path).unwrap();
        names.iter().map(|name| fs::read_to_string(path.join(name)).unwrap()).collect()
    }

    #[test]
    fn segments_are_named_by_their_time_and_stay_within_the_bound() {
        assert_eq!(name(AT), "20251125T140327.123Z.log");
        assert_eq!(begun("20251125T140327.123Z.log"), Some(AT));
        assert_eq!(begun("keys"), None);
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("m01");
        let mut dir = Dir::open(path.clone()).unwrap();
        let now = Instant::now();
        for number in 0..4000 {
            let line = format!("{number:099}\n");
            // The clock stands still, and goes back.
            dir.write(&mut line.as_bytes(), AT - number, LEAST, now).unwrap();
            assert!(dir.size() <= LEAST);
        }
        let kept = text(&path);
        assert_eq!(kept.len() as u64, dir.size());
        assert!(kept.len() as u64 > LEAST / 2, "{}", kept.len());
        assert!(kept.ends_with("3999\n"));
        let numbers: Vec<u64> = kept.lines().map(|line| line.parse().unwrap()).collect();
        assert!(numbers.windows(2).all(|two| two[0] + 1 == two[1]));
        // Far more at once than it may hold.
        let many: String = (0..4000).map(|number| format!("{number:099}\n")).collect();
        let mut left = many.as_bytes();
        dir.write(&mut left, AT, LEAST, now).unwrap();
        assert!(left.is_empty() && dir.size() <= LEAST);
        assert!(many.ends_with(&text(&path)));
    }

    #[test]
    fn the_half_of_a_line_gets_an_end_and_what_was_taken_away_is_begun_anew() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("m01");
        let now = Instant::now();
        Dir::open(path.clone()).unwrap().write(&mut &b"one\n"[..], AT, LEAST, now).unwrap();
        let file = path.join(&names(&path).unwrap()[0]);
        fs::write(&file, "one\nha").unwrap();
        let mut dir = Dir::open(path.clone()).unwrap();
        dir.write(&mut &b"two\n"[..], AT + 5, LEAST, now).unwrap();
        assert_eq!(text(&path), "one\nha\ntwo\n");
        fs::remove_dir_all(&path).unwrap();
        dir.write(&mut &b"three\n"[..], AT + 9, LEAST, now + LOOK).unwrap();
        assert_eq!(text(&path), "three\n");
    }
}
