//! A file's way to a client without a copy of its bytes: `sendfile(2)`, under a hyper that knows nothing of it.
//!
//! ```text
//! body    gives hyper BLANK in the place of a piece of a file, and puts down here which piece it stands for
//! hyper   counts the bytes, and hands them to its stream as they are (vectored: it copies no chunk)
//! lane    is that stream: where BLANK is to be written, it sends the piece
//! ```
//!
//! Bytes of an image are seen by nobody between the page cache and the card, and a connection holds no memory
//! for them, however many there are.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, IoSlice};
use std::os::unix::fs::FileExt;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};

use bytes::Bytes;
use rustix::io::Errno;
use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};
use tokio::net::TcpStream;

use super::unsent::Unsent;

/// The longest piece: each costs a call, whatever its length.
pub(super) const PIECE: usize = 512 * 1024;

/// After so many bytes that a client took without a pause, it is the others' turn: they may only have a report.
const TURN: usize = 2 * 1024 * 1024;

/// What stands for bytes of a file. Told by where it lies in memory: what it holds is never sent.
static BLANK: [u8; PIECE] = [0; PIECE];

/// A stretch of a file that hyper has been given, and has not sent.
#[derive(Debug)]
struct Piece {
    file: Arc<File>,
    offset: u64,
    left: usize,
}

/// The pieces of one connection, in the order they will be sent. A request extension.
#[derive(Debug, Clone, Default)]
pub struct Lane(Arc<Mutex<VecDeque<Piece>>>);

impl Lane {
    /// Bytes for hyper that stand for `length` bytes of a file, [`PIECE`] at the most.
    pub(super) fn send(&self, file: &Arc<File>, offset: u64, length: usize) -> Bytes {
        let left = length.min(PIECE);
        self.pieces().push_back(Piece { file: Arc::clone(file), offset, left });
        Bytes::from_static(&BLANK[..left])
    }

    fn pieces(&self) -> MutexGuard<'_, VecDeque<Piece>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether these bytes stand for others.
fn is_blank(bytes: &[u8]) -> bool {
    let blank = BLANK.as_ptr_range();
    !bytes.is_empty() && blank.contains(&bytes.as_ptr())
}

/// A client's connection.
#[derive(Debug)]
pub(super) struct Paved {
    stream: TcpStream,
    lane: Lane,
    unsent: Unsent,
    /// Bytes sent in this turn.
    turn: usize,
}

impl Paved {
    /// A connection over which a lane's pieces are sent.
    pub(super) fn new(stream: TcpStream, lane: Lane, unsent: Unsent) -> Paved {
        Paved { stream, lane, unsent, turn: 0 }
    }

    /// Sends what `length` blank bytes stand for, or some of it.
    fn poll_piece(&mut self, cx: &mut Context<'_>, length: usize) -> Poll<io::Result<usize>> {
        if self.turn >= TURN {
            self.turn = 0;
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        loop {
            if self.stream.poll_write_ready(cx)?.is_pending() {
                self.turn = 0;
                return Poll::Pending;
            }
            let sent = self.stream.try_io(Interest::WRITABLE, || self.piece(length));
            match sent {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Ok(sent) => {
                    self.turn += sent;
                    return Poll::Ready(Ok(sent));
                }
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
    }

    fn piece(&self, length: usize) -> io::Result<usize> {
        let mut pieces = self.lane.pieces();
        let Some(piece) = pieces.front_mut() else {
            return Err(io::Error::other("bytes of a file that nobody named"));
        };
        let most = length.min(piece.left);
        let mut offset = piece.offset;
        let sent = match rustix::fs::sendfile(&self.stream, &piece.file, Some(&mut offset), most) {
            // A file system that knows no such thing.
            Err(Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP) => {
                let mut bytes = vec![0; most.min(16 * 1024)];
                let read = piece.file.read_at(&mut bytes, piece.offset)?;
                rustix::net::send(&self.stream, &bytes[..read], rustix::net::SendFlags::DONTWAIT)?
            }
            other => other?,
        };
        if sent == 0 {
            let why = "the file ends before its size says";
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, why));
        }
        piece.offset += sent as u64;
        piece.left -= sent.min(piece.left);
        if piece.left == 0 {
            pieces.pop_front();
        }
        Ok(sent)
    }
}

impl AsyncRead for Paved {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buffer)
    }
}

impl AsyncWrite for Paved {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(cx, &[IoSlice::new(bytes)])
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = &mut *self;
        this.unsent.tell(&this.stream);
        let first = slices.iter().position(|slice| !slice.is_empty()).unwrap_or(slices.len());
        let slices = &slices[first..];
        let plain = slices.iter().position(|slice| is_blank(slice)).unwrap_or(slices.len());
        match slices.first() {
            Some(blank) if plain == 0 => self.poll_piece(cx, blank.len()),
            _ => Pin::new(&mut self.stream).poll_write_vectored(cx, &slices[..plain]),
        }
    }

    fn is_write_vectored(&self) -> bool {
        true
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
    use std::io::Write;

    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::*;

    async fn pair() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (client, accepted) = tokio::join!(TcpStream::connect(address), listener.accept());
        (client.unwrap(), accepted.unwrap().0)
    }

    #[tokio::test]
    async fn what_stands_for_a_file_is_the_file_on_the_wire() {
        let mut file = tempfile::tempfile().unwrap();
        let bytes: Vec<u8> = (0..3_000_000u32).map(|n| (n.wrapping_mul(n) >> 11) as u8).collect();
        file.write_all(&bytes).unwrap();
        let file = Arc::new(file);
        let (mut client, stream) = pair().await;
        let lane = Lane::default();
        let mut paved = Paved::new(stream, lane.clone(), Unsent::new(Arc::default()));
        // More than a socket holds, and a client that is late.
        let reads = tokio::spawn(async move {
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
            let mut all = Vec::new();
            client.read_to_end(&mut all).await.unwrap();
            all
        });
        let mut expected = Vec::new();
        for (offset, length) in [(5, 70_000), (1_000_000, PIECE), (0, 1), (2_900_000, 100_000)] {
            let head = format!("{length} bytes:");
            let mut chunks =
                [Bytes::from(head.clone()), lane.send(&file, offset as u64, length), "\n".into()];
            while chunks.iter().any(|chunk| !chunk.is_empty()) {
                let slices = chunks.each_ref().map(|chunk| IoSlice::new(chunk));
                let mut n = paved.write_vectored(&slices).await.unwrap();
                for chunk in &mut chunks {
                    let taken = n.min(chunk.len());
                    drop(chunk.split_to(taken));
                    n -= taken;
                }
            }
            expected.extend([head.as_bytes(), &bytes[offset..offset + length], b"\n"].concat());
        }
        assert!(lane.pieces().is_empty());
        drop(paved);
        assert!(reads.await.unwrap() == expected);
    }

    #[tokio::test]
    async fn a_file_that_has_shrunk_ends_the_connection() {
        let file = Arc::new(tempfile::tempfile().unwrap());
        file.set_len(10).unwrap();
        let (_client, stream) = pair().await;
        let lane = Lane::default();
        let mut paved = Paved::new(stream, lane.clone(), Unsent::new(Arc::default()));
        let blank = lane.send(&file, 8, 10);
        assert_eq!(paved.write(&blank).await.unwrap(), 2);
        let error = paved.write(&blank[2..]).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
        let nobody = Paved::new(pair().await.1, Lane::default(), Unsent::new(Arc::default()))
            .write(&blank)
            .await;
        nobody.unwrap_err();
    }
}
