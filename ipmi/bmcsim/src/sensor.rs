//! Sensors: what they read, where their thresholds are, and the events that crossing one makes.
//!
//! IPMI 2.0 §35 (sensor commands), §29.7 (event data), §43.1 and §43.2 (their records).
//!
//! Tests set readings by name ([`set`], [`assert`]); scripts by Set Sensor Reading (`ipmitool raw 0x04 0x30`).

use koboshi_ipmi::commands::sdr::Entity;
use koboshi_ipmi::commands::sel::{Event, Stamp};
use koboshi_ipmi::commands::sensor::Raw;
use koboshi_ipmi::commands::sensor::convert::Conversion;
use koboshi_ipmi::commands::sensor::units::{Format, Units};
use koboshi_ipmi::{Completion, Response};

use crate::bmc::Bmc;
use crate::config::Config;
use crate::dispatch::{Asked, ok, refuse};
use crate::sel;

/// All of them.
#[derive(Debug, Clone)]
pub struct Sensors {
    /// In the order of their numbers.
    pub all: Vec<Sensor>,
}

/// One sensor.
#[derive(Debug, Clone)]
pub struct Sensor {
    /// Its number.
    pub number: u8,
    /// Its logical unit.
    pub lun: u8,
    /// Its name, at most 16 bytes.
    pub name: String,
    /// Of table 42-3.
    pub sensor_type: u8,
    /// Of table 42-1: 1 has thresholds, 0x6F states.
    pub event_type: u8,
    /// What it is a part of.
    pub entity: Entity,
    /// What its numbers count.
    pub units: Units,
    /// How its bytes become numbers.
    pub conversion: Conversion,
    /// The reading's byte.
    pub raw: u8,
    /// A discrete one's states.
    pub states: u16,
    /// Which thresholds it has; bit 0 is the lower non-critical one.
    pub mask: u8,
    /// Thresholds as Get Sensor Thresholds has them: lower, then upper, each from non-critical on.
    pub thresholds: [u8; 6],
    /// How far back a reading must go for the event to end, in steps.
    pub hysteresis: u8,
    /// Thresholds that are crossed.
    pub crossed: u8,
    /// What it answers instead of a reading.
    pub refuses: Option<Completion>,
    /// Whether it is scanned.
    pub scanning: bool,
    /// Whether it has a reading now.
    pub available: bool,
}

/// A temperature in degrees Celsius.
pub const TEMPERATURE: u8 = 1;
/// Volts.
pub const VOLTAGE: u8 = 2;
/// Rounds a minute.
pub const FAN: u8 = 4;
/// A power supply's states.
pub const POWER_SUPPLY: u8 = 8;
/// The watchdog's states.
pub const WATCHDOG: u8 = 0x23;

/// Lower and upper thresholds, each from non-critical on.
type Limits = [Option<f64>; 6];

impl Sensor {
    /// One that reads numbers, at this value.
    pub fn analog(
        number: u8,
        name: &str,
        sensor_type: u8,
        conversion: Conversion,
        value: f64,
        limits: Limits,
    ) -> Sensor {
        let base = match sensor_type {
            TEMPERATURE => 1,
            VOLTAGE => 4,
            FAN => 18,
            _ => 0,
        };
        let format = match conversion.format {
            Format::Unsigned => 0x00,
            Format::Ones => 0x40,
            Format::Twos => 0x80,
            Format::None => 0xc0,
        };
        let raw = |value: f64| conversion.raw(value).unwrap_or(0);
        let set = (0..6).filter(|at| limits[*at].is_some()).fold(0, |mask, at| mask | 1 << at);
        Sensor {
            number,
            lun: 0,
            name: name.to_owned(),
            sensor_type,
            event_type: 1,
            entity: Entity { id: 7, instance: 1 },
            units: Units { flags: format, base, modifier: 0 },
            conversion,
            raw: raw(value),
            states: 0,
            mask: set,
            thresholds: limits.map(|limit| limit.map_or(0, raw)),
            hysteresis: 1,
            crossed: 0,
            refuses: None,
            scanning: true,
            available: true,
        }
    }

    /// One of states.
    pub fn discrete(number: u8, name: &str, sensor_type: u8, states: u16) -> Sensor {
        let conversion = linear(Format::None, 1, 0);
        let limits = [None; 6];
        let sensor = Sensor::analog(number, name, sensor_type, conversion, 0.0, limits);
        let units = Units { flags: 0xc0, base: 0, modifier: 0 };
        Sensor { event_type: 0x6f, units, states, ..sensor }
    }

