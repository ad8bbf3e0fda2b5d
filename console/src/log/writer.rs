//! One thread writes the logs of all lines: what came within a tenth of a second goes to the disk together,
//! and what a line's scrollback holds no more room for goes at once.
//!
//! It reads in the scrollbacks themselves, as whoever looks does, but what it has not written is not
//! forgotten there: a line that is faster than the disk waits. Where the disk does not take it, the line
//! goes on, what is forgotten meanwhile is counted, and the log begins again by itself.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use nix::sys::resource::{Resource, getrlimit};
use tokio::sync::{Notify, watch};

use super::Log;
use super::files::Files;
use super::reader::{Reader, Start};
use crate::line::locked;
use crate::scrollback::{Batch, CHARACTERS, Cursor, Mark, Scrollback, What};
use crate::state::{Record, clock};

/// What was said waits no longer for more to be written with it.
const FLUSH: Duration = Duration::from_millis(100);
/// Where it could not be written, it is tried again after this.
const AGAIN: Duration = Duration::from_secs(1);
/// A line waits no longer for a disk that says nothing.
const PATIENCE: Duration = Duration::from_secs(5);
/// When a line ends, its last words are waited for no longer.
const FAREWELL: Duration = Duration::from_secs(2);
/// Of the files that this process may open, logs keep no more open than one in so many; each line has two.
const SHARE: u64 = 4;

/// Writes the logs of all lines. When it is dropped it writes what there is, and ends.
#[derive(Debug)]
pub struct Writer {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

/// Which logs cannot be written.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Health {
    /// Why, by the line's name.
    pub failing: BTreeMap<String, String>,
    /// Characters that are not in a log and never will be, since the writer was begun.
    pub lost: u64,
}

#[derive(Debug)]
pub(super) struct Shared {
    root: PathBuf,
    bound: AtomicU64,
    waiting: Mutex<Waiting>,
    bell: Condvar,
    health: watch::Sender<Health>,
    /// Lines whose files are open.
    open: AtomicU64,
    most_open: u64,
}

#[derive(Debug, Default)]
struct Waiting {
    /// They said something.
    soon: Vec<Arc<Feed>>,
    /// They cannot say more.
    now: Vec<Arc<Feed>>,
    end: bool,
}

/// A line's way into its log.
#[derive(Debug)]
pub(crate) struct Feed {
    name: String,
    record: Weak<Mutex<Record>>,
    files: Mutex<Option<Files>>,
    soon: AtomicBool,
    now: AtomicBool,
    /// It could not be written: it is not tried before its time.
    later: AtomicBool,
    written: Notify,
    shared: Arc<Shared>,
}

/// How far a scrollback is in its log.
#[derive(Debug)]
pub(crate) struct Tap {
    pub feed: Arc<Feed>,
    /// What is before it is written.
    pub logged: Cursor,
    /// Since when it cannot be written, Unix milliseconds, and why.
    pub failing: Option<(u64, String)>,
    /// Not written and forgotten, since it fails.
    gone: Cursor,
    /// Characters that were not written and are forgotten, ever.
    pub lost: u64,
}

impl Tap {
    pub fn works(&self) -> bool {
        self.failing.is_none()
    }
}

impl Writer {
    /// Logs are under this directory, one for each line; each takes no more than `bound` bytes, its index
    /// included.
    ///
    /// # Errors
    /// There is no thread to be had.
    pub fn start(root: PathBuf, bound: u64) -> io::Result<Writer> {
        let (soft, _) = getrlimit(Resource::RLIMIT_NOFILE).unwrap_or((1024, 1024));
        let shared = Arc::new(Shared {
            root,
            bound: AtomicU64::new(bound),
            waiting: Mutex::default(),
            bell: Condvar::new(),
            health: watch::channel(Health::default()).0,
            open: AtomicU64::new(0),
            most_open: soft / SHARE / 2,
        });
        let its = shared.clone();
        let thread = std::thread::Builder::new().name("console-logs".to_string());
        let thread = thread.spawn(move || its.run())?;
        Ok(Writer { shared, thread: Some(thread) })
    }

