//! The thread that lines live on: one for all of them.
//!
//! One that reads what came and hands it on wakes no other thread, which costs more than to read. It does not wake
//! for every few characters either: after it has seen to its lines it rests, and then sees to all that came
//! meanwhile at once. While somebody types it does not rest.

use std::cell::Cell;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tokio::runtime::{Builder, Handle};
use tokio::sync::oneshot;

use crate::state::clock;

/// From one look at the lines to the next, while nobody types: 230 characters at 115,200 baud, which any port holds.
const REST: Duration = Duration::from_millis(20);
/// Somebody who typed so long ago, milliseconds, is still at it.
const TYPES: u64 = 10_000;

/// When something was typed last, into whichever line; Unix milliseconds.
static TYPED: AtomicU64 = AtomicU64::new(0);

thread_local! {
    static WOKE: Cell<Option<Instant>> = const { Cell::new(None) };
}

/// It ends when this is dropped.
#[derive(Debug)]
pub struct Thread {
    handle: Handle,
    _end: oneshot::Sender<()>,
}

impl Thread {
    /// Begins it.
    ///
    /// # Errors
    /// There is no thread to be had.
    pub fn start() -> io::Result<Thread> {
        let runtime = Builder::new_current_thread()
            .enable_all()
            .on_thread_park(rest)
            .on_thread_unpark(|| WOKE.set(Some(Instant::now())))
            .build()?;
        let handle = runtime.handle().clone();
        let (end, ends) = oneshot::channel::<()>();
        std::thread::Builder::new().name("consoles".to_string()).spawn(move || {
            let _it_is_dropped = runtime.block_on(ends);
            runtime.shutdown_background();
        })?;
        Ok(Thread { handle, _end: end })
    }

    /// Where lines are to be begun.
    pub fn handle(&self) -> &Handle {
        &self.handle
    }
}

/// Somebody types.
pub(crate) fn typed() {
    TYPED.store(clock(), Ordering::Relaxed);
}

fn rest() {
    let rests = clock().abs_diff(TYPED.load(Ordering::Relaxed)) > TYPES;
    let left = WOKE.get().map_or(Duration::ZERO, |woke| REST.saturating_sub(woke.elapsed()));
    if rests && !left.is_zero() {
        std::thread::sleep(left);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_works_and_ends() {
        let thread = Thread::start().unwrap();
        let runtime = Builder::new_current_thread().build().unwrap();
        let twice = thread.handle().spawn(async {
            tokio::time::sleep(Duration::from_millis(20)).await;
            std::thread::current().name().map(str::to_string)
        });
        assert_eq!(runtime.block_on(twice).unwrap().as_deref(), Some("consoles"));
        let never = thread.handle().spawn(std::future::pending::<()>());
        drop(thread);
        assert!(runtime.block_on(never).unwrap_err().is_cancelled());
    }
}
