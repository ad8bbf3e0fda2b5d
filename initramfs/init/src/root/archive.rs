//! The root's bytes: fetched, taken as they come, and believed only when their digest is right. Until
//! then they lie in memory of their own that can be thrown away.

use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::path::Path;
use std::time::{Duration, Instant};

use crate::backoff;
use crate::contract::Blob;
use crate::http::{Patience, Server};
use crate::root::fetch::{End, Event, Listener, Stream};
use crate::root::unpack::{Limits, Unpacked, unpack};

/// No image of ours has more members; each costs an inode even when it is empty.
const MEMBERS_MAX: u64 = 8_000_000;
/// The largest window that `zstd --ultra -22` makes without `--long`: 128 MiB.
const WINDOW_LOG_MAX: u32 = 27;

/// A root that may be booted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ready<T> {
    /// From the request to the last file, in the try that did it.
    pub took: Duration,
    /// Requests it took.
    pub attempts: u32,
    /// How fast it came.
    pub rate: String,
    /// What was made of it.
    pub made: T,
}

/// Why there is no root.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NoRoot {
    /// The listener had enough.
    Stopped,
    /// The bytes are the ordered ones and still no root can be made of them: no retry helps.
    Unusable(String),
}

/// Fetches an archive until it is right. `fresh` gives an empty directory at `dir` each time it is
/// called. `tmpfs` is how much that directory may hold.
#[allow(clippy::too_many_arguments, reason = "each is another part of the boot")]
pub fn fetch(
    server: Server,
    blob: &Blob,
    image: &str,
    tmpfs: u64,
    dir: &Path,
    fresh: &mut dyn FnMut() -> io::Result<()>,
    patience: Patience,
    listener: Listener<'_>,
) -> Result<Ready<Unpacked>, NoRoot> {
    let limits = Limits {
        bytes: tmpfs,
        members: MEMBERS_MAX,
        // A file of one byte is two blocks of archive; a page is the least it takes in the tmpfs.
        archive: tmpfs.saturating_mul(2).saturating_add(64 << 20),
    };
    let mut empty = || {
        let target = fresh().and_then(|()| File::open(dir));
        target.map_err(|error| format!("no tmpfs for the root: {error}"))
    };
    let mut take = |target: &File, stream: &mut Stream<'_>| {
        let archive = decode(stream).map_err(|error| error.to_string())?;
        unpack(archive, target.as_fd(), limits).map_err(|error| error.to_string())
    };
    until_right(server, blob, image, &mut empty, &mut take, patience, listener)
}

/// Fetches a blob into `place`, as often as it takes for it to be right. `place` is asked for anew
/// at each try; `take` makes of the bytes what is wanted of them.
pub fn until_right<T>(
    server: Server,
    blob: &Blob,
    image: &str,
    place: &mut dyn FnMut() -> Result<File, String>,
    take: &mut dyn FnMut(&File, &mut Stream<'_>) -> Result<T, String>,
    patience: Patience,
    listener: Listener<'_>,
) -> Result<Ready<T>, NoRoot> {
    let mut attempt = 0;
    let mut altered = 0;
    for failures in 1.. {
        let target = place().map_err(NoRoot::Unusable)?;
        let begun = Instant::now();
        let mut stream = Stream::new(server, blob, patience, attempt, &mut *listener);
        let outcome = take(&target, &mut stream);
        let right = stream.digest_is_right();
        attempt = stream.attempt();
        let (end, rate) = (stream.end().cloned(), stream.rate());
        drop((stream, target));
        let why = match (outcome, right, end) {
            (_, _, Some(End::Stopped)) => return Err(NoRoot::Stopped),
            (_, _, Some(End::StartOver(why))) => why,
            (Ok(made), true, None) => {
                return Ok(Ready { took: begun.elapsed(), attempts: attempt, rate, made });
            }
            (Err(why), true, None) => {
                return Err(NoRoot::Unusable(format!("{image} arrived as ordered, but {why}")));
            }
            (_, false, None) => {
                altered += 1;
                let often = match altered {
                    1 | 2 => String::new(),
                    _ => format!(" ({altered} times now: look at the appliance's store)"),
                };
                format!(
                    "the bytes of {image} were altered on their way, their sha256 is wrong{often}"
                )
            }
        };
        let wait = backoff::pause(failures, backoff::random());
        if !listener(Event::Failed { attempt, why, wait }) {
            return Err(NoRoot::Stopped);
        }
    }
    Err(NoRoot::Stopped)
}

fn decode<R: io::Read>(stream: R) -> io::Result<impl io::Read> {
    let mut decoder = zstd::Decoder::with_buffer(io::BufReader::with_capacity(256 * 1024, stream))?;
    decoder.window_log_max(WINDOW_LOG_MAX)?;
    Ok(decoder)
}

#[cfg(test)]
mod tests;
