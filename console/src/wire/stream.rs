//! Drives a line that is a stream of bytes: reads while what was read is taken, writes what was
//! typed, and closes. What the bytes mean is its codec's.

use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures::FutureExt;
use futures::future::BoxFuture;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Sleep, sleep_until, timeout};

use super::{Cannot, Event, NotOpen, ORDERS, Operation, Order, Wire};

/// Read at once.
const READ: usize = 4096;
/// What is to be written may be so much before no more is taken.
const TYPED: usize = 4096;
/// What a line that is closed still takes, it takes within this.
const FAREWELL: Duration = Duration::from_secs(1);

/// What the bytes of a stream mean. It is told of all that comes, in order, and keeps no time but by
/// [`Codec::deadline`].
pub trait Codec<S>: Send + 'static {
    /// These came: what they say, and what is to be written in answer at once.
    fn came(&mut self, bytes: &[u8], events: &mut Vec<Event>, answer: &mut Vec<u8>);

    /// These are typed: what is to be written.
    fn typed(&mut self, bytes: &[u8], out: &mut Vec<u8>);

    /// Behind all that was typed before: does it to the stream, or writes what does it, or begins it.
    ///
    /// # Errors
    /// This kind of line cannot.
    fn operate(
        &mut self,
        stream: &mut S,
        operation: Operation,
        out: &mut Vec<u8>,
    ) -> Result<(), Cannot>;

    /// What became of the operation that was begun. None: it takes until a later [`Codec::late`], and nothing
    /// that is typed is written meanwhile.
    fn settled(&mut self) -> Option<Result<(), Cannot>> {
        Some(Ok(()))
    }

    /// Whether the other side said that it has no room: nothing is typed until it has, or until a later
    /// [`Codec::late`].
    fn is_full(&self) -> bool {
        false
    }

    /// When [`Codec::late`] is to be called.
    fn deadline(&self) -> Option<Instant> {
        None
    }

    /// That time has come: what there is to say, and what is to be written.
    ///
    /// # Errors
    /// The line is to be given up.
    fn late(
        &mut self,
        _stream: &mut S,
        _events: &mut Vec<Event>,
        _out: &mut Vec<u8>,
    ) -> Result<(), NotOpen> {
        Ok(())
    }

    /// It is closed: ends what must not be left as it is.
    fn closing(&mut self, _stream: &mut S, _out: &mut Vec<u8>) {}

    /// Why it ended, in words for people. None: the other side closed it.
    fn ended(&mut self, why: Option<&io::Error>) -> NotOpen {
        NotOpen::Away(match why {
            None => "the other side closed it".to_string(),
            Some(why) => why.to_string(),
        })
    }
}

impl Event {
    /// Characters that came now.
    pub fn data(bytes: &[u8]) -> Event {
        Event::Data { at: Instant::now(), bytes: Bytes::copy_from_slice(bytes) }
    }
}

/// A line that is driven by whoever reads it, within the same task: nothing is handed from one to another.
pub fn drive<S, C>(stream: S, codec: C) -> Wire
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    C: Codec<S>,
{
    let (tell, orders) = mpsc::channel(ORDERS);
    let driver = Driver {
        stream,
        codec,
        orders,
        buffer: vec![0; READ].into_boxed_slice(),
        waiting: Vec::new(),
        out: Vec::new(),
        turn: None,
        alarm: None,
        end: End::NotYet,
    };
    Wire::driven(Box::new(driver), tell)
}

/// What a [`Wire`] reads and closes without knowing what it is.
pub(super) trait Driven: Send {
    /// The next event; all else that can be done is done on the way. None: there was the last one.
    fn poll_event(&mut self, cx: &mut Context<'_>) -> Poll<Option<Event>>;

    /// Writes what was typed, as far as that takes no more than a moment, and lets go.
    fn close(self: Box<Self>) -> BoxFuture<'static, ()>;
}

struct Driver<S, C> {
    stream: S,
    codec: C,
    orders: mpsc::Receiver<Order>,
    buffer: Box<[u8]>,
    /// Events that nobody asked for yet, the last one first.
    waiting: Vec<Event>,
    /// To be written.
    out: Vec<u8>,
    turn: Option<Turn>,
    alarm: Option<Pin<Box<Sleep>>>,
    end: End,
}

/// An operation that was asked for.
enum Turn {
    /// To be begun when all is written.
    Next(Operation, oneshot::Sender<Result<(), Cannot>>),
    /// Nothing that is typed is written until it is settled.
    UnderWay(oneshot::Sender<Result<(), Cannot>>),
}

/// How far it is with its end.
enum End {
    NotYet,
    /// To be told, behind what waits.
    Lost(NotOpen),
    Told,
}

impl<S, C> Driven for Driver<S, C>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    C: Codec<S>,
{
    fn poll_event(&mut self, cx: &mut Context<'_>) -> Poll<Option<Event>> {
        loop {
            if let Some(event) = self.waiting.pop() {
                return Poll::Ready(Some(event));
            }
            match std::mem::replace(&mut self.end, End::Told) {
                End::NotYet => self.end = End::NotYet,
                End::Lost(why) => return Poll::Ready(Some(Event::Down { why, itself: false })),
                End::Told => return Poll::Ready(None),
            }
            match self.poll_all(cx) {
                Ok(true) => {}
                Ok(false) => return Poll::Pending,
                Err(why) => self.end = End::Lost(why),
            }
        }
    }

