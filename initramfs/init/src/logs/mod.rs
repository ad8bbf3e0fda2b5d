//! What the running system logs goes to the appliance: a machine without a disk forgets it (S15). A child of the
//! agent's, which begins with the system's own init.
//!
//! ```text
//! journald   forwards to /run/systemd/journal/syslog (its ForwardToSyslog), which is ours if nobody has it
//! without    /dev/log is ours if nobody has it
//! kernel     /dev/kmsg, from the beginning: journald does not forward that (man journald.conf)
//! ```
//!
//! By TCP, octets counted (RFC 6587): what the appliance does not take for a while waits here, as long as there
//! is room, and what is dropped then is counted and told. An image with a syslog of its own keeps it: its
//! socket is taken from us, or was never ours.

pub mod netconsole;
mod queue;
mod words;

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::process::{Child, Command, ExitCode, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use nix::sys::socket::{setsockopt, sockopt};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::agent::{Bell, PROGRAM, init_is_systemd};
use crate::backoff;
use crate::clock;
use queue::Queue;

/// The first argument of the child; its second is where to send to.
pub const WORD: &str = "logs";
const JOURNALD: &str = "/run/systemd/journald.conf.d/koboshi.conf";
const JOURNAL: &str = "/run/systemd/journal/syslog";
const DEV_LOG: &str = "/dev/log";
const KMSG: &str = "/dev/kmsg";

/// What waits for the appliance, bytes: a system that starts says about 200 kB.
const WAITING: usize = 1 << 20;
/// A message is never longer; the appliance would cut it.
const LONGEST: usize = 16 * 1024;
const CONNECT: Duration = Duration::from_secs(5);
const RETRY_MAX: Duration = Duration::from_secs(60);
/// At the end what waits is sent no longer than this.
const FAREWELL: Duration = Duration::from_secs(1);
/// Messages that are read at once from one place.
const BATCH: usize = 64;
/// An init that is not systemd has so long to start a syslogd.
const GRACE: Duration = Duration::from_secs(5);
/// A child that died is started again after this.
const AGAIN: Duration = Duration::from_secs(10);

/// Tells journald, before it starts, to forward. It matters to no other init.
pub fn prepare() -> io::Result<()> {
    let folder = Path::new(JOURNALD).parent().unwrap_or(Path::new("/run"));
    fs::create_dir_all(folder)?;
    fs::write(JOURNALD, "# koboshi: to the appliance\n[Journal]\nForwardToSyslog=yes\n")
}

/// The child, as its parent keeps it.
pub struct Forwarder {
    to: SocketAddr,
    child: Option<Child>,
    next: Instant,
}

impl Forwarder {
    pub fn new(to: SocketAddr) -> Forwarder {
        Forwarder { to, child: None, next: Instant::now() }
    }

    /// Starts it, and again if it has died.
    pub fn mind(&mut self) {
        if let Some(child) = &mut self.child {
            match child.try_wait() {
                Ok(None) => return,
                _ => self.child = None,
            }
            self.next = Instant::now() + AGAIN;
        }
        if Instant::now() < self.next {
            return;
        }
        self.next = Instant::now() + AGAIN;
        let command = Command::new(PROGRAM)
            .args([WORD, &self.to.to_string()])
            .env_clear()
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn();
        self.child = command.ok();
    }
}

/// The child's whole life.
pub fn run(to: Option<String>) -> ExitCode {
    let Some(to) = to.and_then(|to| to.parse().ok()) else {
        eprintln!("koboshi-init {WORD}: where to? ADDRESS:PORT");
        return ExitCode::from(2);
    };
    // Nobody is left who would start it again.
    let _ = nix::sys::prctl::set_pdeathsig(nix::sys::signal::Signal::SIGTERM);
    match forward(to) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("koboshi-init {WORD}: {error}");
            ExitCode::FAILURE
        }
    }
}

fn forward(to: SocketAddr) -> io::Result<()> {
    let bell = Bell::new()?;
    let kmsg = OpenOptions::new().read(true).custom_flags(nix::libc::O_NONBLOCK).open(KMSG);
    let mut kmsg = kmsg.ok();
    let mut own: Option<UnixDatagram> = None;
    let begun = Instant::now();
    let mut look = begun;
    let mut line = Line::new(to);
    let mut queue = Queue::new(WAITING);
    let mut buffer = vec![0; LONGEST];
    let mut end: Option<Instant> = None;
    loop {
        if own.is_none() && Instant::now() >= look {
            own = take_socket(begun);
            look = Instant::now() + Duration::from_millis(200);
        }
        if let Some(kernel) = &mut kmsg
            && !read_kernel(kernel, &mut buffer, &mut queue)
        {
            kmsg = None;
        }
        if let Some(socket) = &own {
            read_socket(socket, &mut buffer, &mut queue);
        }
        line.mind(&mut queue);
        if end.is_some_and(|end| Instant::now() >= end || queue.is_empty()) {
            return Ok(());
        }
        let rung = wait(&bell, kmsg.as_ref(), own.as_ref(), line.stream(&queue), own.is_none());
        if rung && end.is_none() {
            end = Some(Instant::now() + FAREWELL);
        }
    }
}

