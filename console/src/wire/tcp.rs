//! A port of a terminal server that gives bytes as they are. It has no way to say BREAK.

use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::time::Duration;

use socket2::{SockRef, TcpKeepalive};
use tokio::net::{TcpStream, lookup_host};
use tokio::time::timeout;

use super::stream::{Codec, drive};
use super::{Cannot, Event, NotOpen, Operation, Wire};

/// Whoever does not answer within this is tried again later.
const PATIENCE: Duration = Duration::from_secs(10);
/// A peer that is silent is asked whether it is still there, as often as this, and is gone after three times
/// without an answer. Nor does what was typed wait longer than that for its acknowledgement.
const ALIVE: Duration = Duration::from_secs(15);
const TIMES: u32 = 3;

pub(super) async fn open(host: &str, port: u16) -> Result<Wire, NotOpen> {
    Ok(drive(connect(host, port).await?, Plain("a TCP line")))
}

/// Connects, such that a peer that vanished is noticed.
pub(super) async fn connect(host: &str, port: u16) -> Result<TcpStream, NotOpen> {
    let away = |why: String| NotOpen::Away(format!("{host} port {port}: {why}"));
    let connected = async {
        let places: Vec<SocketAddr> = lookup_host((host, port))
            .await
            .map_err(|why| away(format!("its name is not known ({})", plain(&why))))?
            .collect();
        let mut said = "its name has no address".to_string();
        for place in places {
            match TcpStream::connect(place).await {
                Ok(stream) => return Ok(stream),
                Err(why) => said = words(&why),
            }
        }
        Err(away(said))
    };
    let stream = timeout(PATIENCE, connected)
        .await
        .map_err(|_| away(format!("no answer within {} s", PATIENCE.as_secs())))??;
    watch(&stream, ALIVE).map_err(|why| away(plain(&why)))?;
    Ok(stream)
}

/// Has the kernel notice a peer that vanished, and what is typed leave at once.
fn watch(stream: &TcpStream, alive: Duration) -> io::Result<()> {
    let keepalive = TcpKeepalive::new().with_time(alive).with_interval(alive).with_retries(TIMES);
    let socket = SockRef::from(stream);
    socket.set_tcp_keepalive(&keepalive)?;
    // Where something is on its way there are no keepalives, and by itself the kernel goes on for 15 minutes.
    socket.set_tcp_user_timeout(Some(alive * TIMES))?;
    stream.set_nodelay(true)
}

/// Why nobody answered, and what it may be.
fn words(why: &io::Error) -> String {
    match why.kind() {
        // Terminal servers refuse a port that somebody else is connected to.
        ErrorKind::ConnectionRefused => {
            "refused: nothing listens there, or somebody else has the port".to_string()
        }
        ErrorKind::HostUnreachable | ErrorKind::NetworkUnreachable => {
            format!("{}: it is off, or its network is", plain(why))
        }
        _ => plain(why),
    }
}

/// Without the number that Rust adds.
fn plain(why: &io::Error) -> String {
    let text = why.to_string();
    text.split(" (os error").next().unwrap_or_default().to_string()
}

/// Bytes as they are.
pub(super) struct Plain(pub &'static str);

impl<S> Codec<S> for Plain {
    fn typed(&mut self, bytes: &[u8], out: &mut Vec<u8>) {
        out.extend_from_slice(bytes);
    }

    fn came(&mut self, bytes: &[u8], events: &mut Vec<Event>, _answer: &mut Vec<u8>) {
        events.push(Event::data(bytes));
    }

    fn operate(&mut self, _: &mut S, _: Operation, _: &mut Vec<u8>) -> Result<(), Cannot> {
        Err(Cannot::Unable(format!("{} carries characters alone: it has no BREAK", self.0)))
    }

    fn ended(&mut self, why: Option<&io::Error>) -> NotOpen {
        gone(why)
    }
}

/// Why a connection ended.
pub(super) fn gone(why: Option<&io::Error>) -> NotOpen {
    NotOpen::Away(match why {
        None => "the other side closed it".to_string(),
        Some(why) if why.kind() == ErrorKind::TimedOut => {
            "the other side does not answer any more: it is off, or its network is".to_string()
        }
        Some(why) => plain(why),
    })
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use socket2::SockFilter;
    use tokio::io::AsyncWriteExt;
    use tokio::net::TcpListener;

    use super::*;

    /// Connected, and the other end hears nothing any more: its kernel drops all that comes for it, so that not even
    /// an acknowledgement comes back. So a peer is that lost its power, or its cable.
    async fn vanished() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let near = connect("localhost", port).await.unwrap();
        let (far, _) = listener.accept().await.unwrap();
        // BPF: return 0, which is how much of each packet is let in.
        let nothing = SockFilter::new(6, 0, 0, 0);
        SockRef::from(&far).attach_filter(&[nothing]).unwrap();
        (near, far)
    }

    #[tokio::test]
    async fn a_peer_that_vanished_is_found_whether_something_is_typed_or_not() {
        let watched = |typed: &'static [u8]| async move {
            let (mut near, _far) = vanished().await;
            let socket = SockRef::from(&near);
            assert!(socket.keepalive().unwrap());
            assert_eq!(socket.tcp_user_timeout().unwrap(), Some(ALIVE * TIMES));
            assert_eq!(socket.tcp_keepalive_time().unwrap(), ALIVE);
            watch(&near, Duration::from_secs(1)).unwrap();
            near.write_all(typed).await.unwrap();
            let mut wire = drive(near, Plain("a TCP line"));
            let begun = Instant::now();
            let event = timeout(Duration::from_secs(60), wire.recv()).await.expect("it is found");
            let why = gone(Some(&ErrorKind::TimedOut.into()));
            assert_eq!(event, Some(Event::Down { why, itself: false }));
            begun.elapsed()
        };
        let (silent, typed) = tokio::join!(watched(b""), watched(b"reboot\r"));
        println!("found after {silent:?}, with something typed after {typed:?}");
    }

    #[tokio::test]
    async fn who_does_not_answer_is_told_apart() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        drop(listener);
        let why = connect("127.0.0.1", port).await.unwrap_err();
        let refused = "refused: nothing listens there, or somebody else has the port";
        assert_eq!(why, NotOpen::Away(format!("127.0.0.1 port {port}: {refused}")));
        let why = connect("no-such-terminal-server.invalid", 4001).await.unwrap_err();
        let NotOpen::Away(why) = why else { panic!("{why:?}") };
        let begin = "no-such-terminal-server.invalid port 4001: its name is not known (";
        assert!(why.starts_with(begin) && !why.contains("os error"), "{why}");
    }
}
