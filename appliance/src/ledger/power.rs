//! What somebody here did to a machine's power: a line of its timeline, so that nobody looks for the cause
//! of a silence that was asked for.

use super::{Ledger, now_ms, push};
use crate::store::{Mark, Switched};

impl Ledger {
    /// Somebody here may have restarted the machine by another road: that its boot ends is no failure of its
    /// image.
    pub fn restarted(&self, machine: &str) {
        self.rollout.ordered(machine);
    }

    /// Writes it into the timeline of the machine's newest boot, if it has one.
    pub async fn switched(&self, machine: &str, power: Switched, note: &str) {
        let record = {
            let mut inner = self.inner();
            let boots = inner.boots.values_mut().filter(|boot| boot.machine == machine);
            let Some(boot) = boots.max_by_key(|boot| boot.order()) else { return };
            self.rollout.ordered(machine);
            let (stage, note) = (boot.stage, note.to_string());
            push(
                boot,
                Mark { at: now_ms(), stage, note, late: None, power: Some(power), console: None },
            );
            boot.clone()
        };
        if let Err(error) = self.store.record_boot(record).await {
            self.failed(&error);
        }
    }
}
