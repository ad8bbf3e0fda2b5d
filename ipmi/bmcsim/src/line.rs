//! The serial line between a BMC and its host, where it is a socket that the host's serial port is behind.
//!
//! RFC 854 (telnet: a BREAK is IAC BREAK, and the byte 0xFF is said twice).

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpStream, UnixStream};
use tokio::time::sleep;

use crate::config::Serial;
use crate::sim::Cell;
use crate::sol::{self, ToHost};

/// Between two attempts to connect: the host may be off.
const AGAIN: Duration = Duration::from_millis(100);

/// Carries characters until it is dropped.
pub(crate) async fn run(cell: Arc<Cell>, serial: Serial) {
    loop {
        let ended = match &serial {
            Serial::Memory | Serial::Echo | Serial::Elsewhere => return,
            Serial::Tcp(address) => match TcpStream::connect(address).await {
                Ok(stream) => carry(&cell, stream, false).await,
                Err(error) => error,
            },
            Serial::Telnet(address) => match TcpStream::connect(address).await {
                Ok(stream) => carry(&cell, stream, true).await,
                Err(error) => error,
            },
            Serial::Unix(path) => match UnixStream::connect(path).await {
                Ok(stream) => carry(&cell, stream, false).await,
                Err(error) => error,
            },
        };
        tracing::debug!(error = %ended, "the serial line is down");
        // Nothing listens: what is said is gone.
        cell.lock().bmc.sol.to_host.clear();
        sleep(AGAIN).await;
    }
}

/// The host's end of a line that is [`Serial::Elsewhere`].
#[derive(Debug, Clone)]
pub struct SerialPort(Arc<Cell>);

impl SerialPort {
    pub(crate) fn of(cell: &Arc<Cell>) -> SerialPort {
        SerialPort(Arc::clone(cell))
    }

    /// What the BMC says, once.
    pub fn take(&self) -> Vec<ToHost> {
        let said: Vec<_> = self.0.lock().bmc.sol.to_host.drain(..).collect();
        if !said.is_empty() {
            // There is room for more: the console may be told.
            self.0.poked.notify_one();
        }
        said
    }

    /// Says something, as much of it as the BMC has room for; how much that was.
    pub fn put(&self, bytes: &[u8]) -> usize {
        let bmc = &mut self.0.lock().bmc;
        let taken = bytes.len().min(sol::room(bmc));
        self.0.starved.store(taken < bytes.len(), Ordering::Relaxed);
        if taken > 0 {
            sol::heard(bmc, &bytes[..taken], Instant::now());
            self.0.poked.notify_one();
        }
        taken
    }

    /// Waits until there may be something to take, or room for something to say. For one at a time.
    pub async fn changed(&self) {
        self.0.line.notified().await;
    }
}

/// Carries both ways at once: a host that waits to be read may not read meanwhile.
async fn carry<S: AsyncRead + AsyncWrite>(cell: &Cell, stream: S, is_telnet: bool) -> io::Error {
    let (mut reader, mut writer) = tokio::io::split(stream);
    let mut telnet = is_telnet.then(Telnet::default);
    let mut buffer = vec![0; 4096];
    let mut waiting: Vec<u8> = Vec::new();
    loop {
        let room = {
            let bmc = &mut cell.lock().bmc;
            if waiting.is_empty() {
                for next in bmc.sol.to_host.drain(..) {
                    speak(&next, is_telnet, &mut waiting);
                }
                if !waiting.is_empty() {
                    cell.poked.notify_one();
                }
            }
            let room = sol::room(bmc).min(buffer.len());
            cell.starved.store(room == 0, Ordering::Relaxed);
            room
        };
        tokio::select! {
            () = cell.line.notified() => {}
            written = writer.write(&waiting), if !waiting.is_empty() => match written {
                Ok(length) => drop(waiting.drain(..length)),
                Err(error) => return error,
            },
            read = reader.read(&mut buffer[..room]), if room > 0 => match read {
                Ok(0) => return io::ErrorKind::UnexpectedEof.into(),
                Ok(length) => {
                    let bytes = match &mut telnet {
                        Some(telnet) => telnet.heard(&buffer[..length]),
                        None => buffer[..length].to_vec(),
                    };
                    sol::heard(&mut cell.lock().bmc, &bytes, Instant::now());
                    cell.poked.notify_one();
                }
                Err(error) => return error,
            }
        }
    }
}

const IAC: u8 = 255;
const SB: u8 = 250;
const SE: u8 = 240;
const BREAK: u8 = 243;

/// Something for the host as bytes. Without telnet there is no way to say BREAK.
fn speak(next: &ToHost, is_telnet: bool, out: &mut Vec<u8>) {
    match next {
        ToHost::Data(bytes) if is_telnet => {
            for byte in bytes {
                out.push(*byte);
                if *byte == IAC {
                    out.push(IAC);
                }
            }
        }
        ToHost::Data(bytes) => out.extend_from_slice(bytes),
        ToHost::Break if is_telnet => out.extend([IAC, BREAK]),
        ToHost::Break => {}
    }
}

/// Takes telnet's own words out of what the host says.
#[derive(Debug, Default)]
struct Telnet(Within);

#[derive(Debug, Default, Clone, Copy)]
enum Within {
    #[default]
    Text,
    Command,
    Option,
    Subnegotiation,
    SubnegotiationCommand,
}

impl Telnet {
    fn heard(&mut self, bytes: &[u8]) -> Vec<u8> {
        let mut text = Vec::with_capacity(bytes.len());
        for byte in bytes {
            self.0 = match (self.0, *byte) {
                (Within::Text, IAC) => Within::Command,
                (Within::Command, IAC) | (Within::Text, _) => {
                    text.push(*byte);
                    Within::Text
                }
                (Within::Command, SB) => Within::Subnegotiation,
                // WILL, WON'T, DO, DON'T name an option.
                (Within::Command, 251..=254) => Within::Option,
                (Within::Command | Within::Option, _) => Within::Text,
                (Within::Subnegotiation, IAC) => Within::SubnegotiationCommand,
                (Within::SubnegotiationCommand, SE) => Within::Text,
                (Within::Subnegotiation | Within::SubnegotiationCommand, _) => {
                    Within::Subnegotiation
                }
            };
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn telnet_is_taken_out_wherever_it_is_cut() {
        let said = b"\xff\xfb\x01lo\xff\xffg\xff\xfa\x18\x01\xff\xf0in\xff\xf1: ";
        for cut in 0..said.len() {
            let mut telnet = Telnet::default();
            let mut text = telnet.heard(&said[..cut]);
            text.extend(telnet.heard(&said[cut..]));
            assert_eq!(text, b"lo\xffgin: ", "{cut}");
        }
    }

    #[test]
    fn what_the_host_is_told() {
        let mut out = Vec::new();
        speak(&ToHost::Data(vec![1, 255, 2]), true, &mut out);
        speak(&ToHost::Break, true, &mut out);
        assert_eq!(out, [1, 255, 255, 2, 255, 243]);
        out.clear();
        speak(&ToHost::Data(vec![255]), false, &mut out);
        speak(&ToHost::Break, false, &mut out);
        assert_eq!(out, [255]);
    }
}
