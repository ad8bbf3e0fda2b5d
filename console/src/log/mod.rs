//! Logs of lines: all that a machine said, when it said it, and what happened between.
//!
//! ```text
//! index   when which character came, and marks: a small file beside each segment
//! files   segments of a line's log, the oldest of which goes
//! writer  one thread that writes for all lines
//! reader  from a place, a time or some lines back
//! plain   lines of text, safe to show
//! find    which of them are wanted
//! cast    an asciicast of it
//! ```
//!
//! Segments are what the machine sent and nothing else: `less`, `grep` and `tail` read them.

mod cast;
mod files;
mod find;
mod index;
mod plain;
mod reader;
mod writer;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

pub use cast::Cast;
pub use files::LEAST;
pub use find::{Find, pattern};
pub use plain::{Line, Plain};
pub use reader::{Reader, Start};
pub(crate) use writer::{Feed, Tap};
pub use writer::{Health, Writer};

/// Where a line is to be logged, by [`Writer::log`].
#[derive(Debug, Clone)]
pub struct Log {
    name: String,
    dir: PathBuf,
    shared: Arc<writer::Shared>,
}

impl Log {
    /// Its directory.
    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }
}

/// The directory of a line's log.
///
/// # Errors
/// The name is no safe part of a path.
pub fn directory(root: &Path, name: &str) -> io::Result<PathBuf> {
    let safe = |c: char| c.is_alphanumeric() || matches!(c, '-' | '_' | '.' | '@');
    if name.is_empty() || name.len() > 200 || name.starts_with('.') || !name.chars().all(safe) {
        let says = format!("{name:?} is no name for a directory");
        return Err(io::Error::new(io::ErrorKind::InvalidInput, says));
    }
    Ok(root.join(name))
}

#[cfg(test)]
mod tests;

#[cfg(test)]
mod names {
    use super::*;

    #[test]
    fn names_stay_under_the_root() {
        let root = Path::new("/consoles");
        assert_eq!(directory(root, "m01.rack-2").unwrap(), root.join("m01.rack-2"));
        for name in ["", ".", "..", ".hidden", "a/b", "a\0b", "a\nb", "../etc", &"x".repeat(300)] {
            assert!(directory(root, name).is_err(), "{name:?}");
        }
    }
}
