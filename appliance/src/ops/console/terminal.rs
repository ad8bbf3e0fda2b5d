//! The person's terminal: raw while he is at a line, and as it was afterwards, whatever happens; its keys, its screen
//! and its signals.

use std::collections::VecDeque;
use std::io::{self, IsTerminal, Read, Write};
use std::sync::{Mutex, MutexGuard, Once, PoisonError};
use std::time::Duration;

use rustix::termios::{OptionalActions, Termios, tcgetattr, tcgetwinsize, tcsetattr};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{mpsc, oneshot};

/// Read at once.
const READ: usize = 4096;
/// Pieces that wait for a screen, or for whoever takes keys.
const WAIT: usize = 16;
/// A terminal that takes nothing any more is left after so long.
const FAREWELL: Duration = Duration::from_secs(1);

/// The terminal as it was. Empty: it is as it was.
static BEFORE: Mutex<Option<Termios>> = Mutex::new(None);
static HOOK: Once = Once::new();

fn before() -> MutexGuard<'static, Option<Termios>> {
    BEFORE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A raw terminal on standard input. Dropped, it is as it was before.
#[derive(Debug)]
pub(super) struct Raw(());

impl Raw {
    /// None: standard input is no terminal.
    pub fn enter() -> io::Result<Option<Raw>> {
        if !io::stdin().is_terminal() {
            return Ok(None);
        }
        // A panic is shown on a terminal that can show it.
        HOOK.call_once(|| {
            let known = std::panic::take_hook();
            std::panic::set_hook(Box::new(move |info| {
                restore();
                known(info);
            }));
        });
        let now = tcgetattr(io::stdin())?;
        let mut raw = now.clone();
        raw.make_raw();
        *before() = Some(now);
        let entered = Raw(());
        tcsetattr(io::stdin(), OptionalActions::Now, &raw)?;
        Ok(Some(entered))
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        restore();
    }
}

fn restore() {
    if let Some(termios) = before().take() {
        // An error: the terminal is gone.
        let _as_well_as_can_be = tcsetattr(io::stdin(), OptionalActions::Drain, &termios);
    }
}

/// Columns and rows, where standard output is a terminal that knows them.
pub(super) fn size() -> Option<(u16, u16)> {
    let size = tcgetwinsize(io::stdout()).ok()?;
    (size.ws_col > 0 && size.ws_row > 0).then_some((size.ws_col, size.ws_row))
}

