//! Multirecords of FRU data (FRU Storage Definition §16 to §18): what there is, and the few words of a power
//! supply that operators ask for.

use std::borrow::Cow;

use serde::Serialize;

use super::read::Device;
use crate::controller::Controller;
use crate::error::Error;
use crate::message::checksum;

/// One of them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Multi {
    /// What it is.
    pub kind: Cow<'static, str>,
    /// What it says, where that is known.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub summary: String,
}

/// More than any FRU has.
const MOST: usize = 64;

/// Reads them all: a header of 5 bytes each, then its data.
pub async fn read<C: Controller>(
    device: &mut Device<'_, C>,
    mut at: usize,
    notes: &mut Vec<String>,
) -> Result<Vec<Multi>, Error> {
    let mut found = Vec::new();
    for _ in 0..MOST {
        let read = match device.read(at, 5).await {
            Ok(header) => match header[..] {
                [kind, flags, length, sum, _] => {
                    if checksum(&header) != 0 {
                        notes.push("the multirecords end with a wrong checksum".into());
                        return Ok(found);
                    }
                    let data = device.read(at + 5, usize::from(length)).await;
                    data.map(|data| Some((kind, flags, sum, usize::from(length), data)))
                }
                _ => Ok(None),
            },
            Err(error) => Err(error),
        };
        let (kind, flags, sum, length, data) = match read {
            Ok(Some(read)) => read,
            Ok(None) => {
                notes.push("the multirecords have no end".into());
                return Ok(found);
            }
            Err(error @ (Error::Refused { .. } | Error::Malformed(_))) => {
                notes.push(format!("the multirecords cannot be read: {error}"));
                return Ok(found);
            }
            Err(error) => return Err(error),
        };
        let record = record(kind, &data);
        if checksum(&data) != sum || data.len() < length {
            notes.push(format!("the checksum of the record \"{}\" is wrong", record.kind));
        }
        found.push(record);
        if flags & 0x80 != 0 {
            return Ok(found);
        }
        at += 5 + length;
    }
    notes.push("the multirecords have no end".into());
    Ok(found)
}

/// A record in words.
pub fn record(kind: u8, data: &[u8]) -> Multi {
    let words = |at: usize| data.get(at..at + 2).map(|b| u16::from_le_bytes([b[0], b[1]]));
    let text = |from: usize| {
        let bytes = data.get(from..).unwrap_or_default();
        crate::commands::sdr::text::Coding::Latin.read(bytes).trim().to_owned()
    };
    let (name, summary): (Cow<'static, str>, _) = match kind {
        0x00 => {
            let watts = words(0).map(|watts| format!("{} W", watts & 0x0fff));
            ("power supply".into(), watts)
        }
        0x01 | 0x02 | 0x09 | 0x0a => {
            let name = if kind & 1 != 0 { "DC output" } else { "DC load" };
            let volts = words(1).map(|tens| f64::from(tens as i16) / 100.0);
            (name.into(), volts.map(|volts| format!("{volts:.2} V")))
        }
        0x03 => {
            let name = match data.first() {
                Some(1) => "management URL",
                Some(2) => "management name",
                Some(3) => "management ping address",
                Some(4) => "component URL",
                Some(5) => "component name",
                Some(6) => "component ping address",
                Some(7) => "system GUID",
                _ => "management access",
            };
            let unique = data.first() == Some(&7);
            (name.into(), (!unique).then(|| text(1)))
        }
        0x04 => ("base compatibility".into(), None),
        0x05 => ("extended compatibility".into(), None),
        0xc0.. => {
            let id = data.first_chunk::<3>().map(|[a, b, c]| u32::from_le_bytes([*a, *b, *c, 0]));
            let whose = id.map(|id| format!("manufacturer {id}, {} bytes", data.len()));
            ("OEM".into(), whose)
        }
        kind => (format!("type {kind:#04x}").into(), None),
    };
    Multi { kind: name, summary: summary.unwrap_or_default() }
}
