//! The file of the state, which waits for room: a write that a full or a read-only disk refuses is tried again until
//! it goes. redb never sees it (it takes no more writes after a failed one), what waits in the queue stays there, and
//! whoever reads goes on reading. What a disk may have lost (a failed fsync, an I/O error) is handed on, and is the end.

use std::fs::{File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use redb::StorageBackend;

use crate::unwritten::{Unwritten, passes};

/// How often it is tried again.
const AGAIN: Duration = Duration::from_millis(250);

/// See the module.
#[derive(Debug)]
pub(super) struct Disk {
    file: File,
    path: PathBuf,
    unwritten: Arc<Unwritten>,
    /// Not while it is opened: whoever starts koboshi is told, and does not wait.
    waits: Arc<AtomicBool>,
}

impl Disk {
    /// Opens or makes the file.
    pub fn open(
        path: &Path,
        unwritten: Arc<Unwritten>,
        waits: Arc<AtomicBool>,
    ) -> Result<Disk, redb::DatabaseError> {
        let mut open = OpenOptions::new();
        let file = open.read(true).write(true).create(true).truncate(false).open(path);
        let file = file.map_err(redb::StorageError::Io)?;
        // One lock for the whole file: nobody reads it beside us.
        match file.try_lock() {
            Ok(()) => Ok(Disk { file, path: path.to_path_buf(), unwritten, waits }),
            Err(TryLockError::WouldBlock) => Err(redb::DatabaseError::DatabaseAlreadyOpen),
            Err(TryLockError::Error(error)) => Err(redb::StorageError::Io(error).into()),
        }
    }

    fn until_done(&self, write: impl Fn() -> io::Result<()>) -> io::Result<()> {
        let mut failed = false;
        loop {
            match write() {
                Err(error) if passes(&error) && self.waits.load(Ordering::Relaxed) => {
                    failed = true;
                    self.unwritten.failed(&self.path, &error);
                    std::thread::sleep(AGAIN);
                }
                done => {
                    if failed && done.is_ok() {
                        self.unwritten.wrote(&self.path);
                    }
                    return done;
                }
            }
        }
    }
}

impl StorageBackend for Disk {
    fn len(&self) -> io::Result<u64> {
        Ok(self.file.metadata()?.len())
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.file.read_exact_at(out, offset)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.until_done(|| self.file.set_len(len))
    }

    fn sync_data(&self) -> io::Result<()> {
        self.file.sync_data()
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.until_done(|| self.file.write_all_at(data, offset))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_opened_once() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("koboshi.redb");
        let open = || Disk::open(&path, Arc::default(), Arc::default());
        let first = open().unwrap();
        assert!(matches!(open(), Err(redb::DatabaseError::DatabaseAlreadyOpen)));
        drop(first);
        open().unwrap();
    }

    /// /dev/full refuses every write for want of room.
    #[test]
    fn it_waits_for_room_and_not_while_it_is_opened_or_the_process_ends() {
        let waits = Arc::new(AtomicBool::new(false));
        let unwritten = Arc::<Unwritten>::default();
        let disk = Disk {
            file: OpenOptions::new().write(true).open("/dev/full").unwrap(),
            path: "/dev/full".into(),
            unwritten: unwritten.clone(),
            waits: waits.clone(),
        };
        assert!(passes(&disk.write(0, b"x").unwrap_err()));
        assert!(unwritten.list().is_empty());
        waits.store(true, Ordering::Relaxed);
        let writer = std::thread::spawn(move || disk.write(0, b"x"));
        while unwritten.list().is_empty() {
            std::thread::sleep(Duration::from_millis(5));
        }
        assert!(!writer.is_finished());
        waits.store(false, Ordering::Relaxed);
        assert!(writer.join().unwrap().is_err());
    }
}
