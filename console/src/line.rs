//! One line that is always on: opened, opened again when it cannot be, read for ever.
//!
//! How it is opened is its owner's: it brings a function that does it once.

use std::future::Future;
use std::mem::discriminant;
use std::ops::Deref;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use koboshi_ipmi::Error;
use serde::{Deserialize, Serialize};
use tokio::sync::{broadcast, mpsc, oneshot, watch};
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};

use crate::log::{self, Log, Start};
use crate::operator::{Desk, Floor, Holder, Operator, Person, Turn, Typed, Visitor};
use crate::pace::{Backoff, Pace};
use crate::screen::Drawn;
use crate::scrollback::Mark;
use crate::state::{Next, Record, Status, clock};
use crate::viewer::{Place, Viewer};
use crate::watch::Feed;
use crate::wire::{Event, NotOpen, Typist, Wire};

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

/// Taken into the scrollback at once.
const CHUNK: usize = 16 * 1024;

/// How a line's log is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Logging {
    /// It cannot be written: since when (Unix milliseconds), and why.
    pub failing: Option<(u64, String)>,
    /// Characters that could not be written and are lost, since the line was begun.
    pub lost: u64,
}

/// A line that is always on. When it is dropped it ends in the background; [`Line::close`] waits for that.
#[derive(Debug)]
pub struct Line {
    handle: Handle,
    end: oneshot::Sender<()>,
    task: JoinHandle<()>,
}

/// For whoever looks at a line or types into it. The line does not live by it.
#[derive(Debug, Clone)]
pub struct Handle {
    record: Arc<Mutex<Record>>,
    changed: watch::Receiver<()>,
    status: watch::Receiver<Status>,
    desk: Arc<Desk>,
}

/// What becomes of what a line says, besides its scrollback; and among whom it is opened.
#[derive(Debug, Default)]
pub struct Beside {
    /// It is written there; the line goes on where that ended.
    pub log: Option<Log>,
    /// It is watched for people.
    pub watch: Option<Feed>,
    /// It is opened in its turn among all that have this pace.
    pub pace: Option<Arc<Pace>>,
}

impl Line {
    /// Begins. `open` opens it once, and is asked again whenever that is needed. To be called within a runtime.
    /// What it says is kept in memory only.
    pub fn start<F, O>(open: F) -> Line
    where
        F: Fn() -> O + Send + Sync + 'static,
        O: Future<Output = Result<Wire, NotOpen>> + Send + 'static,
    {
        Line::start_beside(open, Beside::default())
    }

    /// The same, with more done of what it says, or in its turn.
    pub fn start_beside<F, O>(open: F, beside: Beside) -> Line
    where
        F: Fn() -> O + Send + Sync + 'static,
        O: Future<Output = Result<Wire, NotOpen>> + Send + 'static,
    {
        let mut record = Record::new();
        record.ready = beside.log.is_none();
        record.files = beside.log.as_ref().map(|log| log.dir().to_path_buf());
        let (state, status) = watch::channel(record.status().clone());
        let (tell, changed) = watch::channel(());
        let (typing, typist) = watch::channel(None);
        let (end, ends) = oneshot::channel();
        let record = Arc::new(Mutex::new(record));
        let tell = Arc::new(tell);
        let desk = Desk::new(typist, record.clone(), Arc::downgrade(&tell));
        let keeper =
            Keeper { record: record.clone(), tell, state, typing, pace: beside.pace.clone() };
        let task = tokio::spawn(keeper.run(open, beside, ends));
        let handle = Handle { record, changed, status, desk };
        Line { handle, end, task }
    }

    /// For whoever looks at it or types.
    pub fn handle(&self) -> Handle {
        self.handle.clone()
    }

    /// Ends it, and returns when it let go of what it is connected to, or could not within some seconds.
    pub async fn close(self) {
        let _it_ended_already = self.end.send(());
        let _it_is_closed_either_way = self.task.await;
    }
}

impl Deref for Line {
    type Target = Handle;

    fn deref(&self) -> &Handle {
        &self.handle
    }
}

impl Handle {
    /// Its state.
    pub fn status(&self) -> Status {
        self.status.borrow().clone()
    }

