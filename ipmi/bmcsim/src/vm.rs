//! The host's own interface: what QEMU's `ipmi-bmc-extern` speaks over a socket, so that a guest has its BMC
//! at `/dev/ipmi0`, and the BMC has reset, shutdown and NMI of its guest.
//!
//! OpenIPMI, `lanserv/README.vm`: frames end in 0xA0 (a message: sequence, NetFn and LUN, command, data,
//! checksum) or 0xA1 (an order); these two and 0xAA are said as 0xAA and the byte with bit 4 set.

use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use koboshi_ipmi::message::{BMC, checksum};
use koboshi_ipmi::{Message, NetFn, Response};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;

use crate::dispatch::{self, Who};
use crate::sim::Cell;

const END_MESSAGE: u8 = 0xa0;
const END_ORDER: u8 = 0xa1;
const ESCAPE: u8 = 0xaa;
const VERSION: [u8; 2] = [0xff, 1];
const CAPABILITIES: u8 = 0x08;
/// Longer frames are no IPMI message.
const MOST: usize = 512;

/// What a virtual machine can be told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Tell {
    Reset,
    Shutdown,
    Interrupt,
}

impl Tell {
    /// The order, and the capability that it takes.
    fn code(self) -> (u8, u8) {
        match self {
            Tell::Reset => (0x04, 0x02),
            Tell::Shutdown => (0x09, 0x20),
            Tell::Interrupt => (0x07, 0x08),
        }
    }
}

/// The virtual machine, while it is connected.
#[derive(Debug, Default)]
pub(crate) struct Link(Mutex<Option<Connected>>);

#[derive(Debug)]
struct Connected {
    capabilities: u8,
    orders: mpsc::UnboundedSender<Tell>,
}

impl Link {
    /// Tells it; whether it is there and can be told so.
    pub(crate) fn tell(&self, what: Tell) -> bool {
        let link = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        link.as_ref().is_some_and(|connected| {
            connected.capabilities & what.code().1 != 0 && connected.orders.send(what).is_ok()
        })
    }

    fn set(&self, connected: Option<Connected>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = connected;
    }

    fn can(&self, capabilities: u8) {
        if let Some(connected) = &mut *self.0.lock().unwrap_or_else(PoisonError::into_inner) {
            connected.capabilities = capabilities;
        }
    }
}

/// Serves one virtual machine after another until it is dropped.
pub(crate) async fn run(cell: Arc<Cell>, listener: std::net::TcpListener) {
    let listener = match TcpListener::from_std(listener) {
        Ok(listener) => listener,
        Err(error) => return tracing::error!(%error, "the host's interface"),
    };
    loop {
        let ended = match listener.accept().await {
            Ok((stream, _)) => serve(&cell, stream).await,
            Err(error) => Err(error),
        };
        cell.vm.set(None);
        if let Err(error) = ended {
            tracing::debug!(%error, "the host's interface is down");
        }
    }
}

async fn serve(cell: &Cell, mut stream: TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let (orders, mut told) = mpsc::unbounded_channel();
    cell.vm.set(Some(Connected { capabilities: 0, orders }));
    stream.write_all(&frame(&VERSION, END_ORDER)).await?;
    let mut frames = Frames::default();
    let mut buffer = [0; 512];
    loop {
        tokio::select! {
            what = told.recv() => {
                let Some(what) = what else { return Ok(()) };
                stream.write_all(&frame(&[what.code().0], END_ORDER)).await?;
            }
            read = stream.read(&mut buffer) => {
                let length = read?;
                if length == 0 {
                    return Ok(());
                }
                let mut out = Vec::new();
                for frame in frames.take(&buffer[..length]) {
                    match frame {
                        Frame::Message(bytes) => out.extend(answer(cell, &bytes)),
                        Frame::Order(bytes) => {
                            if let [CAPABILITIES, capabilities, ..] = *bytes {
                                cell.vm.can(capabilities);
                            }
                        }
                    }
                }
                stream.write_all(&out).await?;
            }
        }
    }
}

fn answer(cell: &Cell, bytes: &[u8]) -> Vec<u8> {
    let Some((seq, message)) = decode(bytes) else { return Vec::new() };
    let response =
        dispatch::answer(&mut cell.lock().bmc, &Who::host(Instant::now()).asks(&message));
    cell.poked.notify_one();
    encode(seq, &message, &response)
}

