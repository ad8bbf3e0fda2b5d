//! Who is logged in at a BMC.
//!
//! IPMI 2.0 §22.20 (Get Session Info).

use std::net::Ipv4Addr;

use serde::Serialize;

use super::channel::Limit;
use crate::controller::Controller;
use crate::error::Error;
use crate::message::{NetFn, Request};
use crate::wire::{Malformed, take};

/// Get Session Info.
pub const SESSION: u8 = 0x3d;

/// Somebody who is logged in (table 22-25).
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Session {
    /// The BMC's handle of the session.
    pub handle: u8,
    /// Id of the account.
    pub user: u8,
    /// What it may do now.
    pub privilege: Limit,
    /// By which channel.
    pub channel: u8,
    /// From where, where it is a LAN and the BMC tells.
    pub from: Option<Ipv4Addr>,
    /// From which port.
    pub port: Option<u16>,
}

/// Sessions that there are and that there may be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Sessions {
    /// How many there may be at a time.
    pub slots: u8,
    /// How many there are.
    pub active: u8,
    /// They, as far as the BMC tells.
    pub list: Vec<Session>,
}

impl Session {
    /// From an answer's data: how many sessions there may be, how many there are, and this one.
    pub fn decode(mut data: &[u8]) -> Result<(u8, u8, Option<Session>), Malformed> {
        let [handle, slots, active] = take(&mut data, "session info of less than 3 bytes")?;
        let (slots, active) = (slots & 0x3f, active & 0x3f);
        let Ok([user, privilege, channel]) = take(&mut data, "") else {
            return Ok((slots, active, None));
        };
        let from = take::<4>(&mut data, "").ok().map(Ipv4Addr::from);
        let port =
            take::<8>(&mut data, "").ok().map(|[.., low, high]| u16::from_le_bytes([low, high]));
        let session = Session {
            handle,
            user: user & 0x3f,
            privilege: Limit::from_number(privilege),
            channel: channel & 0x0f,
            from: from.filter(|address| !address.is_unspecified()),
            port,
        };
        Ok((slots, active, (handle != 0).then_some(session)))
    }
}

/// Who is logged in. By the book the index counts active sessions; some firmware counts slots and has
/// empty ones between.
pub async fn list(bmc: &impl Controller) -> Result<Sessions, Error> {
    let mut found = Sessions { slots: 0, active: 0, list: Vec::new() };
    for index in 1..=63 {
        let data = match bmc.call(Request::new(NetFn::APP, SESSION, [index])).await {
            Err(Error::Refused { .. }) if index > 1 => break,
            outcome => outcome?,
        };
        let (slots, active, session) = Session::decode(&data)?;
        (found.slots, found.active) = (slots, active);
        found.list.extend(session);
        if found.list.len() >= usize::from(active) || index >= slots {
            break;
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::commands::script::{Script, ok};

    proptest! {
        #[test]
        fn any_bytes(data in prop::collection::vec(any::<u8>(), 0..24)) {
            prop_assert_eq!(Session::decode(&data).is_ok(), data.len() >= 3);
        }
    }

    #[tokio::test]
    async fn sessions_with_an_empty_slot_between() {
        let index = |index| Request::new(NetFn::APP, SESSION, [index]);
        let me = [7, 5, 2, 2, 4, 0x11, 10, 0, 0, 9, 1, 2, 3, 4, 5, 6, 0x6f, 0x02];
        let bmc = Script::new([
            (index(1), ok(me)),
            (index(2), ok([0, 5, 2])),
            (index(3), ok([9, 5, 2, 3, 3, 0x01])),
        ]);
        let found = list(&bmc).await.unwrap();
        assert_eq!((found.slots, found.active, found.list.len()), (5, 2, 2));
        assert_eq!(found.list[0].from, Some(Ipv4Addr::new(10, 0, 0, 9)));
        assert_eq!((found.list[0].port, found.list[1].from), (Some(623), None));
        bmc.finish();
    }
}
