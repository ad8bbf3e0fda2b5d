//! One thread writes what all machines said: what came within a tenth of a second goes to the disk together.
//! What it cannot write waits, up to a bound, is tried again, and is counted where there is no more room.

use std::collections::HashMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use nix::sys::resource::{Resource, getrlimit};
use tokio::sync::watch;

use super::files::{Dir, begun};
use crate::ledger::now_ms;
use crate::site::Logs;

/// What came waits no longer for more to be written with it.
const FLUSH: Duration = Duration::from_millis(100);
/// Where it could not be written, it is tried again after this.
const AGAIN: Duration = Duration::from_secs(1);
/// Bytes that wait to be written, of all; of one machine.
const WAITING: usize = 32 << 20;
const WAITING_EACH: usize = 512 << 10;
/// Of all senders whose address is no machine's: invented ones must not take the room of machines.
const WAITING_STRANGERS: usize = 8 << 20;
/// Of what is kept on the disk, strangers have no more than one part in so many.
const STRANGERS_PART: u64 = 4;
/// Strangers with a directory. Their addresses may be invented.
const STRANGERS: usize = 256;
/// A stranger that was quiet for so long makes room for another.
const QUIET_MS: u64 = 3_600_000;
/// Of the files that this process may open, one in so many.
const SHARE: u64 = 8;
/// Where those are whose address is no machine's.
pub const UNKNOWN: &str = "unknown";

/// How much is kept, bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Bounds {
    /// Of each machine.
    pub each: u64,
    /// Of all.
    pub total: u64,
}

impl From<Logs> for Bounds {
    fn from(logs: Logs) -> Bounds {
        Bounds { each: logs.size, total: logs.total }
    }
}

/// How it goes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Health {
    /// Why something cannot be written, if that is so.
    pub failing: Option<String>,
    /// Messages that are nowhere, since it could not be written.
    pub lost: u64,
}

/// See the module. When it is dropped it writes what there is, and ends.
#[derive(Debug)]
pub struct Writer {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug)]
struct Shared {
    root: PathBuf,
    waiting: Mutex<Waiting>,
    bell: Condvar,
    health: watch::Sender<Health>,
}

#[derive(Debug, Default)]
struct Waiting {
    lines: HashMap<String, Vec<u8>>,
    bytes: usize,
    /// Of these, strangers'.
    strangers: usize,
    lost: u64,
    bounds: Bounds,
    end: bool,
}

impl Writer {
    /// Directories are under this one.
    ///
    /// # Errors
    /// There is no thread to be had.
    pub fn start(root: PathBuf, bounds: Bounds) -> io::Result<Writer> {
        let waiting = Waiting { bounds, ..Waiting::default() };
        let shared = Arc::new(Shared {
            root,
            waiting: Mutex::new(waiting),
            bell: Condvar::new(),
            health: watch::channel(Health::default()).0,
        });
        let its = shared.clone();
        let thread = std::thread::Builder::new().name("syslog".to_string());
        let thread = thread.spawn(move || its.run())?;
        Ok(Writer { shared, thread: Some(thread) })
    }

    /// A line for the directory of this name. False: there is no room for it.
    pub fn put(&self, place: &str, line: &str) -> bool {
        let mut waiting = self.shared.waiting();
        let each = WAITING_EACH.max(line.len());
        let its = waiting.lines.get(place).map_or(0, Vec::len);
        let stranger = is_stranger(place);
        let too_many = stranger && waiting.strangers + line.len() > WAITING_STRANGERS;
        if its + line.len() > each || waiting.bytes + line.len() > WAITING || too_many {
            waiting.lost += 1;
            return false;
        }
        waiting.strangers += if stranger { line.len() } else { 0 };
        let first = waiting.bytes == 0;
        waiting.bytes += line.len();
        match waiting.lines.get_mut(place) {
            Some(lines) => lines.extend_from_slice(line.as_bytes()),
            None => drop(waiting.lines.insert(place.to_string(), line.as_bytes().to_vec())),
        }
        drop(waiting);
        if first {
            self.shared.bell.notify_one();
        }
        true
    }