/// A message of the host, and its sequence number.
fn decode(bytes: &[u8]) -> Option<(u8, Message)> {
    let (_, told) = bytes.split_last()?;
    let [seq, function, command, data @ ..] = told else { return None };
    if bytes.iter().fold(0u8, |sum, byte| sum.wrapping_add(*byte)) != 0 {
        return None;
    }
    let message = Message {
        to: BMC,
        to_lun: function & 3,
        netfn: NetFn(function >> 2),
        from: BMC,
        from_lun: 0,
        seq: 0,
        command: *command,
        data: data.to_vec(),
        checksums: true,
    };
    (message.netfn.0 & 1 == 0).then_some((*seq, message))
}

fn encode(seq: u8, message: &Message, response: &Response) -> Vec<u8> {
    let function = message.netfn.answer().0 << 2 | message.to_lun;
    let mut bytes = vec![seq, function, message.command, response.completion.0];
    bytes.extend_from_slice(&response.data);
    bytes.push(checksum(&bytes));
    frame(&bytes, END_MESSAGE)
}

fn frame(bytes: &[u8], end: u8) -> Vec<u8> {
    let mut out = Vec::with_capacity(bytes.len() + 4);
    for byte in bytes {
        match *byte {
            END_MESSAGE | END_ORDER | ESCAPE => out.extend([ESCAPE, byte | 0x10]),
            byte => out.push(byte),
        }
    }
    out.push(end);
    out
}

#[derive(Debug, PartialEq, Eq)]
enum Frame {
    Message(Vec<u8>),
    Order(Vec<u8>),
}

/// Frames out of a stream.
#[derive(Debug, Default)]
struct Frames {
    begun: Vec<u8>,
    is_escaped: bool,
    is_too_long: bool,
}

impl Frames {
    fn take(&mut self, bytes: &[u8]) -> Vec<Frame> {
        let mut out = Vec::new();
        for byte in bytes {
            match *byte {
                end @ (END_MESSAGE | END_ORDER) => {
                    let whole = std::mem::take(self);
                    if whole.is_escaped || whole.is_too_long || whole.begun.is_empty() {
                        continue;
                    }
                    out.push(match end {
                        END_MESSAGE => Frame::Message(whole.begun),
                        _ => Frame::Order(whole.begun),
                    });
                }
                ESCAPE => self.is_escaped = true,
                _ if self.begun.len() >= MOST => self.is_too_long = true,
                byte => {
                    let byte = if self.is_escaped { byte & !0x10 } else { byte };
                    self.is_escaped = false;
                    self.begun.push(byte);
                }
            }
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use koboshi_ipmi::Completion;
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_message_and_its_answer() {
        let mut bytes = vec![9, 0x18, 0x01];
        bytes.push(checksum(&bytes));
        let (seq, message) = decode(&bytes).unwrap();
        assert_eq!((seq, message.netfn, message.command), (9, NetFn::APP, 1));
        let response = Response { completion: Completion::OK, data: vec![0xa0, 0xaa] };
        let framed = encode(seq, &message, &response);
        assert_eq!(framed[..6], [9, 0x1c, 0x01, 0x00, 0xaa, 0xb0]);
        bytes[0] = 8;
        assert!(decode(&bytes).is_none(), "a wrong checksum");
        for length in 0..4 {
            assert!(decode(&[0; 4][..length]).is_none());
        }
    }

    proptest! {
        #[test]
        fn frames_wherever_the_stream_is_cut(bytes in proptest::collection::vec(any::<u8>(), 1..60), cut: usize) {
            let framed = frame(&bytes, END_MESSAGE);
            let (one, other) = framed.split_at(cut % framed.len());
            let mut frames = Frames::default();
            let mut out = frames.take(one);
            out.extend(frames.take(other));
            prop_assert_eq!(out, [Frame::Message(bytes)]);
        }

        #[test]
        fn any_stream(bytes: Vec<u8>) {
            for frame in Frames::default().take(&bytes) {
                if let Frame::Message(bytes) = frame {
                    decode(&bytes);
                }
            }
        }
    }
}
