//! What is handed over once a client has asked for something by name: bytes in memory (scripts,
//! loaders, the segment of one boot) or a file of the image store. And the id that ties the
//! answers of one boot together.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::Arc;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

/// Something a client may read, whole or in ranges. Cheap to clone.
#[derive(Debug, Clone)]
pub enum Content {
    /// In memory.
    Bytes(Bytes),
    /// On disk, immutable while it is served.
    File {
        /// Where it is.
        path: Arc<PathBuf>,
        /// Its size in bytes, as the store knows it.
        size: u64,
    },
}

impl Content {
    /// Size in bytes.
    pub fn size(&self) -> u64 {
        match self {
            Content::Bytes(bytes) => bytes.len() as u64,
            Content::File { size, .. } => *size,
        }
    }
}

/// One boot of one machine. Random, so that a stranger cannot guess it.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct BootId(pub [u8; 16]);

/// A boot id that is not 32 hexadecimal digits.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a boot id is 32 hexadecimal digits")]
pub struct BadBootId;

impl fmt::Display for BootId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for BootId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for BootId {
    type Err = BadBootId;
    fn from_str(text: &str) -> Result<BootId, BadBootId> {
        parse_hex(text).map(BootId).ok_or(BadBootId)
    }
}

impl TryFrom<String> for BootId {
    type Error = BadBootId;
    fn try_from(text: String) -> Result<BootId, BadBootId> {
        text.parse()
    }
}

impl From<BootId> for String {
    fn from(id: BootId) -> String {
        id.to_string()
    }
}

/// Lower-case hexadecimal.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(2 * bytes.len()), |mut text, byte| {
        text.push(char::from_digit(u32::from(byte >> 4), 16).expect("a nibble is below 16"));
        text.push(char::from_digit(u32::from(byte & 15), 16).expect("a nibble is below 16"));
        text
    })
}

/// Exactly `2 * N` hexadecimal digits, or nothing.
pub fn parse_hex<const N: usize>(text: &str) -> Option<[u8; N]> {
    let text = text.as_bytes();
    if text.len() != 2 * N {
        return None;
    }
    let mut out = [0u8; N];
    for (byte, pair) in out.iter_mut().zip(text.chunks(2)) {
        let high = (pair[0] as char).to_digit(16)?;
        let low = (pair[1] as char).to_digit(16)?;
        *byte = (high << 4 | low) as u8;
    }
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_boot_id_reads_back_as_written() {
        let id = BootId([0xab; 16]);
        assert_eq!(id.to_string().parse(), Ok(id));
        assert_eq!("abc".parse::<BootId>(), Err(BadBootId));
        assert_eq!("é".repeat(16).parse::<BootId>(), Err(BadBootId));
    }
}
