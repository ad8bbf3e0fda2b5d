//! The root: fetched, unpacked as it comes, and believed only when its digest is right. Until then
//! it lies in a tmpfs of its own that can be thrown away.

use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::path::Path;
use std::time::{Duration, Instant};

use crate::backoff;
use crate::contract::Root;
use crate::fetch::{End, Event, Listener, Stream};
use crate::http::{Patience, Server};
use crate::unpack::{Limits, Unpacked, unpack};

/// No image of ours has more members; each costs an inode even when it is empty.
const MEMBERS_MAX: u64 = 8_000_000;
/// The largest window that `zstd --ultra -22` makes without `--long`: 128 MiB.
const WINDOW_LOG_MAX: u32 = 27;

/// A root that may be booted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ready {
    /// From the request to the last file, in the try that did it.
    pub took: Duration,
    /// Requests it took.
    pub attempts: u32,
    /// How fast it came.
    pub rate: String,
    /// What was unpacked.
    pub unpacked: Unpacked,
}

/// Why there is no root.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NoRoot {
    /// The listener had enough.
    Stopped,
    /// The bytes are the ordered ones and still no root can be made of them: no retry helps.
    Unusable(String),
}

/// Fetches until it is right. `fresh` gives an empty directory at `dir` each time it is called.
/// `tmpfs` is how much that directory may hold.
pub fn fetch(
    server: Server,
    root: &Root,
    tmpfs: u64,
    dir: &Path,
    fresh: &mut dyn FnMut() -> io::Result<()>,
    patience: Patience,
    listener: Listener<'_>,
) -> Result<Ready, NoRoot> {
    let limits = Limits {
        bytes: tmpfs,
        members: MEMBERS_MAX,
        // A file of one byte is two blocks of archive; a page is the least it takes in the tmpfs.
        archive: tmpfs.saturating_mul(2).saturating_add(64 << 20),
    };
    let mut attempt = 0;
    let mut altered = 0;
    for failures in 1.. {
        fresh().map_err(|error| NoRoot::Unusable(format!("no tmpfs for the root: {error}")))?;
        let target = File::open(dir)
            .map_err(|error| NoRoot::Unusable(format!("no tmpfs for the root: {error}")))?;
        let begun = Instant::now();
        let mut stream = Stream::new(server, root, patience, attempt, &mut *listener);
        let outcome = decode(&mut stream).map_err(|error| error.to_string()).and_then(|archive| {
            unpack(archive, target.as_fd(), limits).map_err(|error| error.to_string())
        });
        let right = stream.digest_is_right();
        attempt = stream.attempt();
        let (end, rate) = (stream.end().cloned(), stream.rate());
        drop((stream, target));
        let why = match (outcome, right, end) {
            (_, _, Some(End::Stopped)) => return Err(NoRoot::Stopped),
            (_, _, Some(End::StartOver(why))) => why,
            (Ok(unpacked), true, None) => {
                return Ok(Ready { took: begun.elapsed(), attempts: attempt, rate, unpacked });
            }
            (Err(why), true, None) => {
                return Err(NoRoot::Unusable(format!(
                    "{} arrived as ordered, but {why}",
                    root.image
                )));
            }
            (_, false, None) => {
                altered += 1;
                let often = match altered {
                    1 | 2 => String::new(),
                    _ => format!(" ({altered} times now: look at the appliance's store)"),
                };
                let image = &root.image;
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
