//! One line that is always on: opened, opened again when it cannot be, read for ever.
//!
//! How it is opened is its owner's: it brings a function that does it once. The other kinds of lines (serial
//! ports, sockets, commands) come in there, as what gives [`Event`]s; whoever types gets a `Typist` from the
//! console that is open; logs are viewers.

use std::future::Future;
use std::mem::discriminant;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use koboshi_ipmi::Error;
use koboshi_ipmi::sol::{Console, Event};
use tokio::sync::{oneshot, watch};
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};

use crate::scrollback::Mark;
use crate::state::{Next, Record, Status, clock};
use crate::viewer::Viewer;

/// The first wait before another attempt; each next one is twice as long.
const FIRST: Duration = Duration::from_secs(1);
/// Never longer, where time may help.
const MOST: Duration = Duration::from_secs(30);
/// The first wait where the BMC wants something mended: iDRAC and others lock out whoever gives three wrong
/// passwords within a minute.
const FIRST_UNMENDED: Duration = Duration::from_secs(40);
/// Never longer where somebody has to mend something.
const MOST_UNMENDED: Duration = Duration::from_secs(300);
/// An attempt that is under way when the line is closed may come through within so long: what it opened is
/// closed too.
const FAREWELL: Duration = Duration::from_secs(3);

/// Why a line could not be opened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NotOpen {
    /// Its BMC's answer, or silence.
    Bmc(Error),
    /// Something on this side is not as it should be, in words: a password file that is not there.
    Here(String),
}

/// A line that is always on. When it is dropped it ends in the background; [`Line::close`] waits for that.
#[derive(Debug)]
pub struct Line {
    record: Arc<Mutex<Record>>,
    changed: watch::Receiver<()>,
    status: watch::Receiver<Status>,
    end: oneshot::Sender<()>,
    task: JoinHandle<()>,
}

impl Line {
    /// Begins. `open` opens it once, and is asked again whenever that is needed. To be called within a runtime.
    pub fn start<F, O>(open: F) -> Line
    where
        F: Fn() -> O + Send + Sync + 'static,
        O: Future<Output = Result<Console, NotOpen>> + Send + 'static,
    {
        let record = Record::new();
        let (state, status) = watch::channel(record.status().clone());
        let (tell, changed) = watch::channel(());
        let (end, ends) = oneshot::channel();
        let record = Arc::new(Mutex::new(record));
        let keeper = Keeper { record: record.clone(), tell, state };
        let task = tokio::spawn(keeper.run(open, ends));
        Line { record, changed, status, end, task }
    }

    /// Its state.
    pub fn status(&self) -> Status {
        self.status.borrow().clone()
    }

    /// For whoever wants to hear of each change; it ends with the line.
    pub fn follow_status(&self) -> watch::Receiver<Status> {
        self.status.clone()
    }

    /// Follows it from the last so many lines on.
    pub fn view(&self, lines: usize) -> Viewer {
        Viewer::new(self.record.clone(), self.changed.clone(), lines)
    }

    /// Ends it, and returns when its payload is deactivated, or was not within some seconds.
    pub async fn close(self) {
        let _it_ended_already = self.end.send(());
        let _it_is_closed_either_way = self.task.await;
    }
}

/// What runs for a line.
struct Keeper {
    record: Arc<Mutex<Record>>,
    tell: watch::Sender<()>,
    state: watch::Sender<Status>,
}

impl Keeper {
    async fn run<F, O>(self, open: F, mut ends: oneshot::Receiver<()>)
    where
        F: Fn() -> O + Send + Sync,
        O: Future<Output = Result<Console, NotOpen>> + Send,
    {
        let mut pause = Duration::ZERO;
        while let Some(mut console) = self.open(&open, &mut ends, pause).await {
            self.change(|record, now| record.opened(now));
            let again = loop {
                let event = tokio::select! {
                    _ = &mut ends => break None,
                    event = console.recv() => event,
                };
                match event {
                    Some(event) => {
                        if self.take(event) == Next::Anew {
                            break Some(FIRST_UNMENDED);
                        }
                    }
                    None => {
                        let why = Error::Closed.to_string();
                        self.change(|record, now| record.down(now, why));
                        break Some(FIRST);
                    }
                }
            };
            console.close().await;
            let Some(wait) = again else { break };
            pause = wait;
        }
        self.change(|record, now| record.scrollback.mark(now, Mark::Closed));
    }

    /// Tries until it is open, for the first time after this pause. None: nobody wants it any more.
    async fn open<F, O>(
        &self,
        open: &F,
        ends: &mut oneshot::Receiver<()>,
        mut pause: Duration,
    ) -> Option<Console>
    where
        F: Fn() -> O,
        O: Future<Output = Result<Console, NotOpen>>,
    {
        let mut told = None;
        loop {
            tokio::select! {
                () = sleep(jitter(pause)) => {}
                _ = &mut *ends => return None,
            }
            let attempt = open();
            tokio::pin!(attempt);
            let outcome = tokio::select! {
                outcome = &mut attempt => outcome,
                _ = &mut *ends => {
                    if let Ok(Ok(console)) = timeout(FAREWELL, attempt).await {
                        console.close().await;
                    }
                    return None;
                }
            };
            let why = match outcome {
                Ok(console) => return Some(console),
                Err(why) => why,
            };
            let (first, most) = match &why {
                why if is_passing(why) => (FIRST, MOST),
                NotOpen::Bmc(_) => (FIRST_UNMENDED, MOST_UNMENDED),
                NotOpen::Here(_) => (FIRST, MOST_UNMENDED),
            };
            // Each cause is told once, not at each attempt.
            if !told.as_ref().is_some_and(|told| same(told, &why)) {
                told = Some(why.clone());
                self.change(|record, now| match why {
                    NotOpen::Bmc(why) => record.refused(now, why),
                    NotOpen::Here(why) => record.down(now, why),
                });
            }
            pause = (pause * 2).clamp(first, most);
        }
    }

    fn take(&self, event: Event) -> Next {
        let mut next = Next::GoOn;
        self.change(|record, clock| next = record.take(event, (Instant::now(), clock)));
        next
    }

    fn change(&self, change: impl FnOnce(&mut Record, u64)) {
        let status = {
            let mut record = locked(&self.record);
            change(&mut record, clock());
            record.status().clone()
        };
        self.tell.send_replace(());
        self.state.send_if_modified(|known| {
            let new = *known != status;
            *known = status;
            new
        });
    }
}

/// Whether it is the same cause as before. Who has taken it is told of each.
fn same(one: &NotOpen, other: &NotOpen) -> bool {
    match (one, other) {
        (NotOpen::Bmc(one @ Error::SolTaken { .. }), NotOpen::Bmc(other)) => one == other,
        (NotOpen::Bmc(one), NotOpen::Bmc(other)) => discriminant(one) == discriminant(other),
        (one, other) => one == other,
    }
}

fn is_passing(why: &NotOpen) -> bool {
    matches!(why, NotOpen::Bmc(why) if why.is_passing())
}

/// Up to a quarter less: BMCs of a rack that got its power back must not all be asked at once.
fn jitter(wait: Duration) -> Duration {
    let share = getrandom::u32().unwrap_or(0) % 256;
    wait - wait * share / 1024
}

pub(crate) fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
