//! What a sensor or a FRU belongs to (IPMI table 43-13; §39.1 for instances).

use std::fmt;

use serde::{Serialize, Serializer};

/// A part of the machine: `processor 1`, `power supply 2`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Entity {
    /// Which kind.
    pub id: u8,
    /// Which of them; bit 7: a logical container. 0x60 and above count within a device.
    pub instance: u8,
}

impl Entity {
    /// Which kind, in words.
    pub fn words(self) -> &'static str {
        match self.id {
            0x90..=0xaf => "chassis-specific entity",
            0xb0..=0xcf => "board-specific entity",
            0xd0..=0xff => "OEM entity",
            id => NAMES.get(usize::from(id)).copied().unwrap_or("unknown entity"),
        }
    }
}

impl fmt::Display for Entity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.instance & 0x7f {
            0 => f.write_str(self.words()),
            instance @ 0x60.. => write!(f, "{} {}", self.words(), instance - 0x60),
            instance => write!(f, "{} {instance}", self.words()),
        }
    }
}

impl Serialize for Entity {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

const NAMES: [&str; 67] = [
    "unspecified",
    "other",
    "unknown",
    "processor",
    "disk",
    "peripheral bay",
    "management module",
    "system board",
    "memory module",
    "processor module",
    "power supply",
    "add-in card",
    "front panel board",
    "back panel board",
    "power system board",
    "drive backplane",
    "internal expansion board",
    "other system board",
    "processor board",
    "power unit",
    "power module",
    "power distribution board",
    "chassis back panel board",
    "chassis",
    "sub-chassis",
    "other chassis board",
    "disk drive bay",
    "peripheral bay",
    "device bay",
    "fan",
    "cooling unit",
    "cable",
    "memory device",
    "management software",
    "system firmware",
    "operating system",
    "system bus",
    "group",
    "remote management device",
    "external environment",
    "battery",
    "processing blade",
    "connectivity switch",
    "processor and memory module",
    "I/O module",
    "processor and I/O module",
    "management controller firmware",
    "IPMI channel",
    "PCI bus",
    "PCI Express bus",
    "SCSI bus",
    "SATA or SAS bus",
    "front-side bus",
    "real-time clock",
    "reserved",
    "air inlet",
    "reserved",
    "reserved",
    "reserved",
    "reserved",
    "reserved",
    "reserved",
    "reserved",
    "reserved",
    // What DCMI 1.5 (table 4-16) adds.
    "air inlet",
    "processor",
    "baseboard",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_those_of_the_table() {
        let shown = |id, instance| Entity { id, instance }.to_string();
        assert_eq!(shown(3, 1), "processor 1");
        assert_eq!(shown(0x0a, 2), "power supply 2");
        assert_eq!(shown(0x1d, 0x61), "fan 1");
        assert_eq!(shown(0x28, 0), "battery");
        assert_eq!(shown(0x37, 1), "air inlet 1");
        assert_eq!(shown(0x41, 1), "processor 1");
        assert_eq!(shown(0xd3, 0x81), "OEM entity 1");
    }
}
