//! What became of a machine's boots with each version of an image: how many failed, one after another,
//! and whether it was ever up with it. Kept over restarts, bounded, without a clock.
//!
//! A boot has failed if its kernel was fetched and the machine was back at its firmware, or in a rescue
//! shell, without ever having been up. A restart that was asked for here proves nothing.

use std::time::{Duration, Instant};

use koboshi_pxe::BootId;
use koboshi_pxe::boots::{Plan, Stage};
use koboshi_pxe::desk::said::TYPED;
use serde::{Deserialize, Serialize};

use crate::store::BootRecord;

/// Versions that are remembered of one machine.
pub const TRIES_MAX: usize = 16;
/// Heartbeats come every 20 seconds: three that are missed are no proof of life.
const HEARTBEATS: Duration = Duration::from_secs(70);

/// What is remembered of one machine.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Course {
    /// A version each, the oldest first.
    pub tries: Vec<Try>,
}

/// What became of a machine's boots with one version.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Try {
    /// Image name.
    pub image: String,
    /// Its version.
    pub version: u32,
    /// Boots that failed since it was last up with it.
    pub failures: u32,
    /// When the last of them did, Unix milliseconds.
    pub failed: u64,
    /// Why, in words.
    pub why: String,
    /// It has been up with it.
    pub up: bool,
}

impl Course {
    /// How a version has done.
    pub fn of(&self, image: &str, version: u32) -> Option<&Try> {
        self.tries.iter().find(|one| one.image == image && one.version == version)
    }

    /// Boots with a version that failed one after another, none of them before `since` (Unix milliseconds):
    /// a version that is published anew begins anew.
    pub fn failures(&self, image: &str, version: u32, since: u64) -> u32 {
        self.of(image, version).filter(|one| one.failed >= since).map_or(0, |one| one.failures)
    }

    /// A boot failed. Returns how many have by now, one after another.
    pub fn fails(&mut self, image: &str, version: u32, why: &str, at: u64, since: u64) -> u32 {
        let one = self.entry(image, version);
        if one.failed < since {
            one.failures = 0;
        }
        one.failures = one.failures.saturating_add(1);
        one.failed = at;
        one.why = why.to_string();
        one.failures
    }

    /// It is up. Returns whether that is news worth keeping.
    pub fn comes_up(&mut self, image: &str, version: u32) -> bool {
        let one = self.entry(image, version);
        let news = !one.up || one.failures > 0;
        one.up = true;
        one.failures = 0;
        news
    }

    /// Forgets how an image's versions have done, but for those that are to be kept. Returns whether
    /// anything was forgotten.
    pub fn keep(&mut self, image: &str, keep: impl Fn(u32) -> bool) -> bool {
        let before = self.tries.len();
        self.tries.retain(|one| one.image != image || keep(one.version));
        self.tries.len() != before
    }

    fn entry(&mut self, image: &str, version: u32) -> &mut Try {
        let at = self.tries.iter().position(|one| one.image == image && one.version == version);
        let one = match at {
            Some(at) => self.tries.remove(at),
            None => Try {
                image: image.to_string(),
                version,
                failures: 0,
                failed: 0,
                why: String::new(),
                up: false,
            },
        };
        if self.tries.len() >= TRIES_MAX {
            self.tries.remove(0);
        }
        self.tries.push(one);
        let last = self.tries.len() - 1;
        &mut self.tries[last]
    }
}

/// A machine's boot under way, as far as it tells a good version from a bad one.
#[derive(Debug, Clone)]
pub struct Live {
    /// Its id.
    pub boot: BootId,
    /// The version it was promised, if it was promised one.
    pub image: Option<(String, u32)>,
    /// Its role.
    pub role: String,
    /// How far it is.
    pub stage: Stage,
    /// The kernel was fetched: from here on the version has a part in what happens.
    fetched: bool,
    /// It has been up.
    pub up: bool,
    /// How long it has been up, as far as its heartbeats prove it.
    pub lived: Duration,
    /// When it was last heard of.
    pub heard: Instant,
    /// When it went to the stage where it is.
    pub since: Instant,
    /// What it last said of it.
    pub note: String,
    /// Somebody here restarts it, or has switched it off.
    ordered: bool,
    /// Its failure has been counted.
    pub counted: bool,
}

