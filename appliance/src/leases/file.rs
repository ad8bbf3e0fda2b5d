//! The file of leases, `leases.journal`: a line that says what it is, then entries as JSON, each behind its length
//! and its checksum. Entries are appended; when they have become many more than what they amount to, and at each start, the file is
//! written anew beside the old one and takes its place whole. In a storm all who wait for an address would wait for that
//! (`tests/bench/run.sh 3 dhcp`: at 6,000 a second the mean delay was twice what it is, and some gave up): so it is done once
//! nobody asks.
//!
//! An entry that is cut short or altered is skipped, up to the next one that is whole. At the end of the file that is
//! the rule after a `kill -9` and says nothing: its lease was not acknowledged. Elsewhere, lost blocks of a host that lost its
//! power or a bad disk: then what the others say is taken with care ([`Kept::apply_after_gap`]).

use std::fs::File;
use std::io::{self, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use koboshi_pxe::dhcp::{Kept, LeaseChange};
use serde::{Deserialize, Serialize};

use crate::unwritten::{help, passes};

const NAME: &str = "leases.journal";
const HEAD: &[u8] = b"koboshi leases 1\n";
/// No entry is longer.
const ENTRY: usize = 4096;
/// How much the file grows beyond twice what its entries amount to, before it is worth to be written anew: some 30,000 leases.
const GROWTH: u64 = 4 << 20;
/// And before somebody has to wait for that: four times as many.
const MOST: u64 = 16 << 20;
/// How soon it is tried again after it could not be written anew.
const AGAIN: Duration = Duration::from_secs(1);

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
enum Entry {
    /// A koboshi took it up, in this boot of the host.
    Began {
        boot: String,
    },
    /// And went in good order: all before is on the disk.
    Ended,
    Change(LeaseChange),
}

/// The file, open for more.
#[derive(Debug)]
pub struct Book {
    path: PathBuf,
    /// Whose memory has what is not on the disk yet.
    boot: String,
    file: Arc<File>,
    /// Where the next entry goes. What lies beyond was never written as far as anybody was told.
    end: u64,
    /// To be written anew beyond this, when there is time.
    limit: u64,
    /// And beyond this, time or not.
    most: u64,
    /// Something that was not to be there may be, and could not be taken away.
    spoiled: bool,
    /// What it will begin with: there was no room for it yet.
    unbegun: Option<Kept>,
    /// When it could not be written anew last, and why.
    refused: Option<(Instant, i32)>,
}

/// What a file was found to hold.
#[derive(Debug, Default, PartialEq)]
struct Found {
    kept: Kept,
    boot: String,
    ended: bool,
    /// Bytes that could not be read, before the last entry.
    gaps: usize,
    /// And after it.
    torn: usize,
}

impl Book {
    /// Opens the file of a state directory, or begins it with what an older koboshi kept elsewhere. `boot` names whose
    /// memory has what is not on the disk ([`super::host`]); `wall` is Unix time.
    pub fn open(
        dir: &Path,
        boot: &str,
        wall: u64,
        former: impl FnOnce() -> Kept,
    ) -> io::Result<(Book, Kept)> {
        let path = dir.join(NAME);
        let mut found = match std::fs::read(&path) {
            Ok(bytes) => read(&bytes)?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                Found { kept: former(), ended: true, ..Found::default() }
            }
            Err(error) => return Err(error),
        };
        if found.gaps > 0 {
            let aside = path.with_extension("journal.bad");
            let kept = std::fs::copy(&path, &aside);
            tracing::error!(
                bytes = found.gaps,
                aside = kept.is_ok().then(|| aside.display().to_string()),
                "parts of the journal of leases cannot be read: leases are forgotten, \
                 unless their machines ask for them"
            );
        }
        let power = found.boot != boot && !found.ended;
        if power || found.gaps > 0 {
            found.kept.lose_power(wall);
            let doubts = found.kept.doubts.len();
            tracing::warn!(
                doubts,
                "the host went down, or its disk gave up, with leases on their way to the disk: those in force are kept for once more their \
                 time, and in so many pools addresses that may be lent wait as long"
            );
        }
        found.kept.restart(wall);
        let mut book = Book {
            file: Arc::new(File::open(dir)?),
            path,
            boot: boot.to_string(),
            end: 0,
            limit: 0,
            most: 0,
            spoiled: false,
            unbegun: None,
            refused: None,
        };
        match book.replace(&found.kept) {
            Err(error) if passes(&error) => {
                tracing::error!(
                    "{} cannot be written ({error}): no address of a pool is lent until then; {}",
                    book.path.display(),
                    help(&book.path, &error)
                );
                (book.spoiled, book.unbegun) = (true, Some(found.kept.clone()));
            }
            begun => begun?,
        }
        Ok((book, found.kept))
    }

    /// Writes changes down, all of them or none: a process that dies leaves them to the next one.
    pub fn append<'a>(
        &mut self,
        changes: impl IntoIterator<Item = &'a LeaseChange>,
    ) -> io::Result<()> {
        if self.spoiled {
            self.rewrite()?;
        }
        let mut bytes = Vec::new();
        changes.into_iter().for_each(|change| put(&mut bytes, &Entry::Change(change.clone())));
        self.write(&bytes)?;
        if self.end > self.most { self.shorten() } else { Ok(()) }
    }

    /// It is worth to be written anew as soon as there is time for it.
    pub fn grown(&self) -> bool {
        self.end > self.limit
    }

    /// Writes it anew. Where that cannot be done it goes on as it is, unless it cannot either.
    pub fn shorten(&mut self) -> io::Result<()> {
        let Err(error) = self.rewrite() else { return Ok(()) };
        (self.limit, self.most) = (self.end + GROWTH, self.end + MOST);
        if self.spoiled {
            return Err(error);
        }
        tracing::warn!(%error, "the journal of leases grows: it could not be written anew");
        Ok(())
    }

    /// Nothing comes after this, and all of it is on the disk.
    pub fn finish(&mut self) -> io::Result<()> {
        if self.spoiled {
            self.rewrite()?;
        }
        let mut bytes = Vec::new();
        put(&mut bytes, &Entry::Ended);
        self.file.sync_data()?;
        self.write(&bytes)?;
        self.file.sync_data()
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What to bring to the disk. Another one once it has been written anew, which is there already.
    pub fn file(&self) -> Arc<File> {
        self.file.clone()
    }

    /// What it begins with is on the disk.
    pub fn begun(&self) -> bool {
        self.unbegun.is_none()
    }

    /// The disk failed to take what was written: the next change writes all of it anew first, as of the host that this
    /// has become.
    pub fn spoil(&mut self, boot: String) {
        (self.spoiled, self.boot) = (true, boot);
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        if let Err(error) = self.file.write_all_at(bytes, self.end) {
            // A part of it, of which nobody has been told, must not be there with what comes next.
            self.spoiled |= self.file.set_len(self.end).is_err();
            return Err(error);
        }
        self.end += bytes.len() as u64;
        Ok(())
    }

    /// What the entries amount to, in a new file. Where that fails it is not tried again for each change: all of it is
    /// read for that.
    fn rewrite(&mut self) -> io::Result<()> {
        if let Some((at, code)) = self.refused
            && at.elapsed() < AGAIN
        {
            return Err(io::Error::from_raw_os_error(code));
        }
        let written = self.rewrite_now();
        let code = written.as_ref().err().and_then(io::Error::raw_os_error);
        self.refused = code.map(|code| (Instant::now(), code));
        written
    }

    fn rewrite_now(&mut self) -> io::Result<()> {
        if let Some(kept) = self.unbegun.take() {
            return self.replace(&kept).inspect_err(|_| self.unbegun = Some(kept));
        }
        let mut bytes = std::fs::read(&self.path)?;
        bytes.truncate(usize::try_from(self.end).unwrap_or(usize::MAX));
        let found = read(&bytes)?;
        if found.gaps + found.torn > 0 {
            // Written by ourselves, and not so.
            let text = format!("{} reads back otherwise than it was written", self.path.display());
            return Err(io::Error::new(io::ErrorKind::InvalidData, text));
        }
        self.replace(&found.kept)
    }

    fn replace(&mut self, kept: &Kept) -> io::Result<()> {
        let beside = self.path.with_extension("journal.new");
        let mut bytes = HEAD.to_vec();
        put(&mut bytes, &Entry::Began { boot: self.boot.clone() });
        kept.changes().for_each(|change| put(&mut bytes, &Entry::Change(change)));
        let mut file = File::create(&beside)?;
        file.write_all(&bytes)?;
        file.sync_all()?;
        std::fs::rename(&beside, &self.path)?;
        let dir = self.path.parent().unwrap_or(Path::new("."));
        self.file = Arc::new(file);
        self.end = bytes.len() as u64;
        (self.limit, self.most) = (self.end * 2 + GROWTH, self.end * 2 + MOST);
        self.spoiled = false;
        // A name that is not on the disk is that of the former file, which has it all but what comes now.
        File::open(dir)?.sync_all().inspect_err(|_| self.spoiled = true)
    }
}

