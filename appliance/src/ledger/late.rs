//! Boots that go no further, and how long things take when they do.

use std::collections::HashMap;

use koboshi_pxe::Mac;

use super::{Ledger, push};
use crate::diagnosis::Learned;
use crate::diagnosis::late::Finding;
use crate::diagnosis::learned::Lesson;
use crate::store::{BootRecord, Mark};

impl Ledger {
    /// The boots, when each machine was last heard of, and how long things take, to be looked at.
    pub fn look<T>(
        &self,
        see: impl FnOnce(&HashMap<Mac, BootRecord>, &HashMap<Mac, u64>, &Learned) -> T,
    ) -> T {
        let inner = self.inner();
        see(&inner.boots, &inner.heard, &inner.learned)
    }

    /// A boot went no further for too long: a line in its timeline, unless it has moved meanwhile.
    pub async fn is_late(&self, finding: &Finding, at: u64) {
        let record = {
            let mut inner = self.inner();
            let Some(mac) = inner.ids.get(&finding.id).copied() else { return };
            let Some(record) = inner.boots.get_mut(&mac) else { return };
            if record.stage != finding.stage {
                return;
            }
            let (note, late) =
                (finding.cause.seen.clone(), Some(Box::new(finding.cause.late.clone())));
            push(record, Mark { at, stage: finding.stage, note, late, power: None, console: None });
            record.clone()
        };
        if let Err(error) = self.store.record_boot(record).await {
            self.failed(&error);
        }
    }

    /// A machine is up: how long each step took it.
    pub(super) fn learn(&self, mac: Mac) {
        let mut inner = self.inner();
        if let Some(lesson) = inner.boots.get(&mac).and_then(Lesson::of_up) {
            inner.learned.learn(lesson);
        }
    }
}