    /// Whether so much more of this machine may be put now; a connection waits, and loses nothing.
    pub fn has_room(&self, place: &str) -> bool {
        let waiting = self.shared.waiting();
        let its = waiting.lines.get(place).map_or(0, Vec::len);
        let room = !is_stranger(place) || waiting.strangers < WAITING_STRANGERS / 2;
        its < WAITING_EACH / 2 && waiting.bytes < WAITING / 2 && room
    }

    /// Other bounds from now on.
    pub fn set_bounds(&self, bounds: Bounds) {
        self.shared.waiting().bounds = bounds;
    }

    /// How it goes; each change is told.
    pub fn health(&self) -> watch::Receiver<Health> {
        self.shared.health.subscribe()
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.shared.waiting().end = true;
        self.shared.bell.notify_all();
        if let Some(thread) = self.thread.take() {
            let _it_ended_either_way = thread.join();
        }
    }
}

impl Shared {
    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn run(&self) {
        let (soft, _) = getrlimit(Resource::RLIMIT_NOFILE).unwrap_or((1024, 1024));
        let mut dirs = Dirs::read(&self.root);
        dirs.most_open = usize::try_from(soft / SHARE).unwrap_or(128).max(1);
        loop {
            let mut waiting = self.waiting();
            while waiting.bytes == 0 && !waiting.end {
                waiting = self.bell.wait(waiting).unwrap_or_else(PoisonError::into_inner);
            }
            if !waiting.end {
                let more = self.bell.wait_timeout_while(waiting, FLUSH, |waiting| !waiting.end);
                waiting = more.unwrap_or_else(PoisonError::into_inner).0;
            }
            let (lines, bounds, end) =
                (std::mem::take(&mut waiting.lines), waiting.bounds, waiting.end);
            (waiting.bytes, waiting.strangers) = (0, 0);
            drop(waiting);
            let Written { failed, why, refused } = dirs.write(lines, bounds);
            let fails = why.is_some();
            let mut waiting = self.waiting();
            waiting.lost += refused;
            // What came meanwhile is younger.
            for (place, mut lines) in failed {
                let younger = waiting.lines.remove(&place).unwrap_or_default();
                waiting.bytes += lines.len();
                waiting.strangers += if is_stranger(&place) { lines.len() } else { 0 };
                lines.extend(younger);
                waiting.lines.insert(place, lines);
            }
            if end && fails {
                let lines = waiting.lines.values().flatten().filter(|byte| **byte == b'\n');
                waiting.lost += lines.count() as u64;
            }
            let health = Health { failing: why, lost: waiting.lost };
            self.health.send_if_modified(|known| {
                let changed = *known != health;
                *known = health;
                changed
            });
            if end && (fails || waiting.bytes == 0) {
                return;
            }
            if fails {
                let again = self.bell.wait_timeout_while(waiting, AGAIN, |waiting| !waiting.end);
                drop(again);
            }
        }
    }
}

/// What came of writing.
struct Written {
    /// What could not be written, to be tried again; and why.
    failed: Vec<(String, Vec<u8>)>,
    why: Option<String>,
    /// Messages that were refused for good.
    refused: u64,
}

/// All directories, as the thread has them.
struct Dirs {
    root: PathBuf,
    dirs: HashMap<String, Dir>,
    total: u64,
    most_open: usize,
}

impl Dirs {
    fn read(root: &Path) -> Dirs {
        let mut dirs = HashMap::new();
        for place in places(root) {
            match Dir::open(root.join(&place)) {
                Ok(dir) => drop(dirs.insert(place, dir)),
                Err(why) => tracing::warn!(place, %why, "a directory of logs cannot be read"),
            }
        }
        let total = dirs.values().map(Dir::size).sum();
        Dirs { root: root.to_path_buf(), dirs, total, most_open: 1 }
    }

