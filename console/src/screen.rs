//! The screen of a line as it stands now: what a terminal would show that was there from the beginning. A
//! BIOS menu that was drawn an hour ago is on it.
//!
//! Machines send noise, and worse: the emulator gets no strings that never end, no sequence that repeats a
//! character 65,535 times, and where it fails nevertheless it begins with an empty screen.

use std::num::NonZeroU16;
use std::panic::{AssertUnwindSafe, catch_unwind};

use serde::{Deserialize, Serialize};

use crate::harmless::Harmless;

/// Rows, as firmware and kernels believe where nobody tells them.
const ROWS: u16 = 24;
const COLUMNS: u16 = 80;
/// A screen has no more cells: each costs 32 bytes, and twice that where a program uses both its screens.
const CELLS: u32 = 16 * 1024;

/// A screen for somebody who looks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Drawn {
    /// Its size.
    pub rows: u16,
    /// Its size.
    pub columns: u16,
    /// Where the cursor is, from 0.
    pub cursor: (u16, u16),
    /// Whether there is one to be seen.
    pub cursor_shown: bool,
    /// As text, a line each, without blanks at their ends.
    pub text: Vec<String>,
    /// Draws it on a terminal of that size, colours and cursor and the keyboard's modes included.
    pub draws: String,
}

/// See the module.
#[derive(Default)]
pub struct Screen {
    /// Characters of the line that it has had.
    fed: u64,
    size: Option<(NonZeroU16, NonZeroU16)>,
    /// None: nothing was drawn yet.
    emulator: Option<Box<vt100::Parser>>,
    harmless: Harmless,
    passed: Vec<u8>,
}

impl std::fmt::Debug for Screen {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Screen").field("fed", &self.fed).finish_non_exhaustive()
    }
}

impl Screen {
    /// An empty one, of a line that said so many characters before.
    pub fn from(fed: u64) -> Screen {
        Screen { fed, ..Screen::default() }
    }

    /// Characters of the line that it has had.
    pub fn fed(&self) -> u64 {
        self.fed
    }

    /// Its line's places moved by so much.
    pub fn shift(&mut self, by: u64) {
        self.fed += by;
    }

    /// The machine's terminal is of this size.
    pub fn resize(&mut self, rows: u16, columns: u16) {
        let (Some(rows), Some(columns)) = (NonZeroU16::new(rows), NonZeroU16::new(columns)) else {
            return;
        };
        if u32::from(rows.get()) * u32::from(columns.get()) > CELLS {
            return;
        }
        self.size = Some((rows, columns));
        self.guarded(|emulator| emulator.set_size(rows, columns));
    }

    fn rows(&self) -> u16 {
        self.size.map_or(ROWS, |(rows, _)| rows.get())
    }

    /// The next that the machine said.
    pub fn feed(&mut self, bytes: &[u8]) {
        self.fed += bytes.len() as u64;
        match self.skips(bytes) {
            None => self.draw(bytes),
            Some((begin, colours, end)) => {
                self.draw(begin);
                self.draw(&colours);
                self.draw(end);
            }
        }
    }

