//! A MAC address as a person writes it, in any of the usual spellings.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// An Ethernet address: what a machine is known by before it is anything else.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Mac(pub [u8; 6]);

/// What was wrong with a MAC address as written.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a MAC address (six hexadecimal pairs, like 52:54:00:77:00:01)")]
pub struct BadMac(pub String);

impl Mac {
    /// Group bit set: a multicast or broadcast address, which no machine has of its own.
    pub fn is_multicast(self) -> bool {
        self.0[0] & 1 != 0
    }

    /// `52-54-00-77-00-01`: how PXELINUX and GRUB spell it in file names.
    pub fn dashed(self) -> String {
        self.to_string().replace(':', "-")
    }
}

impl FromStr for Mac {
    type Err = BadMac;

    /// Takes `52:54:00:77:00:01`, `52-54-…`, `5254.0077.0001` and `525400770001`, in either case.
    fn from_str(text: &str) -> Result<Mac, BadMac> {
        let bad = || BadMac(text.chars().take(40).collect());
        let separators: &[usize] = match text.len() {
            17 => &[2, 5, 8, 11, 14],
            14 => &[4, 9],
            12 => &[],
            _ => return Err(bad()),
        };
        let mut digits = [0u8; 12];
        let mut count = 0;
        for (at, byte) in text.bytes().enumerate() {
            if separators.contains(&at) {
                let wanted: &[u8] = if text.len() == 14 { b"." } else { b":-" };
                if !wanted.contains(&byte) {
                    return Err(bad());
                }
                continue;
            }
            let digit = (byte as char).to_digit(16).ok_or_else(bad)?;
            *digits.get_mut(count).ok_or_else(bad)? = digit as u8;
            count += 1;
        }
        let mut mac = [0u8; 6];
        for (octet, pair) in mac.iter_mut().zip(digits.chunks(2)) {
            *octet = pair[0] << 4 | pair[1];
        }
        Ok(Mac(mac))
    }
}

impl fmt::Display for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

impl fmt::Debug for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl TryFrom<String> for Mac {
    type Error = BadMac;
    fn try_from(text: String) -> Result<Mac, BadMac> {
        text.parse()
    }
}

impl From<Mac> for String {
    fn from(mac: Mac) -> String {
        mac.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_usual_spelling_is_the_same_address() {
        let mac = Mac([0x52, 0x54, 0x00, 0x77, 0xab, 0x01]);
        for text in [
            "52:54:00:77:ab:01",
            "52-54-00-77-AB-01",
            "5254.0077.ab01",
            "52540077ab01",
            "52540077AB01",
        ] {
            assert_eq!(text.parse(), Ok(mac), "{text}");
        }
        assert_eq!(mac.to_string(), "52:54:00:77:ab:01");
        assert_eq!(mac.dashed(), "52-54-00-77-ab-01");
    }

    #[test]
    fn what_is_no_address_is_refused_by_name() {
        for text in [
            "",
            "52:54:00:77:ab",
            "52:54:00:77:ab:0g",
            "52:54:00:77:ab:01:02",
            "ééé:éé:éé",
            "5254:0077:ab01",
        ] {
            assert_eq!(text.parse::<Mac>(), Err(BadMac(text.to_string())));
        }
    }
}
