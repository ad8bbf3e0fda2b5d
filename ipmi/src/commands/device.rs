//! Who a BMC is, whether it is well, and starting it anew.
//!
//! IPMI 2.0 §20 (device id, reset, self test, ACPI state, GUID), §22.14 (system GUID).

use serde::Serialize;

use super::guid::Guid;
use super::system_info::{self, SystemString};
use crate::controller::Controller;
use crate::error::Error;
use crate::message::{NetFn, Request};
use crate::wire::{Malformed, take};

/// Get Device ID.
pub const ID: u8 = 0x01;
/// Cold Reset.
pub const COLD_RESET: u8 = 0x02;
/// Warm Reset.
pub const WARM_RESET: u8 = 0x03;
/// Get Self Test Results.
pub const SELF_TEST: u8 = 0x04;
/// Get ACPI Power State.
pub const ACPI: u8 = 0x07;
/// Get Device GUID.
pub const DEVICE_GUID: u8 = 0x08;
/// Get System GUID.
pub const SYSTEM_GUID: u8 = 0x37;

/// Makers that matter, by their IANA numbers. 47488 is Nedam's, and boards of Supermicro claim it.
const MAKERS: [(u32, &str); 34] = [
    (2, "IBM"),
    (11, "HP"),
    (42, "Sun"),
    (107, "Bull"),
    (116, "Hitachi"),
    (119, "NEC"),
    (211, "Fujitsu"),
    (343, "Intel"),
    (674, "Dell"),
    (2011, "Huawei"),
    (2623, "ASUS"),
    (3704, "AMD"),
    (4413, "Broadcom"),
    (5703, "NVIDIA"),
    (5771, "Cisco"),
    (6653, "Tyan"),
    (7244, "Quanta"),
    (10368, "Fujitsu"),
    (10876, "Supermicro"),
    (11129, "Google"),
    (15370, "Gigabyte"),
    (19046, "Lenovo"),
    (20301, "IBM eServer X"),
    (20974, "AMI"),
    (25506, "H3C"),
    (27500, "Dawning"),
    (33049, "Mellanox"),
    (37945, "Inspur"),
    (40092, "Wiwynn"),
    (40981, "Facebook"),
    (42817, "IBM OpenPOWER"),
    (47196, "HPE"),
    (47488, "Supermicro"),
    (49622, "ASRock Rack"),
];

/// A maker's name; `None` for one that is not in our small table.
pub fn maker(number: u32) -> Option<&'static str> {
    MAKERS.iter().find(|known| known.0 == number).map(|known| known.1)
}

/// What a controller can do (table 20-2, byte 6), by bit.
const ABILITIES: [&str; 8] = [
    "sensors",
    "sdr-repository",
    "sel",
    "fru",
    "ipmb-events-in",
    "ipmb-events-out",
    "bridge",
    "chassis",
];

/// Get Device ID (table 20-2).
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct DeviceId {
    /// The maker's number of the kind of controller.
    pub device: u8,
    /// Its hardware revision.
    pub revision: u8,
    /// It has sensor records of its own.
    pub device_sdrs: bool,
    /// It is starting, or its firmware is being changed.
    pub updating: bool,
    /// Firmware, major and minor: "2.88".
    pub firmware: String,
    /// Four bytes of the maker's that go with it; where they are missing, zeros.
    pub auxiliary: [u8; 4],
    /// "1.5" or "2.0".
    pub ipmi: String,
    /// IANA number of the maker.
    pub manufacturer: u32,
    /// The maker's name, if we know it.
    pub maker: Option<&'static str>,
    /// The maker's number of the product.
    pub product: u16,
    /// What it can do.
    pub abilities: Vec<&'static str>,
}

impl DeviceId {
    /// From an answer's data.
    pub fn decode(mut data: &[u8]) -> Result<DeviceId, Malformed> {
        let short = "a device id of less than 11 bytes";
        let [device, revision, major, minor, ipmi, abilities] = take(&mut data, short)?;
        let [a, b, c] = take(&mut data, short)?;
        let product = u16::from_le_bytes(take(&mut data, short)?);
        // 20 bits are the number; some set the rest.
        let manufacturer = u32::from_le_bytes([a, b, c & 0x0f, 0]);
        Ok(DeviceId {
            device,
            revision: revision & 0x0f,
            device_sdrs: revision & 0x80 != 0,
            updating: major & 0x80 != 0,
            // BCD by the book; makers that count in binary show where a digit would be a letter.
            firmware: format!("{}.{minor:02x}", major & 0x7f),
            auxiliary: data.first_chunk().copied().unwrap_or_default(),
            ipmi: format!("{}.{}", ipmi & 0x0f, ipmi >> 4),
            manufacturer,
            maker: maker(manufacturer),
            product,
            abilities: ABILITIES
                .iter()
                .enumerate()
                .filter(|(number, _)| abilities >> number & 1 != 0)
                .map(|(_, words)| *words)
                .collect(),
        })
    }
}

