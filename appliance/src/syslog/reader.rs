//! Reads one sender's directory, oldest first, to where it ends at the time; read again, it goes on there.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;

use super::files::{begun, names};
use super::message::{Entry, Message, Way};

/// Read at once.
const READ: usize = 64 * 1024;
/// A line is never longer: what is, is none of ours.
const LONGEST: usize = 64 * 1024;

/// See the module.
#[derive(Debug)]
pub struct Reader {
    dir: PathBuf,
    segment: Option<Segment>,
    /// The name of the segment that was begun last.
    last: String,
    /// When the last line came.
    at: u64,
}

#[derive(Debug)]
struct Segment {
    file: File,
    /// Bytes of it that were read as whole lines.
    place: u64,
    /// What is behind them, and has no end yet.
    held: Vec<u8>,
}

impl Reader {
    /// Of this directory; one that is not there holds nothing.
    pub fn new(dir: PathBuf) -> Reader {
        Reader { dir, segment: None, last: String::new(), at: 0 }
    }

    /// Passes over segments that hold nothing so young (Unix milliseconds).
    ///
    /// # Errors
    /// The directory cannot be read.
    pub fn since(&mut self, at: u64) -> io::Result<()> {
        let names = names(&self.dir)?;
        // One ends where the next begins.
        let younger = names.iter().skip(1).take_while(|next| begun(next).is_some_and(|t| t <= at));
        self.last = match younger.count().checked_sub(1).and_then(|number| names.get(number)) {
            Some(name) => name.clone(),
            None => String::new(),
        };
        self.segment = None;
        Ok(())
    }

    /// Begins so far back that the last `lines` lines are ahead, and perhaps more.
    ///
    /// # Errors
    /// The directory or a file in it cannot be read.
    pub fn last(&mut self, lines: usize) -> io::Result<()> {
        let names = names(&self.dir)?;
        let mut found = 0;
        self.segment = None;
        self.last = String::new();
        let mut buffer = vec![0; READ];
        for (number, name) in names.iter().enumerate().rev() {
            if found >= lines && number + 1 < names.len() {
                self.last.clone_from(name);
                return Ok(());
            }
            let file = match File::open(self.dir.join(name)) {
                Err(why) if why.kind() == io::ErrorKind::NotFound => continue,
                file => file?,
            };
            let mut end = file.metadata()?.len();
            while end > 0 {
                let from = end.saturating_sub(READ as u64);
                let many = usize::try_from(end - from).unwrap_or(READ);
                let Some(part) = buffer.get_mut(..many) else { break };
                file.read_exact_at(part, from)?;
                let seen = part.iter().filter(|byte| **byte == b'\n').count();
                // The one more is the end of the line before.
                if found + seen > lines {
                    let skip = found + seen - lines;
                    let ends = part.iter().enumerate().filter(|(_, byte)| **byte == b'\n');
                    let begin = ends.map(|(at, _)| at + 1).nth(skip - 1).unwrap_or(0);
                    let place = from + begin as u64;
                    self.segment = Some(Segment { file, place, held: Vec::new() });
                    self.last.clone_from(names.get(number).unwrap_or(name));
                    return Ok(());
                }
                found += seen;
                end = from;
            }
        }
        Ok(())
    }

    /// What comes next, some of it. Empty: that is all there is at the time.
    ///
    /// # Errors
    /// The directory or a file in it cannot be read.
    pub fn read(&mut self) -> io::Result<Vec<Entry>> {
        loop {
            let before = self.segment.is_none();
            let mut entries = Vec::new();
            if self.some(&mut entries)? {
                if !entries.is_empty() {
                    return Ok(entries);
                }
                continue;
            }
            // The names first: what is written before the next segment is begun is in this one.
            let next = names(&self.dir)?.into_iter().find(|name| *name > self.last);
            if !before && self.some(&mut entries)? {
                if !entries.is_empty() {
                    return Ok(entries);
                }
                continue;
            }
            let Some(next) = next else { return Ok(Vec::new()) };
            let file = File::open(self.dir.join(&next));
            self.segment = match file {
                // It went meanwhile.
                Err(why) if why.kind() == io::ErrorKind::NotFound => None,
                file => Some(Segment { file: file?, place: 0, held: Vec::new() }),
            };
            self.last = next;
        }
    }

