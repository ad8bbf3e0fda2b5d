//! A boot begins: what was before it is over, and its seat is written down before it is promised.

use std::sync::Arc;

use koboshi_pxe::boots::Stage;
use koboshi_pxe::{BootId, Mac};

use super::Ledger;
use crate::diagnosis::learned::Lesson;
use crate::store::{BootRecord, Holding};

impl Ledger {
    /// The firmware speaks: the last boot is over. What the machine held it holds until the desk says
    /// that it has left.
    pub(super) async fn opened(
        self: &Arc<Ledger>,
        mut record: BootRecord,
        holds: Option<String>,
        over: &[(BootId, Mac)],
    ) {
        let (mut ended, mut strangers) = (Vec::new(), Vec::new());
        {
            let mut inner = self.inner();
            for (id, mac) in over {
                inner.ids.remove(id);
                inner.reports.remove(id);
                let Some(last) = inner.boots.get_mut(mac).filter(|last| last.id == *id) else {
                    continue;
                };
                last.over = true;
                // A stranger whose address another machine has now: it is forgotten, or random
                // MACs would fill the disk.
                if *mac != record.mac && last.machine == mac.to_string() {
                    let stranger = last.machine.clone();
                    inner.boots.remove(mac);
                    inner.heard.remove(mac);
                    inner.hardware.remove(&stranger);
                    inner.evidence.remove(&stranger);
                    self.rollout.gone(&stranger);
                    strangers.push(stranger);
                } else {
                    ended.push(last.clone());
                }
            }
            // How long its restart took, if we were there when it was last heard of.
            let ran = inner.boots.get(&record.mac).is_some_and(|last| last.stage >= Stage::Init);
            let last = inner.heard.get(&record.mac).copied();
            let last = last.filter(|last| ran && *last >= inner.began);
            record.after = last.map(|last| record.opened.saturating_sub(last));
            if let Some(lesson) = Lesson::of_opened(&record) {
                inner.learned.learn(lesson);
            }
            record.order = inner.next(record.opened);
            inner.heard.insert(record.mac, record.opened);
            inner.ids.insert(record.id, record.mac);
            inner.boots.insert(record.mac, record.clone());
        }
        let holds = holds.map(|seat| Holding {
            seat,
            machine: record.machine.clone(),
            boot: record.id,
            epoch: 0,
            at: Some((record.mac, record.address)),
            since: record.opened,
        });
        let machine = record.machine.clone();
        self.keep(self.rollout.opened(&record)).await;
        match self.store.open_boot(record, ended, strangers, holds).await {
            Ok(held) => {
                let ledger = self.clone();
                tokio::spawn(async move {
                    // The desk gives no seat away that another machine has; were the two ever to
                    // disagree, this is where it shows.
                    if let Ok(Some(held)) = held.await
                        && held.machine != machine
                    {
                        let text = format!(
                            "was promised {}, which {} holds by the books",
                            held.seat, held.machine
                        );
                        ledger.event("conflict", Some(machine), text).await;
                    }
                });
            }
            Err(error) => self.failed(&error),
        }
    }
}
