//! The lines in which two small texts differ, bounded in size, number and time.

use std::io;
use std::time::Duration;

use serde::Serialize;
use similar::TextDiff;

use crate::content::Content;

/// Larger files are data, whatever is in them.
const TEXT_MAX: u64 = 256 * 1024;
/// Lines of one file's diff.
const LINES_MAX: usize = 1000;
/// Bytes of all diffs of a comparison.
const ALL_MAX: usize = 4 << 20;
/// The same of texts that came as they are: a package more is a thousand of them, and what people look
/// for is what is another.
const NEW_MAX: usize = 128 << 10;
/// Two texts without a line in common: the rest of them is one large hunk.
const PATIENCE: Duration = Duration::from_millis(300);

/// Why the lines of a file are not shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum NoText {
    /// It is no text.
    Binary,
    /// It is larger than a text that people read.
    Large,
    /// Not everybody on the machine may read it: keys and password hashes stay where they are.
    Private,
    /// The lines of others were enough.
    Enough,
}

/// Room for diffs.
#[derive(Default)]
pub(super) struct Texts {
    used: usize,
    used_by_new: usize,
    pub(super) left_out: u64,
}

impl Texts {
    /// The unified diff of two files, either of which may be absent.
    pub(super) fn between(
        &mut self,
        old: Option<&Content>,
        new: Option<&Content>,
    ) -> io::Result<Result<String, NoText>> {
        let sizes = [old, new].map(|content| content.map_or(0, Content::size));
        if sizes.iter().any(|size| *size > TEXT_MAX) {
            return Ok(Err(NoText::Large));
        }
        let (used, most) = match old {
            Some(_) => (&mut self.used, ALL_MAX),
            None => (&mut self.used_by_new, NEW_MAX),
        };
        if *used >= most {
            self.left_out += 1;
            return Ok(Err(NoText::Enough));
        }
        let read = |content: Option<&Content>| content.map_or(Ok(Vec::new()), |c| c.read(TEXT_MAX));
        let (old, new) = (read(old)?, read(new)?);
        let (Some(old), Some(new)) = (text(&old), text(&new)) else {
            return Ok(Err(NoText::Binary));
        };
        let text = unified(old, new);
        *used += text.len();
        Ok(Ok(text))
    }
}

/// What an editor would show.
fn text(bytes: &[u8]) -> Option<&str> {
    std::str::from_utf8(bytes).ok().filter(|text| !text.contains('\0'))
}

fn unified(old: &str, new: &str) -> String {
    let diff = TextDiff::configure().timeout(PATIENCE).diff_lines(old, new);
    let whole = diff.unified_diff().context_radius(3).to_string();
    let mut cut = whole.split_inclusive('\n');
    let mut text: String = cut.by_ref().take(LINES_MAX).collect();
    let more = cut.count();
    if more > 0 {
        text.push_str(&format!("\\ {more} more lines\n"));
    }
    text
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::source::spool::spooled;

    #[test]
    fn lines_are_those_of_diff_u() {
        let old = "one\ntwo\nthree\n";
        assert_eq!(
            unified(old, "one\n2\nthree"),
            "@@ -1,3 +1,3 @@\n one\n-two\n-three\n+2\n+three\n\\ No newline at end of file\n"
        );
        assert_eq!(unified("", "new\n"), "@@ -0,0 +1 @@\n+new\n");
        assert_eq!(unified(old, old), "");
        let long = unified("", &"line\n".repeat(5000));
        assert_eq!(long.lines().count(), LINES_MAX + 1);
        assert!(long.ends_with("\\ 4001 more lines\n"), "{}", long.lines().last().unwrap());
    }

    #[test]
    fn new_texts_leave_room_for_those_that_changed() {
        let page = |line: &str| Content::Span(spooled(line.repeat(4000).as_bytes()));
        let (old, new) = (page("one\n"), page("two\n"));
        let mut texts = Texts::default();
        let mut shown = 0;
        while texts.between(None, Some(&new)).unwrap().is_ok() {
            shown += 1;
        }
        assert!((10..100).contains(&shown), "{shown}");
        assert!(texts.between(Some(&old), Some(&new)).unwrap().is_ok());
        assert_eq!(texts.left_out, 1);
    }

    proptest! {
        /// A patch that says what it says: its lines give both texts back.
        #[test]
        fn what_is_shown_leads_from_the_old_to_the_new(
            old in "([abc]{0,3}\n){0,9}", new in "([abc]{0,3}\n){0,9}",
        ) {
            let shown = unified(&old, &new);
            let old: Vec<&str> = old.lines().collect();
            let (mut at, mut made) = (0, Vec::new());
            for line in shown.lines() {
                let (sign, text) = line.split_at(1);
                match sign {
                    "@" => {
                        let first = line[4..].split([',', ' ']).next().unwrap();
                        let count = line[4..].split(' ').next().unwrap().split(',').nth(1);
                        let first: usize = first.parse().unwrap();
                        // `-0,0` and `-7,0` stand behind the line they name.
                        let first = if count == Some("0") { first } else { first - 1 };
                        made.extend(&old[at..first]);
                        at = first;
                    }
                    " " | "-" => {
                        prop_assert_eq!(old[at], text);
                        made.extend((sign == " ").then_some(text));
                        at += 1;
                    }
                    "+" => made.push(text),
                    other => prop_assert!(false, "{:?}", other),
                }
            }
            made.extend(&old[at..]);
            prop_assert_eq!(made, new.lines().collect::<Vec<_>>());
        }
    }
}
