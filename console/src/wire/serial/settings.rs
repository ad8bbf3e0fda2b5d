//! Which serial port the site means, and how it is to be set: `PATH@SETTINGS`, or `usb:NAME@SETTINGS` for an
//! adapter that is known by its serial number or by where it is plugged in.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use crate::wire::Settings;

/// What a UART's divisor makes out of 115200, and what faster ones add.
pub const SPEEDS: [u32; 16] = [
    300, 600, 1200, 2400, 4800, 9600, 19200, 38400, 57600, 115_200, 230_400, 460_800, 921_600,
    1_000_000, 1_500_000, 3_000_000,
];

/// A serial port of this host, and how it is set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Port {
    /// Which one.
    pub place: Place,
    /// How it is set; no flow control where none is said.
    pub settings: Settings,
}

/// Which port it is, whatever the kernel calls it today.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// A device, or a link to one.
    Path(PathBuf),
    /// A USB adapter: `SERIALNUMBER` or `1-1.2`, with `:INTERFACE` or `:INTERFACE.PORT` where it has many.
    Usb(String),
}

/// Why it is no serial port: what to write instead.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Unreadable(String);

const LIKE: &str = "like serial:/dev/ttyUSB0@115200, serial:/dev/ttyS1@9600,7e1,rtscts or \
                    serial:usb:A50285BI@115200 (koboshi console --ports shows what is here)";

impl FromStr for Port {
    type Err = Unreadable;

    fn from_str(text: &str) -> Result<Port, Unreadable> {
        let like = || Unreadable(LIKE.to_string());
        let (place, set) = text.rsplit_once('@').ok_or_else(like)?;
        let place = match place.strip_prefix("usb:") {
            Some(name) if !name.is_empty() && !name.contains(['/', '\0', '@']) => {
                Place::Usb(name.to_string())
            }
            None if place.starts_with('/') && !place.contains('\0') => {
                Place::Path(PathBuf::from(place))
            }
            _ => return Err(like()),
        };
        let settings: Settings = set.parse().map_err(|why| Unreadable(format!("{why}")))?;
        if !SPEEDS.contains(&settings.speed) {
            let most = "9600, 19200, 38400, 57600, 115200 …";
            return Err(Unreadable(format!("{} is not a speed: {most}", settings.speed)));
        }
        Ok(Port { place, settings })
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Place::Path(path) => write!(f, "{}", path.display()),
            Place::Usb(name) => write!(f, "usb:{name}"),
        }
    }
}

impl fmt::Display for Port {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}", self.place, self.settings)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn read_back_as_they_print() {
        for good in [
            "/dev/ttyUSB0@115200",
            "/dev/serial/by-id/usb-a@b,c@9600",
            "/dev/ttyS1@9600,7e1",
            "/dev/ttyS1@9600,7o2,rtscts",
            "/dev/ttyS1@9600,xonxoff",
            "usb:A50285BI@115200",
            "usb:1-1.2:3@9600,7e1",
        ] {
            assert_eq!(good.parse::<Port>().unwrap().to_string(), good);
        }
    }

    #[test]
    fn what_is_wrong_is_said() {
        for (bad, says) in [
            ("", "like serial:"),
            ("/dev/ttyS1", "like serial:"),
            ("ttyS1@9600", "like serial:"),
            ("usb:@9600", "like serial:"),
            ("usb:../x@9600", "like serial:"),
            ("/dev/ttyS1@9601", "9601 is not a speed"),
            ("/dev/ttyS1@", "a port is set like 115200, "),
            ("/dev/ttyS1@9600,8x1", "a port is set like 115200, "),
        ] {
            let why = bad.parse::<Port>().unwrap_err().to_string();
            assert!(why.starts_with(says), "{bad}: {why}");
        }
    }
}
