//! What cannot be written just now, and why: told once in the log when it begins and once when it is over, and
//! shown by `koboshi status` for as long as it lasts. Whoever writes tries again by itself; nobody restarts anything.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use nix::errno::Errno;
use serde::{Deserialize, Serialize};

use crate::ledger::now_ms;

/// See the module.
#[derive(Debug, Default)]
pub struct Unwritten {
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    all: BTreeMap<PathBuf, Trouble>,
    over: Vec<Trouble>,
}

/// One file, or one folder, that cannot be written.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Trouble {
    /// Which.
    pub path: PathBuf,
    /// The system's word.
    pub why: String,
    /// What to do about it.
    pub help: String,
    /// Unix milliseconds of the first failure.
    pub since: u64,
}

impl std::fmt::Display for Trouble {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Trouble { path, why, help, .. } = self;
        write!(
            f,
            "{} cannot be written ({why}): {help}; koboshi goes on by itself then",
            path.display()
        )
    }
}

impl Trouble {
    /// The same, once it is over.
    pub fn lasted(&self, now: u64) -> String {
        let Trouble { path, why, since, .. } = self;
        let seconds = now.saturating_sub(*since) / 1000;
        format!("{} could not be written for {seconds} s ({why}); it goes on", path.display())
    }
}

impl Unwritten {
    /// It could not be written. True: that is new, and was told.
    pub fn failed(&self, path: &Path, error: &io::Error) -> bool {
        let all = &mut self.inner().all;
        let why = error.to_string();
        if all.get(path).is_some_and(|known| known.why == why) {
            return false;
        }
        let since = all.get(path).map_or_else(now_ms, |known| known.since);
        let trouble = Trouble { path: path.to_path_buf(), why, help: help(path, error), since };
        tracing::error!("{trouble}");
        all.insert(path.to_path_buf(), trouble);
        true
    }

    /// It was written.
    pub fn wrote(&self, path: &Path) {
        let mut inner = self.inner();
        if let Some(over) = inner.all.remove(path) {
            tracing::info!("{} can be written again", path.display());
            inner.over.push(over);
        }
    }

    /// All that cannot be written.
    pub fn list(&self) -> Vec<Trouble> {
        self.inner().all.values().cloned().collect()
    }

    /// What was in trouble and is not any more, since the last look: for the log of events, which could not be
    /// written meanwhile.
    pub fn over(&self) -> Vec<Trouble> {
        std::mem::take(&mut self.inner().over)
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether it goes by itself once somebody has made room, or mounted the disk again: what is tried again. Anything
/// else is the disk's own trouble.
pub fn passes(error: &io::Error) -> bool {
    let errno = error.raw_os_error().map(Errno::from_raw);
    matches!(errno, Some(Errno::ENOSPC | Errno::EDQUOT | Errno::EROFS))
}

/// What an operator does about it.
pub fn help(path: &Path, error: &io::Error) -> String {
    let folder = path.parent().unwrap_or(path).display();
    match error.raw_os_error().map(Errno::from_raw) {
        Some(Errno::ENOSPC) => {
            format!("make room there (`df {folder}` and `df -i {folder}` show how much is taken)")
        }
        Some(Errno::EDQUOT) => format!("raise the quota of {folder}, or make room there"),
        Some(Errno::EROFS) => format!(
            "the disk of {folder} is mounted read-only (`findmnt -T {folder}`; `dmesg` says why, if nobody did it): \
             `mount -o remount,rw` it (where that is refused the disk gave up: stop koboshi, unmount, `fsck`, mount, start it)"
        ),
        Some(Errno::EACCES | Errno::EPERM) => {
            format!("let the user that koboshi runs as write in {folder} (`ls -ld {folder}`)")
        }
        _ => format!("look at the disk of {folder} (`dmesg`)"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_told_once_when_it_begins_and_once_when_it_is_over() {
        let unwritten = Unwritten::default();
        let path = Path::new("/var/lib/koboshi/koboshi.redb");
        let full = io::Error::from_raw_os_error(Errno::ENOSPC as i32);
        assert!(unwritten.failed(path, &full) && !unwritten.failed(path, &full));
        let since = unwritten.list()[0].since;
        let text = unwritten.list()[0].to_string();
        assert!(
            text.contains("No space left on device") && text.contains("df -i /var/lib/koboshi")
        );
        // Another cause is news, and it began when it began.
        let read_only = io::Error::from_raw_os_error(Errno::EROFS as i32);
        assert!(unwritten.failed(path, &read_only));
        assert_eq!((unwritten.list().len(), unwritten.list()[0].since), (1, since));
        assert!(unwritten.over().is_empty());
        unwritten.wrote(path);
        unwritten.wrote(path);
        assert!(unwritten.list().is_empty());
        assert_eq!((unwritten.over().len(), unwritten.over().len()), (1, 0));
        assert!(passes(&full) && passes(&read_only));
        assert!(!passes(&io::Error::from_raw_os_error(Errno::EIO as i32)));
    }
}