    /// Where lines of plain text follow each other, only the last of them are still on the screen: what comes
    /// before them does nothing but change colours.
    fn skips<'a>(&self, bytes: &'a [u8]) -> Option<(&'a [u8], Vec<u8>, &'a [u8])> {
        if self.harmless.has_region() {
            return None;
        }
        let ends = |bytes: &[u8], from: usize| {
            bytes.get(from..)?.windows(2).position(|two| two == b"\r\n").map(|at| from + at + 2)
        };
        let begin = ends(bytes, 0)?;
        let mut end = bytes.len();
        // Twice: wherever the cursor was, it is at the bottom and the screen was scrolled away.
        for _ in 0..=2 * self.rows() {
            end = bytes.get(begin..end)?.windows(2).rposition(|two| two == b"\r\n")? + begin;
        }
        let (begin, rest) = bytes.split_at_checked(begin)?;
        let (middle, end) = rest.split_at_checked(end + 2 - begin.len())?;
        let colours = self::colours(middle).filter(|colours| colours.len() <= middle.len() / 4)?;
        // Only lines scroll what was before them away.
        let lines = end.windows(2).rposition(|two| two == b"\r\n")?;
        self::colours(end.get(..lines)?)?;
        // The beginning may open a string, or set a region.
        let mut after = self.harmless.clone();
        after.pass(begin, &mut Vec::new());
        (after.is_plain() && !after.has_region()).then_some((begin, colours, end))
    }

    fn draw(&mut self, bytes: &[u8]) {
        let mut passed = std::mem::take(&mut self.passed);
        for bytes in bytes.chunks(4096) {
            passed.clear();
            self.harmless.pass(bytes, &mut passed);
            self.guarded(|emulator| emulator.process(&passed));
        }
        // It is not worth its memory between two times.
    }

    fn guarded<T>(&mut self, what: impl FnOnce(&mut vt100::Parser) -> T) -> Option<T> {
        let mut emulator = match self.emulator.take() {
            Some(emulator) => emulator,
            None => {
                let mut emulator = Box::new(vt100::Parser::default());
                if let Some((rows, columns)) = self.size {
                    emulator.set_size(rows, columns);
                }
                emulator
            }
        };
        let done = catch_unwind(AssertUnwindSafe(|| what(&mut emulator))).ok()?;
        self.emulator = Some(emulator);
        Some(done)
    }

    /// For somebody who looks.
    pub fn drawn(&mut self) -> Drawn {
        let drawn = self.guarded(|emulator| {
            let screen = emulator.screen();
            let (rows, columns) = screen.size();
            let text = screen.rows(0, columns.get()).map(|row| row.trim_end().to_string());
            Drawn {
                rows: rows.get(),
                columns: columns.get(),
                cursor: screen.cursor_position(),
                cursor_shown: !screen.hide_cursor(),
                text: text.collect(),
                draws: screen.state_formatted(),
            }
        });
        drawn.unwrap_or_else(|| Drawn {
            rows: self.rows(),
            columns: self.size.map_or(COLUMNS, |(_, columns)| columns.get()),
            cursor: (0, 0),
            cursor_shown: true,
            text: Vec::new(),
            draws: "\x1b[H\x1b[2J".to_string(),
        })
    }
}

