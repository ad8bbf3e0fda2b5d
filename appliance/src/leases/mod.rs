//! Leases, as they survive: each is in the journal before its ACK leaves, so that a koboshi that dies at any moment
//! has lent nothing that its successor does not know. On the disk they are a moment later, in groups; those that
//! must not be lost with the host's power wait for that ([`koboshi_pxe::dhcp::Kept`] has why so few do).
//!
//! Two threads: one writes, and never waits for the disk but to write the file anew, when nobody waits for it; the other waits
//! for the disk.

mod file;
mod host;

use std::fs::File;
use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, mpsc as queue};
use std::thread;
use std::time::{Duration, Instant};

use koboshi_pxe::dhcp::{JournalWrite, Kept, Now};
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;

use file::Book;
use host::Host;

use crate::unwritten::Unwritten;

/// Changes that share one write.
const BATCH: usize = 1024;
/// How long what nobody waits for stays away from the disk.
const PAUSE: Duration = Duration::from_millis(200);
/// When nobody has asked for so long, there is time to write the file anew.
const QUIET: Duration = Duration::from_millis(250);

/// A journal that is being kept.
#[derive(Debug)]
pub struct Leases {
    /// Where changes go.
    pub journal: mpsc::Sender<JournalWrite>,
    /// What it begins with is on the disk. If not, there was no room for it yet.
    pub begun: bool,
    /// Told when all of them are on the disk, once nobody sends any more.
    pub ended: oneshot::Receiver<()>,
}

/// Opens the journal of a state directory and starts to keep it; what it holds is for the server. `former` is what an older
/// koboshi kept elsewhere, asked where there is no journal yet.
pub fn open(
    dir: &Path,
    unwritten: Arc<Unwritten>,
    former: impl FnOnce() -> Kept,
) -> io::Result<(Leases, Kept)> {
    let host = Host::of(dir)?;
    let (book, kept) = Book::open(dir, &host.name(), Now::read().wall, former)?;
    let begun = book.begun();
    let (journal, writes) = mpsc::channel(4096);
    let (end, ended) = oneshot::channel();
    let file = Mutex::new(Some(book.file()));
    let shared = Arc::new(Shared { host, file, ..Shared::default() });
    let (waiters, waiting) = queue::channel();
    let between = shared.clone();
    let disk = thread::Builder::new()
        .name("leases-disk".to_string())
        .spawn(move || bring_to_disk(&waiting, &between))?;
    thread::Builder::new().name("leases".to_string()).spawn(move || {
        let book = write_all(book, writes, waiters, &shared, &unwritten);
        if disk.join().is_err() {
            shared.failed.store(true, Ordering::Release);
        }
        finish(book, &shared);
        // Nobody waits where the whole process goes.
        end.send(()).unwrap_or_default();
    })?;
    Ok((Leases { journal, begun, ended }, kept))
}

type Waiters = Vec<oneshot::Sender<bool>>;

/// Between the two threads.
#[derive(Debug, Default)]
struct Shared {
    host: Host,
    file: Mutex<Option<Arc<File>>>,
    /// Something is written that nobody has been told to bring to the disk.
    behind: AtomicBool,
    /// The disk did not take it.
    failed: AtomicBool,
}

impl Shared {
    fn writes_to(&self, book: &Book) {
        *self.file.lock().unwrap_or_else(PoisonError::into_inner) = Some(book.file());
    }
}

fn write_all(
    mut book: Book,
    mut writes: mpsc::Receiver<JournalWrite>,
    waiters: queue::Sender<Waiters>,
    shared: &Shared,
    unwritten: &Unwritten,
) -> Book {
    let mut batch = Vec::new();
    let clock = tokio::runtime::Builder::new_current_thread().enable_time().build();
    loop {
        let more = match &clock {
            Ok(clock) if book.grown() => {
                clock.block_on(async { timeout(QUIET, writes.recv_many(&mut batch, BATCH)).await })
            }
            _ => Ok(writes.blocking_recv_many(&mut batch, BATCH)),
        };
        match more {
            Ok(0) => break,
            Ok(_) => {}
            Err(_quiet) => {
                // Of what cannot be written the next change tells.
                if book.shorten().is_ok() {
                    shared.writes_to(&book);
                }
                continue;
            }
        }
        if shared.failed.swap(false, Ordering::AcqRel) {
            book.spoil(shared.host.name());
        }
        let written = book.append(batch.iter().map(|write| &write.change));
        // Nobody is kept waiting until there is room: a machine asks again.
        match &written {
            Ok(()) => unwritten.wrote(book.path()),
            Err(error) => {
                unwritten.failed(book.path(), error);
            }
        }
        let failing = written.is_err();
        // Who waits for the disk waits for the file that has what it was promised: that is the former one, where a new one
        // may not have its name for good.
        if !failing {
            shared.writes_to(&book);
        }
        let mut waiting = Vec::new();
        for write in batch.drain(..) {
            match write.durable && !failing {
                true => waiting.push(write.done),
                // Nobody waits any more once DHCP has stopped.
                false => write.done.send(!failing).unwrap_or_default(),
            }
        }
        let told = shared.behind.swap(true, Ordering::AcqRel);
        if !told || !waiting.is_empty() {
            // Its end is that of this thread.
            drop(waiters.send(waiting));
        }
    }
    book
}

/// Once nothing is on its way to the disk any more: it tells of a failure only once, and it has told the other thread.
fn finish(mut book: Book, shared: &Shared) {
    if shared.failed.load(Ordering::Acquire) {
        book.spoil(shared.host.name());
    }
    if let Err(error) = book.finish() {
        tracing::error!(%error, "the journal of leases was not ended");
    }
}

fn bring_to_disk(waiting: &queue::Receiver<Waiters>, shared: &Shared) {
    while let Ok(mut waiters) = waiting.recv() {
        let until = Instant::now() + PAUSE;
        while waiters.is_empty() {
            let left = until.saturating_duration_since(Instant::now());
            match waiting.recv_timeout(left) {
                Ok(more) => waiters.extend(more),
                Err(_) => break,
            }
        }
        waiters.extend(waiting.try_iter().flatten());
        // What is written from here on is another round's.
        shared.behind.store(false, Ordering::Release);
        let file = shared.file.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let synced = file.map_or(Ok(()), |file| file.sync_data());
        if let Err(error) = &synced {
            shared.host.fails();
            shared.failed.store(true, Ordering::Release);
            tracing::error!(%error, "leases did not reach the disk");
        }
        for waiter in waiters {
            waiter.send(synced.is_ok()).unwrap_or_default();
        }
    }
}

#[cfg(test)]
mod tests;
