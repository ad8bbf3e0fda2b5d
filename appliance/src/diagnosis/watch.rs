//! The task that looks at the clock every few seconds: marks timelines that are late, lists machines
//! that have not come back, and tells both as events.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::late::{self, Now, late};
use super::power;
use super::silent::{self, Evidence, Gone, Silence};
use crate::app::App;
use crate::ledger::now_ms;
use crate::store::BootRecord;

const LOOK_EVERY: Duration = Duration::from_secs(5);
/// What was asked of a silent machine is asked again after this.
const ASK_AGAIN: u64 = 300_000;

/// Looks until cancelled.
pub async fn watch(app: Arc<App>, cancel: CancellationToken) -> anyhow::Result<()> {
    let mut look = tokio::time::interval(LOOK_EVERY);
    look.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Skip);
    let mut silent = Silent::default();
    loop {
        tokio::select! {
            () = cancel.cancelled() => return Ok(()),
            _ = look.tick() => {}
        }
        app.desk.settle(Instant::now());
        let now = now_ms();
        boots_late(&app, now).await;
        silent.look(&app, now).await;
    }
}

async fn boots_late(app: &App, now: u64) {
    let site = app.site.load();
    let class_of = |machine: &str| {
        let machine = site.machines.get(machine)?;
        machine.class.as_ref().map(|class| class.value.to_string())
    };
    let listening = app.ledger.began();
    let findings = app.ledger.look(|boots, heard, learned| {
        let typical = learned.typical(class_of);
        let now = Now { now, listening, learned, typical: &typical };
        late(&now, boots.values().map(|boot| (boot, of(heard, boot))), class_of)
    });
    for finding in &findings {
        app.ledger.is_late(finding, now).await;
    }
    for (who, text) in late::told(&findings) {
        app.ledger.event("stuck", who, text).await;
    }
}

fn of(heard: &HashMap<koboshi_pxe::Mac, u64>, boot: &BootRecord) -> u64 {
    heard.get(&boot.mac).copied().unwrap_or(boot.opened)
}

/// Machines that have not come back, and what is known of them.
#[derive(Default)]
struct Silent {
    known: HashMap<String, Known>,
    /// BMCs and power commands may hang: they are asked beside the clock, one round at a time.
    asking: Option<JoinHandle<HashMap<String, Evidence>>>,
}

struct Known {
    evidence: Evidence,
    asked: u64,
}

impl Silent {
    async fn look(&mut self, app: &App, now: u64) {
        let site = app.site.load();
        let listening = app.ledger.began();
        let (gone, all) = app.ledger.look(|boots, heard, learned| {
            let mut newest: HashMap<&str, &BootRecord> = HashMap::new();
            for boot in boots.values().filter(|boot| site.machines.contains_key(&*boot.machine)) {
                let newer = |known: &&BootRecord| known.order() < boot.order();
                if newest.get(boot.machine.as_str()).is_none_or(newer) {
                    newest.insert(&boot.machine, boot);
                }
            }
            let boots = newest.into_values().map(|boot| (boot, of(heard, boot)));
            silent::gone(now, listening, boots, learned)
        });
        let mut fresh = Vec::new();
        if self.asking.as_ref().is_some_and(JoinHandle::is_finished)
            && let Some(asked) = self.asking.take()
        {
            let asked = asked.await.unwrap_or_else(|error| {
                tracing::error!(%error, "asking for the power of silent machines");
                HashMap::new()
            });
            for (machine, evidence) in asked {
                if self.known.insert(machine.clone(), Known { evidence, asked: now }).is_none() {
                    fresh.push(machine);
                }
            }
        }
        let here =
            |name: &str| gone.binary_search_by(|gone| gone.machine.as_str().cmp(name)).is_ok();
        self.known.retain(|name, _| here(name));
        let listed: BTreeMap<String, Silence> = gone
            .iter()
            .map(|gone| {
                let evidence = self.known.get(&gone.machine).map(|known| known.evidence.clone());
                (gone.machine.clone(), Silence::of(gone, evidence))
            })
            .collect();
        fresh.sort();
        let fresh: Vec<(&str, &Silence)> =
            fresh.iter().filter_map(|name| Some((name.as_str(), listed.get(name)?))).collect();
        if !fresh.is_empty() {
            let (who, text) = silent::told(&fresh, all, now);
            app.ledger.event("silent", who, text).await;
        }
        app.silent.store(Arc::new(listed));
        if self.asking.is_none() {
            self.ask(app, gone, now);
        }
    }

    fn ask(&mut self, app: &App, gone: Vec<Gone>, now: u64) {
        let old = |gone: &Gone| {
            let known = self.known.get(&gone.machine);
            known.is_none_or(|known| now.saturating_sub(known.asked) > ASK_AGAIN)
        };
        let gone: Vec<Gone> = gone.into_iter().filter(old).collect();
        if gone.is_empty() {
            return;
        }
        let site = app.site.load();
        let switch = |gone: &Gone| {
            let (name, machine) = site.machines.get_key_value(&*gone.machine)?;
            let switch = app.bmcs.switch(name, machine)?.map_err(|failure| failure.error);
            Some((gone.machine.clone(), switch))
        };
        let switches = gone.iter().filter_map(switch).collect();
        self.asking = Some(tokio::spawn(async move { power::ask(&gone, switches).await }));
    }
}