    /// For whoever wants to hear of each change; it ends with the line.
    pub fn follow_status(&self) -> watch::Receiver<Status> {
        self.status.clone()
    }

    /// Whether it is the same line: one that was closed and begun again is another.
    pub fn is(&self, other: &Handle) -> bool {
        Arc::ptr_eq(&self.record, &other.record)
    }

    /// Follows it from the last so many lines on.
    pub fn view(&self, lines: usize) -> Viewer {
        self.history(Start::Lines(lines))
    }

    /// Follows it from there on; what is older than its scrollback is read from its log.
    pub fn history(&self, start: Start) -> Viewer {
        Viewer::new(self.record.clone(), self.changed.clone(), start)
    }

    /// The screen as it stands now, and what is said from then on.
    pub fn screen(&self) -> (Drawn, Viewer) {
        let mut record = locked(&self.record);
        let drawn = record.scrollback.screen().drawn();
        let place = Place::at(&record);
        drop(record);
        (drawn, Viewer::at(self.record.clone(), self.changed.clone(), place))
    }

    /// The machine's terminal is of this size: the screen is from now on. Larger than a wall is refused.
    pub fn resize(&self, rows: u16, columns: u16) {
        locked(&self.record).scrollback.screen().resize(rows, columns);
    }

    /// How its log is. None: it has none.
    pub fn logging(&self) -> Option<Logging> {
        let record = locked(&self.record);
        let tap = record.scrollback.tap.as_ref()?;
        Some(Logging { failing: tap.failing.clone(), lost: tap.lost })
    }

    /// Who types, if anybody does.
    pub fn holder(&self) -> Option<Holder> {
        self.desk.holder()
    }

    /// Who types and who wants to, from now on.
    pub fn floor(&self) -> watch::Receiver<Floor> {
        self.desk.floor()
    }

    /// What becomes of the right to type, each turn from now on: for whoever keeps books.
    pub fn turns(&self) -> broadcast::Receiver<Turn> {
        self.desk.turns()
    }

    /// An audit hears of what is typed before it is typed, and whoever types waits for it. None: there is none.
    pub fn keep_keys(&self, keys: Option<mpsc::Sender<Typed>>) {
        self.desk.keep_keys(keys);
    }

    /// Who types nothing for so long gives way to who asks.
    pub fn set_idle(&self, idle: Duration) {
        self.desk.set_idle(idle);
    }

    /// Somebody comes, who may look and ask and type for as long as he is there. Not `types`: nobody can hand the
    /// line over to him; whether he may ask is for who lets him in to say.
    pub fn enter(&self, person: Person, types: bool) -> Visitor {
        self.desk.enter(person, types)
    }

    /// Who is there, the first few hundred of them.
    pub fn people(&self) -> Vec<Person> {
        self.desk.people()
    }

    /// Asks to type, once.
    ///
    /// # Errors
    /// Who has it.
    pub fn ask(&self, person: Person) -> Result<Operator, Holder> {
        self.desk.ask(person)
    }

    /// Types from now on, whoever did before.
    pub fn take(&self, person: Person) -> Operator {
        self.desk.take(person)
    }
}

/// What runs for a line.
struct Keeper {
    record: Arc<Mutex<Record>>,
    tell: Arc<watch::Sender<()>>,
    state: watch::Sender<Status>,
    typing: watch::Sender<Option<Typist>>,
    pace: Option<Arc<Pace>>,
}

