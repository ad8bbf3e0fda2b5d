//! What becomes of versions by how machines do with them: one on trial is for all when each of its machines
//! came up and stayed so, and for nobody once one of them failed; what all boot is taken back where it comes
//! up nowhere.

use std::time::{Duration, Instant};

use koboshi_images::{Track, Trial};
use koboshi_pxe::boots::Stage;
use serde::{Deserialize, Serialize};

use super::books::{Books, bound, since};

/// A machine on trial that is up and silent so long has not stayed up. Heartbeats come every 20 seconds.
const SILENT: Duration = Duration::from_secs(300);
/// Trouble is tried again by the machine itself; where that goes on for so long it is the version's.
const TROUBLE: Duration = Duration::from_secs(120);

/// What becomes of a version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verdict {
    /// The image.
    pub image: String,
    /// The version.
    pub version: u32,
    /// What.
    pub what: What,
    /// Why, in words.
    pub why: String,
}

/// What becomes of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum What {
    /// It was on trial, and is for all now.
    Promoted,
    /// It was on trial, and is for nobody.
    Withdrawn,
    /// Its trial is over, without a judgement: somebody has decided otherwise.
    Ended,
    /// All machines of the image go back from it to this one.
    TakenBack(u32),
}

/// How a machine does in a trial.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "is")]
pub enum Does {
    /// It has not booted the version yet.
    Waits,
    /// It is on its way: how far, for so many seconds.
    Boots {
        /// `switching`
        stage: String,
        /// Seconds.
        since: u64,
        /// Boots that failed before.
        failures: u32,
    },
    /// It is up, for so many seconds of those it has to be.
    Up {
        /// Seconds.
        lived: u64,
        /// Seconds.
        stay: u64,
    },
    /// It was up long enough.
    Stayed,
    /// It has failed.
    Failed {
        /// Why.
        why: String,
    },
}

impl Does {
    /// In words.
    pub fn says(&self) -> String {
        match self {
            Does::Waits => "has not booted it yet".to_string(),
            Does::Boots { stage, since, failures: 0 } => {
                format!("boots it: `{stage}` for {since} s")
            }
            Does::Boots { stage, since, failures } => {
                format!("boots it: `{stage}` for {since} s, after {failures} boots that failed")
            }
            Does::Up { lived, stay } => format!("is up with it, {lived} s of {stay} s"),
            Does::Stayed => "is up with it, and stayed so".to_string(),
            Does::Failed { why } => format!("failed with it: {why}"),
        }
    }
}

impl Books {
    /// What becomes of versions now.
    pub fn judge(&self, now: Instant) -> Vec<Verdict> {
        let tracks = self.tracks.iter();
        tracks
            .filter_map(|(image, track)| match &track.trial {
                Some((version, trial)) => self.of_trial(image, track, (*version, trial), now),
                None => self.of_current(image, track),
            })
            .collect()
    }

    /// How each machine of a trial does.
    pub fn does(&self, image: &str, now: Instant) -> Vec<(String, Does)> {
        let Some(track) = self.tracks.get(image) else { return Vec::new() };
        let Some((version, trial)) = &track.trial else { return Vec::new() };
        let does = |machine: &String| {
            (machine.clone(), self.machine(image, track, (*version, trial), machine, now))
        };
        trial.machines.iter().map(does).collect()
    }

    fn machine(
        &self,
        image: &str,
        track: &Track,
        (version, trial): (u32, &Trial),
        machine: &str,
        now: Instant,
    ) -> Does {
        let course = self.courses.get(machine);
        let failures = course.map_or(0, |c| c.failures(image, version, since(track, version)));
        if failures >= bound(self.limit_of(machine)) {
            let why = course.and_then(|course| course.of(image, version));
            let why = why.map(|one| one.why.clone()).unwrap_or_default();
            return Does::Failed { why: format!("{failures} boots, the last: {why}") };
        }
        let live = self.live.get(machine).filter(|live| live.is_of(image, version));
        let Some(live) = live else { return Does::Waits };
        let seconds = now.saturating_duration_since(live.since).as_secs();
        let failed = |why: String| Does::Failed { why };
        match live.stage {
            Stage::Rescue => failed(format!("a rescue shell: {}", live.note)),
            Stage::Trouble if now.saturating_duration_since(live.since) >= TROUBLE => {
                failed(format!("trouble for {seconds} s: {}", live.note))
            }
            Stage::Up => {
                let silent = now.saturating_duration_since(live.heard);
                let stay = Duration::from_secs(trial.stay);
                match (live.lived >= stay, silent >= SILENT) {
                    (true, _) => Does::Stayed,
                    (_, true) => {
                        let lived = live.lived.as_secs();
                        failed(format!("it came up and fell silent after {lived} s"))
                    }
                    _ => Does::Up { lived: live.lived.as_secs(), stay: trial.stay },
                }
            }
            stage => Does::Boots { stage: stage.as_str().to_string(), since: seconds, failures },
        }
    }

