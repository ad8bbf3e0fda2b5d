//! What a reading is counted in (IPMI table 43-15, and the units bytes of a sensor record, table 43-1).

use std::fmt;

use serde::{Serialize, Serializer};

/// How an analog reading's byte holds a number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// 0 to 255.
    Unsigned,
    /// −127 to 127, with two zeros.
    Ones,
    /// −128 to 127.
    Twos,
    /// Not a number.
    None,
}

/// The three units bytes of a sensor record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Units {
    /// Format, rate, modifier and percentage.
    pub flags: u8,
    /// Of table 43-15.
    pub base: u8,
    /// Of the same table; what the base is multiplied with or divided by.
    pub modifier: u8,
}

impl Units {
    /// How the reading's byte holds a number.
    pub fn format(self) -> Format {
        match self.flags >> 6 {
            0 => Format::Unsigned,
            1 => Format::Ones,
            2 => Format::Twos,
            _ => Format::None,
        }
    }

    /// Whether anything says what is counted.
    pub fn is_specified(self) -> bool {
        self.base != 0 || self.flags & 1 != 0
    }
}

impl fmt::Display for Units {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let base = name(self.base);
        let percent = self.flags & 1 != 0;
        f.write_str(if percent { "%" } else { "" })?;
        // Firmware that means plain per cent sets a base unit of 0, or one that says nothing more.
        if base.is_empty() {
            return Ok(());
        }
        write!(f, "{}{base}", if percent { " " } else { "" })?;
        match self.flags >> 1 & 3 {
            1 => write!(f, "/{}", name(self.modifier))?,
            2 => write!(f, "·{}", name(self.modifier))?,
            _ => {}
        }
        let rate = match self.flags >> 3 & 7 {
            1 => "/µs",
            2 => "/ms",
            3 => "/s",
            4 => "/min",
            5 => "/h",
            6 => "/d",
            _ => "",
        };
        f.write_str(rate)
    }
}

impl Serialize for Units {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

fn name(unit: u8) -> &'static str {
    NAMES.get(usize::from(unit)).copied().unwrap_or("?")
}

const NAMES: [&str; 93] = [
    "",
    "°C",
    "°F",
    "K",
    "V",
    "A",
    "W",
    "J",
    "C",
    "VA",
    "nit",
    "lm",
    "lx",
    "cd",
    "kPa",
    "psi",
    "N",
    "CFM",
    "RPM",
    "Hz",
    "µs",
    "ms",
    "s",
    "min",
    "h",
    "d",
    "weeks",
    "mil",
    "in",
    "ft",
    "in³",
    "ft³",
    "mm",
    "cm",
    "m",
    "cm³",
    "m³",
    "l",
    "fl oz",
    "rad",
    "sr",
    "revolutions",
    "cycles",
    "g",
    "oz",
    "lb",
    "ft·lb",
    "oz·in",
    "G",
    "Gb",
    "H",
    "mH",
    "F",
    "µF",
    "Ω",
    "S",
    "mol",
    "Bq",
    "ppm",
    "",
    "dB",
    "dBA",
    "dBC",
    "Gy",
    "Sv",
    "K (colour)",
    "bits",
    "kbit",
    "Mbit",
    "Gbit",
    "bytes",
    "kB",
    "MB",
    "GB",
    "words",
    "double words",
    "quad words",
    "lines",
    "hits",
    "misses",
    "retries",
    "resets",
    "overruns",
    "underruns",
    "collisions",
    "packets",
    "messages",
    "characters",
    "errors",
    "correctable errors",
    "uncorrectable errors",
    "fatal errors",
    "grams",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_modifiers_and_percentages() {
        let shown = |flags, base, modifier| Units { flags, base, modifier }.to_string();
        assert_eq!(shown(0, 1, 0), "°C");
        assert_eq!(shown(0, 18, 0), "RPM");
        assert_eq!(shown(1, 0, 0), "%");
        assert_eq!(shown(0x18, 85, 0), "packets/s");
        assert_eq!(shown(2, 70, 22), "bytes/s");
        assert_eq!(shown(4, 6, 24), "W·h");
        assert_eq!(shown(0, 92, 0), "grams");
        assert_eq!(shown(0, 200, 0), "?");
        assert_eq!(Units { flags: 0x80, base: 1, modifier: 0 }.format(), Format::Twos);
    }
}
