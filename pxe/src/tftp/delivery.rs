//! One request from its first byte to its end: name, content, terms, and then the transfer's state
//! machine between its port and its file.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Instant;

use tokio::sync::mpsc;
use tokio::time::{sleep_until, timeout_at};
use tokio_util::sync::CancellationToken;

use super::name;
use super::packet::{self, Code, Mode, Packet, Request};
use super::server::{Event, Server, count};
use super::socket::Port;
use super::terms::{self, Terms, WINDOW_BYTES};
use super::transfer::{Blocks, End, Step, Transfer, lay_out};
use crate::http::file::Source;

/// Bytes of blocks that are laid out beyond a small window, at most.
const AHEAD_BYTES: u64 = 16 * 1024;

/// What the listening port has to tell a transfer about its peer.
#[derive(Debug, Clone, Copy)]
pub(super) enum Nudge {
    /// It sent the same request again.
    Again,
    /// It sent another one.
    StepAside,
    /// It is slow, and others wait.
    MakeRoom,
}

/// A request with a port of its own.
pub(super) struct Delivery {
    pub(super) server: Arc<Server>,
    pub(super) port: Port,
    pub(super) peer: SocketAddr,
    /// Set once the client has acknowledged something.
    pub(super) heard: Arc<AtomicBool>,
    /// How much of it.
    pub(super) bytes: Arc<AtomicU64>,
    pub(super) nudged: mpsc::Receiver<Nudge>,
    /// The client asked again just as this ended.
    pub(super) unanswered: bool,
    /// One datagram answers it until its client acknowledges something.
    pub(super) once: bool,
    pub(super) cancel: CancellationToken,
}

/// An answer that is an ERROR.
pub(super) struct Refusal {
    code: Code,
    why: String,
}

impl Refusal {
    pub(super) fn new(code: Code, why: impl Into<String>) -> Refusal {
        Refusal { code, why: why.into() }
    }
}

/// What the listening port has to know of a task that has ended.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Outcome {
    /// Meanwhile the client has sent the same request again, and nobody has answered that one.
    pub(super) unanswered: bool,
    /// It was an ERROR.
    pub(super) refused: bool,
}

/// Why the driver stopped, where the state machine did not say so.
enum Ended {
    /// It did.
    Transfer(End),
    /// The content could not be read.
    Unreadable(io::Error),
    /// We would not go on, and why.
    Stopped(&'static str),
}

impl Delivery {
    /// Runs it, be it only to say why not.
    pub(super) async fn run(mut self, request: Result<Request, Refusal>) -> Outcome {
        let name: Arc<str> = match &request {
            Ok(request) => String::from_utf8_lossy(&request.name).into(),
            Err(_) => "".into(),
        };
        let opened = match request {
            Ok(request) => self.open(request).await,
            Err(refusal) => Err(refusal),
        };
        let refused = opened.is_err();
        match opened {
            Ok((name, source, terms)) => self.deliver(&name, source, &terms).await,
            Err(Refusal { code, why }) => {
                count(&self.server.counters.refused);
                self.say(code, &why).await;
                let name = name.replace(char::is_control, "\u{fffd}").into();
                (self.server.tell)(Event::Refused { peer: self.peer, name, why });
            }
        }
        self.nudged.close();
        let mut unanswered = self.unanswered;
        // Not `try_recv`: it finds nothing where a send has its place and not yet its message.
        while let Some(nudge) = self.nudged.recv().await {
            unanswered |= matches!(nudge, Nudge::Again);
        }
        Outcome { unanswered, refused }
    }

    async fn open(&self, request: Request) -> Result<(Arc<str>, Source, Terms), Refusal> {
        let netascii = match request.mode {
            Mode::Octet => false,
            Mode::Netascii => true,
            Mode::Mail | Mode::Unknown => {
                return Err(Refusal::new(Code::IllegalOperation, "the mode is octet or netascii"));
            }
        };
        let Some(name) = name::clean(&request.name) else {
            return Err(Refusal::new(Code::AccessViolation, "not a name"));
        };
        let Some(content) = (self.server.lookup)(self.peer, &name) else {
            return Err(Refusal::new(Code::FileNotFound, format!("{name}: no such file")));
        };
        let unreadable = |error| {
            tracing::error!(%name, %error, "cannot be served");
            Refusal::new(Code::NotDefined, format!("{name}: cannot be read"))
        };
        let mut source = Source::open(&content).map_err(unreadable)?;
        if netascii {
            let text = text(&mut source).await.map_err(unreadable)?;
            source = text.ok_or_else(|| {
                let why = format!("{name}: too large for netascii, ask for octet (\"binary\")");
                Refusal::new(Code::NotDefined, why)
            })?;
        }
        let terms = terms::agree(&request.options, source.size(), self.port.payload());
        Ok((name.into(), source, terms))
    }

