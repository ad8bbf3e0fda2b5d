//! Versions on trial and versions for single machines: who gets which one before all do, or instead. All of
//! it is annotations in `index.json`, beside those that say what is published. The appliance reads them,
//! judges by what machines report, and writes its verdict here.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::log::{self, Act, By};
use crate::oci::{self, Descriptor, Index};
use crate::publish::{current, entry_of, former};
use crate::store::Store;
use crate::version::{check_name, identity, versions};
use crate::{Digest, Error};

/// A version that some machines get before all do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Trial {
    /// Which machines.
    pub machines: BTreeSet<String>,
    /// How long each has to stay up, in seconds.
    pub stay: u64,
    /// When it began, Unix milliseconds.
    #[serde(default)]
    pub begun: u64,
    /// Who began it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub by: Option<String>,
    /// What for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// What all others booted when it began.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub against: Option<u32>,
}

/// Why a version was taken back.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Withdrawn {
    /// When, Unix milliseconds.
    pub at: u64,
    /// Why, in words.
    pub why: String,
}

/// A boot in the virtual rack that went well.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tested {
    /// When, Unix milliseconds.
    pub at: u64,
    /// Who tested it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub by: Option<String>,
    /// As what: `bios, ram, 1024 MiB`.
    pub how: String,
}

/// What is said of an image's versions, all in one.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Track {
    /// What machines boot, and since when (Unix milliseconds).
    pub current: Option<(u32, u64)>,
    /// What they booted before.
    pub former: Option<u32>,
    /// What is on trial.
    pub trial: Option<(u32, Trial)>,
    /// Machines that boot a version of their own.
    pub pins: BTreeMap<String, u32>,
    /// Versions that were taken back, and why.
    pub withdrawn: BTreeMap<u32, String>,
    /// All there are.
    pub versions: BTreeSet<u32>,
}

/// What is said of one version.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Marks {
    /// It is on trial.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub trial: Option<Trial>,
    /// It was taken back.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub withdrawn: Option<Withdrawn>,
    /// It came up in the virtual rack.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tested: Option<Tested>,
    /// Machines that boot it whatever the others do.
    #[serde(skip_serializing_if = "BTreeSet::is_empty")]
    pub machines: BTreeSet<String>,
}

impl Marks {
    pub(crate) fn of(found: &Descriptor) -> Marks {
        Marks {
            trial: get(found, oci::A_TRIAL),
            withdrawn: get(found, oci::A_WITHDRAWN),
            tested: get(found, oci::A_TESTED),
            machines: pinned(found),
        }
    }
}

impl Track {
    /// Versions that some machine may boot, though not all do.
    pub fn others(&self) -> BTreeSet<u32> {
        let trial = self.trial.as_ref().map(|(version, _)| *version);
        let mut others: BTreeSet<u32> = self.pins.values().copied().chain(trial).collect();
        others.extend(self.former);
        if let Some((current, _)) = self.current {
            others.remove(&current);
        }
        others.intersection(&self.versions).copied().collect()
    }
}

impl Store {
    /// What is said of every image.
    pub fn tracks(&self) -> Result<BTreeMap<String, Track>, Error> {
        let index = self.index()?;
        let all = &index.manifests;
        let names: BTreeSet<&str> =
            all.iter().filter_map(|found| identity(found).map(|(name, _)| name)).collect();
        Ok(names.into_iter().map(|name| (name.to_owned(), track(all, name))).collect())
    }

    /// Gives a version to some machines before all get it. Where one is on trial already, that is
    /// refused, but for other machines or another time with the same version.
    pub fn begin_trial(
        &self,
        name: &str,
        version: u32,
        machines: BTreeSet<String>,
        stay: u64,
        by: &By,
    ) -> Result<(), Error> {
        self.gate(&self.show(&format!("{name}@{version}"))?)?;
        self.looked_through(name, version)?;
        self.say(name, version, "trial", by, |index, whole| {
            let track = track(&index.manifests, name);
            let refused = |why: String| Err(Error::Trial { name: name.to_owned(), why });
            if let Some((other, _)) = track.trial.filter(|(other, _)| *other != version) {
                return refused(format!(
                    "{name}@{other} is on trial; `koboshi image publish {name}@{other} --abort` \
                     ends that, `--now` gives it to all"
                ));
            }
            if track.current.is_some_and(|(current, _)| current == version) {
                return refused(format!("{name}@{version} is what all machines boot already"));
            }
            if let Some((machine, pinned)) =
                machines.iter().find_map(|machine| track.pins.get_key_value(machine))
            {
                return refused(format!(
                    "{machine} is pinned to {name}@{pinned}; `koboshi image unpin {name} --machine \
                     {machine}` lets go of it"
                ));
            }
            whole(self)?;
            let trial = Trial {
                machines,
                stay,
                begun: now(),
                by: by.author.clone(),
                reason: by.reason.clone(),
                against: track.current.map(|(current, _)| current),
            };
            let entry = entry_of(index, name, version)?;
            entry.annotations.remove(oci::A_WITHDRAWN);
            put(entry, oci::A_TRIAL, &trial);
            Ok(true)
        })
    }

    /// Ends the trial of an image, whatever it was of. Twice is once.
    pub fn end_trial(&self, name: &str, by: &By) -> Result<(), Error> {
        let Some(track) = self.tracks()?.remove(name) else { return Ok(()) };
        let Some((version, _)) = track.trial else { return Ok(()) };
        self.say(name, version, "trial-end", by, |index, _| {
            let entry = entry_of(index, name, version)?;
            Ok(entry.annotations.remove(oci::A_TRIAL).is_some())
        })
    }

