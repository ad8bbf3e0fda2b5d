//! A line while it is open: what it says and what it is told, of whatever kind it is.
//!
//! ```text
//! kind      what the site says of a line, opened once
//! stream    drives what is a stream of bytes; a `Codec` knows what they mean
//! exec      a command in a pseudo-terminal
//! serial    a serial port of this host
//! settings  how a serial port is set, wherever it is
//! tcp       bytes as they are
//! telnet    a terminal server, and the port behind it
//! unix      bytes as they are
//! ```

mod exec;
mod kind;
pub mod serial;
mod settings;
mod stream;
mod tcp;
pub mod telnet;
mod unix;

use std::fmt;
use std::future::poll_fn;
use std::time::{Duration, Instant};

use bytes::Bytes;
use koboshi_ipmi::{Error, sol};
use tokio::sync::{mpsc, oneshot};

pub use kind::Kind;
pub use settings::{Flow, NoSettings, Parity, Settings};
pub use stream::{Codec, drive};

use crate::scrollback::Mark;
use stream::Driven;

/// Events that wait for the keeper; then the machine has to wait.
const EVENTS: usize = 16;
/// Orders that wait for the line.
const ORDERS: usize = 4;
/// Characters that are typed at once.
const CHUNK: usize = 1024;

/// Why a line could not be opened, or is not open any more.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NotOpen {
    /// Its BMC's answer, or silence.
    Bmc(Error),
    /// Something on this side is not as it should be, in words: a password file that is not there.
    Here(String),
    /// The other side is not there, in words; time may help.
    Away(String),
    /// It is not plugged in, in words. To look again costs nobody anything.
    Unplugged(String),
}

/// What comes along an open line, in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// What the machine said.
    Data {
        /// When the first of it came.
        at: Instant,
        /// Never empty.
        bytes: Bytes,
    },
    /// Something happened between characters.
    Mark(Mark),
    /// Nothing comes any more.
    Down {
        /// Why.
        why: NotOpen,
        /// It comes up by itself, as Serial over LAN does. Otherwise this is its last event.
        itself: bool,
    },
    /// Somebody else took it. It comes up by itself once he is through.
    Stolen {
        /// Who, where that is known.
        by: Option<String>,
    },
    /// It came up by itself.
    Reconnected {
        /// How long nothing could come.
        after: Duration,
    },
}

/// What can be done to a line besides typing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Operation {
    /// A BREAK, which Linux takes for the start of a SysRq.
    Break,
    /// Data terminal ready: `false` hangs up.
    Dtr(bool),
    /// Request to send.
    Rts(bool),
}

/// Why something did not reach a line.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Cannot {
    /// It is not open.
    #[error("the line is down")]
    Down,
    /// This line cannot do that, ever or as it is set up; in words, what may help among them.
    #[error("{0}")]
    Unable(String),
}

/// What a line's driver is told.
#[derive(Debug)]
pub enum Order {
    /// To the machine.
    Type(Bytes),
    /// Behind what was typed before; the answer says what became of it.
    Do(Operation, oneshot::Sender<Result<(), Cannot>>),
    /// Sends what was typed, as far as that takes no more than a second or so, and lets go.
    Close(oneshot::Sender<()>),
}

/// The ends that a line's driver holds. It stops when `orders` ends, and ends `events` when it stops.
#[derive(Debug)]
pub struct Ends {
    /// What it says.
    pub events: mpsc::Sender<Event>,
    /// What it is told.
    pub orders: mpsc::Receiver<Order>,
}

/// An open line.
#[derive(Debug)]
pub struct Wire {
    says: Says,
    typist: Typist,
}

enum Says {
    Sol(sol::Console),
    Own(mpsc::Receiver<Event>),
    Driven(Box<dyn Driven>),
}

impl fmt::Debug for Says {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Says::Sol(_) => "Sol",
            Says::Own(_) => "Own",
            Says::Driven(_) => "Driven",
        })
    }
}

/// Types into an open line, beside who reads it.
#[derive(Debug, Clone)]
pub struct Typist(To);

#[derive(Debug, Clone)]
enum To {
    Sol(sol::Typist),
    Own(mpsc::Sender<Order>),
}

impl From<sol::Console> for Wire {
    fn from(console: sol::Console) -> Wire {
        let typist = Typist(To::Sol(console.typist()));
        Wire { says: Says::Sol(console), typist }
    }
}

