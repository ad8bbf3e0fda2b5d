//! Sensor data records as values (IPMI §43): sensors (full, compact and event-only, tables 43-1 to 43-3) and
//! locators of FRU devices and controllers (tables 43-8 and 43-9). Lengths that a record claims are never
//! trusted: firmware ends records early, and names run over their end.

use serde::Serialize;

use super::entity::Entity;
use super::text;
use crate::commands::sensor::convert::Conversion;
use crate::commands::sensor::units::Units;
use crate::wire::Malformed;

/// One record, taken apart.
#[derive(Debug, Clone, PartialEq)]
pub enum Record {
    /// Types 1 to 3. A compact or event-only record may stand for several sensors.
    Sensors(Vec<Sensor>),
    /// Type 0x11: where FRU data is.
    Fru(FruLocator),
    /// Type 0x12: a management controller.
    Controller(ControllerLocator),
    /// Anything else.
    Other {
        /// Its type.
        kind: u8,
    },
}

/// Whom to ask for a sensor.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Key {
    /// A controller's address on its IPMB (even), or a software id (odd).
    pub owner: u8,
    /// The channel to it; 0 is the primary IPMB.
    pub channel: u8,
    /// Its logical unit.
    pub lun: u8,
    /// The sensor's number there.
    pub number: u8,
}

/// What is known of a sensor without asking for its reading.
#[derive(Debug, Clone, PartialEq)]
pub struct Sensor {
    /// The record that it is from.
    pub record: u16,
    /// Whom to ask for it.
    pub key: Key,
    /// What it is a part of.
    pub entity: Entity,
    /// Its name.
    pub name: String,
    /// Of table 42-3: temperature, fan.
    pub sensor_type: u8,
    /// Of table 42-1: 0x01 threshold, 0x02–0x0C generic, 0x6F by sensor type, 0x70–0x7F OEM.
    pub event_type: u8,
    /// What its numbers count.
    pub units: Units,
    /// How its bytes become numbers: full records alone say it.
    pub conversion: Option<Conversion>,
    /// Thresholds as the record has them.
    pub thresholds: RawThresholds,
    /// Which kind of record it is from.
    pub shape: Shape,
    /// To be left out where its entity is absent (capabilities, bit 7).
    pub absent_with_entity: bool,
}

/// Which record a sensor is from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Shape {
    /// With everything that an analog reading needs.
    Full,
    /// Without conversion and thresholds.
    Compact,
    /// It only sends events and has no reading.
    EventOnly,
}

/// The six thresholds as bytes, in the order of Get Sensor Thresholds (§35.9): lower non-critical, critical,
/// non-recoverable, upper non-critical, critical, non-recoverable.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct RawThresholds {
    /// Which of them mean anything, bit 0 the lower non-critical one.
    pub mask: u8,
    /// The bytes.
    pub values: [u8; 6],
    /// Whether they can be asked for (capabilities, bits 3:2).
    pub askable: bool,
}

/// Where FRU data is.
#[derive(Debug, Clone, PartialEq)]
pub struct FruLocator {
    /// The controller that has it.
    pub owner: u8,
    /// The channel to it.
    pub channel: u8,
    /// Its FRU device id, where it is a logical device.
    pub id: u8,
    /// Whether the controller reads it for us; else it is an EEPROM on a bus.
    pub logical: bool,
    /// Its logical unit.
    pub lun: u8,
    /// Of table 43-12: 0x10 with modifier 2 is FRU data of IPMI.
    pub device: u8,
    /// Qualifies it: 1 is a memory module's SPD.
    pub modifier: u8,
    /// What it is a part of.
    pub entity: Entity,
    /// Its name.
    pub name: String,
}

/// A management controller.
#[derive(Debug, Clone, PartialEq)]
pub struct ControllerLocator {
    /// Its address.
    pub address: u8,
    /// The channel to it.
    pub channel: u8,
    /// What it can do: bit 3 has FRU data, bit 0 has sensors.
    pub capabilities: u8,
    /// What it is a part of.
    pub entity: Entity,
    /// Its name.
    pub name: String,
}

/// Bytes of a record's header: id (2), version, type, length of the rest.
pub const HEADER: usize = 5;

