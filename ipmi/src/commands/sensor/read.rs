//! Reading sensors (IPMI §35.5, §35.9, §35.14), several at a time; one that is absent or not scanned says so, and
//! costs nobody else.

use std::borrow::Cow;
use std::collections::HashMap;

use futures::{StreamExt, stream};

use super::convert::Conversion;
use super::units::{Format, Units};
use super::{Raw, Reading, Severity, State, Thresholds, raw, words};
use crate::commands::bridge::{Place, Satellite};
use crate::commands::busy;
use crate::commands::sdr::{Repository, Sensor, Shape};
use crate::controller::Controller;
use crate::error::Error;
use crate::message::{BMC, Completion};
use crate::quirks::{Quirk, Quirks};

/// How to read.
#[derive(Debug, Clone, Copy, Default)]
pub struct Options {
    /// Asks for the thresholds in force, instead of those that the records were made with: one more request
    /// for each sensor that has any.
    pub thresholds: bool,
    /// Takes readings that claim that scanning is off ([`Quirk::SensorScanning`]).
    pub ignore_scanning: bool,
    /// Asks other controllers, through the BMC, for the sensors that are theirs: slow, and not every BMC
    /// passes messages on.
    pub satellites: bool,
}

impl Options {
    /// What a machine of these quirks needs.
    pub fn of(quirks: Quirks) -> Options {
        let ignore_scanning = quirks.has(Quirk::SensorScanning);
        Options { ignore_scanning, ..Options::default() }
    }
}

/// Requests under way at once. A session lets fewer through where its BMC wants that.
const WINDOW: usize = 8;

/// Reads every sensor, in the order of the records: several of the BMC's own at a time, then those of other
/// controllers, one after the other. An error is the session's: what a controller says of one sensor is in that
/// sensor's row.
pub async fn read_all(
    bmc: &impl Controller,
    repository: &Repository,
    options: Options,
) -> Result<Vec<Reading>, Error> {
    let own = repository.sensors.iter().map(|sensor| read_own(bmc, sensor, options));
    let own: Vec<_> = own.collect();
    let own: Vec<_> = stream::iter(own).buffered(WINDOW).collect().await;
    let mut readings = own.into_iter().collect::<Result<Vec<_>, _>>()?;
    if options.satellites {
        read_satellites(bmc, repository, options, &mut readings).await?;
    }
    Ok(readings)
}

async fn read_own(
    bmc: &impl Controller,
    sensor: &Sensor,
    options: Options,
) -> Result<Reading, Error> {
    match sensor.shape {
        Shape::EventOnly => Ok(Reading { state: State::EventOnly, ..unread(sensor) }),
        _ if place(sensor).is_none() => read(bmc, sensor, options).await,
        _ => Ok(elsewhere(sensor, None)),
    }
}