    /// The same as a part of this.
    #[must_use]
    pub fn of(self, id: u8, instance: u8) -> Sensor {
        Sensor { entity: Entity { id, instance }, ..self }
    }

    /// Its reading as a number.
    pub fn value(&self) -> Option<f64> {
        self.conversion.value(self.raw)
    }

    /// Which thresholds a reading crosses.
    fn beyond(&self, raw: u8) -> u8 {
        let of = |byte: u8| self.conversion.value(byte).unwrap_or_default();
        (0..6)
            .filter(|at| self.mask & 1 << at != 0)
            .filter(|at| match at {
                0..3 => of(raw) <= of(self.thresholds[*at]),
                _ => of(raw) >= of(self.thresholds[*at]),
            })
            .fold(0, |bits, at| bits | 1 << at)
    }

    fn reading(&self) -> Raw {
        let flags = 0x80 | u8::from(self.scanning) << 6 | u8::from(!self.available) << 5;
        let [low, high] = match self.event_type {
            1 => [0xc0 | self.beyond(self.raw), 0],
            _ => (self.states | 0x8000).to_le_bytes(),
        };
        let more = (self.event_type != 1).then_some(high);
        Raw { value: self.raw, flags, comparison: Some(low), more }
    }
}

/// Steps of M·10^K, without an offset.
pub fn linear(format: Format, m: i16, exponent: i8) -> Conversion {
    Conversion { format, linearization: 0, m, b: 0, b_exponent: 0, exponent }
}

impl Sensors {
    /// Eight of every kind that matters; further ones in turn, up to as many as there are numbers on four
    /// logical units.
    pub fn new(config: &Config) -> Sensors {
        Sensors { all: (0..config.sensors.min(4 * 255)).map(made).collect() }
    }

    /// The one of this name.
    pub fn named(&mut self, name: &str) -> Option<&mut Sensor> {
        self.all.iter_mut().find(|sensor| sensor.name == name)
    }
}

/// The sensor at this place of the default set.
fn made(at: usize) -> Sensor {
    // The watchdog's events name its sensor by this number.
    const WATCHDOG_AT: usize = 0x70 - 1;
    let place = match at {
        7 => WATCHDOG_AT,
        WATCHDOG_AT => 7,
        at => at,
    };
    let number = (place % 255 + 1) as u8;
    let lun = [0, 1, 3, 2][at / 255 % 4];
    let degrees = linear(Format::Twos, 1, 0);
    let warm = [Some(5.0), Some(0.0), None, Some(42.0), Some(47.0), None];
    let hot = [None, None, None, Some(85.0), Some(95.0), Some(100.0)];
    let round = [Some(800.0), Some(500.0), None, None, None, None];
    let name = |kind: &str| format!("{kind} {}", at + 1);
    let sensor = match at {
        0 => Sensor::analog(number, "Inlet Temp", TEMPERATURE, degrees, 23.0, warm).of(0x37, 1),
        1 => Sensor::analog(number, "CPU Temp", TEMPERATURE, degrees, 51.0, hot).of(3, 1),
        2 => volts(number, "12V", 63, 12.04),
        3 => volts(number, "3.3V", 17, 3.28),
        4 => Sensor::analog(number, "Fan 1", FAN, linear(Format::Unsigned, 60, 0), 4200.0, round)
            .of(0x1d, 1),
        5 => Sensor::analog(number, "Fan 2", FAN, linear(Format::Unsigned, 60, 0), 4320.0, round)
            .of(0x1d, 2),
        6 => Sensor::discrete(number, "PSU 1", POWER_SUPPLY, 0x01).of(0x0a, 1),
        7 => Sensor::discrete(number, "Watchdog", WATCHDOG, 0).of(6, 1),
        _ => match at % 4 {
            0 => {
                Sensor::analog(number, &name("Temp"), TEMPERATURE, degrees, 30.0, hot).of(8, number)
            }
            1 => volts(number, &name("Rail"), 9, 1.8),
            2 => Sensor::analog(
                number,
                &name("Fan"),
                FAN,
                linear(Format::Unsigned, 100, 0),
                6000.0,
                round,
            )
            .of(0x1d, number),
            _ => Sensor::discrete(number, &name("Drive"), 0x0d, 0x01).of(0x1a, number),
        },
    };
    Sensor { lun, ..sensor }
}