/// What is typed, as it comes; it ends with standard input. A thread reads it, for a terminal has no other way to be
/// read that leaves it as it is for the shell.
pub(super) fn keys() -> mpsc::Receiver<Vec<u8>> {
    let (keys, typed) = mpsc::channel(WAIT);
    std::thread::spawn(move || {
        let mut buffer = [0; READ];
        loop {
            match io::stdin().lock().read(&mut buffer) {
                Ok(0) => return,
                Ok(many) => {
                    let typed = buffer.get(..many).unwrap_or_default().to_vec();
                    if keys.blocking_send(typed).is_err() {
                        return;
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => return,
            }
        }
    });
    typed
}

/// Something to show.
#[derive(Debug)]
enum Shown {
    Out(Vec<u8>),
    Err(Vec<u8>),
}

/// The screen: a thread writes, for a terminal may take its time (or be stopped by a slow network), and keys are to be
/// heard meanwhile.
#[derive(Debug)]
pub(super) struct Screen {
    to: mpsc::Sender<Shown>,
    waits: VecDeque<Shown>,
    done: oneshot::Receiver<io::Result<()>>,
    /// Standard output is a terminal: what is said of the line is shown among its characters.
    terminal: bool,
    /// The cursor is not at the beginning of a line.
    within: bool,
}

impl Screen {
    pub fn new() -> Screen {
        let (to, mut shown) = mpsc::channel(WAIT);
        let (end, done) = oneshot::channel();
        std::thread::spawn(move || {
            let mut all = || {
                while let Some(piece) = shown.blocking_recv() {
                    match piece {
                        Shown::Out(bytes) => {
                            let mut out = io::stdout().lock();
                            out.write_all(&bytes)?;
                            out.flush()?;
                        }
                        Shown::Err(bytes) => io::stderr().lock().write_all(&bytes)?,
                    }
                }
                Ok(())
            };
            let _nobody_waits = end.send(all());
        });
        let terminal = io::stdout().is_terminal();
        Screen { to, waits: VecDeque::new(), done, terminal, within: false }
    }

    /// The machine's own.
    pub fn show(&mut self, bytes: Vec<u8>) {
        if let Some(last) = bytes.last() {
            self.within = *last != b'\n';
            self.waits.push_back(Shown::Out(bytes));
        }
    }

    /// In a line of its own.
    pub fn note(&mut self, text: &str) {
        let begin = if self.terminal && self.within { "\r\n" } else { "" };
        self.within = false;
        self.aside(format!("{begin}{text}\r\n"));
    }

    /// Where the cursor is, or on lines of its own where it has several.
    pub fn say(&mut self, text: &str) {
        let begin = if self.within && text.ends_with('\n') { "\r\n" } else { "" };
        self.within = self.within && !text.ends_with('\n');
        self.aside(format!("{begin}{text}"));
    }

    fn aside(&mut self, text: String) {
        self.waits.push_back(match self.terminal {
            true => Shown::Out(text.into_bytes()),
            false => Shown::Err(text.into_bytes()),
        });
    }

    /// More is to be shown than the terminal took.
    pub fn waits(&self) -> bool {
        !self.waits.is_empty()
    }

    /// Hands on what waits, as the terminal takes it. False: it takes nothing any more.
    pub async fn moves(&mut self) -> bool {
        match self.to.reserve().await {
            Ok(permit) => {
                if let Some(next) = self.waits.pop_front() {
                    permit.send(next);
                }
                true
            }
            Err(_) => false,
        }
    }

    /// Shows what waits, as far as that takes no more than a moment.
    pub async fn close(mut self) -> io::Result<()> {
        let all = async {
            while self.waits() && self.moves().await {}
            drop(self.to);
            self.done.await.unwrap_or(Ok(()))
        };
        tokio::time::timeout(FAREWELL, all).await.unwrap_or(Ok(()))
    }
}

/// What the system says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Told {
    /// To end, by the signal of this number.
    End(i32),
    /// To stop until it is continued.
    Stop,
    /// The window has another size.
    Size,
}

/// Signals, caught from now on.
#[derive(Debug)]
pub(super) struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hangup: Signal,
    quit: Signal,
    stop: Signal,
    size: Signal,
}

impl Signals {
    pub fn new() -> io::Result<Signals> {
        Ok(Signals {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hangup: signal(SignalKind::hangup())?,
            quit: signal(SignalKind::quit())?,
            stop: signal(SignalKind::from_raw(nix::sys::signal::Signal::SIGTSTP as i32))?,
            size: signal(SignalKind::window_change())?,
        })
    }

    pub async fn next(&mut self) -> Told {
        let end = |kind: SignalKind| Told::End(kind.as_raw_value());
        tokio::select! {
            _ = self.terminate.recv() => end(SignalKind::terminate()),
            _ = self.interrupt.recv() => end(SignalKind::interrupt()),
            _ = self.hangup.recv() => end(SignalKind::hangup()),
            _ = self.quit.recv() => end(SignalKind::quit()),
            _ = self.stop.recv() => Told::Stop,
            _ = self.size.recv() => Told::Size,
        }
    }
}

/// Stops this program; returns when it is continued.
pub(super) fn stop() {
    // Errors: it goes on at once.
    let _it_went_on = nix::sys::signal::raise(nix::sys::signal::Signal::SIGSTOP);
}
