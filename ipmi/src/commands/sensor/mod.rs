//! Sensors: what they read now, in units, and what that means (IPMI §35). [`read_all`] asks for every sensor
//! that the records tell of.

pub mod convert;
pub mod raw;
mod read;
pub mod units;
pub mod words;

use std::borrow::Cow;

use serde::Serialize;

pub use self::raw::Raw;
pub use self::read::{Options, read_all};
pub use self::words::Severity;
use super::sdr::Entity;

/// What becomes of a sensor.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum State {
    /// Within its thresholds; a discrete one says nothing bad.
    Ok,
    /// Beyond a non-critical threshold, or a discrete state to look at.
    NonCritical,
    /// Beyond a critical threshold, or a discrete state that is bad.
    Critical,
    /// Beyond a non-recoverable threshold.
    NonRecoverable,
    /// The controller says that there is no such sensor now: an empty slot, a fan that is not fitted.
    NotPresent,
    /// It is there and has no reading now (an update is in progress, the host is off).
    Unavailable,
    /// Scanning is switched off.
    ScanningDisabled,
    /// It has events alone, never a reading.
    EventOnly,
    /// Another controller has it, and nobody asked that one.
    Elsewhere,
    /// It could not be asked.
    Failed,
}

impl State {
    /// Whether it has a reading.
    pub fn is_read(self) -> bool {
        self <= State::NonRecoverable
    }
}

impl From<Severity> for State {
    fn from(severity: Severity) -> State {
        match severity {
            Severity::Ok => State::Ok,
            Severity::NonCritical => State::NonCritical,
            Severity::Critical => State::Critical,
            Severity::NonRecoverable => State::NonRecoverable,
        }
    }
}

/// Thresholds in the sensor's unit; those that it does not have are missing.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Thresholds {
    /// At or below it: to look at.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lower_non_critical: Option<f64>,
    /// At or below it: bad.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lower_critical: Option<f64>,
    /// At or below it: beyond repair.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lower_non_recoverable: Option<f64>,
    /// At or above it: to look at.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub upper_non_critical: Option<f64>,
    /// At or above it: bad.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub upper_critical: Option<f64>,
    /// At or above it: beyond repair.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub upper_non_recoverable: Option<f64>,
}

/// A sensor and what it says.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Reading {
    /// Its name.
    pub name: String,
    /// Its number with its owner.
    pub number: u8,
    /// What it is a part of.
    pub entity: Entity,
    /// What it senses: `temperature`, `fan`, `power supply`.
    pub kind: Cow<'static, str>,
    /// The reading, where it is a number.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub value: Option<f64>,
    /// What the number counts.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub unit: String,
    /// What it means.
    pub state: State,
    /// A discrete sensor's states in words.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub words: Vec<Cow<'static, str>>,
    /// Its thresholds.
    pub thresholds: Thresholds,
    /// What else there is to say.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
    /// Decimal places of the value.
    #[serde(skip)]
    pub places: usize,
}

impl Reading {
    /// `45 °C`, `present, failure detected`, or nothing where there is no reading.
    pub fn shown(&self) -> String {
        let words = self.words.join(", ");
        let number = self.value.map(|value| self.number_shown(value));
        match (number, words.is_empty()) {
            (Some(number), true) => number,
            (Some(number), false) => format!("{number}, {words}"),
            (None, _) => words,
        }
    }

    /// A value of this sensor (a threshold, say) with its unit.
    pub fn number_shown(&self, value: f64) -> String {
        number_shown(value, self.places, &self.unit)
    }
}

pub(crate) fn number_shown(value: f64, places: usize, unit: &str) -> String {
    let blank = if unit.is_empty() || unit == "%" { "" } else { " " };
    format!("{value:.places$}{blank}{unit}")
}
