//! The commands that activate Serial over LAN and tell who has it, as requests and answers.
//!
//! IPMI 2.0 §24.1 (Activate Payload), §24.2 (Deactivate Payload), §24.4 (Get Payload Activation Status),
//! §24.5 (Get Payload Instance Info).

use crate::message::{NetFn, Request};
use crate::wire::{Malformed, take};

/// Serial over LAN's payload type (table 13-16).
const SOL: u8 = 1;

/// Activate Payload.
pub const ACTIVATE: u8 = 0x48;
/// Deactivate Payload.
pub const DEACTIVATE: u8 = 0x49;
/// Get Payload Activation Status.
pub const STATUS: u8 = 0x4a;
/// Get Payload Instance Info.
pub const INSTANCE_INFO: u8 = 0x4b;

/// Characters of a packet where the size that a BMC tells makes no sense.
const SANE: usize = 64;

/// What becomes of alerts by the serial port while it is ours (table 24-2, bits 3:2).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Alerts {
    /// They fail.
    #[default]
    Fail,
    /// They wait: Intel's boards of the Windmill kind activate no other way.
    Defer,
    /// They take the port away from us.
    Succeed,
}

/// How to activate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Activate {
    /// Which instance, from 1.
    pub instance: u8,
    /// Characters are hidden on the way.
    pub encrypted: bool,
    /// They are proved.
    pub authenticated: bool,
    /// What becomes of alerts.
    pub alerts: Alerts,
    /// CTS and DCD stay down until we raise them. Intel boards want them up from the start (`intelplus` of
    /// ipmitool), which is the default.
    pub lines_down: bool,
}

impl Activate {
    /// As a request.
    pub fn request(&self) -> Request {
        let alerts = match self.alerts {
            Alerts::Fail => 0x00,
            Alerts::Defer => 0x04,
            Alerts::Succeed => 0x08,
        };
        let auxiliary = u8::from(self.encrypted) << 7
            | u8::from(self.authenticated) << 6
            | alerts
            | u8::from(self.lines_down) << 1;
        Request::new(NetFn::APP, ACTIVATE, [SOL, self.instance, auxiliary, 0, 0, 0])
    }
}

/// Ends it, whoever has it.
pub fn deactivate_request(instance: u8) -> Request {
    Request::new(NetFn::APP, DEACTIVATE, [SOL, instance, 0, 0, 0, 0])
}

/// Asks which instances are active.
pub fn status_request() -> Request {
    Request::new(NetFn::APP, STATUS, [SOL])
}

/// Asks who has an instance.
pub fn instance_request(instance: u8) -> Request {
    Request::new(NetFn::APP, INSTANCE_INFO, [SOL, instance])
}

/// What a BMC agrees to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Activated {
    /// Bytes of the largest payload to the BMC, as it says.
    pub inbound: u16,
    /// Bytes of the largest payload from it, as it says.
    pub outbound: u16,
    /// The port, as it says.
    pub port: u16,
    /// The VLAN, where it says one.
    pub vlan: Option<u16>,
}

impl Activated {
    /// From an answer's data. Early Intel boards leave the VLAN out.
    pub fn decode(mut data: &[u8]) -> Result<Activated, Malformed> {
        let short = "an activation of less than 10 bytes";
        let _auxiliary: [u8; 4] = take(&mut data, short)?;
        let inbound = u16::from_le_bytes(take(&mut data, short)?);
        let outbound = u16::from_le_bytes(take(&mut data, short)?);
        let port = u16::from_le_bytes(take(&mut data, short)?);
        let vlan = take(&mut data, short).ok().map(u16::from_le_bytes);
        Ok(Activated { inbound, outbound, port, vlan: vlan.filter(|vlan| *vlan < 4096) })
    }

    /// Characters that a packet to the BMC may carry; `None` where no byte order makes sense of the size.
    pub fn characters(&self) -> Option<usize> {
        // Four bytes before the characters, and a length that they can be counted in.
        let sane = |size: &u16| (5..=1024).contains(size);
        let size = [self.inbound, self.inbound.swap_bytes()].into_iter().find(sane)?;
        Some((usize::from(size) - 4).min(255))
    }

    /// The same, with what is safe where the BMC tells nonsense, or is known to.
    pub fn largest(&self, is_known_to_err: bool) -> usize {
        match self.characters() {
            Some(characters) if is_known_to_err => characters.min(SANE),
            Some(characters) => characters,
            None => SANE,
        }
    }

    /// Whether the port is this one, in either byte order. 0 says nothing.
    pub fn is_at(&self, port: u16) -> bool {
        [port, port.swap_bytes(), 0].contains(&self.port)
    }
}

/// Which instances are active, from an answer's data: how many there may be, and whether this one is.
/// Dell's M605, M610 and M915 say that there may be none, and have one.
pub fn decode_status(mut data: &[u8], instance: u8) -> Result<(u8, bool), Malformed> {
    let [capacity, low, high] = take(&mut data, "an activation status of less than 3 bytes")?;
    let active = u16::from_le_bytes([low, high]);
    let bit = u32::from(instance.saturating_sub(1));
    Ok(((capacity & 0x0f).max(1), active.checked_shr(bit).unwrap_or(0) & 1 == 1))
}

/// The session that has an instance, from an answer's data; `None`: nobody.
pub fn decode_owner(mut data: &[u8]) -> Result<Option<u32>, Malformed> {
    let session = u32::from_le_bytes(take(&mut data, "instance info of less than 4 bytes")?);
    Ok((session != 0).then_some(session))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn as_the_tables_have_it() {
        let wish =
            Activate { instance: 1, encrypted: true, authenticated: true, ..Activate::default() };
        assert_eq!(wish.request().data, [1, 1, 0xc0, 0, 0, 0]);
        let wish = Activate { alerts: Alerts::Defer, lines_down: true, instance: 2, ..wish };
        assert_eq!(wish.request().data, [1, 2, 0xc6, 0, 0, 0]);
        let answer = [0, 0, 0, 0, 0xcc, 0, 0xcc, 0, 0x6f, 0x02, 0xff, 0xff];
        let activated = Activated::decode(&answer).unwrap();
        assert_eq!((activated.largest(false), activated.vlan), (200, None));
        assert!(activated.is_at(623) && !activated.is_at(624));
        assert!(Activated { port: 0x6f02, ..activated }.is_at(623), "in the wrong order");
        assert_eq!(decode_status(&[0, 1, 0], 1), Ok((1, true)));
        assert_eq!(decode_status(&[1, 0, 0x80], 16), Ok((1, true)));
        assert_eq!(decode_owner(&[0, 0, 0, 0, 9]), Ok(None));
    }

    #[test]
    fn sizes_that_make_no_sense() {
        let of = |inbound| Activated { inbound, outbound: 0, port: 623, vlan: None };
        assert_eq!(of(0x0400).largest(false), 255);
        assert_eq!(of(0xcc00).largest(false), 200, "in the wrong order");
        assert_eq!((of(0).largest(false), of(0xffff).largest(false)), (SANE, SANE));
        assert_eq!((of(0x0104).largest(true), of(10).largest(true)), (SANE, 6));
    }

    proptest! {
        #[test]
        fn any_bytes(data in prop::collection::vec(any::<u8>(), 0..20), instance: u8) {
            if let Ok(activated) = Activated::decode(&data) {
                prop_assert!((1..=255).contains(&activated.largest(false)));
            }
            let _ = decode_status(&data, instance);
            let _ = decode_owner(&data);
        }
    }
}