impl Record {
    /// From a record's bytes, header and all.
    pub fn decode(bytes: &[u8]) -> Result<Record, Malformed> {
        let Some(([low, high, _version, kind, length], _)) = bytes.split_first_chunk::<HEADER>()
        else {
            return Err(Malformed("a sensor data record of less than 5 bytes"));
        };
        let record = u16::from_le_bytes([*low, *high]);
        let bytes = bytes.get(..HEADER + usize::from(*length)).unwrap_or(bytes);
        match kind {
            0x01 => full(record, bytes).map(|sensor| Record::Sensors(vec![sensor])),
            0x02 => compact(record, bytes).map(Record::Sensors),
            0x03 => event_only(record, bytes).map(Record::Sensors),
            0x11 => fru(bytes).map(Record::Fru),
            0x12 => controller(bytes).map(Record::Controller),
            kind => Ok(Record::Other { kind: *kind }),
        }
    }
}

/// The name whose type/length byte is here.
fn name(bytes: &[u8], at: usize) -> String {
    text::of_record(bytes.get(at..).unwrap_or_default())
}

fn trimmed(bytes: &[u8], at: usize) -> String {
    name(bytes, at).trim().to_owned()
}

/// What full and compact records begin with (18 bytes after the header).
fn sensor(record: u16, bytes: &[u8], shape: Shape) -> Result<Sensor, Malformed> {
    let short = Malformed("a sensor's record that ends early");
    let b: &[u8; 23] = bytes.first_chunk().ok_or(short)?;
    Ok(Sensor {
        record,
        key: Key { owner: b[5], channel: b[6] >> 4, lun: b[6] & 3, number: b[7] },
        entity: Entity { id: b[8], instance: b[9] },
        name: String::new(),
        sensor_type: b[12],
        event_type: b[13] & 0x7f,
        units: Units { flags: b[20], base: b[21], modifier: b[22] },
        conversion: None,
        thresholds: RawThresholds::default(),
        shape,
        absent_with_entity: b[11] & 0x80 != 0,
    })
}

fn full(record: u16, bytes: &[u8]) -> Result<Sensor, Malformed> {
    let mut sensor = sensor(record, bytes, Shape::Full)?;
    // Up to and with the thresholds; what follows may be missing.
    let Some(b) = bytes.first_chunk::<42>() else {
        return Err(Malformed("a full sensor record that ends early"));
    };
    let factors = [b[24], b[25], b[26], b[27], b[28], b[29]];
    sensor.conversion = Some(Conversion::decode(sensor.units, b[23], factors));
    let access = b[11] >> 2 & 3;
    if sensor.event_type == 1 && access != 0 {
        sensor.thresholds = RawThresholds {
            mask: b[18] & 0x3f,
            values: [b[41], b[40], b[39], b[38], b[37], b[36]],
            askable: access != 3,
        };
    }
    sensor.name = trimmed(bytes, 47);
    Ok(sensor)
}

fn compact(record: u16, bytes: &[u8]) -> Result<Vec<Sensor>, Malformed> {
    let sensor = sensor(record, bytes, Shape::Compact)?;
    let sharing = bytes.get(23..25).ok_or(Malformed("a compact sensor record that ends early"))?;
    Ok(shared(Sensor { name: name(bytes, 31), ..sensor }, sharing))
}

fn event_only(record: u16, bytes: &[u8]) -> Result<Vec<Sensor>, Malformed> {
    let short = Malformed("an event-only sensor record that ends early");
    let b: &[u8; 14] = bytes.first_chunk().ok_or(short)?;
    let sensor = Sensor {
        record,
        key: Key { owner: b[5], channel: b[6] >> 4, lun: b[6] & 3, number: b[7] },
        entity: Entity { id: b[8], instance: b[9] },
        name: name(bytes, 16),
        sensor_type: b[10],
        event_type: b[11] & 0x7f,
        units: Units::default(),
        conversion: None,
        thresholds: RawThresholds::default(),
        shape: Shape::EventOnly,
        absent_with_entity: false,
    };
    Ok(shared(sensor, &b[12..14]))
}

