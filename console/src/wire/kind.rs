//! What the site says of a line that is no Serial over LAN, and how it is opened once.

use std::path::PathBuf;
use std::sync::Arc;

use super::{NotOpen, Settings, Wire, exec, serial, tcp, telnet, unix};

/// A kind of line, and where it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kind {
    /// A serial port of this host.
    Serial(serial::Port),
    /// A terminal server's port that speaks telnet.
    Telnet {
        /// Name or address.
        host: String,
        /// Port.
        port: u16,
        /// How the serial port behind it is to be set. None: it stays as it is set there.
        settings: Option<Settings>,
    },
    /// A terminal server's port, bytes as they are.
    Tcp {
        /// Name or address.
        host: String,
        /// Port.
        port: u16,
    },
    /// A socket that a virtual machine or a program listens at.
    Unix(PathBuf),
    /// A command, by the shell, in a pseudo-terminal.
    Exec(String),
}

impl Kind {
    /// Opens it once.
    ///
    /// # Errors
    /// Why it is not open, in words.
    pub async fn open(&self) -> Result<Wire, NotOpen> {
        match self {
            Kind::Serial(port) => serial::open(&Arc::default(), port).await,
            Kind::Telnet { host, port, settings } => telnet::open(host, *port, *settings).await,
            Kind::Tcp { host, port } => tcp::open(host, *port).await,
            Kind::Unix(path) => unix::open(path).await,
            Kind::Exec(command) => exec::open(command),
        }
    }
}