    fn close(mut self: Box<Self>) -> BoxFuture<'static, ()> {
        Box::pin(async move {
            self.orders.close();
            let _what_it_takes = timeout(FAREWELL, poll_fn(|cx| self.poll_rest(cx))).await;
            self.codec.closing(&mut self.stream, &mut self.out);
            let rest = async {
                self.stream.write_all(&self.out).await?;
                self.stream.shutdown().await
            };
            let _what_it_takes = timeout(FAREWELL, rest).await;
        })
    }
}

impl<S, C> Driver<S, C>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    C: Codec<S>,
{
    /// Whether anything moved.
    fn poll_all(&mut self, cx: &mut Context<'_>) -> Result<bool, NotOpen> {
        let mut moved = self.poll_write(cx)?;
        moved |= self.poll_orders(cx);
        moved |= self.poll_read(cx)?;
        moved |= self.poll_alarm(cx)?;
        Ok(moved)
    }

    /// What was asked for before the end.
    fn poll_rest(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), NotOpen>> {
        loop {
            let mut moved = self.poll_write(cx)?;
            moved |= self.poll_orders(cx);
            moved |= self.poll_alarm(cx)?;
            if !moved {
                let all = self.out.is_empty() && self.turn.is_none() && self.orders.is_empty();
                return if all { Poll::Ready(Ok(())) } else { Poll::Pending };
            }
        }
    }

    fn poll_write(&mut self, cx: &mut Context<'_>) -> Result<bool, NotOpen> {
        let mut moved = false;
        while !self.out.is_empty() {
            match Pin::new(&mut self.stream).poll_write(cx, &self.out) {
                Poll::Pending => return Ok(moved),
                Poll::Ready(Ok(0)) => return Err(self.codec.ended(None)),
                Poll::Ready(Ok(many)) => drop(self.out.drain(..many)),
                Poll::Ready(Err(why)) => return Err(self.codec.ended(Some(&why))),
            }
            moved = true;
        }
        Ok(self.operate() || moved)
    }

    /// The next step of the operation that was asked for. Whether there was one.
    fn operate(&mut self) -> bool {
        let (answer, done) = match self.turn.take() {
            None => return false,
            Some(Turn::Next(operation, answer)) => {
                match self.codec.operate(&mut self.stream, operation, &mut self.out) {
                    Ok(()) => (answer, self.codec.settled()),
                    Err(cannot) => (answer, Some(Err(cannot))),
                }
            }
            Some(Turn::UnderWay(answer)) => match self.codec.settled() {
                None => {
                    self.turn = Some(Turn::UnderWay(answer));
                    return false;
                }
                done => (answer, done),
            },
        };
        match done {
            None => self.turn = Some(Turn::UnderWay(answer)),
            Some(done) => {
                let _who_asked_may_be_gone = answer.send(done);
            }
        }
        true
    }

    fn poll_orders(&mut self, cx: &mut Context<'_>) -> bool {
        let mut moved = false;
        while self.out.len() < TYPED && self.turn.is_none() && !self.codec.is_full() {
            match self.orders.poll_recv(cx) {
                // A line that nobody can type into any more is still read.
                Poll::Pending | Poll::Ready(None) => break,
                Poll::Ready(Some(Order::Close(done))) => drop(done),
                Poll::Ready(Some(Order::Type(bytes))) => self.codec.typed(&bytes, &mut self.out),
                Poll::Ready(Some(Order::Do(operation, answer))) => {
                    self.turn = Some(Turn::Next(operation, answer));
                }
            }
            moved = true;
        }
        moved
    }

    fn poll_read(&mut self, cx: &mut Context<'_>) -> Result<bool, NotOpen> {
        // A peer that asks for answers and does not take them is not read on either.
        if !self.waiting.is_empty() || self.out.len() >= 2 * TYPED {
            return Ok(false);
        }
        let mut read = ReadBuf::new(&mut self.buffer);
        match Pin::new(&mut self.stream).poll_read(cx, &mut read) {
            Poll::Pending => return Ok(false),
            Poll::Ready(Err(why)) => return Err(self.codec.ended(Some(&why))),
            Poll::Ready(Ok(())) => {}
        }
        if read.filled().is_empty() {
            return Err(self.codec.ended(None));
        }
        self.codec.came(read.filled(), &mut self.waiting, &mut self.out);
        self.waiting.reverse();
        Ok(true)
    }

    fn poll_alarm(&mut self, cx: &mut Context<'_>) -> Result<bool, NotOpen> {
        let Some(deadline) = self.codec.deadline() else { return Ok(false) };
        let deadline = tokio::time::Instant::from_std(deadline);
        let alarm = self.alarm.get_or_insert_with(|| Box::pin(sleep_until(deadline)));
        if alarm.deadline() != deadline {
            alarm.as_mut().reset(deadline);
        }
        if alarm.poll_unpin(cx).is_pending() {
            return Ok(false);
        }
        self.alarm = None;
        let mut events = Vec::new();
        self.codec.late(&mut self.stream, &mut events, &mut self.out)?;
        events.reverse();
        self.waiting.splice(..0, events);
        Ok(true)
    }
}