    /// The log of a line of this name.
    ///
    /// # Errors
    /// It is no safe name of a directory.
    pub fn log(&self, name: &str) -> io::Result<Log> {
        let dir = super::directory(&self.shared.root, name)?;
        Ok(Log { name: name.to_string(), dir, shared: self.shared.clone() })
    }

    /// Another bound for each line, from its next words on.
    pub fn set_bound(&self, bound: u64) {
        self.shared.bound.store(bound, Ordering::Relaxed);
    }

    /// Which logs cannot be written; each change is told.
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

impl Log {
    /// Begins to write what this line says: its scrollback goes on where its log ended, and holds the log's
    /// last words.
    pub(crate) async fn begin(self, record: &Arc<Mutex<Record>>) {
        let feed = Arc::new(Feed {
            name: self.name,
            record: Arc::downgrade(record),
            files: Mutex::default(),
            soon: AtomicBool::new(false),
            now: AtomicBool::new(false),
            later: AtomicBool::new(false),
            written: Notify::new(),
            shared: self.shared.clone(),
        });
        let bound = self.shared.bound.load(Ordering::Relaxed);
        let dir = self.dir;
        let opening = tokio::task::spawn_blocking(move || {
            let files = Files::open(dir.clone(), bound)?;
            let scrollback = tail(&dir, files.end())?;
            Ok::<_, io::Error>((files, scrollback))
        });
        let opened = tokio::time::timeout(PATIENCE, opening).await;
        let opened = opened.map_err(|_| io::Error::from(io::ErrorKind::TimedOut));
        let opened = opened.and_then(|opened| opened.map_err(io::Error::other).flatten());
        let mut record = locked(record);
        let tap = |logged| Tap {
            feed: feed.clone(),
            logged,
            failing: None,
            gone: Cursor::default(),
            lost: 0,
        };
        match opened {
            Ok((files, scrollback)) => {
                let last = files.last();
                record.scrollback = scrollback;
                record.scrollback.tap = Some(tap(files.end()));
                *feed.files() = Some(files);
                if let Some(since) = last {
                    record.scrollback.mark(clock(), Mark::Away { since });
                }
            }
            Err(why) => {
                let end = record.scrollback.end();
                record.scrollback.tap = Some(tap(end));
                feed.failed(&mut record, &why);
                feed.ring(false);
            }
        }
    }
}

/// A scrollback that holds the last words of a log.
fn tail(dir: &Path, end: Cursor) -> io::Result<Scrollback> {
    let mut reader = Reader::open(dir.to_path_buf())?;
    reader.seek(Start::Place(end.text.saturating_sub(CHARACTERS as u64)))?;
    let mut scrollback = Scrollback::at(reader.cursor());
    loop {
        let pieces = reader.read()?;
        if pieces.is_empty() {
            break;
        }
        for (piece, after) in pieces {
            match piece.what {
                What::Text(text) => scrollback.write(piece.at, &text),
                // What is missing in the log is none of the line's own marks.
                What::Mark(Mark::Missing { .. }) => {
                    scrollback = Scrollback::at(after);
                    continue;
                }
                What::Mark(mark) => scrollback.mark(piece.at, mark),
            }
        }
    }
    if scrollback.end() != end {
        scrollback = Scrollback::at(end);
    }
    Ok(scrollback)
}

impl Feed {
    /// Something was said; or, if that is so, nothing more can be said before it is written.
    pub fn ring(self: &Arc<Feed>, urgent: bool) {
        let flag = if urgent { &self.now } else { &self.soon };
        if flag.swap(true, Ordering::AcqRel) {
            return;
        }
        let mut waiting = self.shared.waiting();
        let first = waiting.soon.is_empty();
        let list = if urgent { &mut waiting.now } else { &mut waiting.soon };
        list.push(self.clone());
        drop(waiting);
        if urgent || first {
            self.shared.bell.notify_one();
        }
    }