/// Those that another controller has. One that does not answer is asked once.
async fn read_satellites(
    bmc: &impl Controller,
    repository: &Repository,
    options: Options,
    readings: &mut [Reading],
) -> Result<(), Error> {
    let mut satellites = HashMap::new();
    let mut silent: HashMap<Place, String> = HashMap::new();
    for (sensor, reading) in repository.sensors.iter().zip(readings) {
        // Software (odd) sends events, and cannot be asked.
        let Some(place) = place(sensor).filter(|place| place.address & 1 == 0) else { continue };
        if sensor.shape == Shape::EventOnly {
            continue;
        }
        if let Some(why) = silent.get(&place) {
            *reading = elsewhere(sensor, Some(why));
            continue;
        }
        let satellite = satellites.entry(place).or_insert_with(|| Satellite::new(bmc, place));
        match read(&*satellite, sensor, options).await {
            Ok(read) => *reading = read,
            Err(error @ (Error::Refused { .. } | Error::Unsupported(_) | Error::Malformed(_))) => {
                *reading = elsewhere(sensor, Some(&error.to_string()));
                silent.insert(place, error.to_string());
            }
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Where another controller is that has it. `None`: the BMC itself has.
fn place(sensor: &Sensor) -> Option<Place> {
    let (address, channel) = (sensor.key.owner, sensor.key.channel);
    (address != BMC || channel != 0).then_some(Place { channel, address })
}

fn elsewhere(sensor: &Sensor, why: Option<&str>) -> Reading {
    let (owner, channel) = (sensor.key.owner, sensor.key.channel);
    let why = why.map(|why| format!(": {why}")).unwrap_or_default();
    let note = format!("of the controller at {owner:#04x} on channel {channel}{why}");
    Reading { state: State::Elsewhere, note: Some(note), ..unread(sensor) }
}

fn unread(sensor: &Sensor) -> Reading {
    Reading {
        name: sensor.name.clone(),
        number: sensor.key.number,
        entity: sensor.entity,
        kind: words::sensor_type(sensor.sensor_type).into(),
        value: None,
        unit: if has_numbers(sensor) { sensor.units.to_string() } else { String::new() },
        state: State::Failed,
        words: Vec::new(),
        thresholds: Thresholds::default(),
        note: None,
        places: sensor.conversion.map_or(0, |conversion| conversion.places()),
    }
}

/// Asks whoever has it.
async fn read(
    controller: &impl Controller,
    sensor: &Sensor,
    options: Options,
) -> Result<Reading, Error> {
    let mut reading = unread(sensor);
    let response = busy::ask(controller, &raw::reading_request(sensor.key)).await?;
    let raw = match response.completion {
        Completion::OK => match Raw::decode(&response.data) {
            Ok(raw) => raw,
            Err(malformed) => {
                reading.note = Some(malformed.to_string());
                return Ok(reading);
            }
        },
        completion => {
            let absent = is_absence(completion);
            reading.state = if absent { State::NotPresent } else { State::Failed };
            reading.note = (!absent).then(|| completion.to_string());
            return Ok(reading);
        }
    };
    let conversion = match sensor.conversion.filter(|_| has_numbers(sensor)) {
        Some(conversion) if conversion.is_nonlinear() => {
            factors(controller, sensor, conversion, raw.value).await?
        }
        conversion => conversion,
    };
    let thresholds = thresholds(controller, sensor, options).await?;
    reading.thresholds = in_units(thresholds, conversion);
    if !raw.is_scanning() && !options.ignore_scanning {
        reading.state = State::ScanningDisabled;
        return Ok(reading);
    }
    if raw.is_unavailable() {
        reading.state = State::Unavailable;
        return Ok(reading);
    }
    reading.value = conversion.and_then(|conversion| conversion.value(raw.value));
    if sensor.event_type == 1 {
        reading.state = raw
            .comparison
            .map(severity)
            .or_else(|| reading.value.map(|value| beyond(value, &reading.thresholds)))
            .unwrap_or(Severity::Ok)
            .into();
    } else {
        let (words, severity) = discrete(sensor, raw.states());
        (reading.words, reading.state) = (words, severity.into());
    }
    Ok(reading)
}

/// Whether a reading's byte is a number. HP (DL380 G7, ML310 G5) has analog readings under discrete event
/// types; other firmware leaves the format of a discrete sensor at "unsigned" and means nothing by it.
fn has_numbers(sensor: &Sensor) -> bool {
    sensor.shape == Shape::Full
        && sensor.units.format() != Format::None
        && (sensor.event_type == 1 || sensor.units.is_specified())
}

/// How firmware says that there is no such sensor now. There are as many ways as vendors.
fn is_absence(completion: Completion) -> bool {
    matches!(
        completion,
        Completion::OUT_OF_RANGE
            | Completion::NOT_PRESENT
            | Completion::ILLEGAL
            | Completion::CANNOT_RESPOND
            | Completion::DESTINATION_UNAVAILABLE
            | Completion::NOT_NOW
            | Completion::UNSPECIFIED
    )
}

async fn factors(
    bmc: &impl Controller,
    sensor: &Sensor,
    conversion: Conversion,
    value: u8,
) -> Result<Option<Conversion>, Error> {
    let response = busy::ask(bmc, &raw::factors_request(sensor.key, value)).await?;
    let [_next, m, t, b, a, d, e, ..] = response.data[..] else { return Ok(None) };
    let units: Units = sensor.units;
    let factors = Conversion::decode(units, conversion.linearization, [m, t, b, a, d, e]);
    Ok((response.completion == Completion::OK).then_some(factors))
}

async fn thresholds(
    bmc: &impl Controller,
    sensor: &Sensor,
    options: Options,
) -> Result<(u8, [u8; 6]), Error> {
    let known = sensor.thresholds;
    if options.thresholds && known.askable && known.mask != 0 {
        let response = busy::ask(bmc, &raw::thresholds_request(sensor.key)).await?;
        if response.completion == Completion::OK
            && let Some((mask, rest)) = response.data.split_first()
            && let Some(values) = rest.first_chunk()
        {
            return Ok((*mask, *values));
        }
    }
    Ok((known.mask, known.values))
}

fn in_units((mask, values): (u8, [u8; 6]), conversion: Option<Conversion>) -> Thresholds {
    let Some(conversion) = conversion else { return Thresholds::default() };
    let one = |at: usize| {
        let byte = values.get(at).filter(|_| mask & 1 << at != 0)?;
        conversion.value(*byte)
    };
    Thresholds {
        lower_non_critical: one(0),
        lower_critical: one(1),
        lower_non_recoverable: one(2),
        upper_non_critical: one(3),
        upper_critical: one(4),
        upper_non_recoverable: one(5),
    }
}

/// What Get Sensor Reading's comparison byte says.
fn severity(bits: u8) -> Severity {
    match bits {
        bits if bits & 0b10_0100 != 0 => Severity::NonRecoverable,
        bits if bits & 0b01_0010 != 0 => Severity::Critical,
        bits if bits & 0b00_1001 != 0 => Severity::NonCritical,
        _ => Severity::Ok,
    }
}

/// The same, where the controller does not compare.
fn beyond(value: f64, thresholds: &Thresholds) -> Severity {
    let below = |threshold: Option<f64>| threshold.is_some_and(|threshold| value <= threshold);
    let above = |threshold: Option<f64>| threshold.is_some_and(|threshold| value >= threshold);
    if below(thresholds.lower_non_recoverable) || above(thresholds.upper_non_recoverable) {
        Severity::NonRecoverable
    } else if below(thresholds.lower_critical) || above(thresholds.upper_critical) {
        Severity::Critical
    } else if below(thresholds.lower_non_critical) || above(thresholds.upper_non_critical) {
        Severity::NonCritical
    } else {
        Severity::Ok
    }
}

/// A discrete sensor's bits in words, and the worst of them. Bits that no table knows (Supermicro X9DRi-LN4F+,
/// H8SGL-F) are told by their number and are not bad.
fn discrete(sensor: &Sensor, bits: u16) -> (Vec<Cow<'static, str>>, Severity) {
    let mut worst = Severity::Ok;
    let mut all = Vec::new();
    for at in (0..15u8).filter(|at| bits & 1 << at != 0) {
        match words::offset(sensor.event_type, sensor.sensor_type, at) {
            Some((words, severity)) => {
                worst = worst.max(severity);
                all.push(words.into());
            }
            None => all.push(format!("state {at}").into()),
        }
    }
    (all, worst)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::commands::busy::script::{Scripted, code, ok};
    use crate::commands::sdr::Records;
    use crate::commands::sdr::record::tests::{slots, temperature};
    use crate::message::Response;

    fn repository(records: Vec<Vec<u8>>) -> Repository {
        Repository::new(&Records { records, ..Records::default() })
    }

    async fn one(record: Vec<u8>, options: Options, answer: Response) -> Reading {
        let bmc = Scripted::new(move |request| match request.command {
            0x2d => answer.clone(),
            0x27 => ok([0x18, 0, 0, 0, 40, 60, 0]),
            _ => code(Completion::INVALID_COMMAND),
        });
        read_all(&bmc, &repository(vec![record]), options).await.unwrap().remove(0)
    }

    async fn inlet(answer: impl Into<Vec<u8>>) -> Reading {
        one(temperature(1, 9, "Inlet"), Options::default(), ok(answer)).await
    }

    #[tokio::test]
    async fn a_reading_its_unit_and_its_state() {
        let reading = inlet([23, 0xc0, 0xc0]).await;
        assert_eq!((reading.shown().as_str(), reading.state), ("23 °C", State::Ok));
        assert_eq!(reading.kind, "temperature");
        assert_eq!(reading.thresholds.upper_critical, Some(50.0));
        assert_eq!(reading.thresholds.lower_critical, Some(-10.0));
        assert_eq!(reading.thresholds.upper_non_recoverable, None);
        assert_eq!(inlet([51, 0xc0, 0xd8]).await.state, State::Critical);
        assert_eq!(inlet([2, 0xc0, 0xc1]).await.state, State::NonCritical);
        assert_eq!(inlet([99, 0xc0, 0xf8]).await.state, State::NonRecoverable);
        // No comparison: ours.
        assert_eq!(inlet([0xf0, 0xc0]).await.state, State::Critical);
        let json = serde_json::to_value(inlet([23, 0xc0, 0xc0]).await).unwrap();
        assert_eq!(json["state"], "ok");
        assert_eq!(json["thresholds"]["upper-non-critical"], 45.0);
        assert_eq!(json["entity"], "system board 1");
    }

    #[tokio::test]
    async fn thresholds_in_force_where_they_are_asked_for() {
        let options = Options { thresholds: true, ..Options::default() };
        let reading = one(temperature(1, 9, "Inlet"), options, ok([23, 0xc0, 0xc0])).await;
        assert_eq!(reading.thresholds.upper_non_critical, Some(40.0));
        assert_eq!(reading.thresholds.upper_critical, Some(60.0));
        assert_eq!(reading.thresholds.lower_critical, None);
    }

    #[tokio::test]
    async fn absence_has_many_names() {
        for byte in [0xc9, 0xcb, 0xcd, 0xce, 0xd3, 0xd5, 0xff] {
            let record = temperature(1, 9, "Inlet");
            let reading = one(record, Options::default(), code(Completion(byte))).await;
            assert_eq!((reading.state, reading.value), (State::NotPresent, None), "{byte:#x}");
        }
        let refused = code(Completion::PRIVILEGE);
        let reading = one(temperature(1, 9, "Inlet"), Options::default(), refused).await;
        assert_eq!(reading.state, State::Failed);
        assert!(reading.note.unwrap().contains("privilege"));
        assert_eq!(inlet([23, 0xe0, 0xc0]).await.state, State::Unavailable);
        assert_eq!(inlet([23, 0x80, 0xc0]).await.state, State::ScanningDisabled);
        assert_eq!(inlet([]).await.state, State::Failed);
        let options = Options { ignore_scanning: true, ..Options::default() };
        let reading = one(temperature(1, 9, "Inlet"), options, ok([23, 0x80, 0xc0])).await;
        assert_eq!(reading.shown(), "23 °C");
    }

    #[tokio::test]
    async fn discrete_states_in_words() {
        let bmc = Scripted::new(|request| match request.data[0] {
            0x40 => ok([0, 0xc0, 0x01, 0x80]),
            0x41 => ok([0, 0xc0, 0x02, 0x84]),
            0x42 => ok([0, 0xc0, 0x41, 0x80]),
            _ => ok([0, 0xc0, 0x00, 0xd0]),
        });
        let repository = repository(vec![slots(1, 0x40)]);
        let readings = read_all(&bmc, &repository, Options::default()).await.unwrap();
        let seen: Vec<_> = readings.iter().map(|r| (r.name.as_str(), r.shown(), r.state)).collect();
        assert_eq!(
            seen,
            [
                ("Slot 1", "correctable ECC".into(), State::NonCritical),
                ("Slot 2", "uncorrectable ECC, critical overtemperature".into(), State::Critical),
                ("Slot 3", "correctable ECC, present".into(), State::NonCritical),
                ("Slot 4", "state 12, state 14".into(), State::Ok),
            ]
        );
    }

    #[tokio::test]
    async fn factors_are_asked_for_where_they_differ_by_reading() {
        let mut record = temperature(1, 9, "Flow");
        record[23] = 0x70;
        let bmc = Scripted::new(|request| match request.command {
            0x2d => ok([10, 0xc0, 0xc0]),
            0x23 => ok([11, 3, 0, request.data[1], 0, 0, 0xf0]),
            _ => code(Completion::INVALID_COMMAND),
        });
        let reading = read_all(&bmc, &repository(vec![record]), Options::default()).await.unwrap();
        assert_eq!(reading[0].value, Some(4.0));
    }

    /// A satellite controller's sensor of the same number is another sensor.
    #[tokio::test]
    async fn another_controllers_sensor_is_not_ours() {
        let mut record = temperature(1, 9, "Blade");
        record[5] = 0x82;
        let reading = one(record, Options::default(), ok([23, 0xc0, 0xc0])).await;
        assert_eq!((reading.state, reading.value), (State::Elsewhere, None));
        assert_eq!(reading.note.unwrap(), "of the controller at 0x82 on channel 0");
    }

    proptest! {
        #[test]
        fn any_record_and_any_answer(kind in 1u8..4,
                                     mut record in proptest::collection::vec(any::<u8>(), 5..70),
                                     answer in proptest::collection::vec(any::<u8>(), 0..10)) {
            record[3] = kind;
            let runtime =
                tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
            let bmc = Scripted::new(move |_| ok(answer.clone()));
            let options = Options { thresholds: true, ignore_scanning: true, satellites: true };
            let readings = runtime.block_on(read_all(&bmc, &repository(vec![record]), options));
            for reading in readings.unwrap() {
                prop_assert!(reading.value.is_none_or(f64::is_finite));
                let _shown = reading.shown();
            }
        }
    }
}