/// Who it is.
pub async fn id(bmc: &impl Controller) -> Result<DeviceId, Error> {
    let data = bmc.call(Request::new(NetFn::APP, ID, [])).await?;
    Ok(DeviceId::decode(&data)?)
}

/// What a self test found, in words; empty is well.
pub fn self_test_words(result: u8, detail: u8) -> Vec<String> {
    match result {
        0x55 => Vec::new(),
        0x56 => vec!["it has no self test".into()],
        0x57 => [
            "firmware of operation is corrupt",
            "firmware of its boot block is corrupt",
            "FRU area cannot be read",
            "SDR repository is empty",
            "IPMB does not work",
            "FRU device cannot be reached",
            "SDR repository cannot be reached",
            "event log cannot be reached",
        ]
        .into_iter()
        .enumerate()
        .filter(|(bit, _)| detail >> bit & 1 != 0)
        .map(|(_, words)| words.into())
        .collect(),
        0x58 => vec![format!("fatal hardware error ({detail:#04x})")],
        _ => vec![format!("something of the maker's ({result:#04x} {detail:#04x})")],
    }
}

/// Whether it is well: what its self test found, in words.
pub async fn self_test(bmc: &impl Controller) -> Result<Vec<String>, Error> {
    let data = bmc.call(Request::new(NetFn::APP, SELF_TEST, [])).await?;
    let [result, detail] = take(&mut data.as_slice(), "a self test of less than 2 bytes")?;
    Ok(self_test_words(result, detail))
}

/// The machine's GUID where the BMC has it, else its own.
pub async fn guid(bmc: &impl Controller) -> Result<Guid, Error> {
    let data = match bmc.call(Request::new(NetFn::APP, SYSTEM_GUID, [])).await {
        Err(Error::Refused { .. }) => bmc.call(Request::new(NetFn::APP, DEVICE_GUID, [])).await?,
        outcome => outcome?,
    };
    Ok(Guid(take(&mut data.as_slice(), "a GUID of less than 16 bytes")?))
}

/// Whether a reset was answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum ResetTold {
    /// It said that it will.
    Answered,
    /// It went silent, as many do that restart at once.
    Silent,
}

/// Starts the BMC anew: the session ends with it, and it is away for a minute or two. The machine runs on.
pub async fn reset(bmc: &impl Controller, cold: bool) -> Result<ResetTold, Error> {
    let command = if cold { COLD_RESET } else { WARM_RESET };
    match bmc.call(Request::new(NetFn::APP, command, [])).await {
        Ok(_) => Ok(ResetTold::Answered),
        Err(Error::Lost { .. } | Error::Uncertain { .. }) => Ok(ResetTold::Silent),
        Err(error) => Err(error),
    }
}

/// ACPI power state of the machine, in words, where the BMC is told (§20.7).
pub async fn acpi(bmc: &impl Controller) -> Result<&'static str, Error> {
    let data = bmc.call(Request::new(NetFn::APP, ACPI, [])).await?;
    let [system] = take(&mut data.as_slice(), "an ACPI state of no bytes")?;
    Ok(match system & 0x7f {
        0x00 => "S0 (working)",
        0x01 => "S1 (asleep, clocks stopped)",
        0x02 => "S2 (asleep, processor off)",
        0x03 => "S3 (suspended to memory)",
        0x04 => "S4 (suspended to disk)",
        0x05 => "S5 (off by software)",
        0x06 => "S4 or S5",
        0x07 => "G3 (no power)",
        0x08 => "asleep",
        0x09 => "G1 (asleep)",
        0x0a => "off by the button",
        0x20 => "working, legacy",
        0x21 => "off, legacy",
        _ => "unknown",
    })
}

/// All that `koboshi bmc WHO info` shows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Info {
    /// Who it is.
    #[serde(flatten)]
    pub id: DeviceId,
    /// What its self test complains of; `None` if it does not tell.
    pub complaints: Option<Vec<String>>,
    /// The machine's GUID, if it tells.
    pub guid: Option<Guid>,
    /// The machine's ACPI power state, if it tells.
    pub acpi: Option<&'static str>,
    /// What the host told it.
    pub host: Option<String>,
    /// Likewise.
    pub os: Option<String>,
    /// Revision of the BIOS, likewise.
    pub bios: Option<String>,
}

