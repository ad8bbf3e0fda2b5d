//! The host's side of `ipmi_sim`'s system interface ("codec VM"), as far as a watchdog needs a machine to reset.
//!
//! Framing: a command ends with 0xA1; 0xAA escapes. The host says once what it can do (0x08 and a bit field), the
//! BMC then tells it to switch off (0x03), to reset (0x04), to interrupt (0x07).

use std::net::SocketAddrV4;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// Can be switched off, reset, interrupted.
const ABLE_TO: u8 = 0x01 | 0x02 | 0x08;
const END_OF_COMMAND: u8 = 0xa1;
const END_OF_MESSAGE: u8 = 0xa0;

/// A machine without anything in it.
pub struct Vm {
    told: Arc<Mutex<Vec<&'static str>>>,
}

impl Vm {
    /// Connects to the BMC, which may be starting yet.
    pub async fn plug_in(at: SocketAddrV4) -> Vm {
        let mut stream = loop {
            match TcpStream::connect(at).await {
                Ok(stream) => break stream,
                Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
            }
        };
        stream.write_all(&[0x08, ABLE_TO, END_OF_COMMAND]).await.expect("the BMC listens");
        let told = Arc::new(Mutex::new(Vec::new()));
        let heard = Arc::clone(&told);
        tokio::spawn(async move {
            let mut command = Vec::new();
            while let Ok(byte) = stream.read_u8().await {
                match byte {
                    END_OF_COMMAND => {
                        let word = match command[..] {
                            [0x03] => Some("off"),
                            [0x04] => Some("reset"),
                            [0x07] => Some("interrupt"),
                            _ => None,
                        };
                        heard.lock().unwrap_or_else(PoisonError::into_inner).extend(word);
                        command.clear();
                    }
                    END_OF_MESSAGE => command.clear(),
                    byte => command.push(byte),
                }
            }
        });
        Vm { told }
    }

    /// What the BMC did to it, in order.
    pub fn told(&self) -> Vec<&'static str> {
        self.told.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}