/// A record may stand for up to 15 sensors of consecutive numbers, each named after it with a number or a
/// letter behind (table 43-2, bytes 24 and 25).
fn shared(sensor: Sensor, sharing: &[u8]) -> Vec<Sensor> {
    let &[first, second] = sharing else { return vec![sensor] };
    let count = first & 15;
    if count < 2 {
        return vec![Sensor { name: sensor.name.trim().to_owned(), ..sensor }];
    }
    let (letters, offset) = (first >> 4 & 3 == 1, second & 0x7f);
    let step = second >> 7;
    let instance = |index: u8| {
        let kind = sensor.entity.instance & 0x80;
        kind | (sensor.entity.instance & 0x7f).wrapping_add(step * index) & 0x7f
    };
    (0..count)
        .map(|index| Sensor {
            key: Key { number: sensor.key.number.wrapping_add(index), ..sensor.key },
            entity: Entity { id: sensor.entity.id, instance: instance(index) },
            name: format!("{}{}", sensor.name, modifier(letters, offset + index)),
            ..sensor.clone()
        })
        .collect()
}

/// 0 is A, 25 Z, 26 AA.
fn modifier(letters: bool, number: u8) -> String {
    let letter = |n: u8| char::from(b'A' + n % 26);
    match number {
        n if !letters => n.to_string(),
        n @ 0..26 => letter(n).to_string(),
        n => [letter(n / 26 - 1), letter(n)].iter().collect(),
    }
}

fn fru(bytes: &[u8]) -> Result<FruLocator, Malformed> {
    let short = Malformed("a FRU's locator record that ends early");
    let b: &[u8; 14] = bytes.first_chunk().ok_or(short)?;
    Ok(FruLocator {
        owner: b[5] & 0xfe,
        channel: b[8] >> 4,
        id: b[6],
        logical: b[7] & 0x80 != 0,
        lun: b[7] >> 3 & 3,
        device: b[10],
        modifier: b[11],
        entity: Entity { id: b[12], instance: b[13] },
        name: trimmed(bytes, 15),
    })
}

fn controller(bytes: &[u8]) -> Result<ControllerLocator, Malformed> {
    let short = Malformed("a controller's locator record that ends early");
    let b: &[u8; 14] = bytes.first_chunk().ok_or(short)?;
    Ok(ControllerLocator {
        address: b[5],
        channel: b[6] & 15,
        capabilities: b[8],
        entity: Entity { id: b[12], instance: b[13] },
        name: trimmed(bytes, 15),
    })
}

