//! Drives a console: activates the payload, moves it between the session and the console's user, asks now
//! and then whose it is, and activates it again whenever it is lost.

use std::future::Future;
use std::mem::discriminant;
use std::pin::Pin;
use std::time::{Duration, Instant};

use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::{OwnedSemaphorePermit, mpsc, oneshot};
use tokio::time::{sleep, sleep_until, timeout};

use super::{Bmc, PayloadEvent, Payloads};
use crate::crypto::Suite;
use crate::error::Error;
use crate::quirks::{Quirk, Quirks};
use crate::sol::activate::{self, Activation, Takeover};
use crate::sol::console::{CHUNK, Console, Ends, Options, Order};
use crate::sol::engine::{Ended, Engine};
use crate::sol::event::Event;
use crate::sol::owner::{self, Bearer, Owner};
use crate::wire::v20::PayloadType;

/// How long closing waits, for what was typed and for the deactivation.
const FAREWELL: Duration = Duration::from_secs(3);
/// A thief is left in peace so long before it is looked whether he is through.
const THEFT: Duration = Duration::from_secs(10);
/// How often it is looked who ended ours.
const LOOKS: usize = 3;
const BETWEEN_LOOKS: Duration = Duration::from_millis(400);

impl Bearer for Bmc {
    fn session(&self) -> Option<u32> {
        self.facts().map(|facts| facts.managed)
    }

    fn suite(&self) -> Option<Suite> {
        self.facts().and_then(|facts| Suite::by_id(facts.suite?))
    }

    fn orphans(&self) -> Vec<u32> {
        self.0.known.orphans()
    }
}

impl Bmc {
    /// Opens its console, of which there can be one at a time. It stays open across whatever happens to the
    /// session, the BMC and the machine, and tells its reader; it ends when it is closed or dropped.
    ///
    /// # Errors
    /// Why it could not be opened now: [`Error::SolTaken`], [`Error::SolDisabled`], and those of any command.
    pub async fn sol(&self, options: Options) -> Result<Console, Error> {
        let only = self.0.console.clone().try_acquire_owned();
        let only = only.map_err(|_| Error::Invalid("its console is open already".to_string()))?;
        let payloads = self.payloads(PayloadType::Sol).await?;
        let mut line = Line { bmc: self.clone(), options, payloads, acks_once: false };
        let activation = line.activate(line.options.takeover).await?;
        let (console, ends) = Console::new();
        tokio::spawn(Driver { line, typed: 0 }.run(activation, ends, only));
        Ok(console)
    }
}

/// Why an activation was left.
enum Left {
    /// Nobody wants it any more.
    Closed(Option<oneshot::Sender<()>>),
    Down(Error),
    Stolen(Option<String>),
}

type Asking = Pin<Box<dyn Future<Output = Result<Owner, Error>> + Send>>;

/// What activations have in common.
struct Line {
    bmc: Bmc,
    options: Options,
    payloads: Payloads,
    /// Found out in an activation before.
    acks_once: bool,
}

struct Driver {
    line: Line,
    /// Characters that were typed and never taken, since the reader was told.
    typed: usize,
}

impl Line {
    fn quirks(&self) -> Quirks {
        let known = self.bmc.access().quirks.and(self.bmc.learned().quirks);
        if self.acks_once { known.with(Quirk::SolAcksOnce) } else { known }
    }

    async fn activate(&mut self, takeover: Takeover) -> Result<Activation, Error> {
        // What came before belongs to an activation before.
        if !self.payloads.skip() {
            self.payloads = self.bmc.payloads(PayloadType::Sol).await?;
        }
        let wish = self.options.wish(takeover, self.quirks());
        let activation = activate::activate(&self.bmc, &wish).await?;
        let agreed = activation.agreed;
        if !agreed.is_at(self.bmc.access().port) {
            // ASUS and others tell a wrong one; where it were right, a session of its own would be needed.
            tracing::debug!(bmc = ?self.bmc, port = agreed.port, "Serial over LAN is said to be at another port");
        }
        Ok(activation)
    }

