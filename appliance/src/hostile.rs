//! What looks as if somebody on the wire meant harm: what the desk does not see itself is read off the counters
//! of TFTP, HTTP and syslog once a second. Each kind is an event once in ten minutes, and a line of `koboshi status`
//! and `koboshi explain` as long as it goes on. (`docs/hostile.md`)

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use koboshi_pxe::hostile::{Harm, Trouble};
use tokio_util::sync::CancellationToken;

use crate::app::App;
use crate::ledger::now_ms;
use crate::ops::table::ago;

/// How often the counters are read.
const LOOK: Duration = Duration::from_secs(1);

/// Counters that only rise when something is wrong, and what that is.
struct Watched<'a> {
    harm: Harm,
    counters: Vec<&'a AtomicU64>,
    says: &'static str,
    seen: u64,
}

impl Watched<'_> {
    fn more(&mut self) -> u64 {
        let now: u64 = self.counters.iter().map(|counter| counter.load(Ordering::Relaxed)).sum();
        now.saturating_sub(std::mem::replace(&mut self.seen, now))
    }
}

/// Watches until cancelled.
///
/// # Errors
/// None.
pub async fn watch(app: Arc<App>, cancel: CancellationToken) -> anyhow::Result<()> {
    let (tftp, http) = (app.counters.tftp.clone(), app.counters.http.clone());
    let mut all = [
        Watched {
            harm: Harm::Tftp,
            counters: vec![&tftp.unheard, &tftp.displaced, &tftp.overload],
            says: "requests by TFTP are not answered: their sources acknowledge nothing (the addresses may be \
                   invented, to bury somebody under answers), or there are more than can be served",
            seen: 0,
        },
        Watched {
            harm: Harm::Http,
            counters: vec![&http.crowded, &http.displaced],
            says: "connections over HTTP are closed: they ask nothing while others come, or one address has \
                   more than 256 (ss -tn state established says who)",
            seen: 0,
        },
    ];
    while cancel.run_until_cancelled(tokio::time::sleep(LOOK)).await.is_some() {
        for watched in &mut all {
            let more = watched.more();
            if more > 0 && app.desk.hostile.seen(watched.harm, more, watched.says, Instant::now()) {
                let kind = watched.harm.as_str();
                app.ledger.event(kind, None, watched.says.to_string()).await;
            }
        }
    }
    Ok(())
}

/// One trouble, in a line.
pub fn line(trouble: &Trouble) -> String {
    let Trouble { kind, text, count, since, last } = trouble;
    let now = now_ms();
    let ago = |at: u64| ago(now.saturating_sub(at));
    format!(
        "hostile wire, {}: {text} ({count} times since {} ago, last {} ago)",
        kind.as_str(),
        ago(*since),
        ago(*last)
    )
}

/// For a terminal: nothing where nothing goes on.
pub fn show(troubles: &[Trouble]) -> String {
    let lines: String = troubles.iter().map(|one| format!("WARNING: {}\n", line(one))).collect();
    if lines.is_empty() { lines } else { format!("\n{lines}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_trouble_is_a_line_and_peace_is_none() {
        assert_eq!(show(&[]), "");
        let (since, last) = (now_ms() - 120_000, now_ms());
        let text = "too many".to_string();
        let trouble = Trouble { kind: Harm::Strangers, text, count: 7, since, last };
        let shown = show(&[trouble]);
        assert!(
            shown.starts_with("\nWARNING: hostile wire, strangers: too many (7 times since 2 min"),
            "{shown}"
        );
    }
}
