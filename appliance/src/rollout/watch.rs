//! Carries out what the books say of versions: into the image store, the event log, and the site in force.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use koboshi_images::{By, Store as Images};
use tokio_util::sync::CancellationToken;

use super::{Verdict, What};
use crate::app::App;

/// After a failure: a disk that was full may have room.
const AGAIN: Duration = Duration::from_secs(60);
/// Who does it, for the log of images.
const US: &str = "koboshi";

/// Looks every second, until cancelled.
pub async fn run(app: Arc<App>, cancel: CancellationToken) -> anyhow::Result<()> {
    let mut look = tokio::time::interval(Duration::from_secs(1));
    look.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    // When a verdict could not be carried out.
    let mut failed: HashMap<(String, u32), Instant> = HashMap::new();
    while cancel.run_until_cancelled(look.tick()).await.is_some() {
        for verdict in app.rollout.judge() {
            let key = (verdict.image.clone(), verdict.version);
            if failed.get(&key).is_some_and(|at| at.elapsed() < AGAIN) {
                continue;
            }
            match carry_out(&app, &verdict).await {
                Ok(()) => {
                    failed.remove(&key);
                    app.ledger.event(verdict.kind(), None, verdict.says()).await;
                    // Before the next look: it would judge the same again.
                    app.republish().await;
                }
                Err(why) => {
                    let text = format!("{}; it could not be written: {why}", verdict.says());
                    tracing::error!("{text}");
                    if failed.insert(key, Instant::now()).is_none() {
                        app.ledger.event("rollout-failed", None, text).await;
                    }
                }
            }
        }
    }
    Ok(())
}

async fn carry_out(app: &App, verdict: &Verdict) -> Result<(), String> {
    let (dir, verdict) = (app.state.join("images"), verdict.clone());
    let done = tokio::task::spawn_blocking(move || {
        let Verdict { image, version, what, why } = verdict;
        let images = Images::open(dir)?;
        let by = By { author: Some(US.to_string()), reason: Some(why) };
        match what {
            What::Promoted => images.publish(&image, Some(version), &by).map(drop)?,
            What::Withdrawn => return images.withdraw(&image, version, &by),
            What::Ended => {}
            What::TakenBack(to) => {
                images.rollback(&image, Some(to), &by)?;
                return images.withdraw(&image, version, &by);
            }
        }
        images.end_trial(&image, &by)
    });
    done.await.map_err(|error| error.to_string())?.map_err(|error| error.to_string())
}
