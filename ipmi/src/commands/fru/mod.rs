//! Inventory: what chassis, board and product say they are (IPMI §34; Platform Management FRU Information
//! Storage Definition 1.0). [`all`] reads the BMC's own FRU and those that its sensor records point to.

pub mod area;
pub mod multi;
pub mod read;

use serde::Serialize;

pub use area::{Board, Chassis, Product};
pub use multi::Multi;
pub use read::Device;

use super::sdr::{Entity, FruLocator, Repository};
use crate::controller::Controller;
use crate::error::Error;
use crate::message::BMC;

/// One FRU's inventory.
#[derive(Debug, Clone, PartialEq, Default, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Inventory {
    /// Its device id with the BMC.
    pub id: u8,
    /// Its name, as its locator says.
    pub name: String,
    /// What it is a part of.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub entity: Option<Entity>,
    /// The chassis area.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub chassis: Option<Chassis>,
    /// The board area.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub board: Option<Board>,
    /// The product area.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub product: Option<Product>,
    /// What multirecords it has.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub records: Vec<Multi>,
    /// What was odd, for the operator: wrong checksums, areas that cannot be read.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
}

/// A device type of table 43-12 whose data are not FRU data of IPMI: a memory module's SPD.
const SPD: u8 = 1;

/// Reads every FRU that this BMC has: its own, and those of its sensor records. What is behind other
/// controllers, or no FRU data of IPMI, is named in a note.
pub async fn all(
    bmc: &impl Controller,
    repository: Option<&Repository>,
) -> Result<Vec<Inventory>, Error> {
    let mut found = Vec::new();
    let locators = repository.map(|repository| repository.frus.as_slice()).unwrap_or_default();
    let own = locators.iter().find(|locator| is_ours(locator) && locator.id == 0);
    let name = own.map_or_else(|| "BMC".to_owned(), |locator| locator.name.clone());
    match one(bmc, 0).await {
        Ok(inventory) => {
            let entity = own.map(|locator| locator.entity);
            found.push(Inventory { name, entity, ..inventory });
        }
        // Some have none of their own, and yet those of their power supplies.
        Err(error @ Error::Refused { .. }) if locators.is_empty() => return Err(error),
        Err(error @ Error::Refused { .. }) => {
            found.push(Inventory { name, notes: vec![error.to_string()], ..Inventory::default() });
        }
        Err(error) => return Err(error),
    }
    for locator in locators.iter().filter(|locator| !(is_ours(locator) && locator.id == 0)) {
        let named = Inventory {
            id: locator.id,
            name: locator.name.clone(),
            entity: Some(locator.entity),
            ..Inventory::default()
        };
        let note = |note: String| Inventory { notes: vec![note], ..named.clone() };
        let read = match locator {
            _ if !is_ours(locator) => {
                let owner = locator.owner;
                note(format!("behind another controller (at {owner:#04x}): not read"))
            }
            FruLocator { device: 0x10, modifier: SPD, .. } => {
                note("holds the data of a memory module (SPD), not of a FRU".into())
            }
            _ => match one(bmc, locator.id).await {
                Ok(inventory) => Inventory { name: named.name, entity: named.entity, ..inventory },
                Err(error @ (Error::Refused { .. } | Error::Malformed(_))) => {
                    note(error.to_string())
                }
                Err(error) => return Err(error),
            },
        };
        found.push(read);
    }
    Ok(found)
}

fn is_ours(locator: &FruLocator) -> bool {
    locator.logical && locator.owner == BMC && locator.channel == 0 && locator.lun == 0
}

