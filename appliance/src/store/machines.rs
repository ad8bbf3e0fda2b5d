//! What is known of each machine from one boot to the next: what it is made of, what its firmware and its set-up
//! said, its host keys, how it has done with versions of images.

use std::collections::HashMap;

use koboshi_pxe::firmware::Firmware;
use redb::{ReadableDatabase, ReadableTable, WriteTransaction};

use super::{
    COURSES, FIRMWARE, HARDWARE, HOST_KEYS, HostKeys, SURVEYS, Store, StoreError, json, parse,
};
use crate::hardware;
use crate::rollout::Course;
use crate::surveys::Surveyed;

impl Store {
    /// Writes what a machine is made of. Queued in order; nobody need wait for it.
    pub async fn record_hardware(&self, record: hardware::Record) -> Result<(), StoreError> {
        let put = move |txn: &WriteTransaction| {
            let mut table = txn.open_table(HARDWARE)?;
            table.insert(record.machine.as_str(), json(&record).as_slice())?;
            Ok(())
        };
        self.submit(put).await.map(drop)
    }

    /// What every machine is made of.
    pub fn hardware(&self) -> Result<Vec<hardware::Record>, StoreError> {
        let read = self.db.begin_read()?;
        let mut records = Vec::new();
        for row in read.open_table(HARDWARE)?.iter()? {
            // Told anew at its next boot.
            match parse("hardware", row?.1.value()) {
                Ok(record) => records.push(record),
                Err(error) => tracing::warn!(%error, "what a machine is made of is forgotten"),
            }
        }
        Ok(records)
    }

    /// Writes what a machine's firmware says of itself. Queued in order; nobody need wait for it.
    pub async fn record_firmware(
        &self,
        machine: String,
        firmware: Firmware,
    ) -> Result<(), StoreError> {
        let put = move |txn: &WriteTransaction| {
            let mut table = txn.open_table(FIRMWARE)?;
            table.insert(machine.as_str(), json(&firmware).as_slice())?;
            Ok(())
        };
        self.submit(put).await.map(drop)
    }

    /// What the firmware of each machine said of itself.
    pub fn firmware(&self) -> Result<HashMap<String, Firmware>, StoreError> {
        let read = self.db.begin_read()?;
        let table = read.open_table(FIRMWARE)?;
        let mut found = HashMap::new();
        for row in table.iter()? {
            let (machine, firmware) = row?;
            // One that does not read back is told anew at the machine's next boot.
            if let Ok(firmware) = parse("firmware", firmware.value()) {
                found.insert(machine.value().to_string(), firmware);
            }
        }
        Ok(found)
    }

    /// Writes what a machine's set-up found. Queued in order; nobody need wait for it.
    pub async fn record_survey(&self, surveyed: Surveyed) -> Result<(), StoreError> {
        let put = move |txn: &WriteTransaction| {
            let mut table = txn.open_table(SURVEYS)?;
            table.insert(surveyed.machine.as_str(), json(&surveyed).as_slice())?;
            Ok(())
        };
        self.submit(put).await.map(drop)
    }

    /// What the last set-up of each machine found.
    pub fn surveys(&self) -> Result<HashMap<String, Surveyed>, StoreError> {
        let read = self.db.begin_read()?;
        let mut found = HashMap::new();
        for row in read.open_table(SURVEYS)?.iter()? {
            // One that does not read back is told anew by the next set-up.
            if let Ok(surveyed) = parse::<Surveyed>("surveys", row?.1.value()) {
                found.insert(surveyed.machine.clone(), surveyed);
            }
        }
        Ok(found)
    }

    /// Writes a machine's SSH host keys. Queued in order; nobody need wait for it.
    pub async fn record_host_keys(&self, keys: HostKeys) -> Result<(), StoreError> {
        let put = move |txn: &WriteTransaction| {
            let mut table = txn.open_table(HOST_KEYS)?;
            table.insert(keys.machine.as_str(), json(&keys).as_slice())?;
            Ok(())
        };
        self.submit(put).await.map(drop)
    }

    /// The SSH host keys of each machine that showed some.
    pub fn host_keys(&self) -> Result<HashMap<String, HostKeys>, StoreError> {
        let read = self.db.begin_read()?;
        let table = read.open_table(HOST_KEYS)?;
        let mut found = HashMap::new();
        for row in table.iter()? {
            // What does not read back is shown anew at the machine's next boot.
            if let Ok(keys) = parse::<HostKeys>("host-keys", row?.1.value()) {
                found.insert(keys.machine.clone(), keys);
            }
        }
        Ok(found)
    }

    /// Writes how a machine has done with versions of images. Queued in order; nobody need wait for it.
    pub async fn record_course(&self, machine: String, course: Course) -> Result<(), StoreError> {
        let put = move |txn: &WriteTransaction| {
            let mut table = txn.open_table(COURSES)?;
            match course.tries.is_empty() {
                true => table.remove(machine.as_str())?,
                false => table.insert(machine.as_str(), json(&course).as_slice())?,
            };
            Ok(())
        };
        self.submit(put).await.map(drop)
    }

    /// How each machine has done with versions of images.
    pub fn courses(&self) -> Result<HashMap<String, Course>, StoreError> {
        let read = self.db.begin_read()?;
        let mut found = HashMap::new();
        for row in read.open_table(COURSES)?.iter()? {
            let (machine, course) = row?;
            // One that does not read back is another version's making: failures are counted anew.
            if let Ok(course) = parse("courses", course.value()) {
                found.insert(machine.value().to_string(), course);
            }
        }
        Ok(found)
    }
}
