//! The conversation, on standard input and output: a serial line that the kernel talks on too, or a pipe of SSH's.
//! Nothing is sent that was not asked for, so that a line whose asker went away is quiet again after a moment.

use std::collections::VecDeque;
use std::fs;
use std::io::{self, BufReader, Cursor, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::termios::{OptionalActions, Termios, isatty, tcgetattr, tcsetattr};

use super::walk::{self, Times, Told, Walk};
use super::{Left, STATE};
use crate::mounts::ABOVE;
use crate::wire::answer::Answer;
use crate::wire::contents::Contents;
use crate::wire::frame::{About, Frame, Lines, Request};
use crate::wire::{Header, Manner, PROTOCOL};

/// Whoever asks, asks on within this: he may have an image to unpack first.
const PATIENCE: Duration = Duration::from_secs(60);
/// Requests that wait.
const WAITING: usize = 64;
/// Ranges of entries in one picking.
const RANGES_MAX: usize = 100_000;
const LEVEL: i32 = 6;
/// What Control-C sends where the terminal does not act on it.
const INTERRUPT: u8 = 3;

type Stream = Answer<Box<dyn Read>>;

/// See the module.
pub fn speak(size: usize) -> io::Result<()> {
    let raw = Raw::enter(io::stdin().as_fd());
    let ended = Talk::begin(size, raw.as_ref().map_or(0, |raw| raw.speed)).and_then(Talk::run);
    if let Err(error) = &ended {
        let frame = Frame {
            about: About::Failed,
            seq: 0,
            last: true,
            body: error.to_string().into_bytes(),
        };
        let _it_is_said_or_not = write(&frame.line());
    }
    drop(raw);
    match ended {
        // The asker is gone, and his line with him.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        // It was said, in a way that programs understand.
        _ => Ok(()),
    }
}

struct Talk {
    size: usize,
    header: Header,
    times: Times,
    told: Option<Told>,
    stream: Option<Stream>,
    round: u32,
    /// Lines of picks that have come in this round.
    lines: u32,
    ranges: Vec<(u32, u32)>,
    heard: Lines,
    requests: VecDeque<Request>,
    since: Instant,
    over: bool,
}

impl Talk {
    fn begin(size: usize, speed: u32) -> io::Result<Talk> {
        if !rustix::process::geteuid().is_root() {
            return Err(io::Error::other("only root may ask what has changed here"));
        }
        let left = Left::read().map_err(|error| {
            let said = format!("{STATE}: {error}: this machine booted with another koboshi");
            io::Error::other(said)
        })?;
        let times = left.times(Left::up());
        let uname = rustix::system::uname();
        let header = Header {
            protocol: PROTOCOL,
            image: left.image,
            key: left.key,
            root: left.root,
            hostname: uname.nodename().to_string_lossy().into_owned(),
            boot: left.boot,
            speed,
        };
        Ok(Talk {
            size,
            header,
            times,
            told: None,
            stream: None,
            round: 0,
            lines: 0,
            ranges: Vec::new(),
            heard: Lines::default(),
            requests: VecDeque::new(),
            since: Instant::now(),
            over: false,
        })
    }

    fn run(mut self) -> io::Result<()> {
        self.hello()?;
        while !self.over {
            match self.requests.pop_front() {
                Some(request) => self.answer(request)?,
                None if self.since.elapsed() > PATIENCE => return Ok(()),
                None => self.hear(Duration::from_secs(1))?,
            }
        }
        Ok(())
    }

    /// Reads what is asked; waits for it no longer than so.
    fn hear(&mut self, wait: Duration) -> io::Result<()> {
        let stdin = io::stdin();
        let stdin = stdin.as_fd();
        let timeout =
            Timespec { tv_sec: wait.as_secs().min(60) as i64, tv_nsec: wait.subsec_nanos().into() };
        let mut fds = [PollFd::from_borrowed_fd(stdin, PollFlags::IN)];
        match poll(&mut fds, Some(&timeout)) {
            Ok(0) | Err(rustix::io::Errno::INTR) => return Ok(()),
            Ok(_) => {}
            Err(errno) => return Err(errno.into()),
        }
        let mut bytes = [0; 4096];
        let many = rustix::io::read(stdin, &mut bytes)?;
        let bytes = bytes.get(..many).unwrap_or_default();
        if bytes.is_empty() || bytes.contains(&INTERRUPT) {
            self.over = true;
        }
        let requests = &mut self.requests;
        self.heard.came(bytes, |line| requests.extend(Request::read(line)));
        requests.truncate(WAITING);
        if !requests.is_empty() {
            self.since = Instant::now();
        }
        Ok(())
    }

    fn hello(&self) -> io::Result<()> {
        let body = serde_json::to_vec(&self.header)?;
        write(&Frame { about: About::Hello, seq: 0, last: true, body }.line())
    }

    fn answer(&mut self, request: Request) -> io::Result<()> {
        match request {
            Request::Hello => self.hello(),
            Request::Bye => {
                self.over = true;
                Ok(())
            }
            Request::Pick { round, line, ranges } => self.pick(round, line, ranges),
            Request::Go { about, first, last, free } => self.go(about, first, last, free),
        }
    }

    fn pick(&mut self, round: u32, line: u32, ranges: Vec<(u32, u32)>) -> io::Result<()> {
        if round != self.round {
            (self.round, self.lines) = (round, 0);
            self.ranges.clear();
        }
        // One that came before says that its answer was lost; one that comes too soon is asked again.
        if line > self.lines {
            return Ok(());
        }
        if line == self.lines {
            if self.ranges.len() + ranges.len() > RANGES_MAX {
                return Err(io::Error::other("more was picked than can be kept in mind"));
            }
            self.ranges.extend(ranges);
            self.lines += 1;
        }
        write(
            &Frame { about: About::Picked(round), seq: line, last: true, body: Vec::new() }.line(),
        )
    }

    fn go(&mut self, about: About, first: u32, last: u32, free: u32) -> io::Result<()> {
        if self.stream.as_ref().is_none_or(|stream| stream.about() != about) {
            let Some(source) = self.open(about)? else { return Ok(()) };
            self.stream = Some(Answer::new(source, about, self.size));
        }
        let Some(mut stream) = self.stream.take() else { return Ok(()) };
        stream.free(free);
        for seq in first..=last {
            let Some(frame) = stream.frame(seq)? else { break };
            write(&frame.line())?;
            self.since = Instant::now();
            self.hear(Duration::ZERO)?;
            if self.over {
                return Ok(());
            }
        }
        self.stream = Some(stream);
        Ok(())
    }

    fn open(&mut self, about: About) -> io::Result<Option<Box<dyn Read>>> {
        match about {
            About::Listing => Ok(Some(Box::new(Cursor::new(self.told()?.listing.clone())))),
            About::Contents(round) if round == self.round => {
                let ranges = std::mem::take(&mut self.ranges);
                let paths = self.told()?.nodes.clone();
                let most = u32::try_from(paths.len()).unwrap_or(u32::MAX);
                let picks = ranges.into_iter().flat_map(move |(from, to)| from..=to.min(most));
                let open = move |pick: u32| {
                    let path = paths.get(pick as usize).ok_or(io::ErrorKind::NotFound)?;
                    let file = walk::open(Path::new("/"), path)?;
                    Ok(Box::new(file) as Box<dyn Read>)
                };
                let contents = BufReader::with_capacity(1 << 17, Contents::new(picks, open));
                Ok(Some(Box::new(zstd::stream::read::Encoder::with_buffer(contents, LEVEL)?)))
            }
            _ => Ok(None),
        }
    }

    /// What there is to tell, looked at once.
    fn told(&mut self) -> io::Result<&Told> {
        let told = match self.told.take() {
            Some(told) => told,
            None => {
                let mounts = walk::mounts(&fs::read_to_string("/proc/self/mountinfo")?);
                let walk = Walk::new(Path::new("/"), self.times, mounts);
                match self.header.root {
                    Manner::Ram => walk.all()?,
                    Manner::Overlay => walk.above(&Path::new(ABOVE).join("upper"))?,
                    Manner::Nfs => {
                        let said = "the root is a server's: what is written there stays there";
                        return Err(io::Error::other(said));
                    }
                }
            }
        };
        Ok(self.told.insert(told))
    }
}

fn write(bytes: &[u8]) -> io::Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(bytes)?;
    out.flush()
}

/// A terminal that passes everything on, as long as this lives.
struct Raw {
    before: Termios,
    speed: u32,
}

impl Raw {
    /// Nothing where this is no terminal.
    fn enter(line: BorrowedFd<'_>) -> Option<Raw> {
        if !isatty(line) {
            return None;
        }
        let before = tcgetattr(line).ok()?;
        let mut raw = before.clone();
        raw.make_raw();
        // Lines end as they do for everybody who looks.
        raw.output_modes = before.output_modes;
        tcsetattr(line, OptionalActions::Drain, &raw).ok()?;
        let speed = before.output_speed();
        Some(Raw { before, speed })
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        // What was asked too late is no shell's.
        let _ = tcsetattr(io::stdin(), OptionalActions::Flush, &self.before);
    }
}