    fn of_trial(
        &self,
        image: &str,
        track: &Track,
        (version, trial): (u32, &Trial),
        now: Instant,
    ) -> Option<Verdict> {
        let verdict = |what, why| Some(Verdict { image: image.to_string(), version, what, why });
        let current = track.current.map(|(current, _)| current);
        if current == Some(version) {
            return verdict(What::Ended, "it was published for all by hand".to_string());
        }
        if current != trial.against {
            let now = current.map_or("nothing".to_string(), |now| format!("{image}@{now}"));
            let why =
                format!("somebody decided for {now} meanwhile; begin it anew if it is wanted");
            return verdict(What::Ended, why);
        }
        let all: Vec<(String, Does)> = self.does(image, now);
        let failed = all.iter().find_map(|(machine, does)| match does {
            Does::Failed { why } => Some(format!("on {machine}: {why}")),
            _ => None,
        });
        if let Some(why) = failed {
            return verdict(What::Withdrawn, why);
        }
        if all.is_empty() || all.iter().any(|(_, does)| *does != Does::Stayed) {
            return None;
        }
        let machines: Vec<&str> = all.iter().map(|(machine, _)| machine.as_str()).collect();
        let why = format!("{} came up and stayed so for {} s", machines.join(", "), trial.stay);
        verdict(What::Promoted, why)
    }

    /// What all boot is taken back where two machines gave it up, or one that is up with the former version
    /// since, and no machine has ever been up with it.
    fn of_current(&self, image: &str, track: &Track) -> Option<Verdict> {
        let (version, since) = track.current?;
        let former = track.former.filter(|former| track.versions.contains(former))?;
        let mut gave_up = Vec::new();
        let mut why = String::new();
        for (machine, course) in &self.courses {
            let Some(one) = course.of(image, version) else { continue };
            if one.up {
                return None;
            }
            let limit = self.limit_of(machine);
            if limit > 0 && course.failures(image, version, since) >= limit {
                gave_up.push(machine.as_str());
                why.clone_from(&one.why);
            }
        }
        if self.live.values().any(|live| live.up && live.is_of(image, version)) {
            return None;
        }
        gave_up.sort_unstable();
        let machines = gave_up.join(", ");
        let why = match gave_up.as_slice() {
            [] => return None,
            [machine] => {
                let recovered = self.live.get(*machine);
                recovered.filter(|live| live.up && live.is_of(image, former))?;
                let tries = self.live.values().any(|live| live.is_of(image, version));
                if tries {
                    return None;
                }
                format!("it failed on {machine}, where {image}@{former} comes up: {why}")
            }
            [..] => format!("it failed on {machines} and came up nowhere; the last: {why}"),
        };
        let what = What::TakenBack(former);
        Some(Verdict { image: image.to_string(), version, what, why })
    }
}

/// A verdict for the event log: its kind, and in words.
impl Verdict {
    /// `promoted`, `withdrawn`, `trial-ended`
    pub fn kind(&self) -> &'static str {
        match self.what {
            What::Promoted => "promoted",
            What::Withdrawn | What::TakenBack(_) => "withdrawn",
            What::Ended => "trial-ended",
        }
    }

    /// In words.
    pub fn says(&self) -> String {
        let Verdict { image, version, what, why } = self;
        match what {
            What::Promoted => format!("{image}@{version} is for all machines now: {why}"),
            What::Withdrawn => format!(
                "{image}@{version} is withdrawn, and its machines boot what all boot: {why}"
            ),
            What::Ended => format!("the trial of {image}@{version} is over: {why}"),
            What::TakenBack(to) => format!(
                "{image}@{version} is withdrawn, and all machines boot {image}@{to} again: {why}"
            ),
        }
    }
}
