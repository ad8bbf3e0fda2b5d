//! Inventory: a board with chassis, board and product areas, and a power supply.
//!
//! IPMI 2.0 §34 (commands), FRU Storage Definition 1.0 (areas).

use koboshi_ipmi::message::checksum;
use koboshi_ipmi::{Completion, Response};

use crate::bmc::Bmc;
use crate::config::Config;
use crate::dispatch::{Asked, ok, refuse};

/// Inventory.
#[derive(Debug, Clone)]
pub struct Fru {
    /// What each device holds, by its id.
    pub devices: Vec<Vec<u8>>,
    /// Whether they count in words of two bytes.
    pub words: bool,
}

/// Bytes of a device.
const SIZE: usize = 1024;

impl Fru {
    /// Serial numbers are made from the seed.
    pub fn new(config: &Config) -> Fru {
        let number = config.seed;
        let serial = |kind: &str| format!("{kind}{number:06}");
        // 2026-01-01 00:00, in minutes since 1996.
        let made = 15_779_520u32.to_le_bytes();
        let chassis = area(&[1, 0, 0x17], &["KB-CH-1U", &serial("C"), "rack 1"]);
        let head = [1, 0, 0, made[0], made[1], made[2]];
        let board = area(&head, &["Koboshi", "Simulated Board", &serial("B"), "KB-MB-01", ""]);
        let name = "bmcsim";
        let fields = ["Koboshi", name, "KB-1", "1.0", &serial("P"), "", "", "loopback"];
        let product = area(&[1, 0, 0], &fields);
        let supply_board =
            area(&head, &["Koboshi", "Power Supply", &serial("S"), "KB-PSU-500", ""]);
        Fru {
            devices: vec![
                image(Some(chassis), Some(board), Some(product), &[]),
                image(None, Some(supply_board), None, &[(0x00, &supply(500))]),
            ],
            words: false,
        }
    }
}

/// Fields of ASCII; an empty one is one of length 0.
fn area(head: &[u8], fields: &[&str]) -> Vec<u8> {
    let mut bytes = head.to_vec();
    for field in fields {
        let text: Vec<u8> = field.bytes().filter(u8::is_ascii).take(63).collect();
        // One byte of this type would be the mark of the end.
        bytes.push(if text.is_empty() { 0 } else { 0xc0 | text.len() as u8 });
        bytes.extend(text);
    }
    bytes.push(0xc1);
    bytes.resize((bytes.len() + 1).next_multiple_of(8) - 1, 0);
    bytes[1] = ((bytes.len() + 1) / 8) as u8;
    bytes.push(checksum(&bytes));
    bytes
}

/// A power supply's record: its watts, the rest as of a common one (§18.1).
fn supply(watts: u16) -> [u8; 24] {
    let mut data = [0; 24];
    data[..2].copy_from_slice(&watts.to_le_bytes());
    // Peak VA unspecified; 90–132 V and 180–264 V in, in tens of millivolts, 47–63 Hz; hot swap.
    data[2..4].copy_from_slice(&[0xff, 0xff]);
    for (at, volts) in [(6, 9000u16), (8, 13200), (10, 18000), (12, 26400)] {
        data[at..at + 2].copy_from_slice(&volts.to_le_bytes());
    }
    data[14..18].copy_from_slice(&[47, 63, 20, 0x08]);
    data
}

fn image(
    chassis: Option<Vec<u8>>,
    board: Option<Vec<u8>>,
    product: Option<Vec<u8>>,
    records: &[(u8, &[u8])],
) -> Vec<u8> {
    let mut header = vec![1, 0, 0, 0, 0, 0, 0];
    let mut body = Vec::new();
    for (slot, area) in [(2, chassis), (3, board), (4, product)] {
        if let Some(area) = area {
            header[slot] = ((8 + body.len()) / 8) as u8;
            body.extend(area);
        }
    }
    if !records.is_empty() {
        header[5] = ((8 + body.len()) / 8) as u8;
    }
    for (at, (kind, data)) in records.iter().enumerate() {
        let last = if at + 1 == records.len() { 0x80 } else { 0 };
        let mut record = vec![*kind, 2 | last, data.len() as u8, checksum(data)];
        record.push(checksum(&record));
        body.extend(record);
        body.extend_from_slice(data);
    }
    header.push(checksum(&header));
    header.extend(body);
    header.resize(SIZE, 0);
    header
}

/// Answers for it.
pub fn answer(bmc: &mut Bmc, asked: &Asked<'_>) -> Option<Response> {
    if !matches!(asked.command, 0x10..=0x12) {
        return None;
    }
    let Some((id, rest)) = asked.data.split_first() else {
        return refuse(Completion::LENGTH_INVALID);
    };
    let words = bmc.fru.words;
    let unit = if words { 2 } else { 1 };
    // What a buffer cannot hold of a record, it cannot hold of this.
    let most = bmc.faults.sdr_most.map_or(250, usize::from);
    let Some(device) = bmc.fru.devices.get_mut(usize::from(*id)) else {
        return refuse(Completion::NOT_PRESENT);
    };
    match (asked.command, rest) {
        (0x10, _) => {
            let [low, high] = (device.len() as u16).to_le_bytes();
            ok([low, high, u8::from(words)])
        }
        (0x11, [low, high, count, ..]) => {
            let at = usize::from(u16::from_le_bytes([*low, *high])) * unit;
            let count = usize::from(*count) * unit;
            if count > most {
                return refuse(Completion::CANNOT_RETURN);
            }
            let Some(part) = device.get(at..(at + count).min(device.len())) else {
                return refuse(Completion::OUT_OF_RANGE);
            };
            ok([&[(part.len() / unit) as u8][..], part].concat())
        }
        (0x12, [low, high, data @ ..]) => {
            let at = usize::from(u16::from_le_bytes([*low, *high])) * unit;
            let Some(place) = device.get_mut(at..at + data.len()) else {
                return refuse(Completion::OUT_OF_RANGE);
            };
            place.copy_from_slice(data);
            ok([(data.len() / unit) as u8])
        }
        _ => refuse(Completion::LENGTH_INVALID),
    }
}
