//! Threads that transfers live on, and nothing else.
//!
//! A client that takes one block at a time is as fast as a block is answered. On a runtime of many threads each
//! datagram that wakes one has it wake the next, in case there is more to do; and a plan for ten thousand machines
//! that is being made is time in which a ROM hears nothing.

use std::io;
use std::num::NonZero;
use std::thread::available_parallelism;

use tokio::runtime::{Builder, Handle};
use tokio::sync::oneshot;

/// More would be faster than any network that ROMs are on.
const MOST: usize = 4;

/// They end when this is dropped.
pub(super) struct Threads {
    pub(super) handles: Vec<Handle>,
    _ends: Vec<oneshot::Sender<()>>,
}

impl Threads {
    /// Half as many as there are processors: the others are for HTTP, which moves most of the bytes.
    pub(super) fn start() -> io::Result<Threads> {
        let processors = available_parallelism().map_or(1, NonZero::get);
        let threads = (0..(processors / 2).clamp(1, MOST)).map(|_| thread());
        let (handles, _ends) = threads.collect::<io::Result<_>>()?;
        Ok(Threads { handles, _ends })
    }
}

fn thread() -> io::Result<(Handle, oneshot::Sender<()>)> {
    let runtime = Builder::new_current_thread().enable_all().build()?;
    let handle = runtime.handle().clone();
    let (end, ends) = oneshot::channel();
    std::thread::Builder::new().name("tftp".to_string()).spawn(move || {
        let _it_is_dropped = runtime.block_on(ends);
        runtime.shutdown_background();
    })?;
    Ok((handle, end))
}