    fn write(&mut self, lines: HashMap<String, Vec<u8>>, bounds: Bounds) -> Written {
        let (mut failed, mut why, mut refused) = (Vec::new(), None, 0);
        let (at, now) = (now_ms(), Instant::now());
        for (place, lines) in lines {
            if !self.dirs.contains_key(&place) && !self.admit(&place, at) {
                refused += lines.iter().filter(|byte| **byte == b'\n').count() as u64;
                continue;
            }
            let path = self.root.join(&place);
            let dir = match self.dirs.get_mut(&place) {
                Some(dir) => dir,
                None => match Dir::open(path) {
                    Ok(dir) => self.dirs.entry(place.clone()).or_insert(dir),
                    Err(error) => {
                        why.get_or_insert(format!("{place}: {error}"));
                        failed.push((place, lines));
                        continue;
                    }
                },
            };
            let before = dir.size();
            let mut left = &lines[..];
            let written = dir.write(&mut left, at, bounds.each, now);
            self.total = (self.total + dir.size()).saturating_sub(before);
            if let Err(error) = written {
                why.get_or_insert(format!("{place}: {error}"));
                let left = left.to_vec();
                failed.push((place, left));
            }
        }
        if let Err(error) = self.keep(bounds.total) {
            why.get_or_insert(error.to_string());
        }
        if self.dirs.values().filter(|dir| dir.is_open()).count() > self.most_open {
            self.dirs.values_mut().for_each(Dir::close);
        }
        Written { failed, why, refused }
    }

    /// Whether there may be a directory of this name.
    fn admit(&mut self, place: &str, at: u64) -> bool {
        if !is_stranger(place) {
            return true;
        }
        let strangers = self.dirs.iter().filter(|(place, _)| is_stranger(place));
        if strangers.clone().count() < STRANGERS {
            return true;
        }
        let oldest = strangers.min_by(|one, other| one.1.newest().cmp(&other.1.newest()));
        let Some((name, quiet)) = oldest.map(|(name, dir)| {
            let begun = dir.newest().and_then(begun).unwrap_or(0);
            (name.clone(), at.saturating_sub(begun) > QUIET_MS)
        }) else {
            return false;
        };
        if quiet && let Some(mut dir) = self.dirs.remove(&name) {
            while dir.segments() > 0 {
                match dir.forget_oldest() {
                    Ok(freed) => self.total = self.total.saturating_sub(freed),
                    Err(_) => return false,
                }
            }
        }
        quiet
    }

    /// The oldest of all goes, until they are within the bound; before that, the oldest of strangers', until
    /// those are within their part of it.
    fn keep(&mut self, bound: u64) -> io::Result<()> {
        loop {
            let strangers = self.dirs.iter().filter(|(place, _)| is_stranger(place));
            let theirs: u64 = strangers.map(|(_, dir)| dir.size()).sum();
            let of_strangers = theirs > bound / STRANGERS_PART;
            if !of_strangers && self.total <= bound {
                return Ok(());
            }
            let meant = |place: &str| !of_strangers || is_stranger(place);
            let dirs = || self.dirs.iter().filter(|(place, _)| meant(place));
            let closed = dirs().filter(|(_, dir)| dir.segments() > 1);
            let oldest = closed.min_by(|one, other| one.1.oldest().cmp(&other.1.oldest()));
            let any = || {
                let all = dirs().filter(|(_, dir)| dir.segments() > 0);
                all.min_by(|one, other| one.1.oldest().cmp(&other.1.oldest()))
            };
            let Some(place) = oldest.or_else(any).map(|(place, _)| place.clone()) else { break };
            let Some(dir) = self.dirs.get_mut(&place) else { break };
            self.total = self.total.saturating_sub(dir.forget_oldest()?);
            if dir.segments() == 0 {
                self.dirs.remove(&place);
            }
        }
        Ok(())
    }
}

/// Whether a directory is of an address that is no machine's.
fn is_stranger(place: &str) -> bool {
    place.strip_prefix(UNKNOWN).is_some_and(|rest| rest.starts_with('/'))
}

/// Directories of logs under the root: machines', and strangers'.
pub(super) fn places(root: &Path) -> Vec<String> {
    let below = |path: &Path| {
        let entries = fs::read_dir(path).into_iter().flatten().flatten();
        let folders = entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
        let names = folders.filter_map(|entry| entry.file_name().into_string().ok());
        let mut names: Vec<String> = names.collect();
        names.sort_unstable();
        names
    };
    let strangers = below(&root.join(UNKNOWN));
    let strangers = strangers.into_iter().map(|name| format!("{UNKNOWN}/{name}"));
    below(root).into_iter().filter(|name| name != UNKNOWN).chain(strangers).collect()
}

#[cfg(test)]
#[path = "writer_tests.rs"]
mod tests;