    /// Waits until so many more characters, or a mark, may be said.
    pub async fn room(self: &Arc<Feed>, record: &Mutex<Record>, many: usize) {
        loop {
            if locked(record).scrollback.may_write(many) {
                return;
            }
            self.ring(true);
            if tokio::time::timeout(PATIENCE, self.written.notified()).await.is_err() {
                let why = io::Error::other("the disk does not answer");
                self.failed(&mut locked(record), &why);
            }
        }
    }

    /// Waits until its last words are written, and lets go of its files.
    pub async fn end(self: &Arc<Feed>, record: &Mutex<Record>) {
        let waits = async {
            loop {
                let all = {
                    let scrollback = &locked(record).scrollback;
                    let end = scrollback.end();
                    scrollback.tap.as_ref().is_none_or(|tap| !tap.works() || tap.logged == end)
                };
                if all {
                    return;
                }
                self.ring(true);
                self.written.notified().await;
            }
        };
        let _it_is_written_or_was_waited_for = tokio::time::timeout(FAREWELL, waits).await;
        locked(record).scrollback.tap = None;
        self.shared.is_well(&self.name);
        let feed = self.clone();
        let closing = tokio::task::spawn_blocking(move || feed.close());
        let _a_disk_that_says_nothing = tokio::time::timeout(FAREWELL, closing).await;
    }

    fn close(&self) {
        if let Some(files) = self.files().take()
            && files.is_open()
        {
            self.shared.open.fetch_sub(1, Ordering::Relaxed);
        }
    }

    fn files(&self) -> MutexGuard<'_, Option<Files>> {
        self.files.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Writes what was said. False: it is to be tried again.
    fn write(&self, batch: &mut Batch) -> bool {
        let Some(record) = self.record.upgrade() else {
            self.close();
            return true;
        };
        let mut slot = self.files();
        let now = Instant::now();
        if locked(&record).scrollback.tap.is_none() {
            return true;
        }
        if slot.is_none() && !self.reopen(&mut slot, &record) {
            return false;
        }
        let Some(files) = slot.as_mut() else { return true };
        let was_open = files.is_open();
        if files.is_gone(now) {
            self.begin_anew(&mut locked(&record));
        }
        {
            let scrollback = &locked(&record).scrollback;
            let Some(tap) = &scrollback.tap else { return true };
            scrollback.batch(tap.logged, batch);
        }
        let bound = self.shared.bound.load(Ordering::Relaxed);
        let written = files.set_bound(bound).and_then(|()| files.write(batch, now));
        self.shared.mind(files, was_open);
        {
            let mut record = locked(&record);
            let end = files.end();
            let Some(tap) = &mut record.scrollback.tap else { return true };
            if end.text >= batch.begin.text && end.marks >= batch.begin.marks {
                let gone = &mut tap.gone;
                gone.text += batch.begin.text.saturating_sub(tap.logged.text);
                gone.marks += batch.begin.marks.saturating_sub(tap.logged.marks);
                tap.logged = end;
            }
            match &written {
                Ok(()) => self.succeeded(&mut record),
                Err(why) => {
                    if files.is_empty() {
                        self.begin_anew(&mut record);
                    }
                    self.failed(&mut record, why);
                }
            }
        }
        drop(slot);
        self.written.notify_one();
        written.is_ok()
    }

    /// Its log could not be opened when it began. What the machine said since is counted from the log's end.
    fn reopen(&self, slot: &mut Option<Files>, record: &Arc<Mutex<Record>>) -> bool {
        let Ok(dir) = super::directory(&self.shared.root, &self.name) else { return false };
        match Files::open(dir, self.shared.bound.load(Ordering::Relaxed)) {
            Ok(files) => {
                let mut record = locked(record);
                record.scrollback.shift(files.end());
                if let Some(tap) = &mut record.scrollback.tap {
                    tap.logged = files.end();
                }
                *slot = Some(files);
                true
            }
            Err(why) => {
                self.failed(&mut locked(record), &why);
                false
            }
        }
    }

