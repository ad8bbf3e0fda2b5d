//! Serial over LAN's payload: characters with a four-bit number, and what became of the last ones.
//!
//! IPMI 2.0 §15.9 and table 15-2 (data), §15.11 (acknowledging).

use super::{Malformed, take};

/// One SOL payload, in either direction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sol<'a> {
    /// 1 to 15 and around; 0 carries no characters and wants no acknowledgement.
    pub sequence: u8,
    /// The number that is acknowledged; 0 is none.
    pub ack: u8,
    /// Characters of the acknowledged packet that were taken.
    pub accepted: u8,
    /// Flags, which mean one thing from the console and another from the BMC.
    pub flags: u8,
    /// Characters.
    pub data: &'a [u8],
}

/// From the console: the packet that `ack` names was not taken, send it again (also from the BMC).
pub const NACK: u8 = 0x40;
/// From the console: ring indicator (wake the machine).
pub const RING: u8 = 0x20;
/// From the console: a BREAK on the line, before the characters.
pub const BREAK: u8 = 0x10;
/// From the console: drop CTS.
pub const CTS_PAUSE: u8 = 0x08;
/// From the console: drop DCD and DSR.
pub const DROP_DCD: u8 = 0x04;
/// From the console: flush what is inbound (machine to console).
pub const FLUSH_INBOUND: u8 = 0x02;
/// From the console: flush what is outbound.
pub const FLUSH_OUTBOUND: u8 = 0x01;
/// From the BMC: it cannot send characters on now.
pub const TRANSFER_UNAVAILABLE: u8 = 0x20;
/// From the BMC: the payload is deactivated, or about to be.
pub const DEACTIVATING: u8 = 0x10;
/// From the BMC: characters were lost, its buffer was full.
pub const TRANSMIT_OVERRUN: u8 = 0x08;
/// From the BMC: a BREAK was on the line.
pub const BREAK_DETECTED: u8 = 0x04;

impl<'a> Sol<'a> {
    /// From a payload.
    pub fn decode(mut bytes: &'a [u8]) -> Result<Sol<'a>, Malformed> {
        let [sequence, ack, accepted, flags] = take(&mut bytes, "a SOL packet that is cut")?;
        Ok(Sol { sequence: sequence & 0x0f, ack: ack & 0x0f, accepted, flags, data: bytes })
    }

    /// As a payload.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = vec![self.sequence, self.ack, self.accepted, self.flags];
        out.extend_from_slice(self.data);
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_and_back() {
        let sol = Sol { sequence: 15, ack: 3, accepted: 7, flags: NACK, data: b"login: " };
        assert_eq!(Sol::decode(&sol.encode()), Ok(sol));
        for length in 0..4 {
            assert!(Sol::decode(&[0; 4][..length]).is_err());
        }
    }
}
