//! The bytes of a line as lines of text, of which each is bounded. What was written over (a carriage return
//! without a newline: progress that is counted up) was a line too, and nothing to be shown again.

use super::plain::{Plain, Sign};

/// Bytes of a line; a longer one is taken for several.
pub(crate) const LINE_MAX: usize = 1024;

/// Whole lines, one after the other.
#[derive(Debug, Default)]
pub(crate) struct Batch {
    /// Each with a newline behind it.
    pub text: Vec<u8>,
    /// Where each ends, its newline not counted, and whether it was written over.
    pub ends: Vec<(usize, bool)>,
}

impl Batch {
    /// The lines, and whether each was written over.
    pub fn lines(&self) -> impl Iterator<Item = (&[u8], bool)> {
        let mut start = 0;
        self.ends.iter().map(move |(end, over)| {
            let line = self.text.get(start..*end).unwrap_or_default();
            start = end + 1;
            (line, *over)
        })
    }
}

/// Assembles them.
#[derive(Debug, Default)]
pub(crate) struct Lines {
    plain: Plain,
    /// The line that is not at its end yet.
    partial: Vec<u8>,
    /// The next character goes to its beginning.
    returned: bool,
}

impl Lines {
    /// What came: the lines that it ends.
    pub fn read(&mut self, bytes: &[u8]) -> Batch {
        let mut batch = Batch { text: std::mem::take(&mut self.partial), ends: Vec::new() };
        batch.text.reserve(bytes.len());
        let (mut start, mut returned) = (0, self.returned);
        let end = |batch: &mut Batch, start: &mut usize, over| {
            if batch.text.len() > *start {
                batch.ends.push((batch.text.len(), over));
                batch.text.push(b'\n');
                *start = batch.text.len();
            }
        };
        self.plain.read(bytes, |sign| match sign {
            Sign::Text(mut text) => {
                if std::mem::take(&mut returned) {
                    end(&mut batch, &mut start, true);
                }
                while !text.is_empty() {
                    let room = LINE_MAX - (batch.text.len() - start);
                    let (now, later) = text.split_at(room.min(text.len()));
                    batch.text.extend_from_slice(now);
                    text = later;
                    if !text.is_empty() {
                        end(&mut batch, &mut start, false);
                    }
                }
            }
            Sign::Newline | Sign::Moved => {
                returned = false;
                end(&mut batch, &mut start, false);
            }
            Sign::Return => returned = true,
            Sign::Back => {
                if batch.text.len() > start {
                    batch.text.pop();
                }
            }
        });
        self.returned = returned;
        self.partial = batch.text.get(start..).unwrap_or_default().to_vec();
        batch.text.truncate(start);
        batch
    }

    /// The line that is not at its end: a prompt, if nothing follows.
    pub fn partial(&self) -> &[u8] {
        &self.partial
    }

    #[cfg(test)]
    pub fn bytes(&self) -> usize {
        self.partial.capacity()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read(chunks: &[&[u8]]) -> (Vec<(String, bool)>, String) {
        let (mut lines, mut read) = (Lines::default(), Vec::new());
        for chunk in chunks {
            let batch = lines.read(chunk);
            let text = |line| String::from_utf8_lossy(line).into_owned();
            read.extend(batch.lines().map(|(line, over)| (text(line), over)));
            assert!(lines.partial.len() <= LINE_MAX && lines.partial.capacity() <= 2 * LINE_MAX);
        }
        (read, String::from_utf8_lossy(lines.partial()).into_owned())
    }

    #[test]
    fn lines_and_what_is_left() {
        let line = |text: &str| (text.to_string(), false);
        let over = |text: &str| (text.to_string(), true);
        let (lines, left) = read(&[b"one\r\n\r\ntwo\n\rm01 login", b": "]);
        assert_eq!((lines, left.as_str()), (vec![line("one"), line("two")], "m01 login: "));
        let (lines, left) = read(&[b"10 %\r", b"20 %\r\x1b[Kdone\r\r\nlogi\x08\x08gin: "]);
        assert_eq!(
            (lines, left.as_str()),
            (vec![over("10 %"), over("20 %"), line("done")], "login: ")
        );
        let (lines, left) = read(&[b"\x1b[3;1HNo bootable device\x1b[4;1H"]);
        assert_eq!((lines, left.as_str()), (vec![line("No bootable device")], ""));
    }

    #[test]
    fn a_line_without_an_end_costs_no_memory() {
        let mut lines = Lines::default();
        let mut seen = 0;
        for _ in 0..1000 {
            seen += lines.read(&[b'x'; 4000]).lines().map(|(line, _)| line.len()).sum::<usize>();
            assert!(lines.partial.capacity() <= 2 * LINE_MAX, "{}", lines.partial.capacity());
        }
        assert_eq!(seen + lines.partial.len(), 4_000_000);
    }

    proptest! {
        #[test]
        fn any_bytes_split_anywhere(
            bytes in prop::collection::vec(prop_oneof![any::<u8>(), prop::sample::select(b"\x1b[H\r\n\x08 ab".to_vec())], 0..3000),
            at in any::<prop::sample::Index>(),
        ) {
            let (one, other) = bytes.split_at(at.index(bytes.len() + 1));
            prop_assert_eq!(read(&[one, other]), read(&[&bytes]));
        }
    }
}
