use std::fs::{self, OpenOptions};
use std::path::Path;
use std::time::Instant;

use proptest::prelude::*;
use tempfile::TempDir;

use super::files::{Files, list};
use super::reader::{Reader, Start};
use crate::scrollback::{Batch, Cursor, Mark, Piece, Scrollback, What};

fn total(dir: &Path) -> u64 {
    let files = fs::read_dir(dir).into_iter().flatten().flatten();
    files.map(|file| file.metadata().unwrap().len()).sum()
}

fn read(dir: &Path, start: Start) -> Vec<Piece> {
    let mut reader = Reader::open(dir.to_path_buf()).unwrap();
    reader.seek(start).unwrap();
    let mut all = Vec::new();
    loop {
        let pieces = reader.read().unwrap();
        if pieces.is_empty() {
            return all;
        }
        all.extend(pieces.into_iter().map(|(piece, _)| piece));
    }
}

fn text(pieces: &[Piece]) -> Vec<u8> {
    let text = pieces.iter().filter_map(|piece| match &piece.what {
        What::Text(text) => Some(&text[..]),
        What::Mark(_) => None,
    });
    text.collect::<Vec<_>>().concat()
}

/// A scrollback, and what of it is in the log.
struct Logged {
    scrollback: Scrollback,
    at: Cursor,
    files: Files,
}

impl Logged {
    fn open(dir: &Path, bound: u64) -> Logged {
        let files = Files::open(dir.to_path_buf(), bound).unwrap();
        Logged { scrollback: Scrollback::at(files.end()), at: files.end(), files }
    }

    fn flush(&mut self) {
        let mut batch = Batch::default();
        self.scrollback.batch(self.at, &mut batch);
        self.files.write(&batch, Instant::now()).unwrap();
        self.at = self.files.end();
        assert_eq!(self.at, self.scrollback.end());
    }
}

#[test]
fn what_was_written_is_read_with_times_and_marks() {
    let dir = TempDir::new().unwrap();
    let mut log = Logged::open(dir.path(), 1 << 20);
    log.scrollback.mark(1000, Mark::Up);
    log.scrollback.write(2000, b"BIOS\r\n");
    log.flush();
    log.scrollback.write(3000, b"Linux\r\nlog");
    log.scrollback.mark(3500, Mark::Break);
    log.scrollback.write(4000, b"in: ");
    log.flush();
    let piece = |at, what| Piece { at, what };
    let said = |text: &'static [u8]| What::Text(bytes::Bytes::from_static(text));
    let all = [
        piece(1000, What::Mark(Mark::Up)),
        piece(2000, said(b"BIOS\r\n")),
        piece(3000, said(b"Linux\r\nlog")),
        piece(3500, What::Mark(Mark::Break)),
        piece(4000, said(b"in: ")),
    ];
    let from = |start| read(dir.path(), start);
    assert_eq!(from(Start::Oldest), all);
    assert_eq!(from(Start::Since(3500)), all[3..]);
    assert_eq!(from(Start::Since(3000)), all[2..]);
    assert_eq!(from(Start::Since(9000)), []);
    assert_eq!(text(&from(Start::Lines(1))), b"login: ");
    assert_eq!(text(&from(Start::Lines(2))), b"Linux\r\nlogin: ");
    assert_eq!(from(Start::Lines(9)), all);
    assert_eq!(from(Start::Lines(0)), []);
    assert_eq!(text(&from(Start::Place(6))), b"Linux\r\nlogin: ");
    // The files are what the machine sent, for `less` and `grep`.
    let name = list(dir.path()).unwrap().remove(0);
    assert_eq!(fs::read(name.log(dir.path())).unwrap(), b"BIOS\r\nLinux\r\nlogin: ");
    // A line that goes on says that it was away, from when on.
    let log = Files::open(dir.path().to_path_buf(), 1 << 20).unwrap();
    assert_eq!((log.end(), log.last()), (Cursor { text: 20, marks: 2 }, Some(4000)));
}

#[test]
fn what_comes_in_the_moment_of_a_mark_has_its_time() {
    let dir = TempDir::new().unwrap();
    let mut log = Logged::open(dir.path(), 1 << 20);
    log.scrollback.mark(1000, Mark::Up);
    log.scrollback.write(1000, b"BIOS");
    log.flush();
    assert_eq!(read(dir.path(), Start::Oldest)[1].at, 1000);
}

#[test]
fn lines_are_counted_over_segments() {
    let dir = TempDir::new().unwrap();
    let mut log = Logged::open(dir.path(), super::LEAST);
    let line = |number: usize| format!("line {number} of the machine\r\n");
    for number in 0..5000 {
        log.scrollback.write(number as u64 * 50, line(number).as_bytes());
        if number % 7 == 0 {
            log.flush();
        }
    }
    log.flush();
    assert!(list(dir.path()).unwrap().len() > 3);
    for lines in [1, 2, 10, 333, 1000] {
        let expected: String = (5000 - lines..5000).map(line).collect();
        assert_eq!(text(&read(dir.path(), Start::Lines(lines))), expected.as_bytes(), "{lines}");
    }
    log.scrollback.write(300_000, b"login: ");
    log.flush();
    assert_eq!(text(&read(dir.path(), Start::Lines(2))), (line(4999) + "login: ").as_bytes());
    let since = read(dir.path(), Start::Since(4900 * 50));
    assert!(
        text(&since).starts_with(line(4900).as_bytes())
            || text(&since).starts_with(line(4899).as_bytes())
    );
    assert!(since[0].at.abs_diff(4900 * 50) <= 100, "{}", since[0].at);
}

