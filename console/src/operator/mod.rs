//! Who may type: one person a line, whoever else looks.
//!
//! Everybody who is there is a [`Visitor`]; one of them holds the line, or none. What becomes of that is a mark in
//! the line's scrollback, which all who look see and the log keeps, and goes to whoever follows
//! [`Handle::turns`](crate::Handle::turns).

mod floor;
mod keys;

use std::fmt;
use std::future::pending;
use std::sync::{Arc, Mutex, Weak};
use std::time::{Duration, Instant};

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use tokio::sync::{broadcast, mpsc, watch};
use tokio::time::sleep_until;

pub use floor::Turn;
use floor::{Now, Turns};
pub use keys::{Entry, Keys, Typed};

use crate::line::locked;
use crate::scrollback::Mark;
use crate::state::{Record, clock};
use crate::wire::{Cannot, Operation, Typist};

/// Who typed nothing for so long gives way to who asks, unless the line's owner says otherwise.
pub const IDLE: Duration = Duration::from_secs(600);
/// Turns that a follower may be behind.
const TURNS: usize = 16;
/// Typed at once before it is looked whether the line was taken meanwhile.
const CHUNK: usize = 256;
/// People who are named to who asks who is there.
const PEOPLE: usize = 256;

/// Somebody at a line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Person {
    /// As the appliance knows him.
    pub name: String,
    /// By which way he came: `cli`, `ssh from 10.0.0.9`, `web`.
    pub via: String,
}

impl fmt::Display for Person {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.name, self.via)
    }
}

/// Who has a line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Holder {
    /// Who.
    #[serde(flatten)]
    pub person: Person,
    /// Since when, Unix milliseconds.
    pub since: u64,
    /// Of his visits to this line, which: as [`Visitor::number`].
    pub visit: u64,
}

/// Who has a line, and who wants it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Floor {
    /// Who types.
    pub holder: Option<Holder>,
    /// Who asks, the first one first.
    pub asking: Vec<Person>,
}

/// Why something was not typed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NotTyped {
    /// Another has the line.
    #[error("{} has the line now", .0.person)]
    Held(Holder),
    /// He let go of it, or never had it, and nobody has it now.
    #[error("nobody has the line: ask for it")]
    Gone,
    /// It did not reach the line.
    #[error(transparent)]
    Cannot(#[from] Cannot),
}

/// Why a line was not handed over.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NotHanded {
    /// Only who has it gives it.
    #[error("the line is not yours to hand over")]
    NotYours,
    /// Nobody of that name looks at the line.
    #[error("nobody called {name} is at this line")]
    NotHere {
        /// As was asked.
        name: String,
    },
    /// He only looks.
    #[error("{name} may look at this line, and not type")]
    MayNot {
        /// As was asked.
        name: String,
    },
    /// It is not clear who is meant.
    #[error("{many} called {name} are at this line: one of them has to ask for it")]
    Several {
        /// As was asked.
        name: String,
        /// How many.
        many: usize,
    },
}

/// One line's people.
#[derive(Debug)]
pub(crate) struct Desk {
    turns: Mutex<Turns>,
    floor: watch::Sender<Floor>,
    told: broadcast::Sender<Turn>,
    typist: watch::Receiver<Option<Typist>>,
    /// Where an audit hears what is typed.
    keys: Mutex<Option<mpsc::Sender<Typed>>>,
    record: Arc<Mutex<Record>>,
    /// Viewers are woken by it; it ends with the line.
    tell: Weak<watch::Sender<()>>,
}

impl Desk {
    pub fn new(
        typist: watch::Receiver<Option<Typist>>,
        record: Arc<Mutex<Record>>,
        tell: Weak<watch::Sender<()>>,
    ) -> Arc<Desk> {
        Arc::new(Desk {
            turns: Mutex::new(Turns::new(IDLE)),
            floor: watch::channel(Floor::default()).0,
            told: broadcast::channel(TURNS).0,
            typist,
            keys: Mutex::default(),
            record,
            tell,
        })
    }

    pub fn holder(&self) -> Option<Holder> {
        self.floor.borrow().holder.clone()
    }

    pub fn floor(&self) -> watch::Receiver<Floor> {
        self.floor.subscribe()
    }

    pub fn turns(&self) -> broadcast::Receiver<Turn> {
        self.told.subscribe()
    }

    pub fn people(&self) -> Vec<Person> {
        locked(&self.turns).people(PEOPLE)
    }

    pub fn keep_keys(&self, keys: Option<mpsc::Sender<Typed>>) {
        *locked(&self.keys) = keys;
    }

    /// Before it is typed, so that no echo comes before it.
    async fn tell(&self, visit: u64, bytes: &[u8]) {
        let Some(keys) = locked(&self.keys).clone() else { return };
        let Some(who) = locked(&self.turns).person(visit) else { return };
        let typed = Typed { at: clock(), who, bytes: Bytes::copy_from_slice(bytes) };
        let _the_audit_has_ended = keys.send(typed).await;
    }

    pub fn set_idle(&self, idle: Duration) {
        locked(&self.turns).idle = idle;
    }

    pub fn enter(self: &Arc<Desk>, person: Person, types: bool) -> Visitor {
        let number = locked(&self.turns).enter(person, types);
        Visitor { desk: self.clone(), number }
    }

    pub fn ask(self: &Arc<Desk>, person: Person) -> Result<Operator, Holder> {
        let visitor = self.enter(person, true);
        visitor.ask().map(|()| Operator { visitor })
    }

    pub fn take(self: &Arc<Desk>, person: Person) -> Operator {
        let visitor = self.enter(person, true);
        visitor.take();
        Operator { visitor }
    }

