//! The small values of the site file, each turned from text into a type at the door: serial ports,
//! image names, sizes, times.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::{Serialize, Serializer};

use super::names::{Malformed, RoleName};

macro_rules! shown_as_text {
    ($($type:ty),*) => {$(
        impl Serialize for $type {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }
    )*};
}

shown_as_text!(Serial, ImageRef, RootSize, Lease, Unknown);

/// At most this much of a wrong value is repeated to the operator.
pub(super) fn shown(text: &str) -> String {
    let short: String = text.chars().take(60).collect();
    if short.len() < text.len() { format!("{short:?}…") } else { format!("{short:?}") }
}

/// A serial port and its speed: one value for loader, kernel, getty and console line (S24).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Serial {
    /// As the kernel calls it: `ttyS0`.
    pub port: String,
    /// Bits a second.
    pub speed: u32,
}

impl Default for Serial {
    fn default() -> Serial {
        Serial { port: "ttyS0".into(), speed: 115_200 }
    }
}

impl Serial {
    /// `ttyS1` is unit 1: what iPXE and GRUB count by.
    pub fn unit(&self) -> Option<u8> {
        self.port.strip_prefix("ttyS")?.parse().ok()
    }
}

/// What a UART's divisor makes out of 115200, and what faster ones add.
const SPEEDS: [u32; 13] = [
    1200, 2400, 4800, 9600, 19200, 38400, 57600, 115_200, 230_400, 460_800, 921_600, 1_500_000,
    3_000_000,
];

impl FromStr for Serial {
    type Err = Malformed;
    fn from_str(text: &str) -> Result<Serial, Malformed> {
        let bad = |help: String| {
            Malformed::new(format!("{} is not a serial port with its speed", shown(text)))
                .help(help)
        };
        let like = || bad("a port and its speed are written like ttyS1,115200".into());
        let (port, speed) = text.split_once(',').ok_or_else(like)?;
        let letters = port.trim_end_matches(|c: char| c.is_ascii_digit());
        let named = (letters.starts_with("tty") && letters.len() > 3) || letters == "hvc";
        let plain = letters.bytes().all(|b| b.is_ascii_alphabetic());
        if !named || !plain || letters.len() == port.len() || port.len() > 15 {
            return Err(bad(format!("{} is no port: ttyS0, ttyS1 …", shown(port))));
        }
        // Eight bits without parity is all a boot loader knows.
        let digits = speed.strip_suffix("n8").unwrap_or(speed);
        let speed = digits.parse().ok().filter(|speed| SPEEDS.contains(speed));
        let speed = speed.ok_or_else(|| {
            bad(format!("{} is not a speed: 9600, 19200, 38400, 57600, 115200 …", shown(digits)))
        })?;
        Ok(Serial { port: port.into(), speed })
    }
}

impl fmt::Display for Serial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{},{}", self.port, self.speed)
    }
}

/// An image by name, the newest published version or a certain one: `web`, `web@3`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ImageRef {
    /// Its name.
    pub name: String,
    /// Its version, if it is to be that one.
    pub version: Option<u64>,
}

impl FromStr for ImageRef {
    type Err = Malformed;
    fn from_str(text: &str) -> Result<ImageRef, Malformed> {
        let bad = || {
            Malformed::new(format!("{} is not the name of an image", shown(text)))
                .help("an image is written like web, or web@3 for its third version")
        };
        let (name, version) = match text.split_once('@') {
            Some((name, version)) => (name, Some(version)),
            None => (text, None),
        };
        let fits = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b"._-".contains(&b);
        let first = name.bytes().next().is_some_and(|b| b.is_ascii_alphanumeric());
        if !first || name.len() > 63 || !name.bytes().all(fits) || name.contains("..") {
            return Err(bad());
        }
        let version = match version {
            None => None,
            Some(digits) if digits.bytes().all(|b| b.is_ascii_digit()) => {
                Some(digits.parse().ok().filter(|version| *version > 0).ok_or_else(bad)?)
            }
            Some(_) => return Err(bad()),
        };
        Ok(ImageRef { name: name.into(), version })
    }
}

impl fmt::Display for ImageRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)?;
        self.version.map_or(Ok(()), |version| write!(f, "@{version}"))
    }
}

/// How large the root in memory may grow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RootSize {
    /// Of the machine's memory.
    Percent(u8),
    /// Absolutely.
    Bytes(u64),
}

impl Default for RootSize {
    fn default() -> RootSize {
        RootSize::Percent(80)
    }
}

impl FromStr for RootSize {
    type Err = Malformed;
    fn from_str(text: &str) -> Result<RootSize, Malformed> {
        let bad = || {
            Malformed::new(format!("{} is not a size for the root", shown(text)))
                .help("a share of memory like 80%, or a size like 512M or 4G")
        };
        if let Some(percent) = text.strip_suffix('%') {
            let percent: u8 = percent.parse().map_err(|_| bad())?;
            return match percent {
                1..=100 => Ok(RootSize::Percent(percent)),
                _ => Err(bad()),
            };
        }
        let unit = text.chars().last().ok_or_else(bad)?;
        let shift = "kmgt".find(unit.to_ascii_lowercase()).ok_or_else(bad)?;
        let number = &text[..text.len() - 1];
        if number.is_empty() || !number.bytes().all(|b| b.is_ascii_digit()) {
            return Err(bad());
        }
        let number: u64 = number.parse().map_err(|_| bad())?;
        let bytes = number.checked_mul(1 << (10 * (shift + 1))).filter(|bytes| *bytes > 0);
        bytes.map(RootSize::Bytes).ok_or_else(bad)
    }
}

