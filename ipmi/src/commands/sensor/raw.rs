//! Requests about one sensor and their answers as bytes: Get Sensor Reading (IPMI §35.14), Get Sensor Reading
//! Factors (§35.5), Get and Set Sensor Thresholds (§35.8, §35.9).

use crate::commands::sdr::Key;
use crate::message::{NetFn, Request};
use crate::wire::Malformed;

/// What a sensor answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Raw {
    /// The reading's byte.
    pub value: u8,
    /// Bit 7: event messages enabled; bit 6: scanning enabled; bit 5: no reading now.
    pub flags: u8,
    /// A threshold sensor's comparison (bits 0 to 5), or a discrete one's states 0 to 7. Some leave it out.
    pub comparison: Option<u8>,
    /// States 8 to 14.
    pub more: Option<u8>,
}

impl Raw {
    /// From the answer's data.
    pub fn decode(bytes: &[u8]) -> Result<Raw, Malformed> {
        let [value, flags, rest @ ..] = bytes else {
            return Err(Malformed("a sensor's reading of less than 2 bytes"));
        };
        let (comparison, more) = (rest.first().copied(), rest.get(1).copied());
        Ok(Raw { value: *value, flags: *flags, comparison, more })
    }

    /// The answer's data.
    pub fn encode(&self) -> Vec<u8> {
        let rest = [self.comparison, self.more];
        [self.value, self.flags].into_iter().chain(rest.into_iter().flatten()).collect()
    }

    /// Whether it is looked at.
    pub fn is_scanning(&self) -> bool {
        self.flags & 0x40 != 0
    }

    /// Whether the reading is no reading.
    pub fn is_unavailable(&self) -> bool {
        self.flags & 0x20 != 0
    }

    /// A discrete sensor's states; bit 15 is reserved and always set.
    pub fn states(&self) -> u16 {
        u16::from_le_bytes([self.comparison.unwrap_or(0), self.more.unwrap_or(0) & 0x7f])
    }
}

/// Get Sensor Reading.
pub fn reading_request(key: Key) -> Request {
    Request::new(NetFn::SENSOR, 0x2d, [key.number]).lun(key.lun)
}

/// Get Sensor Reading Factors for this reading.
pub fn factors_request(key: Key, value: u8) -> Request {
    Request::new(NetFn::SENSOR, 0x23, [key.number, value]).lun(key.lun)
}

/// Get Sensor Thresholds: a mask, then the six bytes.
pub fn thresholds_request(key: Key) -> Request {
    Request::new(NetFn::SENSOR, 0x27, [key.number]).lun(key.lun)
}

/// Set Sensor Thresholds: those of the mask.
pub fn set_thresholds_request(key: Key, mask: u8, values: [u8; 6]) -> Request {
    let [a, b, c, d, e, f] = values;
    Request::new(NetFn::SENSOR, 0x26, [key.number, mask & 0x3f, a, b, c, d, e, f]).lun(key.lun)
}