fn put(bytes: &mut Vec<u8>, entry: &Entry) {
    let text = serde_json::to_vec(entry).expect("our entries hold nothing that JSON cannot");
    bytes.extend((text.len() as u32).to_le_bytes());
    bytes.extend(crc32fast::hash(&text).to_le_bytes());
    bytes.extend(text);
}

/// The entry that these bytes begin with, and how long it is.
fn get(bytes: &[u8]) -> Option<(Entry, usize)> {
    let (length, rest) = bytes.split_first_chunk()?;
    let (sum, rest) = rest.split_first_chunk()?;
    let length = usize::try_from(u32::from_le_bytes(*length)).ok()?;
    if length > ENTRY {
        return None;
    }
    let text = rest.get(..length)?;
    if crc32fast::hash(text) != u32::from_le_bytes(*sum) {
        return None;
    }
    Some((serde_json::from_slice(text).ok()?, 8 + length))
}

fn read(bytes: &[u8]) -> io::Result<Found> {
    let Some(mut rest) = bytes.strip_prefix(HEAD) else {
        let text = "leases.journal is of a newer koboshi, or damaged: move it away to start without its leases";
        return Err(io::Error::new(io::ErrorKind::InvalidData, text));
    };
    let mut found = Found::default();
    while !rest.is_empty() {
        let Some((entry, length)) = get(rest) else {
            found.torn += 1;
            rest = &rest[1..];
            continue;
        };
        rest = &rest[length..];
        found.gaps += std::mem::take(&mut found.torn);
        found.ended = entry == Entry::Ended;
        match entry {
            Entry::Began { boot } => found.boot = boot,
            Entry::Ended => {}
            Entry::Change(change) if found.gaps > 0 => found.kept.apply_after_gap(change),
            Entry::Change(change) => found.kept.apply(change),
        }
    }
    Ok(found)
}

#[cfg(test)]
#[path = "file_tests.rs"]
pub(super) mod tests;
