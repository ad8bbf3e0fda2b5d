//! `koboshi sensors m[01-40] --kind fan`: what machines' sensors read, and what that means.

use koboshi_ipmi::commands::sensor::words::sensor_type;
use koboshi_ipmi::commands::sensor::{self, Options, Reading, State};
use koboshi_ipmi::commands::{dcmi, sdr};
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::many::{Failure, On, Operation, Said};

/// Sensor types that have a name (IPMI 2.0 table 42-3).
const NAMED: std::ops::RangeInclusive<u8> = 1..=0x2c;

/// What is asked.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Query {
    /// Only these: `fan`, `temperature`, `voltage`, `power-supply`.
    #[serde(default)]
    pub kind: Option<String>,
    /// Also those that have no reading, and those of controllers behind the BMC.
    #[serde(default)]
    pub all: bool,
    /// Ask for the thresholds in force.
    #[serde(default)]
    pub thresholds: bool,
}

impl Query {
    fn is_wanted(&self, reading: &Reading) -> bool {
        let kind = self.kind.as_ref().is_none_or(|kind| same(kind, &reading.kind));
        kind && (self.all || reading.state.is_read() || reading.state == State::Failed)
    }
}

/// `power-supply` is `Power Supply`, and `temp` is no other than temperature.
fn same(asked: &str, kind: &str) -> bool {
    let plain = |text: &str| text.to_lowercase().replace([' ', '_', '/'], "-");
    plain(kind).starts_with(&plain(asked))
}

fn word(state: State) -> &'static str {
    match state {
        State::Ok => "ok",
        State::NonCritical => "non-critical",
        State::Critical => "critical",
        State::NonRecoverable => "non-recoverable",
        State::NotPresent => "not present",
        State::Unavailable => "unavailable",
        State::ScanningDisabled => "not scanned",
        State::EventOnly => "events only",
        State::Elsewhere => "elsewhere",
        State::Failed => "failed",
    }
}

fn note(reading: &Reading) -> String {
    let thresholds = &reading.thresholds;
    let limits = [
        ("below", thresholds.lower_critical.or(thresholds.lower_non_critical)),
        ("above", thresholds.upper_critical.or(thresholds.upper_non_critical)),
    ];
    let mut notes: Vec<String> = reading.note.iter().cloned().collect();
    if matches!(reading.state, State::NonCritical | State::Critical | State::NonRecoverable) {
        let limits = limits.into_iter().filter_map(|(way, limit)| Some((way, limit?)));
        notes.extend(
            limits.map(|(way, limit)| format!("bad {way} {}", reading.number_shown(limit))),
        );
    }
    notes.join(", ")
}

impl Operation for Query {
    const NAME: &'static str = "sensors";

    fn headings(&self) -> &'static [&'static str] {
        &["SENSOR          ", "READING    ", "STATE       ", "NOTE"]
    }

    fn check(&self, _machines: usize) -> Result<(), String> {
        let Some(kind) = &self.kind else { return Ok(()) };
        let mut kinds: Vec<&str> = NAMED.map(sensor_type).collect();
        if kinds.iter().any(|known| same(kind, known)) {
            return Ok(());
        }
        kinds.sort_unstable();
        Err(format!("no kind of sensor is called {kind:?}: {}", kinds.join(", ")))
    }

    async fn run(&self, on: &On) -> Result<Said, Failure> {
        let bmc = on.bmc()?;
        let repository = sdr::load(&bmc, on.records().as_ref()).await?;
        let quirks = bmc.bmc().access().quirks;
        let (thresholds, satellites) = (self.thresholds, self.all);
        let options = Options { thresholds, satellites, ..Options::of(quirks) };
        let mut readings = sensor::read_all(&bmc, &repository, options).await?;
        readings.retain(|reading| self.is_wanted(reading));
        let taken = match self.kind.as_deref().is_some_and(|kind| kind.starts_with("power")) {
            true => dcmi::power(&bmc).await.ok(),
            false => None,
        };
        let read = readings.iter().map(|reading| reading.state).filter(|state| state.is_read());
        let worst = read.max().map_or("none", word);
        let cells = readings.iter().map(|reading| {
            vec![
                reading.name.clone(),
                reading.shown(),
                word(reading.state).to_string(),
                note(reading),
            ]
        });
        let mut cells: Vec<Vec<String>> = cells.collect();
        cells.extend(taken.map(|taken| {
            let note =
                format!("{} to {} W, {} W on average", taken.minimum, taken.maximum, taken.average);
            vec![
                "(whole machine)".to_string(),
                format!("{} W", taken.current),
                "ok".to_string(),
                note,
            ]
        }));
        if !repository.complete {
            let note = |note: &String| vec!["-".into(), String::new(), String::new(), note.clone()];
            cells.extend(repository.notes.iter().map(note));
        }
        let data = json!({ "sensors": readings, "worst": worst, "notes": repository.notes, "taken": taken });
        Ok(Said { word: worst.to_string(), cells, data })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_are_found_by_the_beginning_of_their_names() {
        let query = |kind: &str| Query { kind: Some(kind.into()), all: false, thresholds: false };
        for kind in ["fan", "temp", "Temperature", "voltage", "power-supply"] {
            assert_eq!(query(kind).check(1), Ok(()), "{kind}");
        }
        assert!(query("smell").check(1).unwrap_err().contains("temperature"));
    }
}
