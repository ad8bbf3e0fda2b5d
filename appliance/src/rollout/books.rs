//! Which version of an image each machine boots, and what follows from how that goes. A state machine
//! without I/O: it is told what the image store says, what machines do and what time it is, and says what
//! to keep, what to tell people, and what has become of versions.
//!
//! A version is chosen by the first of these that applies: the site file's own (`image = "web@3"`, which
//! never comes here), a pin of the machine, a trial that the machine is part of, the former version where the
//! current one has failed too often on this machine, the current one.

use std::collections::{BTreeMap, HashMap};
use std::time::{Duration, Instant};

use koboshi_images::Track;
use koboshi_pxe::BootId;
use koboshi_pxe::boots::Stage;

use super::course::{Course, Live};

/// Boots of a version that may fail on a machine where its role does not say (`failures`).
pub const FAILURES: u32 = 3;

/// See the module.
#[derive(Debug, Default)]
pub struct Books {
    pub(super) tracks: BTreeMap<String, Track>,
    /// `failures` of each role.
    limits: HashMap<String, u32>,
    pub(super) courses: HashMap<String, Course>,
    pub(super) live: HashMap<String, Live>,
}

/// What came of something that was heard.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Told {
    /// What is remembered of a machine has changed.
    Keep(String, Course),
    /// A line for the event log.
    Event {
        /// `fallback`, `failed-boot`
        kind: &'static str,
        /// The machine.
        machine: String,
        /// In words.
        text: String,
    },
}

/// A version for a machine, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Choice {
    /// Which.
    pub version: u32,
    /// Why.
    pub because: Because,
}

/// Why a machine gets a version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Because {
    /// It is what machines boot.
    Current,
    /// The machine is pinned to it.
    Pinned,
    /// It is on trial here.
    Trial,
    /// The current one has failed here.
    FellBack {
        /// That one.
        from: u32,
        /// How often, one boot after another.
        failures: u32,
        /// The last time.
        why: String,
    },
}

impl Choice {
    /// In words, for `koboshi explain` and the machine's own console.
    pub fn says(&self, image: &str) -> String {
        let version = self.version;
        match &self.because {
            Because::Current => format!("{image}@{version} is what machines boot"),
            Because::Pinned => format!("the machine is pinned to {image}@{version}"),
            Because::Trial => format!("{image}@{version} is on trial on this machine"),
            Because::FellBack { from, failures, why } => format!(
                "{image}@{from} failed here ({failures} boots, the last: {why}), so it is \
                 {image}@{version} again"
            ),
        }
    }

    /// The same where it is not what all boot.
    pub fn differs(&self, image: &str) -> Option<String> {
        (self.because != Because::Current).then(|| self.says(image))
    }
}

impl Books {
    /// What is remembered of machines.
    pub fn remembering(courses: HashMap<String, Course>) -> Books {
        Books { courses, ..Books::default() }
    }

    /// What the image store and the site say now. Returns what is to be kept: versions that are gone are
    /// forgotten, for their numbers may come back.
    pub fn read(
        &mut self,
        tracks: BTreeMap<String, Track>,
        limits: HashMap<String, u32>,
    ) -> Vec<Told> {
        self.tracks = tracks;
        self.limits = limits;
        let mut told = Vec::new();
        for (machine, course) in &mut self.courses {
            let mut changed = false;
            let images: Vec<String> = course.tries.iter().map(|one| one.image.clone()).collect();
            for image in images {
                let there = self.tracks.get(&image).map(|track| &track.versions);
                changed |= course.keep(&image, |version| {
                    there.is_some_and(|versions| versions.contains(&version))
                });
            }
            if changed {
                told.push(Told::Keep(machine.clone(), course.clone()));
            }
        }
        told
    }

    /// What the image store says of an image.
    pub fn track(&self, image: &str) -> Option<&Track> {
        self.tracks.get(image)
    }

