//! Entries of the event log as bytes: 16 of them (IPMI §32.1 to §32.3, table 32-1).

use serde::Serialize;

use crate::commands::sdr::Key;
use crate::wire::Malformed;

/// A time by the controller's clock, in seconds since 1970.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(transparent)]
pub struct Stamp(pub u32);

/// What a stamp means (§37.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum When {
    /// Never set.
    Unknown,
    /// So many seconds after the controller started: its clock was not set yet.
    AfterStart(u32),
    /// Seconds since 1970. Whether of UTC or of local time is not told.
    At(u32),
}

impl Stamp {
    /// What it means.
    pub fn when(self) -> When {
        match self.0 {
            u32::MAX => When::Unknown,
            seconds @ 0..=0x2000_0000 => When::AfterStart(seconds),
            seconds => When::At(seconds),
        }
    }
}

/// An entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Its id, until the log is cleared.
    pub id: u16,
    /// What it says.
    pub content: Content,
}

/// What an entry says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Content {
    /// Type 0x02.
    Event(Event),
    /// Types 0xC0 to 0xDF: with a time, the manufacturer and 6 bytes; 0xE0 to 0xFF: 13 bytes. And types that
    /// should not be (HP DL380 G5), 13 bytes too.
    Oem {
        /// The record type.
        kind: u8,
        /// When, where it is told.
        time: Option<Stamp>,
        /// Whose, as an enterprise number.
        manufacturer: Option<u32>,
        /// The rest.
        data: Vec<u8>,
    },
}

/// Something that a sensor saw.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Event {
    /// When.
    pub time: Stamp,
    /// Who says so: address or software id, then channel and logical unit.
    pub generator: [u8; 2],
    /// 0x04, or 0x03 for events as of IPMI 1.0.
    pub revision: u8,
    /// Of table 42-3.
    pub sensor_type: u8,
    /// The sensor's number there.
    pub number: u8,
    /// Whether it ended, rather than began.
    pub deasserted: bool,
    /// Of table 42-1.
    pub event_type: u8,
    /// Offset and what the other two bytes are; the two.
    pub data: [u8; 3],
}

/// What an event's second or third byte is (table 29-6).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Datum {
    /// Nothing.
    Unspecified,
    /// The reading (second) or threshold (third) that triggered; a discrete one's state before and severity
    /// (second).
    Trigger(u8),
    /// What the manufacturer means by it.
    Oem(u8),
    /// What the sensor's type means by it.
    Specific(u8),
}

impl Event {
    /// Which offset of the sensor's words.
    pub fn offset(&self) -> u8 {
        self.data[0] & 15
    }

    /// The second byte.
    pub fn second(&self) -> Datum {
        datum(self.data[0] >> 6, self.data[1])
    }

    /// The third byte.
    pub fn third(&self) -> Datum {
        datum(self.data[0] >> 4 & 3, self.data[2])
    }

    /// The sensor it is from.
    pub fn key(&self) -> Key {
        let [owner, more] = self.generator;
        Key { owner, channel: more >> 4, lun: more & 3, number: self.number }
    }
}

fn datum(kind: u8, byte: u8) -> Datum {
    match kind {
        1 => Datum::Trigger(byte),
        2 => Datum::Oem(byte),
        3 => Datum::Specific(byte),
        _ => Datum::Unspecified,
    }
}

/// An entry's length.
pub const LENGTH: usize = 16;

impl Entry {
    /// From its bytes.
    pub fn decode(bytes: &[u8]) -> Result<Entry, Malformed> {
        let short = Malformed("an entry of the event log of less than 16 bytes");
        let b: &[u8; LENGTH] = bytes.first_chunk().ok_or(short)?;
        let time = Stamp(u32::from_le_bytes([b[3], b[4], b[5], b[6]]));
        let content = match b[2] {
            0x02 => Content::Event(Event {
                time,
                generator: [b[7], b[8]],
                revision: b[9],
                sensor_type: b[10],
                number: b[11],
                deasserted: b[12] & 0x80 != 0,
                event_type: b[12] & 0x7f,
                data: [b[13], b[14], b[15]],
            }),
            kind @ 0xc0..=0xdf => Content::Oem {
                kind,
                time: Some(time),
                manufacturer: Some(u32::from_le_bytes([b[7], b[8], b[9], 0])),
                data: b[10..].to_vec(),
            },
            kind => Content::Oem { kind, time: None, manufacturer: None, data: b[3..].to_vec() },
        };
        Ok(Entry { id: u16::from_le_bytes([b[0], b[1]]), content })
    }

    /// When it was written, where that is told.
    pub fn time(&self) -> Option<Stamp> {
        match &self.content {
            Content::Event(event) => Some(event.time),
            Content::Oem { time, .. } => *time,
        }
    }
}

impl Event {
    /// As Add SEL Entry takes it; the log gives id and time itself.
    pub fn encode(&self) -> [u8; LENGTH] {
        let [t0, t1, t2, t3] = self.time.0.to_le_bytes();
        let [g0, g1] = self.generator;
        let direction = if self.deasserted { 0x80 } else { 0 } | self.event_type & 0x7f;
        let [d0, d1, d2] = self.data;
        let (kind, number) = (self.sensor_type, self.number);
        [0, 0, 2, t0, t1, t2, t3, g0, g1, self.revision, kind, number, direction, d0, d1, d2]
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn an_event_there_and_back() {
        let event = Event {
            time: Stamp(0x6000_0000),
            generator: [0x20, 0],
            revision: 4,
            sensor_type: 1,
            number: 9,
            deasserted: true,
            event_type: 1,
            data: [0x59, 51, 50],
        };
        let entry = Entry::decode(&event.encode()).unwrap();
        assert_eq!(entry, Entry { id: 0, content: Content::Event(event) });
        assert_eq!(
            (event.offset(), event.second(), event.third()),
            (9, Datum::Trigger(51), Datum::Trigger(50))
        );
    }

    #[test]
    fn times_that_are_none() {
        assert_eq!(Stamp(u32::MAX).when(), When::Unknown);
        assert_eq!(Stamp(75).when(), When::AfterStart(75));
        assert_eq!(Stamp(0x6000_0000).when(), When::At(0x6000_0000));
    }

    #[test]
    fn records_of_the_manufacturer() {
        let bytes = [7, 0, 0xdf, 1, 0, 0, 0x60, 0xa2, 2, 0, 1, 2, 3, 4, 5, 6];
        let Content::Oem { time, manufacturer, data, .. } = Entry::decode(&bytes).unwrap().content
        else {
            panic!()
        };
        assert_eq!((time, manufacturer), (Some(Stamp(0x6000_0001)), Some(674)));
        assert_eq!(data, [1, 2, 3, 4, 5, 6]);
        let bytes = [7, 0, 0xe0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13];
        let entry = Entry::decode(&bytes).unwrap();
        assert_eq!(entry.time(), None);
        assert!(matches!(entry.content, Content::Oem { data, .. } if data.len() == 13));
    }

    proptest! {
        #[test]
        fn any_bytes(bytes in proptest::collection::vec(any::<u8>(), 0..20)) {
            let entry = Entry::decode(&bytes);
            prop_assert_eq!(entry.is_ok(), bytes.len() >= LENGTH);
            if let Ok(Entry { id, content: Content::Event(event) }) = entry {
                let mut again = event.encode();
                again[..2].copy_from_slice(&id.to_le_bytes());
                prop_assert_eq!(&again[..], &bytes[..LENGTH]);
            }
        }
    }
}
