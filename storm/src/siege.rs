//! What the enemy does with sockets: its frames go out in their time, and over TCP it holds connections that ask
//! nothing, asks for a file and reads a byte of it a second, wants ranges by the thousand, reports for boots that
//! never were, and says a line to syslog that does not end. What is closed on it, it opens again.

use std::io;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::time::{Duration, Instant};

use socket2::SockRef;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use crate::dice::Dice;
use crate::enemy::Enemy;
use crate::wire::{FRAME_MAX, Wire};

/// How often frames are sent.
const TICK: Duration = Duration::from_millis(10);
/// Before it opens again what was closed on it.
const AGAIN: Duration = Duration::from_millis(500);
/// What a reader of one byte a second lets the kernel take.
const SIP: usize = 4096;

/// How much of what, over TCP.
#[derive(Debug, Clone)]
pub struct Siege {
    /// HTTP.
    pub http: SocketAddrV4,
    /// Syslog by TCP.
    pub syslog: SocketAddrV4,
    /// Its own addresses.
    pub from: Vec<Ipv4Addr>,
    /// A file over HTTP.
    pub path: String,
    /// Connections that ask nothing; every fourth sends half a head.
    pub idle: usize,
    /// Readers of one byte a second.
    pub slow: usize,
    /// Askers for ranges, reporters, talkers without end: so many of each.
    pub askers: usize,
}

/// What came of it.
#[derive(Debug, Clone, Copy, Default, serde::Serialize)]
pub struct Siegework {
    /// Frames that were sent.
    pub frames: u64,
    /// Addresses that were offered to invented machines.
    pub offers: u64,
}

/// Attacks until told to stop.
///
/// # Errors
/// The packet socket.
pub async fn run(
    mut enemy: Enemy,
    wire: &Wire,
    siege: Option<Siege>,
    stop: impl Future<Output = ()>,
) -> io::Result<Siegework> {
    let mut tasks = JoinSet::new();
    if let Some(siege) = siege {
        lay(&siege, &mut tasks);
    }
    let begun = Instant::now();
    let mut done = Siegework::default();
    let mut beat = tokio::time::interval(TICK);
    beat.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Skip);
    let mut buffer = vec![0; FRAME_MAX];
    let mut stop = std::pin::pin!(stop);
    loop {
        tokio::select! {
            () = &mut stop => break,
            _ = beat.tick() => {
                for frame in enemy.due(begun.elapsed()) {
                    done.frames += u64::from(wire.send(&frame).is_ok());
                }
            }
            ready = wire.ready() => ready?,
        }
        while let Ok(length) = wire.receive(&mut buffer) {
            if let Some(answer) = buffer.get(..length).and_then(|frame| enemy.heard(frame)) {
                done.frames += u64::from(wire.send(&answer).is_ok());
            }
        }
        while let Ok(arp) = wire.hear() {
            if let Some(answer) = arp.and_then(|arp| enemy.asked(&arp)) {
                done.frames += u64::from(wire.send(&answer).is_ok());
            }
        }
        tokio::task::yield_now().await;
    }
    tasks.shutdown().await;
    done.offers = enemy.offers;
    Ok(done)
}

fn lay(siege: &Siege, tasks: &mut JoinSet<()>) {
    let own = |number: usize| siege.from.get(number % siege.from.len().max(1)).copied();
    let from = |number| own(number).unwrap_or(Ipv4Addr::UNSPECIFIED);
    for number in 0..siege.idle {
        let half: &[u8] = if number % 4 == 0 { b"GET /ipxe.efi HTTP/1.1\r\nHost: " } else { b"" };
        tasks.spawn(holds(from(number), siege.http, half));
    }
    for number in 0..siege.slow {
        tasks.spawn(sips(from(number), siege.http, siege.path.clone()));
    }
    for number in 0..siege.askers {
        tasks.spawn(ranges(from(number), siege.http, siege.path.clone()));
        tasks.spawn(reports(from(number), siege.http, number as u64));
        tasks.spawn(talks(from(number), siege.syslog));
    }
}

