//! Sensor data records: what sensors, FRU devices and controllers a machine has (IPMI §33, §35.2, §43).
//! [`load`] has them from the controller, or from a [`cache`] as long as the repository's own times say that
//! nothing changed.

pub mod cache;
pub mod entity;
pub mod read;
pub mod record;
pub mod text;

use std::path::PathBuf;

pub use entity::Entity;
pub use read::{Records, Source};
pub use record::{ControllerLocator, FruLocator, Key, Record, Sensor, Shape};

use crate::commands::busy;
use crate::controller::Controller;
use crate::error::Error;
use crate::message::{NetFn, Request};
use crate::wire::Malformed;

/// What Get SDR Repository Info says (§33.9).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Info {
    /// How many records there are, where that is true.
    pub count: u16,
    /// When one was added, by the controller's clock.
    pub added: u32,
    /// When one was deleted or all were cleared.
    pub erased: u32,
}

/// Asks for it.
pub fn info_request() -> Request {
    Request::new(NetFn::STORAGE, 0x20, [])
}

impl Info {
    /// From Get SDR Repository Info's answer.
    pub fn decode(bytes: &[u8]) -> Result<Info, Malformed> {
        let [_version, low, high, _, _, times @ ..] = bytes else {
            return Err(Malformed("what the repository says of itself is too short"));
        };
        let time = |at: usize| {
            let bytes = times.get(at..at + 4).and_then(|bytes| bytes.first_chunk());
            bytes.map_or(u32::MAX, |bytes| u32::from_le_bytes(*bytes))
        };
        let count = u16::from_le_bytes([*low, *high]);
        Ok(Info { count, added: time(0), erased: time(4) })
    }
}

/// Everything that a machine says it has.
#[derive(Debug, Clone, Default)]
pub struct Repository {
    /// Its sensors, in the order of its records.
    pub sensors: Vec<Sensor>,
    /// Where FRU data is.
    pub frus: Vec<FruLocator>,
    /// Management controllers.
    pub controllers: Vec<ControllerLocator>,
    /// What was odd about it, for the operator.
    pub notes: Vec<String>,
    /// Whether all of it is here.
    pub complete: bool,
    /// Whether it is from the cache.
    pub cached: bool,
}

impl Repository {
    /// Of these records; one that cannot be read costs itself alone.
    pub fn new(records: &Records) -> Repository {
        let (notes, complete) = (records.notes.clone(), records.complete);
        let mut all = Repository { notes, complete, ..Repository::default() };
        for bytes in &records.records {
            match Record::decode(bytes) {
                Ok(Record::Sensors(sensors)) => all.sensors.extend(sensors),
                Ok(Record::Fru(locator)) => all.frus.push(locator),
                Ok(Record::Controller(locator)) => all.controllers.push(locator),
                Ok(Record::Other { .. }) => {}
                Err(malformed) => all.notes.push(format!("a record is left out: {malformed}")),
            }
        }
        all
    }

    /// The sensor that an event of this generator is from. Some boards (Supermicro) write a wrong generator:
    /// then the one sensor of that number and type is meant, if there is one alone.
    pub fn sensor(&self, key: Key, sensor_type: u8) -> Option<&Sensor> {
        if let Some(exact) = self.sensors.iter().find(|sensor| sensor.key == key) {
            return Some(exact);
        }
        let mut alike = self
            .sensors
            .iter()
            .filter(|sensor| sensor.key.number == key.number && sensor.sensor_type == sensor_type);
        alike.next().filter(|_| alike.next().is_none())
    }
}

/// Where a BMC's records are kept between runs.
#[derive(Debug, Clone)]
pub struct Cache {
    /// Made when it is not there.
    pub directory: PathBuf,
    /// A name of the BMC, the only one of that name in the directory (its address and port).
    pub name: String,
}

/// What the machine has: from the cache, if that is of this very state, else from the controller; what is
/// read is kept for the next time.
pub async fn load(bmc: &impl Controller, cache: Option<&Cache>) -> Result<Repository, Error> {
    let device = Request::new(NetFn::APP, 0x01, []);
    let guid = Request::new(NetFn::APP, 0x37, []);
    let info = info_request();
    let (device, info, guid) =
        tokio::join!(busy::call(bmc, &device), busy::call(bmc, &info), busy::call(bmc, &guid),);
    let device = device?;
    let info = info.ok().and_then(|bytes| Info::decode(&bytes).ok());
    let key = cache::Key {
        device: device.clone(),
        population: population(bmc, info).await,
        guid: guid.unwrap_or_default(),
        info,
    };
    if let Some(cache) = cache
        && let Some(records) = cache::read(cache.clone(), key.clone()).await
    {
        return Ok(Repository { cached: true, ..Repository::new(&records) });
    }
    let records = from_controller(bmc, &device, info).await?;
    if let Some(cache) = cache
        && records.complete
    {
        cache::write(cache.clone(), key, records.clone()).await;
    }
    Ok(Repository::new(&records))
}