impl Live {
    /// A boot that begins. `image`: `web@3`, as its plan names it.
    pub fn begin(boot: BootId, image: Option<&str>, role: &str, now: Instant) -> Live {
        Live {
            boot,
            image: image.and_then(parts),
            role: role.to_string(),
            stage: Stage::Offer,
            fetched: false,
            up: false,
            lived: Duration::ZERO,
            heard: now,
            since: now,
            note: String::new(),
            ordered: false,
            counted: false,
        }
    }

    /// The same of one that was under way when the appliance ended. How long it has been up has to be heard
    /// anew.
    pub fn restored(record: &BootRecord, now: Instant) -> Live {
        let plan = promised(record);
        let (image, role) = (plan.map(|plan| &*plan.image), plan.map_or("", |plan| &plan.role));
        let mut live = Live::begin(record.id, image, role, now);
        for mark in &record.marks {
            if mark.power.is_some() || is_typed(&mark.note) {
                live.is_ordered();
            }
            if mark.is_sign() {
                live.reaches(mark.stage, &mark.note, now);
                live.counted |= mark.stage == Stage::Rescue;
            }
        }
        live.reaches(record.stage, &live.note.clone(), now);
        live.lived = Duration::ZERO;
        if record.fenced || record.over {
            live.is_ordered();
        }
        live
    }

    /// Whether it is a boot of this version.
    pub fn is_of(&self, image: &str, version: u32) -> bool {
        self.image.as_ref().is_some_and(|(name, number)| name == image && *number == version)
    }

    /// It is so far. Returns whether it is up now, and was not before.
    pub fn reaches(&mut self, stage: Stage, note: &str, now: Instant) -> bool {
        if stage != self.stage {
            self.since = now;
        }
        self.hears(now);
        self.stage = stage;
        self.note = note.to_string();
        self.fetched |= stage >= Stage::Kernel;
        let up = stage == Stage::Up && !self.up;
        self.up |= up;
        up
    }

    /// A sign of life. A gap counts as far as heartbeats may be apart, and no further: what was not heard
    /// of is not proven, and a clock that is set proves nothing.
    pub fn hears(&mut self, now: Instant) {
        let gap = now.saturating_duration_since(self.heard);
        if self.stage == Stage::Up {
            self.lived += gap.min(HEARTBEATS);
        }
        self.heard = self.heard.max(now);
    }

    /// Somebody here switches it off, restarts it, or has its console: what ends it is no failure.
    pub fn is_ordered(&mut self) {
        self.ordered = true;
    }

    /// Why this boot would have failed if the machine were at its firmware now, if it would. `stay`: it also
    /// had to stay up so long.
    pub fn failure(&self, stay: Option<Duration>) -> Option<String> {
        if self.counted || self.ordered || !self.fetched || self.image.is_none() {
            return None;
        }
        if self.up {
            let short = stay.is_some_and(|stay| self.lived < stay);
            let seconds = self.lived.as_secs();
            return short.then(|| format!("it came up and was gone after {seconds} s"));
        }
        let said = if self.note.is_empty() { String::new() } else { format!(" ({})", self.note) };
        Some(format!(
            "it started anew after `{}`{said}, without having been up",
            self.stage.as_str()
        ))
    }
}

/// What a boot was promised. An order's image is nobody's version: it comes and goes with the order.
pub fn promised(record: &BootRecord) -> Option<&Plan> {
    record.plan.as_deref().filter(|plan| plan.ticket.is_none())
}

/// Whether a line of a timeline says that somebody at the machine's console chose, which starts it anew.
pub fn is_typed(note: &str) -> bool {
    note.ends_with(TYPED)
}

