//! A machine's line, held by somebody who is no person at a terminal: a transfer, a question to the machine. Whoever
//! has it is named to all others, and each turn stands in the line's log.

use std::pin::Pin;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use bytes::Bytes;
use futures::{Sink, SinkExt, Stream, StreamExt, future::ready};
use koboshi_console::State;
use koboshi_console::attach::{Frame, Notice, Request, Want};
use tokio::sync::mpsc;
use tokio::time::{timeout, timeout_at};
use tokio_tungstenite::tungstenite::{self, Message};

use super::Query;
use crate::api::Client;

/// The line is quiet after so long: what is on it is all there.
const QUIET: Duration = Duration::from_millis(400);
/// It is given so long to be quiet.
const QUIET_MOST: Duration = Duration::from_secs(3);
/// The appliance answers within this.
const ANSWER: Duration = Duration::from_secs(10);
/// Whoever asks for a line gets it from one who has not typed for a while. A transfer is at work: it types nothing,
/// so often.
const STIR: Duration = Duration::from_secs(20);
/// What is kept of the line's last lines.
const TAIL: usize = 4096;

/// See the module.
pub struct Seat {
    from: Pin<Box<dyn Stream<Item = Frame>>>,
    to: Pin<Box<dyn Sink<Frame, Error = tungstenite::Error>>>,
    visit: u64,
    requests: u64,
    /// Its last characters.
    pub tail: Vec<u8>,
}

impl Seat {
    /// Comes to a line, with its last lines.
    pub async fn come(client: &Client, query: &Query) -> anyhow::Result<Seat> {
        let socket = client.socket("/console/attach", query).await?;
        let (to, from) = socket.split();
        let from = from.scan((), |(), message| ready(message.ok())).filter_map(|message| {
            ready(match message {
                Message::Binary(bytes) => Some(Frame::Characters(bytes)),
                Message::Text(text) => Some(Frame::Control(text.to_string())),
                _ => None,
            })
        });
        let to = to.with(|frame| {
            ready(Ok::<_, tungstenite::Error>(match frame {
                Frame::Characters(bytes) => Message::Binary(bytes),
                Frame::Control(text) => Message::Text(text.into()),
            }))
        });
        let (from, to) = (Box::pin(from), Box::pin(to));
        Ok(Seat { from, to, visit: 0, requests: 0, tail: Vec::new() })
    }

    /// Types.
    pub async fn types(&mut self, bytes: impl Into<Bytes>) -> anyhow::Result<()> {
        self.send(Frame::Characters(bytes.into())).await
    }

    async fn send(&mut self, frame: Frame) -> anyhow::Result<()> {
        self.to.send(frame).await.ok().context("the appliance is gone")
    }

    async fn request(&mut self, want: Want) -> anyhow::Result<u64> {
        self.requests += 1;
        let n = self.requests;
        let request = Frame::control(&Request { n: Some(n), want }).context("no request")?;
        self.send(request).await?;
        Ok(n)
    }

    /// Takes the line, or asks for it.
    pub async fn sit(&mut self, take: bool) -> anyhow::Result<()> {
        let until = tokio::time::Instant::now() + ANSWER;
        let mut asked = None;
        loop {
            let frame = timeout_at(until, self.from.next()).await;
            match frame
                .context("the appliance does not answer")?
                .context("the appliance is gone")?
            {
                Frame::Characters(bytes) => self.keep(&bytes),
                Frame::Control(text) => match notice(&text) {
                    Some(Notice::Hello { types: false, machine, .. }) => {
                        bail!("you may look at {machine}'s console, and not type there")
                    }
                    Some(Notice::Hello { visit, line, machine, .. }) => {
                        if !matches!(line, State::Up { .. }) {
                            bail!("{machine}'s console is not up: koboshi console shows why");
                        }
                        self.visit = visit;
                        let want = if take { Want::Take } else { Want::Ask };
                        asked = Some(self.request(want).await?);
                    }
                    Some(Notice::Done { n }) if n == asked && n.is_some() => return Ok(()),
                    Some(Notice::Refused { n, why }) if n == asked && n.is_some() => {
                        bail!("{why}; --take takes it from him")
                    }
                    Some(Notice::Bye { why }) => bail!("{why}"),
                    _ => {}
                },
            }
        }
    }

