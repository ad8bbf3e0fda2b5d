//! A port of a terminal server that gives bytes as they are. It has no way to say BREAK.

use std::time::Duration;

use socket2::{SockRef, TcpKeepalive};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::stream::{Codec, drive};
use super::{Cannot, Event, NotOpen, Operation, Wire};

/// Whoever does not answer within this is tried again later.
const PATIENCE: Duration = Duration::from_secs(10);
/// A half-open connection is found after three of these without an answer.
const ALIVE: Duration = Duration::from_secs(15);

pub(super) async fn open(host: &str, port: u16) -> Result<Wire, NotOpen> {
    Ok(drive(connect(host, port).await?, Plain("a TCP line")))
}

/// Connects, such that a peer that vanished is noticed.
pub(super) async fn connect(host: &str, port: u16) -> Result<TcpStream, NotOpen> {
    let away = |why: String| NotOpen::Away(format!("{host} port {port}: {why}"));
    let stream = timeout(PATIENCE, TcpStream::connect((host, port)))
        .await
        .map_err(|_| away(format!("no answer within {} s", PATIENCE.as_secs())))?
        .map_err(|why| away(why.to_string()))?;
    let alive = TcpKeepalive::new().with_time(ALIVE).with_interval(ALIVE).with_retries(3);
    let socket = SockRef::from(&stream);
    socket.set_tcp_keepalive(&alive).map_err(|why| away(why.to_string()))?;
    stream.set_nodelay(true).map_err(|why| away(why.to_string()))?;
    Ok(stream)
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
}