    async fn deliver(&mut self, name: &Arc<str>, mut source: Source, terms: &Terms) {
        let (peer, size, began) = (self.peer, source.size(), Instant::now());
        (self.server.tell)(Event::Begun { peer, name: Arc::clone(name), size });
        let mut patience = self.server.limits.patience;
        if self.once {
            patience.unheard = 0;
        }
        let (mut transfer, first) = Transfer::begin(terms, size, patience, began);
        let ended = self.drive(&mut transfer, first, &mut source, terms).await;

        let name = Arc::clone(name);
        let bytes = transfer.bytes(size);
        let counters = Arc::clone(&self.server.counters);
        counters.resent.fetch_add(transfer.resent(), Ordering::Relaxed);
        let (counter, event) = match ended {
            Ended::Transfer(End::Done { confirmed }) => {
                let (elapsed, resent) = (began.elapsed(), transfer.resent());
                let done = Event::Done { peer, name, bytes: size, elapsed, resent, confirmed };
                (&counters.done, done)
            }
            Ended::Transfer(End::Probed { .. }) => {
                (&counters.probed, Event::Probed { peer, name, size })
            }
            Ended::Transfer(End::Aborted { code, message }) => {
                (&counters.aborted, Event::Aborted { peer, name, code, message, bytes })
            }
            Ended::Transfer(End::TimedOut) => {
                (&counters.timed_out, Event::TimedOut { peer, name, bytes, size })
            }
            Ended::Transfer(End::Replaced) => {
                (&counters.replaced, Event::Replaced { peer, name, bytes, size })
            }
            Ended::Unreadable(error) => {
                tracing::error!(%name, %error, "TFTP transfer");
                self.say(Code::NotDefined, "the file cannot be read").await;
                let message = format!("by us: {error}");
                (&counters.aborted, Event::Aborted { peer, name, code: None, message, bytes })
            }
            Ended::Stopped(why) => {
                self.say(Code::NotDefined, why).await;
                let message = format!("by us: {why}");
                (&counters.aborted, Event::Aborted { peer, name, code: None, message, bytes })
            }
        };
        count(counter);
        let delivered = if let Event::Done { bytes, .. } = event { bytes } else { bytes };
        counters.bytes.fetch_add(delivered, Ordering::Relaxed);
        (self.server.tell)(event);
    }

    async fn drive(
        &mut self,
        transfer: &mut Transfer,
        first: Step,
        source: &mut Source,
        terms: &Terms,
    ) -> Ended {
        let mut step = first;
        let mut ahead = Ahead::default();
        let mut datagram = [0; 600];
        let alarm = sleep_until(transfer.deadline().into());
        tokio::pin!(alarm);
        let stop = self.cancel.clone().cancelled_owned();
        tokio::pin!(stop);
        loop {
            let sent = match step {
                Step::Wait => Ok(()),
                Step::Oack => {
                    let oack = terms.oack.as_deref().expect("only an OACK is waited for");
                    self.port.send(oack, oack.len()).await
                }
                Step::Blocks(blocks) => match ahead.of(blocks, terms.blksize, source).await {
                    Ok(due) => self.port.send(due, usize::from(terms.blksize) + 4).await,
                    Err(error) => return Ended::Unreadable(error),
                },
                Step::End(end) => return Ended::Transfer(end),
            };
            if sent.is_err() {
                return Ended::Transfer(transfer.gone());
            }
            if transfer.heard() {
                self.bytes.store(transfer.bytes(source.size()), Ordering::Relaxed);
                self.heard.store(true, Ordering::Relaxed);
            }
            // The deadline moves away with each ACK. Only one that comes nearer is worth telling
            // the timer; the others are looked at when it rings.
            if alarm.deadline() > transfer.deadline().into() {
                alarm.as_mut().reset(transfer.deadline().into());
            }
            step = tokio::select! {
                // In this order: datagrams are what comes, and the budget of a task lets the others have their turn.
                biased;
                received = self.port.receive(&mut datagram) => match received {
                    Ok(length) => self.received(transfer, &datagram[..length]),
                    Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
                        return Ended::Transfer(transfer.gone());
                    }
                    // No route for the moment: told once by the kernel, then forgotten.
                    Err(_) => Step::Wait,
                },
                () = &mut alarm => {
                    let step = transfer.expire(Instant::now());
                    alarm.as_mut().reset(transfer.deadline().into());
                    step
                }
                () = &mut stop => return Ended::Stopped("the server stops"),
                Some(nudge) = self.nudged.recv() => match nudge {
                    Nudge::Again => match self.port.receive_now(&mut datagram) {
                        Some(length) => {
                            // A ROM with a fixed port ends its size probe with an ERROR here and
                            // asks again there, and the news has overtaken the ERROR.
                            let step = self.received(transfer, &datagram[..length]);
                            self.unanswered = matches!(step, Step::End(_));
                            step
                        }
                        None => transfer.again(Instant::now()),
                    },
                    Nudge::StepAside => {
                        transfer.step_aside();
                        Step::Wait
                    }
                    Nudge::MakeRoom => return Ended::Stopped("too slow while others wait"),
                },
            };
        }
    }

