//! `koboshi image rm` and `gc`: versions go when nobody needs them, and their blobs when no other version
//! leads to them and no boot under way was promised them.
//!
//! The index is written without the versions first, then their blobs are deleted. A journal beside
//! names those meanwhile, as for an import: after a crash the next one finishes (`staging`, `store`).

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::time::{Duration, SystemTime};

use serde::Serialize;

use crate::log::{self, Act, By};
use crate::oci::{self, Descriptor, Index};
use crate::publish::{current, former};
use crate::staging;
use crate::store::{Held, Store};
use crate::version::{ImageRef, check_name, identity, pick, versions};
use crate::{Digest, Error, Holds};

/// Blobs that nothing leads to may be a stranger's whose index is still to come.
const STRANGERS: Duration = Duration::from_secs(24 * 3600);

/// Why a version that says so in the index stays.
const SAID: [(&str, &str); 3] = [
    (oci::A_PINNED, "it is pinned"),
    (oci::A_TRIAL, "it is on trial"),
    (oci::A_MACHINES, "machines boot it by somebody's word"),
];

/// What was removed, or would be.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Collected {
    /// Versions that are gone.
    pub versions: Vec<String>,
    /// Versions that could have gone by their age, with why they stay.
    pub kept: BTreeMap<String, Vec<String>>,
    /// Blobs that are gone.
    pub blobs: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Blobs that stay until boots that were promised them are over.
    pub held: u64,
    /// Why nothing was removed at all: what these need nobody can tell.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub damaged: Vec<String>,
}

impl Store {
    /// Why a version would not be removed; empty where nobody needs it.
    pub fn uses(&self, name: &str, version: u32) -> Result<Vec<String>, Error> {
        let index = self.index()?;
        let wanted = ImageRef { name: name.to_owned(), version: Some(version) };
        Ok(in_use(&index, &self.holds()?, pick(&index.manifests, &wanted)?))
    }

    /// Removes one version.
    pub fn remove(&self, name: &str, version: u32, by: &By) -> Result<Collected, Error> {
        check_name(name)?;
        let held = self.lock()?;
        let index = self.index()?;
        let wanted = ImageRef { name: name.to_owned(), version: Some(version) };
        let found = pick(&index.manifests, &wanted)?;
        let why = in_use(&index, &self.holds()?, found);
        if !why.is_empty() {
            let image = format!("{name}@{version}");
            return Err(Error::InUse { image, why: why.join("; ") });
        }
        let gone = BTreeSet::from([(name.to_owned(), version)]);
        self.take_away(&held, index, &gone, "rm", by, false)
    }

    /// Removes what nobody needs: of each image all versions but the newest `keep`, those in use and the
    /// one that machines booted before; then blobs that nothing leads to. `dry`: only says so. Nothing at all
    /// while something is damaged: what that needs may be any of it.
    pub fn collect(&self, keep: usize, dry: bool, by: &By) -> Result<Collected, Error> {
        let held = self.lock()?;
        if !dry {
            self.sweep(&held)?;
        }
        let index = self.index()?;
        let damaged = self.doubts(&index)?;
        if !damaged.is_empty() {
            return Ok(Collected { damaged, ..Collected::default() });
        }
        let holds = self.holds()?;
        let names: BTreeSet<&str> =
            index.manifests.iter().filter_map(identity).map(|(name, _)| name).collect();
        let (mut gone, mut kept) = (BTreeSet::new(), BTreeMap::new());
        for name in names {
            let mut all: Vec<_> = versions(&index.manifests, name).collect();
            all.sort_by_key(|(number, _)| std::cmp::Reverse(*number));
            let back = former(&index.manifests, name);
            for (number, found) in all.into_iter().skip(keep) {
                let mut why = in_use(&index, &holds, found);
                if back == Some(number) {
                    why.push("`koboshi image rollback` goes back to it".to_owned());
                }
                if why.is_empty() {
                    gone.insert((name.to_owned(), number));
                } else {
                    kept.insert(format!("{name}@{number}"), why);
                }
            }
        }
        let mut collected = self.take_away(&held, index, &gone, "gc", by, dry)?;
        collected.kept = kept;
        Ok(collected)
    }

