//! Where a thing is written: the file, the line, the bytes. Every machine, seat, role and address of
//! the site keeps its origin, so that at boot time `koboshi explain` can name the line that decided.

use std::fmt;
use std::ops::{Deref, Range};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::{Serialize, Serializer};

/// One file of the site, as it was read.
pub struct Source {
    path: PathBuf,
    shown: String,
    text: String,
    lines: Vec<u32>,
    order: u32,
}

impl Source {
    /// Takes over a file's text. `shown` is its name in messages, `order` its place among the files.
    pub fn new(path: PathBuf, shown: String, text: String, order: u32) -> Arc<Source> {
        let starts = text.bytes().enumerate().filter(|(_, byte)| *byte == b'\n');
        let mut lines = vec![0];
        lines.extend(starts.map(|(at, _)| at as u32 + 1));
        Arc::new(Source { path, shown, text, lines, order })
    }

    /// The file's path, as given or as found by an include.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The name in messages: relative to the folder of the first file.
    pub fn shown(&self) -> &str {
        &self.shown
    }

    /// What the file says.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// The 1-based line of a byte.
    pub fn line_of(&self, at: usize) -> usize {
        self.lines.partition_point(|start| *start as usize <= at).max(1)
    }

    /// A 1-based line's bytes, without its end.
    pub fn line_range(&self, line: usize) -> Range<usize> {
        let start = self.lines.get(line.wrapping_sub(1)).map_or(self.text.len(), |at| *at as usize);
        let end = self.lines.get(line).map_or(self.text.len(), |at| *at as usize - 1);
        let end = end.max(start);
        let end = if self.text[start..end].ends_with('\r') { end - 1 } else { end };
        start..end
    }

    /// How many lines there are.
    pub fn line_count(&self) -> usize {
        self.lines.len()
    }

    /// A place in this file.
    pub fn origin(self: &Arc<Source>, span: Range<usize>) -> Origin {
        let end = self.text.len();
        let start = floor(&self.text, span.start.min(end));
        let end = floor(&self.text, span.end.clamp(start, end));
        Origin { source: Arc::clone(self), start: start as u32, end: end.max(start) as u32 }
    }
}

fn floor(text: &str, mut at: usize) -> usize {
    while !text.is_char_boundary(at) {
        at -= 1;
    }
    at
}

impl fmt::Debug for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Source({}, {} bytes)", self.shown, self.text.len())
    }
}

/// A place in a site file. Prints as `site.toml:42`.
#[derive(Clone)]
pub struct Origin {
    source: Arc<Source>,
    start: u32,
    end: u32,
}

impl Origin {
    /// The file.
    pub fn source(&self) -> &Arc<Source> {
        &self.source
    }

    /// The file's path.
    pub fn file(&self) -> &Path {
        &self.source.path
    }

    /// The file's name in messages.
    pub fn shown(&self) -> &str {
        &self.source.shown
    }

    /// The bytes.
    pub fn span(&self) -> Range<usize> {
        self.start as usize..self.end as usize
    }

    /// 1-based line.
    pub fn line(&self) -> usize {
        self.source.line_of(self.start as usize)
    }

    /// 1-based column, in characters.
    pub fn column(&self) -> usize {
        let start = self.source.line_range(self.line()).start;
        let start = start.min(self.start as usize);
        self.source.text[start..self.start as usize].chars().count() + 1
    }

    /// The whole line, as written.
    pub fn line_text(&self) -> &str {
        &self.source.text[self.source.line_range(self.line())]
    }

    /// The bytes themselves, as written.
    pub fn text(&self) -> &str {
        &self.source.text[self.span()]
    }

    /// Sorts by file, then by place.
    pub(crate) fn order(&self) -> (u32, u32, u32) {
        (self.source.order, self.start, self.end)
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.source.shown, self.line())
    }
}

impl fmt::Debug for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}", self.source.shown, self.line(), self.column())
    }
}

/// A value and where it is written. Equal when the values are, wherever they stand.
#[derive(Clone)]
pub struct At<T> {
    /// The value.
    pub value: T,
    /// Where it is written.
    pub origin: Origin,
}

impl<T> At<T> {
    /// A value with its place.
    pub fn new(value: T, origin: Origin) -> At<T> {
        At { value, origin }
    }

    /// The same place for another value.
    pub fn map<U>(self, change: impl FnOnce(T) -> U) -> At<U> {
        At { value: change(self.value), origin: self.origin }
    }
}

impl<T> Deref for At<T> {
    type Target = T;
    fn deref(&self) -> &T {
        &self.value
    }
}

impl<T: PartialEq> PartialEq for At<T> {
    fn eq(&self, other: &At<T>) -> bool {
        self.value == other.value
    }
}

impl<T: Eq> Eq for At<T> {}

impl<T: fmt::Debug> fmt::Debug for At<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.value.fmt(f)
    }
}

impl<T: fmt::Display> fmt::Display for At<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.value.fmt(f)
    }
}

impl<T: Serialize> Serialize for At<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.value.serialize(serializer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_and_columns_are_counted_as_an_editor_does() {
        let text = "a = 1\r\nü = 2\n\nend";
        let source = Source::new("x/site.toml".into(), "site.toml".into(), text.into(), 0);
        for (at, line, column, whole) in
            [(0, 1, 1, "a = 1"), (4, 1, 5, "a = 1"), (7, 2, 1, "ü = 2"), (12, 2, 5, "ü = 2")]
        {
            let origin = source.origin(at..at + 1);
            assert_eq!((origin.line(), origin.column(), origin.line_text()), (line, column, whole));
        }
        let last = source.origin(text.len()..text.len() + 40);
        assert_eq!((last.line(), last.column(), last.line_text()), (4, 4, "end"));
        assert_eq!(last.to_string(), "site.toml:4");
        assert_eq!(source.origin(8..9).span(), 7..9, "a span never cuts a character");
        assert_eq!(source.line_range(3), 14..14);
        assert_eq!(source.line_range(99), text.len()..text.len());
    }

    #[test]
    fn values_are_equal_wherever_they_stand() {
        let source = Source::new("s".into(), "s".into(), "one\ntwo".into(), 0);
        assert_eq!(At::new(1, source.origin(0..1)), At::new(1, source.origin(4..5)));
        assert_ne!(At::new(1, source.origin(0..1)), At::new(2, source.origin(0..1)));
    }
}