    fn received(&self, transfer: &mut Transfer, datagram: &[u8]) -> Step {
        match packet::decode(datagram) {
            Ok(Packet::Read(_) | Packet::Write | Packet::Stray) => {
                count(&self.server.counters.stray);
                Step::Wait
            }
            Ok(packet) => {
                if let Packet::Error { .. } = &packet {
                    // Only who is there says why it leaves.
                    self.heard.store(true, Ordering::Relaxed);
                }
                transfer.receive(packet, Instant::now())
            }
            Err(_) => {
                count(&self.server.counters.malformed);
                Step::Wait
            }
        }
    }

    /// An ERROR is said once (RFC 1350 §7), and not waited for.
    async fn say(&mut self, code: Code, why: &str) {
        let error = packet::error(code, why);
        let soon = tokio::time::Instant::now() + std::time::Duration::from_secs(1);
        let _ = timeout_at(soon, self.port.send(&error, error.len())).await;
    }
}

/// A window, and where windows are small some of what comes after it: a client that takes one block at a time
/// costs one trip to the file for many of them.
#[derive(Default)]
struct Ahead {
    first: u64,
    /// Blocks that are laid out.
    count: u64,
    datagrams: Vec<u8>,
}

impl Ahead {
    /// The DATA packets of these blocks.
    async fn of(&mut self, due: Blocks, blksize: u16, source: &mut Source) -> io::Result<&[u8]> {
        let size = u64::from(blksize) + 4;
        let end = due.first + u64::from(due.count);
        if due.first < self.first || end > self.first + self.count {
            let left = (source.size() / u64::from(blksize) + 2).saturating_sub(due.first);
            let many = (AHEAD_BYTES / size).min(left).max(due.count.into());
            let count = u16::try_from(many).unwrap_or(due.count);
            self.count = 0;
            let length = usize::from(count) * usize::from(blksize + 4);
            self.datagrams.reserve_exact(length.saturating_sub(self.datagrams.len()));
            fetch(Blocks { first: due.first, count }, blksize, source, &mut self.datagrams).await?;
            (self.first, self.count) = (due.first, count.into());
        }
        let from = (due.first - self.first) * size;
        let to = (from + u64::from(due.count) * size).min(self.datagrams.len() as u64);
        Ok(self.datagrams.get(from as usize..to as usize).unwrap_or_default())
    }
}

/// Lays out blocks, over the disk if need be.
async fn fetch(
    blocks: Blocks,
    blksize: u16,
    source: &mut Source,
    window: &mut Vec<u8>,
) -> io::Result<()> {
    let size = source.size();
    if lay_out(blocks, blksize, size, window, |offset, bodies| source.fill_all(offset, bodies))? {
        return Ok(());
    }
    source.warm_up((blocks.first - 1) * u64::from(blksize)).await?;
    lay_out(blocks, blksize, size, window, |offset, bodies| source.fill_all(offset, bodies))?;
    Ok(())
}

/// Content as netascii, if it is a text small enough to be held while it is sent.
async fn text(source: &mut Source) -> io::Result<Option<Source>> {
    if source.size() > WINDOW_BYTES as u64 {
        return Ok(None);
    }
    let mut text = vec![0; source.size() as usize];
    if !source.fill(0, &mut text)? {
        source.warm_up(0).await?;
        source.fill(0, &mut text)?;
    }
    Ok(packet::netascii(&text, WINDOW_BYTES).map(|text| Source::Bytes(text.into())))
}
