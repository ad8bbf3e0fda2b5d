//! What is known of each machine from one boot to the next: what it is made of, what its firmware and its set-up
//! said, its host keys, how it has done with versions of images. Writes are queued in order; nobody need wait for them.

use std::collections::HashMap;

use koboshi_pxe::firmware::Firmware;
use redb::{ReadableDatabase, ReadableTable, TableDefinition, TableHandle, WriteTransaction};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::{
    COURSES, FIRMWARE, HARDWARE, HOST_KEYS, HostKeys, SURVEYS, Store, StoreError, json, parse,
};
use crate::hardware;
use crate::rollout::Course;
use crate::surveys::Surveyed;

/// By machine's name.
type Machines = TableDefinition<'static, &'static str, &'static [u8]>;

impl Store {
    /// Writes what a machine is made of.
    pub async fn record_hardware(&self, record: hardware::Record) -> Result<(), StoreError> {
        self.put_machine(HARDWARE, record.machine.clone(), &record).await
    }

    /// What every machine is made of.
    pub fn hardware(&self) -> Result<Vec<hardware::Record>, StoreError> {
        Ok(self.machines(HARDWARE)?.into_values().collect())
    }

    /// Writes what a machine's firmware says of itself.
    pub async fn record_firmware(
        &self,
        machine: String,
        firmware: Firmware,
    ) -> Result<(), StoreError> {
        self.put_machine(FIRMWARE, machine, &firmware).await
    }

    /// What the firmware of each machine said of itself.
    pub fn firmware(&self) -> Result<HashMap<String, Firmware>, StoreError> {
        self.machines(FIRMWARE)
    }

    /// Writes what a machine's set-up found.
    pub async fn record_survey(&self, surveyed: Surveyed) -> Result<(), StoreError> {
        self.put_machine(SURVEYS, surveyed.machine.clone(), &surveyed).await
    }

    /// What the last set-up of each machine found.
    pub fn surveys(&self) -> Result<HashMap<String, Surveyed>, StoreError> {
        self.machines(SURVEYS)
    }

    /// Writes a machine's SSH host keys.
    pub async fn record_host_keys(&self, keys: HostKeys) -> Result<(), StoreError> {
        self.put_machine(HOST_KEYS, keys.machine.clone(), &keys).await
    }

    /// The SSH host keys of each machine that showed some.
    pub fn host_keys(&self) -> Result<HashMap<String, HostKeys>, StoreError> {
        self.machines(HOST_KEYS)
    }

    /// Writes how a machine has done with versions of images; of one that has tried none, nothing is kept.
    pub async fn record_course(&self, machine: String, course: Course) -> Result<(), StoreError> {
        if !course.tries.is_empty() {
            return self.put_machine(COURSES, machine, &course).await;
        }
        let remove = move |txn: &WriteTransaction| {
            txn.open_table(COURSES)?.remove(machine.as_str())?;
            Ok(())
        };
        self.submit(remove).await.map(drop)
    }

    /// How each machine has done with versions of images.
    pub fn courses(&self) -> Result<HashMap<String, Course>, StoreError> {
        self.machines(COURSES)
    }

    async fn put_machine<T: Serialize>(
        &self,
        table: Machines,
        machine: String,
        record: &T,
    ) -> Result<(), StoreError> {
        let record = json(record);
        let put = move |txn: &WriteTransaction| {
            txn.open_table(table)?.insert(machine.as_str(), record.as_slice())?;
            Ok(())
        };
        self.submit(put).await.map(drop)
    }

    /// What does not read back was written by another version: it is told anew at the machine's next boot or set-up,
    /// and failures of versions are counted anew.
    fn machines<T: DeserializeOwned>(
        &self,
        table: Machines,
    ) -> Result<HashMap<String, T>, StoreError> {
        let read = self.db.begin_read()?;
        let mut found = HashMap::new();
        for row in read.open_table(table)?.iter()? {
            let (machine, record) = row?;
            match parse(table.name(), record.value()) {
                Ok(record) => drop(found.insert(machine.value().to_string(), record)),
                Err(error) => {
                    let machine = machine.value();
                    tracing::warn!(machine, %error, "what is known of a machine is forgotten");
                }
            }
        }
        Ok(found)
    }
}