    /// Changes who has it, and tells all who want to know, in the order of what happened.
    fn change<T>(&self, change: impl FnOnce(&mut Turns, Now, &mut Vec<Turn>) -> T) -> T {
        let mut turns = locked(&self.turns);
        let (mut out, now) = (Vec::new(), (Instant::now(), clock()));
        let result = change(&mut turns, now, &mut out);
        if !out.is_empty() {
            let mut record = locked(&self.record);
            for turn in &out {
                record.scrollback.mark(now.1, Mark::Operator(turn.clone()));
            }
        }
        let floor = turns.floor();
        self.floor.send_if_modified(|known| {
            let new = *known != floor;
            *known = floor;
            new
        });
        if let (Some(tell), false) = (self.tell.upgrade(), out.is_empty()) {
            tell.send_replace(());
        }
        for turn in out {
            let _nobody_follows = self.told.send(turn);
        }
        result
    }
}

/// Somebody who is at a line, and may hold it. Dropped, he is gone, and the line is the next one's.
#[derive(Debug)]
pub struct Visitor {
    desk: Arc<Desk>,
    number: u64,
}

impl Visitor {
    /// Which visit to this line it is: no two have the same.
    pub fn number(&self) -> u64 {
        self.number
    }

    /// Whether he has the line.
    pub fn holds(&self) -> bool {
        locked(&self.desk.turns).holds(self.number)
    }

    /// Asks for the line. Where another has it, that one hears of it, and it comes to the one who asks as soon as it
    /// is free or its holder is idle, as long as somebody waits for [`Visitor::idleness`].
    ///
    /// # Errors
    /// Who has it.
    pub fn ask(&self) -> Result<(), Holder> {
        self.desk.change(|turns, now, out| turns.ask(self.number, now, out))
    }

    /// Has the line from now on, whoever had it.
    pub fn take(&self) {
        self.desk.change(|turns, now, out| turns.take(self.number, now, out));
    }

    /// Does not want it any more.
    pub fn release(&self) {
        self.desk.change(|turns, now, out| turns.release(self.number, now, out));
    }

    /// Gives it to somebody who is at this line too, by his name.
    ///
    /// # Errors
    /// It is not his, or it is not clear to whom.
    pub fn hand_over(&self, to: &str) -> Result<(), NotHanded> {
        self.desk.change(|turns, now, out| turns.hand_over(self.number, to, now, out))
    }

    /// Types. Returns when it is on its way: who types faster than the line waits.
    ///
    /// # Errors
    /// Another has the line, or it is down.
    pub async fn send(&self, bytes: &[u8]) -> Result<(), NotTyped> {
        for chunk in bytes.chunks(CHUNK) {
            let typist = self.typist()?;
            self.desk.tell(self.number, chunk).await;
            typist.send(chunk).await?;
        }
        Ok(())
    }

    /// Does something to the line, after what was typed before.
    ///
    /// # Errors
    /// As [`Visitor::send`], or the line cannot.
    pub async fn operate(&self, operation: Operation) -> Result<(), NotTyped> {
        Ok(self.typist()?.operate(operation).await?)
    }

    /// Who has the line and who wants it, from now on.
    pub fn floor(&self) -> watch::Receiver<Floor> {
        self.desk.floor()
    }

    /// Who is at this line, the first few hundred of them.
    pub fn people(&self) -> Vec<Person> {
        self.desk.people()
    }

    /// Never ends: gives the line to who asked once its holder is idle. Somebody who asked has to wait in it.
    pub async fn idleness(&self) {
        let mut floor = self.desk.floor();
        loop {
            let deadline = locked(&self.desk.turns).deadline();
            let due = async {
                match deadline {
                    Some(at) => sleep_until(at.into()).await,
                    None => pending().await,
                }
            };
            tokio::select! {
                () = due => self.desk.change(|turns, now, out| turns.late(now, out)),
                _ = floor.changed() => {}
            }
        }
    }

    fn typist(&self) -> Result<Typist, NotTyped> {
        let types = locked(&self.desk.turns).types(self.number, Instant::now());
        types.map_err(|holder| holder.map_or(NotTyped::Gone, NotTyped::Held))?;
        Ok(self.desk.typist.borrow().clone().ok_or(Cannot::Down)?)
    }
}

impl Drop for Visitor {
    fn drop(&mut self) {
        self.desk.change(|turns, now, out| turns.leave(self.number, now, out));
    }
}

/// The right to type into a line, of one who came for nothing else. Dropped, it is free for the next one.
#[derive(Debug)]
pub struct Operator {
    visitor: Visitor,
}

impl Operator {
    /// As [`Visitor::send`].
    ///
    /// # Errors
    /// Another has the line, or it is down.
    pub async fn send(&self, bytes: &[u8]) -> Result<(), NotTyped> {
        self.visitor.send(bytes).await
    }

    /// As [`Visitor::operate`].
    ///
    /// # Errors
    /// As [`Operator::send`], or the line cannot.
    pub async fn operate(&self, operation: Operation) -> Result<(), NotTyped> {
        self.visitor.operate(operation).await
    }

    /// He himself.
    pub(crate) fn visitor(&self) -> &Visitor {
        &self.visitor
    }

    /// Returns when the line is not his any more: who has it now, if anybody does.
    pub async fn lost(&self) -> Option<Holder> {
        let mut floor = self.visitor.floor();
        loop {
            let holder = floor.borrow_and_update().holder.clone();
            if holder.as_ref().is_none_or(|holder| holder.visit != self.visitor.number) {
                return holder;
            }
            if floor.changed().await.is_err() {
                return None;
            }
        }
    }
}
