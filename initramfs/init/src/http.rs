//! As much of an HTTP/1.1 client (RFC 9112) as a boot needs: one request a connection, a length
//! that is told, and patience that ends.

use std::fmt::Write as _;
use std::io::{self, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use crate::clock;

const HEAD_MAX: usize = 16 * 1024;
const HEADERS_MAX: usize = 64;

/// `koboshi.server`. An address, never a name: a static program has no resolver to ask.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Server(pub SocketAddr);

/// How long to wait for what.
#[derive(Debug, Clone, Copy)]
pub struct Patience {
    /// For the connection.
    pub connect: Duration,
    /// For the head of the answer, from when it was asked.
    pub head: Duration,
    /// Between two pieces of the body.
    pub body: Duration,
}

/// An answer's head, as far as anybody here reads it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Head {
    /// `200`
    pub status: u16,
    /// `Content-Length`
    pub length: Option<u64>,
    /// First byte and whole size of a 206 (`Content-Range: bytes 5-9/10`).
    pub range: Option<(u64, u64)>,
    /// `Date`, in seconds since 1970.
    pub date: Option<u64>,
    chunked: bool,
}

/// The body, as it comes.
#[derive(Debug)]
pub struct Body {
    stream: TcpStream,
    early: Vec<u8>,
    left: u64,
}

impl Server {
    /// Reads `http://10.77.0.1:8080`.
    pub fn parse(text: &str) -> Result<Server, String> {
        let wrong = || format!("server {text:?} is not of the form http://ADDRESS:PORT");
        let rest = text.strip_prefix("http://").ok_or_else(wrong)?.trim_end_matches('/');
        rest.parse::<SocketAddr>()
            .or_else(|_| {
                let host = rest.trim_start_matches('[').trim_end_matches(']');
                host.parse::<IpAddr>().map(|address| SocketAddr::new(address, 80))
            })
            .map(Server)
            .map_err(|_| wrong())
    }
}

/// Fetches `path` from byte `from` on.
pub fn get(server: Server, path: &str, from: u64, patience: Patience) -> io::Result<(Head, Body)> {
    let mut request = format!("GET {path} HTTP/1.1\r\nHost: {}\r\n", server.0);
    if from > 0 {
        let _ = write!(request, "Range: bytes={from}-\r\n");
    }
    request.push_str(
        "Accept-Encoding: identity\r\nUser-Agent: koboshi-init\r\nConnection: close\r\n\r\n",
    );
    ask(server, request.as_bytes(), patience)
}

/// Sends JSON or plain text to `path`.
pub fn post(
    server: Server,
    path: &str,
    body: &[u8],
    patience: Patience,
) -> io::Result<(Head, Body)> {
    let mut request = format!(
        "POST {path} HTTP/1.1\r\nHost: {}\r\nContent-Type: application/json\r\n\
         Content-Length: {}\r\nUser-Agent: koboshi-init\r\nConnection: close\r\n\r\n",
        server.0,
        body.len()
    )
    .into_bytes();
    request.extend_from_slice(body);
    ask(server, &request, patience)
}

/// The head at the front of `bytes` and where it ends; `None` while it is not all there.
pub fn parse_head(bytes: &[u8]) -> Result<Option<(Head, usize)>, String> {
    let mut headers = [httparse::EMPTY_HEADER; HEADERS_MAX];
    let mut response = httparse::Response::new(&mut headers);
    let end = match response.parse(bytes) {
        Ok(httparse::Status::Complete(end)) => end,
        Ok(httparse::Status::Partial) if bytes.len() >= HEAD_MAX => {
            return Err(format!("an answer whose head is over {HEAD_MAX} bytes"));
        }
        Ok(httparse::Status::Partial) => return Ok(None),
        Err(error) => return Err(format!("not an HTTP answer: {error}")),
    };
    let mut head = Head { status: response.code.unwrap_or(0), ..Head::default() };
    for header in response.headers.iter() {
        let value = str::from_utf8(header.value).unwrap_or("").trim();
        let is = |name: &str| header.name.eq_ignore_ascii_case(name);
        if is("content-length") {
            let length =
                number(value).ok_or("an answer with a Content-Length that is no number")?;
            // RFC 9112 §6.3: two lengths that differ are somebody's trick.
            if head.length.is_some_and(|other| other != length) {
                return Err("an answer with two lengths".to_owned());
            }
            head.length = Some(length);
        } else if is("content-range") {
            head.range = content_range(value);
        } else if is("date") {
            head.date = clock::parse_date(value);
        } else if is("transfer-encoding") {
            head.chunked = true;
        }
    }
    Ok(Some((head, end)))
}

fn ask(server: Server, request: &[u8], patience: Patience) -> io::Result<(Head, Body)> {
    let mut stream = TcpStream::connect_timeout(&server.0, patience.connect)?;
    let end = Instant::now() + patience.head;
    stream.set_write_timeout(Some(patience.head))?;
    stream.write_all(request)?;
    let mut bytes = Vec::new();
    let mut piece = [0; 4096];
    loop {
        // A server that trickles a byte a second is caught by the end, not by the pause between two.
        let left = end.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(io::Error::new(io::ErrorKind::TimedOut, "no answer"));
        }
        stream.set_read_timeout(Some(left))?;
        let n = match stream.read(&mut piece) {
            Ok(0) => {
                return Err(io::Error::new(
                    io::ErrorKind::UnexpectedEof,
                    "cut in the head of the answer",
                ));
            }
            Ok(n) => n,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(timed_out(error, "no answer")),
        };
        bytes.extend_from_slice(&piece[..n]);
        while let Some((head, end)) = parse_head(&bytes).map_err(io::Error::other)? {
            bytes.drain(..end);
            // 100 Continue and its like come before the answer.
            if (100..200).contains(&head.status) {
                continue;
            }
            if head.chunked && head.status < 300 {
                return Err(io::Error::other("an answer in chunks, without its length"));
            }
            stream.set_read_timeout(Some(patience.body))?;
            let left = head.length.unwrap_or(0);
            return Ok((head, Body { stream, early: bytes, left }));
        }
    }
}

impl Read for Body {
    /// Ends where the length ends; a connection that ends before is an error, not an end.
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let most = usize::try_from(self.left).unwrap_or(usize::MAX).min(into.len());
        if most == 0 {
            return Ok(0);
        }
        let n = if self.early.is_empty() {
            self.stream
                .read(&mut into[..most])
                .map_err(|error| timed_out(error, "nothing more came"))?
        } else {
            let n = most.min(self.early.len());
            into[..n].copy_from_slice(&self.early[..n]);
            self.early.drain(..n);
            n
        };
        if n == 0 {
            let cut = format!("cut {} bytes before the end", self.left);
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, cut));
        }
        self.left -= n as u64;
        Ok(n)
    }
}

/// A read that times out says `Resource temporarily unavailable`, which helps nobody.
fn timed_out(error: io::Error, word: &str) -> io::Error {
    match error.kind() {
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => {
            io::Error::new(io::ErrorKind::TimedOut, word)
        }
        _ => error,
    }
}

/// Digits only: `parse` would take a sign.
fn number(text: &str) -> Option<u64> {
    text.bytes().all(|b| b.is_ascii_digit()).then(|| text.parse().ok()).flatten()
}

/// `bytes 5-9/10` → (5, 10)
fn content_range(value: &str) -> Option<(u64, u64)> {
    let (span, size) = value.strip_prefix("bytes ")?.split_once('/')?;
    let (first, _) = span.split_once('-')?;
    Some((number(first)?, number(size)?))
}

#[cfg(test)]
#[path = "http/tests.rs"]
mod tests;