impl Keeper {
    async fn run<F, O>(self, open: F, beside: Beside, mut ends: oneshot::Receiver<()>)
    where
        F: Fn() -> O + Send + Sync,
        O: Future<Output = Result<Wire, NotOpen>> + Send,
    {
        let Beside { mut watch, log, .. } = beside;
        if let Some(log) = log {
            log.begin(&self.record).await;
            self.change(|record, _| record.ready = true);
        }
        let mut backoff = Backoff::default();
        while let Some(mut wire) = self.open(&open, &mut ends, &mut backoff).await {
            let opened = Instant::now();
            self.typing.send_replace(Some(wire.typist()));
            self.change(|record, now| record.opened(now));
            let again = loop {
                let event = tokio::select! {
                    _ = &mut ends => break None,
                    event = wire.recv() => event,
                    () = due(&mut watch) => {
                        watch.iter_mut().for_each(|watch| watch.late((Instant::now(), clock())));
                        continue;
                    }
                };
                match event {
                    Some(event) => {
                        if let (Event::Data { bytes, .. }, Some(watch)) = (&event, &mut watch) {
                            watch.came(bytes, (Instant::now(), clock()));
                        }
                        if let Next::Anew { waits } = self.take(event).await {
                            break Some(waits);
                        }
                    }
                    None => {
                        let why = Error::Closed.to_string();
                        self.change(|record, now| record.down(now, why));
                        break Some((FIRST, MOST));
                    }
                }
            };
            self.typing.send_replace(None);
            watch.iter_mut().for_each(|watch| watch.broke_off((Instant::now(), clock())));
            wire.close().await;
            let Some(waits) = again else { break };
            backoff.lost(opened.elapsed(), waits);
        }
        self.change(|record, now| record.scrollback.mark(now, Mark::Closed));
        if let Some(feed) = self.feed() {
            feed.end(&self.record).await;
        }
    }

    /// Tries until it is open. None: nobody wants it any more.
    async fn open<F, O>(
        &self,
        open: &F,
        ends: &mut oneshot::Receiver<()>,
        backoff: &mut Backoff,
    ) -> Option<Wire>
    where
        F: Fn() -> O,
        O: Future<Output = Result<Wire, NotOpen>>,
    {
        let mut told = None;
        loop {
            tokio::select! {
                () = self.turn(backoff.wait()) => {}
                _ = &mut *ends => return None,
            }
            let attempt = open();
            tokio::pin!(attempt);
            let outcome = tokio::select! {
                outcome = &mut attempt => outcome,
                _ = &mut *ends => {
                    if let Ok(Ok(wire)) = timeout(FAREWELL, attempt).await {
                        wire.close().await;
                    }
                    return None;
                }
            };
            let why = match outcome {
                Ok(wire) => return Some(wire),
                Err(why) => why,
            };
            backoff.failed(waits(&why));
            // Each cause is told once, not at each attempt.
            if !told.as_ref().is_some_and(|told| same(told, &why)) {
                told = Some(why.clone());
                self.change(|record, now| record.refused(now, why));
            }
        }
    }

    /// Waits, and then for its turn among all.
    async fn turn(&self, wait: Duration) {
        sleep(jitter(wait)).await;
        if let Some(pace) = &self.pace {
            sleep(pace.turn(Instant::now())).await;
        }
    }

    async fn take(&self, event: Event) -> Next {
        let Some(feed) = self.feed() else { return self.note(event) };
        let Event::Data { at, mut bytes } = event else {
            feed.room(&self.record, 0).await;
            return self.note(event);
        };
        // The log has it before it is forgotten: the machine waits for the disk, not for who looks.
        while !bytes.is_empty() {
            let part = bytes.split_to(bytes.len().min(CHUNK));
            feed.room(&self.record, part.len()).await;
            self.note(Event::Data { at, bytes: part });
        }
        Next::GoOn
    }

    fn feed(&self) -> Option<Arc<log::Feed>> {
        locked(&self.record).scrollback.tap.as_ref().map(|tap| tap.feed.clone())
    }

    fn note(&self, event: Event) -> Next {
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

/// When what is watched wants to be looked at.
async fn due(watch: &mut Option<Feed>) {
    match watch {
        Some(watch) => watch.due().await,
        None => std::future::pending().await,
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

/// The first wait before another attempt, and the longest.
pub(crate) fn waits(why: &NotOpen) -> (Duration, Duration) {
    match why {
        NotOpen::Bmc(why) if why.is_passing() => (FIRST, MOST),
        NotOpen::Bmc(_) => (FIRST_UNMENDED, MOST_UNMENDED),
        NotOpen::Away(_) => (FIRST, MOST),
        NotOpen::Unplugged(_) => (FIRST / 2, FIRST * 2),
        NotOpen::Here(_) => (FIRST, MOST_UNMENDED),
    }
}

/// Up to a quarter less: BMCs of a rack that got its power back must not all be asked at once.
fn jitter(wait: Duration) -> Duration {
    let share = getrandom::u32().unwrap_or(0) % 256;
    wait - wait * share / 1024
}

pub(crate) fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