/// What Get Device SDR Info says (§35.2: how many sensors, and when their population changed), where there is
/// no repository that would tell it.
async fn population(bmc: &impl Controller, info: Option<Info>) -> Vec<u8> {
    match info {
        Some(info) if info.count != 0 => Vec::new(),
        _ => {
            let request = Request::new(NetFn::SENSOR, 0x20, []);
            busy::call(bmc, &request).await.unwrap_or_default()
        }
    }
}

/// From where Get Device ID says that they are (§20.1: bit 7 of the revision, bit 1 of the support byte).
async fn from_controller(
    bmc: &impl Controller,
    device: &[u8],
    info: Option<Info>,
) -> Result<Records, Error> {
    let has_device_records = device.get(1).is_some_and(|byte| byte & 0x80 != 0);
    let has_repository = device.get(5).is_some_and(|byte| byte & 0x02 != 0);
    if has_repository || !has_device_records {
        let count = info.map(|info| info.count);
        let read = read::records(bmc, Source::Repository, count).await;
        let nothing = read.as_ref().map_or(true, |read| read.records.is_empty());
        if !nothing || !has_device_records {
            return read;
        }
    }
    read::records(bmc, Source::Device, None).await
}

#[cfg(test)]
mod tests {
    use super::record::tests::{slots, temperature};
    use super::*;
    use crate::commands::busy::script::{Scripted, code, ok};
    use crate::message::Completion;

    /// A controller whose records are those of the device (`own`) or a repository's.
    fn controller(own: bool, added: u32) -> Scripted {
        Scripted::new(move |request| match (request.netfn, request.command) {
            (NetFn::APP, 0x01) => {
                let revision = if own { 0x81 } else { 1 };
                let support = if own { 1 } else { 3 };
                ok([0x20, revision, 1, 2, 0x51, support, 0, 0, 0, 0, 0])
            }
            (NetFn::APP, 0x37) => ok([7; 16]),
            (NetFn::STORAGE, 0x20) if !own => {
                let times = [added.to_le_bytes(), 5u32.to_le_bytes()].concat();
                ok([&[0x51, 2, 0, 0, 0][..], &times, &[2]].concat())
            }
            (NetFn::STORAGE, 0x23) if !own => match request.data[2] {
                0 | 1 => ok([&[2, 0][..], &temperature(1, 9, "Inlet")].concat()),
                _ => ok([&[0xff, 0xff][..], &slots(2, 0x40)].concat()),
            },
            (NetFn::SENSOR, 0x21) if own => {
                ok([&[0xff, 0xff][..], &temperature(1, 9, "Own")].concat())
            }
            _ => code(Completion::INVALID_COMMAND),
        })
    }

    #[tokio::test]
    async fn the_repository_or_the_devices_own() {
        let repository = load(&controller(false, 1), None).await.unwrap();
        let names: Vec<_> = repository.sensors.iter().map(|sensor| sensor.name.as_str()).collect();
        assert_eq!(names, ["Inlet", "Slot 1", "Slot 2", "Slot 3", "Slot 4"]);
        let own = load(&controller(true, 1), None).await.unwrap();
        assert_eq!(own.sensors[0].name, "Own");
    }

    #[tokio::test]
    async fn the_cache_serves_until_the_repository_changes() {
        let directory = tempfile::tempdir().unwrap();
        let cache = Cache { directory: directory.path().join("sdr"), name: "10.0.0.1:623".into() };
        let bmc = controller(false, 1);
        assert!(!load(&bmc, Some(&cache)).await.unwrap().cached);
        let asked = bmc.count();
        let again = load(&bmc, Some(&cache)).await.unwrap();
        assert!(again.cached && again.sensors.len() == 5);
        assert_eq!(bmc.count() - asked, 3);
        assert!(!load(&controller(false, 2), Some(&cache)).await.unwrap().cached);
        // A file that is not what it was is read past, and written anew.
        let file = std::fs::read_dir(&cache.directory).unwrap().next().unwrap().unwrap().path();
        let mut bytes = std::fs::read(&file).unwrap();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        std::fs::write(&file, bytes).unwrap();
        assert!(!load(&controller(false, 2), Some(&cache)).await.unwrap().cached);
        assert!(load(&controller(false, 2), Some(&cache)).await.unwrap().cached);
    }

    #[test]
    fn an_event_of_a_wrong_generator_finds_its_sensor() {
        let records = vec![temperature(1, 9, "Inlet"), slots(2, 0x40)];
        let repository = Repository::new(&Records { records, ..Records::default() });
        let key = |owner, number| Key { owner, channel: 0, lun: 0, number };
        assert_eq!(repository.sensor(key(0x20, 9), 1).unwrap().name, "Inlet");
        assert_eq!(repository.sensor(key(0x03, 9), 1).unwrap().name, "Inlet");
        assert!(repository.sensor(key(0x03, 9), 2).is_none());
    }
}
