//! The root on its way in: one stream of bytes over as many connections as it takes, hashed as
//! they are received. A cut is resumed where it happened (Range), so the reader never notices.

use std::io::{self, Read};
use std::time::Duration;

use sha2::{Digest, Sha256};

use crate::backoff;
use crate::contract::Blob;
use crate::http::{self, Body, Patience, Server};
use crate::root::progress::Course;

/// Long enough for a switch port that is still in spanning tree's learning, or an appliance with a
/// whole rack at its door.
pub const PATIENCE: Patience = Patience {
    connect: Duration::from_secs(5),
    head: Duration::from_secs(10),
    body: Duration::from_secs(20),
};

/// What happens meanwhile.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// The first byte of a try arrived.
    Begun {
        /// From 1.
        attempt: u32,
    },
    /// A line of progress.
    Progress(String),
    /// Nothing to say, only to wait so long.
    Waits(Duration),
    /// The server's clock.
    Date(u64),
    /// A try failed; the listener waits before the next, or has enough.
    Failed {
        /// From 1.
        attempt: u32,
        /// In words.
        why: String,
        /// How long to wait.
        wait: Duration,
    },
}

/// Takes events, pauses after failures, answers whether to go on.
pub type Listener<'a> = &'a mut dyn FnMut(Event) -> bool;

/// The stream. [`Read`] gives exactly `blob.size` bytes or an error after which [`Stream::end`]
/// tells how it stands.
pub struct Stream<'a> {
    server: Server,
    blob: &'a Blob,
    patience: Patience,
    listener: Listener<'a>,
    body: Option<Body>,
    hash: Sha256,
    got: u64,
    failures: u32,
    end: Option<End>,
    course: &'a mut Course,
}

/// Why a stream gives no more bytes before it is whole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum End {
    /// The listener had enough.
    Stopped,
    /// This stream cannot be resumed; another, from the start, might do.
    StartOver(String),
}

impl<'a> Stream<'a> {
    /// Nothing is asked before the first read. Bytes and tries are counted on in `course`.
    pub fn new(
        server: Server,
        blob: &'a Blob,
        patience: Patience,
        course: &'a mut Course,
        listener: Listener<'a>,
    ) -> Stream<'a> {
        Stream {
            server,
            blob,
            patience,
            listener,
            body: None,
            hash: Sha256::new(),
            got: 0,
            failures: 0,
            end: None,
            course,
        }
    }

    /// How it ended, if it did before its time.
    pub fn end(&self) -> Option<&End> {
        self.end.as_ref()
    }

    /// Reads what nobody wanted, then says whether these were the bytes that were ordered.
    pub fn digest_is_right(&mut self) -> bool {
        let whole = io::copy(self, &mut io::sink()).is_ok() && self.got == self.blob.size;
        whole && hex(&self.hash.clone().finalize()) == self.blob.sha256.to_ascii_lowercase()
    }

    fn connect(&mut self) -> io::Result<Body> {
        let (head, body) = http::get(self.server, &self.blob.path, self.got, self.patience)?;
        if let Some(date) = head.date {
            (self.listener)(Event::Date(date));
        }
        let size = self.blob.size;
        let told = match (head.status, self.got) {
            (200, 0) => head.length,
            (206, got) => {
                head.range.filter(|(first, whole)| *first == got && *whole == size).and(head.length)
            }
            (200, _) => {
                self.end = Some(End::StartOver("the server does not resume".to_owned()));
                return Err(io::Error::other("the server does not resume"));
            }
            (status, _) => {
                return Err(io::Error::other(format!(
                    "the server answers {status} for {}",
                    self.blob.path
                )));
            }
        };
        if told != Some(size - self.got) {
            return Err(io::Error::other(match told {
                Some(told) => {
                    format!("the server has {told} bytes, ordered are {}", size - self.got)
                }
                None => "the server does not say how many bytes it has".to_owned(),
            }));
        }
        Ok(body)
    }

    fn read_some(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let body = match &mut self.body {
            Some(body) => body,
            None => {
                let body = self.connect()?;
                self.body.insert(body)
            }
        };
        let n = body.read(into)?;
        if n == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        if self.course.begins() {
            (self.listener)(Event::Begun { attempt: self.course.attempt() });
        }
        self.failures = 0;
        Ok(n)
    }
}

impl Read for Stream<'_> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let most = usize::try_from(self.blob.size - self.got).unwrap_or(usize::MAX).min(into.len());
        if most == 0 {
            return Ok(0);
        }
        loop {
            if self.end.is_some() {
                return Err(io::Error::other("the stream has ended"));
            }
            match self.read_some(&mut into[..most]) {
                Ok(n) => {
                    self.hash.update(&into[..n]);
                    self.got += n as u64;
                    if let Some(line) = self.course.line(self.got) {
                        (self.listener)(Event::Progress(line));
                    }
                    return Ok(n);
                }
                Err(error) => {
                    self.body = None;
                    if self.end.is_some() {
                        return Err(error);
                    }
                    self.failures += 1;
                    let wait = backoff::pause(self.failures, backoff::random());
                    let why = format!("{error} (at byte {} of {})", self.got, self.blob.size);
                    let attempt = self.course.attempt();
                    self.course.failed();
                    if !(self.listener)(Event::Failed { attempt, why, wait }) {
                        self.end = Some(End::Stopped);
                    }
                }
            }
        }
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