/// Reads one FRU: its header, then each of its areas.
pub async fn one(bmc: &impl Controller, id: u8) -> Result<Inventory, Error> {
    let mut device = Device::open(bmc, id).await?;
    let mut inventory = Inventory { id, ..Inventory::default() };
    let header = device.read(0, area::HEADER).await?;
    let offsets = match area::header(&header) {
        Ok((offsets, note)) => {
            inventory.notes.extend(note.map(str::to_owned));
            offsets
        }
        Err(malformed) => {
            inventory.notes.push(malformed.to_string());
            return Ok(inventory);
        }
    };
    let notes = &mut inventory.notes;
    if let Some(bytes) = device.area(offsets.chassis, "chassis", notes).await? {
        inventory.chassis = Some(area::chassis(&bytes));
    }
    if let Some(bytes) = device.area(offsets.board, "board", notes).await? {
        inventory.board = Some(area::board(&bytes));
    }
    if let Some(bytes) = device.area(offsets.product, "product", notes).await? {
        inventory.product = Some(area::product(&bytes));
    }
    if let Some(at) = offsets.multi {
        inventory.records = multi::read(&mut device, at, notes).await?;
    }
    Ok(inventory)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::commands::busy::script::{Scripted, code, ok};
    use crate::commands::sdr::Records;
    use crate::message::{Completion, Response, checksum};

    /// An area: its fields, the end, a pad, its length and its checksum.
    fn area(head: &[u8], fields: &[&[u8]]) -> Vec<u8> {
        let mut bytes = head.to_vec();
        for field in fields {
            bytes.extend_from_slice(field);
        }
        bytes.push(0xc1);
        bytes.resize((bytes.len() + 1).next_multiple_of(8) - 1, 0);
        bytes[1] = ((bytes.len() + 1) / 8) as u8;
        bytes.push(checksum(&bytes));
        bytes
    }

    fn image() -> Vec<u8> {
        let chassis = area(&[1, 0, 0x17], &[b"\xc4CH-1", b"\xc3S-1"]);
        // Russian, two bytes a character; 6-bit and BCD fields in between.
        let made = [0x40, 0x0d, 0x03];
        let board = area(
            &[&[1, 0, 45][..], &made].concat(),
            &[
                b"\xc4\x10\x04\x11\x04",
                b"\x83\x29\xdc\xa6",
                b"\x42\x12\x34",
                b"\x02\xca\xfe",
                b"\xc0",
            ],
        );
        let product = area(
            &[1, 0, 25],
            &[
                b"\xc4Acme",
                b"\xc7Roadrun",
                b"\xc0",
                b"\xc21b",
                b"\xc3P-1",
                b"\xc0",
                b"\xc0",
                b"\xc5extra",
            ],
        );
        let supply = [0xf4, 1];
        let mut multi = vec![0, 0x82, 2, checksum(&supply)];
        multi.push(checksum(&multi));
        multi.extend(supply);
        let at =
            |areas: &[&Vec<u8>]| (1 + areas.iter().map(|area| area.len() / 8).sum::<usize>()) as u8;
        let mut bytes = vec![
            1,
            0,
            1,
            at(&[&chassis]),
            at(&[&chassis, &board]),
            at(&[&chassis, &board, &product]),
            0,
        ];
        bytes.push(checksum(&bytes));
        for area in [chassis, board, product, multi] {
            bytes.extend(area);
        }
        bytes
    }

    fn eeprom(image: Vec<u8>, most: usize, short: bool, words: bool) -> Scripted {
        let unit = if words { 2 } else { 1 };
        Scripted::new(move |request| match request.command {
            0x10 => {
                let size = (image.len() as u16).to_le_bytes();
                ok([size[0], size[1], u8::from(words)])
            }
            _ => {
                let [_, low, high, count] = request.data[..] else { panic!() };
                let at = usize::from(u16::from_le_bytes([low, high])) * unit;
                let count = usize::from(count) * unit;
                if count > most && !short {
                    return code(Completion::CANNOT_RETURN);
                }
                let end = (at + count.min(most)).min(image.len());
                let part = image.get(at..end).unwrap_or_default();
                ok([&[part.len().div_ceil(unit) as u8][..], part].concat())
            }
        })
    }

    fn check(inventory: &Inventory) {
        let chassis = inventory.chassis.as_ref().unwrap();
        assert_eq!(
            (chassis.kind.as_str(), chassis.part.as_str(), chassis.serial.as_str()),
            ("rack mount chassis", "CH-1", "S-1")
        );
        let board = inventory.board.as_ref().unwrap();
        assert_eq!(board.manufacturer, "АБ");
        assert_eq!(
            (board.name.as_str(), board.serial.as_str(), board.part.as_str()),
            ("IPMI", "1234", "cafe")
        );
        assert_eq!(board.made, Some(820_454_400 + 200_000 * 60));
        let product = inventory.product.as_ref().unwrap();
        assert_eq!((product.manufacturer.as_str(), product.name.as_str()), ("Acme", "Roadrun"));
        assert_eq!((product.version.as_str(), product.serial.as_str()), ("1b", "P-1"));
        assert_eq!(product.custom, ["extra"]);
        assert_eq!(
            inventory.records,
            [Multi { kind: "power supply".into(), summary: "500 W".into() }]
        );
        assert_eq!(inventory.notes, [""; 0]);
    }

    #[tokio::test]
    async fn three_areas_and_a_multirecord() {
        check(&one(&eeprom(image(), 255, false, false), 0).await.unwrap());
        check(&one(&eeprom(image(), 20, false, false), 0).await.unwrap());
        check(&one(&eeprom(image(), 11, true, false), 0).await.unwrap());
        check(&one(&eeprom(image(), 20, false, true), 0).await.unwrap());
    }

    #[tokio::test]
    async fn wrong_sums_are_shown_and_said() {
        let mut bytes = image();
        bytes[7] ^= 1;
        bytes[8 + 5] ^= 1;
        let inventory = one(&eeprom(bytes, 255, false, false), 0).await.unwrap();
        assert_eq!(inventory.chassis.unwrap().serial, "S-1");
        assert_eq!(
            inventory.notes,
            ["the checksum of the header is wrong", "the checksum of the chassis area is wrong"]
        );
        let erased = one(&eeprom(vec![0xff; 256], 255, false, false), 0).await.unwrap();
        assert_eq!(erased.notes, ["it is empty"]);
    }

    /// The BMC's own, a power supply's, a memory module's SPD, and one behind another controller.
    #[tokio::test]
    async fn all_that_records_point_to() {
        let locator = |owner: u8, id: u8, modifier: u8, name: &str| {
            let mut bytes =
                vec![0, 0, 0x51, 0x11, 0, owner, id, 0x80, 0, 0, 0x10, modifier, 0x0a, 1, 0];
            bytes.push(0xc0 | name.len() as u8);
            bytes.extend(name.as_bytes());
            bytes[4] = (bytes.len() - 5) as u8;
            bytes
        };
        let records = vec![
            locator(0x20, 0, 2, "Board"),
            locator(0x20, 3, 2, "PSU"),
            locator(0x20, 4, 1, "DIMM"),
            locator(0x82, 1, 2, "Blade"),
        ];
        let repository = Repository::new(&Records { records, ..Records::default() });
        let found = all(&eeprom(image(), 255, false, false), Some(&repository)).await.unwrap();
        let seen: Vec<_> = found
            .iter()
            .map(|f| (f.name.as_str(), f.id, f.board.is_some(), f.notes.len()))
            .collect();
        assert_eq!(
            seen,
            [
                ("Board", 0, true, 0),
                ("PSU", 3, true, 0),
                ("DIMM", 4, false, 1),
                ("Blade", 1, false, 1)
            ]
        );
    }

    proptest! {
        #[test]
        fn any_image(mut image in proptest::collection::vec(any::<u8>(), 0..300), flip: bool, words: bool,
                     answers in proptest::collection::vec(any::<(u8, u8)>(), 8)) {
            if let Some(byte) = image.first_mut()
                && flip
            {
                *byte = 1;
            }
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_time().start_paused(true).build().unwrap();
            let bmc = eeprom(image, 40, flip, words);
            let _any = runtime.block_on(one(&bmc, 0));
            prop_assert!(bmc.count() < 5000);
            let mut at = 0;
            let bmc = Scripted::new(move |_| {
                at += 1;
                let (completion, byte) = answers[at % answers.len()];
                Response { completion: Completion(completion % 3), data: vec![byte; usize::from(byte % 40)] }
            });
            let _any = runtime.block_on(one(&bmc, 0));
        }
    }
}
