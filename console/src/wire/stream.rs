//! Drives a line that is a stream of bytes: reads while there is room for what was read, writes what was
//! typed, and closes. What the bytes mean is its codec's.

use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures::FutureExt;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::sync::oneshot;
use tokio::time::{Sleep, sleep_until, timeout};
use tokio_util::sync::PollSender;

use super::{Cannot, Ends, Event, NotOpen, Operation, Order, Wire};

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

/// Begins to drive it. To be called within a runtime.
pub fn drive<S, C>(stream: S, codec: C) -> Wire
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    C: Codec<S>,
{
    let (wire, Ends { events, orders }) = Wire::new();
    let driver = Driver {
        stream,
        codec,
        events: PollSender::new(events),
        orders,
        waiting: Vec::new(),
        out: Vec::new(),
        turn: None,
        alarm: None,
    };
    tokio::spawn(driver.run());
    wire
}

struct Driver<S, C> {
    stream: S,
    codec: C,
    events: PollSender<Event>,
    orders: tokio::sync::mpsc::Receiver<Order>,
    /// Events that found no room yet, the last one first.
    waiting: Vec<Event>,
    /// To be written.
    out: Vec<u8>,
    turn: Option<Turn>,
    alarm: Option<Pin<Box<Sleep>>>,
}

/// An operation that was asked for.
enum Turn {
    /// To be begun when all is written.
    Next(Operation, oneshot::Sender<Result<(), Cannot>>),
    /// Nothing that is typed is written until it is settled.
    UnderWay(oneshot::Sender<Result<(), Cannot>>),
}

/// How it ends.
enum End {
    /// Nobody wants it any more.
    Closed(Option<oneshot::Sender<()>>),
    Lost(NotOpen),
}

impl<S, C> Driver<S, C>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    C: Codec<S>,
{
    async fn run(mut self) {
        let mut buffer = vec![0; READ];
        let end = poll_fn(|cx| self.poll(cx, &mut buffer)).await;
        match end {
            Ok(never) => match never {},
            Err(End::Lost(why)) => {
                let Some(events) = self.events.get_ref().cloned() else { return };
                for event in self.waiting.drain(..).rev() {
                    let _nobody_reads = events.send(event).await;
                }
                let _nobody_reads = events.send(Event::Down { why, itself: false }).await;
            }
            Err(End::Closed(done)) => {
                self.codec.closing(&mut self.stream, &mut self.out);
                let rest = async {
                    self.stream.write_all(&self.out).await?;
                    self.stream.shutdown().await
                };
                let _what_it_takes = timeout(FAREWELL, rest).await;
                drop(self.stream);
                if let Some(done) = done {
                    let _it_is_closed_either_way = done.send(());
                }
            }
        }
    }

    fn poll(
        &mut self,
        cx: &mut Context<'_>,
        buffer: &mut [u8],
    ) -> Poll<Result<std::convert::Infallible, End>> {
        loop {
            let mut moved = self.poll_events(cx)?;
            moved |= self.poll_write(cx)?;
            moved |= self.poll_orders(cx)?;
            moved |= self.poll_read(cx, buffer)?;
            moved |= self.poll_alarm(cx)?;
            if !moved {
                return Poll::Pending;
            }
        }
    }

    fn poll_events(&mut self, cx: &mut Context<'_>) -> Result<bool, End> {
        let mut moved = false;
        while !self.waiting.is_empty() {
            match self.events.poll_reserve(cx) {
                Poll::Pending => break,
                Poll::Ready(Err(_)) => return Err(End::Closed(None)),
                Poll::Ready(Ok(())) => {
                    if let Some(event) = self.waiting.pop() {
                        self.events.send_item(event).map_err(|_| End::Closed(None))?;
                    }
                    moved = true;
                }
            }
        }
        Ok(moved)
    }

    fn poll_write(&mut self, cx: &mut Context<'_>) -> Result<bool, End> {
        let mut moved = false;
        while !self.out.is_empty() {
            match Pin::new(&mut self.stream).poll_write(cx, &self.out) {
                Poll::Pending => return Ok(moved),
                Poll::Ready(Ok(0)) => return Err(self.lost(None)),
                Poll::Ready(Ok(many)) => drop(self.out.drain(..many)),
                Poll::Ready(Err(why)) => return Err(self.lost(Some(&why))),
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

    fn poll_orders(&mut self, cx: &mut Context<'_>) -> Result<bool, End> {
        let mut moved = false;
        while self.out.len() < TYPED && self.turn.is_none() && !self.codec.is_full() {
            match self.orders.poll_recv(cx) {
                Poll::Pending => break,
                Poll::Ready(None) => return Err(End::Closed(None)),
                Poll::Ready(Some(Order::Close(done))) => return Err(End::Closed(Some(done))),
                Poll::Ready(Some(Order::Type(bytes))) => self.codec.typed(&bytes, &mut self.out),
                Poll::Ready(Some(Order::Do(operation, answer))) => {
                    self.turn = Some(Turn::Next(operation, answer));
                }
            }
            moved = true;
        }
        Ok(moved)
    }

    fn poll_read(&mut self, cx: &mut Context<'_>, buffer: &mut [u8]) -> Result<bool, End> {
        // A peer that asks for answers and does not take them is not read on either.
        if !self.waiting.is_empty() || self.out.len() >= 2 * TYPED {
            return Ok(false);
        }
        let mut read = ReadBuf::new(buffer);
        match Pin::new(&mut self.stream).poll_read(cx, &mut read) {
            Poll::Pending => return Ok(false),
            Poll::Ready(Err(why)) => return Err(self.lost(Some(&why))),
            Poll::Ready(Ok(())) => {}
        }
        if read.filled().is_empty() {
            return Err(self.lost(None));
        }
        self.codec.came(read.filled(), &mut self.waiting, &mut self.out);
        self.waiting.reverse();
        Ok(true)
    }

    fn poll_alarm(&mut self, cx: &mut Context<'_>) -> Result<bool, End> {
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
        self.codec.late(&mut self.stream, &mut events, &mut self.out).map_err(End::Lost)?;
        events.reverse();
        self.waiting.splice(..0, events);
        Ok(true)
    }

    fn lost(&mut self, why: Option<&io::Error>) -> End {
        End::Lost(self.codec.ended(why))
    }
}