    /// Writes down that a version is no good, for the reason that `by` gives; its trial is over by it.
    pub fn withdraw(&self, name: &str, version: u32, by: &By) -> Result<(), Error> {
        self.say(name, version, "withdraw", by, |index, _| {
            let entry = entry_of(index, name, version)?;
            entry.annotations.remove(oci::A_TRIAL);
            let why = by.reason.clone().unwrap_or_default();
            put(entry, oci::A_WITHDRAWN, &Withdrawn { at: now(), why });
            Ok(true)
        })
    }

    /// Gives a machine a version of its own, until it is unpinned.
    pub fn pin_machine(
        &self,
        name: &str,
        version: u32,
        machine: &str,
        by: &By,
    ) -> Result<(), Error> {
        self.gate(&self.show(&format!("{name}@{version}"))?)?;
        self.looked_through(name, version)?;
        self.say(name, version, &format!("pin {machine}"), by, |index, whole| {
            whole(self)?;
            let was = unpin(index, name, machine, Some(version));
            let entry = entry_of(index, name, version)?;
            let mut machines = pinned(entry);
            let new = machines.insert(machine.to_owned());
            put(entry, oci::A_MACHINES, &machines);
            Ok(was || new)
        })
    }

    /// Lets a machine boot again what all boot. Says which version it had.
    pub fn unpin_machine(&self, name: &str, machine: &str, by: &By) -> Result<Option<u32>, Error> {
        let track = self.tracks()?.remove(name);
        let track = track.ok_or_else(|| Error::NoSuchImage(name.to_owned()))?;
        let Some(version) = track.pins.get(machine).copied() else { return Ok(None) };
        self.say(name, version, &format!("unpin {machine}"), by, |index, _| {
            Ok(unpin(index, name, machine, None))
        })?;
        Ok(Some(version))
    }

    /// Writes down that a version came up in the virtual rack.
    pub fn tested(&self, name: &str, version: u32, how: &str, by: &By) -> Result<(), Error> {
        self.say(name, version, "test", by, |index, _| {
            let entry = entry_of(index, name, version)?;
            let tested = Tested { at: now(), by: by.author.clone(), how: how.to_owned() };
            put(entry, oci::A_TESTED, &tested);
            Ok(true)
        })
    }

    /// A version that no machine has booted yet passes the same gate as one that is published. Before the
    /// lock is taken: what it holds cannot change, and this takes a while.
    fn looked_through(&self, name: &str, version: u32) -> Result<(), Error> {
        check_name(name)?;
        let found = self.show(&format!("{name}@{version}"))?;
        if found.published.is_some() { Ok(()) } else { self.gate(&found) }
    }

    /// One change of what is said of a version, with its line in the log; `change` says whether there is any.
    fn say(
        &self,
        name: &str,
        version: u32,
        act: &str,
        by: &By,
        change: impl FnOnce(&mut Index, &dyn Fn(&Store) -> Result<(), Error>) -> Result<bool, Error>,
    ) -> Result<(), Error> {
        check_name(name)?;
        let held = self.lock()?;
        let mut index = self.index()?;
        let found = self.one(&index, name, version)?;
        let digest: Digest = found.digest;
        if change(&mut index, &|store: &Store| store.whole(&found))? {
            log::note(&mut index, Act::named(act, name, version, Some(digest), by));
            self.write_index(&held, &index)?;
        }
        Ok(())
    }
}

fn track(all: &[Descriptor], name: &str) -> Track {
    let mut track = Track { former: former(all, name), ..Track::default() };
    if let Some((number, found)) = current(all, name) {
        let since = found.get(oci::A_CURRENT).or(found.get(oci::A_PUBLISHED));
        let since = since.and_then(|text| text.parse::<Timestamp>().ok());
        let since = since.and_then(|at| u64::try_from(at.as_millisecond()).ok());
        track.current = Some((number, since.unwrap_or(0)));
    }
    for (number, found) in versions(all, name) {
        track.versions.insert(number);
        let withdrawn: Option<Withdrawn> = get(found, oci::A_WITHDRAWN);
        track.withdrawn.extend(withdrawn.map(|withdrawn| (number, withdrawn.why)));
        track.pins.extend(pinned(found).into_iter().map(|machine| (machine, number)));
        // Of two, which nobody writes, the newer one.
        if let Some(trial) = get(found, oci::A_TRIAL)
            && track.trial.as_ref().is_none_or(|(other, _)| *other < number)
        {
            track.trial = Some((number, trial));
        }
    }
    track
}

fn unpin(index: &mut Index, name: &str, machine: &str, but: Option<u32>) -> bool {
    let mut was = false;
    for entry in &mut index.manifests {
        let Some((found, number)) = identity(entry) else { continue };
        if found != name || Some(number) == but {
            continue;
        }
        let mut machines = pinned(entry);
        if machines.remove(machine) {
            was = true;
            match machines.is_empty() {
                true => drop(entry.annotations.remove(oci::A_MACHINES)),
                false => put(entry, oci::A_MACHINES, &machines),
            }
        }
    }
    was
}

/// Machines that boot this version whatever the others do.
fn pinned(found: &Descriptor) -> BTreeSet<String> {
    get(found, oci::A_MACHINES).unwrap_or_default()
}

/// What an annotation of ours says; one that does not read says nothing.
fn get<T: DeserializeOwned>(found: &Descriptor, key: &str) -> Option<T> {
    serde_json::from_str(found.get(key)?).ok()
}

fn put(entry: &mut Descriptor, key: &str, value: &impl Serialize) {
    let text = String::from_utf8_lossy(&oci::to_bytes(value)).into_owned();
    entry.annotations.insert(key.to_owned(), text);
}

fn now() -> u64 {
    u64::try_from(Timestamp::now().as_millisecond()).unwrap_or(0)
}