/// A voltage in steps of millivolts, with thresholds at 5 and 10 % around it.
fn volts(number: u8, name: &str, step: i16, value: f64) -> Sensor {
    let around = |factor: f64| Some(value * factor);
    let limits = [around(0.95), around(0.9), None, around(1.05), around(1.1), None];
    Sensor::analog(number, name, VOLTAGE, linear(Format::Unsigned, step, -3), value, limits)
}

/// Sets a reading in its unit, and logs what it crosses. `false`: there is no such sensor.
pub fn set(bmc: &mut Bmc, name: &str, value: f64) -> bool {
    let Some(sensor) = bmc.sensors.named(name) else { return false };
    let Some(raw) = sensor.conversion.raw(value) else { return false };
    let number = (sensor.number, sensor.lun);
    write(bmc, number, raw);
    true
}

/// Sets a discrete one's states, and logs those that begin or end. `false`: there is no such sensor.
pub fn assert(bmc: &mut Bmc, name: &str, states: u16) -> bool {
    let Some(sensor) = bmc.sensors.named(name) else { return false };
    let number = (sensor.number, sensor.lun);
    write_states(bmc, number, states);
    true
}

fn find(bmc: &mut Bmc, (number, lun): (u8, u8)) -> Option<&mut Sensor> {
    bmc.sensors.all.iter_mut().find(|sensor| (sensor.number, sensor.lun) == (number, lun))
}

fn write(bmc: &mut Bmc, number: (u8, u8), raw: u8) {
    let Some(sensor) = find(bmc, number) else { return };
    sensor.raw = raw;
    let (before, now) = (sensor.crossed, sensor.beyond(raw));
    sensor.crossed = now;
    let sensor = sensor.clone();
    for at in 0..6u8 {
        let bit = 1 << at;
        if before & bit == now & bit || sensor.event_type != 1 {
            continue;
        }
        // Offsets come in pairs, going low and going high (table 42-2); what crosses a lower threshold goes
        // low, what crosses an upper one goes high.
        let offset = at * 2 + u8::from(at >= 3);
        let data = [0x50 | offset, raw, sensor.thresholds[usize::from(at)]];
        sel::log(bmc, event(&sensor, now & bit == 0, data));
    }
}

fn write_states(bmc: &mut Bmc, number: (u8, u8), states: u16) {
    let Some(sensor) = find(bmc, number) else { return };
    let before = std::mem::replace(&mut sensor.states, states & 0x7fff);
    let sensor = sensor.clone();
    for at in (0..15u8).filter(|at| (before ^ states) & 1 << at != 0) {
        sel::log(bmc, event(&sensor, states & 1 << at == 0, [at, 0xff, 0xff]));
    }
}

fn event(sensor: &Sensor, deasserted: bool, data: [u8; 3]) -> Event {
    Event {
        time: Stamp(0),
        generator: [0x20, sensor.lun],
        revision: 4,
        sensor_type: sensor.sensor_type,
        number: sensor.number,
        deasserted,
        event_type: sensor.event_type,
        data,
    }
}