    /// Reads on in the segment. False: it ends here.
    fn some(&mut self, entries: &mut Vec<Entry>) -> io::Result<bool> {
        let Some(segment) = &mut self.segment else { return Ok(false) };
        let end = segment.file.metadata()?.len();
        let mut behind = segment.place + segment.held.len() as u64;
        if end < behind {
            // The half of a line was cut off again: the disk is full.
            segment.held.clear();
            behind = segment.place;
        }
        let mut buffer = vec![0; READ];
        let many = segment.file.read_at(&mut buffer, behind)?;
        if many == 0 {
            return Ok(false);
        }
        segment.held.extend_from_slice(buffer.get(..many).unwrap_or_default());
        let mut begin = 0;
        while let Some(rest) = segment.held.get(begin..).filter(|rest| !rest.is_empty()) {
            let length = match rest.iter().position(|byte| *byte == b'\n') {
                Some(length) => length,
                None if rest.len() > LONGEST => rest.len() - 1,
                None => break,
            };
            let line = String::from_utf8_lossy(rest.get(..length).unwrap_or_default());
            // The half that a crash left has the time of the line before it.
            let entry = Entry::read(&line).unwrap_or_else(|| Entry {
                at: self.at,
                way: Way::Koboshi,
                message: Message::bare(super::message::clean(line.as_bytes(), LONGEST)),
            });
            self.at = entry.at;
            entries.push(entry);
            begin += length + 1;
        }
        segment.held.drain(..begin);
        segment.place += begin as u64;
        Ok(true)
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::time::Instant;

    use super::*;
    use crate::syslog::files::{Dir, LEAST};

    fn line(at: u64, text: &str) -> String {
        Entry { at, way: Way::Udp, message: Message::bare(text.to_string()) }.line()
    }

    fn texts(reader: &mut Reader) -> Vec<String> {
        let mut all = Vec::new();
        loop {
            let entries = reader.read().unwrap();
            if entries.is_empty() {
                return all;
            }
            all.extend(entries.into_iter().map(|entry| entry.message.text));
        }
    }

    #[test]
    fn from_any_place_to_the_end_and_on() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("m01");
        let mut reader = Reader::new(path.clone());
        assert_eq!(texts(&mut reader), [""; 0]);
        let mut dir = Dir::open(path.clone()).unwrap();
        for number in 0..500u64 {
            let line = line(1_000_000 + number * 1000, &format!("{number} {}", "x".repeat(80)));
            dir.write(&mut line.as_bytes(), 1_000_000 + number * 1000, LEAST, Instant::now())
                .unwrap();
        }
        assert!(dir.segments() > 3);
        let number = |text: &String| text.split(' ').next().unwrap().parse::<u64>().unwrap();
        let kept: Vec<u64> = texts(&mut reader).iter().map(number).collect();
        assert_eq!(kept, (kept[0]..500).collect::<Vec<u64>>());
        for lines in [0, 1, 7, 100, 300] {
            let mut last = Reader::new(path.clone());
            last.last(lines).unwrap();
            assert_eq!(texts(&mut last).len(), lines);
        }
        let mut all = Reader::new(path.clone());
        all.last(100_000).unwrap();
        assert_eq!(texts(&mut all).len(), kept.len());
        for since in [0, kept[0] + 1, 300, 499, 600] {
            let mut reader = Reader::new(path.clone());
            reader.since(1_000_000 + since * 1000).unwrap();
            let read: Vec<u64> = texts(&mut reader).iter().map(number).collect();
            let wanted = (since.max(kept[0])..500).count();
            let younger = read.iter().filter(|number| **number >= since).count();
            assert_eq!(younger, wanted, "{since}");
            assert!(read.len() <= wanted + 100, "{since}");
        }
        // It goes on, over the beginning of a segment.
        for number in 500..600u64 {
            let line = line(9_000_000 + number, &format!("{number} {}", "y".repeat(80)));
            dir.write(&mut line.as_bytes(), 9_000_000 + number, LEAST, Instant::now()).unwrap();
        }
        let more: Vec<u64> = texts(&mut reader).iter().map(number).collect();
        assert_eq!(more, (500..600).collect::<Vec<u64>>());
    }

    #[test]
    fn half_a_line_waits_for_its_end_and_may_go_again() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().to_path_buf();
        let file = path.join("20251125T140327.123Z.log");
        let one = line(5, "one");
        fs::write(&file, one.clone() + &line(6, "two")[..20]).unwrap();
        let mut reader = Reader::new(path);
        assert_eq!(texts(&mut reader), ["one"]);
        fs::write(&file, &one).unwrap();
        assert_eq!(texts(&mut reader), [""; 0]);
        fs::write(&file, one.clone() + &line(7, "three")).unwrap();
        assert_eq!(texts(&mut reader), ["three"]);
        fs::write(&file, one + &line(7, "three") + "torn by a crash\n" + &line(8, "four")).unwrap();
        let entries = reader.read().unwrap();
        assert_eq!((entries[0].at, entries[0].message.text.as_str()), (7, "torn by a crash"));
        assert_eq!(entries[1].message.text, "four");
    }
}