#[test]
fn a_bound_holds_at_all_times_whatever_comes() {
    let dir = TempDir::new().unwrap();
    let bound = super::LEAST;
    let mut log = Logged::open(dir.path(), bound);
    let mut most = 0;
    for step in 0..3000u64 {
        match step % 5 {
            0 => log.scrollback.write(step * 1000, &vec![b'x'; (step * 37 % 9000) as usize]),
            1 => (0..step % 200).for_each(|n| log.scrollback.mark(step * 1000 + n, Mark::Break)),
            2 => (0..20).for_each(|n| log.scrollback.write(step * 1000 + n * 150, b".")),
            3 => log.scrollback.mark(step, Mark::Down { why: "x".repeat((step % 3000) as usize) }),
            _ => log = Logged::open(dir.path(), bound),
        }
        log.flush();
        let now = total(dir.path());
        assert!(now <= bound, "{now} after {step}");
        most = most.max(now);
    }
    assert!(most > bound * 2 / 3, "{most}");
    // A smaller one is not waited for.
    let mut log = Logged::open(dir.path(), bound * 4);
    (0..200).for_each(|n| {
        log.scrollback.write(n, &[b'y'; 2000]);
        log.flush();
    });
    assert!(total(dir.path()) > bound * 2);
    log.files.set_bound(bound).unwrap();
    assert!(total(dir.path()) <= bound);
}

#[test]
fn a_flood_of_marks_is_read_in_no_time() {
    let dir = TempDir::new().unwrap();
    let mut log = Logged::open(dir.path(), 16 << 20);
    for n in 0..40_000 {
        log.scrollback.mark(n, Mark::Break);
        if n % 100 == 99 {
            log.flush();
        }
    }
    let begun = Instant::now();
    assert_eq!(read(dir.path(), Start::Oldest).len(), 40_000);
    assert!(begun.elapsed().as_secs() < 10, "{:?}", begun.elapsed());
}

/// The byte that stands at a place.
fn byte(place: u64) -> u8 {
    (place % 251) as u8
}

fn say(scrollback: &mut Scrollback, at: u64, many: usize) {
    let begin = scrollback.end().text;
    let said: Vec<u8> = (begin..begin + many as u64).map(byte).collect();
    scrollback.write(at, &said);
}

/// Everything is as it was said, and what is missing is told. Returns the end.
fn check(pieces: &[Piece], begin: Cursor) -> Result<Cursor, TestCaseError> {
    let mut place = begin;
    for piece in pieces {
        match &piece.what {
            What::Text(text) => {
                for found in text {
                    prop_assert_eq!(*found, byte(place.text));
                    place.text += 1;
                }
            }
            What::Mark(Mark::Missing { characters, marks }) => {
                place.text += characters;
                place.marks += marks;
            }
            What::Mark(Mark::Discarded { characters }) => {
                prop_assert_eq!(*characters as u64, place.marks);
                place.marks += 1;
            }
            What::Mark(other) => prop_assert!(false, "{:?}", other),
        }
    }
    Ok(place)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, ..ProptestConfig::default() })]

    /// Written, killed at any byte, and gone on with: nothing twice, nothing lost without a word.
    #[test]
    fn a_crash_at_any_byte_is_told(
        lives in prop::collection::vec(
            (prop::collection::vec((0u8..4, 1usize..3000, 0u64..400), 1..20), 0u64..3000, any::<bool>()),
            1..6,
        ),
    ) {
        let dir = TempDir::new().unwrap();
        let mut now = 1000;
        for (steps, torn, index) in lives {
            let mut log = Logged::open(dir.path(), super::LEAST);
            for (what, many, later) in steps {
                now += later;
                match what {
                    0 | 1 => say(&mut log.scrollback, now, many),
                    2 => {
                        let characters = log.scrollback.end().marks as usize;
                        log.scrollback.mark(now, Mark::Discarded { characters });
                    }
                    _ => log.flush(),
                }
            }
            log.flush();
            drop(log);
            // The last writes did not all reach the disk.
            let names = list(dir.path()).unwrap();
            if let Some(last) = names.last() {
                let path = if index { last.idx(dir.path()) } else { last.log(dir.path()) };
                let file = OpenOptions::new().write(true).open(path).unwrap();
                file.set_len(file.metadata().unwrap().len().saturating_sub(torn)).unwrap();
            }
            let pieces = read(dir.path(), Start::Oldest);
            let mut reader = Reader::open(dir.path().to_path_buf()).unwrap();
            reader.seek(Start::Oldest).unwrap();
            let begin = reader.cursor();
            let end = check(&pieces, begin)?;
            let resumed = Files::open(dir.path().to_path_buf(), super::LEAST).unwrap().end();
            // Where an index is torn, marks may be gone with it, and what was said is there still.
            prop_assert!(resumed.text >= end.text, "{:?} {:?}", resumed, end);
            prop_assert!(total(dir.path()) <= super::LEAST);
        }
    }

    #[test]
    fn any_files_are_no_panic(log in prop::collection::vec(any::<u8>(), 0..500), idx in prop::collection::vec(any::<u8>(), 0..500), base in 0u64..100) {
        let dir = TempDir::new().unwrap();
        for (number, ending) in [(base, "a"), (base * 3, "b")] {
            fs::write(dir.path().join(format!("{number:016}-{ending}.log")), &log).unwrap();
            fs::write(dir.path().join(format!("{number:016}-{ending}.idx")), &idx).unwrap();
        }
        let _pieces = read(dir.path(), Start::Oldest);
        let _pieces = read(dir.path(), Start::Lines(3));
        let _pieces = read(dir.path(), Start::Since(7));
        let _end = Files::open(dir.path().to_path_buf(), super::LEAST).unwrap().end();
    }
}