    /// Why the BMC ended it, or took nothing any more.
    async fn left(&self, ended: Ended, activation: &Activation) -> Left {
        // A thief ends ours before he begins his: who asks at once finds nobody, and would be in his way.
        let looks = if ended == Ended::Deactivated { LOOKS } else { 1 };
        for look in 0..looks {
            if look > 0 {
                sleep(BETWEEN_LOOKS).await;
            }
            if activation.tells_owner
                && let Ok(Owner::Other(thief)) = owner::ask(&self.bmc, self.options.instance).await
            {
                return self.stolen(thief).await;
            }
        }
        Left::Down(match ended {
            Ended::Deactivated => Error::SolEnded,
            Ended::Deaf => Error::SolDeaf,
        })
    }

    async fn stolen(&self, thief: u32) -> Left {
        Left::Stolen(owner::name(&self.bmc, thief).await)
    }
}

impl Driver {
    async fn run(mut self, mut activation: Activation, mut ends: Ends, only: OwnedSemaphorePermit) {
        loop {
            let left = self.serve(&activation, &mut ends).await;
            let since = Instant::now();
            let stolen = matches!(left, Left::Stolen(_));
            let patience = match left {
                Left::Closed(done) => {
                    let ended = activate::deactivate(&self.line.bmc, self.line.options.instance);
                    let _a_bmc_that_is_gone_ends_it_by_itself = timeout(FAREWELL, ended).await;
                    // Whoever waits may open another at once.
                    drop(only);
                    drop(done);
                    return;
                }
                Left::Down(Error::Closed) => return,
                Left::Down(why) => {
                    let _its_reader_is_gone = ends.events.send(Event::Down { why }).await;
                    Duration::ZERO
                }
                Left::Stolen(by) => {
                    let _its_reader_is_gone = ends.events.send(Event::Stolen { by }).await;
                    THEFT.min(self.line.options.back_off_most)
                }
            };
            let Some(again) = self.again(patience, stolen, &mut ends).await else { return };
            activation = again;
            if self.typed > 0 {
                let bytes = std::mem::take(&mut self.typed);
                let _its_reader_is_gone = ends.events.send(Event::Discarded { bytes }).await;
            }
            let after = since.elapsed();
            let _its_reader_is_gone = ends.events.send(Event::Reconnected { after }).await;
        }
    }

    /// One activation, until it is over.
    async fn serve(&mut self, activation: &Activation, ends: &mut Ends) -> Left {
        let mut engine =
            Engine::new(&self.line.options.settings(&activation.agreed, self.line.quirks()));
        let session = self.line.bmc.session();
        let mut look = Instant::now() + self.line.options.keep_alive;
        let mut asking: Option<Asking> = None;
        let mut ready: Option<Event> = None;
        // Until when what was typed may still be sent, and who waits for that.
        let (mut closing, mut waits, mut typists) = (None, None, true);
        let left = loop {
            let now = Instant::now();
            while let Some(payload) = engine.poll(now) {
                self.line.payloads.send(payload);
            }
            if deliver(&mut engine, &mut ready, &ends.events).is_err() && closing.is_none() {
                closing = Some(now + FAREWELL);
            }
            if let Some(until) = closing {
                // Whoever closes does not read any more.
                while engine.event().is_some() {}
                ready = None;
                if (engine.is_idle() && ends.orders.is_empty()) || now >= until {
                    return Left::Closed(waits);
                }
            }
            if let (Some(ended), None) = (engine.ended(), &ready) {
                break self.line.left(ended, activation).await;
            }
            let deadline = engine.deadline();
            tokio::select! {
                event = self.line.payloads.next() => match event {
                    Some(PayloadEvent::Payload { number, bytes }) => {
                        engine.handle(number, &bytes, Instant::now());
                    }
                    Some(PayloadEvent::Lost(error)) => break Left::Down(error),
                    None => match self.line.bmc.payloads(PayloadType::Sol).await {
                        Ok(payloads) => {
                            self.line.payloads = payloads;
                            break Left::Down(Error::Lost { waited: Duration::ZERO });
                        }
                        Err(error) => break Left::Down(error),
                    },
                },
                order = ends.orders.recv(), if typists && engine.room() >= CHUNK => {
                    match order {
                        Some(Order::Type(bytes)) => drop(engine.write(&bytes)),
                        Some(Order::Do(operation)) => drop(engine.operate(operation)),
                        Some(Order::Close(done)) => {
                            waits = Some(done);
                            closing.get_or_insert(Instant::now() + FAREWELL);
                        }
                        None => typists = false,
                    }
                }
                permit = ends.events.reserve(), if ready.is_some() => {
                    if let (Ok(permit), Some(event)) = (permit, ready.take()) {
                        permit.send(event);
                    }
                }
                () = ends.events.closed(), if closing.is_none() => {
                    closing = Some(Instant::now() + FAREWELL);
                }
                () = until(deadline) => {}
                () = until(closing) => {}
                () = sleep_until(look.into()), if asking.is_none() => {
                    if session != self.line.bmc.session() {
                        break Left::Down(Error::Lost { waited: self.line.options.keep_alive });
                    }
                    if activation.tells_owner {
                        let (bmc, instance) = (self.line.bmc.clone(), self.line.options.instance);
                        asking = Some(Box::pin(async move { owner::ask(&bmc, instance).await }));
                    }
                    look = Instant::now() + self.line.options.keep_alive;
                }
                owner = answered(&mut asking) => {
                    asking = None;
                    match owner {
                        Ok(Owner::Other(thief)) => break self.line.stolen(thief).await,
                        Ok(Owner::Nobody) => {
                            break self.line.left(Ended::Deactivated, activation).await;
                        }
                        // What cannot be asked is the session's affair, and comes as its loss.
                        Ok(Owner::Us | Owner::Orphan(_) | Owner::Unknown) | Err(_) => {}
                    }
                }
            }
        };
        self.line.acks_once |= engine.acks_once();
        self.typed += engine.waiting();
        // What came before it was lost is still the reader's.
        for event in ready.into_iter().chain(std::iter::from_fn(|| engine.event())) {
            if ends.events.send(event).await.is_err() {
                break;
            }
        }
        left
    }