/// `web@3` as its parts.
pub fn parts(reference: &str) -> Option<(String, u32)> {
    let (name, version) = reference.rsplit_once('@')?;
    Some((name.to_string(), version.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_count_one_after_another_and_begin_anew() {
        let mut course = Course::default();
        assert_eq!(course.fails("web", 4, "x", 100, 50), 1);
        assert_eq!(course.fails("web", 4, "y", 110, 50), 2);
        assert_eq!(course.failures("web", 4, 50), 2);
        assert_eq!(course.of("web", 4).unwrap().why, "y");
        // Published anew since: what was before is not held against it.
        assert_eq!(course.failures("web", 4, 200), 0);
        assert_eq!(course.fails("web", 4, "z", 210, 200), 1);
        assert!(course.comes_up("web", 4) && !course.comes_up("web", 4));
        assert_eq!(course.failures("web", 4, 0), 0);
        assert!(course.of("web", 4).unwrap().up);
        assert_eq!(course.fails("web", 4, "z", 220, 200), 1);
        assert!(course.of("web", 4).unwrap().up, "it has been up all the same");
        assert!(course.comes_up("web", 4), "that it recovered is news");
    }

    #[test]
    fn what_is_remembered_is_bounded_and_goes_with_its_version() {
        let mut course = Course::default();
        for version in 1..200 {
            course.fails("web", version, "x", 1, 0);
        }
        assert_eq!(course.tries.len(), TRIES_MAX);
        assert_eq!((course.failures("web", 199, 0), course.failures("web", 1, 0)), (1, 0));
        course.fails("db", 1, "x", 1, 0);
        assert!(course.keep("web", |version| version == 199));
        assert_eq!(course.tries.len(), 2);
        assert!(!course.keep("web", |version| version == 199));
    }

    fn live(stages: &[Stage]) -> Live {
        let now = Instant::now();
        let mut live = Live::begin(BootId([1; 16]), Some("web@4"), "web", now);
        for stage in stages {
            live.reaches(*stage, "", now);
        }
        live
    }

    #[test]
    fn a_boot_fails_that_had_its_kernel_and_was_never_up() {
        for (stages, fails) in [
            (&[][..], false),
            // Its loader did not get far: no version had a part in that.
            (&[Stage::Ack, Stage::Script, Stage::Waiting, Stage::Script], false),
            (&[Stage::Kernel], true),
            (&[Stage::Kernel, Stage::Init, Stage::Switching], true),
            (&[Stage::Kernel, Stage::Init, Stage::Trouble], true),
            (&[Stage::Kernel, Stage::Switching, Stage::Up], false),
            (&[Stage::Kernel, Stage::Switching, Stage::Up, Stage::Down], false),
            (&[Stage::Kernel, Stage::Switching, Stage::Down], true),
        ] {
            assert_eq!(live(stages).failure(None).is_some(), fails, "{stages:?}");
        }
        let mut ordered = live(&[Stage::Kernel]);
        ordered.is_ordered();
        assert_eq!(ordered.failure(None), None);
        let now = Instant::now();
        let mut nothing = Live::begin(BootId([1; 16]), None, "", now);
        nothing.reaches(Stage::Kernel, "", now);
        assert_eq!(nothing.failure(None), None, "it was promised nothing");
    }

    #[test]
    fn only_what_was_heard_counts_as_life() {
        let s = Duration::from_secs;
        let now = Instant::now();
        let mut live = Live::begin(BootId([1; 16]), Some("web@4"), "web", now);
        live.reaches(Stage::Kernel, "", now);
        assert!(live.reaches(Stage::Up, "systemd running", now + s(30)));
        assert_eq!(live.lived, s(0), "the way up is no life");
        live.hears(now + s(50));
        live.hears(now + s(40));
        assert_eq!(live.lived, s(20), "late news take nothing back");
        // An hour of silence, then a heartbeat.
        live.hears(now + s(3650));
        assert_eq!(live.lived, s(20) + HEARTBEATS);
        let why = live.failure(Some(s(600))).unwrap();
        assert_eq!(why, "it came up and was gone after 90 s");
        assert_eq!(live.failure(Some(s(90))), None);
        assert_eq!(live.failure(None), None);
        assert!(!live.reaches(Stage::Up, "", now + s(3660)), "it was up before");
    }

    #[test]
    fn references_come_apart() {
        assert_eq!(parts("web@3"), Some(("web".to_string(), 3)));
        assert_eq!(parts("web"), None);
        assert_eq!(parts("web@x"), None);
    }
}