/// As the kernel's tmpfs takes it: `80%`, `512m`.
impl fmt::Display for RootSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            RootSize::Percent(percent) => write!(f, "{percent}%"),
            RootSize::Bytes(bytes) if bytes.is_multiple_of(1 << 30) => {
                write!(f, "{}g", bytes >> 30)
            }
            RootSize::Bytes(bytes) if bytes.is_multiple_of(1 << 20) => {
                write!(f, "{}m", bytes >> 20)
            }
            RootSize::Bytes(bytes) => write!(f, "{}k", bytes >> 10),
        }
    }
}

/// How long a pool's address is lent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lease(pub Duration);

impl Default for Lease {
    fn default() -> Lease {
        Lease(Duration::from_secs(3600))
    }
}

impl FromStr for Lease {
    type Err = Malformed;
    fn from_str(text: &str) -> Result<Lease, Malformed> {
        let bad = || {
            Malformed::new(format!("{} is not a time", shown(text)))
                .help("a time is written like 90s, 30m, 1h or 7d")
        };
        let unit = text.chars().last().ok_or_else(bad)?;
        let seconds: u64 = match unit {
            's' => 1,
            'm' => 60,
            'h' => 3600,
            'd' => 86_400,
            _ => return Err(bad()),
        };
        let number = &text[..text.len() - 1];
        if number.is_empty() || !number.bytes().all(|b| b.is_ascii_digit()) {
            return Err(bad());
        }
        let number: u64 = number.parse().map_err(|_| bad())?;
        let whole = number.checked_mul(seconds).ok_or_else(bad)?;
        // Under a minute a client does nothing but renew; over a year it is for ever (RFC 2131 section 3.3).
        if !(60..=366 * 86_400).contains(&whole) {
            return Err(Malformed::new(format!("a lease of {} makes no sense", shown(text)))
                .help("between one minute and one year"));
        }
        Ok(Lease(Duration::from_secs(whole)))
    }
}

impl fmt::Display for Lease {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = self.0.as_secs();
        let units = [(86_400, 'd'), (3600, 'h'), (60, 'm'), (1, 's')];
        let (size, unit) =
            units.into_iter().find(|(size, _)| seconds.is_multiple_of(*size)).unwrap_or((1, 's'));
        write!(f, "{}{unit}", seconds / size)
    }
}

/// What a MAC that the site does not know gets.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Unknown {
    /// Silence.
    #[default]
    Ignore,
    /// The machine is asked what it is, and shown to the operator.
    Discover,
    /// A menu on its console.
    Menu,
    /// This role, with an address of the pool.
    Role(RoleName),
}

impl FromStr for Unknown {
    type Err = Malformed;
    fn from_str(text: &str) -> Result<Unknown, Malformed> {
        Ok(match text {
            "ignore" => Unknown::Ignore,
            "discover" => Unknown::Discover,
            "menu" => Unknown::Menu,
            role => Unknown::Role(role.parse()?),
        })
    }
}

impl fmt::Display for Unknown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Unknown::Ignore => f.write_str("ignore"),
            Unknown::Discover => f.write_str("discover"),
            Unknown::Menu => f.write_str("menu"),
            Unknown::Role(role) => fmt::Display::fmt(role, f),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn back<T: FromStr + fmt::Display>(text: &str) -> Option<String> {
        text.parse::<T>().ok().map(|value| value.to_string())
    }

    #[test]
    fn values_read_back_as_they_print() {
        for (text, want) in [
            ("ttyS0,115200", Some("ttyS0,115200")),
            ("ttyS1,57600n8", Some("ttyS1,57600")),
            ("ttyAMA0,9600", Some("ttyAMA0,9600")),
            ("hvc0,115200", Some("hvc0,115200")),
            ("ttyS0", None),
            ("ttyS,115200", None),
            ("tty0,115200", None),
            ("ttyS0,115201", None),
            ("ttyS0,115200n7", None),
            ("ttyS0 ,115200", None),
            ("/dev/ttyS0,115200", None),
            ("", None),
        ] {
            assert_eq!(back::<Serial>(text).as_deref(), want, "{text}");
        }
        for (text, want) in [
            ("web", Some("web")),
            ("web@3", Some("web@3")),
            ("debian-12.5_x", Some("debian-12.5_x")),
            ("web@", None),
            ("web@0", None),
            ("web@x", None),
            ("web@+3", None),
            ("Web", None),
            ("../web", None),
            ("a..b", None),
            ("-web", None),
            ("", None),
            ("web@99999999999999999999", None),
        ] {
            assert_eq!(back::<ImageRef>(text).as_deref(), want, "{text}");
        }
        for (text, want) in [
            ("80%", Some("80%")),
            ("512M", Some("512m")),
            ("4G", Some("4g")),
            ("1000k", Some("1000k")),
            ("0%", None),
            ("101%", None),
            ("+5%", Some("5%")),
            ("0M", None),
            ("12", None),
            ("G", None),
            ("é", None),
            ("99999999999T", None),
        ] {
            assert_eq!(back::<RootSize>(text).as_deref(), want, "{text}");
        }
        for (text, want) in [
            ("1h", Some("1h")),
            ("90m", Some("90m")),
            ("86400s", Some("1d")),
            ("59s", None),
            ("h", None),
            ("1w", None),
            ("", None),
            ("99999999999999999999d", None),
        ] {
            assert_eq!(back::<Lease>(text).as_deref(), want, "{text}");
        }
        assert_eq!(back::<Unknown>("rescue").as_deref(), Some("rescue"));
        assert_eq!("discover".parse(), Ok(Unknown::Discover));
    }
}