/// What changes colours in lines of plain text. None: there is more than that.
fn colours(text: &[u8]) -> Option<Vec<u8>> {
    let mut colours = Vec::new();
    let mut left = text;
    while let Some(at) =
        left.iter().position(|byte| !matches!(byte, b' '..=b'~' | b'\r' | b'\n' | b'\t'))
    {
        let sequence = left.get(at..)?.strip_prefix(b"\x1b[")?;
        let many = sequence.iter().position(|byte| !matches!(byte, b'0'..=b'9' | b';'))?;
        if sequence.get(many) != Some(&b'm') {
            return None;
        }
        colours.extend_from_slice(left.get(at..at + many + 3)?);
        left = sequence.get(many + 1..)?;
    }
    Some(colours)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn fed(parts: &[&[u8]]) -> Drawn {
        let mut screen = Screen::default();
        parts.iter().for_each(|part| screen.feed(part));
        screen.drawn()
    }

    /// With nothing left out.
    fn whole(bytes: &[u8]) -> Drawn {
        let mut screen = Screen::default();
        screen.draw(bytes);
        screen.drawn()
    }

    #[test]
    fn a_menu_is_drawn_as_it_was() {
        let menu = b"\x1b[2J\x1b[1;1H\x1b[44;37m  Aptio Setup Utility  \x1b[0m\x1b[5;10HBoot mode select   [UEFI]\x1b[?25l\x1b[24;80H";
        let drawn = fed(&[menu]);
        assert_eq!(drawn.text[0].trim(), "Aptio Setup Utility");
        assert_eq!(drawn.text[4], "         Boot mode select   [UEFI]");
        assert_eq!((drawn.cursor, drawn.cursor_shown), ((23, 79), false));
        // What draws it draws the same, colours included.
        let mut again = vt100::Parser::default();
        again.process(drawn.draws.as_bytes());
        assert!(again.screen().cell(0, 3).unwrap().bgcolor() != vt100::Color::Default);
        let text = |line: &str| line.trim_end().to_string();
        let again: Vec<_> = again.screen().rows(0, 80).map(|line| text(&line)).collect();
        assert_eq!(again, drawn.text);
    }

    #[test]
    fn sizes_are_bounded() {
        let mut screen = Screen::default();
        screen.resize(50, 132);
        assert_eq!((screen.drawn().rows, screen.drawn().columns), (50, 132));
        for (rows, columns) in [(0, 80), (24, 0), (65_535, 65_535), (1000, 1000)] {
            screen.resize(rows, columns);
            assert_eq!((screen.drawn().rows, screen.drawn().columns), (50, 132));
        }
        screen.resize(1, 1);
        screen.feed("wide \u{30b3}\r\n\x1b[65535b\x1b[65535;65535H\u{30b3}".as_bytes());
        assert_eq!(screen.drawn().rows, 1);
    }

    #[test]
    fn a_string_without_an_end_is_no_memory() {
        let mut screen = Screen::default();
        screen.feed(b"\x1b]0;");
        for _ in 0..1000 {
            screen.feed(&[b'x'; 10_000]);
        }
        assert!(screen.passed.capacity() < 64 * 1024);
        screen.feed(b"\r\nlogin: ");
        assert!(screen.drawn().text.iter().any(|line| line == "login: ".trim()));
    }

    fn piece() -> impl Strategy<Value = Vec<u8>> {
        let line = "[ -~]{0,100}\r\n".prop_map(String::into_bytes);
        let many = prop::collection::vec(line.clone(), 40..200).prop_map(|lines| lines.concat());
        const ODD: &[&str] = &[
            "\x1b[31m",
            "\x1b[1;44m",
            "\x1b[m",
            "\x1b[2J",
            "\x1b[H",
            "\x1b[5;10r",
            "\x1b[r",
            "\x1bc",
            "\x1b[20;3H",
            "\x1b[?1049h",
            "\x1b[?1049l",
            "\x1b]0;title\x07",
            "\x1b",
            "\x1b[",
            "\n",
            "\r",
            "\t",
            "\x08",
            "\x1b7",
            "\x1b8",
            "\x1bP",
            "\u{30b3}",
            "\x0e",
            "\x1b[3L",
            "\x1b[?7l",
            "\x1b[?6h",
        ];
        let odd = prop::sample::select(ODD).prop_map(|odd| odd.as_bytes().to_vec());
        let noise = prop::collection::vec(any::<u8>(), 0..300);
        prop_oneof![2 => line, 4 => many, 6 => odd, 1 => noise]
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 60, ..ProptestConfig::default() })]

        /// What is left out would not be seen.
        #[test]
        fn it_shows_what_a_terminal_shows(pieces in prop::collection::vec(piece(), 1..12), cut in 0usize..20_000) {
            let all = pieces.concat();
            let (one, two) = all.split_at(cut.min(all.len()));
            prop_assert_eq!(fed(&[one, two]), whole(&all));
        }

        #[test]
        fn any_bytes_at_any_size(bytes in prop::collection::vec(any::<u8>(), 0..4000), rows in 0u16..60, columns in 0u16..200, cut in 0usize..4000) {
            let mut screen = Screen::default();
            let (one, two) = bytes.split_at(cut.min(bytes.len()));
            screen.feed(one);
            screen.resize(rows, columns);
            screen.feed(two);
            screen.resize(columns, rows);
            let drawn = screen.drawn();
            prop_assert!(drawn.text.len() == usize::from(drawn.rows) || drawn.text.is_empty());
        }
    }
}
