//! How a session may be opened, as far as a BMC says: versions, ways of IPMI 1.5, cipher suites.
//!
//! IPMI 2.0 §22.13 (table 22-15), §22.15 (table 22-18).

use serde::Serialize;

use super::channel::Limit;
use crate::controller::Controller;
use crate::error::Error;
use crate::message::{Completion, NetFn, Request};
use crate::wire::{Malformed, take};

/// Get Channel Authentication Capabilities.
pub const CAPABILITIES: u8 = 0x38;
/// Get Channel Cipher Suites.
pub const CIPHER_SUITES: u8 = 0x54;

/// Get Channel Authentication Capabilities (table 22-15): how sessions may be opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Capabilities {
    /// The channel.
    pub channel: u8,
    /// It speaks IPMI 2.0.
    pub v20: bool,
    /// It speaks IPMI 1.5.
    pub v15: bool,
    /// Ways of IPMI 1.5, as bits: none, MD2, MD5, (reserved), password, OEM.
    pub ways: u8,
    /// The BMC's own key is set.
    pub kg: bool,
    /// There are accounts with names.
    pub named: bool,
    /// There are accounts without a name.
    pub nameless: bool,
    /// Anybody may log in without name and password.
    pub anonymous: bool,
}

impl Capabilities {
    /// From an answer's data.
    pub fn decode(mut data: &[u8]) -> Result<Capabilities, Malformed> {
        let [channel, ways, status] =
            take(&mut data, "authentication capabilities of less than 3 bytes")?;
        let extended = ways & 0x80 != 0;
        let versions = if extended { data.first().copied().unwrap_or(0) } else { 0x01 };
        Ok(Capabilities {
            channel: channel & 0x0f,
            v20: versions & 0x02 != 0,
            v15: versions & 0x01 != 0,
            ways: ways & 0x3f,
            kg: extended && status & 0x20 != 0,
            named: status & 0x04 != 0,
            nameless: status & 0x02 != 0,
            anonymous: status & 0x01 != 0,
        })
    }
}

/// How sessions of this privilege may be opened. Old firmware refuses the bit that asks for IPMI 2.0, and
/// is asked again without it.
pub async fn capabilities(
    bmc: &impl Controller,
    channel: u8,
    privilege: Limit,
) -> Result<Capabilities, Error> {
    let ask = |first: u8| Request::new(NetFn::APP, CAPABILITIES, [first, privilege.number()]);
    let channel = channel & 0x0f;
    let data = match bmc.call(ask(0x80 | channel)).await {
        Err(error) if error.completion() == Some(Completion::INVALID_FIELD) => {
            bmc.call(ask(channel)).await?
        }
        outcome => outcome?,
    };
    Ok(Capabilities::decode(&data)?)
}

/// Ids of the cipher suites in a channel's records (table 22-18), the maker's own left out. Firmware of Sun
/// leaves tags out or sends ids without a record around them: what is no record is passed over.
pub fn suites(records: &[u8]) -> Vec<u8> {
    let mut found = Vec::new();
    let mut rest = records;
    while let [start, after @ ..] = rest {
        rest = after;
        match (start, after) {
            (0xc0, [id, after @ ..]) => {
                rest = after;
                if !found.contains(id) {
                    found.push(*id);
                }
            }
            (0xc1, [_, _, _, _, after @ ..]) => rest = after,
            _ => {}
        }
    }
    found
}

/// Most that the records take: 64 parts of 16 bytes (§22.15).
const PARTS: u8 = 0x40;

/// Cipher suites that a channel says it has, for sessions that carry IPMI messages. Not to be relied on:
/// some advertise what they refuse, some refuse to say.
pub async fn cipher_suites(bmc: &impl Controller, channel: u8) -> Result<Vec<u8>, Error> {
    let mut records = Vec::new();
    for part in 0..PARTS {
        let request = Request::new(NetFn::APP, CIPHER_SUITES, [channel & 0x0f, 0, 0x80 | part]);
        let data = match bmc.call(request).await {
            Err(Error::Refused { .. }) if part > 0 => break,
            outcome => outcome?,
        };
        let [_, part @ ..] = data.as_slice() else { break };
        records.extend_from_slice(part);
        if part.len() < 16 {
            break;
        }
    }
    Ok(suites(&records))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::commands::channel::PRESENT;
    use crate::commands::script::{Script, ok, refuse};

    proptest! {
        #[test]
        fn any_bytes(data in prop::collection::vec(any::<u8>(), 0..40)) {
            prop_assert_eq!(Capabilities::decode(&data).is_ok(), data.len() >= 3);
            prop_assert!(suites(&data).len() <= data.len() / 2);
        }
    }

    #[tokio::test]
    async fn capabilities_of_old_firmware() {
        let bmc = Script::new([
            (Request::new(NetFn::APP, CAPABILITIES, [0x8e, 4]), refuse(0xcc)),
            (Request::new(NetFn::APP, CAPABILITIES, [0x0e, 4]), ok([1, 0x14, 0x04, 0])),
        ]);
        let found = capabilities(&bmc, PRESENT, Limit::Admin).await.unwrap();
        assert!(found.v15 && !found.v20 && found.named && found.ways == 0x14);
        bmc.finish();
    }

    #[tokio::test]
    async fn cipher_suites_in_parts_and_broken_ones() {
        let part = |part| Request::new(NetFn::APP, CIPHER_SUITES, [0x0e, 0, 0x80 | part]);
        let bmc = Script::new([
            (
                part(0),
                ok([
                    1, 0xc0, 0, 0, 0x40, 0x80, 0xc0, 1, 1, 0x40, 0x80, 0xc0, 3, 1, 0x41, 0x81, 0xc0,
                ]),
            ),
            (part(1), ok([1, 17, 3, 0x44, 0x81, 0xc1, 0x80, 1, 2, 3, 4])),
        ]);
        assert_eq!(cipher_suites(&bmc, PRESENT).await.unwrap(), [0, 1, 3, 17]);
        bmc.finish();
        assert_eq!(suites(&[0xc0, 3, 0xc0, 3, 1, 0x41, 0xc1, 1]), [3]);
        // One that never comes to an end is left after 64 parts.
        let bmc = Script::new((0..PARTS).map(|n| (part(n), ok([0xc0; 17]))));
        assert_eq!(cipher_suites(&bmc, PRESENT).await.unwrap(), [0xc0]);
        bmc.finish();
    }
}
