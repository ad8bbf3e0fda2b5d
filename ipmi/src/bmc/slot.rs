//! One BMC in its shard: its session, and who waits for what of it.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use tokio::sync::{mpsc, oneshot};

use super::Known;
use super::payloads::PayloadEvent;
use crate::error::Error;
use crate::message::Response;
use crate::session::{Event, Session, Ticket};
use crate::wire::v20::PayloadType;

pub(super) type Reply = oneshot::Sender<Result<Response, Error>>;

/// One BMC.
pub(super) struct Slot {
    pub peer: SocketAddr,
    pub session: Session,
    pub known: Arc<Known>,
    pub asked: HashMap<Ticket, Reply>,
    pub riders: Vec<(PayloadType, mpsc::Sender<PayloadEvent>)>,
    /// The earliest entry of it in `timers`.
    pub timer: Option<Instant>,
    /// It counts among those whose session is on its way.
    pub counted: bool,
    /// Its handle is gone; it stays until the BMC was told.
    pub detached: bool,
    pub done: Vec<oneshot::Sender<()>>,
}

impl Slot {
    /// Tells those whom it concerns. `port`: ours.
    pub fn tell(&mut self, event: Event, port: u16) {
        match event {
            Event::Wanted => {}
            Event::Answer(ticket, answer) => {
                if let Some(reply) = self.asked.remove(&ticket) {
                    let _who_asked_is_gone = reply.send(answer);
                }
            }
            Event::Payload(kind, number, bytes) => {
                let rider = self.riders.iter().find(|(other, _)| *other == kind);
                if let Some((_, sink)) = rider
                    && sink.try_send(PayloadEvent::Payload { number, bytes }).is_err()
                {
                    tracing::debug!(peer = %self.peer, "a payload that nobody reads is dropped");
                }
            }
            Event::Lost(error) => {
                for (_, sink) in &self.riders {
                    let _nobody_reads = sink.try_send(PayloadEvent::Lost(error.clone()));
                }
            }
            Event::Learned(learned) => self.known.learned(learned),
            Event::Opened(facts) => self.known.opened(facts, port),
            Event::Closed => self.known.closed(),
        }
    }
}