    /// Which version a machine boots now, if there is one.
    pub fn choose(&self, image: &str, machine: &str, role: &str) -> Option<Choice> {
        let track = self.tracks.get(image)?;
        let choice = |version, because| Some(Choice { version, because });
        if let Some(version) = track.pins.get(machine) {
            return choice(*version, Because::Pinned);
        }
        if let Some((version, trial)) = &track.trial
            && trial.machines.contains(machine)
            && self.standing(image, track, *version, machine).0 < bound(self.limit(role))
        {
            return choice(*version, Because::Trial);
        }
        let (current, _) = track.current?;
        let limit = self.limit(role);
        let (failures, why) = self.standing(image, track, current, machine);
        let former = track.former.filter(|former| track.versions.contains(former));
        match former.filter(|_| limit > 0 && failures >= limit) {
            Some(former) => choice(former, Because::FellBack { from: current, failures, why }),
            None => choice(current, Because::Current),
        }
    }

    /// A version that was withdrawn after it failed on a machine, where it is newer than what that boots.
    pub(super) fn failed_here(&self, image: &str, machine: &str, boots: u32) -> Option<String> {
        let withdrawn = &self.tracks.get(image)?.withdrawn;
        let tries = self.courses.get(machine)?.tries.iter();
        let mut failed = tries
            .filter(|one| one.image == image && one.failures > 0)
            .filter(|one| one.version > boots && withdrawn.contains_key(&one.version));
        let one = failed.next_back()?;
        let (version, failures, why) = (one.version, one.failures, &one.why);
        Some(format!(
            "{image}@{version} was withdrawn; {failures} boots failed here, the last: {why}"
        ))
    }

    /// How many boots of a version have failed on a machine one after another, were it at its firmware now,
    /// and why the last did.
    pub(super) fn standing(
        &self,
        image: &str,
        track: &Track,
        version: u32,
        machine: &str,
    ) -> (u32, String) {
        let since = since(track, version);
        let course = self.courses.get(machine);
        let failed = course.map_or(0, |course| course.failures(image, version, since));
        let live = self.live.get(machine).filter(|live| live.is_of(image, version));
        match live.and_then(|live| live.failure(stay(track, version, machine))) {
            Some(why) => (failed + 1, why),
            None => {
                let last = course.and_then(|course| course.of(image, version));
                (failed, last.map(|one| one.why.clone()).unwrap_or_default())
            }
        }
    }

    /// `failures` of a role: 0 is never.
    pub(super) fn limit(&self, role: &str) -> u32 {
        self.limits.get(role).copied().unwrap_or(FAILURES)
    }

    /// The same of the role that a machine booted last.
    pub(super) fn limit_of(&self, machine: &str) -> u32 {
        self.live.get(machine).map_or(FAILURES, |live| self.limit(&live.role))
    }

    /// A machine's firmware speaks, and a boot begins: what it did before is over. `image`: what the new
    /// boot is promised, as `web@3`.
    pub fn opened(
        &mut self,
        machine: &str,
        boot: BootId,
        (image, role): (Option<&str>, &str),
        at: u64,
        now: Instant,
    ) -> Vec<Told> {
        let told = self.count(machine, None, at);
        self.live.insert(machine.to_string(), Live::begin(boot, image, role, now));
        told
    }

    /// A boot is as far as this.
    pub fn reached(
        &mut self,
        machine: &str,
        boot: BootId,
        (stage, note): (Stage, &str),
        at: u64,
        now: Instant,
    ) -> Vec<Told> {
        let Some(live) = self.live.get_mut(machine).filter(|live| live.boot == boot) else {
            return Vec::new();
        };
        let up = live.reaches(stage, note, now);
        if stage == Stage::Rescue {
            return self.count(machine, Some(format!("a rescue shell: {note}")), at);
        }
        let Some((image, version)) = live.image.clone().filter(|_| up) else { return Vec::new() };
        // One that is on trial has to stay up before its failures are forgotten.
        let trial = self.tracks.get(&image).is_some_and(|t| stay(t, version, machine).is_some());
        let course = self.courses.entry(machine.to_string()).or_default();
        match !trial && course.comes_up(&image, version) {
            true => vec![Told::Keep(machine.to_string(), course.clone())],
            false => Vec::new(),
        }
    }

