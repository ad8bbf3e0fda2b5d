//! An entry of the event log in words: which sensor, what happened, at which reading and threshold. Sensor
//! records give names and units; without them there are still types and numbers.

use std::borrow::Cow;

use serde::Serialize;

use super::detail;
use super::record::{Content, Datum, Entry, Event, Stamp};
use crate::commands::sdr::{Repository, Sensor};
use crate::commands::sensor::number_shown;
use crate::commands::sensor::words::{self, Severity};

/// An entry as a person reads it.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Described {
    /// Its id in the log.
    pub id: u16,
    /// When, by the controller's clock.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub time: Option<Stamp>,
    /// The sensor's name, or its number.
    pub sensor: String,
    /// What it senses.
    pub kind: Cow<'static, str>,
    /// What happened.
    pub event: String,
    /// Whether it began or ended; of an OEM record neither is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub asserted: Option<bool>,
    /// How much it matters. What ended does not.
    pub severity: Severity,
    /// Module, timer, reading and threshold: whatever the event adds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
    /// The reading that triggered it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reading: Option<f64>,
    /// The threshold that it crossed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub threshold: Option<f64>,
}

/// An entry in words.
pub fn describe(entry: &Entry, repository: Option<&Repository>) -> Described {
    match &entry.content {
        Content::Event(event) => of_event(entry, event, repository),
        Content::Oem { kind, time, manufacturer, data } => {
            let bytes: Vec<_> = data.iter().map(|byte| format!("{byte:02x}")).collect();
            Described {
                id: entry.id,
                time: *time,
                sensor: manufacturer.map_or_else(String::new, |id| format!("manufacturer {id}")),
                kind: "OEM".into(),
                event: format!("record type {kind:#04x}"),
                asserted: None,
                severity: Severity::Ok,
                detail: Some(bytes.join(" ")),
                reading: None,
                threshold: None,
            }
        }
    }
}

fn of_event(entry: &Entry, event: &Event, repository: Option<&Repository>) -> Described {
    let sensor =
        repository.and_then(|repository| repository.sensor(event.key(), event.sensor_type));
    let offset = words::offset(event.event_type, event.sensor_type, event.offset());
    let (reading, threshold) = match event.event_type {
        0x01 => (trigger(sensor, event.second()), trigger(sensor, event.third())),
        _ => (None, None),
    };
    Described {
        id: entry.id,
        time: Some(event.time),
        sensor: name(event, sensor),
        kind: words::sensor_type(event.sensor_type).into(),
        event: match offset {
            Some((words, _)) => words.to_owned(),
            None => format!("event type {:#04x}, offset {}", event.event_type, event.offset()),
        },
        asserted: Some(!event.deasserted),
        severity: offset.map_or(Severity::Ok, |(_, severity)| severity).min(
            match event.deasserted {
                true => Severity::Ok,
                false => Severity::NonRecoverable,
            },
        ),
        detail: match (sensor, reading) {
            (Some(sensor), Some(reading)) => Some(crossing(sensor, reading, threshold)),
            _ => detail::words(event),
        },
        reading,
        threshold,
    }
}

fn name(event: &Event, sensor: Option<&Sensor>) -> String {
    match (sensor, event.generator) {
        (Some(sensor), _) => sensor.name.clone(),
        // Software ids of table 5-4.
        (None, [id, _]) if id & 1 == 1 => {
            let who = match id >> 1 {
                0x00..=0x0f => "BIOS",
                0x10..=0x1f => "SMI handler",
                0x20..=0x2f => "management software",
                0x30..=0x3f => "OEM software",
                _ => "remote software",
            };
            format!("{who} #{:02x}", event.number)
        }
        _ => format!("#{:02x}", event.number),
    }
}

fn trigger(sensor: Option<&Sensor>, datum: Datum) -> Option<f64> {
    match (sensor?.conversion, datum) {
        // The factors of a non-linear one are those of its reading now.
        (Some(conversion), Datum::Trigger(byte)) if !conversion.is_nonlinear() => {
            conversion.value(byte)
        }
        _ => None,
    }
}

fn crossing(sensor: &Sensor, reading: f64, threshold: Option<f64>) -> String {
    let places = sensor.conversion.map_or(0, |conversion| conversion.places());
    let unit = sensor.units.to_string();
    let reading = number_shown(reading, places, &unit);
    match threshold {
        Some(threshold) => {
            format!("reading {reading}, threshold {}", number_shown(threshold, places, &unit))
        }
        None => format!("reading {reading}"),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::commands::sdr::Records;
    use crate::commands::sdr::record::tests::{slots, temperature};

    fn repository() -> Repository {
        let records = vec![temperature(1, 9, "Inlet"), slots(2, 0x40)];
        Repository::new(&Records { records, ..Records::default() })
    }

    fn event(sensor_type: u8, number: u8, event_type: u8, data: [u8; 3]) -> Event {
        Event {
            time: Stamp(0x6500_0000),
            generator: [0x20, 0],
            revision: 4,
            sensor_type,
            number,
            deasserted: false,
            event_type,
            data,
        }
    }

    fn told(event: Event) -> Described {
        describe(&Entry { id: 3, content: Content::Event(event) }, Some(&repository()))
    }

    #[test]
    fn a_threshold_that_was_crossed() {
        let told = told(event(1, 9, 1, [0x59, 51, 50]));
        assert_eq!(
            (told.sensor.as_str(), told.event.as_str()),
            ("Inlet", "upper critical, going high")
        );
        assert_eq!(told.detail.as_deref(), Some("reading 51 °C, threshold 50 °C"));
        assert_eq!((told.asserted, told.severity), (Some(true), Severity::Critical));
    }

    #[test]
    fn a_memory_module_and_the_end_of_its_trouble() {
        let memory = told(event(0x0c, 0x41, 0x6f, [0x31, 0xff, 7]));
        assert_eq!(
            (memory.sensor.as_str(), memory.event.as_str()),
            ("Slot 2", "uncorrectable ECC")
        );
        assert_eq!(memory.detail.as_deref(), Some("module 7"));
        let over = told(Event { deasserted: true, ..event(0x0c, 0x41, 0x6f, [1, 0xff, 0xff]) });
        assert_eq!((over.asserted, over.severity, over.detail), (Some(false), Severity::Ok, None));
    }

    #[test]
    fn without_a_record_and_by_software() {
        let entry =
            Entry { id: 1, content: Content::Event(event(0x12, 0xee, 0x6f, [0, 0xff, 0xff])) };
        let told = describe(&entry, None);
        assert_eq!((told.sensor.as_str(), told.kind.as_ref()), ("#ee", "system event"));
        let bios = Event { generator: [0x01, 0], ..event(0x0f, 6, 0x6f, [0xc0, 1, 0xff]) };
        let told = describe(&Entry { id: 1, content: Content::Event(bios) }, None);
        assert_eq!(told.sensor, "BIOS #06");
        assert_eq!(told.detail.as_deref(), Some("no system memory"));
        let odd = describe(
            &Entry { id: 1, content: Content::Event(event(0xc1, 2, 0x72, [3, 0, 0])) },
            None,
        );
        assert_eq!((odd.kind.as_ref(), odd.event.as_str()), ("OEM", "event type 0x72, offset 3"));
    }

    proptest! {
        #[test]
        fn any_entry(bytes: [u8; 16]) {
            let entry = Entry::decode(&bytes).unwrap();
            let told = describe(&entry, Some(&repository()));
            prop_assert!(!told.event.is_empty());
        }
    }
}
