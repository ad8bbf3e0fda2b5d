//! The root's bytes: fetched, taken as they come, and believed only when their digest is right. Until
//! then they lie in memory of their own that can be thrown away.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::AsFd;
use std::path::Path;
use std::time::{Duration, Instant};

use crate::backoff;
use crate::contract::{Blob, FILES_MAX};
use crate::http::{Patience, Server};
use crate::root::fetch::{End, Event, Listener, Stream};
use crate::root::progress::Course;
use crate::root::unpack::{Limits, Onto, Unpacked, unpack};
use crate::settle::intree::Tree;

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

/// Fetches the layers of a root, the lowest first, until all are right. `fresh` gives an empty directory at
/// `dir` each time it is called. `tmpfs` is how much that directory may hold.
#[allow(clippy::too_many_arguments, reason = "each is another part of the boot")]
pub fn fetch(
    server: Server,
    layers: &[Blob],
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
    let mut take = |target: &File, stream: &mut Stream<'_>, layer: usize, made: &mut Unpacked| {
        let archive = decode(stream).map_err(|error| error.to_string())?;
        let onto = if layer == 0 { Onto::Nothing } else { Onto::Layers };
        unpack(archive, target.as_fd(), onto, limits, made).map_err(|error| error.to_string())
    };
    let course = &mut Course::new(layers);
    until_right(server, layers, image, &mut empty, &mut take, course, patience, listener)
}

/// Fetches the files of role and seat and lays them over the finished root at `dir`. An archive is held in
/// memory until it is known to be right: there is no root to begin anew with.
pub fn lay(
    server: Server,
    files: &[Blob],
    dir: &Path,
    patience: Patience,
    listener: Listener<'_>,
) -> Result<Unpacked, NoRoot> {
    let unusable = |error: io::Error| NoRoot::Unusable(format!("no way into the root: {error}"));
    let limits =
        Limits { bytes: FILES_MAX, members: FILES_MAX / 512, archive: FILES_MAX.saturating_mul(2) };
    let root = Tree(dir.to_owned());
    let mut done = Unpacked::default();
    let mut course = Course::new(files);
    for blob in files {
        let mut place = || File::open(dir).map_err(|error| error.to_string());
        let mut take = |_: &File, stream: &mut Stream<'_>, _: usize, held: &mut Vec<u8>| {
            let read = stream.take(FILES_MAX.saturating_mul(2)).read_to_end(held);
            read.map(drop).map_err(|error| error.to_string())
        };
        let (name, blobs) = ("files", std::slice::from_ref(blob));
        let ready = until_right(
            server,
            blobs,
            name,
            &mut place,
            &mut take,
            &mut course,
            patience,
            &mut *listener,
        )?;
        let target = File::open(dir).map_err(unusable)?;
        let archive = decode(ready.made.as_slice()).map_err(unusable)?;
        let onto = Onto::Root(&root);
        unpack(archive, target.as_fd(), onto, limits, &mut done)
            .map_err(|error| NoRoot::Unusable(format!("files of the site file: {error}")))?;
    }
    Ok(done)
}

/// Takes the bytes of the blob with this number.
pub type Take<'a, T> =
    &'a mut dyn FnMut(&File, &mut Stream<'_>, usize, &mut T) -> Result<(), String>;

/// Fetches blobs into `place`, one after the other, until all are right. One that was altered on its way has
/// left its traces there: `place` is asked for anew, and all of them are fetched again. `take` adds to what is
/// made what the bytes of the blob with this number are.
#[allow(clippy::too_many_arguments, reason = "each is another part of the boot")]
pub fn until_right<T: Default>(
    server: Server,
    blobs: &[Blob],
    image: &str,
    place: &mut dyn FnMut() -> Result<File, String>,
    take: Take<'_, T>,
    course: &mut Course,
    patience: Patience,
    listener: Listener<'_>,
) -> Result<Ready<T>, NoRoot> {
    let before = course.before();
    let mut altered = 0;
    for failures in 1.. {
        let target = place().map_err(NoRoot::Unusable)?;
        course.stands_at(before);
        let begun = Instant::now();
        let mut made = T::default();
        let mut failed = None;
        for (at, blob) in blobs.iter().enumerate() {
            let what = match blobs.len() {
                1 => image.to_owned(),
                many => format!("layer {} of {many} of {image}", at + 1),
            };
            let mut stream = Stream::new(server, blob, patience, course, &mut *listener);
            let outcome = take(&target, &mut stream, at, &mut made);
            let right = stream.digest_is_right();
            let end = stream.end().cloned();
            drop(stream);
            failed = match (outcome, right, end) {
                (_, _, Some(End::Stopped)) => return Err(NoRoot::Stopped),
                (_, _, Some(End::StartOver(why))) => Some(why),
                (Ok(()), true, None) => None,
                (Err(why), true, None) => {
                    return Err(NoRoot::Unusable(format!("{what} arrived as ordered, but {why}")));
                }
                (_, false, None) => {
                    altered += 1;
                    let often = match altered {
                        1 | 2 => String::new(),
                        _ => format!(" ({altered} times now: look at the appliance's store)"),
                    };
                    Some(format!(
                        "the bytes of {what} were altered on their way, their sha256 is wrong{often}"
                    ))
                }
            };
            if failed.is_some() {
                break;
            }
            course.stands_at(course.before().saturating_add(blob.size));
        }
        let Some(mut why) = failed else {
            return Ok(Ready { took: begun.elapsed(), attempts: course.attempt(), made });
        };
        if blobs.len() > 1 {
            why.push_str("; the root is begun anew, with its first layer");
        }
        let wait = backoff::pause(failures, backoff::random());
        let attempt = course.attempt();
        course.failed();
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
#[path = "archive/tests.rs"]
mod tests;
