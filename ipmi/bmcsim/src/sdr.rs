//! Sensor data records: the repository, and the same as the controller's own list.
//!
//! IPMI 2.0 §33 (repository), §35.2–35.4 (device records), §43 (records). The faults `sdr-…` are looked at here.

use koboshi_ipmi::{Completion, Response};

use crate::bmc::Bmc;
use crate::config::Config;
use crate::dispatch::{Asked, ok, refuse};
use crate::sel;
use crate::sensor::{Sensor, Sensors};

/// The records.
#[derive(Debug, Clone)]
pub struct Sdr {
    /// Each with its header; ids count from 1.
    pub records: Vec<Vec<u8>>,
    /// When one was added last.
    pub added: u32,
    /// When they were cleared last.
    pub erased: u32,
    reservation: u16,
    reads: u32,
}

/// Bytes that the repository can hold.
const ROOM: usize = 64 * 1024 - 2;

impl Sdr {
    /// One record for each sensor; then those of the controller and of its FRUs.
    pub fn new(config: &Config) -> Sdr {
        let now = sel::wall_clock();
        let mut sdr =
            Sdr { records: Vec::new(), added: now, erased: now, reservation: 0, reads: 0 };
        for sensor in Sensors::new(config).all {
            sdr.add(of_sensor(&sensor), now);
        }
        sdr.add(of_fru(0, "Board", 7), now);
        sdr.add(of_fru(1, "PSU 1", 0x0a), now);
        sdr.add(of_controller(), now);
        sdr
    }

    /// Adds a record, whose id it gives itself.
    pub fn add(&mut self, mut record: Vec<u8>, now: u32) {
        let id = (self.records.len() + 1) as u16;
        record[..2].copy_from_slice(&id.to_le_bytes());
        self.records.push(record);
        self.added = now;
        self.reservation = self.reservation.wrapping_add(1);
    }
}

/// A record: its header and what comes behind, then its name.
fn record(kind: u8, body: &[u8], name: &str) -> Vec<u8> {
    let name: String = name.chars().filter(char::is_ascii).take(16).collect();
    let length = body.len() + 1 + name.len();
    let mut bytes = vec![0, 0, 0x51, kind, length as u8];
    bytes.extend_from_slice(body);
    bytes.push(0xc0 | name.len() as u8);
    bytes.extend(name.bytes());
    bytes
}

/// Full for numbers, compact for states.
pub fn of_sensor(sensor: &Sensor) -> Vec<u8> {
    let analog = sensor.event_type == 1;
    let entity = sensor.entity;
    // Scanning and events are on; thresholds can be read and set, hysteresis too.
    let capabilities = if analog { 0x68 } else { 0x40 };
    let mut body = vec![0x20, sensor.lun, sensor.number, entity.id, entity.instance, 0x7f];
    body.extend([capabilities, sensor.sensor_type, sensor.event_type]);
    if analog {
        // Events in both directions for each threshold that there is.
        let events = (0..6).filter(|at| sensor.mask & 1 << at != 0);
        let events: u16 = events.fold(0, |bits, at| bits | 3 << (2 * at));
        body.extend([events.to_le_bytes(), events.to_le_bytes()].concat());
        body.extend([sensor.mask, sensor.mask]);
    } else {
        body.extend([0xff, 0x7f, 0xff, 0x7f, 0xff, 0x7f]);
    }
    let units = sensor.units;
    body.extend([units.flags, units.base, units.modifier]);
    if !analog {
        // Shared by one, no hysteresis, three reserved, OEM.
        body.extend([1, 0, 0, 0, 0, 0, 0, 0]);
        return record(2, &body, &sensor.name);
    }
    body.push(sensor.conversion.linearization);
    body.extend(sensor.conversion.encode());
    // Nominal reading and the sensor's range are told.
    let [least, most] = match units.flags >> 6 {
        0 => [0x00, 0xff],
        _ => [0x80, 0x7f],
    };
    body.extend([0x01, sensor.raw, 0, 0, most, least]);
    let [lower, lower_critical, lower_most, upper, upper_critical, upper_most] = sensor.thresholds;
    body.extend([upper_most, upper_critical, upper, lower_most, lower_critical, lower]);
    body.extend([sensor.hysteresis, sensor.hysteresis, 0, 0, 0]);
    record(1, &body, &sensor.name)
}

/// A FRU device that this controller reads.
pub fn of_fru(id: u8, name: &str, entity: u8) -> Vec<u8> {
    record(0x11, &[0x20, id, 0x80, 0, 0, 0x10, 0x02, entity, 1, 0], name)
}

fn of_controller() -> Vec<u8> {
    record(0x12, &[0x20, 0, 0x04, 0x9f, 0, 0, 0, 6, 1, 0], "bmcsim")
}

/// Answers for the repository.
pub fn answer(bmc: &mut Bmc, asked: &Asked<'_>) -> Option<Response> {
    let sdr = &bmc.sdr;
    match asked.command {
        0x20 => {
            let used: usize = sdr.records.iter().map(Vec::len).sum();
            let free = ROOM.saturating_sub(used) as u16;
            let mut info = vec![0x51];
            let count = sdr.records.len() as u16 + u16::from(bmc.faults.sdr_count);
            info.extend(count.to_le_bytes());
            info.extend(free.to_le_bytes());
            info.extend(sdr.added.to_le_bytes());
            info.extend(sdr.erased.to_le_bytes());
            // Updates at any time, reservations.
            info.push(0x22);
            ok(info)
        }
        0x22 => reserve(bmc),
        0x23 => get(bmc, asked.data),
        0x28 => ok(sel::time(bmc).to_le_bytes()),
        _ => None,
    }
}

