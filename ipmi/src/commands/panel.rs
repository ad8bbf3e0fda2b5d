//! What else a chassis has: the identify light, buttons, what it does when mains power comes back, what started
//! it, and how long it has served.
//!
//! IPMI 2.0 §28.5–28.8, §28.11 (table 28-11), §28.14.

use super::chassis::Restore;
use crate::controller::Controller;
use crate::error::Error;
use crate::message::{NetFn, Request};
use crate::wire::take;

/// Chassis Identify.
pub const IDENTIFY: u8 = 0x04;
/// Set Power Restore Policy.
pub const SET_RESTORE: u8 = 0x06;
/// Get System Restart Cause.
pub const RESTART_CAUSE: u8 = 0x07;
/// Set Front Panel Enables.
pub const SET_FRONT_PANEL: u8 = 0x0a;
/// Get POH Counter.
pub const POWER_ON_HOURS: u8 = 0x0f;

/// Lights the identify light: for so many seconds, or until told otherwise. `Some(0)` ends it.
pub fn identify_request(seconds: Option<u8>) -> Request {
    let data = match seconds {
        Some(seconds) => vec![seconds],
        None => vec![0, 1],
    };
    Request::new(NetFn::CHASSIS, IDENTIFY, data)
}

/// See [`identify_request`]. "Until told otherwise" is optional in firmware.
pub async fn identify(bmc: &impl Controller, seconds: Option<u8>) -> Result<(), Error> {
    bmc.call(identify_request(seconds)).await.map(drop)
}

/// Sets what the machine does when mains power comes back.
pub async fn set_restore(bmc: &impl Controller, restore: Restore) -> Result<(), Error> {
    if restore == Restore::Unknown {
        return Err(Error::Invalid("the power policy is off, previous or on".into()));
    }
    let request = Request::new(NetFn::CHASSIS, SET_RESTORE, [restore.number()]);
    let supported = bmc.call(request).await?.first().copied();
    // Some answer well, and say in the same breath that they do not have it.
    match supported {
        Some(supported) if supported >> restore.number() & 1 == 0 => {
            Err(Error::Unsupported("this power policy"))
        }
        _ => Ok(()),
    }
}

/// Makes front panel buttons dead (`true`) or alive: power, reset, diag, standby.
pub async fn set_front_panel(bmc: &impl Controller, dead: [bool; 4]) -> Result<(), Error> {
    let data = [dead.iter().rev().fold(0, |byte, dead| byte << 1 | u8::from(*dead))];
    bmc.call(Request::new(NetFn::CHASSIS, SET_FRONT_PANEL, data)).await.map(drop)
}

/// What started the machine last (table 28-11), in words.
pub async fn restart_cause(bmc: &impl Controller) -> Result<&'static str, Error> {
    let data = bmc.call(Request::new(NetFn::CHASSIS, RESTART_CAUSE, [])).await?;
    let [cause] = take(&mut data.as_slice(), "a restart cause of no bytes")?;
    Ok(cause_words(cause))
}

/// A restart cause in words.
pub fn cause_words(cause: u8) -> &'static str {
    match cause & 0x0f {
        0x1 => "an IPMI command",
        0x2 => "the reset button",
        0x3 => "the power button",
        0x4 => "the watchdog",
        0x5 => "something of the maker's",
        0x6 => "mains power (policy: on)",
        0x7 => "mains power (policy: previous)",
        0x8 => "a reset by an event filter",
        0x9 => "a power cycle by an event filter",
        0xa => "a reset by its own software",
        0xb => "its clock",
        _ => "unknown",
    }
}

/// How long the machine has been on since it was made, in whole minutes.
pub async fn powered(bmc: &impl Controller) -> Result<u64, Error> {
    let data = bmc.call(Request::new(NetFn::CHASSIS, POWER_ON_HOURS, [])).await?;
    let [minutes, a, b, c, d] = take(&mut data.as_slice(), "a counter of less than 5 bytes")?;
    Ok(u64::from(minutes) * u64::from(u32::from_le_bytes([a, b, c, d])))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commands::script::{Script, ok};

    #[tokio::test]
    async fn a_policy_that_is_taken_and_not_had() {
        let set = |policy| Request::new(NetFn::CHASSIS, SET_RESTORE, [policy]);
        let bmc = Script::new([(set(2), ok([0x04])), (set(1), ok([0x05])), (set(0), ok([]))]);
        set_restore(&bmc, Restore::On).await.unwrap();
        assert!(set_restore(&bmc, Restore::Previous).await.is_err());
        set_restore(&bmc, Restore::Off).await.unwrap();
        assert!(set_restore(&bmc, Restore::Unknown).await.is_err());
        bmc.finish();
    }

    #[tokio::test]
    async fn buttons_by_their_bits() {
        let bmc = Script::new([(Request::new(NetFn::CHASSIS, SET_FRONT_PANEL, [0x05]), ok([]))]);
        set_front_panel(&bmc, [true, false, true, false]).await.unwrap();
        bmc.finish();
    }

    #[tokio::test]
    async fn hours_of_a_machine() {
        let bmc =
            Script::new([(Request::new(NetFn::CHASSIS, 0x0f, []), ok([60, 0x10, 0x27, 0, 0]))]);
        assert_eq!(powered(&bmc).await, Ok(600_000));
        bmc.finish();
    }
}
