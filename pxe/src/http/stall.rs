//! A client that stops taking what it asked for: a machine switched off in the middle of its root
//! image, a hung NIC. TCP alone would hold its buffers for a quarter of an hour. And when each connection last
//! moved a byte, either way: whoever holds many and uses none has to make room for others.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep, sleep};

use super::serve::Counters;

/// When a connection last moved a byte.
#[derive(Debug, Clone)]
pub(super) struct Moved {
    begun: Instant,
    /// Milliseconds after that.
    at: Arc<AtomicU64>,
}

impl Moved {
    /// Just now.
    pub(super) fn now() -> Moved {
        Moved { begun: Instant::now(), at: Arc::default() }
    }

    fn moves(&self) {
        let since = u64::try_from(self.begun.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.at.store(since, Ordering::Relaxed);
    }

    /// How long ago.
    pub(super) fn ago(&self, now: Instant) -> Duration {
        let at = Duration::from_millis(self.at.load(Ordering::Relaxed));
        now.saturating_duration_since(self.begun).saturating_sub(at)
    }
}

/// A stream whose writes fail once none has moved for `stall`.
pub(super) struct Watched<S> {
    stream: S,
    stall: Duration,
    alarm: Pin<Box<Sleep>>,
    armed: bool,
    moved: Moved,
    sent: Option<Arc<Counters>>,
}

impl<S> Watched<S> {
    /// What it takes is counted by `sent`, if it is to be.
    pub(super) fn new(
        stream: S,
        stall: Duration,
        moved: Moved,
        sent: Option<Arc<Counters>>,
    ) -> Watched<S> {
        Watched { stream, stall, alarm: Box::pin(sleep(stall)), armed: false, moved, sent }
    }

    fn watch(
        &mut self,
        cx: &mut Context<'_>,
        written: Poll<io::Result<usize>>,
    ) -> Poll<io::Result<usize>> {
        if let (Poll::Ready(Ok(bytes)), Some(counters)) = (&written, &self.sent) {
            counters.sent.fetch_add(*bytes as u64, Ordering::Relaxed);
        }
        if written.is_ready() {
            self.moved.moves();
            self.armed = false;
            return written;
        }
        if !self.armed {
            self.armed = true;
            self.alarm.as_mut().reset(Instant::now() + self.stall);
        }
        self.alarm
            .as_mut()
            .poll(cx)
            .map(|()| Err(io::Error::new(io::ErrorKind::TimedOut, "the client takes no more")))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Watched<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let read = Pin::new(&mut self.stream).poll_read(cx, buffer);
        if read.is_ready() {
            self.moved.moves();
        }
        read
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Watched<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(cx, bytes);
        self.watch(cx, written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(cx, bytes);
        self.watch(cx, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    #[tokio::test]
    async fn a_write_that_nobody_takes_fails_and_one_that_crawls_does_not() {
        let (ours, mut theirs) = tokio::io::duplex(4);
        let stall = Duration::from_secs(1);
        let (moved, counters) = (Moved::now(), Arc::<Counters>::default());
        let mut ours = Watched::new(ours, stall, moved.clone(), Some(Arc::clone(&counters)));
        let reader = tokio::spawn(async move {
            let mut taken = [0; 10];
            for byte in &mut taken {
                // Ten of these are longer than the bound, each is far shorter.
                sleep(Duration::from_millis(150)).await;
                *byte = theirs.read_u8().await.unwrap();
            }
            (taken, theirs)
        });
        ours.write_all(b"0123456789abcd").await.unwrap();
        let before = Instant::now();
        let error = ours.write_all(b"x").await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        assert!(before.elapsed() >= stall);
        assert!(moved.ago(Instant::now()) >= stall, "what waits does not move");
        assert_eq!(&reader.await.unwrap().0, b"0123456789");
        assert_eq!(counters.sent.load(Ordering::Relaxed), 14);
    }
}