    /// Lets go of it. The line may be gone.
    pub async fn leave(&mut self) {
        let _the_line_may_be_gone = timeout(ANSWER, self.request(Want::Release)).await;
    }

    fn keep(&mut self, bytes: &[u8]) {
        self.tail.extend_from_slice(bytes);
        let more = self.tail.len().saturating_sub(TAIL);
        self.tail.drain(..more);
    }

    /// Reads until nothing comes for a moment.
    pub async fn quiet(&mut self) -> anyhow::Result<()> {
        let begun = Instant::now();
        while begun.elapsed() < QUIET_MOST {
            match timeout(QUIET, self.from.next()).await {
                Err(_) => return Ok(()),
                Ok(None) => bail!("the appliance is gone"),
                Ok(Some(Frame::Characters(bytes))) => self.keep(&bytes),
                Ok(Some(Frame::Control(_))) => {}
            }
        }
        Ok(())
    }

    /// Reads until its last characters are as they should be, or no longer than so; whether they are.
    pub async fn hears(
        &mut self,
        most: Duration,
        done: impl Fn(&[u8]) -> bool,
    ) -> anyhow::Result<bool> {
        let end = tokio::time::Instant::now() + most;
        while !done(&self.tail) {
            match timeout_at(end, self.from.next()).await {
                Err(_) => return Ok(false),
                Ok(None) => bail!("the appliance is gone"),
                Ok(Some(Frame::Characters(bytes))) => self.keep(&bytes),
                Ok(Some(Frame::Control(text))) => ours(&text, self.visit)?,
            }
        }
        Ok(true)
    }

    /// Carries characters both ways until no more are typed; fails when the line is another's, or down.
    pub async fn carry(
        &mut self,
        say: mpsc::Sender<Bytes>,
        mut typed: mpsc::Receiver<Bytes>,
    ) -> anyhow::Result<()> {
        // What is typed waits for the line, and what comes is read nevertheless.
        let mut waits: Option<Frame> = None;
        let Seat { from, to, visit, .. } = self;
        let mut stir = tokio::time::interval(STIR);
        loop {
            tokio::select! {
                frame = from.next() => match frame.context("the appliance is gone")? {
                    Frame::Characters(bytes) => {
                        // A transfer that is over does not read any more.
                        let _it_is_over = say.send(bytes).await;
                    }
                    Frame::Control(text) => ours(&text, *visit)?,
                },
                bytes = typed.recv(), if waits.is_none() => match bytes {
                    Some(bytes) => waits = Some(Frame::Characters(bytes)),
                    None => return to.flush().await.ok().context("the appliance is gone"),
                },
                _ = stir.tick(), if waits.is_none() => {
                    waits = Some(Frame::Characters(Bytes::new()));
                }
                ready = std::future::poll_fn(|cx| to.poll_ready_unpin(cx)), if waits.is_some() => {
                    ready.ok().context("the appliance is gone")?;
                    if let Some(frame) = waits.take() {
                        to.start_send_unpin(frame).ok().context("the appliance is gone")?;
                        to.flush().await.ok().context("the appliance is gone")?;
                    }
                }
            }
        }
    }
}

fn notice(text: &str) -> Option<Notice> {
    serde_json::from_str(text).ok()
}

/// Whether the line is still ours, and up.
fn ours(text: &str, visit: u64) -> anyhow::Result<()> {
    match notice(text) {
        Some(Notice::Floor(floor)) => match floor.holder {
            Some(holder) if holder.visit == visit => Ok(()),
            Some(holder) => bail!("{} took the line", shown(&holder.person.name)),
            None => bail!("the line is not yours any more"),
        },
        Some(Notice::Line { line: State::Down { why, .. } }) => {
            bail!("the line went down: {}", shown(&why))
        }
        Some(Notice::Line { line: State::Stolen { .. } }) => bail!("the line was taken by another"),
        Some(Notice::Refused { why, .. }) => bail!("{}", shown(&why)),
        Some(Notice::Bye { why }) => bail!("{}", shown(&why)),
        _ => Ok(()),
    }
}

/// A stranger's words, or those of a person.
pub(super) fn shown(words: &str) -> String {
    words.chars().map(|c| if c.is_control() { '·' } else { c }).collect()
}
