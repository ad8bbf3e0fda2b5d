//! What came of a storm, for people and for programs: percentiles of each stage, who asked again, who
//! failed, and what the server took.

use std::fmt::Write;
use std::time::Duration;

use serde::Serialize;

use crate::drive::Outcome;
use crate::log::{Log, Stage};
use crate::process::Usage;
use crate::siege::Siegework;

/// Points of a curve: as many as a plot has room for.
const POINTS: usize = 400;

/// Seconds by how many of a hundred.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub struct Percentiles {
    /// How many there are.
    pub count: usize,
    /// Half of them took no longer.
    pub p50: f64,
    /// Nine of ten.
    pub p90: f64,
    /// Ninety-nine of a hundred.
    pub p99: f64,
    /// The slowest.
    pub max: f64,
}

/// One stage of all machines.
#[derive(Debug, Clone, Serialize)]
pub struct Row {
    /// Which.
    pub stage: Stage,
    /// From the first question for it to having it.
    #[serde(flatten)]
    pub took: Percentiles,
    /// Questions asked again.
    pub again: u32,
    /// Of these, for the third time.
    pub third: u32,
    /// Bytes for one machine, of half of them no more.
    pub bytes: u64,
    /// Machines that had it, over time: seconds since the storm began, and how many.
    pub curve: Vec<(f64, usize)>,
}

/// See the module.
#[derive(Debug, Clone, Serialize)]
pub struct Summary {
    /// Whose storm: `koboshi`, or the peer's name.
    pub server: String,
    /// Machines.
    pub machines: usize,
    /// … that are up.
    pub up: usize,
    /// … that are not.
    pub failed: usize,
    /// … of a thousand.
    pub failed_per_thousand: f64,
    /// Why, each reason with how often.
    pub reasons: Vec<(String, usize)>,
    /// From the first machine's power to the last one that is up, seconds.
    pub makespan: f64,
    /// From its own power to up.
    pub boot: Percentiles,
    /// In the order of a boot.
    pub stages: Vec<Row>,
    /// Times machines were told that their turn had not come.
    pub turns: u32,
    /// The same, of the machine that was told most often.
    pub turns_most: u32,
    /// Reports that were not taken.
    pub unheard: u32,
    /// Times a machine's firmware had to begin again.
    pub rounds: u32,
    /// Datagrams that the weather took.
    pub lost: u64,
    /// Datagrams that the storm's own socket had no room for.
    pub unsent: u64,
    /// Bytes read over HTTP.
    pub bytes: u64,
    /// Questions over HTTP.
    pub asked: u64,
    /// What the server took; its memory is of the end, when all is quiet.
    pub usage: Usage,
    /// Processor seconds of the storm itself, on the same host.
    pub own_cpu: f64,
    /// What the enemy did, if there was one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub enemy: Option<Siegework>,
    /// What the appliance said of it.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub hostile: Vec<String>,
}

impl Summary {
    /// Sums up.
    pub fn new(server: &str, outcome: &Outcome, usage: Usage, own_cpu: f64) -> Summary {
        let logs = &outcome.logs;
        let ups: Vec<Duration> = logs.iter().filter_map(|log| log.of(Stage::Up).done).collect();
        let first = logs.iter().map(|log| log.on).min().unwrap_or_default();
        let last = ups.iter().max().copied().unwrap_or_default();
        let boots = logs.iter().filter_map(|log| Some(log.of(Stage::Up).done? - log.on));
        let sum = |of: fn(&Log) -> u32| logs.iter().map(of).sum();
        let (machines, up) = (logs.len(), ups.len());
        let failed = machines - up;
        Summary {
            server: server.to_string(),
            machines,
            up,
            failed,
            failed_per_thousand: failed as f64 * 1000.0 / machines.max(1) as f64,
            reasons: reasons(logs),
            makespan: last.saturating_sub(first).as_secs_f64(),
            boot: percentiles(boots.collect()),
            stages: Stage::ALL.into_iter().map(|stage| row(stage, logs)).collect(),
            turns: sum(|log| log.turns),
            turns_most: logs.iter().map(|log| log.turns).max().unwrap_or(0),
            unheard: sum(|log| log.unheard),
            rounds: sum(|log| log.rounds),
            lost: outcome.lost,
            unsent: outcome.unsent,
            bytes: outcome.bytes,
            asked: outcome.asked,
            usage,
            own_cpu,
            enemy: None,
            hostile: Vec::new(),
        }
    }

