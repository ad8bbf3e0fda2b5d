//! One question over TCP from a machine's own address (RFC 9112). The body is counted, and of most of it
//! the kernel copies nothing: ten thousand machines read tens of gigabytes, and one host plays them all.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use nix::libc;
use socket2::SockRef;
use tokio::io::{AsyncWriteExt, Interest};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::{sleep, timeout};

use crate::machine::{Answer, Ask};

const HEAD_MAX: usize = 16 * 1024;
const SINK: usize = 512 * 1024;
/// What a slow reader's NIC and memory hold.
const SLOW_BUFFER: usize = 128 * 1024;
const TICK: Duration = Duration::from_millis(100);

/// Asks, over a connection that was kept if there is one. The connection comes back if it may be kept
/// again.
pub async fn ask(
    from: Ipv4Addr,
    kept: Option<TcpStream>,
    ask: &Ask,
) -> (Result<Answer, String>, Option<TcpStream>) {
    if let Some(stream) = kept
        && ask.keeps
        && let Ok((answer, kept)) = exchange(stream, ask).await
    {
        return (Ok(answer), kept);
    }
    // None was kept, or the server has closed it meanwhile.
    let asked = async {
        let stream = connect(from, ask).await?;
        exchange(stream, ask).await
    };
    match asked.await {
        Ok((answer, kept)) => (Ok(answer), kept),
        Err(error) => (Err(error.to_string()), None),
    }
}