#[cfg(test)]
pub(crate) mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::commands::sensor::units::Format;

    /// An inlet temperature: thresholds readable, −128 to 127 °C.
    pub(crate) fn temperature(id: u16, number: u8, name: &str) -> Vec<u8> {
        let mut bytes = vec![0; 47];
        bytes[..2].copy_from_slice(&id.to_le_bytes());
        bytes[2..14].copy_from_slice(&[0x51, 1, 0, 0x20, 0, number, 7, 1, 0x7f, 0x68, 1, 1]);
        bytes[18] = 0x1b;
        bytes[20..23].copy_from_slice(&[0x80, 1, 0]);
        bytes[24] = 1;
        bytes[36..42].copy_from_slice(&[0, 50, 45, 0, 0xf6, 3]);
        bytes.push(0xc0 | name.len() as u8);
        bytes.extend(name.as_bytes());
        bytes[4] = (bytes.len() - HEADER) as u8;
        bytes
    }

    /// Four slots of a compact record: `Slot 1` to `Slot 4`.
    pub(crate) fn slots(id: u16, number: u8) -> Vec<u8> {
        let mut bytes = vec![0; 31];
        bytes[..2].copy_from_slice(&id.to_le_bytes());
        bytes[2..14].copy_from_slice(&[0x51, 2, 0, 0x20, 0, number, 8, 3, 0x67, 0x40, 0x0c, 0x6f]);
        bytes[20..25].copy_from_slice(&[0xc0, 0, 0, 4, 0x81]);
        bytes.push(0xc5);
        bytes.extend(b"Slot ");
        bytes[4] = (bytes.len() - HEADER) as u8;
        bytes
    }

    fn sensors(bytes: &[u8]) -> Vec<Sensor> {
        match Record::decode(bytes).unwrap() {
            Record::Sensors(sensors) => sensors,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_full_record() {
        let sensor = &sensors(&temperature(7, 3, "Inlet"))[0];
        assert_eq!((sensor.record, sensor.key.number, sensor.name.as_str()), (7, 3, "Inlet"));
        assert_eq!(sensor.entity.to_string(), "system board 1");
        assert_eq!(sensor.units.format(), Format::Twos);
        assert_eq!(sensor.thresholds.mask, 0x1b);
        assert_eq!(sensor.thresholds.values, [3, 0xf6, 0, 45, 50, 0]);
        assert_eq!(sensor.conversion.unwrap().value(0xf6), Some(-10.0));
    }

    #[test]
    fn one_compact_record_stands_for_several_sensors() {
        let shared = sensors(&slots(1, 0x40));
        let seen: Vec<_> =
            shared.iter().map(|s| (s.name.as_str(), s.key.number, s.entity.instance)).collect();
        assert_eq!(
            seen,
            [("Slot 1", 0x40, 3), ("Slot 2", 0x41, 4), ("Slot 3", 0x42, 5), ("Slot 4", 0x43, 6)]
        );
        assert_eq!(modifier(true, 0), "A");
        assert_eq!(modifier(true, 25), "Z");
        assert_eq!(modifier(true, 26), "AA");
        assert_eq!(modifier(true, 142), "EM");
    }

    /// A modifier type, a direction and a number that are reserved, as firmware writes them.
    #[test]
    fn reserved_bits_are_no_reason_to_lose_a_sensor() {
        let mut bytes = slots(1, 0x40);
        bytes[23] |= 0xf0;
        assert_eq!(sensors(&bytes).len(), 4);
        let mut bytes = temperature(7, 3, "Inlet");
        bytes[28] |= 3;
        bytes[7] = 0xff;
        assert_eq!(sensors(&bytes)[0].name, "Inlet");
    }

    #[test]
    fn locators() {
        let mut bytes = vec![9, 0, 0x51, 0x11, 14, 0x20, 2, 0x80, 0, 0, 0x10, 2, 0x0a, 1, 0, 0xc3];
        bytes.extend(b"PSU");
        let Record::Fru(fru) = Record::decode(&bytes).unwrap() else { panic!() };
        assert_eq!((fru.id, fru.logical, fru.name.as_str()), (2, true, "PSU"));
        assert_eq!(fru.entity.to_string(), "power supply 1");
        let bytes =
            [9, 0, 0x51, 0x12, 14, 0x20, 0, 0, 0xbf, 0, 0, 0, 6, 1, 0, 0xc3, b'B', b'M', b'C'];
        let Record::Controller(bmc) = Record::decode(&bytes).unwrap() else { panic!() };
        assert_eq!((bmc.address, bmc.capabilities, bmc.name.as_str()), (0x20, 0xbf, "BMC"));
        assert_eq!(Record::decode(&[1, 0, 0x51, 0xc0, 0]).unwrap(), Record::Other { kind: 0xc0 });
    }

    /// As from an HP DL585 G7, whose records say they are longer than they are; and names cut short.
    #[test]
    fn lengths_that_are_not_true() {
        let mut bytes = temperature(7, 3, "Inlet");
        bytes[4] = 0xff;
        assert_eq!(sensors(&bytes)[0].name, "Inlet");
        let whole = bytes.len();
        assert_eq!(sensors(&bytes[..whole - 3])[0].name, "In");
        assert!(Record::decode(&bytes[..41]).is_err());
        assert!(Record::decode(&[]).is_err());
    }

    proptest! {
        #[test]
        fn any_bytes(kind in prop_oneof![Just(1u8), Just(2), Just(3), Just(0x11), Just(0x12), any::<u8>()],
                     mut bytes in proptest::collection::vec(any::<u8>(), 0..90)) {
            if let Some(byte) = bytes.get_mut(3) {
                *byte = kind;
            }
            if let Ok(Record::Sensors(sensors)) = Record::decode(&bytes) {
                prop_assert!((1..=15).contains(&sensors.len()));
            }
        }
    }
}