    /// Somebody took the files away. All that is still known is written again.
    fn begin_anew(&self, record: &mut Record) {
        let begin = record.scrollback.begin();
        if let Some(tap) = &mut record.scrollback.tap {
            tap.logged = begin;
        }
        if record.scrollback.tap.as_ref().is_some_and(Tap::works) {
            let why = io::Error::other("its files were taken away; they are begun anew");
            self.failed(record, &why);
        }
    }

    fn succeeded(&self, record: &mut Record) {
        let Some(tap) = &mut record.scrollback.tap else { return };
        let gone = std::mem::take(&mut tap.gone);
        tap.lost += gone.text;
        let failed = tap.failing.take();
        if failed.is_none() && gone == Cursor::default() {
            return;
        }
        let Cursor { text: characters, marks } = gone;
        record.scrollback.mark(clock(), Mark::LoggedAgain { characters, marks });
        self.shared.is_well(&self.name);
        self.shared.health.send_if_modified(|health| {
            health.lost += characters;
            characters > 0
        });
    }

    fn failed(&self, record: &mut Record, why: &io::Error) {
        let Some(tap) = &mut record.scrollback.tap else { return };
        let why = why.to_string();
        if tap.failing.as_ref().is_some_and(|(_, known)| *known == why) {
            return;
        }
        let since = tap.failing.as_ref().map_or_else(clock, |(since, _)| *since);
        tap.failing = Some((since, why.clone()));
        record.scrollback.mark(clock(), Mark::NotLogged { why: why.clone() });
        self.shared.health.send_modify(|health| {
            health.failing.insert(self.name.clone(), why);
        });
    }
}

impl Shared {
    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_well(&self, name: &str) {
        self.health.send_if_modified(|health| health.failing.remove(name).is_some());
    }

    /// Keeps count of open files, and closes these where there are too many.
    fn mind(&self, files: &mut Files, was_open: bool) {
        if files.is_open() && !was_open {
            match self.open.load(Ordering::Relaxed) < self.most_open {
                true => drop(self.open.fetch_add(1, Ordering::Relaxed)),
                false => files.close(),
            }
        } else if was_open && !files.is_open() {
            self.open.fetch_sub(1, Ordering::Relaxed);
        }
    }

    fn run(&self) {
        let mut batch = Batch::default();
        let mut again: Vec<Arc<Feed>> = Vec::new();
        let mut tried = Instant::now();
        let mut since = Instant::now();
        loop {
            let (mut now, mut soon, end) = (Vec::new(), Vec::new(), {
                let retry = (!again.is_empty()).then(|| tried + AGAIN);
                self.wait(&mut since, retry)
            });
            {
                let mut waiting = self.waiting();
                now.append(&mut waiting.now);
                if end || since.elapsed() >= FLUSH {
                    soon.append(&mut waiting.soon);
                    since = Instant::now();
                }
            }
            now.iter().for_each(|feed| feed.now.store(false, Ordering::Release));
            soon.iter().for_each(|feed| feed.soon.store(false, Ordering::Release));
            let mut due = Vec::new();
            if tried.elapsed() >= AGAIN || end {
                tried = Instant::now();
                due.append(&mut again);
                due.iter().for_each(|feed| feed.later.store(false, Ordering::Release));
            }
            for feed in now.into_iter().chain(soon).chain(due) {
                if !feed.later.load(Ordering::Acquire) && !feed.write(&mut batch) {
                    feed.later.store(true, Ordering::Release);
                    again.push(feed);
                }
            }
            if end {
                return;
            }
        }
    }

    /// Until something is to be written. True: this is the end.
    fn wait(&self, since: &mut Instant, retry: Option<Instant>) -> bool {
        let mut waiting = self.waiting();
        loop {
            if waiting.end || !waiting.now.is_empty() {
                return waiting.end;
            }
            let flush = (!waiting.soon.is_empty()).then(|| *since + FLUSH);
            let Some(due) = flush.into_iter().chain(retry).min() else {
                let woken = self.bell.wait(waiting);
                waiting = woken.unwrap_or_else(PoisonError::into_inner);
                *since = Instant::now();
                continue;
            };
            let left = due.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return false;
            }
            let woken = self.bell.wait_timeout(waiting, left);
            waiting = woken.unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}
