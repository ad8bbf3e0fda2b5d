//! Which lines are wanted: those that match, with some around them; the last so many.

use std::collections::VecDeque;

use regex::{Regex, RegexBuilder};

/// A pattern's program takes no more memory, bytes.
const PATTERN: usize = 1 << 20;

/// Lets lines through, or marks, or whatever stands between them.
#[derive(Debug)]
pub struct Find<T> {
    pattern: Option<Regex>,
    context: usize,
    before: VecDeque<T>,
    /// So many more behind a match.
    after: usize,
}

/// A pattern, as `regex` knows them.
///
/// # Errors
/// It is none, in words.
pub fn pattern(text: &str) -> Result<Regex, String> {
    RegexBuilder::new(text).size_limit(PATTERN).build().map_err(|why| why.to_string())
}

impl<T> Find<T> {
    /// Without a pattern all come through.
    pub fn new(pattern: Option<Regex>, context: usize) -> Find<T> {
        Find { pattern, context, before: VecDeque::new(), after: 0 }
    }

    /// The next line; what comes through by it.
    pub fn line(&mut self, text: &str, row: T, out: &mut Vec<T>) {
        let matches = self.pattern.as_ref().is_none_or(|pattern| pattern.is_match(text));
        if matches {
            out.extend(self.before.drain(..));
            self.after = self.context;
            out.push(row);
        } else if self.after > 0 {
            self.after -= 1;
            out.push(row);
        } else if self.context > 0 {
            if self.before.len() >= self.context {
                self.before.pop_front();
            }
            self.before.push_back(row);
        }
    }

    /// Something that is no line: it comes through where all lines do.
    pub fn other(&mut self, row: T, out: &mut Vec<T>) {
        if self.pattern.is_none() {
            out.push(row);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn matches_with_some_lines_around_them() {
        let found = |context| {
            let mut find = Find::new(Some(pattern("panic").unwrap()), context);
            let mut out = Vec::new();
            for (number, text) in
                ["a", "b", "panic", "c", "d", "e", "panic", "panic"].iter().enumerate()
            {
                find.line(text, number, &mut out);
            }
            out
        };
        assert_eq!(found(0), [2, 6, 7]);
        assert_eq!(found(1), [1, 2, 3, 5, 6, 7]);
        assert!(pattern("(").is_err() && pattern("(a{1000}){1000}").is_err());
    }
}