/// Answers for the controller's own list.
pub fn device(bmc: &mut Bmc, asked: &Asked<'_>) -> Option<Response> {
    match asked.command {
        // Sensors (not records) on each logical unit; static.
        0x20 => {
            let luns = bmc.sensors.all.iter().fold(0, |bits, sensor| bits | 1 << sensor.lun);
            let count = bmc.sensors.all.iter().filter(|sensor| sensor.lun == asked.lun).count();
            ok([count as u8, luns])
        }
        0x21 => get(bmc, asked.data),
        0x22 => reserve(bmc),
        _ => None,
    }
}

fn reserve(bmc: &mut Bmc) -> Option<Response> {
    bmc.sdr.reservation = bmc.sdr.reservation.wrapping_add(1).max(1);
    ok(bmc.sdr.reservation.to_le_bytes())
}

fn get(bmc: &mut Bmc, data: &[u8]) -> Option<Response> {
    let [low, high, id_low, id_high, offset, count, ..] = *data else {
        return refuse(Completion::LENGTH_INVALID);
    };
    let sdr = &mut bmc.sdr;
    sdr.reads = sdr.reads.wrapping_add(1);
    if bmc.faults.sdr_lost.is_some_and(|every| every != 0 && sdr.reads.is_multiple_of(every)) {
        sdr.reservation = sdr.reservation.wrapping_add(1).max(1);
    }
    let given = u16::from_le_bytes([low, high]);
    if (offset != 0 || given != 0) && given != sdr.reservation {
        return refuse(Completion::RESERVATION_LOST);
    }
    let at = match u16::from_le_bytes([id_low, id_high]) {
        0 => 0,
        0xffff => sdr.records.len().saturating_sub(1),
        id => usize::from(id) - 1,
    };
    let Some(record) = sdr.records.get(at) else { return refuse(Completion::NOT_PRESENT) };
    let Some(rest) = record.get(usize::from(offset)..).filter(|rest| !rest.is_empty()) else {
        return refuse(Completion::OUT_OF_RANGE);
    };
    let wanted = match count {
        0xff => rest.len(),
        count => usize::from(count).min(rest.len()),
    };
    if bmc.faults.sdr_most.is_some_and(|most| wanted > usize::from(most)) {
        return refuse(Completion::CANNOT_RETURN);
    }
    let wanted = wanted.min(bmc.faults.sdr_short.map_or(usize::MAX, usize::from));
    let is_last = at + 1 == sdr.records.len();
    if is_last && bmc.faults.sdr_last {
        return refuse(Completion::TIMEOUT);
    }
    let next = match is_last {
        false => (at + 2) as u16,
        true if bmc.faults.sdr_endless => 1,
        true => 0xffff,
    };
    let mut answer = next.to_le_bytes().to_vec();
    answer.extend_from_slice(&rest[..wanted]);
    ok(answer)
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use koboshi_ipmi::commands::sdr::{Record, Source};

    use super::*;

    #[test]
    fn records_are_what_sensors_are() {
        let config = Config { sensors: 12, ..Config::default() };
        let sdr = Sdr::new(&config);
        assert_eq!(sdr.records.len(), 15);
        for (sensor, bytes) in Sensors::new(&config).all.iter().zip(&sdr.records) {
            let Ok(Record::Sensors(seen)) = Record::decode(bytes) else { panic!("{bytes:x?}") };
            assert_eq!((&seen[0].name, seen[0].key.number), (&sensor.name, sensor.number));
            assert_eq!((seen[0].entity, seen[0].units), (sensor.entity, sensor.units));
            assert_eq!(seen[0].thresholds.mask, sensor.mask);
            if sensor.event_type == 1 {
                assert_eq!(seen[0].conversion, Some(sensor.conversion));
                assert_eq!(seen[0].thresholds.values, sensor.thresholds);
            }
        }
    }

    #[test]
    fn parts_reservations_and_faults() {
        let now = Instant::now();
        let mut bmc = Bmc::new(Config::default(), now);
        let source = Source::Repository;
        let get = |bmc: &mut Bmc, reservation, offset, count| {
            bmc.ask(&source.get_request(reservation, 1, offset, count), now)
        };
        assert_eq!(get(&mut bmc, 0, 0, 0xff).data[2..], bmc.sdr.records[0]);
        assert_eq!(get(&mut bmc, 0, 5, 4).completion, Completion::RESERVATION_LOST);
        let reserved = bmc.ask(&source.reserve_request(), now).data;
        let reservation = u16::from_le_bytes([reserved[0], reserved[1]]);
        assert_eq!(get(&mut bmc, reservation, 5, 4).data[2..], bmc.sdr.records[0][5..9]);
        bmc.faults.set("sdr-most=20").unwrap();
        assert_eq!(get(&mut bmc, 0, 0, 0xff).completion, Completion::CANNOT_RETURN);
        assert_eq!(get(&mut bmc, reservation, 0, 20).completion, Completion::OK);
        bmc.faults.set("sdr-lost=1").unwrap();
        assert_eq!(get(&mut bmc, reservation, 5, 4).completion, Completion::RESERVATION_LOST);
    }
}