async fn open(from: Ipv4Addr, to: SocketAddrV4, buffer: Option<usize>) -> io::Result<TcpStream> {
    let socket = TcpSocket::new_v4()?;
    SockRef::from(&socket).set_freebind_v4(true)?;
    if let Some(bytes) = buffer {
        SockRef::from(&socket).set_recv_buffer_size(bytes)?;
    }
    socket.bind(SocketAddr::from((from, 0)))?;
    let connected = timeout(Duration::from_secs(10), socket.connect(to.into())).await;
    connected.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
}

async fn holds(from: Ipv4Addr, to: SocketAddrV4, says: &'static [u8]) {
    loop {
        if let Ok(mut stream) = open(from, to, None).await
            && stream.write_all(says).await.is_ok()
        {
            let mut sink = [0; 256];
            while stream.read(&mut sink).await.is_ok_and(|many| many > 0) {}
        }
        sleep(AGAIN).await;
    }
}

async fn sips(from: Ipv4Addr, to: SocketAddrV4, path: String) {
    let ask = format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n");
    loop {
        if let Ok(mut stream) = open(from, to, Some(SIP)).await
            && stream.write_all(ask.as_bytes()).await.is_ok()
        {
            while stream.read_u8().await.is_ok() {
                sleep(Duration::from_secs(1)).await;
            }
        }
        sleep(AGAIN).await;
    }
}

async fn ranges(from: Ipv4Addr, to: SocketAddrV4, path: String) {
    let many: Vec<String> = (0..1000).map(|n| format!("{}-{}", n * 2, n * 2)).collect();
    let ask = format!("GET {path} HTTP/1.1\r\nHost: x\r\nRange: bytes={}\r\n\r\n", many.join(","));
    let one = format!("GET {path} HTTP/1.1\r\nHost: x\r\nRange: bytes=0-0\r\n\r\n").repeat(200);
    let mut sink = vec![0; 64 * 1024];
    loop {
        for asks in [&ask, &one] {
            if let Ok(mut stream) = open(from, to, None).await
                && stream.write_all(asks.as_bytes()).await.is_ok()
            {
                let reads = stream.read(&mut sink);
                let _some_of_it = timeout(Duration::from_secs(1), reads).await;
            }
            sleep(Duration::from_millis(20)).await;
        }
    }
}

async fn reports(from: Ipv4Addr, to: SocketAddrV4, seed: u64) {
    let mut dice = Dice::new(seed, 1);
    loop {
        if let Ok(mut stream) = open(from, to, None).await {
            let mut sink = [0; 1024];
            for _ in 0..100 {
                let (a, b) = (dice.draw(), dice.draw());
                // Longer than it says: what is left is no request.
                let body = r#"{"phase":{"phase":"up","by":"enemy"},"uptime_ms":1,"seq":1}"#;
                let length = if a.is_multiple_of(10) { 5 } else { body.len() };
                let ask = format!(
                    "POST /report/{a:016x}{b:016x} HTTP/1.1\r\nHost: x\r\nContent-Length: {length}\r\n\r\n{body}"
                );
                let asked = stream.write_all(ask.as_bytes()).await.is_ok();
                if !asked || !stream.read(&mut sink).await.is_ok_and(|many| many > 0) {
                    break;
                }
                sleep(Duration::from_millis(5)).await;
            }
        }
        sleep(Duration::from_millis(50)).await;
    }
}

async fn talks(from: Ipv4Addr, to: SocketAddrV4) {
    let line = vec![b'x'; 8 * 1024];
    loop {
        if let Ok(mut stream) = open(from, to, None).await {
            while stream.write_all(&line).await.is_ok() {
                sleep(TICK).await;
            }
        }
        sleep(AGAIN).await;
    }
}
