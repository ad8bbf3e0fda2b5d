//! The handle of an open console: one stream of events that outlives sessions, and what is typed.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::{mpsc, oneshot};

use super::activate::{Takeover, Wish};
use super::engine::Settings;
use super::event::{Event, Operation};
use super::payload::{Activated, Alerts};
use crate::error::Error;
use crate::quirks::{Quirk, Quirks};

/// Characters that are handed on at once.
pub(crate) const CHUNK: usize = 1024;
/// Events that wait for the reader, beside what the engine holds.
const EVENTS: usize = 8;
/// Chunks that wait to be taken.
const CHUNKS: usize = 2;

/// How a console is to be.
#[derive(Debug, Clone)]
pub struct Options {
    /// Which instance; nearly every BMC has one alone, 1.
    pub instance: u8,
    /// Whose Serial over LAN may be ended for it. [`Takeover::Always`] holds for opening it: once it was
    /// stolen it is not stolen back, or two of us would do so for ever.
    pub takeover: Takeover,
    /// What becomes of alerts by the serial port.
    pub alerts: Alerts,
    /// CTS and DCD stay down until they are raised by [`Operation`].
    pub lines_down: bool,
    /// How often it is asked whose the console is, which keeps the session alive too.
    pub keep_alive: Duration,
    /// Characters that wait to be read before the BMC has to wait.
    pub output: usize,
    /// Until an unacknowledged packet is repeated for the first time.
    pub retry: Duration,
    /// Unacknowledged for so long, the console is deaf and activated anew.
    pub patience: Duration,
    /// The first wait before another attempt when it is down; each next one is twice as long.
    pub back_off: Duration,
    /// Never longer than this.
    pub back_off_most: Duration,
    /// Its turn among all that are opened again.
    pub turn: Turn,
}

/// How long it is until one's turn, where many consoles must not be opened again at once. By default it is at
/// once.
#[derive(Clone, Default)]
pub struct Turn(Option<Arc<dyn Fn() -> Duration + Send + Sync>>);

impl Turn {
    /// Asked before each attempt to open a console again.
    pub fn new(turn: impl Fn() -> Duration + Send + Sync + 'static) -> Turn {
        Turn(Some(Arc::new(turn)))
    }

    pub(crate) fn wait(&self) -> Duration {
        self.0.as_ref().map_or(Duration::ZERO, |turn| turn())
    }
}

impl fmt::Debug for Turn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_some() { "in turn" } else { "at once" })
    }
}

impl Default for Options {
    fn default() -> Options {
        let settings = Settings::default();
        Options {
            instance: 1,
            takeover: Takeover::default(),
            alerts: Alerts::default(),
            lines_down: false,
            keep_alive: Duration::from_secs(20),
            output: 8 * 1024,
            retry: settings.retry,
            patience: settings.patience,
            back_off: Duration::from_secs(1),
            back_off_most: Duration::from_secs(30),
            turn: Turn::default(),
        }
    }
}

impl Options {
    /// How to activate, with what may be ended for it.
    pub(crate) fn wish(&self, takeover: Takeover, quirks: Quirks) -> Wish {
        let deferred = quirks.has(Quirk::SolDeferAlerts);
        Wish {
            instance: self.instance,
            takeover,
            alerts: if deferred { Alerts::Defer } else { self.alerts },
            lines_down: self.lines_down,
            pause: Duration::from_millis(500),
        }
    }

    /// What an engine goes by after this was agreed on.
    pub(crate) fn settings(&self, agreed: &Activated, quirks: Quirks) -> Settings {
        Settings {
            largest: agreed.largest(quirks.has(Quirk::SolSize)),
            input: 2 * CHUNK,
            output: self.output,
            retry: self.retry,
            patience: self.patience,
            acks_once: quirks.has(Quirk::SolAcksOnce),
        }
    }
}

/// What a console's users want of it.
pub(crate) enum Order {
    Type(Bytes),
    Do(Operation),
    Close(oneshot::Sender<()>),
}

/// The ends that its driver holds.
pub(crate) struct Ends {
    pub events: mpsc::Sender<Event>,
    pub orders: mpsc::Receiver<Order>,
}

/// An open console. When it is dropped the payload is deactivated.
#[derive(Debug)]
pub struct Console {
    events: mpsc::Receiver<Event>,
    typist: Typist,
}

/// Types into a console, beside who reads it.
#[derive(Debug, Clone)]
pub struct Typist(mpsc::Sender<Order>);

impl Console {
    pub(crate) fn new() -> (Console, Ends) {
        let (events, read) = mpsc::channel(EVENTS);
        let (typed, orders) = mpsc::channel(CHUNKS);
        (Console { events: read, typist: Typist(typed) }, Ends { events, orders })
    }

    /// The next event. `None`: the BMC's handle was closed. May be given up while it waits, and called
    /// again.
    pub async fn recv(&mut self) -> Option<Event> {
        self.events.recv().await
    }

    /// For whoever types.
    pub fn typist(&self) -> Typist {
        self.typist.clone()
    }

    /// As [`Typist::send`].
    ///
    /// # Errors
    /// [`Error::Closed`].
    pub async fn send(&self, bytes: impl AsRef<[u8]>) -> Result<(), Error> {
        self.typist.send(bytes).await
    }

    /// As [`Typist::operate`].
    ///
    /// # Errors
    /// [`Error::Closed`].
    pub async fn operate(&self, operation: Operation) -> Result<(), Error> {
        self.typist.operate(operation).await
    }

    /// A BREAK behind what was typed.
    ///
    /// # Errors
    /// [`Error::Closed`].
    pub async fn send_break(&self) -> Result<(), Error> {
        self.operate(Operation::Break).await
    }

    /// Sends what was typed, as far as that takes no more than a few seconds, deactivates the payload and
    /// returns when that is done.
    pub async fn close(mut self) {
        self.events.close();
        let (done, closed) = oneshot::channel();
        if self.typist.0.send(Order::Close(done)).await.is_ok() {
            let _it_is_closed_either_way = closed.await;
        }
    }
}

impl Typist {
    /// Types. Returns when all of it is on its way or about to be: who types faster than the line waits.
    /// What is typed while the console is down is discarded, and the reader told.
    ///
    /// # Errors
    /// [`Error::Closed`].
    pub async fn send(&self, bytes: impl AsRef<[u8]>) -> Result<(), Error> {
        for chunk in bytes.as_ref().chunks(CHUNK) {
            let order = Order::Type(Bytes::copy_from_slice(chunk));
            self.0.send(order).await.map_err(|_| Error::Closed)?;
        }
        Ok(())
    }

    /// Does something to the line, after what was typed before.
    ///
    /// # Errors
    /// [`Error::Closed`].
    pub async fn operate(&self, operation: Operation) -> Result<(), Error> {
        self.0.send(Order::Do(operation)).await.map_err(|_| Error::Closed)
    }
}
