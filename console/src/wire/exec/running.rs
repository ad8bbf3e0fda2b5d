//! A command that runs, as a stream: it ends when the command does, with what became of it for an error.

use std::future::Future;
use std::io;
use std::os::unix::process::ExitStatusExt;
use std::pin::Pin;
use std::process::ExitStatus;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use pty_process::Pty;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::process::Child;
use tokio::time::{Sleep, sleep};

use super::warden::Warden;

/// Between letting go of its terminal and its end, a command takes no longer.
const LAST: Duration = Duration::from_millis(500);

/// See the module.
pub(super) struct Running {
    pty: Pty,
    end: Pin<Box<dyn Future<Output = io::Result<ExitStatus>> + Send>>,
    /// What became of it, when it ended.
    ended: Option<String>,
    /// Nobody has its terminal open any more.
    hung: Option<Pin<Box<Sleep>>>,
    warden: Warden,
}

impl Running {
    pub fn new(pty: Pty, mut child: Child, warden: Warden) -> Running {
        let end = Box::pin(async move { child.wait().await });
        Running { pty, end, ended: None, hung: None, warden }
    }

    /// Ready when it ended: what became of it.
    fn poll_end(&mut self, cx: &mut Context<'_>) -> Poll<&str> {
        if self.ended.is_none() {
            self.ended = Some(match ready!(self.end.as_mut().poll(cx)) {
                Ok(status) => words(status),
                Err(why) => format!("the command is lost: {why}"),
            });
        }
        Poll::Ready(self.ended.as_deref().unwrap_or_default())
    }
}

/// What became of a command.
fn words(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(127), _) => "the command was not found (exit status 127)".to_string(),
        (Some(code), _) => format!("the command ended with exit status {code}"),
        (None, Some(signal)) => match nix::sys::signal::Signal::try_from(signal) {
            Ok(name) => format!("the command was killed by {name}"),
            Err(_) => format!("the command was killed by signal {signal}"),
        },
        (None, None) => "the command ended".to_string(),
    }
}

impl AsyncRead for Running {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        if self.hung.is_none() {
            // What it said before it ended is read first, whoever else still has its terminal.
            let over = self.poll_end(cx).is_ready();
            match Pin::new(&mut self.pty).poll_read(cx, buffer) {
                Poll::Ready(Ok(())) if buffer.filled().len() > before => {
                    return Poll::Ready(Ok(()));
                }
                Poll::Pending if !over => return Poll::Pending,
                // We may have heard of its end before we heard that there is something to read.
                Poll::Pending => {
                    let length = rustix::io::read(&self.pty, buffer.initialize_unfilled());
                    if let Ok(length @ 1..) = length {
                        buffer.advance(length);
                        return Poll::Ready(Ok(()));
                    }
                }
                // EIO: the last one who had it open closed it.
                Poll::Ready(_) => self.hung = Some(Box::pin(sleep(LAST))),
            }
        }
        if let Poll::Ready(what) = self.poll_end(cx) {
            return Poll::Ready(Err(io::Error::other(what.to_string())));
        }
        let Some(hung) = &mut self.hung else { return Poll::Pending };
        ready!(hung.as_mut().poll(cx));
        Poll::Ready(Err(io::Error::other("the command let go of its terminal")))
    }
}

impl AsyncWrite for Running {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        match Pin::new(&mut self.pty).poll_write(cx, bytes) {
            // It ended: why, whoever reads is told.
            Poll::Ready(Err(_)) => Poll::Pending,
            written => written,
        }
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    /// Ends it, and all that it began.
    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.warden.poll_end(cx).map(Ok)
    }
}
