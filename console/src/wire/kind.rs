//! What the site says of a line that is no Serial over LAN, and how it is opened once.

use std::path::PathBuf;
use std::sync::Arc;

use super::{NotOpen, Wire, serial, tcp, unix};

/// A kind of line, and where it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kind {
    /// A serial port of this host.
    Serial(serial::Port),
    /// A terminal server's port, bytes as they are.
    Tcp {
        /// Name or address.
        host: String,
        /// Port.
        port: u16,
    },
    /// A socket that a virtual machine or a program listens at.
    Unix(PathBuf),
}

impl Kind {
    /// Opens it once.
    ///
    /// # Errors
    /// Why it is not open, in words.
    pub async fn open(&self) -> Result<Wire, NotOpen> {
        match self {
            Kind::Serial(port) => serial::open(&Arc::default(), port).await,
            Kind::Tcp { host, port } => tcp::open(host, *port).await,
            Kind::Unix(path) => unix::open(path).await,
        }
    }
}