async fn connect(from: Ipv4Addr, ask: &Ask) -> io::Result<TcpStream> {
    let socket = TcpSocket::new_v4()?;
    // No interface has this address; a route says that it is ours.
    SockRef::from(&socket).set_freebind_v4(true)?;
    if ask.reads.is_some() {
        SockRef::from(&socket).set_recv_buffer_size(SLOW_BUFFER)?;
    }
    socket.bind(SocketAddr::from((from, 0)))?;
    let stream = within(ask.patience.connect, socket.connect(ask.url.server.into())).await?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

async fn exchange(mut stream: TcpStream, ask: &Ask) -> io::Result<(Answer, Option<TcpStream>)> {
    let patience = ask.patience.silence;
    let connection = if ask.keeps { "keep-alive" } else { "close" };
    let mut question = format!(
        "{} {} HTTP/1.1\r\nHost: {}\r\nUser-Agent: storm\r\nConnection: {connection}\r\n",
        ask.method, ask.url.path, ask.url.server
    );
    if !ask.body.is_empty() {
        let length = ask.body.len();
        question += &format!("Content-Type: application/json\r\nContent-Length: {length}\r\n");
    }
    question += "\r\n";
    let question = [question.as_bytes(), &ask.body].concat();
    within(patience, stream.write_all(&question)).await?;

    let mut bytes = Vec::with_capacity(1024);
    let (head, early) = loop {
        if let Some(head) = head(&bytes)? {
            break head;
        }
        within(patience, read_some(&stream, &mut bytes)).await?;
    };
    let body = bytes.split_off(early.min(bytes.len()));
    let length = match (ask.method, head.status) {
        ("HEAD", _) | (_, 204 | 304) => 0,
        _ => head.length.ok_or_else(|| io::Error::other("an answer without a length"))?,
    };
    let mut answer = Answer { status: head.status, body, bytes: length };
    let mut left = length.saturating_sub(answer.body.len() as u64);
    while left > 0 {
        if answer.body.len() < ask.wants {
            let before = answer.body.len();
            within(patience, read_some(&stream, &mut answer.body)).await?;
            left = left.saturating_sub((answer.body.len() - before) as u64);
        } else if let Some(rate) = ask.reads {
            sleep(TICK).await;
            let piece = (u64::from(rate) / 10).clamp(1, left);
            left -= within(patience, drop_some(&stream, piece)).await?;
        } else {
            left -= within(patience, drop_some(&stream, left)).await?;
        }
    }
    answer.body.truncate(ask.wants);
    let kept = (ask.keeps && !head.closes).then_some(stream);
    Ok((answer, kept))
}

async fn within<T>(span: Duration, done: impl Future<Output = io::Result<T>>) -> io::Result<T> {
    timeout(span, done).await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
}

async fn read_some(stream: &TcpStream, into: &mut Vec<u8>) -> io::Result<()> {
    loop {
        stream.readable().await?;
        match stream.try_read_buf(into) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(_) => return Ok(()),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
    }
}

/// Takes up to `most` bytes out of the kernel without looking at them (tcp(7), `MSG_TRUNC`).
async fn drop_some(stream: &TcpStream, most: u64) -> io::Result<u64> {
    let most = usize::try_from(most).unwrap_or(SINK).min(SINK);
    // Never written to, and so never more than a promise of memory.
    let mut sink: Vec<u8> = Vec::with_capacity(most);
    let sink = &mut sink.spare_capacity_mut()[..most];
    let take = || SockRef::from(stream).recv_with_flags(sink, libc::MSG_TRUNC);
    match stream.async_io(Interest::READABLE, take).await? {
        0 => Err(io::ErrorKind::UnexpectedEof.into()),
        count => Ok(count as u64),
    }
}

struct Head {
    status: u16,
    length: Option<u64>,
    closes: bool,
}

/// The head at the front of `bytes` and where it ends, once it is all there.
fn head(bytes: &[u8]) -> io::Result<Option<(Head, usize)>> {
    let mut headers = [httparse::EMPTY_HEADER; 32];
    let mut response = httparse::Response::new(&mut headers);
    let end = match response.parse(bytes) {
        Ok(httparse::Status::Complete(end)) => end,
        Ok(httparse::Status::Partial) if bytes.len() < HEAD_MAX => return Ok(None),
        Ok(httparse::Status::Partial) => return Err(io::Error::other("a head without end")),
        Err(error) => return Err(io::Error::other(format!("no HTTP answer: {error}"))),
    };
    let mut head = Head { status: response.code.unwrap_or(0), length: None, closes: false };
    for header in response.headers.iter() {
        let value = std::str::from_utf8(header.value).unwrap_or("").trim();
        if header.name.eq_ignore_ascii_case("content-length") {
            head.length = value.parse().ok();
        } else if header.name.eq_ignore_ascii_case("connection") {
            head.closes = value.eq_ignore_ascii_case("close");
        }
    }
    Ok(Some((head, end)))
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncReadExt;
    use tokio::net::TcpListener;

    use super::*;
    use crate::machine::Patience;
    use crate::script::Url;

    /// What comes of this answer, given in pieces, and what was asked.
    async fn answered(pieces: Vec<&'static [u8]>, wants: usize) -> (Result<Answer, String>, bool) {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let std::net::SocketAddr::V4(server) = listener.local_addr().expect("one") else {
            panic!("IPv4")
        };
        tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.expect("a client");
            let mut question = [0; 1024];
            let length = stream.read(&mut question).await.expect("a question");
            assert!(question[..length].starts_with(b"GET /x HTTP/1.1\r\n"));
            for piece in pieces {
                stream.write_all(piece).await.expect("written");
                sleep(Duration::from_millis(5)).await;
            }
        });
        let second = Duration::from_secs(1);
        let question = Ask {
            method: "GET",
            url: Url { server, path: "/x".into() },
            body: vec![],
            keeps: true,
            wants,
            patience: Patience { connect: second, silence: second },
            reads: None,
        };
        let (answer, kept) = ask(Ipv4Addr::LOCALHOST, None, &question).await;
        (answer, kept.is_some())
    }

    #[tokio::test]
    async fn bodies_are_counted_however_they_come() {
        let head: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n";
        let whole: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n0123456789";
        for pieces in
            [vec![whole], vec![head, b"01234", b"56789"], vec![&whole[..20], &whole[20..]]]
        {
            let (answer, kept) = answered(pieces.clone(), 4).await;
            let answer = answer.expect("an answer");
            assert_eq!((answer.status, answer.bytes, answer.body), (200, 10, b"0123".to_vec()));
            assert!(kept);
            let (answer, _) = answered(pieces, 0).await;
            assert_eq!(answer.expect("an answer").bytes, 10);
        }
    }

    #[tokio::test]
    async fn what_ends_early_is_no_answer() {
        let (answer, _) =
            answered(vec![b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n0123"], 99).await;
        assert!(answer.is_err());
        let (answer, _) = answered(vec![b"SSH-2.0-OpenSSH\r\n\r\n"], 0).await;
        assert!(answer.is_err());
    }
}