    /// A heartbeat.
    pub fn heard(&mut self, machine: &str, boot: BootId, now: Instant) {
        if let Some(live) = self.live.get_mut(machine).filter(|live| live.boot == boot) {
            live.hears(now);
        }
    }

    /// Somebody here switched the machine off, or starts it anew.
    pub fn ordered(&mut self, machine: &str) {
        if let Some(live) = self.live.get_mut(machine) {
            live.is_ordered();
        }
    }

    /// A stranger that is forgotten, or random MACs would fill the memory.
    pub fn gone(&mut self, machine: &str) {
        self.live.remove(machine);
        self.courses.remove(machine);
    }

    /// Lets a machine try again what failed on it. Returns what is to be kept; nothing if nothing had.
    pub fn forget(&mut self, image: &str, machine: &str) -> Option<Told> {
        let course = self.courses.get_mut(machine)?;
        let kept = course.keep(image, |_| false);
        kept.then(|| Told::Keep(machine.to_string(), course.clone()))
    }

    /// The boot of a machine has failed, if it has, or does for this reason.
    pub(super) fn count(&mut self, machine: &str, why: Option<String>, at: u64) -> Vec<Told> {
        let Some(live) = self.live.get_mut(machine) else { return Vec::new() };
        let Some((image, version)) = live.image.clone() else { return Vec::new() };
        let Some(track) = self.tracks.get(&image) else { return Vec::new() };
        let (since, stay) = (since(track, version), stay(track, version, machine));
        let failed = live.failure(stay);
        let Some(why) = failed.map(|usual| why.unwrap_or(usual)) else { return Vec::new() };
        live.counted = true;
        let limit = self.limits.get(&live.role).copied().unwrap_or(FAILURES);
        let course = self.courses.entry(machine.to_string()).or_default();
        let failures = course.fails(&image, version, &why, at, since);
        let mut told = vec![Told::Keep(machine.to_string(), course.clone())];
        let event = |kind, text| Told::Event { kind, machine: machine.to_string(), text };
        let (kind, then) = match (stay, track.current, track.former) {
            // The verdict on the version says what becomes of it.
            (Some(_), ..) => ("failed-boot", format!("{failures} of {}", bound(limit))),
            _ if limit == 0 => {
                ("failed-boot", "its role has failures = 0: tried again".to_string())
            }
            _ if failures < limit => ("failed-boot", format!("{failures} of {limit}")),
            (_, Some((current, _)), Some(former))
                if current == version && !track.pins.contains_key(machine) =>
            {
                let then = format!("{failures} of {limit}: it falls back to {image}@{former}");
                ("fallback", then)
            }
            _ if failures > limit => return told,
            (_, Some((current, _)), None) if current == version => {
                let none = "there is no former version to fall back to";
                ("failed-boot", format!("{failures} of {limit}, and {none}"))
            }
            _ => {
                let then = format!("{failures} of {limit}, and it is what the machine is to boot");
                ("failed-boot", then)
            }
        };
        told.push(event(kind, format!("its boot of {image}@{version} failed: {why} ({then})")));
        told
    }
}

/// Failures before this do not count against a version: Unix milliseconds.
pub(super) fn since(track: &Track, version: u32) -> u64 {
    match (&track.trial, track.current) {
        (Some((on_trial, trial)), _) if *on_trial == version => trial.begun,
        (_, Some((current, since))) if current == version => since,
        _ => 0,
    }
}

/// How long a version has to stay up on a machine, if it is on trial there.
pub(super) fn stay(track: &Track, version: u32, machine: &str) -> Option<Duration> {
    let (on_trial, trial) = track.trial.as_ref()?;
    let here = *on_trial == version && trial.machines.contains(machine);
    here.then(|| Duration::from_secs(trial.stay))
}

/// A trial has an end even where a role never gives a version up.
pub(super) fn bound(limit: u32) -> u32 {
    if limit == 0 { FAILURES } else { limit }
}