impl Wire {
    /// One whose driver holds the ends.
    pub fn new() -> (Wire, Ends) {
        let (events, says) = mpsc::channel(EVENTS);
        let (tell, orders) = mpsc::channel(ORDERS);
        let wire = Wire { says: Says::Own(says), typist: Typist(To::Own(tell)) };
        (wire, Ends { events, orders })
    }

    /// One that is driven by being read.
    fn driven(driver: Box<dyn Driven>, tell: mpsc::Sender<Order>) -> Wire {
        Wire { says: Says::Driven(driver), typist: Typist(To::Own(tell)) }
    }

    /// The next event. None: it is down and does not come up by itself. May be given up while it waits, and
    /// called again. What is typed goes out while somebody waits here, too.
    pub async fn recv(&mut self) -> Option<Event> {
        match &mut self.says {
            Says::Driven(driver) => poll_fn(|cx| driver.poll_event(cx)).await,
            Says::Own(events) => events.recv().await,
            Says::Sol(console) => loop {
                if let Some(event) = of_sol(console.recv().await?) {
                    return Some(event);
                }
            },
        }
    }

    /// For whoever types.
    pub fn typist(&self) -> Typist {
        self.typist.clone()
    }

    /// Sends what was typed, as far as that takes no more than a moment, lets go of the line and returns when
    /// that is done.
    pub async fn close(self) {
        match (self.says, self.typist.0) {
            (Says::Sol(console), _) => console.close().await,
            (Says::Driven(driver), _) => driver.close().await,
            (Says::Own(mut events), To::Own(orders)) => {
                events.close();
                let (done, closed) = oneshot::channel();
                if orders.send(Order::Close(done)).await.is_ok() {
                    let _it_is_closed_either_way = closed.await;
                }
            }
            (Says::Own(_), To::Sol(_)) => {}
        }
    }
}

impl Typist {
    /// Types. Returns when all of it is on its way or about to be: who types faster than the line waits.
    ///
    /// # Errors
    /// The line is down.
    pub async fn send(&self, bytes: &[u8]) -> Result<(), Cannot> {
        crate::thread::typed();
        match &self.0 {
            To::Sol(typist) => typist.send(bytes).await.map_err(|_| Cannot::Down),
            To::Own(orders) => {
                for chunk in bytes.chunks(CHUNK) {
                    let order = Order::Type(Bytes::copy_from_slice(chunk));
                    orders.send(order).await.map_err(|_| Cannot::Down)?;
                }
                Ok(())
            }
        }
    }

    /// Does something to the line, after what was typed before.
    ///
    /// # Errors
    /// The line is down, or cannot do it.
    pub async fn operate(&self, operation: Operation) -> Result<(), Cannot> {
        match &self.0 {
            To::Sol(typist) => {
                let operation = match operation {
                    Operation::Break => sol::Operation::Break,
                    Operation::Dtr(up) => sol::Operation::Dcd(up),
                    Operation::Rts(up) => sol::Operation::Cts(up),
                };
                typist.operate(operation).await.map_err(|_| Cannot::Down)
            }
            To::Own(orders) => {
                let (answer, answered) = oneshot::channel();
                let order = Order::Do(operation, answer);
                orders.send(order).await.map_err(|_| Cannot::Down)?;
                answered.await.unwrap_or(Err(Cannot::Down))
            }
        }
    }
}

/// None: what is new in the protocol is told there first.
fn of_sol(event: sol::Event) -> Option<Event> {
    Some(match event {
        sol::Event::Data { at, bytes, .. } => Event::Data { at, bytes },
        sol::Event::Down { why } => {
            let itself = why.is_passing();
            Event::Down { why: NotOpen::Bmc(why), itself }
        }
        sol::Event::Stolen { by } => Event::Stolen { by },
        sol::Event::Reconnected { after } => Event::Reconnected { after },
        sol::Event::Gap { packets } => Event::Mark(Mark::Gap { packets }),
        sol::Event::Overrun => Event::Mark(Mark::Overrun),
        sol::Event::Break => Event::Mark(Mark::Break),
        sol::Event::Unavailable => Event::Mark(Mark::Unavailable),
        sol::Event::Available => Event::Mark(Mark::Available),
        sol::Event::Discarded { bytes } => Event::Mark(Mark::Discarded { characters: bytes }),
        _ => return None,
    })
}
