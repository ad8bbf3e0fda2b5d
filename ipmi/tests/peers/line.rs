//! The serial line of a machine that is not there: a TCP port speaking telnet (RFC 854), where a BMC's SOL ends, and
//! where the test is the machine.

use std::net::SocketAddrV4;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::sync::mpsc;

use super::until;

const IAC: u8 = 255;
const BREAK: u8 = 243;
const SUBNEGOTIATION: u8 = 250;
const SUBNEGOTIATION_END: u8 = 240;

/// One machine's end of a line.
pub struct Line {
    at: SocketAddrV4,
    heard: Arc<Mutex<Heard>>,
    say: mpsc::UnboundedSender<Vec<u8>>,
}

/// What came down the line.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Heard {
    /// Somebody is connected.
    pub connected: bool,
    /// Bytes.
    pub bytes: Vec<u8>,
    /// Where among them a BREAK came.
    pub breaks: Vec<usize>,
    telnet: Telnet,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum Telnet {
    #[default]
    Data,
    Command,
    Option,
    Within,
    WithinCommand,
}

impl Line {
    /// Listens; whoever connects is the BMC, and a new connection takes the place of the old one.
    pub async fn open(at: SocketAddrV4) -> Line {
        let listener = TcpListener::bind(at).await.expect("a port of our own");
        let heard = Arc::new(Mutex::new(Heard::default()));
        let (say, mut said) = mpsc::unbounded_channel::<Vec<u8>>();
        let ear = Arc::clone(&heard);
        tokio::spawn(async move {
            loop {
                let Ok((mut stream, _)) = listener.accept().await else { return };
                lock(&ear).connected = true;
                let mut piece = [0; 4096];
                loop {
                    tokio::select! {
                        read = stream.read(&mut piece) => match read {
                            Ok(length) if length > 0 => {
                                let mut ear = lock(&ear);
                                piece[..length].iter().for_each(|byte| ear.take(*byte));
                            }
                            _ => break,
                        },
                        words = said.recv() => match words {
                            Some(words) => if stream.write_all(&words).await.is_err() { break },
                            None => return,
                        },
                    }
                }
                lock(&ear).connected = false;
            }
        });
        Line { at, heard, say }
    }

    /// Where the BMC finds it.
    pub fn at(&self) -> SocketAddrV4 {
        self.at
    }

    /// The machine prints.
    pub fn say(&self, bytes: impl AsRef<[u8]>) {
        let mut out = Vec::new();
        for byte in bytes.as_ref() {
            out.push(*byte);
            if *byte == IAC {
                out.push(IAC);
            }
        }
        self.say.send(out).expect("the line is open");
    }

    /// What the machine heard.
    pub fn heard(&self) -> Heard {
        lock(&self.heard).clone()
    }

    /// Waits until the BMC is connected.
    pub async fn connected(&self) {
        until("the BMC opens its serial port", || lock(&self.heard).connected.then_some(())).await;
    }

    /// Waits until the machine has heard exactly this many bytes.
    pub async fn hear(&self, count: usize) -> Vec<u8> {
        let look = || {
            let heard = lock(&self.heard);
            (heard.bytes.len() >= count).then(|| heard.bytes.clone())
        };
        until(&format!("{count} bytes come down the line"), look).await
    }

    /// Waits for so many BREAKs.
    pub async fn broken(&self, count: usize) {
        let look = || (lock(&self.heard).breaks.len() >= count).then_some(());
        until(&format!("{count} BREAKs come down the line"), look).await;
    }
}

impl Heard {
    fn take(&mut self, byte: u8) {
        self.telnet = match (self.telnet, byte) {
            (Telnet::Data, IAC) => Telnet::Command,
            (Telnet::Data, byte) => {
                self.bytes.push(byte);
                Telnet::Data
            }
            (Telnet::Command, IAC) => {
                self.bytes.push(IAC);
                Telnet::Data
            }
            (Telnet::Command, BREAK) => {
                self.breaks.push(self.bytes.len());
                Telnet::Data
            }
            (Telnet::Command, SUBNEGOTIATION) => Telnet::Within,
            (Telnet::Command, 251..=254) => Telnet::Option,
            (Telnet::Command | Telnet::Option, _) => Telnet::Data,
            (Telnet::Within, IAC) => Telnet::WithinCommand,
            (Telnet::Within, _) => Telnet::Within,
            (Telnet::WithinCommand, SUBNEGOTIATION_END) => Telnet::Data,
            (Telnet::WithinCommand, _) => Telnet::Within,
        };
    }
}

fn lock(heard: &Mutex<Heard>) -> MutexGuard<'_, Heard> {
    heard.lock().unwrap_or_else(PoisonError::into_inner)
}