/// Who it is; whatever else it refuses to say is left out.
pub async fn info(bmc: &impl Controller) -> Result<Info, Error> {
    Ok(Info {
        id: id(bmc).await?,
        complaints: told(self_test(bmc).await)?,
        guid: told(guid(bmc).await)?,
        acpi: told(acpi(bmc).await)?,
        host: told(system_info::get(bmc, SystemString::Name).await)?.flatten(),
        os: told(system_info::get(bmc, SystemString::Os).await)?.flatten(),
        bios: told(system_info::get(bmc, SystemString::Firmware).await)?.flatten(),
    })
}

/// A refusal, or nonsense, is nothing told; silence is an error.
fn told<T>(outcome: Result<T, Error>) -> Result<Option<T>, Error> {
    match outcome {
        Ok(value) => Ok(Some(value)),
        Err(Error::Refused { .. } | Error::Malformed(_)) => Ok(None),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;
    use crate::commands::parameters::Table;
    use crate::commands::script::{Script, ok, refuse};

    fn ask(command: u8) -> Request {
        Request::new(NetFn::APP, command, [])
    }

    proptest! {
        #[test]
        fn any_bytes(data in prop::collection::vec(any::<u8>(), 0..24)) {
            prop_assert_eq!(DeviceId::decode(&data).is_ok(), data.len() >= 11);
        }
    }

    #[test]
    fn a_device_id_of_supermicro() {
        let bytes = [0x20, 0x01, 0x03, 0x88, 0x02, 0xbf, 0x7c, 0x2a, 0x00, 0x16, 0x09, 1, 2, 3, 4];
        let id = DeviceId::decode(&bytes).unwrap();
        assert_eq!((id.firmware.as_str(), id.ipmi.as_str()), ("3.88", "2.0"));
        assert_eq!((id.maker, id.product), (Some("Supermicro"), 0x0916));
        assert_eq!(id.auxiliary, [1, 2, 3, 4]);
        assert!(id.abilities.contains(&"chassis") && !id.abilities.contains(&"bridge"));
        assert_eq!(DeviceId::decode(&bytes[..11]).unwrap().auxiliary, [0; 4]);
        assert_eq!(DeviceId::decode(&[0, 0, 0, 0, 0x51, 0, 0, 0, 0, 0, 0]).unwrap().ipmi, "1.5");
    }

    #[tokio::test]
    async fn a_reset_that_is_never_answered() {
        let lost = Err(Error::Lost { waited: Duration::from_secs(5) });
        let bmc = Script::new([
            (ask(COLD_RESET), lost),
            (ask(WARM_RESET), ok([])),
            (ask(WARM_RESET), refuse(0xd4)),
        ]);
        assert_eq!(reset(&bmc, true).await, Ok(ResetTold::Silent));
        assert_eq!(reset(&bmc, false).await, Ok(ResetTold::Answered));
        assert!(reset(&bmc, false).await.is_err());
        bmc.finish();
    }

    #[tokio::test]
    async fn a_name_in_parts_and_what_is_refused_is_left_out() {
        let part = |which, part| Table::system().get_request(which, part, 0);
        let bmc = Script::new([
            (ask(ID), ok([0x20, 1, 1, 0x05, 2, 0x8f, 0, 0, 0, 5, 0x0b])),
            (ask(SELF_TEST), ok([0x57, 0x08])),
            (ask(SYSTEM_GUID), refuse(0xc1)),
            (ask(DEVICE_GUID), refuse(0xc1)),
            (ask(ACPI), refuse(0xc1)),
            (
                part(2, 0),
                ok([
                    0x11, 0, 0, 18, b'n', b'o', b'd', b'e', b'-', b'0', b'1', b'.', b'e', b'x',
                    b'a', b'm', b'p', b'l',
                ]),
            ),
            (part(2, 1), ok([0x11, 1, b'e', b'.', b'n', b'e', b't', 0, 0])),
            (part(4, 0), ok([0x11, 0, 0, 0])),
            (part(1, 0), refuse(0xd5)),
        ]);
        let info = info(&bmc).await.unwrap();
        assert_eq!(info.complaints.unwrap(), ["SDR repository is empty"]);
        assert_eq!(info.host.as_deref(), Some("node-01.example.ne"));
        assert_eq!((info.guid, info.acpi, info.os, info.bios), (None, None, None, None));
        bmc.finish();
    }
}