    /// For people.
    pub fn table(&self) -> String {
        let mut text = String::new();
        let _ = writeln!(
            text,
            "{}: {} of {} machines up, {:.1} of a thousand failed, makespan {:.1} s",
            self.server, self.up, self.machines, self.failed_per_thousand, self.makespan
        );
        let _ = writeln!(
            text,
            "{:<14}{:>8}{:>9}{:>9}{:>9}{:>9}{:>8}{:>8}{:>10}",
            "stage", "count", "p50 s", "p90 s", "p99 s", "max s", "again", "third", "KiB each"
        );
        let line = |name: &str, took: &Percentiles, more: &str| {
            format!(
                "{name:<14}{:>8}{:>9.3}{:>9.3}{:>9.3}{:>9.3}{more}\n",
                took.count, took.p50, took.p90, took.p99, took.max
            )
        };
        for row in &self.stages {
            let more = format!("{:>8}{:>8}{:>10}", row.again, row.third, row.bytes / 1024);
            text += &line(row.stage.as_str(), &row.took, &more);
        }
        text += &line("power to up", &self.boot, "");
        let mib = |bytes: u64| bytes as f64 / f64::from(1 << 20);
        let _ = writeln!(
            text,
            "told to wait {} times, one machine {} times; {} reports not taken; {} firmware rounds again",
            self.turns, self.turns_most, self.unheard, self.rounds
        );
        let _ = writeln!(
            text,
            "{} datagrams lost on purpose, {} for want of room; {} questions over HTTP, {:.0} MiB",
            self.lost,
            self.unsent,
            self.asked,
            mib(self.bytes)
        );
        let _ = writeln!(
            text,
            "the server took {:.1} CPU s, {:.0} MiB at the most, {:.0} MiB afterwards (the storm itself {:.1} CPU s)",
            self.usage.cpu,
            mib(self.usage.peak),
            mib(self.usage.memory),
            self.own_cpu
        );
        if let Some(enemy) = &self.enemy {
            let Siegework { frames, offers } = enemy;
            let _ = writeln!(
                text,
                "the enemy sent {frames} frames, and was offered {offers} addresses"
            );
        }
        for line in &self.hostile {
            let _ = writeln!(text, "  it says: {line}");
        }
        for (reason, count) in &self.reasons {
            let _ = writeln!(text, "  not up: {count} × {reason}");
        }
        text
    }
}

fn reasons(logs: &[Log]) -> Vec<(String, usize)> {
    let mut reasons: Vec<(String, usize)> = Vec::new();
    for log in logs.iter().filter(|log| log.of(Stage::Up).done.is_none()) {
        let last = Stage::ALL.iter().rev().find(|stage| log.of(**stage).done.is_some());
        let last = last.map_or("power", |stage| stage.as_str());
        let why = log.lost.as_deref().unwrap_or("the storm ended before it was");
        let reason = format!("after {last}: {why}");
        match reasons.iter_mut().find(|(known, _)| *known == reason) {
            Some((_, count)) => *count += 1,
            None => reasons.push((reason, 1)),
        }
    }
    reasons.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
    reasons.truncate(20);
    reasons
}

fn row(stage: Stage, logs: &[Log]) -> Row {
    let passed = || logs.iter().map(|log| log.of(stage));
    let took = passed().filter_map(|passed| Some(passed.done? - passed.begun?)).collect();
    let done = passed().filter_map(|passed| passed.done).collect();
    let mut bytes: Vec<u64> = passed().map(|passed| passed.bytes).filter(|all| *all > 0).collect();
    bytes.sort_unstable();
    Row {
        bytes: bytes.get(bytes.len() / 2).copied().unwrap_or(0),
        stage,
        took: percentiles(took),
        again: passed().map(|passed| passed.again).sum(),
        third: passed().map(|passed| passed.third).sum(),
        curve: curve(done),
    }
}

fn percentiles(mut spans: Vec<Duration>) -> Percentiles {
    spans.sort_unstable();
    let at = |share: usize| {
        let rank = (spans.len() * share).div_ceil(100).max(1) - 1;
        spans.get(rank).map_or(0.0, Duration::as_secs_f64)
    };
    Percentiles { count: spans.len(), p50: at(50), p90: at(90), p99: at(99), max: at(100) }
}

/// How many, over time.
pub(crate) fn curve(mut times: Vec<Duration>) -> Vec<(f64, usize)> {
    times.sort_unstable();
    let step = times.len().div_ceil(POINTS).max(1);
    let last = times.len().saturating_sub(1);
    let shown = times.iter().enumerate().filter(|(at, _)| at % step == 0 || *at == last);
    shown.map(|(at, time)| (time.as_secs_f64(), at + 1)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_ranks() {
        let spans = (1..=200).map(Duration::from_secs).collect();
        let found = percentiles(spans);
        assert_eq!((found.count, found.p50, found.p90, found.p99), (200, 100.0, 180.0, 198.0));
        assert_eq!(found.max, 200.0);
        assert_eq!(percentiles(vec![]), Percentiles::default());
        assert_eq!(percentiles(vec![Duration::from_secs(3)]).p50, 3.0);
    }

    #[test]
    fn curves_begin_at_the_first_and_end_at_the_last() {
        let found = curve((1..=10_000).map(Duration::from_millis).collect());
        assert!(found.len() <= POINTS + 1, "{}", found.len());
        assert_eq!((found[0], found.last()), ((0.001, 1), Some(&(10.0, 10_000))));
        assert!(curve(vec![]).is_empty());
    }

    #[test]
    fn who_is_not_up_is_told_why() {
        let mut logs = vec![Log::default(); 3];
        logs[0].done(Stage::Up, Duration::from_secs(9));
        logs[1].done(Stage::Kernel, Duration::from_secs(2));
        logs[1].lost = Some("its script gave up".into());
        let outcome = Outcome { logs, lost: 0, unsent: 0, bytes: 0, asked: 0 };
        let summary = Summary::new("koboshi", &outcome, Usage::default(), 0.0);
        assert_eq!((summary.up, summary.failed), (1, 2));
        let table = summary.table();
        assert!(table.contains("666.7 of a thousand failed"), "{table}");
        assert!(table.contains("1 × after kernel: its script gave up"), "{table}");
        assert!(table.contains("1 × after power: the storm ended before it was"), "{table}");
    }
}
