//! Who may type: one person a line, whoever else looks.

use std::sync::{Arc, Mutex};

use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use crate::line::locked;
use crate::state::clock;
use crate::wire::{Cannot, Operation, Typist};

/// Somebody who wants to type.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Person {
    /// As the appliance knows him.
    pub name: String,
    /// By which way he came: `cli`, `ssh from 10.0.0.9`, `web`.
    pub via: String,
}

/// Who has a line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Holder {
    /// Who.
    #[serde(flatten)]
    pub person: Person,
    /// Since when, Unix milliseconds.
    pub since: u64,
}

/// Why something was not typed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NotTyped {
    /// Another has the line.
    #[error("{} has the line now", .0.person.name)]
    Held(Holder),
    /// He let go of it, or it was taken from him and nobody has it now.
    #[error("the line is not yours any more")]
    Gone,
    /// It did not reach the line.
    #[error(transparent)]
    Cannot(#[from] Cannot),
}

/// One line's operator, if it has one.
#[derive(Debug)]
pub(crate) struct Desk {
    seat: Mutex<Seat>,
    holder: watch::Sender<Option<Holder>>,
    typist: watch::Receiver<Option<Typist>>,
}

#[derive(Debug, Default)]
struct Seat {
    /// Of who has it: each gets another.
    number: u64,
}

impl Desk {
    pub fn new(typist: watch::Receiver<Option<Typist>>) -> Arc<Desk> {
        Arc::new(Desk { seat: Mutex::default(), holder: watch::channel(None).0, typist })
    }

    pub fn holder(&self) -> Option<Holder> {
        self.holder.borrow().clone()
    }

    pub fn ask(self: &Arc<Desk>, person: Person) -> Result<Operator, Holder> {
        let mut seat = locked(&self.seat);
        match self.holder() {
            Some(holder) => Err(holder),
            None => Ok(self.sit(&mut seat, person)),
        }
    }

    pub fn take(self: &Arc<Desk>, person: Person) -> Operator {
        let mut seat = locked(&self.seat);
        self.sit(&mut seat, person)
    }

    fn sit(self: &Arc<Desk>, seat: &mut Seat, person: Person) -> Operator {
        seat.number += 1;
        self.holder.send_replace(Some(Holder { person, since: clock() }));
        Operator { desk: self.clone(), number: seat.number }
    }
}

/// The right to type into a line. Dropped, it is free for the next one.
#[derive(Debug)]
pub struct Operator {
    desk: Arc<Desk>,
    number: u64,
}

impl Operator {
    /// Types. Returns when it is on its way: who types faster than the line waits.
    ///
    /// # Errors
    /// Another has the line, or it is down.
    pub async fn send(&self, bytes: &[u8]) -> Result<(), NotTyped> {
        Ok(self.typist()?.send(bytes).await?)
    }

    /// Does something to the line, after what was typed before.
    ///
    /// # Errors
    /// As [`Operator::send`], or the line cannot.
    pub async fn operate(&self, operation: Operation) -> Result<(), NotTyped> {
        Ok(self.typist()?.operate(operation).await?)
    }

    fn typist(&self) -> Result<Typist, NotTyped> {
        let seat = locked(&self.desk.seat);
        if seat.number != self.number {
            return Err(self.desk.holder().map_or(NotTyped::Gone, NotTyped::Held));
        }
        Ok(self.desk.typist.borrow().clone().ok_or(Cannot::Down)?)
    }
}

impl Drop for Operator {
    fn drop(&mut self) {
        let seat = locked(&self.desk.seat);
        if seat.number == self.number {
            self.desk.holder.send_replace(None);
        }
    }
}