    fn take_away(
        &self,
        held: &Held,
        mut index: Index,
        gone: &BTreeSet<(String, u32)>,
        act: &str,
        by: &By,
        dry: bool,
    ) -> Result<Collected, Error> {
        let was = index.clone();
        let is_gone = |found: &Descriptor| {
            identity(found)
                .is_some_and(|(name, version)| gone.contains(&(name.to_owned(), version)))
        };
        // What belongs to those that go, and what of it belongs to others too.
        let (mut beside, mut needed) = (BTreeSet::new(), BTreeSet::new());
        let mut freed = BTreeSet::new();
        for found in was.manifests.iter().filter(|found| identity(found).is_some()) {
            let own = match self.beside(&was, found) {
                // A version that is damaged may go; what it led to is found by its age.
                Err(Error::Damaged { .. }) if is_gone(found) => continue,
                own => own?.into_iter().map(|entry| entry.digest.clone()),
            };
            if is_gone(found) {
                beside.extend(own);
                match self.needs(&was, found) {
                    Err(Error::Damaged { .. }) => {}
                    needs => freed.extend(needs?),
                }
            } else {
                needed.extend(own);
            }
        }
        index.manifests.retain(|found| {
            let artefact = identity(found).is_none() && beside.contains(&found.digest);
            !is_gone(found) && (!artefact || needed.contains(&found.digest))
        });
        forget(&was, &mut index, gone, act, by);

        let reached = self.reach(&index)?;
        let promised = self.holds()?.blobs;
        let versions = gone.iter().map(|(name, number)| format!("{name}@{number}")).collect();
        let mut collected = Collected { versions, ..Collected::default() };
        let mut orphans = Vec::new();
        for (digest, size, age) in self.blobs_there()? {
            if reached.contains(&digest) || !(freed.contains(&digest) || age > STRANGERS) {
                continue;
            }
            if promised.contains(&digest) {
                collected.held += 1;
                continue;
            }
            collected.blobs += 1;
            collected.bytes += size;
            orphans.push(digest);
        }
        if dry || (gone.is_empty() && orphans.is_empty()) {
            return Ok(collected);
        }
        let journal = staging::journal(self, &orphans)?;
        if !gone.is_empty() {
            self.write_index(held, &index)?;
        }
        for digest in &orphans {
            let path = self.blob_path(digest);
            fs::remove_file(&path).map_err(Error::io("removing", &path))?;
        }
        // What cannot be removed now is swept by the next import.
        let _ = fs::remove_dir_all(journal);
        Ok(collected)
    }

    /// Every blob in the store, with its size and its age.
    fn blobs_there(&self) -> Result<Vec<(Digest, u64, Duration)>, Error> {
        let dir = self.blobs();
        let reading = |error| Error::io("reading", &dir)(error);
        let mut found = Vec::new();
        for entry in fs::read_dir(&dir).map_err(reading)? {
            let entry = entry.map_err(reading)?;
            let name = format!("sha256:{}", entry.file_name().to_string_lossy());
            let (Ok(digest), Ok(meta)) = (name.parse(), entry.metadata()) else { continue };
            let written = meta.modified().ok();
            let age = written.and_then(|at| SystemTime::now().duration_since(at).ok());
            found.push((digest, meta.len(), age.unwrap_or_default()));
        }
        Ok(found)
    }
}

/// Why a version must stay.
fn in_use(index: &Index, holds: &Holds, found: &Descriptor) -> Vec<String> {
    let Some((name, version)) = identity(found) else { return Vec::new() };
    let mut why = Vec::new();
    if current(&index.manifests, name).is_some_and(|(now, _)| now == version) {
        why.push("machines boot it".to_owned());
    }
    for (key, words) in SAID {
        let said = found.get(key).is_some_and(|said| !said.is_empty() && said != "[]");
        why.extend(said.then(|| words.to_owned()));
    }
    why.extend(holds.of(&format!("{name}@{version}")));
    why
}

/// What the index says about versions that go: who booted before whom, which numbers were given, and
/// that it was done.
fn forget(was: &Index, index: &mut Index, gone: &BTreeSet<(String, u32)>, act: &str, by: &By) {
    let formers: BTreeMap<(&str, u32), u32> = was
        .manifests
        .iter()
        .filter_map(|found| Some((identity(found)?, found.get(oci::A_FORMER)?.parse().ok()?)))
        .collect();
    for found in &mut index.manifests {
        let Some((name, version)) = identity(found).map(|(name, n)| (name.to_owned(), n)) else {
            continue;
        };
        let mut former = formers.get(&(name.as_str(), version)).copied();
        // Formers may lead in a circle: published, gone back from, published again.
        let mut seen = BTreeSet::new();
        while let Some(number) = former.filter(|number| gone.contains(&(name.clone(), *number))) {
            let next = formers.get(&(name.as_str(), number)).copied();
            former = next.filter(|next| seen.insert(*next) && *next != version);
        }
        match former {
            Some(former) => found.annotations.insert(oci::A_FORMER.to_owned(), former.to_string()),
            None => found.annotations.remove(oci::A_FORMER),
        };
    }
    for found in was.manifests.iter() {
        let Some((name, version)) = identity(found) else { continue };
        if gone.contains(&(name.to_owned(), version)) {
            let key = oci::last_key(name);
            let last = index.annotations.get(&key).and_then(|text| text.parse().ok());
            index.annotations.insert(key, version.max(last.unwrap_or(0)).to_string());
            log::note(index, Act::named(act, name, version, found.digest.parse().ok(), by));
        }
    }
}