/// Until there is something to do. True: told to stop.
fn wait(
    bell: &Bell,
    kmsg: Option<&File>,
    own: Option<&UnixDatagram>,
    stream: Option<(&TcpStream, bool)>,
    soon: bool,
) -> bool {
    let mut fds = vec![PollFd::from_borrowed_fd(bell.as_fd(), PollFlags::IN)];
    let readable = [kmsg.map(File::as_fd), own.map(UnixDatagram::as_fd)];
    let readable = readable.into_iter().flatten();
    fds.extend(readable.map(|fd: BorrowedFd<'_>| PollFd::from_borrowed_fd(fd, PollFlags::IN)));
    if let Some((stream, full)) = stream {
        let flags = if full { PollFlags::OUT | PollFlags::IN } else { PollFlags::IN };
        fds.push(PollFd::from_borrowed_fd(stream.as_fd(), flags));
    }
    let pause = if soon { 200 } else { 1000 };
    let timeout = Timespec { tv_sec: 0, tv_nsec: pause * 999_999 };
    match poll(&mut fds, Some(&timeout)) {
        Ok(_) | Err(rustix::io::Errno::INTR) => {}
        // No poll, no pause: rather slow than spinning.
        Err(_) => std::thread::sleep(Duration::from_millis(200)),
    }
    let rung = fds.first().is_some_and(|bell| bell.revents().contains(PollFlags::IN));
    if rung {
        bell.heard();
    }
    rung
}

/// The socket where the system's programs log, if nobody has it.
fn take_socket(begun: Instant) -> Option<UnixDatagram> {
    let systemd = init_is_systemd();
    // Another init may be a script that becomes systemd yet, or starts a syslogd of its own.
    if !systemd && begun.elapsed() < GRACE {
        return None;
    }
    let path = Path::new(if systemd { JOURNAL } else { DEV_LOG });
    if !path.parent()?.is_dir() {
        return None;
    }
    match UnixDatagram::unbound().and_then(|socket| socket.connect(path)) {
        // Somebody's.
        Ok(()) => return None,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        // Of one that died: ourselves, before.
        Err(_) => fs::remove_file(path).ok()?,
    }
    let socket = UnixDatagram::bind(path).ok()?;
    let _ = fs::set_permissions(path, fs::Permissions::from_mode(0o666));
    let _ = setsockopt(&socket, sockopt::RcvBuf, &(1 << 20));
    socket.set_nonblocking(true).ok()?;
    Some(socket)
}

/// False: it cannot be read any more.
fn read_kernel(kmsg: &mut File, buffer: &mut [u8], queue: &mut Queue) -> bool {
    for _ in 0..BATCH {
        match kmsg.read(buffer) {
            Ok(many) => {
                let record = buffer.get(..many).unwrap_or_default();
                let (now, uptime) = (now(), clock::uptime());
                if let Some(message) = words::kernel(record, &host(), now, uptime) {
                    queue.push(message);
                }
            }
            Err(error) => match error.raw_os_error() {
                // Overwritten before we read it: the numbers tell how many.
                Some(nix::libc::EPIPE | nix::libc::EINTR) => {}
                Some(nix::libc::EAGAIN) => return true,
                _ => return false,
            },
        }
    }
    true
}

fn read_socket(socket: &UnixDatagram, buffer: &mut [u8], queue: &mut Queue) {
    for _ in 0..BATCH {
        let Ok(many) = socket.recv(buffer) else { return };
        queue.push(words::program(buffer.get(..many).unwrap_or_default(), &host(), now()));
    }
}

fn now() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

fn host() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}

/// The connection to the appliance.
struct Line {
    to: SocketAddr,
    stream: Option<TcpStream>,
    /// A connection that is on its way: who tries must not wait for it.
    coming: Option<mpsc::Receiver<io::Result<TcpStream>>>,
    failures: u32,
    next: Instant,
}

impl Line {
    fn new(to: SocketAddr) -> Line {
        Line { to, stream: None, coming: None, failures: 0, next: Instant::now() }
    }

    /// Connects if it is time to, and sends what it takes.
    fn mind(&mut self, queue: &mut Queue) {
        if let Some(coming) = &self.coming {
            match coming.try_recv() {
                Err(mpsc::TryRecvError::Empty) => return,
                Ok(Ok(stream)) if ready(&stream).is_ok() => {
                    self.failures = 0;
                    if let Some(dropped) = queue.take_dropped() {
                        queue.push_first(words::dropped(dropped, &host(), now()));
                    }
                    self.stream = Some(stream);
                }
                _ => self.failed(),
            }
            self.coming = None;
        }
        if self.stream.is_none() && self.coming.is_none() && Instant::now() >= self.next {
            let (told, coming) = mpsc::channel();
            let to = self.to;
            let begun = std::thread::Builder::new().spawn(move || {
                // Nobody waits for it once we end.
                let _ = told.send(TcpStream::connect_timeout(&to, CONNECT));
            });
            match begun {
                Ok(_) => self.coming = Some(coming),
                Err(_) => self.failed(),
            }
        }
        let Some(stream) = &mut self.stream else { return };
        if closed(stream) || queue.send(|bytes| stream.write(bytes)).is_err() {
            self.stream = None;
            queue.again();
            self.failed();
        }
    }

    fn failed(&mut self) {
        self.failures = self.failures.saturating_add(1);
        let pause = backoff::pause(self.failures, backoff::random()).min(RETRY_MAX);
        self.next = Instant::now() + pause;
    }

    /// To wait for, and whether it is to be written to.
    fn stream(&self, queue: &Queue) -> Option<(&TcpStream, bool)> {
        Some((self.stream.as_ref()?, !queue.is_empty()))
    }
}

fn ready(stream: &TcpStream) -> io::Result<()> {
    stream.set_nonblocking(true)?;
    // An appliance that lost its power answers nothing; what is on its way to it is lost.
    let _ = setsockopt(stream, sockopt::TcpUserTimeout, &30_000);
    let _ = setsockopt(stream, sockopt::KeepAlive, &true);
    Ok(())
}

/// The appliance says nothing, ever; but it closes.
fn closed(stream: &mut TcpStream) -> bool {
    let mut nothing = [0; 64];
    match stream.read(&mut nothing) {
        Ok(0) => true,
        Ok(_) => false,
        Err(error) => {
            !matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted)
        }
    }
}
