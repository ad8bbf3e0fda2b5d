//! What of this root is other than its image, for whoever asks at the machine's console or by SSH: a copy of this
//! program stays in the running system and answers ([`speak`]). Nothing is said unasked, and nothing is changed.
//!
//! PID 1 leaves two times: when the image's root was whole, and when we were done with it. The kernel alone sets
//! an inode's ctime, so it tells who touched what: the image, we, or somebody since.

mod speak;
mod walk;

use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};
use serde::{Deserialize, Serialize};

use crate::contract::{Orders, Source};
use crate::wire::Manner;
use walk::Times;

pub use crate::wire::WORD;

const STATE: &str = "/run/koboshi/root.json";
/// When the system said that it is up.
const UP: &str = "/run/koboshi/up";
/// The kernel's coarse clock, by which inodes are stamped, ticks every 10 ms where it is slowest (HZ=100).
const TICK: Duration = Duration::from_millis(12);
/// Two clocks are read one after the other.
const APART: i64 = 1_000_000;

/// What PID 1 leaves.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Left {
    image: String,
    key: String,
    root: Manner,
    boot: String,
    /// When the image's root was whole, in nanoseconds since 1970.
    made: i64,
    /// When we were done with it.
    settled: i64,
    /// The clock's distance from the time since the kernel started.
    offset: i64,
}

/// When nothing but the image has touched the root.
#[derive(Debug, Clone, Copy)]
pub struct Whole(i64);

/// Takes that time.
pub fn whole() -> Whole {
    Whole(now(ClockId::RealtimeCoarse))
}

/// Leaves what is needed to tell later what has changed.
pub fn leave(orders: &Orders, boot: Option<&str>, whole: Whole) -> io::Result<()> {
    // What we wrote last is not to look as if it was written since.
    std::thread::sleep(TICK);
    let left = Left {
        image: orders.root.image.clone(),
        key: orders.root.key(),
        root: match orders.root.from {
            Source::Archive { .. } => Manner::Ram,
            Source::Squashfs { .. } => Manner::Overlay,
            Source::Nfs { .. } => Manner::Nfs,
        },
        boot: boot.unwrap_or_default().to_owned(),
        made: whole.0,
        settled: now(ClockId::RealtimeCoarse),
        offset: offset(),
    };
    let folder = Path::new(STATE).parent().unwrap_or(Path::new("/run"));
    fs::create_dir_all(folder)?;
    fs::write(STATE, serde_json::to_vec(&left)?)?;
    fs::set_permissions(STATE, fs::Permissions::from_mode(0o600))
}

/// The system is up: what is written from now on is no part of its start.
pub fn is_up() -> io::Result<()> {
    fs::write(UP, now(ClockId::RealtimeCoarse).to_string())
}

/// Answers, until nobody asks any more.
pub fn run(args: impl Iterator<Item = String>) -> ExitCode {
    let size = args.skip(2).find_map(|word| word.parse().ok()).unwrap_or(180);
    match speak::speak(size) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("koboshi-init changes: {error}");
            ExitCode::FAILURE
        }
    }
}

impl Left {
    fn read() -> io::Result<Left> {
        Ok(serde_json::from_slice(&fs::read(STATE)?)?)
    }

    /// A system that has not said so is not up, and what is written is as if it were.
    fn up() -> Option<i64> {
        fs::read_to_string(UP).ok()?.trim().parse().ok()
    }

    /// The times on the clock as it goes now. One that was set back since would make later changes look
    /// earlier than they are; then rather too much is looked at.
    fn times(&self, up: Option<i64>) -> Times {
        let back = self.offset.saturating_sub(offset());
        let back = if back > APART { back } else { 0 };
        Times {
            made: self.made.saturating_sub(back),
            settled: self.settled.saturating_sub(back),
            up: up.unwrap_or(self.settled).max(self.settled).saturating_sub(back),
        }
    }
}

fn offset() -> i64 {
    now(ClockId::Realtime) - now(ClockId::Boottime)
}

fn now(clock: ClockId) -> i64 {
    let time = clock_gettime(clock);
    nanoseconds(time.tv_sec, time.tv_nsec)
}

fn nanoseconds(seconds: i64, rest: i64) -> i64 {
    seconds.saturating_mul(1_000_000_000).saturating_add(rest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_that_was_set_back_makes_us_look_at_more() {
        let left = Left {
            image: "web@3".into(),
            key: "sha256:00".into(),
            root: Manner::Ram,
            boot: String::new(),
            made: 1_000_000_000_000,
            settled: 1_005_000_000_000,
            offset: offset(),
        };
        let all = |times: Times| (times.made, times.settled, times.up);
        assert_eq!(all(left.times(None)), (left.made, left.settled, left.settled));
        let up = left.settled + 7_000_000_000;
        assert_eq!(all(left.times(Some(up))), (left.made, left.settled, up));
        let back = Left { offset: left.offset + 90_000_000_000, ..left.clone() };
        let (made, settled, later) = all(back.times(Some(up)));
        assert!(made <= left.made - 89_000_000_000 && settled - made == 5_000_000_000);
        assert_eq!(later - settled, 7_000_000_000);
        let ahead = Left { offset: left.offset - 90_000_000_000, ..left.clone() };
        assert_eq!(all(ahead.times(Some(up))), (left.made, left.settled, up));
    }
}