/// Answers for sensors, and for their records as the controller itself has them.
pub fn answer(bmc: &mut Bmc, asked: &Asked<'_>) -> Option<Response> {
    let unscanned = bmc.faults.sensor_scanning;
    match asked.command {
        0x02 => return sel::platform_event(bmc, asked),
        0x20..=0x22 => return crate::sdr::device(bmc, asked),
        0x23..=0x30 => {}
        _ => return None,
    }
    let Some((number, rest)) = asked.data.split_first() else {
        return refuse(Completion::LENGTH_INVALID);
    };
    let key = (*number, asked.lun);
    let Some(sensor) = find(bmc, key) else { return refuse(Completion::NOT_PRESENT) };
    match (asked.command, rest) {
        // The factors of a linear sensor are the same for each reading.
        (0x23, [reading, ..]) => {
            let [m, t, b, a, d, e] = sensor.conversion.encode();
            ok([reading.wrapping_add(1), m, t, b, a, d, e])
        }
        (0x24, [_, up, ..]) => {
            sensor.hysteresis = *up;
            ok([])
        }
        (0x25, _) => ok([sensor.hysteresis; 2]),
        (0x26, [mask, values @ ..]) => {
            let Some(values) = values.first_chunk::<6>() else {
                return refuse(Completion::LENGTH_INVALID);
            };
            if mask & !sensor.mask & 0x3f != 0 {
                return refuse(Completion::INVALID_FIELD);
            }
            for at in (0..6).filter(|at| mask & 1 << at != 0) {
                sensor.thresholds[at] = values[at];
            }
            let raw = sensor.raw;
            write(bmc, key, raw);
            ok([])
        }
        (0x27, _) if sensor.event_type != 1 => refuse(Completion::ILLEGAL),
        (0x27, _) => {
            let [a, b, c, d, e, f] = sensor.thresholds;
            ok([sensor.mask, a, b, c, d, e, f])
        }
        (0x28, _) => ok([]),
        (0x29, _) => ok([0xc0, 0xff, 0x0f, 0xff, 0x0f]),
        (0x2b, _) => ok([0xc0, 0, 0, 0, 0]),
        (0x2d, _) => match sensor.refuses {
            Some(completion) => refuse(completion),
            None => {
                let reading = sensor.reading();
                let flags = if unscanned { reading.flags & !0x40 } else { reading.flags };
                ok(Raw { flags, ..reading }.encode())
            }
        },
        (0x2f, _) => ok([sensor.sensor_type, sensor.event_type]),
        (0x30, [operation, reading, states @ ..]) => {
            let states = states.first_chunk().map_or(0, |bytes| u16::from_le_bytes(*bytes));
            let old = sensor.states;
            let new = match operation >> 4 & 3 {
                0 => old,
                1 => states,
                2 => old | states,
                _ => old & !states,
            };
            if operation & 3 == 1 {
                write(bmc, key, *reading);
            }
            write_states(bmc, key, new);
            ok([])
        }
        (0x23 | 0x24 | 0x26 | 0x30, _) => refuse(Completion::LENGTH_INVALID),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use koboshi_ipmi::commands::sel::{Content, Entry};
    use koboshi_ipmi::{NetFn, Request};

    use super::*;

    fn logged(bmc: &Bmc) -> Vec<Event> {
        let events = bmc.sel.entries.iter().map(|bytes| Entry::decode(bytes).unwrap().content);
        events
            .map(|content| match content {
                Content::Event(event) => event,
                other => panic!("{other:?}"),
            })
            .collect()
    }

    #[test]
    fn readings_states_and_the_events_they_make() {
        let now = Instant::now();
        let mut bmc = Bmc::new(Config::default(), now);
        let read = |bmc: &mut Bmc, number| {
            Raw::decode(&bmc.ask(&Request::new(NetFn::SENSOR, 0x2d, [number]), now).data).unwrap()
        };
        assert_eq!(read(&mut bmc, 2).value, 51);
        assert!(set(&mut bmc, "CPU Temp", 97.0));
        assert_eq!(read(&mut bmc, 2).comparison, Some(0xc0 | 0b01_1000));
        assert!(set(&mut bmc, "CPU Temp", 60.0));
        assert!(!set(&mut bmc, "GPU Temp", 60.0));
        assert!(assert(&mut bmc, "PSU 1", 0b1001));
        let seen: Vec<_> =
            logged(&bmc).iter().map(|e| (e.number, e.offset(), e.deasserted)).collect();
        assert_eq!(seen, [(2, 7, false), (2, 9, false), (2, 7, true), (2, 9, true), (7, 3, false)]);
    }

    #[test]
    fn thresholds_are_set_and_scripts_may_set_readings() {
        let now = Instant::now();
        let mut bmc = Bmc::new(Config::default(), now);
        let mut ask =
            |command, data: &[u8]| bmc.ask(&Request::new(NetFn::SENSOR, command, data), now);
        assert_eq!(ask(0x26, &[1, 0x08, 0, 0, 0, 30, 0, 0]).completion, Completion::OK);
        assert_eq!(ask(0x27, &[1]).data, [0x1b, 5, 0, 0, 30, 47, 0]);
        assert_eq!(ask(0x26, &[1, 0x20, 0, 0, 0, 0, 0, 9]).completion, Completion::INVALID_FIELD);
        assert_eq!(ask(0x30, &[1, 1, 33]).completion, Completion::OK);
        assert_eq!(ask(0x2d, &[1]).data[..1], [33]);
        assert_eq!(ask(0x2d, &[99]).completion, Completion::NOT_PRESENT);
        assert_eq!(logged(&bmc).len(), 1);
    }

    #[test]
    fn as_many_as_wanted() {
        let config = Config { sensors: 600, ..Config::default() };
        let sensors = Sensors::new(&config);
        let keys: std::collections::HashSet<_> =
            sensors.all.iter().map(|sensor| (sensor.number, sensor.lun)).collect();
        assert_eq!(keys.len(), 600);
        assert!(!keys.iter().any(|(number, _)| *number == 0));
    }
}