    /// Activates it again, however long that takes. `None`: nobody wants it any more.
    async fn again(
        &mut self,
        mut wait: Duration,
        mut stolen: bool,
        ends: &mut Ends,
    ) -> Option<Activation> {
        let takeover = match self.line.options.takeover {
            Takeover::Always => Takeover::OwnOrphan,
            other => other,
        };
        let mut told = None;
        let mut next = self.line.options.back_off;
        loop {
            unless_closed(sleep(wait), &mut self.typed, ends).await?;
            let turn = self.line.options.turn.wait();
            unless_closed(sleep(turn), &mut self.typed, ends).await?;
            let attempt = self.line.activate(takeover);
            let outcome = unless_closed(attempt, &mut self.typed, ends).await?;
            match outcome {
                Ok(activation) => return Some(activation),
                Err(Error::Closed) => return None,
                // Each cause is told once, not at each attempt.
                Err(Error::SolTaken { .. }) if stolen => {}
                Err(Error::SolTaken { by }) => {
                    stolen = true;
                    ends.events.send(Event::Stolen { by }).await.ok()?;
                }
                Err(why) => {
                    let cause = discriminant(&why);
                    if told.replace(cause) != Some(cause) {
                        ends.events.send(Event::Down { why }).await.ok()?;
                    }
                }
            }
            wait = next;
            next = (next * 2).min(self.line.options.back_off_most);
        }
    }
}

/// Waits for something, while what is typed is counted and discarded. `None`: nobody waits for it any more.
async fn unless_closed<T>(
    work: impl Future<Output = T>,
    typed: &mut usize,
    ends: &mut Ends,
) -> Option<T> {
    tokio::pin!(work);
    loop {
        tokio::select! {
            done = &mut work => return Some(done),
            order = ends.orders.recv() => match order {
                Some(Order::Type(bytes)) => *typed += bytes.len(),
                Some(Order::Do(_)) => {}
                Some(Order::Close(_)) | None => return None,
            },
            () = ends.events.closed() => return None,
        }
    }
}

/// Hands on what there is to read, as far as there is place; what comes next stays in `ready`. An error: there
/// is no reader any more.
fn deliver(
    engine: &mut Engine,
    ready: &mut Option<Event>,
    events: &mpsc::Sender<Event>,
) -> Result<(), Error> {
    while let Some(event) = ready.take().or_else(|| engine.event()) {
        match events.try_send(event) {
            Ok(()) => {}
            Err(TrySendError::Full(event)) => {
                *ready = Some(event);
                break;
            }
            Err(TrySendError::Closed(_)) => return Err(Error::Closed),
        }
    }
    Ok(())
}

async fn until(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => sleep_until(deadline.into()).await,
        None => std::future::pending().await,
    }
}

async fn answered(asking: &mut Option<Asking>) -> Result<Owner, Error> {
    match asking {
        Some(asking) => asking.await,
        None => std::future::pending().await,
    }
}
