//! Carries bytes, files and time between an engine and a line, until it is over.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::sync::mpsc;
use tokio::time::sleep_until;
use tokio_util::sync::CancellationToken;

use super::folder::{Folder, Said, Sources};
use super::{Answer, Engine, Failure, Next};

/// While what is to be sent waits, so much is taken of what comes.
const WAITING: usize = 256 * 1024;
/// A line that takes nothing for so long takes nothing any more: its program died with the line's buffers full, or
/// flow control holds it. (Whoever cancelled meanwhile was heard, and is believed then.)
const STALLED: Duration = Duration::from_secs(20);

/// A line, as somebody has it who reads and types there.
#[derive(Debug)]
pub struct Ends {
    /// What the machine says; it ends with the line.
    pub says: mpsc::Receiver<Bytes>,
    /// What is typed.
    pub types: mpsc::Sender<Bytes>,
}

/// What is done.
#[derive(Debug)]
pub enum Work {
    /// These are sent.
    Send(Sources),
    /// What comes is stored.
    Receive(Folder),
}

/// How it goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// A file begins, or goes on where it broke off.
    Begun {
        /// Its name: safe to be shown.
        name: String,
        /// Its size, if that is known.
        size: Option<u64>,
        /// So much of it was there already.
        at: u64,
    },
    /// So much of it is done. It may become less: what came to nothing is done again.
    At(u64),
    /// All of a file is there.
    Done {
        /// Its name.
        name: String,
        /// Bytes.
        size: u64,
        /// Where it is, if it was received.
        path: Option<PathBuf>,
        /// It may end in filling, up to a full block.
        padded: bool,
    },
    /// A file is not sent, or not taken.
    Skipped {
        /// Its name.
        name: String,
        /// Why.
        why: String,
    },
}

/// Runs it. `stop` ends it before its time, and the other side is told.
///
/// # Errors
/// Why it came to nothing; what is whole until then is kept, and what is not is `NAME.part`.
pub async fn drive(
    mut engine: Box<dyn Engine>,
    work: &mut Work,
    ends: &mut Ends,
    stop: &CancellationToken,
    mut tell: impl FnMut(Event),
) -> Result<(), Failure> {
    let mut shown = Shown::default();
    let mut stopped = false;
    loop {
        if let Ok(bytes) = ends.says.try_recv() {
            engine.came(&bytes);
        }
        if stop.is_cancelled() && !std::mem::replace(&mut stopped, true) {
            engine.stop(Failure::Stopped);
        }
        let done = match engine.next(Instant::now()) {
            Next::End(how) => return how,
            Next::Send(bytes) => send(&mut *engine, ends, bytes.into()).await,
            Next::Wait(until) => {
                tokio::select! {
                    bytes = ends.says.recv() => match bytes {
                        Some(bytes) => {
                            engine.came(&bytes);
                            Ok(())
                        }
                        None => Err(gone()),
                    },
                    () = sleep_until(until.into()) => Ok(()),
                    () = stop.cancelled(), if !stopped => Ok(()),
                }
            }
            next => shown.work(&mut *engine, work, next, &mut tell),
        };
        match done {
            Ok(()) => {}
            Err(why) if ends.types.is_closed() => return Err(why),
            // The other side is told first.
            Err(why) => engine.stop(why),
        }
    }
}

fn gone() -> Failure {
    Failure::Here("the line is gone, or not yours any more".to_string())
}

/// Sends, and hears meanwhile: both sides may be full of what the other one has to take.
async fn send(engine: &mut dyn Engine, ends: &mut Ends, bytes: Bytes) -> Result<(), Failure> {
    let mut waiting = 0;
    let stalled = tokio::time::sleep(STALLED);
    tokio::pin!(stalled);
    loop {
        tokio::select! {
            room = ends.types.reserve() => {
                room.map_err(|_| gone())?.send(bytes);
                return Ok(());
            }
            Some(came) = ends.says.recv(), if waiting < WAITING => {
                waiting += came.len();
                engine.came(&came);
            }
            () = &mut stalled => {
                let span = STALLED.as_secs();
                return Err(Failure::Here(format!("the line takes nothing since {span} s")));
            }
        }
    }
}

/// The file that is shown.
#[derive(Debug, Default)]
struct Shown {
    name: String,
    sent: Option<usize>,
}

impl Shown {
    fn work(
        &mut self,
        engine: &mut dyn Engine,
        work: &mut Work,
        next: Next,
        tell: &mut impl FnMut(Event),
    ) -> Result<(), Failure> {
        match (next, work) {
            (Next::Read { file, at, most }, Work::Send(sources)) => {
                if self.sent != Some(file)
                    && let Some(about) = sources.about(file)
                {
                    self.sent = Some(file);
                    self.name.clone_from(&about.name);
                    tell(Event::Begun { name: self.name.clone(), size: Some(about.size), at });
                }
                let bytes = sources.read(file, at, most)?;
                tell(Event::At(at + bytes.len() as u64));
                engine.data(&bytes);
            }
            (Next::Sent { file }, Work::Send(sources)) => {
                if let Some(about) = sources.about(file) {
                    let (name, size) = (about.name.clone(), about.size);
                    tell(Event::Done { name, size, path: None, padded: false });
                }
            }
            (Next::Skipped { file }, Work::Send(sources)) => {
                if let Some(about) = sources.about(file) {
                    let why = "the other side does not want it: it is there already".to_string();
                    tell(Event::Skipped { name: about.name.clone(), why });
                }
            }
            (Next::Offer(announced), Work::Receive(folder)) => {
                let size = announced.size;
                match folder.offer(announced)? {
                    Said::Taken { name, answer } => {
                        let Answer::Take { at, .. } = answer else { return Ok(()) };
                        self.name.clone_from(&name);
                        tell(Event::Begun { name, size, at });
                        engine.answer(answer);
                    }
                    Said::No { name, why } => {
                        tell(Event::Skipped { name, why });
                        engine.answer(Answer::Skip);
                    }
                }
            }
            (Next::Begin { at }, Work::Receive(folder)) => {
                folder.begin(at)?;
                tell(Event::At(at));
            }
            (Next::Store(bytes), Work::Receive(folder)) => tell(Event::At(folder.store(&bytes)?)),
            (Next::Whole { size, padded }, Work::Receive(folder)) => {
                let kept = folder.whole(size)?;
                let padded = padded && kept.size == size;
                let (name, path) = (self.name.clone(), Some(kept.path));
                tell(Event::Done { name, size: kept.size, path, padded });
            }
            _ => {
                let says = "the engine asks for what is not its work".to_string();
                return Err(Failure::Here(says));
            }
        }
        Ok(())
    }
}
