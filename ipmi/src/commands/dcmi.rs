//! What DCMI adds: how much power a machine takes (DCMI 1.5 §6.6.1). A command of the group extension 0xDC;
//! its first byte, there and back, is that number.

use serde::Serialize;

use super::busy;
use crate::controller::Controller;
use crate::error::Error;
use crate::message::{Completion, NetFn, Request};
use crate::wire::Malformed;

/// The group extension's number.
pub const DCMI: u8 = 0xdc;

/// Get Power Reading, of the whole machine.
pub fn power_request() -> Request {
    Request::new(NetFn::GROUP, 0x02, [DCMI, 0x01, 0, 0])
}

/// Get DCMI Capabilities Info: what the platform supports.
pub fn capabilities_request() -> Request {
    Request::new(NetFn::GROUP, 0x01, [DCMI, 0x01])
}

/// Power in watts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Power {
    /// Now.
    pub current: u16,
    /// The least of the period.
    pub minimum: u16,
    /// The most of the period.
    pub maximum: u16,
    /// The period's average.
    pub average: u16,
    /// When it was read, by the controller's clock.
    pub time: u32,
    /// The period in milliseconds.
    pub period: u32,
    /// Whether it is being measured at all.
    pub active: bool,
}

impl Power {
    /// From the answer's data.
    pub fn decode(bytes: &[u8]) -> Result<Power, Malformed> {
        let short = Malformed("a power reading that ends early");
        let b: &[u8; 18] = bytes.first_chunk().ok_or(short)?;
        if b[0] != DCMI {
            return Err(Malformed("a power reading of another group than DCMI"));
        }
        let watts = |at: usize| u16::from_le_bytes([b[at], b[at + 1]]);
        let long = |at: usize| u32::from_le_bytes([b[at], b[at + 1], b[at + 2], b[at + 3]]);
        Ok(Power {
            current: watts(1),
            minimum: watts(3),
            maximum: watts(5),
            average: watts(7),
            time: long(9),
            period: long(13),
            active: b[17] & 0x40 != 0,
        })
    }

    /// The answer's data.
    pub fn encode(&self) -> Vec<u8> {
        let watts = [self.current, self.minimum, self.maximum, self.average];
        let mut out = vec![DCMI];
        out.extend(watts.iter().flat_map(|watts| watts.to_le_bytes()));
        out.extend(self.time.to_le_bytes());
        out.extend(self.period.to_le_bytes());
        out.push(if self.active { 0x40 } else { 0 });
        out
    }
}

/// What the machine takes.
pub async fn power(bmc: &impl Controller) -> Result<Power, Error> {
    match busy::call(bmc, &power_request()).await {
        Ok(data) => Ok(Power::decode(&data)?),
        Err(error) => Err(why(bmc, error).await),
    }
}

/// A BMC without DCMI, one whose DCMI does not measure power, or just a refusal.
async fn why(bmc: &impl Controller, error: Error) -> Error {
    let refused = |error: &Error| {
        matches!(
            error.completion(),
            Some(
                Completion::INVALID_COMMAND
                    | Completion::INVALID_FOR_LUN
                    | Completion::INVALID_FIELD
                    | Completion::LENGTH_INVALID
                    | Completion::NOT_NOW
            )
        )
    };
    if !refused(&error) {
        return error;
    }
    match busy::call(bmc, &capabilities_request()).await {
        // Major, minor, revision, then three bytes of the parameter: power management is bit 0 of the second.
        Ok(data) => match data.get(5) {
            Some(byte) if byte & 1 == 0 => {
                Error::Unsupported("power measurement (its DCMI says so)")
            }
            _ => error,
        },
        Err(other) if refused(&other) => Error::Unsupported("DCMI"),
        Err(other) => other,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::commands::busy::script::{Scripted, code, ok};

    const POWER: Power = Power {
        current: 212,
        minimum: 180,
        maximum: 340,
        average: 219,
        time: 0x6500_0000,
        period: 1000,
        active: true,
    };

    #[tokio::test]
    async fn a_reading_and_why_there_is_none() {
        let bmc = Scripted::new(|_| ok(POWER.encode()));
        assert_eq!(power(&bmc).await.unwrap(), POWER);
        let bmc = Scripted::new(|_| code(Completion::INVALID_COMMAND));
        assert_eq!(power(&bmc).await, Err(Error::Unsupported("DCMI")));
        let bmc = Scripted::new(|request| match request.command {
            1 => ok([DCMI, 1, 5, 2, 0, 0, 0]),
            _ => code(Completion::INVALID_COMMAND),
        });
        let unsupported = power(&bmc).await.unwrap_err().to_string();
        assert!(unsupported.contains("power measurement"), "{unsupported}");
        let bmc = Scripted::new(|_| code(Completion::PRIVILEGE));
        assert_eq!(power(&bmc).await.unwrap_err().completion(), Some(Completion::PRIVILEGE));
    }

    proptest! {
        #[test]
        fn any_bytes(bytes in proptest::collection::vec(any::<u8>(), 0..24)) {
            if let Ok(power) = Power::decode(&bytes) {
                prop_assert_eq!(Power::decode(&power.encode()), Ok(power));
            }
        }
    }
}
