//! What is known of a machine beside its boots: its firmware, what it is made of, what its set-up found.

use std::collections::HashMap;
use std::sync::atomic::Ordering;

use koboshi_pxe::firmware::Firmware;

use super::Ledger;
use crate::hardware::Record;
use crate::surveys::Surveyed;

impl Ledger {
    /// What a machine's firmware said of itself when it last booted by the network.
    pub fn firmware(&self, machine: &str) -> Option<Firmware> {
        self.inner().firmware.get(machine).copied()
    }

    pub(super) async fn firmware_told(&self, machine: &str, told: Firmware) {
        let told = {
            let mut inner = self.inner();
            let last = inner.firmware.get(machine).copied();
            let told = told.after(last);
            if last == Some(told) {
                return;
            }
            inner.firmware.insert(machine.to_string(), told);
            told
        };
        if let Err(error) = self.store.record_firmware(machine.to_string(), told).await {
            self.failed(&error);
        }
    }

    /// What each machine is made of, by name or, for one that the site does not know, by MAC.
    pub fn hardware(&self) -> HashMap<String, Record> {
        self.inner().hardware.clone()
    }

    /// What a machine's last set-up found.
    pub fn survey(&self, machine: &str) -> Option<Surveyed> {
        self.inner().surveys.get(machine).cloned()
    }

    /// Counts changes of that.
    pub fn hardware_changes(&self) -> u64 {
        self.changes.load(Ordering::Relaxed)
    }

    /// Replaces what is known of a machine's hardware, by an operator's word.
    pub async fn take_on(&self, record: Record) {
        self.inner().hardware.insert(record.machine.clone(), record.clone());
        self.changes.fetch_add(1, Ordering::Relaxed);
        if let Err(error) = self.store.record_hardware(record).await {
            self.failed(&error);
        }
    }
}
